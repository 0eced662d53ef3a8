import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createConfigSchema } from '#lib/daemon/json-schema.js';
import { TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { createReaper } from '../support/reaper.js';
import { type FakeDaemon, useFakeDaemon } from './fake-daemon.js';
import { tunward, tunwardJson } from './run.js';

describe('tunward and the configuration of its daemon', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  useFakeDaemon(reaper, (started) => {
    daemon = started;
  });
  const run = (...args: string[]) => tunward(reaper, [...args, '--socket', daemon.socket]);

  describe('config schema', () => {
    it('prints the JSON Schema, the same with --json', async () => {
      const { code, stdout, stderr } = await tunward(reaper, ['config', 'schema']);
      expect([code, stderr]).to.deep.equal([0, '']);
      expect(JSON.parse(stdout)).to.include({
        $schema: 'http://json-schema.org/draft-07/schema#',
        title: 'tunward.yaml',
      });
      expect((await tunward(reaper, ['config', 'schema', '--json'])).stdout).to.equal(stdout);
    });
  });

  describe('config show', () => {
    let dir: string;
    beforeEach(() => {
      dir = mkdtempSync(join(tmpdir(), 'tunward-show-'));
    });
    afterEach(() => rmSync(dir, { recursive: true }));
    const text =
      '# mine\nengine: ssh\nbackoff: {min_ms: 5}\napi:\n  socket: run/s\n  compat: true\nlog:\n  keep: 2\ntunnels:\n';

    async function show(env: Record<string, string> = {}): Promise<Map<string, unknown[]>> {
      writeFileSync(join(dir, 'tunward.yaml'), text);
      const { settings } = await tunwardJson(reaper, ['config', 'show'], { cwd: dir, env: { HOME: dir, ...env } });
      return new Map(settings.map((one: Record<string, unknown>) => [one.key, [one.value, one.origin, one.where]]));
    }

    it('has what the file says, with its line, and what is completed', async () => {
      const settings = await show();
      expect(settings.get('engine')).to.deep.equal(['ssh', 'file', 'line 2']);
      expect(settings.get('backoff')).to.deep.equal([
        { min_ms: 5, max_ms: 60_000, stable_ms: 30_000 },
        'file',
        'line 3',
      ]);
      expect(settings.get('api.socket')).to.deep.equal([join(dir, 'run/s'), 'file', 'line 5']);
      expect(settings.get('log.keep')).to.deep.equal([2, 'file', 'line 8']);
      expect(settings.get('log.max_bytes')).to.deep.equal([1_048_576, 'default', null]);
      expect(settings.get('takeover')).to.deep.equal(['tunnels', 'default', null]);
    });

    it('has what the environment says, and by which name', async () => {
      const own = await show({ TUNWARD_TAKEOVER: 'any', API_PORT: '9000' });
      expect(own.get('takeover')).to.deep.equal(['any', 'environment', '$TUNWARD_TAKEOVER']);
      expect(own.get('api.listen'), 'anybody’s').to.deep.equal(['off', 'default', null]);
      const env = {
        AUTOSSH_CONFIG_FILE: join(dir, 'tunward.yaml'),
        API_PORT: '9000',
        TUNNEL_DIRECTION_MODE: 'ssh-standard',
      };
      const ancestors = await show(env);
      expect(ancestors.get('api.listen')).to.deep.equal(['127.0.0.1:9000', 'environment', '$API_PORT']);
      expect(ancestors.get('direction_mode')).to.deep.equal(['ssh-standard', 'environment', '$TUNNEL_DIRECTION_MODE']);
    });

    it('leaves out no key that there is', async () => {
      const settings = await show();
      const { properties } = createConfigSchema() as { properties: Record<string, { properties?: object }> };
      const keys = Object.entries(properties).flatMap(([key, { properties: inner }]) =>
        inner && ['log', 'api', 'start'].includes(key) ? Object.keys(inner).map((name) => `${key}.${name}`) : [key],
      );
      // What a check, an own ssh_config and a key are is nothing until somebody says it.
      expect([...settings.keys()]).to.include.members(keys);
    });

    it('is a table, with the origins when they are wanted', async () => {
      writeFileSync(join(dir, 'tunward.yaml'), text);
      const options = { cwd: dir, env: { HOME: dir } };
      const { stdout, stderr } = await tunward(reaper, ['config', 'show', '--origin'], options);
      expect(stdout)
        .to.match(/^KEY +VALUE +ORIGIN\n/)
        .and.match(/^engine +ssh +line 2$/m)
        .and.match(/^reload +auto +default$/m);
      expect(stderr).to.equal(`${join(dir, 'tunward.yaml')}, by its place\n`);
      expect((await tunward(reaper, ['config', 'show'], options)).stdout).to.match(/^engine +ssh$/m);
    });
  });

  describe('config get', () => {
    const config = {
      file: '/etc/tunward/tunward.yaml',
      etag: '"abc"',
      text: '# \u001b[2Jmine\ntunnels: []\n',
      tunnels: [],
      warnings: ['careful'],
    };

    it('prints the file, and beside it where it is', async () => {
      daemon.routes.set('GET /v1/config', () => ({ body: config }));
      const { code, stdout, stderr } = await run('config', 'get');
      expect(code).to.equal(0);
      expect(stdout).to.equal('# ?[2Jmine\ntunnels: []\n');
      expect(stderr).to.equal('/etc/tunward/tunward.yaml, ETag "abc"\nwarning: careful\n');
    });

    it('has it all with --json', async () => {
      daemon.routes.set('GET /v1/config', () => ({ body: config }));
      expect(await tunwardJson(reaper, ['config', 'get', '--socket', daemon.socket])).to.deep.equal(config);
    });
  });

  describe('reload', () => {
    it('says what became of the tunnels', async () => {
      const changes = {
        added: [{ id: 'a'.repeat(32), name: 'web' }],
        removed: [],
        changed: [{ id: 'b'.repeat(32), name: 'unnamed' }],
      };
      daemon.routes.set('POST /v1/config/reload', () => ({ body: { changes, warnings: [] } }));
      const { code, stdout } = await run('reload');
      expect(code).to.equal(0);
      expect(stdout).to.equal('✔ read again: added web; changed bbbbbbbb\n');
      expect(await tunwardJson(reaper, ['reload', '--socket', daemon.socket])).to.deep.equal({ changes, warnings: [] });
    });

    it('ends with 78 and the places when the file is wrong', async () => {
      const problem = { file: '/t.yaml', line: 3, column: 5, path: 'engine', message: 'expected ssh' };
      const error = new TunwardError('ERR_CONFIG_INVALID', '/t.yaml:3:5: engine: expected ssh', {
        problems: [problem],
      });
      daemon.routes.set('POST /v1/config/reload', () => toProblem(error));
      const { code, stderr } = await run('reload');
      expect([code, stderr]).to.deep.equal([78, '/t.yaml:3:5: engine: expected ssh\n']);
    });
  });

  it('shows its commands, and knows one that was mistyped', async () => {
    const { stdout } = await tunward(reaper, ['config', '--help']);
    expect(stdout)
      .to.match(/^ {2}schema /m)
      .and.match(/^ {2}get /m);
    const { code, stderr } = await tunward(reaper, ['config', 'shema']);
    expect(code).to.equal(2);
    expect(stderr).to.contain('Did you mean schema?');
  });
});
