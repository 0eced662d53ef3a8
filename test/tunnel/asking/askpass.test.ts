import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { systemClock, until } from '#lib/time.js';
import { type Askpass, type AskpassOptions, openAskpass } from '#lib/tunnel/asking/askpass.js';
import { need } from '../../support/need.js';
import { createReaper, type Reaper } from '../../support/reaper.js';

type Asked = Parameters<AskpassOptions['ask']>[0];

describe('the askpass program', function () {
  this.timeout(30_000);
  let folder: string;
  let reaper: Reaper;
  let opened: Askpass[];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunward-askpass-'));
    reaper = createReaper();
    opened = [];
  });
  afterEach(async () => {
    for (const askpass of opened) await askpass.close();
    expect(await reaper.end()).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  });

  async function open(ask: AskpassOptions['ask'], changes: Partial<AskpassOptions> = {}): Promise<Askpass> {
    const askpass = await openAskpass({ folder, ask, clock: systemClock, idleMs: 20_000, ...changes });
    opened.push(askpass);
    return askpass;
  }

  /** Runs the program as ssh does. */
  function run({ env }: Askpass, text: string, hint?: string) {
    const extra = hint === undefined ? {} : { SSH_ASKPASS_PROMPT: hint };
    const child = spawn(env.SSH_ASKPASS ?? '', [text], {
      env: { ...env, ...reaper.env, ...extra },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    reaper.own(child);
    const said: Buffer[] = [];
    child.stdout.on('data', (bytes: Buffer) => said.push(bytes));
    const ended = once(child, 'close').then(([code]) => ({ code, said: Buffer.concat(said).toString('latin1') }));
    return { child, ended };
  }

  const never = () => new Promise<never>(() => undefined);

  it('hands the question over, and the answer back as it is', async () => {
    const asked: Asked[] = [];
    const answer = Buffer.from([0xe9, 0x20, 0x01, 0xff]);
    const askpass = await open((question) => {
      asked.push(question);
      return answer;
    });
    const { code, said } = await run(askpass, "me@host's password: ").ended;
    expect([code, said]).to.deep.equal([0, '\xe9 \x01\xff\n']);
    expect(asked.map(({ text, echo }) => [text, echo])).to.deep.equal([["me@host's password: ", false]]);
    expect([...answer]).to.deep.equal([0, 0, 0, 0]);
    expect((await run(await open(() => 'p\u00e4ss'), 'x').ended).said).to.equal('p\xc3\xa4ss\n');
    expect((await run(await open(() => ''), 'x').ended).said).to.equal('\n');
  });

  it('is reached by this user alone, and its way is in nobody else\u2019s environment', async () => {
    const { env } = await open(never);
    const program = env.SSH_ASKPASS ?? '';
    expect(Object.keys(env)).to.have.members(['SSH_ASKPASS', 'SSH_ASKPASS_REQUIRE', 'DISPLAY']);
    const modes = ['', 'askpass.cjs', 'socket'].map((name) => statSync(join(dirname(program), name)).mode & 0o777);
    expect(modes).to.deep.equal([0o700, 0o700, 0o600]);
  });

  it('says which answers may be seen', async () => {
    const seen: boolean[] = [];
    const askpass = await open(({ echo }) => {
      seen.push(echo);
      return 'yes';
    });
    const key = "The authenticity of host '[127.0.0.1]:22 ([127.0.0.1]:22)' can't be established.\nED25519 …\n";
    const questions: [string, string?][] = [
      [`${key}Are you sure you want to continue connecting (yes/no/[fingerprint])? `],
      [`${key}Are you sure you want to continue connecting (yes/no)? `],
      ["Please type 'yes', 'no' or the fingerprint: "],
      ['Allow use of key? ', 'confirm'],
      ["Enter passphrase for key '(yes/no)? ': "],
      ['(me@host) Your password (yes/no)? '],
    ];
    for (const [text, hint] of questions) await run(askpass, text, hint).ended;
    expect(seen).to.deep.equal([true, true, true, true, false, false]);
  });

  it('makes what a server wrote harmless, line by line, and cuts it', async () => {
    const texts: string[] = [];
    const askpass = await open(({ text }) => {
      texts.push(text);
      return '';
    });
    await run(askpass, 'one\x1b[2J\r\ntwo\x9b\u202e\r').ended;
    await run(askpass, 'x'.repeat(100_000)).ended;
    expect(texts[0]).to.equal('one?[2J\ntwo???');
    expect(texts[1]).to.equal('x'.repeat(8192));
  });

  it('says what wants no answer, and asks nobody', async () => {
    const told: string[] = [];
    const askpass = await open(never, { tell: (text) => told.push(text) });
    const { code } = await run(askpass, 'Confirm user presence for key ED25519-SK', 'none').ended;
    expect([code, ...told]).to.deep.equal([0, 'Confirm user presence for key ED25519-SK']);
  });

  it('asks one thing at a time', async () => {
    let most = 0;
    let now = 0;
    const askpass = await open(async ({ text }) => {
      most = Math.max(most, ++now);
      await systemClock.sleep(20);
      now--;
      return text;
    });
    const answers = await Promise.all(['a', 'b', 'c'].map((text) => run(askpass, text).ended));
    expect(answers.map(({ said }) => said)).to.deep.equal(['a\n', 'b\n', 'c\n']);
    expect(most).to.equal(1);
  });

  it('has no answer when the person gives up, then or later', async () => {
    const why = new Error('enough');
    const reasons: unknown[] = [];
    let asked = 0;
    const askpass = await open(
      () => {
        asked++;
        throw why;
      },
      { onGivenUp: (reason) => reasons.push(reason) },
    );
    expect(await run(askpass, 'a').ended).to.deep.equal({ code: 1, said: '' });
    expect(await run(askpass, 'b').ended).to.deep.equal({ code: 1, said: '' });
    expect([asked, ...reasons]).to.deep.equal([1, why]);
  });

  it('does not wait for ever, and wipes what comes too late', async () => {
    const reasons: unknown[] = [];
    const late = Buffer.from('secret');
    let answer = (_bytes: Buffer) => undefined as undefined;
    let aborted: unknown;
    const ask = ({ signal }: Asked) =>
      new Promise<Buffer>((resolve) => {
        signal.addEventListener('abort', () => {
          aborted = signal.reason;
        });
        answer = (bytes) => void resolve(bytes) as undefined;
      });
    const askpass = await open(ask, { idleMs: 50, onGivenUp: (reason) => reasons.push(reason) });
    expect(await run(askpass, 'a').ended).to.deep.equal({ code: 1, said: '' });
    expect(isTunwardError(reasons[0], 'ERR_TIMEOUT') && reasons[0].info.timeoutMs).to.equal(50);
    expect(aborted).to.equal(reasons[0]);
    answer(late);
    await until(() => late.every((byte) => byte === 0), { timeoutMs: 1000 });
    expect([...new Set(late)]).to.deep.equal([0]);
  });

  for (const [what, answer, type] of [
    ['too long', 'a'.repeat(1024), RangeError],
    ['a Buffer that is too long', Buffer.alloc(1024, 'a'), RangeError],
    ['no answer', undefined, TypeError],
  ] as const) {
    it(`refuses an answer that ssh would not take as it is: ${what}`, async () => {
      const reasons: unknown[] = [];
      const ask = (() => answer) as unknown as AskpassOptions['ask'];
      const askpass = await open(ask, { onGivenUp: (reason) => reasons.push(reason) });
      expect((await run(askpass, 'a').ended).code).to.equal(1);
      expect(reasons[0]).to.be.instanceOf(type);
      if (Buffer.isBuffer(answer)) expect([...new Set(answer)]).to.deep.equal([0]);
    });
  }

  it('ends its question when ssh does not wait for it, and goes on to the next one', async () => {
    const asked: Asked[] = [];
    const askpass = await open((question) => {
      asked.push(question);
      return asked.length === 1 ? never() : 'answer';
    });
    const first = run(askpass, 'first');
    await until(() => asked.length === 1, { timeoutMs: 10_000 });
    const second = run(askpass, 'second');
    process.kill(first.child.pid ?? 0, 'SIGKILL');
    expect((await second.ended).said).to.equal('answer\n');
    expect(asked[0]?.signal.aborted).to.equal(true);
    await first.ended;
  });

  it('ends with all of it, and leaves nothing', async () => {
    const asked: Asked[] = [];
    const askpass = await open((question) => {
      asked.push(question);
      return never();
    });
    const { ended } = run(askpass, 'a');
    const waiting = run(askpass, 'b');
    await until(() => asked.length === 1, { timeoutMs: 10_000 });
    await Promise.all([askpass.close(), askpass.close()]);
    expect(asked[0]?.signal.aborted).to.equal(true);
    expect(readdirSync(folder)).to.deep.equal([]);
    expect([(await ended).code, (await waiting.ended).code, asked.length]).to.deep.equal([1, 1, 1]);
  });

  for (const [what, line] of [
    ['without the nonce', `${JSON.stringify({ nonce: 'x'.repeat(32), text: 'a', hint: '' })}\n`],
    ['with a line that never ends', 'x'.repeat(70_000)],
    ['with something else', '[]\n'],
    ['with nothing', 'null\n'],
  ] as const) {
    it(`hangs up on a stranger ${what}`, async () => {
      let asked = 0;
      const { env } = await open(() => {
        asked++;
        return 'secret';
      });
      const socket = net.connect(join(dirname(env.SSH_ASKPASS ?? ''), 'socket'));
      const got: Buffer[] = [];
      socket.on('data', (bytes: Buffer) => got.push(bytes)).on('error', () => undefined);
      socket.write(line);
      await once(socket, 'close');
      expect([asked, got.length]).to.deep.equal([0, 0]);
    });
  }

  it('refuses a folder whose path is too long for a socket', async () => {
    const long = join(folder, 'x'.repeat(100));
    mkdirSync(long);
    const error = await open(never, { folder: long }).catch((thrown: unknown) => thrown);
    expect(isTunwardError(error, 'ERR_ACCESS_DENIED') && error.message).to.match(/has \d+ bytes.*107.*TMPDIR/);
    expect(readdirSync(long)).to.deep.equal([]);
  });

  it('refuses a folder that is not there', async () => {
    const error = await open(never, { folder: join(folder, 'nowhere') }).catch((thrown: unknown) => thrown);
    expect(isTunwardError(error, 'ERR_ACCESS_DENIED') && error.message).to.match(/ENOENT/);
  });

  for (const [what, path, says] of [
    ['with blanks', '/opt/my node/node', /blanks/],
    ['too long for the kernel', `/${'x'.repeat(300)}/node`, /more than 252 bytes/],
  ] as const) {
    it(`refuses a node at a path ${what}`, async () => {
      const { execPath } = process;
      process.execPath = path;
      try {
        const error = await open(never).catch((thrown: unknown) => thrown);
        expect(isTunwardError(error, 'ERR_SPAWN_FAILED') && error.message).to.match(says);
      } finally {
        process.execPath = execPath;
      }
      expect(readdirSync(folder)).to.deep.equal([]);
    });
  }

  it('refuses a folder on a mount where nothing may be run', async function () {
    need(this, 'root', 'unshare');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'noexec', 'none', folder]);
    try {
      const error = await open(never).catch((thrown: unknown) => thrown);
      expect(isTunwardError(error, 'ERR_SPAWN_FAILED') && error.message).to.match(/noexec.*TMPDIR/);
      expect(readdirSync(folder)).to.deep.equal([]);
    } finally {
      execFileSync('umount', [folder]);
    }
  });

  describe('of a life that was killed', () => {
    /** A folder as a killed process leaves it: a program, and a socket that nobody listens on. */
    async function leave(name = 'tunward-ask-abcdef'): Promise<string> {
      const left = join(folder, name);
      mkdirSync(left, { mode: 0o700 });
      writeFileSync(join(left, 'askpass.cjs'), '');
      const path = join(left, 'socket');
      const program = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('on'))`;
      const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'], env: reaper.env });
      reaper.own(child);
      await once(child.stdout, 'data');
      process.kill(child.pid ?? 0, 'SIGKILL');
      await once(child, 'exit');
      expect(existsSync(path)).to.equal(true);
      return left;
    }

    const left = () =>
      readdirSync(folder).filter((name) => opened.every(({ env }) => !env.SSH_ASKPASS?.includes(name)));

    it('is removed at the next start', async () => {
      await leave();
      await open(never);
      expect(left()).to.deep.equal([]);
    });

    it('is left alone while somebody listens, or it is none of ours', async () => {
      const living = await open(never);
      const other = await leave('somebody-else');
      const target = await leave('elsewhere');
      symlinkSync(target, join(folder, 'tunward-ask-linked'));
      const wide = await leave('tunward-ask-wide');
      fs.chmodSync(wide, 0o755);
      mkdirSync(join(folder, 'tunward-ask-young'), { mode: 0o700 });
      const more = await leave('tunward-ask-more');
      writeFileSync(join(more, 'notes'), '');
      await open(never);
      expect(left()).to.have.members([
        ...['somebody-else', 'elsewhere', 'tunward-ask-linked', 'tunward-ask-wide'],
        ...['tunward-ask-young', 'tunward-ask-more'],
      ]);
      expect(readdirSync(more)).to.deep.equal(['notes']);
      for (const each of [other, target]) expect(readdirSync(each)).to.have.members(['askpass.cjs', 'socket']);
      expect(existsSync(living.env.SSH_ASKPASS ?? '')).to.equal(true);
    });

    it('is removed also where it got no socket, when that is long ago', async () => {
      const old = join(folder, 'tunward-ask-old');
      mkdirSync(old, { mode: 0o700 });
      fs.utimesSync(old, 1000, 1000);
      await open(never);
      expect(left()).to.deep.equal([]);
    });

    it('is left alone where it is somebody else\u2019s', async function () {
      need(this, 'root');
      const theirs = await leave('tunward-ask-theirs');
      fs.chownSync(theirs, 12345, 12345);
      await open(never);
      expect(left()).to.deep.equal(['tunward-ask-theirs']);
    });
  });
});
