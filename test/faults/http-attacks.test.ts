/**
 * H1 of the fault catalogue: what pages, programs and people without the right to it send to the API.
 * H2 and H3 are beside it; H4 and H5, of a terminal, are pty-drop.test.ts and pty-flood.test.ts.
 */
import { expect } from 'chai';
import { fault } from '../support/fault.js';
import { isAlive } from '../support/proc.js';
import { type Aim, type Attack, headAttacks } from './http/attacks.js';
import { bodyAttacks } from './http/bodies.js';
import { browserAttacks } from './http/browser.js';
import { dripAttacks, floodAttack, guessAttack, sessionAttack } from './http/patience.js';
import { type Reply, readReply, send } from './http/raw.js';
import { entryAttacks, logIn, ownerAttacks, routeAttacks } from './http/routes.js';
import { type Target, withTarget } from './http/target.js';

describe('fault: attacks on the API', () => {
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  const title = 'are refused with the right status and code, and nothing is done';
  fault({ id: 'H1', title, times: 10, reduced: 1, needs }, (times) =>
    withTarget(async (target) => {
      const aim: Aim = { ...target, cookie: await logIn(target) };
      const attacks = [
        ...headAttacks(aim),
        ...bodyAttacks(aim),
        ...(await routeAttacks(aim, target)),
        ...entryAttacks(aim),
        ...ownerAttacks(target.home.socket),
      ];
      const wrong: string[] = [];
      const kinds = new Set(attacks.map(({ kind }) => kind));
      const before = await target.look();
      for (let round = 0; round < times; round++) {
        for (const attack of attacks) wrong.push(...(await perform(attack, target)));
      }
      expect(wrong, 'answered in another way').to.deep.equal([]);
      await expectUntouched(target, before);
      return `${attacks.length * times} attacks of ${attacks.length} sorts and ${kinds.size} kinds, ${target.actions().length} actions executed`;
    }),
  );

  const guessed = 'are tokens that are tried, and cookies that are none: only who has one is in';
  fault({ id: 'H1', title: guessed, times: 1, reduced: 1, needs }, () =>
    withTarget(async (target) => {
      const before = await target.look();
      const figures = [await sessionAttack(target), await guessAttack(target)];
      await expectUntouched(target, before);
      return figures.join('; ');
    }),
  );

  const paged = 'are pages of other origins in a browser in which somebody has logged in';
  fault({ id: 'H1', title: paged, times: 5, reduced: 1, needs: [...needs, 'chromium'] }, (times) =>
    withTarget(async (target) => {
      const before = await target.look();
      let figure = '';
      for (let round = 0; round < times; round++) figure = await browserAttacks(target);
      await expectUntouched(target, before);
      return `${times} × ${figure}, ${target.actions().length} actions executed`;
    }),
  );

  const slow = 'take their time, or come in hundreds: everybody else is answered';
  fault({ id: 'H1', title: slow, times: 20, needs }, (times) =>
    withTarget(async (target) => {
      const before = await target.look();
      const figures = [await dripAttacks(target, times), await floodAttack(target)];
      await expectUntouched(target, before);
      return figures.join('; ');
    }),
  );
});

/** What is wrong with how it was answered. */
async function perform({ kind, name, bytes, expected, how }: Attack, target: Target): Promise<string[]> {
  const before = target.actions().length;
  const reply = await send(bytes, { port: target.port, from: target.newAddress(), ...how });
  const outcome = describeReply(reply);
  const done = target.actions().slice(before);
  const told = `${kind} ${name}: ${outcome}, expected ${expected}`;
  return [...(expected.test(outcome) ? [] : [told]), ...(done.length > 0 ? [`${told}; DONE: ${done}`] : [])];
}

/** `421 ERR_MISDIRECTED`, `200 then 401`; 0: not a word. */
function describeReply({ status, headers, body, text }: Reply): string {
  const second = readReply(text.slice(text.indexOf('HTTP/1.1', 1)));
  if (second && text.indexOf('HTTP/1.1', 1) > 0) return `${status} then ${second.status}`;
  if (!/problem\+json/.test(headers['content-type'] ?? '')) return String(status);
  return `${status} ${/"code":"(\w+)"/.exec(body)?.[1]}`;
}

async function expectUntouched({ actions, look, daemon, home }: Target, before: string): Promise<void> {
  expect(actions(), 'actions').to.deep.equal([]);
  expect(await look()).to.equal(before);
  expect(isAlive(daemon.pid), 'the daemon lives').to.equal(true);
  expect((await home.api('GET', '/livez')).status).to.equal(200);
}
