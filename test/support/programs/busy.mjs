// Loaded before a daemon (`node --import`): makes it slow, as the file says that TUNWARD_BUSY names. It is read at the
// start, and again at every SIGUSR2: `{"blockMs": 2000, "afterMs": 80}` blocks the event loop for 2 s, 80 ms from then;
// `{"syncMs": 500}` makes every wait for the disk that long from then on. A block that is over is a line in the
// file `<that file>.done`.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const file = process.env.TUNWARD_BUSY;
const { readFileSync, appendFileSync, fsyncSync } = fs;
const cell = new Int32Array(new SharedArrayBuffer(4));
let syncMs = 0;

fs.fsyncSync = (fd) => {
  stand(syncMs);
  return fsyncSync(fd);
};
syncBuiltinESMExports();
// The class of file handles has no other name.
const handle = await fs.promises.open('/dev/null', 'r');
const FileHandle = Object.getPrototypeOf(handle);
const { sync } = FileHandle;
FileHandle.sync = async function slowSync() {
  await sleep(syncMs);
  return sync.call(this);
};
await handle.close();

process.on('SIGUSR2', obey);
obey();

function obey() {
  const { blockMs = 0, afterMs = 0, ...rest } = JSON.parse(readFileSync(file, 'utf8'));
  syncMs = rest.syncMs ?? 0;
  if (blockMs > 0) setTimeout(block, afterMs, blockMs);
}

function block(ms) {
  stand(ms);
  appendFileSync(`${file}.done`, `${ms}\n`);
}

function stand(ms) {
  if (ms > 0) Atomics.wait(cell, 0, 0, ms);
}
