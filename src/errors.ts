/**
 * Every code tunward can fail with: the HTTP status that carries it and the exit code the command ends with.
 * A code is for ever; its message may change.
 */
export const errorCodes = {
  ERR_CONFIG_INVALID: { status: 422, exit: 78 },
  ERR_BAD_REQUEST: { status: 400, exit: 2 },
  ERR_ROUTE_UNKNOWN: { status: 404, exit: 2 },
  ERR_METHOD_NOT_ALLOWED: { status: 405, exit: 2 },
  ERR_UPGRADE_REQUIRED: { status: 426, exit: 2 },
  ERR_BODY_TOO_LARGE: { status: 413, exit: 2 },
  ERR_MEDIA_TYPE: { status: 415, exit: 2 },
  ERR_MISDIRECTED: { status: 421, exit: 5 },
  ERR_TOO_MANY_REQUESTS: { status: 429, exit: 75 },
  ERR_UNAUTHORIZED: { status: 401, exit: 5 },
  ERR_FORBIDDEN: { status: 403, exit: 5 },
  ERR_TUNNEL_UNKNOWN: { status: 404, exit: 4 },
  ERR_OPERATION_UNKNOWN: { status: 404, exit: 4 },
  ERR_TUNNEL_AMBIGUOUS: { status: 409, exit: 4 },
  ERR_TUNNEL_CONFLICT: { status: 409, exit: 1 },
  ERR_CONFIG_CHANGED: { status: 412, exit: 1 },
  ERR_CONFIG_UNWRITABLE: { status: 500, exit: 5 },
  ERR_NO_SPACE: { status: 507, exit: 1 },
  ERR_START_FAILED: { status: 502, exit: 1 },
  ERR_PORT_HELD: { status: 409, exit: 3 },
  ERR_TIMEOUT: { status: 504, exit: 124 },
  ERR_PROCESS_UNKNOWN: { status: 404, exit: 4 },
  ERR_PROCESS_PROTECTED: { status: 403, exit: 5 },
  ERR_ACCESS_DENIED: { status: 403, exit: 5 },
  ERR_PROC_FORMAT: { status: 500, exit: 1 },
  ERR_SPAWN_FAILED: { status: 500, exit: 1 },
  ERR_DAEMON_UNREACHABLE: { status: 503, exit: 75 },
  ERR_DAEMON_BUSY: { status: 503, exit: 75 },
  ERR_DAEMON_RUNNING: { status: 409, exit: 1 },
  ERR_BACKEND_UNAVAILABLE: { status: 501, exit: 1 },
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** One problem in a configuration: where, what, what was expected and what was found. Lines and columns start at 1. */
export interface ConfigProblem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly path: string;
  readonly message: string;
}

/** A process that keeps a port from us, in words for a person. */
export interface HolderInfo {
  readonly pid: number;
  readonly user: string;
  readonly command: string;
  readonly ageS: number | null;
}

/** What each code brings along. Codes that are not named here bring whatever the thrower knows. */
export interface ErrorInfo {
  ERR_CONFIG_INVALID: { problems: readonly ConfigProblem[] };
  ERR_START_FAILED: {
    id: string;
    reason: string;
    lastError: string | null;
    nextRetryAt: string | null;
    remedy?: string | null;
  };
  ERR_PORT_HELD: { port: number; holders: readonly HolderInfo[]; nextRetryAt?: string | null };
  ERR_TIMEOUT: { timeoutMs: number; going?: string };
  ERR_TUNNEL_AMBIGUOUS: { candidates: readonly string[] };
}

type InfoOf<C extends ErrorCode> = C extends keyof ErrorInfo ? ErrorInfo[C] : Readonly<Record<string, unknown>>;

/**
 * The one error class. Wrong arguments from code are TypeError or RangeError; all else that fails is this.
 *
 * @example
 * try {
 *   await supervisor.start(id);
 * } catch (error) {
 *   if (isTunwardError(error, 'ERR_PORT_HELD')) console.error(error.info.holders);
 *   else throw error;
 * }
 */
export class TunwardError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'TunwardError';
  readonly code: C;
  readonly info: InfoOf<C>;

  constructor(code: C, message: string, info: InfoOf<C>, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.info = info;
  }
}

/** Narrows an unknown error to one code (or to any code of ours when none is given). */
export function isTunwardError<C extends ErrorCode = ErrorCode>(error: unknown, code?: C): error is TunwardError<C> {
  return error instanceof TunwardError && (code === undefined || error.code === code);
}

/** Narrows an unknown error to a failed system call with one of these codes. */
export function isErrno(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return error instanceof Error && codes.includes((error as NodeJS.ErrnoException).code ?? '');
}
