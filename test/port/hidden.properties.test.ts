/** What is read of mounts and of control groups, whatever else stands there. */
import { expect } from 'chai';
import fc from 'fast-check';
import { unitOf } from '#lib/port/respawn.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { hidesOthers } from '#lib/proc/rights.js';

describe('hidesOthers()', () => {
  const word = fc.stringMatching(/^[a-z0-9=:.-]{1,10}$/);
  const level = fc.constantFrom('0', 'off', '1', '2', '4', 'noaccess', 'invisible', 'ptraceable');
  const mount = fc.record({
    at: fc.constantFrom('/proc', '/proc/sys', '/', '/mnt/proc', '/mnt\\040a'),
    tags: fc.array(fc.constantFrom('shared:5', 'master:1', 'unbindable'), { maxLength: 2 }),
    type: fc.constantFrom('proc', 'tmpfs', 'ext4'),
    source: fc.oneof(fc.constantFrom('proc', 'hidepid=2', 'none', '-'), word),
    options: fc.array(fc.oneof(word, fc.constantFrom('gid=5', 'nohidepid=2', 'xhidepid=1')), { maxLength: 3 }),
    hidepid: fc.option(level, { nil: undefined }),
  });

  it('is told by the options of the last /proc that is mounted there, and by no other word', () => {
    fc.assert(
      fc.property(fc.array(mount, { maxLength: 6 }), fc.boolean(), (mounts, mayTrace) => {
        const lines = mounts.map(({ at, tags, type, source, options, hidepid }, id) => {
          const all = ['rw', ...options, ...(hidepid === undefined ? [] : [`hidepid=${hidepid}`])];
          return `${id} 1 0:${id} / ${at} rw,relatime ${[...tags, '-'].join(' ')} ${type} ${source} ${all.join(',')}\n`;
        });
        const caps = `CapEff:\t${mayTrace ? '0000000000080000' : '00000000fff7ffff'}\n`;
        const shown = mounts.findLast(({ at, type }) => at === '/proc' && type === 'proc')?.hidepid;
        const isHiding = shown !== undefined && shown !== '0' && shown !== 'off' && !mayTrace;
        expect(hidesOthers(procOf({ 'self/mountinfo': lines.join(''), 'self/status': caps }))).to.equal(isHiding);
      }),
      { numRuns: 500 },
    );
  });
});

describe('unitOf()', () => {
  const part = fc.oneof(
    fc.constantFrom(
      'system.slice',
      'user.slice',
      'user-0.slice',
      'session-3.scope',
      'init.scope',
      'x.service.d',
      '.service',
    ),
    fc.stringMatching(/^[a-zA-Z0-9:_.@-]{1,12}$/),
    fc.stringMatching(/^[a-z@-]{1,8}$/).map((name) => `${name}.service`),
  );

  it('is the innermost service of the path, and none where there is none', () => {
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        const text = `0::/${parts.join('/')}\n`;
        const unit = parts.findLast((name) => name.endsWith('.service') && name !== '.service');
        expect(unitOf(procOf({ '7/cgroup': text }), 7)).to.equal(unit);
      }),
      { numRuns: 500 },
    );
  });

  it('is that of a person’s own manager where it is one', () => {
    const path = '0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n';
    expect(unitOf(procOf({ '7/cgroup': path }), 7)).to.equal('web.service');
    expect(unitOf(procOf({ '7/cgroup': '1:name=systemd:/system.slice/nginx.service\n' }), 7)).to.equal('nginx.service');
    expect(unitOf(procOf({}), 7)).to.equal(undefined);
  });
});

function procOf(files: Readonly<Record<string, string>>): Proc {
  return { ...openProc('/nowhere'), root: '/proc', text: (path) => files[path] };
}
