import fs from 'node:fs';
import net from 'node:net';
import { systemClock } from '../../time.js';
import { LONGEST_ANSWER, LONGEST_QUESTION } from './question.js';

/** How an askpass program reaches whoever has made it. */
export interface Way {
  /** The path of a unix socket. */
  readonly socket: string;
  /** What shows that it is the one that was made. */
  readonly nonce: string;
  /** How long it waits for an answer, in milliseconds. */
  readonly waitMs: number;
}

/** What it says, as one line of JSON. */
export interface Request {
  readonly nonce: string;
  readonly text: string;
  /** SSH_ASKPASS_PROMPT. */
  readonly hint: string;
}

/** Before the bytes of an answer: how many there are. Whoever hangs up without it has no answer. */
export const HEADER_BYTES = 4;

/**
 * The askpass program: ssh runs it for each question, with the text as its argument, and reads the answer from its stdout.
 * It ends with 1 when nobody answers.
 */
export async function runAskpass(way: Way, { argv, env }: Pick<NodeJS.Process, 'argv' | 'env'>): Promise<void> {
  const text = argv[2]?.slice(0, LONGEST_QUESTION) ?? '';
  const answer = await exchange(way, { nonce: way.nonce, text, hint: env.SSH_ASKPASS_PROMPT ?? '' });
  try {
    if (!answer) throw new Error('nobody answers');
    writeAll(answer);
    writeAll(Buffer.from('\n'));
  } catch {
    // Nobody answered, or the ssh that asked is no more: there is nobody to say it to.
    process.exitCode = 1;
  } finally {
    answer?.fill(0);
  }
}

async function exchange({ socket: path, waitMs }: Way, request: Request): Promise<Buffer | undefined> {
  const socket = net.connect(path);
  const over = new AbortController();
  const answer = new Promise<Buffer | undefined>((resolve) => {
    const given = Buffer.alloc(HEADER_BYTES + LONGEST_ANSWER);
    let size = 0;
    socket.on('data', (chunk: Buffer) => {
      size += chunk.copy(given, size);
      chunk.fill(0);
      const end = HEADER_BYTES + (size < HEADER_BYTES ? LONGEST_ANSWER : given.readUInt32BE());
      if (size >= end) resolve(given.subarray(HEADER_BYTES, end));
    });
    socket.on('error', () => resolve(undefined));
    socket.once('close', () => resolve(undefined));
    systemClock.sleep(waitMs, over.signal).then(
      () => resolve(undefined),
      () => undefined, // called off: the answer is there
    );
  });
  socket.write(`${JSON.stringify(request)}\n`);
  try {
    return await answer;
  } finally {
    over.abort();
    socket.destroy();
  }
}

function writeAll(bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(1, bytes, at);
}
