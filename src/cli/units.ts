export { formatAge } from '../time.js';

/** `0.4 ms`, `12 ms`, `3.2 s`. */
export function formatMs(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
}

/** `74 B`, `812 kB`, `3.2 MB`, `1.5 GB`. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return bytes < 999.5 ? `${Math.round(bytes)} B` : `${Math.round(bytes / 1e3)} kB`;
}

/** `0.0 %`, `3.2 %`, `187 %`: of one core. */
export function formatPercent(percent: number): string {
  return `${percent < 99.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}

/** A moment (ISO 8601) in the time of this host: `2026-01-16 11:00:30`. */
export function formatTime(iso: string): string {
  const at = new Date(iso);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** The program of a command line: `/usr/lib/autossh/autossh -M 0 …` is `autossh`, and `sshd: root` is `sshd`. */
export function programOf(command: string): string {
  const [word = '?'] = command.split(' ');
  return word.slice(word.lastIndexOf('/') + 1).replace(/(?<=.):$/, '') || '?';
}
