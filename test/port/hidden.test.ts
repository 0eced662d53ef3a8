import { execFile } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { freePort } from '#lib/port/free.js';
import type { PortReport } from '#lib/port/inspect.js';
import { inspectPort } from '#lib/port/inspect.js';
import { findListeners } from '#lib/port/listeners.js';
import { denied, type Proc } from '#lib/proc/read.js';
import { createFakeProc, type FakeProc, socketLine } from '../support/fakeproc.js';
import { startHolder } from '../support/holders.js';
import { parseEmitted, startContained } from '../support/namespace.js';
import { need } from '../support/need.js';
import { buildRoot, which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startInFlight, startScript } from '../support/sockets.js';
import { asNobody, nobody } from '../support/stranger.js';

const reaper = createReaper();
const port = 9443;
const own = process.geteuid?.() ?? 0;

describe('a listener that no process shows, by what the kernel lets one know', () => {
  let fake: FakeProc;
  beforeEach(() => {
    fake = createFakeProc();
    fake.add({ pid: 7, sockets: [77] });
  });
  afterEach(() => fake[Symbol.dispose]());

  const listen = ({ inode = 5, uid = own + 1 } = {}) =>
    fake.write('net/tcp', socketLine({ address: '0100007F', port, inode, uid }));
  const inFirstNamespace = (isFirst: boolean) => {
    fake.write('self/ns/none', '');
    symlinkSync(`pid:[${isFirst ? 4026531836 : 4026532200}]`, join(fake.root, 'self/ns/pid'));
  };
  const explain = async (proc: Proc = fake.proc) => {
    const [listener, ...others] = await findListeners(port, { proc });
    expect(others).to.deep.equal([]);
    expect(listener?.holders).to.deep.equal([]);
    return { reason: listener?.hiddenReason, text: listener?.hidden };
  };
  const denying: (...paths: string[]) => Proc = (...paths) => ({
    ...fake.proc,
    list: (path) => (paths.includes(path) ? denied : fake.proc.list(path)),
  });

  it('without an inode it is the kernel’s own, in any namespace', async () => {
    listen({ inode: 0 });
    inFirstNamespace(false);
    const { reason, text } = await explain();
    expect(reason).to.equal('kernel');
    expect(text).to.include('its socket has no inode');
  });

  it('when all have shown theirs in the first PID namespace it is the kernel’s, and its threads say which', async () => {
    listen();
    inFirstNamespace(true);
    fake.add({ pid: 9, comm: 'nfsd', flags: 0x20_0000 }, { pid: 10, comm: 'nfsd', flags: 0x20_0000 });
    fake.add({ pid: 11, comm: 'lockd' });
    const { reason, text } = await explain();
    expect(reason).to.equal('kernel');
    expect(text).to.match(
      /^held by no process, so most likely by the kernel itself, where nfsd runs \(all show what they have open\): stop /,
    );
  });

  it('when all have shown theirs in another PID namespace it is outside of that', async () => {
    listen();
    inFirstNamespace(false);
    const { reason, text } = await explain();
    expect(reason).to.equal('outside_pid_namespace');
    expect(text).to.include('outside of this PID namespace');
  });

  it('while a message with descriptors waits for a process it may be in that', async () => {
    listen();
    inFirstNamespace(true);
    fake.write('7/fdinfo/0', 'pos:\t0\nino:\t77\nscm_fds: 0\n');
    expect((await explain()).reason).to.equal('kernel');
    fake.write('7/fdinfo/0', 'pos:\t0\nino:\t77\nscm_fds: 2\n');
    const { reason, text } = await explain();
    expect(reason).to.equal('in_flight_fd');
    expect(text).to.include('waits in a message to pid 7 (fake)');
  });

  it('when some do not show theirs it is another user’s, by the socket’s user', async () => {
    listen();
    inFirstNamespace(true);
    expect(await explain(denying('7/fd'))).to.have.property('reason', 'other_user');
    // A message that waits is no evidence then.
    fake.write('8/fdinfo/0', 'scm_fds: 1\n');
    fake.add({ pid: 8, sockets: [88] });
    expect(await explain(denying('7/fd'))).to.have.property('reason', 'other_user');
  });

  it('names the process of that user when it is its only one', async () => {
    listen();
    // Not by the owner of its folder, which is root where it guards its memory.
    const bear = (pid: number) => fake.write(`${pid}/status`, `Uid:${`\t${own + 1}`.repeat(4)}\n`);
    bear(7);
    fake.add({ pid: 8 });
    const { text } = await explain(denying('7/fd', '8/fd'));
    expect(text).to.include('(most likely pid 7 (fake), its only one)');
    bear(8);
    expect((await explain(denying('7/fd', '8/fd'))).text).not.to.include('most likely');
  });

  it('of our own user is that of one that shows root alone what it has, in any namespace', async () => {
    listen({ uid: own });
    inFirstNamespace(false);
    fake.add({ pid: 8 });
    fake.write('8/status', `Uid:${`\t${own}`.repeat(4)}\n`);
    const { reason, text } = await explain(denying('7/fd', '8/fd'));
    expect(reason).to.equal('other_user');
    expect(text).to.include('(most likely pid 8 (fake))');
  });

  it('of our own user may be one that hidepid hides, in any namespace', async () => {
    listen({ uid: own });
    inFirstNamespace(false);
    fake.write('self/mountinfo', `22 1 0:21 / ${fake.root} rw,relatime shared:5 - proc proc rw,hidepid=2\n`);
    fake.write('self/status', 'CapEff:\t0000000000000000\n');
    const { reason, text } = await explain();
    expect(reason).to.equal('other_user');
    expect(text).to.include('it hides some (hidepid)');
  });

  it('of our own user, when others do not show theirs, is said to be in other hands', async () => {
    listen({ uid: own });
    inFirstNamespace(true);
    const { reason, text } = await explain(denying('7/fd'));
    expect(reason).to.equal('other_user');
    const hands =
      own === 0 ? 'not even this root may look into (most likely pid 7 (fake)):' : "another user's process has it";
    expect(text).to.include(hands);
    fake.remove('self/ns/pid');
    inFirstNamespace(false);
    const elsewhere = await explain(denying('7/fd'));
    expect(elsewhere.reason).to.equal(own === 0 ? 'other_user' : 'outside_pid_namespace');
    expect(elsewhere.text).to.match(/outside of this (container|PID namespace)/);
  });

  for (const [option, hides] of [
    ['hidepid=2', true],
    ['hidepid=invisible', true],
    ['hidepid=0', false],
    ['hidepid=off', false],
  ] as const) {
    it(`knows of ${option} that it ${hides ? 'hides' : 'does not hide'} the others`, async () => {
      listen();
      inFirstNamespace(true);
      fake.write('self/mountinfo', `22 1 0:21 / ${fake.root} rw,relatime shared:5 - proc proc rw,${option}\n`);
      fake.write('self/status', 'CapEff:\t0000000000000000\n');
      expect((await explain()).reason).to.equal(hides ? 'other_user' : 'kernel');
      fake.write('self/status', 'CapEff:\t000001ffffffffff\n'); // as root, from whom nothing is hidden
      expect((await explain()).reason).to.equal('kernel');
    });
  }
});

