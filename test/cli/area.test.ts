import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { type AreaOptions, createArea } from '#lib/cli/area.js';
import { createScreen, styled } from '#lib/cli/render.js';
import { cutText, widthOfText } from '#lib/cli/width.js';
import { createFakeClock } from '../support/fakeclock.js';
import { createDisplay } from '../support/terminal.js';

/** A stream that says it is a terminal, and what is to be seen on it. */
function createTerminal(columns: number, rows: number) {
  const display = createDisplay(columns, rows);
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns, rows });
  let bytes = '';
  const drain = () => {
    const text = String(stream.read() ?? '').replaceAll('\n', '\r\n');
    display.write(text);
    bytes += text;
  };
  return {
    stream,
    /** Without the empty rows at the end. */
    async seen() {
      drain();
      return display.all();
    },
    async cursorRow() {
      drain();
      return display.cursorRow();
    },
    /** What was written since the last call. */
    written() {
      drain();
      const text = bytes;
      bytes = '';
      return text;
    },
    resize(to: number, high: number) {
      drain();
      display.resize(to, high);
      Object.assign(stream, { columns: to, rows: high });
      stream.emit('resize');
    },
  };
}

describe('createArea()', () => {
  const clock = createFakeClock();
  const opened: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const area of opened.splice(0)) await area.close();
  });

  function open(terminal: ReturnType<typeof createTerminal>, render: AreaOptions['render']) {
    const onError = (error: Error) => expect.fail(String(error));
    const area = createArea({ terminal: terminal.stream, render, onError, clock });
    opened.push(area);
    return area;
  }

  it('draws anew in the same place, and clears what has become less', async () => {
    const terminal = createTerminal(20, 8);
    let lines = ['one', 'two', 'three'];
    const area = open(terminal, () => lines);
    area.refresh();
    expect(await terminal.seen()).to.deep.equal(['one', 'two', 'three']);
    lines = ['1', 'two and a half'];
    area.refresh();
    expect(await terminal.seen()).to.deep.equal(['1', 'two and a half']);
  });

  it('writes nothing where nothing looks different', () => {
    const terminal = createTerminal(20, 8);
    let lines = ['same'];
    const area = open(terminal, () => lines);
    area.refresh();
    expect(terminal.written()).to.contain('same');
    lines = ['same'];
    area.refresh();
    expect(terminal.written()).to.equal('');
  });

  it('lets what is said scroll above, many lines in one write, a long one whole', async () => {
    const terminal = createTerminal(10, 4);
    const area = open(terminal, () => ['[area]', '[more]']);
    area.refresh();
    terminal.written();
    for (const text of ['first', 'second', 'a line of 22 characters']) area.say(`${text}\n`);
    expect(terminal.written()).to.equal('');
    await clock.advance(30);
    expect(terminal.written().split('[area]')).to.have.length(2);
    const expected = ['first', 'second', 'a line of', '22 charact', 'ers', '[area]', '[more]'];
    expect((await terminal.seen()).map((line) => line.trimEnd())).to.deep.equal(expected);
    // In the middle of a line, as a person's ^C.
    terminal.stream.write('^C');
    area.say('last\n');
    await clock.advance(30);
    expect((await terminal.seen()).slice(-3)).to.deep.equal(['last', '[area]', '[more]']);
  });

  it('keeps what is shown as history where that is asked for, and leaves it at the end with the cursor below', async () => {
    const terminal = createTerminal(20, 8);
    let lines = ['before'];
    const area = open(terminal, () => lines);
    area.refresh();
    area.keep();
    area.say('stopping\n');
    lines = ['after'];
    area.refresh();
    expect(await terminal.seen()).to.deep.equal(['before', 'stopping', 'after']);
    await area.close();
    expect(await terminal.seen()).to.deep.equal(['before', 'stopping', 'after']);
    expect(await terminal.cursorRow()).to.equal(3);
    const written = terminal.written();
    expect(written.lastIndexOf('\u001b[?25h')).to.be.greaterThan(written.lastIndexOf('\u001b[?25l'));
  });

  it('says at the end what was not said yet', async () => {
    const terminal = createTerminal(20, 8);
    const area = open(terminal, () => []);
    area.say('no newline');
    await area.close();
    expect(await terminal.seen()).to.deep.equal(['no newline']);
  });

  it('is drawn anew in another size, in its place, and no line of it becomes two', async () => {
    const terminal = createTerminal(30, 6);
    const area = open(terminal, ({ columns }) => ['='.repeat(columns), '-'.repeat(columns)]);
    area.say('said');
    area.refresh();
    const drawn = (columns: number) => ['='.repeat(columns - 1), '-'.repeat(columns - 1)];
    expect(await terminal.seen()).to.deep.equal(['said', ...drawn(30)]);
    terminal.resize(50, 6);
    await clock.advance(30);
    expect(await terminal.seen()).to.deep.equal(['said', ...drawn(50)]);
    // What a terminal makes of lines that are too long for it now is its own business; below them stands what is right.
    terminal.resize(20, 6);
    await clock.advance(30);
    expect((await terminal.seen()).slice(-2)).to.deep.equal(drawn(20));
  });

  it('does not make two of a line that was measured wrongly', async () => {
    const terminal = createTerminal(10, 6);
    open(terminal, () => ['0123456789abcdef', 'next']).refresh();
    const [first = '', ...rest] = await terminal.seen();
    expect(first).to.have.length(10);
    expect(rest).to.deep.equal(['next']);
  });

  it('stays in its place in a terminal that becomes narrower, if it was not as wide', async () => {
    const terminal = createTerminal(30, 6);
    const area = open(terminal, ({ columns }) => ['area', String(columns)]);
    area.say('said');
    area.refresh();
    for (const columns of [12, 25, 7]) {
      terminal.resize(columns, 6);
      await clock.advance(30);
      expect(await terminal.seen()).to.deep.equal(['said', 'area', String(columns - 1)]);
    }
  });

  it('tells a mistake in the picture, and goes on saying what is said', async () => {
    const terminal = createTerminal(80, 24);
    let isWrong = false;
    const area = open(terminal, () => {
      if (isWrong) throw new Error('cannot count');
      return ['picture'];
    });
    area.refresh();
    isWrong = true;
    area.refresh();
    area.say('still here\n');
    await clock.advance(30);
    const seen = (await terminal.seen()).join('\n');
    expect(seen).to.contain('error: nothing more can be shown here: Error: cannot count').and.contain('still here');
    expect(seen).to.not.contain('picture');
  });

  it('leaves no listener behind', async () => {
    const count = () => process.listenerCount('exit') + process.listenerCount('SIGTSTP');
    const before = count();
    const terminal = createTerminal(20, 8);
    const area = open(terminal, () => ['x']);
    expect(count()).to.equal(before + 2);
    await area.close();
    expect([count(), terminal.stream.listenerCount('resize')]).to.deep.equal([before, 0]);
  });
});

