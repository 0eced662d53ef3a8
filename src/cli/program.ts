import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import type { EngineChoice, Forward } from '../tunnel/spec.js';
import type { DaemonOptions } from './address.js';
import type { Verb } from './client.js';
import type { Context } from './context.js';
import type { LogOptions } from './logs.js';
import {
  type PortTarget,
  parseForwardOption,
  parseLineCount,
  parseMs,
  parsePid,
  parsePortTarget,
  parsePortTargets,
  parseSshOption,
  parseSshPort,
} from './options.js';
import type { FreeOptions } from './ports.js';
import type { KillOptions } from './processes.js';
import type { Screen } from './render.js';
import { report } from './report.js';
import type { GroupOptions, OperateOptions } from './tunnels.js';

/*
 * The table of commands. Each loads its own code when it is called, so that `tunward who 80` does not pay for the
 * daemon's libraries.
 */

/**
 * Runs one command line and answers its exit code: 0 done, 1 failed, 2 usage, 3 port still held, 4 not found,
 * 5 not permitted, 75 no daemon, 78 bad configuration, 124 timeout, 128+n ended by a signal.
 */
export async function runProgram(argv: readonly string[], context: Context): Promise<number> {
  let exit = 0;
  const program = createProgram(context.screen);
  const run: Run = async (work) => {
    exit = await work(context);
  };
  addDaemonCommands(program, run);
  addTunnelCommands(program, run);
  addPortCommands(program, run);
  addProcessCommands(program, run);
  addOtherCommands(program, run);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exit;
  } catch (error) {
    return report(error, context);
  }
}

/** Does a command's work with the context, and keeps its exit code. */
type Run = (work: (context: Context) => Promise<number>) => Promise<void>;

const examples = `Examples:
  tunward free 9443        free a port: find who holds it, kill the chain, prove it by binding
  tunward up -d            start the tunnels of tunward.yaml, and keep them up
  tunward restart web      restart a tunnel, without ever meeting "Address in use"
`;

const exitCodes = `
Exit codes: 0 done, 1 failed, 2 usage, 3 port still held, 4 not found, 5 not permitted, 75 no daemon,
78 bad configuration, 124 timeout.`;

function createProgram(screen: Screen): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return new Command('tunward')
    .description('Keeps SSH tunnels up, and frees ports: on /proc alone, without a shell or an external tool.')
    .usage('<command> [options]')
    .addHelpText('before', examples)
    .addHelpText('after', exitCodes)
    .option('--json', 'results as JSON on stdout; what streams as one record a line')
    .option('--no-color', 'no colours (NO_COLOR and FORCE_COLOR are honoured too)')
    .version(version, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show help')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: screen.write, writeErr: screen.complain })
    .exitOverride();
}

const daemonGroup = 'Daemon and tunnels:';
const portGroup = 'Ports and processes:';

function addDaemonCommands(program: Command, run: Run): void {
  program.commandsGroup(daemonGroup);
  withExample(program.command('up'), 'tunward up -c tunward.yaml')
    .description('start the daemon, in the foreground')
    .addOption(configOption())
    .option('-d, --detach', 'in the background: answer when it is ready')
    .action((options: { config?: string; detach?: boolean }) =>
      run(async (context) =>
        options.detach
          ? (await import('./detach.js')).detach(options, context)
          : (await import('./up.js')).up(options, context),
      ),
    );
  toDaemon(withExample(program.command('down'), 'tunward down'))
    .description('end the daemon and its tunnels')
    .option('--timeout <ms>', 'how long to wait for its end (default 20000)', parseMs)
    .action((options: DaemonOptions & { timeout?: number }) =>
      run(async (context) => (await import('./down.js')).down(options, context)),
    );
  toDaemon(withExample(program.command('health'), 'tunward health || echo "no daemon"'))
    .description('ask whether the daemon is there')
    .action((options: DaemonOptions) =>
      run(async (context) => (await import('./tunnels.js')).health(options, context)),
    );
  withExample(program.command('validate'), 'tunward validate -c tunward.yaml')
    .description('check the configuration; start nothing')
    .addOption(configOption())
    .action((options: { config?: string }) =>
      run(async (context) => (await import('./validate.js')).validate(options, context)),
    );
  addDoctor(program, run);
}

