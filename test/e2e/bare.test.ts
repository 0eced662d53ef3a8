import { cpSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { need } from '../support/need.js';
import { buildRoot, repoRoot } from '../support/paths.js';
import { makeRootfs, runInRootfs } from '../support/rootfs.js';

/** What lsof, fuser, ss, ps, kill and a shell are for elsewhere is done here without any of them: there is none. */
describe('in a root file system that holds node, its libraries and /proc, and nothing else', () => {
  const values = new Map<string, unknown>();

  before(async function () {
    this.timeout(90_000);
    need(this, 'root', 'unshare');
    const root = mkdtempSync(join(tmpdir(), 'tunward-bare-root-'));
    try {
      makeRootfs(root);
      putPackage(join(root, 'app'));
      const argv = ['node', '/app/.build/test/e2e/programs/bare.js'];
      const { stdout } = await runInRootfs(root, argv, { timeoutMs: 75_000 });
      for (const line of stdout.split('\n').filter((text) => text.startsWith('{"emitted":'))) {
        const { emitted, value } = JSON.parse(line);
        values.set(emitted, value);
      }
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  });

  it('has no other program: no shell, no ps, no ss, no lsof', () => {
    expect(values.get('programs')).to.have.members([realpathSync(process.execPath), '/bin/node']);
  });

  it('findListeners(), inspectPort(), isPortFree() and waitForPort() see who holds a port, and who is its client', () => {
    expect(values.get('look')).to.deep.equal({
      holders: [0],
      verdict: 'listening',
      clients: [0],
      free: [false, false],
      late: 'ERR_TIMEOUT',
    });
  });

  it('readProcessTree() shows a holder with its port and its child', () => {
    expect(values.get('tree'))
      .to.deep.include({ below: [1] })
      .and.to.have.property('ports')
      .with.length(1);
  });

  it('freePort() plans, then kills the chain of the holder and spares its client', () => {
    expect(values.get('dry run')).to.deep.equal({ free: false, killed: [0, 1], living: 2 });
    expect(values.get('free')).to.deep.equal({
      free: true,
      verdict: 'free',
      killed: [0, 1],
      survivors: [],
      living: [0, 1],
      proved: true,
    });
  });

  it('killTree() ends a tree, also what left its session and ignores SIGTERM', () => {
    expect(values.get('kill')).to.deep.equal({ killed: 3, survivors: [], living: 0 });
  });

  // The exit code, once all that is expected of its output was there.
  const commands = {
    who: 0,
    'who --json': 0,
    'who, nobody': 0,
    'wait --listening': 0,
    'wait --listening --json': 0,
    'wait --free, held': 124,
    tree: 0,
    'tree --json': 0,
    'tree, nobody': 4,
    'free --dry-run': 3,
    'free --dry-run --json': 3,
    free: 0,
    'free --json': 0,
    'free, nobody': 0,
    'wait --free': 0,
    'wait --free --json': 0,
    ps: 0,
    'ps --json': 0,
    kill: 0,
    'kill --json': 0,
    'kill, nobody': 4,
    'kill, protected': 5,
    'ps, nobody': 0,
    usage: 2,
  };
  for (const [name, code] of Object.entries(commands)) {
    it(`tunward ${name} ends with ${code}, and says what it should`, () => {
      expect(values.get(`tunward ${name}`)).to.equal(code);
    });
  }

  it('the commands kill by request alone, and no client', () => {
    expect(values.get('after the dry runs')).to.equal(2);
    expect(values.get('after the frees')).to.deep.equal([0, 0, 1]);
    expect(values.get('after the kills')).to.deep.equal([0, 0]);
  });

  it('nothing is left behind', () => expect(values.get('leaks')).to.deep.equal([]));
});

/** The package with the one dependency that the commands about ports and processes load, and the test's own program. */
function putPackage(app: string): void {
  for (const part of ['lib', 'package.json', 'node_modules/commander']) {
    cpSync(join(repoRoot, part), join(app, part), { recursive: true });
  }
  for (const part of ['test/e2e/programs/bare.js', 'test/support']) {
    cpSync(join(buildRoot, part), join(app, '.build', part), { recursive: true });
  }
}
