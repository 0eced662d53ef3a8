import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { toProblem } from '../../wire.js';
import { type Route, route } from './route.js';
import { count, idParams } from './shapes.js';
import { openSocketTerminal, type SocketTerminal } from './socket-terminal.js';

export interface TerminalRouteContext {
  readonly supervisor: Supervisor;
  readonly clock: Clock;
}

/** The terminal of a tunnel that asks, for whoever opens a WebSocket to it: docs/terminal.md has the messages. */
export function terminalRoutes({ supervisor, clock }: TerminalRouteContext): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/tunnels/{id}/terminal',
      scope: 'act',
      about:
        'A WebSocket to the terminal of a tunnel that asks (docs/terminal.md): starts it, and whoever opens this answers',
      params: idParams,
      query: z.strictObject({
        columns: count(1, 1000).optional().describe('How wide the window is; default 80'),
        rows: count(1, 1000).optional().describe('How high it is; default 24'),
      }),
      answers: { 101: { about: 'By the protocol tunward.terminal.v1, which must be offered' } },
      errors: ['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_AMBIGUOUS', 'ERR_TUNNEL_CONFLICT', 'ERR_UPGRADE_REQUIRED'],
      async handle({ params: { id } }) {
        refuse(id);
        const message = 'Expected a WebSocket to be opened here: Connection: Upgrade, Upgrade: websocket';
        throw new TunwardError('ERR_UPGRADE_REQUIRED', message, {});
      },
      upgrade: {
        protocol: 'tunward.terminal.v1',
        async open({ params: { id }, query: { columns = 80, rows = 24 } }, accept) {
          // In one turn, to the claim that authenticate() makes: of several who ask at once one is let in.
          refuse(id);
          const socket = accept();
          if (socket) void authenticate(id, openSocketTerminal(socket, { columns, rows }, clock));
        },
      },
    }),
  ];

  function refuse(id: string): void {
    const conflict = supervisor.whyNotAuthenticate(id);
    if (conflict) throw conflict;
  }

  /** Never rejects: whatever becomes of it is told to whoever sits there. */
  async function authenticate(id: string, { terminal, gone, tell, end }: SocketTerminal): Promise<void> {
    const onOpen = (via: 'pty' | 'askpass') => tell({ type: 'open', via });
    try {
      const { tunnel } = await supervisor.authenticate(id, { terminal }, { signal: gone, onOpen });
      await end({ type: 'end', outcome: 'up', tunnel });
    } catch (error) {
      await end({ type: 'end', outcome: 'failed', problem: toProblem(error).body });
    }
  }
}
