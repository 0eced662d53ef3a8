import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Config, parseConfig } from '#lib/daemon/config.js';
import type { Check, Surroundings } from '#lib/daemon/doctor/check.js';
import { createFakeProc, type FakeProc } from '../../support/fakeproc.js';

/** What a doctor looks at, made up: a folder, a /proc in which this process is, a configuration. */
export interface Patient {
  readonly dir: string;
  readonly fake: FakeProc;
  /** Writes a file of the folder with a mode; answers its path. */
  write(name: string, text?: string, mode?: number): string;
  /** The configuration with these keys, its folders below `dir`. */
  config(keys?: Readonly<Record<string, unknown>>): Config;
  /** All of it, with what a case changes. */
  around(changes?: Partial<Surroundings>): Surroundings;
  remove(): void;
}

export function makePatient(): Patient {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-doctor-'));
  const fake = createFakeProc();
  fake.add({ pid: process.pid, ppid: 1, comm: 'node' }, { pid: 1, comm: 'tini', command: ['tini', '--', 'node'] });
  const uid = process.getuid?.() ?? -1;
  const write = (name: string, text = '', mode = 0o600): string => {
    const file = join(dir, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    chmodSync(file, mode);
    return file;
  };
  const config = (keys: Readonly<Record<string, unknown>> = {}): Config => {
    const folders = { state_dir: join(dir, 'state'), log_dir: join(dir, 'log'), api: { socket: join(dir, 'run/s') } };
    const text = JSON.stringify({ ...folders, ...keys });
    return parseConfig(text, { file: write('tunward.yaml', text), env: { HOME: dir }, uid, hasIpv6Loopback: true });
  };
  return {
    dir,
    fake,
    write,
    config,
    around: (changes = {}) => {
      const env = { PATH: process.env.PATH, HOME: process.env.HOME };
      return { proc: fake.proc, env, uid, config: null, daemon: null, ...changes };
    },
    remove: () => {
      fake[Symbol.dispose]();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** The tunnel of a configuration that listens here. */
export function tunnel(port: number, keys: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return { remote_host: 'doctor.invalid', remote_port: '80', local_port: `127.0.0.1:${port}`, ...keys };
}

/** `warning keys: …`, a line for each. */
export function say(checks: Check | readonly Check[]): string[] {
  return [checks].flat().map(({ check, status, finding }) => `${status} ${check}: ${finding}`);
}
