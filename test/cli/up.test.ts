import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { said, startTunward, tunward, tunwardJson } from './run.js';

describe('tunward up, down, validate', () => {
  const reaper = createReaper();
  let dir: string;
  let file: string;
  let socket: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-up-'));
    file = join(dir, 'tunward.yaml');
    socket = join(dir, 'run', 'tunward.sock');
    configure([]);
  });
  afterEach(async () => {
    await reaper.end();
    rmSync(dir, { recursive: true });
  });

  function configure(tunnels: readonly object[], keys: object = {}): void {
    const folders = { log_dir: join(dir, 'log'), state_dir: join(dir, 'state'), api: { socket } };
    writeFileSync(file, JSON.stringify({ ...folders, ...keys, tunnels }));
  }
  const run = (...args: string[]) => tunward(reaper, args, { cwd: dir });

  it('runs in the foreground, says when it is ready, and ends with 0 on Ctrl-C', async () => {
    const up = startTunward(reaper, ['up'], { cwd: dir });
    await said(up, 'stderr', 'ready');
    expect(up.stderr()).to.contain(`pid ${up.pid}, 0 tunnels, API at ${socket}\n`);
    expect((await run('health')).stdout).to.equal('ok\n');
    up.child.kill('SIGINT');
    const { code, stdout } = await up.ended;
    expect(code).to.equal(0);
    expect(stdout).to.equal('');
  });

  it('ends at once on a second Ctrl-C, with 130', async () => {
    const up = startTunward(reaper, ['up'], { cwd: dir });
    await said(up, 'stderr', 'ready');
    // A request that never ends keeps the daemon stopping for its grace of 250 ms.
    const client = net.connect(socket).on('error', () => undefined);
    client.write(
      'POST /v1/shutdown HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n',
    );
    await until(() => client.bytesWritten > 0, { timeoutMs: 1000 });
    up.child.kill('SIGTERM');
    await said(up, 'stderr', 'stopping');
    up.child.kill('SIGINT');
    expect((await up.ended).code).to.equal(130);
    client.destroy();
  });

  it('reads the configuration again on SIGHUP, and keeps what it has when that is wrong', async () => {
    const up = startTunward(reaper, ['up'], { cwd: dir });
    await said(up, 'stderr', 'ready');
    writeFileSync(file, 'tunnels: 3\n');
    up.child.kill('SIGHUP');
    await said(up, 'stderr', 'configuration rejected, nothing changed');
    expect((await run('health', '--socket', socket)).code).to.equal(0);
    up.child.kill('SIGTERM');
    expect((await up.ended).code).to.equal(0);
  });

  it('prints its events as records with --json', async () => {
    const up = startTunward(reaper, ['up', '--json'], { cwd: dir });
    await said(up, 'stdout', 'daemon.ready');
    const events = up
      .stdout()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const ready = events.find(({ type }) => type === 'daemon.ready');
    expect(ready).to.include({ pid: up.pid, socket, tunnels: 0 });
    up.child.kill('SIGTERM');
    expect((await up.ended).code).to.equal(0);
  });

  it('touches nothing when the configuration is wrong, and ends with 78 and every problem', async () => {
    writeFileSync(file, 'tunnels: 3\nlog_dri: x\n');
    const { code, stdout, stderr } = await run('up', '--json');
    expect(code).to.equal(78);
    const { error } = JSON.parse(stdout);
    expect(error.code).to.equal('ERR_CONFIG_INVALID');
    expect(error.problems).to.have.length(2);
    const lines = stderr.trimEnd().split('\n');
    expect(lines.map((line) => line.startsWith(`${file}:`))).to.deep.equal([true, true]);
  });

  describe('-d', () => {
    it('answers when the daemon does, which lives on; down ends it', async () => {
      const { pid, log_file: logFile, ...rest } = await tunwardJson(reaper, ['up', '-d'], { cwd: dir });
      reaper.ownPid(pid);
      expect(rest).to.deep.equal({ socket, url: null });
      expect((await run('health')).code, 'it answers already').to.equal(0);
      expect(isAlive(pid)).to.equal(true);
      expect(readFileSync(logFile, 'utf8')).to.contain(`ready  pid ${pid}`);
      const down = await run('down');
      expect(down.code, down.stderr).to.equal(0);
      expect(down.stdout).to.contain(`(pid ${pid}) has stopped after`);
      expect(isAlive(pid), 'down has waited for its end').to.equal(false);
      expect((await run('health')).code).to.equal(75);
    });

    it('shows what a daemon said that could not start, and ends with its code', async () => {
      const up = startTunward(reaper, ['up'], { cwd: dir });
      await said(up, 'stderr', 'ready');
      const { code, stdout, stderr } = await run('up', '-d');
      expect(code).to.equal(1);
      expect(stdout).to.equal('');
      expect(stderr).to.contain(`Another tunward daemon (pid ${up.pid}) runs on this state folder`);
      expect((await run('health')).code, 'the first one is unharmed').to.equal(0);
      up.child.kill('SIGTERM');
      expect((await up.ended).code).to.equal(0);
    });

    it('says what is wrong with the configuration itself', async () => {
      writeFileSync(file, 'tunnels: 3\n');
      const { code, stderr } = await run('up', '-d');
      expect(code).to.equal(78);
      expect(stderr).to.contain(`${file}:1:`);
    });

    it('leaves no daemon behind when it is interrupted before that is ready', async () => {
      const starting = startTunward(reaper, ['up', '-d'], { cwd: dir });
      const daemon = await until(
        () => reaper.living().find(({ pid, command }) => pid !== starting.pid && command.includes(' up -c ')),
        { timeoutMs: 5000, everyMs: 1 },
      );
      if (!daemon) throw new Error(`no daemon was started: ${starting.stderr()}`);
      // Held before it can be ready, so that the order is certain.
      sendSignal(daemon, 'SIGSTOP');
      starting.child.kill('SIGINT');
      expect((await starting.ended).code).to.equal(130);
      sendSignal(daemon, 'SIGCONT');
      const gone = await until(() => !isAlive(daemon.pid, daemon.startTicks), { timeoutMs: 5000, everyMs: 10 });
      expect(gone).to.equal(true);
    });
  });

  describe('validate', () => {
    it('lists the tunnels with their ids and addresses', async () => {
      const port = await freeLocalPort();
      configure([{ name: 'web', remote_host: 'me@host', remote_port: '8000', local_port: `127.0.0.1:${port}` }]);
      const answer = await tunwardJson(reaper, ['validate'], { cwd: dir });
      expect(answer).to.have.all.keys('file', 'ok', 'tunnels', 'warnings', 'problems');
      expect(answer).to.deep.include({ file, ok: true, warnings: [], problems: [] });
      expect(answer.tunnels).to.have.length(1);
      const [{ id, ...tunnel }] = answer.tunnels;
      expect(id).to.match(/^[0-9a-f]{32}$/);
      const listen = [{ side: 'local', host: '127.0.0.1', port }];
      expect(tunnel).to.deep.equal({ name: 'web', listen, target: 'localhost:8000' });
      const { stdout, stderr } = await run('validate');
      expect(stdout).to.contain(`${file} is right`).and.contain(id.slice(0, 8));
      expect(stderr).to.equal('');
    });

    it('warns, and is content', async () => {
      const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
      const first = Number(range.split(/\s+/)[0]);
      configure([{ name: 'web', remote_host: 'me@host', remote_port: '80', local_port: String(first) }]);
      const { code, stderr } = await run('validate');
      expect(code).to.equal(0);
      expect(stderr).to.match(/^warning: .*ephemeral range/);
    });

    it('ends with 78 and every problem at once', async () => {
      writeFileSync(file, 'tunnels:\n  - remote_host: -oProxyCommand=x\n    nam: x\n');
      const { code, stdout, stderr } = await run('validate', '-c', file, '--json');
      expect(code).to.equal(78);
      const answer = JSON.parse(stdout);
      expect(answer).to.deep.include({ file, ok: false, tunnels: [] });
      expect(answer.problems.length).to.be.greaterThan(2);
      expect(answer.problems[0]).to.have.all.keys('file', 'line', 'column', 'path', 'message');
      expect(stderr.trimEnd().split('\n')).to.have.length(answer.problems.length);
    });

    it('ends with 78 for a file that is not there', async () => {
      expect((await run('validate', '-c', 'nothing.yaml')).code).to.equal(78);
    });
  });
});
