import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startFakeDaemon } from './fake-daemon.js';
import { said, startTunward, tunward } from './run.js';

interface Check {
  readonly check: string;
  readonly status: string;
  readonly finding: string;
  readonly remedy: string | null;
}

describe('tunward doctor', () => {
  const reaper = createReaper();
  let dir: string;
  before(function () {
    need(this, 'ssh');
  });
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-cli-doctor-'));
    write('id', 'key');
    write('ssh_config', '');
    configure({});
  });
  afterEach(async () => {
    await reaper.end();
    rmSync(dir, { recursive: true });
  });

  function write(name: string, text: string): string {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  }
  function configure(keys: object): void {
    const folders = { log_dir: join(dir, 'log'), state_dir: join(dir, 'state'), api: { socket: join(dir, 'run/s') } };
    const common = { ssh_config: join(dir, 'ssh_config'), identity_file: join(dir, 'id') };
    write('tunward.yaml', JSON.stringify({ ...folders, ...common, tunnels: [], ...keys }));
  }
  const env = { HOME: userInfo().homedir };
  const run = (...args: string[]) => tunward(reaper, ['doctor', ...args], { cwd: dir, env });
  async function examine(
    ...args: string[]
  ): Promise<{ code: number | null; ok: boolean; of: (name: string) => Check }> {
    const { code, stdout, stderr } = await run('--json', ...args);
    expect(stderr).to.equal('');
    const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Check[] };
    const of = (name: string) =>
      checks.find(({ check }) => check === name) ?? ({ ...checks[0], check: 'none' } as Check);
    return { code, ok, of };
  }

  it('looks at everything, without a daemon, and ends with 0 when nothing failed', async () => {
    const { code, stdout, stderr } = await run();
    expect({ code, stderr }, stdout).to.deep.equal({ code: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    const names = lines.flatMap((line) => /^[✔!✖?] (\S+(?: \S+)*?) {2,}\S/.exec(line)?.[1] ?? []);
    expect(names).to.deep.equal([
      ...['node', 'ssh', 'home', 'agent', 'keys', 'proc', 'pid 1', 'container', 'ipv6'],
      ...['descriptors', 'processes', 'memory', 'config', 'state', 'logs', 'socket', 'ports', 'daemon', 'clock'],
    ]);
    expect(lines.at(-1)).to.match(/^\d+ ok, \d+ to look at, 0 failed$/);
    expect(stdout).to.contain(`none answers at ${dir}/run/s`);
  });

  it('ends with 1 when something failed, with what to do in the line below', async () => {
    chmodSync(join(dir, 'id'), 0o644);
    configure({ tunnels: [{ remote_host: 'doctor.invalid', remote_port: 80, local_port: await freeLocalPort() }] });
    const { code, stdout } = await run();
    expect(code).to.equal(1);
    expect(stdout).to.match(new RegExp(`✖ keys +${dir}/id has mode 0644.*\\n +→ chmod 600 ${dir}/id\\n`));
    expect(stdout).to.match(/1 failed\n$/);
  });

  it('says of a wrong configuration what validate says, and looks at the rest all the same', async () => {
    write('tunward.yaml', 'engine: sh\nnam: x\napi: 3\n');
    const { stderr: problems } = await tunward(reaper, ['validate'], { cwd: dir });
    const { code, ok, of } = await examine('-c', 'tunward.yaml');
    expect({ code, ok }).to.deep.equal({ code: 1, ok: false });
    expect(of('config')).to.include({ status: 'failed', finding: problems.trimEnd() });
    expect(of('ssh').status).to.equal('ok');
    expect(of('daemon').status).to.equal('unknown');
  });

  it('warns where there is no configuration', async () => {
    rmSync(join(dir, 'tunward.yaml'));
    const { ok, of } = await examine();
    expect(ok).to.equal(true);
    expect(of('config')).to.include({ status: 'warning', finding: 'there is none' });
  });

  it('tells of the daemon that runs', async () => {
    const up = startTunward(reaper, ['up'], { cwd: dir });
    await said(up, 'stderr', 'ready');
    const { code, of } = await examine();
    expect(code).to.equal(0);
    expect(of('daemon')).to.include({ status: 'ok', finding: `pid ${up.pid}, API at ${dir}/run/s` });
    up.child.kill('SIGTERM');
    expect((await up.ended).code).to.equal(0);
  });

  it('names whoever has the port of a tunnel of the daemon that runs', async () => {
    const { ports } = await startListener(reaper, { host: '127.0.0.1' }).ready;
    const port = ports[0]?.port ?? 0;
    configure({ tunnels: [{ name: 'web', remote_host: 'doctor.invalid', remote_port: 80, local_port: port }] });
    const up = startTunward(reaper, ['up'], { cwd: dir });
    await said(up, 'stderr', 'local_port_busy');
    const { of } = await examine();
    expect(of('ports')).to.include({ status: 'warning' });
    expect(of('ports').finding).to.match(new RegExp(`^tunnel web: port ${port} is held by pid \\d+ `));
    up.child.kill('SIGTERM');
    expect((await up.ended).code).to.equal(0);
  });

  it('says of a daemon that cannot do anything, and looks at the rest all the same', async () => {
    const daemon = await startFakeDaemon();
    try {
      daemon.routes.set('GET /health', () => ({ status: 500, body: { detail: 'EMFILE: too many open files' } }));
      configure({ api: { socket: daemon.socket } });
      const { code, of } = await examine();
      expect(code).to.equal(1);
      expect(of('daemon').status).to.equal('failed');
      expect(of('daemon').finding).to.match(/^The daemon at .* failed: .*EMFILE/);
      expect(of('ssh').status).to.equal('ok');
    } finally {
      await daemon.close();
    }
  });

  it('says of a user without a line in /etc/passwd that ssh refuses to run', async function () {
    need(this, 'root');
    chmodSync(dir, 0o755);
    for (const name of ['tunward.yaml', 'ssh_config', 'id']) chmodSync(join(dir, name), 0o644);
    const { code, stdout } = await tunward(reaper, ['doctor', '--json'], { cwd: dir, env, uid: 4242 });
    expect(code, stdout).to.equal(1);
    const { checks } = JSON.parse(stdout) as { checks: Check[] };
    const user = checks.find(({ check }) => check === 'user');
    expect(user).to.include({ status: 'failed' }).and.property('finding').contain('no line in /etc/passwd');
    expect(checks.find(({ check }) => check === 'state')?.status, 'not a folder of its').to.equal('failed');
  });
});
