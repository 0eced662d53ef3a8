import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../../support/daemon.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper } from '../../support/reaper.js';
import { startSshd } from '../../support/sshd.js';

/** A daemon with tunnels that are up, and somebody who hears of everything that is done to them. */
export interface Target {
  readonly home: Home;
  readonly daemon: RunningDaemon;
  readonly port: number;
  readonly token: string;
  readonly readToken: string;
  /** What has been done so far: each change of a tunnel, of the configuration, of the daemon. */
  actions(): readonly string[];
  /** How everything is that an action would change, as text to compare by. */
  look(): Promise<string>;
  /** An address of its own for each who is to be taken for somebody else. */
  newAddress(): string;
}

export async function withTarget(act: (target: Target) => Promise<string>): Promise<string> {
  await using reaper = createReaper();
  await using sshd = await startSshd();
  const home = makeHome();
  const port = await freeLocalPort();
  const readFile = join(home.dir, 'read.token');
  const actions: string[] = [];
  let addresses = 0;
  let events: http.ClientRequest | undefined;
  try {
    writeFileSync(readFile, 'a-token-for-looking\n', { mode: 0o600 });
    const common = { remote_host: sshd.host, ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    const victim = { ...common, name: 'victim', local_port: await freeLocalPort(), groups: ['g'] };
    const stopped = { ...common, name: 'stopped', local_port: await freeLocalPort(), enabled: false };
    const asks = { ...common, name: 'asks', local_port: await freeLocalPort(), interactive: true };
    const api = {
      socket: home.socket,
      listen: String(port),
      tokens: [{ file: readFile, scope: 'read' }],
      compat: true,
    };
    home.configure({ api }, [victim, stopped, asks]);
    const daemon = await startUp(reaper, home);
    await tunnelIn(home, 'victim', 'up');
    events = await listen(home.socket, (type) => actions.push(type));
    const figure = await act({
      ...{ home, daemon, port },
      token: readFileSync(join(home.stateDir, 'token'), 'utf8').trim(),
      readToken: 'a-token-for-looking',
      actions: () => actions,
      look: () => look(home),
      newAddress: () => {
        addresses++;
        return `127.9.${Math.floor(addresses / 250)}.${(addresses % 250) + 1}`;
      },
    });
    await expectObserver(home, actions);
    events.destroy();
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    return figure;
  } finally {
    events?.destroy();
    await reaper.end();
    home.remove();
  }
}

/** Or nothing has been seen because nobody was looking. */
async function expectObserver({ api }: Home, actions: readonly string[]): Promise<void> {
  const before = actions.length;
  expect((await api('POST', '/v1/tunnels/victim/restart')).status, 'a restart that is right').to.equal(200);
  expect(await until(() => actions.slice(before).includes('tunnel.up'), { timeoutMs: 5000 }), 'heard of').to.equal(
    true,
  );
}

async function look({ api, configFile }: Home): Promise<string> {
  const { body } = await api('GET', '/v1/tunnels');
  const tunnels = body.tunnels.map(({ usage: _usage, ...rest }: Record<string, unknown>) => rest);
  const config = createHash('sha256').update(readFileSync(configFile)).digest('hex');
  return JSON.stringify({ tunnels, config });
}

/** What a tunnel says is no action. */
const ignored = new Set(['tunnel.output']);

function listen(socketPath: string, note: (type: string) => void): Promise<http.ClientRequest> {
  return new Promise((resolve, reject) => {
    const headers = { host: 'localhost' };
    const request = http.get({ socketPath, path: '/v1/events', headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
          const [, type] = /^event: (.*)$/m.exec(text.slice(0, end)) ?? [];
          if (type !== undefined && !ignored.has(type)) note(type);
          text = text.slice(end + 2);
        }
      });
      // Ended by whoever opened it.
      response.on('error', () => undefined);
      resolve(request);
    });
    request.once('error', reject);
  });
}
