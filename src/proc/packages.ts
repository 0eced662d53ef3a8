import { createHook } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { EventEmitter, once } from 'node:events';
import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import type { Usage } from './backend.js';

/*
 * The four packages of the portable back end, each asked in the one way in which it does no harm, and loaded when it is
 * asked. `act` says what cannot be done when one of them fails: 'read the tree of pid 812'.
 */

/** A row of ps-tree. */
export interface PsRow {
  readonly pid: number;
  readonly ppid: number;
  readonly state: string;
  readonly command: string;
}

/**
 * What ps-tree finds below a pid, with the `ps` that it ran, which has ended by then. Only the children of the pid
 * itself are certain to be there: ps-tree goes through the list once, in the order of `ps`, and loses whoever stands
 * before its parent.
 */
export async function askPsTree(act: string, pid: number): Promise<PsRow[]> {
  const { default: psTree } = await load(act, 'ps-tree', () => import('ps-tree'));
  const what = `Cannot ${act}: ps-tree could not run ps`;
  const ask = () =>
    new Promise<PsRow[]>((resolve, reject) => {
      psTree(pid, (error, rows) => (error ? reject(error) : resolve(rows.map(toRow))));
    });
  const { answer, code } = await runGuarded(what, ask);
  // A `ps` that does not know the options has printed nothing, which is not "nobody".
  if (code !== 0) throw unavailable(what, new Error(`ps ended with ${code}`));
  return answer;
}

function toRow({ PID, PPID, STAT, COMMAND }: Readonly<Record<'PID' | 'PPID' | 'STAT' | 'COMMAND', string>>): PsRow {
  return { pid: Number(PID), ppid: Number(PPID), state: STAT.charAt(0), command: COMMAND };
}

/**
 * Asks a package that starts one program in the same tick, and waits for both. Nobody listens to the errors of that
 * child (ps-tree never, pidusage not when no descriptor is left), so that a missing program, or a machine that can
 * start no more of them, would end this process. Node tells of a child before it can fail.
 */
async function runGuarded<T>(what: string, ask: () => Promise<T>): Promise<{ answer: T; code: unknown }> {
  let child: EventEmitter | undefined;
  const note = (message: unknown) => {
    if (typeof message !== 'object' || message === null || !('process' in message)) return;
    if (message.process instanceof EventEmitter) child = message.process;
  };
  subscribe('child_process', note);
  let answer: Promise<T>;
  try {
    answer = ask();
  } finally {
    unsubscribe('child_process', note);
  }
  answer.catch(() => undefined); // told below, after what the child has to tell
  // In the same tick still. It rejects with the 'error' of a child that could not be started.
  const exit = child ? once(child, 'exit') : Promise.resolve([]);
  const [code] = await exit.catch((error: unknown) => {
    throw unavailable(what, error);
  });
  return { answer: await answer, code };
}

/**
 * The usage of those of the pids that there are. By `ps` (PowerShell on Windows) and without a history: as it works by
 * itself on Linux, pidusage keeps each pid's descriptor for 60 s, so that it calls a reused number dead, and prints stack
 * traces where there is no getconf.
 */
export async function askPidusage(act: string, pids: readonly number[]): Promise<Usage[]> {
  const { default: pidusage } = await load(act, 'pidusage', () => import('pidusage'));
  const what = `Cannot ${act}: pidusage could not ask the system`;
  try {
    // It turns the array that it is handed into its own.
    const { answer } = await runGuarded(what, () => pidusage([...pids], { usePs: true, maxage: 0 }));
    return Object.values(answer).filter((usage) => usage !== undefined);
  } catch (error) {
    // "No matching pid found" has this code.
    if (isErrno(error, 'ENOENT')) return [];
    throw isTunwardError(error) ? error : unavailable(what, error);
  }
}

/** A process that find-process names. */
export interface FoundProcess {
  readonly pid: number;
  readonly uid?: number;
  readonly cmd: string;
}

/**
 * Who holds a port, as find-process says; undefined is "unknown", and never "nobody": it answers the same when the
 * programs are missing that it runs. It names one of several, on whatever address, and rather the holder of the UDP port.
 */
export async function askFindProcess(act: string, port: number): Promise<FoundProcess | undefined> {
  const { default: find } = await load(act, 'find-process', () => import('find-process'));
  // At its usual level it writes what netstat says on stderr to the console.
  const [first] = await find('port', port, { logLevel: 'error' });
  return first;
}

/** One connection to an address of this host is made or refused at once; who does neither has a full queue. */
const HUNG_MS = 500;

/** Does somebody accept connections there, or let them wait? Ask it of this host's own addresses only. */
export async function askTcpPortUsed(act: string, { host, port }: { host: string; port: number }): Promise<boolean> {
  const { default: tcpPortUsed } = await load(act, 'tcp-port-used', () => import('tcp-port-used'));
  const over = new AbortController();
  const { answer, close } = watchSocket(() => tcpPortUsed.check(port, host));
  const hung = systemClock.sleep(HUNG_MS, over.signal).then(() => true);
  try {
    return await Promise.race([answer, hung]);
  } catch (error) {
    if (isErrno(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL', 'ENETUNREACH', 'EHOSTUNREACH')) return false;
    throw error;
  } finally {
    hung.catch(() => undefined); // called off: the answer came in time
    over.abort();
    close();
  }
}

/**
 * `check` has no deadline, and nothing to end it by: its socket would keep this process alive for as long as the kernel
 * goes on trying (127 s). The handle below the socket is seen when it is made, and closed.
 */
function watchSocket<T>(check: () => Promise<T>): { readonly answer: Promise<T>; readonly close: () => void } {
  const handles: object[] = [];
  const init = (_id: number, type: string, _trigger: number, handle: object) => {
    if (type === 'TCPWRAP') handles.push(handle);
  };
  const hook = createHook({ init }).enable();
  try {
    const answer = check();
    answer.catch(() => undefined); // given up: nobody waits for it any more
    const close = (handle: object) => {
      if ('close' in handle && typeof handle.close === 'function') handle.close();
    };
    return { answer, close: () => handles.forEach(close) };
  } finally {
    hook.disable();
  }
}

async function load<T>(act: string, name: string, loaded: () => Promise<T>): Promise<T> {
  try {
    return await loaded();
  } catch (error) {
    if (!isErrno(error, 'ERR_MODULE_NOT_FOUND')) throw error;
    throw unavailable(`Cannot ${act}: the package ${name} is not found (npm i ${name})`, undefined, error);
  }
}

function unavailable(what: string, why: unknown, cause: unknown = why): TunwardError {
  const reason = why instanceof Error ? ` (${why.message.replace(/^Error: /, '')})` : '';
  return new TunwardError('ERR_BACKEND_UNAVAILABLE', `${what}${reason}`, { backend: 'portable' }, { cause });
}
