import { expect } from 'chai';
import { takeLock } from '#lib/daemon/instance.js';
import { freePort } from '#lib/port/free.js';
import type { PortReport } from '#lib/port/inspect.js';
import { isKeeper, remedyFor, suspect } from '#lib/port/respawn.js';
import { isPortFree } from '#lib/port/wait.js';
import { openProc } from '#lib/proc/read.js';
import { describeProcess, readStat, readTable, readUserName } from '#lib/proc/stat.js';
import { createSlice, until } from '#lib/time.js';
import { createFakeProc } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, statOf } from '../support/proc.js';
import { startDaemonized, startListener, startRespawner } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { perlListener, startShellLoop } from '../support/respawners.js';
import { startScript } from '../support/sockets.js';
import { nobody } from '../support/stranger.js';

const reaper = createReaper();

describe('freePort() of what is started again', () => {
  afterEach(() => reaper.end());

  for (const pauseMs of [0, 20, 40]) {
    it(`names the shell loop that does it after ${pauseMs} ms, and spares it`, async function () {
      need(this, 'perl');
      const port = await freeLocalPort();
      const loop = await startShellLoop(reaper, { port, pauseMs });
      const report = await freePort(port);
      expect(report).to.include({ free: false, verdict: 'respawned' });
      expect(report.respawner).to.include({ pid: loop.pid });
      expect(report.explanation).to.match(
        new RegExp(
          `^Port ${port} was freed and is held again.*: pid ${loop.pid} \\(.*\\) of \\w+ starts it again; .*--respawner`,
        ),
      );
      expect(killed(report)).to.have.length(1).and.not.to.include(loop.pid);
      expect(isAlive(loop.pid)).to.equal(true);
    });
  }

  it('spares a tunward daemon, though asked: with it all its tunnels would go', async () => {
    const proc = openProc();
    const stat = readStat(proc, process.pid);
    if (!stat) throw new Error('This process is not in /proc');
    const self = describeProcess(proc, stat);
    expect(isKeeper(proc, self)).to.equal(false);
    const lock = await takeLock('this process is one');
    expect(isKeeper(proc, self)).to.equal(true);
    expect(remedyFor(proc, self, undefined)).to.contain('tunward stop NAME');
    lock.release();
  });

  it('spares it, though asked, when it is of another user than was said', async function () {
    need(this, 'perl');
    need(this, 'root');
    const port = await freeLocalPort();
    const demote = `perl -e '$) = "${nobody} ${nobody}"; $< = $> = ${nobody}; exec @ARGV'`;
    const rounds = `i=0; while [ $i -lt 30 ]; do ${demote} ${perlListener(port)}; i=$((i + 1)); done`;
    const loop = await startScript(reaper, 'setsid', ['--wait', 'sh', '-c', `echo ready; ${rounds}`]);
    expect(await until(async () => !(await isPortFree(port)), { timeoutMs: 5000 })).to.equal(true);
    const report = await freePort(port, { respawner: true, user: readUserName(nobody) });
    expect(report).to.include({ free: false, verdict: 'respawned' });
    expect(killed(report)).not.to.include(loop.pid);
    expect(report.respawner?.user).to.equal('root');
  });

  it('kills it when asked, with all in its session, and the port stays free', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const loop = await startShellLoop(reaper, { port, pauseMs: 0 });
    const report = await freePort(port, { respawner: true });
    expect(report).to.include({ free: true, verdict: 'free', respawner: null });
    expect(killed(report)).to.include(loop.pid);
    expect(report.kill?.killed.find(({ pid }) => pid === loop.pid)?.why).to.equal(
      `starts again what listens on port ${port}`,
    );
    const back = async () => !(await isPortFree(port));
    expect(await until(back, { timeoutMs: 200, everyMs: 10 })).to.equal(undefined);
    expect(reaper.living()).to.deep.equal([]);
  });

  it('does not kill the shell in which the loop was typed, whatever is asked', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const typed = `while :; do ${perlListener(port)}; done`.replaceAll('$', '\\$');
    const shell = await startScript(reaper, 'setsid', [
      '--wait',
      'sh',
      '-c',
      `echo ready; exec sh -i <<E\n${typed}\nE`,
    ]);
    expect(await until(async () => !(await isPortFree(port)), { timeoutMs: 5000 })).to.equal(true);
    const report = await freePort(port, { respawner: true });
    expect(report).to.include({ free: false, verdict: 'respawned' });
    expect(report.respawner).to.include({ pid: shell.pid, command: 'sh -i' });
    expect(report.explanation).to.match(/; end what was typed there \(Ctrl-C in its terminal\)$/);
    expect(isAlive(shell.pid)).to.equal(true);
  });

  it('does not blame the shell for another below it who waited for the port, nor kill who else is there', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const at = `sockaddr_in(${port}, INADDR_LOOPBACK)`;
    const open = 'socket(my $s, PF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1)';
    const seen = `for (;;) { ${open}; last if connect($s, ${at}); select(undef, undef, undef, 0.005) }`;
    const take = `if (bind($s, ${at}) && listen($s, 5)) { close $s if fork; sleep 170; exit }`;
    const wait = `for (1..9999) { ${open}; ${take} close $s; select(undef, undef, undef, 0.002) }`;
    const rival = `perl -e 'use Socket; $| = 1; ${seen} print "ready\\n"; ${wait}'`;
    const shell = await startScript(reaper, 'setsid', [
      '--wait',
      'sh',
      '-c',
      `${perlListener(port)} & ${rival} & wait`,
    ]);
    const report = await freePort(port, { respawner: true });
    expect(report).to.include({ free: true, respawner: null });
    expect(killed(report)).not.to.include(shell.pid);
    expect(isAlive(shell.pid)).to.equal(true);
  });

  it('waits for a successor that was started in time and takes longer to listen, as every Node server does', async () => {
    const port = await freeLocalPort();
    const respawner = startRespawner(reaper, {
      count: 1,
      child: { setsid: true, listen: [{ port, host: '127.0.0.1' }] },
    });
    const { pid } = await respawner.ready;
    const report = await freePort(port);
    expect(report).to.include({ free: false, verdict: 'respawned' });
    expect(report.respawner).to.include({ pid });
    expect(isAlive(pid)).to.equal(true);
  });

  it('names who is above a wrapper that ends with its child', async function () {
    need(this, 'perl', 'python3');
    const port = await freeLocalPort();
    const inner = `sh -c '${perlListener(port).replaceAll("'", `'"'"'`)}; exit 1'`;
    const program = `import subprocess; print("ready", flush=True)\nfor _ in range(20): subprocess.run(${JSON.stringify(inner)}, shell=True)`;
    const supervisor = await startScript(reaper, 'python3', ['-c', program]);
    expect(await until(async () => !(await isPortFree(port)), { timeoutMs: 5000 })).to.equal(true);
    const report = await freePort(port);
    expect(report).to.include({ free: false, verdict: 'respawned' });
    expect(report.respawner).to.include({ pid: supervisor.pid });
  });

  it('does not blame a parent that starts nothing, and says free of what it left', async () => {
    const { children } = await startRespawner(reaper, {
      generations: 0,
      count: 1,
      child: { listen: [{ host: '127.0.0.1' }] },
    }).ready;
    const report = await freePort(children[0]?.ports[0]?.port ?? 0);
    expect(report).to.include({ free: true, verdict: 'free', respawner: null });
    expect(killed(report)).to.deep.equal([children[0]?.pid]);
  });
});

