/** A home with an ssh_config of its own, and what the client in this process reads of it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { type FactsOptions, type HostFacts, readHostFacts } from '#lib/tunnel/embedded/facts.js';
import type { Hop, TunnelSpec } from '#lib/tunnel/spec.js';
import { makeSpec } from './specs.js';

export interface ConfigHome {
  readonly dir: string;
  /** `~/.ssh/config`, whose folder is there. */
  readonly file: string;
  write(lines: string | readonly string[]): void;
  /** What is read of `lines` as the person's own configuration, of the host `web` where nothing else is said. */
  read(lines: string | readonly string[], given?: Given): Promise<HostFacts>;
}

export interface Given {
  readonly spec?: Partial<TunnelSpec>;
  readonly hop?: Hop | null;
  readonly options?: Partial<FactsOptions>;
}

/** One for each test of the suite, so that nothing that is read is a person's. */
export function useConfigHome(): ConfigHome {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-facts-'));
    mkdirSync(dirname(home.file), { mode: 0o700 });
  });
  afterEach(() => rmSync(dir, { recursive: true }));
  const home: ConfigHome = {
    get dir() {
      return dir;
    },
    get file() {
      return join(dir, '.ssh/config');
    },
    write(lines) {
      writeFileSync(home.file, typeof lines === 'string' ? lines : `${lines.join('\n')}\n`, { mode: 0o600 });
    },
    async read(lines, { spec = {}, hop = null, options = {} } = {}) {
      home.write(lines);
      const env = { HOME: dir, ...options.env };
      return readHostFacts(makeSpec({ remoteHost: 'web', ...spec }), hop, { knownHosts: null, ...options, env });
    },
  };
  return home;
}

/** `NAME` as ssh_config has variables. */
export function variable(name: string): string {
  return `$\{${name}}`;
}

/** Why it was refused. */
export async function complaintOf(reading: Promise<unknown>): Promise<string> {
  try {
    await reading;
  } catch (error) {
    if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
    expect(error.info).to.deep.equal({ reason: 'bad_spec' });
    return error.message;
  }
  throw new Error('nothing was wrong with it');
}

/** A test for each of these lines, which are refused with that complaint. */
export function itRefuses(
  home: ConfigHome,
  table: readonly (readonly [what: string, lines: string, complaint: RegExp])[],
): void {
  for (const [what, lines, complaint] of table) {
    it(`refuses ${what}`, async () => {
      expect(await complaintOf(home.read(lines))).to.match(complaint);
    });
  }
}
