import { type Command, Option } from 'commander';
import { type PortTarget, parseMs, parsePid, parsePortTarget, parsePortTargets } from '../options.js';
import type { FreeOptions } from '../ports.js';
import type { KillOptions } from '../processes.js';
import { portGroup, type Run, withExample } from './parts.js';

/** Who holds what; no daemon is needed. */
export function addPortCommands(program: Command, run: Run): void {
  program.commandsGroup(portGroup);
  withExample(program.command('who'), 'tunward who 9443')
    .argument('<port|host:port>', 'an IPv6 address in brackets', parsePortTarget)
    .description('show who holds a port, and who is connected to it')
    .action((target: PortTarget) => run(async (context) => (await import('../ports.js')).who(target, context)));
  withExample(program.command('free'), 'tunward free 9443 127.0.0.1:8080', 'tunward free 9443 --dry-run')
    .argument(
      '<port|host:port...>',
      'whoever listens there is killed with its chain; clients are not',
      parsePortTargets,
    )
    .description('free ports, and prove it by binding them')
    .option('--dry-run', 'say what would be killed; kill nobody')
    .option('--tree', 'everything below a holder goes too, not only its session')
    .option('--respawner', 'what starts a holder again goes too: a shell loop, a supervisord')
    .option('--timeout <ms>', 'the bound for each port (default 5000)', parseMs)
    .action((targets: PortTarget[], options: FreeOptions) =>
      run(async (context) => (await import('../ports.js')).free(targets, options, context)),
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
      return run(async (context) => (await import('../ports.js')).wait(target, wanted, context));
    });
}

interface WaitFlags {
  readonly free?: boolean;
  readonly listening?: boolean;
  readonly timeout?: number;
}

export function addProcessCommands(program: Command, run: Run): void {
  program.commandsGroup(portGroup);
  withExample(program.command('ps'), 'tunward ps')
    .description('list every ssh and autossh, and whose it is')
    .action(() => run(async (context) => (await import('../processes.js')).ps(context)));
  withExample(program.command('tree'), 'tunward tree 812')
    .argument('<pid>', 'a process', parsePid)
    .description('show a process and all below it')
    .action((pid: number) => run(async (context) => (await import('../processes.js')).tree(pid, context)));
  withExample(program.command('kill'), 'tunward kill 812', 'tunward kill 812 --grace 500')
    .argument('<pid>', 'a process', parsePid)
    .description('kill a process and all below it')
    .option('--grace <ms>', 'SIGTERM first, and this long to leave (default 0)', parseMs)
    .option('--timeout <ms>', 'the bound on everything (default 5000)', parseMs)
    .action((pid: number, options: KillOptions) =>
      run(async (context) => (await import('../processes.js')).kill(pid, options, context)),
    );
}
