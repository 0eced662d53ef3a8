import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import { fileSshOptions } from '../../tunnel/spec.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { toJsonAsIs } from '../../wire.js';
import type { EditedTunnel, Editor } from '../edit/editor.js';
import type { Written } from '../edit/notation.js';
import type { Reloader } from '../reload.js';
import { isRecord } from '../schema.js';
import { type Access, type Route, type RouteAnswer, route } from './route.js';
import { changes, configProblem, idParams, tunnel } from './shapes.js';

export interface ConfigContext {
  readonly supervisor: Pick<Supervisor, 'specs' | 'status'>;
  readonly reloader: Pick<Reloader, 'reload' | 'validate'>;
  readonly editor: Editor;
}

/** A tunnel as it stands in the file. What is right in it is for the configuration to say: one schema, one set of words. */
const written = z
  .record(z.string(), z.unknown())
  .describe('The keys of a tunnel, as configuration.md has them: {name, remote_host, remote_port, local_port, …}');

/** As much as a configuration file may have, in JSON. */
const MAX_TEXT = 1_310_720;

const editErrors = [
  ...['ERR_CONFIG_CHANGED', 'ERR_CONFIG_INVALID', 'ERR_TUNNEL_CONFLICT'],
  ...['ERR_CONFIG_UNWRITABLE', 'ERR_NO_SPACE', 'ERR_DAEMON_BUSY'],
];
const findErrors = ['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_AMBIGUOUS'];

const pending = {
  about: 'Written, and it starts when what is on its way down is down: only its id is known yet',
  schema: z.strictObject({ id: z.string() }),
};

