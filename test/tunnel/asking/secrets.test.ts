import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, lstatSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { byPassword, startAsking } from '../../support/asking.js';
import { need } from '../../support/need.js';
import { buildRoot } from '../../support/paths.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper } from '../../support/reaper.js';

const program = join(buildRoot, 'test/tunnel/asking/holder.js');

describe('a secret', function () {
  this.timeout(60_000);
  before(function () {
    need(this, 'ssh', 'root');
  });

  it('is nowhere once ssh has it: no command line, no environment, no file, no event, no memory', async () => {
    const [secret, decoy] = [`s3cret-${randomBytes(12).toString('hex')}`, randomBytes(32)];
    const folder = mkdtempSync(join(tmpdir(), 'tunward-secret-'));
    await using reaper = createReaper();
    await using server = await startAsking({ factors: [byPassword(secret)] });
    const child = spawn(process.execPath, [program], {
      env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...reaper.env },
      stdio: ['pipe', 'pipe', 'inherit', 'pipe', 'pipe'],
    });
    reaper.own(child);
    let said = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const options = {
      ...{ remoteHost: server.host, remotePort: 80, sshConfig: server.sshConfigFile },
      localPort: await freeLocalPort(),
      env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...reaper.env },
    };
    const [, , , secrets, settings] = child.stdio as unknown as Writable[];
    settings?.end(JSON.stringify(options));
    secrets?.write(decoy);
    await until(() => server.asked() === 1, { timeoutMs: 20_000 });
    secrets?.end(secret);
    expect(await until(() => said.includes('\nup\n'), { timeoutMs: 20_000 })).to.equal(true);

    const needle = Buffer.from(secret);
    const found = processesBut(process.pid).filter(
      (pid) => has(`/proc/${pid}/cmdline`, needle) || has(`/proc/${pid}/environ`, needle),
    );
    expect(found).to.deep.equal([]);
    expect(filesBelow(folder, server.dir).filter((file) => has(file, needle))).to.deep.equal([]);
    expect(said).not.to.include(secret);
    const { pid = 0 } = child;
    expect({ decoy: countInMemory(pid, decoy) > 0, secret: countInMemory(pid, needle) }).to.deep.equal({
      ...{ decoy: true, secret: 0 },
    });
    child.stdin?.end();
    const [code] = await once(child, 'exit');
    expect(code).to.equal(0);
    expect(await reaper.end()).to.deep.equal([]);
    expect(readdirSync(folder)).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  });
});

function processesBut(own: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== own);
}

function has(file: string, needle: Buffer): boolean {
  try {
    return readFileSync(file).includes(needle);
  } catch {
    return false; // gone meanwhile
  }
}

function filesBelow(...folders: string[]): string[] {
  const names = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  );
  return names.filter((name) => lstatSync(name).isFile());
}

/** How often these bytes are in what a process may write to. */
function countInMemory(pid: number, needle: Buffer): number {
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  let count = 0;
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const [, from = '', to = ''] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
      if (from === '') continue;
      for (const bytes of read(memory, Number.parseInt(from, 16), Number.parseInt(to, 16), needle.length)) {
        for (let at = bytes.indexOf(needle); at !== -1; at = bytes.indexOf(needle, at + 1)) count++;
      }
    }
  } finally {
    closeSync(memory);
  }
  return count;
}

/** In pieces that overlap by one byte less than what is looked for. */
function* read(memory: number, from: number, to: number, overlap: number): Generator<Buffer> {
  const piece = Buffer.alloc(4 * 1024 * 1024);
  for (let at = from; at < to; at += piece.length - (overlap - 1)) {
    try {
      yield piece.subarray(0, readSync(memory, piece, 0, Math.min(piece.length, to - at), at));
    } catch {
      return; // unmapped meanwhile, or not to be read: none of the heap's
    }
  }
}
