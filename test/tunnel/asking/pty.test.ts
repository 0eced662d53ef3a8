import { execFileSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { PassThrough, Writable } from 'node:stream';
import { expect } from 'chai';
import { type Clock, systemClock, until } from '#lib/time.js';
import { joinTerminal } from '#lib/tunnel/asking/pty.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createSupervisor, type Supervisor, type SupervisorEvent } from '#lib/tunnel/supervisor.js';
import { startAsking } from '../../support/asking.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { need } from '../../support/need.js';
import { createTestTerminal } from '../../support/person.js';
import { freeLocalPort } from '../../support/port.js';
import { isAlive } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { makeSpec } from '../../support/specs.js';
import { type Sshd, startSshd } from '../../support/sshd.js';

const PASSPHRASE = 'correct horse battery';

describe('a tunnel that asks, on a pseudo-terminal', function () {
  this.timeout(60_000);
  let sshd: Sshd;
  let reaper: Reaper;
  let supervisor: Supervisor;
  let spec: TunnelSpec;
  let events: SupervisorEvent[];

  before(async function () {
    need(this, 'sshd', 'pty');
    sshd = await startSshd();
    execFileSync('ssh-keygen', ['-q', '-p', '-N', PASSPHRASE, '-P', '', '-f', sshd.identityFile]);
  });
  after(() => sshd?.stop());
  beforeEach(async () => {
    reaper = createReaper();
    events = [];
    spec = makeSpec({
      ...{ side: 'local', interactive: true, remoteHost: sshd.host, sshConfig: sshd.sshConfigFile },
      listen: { host: '127.0.0.1', port: await freeLocalPort() },
    });
    const env = { ...process.env, ...reaper.env, SSH_AUTH_SOCK: undefined };
    supervisor = createSupervisor({ env, publish: (event) => events.push(event) });
    await supervisor.reconcile([spec]);
  });
  afterEach(async () => {
    await supervisor.close();
    expect(await reaper.end()).to.deep.equal([]);
  });

  const types = () => events.map(({ type }) => type).filter((type) => type !== 'tunnel.output');

  it('waits for a person, and says so', async () => {
    const { state, reason, interactive } = supervisor.status(spec.id);
    expect({ state, reason, interactive }).to.deep.equal({ state: 'stopped', reason: 'needs_auth', interactive: true });
    expect(types()).to.deep.equal(['tunnel.needs_auth']);
    const refusal = await supervisor.start(spec.id).catch((error: unknown) => error);
    expect(refusal).to.have.property('code', 'ERR_TUNNEL_CONFLICT');
    expect(String(refusal)).to.include('tunward auth web');
  });

  it('comes up when the passphrase was typed, and hangs on nobody then', async () => {
    const screen = createTestTerminal();
    const opened: string[] = [];
    const login = supervisor.authenticate(spec.id, screen, { onOpen: (via) => opened.push(via) });
    await screen.answer(/Enter passphrase for key/, `${PASSPHRASE}\r`);
    const { state, tunnel } = await login;
    expect([state, ...opened]).to.deep.equal(['up', 'pty']);
    expect(screen.drawn()).not.to.include(PASSPHRASE);
    const [helper, ssh] = tunnel.chain;
    expect(helper?.command).to.include('pty-process.js');
    expect(ssh?.command).to.match(/ssh -N -T/);
    // The master of the terminal is the helper's alone.
    expect([mastersOf(helper?.pid), mastersOf(ssh?.pid), mastersOf(process.pid)]).to.deep.equal([1, 0, 0]);
    const before = screen.drawn();
    await screen.type('too late\r');
    expect(screen.drawn()).to.equal(before);
    expect(supervisor.status(spec.id).state).to.equal('up');
  });

  it('says that a wrong one was no use, and is not tried again', async () => {
    const screen = createTestTerminal();
    const login = supervisor.authenticate(spec.id, screen).catch((error: unknown) => error);
    for (let attempt = 0; attempt < 3; attempt++) await screen.answer(/Enter passphrase for key/, 'wrong\r');
    const error = await login;
    expect(error).to.have.property('code', 'ERR_START_FAILED');
    const { state, reason, desired, nextRetryAt } = supervisor.status(spec.id);
    expect({ state, reason, desired, nextRetryAt }).to.deep.equal({
      ...{ state: 'stopped', reason: 'auth_failed', desired: 'down', nextRetryAt: null },
    });
    await screen.display.all();
    expect(screen.drawn()).to.include('Permission denied');
  });

  it('does not show what is typed before anything is asked', async () => {
    await using server = await startAsking({ held: true });
    const other = { ...spec, id: `${spec.id.slice(1)}0`, remoteHost: server.host, sshConfig: server.sshConfigFile };
    await supervisor.reconcile([other]);
    const screen = createTestTerminal();
    const login = supervisor.authenticate(other.id, screen);
    await until(() => server.connections() > 0, { timeoutMs: 15_000 });
    await screen.type('secret\r');
    server.release();
    await screen.answer(/password: /, 'secret\r');
    await login;
    expect(screen.drawn()).not.to.include('secret');
  });

  it('takes a Ctrl-\\ for a Ctrl-C: ssh is to dump nothing of what was typed', async () => {
    const screen = createTestTerminal();
    const login = supervisor.authenticate(spec.id, screen).catch((error: unknown) => error);
    await screen.answer(/Enter passphrase for key/, 'half of i\x1c');
    expect(await login).to.have.property('code', 'ERR_START_FAILED');
    const { reason, lastError } = supervisor.status(spec.id);
    expect({ reason, lastError }).to.deep.equal({ reason: 'needs_auth', lastError: 'given up at the prompt' });
  });

  it('is gone within a second when the person is', async () => {
    const screen = createTestTerminal();
    const presence = new AbortController();
    const login = supervisor
      .authenticate(spec.id, screen, { signal: presence.signal })
      .catch((error: unknown) => error);
    await screen.answer(/Enter passphrase for key/, 'half of i');
    const { chain } = supervisor.status(spec.id);
    expect(chain).to.have.length(2);
    const gone = new Error('the window was closed');
    presence.abort(gone);
    expect(await login).to.equal(gone);
    const isGone = () => chain.every(({ pid, startTicks }) => !isAlive(pid, startTicks));
    expect(await until(isGone, { timeoutMs: 1000 })).to.equal(true);
    await until(() => supervisor.status(spec.id).state === 'stopped', { timeoutMs: 1000 });
    expect(supervisor.status(spec.id)).to.include({ state: 'stopped', reason: 'needs_auth' });
  });

  it('is one person’s at a time', async () => {
    const presence = new AbortController();
    const screens = [createTestTerminal(), createTestTerminal(), createTestTerminal()];
    const logins = screens.map((screen) =>
      supervisor.authenticate(spec.id, screen, { signal: presence.signal }).catch((error: unknown) => error),
    );
    await screens[0]?.answer(/Enter passphrase for key/, '');
    for (const refused of await Promise.all(logins.slice(1))) {
      expect(refused).to.have.property('code', 'ERR_TUNNEL_CONFLICT');
      expect(String(refused)).to.include('somebody else');
    }
    presence.abort();
    await logins[0];
  });

  it('is lost to nobody’s retry: it says that it needs a person again', async () => {
    const screen = createTestTerminal();
    const login = supervisor.authenticate(spec.id, screen);
    await screen.answer(/Enter passphrase for key/, `${PASSPHRASE}\r`);
    const { tunnel } = await login;
    process.kill(tunnel.chain[1]?.pid ?? 0, 'SIGKILL');
    expect(await until(() => types().includes('tunnel.stopped'), { timeoutMs: 5000 })).to.equal(true);
    expect(supervisor.status(spec.id)).to.include({ state: 'stopped', reason: 'needs_auth', nextRetryAt: null });
    expect(types().slice(-3)).to.deep.equal(['tunnel.up', 'tunnel.stopped', 'tunnel.needs_auth']);
  });

  it('gives up who types nothing, and who takes too long', async () => {
    for (const [patience, why] of [
      [{ totalMs: 60_000, idleMs: 300 }, 'nothing was typed for 0.3 s'],
      [{ totalMs: 400, idleMs: 60_000 }, '0.4 s were not enough'],
    ] as const) {
      const error = await supervisor
        .authenticate(spec.id, createTestTerminal(), { patience })
        .catch((error: unknown) => error);
      expect(error).to.have.property('code', 'ERR_TIMEOUT');
      expect(String(error)).to.include(why);
      expect(supervisor.status(spec.id)).to.include({ state: 'stopped', reason: 'timeout' });
    }
  });
});

function mastersOf(pid = 0): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`) === '/dev/ptmx';
    } catch {
      return false;
    }
  }).length;
}

describe('joinTerminal()', () => {
  function join(clock: Clock) {
    const events = new EventEmitter();
    let typed = '';
    const stdin = new Writable({
      write(bytes: Buffer, _encoding, done) {
        typed += bytes.toString();
        done();
      },
    });
    const stdout = new PassThrough();
    const [on, once] = [events.on.bind(events), events.once.bind(events)];
    const screen = createTestTerminal();
    const pty = joinTerminal({ stdin, stdout, connected: false, send: () => true, on, once }, screen.terminal, clock);
    return { events, stdout, screen, pty, typed: () => typed };
  }

  it('waits 15 s for a helper that says nothing, and leaves no timer where it says something', async () => {
    for (const message of [undefined, { type: 'started' }, { type: 'unavailable', message: 'no /dev/ptmx' }]) {
      const clock = createFakeClock();
      const { events, pty } = join(clock);
      expect(clock.sleepers()).to.equal(1);
      if (message) events.emit('message', message);
      else await clock.advance(15_000);
      expect(await pty.started).to.equal(message ? message.message : 'its helper has said nothing for 15 s');
      await clock.settle();
      expect(clock.sleepers()).to.equal(0);
    }
  });

  it('passes on what answers a question: nothing before it, nothing behind its Enter, and Ctrl-C at any time', async () => {
    const { events, stdout, screen, typed } = join(systemClock);
    events.emit('message', { type: 'started' });
    const ask = async (text: string) => {
      stdout.write(text);
      expect(await until(() => screen.drawn().endsWith(text), { timeoutMs: 5000 })).to.equal(true);
    };
    for (const keys of ['early', '\r']) await screen.type(keys);
    await ask('\r');
    await screen.type('early\r');
    expect(typed()).to.equal('');
    await ask('password: ');
    for (const keys of ['s3c', 'ret', '\rtoo late', 'late\r']) await screen.type(keys);
    expect(typed()).to.equal('s3cret\r');
    for (const keys of ['x\x03y', '\x1c']) await screen.type(keys);
    expect(typed()).to.equal('s3cret\r\x03\x03');
  });
});
