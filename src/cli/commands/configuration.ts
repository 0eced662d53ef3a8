import type { Command } from 'commander';
import type { InitOptions } from '../init.js';
import { configOption, type Run, withExample } from './parts.js';

/** The file that says what is wanted. */
export function addConfigurationCommands(program: Command, run: Run): void {
  program.commandsGroup('Configuration:');
  withExample(program.command('init'), 'tunward init', 'tunward init --from /etc/autossh/config/config.yaml')
    .description('write a commented configuration, or one with the tunnels of autossh-tunnel-dockerized')
    .option('-c, --config <file>', 'the file to write ($TUNWARD_CONFIG, or ./tunward.yaml)')
    .option('--from <file>', 'a config.yaml of autossh-tunnel-dockerized: the same tunnels, under the same ids')
    .option('--force', 'replace the file that is there; the old one is kept beside it')
    .action((options: InitOptions) => run(async (context) => (await import('../init.js')).init(options, context)));
  withExample(program.command('validate'), 'tunward validate -c tunward.yaml')
    .description('check the configuration; start nothing')
    .addOption(configOption())
    .action((options: { config?: string }) =>
      run(async (context) => (await import('../validate.js')).validate(options, context)),
    );
}