describe('a listener that no process shows, really', () => {
  afterEach(() => reaper.end());

  it('is in flight between two processes', async function () {
    need(this, 'python3');
    const inFlight = await startInFlight(reaper);
    const report = await inspectPort(inFlight.port);
    expect(report).to.include({ free: false, verdict: 'in_flight_fd' });
    expect(report.explanation).to.include(`waits in a message to pid ${inFlight.pid} `);
    expect(await freePort(inFlight.port, { timeoutMs: 300 })).to.include({ verdict: 'in_flight_fd', kill: null });
    expect(isAlive(inFlight.pid)).to.equal(true);
  });

  it('stays when who listens beside it is killed, and that is said before and after', async function () {
    need(this, 'python3', 'perl');
    const { port: held } = await startInFlight(reaper);
    const beside = await startHolder(reaper, { port: held, address: '127.0.0.2' });
    const who = await inspectPort(held);
    expect(who).to.include({ verdict: 'listening' });
    expect(who.explanation).to.match(new RegExp(`pid ${beside.pid} .*, but 127.0.0.1:${held} is held by a socket of`));
    const report = await freePort(held, { timeoutMs: 1000 });
    expect(report).to.include({ free: false, verdict: 'in_flight_fd' });
    expect(report.kill?.killed.map(({ pid }) => pid)).to.deep.equal([beside.pid]);
  });

  it('is outside of the PID namespace that looks', async function () {
    need(this, 'root', 'unshare');
    const { pid, ports } = await startListener(reaper).ready;
    const held = ports[0]?.port ?? 0;
    const program = [process.execPath, join(buildRoot, 'test/port/stranger.js'), String(held)];
    const { stdout } = await startContained([], ['"$@" & wait $!', ...program], process.env).ended;
    const [who, free] = stdout.split('\n').flatMap(parseEmitted);
    for (const { value } of [who, free] as { value: PortReport }[]) {
      expect(value).to.include({ free: false, verdict: 'outside_pid_namespace', kill: null });
      expect(value.explanation).to.include('held by a process of root');
    }
    expect(isAlive(pid)).to.equal(true);
  });

  it('is of one that not even this root may look into, who lists what it has open and cannot read it', async function () {
    need(this, 'root');
    const { pid, ports } = await startListener(reaper).ready;
    const lesser = ['--bounding-set', '-sys_ptrace,-setfcap', process.execPath];
    const words = [...lesser, join(buildRoot, 'test/port/stranger.js'), String(ports[0]?.port)];
    const { stdout } = await promisify(execFile)(which('setpriv') ?? 'setpriv', words, { timeout: 15_000 });
    const [who, free] = stdout.split('\n').flatMap(parseEmitted);
    for (const { value } of [who, free] as { value: PortReport }[]) {
      expect(value).to.include({ free: false, verdict: 'other_user', kill: null });
      expect(value.explanation).to.include('held by a process of root that not even this root may look into');
    }
    expect(isAlive(pid)).to.equal(true);
  });

  it('is of one of the same user that shows root alone what it has open', async function () {
    need(this, 'root', 'perl', 'unshare');
    const held = await freeLocalPort();
    const guarded = await startGuarded(held);
    for (const hidepid of [undefined, 2]) {
      const seen = (await asNobody('test/port/stranger.js', [String(held)], hidepid ? { hidepid } : {})) as Seen;
      for (const report of [seen.who, seen.free]) {
        expect(report).to.include({ free: false, verdict: 'other_user', kill: null });
        const who = hidepid ? 'it hides some (hidepid)' : `most likely pid ${guarded.pid} (`;
        expect(report?.explanation).to.include(who).and.to.include('as root');
      }
    }
    expect(isAlive(guarded.pid)).to.equal(true);
  });

  it('is of another user, into whom root may look with a capability that it lacks', async function () {
    need(this, 'root', 'perl');
    const held = await freeLocalPort();
    const { pid } = await startGuarded(held);
    const words = ['--bounding-set', '-sys_ptrace', process.execPath, join(buildRoot, 'test/port/stranger.js')];
    const { stdout } = await promisify(execFile)(which('setpriv') ?? 'setpriv', [...words, String(held)]);
    const [who] = stdout.split('\n').flatMap(parseEmitted) as { value: PortReport }[];
    expect(who?.value).to.include({ free: false, verdict: 'other_user' });
    expect(who?.value.explanation)
      .to.match(new RegExp(`most likely pid ${pid} .*which root may look into with CAP_SYS_PTRACE alone: `))
      .and.not.to.match(/as \S+ or root$/);
  });

  it('is another user’s that this /proc hides (hidepid=2)', async function () {
    need(this, 'root', 'unshare');
    const { pid, ports } = await startListener(reaper).ready;
    const args = [String(ports[0]?.port)];
    const seen = (await asNobody('test/port/stranger.js', args, { hidepid: 2 })) as Seen;
    for (const report of [seen.who, seen.free]) {
      expect(report).to.include({ free: false, verdict: 'other_user', kill: null });
      expect(report?.explanation).to.include('held by a process of root').and.to.include('hidepid');
    }
    expect(isAlive(pid)).to.equal(true);
  });

  it('is gone when it has closed by the time it is looked for', async () => {
    using fake = createFakeProc();
    fake.write('net/tcp', socketLine({ address: '0100007F', port, inode: 5 }));
    fake.add({ pid: 7 });
    let asked = 0;
    const pages: Proc['pages'] = (path) => (asked++ === 0 ? fake.proc.pages(path) : []);
    expect(await findListeners(port, { proc: { ...fake.proc, pages } })).to.deep.equal([]);
  });
});

type Seen = Record<string, PortReport>;

/** Listens as nobody, and guards its memory, as ssh-agent does, or a Node that may bind low ports (setcap). */
async function startGuarded(held: number) {
  const drop = ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups'];
  const socket = 'use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or die';
  const listen = `bind($s, sockaddr_in(${held}, INADDR_LOOPBACK)) or die; listen($s, 5) or die`;
  // prctl(PR_SET_DUMPABLE, 0)
  const guard = `syscall(${process.arch === 'arm64' ? 167 : 157}, 4, 0, 0, 0, 0) == 0 or die`;
  const program = `$| = 1; ${socket}; ${listen}; ${guard}; print "ready\\n"; sleep 60`;
  return await startScript(reaper, 'setpriv', [...drop, 'perl', '-e', program]);
}
