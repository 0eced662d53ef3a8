import type http from 'node:http';
import { expect } from 'chai';
import { metricRoutes } from '#lib/daemon/api/metrics.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';

describe('GET /metrics', () => {
  const many = Array.from({ length: 1000 }, (_, number) => {
    const [id, name] = [String(number).padStart(32, '0'), `tunnel "${number}" \\ of many`];
    return { id, name, state: 'up', usage: { ctime: 1500, memory: 4096 } } as unknown as TunnelStatus;
  });
  const request = { params: {}, query: {}, body: undefined, access: null };

  async function scrape(row: ReturnType<typeof metricRoutes>[number] | undefined): Promise<string> {
    const given = await row?.handle({ ...request, incoming: { headers: {} } as http.IncomingMessage });
    return given && 'bytes' in given ? String(given.bytes) : '';
  }

  const open = (statuses: () => readonly TunnelStatus[]) =>
    metricRoutes({
      overview: { statuses: async () => statuses() },
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
      expect(text).to.match(/\} 4096\n\n# HELP tunward_restarts_total /);
    }
  });

  it('has nothing more of a tunnel that has left', async () => {
    let statuses = many.slice(0, 2);
    const row = open(() => statuses);
    expect((await scrape(row)).match(/^tunward_tunnel_up\{/gm)).to.have.length(2);
    statuses = statuses.slice(1);
    expect(await scrape(row)).not.to.include(many[0]?.id);
  });
});
