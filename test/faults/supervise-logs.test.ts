/** The faults of what is said: an ssh that talks without end, what it says in evil characters, traps in place of logs. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type RequestOptions, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { tunward } from '../cli/run.js';
import { fetchText, type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { fault } from '../support/fault.js';
import { need } from '../support/need.js';
import { programsDir } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** What a flood is made of: a text, how many bytes of it, and how many lines they are. */
interface Flood {
  readonly name: string;
  readonly unit: string;
  readonly bytes: number;
}

const floods: readonly Flood[] = [
  { name: 'lines of 64 bytes', unit: `${'z'.repeat(63)}\n`, bytes: 100e6 },
  { name: 'no line end', unit: 'z'.repeat(65_536), bytes: 100e6 },
  { name: 'lines of one letter', unit: 'z\n', bytes: 50e6 },
  { name: 'empty lines', unit: '\n', bytes: 50e6 },
];

describe('fault: what ssh says', () => {
  const reaper = createReaper();
  let home: Home;
  let sshd: Sshd;
  let target: Server;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    target = createServer((_request, answer) => answer.end('served'));
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
  });
  beforeEach(() => {
    home = makeHome();
  });
  afterEach(async () => {
    await reaper.end();
    home.remove();
  });
  after(async () => {
    await sshd?.stop();
    target?.close();
  });

  const title = 'never blocks a child that floods its stderr, and stays small and answers meanwhile';
  fault({ id: 'S5', title, times: floods.length, reduced: 1, timeoutMs: 240_000 }, async (times) => {
    const figures: string[] = [];
    for (const flood of floods.slice(0, times)) figures.push(await survive(flood));
    return figures.join('; ');
  });

  /** A tunnel that is up and serves while its ProxyCommand floods; what it took. */
  async function survive({ name, unit, bytes }: Flood): Promise<string> {
    const [port, result] = [await freeLocalPort(), join(home.dir, `${name}.json`)];
    const words = [String(sshd.port), 'flood', JSON.stringify(unit), String(bytes), result];
    home.configure({}, [tunnelThat(words, port)]);
    const daemon = await startUp(reaper, home);
    const before = residentBytes(daemon);
    await tunnelIn(home, 'web', 'up', 30_000);
    const answers: number[] = [];
    const isOver = async () => {
      const began = performance.now();
      expect((await home.api('GET', '/v1/tunnels/web')).body.state).to.equal('up');
      answers.push(performance.now() - began);
      expect(await fetchText(port)).to.equal('served');
      return existsSync(result);
    };
    expect(await until(isOver, { timeoutMs: 120_000, everyMs: 20 }), 'all of it was read').to.equal(true);
    const { longest, took, sent } = JSON.parse(readFileSync(result, 'utf8'));
    const grown = peakBytes(daemon) - before;
    const figure = `${name}: ${(sent / took / 1000).toFixed(0)} MB/s, blocked ${longest.toFixed(0)} ms at most`;
    const context = `${figure}, RSS +${(grown / 1e6).toFixed(0)} MB, API answers in ${Math.max(...answers).toFixed(0)} ms`;
    expect(longest, context).to.be.lessThan(1000);
    expect(grown, context).to.be.lessThan(64e6);
    await expectAccounted(sent, unit, took);
    expect(await daemon.end('SIGTERM')).to.equal(0);
    return context;
  }

  /** Every line that was sent is in the log, or among those that the log counts; and those that are there are few. */
  async function expectAccounted(sent: number, unit: string, tookMs: number): Promise<void> {
    const lines = (sent / unit.length) * (unit.length > 1 && unit.endsWith('\n') ? 1 : 0);
    const { id } = (await home.api('GET', '/v1/tunnels/web')).body;
    const texts = () => home.logLines(id).map((line) => line.slice(22));
    const shown = () => texts().filter((line) => line.startsWith('z')).length;
    const hidden = () =>
      texts().reduce(
        (sum, line) => sum + Number(/^… ([\d,]+) lines? not shown$/.exec(line)?.[1]?.replaceAll(',', '') ?? 0),
        0,
      );
    if (lines > 0) await until(() => shown() + hidden() >= lines, { timeoutMs: 5000, everyMs: 50 });
    // A flood without a line end is one line, of which the beginning is there.
    expect(shown() + hidden(), 'lines in the log, and counted there').to.equal(lines || Math.min(1, shown()));
    expect(texts().length).to.be.lessThan(80 + 12 * (tookMs / 1000));
  }

  const fuzz = 'lets no control character of a remote’s into a log, the API, the command or the events';
  fault({ id: 'X2', title: fuzz, times: 500, reduced: 10 }, async (times) => {
    const said = join(home.dir, 'said');
    const names = Array.from({ length: 10 }, (_none, at) => `web${at}`);
    const closed = String(await freeLocalPort());
    const ports = await Promise.all(names.map(() => freeLocalPort()));
    // One attempt for each restart: what is said is fresh each time.
    home.configure(
      { backoff: { min_ms: 86_400_000, max_ms: 86_400_000 } },
      names.map((name, at) => ({ ...tunnelThat([closed, 'say', said], ports[at] ?? 0), name })),
    );
    writeFileSync(said, 'nothing yet\n');
    const daemon = await startUp(reaper, home);
    const random = createRandom(times);
    let bytes = 0;
    for (let round = 0; round < times; round++) {
      const name = names[round % names.length] ?? '';
      const words = Buffer.concat([evilLine(random, ': Permission denied (publickey).'), ...evilLines(random, 6)]);
      bytes += words.length;
      writeFileSync(said, words);
      const paths = [`/v1/tunnels/${name}/logs`, `/v1/tunnels/${name}`];
      const answer = await send({ socketPath: home.socket, method: 'POST', path: `/v1/tunnels/${name}/restart` });
      expectHarmless(answer, 'the answer to a restart', words);
      expect(answer.toString()).to.contain('Permission denied (publickey).');
      for (const path of paths) expectHarmless(await send({ socketPath: home.socket, path }), path, words);
      if (round % 10 > 0) continue;
      for (const args of [['logs', name], ['logs', name, '--json'], ['ls'], ['restart', name]]) {
        const { stdout, stderr } = await tunward(reaper, [...args, '--socket', home.socket]);
        expectHarmless(Buffer.from(stdout + stderr), args.join(' '), words);
      }
    }
    const logs = readdirSync(home.logDir).map((name) => readFileSync(join(home.logDir, name)));
    for (const log of logs) expectHarmless(log, 'a log', Buffer.from([]));
    expectHarmless(Buffer.from(daemon.stderr()), 'the events', Buffer.from([]));
    const shown = logs.join('').match(/\?+/g)?.length ?? 0;
    expect(shown, 'evil characters that were shown as ?').to.be.greaterThan(times);
    return `0 of ${(bytes / 1000).toFixed(0)} kB in ${times} starts`;
  });

  function tunnelThat(words: readonly string[], port: number) {
    const config = join(home.dir, 'ssh_config');
    const command = [process.execPath, join(programsDir, 'chatty.mjs'), ...words].map((word) => `'${word}'`).join(' ');
    writeFileSync(config, `${readFileSync(sshd.sshConfigFile, 'utf8')}  ProxyCommand ${command}\n`);
    const { port: served } = target.address() as AddressInfo;
    return {
      name: 'web',
      remote_host: 'rig',
      ssh_config: config,
      local_port: `127.0.0.1:${port}`,
      remote_port: `127.0.0.1:${served}`,
    };
  }
});

