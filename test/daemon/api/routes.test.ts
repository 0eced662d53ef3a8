import { expect } from 'chai';
import { createRoutes, type Route } from '#lib/daemon/api/routes.js';
import type { TunnelLogs } from '#lib/daemon/log.js';
import { TunwardError } from '#lib/errors.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';

const noRequest = { param: () => undefined, query: () => undefined };

describe('createRoutes()', () => {
  let finishBoot: () => void;
  let routes: Route[];
  let shutdowns: number;

  beforeEach(() => {
    shutdowns = 0;
    const booted = new Promise<void>((resolve) => {
      finishBoot = resolve;
    });
    const supervisor = { list: () => [], status: () => ({ id: 'a' }) } as unknown as Supervisor;
    const logs = { fileOf: () => '/log', tail: (_id: string, lines: number) => [`${lines}`] } as unknown as TunnelLogs;
    routes = createRoutes({ supervisor, logs, shutdown: () => shutdowns++, booted });
  });

  function route(path: string): Route {
    const found = routes.find((candidate) => candidate.path === path);
    if (!found) throw new Error(`There is no ${path}`);
    return found;
  }

  it('waits with its answers until the boot knows every tunnel; health is said at once', async () => {
    const { body } = await route('/health').handle(noRequest);
    expect(body).to.include({ status: 'ok', pid: process.pid, pid1: false }).and.have.property('zombies');
    let answered = false;
    const answer = route('/v1/tunnels').handle(noRequest);
    answer.then(
      () => {
        answered = true;
      },
      () => undefined,
    );
    // A whole turn of the event loop: an answer that waits for nothing would be here.
    await new Promise((resolve) => setImmediate(resolve));
    expect(answered).to.equal(false);
    finishBoot();
    expect(await answer).to.deep.equal({ body: { tunnels: [] } });
  });

  it('says which value of a query it cannot take', async () => {
    finishBoot();
    const logs = (lines: string | undefined) =>
      route('/v1/tunnels/:id/logs').handle({ param: () => 'a', query: () => lines });
    expect((await logs('7')).body).to.deep.equal({ id: 'a', logFile: '/log', lines: ['7'] });
    expect((await logs(undefined)).body).to.deep.include({ lines: ['100'] });
    for (const lines of ['0', '-1', '1.5', 'all', '10001']) {
      const error = await logs(lines).catch((thrown: unknown) => thrown);
      expect(error, lines).to.be.instanceOf(TunwardError).and.have.property('code', 'ERR_BAD_REQUEST');
      expect(error).to.have.property('message', `lines: expected a number from 1 to 10000, found '${lines}'`);
    }
  });

  it('shuts down once it has answered for that', async () => {
    finishBoot();
    expect(await route('/v1/shutdown').handle(noRequest)).to.deep.equal({
      status: 202,
      body: { status: 'stopping', pid: process.pid },
    });
    expect(shutdowns).to.equal(1);
  });
});
