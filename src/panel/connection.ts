import { Refusal, Unreachable } from './api.js';
import { after, type CallOff, every, now } from './clock.js';
import type { Panel } from './model.js';
import { openStream } from './stream.js';
import type { Session, Tunnel } from './types.js';

/** Keeps the model as the daemon is: by events, and where those broke off by asking for everything anew. */
export interface Connection {
  /** Begins anew: who am I, the events, all tunnels. What was under way is called off. */
  begin(): void;
  /** All tunnels anew, for instance for what their chains use. */
  reload(): Promise<void>;
  /** Nobody looks: neither events nor questions until `begin()`. */
  pause(): void;
  /** What an answer to somebody's request said of a tunnel. */
  learn(tunnel: Tunnel): void;
  /** What a request that failed says of the daemon. */
  suspect(error: unknown): void;
}

/** What a chain uses is told by no event. */
const POLL_MS = 4000;
/** How long a lost daemon is left alone, the first time, the second, and so on. */
const RETRY_MS = [300, 700, 1500, 3000, 5000];

const states = ['stopped', 'starting', 'up', 'backoff', 'stopping', 'fatal', 'degraded', 'recovered', 'needs_auth'];
// Not `tunnel` as a whole: that has every line that ssh says in it.
const types = [...states.map((state) => `tunnel.${state}`), 'config', 'daemon'];
const heard = [
  ...states.map((state) => `tunnel.${state}`),
  'config.loaded',
  'config.rejected',
  'daemon.ready',
  'daemon.stopping',
  'gap',
];

export function createConnection(panel: Panel): Connection {
  const { api, model, update } = panel;
  const running: CallOff[] = [];
  /** What is answered to a former life is not news. */
  let life = 0;
  let failures = 0;
  let loading: Promise<void> | undefined;
  let next: Promise<void> | undefined;
  /** What events have told while a list was on its way, which may be older than they are. */
  const told = new Map<string, Tunnel>();
  return { begin: () => void begin(), reload, pause, learn, suspect };

  async function begin(): Promise<void> {
    pause();
    const mine = life;
    try {
      const session = await api.call<Session>('/v1/session');
      if (mine !== life) return;
      update({ session, phase: 'in' });
      listen(mine);
    } catch (error) {
      if (mine === life) fail(error);
    }
  }

  function pause(): void {
    life++;
    for (const callOff of running.splice(0)) callOff();
  }

  function listen(mine: number): void {
    const url = `/v1/events?type=${types.join(',')}`;
    const onEnd = () => mine === life && fail(new Unreachable('The events have broken off'));
    running.push(openStream(url, { types: heard, onOpen, onEvent: note, onEnd }));

    // The list comes after the events have begun, so that nothing falls between them.
    async function onOpen() {
      try {
        await reload();
        if (mine === life) goLive();
      } catch (error) {
        if (mine === life) fail(error);
      }
    }
  }

  function goLive(): void {
    failures = 0;
    const { link, notice } = model();
    if (link.state === 'lost') panel.announce(panel.words().announce.back);
    // The one that was shutting down has done so: this is another.
    const isOver = link.state === 'lost' && notice?.kind === 'stopping';
    update({ link: { state: 'live' }, ...(isOver ? { notice: undefined } : {}) });
    running.push(every(POLL_MS, () => void reload().catch(suspect)));
  }

  function fail(error: unknown): void {
    pause();
    const wasIn = model().phase === 'in';
    if (error instanceof Refusal && error.problem.status === 401) {
      const login = { ...model().login, isBusy: false, hasEnded: wasIn };
      return update({ ...signedOut, login });
    }
    if (!(error instanceof Refusal || error instanceof Unreachable)) throw error;
    // The first time it may be a mere hiccup: whoever answers at once has not been lost.
    if (failures > 0) say(error);
    running.push(after(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)] ?? 0, () => void begin()));
  }

  function say(error: Refusal | Unreachable): void {
    if (model().link.state !== 'lost') panel.announce(panel.words().announce.lost);
    update({ link: { state: 'lost', problem: error instanceof Refusal ? error.problem : undefined } });
  }

  /** Who asks while an answer is on its way needs a newer one, since that may be older than the question; all share it. */
  function reload(): Promise<void> {
    if (loading) {
      next ??= loading.then(again, again);
      return next;
    }
    loading = load().finally(() => {
      loading = undefined;
    });
    return loading;
  }

  function again(): Promise<void> {
    next = undefined;
    return reload();
  }

  async function load(): Promise<void> {
    told.clear();
    const { tunnels } = await api.call<{ tunnels: readonly Tunnel[] }>('/v1/tunnels');
    const entries = tunnels.map((tunnel): [string, Tunnel] => [tunnel.id, newer(tunnel, told.get(tunnel.id))]);
    update({ tunnels: new Map(entries), asOf: now() });
  }

  function note(type: string, data: Record<string, unknown>): void {
    const { status } = data as { status?: Tunnel };
    if (status) return hear(status, type);
    if (type === 'daemon.stopping') return update({ notice: { kind: 'stopping' } });
    if (type === 'config.rejected') {
      return update({ notice: { kind: 'rejected', detail: String(data.message ?? '') } });
    }
    if (type === 'daemon.ready' || type === 'config.loaded') update({ notice: undefined });
    void reload().catch(suspect);
  }

  function hear(tunnel: Tunnel, type: string): void {
    told.set(tunnel.id, tunnel);
    const before = model().tunnels.get(tunnel.id);
    // A person is called for, or told what has become of it.
    if (type === 'tunnel.needs_auth') panel.announce(panel.words().announce.needed(tunnel.name));
    else if (before && before.state !== tunnel.state) announce(tunnel);
    learn(tunnel);
  }

  function learn(tunnel: Tunnel): void {
    const { tunnels, outcomes, pending } = model();
    // One that is not in the list is new, and has its place in it: where, only the list says.
    if (!tunnels.has(tunnel.id)) return void reload().catch(suspect);
    const known = new Map(tunnels).set(tunnel.id, tunnel);
    // A refusal is no news of one that has come up since.
    const isMended = tunnel.state === 'up' && !pending.has(tunnel.id) && !outcomes.get(tunnel.id)?.done;
    update({ tunnels: known, asOf: now() });
    if (isMended && outcomes.has(tunnel.id)) {
      const rest = new Map(outcomes);
      rest.delete(tunnel.id);
      update({ outcomes: rest });
    }
  }

  function announce({ name, state }: Tunnel): void {
    const { announce: say, states: names } = panel.words();
    panel.announce(say.state(name, names[state]));
  }

  function suspect(error: unknown): void {
    if (error instanceof Unreachable) fail(error);
    else if (error instanceof Refusal) {
      if (error.problem.status === 401) fail(error);
    } else throw error;
  }
}

/** What somebody who is not signed in may know: that there is a daemon. */
export const signedOut = {
  phase: 'login',
  link: { state: 'connecting' },
  session: undefined,
  asOf: undefined,
  tunnels: new Map(),
  pending: new Map(),
  outcomes: new Map(),
  notice: undefined,
  processes: undefined,
  traffic: new Map(),
  port: { doing: undefined },
} as const;

/** The one whose state began later; of one and the same the event's, which came last. */
function newer(listed: Tunnel, told: Tunnel | undefined): Tunnel {
  return told && told.since >= listed.since ? told : listed;
}
