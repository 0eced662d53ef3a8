import { once } from 'node:events';
import net from 'node:net';
import type { KillReport, Survivor } from '#lib/kill.js';
import type { Asking, Engine, Link, LinkExit, LinkState } from '#lib/tunnel/engine.js';
import type { Carrier } from '#lib/tunnel/front/carrier.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';

/** One link that was started, and what a test does to it. */
export interface FakeLink {
  readonly spec: TunnelSpec;
  /** What `check` answers. */
  state: LinkState;
  /** `check` fails with it. */
  trouble: Error | undefined;
  /** How long `check` takes, to say what was so when it began: until this is fulfilled. */
  holdCheck: Promise<unknown> | undefined;
  /** Hears of every `check`. */
  onCheck: () => void;
  /** What `stop` cannot end, until the test empties it. */
  survivors: Survivor[];
  /** How long `stop` takes: until this is fulfilled. */
  holdStop: Promise<unknown>;
  /** Who answers it, as it was started with. */
  readonly asking: Asking | undefined;
  /** Hears of every `release`. */
  onRelease: () => void;
  /** How often `stop` was asked for. */
  stops: number;
  isRunning(): boolean;
  /** It says by itself that it is ready. */
  announce(): void;
  /** It ends by itself. */
  exit(how?: Partial<LinkExit>): void;
  /** The port that the server chose. */
  allocated: number | undefined;
  say(line: string): void;
}

export interface FakeEngine extends Engine {
  /** Every link there ever was, in order. */
  readonly links: readonly FakeLink[];
  /** Those that run now. More than one is a leak. */
  running(): FakeLink[];
  /** The one at that place among them, from 0; -1 is the last. Throws when there is none. */
  link(at: number): FakeLink;
  last(): FakeLink;
  /** What the links of the coming starts answer first: `ready` when nothing is said. */
  first: LinkState;
  /** Where the carriers of the coming links connect to: a port of 127.0.0.1. */
  target: number;
  /** The coming starts fail with it. */
  failure: Error | undefined;
  /** The coming starts take until this is fulfilled. They do not heed their signal: the worst that an engine may do. */
  holdStart: Promise<unknown>;
}

/** An engine without processes: a link is up, silent, frozen or gone as the test says. */
export function createFakeEngine(): FakeEngine {
  const links: FakeLink[] = [];
  const engine: FakeEngine = {
    name: 'ssh',
    links,
    running: () => links.filter((link) => link.isRunning()),
    link: (at) => {
      const link = links.at(at);
      if (!link) throw new Error('No such link was started');
      return link;
    },
    last: () => engine.link(-1),
    first: 'ready',
    target: 0,
    failure: undefined,
    holdStart: Promise.resolve(),
    async start(spec, { onOutput, asking, isBehindFront = false }) {
      await engine.holdStart;
      if (engine.failure) throw engine.failure;
      const [fake, link] = createLink(spec, {
        ...{ number: links.length + 1, first: engine.first, onOutput, asking },
        target: isBehindFront ? engine.target : undefined,
      });
      links.push(fake);
      return link;
    },
  };
  return engine;
}

interface LinkPlan {
  readonly number: number;
  readonly first: LinkState;
  readonly onOutput: (line: string) => void;
  readonly asking: Asking | undefined;
  readonly target: number | undefined;
}

function createLink(spec: TunnelSpec, { number, first, onOutput, asking, target }: LinkPlan): [FakeLink, Link] {
  let isRunning = true;
  let lastLine: string | null = null;
  let finish: (exit: LinkExit) => void = () => undefined;
  const exited = new Promise<LinkExit>((resolve) => {
    finish = resolve;
  });
  const { held: ready, release: announce } = createHold();
  const sockets = new Set<net.Socket>();
  const end = (exit: LinkExit) => {
    isRunning = false;
    for (const socket of sockets) socket.destroy();
    finish(exit);
  };
  const fake: FakeLink = {
    spec,
    state: first,
    trouble: undefined,
    holdCheck: undefined,
    onCheck: () => undefined,
    survivors: [],
    holdStop: Promise.resolve(),
    stops: 0,
    asking,
    onRelease: () => undefined,
    allocated: undefined,
    isRunning: () => isRunning,
    announce,
    exit: (how = {}) => end({ code: 255, signal: null, reason: 'exited', lastError: null, ...how }),
    say: (line) => {
      lastLine = line;
      onOutput(line);
    },
  };
  const carrier: Carrier = {
    isConfirming: true,
    isAlive: () => isRunning,
    async open(_client, signal) {
      if (!isRunning) throw new Error('The fake link has ended');
      const socket = net.connect({ port: target ?? 0, host: '127.0.0.1', allowHalfOpen: true });
      await once(socket, 'connect', { signal });
      sockets.add(socket.once('close', () => sockets.delete(socket)));
      return socket;
    },
  };
  const link: Link = {
    ...(target === undefined ? {} : { carrier }),
    root: undefined,
    exited,
    ready,
    async check() {
      fake.onCheck();
      if (fake.trouble) throw fake.trouble;
      const seen = isRunning ? fake.state : 'waiting';
      await fake.holdCheck;
      return seen;
    },
    lastLine: () => lastLine,
    allocatedPort: () => fake.allocated,
    refusals: () => ({ count: 0, last: null }),
    release: () => fake.onRelease(),
    async stop() {
      fake.stops++;
      await fake.holdStop;
      if (fake.survivors.length > 0) return { ...nobody, survivors: fake.survivors };
      if (!isRunning) return nobody;
      end({ code: null, signal: 'SIGKILL', reason: 'killed', lastError: null });
      return { ...nobody, killed: [{ pid: 1000 + number, startTicks: number, command: 'fake ssh', why: 'a test' }] };
    },
  };
  return [fake, link];
}

export const nobody: KillReport = { killed: [], left: [], survivors: [], tookMs: 0 };

/** A promise and the means to fulfil it. */
export function createHold(): { readonly held: Promise<void>; release(): void } {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { held, release: () => release() };
}
