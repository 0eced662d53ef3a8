/** Runs as pid 1 in a root file system of node, ssh and autossh: the main job from end to end, reported by emit(). */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { startChain } from '../../support/chains.js';
import { allGone, makeHome, startUp, tunnelIn } from '../../support/daemon.js';
import { emit } from '../../support/namespace.js';
import { freeLocalPort } from '../../support/port.js';
import { isAlive } from '../../support/proc.js';
import { startClient, startListener } from '../../support/processes.js';
import { createReaper } from '../../support/reaper.js';

const [sshConfigFile = '', sshdPort = ''] = process.argv.slice(2);
const rounds = 5;
emit('programs', readdirSync('/bin').sort());

const reaper = createReaper();
const home = makeHome();
const ports = await Promise.all(Array.from({ length: 7 }, freeLocalPort));
const [plain = 0, chained = 0, back = 0, held = 0, marked = 0, taken = 0, half = 0] = ports;
const target = `127.0.0.1:${sshdPort}`;
const sshd = { sshConfigFile, host: 'rig' as const };

const instance = '0123456789abcdef0123456789abcdef';
mkdirSync(home.stateDir, { recursive: true, mode: 0o700 });
writeFileSync(join(home.stateDir, 'instance'), `${instance}\n`, { mode: 0o600 });
const leftovers = {
  marker: await startChain(reaper, sshd, {
    words: ['-L', `127.0.0.1:${marked}:${target}`],
    env: { TUNNEL_ID: 'f'.repeat(32), TUNWARD_INSTANCE: instance },
    ready: () => accepts(marked),
  }),
  forward: await startChain(reaper, sshd, { words: ['-R', `${back}:${target}`], ready: () => accepts(back) }),
  port: await startChain(reaper, sshd, {
    words: ['-L', `127.0.0.1:${plain}:localhost:1`],
    ready: () => accepts(plain),
  }),
};
const spared = {
  otherAddress: await startChain(reaper, sshd, {
    program: 'ssh',
    words: ['-L', `127.0.0.2:${plain}:${target}`],
    ready: () => accepts(plain, '127.0.0.2'),
  }),
  person: await startChain(reaper, sshd, { program: 'ssh', words: ['-T'], ready: () => true }),
};
await startListener(reaper, { port: taken }).ready;
await startListener(reaper, { port: half, host: '::1' }).ready;
const stranger = await startListener(reaper, { port: held }).ready;
const common = { remote_host: 'rig', ssh_config: sshConfigFile, remote_port: target };
home.configure({}, [
  { ...common, name: 'plain', local_port: plain },
  { ...common, name: 'chained', local_port: chained, engine: 'autossh' },
  { ...common, name: 'back', direction: 'local_to_remote', local_port: target, remote_port: back },
  { ...common, name: 'held', local_port: held },
  { ...common, name: 'taken', direction: 'local_to_remote', local_port: target, remote_port: taken },
  { ...common, name: 'half', local_port: half },
]);
const first = await startUp(reaper, home);
await allUp();
emit(
  'leftovers that live',
  Object.entries(leftovers).flatMap(([name, chain]) => (chain.isAlive() ? [name] : [])),
);
emit(
  'spared that died',
  Object.entries(spared).flatMap(([name, chain]) => (chain.isAlive() ? [] : [name])),
);
const clients = [startClient(reaper, { port: plain }), startClient(reaper, { port: plain, comm: 'ssh' })];
for (const client of clients) await client.ready;

const answers = [];
for (let round = 0; round < rounds; round++) {
  for (const name of ['plain', 'chained', 'back']) {
    const before = await tunnelIn(home, name, 'up');
    const { status, body } = await home.api('POST', `/v1/tunnels/${name}/restart`);
    answers.push({ status, survivors: body.kill?.survivors.length, gone: await allGone(before.chain, 0) });
  }
}
emit('restarts', answers);
emit('clients that live', clients.filter(({ pid, startTicks }) => isAlive(pid, startTicks)).length);
const frozen = await tunnelIn(home, 'chained', 'up');
for (const { pid } of frozen.chain) process.kill(pid, 'SIGSTOP');
const thawed = await home.api('POST', '/v1/tunnels/chained/restart');
emit('frozen', { status: thawed.status, inTime: thawed.body.took_ms < 6000, gone: await allGone(frozen.chain, 0) });
const untrue = await Promise.all(['taken', 'half'].map((name) => home.api('POST', `/v1/tunnels/${name}/restart`)));
emit(
  'never up',
  untrue.map(({ status, body }) => [status, body.code, body.reason ?? null]),
);
const refused = await home.api('POST', '/v1/tunnels/held/restart');
emit('stranger', {
  status: refused.status,
  holder: refused.body.holders?.[0]?.pid === stranger.pid,
  lives: isAlive(stranger.pid),
});
const forced = await home.api('POST', '/v1/tunnels/held/restart?force=true');
emit('forced', { state: forced.body.state, lives: isAlive(stranger.pid, stranger.startTicks) });

const chains = (await allUp()).flatMap(({ chain }) => chain);
await first.end('SIGKILL');
emit(
  'outlived the daemon',
  chains.every(({ pid, start_ticks }) => isAlive(pid, start_ticks)),
);
const second = await startUp(reaper, home);
const after = await allUp();
emit('after the next boot', {
  old: chains.filter(({ pid, start_ticks }) => isAlive(pid, start_ticks)).length,
  attempts: after.map(({ attempt }) => attempt),
});
const logs = after.flatMap(({ id }) => home.logLines(id));
emit(
  'in use',
  logs.filter((line) => /address (already )?in use|cannot listen to port/i.test(line)),
);
emit('exit code', await second.end('SIGTERM'));
// A chain of the daemon names its known_hosts file, which is in the state folder.
emit(
  'left',
  reaper.living().filter(({ command }) => command.includes(home.stateDir)),
);
await reaper.end();
process.exit(0);

async function allUp() {
  return Promise.all(['plain', 'chained', 'back'].map((name) => tunnelIn(home, name, 'up')));
}

function accepts(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
