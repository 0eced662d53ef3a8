import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** One file of the panel as it goes out. `headers.etag` is for whoever answers 304. */
export interface PanelFile {
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** `/` or `/panel/app.js` → the file; undefined: there is no such file. */
export type PanelFiles = (pathname: string) => PanelFile | undefined;

/** Where the parts of the panel are; others than our own are for tests. */
export interface PanelFolders {
  /** What is served as it was written: `index.html`, style, icon. */
  readonly sources: string;
  /** What was compiled. */
  readonly modules: string;
  /** Packages for browsers, by the name under `/panel/vendor/`: `lit-html` is where its modules are. */
  readonly vendor: Readonly<Record<Vendor, string>>;
}

type Vendor = keyof typeof vendored;

/**
 * The files of the web page, read once, when the first of them is asked for. Who asks names a key of a list that was
 * made beforehand, and no path: there is nothing to climb out of.
 *
 * @example
 * const fileOf = createPanelFiles();
 * fileOf('/')?.headers['content-type']; // 'text/html; charset=utf-8'
 * fileOf('/panel/../package.json'); // undefined
 */
export function createPanelFiles(folders: PanelFolders = ownFolders()): PanelFiles {
  let files: ReadonlyMap<string, PanelFile> | undefined;
  return (pathname) => {
    files ??= readFiles(folders);
    return files.get(pathname);
  };
}

/** What the panel imports of packages, and what that imports. Those of xterm.js are asked for by who opens a terminal. */
const vendored = {
  'lit-html': [
    'lit-html.js',
    'directive.js',
    'directive-helpers.js',
    'directives/guard.js',
    'directives/live.js',
    'directives/repeat.js',
  ],
  xterm: ['lib/xterm.mjs', 'css/xterm.css'],
  'xterm-addon-fit': ['lib/addon-fit.mjs'],
} as const;

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

function readFiles({ sources, modules, vendor }: PanelFolders): ReadonlyMap<string, PanelFile> {
  const html = readPlain(path.join(sources, 'index.html'));
  if (html === undefined) return new Map();
  const policy = policyFor(html.toString('utf8'));
  const files = new Map([['/', toFile('index.html', html, policy)]]);
  const add = (folder: string, name: string, prefix = '') => {
    const body = readPlain(path.join(folder, name));
    if (body) files.set(`/panel/${prefix}${name}`, toFile(name, body, policy));
  };
  for (const name of listFolder(sources)) if (/\.(css|svg)$/.test(name)) add(sources, name);
  for (const name of listFolder(modules)) if (name.endsWith('.js')) add(modules, name);
  for (const [from, names] of Object.entries(vendored)) {
    for (const name of names) add(vendor[from as Vendor], name, `vendor/${from}/`);
  }
  return files;
}

function toFile(name: string, body: Buffer, policy: string): PanelFile {
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
  const type = types[path.extname(name)] ?? 'application/octet-stream';
  return { body, headers: { ...fixedHeaders, 'content-type': type, etag, 'content-security-policy': policy } };
}

/** A page that starts and kills processes is framed by nobody, opens nothing, and tells nobody where it was. */
const fixedHeaders: Readonly<Record<string, string>> = {
  // A new version of the daemon is a new page at once; what has not changed is answered with 304.
  'cache-control': 'no-cache',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
};

/** The import map is the one thing that cannot be a file, so it is allowed by its digest. Nothing is `unsafe-…`. */
function policyFor(html: string): string {
  const inline = [...html.matchAll(/<script type="importmap">([\s\S]*?)<\/script>/g)].map(
    ([, text = '']) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`,
  );
  return [
    "default-src 'none'",
    `script-src ${["'self'", ...inline].join(' ')}`,
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    // Text becomes markup in lit-html's own templates alone.
    "require-trusted-types-for 'script'",
    'trusted-types lit-html',
  ].join('; ');
}

/** Links are not followed: a file of the package is a file. */
function readPlain(file: string): Buffer | undefined {
  if (!fs.lstatSync(file, { throwIfNoEntry: false })?.isFile()) return undefined;
  return fs.readFileSync(file);
}

function listFolder(folder: string): string[] {
  return fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
}

/** From `lib/daemon/api/`, in a checkout and in an installed package alike. */
function ownFolders(): PanelFolders {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const vendor = {
    // Node is led to files of its own below `node/`; those for browsers are at the top of the package.
    'lit-html': folderOf('lit-html').replace(/[\\/]node$/, ''),
    // Their main files are in `lib/`.
    xterm: path.dirname(folderOf('@xterm/xterm')),
    'xterm-addon-fit': path.dirname(folderOf('@xterm/addon-fit')),
  };
  return { sources: path.join(root, 'src/panel'), modules: path.join(root, 'lib/panel'), vendor };
}

function folderOf(name: string): string {
  return path.dirname(fileURLToPath(import.meta.resolve(name)));
}
