import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { appendLine, beginWhenFull, cutWhenFull, openFiles, readLastLines } from '#lib/daemon/logfile.js';
import { need } from '../support/need.js';

describe('a log file', () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-logfile-'));
    file = join(dir, 'a.log');
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const names = () => readdirSync(dir).sort();
  const textOf = (name: string) => readFileSync(join(dir, name), 'utf8');

  describe('appendLine()', () => {
    it('keeps every file within its size and their number within its bound, and loses no line to a new file', () => {
      const line = fc.string({ unit: 'grapheme', maxLength: 60 }).map((text) => text.replaceAll('\n', ' '));
      fc.assert(
        fc.property(
          fc.array(fc.tuple(line, fc.boolean()), { minLength: 1, maxLength: 60 }),
          fc.integer({ min: 1, max: 6 }),
          (lines, keep) => {
            for (const name of names()) rmSync(join(dir, name));
            for (const [text, isFresh] of lines) {
              expect(appendLine(file, text, { maxBytes: 256, keep, isFresh })).to.equal(undefined);
            }
            const ends = Array.from({ length: names().length }, (_none, at) => (at === 0 ? '' : `.${at}`));
            expect(names()).to.deep.equal(ends.map((end) => `a.log${end}`).sort());
            expect(names().length).to.be.at.most(keep);
            const texts = ends.reverse().map((end) => textOf(`a.log${end}`));
            for (const text of texts) expect(Buffer.byteLength(text)).to.be.within(1, 256);
            const there = texts.join('').split('\n').slice(0, -1);
            expect(there).to.deep.equal(lines.slice(-there.length).map(([text]) => text));
            if (names().length < keep) expect(there).to.have.length(lines.length);
          },
        ),
        { numRuns: 50 },
      );
    });

    it('takes a line that is larger than a file may be, alone', () => {
      for (const text of ['a', 'b'.repeat(300), 'c']) appendLine(file, text, { maxBytes: 256, keep: 5 });
      expect(names().map((name) => textOf(name).length)).to.deep.equal([2, 301, 2]);
    });

    it('removes what a larger number of files has left', () => {
      for (let n = 0; n < 6; n++) appendLine(file, String(n), { maxBytes: 1, keep: 6 });
      expect(names()).to.have.length(6);
      appendLine(file, 'last', { maxBytes: 1, keep: 2 });
      expect(names()).to.deep.equal(['a.log', 'a.log.1']);
      expect(textOf('a.log.1')).to.equal('5\n');
    });

    it('writes the line where it is when the file cannot be moved aside, and says why', () => {
      appendLine(file, 'one', { maxBytes: 4, keep: 2 });
      mkdirSync(join(dir, 'a.log.1'));
      const problem = appendLine(file, 'two', { maxBytes: 4, keep: 2 });
      expect(problem?.message).to.contain('EISDIR');
      expect(textOf('a.log')).to.equal('one\ntwo\n');
      rmSync(join(dir, 'a.log.1'), { recursive: true });
      expect(appendLine(file, 'three', { maxBytes: 4, keep: 2 })).to.equal(undefined);
      expect([textOf('a.log'), textOf('a.log.1')]).to.deep.equal(['three\n', 'one\ntwo\n']);
    });

    it('has room around a folder that is in the way of an older file', () => {
      mkdirSync(join(dir, 'a.log.2'));
      for (let n = 0; n < 6; n++) expect(appendLine(file, String(n), { maxBytes: 1, keep: 3 })).to.equal(undefined);
      expect([textOf('a.log'), textOf('a.log.1')]).to.deep.equal(['5\n', '4\n']);
      expect(lstatSync(join(dir, 'a.log.2')).isDirectory()).to.equal(true);
    });

    it('leaves no half line on a disk that is full, and goes on when there is room again', function () {
      need(this, 'root');
      const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', dir]);
      expect(mounted.status, String(mounted.stderr)).to.equal(0);
      try {
        writeFileSync(join(dir, 'ballast'), Buffer.alloc(20_480));
        let written = 0;
        const fill = () => {
          for (;;) {
            appendLine(file, 'x'.repeat(999), { maxBytes: 1e6, keep: 5 });
            written++;
          }
        };
        expect(fill).to.throw('ENOSPC');
        expect(textOf('a.log')).to.equal(`${'x'.repeat(999)}\n`.repeat(written));
        expect(fill, 'still full').to.throw('ENOSPC');
        rmSync(join(dir, 'ballast'));
        appendLine(file, 'room', { maxBytes: 1e6, keep: 5 });
        expect(textOf('a.log').endsWith('x\nroom\n')).to.equal(true);
      } finally {
        spawnSync('umount', [dir]);
      }
    });

    it('refuses a file of another user, and a folder of one', function () {
      need(this, 'root');
      const write = () => appendLine(file, 'x', { maxBytes: 1e6, keep: 5 });
      write();
      chownSync(file, 65_534, 0);
      expect(write).to.throw(`Cannot write ${file}: it belongs to uid 65534`);
      chownSync(file, 0, 0);
      chownSync(dir, 65_534, 0);
      expect(write).to.throw(`Cannot write in ${dir}: it belongs to uid 65534; give it to this user (uid 0) or name`);
      chownSync(dir, 0, 0);
      write();
      expect(textOf('a.log')).to.equal('x\nx\n');
    });

    it('follows a link to the folder only if both are ours or root’s', function () {
      need(this, 'root');
      const [real, link] = [join(dir, 'real'), join(dir, 'link')];
      mkdirSync(real);
      symlinkSync(real, link);
      const write = () => appendLine(join(link, 'b.log'), 'x', { maxBytes: 1e6, keep: 5 });
      write();
      chownSync(real, 65_534, 0);
      expect(write).to.throw('belongs to uid 65534');
      chownSync(real, 0, 0);
      spawnSync('chown', ['-h', '65534', link]);
      expect(write).to.throw('belongs to uid 65534');
      expect(readFileSync(join(real, 'b.log'), 'utf8')).to.equal('x\n');
    });
  });

  describe('beginWhenFull()', () => {
    it('begins a new file when the present one has its size, not before', () => {
      beginWhenFull(file, { maxBytes: 4, keep: 3 });
      appendFileSync(file, '123');
      beginWhenFull(file, { maxBytes: 4, keep: 3 });
      expect(names()).to.deep.equal(['a.log']);
      appendFileSync(file, '4');
      beginWhenFull(file, { maxBytes: 4, keep: 3 });
      expect(names()).to.deep.equal(['a.log.1']);
    });
  });

  describe('cutWhenFull()', () => {
    let fd: number;
    beforeEach(() => {
      fd = openSync(file, 'a');
    });
    afterEach(() => closeSync(fd));

    it('keeps what a process says to a log that it has open within its bounds, and loses none of it', () => {
      const said: string[] = [];
      for (let n = 0; n < 40; n++) {
        said.push(`line ${n}`);
        writeSync(fd, `line ${n}\n`);
        cutWhenFull(fd, file, { maxBytes: 50, keep: 3 });
      }
      expect(names()).to.deep.equal(['a.log', 'a.log.1', 'a.log.2']);
      for (const name of names()) expect(textOf(name).length).to.be.below(60);
      const there = readLastLines(file, 100);
      expect(there.length).to.be.greaterThan(12);
      expect(there).to.deep.equal(said.slice(-there.length));
    });

    it('keeps two files, and one, where no more are wanted', () => {
      for (const keep of [2, 1]) {
        for (let n = 0; n < 20; n++) {
          writeSync(fd, `line ${n}\n`);
          cutWhenFull(fd, file, { maxBytes: 50, keep });
        }
        expect(names()).to.have.length(keep);
        for (const name of names()) expect(textOf(name).length, name).to.be.below(60);
      }
    });

    it('leaves alone what has come under that name, and what is not full', () => {
      writeSync(fd, 'x'.repeat(49));
      cutWhenFull(fd, file, { maxBytes: 50, keep: 3 });
      renameSync(file, `${file}-moved`);
      writeFileSync(file, 'y'.repeat(60));
      writeSync(fd, 'xx');
      cutWhenFull(fd, file, { maxBytes: 50, keep: 3 });
      expect(names()).to.deep.equal(['a.log', 'a.log-moved']);
      expect(names().map((name) => textOf(name).length)).to.deep.equal([60, 51]);
    });

    it('takes no older file’s place for what it cannot keep', () => {
      writeFileSync(`${file}.1`, 'older\n');
      mkdirSync(`${file}.0`);
      writeSync(fd, 'x'.repeat(60));
      expect(() => cutWhenFull(fd, file, { maxBytes: 50, keep: 3 })).to.throw('EISDIR');
      expect([textOf('a.log').length, textOf('a.log.1')]).to.deep.equal([60, 'older\n']);
    });
  });

  describe('openFiles()', () => {
    it('meets each file once while they are moved aside between one and the next', () => {
      for (const text of ['a', 'b', 'c', 'd']) appendLine(file, text, { maxBytes: 1, keep: 20 });
      const met: string[] = [];
      for (const { fd, size } of openFiles(file)) {
        const buffer = Buffer.alloc(size);
        readSync(fd, buffer, 0, size, 0);
        met.push(buffer.toString().trim());
        appendLine(file, 'later', { maxBytes: 1, keep: 20 });
      }
      expect(met).to.deep.equal(['d', 'c', 'b', 'a']);
    });

    it('goes on behind a name that nobody has at the moment, and opens no more than one at a time', () => {
      for (const text of ['a', 'b', 'c', 'd']) appendLine(file, text, { maxBytes: 1, keep: 20 });
      renameSync(`${file}.3`, `${file}.4`);
      renameSync(`${file}.2`, `${file}.3`);
      const open = () => readdirSync('/proc/self/fd').length;
      const before = open();
      expect([...openFiles(file)]).to.have.length(4);
      for (const _log of openFiles(file)) expect(open()).to.equal(before + 1);
      expect(open()).to.equal(before);
    });
  });

  describe('readLastLines()', () => {
    it('reads on into the older files until it has enough', () => {
      writeFileSync(`${file}.2`, 'a\nb\n');
      writeFileSync(`${file}.1`, 'c\nd\n');
      writeFileSync(file, 'e\nf\n');
      const all = ['a', 'b', 'c', 'd', 'e', 'f'];
      for (let count = 1; count <= 8; count++) expect(readLastLines(file, count)).to.deep.equal(all.slice(-count));
      rmSync(file);
      expect(readLastLines(file, 3), 'while the present one is not there').to.deep.equal(['b', 'c', 'd']);
      rmSync(`${file}.1`);
      expect(readLastLines(file, 3), 'behind a larger gap nothing is ours').to.deep.equal([]);
    });

    it('answers what a whole reading would, wherever its pieces are cut', () => {
      const lines = Array.from({ length: 9000 }, (_none, at) => `${at} ${'é€😀'.repeat(at % 7)}`);
      writeFileSync(`${file}.1`, `${lines.slice(0, 4000).join('\n')}\n`);
      writeFileSync(file, `${lines.slice(4000).join('\n')}\n`);
      for (const count of [1, 2, 2999, 4999, 5000, 5001, 8999, 9000, 10_000]) {
        expect(readLastLines(file, count), String(count)).to.deep.equal(lines.slice(-count));
      }
    });

    it('reads 1 MiB at most, and no half line', () => {
      const line = 'x'.repeat(999);
      for (const name of [file, `${file}.1`, `${file}.2`]) writeFileSync(name, `${line}\n`.repeat(600));
      const lines = readLastLines(file, 10_000);
      expect(lines).to.have.length(1048);
      expect(new Set(lines)).to.deep.equal(new Set([line]));
    });

    it('reads nothing through a link, be it hard, nor from what is no file', () => {
      writeFileSync(join(dir, 'secret'), 'secret\n');
      const plants = {
        link: () => symlinkSync(join(dir, 'secret'), file),
        'hard link': () => linkSync(join(dir, 'secret'), file),
        folder: () => mkdirSync(file),
        fifo: () => spawnSync('mkfifo', [file]),
      };
      for (const [name, plant] of Object.entries(plants)) {
        plant();
        expect(readLastLines(file, 10), name).to.deep.equal([]);
        rmSync(file, { recursive: true });
      }
    });
  });
});
