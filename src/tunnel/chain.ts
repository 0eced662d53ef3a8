import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import { type KillReport, killChains } from '../kill.js';
import { hasIpv6Loopback } from '../port/probe.js';
import type { Census } from '../proc/census.js';
import type { Marker } from '../proc/marker.js';
import type { Proc } from '../proc/read.js';
import { type ProcessRef, readStat } from '../proc/stat.js';
import { type Clock, createSlice, systemClock, until } from '../time.js';
import { printable } from '../wire.js';
import { destinationArguments, parseSshFacts, type SshFacts, sshArguments } from './arguments.js';
import { answersOf } from './asking/answers.js';
import { type Askpass, type AskpassOptions, openAskpass } from './asking/askpass.js';
import { findPty, joinTerminal, type Pty, ptyCommand } from './asking/pty.js';
import { diagnoseExit } from './diagnosis.js';
import type { Asking, Engine, Link, LinkExit, LinkOptions, LinkState } from './engine.js';
import { createSocketFolder, type SocketPlace } from './front/socket-folder.js';
import { createSocketCarrier } from './front/unix.js';
import { describeLeft, describeRoute, planRoute, proxyArguments, type Step } from './jump.js';
import { classifyExit } from './reason.js';
import { type Bind, bindSet, formatHop, type ProgramName, type TunnelSpec } from './spec.js';
import { type Allowance, createAllowance, createThrottle } from './throttle.js';
import { createTranscript, type Transcript } from './transcript.js';
import { createPinBudget, createWatch, type PinBudget } from './watch.js';

export interface ChainOptions {
  /** The value of TUNWARD_INSTANCE in the environment of everything that is started. */
  readonly instance: string;
  /** The environment to choose from; what is not on the list is not passed on. Also says where programs are (PATH). */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
  readonly proc: Proc;
  readonly clock: Clock;
  /** A folder of our own, where programs may be run that ask for the time of a login; default: that of temporary files. */
  readonly askpassFolder?: string | undefined;
  /** A folder of our own, for the sockets of ssh behind a front; default: one among temporary files. */
  readonly socketFolder?: string | undefined;
  /** What others have seen just now of all processes. */
  readonly census?: Census | undefined;
}

/** Everything of one tunnel carries the first two; everything of one installation carries the second. */
export function markerOf(id: string, instance: string): Marker {
  return [`TUNNEL_ID=${id}`, `TUNWARD_INSTANCE=${instance}`];
}

/** With the third one tells the lives of one tunnel apart, where two of them may be at a time: behind a front. */
export const markerNames: readonly string[] = ['TUNNEL_ID', 'TUNWARD_INSTANCE', 'TUNWARD_LINK'];

/** What knows how to run ssh: the engines whose links are chains of processes, and the question where an ssh goes. */
export interface Chains {
  readonly engineFor: (spec: TunnelSpec) => Engine;
  /** Is ssh there, or was it a second ago? */
  readonly hasSsh: () => boolean;
  /** Where a spec's ssh goes, as `user@host:port via hop,…`; undefined when ssh cannot tell. Connects nowhere. */
  readonly resolveSpec: (spec: TunnelSpec) => Promise<string | undefined>;
  /** The same for the words of another command line, see {@link destinationArguments}. */
  readonly resolve: (words: readonly string[]) => Promise<string | undefined>;
  /** Asks anew what ssh_config says of a spec, for the start that somebody asks for now: it may have been changed. */
  readonly refresh: (spec: TunnelSpec) => void;
}

/** One of our own; where no socket can be there (a path too long, say), one among temporary files. */
function socketFolders({ socketFolder, env, instance }: ChainOptions): string[] {
  const name = `tunward-${process.geteuid?.() ?? 0}-${instance.slice(0, 12)}`;
  const temporary = [env.TMPDIR || '/tmp', '/tmp'].map((folder) => path.join(folder, name));
  return [...new Set([...(socketFolder === undefined ? [] : [socketFolder]), ...temporary])];
}

/** An answer of `ssh -G`, or the question as long as there is none. */
interface Facts {
  readonly answer: Promise<SshFacts>;
  readonly askedAt: number;
  isPending: boolean;
}

