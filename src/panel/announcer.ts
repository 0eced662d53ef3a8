import { after } from './clock.js';
import type { Words } from './words.js';

/** More than these at once are counted: nobody can listen to the names of a hundred tunnels. */
const MOST_SAID = 3;
const GATHER_MS = 400;
/** A region that says the same twice says nothing the second time. */
const KEPT_MS = 5000;

/** Says to those who hear the page what those who see it see, gathered for a moment. */
export function createAnnouncer(region: HTMLElement, words: () => Words): (text: string) => void {
  let waiting: string[] = [];
  return (text) => {
    waiting.push(text);
    if (waiting.length === 1) after(GATHER_MS, say);
  };

  function say(): void {
    const texts = waiting;
    waiting = [];
    region.textContent = texts.length > MOST_SAID ? words().announce.many(texts.length) : texts.join('. ');
    const said = region.textContent;
    after(KEPT_MS, () => {
      if (region.textContent === said) region.textContent = '';
    });
  }
}
