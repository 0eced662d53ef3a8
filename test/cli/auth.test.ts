/** `tunward auth` on a real terminal; the daemon is played. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type ErrorCode, errorCodes, TunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import { toProblem } from '#lib/wire.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type OnTerminal, runOnTerminal, type TerminalOptions } from '../support/terminal.js';
import { type FakeDaemon, startFakeDaemon, tunnelRecord } from './fake-daemon.js';
import { type FakeTerminals, serveTerminals } from './fake-terminal.js';
import { mainFile, tunward } from './run.js';

/** The terminal's settings, the command, and the settings again. */
const SHELL = 'stty -a > "$1.before"; out=$1; shift; "$@"; code=$?; stty -a > "$out.after"; exit $code';

describe('tunward auth', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  let dir: string;
  before(function () {
    need(this, 'pty');
  });
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-auth-'));
    daemon = await startFakeDaemon();
    daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
  });
  afterEach(async () => {
    await reaper.end();
    await daemon.close();
    rmSync(dir, { recursive: true });
  });

  const command = (...args: string[]) => [process.execPath, mainFile, 'auth', ...args];
  /** Directly on the terminal. */
  const start = (args: readonly string[], options: TerminalOptions = {}) =>
    runOnTerminal(reaper, command(...args), { columns: 100, rows: 30, ...options });
  /** By a shell on the terminal, which writes down how that is before and after. */
  const inShell = (...args: string[]) =>
    runOnTerminal(reaper, ['/bin/sh', '-c', SHELL, 'sh', join(dir, 'stty'), ...command(...args)], {
      columns: 100,
      rows: 30,
    });
  const web = () => ['web', '--socket', daemon.socket];
  const seen = async (terminal: OnTerminal, text: string) => {
    const found = await until(() => terminal.bytes().includes(text), { timeoutMs: 10_000, everyMs: 5 });
    if (!found) throw new Error(`'${text}' was not to be seen: ${terminal.bytes()}`);
  };
  const within = async (what: string, check: () => boolean) =>
    expect(await until(check, { timeoutMs: 10_000, everyMs: 5 }), what).to.equal(true);
  const up = { outcome: 'up', tunnel: tunnelRecord() };
  const failedWith = (error: TunwardError) => ({ outcome: 'failed', problem: toProblem(error).body });
  const startFailed = new TunwardError('ERR_START_FAILED', 'Tunnel web could not be started: auth_failed; try again', {
    ...{ id: 'a', reason: 'auth_failed', lastError: null, nextRetryAt: null, remedy: 'try again' },
  });

  /** The rows of the whole terminal, as one text. */
  const text = async (terminal: OnTerminal) => (await terminal.all()).join('\n');
  function expectRestored(): void {
    const read = (when: string) =>
      readFileSync(join(dir, `stty.${when}`), 'utf8')
        .replace(/\s+/g, ' ')
        .replace(/rows \d+; columns \d+;/, '');
    expect(read('before')).to.contain(' icanon ').and.contain(' echo ');
    expect(read('after')).to.equal(read('before'));
  }

  describe('while it lasts', () => {
    let terminals: FakeTerminals;
    beforeEach(() => {
      terminals = serveTerminals(daemon);
    });

    it('is a raw terminal between a person and ssh, and says at the end what came of it', async () => {
      const terminal = inShell(...web());
      const far = await terminals.opened();
      expect(far.request.url).to.equal('/v1/tunnels/web/terminal?columns=100&rows=30');
      expect(far.socket.protocol).to.equal('tunward.terminal.v1');
      far.show('(me@host) Einmal-Paßwort 🔑: ');
      await seen(terminal, 'Einmal-Paßwort 🔑: ');
      const tty = readlinkSync(`/proc/${terminal.pid}/fd/0`);
      const settings = execFileSync('stty', ['-a', '-F', tty], { encoding: 'utf8' }).replace(/\s+/g, ' ');
      expect(settings).to.contain(' -icanon ').and.contain(' -echo ').and.contain(' -isig ').and.contain(' -ixon ');
      // Every key but three: the escape of an arrow, Ctrl-A, Ctrl-D, Ctrl-S, Ctrl-U, backspace, UTF-8, return.
      const keys = 'pa\u00dfw\u001b[A\u0001\u0004\u0013\u0015\u007f\r';
      terminal.type(keys);
      await within('all that was typed', () => far.typed().endsWith('\r'));
      expect(Buffer.from(far.typed(), 'latin1').toString()).to.equal(keys);
      terminal.resize(120, 40);
      await within('the window', () => far.windows.length > 0);
      expect(far.windows.at(-1)).to.deep.equal({ type: 'resize', columns: 120, rows: 40 });
      far.end(up);
      expect(await terminal.ended).to.equal(0);
      const rows = await terminal.all();
      expect(rows[0]).to.equal('ssh asks here what it needs for web; Ctrl-C gives up');
      expect(rows[1]).to.equal('(me@host) Einmal-Paßwort 🔑: ');
      expect(rows[2]).to.match(/^✔ web {2}up in \d.*s {2}localhost:8001 → localhost:8000 via user@remote-host1$/);
      expect(rows).to.have.length(3);
      // Nothing that was typed is drawn by this side.
      expect(terminal.bytes()).not.to.contain('paß');
      expectRestored();
    });

    it('puts the record alone on stdout with --json, also where that is no terminal', async () => {
      const terminal = runOnTerminal(reaper, [
        '/bin/sh',
        '-c',
        'out=$1; shift; exec "$@" > "$out"',
        'sh',
        join(dir, 'out'),
        ...command(...web(), '--json'),
      ]);
      const far = await terminals.opened();
      far.show('Password: ');
      await seen(terminal, 'Password: ');
      far.end(up);
      expect(await terminal.ended).to.equal(0);
      const { took_ms, ...record } = JSON.parse(readFileSync(join(dir, 'out'), 'utf8'));
      expect(took_ms).to.be.a('number');
      const { id, name, state } = tunnelRecord();
      expect(record).to.deep.equal({ id, name, state, tunnel: up.tunnel });
    });

    for (const [key, name] of [
      ['\u0003', 'Ctrl-C'],
      ['\u001c', 'Ctrl-\\'],
    ] as const) {
      it(`is given up by ${name}, at once`, async () => {
        const terminal = inShell(...web());
        const far = await terminals.opened();
        far.show('Password: ');
        await seen(terminal, 'Password: ');
        terminal.type(`half of it${key}rest`);
        await within('the connection is closed', far.isClosed);
        expect(await terminal.ended).to.equal(130);
        expect(await text(terminal)).to.match(/\nPassword: \ngiven up$/);
        expect(far.typed()).to.not.contain(key).and.not.contain('rest');
        expectRestored();
      });
    }

    it('is not stopped by Ctrl-Z, which ssh does not see either', async () => {
      const terminal = inShell(...web());
      const far = await terminals.opened();
      far.show('Password: ');
      await seen(terminal, 'Password: ');
      terminal.type('a\u001ab\r');
      await within('what was typed', () => far.typed().endsWith('\r'));
      expect(far.typed()).to.equal('ab\r');
      far.end(up);
      expect(await terminal.ended).to.equal(0);
    });

    for (const [signal, exit] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      it(`is given up by ${signal}, and the terminal is as it was`, async () => {
        const terminal = inShell(...web());
        const far = await terminals.opened();
        far.show('Password: ');
        await seen(terminal, 'Password: ');
        const program = reaper.living().find((one) => one.command.startsWith(process.execPath));
        if (!program) throw new Error('it does not run');
        sendSignal(program, signal);
        await within('the connection is closed', far.isClosed);
        expect(await terminal.ended).to.equal(exit);
        expect(await text(terminal)).to.match(/given up$/);
        expectRestored();
      });
    }

    it('is given up when its window is closed', async () => {
      const terminal = start(web());
      const far = await terminals.opened();
      far.show('Password: ');
      await seen(terminal, 'Password: ');
      const { startTicks = 0 } = statOf(terminal.pid) ?? {};
      terminal.close();
      await within('the connection is closed', far.isClosed);
      await within('the program has ended', () => !isAlive(terminal.pid, startTicks));
    });

    for (const [what, code, exit] of [
      ['a login that failed', 'ERR_START_FAILED', 1],
      ['a port that is held', 'ERR_PORT_HELD', 3],
      ['a time that was not enough', 'ERR_TIMEOUT', 124],
    ] as const) {
      it(`ends with ${exit} for ${what}, and its sentence`, async () => {
        const errors = {
          ERR_START_FAILED: startFailed,
          ERR_PORT_HELD: new TunwardError('ERR_PORT_HELD', 'Tunnel web cannot start: port 8001 is held', {
            ...{ port: 8001, holders: [] },
          }),
          ERR_TIMEOUT: new TunwardError('ERR_TIMEOUT', 'Nothing was typed for 120 s', { timeoutMs: 120_000 }),
        };
        const terminal = inShell(...web());
        const far = await terminals.opened();
        far.show('Password: ');
        far.end(failedWith(errors[code]));
        expect(await terminal.ended).to.equal(exit);
        expect(await text(terminal))
          .to.match(/^ssh asks here.*\nPassword: \nerror: /)
          .and.contain(errors[code].message);
        expectRestored();
      });
    }

    it('has the problem on stdout with --json', async () => {
      const script = 'out=$1; shift; exec "$@" > "$out"';
      const terminal = runOnTerminal(reaper, [
        '/bin/sh',
        '-c',
        script,
        'sh',
        join(dir, 'out'),
        ...command(...web(), '--json'),
      ]);
      (await terminals.opened()).end(failedWith(startFailed));
      expect(await terminal.ended).to.equal(1);
      const { error } = JSON.parse(readFileSync(join(dir, 'out'), 'utf8'));
      expect(error).to.include({ code: 'ERR_START_FAILED', reason: 'auth_failed', remedy: 'try again' });
    });

    it('ends with 75 when the daemon dies in the middle, or stops', async () => {
      for (const [leave, sentence] of [
        [(socket: FakeTerminals['all'][number]['socket']) => socket.terminate(), 'went away'],
        [(socket: FakeTerminals['all'][number]['socket']) => socket.close(1001), 'is stopping'],
      ] as const) {
        const terminal = inShell(...web());
        await within('a terminal', () => terminals.all.some((far) => !far.isClosed()));
        const far = terminals.all.find((each) => !each.isClosed());
        far?.show('Password: ');
        await seen(terminal, 'Password: ');
        if (far) leave(far.socket);
        expect(await terminal.ended).to.equal(75);
        const all = (await text(terminal)).replaceAll('\n', ' ');
        expect(all).to.contain(`error: The daemon at ${daemon.socket} ${sentence}`);
        expectRestored();
      }
    });

    it('makes no order to the terminal of what the server says', async () => {
      const terminal = inShell(...web());
      const far = await terminals.opened();
      far.show('\u001b]52;c;ZXZpbA==\u0007\u001b[6n\u001b]0;bank\u0007\u001b[2J\u001b[31mPass');
      far.show('word: ');
      await seen(terminal, 'Password: ');
      expect(terminal.bytes()).to.match(/\?\]52;c;ZXZpbA==.*\?\[6n\?\]0;bank.*\?\[2J/);
      expect(terminal.bytes()).to.contain('\u001b[31mPassword: ');
      far.end(up);
      expect(await terminal.ended).to.equal(0);
      // The colour ends with it.
      expect(terminal.bytes()).to.contain('Password: \u001b[m\r\n');
    });

    it('keeps the daemon waiting, not what it sends, while the terminal takes nothing', async function () {
      this.timeout(60_000);
      const terminal = inShell(...web());
      const far = await terminals.opened();
      far.show('Password: ');
      await seen(terminal, 'Password: ');
      terminal.pause();
      const total = 10 * 2 ** 20;
      const line = `${'x'.repeat(98)}\r\n`;
      for (let sent = 0; sent < total; sent += 2 ** 16) far.show(line.repeat(2 ** 16 / 100).slice(0, 2 ** 16));
      const taken = () => total - far.socket.bufferedAmount;
      let before = -1;
      let still = 0;
      const isStill = () => {
        still = taken() === before ? still + 1 : 0;
        before = taken();
        return still >= 25;
      };
      expect(await until(isStill, { timeoutMs: 20_000, everyMs: 20 })).to.equal(true);
      expect(taken()).to.be.below(2 ** 21);
      // It hears its person all the same.
      terminal.type('typed\r');
      await within('what was typed', () => far.typed() === 'typed\r');
      terminal.resume();
      far.end(up);
      expect(await terminal.ended).to.equal(0);
      expect(terminal.bytes().split('x').length - 1).to.be.above(0.9 * total);
      expect((await terminal.all()).at(-1)).to.contain('✔ web  up');
      expectRestored();
    });

    it('is given up while the terminal takes nothing', async () => {
      const terminal = start(web());
      const far = await terminals.opened();
      far.show('Password: ');
      await seen(terminal, 'Password: ');
      terminal.pause();
      for (let at = 0; at < 40; at++) far.show('x'.repeat(2 ** 16));
      terminal.type('\u0003');
      await within('the connection is closed', far.isClosed);
      terminal.resume();
      expect(await terminal.ended).to.equal(130);
    });

    it('bears the token on TCP', async () => {
      const port = await freeLocalPort();
      const tcp = await startFakeDaemon({ host: '127.0.0.1', port });
      try {
        const far = serveTerminals(tcp);
        writeFileSync(join(dir, 'token'), 'secret-token\n');
        const env = { TUNWARD_TOKEN_FILE: join(dir, 'token') };
        const terminal = start(['web', '--socket', `http://127.0.0.1:${port}`], { env });
        const { request, end } = await far.opened();
        expect(request.headers.authorization).to.equal('Bearer secret-token');
        expect(request.headers.host).to.equal(`127.0.0.1:${port}`);
        end(up);
        expect(await terminal.ended).to.equal(0);
      } finally {
        await tcp.close();
      }
    });
  });

  describe('where nothing comes of it', () => {
    const route = 'GET /v1/tunnels/web/terminal';
    for (const [code, message, exit] of [
      ['ERR_TUNNEL_CONFLICT', 'Tunnel web is being authenticated by somebody else', 1],
      ['ERR_UNAUTHORIZED', 'No such token', 5],
      ['ERR_FORBIDDEN', 'Not from there', 5],
    ] as const) {
      it(`tells the daemon's refusal: ${code}`, async () => {
        daemon.routes.set(route, () => toProblem(new TunwardError(code, message, {})));
        const terminal = inShell(...web());
        expect(await terminal.ended).to.equal(exit);
        expect(exit).to.equal(errorCodes[code satisfies ErrorCode].exit);
        expect((await terminal.all()).at(-1)).to.equal(`error: ${message}`);
        expectRestored();
      });
    }

    it('names the tunnel that was meant, and ends with 4', async () => {
      const unknown = new TunwardError('ERR_TUNNEL_UNKNOWN', 'No tunnel is called wbe', { which: 'wbe' });
      daemon.routes.set('GET /v1/tunnels/wbe/terminal', () => toProblem(unknown));
      const terminal = inShell('wbe', '--socket', daemon.socket);
      expect(await terminal.ended).to.equal(4);
      expect((await terminal.all()).at(-1)).to.equal("error: No tunnel is called 'wbe': did you mean 'web'?");
    });

    it('ends with 75 where there is no daemon, and where something else answers', async () => {
      const nobody = inShell('web', '--socket', join(dir, 'none'));
      expect(await nobody.ended).to.equal(75);
      expect(await text(nobody)).to.contain('start it with tunward up');
      daemon.routes.set(route, () => ({ body: '<html>' }));
      const other = inShell(...web());
      expect(await other.ended).to.equal(75);
      expect((await text(other)).replaceAll('\n', ' ')).to.contain('is no tunward daemon');
    });

    it('takes what upgrades to something else for no daemon', async () => {
      daemon.server.on('upgrade', (_request, socket) => {
        socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      });
      const terminal = inShell(...web());
      expect(await terminal.ended).to.equal(75);
      expect((await text(terminal)).replaceAll('\n', ' ')).to.contain('is no tunward daemon');
    });

    it('is refused without a terminal, and with --no-input on one: nobody is asked for anything', async () => {
      const sentence = 'run it on a terminal (stdin and stderr)';
      const { code, stdout, stderr } = await tunward(reaper, ['auth', ...web(), '--json']);
      expect(code).to.equal(2);
      expect(JSON.parse(stdout).error).to.include({ code: 'ERR_BAD_REQUEST' });
      expect(stderr).to.contain(sentence).and.contain('panel').and.contain('prompt');
      const unasked = start([...web(), '--no-input']);
      expect(await unasked.ended).to.equal(2);
      expect((await text(unasked)).replaceAll('\n', ' ')).to.contain(sentence);
      const half = runOnTerminal(reaper, ['/bin/sh', '-c', 'exec "$@" < /dev/null', 'sh', ...command(...web())]);
      expect(await half.ended).to.equal(2);
      expect(daemon.asked).to.deep.equal([]);
    });
  });
});
