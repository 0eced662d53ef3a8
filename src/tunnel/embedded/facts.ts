import fs from 'node:fs';
import { hostname, userInfo } from 'node:os';
import path from 'node:path';
import { isErrno, TunwardError } from '../../errors.js';
import { printable } from '../../wire.js';
import { hopOptions } from '../jump.js';
import { type Hop, normalizeAddress, parseHop, type TunnelSpec } from '../spec.js';
import { matchesPattern, matchesPatternList } from './pattern.js';
import { readPlainFile } from './plain-file.js';

/** Where a destination is, and how it is logged in to: what `ssh -G` would say, for a client that is no ssh. */
export interface HostFacts {
  readonly user: string;
  /** HostName, or the host as written; in lower case, as ssh has it. */
  readonly host: string;
  readonly port: number;
  /** The name by which known_hosts is asked, where that is another one. It goes without the port there: ask for port 22. */
  readonly hostKeyAlias: string | null;
  readonly strictHostKeyChecking: 'yes' | 'ask' | 'accept-new' | 'no';
  /** Absolute paths: ours where ssh would ask somebody, the person's own, then those of the system. They need not be there. */
  readonly knownHostsFiles: readonly string[];
  /** Which of them takes a key met for the first time; null: none does. */
  readonly newKeysFile: string | null;
  /** Are names hidden in it? */
  readonly hashKnownHosts: boolean;
  /** Absolute paths of private keys, in the order in which they are offered. */
  readonly identityFiles: readonly string[];
  /** Were they named, or are they the usual ones (`~/.ssh/id_ed25519` …), of which most are not there? */
  readonly areIdentitiesNamed: boolean;
  readonly identitiesOnly: boolean;
  /** The path of an agent's socket; null: none. */
  readonly identityAgent: string | null;
  /** `publickey`, `keyboard-interactive`, `password`, in the order in which they are tried. */
  readonly methods: readonly string[];
  /** How often each password is asked for. */
  readonly passwordPrompts: number;
  /** Lists as ssh_config has them, with `+`, `-` or `^` before them or not; null: ours. */
  readonly ciphers: string | null;
  readonly macs: string | null;
  readonly kexAlgorithms: string | null;
  readonly hostKeyAlgorithms: string | null;
  /** By which algorithms this user's own keys may sign. */
  readonly pubkeyAlgorithms: string | null;
  /** Keys of RSA with fewer bits are refused, this user's and the server's. */
  readonly leastRsaBits: number;
  readonly compression: boolean;
  /** 0: as long as the system has it. */
  readonly connectTimeoutMs: number;
  readonly tcpKeepAlive: boolean;
  /** 0: nothing is sent. */
  readonly aliveIntervalMs: number;
  readonly aliveCountMax: number;
  /** 4, 6, or 0 for whichever there is. */
  readonly family: 0 | 4 | 6;
  readonly bindAddress: string | null;
  /**
   * The hosts to go through, the first one first. Of a hop: those to its own ProxyJump in ssh_config, which counts for the
   * first one on the way alone, see {@link FactsOptions.isBehind}.
   */
  readonly jump: readonly Hop[];
}

export interface FactsOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
  /** It is reached through another host in any case: how ssh_config would go there is of no interest. */
  readonly isBehind?: boolean;
}

/** One value of ssh_config that is in force, and where it was written; null: by the spec. */
interface Setting {
  /** As it is spelled there. */
  readonly name: string;
  readonly words: readonly string[];
  readonly place: string | null;
}

interface Settings {
  /** The first of each, by the keyword in lower case. */
  readonly values: ReadonlyMap<string, Setting>;
  readonly identityFiles: readonly Setting[];
}

/** Who is here, and whom it goes to. */
interface Scene {
  /** As it is written, after the `@`. */
  readonly original: string;
  readonly home: string;
  readonly localUser: string;
  readonly env: FactsOptions['env'];
}

/**
 * What ssh_config (the spec's, or `~/.ssh/config`) and the spec's own options say of its destination, or of one of the hosts
 * on the way to it, which has no options of the spec but those of `jump.ts`. Runs nothing, asks nobody, and reads the file
 * anew. The system's own ssh_config is not read.
 *
 * What the spec says comes first, then the defaults of ours that a spec may change (the timeouts), then the file: the order
 * of the command line that ssh is given.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` with one sentence for what this client cannot do and the
 * file asks for (certificates, security keys, ProxyCommand, GSSAPI, `Match exec` …), or what cannot be read.
 *
 * @example
 * (await readHostFacts(spec, null, { env: process.env, knownHosts: null })).port; // 2222
 */
