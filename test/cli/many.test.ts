import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { need } from '../support/need.js';
import { createReaper } from '../support/reaper.js';
import { runOnTerminal } from '../support/terminal.js';
import { type FakeDaemon, operationRecord, tunnelRecord, useFakeDaemon } from './fake-daemon.js';
import { mainFile, tunward } from './run.js';

describe('tunward and many tunnels', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  useFakeDaemon(reaper, (started) => {
    daemon = started;
  });
  const run = (...args: string[]) => tunward(reaper, [...args, '--socket', daemon.socket]);
  const idOf = (at: number) => at.toString(16).padStart(32, '0');
  const posts = () => daemon.asked.filter((line) => line.startsWith('POST'));

  function serve(count: number): void {
    const tunnels = Array.from({ length: count }, (_, at) => tunnelRecord({ id: idOf(at), name: `tunnel-${at}` }));
    daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels } }));
  }

  /** An operation of 300 in which each look finds a hundred more ready, and the last one failed. */
  function serveOperation(): void {
    let ready = 0;
    const result = { state: 'up', took_ms: 12, phases: { stop_ms: 1, free_ms: 1, start_ms: 10 } };
    const error = { code: 'ERR_PORT_HELD', status: 409, detail: 'Port 8 is held by pid 7', port: 8, holders: [] };
    const operation = () => ({
      id: 'op',
      action: 'restart',
      state: ready === 300 ? 'done' : 'running',
      tunnels: Array.from({ length: 300 }, (_, at) => {
        const head = { id: idOf(at), name: `tunnel-${at}` };
        if (at >= ready) return { ...head, state: 'waiting' };
        return at === 299 ? { ...head, state: 'failed', error } : { ...head, state: 'done', result };
      }),
    });
    daemon.routes.set('POST /v1/operations', () => ({ status: 202, body: operation() }));
    daemon.routes.set('GET /v1/operations/op', () => {
      ready += 100;
      return { body: operation() };
    });
  }

  it('is one operation of the daemon, which is followed to its end', async () => {
    serve(300);
    serveOperation();
    const { code, stdout, stderr } = await run('restart', '--all');
    expect(code).to.equal(3);
    expect(posts()).to.deep.equal(['POST /v1/operations']);
    const lines = stdout.trimEnd().split('\n');
    expect(lines).to.have.length(299);
    expect(lines[0]).to.equal('✔ tunnel-0  up in 12 ms (stop 1, free 1, start 10)');
    expect(stderr).to.equal('✖ tunnel-299  Port 8 is held by pid 7\n');
  });

  it('has each of them with --json, in their order', async () => {
    serve(300);
    serveOperation();
    const { code, stdout } = await run('restart', '--all', '--json');
    expect(code).to.equal(3);
    const { tunnels } = JSON.parse(stdout);
    expect(tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(
      Array.from({ length: 300 }, (_, at) => `tunnel-${at}`),
    );
    expect(tunnels[0]).to.deep.equal({
      id: idOf(0),
      name: 'tunnel-0',
      state: 'up',
      took_ms: 12,
      phases: { stop_ms: 1, free_ms: 1, start_ms: 10 },
    });
    expect(tunnels[299].error).to.include({ code: 'ERR_PORT_HELD', port: 8 });
  });

  it('keeps the order in which they were named, also by an id, whoever is ready first', async () => {
    const id = idOf(7);
    let isQuickAsked = false;
    daemon.routes.set('POST /v1/tunnels/slow/restart', async () => {
      await until(() => isQuickAsked, { timeoutMs: 10_000, everyMs: 50 });
      return { body: operationRecord({ name: 'slow' }) };
    });
    daemon.routes.set(`POST /v1/tunnels/${id}/restart`, () => {
      isQuickAsked = true;
      return { body: operationRecord({ id, name: 'quick' }) };
    });
    const { stdout } = await run('restart', 'slow', id, '--json');
    expect(JSON.parse(stdout).tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(['slow', 'quick']);
  });

  it('asks for each where the daemon has no operations, and for some of them at once only', async () => {
    serve(150);
    let [now, most] = [0, 0];
    for (let at = 0; at < 150; at++) {
      daemon.routes.set(`POST /v1/tunnels/${idOf(at)}/stop`, async () => {
        most = Math.max(most, ++now);
        await systemClock.sleep(5);
        now--;
        return { body: operationRecord({ id: idOf(at), name: `tunnel-${at}`, state: 'stopped' }) };
      });
    }
    const { code, stdout } = await run('stop', '--all');
    expect(code).to.equal(0);
    expect(stdout.trimEnd().split('\n')).to.have.length(150);
    expect(most).to.be.within(2, 64);
  });

  describe('what takes long', () => {
    const command = () => [process.execPath, mainFile, 'restart', 'web', '--socket', daemon.socket];

    it('has a line on a terminal that is gone afterwards', async function () {
      need(this, 'pty');
      let release = () => {};
      daemon.routes.set('POST /v1/tunnels/web/restart', async () => {
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        return { body: operationRecord() };
      });
      const terminal = runOnTerminal(reaper, command(), { columns: 120 });
      const isSaid = async () => (await terminal.rows()).some((row) => /^restarting web … \ds$/.test(row));
      expect(await until(isSaid, { timeoutMs: 10_000, everyMs: 20 }), terminal.bytes()).to.equal(true);
      release();
      expect(await terminal.ended).to.equal(0);
      const rows = await terminal.all();
      expect(rows).to.have.length(1);
      expect(rows[0]).to.match(/^✔ web {2}up in 412 ms/);
    });

    for (const [what, env] of Object.entries({ NO_COLOR: { NO_COLOR: '1' }, 'a dumb terminal': { TERM: 'dumb' } })) {
      it(`has none with ${what}`, async function () {
        need(this, 'pty');
        daemon.routes.set('POST /v1/tunnels/web/restart', async () => {
          await systemClock.sleep(1300);
          return { body: operationRecord() };
        });
        const terminal = runOnTerminal(reaper, command(), { columns: 120, env });
        expect(await terminal.ended).to.equal(0);
        expect(terminal.bytes()).to.not.contain('restarting');
      });
    }

    it('has none in a pipe', async () => {
      daemon.routes.set('POST /v1/tunnels/web/restart', async () => {
        await systemClock.sleep(1300);
        return { body: operationRecord() };
      });
      const { stdout, stderr } = await run('restart', 'web');
      expect(stderr).to.equal('');
      expect(stdout).to.match(/^✔ web/);
    });
  });
});
