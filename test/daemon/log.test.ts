import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { DaemonEvent } from '#lib/daemon/events.js';
import { createJournal, type JournalEntry } from '#lib/daemon/events.js';
import { createTunnelLogs, type TunnelLogs } from '#lib/daemon/log.js';
import { systemClock } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeClock, type FakeClock } from '../support/fakeclock.js';

const id = 'a'.repeat(32);
const other = 'c'.repeat(32);
const spec = {
  id,
  name: 'web',
  direction: 'remote_to_local',
  remoteHost: 'cloud.kor1',
  remotePort: '9443',
  localPort: '9443',
} as TunnelSpec;
const status = {
  attempt: 2,
  chain: [{ pid: 7 }],
  reason: 'refused',
  lastError: 'Connection refused',
  remedy: null,
  desired: 'up',
} as unknown as TunnelStatus;

describe('the log of a tunnel', () => {
  let dir: string;
  let logs: TunnelLogs;
  let clock: FakeClock;
  let limits: { maxBytes: number; keep: number };
  let number: number;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-log-'));
    clock = createFakeClock();
    limits = { maxBytes: 1_048_576, keep: 5 };
    const specOf = (which: string) => (which === id || which === other ? spec : undefined);
    logs = createTunnelLogs(dir, { specOf, limits: () => limits, clock });
    number = 0;
  });

  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function write(event: Partial<DaemonEvent> & { type: string }, at = new Date(2026, 0, 16, 11, 0, 30)): void {
    logs.write({
      tunnel: id,
      status,
      asked: false,
      from: 'backoff',
      ...event,
      id: ++number,
      at: at.toISOString(),
    } as JournalEntry);
  }

  /** The first letters of the lines of each file, by the end of its name. */
  function files(): Record<string, string> {
    const base = `tunnel_${id}.log`;
    const names = readdirSync(dir).filter((name) => name.startsWith(base));
    const letters = (name: string) =>
      readFileSync(join(dir, name), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => line.charAt(22))
        .join('');
    return Object.fromEntries(names.sort().map((name) => [name.slice(base.length), letters(name)]));
  }

  it('says what carries it: the processes of its chain, or the engine that has none', () => {
    write({ type: 'tunnel.up', status: { ...status, chain: [{ pid: 7 }, { pid: 8 }] } as unknown as TunnelStatus });
    write({ type: 'tunnel.up', status: { ...status, chain: [], engine: 'embedded' } });
    const texts = logs.tail(id, 2).map((line) => line.slice(22));
    expect(texts).to.deep.equal(['Up: pid 7, pid 8', 'Up: by the engine embedded']);
  });

  it('begins with the one start line, in local time, addresses as configured', () => {
    write({ type: 'tunnel.starting', asked: true });
    expect(logs.tail(id, 10)).to.deep.equal([
      '[2026-01-16 11:00:30] Starting tunnel (remote to local): localhost:9443 <- cloud.kor1:9443',
    ]);
  });

  it('goes on in the same file for a retry, and says which attempt it is', () => {
    write({ type: 'tunnel.starting', asked: true });
    write({ type: 'tunnel.output', line: 'ssh: connect to host' });
    write({ type: 'tunnel.starting' });
    expect(logs.tail(id, 10).map((line) => line.slice(22))).to.deep.equal([
      'Starting tunnel (remote to local): localhost:9443 <- cloud.kor1:9443',
      'ssh: connect to host',
      'Reconnecting (attempt 2)',
    ]);
    expect(readdirSync(dir)).to.have.lengthOf(1);
  });

  it('says that it waits for a person, and by which command one comes', () => {
    write({ type: 'tunnel.needs_auth', why: 'boot' });
    write({ type: 'tunnel.needs_auth', why: 'lost' });
    write({ type: 'hook.failed', message: 'http://h was not told, after 3 tries: it answered 500' });
    expect(logs.tail(id, 10).map((line) => line.slice(22))).to.deep.equal([
      'Waits for a person: tunward auth web',
      'Lost: it waits for a person: tunward auth web',
      'Nobody was told: http://h was not told, after 3 tries: it answered 500',
    ]);
  });

  it('begins a new file for each start that was asked for, and keeps five', () => {
    for (let start = 1; start <= 8; start++) {
      write({ type: 'tunnel.starting', asked: true });
      write({ type: 'tunnel.output', line: `life ${start}` });
    }
    const names = readdirSync(dir).sort();
    expect(names).to.deep.equal(['', '.1', '.2', '.3', '.4'].map((end) => `tunnel_${id}.log${end}`));
    expect(names.map((name) => readFileSync(join(dir, name), 'utf8').match(/life \d/)?.[0])).to.deep.equal([
      'life 8',
      'life 7',
      'life 6',
      'life 5',
      'life 4',
    ]);
  });

  it('begins a new file also where the next line would make it too large, by the limits as they are now', () => {
    limits = { maxBytes: 130, keep: 3 };
    for (let line = 1; line <= 5; line++) write({ type: 'tunnel.output', line: `${line}${'x'.repeat(40)}` });
    expect(files()).to.deep.equal({ '': '5', '.1': '34', '.2': '12' });
    limits = { maxBytes: 1_048_576, keep: 3 };
    write({ type: 'tunnel.output', line: '6' });
    expect(files()).to.deep.equal({ '': '56', '.1': '34', '.2': '12' });
  });

  it('goes on into the files before the present one for the last lines', () => {
    for (const life of ['one', 'two', 'three']) {
      write({ type: 'tunnel.starting', asked: true });
      write({ type: 'tunnel.output', line: life });
    }
    expect(logs.tail(id, 3).map((line) => line.slice(22, 30))).to.deep.equal(['two', 'Starting', 'three']);
    expect(logs.tail(id, 100)).to.have.length(6);
  });

  it('has no line in it that is more than one, whatever is told', () => {
    write({ type: 'tunnel.fatal', status: { ...status, lastError: 'a\nb\u001b[2J\u202ec' } });
    write({ type: 'tunnel.output', line: '\u009b2J\r' });
    expect(logs.tail(id, 9).map((line) => line.slice(22))).to.deep.equal(['Given up: refused (a?b?[2J?c)', '?2J?']);
  });

  describe('that cannot be written', () => {
    const output = (which: string) => () => write({ type: 'tunnel.output', tunnel: which, line: 'x' });

    beforeEach(() => {
      for (const which of [id, other]) symlinkSync('/dev/full', logs.fileOf(which));
    });

    it('says so once a minute, how often it was, and says in the log that something is missing', async () => {
      expect(output(id)).to.throw(`Cannot write ${logs.fileOf(id)}: it is a symbolic link`);
      for (let line = 0; line < 12; line++) output(id)();
      await clock.advance(60_000);
      expect(output(id)).to.throw(/symbolic link \(and 12 times more since that was said last\)$/);
      output(id)();
      rmSync(logs.fileOf(id));
      output(id)();
      output(id)();
      expect(logs.tail(id, 9).map((line) => line.slice(22))).to.deep.equal([
        '… 15 lines could not be written',
        'x',
        'x',
      ]);
    });

    it('says it once for all, where it is the disk that refuses', () => {
      rmSync(dir, { recursive: true });
      writeFileSync(dir, 'no folder');
      expect(output(id)).to.throw('ENOTDIR');
      output(other)();
      rmSync(dir);
      output(other)();
      expect(logs.tail(other, 9)).to.have.length(2);
    });
  });

  it('is made anew, folder and all, where somebody has removed it', () => {
    write({ type: 'tunnel.output', line: 'one' });
    rmSync(dir, { recursive: true });
    write({ type: 'tunnel.output', line: 'two' });
    expect(files()).to.deep.equal({ '': 't' });
    expect(statSync(dir).mode & 0o777).to.equal(0o700);
    expect(statSync(logs.fileOf(id)).mode & 0o777).to.equal(0o600);
  });

  it('has no file for what is no tunnel of the configuration', () => {
    write({ type: 'tunnel.output', tunnel: 'b'.repeat(32), line: 'x' } as Partial<DaemonEvent> & { type: string });
    expect(readdirSync(dir)).to.deep.equal([]);
    expect(logs.tail(id, 5)).to.deep.equal([]);
  });
});

describe('createJournal()', () => {
  it('numbers what happens, keeps the last of it, and calls its readers', () => {
    const journal = createJournal(systemClock, 3);
    const seen: number[] = [];
    const stop = journal.subscribe((entry) => seen.push(entry.id));
    for (let count = 0; count < 4; count++) journal.append({ type: 'daemon.stopping' });
    stop();
    journal.append({ type: 'daemon.stopping' });
    expect(seen).to.deep.equal([1, 2, 3, 4]);
    expect(journal.recent().map((entry) => entry.id)).to.deep.equal([3, 4, 5]);
  });

  it('goes on to the next reader when one throws, and makes that a fact too', () => {
    const journal = createJournal(systemClock);
    const heard: string[] = [];
    journal.subscribe(() => {
      throw new Error('disk full');
    });
    journal.subscribe((entry) => heard.push(entry.type === 'log.failed' ? entry.message : entry.type));
    journal.append({ type: 'daemon.stopping' });
    expect(heard).to.deep.equal(['daemon.stopping', 'disk full']);
  });
});
