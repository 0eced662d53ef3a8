import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../../errors.js';
import { findMount } from '../../proc/mounts.js';
import type { Proc } from '../../proc/read.js';
import { readUserName } from '../../proc/stat.js';
import { defaultPaths } from '../source.js';
import { type Check, failed, ok, type Surroundings, warning } from './check.js';

/** What the daemon reads and writes: may it, and who else may? */
export function checkFolders({ proc, env, uid, config }: Surroundings): Check[] {
  const paths = defaultPaths({ ...env }, uid);
  const { stateDir = paths.stateDir, logDir = paths.logDir } = config ?? {};
  const socketDir = path.dirname(config?.api.socket ?? paths.socket);
  return [
    ...(config ? checkFile(config.file, uid) : []),
    keepsState(proc, stateDir, checkFolder('state', stateDir, uid)),
    checkFolder('logs', logDir, uid),
    checkFolder('socket', socketDir, uid),
  ];
}

/** Whoever may write to the configuration sends the tunnels wherever he likes. */
function checkFile(file: string, uid: number): Check[] {
  return [file, path.dirname(file)].flatMap((each) => {
    const risk = strangersIn(each, uid);
    return risk ? [warning('config file', `${each} ${risk.finding}`, risk.remedy)] : [];
  });
}

function checkFolder(check: string, folder: string, uid: number): Check {
  const there = nearestExisting(folder);
  const stat = fs.statSync(there);
  if (!stat.isDirectory()) return failed(check, `${there} is no folder`, `name another one than ${folder}`);
  const refusal = refusalOf(there);
  if (refusal !== undefined) {
    const who = `by ${readUserName(uid)}: ${refusal}`;
    const another = 'or name another one in the configuration';
    return there === folder
      ? failed(check, `${folder} may not be written to ${who}`, `chown ${uid} ${folder}, ${another}`)
      : failed(check, `${folder} cannot be made in ${there} ${who}`, `make it, and chown ${uid} ${folder}, ${another}`);
  }
  if (there !== folder) return ok(check, `${folder} will be made`);
  const risk = strangersIn(folder, uid);
  return risk ? warning(check, `${folder} ${risk.finding}`, risk.remedy) : ok(check, folder);
}

/** The folder itself, or the first above it that there is. */
function nearestExisting(folder: string): string {
  let there = folder;
  while (!fs.existsSync(there) && there !== path.dirname(there)) there = path.dirname(there);
  return there;
}

function refusalOf(folder: string): string | undefined {
  try {
    fs.accessSync(folder, fs.constants.W_OK | fs.constants.X_OK);
    return undefined;
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM')) return 'no permission';
    if (isErrno(error, 'EROFS')) return 'a read-only file system';
    throw error;
  }
}

/** Who else may write there: its owner, when that is neither this user nor root, and everybody by its mode. */
function strangersIn(file: string, uid: number): { readonly finding: string; readonly remedy: string } | undefined {
  const { uid: owner, mode } = fs.statSync(file);
  if (owner !== uid && owner !== 0) {
    return { finding: `belongs to ${readUserName(owner)}`, remedy: `chown ${readUserName(uid)} ${file}` };
  }
  // In a sticky folder, as /tmp is, nobody takes away what is another's.
  const isOpen = (mode & 0o002) !== 0 && (mode & 0o1000) === 0;
  return isOpen ? { finding: 'may be written to by everybody', remedy: `chmod o-w ${file}` } : undefined;
}

/** What is lost with the container, or with the next boot. */
const passing: Readonly<Record<string, string>> = {
  overlay: "the container's own layer",
  aufs: "the container's own layer",
  tmpfs: 'memory',
  ramfs: 'memory',
};

function keepsState(proc: Proc, folder: string, found: Check): Check {
  if (found.status !== 'ok') return found;
  const type = findMount(proc, fs.realpathSync(nearestExisting(folder)))?.type ?? '';
  const where = passing[type];
  if (where === undefined) return found;
  const finding = `${found.finding}, on ${where} (${type}): with it go the host keys, and what marks our chains as ours`;
  return warning('state', finding, 'put it on a volume');
}
