import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import { cookieName, refuseIfTooMany, sessionOf } from './guard.js';
import { type Route, route } from './route.js';
import { session } from './shapes.js';
import { type Failures, SESSION_MS, type Sessions, type Tokens } from './tokens.js';

export interface SessionContext {
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly failures: Failures;
  readonly version: string;
  readonly clock: Clock;
}

/** A browser gives the token once, and holds a cookie that no script can read instead. */
export function sessionRoutes({ tokens, sessions, failures, version }: SessionContext): Route[] {
  return [
    route({
      method: 'POST',
      path: '/v1/session',
      scope: 'open',
      about: 'Takes the token once, and gives a cookie for it (HttpOnly, SameSite=Strict, a day)',
      body: z.strictObject({ token: z.string().min(1).max(1024) }),
      answers: {
        200: {
          about: 'With Set-Cookie',
          schema: z.strictObject({ scope: z.enum(['read', 'all']), expires_at: z.iso.datetime() }),
        },
      },
      errors: ['ERR_UNAUTHORIZED', 'ERR_TOO_MANY_REQUESTS'],
      async handle({ body: { token }, incoming }) {
        refuseIfTooMany(failures, incoming);
        const rights = tokens.rightsOf(token);
        if (rights === undefined) {
          failures.note(incoming.socket.remoteAddress);
          const message = 'This is no token of this daemon: it stands in the file that api.token_file names';
          throw new TunwardError('ERR_UNAUTHORIZED', message, {});
        }
        const { secret, expiresAt } = sessions.open(rights);
        return {
          headers: { 'set-cookie': cookie(incoming.socket.localPort, secret, SESSION_MS / 1000) },
          body: { scope: rights, expiresAt: new Date(expiresAt).toISOString() },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/session',
      scope: 'read',
      about: 'Who is asking, and what they may',
      answers: { 200: { about: 'Known', schema: session } },
      handle: async ({ access }) => ({
        body: { scope: access?.rights, via: access?.via, version, tokenNeeded: access?.via !== 'socket' },
      }),
    }),
    route({
      method: 'DELETE',
      path: '/v1/session',
      scope: 'read',
      about: 'Ends the session of this cookie',
      answers: { 200: { about: 'Ended', schema: z.strictObject({ status: z.literal('ended') }) } },
      async handle({ incoming: { headers, socket } }) {
        const secret = sessionOf(headers.cookie, socket.localPort ?? 0);
        if (secret !== undefined) sessions.close(secret);
        return { headers: { 'set-cookie': cookie(socket.localPort, '', 0) }, body: { status: 'ended' } };
      },
    }),
  ];
}

function cookie(port: number | undefined, value: string, maxAgeS: number): string {
  return `${cookieName(port ?? 0)}=${value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${maxAgeS}`;
}
