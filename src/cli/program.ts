import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { toJson } from '../wire.js';
import { addConfigurationCommands } from './commands/configuration.js';
import { addDaemonCommands } from './commands/daemon.js';
import { addOtherCommands } from './commands/other.js';
import type { Run } from './commands/parts.js';
import { addPortCommands, addProcessCommands } from './commands/ports.js';
import { addTunnelCommands } from './commands/tunnels.js';
import type { Context } from './context.js';
import type { Screen } from './render.js';
import { report } from './report.js';

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
    const { yes = false, input } = program.opts<{ yes?: boolean; input: boolean }>();
    exit = await work({ ...context, consent: { isGiven: yes, input: input ? context.consent.input : undefined } });
  };
  addDaemonCommands(program, run);
  addTunnelCommands(program, run);
  addConfigurationCommands(program, run);
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

const examples = `Examples:
  tunward free 9443        free a port: find who holds it, kill the chain, prove it by binding
  tunward up -d            start the tunnels of tunward.yaml, and keep them up
  tunward restart web      restart a tunnel, without ever meeting "Address in use"
`;

const exitCodes = `
Exit codes: 0 done, 1 failed, 2 usage, 3 port still held, 4 not found, 5 not permitted, 75 no daemon,
78 bad configuration, 124 timeout.`;

/**
 * The version of everything that is printed with --json: docs/json.md. A field may come at any time; when one goes or
 * means something else, this is one more.
 */
const JSON_VERSION = 1;

function createProgram(screen: Screen): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  const shown = screen.json ? toJson({ version, json: JSON_VERSION }) : version;
  return new Command('tunward')
    .description('Keeps SSH tunnels up, and frees ports: on /proc alone, without a shell or an external tool.')
    .usage('<command> [options]')
    .addHelpText('before', examples)
    .addHelpText('after', exitCodes)
    .option('--json', 'results as JSON on stdout; what streams as one record a line')
    .option('--no-color', 'no colours (NO_COLOR and FORCE_COLOR are honoured too)')
    .option(
      '-y, --yes',
      'agree to what is asked before a tunnel is deleted, with --force, and before others lose a process',
    )
    .option('--no-input', 'ask nobody: what needs a yes fails without --yes')
    .version(shown, '-V, --version', 'show the version; with --json that of the shapes too')
    .helpOption('-h, --help', 'show help')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: screen.write, writeErr: screen.complain })
    .exitOverride();
}
