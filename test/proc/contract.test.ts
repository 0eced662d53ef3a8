/// <reference path="../../src/proc/untyped.d.ts" />
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'chai';
import fc from 'fast-check';
import find from 'find-process';
import { inspectPort } from '#lib/port/inspect.js';
import { findListeners, type Listener } from '#lib/port/listeners.js';
import { isPortFree, waitForPort } from '#lib/port/wait.js';
import type { BackendName } from '#lib/proc/backend.js';
import { type ProcessTree, readProcessTree } from '#lib/proc/family.js';
import { readUsage } from '#lib/proc/usage.js';
import { until } from '#lib/time.js';
import { need } from '../support/need.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { type Actor, type Shape, startClient, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

/*
 * One contract for both back ends: each answers what was really started, and each is the other's oracle, beside ss, lsof
 * and fuser where they are. What one of them cannot know is said here, with a test that shows it.
 */

const backends: readonly BackendName[] = ['linux', 'portable'];
const reaper = createReaper();

async function fromBoth<T>(ask: (backend: BackendName) => Promise<T>): Promise<[linux: T, portable: T]> {
  return [await ask('linux'), await ask('portable')];
}

describe('the contract of the back ends', function () {
  this.timeout(60_000);
  before(() => {
    for (const program of ['ss', 'lsof', 'fuser']) {
      if (!which(program)) process.stderr.write(`\n*** NOT COMPARED WITH ${program} ***: it is not installed\n`);
    }
  });
  afterEach(() => reaper.end());

  describe('on processes', () => {
    before(function () {
      need(this, 'ps');
    });

    it('shows any tree as it was started', async () => {
      await fc.assert(
        fc.asyncProperty(trees, async (actor) => {
          try {
            const shape = await startTree(reaper, actor).ready;
            const [linux, portable] = await fromBoth((backend) => readTree(shape.pid, backend));
            expect(outline(linux), 'linux').to.deep.equal(outline(shape));
            expect(outline(portable), 'portable').to.deep.equal(outline(shape));
            for (const [one, other] of pairUp(linux, portable)) compareNodes(one, other);
          } finally {
            await reaper.end();
          }
        }),
        { numRuns: 5 },
      );
    });

    it('shows a zombie by its letter below its parent, and not by itself', async function () {
      need(this, 'perl');
      // A parent that does not wait: its child is a zombie until it ends.
      const parent = await startScript(reaper, 'perl', ['-e', 'fork or exit; $| = 1; print "ready\n"; sleep 60']);
      await until(async () => (await readTree(parent.pid, 'linux')).children[0]?.state === 'Z', { timeoutMs: 10_000 });
      for (const backend of backends) {
        const { children } = await readTree(parent.pid, backend);
        expect(
          children.map(({ state }) => state),
          backend,
        ).to.deep.equal(['Z']);
        expect(await readProcessTree(children[0]?.pid ?? 0, { backend }), backend).to.equal(undefined);
      }
    });

    it('has nobody where there is nobody', async () => {
      for (const backend of backends) {
        expect(await readProcessTree(4_194_303, { backend }), backend).to.equal(undefined);
        expect(await readUsage(4_194_303, { backend }), backend).to.equal(undefined);
      }
    });

    it('agrees on what a process uses', async () => {
      const { pid } = await startTree(reaper, { memoryMb: 48 }).ready;
      const [linux, portable] = await fromBoth((backend) => readUsage(pid, { backend }));
      expect(portable).to.have.all.keys(Object.keys(linux ?? {}));
      expect(linux).to.include({ pid, ppid: process.pid });
      expect(portable).to.include({ pid, ppid: process.pid });
      // Whole seconds, and one goes by between the two.
      expect(portable?.elapsed).to.be.closeTo(linux?.elapsed ?? 0, 2100);
      expect(portable?.ctime).to.be.closeTo(linux?.ctime ?? 0, 1100);
      expect(portable?.memory).to.be.closeTo(linux?.memory ?? 0, 4e6);
    });
  });

  describe('on ports', () => {
    before(function () {
      need(this, 'perl', 'ipv6');
    });

    it('names all who hold any set of sockets, as ss, lsof and fuser do', async () => {
      await fc.assert(
        fc.asyncProperty(socketSets, async (sockets) => {
          try {
            const port = await freeLocalPort();
            const pids = await startSockets(port, sockets);
            await compareHolders(port, pids);
            await comparePortable(port, sockets, pids);
          } finally {
            await reaper.end();
          }
        }),
        { numRuns: 8 },
      );
    });

    it('says that nobody listens where nobody does, and waits for whoever will', async () => {
      const port = await freeLocalPort();
      for (const backend of backends) {
        expect(await findListeners(port, { backend }), backend).to.deep.equal([]);
        expect(await isPortFree(port, { backend }), backend).to.equal(true);
        expect(await inspectPort(port, { backend })).to.include({ free: true, verdict: 'free' });
        const late = await waitForPort(port, { backend, state: 'listening', timeoutMs: 30 }).catch(
          ({ code }: { code: string }) => code,
        );
        expect(late, backend).to.equal('ERR_TIMEOUT');
      }
      const waiting = backends.map((backend) => waitForPort(port, { backend, state: 'listening', timeoutMs: 20_000 }));
      await startListener(reaper, { port }).ready;
      await Promise.all(waiting);
    });

    it('lists no client of a port among its holders, as lsof does', async () => {
      const { pid, ports } = await startListener(reaper).ready;
      const port = ports[0]?.port ?? 0;
      const client = await startClient(reaper, { port }).ready;
      for (const backend of backends) {
        const holders = pidsOf(await findListeners(port, { backend }));
        expect(holders, backend).to.not.include(client.pid);
        if (backend === 'linux') expect(holders).to.deep.equal([pid]);
      }
      expect((await inspectPort(port)).clients.map((each) => each.pid)).to.deep.equal([client.pid]);
      // What `lsof -ti :PORT | xargs kill` would kill.
      if (which('lsof')) expect(await pidsFrom('lsof', ['-ti', `:${port}`])).to.have.members([pid, client.pid]);
    });

    it('is named one of several by find-process, and rather whoever has the UDP port', async function () {
      if (!which('ss')) this.skip();
      const port = await freeLocalPort();
      const pids = await startSockets(port, [{ host: '127.0.0.1', v6Only: false, forks: 2 }]);
      expect(pids).to.have.lengthOf(3);
      expect(await find('port', port)).to.have.lengthOf(1);
      expect(pidsOf(await findListeners(port))).to.have.members(pids);
      const udp = await startScript(reaper, 'perl', [
        '-e',
        `use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 0); bind($s, sockaddr_in(${port}, INADDR_LOOPBACK)) or die $!; $| = 1; print "ready\\n"; sleep 60`,
      ]);
      expect((await find('port', port)).map(({ pid }) => pid)).to.deep.equal([udp.pid]);
      expect(pidsOf(await findListeners(port))).to.have.members(pids);
      // So the portable back end is wrong here as well, and says whose word it is.
      const report = await inspectPort(port, { backend: 'portable' });
      expect(report.explanation).to.contain(`held by pid ${udp.pid} `).and.contain('as find-process says');
    });

    it('is not taken for free by either where a socket is bound and does not listen, as tcp-port-used does', async () => {
      const { default: tcpPortUsed } = await import('tcp-port-used');
      const port = await freeLocalPort();
      await startScript(reaper, 'perl', [
        '-e',
        `use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0); bind($s, sockaddr_in(${port}, INADDR_LOOPBACK)) or die $!; $| = 1; print "ready\\n"; sleep 60`,
      ]);
      expect(await tcpPortUsed.check(port, '127.0.0.1')).to.equal(false);
      for (const backend of backends) {
        expect(await isPortFree(port, { backend }), backend).to.equal(false);
        expect(await inspectPort(port, { backend }), backend).to.include({ free: false, verdict: 'hidden_bind' });
        expect(await findListeners(port, { backend }), backend).to.deep.equal([]);
      }
    });
  });
});

