import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { createScreen, drawTree, type Line, layTable, styled } from '#lib/cli/render.js';
import { formatAge, formatBytes, formatMs, formatPercent, programOf } from '#lib/cli/units.js';
import { need } from '../support/need.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { runOnTerminal } from '../support/terminal.js';
import { mainFile, tunward } from './run.js';

/** A screen whose output is kept. */
function createRecorder(options: { json?: boolean; terminal?: { columns: number } } = {}) {
  const stream = () => Object.assign(new PassThrough(), options.terminal && { isTTY: true, ...options.terminal });
  const [stdout, stderr] = [stream(), stream()];
  const screen = createScreen({ json: options.json ?? false, color: false, stdout, stderr });
  const read = (from: PassThrough) => String(from.read() ?? '');
  return { screen, out: () => read(stdout), err: () => read(stderr), stdout };
}

describe('createScreen()', () => {
  it('sends results to stdout and talk to stderr', () => {
    const { screen, out, err } = createRecorder();
    screen.print('a result');
    screen.say('talk');
    expect([out(), err()]).to.deep.equal(['a result\n', 'talk\n']);
  });

  it('spells JSON as on the wire: indented for a person, one line for a program, one line a record', () => {
    const value = { tookMs: 3, listen: [{ startTicks: 1 }] };
    const piped = createRecorder({ json: true });
    piped.screen.data(value);
    piped.screen.record({ nextRetryAt: null });
    expect(piped.out()).to.equal('{"took_ms":3,"listen":[{"start_ticks":1}]}\n{"next_retry_at":null}\n');
    const seen = createRecorder({ json: true, terminal: { columns: 80 } });
    seen.screen.data({ tookMs: 3 });
    expect(seen.out()).to.equal('{\n  "took_ms": 3\n}\n');
  });

  it('cuts rows at a terminal’s width, sentences never, and nothing for a pipe', () => {
    const row: Line = ['12345', styled('bold', '67890'), 'abcdef'];
    const terminal = createRecorder({ terminal: { columns: 12 } });
    terminal.screen.rows(row, 'twelve chars', 'thirteen char');
    terminal.screen.print(row);
    expect(terminal.out().split('\n')).to.deep.equal([
      ...['1234567890a…', 'twelve chars', 'thirteen ch…', '1234567890abcdef', ''],
    ]);
    const pipe = createRecorder();
    pipe.screen.rows(row);
    expect(pipe.out()).to.equal('1234567890abcdef\n');
  });

  it('writes no control character of a stranger', () => {
    const { screen, out } = createRecorder();
    screen.rows(['a\u001b[31mb', styled('red', 'c\u0007\nd\u202e')]);
    expect(out()).to.equal('a?[31mbc??d?\n');
  });

  it('tells when nobody reads any more, and is not ended by that', () => {
    const broken: string[] = [];
    const stdout = new PassThrough();
    const stderr = new PassThrough();
    createScreen({ stdout, stderr, onBroken: () => broken.push('broken') });
    stdout.emit('error', Object.assign(new Error('gone'), { code: 'EPIPE' }));
    expect(broken).to.have.length(1);
    stderr.emit('error', Object.assign(new Error('gone'), { code: 'EPIPE' }));
    expect(broken, 'a daemon outlives who listened to its talk').to.have.length(1);
    stderr.emit('error', Object.assign(new Error('gone'), { code: 'EIO' }));
    expect(broken, 'but not its terminal').to.have.length(2);
    expect(() => stdout.emit('error', Object.assign(new Error('full'), { code: 'ENOSPC' }))).to.throw('full');
  });
});

describe('layTable() and drawTree()', () => {
  const textOf = (lines: readonly Line[]) => {
    const { screen, out } = createRecorder();
    screen.rows(...lines);
    return out().split('\n').slice(0, -1);
  };

  it('aligns columns two blanks apart, the last one as it is', () => {
    const rows = [
      ['a', styled('green', 'up'), 'x'],
      ['longer', 'stopped', 'y'],
    ];
    expect(textOf(layTable(['N', 'STATE', 'Z'], rows))).to.deep.equal([
      ...['N       STATE    Z', 'a       up       x', 'longer  stopped  y'],
    ]);
    expect(textOf(layTable(['N', 'S'], []))).to.deep.equal(['N  S']);
  });

  it('draws branches', () => {
    const leaf = (name: string) => ({ name, children: [] });
    const root = { name: 'r', children: [{ name: 'a', children: [leaf('b'), leaf('c')] }, leaf('d')] };
    expect(
      textOf(drawTree<{ name: string; children: (typeof root)['children'] }>(root, ({ name }) => name)),
    ).to.deep.equal([...['r', '├─ a', '│  ├─ b', '│  └─ c', '└─ d']]);
  });
});

describe('units', () => {
  it('are as people say them', () => {
    expect([0, 3.9, 65, 120, 3600 * 3 + 720, 86_400 * 5 + 30].map(formatAge)).to.deep.equal([
      ...['0s', '3s', '1m 5s', '2m', '3h 12m', '5d'],
    ]);
    expect([null, Number.NaN, -5].map(formatAge)).to.deep.equal(['?', '?', '0s']);
    expect([0.44, 9.96, 412.4, 3210].map(formatMs)).to.deep.equal(['0.4 ms', '10 ms', '412 ms', '3.2 s']);
    expect([4096, 8_300_000, 2.5e9].map(formatBytes)).to.deep.equal(['4 kB', '8.3 MB', '2.5 GB']);
    expect([0, 3.24, 99.94, 99.96, 187.2].map(formatPercent)).to.deep.equal([
      ...['0.0 %', '3.2 %', '99.9 %', '100 %', '187 %'],
    ]);
    expect(['/usr/lib/autossh/autossh -M 0', 'ssh', '[kthreadd]', 'sshd: root', ':'].map(programOf)).to.deep.equal([
      ...['autossh', 'ssh', '[kthreadd]', 'sshd', ':'],
    ]);
  });
});

describe('colour', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());
  const ansi = '\u001b[';
  const tree = (env: Record<string, string>, ...args: string[]) =>
    tunward(reaper, ['tree', String(process.pid), ...args], { env });

  it('is off in a pipe, on with FORCE_COLOR, and off with --no-color whatever else is said', async () => {
    expect((await tree({})).stdout).to.not.contain(ansi);
    expect((await tree({ FORCE_COLOR: '1' })).stdout).to.contain(`${ansi}1m`);
    expect((await tree({ FORCE_COLOR: '1' }, '--no-color')).stdout).to.not.contain(ansi);
  });

  describe('on a terminal', () => {
    const columns = 60;
    before(function () {
      need(this, 'pty');
    });

    it('is on, and off with NO_COLOR; rows are cut at its width', async () => {
      const { pid } = await startTree(reaper, {}).ready;
      const colored = await onTerminal(['tree', String(pid)], {});
      const plain = await onTerminal(['tree', String(pid)], { NO_COLOR: '1' });
      expect(colored).to.contain(`${ansi}1m`);
      expect(plain).to.not.contain(ansi);
      const [line = ''] = plain.split('\r\n');
      expect([...line]).to.have.length(columns);
      expect(line.endsWith('…')).to.equal(true);
    });

    /** What the command writes to a terminal of its own. */
    async function onTerminal(args: string[], env: Record<string, string>): Promise<string> {
      const terminal = runOnTerminal(reaper, [process.execPath, mainFile, ...args], { columns, env });
      await terminal.ended;
      return terminal.bytes();
    }
  });
});
