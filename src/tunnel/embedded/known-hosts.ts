/** A server's key as it comes over the wire: its algorithm (`ssh-ed25519`) and the blob of RFC 4253, section 6.6. */
export interface HostKey {
  readonly type: string;
  readonly blob: Buffer;
}

/** What known_hosts files say of a key. `file` and `line` (from 1) name the entry that contradicts. */
export type HostKeyVerdict =
  | { readonly kind: 'known' | 'unknown' }
  | { readonly kind: 'changed' | 'revoked'; readonly file: string; readonly line: number };

export interface KnownHosts {
  /** `host` as known_hosts has it: lower case, the alias where there is one; `port` 22 is left out there. */
  check(host: string, port: number, key: HostKey): HostKeyVerdict;
  /** The algorithms for which there is a key of this host, so that the server is asked for one that can be checked. */
  typesOf(host: string, port: number): string[];
}

/** Reads known_hosts files as sshd(8) describes them; what cannot be read or understood is passed over, as ssh does. */
export function readKnownHosts(_files: readonly string[]): KnownHosts {
  throw new Error('not yet');
}

/** Writes a key down, met for the first time. @throws TunwardError ERR_ACCESS_DENIED. */
export function addKnownHost(_file: string, _host: string, _port: number, _key: HostKey): void {
  throw new Error('not yet');
}

/** `SHA256:…` as ssh shows it. */
export function fingerprintOf(_key: HostKey): string {
  throw new Error('not yet');
}
