/**
 * `npm run screenshots`: the pages of the panel as they look, wide and narrow, light and dark, into .build/screenshots/.
 * To be looked at; nothing compares them.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { BrowserContextOptions, Page } from 'playwright-core';
import { buildRoot } from '../support/paths.js';
import { eventually, signIn, startViewer } from './browser.js';
import { asking, chainOfWeb, heldPort, idOf, logOfWeb, makeCast, nginx, plannedKill, startScene } from './scene.js';
import { problem } from './stage.js';

const folder = join(buildRoot, 'screenshots');
mkdirSync(folder, { recursive: true });

const stage = await startScene();
const viewer = await startViewer();
stage.isLocked = false;
for (const line of logOfWeb) stage.say(idOf(2), line);
for (let at = 0; at < 40; at++)
  stage.say(
    idOf(2),
    `[2026-11-25 18:${10 + at}:07] debug1: client_input_channel_req: channel 2 rtype keepalive@openssh.com reply 1`,
  );
stage.answers.set('POST /v1/ports/9443/free', ({ body }) =>
  body.dry_run
    ? { body: { ...heldPort, kill: plannedKill } }
    : body.force
      ? {
          body: {
            ...heldPort,
            free: true,
            verdict: 'free',
            explanation: 'Port 9443 is free',
            listeners: [],
            clients: heldPort.clients,
            kill: { ...plannedKill, survivors: [] },
            took_ms: 31,
          },
        }
      : problem(403, 'ERR_FORBIDDEN', 'Port 9443 is of no tunnel of this configuration: force is needed'),
);
stage.answers.set(`POST /v1/tunnels/${idOf(12)}/restart`, () =>
  problem(
    409,
    'ERR_PORT_HELD',
    'Tunnel admin cannot start: port 9443 is held by pid 4711 (nginx: master process) of www-data, 3h 5m old; use --force, or takeover: any, to kill it',
    { port: 9443, holders: [nginx] },
  ),
);
stage.processes.set(idOf(1), chainOfWeb);

const wide = { viewport: { width: 1280, height: 800 } };
const narrow = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
try {
  for (const [size, view] of Object.entries({ desktop: wide, phone: narrow })) {
    for (const colorScheme of ['light', 'dark'] as const) {
      await shootAll(`${size}-${colorScheme}`, { ...view, colorScheme });
    }
  }
  await shootAll('desktop-light-zh', { ...wide, locale: 'zh-CN' }, true);
  await shootAll('phone-light-zh', { ...narrow, locale: 'zh-CN' }, true);
  await shootStates();
  await shootTerminals();
  await shootTraffic();
} finally {
  await viewer.close();
  await stage.close();
}
console.log(`looked at ${makeCast().length} tunnels: ${folder}`);

async function shootAll(name: string, options: BrowserContextOptions, isChinese = false): Promise<void> {
  const page = await viewer.open(stage.url, options);
  await page.locator('.tunnel').first().waitFor();
  await page.getByText('metrics').waitFor();
  await shoot(page, `${name}-list`);
  await page.goto(`${stage.url}#/tunnel/${idOf(2)}`);
  await page.locator('#log div').nth(40).waitFor();
  await page.locator('.tree').waitFor();
  await shoot(page, `${name}-tunnel`);
  await page.goto(`${stage.url}#/port/9443`);
  await page.getByRole('button', { name: isChinese ? '制定释放计划' : 'Plan to free it' }).click();
  await page.locator('.plan').waitFor();
  await shoot(page, `${name}-port`);
  await page.context().close();
}

/** What is not there every day. */
async function shootStates(): Promise<void> {
  const page = await viewer.open(`${stage.url}#/tunnel/${idOf(12)}`, wide);
  await page.getByRole('button', { name: 'Restart admin' }).click();
  await page.getByRole('button', { name: 'Force…' }).waitFor();
  await shoot(page, 'refused-tunnel');
  await page.getByRole('button', { name: 'Force…' }).click();
  await shoot(page, 'refused-dialog');
  await page.keyboard.press('Escape');
  await page.goto(`${stage.url}#/`);
  await page.keyboard.press('j');
  await shoot(page, 'refused-list');
  await page.keyboard.press('?');
  await shoot(page, 'keys');
  await page.keyboard.press('Escape');
  await page.goto(`${stage.url}#/port/9443`);
  await page.getByRole('button', { name: 'Plan to free it' }).click();
  await page.getByRole('button', { name: 'Free it' }).click();
  await page.getByRole('button', { name: 'Kill and free it' }).click();
  await page.getByText('Free, proved by binding it').waitFor();
  await shoot(page, 'freed-port');
  await page.goto(`${stage.url}#/`);
  await stage.vanish();
  await page.getByText('The daemon does not answer.').waitFor();
  await shoot(page, 'lost');
  await stage.comeBack();
  stage.isLocked = true;
  await page.getByLabel('Token').waitFor();
  await shoot(page, 'login');
  await page.getByLabel('Token').fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByText('This is not the token.').waitFor();
  await shoot(page, 'login-wrong');
  await signIn(page, stage);
}

