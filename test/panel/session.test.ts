import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, signIn, type Viewer } from './browser.js';
import { idOf, makeCast, tunnel, useScene } from './scene.js';
import { problem, type Stage } from './stage.js';

describe('who looks at the panel, and whether anybody answers', () => {
  let viewer: Viewer;
  let stage: Stage;

  useScene((...opened) => {
    [viewer, stage] = opened;
  });

  async function openLive(): Promise<Page> {
    stage.isLocked = false;
    const page = await viewer.open(stage.url);
    await page.getByText('live', { exact: true }).waitFor();
    return page;
  }

  const lost = (page: Page) => page.getByRole('alert').getByText('The daemon does not answer.');

  describe('signing in', () => {
    it('takes the token, keeps it nowhere, and lasts over a reload', async () => {
      const page = await viewer.open(stage.url);
      await page.getByText('api.token_file').waitFor();
      expect(await page.getByText('database').count(), 'before signing in').to.equal(0);
      await signIn(page, stage);
      await page.getByText('database').waitFor();
      const kept = await page.evaluate<string>(
        'JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie + location.href + document.documentElement.outerHTML',
      );
      expect(kept).not.to.include(stage.token);
      expect(stage.asked.filter((what) => what.includes(stage.token))).to.deep.equal([]);
      await page.reload();
      await page.getByText('database').waitFor();
    });

    it('says that a token is wrong, and that there were too many', async () => {
      const page = await viewer.open(stage.url);
      await page.getByLabel('Token').fill('no such token');
      await page.keyboard.press('Enter');
      await page.getByRole('alert').getByText('This is not the token.').waitFor();
      expect(await page.getByLabel('Token').getAttribute('aria-invalid')).to.equal('true');
      stage.answers.set('POST /v1/session', () => problem(429, 'ERR_TOO_MANY_REQUESTS', 'Try again in 30 s'));
      await page.keyboard.press('Enter');
      await page.getByRole('alert').getByText('Too many attempts: wait a little').waitFor();
      await page.getByText('Try again in 30 s').waitFor();
      stage.answers.clear();
      await signIn(page, stage);
    });

    it('ends when somebody signs out, and leaves nothing on the page', async () => {
      const page = await viewer.open(stage.url);
      await signIn(page, stage);
      await page.getByText('database').waitFor();
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.getByLabel('Token').waitFor();
      expect(stage.asked).to.include('DELETE /v1/session');
      expect(await page.getByText('database').count()).to.equal(0);
      expect(await page.evaluate('document.activeElement.id')).to.equal('token');
      await eventually(() => stage.streams() === 0);
      await page.reload();
      await page.getByLabel('Token').waitFor();
    });

    it('is asked for again when the session has ended, with the reason', async () => {
      const page = await openLive();
      stage.isLocked = true;
      stage.cutStreams();
      await page.getByText('The session has ended. Sign in again.').waitFor();
      expect(await page.getByText('database').count()).to.equal(0);
      expect(await lost(page).count()).to.equal(0);
      await signIn(page, stage);
      await page.getByText('database').waitFor();
    });

    it('lets a token that reads look and not act, and says so', async () => {
      const page = await viewer.open(stage.url);
      await signIn(page, { token: stage.readToken });
      await page.getByText('read only').waitFor();
      const button = page.getByRole('button', { name: 'Restart database' });
      expect(await button.getAttribute('aria-disabled')).to.equal('true');
      expect(await button.getAttribute('title')).to.equal('This token may look and not act');
      await button.click({ force: true });
      await page.keyboard.press('r');
      await page.goto(`${stage.url}#/port/9443`);
      await page.getByText('This token may look and not act').waitFor();
      await page.getByRole('button', { name: 'Plan to free it' }).click({ force: true });
      expect(stage.asked.filter((what) => /^POST (?!\/v1\/session)/.test(what))).to.deep.equal([]);
    });
  });

  describe('a daemon that is lost', () => {
    it('is said to be lost: what was up is not called stopped, and is not called up either', async () => {
      const page = await openLive();
      await page.getByText('database').waitFor();
      const before = await page.locator('.state').allTextContents();
      await stage.vanish();
      await lost(page).waitFor();
      await page.getByText('no answer').waitFor();
      expect(await page.locator('.state').allTextContents()).to.deep.equal(before);
      expect(await page.locator('main').getAttribute('class')).to.equal('stale');
      expect(await page.getByRole('button', { name: 'Restart database' }).getAttribute('aria-disabled')).to.equal(
        'true',
      );
      await page.locator('#said', { hasText: 'The daemon does not answer' }).waitFor({ state: 'attached' });
    });

    it('is found again by itself, with whatever has become of the tunnels', async () => {
      const page = await openLive();
      await stage.vanish();
      await lost(page).waitFor();
      stage.tunnels.set(idOf(1), { ...stage.tunnels.get(idOf(1)), state: 'stopped', desired: 'down', usage: null });
      await stage.comeBack();
      await page.getByText('live', { exact: true }).waitFor();
      await lost(page).waitFor({ state: 'detached' });
      await page
        .locator(`[data-id="${idOf(1)}"]`)
        .getByText('stopped')
        .waitFor();
    });

    it('is said to be shutting down while it does, and not of the one that comes after it', async () => {
      const page = await openLive();
      stage.emit('daemon.stopping');
      await page.getByText('The daemon is shutting down.').waitFor();
      await stage.vanish();
      await lost(page).waitFor();
      await stage.comeBack();
      await page.getByText('live', { exact: true }).waitFor();
      await page.getByText('The daemon is shutting down.').waitFor({ state: 'detached' });
    });

    it('is said to be lost also by a page that it never answered', async () => {
      const page = await openLive();
      // The page itself is there, as from a cache or a proxy: only the API is not.
      stage.answers.set('GET /v1/session', () => problem(503, 'ERR_DAEMON_BUSY', 'The tunnels are still being swept'));
      await page.reload();
      await page.getByRole('alert').getByText('The daemon is busy').waitFor();
      await page.getByText('Nothing is known of the tunnels yet.').waitFor();
      expect(await page.getByText('stopped').count()).to.equal(0);
      stage.answers.clear();
      await page.getByText('live', { exact: true }).waitFor();
    });

    it('is not lost for one error: an answer that fails shows no tunnel as stopped', async () => {
      const page = await openLive();
      await page.getByText('database').waitFor();
      stage.answers.set('GET /v1/tunnels', () => problem(500, 'ERR_PROC_FORMAT', '/proc/stat has no btime'));
      await eventually(() => stage.asked.filter((what) => what === 'GET /v1/tunnels').length > 2);
      expect(
        await page
          .locator(`[data-id="${idOf(1)}"] .state`)
          .first()
          .textContent(),
      ).to.include('up');
      expect(await page.getByText('stopped', { exact: true }).count()).to.equal(1);
    });

    it('answers with something else: a page of a proxy is no list of tunnels', async () => {
      const page = await openLive();
      const html = { status: 502, body: 'Bad gateway' };
      stage.answers.set('GET /v1/session', () => html);
      stage.answers.set('GET /v1/tunnels', () => html);
      stage.cutStreams();
      await lost(page).waitFor();
    });
  });

  describe('what the events have not told', () => {
    it('is asked for as a whole after a gap', async () => {
      const page = await openLive();
      stage.set(idOf(1), { state: 'fatal', reason: 'bad_spec' }, { silent: true });
      // At once: what is asked for every few seconds would tell it as well, later.
      const asked = page.waitForRequest('**/v1/tunnels', { timeout: 3000 });
      stage.emit('gap', { reason: 'too_old' });
      await asked;
      await page.getByText('ssh does not understand what it was told').waitFor();
    });

    it('is asked for as a whole when they have broken off', async () => {
      const page = await openLive();
      stage.set(idOf(1), { state: 'fatal', reason: 'bad_spec' }, { silent: true });
      stage.cutStreams();
      await page.getByText('ssh does not understand what it was told').waitFor();
      await eventually(() => stage.streams() === 1);
    });

    it('is asked for every few seconds: what the chains use', async () => {
      const page = await openLive();
      stage.set(idOf(1), { usage: { cpu: 87.5, memory: 123e6 } }, { silent: true });
      await page.getByText('87.5 %').waitFor();
      await page.getByText('123.0 MB').waitFor();
    });

    it('does not undo what they have told: a list that was made before an event is older than it', async () => {
      const page = await openLive();
      const old = { body: { tunnels: [...stage.tunnels.values()] } };
      let go = (): void => undefined;
      const gone = new Promise<void>((resolve) => {
        go = resolve;
      });
      stage.answers.set('GET /v1/tunnels', async () => {
        await gone;
        return old;
      });
      stage.emit('gap', { reason: 'too_old' });
      await eventually(() => stage.asked.filter((what) => what === 'GET /v1/tunnels').length > 1);
      stage.set(idOf(1), { state: 'backoff', reason: 'unreachable', since: new Date().toISOString() });
      await page.getByText('The server cannot be reached').waitFor();
      const answered = page.waitForResponse('**/v1/tunnels');
      go();
      await (await answered).finished();
      stage.answers.clear();
      stage.set(idOf(2), { name: 'renamed' });
      await page.getByText('renamed').waitFor();
      expect(await page.getByText('The server cannot be reached').count()).to.equal(1);
    });

    it('asks nothing while nobody looks, and everything when somebody does', async () => {
      const page = await openLive();
      const see = (state: string) =>
        page.evaluate(
          `Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true }); document.dispatchEvent(new Event('visibilitychange'))`,
        );
      await see('hidden');
      await eventually(() => stage.streams() === 0);
      stage.tunnels.set(idOf(1), tunnel(1, 'renamed'));
      expect(makeCast().length).to.equal(stage.tunnels.size);
      await see('visible');
      await page.getByText('renamed').waitFor();
      await eventually(() => stage.streams() === 1);
    });
  });
});
