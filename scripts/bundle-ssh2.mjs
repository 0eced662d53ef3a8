/**
 * Makes lib/vendor/ssh2.cjs: the package ssh2 and what it needs, as one file. Its install script, which compiles an addon
 * and says so where it cannot, is thereby nobody's business: `npm i tunward` runs none. Without the addon ssh2 takes
 * node:crypto for its ciphers, and WebAssembly for poly1305.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const vendor = join(root, 'lib/vendor');
/** Compiled code, which ssh2 does without when it is not there. */
const addons = /^cpu-features$|\.node$/;

/** The module with ssh2's ciphers. */
const ciphers = '/ssh2/lib/protocol/crypto.js';

/** node:crypto for that module, with random bytes out of a pool, each of which is given out once. */
const pool = `
  const crypto = require('node:crypto');
  const bytes = Buffer.alloc(4096);
  let used = bytes.length;
  module.exports = Object.create(crypto);
  module.exports.randomFillSync = (target, offset, size) => {
    if (size > bytes.length - used) {
      crypto.randomFillSync(bytes);
      used = 0;
    }
    bytes.copy(target, offset, used, used + size);
    used += size;
  };
`;

let isHeard = false;
let isPooled = false;

const bundle = await rolldown({
  input: createRequire(import.meta.url).resolve('ssh2'),
  platform: 'node',
  plugins: [
    {
      name: 'without-addons',
      resolveId: (id) => (addons.test(id) ? `\0addon:${id}` : null),
      load: (id) => (id.startsWith('\0addon:') ? "throw new Error('not part of tunward');" : null),
    },
    {
      // Asked for each packet's padding by itself, the kernel's random bytes are a tenth of the CPU time of an upload.
      name: 'random-bytes-from-a-pool',
      resolveId: (id, importer) => (id === 'crypto' && importer?.endsWith(ciphers) ? '\0pool' : null),
      load: (id) => {
        if (id !== '\0pool') return null;
        isPooled = true;
        return pool;
      },
    },
    {
      // It makes WebAssembly ready when it is loaded. Where there is no room for that (ulimit -v), whoever connects is told;
      // the promise by itself would end the process.
      name: 'heard-rejection',
      transform: (code, id) => {
        if (!id.endsWith(ciphers)) return null;
        isHeard = /\binit:/.test(code);
        return `${code}\nmodule.exports.init.catch(() => undefined);\n`;
      },
    },
  ],
});
mkdirSync(vendor, { recursive: true });
const { output } = await bundle.write({ file: join(vendor, 'ssh2.cjs'), format: 'cjs', exports: 'auto' });
await bundle.close();
if (!isPooled) throw new Error('ssh2 has its ciphers, and the padding of packets, elsewhere than in lib/protocol/crypto.js');
if (!isHeard) throw new Error('ssh2 makes its WebAssembly ready elsewhere than in lib/protocol/crypto.js');

const packages = new Set(
  output.flatMap((chunk) => Object.keys(chunk.modules ?? {})).flatMap((file) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []),
);
const notices = [...packages].sort().map((folder) => {
  const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const licence = readdirSync(folder).find((file) => /^(LICEN[CS]E|COPYING)/i.test(file));
  if (licence === undefined) throw new Error(`${name} has no file with its licence`);
  return `${name} ${version}\n\n${readFileSync(join(folder, licence), 'utf8').trim()}\n`;
});
writeFileSync(join(vendor, 'LICENSES.txt'), notices.join(`\n${'-'.repeat(80)}\n\n`));
