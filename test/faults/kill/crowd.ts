import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '#lib/time.js';
import { lacks } from '../../support/need.js';
import { which } from '../../support/paths.js';
import { isAlive, type Ref, statOf } from '../../support/proc.js';
import type { Reaper } from '../../support/reaper.js';

/** Twenty that look like what is killed, and must not notice. */
export interface Crowd {
  readonly size: number;
  /** One of them, whose name is ssh, connects to the port and holds on to the connection. */
  connect(port: number): Promise<void>;
  /** How often one of them did. */
  connections(): number;
  /** Those that are dead or stopped by now. */
  harmed(): string[];
}

interface Kind {
  readonly program: 'sleep' | 'perl' | 'sh';
  /** What comm shows: the name of the file that is executed. */
  readonly comm: string;
  readonly argv0?: string;
  readonly argv: readonly string[];
  readonly count: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly otherNetwork?: boolean;
}

interface CrowdOptions {
  /** The host that the tunnels go to, and the ports they listen on. */
  readonly host: string;
  readonly ports: readonly number[];
}

export async function startCrowd(reaper: Reaper, options: CrowdOptions): Promise<Crowd> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-crowd-'));
  const started = kindsAround(options).flatMap((kind) =>
    Array.from({ length: kind.count }, () => ({ kind, child: startOne(reaper, dir, kind) })),
  );
  const all = started.map(({ kind, child }) => ({ kind, ref: refOf(child) }));
  const areNamed = () => all.every(({ kind, ref }) => statOf(ref.pid)?.comm === kind.comm);
  if (!(await until(areNamed, { timeoutMs: 10_000 }))) throw new Error('Some of the crowd did not start');
  rmSync(dir, { recursive: true });
  const clients = started.filter(({ kind }) => kind.argv.includes(client)).map(({ child }) => createClient(child));
  let turn = 0;
  const isHarmed = (ref: Ref) => !isAlive(ref.pid, ref.startTicks) || statOf(ref.pid)?.state === 'T';
  return {
    size: all.length,
    connect: async (port) => clients[turn++ % clients.length]?.(port),
    connections: () => turn,
    harmed: () => all.filter(({ ref }) => isHarmed(ref)).map(({ kind, ref }) => `${ref.pid} ${kind.comm}`),
  };
}

function kindsAround({ host, ports }: CrowdOptions): Kind[] {
  const line = `ssh -N -L 127.0.0.1:${ports[0]}:127.0.0.1:22 ${host}`;
  const otherNetwork = lacks('root') === undefined && lacks('unshare') === undefined;
  return [
    { program: 'perl', comm: 'ssh', argv: ['-e', client], count: 4 },
    { program: 'sleep', comm: 'ssh', argv0: line, argv: ['900'], count: 3 },
    { program: 'sleep', comm: 'autossh', argv0: `auto${line}`, argv: ['900'], count: 2 },
    { program: 'sleep', comm: 'ssh', argv: ['900'], count: 4, env: lookalikeEnv },
    { program: 'sleep', comm: 'ssh', argv0: `${line}2`, argv: ['900'], count: 2 },
    { program: 'sh', comm: 'sh', argv: ['-c', `while :; do sleep 900; done # ${line}`], count: 2 },
    // Without the right to another network they would hold the tunnels' own ports.
    otherNetwork
      ? { program: 'perl', comm: 'ssh', argv: ['-e', listener, ...ports.map(String)], count: 3, otherNetwork }
      : { program: 'sleep', comm: 'ssh', argv: ['900'], count: 3 },
  ];
}

/** Connects to each port that it is told, and says so; the connection lasts until the next. */
const client = `$| = 1; use Socket; while (<STDIN>) { close $s if $s; socket($s, PF_INET, SOCK_STREAM, 0);
  print connect($s, sockaddr_in(0 + $_, INADDR_LOOPBACK)) ? "ok\\n" : "no\\n" } sleep 1 while 1`;

/** Listens on each of the ports, on every address. */
const listener = `use Socket; for (@ARGV) { socket(my $s, PF_INET, SOCK_STREAM, 0); push @held, $s;
  bind($s, sockaddr_in(0 + $_, INADDR_ANY)) or die "bind: $!"; listen($s, 5) } sleep 1 while 1`;

/** Names that end the same; values that begin the same, or quote it. */
const lookalikeEnv = { OTHER_TUNNEL_ID: 'faults', NOTE: '\nTUNWARD_INSTANCE=faults\n', TUNWARD_INSTANCE: 'faults2' };

function startOne(reaper: Reaper, dir: string, { program, comm, argv0, argv, env, otherNetwork }: Kind): ChildProcess {
  const file = join(dir, program, comm);
  mkdirSync(join(dir, program), { recursive: true });
  if (!existsSync(file)) symlinkSync(which(program) ?? program, file);
  const [run, args] = otherNetwork ? [which('unshare') ?? 'unshare', ['-n', file, ...argv]] : [file, argv];
  const child = spawn(run, args, {
    env: { ...process.env, ...reaper.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
    ...(argv0 ? { argv0 } : {}),
  });
  reaper.own(child);
  return child;
}

function refOf({ pid = 0 }: ChildProcess): Ref {
  return { pid, startTicks: statOf(pid)?.startTicks ?? 0 };
}

function createClient(child: ChildProcess): (port: number) => Promise<void> {
  let said = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  let asked = 0;
  return async (port) => {
    child.stdin?.write(`${port}\n`);
    const count = ++asked;
    const answered = await until(() => said.split('\n').length > count, { timeoutMs: 10_000 });
    if (!answered || said.split('\n')[count - 1] !== 'ok') throw new Error(`No connection to port ${port}: ${said}`);
  };
}
