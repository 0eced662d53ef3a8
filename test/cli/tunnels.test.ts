import { expect } from 'chai';
import { type ErrorCode, errorCodes, TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { createReaper } from '../support/reaper.js';
import { type FakeDaemon, operationRecord, tunnelRecord, useFakeDaemon } from './fake-daemon.js';
import { said, startTunward, tunward } from './run.js';

describe('tunward and its daemon', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  useFakeDaemon(reaper, (started) => {
    daemon = started;
  });
  const run = (...args: string[]) => tunward(reaper, [...args, '--socket', daemon.socket]);
  const refuse = (route: string, error: TunwardError) => daemon.routes.set(route, () => toProblem(error));

  describe('ls', () => {
    const broken = tunnelRecord({
      id: 'a'.repeat(32),
      name: 'db',
      state: 'backoff',
      reason: 'auth_failed',
      last_error: 'user@db: Permission denied (publickey).',
      next_retry_at: new Date(Date.now() + 3_600_000).toISOString(),
      remedy: 'check the user',
      attempt: 3,
      pid: null,
      usage: null,
    });

    it('prints the API’s records as they are with --json', async () => {
      const tunnels = [tunnelRecord(), broken];
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels } }));
      const { code, stdout } = await run('ls', '--json');
      expect(code).to.equal(0);
      expect(JSON.parse(stdout)).to.deep.equal({ tunnels });
    });

    it('is a table without borders, with the trouble of what is not up below it', async () => {
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord(), broken] } }));
      const { code, stdout } = await run('status');
      expect(code).to.equal(0);
      const [head, web, db, trouble, advice, ...rest] = stdout.split('\n');
      expect(head?.split(/ {2,}/)).to.deep.equal([
        ...['NAME', 'STATE', 'LISTEN', 'TARGET', 'VIA', 'ENGINE', 'PID', 'CPU', 'MEM', 'SINCE'],
      ]);
      expect(web?.split(/ {2,}/)).to.deep.equal([
        ...['web', 'up', 'localhost:8001', 'localhost:8000', 'user@remote-host1', 'autossh'],
        ...['812', '1.3 %', '18.3 MB', '1m 5s'],
      ]);
      // Figures stand one below the other at their right edge, '-' where there is no chain.
      expect(db?.slice(0, (head?.indexOf('SINCE') ?? 0) - 2)).to.match(/-$/);
      expect(head?.indexOf('CPU')).to.equal((web?.indexOf('1.3 %') ?? 0) + '1.3 %'.length - 'CPU'.length);
      expect(db).to.match(/^db {4}backoff /);
      expect(trouble).to.match(
        /^ {2}└ auth_failed: user@db: Permission denied \(publickey\)\.; tried 3 times, next try/,
      );
      expect(advice).to.equal('    check the user');
      expect(rest).to.deep.equal(['']);
    });

    const traffic = { connections: 1204, open: 12, queued: 1, refused: 3, bytes_in: 48_200_000, bytes_out: 912 };
    const counted = tunnelRecord({ engine: 'embedded', seamless: true, pid: null, usage: null, traffic });

    it('shows which engine is in use, and the traffic where some of it passes through the daemon', async () => {
      const other = tunnelRecord({ id: 'b'.repeat(32), name: 'db', engine: 'ssh' });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [counted, other] } }));
      const { stdout } = await run('ls');
      const [head, web, db] = stdout.split('\n').map((line) => line.split(/ {2,}/));
      expect(head?.slice(5)).to.deep.equal([
        ...['ENGINE', 'PID', 'CPU', 'MEM', 'OPEN', 'QUEUED', 'REFUSED', 'IN', 'OUT', 'SINCE'],
      ]);
      expect(web?.slice(5, -1)).to.deep.equal([
        ...['embedded, seamless', '-', '-', '-', '12', '1', '3', '48.2 MB', '912 B'],
      ]);
      expect(db?.slice(5, -1)).to.deep.equal(['ssh', '812', '1.3 %', '18.3 MB', '-', '-', '-', '-', '-']);
    });

    it('is of those that are named, as they are now, with what has passed through them', async () => {
      daemon.routes.set('GET /v1/tunnels/web', () => ({ body: counted }));
      daemon.routes.set('GET /v1/tunnels/db', () => ({ body: tunnelRecord({ name: 'db' }) }));
      const { code, stdout } = await run('status', 'web', 'db');
      expect(code).to.equal(0);
      expect(daemon.asked).to.have.members(['GET /v1/tunnels/web', 'GET /v1/tunnels/db']);
      const [, web, ofWeb, db, ofDb, ...rest] = stdout.split('\n');
      expect(web).to.match(/^web {3}up /);
      expect(ofWeb).to.equal('  └ 1204 connections: 12 open, 1 waiting, 3 refused; 48.2 MB in, 912 B out');
      expect(db).to.match(/^db {4}up /);
      expect(ofDb).to.equal('  └ traffic is not counted: it does not pass through the daemon');
      expect(rest).to.deep.equal(['']);
      const { tunnels } = JSON.parse((await run('ls', 'web', '--json')).stdout);
      expect(tunnels).to.deep.equal([counted]);
      expect((await run('ls', 'web', '--group', 'x')).code).to.equal(2);
    });

    it('says of one that is up what its target is at', async () => {
      const reason = 'channel 2: open failed: connect failed: Connection refused';
      const unwell = tunnelRecord({ health: 'degraded', reason: 'target_refused', health_reason: reason });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [unwell] } }));
      const { stdout } = await run('ls');
      const [, web, trouble] = stdout.split('\n');
      expect(web).to.match(/^web {3}up /);
      expect(trouble).to.equal(`  └ degraded: ${reason}`);
    });

    it('cannot be fooled by control characters in what a server said', async () => {
      const evil = tunnelRecord({ ...broken, remedy: null, last_error: '\u001b[2Jgone\r\n\u202eevil' });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [evil] } }));
      const { stdout } = await run('ls');
      expect(stdout).to.contain('?[2Jgone???evil');
      expect(stdout.split('\n')).to.have.length(4);
    });
  });

  describe('--group', () => {
    const records = [
      tunnelRecord({ id: 'a'.repeat(32), name: 'one', groups: ['eu', 'web'], jump: ['bastion', 'me@two:22'] }),
      tunnelRecord({
        id: 'b'.repeat(32),
        name: 'two',
        groups: ['web'],
        enabled: false,
        state: 'stopped',
        desired: 'down',
      }),
      tunnelRecord({ id: 'c'.repeat(32), name: 'three' }),
      tunnelRecord({ id: 'd'.repeat(32), name: 'four', groups: ['us'], enabled: false }),
    ];
    beforeEach(() => {
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: records } }));
      for (const { id } of records)
        daemon.routes.set(`POST /v1/tunnels/${id}/start`, () => ({ body: operationRecord() }));
    });
    const started = () =>
      daemon.asked
        .filter((line) => line.startsWith('POST'))
        .map((line) => line.charAt(17))
        .sort();

    it('lists the tunnels of a group, or of several', async () => {
      const names = async (...args: string[]) => {
        const { stdout } = await run('ls', '--json', ...args);
        return JSON.parse(stdout).tunnels.map(({ name }: { name: string }) => name);
      };
      expect(await names('--group', 'web')).to.deep.equal(['one', 'two']);
      expect(await names('--group', 'us', '--group', 'eu')).to.deep.equal(['one', 'four']);
    });

    it('does something to every tunnel of the groups, also to those that are not enabled', async () => {
      expect((await run('start', '--group', 'web', '--group', 'us')).code).to.equal(0);
      expect(started()).to.deep.equal(['a', 'b', 'd']);
    });

    it('is no part of all: those that are not enabled are, when they are up', async () => {
      expect((await run('start', '--all')).code).to.equal(0);
      expect(started()).to.deep.equal(['a', 'c', 'd']);
    });

    it('names the groups that there are to who asks for another', async () => {
      for (const command of [['ls'], ['stop']]) {
        const { code, stderr } = await run(...command, '--group', 'staging');
        expect(code).to.equal(4);
        expect(stderr).to.equal("error: No tunnel is in the group 'staging': the groups are eu, us, web\n");
      }
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
      const { stderr } = await run('restart', '--group', 'web');
      expect(stderr).to.equal("error: No tunnel is in the group 'web': no tunnel is in any group\n");
      expect(started()).to.deep.equal([]);
    });

    it('is shown with the hosts on the way', async () => {
      const { stdout } = await run('ls', '--group', 'eu');
      expect(stdout.split('\n')[1]).to.contain('  bastion, me@two:22, user@remote-host1  ');
    });
  });

  describe('restart', () => {
    it('prints one line a tunnel', async () => {
      daemon.routes.set('POST /v1/tunnels/web/restart', () => ({ body: operationRecord() }));
      const { code, stdout } = await run('restart', 'web');
      expect(code).to.equal(0);
      expect(stdout).to.equal('✔ web  up in 412 ms (stop 6, free 1, start 405) killed 2: autossh 812, ssh 815\n');
    });

    it('goes on after one that fails, and ends with the first failure’s code', async () => {
      const done = operationRecord();
      daemon.routes.set('POST /v1/tunnels/web/restart', () => ({ body: done }));
      refuse('POST /v1/tunnels/db/restart', new TunwardError('ERR_PORT_HELD', 'held', { port: 1, holders: [] }));
      refuse('POST /v1/tunnels/nope/restart', new TunwardError('ERR_TUNNEL_UNKNOWN', 'who?', { which: 'nope' }));
      const { code, stdout, stderr } = await run('restart', 'db', 'web', 'nope', '--json');
      expect(code).to.equal(3);
      expect(stderr.split('\n').sort()).to.deep.equal(['', '✖ db  held', '✖ nope  who?']);
      const [db, web, nope] = JSON.parse(stdout).tunnels;
      expect(db).to.have.all.keys('name', 'error');
      expect(db.error).to.deep.include({ code: 'ERR_PORT_HELD', status: 409, port: 1, holders: [] });
      expect(web).to.deep.equal(done);
      expect(nope).to.deep.include({ name: 'nope' });
      expect(nope.error.code).to.equal('ERR_TUNNEL_UNKNOWN');
    });

    it('restarts all by their ids, and names the ones that fail', async () => {
      const other = tunnelRecord({ id: 'b'.repeat(32), name: 'db' });
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord(), other] } }));
      daemon.routes.set(`POST /v1/tunnels/${tunnelRecord().id}/restart`, () => ({ body: operationRecord() }));
      const info = { id: 'b'.repeat(32), reason: 'refused', lastError: 'Connection refused', nextRetryAt: null };
      const failed = new TunwardError('ERR_START_FAILED', 'Tunnel db could not be started: refused', info);
      refuse(`POST /v1/tunnels/${'b'.repeat(32)}/restart`, failed);
      const { code, stdout, stderr } = await run('restart', '--all');
      expect(code).to.equal(1);
      expect(stdout).to.match(/^✔ web {2}up in /);
      expect(stderr).to.equal('✖ db  Tunnel db could not be started: refused\n');
      const { stdout: json } = await run('restart', '--all', '--json');
      expect(JSON.parse(json).tunnels[1]).to.deep.include({ id: 'b'.repeat(32), name: 'db' });
    });

    it('counts a fault of the daemon with one tunnel as that tunnel’s failure', async () => {
      daemon.routes.set('POST /v1/tunnels/web/restart', () => ({ body: operationRecord() }));
      daemon.routes.set('POST /v1/tunnels/db/restart', () => ({ status: 500, body: { detail: 'Error: boom' } }));
      const { code, stdout, stderr } = await run('restart', 'db', 'web');
      expect(code).to.equal(1);
      expect(stdout).to.match(/^✔ web/);
      expect(stderr).to.match(/^✖ db {2}The daemon at .* failed: Error: boom\n$/);
    });

    it('asks for force only when it is given', async () => {
      daemon.routes.set('POST /v1/tunnels/web/start', () => ({ body: operationRecord() }));
      await run('start', 'web');
      await run('start', 'web', '--force', '--yes');
      expect(daemon.asked).to.deep.equal(['POST /v1/tunnels/web/start', 'POST /v1/tunnels/web/start?force=true']);
    });
  });

  it('stop says what it took, without a start', async () => {
    const stopped = operationRecord({ state: 'stopped', took_ms: 8.3 });
    daemon.routes.set('POST /v1/tunnels/web/stop', () => ({ body: stopped }));
    const { code, stdout } = await run('stop', 'web');
    expect(code).to.equal(0);
    expect(stdout).to.equal('✔ web  stopped in 8.3 ms (stop 6, free 1) killed 2: autossh 812, ssh 815\n');
  });

  describe('every code of the daemon ends the command with its own', () => {
    const info = { problems: [], holders: [], candidates: [], id: 'x', port: 1, timeoutMs: 1 };
    for (const [name, { exit }] of Object.entries(errorCodes)) {
      it(`${name}: ${exit}`, async () => {
        const error = new TunwardError(name as ErrorCode, 'the sentence', info as never);
        refuse('GET /v1/tunnels', error);
        const { code, stdout, stderr } = await run('ls', '--json');
        expect(code).to.equal(exit);
        expect(JSON.parse(stdout)).to.deep.equal({ error: toProblem(error).body });
        expect(stderr).to.contain('the sentence');
      });
    }
  });

  it('ends with 1, and no code, for a fault of the daemon', async () => {
    daemon.routes.set('GET /v1/tunnels', () => ({ status: 500, body: { detail: 'Error: boom' } }));
    const { code, stdout, stderr } = await run('ls', '--json');
    expect(code).to.equal(1);
    expect(JSON.parse(stdout).error).to.include({ status: 500 });
    expect(stderr).to.match(/^error: The daemon at .* failed: Error: boom\n$/);
  });

  it('ends with 75 when there is no daemon, and says how to start one', async () => {
    for (const command of [['ls'], ['health'], ['down'], ['logs'], ['restart', 'web'], ['stop', '--all']]) {
      const { code, stdout, stderr } = await tunward(reaper, [...command, '--socket', '/nonexistent/t.sock']);
      expect(code, command.join(' ')).to.equal(75);
      expect(stdout).to.equal('');
      expect(stderr).to.equal('error: No daemon answers at /nonexistent/t.sock: start it with tunward up\n');
    }
  });

  it('health is the daemon’s own answer', async () => {
    daemon.routes.set('GET /health', () => ({ body: { status: 'ok' } }));
    expect(await run('health')).to.deep.equal({ code: 0, stdout: 'ok\n', stderr: '' });
    expect(JSON.parse((await run('health', '--json')).stdout)).to.deep.equal({ status: 'ok' });
    daemon.routes.set('GET /health', () => ({ body: { status: 'ok', zombies: 3, advice: 'put an init in front' } }));
    const { code, stdout, stderr } = await run('health');
    expect({ code, stdout }, 'zombies make nobody ill').to.deep.equal({ code: 0, stdout: 'ok\n' });
    expect(stderr).to.equal('3 zombies: put an init in front\n');
    daemon.routes.set('GET /health', () => ({ body: { status: 'ailing' } }));
    expect((await run('health')).code).to.equal(1);
  });

  describe('down', () => {
    it('waits until nobody answers any more', async () => {
      let questions = 0;
      daemon.routes.set('POST /v1/shutdown', () => ({ status: 202, body: { status: 'stopping', pid: 4194303 } }));
      daemon.routes.set('GET /health', () => {
        // The third question closes the door: until then the daemon is still ending its tunnels.
        if (++questions === 3) void daemon.close();
        return questions < 3 ? { body: { status: 'ok' } } : undefined;
      });
      const { code, stdout } = await run('down', '--json');
      expect(code).to.equal(0);
      expect(questions).to.equal(3);
      const answer = JSON.parse(stdout);
      expect(answer).to.include({ status: 'stopped', pid: 4194303 });
      expect(answer.took_ms).to.be.a('number');
    });

    it('ends with 124 when the daemon goes on answering', async () => {
      daemon.routes.set('POST /v1/shutdown', () => ({ status: 202, body: { status: 'stopping', pid: 4194303 } }));
      daemon.routes.set('GET /health', () => ({ body: { status: 'ok' } }));
      const { code, stderr } = await run('down', '--timeout', '60');
      expect(code).to.equal(124);
      expect(stderr).to.contain('still stopping after 60 ms');
    });
  });

  describe('logs', () => {
    const one = tunnelRecord();
    const other = tunnelRecord({ id: 'b'.repeat(32), name: 'database' });
    beforeEach(() => {
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [one, other] } }));
      daemon.routes.set('GET /v1/tunnels/web', () => ({ body: one }));
      daemon.routes.set(`GET /v1/tunnels/${one.id}/logs`, () => ({
        body: { id: one.id, log_file: null, lines: ['first', 'second'] },
      }));
      daemon.routes.set(`GET /v1/tunnels/${other.id}/logs`, () => ({
        body: { id: other.id, log_file: null, lines: ['third'] },
      }));
    });

    it('prints the lines of one as they are', async () => {
      expect(await run('logs', 'web', '-n', '5')).to.deep.equal({ code: 0, stdout: 'first\nsecond\n', stderr: '' });
      expect(daemon.asked.at(-1)).to.equal(`GET /v1/tunnels/${one.id}/logs?lines=5`);
      const { stdout } = await run('logs', 'web', '--json');
      expect(JSON.parse(stdout)).to.deep.include({ id: one.id, lines: ['first', 'second'] });
    });

    it('prints those of all after their names', async () => {
      const { stdout } = await run('logs');
      expect(stdout).to.equal('web      | first\nweb      | second\ndatabase | third\n');
      const { logs } = JSON.parse((await run('logs', '--json')).stdout);
      expect(logs.map(({ name }: { name: string }) => name)).to.deep.equal(['web', 'database']);
    });

    it('follows by a connection that stays where the file cannot be read, and ends with 75 when that ends', async () => {
      let send = (_line: string | undefined) => {};
      daemon.routes.set(`GET /v1/tunnels/${one.id}/logs`, () => ({
        stream: (response) => {
          send = (line) =>
            line === undefined ? response.end() : response.write(`event: line\ndata: ${JSON.stringify({ line })}\n\n`);
          send('first');
        },
      }));
      const following = startTunward(reaper, ['logs', 'web', '-f', '-n', '1', '--socket', daemon.socket]);
      await said(following, 'stdout', 'first\n');
      expect(daemon.asked.at(-1)).to.equal(`GET /v1/tunnels/${one.id}/logs?lines=1&follow=true`);
      send('second');
      await said(following, 'stdout', 'first\nsecond\n');
      expect(
        daemon.asked.filter((line) => line.includes('/logs')),
        'nothing is asked twice',
      ).to.have.length(1);
      send('last words');
      send(undefined);
      const { code, stdout, stderr } = await following.ended;
      expect([code, stdout]).to.deep.equal([75, 'first\nsecond\nlast words\n']);
      expect(stderr).to.contain('has ended the log');
    });

    it('asks a daemon of an older version again and again, one record a line, until Ctrl-C', async () => {
      const following = startTunward(reaper, ['logs', 'web', '-f', '-n', '1', '--json', '--socket', daemon.socket]);
      await said(following, 'stdout', 'second');
      daemon.routes.set(`GET /v1/tunnels/${one.id}/logs`, () => ({
        body: { id: one.id, log_file: null, lines: ['first', 'second', 'fourth'] },
      }));
      await said(following, 'stdout', 'fourth');
      following.child.kill('SIGINT');
      const { code, stdout, stderr } = await following.ended;
      expect(code, stderr).to.equal(130);
      const records = stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      const expected = ['second', 'fourth'].map((line) => ({ id: one.id, name: 'web', line }));
      expect(records).to.deep.equal(expected);
    });

    it('ends when nobody reads it any more', async () => {
      const following = startTunward(reaper, ['logs', 'web', '-f', '--socket', daemon.socket]);
      await said(following, 'stdout', 'second');
      following.child.stdout?.destroy();
      let number = 0;
      daemon.routes.set(`GET /v1/tunnels/${one.id}/logs`, () => ({
        body: { id: one.id, log_file: null, lines: [`line ${++number}`] },
      }));
      expect((await following.ended).code).to.equal(141);
    });
  });
});