/** What a person's ssh_config says seldom changes between two starts that nobody asked for, and to ask costs a process. */
const FACTS_KEPT_MS = 60_000;
/** A list of 500 tunnels asks for each whether there is an ssh. */
const LOOKED_MS = 1000;
/** So many questions at once are asked before the start that needs the answer: of 200 hosts not all. */
const ASKED_AHEAD = 8;

/** ssh alone, or autossh above it. The only place that spawns. */
export function createChains(options: ChainOptions): Chains {
  const { env, clock } = options;
  /** By the words: 200 tunnels to one server ask once. */
  const facts = new Map<string, Facts>();
  const allowances = new WeakMap<TunnelSpec, Allowance>();
  const pins = createPinBudget(options.proc);
  const sockets = createSocketFolder({ candidates: socketFolders(options) });
  let links = 0;
  let looked = { found: false, until: Number.NEGATIVE_INFINITY };
  const engines: Record<ProgramName, Engine> = {
    ssh: { name: 'ssh', start: (spec, link) => start('ssh', spec, link) },
    autossh: { name: 'autossh', start: (spec, link) => start('autossh', spec, link) },
  };
  return {
    // What autossh starts again would ask again.
    engineFor: ({ engine, interactive }) => engines[engine === 'autossh' && !interactive ? 'autossh' : 'ssh'],
    hasSsh,
    resolveSpec: (spec) => destinationOf(factsOf(destinationArguments(spec)), spec.jump.map(formatHop).join()),
    resolve: (words) => destinationOf(factsOf(words)),
    refresh,
  };

  function hasSsh(): boolean {
    if (clock.now() >= looked.until) {
      looked = { found: findProgram('ssh', env) !== undefined, until: clock.now() + LOOKED_MS };
    }
    return looked.found;
  }

  async function start(name: ProgramName, spec: TunnelSpec, linkOptions: LinkOptions): Promise<Link> {
    const ssh = requireProgram('ssh', env);
    const program = name === 'ssh' ? ssh : requireProgram('autossh', env);
    const effective = await unlessAborted(factsOf(destinationArguments(spec)), linkOptions.signal);
    const steps = await unlessAborted(planRoute(spec, effective, factsOf), linkOptions.signal);
    if (steps.length > 0 && !hasShell()) throw noShell(steps);
    const left = describeLeft(steps, effective);
    if (left !== undefined) linkOptions.onOutput(left);
    const binds = bindSet(spec.forward, hasIpv6Loopback());
    const { asking, isBehindFront } = linkOptions;
    const socket = isBehindFront ? sockets.take() : undefined;
    const marker = [...markerOf(spec.id, options.instance), ...(isBehindFront ? [`TUNWARD_LINK=${++links}`] : [])];
    const manners = { knownHosts: options.knownHosts, asks: asking !== undefined, socket: socket?.path };
    const words = [...proxyArguments(steps, { ssh, ...manners }), ...sshArguments(spec, binds, effective, manners)];
    const allowance = allowances.get(spec) ?? createAllowance(options.clock);
    allowances.set(spec, allowance);
    const plan = { name, ssh, program, spec, facts: effective, binds, words, steps, allowance, pins, socket, marker };
    try {
      return await (asking ? spawnAsking(plan, options, linkOptions, asking) : spawnChain(plan, options, linkOptions));
    } catch (error) {
      socket?.release();
      throw error;
    }
  }

  function factsOf(words: readonly string[]): Promise<SshFacts> {
    const found = facts.get(words.join('\0'));
    return found && clock.now() < found.askedAt + FACTS_KEPT_MS ? found.answer : ask(words).answer;
  }

  /** Those who come while it is being asked share the answer: a restart of all is one question, not 500. */
  function refresh(spec: TunnelSpec): void {
    for (const [key, { isPending }] of facts) if (!isPending) facts.delete(key);
    const words = destinationArguments(spec);
    if (facts.size < ASKED_AHEAD && !facts.has(words.join('\0'))) ask(words);
  }

  function ask(words: readonly string[]): Facts {
    const key = words.join('\0');
    const fresh: Facts = { answer: askSsh(words), askedAt: clock.now(), isPending: true };
    facts.set(key, fresh);
    fresh.answer.then(
      () => {
        fresh.isPending = false;
      },
      () => {
        if (facts.get(key) === fresh) facts.delete(key);
      },
    );
    return fresh;
  }

  async function askSsh(words: readonly string[]): Promise<SshFacts> {
    return readSshFacts(requireProgram('ssh', env), words, env);
  }
}

