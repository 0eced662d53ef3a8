import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { type Config, loadConfig, type ParseOptions, parseConfig } from '#lib/daemon/config.js';
import { defaultPaths, findConfigFile, formatProblem } from '#lib/daemon/source.js';
import { isTunwardError, type TunwardError } from '#lib/errors.js';

const asUser: ParseOptions = {
  file: '/etc/t/tunward.yaml',
  env: { HOME: '/home/u' },
  uid: 1000,
  ephemeralRange: [32768, 60999],
  hasIpv6Loopback: true,
};

function parse(text: string, options: Partial<ParseOptions> = {}): Config {
  return parseConfig(text, { ...asUser, ...options });
}

/** What parsing complains of, a line for each problem, without the file's name. */
function complaints(text: string, options: Partial<ParseOptions> = {}): string[] {
  return problemLines(rejection(() => parse(text, options)));
}

function problemLines(error: TunwardError<'ERR_CONFIG_INVALID'>): string[] {
  return error.info.problems.map((problem) => formatProblem({ ...problem, file: '' }).slice(1));
}

function rejection(act: () => unknown): TunwardError<'ERR_CONFIG_INVALID'> {
  try {
    act();
  } catch (error) {
    if (isTunwardError(error, 'ERR_CONFIG_INVALID')) return error;
    throw error;
  }
  throw new Error('Expected a refusal, found a configuration');
}

async function rejected(promise: Promise<unknown>): Promise<TunwardError<'ERR_CONFIG_INVALID'>> {
  const outcome = await promise.catch((error: unknown) => error);
  return rejection(() => {
    if (outcome instanceof Error) throw outcome;
  });
}

/** One tunnel in flow style, to be put after `tunnels:` on a line of its own. */
function tunnel(fields: Record<string, string>): string {
  const all = { remote_host: 'h', remote_port: '80', ...fields };
  const pairs = Object.entries(all).map(([key, value]) => `${key}: ${value}`);
  return `  - {${pairs.join(', ')}}`;
}

function file(...lines: string[]): string {
  return [...lines, ''].join('\n');
}

function only(config: Config) {
  const [first, ...more] = config.tunnels;
  expect(more).to.have.length(0);
  if (!first) throw new Error('Expected one tunnel, found none');
  return first;
}

