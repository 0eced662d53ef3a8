import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { startSshServer } from 'tunward/testing';
import { until } from '#lib/time.js';
import { byPasswordAndCode, startAsking } from './support/asking.js';
import { fetchText, makeHome } from './support/daemon.js';
import { answer, question } from './support/dialogue.js';
import { need } from './support/need.js';
import { buildRoot, repoRoot } from './support/paths.js';
import { freeLocalPort } from './support/port.js';
import { isAlive } from './support/proc.js';
import { startListener } from './support/processes.js';
import { createReaper } from './support/reaper.js';
import { startService } from './support/servers.js';
import { startSshd } from './support/sshd.js';
import { runOnTerminal } from './support/terminal.js';

describe('the examples', () => {
  const reaper = createReaper();

  afterEach(() => reaper.end());

  function run(
    example: string,
    ...words: string[]
  ): { child: ChildProcess; said: () => string; ended: Promise<number | null> } {
    const child = spawn(process.execPath, [join(buildRoot, 'examples', example), ...words], {
      env: { ...process.env, ...reaper.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    reaper.own(child);
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    }
    return { child, said: () => said, ended: new Promise((resolve) => child.once('close', resolve)) };
  }

  it('free-a-port.ts takes the port from who had it, and serves', async () => {
    const port = await freeLocalPort();
    const old = await startListener(reaper, { port }).ready;
    const { child, said, ended } = run('free-a-port.js', String(port));
    await until(() => said().includes('listening on'), { timeoutMs: 10_000 });
    expect(await fetchText(port), said()).to.equal('fresh\n');
    expect(said()).to.include(`killed ${old.pid}`);
    expect(isAlive(old.pid, old.startTicks)).to.equal(false);
    child.kill('SIGTERM');
    expect(await ended).to.equal(0);
  });

  it('testing.test.ts passes under the hooks of the kit, and is what docs/testing.md shows', async () => {
    const text = readFileSync(join(repoRoot, 'examples/testing.test.ts'), 'utf8');
    const shown = readFileSync(join(repoRoot, 'docs/testing.md'), 'utf8');
    expect(shown).to.include(`\`\`\`ts\n${text.slice(text.indexOf('import '))}\`\`\`\n`);
    expect(await runMocha('testing.test.js'))
      .to.include('3 passing')
      .and.not.include('failing');
  });

  it('database.test.ts passes under the hooks of the kit, and docs/testing.md shows a part of it', async function () {
    need(this, 'ssh');
    const text = readFileSync(join(repoRoot, 'examples/database.test.ts'), 'utf8');
    const shown = readFileSync(join(repoRoot, 'docs/testing.md'), 'utf8');
    const suite = text.slice(text.indexOf('describe('), text.indexOf('/** What is tested'));
    expect(shown).to.include(`${suite.trimEnd()}\n\`\`\`\n`);
    expect(await runMocha('database.test.js'))
      .to.include('3 passing')
      .and.not.include('failing');
  });

  it('failures.test.ts passes by node:test, and is what docs/testing.md shows', async () => {
    const text = readFileSync(join(repoRoot, 'examples/failures.test.ts'), 'utf8');
    const shown = readFileSync(join(repoRoot, 'docs/testing.md'), 'utf8');
    expect(shown).to.include(`\`\`\`js\n${text.slice(text.indexOf('import '))}\`\`\`\n`);
    const argv = ['--test', '--test-reporter=tap', join(buildRoot, 'examples/failures.test.js')];
    const env = { ...process.env, ...reaper.env };
    const { stdout } = await promisify(execFile)(process.execPath, argv, { cwd: repoRoot, env, timeout: 60_000 });
    expect(stdout).to.include('# pass 5').and.include('# fail 0');
  });

  /** To its end, to which it must come by itself: what it says. */
  async function runMocha(example: string): Promise<string> {
    const hooks = fileURLToPath(import.meta.resolve('tunward/testing/mocha'));
    const flags = ['--no-config', '--no-package', '--timeout', '20000', '--require', hooks];
    const argv = ['node_modules/mocha/bin/mocha.js', ...flags, join(buildRoot, 'examples', example)];
    const env = { ...process.env, ...reaper.env };
    return (await promisify(execFile)(process.execPath, argv, { cwd: repoRoot, env, timeout: 60_000 })).stdout;
  }

  it('express-app.ts shows its tunnels, restarts one, and takes them down when it ends', async function () {
    need(this, 'ssh');
    await using server = await startSshServer();
    await using service = await startService();
    const home = makeHome();
    const common = { remote_host: server.tunnelOptions.remoteHost, ssh_config: server.sshConfigFile };
    const port = await freeLocalPort();
    home.configure({}, [{ ...common, name: 'web', local_port: port, remote_port: `127.0.0.1:${service.port}` }]);
    const { child, said, ended } = run('express-app.js', home.configFile, '0');
    const address = await until(() => /listening on (\S+)/.exec(said())?.[1], { timeoutMs: 10_000 });
    const ask = async <T>(path: string, method = 'GET') => {
      const answer = await fetch(`${address}${path}`, { method });
      return { status: answer.status, body: (await answer.json()) as T };
    };
    const isUp = async () => (await ask<{ state: string }[]>('/tunnels')).body[0]?.state === 'up';
    expect(await until(isUp, { timeoutMs: 10_000 }), said()).to.equal(true);
    expect(await fetchText(port)).to.equal('served');
    expect((await ask('/tunnels/web/restart', 'POST')).body).to.include({ name: 'web', state: 'up' });
    expect((await ask('/tunnels')).body).to.deep.equal([{ name: 'web', state: 'up', reason: null, restarts: 1 }]);
    const unknown = await ask<{ code: string }>('/tunnels/nothing/restart', 'POST');
    expect([unknown.status, unknown.body.code]).to.deep.equal([404, 'ERR_TUNNEL_UNKNOWN']);
    child.kill('SIGTERM');
    expect(await ended, said()).to.equal(0);
    expect(reaper.living()).to.deep.equal([]);
    home.remove();
  });

  it('supervise-tunnels.ts brings the tunnels up, restarts them, and leaves nothing', async function () {
    need(this, 'ssh', 'sshd');
    await using sshd = await startSshd();
    const home = makeHome();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    home.configure({}, [
      { ...common, name: 'one', local_port: await freeLocalPort() },
      { ...common, name: 'two', local_port: await freeLocalPort() },
    ]);
    const { said, ended } = run('supervise-tunnels.js', home.configFile);
    expect(await ended, said()).to.equal(0);
    expect(said())
      .to.match(/one is up\none restarted: 1 killed/)
      .and.match(/two is up\ntwo restarted: 1 killed/);
    expect(reaper.living().filter(({ command }) => command.includes('ssh'))).to.deep.equal([]);
    home.remove();
  });

  it('answer-ssh.ts asks whoever started it, shows no secret, and is up until Ctrl-C', async function () {
    need(this, 'ssh', 'pty');
    await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')], known: false });
    const words = [server.host, String(server.port), server.sshConfigFile];
    const program = [process.execPath, join(buildRoot, 'examples/answer-ssh.js'), ...words];
    const terminal = runOnTerminal(reaper, program, { env: { SSH_AUTH_SOCK: undefined } });
    expect(await answer(terminal, /\(yes\/no\/\[fingerprint\]\)\? /, 'yes')).to.include(server.fingerprint());
    await answer(terminal, /Password: $/, 'secret');
    await answer(terminal, /One-time code: $/, '123456');
    const up = await question(terminal, /up: 127\.0\.0\.1:\d+ → localhost:\d+/);
    expect(up).not.to.match(/secret|123456/);
    terminal.type('\x03');
    expect(await terminal.ended).to.equal(0);
    expect(reaper.living()).to.deep.equal([]);
  });
});
