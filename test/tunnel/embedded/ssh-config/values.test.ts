import { itRefuses, useConfigHome } from '../../../support/ssh-config.js';

describe('createValues()', () => {
  const home = useConfigHome();

  itRefuses(home, [
    ['two values', 'User a b', /line 1: expected one value of User, found 2/],
    ['a port that is none', 'Port 0', /line 1: expected a number from 1 to 65535 as Port, found '0'/],
    [
      'a word that is neither yes nor no',
      'Compression maybe',
      /line 1: expected yes, true, no, false as Compression, found 'maybe'/,
    ],
    ["'none' among files", 'UserKnownHostsFile none /x', /'none' to stand alone/],
  ]);
});
