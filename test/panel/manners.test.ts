import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, signIn, type Viewer } from './browser.js';
import { asking, heldPort, idOf, makeCast, nginx, plannedKill, useScene } from './scene.js';
import { problem, type Stage } from './stage.js';

describe('the panel by keys, by ear, in the dark and in Chinese', () => {
  let viewer: Viewer;
  let stage: Stage;

  useScene((...opened) => {
    [viewer, stage] = opened;
    stage.isLocked = false;
  });

  async function open(options = {}): Promise<Page> {
    const page = await viewer.open(stage.url, options);
    await page.locator('.tunnel').first().waitFor();
    await page.locator('.link.live').waitFor();
    return page;
  }

  const focused = (page: Page) => page.evaluate<string>('document.activeElement.textContent.trim()');

  describe('keys', () => {
    it('move over the rows, open one, and come back to it', async () => {
      const page = await open();
      await page.keyboard.press('j');
      expect(await focused(page)).to.equal('database');
      await page.keyboard.press('j');
      await page.keyboard.press('ArrowDown');
      expect(await focused(page)).to.equal('reports');
      await page.keyboard.press('k');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: 'web' }).waitFor();
      await eventually(async () => (await focused(page)) === 'web');
      await page.keyboard.press('Escape');
      await page.locator('.tunnels').waitFor();
      await eventually(async () => (await focused(page)) === 'web');
      expect(await page.evaluate('document.activeElement.tagName'), 'the link of its row').to.equal('A');
    });

    it('stay at their row when that moves, and are not lost with what goes', async () => {
      stage.answers.set(`POST /v1/tunnels/${idOf(1)}/restart`, () =>
        problem(409, 'ERR_TUNNEL_CONFLICT', 'A stop came'),
      );
      const page = await open();
      await page.getByRole('button', { name: 'Memory' }).click();
      await page.locator('tbody.tunnel').last().filter({ hasText: 'queue' }).waitFor();
      await page.locator(`[data-id="${idOf(1)}"] .name a`).focus();
      stage.set(idOf(1), { usage: { cpu: 1, memory: 9e9 } });
      await page.locator('tbody.tunnel').last().filter({ hasText: 'database' }).waitFor();
      expect(await focused(page)).to.equal('database');
      await page.keyboard.press('r');
      await page.getByRole('button', { name: 'Dismiss' }).press('Enter');
      await eventually(async () => (await focused(page)) === 'database');
    });

    it('restart, start and stop the tunnel whose row one is at, and no other', async () => {
      const page = await open();
      await page.keyboard.press('r');
      await page.keyboard.press('j');
      await page.keyboard.press('r');
      await eventually(() => stage.asked.includes(`POST /v1/tunnels/${idOf(1)}/restart`));
      await page.keyboard.press('s');
      await eventually(() => stage.asked.includes(`POST /v1/tunnels/${idOf(1)}/stop`));
      await page
        .locator(`[data-id="${idOf(1)}"]`)
        .getByText('stopped')
        .waitFor();
      await page.keyboard.press('s');
      await eventually(() => stage.asked.includes(`POST /v1/tunnels/${idOf(1)}/start`));
      expect(stage.asked.filter((what) => what.startsWith('POST'))).to.have.lengthOf(3);
    });

    it('lead to the filter, from there into the list, and mean nothing while one types', async () => {
      const page = await open();
      await page.keyboard.press('/');
      await page.keyboard.type('rsjk/?p');
      expect(await page.getByRole('searchbox').inputValue()).to.equal('rsjk/?p');
      expect(stage.asked.filter((what) => what.startsWith('POST'))).to.deep.equal([]);
      await page.getByRole('searchbox').fill('git');
      await page.getByText('1 of 12 tunnels').waitFor();
      await page.keyboard.press('ArrowDown');
      expect(await focused(page)).to.equal('git');
      await page.keyboard.press('/');
      await page.keyboard.press('Escape');
      await page.getByText('12 tunnels').waitFor();
      expect(await page.evaluate('document.activeElement.id'), 'one is still there').to.equal('filter');
      await page.keyboard.press('Escape');
      expect(await page.evaluate('document.activeElement.id')).to.equal('');
    });

    it('leave it to whoever writes Chinese what the keys mean', async () => {
      const page = await open();
      await page.getByRole('searchbox').focus();
      await page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', isComposing: true, bubbles: true, cancelable: true }))",
      );
      expect(await page.evaluate('document.activeElement.id')).to.equal('filter');
    });

    it('are shown by a question mark, and taken away by Escape', async () => {
      const page = await open();
      await page.keyboard.press('?');
      const dialog = page.getByRole('dialog', { name: 'Keys' });
      await dialog.waitFor();
      await page.keyboard.press('r');
      await page.keyboard.press('p');
      expect(page.url()).not.to.include('port');
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'hidden' });
    });

    it('do the whole of it: sign in, look at a port, force a restart', async () => {
      stage.isLocked = true;
      const path = `POST /v1/tunnels/${idOf(12)}/restart`;
      stage.answers.set(path, () => problem(409, 'ERR_PORT_HELD', 'held', { port: 9443, holders: [nginx] }));
      const page = await viewer.open(stage.url);
      await eventually(async () => (await page.evaluate('document.activeElement.id')) === 'token');
      await page.keyboard.type(stage.token);
      await page.keyboard.press('Enter');
      await page.locator('.tunnel').first().waitFor();
      await page.keyboard.press('p');
      await eventually(async () => (await page.evaluate('document.activeElement.id')) === 'port');
      await page.keyboard.type('9443');
      await page.keyboard.press('Enter');
      await page.getByText('Port 9443 is held').waitFor();
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
      await page.locator('.tunnels').waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('admin');
      await page.getByText('1 of 12 tunnels').waitFor();
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('r');
      await page.getByRole('button', { name: 'Force…' }).waitFor();
      for (let at = 0; at < 4 && (await focused(page)) !== 'Force…'; at++) await page.keyboard.press('Tab');
      for (let at = 0; at < 4 && (await focused(page)) !== 'Force…'; at++) await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.getByRole('dialog').waitFor();
      expect(await focused(page)).to.equal('Cancel');
      await page.keyboard.press('Tab');
      expect(await focused(page)).to.equal('Kill and restart');
      await page.keyboard.press('Enter');
      await eventually(() => stage.asked.includes(`${path}?force=true`));
    });

    it('stop at one row of the list, not at each of 500', async () => {
      const page = await open();
      const stops = await page.evaluate('document.querySelectorAll(\'tbody [tabindex="0"]\').length');
      expect(stops).to.equal(3);
    });

    it('show where one is', async () => {
      const page = await open();
      await page.keyboard.press('j');
      const outline =
        "getComputedStyle(document.activeElement).outlineStyle + ' ' + getComputedStyle(document.activeElement).outlineWidth";
      expect(await page.evaluate(outline)).to.equal('solid 2px');
    });
  });

  describe('by ear', () => {
    it('has a name for whatever can be pressed, chosen or read', async () => {
      const page = await open();
      for (const at of ['#/', `#/tunnel/${idOf(2)}`, '#/port/9443']) {
        await page.goto(`${stage.url}${at}`);
        await page.getByRole('heading', { level: 1 }).waitFor({ state: 'attached' });
        const nameless = await page.evaluate<string[]>(`
          Array.from(document.querySelectorAll('button, a[href], input, select, summary, [role=img], [role=log], section, nav, table'))
            .filter((element) => {
              const by = element.getAttribute('aria-labelledby');
              const text = element.getAttribute('aria-label') ?? (by ? document.getElementById(by)?.textContent : undefined)
                ?? element.labels?.[0]?.textContent ?? element.caption?.textContent
                ?? (/^(BUTTON|A|SUMMARY)$/.test(element.tagName) ? element.textContent : '');
              return text.trim() === '';
            })
            .map((element) => element.outerHTML.slice(0, 120))`);
        expect(nameless, at).to.deep.equal([]);
      }
    });

    it('has one heading of the first rank, landmarks, and a table that says what is in it', async () => {
      const page = await open();
      expect(await page.getByRole('heading', { level: 1 }).count()).to.equal(1);
      for (const landmark of ['banner', 'navigation', 'main', 'contentinfo', 'search'] as const) {
        expect(await page.getByRole(landmark).count(), landmark).to.equal(1);
      }
      await page.getByRole('table', { name: 'Tunnels' }).waitFor();
      const heads = await page.getByRole('columnheader').allTextContents();
      expect(heads.map((head) => head.trim())).to.deep.equal([
        'State',
        'Name',
        'Listens → target',
        'Uptime',
        'Last restart',
        'CPU',
        'Memory',
        'Actions',
      ]);
      await page.getByRole('rowheader', { name: 'database' }).waitFor();
    });

    it('says that a request was refused', async () => {
      stage.answers.set(`POST /v1/tunnels/${idOf(1)}/restart`, () =>
        problem(409, 'ERR_TUNNEL_CONFLICT', 'A stop came in between'),
      );
      const page = await open();
      await page.getByRole('button', { name: 'Restart database' }).click();
      await page.locator('#said', { hasText: 'Not restarted' }).waitFor({ state: 'attached' });
    });
  });

  describe('light and dark', () => {
    const paper = 'getComputedStyle(document.body).backgroundColor';

    it('are the system’s until somebody chooses, and the choice stays', async () => {
      const page = await open({ colorScheme: 'dark' });
      expect(await page.evaluate(paper)).to.equal('rgb(20, 23, 26)');
      await page.getByRole('combobox', { name: 'Theme' }).selectOption('light');
      expect(await page.evaluate(paper)).to.equal('rgb(246, 247, 248)');
      await page.reload();
      await page.locator('.tunnel').first().waitFor();
      expect(await page.evaluate(paper)).to.equal('rgb(246, 247, 248)');
      await page.getByRole('combobox', { name: 'Theme' }).selectOption('auto');
      expect(await page.evaluate(paper)).to.equal('rgb(20, 23, 26)');
    });

    it('have every text stand out from what is behind it, by 4.5 to 1', async () => {
      stage.tunnels.set(idOf(20), asking(20, 'vault'));
      for (const colorScheme of ['light', 'dark'] as const) {
        const page = await open({ colorScheme });
        for (const at of ['#/', `#/tunnel/${idOf(5)}`, `#/tunnel/${idOf(20)}`, '#/port/9443']) {
          await page.goto(`${stage.url}${at}`);
          await page.getByRole('heading', { level: 1 }).waitFor({ state: 'attached' });
          expect(await page.evaluate<string[]>(faintTexts), `${colorScheme} ${at}`).to.deep.equal([]);
        }
      }
    });

    it('turn nothing for those who do not want that', async () => {
      const page = await open({ reducedMotion: 'reduce' });
      const names = await page.evaluate<string[]>(
        "Array.from(document.querySelectorAll('.dot'), (dot) => getComputedStyle(dot).animationName)",
      );
      expect([...new Set(names)]).to.deep.equal(['none']);
    });
  });

  describe('Chinese', () => {
    it('is what a Chinese browser is shown, on every page', async () => {
      stage.answers.set('POST /v1/ports/9443/free', () => ({ body: { ...heldPort, kill: plannedKill } }));
      const page = await open({ locale: 'zh-CN' });
      expect(await page.evaluate('document.documentElement.lang')).to.equal('zh-CN');
      await page.getByText('服务器拒绝连接').waitFor();
      await page.getByRole('columnheader', { name: '最近重启' }).waitFor();
      await page.getByRole('button', { name: '重启 database' }).click();
      await page.goto(`${stage.url}#/tunnel/${idOf(1)}`);
      await page.getByText('已重启').waitFor();
      await page.goto(`${stage.url}#/port/9443`);
      await page.getByText('被占用').waitFor();
      await page.getByRole('button', { name: '制定释放计划' }).click();
      await page.getByText('监听端口 9443').waitFor();
    });

    it('can be chosen, stays, and can be left again', async () => {
      const page = await open();
      await page.getByRole('combobox', { name: 'Language' }).selectOption('zh');
      await page.getByText('12 条隧道').waitFor();
      await page.reload();
      await page.getByText('12 条隧道').waitFor();
      await page.getByRole('combobox', { name: '语言' }).selectOption('en');
      await page.getByText('12 tunnels').waitFor();
    });

    it('has words for every state and reason there is, and so has English', async () => {
      for (const locale of ['zh-CN', 'en-GB']) {
        const page = await open({ locale });
        expect(await page.locator('main').textContent(), locale).not.to.match(
          /undefined|\[object|NaN|ERR_|_busy|auth_failed/,
        );
        expect(await page.locator('tbody .state').count()).to.be.at.least(makeCast().length);
        await page.context().close();
      }
    });

    it('signs in as well', async () => {
      stage.isLocked = true;
      const page = await viewer.open(stage.url, { locale: 'zh-TW' });
      await page.getByLabel('令牌').fill('wrong');
      await page.keyboard.press('Enter');
      await page.getByText('令牌不正确。').waitFor();
      await page.getByRole('combobox', { name: '语言' }).selectOption('en');
      await signIn(page, stage);
    });
  });
});

/** In the page: every text whose contrast with what it stands on is less than WCAG's AA. */
const faintTexts = `(() => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const toRgb = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let up = element; up; up = up.parentElement) {
      const color = toRgb(getComputedStyle(up).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== '');
    if (!hasText || element.closest('svg, noscript, .unseen, dialog') || !element.checkVisibility() || element.closest('[aria-disabled="true"]')) continue;
    const [one, other] = [light(toRgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.push(element.textContent.trim().slice(0, 40) + ' ' + ((one + 0.05) / (other + 0.05)).toFixed(2));
  }
  return faint;
})()`;
