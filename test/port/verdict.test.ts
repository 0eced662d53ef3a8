import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import type { KillReport } from '#lib/kill.js';
import { freePort } from '#lib/port/free.js';
import { inspectPort, type PortReport } from '#lib/port/inspect.js';
import { toListener } from '#lib/port/listeners.js';
import {
  holdersOf,
  judgeListeners,
  judgeProbes,
  judgeReturn,
  judgeSockets,
  judgeSurvivors,
} from '#lib/port/verdict.js';
import type { Socket } from '#lib/proc/net.js';
import { openProc } from '#lib/proc/read.js';
import { createFakeProc } from '../support/fakeproc.js';
import { startHolder, startTimeWait } from '../support/holders.js';
import { parseEmitted, startContained } from '../support/namespace.js';
import { need } from '../support/need.js';
import { buildRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

const reaper = createReaper();
const stranger = join(buildRoot, 'test/port/stranger.js');

describe('the verdict on a port', () => {
  afterEach(() => reaper.end());

  it('is pid1 of what pid 1 holds, and whoever shares its socket is spared', async function () {
    need(this, 'root', 'unshare', 'perl');
    const port = await freeLocalPort();
    const { stdout, stderr } = await startContained([], [`exec perl -e '${asFirst(port)}'`], process.env).ended;
    const reports = stdout.split('\n').flatMap(parseEmitted);
    expect(reports, stderr).to.have.length(2);
    for (const { value } of reports as { value: PortReport }[]) {
      expect(value).to.include({ free: false, verdict: 'pid1' });
      expectOneSentence(value.explanation);
      expect(value.explanation).to.match(/pid 1 \(perl .*stop the service in it, or the container$/);
    }
    const { kill } = (reports[1] as { value: PortReport }).value;
    expect(kill?.killed).to.deep.equal([]);
    expect(kill?.survivors).to.have.length(1);
    expect(kill?.survivors[0]).to.include({ pid: 1, why: 'protected: pid 1' });
    expect(kill?.left.map(({ why }) => why)).to.deep.equal([
      'spared, since pid 1 has the port too and is never killed',
    ]);
  });

  it('is protected of what an ancestor of this process holds', async () => {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
    const { port } = server.address() as net.AddressInfo;
    const child = spawn(process.execPath, [stranger, String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await once(child, 'close');
    server.close();
    const [who, free] = said.split('\n').flatMap(parseEmitted) as { value: PortReport }[];
    expect(who?.value).to.include({ free: false, verdict: 'protected' });
    expect(who?.value.explanation).to.match(
      /an ancestor of this process, which is never killed: close the port there$/,
    );
    expect(free?.value).to.include({ free: false, verdict: 'protected' });
    expect(free?.value.explanation).to.match(
      new RegExp(`^Cannot free port ${port}: pid ${process.pid} .*protected: an ancestor.*; close the port there$`),
    );
  });

  it('is said in one sentence, whatever it is', async function () {
    need(this, 'perl');
    const [held, bound, ended, never] = await Promise.all([1, 2, 3, 4].map(() => freeLocalPort()));
    await startListener(reaper, { port: held ?? 0 }).ready;
    await startHolder(reaper, { port: bound ?? 0, address: '127.0.0.1', reuseAddress: false, script: '1' });
    await startTimeWait(reaper, { port: ended ?? 0, address: '127.0.0.1', reuseAddress: false });
    const reports = await Promise.all([held, bound, ended, never].map((port) => inspectPort(port ?? 0)));
    reports.push(await inspectPort(9443, { host: '203.0.113.7' }), await freePort(held ?? 0));
    expect(reports.map(({ verdict }) => verdict)).to.deep.equal([
      ...['listening', 'hidden_bind', 'time_wait', 'free', 'no_address', 'free'],
    ]);
    for (const { explanation } of reports) expectOneSentence(explanation);
  });
});

describe('what a verdict says', () => {
  const row: Socket = {
    ...{ protocol: 'tcp', address: '127.0.0.1', port: 9443, remoteAddress: '127.0.0.1', remotePort: 80 },
    ...{ state: 'ESTABLISHED', uid: 0, inode: 7 },
  };
  const info = { pid: 812, startTicks: 5, command: '/usr/bin/curl http://x', user: 'me', ageS: 62 };

  it('of many holders: the oldest, which is the one that opened the socket for the others', () => {
    const holders = [820, 813, 812, 830].map((pid) => ({ ...info, pid, startTicks: pid === 830 ? 4 : 5 }));
    const { explanation } = judgeListeners(openProc(), [{ ...toListener(row), holders }], '9443');
    expect(explanation).to.include('held by pid 830 (curl http://x) of me, 1m 2s old, and 3 more');
    expect(holdersOf([{ ...toListener(row), holders }]).map(({ pid }) => pid)).to.deep.equal([830, 812, 813, 820]);
  });

  it('of a connection: whose, to where, and that its end is what frees the port', () => {
    const { verdict, explanation } = judgeSockets(9443, [row], [info, { ...info, pid: 813 }]);
    expect(verdict).to.equal('client_holds');
    expect(explanation).to.match(
      /connection to 127\.0\.0\.1:80 of pid 812 \(curl http:\/\/x\) of me, 1m 2s old, and 1 more: it is free when/,
    );
    expect(judgeSockets(9443, [row], []).explanation).to.include('a process of root that cannot be seen here');
    const after = judgeSockets(9443, [{ ...row, state: 'TIME_WAIT', inode: 0 }], []);
    expect(after).to.have.property('verdict', 'time_wait');
  });

  it('of a port that may not be bound: from which one on it may, or that a policy forbids it', () => {
    using fake = createFakeProc();
    fake.write('sys/net/ipv4/ip_unprivileged_port_start', '1024\n');
    const forbidden = [{ host: '127.0.0.1', probe: 'forbidden' as const }];
    const low = judgeProbes(fake.proc, 80, { probes: forbidden });
    expect(low.verdict).to.equal('forbidden');
    expect(low.explanation).to.include('ports below 1024 need root or CAP_NET_BIND_SERVICE');
    expect(judgeProbes(fake.proc, 8080, { probes: forbidden }).explanation).to.include(
      'a security policy of this host',
    );
  });

  it('of an address that is not there: also that IPv6 is off', () => {
    using fake = createFakeProc();
    const absent = [{ host: '::1', probe: 'absent' as const }];
    expect(judgeProbes(fake.proc, 80, { probes: absent })).to.deep.include({ verdict: 'no_address' });
    expect(judgeProbes(fake.proc, 80, { probes: absent }).explanation).to.include('IPv6 is off here');
    fake.write('net/if_inet6', '');
    expect(judgeProbes(fake.proc, 80, { probes: absent }).explanation).not.to.include('IPv6 is off');
  });

  for (const [why, verdict, remedy] of [
    ['protected: pid 1', 'pid1', 'stop the service in it, or the container'],
    ['protected: an ancestor of this process', 'protected', 'close the port there'],
    ['stuck in uninterruptible sleep (D), SIGKILL is pending', 'stuck', 'it dies when the disk or the file server'],
    ['stuck at its tracer (t), pid 7, SIGKILL is pending', 'stuck', 'end that tracer, or have it let go'],
    ['not permitted: it belongs to another user', 'other_user', 'try again as that user, or as root'],
    ['still in state R after SIGKILL', 'listening', ''],
  ] as const) {
    it(`of a survivor that is ${why}: ${verdict}`, () => {
      const kill: KillReport = { killed: [], left: [], survivors: [{ pid: 812, command: 'x', why }], tookMs: 1 };
      const held = judgeSurvivors(9443, kill, { verdict: 'listening', explanation: '', free: false });
      expect(held.verdict).to.equal(verdict);
      expect(held.explanation).to.include(
        `Cannot free port 9443: pid 812 (x) still has it (${why})${remedy && '; '}${remedy}`,
      );
      const bound = judgeSurvivors(9443, kill, { verdict: 'free', explanation: '', free: true });
      expect(bound.explanation).to.include('Port 9443 was bound, but pid 812 (x) of its chain is left');
      for (const { explanation } of [held, bound]) expectOneSentence(explanation);
    });
  }

  it('of what came back: who holds it, who starts that, and what to do', () => {
    const holder = { ...info, pid: 951 };
    const { verdict, explanation } = judgeReturn(9443, { respawner: info, holder, remedy: 'end that one first' });
    expect(verdict).to.equal('respawned');
    expect(explanation).to.equal(
      'Port 9443 was freed and is held again by pid 951 (curl http://x): pid 812 (curl http://x) of me starts it again; end that one first',
    );
  });
});

/** One sentence: no full stop inside, none needed at its end, no line break, and it begins with what it is about. */
function expectOneSentence(text: string): void {
  expect(text).to.match(/^(Port \d+ |Cannot free port \d+: |This host )/);
  expect(text.replace(/\([^)]*\)/g, '')).not.to.match(/[.!?]\s|\n|\.$/);
}

/** Pid 1 listens, one that shares its socket sleeps, and a third one looks. */
function asFirst(port: number): string {
  return `use Socket; $^F = 100; socket(my $s, PF_INET, SOCK_STREAM, 0); bind($s, sockaddr_in(${port}, inet_aton("127.0.0.1"))) or die $!;
    listen($s, 5); if (!fork) { sleep 60; exit } $^F = 2; my $k = fork;
    if (!$k) { close $s; exec "${process.execPath}", "${stranger}", ${port} } waitpid($k, 0)`;
}
