import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { makeKeys } from '#lib/sshd/keys.js';
import { until } from '#lib/time.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';
import { createStand, remoteSpec } from '../../support/embedded.js';
import { startServer } from '../../support/servers.js';

describe('the engine embedded, and a server that brings more connections than there is room for', () => {
  const ssh2 = loadSsh2();

  // Each is a descriptor of this process, and a server may open as many as it likes.
  it('takes 1,024 of them at a time, turns the others away, and takes more when some have ended', async () => {
    const { private: key } = makeKeys(ssh2, 'test');
    const count = { opened: 0, refused: 0 };
    const channels: { close(): void }[] = [];
    let bring: (times: number) => void = () => undefined;
    const server = new ssh2.Server({ hostKeys: [key] }, (client) => {
      client.on('error', () => undefined).on('authentication', (login) => login.accept());
      client.on('request', (accept, _reject, _name, { bindAddr, bindPort }) => {
        accept?.();
        bring = (times) => {
          for (let time = 0; time < times; time++)
            client.forwardOut(bindAddr, bindPort, '127.0.0.1', 9, (error, channel) => {
              if (error) {
                count.refused++;
                return;
              }
              count.opened++;
              channels.push(channel.on('error', () => undefined).resume());
            });
        };
      });
    });
    await using _closing = {
      [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
    };
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    let taken = 0;
    await using target = await startServer((socket) => {
      taken++;
      socket
        .on('error', () => undefined)
        .once('close', () => taken--)
        .resume();
    });
    await using stand = createStand();
    const sshOptions = {
      ...{ Port: String((server.address() as AddressInfo).port), User: 'u', StrictHostKeyChecking: 'no' },
      ...{ UserKnownHostsFile: 'none', GlobalKnownHostsFile: 'none' },
    };
    const spec = await remoteSpec({ host: '127.0.0.1', sshConfigFile: 'none' }, target.port, { sshOptions });
    const link = await stand.start(spec);
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    bring(1100);
    await until(() => count.opened + count.refused === 1100, { timeoutMs: 20_000 });
    expect(count).to.deep.equal({ opened: 1024, refused: 76 });
    expect(link.refusals()).to.deep.equal({
      count: 76,
      last: 'channel 76: open failed: resource shortage: 1024 connections are open',
    });
    for (const channel of channels.slice(0, 10)) channel.close();
    expect(await until(() => taken === 1014, { timeoutMs: 10_000 }), `${taken} at the target`).to.equal(true);
    bring(20);
    await until(() => count.opened + count.refused === 1120, { timeoutMs: 10_000 });
    expect(count).to.deep.equal({ opened: 1034, refused: 86 });
    expect(await link.check()).to.equal('ready');
  });
});
