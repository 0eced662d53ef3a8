import { DAEMON_REMEDY, WHY_DAEMON } from '../port/verdict.js';
import type { Reason } from './engine.js';
import type { TunnelSpec } from './spec.js';

/**
 * What somebody can do about it, in one sentence; null where nothing but waiting helps, or the error says it all.
 *
 * @example
 * remedyOf('local_port_busy', { spec, lastError: null });
 * // "see who holds it with 'tunward who 9443'; --force or 'takeover: any' takes the port from anyone"
 */
export function remedyOf(
  reason: Reason | null,
  { spec, lastError }: { readonly spec: TunnelSpec; readonly lastError: string | null },
): string | null {
  const { remoteHost, forward } = spec;
  switch (reason) {
    case 'auth_failed':
      if (spec.interactive) return `try again: 'tunward auth ${whichOf(spec)}', or the panel`;
      return `check that ${remoteHost} is the right user and that this key may log in: its public half belongs into ~/.ssh/authorized_keys there ('ssh-copy-id ${remoteHost}')`;
    case 'needs_auth':
      return spec.interactive
        ? `it waits for a person: 'tunward auth ${whichOf(spec)}', or the panel`
        : `'ssh-add' the key to an agent whose SSH_AUTH_SOCK the daemon has, use one without a passphrase, or set 'interactive: true' and log in by 'tunward auth ${whichOf(spec)}'`;
    case 'host_key_changed':
      if (lastError?.includes(' is marked as revoked'))
        return `somebody has marked this key as revoked${placeOf(lastError)}: the server needs another one`;
      return `if the server was really set up anew, ${forgetKey(lastError)}, then ${spec.interactive ? `'tunward auth ${whichOf(spec)}'` : 'start the tunnel'}`;
    case 'host_key_unknown':
      // Of too few bits: that is no question of being known.
      if (lastError?.endsWith(' are the least')) return null;
      // ssh has asked, and was not told yes.
      if (spec.interactive && !lastError?.startsWith('No '))
        return `answer yes once the fingerprint is known to be the right one: 'tunward auth ${whichOf(spec)}', or the panel`;
      return `no known_hosts file has the server's key: connect once by hand ('ssh ${remoteHost}') and check its fingerprint, or write down there what its /etc/ssh/ssh_host_*_key.pub says`;
    case 'local_port_busy':
      if (lastError?.endsWith(WHY_DAEMON)) return DAEMON_REMEDY;
      return `see who holds it with 'tunward who ${forward.listen.port}'; ${spec.interactive ? '' : '--force or '}'takeover: any' takes the port from anyone`;
    case 'remote_port_busy':
      // The protocol has one answer for both (RFC 4254, 7.1). A port that the server chooses is nobody else's.
      if (forward.listen.port === 0)
        return `the server lets this login listen on no port: AllowTcpForwarding and PermitListen in its sshd_config say what it allows`;
      return 'the server still has the port, often for a connection that broke, and lets go when it notices: ClientAliveInterval 15 in its sshd_config makes that a minute. One that never does may not allow it (AllowTcpForwarding, PermitListen)';
    case 'refused':
      return lastError?.includes('Not allowed at this time')
        ? 'the server turns this address away for a while after failed logins (PerSourcePenalties)'
        : null;
    case 'target_refused':
      if (lastError?.includes('administratively prohibited'))
        return `the server does not allow this login to connect there: AllowTcpForwarding and PermitOpen in its sshd_config say what it allows`;
      return `the tunnel is up; see why nothing answers at ${forward.target.host}:${forward.target.port}${forward.side === 'local' ? ' on the far side' : ''}`;
    case 'frozen':
      if (spec.interactive)
        return `continue the chain (kill -CONT) if it is still there, else 'tunward auth ${whichOf(spec)}'`;
      return 'continue the chain (kill -CONT), or restart the tunnel';
    default:
      return null;
  }
}

/** A tunnel as a command takes it: by its name where that is one plain word, else by the head of its id. */
export function whichOf({ id, name }: Pick<TunnelSpec, 'id' | 'name'>): string {
  return name !== 'unnamed' && /^\w[\w.@:+-]*$/.test(name) ? name : id.slice(0, 8);
}

/** ssh names the host as known_hosts does, and the line that contradicts. Where there is no ssh-keygen, an editor will do. */
function forgetKey(lastError: string | null): string {
  const host = /Host key for (\S+) has changed/.exec(lastError ?? '')?.[1];
  const file = offenderOf(lastError)?.file;
  if (host === undefined || file === undefined) return 'remove its old key from known_hosts';
  return `remove its old key${placeOf(lastError)} (ssh-keygen -f ${quote(file)} -R ${quote(host)})`;
}

function placeOf(lastError: string | null): string {
  const found = offenderOf(lastError);
  return found ? `, line ${found.line} of ${found.file}` : '';
}

function offenderOf(lastError: string | null): { readonly file: string; readonly line: string } | undefined {
  const [, file, line] = /Offending .*key in (.+):(\d+)$/.exec(lastError ?? '') ?? [];
  return file === undefined || line === undefined ? undefined : { file, line };
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
