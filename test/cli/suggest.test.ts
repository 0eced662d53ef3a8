import { expect } from 'chai';
import { meant } from '#lib/cli/suggest.js';
import { TunwardError } from '#lib/errors.js';
import { toProblem } from '#lib/wire.js';
import { createReaper } from '../support/reaper.js';
import { startFakeDaemon, tunnelRecord } from './fake-daemon.js';
import { tunward } from './run.js';

const tunnel = (name: string, digit = '7', groups: string[] = []) => ({ id: digit.repeat(32), name, groups });

describe('a name that no tunnel has', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  describe('meant()', () => {
    const tunnels = [tunnel('web', 'a', ['staging']), tunnel('database', 'b'), tunnel('unnamed', 'c')];

    it('is the nearest name, a part of one, a group, or an id that was cut short', () => {
      expect(meant('wbe', tunnels)).to.equal("did you mean 'web'?");
      expect(meant('Database', tunnels)).to.equal("did you mean 'database'?");
      expect(meant('base', tunnels)).to.equal("did you mean 'database'?");
      expect(meant('staging', tunnels)).to.equal('it is a group; did you mean --group staging?');
      expect(meant('bbb', tunnels)).to.equal("8 digits of an id are the least; did you mean 'bbbbbbbb'?");
    });

    it('is otherwise one of those there are', () => {
      expect(meant('mail', tunnels)).to.equal('the tunnels are web, database');
      expect(meant('mail', [tunnel('unnamed')])).to.contain('only ids');
      const many = Array.from({ length: 500 }, (_, at) => tunnel(`tunnel-${at}`));
      expect(meant('mail', many)).to.match(/^the tunnels are tunnel-0, .*tunnel-7 and 492 more \(tunward ls\)$/);
    });
  });

  it('is said by every command that takes one', async () => {
    const daemon = await startFakeDaemon();
    try {
      const unknown = () => toProblem(new TunwardError('ERR_TUNNEL_UNKNOWN', 'No tunnel is called that', {}));
      daemon.routes.set('GET /v1/tunnels', () => ({ body: { tunnels: [tunnelRecord()] } }));
      for (const route of ['GET /v1/tunnels/wbe', 'POST /v1/tunnels/wbe/restart']) daemon.routes.set(route, unknown);
      for (const args of [
        ['logs', 'wbe'],
        ['restart', 'wbe'],
        ['events', '--tunnel', 'wbe'],
      ]) {
        const { code, stderr } = await tunward(reaper, [...args, '--socket', daemon.socket]);
        expect(code).to.equal(4);
        expect(stderr).to.contain("No tunnel is called 'wbe': did you mean 'web'?");
      }
      const { stderr } = await tunward(reaper, ['ls', '--group', 'x', '--socket', daemon.socket]);
      expect(stderr).to.contain('no tunnel is in any group');
      // Where it cannot be asked what there is, what the daemon said stands.
      daemon.routes.delete('GET /v1/tunnels');
      const plain = await tunward(reaper, ['logs', 'wbe', '--socket', daemon.socket]);
      expect([plain.code, plain.stderr]).to.deep.equal([4, 'error: No tunnel is called that\n']);
    } finally {
      await daemon.close();
    }
  });
});
