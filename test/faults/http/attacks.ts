// What H1 sends: requests to act that are wrong in one way, and otherwise as right as can be, the token included.
import { request, type Sending } from './raw.js';
import type { Target } from './target.js';

export interface Attack {
  readonly kind: string;
  readonly name: string;
  readonly bytes: readonly (string | Buffer)[];
  /** How it is answered: status and, where the answer is a problem, its code: `421 ERR_MISDIRECTED`. */
  readonly expected: RegExp;
  readonly how?: Partial<Sending>;
}

/** Whom it is sent to, and what is right. */
export interface Aim extends Pick<Target, 'port' | 'token' | 'readToken'> {
  /** `tunward_7420=…`, of somebody who has logged in. */
  readonly cookie: string;
}

export const restart = 'POST /v1/tunnels/victim/restart HTTP/1.1';
export const bearer = ({ token }: Pick<Aim, 'token'>) => `Authorization: Bearer ${token}`;
export const hostOf = ({ port }: Pick<Aim, 'port'>) => `Host: 127.0.0.1:${port}`;

const misdirected = /^421 ERR_MISDIRECTED$/;
const foreign = /^403 ERR_FORBIDDEN$/;
const unauthorized = /^401 ERR_UNAUTHORIZED$/;
/** By Node before anybody of ours, or by ours. */
export const bad = /^400 ERR_BAD_REQUEST$/;

/** In the head of a request. */
export function headAttacks(aim: Aim): Attack[] {
  return [
    ...hostAttacks(aim),
    ...originAttacks(aim),
    ...tokenAttacks(aim),
    ...cookieAttacks(aim),
    ...pathAttacks(aim),
    ...methodAttacks(aim),
    ...upgradeAttacks(aim),
    ...terminalAttacks(aim),
  ];
}

function hostAttacks(aim: Aim): Attack[] {
  const { port } = aim;
  const own = `127.0.0.1:${port}`;
  const attack = (name: string, hosts: readonly string[], expected: RegExp, line = restart): Attack => {
    const headers = [...hosts.map((host) => `Host: ${host}`), bearer(aim), 'Connection: close'];
    return { kind: 'Host', name, bytes: [request(line, headers)], expected };
  };
  const others = [
    ...[
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1',
      `127.0.0.1:${port + 1}`,
      `localhost.:${port}`,
      'localhost',
    ],
    ...[`user@${own}`, `${own}@evil.example`, `user:secret@${own}`, `[::ffff:127.0.0.1]:${port}`, `[::]:${port}`],
    ...[`2130706433:${port}`, `0x7f000001:${port}`, `127.1:${port}`, `0.0.0.0:${port}`, `127.0.0.2:${port}`],
    ...[`${own}:80`, `${own}, evil.example`, `evil.example, ${own}`, `http://${own}`, `${own}/`, `${own}#`, `${own}?`],
    ...[
      `127.0.0.1:0${port}`,
      `127.0.0.1:${port}.`,
      `${own}.evil.example`,
      `${'a'.repeat(8000)}:${port}`,
      `%31${own.slice(1)}`,
    ],
    ...[`lоcalhost:${port}`, `\xff${own}`, `${own}\xa0`, `tunward:${port}`],
  ];
  return [
    ...others.map((host) => attack(`is ${host.slice(0, 40)}`, [host], misdirected)),
    attack('is empty', [''], /^(400|421)/),
    attack('is missing', [], bad),
    attack('is missing in HTTP/1.0', [], bad, restart.replace('1.1', '1.0')),
    attack('is foreign in HTTP/1.0', ['evil.example'], misdirected, restart.replace('1.1', '1.0')),
    attack('is missing in HTTP/0.9', [], bad, 'POST /v1/tunnels/victim/restart'),
    attack('is there twice, the other second', [own, 'evil.example'], bad),
    attack('is there twice, the other first', ['evil.example', own], bad),
    attack('is there twice alike', [own, own], bad),
    attack('has a blank before the colon', [], bad, `${restart}\r\nHost : ${own}`),
    attack('goes on in the next line', [`127.0.0.1\r\n :${port}`], /^(400|421)/),
    attack('ends in a bare line feed', [`${own}\nX: y`], /^(400|421)/),
    attack('is foreign, in capitals', ['EVIL.EXAMPLE'], misdirected),
    {
      ...attack('is foreign, and forwarded for ours', ['evil.example'], misdirected),
      bytes: [
        request(restart, ['Host: evil.example', `X-Forwarded-Host: ${own}`, `Forwarded: host=${own}`, bearer(aim)]),
      ],
    },
    ...['GET /v1/tunnels', 'GET /metrics', 'GET /livez', 'GET /openapi.json', 'GET /nowhere', 'POST /v1/session'].map(
      (line) => attack(`is foreign, for ${line}`, [`evil.example:${port}`], misdirected, `${line} HTTP/1.1`),
    ),
  ];
}

