import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, spawnUp, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('SIGHUP reads the configuration again', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let tunnel: (name: string, port: number, more?: object) => Record<string, unknown>;
  let ports: number[];

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    tunnel = (name, port, more) => ({ ...common, name, local_port: port, ...more });
    ports = await Promise.all([freeLocalPort(), freeLocalPort(), freeLocalPort(), freeLocalPort()]);
    home.configure({}, [
      tunnel('kept', ports[0] ?? 0),
      tunnel('leaving', ports[1] ?? 0),
      tunnel('changed', ports[2] ?? 0),
    ]);
    daemon = await startUp(reaper, home);
  });

  after(async () => {
    await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    home.remove();
  });

  it('starts what is new, stops what has left, restarts what changed, and touches nothing else', async () => {
    const [kept, leaving, changed] = await Promise.all(
      ['kept', 'leaving', 'changed'].map((name) => tunnelIn(home, name, 'up')),
    );
    const options = { ssh_options: { Compression: 'yes' } };
    home.configure({}, [
      tunnel('new', ports[3] ?? 0),
      tunnel('changed', ports[2] ?? 0, options),
      tunnel('kept', ports[0] ?? 0),
    ]);
    process.kill(daemon.pid, 'SIGHUP');
    await tunnelIn(home, 'new', 'up');
    const replaced = async () => (await tunnelIn(home, 'changed', 'up')).pid !== changed.pid;
    expect(await until(replaced, { timeoutMs: 5000 })).to.equal(true);
    expect((await tunnelIn(home, 'kept', 'up')).chain).to.deep.equal(kept.chain);
    expect(isAlive(leaving.pid)).to.equal(false);
    const { body } = await home.api('GET', '/v1/tunnels');
    expect(body.tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(['new', 'changed', 'kept']);
    expect(home.logLines(leaving.id).at(-1)).to.match(/Stopped$/);
  });

  it('changes nothing for a file that is wrong, and says why', async () => {
    const before = await tunnels();
    home.configure({}, [tunnel('new', 99_999)]);
    process.kill(daemon.pid, 'SIGHUP');
    expect(
      await until(() => /local_port: expected a port from 1 to 65535/.test(daemon.stderr()), { timeoutMs: 5000 }),
    ).to.equal(true);
    expect(await tunnels()).to.deep.equal(before);
  });

  /** All but what they use, which goes on changing. */
  async function tunnels(): Promise<object[]> {
    const { body } = await home.api('GET', '/v1/tunnels');
    return body.tunnels.map(({ usage: _usage, ...rest }: Record<string, unknown>) => rest);
  }
});

