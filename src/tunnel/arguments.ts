import { isIP } from 'node:net';
import {
  type Bind,
  type Forward,
  formatEndpoint,
  normalizeAddress,
  type ProgramName,
  type TunnelSpec,
} from './spec.js';

/** What `ssh -G` says of a destination: the person's own configuration, applied. */
export interface SshFacts {
  readonly user: string;
  readonly hostname: string;
  readonly port: string;
  readonly strictHostKeyChecking: string;
  readonly userKnownHostsFile: string;
  /** The keys that it would try, as written: `~/.ssh/id_ed25519`. */
  readonly identityFiles: readonly string[];
  /** The agent that it would ask: `SSH_AUTH_SOCK` (the variable's name), a path, or `none`. */
  readonly identityAgent: string;
  /** `[user@]host[:port],…`, the hosts it goes through; null: none. It has this or a ProxyCommand. */
  readonly proxyJump: string | null;
  readonly proxyCommand: string | null;
  /** OpenSSH 8.7 and later know ForkAfterAuthentication; an older one would refuse to be told no. */
  readonly canFork: boolean;
}

/** Reads what `ssh -G` prints: a keyword and its value on each line; what may be there several times, line by line. */
export function parseSshFacts(stdout: string): SshFacts {
  const entries = stdout.split('\n').map((line) => {
    const at = line.indexOf(' ');
    return [line.slice(0, at), line.slice(at + 1)] as const;
  });
  const values = new Map(entries);
  const unlessNone = (name: string) => (values.get(name) === 'none' ? null : (values.get(name) ?? null));
  return {
    user: values.get('user') ?? '',
    hostname: values.get('hostname') ?? '',
    port: values.get('port') ?? '22',
    strictHostKeyChecking: values.get('stricthostkeychecking') ?? 'ask',
    userKnownHostsFile: values.get('userknownhostsfile') ?? '~/.ssh/known_hosts',
    identityFiles: entries.flatMap(([name, value]) => (name === 'identityfile' ? [value] : [])),
    identityAgent: values.get('identityagent') ?? 'SSH_AUTH_SOCK',
    proxyJump: unlessNone('proxyjump'),
    proxyCommand: unlessNone('proxycommand'),
    canFork: values.has('forkafterauthentication'),
  };
}

/** What decides where a spec's ssh goes: the same words for `ssh -G` and for the tunnel. */
export function destinationArguments(spec: TunnelSpec): string[] {
  const words: string[] = [];
  if (spec.sshConfig !== null) words.push('-F', spec.sshConfig);
  if (spec.identityFile !== null) words.push('-i', spec.identityFile);
  for (const [option, value] of Object.entries(spec.sshOptions)) words.push('-o', `${option}=${value}`);
  return [...words, '--', spec.remoteHost.replace(/\[(.*)\]$/, '$1')];
}

/** How ssh is to behave where it would turn to a person. */
export interface Manners {
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
  /** Somebody is there who is asked. */
  readonly asks?: boolean;
  /** The path of a unix socket that a local forward listens on, instead of its addresses. */
  readonly socket?: string | undefined;
}

/**
 * The whole command line. ssh takes the first value it meets for an option, so what must hold comes first, then the
 * spec's own, then the defaults that a spec may change.
 */
export function sshArguments(
  spec: TunnelSpec,
  binds: readonly Bind[],
  facts: SshFacts,
  { knownHosts, asks = false, socket }: Manners,
): string[] {
  const fixed = [
    'ControlMaster=no',
    'ControlPersist=no',
    'ExitOnForwardFailure=yes',
    'ClearAllForwardings=no',
    'PermitLocalCommand=no',
    `BatchMode=${asks ? 'no' : 'yes'}`,
    // A remote forward is granted in silence at the default level; at DEBUG1 ssh says so. A local one is seen in /proc.
    `LogLevel=${spec.forward.side === 'remote' ? 'DEBUG1' : 'INFO'}`,
    ...(facts.canFork ? ['ForkAfterAuthentication=no'] : []),
  ];
  const defaults = [
    // What is asked for whether bytes go through is to be told soon when they do not.
    `ServerAliveInterval=${spec.check ? 5 : 15}`,
    'ServerAliveCountMax=3',
    'ConnectTimeout=10',
    ...hostKeyOptions(facts, { knownHosts, asks }),
  ];
  const destination = destinationArguments(spec);
  const end = destination.indexOf('--');
  return [
    ...['-N', '-T', '-S', 'none'],
    ...fixed.flatMap((option) => ['-o', option]),
    ...destination.slice(0, end),
    ...defaults.flatMap((option) => ['-o', option]),
    ...(socket === undefined ? forwardArguments(spec.forward, binds) : socketArguments(spec.forward, socket)),
    ...destination.slice(end),
  ];
}

