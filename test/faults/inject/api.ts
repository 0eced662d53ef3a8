// X1 at the door of the API: the owner's own, where nothing is asked but whether a tunnel is right.
import http from 'node:http';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, startUp } from '../../support/daemon.js';
import type { Reaper } from '../../support/reaper.js';
import { doors, plain } from './doors.js';
import { count, type Tally } from './run.js';
import type { Site } from './site.js';
import type { Hostile } from './strings.js';

/** Each string at one door in turn: what is taken is started, comes to its end, and is removed again. */
export async function addEach(hostiles: readonly Hostile[], site: Site, reaper: Reaper): Promise<Tally> {
  const tally: Tally = new Map();
  const home = makeHome();
  const names = Object.keys(doors);
  try {
    home.configure({}, []);
    const daemon = await startUp(reaper, home, { HOME: site.workDir });
    for (const [at, { text }] of hostiles.entries()) {
      const door = names[at % names.length] ?? '';
      const tunnel = {
        ...plain(0, at, site),
        engine: at % 2 === 0 ? 'ssh' : 'autossh',
        enabled: true,
        ...doors[door]?.(text, at),
      };
      const { status, body } = await ask(home, 'POST', '/v1/tunnels', tunnel);
      expect(status, `${door}: ${JSON.stringify(body).slice(0, 500)}`).to.be.oneOf([201, 202, 400, 409, 413, 422]);
      if (status < 300) count(tally, await runAndRemove(home, body.id));
      else count(tally, body.code);
      expect(site.canaries(), `canaries at ${door}, ${JSON.stringify(text).slice(0, 200)}`).to.deep.equal([]);
    }
    const { body } = await ask(home, 'GET', '/v1/config');
    expect(body.tunnels, 'left in the file').to.deep.equal([]);
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    return tally;
  } finally {
    await reaper.end();
    home.remove();
  }
}

/** Interactive ones do not start; those of a value that ssh refuses are fatal, and the others wait for their next try. */
async function runAndRemove(home: Home, id: string): Promise<string> {
  const settled = async () => {
    const { body } = await ask(home, 'GET', `/v1/tunnels/${id}`);
    return ['backoff', 'fatal', 'stopped'].includes(body.state) && (body.reason ?? body.state);
  };
  const reason = await until(settled, { timeoutMs: 15_000, everyMs: 10 });
  expect((await ask(home, 'DELETE', `/v1/tunnels/${id}`)).status, 'removed').to.equal(200);
  if (typeof reason !== 'string') throw new Error(`${id} comes to no end`);
  return reason;
}

// biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
function ask({ socket }: Home, method: string, path: string, body?: unknown): Promise<{ status: number; body: any }> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const request = http.request({ socketPath: socket, method, path, headers, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      answer.once('error', reject);
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) }));
    });
    request.once('error', reject);
    request.end(body === undefined ? '' : JSON.stringify(body));
  });
}
