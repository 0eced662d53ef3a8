import { isIP } from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  bindSet,
  describeSpec,
  entryOf,
  formatEndpoint,
  formatHop,
  forwardOf,
  type Hop,
  isListenHost,
  isSafeDestination,
  isSameSpec,
  normalizeAddress,
  parseEndpoint,
  parseHop,
  serverOf,
  tunnelId,
} from '#lib/tunnel/spec.js';
import { makeSpec } from '../support/specs.js';

describe('tunnelId()', () => {
  const plain = { name: 'unnamed', direction: 'remote_to_local', interactive: 'false' };

  it('is the ancestor’s', () => {
    const one = { ...plain, remoteHost: 'user@remote-host1', remotePort: '8000', localPort: '8001' };
    const two = { ...plain, remoteHost: 'user@remote-host2', remotePort: '9000', localPort: '9001' };
    const jump = { ...plain, remoteHost: 'user@jumphost.example.com', remotePort: '22', localPort: '2222' };
    expect(tunnelId(one)).to.equal('76692f8a1adb8d8bee5f3b29e1b42602');
    expect(tunnelId(two)).to.equal('5657c75272242354bb96bfe914951bfd');
    expect(tunnelId({ ...jump, name: 'jumphost-tunnel', interactive: 'true' })).to.equal(
      'c65f58326bea843a8439fbe9b8e887b2',
    );
  });

  it('is made of each of the six fields', () => {
    const fields = { ...plain, remoteHost: 'h', remotePort: '80', localPort: '81' };
    const ids = Object.keys(fields).map((key) => tunnelId({ ...fields, [key]: 'other' }));
    expect(new Set([tunnelId(fields), ...ids]).size).to.equal(7);
  });
});

describe('parseEndpoint()', () => {
  const good: [string, { host: string; port: number }][] = [
    ['9443', { host: 'localhost', port: 9443 }],
    [' 9443 ', { host: 'localhost', port: 9443 }],
    [':9443', { host: 'localhost', port: 9443 }],
    ['db.internal:5432', { host: 'db.internal', port: 5432 }],
    ['127.0.0.2:1', { host: '127.0.0.2', port: 1 }],
    ['*:65535', { host: '*', port: 65535 }],
    ['[::1]:9443', { host: '::1', port: 9443 }],
    ['[fe80::1%eth0]:80', { host: 'fe80::1%eth0', port: 80 }],
  ];
  for (const [text, endpoint] of good) {
    it(`reads '${text}'`, () => expect(parseEndpoint(text)).to.deep.equal(endpoint));
  }

  const bad: [string, RegExp][] = [
    ['', /^expected a port, host:port or \[IPv6 address\]:port, found ''$/],
    ['0', /^expected a port from 1 to 65535, found 0$/],
    ['65536', /from 1 to 65535, found 65536/],
    ['9'.repeat(400), /from 1 to 65535/],
    ['web', /found 'web'/],
    ['web:', /found 'web:'/],
    ['::1:9443', /\[IPv6 address\]:port/],
    ['[127.0.0.1]:80', /expected an IPv6 address in brackets, found '127.0.0.1'/],
    ['-oProxyCommand=x:80', /expected a host name or an address/],
    ['web host:80', /expected a host name or an address/],
    ['web:8０', /expected a port/],
    ['web:80\nx', /expected a port/],
  ];
  for (const [text, message] of bad) {
    it(`refuses '${text.slice(0, 20).replace('\n', '\\n')}' and says why`, () => {
      expect(parseEndpoint(text)).to.match(message);
    });
  }

  it('reads what formatEndpoint() writes', () => {
    const hosts = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('localhost', '*', 'web-1.example'));
    fc.assert(
      fc.property(hosts, fc.integer({ min: 1, max: 65535 }), (host, port) => {
        expect(parseEndpoint(formatEndpoint({ host, port }))).to.deep.equal({ host, port });
      }),
    );
  });
});

describe('bindSet()', () => {
  const bind = (host: string, { side = 'local', v6 = true }: { side?: 'local' | 'remote'; v6?: boolean } = {}) =>
    bindSet({ side, listen: { host, port: 1 }, target: { host: 'x', port: 2 } }, v6).map((one) => one.host);

  it('is both loopback addresses for localhost, where this host has both', () => {
    expect(bind('localhost')).to.deep.equal(['127.0.0.1', '::1']);
    expect(bind('localhost', { v6: false })).to.deep.equal(['127.0.0.1']);
  });

  it('is every address of both families for *', () => {
    expect(bind('*')).to.deep.equal(['0.0.0.0', '::']);
    expect(bind('*', { v6: false })).to.deep.equal(['0.0.0.0']);
  });

  it('is what is said on the far side, whose addresses cannot be known', () => {
    expect(bind('localhost', { side: 'remote' })).to.deep.equal(['127.0.0.1']);
    expect(bind('*', { side: 'remote' })).to.deep.equal(['*']);
    expect(bind('10.0.0.1', { side: 'remote' })).to.deep.equal(['10.0.0.1']);
  });

  it('writes an IPv6 address as the kernel’s tables are read', () => {
    expect(bind('0:0:0:0:0:0:0:1')).to.deep.equal(['::1']);
    expect(bind('FE80::AB')).to.deep.equal(['fe80::ab']);
    expect(bind('fe80::1%eth0')).to.deep.equal(['fe80::1%eth0']);
  });
});

