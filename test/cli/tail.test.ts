import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { newLines, openFileTail } from '#lib/cli/tail.js';
import { appendLine } from '#lib/daemon/logfile.js';
import { until } from '#lib/time.js';
import { repoRoot } from '../support/paths.js';

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

  it('goes on into the files before it for the past', async () => {
    writeFileSync(`${file}.2`, 'a\nb\n');
    writeFileSync(`${file}.1`, 'c\nd\n');
    writeFileSync(file, 'e\n');
    for (const [past, lines] of Object.entries({ 1: 'e', 2: 'de', 3: 'cde', 4: 'bcde', 9: 'abcde' })) {
      const tail = openFileTail(file, Number(past));
      expect((await tail.read()).join('')).to.equal(lines);
      expect(await tail.read()).to.deep.equal([]);
      tail.close();
    }
  });

  it('misses nothing when the log begins several new ones between two looks', async () => {
    const limits = { maxBytes: 10, keep: 5 };
    let number = 0;
    const write = (lines: number) => {
      for (let n = 0; n < lines; n++) expect(appendLine(file, `line ${++number}`, limits)).to.equal(undefined);
    };
    write(7);
    const tail = openFileTail(file, 2);
    const seen = [...(await tail.read())];
    for (const lines of [0, 1, 2, 3, 4, 3, 2, 1]) {
      write(lines);
      seen.push(...(await tail.read()));
    }
    expect(seen).to.deep.equal(Array.from({ length: 18 }, (_none, at) => `line ${at + 6}`));
    write(9);
    const after = await tail.read();
    expect(after.at(-1), 'more than are kept').to.equal(`line ${number}`);
    tail.close();
  });

  it('misses nothing and gives nothing twice while another process writes and moves as fast as it can', async function () {
    // Each new file moves all that there are: the work grows with the square of the count.
    this.timeout(60_000);
    const count = 5000;
    const program = `const { appendLine } = await import(${JSON.stringify(pathToFileURL(join(repoRoot, 'lib/daemon/logfile.js')))});
      for (let n = 1; n <= ${count}; n++) appendLine(${JSON.stringify(file)}, 'line ' + n, { maxBytes: 300, keep: 500 });`;
    const writer = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const tail = openFileTail(file, 1);
    const seen: string[] = [];
    const isComplete = async () => {
      seen.push(...(await tail.read()));
      return seen.at(-1) === `line ${count}`;
    };
    const done = await until(isComplete, { timeoutMs: 50_000, everyMs: 1 });
    writer.kill('SIGKILL');
    tail.close();
    expect(done, `${seen.length} lines, the last one ${seen.at(-1)}`).to.equal(true);
    const first = Number(seen[0]?.slice(5));
    const expected = Array.from({ length: count - first + 1 }, (_none, at) => `line ${first + at}`);
    expect(
      seen.findIndex((line, at) => line !== expected[at]),
      'the first line that is not the next one',
    ).to.equal(-1);
  });

  it('does not take the older files for new when the present one was deleted, or moved by somebody else', async () => {
    writeFileSync(`${file}.1`, 'old\n');
    writeFileSync(file, 'one\n');
    const tail = openFileTail(file, 1);
    expect(await tail.read()).to.deep.equal(['one']);
    rmSync(file);
    writeFileSync(file, 'two\n');
    expect(await tail.read()).to.deep.equal(['two']);
    renameSync(file, `${file}-2026-01-16`);
    writeFileSync(file, 'three\n');
    expect(await tail.read()).to.deep.equal(['three']);
    tail.close();
  });

  it('waits where the name is that of a link, and does not follow it', async () => {
    writeFileSync(join(dir, 'secret'), 'secret\n');
    writeFileSync(file, 'one\n');
    const tail = openFileTail(file, 9);
    expect(await tail.read()).to.deep.equal(['one']);
    rmSync(file);
    symlinkSync(join(dir, 'secret'), file);
    expect(await tail.read()).to.deep.equal([]);
    rmSync(file);
    writeFileSync(file, 'two\n');
    expect(await tail.read()).to.deep.equal(['two']);
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
