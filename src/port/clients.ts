import net from 'node:net';
import os from 'node:os';
import { scanHolders } from '../proc/fd.js';
import { readSockets, type Socket } from '../proc/net.js';
import type { Proc } from '../proc/read.js';
import { describeProcess, type ProcessInfo } from '../proc/stat.js';
import { createSlice } from '../time.js';
import { type Listener, v4Of } from './listeners.js';

/** A process at the other end of the port's connections, or one that uses the port as its own end. Never killed for that. */
export interface PortClient {
  readonly pid: number;
  readonly command: string;
  readonly state: string;
}

/**
 * Who is connected to these listeners: the far ends of their connections, as far as they are on this host. Not who holds
 * one of them: it is killed with it.
 */
export async function clientsOf(
  proc: Proc,
  listeners: readonly Listener[],
  signal: AbortSignal | undefined,
): Promise<PortClient[]> {
  const port = listeners[0]?.port;
  if (port === undefined) return [];
  const own = Object.values(os.networkInterfaces()).flatMap((list) => list?.map(({ address }) => address) ?? []);
  const rows = (await readSockets(proc, port, createSlice(signal))).filter(
    (row) => row.remotePort === port && row.inode !== 0 && reaches(listeners, own, row.remoteAddress),
  );
  const holders = new Set(listeners.flatMap((listener) => listener.holders.map(({ pid }) => pid)));
  const clients = (await ownersOf(proc, rows, signal)).map(({ client }) => client);
  return clients.filter(({ pid }) => !holders.has(pid));
}

/** A listener on all addresses is reached by those of this host alone: elsewhere the same port is another's. */
function reaches(listeners: readonly Listener[], own: readonly string[], to: string): boolean {
  const address = v4Of(to) ?? to;
  const isLocal = own.includes(address) || address.startsWith('127.');
  return listeners.some((listener) => {
    const at = v4Of(listener.address) ?? listener.address;
    return at === address || (isLocal && (at === '::' || (at === '0.0.0.0' && net.isIPv4(address))));
  });
}

/** The processes that have these connections open, each once. */
export async function ownersOf(
  proc: Proc,
  rows: readonly Socket[],
  signal: AbortSignal | undefined,
): Promise<{ readonly client: PortClient; readonly info: ProcessInfo }[]> {
  if (rows.length === 0) return [];
  const states = new Map(rows.map(({ inode, state }) => [inode, state]));
  const owners: { readonly client: PortClient; readonly info: ProcessInfo }[] = [];
  for await (const { inodes, stat } of scanHolders(proc, new Set(states.keys()), { slice: createSlice(signal) })) {
    const info = describeProcess(proc, stat);
    const state = states.get(inodes[0] ?? 0) ?? 'ESTABLISHED';
    owners.push({ client: { pid: stat.pid, command: info.command, state }, info });
  }
  return owners;
}
