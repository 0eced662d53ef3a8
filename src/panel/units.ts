import type { Words } from './words.js';

/** `0.4 ms`, `12 ms`, `3.2 s`. */
export function formatMs(ms: number, { units }: Words): string {
  if (ms >= 60_000) return formatSpan(ms / 1000, units);
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} ${units.s}`;
  return `${ms > 0 && ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ${units.ms}`;
}

/** `42 s`, `12 min`, `3 h 5 min`, `4 d 2 h`: the coarser the longer, so that a page full of them stands still. */
export function formatAge(seconds: number | null, { units }: Words): string {
  if (seconds === null || Number.isNaN(seconds)) return '?';
  return formatSpan(Math.max(0, seconds), units);
}

function formatSpan(seconds: number, units: Words['units']): string {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} ${units.s}`;
  if (whole < 3600) return `${Math.floor(whole / 60)} ${units.min}`;
  const [big, unit, small, rest] =
    whole < 86_400
      ? [Math.floor(whole / 3600), units.h, Math.floor(whole / 60) % 60, units.min]
      : [Math.floor(whole / 86_400), units.d, Math.floor(whole / 3600) % 24, units.h];
  return small === 0 ? `${big} ${unit}` : `${big} ${unit} ${small} ${rest}`;
}

/** `74 B`, `812 kB`, `3.2 MB`, `1.5 GB`. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return bytes < 999.5 ? `${Math.round(bytes)} B` : `${Math.round(bytes / 1e3)} kB`;
}

/** `812 kB/s`. */
export function formatRate(bytesPerSecond: number, { units }: Words): string {
  return `${formatBytes(bytesPerSecond)}/${units.s}`;
}

/** `0.0 %`, `3.2 %`, `187 %`: of one core. */
export function formatPercent(percent: number): string {
  return `${percent < 99.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}

/** A moment in the time of this browser: `16:02:11` today, and with its date on another day. `at` and `today` in ms. */
export function formatTime(at: number, today: number): string {
  const [moment, present] = [new Date(at), new Date(today)];
  const two = (value: number) => String(value).padStart(2, '0');
  const time = `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  if (moment.toDateString() === present.toDateString()) return time;
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ${time}`;
}

/** The program of a command line: `/usr/lib/autossh/autossh -M 0 …` is `autossh`, `sshd: root` is `sshd`; `[sh]` has none. */
export function programOf(command: string): string {
  if (command.startsWith('[')) return command;
  const [word = '?'] = command.split(' ');
  return word.slice(word.lastIndexOf('/') + 1).replace(/(?<=.):$/, '') || '?';
}

/** `127.0.0.1:9443`, `[::1]:9443`. */
export function endpoint(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Text of a stranger, in which what is not to be seen, or turns the rest around, is written out: a line feed as `␊`,
 * a right-to-left override as `⟨U+202E⟩`.
 */
export function visible(text: string): string {
  if (/^[ -~]*$/.test(text)) return text;
  return text.replace(hiding, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return '␡';
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, '0')}⟩`;
  });
}

// Controls, what turns text around, what takes no room, other line ends, and halves of pairs.
const hiding = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\p{Cs}]/gu;
