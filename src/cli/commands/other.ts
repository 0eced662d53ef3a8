import { Argument, type Command } from 'commander';
import { places, type Shell, shells } from '../completion.js';
import { type Run, withExample } from './parts.js';

export function addOtherCommands(program: Command, run: Run): void {
  program.commandsGroup('Other:');
  withExample(program.command('demo'), 'tunward demo')
    .description('see it all at work, on loopback')
    .option('--once', 'end after the table')
    .action(({ once = false }: { once?: boolean }) =>
      run(async ({ env, signal, screen }) => (await import('../demo.js')).runDemo({ once, env, signal, screen })),
    );
  withExample(program.command('completion'), ...Object.values(places))
    .addArgument(new Argument('<shell>', 'whose').choices(shells))
    .description('print what makes a shell complete tunnels')
    .action((shell: Shell) => run(async (context) => (await import('../completion.js')).completion(shell, context)));
  addComplete(program, run);
  program.helpCommand('help [command]', 'show help, or that of a command');
}

interface CompleteFlags {
  readonly line?: string;
  readonly breaks?: string;
}

/** For those scripts, and for nobody to type. */
function addComplete(program: Command, run: Run): void {
  program
    .command('__complete', { hidden: true })
    .argument('[word...]')
    .option('--line <text>')
    .option('--breaks <text>')
    .action((words: string[], { line, breaks = '' }: CompleteFlags) => {
      const bash = line === undefined ? undefined : { line, breaks };
      return run(async (context) => (await import('../complete.js')).complete(words, { program, bash }, context));
    });
}
