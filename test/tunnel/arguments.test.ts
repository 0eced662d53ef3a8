import { expect } from 'chai';
import fc from 'fast-check';
import {
  describeSshCommand,
  destinationArguments,
  isSameListeningEnd,
  parseForward,
  parseSshCommand,
  parseSshFacts,
  type SshFacts,
  sshArguments,
} from '#lib/tunnel/arguments.js';
import { bindSet, type Forward, type Side, type TunnelSpec } from '#lib/tunnel/spec.js';
import { makeSpec } from '../support/specs.js';

const asking: SshFacts = {
  user: 'root',
  hostname: '10.0.0.1',
  port: '22',
  strictHostKeyChecking: 'ask',
  userKnownHostsFile: '/home/u/.ssh/known_hosts /home/u/.ssh/known_hosts2',
  identityFiles: [],
  identityAgent: 'SSH_AUTH_SOCK',
  proxyJump: null,
  proxyCommand: null,
  canFork: true,
};

const kept = '/var/lib/tunward/known_hosts';

/** The command line of a spec on a host with ::1, and the `-o` options in it, in order. */
function commandOf(spec: TunnelSpec, facts: SshFacts = asking, knownHosts: string | null = kept) {
  const words = sshArguments(spec, bindSet(spec.forward, true), facts, { knownHosts });
  const valuesOf = (flag: string) => words.filter((_word, at) => words[at - 1] === flag);
  return { words, options: valuesOf('-o'), valuesOf };
}

describe('parseSshFacts()', () => {
  it('reads what decides where ssh goes and whom it trusts', () => {
    const printed = [
      ...['host web', 'user me', 'hostname web.example', 'port 2222', 'forkafterauthentication no'],
      ...['stricthostkeychecking true', 'userknownhostsfile /a /b c', 'identityfile ~/.ssh/id_rsa', 'identityfile /k'],
      ...['proxyjump me@bastion:2222,[::1]:22', ''],
    ].join('\n');
    expect(parseSshFacts(printed)).to.deep.equal({
      user: 'me',
      hostname: 'web.example',
      port: '2222',
      strictHostKeyChecking: 'true',
      userKnownHostsFile: '/a /b c',
      identityFiles: ['~/.ssh/id_rsa', '/k'],
      identityAgent: 'SSH_AUTH_SOCK',
      proxyJump: 'me@bastion:2222,[::1]:22',
      proxyCommand: null,
      canFork: true,
    });
  });

  it('tells which agent is asked', () => {
    expect(parseSshFacts('identityagent none\n').identityAgent).to.equal('none');
  });

  it('knows an ssh that cannot be told not to fork', () => {
    expect(parseSshFacts('user me\nhostname web\n').canFork).to.equal(false);
  });
});

