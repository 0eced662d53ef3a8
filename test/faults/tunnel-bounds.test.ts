/** S2 of the fault catalogue: whatever is wrong, who asks is answered within `restart_timeout_ms`. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { readThreadStates } from '#lib/proc/stat.js';
import { systemClock, until } from '#lib/time.js';
import { type Answer, type Home, makeHome, startUp } from '../support/daemon.js';
import { type Disk, lacksDisk, makeDisk } from '../support/disk.js';
import { fault, spread } from '../support/fault.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { sendSignal } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { babbles, hangsUp, isMute, startServer } from '../support/servers.js';
import { startPerlSocket } from '../support/sockets.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { writeConfig } from './tunnel/rig.js';

/**
 * How late an answer may be here that says that the time is over: a few milliseconds, and on a machine with four programs for each
 * processor 200, and 1600 once in a hundred times.
 */
const LATE_MS = 3000;

describe('fault: a restart is answered in time, whatever is wrong', () => {
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  const title = 'of a stopped chain, a server that is silent, babbles or hangs up, a port that is taken';
  fault({ id: 'S2', title, times: 102, reduced: 6, needs }, async (times) => {
    await using reaper = createReaper();
    await using mute = await startServer(isMute);
    await using babbling = await startServer(babbles);
    await using closing = await startServer(hangsUp);
    const taken = await freeLocalPort();
    await using _stranger = await startServer(isMute, { port: taken });
    const kinds: readonly Kind[] = [
      { name: 'stopped', boundMs: 10_000, before: stopChain, expected: [200] },
      { name: 'stopped autossh', boundMs: 10_000, keys: { engine: 'autossh' }, before: stopChain, expected: [200] },
      { name: 'silent', boundMs: 1000, keys: serverAt(mute.port), expected: [504, 502] },
      { name: 'babbling', boundMs: 1000, keys: serverAt(babbling.port), expected: [504, 502] },
      { name: 'closing', boundMs: 10_000, keys: serverAt(closing.port), expected: [502] },
      { name: 'taken', boundMs: 3000, keys: { local_port: taken, takeover: 'tunnels' }, expected: [409] },
    ];
    return await withDaemon(reaper, kinds, async (home) => {
      const all = await Promise.all(kinds.map((kind) => askMany(home, kind, Math.ceil(times / kinds.length))));
      return describeAnswers(all.flat());
    });
  });

  const stuck = 'of what waits for a frozen disk: a process of its own chain, or who holds its port';
  fault({ id: 'S2', title: stuck, times: 8, needs: [...needs, 'perl'], impossible: lacksDisk }, async (times) => {
    await using reaper = createReaper();
    const disk = makeDisk();
    try {
      const port = await freeLocalPort();
      const boundMs = 8000;
      const kinds: readonly Kind[] = [
        { name: 'own', boundMs, config: proxyConfig(disk), expected: [502] },
        { name: 'held', boundMs, keys: { local_port: port }, query: '?force=true', expected: [409, 502] },
      ];
      return await withDaemon(reaper, kinds, async (home) => {
        const answers: Answered[] = [];
        while (answers.length < times) answers.push(...(await askStuck(home, kinds, { disk, port })));
        return describeAnswers(answers);
      });
    } finally {
      disk.unmake();
    }
  });
});

/** A tunnel with something wrong, and how a restart of it is answered. */
interface Kind {
  readonly name: string;
  readonly boundMs: number;
  readonly keys?: Readonly<Record<string, unknown>>;
  /** Done before each restart. */
  readonly before?: (home: Home, name: string) => Promise<void>;
  readonly expected: readonly number[];
  readonly query?: string;
  /** Lines of the person's ssh_config. */
  readonly config?: (sshd: Sshd) => readonly string[];
}

const serverAt = (port: number) => ({ ssh_options: { Port: String(port) } });

async function withDaemon(
  reaper: Reaper,
  kinds: readonly Kind[],
  act: (home: Home) => Promise<string>,
): Promise<string> {
  await using sshd = await startSshd();
  const home = makeHome();
  try {
    const common = { remote_host: sshd.host, remote_port: sshd.port };
    const tunnels = [];
    for (const { name, boundMs, keys, config } of kinds) {
      const file = config ? writeConfig(sshd, name, config(sshd)) : sshd.sshConfigFile;
      const bounds = { restart_timeout_ms: boundMs, backoff: { min_ms: 60_000, max_ms: 60_000 } };
      tunnels.push({ ...common, name, ssh_config: file, local_port: await freeLocalPort(), ...bounds, ...keys });
    }
    home.configure({}, tunnels);
    const daemon = await startUp(reaper, home);
    const figure = await act(home);
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    return figure;
  } finally {
    await reaper.end();
    home.remove();
  }
}

interface Answered {
  readonly boundMs: number;
  readonly tookMs: number;
}

async function askMany(home: Home, kind: Kind, times: number): Promise<Answered[]> {
  const answers: Answered[] = [];
  for (let round = 0; round < times; round++) {
    await kind.before?.(home, kind.name);
    answers.push(await ask(home, kind));
  }
  return answers;
}

