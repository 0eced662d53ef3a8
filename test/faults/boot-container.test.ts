/** The B group of the fault catalogue, as far as it is about pid 1: a container without an init, and its end. */
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { probeAddress } from '#lib/port/probe.js';
import { until } from '#lib/time.js';
import { type Home, makeHome } from '../support/daemon.js';
import { fault, spread } from '../support/fault.js';
import { type Contained, startContained } from '../support/namespace.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { commandOf, descendantsOf, isAlive, type Stat, sendSignal, statOf } from '../support/proc.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** Docker kills 10 s after SIGTERM. */
const GRACE_MS = 10_000;

describe('the fault catalogue: tunward as pid 1', () => {
  let sshd: Sshd;
  let home: Home;
  let common: Readonly<Record<string, string>>;
  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh', 'root', 'unshare');
    sshd = await startSshd();
    common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
  });
  beforeEach(() => {
    home = makeHome();
  });
  afterEach(() => home.remove());
  after(() => sshd?.stop());

  const counted = 'node as pid 1 works, and counts the zombies that it cannot take away';
  fault({ id: 'B6', title: counted, times: 200, reduced: 12 }, async (times) => {
    const node = await restartAs('node', times);
    expect(node.zombies, 'an ssh whose autossh died with it, or the case shows nothing').to.be.greaterThan(times / 2);
    expect(node.health).to.include({ status: 'ok', pid: 1, pid1: true, zombies: node.zombies });
    expect(node.health.advice).to.contain('docker run --init');
    expect(node.said)
      .to.contain('no init')
      .and.match(/\(1\d zombies now\)/);
    const shell = await restartAs('shell', times);
    expect(shell.zombies, 'with a shell in front that waits').to.equal(0);
    expect(shell.health).to.include({ status: 'ok', pid1: false, zombies: 0 }).and.not.have.property('advice');
    return `${times}/${times} restarts, ${node.zombies} zombies, as /health says; 0 below a shell that waits`;
  });

  const stopped = 'SIGTERM to pid 1 takes every tunnel down in time, and the far side’s ports are free';
  fault({ id: 'B7', title: stopped, times: 20, reduced: 1 }, async (times) => {
    const stops: number[] = [];
    const frees: number[] = [];
    for (let round = 0; round < times; round++) {
      const { stopMs, freeMs } = await stopOnce();
      stops.push(stopMs);
      frees.push(freeMs);
    }
    return `${times}/${times}, 22 tunnels: all down ${spread(stops)}; all ports free after ${spread(frees)}`;
  });

  async function restartAs(pid1: 'node' | 'shell', times: number) {
    home.configure({}, [{ ...common, name: 'chained', engine: 'autossh', local_port: await freeLocalPort() }]);
    await using box = startAsPid1(home, pid1);
    await areUp(box, 1);
    for (let round = 0; round < times; round++) {
      const { status, body } = await home.api('POST', '/v1/tunnels/chained/restart');
      expect(status, JSON.stringify(body)).to.equal(200);
    }
    const first = pid1Of(box);
    // What dies with its last restart is taken away in the next turns of the shell.
    await until(() => pid1 === 'node' || zombiesOf(first).length === 0, { timeoutMs: 5000 });
    const zombies = zombiesOf(first).length;
    const { body: health } = await home.api('GET', '/health');
    await end(box);
    return { zombies, health, said: box.stderr() };
  }

  /** Twenty that are up, one that is stopped by a signal, and one whose server never says a word. */
  async function stopOnce(): Promise<{ stopMs: number; freeMs: number }> {
    await using silent = await startSilent();
    const back = { ...common, direction: 'local_to_remote', local_port: common.remote_port };
    const blackHole = { ...common, remote_host: 'silent.invalid', ssh_options: silent.options };
    const tunnels = [
      ...(await named('plain', 10, async () => ({ ...common, local_port: await freeLocalPort() }))),
      ...(await named('chained', 5, async () => ({ ...common, engine: 'autossh', local_port: await freeLocalPort() }))),
      ...(await named('back', 5, async () => ({ ...back, remote_port: await freeLocalPort() }))),
      ...(await named('frozen', 1, async () => ({ ...common, local_port: await freeLocalPort() }))),
      ...(await named('silent', 1, async () => ({ ...blackHole, local_port: await freeLocalPort() }))),
    ];
    home.configure({}, tunnels);
    await using box = startAsPid1(home, 'node');
    await areUp(box, 21);
    const frozen = (await home.api('GET', '/v1/tunnels/frozen0')).body;
    freeze(box, frozen.listen[0].port);
    const chains = descendantsOf(pid1Of(box).pid);
    expect(chains.length).to.be.at.least(27);
    const stopMs = await end(box);
    const ended = performance.now();
    const living = chains.filter(({ pid, startTicks }) => isAlive(pid, startTicks));
    expect(
      living.map(({ comm, pid }) => `${comm} ${pid}`),
      'alive when it ended',
    ).to.deep.equal([]);
    for (const tunnel of tunnels) {
      const port = Number('direction' in tunnel ? tunnel.remote_port : tunnel.local_port);
      const isFree = async () => (await probeAddress('127.0.0.1', port)) === 'free';
      expect(await until(isFree, { timeoutMs: 5000, everyMs: 2 }), `${tunnel.name} at ${port}`).to.equal(true);
    }
    const freeMs = performance.now() - ended;
    expect(freeMs).to.be.below(2000);
    return { stopMs, freeMs };
  }

  async function areUp(box: Contained, count: number): Promise<void> {
    const isReady = async () => (await countUp()) === count;
    if (await until(isReady, { timeoutMs: 30_000, everyMs: 50 })) return;
    throw new Error(`${count} are not up: ${box.stderr()}`);
  }

  async function countUp(): Promise<number> {
    try {
      const { body } = await home.api('GET', '/v1/tunnels');
      return body.tunnels.filter(({ state }: { state: string }) => state === 'up').length;
    } catch {
      return 0; // it does not answer yet
    }
  }
});