describe('sshArguments()', () => {
  it('is the whole command line, and ends with the destination', () => {
    const { words } = commandOf(makeSpec({ side: 'local' }));
    expect(words).to.deep.equal([
      ...['-N', '-T', '-S', 'none'],
      ...['-o', 'ControlMaster=no', '-o', 'ControlPersist=no', '-o', 'ExitOnForwardFailure=yes'],
      ...['-o', 'ClearAllForwardings=no', '-o', 'PermitLocalCommand=no', '-o', 'BatchMode=yes'],
      ...['-o', 'LogLevel=INFO', '-o', 'ForkAfterAuthentication=no'],
      ...['-o', 'ServerAliveInterval=15', '-o', 'ServerAliveCountMax=3', '-o', 'ConnectTimeout=10'],
      ...['-o', 'StrictHostKeyChecking=accept-new', '-o', `UserKnownHostsFile="${kept}" ${asking.userKnownHostsFile}`],
      ...['-L', '127.0.0.1:9443:localhost:443', '-L', '[::1]:9443:localhost:443'],
      ...['--', 'user@web.example'],
    ]);
  });

  it('puts what must hold before what the spec says, and that before what it may change', () => {
    const sshOptions = { ServerAliveInterval: '5', ControlMaster: 'auto', Port: '2222' };
    const { options } = commandOf(makeSpec({ sshOptions }));
    const at = (option: string) => options.indexOf(option);
    expect(at('ControlMaster=no')).to.be.within(0, at('ControlMaster=auto'));
    expect(at('ServerAliveInterval=5')).to.be.within(0, at('ServerAliveInterval=15'));
    expect(at('Port=2222')).to.be.greaterThan(-1);
  });

  it('names every address that it binds', () => {
    const listen = { host: '*', port: 80 };
    expect(commandOf(makeSpec({ side: 'local', listen })).valuesOf('-L')).to.deep.equal([
      '0.0.0.0:80:localhost:443',
      '[::]:80:localhost:443',
    ]);
    expect(commandOf(makeSpec({ side: 'remote', listen })).valuesOf('-R')).to.deep.equal(['*:80:localhost:443']);
  });

  it('lets ssh say that a remote forward was granted, and be quiet otherwise', () => {
    expect(commandOf(makeSpec({ side: 'remote' })).options).to.include('LogLevel=DEBUG1');
    expect(commandOf(makeSpec({ side: 'local' })).options).to.include('LogLevel=INFO');
  });

  it('takes a host key at the first meeting only where ssh would ask', () => {
    for (const checking of ['true', 'yes', 'no', 'false', 'off', 'accept-new']) {
      const { words } = commandOf(makeSpec(), { ...asking, strictHostKeyChecking: checking });
      expect(words.join(' ')).not.to.match(/StrictHostKeyChecking|UserKnownHostsFile/);
    }
  });

  it('leaves the person’s known hosts alone when it has no file of its own', () => {
    const { options } = commandOf(makeSpec(), asking, null);
    expect(options).to.include('StrictHostKeyChecking=accept-new');
    expect(options.join(' ')).not.to.include('UserKnownHostsFile');
  });

  it('does not add to none, which must stand alone', () => {
    const { options } = commandOf(makeSpec(), { ...asking, userKnownHostsFile: 'none' });
    expect(options).to.include(`UserKnownHostsFile="${kept}"`);
  });

  it('writes a path as ssh reads it', () => {
    const { options } = commandOf(makeSpec(), { ...asking, userKnownHostsFile: 'none' }, '/a b/100%/"x"\\y');
    expect(options).to.include('UserKnownHostsFile="/a b/100%%/\\"x\\"\\\\y"');
  });

  it('does not tell an old ssh what it does not know', () => {
    const { options } = commandOf(makeSpec(), { ...asking, canFork: false });
    expect(options.join(' ')).not.to.include('ForkAfterAuthentication');
  });
});

describe('destinationArguments()', () => {
  it('are the words that decide where it goes', () => {
    const spec = makeSpec({ sshConfig: '/c', identityFile: '/k', sshOptions: { Port: '22' }, remoteHost: 'me@[::1]' });
    expect(destinationArguments(spec)).to.deep.equal(['-F', '/c', '-i', '/k', '-o', 'Port=22', '--', 'me@::1']);
    expect(destinationArguments(makeSpec())).to.deep.equal(['--', 'user@web.example']);
  });
});

describe('parseForward()', () => {
  const good: [string, { host: string; port: number }, { host: string; port: number }][] = [
    ['9443:localhost:443', { host: 'localhost', port: 9443 }, { host: 'localhost', port: 443 }],
    ['127.0.0.2:9443:db:5432', { host: '127.0.0.2', port: 9443 }, { host: 'db', port: 5432 }],
    ['[::1]:9443:[fe80::2]:22', { host: '::1', port: 9443 }, { host: 'fe80::2', port: 22 }],
    ['*:9443:h:1', { host: '*', port: 9443 }, { host: 'h', port: 1 }],
    [':9443:h:1', { host: '*', port: 9443 }, { host: 'h', port: 1 }],
    ['0:h:1', { host: 'localhost', port: 0 }, { host: 'h', port: 1 }],
  ];
  for (const [text, listen, target] of good) {
    it(`reads ${text}`, () => expect(parseForward('local', text)).to.deep.equal({ side: 'local', listen, target }));
  }

  const bad = [
    ...['', ':', '9443', '9443:h', '9443:h:', 'x:h:1', '9443:h:x', '9443:h:1:', '::9443:h:1', '1:2:3:4:5', '99999:h:1'],
    ...['9443:/run/x.sock', '/run/x.sock:h:22', '/run/x.sock', '127.0.0.1:9443:/run/x.sock', '9443:/run/x:22'],
    ...['[::1:9443:h:1', '[::1]x:9443:h:1', '9443::1', '9443:h]:1', '\n9443:h:1', '9443:h:99999'],
  ];
  for (const text of bad) {
    it(`takes '${text.replace('\n', '\\n')}' for no forward from port to port`, () => {
      expect(parseForward('local', text)).to.equal(undefined);
    });
  }
});

