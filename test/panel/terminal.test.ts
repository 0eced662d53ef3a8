import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, signIn, type Viewer } from './browser.js';
import { asking, idOf, nginx, tunnel, useScene } from './scene.js';
import type { Sitting } from './sitting.js';
import { type Json, problem, type Stage } from './stage.js';

const vault = idOf(20);
const path = `/v1/tunnels/${vault}/terminal`;

describe('the panel, where a tunnel needs a person', () => {
  let viewer: Viewer;
  let stage: Stage;

  useScene((...opened) => {
    [viewer, stage] = opened;
    stage.isLocked = false;
    stage.tunnels.set(vault, asking(20, 'vault', { remote_host: 'me@vault.example', jump: ['gate.example'] }));
  });

  async function openList(options = {}): Promise<Page> {
    const page = await viewer.open(stage.url, options);
    await page.locator('.link.live').waitFor();
    return page;
  }

  /** The dialog, with somebody of the stage at the other end. */
  async function sit(options = {}): Promise<{ page: Page; sitting: Sitting }> {
    const page = await openList(options);
    await page.locator(`[data-id="${vault}"] .authenticate`).click();
    return { page, sitting: await nextSitting(1) };
  }

  async function nextSitting(count: number): Promise<Sitting> {
    await eventually(() => stage.sittings.length === count);
    const sitting = stage.sittings.at(-1);
    if (!sitting) throw new Error('Nobody sits there');
    return sitting;
  }

  const dialogOf = (page: Page) => page.getByRole('dialog', { name: 'Authenticate vault' });
  const shows = (page: Page, text: string) =>
    eventually(async () => (await page.locator('.xterm-rows').innerText()).replaceAll('\u00a0', ' ').includes(text));
  const gone = (page: Page) => page.locator('dialog').waitFor({ state: 'hidden' });
  const isUp = (): Json => ({ ...tunnel(20, 'vault', { interactive: true }), since: new Date().toISOString() });

  describe('says so', () => {
    const row = (page: Page) => page.locator(`[data-id="${vault}"]`);

    it('in the list, at the head of every page, and in the title', async () => {
      const page = await openList();
      await row(page).getByText('needs you').waitFor();
      await row(page).getByText('Somebody has to log in').waitFor();
      // With the four that are in trouble.
      await eventually(async () => (await page.title()) === '(5) tunward');
      expect(await row(page).getByRole('button').allTextContents()).to.deep.equal(['Authenticate']);
      await page.keyboard.press('p');
      await page.getByRole('link', { name: '1 tunnel needs you' }).click();
      await page.getByText('1 of 13 tunnels').waitFor();
      await row(page).waitFor();
      expect(await page.getByRole('button', { name: 'stopped' }).textContent(), 'printer alone').to.equal('stopped 1');
    });

    it('on its own page, with a button that leads to a terminal', async () => {
      const page = await openList();
      await page.goto(`${stage.url}#/tunnel/${vault}`);
      await page.locator('.head').getByText('needs you').waitFor();
      expect(await page.locator('.trouble').innerText()).to.equal('Somebody has to log in');
      expect(await page.locator('.head').getByRole('button').allTextContents()).to.deep.equal(['Authenticate']);
      await page.getByRole('button', { name: 'Authenticate vault' }).click();
      await dialogOf(page).waitFor();
    });

    it('by ear, and counts it, when one is lost; and no more when it is up, or somebody has stopped it', async () => {
      stage.tunnels.set(vault, isUp());
      const page = await openList();
      await row(page).getByText('up', { exact: true }).waitFor();
      expect(await page.locator('.needed').count()).to.equal(0);
      expect(
        await row(page)
          .getByRole('button')
          .evaluateAll((all) => all.map((one) => one.ariaLabel)),
        'nobody is there for a restart',
      ).to.deep.equal(['Stop vault']);
      stage.set(vault, asking(20, 'vault'));
      stage.emit('tunnel.needs_auth', { tunnel: vault, why: 'lost', status: stage.tunnels.get(vault) });
      await page.locator('#said', { hasText: 'vault needs you to log in' }).waitFor({ state: 'attached' });
      await page.locator('.needed').waitFor();
      stage.set(vault, { reason: null });
      await page.locator('.needed').waitFor({ state: 'detached' });
      await row(page).getByText('stopped', { exact: true }).waitFor();
      await row(page).getByRole('button', { name: 'Authenticate vault' }).waitFor();
    });

    it('to those who may only look as well, and lets them do no more', async () => {
      stage.isLocked = true;
      const page = await viewer.open(stage.url);
      await signIn(page, { token: stage.readToken });
      await row(page).getByText('needs you').waitFor();
      await row(page).locator('.authenticate').click({ force: true });
      await page.keyboard.press('s');
      expect(await page.locator('dialog[open]').count()).to.equal(0);
      expect(stage.asked.filter((what) => what.startsWith('UPGRADE'))).to.deep.equal([]);
    });
  });

  describe('has a terminal', () => {
    it('on which a question is drawn and an answer typed, which arrives as bytes', async () => {
      const { page, sitting } = await sit();
      expect(sitting.protocol).to.equal('tunward.terminal.v1');
      await dialogOf(page).getByText('me@vault.example').waitFor();
      await dialogOf(page).getByText('via gate.example').waitFor();
      sitting.open();
      sitting.show("me@vault.example's password: ");
      await shows(page, "me@vault.example's password: ");
      await page.keyboard.type('hunter2ü');
      await page.keyboard.press('Backspace');
      await page.keyboard.press('Enter');
      await eventually(() => sitting.typed() === 'hunter2ü\u007f\r');
      expect(await page.locator('.hint').count(), 'ssh is on a terminal').to.equal(0);
    });

    it('whose size the daemon is told, and told again when the window becomes another', async () => {
      const { page, sitting } = await sit();
      const [columns, rows] = ['columns', 'rows'].map((name) => Number(sitting.url.searchParams.get(name)));
      expect(columns).to.be.within(75, 95);
      expect(rows).to.be.within(15, 25);
      await page.setViewportSize({ width: 500, height: 420 });
      await eventually(() => sitting.told.length > 0);
      const last = sitting.told.at(-1);
      expect(last).to.include({ type: 'resize' });
      expect(last.columns).to.be.within(20, (columns ?? 0) - 20);
      expect(last.rows).to.be.within(5, (rows ?? 0) - 2);
      const box = await page.locator('#terminal').boundingBox();
      const drawn = await page.locator('.xterm-screen').boundingBox();
      expect(drawn?.width).to.be.at.most(box?.width ?? 0);
    });

    it('whose size the daemon is told as well where that changed while the connection was being made', async () => {
      let letIn: () => void = () => undefined;
      const isLetIn = new Promise<void>((resolve) => {
        letIn = resolve;
      });
      stage.delay = () => isLetIn;
      const page = await openList();
      await page.locator(`[data-id="${vault}"] .authenticate`).click();
      await eventually(() => stage.asked.some((what) => what.startsWith('UPGRADE')));
      const before = await page.locator('#terminal').boundingBox();
      await page.setViewportSize({ width: 500, height: 420 });
      await eventually(async () => {
        const drawn = await page.locator('.xterm-screen').boundingBox();
        return (drawn?.width ?? 0) < (before?.width ?? 0) - 100;
      });
      letIn();
      const sitting = await nextSitting(1);
      await eventually(() => sitting.told.length > 0);
      expect(sitting.told.at(-1).columns).to.be.below(Number(sitting.url.searchParams.get('columns')));
    });

    it('that says what stands there to those who do not see it', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('Verification code: ');
      const said = page.locator('#terminal-said');
      await eventually(async () => (await said.textContent()) === 'Verification code:');
      sitting.show('\r\nThat was wrong.\r\nVerification code: ');
      await eventually(async () => (await said.textContent()) === 'That was wrong. Verification code:');
      expect(await page.evaluate('document.activeElement.getAttribute("aria-label")')).to.match(/^What ssh asks/);
    });

    it('that takes Escape for ssh, and leaves by Tab and a button, which ends the attempt', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('password: ');
      await shows(page, 'password: ');
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
      await eventually(() => sitting.typed() === '\u001b\u001b');
      await page.keyboard.press('Tab');
      expect(await page.evaluate('document.activeElement.textContent')).to.equal('Cancel');
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
      await dialogOf(page).waitFor();
      expect(sitting.isOver()).to.equal(false);
      await page.keyboard.press('Enter');
      await gone(page);
      await eventually(() => sitting.isOver());
      expect(await page.evaluate('document.activeElement.textContent'), 'where it began').to.equal('Authenticate');
    });

    it('whose attempt ends with the page', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      await page.reload();
      await eventually(() => sitting.isOver());
    });

    it('that is reached by keys from the list, where r does nothing', async () => {
      const page = await openList();
      for (let at = 0; at < 13; at++) await page.keyboard.press('j');
      await page.keyboard.press('r');
      await page.keyboard.press('s');
      await dialogOf(page).waitFor();
      await eventually(() => stage.sittings.length === 1);
      expect(stage.asked.filter((what) => what.startsWith('POST'))).to.deep.equal([]);
    });

    it('into which Ctrl-V pastes, with nothing around it and more than one message takes', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('\u001b[?2004hpassword: ');
      await shows(page, 'password: ');
      const long = 'x'.repeat(70_000);
      await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
      await page.evaluate(`navigator.clipboard.writeText('${long}')`);
      await page.keyboard.press('Control+v');
      await eventually(() => sitting.typed() === long);
    });
  });

  describe('comes to an end', () => {
    it('up: says so, goes by itself, and leaves the keyboard in the list', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.end({ outcome: 'up', tunnel: isUp() });
      await dialogOf(page).getByText('Logged in: the tunnel is up').waitFor();
      await page.locator(`[data-id="${vault}"] .state.up`).waitFor();
      await gone(page);
      await page.locator('#said', { hasText: 'Logged in: vault is up' }).waitFor({ state: 'attached' });
      await eventually(async () => (await page.evaluate('document.activeElement.textContent')) === 'vault');
    });

    it('failed: why, what ssh said, what to do, and once more', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('Permission denied.\r\n');
      sitting.end({ outcome: 'failed', problem: failure('auth_failed') });
      const alert = dialogOf(page).getByRole('alert');
      await alert.getByText('The server refuses the login').waitFor();
      await alert.getByText('tunnel vault did not come up: Permission denied').waitFor();
      await alert.getByText('What to do: See that the answers are right, and try again.').waitFor();
      await shows(page, 'Permission denied.');
      await eventually(async () => (await page.evaluate('document.activeElement.textContent')) === 'Try again');
      await page.keyboard.press('Enter');
      const second = await nextSitting(2);
      second.open();
      second.show('password: ');
      await shows(page, 'password: ');
      expect(await page.locator('.xterm').count(), 'the first terminal').to.equal(1);
      await page.keyboard.type('once more');
      await eventually(() => second.typed() === 'once more');
      expect(sitting.typed()).to.equal('');
      second.end({ outcome: 'failed', problem: failure('unreachable') });
      await alert.getByText('The server cannot be reached').waitFor();
      await page.keyboard.press('Escape');
      await gone(page);
    });

    it('before ssh was started, since a stranger has the port: who that is', async () => {
      const { page, sitting } = await sit();
      const { body } = problem(409, 'ERR_PORT_HELD', 'port 5020 is held', { port: 5020, holders: [nginx] });
      sitting.end({ outcome: 'failed', problem: body });
      await dialogOf(page).getByText('Its port is held by somebody else').waitFor();
      await dialogOf(page).getByText('nginx 4711').waitFor();
    });

    it('given up, since nobody typed', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      const { body } = problem(504, 'ERR_TIMEOUT', 'nothing was typed for 120 s');
      sitting.end({ outcome: 'failed', problem: body });
      await dialogOf(page).getByText('It took too long, and was given up').waitFor();
      await dialogOf(page).getByText('nothing was typed for 120 s').waitFor();
    });

    it('before it began, since somebody else is at it', async () => {
      const detail = 'tunnel vault is being authenticated by somebody else';
      stage.answers.set(`GET ${path}`, () => problem(409, 'ERR_TUNNEL_CONFLICT', detail));
      const page = await openList();
      await page.locator(`[data-id="${vault}"] .authenticate`).click();
      await dialogOf(page).getByText('somebody else is at it').waitFor();
      await dialogOf(page).getByText(detail).waitFor();
      stage.answers.clear();
      await dialogOf(page).getByRole('button', { name: 'Try again' }).click();
      await nextSitting(1);
    });

    it('before it began, since something between passes no WebSocket on', async () => {
      stage.answers.set(`GET ${path}`, () => problem(426, 'ERR_UPGRADE_REQUIRED', 'This is for WebSocket'));
      const page = await openList();
      await page.locator(`[data-id="${vault}"] .authenticate`).click();
      await dialogOf(page).getByText('Does a proxy stand before the daemon').waitFor();
    });

    it('lost, which the page says, and does not take up again by itself', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('password: ');
      await shows(page, 'password: ');
      sitting.cut();
      await dialogOf(page).getByText('The connection to the daemon has broken off').waitFor();
      await page.keyboard.type('hunter2');
      await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
      await gone(page);
      expect(stage.sittings).to.have.lengthOf(1);
    });

    it('at once, where the terminal itself is not to be had, and not for ever', async () => {
      const page = await openList();
      await page.route('**/xterm.css', (route) => route.abort());
      await page.locator(`[data-id="${vault}"] .authenticate`).click();
      await dialogOf(page).getByText('The connection to the daemon has broken off').waitFor();
      await page.unroute('**/xterm.css');
      await dialogOf(page).getByRole('button', { name: 'Try again' }).click();
      await nextSitting(1);
    });
  });

  it('keeps nothing of what was typed: not in the page, the model, the history, or what the browser stores', async () => {
    const { page, sitting } = await sit();
    const before = await page.evaluate('history.length');
    sitting.open();
    await page.keyboard.type('hunter2');
    await page.keyboard.press('Enter');
    await eventually(() => sitting.typed() === 'hunter2\r');
    const field = page.locator('#terminal textarea');
    expect(await field.getAttribute('autocomplete')).to.equal('off');
    expect(await field.inputValue()).to.equal('');
    expect(await page.locator('html').evaluate((html) => html.outerHTML)).not.to.include('hunter2');
    sitting.end({ outcome: 'failed', problem: failure('auth_failed') });
    await page.getByRole('button', { name: 'Close' }).click();
    await gone(page);
    expect(await page.locator('#terminal, .xterm, textarea').count()).to.equal(0);
    expect(
      await page.evaluate('JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state])'),
    ).not.to.include('hunter2');
    expect(await page.evaluate('history.length')).to.equal(before);
    expect(await page.evaluate('document.adoptedStyleSheets.length'), 'sheets of the terminal').to.equal(0);
    expect(stage.asked.join()).not.to.include('hunter2');
  });

  it('says in Chinese what it says in English', async () => {
    const { page, sitting } = await sit({ locale: 'zh-CN' });
    await page.locator(`[data-id="${vault}"]`).getByText('需要登录', { exact: true }).waitFor();
    await page.locator('.needed').getByText('1 条隧道需要登录').waitFor();
    const dialog = page.getByRole('dialog', { name: '登录 vault' });
    sitting.open('askpass');
    await dialog.getByText('node-pty 未安装').waitFor();
    sitting.end({ outcome: 'failed', problem: failure('auth_failed') });
    await dialog.getByText('服务器拒绝登录').waitFor();
    await dialog.getByRole('button', { name: '重试' }).click();
    const second = await nextSitting(2);
    second.open();
    second.end({ outcome: 'up', tunnel: isUp() });
    await dialog.getByText('登录成功').waitFor();
    await gone(page);
  });

  it('fits a phone, where the terminal is the page, and takes what is typed on glass', async () => {
    const { page, sitting } = await sit({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
    sitting.open();
    sitting.show('Verification code: ');
    await shows(page, 'Verification code: ');
    expect(Number(sitting.url.searchParams.get('columns'))).to.be.within(35, 50);
    expect(await page.evaluate('document.documentElement.scrollWidth'), 'nothing stands out').to.equal(390);
    expect(await page.locator('dialog').boundingBox()).to.include({ x: 0, y: 0, width: 390 });
    await page.locator('#terminal').tap();
    await page.keyboard.insertText('123456');
    await page.keyboard.press('Enter');
    await eventually(() => sitting.typed() === '123456\r');
    expect(await page.locator('#terminal textarea').inputValue()).to.equal('');
    // xterm.js empties it by itself, also of half an answer: that it does is what is relied on.
    await page.keyboard.insertText('654');
    await page.evaluate("window.kept = document.querySelector('#terminal textarea')");
    await page.getByRole('button', { name: 'Cancel' }).tap();
    await gone(page);
    expect(await page.evaluate('window.kept.value')).to.equal('');
  });

  it('says where node-pty is missing, and that it works all the same', async () => {
    const { page, sitting } = await sit();
    sitting.open('askpass');
    await dialogOf(page).getByText('node-pty is missing').waitFor();
  });

  describe('at the mercy of a server', () => {
    it('draws its colours, and breaks no rule of the page by that', async () => {
      const { page, sitting } = await sit({ colorScheme: 'dark' });
      sitting.open();
      sitting.show(
        '\u001b[38;2;255;128;64mtrue\u001b[0m \u001b[31mred\u001b[0m \u001b[48;5;200;38;2;1;2;3mboth\u001b[0m',
      );
      await shows(page, 'true red both');
      const color = await page.evaluate(
        "getComputedStyle([...document.querySelectorAll('.xterm-rows span')].find((one) => one.textContent === 'true')).color",
      );
      expect(color).to.equal('rgb(255, 128, 64)');
      // What is chosen with the mouse xterm.js colours in the same way.
      const box = await page.locator('.xterm-rows').boundingBox();
      await page.mouse.move((box?.x ?? 0) + 4, (box?.y ?? 0) + 8);
      await page.mouse.down();
      await page.mouse.move((box?.x ?? 0) + 60, (box?.y ?? 0) + 8);
      await page.mouse.up();
      await page.locator('.xterm-rows span[style*=background]').first().waitFor();
      await page.getByRole('button', { name: 'Cancel' }).click();
      await gone(page);
      expect(
        await page.evaluate("Object.hasOwn(document, 'createElement')"),
        'the document is the page’s again',
      ).to.equal(false);
    });

    it('is told nothing that nobody has typed', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      const [esc, bel, st] = ['\u001b', '\u0007', '\u001b\\'];
      const questions = [
        '[c',
        '[>c',
        '[=c',
        '[5n',
        '[6n',
        '[?6n',
        '[?15n',
        '[>q',
        '[>0q',
        '[18t',
        '[14t',
        '[16t',
        '[21t',
      ];
      const modes = ['[?1$p', '[4$p', '[?1004h', '[?1000h', '[?1003h', '[?1006h', '[?9h', '[?2004h', '[?1049h'];
      const strings = [
        `P$qm${st}`,
        `P$q"p${st}`,
        `P+q544e${st}`,
        `]4;1;?${bel}`,
        `]10;?${bel}`,
        `]11;?${st}`,
        `]12;?${bel}`,
      ];
      // Once more after a full reset, which must not bring back what was taken away.
      for (const all of [...questions, ...modes, ...strings, 'c', ...questions, ...modes, ...strings])
        sitting.show(`${esc}${all}`);
      sitting.show('\u0005\u009b6n\u009dAnd\u009c');
      sitting.show('\r\nthe end');
      await shows(page, 'the end');
      await page.locator('.xterm-screen').click({ position: { x: 40, y: 40 } });
      await page.mouse.wheel(0, 100);
      await page.getByRole('button', { name: 'Cancel' }).focus();
      await page.locator('#terminal textarea').focus();
      await page.keyboard.type('yes');
      await eventually(() => sitting.typed().includes('yes'));
      expect(sitting.typed()).to.equal('yes');
    });

    it('lets it draw over nothing that stands there', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      sitting.show('SHA256:the-true-one\r\n');
      const orders = [
        '[2J',
        '[3J',
        '[H',
        '[1;1H',
        '[1A',
        '[1F',
        '[1M',
        '[1L',
        '[2X',
        '[1P',
        '[1@',
        '[S',
        '[1d',
        '[r',
        '[!p',
        'c',
        'M',
        '7',
        '8',
        '#8',
        '(0',
      ];
      for (const order of orders) sitting.show(`\u001b${order}`);
      sitting.show('SHA256:a-false-one\r\nerased: xxx\u001b[2K\rpassword: ');
      await shows(page, 'password: ');
      const lines = (await page.locator('.xterm-rows').innerText()).replaceAll('\u00a0', ' ').trim().split('\n');
      expect(lines.map((line) => line.trim())).to.deep.equal([
        'SHA256:the-true-one',
        'SHA256:a-false-one',
        'password:',
      ]);
    });

    it('lets it name no window, plant no link, and reach no clipboard', async () => {
      const { page, sitting } = await sit();
      await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
      await page.evaluate("navigator.clipboard.writeText('mine')");
      sitting.open();
      sitting.show('\u001b]0;owned\u0007\u001b]2;owned\u0007\u001b]52;c;b3duZWQ=\u0007');
      sitting.show('\u001b]8;;https://evil.example/\u0007a link\u001b]8;;\u0007 <img src=x onerror=alert(1)>');
      await shows(page, 'a link <img src=x onerror=alert(1)>');
      await page.locator('.xterm-screen').click({ position: { x: 20, y: 8 } });
      expect(await page.title()).not.to.include('owned');
      expect(await page.evaluate('navigator.clipboard.readText()')).to.equal('mine');
      expect(page.context().pages()).to.have.lengthOf(1);
      expect(await page.locator('.xterm-rows [style*=underline], .xterm-rows a').count()).to.equal(0);
    });

    it('stays awake when it pours out more than anybody reads', async () => {
      const { page, sitting } = await sit();
      sitting.open();
      const line = `\u001b[38;2;9;200;9m${'flood '.repeat(20)}\u001b[0m\r\n`;
      const flood = Buffer.from(line.repeat(Math.ceil(60_000 / line.length)));
      for (let sent = 0; sent < 1_048_576; sent += flood.length) sitting.show(flood);
      await shows(page, 'flood');
      await page.keyboard.type('y');
      await eventually(() => sitting.typed() === 'y');
      sitting.show('\r\n\u001b[2Jpassword: ');
      await shows(page, 'password: ');
      await page.getByRole('button', { name: 'Cancel' }).click();
      await gone(page);
    });

    it('keeps no more of a flood than can be drawn soon', async () => {
      const page = await openList();
      const columns =
        await page.evaluate<number>(`import('/panel/terminal-screen.js').then(async ({ createScreen }) => {
        const host = document.createElement('div');
        host.style.height = '200px';
        document.body.append(host);
        const ignore = () => undefined;
        const screen = await createScreen(host, { label: 'flood', onType: ignore, onResize: ignore, onSay: ignore });
        // xterm.js itself throws when 50 MB wait.
        for (let at = 0; at < 64; at++) screen.show(new Uint8Array(1_048_576).fill(97));
        const { columns } = screen.size();
        screen.dispose();
        host.remove();
        return columns;
      })`);
      expect(columns).to.be.greaterThan(80);
    });
  });
});

function failure(reason: string): Json {
  const detail = 'tunnel vault did not come up: Permission denied (password)';
  const { body } = problem(502, 'ERR_START_FAILED', detail, {
    reason,
    remedy: reason === 'auth_failed' ? "try again: 'tunward auth vault', or the panel" : null,
  });
  return body;
}
