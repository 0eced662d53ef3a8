import type { PortReport } from '../port/inspect.js';
import type { Listener } from '../port/listeners.js';
import { resolveHosts } from '../port/probe.js';
import { isKeeper, remedyFor } from '../port/respawn.js';
import { holdersOf } from '../port/verdict.js';
import { endpoint } from '../port/words.js';
import { UNKNOWN } from '../proc/backend.js';
import { openProc } from '../proc/read.js';
import { readUserName } from '../proc/stat.js';
import { type Chain, drawChain, drawTunnels } from './chain-view.js';
import { indent, type Line, layTable, styled } from './render.js';
import { formatAge, formatMs, programOf } from './units.js';

/** Who listens where, in their chains, and, apart from them, who is connected. */
export function renderHeld({ listeners, clients, verdict }: PortReport, chain: Chain): Line[] {
  const lines: Line[] = [];
  const shown = listeners.filter(({ holders }) => holders.length > 0);
  if (shown.length > 0) {
    lines.push('', ['listening on ', styled('cyan', [...new Set(shown.map(endpoint))].join(', '))]);
    lines.push(...indent(drawChain(chain)), ...indent(drawTunnels(chain)));
  }
  for (const listener of listeners.filter(({ holders }) => holders.length === 0)) {
    lines.push('', ['listening on ', styled('cyan', endpoint(listener))]);
    lines.push(...indent([`${socketOf(listener)}, in no process that can be seen here`]));
  }
  if (clients.length === 0) return lines;
  const head =
    verdict === 'client_holds' ? 'has it as the near end of a connection' : 'connected, and never touched for that';
  const rows = clients.map(({ pid, state, command }) => [
    `${programOf(command)} ${pid}`,
    state,
    styled('dim', command),
  ]);
  return [...lines, '', head, ...indent(layTable(['PROCESS', 'STATE', 'COMMAND'], rows))];
}

/** Without /proc neither its user nor its inode is known. */
function socketOf({ uid, inode }: Listener): string {
  return uid === UNKNOWN ? 'a socket' : `a socket of ${readUserName(uid)} (uid ${uid}, inode ${inode})`;
}

/** What held the port, what was killed and why, and how its release was proved: or why it was not. */
export function renderFreed(
  report: PortReport,
  { dryRun, chain }: { readonly dryRun: boolean; readonly chain?: Chain | undefined },
): { head: Line; details: Line[] } {
  const { kill, listeners, clients, respawner } = report;
  const facts: Fact[] = [
    ...holdersOf(listeners).map((holder) => ({ label: 'held by', ...holder, why: heldWhere(report, holder) })),
    ...(kill?.killed ?? []).map((process) => ({ label: dryRun ? 'would kill' : 'killed', ...process })),
    ...(kill?.left ?? []).map((process) => ({ label: 'left alone', ...process })),
    ...(kill?.survivors ?? []).map(survivorFact),
    ...(respawner ? [{ label: 'starts it', ...respawner, why: 'again and again' }] : []),
    ...(dryRun ? returners(chain) : []),
    ...clients.map((client) => ({ label: 'not touched', ...client, why: `connected, ${client.state}` })),
  ];
  const named = new Set<number>();
  const rows = facts.map(({ label, pid, command, why }) => {
    const again = named.has(pid);
    named.add(pid);
    // A command line is long, and once is enough.
    return [
      styled('dim', label),
      styled('bold', `${programOf(command)} ${pid}`),
      why,
      styled('dim', again ? '' : command),
    ];
  });
  // The first row of a table is its head: facts need none.
  // A daemon starts its tunnel again, and says where that is ended.
  const tunnels = chain && kill ? drawTunnels(chain) : [];
  return { head: headOf(report, dryRun), details: indent([...layTable(['', '', '', ''], rows).slice(1), ...tunnels]) };
}

export interface Fact {
  readonly label: string;
  readonly pid: number;
  readonly command: string;
  readonly why: string;
}

function heldWhere({ listeners }: PortReport, { pid, user, ageS }: { pid: number; user: string; ageS: number | null }) {
  const own = listeners.filter(({ holders }) => holders.some((holder) => holder.pid === pid));
  return [...new Set(own.map(endpoint)), user, formatAge(ageS)].join(', ');
}

/** Who was never to be signalled has not survived anything. */
export function survivorFact(process: { pid: number; command: string; why: string }): Fact {
  const [, why] = /^protected: (.*)$/.exec(process.why) ?? [];
  return why ? { ...process, label: 'protected', why } : { ...process, label: 'still there' };
}

/** Those who might undo it. */
function returners(chain: Chain | undefined): Fact[] {
  const proc = openProc();
  const above = chain?.processes.filter(({ startsAgain }) => startsAgain === 'maybe') ?? [];
  return above.map((process) => {
    const holder = chain?.processes.find(({ ppid, role }) => role === 'holds' && ppid === process.pid);
    // --respawner spares a service manager: what is of use there is another thing.
    const how = isKeeper(proc, process) ? `: ${remedyFor(proc, process, holder)}` : ' (--respawner)';
    return { ...process, label: 'not killed', why: `may start it again${how}` };
  });
}

function headOf(report: PortReport, dryRun: boolean): Line {
  const { port, free, kill, explanation, tookMs, verdict, listeners } = report;
  const name = styled('bold', port);
  const proof = styled('dim', `, proved by binding ${provedHosts(report).join(', ')}`);
  if (free && !kill?.killed.length) return [styled('green', '✔ '), name, ' was free', proof];
  if (free) return [styled('green', '✔ '), name, ` is free after ${formatMs(tookMs)}`, proof];
  if (!dryRun) return [styled('red', '✖ '), explanation, styled('dim', ` (after ${formatMs(tookMs)})`)];
  const untouched = styled('dim', ' (a dry run: nobody was touched)');
  const hidden = listeners.find(({ hiddenReason }) => hiddenReason);
  if (verdict !== 'listening' || hidden) return [styled('red', '○ '), explanation, untouched];
  const counts = [
    `${kill?.killed.length ?? 0} killed`,
    ...(kill?.left.length ? [`${kill.left.length} left alone`] : []),
  ];
  return [styled('yellow', '○ '), name, ` would be freed: ${counts.join(', ')}`, untouched];
}

/** Without a host the loopback addresses and whatever was listened on: what the library binds. */
function provedHosts({ host, listeners }: PortReport): string[] {
  if (host !== null) return resolveHosts(host);
  return [...new Set([...resolveHosts('localhost'), ...listeners.map(({ address }) => address)])];
}
