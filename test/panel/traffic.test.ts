import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, type Viewer } from './browser.js';
import { idOf, useScene } from './scene.js';
import { type Json, problem, type Stage } from './stage.js';

describe('the traffic of a tunnel', () => {
  let viewer: Viewer;
  let stage: Stage;
  /** What the daemon answers, one after the other; the last one again and again. */
  let answers: Json[];

  const began = Date.parse('2026-11-25T16:00:00Z');
  const none = { connections: 0, open: 0, queued: 0, refused: 0, bytes_in: 0, bytes_out: 0 };
  const sample = (seconds: number, traffic: Json, id = idOf(8)) => ({
    at: new Date(began + seconds * 1000).toISOString(),
    tunnels: { [id]: { ...none, ...traffic } },
  });
  const asked = () => stage.asked.filter((what) => what === 'GET /v1/traffic').length;

  useScene((...opened) => {
    [viewer, stage] = opened;
    stage.isLocked = false;
    answers = [];
    stage.answers.set('GET /v1/traffic', () => {
      const [next, ...rest] = answers;
      if (rest.length > 0) answers = rest;
      return next ? { body: next } : problem(503, 'ERR_DAEMON_BUSY', 'It is busy');
    });
  });

  async function openTunnel(number: number, options = {}): Promise<Page> {
    const page = await viewer.open(`${stage.url}#/tunnel/${idOf(number)}`, { time: new Date(), ...options });
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.locator('.link.live').waitFor();
    return page;
  }

  /** Until the page has asked for all answers, two seconds of its time each. */
  async function lookAtAll(page: Page): Promise<void> {
    while (answers.length > 1) {
      const before = asked();
      await page.clock.runFor(2000);
      await eventually(() => asked() > before);
    }
  }

  const lineOf = (page: Page, flow: string) => page.locator(`.spark svg.lines .flow.${flow}`).getAttribute('d');
  const factsIn = async (page: Page) => {
    const text = (await page.locator('.traffic .facts').textContent()) ?? '';
    return text.replaceAll(/\s+/g, ' ').trim();
  };

  it('is drawn of samples: how fast it goes in and out now, and what has passed in all', async () => {
    answers = [
      sample(0, { bytes_in: 1000, bytes_out: 100 }),
      sample(2, { bytes_in: 5_001_000, bytes_out: 4100, connections: 9, open: 4, queued: 2, refused: 1 }),
      sample(4, { bytes_in: 7_501_000, bytes_out: 4100, connections: 9, open: 4, queued: 2, refused: 1 }),
    ];
    const page = await openTunnel(8);
    await page.getByText('seamless', { exact: true }).waitFor();
    await page.getByText('None of its own: it runs inside the daemon.').waitFor();
    await lookAtAll(page);
    await page
      .getByRole('img', { name: 'Now 1.3 MB/s in and 0 B/s out; in the last two minutes 2.5 MB/s at most' })
      .waitFor();
    // At the top two seconds ago, halfway now; the other one is at the ground.
    expect(await lineOf(page, 'in')).to.equal('M236.0 2.0h0L240.0 24.0');
    expect(await lineOf(page, 'out')).to.equal('M236.0 46.0h0L240.0 46.0');
    expect(await factsIn(page)).to.equal(
      'Open now4Waiting for a link2Turned away1Connections9In, from the target7.5 MBOut, to the target4 kB',
    );
  });

  it('takes no counter that went back for a rate: the daemon is another one', async () => {
    answers = [
      sample(0, { bytes_in: 1_000_000 }),
      sample(2, { bytes_in: 3_000_000 }),
      sample(4, { bytes_in: 100 }),
      sample(6, { bytes_in: 500_100 }),
    ];
    const page = await openTunnel(8);
    await lookAtAll(page);
    await page.getByRole('img', { name: /^Now 250 kB\/s in and 0 B\/s out; .* 1\.0 MB\/s at most$/ }).waitFor();
    // Two lines of one point each, and none between them.
    expect(await lineOf(page, 'in')).to.equal('M232.0 2.0h0M240.0 35.0h0');
  });

  it('knows nothing of a time in which nobody has asked, or a clock that was set', async () => {
    answers = [sample(0, { bytes_in: 1 }), sample(60, { bytes_in: 9e9 }), sample(62, { bytes_in: 9e9 + 2000 })];
    const page = await openTunnel(8);
    await lookAtAll(page);
    await page.getByRole('img', { name: /^Now 1 kB\/s in .* 1 kB\/s at most$/ }).waitFor();
    answers.push(sample(10, { bytes_in: 9e9 + 3000 }), sample(12, { bytes_in: 9e9 + 7000 }));
    await lookAtAll(page);
    await page.getByRole('img', { name: /^Now 2 kB\/s in .* 2 kB\/s at most$/ }).waitFor();
    expect(await lineOf(page, 'in')).to.equal('M240.0 2.0h0');
  });

  it('has its place before anything was measured, and keeps the height of it', async () => {
    stage.answers.set('GET /v1/traffic', () => problem(503, 'ERR_DAEMON_BUSY', 'It is busy'));
    const page = await openTunnel(8);
    await page.getByRole('img', { name: 'Nothing has been measured yet' }).waitFor();
    expect(await factsIn(page), 'as the list has it').to.contain('Open now12Waiting for a link0Turned away3');
    const height = async () => (await page.locator('section.traffic').boundingBox())?.height;
    const before = await height();
    answers = Array.from({ length: 5 }, (_, at) => sample(2 * at, { bytes_in: at * 7_770_000, bytes_out: at * 90 }));
    stage.answers.set('GET /v1/traffic', () => ({ body: answers.length > 1 ? answers.shift() : answers[0] }));
    await lookAtAll(page);
    await page.getByRole('img', { name: /^Now 3\.9 MB\/s in/ }).waitFor();
    expect(await height()).to.equal(before);
  });

  it('is asked for while it is seen, and not of a tunnel whose bytes go elsewhere', async () => {
    answers = [sample(0, {})];
    const page = await openTunnel(8);
    await eventually(() => asked() === 1);
    await page.clock.runFor(6000);
    await eventually(() => asked() === 4);
    await page.goto(`${stage.url}#/tunnel/${idOf(1)}`);
    await page.getByRole('heading', { level: 1, name: 'database' }).waitFor();
    await page.clock.runFor(10_000);
    expect(await page.locator('.traffic').count()).to.equal(0);
    await page.goto(`${stage.url}#/`);
    await page.locator('.tunnels').waitFor();
    await page.clock.runFor(10_000);
    expect(asked()).to.equal(4);
    await page.goto(`${stage.url}#/tunnel/${idOf(8)}`);
    await eventually(() => asked() === 5);
  });

  it('keeps two minutes of it', async () => {
    answers = Array.from({ length: 80 }, (_, at) => sample(2 * at, { bytes_in: at * 2000 }));
    const page = await openTunnel(8);
    await lookAtAll(page);
    await page.getByRole('img', { name: /^Now 1 kB\/s in/ }).waitFor();
    const line = (await lineOf(page, 'in')) ?? '';
    expect(line).to.match(/^M0\.0 2\.0h0L4\.0 2\.0/);
    expect(line.match(/[ML]/g)).to.have.length(61);
  });

  it('is told in Chinese as well, and in the dark', async () => {
    answers = [sample(0, {}), sample(2, { bytes_in: 2e6, bytes_out: 2000 })];
    const page = await openTunnel(8, { locale: 'zh-CN', colorScheme: 'dark', reducedMotion: 'reduce' });
    await lookAtAll(page);
    await page.getByRole('img', { name: '当前入 1.0 MB/秒，出 1 kB/秒；最近两分钟最高 1.0 MB/秒' }).waitFor();
    await page.getByText('无缝', { exact: true }).waitFor();
    const strokes =
      "Array.from(document.querySelectorAll('.spark .lines .flow'), (path) => getComputedStyle(path).stroke)";
    const colours = await page.evaluate<string[]>(strokes);
    expect(new Set(colours).size).to.equal(2);
  });
});
