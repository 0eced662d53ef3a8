import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { findAddress } from '#lib/cli/address.js';
import { createClient } from '#lib/cli/client.js';
import type { Context } from '#lib/cli/context.js';
import { isTunwardError, TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { makeContext } from '../support/context.js';
import { freeLocalPort } from '../support/port.js';
import { type FakeDaemon, operationRecord, startFakeDaemon, tunnelRecord } from './fake-daemon.js';

describe('createClient()', () => {
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon();
  });
  afterEach(() => daemon.close());
  const client = (options = {}) => createClient({ socket: daemon.socket }, options);

  it('gives back camelCase, and asks for what it is told', async () => {
    daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
    const [tunnel] = await client().tunnels();
    expect(tunnel).to.include({ remoteHost: 'user@remote-host1', nextRetryAt: null });
    expect(daemon.asked).to.deep.equal(['GET /v1/tunnels']);
  });

  it('sends an operation as a POST of JSON, the name escaped', async () => {
    daemon.routes.set('POST /v1/tunnels/a%2Fb%20%C3%A9/restart', () => ({ body: operationRecord() }));
    const { phases } = await client().operate('restart', 'a/b é', { force: true });
    expect(phases).to.deep.equal({ stopMs: 6.1, freeMs: 1.2, startMs: 405 });
    expect(daemon.asked).to.deep.equal(['POST /v1/tunnels/a%2Fb%20%C3%A9/restart?force=true']);
    expect(daemon.last.headers['content-type']).to.equal('application/json');
    expect(daemon.last.body).to.equal('{}');
  });

  it('bears the token on TCP', async () => {
    const port = await freeLocalPort();
    const tcp = await startFakeDaemon({ host: '127.0.0.1', port });
    tcp.routes.set('GET /health', () => ({ body: { status: 'ok' } }));
    try {
      const answer = await createClient({ url: `http://127.0.0.1:${port}`, token: 'secret-token' }).health();
      expect(answer).to.deep.equal({ status: 'ok' });
      expect(tcp.last.headers.authorization).to.equal('Bearer secret-token');
    } finally {
      await tcp.close();
    }
  });

  it('throws what the daemon threw: its code, its sentence, its info', async () => {
    const info = { port: 8001, holders: [{ pid: 7, user: 'root', command: 'nc', ageS: 3 }], nextRetryAt: null };
    const thrown = new TunwardError('ERR_PORT_HELD', 'Port 8001 is held', info);
    daemon.routes.set('POST /v1/tunnels/web/start', () => toProblem(thrown));
    const error = await failure(client().operate('start', 'web'));
    expect(isTunwardError(error, 'ERR_PORT_HELD')).to.equal(true);
    expect(error).to.deep.include({ message: 'Port 8001 is held', info });
  });

  it('takes an answer without a code for a fault of the daemon, not for wrong usage', async () => {
    daemon.routes.set('GET /health', () => ({ status: 500, body: { detail: 'Error: boom' } }));
    const error = await failure(client().health());
    expect(isTunwardError(error)).to.equal(false);
    expect(error.message).to.contain('failed: Error: boom');
  });

  for (const [what, body] of Object.entries({ 'no JSON': '<html>', nothing: '' })) {
    it(`knows that who answers ${what} is no daemon`, async () => {
      daemon.routes.set('GET /health', () => ({ body }));
      const error = await failure(client().health());
      expect(error).to.include({ code: 'ERR_DAEMON_UNREACHABLE' });
      expect(error.message).to.contain('is no tunward daemon');
    });
  }

  it('says how to start a daemon that is not there: no socket, and one that nobody answers at', async () => {
    const missing = await failure(createClient({ socket: '/nonexistent/t.sock' }).health());
    expect(missing).to.include({ code: 'ERR_DAEMON_UNREACHABLE' });
    expect(missing.message).to.equal('No daemon answers at /nonexistent/t.sock: start it with tunward up');
    const port = await freeLocalPort();
    const refused = await failure(createClient({ url: `http://127.0.0.1:${port}`, token: 'x' }).health());
    expect(refused).to.include({ code: 'ERR_DAEMON_UNREACHABLE' });
  });

  it('gives up at its deadline', async () => {
    daemon.routes.set('GET /health', () => undefined);
    const error = await failure(client({ timeoutMs: 50 }).health());
    expect(error).to.deep.include({ code: 'ERR_TIMEOUT', info: { timeoutMs: 50 } });
    expect(error.message).to.contain(`${daemon.socket} did not answer within 50 ms`);
  });

  it('rejects with the reason of its signal', async () => {
    const interrupt = new AbortController();
    const reason = new Error('Ctrl-C');
    daemon.routes.set('GET /health', () => {
      interrupt.abort(reason);
      return undefined;
    });
    expect(await failure(client({ signal: interrupt.signal }).health())).to.equal(reason);
  });

  for (const way of ['a unix socket', 'TCP']) {
    it(`says of one that hangs up on everybody, by ${way}, that it is there`, async () => {
      const dir = mkdtempSync(join(tmpdir(), 'tunward-full-'));
      const full = net.createServer((socket) => socket.destroy());
      const path = join(dir, 't.sock');
      full.listen(way === 'TCP' ? { host: '127.0.0.1', port: 0 } : { path });
      await once(full, 'listening');
      const { port } = full.address() as net.AddressInfo;
      const address = way === 'TCP' ? { url: `http://127.0.0.1:${port}`, token: 'x' } : { socket: path };
      const error = await failure(createClient(address).health());
      full.close();
      rmSync(dir, { recursive: true });
      expect(error).to.deep.include({ code: 'ERR_DAEMON_UNREACHABLE', info: { hangsUp: true } });
      expect(error.message).to.contain(' is there, and hangs up on whoever asks: it has no descriptor left');
    });
  }

  it('says that the daemon went away when it ends in the middle of an answer', async () => {
    daemon.routes.set('GET /health', () => {
      void daemon.close();
      return undefined;
    });
    const error = await failure(client().health());
    expect(error).to.include({ code: 'ERR_DAEMON_UNREACHABLE' });
    expect(error.message).to.contain('went away before it answered');
  });
});

