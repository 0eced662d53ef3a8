import type { Hop, TunnelSpec } from '../spec.js';

/** Where a destination is, and how it is logged in to: what `ssh -G` would say, for a client that is no ssh. */
export interface HostFacts {
  readonly user: string;
  /** HostName, or the host as written. */
  readonly host: string;
  readonly port: number;
  /** The name by which known_hosts is asked, where that is another one. */
  readonly hostKeyAlias: string | null;
  readonly strictHostKeyChecking: 'yes' | 'ask' | 'accept-new' | 'no';
  /** Absolute paths: the person's own, then those of the system. Files that need not be there. */
  readonly knownHostsFiles: readonly string[];
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
  readonly compression: boolean;
  readonly connectTimeoutMs: number;
  /** 0: nothing is sent. */
  readonly aliveIntervalMs: number;
  readonly aliveCountMax: number;
  /** 4, 6, or 0 for whichever there is. */
  readonly family: 0 | 4 | 6;
  readonly bindAddress: string | null;
  /** The hosts to go through, the first one first. */
  readonly jump: readonly Hop[];
}

export interface FactsOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
}

/**
 * What ssh_config (the spec's, or `~/.ssh/config`) and the spec's own options say of its destination, or of one of the hosts
 * on the way to it, which has no options of the spec but those of `jump.ts`. Runs nothing, asks nobody, and reads the file anew.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` with one sentence for what this client cannot do and the
 * file asks for (certificates, security keys, ProxyCommand, GSSAPI, `Match exec` …), or what cannot be read.
 */
export function readHostFacts(_spec: TunnelSpec, _hop: Hop | null, _options: FactsOptions): HostFacts {
  throw new Error('not yet');
}
