/** A real Chromium, headless, and the pages that tests open in it: each in a context of its own, and none may do wrong. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { until } from '#lib/time.js';
import { which } from '../support/paths.js';
import type { Stage } from './stage.js';

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface PageOptions extends BrowserContextOptions {
  /** What the clock of this browser says at first; default: the time. */
  readonly time?: Date;
}

export interface Viewer {
  /** A page in a context of its own, at this address. */
  open(url: string, options?: PageOptions): Promise<Page>;
  /** Closes the pages, and throws for each that broke its policy, complained, or asked another origin. */
  check(): Promise<void>;
  close(): Promise<void>;
}

export async function startViewer(): Promise<Viewer> {
  const executablePath = which('chromium');
  if (!executablePath || !existsSync(executablePath)) throw new Error('There is no chromium');
  const browser: Browser = await chromium.launch({ executablePath, args: flags });
  const wrongs: string[] = [];
  const pages: Page[] = [];
  return { open, check, close: () => browser.close() };

  async function open(url: string, { time, ...options }: PageOptions = {}): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
    const page = await context.newPage();
    pages.push(page);
    watch(page, new URL(url).origin);
    page.setDefaultTimeout(10_000);
    if (time) await page.clock.install({ time });
    await page.goto(url);
    return page;
  }

  function watch(page: Page, origin: string): void {
    page.on('console', (message) => {
      // What the network answers (401, 409, no answer at all) the browser writes by itself; it is the test's to judge.
      const isNetwork = /^(Failed to load resource|WebSocket connection to)/.test(message.text());
      if (message.type() === 'error' && !isNetwork) wrongs.push(message.text());
      if (/Content Security Policy|Trusted/i.test(message.text())) wrongs.push(message.text());
    });
    page.on('pageerror', (error) => wrongs.push(String(error.stack ?? error)));
    page.on('dialog', (dialog) => {
      wrongs.push(`a script has run: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('websocket', (socket) => {
      if (new URL(socket.url()).host !== new URL(origin).host) wrongs.push(`asked ${socket.url()}`);
    });
    page.on('request', (request) => {
      const { protocol, origin: of } = new URL(request.url());
      if (protocol !== 'data:' && of !== origin) wrongs.push(`asked ${request.url()}`);
    });
  }

  async function check(): Promise<void> {
    await Promise.all(pages.splice(0).map((page) => page.context().close()));
    expect(wrongs.splice(0), 'what pages have done wrong').to.deep.equal([]);
  }
}

/** Waits until it is so, and throws when it does not become so. */
export async function eventually(check: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  if (!(await until(check, { timeoutMs, everyMs: 20 }))) throw new Error(`It has not become so: ${check}`);
}

/** Signs in, and waits for the list. */
export async function signIn(page: Page, stage: Pick<Stage, 'token'>): Promise<void> {
  await page.getByLabel('Token').fill(stage.token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('live', { exact: true }).waitFor();
}
