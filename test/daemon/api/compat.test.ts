import http from 'node:http';
import { expect } from 'chai';
import { compatRoutes } from '#lib/daemon/api/compat.js';
import type { Operations } from '#lib/daemon/api/operations.js';
import { type Daemon, startDaemon } from '#lib/daemon/daemon.js';
import type { TunnelLogs } from '#lib/daemon/log.js';
import { makeHome } from '../../support/daemon.js';
import { need } from '../../support/need.js';
import { freeLocalPort } from '../../support/port.js';
import { type Sshd, startSshd } from '../../support/sshd.js';

/** The requests that scripts of the ancestor's users make, with the answers that they take apart. */
describe('the routes of autossh-tunnel-dockerized', () => {
  const home = makeHome();
  const key = 'a-key-of-the-ancestor';
  let sshd: Sshd;
  let daemon: Daemon;
  let ids: Record<string, string>;
  let local: number;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    local = await freeLocalPort();
    home.configure({ api: { socket: home.socket, compat: true } }, [
      { name: 'web', remote_host: 'rig', ssh_config: sshd.sshConfigFile, local_port: local, remote_port: 8000 },
      { name: 'dead end', remote_host: '127.0.0.1', ssh_options: { Port: '1' }, local_port: 1, remote_port: 'h:80' },
      { name: 'jump', remote_host: 'rig', local_port: '2222', remote_port: '22', interactive: 'true' },
    ]);
    const apiPort = String(await freeLocalPort());
    const env = { ...process.env, AUTOSSH_CONFIG_FILE: home.configFile, API_PORT: apiPort, API_KEY: key };
    daemon = await startDaemon({ env });
    ids = Object.fromEntries(daemon.supervisor.specs().map(({ name, id }) => [name, id]));
    await daemon.supervisor.start('web');
    await daemon.supervisor.start('dead end').catch(() => undefined); // fails, as it is to
  });

  after(async () => {
    await daemon?.close();
    await sshd?.stop();
    home.remove();
  });

  function call(method: string, path: string, headers: http.OutgoingHttpHeaders = { authorization: `Bearer ${key}` }) {
    // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
    return new Promise<{ status: number; type: string; body: any }>((resolve, reject) => {
      const request = http.request(new URL(path, daemon.address.url ?? ''), { method, headers, agent: false });
      request.on('error', reject).on('response', (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        const type = answer.headers['content-type'] ?? '';
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, type, body: JSON.parse(text) }));
      });
      request.end();
    });
  }

  it('GET /list', async () => {
    const { status, body } = await call('GET', '/list');
    expect(status).to.equal(200);
    expect(body).to.deep.equal(
      [
        ...[{ name: 'web', status: 'NORMAL', local_port: `${local}`, remote_host: 'rig', remote_port: '8000' }],
        { name: 'dead end', status: 'NORMAL', local_port: '1', remote_host: '127.0.0.1', remote_port: 'h:80' },
        { name: 'jump', status: 'INTERACTIVE', local_port: '2222', remote_host: 'rig', remote_port: '22' },
      ].map((tunnel) => ({ ...tunnel, hash: ids[tunnel.name] })),
    );
  });

  it('GET /status, with results that are true', async () => {
    const { body } = await call('GET', '/status');
    expect(body.map(({ name, status }: { name: string; status: string }) => `${name}: ${status}`)).to.deep.equal([
      'web: RUNNING',
      'dead end: STARTING',
      'jump: INTERACTIVE',
    ]);
    for (const tunnel of body) {
      expect(tunnel).to.have.all.keys('name', 'status', 'local_port', 'remote_host', 'remote_port', 'hash');
    }
  });

  it('POST /stop/{h} and /start/{h}, by a prefix of eight digits as well', async () => {
    const prefix = ids.web?.slice(0, 8) ?? '';
    const stopped = await call('POST', `/stop/${prefix}`);
    expect(stopped).to.deep.include({ status: 200, type: 'application/json' });
    expect(stopped.body).to.deep.equal({
      status: 'success',
      tunnel_hash: prefix,
      output: `web (${ids.web}): stopped`,
    });
    expect(daemon.supervisor.status('web').state).to.equal('stopped');
    const started = await call('POST', `/start/${ids.web}`);
    expect(started.body).to.include({ status: 'success', tunnel_hash: ids.web });
    expect(daemon.supervisor.status('web').state).to.equal('up');
  });

  it('POST /start/{h} of one that cannot start fails, where the ancestor said success', async () => {
    const { status, body } = await call('POST', `/start/${ids['dead end']}`);
    expect(status).to.equal(502);
    expect(body.error).to.match(/^Tunnel dead end \(\w+\) could not be started: refused/);
  });

  it('POST /restart/{id}', async () => {
    const { status, body } = await call('POST', `/restart/${ids.web}`);
    expect([status, body.success, body.log_id]).to.deep.equal([200, true, ids.web]);
    expect(body.message).to.match(/^Tunnel web restarted in [\d.]+ ms$/);
    const unknown = await call('POST', '/restart/00000000');
    expect([unknown.status, unknown.body]).to.deep.equal([404, { success: false, error: 'Tunnel not found' }]);
  });

  it('POST /stop and /start, of all that are to be up', async () => {
    const stopped = await call('POST', '/stop');
    expect(stopped.status).to.equal(200);
    expect(stopped.body.status).to.equal('success');
    expect(stopped.body.output).to.include(`web (${ids.web}): stopped`);
    const started = await call('POST', '/start');
    expect(started.status).to.equal(502);
    expect(started.body.status).to.equal('error');
    expect(started.body.output)
      .to.include(`web (${ids.web}): started`)
      .and.match(/^dead end .*: Tunnel dead end/m);
  });

  it('GET /logs and /logs/{h}', async () => {
    const all = await call('GET', '/logs');
    const web = all.body.find(({ hash }: { hash: string }) => hash === ids.web);
    expect(web).to.have.all.keys('hash', 'filename', 'size', 'modified');
    expect(web).to.include({ filename: `tunnel_${ids.web}.log` });
    const one = await call('GET', `/logs/${ids.web}`);
    expect(one.body).to.include({ status: 'success', tunnel_hash: ids.web });
    expect(one.body.log).to.match(/Starting tunnel \(remote to local\)/);
  });

  it('GET /health', async () => {
    const { status, body } = await call('GET', '/health', {});
    expect([status, body.status]).to.deep.equal([200, 'ok']);
  });

  it('POST /start answers also when not all of them are over, and says which', async () => {
    const parts = [
      { id: 'a', name: 'quick', state: 'done' },
      { id: 'b', name: 'slow', state: 'waiting' },
    ];
    const operations = { begin: () => ({ tunnels: parts }), wait: async () => undefined } as unknown as Operations;
    const rows = compatRoutes({ supervisor: daemon.supervisor, logs: {} as TunnelLogs, operations });
    const row = rows.find(({ path }) => path === '/start');
    const incoming = { headers: {} } as http.IncomingMessage;
    const answer = await row?.handle({ params: {}, query: {}, body: undefined, access: null, incoming });
    expect(answer).to.deep.include({
      status: 504,
      body: { status: 'error', output: 'quick (a): started\nslow (b): not over yet' },
    });
  });

  it('fails in its words', async () => {
    const said = async (method: string, path: string, headers?: http.OutgoingHttpHeaders) => {
      const { status, body } = await call(method, path, headers);
      return [status, body];
    };
    expect(await said('GET', '/list', {})).to.deep.equal([
      401,
      { error: 'Unauthorized', message: 'Valid Bearer token required' },
    ]);
    expect(await said('POST', '/list')).to.deep.equal([405, { error: 'Method not allowed' }]);
    expect(await said('GET', '/logs/1234567')).to.deep.equal([
      400,
      { error: 'Hash prefix too short (minimum 8 characters, got 7)' },
    ]);
    expect(await said('GET', '/logs/00000000')).to.deep.equal([
      404,
      { error: 'No tunnel found with hash prefix: 00000000' },
    ]);
  });
});
