import { isTunwardError } from '../../errors.js';
import { openProc, type Proc } from '../../proc/read.js';
import { type Config, loadConfig } from '../config.js';
import { findConfigFile, formatProblem } from '../source.js';
import { type Check, count, failed, ok, type RunningDaemon, warning } from './check.js';
import { checkFolders } from './folders.js';
import { checkKernel, watchClock } from './kernel.js';
import { checkLimits } from './limits.js';
import { checkPerson } from './person.js';
import { checkPorts } from './ports.js';
import { checkPrograms } from './programs.js';
import { checkTerminal } from './terminal.js';

export interface Examination {
  /** As given with -c; without it the file is looked for. */
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly proc?: Proc | undefined;
  readonly uid?: number | undefined;
  /** Asks for the daemon of a configuration. */
  readonly findDaemon: (
    config: Config | null,
  ) => Promise<{ readonly check: Check; readonly daemon: RunningDaemon | null }>;
}

/**
 * Looks at all that a person would look at before the question "why does it not work?". Changes nothing, makes nothing,
 * connects to no server: ports are bound for an instant, as each look at a port does.
 */
export async function examine({ file, env, cwd, proc = openProc(), ...options }: Examination): Promise<Check[]> {
  const { uid = process.geteuid?.() ?? -1, findDaemon } = options;
  const { config, check } = await checkConfig({ file, env, cwd });
  const clock = watchClock(config);
  const { check: daemonCheck, daemon } = await findDaemon(config);
  const surroundings = { proc, env, uid, config, daemon };
  return [
    ...(await checkPrograms(surroundings)),
    ...(await checkTerminal(surroundings)),
    ...(await checkPerson(surroundings)),
    ...checkKernel(surroundings),
    ...checkLimits(surroundings),
    check,
    ...checkFolders(surroundings),
    ...(await checkPorts(surroundings)),
    daemonCheck,
    clock(),
  ];
}

/** As `tunward validate` says it. */
async function checkConfig(where: {
  readonly file: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
}): Promise<{ config: Config | null; check: Check }> {
  const { file, env, cwd } = where;
  try {
    if (file === undefined && findConfigFile({ env, cwd }) === undefined) {
      const remedy = 'create one, or name it with -c: docs/configuration.md';
      return { config: null, check: warning('config', 'there is none', remedy) };
    }
    const config = await loadConfig({ file, env, cwd });
    const tunnels = `${config.file}, ${count(config.tunnels.length, 'tunnel')}`;
    if (config.warnings.length === 0) return { config, check: ok('config', tunnels) };
    const finding = [tunnels, ...config.warnings.map(formatProblem)].join('\n');
    return { config, check: warning('config', finding, 'each line says what to change') };
  } catch (error) {
    if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
    return { config: null, check: failed('config', error.message, 'correct it: the daemon does not start with it') };
  }
}
