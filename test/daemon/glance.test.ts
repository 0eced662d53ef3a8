import { expect } from 'chai';
import fc from 'fast-check';
import { parseConfig } from '#lib/daemon/config.js';
import { glanceAtSocket } from '#lib/daemon/glance.js';
import { isTunwardError } from '#lib/errors.js';

describe('glanceAtSocket()', () => {
  const plain: readonly [string, string, string | null][] = [
    ['a file without an api', 'tunnels: []\n', null],
    ['an empty one', '', null],
    ['one line', 'api: { socket: /run/a.sock }\ntunnels: []\n', '/run/a.sock'],
    ['one line of JSON', 'api: {"socket":"/run/a.sock"} # here\n', '/run/a.sock'],
    [
      'a block',
      'tunnels:\n- name: web\napi:\n  # where\n  socket: /run/a.sock # here\n\n  listen: 127.0.0.1:7420\n',
      '/run/a.sock',
    ],
    [
      'a block in quotes, with other line ends',
      '---\r\napi:\r\n    socket: "/run/a-b_1.sock"\r\ntunnels: []\r\n',
      '/run/a.sock'.replace('a', 'a-b_1'),
    ],
    ['a block without a socket', 'api:\n  listen: localhost:7420\n', null],
    ['a block with nothing', 'api:\ntunnels: []\n', null],
    ['a tunnel with a key of that name', 'tunnels:\n  - name: x\n    api: { socket: /run/b.sock }\n', null],
  ];
  for (const [what, text, socket] of plain) {
    it(`reads ${what}`, () => expect(glanceAtSocket(text)).to.equal(socket));
  }

  const left: readonly [string, string][] = [
    ['a path from a folder', 'api: { socket: run/a.sock }\n'],
    ['a path from home', 'api:\n  socket: ~/a.sock\n'],
    ['an anchor and its alias', 'x: &x\n  socket: /run/a.sock\napi: *x\n'],
    ['a merge', '<<: *x\napi:\n  socket: /run/a.sock\n'],
    ['a key in quotes', '"api":\n  socket: /run/a.sock\n'],
    ['a blank before the colon', 'api :\n  socket: /run/a.sock\n'],
    ['a key that is there twice', 'api: {socket: /run/a.sock}\napi: {socket: /run/b.sock}\n'],
    ['a socket that is there twice', 'api:\n  socket: /run/a.sock\n  socket: /run/b.sock\n'],
    ['a document of one line', '{ api: { socket: /run/a.sock } }\n'],
    ['a second document', 'tunnels: []\n--- { api: { socket: /run/a.sock } }\n'],
    ['a text of several lines', 'api:\n  token_file: |\n    socket: /run/a.sock\n'],
    ['a mapping below the mapping', 'api:\n  socket:\n    x: /run/a.sock\n'],
    ['more on the line', 'api: { socket: /run/a.sock, listen: "127.0.0.1:1" }\n'],
    ['a path with blanks', 'api:\n  socket: /run/my daemon.sock\n'],
    ['a tag', 'api: !!map { socket: /run/a.sock }\n'],
    ['a directive', '%YAML 1.2\n---\napi: { socket: /run/a.sock }\n'],
    ['a mark at the beginning', '\ufeffapi: { socket: /run/a.sock }\n'],
  ];
  for (const [what, text] of left) {
    it(`leaves ${what} to the parser`, () => expect(glanceAtSocket(text)).to.equal(undefined));
  }

  it('never says anything else than the parser does', () => {
    const options = { file: '/etc/tunward/tunward.yaml', env: { HOME: '/root' }, uid: 0, hasIpv6Loopback: true };
    const parsed = (text: string): string | undefined => {
      try {
        return parseConfig(text, options).api.socket;
      } catch (error) {
        if (isTunwardError(error, 'ERR_CONFIG_INVALID')) return undefined;
        throw error;
      }
    };
    const pieces = fc.constantFrom(
      ...[
        'api:',
        'api: ',
        'socket:',
        'socket: ',
        '"socket":',
        '/run/a.sock',
        '"/run/b.sock"',
        ' ',
        '  ',
        '    ',
        '\n',
        '{',
        '}',
      ],
      ...[
        'listen: 127.0.0.1:7420',
        'token_file: /t',
        'tunnels: []',
        'tunnels:',
        '- x',
        '#',
        ' #c',
        '|',
        '>',
        '---',
        '&a ',
        '*a',
        '\t',
        '\r\n',
        ',',
      ],
    );
    let seen = 0;
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 14 }), (words) => {
        const text = words.join('');
        const glance = glanceAtSocket(text);
        if (glance === undefined) return;
        const socket = parsed(text);
        // What is no configuration has no daemon either.
        if (socket === undefined) return;
        seen++;
        expect(glance ?? '/run/tunward/tunward.sock', JSON.stringify(text)).to.equal(socket);
      }),
      { numRuns: 3000 },
    );
    expect(seen).to.be.greaterThan(50);
  });
});
