/**
 * Opens a tunnel to a server that asks (a password, a one-time code, a passphrase, whether a host key is the right one),
 * and asks whoever started this program; the tunnel is up from the answers on, until Ctrl-C.
 *
 *   node examples/answer-ssh.ts me@vault.example 8200
 *
 * (Node 24 or later, for `await using`; `npm test` compiles it for older ones.)
 */
import readline from 'node:readline/promises';
import { Writable } from 'node:stream';
import { openTunnel, type Question } from 'tunward';

const [remoteHost = '', remotePort = '', sshConfig] = process.argv.slice(2);
const ended = new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve));
await using tunnel = await openTunnel({ remoteHost, remotePort, localPort: 0, sshConfig, prompt: ask });
const { listen, target } = tunnel.status();
console.log(`up: 127.0.0.1:${listen[0]?.port} → ${target}`);
await ended;

/** What is typed is shown where it may be: of a password nothing is. */
async function ask({ text, echo, signal }: Question & { signal: AbortSignal }): Promise<string> {
  const hidden = new Writable({ write: (_chunk, _encoding, done) => done() });
  const person = readline.createInterface({
    input: process.stdin,
    output: echo ? process.stdout : hidden,
    terminal: true,
  });
  // Only now does the terminal show nothing of what is typed, however fast somebody answers.
  if (!echo) process.stdout.write(text);
  try {
    return await person.question(echo ? text : '', { signal });
  } finally {
    person.close();
    if (!echo) process.stdout.write('\n');
  }
}
