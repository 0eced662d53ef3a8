import { Refusal } from './api.js';
import type { Connection } from './connection.js';
import type { ConfirmForce } from './dialog.js';
import type { Panel, PortLook } from './model.js';
import type { PortReport, Problem } from './types.js';

export interface Address {
  readonly host: string | undefined;
  readonly port: number;
}

/** `9443`, `127.0.0.1:9443`, `[::1]:9443`, `*:9443`; undefined: no port. */
export function parseAddress(text: string): Address | undefined {
  const [, bracketed, plain, digits = ''] =
    /^(?:(?:\[([\da-f:.]+)\]|(\*|localhost|[\d.]+)):)?(\d{1,5})$/i.exec(text.trim()) ?? [];
  const port = Number(digits);
  return port >= 1 && port <= 65_535 ? { host: bracketed ?? plain, port } : undefined;
}

/** Looks at a port, plans to free it, and frees it. */
export interface PortInspector {
  look(text: string): void;
  plan(): void;
  free(): void;
  /** With whoever starts the holder again, after that has been seen to happen. */
  freeForGood(): void;
}

export function createPortInspector(panel: Panel, connection: Connection, confirm: ConfirmForce): PortInspector {
  const { api, model, update, words } = panel;
  let address: Address | undefined;
  return {
    look: (text) => void look(text),
    plan: () => void plan(),
    free: () => void free(),
    freeForGood: () => void freeForGood(),
  };

  async function look(text: string): Promise<void> {
    address = parseAddress(text);
    if (!address) return set({ doing: undefined, isInvalid: text.trim() !== '' });
    await attempt(address, { doing: 'look' }, async ({ port, host }) => {
      const query = host === undefined ? '' : `?host=${encodeURIComponent(host)}`;
      return { report: await api.call<PortReport>(`/v1/ports/${port}${query}`) };
    });
  }

  async function plan(): Promise<void> {
    const { report } = model().port;
    if (!address) return;
    await attempt(address, { doing: 'plan', report }, async (of) => ({ report, plan: await planFor(of) }));
  }

  /** A plan touches nobody, so it is made also where only force would carry it out. */
  async function planFor(of: Address): Promise<PortReport> {
    try {
      return await ask(of, { dry_run: true });
    } catch (error) {
      if (!isForbidden(error)) throw error;
      return ask(of, { dry_run: true, force: true });
    }
  }

  async function free(): Promise<void> {
    const { report, plan: made } = model().port;
    if (!address) return;
    await attempt(address, { doing: 'free', report, plan: made }, async (of) => {
      const freed = await freeOrAsk(of, made);
      return freed ? { result: freed } : { report, plan: made };
    });
  }

  async function freeForGood(): Promise<void> {
    const { report, result } = model().port;
    if (!address || !result?.respawner) return;
    const { forGoodTitle, forGoodText, forceDo } = words().port;
    const question = {
      title: forGoodTitle(address.port),
      text: forGoodText,
      action: forceDo,
      processes: [result.respawner],
    };
    if (!(await confirm(question))) return;
    await attempt(address, { doing: 'free', report, result }, async (of) => ({
      result: await ask(of, { respawner: true, force: true }),
    }));
  }

  async function freeOrAsk(of: Address, made: PortReport | undefined): Promise<PortReport | undefined> {
    try {
      return await ask(of, {});
    } catch (error) {
      if (!isForbidden(error)) throw error;
    }
    const { forceTitle, forceText, forceDo } = words().port;
    // Somebody else may have taken the port since: who would go is looked at again before it is agreed to.
    const { kill } = made ?? (await ask(of, { dry_run: true, force: true }));
    const question = { title: forceTitle(of.port), text: forceText, action: forceDo, processes: kill?.killed ?? [] };
    return (await confirm(question)) ? ask(of, { force: true }) : undefined;
  }

  function ask({ port, host }: Address, body: object): Promise<PortReport> {
    return api.call<PortReport>(`/v1/ports/${port}/free`, {
      method: 'POST',
      body: { ...(host ? { host } : {}), ...body },
    });
  }

  /** The newest question counts: an answer to an older one is dropped. */
  async function attempt(of: Address, during: PortLook, act: (of: Address) => Promise<Omit<PortLook, 'doing'>>) {
    const present = () => address?.port === of.port && address.host === of.host;
    set(during);
    try {
      const result = await act(of);
      if (present()) set({ doing: undefined, ...result });
    } catch (error) {
      const problem = problemOf(error);
      if (problem && present()) set({ ...during, doing: undefined, problem });
      else connection.suspect(error);
      if (!problem && present()) set({ ...during, doing: undefined });
    }
  }

  function set(port: PortLook): void {
    update({ port });
  }
}

function isForbidden(error: unknown): boolean {
  return error instanceof Refusal && error.problem.code === 'ERR_FORBIDDEN';
}

function problemOf(error: unknown): Problem | undefined {
  return error instanceof Refusal && error.problem.status !== 401 ? error.problem : undefined;
}
