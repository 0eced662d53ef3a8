import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeBuiltPackage } from '../support/image.js';
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

interface Said {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Checks {
  readonly checks: readonly { readonly check: string; readonly status: string; readonly finding: string }[];
}

/** A container of node alone, run by whatever number: tunnels need no ssh, no shell, and no line in /etc/passwd. */
describe('tunnels in such a root file system, by a user without a name', () => {
  const user = { uid: 4321, gid: 4321 };
  const values = new Map<string, unknown>();
  const get = <T>(name: string) => values.get(name) as T;
  let byRoot: Said;

  before(async function () {
    this.timeout(180_000);
    need(this, 'root', 'unshare');
    const root = mkdtempSync(join(tmpdir(), 'tunward-bare-root-'));
    try {
      makeRootfs(root);
      chmodSync(root, 0o755); // a temporary folder is for its owner alone
      for (const file of ['passwd', 'group', 'nsswitch.conf']) rmSync(join(root, 'etc', file));
      makeBuiltPackage(join(root, 'app'), repoRoot);
      for (const part of ['test/e2e/programs/bare-tunnels.js', 'test/support']) {
        cpSync(join(buildRoot, part), join(root, 'app/.build', part), { recursive: true });
      }
      mkdirSync(join(root, 'home/me'), { recursive: true });
      chownSync(join(root, 'home/me'), user.uid, user.gid);
      const argv = ['node', '/app/.build/test/e2e/programs/bare-tunnels.js'];
      const { stdout } = await runInRootfs(root, argv, { user, env: { HOME: '/home/me' }, timeoutMs: 110_000 });
      for (const line of stdout.split('\n').filter((text) => text.startsWith('{"emitted":'))) {
        const { emitted, value } = JSON.parse(line);
        values.set(emitted, value);
      }
      const demo = ['node', '/app/lib/cli/main.js', 'demo', '--once'];
      byRoot = await runInRootfs(root, demo, { timeoutMs: 60_000, anyExit: true });
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  });

  it('has nobody by that number, no shell and no ssh', () => {
    expect(values.get('surroundings')).to.deep.equal({ named: false, uid: user.uid, programs: ['node'] });
  });

  it('the demo runs to its end there, by whoever runs it, and says which engine that is', () => {
    for (const { code, stdout, stderr } of [byRoot, get<Said>('demo')]) {
      expect(code, stderr).to.equal(0);
      expect(stdout.replaceAll(/\s+/g, ' ')).to.include('the engine is embedded, an SSH client inside this process');
      expect(stdout.match(/^ {3}✔ /gm), 'up, and six promises').to.have.length(7);
      expect(stdout).to.match(/^ {3}checkout +own link, seamless +nobody +- +- +\S+ +\d+ +0$/m);
    }
  });

  it('validate and doctor find nothing wrong, and doctor says what will be used', () => {
    expect(get<Said>('validate')).to.include({ code: 0, stderr: '' });
    for (const name of ['doctor', 'doctor, while it runs']) {
      const { checks } = get<Checks>(name);
      expect(checks.filter(({ status }) => status === 'failed')).to.deep.equal([]);
      const findings = Object.fromEntries(checks.map(({ check, finding }) => [check, finding]));
      expect(findings).to.include({
        ssh: 'no ssh on PATH (/bin): the embedded engine is used',
        user: 'uid 4321 has no line in /etc/passwd, and the embedded engine needs none; home /home/me',
        agent: 'none (SSH_AUTH_SOCK is not set): keys come from files',
        keys: '1 key file for 3 destinations and 1 jump host',
        'host keys':
          name === 'doctor'
            ? '1 of 2 servers known; 1 to be met, whose keys go into /home/me/.local/state/tunward/known_hosts'
            : '2 of 2 servers known',
      });
    }
  });

  it('up has all of them up, with the key, the user and the server of ~/.ssh', () => {
    expect(values.get('up')).to.equal('all');
    const common = { state: 'up', engine: 'embedded', pid: null };
    expect(values.get('status')).to.deep.equal([
      { name: 'plain', ...common, seamless: false },
      { name: 'steady', ...common, seamless: true },
      { name: 'back', ...common, seamless: false },
      { name: 'far', ...common, seamless: false },
      { name: 'own', ...common, seamless: false },
    ]);
    expect(get<Said>('ls').stdout).to.match(/^steady +up +localhost:\d+ .* rig +embedded, seamless /m);
    expect(values.get('served')).to.deep.equal(Array(5).fill('served'));
    expect(values.get('logins'), 'who it is where nobody says').to.deep.equal(['4321', 'tester']);
    expect(values.get('connections'), 'three share one, and one goes through another').to.equal(4);
  });

  it('a host that is met for the first time is written down, and one whose key has changed is refused', () => {
    expect(values.get('known hosts')).to.match(/^newcomer ssh-ed25519 \S+\n$/);
    const { code, stderr } = get<Said>('restart, changed key');
    expect(code).to.equal(1);
    expect(stderr).to.include('host_key_changed').and.include('/home/me/.local/state/tunward/known_hosts:1');
  });

  it('restart brings each of them back', () => {
    const { code, stdout, stderr } = get<Said>('restart');
    expect(code, stderr).to.equal(0);
    expect(stdout.match(/^✔ \w+ {2}up in /gm)).to.have.length(3);
    expect(values.get('served again')).to.deep.equal(Array(3).fill('served'));
  });

  it('a seamless one is restarted 20 times under clients, of whom none is refused or cut', () => {
    const { served, ...rest } = get<{ served: number }>('restart under clients');
    expect(rest).to.deep.equal({ lost: 0, states: ['up'], restarts: 20 });
    expect(served).to.be.above(200);
  });

  it('without HOME it says what is missing', () => {
    const { up, doctor } = get<Record<'up' | 'doctor', Said>>('without a home');
    const folder = 'Cannot make the folder /var/lib/tunward: EACCES';
    expect(up.stderr).to.equal(`error: ${folder}; make it for this user (uid 4321) or name another folder\n`);
    expect(up.code).to.equal(5);
    expect(doctor.stdout).to.match(/^! user +uid 4321 .* HOME is not set, so ~ is \/\n +→ set HOME to the folder/m);
  });

  it('ends clean at SIGTERM', () => {
    expect(get<Said>('end')).to.include({ code: 0 });
    expect(get<Said>('end').stderr).to.match(/stopped after \d+/);
  });
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
