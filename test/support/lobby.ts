/** A daemon with one tunnel that asks, on a unix socket and on TCP, and who belongs to that tunnel. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp } from './daemon.js';
import { listeningInodes } from './listening.js';
import { freeLocalPort } from './port.js';
import { allPids, commandOf, environOf, isAlive, type Ref, statOf } from './proc.js';
import type { Reaper } from './reaper.js';

export interface Lobby {
  readonly home: Home;
  readonly daemon: RunningDaemon;
  /** Of the API. */
  readonly port: number;
  readonly token: string;
  readonly readToken: string;
  /** What the tunnel listens on when it is up. */
  readonly localPort: number;
  /** Name of the tunnel. */
  readonly id: string;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  status(): Promise<any>;
  /** Every living process with the mark of this tunnel in its environment. */
  cast(): (Ref & { readonly command: string })[];
  /** Waits until nobody of the tunnel lives and its port is free; how long that took, in milliseconds. */
  emptied(timeoutMs?: number): Promise<number | undefined>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** `server`: whom the tunnel leads to. */
export async function openLobby(
  reaper: Reaper,
  server: { readonly host: string; readonly sshConfigFile: string },
  env: NodeJS.ProcessEnv = {},
): Promise<Lobby> {
  const home = makeHome();
  const [port, localPort] = [await freeLocalPort(), await freeLocalPort()];
  const readFile = join(home.dir, 'read.token');
  writeFileSync(readFile, 'a-token-for-looking\n', { mode: 0o600 });
  const api = { socket: home.socket, listen: String(port), tokens: [{ file: readFile, scope: 'read' }] };
  const name = 'asks';
  const asks = { ...{ name, interactive: true, remote_host: server.host, ssh_config: server.sshConfigFile } };
  home.configure({ api }, [{ ...asks, local_port: localPort, remote_port: '127.0.0.1:9' }]);
  const daemon = await startUp(reaper, home, env);
  const status = async () => (await home.api('GET', `/v1/tunnels/${name}`)).body;
  const mark = `TUNNEL_ID=${(await status()).id}`;
  const cast = () =>
    allPids()
      .filter((pid) => environOf(pid).includes(mark))
      .flatMap((pid) => {
        const { startTicks } = statOf(pid) ?? {};
        return startTicks !== undefined && isAlive(pid, startTicks)
          ? [{ pid, startTicks, command: commandOf(pid) }]
          : [];
      });
  return {
    ...{ home, daemon, port, localPort, id: name, status, cast },
    token: readFileSync(join(home.stateDir, 'token'), 'utf8').trim(),
    readToken: 'a-token-for-looking',
    async emptied(timeoutMs = 1000) {
      const began = performance.now();
      const isEmpty = () => cast().length === 0 && listeningInodes('127.0.0.1', localPort).length === 0;
      return (await until(isEmpty, { timeoutMs })) ? performance.now() - began : undefined;
    },
    [Symbol.asyncDispose]: async () => {
      await daemon.end('SIGTERM');
      home.remove();
    },
  };
}
