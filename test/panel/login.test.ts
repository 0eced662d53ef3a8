import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { type AskingServer, byPasswordAndCode, startAsking } from '../support/asking.js';
import { type Lobby, openLobby } from '../support/lobby.js';
import { need } from '../support/need.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { startSshd } from '../support/sshd.js';
import { eventually, signIn, startViewer, type Viewer } from './browser.js';

describe('a login in the panel, by a real ssh', function () {
  this.timeout(90_000);
  let viewer: Viewer;
  let reaper: Reaper;

  before(async function () {
    need(this, 'chromium', 'ssh', 'pty');
    viewer = await startViewer();
  });

  beforeEach(() => {
    reaper = createReaper();
  });

  afterEach(async () => {
    await viewer.check();
    await reaper.end();
  });

  after(() => viewer?.close());

  const state = (page: Page, look: string) => page.locator(`.tunnel .state.${look}`).waitFor();
  const gone = (page: Page) => page.locator('dialog').waitFor({ state: 'hidden' });

  async function sitDown({ port, token }: Lobby): Promise<Page> {
    const page = await viewer.open(`http://127.0.0.1:${port}/`);
    await signIn(page, { token });
    await state(page, 'person');
    await page.getByRole('link', { name: '1 tunnel needs you' }).waitFor();
    await page.getByRole('button', { name: 'Authenticate asks' }).click();
    return page;
  }

  /** ssh forgets what is typed before it asks. */
  async function answer(page: Page, question: string, keys: string): Promise<void> {
    const isAsked = async () => {
      const lines = (await page.locator('.xterm-rows').innerText()).replaceAll('\u00a0', ' ').trimEnd().split('\n');
      return lines.at(-1)?.trimEnd().endsWith(question) ?? false;
    };
    await eventually(isAsked, 15_000);
    await page.keyboard.type(keys);
    await page.keyboard.press('Enter');
  }

  async function isUp(page: Page, lobby: Lobby): Promise<void> {
    await page.getByText('Logged in: the tunnel is up').waitFor();
    await gone(page);
    await state(page, 'up');
    expect(await page.locator('.xterm').count(), 'the terminal').to.equal(0);
    expect(await page.locator('.needed').count()).to.equal(0);
    expect(await lobby.status()).to.include({ state: 'up', interactive: true });
  }

  describe('with a password and a code', () => {
    let server: AskingServer;
    let lobby: Lobby;

    beforeEach(async () => {
      server = await startAsking({ factors: [byPasswordAndCode('hunter2', '123456')], known: false });
      lobby = await openLobby(reaper, server);
    });

    afterEach(async () => {
      await lobby[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    });

    it('goes through, host key and all; the tunnel stays without the page, and is called for when it is lost', async () => {
      const page = await sitDown(lobby);
      await eventually(async () =>
        (await page.locator('.xterm-rows').innerText()).replace(/\s/g, '').includes(server.fingerprint()),
      );
      await answer(page, '(yes/no/[fingerprint])?', 'yes');
      await answer(page, 'Password:', 'hunter2');
      await answer(page, 'One-time code:', '123456');
      await isUp(page, lobby);
      expect(server.logins()).to.equal(1);
      await page.context().close();
      const next = await viewer.open(`http://127.0.0.1:${lobby.port}/`);
      await signIn(next, lobby);
      await state(next, 'up');
      server.drop();
      await next.locator('#said', { hasText: 'asks needs you to log in' }).waitFor({ state: 'attached' });
      await state(next, 'person');
      await next.locator('.needed').waitFor();
      expect(server.logins()).to.equal(1);
    });

    it('says that an answer was wrong, and goes through the second time', async () => {
      const page = await sitDown(lobby);
      await answer(page, '(yes/no/[fingerprint])?', 'yes');
      for (let at = 0; at < 3; at++) {
        const asked = server.attempts();
        await answer(page, 'Password:', 'hunter2');
        await answer(page, 'One-time code:', '000000');
        await eventually(() => server.attempts() > asked);
      }
      await page.getByRole('dialog').getByText('The server refuses the login').waitFor();
      expect(await lobby.status()).to.include({ state: 'stopped', reason: 'auth_failed' });
      await page.getByRole('button', { name: 'Try again' }).click();
      await answer(page, 'Password:', 'hunter2');
      await answer(page, 'One-time code:', '123456');
      await isUp(page, lobby);
    });

    it('is one person’s: who comes second is told; and a page that goes takes the attempt with it', async () => {
      const first = await sitDown(lobby);
      await answer(first, '(yes/no/[fingerprint])?', 'yes');
      await answer(first, 'Password:', 'hunter2');
      const second = await viewer.open(`http://127.0.0.1:${lobby.port}/`);
      await signIn(second, lobby);
      await state(second, 'starting');
      const { id } = await lobby.status();
      // Somebody is at it, so that there is a stop and no button for a second: as one who was quicker than the news.
      await second.evaluate(`import('/panel/terminal-link.js').then(({ openTerminal }) => new Promise((resolve) => {
        openTerminal('${id}', { columns: 80, rows: 24 }, { onOpen() {}, onShow() {}, onEnd: resolve });
      })).then(({ kind }) => { if (kind !== 'refused') throw new Error(kind); })`);
      await first.reload();
      expect(await lobby.emptied(1000), 'emptied').to.be.a('number');
      await state(second, 'person');
      expect(server.logins()).to.equal(0);
    });
  });

  it('goes through with the passphrase of a key, at a real sshd', async function () {
    need(this, 'sshd');
    await using sshd = await startSshd({ passphrase: 'correct horse' });
    await using lobby = await openLobby(reaper, sshd);
    const page = await sitDown(lobby);
    await answer(page, "id_ed25519':", 'correct horse');
    await isUp(page, lobby);
  });

  it('goes through with a passphrase, a password and a code, as PAM asks at a real sshd', async function () {
    need(this, 'sshd', 'pam');
    await using sshd = await startSshd({
      passphrase: 'correct horse',
      login: { password: 'battery staple', code: '123456', echo: true },
    });
    await using lobby = await openLobby(reaper, sshd);
    const page = await sitDown(lobby);
    await answer(page, "id_ed25519':", 'correct horse');
    await answer(page, 'Password:', 'battery staple');
    await answer(page, 'One-time code:', '123456');
    await isUp(page, lobby);
  });
});
