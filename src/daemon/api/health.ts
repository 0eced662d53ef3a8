import fs from 'node:fs';
import path from 'node:path';
import * as z from 'zod';
import { isErrno } from '../../errors.js';
import { openProc } from '../../proc/read.js';
import { type TunnelStatus, waitsForPerson } from '../../tunnel/status.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { readInit } from '../init.js';
import type { Overview } from './overview.js';
import { type Route, route } from './route.js';
import { flag, health, readiness } from './shapes.js';

export type Phase = 'starting' | 'ready' | 'stopping';

export interface HealthContext {
  readonly phase: () => Phase;
  readonly supervisor: Pick<Supervisor, 'specs'>;
  readonly overview: Pick<Overview, 'statuses'>;
  /** What the daemon writes to. */
  readonly folders: Readonly<Record<string, string>>;
}

/** Open to anybody: they say nothing that is worth a token. */
export function healthRoutes({ phase, supervisor, overview, folders }: HealthContext): Route[] {
  return [
    route({
      method: 'GET',
      path: '/livez',
      scope: 'open',
      about: 'Whether the daemon is there: it answers, so it is',
      answers: { 200: { about: 'It is', schema: z.strictObject({ status: z.literal('ok') }) } },
      handle: async () => ({ body: { status: 'ok' } }),
    }),
    route({
      method: 'GET',
      path: '/readyz',
      scope: 'open',
      about: 'Whether it has booted and does not stop: every tunnel is known and under way',
      query: z.strictObject({
        verbose: z
          .union([z.literal(''), flag])
          .optional()
          .describe('With what was looked at'),
      }),
      answers: {
        200: { about: 'Ready', schema: readiness },
        503: { about: 'Not yet, or no longer', schema: readiness },
      },
      async handle({ query: { verbose } }) {
        const isReady = phase() === 'ready';
        const head = { status: isReady ? 'ok' : phase() };
        const checks = verbose === undefined || verbose === false ? {} : { checks: await lookAround() };
        return { status: isReady ? 200 : 503, body: { ...head, ...checks } };
      },
    }),
    route({
      method: 'GET',
      path: '/health',
      scope: 'open',
      about: 'As /livez, with what is known of pid 1 and of zombies: none of that makes the status another',
      answers: { 200: { about: 'It is there', schema: health } },
      handle: async () => ({ body: { status: 'ok', pid: process.pid, ...readInit(openProc(), process.pid) } }),
    }),
  ];

  /** What is not well here is said, and stops no tunnel: it does not make the daemon unready. */
  async function lookAround() {
    const check = (name: string, trouble: string | undefined, detail: string) => ({
      name,
      status: trouble === undefined ? 'ok' : 'failed',
      detail: trouble ?? detail,
    });
    const count = supervisor.specs().length;
    return [
      check('boot', phase() === 'ready' ? undefined : phase(), 'over'),
      check('tunnels', undefined, `${count} known`),
      check('persons', undefined, describeWaiting((await overview.statuses()).filter(waitsForPerson))),
      ...Object.entries(folders).map(([name, folder]) => check(name, findTrouble(folder), 'can be written')),
    ];
  }
}

/** So many are named. */
const MOST_NAMED = 8;

/** By the heads of their ids, which `tunward auth` takes: a name may say more than is for anybody. */
function describeWaiting(waiting: readonly TunnelStatus[]): string {
  if (waiting.length === 0) return 'no tunnel waits for one';
  const named = waiting.slice(0, MOST_NAMED).map(({ id }) => id.slice(0, 8));
  const more = waiting.length - named.length;
  return `${waiting.length} wait${waiting.length === 1 ? 's' : ''} for one: ${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** No path is named: anybody may read this. */
function findTrouble(folder: string): string | undefined {
  try {
    fs.accessSync(nearest(folder), fs.constants.W_OK);
    return undefined;
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'ELOOP', 'EIO', 'ESTALE')) throw error;
    return `cannot be written: ${error.code}`;
  }
}

/** A folder is made when it is needed. */
function nearest(folder: string): string {
  return fs.existsSync(folder) || folder === '/' ? folder : nearest(path.dirname(folder));
}
