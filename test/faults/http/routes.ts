// What H1 asks of every route that acts, as the daemon itself lists them.
import { expect } from 'chai';
import { type Aim, type Attack, bad, bearer, hostOf, restart } from './attacks.js';
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

/** Whoever logs in, and whoever writes, with what does not belong there. */
export function entryAttacks(aim: Aim): Attack[] {
  const json = 'Content-Type: application/json';
  const attack = (name: string, line: string, headers: readonly string[], body: string, expected: RegExp): Attack => {
    const lines = [hostOf(aim), ...headers, `Content-Length: ${Buffer.byteLength(body)}`];
    return { kind: 'entry', name, bytes: [request(`${line} HTTP/1.1`, lines, body)], expected };
  };
  const logIn = 'POST /v1/session';
  const right = JSON.stringify({ token: aim.token });
  const remove = 'DELETE /v1/tunnels/stopped';
  const tags = ['"wrong"', `"${'x'.repeat(4000)}"`];
  const noTags = ['wrong', 'W/"wrong"', '"a", "b"', '', '"', '"a"b"', '"\u00e9"', '*, "a"'];
  return [
    attack('logs in from a foreign page', logIn, [json, 'Origin: https://evil.example'], right, /^403 ERR_FORBIDDEN$/),
    attack('logs in as a form does', logIn, ['Content-Type: text/plain'], right, /^415 ERR_MEDIA_TYPE$/),
    attack('logs in with a wrong token', logIn, [json], '{"token":"wrong-token"}', /^401 ERR_UNAUTHORIZED$/),
    attack('logs in with a list', logIn, [json], '{"token":["x"]}', /^400 ERR_BAD_REQUEST$/),
    attack(
      'logs in with more',
      logIn,
      [json],
      JSON.stringify({ token: aim.token, scope: 'all' }),
      /^400 ERR_BAD_REQUEST$/,
    ),
    attack('logs in by GET', 'GET /v1/session', [], '', /^401 ERR_UNAUTHORIZED$/),
    ...tags.map((tag) =>
      attack(
        `removes with the tag ${tag.slice(0, 20)}`,
        remove,
        [bearer(aim), `If-Match: ${tag}`],
        '',
        /^412 ERR_CONFIG_CHANGED$/,
      ),
    ),
    ...noTags.map((tag) =>
      attack(
        `removes with the tag ${tag}`,
        remove,
        [bearer(aim), `If-Match: ${tag}`],
        '',
        /^(400 ERR_BAD_REQUEST|412 ERR_CONFIG_CHANGED)$/,
      ),
    ),
    attack(
      'removes with two tags',
      remove,
      [bearer(aim), 'If-Match: *', 'If-Match: "wrong"'],
      '',
      /^400 ERR_BAD_REQUEST$/,
    ),
    ...filesToName.map((keys) => {
      const tunnel = { name: 'new', remote_host: 'evil.example', remote_port: '1', local_port: '17999', ...keys };
      return attack(
        `adds a tunnel with ${JSON.stringify(keys)}`,
        'POST /v1/tunnels',
        [bearer(aim), json],
        JSON.stringify(tunnel),
        /^403 ERR_FORBIDDEN$/,
      );
    }),
    ...['ProxyCommand', 'LocalCommand', 'KnownHostsCommand', 'Include', 'PKCS11Provider', '__proto__'].map((name) => {
      const body = `{"name":"new","remote_host":"h","remote_port":"1","local_port":"17999","ssh_options":{"${name}":"x"}}`;
      return attack(
        `adds a tunnel with ${name}`,
        'POST /v1/tunnels',
        [bearer(aim), json],
        body,
        /^422 ERR_CONFIG_INVALID$/,
      );
    }),
  ];
}

/** Files that ssh would read or write, for which somebody far away has no business. */
const filesToName: readonly Readonly<Record<string, unknown>>[] = [
  { ssh_config: '/tmp/evil' },
  { identity_file: '/root/.ssh/id_rsa' },
  { ssh_options: { UserKnownHostsFile: '/root/.ssh/authorized_keys', HostKeyAlias: 'agent-forwarding' } },
  { ssh_options: { userknownhostsfile: '/tmp/file' } },
  { ssh_options: { IdentityAgent: '/tmp/agent' } },
  { ssh_options: { CertificateFile: '/tmp/cert' } },
];

/** At the unix socket no token is asked for; but somebody may have put it on a port, where pages in a browser reach it. */
export function ownerAttacks(socket: string): Attack[] {
  const host = 'Host: localhost:7420';
  const attack = (name: string, headers: readonly string[], expected: RegExp, line = restart): Attack => {
    return { kind: 'unix socket', name, bytes: [request(line, headers)], expected, how: { path: socket } };
  };
  const hosts = [
    'evil.example',
    'evil.example:7420',
    'localhost.',
    'localhost.evil.example',
    'user@localhost',
    'localhost:',
    '[::]',
    '127.1',
  ];
  const origins = ['null', 'https://evil.example', 'http://localhost:7421', 'http://127.0.0.1:7420', ''];
  const body = [host, 'Content-Type: text/plain', 'Content-Length: 2', '', '{}'];
  return [
    ...hosts.map((name) => attack(`of the host ${name}`, [`Host: ${name}`], /^421 ERR_MISDIRECTED$/)),
    ...origins.map((origin) => attack(`of the page '${origin}'`, [host, `Origin: ${origin}`], /^403 ERR_FORBIDDEN$/)),
    attack('without a host', [], bad),
    attack('of two hosts', [host, host], bad),
    attack('of an absolute URL', [host], bad, restart.replace(' /', ' http://localhost:7420/')),
    attack('by GET', [host], /^405 ERR_METHOD_NOT_ALLOWED$/, restart.replace('POST', 'GET')),
    attack('with a body of text', body, /^415 ERR_MEDIA_TYPE$/),
  ];
}
