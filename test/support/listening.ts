/** Who listens, by the tests' own reading of /proc: an oracle beside the code under test, as in proc.ts. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { codeOf } from './proc.js';

/** The two loopback addresses as the kernel's tables write them. */
const loopback: Readonly<Record<string, readonly [table: string, address: string]>> = {
  '127.0.0.1': ['tcp', '0100007F'],
  '::1': ['tcp6', '00000000000000000000000001000000'],
};

/** The inodes of the sockets that listen on a port of that loopback address. */
export function listeningInodes(host: string, port: number): string[] {
  const [table, address] = loopback[host] ?? [];
  if (table === undefined) throw new RangeError(`Cannot look up ${host}: expected 127.0.0.1 or ::1`);
  const local = `${address}:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = readFileSync(`/proc/net/${table}`, 'utf8').split('\n').slice(1);
  const fields = rows.map((row) => row.trim().split(/\s+/));
  return fields.filter((field) => field[1] === local && field[3] === '0A').map((field) => field[9] ?? '');
}

/** Does one of these processes listen there? */
export function isListenedTo(host: string, port: number, pids: readonly number[]): boolean {
  const inodes = listeningInodes(host, port);
  return inodes.length > 0 && pids.some((pid) => socketsOf(pid).some((inode) => inodes.includes(inode)));
}

function socketsOf(pid: number): string[] {
  return names(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
    } catch (error) {
      if (['ENOENT', 'ESRCH'].includes(codeOf(error))) return [];
      throw error;
    }
  });
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(codeOf(error))) return [];
    throw error;
  }
}