describe('an edit of the configuration is seen', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let echo: net.Server;
  let kept: Record<string, unknown>;
  let other: (port: number, more?: object) => Record<string, unknown>;
  let ports: number[];

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    echo = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    ports = await Promise.all(Array.from({ length: 5 }, freeLocalPort));
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile };
    const target = `127.0.0.1:${(echo.address() as AddressInfo).port}`;
    kept = { ...common, name: 'kept', remote_port: target, local_port: ports[0] };
    other = (port, more) => ({ ...common, name: `on ${port}`, remote_port: target, local_port: port, ...more });
    writeFileSync(home.configFile, textOf([kept]));
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'kept', 'up');
  });

  after(async () => {
    await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    echo?.close();
    home.remove();
  });

  function textOf(tunnels: readonly object[], more: object = {}): string {
    const folders = { log_dir: home.logDir, state_dir: home.stateDir, api: { socket: home.socket } };
    return `${JSON.stringify({ ...folders, ...more, tunnels }, null, 2)}\n`;
  }

  /** What the daemon has said of the file so far, one text for each time. */
  function said(): string[] {
    return daemon.stderr().match(/(?<=configuration \S+ read again: ).*|configuration rejected.*/g) ?? [];
  }

  /** Makes an edit, waits until it is told, and answers all that has been told since. */
  async function toldOf(edit: () => void | Promise<void>, wanted: RegExp): Promise<string[]> {
    const before = said().length;
    await edit();
    const isTold = () =>
      said()
        .slice(before)
        .some((text) => wanted.test(text));
    expect(await until(isTold, { timeoutMs: 10_000 }), daemon.stderr()).to.equal(true);
    return said().slice(before);
  }

  const saves: Record<string, (text: string) => void> = {
    'written in place': (text) => writeFileSync(home.configFile, text),
    'by an editor that renames a new file over it': (text) => {
      writeFileSync(`${home.configFile}.tmp`, text);
      renameSync(`${home.configFile}.tmp`, home.configFile);
    },
    'by an editor that moves the old file away first': (text) => {
      renameSync(home.configFile, `${home.configFile}~`);
      writeFileSync(home.configFile, text);
    },
  };
  for (const [how, save] of Object.entries(saves)) {
    it(`once, ${how}`, async () => {
      const [, port = 0] = ports;
      expect(await toldOf(() => save(textOf([kept, other(port)])), /added/)).to.deep.equal([`added on ${port}`]);
      await tunnelIn(home, `on ${port}`, 'up');
      expect(await toldOf(() => save(textOf([kept])), /removed/)).to.deep.equal([`removed on ${port}`]);
      expect(await until(async () => (await names()).length === 1, { timeoutMs: 5000 })).to.equal(true);
    });
  }

  it('once, by the swap of a link, as Kubernetes does it', async () => {
    const [, one = 0, two = 0] = ports;
    const publish = (version: string, text: string) => {
      mkdirSync(join(home.dir, version));
      writeFileSync(join(home.dir, version, 'tunward.yaml'), text);
      symlinkSync(version, join(home.dir, '..tmp'));
      renameSync(join(home.dir, '..tmp'), join(home.dir, '..data'));
    };
    const first = await toldOf(() => {
      publish('..1', textOf([kept, other(one)]));
      unlinkSync(home.configFile);
      symlinkSync('..data/tunward.yaml', home.configFile);
    }, /added/);
    expect(first).to.deep.equal([`added on ${one}`]);
    const second = await toldOf(() => {
      publish('..2', textOf([kept, other(one), other(two)]));
      rmSync(join(home.dir, '..1'), { recursive: true });
    }, /added/);
    expect(second).to.deep.equal([`added on ${two}`]);
    await toldOf(() => {
      unlinkSync(home.configFile);
      writeFileSync(home.configFile, textOf([kept]));
    }, /removed/);
  });

  it('and the last of many is what holds', async () => {
    const [, one = 0, two = 0, three = 0] = ports;
    await toldOf(
      () => {
        for (const port of [one, two, three]) writeFileSync(home.configFile, textOf([kept, other(port)]));
      },
      new RegExp(`added on ${three}`),
    );
    expect(await names()).to.deep.equal(['kept', `on ${three}`]);
    await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /removed/);
  });

  it('also one that is made while the one before it is being carried out', async () => {
    const [, one = 0, two = 0] = ports;
    await toldOf(() => writeFileSync(home.configFile, textOf([kept, other(one)])), /added/);
    await tunnelIn(home, `on ${one}`, 'up');
    // Told before it is done: the tunnel that leaves is still being taken down.
    await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /removed/);
    await toldOf(() => writeFileSync(home.configFile, textOf([kept, other(two)])), /added/);
    await tunnelIn(home, `on ${two}`, 'up');
    await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /removed/);
  });

  it('and touches nobody else: a connection through another tunnel goes on', async () => {
    const [port = 0, one = 0] = ports;
    const before = await tunnelIn(home, 'kept', 'up');
    const socket = net.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    await toldOf(() => writeFileSync(home.configFile, textOf([kept, other(one)])), /added/);
    await toldOf(() => {
      writeFileSync(home.configFile, textOf([kept, other(one, { ssh_options: { Compression: 'yes' } })]));
    }, /changed/);
    await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /removed/);
    socket.write('still here');
    const [answer] = await once(socket, 'data');
    expect(String(answer)).to.equal('still here');
    socket.destroy();
    const { pid, chain, since } = await tunnelIn(home, 'kept', 'up');
    expect({ pid, chain, since }).to.deep.equal({ pid: before.pid, chain: before.chain, since: before.since });
  });

  it('and stops no tunnel while it is half written', async () => {
    const before = await tunnelIn(home, 'kept', 'up');
    const [, one = 0] = ports;
    writeFileSync(`${home.configFile}.next`, textOf([kept, other(one)]));
    // A copy over a slow line: nothing for a while, half of it for a while, all of it.
    const script = ': > "$1"; sleep 0.4; head -c 200 "$2" > "$1"; sleep 0.4; cat "$2" > "$1"';
    const told = await toldOf(() => {
      const files = [home.configFile, `${home.configFile}.next`];
      reaper.own(spawn('sh', ['-c', script, 'sh', ...files], { stdio: 'ignore' }));
    }, /added/);
    expect(told).to.deep.equal([`added on ${one}`]);
    expect((await tunnelIn(home, 'kept', 'up')).pid).to.equal(before.pid);
    await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /removed/);
  });

  it('and one that is wrong changes nothing, and is told with the reason', async () => {
    const before = await tunnelIn(home, 'kept', 'up');
    const told = await toldOf(
      () => writeFileSync(home.configFile, textOf([{ ...kept, local_port: 99_999 }])),
      /rejected/,
    );
    expect(told[0]).to.match(
      /rejected, nothing changed {2}\S+:\d+:\d+: tunnels\[0\]\.local_port: expected a port from/,
    );
    expect((await tunnelIn(home, 'kept', 'up')).pid).to.equal(before.pid);
    expect(await toldOf(() => writeFileSync(home.configFile, textOf([kept])), /no tunnel changed/)).to.have.length(1);
  });

  it('and so is a file that has gone, as what it is, and its coming back', async () => {
    const before = await tunnelIn(home, 'kept', 'up');
    const gone = await toldOf(() => renameSync(home.configFile, `${home.configFile}.away`), /rejected/);
    expect(gone).to.have.length(1);
    expect(gone[0]).to.contain('found nothing');
    await toldOf(() => renameSync(`${home.configFile}.away`, home.configFile), /no tunnel changed/);
    expect((await tunnelIn(home, 'kept', 'up')).pid).to.equal(before.pid);
  });

  it('and a pipe in its place hangs nobody', async () => {
    const told = await toldOf(() => {
      unlinkSync(home.configFile);
      execFileSync('mkfifo', [home.configFile]);
    }, /rejected/);
    expect(told[0]).to.contain('expected a regular file, found a pipe or a device');
    await toldOf(() => {
      unlinkSync(home.configFile);
      writeFileSync(home.configFile, textOf([kept]));
    }, /no tunnel changed/);
  });

  it('and does not take a dead tunnel for an unchanged one', async () => {
    const before = await tunnelIn(home, 'kept', 'up');
    process.kill(before.pid, 'SIGKILL');
    const [, one = 0] = ports;
    await toldOf(() => writeFileSync(home.configFile, textOf([kept, other(one)])), /added/);
    const revived = async () => (await tunnelIn(home, 'kept', 'up')).pid !== before.pid;
    expect(await until(revived, { timeoutMs: 10_000, everyMs: 50 })).to.equal(true);
  });

  async function names(): Promise<string[]> {
    const { body } = await home.api('GET', '/v1/tunnels');
    return body.tunnels.map(({ name }: { name: string }) => name);
  }
});

