/** A daemon with one tunnel that needs a person, `vault`, and the terminals at which somebody logs in to it. */
import net from 'node:net';
import { expect } from 'chai';
import { mainFile } from '../cli/run.js';
import { type Answer, type Home, makeHome, type RunningDaemon, startUp } from './daemon.js';
import type { Known } from './embedded.js';
import { freeLocalPort } from './port.js';
import { createReaper, type Reaper } from './reaper.js';
import { type OnTerminal, runOnTerminal } from './terminal.js';

export interface Vault {
  readonly reaper: Reaper;
  readonly home: Home;
  readonly daemon: RunningDaemon;
  /** Starts the daemon; the tunnel leads to a server, which asks. */
  serve(server: Known): Promise<void>;
  /** Kills the daemon. */
  kill(): Promise<void>;
  /** The record of the tunnel. */
  record(): Promise<Answer['body']>;
  /** `tunward auth vault` with these words besides. */
  auth(...args: string[]): OnTerminal;
  /** Does somebody listen at the tunnel's port? */
  listens(): Promise<boolean>;
}

/** One for each test of the suite, in which the daemon has to end well; the tunnel has these keys besides. */
export function useVault(keys: Readonly<Record<string, unknown>> = {}): Vault {
  const reaper = createReaper();
  let home: Home;
  let daemon: RunningDaemon | undefined;
  let port: number;
  beforeEach(() => {
    home = makeHome();
    daemon = undefined;
  });
  afterEach(async () => {
    const end = await daemon?.end('SIGTERM');
    await reaper.end();
    home.remove();
    if (daemon) expect(end).to.equal(0);
  });
  const running = () => {
    if (!daemon) throw new Error('No daemon was started');
    return daemon;
  };
  return {
    reaper,
    get home() {
      return home;
    },
    get daemon() {
      return running();
    },
    async serve({ host, sshConfigFile }) {
      port = await freeLocalPort();
      const listen = { remote_port: '127.0.0.1:1', local_port: `127.0.0.1:${port}` };
      const tunnel = { name: 'vault', remote_host: host, ssh_config: sshConfigFile, interactive: true, ...listen };
      home.configure({}, [{ ...tunnel, ...keys }]);
      daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
    },
    async kill() {
      await running().end('SIGKILL');
      daemon = undefined;
    },
    record: async () => (await home.api('GET', '/v1/tunnels/vault')).body,
    auth: (...args) =>
      runOnTerminal(reaper, [process.execPath, mainFile, 'auth', 'vault', '--socket', home.socket, ...args], {
        columns: 120,
      }),
    listens: () =>
      new Promise((resolve) => {
        const socket = net.connect(port, '127.0.0.1');
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
        socket.once('close', () => socket.destroy());
      }),
  };
}
