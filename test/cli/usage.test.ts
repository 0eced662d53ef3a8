import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { repoRoot } from '../support/paths.js';
import { createReaper } from '../support/reaper.js';
import { tunward } from './run.js';

describe('tunward: the command line', () => {
  const reaper = createReaper();
  const run = (...args: string[]) => tunward(reaper, args);
  afterEach(() => reaper.end());

  describe('--help', () => {
    it('begins with three examples, then the commands in groups', async () => {
      const { code, stdout, stderr } = await run('--help');
      expect(code).to.equal(0);
      expect(stderr).to.equal('');
      const lines = stdout.split('\n');
      expect(lines[0]).to.equal('Examples:');
      expect(lines.slice(1, 4).every((line) => line.startsWith('  tunward '))).to.equal(true);
      const groups = lines.filter((line) => /^\S.*:$/.test(line));
      expect(groups).to.deep.equal([
        ...['Examples:', 'Options:', 'Daemon and tunnels:', 'Configuration:', 'Ports and processes:', 'Other:'],
      ]);
    });

    it('names every command', async () => {
      const { stdout } = await run('--help');
      const named = [...stdout.matchAll(/^ {2}([a-z]+)(?:\|[a-z]+)?(?: |$)/gm)].map(([, name]) => name);
      const expected =
        'up down health events init validate config reload doctor ls start stop restart auth logs open add rm who free wait ps tree kill demo completion help'.split(
          ' ',
        );
      expect(named.filter((name) => name !== 'tunward')).to.have.members(expected);
      expect(stdout).to.contain('ls|status');
    });

    it('is there for each command, with an example first', async () => {
      const { code, stdout } = await run('free', '--help');
      expect(code).to.equal(0);
      expect(stdout).to.match(/^Examples:\n {2}tunward free /);
      for (const option of ['--dry-run', '--tree', '--timeout <ms>', '--json', '--no-color']) {
        expect(stdout).to.contain(option);
      }
    });
  });

  it('shows the version of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'));
    expect(await run('--version')).to.deep.equal({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  it('says where to read on when nothing near is known', async () => {
    expect((await run('free')).stderr).to.match(
      /missing required argument.*\ntunward free --help says what may stand there\n$/s,
    );
    expect((await run('config', 'frob')).stderr).to.contain('tunward config --help says');
    expect((await run('frobnicate')).stderr).to.contain('\ntunward --help says');
    expect((await run('restart', 'x', '--froce')).stderr)
      .to.contain('Did you mean --force?')
      .and.not.contain('says what');
  });

  it('fits a terminal of 80 columns, a command in a line each', async () => {
    const { stdout } = await run('--help');
    const commands = stdout.split('\n').filter((line) => /^ {2}[a-z]/.test(line));
    expect(stdout.split('\n').filter((line) => /^ {10,}\S/.test(line))).to.deep.equal([]);
    expect(commands.length).to.be.greaterThan(25);
  });

  it('suggests the command that was meant', async () => {
    const { code, stdout, stderr } = await run('restrat', 'web');
    expect(code).to.equal(2);
    expect(stdout).to.equal('');
    expect(stderr).to.contain("unknown command 'restrat'").and.contain('Did you mean restart?');
  });

  describe('wrong usage ends with 2, and does nothing', () => {
    const wrong: Record<string, string[]> = {
      'no command': [],
      'an unknown option': ['who', '80', '--frce'],
      'a missing argument': ['who'],
      'one argument too many': ['who', '80', '81'],
      'a port that is no number': ['who', 'http'],
      'a port out of range': ['free', '70000'],
      'port 0': ['who', '0'],
      'a host by name': ['free', 'example.com:80'],
      'an address in the wrong brackets': ['who', '[127.0.0.1]:80'],
      'a pid that is none': ['kill', '1.5'],
      'pid 0': ['kill', '0'],
      'a group in place of a pid': ['tree', '-1'],
      'a timeout that is no number': ['free', '80', '--timeout', 'soon'],
      'a wait for nothing': ['wait', '80'],
      'a wait for both': ['wait', '80', '--free', '--listening'],
      'a restart of nothing': ['restart'],
      'a restart of all and one': ['restart', 'web', '--all'],
      'a stop of all and a group': ['stop', '--all', '--group', 'web'],
      'a start of a group and one': ['start', 'web', '--group', 'web'],
      'a jump host that ssh would take for an option': ['open', '-L', '8080:db:1', '-J', 'a,-oProxyCommand=x', 'host'],
      'an open without a forward': ['open', 'user@host'],
      'an open with two forwards': ['open', '-L', '1:a:2', '-R', '3:b:4', 'user@host'],
      'a forward that is none': ['open', '-L', '8080', 'user@host'],
      'a forward to port 0': ['open', '-L', '8080:db:0', 'user@host'],
      'an option of ssh that a tunnel may not set': ['open', '-L', '8080:db:1', '-o', 'ProxyCommand=x', 'user@host'],
      'a destination that ssh would take for an option': ['open', '-L', '8080:db:1', '--', '-oProxyCommand=x'],
      'no lines of a log': ['logs', '-n', '0'],
    };
    for (const [what, args] of Object.entries(wrong)) {
      it(what, async () => {
        const { code, stdout, stderr } = await run(...args);
        expect(code, stderr).to.equal(2);
        expect(stdout).to.equal('');
        expect(stderr).to.not.equal('');
      });
    }
  });

  it('prints the problem of a wrong usage as JSON too', async () => {
    const { code, stdout, stderr } = await run('who', 'http', '--json');
    expect(code).to.equal(2);
    const { error } = JSON.parse(stdout);
    expect(error).to.include({ code: 'ERR_BAD_REQUEST', status: 400 });
    expect(error.detail).to.contain("found 'http'");
    expect(stderr).to.contain("found 'http'");
  });

  it('does not load the libraries of the daemon for a question about a port', async () => {
    const loaded = await modulesOf('who', '1');
    expect(loaded.some((url) => url.endsWith('lib/cli/ports.js'))).to.equal(true);
    expect(loaded.filter((url) => /node_modules\/(zod|hono|@hono|yaml)\/|lib\/daemon\//.test(url))).to.deep.equal([]);
  });

  /** Every file that the command loads, as V8's coverage lists them. */
  async function modulesOf(...args: string[]): Promise<string[]> {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-coverage-'));
    try {
      await tunward(reaper, args, { env: { NODE_V8_COVERAGE: dir } });
      const reports = readdirSync(dir).map((name) => JSON.parse(readFileSync(join(dir, name), 'utf8')));
      return reports.flatMap(({ result }) => result.map(({ url }: { url: string }) => url));
    } finally {
      rmSync(dir, { recursive: true });
    }
  }
});
