/** H2 of the fault catalogue: many ask at once for the same. H4 and H5 are of a terminal: pty-drop, pty-flood. */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock } from '#lib/time.js';
import { type Home, makeHome, startUp, tunnelIn } from '../support/daemon.js';
import { fault, spread } from '../support/fault.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { startRelay } from '../support/servers.js';
import { startSshd } from '../support/sshd.js';
import { knownHostsFor, processesByTunnel, rootsOf } from './tunnel/rig.js';

/** Fewer than the connections that the daemon takes at once. */
const CALLERS = 200;
const startLine = /Starting tunnel \((remote to local|local to remote)\): /;

describe('fault: many restarts of one tunnel at once', () => {
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  const title = `are one cycle and ${CALLERS} answers alike, by the unix socket and by TCP in turn`;
  fault({ id: 'H2', title, times: 20, reduced: 2, needs }, async (times) => {
    await using reaper = createReaper();
    await using sshd = await startSshd();
    const door = createDoor();
    await using relay = await startRelay(sshd.port, { onConnect: door.pass });
    const home = makeHome();
    try {
      const [port, apiPort] = [await freeLocalPort(), await freeLocalPort()];
      const ssh_options = { Port: String(relay.port), UserKnownHostsFile: knownHostsFor(sshd, relay.port) };
      const tunnel = { name: 'one', remote_host: sshd.host, ssh_config: sshd.sshConfigFile, ssh_options };
      const bounds = { restart_timeout_ms: 60_000, start_timeout_ms: 60_000 };
      // Every start begins a file: all of them are counted.
      home.configure({ api: { socket: home.socket, listen: String(apiPort) }, log: { keep: 100 } }, [
        { ...tunnel, ...bounds, local_port: port, remote_port: `127.0.0.1:${sshd.port}`, engine: 'autossh' },
      ]);
      const daemon = await startUp(reaper, home);
      await tunnelIn(home, 'one', 'up');
      const latencies: number[] = [];
      let cycles = 0;
      for (let round = 0; round < times; round++) {
        const way = round % 2 === 0 ? { socketPath: home.socket } : byTcp(home, apiPort);
        const { tookMs, restarts } = await restartTogether(home, way, door);
        latencies.push(...tookMs);
        cycles += restarts;
      }
      expect(cycles, 'cycles').to.equal(times);
      expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
      return `${cycles} cycles for ${latencies.length} requests, ${spread(latencies)}`;
    } finally {
      await reaper.end();
      home.remove();
    }
  });
});

type Way = Pick<http.RequestOptions, 'socketPath' | 'host' | 'port' | 'headers'>;

function byTcp({ stateDir }: Home, port: number): Way {
  const token = readFileSync(join(stateDir, 'token'), 'utf8').trim();
  return { host: '127.0.0.1', port, headers: { authorization: `Bearer ${token}` } };
}

/** Who is held at it waits until it is opened. */
interface Gate {
  readonly pass: () => Promise<void>;
  hold(): void;
  open(): void;
}

function createDoor(): Gate {
  let passing = Promise.resolve();
  let open = () => {};
  return {
    pass: () => passing,
    hold: () => {
      passing = new Promise((resolve) => {
        open = resolve;
      });
    },
    open: () => open(),
  };
}

/** The cycle cannot end before all have asked: its ssh is let on to the server when the daemon has heard them. */
async function restartTogether(home: Home, way: Way, gate: Gate): Promise<{ tookMs: number[]; restarts: number }> {
  const before = await tunnelIn(home, 'one', 'up');
  const linesBefore = countStarts(home, before.id);
  gate.hold();
  const calls = Array.from({ length: CALLERS }, () => call(way, 'POST', '/v1/tunnels/one/restart'));
  await Promise.all(calls.map(({ sent }) => sent));
  for (let turn = 0; turn < 3; turn++) await call(way, 'GET', '/v1/tunnels/one').answer;
  gate.open();
  const answers = await Promise.all(calls.map(({ answer }) => answer));

  expect(new Set(answers.map(({ status }) => status)), answers[0]?.text).to.deep.equal(new Set([200]));
  expect(new Set(answers.map(({ text }) => text)).size, 'different answers').to.equal(1);
  const { tunnel, kill } = JSON.parse(answers[0]?.text ?? '');
  const pidsOf = (processes: readonly { pid: number }[]) => processes.map(({ pid }) => pid);
  expect(pidsOf(kill.killed), 'killed').to.have.members(pidsOf(before.chain));
  const chain = processesByTunnel().get(before.id) ?? [];
  expect(pidsOf(rootsOf(chain)), 'chains').to.deep.equal([tunnel.pid]);
  expect(pidsOf(chain)).to.have.members(pidsOf(tunnel.chain));
  expect(countStarts(home, before.id) - linesBefore, 'start lines').to.equal(1);
  const { restarts } = await tunnelIn(home, 'one', 'up');
  return { tookMs: answers.map(({ tookMs }) => tookMs), restarts: restarts - before.restarts };
}

function countStarts(home: Home, id: string): number {
  return home.logLines(id).filter((line) => startLine.test(line)).length;
}

/** One request by a connection of its own: when it has left, and what came of it. */
function call(way: Way, method: string, path: string) {
  const began = systemClock.now();
  const request = http.request({ ...way, method, path, agent: false, timeout: 60_000 });
  const answer = new Promise<{ status: number; text: string; tookMs: number }>((resolve, reject) => {
    request.once('error', reject);
    request.once('timeout', () => request.destroy(new Error('ETIMEDOUT')));
    request.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('error', reject);
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, text, tookMs: systemClock.now() - began });
      });
    });
  });
  const sent = new Promise<void>((resolve, reject) => {
    request.once('finish', () => (request.socket?.connecting ? request.socket.once('connect', resolve) : resolve()));
    request.once('error', reject);
  });
  request.end();
  return { sent, answer };
}
