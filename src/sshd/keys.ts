import type { Ssh2 } from '../tunnel/embedded/ssh2.js';

/** A key pair in OpenSSH's format; the public half is one line, `ssh-ed25519 AAAA… comment`. */
export interface KeyPair {
  readonly private: string;
  readonly public: string;
}

/**
 * A throwaway pair. ssh2 1.17 strips a leading zero byte of the public key, so one pair in 256 can be read by nobody
 * (mscdex/ssh2#1513): that one is made again.
 */
export function makeKeys({ utils }: Pick<Ssh2, 'utils'>, comment: string): KeyPair {
  const isWhole = (key: string) => !(utils.parseKey(key) instanceof Error);
  for (let tries = 1; tries <= 20; tries++) {
    const pair = utils.generateKeyPairSync('ed25519', { comment });
    if (isWhole(pair.private) && isWhole(pair.public)) return pair;
  }
  throw new Error('ssh2 made no key that it can read, in 20 attempts');
}
