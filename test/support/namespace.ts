/**
 * Where destructive tests run: network, mount and PID namespaces of their own. A test file stays an ordinary mocha file:
 * it runs a compiled program in there, the program reports values as JSON lines (`emit()`), and each `it` asserts on one of them. A
 * nested mocha that relays its results was the other way; this one is clearer: the assertion, its diff and its stack
 * are the outer mocha's own, each case is counted, and a program that crashes fails with its stderr in the message.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { buildRoot, repoRoot, which } from './paths.js';

export interface ContainedOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** The deadline, 60 s by default; then everything inside is killed and the promise rejects. */
  readonly timeoutMs?: number;
  /** Resolve whatever the exit code is. By default a code other than 0 rejects with what the program said. */
  readonly anyExit?: boolean;
}

export interface ContainedResult {
  /** The exit code. A program that a signal ended: 128 + its number in a namespace, null and `signal` in a root. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Something that runs in namespaces of its own and ends, whole, with `kill()`. */
export interface Contained {
  readonly pid: number;
  stdout(): string;
  stderr(): string;
  /** Resolves when all of it has ended, however it did. Does not reject. */
  readonly ended: Promise<ContainedResult>;
  kill(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface NamespaceResult extends ContainedResult {
  /** What the program emitted, in order. */
  readonly results: readonly { readonly name: string; readonly value: unknown }[];
  /** The last value emitted under a name. Throws, with the program's output, when there is none. */
  get<T>(name: string): T;
}

/**
 * Runs `.build/<programPath>` with this Node in new network, mount and PID namespaces: loopback is up, /proc shows only
 * what runs in there, and pid 1 is a shell that reaps orphans, so the program is an ordinary process. Its working
 * directory is the checkout. When it ends, by itself or by the deadline, everything it started ends with it.
 *
 * @example
 * before(async function () {
 *   need(this, 'root', 'unshare');
 *   run = await inNamespace('test/e2e/programs/kill-all.js', ['20'], { timeoutMs: 15_000 });
 * });
 * it('leaves nobody', () => expect(run.get<number>('survivors')).to.equal(0));
 */
export async function inNamespace(
  programPath: string,
  args: readonly string[] = [],
  options: ContainedOptions = {},
): Promise<NamespaceResult> {
  const script = `${loopbackUp}\n"$@" & wait $!`;
  const env = { ...process.env, TUNWARD_TEST_OUTER_PIDNS: pidNamespace(), ...options.env };
  const argv = [process.execPath, resolve(buildRoot, programPath), ...args];
  const result = await settle(startContained(['-n'], [script, ...argv], env), programPath, options);
  const results = result.stdout.split('\n').flatMap(parseEmitted);
  const get = <T>(name: string): T => {
    const found = results.findLast((entry) => entry.name === name);
    if (!found) throw new Error(`${programPath} emitted no '${name}'.${describe(result)}`);
    return found.value as T;
  };
  return { ...result, results, get };
}

/** For the program inside: hands one value to the test outside. Written at once, so it outlives a crash. */
export function emit(name: string, value: unknown): void {
  process.stdout.write(`${JSON.stringify({ emitted: name, value: value ?? null })}\n`);
}

/** For the program inside, before it does harm: throws unless it runs in a PID namespace other than the test's. */
export function assertIsolated(): void {
  const outer = process.env.TUNWARD_TEST_OUTER_PIDNS;
  if (!outer || outer === pidNamespace()) throw new Error('This program kills without bounds: run it by inNamespace()');
}

/**
 * The shell lines that bring loopback up. `ip` is not in a slim image; perl-base, which is essential to Debian, does the
 * same with SIOCSIFFLAGS (0x8914) and IFF_UP | IFF_RUNNING.
 */
export const loopbackUp = `ip link set lo up 2>/dev/null || perl -e 'socket(my $s, 2, 2, 0) or die "socket: $!";
  my $request = pack("a16 s! x22", "lo", 0x41); ioctl($s, 0x8914, $request) or die "loopback: $!"' || exit 97`;

/**
 * Starts `sh -c script …args` as pid 1 of new mount and PID namespaces, and others by `flags`. Killing the unshare
 * process kills that pid 1 (--kill-child), and the kernel then kills all the rest.
 */
export function startContained(
  flags: readonly string[],
  [script = '', ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
): Contained {
  const unshare = [...flags, '-m', '-p', '-f', '--mount-proc', '--kill-child', '/bin/sh', '-c', script, 'sh', ...args];
  const child = spawn(which('unshare') ?? 'unshare', unshare, {
    cwd: repoRoot,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const failed = once(child, 'error').then(([error]) => {
    output.stderr += `${error}\n`;
  });
  // 'close' and not 'exit' here: the pipes close when the last process inside is gone, and none can leave.
  const closed = once(child, 'close').catch(() => failed);
  const ended = closed.then(() => ({ code: child.exitCode, signal: child.signalCode, ...output }));
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  const { stdout, stderr } = { stdout: () => output.stdout, stderr: () => output.stderr };
  return { pid: child.pid ?? 0, stdout, stderr, ended, kill, [Symbol.asyncDispose]: kill };
}

/** Waits for the end within the deadline; rejects, with all that was said, on a late or a failed one. */
export async function settle(contained: Contained, what: string, options: ContainedOptions): Promise<ContainedResult> {
  const { timeoutMs = 60_000, anyExit = false } = options;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    contained.kill().catch(() => undefined); // `ended` tells
  }, timeoutMs);
  const result = await contained.ended;
  clearTimeout(timer);
  if (late) throw new Error(`${what} was not over after ${timeoutMs} ms.${describe(result)}`);
  if (!anyExit && result.code !== 0) throw new Error(`${what} failed.${describe(result)}`);
  return result;
}

function describe({ code, signal, stdout, stderr }: ContainedResult): string {
  return `\nexit: ${code ?? signal}\n--- stderr\n${stderr.slice(-8000)}\n--- stdout\n${stdout.slice(-8000)}`;
}

/** What a line of a program's output hands over by {@link emit}; nothing of any other line. */
export function parseEmitted(line: string): { name: string; value: unknown }[] {
  if (!line.startsWith('{"emitted":')) return [];
  const { emitted, value } = JSON.parse(line) as { emitted: string; value: unknown };
  return [{ name: emitted, value }];
}

function pidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid');
}
