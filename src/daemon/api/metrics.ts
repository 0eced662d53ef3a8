import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { createSlice } from '../../time.js';
import type { Traffic } from '../../tunnel/front/meter.js';
import type { TunnelStatus } from '../../tunnel/runner.js';
import { waitsForPerson } from '../../tunnel/status.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { Journal, JournalEntry } from '../events.js';
import type { Overview } from './overview.js';
import { type Route, route } from './route.js';
import { tunnel } from './shapes.js';

export interface MetricsContext {
  readonly overview: Pick<Overview, 'statuses'>;
  readonly traffic: Supervisor['traffic'];
  readonly journal: Pick<Journal, 'subscribe'>;
  readonly version: string;
}

/** A restart is over in the time of an ssh handshake; one that has waited for its next try takes minutes. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

const layers = ['marker', 'ledger', 'forward', 'port', 'anyone', 'chain', 'asked'] as const;

/** What has passed through this process. Received and sent are as the tunnel's clients see it. */
const counted = [
  ['tunward_tunnel_connections_total', 'connections', 'Connections that clients made to the tunnel'],
  [
    'tunward_tunnel_connections_refused_total',
    'refused',
    'Those of them that were turned away: too many waited, it took too long, no descriptor was left, or the target could not be reached',
  ],
  ['tunward_tunnel_received_bytes_total', 'bytesIn', 'Bytes that have come from the target, to the clients'],
  ['tunward_tunnel_sent_bytes_total', 'bytesOut', 'Bytes that have gone to the target, from the clients'],
] as const;
const present = [
  ['tunward_tunnel_connections_open', 'open', 'Connections that go through the tunnel now'],
  ['tunward_tunnel_connections_queued', 'queued', 'Connections that wait for a link now'],
] as const;

