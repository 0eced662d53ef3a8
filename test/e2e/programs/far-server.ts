// The far side of partition.ts, in a network namespace of its own: a real sshd. It reads words from stdin, one question a
// line, and answers each with a JSON line.
import { createInterface } from 'node:readline';
import { fetchText } from '../../support/daemon.js';
import { startSshd } from '../../support/sshd.js';

const [address = '', ...extra] = process.argv.slice(2);
const sshd = await startSshd({ extra: [`ListenAddress ${address}`, ...extra] });
say({ pid: sshd.pid, port: sshd.port, sshConfigFile: sshd.sshConfigFile });
for await (const line of createInterface({ input: process.stdin })) {
  const [word, port] = line.split(' ');
  if (word === 'get') say((await fetchText(Number(port))) ?? null);
  if (word === 'log') say(sshd.log());
}
await sshd.stop();

function say(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
