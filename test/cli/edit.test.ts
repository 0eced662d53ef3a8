import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { type FakeDaemon, tunnelRecord, useFakeDaemon } from './fake-daemon.js';
import { said, startTunward, tunward, tunwardJson } from './run.js';

describe('tunward add and rm', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  useFakeDaemon(reaper, (started) => {
    daemon = started;
    daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
    daemon.routes.set('POST /v1/tunnels', () => ({
      status: 201,
      body: tunnelRecord({ name: 'db', state: 'starting' }),
    }));
  });
  const run = (...args: string[]) => tunward(reaper, [...args, '--socket', daemon.socket], { cwd: '/tmp' });
  const changes = () => daemon.asked.filter((line) => !line.startsWith('GET'));

  describe('add', () => {
    it('writes what ssh would be told, in the keys of the file', async () => {
      const options = ['-i', 'key', '-p', '2222', '-o', 'ServerAliveInterval=5', '-J', 'a,b', '--engine', 'ssh'];
      const more = ['--group', 'x', '--group', 'y', '--disabled'];
      const { code, stdout } = await run('add', 'db', '-L', '5432:db.internal:5433', 'me@host', ...options, ...more);
      expect(code).to.equal(0);
      expect(stdout).to.equal('✔ db  starting, localhost:8001 → localhost:8000 via user@remote-host1\n');
      expect(JSON.parse(daemon.last.body)).to.deep.equal({
        name: 'db',
        direction: 'remote_to_local',
        remote_host: 'me@host',
        remote_port: 'db.internal:5433',
        local_port: '5432',
        identity_file: '/tmp/key',
        ssh_options: { Port: '2222', ServerAliveInterval: '5' },
        jump: 'a,b',
        engine: 'ssh',
        groups: ['x', 'y'],
        enabled: false,
      });
    });

    it('writes which engine keeps it, and that its clients are to notice no restart', async () => {
      await run('add', 'db', '-L', '5432:db.internal:5433', 'me@host', '--engine', 'embedded', '--seamless');
      expect(JSON.parse(daemon.last.body)).to.include({ engine: 'embedded', seamless: true });
    });

    it('turns a remote forward round where the daemon reads the directions the other way', async () => {
      await run('add', 'db', '-R', '127.0.0.1:80:localhost:3000', 'me@host');
      const expected = {
        name: 'db',
        remote_host: 'me@host',
        remote_port: '127.0.0.1:80',
        local_port: 'localhost:3000',
      };
      expect(JSON.parse(daemon.last.body)).to.deep.equal({ ...expected, direction: 'local_to_remote' });
      const other = tunnelRecord({ direction: 'local_to_remote' });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [other] } }));
      await run('add', 'db', '-R', '127.0.0.1:80:localhost:3000', 'me@host');
      expect(JSON.parse(daemon.last.body)).to.deep.equal({ ...expected, direction: 'remote_to_local' });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [] } }));
      daemon.routes.set('GET /v1/config', () => ({ body: { text: '# x\ndirection_mode: ssh-standard\n' } }));
      await run('add', 'db', '-R', '127.0.0.1:80:localhost:3000', 'me@host');
      expect(JSON.parse(daemon.last.body)).to.deep.equal({ ...expected, direction: 'remote_to_local' });
    });

    it('says it when the daemon has to wait with the start', async () => {
      daemon.routes.set('POST /v1/tunnels', () => ({ status: 202, body: { id: 'a'.repeat(32) } }));
      const { code, stdout } = await run('add', 'db', '-L', '1:a:2', 'me@host');
      expect([code, stdout]).to.deep.equal([
        0,
        '✔ db  is written (aaaaaaaa), and starts when what is on its way down is down\n',
      ]);
    });

    it('needs a name, a destination and one forward', async () => {
      expect((await run('add', 'db', 'me@host')).code).to.equal(2);
      expect((await run('add', 'db', '-L', '1:a:2')).code).to.equal(2);
      expect(daemon.asked).to.deep.equal([]);
    });

    it('says what the daemon refuses', async () => {
      const error = new TunwardError('ERR_CONFIG_UNWRITABLE', 'Cannot write /etc/tunward.yaml: EROFS', {});
      daemon.routes.set('POST /v1/tunnels', () => toProblem(error));
      const { code, stderr } = await run('add', 'db', '-L', '1:a:2', 'me@host');
      expect([code, stderr]).to.deep.equal([5, 'error: Cannot write /etc/tunward.yaml: EROFS\n']);
    });
  });

  describe('rm', () => {
    const id = '76692f8a1adb8d8bee5f3b29e1b42602';
    beforeEach(() => {
      daemon.routes.set('GET /v1/tunnels/web', () => ({ body: tunnelRecord() }));
      daemon.routes.set(`GET /v1/tunnels/${id}`, () => ({ body: tunnelRecord() }));
      daemon.routes.set(`DELETE /v1/tunnels/${id}`, () => ({ body: { id, name: 'web', down: true } }));
    });

    it('wants a yes, shows what would go, and does nothing without', async () => {
      const { code, stderr } = await run('rm', 'web');
      expect(code).to.equal(2);
      expect(stderr)
        .to.match(/76692f8a +web +up +localhost:8001/)
        .and.contain('remove web from the configuration: add --yes');
      expect(changes()).to.deep.equal([]);
    });

    it('removes it with one, once however it is named', async () => {
      const { code, stdout } = await run('rm', 'web', id, '--yes');
      expect([code, stdout]).to.deep.equal([0, '✔ web  is removed, and down\n']);
      expect(changes()).to.deep.equal([`DELETE /v1/tunnels/${id}`]);
    });

    it('removes none when one of them is not there', async () => {
      const { code, stderr } = await run('rm', 'web', 'db', '--yes');
      expect(code).to.not.equal(0);
      expect(stderr).to.match(/^error: /);
      expect(changes()).to.deep.equal([]);
    });

    it('goes on after one that fails', async () => {
      const other = 'b'.repeat(32);
      daemon.routes.set('GET /v1/tunnels/db', () => ({ body: tunnelRecord({ id: other, name: 'db' }) }));
      const error = new TunwardError('ERR_CONFIG_CHANGED', 'The file has been changed', {});
      daemon.routes.set(`DELETE /v1/tunnels/${other}`, () => toProblem(error));
      const { code, stdout, stderr } = await run('rm', 'db', 'web', '--yes');
      expect(code).to.equal(1);
      expect(stderr).to.equal('✖ db  The file has been changed\n');
      expect(stdout).to.equal('✔ web  is removed, and down\n');
    });
  });

  it('changes the file of a real daemon, with its comments kept', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-edit-'));
    const file = join(dir, 'tunward.yaml');
    try {
      writeFileSync(
        file,
        `# mine\nstate_dir: ${dir}/state\nlog_dir: ${dir}/log\napi: {socket: ${dir}/s}\ntunnels: # all\n`,
      );
      const up = startTunward(reaper, ['up', '-c', file], { env: { PATH: dir, HOME: dir } });
      await said(up, 'stderr', 'ready');
      const port = await freeLocalPort();
      const at = ['--socket', `${dir}/s`];
      const added = await tunwardJson(reaper, ['add', 'db', '-L', `127.0.0.1:${port}:db:1`, 'me@host', ...at]);
      expect(added).to.include({ name: 'db', remote_host: 'me@host', target: 'db:1' });
      expect(added.listen).to.deep.equal([{ side: 'local', host: '127.0.0.1', port }]);
      expect(readFileSync(file, 'utf8')).to.contain('# mine').and.contain('me@host');
      expect((await tunwardJson(reaper, ['config', 'get', ...at])).tunnels).to.have.length(1);
      const removed = await tunwardJson(reaper, ['rm', 'db', '--yes', ...at]);
      expect(removed).to.deep.equal({ tunnels: [{ id: added.id, name: 'db', down: true }] });
      expect(readFileSync(file, 'utf8')).to.contain('# mine').and.not.contain('me@host');
      expect((await tunwardJson(reaper, ['reload', ...at])).changes).to.deep.equal({
        added: [],
        removed: [],
        changed: [],
      });
    } finally {
      await reaper.end();
      rmSync(dir, { recursive: true });
    }
  });
});
