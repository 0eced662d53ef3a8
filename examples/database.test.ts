/**
 * A mocha suite of a program that reaches its database through an SSH tunnel. The SSH server is the test kit's, in this very
 * process; the database, of which a line is a query and a line is the answer, stands in for yours. It needs no container, and
 * no ssh where there is none:
 *
 *   npx mocha --timeout 20000 --require tunward/testing/mocha examples/database.test.ts
 *
 * (Node 22.18 or later; `npm test` compiles it for older ones.)
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import readline from 'node:readline';
import { startSshServer, startTunnel, type TestSshServer, type TestTunnel } from 'tunward/testing';

describe('a program whose database is behind a tunnel', () => {
  let database: net.Server;
  let server: TestSshServer;
  let tunnel: TestTunnel;

  before(async () => {
    database = startDatabase({ ann: '42' }).listen(0, '127.0.0.1');
    await once(database, 'listening');
    server = await startSshServer();
    tunnel = await startTunnel({ server, target: database });
  });

  after(async () => {
    await tunnel.close();
    await server.close();
    database.close();
  });

  it('is answered through it', async () => {
    assert.equal(await query(tunnel.port, 'get ann'), '42');
    const [forward] = server.forwards;
    assert.deepEqual([forward?.kind, forward?.accepted], ['direct-tcpip', true]);
  });

  it('is answered again after the network was lost', async () => {
    server.drop();
    await tunnel.waitFor(({ state, restarts }) => state === 'up' && restarts > 0, { timeoutMs: 15_000 });
    assert.equal(await query(tunnel.port, 'get ann'), '42');
  });

  it('is told when the server forwards nothing any more', async () => {
    server.refuse('forward');
    await assert.rejects(query(tunnel.port, 'get ann'), /hung up|ECONNRESET/);
    await server.resume();
    assert.equal(await query(tunnel.port, 'get ann'), '42');
  });
});

/** What is tested: one connection for each query. */
async function query(port: number, text: string): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const lines = readline.createInterface({ input: socket });
  try {
    socket.write(`${text}\n`);
    for await (const line of lines) return line;
    throw new Error('the database has hung up');
  } finally {
    lines.close();
    socket.destroy();
  }
}

function startDatabase(rows: Readonly<Record<string, string>>): net.Server {
  return net.createServer((socket) => {
    socket.on('error', () => socket.destroy());
    readline.createInterface({ input: socket }).on('line', (line) => {
      const [, key = ''] = /^get (\w+)$/.exec(line) ?? [];
      socket.write(`${rows[key] ?? 'nothing'}\n`);
    });
  });
}
