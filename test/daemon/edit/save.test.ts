import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { saveConfig } from '#lib/daemon/edit/save.js';
import { isTunwardError, type TunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import { need } from '../../support/need.js';

const old = 'tunnels: [] # ours\n';
const fresh = `${old}# ${'more '.repeat(2000)}\n`;
const nobody = 65_534;

describe('saveConfig()', () => {
  let dir: string;
  let file: string;
  let backups: string;
  let undo: (() => void)[];

  beforeEach(() => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'tunward-save-')));
    mkdirSync(join(dir, 'etc'));
    file = join(dir, 'etc', 'tunward.yaml');
    backups = join(dir, 'backups');
    writeFileSync(file, old);
    undo = [];
  });

  afterEach(() => {
    for (const step of undo.reverse()) step();
    rmSync(dir, { recursive: true });
  });

  const save = (text = fresh, at = file) =>
    saveConfig({ file: at, before: old, text, backups, wallTime: Date.UTC(2026, 0, 16, 8, 15, 2, 123) });

  async function refused(saving: Promise<void> = save()): Promise<TunwardError> {
    const error: unknown = await saving.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (isTunwardError(error)) return error;
    throw error ?? new Error('It was written');
  }

  /** As it was, and nothing left beside it. */
  function expectUntouched(): void {
    expect(readFileSync(file, 'utf8')).to.equal(old);
    expect(readdirSync(join(dir, 'etc'))).to.deep.equal(['tunward.yaml']);
    expect(existsSync(backups) ? readdirSync(backups) : []).to.deep.equal([]);
  }

  function mount(...args: readonly string[]): void {
    const at = args.at(-1) ?? '';
    const { status, stderr } = spawnSync('mount', args);
    expect(status, String(stderr)).to.equal(0);
    undo.push(() => spawnSync('umount', [at]));
  }

  function asNobody<T>(act: () => Promise<T>): Promise<T> {
    process.setegid?.(nobody);
    process.seteuid?.(nobody);
    return act().finally(() => {
      process.seteuid?.(0);
      process.setegid?.(0);
    });
  }

  it('writes a new file over the old one, with its mode, after a copy that only its owner may read', async () => {
    chmodSync(file, 0o640);
    const { ino } = statSync(file);
    await save();
    expect(readFileSync(file, 'utf8')).to.equal(fresh);
    expect([statSync(file).mode & 0o7777, statSync(file).ino === ino]).to.deep.equal([0o640, false]);
    expect(readdirSync(join(dir, 'etc'))).to.deep.equal(['tunward.yaml']);
    const copy = join(backups, 'tunward.yaml.20260116T081502.123Z');
    expect(readFileSync(copy, 'utf8')).to.equal(old);
    expect([statSync(copy).mode & 0o777, statSync(backups).mode & 0o777]).to.deep.equal([0o600, 0o700]);
  });

  it('leaves the owner the owner', async function () {
    need(this, 'root');
    chownSync(file, nobody, 12_345);
    await save();
    const { uid, gid } = statSync(file);
    expect([uid, gid]).to.deep.equal([nobody, 12_345]);
  });

  it('goes through symbolic links, which stay', async () => {
    const link = join(dir, 'link.yaml');
    symlinkSync('etc', join(dir, 'folder'));
    symlinkSync('folder/tunward.yaml', link);
    await save(fresh, link);
    expect(lstatSync(link).isSymbolicLink()).to.equal(true);
    expect(readFileSync(file, 'utf8')).to.equal(fresh);
    expect(readdirSync(backups)).to.deep.equal(['link.yaml.20260116T081502.123Z']);
  });

  it('keeps a byte order mark', async () => {
    writeFileSync(file, `\ufeff${old}`);
    await save();
    expect(readFileSync(file, 'utf8')).to.equal(`\ufeff${fresh}`);
  });

  it('writes all names of a file that has several', async () => {
    linkSync(file, join(dir, 'other'));
    await save();
    expect(readFileSync(join(dir, 'other'), 'utf8')).to.equal(fresh);
    await saveConfig({ file, before: fresh, text: old, backups, wallTime: 0 });
    expect(readFileSync(join(dir, 'other'), 'utf8')).to.equal(old);
  });

  it('writes nothing over what somebody else has written, however late', async () => {
    writeFileSync(file, `${old}# mine\n`);
    const error = await refused();
    expect(error.code).to.equal('ERR_CONFIG_CHANGED');
    expect(error.info).to.have.all.keys('etag', 'ifMatch');
    writeFileSync(file, old);
    // Right before the rename: the new file is already there.
    const saving = refused();
    const isThere = () => readdirSync(join(dir, 'etc')).length > 1;
    expect(await until(isThere, { timeoutMs: 5000, everyMs: 0 })).to.equal(true);
    writeFileSync(file, `${old}# late\n`);
    expect((await saving).code).to.equal('ERR_CONFIG_CHANGED');
    expect(readFileSync(file, 'utf8')).to.equal(`${old}# late\n`);
    expect([readdirSync(join(dir, 'etc')), readdirSync(backups)]).to.deep.equal([['tunward.yaml'], []]);
  });

  it('says what is wrong with a file that nobody may write, root neither', async () => {
    chmodSync(file, 0o444);
    const error = await refused();
    expect(error.code).to.equal('ERR_CONFIG_UNWRITABLE');
    expect(error.message).to.equal(
      `Cannot write ${file}: it is read-only for this user (EACCES), nothing was changed: give this user the right to write it`,
    );
    expectUntouched();
  });

  it('says that there is no file, or no regular one', async () => {
    rmSync(file);
    expect((await refused()).message).to.contain('it is not there (ENOENT)');
    mkdirSync(file);
    expect((await refused()).code).to.equal('ERR_CONFIG_UNWRITABLE');
  });

  describe('where it cannot be replaced', () => {
    before(function () {
      need(this, 'root');
    });

    it('is written in place: a single file that is mounted', async () => {
      const source = join(dir, 'source.yaml');
      writeFileSync(source, old);
      mount('--bind', source, file);
      await save();
      expect([readFileSync(file, 'utf8'), readFileSync(source, 'utf8')]).to.deep.equal([fresh, fresh]);
      expect(readdirSync(join(dir, 'etc'))).to.deep.equal(['tunward.yaml']);
      await saveConfig({ file, before: fresh, text: old, backups, wallTime: 0 });
      expect(readFileSync(source, 'utf8'), 'shorter').to.equal(old);
    });

    it('is written, and said to be, though the oldest copy cannot be removed', async () => {
      mkdirSync(backups);
      const names = Array.from({ length: 11 }, (_, at) => `tunward.yaml.20200101T0000${at + 10}.000Z`);
      for (const name of names) writeFileSync(join(backups, name), 'older');
      mount('--bind', file, join(backups, names[0] ?? ''));
      await save();
      expect(readFileSync(file, 'utf8')).to.equal(fresh);
      // The one after it is gone, the mounted one is still there.
      expect(readdirSync(backups).sort().slice(0, 2)).to.deep.equal([names[0], names[2]]);
    });

    it('is written in place: one in a folder that is read-only', async () => {
      const source = join(dir, 'source.yaml');
      writeFileSync(source, old);
      mount('--bind', join(dir, 'etc'), join(dir, 'etc'));
      mount('--bind', source, file);
      const remounted = spawnSync('mount', ['-o', 'remount,ro,bind', join(dir, 'etc')]);
      expect(remounted.status, String(remounted.stderr)).to.equal(0);
      await save();
      expect(readFileSync(source, 'utf8')).to.equal(fresh);
    });

    it('is written in place: one of somebody else’s, who lets this user write it', async () => {
      chmodSync(dir, 0o755);
      chmodSync(join(dir, 'etc'), 0o777);
      chmodSync(file, 0o666);
      mkdirSync(backups);
      chownSync(backups, nobody, nobody);
      await asNobody(() => save());
      expect([readFileSync(file, 'utf8'), statSync(file).uid]).to.deep.equal([fresh, 0]);
      expect(readdirSync(join(dir, 'etc'))).to.deep.equal(['tunward.yaml']);
    });

    it('is put back when the disk of a mounted one is full', async () => {
      const disk = join(dir, 'disk');
      mkdirSync(disk);
      mount('-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', disk);
      const source = join(disk, 'source.yaml');
      writeFileSync(source, old);
      expect(() => writeFileSync(join(disk, 'ballast'), Buffer.alloc(65_536))).to.throw('ENOSPC');
      mount('--bind', source, file);
      const error = await refused();
      expect(error.code).to.equal('ERR_NO_SPACE');
      expectUntouched();
    });
  });

  describe('where nothing can be written', () => {
    before(function () {
      need(this, 'root');
    });

    it('changes nothing on a full disk', async () => {
      mount('-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', join(dir, 'etc'));
      writeFileSync(file, old);
      const ballast = join(dir, 'etc', 'ballast');
      expect(() => writeFileSync(ballast, Buffer.alloc(65_536))).to.throw('ENOSPC');
      const error = await refused();
      expect(error.code).to.equal('ERR_NO_SPACE');
      expect(error.message).to.equal(
        `Cannot write ${file}: no space is left on its disk (ENOSPC), nothing was changed: make room, then try again`,
      );
      rmSync(ballast);
      expectUntouched();
      await save();
      expect(readFileSync(file, 'utf8')).to.equal(fresh);
    });

    it('changes nothing when there is no room for the copy, and leaves no half of it', async () => {
      mkdirSync(backups);
      mount('-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', backups);
      const ballast = join(backups, 'ballast');
      expect(() => writeFileSync(ballast, Buffer.alloc(65_536))).to.throw('ENOSPC');
      const error = await refused();
      expect([error.code, error.info]).to.deep.equal(['ERR_NO_SPACE', { path: backups, errno: 'ENOSPC' }]);
      rmSync(ballast);
      expectUntouched();
    });

    it('says that a file system is read-only, and what to do', async () => {
      mount('--bind', join(dir, 'etc'), join(dir, 'etc'));
      expect(spawnSync('mount', ['-o', 'remount,ro,bind', join(dir, 'etc')]).status).to.equal(0);
      const error = await refused();
      expect(error.code).to.equal('ERR_CONFIG_UNWRITABLE');
      expect(error.message).to.match(/its file system is read-only \(EROFS\), nothing was changed: mount it writable/);
      expectUntouched();
    });

    it('says so of a file that an ordinary user may not write, and of a folder for the copy', async () => {
      chmodSync(dir, 0o755);
      chmodSync(join(dir, 'etc'), 0o777);
      const error = await asNobody(() => refused());
      expect([error.code, error.info]).to.deep.equal([
        'ERR_CONFIG_UNWRITABLE',
        { path: file, errno: 'EACCES', remedy: 'give this user the right to write it' },
      ]);
      chownSync(file, nobody, nobody);
      mkdirSync(backups, { mode: 0o700 });
      expect((await asNobody(() => refused())).code).to.equal('ERR_CONFIG_UNWRITABLE');
      expectUntouched();
    });

    it('says so of one that is immutable', async function () {
      const { status } = spawnSync('chattr', ['+i', file]);
      if (status !== 0) {
        process.stderr.write('\n*** SKIPPED *** saveConfig(): this file system knows no chattr +i\n');
        this.skip();
      }
      undo.push(() => spawnSync('chattr', ['-i', file]));
      const error = await refused();
      expect([error.code, error.info]).to.deep.equal([
        'ERR_CONFIG_UNWRITABLE',
        { path: file, errno: 'EPERM', remedy: 'look at its owner and at lsattr' },
      ]);
      expectUntouched();
    });
  });
});
