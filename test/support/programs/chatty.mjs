/**
 * A ProxyCommand that talks. It relays its stdin and stdout to a port of 127.0.0.1, while what it says on stderr is, as
 * with any helper of ssh, what ssh itself seems to say:
 *   chatty.mjs <port> say <file>                     the bytes of a file
 *   chatty.mjs <port> flood <unit> <bytes> <result>  one text (as JSON) again and again; then how long the longest
 *                                                    write took and the whole, in ms, goes into a file
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';

const [port, act, ...rest] = process.argv.slice(2);
if (act === 'flooding') flood(...rest);
else {
  if (act === 'say') writeAll(readFileSync(rest[0]));
  // In a process of its own: a write that blocks must not hold up the relay.
  const words = [fileURLToPath(import.meta.url), port, 'flooding', ...rest];
  if (act === 'flood') spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'inherit'] });
  const socket = connect(Number(port), '127.0.0.1');
  process.stdin.pipe(socket).pipe(process.stdout);
  for (const stream of [socket, process.stdin, process.stdout]) stream.on('error', () => process.exit(255));
  socket.on('close', () => process.exit(0));
}

function flood(unitText, bytes, result) {
  const unit = JSON.parse(unitText);
  const chunk = Buffer.from(unit.repeat(Math.max(1, Math.round(65_536 / unit.length))));
  const began = performance.now();
  let longest = 0;
  let sent = 0;
  while (sent < Number(bytes)) {
    const at = performance.now();
    writeAll(chunk);
    longest = Math.max(longest, performance.now() - at);
    sent += chunk.length;
  }
  writeFileSync(result, JSON.stringify({ longest, took: performance.now() - began, sent }));
}

/** ssh may have made the pipe, which it shares, non-blocking: a full one is then tried again. */
function writeAll(buffer) {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let done = 0; done < buffer.length; ) {
    try {
      done += writeSync(2, buffer, done);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}
