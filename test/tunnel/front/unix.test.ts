import { rejects } from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock as clock } from '#lib/time.js';
import { createSocketCarrier } from '#lib/tunnel/front/unix.js';
import { createStage, echo, eventually } from './scene.js';

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
});
