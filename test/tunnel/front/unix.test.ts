import { rejects } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock as clock } from '#lib/time.js';
import { createSocketCarrier } from '#lib/tunnel/front/unix.js';
import { need } from '../../support/need.js';
import { createReaper } from '../../support/reaper.js';
import { type Sshd, startSshd } from '../../support/sshd.js';
import { createStage, digestOf, echo, eventually, noise } from './scene.js';

describe('createSocketCarrier()', () => {
  const stage = createStage();
  const who = { address: '127.0.0.1', port: 1 };
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-unix-'));
  });
  afterEach(() => stage.end());
  after(() => rmSync(dir, { recursive: true }));

  it('connects more at once than the backlog takes', async () => {
    const path = join(dir, 'busy.sock');
    await stage.serve(echo, { path });
    const { front, meter, port } = await stage.open();
    const clients = Array.from({ length: 900 }, () => stage.connect(port));
    await eventually('waiting', () => meter.read().queued === 900);
    front.use(createSocketCarrier({ path, isAlive: () => true, clock }));
    for (const { socket } of clients) socket.end('x');
    expect(new Set(await Promise.all(clients.map(({ over }) => over)))).to.deep.equal(new Set(['end']));
    expect(meter.read().refused).to.equal(0);
  });

  it('is not alive any more when nobody listens, and its connections wait for another one', async () => {
    const gone = createSocketCarrier({ path: join(dir, 'gone.sock'), isAlive: () => true, clock });
    expect(gone.isAlive()).to.equal(true);
    const { front, meter, port } = await stage.open();
    front.use(gone);
    const client = stage.connect(port);
    await eventually('deserted', () => !gone.isAlive());
    expect(meter.read()).to.include({ queued: 1, refused: 0 });
    const path = join(dir, 'next.sock');
    await stage.serve(echo, { path });
    front.use(createSocketCarrier({ path, isAlive: () => true, clock }));
    client.socket.end('x');
    expect(await client.over).to.equal('end');
  });

  it('says where it could not connect', async () => {
    const path = join(dir, 'none.sock');
    const carrier = createSocketCarrier({ path, isAlive: () => true, clock });
    await rejects(carrier.open(who, new AbortController().signal), {
      code: 'ERR_START_FAILED',
      message: `Cannot connect to the link at ${path}: connect ENOENT ${path}`,
    });
  });

  it('connects to nobody once it is called off', async () => {
    const path = join(dir, 'off.sock');
    let met = 0;
    await stage.serve(() => met++, { path });
    const carrier = createSocketCarrier({ path, isAlive: () => true, clock });
    const reason = new Error('off');
    await rejects(carrier.open(who, AbortSignal.abort(reason)), reason);
    const off = new AbortController();
    const opening = carrier.open(who, off.signal);
    off.abort(reason);
    await rejects(opening, reason);
    expect(carrier.isAlive()).to.equal(true);
    expect(met).to.be.at.most(1);
  });

  describe('to a real ssh', () => {
    const reaper = createReaper();
    let sshd: Sshd;
    before(async function () {
      need(this, 'ssh', 'sshd');
      sshd = await startSshd();
    });
    afterEach(() => reaper.end());
    after(() => sshd?.stop());

    /** Does this process have the socket that listens at the path? Answers a question that costs one readlink. */
    function watchListener(pid: number, path: string): () => boolean {
      const rows = readFileSync('/proc/net/unix', 'utf8').split('\n');
      const inode = rows.find((row) => row.endsWith(` ${path}`) && row.includes(' 00010000 '))?.split(/\s+/)[6];
      const read = (fd: string) => {
        try {
          return readlinkSync(`/proc/${pid}/fd/${fd}`);
        } catch {
          return undefined;
        }
      };
      const fd = readdirSync(`/proc/${pid}/fd`).find((each) => read(each) === `socket:[${inode}]`);
      if (fd === undefined) throw new Error(`ssh does not listen at ${path}`);
      return () => read(fd) === `socket:[${inode}]`;
    }

    async function startLink(target: number, name: string) {
      const path = join(dir, `${name}.sock`);
      const args = ['-F', sshd.sshConfigFile, '-N', '-L', `${path}:127.0.0.1:${target}`, sshd.host];
      const child = spawn('ssh', args, { env: { ...process.env, ...reaper.env }, stdio: 'ignore' });
      reaper.own(child);
      await eventually('listening', () => existsSync(path));
      const isAlive = watchListener(Number(child.pid), path);
      return { child, carrier: createSocketCarrier({ path, isAlive, clock }) };
    }

    it('brings a whole answer, and its end', async () => {
      const bytes = noise(8_000_000, 1);
      const { carrier } = await startLink(await stage.serve((socket) => socket.resume().end(bytes)), 'whole');
      const { front, meter, port } = await stage.open();
      front.use(carrier);
      const client = stage.connect(port);
      client.socket.end('please');
      expect(await client.over).to.equal('end');
      expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
      await eventually('closed', () => meter.read().open === 0);
    });

    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      it(`resets every client when the ssh gets a ${signal}, and the next one has the new connections`, async () => {
        const target = await stage.serve((socket) => socket.resume().write('the first half'));
        const [former, next] = [await startLink(target, `${signal}-1`), await startLink(target, `${signal}-2`)];
        const { front, meter, port } = await stage.open();
        front.use(former.carrier);
        const clients = Array.from({ length: 20 }, () => stage.connect(port));
        await eventually('half', () => clients.every(({ text }) => text() === 'the first half'));
        former.child.kill(signal);
        expect(new Set(await Promise.all(clients.map(({ over }) => over)))).to.deep.equal(new Set(['reset']));
        const late = stage.connect(port);
        await eventually('waiting', () => meter.read().queued === 1);
        front.use(next.carrier);
        await eventually('half', () => late.text() === 'the first half');
        expect(meter.read()).to.include({ connections: 21, open: 1, refused: 0 });
      });
    }
  });
});