function addDoctor(program: Command, run: Run): void {
  toDaemon(withExample(program.command('doctor'), 'tunward doctor -c tunward.yaml'))
    .description('look at all that tunnels need: programs, keys, /proc, limits, folders, ports, configuration')
    .action((options: DaemonOptions) => run(async (context) => (await import('./doctor.js')).doctor(options, context)));
}

function addTunnelCommands(program: Command, run: Run): void {
  program.commandsGroup(daemonGroup);
  toDaemon(withExample(program.command('ls').alias('status'), 'tunward ls'))
    .description('list the tunnels and how they are')
    .addOption(groupOption())
    .action((options: GroupOptions) => run(async (context) => (await import('./tunnels.js')).list(options, context)));
  addOperation(program, run, 'start');
  addOperation(program, run, 'stop');
  addOperation(program, run, 'restart');
  toDaemon(withExample(program.command('logs'), 'tunward logs web -f'))
    .argument('[id|name|prefix]', 'one tunnel; without it all of them, each line after its name')
    .description("show the tunnels' logs")
    .option('-f, --follow', 'go on with what comes, until Ctrl-C')
    .option('-n, --lines <n>', 'how many lines of the past (default 100)', parseLineCount)
    .action((which: string | undefined, options: LogOptions) =>
      run(async (context) => (await import('./logs.js')).logs(which, options, context)),
    );
  addOpen(program, run);
}

function addOperation(program: Command, run: Run, verb: Verb): void {
  const examples = [`tunward ${verb} web`, `tunward ${verb} --group staging`, `tunward ${verb} --all`];
  toDaemon(withExample(program.command(verb), ...examples))
    .argument('[id|name|prefix...]', 'the tunnels')
    .description(`${verb} tunnels, and answer when they are ${verb === 'stop' ? 'down' : 'up'}`)
    .option('--all', 'every tunnel, but for those that are not enabled and not up')
    .addOption(groupOption())
    .option('--force', 'whoever holds the port goes, this once')
    .action((which: string[], options: OperateOptions, command: Command) => {
      const ways = [which.length > 0, options.all === true, options.group !== undefined];
      if (ways.filter((given) => given).length !== 1) {
        command.error(`error: name the tunnels to ${verb}, or give --group or --all`);
      }
      return run(async (context) => (await import('./tunnels.js')).operate({ verb, which }, options, context));
    });
}

interface OpenFlags {
  readonly local?: Forward;
  readonly remote?: Forward;
  readonly sshConfig?: string;
  readonly identity?: string;
  readonly port?: string;
  readonly option?: Readonly<Record<string, string>>;
  readonly jump?: string;
  readonly engine?: EngineChoice;
  readonly name?: string;
  readonly force?: boolean;
}

function addOpen(program: Command, run: Run): void {
  const forward = '<[bind:]port:host:port>';
  withExample(program.command('open'), 'tunward open -L 8080:db.internal:5432 user@gateway')
    .argument('<user@host>', 'where ssh goes')
    .description('keep one tunnel up, without a file, until Ctrl-C')
    .option(`-L, --local ${forward}`, 'listen here, connect there', parseForwardOption('local'))
    .option(`-R, --remote ${forward}`, 'listen there, connect here', parseForwardOption('remote'))
    .option('-F, --ssh-config <file>', "ssh's own configuration")
    .option('-i, --identity <file>', 'the key to log in with')
    .option('-p, --port <port>', "the SSH server's port", parseSshPort)
    .option('-o, --option <name=value>', 'an option of ssh; may be repeated', parseSshOption)
    .option('-J, --jump <[user@]host[:port],…>', 'the hosts to go through, the first one first')
    .addOption(new Option('--engine <engine>', 'what keeps it').choices(['auto', 'ssh', 'autossh']))
    .option('--name <name>', 'what it is called in what is said')
    .option('--force', 'whoever holds the port goes')
    .action((remoteHost: string, { local, remote, ...options }: OpenFlags, command: Command) => {
      const forward = local ?? remote;
      if (!forward || (local && remote)) command.error('error: give one forward, with -L or with -R');
      return run(async (context) => (await import('./up.js')).open(remoteHost, { forward, ...options }, context));
    });
}

