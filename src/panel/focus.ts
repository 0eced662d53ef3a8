/**
 * Draws, and leaves the keyboard where it was: an element that is moved (a row of a sorted list) loses the focus, and
 * with one that is gone it would be at the very beginning of the page.
 */
export function keepFocus(draw: () => void): void {
  const before = document.activeElement;
  const row = before?.closest('[data-id]');
  draw();
  if (!(before instanceof HTMLElement) || before === document.body || document.activeElement !== document.body) return;
  const heir = row?.isConnected
    ? row.querySelector<HTMLElement>('.name a')
    : document.querySelector<HTMLElement>('main h1');
  (before.isConnected ? before : heir)?.focus({ preventScroll: true });
}

export function focusOn(selector: string): void {
  document.querySelector<HTMLElement>(selector)?.focus();
}
