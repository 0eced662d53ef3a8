import fs from 'node:fs';
import path from 'node:path';
import * as z from 'zod';
import { PID_LIMIT } from '../proc/pid.js';
import { known, type Proc } from '../proc/read.js';
import { isSame, type ProcessRef } from '../proc/stat.js';
import type { ChainRecord, Ledger } from '../tunnel/ledger.js';
import { moveAside, readOwnFile } from './files.js';

export interface LedgerFile extends Ledger {
  /** What was wrong with the file that was there, if it was not taken. */
  readonly replaced: string | undefined;
  /** Resolves when all of it is on disk, or cannot be. */
  close(): Promise<void>;
}

export interface LedgerOptions {
  readonly stateDir: string;
  readonly instance: string;
  readonly proc: Proc;
  /** Called when it cannot be written, and not again until it could. The tunnels go on: the marker is there as well. */
  readonly onFailure: (message: string) => void;
}

const hex32 = z.string().regex(/^[0-9a-f]{32}$/);
const shape = z.strictObject({
  version: z.literal(1),
  /** A pid means something in one boot and one PID namespace only. */
  boot_id: z.string().max(64),
  pid_namespace: z.string().max(64),
  chains: z
    .array(
      z.strictObject({
        tunnel: hex32,
        instance: hex32,
        pid: z.int().min(2).max(PID_LIMIT),
        start_ticks: z.int().min(0),
      }),
    )
    .max(10_000),
});

const MAX_BYTES = 4_194_304;

/**
 * `<state_dir>/ledger.json`: which processes this installation has started and not ended. Replaced as a whole, synced; a
 * chain is written down before it is trusted. What is there at the start and is cut off, forged or a link is moved aside,
 * and what is of another boot or another PID namespace is forgotten: its numbers are strangers' now.
 */
export function openLedger({ stateDir, instance, proc, onFailure }: LedgerOptions): LedgerFile {
  const file = path.join(stateDir, 'ledger.json');
  const here = {
    boot_id: (known(proc.text('sys/kernel/random/boot_id')) ?? '').trim(),
    pid_namespace: known(proc.link('self/ns/pid')) ?? '',
  };
  const { chains: former, replaced } = readLedger(file, here);
  let chains: readonly ChainRecord[] = former;
  let writing: Promise<void> | undefined;
  let isStale = false;
  let isFailing = false;
  return { former, replaced, record, erase, close: async () => writing };

  function record(tunnel: string, { pid, startTicks }: ProcessRef): Promise<void> {
    chains = [...chains, { tunnel, instance, pid, startTicks }];
    return write();
  }

  function erase(gone: readonly ProcessRef[]): void {
    const left = chains.filter((chain) => !gone.some((ref) => isSame(ref, chain)));
    if (left.length === chains.length) return;
    chains = left;
    void write();
  }

  /** Resolves when what is known now is written. One writing at a time, and however many asked meanwhile, one after it. */
  function write(): Promise<void> {
    isStale = true;
    writing ??= writeAll();
    return writing;
  }

  async function writeAll(): Promise<void> {
    while (isStale) {
      isStale = false;
      try {
        await replace(file, toText(chains, here));
        isFailing = false;
      } catch (error) {
        if (!(error instanceof Error && 'syscall' in error)) throw error;
        if (!isFailing) onFailure(`Cannot write ${file}: ${error.message}`);
        isFailing = true;
      }
    }
    // In the turn in which there is nothing more to write: who comes later begins anew.
    writing = undefined;
  }
}

type Here = Pick<z.infer<typeof shape>, 'boot_id' | 'pid_namespace'>;

function toText(chains: readonly ChainRecord[], here: Here): string {
  const rows = chains.map(({ tunnel, instance, pid, startTicks }) => ({
    ...{ tunnel, instance, pid },
    start_ticks: startTicks,
  }));
  return `${JSON.stringify({ version: 1, ...here, chains: rows })}\n`;
}

function readLedger(file: string, here: Here): { chains: readonly ChainRecord[]; replaced: string | undefined } {
  const text = readOwnFile(file, MAX_BYTES);
  const found = text === undefined ? undefined : shape.safeParse(parseJson(text)).data;
  if (!found) {
    const aside = moveAside(file);
    const replaced = aside && `${file} is no ledger in a plain file of this user: kept as ${aside}, and begun anew`;
    return { chains: [], replaced };
  }
  const isHere = found.boot_id === here.boot_id && found.pid_namespace === here.pid_namespace && here.boot_id !== '';
  const rows = isHere ? found.chains : [];
  return { chains: rows.map(({ start_ticks: startTicks, ...row }) => ({ ...row, startTicks })), replaced: undefined };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * Written beside it, synced, renamed over it. Off the event loop: to sync may take as long as the disk likes. Only the
 * daemon that has the lock writes here, so the new file's name can be a fixed one, of which a crash leaves one at most;
 * what is there is taken away first, whatever it is, and neither followed nor written through.
 */
async function replace(file: string, text: string): Promise<void> {
  const fresh = path.join(path.dirname(file), '.ledger.json.new');
  await fs.promises.rm(fresh, { force: true });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;
  const handle = await fs.promises.open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.promises.rename(fresh, file);
}