describe('suspect()', () => {
  afterEach(() => reaper.end());
  const look = async (pid: number) => {
    const proc = openProc();
    const table = await readTable(proc, createSlice());
    const stat = table.get(pid);
    return stat && suspect(proc, table, stat)?.above.map((one) => one.stat.pid);
  };

  it('suspects neither this very process nor pid 1 of what has made itself a daemon: nothing is waited for', async () => {
    const own = await startListener(reaper).ready;
    expect(statOf(own.pid)?.ppid).to.equal(process.pid);
    expect(await look(own.pid)).to.equal(undefined);
    const daemon = await startDaemonized(reaper, { setsid: true, listen: [{ host: '127.0.0.1' }] }).ready;
    expect(await until(() => statOf(daemon.pid)?.ppid === 1, { timeoutMs: 5000 })).to.equal(true);
    expect(await look(daemon.pid)).to.equal(undefined);
  });

  it('suspects the living parent of somebody else’s child, and who is above that', async () => {
    const { pid, children } = await startRespawner(reaper, { count: 1, child: { children: [{}] } }).ready;
    const [child] = children;
    expect(await look(child?.children[0]?.pid ?? 0)).to.deep.equal([child?.pid, pid]);
  });

  it('suspects systemd of a service, and of nothing else', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 1, ppid: 0, comm: 'systemd' }, { pid: 7, ppid: 1, sid: 7 }, { pid: 8, ppid: 1, sid: 8 });
    fake.write('7/cgroup', '0::/system.slice/nginx.service\n');
    fake.write('8/cgroup', '0::/user.slice/user-0.slice/session-3.scope\n');
    const table = await readTable(fake.proc, createSlice());
    const above = [7, 8].map((pid) => {
      const stat = table.get(pid);
      return stat && suspect(fake.proc, table, stat)?.above.map((one) => one.stat.pid);
    });
    expect(above).to.deep.equal([[1], undefined]);
  });
});

function killed(report: PortReport): number[] {
  return report.kill?.killed.map(({ pid }) => pid) ?? [];
}
