import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { openLedger } from '#lib/daemon/ledger.js';
import { openProc } from '#lib/proc/read.js';

const tunnel = 'a'.repeat(32);
const instance = 'b'.repeat(32);
const [one, two] = [
  { pid: 4711, startTicks: 100 },
  { pid: 4712, startTicks: 101 },
];

describe('openLedger()', () => {
  let stateDir: string;
  let file: string;
  let failures: string[];

  beforeEach(() => {
    stateDir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
    file = join(stateDir, 'ledger.json');
    failures = [];
  });

  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  const open = () =>
    openLedger({ stateDir, instance, proc: openProc(), onFailure: (message) => failures.push(message) });
  const read = () => JSON.parse(readFileSync(file, 'utf8'));

  /** What a daemon of this boot and this PID namespace would write. */
  function sound(chains: readonly unknown[] = [{ tunnel, instance, pid: 4711, start_ticks: 100 }]) {
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return { version: 1, boot_id: bootId, pid_namespace: readlinkSync('/proc/self/ns/pid'), chains };
  }

  it('has what was started on disk when it says so, with all that makes it one process', async () => {
    const ledger = open();
    await ledger.record(tunnel, one);
    expect(read()).to.deep.equal(sound());
    expect(statSync(file).mode & 0o777).to.equal(0o600);
  });

  it('hands the next life what was not ended', async () => {
    const ledger = open();
    await Promise.all([ledger.record(tunnel, one), ledger.record(tunnel, two)]);
    ledger.erase([two]);
    await ledger.close();
    const next = open();
    expect(next.former).to.deep.equal([{ tunnel, instance, ...one }]);
    expect(next.replaced).to.equal(undefined);
  });

  it('keeps what a former life left until that is said to be gone', async () => {
    writeFileSync(file, JSON.stringify(sound()));
    const ledger = open();
    await ledger.record(tunnel, two);
    expect(read().chains).to.have.length(2);
    ledger.erase(ledger.former);
    await ledger.close();
    expect(read().chains.map(({ pid }: { pid: number }) => pid)).to.deep.equal([4712]);
  });

  it('writes a boot of many at once as a few, and loses none of them', async () => {
    const ledger = open();
    const refs = Array.from({ length: 200 }, (_, at) => ({ pid: 5000 + at, startTicks: at }));
    let inodes = 0;
    let last = 0;
    await Promise.all(
      refs.map(async (ref) => {
        await ledger.record(tunnel, ref);
        const { ino } = statSync(file);
        if (ino !== last) inodes++;
        last = ino;
        expect(read().chains.map(({ pid }: { pid: number }) => pid)).to.include(ref.pid);
      }),
    );
    expect(read().chains).to.have.length(200);
    expect(inodes).to.be.below(20);
    expect(readdirSync(stateDir)).to.deep.equal(['ledger.json']);
  });

  it('forgets what another boot or another PID namespace has written', () => {
    for (const other of [{ boot_id: '00000000-0000-0000-0000-000000000000' }, { pid_namespace: 'pid:[1]' }]) {
      writeFileSync(file, JSON.stringify({ ...sound(), ...other }));
      const ledger = open();
      expect([ledger.former, ledger.replaced]).to.deep.equal([[], undefined]);
    }
  });

  const row = { tunnel, instance, pid: 4711, start_ticks: 100 };
  const forged: readonly (readonly [what: string, text: string])[] = [
    ['nothing', ''],
    ['half of a ledger', JSON.stringify(sound()).slice(0, -20)],
    ['no JSON', 'pid 4711'],
    ['another version', JSON.stringify({ ...sound(), version: 2 })],
    ['a list', '[]'],
    ...[0, 1, -1, 1.5, '4711', '', [], false, null, 2 ** 22 + 1, 1e300].map(
      (pid) => [`the pid ${JSON.stringify(pid)}`, JSON.stringify(sound([{ ...row, pid }]))] as const,
    ),
    ['no start', JSON.stringify(sound([{ ...row, start_ticks: undefined }]))],
    ['an empty mark', JSON.stringify(sound([{ ...row, instance: '' }]))],
    ['a key too many', JSON.stringify(sound([{ ...row, command: 'ssh' }]))],
    ['more than a ledger', JSON.stringify(sound(Array(10_001).fill(row)))],
    ['more than it reads', `${JSON.stringify(sound())}${' '.repeat(4_194_304)}x`],
  ];
  for (const [what, text] of forged) {
    it(`takes nothing from a file with ${what}, says so, and loses it not`, async () => {
      writeFileSync(file, text);
      const ledger = open();
      expect(ledger.former).to.deep.equal([]);
      expect(ledger.replaced).to.match(/is no ledger in a plain file of this user: kept as .*, and begun anew$/);
      const aside = readdirSync(stateDir).find((name) => name.startsWith('ledger.json.invalid-')) ?? '';
      expect(readFileSync(join(stateDir, aside), 'utf8')).to.equal(text);
      await ledger.record(tunnel, one);
      expect(open().former).to.have.length(1);
    });
  }

  it('follows no link and waits for no pipe, whatever stands in its place', async () => {
    const elsewhere = join(stateDir, 'elsewhere');
    const text = JSON.stringify(sound());
    const traps = [
      () => symlinkSync(elsewhere, file),
      () => execFileSync('mkfifo', [file]),
      () => mkdirSync(file),
      () => symlinkSync(elsewhere, join(stateDir, '.ledger.json.new')),
      () => linkSync(elsewhere, join(stateDir, '.ledger.json.new')),
      () => execFileSync('mkfifo', [join(stateDir, '.ledger.json.new')]),
    ];
    for (const trap of traps) {
      rmSync(file, { recursive: true, force: true });
      writeFileSync(elsewhere, text);
      trap();
      const ledger = open();
      expect(ledger.former).to.deep.equal([]);
      await ledger.record(tunnel, two);
      expect(read().chains).to.have.length(1);
      expect(readFileSync(elsewhere, 'utf8')).to.equal(text);
    }
    expect(failures).to.deep.equal([]);
  });

  it('goes on without a disk, says so once, and is whole again when there is one', async () => {
    const ledger = open();
    rmSync(stateDir, { recursive: true });
    await ledger.record(tunnel, one);
    await ledger.record(tunnel, two);
    expect(failures).to.have.length(1);
    expect(failures[0]).to.match(/^Cannot write .*ledger\.json: ENOENT/);
    mkdirSync(stateDir);
    ledger.erase([one]);
    await ledger.close();
    expect(read().chains.map(({ pid }: { pid: number }) => pid)).to.deep.equal([4712]);
    expect(existsSync(join(stateDir, '.ledger.json.new'))).to.equal(false);
  });

  it('takes whatever bytes there are for what they are', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.json().map((json) => `{"version":1,"chains":[${json}]}`),
        ),
        (text) => {
          writeFileSync(file, text);
          expect(open().former).to.deep.equal([]);
          for (const name of readdirSync(stateDir)) rmSync(join(stateDir, name));
        },
      ),
    );
  });
});