function originAttacks(aim: Aim): Attack[] {
  const { port } = aim;
  const origins = [
    ...['null', '', 'https://evil.example', 'file://', 'chrome-extension://abc', 'undefined', '*'],
    ...[
      `http://evil.127.0.0.1:${port}`,
      `http://127.0.0.1:${port}.evil.example`,
      `http://127.0.0.1:${port}@evil.example`,
    ],
    ...[`http://localhost:${port}`, `http://[::1]:${port}`, `http://127.0.0.1:${port + 1}`, 'http://127.0.0.1'],
    ...[`HTTP://127.0.0.1:${port}`, `http://127.0.0.1:${port}/`, `ws://127.0.0.1:${port}`, `//127.0.0.1:${port}`],
    ...[`http://127.0.0.1:${port} https://evil.example`, `http://127.0.0.1:${port}, https://evil.example`],
  ];
  const attack = (name: string, headers: readonly string[], expected: RegExp): Attack => {
    return { kind: 'Origin', name, bytes: [request(restart, [hostOf(aim), bearer(aim), ...headers])], expected };
  };
  return [
    ...origins.map((origin) => attack(`is '${origin}'`, [`Origin: ${origin}`], foreign)),
    attack('is there twice', [`Origin: http://127.0.0.1:${port}`, 'Origin: https://evil.example'], bad),
  ];
}

function tokenAttacks(aim: Aim): Attack[] {
  const { token } = aim;
  const attack = (name: string, headers: readonly string[], expected = unauthorized, line = restart): Attack => {
    return { kind: 'token', name, bytes: [request(line, [hostOf(aim), ...headers])], expected };
  };
  const wrong = [
    ...[token.slice(0, -1), `${token}x`, `x${token}`, token.toLowerCase(), [...token].reverse().join(''), 'x', '%00'],
    ...[`${token},${token}`, `"${token}"`, `${token} ${token}`, Buffer.from(token).toString('base64'), 'null', '{}'],
  ];
  return [
    attack('is missing', []),
    ...wrong.map((text, at) => attack(`is wrong (${at})`, [`Authorization: Bearer ${text}`])),
    attack('is empty', ['Authorization: Bearer ']),
    attack('is of another scheme', [`Authorization: Basic ${Buffer.from(`:${token}`).toString('base64')}`]),
    attack('has no scheme', [`Authorization: ${token}`]),
    attack('is there twice, right and wrong', [bearer(aim), 'Authorization: Bearer x'], bad),
    attack('is there twice, wrong and right', ['Authorization: Bearer x', bearer(aim)], bad),
    attack('is there twice', [bearer(aim), bearer(aim)], bad),
    attack('has a NUL in it', [`Authorization: Bearer ${token}\0`], bad),
    attack('is too long', [`Authorization: Bearer ${'x'.repeat(20_000)}`], /^431/),
    ...['X-Api-Key', 'X-Auth-Token', 'Proxy-Authorization', 'X-Authorization'].map((name) => {
      return attack(`is in ${name}`, [`${name}: Bearer ${token}`, `${name}: ${token}`]);
    }),
    ...['token', 'access_token', 'api_key', 'key'].map((name) => {
      return attack(
        `is in the query, as ${name}`,
        [],
        unauthorized,
        restart.replace(' HTTP', `?${name}=${token} HTTP`),
      );
    }),
    attack(
      'is in the user part of the target',
      [],
      /^404/,
      restart.replace(' /', ` /:${token}@`).replace('@v1', '@/v1'),
    ),
  ];
}

