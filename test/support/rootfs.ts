import { execFileSync, spawnSync } from 'node:child_process';
import {
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import {
  type Contained,
  type ContainedOptions,
  type ContainedResult,
  loopbackUp,
  settle,
  startContained,
} from './namespace.js';
import { which } from './paths.js';

export interface RootfsOptions extends ContainedOptions {
  /** Host paths, each a folder or a file, and where they are seen inside. */
  readonly bind?: readonly (readonly [hostPath: string, insidePath: string])[];
  /** `own` (default): nothing but a loopback interface. `shared`: the caller's, to reach a server outside the root. */
  readonly network?: 'own' | 'shared';
  /** Who runs it; default: root. It has no other groups, and as an ordinary user no capabilities. */
  readonly user?: { readonly uid: number; readonly gid: number };
  /** Nothing can be written but what is bound, and what is memory: folders (`/run`), each with options of its mount. */
  readonly readOnly?: boolean;
  readonly tmpfs?: readonly (readonly [insidePath: string, options: string])[];
}

/**
 * Makes, in `dir`, a root file system that holds this Node, the named binaries, the libraries they load, a minimal /etc and /dev,
 * and nothing else: no shell. The binaries keep their absolute paths (autossh runs /usr/bin/ssh) and are all in /bin
 * too, which is the PATH. Needs root (device nodes).
 *
 * @example
 * const dir = await mkdtemp(join(tmpdir(), 'rootfs-'));
 * makeRootfs(dir, ['ssh', 'autossh']);
 * const { stdout } = await runInRootfs(dir, ['node', '/app/lib/cli/main.js', '--version'], { bind: [[lib, '/app/lib']] });
 */
export function makeRootfs(dir: string, binaries: readonly string[] = []): void {
  for (const folder of ['bin', 'proc', 'dev/pts', 'tmp', 'etc', 'root', 'run', 'var/log']) {
    mkdirSync(join(dir, folder), { recursive: true });
  }
  execFileSync('chmod', ['1777', join(dir, 'tmp')]);
  putBinary(dir, 'node', process.execPath);
  for (const name of binaries) putBinary(dir, name, realBinary(name));
  writeEtc(join(dir, 'etc'));
  makeDevices(join(dir, 'dev'));
}

/** Runs a program as pid 1 inside, as a container does, and waits for its end. Rejects when it is late or fails. */
export async function runInRootfs(
  dir: string,
  argv: readonly string[],
  options: RootfsOptions = {},
): Promise<ContainedResult> {
  return settle(startInRootfs(dir, argv, options), argv.join(' '), options);
}

/**
 * Starts a program inside that stays: a daemon. Its environment is PATH, HOME and `env` alone. `timeoutMs` and `anyExit`
 * do not count here: the caller ends it with `kill()`.
 */
export function startInRootfs(dir: string, argv: readonly string[], options: RootfsOptions = {}): Contained {
  const { bind = [], network = 'own', env = {}, tmpfs = [] } = options;
  for (const [hostPath, insidePath] of bind) makeMountPoint(hostPath, join(dir, insidePath));
  for (const [insidePath] of tmpfs) mkdirSync(join(dir, insidePath), { recursive: true });
  const mounts = bind.flatMap(([hostPath, insidePath]) => [hostPath, join(dir, insidePath)]);
  const inner = { PATH: '/bin', HOME: '/root', ...env };
  const script = enterScript(options);
  return startContained(network === 'own' ? ['-n'] : [], [script, dir, ...mounts, '--', ...argv], inner);
}

// The mounts are private to the namespace and vanish with it. `exec`: no shell remains, not even outside of the root.
function enterScript({ network = 'own', user, readOnly = false, tmpfs = [] }: RootfsOptions): string {
  const memory = tmpfs.map(([path, options]) => `mount -t tmpfs -o '${options}' tmpfs "$root${path}"`);
  const as = user ? `--userspec=${user.uid}:${user.gid} --groups=` : '';
  return `
    set -e
    inner=$PATH; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    ${network === 'own' ? loopbackUp : ':'}
    root=$1; shift
    mount --bind "$root" "$root"
    while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done; shift
    mount -t proc proc "$root/proc"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ${memory.join('\n')}
    ${readOnly ? 'mount -o remount,bind,ro "$root"' : ':'}
    chroot=$(command -v chroot); PATH=$inner
    exec "$chroot" ${as} "$root" "$@"`;
}

/** Debian's /usr/bin/autossh is a shell script around the binary. */
function realBinary(name: string): string {
  const wrapped = `/usr/lib/${name}/${name}`;
  const found = existsSync(wrapped) ? wrapped : which(name);
  if (!found) throw new Error(`Cannot put ${name} into the root: it is not installed`);
  return found;
}

/** Puts one more program of this host, and what it loads, into a root. */
export function addBinary(dir: string, name: string): void {
  putBinary(dir, name, realBinary(name));
}

function putBinary(dir: string, name: string, path: string): void {
  const real = realpathSync(path);
  put(dir, real, real);
  for (const library of librariesOf(real)) put(dir, library, library);
  if (!existsSync(join(dir, 'bin', name))) symlinkSync(real, join(dir, 'bin', name));
  // Programs find each other by the path they were built with: /usr/bin/ssh also where that is a link.
  if (path !== real && basename(path) === name) put(dir, real, path);
}

function librariesOf(binary: string): string[] {
  const { stdout } = spawnSync('ldd', [binary], { encoding: 'utf8' });
  const loaded = stdout.match(/\/[^\s)]+/g) ?? [];
  const folders = new Set(loaded.map((path) => dirname(path)));
  // Loaded by name at run time, where the C library does not hold them itself (glibc before 2.34).
  const services = [...folders].flatMap((folder) =>
    ['libnss_files.so.2', 'libnss_dns.so.2'].map((lib) => join(folder, lib)),
  );
  return [...new Set([...loaded, ...services])].filter((path) => path !== binary && existsSync(path));
}

function put(dir: string, from: string, to: string): void {
  const target = join(dir, to);
  mkdirSync(dirname(target), { recursive: true });
  if (!existsSync(target)) copyFileSync(from, target, constants.COPYFILE_FICLONE);
}

function writeEtc(etc: string): void {
  writeFileSync(join(etc, 'passwd'), 'root:x:0:0:root:/root:/bin/node\nnobody:x:65534:65534:nobody:/:/bin/node\n');
  writeFileSync(join(etc, 'group'), 'root:x:0:\nnogroup:x:65534:\n');
  writeFileSync(join(etc, 'hosts'), '127.0.0.1 localhost\n::1 localhost\n');
  writeFileSync(join(etc, 'nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files\n');
}

function makeDevices(dev: string): void {
  const nodes = { null: [1, 3], zero: [1, 5], random: [1, 8], urandom: [1, 9], tty: [5, 0], ptmx: [5, 2] };
  for (const [name, [major, minor]] of Object.entries(nodes)) {
    const path = join(dev, name);
    if (!existsSync(path)) execFileSync('mknod', ['-m', '666', path, 'c', String(major), String(minor)]);
  }
}

function makeMountPoint(hostPath: string, target: string): void {
  const isFolder = statSync(hostPath).isDirectory();
  mkdirSync(isFolder ? target : dirname(target), { recursive: true });
  if (!isFolder && !existsSync(target)) writeFileSync(target, '');
}
