import { type Endpoint, type TunnelSpec, tunnelId } from '#lib/tunnel/spec.js';

/** A spec that is complete: `listen` on this side (or, with `side: 'remote'`, on the far one), and what a test changes. */
export function makeSpec({
  side = 'remote',
  listen = { host: 'localhost', port: 9443 },
  ...changes
}: Partial<TunnelSpec> & { side?: 'local' | 'remote'; listen?: Endpoint } = {}): TunnelSpec {
  const direction = side === 'local' ? 'remote_to_local' : 'local_to_remote';
  const target = { host: 'localhost', port: 443 };
  const ports = side === 'local' ? [listen.port, target.port] : [target.port, listen.port];
  const [localPort = '', remotePort = ''] = ports.map(String);
  const name = changes.name ?? 'web';
  const remoteHost = changes.remoteHost ?? 'user@web.example';
  return {
    id: tunnelId({ name, remoteHost, remotePort, localPort, direction, interactive: 'false' }),
    name,
    remoteHost,
    direction,
    remotePort,
    localPort,
    forward: { side, listen, target },
    interactive: false,
    engine: 'auto',
    sshConfig: null,
    identityFile: null,
    sshOptions: {},
    jump: [],
    groups: [],
    enabled: true,
    takeover: 'tunnels',
    startTimeoutMs: 15_000,
    restartTimeoutMs: 6000,
    backoff: { minMs: 1000, maxMs: 60_000, stableMs: 30_000 },
    authRetry: 'slow',
    share: true,
    seamless: null,
    check: null,
    ...changes,
  };
}
