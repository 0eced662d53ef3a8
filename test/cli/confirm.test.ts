import { spawn } from 'node:child_process';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { nobody } from '../support/stranger.js';
import { type OnTerminal, runOnTerminal } from '../support/terminal.js';
import { type FakeDaemon, operationRecord, startFakeDaemon, tunnelRecord } from './fake-daemon.js';
import { mainFile, tunward } from './run.js';

describe('what has to be agreed to', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());
  const run = (...args: string[]) => tunward(reaper, args);
  const onTerminal = (...args: string[]) =>
    runOnTerminal(reaper, [process.execPath, mainFile, ...args], { columns: 160 });

  describe('--force', () => {
    let daemon: FakeDaemon;
    beforeEach(async () => {
      daemon = await startFakeDaemon();
      const holder = { pid: 4711, start_ticks: 1, command: 'nginx: master', user: 'www', age_s: 200 };
      const listeners = [{ protocol: 'tcp', address: '127.0.0.1', port: 8001, inode: 7, uid: 33, holders: [holder] }];
      daemon.routes.set('GET /v1/tunnels/web', () => ({ body: tunnelRecord() }));
      daemon.routes.set('GET /v1/ports/8001', () => ({ body: { port: 8001, listeners } }));
      daemon.routes.set('POST /v1/tunnels/web/restart', () => ({ body: operationRecord() }));
    });
    afterEach(() => daemon.close());
    const force = (...args: string[]) => ['restart', 'web', '--force', '--socket', daemon.socket, ...args];
    const restarts = () => daemon.asked.filter((line) => line.startsWith('POST'));

    it('fails where nobody can be asked, names --yes and whom it would meet, and does nothing', async () => {
      const { code, stdout, stderr } = await run(...force());
      expect(code).to.equal(2);
      expect(stdout).to.equal('');
      expect(stderr).to.contain('add --yes');
      expect(stderr).to.match(/PID +USER +CMD +ADDR +STARTED/);
      expect(stderr).to.match(/4711 +www +nginx +127\.0\.0\.1:8001 +3m 20s ago/);
      expect(restarts()).to.deep.equal([]);
    });

    it('needs no terminal with --yes, and looks at nobody first', async () => {
      const { code } = await run(...force('--yes'));
      expect(code).to.equal(0);
      expect(daemon.asked).to.deep.equal(['POST /v1/tunnels/web/restart?force=true']);
    });

    for (const [answer, agrees] of [
      ['y\r', true],
      ['YES\r', true],
      ['\r', false],
      ['yep\r', false],
      ['\u0004', false],
    ] as const) {
      it(`is ${agrees ? 'done' : 'left'} by ${JSON.stringify(answer)} on a terminal`, async function () {
        need(this, 'pty');
        const terminal = onTerminal(...force());
        await asked(terminal);
        expect(restarts()).to.deep.equal([]);
        terminal.type(answer);
        expect(await terminal.ended).to.equal(agrees ? 0 : 1);
        expect(restarts()).to.have.length(agrees ? 1 : 0);
        if (!agrees) expect(await terminal.all()).to.include('Nothing was done');
      });
    }

    it('ends with 130 by Ctrl-C at the question', async function () {
      need(this, 'pty');
      const terminal = onTerminal(...force());
      await asked(terminal);
      terminal.type('\u0003');
      expect(await terminal.ended).to.equal(130);
      expect(restarts()).to.deep.equal([]);
    });

    it('asks nobody with --no-input, also on a terminal', async function () {
      need(this, 'pty');
      const terminal = onTerminal(...force('--no-input'));
      expect(await terminal.ended).to.equal(2);
      expect(terminal.bytes()).to.contain('add --yes').and.not.contain('[y/N]');
    });

    it('is asked for by open as well', async () => {
      const { code, stderr } = await run('open', '-L', `${await freeLocalPort()}:db:1`, 'nobody@127.0.0.1', '--force');
      expect(code).to.equal(2);
      expect(stderr).to.contain('add --yes');
    });
  });

  describe('a process of another user', () => {
    before(function () {
      need(this, 'root');
    });

    /** A listener of nobody's; resolves when it listens. */
    async function startStranger(port: number) {
      const program = `require('node:net').createServer().listen(${port}, '127.0.0.1', () => console.log('up'))`;
      const child = spawn(process.execPath, ['-e', program], {
        uid: nobody,
        gid: nobody,
        stdio: ['ignore', 'pipe', 'inherit'],
        env: reaper.env,
      });
      reaper.own(child);
      let said = '';
      child.stdout.on('data', (data) => {
        said += data;
      });
      expect(await until(() => said.includes('up'), { timeoutMs: 10_000, everyMs: 10 })).to.equal(true);
      return child.pid ?? 0;
    }

    it('is not freed from its port without a yes, and is with one', async () => {
      const port = await freeLocalPort();
      const pid = await startStranger(port);
      const refused = await run('free', String(port));
      expect(refused.code).to.equal(2);
      expect(refused.stderr).to.contain(`pid ${pid} (node) of nobody`).and.contain('add --yes');
      expect(isAlive(pid)).to.equal(true);
      expect((await run('free', String(port), '--dry-run')).code, 'a plan needs no yes').to.equal(3);
      const freed = await run('free', String(port), '--yes');
      expect(freed.code).to.equal(0);
      expect(isAlive(pid)).to.equal(false);
    });

    it('is not freed by a yes that was said of another', async function () {
      need(this, 'pty');
      const port = await freeLocalPort();
      const named = await startStranger(port);
      const terminal = onTerminal('free', String(port));
      const isAskedOf = (pid: number) => async () => terminal.bytes().includes(`by killing pid ${pid} `);
      expect(await until(isAskedOf(named), { timeoutMs: 10_000, everyMs: 10 }), terminal.bytes()).to.equal(true);
      process.kill(named, 'SIGKILL');
      expect(await until(() => !isAlive(named), { timeoutMs: 5000, everyMs: 10 })).to.equal(true);
      const other = await startStranger(port);
      terminal.type('y\r');
      expect(await until(isAskedOf(other), { timeoutMs: 10_000, everyMs: 10 }), terminal.bytes()).to.equal(true);
      expect(isAlive(other)).to.equal(true);
      terminal.type('y\r');
      expect(await terminal.ended).to.equal(0);
      expect(isAlive(other)).to.equal(false);
    });

    it('is not killed by its pid without a yes, and is with one', async () => {
      const pid = await startStranger(await freeLocalPort());
      expect((await run('kill', String(pid))).code).to.equal(2);
      expect(isAlive(pid)).to.equal(true);
      expect((await run('kill', String(pid), '-y')).code).to.equal(0);
      expect(isAlive(pid)).to.equal(false);
    });
  });

  async function asked(terminal: OnTerminal): Promise<void> {
    const isAsked = () => terminal.bytes().includes('[y/N]');
    if (!(await until(isAsked, { timeoutMs: 10_000, everyMs: 10 }))) throw new Error(terminal.bytes());
  }
});
