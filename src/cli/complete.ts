import type { Argument, Command, Option } from 'commander';
import { isTunwardError } from '../errors.js';
import { readAllListeners } from '../proc/net.js';
import { openProc } from '../proc/read.js';
import { createSlice } from '../time.js';
import { printable } from '../wire.js';
import { type DaemonOptions, findAddress } from './address.js';
import { createClient } from './client.js';
import type { Context } from './context.js';
import { quoteValue, readLine } from './shell-words.js';

/** What could stand where the cursor is. */
export interface Candidate {
  readonly value: string;
  /** A few words beside it, for shells that show them. */
  readonly about: string;
}

/** `files`: what stands there is a file, which the shell knows best. */
export type Completion = 'files' | readonly Candidate[];

/** A line of bash that is being typed, up to the cursor. */
export interface BashLine {
  readonly line: string;
  /** COMP_WORDBREAKS. */
  readonly breaks: string;
}

/**
 * `tunward __complete`, which the scripts of `tunward completion` call: on the first line `files` or `words`, then each
 * candidate on a line of its own. bash gets those that begin with what is there, quoted, to take as they are; zsh and
 * fish match and quote by themselves, and get all, each with a tab and its description.
 */
export async function complete(
  words: readonly string[],
  { program, bash }: { readonly program: Command; readonly bash: BashLine | undefined },
  context: Context,
): Promise<number> {
  const { screen } = context;
  const open = bash && readLine(bash.line, bash.breaks);
  const typed = open ? [...open.before.slice(1), open.last.text] : words;
  // Whatever goes wrong, nothing is said: a person is in the middle of a line.
  const found = await candidatesFor(typed, program, { ...context, screen: { ...screen, say: () => undefined } });
  const kind = found === 'files' ? 'files' : 'words';
  const candidates = found === 'files' ? [] : found.filter(({ value }) => printable(value) === value);
  const lines = open
    ? candidates
        .filter(({ value }) => value.startsWith(open.last.text))
        .map(({ value }) => quoteValue(value, open.last))
    : candidates.map(({ value, about }) => `${value}\t${printable(about)}`);
  screen.write(`${[kind, ...lines].join('\n')}\n`);
  return 0;
}

/** What the words before the last one have said. */
interface Typed {
  readonly command: Command;
  /** The option whose value the last word is. */
  readonly pending: Option | undefined;
  readonly positionals: readonly string[];
  readonly options: DaemonOptions;
  /** After `--` no word is an option. */
  readonly isLiteral: boolean;
}

async function candidatesFor(words: readonly string[], program: Command, context: Context): Promise<Completion> {
  const last = words.at(-1) ?? '';
  const typed = readTyped(words.slice(0, -1), program, context.env.HOME);
  const { command, pending, positionals, isLiteral } = typed;
  if (pending) return valuesOf(pending, typed, context);
  const [, name, value] = /^(--[a-z-]+)=(.*)$/.exec(last) ?? [];
  const option = isLiteral || value === undefined ? undefined : findOption(name ?? '', typed.command, program);
  if (option) {
    const values = await valuesOf(option, typed, context);
    return values === 'files' ? values : values.map((one) => ({ ...one, value: `${name}=${one.value}` }));
  }
  if (last.startsWith('-') && !isLiteral) return optionsOf(command, program);
  const subcommands = command.commands.filter((each) => !('_hidden' in each && each._hidden));
  if (subcommands.length > 0 && positionals.length === 0) {
    return [...subcommands.map(toCandidate), ...(command === program ? [helpCandidate] : [])];
  }
  const argument = argumentAt(command, positionals.length);
  return argument ? valuesOfArgument(argument, { typed, program, context }) : [];
}

function readTyped(words: readonly string[], program: Command, home: string | undefined): Typed {
  let command = program;
  let pending: Option | undefined;
  let isLiteral = false;
  const positionals: string[] = [];
  const options: { socket?: string; config?: string } = {};
  const keep = (option: Option, written: string) => {
    // The shell has not come to this yet.
    const value = home === undefined ? written : written.replace(/^~(?=\/)/, home);
    if (option.attributeName() === 'socket') options.socket = value;
    if (option.attributeName() === 'config') options.config = value;
  };
  for (const word of words) {
    const [flag = '', ...values] = word.split('=');
    const option = isLiteral ? undefined : findOption(flag, command, program);
    const next = positionals.length === 0 ? findCommand(word, command) : undefined;
    if (pending) {
      keep(pending, word);
      pending = undefined;
    } else if (word === '--') isLiteral = true;
    else if (option) {
      if (values.length > 0) keep(option, values.join('='));
      else if (option.required) pending = option;
    } else if (word.startsWith('-') && !isLiteral) continue;
    else if (next) command = next;
    else positionals.push(word);
  }
  return { command, pending, positionals, options, isLiteral };
}

function findOption(flag: string, command: Command, program: Command): Option | undefined {
  return [...command.options, ...program.options].find(({ short, long }) => flag === short || flag === long);
}

function findCommand(word: string, command: Command): Command | undefined {
  return command.commands.find((each) => each.name() === word || each.aliases().includes(word));
}

