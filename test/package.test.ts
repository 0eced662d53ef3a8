import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { buildRoot, repoRoot } from './support/paths.js';
import { startRegistry } from './support/registry.js';

interface Manifest {
  readonly dependencies: Record<string, string>;
  readonly optionalDependencies: Record<string, string>;
  readonly peerDependencies: Record<string, string>;
  readonly peerDependenciesMeta: Record<string, { optional: boolean }>;
  readonly devDependencies: Record<string, string>;
}

interface Lock {
  readonly packages: Record<string, { hasInstallScript?: boolean; dev?: boolean; peer?: boolean; resolved?: string }>;
}

describe('the package', () => {
  const manifest: Manifest = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'));
  const lock: Lock = JSON.parse(readFileSync(join(repoRoot, 'package-lock.json'), 'utf8'));

  it('ships what was built, with its types and sources, and no tests', function () {
    this.timeout(60_000);
    // Packing would build anew (prepare) under the feet of the other tests, so its one other script is run by itself.
    execFileSync('npm', ['run', 'prepack'], { cwd: repoRoot, stdio: 'pipe' });
    const npm = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
      cwd: repoRoot,
      encoding: 'utf8',
      stdio: 'pipe',
    });
    const printed = JSON.parse(npm.slice(npm.search(/^[[{]/m)));
    const [pack] = Array.isArray(printed) ? printed : Object.values(printed);
    const files: string[] = pack.files.map(({ path }: { path: string }) => path);
    expect(files).to.include.members([
      'lib/index.js',
      'lib/index.d.ts',
      'lib/cli/main.js',
      'lib/testing.js',
      'lib/testing/mocha.d.ts',
      'lib/testing/actor.js',
      'src/index.ts',
      'lib/panel/app.js',
      'src/panel/index.html',
      'src/panel/style.css',
      'src/panel/icon.svg',
      'docs/testing.md',
      'README.md',
      'README.zh.md',
      'LICENSE',
      'lib/vendor/ssh2.cjs',
      'lib/vendor/LICENSES.txt',
    ]);
    expect(pack.size, 'MB, packed').to.be.below(2e6);
    expect(pack.unpackedSize, 'MB, unpacked').to.be.below(8e6);
    expect(files.filter((file) => /^(test|bench|examples|\.build|node_modules)\//.test(file))).to.deep.equal([]);
  });

  it('has ssh2 as one file, with the licences of all that is in it and no path of the machine that made it', () => {
    const vendor = join(repoRoot, 'lib/vendor');
    const licences = readFileSync(join(vendor, 'LICENSES.txt'), 'utf8');
    for (const name of ['ssh2', 'asn1', 'bcrypt-pbkdf', 'safer-buffer', 'tweetnacl']) {
      expect(licences).to.match(new RegExp(`^${name} \\d+\\.\\d+`, 'm'));
    }
    for (const file of readdirSync(vendor)) {
      const text = readFileSync(join(vendor, file), 'utf8');
      expect(text.match(/(?<![\w.~])\/(home|root|tmp|Users|work|build|usr\/local)\//g), file).to.equal(null);
      expect(text).not.to.include(repoRoot);
    }
  });

  it('has types that a strict program can check, without naming those of Node itself', function () {
    this.timeout(60_000);
    // Inside the package, so that it finds itself by its name; `types` is empty unless it is set, since TypeScript 6.
    const folder = mkdtempSync(join(buildRoot, 'consumer-'));
    const options = { module: 'nodenext', target: 'es2022', strict: true, exactOptionalPropertyTypes: true };
    const compilerOptions = { ...options, types: [], skipLibCheck: false, noEmit: true };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }));
    const lines = ['tunward', 'tunward/testing', 'tunward/testing/mocha'].map((name) => `export {} from '${name}';`);
    writeFileSync(join(folder, 'main.ts'), lines.join('\n'));
    const tsc = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', folder], { cwd: repoRoot });
    expect(String(tsc.stdout)).to.equal('');
    expect(tsc.status).to.equal(0);
    rmSync(folder, { recursive: true });
  });

  it('runs no install script for those who install it', () => {
    const scripted = Object.entries(lock.packages).filter(
      ([, entry]) => entry.hasInstallScript && !entry.dev && !entry.peer,
    );
    expect(scripted.map(([name]) => name)).to.deep.equal([]);
  });

  it('pins the tools that the benches compare it with, and takes none of them along', () => {
    const peers = JSON.parse(readFileSync(join(repoRoot, 'bench/peers/package.json'), 'utf8'));
    for (const [name, version] of Object.entries(peers.dependencies)) expect(version, name).to.match(/^\d+\.\d+\.\d+$/);
    const { packages }: Lock = JSON.parse(readFileSync(join(repoRoot, 'bench/peers/package-lock.json'), 'utf8'));
    // The lock names no host: whoever installs it asks the registry that npm is set to.
    expect(Object.values(packages).flatMap(({ resolved }) => resolved ?? [])).to.deep.equal([]);
    expect(Object.keys(packages)).to.include.members(
      Object.keys(peers.dependencies).map((name) => `node_modules/${name}`),
    );
    for (const name of ['kill-port', 'fkill', 'tree-kill', 'pidtree'])
      expect(lock.packages).not.to.have.property(`node_modules/${name}`);
  });

  it('has a slot for each package that is not needed everywhere', () => {
    expect(manifest.optionalDependencies).to.have.all.keys('find-process', 'pidusage', 'ps-tree', 'tcp-port-used');
    expect(manifest.peerDependencies).to.have.all.keys('node-pty');
    for (const name of Object.keys(manifest.peerDependencies)) {
      expect(manifest.peerDependenciesMeta[name], name).to.deep.equal({ optional: true });
    }
    expect(manifest.devDependencies['node-pty']).to.equal('npm:@lydell/node-pty@1.1.0');
    expect(Object.keys(manifest.dependencies)).to.not.include.members(['node-pty', 'ssh2']);
  });
});

describe('the package, installed in a fresh project by npm', () => {
  let dir: string;
  const project = () => join(dir, 'project');

  before(async function () {
    this.timeout(120_000);
    dir = mkdtempSync(join(tmpdir(), 'tunward-fresh-'));
    execFileSync('npm', ['run', 'prepack'], { cwd: repoRoot, stdio: 'pipe' });
    const pack = ['pack', '--ignore-scripts', '--silent', '--pack-destination', dir];
    const name = execFileSync('npm', pack, { cwd: repoRoot, encoding: 'utf8' }).trim();
    mkdirSync(project());
    writeFileSync(join(project(), 'package.json'), '{"name":"fresh","version":"1.0.0","private":true,"type":"module"}');
    await using registry = await startRegistry(repoRoot, join(dir, name));
    const said = await npm('install', 'tunward', '--registry', registry.url, '--cache', join(dir, 'cache'));
    expect(said).to.match(/added \d+ packages/);
  });
  after(() => {
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  /** Not synchronously: the registry is in this process. */
  async function npm(...words: readonly string[]): Promise<string> {
    const quiet = ['--no-audit', '--no-fund', '--foreground-scripts', '--no-update-notifier'];
    const env = { PATH: process.env.PATH, HOME: dir };
    const { stdout, stderr } = await promisify(execFile)('npm', [...words, ...quiet], { cwd: project(), env });
    return stdout + stderr;
  }

  /** Runs a program in the project, with nothing on its PATH; answers what it has said. */
  function run(text: string): string {
    writeFileSync(join(project(), 'main.js'), text);
    const options = { cwd: project(), env: { PATH: '', HOME: dir, TMPDIR: dir }, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['main.js'], { ...options, timeout: 30_000 });
    expect(status, stderr).to.equal(0);
    return stdout;
  }

  it('brings no package that runs a script, and none of ssh2', () => {
    const lock: Lock = JSON.parse(readFileSync(join(project(), 'node_modules/.package-lock.json'), 'utf8'));
    const scripted = Object.entries(lock.packages).filter(([, { hasInstallScript }]) => hasInstallScript);
    expect(scripted.map(([name]) => name)).to.deep.equal([]);
    const names = readdirSync(join(project(), 'node_modules'));
    expect(names).to.include('tunward').and.not.include.oneOf(['ssh2', 'cpu-features', 'nan', 'node-pty']);
  });

  it('loads ssh2 for whoever wants it, and with neither of its two doors', () => {
    const text = `import Module from 'node:module';
      import 'tunward';
      import { startSshServer } from 'tunward/testing';
      const isLoaded = () => Object.keys(Module._cache).some((file) => file.endsWith('ssh2.cjs'));
      const before = isLoaded();
      await (await startSshServer()).close();
      console.log(JSON.stringify([before, isLoaded()]));`;
    expect(JSON.parse(run(text))).to.deep.equal([false, true]);
  });

  it('opens a tunnel with nothing on PATH, to a server of its test kit', () => {
    const text = `import http from 'node:http';
      import { openTunnel } from 'tunward';
      import { reservePort, startSshServer, startTunnel } from 'tunward/testing';
      const service = http.createServer((request, response) => response.end('served')).listen(0, '127.0.0.1');
      await new Promise((resolve) => service.once('listening', resolve));
      const remotePort = '127.0.0.1:' + service.address().port;
      const server = await startSshServer();
      const reserved = await reservePort();
      await reserved.release();
      const localPort = '127.0.0.1:' + reserved.port;
      const asked = async (port) => (await fetch('http://127.0.0.1:' + port)).text();
      const said = [];
      for (const engine of ['embedded', 'auto']) {
        const tunnel = await openTunnel({ ...server.tunnelOptions, remotePort, localPort, engine, seamless: true });
        said.push(tunnel.status().engine, await asked(reserved.port), (await tunnel.restart()).state, await asked(reserved.port));
        await tunnel.close();
      }
      const tunnel = await startTunnel({ server, target: service });
      said.push(tunnel.status().engine, await asked(tunnel.port));
      await tunnel.close();
      await server.close();
      service.close();
      console.log(JSON.stringify(said));`;
    const one = ['embedded', 'served', 'up', 'served'];
    expect(JSON.parse(run(text))).to.deep.equal([...one, ...one, 'embedded', 'served']);
  });

  it('has a command', () => {
    const bin = join(project(), 'node_modules/.bin/tunward');
    const version = execFileSync(process.execPath, [bin, '--version'], { env: { PATH: '' }, encoding: 'utf8' });
    expect(version.trim()).to.equal(JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')).version);
  });
});