describe('normalizeAddress()', () => {
  it('leaves one form for each address, which is an address', () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        const normal = normalizeAddress(address);
        expect(isIP(normal)).to.equal(6);
        expect(normalizeAddress(normal.toUpperCase())).to.equal(normal);
      }),
    );
  });
});

describe('forwardOf()', () => {
  const local = { host: 'localhost', port: 8001 };
  const remote = { host: 'db', port: 8000 };

  it('brings a remote service here, and offers a local one there', () => {
    const here = { side: 'local', listen: local, target: remote };
    const there = { side: 'remote', listen: remote, target: local };
    expect(forwardOf('remote_to_local', 'default', local, remote)).to.deep.equal(here);
    expect(forwardOf('local_to_remote', 'default', local, remote)).to.deep.equal(there);
  });

  it('is the other way round in the mode ssh-standard', () => {
    expect(forwardOf('remote_to_local', 'ssh-standard', local, remote).side).to.equal('remote');
    expect(forwardOf('local_to_remote', 'ssh-standard', local, remote).side).to.equal('local');
  });
});

describe('describeSpec()', () => {
  it('is the start line, addresses as configured', () => {
    const spec = makeSpec({ remoteHost: 'cloud.kor1', localPort: '9443', remotePort: '9443' });
    const inward = { ...spec, direction: 'remote_to_local' as const };
    expect(describeSpec(inward)).to.equal('(remote to local): localhost:9443 <- cloud.kor1:9443');
    expect(describeSpec(spec)).to.equal('(local to remote): localhost:9443 -> cloud.kor1:9443');
    expect(describeSpec({ ...inward, localPort: '0.0.0.0:9443', remotePort: 'db:5432' })).to.equal(
      '(remote to local): 0.0.0.0:9443 <- cloud.kor1:db:5432',
    );
  });
});

describe('isSameSpec()', () => {
  it('does not mind the order of what is said, but every word of it', () => {
    const one = makeSpec({ sshOptions: { Port: '22', User: 'a' } });
    const { id, ...rest } = makeSpec({ sshOptions: { User: 'a', Port: '22' } });
    expect(isSameSpec(one, { ...rest, id })).to.equal(true);
    expect(isSameSpec(one, { ...one, groups: ['a'], enabled: false }), 'labels').to.equal(true);
    expect(isSameSpec(one, { ...one, sshOptions: { Port: '2222', User: 'a' } })).to.equal(false);
    expect(isSameSpec(one, { ...one, jump: [{ destination: 'bastion', port: null }] })).to.equal(false);
    expect(isSameSpec(one, { ...one, backoff: { ...one.backoff, maxMs: 1 } })).to.equal(false);
    const person = { ...one, interactive: true };
    const next = {
      takeover: 'any',
      startTimeoutMs: 1,
      backoff: { ...one.backoff, maxMs: 1 },
      authRetry: 'never',
    } as const;
    expect(isSameSpec(person, { ...person, ...next, restartTimeoutMs: 1 }), 'for its next start').to.equal(true);
    expect(isSameSpec(person, { ...person, ...next, sshOptions: { Port: '2222' } })).to.equal(false);
    expect(isSameSpec(person, { ...one, ...next })).to.equal(false);
  });
});

describe('serverOf()', () => {
  const server = (remoteHost: string, sshOptions: Record<string, string> = {}, jump: readonly Hop[] = []) =>
    serverOf({ remoteHost, sshOptions, jump });

  it('is the same whoever logs in, and another on another port', () => {
    expect(server('me@Web')).to.equal(server('web'));
    expect(server('alias', { HostName: 'web' })).to.equal(server('web'));
    expect(server('web', { Port: '2222' })).not.to.equal(server('web'));
    expect(server('web')).not.to.equal(server('db'));
  });

  it('is another behind another host', () => {
    const [one, other] = [
      { destination: 'a', port: null },
      { destination: 'b', port: null },
    ];
    expect(server('10.0.0.1', {}, [one])).to.equal(server('me@10.0.0.1', {}, [one]));
    expect(server('10.0.0.1', {}, [one])).not.to.equal(server('10.0.0.1', {}, [other]));
    expect(server('10.0.0.1', {}, [one])).not.to.equal(server('10.0.0.1'));
  });
});

