import { type Command, Option } from 'commander';
import type { Forward } from '../../tunnel/spec.js';
import type { DaemonOptions } from '../address.js';
import type { Verb } from '../client.js';
import type { LogOptions } from '../logs.js';
import type { OperateOptions } from '../operate.js';
import { parseForwardOption, parseLineCount, parseSshOption, parseSshPort, type TunnelOptions } from '../options.js';
import type { GroupOptions } from '../tunnels.js';
import { collect, daemonGroup, groupOption, type Run, toDaemon, withExample } from './parts.js';

/** The tunnels of a daemon, and one without. */
export function addTunnelCommands(program: Command, run: Run): void {
  program.commandsGroup(daemonGroup);
  toDaemon(withExample(program.command('ls').alias('status'), 'tunward ls', 'tunward status web'))
    .argument('[tunnel...]', 'these alone, by id, name or prefix, with what has passed through them')
    .description('list the tunnels and how they are')
    .addOption(groupOption())
    .action((which: string[], options: GroupOptions, command: Command) => {
      if (which.length > 0 && options.group !== undefined) {
        command.error('error: name the tunnels to list, or give --group');
      }
      return run(async (context) => (await import('../tunnels.js')).list(which, options, context));
    });
  addOperation(program, run, 'start');
  addOperation(program, run, 'stop');
  addOperation(program, run, 'restart');
  toDaemon(withExample(program.command('auth'), 'tunward auth office'))
    .argument('<id|name|prefix>', 'a tunnel with interactive: true')
    .description('start a tunnel that asks, and answer here')
    .action((which: string, options: DaemonOptions) =>
      run(async (context) => (await import('../auth.js')).auth(which, options, context)),
    );
  toDaemon(withExample(program.command('logs'), 'tunward logs web -f'))
    .argument('[id|name|prefix]', 'one tunnel; without it all of them, each line after its name')
    .description("show the tunnels' logs")
    .option('-f, --follow', 'go on with what comes, until Ctrl-C')
    .option('-n, --lines <n>', 'how many lines of the past (default 100)', parseLineCount)
    .action((which: string | undefined, options: LogOptions) =>
      run(async (context) => (await import('../logs.js')).logs(which, options, context)),
    );
  addOpen(program, run);
  addEdits(program, run);
}

function addOperation(program: Command, run: Run, verb: Verb): void {
  const examples = [`tunward ${verb} web`, `tunward ${verb} --group staging`, `tunward ${verb} --all`];
  const command = toDaemon(withExample(program.command(verb), ...examples))
    .argument('[id|name|prefix...]', 'the tunnels')
    .description(`${verb} tunnels, and answer when they are ${verb === 'stop' ? 'down' : 'up'}`)
    .option('--all', 'every tunnel, but for those that are not enabled and not up')
    .addOption(groupOption());
  // A stop takes no port from anybody.
  if (verb !== 'stop') command.option('--force', 'whoever holds the port goes, this once; asks first');
  command.action((which: string[], options: OperateOptions, command: Command) => {
    const ways = [which.length > 0, options.all === true, options.group !== undefined];
    if (ways.filter((given) => given).length !== 1) {
      command.error(`error: name the tunnels to ${verb}, or give --group or --all`);
    }
    return run(async (context) => (await import('../operate.js')).operate({ verb, which }, options, context));
  });
}

interface ForwardFlags extends TunnelOptions {
  readonly local?: Forward;
  readonly remote?: Forward;
}

/** The command, with ssh's own letters for what makes a tunnel. */
function withForward(command: Command): Command {
  const forward = '<[bind:]port:host:port>';
  return command
    .option(`-L, --local ${forward}`, 'listen here, connect there', parseForwardOption('local'))
    .option(`-R, --remote ${forward}`, 'listen there, connect here', parseForwardOption('remote'))
    .option('-F, --ssh-config <file>', "ssh's own configuration")
    .option('-i, --identity <file>', 'the key to log in with')
    .option('-p, --port <port>', "the SSH server's port", parseSshPort)
    .option('-o, --option <name=value>', 'an option of ssh; may be repeated', parseSshOption)
    .option('-J, --jump <[user@]host[:port],…>', 'the hosts to go through, the first one first')
    .addOption(new Option('--engine <engine>', 'what keeps it').choices(['auto', 'ssh', 'autossh', 'embedded']))
    .option(
      '--seamless',
      'connections are kept waiting while it restarts, and not refused; of a tunnel that listens here',
    );
}

function forwardIn({ local, remote }: ForwardFlags, command: Command): Forward {
  const forward = local ?? remote;
  if (!forward || (local && remote)) command.error('error: give one forward, with -L or with -R');
  return forward;
}

function addOpen(program: Command, run: Run): void {
  type Flags = ForwardFlags & { readonly name?: string; readonly force?: boolean };
  withForward(withExample(program.command('open'), 'tunward open -L 8080:db.internal:5432 user@gateway'))
    .argument('<user@host>', 'where ssh goes')
    .description('keep one tunnel up, without a file, until Ctrl-C')
    .option('--name <name>', 'what it is called in what is said')
    .option('--force', 'whoever holds the port goes; asks first')
    .action((remoteHost: string, { local, remote, ...options }: Flags, command: Command) => {
      const forward = forwardIn({ ...(local && { local }), ...(remote && { remote }) }, command);
      return run(async (context) => (await import('../up.js')).open(remoteHost, { forward, ...options }, context));
    });
}

function addEdits(program: Command, run: Run): void {
  type Flags = ForwardFlags & DaemonOptions & { readonly group?: readonly string[]; readonly disabled?: boolean };
  const example = 'tunward add database -L 5432:db.internal:5432 me@bastion.example';
  toDaemon(withForward(withExample(program.command('add'), example, `${example} --group staging`)))
    .argument('<name>', 'what it is called')
    .argument('<user@host>', 'where ssh goes')
    .description('write a tunnel into the configuration; start it')
    .addOption(new Option('--group <group>', 'a group that it is in; may be repeated').argParser(collect))
    .option('--disabled', 'write it, and leave its start to somebody')
    .action((name: string, remoteHost: string, { local, remote, ...options }: Flags, command: Command) => {
      const forward = forwardIn({ ...(local && { local }), ...(remote && { remote }) }, command);
      const tunnel = { name, remoteHost, forward };
      return run(async (context) => (await import('../edit.js')).add(tunnel, options, context));
    });
  toDaemon(withExample(program.command('rm'), 'tunward rm database'))
    .argument('<id|name|prefix...>', 'the tunnels')
    .description('take tunnels out of the configuration; asks first')
    .action((which: string[], options: DaemonOptions) =>
      run(async (context) => (await import('../edit.js')).remove(which, options, context)),
    );
}
