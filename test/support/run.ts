/**
 * Runs mocha, as root inside network, mount and PID namespaces of its own: the suites kill chains and sweep ports, and
 * a mistake of theirs must meet nobody outside. Arguments go on to mocha. Without root, or without unshare, mocha runs
 * as it is: what needs root skips itself then, loudly.
 *
 * Without arguments it is the whole of the tests, in namespaces as two runs at once. What the second one prints comes when
 * both are over, then what failed in either, and one line for both.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loopbackUp } from './namespace.js';
import { repoRoot, which } from './paths.js';

const mocha = [process.execPath, join(repoRoot, 'node_modules/mocha/bin/mocha.js')];
const unshare = which('unshare');
const isolated = process.getuid?.() === 0 && unshare !== undefined;
const given = process.argv.slice(2);
/** Those that wait most of their time: for a browser, for a terminal, for a server that is away. */
const patient = [
  ...['.build/test/panel/**/*.test.js', '.build/test/cli/**/*.test.js'],
  ...['engines', 'jump', 'reload', 'restart'].map((name) => `.build/test/e2e/${name}.test.js`),
];
if (!isolated) process.stderr.write('The tests run without namespaces of their own: that needs root and unshare\n');
process.exitCode = isolated && given.length === 0 ? await runBoth() : (await run(given)).code;

async function runBoth(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'tunward-summary-'));
  try {
    const [one, other] = await Promise.all([
      run(
        patient.flatMap((files) => ['--ignore', files]),
        join(folder, 'one'),
      ),
      run([...optionsOf('.mocharc.json'), ...patient], join(folder, 'other'), 'later'),
    ]);
    process.stdout.write(other.said + one.failures + other.failures);
    tell([one.summary, other.summary]);
    return one.code || other.code;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The settings of a configuration but for the files that it names, which mocha would add to those that are given. */
function optionsOf(file: string): string[] {
  const { spec: _spec, ...settings } = JSON.parse(readFileSync(join(repoRoot, file), 'utf8')) as Record<
    string,
    unknown
  >;
  const words = Object.entries(settings).flatMap(([name, value]) => {
    const option = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return value === true ? [option] : [value].flat().flatMap((one) => [option, String(one)]);
  });
  return ['--no-config', '--no-package', ...words];
}

/** One line, as the reporter writes it; a run that came to none is a failure. */
function tell(summaries: readonly string[]): void {
  const counts = summaries.map((line) =>
    (/^(\d+) passed, (\d+) failed, (\d+) skipped/.exec(line) ?? [0, 0, 1, 0]).map(Number),
  );
  const [passed, failed, skipped] = [1, 2, 3].map((at) => counts.reduce((sum, each) => sum + (each[at] ?? 0), 0));
  const line = `${passed} passed, ${failed} failed, ${skipped} skipped\n`;
  process.stdout.write(line);
  const file = process.env.TUNWARD_TEST_SUMMARY;
  if (file) writeFileSync(file, line);
}

interface Run {
  readonly code: number;
  /** What was kept for later. */
  readonly said: string;
  readonly summary: string;
  readonly failures: string;
}

async function run(words: readonly string[], summary?: string, said: 'at once' | 'later' = 'at once'): Promise<Run> {
  // Pid 1 in there is a shell that reaps, as in any system; it hands mocha's exit code on.
  const inside = [
    ...['-n', '-m', '-p', '-f', '--mount-proc', '--kill-child'],
    ...['/bin/sh', '-c', `${loopbackUp}\n"$@" & wait $!`, 'sh'],
  ];
  const [program = '', ...args] = [...(isolated ? [unshare ?? '', ...inside] : []), ...mocha, ...words];
  const output = said === 'later' ? 'pipe' : 'inherit';
  const child = spawn(program, args, {
    cwd: repoRoot,
    stdio: ['inherit', output, output],
    env: { ...process.env, ...(summary ? { TUNWARD_TEST_SUMMARY: summary } : {}) },
  });
  const chunks: Buffer[] = [];
  for (const pipe of [child.stdout, child.stderr]) pipe?.on('data', (chunk: Buffer) => chunks.push(chunk));
  const [code, signal] = (await once(child, said === 'later' ? 'close' : 'exit')) as [number | null, string | null];
  return {
    code: code ?? (signal ? 1 : 0),
    said: Buffer.concat(chunks).toString(),
    summary: summary === undefined ? '' : read(summary),
    failures: summary === undefined ? '' : read(`${summary}.failures`),
  };
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return ''; // it has not come to its end
  }
}
