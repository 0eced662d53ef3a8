import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { reservePort } from 'tunward/testing';
import { hasIpv6Loopback } from '#lib/port/probe.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { createReaper } from '../support/reaper.js';
import { startPerlSocket } from '../support/sockets.js';

const run = promisify(execFile);

describe('reservePort()', () => {
  const everywhere = ['127.0.0.1', '0.0.0.0', '127.0.0.2', ...(hasIpv6Loopback() ? ['::1', '::'] : [])];

  it('holds the port on every address, below those that the kernel gives away', async () => {
    await using reserved = await reservePort();
    for (const host of everywhere) expect(await bind(reserved.port, host), host).to.equal('EADDRINUSE');
    const lowest = Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10);
    expect(reserved.port).to.be.within(10_240, Math.max(lowest, 20_480) - 1);
  });

  it('lets it be bound at once when it is released', async () => {
    for (let round = 0; round < 50; round++) {
      await using reserved = await reservePort();
      await reserved.release();
      for (const host of everywhere) expect(await bind(reserved.port, host), host).to.equal('free');
    }
  });

  it('lets it be bound also without SO_REUSEADDR after somebody has knocked', async function () {
    need(this, 'perl');
    await using reaper = createReaper();
    await using reserved = await reservePort();
    for (let client = 0; client < 5; client++) {
      const socket = net.connect(reserved.port, '127.0.0.1');
      const [error] = await once(socket.resume(), 'error');
      expect(error).to.have.property('code', 'ECONNRESET');
    }
    await reserved.release();
    const { pid } = await startPerlSocket(reaper, { port: reserved.port, script: 'listen($s, 5)' });
    expect(pid).to.be.greaterThan(1);
  });

  it('gives a port to one alone, of many processes at once, also after the release', async () => {
    const program = `
      import { reservePort } from 'tunward/testing';
      const ports = [];
      for (let n = 0; n < 400; n++) {
        const reserved = await reservePort();
        ports.push(reserved.port);
        if (n % 2 === 0) await reserved.release();
      }
      console.log(JSON.stringify(ports));
      process.stdin.resume(); // until all of them are done: a reservation is its process's
    `;
    const children = Array.from({ length: 3 }, () => {
      const started = run(process.execPath, ['--input-type=module', '-e', program], { cwd: repoRoot });
      return { started, said: once(started.child.stdout ?? net.connect(0), 'data') };
    });
    await Promise.all(children.map(({ said }) => said));
    for (const { started } of children) started.child.stdin?.end();
    const outputs = await Promise.all(children.map(({ started }) => started));
    const ports = outputs.flatMap(({ stdout }) => JSON.parse(stdout) as number[]);
    expect(ports).to.have.length(1200);
    expect(new Set(ports).size).to.equal(1200);
  });

  it('leaves no descriptor behind, however often it is released', async () => {
    const program = `
      import { readdirSync } from 'node:fs';
      import { reservePort } from 'tunward/testing';
      const before = readdirSync('/proc/self/fd').length;
      const counts = [];
      const count = () => counts.push(readdirSync('/proc/self/fd').length - before);
      const many = await Promise.all(Array.from({ length: 100 }, () => reservePort()));
      count();
      for (const reserved of many) await Promise.all([reserved.release(), reserved.release()]);
      count();
      for (const reserved of [...many, ...many]) await reserved[Symbol.asyncDispose]();
      count();
      console.log(JSON.stringify({ counts, ports: new Set(many.map(({ port }) => port)).size }));
    `;
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], { cwd: repoRoot });
    expect(JSON.parse(stdout)).to.deep.equal({ counts: [200, 100, 0], ports: 100 });
  });

  it('keeps no program from ending', async () => {
    const program = `import { reservePort } from 'tunward/testing'; console.log((await reservePort()).port)`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], {
      cwd: repoRoot,
      timeout: 15_000,
    });
    expect(await bind(Number(stdout), '127.0.0.1')).to.equal('free');
  });
});

function bind(port: number, host: string): Promise<string> {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? String(error)));
    server.listen({ port, host, exclusive: true, ipv6Only: host.includes(':') }, () =>
      server.close(() => resolve('free')),
    );
  });
}
