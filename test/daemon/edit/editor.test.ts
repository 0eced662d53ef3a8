import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseSource } from '#lib/daemon/config.js';
import { createEditor, type Editor } from '#lib/daemon/edit/editor.js';
import type { DaemonEvent } from '#lib/daemon/events.js';
import { createReloader, type Reloader } from '#lib/daemon/reload.js';
import { isTunwardError, type TunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import { createFakeClock, type FakeClock } from '../../support/fakeclock.js';

const env = { HOME: '/home/u' };
const web = { name: 'web', remote_host: 'me@host', remote_port: '80', local_port: '9001' };
const db = { name: 'db', remote_host: 'me@host', remote_port: '81', local_port: '9002' };
const mail = { name: 'mail', remote_host: 'me@host', remote_port: '82', local_port: '9003' };

describe('createEditor(), over a reloader', () => {
  let dir: string;
  let file: string;
  let clock: FakeClock;
  let events: DaemonEvent[];
  let applied: string[][];
  let holdApply: Promise<void>;
  let reloader: Reloader;
  let editor: Editor;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-editor-'));
    file = join(dir, 'tunward.yaml');
    clock = createFakeClock();
    holdApply = Promise.resolve();
    start(`state_dir: ${dir}\ntunnels: # ours\n  # of the web\n  - ${line(web)}\n  - ${line(db)}\n`);
  });

  afterEach(() => rmSync(dir, { recursive: true }));

  const line = (tunnel: object) =>
    `{${Object.entries(tunnel)
      .map(([key, value]) => `${key}: ${value}`)
      .join(', ')}}`;
  const text = () => readFileSync(file, 'utf8');
  const copies = () => {
    const folder = join(dir, 'backups');
    return existsSync(folder) ? readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8')) : [];
  };
  const names = () => reloader.config().tunnels.map(({ name }) => name);
  const idOf = (name: string) => reloader.config().tunnels.find((spec) => spec.name === name)?.id ?? name;
  const look = () => reloader.look(new AbortController().signal);

  function start(content: string): void {
    writeFileSync(file, content);
    events = [];
    applied = [];
    reloader = createReloader({
      source: { file, text: content },
      config: parseSource({ file, text: content }, { env }),
      ...{ env, cwd: '/', clock },
      publish: (event) => events.push(event),
      apply: (tunnels) => {
        applied.push(tunnels.map(({ name }) => name));
        return holdApply;
      },
    });
    editor = createEditor(reloader);
  }

  function hold(): () => void {
    let finish: () => void = () => undefined;
    holdApply = new Promise((resolve) => {
      finish = resolve;
    });
    return finish;
  }

  async function refused(edit: Promise<unknown>): Promise<TunwardError> {
    const error: unknown = await edit.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (isTunwardError(error)) return error;
    throw error ?? new Error('It was not refused');
  }

  async function expectRefused(edit: Promise<unknown>, code: string): Promise<TunwardError> {
    const before = text();
    const [heard, kept] = [events.length, copies().length];
    const error = await refused(edit);
    expect(error.code, error.message).to.equal(code);
    expect([text(), events.length, copies().length]).to.deep.equal([before, heard, kept]);
    return error;
  }

  it('writes a new tunnel into the file and takes it; the watch sees no news in that', async () => {
    const before = text();
    const { id, etag, changes, settled } = await editor.add(mail);
    expect(text()).to.equal(`${before}  - ${line(mail)}\n`);
    expect(copies()).to.deep.equal([before]);
    expect(changes).to.deep.equal({ added: [{ id, name: 'mail' }], removed: [], changed: [] });
    expect([id, settled]).to.deep.equal([idOf('mail'), true]);
    await look();
    expect([applied, events.map(({ type }) => type)]).to.deep.equal([[['web', 'db', 'mail']], ['config.loaded']]);
    expect((await editor.read()).etag).to.equal(etag);
  });

  it('finds a tunnel by its id, whatever stands above it by now', async () => {
    writeFileSync(file, text().replace('tunnels: # ours\n', `tunnels: # ours\n  - ${line(mail)}\n`));
    const { id, changes } = await editor.replace(idOf('db'), { ...db, name: 'base' });
    expect([names(), id]).to.deep.equal([['mail', 'web', 'base'], idOf('base')]);
    expect(changes.added.map(({ name }) => name)).to.deep.equal(['mail', 'base']);
    await editor.remove(idOf('web'));
    expect(text()).to.equal(
      `state_dir: ${dir}\ntunnels: # ours\n  - ${line(mail)}\n  - ${line({ ...db, name: 'base' })}\n`,
    );
  });

  it('shows the file and its tunnels as they are written, with their ids', async () => {
    const { tunnels, warnings, ...rest } = await editor.read();
    expect(tunnels).to.deep.equal([
      { ...web, id: idOf('web') },
      { ...db, id: idOf('db') },
    ]);
    expect(rest).to.deep.equal({ file, text: text(), etag: rest.etag });
    expect([rest.etag.length, warnings]).to.deep.equal([64, []]);
    writeFileSync(file, 'tunnels: [{name: x, remote_host: h, remote_port: 1, local_port: 99999}]');
    const wrong = await editor.read();
    expect(wrong.warnings.join()).to.contain('tunnels[0].local_port: expected a port from 1 to 65535, found 99999');
    expect([wrong.tunnels, wrong.text]).to.deep.equal([[], text()]);
  });

  it('says of a tunnel that is wrong where and why, and changes nothing', async () => {
    const problemsOf = (error: TunwardError) =>
      isTunwardError(error, 'ERR_CONFIG_INVALID')
        ? error.info.problems.map((one) => `${one.path}: ${one.message}`)
        : [];
    const wrong = { ...mail, remote_port: 99_999, colour: 'red' };
    expect(problemsOf(await expectRefused(editor.add(wrong), 'ERR_CONFIG_INVALID'))).to.deep.equal([
      'tunnels[2].remote_port: expected a port from 1 to 65535, found 99999',
      "tunnels[2].colour: expected one of name, remote_host, remote_port, local_port, direction, interactive, groups, enabled, engine, ssh_config, identity_file, ssh_options, jump, takeover, backoff, start_timeout_ms, restart_timeout_ms, auth_retry, share, seamless, drain_ms, connect_wait_ms, check, found 'colour'",
    ]);
    const twin = await expectRefused(editor.replace(idOf('db'), { ...db, local_port: 9001 }), 'ERR_CONFIG_INVALID');
    expect(problemsOf(twin).join()).to.match(/^tunnels\[1\]\.local_port: .*web/);
  });

  it('forgives a new tunnel nothing, also among those of an ancestor', async () => {
    start(`tunnels:\n  - ${line(web)}\n  - {name: half}\n`);
    expect(names()).to.deep.equal(['web']);
    const { remote_port: _, ...half } = mail;
    const error = await expectRefused(editor.add(half), 'ERR_CONFIG_INVALID');
    expect(error.message).to.contain('tunnels[2].remote_port: expected a port');
    await expectRefused(editor.add({ ...mail, direction: 'up' }), 'ERR_CONFIG_INVALID');
  });

  it('edits nothing on top of what is wrong, and says so', async () => {
    writeFileSync(file, `${text()}  - {name: x}\nlog_dir: 7\n`);
    const error = await expectRefused(editor.add(mail), 'ERR_CONFIG_INVALID');
    expect(error.message).to.contain(`${file} is wrong as it is, so that nothing was written: mend it first\n`);
    rmSync(file);
    expect((await refused(editor.add(mail))).code).to.equal('ERR_CONFIG_INVALID');
  });

  it('knows no other ids, and does not choose between two', async () => {
    await expectRefused(editor.remove('0'.repeat(32)), 'ERR_TUNNEL_UNKNOWN');
    await expectRefused(editor.add(web), 'ERR_TUNNEL_CONFLICT');
    await expectRefused(editor.replace(idOf('web'), db), 'ERR_TUNNEL_CONFLICT');
    const double = line({ ...web, enabled: false });
    writeFileSync(file, `${text()}  - ${double}\n`);
    const error = await expectRefused(editor.remove(idOf('web')), 'ERR_TUNNEL_AMBIGUOUS');
    expect(error.message).to.contain('is tunnels[0] and tunnels[2] of the configuration file');
  });

  it('writes for nobody who has read another text', async () => {
    const { etag } = await editor.read();
    const first = await editor.add(mail, { ifMatch: etag });
    const error = await expectRefused(editor.remove(idOf('db'), { ifMatch: etag }), 'ERR_CONFIG_CHANGED');
    expect(error.info).to.deep.equal({ etag: first.etag, ifMatch: etag });
    await editor.remove(idOf('db'), { ifMatch: first.etag });
    expect(names()).to.deep.equal(['web', 'mail']);
  });

  it('loses nothing of many who write at once', async () => {
    const many = Array.from({ length: 30 }, (_, n) => ({ ...mail, name: `t${n}`, local_port: 9100 + n }));
    await Promise.all([...many.map((tunnel) => editor.add(tunnel)), editor.remove(idOf('db'))]);
    expect(names()).to.have.members(['web', ...many.map(({ name }) => name)]);
    expect(parseSource({ file, text: text() }, { env }).tunnels).to.have.length(31);
    expect(copies()).to.have.length(10);
  });

  it('takes one of two who have read the same', async () => {
    const { etag } = await editor.read();
    const edits = [editor.add(mail, { ifMatch: etag }), editor.remove(idOf('db'), { ifMatch: etag })];
    const ends = await Promise.allSettled(edits);
    expect(ends.map(({ status }) => status)).to.deep.equal(['fulfilled', 'rejected']);
    expect(names()).to.deep.equal(['web', 'db', 'mail']);
  });

  it('changes nothing when nothing is to be changed', async () => {
    const { changes } = await editor.replace(idOf('db'), { ...db, local_port: 9002 });
    expect([changes, copies(), events]).to.deep.equal([{ added: [], removed: [], changed: [] }, [], []]);
  });

  it('is not undone by a look that has read the file before it', async () => {
    const finish = hold();
    const first = editor.add(mail);
    expect(await until(() => applied.length === 1, { timeoutMs: 5000 })).to.equal(true);
    // Somebody edits by hand; the look reads that, and waits for its turn behind another edit.
    writeFileSync(file, `# by hand\n${text()}`);
    const second = editor.add({ ...mail, name: 'late', local_port: 9004 });
    const looking = look();
    expect(await until(() => applied.length > 1, { timeoutMs: 50 })).to.equal(undefined);
    finish();
    await Promise.all([first, second, looking]);
    expect(names()).to.deep.equal(['web', 'db', 'mail', 'late']);
    expect(applied).to.have.length(2);
    expect(text()).to.match(/^# by hand\n/);
  });

  it('answers in time when a tunnel does not go down, and lets nobody wait for ever for a turn', async () => {
    const finish = hold();
    const removing = editor.remove(idOf('db'));
    expect(await until(() => applied.length === 1, { timeoutMs: 5000 })).to.equal(true);
    await clock.advance(8000);
    expect((await removing).settled).to.equal(false);
    const waiting = refused(editor.add(mail));
    expect(await until(() => clock.sleepers() > 0, { timeoutMs: 5000 })).to.equal(true);
    await clock.advance(8000);
    expect((await waiting).code).to.equal('ERR_DAEMON_BUSY');
    finish();
    await editor.add({ ...mail, name: 'next' });
    expect(names(), 'what was given up is not done later').to.deep.equal(['web', 'next']);
    expect(clock.sleepers()).to.equal(0);
  });

  it('says that it was written, also when the tunnels cannot follow any more', async () => {
    holdApply = Promise.reject(new Error('The supervisor is closed'));
    const { settled, etag } = await editor.add(mail);
    expect([settled, etag, text().includes('mail')]).to.deep.equal([false, (await editor.read()).etag, true]);
  });

  it('says what became of a file that cannot be written', async () => {
    chmodSync(file, 0o444);
    await expectRefused(editor.add(mail), 'ERR_CONFIG_UNWRITABLE');
    expect(names()).to.deep.equal(['web', 'db']);
  });

  describe('reload() and validate()', () => {
    it('say what has come of a file, or what is wrong with it, also by an event', async () => {
      writeFileSync(file, `${text()}  - ${line(mail)}\n`);
      expect((await reloader.reload()).changes.added.map(({ name }) => name)).to.deep.equal(['mail']);
      writeFileSync(file, 'tunnels: 7\n');
      expect((await refused(reloader.reload())).code).to.equal('ERR_CONFIG_INVALID');
      expect(events.map(({ type }) => type)).to.deep.equal(['config.loaded', 'config.rejected']);
    });

    it('say what would become of a text', () => {
      const { changes, ...rest } = reloader.validate(`tunnels: [${line(web)}]`);
      expect(rest).to.deep.equal({ valid: true, problems: [], warnings: [] });
      expect(changes?.removed.map(({ name }) => name)).to.deep.equal(['db']);
      const wrong = reloader.validate('tunnels: 7');
      expect([wrong.valid, wrong.changes, wrong.problems[0]?.path]).to.deep.equal([false, null, 'tunnels']);
      expect([names(), events]).to.deep.equal([['web', 'db'], []]);
    });
  });
});
