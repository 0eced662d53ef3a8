import { after, type CallOff, oncePainted } from './clock.js';
import type { Panel } from './model.js';
import { openStream } from './stream.js';
import { visible } from './units.js';

/** Follows the log of the tunnel whose page is open. */
export interface LogKeeper {
  /** Whose log is to be followed; undefined: nobody's. Called as often as one likes. */
  show(id: string | undefined): void;
  follow(isFollowing: boolean): void;
  readonly noteScroll: () => void;
}

/** What a page of text can be read in; older lines are in the file. */
const MOST_LINES = 2000;
const FIRST_LINES = 200;
const AGAIN_MS = 1000;

export function createLogKeeper(panel: Panel): LogKeeper {
  let shown: string | undefined;
  let stop: CallOff | undefined;
  /** What has been said since the last painting. */
  let waiting: string[] = [];
  /** The stream begins with the last lines: those that are there are the same ones. */
  let isAnew = false;
  const paint = oncePainted(write);
  return { show, follow, noteScroll };

  function show(id: string | undefined): void {
    if (id === shown) return;
    stop?.();
    stop = undefined;
    shown = id;
    waiting = [];
    isAnew = true;
    if (id === undefined) return;
    panel.update({ log: { isFollowing: true, isEmpty: true, isBroken: false } });
    paint();
    listen(id);
  }

  function listen(id: string): void {
    const url = `/v1/tunnels/${encodeURIComponent(id)}/logs?lines=${FIRST_LINES}&follow=true`;
    stop = openStream(url, {
      types: ['line'],
      onOpen: () => {
        isAnew = true;
        waiting = [];
        note({ isBroken: false });
        paint();
      },
      onEvent: (_type, { line }) => {
        waiting.push(String(line));
        if (waiting.length > MOST_LINES) waiting.shift();
        paint();
      },
      onEnd: () => {
        note({ isBroken: true });
        stop = after(AGAIN_MS, () => listen(id));
      },
    });
  }

  function write(): void {
    const box = document.getElementById('log');
    if (!box) return;
    if (isAnew) box.replaceChildren();
    isAnew = false;
    box.append(...waiting.splice(0).map(toLine));
    while (box.childElementCount > MOST_LINES) box.firstElementChild?.remove();
    if (box.childElementCount > 0) note({ isEmpty: false });
    if (panel.model().log.isFollowing) box.scrollTop = box.scrollHeight;
  }

  function follow(isFollowing: boolean): void {
    note({ isFollowing });
    const box = document.getElementById('log');
    if (isFollowing && box) box.scrollTop = box.scrollHeight;
  }

  /** Who scrolls up wants to read, and who is at the end again wants to go on. */
  function noteScroll(): void {
    const box = document.getElementById('log');
    if (box) note({ isFollowing: box.scrollHeight - box.scrollTop - box.clientHeight < 12 });
  }

  function note(part: Partial<ReturnType<Panel['model']>['log']>): void {
    const { log } = panel.model();
    const next = { ...log, ...part };
    const isNews =
      next.isFollowing !== log.isFollowing || next.isEmpty !== log.isEmpty || next.isBroken !== log.isBroken;
    if (isNews) panel.update({ log: next });
  }
}

/** Text and nothing else, whatever ssh or a server has said; the time of it fainter than that. */
function toLine(line: string): HTMLElement {
  const element = document.createElement('div');
  element.dir = 'auto';
  const [stamp = ''] = /^\[[\d :-]+\] /.exec(line) ?? [];
  if (stamp !== '') {
    const time = document.createElement('time');
    time.textContent = stamp.slice(1, -2);
    element.append(time, ' ');
  }
  element.append(visible(line.slice(stamp.length)));
  return element;
}
