/**
 * Tests of a program that has to do with ports and processes, written with tunward's test kit. With mocha:
 *
 *   npx mocha --timeout 20000 --require tunward/testing/mocha examples/testing.test.ts
 *
 * (Node 24 or later, for `await using`; `npm test` compiles it for older ones.)
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { freePort, killTree, waitForPort } from 'tunward';
import { assertNoLeaks, reservePort, spawnTree } from 'tunward/testing';

describe('a development server', () => {
  afterEach(() => assertNoLeaks());

  it('is there when its port says so', async () => {
    await using reserved = await reservePort();
    const server = createServer((_request, answer) => answer.end('fresh'));
    await reserved.release(); // as late as can be
    server.listen(reserved.port, '127.0.0.1');
    await waitForPort(reserved.port, { state: 'listening' });
    assert.equal(await (await fetch(`http://127.0.0.1:${reserved.port}`)).text(), 'fresh');
    server.closeAllConnections();
    server.close();
  });

  it('takes its port from a former life that ignores SIGTERM, and spares who is connected to it', async () => {
    await using old = await spawnTree({ listen: [{}], ignore: ['SIGTERM'], children: [{ title: 'worker' }] });
    const [port = 0] = old.ports;
    await using browser = await spawnTree({ connect: { port } });
    const { free, explanation } = await freePort(port, { host: '127.0.0.1' });
    assert.ok(free, explanation);
    assert.deepEqual(old.living(), []);
    assert.equal(browser.living().length, 1);
  });

  it('is ended with all that it has started, in whatever session that is', async () => {
    await using tree = await spawnTree({ children: [{ setsid: true, children: [{ ignore: ['SIGTERM'] }] }, {}] });
    assert.equal(tree.living().length, 4);
    await killTree(tree, { graceMs: 100 });
    assert.deepEqual(tree.living(), []);
  });
});