/** Tunnels that need somebody, and the terminal: asked, refused, up. */
async function shootTerminals(): Promise<void> {
  const vault = idOf(20);
  const { body: refused } = problem(502, 'ERR_START_FAILED', 'tunnel vault did not come up: Permission denied', {
    reason: 'auth_failed',
    remedy: "try again: 'tunward auth vault', or the panel",
  });
  stage.isLocked = false;
  for (const [size, view] of Object.entries({ desktop: wide, phone: narrow })) {
    for (const colorScheme of ['light', 'dark'] as const) {
      stage.tunnels.set(vault, asking(20, 'vault', { remote_host: 'me@vault.example', jump: ['gate.example'] }));
      stage.tunnels.set(idOf(21), asking(21, 'archive', { reason: 'auth_failed', last_error: 'Permission denied' }));
      const page = await viewer.open(stage.url, { ...view, colorScheme });
      await page.locator('.needed').waitFor();
      await shoot(page, `${size}-${colorScheme}-asking-list`);
      await page.goto(`${stage.url}#/tunnel/${vault}`);
      await page.locator('.head .authenticate').waitFor();
      await shoot(page, `${size}-${colorScheme}-asking-tunnel`);
      const before = stage.sittings.length;
      await page.locator('.head .authenticate').click();
      await eventually(() => stage.sittings.length > before);
      const sitting = stage.sittings.at(-1);
      sitting?.open(size === 'phone' ? 'askpass' : 'pty');
      sitting?.show(
        "The authenticity of host 'vault.example (203.0.113.9)' can't be established.\r\nED25519 key fingerprint is SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU.\r\nAre you sure you want to continue connecting (yes/no/[fingerprint])? yes\r\n\u001b[33mAuthorised use only.\u001b[0m \u001b[38;2;120;120;120mgrey\u001b[0m \u001b[32mgreen\u001b[0m\r\n(me@vault.example) Password: \r\n(me@vault.example) Verification code: ",
      );
      await page.locator('.xterm-rows').getByText('Verification code').waitFor();
      await shootWindow(page, `${size}-${colorScheme}-terminal`);
      sitting?.end({ outcome: 'failed', problem: refused });
      await page.getByRole('button', { name: 'Try again' }).waitFor();
      await shootWindow(page, `${size}-${colorScheme}-terminal-failed`);
      await page.context().close();
    }
  }
}

/** A seamless tunnel that has been looked at for two minutes, by the page's clock. */
async function shootTraffic(): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    let second = 0;
    const sum = { in: 40_000_000, out: 900_000 };
    stage.answers.set('GET /v1/traffic', () => {
      second += 2;
      sum.in += Math.round(2_000_000 * (1 + Math.sin(second / 9)) + (second % 14 === 0 ? 3_000_000 : 0));
      sum.out += Math.round(300_000 * (1 + Math.cos(second / 5)));
      const traffic = {
        connections: 1200 + second,
        open: 12,
        queued: 0,
        refused: 3,
        bytes_in: sum.in,
        bytes_out: sum.out,
      };
      const at = new Date(Date.parse('2026-11-25T16:00:00Z') + second * 1000).toISOString();
      return { body: { at, tunnels: { [idOf(8)]: traffic } } };
    });
    const page = await viewer.open(`${stage.url}#/tunnel/${idOf(8)}`, { colorScheme, time: new Date() });
    await page.locator('.link.live').waitFor();
    while (second < 120) {
      const before = second;
      await page.clock.runFor(2000);
      await eventually(() => second > before);
    }
    await shoot(page, `desktop-${colorScheme}-traffic`);
    await page.context().close();
  }
}

/** What is in the window: a dialog lies over that alone. */
async function shootWindow(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

async function shoot(page: Page, name: string): Promise<void> {
  await page.evaluate('scrollTo(0, 0)');
  const width = page.viewportSize()?.width ?? 0;
  const height = await page.evaluate<number>('document.documentElement.scrollHeight');
  const clip = { x: 0, y: 0, width, height: Math.min(height, 1300) };
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true, clip });
}
