import { html, svg, type TemplateResult } from 'lit-html';

/** Drawn beside words, or with a name on the button around them: never the only thing that says something. */
function icon(paths: TemplateResult): TemplateResult {
  return html`<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none"
    stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round">${paths}</svg>`;
}

export const restartIcon = icon(svg`<path d="M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3" />`);
export const startIcon = icon(svg`<path d="M5 3.2v9.6l8-4.8z" />`);
export const stopIcon = icon(svg`<rect x="4" y="4" width="8" height="8" rx="1" />`);
export const closeIcon = icon(svg`<path d="M4 4l8 8M12 4l-8 8" />`);
export const backIcon = icon(svg`<path d="M10 3L5 8l5 5" />`);
export const arrowIcon = icon(svg`<path d="M2.5 8h11M9.5 4l4 4-4 4" />`);
export const keyIcon = icon(svg`<circle cx="5" cy="11" r="3" /><path d="M7.2 8.8L13.5 2.5M11 5l2 2" />`);
export const verbIcons = { start: startIcon, stop: stopIcon, restart: restartIcon } as const;

/** The mark of the house: a way through, and its guard. */
export const mark = html`<svg class="mark" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
  <rect width="32" height="32" rx="7" fill="#0f766e" />
  <path d="M6 25V16a10 10 0 0 1 20 0v9h-5v-9a5 5 0 0 0-10 0v9z" fill="#fff" />
  <path d="M14.5 25l1-8h1l1 8z" fill="#5eead4" />
</svg>`;
