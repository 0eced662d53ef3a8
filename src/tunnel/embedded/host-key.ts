import type { HostFacts } from './facts.js';
import { addKnownHost, fingerprintOf, type HostKey, type KnownHosts, readKnownHosts } from './known-hosts.js';
import type { Questions } from './questions.js';
import { ConnectionError } from './trouble.js';

export interface HostKeyOptions {
  readonly facts: HostFacts;
  readonly known: KnownHosts;
  readonly questions: Questions | undefined;
}

/** What a key is looked up by: an alias stands for host and port. */
export function knownNameOf({ host, port, hostKeyAlias }: HostFacts): { readonly host: string; readonly port: number } {
  return hostKeyAlias === null ? { host: host.toLowerCase(), port } : { host: hostKeyAlias.toLowerCase(), port: 22 };
}

/** The bits of an RSA key (RFC 4253, section 6.6: a type, an exponent, a modulus); undefined for any other. */
export function bitsOfRsa(blob: Buffer): number | undefined {
  let field: Buffer = Buffer.alloc(0);
  for (let at = 0, number = 0; number < 3; number++) {
    if (blob.length < at + 4) return undefined;
    const end = at + 4 + blob.readUInt32BE(at);
    field = blob.subarray(at + 4, end);
    if (number === 0 && field.toString('latin1') !== 'ssh-rsa') return undefined;
    at = end;
  }
  const first = field.findIndex((byte) => byte !== 0);
  return first === -1 ? 0 : (field.length - first) * 8 - Math.clz32(field[first] ?? 0) + 24;
}

/** A key as it comes over the wire. */
export function readHostKey(blob: Buffer): HostKey {
  const length = blob.length < 4 ? 0 : blob.readUInt32BE(0);
  return { type: blob.toString('latin1', 4, 4 + length), blob };
}

/**
 * Is this the server that is meant? Resolves, when it is, to what is to be done once the server has shown that the key is
 * its own: a key that is met for the first time is written down then and not before. That throws `host_key_changed` where
 * another one has been written down since, by a connection that met the host at the same time.
 *
 * @throws ConnectionError `host_key_changed`, `host_key_unknown`.
 */
export async function checkHostKey(key: HostKey, options: HostKeyOptions): Promise<() => void> {
  const { facts, known } = options;
  const { host, port } = knownNameOf(facts);
  const name = port === 22 ? host : `[${host}]:${port}`;
  const kind = kindOf(key.type);
  const bits = bitsOfRsa(key.blob);
  if (bits !== undefined && bits < facts.leastRsaBits) {
    const sentence = `Host key verification failed: the RSA key of ${name} has ${bits} bits, and ${facts.leastRsaBits} are the least`;
    throw new ConnectionError('host_key_unknown', sentence);
  }
  if (isKnown(known)) return () => undefined;
  if (facts.strictHostKeyChecking === 'yes') {
    const sentence = `No ${kind} host key is known for ${name} and you have requested strict checking.`;
    throw new ConnectionError('host_key_unknown', sentence);
  }
  if (facts.strictHostKeyChecking === 'ask' && options.questions) await askAbout(key, name, options.questions);
  return () => {
    const { newKeysFile, knownHostsFiles, hashKnownHosts: isHashed } = facts;
    if (newKeysFile === null || isKnown(readKnownHosts(knownHostsFiles))) return;
    addKnownHost(newKeysFile, host, port, key, { isHashed });
  };

  function isKnown(hosts: KnownHosts): boolean {
    const verdict = hosts.check(host, port, key);
    if (verdict.kind === 'changed' || verdict.kind === 'revoked') {
      const what = verdict.kind === 'revoked' ? 'is marked as revoked' : 'has changed';
      const where = `Offending ${kind} key in ${verdict.file}:${verdict.line}`;
      throw new ConnectionError('host_key_changed', `Host key for ${name} ${what}; ${where}`);
    }
    return verdict.kind === 'known';
  }
}

/** So often is somebody asked who says neither yes nor no: a function may never say anything else. */
const MOST_QUESTIONS = 10;

async function askAbout(key: HostKey, name: string, questions: Questions): Promise<void> {
  const fingerprint = fingerprintOf(key);
  let text = `The authenticity of host '${name}' can't be established.
${kindOf(key.type)} key fingerprint is ${fingerprint}.
This key is not known by any other names.
Are you sure you want to continue connecting (yes/no/[fingerprint])? `;
  for (let question = 0; question < MOST_QUESTIONS; question++) {
    const answer = (await questions.ask(text))?.toString().trim();
    if (answer === undefined || answer.toLowerCase() === 'no') break;
    if (answer.toLowerCase() === 'yes' || answer === fingerprint) return;
    text = `Please type 'yes', 'no' or the fingerprint: `;
  }
  throw new ConnectionError('host_key_unknown', 'Host key verification failed.');
}

/** `ED25519`, as ssh calls it. */
function kindOf(type: string): string {
  return /^(?:ssh-|)(ed25519|rsa|dss|ecdsa)/.exec(type)?.[1]?.toUpperCase() ?? type;
}