describe('findAddress()', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-address-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const write = (name: string, text: string) => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };
  const context = (env: NodeJS.ProcessEnv = {}): Context =>
    makeContext({ env: { HOME: dir, XDG_CONFIG_HOME: join(dir, 'none'), ...env }, cwd: dir });

  it('takes --socket first, then $TUNWARD_SOCKET, then the configuration', async () => {
    write('tunward.yaml', 'api: { socket: /run/c.sock }\ntunnels: []\n');
    const env = { TUNWARD_SOCKET: '/run/b.sock' };
    expect(await findAddress({ socket: 'a.sock' }, context(env))).to.deep.equal({ socket: join(dir, 'a.sock') });
    expect(await findAddress({}, context(env))).to.deep.equal({ socket: '/run/b.sock' });
    expect(await findAddress({}, context())).to.deep.equal({ socket: '/run/c.sock' });
  });

  it('believes a configuration that was named more than the environment', async () => {
    const config = write('other.yaml', 'api: { socket: /run/d.sock }\ntunnels: []\n');
    const env = { TUNWARD_SOCKET: '/run/b.sock' };
    expect(await findAddress({ config }, context(env))).to.deep.equal({ socket: '/run/d.sock' });
  });

  it('goes to the default without a configuration, and past one that is wrong', async () => {
    const found = await findAddress({}, context({ XDG_RUNTIME_DIR: dir }));
    expect(found).to.deep.equal({
      socket: process.getuid?.() === 0 ? '/run/tunward/tunward.sock' : join(dir, 'tunward.sock'),
    });
    write('tunward.yaml', 'api: 3\n');
    expect(await findAddress({}, context({ XDG_RUNTIME_DIR: dir }))).to.deep.equal(found);
  });

  it('reads what takes a parser, as the daemon does', async () => {
    const config = write('home.yaml', 'api:\n  socket: ~/a.sock\ntunnels: []\n');
    expect(await findAddress({ config }, context())).to.deep.equal({ socket: join(dir, 'a.sock') });
  });

  it('finds a daemon that runs by a configuration whose tunnels have become wrong meanwhile', async () => {
    const config = write('half.yaml', 'api: { socket: /run/d.sock }\ntunnels: 3\n');
    expect(await findAddress({ config }, context())).to.deep.equal({ socket: '/run/d.sock' });
  });

  it('refuses a wrong configuration that was named', async () => {
    const config = write('wrong.yaml', 'api: 3\n');
    expect(await failure(findAddress({ config }, context()))).to.include({ code: 'ERR_CONFIG_INVALID' });
    const missing = join(dir, 'nothing.yaml');
    expect(await failure(findAddress({ config: missing }, context()))).to.include({ code: 'ERR_CONFIG_INVALID' });
  });

  it('reads the token for TCP from the file that is named, and says when there is none', async () => {
    const tokenFile = write('token', '# comment with blanks\n  tok3n-of-8-or-more  \n');
    const url = 'http://127.0.0.1:7420';
    const env = { TUNWARD_SOCKET: url, TUNWARD_TOKEN_FILE: tokenFile };
    expect(await findAddress({}, context(env))).to.deep.equal({ url, token: 'tok3n-of-8-or-more' });
    expect(await failure(findAddress({ socket: url }, context()))).to.include({ code: 'ERR_UNAUTHORIZED' });
    const empty = { TUNWARD_TOKEN_FILE: write('empty', '\n') };
    expect(await failure(findAddress({ socket: url }, context(empty)))).to.include({ code: 'ERR_UNAUTHORIZED' });
    const missing = { TUNWARD_TOKEN_FILE: join(dir, 'nothing') };
    expect(await failure(findAddress({ socket: url }, context(missing)))).to.include({ code: 'ERR_UNAUTHORIZED' });
  });
});

/** The error that a promise rejects with. */
async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
  throw new Error('it did not fail');
}
