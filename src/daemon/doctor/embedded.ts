import path from 'node:path';
import { isTunwardError } from '../../errors.js';
import { destinationArguments } from '../../tunnel/arguments.js';
import type { HostFacts } from '../../tunnel/embedded/facts.js';
import { knownNameOf } from '../../tunnel/embedded/host-key.js';
import { type KeyFile, readKeyFile } from '../../tunnel/embedded/keys.js';
import { readKnownHosts } from '../../tunnel/embedded/known-hosts.js';
import { planHops } from '../../tunnel/embedded/route.js';
import { loadSsh2 } from '../../tunnel/embedded/ssh2.js';
import { nameServer } from '../../tunnel/embedded/trouble.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import { type Check, count, failed, ok, type Surroundings, warning } from './check.js';
import { findEmbedded } from './programs.js';

/** Where the client inside the daemon logs in, be it on the way to another, and what it finds of that. */
interface Place {
  readonly spec: TunnelSpec;
  /** As the configuration calls a destination; a jump host by its address. */
  readonly name: string;
  readonly isHop: boolean;
  readonly facts: HostFacts;
}

/** What the client inside the daemon would log in with, and whom it would believe. Nothing is connected. */
export async function checkEmbedded(surroundings: Surroundings, hasAgent: boolean): Promise<Check[]> {
  const { places, complaints } = await readPlaces(surroundings);
  if (places.length === 0) return complaints;
  const servers = tellApart(places);
  return [...complaints, ...checkKeys(places, hasAgent), ...servers.flatMap(complainOfHost), ...checkHosts(servers)];
}

/** Each destination once, and each jump host that is reached by the same means. */
async function readPlaces({ config, env }: Surroundings) {
  const embedded = [...findEmbedded({ config, env })];
  const wayOf = (spec: TunnelSpec) => JSON.stringify([destinationArguments(spec), spec.jump]);
  const specs = new Map(embedded.map((spec) => [wayOf(spec), spec]));
  const knownHosts = config && path.join(config.stateDir, 'known_hosts');
  const destinations: Place[] = [];
  const hops = new Map<string, Place>();
  const complaints: Check[] = [];
  for (const spec of specs.values()) {
    try {
      const route = await planHops(spec, { env, knownHosts });
      for (const [at, facts] of route.entries()) {
        const isHop = at < route.length - 1;
        const name = isHop ? nameServer(facts) : spec.remoteHost;
        if (!isHop) destinations.push({ spec, name, isHop, facts });
        else hops.set(JSON.stringify([facts, spec.interactive]), { spec, name, isHop, facts });
      }
    } catch (error) {
      if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
      const remedy = "correct it there, or take 'engine: ssh' where there is one";
      complaints.push(failed('ssh config', `${spec.remoteHost}: ${error.message}`, remedy));
    }
  }
  return { places: [...destinations, ...hops.values()], complaints };
}

/** A file that is of no use is worse where there is nothing else. */
function checkKeys(places: readonly Place[], hasAgent: boolean): Check[] {
  const ssh2 = loadSsh2();
  const files = new Map<string, KeyFile>();
  const read = (file: string): KeyFile => {
    const found = files.get(file) ?? readKeyFile(ssh2, file);
    files.set(file, found);
    return found;
  };
  const complaints = new Map<string, Check>();
  const without: string[] = [];
  for (const { spec, name, facts } of places) {
    const found = facts.identityFiles.map(read);
    const isBare = !hasAgent && !found.some(({ kind }) => kind === 'key' || (kind === 'locked' && spec.interactive));
    const wrong = found.flatMap(
      (file) => complainOfKey(file, { isNamed: facts.areIdentitiesNamed, isBare, spec }) ?? [],
    );
    for (const check of wrong) {
      if (complaints.get(check.finding)?.status !== 'failed') complaints.set(check.finding, check);
    }
    if (isBare && wrong.length === 0) without.push(name);
  }
  if (complaints.size > 0) return [...complaints.values()];
  const usable = [...files.values()].filter(({ kind }) => kind === 'key' || kind === 'locked').length;
  const hops = places.filter(({ isHop }) => isHop).length;
  const rest = hops === 0 ? '' : ` and ${count(hops, 'jump host')}`;
  const finding = `${count(usable, 'key file')} for ${count(places.length - hops, 'destination')}${rest}`;
  if (without.length === 0) return [ok('keys', finding)];
  const remedy = 'name one with identity_file, or start an agent: nobody is there to type a password';
  return [warning('keys', `no key for ${without.join(', ')}, and no agent`, remedy)];
}

function complainOfKey(
  found: KeyFile,
  { isNamed, isBare, spec }: { readonly isNamed: boolean; readonly isBare: boolean; readonly spec: TunnelSpec },
): Check | undefined {
  const say = isBare ? failed : warning;
  if (found.kind === 'unusable') return say('keys', found.why, 'mend that, or name another with identity_file');
  if (found.kind === 'absent' && isNamed) {
    return say('keys', `${found.file} is not there`, 'create it, or correct identity_file');
  }
  if (found.kind !== 'locked' || spec.interactive || !isBare) return undefined;
  const remedy = "put it into an agent, make the tunnel 'interactive: true', or take a key without one";
  return failed('keys', `${found.file} has a passphrase, and nobody is there to type it`, remedy);
}

/** One may be a destination here and a jump host there: to whoever asks for its key it is one server. */
function tellApart(places: readonly Place[]): Place[] {
  const servers = new Map<string, Place>();
  for (const place of places) {
    const { knownHostsFiles, strictHostKeyChecking } = place.facts;
    const which = JSON.stringify([knownNameOf(place.facts), knownHostsFiles, strictHostKeyChecking]);
    if (!servers.has(which)) servers.set(which, place);
  }
  return [...servers.values()];
}

function isKnown({ facts }: Place): boolean {
  const { host, port } = knownNameOf(facts);
  return readKnownHosts(facts.knownHostsFiles).typesOf(host, port).length > 0;
}

function complainOfHost(place: Place): Check[] {
  const { name, facts } = place;
  if (facts.strictHostKeyChecking !== 'yes' || isKnown(place)) return [];
  const finding = `no key of ${name} in ${facts.knownHostsFiles.join(', ')}, and StrictHostKeyChecking is yes`;
  return [failed('host keys', finding, 'write it down there, or take StrictHostKeyChecking accept-new')];
}

function checkHosts(places: readonly Place[]): Check[] {
  const met = places.filter(isKnown).length;
  const fresh = places.filter((each) => each.facts.strictHostKeyChecking !== 'yes' && !isKnown(each));
  const into = [...new Set(fresh.map(({ facts }) => facts.newKeysFile ?? 'no file'))];
  const rest = fresh.length === 0 ? '' : `; ${fresh.length} to be met, whose keys go into ${into.join(', ')}`;
  return [ok('host keys', `${met} of ${count(places.length, 'server')} known${rest}`)];
}
