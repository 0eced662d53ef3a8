import type { KillReport, Survivor } from '../kill.js';
import { hasIpv6Loopback } from '../port/probe.js';
import type { Clock } from '../time.js';
import type { Link } from './engine.js';
import { createFront, type Front } from './front/front.js';
import type { Meter } from './front/meter.js';
import { bindSet, type Endpoint, formatEndpoint, type TunnelSpec } from './spec.js';

/** What a seamless tunnel listens with, over all lives of its link; and the links that were replaced, until they are gone. */
export interface Entrance {
  /** Does it listen on what this spec asks for? */
  isOpen(spec: TunnelSpec): boolean;
  /**
   * Listens on the spec's addresses, on all or none.
   *
   * @throws the error of an address that cannot be bound.
   */
  open(spec: TunnelSpec): Promise<void>;
  /** It is respecified: how long a connection waits may be another now. */
  heed(spec: TunnelSpec): void;
  /** New connections go over this link from now on; null: they wait. */
  lead(link: Link | null): void;
  /** Connections go on over a link that was replaced, for so long; then it is ended, and told what that took. */
  retire(link: Link, drainMs: number): void;
  /** Are there links that were replaced, and not ended yet? */
  hasRetired(): boolean;
  /**
   * Ends all that were replaced, now; answers who has survived that, and is there to be ended again.
   *
   * @throws what a link throws that cannot be looked at.
   */
  endRetired(): Promise<Survivor | undefined>;
  /** Listens no more. Whatever goes through or waits is reset. Idempotent. */
  close(): Promise<void>;
}

export interface EntranceOptions {
  readonly meter: Meter;
  readonly clock: Clock;
  /** A link that was replaced has been ended, but for whoever this answers. */
  readonly onEnded: (link: Link, report: KillReport) => Survivor | undefined;
}

/** Of more links than these the oldest is ended at once: restarts in a row must not pile up. */
const MOST_RETIRED = 16;

export function createEntrance({ meter, clock, onEnded }: EntranceOptions): Entrance {
  let front: Front | undefined;
  let listen: Endpoint | undefined;
  /** In the order in which they were replaced; each with what ends it at once. */
  const retired = new Map<Link, () => Promise<Survivor | undefined>>();
  return { isOpen, open, heed, lead, retire, hasRetired: () => retired.size > 0, endRetired, close };

  function isOpen(spec: TunnelSpec): boolean {
    return (
      front !== undefined && listen !== undefined && formatEndpoint(listen) === formatEndpoint(spec.forward.listen)
    );
  }

  async function open(spec: TunnelSpec): Promise<void> {
    await close();
    const connectWaitMs = spec.seamless?.connectWaitMs ?? 0;
    const binds = bindSet(spec.forward, hasIpv6Loopback());
    const opened = createFront({ binds, meter, clock, connectWaitMs });
    await opened.listen();
    front = opened;
    listen = spec.forward.listen;
  }

  function heed({ seamless }: TunnelSpec): void {
    if (seamless) front?.waitAtMost(seamless.connectWaitMs);
  }

  function lead(link: Link | null): void {
    front?.use(link?.carrier ?? null);
  }

  function retire(link: Link, drainMs: number): void {
    const { carrier } = link;
    let ending: Promise<Survivor | undefined> | undefined;
    const end = () => {
      if (carrier) front?.cut(carrier);
      ending ??= link
        .stop()
        .then((report) => {
          const survivor = onEnded(link, report);
          if (!survivor) retired.delete(link);
          return survivor;
        })
        .finally(() => {
          ending = undefined;
        });
      return ending;
    };
    // Whoever survives, or cannot be looked at just now, is ended with the tunnel, and told of then.
    const endQuietly = () => void end().catch(() => undefined);
    retired.set(link, end);
    for (const one of [...retired].slice(0, -MOST_RETIRED)) void one[1]().catch(() => undefined);
    const drained = carrier && front ? front.drain(carrier, drainMs) : Promise.resolve(0);
    void drained.then(endQuietly);
  }

  async function endRetired(): Promise<Survivor | undefined> {
    const ends = await Promise.all([...retired.values()].map((end) => end()));
    return ends.find((survivor) => survivor !== undefined);
  }

  async function close(): Promise<void> {
    const closed = front;
    front = undefined;
    await closed?.close();
  }
}