/**
 * Never weaker than the person's own checking: only where ssh would ask somebody is a key taken at the first meeting,
 * into our file, and both files are checked from then on; a key that changed is refused. Where somebody is there, ssh asks.
 */
export function hostKeyOptions(facts: SshFacts, { knownHosts, asks = false }: Manners): string[] {
  if (facts.strictHostKeyChecking !== 'ask') return [];
  const checking = `StrictHostKeyChecking=${asks ? 'ask' : 'accept-new'}`;
  if (knownHosts === null) return [checking];
  // `none` must stand alone: ssh would refuse the whole command line.
  const theirs = facts.userKnownHostsFile === 'none' ? '' : ` ${facts.userKnownHostsFile}`;
  return [checking, `UserKnownHostsFile=${quotePath(knownHosts)}${theirs}`];
}

/** A path as one word of an option of ssh: in quotes, and no `%` of it a token to be expanded. */
function quotePath(path: string): string {
  return `"${path.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%')}"`;
}

/** `-L` or `-R` and its argument, one pair for each address of the bind set. */
function forwardArguments(forward: Forward, binds: readonly Bind[]): string[] {
  const flag = forward.side === 'local' ? '-L' : '-R';
  return binds.flatMap((bind) => [flag, `${formatEndpoint(bind)}:${formatEndpoint(forward.target)}`]);
}

function socketArguments({ target }: Forward, socket: string): string[] {
  return ['-L', `${socket}:${formatEndpoint(target)}`];
}

/** A command line of ssh or autossh, taken apart as their getopt takes it. */
export interface SshCommand {
  /** `[user@]host` as written. */
  readonly destination: string;
  readonly forwards: readonly Forward[];
  /** The words that decide where the destination is and how to get there: -F, -J, -l, -p and some of -o. */
  readonly destinationWords: readonly string[];
}

/**
 * Takes the command line of another process apart, as ssh itself would. Answers undefined for whatever is not plainly
 * a tunnel: an option letter that ssh does not know, no `-N`, a command to run, no forward, a forward to a path.
 * Never a search for text: `ssh prod` is not a tunnel to `prod`.
 *
 * @example
 * parseSshCommand(['ssh', '-N', '-L', '9443:localhost:443', 'user@web'], 'ssh')?.destination; // 'user@web'
 */
export function parseSshCommand(argv: readonly string[], program: ProgramName): SshCommand | undefined {
  const parsed = getopt(argv.slice(1), program === 'ssh' ? sshLetters : autosshLetters);
  const [destination, ...command] = parsed?.operands ?? [];
  if (!parsed || destination === undefined || command.length > 0) return undefined;
  if (!parsed.options.some(([letter]) => letter === 'N')) return undefined;
  const written = parsed.options.filter(([letter]) => letter === 'L' || letter === 'R');
  const forwards = written.map(([letter, value]) => parseForward(letter === 'L' ? 'local' : 'remote', value));
  if (forwards.length === 0 || forwards.includes(undefined)) return undefined;
  const destinationWords = parsed.options.flatMap(([letter, value]) =>
    decides(letter, value) ? [`-${letter}`, value] : [],
  );
  return { destination, forwards: forwards.filter((forward) => forward !== undefined), destinationWords };
}

/**
 * Where an ssh goes and what it forwards, also when it runs a command or forwards something that is not told apart here
 * (that is left out). For showing only: who dies is decided by {@link parseSshCommand}.
 */
