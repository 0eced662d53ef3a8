/**
 * What the kernel may write about processes, and every way in which it may reach us cut short: a reader answers exactly
 * what was written or nothing, and never throws.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { openProc, type Proc, parseAuxv } from '#lib/proc/read.js';
import {
  isGone,
  parseStat,
  readArguments,
  readCommand,
  readFamily,
  readForkCount,
  readPids,
  readPidsNewestFirst,
  readStat,
  readUptimeTicks,
} from '#lib/proc/stat.js';
import { createFakeProc, type FakeProcess, statLine } from '../support/fakeproc.js';

const pid = fc.integer({ min: 1, max: 2 ** 22 });
const id = fc.integer({ min: -1, max: 2 ** 22 });
/** The kernel keeps 15 bytes of a name, and whoever bears it chooses them: among those that misled parsers before. */
const comm = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 15 }),
  fc.stringMatching(/^[()RSZ0-9 \n]{0,15}$/),
  fc.constantFrom(') R (', ') R 1 1 1 1 (', 'a)\nb (x', '(sd-pam)', ')', '\n', '7 (x) S 1 7 7 0'),
);
const row = fc.record({
  pid,
  ppid: fc.nat(2 ** 22),
  pgid: id,
  sid: id,
  comm,
  state: fc.constantFrom(...'RSDTtZXI'),
  flags: fc.nat(0xffff_ffff),
  threads: fc.nat(30_000),
  startTicks: fc.maxSafeNat(),
  userTicks: fc.nat(),
  systemTicks: fc.nat(),
  rssPages: fc.nat(2 ** 30),
});

describe('parseStat(), whatever the kernel writes', () => {
  it('reads back every field', () => {
    fc.assert(
      fc.property(row, fc.constantFrom(4096, 16_384, 65_536), (written, pageSize) => {
        const { flags, rssPages, userTicks, systemTicks, ...rest } = written;
        expect(parseStat(statLine(written), pageSize)).to.deep.equal({
          ...rest,
          kernelThread: (flags & 0x0020_0000) !== 0,
          rssBytes: rssPages * pageSize,
          cpuTicks: userTicks + systemTicks,
        });
      }),
    );
  });

  it('reads a line that is cut off anywhere exactly, or not at all', () => {
    fc.assert(
      fc.property(row, (written) => {
        const line = statLine(written);
        const whole = parseStat(line, 4096);
        for (let size = 0; size <= line.length; size++) {
          const read = parseStat(line.slice(0, size), 4096);
          // The resident pages are the last that is read: only they can be cut short and still be a number.
          if (read) expect({ ...read, rssBytes: 0 }, `cut to ${size}`).to.deep.equal({ ...whole, rssBytes: 0 });
        }
      }),
      { numRuns: 60 },
    );
  });

  it('takes a line whose beginning is missing for no other process', () => {
    fc.assert(
      fc.property(row, ({ comm: _, ...written }) => {
        const line = statLine({ ...written, comm: 'name' });
        const digits = line.indexOf(' ');
        for (let from = digits; from < line.length; from++)
          expect(parseStat(line.slice(from), 4096)).to.equal(undefined);
      }),
      { numRuns: 30 },
    );
  });

  it('is not misled by bytes that are no text', () => {
    using fake = createFakeProc();
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 15 });
    fc.assert(
      fc.property(row, bytes, (written, name) => {
        const [head = '', tail = ''] = statLine({ ...written, comm: '@@' }).split('@@');
        mkdirSync(join(fake.root, String(written.pid)), { recursive: true });
        writeFileSync(
          join(fake.root, `${written.pid}/stat`),
          Buffer.concat([Buffer.from(head), name, Buffer.from(tail)]),
        );
        const { pid, ppid, pgid, sid, threads, startTicks, state } = written;
        const read = readStat(fake.proc, pid);
        expect(read).to.include({ pid, ppid, pgid, sid, threads, startTicks, state });
        expect(read?.comm).to.equal(Buffer.from(name).toString('utf8'));
      }),
    );
  });
});

