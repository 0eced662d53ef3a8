/**
 * What ssh_config and a spec say of one host, for a client that is no ssh: the settings in force become facts, or a refusal
 * of what this client cannot do.
 */
import { hostname } from 'node:os';
import { printable } from '../../wire.js';
import { hopOptions } from '../jump.js';
import { type Hop, parseHop, type TunnelSpec } from '../spec.js';
import { expandPath, expandTokens, findScene, type Scene, type Tokens } from './ssh-config/expansion.js';
import { findRefusal, isNone, loginMethods, placeOf, refusal, type Setting, useSsh } from './ssh-config/keywords.js';
import { quoteWord } from './ssh-config/line.js';
import { readSettings, resolveHost, type Settings } from './ssh-config/settings.js';
import { createValues, single } from './ssh-config/values.js';

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
  const written = (hop?.destination ?? spec.remoteHost).replace(/\[(.*)\]$/, '$1');
  const at = written.lastIndexOf('@');
  const scene = findScene(written.slice(at + 1), options.env);
  const own = ownLines(spec, hop, at === -1 ? null : written.slice(0, at));
  const settings = await readSettings({ file: spec.sshConfig, own, scene });
  return settle(spec, hop, settings, scene, options);
}

/** The lines of a spec, in the order in which ssh is given them. */
function ownLines(spec: TunnelSpec, hop: Hop | null, user: string | null): (readonly [name: string, value: string])[] {
  // A hop of ssh_config's own is reached as that file has it.
  const isOurs =
    hop === null || spec.jump.some((each) => each.destination === hop.destination && each.port === hop.port);
  const options = isOurs ? Object.entries(spec.sshOptions) : [];
  const entries = options.filter(([name]) => hop === null || hopOptions.has(name));
  if (hop !== null && hop.port !== null) entries.push(['Port', String(hop.port)]);
  // ssh takes the one of -o before that of `user@host`.
  if (user !== null) entries.push(['User', quoteWord(user)]);
  const defaults = { ServerAliveInterval: spec.check && hop === null ? '5' : '15', ServerAliveCountMax: '3' };
  return [...entries, ...Object.entries({ ...defaults, ConnectTimeout: '10' })];
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

const pubkeyWords = { yes: true, true: true, no: false, false: false, unbound: true, 'host-bound': true };

/** Makes facts of what was read, and refuses what is in force and cannot be done. */
function settle(
  spec: TunnelSpec,
  hop: Hop | null,
  { values, identityFiles }: Settings,
  scene: Scene,
  { knownHosts, isBehind = false }: FactsOptions,
): HostFacts {
  for (const [keyword, setting] of values) {
    // The way there is looked at where it is of interest.
    if (keyword !== 'proxyjump') refuseUndoable(setting);
  }
  const { word, number, timeMs, isYes, choose, files } = createValues(values);
  const host = resolveHost(values, scene);
  if (!/^[^\s,*?!|#@[\]/\\]+$/.test(host))
    throw refusal(`${placeOf(values.get('hostname'))}: expected a host, found '${printable(host)}'`);
  const user = word('user') ?? scene.localUser;
  const port = number('port', 22, { least: 1, most: 65_535 });
  const hostKeyAlias = word('hostkeyalias')?.toLowerCase() ?? null;
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
  const named = [...ownIdentity(spec, hop), ...identityFiles];
  const usual = usualIdentities.map((file): Setting => ({ name: 'IdentityFile', words: [file], place: null }));
  const identities = (named.length > 0 ? named : usual).filter(({ words }) => !isNone(words));
  const checking = choose('stricthostkeychecking', 'ask', checkings);
  const theirs = files('userknownhostsfile', usualKnownHosts).map((file) =>
    pathOf(file, values.get('userknownhostsfile')),
  );
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
    identityFiles: [...new Set(identities.map(identityOf))],
    areIdentitiesNamed: named.length > 0,
    identitiesOnly: isYes('identitiesonly', false),
    identityAgent: agentOf(word('identityagent') ?? 'SSH_AUTH_SOCK'),
    methods: methods(),
    passwordPrompts: number('numberofpasswordprompts', 3),
    ciphers: word('ciphers'),
    macs: word('macs'),
    kexAlgorithms: word('kexalgorithms'),
    hostKeyAlgorithms: word('hostkeyalgorithms'),
    pubkeyAlgorithms: word('pubkeyacceptedalgorithms'),
    leastRsaBits: number('requiredrsasize', 1024),
    compression: isYes('compression', false),
    connectTimeoutMs: timeMs('connecttimeout'),
    tcpKeepAlive: isYes('tcpkeepalive', true),
    aliveIntervalMs: timeMs('serveraliveinterval'),
    aliveCountMax: number('serveralivecountmax', 3),
    family: choose('addressfamily', 'any', { any: 0, inet: 4, inet6: 6 } as const),
    bindAddress: word('bindaddress'),
    jump: jump(),
  };

  function pathOf(text: string, setting: Setting | undefined): string {
    return expandPath(text, placeOf(setting), { scene, tokens });
  }

  function identityOf(setting: Setting): string {
    const file = pathOf(single(setting), setting);
    if (!/-cert(-v0[01])?\.pub$/.test(file)) return file;
    throw refusal(`The engine embedded cannot use the certificate ${file}, which ${placeOf(setting)} names: ${useSsh}`);
  }

  function agentOf(text: string): string | null {
    if (isNone([text])) return null;
    if (text === 'SSH_AUTH_SOCK') return scene.env.SSH_AUTH_SOCK || null;
    const variable = /^\$(\w+)$/.exec(text)?.[1];
    if (variable === undefined) return pathOf(text, values.get('identityagent'));
    return (Object.hasOwn(scene.env, variable) && scene.env[variable]) || null;
  }

  function methods(): string[] {
    const isEnabled: Readonly<Record<(typeof loginMethods)[number], boolean>> = {
      publickey: choose('pubkeyauthentication', 'yes', pubkeyWords),
      'keyboard-interactive': isYes('kbdinteractiveauthentication', true),
      password: isYes('passwordauthentication', true),
    };
    const wanted = (word('preferredauthentications') ?? loginMethods.join()).split(',').map((name) => name.trim());
    const found = [...new Set(wanted)].filter((name) => loginMethods.some((each) => each === name && isEnabled[each]));
    if (found.length > 0) return found;
    throw refusal(
      `The engine embedded has no way left to log in to ${host}: ${useSsh}, or allow one of ${loginMethods.join(', ')}`,
    );
  }

  function jump(): readonly Hop[] {
    if (isBehind) return [];
    if (hop === null && spec.jump.length > 0) return spec.jump;
    const setting = values.get('proxyjump');
    if (!setting || isNone(setting.words)) return [];
    refuseUndoable(setting);
    const { h = '', n = '', p = '', r = '' } = tokens;
    return single(setting)
      .split(',')
      .map((text) => {
        const expanded = expandTokens(text, { '%': '%', h, n, p, r }, placeOf(setting));
        const found = parseHop(expanded.replace(/^ssh:\/\/(.*?)\/?$/, '$1'));
        if (typeof found !== 'string') return found;
        throw refusal(`${placeOf(setting)}: ProxyJump: ${printable(found)}`);
      });
  }
}

function refuseUndoable(setting: Setting): void {
  const complaint = findRefusal(setting);
  if (complaint !== undefined) throw refusal(complaint);
}

/** The spec's own key, where it is about this host: not that of a hop which ssh_config has chosen. */
function ownIdentity({ identityFile, jump }: TunnelSpec, hop: Hop | null): Setting[] {
  if (identityFile === null || (hop !== null && jump.length === 0)) return [];
  return [{ name: 'identity_file', words: [identityFile.replaceAll('%', '%%')], place: null }];
}
