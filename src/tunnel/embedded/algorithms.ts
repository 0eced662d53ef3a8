import { TunwardError } from '../../errors.js';
import type { HostFacts } from './facts.js';
import type { Offer } from './greeting.js';

/** What is asked of a server, the best first. */
export interface Algorithms {
  readonly kex: string[];
  readonly hostKey: string[];
  readonly cipher: string[];
  readonly mac: string[];
}

interface Table {
  /** Offered where nothing is said: nothing with SHA-1, nothing in CBC mode. */
  readonly usual: readonly string[];
  /** What ssh2 can do beside that, for whoever asks for it by name. */
  readonly others: readonly string[];
}

/*
 * The order of the ciphers is that of their speed in Node, without ssh2's addon, which is not shipped: of one stream of
 * 400 MB AES-GCM takes 0.8 s of a core, chacha20-poly1305 (WebAssembly) and AES-CTR, with a MAC of its own, 1.1 to 1.4 s.
 */
const tables: Readonly<Record<keyof Algorithms, Table>> = {
  kex: {
    usual: [
      'curve25519-sha256',
      'curve25519-sha256@libssh.org',
      'ecdh-sha2-nistp256',
      'ecdh-sha2-nistp384',
      'ecdh-sha2-nistp521',
      'diffie-hellman-group-exchange-sha256',
      'diffie-hellman-group16-sha512',
      'diffie-hellman-group18-sha512',
      'diffie-hellman-group14-sha256',
    ],
    others: [
      'diffie-hellman-group15-sha512',
      'diffie-hellman-group17-sha512',
      'diffie-hellman-group-exchange-sha1',
      'diffie-hellman-group14-sha1',
      'diffie-hellman-group1-sha1',
    ],
  },
  hostKey: {
    usual: [
      'ssh-ed25519',
      'ecdsa-sha2-nistp256',
      'ecdsa-sha2-nistp384',
      'ecdsa-sha2-nistp521',
      'rsa-sha2-512',
      'rsa-sha2-256',
    ],
    others: ['ssh-rsa'],
  },
  cipher: {
    usual: [
      'aes128-gcm@openssh.com',
      'aes256-gcm@openssh.com',
      'aes128-ctr',
      'aes192-ctr',
      'aes256-ctr',
      'chacha20-poly1305@openssh.com',
    ],
    others: ['aes256-cbc', 'aes192-cbc', 'aes128-cbc', '3des-cbc'],
  },
  mac: {
    usual: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
    others: ['hmac-sha1-etm@openssh.com', 'hmac-sha1'],
  },
};

const keywords = { kex: 'KexAlgorithms', hostKey: 'HostKeyAlgorithms', cipher: 'Ciphers', mac: 'MACs' } as const;

/**
 * The lists for one server. Of its host key those come first for which known_hosts has one: a key of another kind could
 * not be checked.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` where ssh_config leaves nothing that this client can do.
 */
export function chooseAlgorithms(facts: HostFacts, known: readonly string[]): Algorithms {
  const hostKey = pick('hostKey', facts);
  const algorithmsOf = (type: string) => (type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-rsa'] : [type]);
  const first = hostKey.filter((name) => known.some((type) => algorithmsOf(type).includes(name)));
  // An order that somebody has written stays, as ssh has it.
  const isTheirs = facts.hostKeyAlgorithms !== null && !/^[+-]/.test(facts.hostKeyAlgorithms);
  return {
    kex: pick('kex', facts),
    hostKey: isTheirs ? hostKey : [...new Set([...first, ...hostKey])],
    cipher: pick('cipher', facts),
    mac: pick('mac', facts),
  };
}

/** May a key of this type sign for this user, as PubkeyAcceptedAlgorithms has it? */
export function maySign(type: string, { pubkeyAlgorithms }: HostFacts): boolean {
  const { usual, others } = tables.hostKey;
  const names = pubkeyAlgorithms === null ? usual : apply(pubkeyAlgorithms, { usual, others });
  return names.some((name) => name === type || (type === 'ssh-rsa' && name.startsWith('rsa-')));
}

function listOf(kind: keyof Algorithms, facts: HostFacts): string | null {
  const { kexAlgorithms, hostKeyAlgorithms, ciphers, macs } = facts;
  return { kex: kexAlgorithms, hostKey: hostKeyAlgorithms, cipher: ciphers, mac: macs }[kind];
}

function pick(kind: keyof Algorithms, facts: HostFacts): string[] {
  const table = tables[kind];
  const list = listOf(kind, facts);
  const picked = list === null ? table.usual : apply(list, table);
  if (picked.length > 0) return [...picked];
  const all = [...table.usual, ...table.others].join(', ');
  const message = `Cannot use ${keywords[kind]} ${list}: the embedded engine has ${all}`;
  throw new TunwardError('ERR_SPAWN_FAILED', message, { reason: 'bad_spec' });
}

/** A list as ssh_config has it: instead of the usual one, or with `+` behind it, `^` before it, `-` out of it. */
function apply(list: string, { usual, others }: Table): string[] {
  const sign = /^[-+^]/.exec(list)?.[0];
  const patterns = list.slice(sign === undefined ? 0 : 1).split(',');
  const named = patterns.flatMap((pattern) => [...usual, ...others].filter(matcher(pattern.trim())));
  const picked = {
    '+': [...usual, ...named],
    '^': [...named, ...usual],
    '-': usual.filter((name) => !named.includes(name)),
    '': named,
  }[sign ?? ''];
  return [...new Set(picked)];
}

/** `*` and `?` as ssh_config has them. */
function matcher(pattern: string): (name: string) => boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const whole = new RegExp(`^${source}$`);
  return (name) => whole.test(name);
}

const words = { kex: 'key exchange method', hostKey: 'host key type', cipher: 'cipher', mac: 'MAC' } as const;

/** Of which kind there is nothing that both sides have, and is that the configuration's doing? undefined: of none. */
export function findMismatch(
  facts: HostFacts,
  ours: Algorithms,
  theirs: Offer,
): { readonly sentence: string; readonly isConfigured: boolean } | undefined {
  for (const kind of ['kex', 'hostKey', 'cipher', 'mac'] as const) {
    if (ours[kind].some((name) => theirs[kind].includes(name))) continue;
    // A server of which the cipher does the work of the MAC needs none.
    if (kind === 'mac' && ours.cipher.find((name) => theirs.cipher.includes(name))?.match(/gcm|poly1305/)) continue;
    const list = listOf(kind, facts);
    const offer = theirs[kind].slice(0, 20).join(',');
    const because = list === null ? '' : ` (${keywords[kind]} ${list})`;
    return {
      sentence: `no matching ${words[kind]} found${because}: their offer is ${offer}`,
      isConfigured: list !== null,
    };
  }
  return undefined;
}
