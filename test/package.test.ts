import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { buildRoot, repoRoot } from './support/paths.js';

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
    ]);
    expect(files.filter((file) => /^(test|bench|examples|\.build|node_modules)\//.test(file))).to.deep.equal([]);
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
