/** Throwaway keys of ssh, and what ssh knows a host by. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { which } from './paths.js';

/** Makes a pair, `file` and `file.pub`; one that is there stays. With a passphrase ssh asks for that before it uses it. */
export function makeKey(file: string, passphrase = ''): void {
  if (existsSync(file)) return;
  rmSync(`${file}.pub`, { force: true });
  const kind = ['-q', '-t', 'ed25519', '-C', 'tunward-test'];
  execFileSync(which('ssh-keygen') ?? 'ssh-keygen', [...kind, '-N', passphrase, '-f', file]);
}

/** As ssh shows it when it asks about a host: `SHA256:` and 43 characters. */
export function fingerprintOf(keyFile: string): string {
  const blob = Buffer.from(publicKeyOf(keyFile).key, 'base64');
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}

/** The line of known_hosts by which ssh knows 127.0.0.1 at that port. */
export function knownHostLine(port: number, keyFile: string): string {
  const { type, key } = publicKeyOf(keyFile);
  return `[127.0.0.1]:${port} ${type} ${key}\n`;
}

function publicKeyOf(keyFile: string): { type: string; key: string } {
  const [type = '', key = ''] = readFileSync(`${keyFile}.pub`, 'utf8').split(' ');
  return { type, key };
}