function optionsOf(command: Command, program: Command): Candidate[] {
  const all = [...command.options, ...(command === program ? [] : program.options)];
  const shown = all.filter(({ hidden, long }) => !hidden && long !== undefined && long !== '--version');
  const help = { value: '--help', about: 'show help' };
  return [...shown.map(({ long, description }) => ({ value: long ?? '', about: description })), help];
}

const helpCandidate = { value: 'help', about: 'show help, or that of a command' };

function toCandidate(command: Command): Candidate {
  return { value: command.name(), about: command.description() };
}

/** The last argument may take all the rest. */
function argumentAt({ registeredArguments }: Command, position: number): Argument | undefined {
  const last = registeredArguments.at(-1);
  return registeredArguments[position] ?? (last?.variadic ? last : undefined);
}

async function valuesOf(option: Option, typed: Typed, context: Context): Promise<Completion> {
  const kind = /<([^>]+)>/.exec(option.flags)?.[1] ?? '';
  if (option.argChoices) return option.argChoices.map((value) => ({ value, about: '' }));
  if (kind === 'file' || kind === 'path') return 'files';
  if (kind === 'type') return readEventTypes();
  if (kind === 'group') return groupsOf(await readTunnels(typed.options, context));
  return kind === 'id|name|prefix' ? tunnelsOf(await readTunnels(typed.options, context), []) : [];
}

interface Place {
  readonly typed: Typed;
  readonly program: Command;
  readonly context: Context;
}

async function valuesOfArgument(argument: Argument, { typed, program, context }: Place): Promise<Completion> {
  const name = argument.name();
  if (argument.argChoices) return argument.argChoices.map((value) => ({ value, about: '' }));
  if (name === 'id|name|prefix' || name === 'tunnel') {
    const tunnels = await readTunnels(typed.options, context);
    const isMeant = typed.command.name() === 'auth' ? ({ interactive }: Known) => interactive : () => true;
    return tunnelsOf(tunnels, typed.positionals, isMeant);
  }
  if (name.startsWith('port')) return readPorts(typed.positionals);
  return name === 'command' ? program.commands.map(toCandidate) : [];
}

/** What is known of a tunnel, by the daemon or by the file alone. */
interface Known {
  readonly id: string;
  readonly name: string;
  readonly groups: readonly string[];
  readonly interactive: boolean;
  readonly about: string;
}

/** The bound on the daemon's answer: a person waits for it in the middle of a line. */
const ANSWER_MS = 300;

/** By the daemon; without one by the configuration; without that, none. */
async function readTunnels(options: DaemonOptions, context: Context): Promise<Known[]> {
  const { env, cwd, signal } = context;
  try {
    const client = createClient(await findAddress(options, context), { signal, timeoutMs: ANSWER_MS });
    const tunnels = await client.tunnels();
    return tunnels.map(({ state, target, ...tunnel }) => ({ ...tunnel, about: `${state}, ${target}` }));
  } catch (error) {
    signal.throwIfAborted();
    // Whatever keeps it from answering, the file may know.
    if (!(error instanceof Error)) throw error;
  }
  try {
    const { loadConfig } = await import('../daemon/config.js');
    const { tunnels } = await loadConfig({ file: options.config, env, cwd });
    return tunnels.map((tunnel) => ({ ...tunnel, about: `via ${tunnel.remoteHost}` }));
  } catch (error) {
    if (isTunwardError(error, 'ERR_CONFIG_INVALID')) return [];
    throw error;
  }
}

/** Those that are meant, by their names where those are their own and no option; otherwise by as much of the id as is enough. Each once. */
function tunnelsOf(
  tunnels: readonly Known[],
  given: readonly string[],
  isMeant: (tunnel: Known) => boolean = () => true,
): Candidate[] {
  const names = tunnels.map(({ name }) => name);
  const isOwn = (name: string) => names.indexOf(name) === names.lastIndexOf(name) && !/^(unnamed$|-|$)/.test(name);
  return tunnels
    .filter(isMeant)
    .map(({ id, name, about }) =>
      isOwn(name) ? { value: name, about } : { value: id.slice(0, 8), about: `${name}: ${about}` },
    )
    .filter(({ value }) => !given.includes(value));
}

async function readEventTypes(): Promise<Candidate[]> {
  const { eventFamilies, eventTypes } = await import('./events.js');
  return [...eventFamilies, ...eventTypes].map((value) => ({ value, about: '' }));
}

function groupsOf(tunnels: readonly Known[]): Candidate[] {
  const groups = [...new Set(tunnels.flatMap((tunnel) => tunnel.groups))].sort();
  const count = (group: string) => tunnels.filter((tunnel) => tunnel.groups.includes(group)).length;
  return groups.map((value) => ({ value, about: `${count(value)} tunnels` }));
}

/** What is listened on, by the kernel's tables alone: to look for the processes takes too long. */
async function readPorts(given: readonly string[]): Promise<Candidate[]> {
  const sockets = await readAllListeners(openProc(), createSlice());
  const ports = [...new Set(sockets.map(({ port }) => port))].sort((a, b) => a - b);
  const about = (port: number) =>
    [...new Set(sockets.filter((one) => one.port === port).map((one) => one.address))].join(', ');
  return ports
    .map((port) => ({ value: String(port), about: about(port) }))
    .filter(({ value }) => !given.includes(value));
}
