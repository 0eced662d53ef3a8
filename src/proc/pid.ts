/** PID_MAX_LIMIT of the kernel, whatever pid_max says: that one may differ in each PID namespace. */
export const PID_LIMIT = 2 ** 22;

export function isPid(pid: number): boolean {
  return Number.isInteger(pid) && pid >= 1 && pid <= PID_LIMIT;
}

/** A number that can be a process's: 0 and below would reach groups, and 1.5 or '7' is somebody's mistake. */
export function assertPid(pid: number): void {
  if (typeof pid !== 'number') throw new TypeError(`Cannot use ${typeof pid} as a pid: expected an integer above 0`);
  if (!isPid(pid)) throw new RangeError(`Cannot use ${pid} as a pid: expected an integer from 1 to ${PID_LIMIT}`);
}
