import fs from 'node:fs';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { type Context, Hono } from 'hono';
import type * as z from 'zod';
import { isErrno, TunwardError } from '../../errors.js';
import { systemClock } from '../../time.js';
import type { Endpoint } from '../../tunnel/spec.js';
import { toJson, toProblem } from '../../wire.js';
import { makePrivateFolder } from '../files.js';
import { isAnswered } from '../instance.js';
import { checkHead, createSocketGuard, createTcpGuard, type Guard, MAX_HEADERS } from './guard.js';
import type { PanelFiles } from './panel.js';
import { MAX_BODY, type Route, type RouteAnswer } from './route.js';
import { openEventStream } from './stream.js';
import type { Failures, Sessions, Tokens } from './tokens.js';
import { asksForWebSocket, createUpgrades, type Upgrades } from './upgrade.js';

export interface Door {
  /** `http://127.0.0.1:7420` for TCP; null for the unix socket. */
  readonly url: string | null;
  close(): Promise<void>;
}

/** The API on a unix socket that only its owner may use: no token is asked for. */
export async function openSocketDoor(socket: string, routes: readonly Route[], page?: PanelFiles): Promise<Door> {
  makePrivateFolder(path.dirname(socket));
  await removeStaleSocket(socket);
  const serving = createServer({ routes, page, guard: createSocketGuard() });
  const { server } = serving;
  await listening(server, () => {
    // The mode of a socket is that of its making: a chmod afterwards would leave it open for an instant. It is made in
    // this very turn; the mask is the whole process's, and nobody else is to meet it.
    const mask = process.umask(0o177);
    try {
      server.listen({ path: socket });
    } finally {
      process.umask(mask);
    }
  });
  return { url: null, close: () => closeServer(serving) };
}

/** Who may come in by TCP. */
export interface TcpAccess {
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly failures: Failures;
  readonly hosts: readonly string[];
  readonly page?: PanelFiles | undefined;
}

/** The API on TCP, for whoever bears a token and asks for this very host. */
export async function openTcpDoor(listen: Endpoint, access: TcpAccess, routes: readonly Route[]): Promise<Door> {
  const address = () => server.address() as AddressInfo;
  const serving: Serving = createServer({
    routes,
    page: access.page,
    guard: createTcpGuard({ ...access, address }),
  });
  const { server } = serving;
  // Never by name: what `localhost` resolves to first is anybody's guess.
  const host = { localhost: '127.0.0.1', '*': '::' }[listen.host] ?? listen.host;
  await listening(server, () => server.listen({ host, port: listen.port, exclusive: true })).catch((error: unknown) => {
    throw explainListen(error, listen);
  });
  return {
    url: `http://${net.isIPv6(host) ? `[${host}]` : host}:${address().port}`,
    close: () => closeServer(serving),
  };
}

function explainListen(error: unknown, { host, port }: Endpoint): unknown {
  const where = `Cannot listen at api.listen, ${host}:${port}`;
  if (isErrno(error, 'EADDRINUSE')) {
    const message = `${where}: somebody else does; tunward who ${port} says who`;
    return new TunwardError('ERR_PORT_HELD', message, { port, holders: [] }, { cause: error });
  }
  if (!isErrno(error, 'EACCES', 'EADDRNOTAVAIL', 'EAFNOSUPPORT')) return error;
  return new TunwardError('ERR_ACCESS_DENIED', `${where}: ${error.code}`, { host, port }, { cause: error });
}

/** More clients than this at once are turned away: each costs a descriptor, and ssh needs some too. */
const MAX_CONNECTIONS = 512;

interface Site {
  readonly routes: readonly Route[];
  readonly guard: Guard;
  readonly page?: PanelFiles | undefined;
}

interface Serving {
  readonly server: http.Server;
  readonly upgrades: Upgrades;
}

function createServer(site: Site): Serving {
  const upgrades = createUpgrades((incoming) => isExpected(site.routes, incoming));
  const listener = getRequestListener(createApp(site, upgrades).fetch, { overrideGlobalObjects: false });
  const limits = { headersTimeout: 5000, requestTimeout: 10_000, connectionsCheckingInterval: 1000 };
  // That one is missing is for checkHead to say, in words.
  const words = { requireHostHeader: false, maxHeaderSize: 16_384 };
  const server = http.createServer({ ...limits, ...words }, serve);
  server.maxConnections = MAX_CONNECTIONS;
  // One more than may be: so it is seen that there were more.
  server.maxHeadersCount = MAX_HEADERS + 1;
  server.on('clientError', refuseBytes).on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    const outgoing = upgrades.begin(incoming, socket, head);
    if (!outgoing) return;
    if (!hasBody(incoming)) return serve(incoming, outgoing);
    refuse(outgoing, new TunwardError('ERR_BAD_REQUEST', 'Expected no body with the header Upgrade', {}));
  });
  return { server, upgrades };

  function serve(incoming: IncomingMessage, outgoing: ServerResponse): void {
    try {
      checkHead(incoming);
      site.guard.checkHost(incoming);
    } catch (error) {
      return refuse(outgoing, error);
    }
    // Whatever goes wrong in there has been answered there.
    void listener(incoming, outgoing);
  }
}