export function describeSshCommand(
  argv: readonly string[],
  program: ProgramName,
): Pick<SshCommand, 'forwards'> & { readonly destination: string | null } {
  const parsed = getopt(argv.slice(1), program === 'ssh' ? sshLetters : autosshLetters);
  const forwards = (parsed?.options ?? []).flatMap(([letter, value]) =>
    letter === 'L' || letter === 'R' ? (parseForward(letter === 'L' ? 'local' : 'remote', value) ?? []) : [],
  );
  return { destination: parsed?.operands[0] ?? null, forwards };
}

// The letters of OpenSSH's ssh.c; a colon follows those that take an argument. autossh adds -M with one, and -f for itself.
const sshLetters = '1246ACGKMNTVXYZafgknqstvxyB:D:E:F:I:J:L:O:P:Q:R:S:W:b:c:e:i:l:m:o:p:w:';
const autosshLetters = '1246ACGKNTVXYafgknqstvxyM:B:D:E:F:I:J:L:O:P:Q:R:S:W:b:c:e:i:l:m:o:p:w:';

/** getopt(3) with ssh's habit: options may also follow the destination; what comes after them is a command. */
function getopt(words: readonly string[], letters: string) {
  const options: [letter: string, value: string][] = [];
  const operands: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    if (word === '--') {
      operands.push(...words.slice(at + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      operands.push(word);
      if (operands.length > 1) return { options, operands: [...operands, ...words.slice(at + 1)] };
      continue;
    }
    for (let place = 1; place < word.length; place++) {
      const letter = word.charAt(place);
      const known = letters.indexOf(letter);
      if (known === -1 || letter === ':') return undefined;
      if (letters.charAt(known + 1) !== ':') {
        options.push([letter, '']);
        continue;
      }
      const glued = word.slice(place + 1);
      const value = glued !== '' ? glued : words[++at];
      if (value === undefined) return undefined;
      options.push([letter, value]);
      break;
    }
  }
  return { options, operands };
}

function decides(letter: string, value: string): boolean {
  if (['F', 'J', 'l', 'p'].includes(letter)) return true;
  return letter === 'o' && /^\s*(HostName|Port|User|HostKeyAlias|ProxyJump|ProxyCommand)\s*[= ]/i.test(value);
}

/** `[bind:]port:host:hostport`, brackets around IPv6. An empty bind address or `*` is every address, none is localhost. */
export function parseForward(side: Forward['side'], text: string): Forward | undefined {
  const match = /^(?:(\[[^\]]+\]|[^:[\]/]*):)?(\d+):(\[[^\]]+\]|[^:[\]/]+):(\d+)$/.exec(text);
  if (!match) return undefined;
  const [, bind = 'localhost', port, host = '', targetPort] = match;
  const listen = { host: bind === '' ? '*' : withoutBrackets(bind), port: Number(port) };
  const target = { host: withoutBrackets(host), port: Number(targetPort) };
  return listen.port > 65535 || target.port > 65535 ? undefined : { side, listen, target };
}

function withoutBrackets(host: string): string {
  return host.startsWith('[') ? host.slice(1, -1) : host;
}

/** Would two listening ends of one side be in each other's way? `localhost` is both loopback addresses, `*` all there are. */
export function isSameListeningEnd(one: Forward, other: Forward): boolean {
  // Two of port 0 have a port each.
  if (one.side !== other.side || one.listen.port !== other.listen.port || one.listen.port === 0) return false;
  const theirs = addressesOf(other.listen.host);
  return addressesOf(one.listen.host).some((address) =>
    theirs.some((their) => their === address || isWildcard(their, address) || isWildcard(address, their)),
  );
}

function addressesOf(host: string): string[] {
  if (host === 'localhost') return ['127.0.0.1', '::1'];
  return host === '*' ? ['0.0.0.0', '::'] : [normalizeAddress(host)];
}

function isWildcard(any: string, address: string): boolean {
  return (any === '0.0.0.0' && isIP(address) === 4) || (any === '::' && isIP(address) === 6);
}
