import { type ChildProcess, spawn } from 'node:child_process';
import { until } from '#lib/time.js';
import type { Reaper } from './reaper.js';

/**
 * Sockets as Node cannot make them, made by perl: `$s` is what the script gets, bound as it is asked, and whatever the
 * script prints first says that it is ready. Resolves to the process, when it has.
 *
 * @example
 * await startPerlSocket(reaper, { port, script: 'listen($s, 5); fork; fork;' }); // four processes, one socket
 */
export async function startPerlSocket(
  reaper: Reaper,
  {
    port,
    address = '127.0.0.1',
    options = [],
    script = '',
  }: {
    readonly port: number;
    readonly address?: string;
    readonly options?: readonly ('SO_REUSEADDR' | 'SO_REUSEPORT')[];
    readonly script?: string;
  },
): Promise<ChildProcess & { readonly pid: number }> {
  const set = options.map((option) => `setsockopt($s, SOL_SOCKET, ${option}, 1) or die "${option}: $!";`).join(' ');
  const program = `use strict; use Socket; $| = 1; $^F = 100;
    socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!"; ${set}
    bind($s, sockaddr_in(${port}, inet_aton('${address}'))) or die "bind: $!";
    my $parent = $$; ${script}; print "ready\\n" if $$ == $parent; sleep 1 while 1`;
  return await startScript(reaper, 'perl', ['-e', program]);
}

/** Starts a program that prints a line when it is ready, and answers that line too. */
export async function startScript(
  reaper: Reaper,
  program: string,
  args: readonly string[],
): Promise<ChildProcess & { readonly pid: number; readonly firstLine: string }> {
  const env = { ...process.env, ...reaper.env };
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  reaper.own(child);
  let said = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const ready = await until(() => said.includes('\n') || child.exitCode !== null, { timeoutMs: 10_000 });
  if (!ready || child.exitCode !== null || child.pid === undefined) throw new Error(`${program} failed: ${errors}`);
  return Object.assign(child, { pid: child.pid, firstLine: said.split('\n')[0] ?? '' });
}

/** A process that listens there, and whose first thread has ended: another one keeps the socket. */
export async function startLeaderless(reaper: Reaper, port: number): Promise<ChildProcess & { readonly pid: number }> {
  return await startScript(reaper, 'python3', ['-c', leaderless(port)]);
}

/** 60 is SYS_exit on x86, and 93 on ARM: it ends the thread alone. */
function leaderless(port: number): string {
  return `
import ctypes, os, platform, socket, threading, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", ${port})); s.listen(5)
def wait():
    while "Z" != open("/proc/%d/stat" % os.getpid()).read().rsplit(")", 1)[1].split()[0]: time.sleep(0.001)
    print("ready", flush=True); time.sleep(170)
threading.Thread(target=wait).start()
ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)`;
}

/** A listener that no process has open: it waits in a message from a process to itself. */
export async function startInFlight(
  reaper: Reaper,
): Promise<ChildProcess & { readonly pid: number; readonly port: number }> {
  const child = await startScript(reaper, 'python3', ['-c', IN_FLIGHT]);
  const { port } = JSON.parse(child.firstLine) as { port: number };
  return Object.assign(child, { port });
}

const IN_FLIGHT = `
import array, json, socket, time
a, b = socket.socketpair()
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", 0)); s.listen(5)
port = s.getsockname()[1]
a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
s.close()
print(json.dumps({"port": port}), flush=True)
time.sleep(170)`;
