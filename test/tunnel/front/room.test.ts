import { closeSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { createRoomCheck } from '#lib/tunnel/front/room.js';
import { createFakeProc } from '../../support/fakeproc.js';

describe('createRoomCheck()', () => {
  function checkWith(limit: number | string): () => boolean {
    using fake = createFakeProc();
    fake.write(
      'self/limits',
      `Limit                     Soft Limit\nMax open files            ${limit}      524288      files\n`,
    );
    return createRoomCheck(fake.proc);
  }

  it('keeps the last 64 descriptors from clients', () => {
    // Far more than 256, of which a quarter would be fewer.
    const opened = Array.from({ length: 300 }, () => openSync('/', 'r'));
    const next = openSync('/', 'r');
    closeSync(next);
    expect(checkWith(next + 65)(), 'one more').to.equal(true);
    expect(checkWith(next + 64)(), 'none more').to.equal(false);
    for (const fd of opened) closeSync(fd);
    expect(checkWith(next + 64)(), 'given back').to.equal(true);
  });

  it('keeps no more than a quarter of a low limit', () => {
    const next = openSync('/', 'r');
    closeSync(next);
    expect(checkWith(Math.ceil((next * 4) / 3) + 2)()).to.equal(true);
    expect(checkWith(next + 1)()).to.equal(false);
  });

  it('is always so where there is no limit, or none is told', () => {
    using fake = createFakeProc();
    expect(checkWith('unlimited')()).to.equal(true);
    expect(createRoomCheck(fake.proc)()).to.equal(true);
  });
});
