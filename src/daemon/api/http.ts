import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { TunwardError } from '../../errors.js';
import { systemClock } from '../../time.js';
import type { Endpoint } from '../../tunnel/spec.js';
import { toJson, toProblem } from '../../wire.js';
import { makePrivateFolder, readOwnFile, replaceFile } from '../files.js';
import { isAnswered } from '../instance.js';
import type { Route } from './routes.js';

export interface Door {
  /** `http://127.0.0.1:7420` for TCP; null for the unix socket. */
  readonly url: string | null;
  close(): Promise<void>;
}

const MAX_BODY = 65_536;

/** The API on a unix socket that only its owner may use: no token is asked for. */
export async function openSocketDoor(socket: string, routes: readonly Route[]): Promise<Door> {
  makePrivateFolder(path.dirname(socket));
  await removeStaleSocket(socket);
  const server = createServer(routes, () => undefined);
  // The mode of a socket is that of its making: a chmod afterwards would leave it open for an instant.
  const mask = process.umask(0o177);
  try {
    await listening(server, () => server.listen({ path: socket }));
  } finally {
    process.umask(mask);
  }
  return { url: null, close: () => closeServer(server) };
}

/** Who may come in by TCP. */
export interface TcpAccess {
  readonly tokenFile: string;
  /** Of keys that count as much as the token, SHA-256 in hexadecimal. */
  readonly keyDigests: readonly string[];
}

/** The API on TCP, for whoever bears the token and asks for this very host. */
export async function openTcpDoor(listen: Endpoint, access: TcpAccess, routes: readonly Route[]): Promise<Door> {
  const keys = access.keyDigests.map((hex) => Buffer.from(hex, 'hex'));
  const tokens = [digest(readToken(access.tokenFile)), ...keys];
  const hosts = new Set<string>();
  const server = createServer(routes, (context) => authorize(context, tokens, hosts));
  // Never by name: what `localhost` resolves to first is anybody's guess.
  const address = listen.host === 'localhost' ? '127.0.0.1' : listen.host;
  await listening(server, () => server.listen({ host: address, port: listen.port, exclusive: true }));
  const { port } = server.address() as AddressInfo;
  const host = net.isIPv6(address) ? `[${address}]` : address;
  for (const name of [host, '127.0.0.1', '[::1]', 'localhost']) hosts.add(`${name}:${port}`);
  return { url: `http://${host}:${port}`, close: () => closeServer(server) };
}

function createServer(routes: readonly Route[], guard: (context: Context) => void): http.Server {
  const app = new Hono();
  app.use(
    bodyLimit({
      maxSize: MAX_BODY,
      onError: () => problem(new TunwardError('ERR_BAD_REQUEST', `A body is at most ${MAX_BODY} bytes`, {})),
    }),
  );
  for (const { method, path: pattern, open, handle } of routes) {
    app.on(method, pattern, async (context) => {
      if (!open) guard(context);
      const { status = 200, body } = await handle({
        param: (name) => context.req.param(name),
        query: (name) => context.req.query(name),
      });
      return context.body(toJson(body), status, { 'content-type': 'application/json' });
    });
  }
  app.notFound((context) => {
    const message = `There is no ${context.req.method} ${context.req.path}`;
    return problem(new TunwardError('ERR_BAD_REQUEST', message, {}), 404);
  });
  app.onError((error) => problem(error));
  const server = http.createServer(getRequestListener(app.fetch));
  server.headersTimeout = 5000;
  server.requestTimeout = 10_000;
  server.maxConnections = 256;
  return server;
}

/** The one place where an error becomes an answer. */
function problem(error: unknown, as?: number): Response {
  const { status, body } = toProblem(error);
  const headers = { 'content-type': 'application/problem+json' };
  return new Response(toJson({ ...body, status: as ?? status }), { status: as ?? status, headers });
}

function authorize(context: Context, tokens: readonly Buffer[], hosts: ReadonlySet<string>): void {
  const host = context.req.header('host') ?? '';
  if (!hosts.has(host))
    throw new TunwardError('ERR_FORBIDDEN', `This daemon does not answer for the host '${host}'`, {});
  if (context.req.header('origin') !== undefined) {
    throw new TunwardError('ERR_FORBIDDEN', 'This daemon does not answer to pages of other origins', {});
  }
  const given = /^Bearer (.+)$/.exec(context.req.header('authorization') ?? '')?.[1];
  if (given === undefined || !tokens.some((token) => timingSafeEqual(digest(given), token))) {
    throw new TunwardError(
      'ERR_UNAUTHORIZED',
      'A bearer token is needed: it stands in the file that api.token_file names',
      {},
    );
  }
}

/** Any line of 8 or more printable characters; made, 0600, where there is no file. */
function readToken(file: string): string {
  if (!fs.existsSync(file)) {
    makePrivateFolder(path.dirname(file));
    replaceFile(file, `${randomBytes(32).toString('base64url')}\n`);
  }
  const line = readOwnFile(file)
    ?.split('\n')
    .map((text) => text.trim())
    .find((text) => /^[\x21-\x7e]{8,}$/.test(text));
  if (line !== undefined) return line;
  throw new TunwardError(
    'ERR_ACCESS_DENIED',
    `Cannot take a token from ${file}: expected a plain file of this user with a line of 8 or more printable characters`,
    { path: file },
  );
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A socket file that nobody answers at was left by a daemon that was killed. Anything else is not ours to remove. */
async function removeStaleSocket(socket: string): Promise<void> {
  const stat = fs.lstatSync(socket, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket() || stat.uid !== process.geteuid?.()) {
    throw new TunwardError(
      'ERR_ACCESS_DENIED',
      `Cannot listen at ${socket}: something else is there, which is not removed`,
      { path: socket },
    );
  }
  if (await isAnswered(socket)) {
    throw new TunwardError(
      'ERR_DAEMON_RUNNING',
      `Another daemon answers at ${socket}: give this one another api.socket`,
      { socket },
    );
  }
  fs.rmSync(socket, { force: true });
}

function listening(server: http.Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    listen();
    server.once('listening', () => resolve());
  });
}

/** An answer under way is finished by then; a client that merely stays connected must not keep us. */
const ANSWER_MS = 250;

async function closeServer(server: http.Server): Promise<void> {
  const done = new AbortController();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const late = systemClock.sleep(ANSWER_MS, done.signal).then(
    () => server.closeAllConnections(),
    () => undefined, // called off: all have gone
  );
  await closed;
  done.abort();
  await late;
}