describe('parseConfig()', () => {
  describe('with what is said of checks and retries', () => {
    const only1 = (...lines: string[]) => only(parse(file(...lines)));

    it('has no check and slow logins when nothing is said', () => {
      expect(only1('tunnels:', tunnel({ local_port: '1' }))).to.include({ check: null, authRetry: 'slow' });
    });

    it('takes a check by connecting or by a path, with bounds of its own', () => {
      const check = (written: string) => only1('tunnels:', tunnel({ local_port: '1', check: written })).check;
      expect(check('{connect: true}')).to.deep.equal({ http: null, everyMs: 10_000, timeoutMs: 5000 });
      const http = { http: '/health?a=b', everyMs: 2000, timeoutMs: 500 };
      expect(check('{http: "/health?a=b", every_ms: 2000, timeout_ms: 500}')).to.deep.equal(http);
    });

    it('takes what the top says for all tunnels, and a tunnel may say otherwise', () => {
      const lines = ['auth_retry: never', 'check: {http: /up, every_ms: 3000}', 'tunnels:'];
      const own = { check: '{connect: true}', auth_retry: 'slow' };
      const { tunnels } = parse(file(...lines, tunnel({ local_port: '1' }), tunnel({ local_port: '2', ...own })));
      expect(tunnels.map(({ check, authRetry }) => [check?.http, check?.everyMs, authRetry])).to.deep.equal([
        ['/up', 3000, 'never'],
        [null, 3000, 'slow'],
      ]);
    });

    it('complains of what is none', () => {
      const wrong = { check: '{http: health, every_ms: 5, connect: false}', auth_retry: 'sometimes' };
      expect(complaints(file('tunnels:', tunnel({ local_port: '1', ...wrong })))).to.have.members([
        "2:118: tunnels[0].auth_retry: expected slow or never, found 'sometimes'",
        "2:68: tunnels[0].check.http: expected a path of printable characters without blanks that begins with '/', found 'health'",
        '2:86: tunnels[0].check.every_ms: expected a whole number of milliseconds from 1000 to 86400000, found 5',
        '2:98: tunnels[0].check.connect: expected true, which is what a check without http does, found false',
      ]);
    });
  });

  describe('with seamless and share', () => {
    it('takes them from the top for the tunnels that can have them, and from a tunnel for itself', () => {
      const top = ['seamless: true', 'drain_ms: 0', 'connect_wait_ms: 5000', 'share: false'];
      const remote = { direction: 'local_to_remote', remote_port: '90' };
      const lines = [
        tunnel({ name: 'a', local_port: '81' }),
        tunnel({ name: 'b', local_port: '82', drain_ms: '10', share: 'true' }),
        tunnel({ name: 'c', local_port: '83', seamless: 'false' }),
        tunnel({ name: 'd', local_port: '84', ...remote }),
        tunnel({ name: 'e', local_port: '85', interactive: 'true' }),
      ];
      const { tunnels } = parse(file(...top, 'tunnels:', ...lines));
      expect(tunnels.map(({ seamless }) => seamless)).to.deep.equal([
        { drainMs: 0, connectWaitMs: 5000 },
        { drainMs: 10, connectWaitMs: 5000 },
        null,
        null,
        null,
      ]);
      expect(tunnels.map(({ share }) => share)).to.deep.equal([false, true, false, false, false]);
      const [plain] = parse(file('tunnels:', tunnel({ local_port: '81', seamless: 'true' }))).tunnels;
      expect(plain).to.deep.include({ seamless: { drainMs: 30_000, connectWaitMs: 10_000 }, share: true });
    });

    it('refuses what the embedded engine cannot do where it is asked for, and nothing where there is an ssh', () => {
      const lines = [
        tunnel({ name: 'a', local_port: '81', engine: 'embedded', ssh_options: '{RekeyLimit: 1G}' }),
        tunnel({ name: 'b', local_port: '82', engine: 'embedded' }),
        tunnel({ name: 'c', local_port: '83', engine: 'ssh', ssh_options: '{RekeyLimit: 1G}' }),
        tunnel({ name: 'd', local_port: '84', ssh_options: '{Compression: yes}', engine: 'embedded' }),
      ];
      expect(complaints(file('tunnels:', ...lines)).map((line) => line.replace(/^\d+:\d+: /, ''))).to.deep.equal([
        "tunnels[0].ssh_options.RekeyLimit: The engine embedded cannot use RekeyLimit: use 'engine: ssh'",
      ]);
      const top = ['ssh_options: {GSSAPIAuthentication: yes}', 'tunnels:'];
      expect(
        complaints(file(...top, ...lines.slice(1, 3))).map((line) => line.replace(/^\d+:\d+: /, '')),
      ).to.deep.equal(["tunnels[0]: The engine embedded cannot use GSSAPIAuthentication: use 'engine: ssh'"]);
    });

    it('refuses what a tunnel itself cannot have', () => {
      const remote = { direction: 'local_to_remote', remote_port: '90' };
      const lines = [
        tunnel({ name: 'a', local_port: '81', seamless: 'true', ...remote }),
        tunnel({ name: 'b', local_port: '82', seamless: 'true', interactive: 'true' }),
        tunnel({ name: 'c', local_port: '83', share: 'true', engine: 'autossh' }),
        tunnel({ name: 'd', local_port: '84', seamless: 'so', drain_ms: '-1' }),
      ];
      expect(complaints(file('tunnels:', ...lines)).map((line) => line.replace(/^\d+:\d+: /, ''))).to.have.members([
        'tunnels[0].seamless: expected seamless for a tunnel that listens here, found one that listens on the far side',
        'tunnels[1].seamless: expected seamless for a tunnel that starts by itself, found an interactive one',
        'tunnels[2].share: expected share for the engine embedded, found the engine autossh',
        "tunnels[3].seamless: expected true or false, found 'so'",
        'tunnels[3].drain_ms: expected a whole number of milliseconds from 0 to 86400000, found -1',
      ]);
    });
  });

  describe('with a port 0', () => {
    it('leaves the choice to the server that a remote forward listens on, to as many as like', () => {
      const remote = { direction: 'local_to_remote', remote_port: '0' };
      const lines = [tunnel({ local_port: '80', ...remote }), tunnel({ name: 'b', local_port: '81', ...remote })];
      const { tunnels } = parse(file('tunnels:', ...lines));
      expect(tunnels.map(({ forward }) => forward.listen)).to.deep.equal(Array(2).fill({ host: 'localhost', port: 0 }));
    });

    it('is no port to listen on here, and none to connect to', () => {
      expect(complaints(file('tunnels:', tunnel({ local_port: '0' })))).to.deep.equal([
        '2:51: tunnels[0].local_port: expected a port from 1 to 65535, found 0',
      ]);
      expect(complaints(file('tunnels:', tunnel({ local_port: '1', remote_port: '0' })))).to.deep.equal([
        '2:35: tunnels[0].remote_port: expected a port from 1 to 65535, found 0: ' +
          'only a port that a server is to listen on can be its choice',
      ]);
    });
  });

  describe('with an ancestor file', () => {
    const ancestor = file(
      '# tunnels of the office',
      'tunnels:',
      '  - remote_host: "user@remote-host1"   # the first',
      '    remote_port: 8000',
      "    local_port: '8001'",
      '',
      '  - remote_host: user@remote-host2',
      '    remote_port: "9000"',
      '    local_port: 9001 # why not',
      '  - name: jumphost-tunnel',
      '    remote_host: user@jumphost.example.com',
      '    remote_port: 22',
      '    local_port: 2222',
      '    direction: remote_to_local',
      '    interactive: true',
    );

    it('has the ancestor ids', () => {
      expect(parse(ancestor).tunnels.map(({ id }) => id)).to.deep.equal([
        '76692f8a1adb8d8bee5f3b29e1b42602',
        '5657c75272242354bb96bfe914951bfd',
        'c65f58326bea843a8439fbe9b8e887b2',
      ]);
    });

    it('loads it without a warning and with the ancestor defaults', () => {
      const { tunnels, warnings } = parse(ancestor);
      expect(warnings).to.deep.equal([]);
      expect(tunnels[0]).to.deep.equal({
        id: '76692f8a1adb8d8bee5f3b29e1b42602',
        name: 'unnamed',
        remoteHost: 'user@remote-host1',
        direction: 'remote_to_local',
        remotePort: '8000',
        localPort: '8001',
        forward: {
          side: 'local',
          listen: { host: 'localhost', port: 8001 },
          target: { host: 'localhost', port: 8000 },
        },
        interactive: false,
        engine: 'auto',
        sshConfig: null,
        identityFile: null,
        sshOptions: {},
        jump: [],
        groups: [],
        enabled: true,
        takeover: 'tunnels',
        startTimeoutMs: 15_000,
        restartTimeoutMs: 6000,
        authRetry: 'slow',
        share: true,
        seamless: null,
        check: null,
        backoff: { minMs: 1000, maxMs: 60_000, stableMs: 30_000 },
      });
      expect(tunnels[2]).to.include({ name: 'jumphost-tunnel', interactive: true });
    });

    it('reads it with Windows line ends and a byte order mark alike', () => {
      const ids = (text: string) => parse(text).tunnels.map(({ id }) => id);
      expect(ids(`\uFEFF${ancestor.replaceAll('\n', '\r\n')}`)).to.deep.equal(ids(ancestor));
    });

    it('reads host:port forms and IPv6 addresses in brackets', () => {
      const forms = { remote_port: 'db.internal:5432', local_port: '"[::1]:8001"' };
      const { forward, remotePort, localPort } = only(parse(file('tunnels:', tunnel(forms))));
      expect(forward.listen).to.deep.equal({ host: '::1', port: 8001 });
      expect(forward.target).to.deep.equal({ host: 'db.internal', port: 5432 });
      expect([remotePort, localPort]).to.deep.equal(['db.internal:5432', '[::1]:8001']);
    });

    it('makes the id of what was written, minus quotes', () => {
      const id = (port: string) => only(parse(file('tunnels:', tunnel({ local_port: port })))).id;
      // printf 'unnamed|h|80|0800|remote_to_local|false' | md5sum
      expect(id('0800')).to.equal('0db93b1674f4a5fb8c0378ab4e596a05');
      expect(id('"0800"')).to.equal(id('0800'));
      expect(id('800')).not.to.equal(id('0800'));
      expect(only(parse(file('tunnels:', tunnel({ local_port: '0800' })))).forward.listen.port).to.equal(800);
    });

    it('takes names that YAML reads as numbers, booleans and null as text', () => {
      const names = ['123', '1e3', 'true', 'null', '~', '0x10'];
      const tunnels = names.map((name, index) => tunnel({ name, local_port: `${8001 + index}` }));
      expect(parse(file('tunnels:', ...tunnels)).tunnels.map(({ name }) => name)).to.deep.equal(names);
    });

    it('takes an empty value for a missing one', () => {
      const [empty, absent] = ['tunnels:\n  - name:\n    direction: ""\n', 'tunnels:\n  - '].map((head) =>
        only(
          parse(
            `${head}${head.endsWith('- ') ? '' : '    '}remote_host: h\n    remote_port: 80\n    local_port: 8001\n`,
          ),
        ),
      );
      expect(empty).to.deep.equal(absent);
    });

    it('takes an unknown direction for remote_to_local, with a warning and in the id', () => {
      const config = parse(file('tunnels:', tunnel({ local_port: '8001', direction: 'sideways' })));
      // printf 'unnamed|h|80|8001|sideways|false' | md5sum
      expect(only(config)).to.include({ direction: 'remote_to_local', id: '68b2e94319faac755e6f09d9b62a34d9' });
      expect(config.warnings).to.deep.equal([
        {
          file: '/etc/t/tunward.yaml',
          line: 2,
          column: 68,
          path: 'tunnels[0].direction',
          message: "expected remote_to_local or local_to_remote, found 'sideways'; taken for remote_to_local",
        },
      ]);
    });

    it('skips a tunnel without its required keys, with a warning', () => {
      const config = parse(file('tunnels:', '  - name: a', '    remote_host: h', tunnel({ local_port: '8001' })));
      expect(only(config).localPort).to.equal('8001');
      expect(config.warnings.map(formatProblem)).to.deep.equal([
        '/etc/t/tunward.yaml:2:5: tunnels[0]: expected remote_host, remote_port and local_port, ' +
          'found no remote_port and no local_port; the tunnel is skipped',
      ]);
    });

    it('has no mercy on either in a file with a tunward key', () => {
      const tunnels = [tunnel({ local_port: '8001', direction: 'sideways' }), '  - remote_host: h'];
      const expected = [
        "3:68: tunnels[0].direction: expected remote_to_local or local_to_remote, found 'sideways'",
        '4:5: tunnels[1].remote_port: expected a port, host:port or [IPv6 address]:port, found nothing',
        '4:5: tunnels[1].local_port: expected a port, host:port or [IPv6 address]:port, found nothing',
      ];
      expect(complaints(file('engine: auto', 'tunnels:', ...tunnels))).to.deep.equal(expected);
      const inTunnel = file('', 'tunnels:', ...tunnels, tunnel({ local_port: '8002', takeover: 'own' }));
      expect(complaints(inTunnel)).to.deep.equal(expected);
    });

    it('says that an address in brackets needs quotes', () => {
      expect(complaints('tunnels:\n  - local_port: [::1]:8001\n')).to.deep.equal([
        '2:22: expected YAML, found a mistake: an address in brackets needs quotes around the whole value',
      ]);
    });
  });

  describe('directions', () => {
    const sides = (mode: string) =>
      parse(
        file(
          `direction_mode: ${mode}`,
          'tunnels:',
          tunnel({ local_port: '8001', direction: 'remote_to_local', interactive: 'true' }),
          tunnel({ local_port: '8002', direction: 'local_to_remote' }),
        ),
      ).tunnels.map(({ forward }) => `${forward.side} ${forward.listen.port}`);

    it('listens here for remote_to_local by default', () => {
      expect(sides('default')).to.deep.equal(['local 8001', 'remote 80']);
    });

    it('turns every tunnel round under ssh-standard, interactive ones too', () => {
      expect(sides('ssh-standard')).to.deep.equal(['remote 80', 'local 8002']);
    });

    it('keeps the id when the mode changes', () => {
      const id = (mode: string) => only(parse(`direction_mode: ${mode}\ntunnels:\n${tunnel({ local_port: '1' })}`)).id;
      expect(id('default')).to.equal(id('ssh-standard'));
    });
  });

  describe('settings', () => {
    it('has no tunnels in an empty file', () => {
      for (const text of ['', '# nothing\n', 'tunnels:\n', 'tunnels: []\n', '---\n']) {
        expect(parse(text).tunnels, JSON.stringify(text)).to.deep.equal([]);
      }
    });

    it("has a user's defaults", () => {
      expect(parse('')).to.deep.equal({
        file: '/etc/t/tunward.yaml',
        tunnels: [],
        logDir: '/home/u/.local/state/tunward/log',
        log: { maxBytes: 1_048_576, keep: 5 },
        stateDir: '/home/u/.local/state/tunward',
        api: {
          socket: '/home/u/.local/state/tunward/tunward.sock',
          listen: null,
          tokenFile: '/home/u/.local/state/tunward/token',
          keyDigests: [],
          ...{ hosts: [], tokens: [], compat: false },
        },
        start: { concurrency: 16, perHost: 8, intervalMs: 0 },
        directionMode: 'default',
        onNeedsAuth: null,
        stopTimeoutMs: 8000,
        reload: 'auto',
        warnings: [],
      });
    });

    it("has root's defaults", () => {
      const { logDir, stateDir, api } = parse('', { uid: 0 });
      expect([logDir, stateDir]).to.deep.equal(['/var/log/tunward', '/var/lib/tunward']);
      expect(api).to.deep.equal({
        socket: '/run/tunward/tunward.sock',
        listen: null,
        tokenFile: '/var/lib/tunward/token',
        keyDigests: [],
        ...{ hosts: [], tokens: [], compat: false },
      });
    });

    it('takes every top-level key', () => {
      const config = parse(
        file(
          'log_dir: logs',
          'log: {max_bytes: 102400, keep: 1}',
          'state_dir: ~/state',
          'api: {socket: /run/x.sock, listen: 8080, token_file: ../token}',
          'start: {concurrency: 4, per_host: 2, interval_ms: 50}',
          'direction_mode: ssh-standard',
        ),
      );
      expect(config).to.deep.include({
        logDir: '/etc/t/logs',
        log: { maxBytes: 102_400, keep: 1 },
        stateDir: '/home/u/state',
        api: {
          socket: '/run/x.sock',
          listen: { host: 'localhost', port: 8080 },
          tokenFile: '/etc/token',
          keyDigests: [],
          ...{ hosts: [], tokens: [], compat: false },
        },
        start: { concurrency: 4, perHost: 2, intervalMs: 50 },
        directionMode: 'ssh-standard',
      });
    });

    it('makes the token in a state_dir of its own', () => {
      expect(parse('state_dir: /s').api.tokenFile).to.equal('/s/token');
    });

    it('can have api.listen off', () => {
      const more = parse(
        'api: {listen: "0.0.0.0:80", allow_remote: true, hosts: [tunnels.example, "[::1]:80"], compat: true, tokens: [{file: r, scope: read}]}',
      ).api;
      expect(more.listen).to.deep.equal({ host: '0.0.0.0', port: 80 });
      expect(more.hosts).to.deep.equal(['tunnels.example', '[::1]:80']);
      expect(more.tokens).to.deep.equal([{ file: '/etc/t/r', scope: 'read' }]);
      expect(more.compat).to.equal(true);
      expect(complaints('api: {listen: "0.0.0.0:80"}')).to.deep.equal([
        "1:15: api.listen: expected a loopback address, or allow_remote: true beside it, found '0.0.0.0'",
      ]);
      expect(complaints('api: {hosts: ["http://x"]}')[0]).to.match(
        /expected host or host:port, as browsers ask for it/,
      );
      for (const off of ['off', 'false', 'null', '']) expect(parse(`api: {listen: ${off}}`).api.listen).to.equal(null);
    });

    const everything = [
      'engine: autossh',
      'ssh_config: ./ssh_config',
      'identity_file: ~/.ssh/key',
      'ssh_options: {Compression: yes, serveraliveinterval: 5}',
      'takeover: any',
      'backoff: {min_ms: 5, max_ms: 50}',
      'start_timeout_ms: 7000',
      'restart_timeout_ms: 8000',
    ];
    const settings = {
      engine: 'autossh',
      sshConfig: '/etc/t/ssh_config',
      identityFile: '/home/u/.ssh/key',
      sshOptions: { Compression: 'yes', ServerAliveInterval: '5' },
      takeover: 'any',
      backoff: { minMs: 5, maxMs: 50, stableMs: 30_000 },
      startTimeoutMs: 7000,
      restartTimeoutMs: 8000,
    };

    it('gives a tunnel the settings of the top level', () => {
      expect(only(parse(file(...everything, 'tunnels:', tunnel({ local_port: '1' }))))).to.deep.include(settings);
    });

    it('takes none, as ssh -F does, for no file at all', () => {
      expect(only(parse(file('ssh_config: none', 'tunnels:', tunnel({ local_port: '1' }))))).to.include({
        sshConfig: 'none',
      });
      expect(only(parse(file('identity_file: none', 'tunnels:', tunnel({ local_port: '1' }))))).to.include({
        identityFile: '/etc/t/none',
      });
    });

    it('gives a tunnel its own settings', () => {
      const own = everything.map((line) => `    ${line}`);
      const text = file('tunnels:', '  - remote_host: h', '    remote_port: 80', '    local_port: 1', ...own);
      expect(only(parse(text))).to.deep.include(settings);
    });

    it('lets a tunnel override one option and one limit of the top level', () => {
      const own = tunnel({ local_port: '1', ssh_options: '{Compression: no}', backoff: '{min_ms: 6}', engine: 'ssh' });
      expect(only(parse(file(...everything, 'tunnels:', own)))).to.deep.include({
        ...settings,
        engine: 'ssh',
        sshOptions: { Compression: 'no', ServerAliveInterval: '5' },
        backoff: { minMs: 6, maxMs: 50, stableMs: 30_000 },
      });
    });

    it('takes anchors and aliases', () => {
      const text = file(
        'ssh_options: &options {Compression: yes}',
        'tunnels:',
        tunnel({ local_port: '&port 8001', ssh_options: '*options' }),
        tunnel({ remote_port: '*port', local_port: '8002' }),
      );
      const [first, second] = parse(text).tunnels;
      expect(first?.sshOptions).to.deep.equal({ Compression: 'yes' });
      expect(second?.remotePort).to.equal('8001');
    });

    it('gives ssh an IPv6 destination without brackets', () => {
      const spec = only(parse(file('tunnels:', tunnel({ remote_host: '"u@[::1]"', local_port: '1' }))));
      expect(spec.remoteHost).to.equal('u@::1');
    });

    it('is frozen', () => {
      const config = parse(file('tunnels:', tunnel({ local_port: '1' })));
      for (const part of [config, config.tunnels, config.tunnels[0], config.tunnels[0]?.forward.listen, config.api]) {
        expect(part).to.be.frozen;
      }
    });
  });

  describe('with somebody who is told', () => {
    const told = (written: string) => parse(file(`on_needs_auth: ${written}`)).onNeedsAuth;
    const wrong = (written: string) => complaints(file(`on_needs_auth: ${written}`));

    it('takes an address, alone or with the file of a header', () => {
      const url = 'https://hooks.example/t?key=1';
      expect(told(url)).to.deep.equal({ url, headerFile: null });
      expect(told(`{url: "${url}"}`)).to.deep.equal({ url, headerFile: null });
      expect(told(`{url: "HTTP://[::1]:8080", header_file: ~/h}`)).to.deep.equal({
        url: 'http://[::1]:8080/',
        headerFile: '/home/u/h',
      });
      expect(told(`{url: "${url}", header_file: h}`)?.headerFile).to.equal('/etc/t/h');
      expect(told('')).to.equal(null);
    });

    it('complains of what is none, and shows of an address what is no secret', () => {
      const one = (written: string, found: string) =>
        expect(wrong(written)).to.deep.equal([`1:16: on_needs_auth: expected an http or https URL, found ${found}`]);
      one('ftp://host', "'ftp://host'");
      one('hooks.example/t0ken', "'hooks.example/…'");
      one('"http://"', "'http://'");
      one('"https://host/t0ken x"', "'https://host/…'");
      one('"https://host?t0ken\\r\\nX: y"', "'https://host/…'");
      expect(wrong('https://me:s3cret@host/t0ken')).to.deep.equal([
        "1:16: on_needs_auth: expected a URL without a user and a password (a user and a password stand in the file that header_file names), found 'https://…@host/…'",
      ]);
      expect(wrong(`https://host/${'t0ken'.repeat(400)}`)).to.deep.equal([
        "1:16: on_needs_auth: expected a URL of at most 2000 characters, found 'https://host/…'",
      ]);
      expect(wrong('5')).to.deep.equal([
        '1:16: on_needs_auth: expected an http or https URL, or a mapping of url and header_file, found 5',
      ]);
      expect(wrong('{header_fil: x, url: 7, header_file: "~bob/x"}')).to.have.members([
        "1:17: on_needs_auth.header_fil: expected a known key, found 'header_fil'; did you mean 'header_file'?",
        '1:37: on_needs_auth.url: expected an http or https URL, found 7',
        "1:53: on_needs_auth.header_file: expected a path: absolute, relative to this file, or beginning with ~/, found '~bob/x'",
      ]);
      expect(wrong('{header_file: x}')).to.deep.equal([
        '1:16: on_needs_auth.url: expected an http or https URL, found nothing',
      ]);
    });

    it('is no key of a tunnel', () => {
      const own = tunnel({ local_port: '1', on_needs_auth: 'http://h/' });
      expect(complaints(file('reload: auto', 'tunnels:', own))[0]).to.match(
        /tunnels\[0\]\.on_needs_auth: expected .*found 'on_needs_auth'/,
      );
    });
  });

  describe('problems', () => {
    it('are two tokens in one file: which of the two rights would it have?', () => {
      const tokens = '[{file: /t/a, scope: read}, {file: /t/a, scope: all}, {file: /s/token, scope: read}]';
      expect(complaints(`{state_dir: /s, api: {listen: 1234, tokens: ${tokens}}}`)).to.deep.equal([
        "1:80: api.tokens[1].file: expected a file of its own for each token, found '/t/a' again",
        "1:106: api.tokens[2].file: expected a file of its own for each token, found '/s/token' again",
      ]);
    });

    it('are the first hundred where there are more, and how many more', () => {
      const { info, message } = rejection(() => parse(Array.from({ length: 5000 }, (_, at) => `k${at}: 1\n`).join('')));
      expect(info.problems.map(({ line }) => line)).to.deep.equal(Array.from({ length: 100 }, (_, at) => at + 1));
      expect(message.split('\n')).to.have.length(101);
      expect(message).to.match(/\n… and 4900 more$/);
    });

    it('come all at once, each with its line and column', () => {
      const text = file(
        'log_dirr: x',
        'engine: sh',
        'backoff: {min_ms: 5000, max_ms: 100, stable_ms: -1}',
        'ssh_options:',
        '  StrictHostKeyChecking: no',
        '  ProxyCommand: sh',
        '  ServerAliveIntervall: 3',
        'api: {listen: "box:80", socket: ~bob/x}',
        'start: {concurrency: 0, per_host: "3"}',
        'tunnels:',
        '  - name: a',
        '    remote_host: -oProxyCommand=x',
        '    remote_port: 70000',
        '    local_port: ::1:80',
        '    direction: up',
        '    interactive: yes',
        '    locl_port: 3',
        '    name: b',
        '  -',
        '  - remote_host: h',
        '    remote_port:',
        '    local_port: [1]',
        tunnel({ name: 'x', local_port: '8001', takeover: 'all' }),
        tunnel({ name: 'y', local_port: '127.0.0.1:8001' }),
      );
      const port = 'expected a port, host:port or [IPv6 address]:port';
      expect(complaints(text)).to.deep.equal([
        "1:1: log_dirr: expected a known key, found 'log_dirr'; did you mean 'log_dir'?",
        "2:9: engine: expected auto, ssh, autossh or embedded, found 'sh'",
        '3:49: backoff.stable_ms: expected a whole number of milliseconds from 0 to 86400000, found -1',
        "5:26: ssh_options.StrictHostKeyChecking: expected yes, ask or accept-new, found 'no'; " +
          'accept-new is the way to connect to a new host, and refuses a key that has changed',
        "6:3: ssh_options.ProxyCommand: expected an ssh option that a tunnel may set, found 'ProxyCommand'; " +
          'put it in the file that ssh_config names',
        '7:3: ssh_options.ServerAliveIntervall: expected an ssh option that a tunnel may set, ' +
          "found 'ServerAliveIntervall'; did you mean 'ServerAliveInterval'?",
        "8:15: api.listen: expected an IP address, localhost or * to listen on, found 'box'",
        "8:33: api.socket: expected a path: absolute, relative to this file, or beginning with ~/, found '~bob/x'",
        '9:22: start.concurrency: expected a whole number from 1 to 10000, found 0',
        "9:35: start.per_host: expected a whole number from 1 to 10000, found '3'",
        "12:18: tunnels[0].remote_host: expected [user@]host of letters, digits, '.', '_' and '-', " +
          "beginning with a letter, a digit or '_', found '-oProxyCommand=x'",
        '13:18: tunnels[0].remote_port: expected a port from 1 to 65535, found 70000',
        `14:17: tunnels[0].local_port: ${port}, found '::1:80'`,
        "15:16: tunnels[0].direction: expected remote_to_local or local_to_remote, found 'up'",
        "16:18: tunnels[0].interactive: expected true or false, found 'yes'",
        "17:5: tunnels[0].locl_port: expected a known key, found 'locl_port'; did you mean 'local_port'?",
        '18:5: tunnels[0].name: expected a key once, found it again',
        '19:4: tunnels[1]: expected a mapping, found nothing',
        `21:5: tunnels[2].remote_port: ${port}, found nothing`,
        `22:17: tunnels[2].local_port: ${port}, found a list`,
        "23:76: tunnels[3].takeover: expected own, tunnels or any, found 'all'",
        '24:60: tunnels[4].local_port: expected an address that no other tunnel listens on, ' +
          "found 127.0.0.1:8001 of tunnel 'y' (line 24), which overlaps localhost:8001 of tunnel 'x' (line 23)",
      ]);
    });

    it('are the message of the error, a line each', () => {
      const one = rejection(() => parse('engine: sh'));
      expect(one.message).to.equal(
        "/etc/t/tunward.yaml:1:9: engine: expected auto, ssh, autossh or embedded, found 'sh'",
      );
      const two = rejection(() => parse('engine: sh\ntakeover: all'));
      expect(two.message.split('\n')).to.deep.equal(two.info.problems.map(formatProblem));
      expect(two.info.problems).to.have.length(2);
    });

    it('name the line and column of a mistake in the YAML', () => {
      expect(complaints('a: b: c')[0]).to.match(/^1:4: expected YAML, found a mistake: /);
      expect(complaints('tunnels:\n\t- x')[0]).to.match(/^2:1: expected YAML, found a mistake: /);
      expect(complaints('tunnels: []\n---\ntunnels: []\n')[0]).to.match(/^2:1: .* multiple documents$/);
      expect(complaints('%YAML 1.1\n---\n<<: ')).to.deep.equal(['1:1: expected YAML 1.2, found YAML 1.1']);
      expect(complaints('tunnels: !mine []')[0]).to.match(/^1:10: .* Unresolved tag: !mine$/);
    });

    it('are found in a file that is no mapping, and in tunnels that are no list', () => {
      expect(complaints('- a')).to.deep.equal(['1:1: expected a mapping, found a list']);
      expect(complaints('hello')).to.deep.equal(["1:1: expected a mapping, found 'hello'"]);
      expect(complaints('tunnels: {a: 1}')).to.deep.equal([
        '1:10: tunnels: expected a list of tunnels, found a mapping',
      ]);
    });

    it('suggest the nearest key, and list the keys when none is near', () => {
      expect(complaints('tunels: []')).to.deep.equal([
        "1:1: tunels: expected a known key, found 'tunels'; did you mean 'tunnels'?",
      ]);
      expect(complaints('api: {sock: x, tokenfile: y}')).to.deep.equal([
        "1:7: api.sock: expected a known key, found 'sock'; did you mean 'socket'?",
        "1:16: api.tokenfile: expected a known key, found 'tokenfile'; did you mean 'token_file'?",
      ]);
      expect(complaints('backoff: {jitter: 1}')).to.deep.equal([
        "1:11: backoff.jitter: expected one of min_ms, max_ms, stable_ms, found 'jitter'",
      ]);
    });

    it('include keys that every object has', () => {
      const keys = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
      expect(complaints(keys.map((key) => `${key}: 1`).join('\n'))).to.have.length(keys.length);
      expect(complaints(`ssh_options: {${keys.map((key) => `${key}: 1`).join(', ')}}`)).to.have.length(keys.length);
    });

    it('come with the control characters in them made visible', () => {
      const [text] = complaints('engine: "\\e[2J\\nssh"');
      expect(text).to.equal("1:9: engine: expected auto, ssh, autossh or embedded, found '\\u{1b}[2J\\u{a}ssh'");
      const [port] = complaints('tunnels: [{remote_host: h, remote_port: 1, local_port: "\\e[2J"}]');
      expect(port).to.include("found '\\u{1b}[2J'");
      expect(complaints('"a\\nbcdefg": 1')).to.have.length(1);
    });

    it('stay short however long the value is', () => {
      for (const text of [`engine: ${'x'.repeat(99_999)}`, `api: {listen: ${'9'.repeat(99_999)}}`]) {
        expect(complaints(text)[0]).to.have.length.below(600);
      }
    });

    it('refuse a backoff whose least is more than its most, also when the two come from two levels', () => {
      const message = 'expected a min_ms of at most max_ms, found min_ms 5000 and max_ms 100';
      expect(complaints('backoff: {min_ms: 5000, max_ms: 100}')).to.deep.equal([`1:19: backoff.min_ms: ${message}`]);
      const own = tunnel({ local_port: '1', backoff: '{max_ms: 100}' });
      expect(complaints(file('backoff: {min_ms: 5000}', 'tunnels:', own))).to.deep.equal([
        `3:${own.indexOf('100') + 1}: tunnels[0].backoff.max_ms: ${message}`,
      ]);
    });

    it('of the top level do not hide or change those of the tunnels', () => {
      const own = tunnel({ local_port: '1', backoff: '{min_ms: 90000}' });
      const text = file('engine: sh', 'backoff: {max_ms: 120000}', 'tunnels:', own, tunnel({ local_port: '0' }));
      expect(complaints(text)).to.deep.equal([
        "1:9: engine: expected auto, ssh, autossh or embedded, found 'sh'",
        '5:51: tunnels[1].local_port: expected a port from 1 to 65535, found 0',
      ]);
    });

    it('refuse a socket path over 107 bytes', () => {
      const ok = `/${'s'.repeat(106)}`;
      expect(parse(`api: {socket: ${ok}}`).api.socket).to.equal(ok);
      expect(complaints(`api: {socket: ${ok}s}`)[0]).to.match(/^1:15: api\.socket: .* at most 107 bytes, found 108: /);
      expect(complaints(`api: {socket: /${'ü'.repeat(54)}}`)[0]).to.include('found 109');
      expect(complaints('', { env: { XDG_RUNTIME_DIR: `/${'r'.repeat(120)}` } })[0]).to.match(/^1:1: api\.socket: /);
    });

    it('refuse ~/ without a home', () => {
      expect(complaints('log_dir: ~/log', { env: {} })).to.deep.equal([
        "1:10: log_dir: expected HOME in the environment for '~/log', found nothing",
      ]);
    });

    it('say between what a log may be bounded', () => {
      expect(complaints('log: {max_bytes: 100KB, keep: 0, size: 1}')).to.deep.equal([
        "1:18: log.max_bytes: expected a whole number of bytes from 4096 to 1073741824, found '100KB'",
        '1:31: log.keep: expected a whole number of files from 1 to 100, found 0',
        "1:34: log.size: expected one of max_bytes, keep, found 'size'",
      ]);
      expect(complaints('log: {max_bytes: 4095, keep: 101}')).to.have.length(2);
      expect(complaints('log: 100')).to.deep.equal(['1:6: log: expected a mapping, found 100']);
    });

    it('refuse names with control characters, and with what turns text around or breaks a line', () => {
      for (const character of ['\\n', '\\x9b', '\\u202e', '\\u2067', '\\u200f', '\\u2028', '\\ud800']) {
        const text = file('tunnels:', tunnel({ name: `"a${character}b"`, local_port: '1' }));
        expect(complaints(text)[0]).to.match(/^2:\d+: tunnels\[0\]\.name: expected a name of at most 200 characters/);
      }
    });

    it('refuse hosts and users that ssh could take for options, or a shell for commands', () => {
      for (const host of ['-oX=y', 'u@-h', '-u@h', '"a b"', '"$(id)"', '"u@h;id"', 'u@', '"@h"', 'ssh://h', '"[::1"']) {
        const text = file('tunnels:', tunnel({ remote_host: host, local_port: '1' }));
        expect(complaints(text).join(), host).to.include('tunnels[0].remote_host: expected [user@]host');
      }
    });
  });

  describe('ssh_options', () => {
    it('has no way to weaken the host key check', () => {
      for (const value of ['no', 'off', 'NO', 'Off', 'false', '"\\"no\\""', '"no "']) {
        const text = `ssh_options: {stricthostkeychecking: ${value}}`;
        expect(complaints(text)[0], value).to.include('accept-new is the way');
      }
      for (const value of ['yes', 'ask', 'accept-new', 'Accept-New']) {
        parse(`ssh_options: {StrictHostKeyChecking: ${value}}`);
      }
    });

    it('refuses values with control characters, no value, and values that are no scalars', () => {
      expect(complaints('ssh_options: {User: "x\\nProxyCommand=y", Port: , Ciphers: [a], MACs: {}}')).to.deep.equal([
        "1:21: ssh_options.User: expected a value without control characters, found 'x\\u{a}ProxyCommand=y'",
        '1:42: ssh_options.Port: expected a value without control characters, found nothing',
        '1:59: ssh_options.Ciphers: expected a value without control characters, found a list',
        '1:70: ssh_options.MACs: expected a value without control characters, found a mapping',
      ]);
    });

    it('refuses hosts and users that could be taken for something else', () => {
      expect(complaints('ssh_options: {User: -x, HostName: "$(id)", HostKeyAlias: "$(id)"}')).to.have.length(3);
      parse('ssh_options: {User: root, HostName: "%h.example.com"}');
      parse('ssh_options: {HostName: "::1", HostKeyAlias: "fe80::1"}');
    });

    it('refuses one option in two spellings', () => {
      expect(complaints('ssh_options: {port: 22, Port: 23}')).to.deep.equal([
        "1:25: ssh_options.Port: expected the option Port once, found it again as 'Port'",
      ]);
    });
  });

  describe('jump', () => {
    const jumpOf = (value: string, ...top: string[]) =>
      only(parse(file(...top, 'tunnels:', tunnel({ local_port: '1', ...(value === '' ? {} : { jump: value }) })))).jump;

    it('is a host, or several in order, as for ssh -J or as a list', () => {
      const two = [
        { destination: 'me@bastion', port: 2222 },
        { destination: '::1', port: 22 },
      ];
      expect(jumpOf('bastion')).to.deep.equal([{ destination: 'bastion', port: null }]);
      expect(jumpOf('"me@bastion:2222, [::1]:22"')).to.deep.equal(two);
      expect(jumpOf('["me@bastion:2222", "[::1]:22"]')).to.deep.equal(two);
    });

    it('at the top is for all, but for those that say something else', () => {
      expect(jumpOf('', 'jump: bastion')).to.deep.equal([{ destination: 'bastion', port: null }]);
      expect(jumpOf('[]', 'jump: bastion')).to.deep.equal([]);
    });

    it('is no part of the id', () => {
      const idOf = (fields: Record<string, string>) => only(parse(file('tunnels:', tunnel(fields)))).id;
      const labels = { jump: 'a', groups: '[b]', enabled: 'false' };
      expect(idOf({ local_port: '1', ...labels })).to.equal(idOf({ local_port: '1' }));
    });

    it('is refused where ssh or a shell could read more into it', () => {
      const wrong = (jump: string) => complaints(file('tunnels:', tunnel({ local_port: '1', jump })));
      const host = 'expected [user@]host[:port], an IPv6 address in brackets, found';
      expect(wrong('["-oProxyCommand=x", ok, "a b", 7]')).to.deep.equal([
        `2:61: tunnels[0].jump[0]: ${host} '-oProxyCommand=x'`,
        `2:85: tunnels[0].jump[2]: ${host} 'a b'`,
        '2:92: tunnels[0].jump[3]: expected [user@]host[:port], found 7',
      ]);
      expect(wrong('"$(id)"')).to.deep.equal([`2:60: tunnels[0].jump[0]: ${host} '$(id)'`]);
      expect(wrong('a:70000')).to.deep.equal([
        '2:60: tunnels[0].jump[0]: expected a port from 1 to 65535, found 70000',
      ]);
      const list = 'expected [user@]host[:port], or a list of at most 5 of them, found';
      expect(wrong('[a, b, c, d, e, f]')).to.deep.equal([`2:60: tunnels[0].jump: ${list} a list`]);
      expect(wrong('"a,b,c,d,e,f"')).to.deep.equal([`2:60: tunnels[0].jump: ${list} 'a,b,c,d,e,f'`]);
      expect(wrong('{a: 1}')).to.deep.equal([`2:60: tunnels[0].jump: ${list} a mapping`]);
    });

    it('warns where there is no ssh, and our own client cannot do what a tunnel wants', () => {
      const options = '{RekeyLimit: 1G}';
      const text = file('tunnels:', tunnel({ local_port: '1', ssh_options: options }), tunnel({ local_port: '2' }));
      expect(parse(text).warnings).to.deep.equal([]);
      expect(parse(text, { hasSsh: false }).warnings.map(({ line, message }) => [line, message])).to.deep.equal([
        [2, "expected an ssh on PATH, found none. The engine embedded cannot use RekeyLimit: use 'engine: ssh'"],
      ]);
    });

    it('warns where there is no shell, without which ssh goes through nobody', () => {
      const text = file('tunnels:', tunnel({ local_port: '1', jump: 'bastion' }), tunnel({ local_port: '2' }));
      expect(parse(text).warnings).to.deep.equal([]);
      expect(
        parse(text, { hasShell: false }).warnings.map(({ line, path, message }) => [line, path, message]),
      ).to.deep.equal([
        [
          2,
          'tunnels[0].jump',
          "expected /bin/sh, by which ssh goes through a jump host, found none: put a shell into the image, or take 'engine: embedded'",
        ],
      ]);
      expect(parse(text, { hasShell: false, hasSsh: false }).warnings, 'a client of our own').to.deep.equal([]);
      const by = (engine: string) => file('tunnels:', tunnel({ local_port: '1', jump: 'bastion', engine }));
      expect(parse(by('embedded'), { hasShell: false }).warnings).to.deep.equal([]);
      expect(parse(by('ssh'), { hasShell: false, hasSsh: false }).warnings).to.have.length(1);
    });
  });

  describe('groups and enabled', () => {
    it('are labels of a tunnel', () => {
      const { groups, enabled } = only(
        parse(file('tunnels:', tunnel({ local_port: '1', groups: '[web, eu-1, web]', enabled: 'false' }))),
      );
      expect([groups, enabled]).to.deep.equal([['web', 'eu-1'], false]);
    });

    it('are refused in any other shape', () => {
      const wrong = (fields: Record<string, string>) =>
        complaints(file('tunnels:', tunnel({ local_port: '1', ...fields })));
      const name = "expected a name of letters, digits, '.', '_' and '-', beginning with a letter or a digit, found";
      expect(wrong({ groups: '[ok, -x, 3]' })).to.deep.equal([
        `2:67: tunnels[0].groups[1]: ${name} '-x'`,
        `2:71: tunnels[0].groups[2]: ${name} 3`,
      ]);
      expect(wrong({ groups: 'web' })).to.deep.equal([
        "2:62: tunnels[0].groups: expected a list of groups, found 'web'",
      ]);
      const many = Array.from({ length: 21 }, (_, at) => `g${at}`).join(', ');
      expect(wrong({ groups: `[${many}]` })).to.deep.equal([
        '2:62: tunnels[0].groups: expected at most 20 groups, found a list',
      ]);
      expect(wrong({ enabled: 'maybe' })).to.deep.equal([
        "2:63: tunnels[0].enabled: expected true or false, found 'maybe'",
      ]);
    });
  });

  describe('addresses', () => {
    const pair = (one: Record<string, string>, other: Record<string, string>, ...top: string[]) =>
      file(...top, 'tunnels:', tunnel({ name: 'one', ...one }), tunnel({ name: 'other', ...other }));
    const local = (one: string, other: string) => pair({ local_port: one }, { local_port: other });
    const remote = (one: string, other: string) =>
      pair(
        { local_port: '1', remote_port: one, direction: 'local_to_remote' },
        { local_port: '1', remote_port: other, direction: 'local_to_remote' },
      );

    it('has no twins on this side, in any spelling', () => {
      const twins = [
        ['8001', '8001'],
        ['8001', 'localhost:08001'],
        ['8001', '127.0.0.1:8001'],
        ['8001', '"[::1]:8001"'],
        ['8001', '0.0.0.0:8001'],
        ['8001', '"[::]:8001"'],
        ['"*:8001"', '"*:8001"'],
        ['"*:8001"', '10.0.0.1:8001'],
        ['"*:8001"', '"[fe80::1]:8001"'],
        ['0.0.0.0:8001', '127.0.0.2:8001'],
        ['"[0:0:0:0:0:0:0:1]:8001"', '"[::1]:8001"'],
        ['"[::ffff:127.0.0.1]:8001"', '127.0.0.1:8001'],
      ];
      for (const [one = '', other = ''] of twins) {
        const text = `${one} and ${other}`;
        expect(complaints(local(one, other)), text).to.have.length(1);
        expect(complaints(local(other, one))[0], text).to.include('that no other tunnel listens on, found');
      }
    });

    it('has no twins on the far side of one server, whoever logs in', () => {
      expect(complaints(remote('80', '127.0.0.1:80'))).to.deep.equal([
        '3:35: tunnels[1].remote_port: expected an address of its server that no other tunnel listens on, ' +
          "found 127.0.0.1:80 of tunnel 'other' (line 3), which overlaps localhost:80 of tunnel 'one' (line 2)",
      ]);
      for (const other of ['0.0.0.0:80', '"*:80"', '"[::1]:80"'])
        expect(complaints(remote('80', other))).to.have.length(1);
      expect(complaints(remote('box:80', 'BOX:80'))).to.have.length(1);
      const users = pair(
        { remote_host: 'a@h', local_port: '1', direction: 'local_to_remote' },
        { remote_host: 'b@H', local_port: '2', direction: 'local_to_remote' },
      );
      expect(complaints(users)).to.have.length(1);
    });

    it('may be those of another tunnel that is not enabled: one of two is there to be started by hand', () => {
      const two = (one: string, other: string) =>
        pair({ local_port: '8001', enabled: one }, { local_port: '8001', enabled: other });
      expect(parse(two('true', 'false')).tunnels).to.have.length(2);
      expect(parse(two('false', 'false')).tunnels).to.have.length(2);
      expect(complaints(two('true', 'true'))).to.have.length(1);
    });

    it('of servers behind different hosts are not in each other’s way', () => {
      const two = (one: string, other: string) =>
        pair(
          { local_port: '1', direction: 'local_to_remote', jump: one },
          { local_port: '1', direction: 'local_to_remote', jump: other },
        );
      expect(parse(two('a', 'b')).tunnels).to.have.length(2);
      expect(complaints(two('a', '[a]'))).to.have.length(1);
    });

    it('finds twins under ssh-standard too, where the directions are turned round', () => {
      const text = pair(
        { local_port: '8001', direction: 'local_to_remote' },
        { local_port: '8001', remote_host: 'elsewhere', direction: 'local_to_remote' },
      );
      parse(text);
      expect(complaints(`direction_mode: ssh-standard\n${text}`)).to.have.length(1);
    });

    it('are left alone while nobody knows which side listens', () => {
      for (const direction of ['remote_to_local', 'local_to_remote']) {
        const text = pair({ local_port: '8001', direction }, { local_port: '8001', direction }, 'direction_mode: ssh');
        expect(complaints(text)).to.deep.equal(["1:17: direction_mode: expected default or ssh-standard, found 'ssh'"]);
      }
    });

    it('lets neighbours be', () => {
      const neighbours = [
        local('8001', '8002'),
        local('127.0.0.1:8001', '127.0.0.2:8001'),
        local('127.0.0.1:8001', '"[::1]:8001"'),
        local('0.0.0.0:8001', '"[::]:8001"'),
        local('"[fe80::1%eth0]:8001"', '"[fe80::1%eth1]:8001"'),
        remote('80', '81'),
        remote('10.0.0.1:80', '10.0.0.2:80'),
        pair({ local_port: '80', remote_port: '1' }, { local_port: '1', direction: 'local_to_remote' }),
        pair(
          { remote_host: 'h1', local_port: '1', direction: 'local_to_remote' },
          { remote_host: 'h2', local_port: '1', direction: 'local_to_remote' },
        ),
        pair(
          { local_port: '1', direction: 'local_to_remote', ssh_options: '{Port: 2201}' },
          { local_port: '1', direction: 'local_to_remote', ssh_options: '{Port: 2202}' },
        ),
      ];
      for (const text of neighbours) expect(parse(text).tunnels, text).to.have.length(2);
    });

    it('finds a third that overlaps two', () => {
      const ports = ['127.0.0.1:8001', '"[::1]:8001"', '8001'].map((port) => tunnel({ local_port: port }));
      expect(complaints(file('tunnels:', ...ports))).to.have.length(1);
    });

    it('keeps tunnels off the address of the API', () => {
      const text = file('api: {listen: 8001}', 'tunnels:', tunnel({ local_port: '8001' }));
      expect(complaints(text)[0]).to.include('expected an address apart from that of api.listen');
      expect(parse(text.replace('listen: 8001', 'listen: 8002')).tunnels).to.have.length(1);
    });

    it('must be addresses of this host where it listens, and may be names on the far side', () => {
      expect(complaints(file('tunnels:', tunnel({ local_port: 'box:8001' })))).to.deep.equal([
        "2:51: tunnels[0].local_port: expected an IP address, localhost or * to listen on, found 'box'",
      ]);
      parse(file('tunnels:', tunnel({ local_port: 'box:1', remote_port: 'box:80', direction: 'local_to_remote' })));
      expect(complaints(file('tunnels:', tunnel({ local_port: '1', remote_port: '"*:80"' })))).to.deep.equal([
        "2:35: tunnels[0].remote_port: expected a host to connect to, found '*'",
      ]);
    });

    it('warns of a port that any outgoing connection may take', () => {
      const warnings = (fields: Record<string, string>, options: Partial<ParseOptions> = {}) =>
        parse(file('tunnels:', tunnel(fields)), options).warnings.map(({ path, message }) => `${path}: ${message}`);
      expect(warnings({ local_port: '40000' })).to.deep.equal([
        'tunnels[0].local_port: expected a port outside the ephemeral range 32768-60999, found 40000, which any ' +
          'outgoing connection may take: choose one below 32768, or add it to net.ipv4.ip_local_reserved_ports',
      ]);
      for (const port of ['32768', '60999']) expect(warnings({ local_port: port })).to.have.length(1);
      for (const port of ['32767', '61000']) expect(warnings({ local_port: port })).to.have.length(0);
      const remote = { local_port: '40000', remote_port: '40000', direction: 'local_to_remote' };
      expect(warnings(remote)).to.have.length(0);
      expect(warnings({ local_port: '40000' }, { ephemeralRange: undefined })).to.have.length(0);
    });

    it('warns of ::1 where there is none', () => {
      const text = file('tunnels:', tunnel({ local_port: '"[::1]:8001"' }));
      expect(parse(text).warnings).to.have.length(0);
      expect(parse(text, { hasIpv6Loopback: false }).warnings[0]?.message).to.include('there is no IPv6 here');
    });
  });

  describe('traps', () => {
    it('refuses more than 1 MiB', () => {
      expect(complaints('#'.repeat(2 ** 20 + 1))).to.deep.equal([
        '1:1: expected a file of at most 1 MiB, found a larger one',
      ]);
      expect(parse('#'.repeat(2 ** 20)).tunnels).to.deep.equal([]);
    });

    it('refuses a nesting that would end the stack', () => {
      for (const text of ['['.repeat(99_999), '{a: '.repeat(99_999), '- '.repeat(99_999), '? '.repeat(99_999)]) {
        expect(complaints(text)[0]).to.match(/^1:\d+: expected at most 64 levels of nesting, found more$/);
      }
      const stairs = Array.from({ length: 99 }, (_, depth) => `${' '.repeat(depth)}a:`).join('\n');
      expect(complaints(stairs)[0]).to.match(/^6\d:\d+: expected at most 64 levels/);
      // As deep as that in any other way, and no deeper than is too deep.
      const [half, quarter] = [Array.from({ length: 35 }, (_, at) => at), Array.from({ length: 18 }, (_, at) => at)];
      const steps = half.map((depth) => `${' '.repeat(2 * depth)}- a:`).join('\n');
      const mixed = [
        ...quarter.map((depth) => `${' '.repeat(depth)}a:`),
        `${' '.repeat(18)}- ${'? '.repeat(18)}${'['.repeat(18)}${'{a: '.repeat(18)}`,
      ].join('\n');
      for (const text of ['['.repeat(70), '- '.repeat(70), '? '.repeat(70), '{a: '.repeat(70), steps, mixed]) {
        expect(complaints(text)[0], text).to.match(/: expected at most 64 levels of nesting, found more$/);
      }
    });

    it('refuses aliases that multiply, and aliases of nothing', () => {
      const bomb = ['a: &a0 [x]'];
      for (let n = 1; n < 9; n++) bomb.push(`b${n}: &a${n} [${`*a${n - 1}, `.repeat(9)}]`);
      expect(complaints(bomb.join('\n'))[0]).to.match(/aliases that stand for at most 1000 values/);
      expect(complaints('tunnels:\n  - *gone\n')).to.deep.equal([
        '2:5: tunnels[0]: expected an anchor &gone before its alias, found none',
      ]);
    });

    it('survives an alias to itself', () => {
      expect(complaints('tunnels: &t [*t]')).to.deep.equal(['1:14: tunnels[0]: expected a mapping, found a list']);
    });

    it('reports more unknown keys than a call can have arguments', function () {
      this.timeout(60_000);
      const text = Array.from({ length: 150_000 }, (_, n) => `${n.toString(36).padStart(4, '_')}:`).join('\n');
      expect(rejection(() => parse(text)).message).to.match(/\n… and 149900 more$/);
    });

    const outcome = (text: string): boolean => {
      try {
        return Array.isArray(parse(text).tunnels);
      } catch (error) {
        return isTunwardError(error, 'ERR_CONFIG_INVALID') && error.info.problems.length > 0;
      }
    };

    it('returns or throws ERR_CONFIG_INVALID on any text', () => {
      fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), outcome), { numRuns: 500 });
    });

    it('returns or throws ERR_CONFIG_INVALID on any text made of YAML', () => {
      const words = ['tunnels:', 'name', 'remote_host: h', 'local_port: 1', 'ssh_options', 'api', 'listen', '&a', '*a'];
      const signs = [
        ':',
        ' ',
        '  ',
        '\n',
        '- ',
        '? ',
        '{',
        '}',
        '[',
        ']',
        ',',
        '"',
        "'",
        '|',
        '>',
        '#',
        '!!map',
        '!!set',
      ];
      const rare = [
        '%YAML 1.1\n---\n',
        '<<: ',
        '!x',
        '---',
        '...',
        '~',
        '\t',
        '0x1',
        '2001-01-01',
        '!!binary',
        '\0',
        '@',
      ];
      const piece = fc.constantFrom(...words, ...signs, ...signs, ...rare);
      const text = fc.array(piece, { maxLength: 40 }).map((pieces) => pieces.join(''));
      fc.assert(fc.property(text, outcome), { numRuns: 2000 });
    });

    it('returns or throws ERR_CONFIG_INVALID on any value anywhere', () => {
      const known = [
        'tunnels',
        'name',
        'remote_host',
        'remote_port',
        'local_port',
        'api',
        'listen',
        'ssh_options',
        'backoff',
      ];
      const key = fc.oneof(fc.constantFrom(...known), fc.string());
      const json = fc.jsonValue({ maxDepth: 2 });
      const { value } = fc.letrec((tie) => ({
        value: fc.oneof(
          { maxDepth: 3 },
          json,
          fc.array(tie('value'), { maxLength: 5 }),
          fc.dictionary(key, tie('value'), { maxKeys: 5 }),
        ),
      }));
      const whole = value.map((any) => JSON.stringify(any));
      const list = fc.array(fc.dictionary(key, json, { maxKeys: 5 }), { maxLength: 5 });
      const tunnels = list.map((items) => JSON.stringify({ tunnels: items }));
      fc.assert(fc.property(fc.oneof(whole, tunnels), outcome), { numRuns: 500 });
    });
  });
});

