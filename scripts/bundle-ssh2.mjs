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

/**
 * Room for one large packet, in which one after another is put together. It is taken until its packet has been encrypted, into
 * a buffer of its own; a packet that comes meanwhile, as those do that wait for the end of a key exchange, has another one.
 */
const room = `
  function createRoom() {
    let room;
    let isTaken = false;
    return {
      take(size) {
        if (isTaken || size < 4096 || size > 65536) return Buffer.allocUnsafe(size);
        isTaken = true;
        room ??= Buffer.allocUnsafeSlow(65536);
        return room.subarray(0, size);
      },
      leave(packet) {
        if (packet.buffer === room?.buffer) isTaken = false;
      },
    };
  }
`;

/** What is put in the place of what in that module, each once, in this order. */
const edits = [
  // The nonce is one buffer for all connections, and what one of them writes may be a packet of another, through which it goes:
  // that one has written its own number there, in the middle of this packet.
  ['class ChaChaPolyCipherNative {', 'class ChaChaPolyCipherNative {'],
  ['POLY1305_OUT_COMPUTE[0] = 1;', 'writeUInt32BE(POLY1305_OUT_COMPUTE, this.outSeqno, 12);\n    POLY1305_OUT_COMPUTE[0] = 1;'],
  // A packet as large as the data in it is half of what the garbage collector has to do for an upload.
  ['class AESGCMCipherNative {', `${room}\nclass AESGCMCipherNative {\n  room = createRoom();`],
  ['Buffer.allocUnsafe(pktLen)', 'this.room.take(pktLen)'],
  ['packet.slice(0, 4)', 'Buffer.from(packet.subarray(0, 4))'],
  ['const encrypted = cipher.update(packet.slice(4));', 'const encrypted = cipher.update(packet.slice(4));\n    this.room.leave(packet);'],
  // It makes WebAssembly ready when it is loaded. Where there is no room for that (ulimit -v), whoever connects is told; the
  // promise by itself would end the process.
  ['init: ', 'init: '],
];
const heard = '\nmodule.exports.init.catch(() => undefined);\n';

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
      load: (id) => (id === '\0pool' ? pool : null),
    },
    { name: 'edited', transform: (code, id) => (id.endsWith(ciphers) ? edit(code) : null) },
  ],
});
mkdirSync(vendor, { recursive: true });
const { output } = await bundle.write({ file: join(vendor, 'ssh2.cjs'), format: 'cjs', exports: 'auto' });
await bundle.close();
const bundled = output.flatMap((chunk) => Object.keys(chunk.modules ?? {}));
for (const needed of ['\0pool', ciphers]) {
  if (!bundled.some((id) => id.endsWith(needed))) throw new Error(`ssh2 does without ${JSON.stringify(needed)}, which is edited here`);
}

const packages = new Set(
  bundled.flatMap((file) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []),
);
const notices = [...packages].sort().map((folder) => {
  const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const licence = readdirSync(folder).find((file) => /^(LICEN[CS]E|COPYING)/i.test(file));
  if (licence === undefined) throw new Error(`${name} has no file with its licence`);
  return `${name} ${version}\n\n${readFileSync(join(folder, licence), 'utf8').trim()}\n`;
});
writeFileSync(join(vendor, 'LICENSES.txt'), notices.join(`\n${'-'.repeat(80)}\n\n`));

function edit(code) {
  let edited = '';
  let at = 0;
  for (const [what, by] of edits) {
    const found = code.indexOf(what, at);
    if (found === -1) throw new Error(`ssh2 has no "${what}" in ${ciphers} any more, where it is edited`);
    edited += code.slice(at, found) + by;
    at = found + what.length;
  }
  return edited + code.slice(at) + heard;
}
