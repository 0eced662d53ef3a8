import type { Terminal } from '@xterm/xterm';
import { Unreachable } from './api.js';
import { lendDocument } from './terminal-document.js';
import { createSpeech } from './terminal-speech.js';

/** The terminal that somebody sees and types on. */
export interface Screen {
  size(): { readonly columns: number; readonly rows: number };
  show(bytes: Uint8Array): void;
  focus(): void;
  /** Takes no key any more; what stands there can still be read. */
  freeze(): void;
  /** Takes it away, and all that stood on it. */
  dispose(): void;
}

export interface ScreenOptions {
  /** What the place for typing is called, for those who hear it. */
  readonly label: string;
  readonly onType: (bytes: Uint8Array) => void;
  readonly onResize: (columns: number, rows: number) => void;
  /** What has come to stand there. */
  readonly onSay: (text: string) => void;
}

/** What waits to be drawn: more than this at once nobody asks for, and what is beyond it is not drawn. */
const MOST_WAITING = 4 * 1024 * 1024;
const STYLE = '/panel/vendor/xterm/css/xterm.css';

let style: Promise<void> | undefined;

/** As large as `host` is, and from now on as that becomes. Throws Unreachable: the terminal's own files are not to be had. */
export async function createScreen(host: HTMLElement, options: ScreenOptions): Promise<Screen> {
  const { label, onType, onResize, onSay } = options;
  const { Terminal, FitAddon } = await load();
  const { color, backgroundColor, fontFamily, fontSize } = getComputedStyle(host);
  const terminal = new Terminal({
    fontFamily,
    fontSize: Number.parseFloat(fontSize),
    scrollback: 500,
    theme: { background: backgroundColor, foreground: color, cursor: color, cursorAccent: backgroundColor },
    // What a server colours is to be read in the dark and in the light.
    minimumContrastRatio: 4.5,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  deafen(terminal);
  const takeBack = lendDocument(document);
  terminal.open(host);
  fit.fit();
  const field = terminal.textarea;
  field?.setAttribute('aria-label', label);
  field?.setAttribute('autocomplete', 'off');
  terminal.attachCustomKeyEventHandler(isForTerminal);
  const encoder = new TextEncoder();
  terminal.onData((data) => onType(encoder.encode(data)));
  terminal.onResize(({ cols, rows }) => onResize(cols, rows));
  const speech = createSpeech(terminal, onSay);
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(host);
  let waiting = 0;
  return {
    size: () => ({ columns: terminal.cols, rows: terminal.rows }),
    show(bytes) {
      if (waiting + bytes.length > MOST_WAITING) return;
      waiting += bytes.length;
      terminal.write(bytes, () => {
        waiting -= bytes.length;
        speech.hear();
      });
    },
    focus: () => terminal.focus(),
    freeze() {
      terminal.options.disableStdin = true;
      terminal.options.cursorInactiveStyle = 'none';
      terminal.blur();
    },
    dispose() {
      observer.disconnect();
      speech.stop();
      terminal.dispose();
      takeBack();
    },
  };
}

/**
 * Tab leads on to the buttons, since no question wants one and nobody is to be caught here; and Ctrl-V pastes: a
 * password often comes from somewhere.
 */
function isForTerminal({ key, ctrlKey, altKey, metaKey }: KeyboardEvent): boolean {
  const isPaste = ctrlKey && !altKey && !metaKey && key.toLowerCase() === 'v';
  return key !== 'Tab' && !isPaste;
}

/**
 * What a server sends is text; of orders to the terminal it may give colours and erase the rest of a line, as everywhere
 * here. So it puts no question, whose answer would be typed for the person; changes no mode, by which a paste or a click
 * would type something of its own; gives no title, link or colour table; and draws over nothing that stands there.
 */
function deafen({ parser }: Terminal): void {
  const ignore = () => true;
  const finals = Array.from({ length: 0x7f - 0x30 }, (_, at) => String.fromCharCode(0x30 + at));
  for (const final of finals) {
    parser.registerEscHandler({ final }, ignore);
    for (const intermediates of ' #%()*+-./') parser.registerEscHandler({ intermediates, final }, ignore);
    if (final < '@') continue;
    if (final !== 'm' && final !== 'K') parser.registerCsiHandler({ final }, ignore);
    for (const prefix of '<=>?') parser.registerCsiHandler({ prefix, final }, ignore);
    for (const intermediates of ' !"#$\'') {
      parser.registerCsiHandler({ intermediates, final }, ignore);
      parser.registerCsiHandler({ prefix: '?', intermediates, final }, ignore);
    }
  }
  parser.registerDcsHandler({ intermediates: '$', final: 'q' }, ignore);
  for (const command of [0, 1, 2, 4, 8, 10, 11, 12, 52, 104, 110, 111, 112]) parser.registerOscHandler(command, ignore);
}

/** Only who opens a terminal has need of it. */
async function load() {
  style ??= loadStyle();
  try {
    const [{ Terminal }, { FitAddon }] = await Promise.all([import('@xterm/xterm'), import('@xterm/addon-fit'), style]);
    return { Terminal, FitAddon };
  } catch (error) {
    style = undefined;
    throw new Unreachable(`The terminal cannot be loaded: ${String(error)}`, { cause: error });
  }
}

function loadStyle(): Promise<void> {
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = STYLE;
  return new Promise((resolve, reject) => {
    link.addEventListener('load', () => resolve());
    link.addEventListener('error', () => {
      link.remove();
      reject(new Error(STYLE));
    });
    document.head.append(link);
  });
}