/** Does this open the WebSocket of one of these rows? Node takes every request with an Upgrade for a change of protocol. */
function isExpected(routes: readonly Route[], incoming: IncomingMessage): boolean {
  if (!asksForWebSocket(incoming)) return false;
  const patterns = routes.filter(({ upgrade }) => upgrade).map(({ path }) => path.replace(/\{\w+\}/g, '[^/]+'));
  return new RegExp(`^(${patterns.join('|')})(\\?|$)`).test(incoming.url ?? '');
}

/** Whoever asks for what cannot be a request of ours is told so, and that is the end of the connection. */
function refuse(outgoing: ServerResponse, error: unknown): void {
  const { status, body } = toProblem(error);
  outgoing.shouldKeepAlive = false;
  outgoing.writeHead(status, { 'content-type': 'application/problem+json' }).end(toJson(body));
}

/** What Node's parser could not read: too slow, too large, or no HTTP. Where an answer has begun, nothing can be said any more. */
function refuseBytes(
  error: Error & { readonly code?: string },
  socket: Duplex & { readonly bytesWritten?: number },
): void {
  if (!socket.writable || socket.bytesWritten !== 0) return void socket.destroy();
  const [status, text] = unreadable[error.code ?? ''] ?? [400, 'Expected a request of HTTP/1.1'];
  const { body } = toProblem(new TunwardError('ERR_BAD_REQUEST', text, {}));
  const json = toJson({ ...body, status });
  const head = [
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(json)}`,
    'connection: close',
  ];
  // Not before it is on its way, and then whatever the other side still has to say.
  socket.end(`${head.join('\r\n')}\r\n\r\n${json}`, () => socket.destroy());
}

const unreadable: Readonly<Record<string, readonly [status: number, text: string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'Expected a head of at most 16 KiB'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'Expected chunks without so many words behind their length'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Expected a head within 5 s, and the whole request within 10 s'],
};

type App = Hono<{ Bindings: HttpBindings }>;

function createApp({ routes, guard, page }: Site, upgrades: Upgrades): App {
  const app: App = new Hono();
  if (page) addPage(app, page);
  for (const route of routes) {
    const { method, path: pattern, scope, toError, upgrade } = route;
    app.on(method, honoPath(pattern), async (context) => {
      try {
        const { incoming, outgoing } = context.env;
        const access = guard.identify(incoming, scope);
        const checked = { ...(await readRequest(context, route)), access, incoming };
        if (upgrade && upgrades.isAsking(incoming)) {
          await upgrade.open(checked, await upgrades.prepare(incoming, upgrade.protocol));
          return RESPONSE_ALREADY_SENT;
        }
        return answer(await route.handle(checked), outgoing);
      } catch (error) {
        return problem(error, toError);
      }
    });
  }
  for (const pattern of new Set(routes.map((route) => route.path))) refuseOthers(app, pattern, routes);
  app.notFound((context) => {
    const message = `There is no ${context.req.method} ${context.req.path}: GET /openapi.json has all there is`;
    return problem(new TunwardError('ERR_ROUTE_UNKNOWN', message, {}));
  });
  app.onError((error) => problem(error));
  return app;
}

/** The files of the panel: open to all, as the page itself is what asks for the token. */
function addPage(app: App, page: PanelFiles): void {
  app.on('GET', ['/', '/panel/*'], (context, next) => {
    const { incoming } = context.env;
    const file = page(incoming.url?.replace(/\?.*/s, '') ?? '');
    if (!file) return next();
    const { body, headers } = file;
    if (incoming.headers['if-none-match'] === headers.etag) return context.body(null, 304, headers);
    return context.body(new Uint8Array(body), 200, headers);
  });
}

function honoPath(pattern: string): string {
  return pattern.replace(/\{(\w+)\}/g, ':$1');
}

/** What is there, and not by this method. No OPTIONS either: no page of another origin is to come in. */
function refuseOthers(app: App, pattern: string, routes: readonly Route[]): void {
  const here = routes.filter((route) => route.path === pattern);
  const methods: string[] = here.map(({ method }) => method);
  const allow = [...methods, ...(methods.includes('GET') ? ['HEAD'] : [])].join(', ');
  app.all(honoPath(pattern), (context) => {
    const message = `${context.req.path} is for ${allow}, found ${context.req.method}`;
    const refusal = problem(new TunwardError('ERR_METHOD_NOT_ALLOWED', message, { allow }), here[0]?.toError);
    refusal.headers.set('allow', allow);
    return refusal;
  });
}

async function readRequest({ req, env }: Context<{ Bindings: HttpBindings }>, route: Route) {
  const { params, query, body, maxBody } = route;
  return {
    params: check('path', params, req.param()),
    query: check('query', query, queryOf(new URL(req.url).searchParams)),
    body: check('body', body, await readBody(env.incoming, maxBody)),
  };
}

/** What is given several times is a list; a schema that does not want one says so. */
function queryOf(search: URLSearchParams): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = Object.create(null);
  for (const name of new Set(search.keys())) {
    const values = search.getAll(name);
    query[name] = values.length === 1 ? (values[0] ?? '') : values;
  }
  return query;
}

/** undefined: there is none. Read from the connection itself, and no further than it may go. */
async function readBody(incoming: IncomingMessage, maxBody = MAX_BODY): Promise<unknown> {
  const { 'content-type': type = '', 'content-length': length, 'content-encoding': encoding } = incoming.headers;
  if (!hasBody(incoming)) return undefined;
  const tooLarge = () => new TunwardError('ERR_BODY_TOO_LARGE', `Expected a body of at most ${maxBody} bytes`, {});
  if (Number(length) > maxBody) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  // Whoever sends too much is to hear so: the connection is not cut while that is said.
  for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > maxBody) throw tooLarge();
    chunks.push(chunk);
  }
  if (size === 0) return undefined;
  if (encoding !== undefined && encoding !== 'identity') {
    throw new TunwardError('ERR_MEDIA_TYPE', `Expected a body as it is, found one in ${encoding.slice(0, 80)}`, {});
  }
  if (!/^application\/json *(; *charset="?utf-8"? *)?$/i.test(type)) {
    throw new TunwardError('ERR_MEDIA_TYPE', `Expected a body of application/json, found '${type.slice(0, 80)}'`, {});
  }
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    throw new TunwardError('ERR_BAD_REQUEST', `Expected JSON in UTF-8: ${error.message}`, {}, { cause: error });
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return Number(headers['content-length'] ?? 0) !== 0 || headers['transfer-encoding'] !== undefined;
}

/** What a schema makes of it. Without one there is to be nothing: what is not understood must not be passed over. */
function check(where: string, schema: z.ZodType | undefined, value: unknown): unknown {
  if (schema === undefined) {
    if (value === undefined || Object.keys(Object(value)).length === 0) return undefined;
    throw new TunwardError('ERR_BAD_REQUEST', `${where}: expected nothing, found ${Object.keys(Object(value))[0]}`, {});
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.map(({ path, message }) => `${[where, ...path].join('.')}: ${message}`);
  throw new TunwardError('ERR_BAD_REQUEST', issues.join('; '), { issues });
}

function answer(given: RouteAnswer, outgoing: ServerResponse): Response {
  if ('stream' in given) {
    openEventStream(outgoing, given.stream);
    return RESPONSE_ALREADY_SENT;
  }
  const { status = 200 } = given;
  const isText = 'bytes' in given;
  const body = isText ? given.bytes : toJson(given.body);
  const headers = { ...safeHeaders, 'content-type': isText ? given.type : 'application/json', ...given.headers };
  // A Response would be a web stream first: half of what a list costs that 50 clients ask for.
  const length = status === 304 ? {} : { 'content-length': Buffer.byteLength(body) };
  outgoing.writeHead(status, { ...headers, ...length }).end(body);
  return RESPONSE_ALREADY_SENT;
}

/** An answer is data of this moment, and no page. */
const safeHeaders = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' };

/** The one place where an error becomes an answer. */
function problem(error: unknown, toError?: Route['toError']): Response {
  const { status, body } = toError?.(error) ?? toProblem(error);
  const type = toError ? 'application/json' : 'application/problem+json';
  const retryAfter = (body as { retry_after_s?: unknown } | null)?.retry_after_s;
  const headers = {
    ...safeHeaders,
    'content-type': type,
    ...(status === 401 ? { 'www-authenticate': 'Bearer realm="tunward"' } : {}),
    ...(status === 426 ? { upgrade: 'websocket', 'sec-websocket-version': '13' } : {}),
    ...(typeof retryAfter === 'number' ? { 'retry-after': String(retryAfter) } : {}),
  };
  return new Response(toJson(body), { status, headers });
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

async function closeServer({ server, upgrades }: Serving): Promise<void> {
  const done = new AbortController();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  upgrades.close();
  const late = systemClock.sleep(ANSWER_MS, done.signal).then(
    () => {
      server.closeAllConnections();
      upgrades.destroy();
    },
    () => undefined, // called off: all have gone
  );
  await closed;
  done.abort();
  await late;
}
