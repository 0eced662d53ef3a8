/** docs/json.md against what the commands print: a real daemon, a real sshd, real processes. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type AskingServer, startAsking } from '../support/asking.js';
import { type Home, makeHome, tunnelIn } from '../support/daemon.js';
import { answer } from '../support/dialogue.js';
import { lacks, need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { runOnTerminal } from '../support/terminal.js';
import { mainFile, said, startTunward, tunward } from './run.js';

/** The examples below each heading of docs/json.md, by what the heading calls: `tunward ls`. */
const examples = readExamples();

describe('what is printed with --json', () => {
  const reaper = createReaper();
  const checked = new Set<string>();
  let sshd: Sshd;
  let asking: AskingServer;
  let home: Home;
  let port: number;
  before(async function () {
    need(this, 'sshd', 'ssh');
    sshd = await startSshd();
    asking = await startAsking();
    home = makeHome();
    port = await freeLocalPort();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, engine: 'ssh' };
    const target = `127.0.0.1:${sshd.port}`;
    const tunnels = [
      { ...common, name: 'web', remote_port: target, local_port: `127.0.0.1:${port}`, groups: ['staging'], jump: [] },
      { ...common, name: 'off', remote_port: target, local_port: `127.0.0.1:${await freeLocalPort()}`, enabled: false },
      { ...common, name: 'vault', remote_port: target, local_port: `127.0.0.1:${await freeLocalPort()}`, ...asks() },
    ];
    home.configure({}, tunnels);
  });
  after(async () => {
    await reaper.end();
    await sshd?.stop();
    await asking?.[Symbol.asyncDispose]();
    home?.remove();
  });
  const asks = () => ({ ssh_config: asking.sshConfigFile, interactive: true });

  it('says which version of the shapes it is', async () => {
    check('tunward --version', await json('--version'));
  });

  it('is as documented for a daemon from its start to its end', async function () {
    this.timeout(60_000);
    check('tunward up -d', await json('up', '-d', '-c', home.configFile));
    const events = startTunward(reaper, ['events', '--json', '--socket', home.socket]);
    await tunnelIn(home, 'web', 'up');
    check('tunward ls', await daemon('ls'));
    check('tunward health', await daemon('health'));
    check('tunward restart', await daemon('restart', 'web'));
    check('tunward restart', await daemon('restart', 'web', 'nobody'));
    check('tunward stop', await daemon('stop', 'web'));
    check('tunward start', await daemon('start', 'web'));
    if (!lacks('pty')) check('tunward auth', await login());
    check('tunward logs', await daemon('logs', 'web', '-n', '3'));
    check('tunward logs', await daemon('logs', '-n', '3'));
    const logs = startTunward(reaper, ['logs', 'web', '-f', '--json', '--socket', home.socket]);
    await said(logs, 'stdout', '}\n');
    check('tunward logs -f', firstRecord(logs.stdout()));
    check('tunward config get', await daemon('config', 'get'));
    const added = ['add', 'new', '-L', `${await freeLocalPort()}:db:1`, 'nobody@127.0.0.1', '--group', 'x'];
    check('tunward add', await daemon(...added));
    check('tunward rm', await daemon('rm', 'new', '--yes'));
    writeFileSync(home.configFile, readFileSync(home.configFile, 'utf8').replaceAll('staging', 'production'));
    check('tunward reload', await daemon('reload'));
    check('tunward ps', await json('ps'));
    check('tunward who', await json('who', String(port)));
    check('tunward events', await recordOf(events, 'tunnel.up'));
    check('tunward events', await recordOf(events, 'process.killed'));
    check('tunward down', await daemon('down'));
    events.child.kill('SIGINT');
    logs.child.kill('SIGINT');
    await Promise.all([events.ended, logs.ended]);
  });

  it('is as documented for ports and processes', async () => {
    const held = await freeLocalPort();
    const listener = await startListener(reaper, { port: held });
    check('tunward who', await json('who', String(held)));
    check('tunward free', await json('free', String(held), '--dry-run'));
    check('tunward tree', await json('tree', String(listener.pid)));
    check('tunward wait', await json('wait', String(held), '--listening'));
    check('tunward free', await json('free', String(held)));
    const other = await startListener(reaper);
    check('tunward kill', await json('kill', String(other.pid)));
  });

  it('is as documented without a daemon', async () => {
    check('tunward validate', await json('validate', '-c', home.configFile));
    writeFileSync(join(home.dir, 'wrong.yaml'), 'engin: ssh\n');
    check('tunward validate', await json('validate', '-c', join(home.dir, 'wrong.yaml')));
    check('tunward config show', await json('config', 'show', '-c', home.configFile));
    check('tunward init', await json('init', '-c', join(home.dir, 'new.yaml'), '--from', home.configFile));
    check('tunward doctor', await json('doctor', '-c', home.configFile));
    check('tunward completion', await json('completion', 'bash'));
    check('An error', await json('ls', '--socket', join(home.dir, 'none')));
    rmSync(join(home.dir, 'new.yaml'));
  });

  it('has nothing in its documentation that is not looked at here', () => {
    const unseen = lacks('pty') ? ['tunward auth'] : [];
    expect([...examples.keys()]).to.have.members([...checked, ...unseen]);
  });

  it('is documented for every command', async () => {
    const { stdout } = await tunward(reaper, ['__complete', '--', '']);
    const commands = stdout
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => line.split('\t')[0] ?? '');
    const documented = new Set([...examples.keys()].map((heading) => heading.split(' ')[1]));
    // Those of open are the records of events; a demo is to be looked at.
    const others = ['open', 'demo', 'help'];
    expect(commands.filter((name) => !documented.has(name) && !others.includes(name))).to.deep.equal([]);
  });

  const daemon = (...args: string[]) => json(...args, '--socket', home.socket);

  async function json(...args: string[]): Promise<unknown> {
    const { stdout } = await tunward(reaper, [...args, '--json'], { env: { HOME: home.dir } });
    return JSON.parse(stdout);
  }

  /** What asks needs a terminal, on which the record stands below the questions. */
  async function login(): Promise<unknown> {
    const command = [process.execPath, mainFile, 'auth', 'vault', '--json', '--socket', home.socket];
    const terminal = runOnTerminal(reaper, command, { columns: 200, env: { HOME: home.dir } });
    await answer(terminal, /password: $/, 'secret');
    await terminal.ended;
    return JSON.parse(terminal.bytes().slice(terminal.bytes().indexOf('{')));
  }

  async function recordOf(running: ReturnType<typeof startTunward>, type: string): Promise<unknown> {
    const find = () =>
      running
        .stdout()
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line))
        .find((record) => record.type === type);
    return until(find, { timeoutMs: 10_000, everyMs: 20 });
  }

  /** One of the examples has to be as it is: the same fields everywhere, of the same kind. */
  function check(heading: string, value: unknown): void {
    checked.add(heading);
    const known = examples.get(heading) ?? [];
    const complaints = known.map((example) => compare(example, value, '$'));
    if (complaints.some((each) => each.length === 0)) return;
    const text = JSON.stringify(value, null, 2);
    throw new Error(
      `${heading} is otherwise than docs/json.md has it:\n${complaints.map((each) => each.join('\n')).join('\nor\n')}\n${text}`,
    );
  }
});