/** For Prometheus. A registry of its own: what somebody else in this process counts is theirs. */
export function metricRoutes({ overview, traffic, journal, version }: MetricsContext): Route[] {
  const registry = new Registry();
  const registers = [registry];
  const of = ['tunnel', 'name'] as const;

  new Gauge({
    name: 'tunward_tunnel_up',
    help: 'Whether the tunnel is up: its own chain holds every address of the forward.',
    labelNames: of,
    registers,
    async collect() {
      await eachTunnel(this, ({ id, name, state }) => this.set({ tunnel: id, name }, state === 'up' ? 1 : 0));
    },
  });
  new Gauge({
    name: 'tunward_tunnel_state',
    help: 'The state the tunnel is in: 1 for that one, 0 for the others.',
    labelNames: [...of, 'state'],
    registers,
    async collect() {
      await eachTunnel(this, ({ id, name, state }) => {
        for (const one of tunnel.shape.state.options) this.set({ tunnel: id, name, state: one }, one === state ? 1 : 0);
      });
    },
  });
  new Gauge({
    name: 'tunward_tunnel_needs_auth',
    help: 'Whether the tunnel waits for a person: interactive, enabled, and not up for a reason.',
    labelNames: of,
    registers,
    async collect() {
      await eachTunnel(this, (status) =>
        this.set({ tunnel: status.id, name: status.name }, waitsForPerson(status) ? 1 : 0),
      );
    },
  });
  new Gauge({
    name: 'tunward_chain_cpu_seconds',
    help: 'CPU time that the processes of the chain have used, as long as they are there.',
    labelNames: of,
    registers,
    async collect() {
      await eachTunnel(this, ({ id, name, usage }) => usage && this.set({ tunnel: id, name }, usage.ctime / 1000));
    },
  });
  new Gauge({
    name: 'tunward_chain_resident_memory_bytes',
    help: 'Resident memory of the processes of the chain; what two of them share counts twice.',
    labelNames: of,
    registers,
    async collect() {
      await eachTunnel(this, ({ id, name, usage }) => usage && this.set({ tunnel: id, name }, usage.memory));
    },
  });
  for (const [name, field, help] of counted) {
    new Counter({
      name,
      help: `${help}. Of tunnels that are embedded or seamless.`,
      labelNames: of,
      registers,
      async collect() {
        await eachCounted(this, (labels, seen) => this.inc(labels, seen[field]));
      },
    });
  }
  for (const [name, field, help] of present) {
    new Gauge({
      name,
      help: `${help}. Of tunnels that are embedded or seamless.`,
      labelNames: of,
      registers,
      async collect() {
        await eachCounted(this, (labels, seen) => this.set(labels, seen[field]));
      },
    });
  }
  const restarts = new Counter({
    name: 'tunward_restarts_total',
    help: 'How often a tunnel came up again; requested, or why it had been up no longer.',
    labelNames: ['reason'],
    registers,
  });
  const restartSeconds = new Histogram({
    name: 'tunward_restart_seconds',
    help: 'How long that took, from the end of the old chain, or the try that went well, to up; of interactive ones nothing.',
    buckets: SECONDS,
    registers,
  });
  const releaseSeconds = new Histogram({
    name: 'tunward_port_release_seconds',
    help: 'How long it took of that until the old chain was gone and its ports were proved free.',
    buckets: SECONDS,
    registers,
  });
  const killed = new Counter({
    name: 'tunward_processes_killed_total',
    help: 'Processes killed, by what they were found by: marker, ledger, forward, port, anyone; chain: below those, or a chain of our own; asked: for a port that somebody wanted free.',
    labelNames: ['layer'],
    registers,
  });
  const announced = new Counter({
    name: 'tunward_needs_auth_total',
    help: 'How often it was announced that a tunnel waits for a person: at the boot, or because it was up and was lost.',
    labelNames: ['why'],
    registers,
  });
  new Gauge({
    name: 'tunward_build_info',
    help: 'Always 1.',
    labelNames: ['version', 'node'],
    registers,
  }).set({ version, node: process.version }, 1);
  // What has not happened yet is 0 and not unknown, so that its first time is an increase.
  for (const layer of layers) killed.inc({ layer }, 0);
  for (const why of ['boot', 'lost']) announced.inc({ why }, 0);
  restarts.inc({ reason: 'requested' }, 0);
  journal.subscribe(count);
  /** One at a time, for all who ask meanwhile: a gauge has one set of values. */
  let rendering: Promise<string> | undefined;

  return [
    route({
      method: 'GET',
      path: '/metrics',
      scope: 'read',
      about: 'For Prometheus',
      answers: { 200: { about: 'The text format 0.0.4', type: registry.contentType } },
      async handle() {
        rendering ??= render().finally(() => (rendering = undefined));
        return { bytes: await rendering, type: registry.contentType };
      },
    }),
  ];

  /** One after the other, and with turns for others: 500 tunnels are 30 ms of work, which must not be one. */
  async function render(): Promise<string> {
    const slice = createSlice();
    const texts: string[] = [];
    for (const { name } of registry.getMetricsAsArray()) {
      texts.push(await registry.getSingleMetricAsString(name));
      await slice();
    }
    return `${texts.join('\n\n')}\n`;
  }

  /** The figures are those of this moment: what a tunnel has counted never becomes less. */
  async function eachCounted(
    metric: Gauge<string> | Counter<string>,
    set: (labels: { readonly tunnel: string; readonly name: string }, seen: Traffic) => void,
  ): Promise<void> {
    const seen = traffic();
    await eachTunnel(metric, ({ id, name }) => {
      const own = seen.get(id);
      if (own) set({ tunnel: id, name }, own);
    });
  }

  async function eachTunnel(
    metric: Gauge<string> | Counter<string>,
    set: (status: TunnelStatus) => void,
  ): Promise<void> {
    const slice = createSlice();
    metric.reset();
    for (const status of await overview.statuses()) {
      set(status);
      await slice();
    }
  }

  function count(entry: JournalEntry): void {
    if ('layers' in entry) {
      for (const [layer, processes] of Object.entries(entry.layers)) killed.inc({ layer }, processes);
    }
    if (entry.type === 'tunnel.needs_auth') announced.inc({ why: entry.why });
    if (entry.type !== 'tunnel.up') return;
    const { restarts: times, lastRestart, interactive } = entry.status;
    if (!lastRestart || times === 0) return;
    const { asked, reason, tookMs, phases } = lastRestart;
    restarts.inc({ reason: asked ? 'requested' : (reason ?? 'exited') });
    // How long a person has thought says nothing of that.
    if (interactive) return;
    restartSeconds.observe(tookMs / 1000);
    releaseSeconds.observe((phases.stopMs + phases.freeMs) / 1000);
  }
}
