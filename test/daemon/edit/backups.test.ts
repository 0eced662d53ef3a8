import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { backUp, pruneBackups } from '#lib/daemon/edit/backups.js';

const noon = Date.UTC(2026, 0, 16, 12);

describe('backUp() and pruneBackups()', () => {
  let folder: string;
  let copies: { folder: string; name: string };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunward-backups-'));
    copies = { folder, name: 'tunward.yaml' };
  });

  afterEach(() => rmSync(folder, { recursive: true }));

  const copy = (text: string, time: number) => backUp(copies, Buffer.from(text), time);
  const texts = () => readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'));

  it('keeps the ten newest', async () => {
    for (let n = 10; n < 25; n++) {
      await copy(String(n), noon + n);
      await pruneBackups(copies);
    }
    expect(texts()).to.deep.equal(['15', '16', '17', '18', '19', '20', '21', '22', '23', '24']);
  });

  it('has a name for each of those in one millisecond, also at once', async () => {
    await copy('first', noon);
    await Promise.all(['a', 'b', 'c'].map((text) => copy(text, noon)));
    expect(readdirSync(folder)).to.deep.equal([0, 1, 2, 3].map((ms) => `tunward.yaml.20260116T120000.00${ms}Z`));
    expect(texts()).to.have.members(['first', 'a', 'b', 'c']);
  });

  it('takes the last one for the newest, though the clock was put back', async () => {
    for (let n = 0; n < 10; n++) await copy(`old ${n}`, noon + n);
    await copy('new', noon - 3_600_000);
    await pruneBackups(copies);
    expect(texts().at(-1)).to.equal('new');
    expect(texts()).to.have.length(10).and.not.to.include('old 0');
  });

  it('leaves alone what is not its own, and writes through no link', async () => {
    const foreign = [
      'tunward.yaml',
      'notes',
      'tunward.yaml.old',
      'other.yaml.20200101T000000.000Z',
      'tunward.yaml.20200101T000000.000Z.gz',
    ];
    for (const name of foreign) writeFileSync(join(folder, name), 'foreign');
    mkdirSync(join(folder, 'tunward.yaml.20200101T000000.000Z'));
    const victim = join(folder, 'notes');
    symlinkSync(victim, join(folder, 'tunward.yaml.20260116T120000.000Z'));
    for (let n = 0; n < 12; n++) await copy('copy', noon);
    await pruneBackups(copies);
    expect(readFileSync(victim, 'utf8')).to.equal('foreign');
    const names = readdirSync(folder);
    expect(names).to.include.members([
      ...foreign,
      'tunward.yaml.20200101T000000.000Z',
      'tunward.yaml.20260116T120000.000Z',
    ]);
    expect(names).to.have.length(foreign.length + 2 + 10);
  });
});
