import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, type Viewer } from './browser.js';
import { heldPort, plannedKill, useScene } from './scene.js';
import { problem, type Stage } from './stage.js';

describe('the port inspector', () => {
  let viewer: Viewer;
  let stage: Stage;

  useScene((...opened) => {
    [viewer, stage] = opened;
    stage.isLocked = false;
  });

  const freed = {
    ...heldPort,
    free: true,
    verdict: 'free',
    explanation: 'Port 9443 is free',
    listeners: [],
    kill: plannedKill,
    took_ms: 31,
  };
  const bodies = () => [...stage.bodies].filter(([what]) => what.endsWith('/free'));

  async function ask(text: string): Promise<Page> {
    const page = await viewer.open(`${stage.url}#/`);
    await page.getByRole('link', { name: 'Ports', exact: true }).click();
    await page.getByLabel('Port, or host:port').fill(text);
    await page.getByRole('button', { name: 'Look' }).click();
    return page;
  }

  it('says who holds it, in one sentence and one by one, and who is connected and will live', async () => {
    const page = await ask('9443');
    await page.getByText('Port 9443 is held by pid 4711').waitFor();
    const report = await page.getByRole('region', { name: '9443' }).textContent();
    expect(report).to.match(
      /held.*0\.0\.0\.0:9443.*nginx 4711.*www-data.*3 h 5 min.*nginx 4712.*\[::\]:9443.*Connected.*never killed.*chrome 5120.*ESTABLISHED/s,
    );
    await page.getByRole('link', { name: 'Port of the tunnel admin' }).click();
    await page.getByRole('heading', { level: 1, name: 'admin' }).waitFor();
  });

  it('says that a port is free, and offers nothing then', async () => {
    const page = await ask('127.0.0.1:4444');
    await page.getByText('Port 4444 is free').waitFor();
    expect(stage.asked).to.include('GET /v1/ports/4444?host=127.0.0.1');
    expect(await page.getByRole('button', { name: 'Plan to free it' }).count()).to.equal(0);
  });

  it('leaves what somebody is typing alone, however often the page is drawn meanwhile', async () => {
    const page = await viewer.open(`${stage.url}#/port/4444`);
    await page.getByText('Port 4444 is free').waitFor();
    await page.getByLabel('Port, or host:port').fill('127.0.0.1:94');
    const before = stage.asked.length;
    await eventually(() => stage.asked.slice(before).includes('GET /v1/tunnels'));
    await page.getByLabel('Port, or host:port').pressSequentially('43');
    expect(await page.getByLabel('Port, or host:port').inputValue()).to.equal('127.0.0.1:9443');
  });

  it('asks nobody about what is no port', async () => {
    const page = await ask('99999');
    await page.getByText('A port is a number from 1 to 65535').waitFor();
    expect(await page.getByLabel('Port, or host:port').getAttribute('aria-invalid')).to.equal('true');
    expect(stage.asked.filter((what) => what.includes('/ports/'))).to.deep.equal([]);
  });

  it('shows the plan before the kill, and the kill only when that is asked for', async () => {
    stage.answers.set('POST /v1/ports/9443/free', ({ body }) =>
      body.dry_run ? { body: { ...heldPort, kill: plannedKill } } : { body: freed },
    );
    const page = await ask('9443');
    await page.getByRole('button', { name: 'Plan to free it' }).click();
    const plan = page.getByRole('region', { name: 'The plan: nobody has been touched' });
    await plan.waitFor();
    const fates = await plan.getByRole('listitem').allTextContents();
    expect(fates.map((fate) => fate.replace(/\s+/g, ' ').trim())).to.deep.equal([
      'would be killed nginx 4711 listens on port 9443 nginx: master process /usr/sbin/nginx -g daemon off;',
      'would be killed nginx 4712 child of 4711 nginx: worker process',
      'protected tini 1 pid 1 /sbin/tini -- nginx',
      'left alone sh 4800 in another session sh -c logger -t nginx',
      'not touched chrome 5120 ESTABLISHED /opt/google/chrome --type=utility',
    ]);
    expect(stage.bodies.get('POST /v1/ports/9443/free')).to.deep.equal({ dry_run: true });
    await plan.getByRole('button', { name: 'Free it' }).click();
    await page.getByText('Free, proved by binding it').waitFor();
    expect(stage.bodies.get('POST /v1/ports/9443/free')).to.deep.equal({});
    await page.getByText('Port 9443 is free').waitFor();
  });

  it('asks back where force is needed, and lets everybody live who is not agreed to', async () => {
    stage.answers.set('POST /v1/ports/9443/free', ({ body }) => {
      if (!body.force) return problem(403, 'ERR_FORBIDDEN', 'Port 9443 is of no tunnel of this configuration');
      return body.dry_run ? { body: { ...heldPort, kill: plannedKill } } : { body: freed };
    });
    const page = await ask('9443');
    await page.getByRole('button', { name: 'Plan to free it' }).click();
    await page.getByRole('button', { name: 'Free it' }).click();
    const dialog = page.getByRole('dialog', { name: 'Free port 9443 by force?' });
    await dialog.getByText('nginx 4711').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Free it' }).waitFor();
    expect(bodies().map(([, body]) => body)).to.deep.equal([{}]);
    await page.getByRole('button', { name: 'Free it' }).click();
    await dialog.getByRole('button', { name: 'Kill and free it' }).click();
    await page.getByText('Free, proved by binding it').waitFor();
    expect(bodies().map(([, body]) => body)).to.deep.equal([{ force: true }]);
  });

  it('says what survived, and that the port is still held', async () => {
    const survivors = [{ pid: 666, command: 'stuck', why: 'stuck in uninterruptible sleep (D), SIGKILL is pending' }];
    stage.answers.set('POST /v1/ports/9443/free', ({ body }) => ({
      body: { ...heldPort, verdict: body.dry_run ? 'listening' : 'stuck', kill: { ...plannedKill, survivors } },
    }));
    const page = await ask('9443');
    await page.getByRole('button', { name: 'Plan to free it' }).click();
    await page.getByRole('button', { name: 'Free it' }).click();
    await page.getByText('Still held').waitFor();
    await page.getByText('stuck in uninterruptible sleep (D)').waitFor();
  });

  it('names who starts the holder again, and kills that one too only after asking', async () => {
    const respawner = { pid: 70, start_ticks: 1, user: 'me', command: '/bin/sh ./loop.sh', age_s: 60 };
    const again = { ...heldPort, verdict: 'respawned', respawner, kill: plannedKill };
    stage.answers.set('POST /v1/ports/9443/free', ({ body }) => ({
      body: body.dry_run ? { ...heldPort, kill: plannedKill } : body.respawner ? freed : again,
    }));
    const page = await ask('9443');
    await page.getByRole('button', { name: 'Plan to free it' }).click();
    await page.getByRole('button', { name: 'Free it', exact: true }).click();
    await page.getByText('comes back').waitFor();
    await page.getByRole('button', { name: 'Free it for good…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Free port 9443 for good?' });
    await dialog.getByText('sh 70').waitFor();
    await dialog.getByRole('button', { name: 'Kill and free it' }).click();
    await page.getByText('Free, proved by binding it').waitFor();
    expect(stage.bodies.get('POST /v1/ports/9443/free')).to.deep.equal({ respawner: true, force: true });
  });

  it('tells of an error as of an error, and never as of a free port', async () => {
    stage.answers.set('GET /v1/ports/9443', () => problem(500, 'ERR_PROC_FORMAT', '/proc/net/tcp has no row'));
    const page = await ask('9443');
    await page.getByRole('alert').getByText('The kernel’s tables cannot be read').waitFor();
    expect(await page.getByText('free', { exact: true }).count()).to.equal(0);
  });

  it('answers for the port that was asked for last', async () => {
    let go = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      go = resolve;
    });
    stage.answers.set('GET /v1/ports/9443', async () => {
      await gone;
      return { body: heldPort };
    });
    const page = await ask('9443');
    await eventually(() => stage.asked.includes('GET /v1/ports/9443'));
    await page.goto(`${stage.url}#/port/4444`);
    await page.getByText('Port 4444 is free').waitFor();
    const answered = page.waitForResponse(/ports\/9443/);
    go();
    await (await answered).finished();
    stage.emit('config.loaded');
    await page.getByText('Port 4444 is free').waitFor();
    expect(await page.getByText('nginx').count()).to.equal(0);
  });
});