describe('parseSshCommand()', () => {
  const web = { side: 'local', listen: { host: 'localhost', port: 9443 }, target: { host: 'localhost', port: 443 } };

  function parse(line: string, program: 'ssh' | 'autossh' = 'ssh') {
    return parseSshCommand([program, ...line.split(' ')], program);
  }

  const same = [
    '-N -L 9443:localhost:443 user@web',
    '-NL 9443:localhost:443 user@web',
    '-fN -L9443:localhost:443 user@web',
    '-fNTL9443:localhost:443 user@web',
    'user@web -N -L 9443:localhost:443',
    '-N user@web -L 9443:localhost:443',
    '-L 9443:localhost:443 -N -- user@web',
    '-N -v -C -o ExitOnForwardFailure=yes -L 9443:localhost:443 -E /log -S none user@web',
    '-N -D 1080 -L 9443:localhost:443 user@web',
  ];
  for (const line of same) {
    it(`understands ssh ${line}`, () => {
      expect(parse(line)).to.deep.equal({ destination: 'user@web', forwards: [web], destinationWords: [] });
    });
  }

  for (const line of ['-M 0 -N -L 9443:localhost:443 user@web', '-M0 -fN -L 9443:localhost:443 user@web']) {
    it(`understands autossh ${line}`, () => {
      expect(parse(line, 'autossh')?.forwards).to.deep.equal([web]);
    });
  }

  const others = [
    ['no -N', '-L 9443:localhost:443 user@web'],
    ['a command', '-N -L 9443:localhost:443 user@web sleep 60'],
    ['a command behind --', '-N -L 9443:localhost:443 -- user@web -v'],
    ['no forward', '-N user@web'],
    ['only a SOCKS proxy', '-N -D 1080 user@web'],
    ['no destination', '-N -L 9443:localhost:443'],
    ['a letter that ssh does not know', '-N -z -L 9443:localhost:443 user@web'],
    ['a letter that ssh does not know, in a cluster', '-Nz -L 9443:localhost:443 user@web'],
    ['a long option', '--help -N -L 9443:localhost:443 user@web'],
    ['a missing value', '-N user@web -L 9443:localhost:443 -p'],
    ['a colon for a letter', '-N: -L 9443:localhost:443 user@web'],
    ['a unix socket here', '-N -L /run/x.sock:localhost:443 user@web'],
    ['a unix socket there', '-N -L 9443:/run/x.sock user@web'],
    ['one forward of two that is to a path', '-N -L 9443:localhost:443 -L 1:/run/x user@web'],
    ['a port that it is to choose', '-N -R 9443 user@web'],
  ];
  for (const [what, line] of others) {
    it(`takes ${what} for no tunnel of ours: ${line}`, () => expect(parse(line ?? '')).to.equal(undefined));
  }

  it('is no autossh for ssh: -M has a value there alone', () => {
    expect(parse('-M 0 -N -L 9443:localhost:443 user@web')).to.equal(undefined);
    expect(parse('-M -N -L 9443:localhost:443 user@web')?.destination).to.equal('user@web');
  });

  it('keeps the words that decide where it goes, and no others', () => {
    const line =
      '-N -p22 -lme -F /cfg -i /key -o HostName=10.0.0.1 -oPort=2222 -o user=x -o HostKeyAlias=a -o BatchMode=yes -R 1:h:2 web';
    expect(parse(line)?.destinationWords).to.deep.equal([
      ...['-p', '22', '-l', 'me', '-F', '/cfg', '-o', 'HostName=10.0.0.1'],
      ...['-o', 'Port=2222', '-o', 'user=x', '-o', 'HostKeyAlias=a'],
    ]);
    expect(parseSshCommand(['ssh', '-N', '-o', ' Hostname 10.0.0.1', '-R', '1:h:2', 'web'], 'ssh')).to.deep.include({
      destinationWords: ['-o', ' Hostname 10.0.0.1'],
    });
  });

  it('reads brackets, wildcards and both sides', () => {
    const command = parse('-N -L [::1]:1:[fe80::2]:2 -R *:3:h:4 -R :5:h:6 web');
    expect(command?.forwards.map(({ side, listen }) => `${side} ${listen.host} ${listen.port}`)).to.deep.equal([
      'local ::1 1',
      'remote * 3',
      'remote * 5',
    ]);
  });

  it('finds the command lines that it writes itself', () => {
    for (const side of ['local', 'remote'] as const) {
      const spec = makeSpec({ side });
      const command = parseSshCommand(['ssh', ...commandOf(spec).words], 'ssh');
      expect(command?.destination).to.equal(spec.remoteHost);
      expect(command?.forwards.every((forward) => isSameListeningEnd(forward, spec.forward))).to.equal(true);
    }
  });

  it('never throws, and says nothing twice differently, whatever the words are', () => {
    const word = fc.oneof(
      fc.constantFrom('-N', '-NL', '-fN', '-L', '-R', '-M', '--', '-', '', '-p22', 'user@web', '9443:localhost:443'),
      fc.constantFrom('-o', 'Port=1', '-z', ':', '[', '::1', '[::1]:1:h:2', '*:1:h:2', '/x:h:2', '\n', '-\u0000'),
      fc.string({ unit: 'binary', maxLength: 12 }),
    );
    // By single words alone a tunnel comes about three times in 5000 runs, and in one of thirty times not once.
    const part = fc.constantFrom(['-L', '9443:localhost:443'], ['-NR', '8080:h:2'], ['-N'], ['web']);
    const parts = fc.array(fc.oneof({ weight: 4, arbitrary: word.map((one) => [one]) }, part), { maxLength: 10 });
    let tunnels = 0;
    fc.assert(
      fc.property(parts, fc.constantFrom('ssh', 'autossh'), (some, program) => {
        const words = some.flat();
        const command = parseSshCommand(['ssh', ...words], program);
        const shown = describeSshCommand(['ssh', ...words], program);
        if (!command) return;
        tunnels++;
        expect(command.forwards).to.have.length.greaterThan(0);
        expect(shown).to.deep.equal({ destination: command.destination, forwards: command.forwards });
      }),
      { numRuns: 5000 },
    );
    expect(tunnels).to.be.greaterThan(0);
  });
});