export async function readHostFacts(spec: TunnelSpec, hop: Hop | null, options: FactsOptions): Promise<HostFacts> {
  const { parse } = await import('ssh-config');
  const { env } = options;
  const written = (hop?.destination ?? spec.remoteHost).replace(/\[(.*)\]$/, '$1');
  const at = written.lastIndexOf('@');
  const self = whoAmI(env);
  const scene: Scene = { original: written.slice(at + 1), home: homeOf(env, self.home), localUser: self.name, env };
  const own = ownLines(spec, hop, at === -1 ? null : written.slice(0, at));
  const settings = readSettings(spec, scene, own, (line) => keywordOf(parse, line));
  return settle(spec, hop, settings, scene, options);
}

/** Where an option of the spec's is one that this client cannot do: its name, and the sentence. */
export function whyNotEmbedded(
  sshOptions: Readonly<Record<string, string>>,
): readonly [name: string, sentence: string] | undefined {
  for (const [name, value] of Object.entries(sshOptions)) {
    const words = splitArguments(value) ?? [value];
    const complaint = findRefusal({ name, words, place: null });
    if (complaint !== undefined) return [name, complaint];
  }
  return undefined;
}

// ---- the file

const MAX_BYTES = 1024 * 1024;
/** As ssh has it. */
const MAX_DEPTH = 16;
/** Of files that include files, twice each. */
const MAX_FILES = 1000;

/** The keyword of a line, and all that follows it; undefined for a comment or a blank line. */
type Keyword = { readonly name: string; readonly rest: string } | undefined;

/**
 * One line by the parser of the package ssh-config, which knows a section from a comment and a keyword from its value. Its
 * own values are not taken: where ssh reads quotes, `\` and `#` it reads them otherwise, and it takes the next line for the
 * value of an empty one, so it is given a line at a time.
 */
function keywordOf(parse: (text: string) => readonly unknown[], line: string): Keyword | Error {
  let nodes: readonly unknown[];
  try {
    // A Match by another name: it would read the conditions too, and refuse '!all'.
    nodes = parse(line.replace(/^(\s*)match(?![\w-])/i, '$1xhost'));
  } catch (error) {
    // An error of whatever kind: also a TypeError, for a Host without a name.
    return error instanceof Error ? error : new Error(String(error));
  }
  const [node] = nodes as readonly { type: number; param?: string; separator?: string; before: string }[];
  if (!node?.param) return undefined;
  const end = node.before.length + node.param.length;
  return { name: line.slice(node.before.length, end), rest: line.slice(end + (node.separator ?? '').length) };
}

/** The lines of a spec, in the order in which ssh is given them. */
function ownLines(spec: TunnelSpec, hop: Hop | null, user: string | null): (readonly [name: string, value: string])[] {
  // A hop of ssh_config's own is reached as that file has it.
  const isOurs =
    hop === null || spec.jump.some((each) => each.destination === hop.destination && each.port === hop.port);
  const options = isOurs
    ? Object.entries(spec.sshOptions).filter(([name]) => hop === null || hopOptions.has(name))
    : [];
  const entries: [string, string][] = options.map(([name, value]) => [name, value]);
  if (hop !== null && hop.port !== null) entries.push(['Port', String(hop.port)]);
  // ssh takes the one of -o before that of `user@host`.
  if (user !== null) entries.push(['User', quote(user)]);
  const defaults = { ServerAliveInterval: spec.check && hop === null ? '5' : '15', ServerAliveCountMax: '3' };
  return [...entries, ...Object.entries({ ...defaults, ConnectTimeout: '10' })];
}

function quote(word: string): string {
  return `"${word.replace(/[\\"]/g, '\\$&')}"`;
}

