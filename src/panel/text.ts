import { html, type TemplateResult } from 'lit-html';
import { visible } from './units.js';

/** Text of a stranger: nothing in it is hidden, and whatever its direction, it turns nothing around it. */
export function text(value: string): TemplateResult {
  return html`<bdi>${visible(value)}</bdi>`;
}

/** Text that the daemon wrote, which is English whatever the language of the page. */
export function said(value: string): TemplateResult {
  return html`<bdi lang="en">${visible(value)}</bdi>`;
}