describe('describeSshCommand()', () => {
  it('shows also what is not told apart', () => {
    expect(describeSshCommand(['ssh', '-L', '1:h:2', '-R', '3', 'web', 'top'], 'ssh')).to.deep.equal({
      destination: 'web',
      forwards: [{ side: 'local', listen: { host: 'localhost', port: 1 }, target: { host: 'h', port: 2 } }],
    });
    expect(describeSshCommand(['ssh:', '/run/x', '[mux]'], 'ssh').forwards).to.deep.equal([]);
    expect(describeSshCommand([], 'ssh')).to.deep.equal({ destination: null, forwards: [] });
  });
});

describe('isSameListeningEnd()', () => {
  const end = (host: string, { side = 'local', port = 1 }: { side?: Side; port?: number } = {}): Forward => ({
    side,
    listen: { host, port },
    target: { host: 'anywhere', port: 2 },
  });

  const pairs: [string, string, boolean][] = [
    ['127.0.0.1', '127.0.0.1', true],
    ['127.0.0.1', '127.0.0.2', false],
    ['localhost', '127.0.0.1', true],
    ['localhost', '::1', true],
    ['localhost', '127.0.0.2', false],
    ['localhost', '10.0.0.1', false],
    ['0.0.0.0', '127.0.0.1', true],
    ['0.0.0.0', 'localhost', true],
    ['0.0.0.0', '::1', false],
    ['0.0.0.0', '::', false],
    ['::', '::1', true],
    ['::', '127.0.0.1', false],
    ['*', '10.0.0.1', true],
    ['*', 'fe80::1', true],
    ['*', 'localhost', true],
    ['::1', '0:0:0:0:0:0:0:1', true],
    ['web.internal', 'web.internal', true],
    ['web.internal', '*', false],
  ];
  for (const [one, other, answer] of pairs) {
    it(`${one} and ${other} are ${answer ? '' : 'not '}in each other’s way`, () => {
      expect(isSameListeningEnd(end(one), end(other))).to.equal(answer);
      expect(isSameListeningEnd(end(other), end(one))).to.equal(answer);
    });
  }

  it('never is on another port or another side', () => {
    expect(isSameListeningEnd(end('*'), end('*', { port: 2 }))).to.equal(false);
    expect(isSameListeningEnd(end('*'), end('*', { side: 'remote' }))).to.equal(false);
    expect(isSameListeningEnd(end('*', { side: 'remote' }), end('*', { side: 'remote' }))).to.equal(true);
  });
});
