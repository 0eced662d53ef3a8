import type { LinkExit, Reason } from './engine.js';

/**
 * Why ssh ended, from what it said (OpenSSH 7 to 10, glibc and musl wording). A signal speaks for itself; else the first
 * rule that matches any of the lines decides, so the certain ones come first. Pure.
 *
 * @example
 * classifyExit(['root@db: Permission denied (publickey).'], { code: 255, signal: null }).reason; // 'auth_failed'
 */
export function classifyExit(
  lines: readonly string[],
  { code, signal }: { code: number | null; signal: string | null },
): LinkExit {
  // A connection through the tunnel that failed is the target's trouble, not the tunnel's.
  const said = lines.filter((line, at) => isOfHop(lines, at) || !/^channel \d+: |^connect_to /.test(line));
  const last = said.at(-1) ?? null;
  if (signal !== null) return { code, signal, reason: 'killed', lastError: last };
  for (const [reason, pattern] of rules) {
    const line = said.find((candidate) => pattern.test(candidate));
    if (line === undefined) continue;
    if (reason === 'auth_failed') return explainDenial(said, line, code);
    return { code, signal, reason, lastError: reason === 'host_key_changed' ? nameOffender(said, line) : line };
  }
  return { code, signal, reason: 'exited', lastError: last };
}

/** A jump host that cannot connect onwards says so of its only channel, and then that it was to be the way. */
function isOfHop(lines: readonly string[], at: number): boolean {
  return lines[at + 1] === 'stdio forwarding failed';
}

/**
 * Why a key was of no use ssh says in a line of its own; by itself that is no failure, another key may have served. A
 * passphrase that nobody was asked for (BatchMode) leaves no such line: that cannot be told from a key that is refused.
 */
function explainDenial(said: readonly string[], denied: string, code: number | null): LinkExit {
  const hint = said.find((line) => /^Load key .+: |^Warning: Identity file .+ not accessible/.test(line));
  const reason = hint?.includes('incorrect passphrase') ? 'needs_auth' : 'auth_failed';
  return { code, signal: null, reason, lastError: hint === undefined ? denied : `${hint}; ${denied}` };
}

/** Which line of which known_hosts has the other key. */
function nameOffender(said: readonly string[], changed: string): string {
  const offenders = said.flatMap((line) => /^Offending .*key in .+:\d+$/.exec(line)?.[0] ?? []);
  return [changed.replace(/\.$/, ''), ...offenders].join('; ');
}

const rules: readonly (readonly [Reason, RegExp])[] = [
  ['host_key_changed', /^Host key for .+ has changed/i],
  ['host_key_changed', /REMOTE HOST IDENTIFICATION HAS CHANGED/i],
  ['host_key_unknown', /^Host key verification failed|^No .+ host key is known for/i],
  ['remote_port_busy', /remote port forwarding failed for listen/i],
  // An address that this host does not have, a port that needs a privilege: ssh "cannot listen", and nobody holds it.
  ['exited', /^bind .+: (Cannot assign requested address|Address not available|Permission denied)|^Privileged ports /i],
  ['local_port_busy', /address (already )?in use|cannot listen to port|could not request local forwarding/i],
  ['auth_failed', /: Permission denied \(|Too many authentication failures|No more authentication methods/i],
  // Not the mere warnings, which ssh prints in the same form at every start.
  ['bad_spec', /^\S+ line \d+: (?!Deprecated|Unsupported)|^hostname contains invalid characters/i],
  ['bad_spec', /Can't open user config|terminating, \d+ bad configuration|^Bad (local|remote|dynamic) forwarding/i],
  ['bad_spec', /^Bad owner or permissions on|^percent_(dollar_)?expand: |^invalid environment variable expansion/i],
  ['timeout', /timed out|not responding/i],
  // Only those of a hop are left here, see isOfHop().
  ['unreachable', /^channel \d+: open failed: .*(resol|not known|unreachable|No route to host)/i],
  ['refused', /^channel \d+: open failed: /i],
  ['refused', /^ssh: connect to host .+: Connection refused|^Connection (closed|reset) by |Not allowed at this time/i],
  ['refused', /^(kex|ssh)_exchange_identification: /i],
  ['unreachable', /Could not resolve hostname|Name or service not known|Name does not resolve/i],
  ['unreachable', /No route to host|Network (is )?unreachable|Network is down|Host is (down|unreachable)/i],
  ['killed', /^Killed by signal \d+/],
];
