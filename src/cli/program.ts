import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
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
    const exit = report(error, context);
    if (
      error instanceof CommanderError &&
      exit !== 0 &&
      !/\(Did you mean|commander\.help/.test(error.message + error.code)
    ) {
      context.screen.say(`${pathOf(argv, program)} --help says what may stand there`);
    }
    return exit;
  }
}

/** Without the `[options]` that stands behind nearly all of them. */
function termOf(command: Command): string {
  const names = [command.name(), ...command.aliases()].join('|');
  const words = command.registeredArguments.map((one) => {
    const name = `${one.name()}${one.variadic ? '...' : ''}`;
    return one.required ? `<${name}>` : `[${name}]`;
  });
  return [names, ...words].join(' ');
}

/** The command that a line is about, as far as there is one: `tunward config`. */
function pathOf(argv: readonly string[], program: Command): string {
  let command = program;
  const path = ['tunward'];
  for (const word of argv.filter((each) => !each.startsWith('-'))) {
    const next = command.commands.find((each) => each.name() === word || each.aliases().includes(word));
    if (!next) break;
    command = next;
    path.push(command.name());
  }
  return path.join(' ');
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
    .addHelpText('afterAll', exitCodes)
    .option('--json', 'results as JSON, streams as NDJSON (docs/json.md)')
    .option('--no-color', 'no colours; as NO_COLOR, and against FORCE_COLOR')
    .option('-y, --yes', 'agree in advance to whatever would be asked')
    .option('--no-input', 'never ask: what needs a yes fails without --yes')
    .version(shown, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show help')
    .configureHelp({ showGlobalOptions: true, subcommandTerm: termOf })
    .configureOutput({ writeOut: screen.write, writeErr: screen.complain })
    .exitOverride();
}
