import type { Proc } from '../proc/read.js';
import type { Clock } from '../time.js';
import { type CheckOutcome, checkTarget } from './check.js';
import type { Link } from './engine.js';
import type { CheckOptions, TunnelSpec } from './spec.js';
import type { Health } from './status.js';

/** The check-ups of one tunnel, over all of its lives. */
export interface CheckUps {
  /** What they have found in the present life. */
  readonly health: () => Health;
  /**
   * Looks after one life until the signal aborts, which it rejects with; resolves, with why, when another life is to be
   * tried, since nothing comes through this one.
   */
  readonly attend: (patient: Patient, signal: AbortSignal) => Promise<string>;
  /** Somebody wants it tried again, whatever was found before. */
  readonly forget: () => void;
}

export interface Patient {
  readonly spec: TunnelSpec;
  readonly check: CheckOptions;
  readonly link: Link;
  /** Called when it is no longer well, for another reason, or well again. */
  readonly onChange: (now: Health) => void;
}

export interface CheckUpOptions {
  readonly proc: Proc;
  readonly clock: Clock;
  /** What a check is; tests say. */
  readonly look?: typeof checkTarget;
}

/** So many checks in a row that nothing came back from are no accident. */
const SILENT_CHECKS = 3;

const UNKNOWN: Health = { state: 'unknown', reason: null, detail: null };
const WELL: Health = { state: 'ok', reason: null, detail: null };

/**
 * Asks again and again. A target that refuses or answers badly is the target's trouble: the tunnel stays up, degraded.
 * Where nothing comes back the tunnel may be dead, or the target out of reach behind it: a new life tells one from the
 * other. It is tried once; when nothing comes back through that one either it is the target, and the tunnel is left up.
 */
export function createCheckUps({ proc, clock, look = checkTarget }: CheckUpOptions): CheckUps {
  let health = UNKNOWN;
  let told = WELL;
  /** A new life was tried because of a silence that still lasts. */
  let isTried = false;
  return {
    health: () => health,
    attend,
    forget: () => {
      isTried = false;
    },
  };

  async function attend(patient: Patient, signal: AbortSignal): Promise<string> {
    const { spec, check, link } = patient;
    health = UNKNOWN;
    told = WELL;
    for (let silent = 0; ; ) {
      const outcome = await look(spec, { check, link, proc, clock, signal });
      signal.throwIfAborted();
      note(outcome, patient);
      if (outcome.verdict === 'silent') silent++;
      else if (outcome.verdict !== 'unasked') {
        silent = 0;
        isTried = false;
      }
      if (silent >= SILENT_CHECKS && !isTried) {
        isTried = true;
        return `${outcome.detail}, ${silent} times in a row`;
      }
      await clock.sleep(check.everyMs, signal);
    }
  }

  /** Well is what a tunnel is taken for, so that is told only after it was not. */
  function note({ verdict, reason, detail }: CheckOutcome, { onChange }: Patient): void {
    health = { state: stateOf[verdict], reason, detail };
    if (health.state === 'unknown' || (health.state === told.state && reason === told.reason)) return;
    told = health;
    onChange(health);
  }
}

const stateOf = { ok: 'ok', target: 'degraded', silent: 'degraded', unasked: 'unknown' } as const;
