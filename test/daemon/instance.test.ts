import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { openForAppend, readOwnFile, replaceFile } from '#lib/daemon/files.js';
import { isAnswered, isLiving, readInstance, takeLock } from '#lib/daemon/instance.js';
import { isTunwardError } from '#lib/errors.js';

describe('the state folder', () => {
  let dir: string;
  let file: string;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-state-'));
    file = join(dir, 'state', 'instance');
  });

  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function kept(): string[] {
    return readdirSync(join(dir, 'state')).filter((name) => name.includes('.invalid-'));
  }

  describe('readInstance()', () => {
    it('makes 128 random bits for its owner alone, and reads the same ones again', () => {
      const first = readInstance(join(dir, 'state'));
      expect(first.id).to.match(/^[0-9a-f]{32}$/);
      expect(first.replaced).to.equal(undefined);
      expect(statSync(file).mode & 0o777).to.equal(0o600);
      expect(statSync(join(dir, 'state')).mode & 0o777).to.equal(0o700);
      expect(readInstance(join(dir, 'state'))).to.deep.equal(first);
      expect(readInstance(join(dir, 'other')).id).to.not.equal(first.id);
    });

    for (const [name, text] of Object.entries({
      'an empty file': '',
      'a truncated one': '0123456789abcdef',
      'one with more behind it': `${'a'.repeat(32)}\nb`,
      capitals: 'A'.repeat(32),
      'a list of pids': '[1, -1, 0]\n',
      'a megabyte': 'a'.repeat(1_048_576),
    })) {
      it(`keeps ${name} beside it, and takes a new value`, () => {
        mkdirSync(join(dir, 'state'));
        writeFileSync(file, text);
        const { id, replaced } = readInstance(join(dir, 'state'));
        expect(id).to.match(/^[0-9a-f]{32}$/);
        expect(replaced).to.include(file);
        expect(kept()).to.have.lengthOf(1);
        expect(readFileSync(join(dir, 'state', kept()[0] ?? ''), 'utf8')).to.equal(text);
      });
    }

    it('does not follow a link, nor wait at a FIFO', () => {
      mkdirSync(join(dir, 'state'));
      const aim = join(dir, 'aim');
      writeFileSync(aim, 'b'.repeat(32));
      symlinkSync(aim, file);
      expect(readInstance(join(dir, 'state')).id).to.not.equal('b'.repeat(32));
      expect(readFileSync(aim, 'utf8')).to.equal('b'.repeat(32));
      rmSync(file);
      execFileSync('mkfifo', [file]);
      expect(readInstance(join(dir, 'state')).replaced).to.include(file);
    });
  });

  describe('takeLock()', () => {
    it('is had by one at a time, and free again when released', async () => {
      const id = readInstance(join(dir, 'state')).id;
      expect(await isLiving(id)).to.equal(false);
      const lock = await takeLock(id);
      expect(await isLiving(id)).to.equal(true);
      const second = await takeLock(id).catch((error: unknown) => error);
      expect(isTunwardError(second, 'ERR_DAEMON_RUNNING')).to.equal(true);
      expect(second, 'it can be ended also when its socket is gone')
        .to.have.property('message')
        .that.contains(`daemon (pid ${process.pid}) runs on this state folder`);
      lock.release();
      (await takeLock(id)).release();
    });
  });

  describe('isAnswered()', () => {
    it('says no only where a connection is refused or nothing is there', async () => {
      const left = join(dir, 'left.sock');
      const server = createServer().listen(left);
      await once(server, 'listening');
      const second = join(dir, 'second.sock');
      linkSync(left, second);
      expect(await isAnswered(second)).to.equal(true);
      server.close();
      await once(server, 'close');
      expect(await isAnswered(second), 'refused').to.equal(false);
      expect(await isAnswered(join(dir, 'missing.sock'))).to.equal(false);
    });

    it('takes whatever else goes wrong for a yes: what is living must not be taken for abandoned', async () => {
      writeFileSync(join(dir, 'file'), '');
      expect(await isAnswered(join(dir, 'file', 'below'))).to.equal(true);
    });
  });

  describe('files of our own', () => {
    it('are replaced whole, 0600, and nothing is left beside them', () => {
      const one = join(dir, 'one');
      writeFileSync(one, 'old', { mode: 0o644 });
      replaceFile(one, 'new');
      expect([readFileSync(one, 'utf8'), statSync(one).mode & 0o777, readdirSync(dir)]).to.deep.equal([
        'new',
        0o600,
        ['one'],
      ]);
    });

    it('are appended to only when they are plain files with one name', () => {
      const aim = join(dir, 'aim');
      writeFileSync(aim, '');
      symlinkSync(aim, join(dir, 'link'));
      linkSync(aim, join(dir, 'twin'));
      execFileSync('mkfifo', [join(dir, 'fifo')]);
      mkdirSync(join(dir, 'folder'));
      for (const name of ['link', 'twin', 'fifo', 'folder']) {
        expect(() => openForAppend(join(dir, name)), name).to.throw(/^Cannot write /);
      }
      expect(readFileSync(aim, 'utf8')).to.equal('');
    });

    it('are read only when they are plain files', () => {
      writeFileSync(join(dir, 'plain'), 'text');
      symlinkSync(join(dir, 'plain'), join(dir, 'link'));
      execFileSync('mkfifo', [join(dir, 'fifo')]);
      const texts = ['plain', 'link', 'fifo', 'missing'].map((name) => readOwnFile(join(dir, name)));
      expect(texts).to.deep.equal(['text', undefined, undefined, undefined]);
    });
  });
});