describe('the small files, whatever they hold', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.stringMatching(/^[0-9. /\n]*$/),
    fc.constantFrom('', 'Infinity'),
  );

  it('/proc/uptime is a time in ticks or nothing', () => {
    using fake = createFakeProc();
    fc.assert(
      fc.property(fc.nat(2 ** 31), fc.nat(99), (seconds, hundredths) => {
        fake.write('uptime', `${seconds}.${String(hundredths).padStart(2, '0')} 4711.00\n`);
        expect(readUptimeTicks(fake.proc)).to.equal(seconds * 100 + hundredths);
      }),
    );
    fc.assert(
      fc.property(text, (garbage) => {
        fake.write('uptime', garbage);
        expect(readUptimeTicks(fake.proc) ?? 0).to.satisfy(Number.isSafeInteger);
      }),
    );
  });

  it('/proc/stat counts forks exactly, or nothing when it is cut off', () => {
    using fake = createFakeProc();
    const cpus = fc.array(fc.array(fc.nat(), { minLength: 10, maxLength: 10 }), { maxLength: 4 });
    fc.assert(
      fc.property(cpus, fc.integer({ min: 1, max: 2 ** 40 }), fc.nat(), (lines, forks, since) => {
        const head = lines.map((numbers, at) => `cpu${at} ${numbers.join(' ')}\n`).join('');
        const whole = `${head}intr 5 0 0\nctxt 17\nbtime ${since}\nprocesses ${forks}\nprocs_running 1\n`;
        fake.write('stat', whole);
        expect(readForkCount(fake.proc)).to.equal(forks);
        for (const size of [head.length, whole.indexOf('processes'), whole.indexOf('\nprocs_running')]) {
          for (let more = 0; more < 14; more++) {
            fake.write('stat', whole.slice(0, size + more));
            expect([undefined, forks]).to.include(readForkCount(fake.proc));
          }
        }
      }),
      { numRuns: 15 },
    );
  });

  it('/proc/loadavg only ever changes the order in which processes are looked at', () => {
    using fake = createFakeProc();
    const pids = [1, 2, 300, 5, 32_000, 7, 4_194_303];
    for (const each of pids) fake.write(`${each}/stat`, '');
    fc.assert(
      fc.property(
        fc.oneof(
          text,
          fc.nat(2 ** 22).map((last) => `0.1 0.2 0.3 1/80 ${last}\n`),
        ),
        (loadavg) => {
          fake.write('loadavg', loadavg);
          const found = readPidsNewestFirst(fake.proc);
          expect([...found].sort((one, other) => one - other)).to.deep.equal(readPids(fake.proc));
          // One step up at most: where the numbers began again.
          expect(found.filter((each, at) => at > 0 && each > (found[at - 1] ?? 0)).length).to.be.at.most(1);
        },
      ),
    );
  });
});

describe('parseAuxv(), on every kind of machine', () => {
  const machines = fc.record({ endianness: fc.constantFrom('LE', 'BE'), wordBytes: fc.constantFrom(4, 8) });
  const value = fc.nat(0x7fff_ffff);

  it('finds the page size and the tick rate, wherever they stand', () => {
    const others = fc.uniqueArray(fc.tuple(fc.integer({ min: 18, max: 60 }), value), { selector: ([key]) => key });
    fc.assert(
      fc.property(machines, others, value, value, (machine, pairs, pageSize, ticksPerSecond) => {
        const known: [number, number][] = [[6, pageSize], ...pairs, [17, ticksPerSecond]];
        expect(parseAuxv(encode(known, machine), machine)).to.deep.equal({ pageSize, ticksPerSecond });
      }),
    );
  });

  it('has the usual values for what is cut off, and never half a number', () => {
    fc.assert(
      fc.property(machines, value, value, (machine, pageSize, ticksPerSecond) => {
        const bytes = encode(
          [
            [6, pageSize],
            [17, ticksPerSecond],
          ],
          machine,
        );
        for (let size = 0; size <= bytes.length; size++) {
          const read = parseAuxv(bytes.subarray(0, size), machine);
          expect([4096, pageSize]).to.include(read.pageSize);
          expect([100, ticksPerSecond]).to.include(read.ticksPerSecond);
        }
        fc.assert(
          fc.property(fc.uint8Array(), (garbage) => void parseAuxv(Buffer.from(garbage), machine)),
          { numRuns: 5 },
        );
      }),
    );
  });

  it('agrees with this machine', () => {
    const { pageSize, ticksPerSecond } = openProc();
    expect([4096, 16_384, 65_536]).to.include(pageSize);
    expect(ticksPerSecond).to.equal(100);
  });

  function encode(
    pairs: readonly [number, number][],
    { endianness, wordBytes }: { endianness: 'LE' | 'BE'; wordBytes: 4 | 8 },
  ) {
    const bytes = Buffer.alloc((pairs.length + 1) * 2 * wordBytes); // AT_NULL at its end
    const words = pairs.flat();
    for (const [at, word] of words.entries()) {
      const low = endianness === 'LE' ? at * wordBytes : (at + 1) * wordBytes - 4;
      if (endianness === 'LE') bytes.writeUInt32LE(word, low);
      else bytes.writeUInt32BE(word, low);
    }
    return bytes;
  }
});

