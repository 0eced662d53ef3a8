import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { makeHome, type RunningDaemon, startUp } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';

/** The configuration of a running daemon on disks that refuse what is written to them. */
describe('a tunnel by the API, where the disk has something against it', () => {
  const reaper = createReaper();
  const home = makeHome();
  const folder = join(home.dir, 'etc');
  const file = join(folder, 'tunward.yaml');
  let daemon: RunningDaemon;
  let text: string;

  before(async function () {
    need(this, 'root');
    mkdirSync(folder);
    mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder);
    const common = { remote_host: '127.0.0.1', ssh_options: { Port: '1' }, remote_port: 80 };
    home.configure({}, [{ ...common, name: 'first', local_port: await freeLocalPort(), enabled: false }]);
    text = readFileSync(home.configFile, 'utf8');
    writeFileSync(file, text);
    daemon = await startUp(reaper, { ...home, configFile: file });
  });

  afterEach(async () => {
    expect(readFileSync(file, 'utf8'), 'nothing is changed').to.equal(text);
    const { status, body } = await home.api('GET', '/v1/tunnels');
    expect([status, body.tunnels.length], 'the daemon goes on').to.deep.equal([200, 1]);
  });

  after(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    execFileSync('umount', [folder]);
    home.remove();
    expect(code).to.equal(0);
  });

  it('is 507 on a full one, with the cause', async () => {
    const filler = join(dirname(file), 'filler');
    for (let kib = 64; kib > 0; kib--) fill(filler, kib);
    const { status, body } = await add();
    expect([status, body.code], body.detail).to.deep.equal([507, 'ERR_NO_SPACE']);
    expect(body.detail).to.include(file).and.include('ENOSPC');
    rmSync(filler);
  });

  it('is 500 on one that became read-only, with the cause', async () => {
    mount('-o', 'remount,ro', folder);
    const { status, body } = await add();
    expect([status, body.code], body.detail).to.deep.equal([500, 'ERR_CONFIG_UNWRITABLE']);
    expect(body.detail).to.include(file).and.include('EROFS');
    mount('-o', 'remount,rw', folder);
  });

  it('is there when the disk takes it again', async () => {
    const { status, body } = await add();
    expect([status, body.name]).to.deep.equal([201, 'second']);
    expect(readFileSync(file, 'utf8')).to.include('"second"');
    expect((await request('DELETE', '/v1/tunnels/second')).status).to.equal(200);
    text = readFileSync(file, 'utf8');
  });

  function fill(filler: string, kib: number): void {
    try {
      writeFileSync(filler, 'x'.repeat(1024 * kib), { flag: 'a' });
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).to.equal('ENOSPC');
    }
    expect(statSync(filler).size).to.be.greaterThan(0);
  }

  async function add() {
    const tunnel = { name: 'second', remote_host: '127.0.0.1', remote_port: '80', enabled: false };
    return request('POST', '/v1/tunnels', { ...tunnel, local_port: String(await freeLocalPort()) });
  }

  function request(method: string, path: string, body?: unknown) {
    // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
    return new Promise<{ status: number; body: any }>((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const asked = http.request({ socketPath: home.socket, method, path, headers, agent: false });
      asked.on('error', reject).on('response', (answer) => {
        let said = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => {
          said += chunk;
        });
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(said) }));
      });
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
});

function mount(...args: readonly string[]): void {
  execFileSync('mount', args);
}
