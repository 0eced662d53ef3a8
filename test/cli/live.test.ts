import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { createBoard, kindOf } from '#lib/cli/board.js';
import { describeSettled, fitTunnels, progressOf, renderProgress } from '#lib/cli/live-view.js';
import { createScreen, type Line } from '#lib/cli/render.js';
import type { ToldEvent } from '#lib/cli/story.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';

const now = Date.UTC(2026, 0, 16, 11, 1, 0);

function makeStatus(name: string, fields: Partial<TunnelStatus> = {}): TunnelStatus {
  return {
    id: name.padEnd(32, '0'),
    name,
    state: 'up',
    desired: 'up',
    reason: null,
    health: 'ok',
    healthReason: null,
    remedy: null,
    direction: 'remote_to_local',
    engine: 'ssh',
    seamless: false,
    listen: [{ side: 'local', host: '127.0.0.1', port: 8001 }],
    target: 'localhost:80',
    remoteHost: 'rig',
    jump: [],
    groups: [],
    interactive: false,
    enabled: true,
    pid: 812,
    chain: [],
    usage: null,
    traffic: null,
    since: new Date(now - 5000).toISOString(),
    attempt: 0,
    restarts: 0,
    lastRestart: null,
    nextRetryAt: null,
    lastError: null,
    logFile: null,
    ...fields,
  };
}

const inBackoff = { state: 'backoff', reason: 'refused', attempt: 1, pid: null } as const;

/** As it is written to a pipe. */
function textOf(lines: readonly Line[]): string[] {
  const stdout = new PassThrough();
  createScreen({ stdout, stderr: new PassThrough(), color: false }).rows(...lines);
  return String(stdout.read() ?? '')
    .split('\n')
    .slice(0, -1);
}

describe('renderProgress()', () => {
  const progress = { done: 37, total: 100, word: 'up', notes: ['2 waiting', '1 failed'] };
  const draw = (...rest: [columns: number, isUnicode: boolean]) => textOf([renderProgress(progress, ...rest)])[0];

  it('is a bar and counts, of plain characters where the locale has no others', () => {
    expect(draw(80, true)).to.equal('▕████████░░░░░░░░░░░░░░░░▏ 37/100 up  2 waiting  1 failed');
    expect(draw(80, false)).to.equal('[########................] 37/100 up  2 waiting  1 failed');
  });

  it('has a smaller bar where there is less room, and none where there is little', () => {
    expect(draw(40, true)).to.equal('▕██░░░░░▏ 37/100 up  2 waiting  1 failed');
    expect(draw(37, true)).to.equal('37/100 up  2 waiting  1 failed');
  });

  it('is full when all is done, and not before', () => {
    const bar = (done: number) => textOf([renderProgress({ ...progress, done, notes: [] }, 80, false)])[0];
    expect(bar(99)).to.contain('#.] 99/100 up');
    expect(bar(100)).to.contain('##] 100/100 up');
  });
});

describe('progressOf() and describeSettled()', () => {
  it('count what is wanted up, and name the rest', () => {
    const tunnels = [
      makeStatus('a'),
      makeStatus('b', inBackoff),
      makeStatus('c', { state: 'starting', attempt: 3 }),
      makeStatus('d', { state: 'starting' }),
      makeStatus('e', { state: 'fatal', reason: 'host_key_changed' }),
      makeStatus('f', { state: 'stopped', desired: 'down' }),
    ];
    expect(tunnels.map(kindOf)).to.deep.equal(['up', 'waiting', 'waiting', 'coming', 'failed', 'stopped']);
    expect(progressOf(tunnels)).to.deep.include({ done: 1, total: 5 });
    expect(textOf([describeSettled({ tunnels: 5, tookMs: 3210 }, tunnels)])).to.deep.equal([
      'up 1 of 5 after 3.2 s; 2 waiting, 1 failed',
    ]);
    expect(textOf([describeSettled({ tunnels: 2, tookMs: 40 }, [makeStatus('a')])])).to.deep.equal([
      'up 1 of 1 after 40 ms',
    ]);
  });
});

