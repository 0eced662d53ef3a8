import { html, type TemplateResult } from 'lit-html';
import { text } from './text.js';
import type { ProcessNode } from './types.js';
import { formatAge, formatBytes, programOf } from './units.js';
import type { Words } from './words.js';

/** The chain as it hangs together: each process below the one that started it, with what it uses and listens on. */
export function treeView(root: ProcessNode, words: Words): TemplateResult {
  return html`<ul class="tree">${nodeView(root, words)}</ul>`;
}

function nodeView(node: ProcessNode, words: Words): TemplateResult {
  const { pid, command, state, age_s, rss_bytes, ports, children } = node;
  return html`<li>
    <div class="process">
      <strong>${text(programOf(command))}</strong> <span class="pid">${pid}</span>
      <span class="faint">${formatAge(age_s, words)} · ${formatBytes(rss_bytes)} · <abbr title=${words.columns.state}>${text(state)}</abbr></span>
      ${ports.map((port) => html`<a class="port" href=${`#/port/${port}`} title=${words.tunnel.who(String(port))}>${words.tunnel.listens} ${port}</a>`)}
      <details class="command"><summary aria-label=${`${words.columns.command}: ${pid}`}><code>${text(command)}</code></summary></details>
    </div>
    ${children.length > 0 ? html`<ul>${children.map((child) => nodeView(child, words))}</ul>` : ''}
  </li>`;
}