/** The configuration: read, judged, read again, and its tunnels written. */
export function configRoutes({ supervisor, reloader, editor }: ConfigContext): Route[] {
  return [
    route({
      method: 'POST',
      path: '/v1/tunnels',
      scope: 'act',
      about:
        'Adds a tunnel at the end of the configuration file, and starts it; If-Match holds it to a file that was read',
      body: written,
      answers: {
        201: { about: 'Written and under way; Location and ETag are the tunnel and the file', schema: tunnel },
        202: pending,
      },
      errors: editErrors,
      async handle({ body, access, incoming }) {
        refusePaths(body, access);
        const edited = await editor.add(body, ifMatchOf(incoming));
        return toAnswer(edited, 201, { location: `/v1/tunnels/${edited.id}` });
      },
    }),
    route({
      method: 'PUT',
      path: '/v1/tunnels/{id}',
      scope: 'act',
      about: 'Replaces a tunnel in the configuration file; its id is another one when what makes it has changed',
      params: idParams,
      body: written,
      answers: { 200: { about: 'Written and under way; ETag is the file', schema: tunnel }, 202: pending },
      errors: [...editErrors, ...findErrors],
      async handle({ params, body, access, incoming }) {
        refusePaths(body, access);
        const { id } = supervisor.status(params.id);
        return toAnswer(await editor.replace(id, body, ifMatchOf(incoming)), 200);
      },
    }),
    route({
      method: 'DELETE',
      path: '/v1/tunnels/{id}',
      scope: 'act',
      about: 'Removes a tunnel from the configuration file, and answers when it is down',
      params: idParams,
      answers: {
        200: {
          about: 'Removed; ETag is the file',
          schema: z.strictObject({
            id: z.string(),
            name: z.string(),
            down: z.boolean().describe('false: it is still on its way down'),
          }),
        },
      },
      errors: [...editErrors, ...findErrors],
      async handle({ params, incoming }) {
        const { id, name } = supervisor.status(params.id);
        const { etag, settled } = await editor.remove(id, ifMatchOf(incoming));
        return { headers: { etag: quoted(etag) }, body: { id, name, down: settled } };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/config',
      scope: 'read',
      about: 'The configuration file as it is now, its tunnels as they are written',
      answers: {
        200: {
          about: 'With its ETag',
          schema: z.strictObject({
            file: z.string(),
            etag: z.string(),
            text: z.string(),
            tunnels: z.array(z.looseObject({ id: z.string() })),
            warnings: z.array(z.string()),
          }),
        },
      },
      errors: ['ERR_CONFIG_INVALID'],
      async handle() {
        const view = await editor.read();
        return { headers: { etag: quoted(view.etag) }, bytes: toJsonAsIs(view), type: 'application/json' };
      },
    }),
    route({
      method: 'POST',
      path: '/v1/config/validate',
      // A large text takes seconds to read, in which nobody else is heard: for whoever may end the daemon as well.
      scope: 'act',
      about: 'Says what a configuration would be, and what would become of the tunnels; changes nothing',
      body: z.strictObject({ text: z.string() }),
      maxBody: MAX_TEXT,
      answers: {
        200: {
          about: 'Right or wrong, that is an answer',
          schema: z.strictObject({
            valid: z.boolean(),
            problems: z.array(configProblem),
            warnings: z.array(z.string()),
            changes: changes.nullable().describe('Against what holds now'),
          }),
        },
      },
      handle: async ({ body: { text } }) => ({ body: reloader.validate(text) }),
    }),
    route({
      method: 'POST',
      path: '/v1/config/reload',
      scope: 'act',
      about: 'Reads the file again, as SIGHUP does; a wrong one changes nothing',
      answers: {
        200: { about: 'Taken', schema: z.strictObject({ changes, warnings: z.array(z.string()) }) },
      },
      errors: ['ERR_CONFIG_INVALID'],
      handle: async () => ({ body: await reloader.reload() }),
    }),
  ];

  function toAnswer(
    { id, etag }: EditedTunnel,
    status: number,
    more: Readonly<Record<string, string>> = {},
  ): RouteAnswer {
    const headers = { ...more, etag: quoted(etag) };
    const isKnown = supervisor.specs().some((spec) => spec.id === id);
    return isKnown ? { status, headers, body: supervisor.status(id) } : { status: 202, headers, body: { id } };
  }

  /**
   * A file of ssh's configuration may run programs, a key opens doors, and a host key is written where it is to be known:
   * which of them is used is for whoever writes the file. From afar those alone can be named that are in use.
   */
  function refusePaths(body: Written, access: Access | null): void {
    if (access?.via === 'socket') return;
    const known = supervisor.specs().flatMap(({ sshConfig: ssh_config, identityFile: identity_file, sshOptions }) => {
      return pathsIn({ ssh_config, identity_file, ssh_options: sshOptions });
    });
    for (const [key, path] of pathsIn(body)) {
      if (known.some(([knownKey, knownPath]) => knownKey === key && knownPath === path)) continue;
      const message = `${key}: expected an absolute path that a tunnel of the configuration has already, found '${String(path).slice(0, 80)}': a new one is written into the file, or given at the unix socket`;
      throw new TunwardError('ERR_FORBIDDEN', message, { key });
    }
  }
}

/** What names a file in a tunnel as it is written, ssh's options in ssh's spelling, whatever it is in the text. */
function pathsIn({ ssh_config, identity_file, ssh_options }: Written): (readonly [key: string, path: unknown])[] {
  const options = Object.entries(isRecord(ssh_options) ? ssh_options : {}).flatMap(([key, path]) => {
    const name = fileSshOptions.find((known) => known.toLowerCase() === key.toLowerCase());
    return name === undefined ? [] : [[`ssh_options.${name}`, path] as const];
  });
  const paths = [['ssh_config', ssh_config] as const, ['identity_file', identity_file] as const, ...options];
  return paths.filter(([, path]) => path !== undefined && path !== null);
}

/** RFC 9110, 13.1.1: one strong tag, or any. A weak one matches nothing. */
function ifMatchOf({ headers }: IncomingMessage): { ifMatch?: string } {
  const given = headers['if-match'];
  if (given === undefined || given === '*') return {};
  const [, tag] = /^"([\x21\x23-\x7e]*)"$/.exec(given) ?? [];
  if (tag !== undefined) return { ifMatch: tag };
  throw new TunwardError('ERR_BAD_REQUEST', `If-Match: expected one ETag in quotes, found ${given.slice(0, 80)}`, {});
}

function quoted(etag: string): string {
  return `"${etag}"`;
}
