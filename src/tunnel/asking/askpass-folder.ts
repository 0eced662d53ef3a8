import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { isErrno, TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Way } from './program.js';

/** Of the folders of all askpass programs, so that a later life knows what a former one has left. */
const prefix = 'tunward-ask-';
const names = { socket: 'socket', program: 'askpass.cjs' } as const;
/** Of a unix socket's path the kernel keeps 108 bytes, the last of them a zero. Node cuts a longer one in silence. */
const LONGEST_PATH = 107;
/** Of a `#!` line the kernel reads so much, its end included; older ones 127. */
const LONGEST_SHEBANG = 255;
/** A folder without a socket may be one that is being made. */
const MADE_MS = 60_000;

/** A folder of our own (0700) for a socket and the program that asks through it. */
export interface AskpassFolder extends Pick<Way, 'socket' | 'nonce'> {
  readonly program: string;
  /** Leaves nothing. Never rejects for what is gone already. */
  readonly remove: () => void;
}

/** @throws TunwardError ERR_ACCESS_DENIED, ERR_SPAWN_FAILED where a program in it could not be run, each with the remedy. */
export function makeAskpassFolder(parent: string, waitMs: number): AskpassFolder {
  const interpreter = requireInterpreter(process.execPath);
  // mkdtemp puts six characters in the place of these.
  requireShort(path.join(parent, `${prefix}XXXXXX`, names.socket));
  const folder = makeFolder(parent);
  const [socket, program] = [path.join(folder, names.socket), path.join(folder, names.program)];
  const nonce = randomBytes(16).toString('hex');
  const remove = () => removeFolder(folder);
  try {
    fs.writeFileSync(program, programText(interpreter, { socket, nonce, waitMs }), { flag: 'wx', mode: 0o700 });
    fs.chmodSync(program, 0o700); // whatever the umask is
    requireExecutable(program);
  } catch (error) {
    remove();
    throw error;
  }
  return { socket, nonce, program, remove };
}

/** The way to the socket is in the program and not in the environment, which all that ssh starts would inherit. */
function programText(interpreter: string, way: Way): string {
  const module = JSON.stringify(new URL('./program.js', import.meta.url).href);
  return `#!${interpreter}
import(${module}).then(({ runAskpass }) => runAskpass(${JSON.stringify(way)}, process));
`;
}

function requireInterpreter(file: string): string {
  const fail = (why: string) => {
    const message = `Cannot ask through SSH_ASKPASS: its program is run by ${file}, and ${why}`;
    return new TunwardError('ERR_SPAWN_FAILED', message, { path: file });
  };
  const longest = LONGEST_SHEBANG - '#!\n'.length;
  if (/\s/.test(file)) throw fail("a path with blanks cannot stand in a '#!' line: install node where there are none");
  if (Buffer.byteLength(file) > longest) {
    throw fail(`a path of more than ${longest} bytes cannot stand in a '#!' line: install node at a shorter one`);
  }
  return file;
}

function requireShort(socket: string): void {
  const size = Buffer.byteLength(socket);
  if (size <= LONGEST_PATH) return;
  const message = `Cannot make a socket at ${socket}: its path has ${size} bytes, and the kernel takes ${LONGEST_PATH}; set TMPDIR to a folder with a shorter path`;
  throw new TunwardError('ERR_ACCESS_DENIED', message, { path: socket });
}

function makeFolder(parent: string): string {
  try {
    const folder = fs.mkdtempSync(path.join(parent, prefix));
    fs.chmodSync(folder, 0o700); // an umask may have taken from it
    return folder;
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'ENOSPC')) throw error;
    const message = `Cannot make a folder in ${parent}: ${error.code}`;
    throw new TunwardError('ERR_ACCESS_DENIED', message, { path: parent }, { cause: error });
  }
}

function requireExecutable(program: string): void {
  try {
    fs.accessSync(program, fs.constants.X_OK);
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM')) throw error;
    const parent = path.dirname(path.dirname(program));
    const message = `Cannot ask through SSH_ASKPASS: no program may be run in ${parent}, which is mounted noexec; set TMPDIR to a folder on another mount`;
    throw new TunwardError('ERR_SPAWN_FAILED', message, { path: parent }, { cause: error });
  }
}

/** By name: what else should be in there is not ours, and stays with its folder. */
function removeFolder(folder: string): void {
  const gone = ['ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EACCES', 'EPERM'];
  const forgive = (act: () => void) => {
    try {
      act();
    } catch (error) {
      if (!isErrno(error, ...gone)) throw error;
    }
  };
  for (const name of Object.values(names)) forgive(() => fs.unlinkSync(path.join(folder, name)));
  forgive(() => fs.rmdirSync(folder));
}

/** Removes what a life that was killed has left in `parent`: folders of ours that nobody listens in any more. */
export async function sweepAskpassFolders(parent: string, clock: Clock): Promise<void> {
  for (const folder of listFolders(parent)) {
    if (await isLeft(folder, clock)) removeFolder(folder);
  }
}

function listFolders(parent: string): string[] {
  try {
    const found = fs.readdirSync(parent).filter((name) => name.startsWith(prefix));
    return found.map((name) => path.join(parent, name));
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return []; // what is made there next will say it better
    throw error;
  }
}

async function isLeft(folder: string, clock: Clock): Promise<boolean> {
  const stat = fs.lstatSync(folder, { throwIfNoEntry: false });
  // A link is none of ours, whatever it shows; nor is a folder that others may write to.
  if (!stat?.isDirectory() || stat.uid !== process.geteuid?.() || (stat.mode & 0o077) !== 0) return false;
  const found = await knock(path.join(folder, names.socket));
  return found === 'ECONNREFUSED' || (found === 'ENOENT' && clock.wallTime() - stat.mtimeMs > MADE_MS);
}

/** Connects, and hangs up at once; answers why that failed, if it did. A unix socket answers in no time, also a frozen owner's. */
function knock(socket: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const connection = net.connect(socket, () => {
      connection.destroy();
      resolve(undefined);
    });
    connection.on('error', (error: NodeJS.ErrnoException) => resolve(error.code));
  });
}
