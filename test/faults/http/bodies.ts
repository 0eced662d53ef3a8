// What H1 sends behind the head: bodies that are none, that are two, that have no end.
import { type Aim, type Attack, bad, bearer, hostOf, restart } from './attacks.js';
import { request } from './raw.js';

const operations = 'POST /v1/operations HTTP/1.1';
/** All that it takes to restart everything. */
const order = '{"action":"restart","all":true}';

export function bodyAttacks(aim: Aim): Attack[] {
  return [...typeAttacks(aim), ...contentAttacks(aim), ...framingAttacks(aim), ...sizeAttacks(aim)];
}

/** As a form, an image or a `no-cors` fetch of another page could send it. */
function typeAttacks(aim: Aim): Attack[] {
  const types = [
    ...[
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'text/json',
      'application/jsonp',
    ],
    ...[
      'application/json, text/plain',
      'text/plain; application/json',
      'application/json; charset=utf-16',
      'application/json;x=y',
    ],
    ...[
      'application/json\0',
      'application',
      '*/*',
      '',
      'APPLICATION/JSON5',
      'application/problem+json',
      'application/ json',
    ],
  ];
  const attack = (name: string, headers: readonly string[], expected: RegExp): Attack => {
    const all = [hostOf(aim), bearer(aim), ...headers, `Content-Length: ${order.length}`];
    return { kind: 'type', name, bytes: [request(operations, all, order)], expected };
  };
  return [
    ...types.map((type) => attack(`is '${type}'`, [`Content-Type: ${type}`], /^(415 ERR_MEDIA_TYPE|400)/)),
    attack('is missing', [], /^415 ERR_MEDIA_TYPE$/),
    attack('is there twice', ['Content-Type: application/json', 'Content-Type: text/plain'], bad),
    attack('is there twice, the other first', ['Content-Type: text/plain', 'Content-Type: application/json'], bad),
    attack(
      'is right, with a foreign Origin',
      ['Content-Type: application/json', 'Origin: https://evil.example'],
      /^403/,
    ),
    attack(
      'is that of a form, with a foreign Origin',
      ['Content-Type: text/plain', 'Origin: https://evil.example'],
      /^403/,
    ),
    attack(
      'is right, of something compressed',
      ['Content-Type: application/json', 'Content-Encoding: gzip'],
      /^(400|415)/,
    ),
  ];
}

function contentAttacks(aim: Aim): Attack[] {
  const deep = 32_000;
  const bodies: Readonly<Record<string, string | Buffer>> = {
    'is no JSON': '{',
    'is JSON twice': `${order}${order}`,
    'has a comma too many': '{"action":"restart","all":true,}',
    'has a comment': `/* */${order}`,
    'is no UTF-8': Buffer.concat([
      Buffer.from('{"action":"restart","tunnels":["'),
      Buffer.from([0xff, 0xfe]),
      Buffer.from('"]}'),
    ]),
    'is UTF-8 in too many bytes': Buffer.concat([
      Buffer.from('{"action":"restart","tunnels":["'),
      Buffer.from([0xc0, 0xaf]),
      Buffer.from('"]}'),
    ]),
    'is UTF-16': Buffer.from(order, 'utf16le'),
    'has half a character': '{"action":"restart","tunnels":["\\ud800"]}',
    'has a NUL in it': '{"action":"restart","tunnels":["victim\\u0000"]}',
    'is a list': `[${order}]`,
    'is null': 'null',
    'is a text': JSON.stringify(order),
    'is a number': '1e999',
    'is deep': '['.repeat(deep) + ']'.repeat(deep),
    'is deep, as mappings': `${'{"a":'.repeat(8000)}1${'}'.repeat(8000)}`,
    'is deep and has no end': '['.repeat(65_000),
    'is deep where a name is expected': `{"action":"restart","tunnels":${'['.repeat(deep)}${']'.repeat(deep)}}`,
    'has __proto__': '{"action":"restart","__proto__":{"all":true}}',
    'has __proto__ beside': '{"action":"restart","all":true,"__proto__":{"force":true}}',
    'has constructor': '{"action":"restart","constructor":{"prototype":{"all":true}}}',
    'has toString': '{"action":"restart","tunnels":["toString"]}',
    'has what nobody knows': '{"action":"restart","all":true,"wait":true}',
    'says one thing twice': '{"action":"restart","all":true,"all":false}',
    'says all and some': '{"action":"restart","all":true,"tunnels":["victim"]}',
    'says nobody': '{"action":"restart"}',
    'says no tunnel': '{"action":"restart","tunnels":[]}',
    'says a list of lists': '{"action":"restart","tunnels":[["victim"]]}',
    'says a number': '{"action":"restart","tunnels":[1]}',
    'says true in letters': '{"action":"restart","all":"true"}',
    'says true as a number': '{"action":"restart","all":1}',
    'says another action': '{"action":"delete","all":true}',
    'says an inherited action': '{"action":"constructor","all":true}',
    'says two actions': '{"action":["restart","stop"],"all":true}',
    'says a long name': JSON.stringify({ action: 'restart', tunnels: ['x'.repeat(60_000)] }),
    'says many names': JSON.stringify({ action: 'restart', tunnels: Array(12_000).fill('v') }),
    'says a name and one that nobody has': '{"action":"restart","tunnels":["victim","nobody"]}',
  };
  return Object.entries(bodies).map(([name, body]): Attack => {
    const length = Buffer.byteLength(body);
    const headers = [hostOf(aim), bearer(aim), 'Content-Type: application/json', `Content-Length: ${length}`];
    const expected = /^(400 ERR_BAD_REQUEST|404 ERR_TUNNEL_UNKNOWN)$/;
    return { kind: 'body', name, bytes: [request(operations, headers, body)], expected };
  });
}

