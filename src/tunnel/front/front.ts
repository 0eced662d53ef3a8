import net from 'node:net';
import { assertMs, type Clock } from '../../time.js';
import type { Bind } from '../spec.js';
import type { Carrier, ClientAddress, Remote } from './carrier.js';
import type { Meter } from './meter.js';
import { adopt, createLargeBuffers, type Pourable } from './pour.js';
import { createRoomCheck } from './room.js';
import { type Splice, splice } from './splice.js';

export interface FrontOptions {
  /** The local addresses. */
  readonly binds: readonly Bind[];
  readonly meter: Meter;
  readonly clock: Clock;
  /** How long a connection waits for a carrier, in milliseconds; 0: it is turned away where there is none. */
  readonly connectWaitMs: number;
  /** So many may wait; who comes after them is turned away at once. Default 1024. */
  readonly queueLimit?: number | undefined;
  /** Is there a descriptor for one more? Whoever comes when there is none is turned away. Default: {@link createRoomCheck}. */
  readonly hasRoom?: (() => boolean) | undefined;
}

/** Listens for a tunnel, and hands each connection to whatever carries just now. */
export interface Front {
  /**
   * Listens on every address, or on none.
   *
   * @throws the error of the address that cannot be bound (`code: 'EADDRINUSE'` …).
   */
  listen(): Promise<void>;
  /** New connections go there from now on, and those that wait at once; null: new ones wait. */
  use(carrier: Carrier | null): void;
  /** Whoever comes from now on waits so long for a carrier, in milliseconds. */
  waitAtMost(connectWaitMs: number): void;
  /** Resolves, with how many were cut, when nothing goes through this carrier any more: those that do after `timeoutMs` are reset. */
  drain(carrier: Carrier, timeoutMs: number): Promise<number>;
  /** Nothing goes through this carrier any more: its clients are reset, a moment later. What is still being opened there waits for another one. */
  cut(carrier: Carrier): void;
  /** Listens no longer; whatever waits is reset, and whatever goes through a moment later. Bounded; idempotent. */
  close(): Promise<void>;
}

/** A server gives up on a silent target after 127 s, by Linux' tcp_syn_retries of 6; ours is the bound for one that says nothing. */
const OPEN_MS = 150_000;

/** For what is destroyed to be closed: a turn of the event loop, mostly. */
const CLOSE_MS = 1000;

/** The kernel caps it by net.core.somaxconn. */
const BACKLOG = 4096;

/** A connection that does not go through yet. */
interface Guest {
  readonly socket: net.Socket & Pourable;
  readonly address: ClientAddress;
  /** Until then it waits for a carrier. */
  readonly deadline: number;
  /** The attempt that is under way at a carrier. */
  attempt: Attempt | undefined;
  /** It goes through, was turned away, or left. */
  isSettled: boolean;
}

interface Attempt {
  readonly route: Route;
  /** Until then the carrier must have made the connection. */
  readonly deadline: number;
  readonly abort: AbortController;
}

/** What goes, and is about to go, through one carrier. It is there as long as there is any. */
interface Route {
  readonly carrier: Carrier;
  readonly opening: Set<Guest>;
  readonly splices: Set<Splice>;
  readonly onIdle: (() => void)[];
}

/**
 * Holds the addresses of a tunnel for as long as it is wanted, whatever becomes of its links.
 *
 * @example
 * const front = createFront({ binds, meter, clock, connectWaitMs: 10_000 });
 * await front.listen();
 * front.use(next);
 * await front.drain(former, 30_000);
 */
