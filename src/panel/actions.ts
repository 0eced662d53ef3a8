import { Refusal } from './api.js';
import type { Connection } from './connection.js';
import type { ConfirmForce } from './dialog.js';
import { type Panel, whyNotAct, withEntry } from './model.js';
import type { Authenticate } from './terminal-dialog.js';
import type { Done, Problem } from './types.js';
import type { Verb } from './words.js';

export interface Actions {
  /** The start of a tunnel that a person starts opens a terminal for that; such a one is not restarted. */
  act(id: string, verb: Verb): void;
  /** The same again, and whoever holds the port goes; asks first. */
  force(id: string, verb: Verb): void;
  dismiss(id: string): void;
}

export interface ActionHands {
  readonly connection: Connection;
  readonly confirm: ConfirmForce;
  readonly authenticate: Authenticate;
}

export function createActions(panel: Panel, { connection, confirm, authenticate }: ActionHands): Actions {
  const { api, model, update, words } = panel;
  return {
    act: (id, verb) => {
      const isPersons = model().tunnels.get(id)?.interactive && verb !== 'stop';
      if (!isPersons) void act(id, verb, false);
      else if (verb === 'start') authenticate(id);
    },
    force: (id, verb) => void force(id, verb),
    dismiss: (id) => update({ outcomes: withEntry(model().outcomes, id, undefined) }),
  };

  async function force(id: string, verb: Verb): Promise<void> {
    const outcome = model().outcomes.get(id);
    if (!outcome || outcome.done || whyNotAct(model(), words()) !== undefined) return;
    const { port = 0, holders = [] } = outcome.problem;
    const { forceTitle, forceText, forceDo } = words().tunnel;
    if (await confirm({ title: forceTitle(port), text: forceText, action: forceDo[verb], processes: holders })) {
      await act(id, verb, true);
    }
  }

  async function act(id: string, verb: Verb, isForced: boolean): Promise<void> {
    // A second press of the same button is no second request.
    if (whyNotAct(model(), words()) !== undefined || model().pending.get(id) === verb) return;
    update({
      pending: withEntry(model().pending, id, verb),
      outcomes: withEntry(model().outcomes, id, undefined),
    });
    try {
      const path = `/v1/tunnels/${encodeURIComponent(id)}/${verb}${isForced ? '?force=true' : ''}`;
      const done = await api.call<Done>(path, { method: 'POST' });
      connection.learn(done.tunnel);
      settle(id, verb);
      update({ outcomes: withEntry(model().outcomes, id, { verb, done }) });
    } catch (error) {
      settle(id, verb);
      if (error instanceof Refusal && error.problem.status !== 401) refuse(id, verb, error.problem);
      else connection.suspect(error);
    }
  }

  /** Unless something else has been asked for meanwhile. */
  function settle(id: string, verb: Verb): void {
    if (model().pending.get(id) === verb) update({ pending: withEntry(model().pending, id, undefined) });
  }

  function refuse(id: string, verb: Verb, problem: Problem): void {
    // A stop cuts a restart short, and who asked for that is told how the stop went.
    if (model().pending.has(id)) return;
    update({ outcomes: withEntry(model().outcomes, id, { verb, problem }) });
    const name = model().tunnels.get(id)?.name ?? id;
    panel.announce(`${name}: ${words().tunnel.refused[verb]}. ${problem.detail ?? ''}`);
  }
}
