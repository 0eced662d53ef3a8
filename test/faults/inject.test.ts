/** X1 of the fault catalogue: whatever is written where a host, a port or a path is expected, nothing of it is run. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { fault } from '../support/fault.js';
import { which } from '../support/paths.js';
import { createReaper } from '../support/reaper.js';
import { addEach } from './inject/api.js';
import { doors, enterAll } from './inject/doors.js';
import { count, describeTally, lookAtCommands, openOne, runCommand, startEach, type Tally } from './inject/run.js';
import { makeSite, type Site } from './inject/site.js';
import { hostileStrings } from './inject/strings.js';
import { inParallel } from './kill/rig.js';

const seed = Number(process.env.TUNWARD_SEED ?? Math.floor(Math.random() * 2 ** 31));
const needs = ['ssh', 'autossh'] as const;

/** So many tunnels are known at once. */
const BATCH = 48;

describe(`fault: strings that want to be run (TUNWARD_SEED=${seed})`, () => {
  let site: Site;
  beforeEach(async () => {
    site = await makeSite();
  });
  afterEach(() => site.remove());
  const strings = (times: number) => hostileStrings(times, seed, site.canaryOf);

  const control = 'are run where nobody guards against them';
  fault({ id: 'X1', title: control, times: 5, reduced: 5, needs }, async () => {
    const [config = ''] = site.configs;
    const touch = (at: number) => `touch ${site.canaryOf(at)}`;
    const bare: [program: string, words: string[]][] = [
      ['autossh', ['-M', '0', '-F', config, '-N', '--', `-oProxyCommand=${touch(0)}`, 'target']],
      ['ssh', ['-F', config, '-N', `-oProxyCommand=${touch(1)}`, 'target']],
      ['ssh', ['-F', config, '-N', '-o', `HostKeyAlias=$(${touch(2).replace(' ', '$IFS')})`, 'target']],
      ['ssh', ['-F', config, '-N', '-o', `ProxyCommand=ssh -i $(${touch(3)}) target`, 'target']],
      ['ssh', ['-F', config, '-N', `-E${site.canaryOf(4)}`, 'target']],
    ];
    for (const [at, [program, words]] of bare.entries()) {
      const env = { ...process.env, AUTOSSH_GATETIME: '0', AUTOSSH_MAXSTART: '1' };
      spawnSync(which(program) ?? program, words, { env, stdio: 'ignore', timeout: 10_000 });
      expect(existsSync(site.canaryOf(at)), `${program} ${words.join(' ')}`).to.equal(true);
    }
    return `${site.canaries().length}/${bare.length} canaries`;
  });

  const written = 'are refused in a configuration, or harmless to ssh and autossh';
  fault({ id: 'X1', title: written, times: 2000, reduced: 40, needs }, async (times) => {
    await using reaper = createReaper();
    const tally: Tally = new Map();
    const open = new Set<string>();
    let refused = 0;
    let waiting: TunnelSpec[] = [];
    const run = async () => {
      for (const outcome of await startEach(waiting, site, reaper)) count(tally, outcome);
      expect(site.canaries(), JSON.stringify(waiting)).to.deep.equal([]);
      waiting = [];
    };
    for (const [at, hostile] of strings(times).entries()) {
      const found = enterAll(hostile.text, at, site);
      refused += found.refused;
      // By each engine at one of the doors that let it in: at all of them that is 20,000 runs.
      for (const [turn, engine] of (['ssh', 'autossh'] as const).entries()) {
        const [door, spec] = found.tunnels[(at + turn) % found.tunnels.length] ?? [];
        if (door === undefined || spec === undefined) continue;
        open.add(door);
        waiting.push({ ...spec, engine });
      }
      if (waiting.length >= BATCH) await run();
    }
    await run();
    const started = [...tally.values()].reduce((sum, each) => sum + each, 0);
    // Or the doors are all shut, and this shows nothing of what is behind them.
    expect(tally.get('refused') ?? 0, describeTally(tally)).to.be.greaterThan(started / 3);
    return `0 canaries of ${times} strings × ssh and autossh × ${Object.keys(doors).length} doors: ${refused} refused, ${started} run through ${open.size} of them (${describeTally(tally)})`;
  });

  const opened = 'are refused by openTunnel(), or harmless';
  fault({ id: 'X1', title: opened, times: 400, reduced: 20, needs }, async (times) => {
    await using reaper = createReaper();
    const tally: Tally = new Map();
    for (const [at, { text }] of strings(times).entries()) {
      const keys = optionsOf(text);
      const options = { ...keys[at % keys.length], engine: at % 2 === 0 ? 'ssh' : 'autossh' };
      count(tally, await openOne(options, site, reaper));
      expect(site.canaries(), `canaries at ${at}`).to.deep.equal([]);
    }
    return `0 canaries of ${times}: ${describeTally(tally)}`;
  });

  const posted = 'are refused by the API, or harmless in a tunnel that it adds';
  fault({ id: 'X1', title: posted, times: 300, reduced: 10, needs }, async (times) => {
    await using reaper = createReaper();
    const tally = await addEach(strings(times), site, reaper);
    return `0 canaries of ${times}: ${describeTally(tally)}`;
  });

  const typed = 'are refused on the command line, or harmless';
  fault({ id: 'X1', title: typed, times: 120, reduced: 8, needs }, async (times) => {
    await using reaper = createReaper();
    const tally: Tally = new Map();
    // What no command line can hold is not typed.
    const typable = strings(10 * times).filter(({ text }) => !text.includes('\0') && text.length < 100_000);
    await inParallel(times, 2, async (at) => {
      const { text = '' } = typable[at] ?? {};
      const lines = linesOf(text, site);
      const code = await runCommand(lines[at % lines.length] ?? [], site, reaper);
      count(tally, `exit ${code}`);
    });
    expect(site.canaries(), 'canaries').to.deep.equal([]);
    return `0 canaries of ${times}: ${describeTally(tally)}`;
  });

  const met = "are harmless in the command line of somebody's ssh that is in the way";
  fault({ id: 'X1', title: met, times: 2000, reduced: 60, needs }, async (times) => {
    await using reaper = createReaper();
    const asked = await lookAtCommands(strings(times), site, reaper);
    expect(site.canaries(), 'canaries').to.deep.equal([]);
    expect(asked, 'asked ssh about').to.be.greaterThan(times / 10);
    return `0 canaries of ${times}, ${asked} of which ssh -G was asked about`;
  });
});

