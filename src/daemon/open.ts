import net, { type AddressInfo } from 'node:net';
import { isTunwardError, TunwardError } from '../errors.js';
import { hasIpv6Loopback } from '../port/probe.js';
import type { Prompt } from '../tunnel/asking/person.js';
import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import type { Direction, EngineChoice, Takeover, TunnelSpec } from '../tunnel/spec.js';
import { createSupervisor, type SupervisorEvent } from '../tunnel/supervisor.js';
import { parseConfig } from './config.js';
import { processEnvironment } from './environment.js';
import { isLiving } from './instance.js';

/** One tunnel, in the words of the configuration file. */
export interface OpenTunnelOptions {
  /** `[user@]host`, or an alias of ssh_config. */
  readonly remoteHost: string;
  /** `port` or `host:port` on the far side. */
  readonly remotePort: number | string;
  /** `port` or `host:port` on this side. A local forward on port 0 gets a free port, which the status tells. */
  readonly localPort: number | string;
  /** Default `remote_to_local`: the remote service is brought here (`ssh -L`). */
  readonly direction?: Direction | undefined;
  readonly name?: string | undefined;
  readonly engine?: EngineChoice | undefined;
  readonly sshConfig?: string | undefined;
  readonly identityFile?: string | undefined;
  readonly sshOptions?: Readonly<Record<string, string>> | undefined;
  /** The hosts to go through, `[user@]host[:port]`, the first one first; as one text they are separated by commas. */
  readonly jump?: string | readonly string[] | undefined;
  /**
   * A local forward is listened for by this process, which keeps its clients waiting while the link is exchanged: a restart
   * refuses no connection, and `status().traffic` counts. Not with a `prompt`.
   */
  readonly seamless?: boolean | undefined;
  /** How long connections may go on over a link that has been replaced, before they are cut. Default 30,000 milliseconds. */
  readonly drainMs?: number | undefined;
  /** How long a connection waits for a link, before it is turned away. Default 10,000 milliseconds. */
  readonly connectWaitMs?: number | undefined;
  /** Of the engine `embedded`: its connection to the server carries other tunnels there as well. Default true. */
  readonly share?: boolean | undefined;
  readonly takeover?: Takeover | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /**
   * Answers what ssh asks (a password, a one-time code, a passphrase, whether a host key is the right one), one question at a
   * time: at the first start and at each `restart()`, within 120 seconds for one answer and 300 in all. An answer has 1,023
   * bytes at most, and ends at the first line end in it. With a prompt nothing is asked by itself: a tunnel that is lost stays
   * `stopped` with the reason `needs_auth`, which `tunnel.needs_auth` tells `onEvent`. Not given: ssh does not ask, and a
   * login that needs an answer fails.
   */
  readonly prompt?: Prompt | undefined;
  readonly onEvent?: ((event: SupervisorEvent) => void) | undefined;
  /** Gives up a start that is under way: rejects with the signal's reason, and nothing is left running. */
  readonly signal?: AbortSignal | undefined;
}

