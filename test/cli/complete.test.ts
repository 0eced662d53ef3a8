import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { quoteValue, readLine } from '#lib/cli/shell-words.js';
import { until } from '#lib/time.js';
import { printable } from '#lib/wire.js';
import { type Need, need } from '../support/need.js';
import { createReaper } from '../support/reaper.js';
import { type OnTerminal, runOnTerminal } from '../support/terminal.js';
import { type FakeDaemon, startFakeDaemon, tunnelRecord } from './fake-daemon.js';
import { mainFile, tunward } from './run.js';

/** Names that a shell could take for something to do. */
const hostile = [
  'plain',
  'two words',
  'it\'s "quoted"',
  '$(touch executed)',
  '`touch executed`',
  'a; touch executed #',
  '!!',
  '~',
  '*',
  'back\\slash',
  '日本 語',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a shell's
  '${HOME}',
  "$'x\\n'",
  'host:9443=x',
  '<>|&(){}[]',
];

describe('completion', () => {
  const reaper = createReaper();
  let daemon: FakeDaemon;
  let dir: string;
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-completion-'));
    daemon = await startFakeDaemon();
    serve(['web', 'web-2', 'db']);
  });
  afterEach(async () => {
    await reaper.end();
    await daemon.close();
    rmSync(dir, { recursive: true });
  });

  function serve(names: readonly string[], on = daemon): void {
    const tunnels = names.map((name, at) =>
      tunnelRecord({
        id: `${at.toString(16).padStart(8, 'c')}${'0'.repeat(24)}`,
        name,
        groups: at > 0 ? ['staging'] : [],
      }),
    );
    on.routes.set('GET /v1/tunnels', () => ({ body: { tunnels } }));
  }

  describe('tunward __complete', () => {
    const env = () => ({ HOME: dir, TUNWARD_SOCKET: daemon.socket });
    /** The values, without what stands beside them. */
    async function values(...words: string[]): Promise<string[]> {
      const { code, stdout, stderr } = await tunward(reaper, ['__complete', '--', ...words], { cwd: dir, env: env() });
      expect([code, stderr]).to.deep.equal([0, '']);
      const [kind = '', ...lines] = stdout.trimEnd().split('\n');
      return kind === 'files' ? ['files'] : lines.map((line) => line.split('\t')[0] ?? '');
    }

    it('knows the commands, and not itself', async () => {
      const found = await values('');
      expect(found).to.include.members(['up', 'restart', 'free', 'completion', 'help']);
      expect(found).not.to.include('__complete');
    });

    it('knows for auth the tunnels that ask, of the daemon and of the file', async () => {
      const tunnels = [tunnelRecord(), tunnelRecord({ id: 'b'.repeat(32), name: 'office', interactive: true })];
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels } }));
      expect(await values('auth', '')).to.deep.equal(['office']);
      expect(await values('start', '')).to.deep.equal(['web', 'office']);
      daemon.routes.delete('GET /v1/tunnels');
      const asking = { name: 'lab', remote_host: 'me@lab', remote_port: 'lab:80', local_port: 8001, interactive: true };
      const other = { ...asking, name: 'other', local_port: 8002, interactive: false };
      writeFileSync(join(dir, 'tunward.yaml'), JSON.stringify({ tunnels: [asking, other] }));
      expect(await values('auth', '')).to.deep.equal(['lab']);
    });

    it('knows the options of a command and those of all', async () => {
      expect(await values('free', '--')).to.include.members(['--dry-run', '--respawner', '--json', '--yes', '--help']);
      expect(await values('free', '--')).not.to.include('--all');
    });

    it('knows the tunnels, and those that stand there already are no choice', async () => {
      expect(await values('restart', '')).to.deep.equal(['web', 'web-2', 'db']);
      expect(await values('stop', 'web', '--force', '')).to.deep.equal(['web-2', 'db']);
      expect(await values('logs', '-n', '20', '')).to.deep.equal(['web', 'web-2', 'db']);
    });

    it('gives an id where a name is not enough', async () => {
      serve(['unnamed', 'twice', 'twice', '-oProxyCommand=x', 'fine']);
      expect(await values('restart', '')).to.deep.equal(
        ['cccccccc', 'cccccccc', 'cccccccc', 'cccccccc', 'fine'].map((id, at) => (at < 4 ? `ccccccc${at}` : id)),
      );
    });

    it('knows the groups, and what an option is given', async () => {
      expect(await values('ls', '--group', '')).to.deep.equal(['staging']);
      expect(await values('ls', '--group=s')).to.deep.equal(['--group=staging']);
      expect(await values('open', '--engine', '')).to.deep.equal(['auto', 'ssh', 'autossh', 'embedded']);
      expect(await values('status', '')).to.deep.equal(['web', 'web-2', 'db']);
      expect(await values('up', '-c', '')).to.deep.equal(['files']);
      expect(await values('completion', '')).to.deep.equal(['bash', 'zsh', 'fish']);
    });

    it('knows the ports that are listened on', async () => {
      const server = net.createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => server.once('listening', resolve));
      try {
        const port = String((server.address() as AddressInfo).port);
        for (const command of ['who', 'free', 'wait']) expect(await values(command, '')).to.include(port);
        expect(await values('free', port, '')).not.to.include(port);
      } finally {
        server.close();
      }
    });

    it('asks the daemon that --socket names', async () => {
      const { stdout } = await tunward(reaper, ['__complete', '--', 'stop', '--socket', daemon.socket, ''], {
        cwd: dir,
      });
      expect(stdout).to.contain('web\tup, localhost:8000\n');
    });

    it('takes the configuration where no daemon answers, also where one only listens', async () => {
      const tunnels = ['name: from-file', 'remote_host: x', 'remote_port: 1', 'local_port: 2'].join(', ');
      writeFileSync(join(dir, 'tunward.yaml'), `tunnels: [{${tunnels}}]\n`);
      daemon.routes.set('GET /v1/tunnels', () => undefined);
      expect(await values('stop', '')).to.deep.equal(['from-file']);
      await daemon.close();
      expect(await values('stop', '')).to.deep.equal(['from-file']);
      daemon = await startFakeDaemon();
    });

    it('finds the file that -c names, also in the home folder', async () => {
      const tunnels = ['name: from-home', 'remote_host: x', 'remote_port: 1', 'local_port: 2'].join(', ');
      writeFileSync(join(dir, 'mine.yaml'), `api: {socket: ${dir}/none}\ntunnels: [{${tunnels}}]\n`);
      expect(await values('stop', '-c', '~/mine.yaml', '')).to.deep.equal(['from-home']);
    });

    it('says nothing at all where there is neither', async () => {
      const silent = { cwd: dir, env: { HOME: dir, TUNWARD_SOCKET: join(dir, 'none') } };
      const ended = await tunward(reaper, ['__complete', '--', 'stop', ''], silent);
      expect(ended).to.deep.equal({ code: 0, stdout: 'words\n', stderr: '' });
      writeFileSync(join(dir, 'tunward.yaml'), '{wrong');
      expect(await tunward(reaper, ['__complete', '--', 'stop', ''], silent)).to.deep.equal(ended);
    });

    it('leaves out what would be more than one line', async () => {
      serve(['a\nb', 'tab\tbed', 'esc\u001b[2J', 'fine']);
      expect(await values('stop', '')).to.deep.equal(['fine']);
    });
  });

  describe('the words of a line of bash', () => {
    const breaks = ' \t\n"\'><=;|&(:';

    it('are taken apart as bash does', () => {
      expect(readLine('tunward stop we', breaks)).to.deep.equal({
        before: ['tunward', 'stop'],
        last: { text: 'we', quote: '', kept: 0 },
      });
      expect(readLine('tunward stop a\\ b "c d" \'e"f\' ', breaks).before).to.deep.equal([
        'tunward',
        'stop',
        'a b',
        'c d',
        'e"f',
      ]);
      expect(readLine('x "a b', breaks).last).to.deep.equal({ text: 'a b', quote: '"', kept: 0 });
      expect(readLine('who 127.0.0.1:94', breaks).last).to.deep.equal({ text: '127.0.0.1:94', quote: '', kept: 10 });
      expect(readLine('ls --group=st', breaks).last).to.deep.equal({ text: '--group=st', quote: '', kept: 8 });
      expect(readLine('stop ""', breaks).last.text).to.equal('');
      expect(readLine('stop trailing\\', breaks).last.text).to.equal('trailing');
    });

    it('are quoted so that they are taken for what they are', () => {
      for (const value of hostile) {
        for (const quote of ['', '"', "'"] as const) {
          const typed = `tunward stop ${quote}${quoteValue(value, { text: '', quote, kept: 0 })}${quote} `;
          expect(readLine(typed, breaks).before.at(-1), typed).to.equal(value);
        }
      }
    });
  });

  it('quotes 2,000 names in each way so that a real bash reads them as they are', function () {
    need(this, 'bash');
    const words = [
      '$(touch x)',
      '`id`',
      '$IFS',
      '!!',
      "'",
      '"',
      '\\',
      ';',
      '|',
      '&',
      '>',
      '*',
      '~',
      '#',
      ' ',
      '-',
      '=',
      ':',
      'é',
      '日',
    ];
    const name = fc.oneof(
      fc.string(),
      fc.array(fc.constantFrom(...words), { minLength: 1, maxLength: 8 }).map((all) => all.join('')),
    );
    const names = fc
      .sample(name, 2000)
      .map(printable)
      .filter((each) => each !== '');
    const typed = names.flatMap((value) =>
      (['', '"', "'"] as const).map((quote) => `${quote}${quoteValue(value, { text: '', quote, kept: 0 })}${quote}`),
    );
    const script = typed.map((word) => `printf '%s\\0' ${word}\n`).join('');
    const stdout = execFileSync('bash', ['--norc'], { input: script, cwd: dir, encoding: 'utf8', maxBuffer: 2 ** 24 });
    expect(stdout.split('\0').slice(0, -1)).to.deep.equal(names.flatMap((value) => [value, value, value]));
    expect(readdirSync(dir), 'nothing was run').to.deep.equal([]);
  });

  /*
   * Each shell on a terminal, as a person has it: lines with a Tab in them are typed, and what the shell runs then is
   * written down by the program that stands in for tunward. A shell completes before it reads on, so nothing is waited for.
   */
  for (const [shell, argv] of Object.entries({
    bash: ['bash', '--norc', '--noprofile', '-i'],
    zsh: ['zsh', '-f', '-i'],
    fish: ['fish', '--no-config', '-i'],
  })) {
    describe(`in ${shell}`, () => {
      const own = createReaper();
      let terminal: OnTerminal;
      let home: string;
      let mine: FakeDaemon;
      before(async function () {
        need(this, 'pty', shell as Need);
        home = mkdtempSync(join(tmpdir(), 'tunward-completion-'));
        mine = await startFakeDaemon();
        const { stdout } = await tunward(own, ['completion', shell]);
        writeFileSync(join(home, 'completion'), stdout);
        writeFileSync(join(home, 'some file.yaml'), '');
        standIn();
        const [XDG_CONFIG_HOME, XDG_DATA_HOME] = [home, home];
        const env = { HOME: home, PATH: `${home}/bin:${process.env.PATH}`, XDG_CONFIG_HOME, XDG_DATA_HOME };
        terminal = runOnTerminal(own, argv, {
          cwd: home,
          columns: 200,
          rows: 50,
          env: { ...env, TUNWARD_SOCKET: mine.socket },
        });
        if (shell === 'zsh') terminal.type('autoload -Uz compinit && compinit -u -D\r');
        expect(await run(`source '${home}/completion'; tunward ready\r`)).to.deep.equal(['ready']);
      });
      after(async () => {
        terminal?.close();
        await own.end();
        await mine?.close();
        if (home) rmSync(home, { recursive: true });
      });

      it('completes a command, an option and a tunnel', async () => {
        serve(['web', 'db'], mine);
        expect(await run('tunward restar\td\t\r')).to.deep.equal(['restart', 'db']);
        expect(await run('tunward free --dry\t80\r')).to.deep.equal(['free', '--dry-run', '80']);
      });

      it('completes names that a shell could take for something to do, and does nothing of it', async function () {
        this.timeout(60_000);
        for (const [at, name] of hostile.entries()) {
          serve([`x${name}`], mine);
          const begun = at % 2 === 0 ? '' : 'x';
          expect(await run(`tunward stop ${begun}\t\r`), name).to.deep.equal(['stop', `x${name}`]);
        }
        expect(existsSync(join(home, 'executed'))).to.equal(false);
      });

      it('shows such names where there are several', async () => {
        serve(['x$(touch executed)', 'x`touch executed`', 'x;touch executed'], mine);
        // Ctrl-U takes the line back.
        expect(await run('tunward stop x\t\t\u0015tunward done\r')).to.deep.equal(['done']);
        expect(existsSync(join(home, 'executed'))).to.equal(false);
      });

      it('completes within quotes', async () => {
        serve(['two words', 'other'], mine);
        expect(await run('tunward stop "two\t\r')).to.deep.equal(['stop', 'two words']);
        expect(await run("tunward stop 'two\t\r")).to.deep.equal(['stop', 'two words']);
      });

      it('completes a file where a file is meant', async () => {
        expect(await run('tunward up -c some\t\r')).to.deep.equal(['up', '-c', 'some file.yaml']);
      });

      it('leaves the line as it is where nothing fits, or the daemon fails', async () => {
        expect(await run('tunward stop nothing\tx\r')).to.deep.equal(['stop', 'nothingx']);
        mine.routes.set('GET /v1/tunnels', () => ({ status: 500, body: 'broken' }));
        expect(await run('tunward stop x\ty\r')).to.deep.equal(['stop', 'xy']);
      });

      /** Completes as tunward does; what else it is told to do it writes down, a line of JSON each time. */
      function standIn(): void {
        const keep = 'fs.appendFileSync(process.argv[1], JSON.stringify(process.argv.slice(2)) + "\\n")';
        const lines = [
          '#!/bin/sh',
          `if [ "$1" = __complete ]; then exec '${process.execPath}' '${mainFile}' "$@"; fi`,
          `exec '${process.execPath}' -e '${keep}' '${home}/run' "$@"`,
        ];
        mkdirSync(join(home, 'bin'));
        writeFileSync(join(home, 'bin/tunward'), `${lines.join('\n')}\n`, { mode: 0o755 });
      }

      /** What is run when that is typed. */
      async function run(keys: string): Promise<string[]> {
        const before = runs().length;
        terminal.type(keys);
        const found = await until(() => runs()[before], { timeoutMs: 15_000, everyMs: 20 });
        if (!found) throw new Error(`Nothing was run by ${keys}:\n${(await terminal.all()).join('\n')}`);
        return found;
      }

      function runs(): string[][] {
        if (!existsSync(join(home, 'run'))) return [];
        const lines = readFileSync(join(home, 'run'), 'utf8').split('\n').slice(0, -1);
        return lines.map((line) => JSON.parse(line));
      }
    });
  }
});