function readSettings(
  spec: TunnelSpec,
  scene: Scene,
  own: readonly (readonly [name: string, value: string])[],
  keywordIn: (line: string) => Keyword | Error,
): Settings {
  const values = new Map<string, Setting>();
  const identityFiles: Setting[] = [];
  let ignored: readonly string[] = [];
  let wantsFinal = false;
  let filesLeft = MAX_FILES;

  for (const [name, value] of own) take(name, value, null);
  readAll(null);
  if (wantsFinal) {
    const found = resolveHost(values, scene);
    values.set('hostname', { name: 'HostName', words: [found.replaceAll('%', '%%')], place: null });
    readAll(found);
  }
  return { values, identityFiles };

  /** `final`: the host's name that the first reading found; null while that goes on. */
  function readAll(final: string | null): void {
    if (spec.sshConfig !== null) {
      // Both say that there is none: `ssh -F none`, and what many write for it.
      if (spec.sshConfig === 'none' || spec.sshConfig === '/dev/null') return;
      // ssh takes whatever mode it has, of a file that it is told to read.
      readFile(path.resolve(spec.sshConfig), { final, depth: 0, isOwn: false }, true);
      return;
    }
    readFile(path.join(scene.home, '.ssh/config'), { final, depth: 0, isOwn: true }, true);
  }

  function readFile(
    file: string,
    context: { readonly final: string | null; readonly depth: number; readonly isOwn: boolean },
    wasActive: boolean,
  ): void {
    const { final, depth, isOwn } = context;
    const shown = shorten(file, scene.home);
    if (depth > MAX_DEPTH || filesLeft-- <= 0)
      throw refusal(`${shown} cannot be read: Include leads from file to file without end`);
    const found = readPlainFile(file, MAX_BYTES);
    if (found.kind !== 'file') {
      if (found.kind === 'absent' && (isOwn || depth > 0)) return;
      throw refusal(`${shown} cannot be read: ${found.why}`);
    }
    if ((isOwn || depth > 0) && !isTrusted(found))
      throw refusal(
        `${shown} is not read, since others could write it: give it to this user and 'chmod 600' it, as ssh wants it`,
      );
    let isActive = wasActive;
    for (const [index, raw] of found.bytes.toString('utf8').split('\n').entries()) {
      const place = `${shown} line ${index + 1}`;
      const line = raw.replace(/[ \t\r\f]+$/, '');
      const keyword = keywordIn(line);
      if (keyword === undefined) continue;
      if (keyword instanceof Error || line.includes('\0'))
        throw refusal(`${place} cannot be understood: it has quotes without an end, or nothing behind its keyword`);
      const { name, rest } = keyword;
      const lower = name.toLowerCase();
      if (lower === 'host') isActive = isHostMeant(wordsOf(rest, place), final ?? scene.original) && wasActive;
      else if (lower === 'match') isActive = isMatch(rest, place, final) && wasActive;
      else if (lower === 'include') {
        if (!isActive) continue;
        for (const each of wordsOf(rest, place).flatMap((word) => findIncluded(word, place, scene)))
          readFile(each, { ...context, depth: depth + 1 }, true);
      } else if (isActive) take(name, rest, place);
    }
  }

  function take(name: string, rest: string, place: string | null): void {
    const lower = aliases.get(name.toLowerCase()) ?? name.toLowerCase();
    const setting = { name, words: wordsOf(rest, place ?? `the option ${name}`), place };
    if (setting.words.length === 0) throw refusal(`${place ?? name} says nothing of ${printable(name)}`);
    if (lower === 'ignoreunknown') {
      if (ignored.length === 0) ignored = setting.words;
    } else if (lower === 'identityfile') {
      identityFiles.push(setting);
    } else if (known.has(lower) || harmless.has(lower) || refusals.has(lower)) {
      // ProxyJump and ProxyCommand are one: the first of either kind decides, and be it `none`.
      const slot = lower === 'proxycommand' ? 'proxyjump' : lower;
      if (!values.has(slot)) values.set(slot, setting);
    } else if (!ignored.some((list) => matchesPatternList(lower, list.toLowerCase()))) {
      throw refusal(`${place} has the option ${printable(name)}, which the engine embedded does not know`);
    }
  }

  /** As ssh's Match: what comes before a condition that does not hold is of no interest, and neither is what comes after. */
  function isMatch(rest: string, place: string, final: string | null): boolean {
    const words = splitCriteria(rest);
    if (words.length === 0) throw refusal(`${place} cannot be understood: a Match has conditions`);
    let isMet = true;
    let unknown: string | undefined;
    for (let at = 0; at < words.length; at++) {
      const word = words[at] ?? '';
      const isNegated = word.startsWith('!');
      const criterion = word.slice(isNegated ? 1 : 0).toLowerCase();
      if (criterion === 'all') {
        if (at + 1 < words.length) throw refusal(`${place} cannot be understood: nothing may come after 'all'`);
        isMet &&= !isNegated;
        continue;
      }
      if (criterion === 'final' || criterion === 'canonical') {
        if (criterion === 'final') wantsFinal = true;
        isMet &&= (final !== null) !== isNegated;
        continue;
      }
      const wanted = words[++at];
      if (wanted === undefined) throw refusal(`${place} cannot be understood: nothing follows '${printable(word)}'`);
      const actual = actualOf(criterion, final);
      if (actual === undefined) unknown ??= criterion;
      else isMet &&= matchesPatternList(actual.text, actual.isHost ? wanted.toLowerCase() : wanted) !== isNegated;
    }
    if (isMet && unknown !== undefined)
      throw refusal(`The engine embedded cannot use 'Match ${printable(unknown)}', which ${place} asks for: ${useSsh}`);
    return isMet;
  }

  /** What a condition is about; undefined for one that this client knows nothing of. */
  function actualOf(
    criterion: string,
    final: string | null,
  ): { readonly text: string; readonly isHost?: true } | undefined {
    if (criterion === 'host') return { text: (final ?? expandHost(values, scene)).toLowerCase(), isHost: true };
    if (criterion === 'originalhost') return { text: scene.original.toLowerCase(), isHost: true };
    if (criterion === 'user') return { text: values.get('user')?.words[0] ?? scene.localUser };
    return criterion === 'localuser' ? { text: scene.localUser } : undefined;
  }
}

