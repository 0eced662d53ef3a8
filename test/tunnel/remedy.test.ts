import { expect } from 'chai';
import { remedyOf, whichOf } from '#lib/tunnel/remedy.js';
import { makeSpec } from '../support/specs.js';

describe('remedyOf() an interactive tunnel', () => {
  const remedy = (reason: 'needs_auth' | 'auth_failed', interactive: boolean) =>
    remedyOf(reason, { spec: { ...makeSpec(), name: 'vault', interactive }, lastError: null });

  it('is a person, by the command or by the page', () => {
    expect(remedy('needs_auth', true)).to.equal("it waits for a person: 'tunward auth vault', or the panel");
    expect(remedy('auth_failed', true)).to.equal("try again: 'tunward auth vault', or the panel");
    expect(remedy('needs_auth', false)).to.contain('ssh-add');
    expect(remedy('auth_failed', false)).to.contain('ssh-copy-id');
  });

  it('names it as a shell takes it: by its id where the name is none, or more than one plain word', () => {
    const id = '0123456789abcdef'.repeat(2);
    const names = ['db-1.eu', 'unnamed', 'my db', "x'; rm", '-f', ''];
    expect(names.map((name) => whichOf({ id, name }))).to.deep.equal(['db-1.eu', ...Array(5).fill('01234567')]);
  });
});
