/** Where a client can be kept: at the TCP connection, at the login, at a request to forward something. */
export type Stage = 'connection' | 'login' | 'forward';

/** What the server does wrong at this moment. */
export interface Faults {
  set(stage: Stage, fault: 'refuse' | 'stall'): void;
  /** May whoever has come to this stage go on? While it is stalled there is no answer. */
  admits(stage: Stage): Promise<boolean>;
  clear(): void;
  /** For ever: whoever is kept back is refused. */
  end(): void;
}

export function createFaults(): Faults {
  const faults = new Map<Stage, 'refuse' | 'stall'>();
  let kept: (() => void)[] = [];
  let isOver = false;
  return {
    set(stage, fault) {
      faults.set(stage, fault);
      if (fault === 'refuse') letGo();
    },
    async admits(stage) {
      while (!isOver && faults.get(stage) === 'stall') await new Promise<void>((resolve) => kept.push(resolve));
      return !isOver && faults.get(stage) !== 'refuse';
    },
    clear() {
      faults.clear();
      letGo();
    },
    end() {
      isOver = true;
      letGo();
    },
  };

  /** They ask anew, each for its own stage. */
  function letGo(): void {
    const waking = kept;
    kept = [];
    for (const wake of waking) wake();
  }
}
