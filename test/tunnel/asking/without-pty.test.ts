import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import type { Supervisor, SupervisorEvent } from '#lib/tunnel/supervisor.js';
import { type AskingServer, byPasswordAndCode, startAsking } from '../../support/asking.js';
import { need } from '../../support/need.js';
import { repoRoot } from '../../support/paths.js';
import { createTestTerminal, type TestTerminal } from '../../support/person.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { makeSpec } from '../../support/specs.js';

describe('a tunnel that asks at a terminal, where node-pty is not installed', function () {
  this.timeout(60_000);
  /** The package as it is installed, without node-pty. */
  let home: string;
  let folder: string;
  let create: (options: { env: NodeJS.ProcessEnv; publish: (event: SupervisorEvent) => void }) => Supervisor;
  let server: AskingServer;
  let supervisor: Supervisor;
  let reaper: Reaper;
  let spec: TunnelSpec;
  let events: SupervisorEvent[];

  before(async function () {
    need(this, 'ssh');
    home = mkdtempSync(join(tmpdir(), 'tunward-bare-'));
    cpSync(join(repoRoot, 'lib'), join(home, 'lib'), { recursive: true });
    cpSync(join(repoRoot, 'package.json'), join(home, 'package.json'));
    mkdirSync(join(home, 'node_modules'));
    for (const name of readdirSync(join(repoRoot, 'node_modules'))) {
      if (/node-pty|^@lydell$/.test(name) || name === '.bin') continue;
      symlinkSync(join(repoRoot, 'node_modules', name), join(home, 'node_modules', name));
    }
    ({ createSupervisor: create } = await import(join(home, 'lib/tunnel/supervisor.js')));
  });
  after(() => rmSync(home, { recursive: true, force: true }));

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tunward-lines-'));
    server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')], known: false });
    reaper = createReaper();
    events = [];
    const env = { ...process.env, ...reaper.env, SSH_AUTH_SOCK: undefined, TMPDIR: folder };
    supervisor = create({ env, publish: (event) => events.push(event) });
    spec = makeSpec({
      ...{ side: 'local', interactive: true, remoteHost: server.host, sshConfig: server.sshConfigFile },
      listen: { host: '127.0.0.1', port: await freeLocalPort() },
    });
    await supervisor.reconcile([spec]);
  });
  afterEach(async () => {
    await supervisor.close();
    await server[Symbol.asyncDispose]();
    expect(await reaper.end()).to.deep.equal([]);
    expect(readdirSync(folder)).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  });

  /** Answers all that is asked, at a terminal which ssh itself is not put on. */
  async function logIn(): Promise<TestTerminal> {
    const screen = createTestTerminal();
    const opened: string[] = [];
    const login = supervisor.authenticate(spec.id, screen, { onOpen: (via) => opened.push(via) });
    await screen.answer(/\(yes\/no\/\[fingerprint\]\)\? $/, 'yes\r');
    await screen.answer(/Password: $/, 'secret\r');
    await screen.answer(/One-time code: $/, '123456\r');
    expect([(await login).state, ...opened]).to.deep.equal(['up', 'askpass']);
    return screen;
  }

  it('comes up by what is typed, and says how to have a real terminal', async () => {
    const screen = await logIn();
    const all = (await screen.display.all()).join('\n');
    expect(screen.drawn()).to.match(/'npm i node-pty'[\s\S]*npm i node-pty@npm:@lydell\/node-pty/);
    expect(all).to.match(/\(yes\/no\/\[fingerprint\]\)\? yes/);
    // What ssh says on the way is drawn as well; what was typed in secret is nowhere.
    expect(all).to.include('Permanently added');
    for (const secret of ['secret', '123456']) expect([all, JSON.stringify(events)].join()).not.to.include(secret);
    const before = screen.drawn();
    await screen.type('too late\r');
    expect(screen.drawn()).to.equal(before);
    expect(readdirSync(folder)).to.deep.equal([]);
  });

  it('comes up as well where a node-pty is installed that makes no terminal, and says what is wrong with it', async () => {
    const broken = join(home, 'node_modules/node-pty');
    mkdirSync(broken);
    try {
      writeFileSync(join(broken, 'package.json'), '{ "name": "node-pty", "main": "index.js" }');
      writeFileSync(join(broken, 'index.js'), "throw new Error('Failed to load native module: pty.node');");
      const screen = await logIn();
      expect(screen.drawn()).to.match(/node_modules\/node-pty\S* makes no terminal: Failed to load native module/);
    } finally {
      rmSync(broken, { recursive: true });
    }
  });

  it('is given up by Ctrl-C, and nothing is left', async () => {
    const screen = createTestTerminal();
    const login = supervisor.authenticate(spec.id, screen).catch((error: unknown) => error);
    await screen.answer(/\(yes\/no\/\[fingerprint\]\)\? $/, '\x03');
    const error = await login;
    expect(error).to.have.property('code', 'ERR_START_FAILED');
    expect(error).to.have.nested.property('info.reason', 'needs_auth');
    await until(() => supervisor.status(spec.id).state === 'stopped', { timeoutMs: 10_000 });
    expect(supervisor.status(spec.id)).to.include({ reason: 'needs_auth', lastError: 'given up at the terminal' });
    expect(reaper.living()).to.deep.equal([]);
  });

  it('says that nothing was typed', async () => {
    const screen = createTestTerminal();
    const patience = { totalMs: 30_000, idleMs: 300 };
    const error = await supervisor.authenticate(spec.id, screen, { patience }).catch((thrown: unknown) => thrown);
    expect(error).to.have.property('code', 'ERR_TIMEOUT');
    await until(() => supervisor.status(spec.id).state === 'stopped', { timeoutMs: 10_000 });
    expect(reaper.living()).to.deep.equal([]);
  });
});
