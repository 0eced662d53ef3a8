import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseSource } from '#lib/daemon/config.js';
import type { DaemonEvent } from '#lib/daemon/events.js';
import { createReloader, type Reloader } from '#lib/daemon/reload.js';
import { until } from '#lib/time.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeClock, type FakeClock } from '../support/fakeclock.js';

const env = { HOME: '/home/u' };

/** A file with these tunnels, `name` or `name:local port` or `name:local port:engine`, and lines above them. */
function yaml(tunnels: readonly string[], ...above: readonly string[]): string {
  const items = tunnels.map((text) => {
    const [name, port = '9001', engine = 'auto'] = text.split(':');
    return `  - {name: ${name}, remote_host: me@host, remote_port: 80, local_port: ${port}, engine: ${engine}}\n`;
  });
  return `${above.map((line) => `${line}\n`).join('')}tunnels:\n${items.join('')}`;
}

describe('createReloader()', () => {
  let dir: string;
  let file: string;
  let clock: FakeClock;
  let events: DaemonEvent[];
  let applied: string[][];
  let holdApply: Promise<void>;
  let reloader: Reloader;
  const { signal } = new AbortController();

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-reload-'));
    file = join(dir, 'tunward.yaml');
    clock = createFakeClock();
    events = [];
    applied = [];
    holdApply = Promise.resolve();
    start(yaml(['web', 'db:9002']));
  });

  afterEach(() => rmSync(dir, { recursive: true }));

  function start(text: string): void {
    writeFileSync(file, text);
    reloader = createReloader({
      source: { file, text },
      config: parseSource({ file, text }, { env }),
      env,
      cwd: '/',
      clock,
      publish: (event) => events.push(event),
      apply: (tunnels: readonly TunnelSpec[]) => {
        applied.push(tunnels.map(({ name, localPort }) => `${name}:${localPort}`));
        return holdApply;
      },
    });
  }

  /** Looks, and lets whatever time it takes go by; `meanwhile` happens when it has begun to doubt. */
  async function look(meanwhile: () => void = () => undefined): Promise<number> {
    const began = clock.now();
    let isOver = false;
    let isDoubting = false;
    const looking = reloader.look(signal).finally(() => {
      isOver = true;
    });
    const over = async () => {
      if (clock.sleepers() > 0 && !isDoubting) meanwhile();
      isDoubting ||= clock.sleepers() > 0;
      // Time goes by for who waits for it alone: reading the file takes none.
      if (clock.sleepers() > 0) await clock.advance(100);
      return isOver;
    };
    await until(over, { timeoutMs: 5000, everyMs: 1 });
    await looking;
    return clock.now() - began;
  }

  const types = () => events.map(({ type }) => type);
  const messages = () => events.flatMap((event) => (event.type === 'config.rejected' ? [event.message] : []));
  const changes = () =>
    events.flatMap((event) => {
      if (event.type !== 'config.loaded' || event.changes === null) return [];
      const names = ({ added, removed, changed }: typeof event.changes) => [added, removed, changed];
      return [names(event.changes).map((tunnels) => tunnels.map(({ name }) => name).join())];
    });

  it('has nothing to say of a file that is as it was at the start', async () => {
    await look();
    writeFileSync(file, yaml(['web', 'db:9002']));
    await look();
    expect(events).to.deep.equal([]);
  });

  it('takes what is new at once, and once, and says what became of the tunnels', async () => {
    writeFileSync(file, yaml(['web', 'db:9002:autossh', 'mail:9003']));
    expect(await look()).to.equal(0);
    await look();
    expect(applied).to.deep.equal([['web:9001', 'db:9002', 'mail:9003']]);
    expect(changes()).to.deep.equal([['mail', '', 'db']]);
    expect(reloader.config().tunnels).to.have.length(3);
  });

  it('tells tunnels from each other by id, whatever they are called', async () => {
    start(yaml(['web:9001', 'web:9002']));
    writeFileSync(file, yaml(['web:9002:autossh', 'web:9001']));
    await look();
    const [event] = events;
    if (event?.type !== 'config.loaded') throw new Error(`${event?.type}`);
    expect(event.changes?.changed.map(({ id }) => id)).to.deep.equal([reloader.config().tunnels[0]?.id]);
    expect([event.changes?.added, event.changes?.removed]).to.deep.equal([[], []]);
  });

  it('tells of a tunnel that is not enabled any more, or labelled anew', async () => {
    const tunnels = 'tunnels:\n  - {remote_host: me@host, remote_port: 80, local_port: 9001';
    start(`${tunnels}}\n`);
    for (const more of ['enabled: false', 'enabled: false, groups: [eu]']) {
      writeFileSync(file, `${tunnels}, ${more}}\n`);
      await look();
    }
    expect(changes()).to.deep.equal([
      ['', '', 'unnamed'],
      ['', '', 'unnamed'],
    ]);
  });

  describe('a file that may be half written', () => {
    const less: Record<string, string> = {
      'that is empty': '',
      'that has lost a tunnel': yaml(['web']),
      'that is wrong': 'tunnels: [\n',
      'that ends within a line': yaml(['web', 'db:9002', 'mail:90']).slice(0, -1),
    };
    for (const [what, text] of Object.entries(less)) {
      it(`changes nothing while it is being written: one ${what}`, async () => {
        writeFileSync(file, text);
        await look(() => writeFileSync(file, yaml(['web', 'db:9002', 'mail:9003'])));
        expect(applied).to.deep.equal([['web:9001', 'db:9002', 'mail:9003']]);
        expect(types()).to.deep.equal(['config.loaded']);
      });
    }

    it('is taken for what it is when it is the same 1 s later', async () => {
      writeFileSync(file, yaml(['web']));
      expect(await look()).to.equal(1000);
      expect(changes()).to.deep.equal([['', 'db', '']]);
      writeFileSync(file, '');
      await look();
      expect(applied.at(-1)).to.deep.equal([]);
    });

    it('is looked at again as long as it changes', async () => {
      writeFileSync(file, '');
      await look(() => writeFileSync(file, yaml(['web'])));
      expect(applied).to.deep.equal([['web:9001']]);
      expect(clock.now()).to.equal(2000);
    });
  });

  it('says once what is wrong, and changes nothing', async () => {
    writeFileSync(file, yaml(['web:99999']));
    await look();
    await look();
    expect(messages()).to.have.length(1);
    expect(messages()[0]).to.match(/:2:\d+: tunnels\[0\]\.local_port: expected a port from 1 to 65535, found 99999$/);
    expect([applied, reloader.config().tunnels.length]).to.deep.equal([[], 2]);
  });

  it('keeps everything where the file is gone, says so once, and says that it is back', async () => {
    unlinkSync(file);
    await look();
    await look();
    expect(messages()).to.deep.equal([
      `${file}:1:1: expected a readable file, found nothing: create it, or name another with -c`,
    ]);
    writeFileSync(file, yaml(['web', 'db:9002']));
    await look();
    expect(changes()).to.deep.equal([['', '', '']]);
  });

  describe('reload()', () => {
    it('takes the file as it is, without a doubt, also when it is not new', async () => {
      writeFileSync(file, '');
      await reloader.reload();
      await reloader.reload();
      expect(clock.now()).to.equal(0);
      expect(changes()).to.deep.equal([
        ['', 'web,db', ''],
        ['', '', ''],
      ]);
    });

    it('is no news for the look that comes after it', async () => {
      writeFileSync(file, yaml(['web']));
      await look(() => void reloader.reload());
      expect(types()).to.deep.equal(['config.loaded']);
    });

    it('waits for the one before it, and the last word is the file’s last', async () => {
      const finish = hold();
      writeFileSync(file, yaml(['web']));
      const first = reloader.reload();
      expect(await until(() => applied.length === 1, { timeoutMs: 5000 })).to.equal(true);
      writeFileSync(file, yaml(['db:9002']));
      const second = reloader.reload();
      expect(await until(() => applied.length > 1, { timeoutMs: 100 })).to.equal(undefined);
      finish();
      await Promise.all([first, second]);
      expect(applied).to.deep.equal([['web:9001'], ['db:9002']]);
      expect(changes().at(-1)).to.deep.equal(['db', 'web', '']);
    });

    it('is no news for a look that waits with it for the one before', async () => {
      const finish = hold();
      const first = reloader.reload();
      expect(await until(() => applied.length === 1, { timeoutMs: 5000 })).to.equal(true);
      writeFileSync(file, yaml(['web', 'db:9002', 'mail:9003']));
      const both = [reloader.reload(), reloader.look(signal)];
      expect(await until(() => applied.length > 1, { timeoutMs: 100 })).to.equal(undefined);
      finish();
      await Promise.all([first, ...both]);
      expect(applied).to.have.length(2);
    });

    function hold(): () => void {
      let finish: () => void = () => undefined;
      holdApply = new Promise((resolve) => {
        finish = resolve;
      });
      return finish;
    }
  });

  it('takes another one who is told at once, and warns of a header that cannot be taken', async () => {
    const header = join(dir, 'header');
    writeFileSync(file, yaml(['web', 'db:9002'], `on_needs_auth: {url: "http://h/", header_file: ${header}}`));
    await look();
    expect(reloader.config().onNeedsAuth).to.deep.equal({ url: 'http://h/', headerFile: header });
    const [event] = events;
    expect(event?.type === 'config.loaded' && event.warnings).to.deep.equal([
      `on_needs_auth: Cannot take a header from ${header}: expected a plain file of this user with one line, 'Authorization: …'`,
    ]);
    writeFileSync(header, 'Authorization: Bearer abc\n', { mode: 0o600 });
    writeFileSync(file, yaml(['web', 'db:9002'], `on_needs_auth: {url: "http://i/", header_file: ${header}}`));
    await look();
    expect(reloader.config().onNeedsAuth?.url).to.equal('http://i/');
    expect(events.map((each) => each.type === 'config.loaded' && each.warnings.length)).to.deep.equal([1, 0]);
  });

  it('names the keys that a running daemon cannot follow, and stays as it is there', async () => {
    const keys = ['log_dir: /l', 'state_dir: /s', 'api: {socket: /a, token_file: /t}', 'start: {per_host: 2}'];
    const before = reloader.config();
    writeFileSync(file, yaml(['web', 'db:9002'], ...keys, 'reload: signal', 'takeover: any'));
    await look();
    const [event] = events;
    if (event?.type !== 'config.loaded') throw new Error(`${event?.type}`);
    const named = ['log_dir', 'state_dir', 'api.socket', 'api.token_file', 'start', 'reload'];
    expect(event.warnings).to.deep.equal(
      named.map((key) => `${file}: ${key}: changed, and in force after a restart of the daemon`),
    );
    const { logDir, api, reload } = reloader.config();
    expect({ logDir, api, reload }).to.deep.equal({ logDir: before.logDir, api: before.api, reload: before.reload });
    expect(event.changes?.changed).to.have.length(2);
  });
});