/** Host: patterns with blanks between them, compared as they are written, in upper case or lower. */
function isHostMeant(patterns: readonly string[], name: string): boolean {
  let isMeant = false;
  for (const pattern of patterns) {
    const isNegated = pattern.startsWith('!');
    if (!matchesPattern(name, isNegated ? pattern.slice(1) : pattern)) continue;
    if (isNegated) return false;
    isMeant = true;
  }
  return isMeant;
}

/** ssh's own words: quotes of both kinds, `\` before them, itself and a blank, and a comment at the end. */
function splitArguments(text: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let open: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const letter = text.charAt(at);
    const next = text.charAt(at + 1);
    const isBlank = letter === ' ' || letter === '\t';
    if (word === undefined) {
      if (isBlank) continue;
      if (letter === '#') break;
      word = '';
    }
    if (letter === '\\' && (/['"\\]/.test(next) || (open === undefined && next === ' '))) {
      word += next;
      at++;
    } else if (open === undefined && isBlank) {
      words.push(word);
      word = undefined;
    } else if (open === undefined && (letter === '"' || letter === "'")) {
      open = letter;
    } else if (letter === open) {
      open = undefined;
    } else {
      word += letter;
    }
  }
  if (open !== undefined) return undefined;
  return word === undefined ? words : [...words, word];
}

function wordsOf(text: string, place: string): string[] {
  const words = splitArguments(text);
  if (!words) throw refusal(`${place} cannot be understood: a quote in it has no end`);
  return words;
}

/** The words of a Match, which ssh takes apart by older rules: at blanks and at `=`, and quotes are of one kind. */
function splitCriteria(text: string): string[] {
  const words = [...text.matchAll(/"([^"]*)"|([^\s="]+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
  const end = words.findIndex((word) => word.startsWith('#'));
  return end === -1 ? words : words.slice(0, end);
}

/** The files that an Include names, in the order of their names; one that is not there is none. */
function findIncluded(word: string, place: string, { home, localUser }: Scene): string[] {
  const expanded = expandTilde(word, place, { home, localUser });
  const absolute = path.isAbsolute(expanded) ? expanded : path.join(home, '.ssh', expanded);
  if (absolute.includes('['))
    throw refusal(`The engine embedded cannot use '[' in an Include, which ${place} has: name the files, or use '*'`);
  let found = ['/'];
  for (const part of absolute.split('/').filter((each) => each !== '')) {
    found = found.flatMap((folder) =>
      (/[*?]/.test(part) ? findNames(folder, part) : [part]).map((name) => path.join(folder, name)),
    );
  }
  return found;
}

function findNames(folder: string, pattern: string): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ELOOP', 'ENAMETOOLONG')) return [];
    throw error;
  }
  const isHidden = pattern.startsWith('.');
  return names.filter((name) => (isHidden || !name.startsWith('.')) && matchesPattern(name, pattern)).sort();
}

