import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freeLocalPort } from '../../support/port.js';

/** Where strings are let in, and what would be there if one of them was run. */
export interface Site {
  readonly dir: string;
  /** The folder that paths in a configuration start from, and its home. */
  readonly fileDir: string;
  /** The folder in which commands are run, and their home. Nothing comes to be there. */
  readonly workDir: string;
  /** Files of ssh_config that hand everything on to a shell, as people's own may do. */
  readonly configs: readonly string[];
  /** Nobody listens there, so that every ssh comes to its end at once. */
  readonly closedPort: number;
  /** To listen on. */
  readonly port: number;
  canaryOf(at: number): string;
  /** The files that nothing should have made. A canary's name is the number of its string. */
  canaries(): string[];
  remove(): void;
}

export async function makeSite(): Promise<Site> {
  // Short: the names of its files stand in every string.
  const dir = mkdtempSync(join(tmpdir(), 'x1-'));
  const [canaryDir, fileDir, workDir] = [join(dir, 'c'), join(dir, 'files'), join(dir, 'work')];
  for (const folder of [canaryDir, fileDir, workDir]) mkdirSync(folder);
  const [closedPort, port] = [await freeLocalPort(), await freeLocalPort()];
  return {
    ...{ dir, fileDir, workDir, closedPort, port },
    configs: writeConfigs(dir, closedPort),
    canaryOf: (at) => join(canaryDir, String(at)),
    canaries: () => [...readdirSync(canaryDir), ...readdirSync(workDir)],
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/** By `Match exec`, by ProxyCommand: what ssh puts in place of a token is part of what a shell is to run. */
function writeConfigs(dir: string, port: number): string[] {
  const asked = ['Match exec "echo %h %n %r %p %k >/dev/null"', '  ForwardAgent no', 'Host *', '  HostName 127.0.0.1'];
  const common = [...asked, `  Port ${port}`, '  ConnectTimeout 2', `  UserKnownHostsFile ${join(dir, 'known_hosts')}`];
  const texts = { asking: common, through: [...common, '  ProxyCommand echo %h %n %r %p >/dev/null'] };
  return Object.entries(texts).map(([name, lines]) => {
    const file = join(dir, name);
    writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 });
    return file;
  });
}
