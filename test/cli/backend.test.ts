import { expect } from 'chai';
import { need } from '../support/need.js';
import { isAlive } from '../support/proc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { tunward } from './run.js';

describe('TUNWARD_BACKEND=portable', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());
  const run = (...args: string[]) => tunward(reaper, args, { env: { TUNWARD_BACKEND: 'portable' } });

  it('looks at ports and processes as far as the packages go', async function () {
    need(this, 'ps');
    const { pid, ports, children } = await startTree(reaper, { listen: [{ host: '127.0.0.1' }], children: [{}] }).ready;
    const port = ports[0]?.port ?? 0;
    const who = await run('who', String(port));
    expect(who).to.include({ code: 0, stderr: '' });
    // With whom find-process names, where it finds ss, netstat or lsof.
    expect(who.stdout).to.match(/as find-process says|find-process does not name/);
    expect(who.stdout).to.contain(`listening on 127.0.0.1:${port}`);
    const blind = await tunward(reaper, ['who', String(port)], {
      env: { TUNWARD_BACKEND: 'portable', PATH: '/nonexistent' },
    });
    expect(blind.stdout).to.contain('\n  a socket, in no process that can be seen here\n');
    expect((await run('wait', String(port), '--listening')).code).to.equal(0);
    expect((await run('wait', String(port), '--free', '--timeout', '50')).code).to.equal(124);
    const tree = await run('tree', String(pid), '--json');
    expect(JSON.parse(tree.stdout)).to.include({ pid, start_ticks: -1 });
    expect(JSON.parse(tree.stdout).children[0]).to.include({ pid: children[0]?.pid });
  });

  it('kills, frees and lists nothing, and says why', async () => {
    const { pid, ports } = await startTree(reaper, { listen: [{ host: '127.0.0.1' }] }).ready;
    for (const args of [['kill', String(pid)], ['free', String(ports[0]?.port)], ['ps']]) {
      const { code, stderr } = await run(...args);
      expect(code, args.join(' ')).to.equal(1);
      expect(stderr).to.match(/^error: Cannot .* with the back end 'portable': only Linux's \/proc tells one process /);
    }
    expect(isAlive(pid)).to.equal(true);
  });

  it('must be a back end that there is', async () => {
    const { code, stderr } = await tunward(reaper, ['who', '9443'], { env: { TUNWARD_BACKEND: 'windows' } });
    expect(code).to.equal(2);
    expect(stderr).to.equal("error: TUNWARD_BACKEND: expected linux or portable, found 'windows'\n");
  });
});
