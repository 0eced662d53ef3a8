import type { ProcessInfo } from '../proc/stat.js';
import { formatAge } from '../time.js';
import { printable } from '../wire.js';

/** `pid 812 (ssh -N …)`. */
export function nameOf({ pid, command }: { readonly pid: number; readonly command: string }): string {
  return `pid ${pid} (${shorten(command)})`;
}

/** `pid 812 (ssh -N …) of root, 3m old`. */
export function introduce(process: ProcessInfo): string {
  const age = process.ageS === null ? '' : `, ${formatAge(process.ageS)} old`;
  return `${nameOf(process)} of ${process.user}${age}`;
}

/** The first of them, and how many more there are. */
export function introduceAll([first, ...others]: readonly ProcessInfo[]): string {
  return first ? `${introduce(first)}${others.length > 0 ? `, and ${others.length} more` : ''}` : 'nobody';
}

/** `127.0.0.1:9443`, `[::1]:9443`. */
export function endpoint({ address, port }: { readonly address: string; readonly port: number }): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Without the folder of its program, and cut. */
function shorten(command: string): string {
  const text = printable(command).replace(/^\S*\/(?=[^\s/])/, '');
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
