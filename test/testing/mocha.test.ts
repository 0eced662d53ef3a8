import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { repoRoot } from '../support/paths.js';
import { isAlive } from '../support/proc.js';

const hook = fileURLToPath(import.meta.resolve('tunward/testing/mocha'));
const kit = import.meta.resolve('tunward/testing');
const daemon = '{ leave: true, children: [{ setsid: true, leave: true, children: [{ listen: [{}] }] }] }';

describe('tunward/testing/mocha', () => {
  it('lets a run pass that leaves nothing', async () => {
    const { code, said } = await runMocha(`
      import net from 'node:net';
      import { reservePort, spawnTree } from '${kit}';
      it('is tidy', async () => {
        const tree = await spawnTree({ listen: [{}] });
        await tree.kill();
        const reserved = await reservePort();
        await reserved.release();
        const server = net.createServer().listen(reserved.port);
        await new Promise((resolve) => server.once('listening', resolve));
        server.close();
        setTimeout(() => {}, 100); // on its way out
      });
    `);
    expect(said).to.include('1 passing').and.not.include('failing');
    expect(code).to.equal(0);
  });

  const leaks: readonly [string, string, RegExp][] = [
    [
      'a child',
      `const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
       console.log('pid', child.pid);
       await new Promise((resolve) => setTimeout(resolve, 50));`,
      /behind \(the processes are killed now\):\n\s+process \d+ \(.*setInterval.*\), a child of this one\n\s+since “leaks”, or next to it/,
    ],
    [
      'a daemon',
      `const tree = await spawnTree(${daemon}); console.log('pid', tree.living()[0].pid);`,
      /process \d+ \(.*\), started by this one, and gone its own way, listens on 127\.0\.0\.1:\d+/,
    ],
    [
      'a listener',
      `await new Promise((resolve) => net.createServer().listen(0, '127.0.0.1', resolve));`,
      /behind:\n\s+this process listens on 127\.0\.0\.1:\d+\n\s+since “leaks”/,
    ],
    ['a timer', 'setInterval(() => {}, 1000);', /1 × Timeout keeps this process from ending\n\s+since “leaks”/],
  ];
  for (const [what, code, message] of leaks) {
    it(`fails a run that leaves ${what}, names it, and ends the process`, async () => {
      const ended = await runMocha(`
        import { spawn } from 'node:child_process';
        import net from 'node:net';
        import { spawnTree } from '${kit}';
        it('is innocent', () => {});
        it('is innocent too', () => {});
        it('leaks', async () => { await new Promise((resolve) => setTimeout(resolve, 30)); ${code} });
        it('comes later', () => {});
        after(() => setTimeout(() => process.exit(), 10_000).unref());
      `);
      expect(ended.said).to.include('4 passing').and.include('1 failing').and.match(message);
      expect(ended.code).to.equal(1);
      const pid = /^pid (\d+)$/m.exec(ended.said)?.[1];
      if (pid) expect(isAlive(Number(pid)), `pid ${pid}`).to.equal(false);
      else expect(ended.said).to.not.include('killed');
    });
  }

  it('watches the workers of a parallel run too', async () => {
    const leak = `import net from 'node:net'; it('leaks', (done) => { net.createServer().listen(0, done).unref(); });`;
    const { code, said } = await runMocha(leak, '--parallel', '--jobs', '2');
    expect(said).to.match(/this process listens on \[?(::|0\.0\.0\.0)\]?:\d+/);
    expect(code).to.be.greaterThan(0);
  });
});

async function runMocha(test: string, ...flags: string[]): Promise<{ code: number; said: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-mocha-'));
  try {
    // Two files, or mocha runs none of them in parallel.
    writeFileSync(join(dir, 'one.mjs'), test);
    if (flags.length > 0) writeFileSync(join(dir, 'two.mjs'), `it('does nothing', () => {});`);
    const mocha = join(repoRoot, 'node_modules/mocha/bin/mocha.js');
    const argv = [mocha, '--no-config', '--no-package', '--exit', '--require', hook, ...flags, join(dir, '*.mjs')];
    return await new Promise((resolve) => {
      execFile(process.execPath, argv, { timeout: 60_000 }, (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, said: `${stdout}${stderr}` });
      });
    });
  } finally {
    rmSync(dir, { recursive: true });
  }
}
