import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type AskingServer, byPassword, startAsking } from '../support/asking.js';
import { type Lobby, openLobby } from '../support/lobby.js';
import { need } from '../support/need.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { startSshd } from '../support/sshd.js';
import { outcomeOf, rawOf, type Visit, type Visitor, visit, visitOpen } from '../support/visitor.js';

const PASSWORD = 'hunter2-is-secret';

describe('a login by WebSocket', function () {
  this.timeout(60_000);
  let reaper: Reaper;
  let server: AskingServer;
  let lobby: Lobby;

  before(function () {
    need(this, 'ssh', 'pty');
  });
  beforeEach(async () => {
    reaper = createReaper();
    server = await startAsking({ factors: [byPassword(PASSWORD)] });
    lobby = await openLobby(reaper, server);
  });
  afterEach(async () => {
    await lobby[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(await reaper.end(), 'left').to.deep.equal([]);
  });

  const untouched = async () => {
    expect(await lobby.status()).to.include({ state: 'stopped', reason: 'needs_auth' });
    expect(lobby.cast()).to.deep.equal([]);
    expect(server.asked()).to.equal(0);
  };

  async function logIn(how: Visit): Promise<Visitor> {
    const visitor = await visitOpen(how);
    await visitor.sees('password: ');
    visitor.type(`${PASSWORD}\r`);
    expect((await visitor.closed).code).to.equal(1000);
    expect(visitor.messages()[0]).to.deep.equal({ type: 'open', via: 'pty' });
    const [, end] = visitor.messages();
    expect(end).to.deep.include({ type: 'end', outcome: 'up' });
    expect(end.tunnel).to.include({ name: lobby.id, state: 'up' });
    expect(visitor.screen()).not.to.include(PASSWORD);
    return visitor;
  }

  it('goes through on the unix socket, and the tunnel stays when the connection has ended', async () => {
    const at = lobby.home.socket;
    await logIn({ at, id: lobby.id });
    expect(await lobby.status()).to.include({ state: 'up' });
    expect(await outcomeOf({ at, id: lobby.id })).to.equal('409 ERR_TUNNEL_CONFLICT');
    const { body } = await lobby.home.api('GET', `/v1/tunnels/${lobby.id}/terminal`);
    expect(body.detail).to.include('is up');
  });

  it('goes through on TCP with a token, and with the cookie of a session from a page of this host', async () => {
    const { port: at, id, token } = lobby;
    await logIn({ at, id, headers: { authorization: `Bearer ${token}` } });
    await lobby.home.api('POST', `/v1/tunnels/${id}/stop`);
    const origin = `http://127.0.0.1:${at}`;
    const answer = await fetch(`${origin}/v1/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', origin },
      body: JSON.stringify({ token }),
    });
    const cookie = /^[^;]+/.exec(answer.headers.get('set-cookie') ?? '')?.[0] ?? '';
    for (const headers of [{ cookie }, { cookie, origin: 'https://evil.example' }, { cookie, origin: 'null' }]) {
      expect(await outcomeOf({ at, id, headers })).to.equal('403 ERR_FORBIDDEN');
    }
    await logIn({ at, id, headers: { cookie, origin } });
  });

  it('is for nobody else: refused, and nothing is started', async () => {
    const { port: at, id, token, readToken } = lobby;
    const bearer = (text: string) => ({ authorization: `Bearer ${text}` });
    expect(await outcomeOf({ at, id })).to.equal('401 ERR_UNAUTHORIZED');
    expect(await outcomeOf({ at, id, headers: bearer('wrong') })).to.equal('401 ERR_UNAUTHORIZED');
    expect(await outcomeOf({ at, id, headers: bearer(readToken) })).to.equal('403 ERR_FORBIDDEN');
    const evil = { ...bearer(token), origin: 'https://evil.example' };
    expect(await outcomeOf({ at, id, headers: evil })).to.equal('403 ERR_FORBIDDEN');
    const rebound = { ...bearer(token), host: 'evil.example' };
    expect(await outcomeOf({ at, id, headers: rebound })).to.equal('421 ERR_MISDIRECTED');
    await untouched();
  });

  it('is one person’s at a time: of three at once one is asked, two are told', async () => {
    const how = { at: lobby.home.socket, id: lobby.id };
    const answers = await Promise.all([1, 2, 3].map(() => visit(how)));
    const refused = answers.flatMap((answer) => ('status' in answer ? [answer] : []));
    expect(refused.map(({ status, body }) => `${status} ${body.code}`)).to.deep.equal([
      '409 ERR_TUNNEL_CONFLICT',
      '409 ERR_TUNNEL_CONFLICT',
    ]);
    for (const { body } of refused) expect(body.detail).to.include('somebody else');
    const [visitor] = answers.flatMap((answer) => ('socket' in answer ? [answer] : []));
    await visitor?.sees('password: ');
    visitor?.type(`${PASSWORD}\r`);
    await visitor?.closed;
    expect(visitor?.messages().at(-1)).to.include({ outcome: 'up' });
    expect(server.logins()).to.equal(1);
  });

  it('tells of a wrong password why it was no use, and nothing is tried again', async () => {
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
    for (let attempt = 1; attempt <= 3; attempt++) {
      const asked = new RegExp(`(password: [^]*){${attempt}}`);
      await visitor.sees(asked);
      visitor.type('wrong-one\r');
    }
    expect((await visitor.closed).code).to.equal(1000);
    const end = visitor.messages().at(-1);
    expect(end).to.deep.include({ type: 'end', outcome: 'failed' });
    expect(end.problem).to.include({ code: 'ERR_START_FAILED', status: 502, reason: 'auth_failed' });
    expect(await lobby.status()).to.include({ state: 'stopped', reason: 'auth_failed', next_retry_at: null });
    expect(await lobby.emptied()).to.be.a('number');
  });

  it('draws in the window that it is told, whenever that is', async () => {
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id, query: '?columns=100&rows=30' });
    visitor.socket.send('{"type":"resize","columns":111,"rows":33}');
    await visitor.sees('password: ');
    expect(lobby.cast().map(({ command }) => /pty-process|ssh -N/.exec(command)?.[0])).to.have.members([
      'pty-process',
      'ssh -N',
    ]);
    const helper = lobby.cast().find(({ command }) => command.includes('pty-process'))?.pid ?? 0;
    const isResized = () => windowOf(helper) === '33 111';
    expect(await until(isResized, { timeoutMs: 5000 }), windowOf(helper)).to.equal(true);
    visitor.socket.close();
    expect(await lobby.emptied()).to.be.a('number');
  });

  it('ends within a second with the connection, in the middle of a password, and can begin anew', async () => {
    const how = { at: lobby.home.socket, id: lobby.id };
    for (const leave of [(one: Visitor) => one.socket.terminate(), (one: Visitor) => one.socket.close()]) {
      const visitor = await visitOpen(how);
      await visitor.sees('password: ');
      visitor.type(PASSWORD.slice(0, 4));
      expect(lobby.cast()).to.have.length(2);
      leave(visitor);
      expect(await lobby.emptied(1000), 'emptied').to.be.a('number');
      const isOver = async () => (await lobby.status()).state === 'stopped';
      expect(await until(isOver, { timeoutMs: 2000 })).to.equal(true);
      await untouchedBut(server.attempts());
    }
    await logIn(how);
  });

  const untouchedBut = async (attempts: number) => {
    expect(await lobby.status()).to.include({ state: 'stopped', reason: 'needs_auth', desired: 'down' });
    expect(attempts).to.equal(0);
  };

  it('ends with the daemon, which does not wait for it: 1001', async () => {
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
    await visitor.sees('password: ');
    expect(await lobby.daemon.end('SIGTERM')).to.equal(0);
    expect((await visitor.closed).code).to.equal(1001);
    expect(lobby.cast()).to.deep.equal([]);
  });

  it('leaves nothing of what was typed in the memory of the daemon and of the helper', async () => {
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
    await visitor.sees('password: ');
    // Wrong ones, by one write: two messages, and one in three frames.
    const words = ['Zanzibar1', 'Yucatan-2', 'Xanthippe3', 'Wollongong4', 'Vladivostok5'];
    const [one = '', two = '', three = '', four = '', five = ''] = words;
    const { socket } = visitor;
    const raw = rawOf(visitor);
    raw.cork();
    visitor.type(one);
    visitor.type(two);
    socket.send(Buffer.from(three), { binary: true, fin: false });
    socket.send(Buffer.from(four), { binary: true, fin: false });
    socket.send(Buffer.from(`${five}\r`), { binary: true, fin: true });
    raw.uncork();
    await visitor.sees(/password: .*password: /s);
    // Right, and read: what has been typed has gone through all hands.
    visitor.type(`${PASSWORD}\r`);
    expect((await visitor.closed).code).to.equal(1000);
    expect(visitor.messages().at(-1)).to.include({ outcome: 'up' });
    expect(server.attempts()).to.equal(2);
    const helper = lobby.cast().find(({ command }) => command.includes('pty-process'))?.pid ?? 0;
    expect(remembers(lobby.daemon.pid, [lobby.home.socket]), 'it is its memory').to.have.length(1);
    expect(remembers(lobby.daemon.pid, [...words, PASSWORD]), 'the daemon').to.deep.equal([]);
    expect(remembers(helper, [...words, PASSWORD]), 'the helper').to.deep.equal([]);
  });

  it('leaves nothing either of what a client has sent as the wrong kind of message', async () => {
    const words = ['Timbuktu-6', '"Samarkand7"', '[Reykjavik8'];
    for (const word of words) {
      const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
      visitor.socket.send(word);
      expect((await visitor.closed).code).to.be.oneOf([1007, 1008]);
      await lobby.emptied();
    }
    const found = remembers(lobby.daemon.pid, ['Timbuktu-6', 'Samarkand7', 'Reykjavik8']);
    expect(found).to.deep.equal([]);
  });

  it('leaves nothing of what was typed in logs and events', async () => {
    await logIn({ at: lobby.home.socket, id: lobby.id });
    const { id } = await lobby.status();
    const log = lobby.home.logLines(id).join('\n');
    expect(log).to.include('Starting');
    expect(`${log}${lobby.daemon.stderr()}`).not.to.include(PASSWORD);
    for (const { pid } of lobby.cast()) {
      const said = ['cmdline', 'environ'].map((name) => readFileSync(join('/proc', String(pid), name), 'latin1'));
      expect(said.join('')).not.to.include(PASSWORD);
    }
  });
});

/** Is one of these texts in what a process has of its own in memory? */
function remembers(pid: number, texts: readonly string[]): string[] {
  const found = new Set<string>();
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  const page = Buffer.alloc(1 << 20);
  try {
    for (const [, from = '', to = ''] of readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^(\w+)-(\w+) rw/gm)) {
      const end = Number.parseInt(to, 16);
      // What lies across two pieces is seen in the next one.
      for (let at = Number.parseInt(from, 16); at < end; at += page.length - 64) {
        const read = readMemory(memory, page, at, Math.min(page.length, end - at));
        for (const text of texts) if (page.subarray(0, read).includes(text, 0, 'latin1')) found.add(text);
      }
    }
  } finally {
    closeSync(memory);
  }
  return [...found];
}

/** 0 where nothing is to be read: a guard, a device. */
function readMemory(memory: number, page: Buffer, at: number, length: number): number {
  try {
    return readSync(memory, page, 0, length, at);
  } catch {
    return 0;
  }
}

/** `rows columns` of the terminal that a process has open. */
function windowOf(pid: number): string {
  const folder = `/proc/${pid}/fd`;
  const terminal = readdirSync(folder)
    .map((fd) => readlinkSync(join(folder, fd)))
    .find((file) => file.startsWith('/dev/pts/'));
  return execFileSync('stty', ['-F', terminal ?? '/dev/null', 'size'], { encoding: 'utf8' }).trim();
}

describe('a login by WebSocket with a real sshd', function () {
  this.timeout(60_000);

  before(function () {
    need(this, 'ssh', 'sshd', 'pty');
  });

  it('goes through with the passphrase of a key', async () => {
    await using reaper = createReaper();
    await using sshd = await startSshd({ passphrase: 'correct horse' });
    await using lobby = await openLobby(reaper, sshd);
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
    await visitor.sees('Enter passphrase for key');
    visitor.type('correct horse\r');
    await visitor.closed;
    expect(visitor.messages().at(-1)).to.include({ type: 'end', outcome: 'up' });
  });
});
