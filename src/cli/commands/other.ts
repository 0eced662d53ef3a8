import type { Command } from 'commander';
import { type Run, withExample } from './parts.js';

export function addOtherCommands(program: Command, run: Run): void {
  program.commandsGroup('Other:');
  withExample(program.command('demo'), 'tunward demo')
    .description('see it all at work, on loopback')
    .option('--once', 'end after the table')
    .action(({ once = false }: { once?: boolean }) =>
      run(async ({ env, signal, screen }) => (await import('../demo.js')).runDemo({ once, env, signal, screen })),
    );
  program.helpCommand('help [command]', 'show help, or that of a command');
}