async function ask(home: Home, { name, boundMs, expected, query = '' }: Kind): Promise<Answered> {
  const began = systemClock.now();
  const { status, body }: Answer = await home.api('POST', `/v1/tunnels/${encodeURIComponent(name)}/restart${query}`);
  const tookMs = systemClock.now() - began;
  expect(expected, `${name}: ${JSON.stringify(body)}`).to.include(status);
  expect(tookMs, `${name}: ${status}`).to.be.below(boundMs + LATE_MS);
  return { boundMs, tookMs };
}

function describeAnswers(all: readonly Answered[]): string {
  const late = all.map(({ boundMs, tookMs }) => tookMs - boundMs).filter((ms) => ms >= 0);
  const early = all.filter(({ boundMs, tookMs }) => tookMs < boundMs).map(({ tookMs }) => tookMs);
  const over =
    late.length === 0 ? 'none over its bound' : `${late.length} that the time is over, over it by ${spread(late)}`;
  return `${all.length}/${all.length} in time: ${early.length} within ${spread(early)}; ${over}`;
}

async function stopChain(home: Home, name: string): Promise<void> {
  for (const { pid, start_ticks } of await chainOf(home, name)) sendSignal({ pid, startTicks: start_ticks }, 'SIGSTOP');
}

/** The chain of a tunnel, once that is up. */
async function chainOf(home: Home, name: string): Promise<{ pid: number; start_ticks: number; command: string }[]> {
  const path = `/v1/tunnels/${encodeURIComponent(name)}`;
  const chain = async () => {
    const { body } = await home.api('GET', path);
    return body.state === 'up' && body.chain;
  };
  const found = await until(chain, { timeoutMs: 15_000, everyMs: 20 });
  if (!found) throw new Error(`${name} is not up: ${JSON.stringify((await home.api('GET', path)).body)}`);
  return found;
}

/** A ProxyCommand that relays like nc, and writes to the disk when it gets SIGUSR2. */
function proxyConfig(disk: Disk): (sshd: Sshd) => readonly string[] {
  return ({ dir, port }) => {
    const file = join(dir, 'relay.pl');
    writeFileSync(
      file,
      `use Socket; $SIG{USR2} = sub { open(my $f, '>', '${disk.dir}/file') or die; syswrite($f, 'x' x 8192) };
       socket(my $s, PF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in(${port}, INADDR_LOOPBACK)) or die;
       my %to = (fileno(STDIN), $s, fileno($s), *STDOUT);
       while (%to) { my $r = ''; vec($r, $_, 1) = 1 for keys %to; next if select($r, undef, undef, undef) < 0;
         for (grep { vec($r, $_, 1) } keys %to) { my $in = $_ ? $s : *STDIN;
           my $n = sysread($in, my $data, 65536); if ($n) { syswrite($to{$_}, $data) } else { delete $to{$_} } } }`,
    );
    return [`ProxyCommand ${which('perl')} ${file}`];
  };
}

/** Freezes the disk under what is in the way of restarts, asks for them, and again when it has thawed. */
async function askStuck(
  home: Home,
  kinds: readonly Kind[],
  { disk, port }: { readonly disk: Disk; readonly port: number },
): Promise<Answered[]> {
  await using others = createReaper();
  expect((await home.api('POST', '/v1/tunnels/held/stop')).status).to.equal(200);
  const pids = [await startWriter(others, port, disk), await relayOf(home, 'own')];
  disk.freeze();
  try {
    for (const pid of pids) process.kill(pid, 'SIGUSR2');
    const areWaiting = () => pids.every((pid) => readThreadStates(openProc(), pid).includes('D'));
    expect(await until(areWaiting, { timeoutMs: 5000 }), 'wait for the disk').to.equal(true);
    return await Promise.all(kinds.map((kind) => ask(home, kind)));
  } finally {
    disk.thaw();
    for (const { name } of kinds) {
      const { status, body } = await home.api('POST', `/v1/tunnels/${name}/restart?force=true`);
      expect(status, JSON.stringify(body)).to.equal(200);
    }
  }
}

async function relayOf(home: Home, name: string): Promise<number> {
  const relay = (await chainOf(home, name)).find(
    ({ command }) => command.includes('relay.pl') && !/ssh/.test(command.split(' ')[0] ?? ''),
  );
  if (!relay) throw new Error('There is no relay');
  return relay.pid;
}

/** Listens on the port, and writes to the disk when it gets SIGUSR2. */
async function startWriter(reaper: Reaper, port: number, disk: Disk): Promise<number> {
  const write = `open(my $f, '>', '${disk.dir}/file') or die; syswrite($f, 'x' x 8192)`;
  const script = `listen($s, 5); $SIG{USR2} = sub { ${write} }`;
  return (await startPerlSocket(reaper, { port, options: ['SO_REUSEADDR'], script })).pid;
}