function cookieAttacks(aim: Aim): Attack[] {
  const { port, cookie, token } = aim;
  const own = `Origin: http://127.0.0.1:${port}`;
  const attack = (name: string, headers: readonly string[], expected: RegExp, line = restart): Attack => {
    return { kind: 'cookie', name, bytes: [request(line, [hostOf(aim), ...headers])], expected };
  };
  const look = 'GET /v1/tunnels HTTP/1.1';
  return [
    attack('with a foreign Origin', [`Cookie: ${cookie}`, 'Origin: https://evil.example'], foreign),
    attack('with the Origin null', [`Cookie: ${cookie}`, 'Origin: null'], foreign),
    attack('with the Origin of another port', [`Cookie: ${cookie}`, `Origin: http://127.0.0.1:${port + 1}`], foreign),
    attack('without an Origin', [`Cookie: ${cookie}`], foreign),
    attack('of a page of another site', [`Cookie: ${cookie}`, own, 'Sec-Fetch-Site: cross-site'], foreign),
    attack('of a page of another port', [`Cookie: ${cookie}`, own, 'Sec-Fetch-Site: same-site'], foreign),
    attack('to look, for another site', [`Cookie: ${cookie}`, 'Sec-Fetch-Site: cross-site'], foreign, look),
    attack('to look, for another port', [`Cookie: ${cookie}`, 'Sec-Fetch-Site: same-site'], foreign, look),
    attack('twice', [`Cookie: ${cookie}`, `Cookie: ${cookie}`, own], bad),
    attack('made up', [`Cookie: tunward_${port}=${'A'.repeat(43)}`, own], unauthorized),
    attack('of the token itself', [`Cookie: tunward_${port}=${token}`, own], unauthorized),
    attack('of another name', [`Cookie: ${cookie.replace(/^[^=]*/, 'tunward')}`, own], unauthorized),
    attack('of another port', [`Cookie: ${cookie.replace(/^[^=]*/, `tunward_${port + 1}`)}`, own], unauthorized),
    attack('empty', [`Cookie: tunward_${port}=`, own], unauthorized),
    attack('behind an empty one', [`Cookie: tunward_${port}=; x=y`, own], unauthorized),
    attack('with a wrong token beside it', [`Cookie: ${cookie}`, own, 'Authorization: Bearer x'], unauthorized),
  ];
}

