import type { Road } from './operation.js';
import type { LastRestart, TunnelStatus } from './status.js';

/** How often a tunnel came up, and how the last time. */
export interface History {
  /** It is up no longer, by itself or because somebody asked. */
  noteLost(reason: LastRestart['reason']): void;
  /** It is up, at that moment (milliseconds since the epoch), by that road. */
  noteUp(at: number, road: Road): void;
  read(): Pick<TunnelStatus, 'restarts' | 'lastRestart'>;
}

export function createHistory(): History {
  let timesUp = 0;
  let lostBy: LastRestart['reason'] = null;
  let lastRestart: LastRestart | null = null;
  return {
    noteLost: (reason) => {
      lostBy = reason;
    },
    noteUp(at, road) {
      timesUp++;
      const { tookMs, phases } = road.report('up');
      const reason = road.asked ? null : lostBy;
      lastRestart = { at: new Date(at).toISOString(), asked: road.asked, reason, tookMs, phases };
    },
    read: () => ({ restarts: Math.max(0, timesUp - 1), lastRestart }),
  };
}
