import { StringDecoder } from 'node:string_decoder';
import { unprintable } from '../wire.js';

/*
 * What a server has to say at a login comes from a stranger, and a terminal does more than draw: it can be told to set
 * the clipboard (OSC 52), to answer a question as if somebody had typed that (a status report), to take keys otherwise, to
 * be cleared. A question needs none of it: text, the end and the beginning of a line, a step back, the bell, colours, and
 * what erases the rest of a line. All else is drawn as a `?`, its ESC too, so that nothing of it is an order any more.
 */
const harmless = /\u001b\[[\d;:]{0,32}[mK]|[\r\n\t\b\u0007]/;
const each = new RegExp(`(${harmless.source})|${unprintable.source}`, 'gu');
/** The beginning of a sequence, the rest of which may come with the next bytes. */
const unfinished = /\u001b(\[[\d;:]{0,32})?$/;

/** Bytes as they come, cut anywhere, → the text that is drawn of them. */
export function createFilter(): (bytes: Uint8Array) => string {
  const decoder = new StringDecoder('utf8');
  let held = '';
  return (bytes) => {
    const text = held + decoder.write(bytes);
    held = unfinished.exec(text)?.[0] ?? '';
    return text.slice(0, text.length - held.length).replace(each, (_all, fine: string | undefined) => fine ?? '?');
  };
}