/** The same address behind two jump hosts may be two machines. */
async function destinationOf(asked: Promise<SshFacts>, jump = ''): Promise<string | undefined> {
  try {
    const { user, hostname, port, ...way } = await asked;
    const via = jump || describeRoute(way);
    return `${user}@${hostname}:${port}${via && ` via ${via}`}`;
  } catch (error) {
    if (isTunwardError(error, 'ERR_SPAWN_FAILED')) return undefined;
    throw error;
  }
}

/** What ssh starts a ProxyCommand by. */
const SHELL = '/bin/sh';

/** Without a shell ssh goes through no other host: an image with Node and ssh alone has none. */
export function hasShell(): boolean {
  return isExecutable(SHELL);
}

function noShell(steps: readonly Step[]): TunwardError {
  const hops = steps.map(({ hop }) => formatHop(hop)).join(', ');
  return new TunwardError('ERR_SPAWN_FAILED', `Cannot go through ${hops}: ssh needs ${SHELL} for that, found none`, {});
}

/** Finds a program on PATH. Debian's autossh is a shell script around the real one, which is taken instead: no shell. */
export function findProgram(name: ProgramName, env: ChainOptions['env']): string | undefined {
  const folders = (env.PATH ?? '').split(path.delimiter).filter(path.isAbsolute);
  for (const file of folders.map((folder) => path.join(folder, name))) {
    if (!isExecutable(file)) continue;
    const inner = '/usr/lib/autossh/autossh';
    return name === 'autossh' && isScript(file) && isExecutable(inner) ? inner : file;
  }
  return undefined;
}

/** Where a program of the chains is, and the first line of what it says of its version (`-V`); undefined: it is not there. */
export async function readProgram(
  name: ProgramName,
  env: ChainOptions['env'],
): Promise<{ readonly file: string; readonly version: string } | undefined> {
  const file = findProgram(name, env);
  if (file === undefined) return undefined;
  const { stdout, stderr } = await run(file, ['-V'], environmentFor(env));
  // Not as a transcript, which takes what ssh says of itself for debugging.
  return { file, version: printable((stderr || stdout).split('\n')[0] ?? '') };
}

/**
 * Can Node load this file? undefined: it can; else what it said. Tried in a process of its own, since a native addon can
 * do to one whatever it likes.
 */
export async function tryToLoad(file: string, env: ChainOptions['env']): Promise<string | undefined> {
  const { code, stderr } = await run(process.execPath, ['-e', 'require(process.argv[1])', file], environmentFor(env));
  if (code === 0) return undefined;
  const said = stderr.split('\n').find((line) => /^\w*Error\b/.test(line));
  return printable(said ?? `Node ended with ${code ?? 'a signal'}`);
}

/** `ssh -G` answers in 10 ms, unless the person's own `Match exec` does not. */
const FACTS_MS = 5000;

/**
 * Asks ssh how it would go to a destination. Connects nowhere. Without a command (`-N`), as the tunnel will: a person's
 * `ForkAfterAuthentication yes` is an error otherwise.
 *
 * @throws TunwardError ERR_SPAWN_FAILED with what ssh said; with the reason `bad_spec` where it cannot read its configuration.
 */
export async function readSshFacts(ssh: string, words: readonly string[], env: ChainOptions['env']): Promise<SshFacts> {
  const { code, signal, stdout, stderr } = await run(ssh, ['-G', '-N', ...words], environmentFor(env));
  if (code === 0) return parseSshFacts(stdout);
  if (signal !== null) {
    throw new TunwardError('ERR_SPAWN_FAILED', `ssh -G did not answer within ${FACTS_MS} ms: ${words.join(' ')}`, {});
  }
  const { reason, lastError } = classifyExit(linesOf(stderr), { code, signal });
  const said = lastError ?? `exit code ${code}`;
  throw new TunwardError('ERR_SPAWN_FAILED', `ssh cannot use its configuration: ${said}`, { reason });
}

function linesOf(text: string): readonly string[] {
  const transcript = createTranscript(() => undefined);
  transcript.take(text);
  transcript.end();
  return transcript.lines();
}

