/**
 * A document for xterm.js, which writes styles into the page, where the page's policy lets nobody write any. What it
 * makes here looks to it like what it asked for: a `<style>` stands for a style sheet made by script, and a `style`
 * given by `setAttribute` goes by `style.cssText`. Both the policy leaves to scripts.
 */
export function createTerminalDocument(page: Document): Document {
  return new Proxy(page, {
    get(target, key) {
      if (key === 'createElement') return (name: string) => create(target, name);
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** While `act` runs, the page's own document makes elements in the same way: xterm.js 6 asks that one for a `<style>` as well. */
export function lendDocument(page: Document, act: () => void): void {
  const value = (name: string) => create(page, name);
  Object.defineProperty(page, 'createElement', { configurable: true, value });
  try {
    act();
  } finally {
    Reflect.deleteProperty(page, 'createElement');
  }
}

function create(page: Document, name: string): HTMLElement {
  const make = (what: string): HTMLElement => Document.prototype.createElement.call(page, what);
  if (name === 'style') return standForSheet(page, make('template'));
  const element = make(name);
  element.setAttribute = (attribute, value) => {
    if (attribute === 'style') element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, attribute, value);
  };
  return element;
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
