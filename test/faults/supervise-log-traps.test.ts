/** What somebody may put where a log is to be: nothing is followed, nothing waits, and no tunnel cares. */
import { spawnSync } from 'node:child_process';
import {
  chownSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { expect } from 'chai';
import { openFileTail } from '#lib/cli/tail.js';
import type { JournalEntry } from '#lib/daemon/events.js';
import { createTunnelLogs, type TunnelLogs } from '#lib/daemon/log.js';
import { systemClock, until } from '#lib/time.js';
import { tunward } from '../cli/run.js';
import { makeHome, startUp, tunnelIn } from '../support/daemon.js';
import { fault, spread } from '../support/fault.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';
import { startSshd } from '../support/sshd.js';

/** Puts something under a name; answers how to take away what does not go with the name. */
type Plant = (file: string, canary: string) => (() => void) | undefined;

const plants: Readonly<Record<string, Plant>> = {
  'a link': (file, canary) => void symlinkSync(canary, file),
  'a link to nothing': (file, canary) => void symlinkSync(join(dirname(canary), 'none'), file),
  'a link to a device': (file) => void symlinkSync('/dev/full', file),
  'a link to itself': (file) => void symlinkSync(basename(file), file),
  'a hard link': (file, canary) => void linkSync(canary, file),
  'a FIFO': (file) => void run('mkfifo', file),
  'a FIFO with a reader': (file) => {
    run('mkfifo', file);
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    return () => {
      expect(readSync(fd, Buffer.alloc(10)), 'bytes that the reader got').to.equal(0);
      closeSync(fd);
    };
  },
  'a folder': (file) => void mkdirSync(file),
  'a socket': (file) => {
    const server = createServer().listen(file);
    return () => server.close();
  },
  'a device': (file) => void run('mknod', file, 'c', '1', '7'),
  'a file of another user': (file) => {
    writeFileSync(file, 'theirs\n', { mode: 0o666 });
    chownSync(file, 65_534, 65_534);
    return undefined;
  },
};

const id = 'a'.repeat(32);

describe('fault: traps in place of logs', () => {
  before(function () {
    need(this, 'root');
  });

  const title = 'follows none, waits for none, and writes again when it is gone';
  fault({ id: 'X3', title, times: 50, reduced: 2 }, async (times) => {
    const took: number[] = [];
    let refused = 0;
    for (let round = 0; round < times; round++) {
      for (const [name, plant] of Object.entries(plants)) refused += meet(name, plant, took);
    }
    const all = times * Object.keys(plants).length;
    return `${refused}/${all * 3} lines refused, 0 followed, ${spread(took)}`;
  });

  /** Everything that is done with a log, with a trap under its name; answers how many lines were refused. */
  function meet(name: string, plant: Plant, took: number[]): number {
    const root = mkdtempSync(join(tmpdir(), 'tunward-traps-'));
    const [dir, canary] = [join(root, 'log'), join(root, 'canary')];
    mkdirSync(dir, { mode: 0o700 });
    writeFileSync(canary, 'canary\n');
    const logs = openLogs(dir);
    const file = logs.fileOf(id);
    const takeAway = plant(file, canary);
    const before = lstatSync(file);
    const timed = <T>(act: () => T): T => {
      const began = performance.now();
      const answer = act();
      took.push(performance.now() - began);
      return answer;
    };
    const outcomes = [false, true, false].map((isStart) => timed(() => attempt(logs, isStart)));
    expect(
      timed(() => logs.tail(id, 10)).filter((line) => line !== 'theirs'),
      `${name}: read`,
    ).to.deep.equal([]);
    // What is older is still to be seen, and a trap under its name is not.
    writeFileSync(`${file}.1`, 'older\n');
    expect(timed(() => logs.tail(id, 10)).at(0)).to.equal('older');
    rmSync(`${file}.1`);
    timed(() => void openFileTail(file, 10).read());
    expect(lstatSync(file), `${name}: is as it was`).to.deep.include({ ino: before.ino, size: before.size });
    takeAway?.();
    expect(readFileSync(canary, 'utf8'), name).to.equal('canary\n');
    expect(readdirSync(root).sort(), name).to.deep.equal(['canary', 'log']);
    expect(readdirSync(dir), name).to.deep.equal(existsSync(file) || before.isSymbolicLink() ? [basename(file)] : []);
    rmSync(file, { recursive: true, force: true });
    expect(attempt(logs, false), `${name}: afterwards`).to.equal('written');
    expect(logs.tail(id, 9).map((line) => line.slice(22))).to.deep.equal(['… 3 lines could not be written', 'a line']);
    rmSync(root, { recursive: true });
    return outcomes.filter((outcome) => outcome !== 'written').length;
  }

  fault(
    { id: 'X3', title: 'moves older traps aside and out, and follows none', times: 50, reduced: 2 },
    async (times) => {
      let moved = 0;
      for (let round = 0; round < times; round++) {
        for (const [name, plant] of Object.entries(plants)) {
          const root = mkdtempSync(join(tmpdir(), 'tunward-traps-'));
          const [dir, canary] = [join(root, 'log'), join(root, 'canary')];
          mkdirSync(dir, { mode: 0o700 });
          writeFileSync(canary, 'canary\n');
          const logs = openLogs(dir);
          expect(attempt(logs, true)).to.equal('written');
          const takeAway = plant(`${logs.fileOf(id)}.1`, canary);
          for (let start = 0; start < 6; start++) expect(attempt(logs, true), name).to.equal('written');
          takeAway?.();
          expect(readFileSync(canary, 'utf8'), name).to.equal('canary\n');
          expect(logs.tail(id, 2)).to.have.length(2);
          rmSync(root, { recursive: true });
          moved++;
        }
      }
      return `${moved}/${moved}, 0 followed`;
    },
  );

  fault({ id: 'X3', title: 'writes into no folder of another user', times: 50, reduced: 5 }, async (times) => {
    const folders: Readonly<Record<string, (dir: string) => void>> = {
      'a folder of theirs': (dir) => {
        mkdirSync(dir);
        chownSync(dir, 65_534, 65_534);
      },
      'a link to one': (dir) => {
        mkdirSync(`${dir}.theirs`);
        chownSync(`${dir}.theirs`, 65_534, 65_534);
        symlinkSync(`${dir}.theirs`, dir);
      },
      'a link of theirs to one of ours': (dir) => {
        mkdirSync(`${dir}.ours`);
        symlinkSync(`${dir}.ours`, dir);
        run('chown', '-h', '65534', dir);
      },
      'a file': (dir) => writeFileSync(dir, ''),
      'a FIFO': (dir) => run('mkfifo', dir),
      'a link to itself': (dir) => symlinkSync(dir, dir),
    };
    for (let round = 0; round < times; round++) {
      for (const [name, make] of Object.entries(folders)) {
        const root = mkdtempSync(join(tmpdir(), 'tunward-traps-'));
        const dir = join(root, 'log');
        make(dir);
        const logs = openLogs(dir);
        expect(attempt(logs, true), name).not.to.equal('written');
        expect(logs.tail(id, 9)).to.deep.equal([]);
        for (const entry of readdirSync(root)) {
          if (lstatSync(join(root, entry)).isDirectory())
            expect(readdirSync(join(root, entry)), name).to.deep.equal([]);
        }
        rmSync(root, { recursive: true });
      }
    }
    const all = times * Object.keys(folders).length;
    return `${all}/${all} refused`;
  });

  const whole =
    'keeps every tunnel up though each of their logs is a trap, says so, and starts none into a trap of its own';
  fault({ id: 'X3', title: whole, times: 20, reduced: 1, needs: ['ssh', 'sshd'] }, async (times) => {
    const names = Object.keys(plants);
    await using reaper = createReaper();
    await using sshd = await startSshd();
    for (let round = 0; round < times; round++) {
      const home = makeHome();
      const canary = join(home.dir, 'canary');
      writeFileSync(canary, 'canary\n');
      const ports = await Promise.all(names.map(() => freeLocalPort()));
      const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
      home.configure(
        {},
        names.map((_name, at) => ({ ...common, name: `web${at}`, local_port: ports[at] })),
      );
      const { stdout } = await tunward(reaper, ['validate', '-c', home.configFile, '--json']);
      mkdirSync(home.logDir, { mode: 0o700 });
      const files = JSON.parse(stdout).tunnels.map((tunnel: { id: string }) =>
        join(home.logDir, `tunnel_${tunnel.id}.log`),
      );
      const takeAways = names.map((name, at) => plants[name]?.(files[at], canary));
      const daemon = await startUp(reaper, home);
      for (const at of names.keys()) await tunnelIn(home, `web${at}`, 'up', 20_000);
      expect(await until(() => daemon.stderr().includes('a log could not be written'), { timeoutMs: 5000 })).to.equal(
        true,
      );
      const { code } = await tunward(reaper, ['logs', '--socket', home.socket]);
      expect(code).to.equal(0);
      expect(await daemon.end('SIGTERM')).to.equal(0);
      for (const takeAway of takeAways) takeAway?.();
      expect(readFileSync(canary, 'utf8')).to.equal('canary\n');
      for (const [name, plant] of Object.entries(plants)) {
        const takeAway = plant(join(home.logDir, 'daemon.log'), canary);
        const up = await tunward(reaper, ['up', '-d', '-c', home.configFile]);
        expect(up.code, `up -d with ${name} as its log: ${up.stderr}`).to.equal(5);
        takeAway?.();
        rmSync(join(home.logDir, 'daemon.log'), { recursive: true, force: true });
      }
      expect(readFileSync(canary, 'utf8')).to.equal('canary\n');
      home.remove();
    }
    return `${times}/${times} boots with ${names.length} traps, ${times * names.length} of up -d refused`;
  });
});

function openLogs(dir: string): TunnelLogs {
  const spec = makeSpec({ id });
  return createTunnelLogs(dir, { specOf: () => spec, limits: () => ({ maxBytes: 4096, keep: 5 }), clock: systemClock });
}

/** Writes a line; what became of it. That the same trouble is not told again within a minute is no success. */
function attempt(logs: TunnelLogs, isStart: boolean): string {
  const before = readLog(logs);
  const event = isStart
    ? { type: 'tunnel.starting', asked: true, from: 'stopped', status: {} }
    : { type: 'tunnel.output', line: 'a line' };
  const entry = { ...event, tunnel: id, id: 1, at: new Date().toISOString() } as unknown as JournalEntry;
  try {
    logs.write(entry);
  } catch (error) {
    if (!(error instanceof Error) || !/^Cannot (write|use)/.test(error.message)) throw error;
    return error.message;
  }
  return readLog(logs) === before ? 'swallowed' : 'written';
}

function readLog(logs: TunnelLogs): string {
  // Follows links, unlike what is looked at: whatever is behind one must not change either.
  if (!existsSync(logs.fileOf(id))) return '';
  const { ino, size } = statSync(logs.fileOf(id));
  return `${ino} ${size}`;
}

function run(program: string, ...words: string[]): void {
  const { status, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${stderr}`);
}