interface Plan {
  readonly name: ProgramName;
  readonly ssh: string;
  readonly program: string;
  readonly spec: TunnelSpec;
  readonly facts: SshFacts;
  readonly binds: readonly Bind[];
  readonly words: readonly string[];
  readonly allowance: Allowance;
  /** The hosts it goes through by a command of ours. */
  readonly steps: readonly Step[];
  readonly pins: PinBudget;
  /** Where it listens behind a front. */
  readonly socket: SocketPlace | undefined;
  readonly marker: Marker;
}

/** ssh, and somebody who answers it. */
async function spawnAsking(plan: Plan, options: ChainOptions, linkOptions: LinkOptions, asking: Asking): Promise<Link> {
  const { person, onOpen } = asking;
  const pty = 'terminal' in person ? findPty() : undefined;
  if (!('terminal' in person) || pty === undefined) return spawnAskpass(plan, options, linkOptions, asking);
  const [program = '', ...words] = [process.execPath, ...ptyCommand(pty, person.terminal, [plan.ssh, ...plan.words])];
  let joined: Pty | undefined;
  const link = await spawnChain(plan, options, linkOptions, {
    ...{ program, words, stdio: ['pipe', 'pipe', 'pipe', 'ipc'] },
    join: (child) => {
      joined = joinTerminal(child, person.terminal, options.clock);
      return joined;
    },
  });
  const trouble = await unlessAborted(joined?.started ?? Promise.resolve(undefined), linkOptions.signal).catch(
    async (error) => {
      await link.stop();
      throw error;
    },
  );
  if (trouble !== undefined) {
    await link.stop();
    return spawnAskpass(plan, options, linkOptions, asking, `${pty} makes no terminal: ${trouble}`);
  }
  onOpen('pty');
  return link;
}

/** ssh asks through a program of ours: for somebody who answers by a function, and where nothing makes terminals. */
async function spawnAskpass(
  plan: Plan,
  options: ChainOptions,
  linkOptions: LinkOptions,
  { person, onOpen, ...bounds }: Asking,
  trouble?: string,
): Promise<Link> {
  const { clock } = options;
  const answers = answersOf(person, plan.spec, { clock, trouble, ...bounds });
  const askpass = await openAskpassSomewhere(options, answers);
  const release = () => void askpass.close();
  try {
    linkOptions.signal.throwIfAborted();
    const link = await spawnChain(plan, options, linkOptions, {
      ...usualWay({ ...plan, name: 'ssh', program: plan.ssh }),
      env: askpass.env,
      join: () => ({ release, note: (line) => void answers.tell?.(line) }),
    });
    onOpen('askpass');
    // Whoever is being asked is told at once, not when all is dead.
    return { ...link, stop: (signal) => askpass.close().then(() => link.stop(signal)) };
  } catch (error) {
    await askpass.close();
    throw error;
  }
}

/** In our own folder; where no program can be run there (noexec, a path too long for a socket), among temporary files. */
async function openAskpassSomewhere(
  { askpassFolder, env }: ChainOptions,
  answers: Omit<AskpassOptions, 'folder'>,
): Promise<Askpass> {
  const temporary = env.TMPDIR || '/tmp';
  if (askpassFolder === undefined) return openAskpass({ folder: temporary, ...answers });
  try {
    return await openAskpass({ folder: askpassFolder, ...answers });
  } catch (error) {
    if (!isTunwardError(error)) throw error;
    return openAskpass({ folder: temporary, ...answers });
  }
}

/** Another way to run ssh than by itself, and what goes on with it beside what every chain does. */
interface Way {
  readonly program: string;
  readonly words: readonly string[];
  readonly stdio: SpawnOptions['stdio'];
  readonly env?: Readonly<Record<string, string>>;
  readonly join?: (child: ChildProcess) => Partial<Pick<Pty, 'exit' | 'note' | 'isDrawn'>> & Pick<Pty, 'release'>;
}

function usualWay({ name, program, words }: Plan): Way {
  return { program, words: name === 'autossh' ? ['-M', '0', ...words] : words, stdio: ['ignore', 'ignore', 'pipe'] };
}

