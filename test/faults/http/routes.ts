// What H1 asks of every route that acts, as the daemon itself lists them.
import { expect } from 'chai';
import { type Aim, type Attack, bearer, hostOf } from './attacks.js';
import { request, send } from './raw.js';
import type { Target } from './target.js';

/** The cookie of somebody who has logged in: `name=value`. */
export async function logIn({ port, token }: Pick<Target, 'port' | 'token'>): Promise<string> {
  const body = JSON.stringify({ token });
  const headers = [hostOf({ port }), 'Content-Type: application/json', `Content-Length: ${body.length}`];
  const reply = await send([request('POST /v1/session HTTP/1.1', headers, body)], { port });
  expect(reply.status, reply.text).to.equal(200);
  return /^[^;]+/.exec(reply.headers['set-cookie'] ?? '')?.[0] ?? '';
}

/** Open to everybody, or for whoever may look. */
const harmless = new Set(['POST /v1/session', 'DELETE /v1/session', 'POST /v1/config/validate']);

/** By everybody who may not: with nothing, with a token for looking, with a cookie and a page that is not named. */
export async function routeAttacks(aim: Aim, { port }: Target): Promise<Attack[]> {
  const { body } = await send([request('GET /openapi.json HTTP/1.1', [hostOf(aim)])], { port });
  const { paths } = JSON.parse(body) as { paths: Record<string, Record<string, unknown>> };
  const acting = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods)
      .map((method) => `${method.toUpperCase()} ${path}`)
      .filter((route) => !route.startsWith('GET ') && !harmless.has(route)),
  );
  expect(acting, 'routes that act').to.include('POST /v1/tunnels/{id}/restart');
  expect(acting.length).to.be.greaterThan(5);
  const json = ['Content-Type: application/json', 'Content-Length: 2'];
  const readOnly = bearer({ token: aim.readToken });
  return acting.flatMap((route) => {
    const line = `${route.replace(/\{(port)\}/, String(port)).replace(/\{\w+\}/, 'victim')} HTTP/1.1`;
    const attack = (name: string, headers: readonly string[], expected: RegExp): Attack => {
      const lines = [hostOf(aim), ...headers, ...json];
      return { kind: 'route', name: `${route}, ${name}`, bytes: [request(line, lines, '{}')], expected };
    };
    return [
      attack('with nothing', [], /^401/),
      attack('with a token for looking', [readOnly], /^403/),
      attack('with a cookie, of a page that is not named', [`Cookie: ${aim.cookie}`], /^403/),
      attack('with a cookie, of a foreign page', [`Cookie: ${aim.cookie}`, 'Origin: https://evil.example'], /^403/),
      attack('with the token, of a foreign page', [bearer(aim), 'Origin: https://evil.example'], /^403/),
    ];
  });
}