/** What should never be met in a text somewhere, by Unicode's own lists; line ends aside. */
const harmful = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}\p{Cs}]/u;

function expectHarmless(bytes: Buffer, where: string, words: Buffer): void {
  // Throws for what is no UTF-8.
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const found = harmful.exec(text.replaceAll('\n', ''));
  if (!found) return;
  throw new Error(`${JSON.stringify(found[0])} in ${where}: ${JSON.stringify(text)}, of ${words.toString('base64')}`);
}

/** What terminals obey, what turns text around, what is no UTF-8, and what looks like a line of ours. */
const evil: readonly Buffer[] = [
  ...Array.from({ length: 32 }, (_none, code) => Buffer.from([code])),
  ...Array.from({ length: 33 }, (_none, at) => Buffer.from(String.fromCharCode(0x7f + at))),
  ...Array.from({ length: 128 }, (_none, at) => Buffer.from([0x80 + at])),
  ...[...'\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff'].map((each) =>
    Buffer.from(each),
  ),
  // Halves of pairs as UTF-8 would write them, a newline and an escape that are longer than they may be.
  ...['eda080', 'edb080', 'eda080edb080', 'c08a', 'e0808a', 'c09b', 'f5808080'].map((hex) => Buffer.from(hex, 'hex')),
  ...[
    '\u001b[2J',
    '\u001b]52;c;ZXZpbA==\u0007',
    '\u001b]0;title\u001b\\',
    '\u009b31m',
    '\r[2026-01-16 11:00:30] Up: pid 1',
  ].map((each) => Buffer.from(each)),
  Buffer.from('x'.repeat(2100)),
  Buffer.from(`${'x'.repeat(1999)}😀`),
];

function evilLines(random: () => number, count: number): Buffer[] {
  return Array.from({ length: count }, () => evilLine(random, ''));
}

function evilLine(random: () => number, end: string): Buffer {
  const pieces = Array.from({ length: 20 }, () => {
    const piece = evil[Math.floor(random() * evil.length)] ?? Buffer.from('');
    return Buffer.concat([piece, Buffer.from('word '.slice(0, Math.floor(random() * 6)))]);
  });
  // A line of its own, so that what explains the failure is not cut off with a line that is too long.
  return Buffer.concat([...pieces, Buffer.from(end === '' ? '\n' : `\n\u001b[31m\u202eme@host${end}\n`)]);
}

/** The same numbers in each run (mulberry32). */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A request and the bytes of its answer. */
function send(options: RequestOptions): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const call = request({ ...options, headers, agent: false, timeout: 30_000 }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => resolve(Buffer.concat(chunks)));
      answer.on('error', reject);
    });
    call.on('error', reject);
    call.on('timeout', () => call.destroy(new Error('no answer')));
    call.end();
  });
}

function residentBytes({ pid }: RunningDaemon): number {
  return statusBytes(pid, 'VmRSS');
}

function peakBytes({ pid }: RunningDaemon): number {
  return statusBytes(pid, 'VmHWM');
}

function statusBytes(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1]) * 1024;
}
