/**
 * Two network namespaces and a cable between them: the daemon with a remote forward in this one, its server in the
 * other. The cable is pulled, ssh ends, the cable is back and this host has another address, as after a change of
 * network: so its kernel cannot tell the server that the old connection is over, and the server goes on holding the
 * port. Reported by emit().
 *
 * The addresses are loopback's. The kernel sends those over a cable where route_localnet is on, and where 127.0.0.0/8 is
 * not the local interface's as a whole.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { until } from '#lib/time.js';
import { type Answer, makeHome, startUp, tunnelIn } from '../../support/daemon.js';
import { assertIsolated, emit } from '../../support/namespace.js';
import { buildRoot, which } from '../../support/paths.js';
import { freeLocalPort } from '../../support/port.js';
import { descendantsOf, sendSignal } from '../../support/proc.js';
import { createReaper } from '../../support/reaper.js';

assertIsolated();
/** `alive`: the server looks after its clients, 1 s × 3. `stale`: it does not, and is helped after so many milliseconds. */
const [mode = 'alive', helpAfterMs = '0'] = process.argv.slice(2);
const near = { before: '127.77.0.1', after: '127.77.0.3' };
const ipPath = which('ip') ?? 'ip';
const farAddress = '127.77.0.2';
const reaper = createReaper();
const home = makeHome();
const far = await startFar(
  mode === 'alive' ? ['ClientAliveInterval 1', 'ClientAliveCountMax 3'] : ['ClientAliveInterval 0'],
);
const service = http.createServer((_request, answer) => answer.end('from the near side'));
await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
const remotePort = await freeLocalPort();
configure();
const daemon = await startUp(reaper, home);
const first = await tunnelIn(home, 'back', 'up');
emit('before', { said: await far.ask(`get ${remotePort}`), listens: isHeld() });

ip('link', 'set', 'near', 'down');
const downAt = performance.now();
// With keepalives of its own, ssh notices. Without, it is killed, as by a host that goes to sleep and is woken.
if (mode === 'alive') process.kill(first.pid, 'SIGKILL');
const isCut = async () => (await tunnel()).state !== 'up';
emit('noticed', await until(isCut, { timeoutMs: 10_000, everyMs: 20 }));
ip('addr', 'flush', 'dev', 'near');
ip('addr', 'add', `${near.after}/24`, 'dev', 'near');
ip('link', 'set', 'near', 'up');
const healedAt = performance.now();
const isBusy = async () => (await tunnel()).reason === 'remote_port_busy';
await until(isBusy, { timeoutMs: 15_000, everyMs: 20 });
const busy = await tunnel();
const { reason, remedy, since, next_retry_at: retryAt } = busy;
emit('busy', { reason, remedy, lastError: busy.last_error, waitMs: Date.parse(retryAt) - Date.parse(since) });
if (mode !== 'alive') {
  await until(() => performance.now() - healedAt > Number(helpAfterMs), { timeoutMs: 60_000, everyMs: 50 });
  emit('still held', isHeld());
  for (const session of descendantsOf(far.pid)) sendSignal(session, 'SIGKILL');
}
await until(() => !isHeld(), { timeoutMs: 20_000, everyMs: 10 });
const freedAt = performance.now();
const isUp = async () => (await tunnel()).state === 'up';
await until(isUp, { timeoutMs: 15_000, everyMs: 20 });
const upAt = performance.now();
const after = await tunnel();
emit('after', {
  state: after.state,
  remedy: after.remedy,
  lastError: after.last_error,
  said: await far.ask(`get ${remotePort}`),
  isNew: after.pid !== first.pid,
});
emit('times', {
  afterHealMs: upAt - healedAt,
  freedAfterCutMs: freedAt - downAt,
  afterFreedMs: upAt - freedAt,
});
emit('log', home.logLines(after.id));
emit('exit', await daemon.end('SIGTERM'));
service.closeAllConnections();
service.close();
await far.end();
await reaper.end();
home.remove();

/** Its own ssh_config before the server's, which says 127.0.0.1: what comes first counts. */
function configure(): void {
  const sshConfig = join(home.dir, 'ssh_config');
  const key = `[127.0.0.1]:${far.port}`;
  const lines = ['Host rig', `HostName ${farAddress}`, `HostKeyAlias ${key}`, `Include ${far.sshConfigFile}`];
  writeFileSync(sshConfig, `${lines.join('\n')}\n`);
  const { port } = service.address() as AddressInfo;
  const keepalive = mode === 'alive' ? {} : { ServerAliveInterval: '1', ServerAliveCountMax: '2' };
  const back = { name: 'back', direction: 'local_to_remote', local_port: port, remote_port: remotePort };
  const ssh = { remote_host: 'rig', ssh_config: sshConfig, ssh_options: { ConnectTimeout: '2', ...keepalive } };
  home.configure({ backoff: { min_ms: 100, max_ms: 300 } }, [{ ...back, ...ssh }]);
}

async function tunnel(): Promise<Answer['body']> {
  return (await home.api('GET', '/v1/tunnels/back')).body;
}

/** Does the server hold the port? Its own process's table is that of its namespace. */
function isHeld(): boolean {
  const text = readFileSync(`/proc/${far.pid}/net/tcp`, 'utf8');
  const port = remotePort.toString(16).toUpperCase().padStart(4, '0');
  return text.split('\n').some((line) => line.includes(`0100007F:${port} 00000000:0000 0A`));
}

/** The server in its namespace, and the cable to it. */
async function startFar(extra: readonly string[]) {
  const argv = ['-n', process.execPath, join(buildRoot, 'test/e2e/programs/far-server.js'), farAddress, ...extra];
  const child = spawn(which('unshare') ?? 'unshare', argv, { stdio: ['pipe', 'pipe', 'inherit'], env: process.env });
  reaper.own(child);
  // It has left this namespace before anything is given to it.
  const pid = child.pid ?? 0;
  const namespace = () => readlinkSync(`/proc/${pid}/ns/net`);
  await until(() => namespace() !== readlinkSync('/proc/self/ns/net'), { timeoutMs: 5000 });
  layCable(pid);
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await answers.next()).value ?? 'null');
  const { pid: sshdPid, port, sshConfigFile } = await next();
  const ask = (question: string) => {
    child.stdin.write(`${question}\n`);
    return next();
  };
  const end = async () => {
    child.stdin.end();
    await once(child, 'exit');
  };
  return { pid: sshdPid as number, port: port as number, sshConfigFile: sshConfigFile as string, ask, end };
}

function layCable(farPid: number): void {
  const inFar = [which('nsenter') ?? 'nsenter', '-t', String(farPid), '-n'];
  ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', String(farPid));
  run(...inFar, ipPath, 'link', 'set', 'lo', 'up');
  for (const prefix of [[], inFar]) {
    run(...prefix, '/bin/sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet');
    run(...prefix, ipPath, 'route', 'del', 'local', '127.0.0.0/8', 'dev', 'lo', 'table', 'local');
  }
  ip('addr', 'add', `${near.before}/24`, 'dev', 'near');
  ip('link', 'set', 'near', 'up');
  run(...inFar, ipPath, 'addr', 'add', `${farAddress}/24`, 'dev', 'far');
  run(...inFar, ipPath, 'link', 'set', 'far', 'up');
}

function ip(...words: readonly string[]): void {
  run(ipPath, ...words);
}

function run(...[program = '', ...words]: readonly string[]): void {
  execFileSync(program, words, { stdio: ['ignore', 'ignore', 'inherit'] });
}
