import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { fetchText, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal } from '../support/proc.js';
import { startClient, startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { eventually, signIn, startViewer, type Viewer } from './browser.js';

describe('the panel of a real daemon, with real tunnels', () => {
  const reaper = createReaper();
  const home = makeHome();
  let viewer: Viewer;
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let target: Server;
  let url: string;
  const ports: Record<string, number> = {};
  const token = () => readFileSync(join(home.stateDir, 'token'), 'utf8').trim();

  before(async function () {
    this.timeout(60_000);
    need(this, 'chromium', 'ssh', 'sshd', 'autossh');
    viewer = await startViewer();
    sshd = await startSshd();
    target = createServer((_request, answer) => answer.end('served'));
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
    for (const name of ['api', 'plain', 'my chain', 'held', 'late']) ports[name] = await freeLocalPort();
    url = `http://127.0.0.1:${ports.api}/`;
    configure(['plain', 'my chain']);
    daemon = await startUp(reaper, home);
    for (const name of ['plain', 'my chain']) await tunnelIn(home, name, 'up');
  });

  afterEach(() => viewer?.check());

  after(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    target?.close();
    await viewer?.close();
    home.remove();
    expect(code, 'exit code of the daemon').to.equal(0);
  });

  function configure(names: readonly string[]): void {
    const { port } = target.address() as AddressInfo;
    const api = { socket: home.socket, listen: `127.0.0.1:${ports.api}` };
    const tunnels = names.map((name) => ({
      name,
      remote_host: 'rig',
      ssh_config: sshd.sshConfigFile,
      local_port: ports[name],
      remote_port: `127.0.0.1:${port}`,
      engine: name === 'my chain' ? 'autossh' : 'ssh',
      groups: ['lab'],
    }));
    home.configure({ api }, tunnels);
  }

  async function openPanel(): Promise<Page> {
    const page = await viewer.open(url);
    await signIn(page, { token: token() });
    return page;
  }

  const row = (page: Page, name: string) => page.locator('.tunnel', { has: page.getByRole('rowheader', { name }) });

  it('lets nobody in who has not the token, and says so', async () => {
    const page = await viewer.open(url);
    await page.getByLabel('Token').fill('not-the-token-at-all');
    await page.keyboard.press('Enter');
    await page.getByText('This is not the token.').waitFor();
    expect(await page.getByText('plain').count()).to.equal(0);
    await signIn(page, { token: token() });
    await page.getByText('my chain').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Token').waitFor();
    await page.reload();
    await page.getByLabel('Token').waitFor();
  });

  it('asks for no token where the socket itself has been forwarded, as by ssh -L 7420:/run/tunward/tunward.sock', async () => {
    const forward = net.createServer((client) => {
      const door = net.connect(home.socket);
      client.on('error', () => door.destroy()).on('close', () => door.destroy());
      door.on('error', () => client.destroy()).on('close', () => client.destroy());
      client.pipe(door).pipe(client);
    });
    await new Promise<void>((resolve) => forward.listen(0, '127.0.0.1', resolve));
    try {
      const page = await viewer.open(`http://127.0.0.1:${(forward.address() as AddressInfo).port}/`);
      await page.getByText('my chain').waitFor();
      expect(await page.getByRole('button', { name: 'Sign out' }).count()).to.equal(0);
      await page.context().close();
    } finally {
      await new Promise((resolve) => forward.close(resolve));
    }
  });

  it('shows the tunnels as they are, with what their chains use', async () => {
    const page = await openPanel();
    expect(await page.getByRole('rowheader').count()).to.equal(2);
    expect(await row(page, 'plain').textContent()).to.match(
      /up.*localhost:\d+.*via rig.*\d+ (s|min).*\d+ ms.*\d\.\d %.*\d MB/s,
    );
    expect(await row(page, 'my chain').getByRole('img').getAttribute('aria-label')).to.match(
      /^stop .* ms, free .* ms, start .* ms$/,
    );
  });

  it('restarts one: a new chain, the phases of it, and bytes go through again', async () => {
    const before = await tunnelIn(home, 'my chain', 'up');
    const page = await openPanel();
    await page.getByText('my chain').click();
    await page.getByRole('button', { name: 'Restart my chain' }).click();
    await page.getByText(/Restarted: up again after/).waitFor();
    await page.getByText('· 2 killed').waitFor();
    const after = await tunnelIn(home, 'my chain', 'up');
    expect(after.pid).not.to.equal(before.pid);
    await page.locator('.tree .pid', { hasText: String(after.pid) }).waitFor();
    expect(await page.locator('.tree li').count(), 'autossh and its ssh').to.equal(2);
    await page.getByRole('link', { name: `listens on ${ports['my chain']}` }).waitFor();
    await page.locator('#log').getByText('Starting tunnel').last().waitFor();
    expect(await fetchText(ports['my chain'] ?? 0)).to.equal('served');
  });

  it('sees at once that a chain was killed, and that it has come again', async () => {
    const page = await openPanel();
    const restarts = async () => (await tunnelIn(home, 'plain', 'up')).restarts;
    const before = await restarts();
    const { body } = await home.api('GET', '/v1/tunnels/plain');
    const [{ pid, start_ticks: startTicks }] = body.chain;
    sendSignal({ pid, startTicks }, 'SIGKILL');
    await page.locator('#said', { hasText: /plain: (waiting|starting|up)/ }).waitFor({ state: 'attached' });
    await eventually(async () => (await restarts()) > before);
    await row(page, 'plain').locator('.state.up').waitFor();
  });

  it('follows the log of a tunnel, line by line as it is written', async () => {
    const page = await openPanel();
    await page.getByText('plain', { exact: true }).click();
    await page.locator('#log div').first().waitFor();
    await page.getByRole('button', { name: 'Stop plain' }).click();
    await page.getByText(/Stopped after/).waitFor();
    await page
      .locator('#log')
      .getByText(/stopped/i)
      .first()
      .waitFor();
    await page.getByText('No process is running for this tunnel.').waitFor();
    await page.getByRole('button', { name: 'Start plain', exact: true }).click();
    await page.getByText(/Up after/).waitFor();
    await page.locator('#log').getByText('Starting tunnel').last().waitFor();
  });

  it('learns of a tunnel that was added, says who is in its way, and takes the port by force when told to', async function () {
    this.timeout(60_000);
    const page = await openPanel();
    const stranger = await startListener(reaper, { port: ports.held ?? 0 }).ready;
    configure(['plain', 'my chain', 'held']);
    await page.getByText('held', { exact: true }).waitFor();
    await row(page, 'held').getByText('Somebody else has its port on this side').waitFor();
    await page.getByRole('button', { name: 'Restart held' }).click();
    const refusal = page.getByRole('group', { name: 'Not restarted' });
    await refusal.getByText(`node ${stranger.pid}`).waitFor();
    expect(isAlive(stranger.pid, stranger.startTicks), 'before it was told to').to.equal(true);
    await refusal.getByRole('button', { name: 'Force…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Kill and restart' }).click();
    await row(page, 'held').locator('.state.up').waitFor();
    expect(isAlive(stranger.pid, stranger.startTicks)).to.equal(false);
    expect(await fetchText(ports.held ?? 0)).to.equal('served');
  });

  it('finds who holds a port that is nobody’s tunnel, plans, asks back, frees it, and spares its client', async () => {
    const port = await freeLocalPort();
    const holder = await startListener(reaper, { port, children: [{}] }).ready;
    const client = await startClient(reaper, { port }).ready;
    const page = await openPanel();
    await page.keyboard.press('p');
    await page.getByLabel('Port, or host:port').fill(String(port));
    await page.keyboard.press('Enter');
    await page.getByText(`Port ${port} is held by pid ${holder.pid}`).waitFor();
    await page.getByText(`node ${client.pid}`).waitFor();
    await page.getByRole('button', { name: 'Plan to free it' }).click();
    const plan = page.getByRole('region', { name: 'The plan' });
    await plan.waitFor();
    expect(await plan.getByText('would be killed').count()).to.equal(2);
    expect(await plan.getByText('not touched').count()).to.equal(1);
    expect(isAlive(holder.pid, holder.startTicks), 'a plan').to.equal(true);
    await plan.getByRole('button', { name: 'Free it' }).click();
    const dialog = page.getByRole('dialog', { name: `Free port ${port} by force?` });
    await dialog.getByText(`node ${holder.pid}`).waitFor();
    await dialog.getByRole('button', { name: 'Kill and free it' }).click();
    await page.getByText('Free, proved by binding it').waitFor();
    expect(isAlive(holder.pid, holder.startTicks)).to.equal(false);
    expect(isAlive(client.pid, client.startTicks), 'the client').to.equal(true);
  });

  it('says that a configuration has mistakes, and where', async () => {
    const page = await openPanel();
    configure(['plain', 'my chain', 'held', 'plain']);
    await page.getByText('The configuration file was changed and has mistakes').waitFor();
    await page.getByText(/tunward\.yaml:\d+:\d+/).waitFor();
    configure(['plain', 'my chain', 'held']);
    await page.getByText('The configuration file was changed and has mistakes').waitFor({ state: 'detached' });
  });

  it('says that the daemon is gone, keeps what was known, and asks for the token of the new one', async function () {
    this.timeout(60_000);
    const page = await openPanel();
    await page.getByText('my chain').waitFor();
    await daemon.end('SIGKILL');
    await page.getByText('The daemon does not answer.').waitFor();
    expect(await row(page, 'plain').locator('.state').first().textContent()).to.include('up');
    expect(await page.getByText('stopped', { exact: true }).count()).to.equal(0);
    daemon = await startUp(reaper, home);
    await page.getByText('The session has ended. Sign in again.').waitFor();
    await signIn(page, { token: token() });
    await row(page, 'plain').locator('.state.up').waitFor();
  });
});
