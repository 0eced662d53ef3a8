import type { Command } from 'commander';
import { configOption, type Run, withExample } from './parts.js';

/** The file that says what is wanted. */
export function addConfigurationCommands(program: Command, run: Run): void {
  program.commandsGroup('Configuration:');
  withExample(program.command('validate'), 'tunward validate -c tunward.yaml')
    .description('check the configuration; start nothing')
    .addOption(configOption())
    .action((options: { config?: string }) =>
      run(async (context) => (await import('../validate.js')).validate(options, context)),
    );
}
