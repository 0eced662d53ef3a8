import { expect } from 'chai';
import { makeKeys } from '#lib/sshd/keys.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';

describe('makeKeys()', () => {
  const ssh2 = loadSsh2();

  it('makes a pair anew when ssh2 makes one that nobody can read', () => {
    const made: string[] = [];
    const generateKeyPairSync = (): { public: string; private: string } => {
      const pair = ssh2.utils.generateKeyPairSync('ed25519');
      // What a stripped zero byte makes of it: the string is shorter than the length before it says.
      const cut = { ...pair, public: `ssh-ed25519 ${pair.public.split(' ')[1]?.slice(0, -4)}` };
      const answer = made.length === 0 ? cut : pair;
      made.push(answer.public);
      return answer;
    };
    const { public: key } = makeKeys({ utils: { ...ssh2.utils, generateKeyPairSync } as typeof ssh2.utils }, 'test');
    expect(made).to.have.length.above(1);
    expect(ssh2.utils.parseKey(key)).not.to.be.instanceOf(Error);
  });
});
