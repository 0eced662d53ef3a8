import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { type FakeDaemon, tunnelRecord, useFakeDaemon } from './fake-daemon.js';
import { type Running, said, startTunward, tunward } from './run.js';

const id = '76692f8a1adb8d8bee5f3b29e1b42602';
const at = '2026-01-16T10:00:30.000Z';

describe('tunward events', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  /** The streams that are open, and the Last-Event-ID with which each began. */
  let streams: { response: ServerResponse; last: string | undefined }[];
  useFakeDaemon(reaper, (started) => {
    daemon = started;
    streams = [];
    daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
    daemon.routes.set('GET /v1/events', () => ({
      stream: (response, headers) => {
        streams.push({ response, last: headers['last-event-id']?.toString() });
        response.write('retry: 1000\n\n');
      },
    }));
  });
  const start = (...args: string[]) => startTunward(reaper, ['events', '--socket', daemon.socket, ...args]);
  const frame = (n: number, type: string, fields: object = {}) =>
    `id: aaaaaaaa-${n}\nevent: ${type}\ndata: ${JSON.stringify({ id: n, at, type, ...fields })}\n\n`;

  async function connected(running: Running, count = 1): Promise<ServerResponse> {
    const { until } = await import('#lib/time.js');
    const found = await until(() => streams[count - 1], { timeoutMs: 15_000, everyMs: 10 });
    if (!found) throw new Error(running.stderr());
    return found.response;
  }

  it('tells each event in a line, by the names of the tunnels', async () => {
    const running = start();
    const stream = await connected(running);
    stream.write(frame(1, 'tunnel.starting', { tunnel: id, status: tunnelRecord({ state: 'starting' }) }));
    stream.write(frame(2, 'tunnel.output', { tunnel: id, line: 'debug1: \u001b[2Jhello' }));
    stream.write(frame(3, 'tunnel.up', { tunnel: id, status: tunnelRecord() }));
    stream.write(
      frame(4, 'process.killed', {
        tunnel: id,
        kill: { killed: [{ pid: 5, command: 'ssh', why: 'x' }], survivors: [] },
      }),
    );
    stream.write(frame(5, 'something.new', { tunnel: id }));
    await said(running, 'stdout', 'something.new');
    const lines = running.stdout().trimEnd().split('\n');
    expect(lines.map((line) => line.replace(/^\S+ \S+ {2}/, ''))).to.deep.equal([
      'web  starting',
      'web  | debug1: ?[2Jhello',
      'web  up  localhost:8001 → localhost:8000 via user@remote-host1',
      'web  killed ssh 5 (x)',
      'something.new',
    ]);
    running.child.kill('SIGINT');
    expect((await running.ended).code).to.equal(130);
  });

  it('is a record for each with --json, as the daemon has it', async () => {
    const running = start('--json');
    const stream = await connected(running);
    // A character that comes in two pieces, and an event in three.
    const bytes = Buffer.from(frame(1, 'log.failed', { message: 'ж', odd_key_2: 1 }));
    const cut = bytes.indexOf(Buffer.from('ж')) + 1;
    stream.write(bytes.subarray(0, 10));
    stream.write(bytes.subarray(10, cut));
    stream.write(bytes.subarray(cut));
    stream.write(':\n\n');
    await said(running, 'stdout', '\n');
    expect(running.stdout()).to.equal(
      `${JSON.stringify({ type: 'log.failed', id: 1, at, message: 'ж', odd_key_2: 1 })}\n`,
    );
  });

  it('asks for the tunnels and types that are meant, and by their ids', async () => {
    daemon.routes.set('GET /v1/tunnels/web', () => ({ body: tunnelRecord() }));
    const running = start('--tunnel', 'web', '--type', 'tunnel', '--type', 'process.killed');
    await connected(running);
    expect(daemon.asked.at(-1)).to.equal(`GET /v1/events?tunnel=${id}&type=tunnel&type=process.killed`);
  });

  it('comes back where it was when the connection breaks, and says what is not known', async () => {
    const running = start();
    const stream = await connected(running);
    stream.write(frame(7, 'tunnel.up', { tunnel: id, status: tunnelRecord() }));
    await said(running, 'stdout', 'web  up');
    stream.destroy();
    const second = await connected(running, 2);
    expect(streams[1]?.last).to.equal('aaaaaaaa-7');
    expect(running.stderr()).to.equal('The daemon went away: waiting for it\n');
    second.write('id: bbbbbbbb-3\nevent: gap\ndata: {"reason":"the daemon has been started again since"}\n\n');
    await said(running, 'stdout', 'gap  some events were not seen: the daemon has been started again since\n');
    second.end();
    await connected(running, 3);
    expect(streams[2]?.last).to.equal('bbbbbbbb-3');
  });

  it('ends when nobody reads it any more', async () => {
    const running = start('--json');
    const stream = await connected(running);
    running.child.stdout?.destroy();
    stream.write(frame(1, 'daemon.stopping'));
    stream.write(frame(2, 'daemon.stopping'));
    expect((await running.ended).code).to.equal(141);
  });

  it('fails where there is no daemon, one that refuses, and one that knows no events', async () => {
    expect((await tunward(reaper, ['events', '--socket', `${daemon.socket}-not`])).code).to.equal(75);
    daemon.routes.set('GET /v1/events', () => ({
      status: 401,
      body: { code: 'ERR_UNAUTHORIZED', detail: 'Bear a token' },
    }));
    const refused = await start().ended;
    expect([refused.code, refused.stderr]).to.deep.equal([5, 'error: Bear a token\n']);
    daemon.routes.set('GET /v1/events', () => ({ body: {} }));
    expect((await start().ended).code).to.equal(75);
  });

  it('knows a type that was mistyped', async () => {
    const { code, stderr } = await start('--type', 'tunnel.upp').ended;
    expect(code).to.equal(2);
    expect(stderr).to.contain("no events of the type 'tunnel.upp': did you mean tunnel.up?");
    expect((await start('--type', 'weather').ended).stderr).to.contain('expected one of boot, config, daemon');
  });

  it('hears a real daemon', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-events-'));
    try {
      const tunnel = {
        name: 'web',
        remote_host: 'me@host',
        remote_port: '80',
        local_port: `127.0.0.1:${await freeLocalPort()}`,
      };
      const config = {
        state_dir: `${dir}/state`,
        log_dir: `${dir}/log`,
        api: { socket: `${dir}/s` },
        tunnels: [tunnel],
      };
      writeFileSync(join(dir, 'tunward.yaml'), `${JSON.stringify(config)}\n`);
      // Without an ssh: what is to be heard is that it cannot be started.
      const up = startTunward(reaper, ['up', '-c', join(dir, 'tunward.yaml')], { env: { PATH: dir, HOME: dir } });
      await said(up, 'stderr', 'ready');
      const running = startTunward(reaper, ['events', '--socket', `${dir}/s`, '--type', 'tunnel', '--json']);
      await said(running, 'stdout', '"type":"tunnel.backoff"');
      const events = running
        .stdout()
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(events.every(({ type }) => type.startsWith('tunnel.'))).to.equal(true);
      expect(events.at(-1).status).to.include({ name: 'web' });
    } finally {
      await reaper.end();
      rmSync(dir, { recursive: true });
    }
  });
});
