import type { IncomingMessage } from 'node:http';
import type * as z from 'zod';
import type { Begin } from './stream.js';
import type { Accept } from './upgrade.js';

/** Who may: anybody; whoever may look; whoever may act as well. */
export type Scope = 'open' | 'read' | 'act';

/** What the bearer of a token may: look, or everything. */
export type Rights = 'read' | 'all';

/** Who asks: by the unix socket, by a token, or by the cookie that was given for one. */
export interface Access {
  readonly rights: Rights;
  readonly via: 'socket' | 'token' | 'cookie';
}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** A request as a handler gets it: checked, in the spelling of the wire. */
export interface RouteRequest<P = unknown, Q = unknown, B = unknown> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  /** null on an open route, whoever asks. */
  readonly access: Access | null;
  readonly incoming: IncomingMessage;
}

/** One of: data (camelCase, put into snake_case on its way out), bytes as they are, or a stream. */
export type RouteAnswer = {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
} & ({ readonly body: unknown } | { readonly bytes: Uint8Array | string; readonly type: string } | Streaming);

interface Streaming {
  readonly stream: Begin;
}

/** What an answer is, for those who read about it. Without a schema: not JSON. */
export interface Answer {
  readonly about: string;
  readonly schema?: z.ZodType;
  readonly type?: string;
}

interface Description {
  readonly method: Method;
  /** As OpenAPI writes it: `/v1/tunnels/{id}`. */
  readonly path: string;
  readonly scope: Scope;
  /** One sentence. */
  readonly about: string;
  readonly answers: Readonly<Record<number, Answer>>;
  /** The codes it may fail with beside those that any route may. */
  readonly errors?: readonly string[];
  /** The most bytes that a body may have; default {@link MAX_BODY}. */
  readonly maxBody?: number;
  /** Who came before there was a problem+json is told of an error in another shape. */
  readonly toError?: (error: unknown) => { readonly status: number; readonly body: unknown };
}

/** One row of the API's table. */
export interface Route extends Description {
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodType;
  readonly handle: (request: RouteRequest) => Promise<RouteAnswer>;
  readonly upgrade?: Upgrade;
}

/** For a row that a WebSocket is opened at. Without one, or where it is not asked for, `handle` answers. */
export interface Upgrade<P = unknown, Q = unknown> {
  /** The one that a client must offer. */
  readonly protocol: string;
  /** Throws what speaks against it, and is answered as any error is; then accepts, and throws no more. */
  readonly open: (request: RouteRequest<P, Q>, accept: Accept) => Promise<void>;
}

interface Definition<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodType> extends Description {
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  readonly handle: (request: RouteRequest<z.output<P>, z.output<Q>, z.output<B>>) => Promise<RouteAnswer>;
  readonly upgrade?: Upgrade<z.output<P>, z.output<Q>>;
}

/** A row whose handler knows the types of what its schemas let through. */
export function route<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodType>(
  definition: Definition<P, Q, B>,
): Route {
  // The door hands a handler nothing that these schemas have not made.
  return definition as unknown as Route;
}

export const MAX_BODY = 65_536;
