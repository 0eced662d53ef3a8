/**
 * The program that puts one ssh on a pseudo-terminal, a process for each: `pty-process.js node-pty columns rows program words…`.
 *
 * node-pty's master has no FD_CLOEXEC: whatever a process starts after it has opened one inherits it, and a terminal that
 * somebody still holds is never hung up. Here the only child is that ssh, and it gets /dev/null in the master's place.
 *
 * The process leads a session without a terminal; the slave, opened without O_NOCTTY, becomes its controlling terminal
 * (tty_ioctl(4)), on which ssh finds /dev/tty and asks. What ssh says otherwise goes to descriptor 2, which is the
 * daemon's pipe as for every ssh. Descriptors 0 and 1 are what is typed and what is drawn. When the daemon is gone
 * (its channel closes) ssh is ended; when this process is, the kernel hangs up its session, and ssh ends by SIGHUP.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { FromHelper, ToHelper } from './pty.js';

/** What is used of node-pty, which is optional: its types may not be there. */
interface NodePty {
  open(size: { cols: number; rows: number; encoding: null }): {
    readonly master: net.Socket;
    readonly slave: net.Socket;
    readonly fd: number;
    readonly ptsName: string;
    resize(columns: number, rows: number): void;
  };
}

const [nodePty = '', columns = '80', rows = '24', program = '', ...words] = process.argv.slice(2);
await run();

async function run(): Promise<void> {
  let terminal: ReturnType<NodePty['open']>;
  try {
    const loaded = (await import(nodePty)) as { readonly default: NodePty };
    terminal = loaded.default.open({ cols: Number(columns), rows: Number(rows), encoding: null });
  } catch (error) {
    await tell({ type: 'unavailable', message: error instanceof Error ? error.message : String(error) });
    return end(1);
  }
  // node-pty reads from the slave as well, and would take what is typed away from ssh.
  terminal.slave.destroy();
  // Kept open: a master whose slave nobody has reads EIO, and ssh opens its terminal no sooner than it asks.
  fs.openSync(terminal.ptsName, 'r+');
  // Keys that send a signal to the whole terminal are meant for ssh.
  for (const name of ['SIGINT', 'SIGQUIT', 'SIGTSTP', 'SIGHUP'] as const) process.on(name, () => undefined);
  const ssh = start(terminal.fd);
  const keys = new net.Socket({ fd: 0, readable: true, writable: false });
  const screen = new net.Socket({ fd: 1, readable: false, writable: true });
  let isReleased = false;
  // Whoever sat there may have gone, which is the daemon's to judge.
  for (const stream of [keys, screen, terminal.master]) stream.on('error', () => undefined);
  pass(keys, terminal.master, () => isReleased);
  pass(terminal.master, screen, () => isReleased);
  process.on('message', (message: ToHelper) => {
    if (message.type === 'resize') terminal.resize(message.columns, message.rows);
    else isReleased = true;
  });
  process.on('disconnect', () => {
    ssh.kill('SIGKILL');
    end(1);
  });
  ssh.on('error', (error) => {
    void tell({ type: 'unavailable', message: error.message }).then(() => end(1));
  });
  ssh.on('exit', async (code, signal) => {
    await settled(screen);
    await tell({ type: 'exited', code, signal });
    end(code ?? 1);
  });
  await tell({ type: 'started' });
}

/** In the place of the master, which it would inherit, it has /dev/null. */
function start(master: number): ChildProcess {
  const nothing = fs.openSync('/dev/null', 'r+');
  const others = Array.from({ length: Math.max(0, master - 3) }, () => 'ignore' as const);
  const ssh = spawn(program, words, { stdio: ['ignore', 'ignore', 2, ...others, nothing] });
  fs.closeSync(nothing);
  return ssh;
}

/** From one to the other, no faster than that takes it, and wiped when it has. After the release nothing goes anywhere. */
function pass(from: Readable, to: Writable, isReleased: () => boolean): void {
  from.on('data', (bytes: Buffer) => {
    const wipe = () => void bytes.fill(0);
    if (isReleased() || to.destroyed) return wipe();
    if (to.write(bytes, wipe)) return;
    from.pause();
    to.once('drain', () => from.resume());
    // Nobody takes it any more.
    to.once('close', () => from.resume());
  });
}

/** What has been drawn is on its way. The reader of the other end may stand still: a turn or two, and no more. */
async function settled(screen: Writable): Promise<void> {
  for (let turn = 0; turn < 5 || (screen.writableLength > 0 && turn < 50); turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function tell(message: FromHelper): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected || !process.send) return resolve();
    process.send(message, () => resolve());
  });
}

function end(code: number): void {
  process.exit(code);
}
