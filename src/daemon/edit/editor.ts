import { TunwardError } from '../../errors.js';
import { readDocument } from '../document.js';
import type { ConfigView, Edited, EditOptions, Reloader } from '../reload.js';
import { isRecord, keepsText } from '../schema.js';
import { writtenId } from '../tunnels.js';
import { addTunnel, openDraft, removeTunnel, replaceTunnel } from './edit.js';
import { asRead, tidy, type Written } from './notation.js';

/** The tunnels of the configuration file, one by one: a tunnel is given as it stands there, and found by its id. */
export interface Editor {
  /** The file as it is now, and its tunnels as they are written. */
  read(): Promise<WrittenConfig>;
  /** @throws TunwardError as Reloader.edit(); ERR_TUNNEL_CONFLICT: the very same one is there; ERR_BAD_REQUEST: see addTunnel() */
  add(tunnel: Written, options?: EditOptions): Promise<EditedTunnel>;
  /** @throws TunwardError as `add`; ERR_TUNNEL_UNKNOWN; ERR_TUNNEL_AMBIGUOUS: it stands in the file twice */
  replace(id: string, tunnel: Written, options?: EditOptions): Promise<EditedTunnel>;
  /** @throws TunwardError as `replace` */
  remove(id: string, options?: EditOptions): Promise<EditedTunnel>;
}

export interface WrittenConfig extends Omit<ConfigView, 'valid'> {
  /** In the order of the file; none while it is wrong. */
  readonly tunnels: readonly WrittenTunnel[];
}

/** The keys and values as they stand in the file, and the id that comes of them. */
export type WrittenTunnel = Written & { readonly id: string };

export interface EditedTunnel extends Edited {
  /** Of the tunnel as it is now, or of the one that was removed. */
  readonly id: string;
}

/** Edits by tunnels, over the reloader that writes and takes the file. */
export function createEditor(reloader: Pick<Reloader, 'edit' | 'read'>): Editor {
  return { read, add, replace, remove };

  async function read(): Promise<WrittenConfig> {
    const { valid, ...view } = await reloader.read();
    return {
      ...view,
      tunnels: (valid ? tunnelsIn(view.text) : []).map((tunnel) => ({ ...recordOf(tunnel), id: writtenId(tunnel) })),
    };
  }

  async function add(tunnel: Written, options?: EditOptions): Promise<EditedTunnel> {
    const id = idOf(tunnel);
    const edited = await reloader.edit((text) => {
      const draft = openDraft(text);
      refuseTwin(draft.tunnels, id);
      return { text: addTunnel(draft, tunnel), strict: draft.tunnels.length };
    }, options);
    return { ...edited, id };
  }

  async function replace(id: string, tunnel: Written, options?: EditOptions): Promise<EditedTunnel> {
    const next = idOf(tunnel);
    const edited = await reloader.edit((text) => {
      const draft = openDraft(text);
      const index = indexOf(draft.tunnels, id);
      if (next !== id) refuseTwin(draft.tunnels, next);
      return { text: replaceTunnel(draft, index, tunnel), strict: index };
    }, options);
    return { ...edited, id: next };
  }

  async function remove(id: string, options?: EditOptions): Promise<EditedTunnel> {
    const edited = await reloader.edit((text) => {
      const draft = openDraft(text);
      return { text: removeTunnel(draft, indexOf(draft.tunnels, id)) };
    }, options);
    return { ...edited, id };
  }
}

function idOf(tunnel: Written): string {
  return writtenId(asRead(tidy(tunnel), ['tunnels']));
}

function tunnelsIn(text: string): readonly unknown[] {
  const { value } = readDocument(text, 'tunward.yaml', keepsText);
  return isRecord(value) && Array.isArray(value.tunnels) ? value.tunnels : [];
}

function recordOf(tunnel: unknown): Written {
  return isRecord(tunnel) ? tunnel : {};
}

/** Two that are the same have one id, and which of them is meant nobody can say. */
function indexOf(tunnels: readonly unknown[], id: string): number {
  const found = tunnels.flatMap((tunnel, index) => (isRecord(tunnel) && writtenId(tunnel) === id ? [index] : []));
  const [index] = found;
  if (index === undefined) {
    const message = `No tunnel of the configuration file has the id ${id}: list them, the file may have changed`;
    throw new TunwardError('ERR_TUNNEL_UNKNOWN', message, { which: id });
  }
  if (found.length === 1) return index;
  const candidates = found.map((at) => `tunnels[${at}]`);
  const message = `The tunnel ${id} is ${candidates.join(' and ')} of the configuration file: remove one there by hand`;
  throw new TunwardError('ERR_TUNNEL_AMBIGUOUS', message, { candidates });
}

function refuseTwin(tunnels: readonly unknown[], id: string): void {
  const index = tunnels.findIndex((tunnel) => isRecord(tunnel) && writtenId(tunnel) === id);
  if (index < 0) return;
  const message = `The very same tunnel is there already, tunnels[${index}] (${id}): give this one another name or port`;
  throw new TunwardError('ERR_TUNNEL_CONFLICT', message, { id });
}
