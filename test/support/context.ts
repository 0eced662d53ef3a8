import { PassThrough } from 'node:stream';
import type { Context } from '#lib/cli/context.js';
import { createScreen } from '#lib/cli/render.js';

/** What a command is run with, where nobody is at a terminal, and nobody reads what it says. */
export function makeContext(changes: Partial<Context> = {}): Context {
  return {
    screen: createScreen({ stdout: new PassThrough(), stderr: new PassThrough() }),
    env: {},
    cwd: '/',
    signal: new AbortController().signal,
    onHangup: () => undefined,
    consent: { isGiven: false, input: undefined },
    exitNow: () => undefined,
    ...changes,
  };
}
