import { type Command, Option } from 'commander';
import type { DaemonOptions } from '../address.js';
import type { EventOptions } from '../events.js';
import { parseMs } from '../options.js';
import { collect, configOption, daemonGroup, type Run, toDaemon, withExample } from './parts.js';

/** The daemon itself: its beginning, its end, how it is. */
export function addDaemonCommands(program: Command, run: Run): void {
  program.commandsGroup(daemonGroup);
  withExample(program.command('up'), 'tunward up -c tunward.yaml')
    .description('start the daemon, in the foreground')
    .addOption(configOption())
    .option('-d, --detach', 'in the background: answer when it is ready')
    .action((options: { config?: string; detach?: boolean }) =>
      run(async (context) =>
        options.detach
          ? (await import('../detach.js')).detach(options, context)
          : (await import('../up.js')).up(options, context),
      ),
    );
  toDaemon(withExample(program.command('down'), 'tunward down'))
    .description('end the daemon and its tunnels')
    .option('--timeout <ms>', 'how long to wait for its end (default 20000)', parseMs)
    .action((options: DaemonOptions & { timeout?: number }) =>
      run(async (context) => (await import('../down.js')).down(options, context)),
    );
  toDaemon(withExample(program.command('health'), 'tunward health || echo "no daemon"'))
    .description('ask whether the daemon is there')
    .action((options: DaemonOptions) =>
      run(async (context) => (await import('../tunnels.js')).health(options, context)),
    );
  toDaemon(withExample(program.command('doctor'), 'tunward doctor -c tunward.yaml'))
    .description('look at all that tunnels need, and say what to do')
    .action((options: DaemonOptions) =>
      run(async (context) => (await import('../doctor.js')).doctor(options, context)),
    );
  addEvents(program, run);
}

function addEvents(program: Command, run: Run): void {
  const examples = ['tunward events', 'tunward events --type tunnel.up --type tunnel.backoff --json'];
  toDaemon(withExample(program.command('events'), ...examples))
    .description('tell what happens, until Ctrl-C')
    .addOption(new Option('--tunnel <id|name|prefix>', 'of this tunnel alone; may be repeated').argParser(collect))
    .addOption(new Option('--type <type>', 'tunnel.up, or a family as tunnel; may be repeated').argParser(collect))
    .action((options: EventOptions) => run(async (context) => (await import('../events.js')).events(options, context)));
}