describe('createScreen().openArea()', () => {
  it('is there where talk goes to a terminal, and nowhere else', () => {
    expect(createScreen({ stdout: new PassThrough(), stderr: new PassThrough() }).openArea(() => [])).to.equal(
      undefined,
    );
  });

  it('cuts rows, colours them, writes no control character of a stranger, and has all talk above', async () => {
    const terminal = createTerminal(16, 8);
    const screen = createScreen({ stderr: terminal.stream, stdout: terminal.stream, color: false });
    const area = screen.openArea(() => [['日本語', ' ', styled('red', 'a\u001b[2Jb\n'), ' and more'], 'below']);
    screen.say('talk');
    screen.complain('complaint\n');
    screen.print('result');
    area?.refresh();
    expect(await terminal.seen()).to.deep.equal(['talk', 'complaint', 'result', '日本語 a?[2Jb?…', 'below']);
    await area?.close();
    screen.say('after');
    expect((await terminal.seen()).at(-1)).to.equal('after');
  });
});

describe('widthOfText() and cutText()', () => {
  it('count columns, not characters', () => {
    const widths = {
      abc: 3,
      é: 1,
      'e\u0301': 1,
      日本: 4,
      한국: 4,
      ｆｕｌｌ: 8,
      '🚀': 2,
      '🇩🇪': 2,
      'a\u200bb': 2,
      '→…└█▕': 5,
    };
    expect(Object.fromEntries(Object.keys(widths).map((text) => [text, widthOfText(text)]))).to.deep.equal(widths);
  });

  it('cut before what has no room, and keep a mark with its letter', () => {
    expect([0, 1, 2, 3, 4, 9].map((columns) => cutText('日本x', columns))).to.deep.equal([
      ...['', '', '日', '日', '日本', '日本x'],
    ]);
    expect(cutText('e\u0301x', 1)).to.equal('e\u0301');
    expect([cutText('abc', 2), cutText('abc', -1), cutText('日', -1)]).to.deep.equal(['ab', '', '']);
  });
});
