import { TunwardError } from '../errors.js';
import { printable } from '../wire.js';
import { hostKeyOptions, type Manners, type SshFacts } from './arguments.js';
import { formatHop, type Hop, parseHop, type TunnelSpec } from './spec.js';

/*
 * The way to a destination behind other hosts. ssh's own -J starts an inner ssh that is given none of our options: with
 * `ControlMaster auto` for the jump host it would use a person's master, or become the one that a person's sessions hang
 * on. So the command that ssh goes through is written here, with the same fixed options for every hop.
 */

/** One hop with what it takes to go there. */
export interface Step {
  readonly hop: Hop;
  /** See {@link hopArguments}. */
  readonly words: readonly string[];
  readonly facts: SshFacts;
}

/** Does ssh start a program by a shell for it? Known of the spec alone: what ssh_config says is not looked at here. */
export function needsShell({ jump }: Pick<TunnelSpec, 'jump'>): boolean {
  return jump.length > 0;
}

/** More than anybody has between two hosts, and few enough to be asked for. */
const MAX_STEPS = 10;

/**
 * The hops to a spec's destination, the nearest first: those of the spec, or else the ProxyJump of the person's own
 * configuration; and before the first of them what that configuration says of it. A hop that goes through a command of the
 * person's keeps that. What a ProxyJump names and we would not give to ssh as a destination is left to ssh.
 */
export async function planRoute(
  spec: TunnelSpec,
  target: SshFacts,
  ask: (words: readonly string[]) => Promise<SshFacts>,
): Promise<Step[]> {
  const theirs: TunnelSpec = { ...spec, identityFile: null, sshOptions: {} };
  const isOurs = spec.jump.length > 0;
  let steps: Step[] = [];
  let before: readonly Hop[] = isOurs ? spec.jump : jumpOf(target);
  for (let asSpec = isOurs ? spec : theirs; before.length > 0; asSpec = theirs) {
    const found = await Promise.all(
      before.map(async (hop): Promise<Step> => {
        const words = hopArguments(asSpec, hop);
        return { hop, words, facts: await ask(words) };
      }),
    );
    steps = [...found, ...steps];
    if (steps.length > MAX_STEPS) throw tooFar(spec);
    before = found[0] ? jumpOf(found[0].facts) : [];
  }
  return steps;
}

function jumpOf({ proxyJump }: SshFacts): readonly Hop[] {
  const hops = (proxyJump ?? '').split(',').map(parseHop);
  return hops.every((hop) => typeof hop !== 'string') ? hops : [];
}

/** What to say of a ProxyJump that was left to ssh; undefined where there is none. */
export function describeLeft(steps: readonly Step[], target: SshFacts): string | undefined {
  const { proxyJump } = steps[0]?.facts ?? target;
  // Those that were taken are before the first step.
  if (proxyJump === null) return undefined;
  return `ProxyJump ${printable(proxyJump)} of ssh_config is left to ssh: its hops are given none of our options`;
}

function tooFar({ remoteHost }: TunnelSpec): TunwardError {
  const message = `Cannot find the way to ${remoteHost}: more than ${MAX_STEPS} hosts, as ProxyJump in ssh_config has it`;
  return new TunwardError('ERR_SPAWN_FAILED', message, { reason: 'bad_spec' });
}

/**
 * What the options of a spec say about its hops as well: how this host connects, with which keys, and whom it trusts.
 * Where the destination is (Port, User …) and what its sshd can do (Ciphers …) is the destination's alone.
 */
export const hopOptions: ReadonlySet<string> = new Set([
  'AddressFamily',
  'BindAddress',
  'BindInterface',
  'CertificateFile',
  'ConnectTimeout',
  'ConnectionAttempts',
  'IdentitiesOnly',
  'IdentityAgent',
  'ServerAliveCountMax',
  'ServerAliveInterval',
  'StrictHostKeyChecking',
  'TCPKeepAlive',
  'UserKnownHostsFile',
  'VerifyHostKeyDNS',
]);

