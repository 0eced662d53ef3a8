import { html, svg, type TemplateResult } from 'lit-html';
import type { LastRestart, Phases, Tunnel } from './types.js';
import { formatMs } from './units.js';
import type { Words } from './words.js';

const parts = ['stop', 'free', 'start'] as const;

export interface BarSize {
  readonly width: number;
  readonly height: number;
  /** How many milliseconds the whole width is. */
  readonly fullMs: number;
}

/** How long it took to stop, to free the ports and to start, each as long as it was. */
export function phaseBar(restart: LastRestart, words: Words, { width, height, fullMs }: BarSize): TemplateResult {
  let from = 0;
  const spans = parts.map((part) => {
    const ms = restart.phases[`${part}_ms`];
    const span = { part, x: from, wide: (ms / fullMs) * width };
    from += span.wide;
    return span;
  });
  const isCut = from > width + 0.5;
  // What is less than a pixel is there, and is to be seen to be.
  const rects = spans.map(({ part, x, wide }) =>
    wide > 0 && x < width
      ? svg`<rect class=${`phase ${part}`} x=${x.toFixed(2)} y="0" height=${height}
          width=${Math.min(Math.max(wide, 0.75), width - x).toFixed(2)} />`
      : '',
  );
  return html`<svg class="bar" role="img" aria-label=${describePhases(restart.phases, words)}
    width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none">
    <title>${describePhases(restart.phases, words)}</title>
    <rect class="track" width=${width} height=${height} />
    ${rects}
    ${isCut ? svg`<path class="cut" d=${`M${width - 7} ${height}l3 ${-height}m1 ${height}l3 ${-height}`} />` : ''}
  </svg>`;
}

/** `stop 12 ms, free 3 ms, start 402 ms`. */
export function describePhases(phases: Phases, words: Words): string {
  return parts.map((part) => `${words.phases[part]} ${formatMs(phases[`${part}_ms`], words)}`).join(', ');
}

/** The same with a legend, for a page of one tunnel. */
export function phaseFigure(restart: LastRestart, words: Words): TemplateResult {
  const fullMs = Math.max(restart.took_ms, 1);
  const legend = parts.map(
    (
      part,
    ) => html`<li><svg class="key" width="10" height="10" aria-hidden="true"><rect class=${`phase ${part}`} width="10" height="10" rx="2" /></svg>
      ${words.phases[part]} <b>${formatMs(restart.phases[`${part}_ms`], words)}</b></li>`,
  );
  return html`<figure class="phases">
    ${phaseBar(restart, words, { width: 400, height: 14, fullMs })}
    <figcaption><ul>${legend}<li class="total">${words.restart.total} <b>${formatMs(restart.took_ms, words)}</b></li></ul></figcaption>
  </figure>`;
}

const scales = [200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/** One scale for all rows, so that they can be compared: nine of ten restarts fit; a longer one is cut off, and says so. */
export function scaleOf(tunnels: Iterable<Tunnel>): number {
  const took = [...tunnels].flatMap(({ last_restart }) => last_restart?.took_ms ?? []).sort((a, b) => a - b);
  const most = took[Math.floor((took.length - 1) * 0.9)] ?? 0;
  return scales.find((scale) => scale >= most) ?? 60_000;
}