function isTrusted({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return (uid === 0 || uid === process.getuid?.()) && (mode & 0o022) === 0;
}

// ---- what is in it

/** Other names of the same. */
const aliases: ReadonlyMap<string, string> = new Map([
  ['challengeresponseauthentication', 'kbdinteractiveauthentication'],
  ['skeyauthentication', 'kbdinteractiveauthentication'],
  ['tisauthentication', 'kbdinteractiveauthentication'],
  ['dsaauthentication', 'pubkeyauthentication'],
  ['identityfile2', 'identityfile'],
  ['pubkeyacceptedkeytypes', 'pubkeyacceptedalgorithms'],
  ['smartcarddevice', 'pkcs11provider'],
]);

/** What this client does. */
const known: ReadonlySet<string> = new Set(
  (
    'addressfamily bindaddress ciphers compression connecttimeout globalknownhostsfile hashknownhosts hostkeyalgorithms ' +
    'hostkeyalias hostname identitiesonly identityagent kbdinteractiveauthentication kexalgorithms macs ' +
    'numberofpasswordprompts passwordauthentication port preferredauthentications proxyjump pubkeyacceptedalgorithms ' +
    'pubkeyauthentication requiredrsasize serveralivecountmax serveraliveinterval stricthostkeychecking tcpkeepalive user ' +
    'userknownhostsfile'
  ).split(' '),
);

/** What may be left out without anybody being deceived, and why. */
const harmless: ReadonlySet<string> = new Set(
  Object.entries({
    'there is no command and no terminal':
      'escapechar enableescapecommandline localcommand obscurekeystroketiming permitlocalcommand remotecommand requesttty ' +
      'sendenv sessiontype setenv stdinnull channeltimeout',
    'the tunnel is the one that its spec describes, and nothing else is forwarded':
      'clearallforwardings dynamicforward exitonforwardfailure forwardagent forwardx11 forwardx11timeout forwardx11trusted ' +
      'gatewayports localforward permitremoteopen remoteforward streamlocalbindmask streamlocalbindunlink tunnel ' +
      'tunneldevice xauthlocation',
    'connections are shared by the spec alone, and nothing goes to the background':
      'controlmaster controlpath controlpersist forkafterauthentication',
    'how much is said, and how, is decided here':
      'batchmode fingerprinthash loglevel logverbose syslogfacility visualhostkey warnweakcrypto versionaddendum',
    'no key is put anywhere': 'addkeystoagent updatehostkeys usekeychain',
    'a try that failed is followed by another in any case': 'connectionattempts',
    'a matter of priority, which Node cannot ask for': 'ipqos',
    'it concerns certificates, none of which is taken': 'casignaturealgorithms',
    'the key of localhost is checked like any other': 'nohostauthenticationforlocalhost',
    'it concerns what is refused where it is asked for':
      'canonicaldomains canonicalizefallbacklocal canonicalizemaxdots canonicalizepermittedcnames enablesshkeysign ' +
      'gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapirenewalforcesrekey gssapiserveridentity ' +
      'gssapitrustdns hostbasedacceptedalgorithms hostbasedkeytypes proxyusefdpass tag',
    'ssh itself passes over it':
      'afstokenpassing cipher compressionlevel fallbacktorsh globalknownhostsfile2 kerberosauthentication ' +
      'kerberostgtpassing protocol rhostsauthentication rhostsrsaauthentication rsaauthentication useprivilegedport ' +
      'useroaming userknownhostsfile2 usersh',
  }).flatMap(([, names]) => names.split(' ')),
);

const isNone = ([word = '']: readonly string[]) => word.toLowerCase() === 'none';
const isNo = ([word = '']: readonly string[]) => /^(no|false)$/i.test(word);
const useSsh = "use 'engine: ssh'";

/** What this client cannot do and cannot leave out: which values of it ask for nothing, and what else could be done. */
const refusals: ReadonlyMap<string, { isNothing(words: readonly string[]): boolean; remedy?: string }> = new Map([
  ['bindinterface', { isNothing: () => false, remedy: 'name an address by BindAddress' }],
  ['canonicalizehostname', { isNothing: isNo, remedy: 'write the whole name' }],
  ['certificatefile', { isNothing: isNone }],
  // It compares addresses beside names; what would refuse a server must not be left out.
  ['checkhostip', { isNothing: isNo }],
  ['gssapiauthentication', { isNothing: isNo }],
  ['gssapikeyexchange', { isNothing: isNo }],
  ['hostbasedauthentication', { isNothing: isNo }],
  ['knownhostscommand', { isNothing: isNone }],
  ['pkcs11provider', { isNothing: isNone, remedy: 'let ssh-agent have the key' }],
  [
    'preferredauthentications',
    { isNothing: (words) => words.join().split(',').some(isMethod), remedy: `name one of ${listMethods()} there` },
  ],
  ['proxycommand', { isNothing: isNone, remedy: "name the hosts on the way by 'jump'" }],
  ['refuseconnection', { isNothing: () => false }],
  // ssh2 never begins a new exchange of keys by itself; servers do, by limits of their own.
  ['rekeylimit', { isNothing: ([size = '', time = 'none']) => /^(default|none)$/i.test(size) && isNone([time]) }],
  ['revokedhostkeys', { isNothing: isNone, remedy: "mark the keys '@revoked' in known_hosts" }],
  ['securitykeyprovider', { isNothing: ([word = '']) => /^(internal|none)$/i.test(word) }],
  ['verifyhostkeydns', { isNothing: (words) => isNo(words) || words[0]?.toLowerCase() === 'ask' }],
]);

function listMethods(): string {
  return 'publickey, keyboard-interactive, password';
}

function isMethod(name: string): boolean {
  return listMethods().split(', ').includes(name.trim());
}

function findRefusal({ name, words, place }: Setting): string | undefined {
  const rule = refusals.get(aliases.get(name.toLowerCase()) ?? name.toLowerCase());
  if (!rule || rule.isNothing(words)) return undefined;
  const asking = place === null ? '' : `, which ${place} asks for`;
  return `The engine embedded cannot use ${printable(name)}${asking}: ${[useSsh, rule.remedy].filter(Boolean).join(', or ')}`;
}

function refusal(message: string): TunwardError {
  return new TunwardError('ERR_SPAWN_FAILED', message, { reason: 'bad_spec' });
}

const systemKnownHosts = ['/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2'];
const usualKnownHosts = ['~/.ssh/known_hosts', '~/.ssh/known_hosts2'];
/** Those of ssh that are of a kind which this client reads. */
const usualIdentities = ['~/.ssh/id_rsa', '~/.ssh/id_ecdsa', '~/.ssh/id_ed25519'];

const checkings: Readonly<Record<string, HostFacts['strictHostKeyChecking']>> = {
  yes: 'yes',
  true: 'yes',
  no: 'no',
  false: 'no',
  off: 'no',
  ask: 'ask',
  'accept-new': 'accept-new',
};

/** Makes facts of what was read, and refuses what is in force and cannot be done. */
function settle(
  spec: TunnelSpec,
  hop: Hop | null,
  { values, identityFiles }: Settings,
  scene: Scene,
  { knownHosts, isBehind = false }: FactsOptions,
): HostFacts {
  for (const [slot, setting] of values) {
    // The way there is looked at where it is of interest.
    const complaint = slot === 'proxyjump' ? undefined : findRefusal(setting);
    if (complaint !== undefined) throw refusal(complaint);
  }
  const host = resolveHost(values, scene);
  if (!/^[^\s,*?!|#@[\]/\\]+$/.test(host))
    throw refusal(`${placeOf(values.get('hostname'))}: expected a host, found '${printable(host)}'`);
  const user = text('user') ?? scene.localUser;
  const port = number('port', 22, 65_535);
  const hostKeyAlias = text('hostkeyalias')?.toLowerCase() ?? null;
  const tokens: Tokens = {
    '%': '%',
    d: scene.home,
    h: host,
    i: String(process.getuid?.() ?? ''),
    k: hostKeyAlias ?? scene.original,
    L: hostname().split('.')[0] ?? '',
    l: hostname(),
    n: scene.original,
    p: String(port),
    r: user,
    u: scene.localUser,
  };
  const named = [...ofSpec(), ...identityFiles];
  const usual = usualIdentities.map((word): Setting => ({ name: 'IdentityFile', words: [word], place: null }));
  const identities = (named.length > 0 ? named : usual).filter(({ words }) => !isNone(words));
  const checking = choose('stricthostkeychecking', 'ask', checkings);
  const theirs = files('userknownhostsfile', usualKnownHosts).map((word) => pathOf(word, 'userknownhostsfile'));
  const users = checking === 'ask' && knownHosts !== null ? [knownHosts, ...theirs] : theirs;
  return {
    user,
    host,
    port,
    hostKeyAlias,
    strictHostKeyChecking: checking,
    knownHostsFiles: [...users, ...files('globalknownhostsfile', systemKnownHosts)],
    newKeysFile: checking === 'yes' ? null : (users[0] ?? null),
    hashKnownHosts: isYes('hashknownhosts', false),
    identityFiles: [...new Set(identities.map((setting) => pathOf(single(setting), 'identityfile', setting)))],
    areIdentitiesNamed: named.length > 0,
    identitiesOnly: isYes('identitiesonly', false),
    identityAgent: agent(),
    methods: methods(),
    passwordPrompts: number('numberofpasswordprompts', 3),
    ciphers: text('ciphers'),
    macs: text('macs'),
    kexAlgorithms: text('kexalgorithms'),
    hostKeyAlgorithms: text('hostkeyalgorithms'),
    pubkeyAlgorithms: text('pubkeyacceptedalgorithms'),
    leastRsaBits: number('requiredrsasize', 1024),
    compression: isYes('compression', false),
    connectTimeoutMs: timeMs('connecttimeout'),
    tcpKeepAlive: isYes('tcpkeepalive', true),
    aliveIntervalMs: timeMs('serveraliveinterval'),
    aliveCountMax: number('serveralivecountmax', 3),
    family: choose('addressfamily', 'any', { any: 0, inet: 4, inet6: 6 } as const),
    bindAddress: text('bindaddress'),
    jump: jump(),
  };

  function ofSpec(): Setting[] {
    const isTheirs = hop !== null && spec.jump.length === 0;
    if (spec.identityFile === null || isTheirs) return [];
    return [{ name: 'identity_file', words: [spec.identityFile.replaceAll('%', '%%')], place: null }];
  }

  function single({ name, words, place }: Setting): string {
    const [word = ''] = words;
    if (word === '') throw refusal(`${placeOf({ name, place })}: expected a value of ${printable(name)}, found none`);
    if (words.length === 1) return word;
    throw refusal(`${placeOf({ name, place })}: expected one value of ${printable(name)}, found ${words.length}`);
  }

  function text(name: string): string | null {
    const setting = values.get(name);
    return setting ? single(setting) : null;
  }

  function choose<T>(name: string, fallback: string, table: Readonly<Record<string, T>>): T {
    const word = (text(name) ?? fallback).toLowerCase();
    const found = Object.entries(table).find(([each]) => each === word);
    if (found) return found[1];
    throw wrong(name, Object.keys(table).join(', '));
  }

  function isYes(name: string, fallback: boolean): boolean {
    return choose(name, fallback ? 'yes' : 'no', { yes: true, true: true, no: false, false: false });
  }

  function number(name: string, fallback: number, most = 2 ** 31 - 1): number {
    const word = text(name);
    if (word === null) return fallback;
    const least = name === 'port' ? 1 : 0;
    if (/^\d{1,10}$/.test(word) && Number(word) >= least && Number(word) <= most) return Number(word);
    throw wrong(name, `a number from ${least} to ${most}`);
  }

  /** `90`, `1m30s`; none is 0. */
  function timeMs(name: string): number {
    const word = text(name) ?? 'none';
    if (/^none$/i.test(word)) return 0;
    if (!/^(\d{1,9}[smhdw]?)+$/i.test(word)) throw wrong(name, "seconds, or a time as '1m30s'");
    const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
    let seconds = 0;
    for (const [, digits, unit = ''] of word.matchAll(/(\d+)([smhdw]?)/gi))
      seconds += Number(digits) * (units[unit.toLowerCase()] ?? 1);
    // More is no timer of Node's.
    return Math.min(seconds * 1000, 2 ** 31 - 1);
  }

  function wrong(name: string, expected: string): TunwardError {
    const setting = values.get(name);
    const found = printable(setting?.words[0] ?? '');
    return refusal(`${placeOf(setting)}: expected ${expected} as ${setting?.name ?? name}, found '${found}'`);
  }

  function files(name: string, usual: readonly string[]): readonly string[] {
    const setting = values.get(name);
    if (!setting) return usual;
    if (!setting.words.some((word) => isNone([word]))) return setting.words;
    if (setting.words.length > 1) throw wrong(name, "'none' to stand alone");
    return [];
  }

  function pathOf(word: string, name: string, setting: Setting | undefined = values.get(name)): string {
    const place = placeOf(setting);
    const expanded = expand(expandVariables(expandTilde(word, place, scene), place, scene), tokens, place);
    if (name === 'identityfile' && /-cert(-v0[01])?\.pub$/.test(expanded))
      throw refusal(`The engine embedded cannot use the certificate ${expanded}, which ${place} names: ${useSsh}`);
    return path.resolve(expanded);
  }

  function agent(): string | null {
    const word = text('identityagent') ?? 'SSH_AUTH_SOCK';
    if (isNone([word])) return null;
    if (word === 'SSH_AUTH_SOCK') return scene.env.SSH_AUTH_SOCK || null;
    const variable = /^\$(\w+)$/.exec(word)?.[1];
    if (variable === undefined) return pathOf(word, 'identityagent');
    return (Object.hasOwn(scene.env, variable) && scene.env[variable]) || null;
  }

  function methods(): string[] {
    const enabled = new Map([
      [
        'publickey',
        /^(unbound|host-bound)$/i.test(text('pubkeyauthentication') ?? '') || isYes('pubkeyauthentication', true),
      ],
      ['keyboard-interactive', isYes('kbdinteractiveauthentication', true)],
      ['password', isYes('passwordauthentication', true)],
    ]);
    const wanted = (text('preferredauthentications') ?? [...enabled.keys()].join())
      .split(',')
      .map((name) => name.trim());
    const found = [...new Set(wanted)].filter((name) => enabled.get(name));
    if (found.length > 0) return found;
    throw refusal(
      `The engine embedded has no way left to log in to ${host}: ${useSsh}, or allow one of ${listMethods()}`,
    );
  }

  function jump(): readonly Hop[] {
    if (isBehind) return [];
    if (hop === null && spec.jump.length > 0) return spec.jump;
    const setting = values.get('proxyjump');
    if (!setting || isNone(setting.words)) return [];
    const complaint = findRefusal(setting);
    if (complaint !== undefined) throw refusal(complaint);
    const { h = '', n = '', p = '', r = '' } = tokens;
    return single(setting)
      .split(',')
      .map((word) => {
        const found = parseHop(
          expand(word, { '%': '%', h, n, p, r }, placeOf(setting)).replace(/^ssh:\/\/(.*?)\/?$/, '$1'),
        );
        if (typeof found !== 'string') return found;
        throw refusal(`${placeOf(setting)}: ProxyJump: ${printable(found)}`);
      });
  }
}

function placeOf(setting: Pick<Setting, 'name' | 'place'> | undefined): string {
  return setting?.place ?? `the option ${setting?.name ?? ''} of the tunnel`;
}

function expandHost(values: Settings['values'], { original }: Scene): string {
  const setting = values.get('hostname');
  return setting ? expand(setting.words[0] ?? '', { '%': '%', h: original }, placeOf(setting)) : original;
}

function resolveHost(values: Settings['values'], scene: Scene): string {
  return normalizeAddress(expandHost(values, scene)).toLowerCase();
}

type Tokens = Readonly<Record<string, string>>;

function expand(text: string, tokens: Tokens, place: string): string {
  return text.replace(/%(.?)/gs, (whole, letter: string) => {
    const value = Object.hasOwn(tokens, letter) ? tokens[letter] : undefined;
    if (value !== undefined) return value;
    throw refusal(
      `The engine embedded cannot use '${printable(whole)}', which ${place} has: ${useSsh}, or write it out`,
    );
  });
}

function expandVariables(text: string, place: string, { env }: Scene): string {
  return text.replace(/\$\{([^}]*)\}/g, (_, name: string) => {
    const value = Object.hasOwn(env, name) ? env[name] : undefined;
    if (value !== undefined) return value;
    throw refusal(`${place} has \${${printable(name)}}, and there is no such variable here: set it, or write it out`);
  });
}

function expandTilde(text: string, place: string, { home, localUser }: Pick<Scene, 'home' | 'localUser'>): string {
  const [, user] = /^~([^/]*)/.exec(text) ?? [];
  if (user === undefined) return text;
  if (user === '' || user === localUser) return home + text.slice(1 + user.length);
  throw refusal(
    `The engine embedded does not know the home of ${printable(user)}, which ${place} asks for: write it out`,
  );
}

function shorten(file: string, home: string): string {
  return file.startsWith(`${home}/`) ? `~${file.slice(home.length)}` : file;
}

/** ssh does not run for a user who is in no passwd; a container may be run by any number, and it is asked for a name. */
function whoAmI(env: FactsOptions['env']): { readonly name: string; readonly home: string } {
  try {
    const { username, homedir } = userInfo();
    return { name: username, home: homedir };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { name: env.LOGNAME || env.USER || String(process.getuid?.() ?? ''), home: '/' };
  }
}

function homeOf({ HOME }: FactsOptions['env'], home: string): string {
  return HOME !== undefined && path.isAbsolute(HOME) ? HOME : home;
}