/** Where does a request end, and is there another in it? The second one, where there is one, has no token. */
function framingAttacks(aim: Aim): Attack[] {
  const json = 'Content-Type: application/json';
  const inner = request(restart, [hostOf(aim), 'Connection: close']);
  const right = request(restart, [hostOf(aim), bearer(aim)]);
  const attack = (
    name: string,
    headers: readonly string[],
    body: string | Buffer,
    expected = bad,
    line = operations,
  ): Attack => {
    return { kind: 'framing', name, bytes: [request(line, [hostOf(aim), bearer(aim), ...headers], body)], expected };
  };
  const length = `Content-Length: ${order.length}`;
  const chunked = `${order.length.toString(16)}\r\n${order}\r\n0\r\n\r\n`;
  const smuggled = Buffer.concat([Buffer.from('0\r\n\r\n'), right]);
  return [
    attack('has two lengths', [json, length, 'Content-Length: 0'], order),
    attack('has a length twice', [json, length, length], order),
    attack(
      'has a length and is chunked',
      [json, `Content-Length: ${smuggled.length}`, 'Transfer-Encoding: chunked'],
      smuggled,
    ),
    attack(
      'is chunked and has a length',
      [json, 'Transfer-Encoding: chunked', `Content-Length: ${smuggled.length}`],
      smuggled,
    ),
    ...['-1', '+31', '1e3', '0x1f', '31, 31', '31 31', 'NaN', '', '99999999999999999999', '3\x001'].map((text) => {
      return attack(`has the length '${text}'`, [json, `Content-Length: ${text}`], order);
    }),
    ...['xchunked', 'chunked, identity', 'identity', 'chunked\0', ' chunked x', 'chunked;q=1'].map((text) => {
      return attack(`has the encoding '${text}'`, [json, `Transfer-Encoding: ${text}`], chunked, /^(400|501)/);
    }),
    attack('is chunked with a blank before the colon', [json, 'Transfer-Encoding : chunked'], chunked),
    attack('is chunked by a length that is none', [json, 'Transfer-Encoding: chunked'], `zz\r\n${order}\r\n0\r\n\r\n`),
    attack('is chunked by a negative length', [json, 'Transfer-Encoding: chunked'], `-1\r\n${order}\r\n0\r\n\r\n`),
    attack('is chunked by an endless length', [json, 'Transfer-Encoding: chunked'], `${'f'.repeat(40)}\r\n${order}`),
    attack('is chunked with a bare line feed', [json, 'Transfer-Encoding: chunked'], `1f\n${order}\n0\n\n`, /^(400|0)/),
    attack(
      'is chunked with long words behind the length',
      [json, 'Transfer-Encoding: chunked'],
      `1;${'x'.repeat(60_000)}\r\n`,
      /^(400|413)/,
    ),
    attack(
      'is chunked with a Host behind it',
      [json, 'Transfer-Encoding: chunked', 'Trailer: Host'],
      '0\r\nHost: evil.example\r\n\r\n',
      /^(400|415)/,
    ),
    {
      ...attack('has another behind it, without a token', [], ''),
      bytes: [request('GET /livez HTTP/1.1', [hostOf(aim)]), inner],
      expected: /^200 then 401$/,
      how: { untilClosed: true },
    },
    {
      ...attack('has another inside, with the token', [], ''),
      bytes: [request('GET /livez HTTP/1.1', [hostOf(aim), `Content-Length: ${right.length}`], right)],
      expected: /^415 ERR_MEDIA_TYPE$/,
      how: { lingerMs: 500 },
    },
    {
      ...attack('has another inside that is refused before it is read', [], ''),
      bytes: [request(operations, [hostOf(aim), `Content-Length: ${right.length}`], right)],
      expected: /^401/,
      how: { lingerMs: 500 },
    },
    {
      ...attack('has another inside that is too large to be read', [], ''),
      bytes: [
        request(operations, [hostOf(aim), bearer(aim), json, `Content-Length: ${70_000 + right.length}`]),
        Buffer.alloc(70_000, ' '),
        right,
      ],
      expected: /^413/,
      how: { lingerMs: 500 },
    },
  ];
}

