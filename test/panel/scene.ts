/** What is to be seen on the stage: tunnels as a person has them, in every state, and a port that a stranger holds. */
import { need } from '../support/need.js';
import { startViewer, type Viewer } from './browser.js';
import { type Json, type Stage, startStage } from './stage.js';

export function idOf(number: number): string {
  return `7f3a9c51${number.toString(16).padStart(24, '0')}`;
}

const ago = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();
const hence = (seconds: number) => ago(-seconds);

/** T of the API, up and well unless said otherwise. */
export function tunnel(number: number, name: string, fields: Json = {}): Json {
  const port = 5000 + number;
  return {
    id: idOf(number),
    name,
    state: 'up',
    desired: 'up',
    reason: null,
    health: 'ok',
    health_reason: null,
    remedy: null,
    direction: 'remote_to_local',
    engine: 'ssh',
    seamless: false,
    listen: [
      { side: 'local', host: '127.0.0.1', port },
      { side: 'local', host: '::1', port },
    ],
    target: `db.internal:${port}`,
    remote_host: 'me@bastion.example',
    jump: [],
    groups: [],
    interactive: false,
    enabled: true,
    pid: 800 + number,
    chain: [],
    usage: { cpu: 0.1 * (number % 7), memory: 8.2e6 + number * 3e4, pid: 800 + number },
    traffic: null,
    since: ago(3600 * (number % 50) + 700 * (number % 9) + 42),
    attempt: 0,
    restarts: number % 4,
    next_retry_at: null,
    last_error: null,
    log_file: `/var/log/tunward/tunnel_${idOf(number)}.log`,
    last_restart: lastRestart(9 + (number % 5) * 3, 1.8, 330 + (number % 11) * 31),
    ...fields,
  };
}

export function lastRestart(stop_ms: number, free_ms: number, start_ms: number): Json {
  const took_ms = stop_ms + free_ms + start_ms;
  return { at: ago(5000), asked: true, reason: null, took_ms, phases: { stop_ms, free_ms, start_ms } };
}

const down = { usage: null, pid: null, chain: [], health: 'unknown' };

/** One that needs a person, and waits for one. */
export function asking(number: number, name: string, fields: Json = {}): Json {
  const remedy = `it waits for a person: 'tunward auth ${name}', or the panel`;
  const waits = { interactive: true, state: 'stopped', desired: 'down', reason: 'needs_auth', remedy };
  return tunnel(number, name, { ...down, ...waits, last_restart: null, ...fields });
}

/** With ages that count from now: whoever makes them early has other ones. */
export function makeCast(): readonly Json[] {
  return [
    tunnel(1, 'database', { target: 'db.internal:5432', groups: ['prod'], listen: both(5432) }),
    tunnel(2, 'web', {
      direction: 'local_to_remote',
      listen: [{ side: 'remote', host: '127.0.0.1', port: 8080 }],
      target: 'localhost:3000',
      groups: ['prod'],
      engine: 'autossh',
      last_restart: lastRestart(38, 6, 512),
    }),
    tunnel(3, 'reports', {
      target: 'reports.internal:80',
      listen: both(8081),
      jump: ['gate.example:2222'],
      groups: ['office'],
    }),
    tunnel(4, 'metrics', {
      ...down,
      state: 'backoff',
      reason: 'refused',
      last_error: 'ssh: connect to host 203.0.113.7 port 22: Connection refused',
      attempt: 4,
      next_retry_at: hence(42),
      since: ago(95),
      listen: both(9090),
      target: 'localhost:9090',
      remote_host: 'old.example',
      last_restart: null,
    }),
    tunnel(5, 'billing (staging)', {
      ...down,
      state: 'fatal',
      reason: 'host_key_changed',
      last_error:
        'Host key for bill.example has changed and you have requested strict checking; Offending ED25519 key in /home/me/.ssh/known_hosts:14',
      remedy:
        "if the server was really set up anew, remove its old key (ssh-keygen -f '/home/me/.ssh/known_hosts' -R 'bill.example'), then start the tunnel",
      attempt: 1,
      listen: both(7001),
      target: 'billing:443',
      remote_host: 'deploy@bill.example',
      groups: ['office'],
      last_restart: null,
    }),
    tunnel(6, 'search', {
      health: 'degraded',
      reason: 'target_refused',
      health_reason: 'GET http://127.0.0.1:9200/: 503 Service Unavailable',
      remedy: 'the tunnel is up; see why nothing answers at es.internal:9200 on the far side',
      target: 'es.internal:9200',
      listen: both(9200),
      groups: ['prod'],
      last_restart: lastRestart(12, 2, 1460),
    }),
    tunnel(7, 'printer', {
      ...down,
      state: 'stopped',
      desired: 'down',
      last_restart: null,
      listen: both(6310),
      target: 'printer:631',
      groups: ['office'],
    }),
    tunnel(8, 'cache', {
      target: 'redis.internal:6379',
      listen: both(6379),
      groups: ['prod'],
      ...{ engine: 'embedded', seamless: true, pid: null, usage: null },
      traffic: { connections: 1204, open: 12, queued: 0, refused: 3, bytes_in: 48_200_000, bytes_out: 912_000 },
    }),
    tunnel(9, 'mail relay', {
      ...down,
      state: 'starting',
      since: ago(1),
      listen: both(2525),
      target: 'smtp.internal:25',
      last_restart: null,
    }),
    tunnel(10, 'git', { target: 'git.internal:22', listen: both(2222), engine: 'autossh', groups: ['office'] }),
    tunnel(11, 'queue', {
      target: 'mq.internal:5672',
      listen: both(5672),
      groups: ['prod'],
      last_restart: lastRestart(206, 51, 388),
    }),
    tunnel(12, 'admin', {
      ...down,
      state: 'backoff',
      reason: 'local_port_busy',
      last_error: 'Port 9443 is held by pid 4711 (nginx: master process) of www-data, 3h 5m old',
      remedy: "see who holds it with 'tunward who 9443'; --force or 'takeover: any' takes the port from anyone",
      attempt: 2,
      next_retry_at: hence(7),
      listen: both(9443),
      target: 'admin.internal:443',
      last_restart: null,
    }),
  ];
}

