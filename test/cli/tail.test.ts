import { appendFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { newLines, openFileTail } from '#lib/cli/tail.js';

describe('openFileTail()', () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-tail-'));
    file = join(dir, 'a.log');
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('begins with the last lines of the past, then gives what comes', async () => {
    writeFileSync(file, 'one\ntwo\nthree\n');
    const tail = openFileTail(file, 2);
    expect(await tail.read()).to.deep.equal(['two', 'three']);
    expect(await tail.read()).to.deep.equal([]);
    appendFileSync(file, 'four\nfi');
    expect(await tail.read()).to.deep.equal(['four']);
    appendFileSync(file, 've\n');
    expect(await tail.read()).to.deep.equal(['five']);
    tail.close();
  });

  it('puts a character together that comes in two parts', async () => {
    writeFileSync(file, '');
    const tail = openFileTail(file, 10);
    await tail.read();
    const bytes = Buffer.from('é\n');
    appendFileSync(file, bytes.subarray(0, 1));
    expect(await tail.read()).to.deep.equal([]);
    appendFileSync(file, bytes.subarray(1));
    expect(await tail.read()).to.deep.equal(['é']);
    tail.close();
  });

  it('reads the old file to its end when the log begins a new one, and goes on there', async () => {
    writeFileSync(file, 'one\n');
    const tail = openFileTail(file, 10);
    await tail.read();
    appendFileSync(file, 'last words\n');
    renameSync(file, `${file}.1`);
    writeFileSync(file, 'first words\n');
    expect(await tail.read()).to.deep.equal(['last words', 'first words']);
    appendFileSync(file, 'more\n');
    expect(await tail.read()).to.deep.equal(['more']);
    tail.close();
  });

  it('waits for a file that is not there, or not there for a moment', async () => {
    const tail = openFileTail(file, 1);
    expect(await tail.read()).to.deep.equal([]);
    writeFileSync(file, 'one\ntwo\n');
    expect(await tail.read(), 'all of it is new: the past was before').to.deep.equal(['one', 'two']);
    renameSync(file, `${file}.1`);
    expect(await tail.read()).to.deep.equal([]);
    writeFileSync(file, 'three\n');
    expect(await tail.read()).to.deep.equal(['three']);
    tail.close();
  });

  it('begins again in a file that was emptied', async () => {
    writeFileSync(file, 'one\ntwo\n');
    const tail = openFileTail(file, 10);
    await tail.read();
    truncateSync(file);
    appendFileSync(file, 'new\n');
    expect(await tail.read()).to.deep.equal(['new']);
    tail.close();
  });

  it('gives no half line from the middle of a long past', async () => {
    const line = 'x'.repeat(999);
    writeFileSync(file, `${line}\n`.repeat(1200));
    const tail = openFileTail(file, 100_000);
    const lines = await tail.read();
    expect(lines.length).to.be.within(1000, 1199);
    expect(lines.every((one) => one === line)).to.equal(true);
    tail.close();
  });
});

describe('newLines()', () => {
  it('is what follows the shared part', () => {
    expect(newLines(['a', 'b'], ['a', 'b', 'c'])).to.deep.equal(['c']);
    expect(newLines(['a', 'b'], ['b', 'c', 'd'])).to.deep.equal(['c', 'd']);
    expect(newLines(['a', 'b'], ['a', 'b'])).to.deep.equal([]);
  });

  it('is everything after a new beginning', () => {
    expect(newLines(['a', 'b'], ['c'])).to.deep.equal(['c']);
    expect(newLines([], ['a'])).to.deep.equal(['a']);
    expect(newLines(['a', 'b'], [])).to.deep.equal([]);
  });

  it('takes the longest shared part of lines that repeat', () => {
    expect(newLines(['x', 'x', 'x'], ['x', 'x', 'x', 'y'])).to.deep.equal(['y']);
  });
});
