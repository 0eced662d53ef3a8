#!/usr/bin/env node
// An ssh that writes on its terminal without end, as no server can make the real one do. Asked for its version or for
// its configuration, it is the real one.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

const [ssh, ...words] = process.argv.slice(2);
if (words.includes('-V') || words.includes('-G')) {
  process.exit(spawnSync(ssh, words, { stdio: 'inherit' }).status ?? 1);
}
const terminal = fs.openSync('/dev/tty', 'r+');
const page = Buffer.from(`${'y'.repeat(78)}\n`.repeat(800));
// Whatever is not taken blocks here, as it does in `yes`.
for (;;) fs.writeSync(terminal, page);
