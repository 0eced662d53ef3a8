import { chinese } from './chinese.js';
import { english } from './english.js';
import type { Words } from './words.js';

export const themes = ['auto', 'light', 'dark'] as const;
export const languages = ['auto', 'en', 'zh'] as const;
export type Theme = (typeof themes)[number];
export type Language = (typeof languages)[number];

/** What one person likes in this browser. No secret is among it. */
export interface Settings {
  theme(): Theme;
  language(): Language;
  setTheme(theme: Theme): void;
  setLanguage(language: Language): void;
  words(): Words;
}

export function createSettings(): Settings {
  let theme = read('tunward.theme', themes);
  let language = read('tunward.language', languages);
  apply();
  return {
    theme: () => theme,
    language: () => language,
    setTheme(value) {
      theme = value;
      keep('tunward.theme', value);
      apply();
    },
    setLanguage(value) {
      language = value;
      keep('tunward.language', value);
      apply();
    },
    words,
  };

  function words(): Words {
    const isChinese = language === 'auto' ? /^zh\b/i.test(navigator.language) : language === 'zh';
    return isChinese ? chinese : english;
  }

  function apply(): void {
    const root = document.documentElement;
    root.lang = words().lang;
    if (theme === 'auto') delete root.dataset.theme;
    else root.dataset.theme = theme;
  }
}

function read<T extends string>(key: string, values: readonly [T, ...T[]]): T {
  const kept = attempt(() => localStorage.getItem(key));
  return values.find((value) => value === kept) ?? values[0];
}

function keep(key: string, value: string): void {
  attempt(() => (value === 'auto' ? localStorage.removeItem(key) : localStorage.setItem(key, value)));
}

/** A browser may keep nothing for us (a SecurityError, a full store): the choice then holds for as long as the page. */
function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof DOMException) return undefined;
    throw error;
  }
}
