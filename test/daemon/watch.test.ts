import fs, { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Watch, watchFile } from '#lib/daemon/watch.js';
import { until } from '#lib/time.js';
import { createFakeClock, type FakeClock } from '../support/fakeclock.js';

const POLL_MS = 2000;
const QUIET_MS = 100;

describe('watchFile()', () => {
  let dir: string;
  let file: string;
  let clock: FakeClock;
  let looks: number;
  /** What it sleeps for: the poll, or less than that for the end of a burst. */
  let sleepMs: number;
  let troubles: string[];
  let look: () => Promise<void>;
  let watch: Watch;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-watch-'));
    file = join(dir, 'tunward.yaml');
    writeFileSync(file, 'one\n');
    clock = createFakeClock();
    looks = 0;
    sleepMs = 0;
    troubles = [];
    look = async () => undefined;
  });

  afterEach(() => {
    watch.close();
    rmSync(dir, { recursive: true, force: true });
  });

  async function start(at = file): Promise<void> {
    watch = watchFile(at, {
      clock: {
        ...clock,
        sleep: (ms, signal) => {
          sleepMs = ms;
          return clock.sleep(ms, signal);
        },
      },
      look: () => {
        looks++;
        return look();
      },
      onTrouble: (message) => troubles.push(message),
    });
    await isAtRest(1);
  }

  /** It has looked that often, and waits for an event or the poll: the folders are watched. */
  async function isAtRest(times: number): Promise<void> {
    const resting = () => looks === times && clock.sleepers() === 1 && sleepMs === POLL_MS;
    expect(await until(resting, { timeoutMs: 5000 }), `${times} looks, found ${looks}`).to.equal(true);
  }

  /** Waits for an event, and lets time pass until the look that it leads to is over. */
  async function lookOfEvent(): Promise<void> {
    const before = looks;
    await event();
    await isAtRest(before + 1);
  }

  async function event(): Promise<void> {
    const before = looks;
    expect(await until(() => sleepMs < POLL_MS, { timeoutMs: 5000 }), 'an event').to.equal(true);
    await clock.advance(QUIET_MS);
    expect(await until(() => looks === before + 1, { timeoutMs: 5000 }), 'another look').to.equal(true);
  }

  async function lookOfPoll(): Promise<void> {
    const before = looks;
    await clock.advance(POLL_MS);
    await isAtRest(before + 1);
  }

  const edits: Record<string, () => void> = {
    'a file that is written in place': () => writeFileSync(file, 'two\n'),
    'a file that another is renamed over': () => {
      writeFileSync(join(dir, '.tunward.yaml.swp'), 'two\n');
      renameSync(join(dir, '.tunward.yaml.swp'), file);
    },
    'a file that is gone': () => unlinkSync(file),
  };
  for (const [what, edit] of Object.entries(edits)) {
    it(`looks at ${what}, soon and once`, async () => {
      await start();
      edit();
      await lookOfEvent();
      await clock.advance(POLL_MS / 2);
      expect(looks, 'one edit, one look').to.equal(2);
    });
  }

  it('looks at a file that comes back', async () => {
    await start();
    unlinkSync(file);
    await lookOfEvent();
    writeFileSync(file, 'two\n');
    await lookOfEvent();
  });

  it('looks at what a link is swapped to, as a ConfigMap is: on every link of the way', async () => {
    const write = (name: string) => {
      mkdirSync(join(dir, name));
      writeFileSync(join(dir, name, 'tunward.yaml'), `${name}\n`);
    };
    unlinkSync(file);
    write('..one');
    symlinkSync('..one', join(dir, '..data'));
    symlinkSync('..data/tunward.yaml', file);
    await start();
    write('..two');
    symlinkSync('..two', join(dir, '..tmp'));
    renameSync(join(dir, '..tmp'), join(dir, '..data'));
    rmSync(join(dir, '..one'), { recursive: true });
    await lookOfEvent();
    // The folder that is the right one now is watched as well.
    writeFileSync(join(dir, '..two', 'tunward.yaml'), 'three\n');
    await lookOfEvent();
  });

  it('looks at a file that a link from another folder leads to', async () => {
    const elsewhere = join(dir, 'etc');
    mkdirSync(elsewhere);
    const link = join(elsewhere, 'tunward.yaml');
    symlinkSync(file, link);
    await start(link);
    edits['a file that another is renamed over']?.();
    await lookOfEvent();
  });

  it('has no eyes for what else happens in the folder, or below it', async () => {
    mkdirSync(join(dir, 'backups'));
    await start();
    const own = watchFolder(dir);
    writeFileSync(join(dir, 'tunnel_1.log'), 'x');
    writeFileSync(join(dir, 'backups', 'tunward.yaml'), 'x');
    await own.happened();
    own.close();
    await clock.settle();
    expect([looks, sleepMs]).to.deep.equal([1, POLL_MS]);
  });

  it('waits until a burst of events is over, though not for ever', async () => {
    await start();
    const own = watchFolder(dir);
    for (let edits = 1; looks === 1 && edits < 100; edits++) {
      writeFileSync(file, `${edits}\n`);
      await own.happened();
      await clock.advance(QUIET_MS / 2);
    }
    own.close();
    expect(clock.now()).to.be.within(1000, 1200);
  });

  it('looks every 2 s where no event comes', async () => {
    await start();
    await lookOfPoll();
    await lookOfPoll();
  });

  it('finds a folder that was replaced by another, and watches that', async () => {
    const folder = join(dir, 'conf');
    mkdirSync(folder);
    await start(join(folder, 'tunward.yaml'));
    renameSync(folder, join(dir, 'old'));
    mkdirSync(folder);
    await lookOfPoll();
    writeFileSync(join(folder, 'tunward.yaml'), 'two\n');
    await lookOfEvent();
  });

  it('does not lose what happens during a look', async () => {
    await start();
    let finish: () => void = () => undefined;
    look = () => new Promise((resolve) => (finish = resolve));
    writeFileSync(file, 'two\n');
    await event();
    look = async () => undefined;
    const own = watchFolder(dir);
    writeFileSync(file, 'three\n');
    await own.happened();
    own.close();
    finish();
    await lookOfEvent();
  });

  it('goes on after a look that failed, and says so once', async () => {
    await start();
    look = () => Promise.reject(new Error('no descriptor left'));
    for (const text of ['two\n', 'three\n']) {
      writeFileSync(file, text);
      await lookOfEvent();
    }
    expect(troubles).to.deep.equal([`${file} could not be looked at: no descriptor left`]);
  });

  it('ends with its close', async () => {
    await start();
    watch.close();
    await clock.settle();
    expect(clock.sleepers()).to.equal(0);
  });

  it('ends with its close, also in a look that never answers', async () => {
    await start();
    look = () => new Promise(() => undefined);
    writeFileSync(file, 'two\n');
    await event();
    watch.close();
    writeFileSync(file, 'three\n');
    await clock.advance(2 * POLL_MS);
    expect([looks, clock.sleepers()]).to.deep.equal([2, 0]);
  });

  it('gives up on links that go in a circle, and looks all the same', async () => {
    unlinkSync(file);
    symlinkSync('tunward.yaml', file);
    await start();
    unlinkSync(file);
    writeFileSync(file, 'two\n');
    await lookOfEvent();
  });
});

/** A watch of the test's own: what it has seen, the other has been told in the same turn. */
function watchFolder(folder: string) {
  let seen = 0;
  const watcher = fs.watch(folder, () => seen++);
  return {
    close: () => watcher.close(),
    happened: async () => {
      expect(await until(() => seen > 0, { timeoutMs: 5000 }), 'an event').to.equal(true);
      seen = 0;
    },
  };
}