function addPortCommands(program: Command, run: Run): void {
  program.commandsGroup(portGroup);
  withExample(program.command('who'), 'tunward who 9443')
    .argument('<port|host:port>', 'an IPv6 address in brackets', parsePortTarget)
    .description('show who holds a port, and who is connected to it')
    .action((target: PortTarget) => run(async (context) => (await import('./ports.js')).who(target, context)));
  withExample(program.command('free'), 'tunward free 9443 127.0.0.1:8080', 'tunward free 9443 --dry-run')
    .argument(
      '<port|host:port...>',
      'whoever listens there is killed with its chain; clients are not',
      parsePortTargets,
    )
    .description('free ports, without asking, and prove it by binding them')
    .option('--dry-run', 'say what would be killed; kill nobody')
    .option('--tree', 'everything below a holder goes too, not only its session')
    .option('--respawner', 'what starts a holder again goes too: a shell loop, a supervisord')
    .option('--timeout <ms>', 'the bound for each port (default 5000)', parseMs)
    .action((targets: PortTarget[], options: FreeOptions) =>
      run(async (context) => (await import('./ports.js')).free(targets, options, context)),
    );
  withExample(program.command('wait'), 'tunward wait 9443 --listening --timeout 30000')
    .argument('<port|host:port>', 'an IPv6 address in brackets', parsePortTarget)
    .description('wait until a port is free, or listened on')
    .addOption(new Option('--free', 'until it can be bound').conflicts('listening'))
    .option('--listening', 'until somebody listens; that is seen, not tried by connecting')
    .option('--timeout <ms>', 'how long (default 5000)', parseMs)
    .action((target: PortTarget, { free, listening, timeout }: WaitFlags, command: Command) => {
      if (!free && !listening) command.error('error: say what to wait for: --free or --listening');
      const wanted = {
        state: free ? ('free' as const) : ('listening' as const),
        ...(timeout === undefined ? {} : { timeout }),
      };
      return run(async (context) => (await import('./ports.js')).wait(target, wanted, context));
    });
}

interface WaitFlags {
  readonly free?: boolean;
  readonly listening?: boolean;
  readonly timeout?: number;
}

function addProcessCommands(program: Command, run: Run): void {
  program.commandsGroup(portGroup);
  withExample(program.command('ps'), 'tunward ps')
    .description('list every ssh and autossh: whose it is, its forwards, its ports, its chain')
    .action(() => run(async (context) => (await import('./processes.js')).ps(context)));
  withExample(program.command('tree'), 'tunward tree 812')
    .argument('<pid>', 'a process', parsePid)
    .description('show a process and all below it')
    .action((pid: number) => run(async (context) => (await import('./processes.js')).tree(pid, context)));
  withExample(program.command('kill'), 'tunward kill 812', 'tunward kill 812 --grace 500')
    .argument('<pid>', 'a process', parsePid)
    .description('kill a process and all below it, without asking')
    .option('--grace <ms>', 'SIGTERM first, and this long to leave (default 0)', parseMs)
    .option('--timeout <ms>', 'the bound on everything (default 5000)', parseMs)
    .action((pid: number, options: KillOptions) =>
      run(async (context) => (await import('./processes.js')).kill(pid, options, context)),
    );
}

function addOtherCommands(program: Command, run: Run): void {
  program.commandsGroup('Other:');
  withExample(program.command('demo'), 'tunward demo')
    .description('see it all at work, on loopback')
    .option('--once', 'end after the table')
    .action(({ once = false }: { once?: boolean }) =>
      run(async ({ env, signal, screen }) => (await import('./demo.js')).runDemo({ once, env, signal, screen })),
    );
  program.helpCommand('help [command]', 'show help, or that of a command');
}

/** The command, with what to type first in its help. */
function withExample(command: Command, ...lines: readonly string[]): Command {
  const heading = lines.length === 1 ? 'Example' : 'Examples';
  return command.addHelpText('before', `${heading}:\n${lines.map((line) => `  ${line}\n`).join('')}`);
}

/** The command, with the options that say which daemon is meant. */
function toDaemon(command: Command): Command {
  return command
    .option('--socket <path>', "the daemon's socket, or http://host:port ($TUNWARD_SOCKET)")
    .addOption(configOption());
}

function groupOption(): Option {
  const collect = (group: string, before: readonly string[] = []) => [...before, group];
  return new Option('--group <group>', 'the tunnels of a group; may be repeated').argParser(collect);
}

function configOption(): Option {
  return new Option('-c, --config <file>', 'the configuration ($TUNWARD_CONFIG, or where it is found)');
}
