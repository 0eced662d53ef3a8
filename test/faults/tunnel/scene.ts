// What S1 starts: tunnels that are well, and such as have something in their way.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { fetchText } from '../../support/daemon.js';
import { freeLocalPort } from '../../support/port.js';
import { sendSignal } from '../../support/proc.js';
import { isMute, type LocalServer, startRelay, startServer, startService } from '../../support/servers.js';
import { type Sshd, startSshd } from '../../support/sshd.js';
import { knownHostsFor, refusalOf, tunnelTo, type Wanted, writeConfig } from './rig.js';

export interface Case {
  readonly spec: TunnelSpec;
  /** Does somebody answer behind it? */
  readonly answers: boolean;
  /** Starts it anew, and expects what is to come of it. Answers how long it took to notice what was done to it. */
  start(supervisor: Supervisor): Promise<number[] | undefined>;
}

export interface Scene {
  readonly cases: readonly Case[];
  readonly serverPid: number;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function openScene(): Promise<Scene> {
  const opened: AsyncDisposable[] = [];
  const open = <T extends AsyncDisposable>(thing: T): T => {
    opened.push(thing);
    return thing;
  };
  const [back, taken] = [await freeLocalPort(), await freeLocalPort()];
  const sshd = open(
    await startSshd({ extra: [`PermitListen localhost:${back} 127.0.0.1:${back} 127.0.0.1:${taken}`] }),
  );
  const service = open(await startService());
  const parts = { sshd, service, open };
  const cases = [
    ...(await healthyCases(parts, back)),
    ...(await closedCases(parts)),
    await frozenCase(parts),
    await stalledCase(parts),
    ...(await strangerCases(parts)),
    ...(await changedKeyCases(parts)),
    ...(await ungrantedCases(parts, taken)),
    await muteCase(parts),
  ];
  const close = async () => {
    for (const thing of opened.reverse()) await thing[Symbol.asyncDispose]();
  };
  return { cases, serverPid: sshd.pid, [Symbol.asyncDispose]: close };
}

interface Parts {
  readonly sshd: Sshd;
  readonly service: LocalServer;
  /** Closes it with the scene. */
  readonly open: <T extends AsyncDisposable>(thing: T) => T;
}

const comesUp = (spec: TunnelSpec, answers = true): Case => ({
  spec,
  answers,
  async start(supervisor) {
    const { state, tunnel } = await supervisor.restart(spec.id);
    expect(state, spec.name).to.equal('up');
    if (answers) expect(await fetchText(tunnel.listen[0]?.port ?? 0), spec.name).to.equal('served');
    return undefined;
  },
});

/** It fails, and is told of why. */
const fails = (spec: TunnelSpec, code: RegExp, reason?: string): Case => ({
  spec,
  answers: false,
  async start(supervisor) {
    const error = await refusalOf(supervisor.restart(spec.id));
    expect(error.code, `${spec.name}: ${error.message}`).to.match(code);
    if (reason !== undefined)
      expect(supervisor.status(spec.id), `${spec.name}: ${error.message}`).to.include({ reason });
    return undefined;
  },
});

async function make({ sshd, service }: Parts, wanted: Omit<Wanted, 'port' | 'target'> & Partial<Wanted>) {
  return tunnelTo(sshd, { port: await freeLocalPort(), target: service.port, ...wanted });
}

async function healthyCases(parts: Parts, back: number): Promise<Case[]> {
  return [
    comesUp(await make(parts, { name: 'ssh' })),
    comesUp(await make(parts, { name: 'autossh', engine: 'autossh' })),
    comesUp(await make(parts, { name: 'remote', side: 'remote', port: back })),
  ];
}

const check = { http: null, everyMs: 200, timeoutMs: 1500 };

/** Nobody listens behind them: that is for a check to find, and the listening sockets are there. */
async function closedCases(parts: Parts): Promise<Case[]> {
  const target = await freeLocalPort();
  const unchecked = await make(parts, { name: 'closed target', target });
  const checked = await make(parts, { name: 'closed target, checked', target, check });
  return [
    comesUp(unchecked, false),
    {
      ...comesUp(checked, false),
      async start(supervisor) {
        await supervisor.restart(checked.id);
        const isDegraded = () => supervisor.status(checked.id).health === 'degraded';
        expect(await until(isDegraded, { timeoutMs: 5000 }), 'degraded').to.equal(true);
        expect(supervisor.status(checked.id)).to.include({ state: 'up', reason: 'target_refused' });
        return undefined;
      },
    },
  ];
}

/** Its ssh is stopped when it is up, and continued when that has been noticed. */
async function frozenCase(parts: Parts): Promise<Case> {
  const spec = await make(parts, { name: 'frozen' });
  return {
    ...comesUp(spec),
    async start(supervisor) {
      const { tunnel } = await supervisor.restart(spec.id);
      const began = systemClock.now();
      for (const ref of tunnel.chain) sendSignal(ref, 'SIGSTOP');
      const isNoticed = () => supervisor.status(spec.id).state !== 'up';
      expect(await until(isNoticed, { timeoutMs: 5000 }), 'noticed').to.equal(true);
      const tookMs = systemClock.now() - began;
      expect(supervisor.status(spec.id)).to.include({ state: 'starting', reason: 'frozen' });
      for (const ref of tunnel.chain) sendSignal(ref, 'SIGCONT');
      return [tookMs];
    },
  };
}

/** Its network takes nothing more, while its ssh lives and listens. */
async function stalledCase(parts: Parts): Promise<Case> {
  const relay = parts.open(await startRelay(parts.sshd.port));
  const sshOptions = { Port: String(relay.port), UserKnownHostsFile: knownHostsFor(parts.sshd, relay.port) };
  const spec = await make(parts, { name: 'stalled', check, sshOptions });
  return {
    ...comesUp(spec),
    async start(supervisor) {
      await supervisor.restart(spec.id);
      const becomes = (health: string) => () => supervisor.status(spec.id).health === health;
      expect(await until(becomes('ok'), { timeoutMs: 5000 }), 'well').to.equal(true);
      relay.stall();
      expect(await until(becomes('degraded'), { timeoutMs: 5000 }), 'degraded').to.equal(true);
      relay.go();
      return undefined;
    },
  };
}

/** Somebody has an address of it: from the start, or since it was proved free. */
async function strangerCases(parts: Parts): Promise<Case[]> {
  const port = await freeLocalPort();
  parts.open(await startServer(isMute, { port, host: '::1' }));
  const half = await make(parts, { name: 'half taken', port, takeover: 'any' });
  return [
    fails(half, /^ERR_PORT_HELD$/, 'local_port_busy'),
    await overtakenCase(parts, { name: 'half overtaken', hosts: ['::1'] }),
    await overtakenCase(parts, { name: 'overtaken', hosts: ['127.0.0.1', '::1'] }),
  ];
}

/** The stranger comes while ssh logs in, before it listens, and ssh is told not to mind. */
async function overtakenCase(parts: Parts, { name, hosts }: { name: string; hosts: readonly string[] }): Promise<Case> {
  const { sshd, open } = parts;
  const port = await freeLocalPort();
  let strangers: LocalServer[] = [];
  const come = async () => {
    strangers = await Promise.all(hosts.map((host) => startServer(isMute, { port, host })));
  };
  const leave = () => void Promise.all(strangers.map((stranger) => stranger[Symbol.asyncDispose]()));
  const relay = open(await startRelay(sshd.port, { onConnect: come, onLeave: leave }));
  const spec = await make(parts, {
    name,
    port,
    sshConfig: writeConfig(sshd, 'careless', ['ExitOnForwardFailure no']),
    sshOptions: { Port: String(relay.port), UserKnownHostsFile: knownHostsFor(sshd, relay.port) },
  });
  // Held: by the stranger of the start before.
  return fails(spec, /^ERR_(START_FAILED|PORT_HELD)$/, 'local_port_busy');
}

/** Another key than known_hosts has. With StrictHostKeyChecking off ssh connects all the same, and forwards nothing. */
async function changedKeyCases(parts: Parts): Promise<Case[]> {
  const { sshd } = parts;
  const [type, key] = readFileSync(`${sshd.identityFile}.pub`, 'utf8').split(' ');
  const file = join(sshd.dir, 'known_hosts.changed');
  writeFileSync(file, `[127.0.0.1]:${sshd.port} ${type} ${key}\n`);
  const strict = writeConfig(sshd, 'changed', [`UserKnownHostsFile ${file}`]);
  const lax = writeConfig(sshd, 'lax', [
    `UserKnownHostsFile ${file}`,
    'StrictHostKeyChecking no',
    'ExitOnForwardFailure no',
  ]);
  const specs = [
    await make(parts, { name: 'changed key', sshConfig: strict }),
    await make(parts, { name: 'changed key, unchecked', sshConfig: lax }),
    await make(parts, { name: 'changed key, unchecked, remote', side: 'remote', sshConfig: lax }),
  ];
  return specs.map((spec) => fails(spec, /^ERR_START_FAILED$/, 'host_key_changed'));
}

/** The server does not listen for it, since somebody else does or since it may not, and ssh is told not to mind. */
async function ungrantedCases(parts: Parts, taken: number): Promise<Case[]> {
  parts.open(await startServer(isMute, { port: taken }));
  const sshConfig = writeConfig(parts.sshd, 'content', ['ExitOnForwardFailure no']);
  const specs = [
    await make(parts, { name: 'remote port taken', side: 'remote', port: taken, sshConfig }),
    await make(parts, { name: 'remote port forbidden', side: 'remote', sshConfig }),
  ];
  return specs.map((spec) => fails(spec, /^ERR_START_FAILED$/, 'remote_port_busy'));
}

/** The server accepts, and says nothing. */
async function muteCase(parts: Parts): Promise<Case> {
  const { port } = parts.open(await startServer(isMute));
  const spec = await make(parts, { name: 'mute', sshOptions: { Port: String(port) }, restartTimeoutMs: 500 });
  return fails(spec, /^ERR_TIMEOUT$/);
}
