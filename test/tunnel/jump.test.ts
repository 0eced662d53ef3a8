import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { isTunwardError } from '#lib/errors.js';
import type { SshFacts } from '#lib/tunnel/arguments.js';
import { describeRoute, hopArguments, needsShell, planRoute, proxyArguments, type Step } from '#lib/tunnel/jump.js';
import { formatHop, type Hop, parseHop } from '#lib/tunnel/spec.js';
import { makeSpec } from '../support/specs.js';

const facts: SshFacts = {
  user: 'root',
  hostname: '10.0.0.1',
  port: '22',
  strictHostKeyChecking: 'true',
  userKnownHostsFile: '/home/u/.ssh/known_hosts',
  identityFiles: [],
  identityAgent: 'SSH_AUTH_SOCK',
  proxyJump: null,
  proxyCommand: null,
  canFork: true,
};

function hop(text: string): Hop {
  const parsed = parseHop(text);
  if (typeof parsed === 'string') throw new Error(parsed);
  return parsed;
}

function step(text: string, own: readonly string[] = [], more: Partial<SshFacts> = {}): Step {
  const { destination, port } = hop(text);
  const words = [...own, ...(port === null ? [] : ['-p', String(port)]), '--', destination];
  return { hop: { destination, port }, words, facts: { ...facts, ...more } };
}

const ssh = '/usr/bin/ssh';

