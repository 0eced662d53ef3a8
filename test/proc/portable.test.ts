import { execFile } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { killTree } from '#lib/kill.js';
import { freePort } from '#lib/port/free.js';
import { findListeners } from '#lib/port/listeners.js';
import { readProcessTree } from '#lib/proc/family.js';
import { readUsage } from '#lib/proc/usage.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

/*
 * How the four packages of the portable back end go wrong, shown, and that none of it comes through. What they answer
 * where all is well is compared with /proc in contract.test.ts.
 */

const reaper = createReaper();
const portable = { backend: 'portable' } as const;

describe('the portable back end', () => {
  before(function () {
    need(this, 'ps');
  });
  afterEach(() => reaper.end());

  describe('with an empty PATH', () => {
    const nothing = { PATH: '/nonexistent' };

    it('says that it cannot read a tree or a usage, where ps-tree ends the process', async () => {
      const theirs = await runNode(
        `import psTree from 'ps-tree'; psTree(1, () => {}); setTimeout(() => {}, 5000)`,
        nothing,
      );
      expect(theirs).to.include({ code: 1 });
      expect(theirs.stderr).to.match(/Unhandled 'error' event.*spawn ps ENOENT/s);
      const ours = await runNode(
        `import { askPsTree } from '#lib/proc/packages.js'; import { readProcessTree } from '#lib/proc/family.js';
        import { readUsage } from '#lib/proc/usage.js'; const portable = { backend: 'portable' };
        for (const reading of [askPsTree('read the tree of pid 1', 1), readProcessTree(1, portable), readUsage(1, portable)])
          await reading.catch(({ code, message }) => console.log(code, message));`,
        nothing,
      );
      const why = 'pidusage could not ask the system (spawn ps ENOENT)';
      expect(ours.stdout.trim().split('\n')).to.deep.equal([
        'ERR_BACKEND_UNAVAILABLE Cannot read the tree of pid 1: ps-tree could not run ps (spawn ps ENOENT)',
        `ERR_BACKEND_UNAVAILABLE Cannot read the tree of pid 1: ${why}`,
        `ERR_BACKEND_UNAVAILABLE Cannot read the usage of pid 1: ${why}`,
      ]);
      // pidusage itself prints two stack traces here, when it misses getconf.
      expect(ours).to.include({ code: 0, stderr: '' });
      const noisy = await runNode(`import pidusage from 'pidusage'; await pidusage(process.pid)`, nothing);
      expect(noisy.stderr.match(/Error while calling "getconf (CLK_TCK|PAGESIZE)"/g)).to.have.lengthOf(2);
    });

    it('takes the empty answer of find-process for "not known", and still knows that somebody listens', async () => {
      const { ports } = await startTree(reaper, { listen: [{ host: '127.0.0.1' }] }).ready;
      const port = ports[0]?.port ?? 0;
      const { stdout, stderr } = await runNode(
        `import find from 'find-process'; import { inspectPort, findListeners, waitForPort, isPortFree } from '#lib/index.js';
        const portable = { backend: 'portable' }; const print = (value) => console.log(JSON.stringify(value));
        print(await find('port', ${port}));
        print(await findListeners(${port}, portable));
        print(await inspectPort(${port}, portable));
        print([await waitForPort(${port}, { ...portable, state: 'listening' }), await isPortFree(${port}, portable)]);`,
        nothing,
      );
      const [theirs, listeners, report, rest] = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(theirs).to.deep.equal([]);
      const [listener, ...others] = listeners;
      expect(listener).to.include({ protocol: 'tcp', address: '127.0.0.1', port, inode: 0, uid: -1 });
      expect(listener.holders).to.deep.equal([]);
      expect(listener.hidden).to.contain('find-process does not name');
      expect(others).to.deep.equal([]);
      expect(report).to.deep.include({ free: false, verdict: 'listening', clients: [], kill: null });
      expect(report.explanation).to.equal(`Port ${port} is ${listener.hidden}`);
      expect(rest).to.deep.equal([null, false]);
      expect(stderr).to.equal('');
    });
  });

  describe('on a ps of our own', () => {
    let dir: string;
    beforeEach(() => {
      dir = mkdtempSync(join(tmpdir(), 'tunward-ps-'));
    });
    afterEach(() => rmSync(dir, { recursive: true }));

    it('finds a child that is listed before its parent, which ps-tree loses', async () => {
      // 300 → 400 → 50, as after the numbers have begun again.
      fakePs(
        dir,
        `case "$*" in *-p*) for pid in $(echo 50 300 400); do echo "00:07 $pid 1 0.0 1000 00:01"; done;;
        *) echo '  400    50 S    grandchild'; echo '    1   300 S    root'; echo '  300   400 S    child';; esac`,
      );
      const { stdout } = await runNode(
        `import psTree from 'ps-tree'; import { readProcessTree } from '#lib/proc/family.js';
        psTree(300, (_error, rows) => console.log(JSON.stringify(rows.map(({ PID }) => PID))));
        console.log(JSON.stringify(await readProcessTree(300, { backend: 'portable' })));`,
        { PATH: dir },
      );
      const [theirs, ours] = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(theirs).to.deep.equal(['400']);
      const rest = { startTicks: -1, state: 'S', ageS: 7, rssBytes: 1_024_000, ports: [] };
      const grandchild = { ...rest, pid: 50, command: 'grandchild', children: [] };
      const child = { ...rest, pid: 400, command: 'child', children: [grandchild] };
      expect(ours).to.deep.equal({ ...rest, pid: 300, command: 'root', children: [child] });
    });

    it('does not take a ps that fails for "nobody is there"', async () => {
      fakePs(dir, `case "$*" in *-p*) echo "00:07 300 1 0.0 1000 00:01";; *) exit 2;; esac`);
      const { stdout, code } = await runNode(
        `import psTree from 'ps-tree'; import { readProcessTree } from '#lib/proc/family.js';
        psTree(300, (_error, rows) => console.log(JSON.stringify(rows)));
        await readProcessTree(300, { backend: 'portable' }).catch(({ message }) => console.log(message));`,
        { PATH: dir },
      );
      expect(stdout.trim().split('\n')).to.deep.equal([
        '[]',
        'Cannot read the tree of pid 300: ps-tree could not run ps (ps ended with 2)',
      ]);
      expect(code).to.equal(0);
    });

    it('waits for no ps for ever', async () => {
      fakePs(dir, 'exec /bin/sleep 60');
      const { stdout } = await runNode(
        `import { readUsage } from '#lib/proc/usage.js'; import { systemClock } from '#lib/time.js';
        // 10 s, fifty times as fast.
        const clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / 50, signal) };
        await readUsage(300, { backend: 'portable', clock }).catch(({ code, message }) => console.log(code, message));
        process.exit();`,
        { PATH: dir },
      );
      expect(stdout.trim()).to.equal('ERR_TIMEOUT Cannot read the usage of pid 300: no answer after 10000 ms');
    });
  });

  it('lives where no descriptor is left to run a program with, which ends a process that asks pidusage or ps-tree', async () => {
    const crowd = `import fs from 'node:fs';
      const fds = []; try { for (;;) fds.push(fs.openSync('/dev/null')); } catch ({ code }) { console.log(code); }`;
    const theirs = await runNode(
      `import pidusage from 'pidusage'; await pidusage([1], { usePs: true }); ${crowd}
      await pidusage([1], { usePs: true }).catch(() => undefined); await new Promise((resolve) => setTimeout(resolve, 100));`,
      {},
      { descriptors: 200 },
    );
    expect(theirs.code).to.equal(1);
    expect(theirs.stderr).to.match(/Unhandled 'error' event.*spawn ps EMFILE/s);
    const ours = await runNode(
      `import { askPidusage, askPsTree } from '#lib/proc/packages.js';
      await askPidusage('', [1]); await askPsTree('', 1); ${crowd}
      for (const ask of [() => askPidusage('read', [1]), () => askPsTree('read', 1)])
        await ask().catch(({ code, message }) => console.log(code, message));
      await new Promise((resolve) => setTimeout(resolve, 100)); fds.map(fs.closeSync); console.log('lives');`,
      {},
      { descriptors: 200 },
    );
    expect(ours.stdout.trim().split('\n')).to.deep.equal([
      'EMFILE',
      'ERR_BACKEND_UNAVAILABLE Cannot read: pidusage could not ask the system (spawn ps EMFILE)',
      'ERR_BACKEND_UNAVAILABLE Cannot read: ps-tree could not run ps (spawn ps EMFILE)',
      'lives',
    ]);
  });

  it('leaves out the ps that it runs itself, which ps-tree counts', async () => {
    const { stdout } = await runNode(
      `import psTree from 'ps-tree'; import { readProcessTree } from '#lib/proc/family.js';
      psTree(process.pid, (_error, rows) => console.log(JSON.stringify(rows.map(({ COMMAND }) => COMMAND))));
      await new Promise((resolve) => setTimeout(resolve, 200));
      console.log(JSON.stringify((await readProcessTree(process.pid, { backend: 'portable' })).children));`,
    );
    expect(stdout.trim().split('\n')).to.deep.equal(['["ps"]', '[]']);
  });

  it('says which package is missing', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-bare-'));
    try {
      cpSync(join(repoRoot, 'lib'), join(dir, 'lib'), { recursive: true });
      writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
      const server = net.createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => server.once('listening', resolve));
      const { port } = server.address() as AddressInfo;
      const { stdout } = await runNode(
        `import * as tunward from './lib/index.js'; import * as packages from './lib/proc/packages.js';
        const options = { backend: 'portable', state: 'listening' };
        for (const reading of [() => tunward.readUsage(7, options), () => tunward.findListeners(${port}, options),
          () => packages.askPsTree('read', 7), () => packages.askFindProcess('read', 7)])
          await reading().catch(({ code, message }) => console.log(code, message));`,
        {},
        { cwd: dir },
      );
      server.close();
      expect(stdout.trim().split('\n')).to.deep.equal(
        [
          'Cannot read the usage of pid 7: the package pidusage is not found (npm i pidusage)',
          `Cannot connect to port ${port} of 127.0.0.1: the package tcp-port-used is not found (npm i tcp-port-used)`,
          'Cannot read: the package ps-tree is not found (npm i ps-tree)',
          'Cannot read: the package find-process is not found (npm i find-process)',
        ].map((message) => `ERR_BACKEND_UNAVAILABLE ${message}`),
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('takes a listener with a full queue for one, where tcp-port-used waits, and keeps nothing of the attempt', async function () {
    this.timeout(20_000);
    need(this, 'perl');
    const script = `use Socket; $| = 1; socket(my $s, PF_INET, SOCK_STREAM, 0); bind($s, sockaddr_in(0, inet_aton('127.0.0.1')));
      listen($s, 0); my ($port) = sockaddr_in(getsockname($s)); print "$port\\n"; sleep 60`;
    const holder = await startScript(reaper, 'perl', ['-e', `${script}`]);
    const [listener] = await listenersOf(holder.pid);
    const began = performance.now();
    const { stdout, code } = await runNode(
      `import net from 'node:net'; import { askTcpPortUsed } from '#lib/proc/packages.js'; import tcpPortUsed from 'tcp-port-used';
      const full = [1, 2, 3].map(() => net.connect(${listener}, '127.0.0.1').on('error', () => {}));
      await new Promise((resolve) => setTimeout(resolve, 200));
      console.log(await askTcpPortUsed('ask', { host: '127.0.0.1', port: ${listener} }));
      for (const socket of full) socket.destroy();`,
    );
    expect(stdout.trim()).to.equal('true');
    expect(code).to.equal(0);
    // A socket that goes on trying would keep the process for two minutes.
    expect(performance.now() - began).to.be.lessThan(10_000);
  });

  it('reads the usage of a process whose number was another one’s, whom pidusage calls dead', async function () {
    this.timeout(20_000);
    need(this, 'root', 'unshare');
    const { stdout } = await runNode(
      `import { spawn } from 'node:child_process'; import { once } from 'node:events'; import { writeFileSync } from 'node:fs';
      import pidusage from 'pidusage'; import { readUsage } from '#lib/proc/usage.js';
      const start = () => spawn('sleep', ['30'], { stdio: 'ignore' });
      const first = start(); await pidusage(first.pid); await readUsage(first.pid, { backend: 'portable' });
      first.kill('SIGKILL'); await once(first, 'exit');
      let heir;
      for (let attempt = 0; attempt < 20 && heir?.pid !== first.pid; attempt++) {
        heir?.kill('SIGKILL');
        writeFileSync('/proc/sys/kernel/ns_last_pid', String(first.pid - 1));
        heir = start();
      }
      console.log(heir.pid === first.pid);
      console.log(await pidusage(heir.pid).catch(({ code }) => code));
      console.log((await readUsage(heir.pid, { backend: 'portable' })).pid === heir.pid);
      heir.kill('SIGKILL');`,
    );
    expect(stdout.trim().split('\n')).to.deep.equal(['true', 'ESRCH', 'true']);
  });

  it('is asked for on any system but Linux, and kills, frees and tunnels nothing', async () => {
    const config = join(mkdtempSync(join(tmpdir(), 'tunward-config-')), 'tunward.yaml');
    writeFileSync(config, 'tunnels: []\n');
    const { stdout } = await runNode(
      `Object.defineProperty(process, 'platform', { value: 'darwin' });
      const { freePort, killTree, readUsage, createUsageReader, openTunnel, startDaemon } = await import('#lib/index.js');
      const say = ({ code, message }) => console.log(code, message);
      await killTree(process.ppid).catch(say); await freePort(9443).catch(say);
      try { createUsageReader() } catch (error) { say(error) }
      await openTunnel({ remoteHost: 'me@127.0.0.1', remotePort: 5432, localPort: 21111 }).catch(say);
      await startDaemon({ configFile: '${config}' }).catch(say);
      console.log((await readUsage(process.pid)).ppid === process.ppid);`,
    );
    rmSync(dirname(config), { recursive: true });
    const why = "on darwin: only Linux's /proc tells one process from the next that bears its number";
    expect(stdout.trim().split('\n')).to.deep.equal([
      `ERR_BACKEND_UNAVAILABLE Cannot kill pid ${process.pid} ${why}`,
      `ERR_BACKEND_UNAVAILABLE Cannot free port 9443 ${why}`,
      `ERR_BACKEND_UNAVAILABLE Cannot read usage again and again ${why}`,
      `ERR_BACKEND_UNAVAILABLE Cannot keep tunnels up ${why}`,
      `ERR_BACKEND_UNAVAILABLE Cannot run the daemon ${why}`,
      'true',
    ]);
    const { pid, ports } = await startTree(reaper, { listen: [{ host: '127.0.0.1' }] }).ready;
    const port = ports[0]?.port ?? 0;
    for (const act of [() => killTree(pid, portable), () => freePort(port, portable)]) {
      const error = await act().catch((reason: unknown) => reason);
      expect(error).to.have.property('code', 'ERR_BACKEND_UNAVAILABLE');
      expect(error).to.have.property('message').that.contains("with the back end 'portable'");
    }
    expect(await readUsage(pid)).to.include({ pid });
  });

  it('cannot be used to kill on Linux: what it answers has no identity', async () => {
    const { pid } = await startTree(reaper, {}).ready;
    const tree = await readProcessTree(pid, portable);
    expect(tree).to.include({ pid, startTicks: -1 });
    const report = await killTree({ pid, startTicks: tree?.startTicks ?? 0 });
    expect(report.killed).to.deep.equal([]);
    expect(await readUsage(pid)).to.include({ pid });
  });

  it('refuses a back end that there is not', async () => {
    const wrong = { backend: 'windows' as never };
    for (const read of [() => readUsage(1, wrong), () => readProcessTree(1, wrong), () => findListeners(9443, wrong)]) {
      expect(await read().catch((error: unknown) => error))
        .to.be.instanceOf(TypeError)
        .with.property('message', "Cannot use 'windows' as a backend: expected 'linux' or 'portable'");
    }
  });

  it('rejects with the reason of an abort', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    const port = (await startTree(reaper, { listen: [{}] }).ready).ports[0]?.port ?? 0;
    for (const read of [
      () => readUsage(1, { ...portable, signal }),
      () => readProcessTree(1, { ...portable, signal }),
      () => findListeners(port, { ...portable, signal }),
    ]) {
      expect(await read().catch((error: unknown) => error)).to.have.property('message', 'enough');
    }
  });
});

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program in a Node of its own: what it does wrong may end it. */
async function runNode(
  program: string,
  env: NodeJS.ProcessEnv = {},
  { cwd = repoRoot, descriptors }: { readonly cwd?: string; readonly descriptors?: number } = {},
): Promise<Outcome> {
  const options = { cwd, env: { ...process.env, ...reaper.env, ...env }, timeout: 25_000 };
  const node = [process.execPath, '--input-type=module', '-e', program];
  const limited = ['/bin/sh', '-c', `ulimit -n ${descriptors}; exec "$@"`, 'sh', ...node];
  const [file = '', ...words] = descriptors === undefined ? node : limited;
  try {
    const { stdout, stderr } = await promisify(execFile)(file, words, options);
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as Outcome;
    return { code, stdout, stderr };
  }
}

/** A `ps` with the header of ps-tree's columns, or of pidusage's, and rows as the script prints them. */
function fakePs(dir: string, script: string): void {
  const header = `case "$*" in *-p*) echo "ELAPSED PID PPID %CPU RSS TIME";; *) echo " PPID   PID STAT COMMAND";; esac`;
  writeFileSync(join(dir, 'ps'), `#!/bin/sh\n${header}\n${script}\n`);
  chmodSync(join(dir, 'ps'), 0o755);
}

async function listenersOf(pid: number): Promise<readonly number[]> {
  return (await readProcessTree(pid))?.ports ?? [];
}