/** Without a token: whoever takes such a path for that of an open route, or of a file of the panel, would answer. */
function pathAttacks(aim: Aim): Attack[] {
  const attack = (path: string, expected = /^(400|401|404|405)/): Attack => {
    const line = `POST ${path} HTTP/1.1`;
    return { kind: 'path', name: path.slice(0, 60), bytes: [request(line, [hostOf(aim)])], expected };
  };
  const plain = '/v1/tunnels/victim/restart';
  const own = `127.0.0.1:${aim.port}`;
  const acting = [
    ...[
      `http://${own}${plain}`,
      `http://evil.example${plain}`,
      `https://${own}${plain}`,
      `//${own}${plain}`,
      `/\\${own}${plain}`,
    ],
    ...[
      own,
      '*',
      '',
      plain.slice(1),
      `?${plain}`,
      `#${plain}`,
      `/${plain}`,
      `/.${plain}`,
      `/..${plain}`,
      `/livez/..${plain}`,
    ],
    ...[
      `/livez/%2e%2e${plain}`,
      `/panel/..${plain}`,
      `/panel/..%2f..${plain}`,
      `/health;${plain}`,
      `/health%00${plain}`,
    ],
    ...[
      plain.replace('/t', '//t'),
      plain.replace('/r', '%2Fr'),
      plain.replace('/r', '%252Fr'),
      plain.replace('/r', '%5Cr'),
    ],
    ...[
      `${plain}/`,
      `${plain}%00`,
      `${plain}%20`,
      `${plain}.json`,
      `${plain};x`,
      `${plain}#x`,
      `${plain}%3Fx`,
      plain.toUpperCase(),
    ],
    ...[
      plain.replace('v1', 'v1.0'),
      plain.replace('v1', '%761'),
      plain.replace('restart', '%72estart'),
      `${plain}\xff`,
    ],
    ...[
      plain.replace('victim', 'victim%zz'),
      plain.replace('victim', '%c0%ae%c0%ae'),
      plain.replace('victim', '__proto__'),
    ],
    ...[`${plain} x`, `${plain}\t`, `${plain}\0`, `${plain}\u007f`],
  ].map((path) => attack(path));
  const files = [
    ...[
      '..%2f..%2f..%2fetc/passwd',
      '../../../etc/passwd',
      '%2e%2e/%2e%2e/etc/passwd',
      '..\\..\\etc\\passwd',
      '%00',
      '.',
    ],
    ...[
      '..',
      '....//....//etc/passwd',
      '//etc/passwd',
      '%2fetc%2fpasswd',
      '..%252f..%252fetc/passwd',
      'x%00.js',
      '%c0%ae%c0%ae/x',
    ],
    ...[
      '__proto__',
      'constructor',
      '..%5c..%5cpackage.json',
      '~root',
      'file:///etc/passwd',
      '.%2e/.%2e/package.json',
      '../api/tokens.js',
    ],
  ].map((path): Attack => {
    const line = `GET /panel/${path} HTTP/1.1`;
    return { kind: 'path', name: `/panel/${path}`, bytes: [request(line, [hostOf(aim)])], expected: /^(400|401|404)/ };
  });
  return [...acting, ...files];
}

/** With the right token: what asks for an action is a POST, and nothing else. */
function methodAttacks(aim: Aim): Attack[] {
  const attack = (name: string, line: string, headers: readonly string[], expected: RegExp, how = {}): Attack => {
    return { kind: 'method', name, bytes: [request(line, [hostOf(aim), bearer(aim), ...headers])], expected, how };
  };
  const path = '/v1/tunnels/victim/restart';
  const not = /^405 ERR_METHOD_NOT_ALLOWED$/;
  const preflight = ['Origin: https://evil.example', 'Access-Control-Request-Method: POST'];
  return [
    ...['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'].map((method) =>
      attack(method, `${method} ${path} HTTP/1.1`, [], not),
    ),
    attack('HEAD', `HEAD ${path} HTTP/1.1`, ['Connection: close'], /^405/, { untilClosed: true }),
    ...['TRACE', 'SEARCH', 'PROPFIND', 'LOCK'].map((method) => {
      return attack(method, `${method} ${path} HTTP/1.1`, [], /^(400|405|501)/);
    }),
    attack('CONNECT', `CONNECT 127.0.0.1:22 HTTP/1.1`, [], /^(0|400|405)/),
    attack('CONNECT to a path', `CONNECT ${path} HTTP/1.1`, [], /^(0|400|405)/),
    ...['post', 'Post', 'EXEC', 'PRI', 'P\0ST', ''].map((method) =>
      attack(`'${method}'`, `${method} ${path} HTTP/1.1`, [], bad),
    ),
    attack(
      'GET that is to be POST',
      `GET ${path} HTTP/1.1`,
      ['X-HTTP-Method-Override: POST', 'X-Method-Override: POST'],
      not,
    ),
    attack('GET that is to be POST, in its query', `GET ${path}?_method=POST HTTP/1.1`, [], not),
    attack('OPTIONS that asks to be let in', `OPTIONS ${path} HTTP/1.1`, preflight, /^(403|405)/),
    attack('OPTIONS of everything', 'OPTIONS * HTTP/1.1', preflight, bad),
    ...[
      '/v1/shutdown',
      '/v1/operations',
      '/v1/config/reload',
      '/start',
      '/stop',
      '/start/victim',
      '/restart/victim',
    ].map((to) => {
      return attack(`GET ${to}`, `GET ${to} HTTP/1.1`, [], /^(404|405)/);
    }),
    attack('HTTP/2 without a word before', 'PRI * HTTP/2.0', ['', 'SM'], bad),
    attack('HTTP/3', `POST ${path} HTTP/3.0`, [], bad),
    attack('HTTP/1.2', `POST ${path} HTTP/1.2`, [], bad),
    attack('with an expectation', restart, ['Expect: the-moon'], /^417/),
  ];
}

