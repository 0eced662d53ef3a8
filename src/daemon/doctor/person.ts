import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isErrno, isTunwardError } from '../../errors.js';
import type { SshFacts } from '../../tunnel/arguments.js';
import { destinationArguments } from '../../tunnel/arguments.js';
import { findProgram, readSshFacts } from '../../tunnel/chain.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import { isAnswered } from '../instance.js';
import { type Check, count, failed, ok, type Surroundings, unknown, warning } from './check.js';
import { checkEmbedded } from './embedded.js';
import { findEmbedded } from './programs.js';

/** Who runs this, as ssh sees it: the user, the home, the keys, and whom it trusts. */
export async function checkPerson(surroundings: Surroundings): Promise<Check[]> {
  const home = readPasswdHome();
  const { uid } = surroundings;
  if (home === undefined && isWithoutSsh(surroundings)) {
    const agent = await checkAgent(surroundings);
    const rest = await checkEmbedded(surroundings, agent.status === 'ok' && isSet(surroundings));
    return [checkNameless(surroundings), agent, ...rest];
  }
  if (home === undefined) {
    const remedy = 'run it as a user of the image (user: in a compose file), or add the line: useradd';
    return [failed('user', `uid ${uid} has no line in /etc/passwd, so ssh refuses to run`, remedy)];
  }
  const agent = await checkAgent(surroundings);
  const hasAgent = agent.status === 'ok' && isSet(surroundings);
  const { destinations, complaints } = await readDestinations(surroundings);
  const embedded = await checkEmbedded(surroundings, hasAgent);
  return [
    checkHome(surroundings, home),
    agent,
    ...complaints,
    ...(surroundings.config && isWithoutSsh(surroundings)
      ? []
      : checkKeys(surroundings, { destinations, home, hasAgent })),
    ...checkHostKeys(surroundings, destinations),
    // Beside those of ssh, of keys and of host keys as well, a line has to say whose it is.
    ...(destinations.length === 0 ? embedded : embedded.map(tellEngine)),
  ];
}

function tellEngine(check: Check): Check {
  return { ...check, finding: `engine embedded: ${check.finding}` };
}

/** A container may be run by any number: its home is what HOME says. */
function checkNameless({ uid, env: { HOME } }: Surroundings): Check {
  const who = `uid ${uid} has no line in /etc/passwd, and the embedded engine needs none`;
  if (HOME !== undefined && path.isAbsolute(HOME)) return ok('user', `${who}; home ${HOME}`);
  return warning('user', `${who}; HOME is not set, so ~ is /`, 'set HOME to the folder that has .ssh in it');
}

/** Then ssh has no part in it: nothing of what it wants is missing. As long as nothing is configured, where there is none. */
function isWithoutSsh({ config, env }: Surroundings): boolean {
  const all = config?.tunnels.length ?? 0;
  return all > 0 ? findEmbedded({ config, env }).size === all : findProgram('ssh', env) === undefined;
}

/** The home that ssh takes `~` for, whatever HOME says. */
function readPasswdHome(): string | undefined {
  try {
    return os.userInfo().homedir;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ERR_SYSTEM_ERROR')) return undefined;
    throw error;
  }
}

function checkHome(surroundings: Surroundings, home: string): Check {
  const { env, uid } = surroundings;
  const name = os.userInfo().username;
  const who = `${name} (uid ${uid}), home ${home}`;
  if (!fs.existsSync(home)) {
    return warning('home', `${who}, which is not there`, 'make it: ssh looks there for keys and known hosts');
  }
  if (!env.HOME)
    return warning('home', `${who}, and HOME is not set`, `set HOME=${home}: "~/" in the configuration needs it`);
  if (path.resolve(env.HOME) === path.resolve(home)) return ok('home', who);
  const finding = `${who}, and HOME is ${env.HOME}`;
  // That one looks where HOME says.
  if (isWithoutSsh(surroundings)) return ok('home', finding);
  return warning(
    'home',
    finding,
    `ssh looks for keys and known hosts in ${home} alone: set HOME to it, or name the files`,
  );
}

function isSet({ env }: Surroundings): boolean {
  return Boolean(env.SSH_AUTH_SOCK);
}

async function checkAgent({ env, uid }: Surroundings): Promise<Check> {
  const socket = env.SSH_AUTH_SOCK;
  if (!socket) return ok('agent', 'none (SSH_AUTH_SOCK is not set): keys come from files');
  const remedy = 'start one, or take SSH_AUTH_SOCK out of the environment';
  if (!fs.existsSync(socket)) return warning('agent', `SSH_AUTH_SOCK names ${socket}, which is not there`, remedy);
  if (!mayUse(socket)) return warning('agent', `${socket} may not be used by uid ${uid}`, remedy);
  if (await isAnswered(socket)) return ok('agent', `one answers at ${socket}`);
  return warning('agent', `nobody answers at ${socket}`, remedy);
}

