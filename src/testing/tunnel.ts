import net from 'node:net';
import type { OpenTunnel, OpenTunnelOptions } from '../daemon/open.js';
import { openTunnel } from '../door.js';
import { TunwardError } from '../errors.js';
import { killTree } from '../kill.js';
import type { SshServer, WaitOptions } from '../sshd/server.js';
import { addressOf } from '../sshd/target.js';
import { assertMs, until } from '../time.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { type ReservedPort, reservePort } from './ports.js';

export interface StartTunnelOptions
  extends Pick<OpenTunnelOptions, 'engine' | 'name' | 'prompt' | 'onEvent' | 'sshOptions' | 'env' | 'signal'> {
  /** Where it goes through: a server of `startSshServer()`. */
  readonly server: SshServer;
  /** Where it leads: a port of 127.0.0.1, an address, or a server of this process that listens. */
  readonly target: number | { readonly host: string; readonly port: number } | net.Server;
  /** Default: a free one. */
  readonly localPort?: number | undefined;
}

/** A tunnel to a test server. `restart()`, `status()`, `close()`: as of `openTunnel()`. */
export interface TestTunnel extends OpenTunnel {
  readonly host: '127.0.0.1';
  /** What a program under test connects to. */
  readonly port: number;
  /**
   * Lets the link die, as a SIGKILL of its ssh does (with an autossh above it that too); resolves when it is dead. tunward
   * brings it up again by itself.
   */
  kill(): Promise<void>;
  /**
   * Asks until the answer is truthy and resolves to that.
   *
   * @throws TunwardError ERR_TIMEOUT after `timeoutMs` (default 5000); the signal's reason.
   * @example
   * await tunnel.kill();
   * await tunnel.waitFor(({ state, restarts }) => state === 'up' && restarts === 1);
   */
  waitFor<T>(
    check: (status: TunnelStatus) => T,
    options?: WaitOptions,
  ): Promise<Exclude<T, false | null | undefined | 0 | ''>>;
}

/**
 * Opens a tunnel to a test server with `openTunnel()`, on a port that nobody else takes, and resolves when it is up. It uses
 * the server's ssh_config, key and known_hosts, no agent, and nothing in the home folder of whoever runs the test.
 *
 * @throws as `openTunnel()` does; TypeError for a target that does not listen.
 * @example
 * await using server = await startSshServer();
 * await using tunnel = await startTunnel({ server, target: database });
 * const client = connectTo(`postgres://127.0.0.1:${tunnel.port}/test`);
 */
export async function startTunnel(options: StartTunnelOptions): Promise<TestTunnel> {
  const { server, target, localPort, ...rest } = options;
  const remotePort = endpointOf(target);
  const reserved = localPort === undefined ? await reservePort() : undefined;
  const port = localPort ?? reserved?.port ?? 0;
  const tunnel = await open(reserved, { ...rest, ...server.tunnelOptions, remotePort, localPort: `127.0.0.1:${port}` });
  const close = async (): Promise<void> => {
    await tunnel.close();
    await reserved?.[Symbol.asyncDispose]();
  };
  return {
    host: '127.0.0.1',
    port,
    status: tunnel.status,
    restart: tunnel.restart,
    kill,
    waitFor,
    close,
    [Symbol.asyncDispose]: close,
  };

  async function kill(): Promise<void> {
    const { chain, engine } = tunnel.status();
    const [root] = chain;
    if (root) {
      const { survivors } = await killTree(root);
      const [left] = survivors;
      if (left) throw new Error(`Cannot kill pid ${left.pid} (${left.command}) of the tunnel: ${left.why}`);
    }
    // A client inside this process has no process of its own: its connection is cut, and with it all of this server.
    else if (engine === 'embedded') server.drop();
  }

  async function waitFor<T>(check: (status: TunnelStatus) => T, { timeoutMs = 5000, signal }: WaitOptions = {}) {
    assertMs('timeoutMs', timeoutMs);
    const found = await until(() => check(tunnel.status()), { timeoutMs, signal });
    if (found !== undefined) return found;
    const { name, state, lastError } = tunnel.status();
    const why = lastError === null ? state : `${state} (${lastError})`;
    const message = `Tunnel ${name} has not become what was waited for in ${timeoutMs} ms: it is ${why}`;
    throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs });
  }
}

async function open(reserved: ReservedPort | undefined, options: OpenTunnelOptions): Promise<OpenTunnel> {
  try {
    await reserved?.release();
    return await openTunnel(options);
  } catch (error) {
    await reserved?.[Symbol.asyncDispose]();
    throw error;
  }
}

function endpointOf(target: StartTunnelOptions['target']): string {
  if (typeof target === 'number') return `127.0.0.1:${target}`;
  const { host, port } = target instanceof net.Server ? addressOf(target) : target;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
