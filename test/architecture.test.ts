/**
 * ARCHITECTURE.md as a test, over the lines of the source: who may import whom, and who keeps which dangerous door.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { repoRoot } from './support/paths.js';

interface Import {
  /** A file under src/, or a package's name. */
  readonly to: string;
  readonly kind: 'static' | 'lazy' | 'type';
}

interface Source {
  readonly name: string;
  /** Without comments. */
  readonly code: string;
  readonly imports: readonly Import[];
}

/** From the bottom up: a layer imports itself and what is below it. */
const layers = [
  ['errors.ts', 'wire.ts', 'time.ts'],
  ['proc/'],
  ['kill.ts', 'hunt.ts'],
  ['port/'],
  ['tunnel/'],
  ['sshd/'],
  ['daemon/'],
  ['cli/', 'index.ts', 'door.ts'],
  ['testing.ts', 'testing/'],
  ['panel/'],
] as const;

/** The doors: what opens one, and who may. The demo and the test kit have actors of their own. */
const keepers: readonly { readonly door: string; readonly opens: RegExp; readonly keepers: readonly string[] }[] = [
  {
    door: 'processes are started',
    opens: /node:child_process/,
    keepers: [
      'tunnel/chain.ts',
      'tunnel/asking/pty-process.ts',
      'cli/detach.ts',
      'cli/demo/actors.ts',
      'testing/spawn.ts',
    ],
  },
  // A program that stops itself, as Ctrl-Z asks it to, sends nobody a signal.
  {
    door: 'signals are sent',
    opens: /\bprocess\.kill\b(?!\(process\.pid, 'SIGTSTP'\))|\bchild\.kill\(/,
    // What puts ssh on a terminal ends its own child, which nobody else can have reaped.
    keepers: ['hunt.ts', 'tunnel/asking/pty-process.ts'],
  },
  {
    door: 'time is told and waited for',
    opens: /\b(setTimeout|setInterval|setImmediate)\b|\bperformance\.now|\bDate\.now|\bnew Date\(\)|node:timers/,
    // A browser has a clock of its own.
    keepers: ['time.ts', 'panel/clock.ts', 'tunnel/asking/pty-process.ts'],
  },
  {
    door: 'the environment is read',
    opens: /\bprocess\.env\b/,
    keepers: ['daemon/environment.ts', 'daemon/config.ts', 'cli/main.ts', 'testing/environment.ts'],
  },
  {
    door: 'people are written to',
    opens: /\bprocess\.(stdout|stderr)\b(?!\.isTTY)|\bconsole\./,
    keepers: ['cli/render.ts'],
  },
  {
    door: 'the process is ended',
    opens: /\bprocess\.exit\(/,
    keepers: ['cli/main.ts', 'testing/actor.ts', 'tunnel/asking/pty-process.ts'],
  },
  {
    door: 'files are watched',
    opens: /\bfs\.watch|\bwatchFile\b.*'node:fs|\bFSWatcher\b|import \{[^}]*\bwatch\b[^}]*\} from 'node:fs/,
    keepers: ['daemon/watch.ts'],
  },
  // Out there is the hook's; the others ask a daemon, the target of a tunnel that is checked, and the demo's own server.
  {
    door: 'somebody is asked by HTTP',
    opens: /\bhttp\.(request|get)\(|node:(https|http2)\b|\bundici\b/,
    keepers: ['daemon/hook.ts', 'cli/exchange.ts', 'tunnel/check.ts', 'cli/demo/traffic.ts'],
  },
  { door: 'the page asks the daemon', opens: /(?<![.\w])fetch\(/, keepers: ['panel/api.ts'] },
  {
    door: 'the daemon is asked by WebSocket',
    opens: /\bnew WebSocket\(/,
    keepers: ['cli/terminal-client.ts', 'panel/terminal-link.ts'],
  },
  { door: 'ssh2 is loaded', opens: /vendor\/ssh2\.cjs/, keepers: ['tunnel/embedded/ssh2.ts'] },
  { door: 'the page loads xterm.js', opens: /\bimport\('@xterm/, keepers: ['panel/terminal-screen.ts'] },
  { door: 'the page listens to the daemon', opens: /\bEventSource\b/, keepers: ['panel/stream.ts'] },
  {
    door: 'the page keeps something',
    opens: /\b(local|session)Storage\b/,
    keepers: ['panel/settings.ts', 'panel/first.ts'],
  },
  // An actor of the demo gives itself a name there.
  { door: '/proc is opened', opens: /['"`]\/proc\b/, keepers: ['proc/read.ts', 'cli/demo/actor.ts'] },
];

const folder = join(repoRoot, 'src');
const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map(readSource);

describe('the architecture', () => {
  it('has a layer for every file', () => {
    expect(sources.length).to.be.greaterThan(20);
    expect(sources.map(({ name }) => name).filter((name) => layerOf(name) < 0)).to.deep.equal([]);
  });

  it('lets each layer import itself and what is below it', () => {
    const upwards = edges().filter(([from, to]) => layerOf(to) > layerOf(from));
    expect(upwards.map(([from, to]) => `${from} → ${to}`)).to.deep.equal([]);
  });

  it('has no circle of imports', () => {
    expect(findCircle(edges())).to.deep.equal([]);
  });

  it('keeps everything up to the tunnels free of packages, but for the four that the portable back end loads when it is asked, and what reads a line of ssh_config', () => {
    const tunnels = layerOf('tunnel/');
    const foreign = sources
      .filter(({ name }) => layerOf(name) <= tunnels)
      .flatMap(({ name, imports }) => imports.filter(isPackage).map(({ to, kind }) => `${name} → ${to} (${kind})`));
    const four = ['find-process', 'pidusage', 'ps-tree', 'tcp-port-used'];
    // Of ssh2, which is shipped as one file, there are types; that file is loaded in one place.
    const isOfSsh2 = (text: string) => /^tunnel\/embedded\/\S+ → ssh2 \(type\)$/.test(text);
    expect(foreign.filter((text) => !isOfSsh2(text)).sort()).to.deep.equal([
      ...four.map((name) => `proc/packages.ts → ${name} (lazy)`),
      'tunnel/embedded/ssh-config/line.ts → ssh-config (lazy)',
    ]);
  });

  it('loads the portable back end only where it is asked for', () => {
    const edgesTo = (file: string) =>
      sources.flatMap(({ name, imports }) =>
        imports.filter(({ to, kind }) => to === file && kind === 'static').map(() => name),
      );
    expect(edgesTo('proc/packages.ts')).to.deep.equal(['proc/portable.ts']);
    expect(edgesTo('proc/portable.ts')).to.deep.equal(['port/portable.ts']);
    expect(edgesTo('port/portable.ts')).to.deep.equal([]);
  });

  for (const { door, opens, keepers: allowed } of keepers) {
    it(`has one place where ${door}: ${allowed.join(', ')}`, () => {
      const opening = sources.filter(({ code }) => opens.test(code)).map(({ name }) => name);
      expect(opening).to.have.members(allowed.filter((name) => opening.includes(name)));
      expect(opening, 'a keeper that keeps nothing').not.to.deep.equal([]);
    });
  }

  it('gives the page nothing of the rooms but their types, and nothing of the page to them', () => {
    const panel = sources.filter(({ name }) => name.startsWith('panel/'));
    const foreign = panel.flatMap(({ name, imports }) =>
      imports
        .filter(({ to, kind }) => kind !== 'type' && !to.startsWith('panel/') && !/^lit-html(\/|$)/.test(to))
        // Loaded when somebody opens a terminal.
        .filter(({ to, kind }) => !(kind === 'lazy' && to.startsWith('@xterm/')))
        .map(({ to }) => `${name} → ${to}`),
    );
    expect(foreign).to.deep.equal([]);
    expect(edges().filter(([from, to]) => to.startsWith('panel/') && !from.startsWith('panel/'))).to.deep.equal([]);
    const types = panel.flatMap(({ name, imports }) =>
      imports.flatMap(({ to }) => (to.startsWith('#lib/') ? name : [])),
    );
    expect([...new Set(types)]).to.deep.equal(['panel/types.ts']);
  });

  it('makes markup of templates alone, never of a text', () => {
    const maker =
      /\b(innerHTML|outerHTML|insertAdjacentHTML|unsafeHTML|unsafeSVG|srcdoc|document\.write|eval|new Function)\b/;
    const makers = sources.filter(({ name, code }) => name.startsWith('panel/') && maker.test(code));
    expect(makers.map(({ name }) => name)).to.deep.equal([]);
  });

  it('has one barrel, and no drawer for what has no home', () => {
    const names = sources.map(({ name }) => name);
    expect(names.filter((name) => /(^|\/)index\.ts$/.test(name))).to.deep.equal(['index.ts']);
    expect(names.filter((name) => /(^|\/)(utils?|helpers?|common|misc)(\/|\.)/.test(name))).to.deep.equal([]);
  });

  it('loads no package with the library and the test kit', () => {
    const loaded = loadedWith('index.ts', 'testing.ts', 'testing/mocha.ts');
    expect(loaded).to.include.members(['kill.ts', 'testing/tree.ts']);
    const packages = loaded.flatMap((name) =>
      sourceOf(name).imports.filter((each) => isLoaded(each) && isPackage(each)),
    );
    expect(packages).to.deep.equal([]);
  });

  it('loads with the library no more than the kill, whatever it is that somebody will call', () => {
    const loaded = loadedWith('index.ts');
    expect(loaded).to.include('kill.ts');
    expect(loaded.filter((name) => /^(port|tunnel|daemon|cli|testing)\//.test(name))).to.deep.equal([]);
  });

  it('is a library also where no package is installed', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-bare-'));
    try {
      cpSync(join(repoRoot, 'lib'), join(dir, 'lib'), { recursive: true });
      writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
      const program = `const tunward = await import('${dir}/lib/index.js');
        const supervisor = tunward.createSupervisor({ env: {} });
        console.log(await tunward.isPortFree(20001), typeof tunward.startDaemon, supervisor.list())`;
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
        cwd: dir,
      });
      expect(stdout).to.match(/^(true|false) function \[\]\n$/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

function readSource(name: string): Source {
  const text = readFileSync(join(folder, name), 'utf8');
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/ .*$/gm, '');
  return { name, code, imports: readImports(name, code) };
}

function readImports(name: string, code: string): Import[] {
  const found = (pattern: RegExp, kind: Import['kind'] | undefined) =>
    [...code.matchAll(pattern)].map(([, head = '', to = '']) => ({
      to: resolve(name, to),
      kind: kind ?? (isTypeOnly(head) ? ('type' as const) : ('static' as const)),
    }));
  return [
    ...found(/^((?:import|export)\b[^'"]*?\bfrom\s+)['"]([^'"]+)['"]/gm, undefined),
    ...found(/^(import\s+)['"]([^'"]+)['"]/gm, 'static'),
    ...found(/(\bimport\()\s*['"]([^'"]+)['"]/g, 'lazy'),
    ...found(/(\brequireNow\()['"]([^'"]+)['"]/g, 'lazy'),
  ];
}

/** `import type …`, or braces in which every name is a type: nothing of it is loaded. */
function isTypeOnly(head: string): boolean {
  if (/^(import|export)\s+type\b/.test(head)) return true;
  const names = /^(?:import|export)\s*\{([^}]*)\}/.exec(head)?.[1]?.split(',') ?? [''];
  return names.every((each) => each.trim().startsWith('type ') || (each.trim() === '' && names.length > 1));
}

/** `./net.js` in `proc/fd.ts` is `proc/net.ts`; a package stays what it is. */
function resolve(from: string, to: string): string {
  if (!to.startsWith('.')) return to;
  return relative(folder, join(folder, dirname(from), to)).replace(/\.js$/, '.ts');
}

function isPackage({ to }: Import): boolean {
  return !to.startsWith('node:') && !to.endsWith('.ts');
}

/** The files that are there once these have been imported. */
function loadedWith(...names: string[]): string[] {
  const loaded = new Set(names);
  for (const name of loaded) {
    for (const each of sourceOf(name).imports) if (isLoaded(each) && each.to.endsWith('.ts')) loaded.add(each.to);
  }
  return [...loaded];
}

function isLoaded({ kind }: Import): boolean {
  return kind === 'static';
}

function edges(): [string, string][] {
  return sources.flatMap(({ name, imports }) =>
    imports.filter(({ to }) => to.endsWith('.ts')).map(({ to }): [string, string] => [name, to]),
  );
}

function layerOf(name: string): number {
  return layers.findIndex((members) => members.some((member) => name === member || name.startsWith(member)));
}

function sourceOf(name: string): Source {
  const source = sources.find((candidate) => candidate.name === name);
  if (!source) throw new Error(`${name} is imported and not there`);
  return source;
}

/** Whoever is imported by none that remains goes, again and again; those who are left import each other. */
function findCircle(all: readonly [string, string][]): string[] {
  let remaining = all;
  for (;;) {
    const imported = new Set(remaining.map(([, to]) => to));
    const inside = remaining.filter(([from]) => imported.has(from));
    if (inside.length === remaining.length) return [...new Set(remaining.map(([from]) => from))].sort();
    remaining = inside;
  }
}
