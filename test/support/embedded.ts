/** A link of the engine inside this process, and what a test has to know of it. */
import http from 'node:http';
import { type Clock, systemClock, until } from '#lib/time.js';
import type { Prompt } from '#lib/tunnel/asking/person.js';
import { createEmbeddedEngine } from '#lib/tunnel/embedded/engine.js';
import type { Asking, Engine, Link, LinkExit, LinkOptions } from '#lib/tunnel/engine.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { freeLocalPort } from './port.js';
import { makeSpec } from './specs.js';

/** A server that a test has started, and by which name ssh_config knows it. */
export interface Known {
  readonly host: string;
  /** null: there is none. */
  readonly sshConfigFile: string | null;
}

/** One engine and its links. What is left of them is stopped at the end. */
export interface Stand {
  readonly engine: Engine;
  start(spec: TunnelSpec, options?: Partial<LinkOptions>): Promise<StartedLink>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface StartedLink extends Link {
  readonly lines: readonly string[];
  /** Resolves to `ready`, or to how it ended instead. */
  settled(): Promise<LinkExit | 'ready'>;
}

export function createStand({
  env = {},
  knownHosts = null,
  clock = systemClock,
}: {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly knownHosts?: string | null;
  readonly clock?: Clock;
} = {}): Stand {
  const engine = createEmbeddedEngine({ env: { HOME: '/nowhere', ...env }, knownHosts, clock });
  const links: Link[] = [];
  return {
    engine,
    async start(spec, options = {}) {
      const lines: string[] = [];
      const signal = new AbortController().signal;
      const link = await engine.start(spec, { onOutput: (line) => lines.push(line), signal, ...options });
      links.push(link);
      let exit: LinkExit | undefined;
      void link.exited.then((how) => {
        exit = how;
      });
      const isSettled = async () => exit ?? ((await link.check()) === 'ready' ? ('ready' as const) : undefined);
      return {
        ...link,
        lines,
        async settled() {
          const settled = await until(isSettled, { timeoutMs: 20_000 });
          if (settled === undefined) throw new Error(`neither up nor ended: ${link.lastLine()}`);
          return settled;
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(links.map((link) => link.stop()));
    },
  };
}

/** A local forward to that port of the far side; listens on any free port of 127.0.0.1. */
export async function localSpec(
  { host, sshConfigFile }: Known,
  targetPort: number,
  changes: Partial<TunnelSpec> = {},
): Promise<TunnelSpec> {
  const listen = { host: '127.0.0.1', port: await freeLocalPort() };
  return forwardSpec(
    { side: 'local', listen, target: { host: '127.0.0.1', port: targetPort } },
    host,
    sshConfigFile,
    changes,
  );
}

/** A remote forward to that port of this side. */
export async function remoteSpec(
  { host, sshConfigFile }: Known,
  targetPort: number,
  changes: Partial<TunnelSpec> & { readonly listenPort?: number } = {},
): Promise<TunnelSpec> {
  const { listenPort, ...others } = changes;
  const listen = { host: '127.0.0.1', port: listenPort ?? (await freeLocalPort()) };
  return forwardSpec(
    { side: 'remote', listen, target: { host: '127.0.0.1', port: targetPort } },
    host,
    sshConfigFile,
    others,
  );
}

function forwardSpec(
  forward: TunnelSpec['forward'],
  remoteHost: string,
  sshConfig: string | null,
  changes: Partial<TunnelSpec>,
): TunnelSpec {
  const { side, listen } = forward;
  return {
    ...makeSpec({ side, listen, engine: 'embedded', remoteHost, sshConfig, name: `t${listen.port}` }),
    forward,
    ...changes,
  };
}

/** What answers at a port of this host. */
export function get(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, agent: false, timeout: 10_000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      answer.once('end', () => resolve(text)).once('error', reject);
    });
    request.once('error', reject).once('timeout', () => request.destroy(new Error('no answer')));
  });
}

/** Somebody who answers by a function; what became of that is kept. */
export function askingOf(prompt: Prompt): Asking & { readonly given: unknown[]; readonly opened: string[] } {
  const given: unknown[] = [];
  const opened: string[] = [];
  const hears = { onOpen: (via: string) => opened.push(via), onGivenUp: (why: unknown) => given.push(why) };
  return { person: { prompt }, idleMs: 10_000, ...hears, given, opened };
}
