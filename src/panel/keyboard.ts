import type { Actions } from './actions.js';
import type { Panel } from './model.js';
import type { Verb } from './words.js';

export interface KeyHands {
  readonly actions: Actions;
  readonly onKeys: () => void;
}

/** The page by keys alone. Whoever types, or holds Ctrl, Alt or Meta, means the browser. */
export function listenToKeys(panel: Panel, { actions, onKeys }: KeyHands): void {
  document.addEventListener('keydown', (event) => {
    if (isForOthers(event) || panel.model().phase !== 'in') return;
    if (isTyping(event) ? typed(event) : pressed(event)) event.preventDefault();
  });

  /** Escape leaves a field, and the arrow leads from the filter into the list. */
  function typed(event: KeyboardEvent): boolean {
    const { target, key } = event;
    if (!(target instanceof HTMLElement)) return false;
    if (key === 'Escape') leave(target);
    else if (key === 'ArrowDown' && target.id === 'filter') return move(0);
    return key === 'Escape';
  }

  /** The first time what was typed goes, and then one goes oneself. */
  function leave(field: HTMLElement): void {
    const { list } = panel.model();
    if (field.id === 'filter' && list.query !== '') panel.update({ list: { ...list, query: '' } });
    else field.blur();
  }

  function pressed({ key, target }: KeyboardEvent): boolean {
    switch (key) {
      case '/':
        return focus('#filter');
      case '?':
        onKeys();
        return true;
      case 'p':
        return go('#/port/');
      case 'Escape':
        return panel.model().route.page === 'list' ? false : go('#/');
      case 'j':
      case 'ArrowDown':
        return canMove(target) && move(1);
      case 'k':
      case 'ArrowUp':
        return canMove(target) && move(-1);
      case 'r':
        return act('restart');
      case 's':
        return act(undefined);
      default:
        return false;
    }
  }

  /** In the page of a tunnel that one; in the list the row that the focus is in. Else nobody is meant. */
  function act(verb: Verb | undefined): boolean {
    const { route, tunnels } = panel.model();
    const row = document.activeElement?.closest<HTMLElement>('[data-id]');
    const tunnel = tunnels.get(route.page === 'tunnel' ? route.id : (row?.dataset.id ?? ''));
    if (!tunnel) return false;
    actions.act(tunnel.id, verb ?? (tunnel.desired === 'up' ? 'stop' : 'start'));
    return true;
  }
}

/** A dialog has keys of its own, and so has whoever is in the middle of writing a Chinese word. */
function isForOthers(event: KeyboardEvent): boolean {
  const isShortcut = event.ctrlKey || event.altKey || event.metaKey;
  const isAgain = event.repeat && isOnce(event.key);
  const isOpen = document.querySelector('dialog[open]') !== null;
  return isShortcut || isAgain || isOpen || event.isComposing || event.defaultPrevented;
}

function isTyping({ target }: KeyboardEvent): boolean {
  return (target instanceof HTMLInputElement && target.type !== 'checkbox') || target instanceof HTMLSelectElement;
}

/** Held down, the arrows go on; what acts, acts once. */
function isOnce(key: string): boolean {
  return !/^(Arrow|[jk]$)/.test(key);
}

/** A log is scrolled by the same arrows. */
function canMove(target: EventTarget | null): boolean {
  return !(target instanceof HTMLElement && target.closest('#log'));
}

function move(by: number): boolean {
  const links = [...document.querySelectorAll<HTMLElement>('.tunnel .name a')];
  if (links.length === 0) return false;
  const row = document.activeElement?.closest('.tunnel');
  const here = links.findIndex((link) => link.closest('.tunnel') === row);
  const there =
    here === -1 ? links.find((link) => link.tabIndex === 0) : links[Math.min(Math.max(here + by, 0), links.length - 1)];
  there?.focus();
  there?.closest('.tunnel')?.scrollIntoView({ block: 'nearest' });
  return true;
}

function focus(selector: string): boolean {
  const element = document.querySelector<HTMLInputElement>(selector);
  element?.focus();
  element?.select();
  return element !== null;
}

function go(hash: string): boolean {
  location.hash = hash;
  return true;
}
