import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createSocketFolder } from '#lib/tunnel/front/socket-folder.js';

describe('createSocketFolder()', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('makes a folder for this user alone, whatever the umask is, and none before it is wanted', () => {
    const folder = join(dir, 'links');
    const before = process.umask(0o277);
    try {
      const sockets = createSocketFolder({ candidates: [folder] });
      expect(existsSync(folder)).to.equal(false);
      const one = sockets.take();
      expect(one.path.startsWith(`${folder}/`)).to.equal(true);
      expect(lstatSync(folder).mode & 0o777).to.equal(0o700);
    } finally {
      process.umask(before);
    }
  });

  it('gives no path twice, and leaves nothing when the last one is given back', () => {
    const folder = join(dir, 'links');
    const sockets = createSocketFolder({ candidates: [folder] });
    const [one, other] = [sockets.take(), sockets.take()];
    expect(one.path).not.to.equal(other.path);
    writeFileSync(one.path, '');
    one.release();
    expect([existsSync(one.path), existsSync(folder)]).to.deep.equal([false, true]);
    other.release();
    other.release();
    expect(existsSync(folder)).to.equal(false);
    const third = sockets.take();
    expect([one.path, other.path]).not.to.include(third.path);
    expect(existsSync(folder)).to.equal(true);
  });

  it('clears away what a former life has left there, once', () => {
    const folder = join(dir, 'links');
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, '7'), '');
    const sockets = createSocketFolder({ candidates: [folder] });
    sockets.take();
    expect(readdirSync(folder)).to.deep.equal([]);
    writeFileSync(join(folder, '8'), '');
    sockets.take();
    expect(readdirSync(folder)).to.deep.equal(['8']);
  });

  it('passes over what is too long, has characters of ssh’s own, or is not ours alone', () => {
    const long = join(dir, 'x'.repeat(90));
    const odd = ['a:b', 'a b', 'a%d', 'a$b', 'a~b', 'ü'].map((name) => join(dir, name));
    const open = join(dir, 'open');
    mkdirSync(open);
    chmodSync(open, 0o755);
    const link = join(dir, 'link');
    mkdirSync(join(dir, 'elsewhere'), { mode: 0o700 });
    symlinkSync(join(dir, 'elsewhere'), link);
    const file = join(dir, 'file');
    writeFileSync(file, '');
    const good = join(dir, 'good');
    const bad = [long, ...odd, open, link, file, join(file, 'below'), join(dir, 'no', 'parent')];
    for (const one of bad) {
      expect(createSocketFolder({ candidates: [one, good] }).take().path, one).to.match(/\/good\/\d+$/);
    }
    expect(() => createSocketFolder({ candidates: [long, open] }).take()).to.throw(
      `Cannot make a socket for ssh: ${long} is too long: with the socket's name a path may have 107 bytes; ${open} is not ours alone; set TMPDIR to a folder of yours with a short path`,
    );
  });

  // the folder is chosen once; after it was empty and removed, whatever is there by then is taken.
  it('does not take a folder that a stranger has made while ours was away', function () {
    if (process.getuid?.() !== 0) this.skip();
    const folder = join(dir, 'links');
    const sockets = createSocketFolder({ candidates: [folder] });
    sockets.take().release();
    mkdirSync(folder);
    chownSync(folder, 65_534, 65_534);
    expect(() => sockets.take()).to.throw('is not ours alone');
  });

  // the same by a link.
  it('does not go through a link that has come into the place of its folder', () => {
    const folder = join(dir, 'links');
    const elsewhere = join(dir, 'elsewhere');
    mkdirSync(elsewhere);
    const sockets = createSocketFolder({ candidates: [folder] });
    sockets.take().release();
    symlinkSync(elsewhere, folder);
    expect(() => sockets.take()).to.throw('is not ours alone');
  });
});