function upgradeAttacks(aim: Aim): Attack[] {
  const socket = [
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];
  const attack = (
    name: string,
    path: string,
    headers: readonly string[],
    expected: RegExp,
    host = hostOf(aim),
  ): Attack => {
    const line = `GET ${path} HTTP/1.1`;
    return { kind: 'upgrade', name, bytes: [request(line, [host, ...socket, ...headers])], expected };
  };
  const evil = ['Origin: https://evil.example', `Cookie: ${aim.cookie}`];
  const h2c = ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA'];
  return [
    attack('to a WebSocket from an evil page', '/v1/events', evil, foreign),
    attack('to a WebSocket from an evil page, at the root', '/', evil, /^(403|404)/),
    attack('to a WebSocket from an evil page, of an action', '/v1/tunnels/victim/restart', evil, /^(403|405)/),
    attack(
      'to a WebSocket of a rebound name',
      '/v1/events',
      [bearer(aim)],
      misdirected,
      `Host: evil.example:${aim.port}`,
    ),
    attack('to a WebSocket without a token', '/v1/events', [], unauthorized),
    {
      ...{ kind: 'upgrade', name: 'to HTTP/2, of an action', expected: unauthorized },
      bytes: [request(restart, [hostOf(aim), ...h2c])],
    },
  ];
}

