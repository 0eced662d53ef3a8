import type { CallOff } from './clock.js';

export interface Listening {
  /** The types of events that are read. */
  readonly types: readonly string[];
  readonly onOpen: () => void;
  readonly onEvent: (type: string, data: Record<string, unknown>) => void;
  /** It broke off. It is not taken up again by itself: whoever listens asks first what has become of the daemon. */
  readonly onEnd: () => void;
}

/** One stream of server-sent events, until it ends or is called off. */
export function openStream(url: string, { types, onOpen, onEvent, onEnd }: Listening): CallOff {
  const source = new EventSource(url);
  source.addEventListener('open', onOpen);
  for (const type of types) {
    source.addEventListener(type, (event: MessageEvent<string>) => onEvent(type, parse(event.data)));
  }
  // A browser retries after seconds of its own choosing, or, after some errors, never.
  source.addEventListener('error', () => {
    source.close();
    onEnd();
  });
  return () => source.close();
}

function parse(text: string): Record<string, unknown> {
  const data: unknown = JSON.parse(text);
  return typeof data === 'object' && data !== null ? (data as Record<string, unknown>) : {};
}