describe('command lines', () => {
  const word = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\0', ''));

  it('are read back word for word, the empty ones too', () => {
    using fake = createFakeProc();
    fc.assert(
      fc.property(fc.array(word), (command) => {
        fake.write('7/cmdline', command.map((each) => `${each}\0`).join(''));
        expect(readArguments(fake.proc, 7)).to.deep.equal(command);
      }),
    );
  });

  it('are one line for a person, and never empty', () => {
    using fake = createFakeProc();
    // What breaks a line, moves a cursor, or turns text around.
    const evil = fc.constantFrom(
      '\n',
      '\r',
      '\u001b[2J',
      '\u0085',
      '\u009b',
      '\u2028',
      '\u2029',
      '\u202e',
      '\u2066',
      '\0',
      'x',
    );
    const raw = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(evil).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(raw, comm, (text, name) => {
        fake.write('7/cmdline', text);
        const shown = readCommand(fake.proc, { pid: 7, comm: name });
        expect(shown).to.match(/^[^\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]+$/u);
      }),
    );
  });

  it('of 2 MB are read whole', () => {
    using fake = createFakeProc();
    const command = Array.from({ length: 20_000 }, (_, at) => `${at}-${'x'.repeat(100)}`);
    fake.add({ pid: 7, command });
    expect(readArguments(fake.proc, 7)).to.deep.equal(command);
  });
});

describe('lists of children, true or not', () => {
  /** A forest over the pids 10 to 29, and lists that may say anything. */
  const forest = fc.record({
    parents: fc.array(fc.integer({ min: 10, max: 29 }), { minLength: 20, maxLength: 20 }),
    dead: fc.array(fc.integer({ min: 11, max: 29 }), { maxLength: 5 }),
    lies: fc.array(fc.tuple(fc.integer({ min: 10, max: 29 }), fc.stringMatching(/^[0-9 x-]{0,12}$/)), { maxLength: 4 }),
  });

  it('give a family in which everybody is alive, there once, and below its parent’s list', () => {
    fc.assert(
      fc.property(forest, ({ parents, dead, lies }) => {
        const shown: FakeProcess[] = parents.map((ppid, at) => ({ pid: at + 10, ppid }));
        const lists = new Map(shown.map((each) => [each.pid, childrenOf(shown, each.pid)]));
        for (const [of, list] of lies) lists.set(of, list);
        const family = readFamily(procOf(shown, new Set(dead), lists), { pid: 10, startTicks: 100 });
        const pids = family.map((stat) => stat.pid);
        expect(pids[0]).to.equal(10);
        expect(new Set(pids).size).to.equal(pids.length);
        expect(family.filter(isGone)).to.deep.equal([]);
        for (const [at, found] of pids.entries()) {
          if (at === 0) continue;
          const above = pids.slice(0, at).filter((each) => lists.get(each)?.split(' ').map(Number).includes(found));
          expect(above, `${found} in no list of who stands before it`).not.to.deep.equal([]);
        }
        if (lies.length === 0) expect(new Set(pids)).to.deep.equal(reachable(shown, new Set(dead)));
      }),
      { numRuns: 200 },
    );
  });

  /** A /proc in memory: hundreds of folders for each of the forests would take seconds. */
  function procOf(shown: readonly FakeProcess[], dead: ReadonlySet<number>, lists: ReadonlyMap<number, string>): Proc {
    const files = new Map<string, string>();
    for (const each of shown) {
      files.set(`${each.pid}/stat`, statLine({ ...each, state: dead.has(each.pid) ? 'Z' : 'S' }));
      files.set(`${each.pid}/task/${each.pid}/children`, lists.get(each.pid) ?? '');
    }
    const list = (path: string) => /^(\d+)\/task$/.exec(path)?.slice(1);
    return { ...openProc('/nowhere'), text: (path) => files.get(path), list };
  }

  function childrenOf(shown: readonly FakeProcess[], parent: number): string {
    return shown.flatMap(({ pid: child, ppid }) => (ppid === parent ? `${child} ` : [])).join('');
  }

  /** Through the dead nobody is reached: the kernel gives their children away. */
  function reachable(shown: readonly FakeProcess[], dead: ReadonlySet<number>): Set<number> {
    const found = new Set([10]);
    for (const parent of found) {
      for (const { pid: child, ppid } of shown) if (ppid === parent && !dead.has(child)) found.add(child);
    }
    return found;
  }
});
