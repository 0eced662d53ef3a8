import { type Command, Option } from 'commander';
import type { Context } from '../context.js';

/** Does a command's work with the context, and keeps its exit code. */
export type Run = (work: (context: Context) => Promise<number>) => Promise<void>;

export const daemonGroup = 'Daemon and tunnels:';
export const portGroup = 'Ports and processes:';

/** The command, with what to type first in its help. */
export function withExample(command: Command, ...lines: readonly string[]): Command {
  const heading = lines.length === 1 ? 'Example' : 'Examples';
  return command.addHelpText('before', `${heading}:\n${lines.map((line) => `  ${line}\n`).join('')}`);
}

/** The command, with the options that say which daemon is meant. */
export function toDaemon(command: Command): Command {
  return command
    .option('--socket <path>', "the daemon's socket, or http://host:port ($TUNWARD_SOCKET)")
    .addOption(configOption());
}

export function groupOption(): Option {
  return new Option('--group <group>', 'the tunnels of a group; may be repeated').argParser(collect);
}

export function configOption(): Option {
  return new Option('-c, --config <file>', 'the configuration ($TUNWARD_CONFIG, or where it is found)');
}

/** For an option that may be repeated. */
export function collect(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}
