/** Time, for the whole panel: what is waited for can be called off, and nothing else sets a timer. */

export type CallOff = () => void;

/** Milliseconds since the epoch, by the clock of this browser. */
export function now(): number {
  return Date.now();
}

export function after(ms: number, act: () => void): CallOff {
  const timer = setTimeout(act, ms);
  return () => clearTimeout(timer);
}

export function every(ms: number, act: () => void): CallOff {
  const timer = setInterval(act, ms);
  return () => clearInterval(timer);
}

/** Once before the next painting, however often it is asked for. */
export function oncePainted(act: () => void): () => void {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      act();
    });
  };
}
