import type { Command } from 'commander';
import type { DaemonOptions } from '../address.js';
import type { ShowOptions } from '../configuration.js';
import type { InitOptions } from '../init.js';
import { configOption, type Run, toDaemon, withExample } from './parts.js';

/** The file that says what is wanted. */
export function addConfigurationCommands(program: Command, run: Run): void {
  program.commandsGroup('Configuration:');
  withExample(program.command('init'), 'tunward init', 'tunward init --from /etc/autossh/config/config.yaml')
    .description('write a configuration, commented or taken over')
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
  toDaemon(withExample(program.command('reload'), 'tunward reload'))
    .description('have the daemon read its configuration now')
    .action((options: DaemonOptions) =>
      run(async (context) => (await import('../configuration.js')).reload(options, context)),
    );
  addConfig(program, run);
}

function addConfig(program: Command, run: Run): void {
  const config = withExample(
    program.command('config'),
    'tunward config schema > tunward.schema.json',
    'tunward config get',
  )
    .description('print its schema, its values, or its text')
    .usage('<command> [options]');
  withExample(config.command('schema'), 'tunward config schema > tunward.schema.json')
    .description('print the JSON Schema of tunward.yaml, by which editors complete and check')
    .action(() => run(async (context) => (await import('../configuration.js')).schema(context)));
  withExample(config.command('show'), 'tunward config show --origin')
    .description('print every key as it would be in force')
    .addOption(configOption())
    .option('--origin', 'and what has said so: the file, the environment, or nobody')
    .action((options: ShowOptions) =>
      run(async (context) => (await import('../configuration.js')).show(options, context)),
    );
  toDaemon(withExample(config.command('get'), 'tunward config get'))
    .description('print the file that the daemon runs on')
    .action((options: DaemonOptions) =>
      run(async (context) => (await import('../configuration.js')).get(options, context)),
    );
}