describe('defaultPaths()', () => {
  it('keeps root in the folders of the system, whatever the environment says', () => {
    expect(defaultPaths({ HOME: '/root', XDG_STATE_HOME: '/s', XDG_RUNTIME_DIR: '/r' }, 0)).to.deep.equal({
      logDir: '/var/log/tunward',
      stateDir: '/var/lib/tunward',
      socket: '/run/tunward/tunward.sock',
    });
  });

  it("follows a user's XDG folders", () => {
    expect(defaultPaths({ HOME: '/home/u', XDG_STATE_HOME: '/s', XDG_RUNTIME_DIR: '/r' }, 1000)).to.deep.equal({
      logDir: '/s/tunward/log',
      stateDir: '/s/tunward',
      socket: '/r/tunward.sock',
    });
  });

  it('ignores XDG folders that are relative or empty', () => {
    const { stateDir, socket } = defaultPaths({ HOME: '/home/u', XDG_STATE_HOME: 's', XDG_RUNTIME_DIR: '' }, 1000);
    expect(stateDir).to.equal('/home/u/.local/state/tunward');
    expect(socket).to.equal('/home/u/.local/state/tunward/tunward.sock');
  });

  it('gives a user without a home the folders of the system', () => {
    expect(defaultPaths({}, 1000)).to.deep.equal({
      logDir: '/var/log/tunward',
      stateDir: '/var/lib/tunward',
      socket: '/var/lib/tunward/tunward.sock',
    });
  });
});

