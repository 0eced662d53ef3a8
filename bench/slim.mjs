/*
 * What people use where a port is held, in an image that holds Node and little else: each tool in a process of its own
 * with an empty PATH (as `env -i PATH=/nonexistent node …`), beside a live listener. What it says, whether it did what it
 * is for, and whether it does with this machine's PATH, where it finds its programs.
 * The peers come from peers/ by `npm ci --ignore-scripts` into a temporary folder; nothing of them is run anywhere else.
 */
import { execFile, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { end, isMain, say } from './support.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const library = new URL('../lib/index.js', import.meta.url).href;

/**
 * Each tool as its users call it; `port` is held by `pid`, which has the one child `child`. `judge` says, of what came of
 * it, whether it did its job: undefined where there is nothing to judge. `promise` is what it is for.
 */
const tools = [
  {
    name: 'kill-port',
    promise: 'kills the holder',
    program: `import kill from 'kill-port'; answer(() => kill(port, 'tcp'));`,
    judge: isFreed,
  },
  {
    name: 'fkill',
    promise: 'kills the holder',
    program: `import fkill from 'fkill'; answer(() => fkill(':' + port, { force: true }));`,
    judge: isFreed,
  },
  {
    name: 'tree-kill',
    promise: 'kills a pid and all below it',
    program: `import kill from 'tree-kill'; answer(() => new Promise((resolve, reject) => kill(pid, 'SIGKILL', (error) => (error ? reject(error) : resolve()))));`,
    judge: isFreed,
  },
  {
    name: 'find-process',
    promise: 'finds the holder',
    program: `import find from 'find-process'; answer(() => find('port', port));`,
    judge: ({ value }, { pid }) => value?.some?.((found) => found.pid === pid) ?? false,
  },
  {
    name: 'pid-port',
    promise: 'finds the holder',
    program: `import { portToPid } from 'pid-port'; answer(() => portToPid(port));`,
    judge: ({ value }, { pid }) => value === pid,
  },
  {
    name: 'ps-tree',
    promise: 'finds what is below a pid',
    program: `import psTree from 'ps-tree'; answer(() => new Promise((resolve, reject) => psTree(pid, (error, rows) => (error ? reject(error) : resolve(rows)))));`,
    judge: ({ value }, { child }) => value?.some?.((row) => Number(row.PID) === child) ?? false,
  },
  {
    name: 'pidtree',
    promise: 'finds what is below a pid',
    program: `import pidtree from 'pidtree'; answer(() => pidtree(pid));`,
    judge: ({ value }, { child }) => value?.includes?.(child) ?? false,
  },
  {
    name: 'pidusage',
    promise: 'says what a pid uses',
    program: `import pidusage from 'pidusage'; answer(() => pidusage(pid));`,
    judge: ({ value }, { pid }) => value?.pid === pid && value.memory > 0,
  },
  {
    name: 'tcp-port-used',
    promise: 'says whether somebody listens',
    program: `import tcpPortUsed from 'tcp-port-used'; answer(() => tcpPortUsed.check(port, '127.0.0.1'));`,
    judge: ({ value }) => value === true,
  },
  {
    name: 'tunward findListeners',
    promise: 'finds the holder',
    program: `const { findListeners } = await import(library); answer(async () => (await findListeners(port)).map(({ address, holders }) => address + ': ' + holders.map((holder) => holder.pid).join(', ')));`,
    judge: ({ value }, { pid }) => value?.[0] === `127.0.0.1: ${pid}`,
  },
  {
    name: 'tunward readProcessTree',
    promise: 'finds what is below a pid',
    program: `const { readProcessTree } = await import(library); answer(async () => (await readProcessTree(pid)).children.map((found) => found.pid));`,
    judge: ({ value }, { child }) => value?.includes?.(child) ?? false,
  },
  {
    name: 'tunward killTree',
    promise: 'kills a pid and all below it',
    program: `const { killTree } = await import(library); answer(async () => { const { killed, survivors } = await killTree(pid); return { killed: killed.length, survivors: survivors.length }; });`,
    judge: isFreed,
  },
  {
    name: 'tunward freePort',
    promise: 'kills the holder',
    program: `const { freePort } = await import(library); answer(async () => (await freePort(port)).explanation);`,
    judge: isFreed,
  },
];

function isFreed(_outcome, { isGone }) {
  return isGone;
}

/** Runs all of it: a record for each tool. Throws when the peers cannot be installed. */
export async function runSlim() {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tunward-peers-'));
  try {
    await install(dir);
    const records = [];
    for (const tool of tools) records.push(await tryOut(tool, dir));
    return records;
  } finally {
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function install(dir) {
  for (const name of ['package.json', 'package-lock.json'])
    cpSync(path.join(here, 'peers', name), path.join(dir, name));
  const words = ['ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'];
  await promisify(execFile)('npm', words, { cwd: dir, timeout: 180_000 });
}

async function tryOut({ name, promise, program, judge }, dir) {
  const slim = await runBeside(program, judge, { dir, env: { PATH: '/nonexistent' } });
  const usual = await runBeside(program, judge, { dir, env: process.env });
  const head = { bench: `slim.${name.replace('tunward ', '')}`, tool: name, version: versionOf(name, dir), promise };
  return { ...head, done: slim.done, says: wordsOf(slim.outcome), doneWithPath: usual.done };
}

/** One run of a tool, beside a holder of its own. */
async function runBeside(program, judge, { dir, env }) {
  const holder = await startHolder();
  try {
    const outcome = await runApart(program, holder, { dir, env });
    const isGone = await hasEnded(holder.process);
    return { outcome, done: judge(outcome, { ...holder, isGone }) };
  } finally {
    await end(holder.process);
  }
}

const holderProgram = `
const server = require('node:net').createServer((socket) => socket.destroy());
const child = require('node:child_process').spawn(process.execPath, ['-e', 'process.stdin.resume().on("end", () => process.exit())'], { stdio: ['pipe', 'ignore', 'ignore'] });
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port, child: child.pid })));
`;

/** A process that listens, with a child that ends with it. */
async function startHolder() {
  const child = spawn(process.execPath, ['-e', holderProgram], { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', () => reject(new Error('the holder of the port ended before it listened')));
  });
  return { process: child, pid: child.pid, ...JSON.parse(line) };
}

/** Signals are not heard of at once. */
async function hasEnded(child) {
  for (let look = 0; look < 20 && child.exitCode === null && child.signalCode === null; look++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return child.exitCode !== null || child.signalCode !== null;
}

/** What came of it: the value or the error that it answered with, or how the process ended without an answer. */
async function runApart(program, { port, pid }, { dir, env }) {
  const prelude = `const [port, pid, library] = [${port}, ${pid}, ${JSON.stringify(library)}];
    const answer = (ask) => ask().then((value) => ({ value: value ?? null }), (error) => ({ error: error.message }))
      .then((outcome) => process.stdout.write('\\n' + JSON.stringify(outcome)));\n`;
  const words = ['--input-type=module', '-e', prelude + program];
  const { stdout, stderr, code } = await new Promise((resolve) => {
    execFile(process.execPath, words, { cwd: dir, env, timeout: 10_000 }, (error, out, err) =>
      resolve({ stdout: out, stderr: err, code: error ? (error.code ?? error.signal) : 0 }),
    );
  });
  const last = stdout.split('\n').at(-1);
  const noise = stderr.split('\n').filter((line) => line.trim() !== '').length;
  if (last?.startsWith('{')) return { ...JSON.parse(last), noise };
  return { crash: /^Error: (.*)$/m.exec(stderr)?.[1] ?? `no answer`, code, noise };
}

function wordsOf({ value, error, crash, code, noise }) {
  if (crash !== undefined) return `uncaught exception (${crash}): the process ends with ${code}`;
  if (error !== undefined) return `rejects: ${shorten(error)}`;
  const stderr = noise > 0 ? `, and ${noise} lines on stderr` : '';
  return `resolves ${shorten(JSON.stringify(value))}${stderr}`;
}

function shorten(text) {
  const line = text.replace(/\s+/g, ' ');
  return line.length > 90 ? `${line.slice(0, 89)}…` : line;
}

function versionOf(name, dir) {
  const [first] = name.split(' ');
  const file = path.join(dir, 'node_modules', first, 'package.json');
  const own = path.join(here, '..', 'package.json');
  return createRequire(import.meta.url)(existsSync(file) ? file : own).version;
}

/** As it stands in the README. */
function renderMarkdown(records) {
  const cell = (text) => text.replaceAll('|', '\\|');
  const did = (done) => (done ? 'yes' : '**no**');
  const rows = records.map(({ tool, version, promise, done, says, doneWithPath }) => {
    const name = tool.startsWith('tunward ') ? `**${tool}**` : `${tool} ${version}`;
    return `| ${name} | ${promise} | ${did(doneWithPath)} | ${did(done)} | ${cell(says)} |`;
  });
  const head = [
    '| | is to | does, with its programs | does, with an empty PATH | says then |',
    '|---|---|---|---|---|',
  ];
  return [...head, ...rows].join('\n');
}

if (isMain(import.meta)) {
  try {
    const records = await runSlim();
    for (const record of records) process.stdout.write(`${JSON.stringify(record)}\n`);
    say(`Node ${process.version}, Linux ${os.release()}\n\n${renderMarkdown(records)}`);
  } catch (error) {
    say(`not measured: ${error.message}`);
    process.exitCode = 1;
  }
}
