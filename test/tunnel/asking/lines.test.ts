import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { createLineReader } from '#lib/tunnel/asking/lines.js';
import type { Keyboard, Question } from '#lib/tunnel/asking/person.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { createTestTerminal } from '../../support/person.js';

const hostKey = { text: 'Line one\nIs it (yes/no)? ', echo: true };

describe('somebody who answers by lines', () => {
  function sit(columns = 80) {
    const clock = createFakeClock();
    const screen = createTestTerminal(columns);
    const lines = createLineReader(screen.terminal, { clock, idleMs: 1000 });
    const over = new AbortController();
    const ask = async (question: Partial<Question> = {}) => {
      const answer = Promise.resolve(
        lines.prompt({ text: 'Password: ', echo: false, signal: over.signal, ...question }),
      );
      const outcome = answer.then(
        (given) => ({ given: given as Buffer }),
        (error: unknown) => ({ error }),
      );
      await clock.settle();
      return outcome.then((each) => each);
    };
    return { clock, screen, lines, over, ask };
  }

  async function answerTo(keys: string | Buffer, question: Partial<Question> = {}) {
    const { clock, screen, ask } = sit();
    const outcome = ask(question);
    await clock.settle();
    await clock.settle();
    await screen.type(keys);
    const given = await outcome;
    return { text: 'given' in given ? given.given.toString('latin1') : given.error, drawn: screen.drawn() };
  }

  it('draws the question, and shows nothing of the answer', async () => {
    expect(await answerTo('s3cret\r')).to.deep.equal({ text: 's3cret', drawn: 'Password: \r\n' });
  });

  it('shows what may be seen, and its lines begin where a terminal begins them', async () => {
    expect(await answerTo('yes\n', hostKey)).to.deep.equal({
      text: 'yes',
      drawn: 'Line one\r\nIs it (yes/no)? yes\r\n',
    });
  });

  const edits: [what: string, keys: string | Buffer, answer: string][] = [
    ['Backspace takes a character', 'ab\x7f\x7f\x7fc\x08d\r', 'd'],
    ['Backspace takes all bytes of a character', 'a\u00e9\u20ac\u{1f511}\x7f\x7f\x7fb\r', 'ab'],
    ['Ctrl-U takes all', 'wrong\x15right\r', 'right'],
    ['Ctrl-W takes a word and the blanks behind it', 'one two  \x17three\r', 'one three'],
    ['arrows mean nothing', 'a\x1b[Db\x1bOA\x1b[1;5Cc\r', 'abc'],
    ['what brackets a paste means nothing', '\x1b[200~pasted\x1b[201~\r', 'pasted'],
    ['what a terminal answers by itself means nothing', 'a\x1b]11;rgb:0/0/0\x07b\x1bP1$r0m\x1b\\c\r', 'abc'],
    ['other control characters mean nothing', 'a\x00\x01\tb\x1a\r', 'ab'],
    ['Ctrl-D does not end a line with something in it', 'a\x04b\r', 'ab'],
    ['a lone ESC does not swallow Enter', 'ab\x1b\r', 'ab'],
    ['an empty line is an answer', '\r', ''],
    ['bytes of another encoding are taken as they are', Buffer.from('caf\xe9\r', 'latin1'), 'caf\xe9'],
  ];
  for (const [what, keys, answer] of edits) {
    it(what, async () => {
      expect((await answerTo(keys)).text).to.equal(answer);
    });
  }

  it('takes away from the screen what is taken away', async () => {
    const { drawn } = await answerTo('yess\x7f\x15no\r', hostKey);
    expect(drawn).to.equal('Line one\r\nIs it (yes/no)? yess\b \b\b \b\b \b\b \bno\r\n');
  });

  it('draws anew what has reached the next row', async () => {
    const { clock, screen, ask } = sit(18);
    const outcome = ask(hostKey);
    await clock.settle();
    await screen.type('maybe\x7f\r');
    await outcome;
    expect(await screen.display.all()).to.deep.equal([
      'Line one',
      'Is it (yes/no)? ma',
      'ybe',
      'Is it (yes/no)? ma',
      'yb',
    ]);
  });

  for (const [key, byte] of [
    ['Ctrl-C', 'ab\x03'],
    ['Ctrl-D', '\x04'],
  ] as const) {
    it(`is given up by ${key}`, async () => {
      const { text } = await answerTo(byte);
      expect(text).to.be.instanceOf(DOMException).with.property('name', 'AbortError');
    });
  }

  it('says by a bell that a line is full', async () => {
    const { text, drawn } = await answerTo(`${'a'.repeat(1024)}\r`);
    expect(text).to.equal('a'.repeat(1023));
    expect(drawn).to.equal('Password: \x07\r\n');
  });

  it('wipes and forgets what is typed while nothing is asked', async () => {
    const { clock, screen, ask } = sit();
    await screen.type('too early\r');
    const first = ask();
    await clock.settle();
    await screen.type('one\rtoo early again\r');
    expect(await first).to.deep.equal({ given: Buffer.from('one') });
    const second = ask({ echo: true });
    await clock.settle();
    await screen.type('two\r');
    expect(await second).to.deep.equal({ given: Buffer.from('two') });
    expect(screen.drawn()).not.to.include('early');
  });

  it('wipes every byte that was handed over', async () => {
    const clock = createFakeClock();
    const screen = createTestTerminal();
    const typed: Buffer[] = [];
    const listen = (keyboard: Keyboard) =>
      screen.terminal.listen({
        ...keyboard,
        type: (bytes) => {
          typed.push(bytes);
          return keyboard.type(bytes);
        },
      });
    const reader = createLineReader({ ...screen.terminal, listen }, { clock, idleMs: 1000 });
    await screen.type('early');
    const answer = reader.prompt({ text: '? ', echo: false, signal: new AbortController().signal });
    await clock.settle();
    await screen.type('se');
    await screen.type('cret\rlate');
    const given = (await answer) as Buffer;
    expect(given).to.deep.equal(Buffer.from('secret'));
    // V8 would move a smaller one, and leave what was there.
    expect(given.buffer.byteLength).to.be.greaterThan(64);
    expect(typed.map((bytes) => [...new Set(bytes)])).to.deep.equal([[0], [0], [0]]);
  });

  it('is idle without a key, not for the time that it takes', async () => {
    const { clock, screen, ask } = sit();
    const outcome = ask();
    await clock.settle();
    for (let second = 0; second < 5; second++) {
      await clock.advance(900);
      await screen.type('a');
    }
    expect(screen.drawn()).to.equal('Password: ');
    await clock.advance(1000);
    const given = await outcome;
    expect('error' in given && isTunwardError(given.error, 'ERR_TIMEOUT')).to.equal(true);
    expect(screen.drawn()).to.equal('Password: \r\n');
    expect(clock.sleepers()).to.equal(0);
  });

  it('ends with the signal, and the next question is another', async () => {
    const { clock, screen, over, lines } = sit();
    const reason = new Error('nobody waits');
    const first = lines.prompt({ text: 'A: ', echo: false, signal: over.signal });
    const error = Promise.resolve(first).catch((thrown: unknown) => thrown);
    await clock.settle();
    await screen.type('half');
    over.abort(reason);
    expect(await error).to.equal(reason);
    const second = lines.prompt({ text: 'B: ', echo: false, signal: new AbortController().signal });
    await clock.settle();
    await screen.type('whole\r');
    expect(await second).to.deep.equal(Buffer.from('whole'));
    expect(screen.drawn()).to.equal('A: \r\nB: \r\n');
    expect(clock.sleepers()).to.equal(0);
  });

  it('takes nothing for a question that ended before it could be read', async () => {
    const { clock, screen } = sit();
    let draw: () => void = () => undefined;
    const drawing = new Promise<void>((resolve) => {
      draw = resolve;
    });
    const slow = { ...screen.terminal, show: (_bytes: Uint8Array) => drawing };
    const over = new AbortController();
    const lines = createLineReader(slow, { clock, idleMs: 1000 });
    const answer = Promise.resolve(lines.prompt({ text: 'A: ', echo: true, signal: over.signal }));
    const error = answer.catch((thrown: unknown) => thrown);
    await clock.settle();
    over.abort(new Error('nobody waits'));
    await error;
    slow.show = screen.terminal.show;
    draw();
    await clock.settle();
    await screen.type('too late');
    expect(screen.drawn()).to.equal('');
    expect(clock.sleepers()).to.equal(0);
  });

  it('asks one thing at a time', async () => {
    const { clock, screen, ask } = sit();
    const [first, second] = [ask({ text: 'A: ' }), ask({ text: 'B: ' })];
    await clock.settle();
    expect(screen.drawn()).to.equal('A: ');
    await screen.type('a\r');
    expect(await first).to.deep.equal({ given: Buffer.from('a') });
    await clock.settle();
    await screen.type('b\r');
    expect(await second).to.deep.equal({ given: Buffer.from('b') });
  });
});
