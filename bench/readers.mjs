/* Readers of events for api.mjs: so many connections, and for each event how long after its `at` it was received. */
import http from 'node:http';
import { createInterface } from 'node:readline';

const [count, url, authorization] = process.argv.slice(2);
let heard = [];
let kinds = new Set();

await Promise.all(Array.from({ length: Number(count) }, connect));
process.stdout.write('connected\n');
createInterface({ input: process.stdin }).on('line', () => {
  process.stdout.write(`${JSON.stringify({ heard, kinds: kinds.size })}\n`);
  heard = [];
  kinds = new Set();
});

function connect() {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { headers: { authorization }, agent: false }, (response) => {
      if (response.statusCode !== 200) return reject(new Error(`${url}: ${response.statusCode}`));
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        const now = performance.timeOrigin + performance.now();
        text += chunk;
        for (let at = text.indexOf('\n\n'); at !== -1; at = text.indexOf('\n\n')) {
          note(text.slice(0, at), now);
          text = text.slice(at + 2);
        }
      });
      response.once('error', reject);
      resolve();
    });
    request.once('error', reject);
  });
}

function note(event, now) {
  const [, kind] = /^event: (.*)$/m.exec(event) ?? [];
  if (kind === undefined || kind === 'tunnel.output') return;
  kinds.add(kind);
  heard.push(now - Date.parse(JSON.parse(/^data: (.*)$/m.exec(event)[1]).at));
}