/** What is otherwise. null stands for anything that may be missing, {} for a record of any fields. */
function compare(example: unknown, value: unknown, path: string): string[] {
  if (example === null || value === null) return [];
  if (Array.isArray(example) && Array.isArray(value)) {
    if (example.length === 0) return [];
    return value.flatMap((item, at) => {
      const complaints = example.map((each) => compare(each, item, `${path}[${at}]`));
      return complaints.some((each) => each.length === 0) ? [] : (complaints[0] ?? []);
    });
  }
  if (isRecord(example) && isRecord(value)) {
    const keys = Object.keys(example);
    if (keys.length === 0) return [];
    const missing = keys.filter((key) => !(key in value)).map((key) => `${path}.${key} is missing`);
    return [
      ...missing,
      ...Object.entries(value).flatMap(([key, field]) =>
        key in example ? compare(example[key], field, `${path}.${key}`) : [`${path}.${key} is not documented`],
      ),
    ];
  }
  return typeof example === typeof value ? [] : [`${path} is ${JSON.stringify(value)}`];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function firstRecord(text: string): unknown {
  return JSON.parse(text.split('\n')[0] ?? '');
}

function readExamples(): Map<string, unknown[]> {
  const text = readFileSync(join(repoRoot, 'docs/json.md'), 'utf8');
  const found = new Map<string, unknown[]>();
  for (const section of text.split(/^## /m).slice(1)) {
    const blocks = [...section.matchAll(/```json\n([\s\S]*?)```/g)].map(([, block = '']) => JSON.parse(block));
    if (blocks.length === 0) continue;
    const [heading = ''] = section.split('\n');
    for (const name of heading.split(', ')) found.set(name.replaceAll('`', ''), blocks);
  }
  return found;
}
