import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { findQuirks } from '#lib/daemon/ancestor.js';
import { until } from '#lib/time.js';
import { need } from '../support/need.js';
import { createReaper } from '../support/reaper.js';
import { runOnTerminal } from '../support/terminal.js';
import { mainFile, tunward, tunwardJson } from './run.js';

/** Two tunnels with the ids that the ancestor's own parser gives them, and a comment on every level. */
const ancestors = `# my tunnels
tunnels:
  # the first
  - remote_host: "user@remote-host1"
    remote_port: "8000"
    local_port: "8001"
    direction: remote_to_local

  - name: jumphost-tunnel
    remote_host: user@jumphost.example.com
    remote_port: 22
    local_port: 2222
    interactive: true
# the end
`;
const ids = ['76692f8a1adb8d8bee5f3b29e1b42602', 'c65f58326bea843a8439fbe9b8e887b2'];

describe('tunward init', () => {
  const reaper = createReaper();
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-init-'));
    file = join(dir, 'tunward.yaml');
  });
  afterEach(async () => {
    await reaper.end();
    rmSync(dir, { recursive: true });
  });
  const options = (env: Record<string, string> = {}) => ({ cwd: dir, env: { HOME: dir, ...env } });
  const run = (args: string[], env?: Record<string, string>) => tunward(reaper, args, options(env));
  const json = (args: string[], env?: Record<string, string>) => tunwardJson(reaper, args, options(env));
  const from = (text: string) => {
    const source = join(dir, 'config.yaml');
    writeFileSync(source, text);
    return source;
  };

  it('writes a file for this user alone that validate accepts as it is, and says what to do next', async () => {
    const { code, stdout, stderr } = await run(['init']);
    expect(code, stderr).to.equal(0);
    expect(stdout).to.equal(`✔ ${file} is written, with examples to take the # away from\n`);
    expect(stderr).to.match(/^Next: .*tunward validate, and tunward up -d starts its tunnels\n$/);
    expect(statSync(file).mode & 0o777).to.equal(0o600);
    expect(await json(['validate'])).to.deep.include({ file, ok: true, tunnels: [], warnings: [] });
  });

  it('has only examples that are right when the # before them is taken away', async () => {
    await run(['init']);
    const text = readFileSync(file, 'utf8').replace(/^#(?= {2,}|[a-z])/gm, '');
    writeFileSync(file, text);
    const { ok, tunnels } = await json(['validate']);
    expect(ok).to.equal(true);
    expect(tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(['database', 'web']);
    for (const key of ['takeover', 'backoff', 'log_dir', 'api', 'reload'])
      expect(text).to.match(new RegExp(`^${key}:`, 'm'));
  });

  it('makes the folder of the file that -c names, and names the file where it is not found by itself', async () => {
    const other = join(dir, 'a b/c/tunnels.yaml');
    const { code, stderr } = await run(['init', '-c', other]);
    expect(code).to.equal(0);
    expect(stderr).to.contain(`tunward up -d -c '${other}'`);
    expect(await json(['validate', '-c', other])).to.include({ ok: true });
  });

  describe('and a file that is there', () => {
    it('leaves it alone', async () => {
      writeFileSync(file, 'mine');
      const { code, stderr } = await run(['init', '--yes']);
      expect(code).to.equal(2);
      expect(stderr).to.contain('--force replaces it');
      expect(readFileSync(file, 'utf8')).to.equal('mine');
    });

    it('replaces it with --force when somebody agrees, and keeps each old one', async () => {
      writeFileSync(file, 'mine');
      expect((await run(['init', '--force'])).stderr)
        .to.contain(`replace ${file}`)
        .and.contain('add --yes');
      expect(readFileSync(file, 'utf8')).to.equal('mine');
      expect((await json(['init', '--force', '--yes'])).backup).to.equal(`${file}.bak`);
      expect(readFileSync(`${file}.bak`, 'utf8')).to.equal('mine');
      expect((await json(['init', '--force', '--yes'])).backup).to.equal(`${file}.bak2`);
      expect(readFileSync(`${file}.bak`, 'utf8')).to.equal('mine');
    });

    it('writes through no link, also one that leads nowhere', async () => {
      symlinkSync(join(dir, 'elsewhere'), file);
      expect((await run(['init'])).code).to.equal(2);
      expect(() => statSync(join(dir, 'elsewhere'))).to.throw();
    });

    it('says it when the place cannot be written to', async () => {
      writeFileSync(join(dir, 'plain'), '');
      const { code, stderr } = await run(['init', '-c', join(dir, 'plain/tunward.yaml')]);
      expect(code).to.equal(5);
      expect(stderr).to.match(/^error: Cannot write .*E\w+; name another place with -c\n$/);
    });
  });

  describe('--from', () => {
    it('takes over an ancestor’s tunnels with their ids, every comment and every line of it', async () => {
      const source = from(ancestors);
      const result = await json(['init', '--from', source]);
      expect(result).to.deep.equal({
        file,
        from: source,
        backup: null,
        tunnels: [
          { id: ids[0], name: 'unnamed' },
          { id: ids[1], name: 'jumphost-tunnel' },
        ],
        notes: [],
      });
      const text = readFileSync(file, 'utf8');
      expect(text.endsWith(ancestors)).to.equal(true);
      expect(text).to.match(/^#takeover: /m);
      const { tunnels } = await json(['validate']);
      expect(tunnels.map(({ id }: { id: string }) => id)).to.deep.equal(ids);
      expect(readFileSync(source, 'utf8')).to.equal(ancestors);
    });

    for (const [what, text] of Object.entries({
      'the mark of a document': `# before\n---\n${ancestors}`,
      'a byte order mark': `\ufeff${ancestors}`,
      'the line ends of Windows': ancestors.replaceAll('\n', '\r\n'),
      'nothing in it': '',
    })) {
      it(`takes one with ${what}, also with keys of tunward's own`, async () => {
        await run(['init', '--from', from(text)]);
        const written = readFileSync(file, 'utf8').replace(/^#(?=stop_timeout_ms)/m, '');
        writeFileSync(file, written);
        const { ok, tunnels } = await json(['validate']);
        expect(ok).to.equal(true);
        expect(tunnels.map(({ id }: { id: string }) => id)).to.deep.equal(text === '' ? [] : ids);
      });
    }

    it('notes what the ancestor reads otherwise, with both ids', async () => {
      const source = from(
        "tunnels:\n  - name: 'web'\n    remote_host: bastion # an alias\n    remote_port: 80\n    local_port: 8080\n",
      );
      const { notes } = await json(['init', '--from', source]);
      expect(notes).to.have.length(2);
      expect(notes[0]).to.match(
        /config\.yaml:2: name: .* takes ''web'' for the value, and YAML has 'web'; its id there was [0-9a-f]{8}…, here/,
      );
      expect(notes[1]).to.match(/config\.yaml:3: remote_host: .* takes 'bastion # an alias' for the value/);
    });

    it('writes down what the ancestor’s environment says, so that the tunnels go the same way', async () => {
      mkdirSync(join(dir, '.ssh'));
      writeFileSync(join(dir, '.ssh/config'), '');
      const source = from(ancestors);
      const env = {
        AUTOSSH_CONFIG_FILE: source,
        TUNNEL_DIRECTION_MODE: 'ssh-standard',
        SSH_CONFIG_DIR: `${dir}/.ssh`,
        API_PORT: '8080',
        API_KEY: 'secret-secret',
      };
      const before = await json(['validate', '-c', source], env);
      const { notes } = await json(['init', '--from', source], env);
      expect(notes).to.have.length(1);
      expect(notes[0]).to.contain('API_KEY').and.not.contain('secret-secret');
      const text = readFileSync(file, 'utf8');
      expect(text).to.match(/^direction_mode: ssh-standard$/m);
      expect(text).to.match(/^ssh_config: .*\.ssh\/config"$/m);
      expect(text).to.match(/^api: \{listen: "127\.0\.0\.1:8080"\}$/m);
      expect((await json(['validate'])).tunnels).to.deep.equal(before.tunnels);
    });

    it('takes what the ancestor skips and guesses, but not beside keys that make tunward strict', async () => {
      const odd = `${ancestors}  - name: half\n    remote_host: x\n`;
      expect((await json(['init', '--from', from(odd)])).tunnels).to.have.length(2);
      rmSync(file);
      const source = from(odd);
      const env = { AUTOSSH_CONFIG_FILE: source, TUNNEL_DIRECTION_MODE: 'ssh-standard' };
      const { code, stderr } = await run(['init', '--from', source], env);
      expect(code).to.equal(78);
      expect(stderr).to.match(/config\.yaml:15:\d+: tunnels\[2\]: expected remote_host, remote_port and local_port/);
      expect(() => statSync(file)).to.throw();
    });

    it('writes nothing of a file that is wrong, and says where', async () => {
      const { code, stderr } = await run([
        'init',
        '--from',
        from('tunnels:\n  - {name: x, remote_port: -1}\n    local: 3\n'),
      ]);
      expect(code).to.equal(78);
      expect(stderr).to.match(/config\.yaml:\d+:\d+: /);
      expect(() => statSync(file)).to.throw();
    });
  });

  describe('an ancestor’s file that nobody named', () => {
    it('is pointed to where nobody can be asked', async () => {
      const source = from(ancestors);
      const { code, stderr } = await run(['init'], { AUTOSSH_CONFIG_FILE: source });
      expect(code).to.equal(0);
      expect(stderr).to.contain(`tunward init --from ${source} takes its tunnels over`);
      // $AUTOSSH_CONFIG_FILE would be found first.
      expect(stderr).to.contain(`tunward up -d -c ${file}`);
      expect((await json(['validate', '-c', file])).tunnels).to.deep.equal([]);
    });

    it('is offered on a terminal', async function () {
      need(this, 'pty');
      const source = from(ancestors);
      const command = [process.execPath, mainFile, 'init'];
      const env = { HOME: dir, AUTOSSH_CONFIG_FILE: source };
      const terminal = runOnTerminal(reaper, command, { cwd: dir, columns: 200, env });
      const isAsked = () => terminal.bytes().includes(`Take over the tunnels of ${source}? [y/N]`);
      expect(await until(isAsked, { timeoutMs: 10_000, everyMs: 10 }), terminal.bytes()).to.equal(true);
      terminal.type('y\r');
      expect(await terminal.ended).to.equal(0);
      expect((await json(['validate', '-c', file])).tunnels).to.have.length(2);
    });
  });
});

describe('findQuirks()', () => {
  it('finds none where both read the same', () => {
    expect(findQuirks(ancestors)).to.deep.equal([]);
    expect(findQuirks('tunnels: [{name: a}]')).to.deep.equal([]);
    expect(findQuirks(': no {yaml')).to.deep.equal([]);
  });

  it('gives the id that the ancestor makes of what it reads', () => {
    const text = 'tunnels:\n- remote_host: user@remote-host1 # one\n  remote_port: 8000\n  local_port: 8001\n';
    const [quirk] = findQuirks(text);
    expect(quirk).to.deep.include({
      line: 2,
      key: 'remote_host',
      theirs: 'user@remote-host1 # one',
      ours: 'user@remote-host1',
    });
    expect(quirk?.ourId).to.equal(ids[0]);
    expect(quirk?.theirId)
      .to.match(/^[0-9a-f]{32}$/)
      .and.not.equal(ids[0]);
  });
});