describe('createBoard()', () => {
  const event = (name: string, state: TunnelStatus['state'], asked = true, at = now): ToldEvent => {
    const status = makeStatus(name, { state });
    return {
      type: `tunnel.${state}`,
      tunnel: status.id,
      from: 'stopped',
      asked,
      status,
      at: new Date(at).toISOString(),
    } as ToldEvent;
  };

  it('tells once what came of a start of several, when the last one has its answer', () => {
    const board = createBoard();
    const note = (...events: ToldEvent[]) => events.map((each) => board.note(each));
    expect(note(event('a', 'starting'), event('b', 'starting'), event('a', 'up', true, now + 50))).to.deep.equal([
      ...[undefined, undefined, undefined],
    ]);
    expect(board.isComing()).to.equal(true);
    expect(note(event('b', 'backoff', true, now + 400))).to.deep.equal([{ tunnels: 2, tookMs: 400 }]);
    expect(board.isComing()).to.equal(false);
    // Its own tries are nobody's start.
    expect(note(event('b', 'starting', false), event('b', 'up', false))).to.deep.equal([undefined, undefined]);
    expect(board.tunnels().map(({ name, state }) => `${name} ${state}`)).to.deep.equal(['a up', 'b up']);
  });

  it('has nothing to tell of tunnels that end with the daemon', () => {
    const board = createBoard();
    const events: ToldEvent[] = [event('a', 'starting'), event('b', 'starting'), { type: 'daemon.stopping' }];
    const answers = [...events, event('a', 'stopped'), event('b', 'stopped')].map((each) => board.note(each));
    expect(answers.every((answer) => answer === undefined)).to.equal(true);
  });

  it('forgets those that are not among all', () => {
    const board = createBoard();
    board.note(event('gone', 'stopped'));
    board.replace([makeStatus('b'), makeStatus('a')]);
    expect(board.tunnels().map(({ name }) => name)).to.deep.equal(['b', 'a']);
  });
});