export interface OpenTunnel {
  status(): TunnelStatus;
  /** With a `prompt` it is asked again. */
  restart(): Promise<OperationResult>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens one tunnel and keeps it up; resolves when it is up. Closing it kills its whole chain.
 *
 * @throws TunwardError ERR_CONFIG_INVALID for bad options; ERR_START_FAILED, ERR_PORT_HELD or ERR_TIMEOUT when the
 * first attempt fails, and then nothing is left running; what a `prompt` has thrown.
 * @example
 * await using tunnel = await openTunnel({ remoteHost: 'me@db.example', remotePort: 5432, localPort: 15432 });
 * @example
 * const prompt = ({ text }) => {
 *   if (!text.endsWith("'s password: ")) throw new Error(`Nothing to answer to ${text}`);
 *   return fs.readFileSync('/run/secrets/db-password'); // a Buffer: it is wiped when ssh has it
 * };
 * await using tunnel = await openTunnel({ remoteHost: 'me@db.example', remotePort: 5432, localPort: 15432, prompt });
 */
export async function openTunnel(options: OpenTunnelOptions): Promise<OpenTunnel> {
  const { env = processEnvironment(), onEvent, prompt, signal } = options;
  signal?.throwIfAborted();
  const localPort = options.localPort === 0 || options.localPort === '0' ? await chooseFreePort() : options.localPort;
  const spec = readSpec({ ...options, localPort }, env);
  const supervisor = createSupervisor({ env, publish: onEvent && withoutBoot(onEvent), isLiving });
  const start = () => (prompt ? supervisor.authenticate(spec.id, { prompt }) : supervisor.start(spec.id));
  const giveUp = () => void supervisor.close();
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    await supervisor.reconcile([spec]);
    await start();
  } catch (error) {
    await supervisor.close();
    // What a start says that was cut short by our own close is not what happened.
    signal?.throwIfAborted();
    throw isTunwardError(error, 'ERR_TIMEOUT') ? givenUp(spec, error) : error;
  } finally {
    signal?.removeEventListener('abort', giveUp);
  }
  let restarting: Promise<OperationResult> | undefined;
  return {
    status: () => supervisor.status(spec.id),
    restart: () => {
      restarting ??= restart().finally(() => {
        restarting = undefined;
      });
      return restarting;
    },
    close: supervisor.close,
    [Symbol.asyncDispose]: supervisor.close,
  };

  async function restart(): Promise<OperationResult> {
    if (!prompt) return supervisor.restart(spec.id);
    await supervisor.stop(spec.id);
    return start();
  }
}

/** A supervisor lets it go on; here it is closed. */
function givenUp({ name }: TunnelSpec, late: TunwardError<'ERR_TIMEOUT'>): TunwardError<'ERR_TIMEOUT'> {
  const { timeoutMs, going } = late.info;
  const message = `Tunnel ${name} was still ${going ?? 'starting'} after ${timeoutMs} ms, and has been given up`;
  return new TunwardError('ERR_TIMEOUT', message, late.info, { cause: late });
}

/** Whoever opens one that asks is about to answer: that it waits for a person is no news before that. */
function withoutBoot(onEvent: (event: SupervisorEvent) => void): (event: SupervisorEvent) => void {
  return (event) => {
    if (event.type !== 'tunnel.needs_auth' || event.why !== 'boot') onEvent(event);
  };
}

/** The options are a configuration with one tunnel, checked as such: one set of rules, one set of messages. */
function readSpec(options: OpenTunnelOptions, env: Readonly<Record<string, string | undefined>>) {
  const { remoteHost, remotePort, localPort, direction, name, engine, takeover } = options;
  const tunnel = {
    name,
    remote_host: remoteHost,
    remote_port: remotePort,
    local_port: localPort,
    direction,
    engine,
    ssh_config: options.sshConfig,
    identity_file: options.identityFile,
    ssh_options: options.sshOptions,
    jump: options.jump,
    seamless: options.seamless,
    drain_ms: options.drainMs,
    connect_wait_ms: options.connectWaitMs,
    share: options.share,
    takeover,
    interactive: options.prompt !== undefined,
  };
  // JSON is YAML; the tunward key keeps the rules for the ancestor's files, which forgive, out of this.
  const text = JSON.stringify({ direction_mode: 'default', tunnels: [tunnel] });
  const uid = process.getuid?.() ?? -1;
  const file = `${process.cwd()}/openTunnel()`;
  const { tunnels } = parseConfig(text, { file, env, uid, hasIpv6Loopback: hasIpv6Loopback() });
  const [spec] = tunnels;
  if (!spec) throw new TunwardError('ERR_CONFIG_INVALID', 'openTunnel() was given no tunnel', { problems: [] });
  return spec;
}

/** Free on every loopback address, since `localhost` binds them all. */
async function chooseFreePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: 0, host: hasIpv6Loopback() ? '::' : '127.0.0.1', exclusive: true }, resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