describe('entryOf()', () => {
  it('is the first host on the way, whoever logs in', () => {
    const entry = (jump: string[]) => {
      const hops = jump.map(parseHop).flatMap((hop) => (typeof hop === 'string' ? [] : hop));
      return entryOf({ remoteHost: 'me@web', sshOptions: {}, jump: hops });
    };
    expect(entry([])).to.equal('web');
    expect(entry(['me@Bastion', 'other'])).to.equal(entry(['bastion']));
    expect(entry(['bastion:2222'])).not.to.equal(entry(['bastion']));
  });
});

describe('parseHop()', () => {
  const good: [string, string, number | null][] = [
    ['bastion', 'bastion', null],
    ['me@bastion:2222', 'me@bastion', 2222],
    ['10.0.0.1:22', '10.0.0.1', 22],
    ['[::1]:22', '::1', 22],
    ['me@[fe80::1]', 'me@fe80::1', null],
    ['::1', '::1', null],
  ];
  for (const [text, destination, port] of good) {
    it(`reads ${text}`, () => {
      const hop = parseHop(text);
      expect(hop).to.deep.equal({ destination, port });
      if (typeof hop !== 'string') expect(parseHop(formatHop(hop)), 'and what it writes').to.deep.equal(hop);
    });
  }

  const bad = [
    '',
    '-oProxyCommand=x',
    'a b',
    'me@',
    '@a',
    'a:',
    'a:0',
    'a:65536',
    'a:b',
    "a'b",
    '$(x)',
    '[a]:22',
    '::1:x',
    'a;b',
    '%h',
  ];
  for (const text of bad) {
    it(`says what is wrong with '${text}'`, () => expect(parseHop(text)).to.match(/^expected .* found /));
  }
});

describe('isListenHost()', () => {
  it('takes what can be bound and probed, and no names', () => {
    for (const host of ['localhost', '*', '127.0.0.1', '::1']) expect(isListenHost(host)).to.equal(true);
    for (const host of ['web', '', '127.1', '[::1]']) expect(isListenHost(host)).to.equal(false);
  });
});

describe('what a stranger may write as a host, a user or a port', () => {
  const good = ['web', 'user@web', 'user@[::1]', '::1', '10.0.0.1', 'git_user@web-1.example.com', 'a.b@c'];
  const bad = [
    ...['', '@', 'user@', '@host', '-oProxyCommand=x', 'user@-oProxyCommand=x', '-l@host', 'a@b@c', '.hidden'],
    ...['web host', 'web\n', 'web\0', '$(id)', '`id`', 'a;b', 'a|b', 'héte', 'web/x', 'ssh://web', 'a'.repeat(256)],
    ...['[web', 'web]', '[::1', '--', 'web\r', 'a%h', 'a&&b', "a'b", 'a"b', '~root', 'web:22'],
  ];

  it('is a destination or it is refused', () => {
    expect(good.filter((text) => !isSafeDestination(text))).to.deep.equal([]);
    expect(bad.filter((text) => isSafeDestination(text))).to.deep.equal([]);
  });

  it('is harmless to ssh when it is taken, in 2000 hostile strings', () => {
    const piece = fc.oneof(
      fc.constantFrom('-', '--', '-o', '=', ' ', '\n', '\r', '\0', '@', '$(id)', '`id`', ';', '|', '&', '%h', '\u202e'),
      fc.constantFrom('ProxyCommand', 'host', 'root', '::1', '[', ']', ':', '127.0.0.1', '../', '~', 'ｈ', '\u001b[2J'),
      fc.string({ unit: 'binary', maxLength: 8 }),
    );
    const hostile = fc.oneof(
      fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join('')),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }),
      fc.constant('a'.repeat(65_536)),
    );
    let taken = 0;
    fc.assert(
      fc.property(hostile, (text) => {
        if (isSafeDestination(text)) {
          taken++;
          expect(text).to.match(/^(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?\[?[A-Za-z0-9_:][A-Za-z0-9._:%-]*\]?$/);
          expect(text.length).to.be.at.most(520);
        }
        const endpoint = parseEndpoint(text);
        if (typeof endpoint === 'string') return;
        expect(endpoint.host).to.match(/^(?:\*|[A-Za-z0-9_:][A-Za-z0-9._:%-]*)$/);
        expect(endpoint.port).to.be.within(1, 65535);
      }),
      { numRuns: 2000 },
    );
    // Else nothing of this would have been looked at.
    expect(taken).to.be.greaterThan(0);
  });
});
