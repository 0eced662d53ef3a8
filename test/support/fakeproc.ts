import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openProc, type Proc } from '#lib/proc/read.js';

/** One process as its /proc folder shows it. What is left out has an unremarkable value. */
export interface FakeProcess {
  readonly pid: number;
  readonly ppid?: number;
  readonly pgid?: number;
  readonly sid?: number;
  readonly comm?: string;
  readonly state?: string;
  readonly flags?: number;
  readonly threads?: number;
  readonly startTicks?: number;
  readonly rssPages?: number;
  readonly userTicks?: number;
  readonly systemTicks?: number;
  readonly command?: readonly string[];
  readonly environ?: readonly string[];
  /** The inodes of its sockets. */
  readonly sockets?: readonly number[];
  /** A second thread, with descriptors and an environment of its own: what is left when the first one has ended. */
  readonly thread?: { readonly sockets: readonly number[]; readonly environ: readonly string[] };
}

/** A folder that the readers take for a /proc. */
export interface FakeProc {
  readonly proc: Proc;
  readonly root: string;
  add(...processes: FakeProcess[]): void;
  write(path: string, text: string): void;
  remove(path: string): void;
  [Symbol.dispose](): void;
}

/**
 * Makes one. It has no `self`, so nothing can be killed by it.
 *
 * @example
 * using fake = createFakeProc();
 * fake.add({ pid: 7, ppid: 1, comm: 'x) S 1 (y' });
 */
export function createFakeProc(): FakeProc {
  const root = mkdtempSync(join(tmpdir(), 'tunward-proc-'));
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const add = (shown: FakeProcess): void => {
    const { pid, command = ['fake'], environ = ['PATH=/bin'], sockets = [] } = shown;
    write(`${pid}/stat`, statLine(shown));
    write(`${pid}/cmdline`, command.map((word) => `${word}\0`).join(''));
    write(`${pid}/environ`, environ.map((entry) => `${entry}\0`).join(''));
    // The folder of a leader that has ended is there, and empty.
    if (shown.state === 'Z') mkdirSync(join(root, `${pid}/fd`), { recursive: true });
    else addSockets(`${pid}/fd`, sockets);
    mkdirSync(join(root, `${pid}/task/${pid}/fd`), { recursive: true });
    if (!shown.thread) return;
    addSockets(`${pid}/task/${pid + 1}/fd`, shown.thread.sockets);
    write(`${pid}/task/${pid + 1}/environ`, shown.thread.environ.map((entry) => `${entry}\0`).join(''));
  };
  const addSockets = (folder: string, inodes: readonly number[]): void => {
    mkdirSync(join(root, folder), { recursive: true });
    symlinkSync('/dev/null', join(root, folder, '100000'));
    for (const [fd, inode] of inodes.entries()) symlinkSync(`socket:[${inode}]`, join(root, folder, String(fd)));
  };
  return {
    proc: openProc(root),
    root,
    add: (...processes) => processes.forEach(add),
    write,
    remove: (path) => rmSync(join(root, path), { recursive: true }),
    [Symbol.dispose]: () => rmSync(root, { recursive: true }),
  };
}

/** A line of /proc/<pid>/stat with the 52 fields of proc_pid_stat(5). */
export function statLine(shown: FakeProcess): string {
  const { pid, ppid = 1, pgid = pid, sid = pid, comm = 'fake', state = 'S' } = shown;
  const { flags = 0x400000, threads = 1, startTicks = 100, rssPages = 5 } = shown;
  const { userTicks = 0, systemTicks = 0 } = shown;
  const known = new Map<number, number | string>([
    [3, state],
    [4, ppid],
    [5, pgid],
    [6, sid],
    [9, flags],
    [14, userTicks],
    [15, systemTicks],
    [20, threads],
    [22, startTicks],
    [24, rssPages],
  ]);
  const fields = Array.from({ length: 50 }, (_, at) => known.get(at + 3) ?? 0);
  return `${pid} (${comm}) ${fields.join(' ')}\n`;
}

/** A line of /proc/net/tcp, as the kernel writes it; the addresses are given as the kernel's hexadecimal. */
export function socketLine(row: {
  readonly address: string;
  readonly port: number;
  readonly remoteAddress?: string;
  readonly remotePort?: number;
  readonly state?: string;
  readonly uid?: number;
  readonly inode?: number;
}): string {
  const { address, port, remoteAddress = address.replace(/./g, '0'), remotePort = 0 } = row;
  const { state = '0A', uid = 0, inode = 1 } = row;
  const hex = (number: number): string => number.toString(16).toUpperCase().padStart(4, '0');
  const ends = `${address}:${hex(port)} ${remoteAddress}:${hex(remotePort)}`;
  return `   0: ${ends} ${state} 00000000:00000000 00:00000000 00000000 ${String(uid).padStart(5)}        0 ${inode} 1 0000 100 0 0 10 0\n`;
}