// --- trees ---

/** At most 7 processes, three deep. */
const trees: fc.Arbitrary<Actor> = fc
  .letrec<{ tree: Actor; leaf: Actor }>((tie) => ({
    leaf: fc.record({ setsid: fc.boolean(), comm: fc.constantFrom('a', ') R (', 'x y') }, { requiredKeys: [] }),
    tree: fc.oneof(
      { maxDepth: 2, depthIdentifier: 'tree' },
      tie('leaf'),
      fc.record({ setsid: fc.boolean(), children: fc.array(tie('tree'), { minLength: 1, maxLength: 2 }) }),
    ),
  }))
  .tree.filter((actor) => countOf(actor) <= 7);

function countOf({ children = [] }: Actor): number {
  return 1 + children.reduce((sum, child) => sum + countOf(child), 0);
}

interface Outline {
  readonly pid: number;
  readonly children: readonly Outline[];
}

/** Pids alone, in order. */
function outline({ pid, children }: Shape | ProcessTree): Outline {
  return { pid, children: children.map(outline).sort((one, other) => one.pid - other.pid) };
}

async function readTree(pid: number, backend: BackendName): Promise<ProcessTree> {
  const tree = await readProcessTree(pid, { backend });
  if (!tree) throw new Error(`${backend} sees no process ${pid}`);
  return tree;
}

/** Node by node: the outlines are the same. */
function* pairUp(one?: ProcessTree, other?: ProcessTree): Generator<[ProcessTree, ProcessTree]> {
  if (!one || !other) return;
  yield [one, other];
  for (const child of one.children)
    yield* pairUp(
      child,
      other.children.find(({ pid }) => pid === child.pid),
    );
}

function compareNodes(linux: ProcessTree, portable: ProcessTree): void {
  expect(portable.ageS).to.be.closeTo(linux.ageS ?? 0, 2.1);
  expect(portable.rssBytes).to.be.closeTo(linux.rssBytes, 8e6);
  // Node runs or sleeps; nobody is stopped here.
  for (const { state } of [linux, portable]) expect(state).to.match(/^[RSDI]$/);
}

// --- sockets ---

interface SocketPlan {
  readonly host: string;
  readonly v6Only: boolean;
  /** So many children that have the socket too. */
  readonly forks: number;
}