describe('fitTunnels()', () => {
  const room = { rows: 20, columns: 200, now, widths: [] };
  const names = (tunnels: readonly TunnelStatus[]) => tunnels.map(({ name }) => name);

  it('is the table of ls where there is room, in its order', () => {
    const tunnels = [makeStatus('one'), makeStatus('two', inBackoff), makeStatus('three')];
    const { lines, shown } = fitTunnels(tunnels, { ...room, rows: 5 });
    expect(textOf(lines)).to.deep.equal([
      'NAME   STATE    LISTEN          TARGET        VIA  ENGINE  PID  CPU  MEM  SINCE',
      'one    up       127.0.0.1:8001  localhost:80  rig  ssh     812    -    -  5s',
      'two    backoff  127.0.0.1:8001  localhost:80  rig  ssh     -      -    -  5s',
      '  └ refused',
      'three  up       127.0.0.1:8001  localhost:80  rig  ssh     812    -    -  5s',
    ]);
    expect(names(shown)).to.deep.equal(['one', 'two', 'three']);
  });

  it('has those in trouble first where there are more than rows, and counts the others', () => {
    const tunnels = [
      ...Array.from({ length: 80 }, (_, at) => makeStatus(`t${at}`)),
      makeStatus('waiting', inBackoff),
      makeStatus('failed', { state: 'fatal', reason: 'host_key_changed', lastError: 'changed' }),
      makeStatus('ill', { health: 'degraded', healthReason: 'target refuses' }),
      makeStatus('starting', { state: 'starting' }),
    ];
    const { lines, shown } = fitTunnels(tunnels, { ...room, rows: 12 });
    expect(names(shown)).to.deep.equal(['failed', 'waiting', 'ill', 'starting', 't0', 't1', 't2']);
    expect(lines).to.have.length(12);
    expect(textOf(lines).at(-1)).to.equal('… and 77 more, all up');
  });

  it('says how the others are when not all of them are up, and never has more rows than there are', () => {
    const tunnels = Array.from({ length: 9 }, (_, at) => makeStatus(`t${at}`, at < 5 ? inBackoff : {}));
    for (let rows = 2; rows <= 15; rows++) {
      const { lines, shown } = fitTunnels(tunnels, { ...room, rows });
      expect(lines.length, `${rows} rows`).to.be.at.most(rows);
      if (shown.length === 2) expect(textOf(lines).at(-1)).to.equal('… and 7 more: 4 up, 3 waiting');
    }
    expect(fitTunnels(tunnels, { ...room, rows: 15 }).shown).to.have.length(9);
  });

  it('keeps the place of what is tried again while it is tried', () => {
    const tunnels = (state: 'backoff' | 'starting') => [
      ...Array.from({ length: 30 }, (_, at) => makeStatus(`t${at}`)),
      makeStatus('x', { ...inBackoff, state }),
      makeStatus('y', inBackoff),
    ];
    for (const state of ['backoff', 'starting'] as const) {
      expect(names(fitTunnels(tunnels(state), { ...room, rows: 6 }).shown)).to.deep.equal(['x', 'y']);
    }
  });

  it('makes columns wider and never narrower', () => {
    const usage = (memory: number) => ({ cpu: 0, memory, ppid: 1, pid: 812, ctime: 0, elapsed: 0, timestamp: now });
    const first = fitTunnels([makeStatus('a long name', { usage: usage(12_300_000) })], room);
    const then = fitTunnels([makeStatus('short', { usage: usage(8000) })], { ...room, widths: first.widths });
    expect([first, then].flatMap(({ lines }) => textOf(lines))).to.deep.equal([
      'NAME         STATE  LISTEN          TARGET        VIA  ENGINE  PID    CPU      MEM  SINCE',
      'a long name  up     127.0.0.1:8001  localhost:80  rig  ssh     812  0.0 %  12.3 MB  5s',
      'NAME         STATE  LISTEN          TARGET        VIA  ENGINE  PID    CPU      MEM  SINCE',
      'short        up     127.0.0.1:8001  localhost:80  rig  ssh     812  0.0 %     8 kB  5s',
    ]);
  });

  it('has the traffic where some of it passes through this process, and goes without it first', () => {
    const traffic = { connections: 9, open: 3, queued: 0, refused: 1, bytesIn: 12_300_000, bytesOut: 74 };
    const tunnels = [makeStatus('web', { engine: 'embedded', seamless: true, traffic }), makeStatus('db')];
    const [head, web, db] = textOf(fitTunnels(tunnels, room).lines).map((line) => line.split(/ {2,}/).slice(5));
    expect(head).to.deep.equal(['ENGINE', 'PID', 'CPU', 'MEM', 'OPEN', 'QUEUED', 'REFUSED', 'IN', 'OUT', 'SINCE']);
    expect(web).to.deep.equal(['embedded, seamless', '812', '-', '-', '3', '0', '1', '12.3 MB', '74 B', '5s']);
    expect(db).to.deep.equal(['ssh', '812', '-', '-', '-', '-', '-', '-', '-', '5s']);
    const narrow = textOf(fitTunnels(tunnels, { ...room, columns: 110 }).lines)[0] ?? '';
    expect(narrow.split(/ +/).slice(5)).to.deep.equal(['ENGINE', 'CPU', 'MEM', 'OPEN', 'IN', 'OUT', 'SINCE']);
  });

  it('does without the columns that say least where a terminal is narrow', () => {
    const heads = [80, 56, 52, 30].map((columns) => {
      const [head = ''] = textOf(fitTunnels([makeStatus('web')], { ...room, columns }).lines);
      return head.split(/ +/).join(' ');
    });
    expect(heads).to.deep.equal([
      'NAME STATE LISTEN TARGET VIA ENGINE PID CPU MEM SINCE',
      'NAME STATE LISTEN TARGET VIA SINCE',
      'NAME STATE LISTEN TARGET SINCE',
      'NAME STATE LISTEN SINCE',
    ]);
  });
});