/** What decides how a hop is reached: the same words for `ssh -G` and for the hop itself. */
export function hopArguments(spec: TunnelSpec, { destination, port }: Hop): string[] {
  const words: string[] = [];
  if (spec.sshConfig !== null) words.push('-F', spec.sshConfig);
  if (spec.identityFile !== null) words.push('-i', spec.identityFile);
  for (const [option, value] of Object.entries(spec.sshOptions)) {
    if (hopOptions.has(option)) words.push('-o', `${option}=${value}`);
  }
  if (port !== null) words.push('-p', String(port));
  return [...words, '--', destination];
}

/** What a destination behind these hops is to be given, before everything else; nothing where there are none. */
export function proxyArguments(
  steps: readonly Step[],
  { ssh, ...manners }: Manners & { readonly ssh: string },
): string[] {
  let words: string[] = [];
  for (const { facts, words: own, hop } of steps) {
    const end = own.length - 2;
    const hopWords = [...words, ...fixedFor(facts, manners), ...own.slice(0, end), ...defaultsFor(facts, manners)];
    const command = [ssh, ...hopWords].map((word) => escapeWord(word.replaceAll('%', '%%')));
    // The tokens are for the ssh that runs this: where it wants to go.
    words = setProxy([...command, '-W', escapeWord(TOKENS), '--', hop.destination].join(' '));
  }
  return words;
}

/** A ProxyUseFdpass of the person's was meant for a command of theirs. */
function setProxy(command: string): string[] {
  return ['-o', `ProxyCommand=${command}`, '-o', 'ProxyUseFdpass=no'];
}

function fixedFor({ canFork }: SshFacts, { asks = false }: Manners): string[] {
  const options = [
    'ControlMaster=no',
    'ControlPersist=no',
    'ExitOnForwardFailure=yes',
    'ClearAllForwardings=yes',
    'PermitLocalCommand=no',
    `BatchMode=${asks ? 'no' : 'yes'}`,
    'LogLevel=INFO',
    ...(canFork ? ['ForkAfterAuthentication=no'] : []),
  ];
  return ['-N', '-T', '-S', 'none', ...options.flatMap((option) => ['-o', option])];
}

function defaultsFor(facts: SshFacts, manners: Manners): string[] {
  const options = [
    'ServerAliveInterval=15',
    'ServerAliveCountMax=3',
    'ConnectTimeout=10',
    ...hostKeyOptions(facts, manners),
  ];
  return options.flatMap((option) => ['-o', option]);
}

const TOKENS = '[%h]:%p';

/**
 * One word for sh, by backslashes alone: ssh takes quotes apart as well, by rules of its own, and refuses what is sound
 * to sh ("invalid quotes", since OpenSSH 8.7). Without any it finds nothing to refuse. No word has a line break.
 */
function escapeWord(word: string): string {
  return word.replace(/[^\w@%+=:,./-]/gu, '\\$&');
}

/**
 * The way that an ssh takes, as text to compare by; empty for one that goes there at once. A ProxyCommand as it is written
 * here is its hops again, whatever else stands in it.
 */
export function describeRoute({ proxyJump, proxyCommand }: Pick<SshFacts, 'proxyJump' | 'proxyCommand'>): string {
  if (proxyCommand !== null) return (readHops(proxyCommand) ?? [proxyCommand]).join();
  return proxyJump ?? '';
}

/** The hops of a ProxyCommand as {@link proxyArguments} writes it; undefined for any other. */
function readHops(command: string): string[] | undefined {
  const words = splitWords(command);
  const [flag, tokens, end, destination] = words.slice(-4);
  if (flag !== '-W' || tokens !== TOKENS || end !== '--' || destination === undefined) return undefined;
  const own = words.map((word) => word.replaceAll('%%', '%'));
  const inner = own.find((word) => word.startsWith('ProxyCommand='))?.slice('ProxyCommand='.length);
  const before = inner === undefined ? [] : readHops(inner);
  const port = own[own.indexOf('-p') + 1];
  return before && [...before, formatHop({ destination, port: own.includes('-p') ? Number(port) : null })];
}

/** The words of a command as {@link escapeWord} has written them. */
function splitWords(command: string): string[] {
  const words = command.match(/(?:[^\s\\]|\\.)+/gu) ?? [];
  return words.map((word) => word.replace(/\\(.)/gu, '$1'));
}
