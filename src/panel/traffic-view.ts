import { html, nothing, svg, type TemplateResult } from 'lit-html';
import type { Panel } from './model.js';
import { PAST_MS, type Rate, ratesOf } from './traffic.js';
import type { Tunnel } from './types.js';
import { formatBytes, formatRate } from './units.js';
import type { Words } from './words.js';

/** What passes through the daemon for a tunnel, now and in the last two minutes; nothing for one whose bytes do not. */
export function trafficView(panel: Panel, tunnel: Tunnel, words: Words): TemplateResult | typeof nothing {
  if (!tunnel.traffic) return nothing;
  const samples = panel.model().traffic.get(tunnel.id) ?? [];
  const { connections, open, queued, refused, bytes_in, bytes_out } = samples.at(-1)?.traffic ?? tunnel.traffic;
  const names = words.traffic;
  const facts: readonly (readonly [string, string | number])[] = [
    [names.open, open],
    [names.queued, queued],
    [names.refused, refused],
    [names.connections, connections],
    [names.received, formatBytes(bytes_in)],
    [names.sent, formatBytes(bytes_out)],
  ];
  return html`<section class="traffic" aria-labelledby="traffic-title"><h2 id="traffic-title">${names.title}
      <span class="faint">${names.span}</span></h2>
    ${sparkFigure(ratesOf(samples), words)}
    <dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </section>`;
}

const [WIDTH, HEIGHT] = [240, 48];

/** Two lines on one scale, the present at the right edge; as high where nothing is known yet. */
function sparkFigure(rates: readonly Rate[], words: Words): TemplateResult {
  const names = words.traffic;
  const last = rates.at(-1);
  const peak = Math.max(0, ...rates.flatMap(({ bytesIn, bytesOut }) => [bytesIn ?? 0, bytesOut ?? 0]));
  const show = (rate: number | undefined) => (rate === undefined ? '–' : formatRate(rate, words));
  const [now, then] = [[show(last?.bytesIn), show(last?.bytesOut)] as const, show(last && peak)];
  const label = last ? names.describe(now[0], now[1], then) : names.none;
  const scale = { latestMs: last?.atMs ?? 0, peak };
  const key = (flow: 'in' | 'out') =>
    html`<svg class="key" width="14" height="10" aria-hidden="true"><path class=${`flow ${flow}`} d="M0 5h14" /></svg>`;
  return html`<figure class="spark">
    <svg class="lines" role="img" aria-label=${label} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
      <title>${label}</title>
      <path class="ground" d=${`M0 ${HEIGHT - 0.5}H${WIDTH}`} vector-effect="non-scaling-stroke" />
      ${flowPath('out', rates, scale)}${flowPath('in', rates, scale)}
    </svg>
    <figcaption><ul>
      <li>${key('in')} ${names.in} <b>${now[0]}</b></li>
      <li>${key('out')} ${names.out} <b>${now[1]}</b></li>
      <li class="total">${names.peak} <b>${then}</b></li>
    </ul></figcaption>
  </figure>`;
}

/** Where nothing is known the line is broken off: nothing was measured there, which is not the same as nothing. */
function flowPath(
  flow: 'in' | 'out',
  rates: readonly Rate[],
  { latestMs, peak }: { readonly latestMs: number; readonly peak: number },
): TemplateResult {
  let isDrawing = false;
  const steps = rates.flatMap(({ atMs, bytesIn, bytesOut }) => {
    const rate = flow === 'in' ? bytesIn : bytesOut;
    const x = WIDTH * (1 - (latestMs - atMs) / PAST_MS);
    const wasDrawing = isDrawing;
    isDrawing = rate !== undefined && x >= 0;
    if (rate === undefined || x < 0) return [];
    const y = HEIGHT - 2 - (peak > 0 ? (rate / peak) * (HEIGHT - 4) : 0);
    const point = `${x.toFixed(1)} ${y.toFixed(1)}`;
    // A line of one point is one to be seen: its ends are round.
    return [wasDrawing ? `L${point}` : `M${point}h0`];
  });
  return svg`<path class=${`flow ${flow}`} d=${steps.join('')} vector-effect="non-scaling-stroke" />`;
}
