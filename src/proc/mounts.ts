import { known, type Proc } from './read.js';

export interface Mount {
  readonly point: string;
  /** `ext4`, `overlay`, `tmpfs` … */
  readonly type: string;
}

/** What a path (absolute, without links) is on: of the mounts above it the nearest, of several on one place the last. */
export function findMount(proc: Proc, path: string): Mount | undefined {
  const above = (known(proc.text('self/mountinfo')) ?? '')
    .split('\n')
    .flatMap(parseMount)
    .filter(({ point }) => point === '/' || path === point || path.startsWith(`${point}/`));
  return above.reduce<Mount | undefined>(
    (best, mount) => (mount.point.length >= (best?.point.length ?? 0) ? mount : best),
    undefined,
  );
}

/** The fifth field is the place; behind the dash, after any number of others, stands the type (proc(5)). */
function parseMount(line: string): Mount[] {
  const [before = '', after] = line.split(' - ', 2);
  const point = before.split(' ')[4];
  const type = after?.split(' ')[0];
  return point && type ? [{ point: unquote(point), type }] : [];
}

/** Blanks and the like are written as `\040`. */
function unquote(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
}
