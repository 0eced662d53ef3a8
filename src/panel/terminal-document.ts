/**
 * For xterm.js, which writes styles into the page, where the page's policy lets nobody write any: while it draws, a
 * `<style>` that is made stands for a style sheet made by script, and what a `<span>` is given by
 * `setAttribute('style', …)` goes by `style.cssText`. Both the policy leaves to scripts. xterm.js has an option for a
 * document of its own and asks the page's all the same (6.0: for rows and scrollbars), so it is that one that is lent.
 * The function that comes back takes it back.
 */
export function lendDocument(page: Document): () => void {
  const create = (name: string, options?: ElementCreationOptions): HTMLElement => {
    const make = (what: string): HTMLElement => Document.prototype.createElement.call(page, what, options);
    if (name === 'style') return standForSheet(page, make('template'));
    const element = make(name);
    if (name === 'span') element.setAttribute = setAttribute;
    return element;
  };
  Object.defineProperty(page, 'createElement', { configurable: true, value: create });
  return () => {
    // Unless somebody else has it by now.
    if (page.createElement === create) Reflect.deleteProperty(page, 'createElement');
  };
}

function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** A template is never shown, and its text is the text of the sheet. */
function standForSheet(page: Document, element: HTMLElement): HTMLElement {
  const sheet = new CSSStyleSheet();
  page.adoptedStyleSheets = [...page.adoptedStyleSheets, sheet];
  Object.defineProperty(element, 'textContent', { set: (text: string) => sheet.replaceSync(text) });
  element.remove = () => {
    page.adoptedStyleSheets = page.adoptedStyleSheets.filter((one) => one !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}