export function createFront({ binds, meter, clock, queueLimit = 1024, ...options }: FrontOptions): Front {
  assertMs('connectWaitMs', options.connectWaitMs);
  const { hasRoom = createRoomCheck() } = options;
  let { connectWaitMs } = options;
  const servers = new Set<net.Server>();
  const large = createLargeBuffers();
  /** By their deadlines, which is also the order in which they came. */
  const waiting: Guest[] = [];
  /** Those being opened, by the deadlines of their attempts. */
  const opening = new Set<Guest>();
  const routes = new Map<Carrier, Route>();
  let current: Carrier | null = null;
  let watch: { readonly until: number; readonly abort: AbortController } | undefined;
  let closing: Promise<void> | undefined;
  return {
    listen,
    use,
    waitAtMost: (ms) => {
      assertMs('connectWaitMs', ms);
      connectWaitMs = ms;
    },
    drain,
    cut,
    close: () => {
      closing ??= close();
      return closing;
    },
  };

  async function listen(): Promise<void> {
    try {
      for (const bind of binds) servers.add(await listenOn(bind, accept));
    } catch (error) {
      await closeServers();
      throw error;
    }
    if (closing) await closeServers();
  }

  async function closeServers(): Promise<void> {
    const closed = [...servers].map((server) => new Promise((resolve) => server.close(resolve)));
    servers.clear();
    await within(CLOSE_MS, Promise.all(closed));
  }

  function accept(accepted: net.Socket): void {
    const socket = adopt(large, accepted);
    const { remoteAddress = '', remotePort = 0 } = socket;
    const guest: Guest = {
      socket,
      address: { address: remoteAddress, port: remotePort },
      deadline: clock.now() + connectWaitMs,
      attempt: undefined,
      isSettled: false,
    };
    meter.accepted();
    // An error is followed by 'close', which acts.
    socket.on('error', () => undefined).once('close', () => leave(guest));
    // By a reset, as all others are: with no descriptor left libuv accepts and closes, which is a clean end to a client.
    if (!hasRoom()) return refuse(guest);
    // Reads one piece and keeps it: of a socket that nobody reads it is not heard that the client has reset it.
    socket.read(0);
    proceed(guest);
  }

  /** To the carrier, or to those who wait for one; `former` has just failed it. */
  function proceed(guest: Guest, former?: Carrier): void {
    if (closing) return refuse(guest);
    if (current && current !== former && current.isAlive()) return begin(guest, current);
    if (guest.deadline <= clock.now()) return refuse(guest);
    // One that comes back from a carrier was here before most others.
    const place = waiting.findLastIndex(({ deadline }) => deadline <= guest.deadline) + 1;
    waiting.splice(place, 0, guest);
    const last = waiting.length > queueLimit ? waiting.pop() : undefined;
    if (last) refuse(last);
    watchDeadlines();
  }

  function begin(guest: Guest, carrier: Carrier): void {
    const route = routeOf(carrier);
    const attempt = { route, deadline: clock.now() + OPEN_MS, abort: new AbortController() };
    guest.attempt = attempt;
    opening.add(guest);
    route.opening.add(guest);
    watchDeadlines();
    open(carrier, guest.address, attempt.abort.signal).then(
      (remote) => {
        if (guest.attempt === attempt) join(guest, route, remote);
        else remote.on('error', () => undefined).destroy();
      },
      // Whatever it was: the link is gone, or has let this one down.
      () => {
        if (guest.attempt !== attempt) return;
        const isGone = carrier !== current || !carrier.isAlive();
        endAttempt(guest);
        if (isGone) proceed(guest, carrier);
        else refuse(guest);
        settle(route);
      },
    );
  }

  function join(guest: Guest, route: Route, remote: Remote): void {
    endAttempt(guest);
    guest.isSettled = true;
    meter.opened();
    const { carrier, splices } = route;
    const joined = splice(guest.socket, remote, {
      meter,
      clock,
      isAlive: carrier.isAlive,
      onOver: () => {
        splices.delete(joined);
        meter.closed();
        settle(route);
      },
    });
    splices.add(joined);
  }

  /** The attempt is over, or is given up: whatever comes of it now is thrown away. */
  function endAttempt(guest: Guest): void {
    const { attempt } = guest;
    if (!attempt) return;
    guest.attempt = undefined;
    opening.delete(guest);
    attempt.route.opening.delete(guest);
    attempt.abort.abort();
  }

  function refuse(guest: Guest): void {
    if (guest.isSettled) return;
    guest.isSettled = true;
    meter.refused();
    guest.socket.resetAndDestroy();
  }

  /** Its socket is closed; before it was settled, the client has done that. */
  function leave(guest: Guest): void {
    if (guest.isSettled) return;
    guest.isSettled = true;
    meter.left();
    const place = waiting.indexOf(guest);
    if (place !== -1) waiting.splice(place, 1);
    const route = guest.attempt?.route;
    endAttempt(guest);
    if (route) settle(route);
  }

  function use(carrier: Carrier | null): void {
    if (closing) return;
    current = carrier;
    if (!carrier?.isAlive()) return;
    for (const guest of waiting.splice(0)) begin(guest, carrier);
  }

  async function drain(carrier: Carrier, timeoutMs: number): Promise<number> {
    assertMs('timeoutMs', timeoutMs);
    const route = routes.get(carrier);
    if (!route) return 0;
    const idle = new Promise<void>((resolve) => route.onIdle.push(resolve));
    await within(timeoutMs, idle);
    // The carrier may be in use again, for others.
    if (routes.get(carrier) !== route) return 0;
    const count = route.splices.size;
    cut(carrier);
    await within(CLOSE_MS, idle);
    return count;
  }

  function cut(carrier: Carrier): void {
    const route = routes.get(carrier);
    if (!route) return;
    for (const { breakOff } of route.splices) breakOff();
    for (const guest of [...route.opening]) {
      endAttempt(guest);
      proceed(guest, carrier);
    }
    settle(route);
  }

  async function close(): Promise<void> {
    // `closing` is set when this has returned, in the same turn: from the next one on nobody comes in.
    current = null;
    watch?.abort.abort();
    const closed = closeServers();
    for (const guest of waiting.splice(0)) refuse(guest);
    for (const guest of [...opening]) {
      endAttempt(guest);
      refuse(guest);
    }
    const idle = [...routes.values()].map((route) => {
      const quiet = new Promise<void>((resolve) => route.onIdle.push(resolve));
      for (const { breakOff } of route.splices) breakOff();
      settle(route);
      return quiet;
    });
    await Promise.all([closed, within(CLOSE_MS, Promise.all(idle))]);
  }

  function routeOf(carrier: Carrier): Route {
    const known = routes.get(carrier);
    if (known) return known;
    const route: Route = { carrier, opening: new Set(), splices: new Set(), onIdle: [] };
    routes.set(carrier, route);
    return route;
  }

  function settle(route: Route): void {
    if (route.opening.size > 0 || route.splices.size > 0) return;
    if (routes.get(route.carrier) === route) routes.delete(route.carrier);
    for (const tell of route.onIdle.splice(0)) tell();
  }

  /** One timer for all who wait: at the first of their deadlines. */
  function watchDeadlines(): void {
    const [first] = waiting;
    const [next] = opening;
    const until = Math.min(first?.deadline ?? Infinity, next?.attempt?.deadline ?? Infinity);
    if (until === Infinity || closing || (watch && watch.until <= until)) return;
    watch?.abort.abort();
    const abort = new AbortController();
    watch = { until, abort };
    clock.sleep(Math.max(0, until - clock.now()), abort.signal).then(
      () => {
        watch = undefined;
        turnAwayLate(clock.now());
        watchDeadlines();
      },
      // Another one has taken its place, or there is nobody left to watch for.
      () => undefined,
    );
  }

  function turnAwayLate(now: number): void {
    const late = waiting.findIndex(({ deadline }) => deadline > now);
    for (const guest of waiting.splice(0, late === -1 ? waiting.length : late)) refuse(guest);
    for (const guest of [...opening]) {
      const { attempt } = guest;
      if (!attempt || attempt.deadline > now) return;
      endAttempt(guest);
      refuse(guest);
      settle(attempt.route);
    }
  }

  /** Waits for what is bound to happen, and no longer than that. */
  async function within(timeoutMs: number, happens: Promise<unknown>): Promise<void> {
    const over = new AbortController();
    // Once that has happened, the sleep is of no interest; its rejection is heard by the race.
    await Promise.race([happens, clock.sleep(timeoutMs, over.signal)]);
    over.abort();
  }
}

/** A carrier that throws at once has failed as well. */
async function open(carrier: Carrier, address: ClientAddress, signal: AbortSignal): Promise<Remote> {
  return await carrier.open(address, signal);
}

function listenOn({ host, port }: Bind, accept: (socket: net.Socket) => void): Promise<net.Server> {
  return new Promise((resolve, reject) => {
    const server = net.createServer(
      // 1: a client's 'drain' says that the kernel has taken all, and of one that waits no more than one piece is kept.
      { allowHalfOpen: true, pauseOnConnect: true, noDelay: true, highWaterMark: 1 },
      accept,
    );
    server.once('listening', () => resolve(server));
    // Later ones are of an accept: with no descriptor left (EMFILE), libuv has hung up on the client by its spare one.
    server.on('error', reject);
    // `::` would claim 0.0.0.0 as well, which is an address of its own among the binds.
    server.listen({ host, port, backlog: BACKLOG, exclusive: true, ipv6Only: net.isIPv6(host) });
  });
}