describe('proxyArguments()', () => {
  const fixed =
    '-N -T -S none -o ControlMaster=no -o ControlPersist=no -o ExitOnForwardFailure=yes -o ClearAllForwardings=yes ' +
    '-o PermitLocalCommand=no -o BatchMode=yes -o LogLevel=INFO -o ForkAfterAuthentication=no';
  const defaults = '-o ServerAliveInterval=15 -o ServerAliveCountMax=3 -o ConnectTimeout=10';

  it('is nothing where there is no hop', () => {
    expect(proxyArguments([], { ssh, knownHosts: null })).to.deep.equal([]);
  });

  it('sends ssh through a hop, with the options that every ssh of ours has', () => {
    const words = proxyArguments([step('me@bastion:2222', ['-F', '/c'])], { ssh, knownHosts: null });
    const command = `${ssh} ${fixed} -F /c -p 2222 ${defaults} -W \\[%h\\]:%p -- me@bastion`;
    expect(words).to.deep.equal(['-o', `ProxyCommand=${command}`, '-o', 'ProxyUseFdpass=no']);
  });

  it('goes through the first one first, and leaves to that how it is reached', () => {
    const [, command = ''] = proxyArguments([step('one'), step('two')], { ssh, knownHosts: null });
    expect(command).to.match(/-- two$/);
    expect(command).to.contain(`-o ProxyCommand=${ssh}\\ -N\\ -T`);
    expect(command).to.contain('-W\\ \\\\\\[%%h\\\\\\]:%%p\\ --\\ one');
    expect(command.match(/ProxyCommand=/g)).to.have.length(2);
  });

  it('takes a host key at the first meeting where ssh would ask, into the file of its own', () => {
    const asking = step('bastion', [], { strictHostKeyChecking: 'ask', userKnownHostsFile: 'none' });
    const [, command] = proxyArguments([asking], { ssh, knownHosts: '/state/known hosts' });
    expect(command).to.contain('-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=\\"/state/known\\ hosts\\"');
  });

  it('does not tell an old ssh what it does not know', () => {
    const [, command] = proxyArguments([step('bastion', [], { canFork: false })], { ssh, knownHosts: null });
    expect(command).not.to.contain('ForkAfterAuthentication');
  });

  describe('run by a real sh', () => {
    let dir: string;
    let printer: string;
    before(() => {
      dir = mkdtempSync(join(tmpdir(), "tunward 100%'s "));
      printer = join(dir, 'ssh');
      writeFileSync(printer, '#!/bin/sh\nprintf "%s\\0" "$@"\n');
      chmodSync(printer, 0o755);
    });
    after(() => rmSync(dir, { recursive: true }));

    /** What an ssh that is given these words would start: it expands the tokens, and has sh do the rest. */
    function run(words: readonly string[], [host, port]: readonly [string, string]): string[] {
      const command = words.find((word) => word.startsWith('ProxyCommand='))?.slice('ProxyCommand='.length) ?? '';
      const tokens: Record<string, string> = { '%%': '%', '%h': host, '%p': port };
      const expanded = command.replace(/%./g, (token) => tokens[token] ?? fail(`ssh knows no ${token} here`));
      return execFileSync('/bin/sh', ['-c', `exec ${expanded}`], { encoding: 'utf8' })
        .split('\0')
        .slice(0, -1);
    }

    it('has no quotes, which ssh would take apart as well', () => {
      const steps = [step('one', ['-i', "/a'b"]), step('two', ['-i', '/"a'])];
      const [, command = ''] = proxyArguments(steps, { ssh, knownHosts: null });
      expect(command.replaceAll('\\\\', '').replace(/\\["']/g, '')).not.to.match(/["']/);
    });

    it('gives every hop its words as they are, whatever is in them, and the address of the next', () => {
      const word = fc.string({
        minLength: 1,
        maxLength: 8,
        unit: fc.constantFrom(...'\'"\\%$`!*?[]{}()<>|&;#~ =-ab/'),
      });
      const hops = fc.array(fc.array(word, { maxLength: 3 }), { minLength: 1, maxLength: 4 });
      fc.assert(
        fc.property(hops, (all) => {
          const steps = all.map((own, at) => step(`hop${at}:${2000 + at}`, own));
          let words = proxyArguments(steps, { ssh: printer, knownHosts: null });
          let next: [string, string] = ['target', '22'];
          for (const { hop, words: own } of [...steps].reverse()) {
            words = run(words, next);
            expect(words.slice(-4)).to.deep.equal(['-W', `[${next[0]}]:${next[1]}`, '--', hop.destination]);
            const from = words.indexOf('ForkAfterAuthentication=no') + 1;
            expect(words.slice(from, from + own.length - 2)).to.deep.equal(own.slice(0, -2));
            next = [hop.destination, String(hop.port)];
          }
          expect(words.some((each) => each.startsWith('ProxyCommand='))).to.equal(false);
        }),
        { numRuns: 60 },
      );
    });
  });
});

describe('describeRoute()', () => {
  it('is the hops again, of a command as it is written here', () => {
    const name = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,8}$/);
    const port = fc.option(fc.integer({ min: 1, max: 65_535 }));
    const host = fc.oneof(name, fc.constant('::1'), fc.constant('10.0.0.1'));
    const one = fc.record({ user: fc.option(name), host, port }).map(({ user, host, port }) => {
      return { destination: user === null ? host : `${user}@${host}`, port };
    });
    fc.assert(
      fc.property(fc.array(one, { minLength: 1, maxLength: 5 }), fc.string(), (hops, file) => {
        const steps = hops.map((hop) => step(formatHop(hop), ['-F', `/${file.replace(/[\p{Cc}\s]/gu, ' ')}`]));
        const [, option = ''] = proxyArguments(steps, { ssh, knownHosts: '/k' });
        const proxyCommand = option.slice('ProxyCommand='.length);
        expect(describeRoute({ proxyJump: null, proxyCommand })).to.equal(hops.map(formatHop).join());
      }),
    );
  });

  it('is what ssh says of a ProxyJump, and any other command as it stands there', () => {
    expect(describeRoute({ proxyJump: 'me@a,b:22', proxyCommand: null })).to.equal('me@a,b:22');
    expect(describeRoute({ proxyJump: null, proxyCommand: 'nc -X 5 %h %p' })).to.equal('nc -X 5 %h %p');
    expect(describeRoute({ proxyJump: null, proxyCommand: null })).to.equal('');
  });
});

describe('planRoute()', () => {
  /** What `ssh -G` says of each host. */
  async function route(spec: Parameters<typeof planRoute>[0], says: Record<string, Partial<SshFacts>> = {}) {
    const asked: string[] = [];
    const ask = async (words: readonly string[]) => {
      asked.push(words.join(' '));
      return { ...facts, ...says[words.at(-1) ?? ''] };
    };
    const steps = await planRoute(spec, { ...facts, ...says.target }, ask);
    return { hops: steps.map(({ hop }) => formatHop(hop)), asked };
  }
  const through = (...jump: string[]) => makeSpec({ remoteHost: 'target', jump: jump.map(hop) });

  it('is empty where nobody names a hop', async () => {
    expect(await route(through())).to.deep.equal({ hops: [], asked: [] });
    expect((await route(through(), { target: { proxyCommand: 'nc %h %p' } })).hops).to.deep.equal([]);
  });

  it('asks ssh for every hop', async () => {
    const { hops, asked } = await route(through('me@one', 'two:2222'));
    expect(hops).to.deep.equal(['me@one', 'two:2222']);
    expect(asked).to.deep.equal(['-- me@one', '-p 2222 -- two']);
  });

  it('is what ssh_config says where the spec says nothing', async () => {
    const says = { target: { proxyJump: 'me@one:22,two' } };
    expect((await route(through(), says)).hops).to.deep.equal(['me@one:22', 'two']);
    expect((await route(through('other'), says)).hops).to.deep.equal(['other']);
  });

  it('goes to the first hop as ssh_config says, and to no other', async () => {
    const says = { one: { proxyJump: 'zero' }, zero: { proxyJump: 'start' }, two: { proxyJump: 'nowhere' } };
    expect((await route(through('one', 'two'), says)).hops).to.deep.equal(['start', 'zero', 'one', 'two']);
    expect((await route(through('one'), { one: { proxyCommand: 'nc %h %p' } })).hops).to.deep.equal(['one']);
  });

  it('gives its options to the hops of the spec, not to those of ssh_config', async () => {
    const spec = { ...through('one'), identityFile: '/k', sshConfig: '/c', sshOptions: { IdentitiesOnly: 'yes' } };
    const { asked } = await route(spec, { one: { proxyJump: 'zero' } });
    expect(asked).to.deep.equal(['-F /c -i /k -o IdentitiesOnly=yes -- one', '-F /c -- zero']);
  });

  it('leaves to ssh what it would not give to ssh', async () => {
    expect((await route(through(), { target: { proxyJump: 'a$b' } })).hops).to.deep.equal([]);
  });

  it('finds a circle, which no retry can mend', async () => {
    const error = await route(through('one'), { one: { proxyJump: 'two' }, two: { proxyJump: 'one' } }).catch(
      (reason: unknown) => reason,
    );
    if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
    expect([error.message, error.info.reason]).to.deep.equal([
      'Cannot find the way to target: more than 10 hosts, as ProxyJump in ssh_config has it',
      'bad_spec',
    ]);
  });
});

describe('hopArguments()', () => {
  it('are how this host connects and whom it trusts, and nothing that is the destination’s', () => {
    const sshOptions = {
      ...{ Port: '1', User: 'u', HostName: 'h', HostKeyAlias: 'a', Ciphers: 'c', HostKeyAlgorithms: 'k' },
      ...{ IdentitiesOnly: 'yes', UserKnownHostsFile: '/known', StrictHostKeyChecking: 'yes' },
    };
    const spec = makeSpec({ sshConfig: '/c', identityFile: '/k', sshOptions });
    expect(hopArguments(spec, hop('me@[::1]:22'))).to.deep.equal([
      ...['-F', '/c', '-i', '/k', '-o', 'IdentitiesOnly=yes', '-o', 'UserKnownHostsFile=/known'],
      ...['-o', 'StrictHostKeyChecking=yes', '-p', '22', '--', 'me@::1'],
    ]);
  });
});

describe('needsShell()', () => {
  it('is so for a tunnel with a jump host', () => {
    expect(needsShell(makeSpec())).to.equal(false);
    expect(needsShell(makeSpec({ jump: [hop('bastion')] }))).to.equal(true);
  });
});

function fail(message: string): never {
  throw new Error(message);
}
