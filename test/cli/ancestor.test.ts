/** What the history of autossh-tunnel-dockerized had to mend, as far as it is about names, empty files and what is said. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { startFakeDaemon } from './fake-daemon.js';
import { type Running, said, startTunward, tunward, tunwardJson } from './run.js';

describe('what the ancestor had to mend', () => {
  const reaper = createReaper();
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-ancestor-'));
    file = join(dir, 'config.yaml');
  });
  afterEach(async () => {
    await reaper.end();
    rmSync(dir, { recursive: true });
  });

  // Without an ssh: what is shown here is none of its business.
  const options = () => ({
    cwd: dir,
    env: { AUTOSSH_CONFIG_FILE: file, XDG_STATE_HOME: dir, XDG_RUNTIME_DIR: dir, HOME: dir, PATH: dir },
  });
  const run = (...args: string[]) => tunward(reaper, withSocket(args), options());
  const runJson = (...args: string[]) => tunwardJson(reaper, withSocket(args), options());
  /** Root's socket is the system's, unless it is named. */
  const withSocket = (args: string[]) => (args[0] === 'validate' ? args : [...args, '--socket', join(dir, 's')]);
  async function up(config: string): Promise<Running> {
    const folders = `state_dir: ${dir}/state\nlog_dir: ${dir}/log\napi: {socket: ${dir}/s}\n`;
    writeFileSync(file, `${folders}${config}`);
    const running = startTunward(reaper, ['up'], options());
    await said(running, 'stderr', 'ready');
    return running;
  }

  describe('a name with blanks', () => {
    const name = '  my web  tunnel: "prod", 100 % # 1 ';

    it('is one name in every list, and is found by it', async () => {
      const port = await freeLocalPort();
      const tunnel = {
        name,
        remote_host: 'me@host',
        remote_port: '80',
        local_port: `127.0.0.1:${port}`,
        engine: 'ssh',
      };
      await up(`tunnels:\n  - ${JSON.stringify(tunnel)}\n`);
      const { tunnels } = (await runJson('ls')) as { tunnels: TunnelStatus[] };
      expect(tunnels.map((each) => [each.name, each.listen[0]?.port])).to.deep.equal([[name, port]]);
      const { stdout } = await run('ls');
      expect(stdout).to.contain(`${name}  `).and.contain(`127.0.0.1:${port}`);
      const hasFailed = async () => (await runJson('ls')).tunnels[0].last_error !== null;
      expect(await until(hasFailed, { timeoutMs: 10_000, everyMs: 50 })).to.equal(true);
      expect((await run('stop', name)).stdout).to.contain(`✔ ${name}  stopped in`);
      expect((await run('logs', name)).stdout).to.contain('Cannot find ssh on PATH');
      expect((await run('stop', name.trim())).code, 'and by no other').to.equal(4);
    });
  });

  for (const [what, config] of Object.entries({
    nothing: '',
    'an empty list': 'tunnels:\n',
    'no tunnel': 'tunnels: []\n',
  })) {
    it(`a file with ${what} in it is JSON all the same, and the daemon runs`, async () => {
      const running = await up(config);
      expect(await runJson('ls')).to.deep.equal({ tunnels: [] });
      expect(await runJson('validate', '-c', file)).to.deep.include({ ok: true, tunnels: [], problems: [] });
      expect(await runJson('health')).to.include({ status: 'ok' });
      running.child.kill('SIGTERM');
      expect((await running.ended).code).to.equal(0);
    });
  }

  describe('an API that fails', () => {
    const replies = {
      'answers 500': { status: 500, body: { detail: 'disk full' }, says: 'disk full' },
      'answers 401': { status: 401, body: { code: 'ERR_UNAUTHORIZED', detail: 'Bear a token' }, says: 'Bear a token' },
      'answers no JSON': { status: 502, body: '<html>Bad gateway</html>', says: 'daemon' },
      'goes away': undefined,
    };
    for (const [what, reply] of Object.entries(replies)) {
      it(`and ${what} is an error, and no tunnel that is stopped`, async () => {
        const daemon = await startFakeDaemon();
        try {
          daemon.routes.set('GET /v1/tunnels', () => {
            if (!reply) void daemon.close();
            return reply;
          });
          const { code, stdout, stderr } = await tunward(reaper, ['ls', '--socket', daemon.socket]);
          expect(code).to.be.oneOf([1, 5, 75]);
          expect(stdout).to.equal('');
          expect(stderr)
            .to.match(/^error: /)
            .and.not.match(/stopped|down\b/i);
        } finally {
          if (reply) await daemon.close();
        }
      });
    }
  });
});