/** Where openTunnel() takes a text. */
function optionsOf(text: string): Record<string, unknown>[] {
  const places = ['remoteHost', 'remotePort', 'localPort', 'direction', 'sshConfig', 'identityFile', 'jump', 'name'];
  const names = ['HostKeyAlias', 'User', 'IdentityAgent', 'UserKnownHostsFile'];
  return [
    ...places.map((place) => ({ [place]: text })),
    ...names.map((name) => ({ sshOptions: { [name]: text } })),
    { jump: ['127.0.0.1', text] },
    { remoteHost: `${text}@target` },
    { sshOptions: { [text]: 'yes' } },
  ];
}

/** Where a command takes one. */
function linesOf(text: string, { configs: [config = ''], port }: Site): string[][] {
  const open = ['open', '-F', config, '-L', `127.0.0.1:${port}:127.0.0.1:80`];
  const options = [
    ['-J', text],
    ['-i', text],
    ['-p', text],
    ['-F', text],
    ['-o', text],
    ['--name', text],
  ];
  return [
    [...open, text],
    [...open, '--', text],
    [...open, '--engine', 'autossh', '--', `${text}@target`],
    ...options.map((words) => [...open, ...words, 'target']),
    [...open, '-o', `HostKeyAlias=${text}`, 'target'],
    [...open, '-o', `User=${text}`, 'target'],
    ['open', '-F', config, '-L', text, 'target'],
    ['open', '-F', config, '-L', `127.0.0.1:${port}:${text}:80`, 'target'],
    ['who', text],
    ['validate', '-c', text],
    ['ls', '--socket', text],
  ];
}
