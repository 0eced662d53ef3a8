import type http from 'node:http';
import { expect } from 'chai';
import { metricRoutes } from '#lib/daemon/api/metrics.js';
import { createJournal } from '#lib/daemon/events.js';
import { systemClock } from '#lib/time.js';
import type { Reason } from '#lib/tunnel/engine.js';
import type { Traffic } from '#lib/tunnel/front/meter.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';

describe('GET /metrics', () => {
  const many = Array.from({ length: 1000 }, (_, number) => {
    const [id, name] = [String(number).padStart(32, '0'), `tunnel "${number}" \\ of many`];
    return { id, name, state: 'up', usage: { ctime: 1500, memory: 4096 } } as unknown as TunnelStatus;
  });
  let counted: ReadonlyMap<string, Traffic>;
  beforeEach(() => {
    counted = new Map();
  });
  const request = { params: {}, query: {}, body: undefined, access: null };

  async function scrape(row: ReturnType<typeof metricRoutes>[number] | undefined): Promise<string> {
    const given = await row?.handle({ ...request, incoming: { headers: {} } as http.IncomingMessage });
    return given && 'bytes' in given ? String(given.bytes) : '';
  }

  const open = (statuses: () => readonly TunnelStatus[]) =>
    metricRoutes({
      overview: { statuses: async () => statuses() },
      traffic: () => counted,
      journal: { subscribe: () => () => undefined },
      version: '1',
    })[0];

  it('lets others have their turn while it counts 1,000 tunnels, for several who ask at once', async () => {
    const row = open(() => many);
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns++;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    const texts = await Promise.all([scrape(row), scrape(row), scrape(row)]);
    isOver = true;
    expect(turns).to.be.greaterThan(2);
    for (const text of texts) {
      expect(text.match(/^tunward_tunnel_up\{/gm)).to.have.length(1000);
      expect(text.match(/^tunward_tunnel_state\{.*\} 1$/gm)).to.have.length(1000);
      expect(text).to.include('name="tunnel \\"7\\" \\\\ of many"} 1.5\n');
      expect(text.match(/^tunward_chain_resident_memory_bytes\{.*\} 4096$/gm)).to.have.length(1000);
    }
  });

  it('has nothing more of a tunnel that has left', async () => {
    let statuses = many.slice(0, 2);
    const row = open(() => statuses);
    expect((await scrape(row)).match(/^tunward_tunnel_up\{/gm)).to.have.length(2);
    statuses = statuses.slice(1);
    expect(await scrape(row)).not.to.include(many[0]?.id);
  });

  it('says who waits for a person: interactive, enabled, and not up for a reason', async () => {
    const one = { interactive: true, enabled: true, state: 'stopped', reason: 'needs_auth' };
    const others = [
      { ...one, reason: 'refused' },
      { ...one, state: 'up', reason: 'target_refused' },
      { ...one, enabled: false },
      { ...one, reason: null },
      { ...one, interactive: false, state: 'fatal' },
    ];
    const all = [one, ...others].map((each, at) => ({ id: `${at}`, name: 'n', ...each }) as unknown as TunnelStatus);
    const text = await scrape(open(() => all));
    const found = [...text.matchAll(/^tunward_tunnel_needs_auth\{tunnel="(\d)",name="n"\} ([01])$/gm)];
    expect(found.map(([, , value]) => value).join('')).to.equal('110000');
  });

  it('counts what passes through the daemon, as it is at this moment, of those tunnels alone', async () => {
    const row = open(() => many.slice(0, 2));
    const [{ id = '' } = {}] = many;
    const traffic = { connections: 7, open: 2, queued: 1, refused: 3, bytesIn: 4096, bytesOut: 512 };
    const all = [
      ['tunward_tunnel_connections_total', 7],
      ['tunward_tunnel_connections_refused_total', 3],
      ['tunward_tunnel_received_bytes_total', 4096],
      ['tunward_tunnel_sent_bytes_total', 512],
      ['tunward_tunnel_connections_open', 2],
      ['tunward_tunnel_connections_queued', 1],
    ] as const;
    const find = (text: string, metric: string) => [
      ...text.matchAll(new RegExp(`^${metric}\\{.*tunnel="(\\d+)".*\\} (\\d+)$`, 'gm')),
    ];
    const none = await scrape(row);
    for (const [metric] of all) expect(find(none, metric), metric).to.deep.equal([]);
    counted = new Map([[id, traffic]]);
    const text = await scrape(row);
    for (const [metric, value] of all) {
      expect(
        find(text, metric).map(([, of, figure]) => [of, Number(figure)]),
        metric,
      ).to.deep.equal([[id, value]]);
      expect(text).to.include(`# TYPE ${metric} ${metric.endsWith('_total') ? 'counter' : 'gauge'}\n`);
    }
    // Another look adds nothing to what the first one has said.
    counted = new Map([[id, { ...traffic, connections: 8, open: 0 }]]);
    const later = await scrape(row);
    expect(later).to.match(/^tunward_tunnel_connections_total\{.*\} 8$/m);
    expect(later).to.match(/^tunward_tunnel_received_bytes_total\{.*\} 4096$/m);
    expect(later).to.match(/^tunward_tunnel_connections_open\{.*\} 0$/m);
  });

  it('counts what has happened: restarts and why, how long they took, and the dead by their layers', async () => {
    const journal = createJournal(systemClock);
    const [row] = metricRoutes({
      overview: { statuses: async () => [] },
      traffic: () => counted,
      journal,
      version: '1',
    });
    const up = (restarts: number, asked: boolean, reason: Reason | null, interactive = false) => {
      const phases = { stopMs: 30, freeMs: 10, startMs: 160 };
      const lastRestart = { at: '', asked, reason, tookMs: 200, phases };
      const status = { restarts, lastRestart, interactive } as TunnelStatus;
      journal.append({ type: 'tunnel.up', tunnel: 'a', from: 'starting', asked, status });
    };
    expect(await scrape(row)).to.include('tunward_restarts_total{reason="requested"} 0\n');
    up(0, true, null); // its first start is none
    up(1, true, null);
    up(2, false, 'timeout');
    up(3, false, 'timeout');
    up(1, true, null, true); // how long somebody took to type is no time of a restart
    journal.append({ type: 'tunnel.needs_auth', tunnel: 'a', why: 'lost', status: {} as TunnelStatus });
    const kill = { killed: [], left: [], survivors: [], tookMs: 1 };
    journal.append({ type: 'process.killed', tunnel: 'a', kill, layers: { chain: 2, port: 1 } });
    journal.append({ type: 'port.freed', port: 1, free: true, explanation: '', kill, layers: { asked: 3 } });
    const text = await scrape(row);
    for (const line of [
      'tunward_restarts_total{reason="requested"} 2',
      'tunward_restarts_total{reason="timeout"} 2',
      'tunward_needs_auth_total{why="lost"} 1',
      'tunward_needs_auth_total{why="boot"} 0',
      'tunward_restart_seconds_bucket{le="0.1"} 0',
      'tunward_restart_seconds_bucket{le="0.25"} 3',
      'tunward_port_release_seconds_bucket{le="0.025"} 0',
      'tunward_port_release_seconds_bucket{le="0.05"} 3',
      'tunward_processes_killed_total{layer="chain"} 2',
      'tunward_processes_killed_total{layer="port"} 1',
      'tunward_processes_killed_total{layer="asked"} 3',
      'tunward_processes_killed_total{layer="marker"} 0',
    ]) {
      expect(text).to.include(`${line}\n`);
    }
  });
});
