import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { isErrno } from '../../errors.js';
import { systemClock } from '../../time.js';

/** The web service that the tunnels lead to. It knows its own answer, so that a stranger's is told apart. */
export interface Service {
  readonly port: number;
  readonly greeting: string;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function openService(): Promise<Service> {
  const greeting = `Hello from behind the tunnel (${randomBytes(4).toString('hex')})\n`;
  const server = http.createServer((_request, response) => response.end(greeting));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const close = async (): Promise<void> => {
    server.close();
    server.closeAllConnections();
  };
  return { port: (server.address() as AddressInfo).port, greeting, [Symbol.asyncDispose]: close };
}

/** What became of one request: `refused` nobody listened, `cut` a connection that broke off, `wrong` a stranger answered. */
export type Outcome = 'served' | 'refused' | 'cut' | 'wrong' | 'late';

export interface Answer {
  /** When it was asked, on the monotonic clock. */
  readonly at: number;
  readonly outcome: Outcome;
}

/** Requests through every tunnel, one after the other in each, for as long as it is open. A port may have several names. */
export interface Traffic {
  /** What became of the requests through each tunnel since the last call. */
  take(): ReadonlyMap<string, readonly Answer[]>;
  /** The same, left where it is. */
  peek(name: string): readonly Answer[];
  total(outcome: Outcome): number;
  /** From now on one request every so many milliseconds through each tunnel. */
  pace(ms: number): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/** More than this nobody asks for: a demo that stays up must not grow. */
const KEPT = 5000;
const LATE_MS = 2000;

export function openTraffic(ports: ReadonlyMap<string, number>, greeting: string): Traffic {
  const closing = new AbortController();
  setMaxListeners(0, closing.signal); // each loop has a request or a pause that ends with it
  const totals = new Map<Outcome, number>();
  const answers = new Map<string, Answer[]>([...ports.keys()].map((name) => [name, []]));
  let everyMs = 5;
  const loops = [...ports].map(([name, port]) => run(name, port));
  return {
    take() {
      const taken = new Map([...answers].map(([name, list]) => [name, [...list]]));
      for (const list of answers.values()) list.length = 0;
      return taken;
    },
    peek: (name) => answers.get(name) ?? [],
    total: (outcome) => totals.get(outcome) ?? 0,
    pace(ms) {
      everyMs = ms;
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      await Promise.all(loops);
    },
  };

  async function run(name: string, port: number): Promise<void> {
    while (!closing.signal.aborted) {
      const at = systemClock.now();
      const outcome = await ask(port, greeting, closing.signal);
      if (closing.signal.aborted) return;
      note(name, { at, outcome });
      await systemClock.sleep(everyMs, closing.signal).catch(expectClosing);
    }
  }

  function note(name: string, answer: Answer): void {
    totals.set(answer.outcome, (totals.get(answer.outcome) ?? 0) + 1);
    const list = answers.get(name);
    list?.push(answer);
    if (list && list.length > KEPT) list.shift();
  }

  function expectClosing(error: unknown): void {
    if (!closing.signal.aborted) throw error;
  }
}

/** One request over a connection of its own. Never rejects for what the network does. */
function ask(port: number, greeting: string, signal: AbortSignal): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, agent: false, signal, timeout: LATE_MS };
    const request = http.get(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('error', () => resolve('cut'));
      response.once('end', () => resolve(text === greeting ? 'served' : 'wrong'));
    });
    request.once('timeout', () => {
      resolve('late');
      request.destroy();
    });
    request.on('error', (error) => resolve(isErrno(error, 'ECONNREFUSED') ? 'refused' : 'cut'));
  });
}
