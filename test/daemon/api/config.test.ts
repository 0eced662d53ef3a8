import type { IncomingMessage } from 'node:http';
import { expect } from 'chai';
import { configRoutes } from '#lib/daemon/api/config.js';
import type { Editor } from '#lib/daemon/edit/editor.js';
import type { Reloader } from '#lib/daemon/reload.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';

describe('configRoutes()', () => {
  it('says of a tunnel that is written and waits for another one’s end what is known of it', async () => {
    const supervisor = { specs: () => [], status: () => ({ id: 'old' }) } as unknown as Supervisor;
    const edited = async () => ({ id: 'new', etag: 'abc', settled: false });
    const editor = { add: edited, replace: edited } as unknown as Editor;
    const routes = configRoutes({ supervisor, reloader: {} as Reloader, editor });
    for (const method of ['POST', 'PUT']) {
      const row = routes.find((one) => one.method === method && one.path.startsWith('/v1/tunnels'));
      const incoming = { headers: {} } as IncomingMessage;
      const answer = await row?.handle({ params: { id: 'old' }, query: {}, body: {}, access: null, incoming });
      expect(answer).to.deep.include({ status: 202, body: { id: 'new' } });
      expect(answer?.headers).to.include({ etag: '"abc"' });
      expect(row?.answers[202]?.schema?.safeParse({ id: 'new' }).success).to.equal(true);
    }
  });
});