function both(port: number): Json {
  return ['127.0.0.1', '::1'].map((host) => ({ side: 'local', host, port }));
}

export const nginx = {
  pid: 4711,
  start_ticks: 99,
  user: 'www-data',
  command: 'nginx: master process /usr/sbin/nginx -g daemon off;',
  age_s: 11_100,
};
const worker = { pid: 4712, start_ticks: 101, command: 'nginx: worker process' };

/** Port 9443, as `tunward who --json` tells of it. */
export const heldPort: Json = {
  port: 9443,
  host: null,
  free: false,
  verdict: 'listening',
  explanation:
    'Port 9443 is held by pid 4711 (nginx: master process /usr/sbin/nginx -g daemon off;) of www-data, 3h 5m old: "tunward free 9443" kills it with its chain',
  listeners: [
    { protocol: 'tcp', address: '0.0.0.0', port: 9443, inode: 5, uid: 33, holders: [nginx, { ...nginx, ...worker }] },
    { protocol: 'tcp6', address: '::', port: 9443, inode: 6, uid: 33, holders: [nginx] },
  ],
  clients: [{ pid: 5120, command: '/opt/google/chrome --type=utility', state: 'ESTABLISHED' }],
  respawner: null,
  kill: null,
  took_ms: 6.2,
};

export const plannedKill = {
  killed: [
    { pid: 4711, start_ticks: 99, command: nginx.command, why: 'listens on port 9443' },
    { ...worker, why: 'child of 4711' },
  ],
  left: [{ pid: 4800, start_ticks: 7, command: 'sh -c logger -t nginx', why: 'in another session' }],
  survivors: [{ pid: 1, command: '/sbin/tini -- nginx', why: 'protected: pid 1' }],
  took_ms: 1.1,
};

export const chainOfWeb: Json = {
  pid: 802,
  start_ticks: 1,
  state: 'S',
  command:
    '/usr/lib/autossh/autossh -M 0 -N -T -o ExitOnForwardFailure=yes -R 127.0.0.1:8080:localhost:3000 me@bastion.example',
  age_s: 7400,
  rss_bytes: 1.1e6,
  ports: [],
  children: [
    {
      pid: 803,
      start_ticks: 2,
      state: 'S',
      command:
        '/usr/bin/ssh -N -T -o BatchMode=yes -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 -o ControlMaster=no -o ControlPath=none -R 127.0.0.1:8080:localhost:3000 me@bastion.example',
      age_s: 7399,
      rss_bytes: 8.4e6,
      ports: [8080],
      children: [
        {
          pid: 804,
          start_ticks: 3,
          state: 'S',
          command: 'ssh -W bastion.example:22 gate.example',
          age_s: 7399,
          rss_bytes: 7.9e6,
          ports: [],
          children: [],
        },
        { pid: 805, start_ticks: 3, state: 'Z', command: '[sh]', age_s: 12, rss_bytes: 0, ports: [], children: [] },
      ],
    },
  ],
};

/** A stage with everything on it. */
export async function startScene(): Promise<Stage> {
  const stage = await startStage(makeCast());
  stage.ports.set(9443, heldPort);
  stage.processes.set(idOf(2), chainOfWeb);
  return stage;
}

/**
 * A browser for the suite, and a scene for each test of it, which is handed to `begin`: locked, for whoever has no token. A
 * page on which anything went wrong fails the test that opened it.
 */
export function useScene(begin: (viewer: Viewer, stage: Stage) => void): void {
  let viewer: Viewer | undefined;
  let stage: Stage;

  before(async function () {
    need(this, 'chromium');
    viewer = await startViewer();
  });

  beforeEach(async () => {
    stage = await startScene();
    if (viewer) begin(viewer, stage);
  });

  afterEach(async () => {
    await stage.close();
    await viewer?.check();
  });

  after(() => viewer?.close());
}

export const logOfWeb: readonly string[] = [
  '[2026-11-25 16:24:27] Starting tunnel (local to remote): localhost:3000 → 127.0.0.1:8080 via me@bastion.example',
  '[2026-11-25 16:24:27] started pid 802: /usr/lib/autossh/autossh -M 0 -N -T',
  '[2026-11-25 16:24:28] debug1: remote forward success for: listen 127.0.0.1:8080, connect localhost:3000',
  '[2026-11-25 16:24:28] up after 512 ms',
  '[2026-11-25 18:02:51] connect_to localhost port 3000: failed: Connection refused.',
  '[2026-11-25 18:02:51] channel 3: open failed: connect failed: Connection refused',
];
