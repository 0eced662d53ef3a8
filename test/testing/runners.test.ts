import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';

/** Uses everything of the kit once; `head` brings the test runner's words. */
const suite = (head: string) => `
  ${head}
  import assert from 'node:assert/strict';
  import net from 'node:net';
  import { once } from 'node:events';
  import { assertNoLeaks, createFakeClock, reservePort, spawnTree, startSshServer, startTunnel } from 'tunward/testing';

  describe('a project of somebody else', () => {
    let database, server;
    before(async () => {
      database = net.createServer((socket) => socket.end('rows')).listen(0, '127.0.0.1');
      await once(database, 'listening');
      server = await startSshServer({ keyboardInteractive: [{ prompt: 'Code: ', answer: '1' }] });
    });
    after(async () => {
      await server.close();
      await new Promise((resolve) => database.close(resolve));
      await assertNoLeaks();
    });
    it('has a tunnel', async () => {
      const tunnel = await startTunnel({ server, target: database, prompt: () => '1' });
      try {
        const [rows] = await once(net.connect(tunnel.port, tunnel.host), 'data');
        assert.equal(String(rows), 'rows');
        server.drop();
      } finally {
        await tunnel.close();
      }
    });
    it('has the rest', async () => {
      const clock = createFakeClock();
      const slept = clock.sleep(60_000);
      await clock.advance(60_000);
      await slept;
      const tree = await spawnTree({});
      await tree.kill();
      const reserved = await reservePort();
      await reserved.release();
    });
  });
`;

describe("tunward/testing in somebody else's project", () => {
  let dir: string;

  before(function () {
    need(this, 'ssh');
    dir = mkdtempSync(join(tmpdir(), 'tunward-project-'));
    writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
    mkdirSync(join(dir, 'node_modules'));
    symlinkSync(repoRoot, join(dir, 'node_modules/tunward'));
  });

  after(() => dir && rmSync(dir, { recursive: true, force: true }));

  /** Runs to its end, which it must come to by itself. */
  function run(argv: readonly string[]): Promise<{ code: number | string; said: string }> {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    return new Promise((resolve) => {
      execFile(process.execPath, [...argv], { cwd: dir, env, timeout: 60_000 }, (error, stdout, stderr) => {
        resolve({ code: error ? (error.code ?? String(error.signal)) : 0, said: `${stdout}${stderr}` });
      });
    });
  }

  it('serves mocha, which ends by itself', async () => {
    writeFileSync(join(dir, 'mocha.mjs'), suite(''));
    const mocha = join(repoRoot, 'node_modules/mocha/bin/mocha.js');
    // By its file: this mocha is not installed beside the project.
    const hooks = ['--require', fileURLToPath(import.meta.resolve('tunward/testing/mocha'))];
    const { code, said } = await run([mocha, '--no-config', '--timeout', '20000', ...hooks, 'mocha.mjs']);
    expect(said).to.include('2 passing').and.not.include('failing');
    expect(code, said).to.equal(0);
  });

  it('serves node:test, which ends by itself', async () => {
    writeFileSync(join(dir, 'node.test.mjs'), suite("import { after, before, describe, it } from 'node:test';"));
    const { code, said } = await run(['--test', 'node.test.mjs']);
    expect(said)
      .to.match(/pass [23]\b/)
      .and.match(/fail 0\b/);
    expect(code, said).to.equal(0);
  });
});
