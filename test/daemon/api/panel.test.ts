import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { expect } from 'chai';
import { createPanelFiles } from '#lib/daemon/api/panel.js';
import { repoRoot } from '../../support/paths.js';

describe('the files of the panel', () => {
  const fileOf = createPanelFiles();
  const textOf = (path: string): string => {
    const file = fileOf(path);
    if (!file) throw new Error(`${path} is not served`);
    return file.body.toString('utf8');
  };

  it('are the page, its style, its icon, and every module that is imported', () => {
    expect(fileOf('/')?.headers['content-type']).to.equal('text/html; charset=utf-8');
    expect(fileOf('/panel/style.css')?.headers['content-type']).to.equal('text/css; charset=utf-8');
    expect(fileOf('/panel/icon.svg')?.headers['content-type']).to.equal('image/svg+xml');
    expect(fileOf('/panel/first.js')?.headers['content-type']).to.equal('text/javascript; charset=utf-8');
    const { imports } = JSON.parse(/<script type="importmap">([\s\S]*?)<\/script>/.exec(textOf('/'))?.[1] ?? '');
    const seen = new Set(['/panel/app.js']);
    for (const path of seen) {
      expect(fileOf(path)?.headers['content-type'], path).to.equal('text/javascript; charset=utf-8');
      for (const [, to = ''] of textOf(path).matchAll(/(?:^|[;}])(?:import|export)\b[^'"`;=()]*['"]([^'"]+)['"]/gm)) {
        if (to.startsWith('.')) seen.add(posix.join(dirname(path), to));
        else if (imports[to]) seen.add(imports[to]);
        else seen.add(to.replace(/^lit-html\//, imports['lit-html/']));
      }
    }
    // Asked for at once, not one after another as they name each other: that counts through a slow ssh.
    const preloaded = [...textOf('/').matchAll(/rel="modulepreload" href="([^"]+)"/g)].map(([, to]) => to);
    expect(preloaded).to.have.members([...seen]);
    expect([...seen]).to.include.members(['/panel/chinese.js', '/panel/vendor/lit-html/directives/repeat.js']);
  });

  it('are those of xterm.js as well, which nobody is given who opens no terminal', () => {
    const { imports } = JSON.parse(/<script type="importmap">([\s\S]*?)<\/script>/.exec(textOf('/'))?.[1] ?? '');
    for (const name of ['@xterm/xterm', '@xterm/addon-fit']) {
      expect(fileOf(imports[name])?.headers['content-type'], name).to.equal('text/javascript; charset=utf-8');
    }
    const [, style = ''] = /'(\/panel\/vendor\/[^']+\.css)'/.exec(textOf('/panel/terminal-screen.js')) ?? [];
    expect(fileOf(style)?.headers['content-type']).to.equal('text/css; charset=utf-8');
    expect(textOf('/').replace(/<script type="importmap">[\s\S]*?<\/script>/, '')).not.to.include('xterm');
  });

  it('allow the import map by its digest, and nothing that is unsafe', () => {
    const [, map = ''] = /<script type="importmap">([\s\S]*?)<\/script>/.exec(textOf('/')) ?? [];
    const policy = fileOf('/')?.headers['content-security-policy'] ?? '';
    expect(policy).to.include(`'sha256-${createHash('sha256').update(map).digest('base64')}'`);
    expect(policy)
      .to.include("default-src 'none'")
      .and.include("frame-ancestors 'none'")
      .and.not.match(/unsafe|\*|http/);
    expect(textOf('/')).not.to.match(/\son\w+=|\sstyle=|javascript:|https?:/);
  });

  it('are framed by nobody, sniffed at by nobody, and new as soon as they have changed', () => {
    for (const path of ['/', '/panel/app.js', '/panel/style.css', '/panel/vendor/lit-html/lit-html.js']) {
      expect(fileOf(path)?.headers, path).to.include({
        'cache-control': 'no-cache',
        'x-content-type-options': 'nosniff',
        'x-frame-options': 'DENY',
        'referrer-policy': 'no-referrer',
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-resource-policy': 'same-origin',
      });
      expect(fileOf(path)?.headers.etag, path).to.match(/^"[\w-]{27}"$/);
    }
    expect(fileOf('/')?.headers.etag).not.to.equal(fileOf('/panel/app.js')?.headers.etag);
  });

  it('are those of a list, whatever path is asked for', () => {
    const asked = [
      '/panel',
      '/panel/',
      '/index.html',
      '/panel/index.html',
      '/panel/app.ts',
      '/panel/app.d.ts',
      '/panel/tsconfig.json',
      '/panel/../package.json',
      '/panel/..%2fpackage.json',
      '/panel/%2e%2e/package.json',
      '/panel/vendor/lit-html/../../../package.json',
      '/panel/vendor/lit-html/package.json',
      '//panel/app.js',
      '/panel//app.js',
      '/panel/app.js\0',
      '/panel/__proto__',
      'constructor',
      '',
    ];
    expect(asked.filter((path) => fileOf(path) !== undefined)).to.deep.equal([]);
  });

  it('follow no link out of their folder', () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-panel-'));
    try {
      for (const name of ['sources', 'modules', 'vendor']) mkdirSync(join(dir, name));
      writeFileSync(join(dir, 'sources/index.html'), '<!doctype html>');
      writeFileSync(join(dir, 'secret'), 'token');
      symlinkSync(join(dir, 'secret'), join(dir, 'modules/secret.js'));
      writeFileSync(join(dir, 'modules/app.js'), '');
      const of = createPanelFiles({
        sources: join(dir, 'sources'),
        modules: join(dir, 'modules'),
        vendor: { 'lit-html': join(dir, 'vendor'), xterm: join(dir, 'vendor'), 'xterm-addon-fit': join(dir, 'vendor') },
      });
      expect(of('/panel/app.js')?.body.length).to.equal(0);
      expect(of('/panel/secret.js')).to.equal(undefined);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('are none where the panel has not been built', () => {
    const vendor = { 'lit-html': '/nonexistent', xterm: '/nonexistent', 'xterm-addon-fit': '/nonexistent' };
    const nowhere = { sources: '/nonexistent', modules: '/nonexistent', vendor };
    expect(createPanelFiles(nowhere)('/')).to.equal(undefined);
  });

  it('keep a theme of one’s own without a word of script in the page', () => {
    const html = readFileSync(join(repoRoot, 'src/panel/index.html'), 'utf8');
    const inline = [...html.matchAll(/<script(?![^>]*\bsrc=)[^>]*>/g)].map(([tag]) => tag);
    expect(inline).to.deep.equal(['<script type="importmap">']);
  });
});
