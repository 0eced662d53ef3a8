import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeKeys } from '#lib/sshd/keys.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';
import { createStand, localSpec } from '../../support/embedded.js';

/** Two servers behind one address, in turns: one is not the one that is meant. */
describe('the engine embedded, and a host that is met for the first time by two connections at once', () => {
  const ssh2 = loadSsh2();
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const act of undo.splice(0).toReversed()) await act();
  });

  async function meet({ isSame }: { readonly isSame: boolean }) {
    const keys = [0, 1].map(() => makeKeys(ssh2, 'test').private);
    const ports: number[] = [];
    for (const place of [0, 1]) {
      const key = keys[isSame ? 0 : place] ?? '';
      const server = new ssh2.Server({ hostKeys: [key] }, (client) => {
        client.on('error', () => undefined).on('authentication', (login) => login.accept());
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      undo.push(() => new Promise<void>((resolve) => server.close(() => resolve())));
      ports.push((server.address() as AddressInfo).port);
    }
    let turn = 0;
    const door = net.createServer((client) => {
      const server = net.connect(ports[turn++ % 2] ?? 0, '127.0.0.1').on('error', () => client.destroy());
      client.on('error', () => server.destroy()).once('close', () => server.destroy());
      client.pipe(server).pipe(client);
    });
    door.listen(0, '127.0.0.1');
    await once(door, 'listening');
    undo.push(() => door.close());
    const dir = mkdtempSync(join(tmpdir(), 'tunward-race-'));
    undo.push(() => rmSync(dir, { recursive: true }));
    const knownHosts = join(dir, 'known_hosts');
    const stand = createStand({ knownHosts });
    undo.push(() => stand[Symbol.asyncDispose]());
    const sshOptions = {
      ...{ Port: String((door.address() as AddressInfo).port), User: 'u' },
      GlobalKnownHostsFile: 'none',
    };
    const start = async () => {
      const link = await stand.start(
        await localSpec({ host: '127.0.0.1', sshConfigFile: 'none' }, 9, { share: false, sshOptions }),
      );
      const settled = await link.settled();
      return settled === 'ready' ? settled : settled.reason;
    };
    const settled = await Promise.all([start(), start()]);
    const lines = existsSync(knownHosts) ? readFileSync(knownHosts, 'utf8').trim().split('\n') : [];
    return { settled, lines };
  }

  // Both have read known_hosts before one of them wrote: from then on both keys are right, for good.
  it('takes one key, not two', async () => {
    const { settled, lines } = await meet({ isSame: false });
    expect(lines).to.have.length(1);
    expect(settled.toSorted()).to.deep.equal(['host_key_changed', 'ready']);
  });

  it('writes down once what both have met', async () => {
    const { settled, lines } = await meet({ isSame: true });
    expect(settled).to.deep.equal(['ready', 'ready']);
    expect(lines).to.have.length(1);
  });
});
