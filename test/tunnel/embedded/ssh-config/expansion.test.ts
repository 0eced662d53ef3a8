import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { itRefuses, useConfigHome, variable } from '../../../support/ssh-config.js';

const { username } = userInfo();

describe('the expansion of ssh_config', () => {
  const home = useConfigHome();

  it('expands what is meant by ~ and % and names of variables', async () => {
    const lines = [
      'HostName %h.example',
      'Port 2222',
      'User me',
      'HostKeyAlias Key',
      'IdentityFile ~/%h_%n_%p_%r_%u_%k_%%_%i',
    ];
    const more = [
      'IdentityFile %d/x',
      `IdentityFile ${variable('KEYS')}/k`,
      'IdentityFile %l',
      `UserKnownHostsFile ~/kh_%h "${variable('KEYS')}/k h"`,
    ];
    const facts = await home.read([...lines, ...more], { options: { env: { KEYS: '/keys' } } });
    expect(facts.identityFiles).to.deep.equal([
      join(home.dir, `web.example_web_2222_me_${username}_key_%_${process.getuid?.()}`),
      join(home.dir, 'x'),
      '/keys/k',
      join(process.cwd(), hostname()),
    ]);
    expect(facts.knownHostsFiles.slice(0, 2)).to.deep.equal([join(home.dir, 'kh_web.example'), '/keys/k h']);
  });

  itRefuses(home, [
    ['a token that it does not know', 'IdentityFile ~/%C', /cannot use '%C'/],
    [
      'a variable that is not there',
      `IdentityFile ${variable('NONE')}/x`,
      /line 1 has \$\{NONE\}, and there is no such variable/,
    ],
    ["somebody else's home", 'IdentityFile ~nobody/x', /does not know the home of nobody/],
  ]);
});
