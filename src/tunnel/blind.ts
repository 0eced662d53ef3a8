import { isErrno } from '../errors.js';
import type { Proc } from '../proc/read.js';
import type { Clock } from '../time.js';
import { createChainReader, describeKnown, describeTunnel, type StatusParts, type TunnelStatus } from './status.js';

/** The numbers of ENFILE and EMFILE. */
const noDescriptors: readonly number[] = [23, 24];

/**
 * There was no descriptor left to look with, in this process or on this host. It passes, and says nothing of what was to
 * be looked at: a tunnel that carries bytes is none the worse for it.
 */
export function isBlindness(error: unknown): boolean {
  if (isErrno(error, 'EMFILE', 'ENFILE')) return true;
  // os.networkInterfaces() has a number for it and no name.
  return isErrno(error, 'ERR_SYSTEM_ERROR') && noDescriptors.includes(Math.abs(error.errno ?? 0));
}

/**
 * Describes one tunnel again and again. Where nothing can be looked at, as far as it is known without: it is told also by
 * those who have just found that out, and a throw would be the end of the program.
 */
export function createDescriber(
  proc: Proc,
  { clock, look = describeTunnel }: { readonly clock: Clock; readonly look?: typeof describeTunnel },
): (parts: Omit<StatusParts, 'chain'>) => TunnelStatus {
  const chain = createChainReader(proc, clock);
  /** What it listens on depends on the host, which was asked then. */
  let listen: TunnelStatus['listen'] | undefined;
  return ({ root, ...known }) => {
    try {
      const status = look({ ...known, root, chain });
      listen = status.listen;
      return status;
    } catch (error) {
      if (!isBlindness(error)) throw error;
      const status = describeKnown(known, true);
      return listen === undefined ? status : { ...status, listen };
    }
  };
}
