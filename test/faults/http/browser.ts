// H1 by a real browser, in which somebody has logged in, and which then opens pages of other people.
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { programsDir, which } from '../../support/paths.js';
import type { Target } from './target.js';

const flags = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  // A name that leads here: of a page, or of one whose name service changes its mind (DNS rebinding).
  '--host-resolver-rules=MAP *.evil.example 127.0.0.1, MAP evil.example 127.0.0.1',
];

/** Answers how many attempts there were. */
export async function browserAttacks(target: Target): Promise<string> {
  const evil = await serveEvil();
  const browser = await chromium.launch({ executablePath: which('chromium') ?? 'chromium', args: flags });
  try {
    const context = await browser.newContext();
    const base = `http://127.0.0.1:${target.port}`;
    const own = await logIn(context, base, target.token);
    const origins = [
      `http://evil.example:${evil.port}`,
      `http://127.0.0.1:${evil.port}`,
      `http://localhost:${evil.port}`,
    ];
    let attempts = 0;
    let withCookie = 0;
    context.on('request', (request) => {
      if (!request.url().startsWith(base)) return;
      void request.allHeaders().then(({ cookie }) => {
        if (cookie !== undefined) withCookie++;
      });
    });
    for (const origin of origins) {
      const found = await attackFrom(await open(context, origin), base, origin);
      attempts += Object.keys(found).length;
      const readers = Object.entries(found).filter(([, outcome]) => outcome.startsWith('read'));
      expect(readers, `what ${origin} was able to read`).to.deep.equal([]);
    }
    // A page of another port is of the same site: the browser sends the cookie with what it asks.
    expect(withCookie, 'requests with the cookie').to.be.greaterThan(0);
    attempts += await reboundAttacks(context, target.port);
    attempts += await navigations(context, base, evil.port);
    expect(await statusOf(own, '/v1/tunnels'), 'still logged in').to.equal(200);
    return `${attempts} attempts of ${origins.length + 1} origins in Chromium ${browser.version()}, ${withCookie} of their requests with the cookie`;
  } finally {
    await browser.close();
    evil.close();
  }
}

async function logIn(context: BrowserContext, base: string, token: string): Promise<Page> {
  const page = await open(context, `${base}/livez`);
  const script = `fetch('/v1/session', { method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token: ${JSON.stringify(token)} }) }).then(({ status }) => status)`;
  expect(await page.evaluate(script), 'logged in').to.equal(200);
  expect(await statusOf(page, '/v1/tunnels'), 'by the cookie').to.equal(200);
  expect(await page.evaluate('document.cookie'), 'for scripts').to.equal('');
  return page;
}

async function open(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(url);
  return page;
}

async function attackFrom(page: Page, base: string, origin: string): Promise<Record<string, string>> {
  expect(await page.evaluate('location.origin')).to.equal(origin);
  return page.evaluate(`attack(${JSON.stringify(base)})`);
}

function statusOf(page: Page, path: string, how = '{}'): Promise<number> {
  return page.evaluate(`fetch(${JSON.stringify(path)}, ${how}).then(({ status }) => status, () => 0)`);
}

/** Its own origin, as the browser has it: nothing but the Host tells the daemon. */
async function reboundAttacks(context: BrowserContext, port: number): Promise<number> {
  const page = await open(context, `http://evil.example:${port}/livez`);
  const post = `{ method: 'POST' }`;
  const json = `{ method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"action":"restart","all":true}' }`;
  const attempts: readonly (readonly [string, string?])[] = [
    ...(['/', '/livez', '/openapi.json', '/v1/tunnels', '/v1/session', '/v1/events', '/metrics'] as const).map(
      (path) => [path] as const,
    ),
    ['/v1/tunnels/victim/restart', post],
    ['/v1/operations', json],
    ['/v1/session', json],
    ['/v1/shutdown', post],
  ];
  for (const [path, how] of attempts) expect(await statusOf(page, path, how), path).to.equal(421);
  return attempts.length;
}

/** The whole page goes there, by a link or by a form: the browser shows what comes of it, and does not send the cookie. */
async function navigations(context: BrowserContext, base: string, port: number): Promise<number> {
  const act = `${base}/v1/tunnels/victim/restart`;
  const form = `(() => { const form = document.createElement('form');
    Object.assign(form, { action: '${act}', method: 'post' }); document.body.append(form); form.submit(); })()`;
  const scripts = { [`location.href = '${act}'`]: 405, [form]: 403, [`location.href = '${base}/v1/tunnels'`]: 401 };
  for (const [script, expected] of Object.entries(scripts)) {
    const page = await open(context, `http://evil.example:${port}`);
    const [answer] = await Promise.all([
      page.waitForResponse((response) => response.url().startsWith(base)),
      page.evaluate(script),
    ]);
    expect(answer.status(), script).to.equal(expected);
  }
  return Object.keys(scripts).length;
}

/** Serves the page of programs/evil-page.js, whoever asks under whatever name. */
async function serveEvil(): Promise<{ port: number; close(): void }> {
  const script = readFileSync(join(programsDir, 'evil-page.js'));
  const server = http.createServer((request, answer) => {
    const isScript = request.url === '/evil-page.js';
    answer.writeHead(200, { 'content-type': isScript ? 'text/javascript' : 'text/html' });
    answer.end(isScript ? script : '<!doctype html><title>Cats</title><body><script src="/evil-page.js"></script>');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, close };
}