/** At the one route where there is a WebSocket: to the terminal of a tunnel that asks. */
function terminalAttacks(aim: Aim): Attack[] {
  const { port, cookie } = aim;
  const right: Readonly<Record<string, string>> = {
    Host: `127.0.0.1:${port}`,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol': 'tunward.terminal.v1',
    Authorization: `Bearer ${aim.token}`,
  };
  const path = '/v1/tunnels/asks/terminal';
  /** All that it takes, but for these; `undefined`: without it. */
  const attack = (
    name: string,
    other: Readonly<Record<string, string | undefined>>,
    expected: RegExp,
    { line = `GET ${path} HTTP/1.1`, more = [] as readonly string[], body = '' } = {},
  ): Attack => {
    const headers = Object.entries({ ...right, ...other }).flatMap(([key, value]) =>
      value === undefined ? [] : [`${key}: ${value}`],
    );
    return { kind: 'terminal', name, bytes: [request(line, [...headers, ...more], body)], expected };
  };
  const own = `http://127.0.0.1:${port}`;
  const noToken = { Authorization: undefined };
  const byCookie = { ...noToken, Cookie: cookie };
  const get = (to: string) => ({ line: `GET ${to} HTTP/1.1` });
  return [
    attack('with nothing', noToken, unauthorized),
    attack('from our own page, with nothing', { ...noToken, Origin: own }, unauthorized),
    attack('with a wrong token', { Authorization: 'Bearer wrong-token' }, unauthorized),
    attack('with a token for looking', { Authorization: `Bearer ${aim.readToken}` }, foreign),
    attack('with the token in the query', noToken, unauthorized, get(`${path}?token=${aim.token}`)),
    attack(
      'with the token as a protocol',
      {
        ...noToken,
        'Sec-WebSocket-Protocol': `tunward.terminal.v1, ${aim.token}`,
      },
      unauthorized,
    ),
    attack('with the token, from an evil page', { Origin: 'https://evil.example' }, foreign),
    attack('with a cookie, from an evil page', { ...byCookie, Origin: 'https://evil.example' }, foreign),
    attack('with a cookie, from no page', byCookie, foreign),
    attack('with a cookie, from null', { ...byCookie, Origin: 'null' }, foreign),
    attack('with a cookie, from another port', { ...byCookie, Origin: `http://127.0.0.1:${port + 1}` }, foreign),
    attack('with a cookie, from ws://', { ...byCookie, Origin: `ws://127.0.0.1:${port}` }, foreign),
    attack(
      'with a cookie, from the same site',
      {
        ...{ ...byCookie, Origin: own },
        'Sec-Fetch-Site': 'same-site',
      },
      foreign,
    ),
    attack(
      'with a cookie, named as hybi-8 does',
      {
        ...{ ...byCookie, 'Sec-WebSocket-Origin': own },
        'Sec-WebSocket-Version': '8',
      },
      foreign,
    ),
    attack('with a cookie, in capitals', { ...byCookie, Upgrade: 'WEBSOCKET' }, foreign),
    attack('with a cookie, and another protocol beside', { ...byCookie, Upgrade: 'h2c, websocket' }, foreign),
    attack('for a rebound name', { Host: `evil.example:${port}` }, misdirected),
    attack('with two hosts', {}, bad, { more: ['Host: evil.example'] }),
    attack('with two origins', { Origin: own }, bad, { more: ['Origin: https://evil.example'] }),
    attack('with two upgrades', {}, bad, { more: ['Upgrade: h2c'] }),
    attack('with two keys', {}, bad, { more: ['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='] }),
    attack('without a host', { Host: undefined }, bad),
    attack('without a key', { 'Sec-WebSocket-Key': undefined }, bad),
    attack('with a key that is too short', { 'Sec-WebSocket-Key': 'AAAA' }, bad),
    attack('without a version', { 'Sec-WebSocket-Version': undefined }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('of an old version', { 'Sec-WebSocket-Version': '8' }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('of versions', { 'Sec-WebSocket-Version': '13, 8' }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('without a protocol', { 'Sec-WebSocket-Protocol': undefined }, bad),
    attack('with a protocol twice', { 'Sec-WebSocket-Protocol': 'tunward.terminal.v1,tunward.terminal.v1' }, bad),
    attack('with an empty protocol', { 'Sec-WebSocket-Protocol': 'tunward.terminal.v1,,' }, bad),
    attack('to another protocol', { Upgrade: 'h2c' }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('to two protocols', { Upgrade: 'websocket, h2c' }, bad),
    attack('to a WebSocket and more', { Upgrade: 'websocket/13' }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('with no connection to upgrade', { Connection: 'close' }, /^426 ERR_UPGRADE_REQUIRED$/),
    attack('by POST', {}, /^405 ERR_METHOD_NOT_ALLOWED$/, { line: `POST ${path} HTTP/1.1` }),
    attack('by HEAD', {}, /^426/, { line: `HEAD ${path} HTTP/1.1` }),
    attack('by CONNECT', {}, /^(0|400)/, { line: `CONNECT ${path} HTTP/1.1` }),
    attack('in HTTP/1.0', {}, bad, { line: `GET ${path} HTTP/1.0` }),
    attack('with a body', { 'Content-Length': '4' }, bad, { body: 'abcd' }),
    attack('with a body in chunks', { 'Transfer-Encoding': 'chunked' }, bad, { body: '0\r\n\r\n' }),
    attack('of one that asks nobody', {}, /^409 ERR_TUNNEL_CONFLICT$/, get('/v1/tunnels/victim/terminal')),
    attack('of nobody', {}, /^404 ERR_TUNNEL_UNKNOWN$/, get('/v1/tunnels/nobody/terminal')),
    attack('of a path above', {}, /^404/, get('/v1/tunnels/../terminal')),
    attack('with a slash behind it', {}, /^404/, get(`${path}/`)),
    attack('of a path with a blank', {}, bad, get('/v1/tunnels/as ks/terminal')),
    attack('of a whole URL', {}, bad, get(`http://127.0.0.1:${port}${path}`)),
    attack('of no window', {}, bad, get(`${path}?columns=0`)),
    attack('of a window without end', {}, bad, get(`${path}?rows=99999999999`)),
    attack('with what nobody knows', {}, bad, get(`${path}?command=sh`)),
    attack('with a second request behind it', noToken, unauthorized, {
      body: `GET /v1/tunnels HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${aim.token}\r\n\r\n`,
    }),
    attack('with frames behind it', noToken, unauthorized, { body: '\u0001\u0002'.repeat(50_000) }),
  ];
}
