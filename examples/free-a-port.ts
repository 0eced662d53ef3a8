/**
 * Frees a port before a server of yours starts on it, as a development server would: whoever still listens there is
 * killed with its whole chain, its clients are left alone, and the port is proved free by binding it.
 *
 *   node examples/free-a-port.ts 3000        (Node 22.18 or later; `npm test` compiles it for older ones)
 */
import { createServer } from 'node:http';
import { freePort } from 'tunward';

const port = Number(process.argv[2] ?? 3000);
const report = await freePort(port, { host: '127.0.0.1' });
console.log(report.explanation);
for (const { pid, command, why } of report.kill?.killed ?? []) console.log(`  killed ${pid} (${command}): ${why}`);

if (report.free) {
  const server = createServer((_request, answer) => answer.end('fresh\n'));
  server.listen(port, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${port}`));
  process.once('SIGTERM', () => server.close());
} else {
  process.exitCode = 3;
}
