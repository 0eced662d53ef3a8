/** A seamless tunnel on a fake engine: its runner by the real clock, a target that echoes, and clients of its port. */
import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { createGate } from '#lib/tunnel/gate.js';
import { createRounds } from '#lib/tunnel/rounds.js';
import { createRunner, type Runner, type TunnelEvent } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeEngine, type FakeEngine, type FakeLink, nobody } from './fakeengine.js';
import { freeLocalPort } from './port.js';
import { type LocalServer, startServer } from './servers.js';
import { makeSpec } from './specs.js';

/** Longer than any test takes. */
export const seamless = { drainMs: 20_000, connectWaitMs: 20_000 };
export const deadline = { timeoutMs: 10_000 };

export interface Client {
  readonly socket: net.Socket;
  /** All that came back. */
  heard(): string;
  /** How it was ended: `end`, or the code of an error; undefined: it goes on. */
  end(): string | undefined;
  /** Waits until these words have come back. */
  say(words: string): Promise<void>;
}

export interface SeamlessScene {
  readonly engine: FakeEngine;
  readonly runner: Runner;
  readonly events: readonly TunnelEvent[];
  readonly port: number;
  /** What `Math.random()` would say. */
  random: number;
  specOf(changes?: Partial<TunnelSpec>): TunnelSpec;
  /** To the tunnel's port, where no other is named. */
  connect(port?: number): Promise<Client>;
  expectRefused(port?: number): Promise<void>;
  /** Starts it, has a client connected, and restarts it: answers the link of before, which that client keeps. */
  startReplaced(): Promise<FakeLink>;
}

/**
 * One for each test of the suite. At the end of each it is closed, whatever its links were held by lets go, and nothing of it
 * may be left: no link, and nobody who listens.
 */
export function useSeamless(): () => SeamlessScene {
  let scene: SeamlessScene & { close(): Promise<void> };
  beforeEach(async () => {
    scene = await openSeamless();
  });
  afterEach(() => scene.close());
  return () => scene;
}

async function openSeamless(): Promise<SeamlessScene & { close(): Promise<void> }> {
  const target: LocalServer = await startServer((socket) => socket.pipe(socket), { allowHalfOpen: true });
  const port = await freeLocalPort();
  const engine = createFakeEngine();
  engine.target = target.port;
  const events: TunnelEvent[] = [];
  const clients: Client[] = [];
  const specOf = (changes: Partial<TunnelSpec> = {}) =>
    makeSpec({ side: 'local', listen: { host: '127.0.0.1', port }, seamless, ...changes });
  const runner = createRunner(specOf(), {
    proc: openProc(),
    clock: systemClock,
    random: () => scene.random,
    gate: createGate({ concurrency: 16, perHost: 8, intervalMs: 0 }, systemClock),
    rounds: createRounds(systemClock),
    publish: (event) => events.push(event),
    engineFor: () => engine,
    clearLeftovers: async () => ({ kill: nobody, layers: {} }),
    logFileOf: () => null,
  });
  const scene: SeamlessScene = {
    ...{ engine, runner, events, port, specOf, random: 0 },
    async connect(to = port) {
      const client = await connectTo(to);
      clients.push(client);
      return client;
    },
    async expectRefused(to = port) {
      const [error] = (await once(net.connect(to, '127.0.0.1'), 'error')) as [NodeJS.ErrnoException];
      expect(error.code).to.equal('ECONNREFUSED');
    },
    async startReplaced() {
      await runner.start();
      await (await scene.connect()).say('x');
      await runner.restart();
      expect(engine.running()).to.have.length(2);
      return engine.link(0);
    },
  };
  return Object.assign(scene, {
    async close() {
      for (const link of engine.links) Object.assign(link, { survivors: [], holdStop: Promise.resolve() });
      await runner.close();
      for (const { socket } of clients) socket.destroy();
      await until(() => engine.running().length === 0, deadline);
      await target[Symbol.asyncDispose]();
      expect(engine.running()).to.deep.equal([]);
      expect(runner.status().state).to.equal('stopped');
      await scene.expectRefused();
    },
  });
}

async function connectTo(port: number): Promise<Client> {
  const socket = net.connect(port, '127.0.0.1').setEncoding('utf8');
  let text = '';
  let end: string | undefined;
  socket.on('data', (chunk: string) => {
    text += chunk;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    end = error.code;
  });
  socket.once('end', () => {
    end ??= 'end';
  });
  await once(socket, 'connect');
  return {
    socket,
    heard: () => text,
    end: () => end,
    async say(words) {
      const before = text;
      socket.write(words);
      expect(await until(() => text === before + words, deadline), `echo of ${words}`).to.equal(true);
    },
  };
}
