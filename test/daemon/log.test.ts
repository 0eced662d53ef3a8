import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { DaemonEvent } from '#lib/daemon/events.js';
import { createJournal, type JournalEntry } from '#lib/daemon/events.js';
import { createTunnelLogs, type TunnelLogs } from '#lib/daemon/log.js';
import { systemClock } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';

const id = 'a'.repeat(32);
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
  desired: 'up',
} as unknown as TunnelStatus;

describe('the log of a tunnel', () => {
  let dir: string;
  let logs: TunnelLogs;
  let number: number;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-log-'));
    logs = createTunnelLogs(dir, (which) => (which === id ? spec : undefined));
    number = 0;
  });

  afterEach(() => {
    logs.close();
    rmSync(dir, { recursive: true, force: true });
  });

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

  it('is not written through a link', () => {
    const aim = join(dir, 'aim');
    writeFileSync(aim, '');
    symlinkSync(aim, logs.fileOf(id));
    expect(() => write({ type: 'tunnel.output', line: 'x' })).to.throw(/symbolic link/);
    expect(readFileSync(aim, 'utf8')).to.equal('');
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
