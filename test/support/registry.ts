/** A registry of npm's on 127.0.0.1: it has what is installed in the checkout, and what has been packed. No network is needed. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, dirname, join } from 'node:path';

export interface Registry {
  readonly url: string;
  [Symbol.asyncDispose](): Promise<void>;
}

interface Version {
  readonly name: string;
  readonly version: string;
  /** Makes what is sent: a tarball. */
  readonly pack: () => Buffer;
  readonly manifest: Readonly<Record<string, unknown>>;
}

/** Of what the lock file of `checkout` has installed for those who use the package; and `packed`, a tarball of its own. */
export async function startRegistry(checkout: string, packed: string): Promise<Registry> {
  const { packages } = JSON.parse(readFileSync(join(checkout, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean; peer?: boolean }>;
  };
  const folders = Object.entries(packages).filter(
    ([name, { dev, devOptional, peer }]) => name !== '' && !dev && !devOptional && !peer,
  );
  const versions = folders.flatMap(([name]) => readFolder(join(checkout, name)));
  versions.push({ ...readManifest(checkout), pack: () => readFileSync(packed) });
  const server = http.createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '').slice(1);
    const tarball = versions.find((each) => path === `-/${each.name}/${each.version}.tgz`);
    const found = versions.filter(({ name }) => name === path);
    if (tarball) response.end(tarball.pack());
    else if (found.length > 0) response.end(JSON.stringify(describe(found, `http://${request.headers.host}`)));
    else response.writeHead(404).end('{"error":"Not found"}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What is optional need not be there. */
function readFolder(folder: string): Version[] {
  if (!existsSync(folder)) return [];
  const tar = ['-C', dirname(folder), '-cz', `--exclude=${basename(folder)}/node_modules`, basename(folder)];
  return [{ ...readManifest(folder), pack: () => execFileSync('tar', tar, { maxBuffer: 64 * 1024 * 1024 }) }];
}

function readManifest(folder: string): Pick<Version, 'name' | 'version' | 'manifest'> {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const { name, version, scripts = {} } = manifest;
  const installs = ['preinstall', 'install', 'postinstall'].some((name) => name in scripts);
  return { name, version, manifest: installs ? { ...manifest, hasInstallScript: true } : manifest };
}

function describe(versions: readonly Version[], at: string) {
  const name = versions[0]?.name ?? '';
  const dist = ({ version }: Version) => ({ tarball: `${at}/-/${name}/${version}.tgz` });
  return {
    name,
    'dist-tags': { latest: versions[0]?.version },
    versions: Object.fromEntries(versions.map((each) => [each.version, { ...each.manifest, dist: dist(each) }])),
  };
}