const anySocket = fc.record({
  host: fc.constantFrom('127.0.0.1', '127.0.0.2', '::1', '0.0.0.0', '::'),
  v6Only: fc.boolean(),
  forks: fc.nat(2),
});

/** What can be bound beside each other: a wildcard excludes its family, and `::` for both families excludes all. */
const socketSets = fc
  .uniqueArray(anySocket, { minLength: 1, maxLength: 3, selector: ({ host }) => host })
  .filter((sockets) => {
    const hosts = sockets.map(({ host }) => host);
    const v4 = hosts.filter((host) => host.includes('.'));
    const isDual = sockets.some(({ host, v6Only }) => host === '::' && !v6Only);
    const v4Clash = hosts.includes('0.0.0.0') && v4.length > 1;
    return !v4Clash && !(hosts.includes('::') && hosts.includes('::1')) && !(isDual && hosts.length > 1);
  });

/** Each socket in a process of its own, with its forks; all on one port. Resolves to the pids, when all have it. */
async function startSockets(port: number, sockets: readonly SocketPlan[]): Promise<number[]> {
  const pids: number[] = [];
  for (const { host, v6Only, forks } of sockets) {
    const v6 = host.includes(':');
    const address = v6
      ? `pack_sockaddr_in6(${port}, inet_pton(AF_INET6, '${host}'))`
      : `sockaddr_in(${port}, inet_aton('${host}'))`;
    const program = `use strict; use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_IPV6 IPV6_V6ONLY); $| = 1; $^F = 100;
      socket(my $s, ${v6 ? 'PF_INET6' : 'PF_INET'}, SOCK_STREAM, 0) or die "socket: $!";
      ${v6 ? `setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, ${v6Only ? 1 : 0}) or die "v6only: $!";` : ''}
      bind($s, ${address}) or die "bind: $!"; listen($s, 5) or die "listen: $!";
      for (1 .. ${forks}) { next if fork; close(STDOUT); sleep 1 while 1 }
      print "ready\\n"; sleep 1 while 1`;
    const child = await startScript(reaper, 'perl', ['-e', program]);
    const tree = await readProcessTree(child.pid);
    pids.push(child.pid, ...(tree?.children.map(({ pid }) => pid) ?? []));
  }
  return pids;
}

/** /proc, ss, lsof and fuser name the same processes, and those are the ones that were started. */
async function compareHolders(port: number, pids: readonly number[]): Promise<void> {
  expect(pidsOf(await findListeners(port)), 'linux').to.have.members(pids);
  for (const [program, args] of [
    ['ss', ['-Hltnp', `sport = :${port}`]],
    ['lsof', ['-nP', '-t', `-iTCP:${port}`, '-sTCP:LISTEN']],
    ['fuser', ['-n', 'tcp', String(port)]],
  ] as const) {
    if (which(program)) expect(await pidsFrom(program, args), program).to.have.members(pids);
  }
}

/** What find-process says is one of them; what a connection says is what the table says, address by address. */
async function comparePortable(port: number, sockets: readonly SocketPlan[], pids: readonly number[]): Promise<void> {
  const listeners = await findListeners(port, { backend: 'portable' });
  // 127.0.0.2 is on no list of this host's addresses, so it is asked only by its name; it is called free by none.
  const v4 = sockets.filter(({ host }) => host.includes('.'));
  const v4Unseen = v4.length > 0 && v4.every(({ host }) => host === '127.0.0.2');
  const isUnseen = v4Unseen && v4.length === sockets.length;
  expect(listeners.length > 0, 'portable').to.equal(!isUnseen);
  for (const pid of pidsOf(listeners)) expect(pids, 'named by find-process').to.include(pid);
  for (const host of ['127.0.0.1', '127.0.0.2', '::1', '0.0.0.0', '::']) {
    const [linux, portable] = await fromBoth(
      async (backend) => (await findListeners(port, { backend, host })).length > 0,
    );
    expect(portable, `${host} beside ${JSON.stringify(sockets)}`).to.equal(linux && !(host === '0.0.0.0' && v4Unseen));
  }
  for (const backend of backends) {
    const verdict = isUnseen && backend === 'portable' ? 'hidden_bind' : 'listening';
    expect(await inspectPort(port, { backend }), backend).to.include({ free: false, verdict });
    expect(await isPortFree(port, { backend }), backend).to.equal(false);
  }
}

function pidsOf(listeners: readonly Listener[]): number[] {
  return [...new Set(listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid)))];
}

/** Every pid in what a program prints. Exit codes are not looked at: lsof ends with 1 when it has a warning. */
async function pidsFrom(program: string, args: readonly string[]): Promise<number[]> {
  const output = await promisify(execFile)(which(program) ?? program, [...args]).then(
    ({ stdout }) => stdout,
    ({ stdout }: { stdout: string }) => stdout,
  );
  const pattern = program === 'ss' ? /pid=(\d+)/g : /(?:^|\s)(\d+)(?=\s|$)/g;
  return [...new Set([...output.matchAll(pattern)].map(([, pid]) => Number(pid)))];
}
