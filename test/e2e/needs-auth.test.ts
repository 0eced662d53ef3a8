import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp } from '../support/daemon.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';

describe('a tunnel that waits for a person since the boot', () => {
  const reaper = createReaper();
  let home: Home;
  let daemon: RunningDaemon | undefined;
  let server: http.Server;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  let told: { readonly headers: http.IncomingHttpHeaders; readonly body: any }[];
  let status: number | null;

  beforeEach(async () => {
    home = makeHome();
    told = [];
    status = 204;
    server = http.createServer((request, response) => {
      let text = '';
      request.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      request.on('end', () => {
        told.push({ headers: request.headers, body: JSON.parse(text) });
        if (status !== null) response.writeHead(status).end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const header = join(home.dir, 'header');
    mkdirSync(home.dir, { recursive: true });
    writeFileSync(header, 'Authorization: Bearer t0psecret\n', { mode: 0o600 });
    const url = `${origin()}/t0ken`;
    const common = { remote_host: 'me@127.0.0.1', remote_port: '80', interactive: true };
    home.configure({ on_needs_auth: { url, header_file: header } }, [
      { ...common, name: 'vault', local_port: await freeLocalPort() },
      { ...common, name: 'off', local_port: await freeLocalPort(), enabled: false },
    ]);
  });

  afterEach(async () => {
    await daemon?.end('SIGTERM');
    daemon = undefined;
    await reaper.end();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    home.remove();
  });

  const origin = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function ask(path: string) {
    return (await home.api('GET', path)).body;
  }

  it('is announced: to who is named, in its log, and to who looks; the daemon is ready all the same', async () => {
    daemon = await startUp(reaper, home);
    await comes(() => told.length > 0);
    const vault = (await ask('/v1/tunnels/vault')) as Record<string, string>;
    const [{ headers, body } = { headers: {}, body: {} }] = told;
    expect(headers.authorization).to.equal('Bearer t0psecret');
    expect(headers['user-agent']).to.match(/^tunward\/\d+\.\d+\.\d+/);
    expect(body).to.include({ event: 'tunnel.needs_auth', why: 'boot' });
    expect(body.tunnel).to.include({ id: vault.id, name: 'vault', state: 'stopped', reason: 'needs_auth' });
    expect(Object.keys(body.tunnel), 'as the API has it').to.deep.equal(Object.keys(vault));
    expect(vault.remedy).to.equal("it waits for a person: 'tunward auth vault', or the panel");
    expect(home.logLines(vault.id ?? '').map((line) => line.slice(22))).to.deep.equal([
      'Waits for a person: tunward auth vault',
    ]);
    const { status: ready, body: readiness } = await home.api('GET', '/readyz?verbose');
    expect([ready, readiness.status]).to.deep.equal([200, 'ok']);
    const waiting = { name: 'persons', status: 'ok', detail: `1 waits for one: ${vault.id?.slice(0, 8)}` };
    expect(readiness.checks).to.deep.include(waiting);
    expect(JSON.stringify(readiness), 'anybody may read it').not.to.contain('vault');
    expect((await ask('/livez')).status).to.equal('ok');
    expect((await ask('/health')).status).to.equal('ok');
    expect(told, 'and of one that is not enabled nothing').to.have.length(1);
  });

  it('does not keep the daemon from ending, where who is told does not answer', async () => {
    status = null;
    daemon = await startUp(reaper, home);
    await comes(() => told.length > 0);
    const code = await daemon.end('SIGTERM');
    expect([code, told.length]).to.deep.equal([0, 1]);
    expect(daemon.stderr()).to.contain(`${origin()} was not told, after 1 try`);
    expect(daemon.stderr()).not.to.match(/t0ken|t0psecret/);
  });

  async function comes(isSo: () => boolean): Promise<void> {
    expect(await until(isSo, { timeoutMs: 15_000, everyMs: 10 }), daemon?.stderr()).to.equal(true);
  }
});
