/**
 * What the client in this process makes of each keyword of ssh_config: it does it, it may leave it out without anybody being
 * deceived, or it refuses it and says what could be done instead.
 */
import { TunwardError } from '../../../errors.js';
import { printable } from '../../../wire.js';
import { splitWords } from './line.js';

/** One value of ssh_config that is in force, and where it was written; null: by the spec. */
export interface Setting {
  /** As it is spelled there. */
  readonly name: string;
  readonly words: readonly string[];
  readonly place: string | null;
}

/** Where it was written, as the beginning of a sentence. */
export function placeOf(setting: Pick<Setting, 'name' | 'place'> | undefined): string {
  return setting?.place ?? `the option ${setting?.name ?? ''} of the tunnel`;
}

export const isNone = ([word = '']: readonly string[]) => word.toLowerCase() === 'none';

/** What a client can do that has no more than this one. */
export const useSsh = "use 'engine: ssh'";

/** What ssh_config asks for and cannot have here. */
export function refusal(message: string): TunwardError {
  return new TunwardError('ERR_SPAWN_FAILED', message, { reason: 'bad_spec' });
}

/** The ways to log in that this client has, in the order in which ssh tries them. */
export const loginMethods = ['publickey', 'keyboard-interactive', 'password'] as const;

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
const done: ReadonlySet<string> = new Set(
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

const isNo = ([word = '']: readonly string[]) => /^(no|false)$/i.test(word);
const isMethod = (name: string) => loginMethods.some((each) => each === name.trim());
const methodNames = loginMethods.join(', ');

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
    { isNothing: (words) => words.join().split(',').some(isMethod), remedy: `name one of ${methodNames} there` },
  ],
  ['proxycommand', { isNothing: isNone, remedy: "name the hosts on the way by 'jump'" }],
  ['refuseconnection', { isNothing: () => false }],
  // ssh2 never begins a new exchange of keys by itself; servers do, by limits of their own.
  ['rekeylimit', { isNothing: ([size = '', time = 'none']) => /^(default|none)$/i.test(size) && isNone([time]) }],
  ['revokedhostkeys', { isNothing: isNone, remedy: "mark the keys '@revoked' in known_hosts" }],
  ['securitykeyprovider', { isNothing: ([word = '']) => /^(internal|none)$/i.test(word) }],
  ['verifyhostkeydns', { isNothing: (words) => isNo(words) || words[0]?.toLowerCase() === 'ask' }],
]);

/**
 * A keyword by the one name that it goes by here, in lower case.
 *
 * @example
 * canonicalName('SmartcardDevice'); // 'pkcs11provider'
 */
export function canonicalName(name: string): string {
  const lower = name.toLowerCase();
  return aliases.get(lower) ?? lower;
}

/** Is it one that something is decided about here? By its {@link canonicalName}. */
export function isKnown(keyword: string): boolean {
  return done.has(keyword) || harmless.has(keyword) || refusals.has(keyword);
}

/** Why a value that is in force is one that this client cannot do, in one sentence. */
export function findRefusal({ name, words, place }: Setting): string | undefined {
  const rule = refusals.get(canonicalName(name));
  if (!rule || rule.isNothing(words)) return undefined;
  const asking = place === null ? '' : `, which ${place} asks for`;
  return `The engine embedded cannot use ${printable(name)}${asking}: ${[useSsh, rule.remedy].filter(Boolean).join(', or ')}`;
}

/** Where an option of the spec's is one that this client cannot do: its name, and the sentence. */
export function whyNotEmbedded(
  sshOptions: Readonly<Record<string, string>>,
): readonly [name: string, sentence: string] | undefined {
  for (const [name, value] of Object.entries(sshOptions)) {
    const complaint = findRefusal({ name, words: splitWords(value) ?? [value], place: null });
    if (complaint !== undefined) return [name, complaint];
  }
  return undefined;
}