describe('an edit without an event', () => {
  const reaper = createReaper();
  const dirs: Home[] = [];

  afterEach(async () => {
    await reaper.end();
    for (const home of dirs.splice(0)) home.remove();
  });

  /** A daemon without tunnels, started through a command that takes the events from it. */
  async function start(through: readonly string[], keys: object = {}) {
    const home = makeHome();
    dirs.push(home);
    const write = (file: string, names: readonly string[]) => {
      const folders = { log_dir: home.logDir, state_dir: home.stateDir, api: { socket: home.socket }, ...keys };
      // They need a person, so nothing is started.
      const tunnels = names.map((name, at) => ({
        ...{ name, remote_host: 'me@host', remote_port: 80, local_port: 9001 + at, interactive: true },
      }));
      writeFileSync(file, `${JSON.stringify({ ...folders, tunnels })}\n`);
    };
    const mounted = join(home.dir, 'mounted', 'tunward.yaml');
    mkdirSync(join(home.dir, 'mounted'));
    write(home.configFile, []);
    write(mounted, []);
    const words = through.map((word) => word.replace('MOUNTED', mounted).replace('CONFIG', home.configFile));
    const daemon = spawnUp(reaper, { ...home, through: words });
    const says = async (text: string) => {
      const isSaid = () => daemon.stderr().includes(text);
      expect(await until(isSaid, { timeoutMs: 10_000 }), `${text}: ${daemon.stderr()}`).to.equal(true);
    };
    await says('ready');
    return { daemon, says, write, mounted, configFile: home.configFile };
  }

  it('is seen by what the file says: a single file that is mounted, and written elsewhere', async function () {
    need(this, 'root', 'unshare');
    const { daemon, says, write, mounted } = await start([
      ...['unshare', '-m', 'sh', '-c', 'mount --bind "$1" "$2" && shift 2 && exec "$@"', 'sh', 'MOUNTED', 'CONFIG'],
    ]);
    write(mounted, ['web']);
    await says('read again: added web');
    const began = performance.now();
    write(mounted, ['web', 'db']);
    await says('read again: added db');
    expect(performance.now() - began, 'without an event').to.be.greaterThan(1000);
    expect(daemon.stderr()).not.to.contain('not watched');
    await daemon.end('SIGTERM');
  });

  it('is for a SIGHUP to tell where the file says so: reload: signal', async () => {
    const { daemon: watching } = await start([]);
    expect(await until(() => hasWatches(watching.pid), { timeoutMs: 5000 })).to.equal(true);
    const { daemon, says, write, configFile } = await start([], { reload: 'signal' });
    expect(hasWatches(daemon.pid)).to.equal(false);
    write(configFile, ['web']);
    process.kill(daemon.pid, 'SIGHUP');
    await says('read again: added web');
    await Promise.all([daemon.end('SIGTERM'), watching.end('SIGTERM')]);
  });

  /** Does a process have a watch on any file? */
  function hasWatches(pid: number): boolean {
    const folder = `/proc/${pid}/fdinfo`;
    return readdirSync(folder).some((fd) => readFileSync(join(folder, fd), 'utf8').includes('inotify wd:'));
  }

  const limits: Record<string, string> = { ENOSPC: 'max_inotify_watches', EMFILE: 'max_inotify_instances' };
  for (const [code, limit] of Object.entries(limits)) {
    it(`is seen where the kernel gives no watch (${code}), which is said once`, async function () {
      need(this, 'userns');
      const { daemon, says, write, configFile } = await start([
        ...['unshare', '-U', '-r', 'sh', '-c', `echo 0 > /proc/sys/user/${limit} && exec "$@"`, 'sh'],
      ]);
      await says(`cannot be watched (${code}: `);
      for (const names of [['web'], ['web', 'db']]) {
        write(configFile, names);
        await says(`read again: added ${names.at(-1)}`);
      }
      expect(daemon.stderr().match(/not watched/g)).to.have.length(1);
      await daemon.end('SIGTERM');
    });
  }
});
