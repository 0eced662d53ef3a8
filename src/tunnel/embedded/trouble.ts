import { isErrno } from '../../errors.js';
import { printable } from '../../wire.js';
import type { LinkExit, Reason } from '../engine.js';

/** Why a connection could not be made, or is there no more: what its tunnels end with. */
export class ConnectionError extends Error {
  readonly exit: LinkExit;

  constructor(reason: Reason, lastError: string, more: Pick<LinkExit, 'retryAfterMs'> = {}) {
    const text = printable(lastError);
    super(text);
    this.exit = { code: null, signal: null, reason, lastError: text, ...more };
  }
}

/** A server as a sentence names it, the way ssh does. */
export function nameServer({ host, port }: { readonly host: string; readonly port: number }): string {
  return `${host} port ${port}`;
}

/** What the system says of a connection that could not be made. */
export function explainConnect(
  error: Error,
  server: { readonly host: string; readonly port: number },
): ConnectionError {
  const where = `connect to host ${nameServer(server)}`;
  if ('syscall' in error && error.syscall === 'getaddrinfo') {
    const why = isErrno(error, 'EAI_AGAIN') ? 'temporary failure in name resolution' : 'name or service not known';
    return new ConnectionError('unreachable', `Could not resolve hostname ${server.host}: ${why}`);
  }
  if (isErrno(error, 'ECONNREFUSED')) return new ConnectionError('refused', `${where}: Connection refused`);
  if (isErrno(error, 'ECONNRESET', 'EPIPE')) return new ConnectionError('refused', `${where}: Connection reset`);
  if (isErrno(error, 'ETIMEDOUT')) return new ConnectionError('timeout', `${where}: Connection timed out`);
  const unreachable: Readonly<Record<string, string>> = {
    EHOSTUNREACH: 'No route to host',
    ENETUNREACH: 'Network is unreachable',
    ENETDOWN: 'Network is down',
    EHOSTDOWN: 'Host is down',
    EADDRNOTAVAIL: 'Cannot assign requested address',
    EINVAL: 'Cannot be reached from that address',
  };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const why = unreachable[code];
  return why === undefined
    ? new ConnectionError('exited', `${where}: ${error.message}`)
    : new ConnectionError('unreachable', `${where}: ${why}`);
}