function mayUse(file: string, how = fs.constants.W_OK): boolean {
  try {
    fs.accessSync(file, how);
    return true;
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

/** Where ssh goes, and what it says of that. */
interface Destination {
  readonly spec: TunnelSpec;
  readonly facts: SshFacts;
}

/** Each destination once: `ssh -G` costs 10 ms. */
async function readDestinations({ env, config }: Surroundings) {
  const ssh = findProgram('ssh', env);
  const embedded = findEmbedded({ config, env });
  const asked = config?.tunnels.filter((spec) => !embedded.has(spec));
  const specs = new Map(asked?.map((spec) => [destinationArguments(spec).join('\0'), spec]));
  const destinations: Destination[] = [];
  const complaints: Check[] = [];
  for (const spec of ssh === undefined ? [] : specs.values()) {
    try {
      destinations.push({ spec, facts: await readSshFacts(ssh ?? '', destinationArguments(spec), env) });
    } catch (error) {
      if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
      const remedy = `correct it: ssh -G ${spec.remoteHost} says the same`;
      complaints.push(failed('ssh config', `${spec.remoteHost}: ${error.message}`, remedy));
    }
  }
  return { destinations, complaints };
}

/** What ssh would log in with. A file that it will not take is worse where there is nothing else. */
function checkKeys(
  surroundings: Surroundings,
  options: { readonly destinations: readonly Destination[]; readonly home: string; readonly hasAgent: boolean },
): Check[] {
  const { config, uid } = surroundings;
  const { destinations, home, hasAgent } = options;
  if (!config) return [unknown('keys', 'without a configuration nobody knows which')];
  const complaints = new Map<string, Check>();
  const usable = new Set<string>();
  let without = 0;
  for (const { spec, facts } of destinations) {
    const files = keyFilesOf(spec, facts, home);
    const wrong = files.flatMap((file) => complainOfKey(file, { uid, isNamed: file === spec.identityFile }) ?? []);
    const good = files.filter((file) => fs.existsSync(file) && !wrong.some((each) => each.finding.startsWith(file)));
    for (const file of good) usable.add(file);
    if (good.length === 0 && !hasAgent) without++;
    for (const each of wrong) {
      const isOnlyOne = good.length === 0 && !hasAgent;
      complaints.set(each.finding, isOnlyOne ? each : { ...each, status: 'warning' });
    }
  }
  if (complaints.size > 0) return [...complaints.values()];
  const finding = `${count(usable.size, 'key file')} for ${count(destinations.length, 'destination')}`;
  if (without === 0) return [ok('keys', finding)];
  const remedy = 'name one with identity_file, or start an agent: nobody is there to type a password';
  const bare = `no key for ${without} of ${count(destinations.length, 'destination')}, and no agent`;
  return [warning('keys', bare, remedy)];
}

/** ssh leaves out one that it was given by name and that is not there. */
function keyFilesOf({ identityFile }: TunnelSpec, { identityFiles }: SshFacts, home: string): string[] {
  const own = identityFile === null ? [] : [identityFile];
  const theirs = identityFiles.map((file) => toPath(file, home)).filter((file) => file !== undefined);
  return [...new Set([...own, ...theirs])];
}

/** `~` and `%d` are the home; what else ssh would put in is not known here. */
function toPath(written: string, home: string): string | undefined {
  const file = written.replace(/^~(?=\/)|%d/g, home);
  return file.includes('%') || !path.isAbsolute(file) ? undefined : file;
}

/** ssh takes no key of its own user that others may read ("UNPROTECTED PRIVATE KEY FILE"). */
function complainOfKey(
  file: string,
  { uid, isNamed }: { readonly uid: number; readonly isNamed: boolean },
): Check | undefined {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return isNamed ? failed('keys', `${file} is not there`, 'create it, or correct identity_file') : undefined;
  if (!mayUse(file, fs.constants.R_OK)) {
    return failed('keys', `${file} may not be read by uid ${uid}`, `make it its own: chown ${uid} ${file}`);
  }
  const mode = stat.mode & 0o777;
  if (stat.uid !== uid || (mode & 0o077) === 0) return undefined;
  const finding = `${file} has mode ${mode.toString(8).padStart(4, '0')}, and ssh takes no key that others may read`;
  return failed('keys', finding, `chmod 600 ${file}`);
}

/** Whom ssh believes to be the server. */
function checkHostKeys({ config }: Surroundings, destinations: readonly Destination[]): Check[] {
  if (!config || destinations.length === 0) return [];
  const blind = destinations.filter(({ facts }) => ['false', 'no', 'off'].includes(facts.strictHostKeyChecking));
  if (blind.length > 0) {
    const names = blind.map(({ spec }) => spec.remoteHost).join(', ');
    const remedy = 'take StrictHostKeyChecking no out of the ssh_config: accept-new is the way to meet new hosts';
    return [warning('host keys', `of ${names} any key is taken, also one that changed`, remedy)];
  }
  const file = path.join(config.stateDir, 'known_hosts');
  const own = destinations.filter(({ facts }) => facts.strictHostKeyChecking === 'ask');
  if (own.length === 0) return [ok('host keys', 'they are checked as the ssh_config says')];
  if (fs.existsSync(file) && !mayUse(file)) {
    const finding = `${file} may not be written to: a host is met for the first time at each start`;
    return [warning('host keys', finding, 'give it to the user that runs the daemon')];
  }
  return [ok('host keys', `new ones are taken at the first meeting, into ${file}`)];
}