describe('finding and loading', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-config-'));
  });
  afterEach(() => {
    rmSync(dir, { recursive: true, force: true });
  });

  function write(path: string, text: string | Uint8Array = ''): string {
    const target = join(dir, path);
    mkdirSync(join(target, '..'), { recursive: true });
    writeFileSync(target, text);
    return target;
  }

  describe('findConfigFile()', () => {
    it('looks in five places, in their order', () => {
      const env = { TUNWARD_CONFIG: 'env.yaml', XDG_CONFIG_HOME: join(dir, 'xdg'), HOME: join(dir, 'home') };
      const places = ['x.yaml', 'cwd/env.yaml', 'cwd/tunward.yaml', 'xdg/tunward/tunward.yaml', 'etc/tunward.yaml'];
      const [explicit, named, ...rest] = places.map((place) => write(place));
      const at = { env, cwd: join(dir, 'cwd'), systemDir: join(dir, 'etc') };
      expect(findConfigFile({ ...at, explicit: '../x.yaml' })).to.equal(explicit);
      expect(findConfigFile(at)).to.equal(named);
      const unnamed = { ...at, env: { ...env, TUNWARD_CONFIG: '' } };
      for (const file of rest) {
        expect(findConfigFile(unnamed)).to.equal(file);
        rmSync(file);
      }
      expect(findConfigFile(unnamed)).to.equal(undefined);
    });

    it('looks in ~/.config without XDG_CONFIG_HOME', () => {
      const file = write('home/.config/tunward/tunward.yaml');
      const env = { HOME: join(dir, 'home') };
      expect(findConfigFile({ env, cwd: dir, systemDir: join(dir, 'etc') })).to.equal(file);
    });

    it('refuses a named file that does not exist, though there are others', () => {
      write('tunward.yaml');
      const named = rejection(() => findConfigFile({ explicit: 'gone.yaml', env: {}, cwd: dir }));
      expect(named.message).to.equal(`${dir}/gone.yaml:1:1: expected the file that the option -c names, found nothing`);
      const fromEnv = rejection(() => findConfigFile({ env: { TUNWARD_CONFIG: 'gone.yaml' }, cwd: dir }));
      expect(fromEnv.message).to.include('expected the file that $TUNWARD_CONFIG names');
    });
  });

  describe('loadConfig()', () => {
    const load = (file?: string) => loadConfig({ file, env: { HOME: dir }, cwd: dir, uid: 1000, systemDir: dir });

    it('finds, reads and parses', async () => {
      const file = write('tunward.yaml', `log_dir: logs\ntunnels:\n${tunnel({ local_port: '40000' })}\n`);
      const config = await loadConfig({ env: {}, cwd: dir, uid: 1000, ephemeralRange: [39999, 40001] });
      expect(config.file).to.equal(file);
      expect(config.logDir).to.equal(join(dir, 'logs'));
      expect(config.warnings).to.have.length(1);
    });

    it('follows a link', async () => {
      const file = write('real.yaml', 'engine: ssh');
      symlinkSync(file, join(dir, 'link.yaml'));
      expect((await load('link.yaml')).file).to.equal(join(dir, 'link.yaml'));
    });

    it('names the file in every problem', async () => {
      const file = write('tunward.yaml', 'engine: sh\n');
      expect((await rejected(load())).message).to.match(new RegExp(`^${file}:1:9: engine: `));
    });

    it('says where it looked when there is none', async () => {
      const { message } = await rejected(load());
      expect(message).to.include('found no tunward.yaml in').and.include('create one, or name it with -c');
    });

    it('refuses a folder', async () => {
      mkdirSync(join(dir, 'tunward.yaml'));
      expect((await rejected(load())).message).to.include('expected a regular file, found a folder');
    });

    it('refuses a FIFO and does not wait for its writer', async () => {
      execFileSync('mkfifo', [join(dir, 'fifo')]);
      expect((await rejected(load('fifo'))).message).to.include('expected a regular file, found a pipe or a device');
    });

    it('refuses a socket and a device', async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(join(dir, 'socket'), resolve));
      try {
        expect((await rejected(load('socket'))).message).to.include('found a socket');
        expect((await rejected(load('/dev/zero'))).message).to.include('expected a regular file');
      } finally {
        server.close();
      }
    });

    it('refuses 2 MiB and takes 1 MiB', async () => {
      write('tunward.yaml', '#'.repeat(2 ** 21));
      expect((await rejected(load())).message).to.include('expected a file of at most 1 MiB');
      write('tunward.yaml', '#'.repeat(2 ** 20));
      expect((await load()).tunnels).to.deep.equal([]);
    });

    it('refuses a path through a file, and bytes that are not UTF-8', async () => {
      write('tunward.yaml', Uint8Array.of(0x61, 0xff));
      expect((await rejected(load())).message).to.include('expected UTF-8 text');
      expect((await rejected(load('tunward.yaml/x'))).message).to.include('found nothing');
    });

    it('refuses links that go in a circle', async () => {
      symlinkSync('a', join(dir, 'b'));
      symlinkSync('b', join(dir, 'a'));
      expect((await rejected(load('a'))).message).to.include('found symbolic links that go in a circle');
    });

    it('tells a file that may not be read from one that is not there', async () => {
      const file = write('locked/tunward.yaml');
      chmodSync(join(dir, 'locked'), 0o000);
      const isRoot = process.getuid?.() === 0;
      if (isRoot) process.seteuid?.(65_534); // root reads everything
      try {
        expect((await rejected(load(file))).message).to.include('found one that may not be read');
      } finally {
        if (isRoot) process.seteuid?.(0);
        chmodSync(join(dir, 'locked'), 0o700);
      }
    });
  });
});