function sizeAttacks(aim: Aim): Attack[] {
  const json = 'Content-Type: application/json';
  const million = 'x'.repeat(1_000_000);
  const attack = (
    name: string,
    line: string,
    headers: readonly string[],
    body: readonly (string | Buffer)[],
    expected: RegExp,
  ): Attack => {
    return { kind: 'size', name, bytes: [request(line, [hostOf(aim), ...headers]), ...body], expected };
  };
  const chunks = [...Array(40).fill(`6400\r\n${' '.repeat(0x6400)}\r\n`), '0\r\n\r\n'];
  return [
    attack('a header of 1 MB', restart, [bearer(aim), `X: ${million}`], [], /^431/),
    attack('3,000 headers', restart, [bearer(aim), ...Array(3000).fill('X: y')], [], bad),
    attack(
      'a foreign Origin behind 2,000 headers',
      restart,
      [bearer(aim), ...Array(2000).fill('X: y'), 'Origin: https://evil.example'],
      [],
      bad,
    ),
    attack(
      'a second Host behind 2,000 headers',
      restart,
      [bearer(aim), ...Array(2000).fill('X: y'), 'Host: evil.example'],
      [],
      bad,
    ),
    attack('a cookie of 1 MB', restart, [`Cookie: ${million}`], [], /^431/),
    attack('a target of 1 MB', `POST /${million} HTTP/1.1`, [bearer(aim)], [], /^(431|414)/),
    attack('a method of 1 MB', `${million} / HTTP/1.1`, [bearer(aim)], [], bad),
    attack(
      'a body of 1 MB',
      operations,
      [bearer(aim), json, 'Content-Length: 1000000'],
      [million],
      /^413 ERR_BODY_TOO_LARGE$/,
    ),
    attack(
      'a body of 1 MB in chunks',
      operations,
      [bearer(aim), json, 'Transfer-Encoding: chunked'],
      chunks,
      /^413 ERR_BODY_TOO_LARGE$/,
    ),
    attack(
      'a body of 1 MB, without a token',
      operations,
      [json, 'Content-Length: 1000000'],
      [million],
      /^401 ERR_UNAUTHORIZED$/,
    ),
    attack(
      'a body of 1 MB in chunks, without a token',
      operations,
      [json, 'Transfer-Encoding: chunked'],
      chunks,
      /^401 ERR_UNAUTHORIZED$/,
    ),
    attack(
      'a body of 100 GB, announced',
      operations,
      [bearer(aim), json, 'Content-Length: 107374182400'],
      ['x'],
      /^413/,
    ),
    attack(
      'a token of 64 KB, to log in',
      'POST /v1/session HTTP/1.1',
      [json, 'Content-Length: 60012'],
      [JSON.stringify({ token: 'x'.repeat(60_000) })],
      /^400/,
    ),
    attack(
      'a query of 15 KB',
      restart.replace(' HTTP', `?force=${'x'.repeat(15_000)} HTTP`),
      [bearer(aim)],
      [],
      /^(400|431)/,
    ),
    attack('a query of many names', restart.replace(' HTTP', `?${'a=&'.repeat(3000)} HTTP`), [bearer(aim)], [], bad),
    attack(
      'force twice',
      restart.replace(' HTTP', '?force=false&force=true HTTP'),
      [bearer(aim)],
      [],
      /^400 ERR_BAD_REQUEST$/,
    ),
    attack(
      'force as nobody writes it',
      restart.replace(' HTTP', '?force=1 HTTP'),
      [bearer(aim)],
      [],
      /^400 ERR_BAD_REQUEST$/,
    ),
    attack(
      'force in capitals',
      restart.replace(' HTTP', '?FORCE=true HTTP'),
      [bearer(aim)],
      [],
      /^400 ERR_BAD_REQUEST$/,
    ),
  ];
}
