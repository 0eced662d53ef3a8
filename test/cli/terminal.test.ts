import net from 'node:net';
import { stripVTControlCharacters } from 'node:util';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { type OnTerminal, runOnTerminal, type TerminalOptions } from '../support/terminal.js';
import { mainFile, said, startTunward } from './run.js';

const hidden = '\u001b[?25l';
const shown = '\u001b[?25h';

describe('tunward up on a terminal', () => {
  const reaper = createReaper();
  let sshd: Sshd;
  let home: Home;
  before(async function () {
    need(this, 'pty', 'sshd', 'ssh');
    sshd = await startSshd();
  });
  beforeEach(async () => {
    home = makeHome();
    home.configure({}, await threeAndOne());
  });
  afterEach(async () => {
    await reaper.end();
    home.remove();
  });
  after(() => sshd?.stop());

  /** Three tunnels to the server, and one to a port where nobody listens, which is tried again and again. */
  async function threeAndOne(): Promise<Record<string, unknown>[]> {
    const [nobody, ...ports] = await Promise.all(Array.from({ length: 5 }, () => freeLocalPort()));
    const common = { ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}`, engine: 'ssh' };
    const names = ['database', 'web', '日本語', 'broken'];
    return names.map((name, at) => ({
      ...{ ...common, name, local_port: `127.0.0.1:${ports[at]}` },
      ...(name === 'broken'
        ? { remote_host: 'nobody@127.0.0.1', ssh_options: { Port: String(nobody) } }
        : { remote_host: 'rig' }),
    }));
  }

  const command = () => [process.execPath, mainFile, 'up', '-c', home.configFile];
  const up = (options: TerminalOptions = {}) =>
    runOnTerminal(reaper, command(), { columns: 120, rows: 30, ...options });

  /** The rows that are to be seen, once they are as a test wants them. */
  async function rowsWith(terminal: OnTerminal, isRight: (rows: readonly string[]) => boolean): Promise<string[]> {
    const look = async () => {
      const rows = await terminal.rows();
      return isRight(rows) && rows;
    };
    const found = await until(look, { timeoutMs: 12_000, everyMs: 20 });
    if (!found) throw new Error(`Never seen; but:\n${(await terminal.all()).join('\n')}`);
    return found;
  }

  /** The table: its rows, from the head to the last one that is not empty. */
  const tableOf = (rows: readonly string[]) => {
    const head = rows.findIndex((row) => row.startsWith('NAME'));
    return head === -1 ? [] : rows.slice(head, rows.findLastIndex((row) => row !== '') + 1);
  };
  const isSettled = (rows: readonly string[]) =>
    tableOf(rows).filter((row) => / up /.test(row)).length === 3 && /^broken +backoff/m.test(rows.join('\n'));

  it('shows them coming up, then how they are, what happens above that, and leaves it at Ctrl-C', async () => {
    const terminal = up();
    const rows = await rowsWith(terminal, isSettled);
    const table = tableOf(rows);
    expect(table[0]?.split(/ +/)).to.deep.equal([
      'NAME',
      'STATE',
      'LISTEN',
      'TARGET',
      'VIA',
      'ENGINE',
      'PID',
      'CPU',
      'MEM',
      'SINCE',
    ]);
    expect(table.map((row) => row.split(/ +/)[0])).to.deep.equal(['NAME', 'database', 'web', '日本語', 'broken', '']);
    expect(table[5]).to.match(/^ {2}└ refused: ssh: connect to host .*; tried (once|\d times), next try/);
    // A wide name does not push what stands behind it.
    const columns = table.slice(0, 5).map((row) => cellsOf(row).indexOf(row.startsWith('NAME') ? 'L' : '1', 15));
    expect(new Set(columns).size, table.join('\n')).to.equal(1);
    expect(stripVTControlCharacters(terminal.bytes())).to.match(/▕[█░]+▏ [0-3]\/4 up/);
    expect(terminal.bytes()).to.contain(hidden).and.not.contain(shown);
    const above = rows.slice(0, rows.length - table.length).join('\n');
    expect(above)
      .to.match(/up 3 of 4 after .*; 1 waiting$/m)
      .and.contain('web  up  127.0.0.1:');

    const { id } = await tunnelIn(home, 'web', 'up');
    await home.api('POST', `/v1/tunnels/${id}/restart`);
    const after = await rowsWith(terminal, (now) => isSettled(now) && now.join('\n').includes('web  killed ssh'));
    expect(after.filter((row) => row.startsWith('NAME'))).to.have.length(1);
    const place = (start: RegExp) => after.findIndex((row) => start.test(row));
    expect(place(/ web {2}killed ssh /)).to.be.below(place(/^NAME /));

    terminal.type('\u0003');
    expect(await terminal.ended).to.equal(0);
    const all = await terminal.all();
    const stopping = all.findIndex((row) => row.endsWith('  stopping'));
    expect(tableOf(all.slice(0, stopping)).map((row) => row.split(/ +/)[0])).to.deep.equal(
      table.map((row) => row.split(/ +/)[0]),
    );
    expect(all.slice(stopping).filter((row) => row.endsWith('  stopped'))).to.have.length(4);
    expect(all.at(-1)).to.match(/ {2}stopped after \d/);
    expect(await terminal.cursorRow()).to.equal((await terminal.rows()).indexOf(all.at(-1) ?? '') + 1);
    expect(terminal.bytes().lastIndexOf(shown)).to.be.above(terminal.bytes().lastIndexOf(hidden));
  });

  it('fits the terminal, whatever becomes of that', async () => {
    const terminal = up();
    await rowsWith(terminal, isSettled);
    terminal.resize(150, 12);
    const low = await rowsWith(terminal, (rows) => tableOf(rows).length === 6);
    expect(low).to.have.length(12);
    terminal.resize(60, 7);
    // Trouble first, with two rows; the head, one more, and a line for the others.
    const small = await rowsWith(terminal, (rows) => rows.some((row) => row.startsWith('… and ')));
    const table = tableOf(small);
    expect(table[1]).to.match(/^broken +(backoff|starting)/);
    expect(table[2]).to.match(/^ {2}└ refused: .*…$/);
    expect(table.slice(3).map((row) => row.split(/ +/)[0])).to.deep.equal(['database', '…']);
    expect(table.at(-1)).to.equal('… and 2 more, all up');
    expect(table[0]?.split(/ +/)).to.not.include('PID');
    terminal.resize(60, 4);
    const tiny = await rowsWith(terminal, (rows) => rows.some((row) => /▕█+░+▏ 3\/4 up {2}1 waiting$/.test(row)));
    expect(tableOf(tiny)).to.deep.equal([]);
    terminal.resize(120, 30);
    await rowsWith(terminal, isSettled);
  });

  it('does not stand still when the terminal does', async () => {
    const terminal = up();
    await rowsWith(terminal, isSettled);
    const { id } = await tunnelIn(home, 'web', 'up');
    terminal.type('\u0013');
    // Whatever it would like to draw meanwhile, there is more than one frame of it.
    for (let round = 0; round < 2; round++) {
      expect((await home.api('POST', `/v1/tunnels/${id}/restart`)).status).to.equal(200);
      const before = terminal.bytes().length;
      await until(() => terminal.bytes().length > before, { timeoutMs: 700 });
      expect(terminal.bytes()).to.have.length(before);
    }
    terminal.type('\u0011');
    const rows = await rowsWith(terminal, (now) => isSettled(now) && now.join('\n').includes('web  killed ssh'));
    expect(rows.filter((row) => row.startsWith('NAME'))).to.have.length(1);
    expect(rows.filter((row) => row.includes('web  killed ssh'))).to.have.length(2);
  });

  it('gives the cursor back also at a second Ctrl-C, in the middle of its end', async () => {
    const terminal = up();
    await rowsWith(terminal, isSettled);
    // A request that never ends keeps the daemon stopping for its grace of 250 ms.
    const client = net.connect(home.socket).on('error', () => undefined);
    const head =
      'POST /v1/shutdown HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n';
    client.write(head);
    await until(() => client.bytesWritten > 0, { timeoutMs: 1000 });
    terminal.type('\u0003');
    await rowsWith(terminal, (rows) => rows.some((row) => row.endsWith('0/4 stopped')));
    terminal.type('\u0003');
    expect(await terminal.ended).to.equal(130);
    client.destroy();
    expect(terminal.bytes().lastIndexOf(shown)).to.be.above(terminal.bytes().lastIndexOf(hidden));
  });

  it('ends in order when its terminal is closed, however often that is told, and leaves nobody behind', async () => {
    const terminal = up();
    await rowsWith(terminal, isSettled);
    // One SIGHUP comes from the kernel and one from node-pty, as from a shell.
    terminal.close();
    const isOver = await until(() => reaper.living().length === 0, { timeoutMs: 8000, everyMs: 20 });
    expect(isOver, JSON.stringify(reaper.living())).to.equal(true);
  });

  it('says why it cannot start, without having drawn anything', async () => {
    home.configure({ takeovr: 'any' }, []);
    const terminal = up();
    expect(await terminal.ended).to.equal(78);
    expect((await terminal.all()).join(' ')).to.contain('takeovr');
    expect(terminal.bytes()).to.not.contain(hidden);
  });

  it('draws plain characters where the locale has no others', async () => {
    const terminal = up({ env: { LC_ALL: 'C' } });
    await rowsWith(terminal, isSettled);
    expect(stripVTControlCharacters(terminal.bytes()))
      .to.match(/\[[#.]+\] \d\/4 up/)
      .and.not.match(/[█░▕▏]/);
  });

  describe('in a shell', () => {
    const inShell = (script: string) => {
      const shell = ['/bin/sh', '-c', `set -m\n${script}`, 'sh', ...command()];
      return runOnTerminal(reaper, shell, { columns: 120, rows: 30 });
    };

    it('draws nothing in the background', async () => {
      const terminal = inShell('"$@" & wait');
      await rowsWith(terminal, (rows) => / up 3 of 4 after .*; 1 waiting$/m.test(rows.join('\n')));
      const [pid = 0] = await daemonPids();
      // A tunnel's end is told; whatever is drawn besides would be there by then.
      const { id } = await tunnelIn(home, 'web', 'up');
      await home.api('POST', `/v1/tunnels/${id}/restart`);
      await rowsWith(terminal, (rows) => rows.join('\n').includes('web  killed ssh'));
      sendSignal({ pid, startTicks: statOf(pid)?.startTicks ?? 0 }, 'SIGTERM');
      expect(await terminal.ended).to.equal(0);
      expect(terminal.bytes()).to.not.contain(hidden).and.not.contain('NAME');
    });

    it('gives the terminal back at Ctrl-Z, and draws again when it is brought back', async () => {
      const terminal = inShell('"$@"; echo suspended; read line; fg');
      await rowsWith(terminal, isSettled);
      terminal.type('\u001a');
      const rows = await rowsWith(terminal, (now) => now.includes('suspended'));
      expect(tableOf(rows.slice(0, rows.indexOf('suspended'))).map((row) => row.split(/ +/)[0])).to.include('database');
      expect(terminal.bytes().lastIndexOf(shown)).to.be.above(terminal.bytes().lastIndexOf(hidden));
      terminal.type('\n');
      await rowsWith(terminal, (now) => isSettled(now.slice(now.indexOf('suspended'))));
      terminal.type('\u0003');
      expect(await terminal.ended).to.equal(0);
    });

    async function daemonPids(): Promise<number[]> {
      return reaper.living().flatMap(({ pid, command: line }) => (line.startsWith(process.execPath) ? [pid] : []));
    }
  });

  describe('elsewhere', () => {
    it('is lines alone on a terminal that can do no more, and with --json', async () => {
      const dumb = up({ env: { TERM: 'dumb', NO_COLOR: '1' } });
      await rowsWith(dumb, (rows) => rows.some((row) => row.endsWith('; 1 waiting (tunward ls)')));
      dumb.type('\u0003');
      expect(await dumb.ended).to.equal(0);
      expect(dumb.bytes()).to.not.contain('\u001b');
      const json = runOnTerminal(reaper, [...command(), '--json'], { columns: 2000, rows: 30 });
      await until(() => json.bytes().includes('tunnel.backoff'), { timeoutMs: 10_000, everyMs: 20 });
      json.type('\u0003');
      expect(await json.ended).to.equal(0);
      expect(json.bytes()).to.not.contain('\u001b').and.not.contain('up 3 of 4');
    });

    it('is lines alone in a pipe, and one that says what came of the start', async () => {
      const running = startTunward(reaper, ['up', '-c', home.configFile]);
      await said(running, 'stderr', 'waiting');
      running.child.kill('SIGTERM');
      const { code, stdout, stderr } = await running.ended;
      expect(code).to.equal(0);
      expect(stdout).to.equal('');
      expect(stderr).to.match(/^[\d-]+ [\d:]+ {2}up 3 of 4 after [\d.]+ m?s; 1 waiting \(tunward ls\)$/m);
      expect(stderr).to.not.contain('\u001b').and.not.contain('NAME');
    });
  });
});

/** A row cell by cell: a wide character fills two. */
function cellsOf(row: string): string {
  return row.replaceAll(/[\u3040-\u9fff]/g, '$& ');
}