/** The daemon as pid 1 of its own PID namespace, on this network; or below a shell that takes the dead away. */
function startAsPid1(home: Home, pid1: 'node' | 'shell'): Contained {
  const wait = `"$@" & child=$!; trap 'kill -TERM $child' TERM
    wait $child; code=$?; while kill -0 $child 2>/dev/null; do wait $child; code=$?; done; exit $code`;
  const script = pid1 === 'node' ? 'exec "$@"' : wait;
  const argv = [process.execPath, join(repoRoot, 'lib/cli/main.js'), 'up', '-c', home.configFile];
  return startContained([], [script, ...argv], process.env);
}

/** As `docker stop`: SIGTERM to pid 1, and the wait for its end. Answers what that took. */
async function end(box: Contained): Promise<number> {
  const began = performance.now();
  expect(sendSignal(pid1Of(box), 'SIGTERM')).to.equal(true);
  const { code, stderr } = await box.ended;
  const tookMs = performance.now() - began;
  expect(code, stderr).to.equal(0);
  expect(tookMs).to.be.below(GRACE_MS);
  return tookMs;
}

/** From outside: the one child of unshare. */
function pid1Of(box: Contained): Stat {
  const [first] = descendantsOf(box.pid);
  if (!first) throw new Error(`There is no pid 1 in there: ${box.stderr()}`);
  return first;
}

/** By the tests' own reading of /proc. */
function zombiesOf({ pid }: Stat): Stat[] {
  const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return all.flatMap((name) => statOf(Number(name)) ?? []).filter(({ ppid, state }) => ppid === pid && state === 'Z');
}

/** SIGSTOP to the ssh that forwards a port. */
function freeze(box: Contained, port: number): void {
  const ssh = descendantsOf(box.pid).find(({ pid }) => commandOf(pid).includes(`127.0.0.1:${port}:`));
  expect(ssh && sendSignal(ssh, 'SIGSTOP')).to.equal(true);
}

/** An SSH server that takes connections and says nothing. */
async function startSilent() {
  const server = createServer((caller) => caller.on('error', () => undefined).resume());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const options = { HostName: '127.0.0.1', Port: String(port) };
  return { options, [Symbol.asyncDispose]: async () => void server.close() };
}

async function named<T extends object>(name: string, count: number, make: () => Promise<T>) {
  const made = await Promise.all(Array.from({ length: count }, make));
  return made.map((tunnel, at) => ({ name: `${name}${at}`, ...tunnel }));
}