async function spawnChain(
  plan: Plan,
  options: ChainOptions,
  { onOutput }: LinkOptions,
  { program, words, stdio, env, join }: Way = usualWay(plan),
): Promise<Link> {
  const { spec, binds, allowance, socket, marker } = plan;
  const { proc, clock } = options;
  const output = createThrottle(onOutput, { allowance, clock });
  // Hears everything: what explains an exit may be among the lines that are too many.
  const said = createTranscript((line) => {
    output.take(line);
    joined?.note?.(line);
  });
  const own = { ...environmentOf(plan, options), ...markerEnvironment(marker), ...autosshEnvironment(plan) };
  const child = await spawnProgram(program, words, {
    env: { ...own, ...env },
    ...(stdio === undefined ? {} : { stdio }),
    // A session of its own: a Ctrl-C at our terminal is not its business, and its offspring is known by the session.
    detached: true,
  });
  const joined = join?.(child);
  const release = () => joined?.release();
  const exited = whenExited(child, said, { clock, ...joined })
    .finally(output.end)
    .finally(release)
    .finally(() => socket?.release())
    .then((exit) => diagnoseExit(exit, { ...plan, said: said.lines(), env: options.env, clock }));
  const stat = child.pid === undefined ? undefined : readStat(proc, child.pid);
  const root: ProcessRef | undefined = stat && { pid: stat.pid, startTicks: stat.startTicks };
  const isLocal = spec.forward.side === 'local';
  const listens = { binds: isLocal && !socket ? binds : [], socket: socket?.path };
  const watch = createWatch({ proc, clock, root, pins: plan.pins, ...listens, isGranted });
  const carrier = socket && createSocketCarrier({ path: socket.path, isAlive: watch.isAlive, clock });
  void exited.finally(watch.close);
  let stopping: Promise<KillReport> | undefined;
  const { lastLine, allocatedPort, refusals } = said;
  const hands = { check: async () => look(), lastLine, allocatedPort, refusals, release, stop };
  return { root, exited, ...hands, ...(carrier ? { carrier } : {}) };

  /** A socket that somebody has removed is listened on as before, in the kernel's table too, and nobody can connect to it. */
  function look(): LinkState {
    const state = watch.look();
    if (state !== 'ready' || !socket || !carrier) return state;
    return carrier.isAlive() && fs.existsSync(socket.path) ? 'ready' : 'waiting';
  }

  function isGranted(): boolean {
    if (isLocal) return true;
    const isChosen = spec.forward.listen.port !== 0 || said.allocatedPort() !== undefined;
    return isChosen && said.grantedForwards() >= binds.length;
  }

  function stop(signal?: AbortSignal): Promise<KillReport> {
    stopping ??= killChains(root ? [{ ref: root, why: 'the chain of this tunnel', below: 'all' }] : [], {
      proc,
      clock,
      signal,
      marker,
      census: options.census,
    }).finally(() => {
      stopping = undefined;
    });
    return stopping;
  }
}

/** After the exit the pipe may still hold the line that explains it; an orphan that keeps it open is not waited for. */
const LAST_WORDS_MS = 100;

async function whenExited(
  child: ChildProcess,
  said: Transcript,
  { clock, exit, isDrawn = () => true }: { readonly clock: Clock } & Partial<Pick<Pty, 'exit' | 'isDrawn'>>,
): Promise<LinkExit> {
  const isDrained = hear(child.stderr, said.take);
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  await untilDrained(isDrained, clock);
  said.end();
  // Somebody is to see why it failed; one who does not look is not waited for.
  await until(isDrawn, { timeoutMs: LAST_WORDS_MS, clock });
  for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy();
  // What a helper has said of its ssh is about ssh.
  return classifyExit(said.lines(), exit?.() ?? { code, signal });
}

async function untilDrained(isDrained: () => boolean, clock: Clock): Promise<void> {
  await until(isDrained, { timeoutMs: LAST_WORDS_MS, clock });
  // On a busy machine that time may have gone by without a look at the pipe. What is in it is read in a turn or two.
  for (let turn = 0; turn < 3 && !isDrained(); turn++) await clock.sleep(0);
}

/**
 * Hands on what comes out of a pipe; answers whether it is over. A reset while the writer dies is an end like any other.
 * Read whatever comes and however much: one whose pipe is full stands still. But in slices, since Node hands on all that
 * a flood brings in one turn of the event loop: with lines of one letter such a turn was 95 ms long.
 */
function hear(pipe: Readable | null, onText: (chunk: string) => void): () => boolean {
  let isOver = pipe === null;
  const slice = createSlice();
  pipe?.setEncoding('utf8').on('data', (chunk: string) => {
    onText(chunk);
    const turn = slice();
    if (!turn) return;
    pipe.pause();
    void turn.then(() => pipe.resume());
  });
  for (const end of ['end', 'error']) {
    pipe?.once(end, () => {
      isOver = true;
    });
  }
  return () => isOver;
}

