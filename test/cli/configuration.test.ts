import { expect } from 'chai';
import { TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { createReaper } from '../support/reaper.js';
import { type FakeDaemon, startFakeDaemon } from './fake-daemon.js';
import { tunward, tunwardJson } from './run.js';

describe('tunward and the configuration of its daemon', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon();
  });
  afterEach(async () => {
    await reaper.end();
    await daemon.close();
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
