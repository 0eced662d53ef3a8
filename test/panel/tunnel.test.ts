import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { eventually, type Viewer } from './browser.js';
import { chainOfWeb, idOf, logOfWeb, nginx, useScene } from './scene.js';
import { problem, type Stage } from './stage.js';

describe('the page of one tunnel', () => {
  let viewer: Viewer;
  let stage: Stage;

  useScene((...opened) => {
    [viewer, stage] = opened;
    stage.isLocked = false;
  });

  async function openTunnel(number: number): Promise<Page> {
    const page = await viewer.open(`${stage.url}#/tunnel/${idOf(number)}`);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.getByText('live', { exact: true }).waitFor();
    return page;
  }

  const logText = (page: Page) => page.getByRole('log').textContent();

  it('restarts it, shows the phases, and says how long it took', async () => {
    const page = await openTunnel(1);
    await page.getByRole('button', { name: 'Restart database' }).click();
    await page.getByText('Restarted: up again after 416 ms').waitFor();
    await page.getByText('· 1 killed').waitFor();
    await page.getByRole('img', { name: 'stop 12 ms, free 2.4 ms, start 402 ms' }).waitFor();
    const legend = await page.getByRole('figure').textContent();
    expect(legend).to.match(/stop\s+12 ms.*free\s+2\.4 ms.*start\s+402 ms.*in all\s+416 ms/s);
    expect(stage.asked).to.include(`POST /v1/tunnels/${idOf(1)}/restart`);
  });

  it('stops it, and offers then to start it', async () => {
    const page = await openTunnel(1);
    await page.getByRole('button', { name: 'Stop database' }).click();
    await page.getByText('Stopped after 14 ms').waitFor();
    await page.getByRole('button', { name: 'Start database', exact: true }).click();
    await page.getByText('Up after 404 ms').waitFor();
  });

  it('says why a start was refused, who is in the way, and forces it after asking', async () => {
    const path = `/v1/tunnels/${idOf(12)}/restart`;
    stage.answers.set(`POST ${path}`, ({ url }) =>
      url.searchParams.get('force') === 'true'
        ? problem(502, 'ERR_START_FAILED', 'Tunnel admin could not be started: auth_failed', { reason: 'auth_failed' })
        : problem(409, 'ERR_PORT_HELD', 'port 9443 is held by pid 4711 (nginx)', { port: 9443, holders: [nginx] }),
    );
    const page = await openTunnel(12);
    await page.getByText("see who holds it with 'tunward who 9443'").waitFor();
    await page.getByRole('button', { name: 'Restart admin' }).click();
    await page.getByText('Not restarted: Its port is held by somebody else').waitFor();
    await page.getByRole('button', { name: 'Force…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Take port 9443 by force?' });
    await dialog.getByText('nginx 4711').waitFor();
    expect(await page.evaluate('document.activeElement.textContent')).to.equal('Cancel');
    await dialog.getByRole('button', { name: 'Kill and restart' }).click();
    // The port was one thing; what comes next is told as well, in words.
    await page.getByText('Not restarted: The server refuses the login').waitFor();
    expect(await page.getByRole('button', { name: 'Force…' }).count()).to.equal(0);
  });

  it('draws the tree of its processes, with what each listens on', async () => {
    const page = await openTunnel(2);
    const tree = page.locator('.tree');
    await tree.waitFor();
    const nesting = await page.evaluate<string[]>(
      "Array.from(document.querySelectorAll('.tree li'), (li) => { let depth = 0; for (let up = li; up = up.parentElement.closest('li'); ) depth++; return depth + ' ' + li.querySelector('.pid').textContent; })",
    );
    expect(nesting).to.deep.equal(['0 802', '1 803', '2 804', '2 805']);
    await tree.getByText('ssh -W bastion.example:22').waitFor();
    await tree.getByRole('link', { name: 'listens on 8080' }).click();
    await page.getByRole('heading', { name: 'Who holds a port?' }).waitFor();
  });

  it('looks at the processes again when the tunnel has changed', async () => {
    const page = await openTunnel(1);
    await page.getByText('No process is running for this tunnel.').waitFor();
    stage.processes.set(idOf(1), chainOfWeb);
    stage.set(idOf(1), { since: new Date().toISOString() });
    await page.locator('.tree').waitFor();
  });

  it('says where it listens, and leads to who holds that', async () => {
    const page = await openTunnel(12);
    await page.getByRole('link', { name: 'Who holds [::1]:9443?' }).click();
    await eventually(() => stage.asked.includes('GET /v1/ports/9443?host=%3A%3A1'));
    expect(await page.getByLabel('Port, or host:port').inputValue()).to.equal('[::1]:9443');
  });

  it('follows its log, and stands still for who reads', async () => {
    for (const line of logOfWeb) stage.say(idOf(2), line);
    const page = await openTunnel(2);
    await page.locator('#log div').nth(5).waitFor();
    expect(await logText(page)).to.include('2026-11-25 16:24:28 up after 512 ms');
    for (let at = 0; at < 100; at++) stage.say(idOf(2), `line ${at}`);
    const isAtEnd =
      "(() => { const box = document.getElementById('log'); return box.scrollHeight - box.scrollTop - box.clientHeight < 2; })()";
    await page.locator('#log div', { hasText: /^line 99$/ }).waitFor();
    expect(await page.evaluate(isAtEnd), 'it follows').to.equal(true);
    await page.evaluate("document.getElementById('log').scrollTop = 0");
    await page.getByRole('button', { name: 'To the end' }).waitFor();
    expect(await page.getByLabel('Follow').isChecked()).to.equal(false);
    stage.say(idOf(2), 'one more');
    await page.locator('#log div', { hasText: 'one more' }).waitFor({ state: 'attached' });
    expect(await page.evaluate("document.getElementById('log').scrollTop"), 'it stands still').to.equal(0);
    await page.getByRole('button', { name: 'To the end' }).click();
    expect(await page.evaluate(isAtEnd), 'it follows again').to.equal(true);
  });

  it('keeps 2,000 lines of a log that talks without end', async () => {
    const page = await openTunnel(2);
    for (let at = 0; at < 5000; at++) stage.say(idOf(2), `flood ${at}`);
    await page.locator('#log div', { hasText: /^flood 4999$/ }).waitFor();
    expect(await page.locator('#log div').count()).to.equal(2000);
    expect(await page.locator('#log div').first().textContent()).to.equal('flood 3000');
  });

  it('takes a log that broke off up again, and shows no line twice', async () => {
    for (const line of logOfWeb) stage.say(idOf(2), line);
    const page = await openTunnel(2);
    await page.locator('#log div').nth(5).waitFor();
    stage.cutStreams();
    await eventually(() => stage.asked.filter((what) => what.includes('/logs?')).length > 1);
    stage.say(idOf(2), 'after the break');
    await page.locator('#log div', { hasText: 'after the break' }).waitFor();
    expect(await page.locator('#log div').count()).to.equal(logOfWeb.length + 1);
  });

  it('shows the log of the tunnel it is about, and lets go of the other one', async () => {
    stage.say(idOf(1), 'of the first');
    stage.say(idOf(2), 'of the second');
    const page = await openTunnel(1);
    await page.getByText('of the first').waitFor();
    await page.goto(`${stage.url}#/tunnel/${idOf(2)}`);
    await page.getByText('of the second').waitFor();
    expect(await logText(page)).not.to.include('of the first');
    stage.say(idOf(1), 'late');
    stage.say(idOf(2), 'later');
    await page.getByText('later').waitFor();
    expect(await logText(page)).not.to.include('late ');
  });

  it('says that there is no such tunnel, and when one has gone', async () => {
    const page = await viewer.open(`${stage.url}#/tunnel/%E0%A4%A`);
    await page.getByText('There is no such tunnel.').waitFor();
    await page.goto(`${stage.url}#/tunnel/${idOf(8)}`);
    await page.getByRole('heading', { level: 1, name: 'cache' }).waitFor();
    stage.tunnels.delete(idOf(8));
    stage.emit('config.loaded');
    await page.getByText('There is no such tunnel.').waitFor();
    await page.getByRole('link', { name: 'All tunnels' }).click();
    await page.getByText('11 tunnels').waitFor();
  });
});