/** What a tunnel may know of our environment. AUTOSSH_*, LD_* and SSH_ASKPASS* could run or overwrite any file. */
const passedOn = /^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|XDG_RUNTIME_DIR|SSH_AUTH_SOCK|KRB5CCNAME)$/;

function environmentFor(env: ChainOptions['env']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => passedOn.test(entry[0]) && entry[1] !== undefined),
  );
}

/** ssh starts a ProxyCommand by $SHELL, and by /bin/sh without it. Ours is quoted for sh, not for a csh or a fish. */
function environmentOf({ steps }: Plan, { env }: ChainOptions): Record<string, string> {
  const { SHELL: shell, ...rest } = environmentFor(env);
  return shell === undefined || steps.length > 0 ? rest : { ...rest, SHELL: shell };
}

function markerEnvironment(marker: Marker): Record<string, string> {
  return Object.fromEntries(marker.map((entry) => entry.split('=', 2) as [string, string]));
}

/** One ssh for each autossh: it ends with its ssh, and the retry is ours, so nothing starts again behind our back. */
function autosshEnvironment({ name, ssh }: Plan): Record<string, string> {
  return name === 'autossh' ? { AUTOSSH_GATETIME: '0', AUTOSSH_MAXSTART: '1', AUTOSSH_PATH: ssh } : {};
}

function requireProgram(name: ProgramName, env: ChainOptions['env']): string {
  const file = findProgram(name, env);
  if (file !== undefined) return file;
  const remedy = name === 'ssh' ? 'install openssh-client' : "install autossh, or set 'engine: ssh'";
  throw new TunwardError('ERR_SPAWN_FAILED', `Cannot find ${name} on PATH (${env.PATH ?? 'not set'}): ${remedy}`, {});
}

function isExecutable(file: string): boolean {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR', 'ELOOP')) return false;
    throw error;
  }
}

function isScript(file: string): boolean {
  const head = Buffer.alloc(2);
  let fd: number;
  try {
    fd = fs.openSync(file, 'r');
  } catch (error) {
    // A program that may be run and not read is no script: its interpreter could not read it either.
    if (isErrno(error, 'EACCES')) return false;
    throw error;
  }
  try {
    fs.readSync(fd, head);
  } finally {
    fs.closeSync(fd);
  }
  return head.toString() === '#!';
}

/** Runs a program of ours to its end, bounded; for `ssh -G` and `-V` alone. */
async function run(program: string, words: readonly string[], env: Record<string, string>) {
  const child = await spawnProgram(program, words, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: FACTS_MS,
    killSignal: 'SIGKILL',
  });
  const said = { stdout: '', stderr: '' };
  const isDrained = (['stdout', 'stderr'] as const).map((name) =>
    hear(child[name], (chunk) => {
      said[name] += chunk;
    }),
  );
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  // Not until its pipes are closed: what a `Match exec` left running may hold them for ever.
  await untilDrained(() => isDrained.every((isOver) => isOver()), systemClock);
  for (const pipe of [child.stdout, child.stderr]) pipe?.destroy();
  return { code, signal, ...said };
}

/** @throws TunwardError ERR_SPAWN_FAILED when it cannot be run: not there, no program, no more processes or descriptors. */
async function spawnProgram(program: string, words: readonly string[], options: SpawnOptions): Promise<ChildProcess> {
  const failure = (cause: Error) =>
    new TunwardError('ERR_SPAWN_FAILED', `Cannot run ${program}: ${cause.message}`, {}, { cause });
  let child: ChildProcess;
  try {
    child = spawn(program, [...words], options);
  } catch (error) {
    // Most refusals of the kernel come as an event, a few (E2BIG) at once.
    if (error instanceof Error && 'syscall' in error) throw failure(error);
    throw error;
  }
  if (child.pid !== undefined) return child;
  const [cause] = (await once(child, 'error')) as [Error];
  // Node drops the timer of `timeout` at the exit, which one that was never there does not have: it would keep the
  // program from ending all that time.
  child.emit('exit', null, null);
  throw failure(cause);
}

/** The work's result, or the signal's reason as soon as it aborts; the work itself goes on to its own end. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
