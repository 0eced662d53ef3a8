/*
 * `tunward up` in a process of its own, and its API: for the benches that measure the daemon.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { end, loopback, ports, sleep, spawnApart } from './support.mjs';

export const command = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url));

/**
 * Starts a daemon with these tunnels, each `{name, local_port, …}` to the bench's own server. Resolves at once: `untilUp`
 * waits.
 */
export function startDaemon(dir, { sshConfig, tunnels, keys = {} }) {
  const file = path.join(dir, 'tunward.yaml');
  const socket = path.join(dir, 'api.sock');
  const logDir = path.join(dir, 'log');
  const common = { remote_host: 'bench-tunward', remote_port: `${loopback}:${ports.target}` };
  const config = {
    ...{ ssh_config: sshConfig, state_dir: path.join(dir, 'state'), log_dir: logDir, api: { socket }, ...keys },
    tunnels: tunnels.map((tunnel) => ({ ...common, ...tunnel })),
  };
  writeFileSync(file, toYaml(config), { mode: 0o600 });
  const child = spawnApart(process.execPath, [command, 'up', '-c', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said = `${said}${text}`.slice(-4000);
  });
  return {
    ...{ file, socket, pid: child.pid, untilUp, list, restart, assertNoConflict },
    stop: (timeoutMs) => end(child, 'SIGTERM', timeoutMs),
  };

  /** What the daemon says of its tunnels; undefined while it does not answer yet. */
  async function list() {
    const answer = await ask(socket, 'GET', '/v1/tunnels').catch(() => undefined);
    return answer?.body.tunnels;
  }

  async function untilUp({ timeoutMs = 20_000, everyMs = 50 } = {}) {
    for (const deadline = performance.now() + timeoutMs; ; await sleep(everyMs)) {
      const found = (await list()) ?? [];
      if (found.length === tunnels.length && found.every(({ state }) => state === 'up')) return found;
      if (child.exitCode === null && performance.now() < deadline) continue;
      throw new Error(`the daemon's tunnels are not up: ${said}`);
    }
  }

  /** Restarts a tunnel by its name; answers how long that took, in all and by the daemon's own clock. */
  async function restart(name) {
    const began = performance.now();
    const { status, body } = await ask(socket, 'POST', `/v1/tunnels/${name}/restart`);
    const wholeMs = performance.now() - began;
    if (status !== 200 || body.state !== 'up') throw new Error(`restart of ${name}: ${JSON.stringify(body)}`);
    const { stop_ms: stopMs, free_ms: freeMs, start_ms: startMs } = body.phases;
    return { wholeMs, tookMs: body.took_ms, stopMs, freeMs, startMs, pid: body.tunnel.pid };
  }

  function assertNoConflict() {
    for (const name of readdirSync(logDir)) {
      const line = /^.*(address (already )?in use|cannot listen to port).*$/im.exec(
        readFileSync(path.join(logDir, name), 'utf8'),
      );
      if (line) throw new Error(`${name}: ${line[0]}: this is what never happens, the figures are worth nothing`);
    }
  }
}

/** As people write it: JSON, which is YAML too, is read in another way. */
function toYaml({ tunnels, ...keys }) {
  const lines = Object.entries(keys).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  const items = tunnels.flatMap((tunnel) =>
    Object.entries(tunnel).map(([key, value], at) => `${at === 0 ? '  - ' : '    '}${key}: ${value}`),
  );
  return `${[...lines, 'tunnels:', ...items].join('\n')}\n`;
}

export function ask(socketPath, method, target) {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, method, path: target, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.once('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }));
      response.once('error', reject);
    });
    request.once('error', reject);
    request.end();
  });
}
