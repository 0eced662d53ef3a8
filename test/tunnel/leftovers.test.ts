import { chownSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { createCensus } from '#lib/proc/census.js';
import type { Proc } from '#lib/proc/read.js';
import { systemClock } from '#lib/time.js';
import { markerNames, markerOf } from '#lib/tunnel/chain.js';
import { countLayers, findLeftovers, type Layer, type LeftoverOptions } from '#lib/tunnel/leftovers.js';
import type { Takeover, TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeProc, type FakeProc, type FakeProcess, socketLine } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';

const instance = 'a'.repeat(32);
const living = 'b'.repeat(32);
const dead = 'c'.repeat(32);

/** Who would be killed, and why: on a /proc that a test writes, so nobody is. */
describe('findLeftovers()', () => {
  let fake: FakeProc;
  let asked: string[];
  const spec = makeSpec({ side: 'remote', remoteHost: 'me@web' });
  const marker = markerOf(spec.id, instance);

  beforeEach(() => {
    asked = [];
    fake = createFakeProc();
    fake.write('uptime', '1000.00 0.00\n');
    fake.write('net/sockstat6', 'TCP6: inuse 0\n');
    fake.add({ pid: process.pid, ppid: 1, comm: 'node' });
  });
  afterEach(() => fake[Symbol.dispose]());

  /** `layer pid` of all that is found. Destinations resolve to themselves on the default port. */
  async function find(takeover: Takeover, options: Partial<LeftoverOptions> = {}, specs: TunnelSpec[] = [spec]) {
    const found = await findLeftovers(specs, {
      ...{ proc: fake.proc, instance, takeover, marker },
      resolve: async (words) => {
        asked.push(words.join(' '));
        return `${words.at(-1)}:22`;
      },
      resolveSpec: async ({ remoteHost }) => `${remoteHost}:22`,
      isLiving: async (other) => other === living,
      ...options,
    });
    return found.map(({ layer, target }) => `${layer} ${target.ref.pid} ${target.below}`).sort();
  }

  const tunnel = (pid: number, words: string, more: Partial<FakeProcess> = {}): FakeProcess => ({
    ...{ pid, comm: 'ssh', command: ['ssh', ...words.split(' ')] },
    ...more,
  });
  const same = '-N -R 9443:elsewhere:1 me@web';

  describe('by marker', () => {
    it('finds what carries it, up to what would start it again', async () => {
      fake.add(
        tunnel(100, 'x', { comm: 'autossh', environ: marker }),
        tunnel(101, 'x', { ppid: 100, environ: marker }),
        { pid: 102, comm: 'nc', environ: marker },
        { pid: 103, environ: [`OTHER_${marker[0]}`, marker[1] ?? ''] },
        { pid: 104, environ: markerOf('d'.repeat(32), instance) },
        { pid: 105, environ: markerOf(spec.id, dead) },
      );
      for (const takeover of ['own', 'tunnels', 'any'] as const) {
        expect(await find(takeover)).to.deep.equal(['marker 100 all', 'marker 102 all']);
      }
    });

    it('looks again at one inside execve, whose environment is empty at the first look', async () => {
      fake.add({ pid: 100, environ: marker }, { pid: 101, environ: [] });
      let reads = 0;
      const text: Proc['text'] = (file) => {
        // The first look, which reads both files, and no more.
        const isInside = file === '100/environ' ? ++reads === 1 : file === '100/cmdline' && reads === 1;
        return isInside ? '' : fake.proc.text(file);
      };
      expect(await find('own', { proc: { ...fake.proc, text } })).to.deep.equal(['marker 100 all']);
    });

    it('leaves this process and its parents alone, though they carry it', async () => {
      fake.remove(String(process.pid));
      fake.add(
        { pid: 50, comm: 'node', environ: marker },
        { pid: process.pid, ppid: 50, comm: 'node', environ: marker, startTicks: 200 },
      );
      expect(await find('any')).to.deep.equal([]);
    });
  });

  describe('by the ledger', () => {
    const former = markerOf('f'.repeat(32), dead);
    const record = { tunnel: 'f'.repeat(32), instance: dead, pid: 100, startTicks: 500 };

    it('finds what was started under a mark that has been lost, up to what would start it again', async () => {
      fake.add(
        tunnel(90, 'x', { comm: 'autossh', environ: former }),
        tunnel(100, 'x', { ppid: 90, environ: former, startTicks: 500 }),
      );
      expect(await find('own', { records: [record] })).to.deep.equal(['ledger 90 all']);
    });

    it('is a hint, and nothing more: another start, another mark, no mark, a number that nobody has', async () => {
      fake.add(
        tunnel(100, 'x', { environ: former, startTicks: 501 }),
        tunnel(101, 'x', { environ: markerOf('e'.repeat(32), dead), startTicks: 500 }),
        tunnel(102, 'x', { environ: [], startTicks: 500 }),
        tunnel(103, 'x', { environ: former, startTicks: 500, state: 'Z' }),
      );
      const records = [100, 101, 102, 103, 104, process.pid, 1].map((pid) => ({ ...record, pid }));
      expect(await find('any', { records })).to.deep.equal([]);
    });

    it('leaves what is in the care of another daemon, or another user\u2019s', async function () {
      need(this, 'root');
      fake.add(
        tunnel(100, 'x', { environ: markerOf('f'.repeat(32), living), startTicks: 500 }),
        tunnel(101, 'x', { environ: former, startTicks: 500 }),
      );
      chownSync(path.join(fake.proc.root, '101'), 1234, 1234);
      const records = [
        { ...record, instance: living },
        { ...record, pid: 101 },
      ];
      expect(await find('own', { records })).to.deep.equal([]);
    });
  });

  describe('by forward', () => {
    it('finds the same listening end to the same place, whatever is behind it, and its autossh', async () => {
      fake.add(
        tunnel(100, same),
        tunnel(101, '-M 0 -N -R localhost:9443:x:1 me@web', { comm: 'autossh', environ: ['AUTOSSH_GATETIME=0'] }),
        tunnel(102, '-N -R localhost:9443:x:1 me@web', { ppid: 101 }),
      );
      expect(await find('tunnels')).to.deep.equal(['forward 100 all', 'forward 101 all']);
      expect(await find('own')).to.deep.equal([]);
    });

    it('leaves another place, another port, another address, another side and another program alone', async () => {
      fake.add(
        tunnel(100, '-N -R 9443:x:1 me@web2'),
        tunnel(101, '-N -R 9444:x:1 me@web'),
        tunnel(102, '-N -R 127.0.0.2:9443:x:1 me@web'),
        tunnel(103, '-N -L 9443:x:1 me@web'),
        tunnel(104, same, { comm: 'mosh' }),
        tunnel(105, '-R 9443:x:1 me@web'),
        tunnel(106, '-N -R 9443:x:1 me@web top'),
      );
      expect(await find('any')).to.deep.equal([]);
      // Nobody was asked for whom the command line alone decides.
      expect(asked).to.deep.equal(['-- me@web2']);
    });

    it('leaves alone what nobody can resolve', async () => {
      fake.add(tunnel(100, same));
      expect(await find('any', { resolve: async () => undefined })).to.deep.equal([]);
      expect(await find('any', { resolve: async () => undefined, resolveSpec: async () => undefined })).to.deep.equal(
        [],
      );
    });

    it('asks ssh with the words that decide, a file named from the process’s own folder', async () => {
      fake.add(tunnel(100, '-N -F cfg -p 22 -i key -R 9443:x:1 me@web'), tunnel(101, '-N -F none -R 9443:x:1 me@web'));
      symlinkSync('/home/me', path.join(fake.root, '100/cwd'));
      await find('tunnels');
      expect(asked).to.have.members(['-F /home/me/cfg -p 22 -- me@web', '-F none -- me@web']);
    });

    it('leaves what was seen to be its own without taking it apart again, unless takeover is any', async () => {
      const census = createCensus(fake.proc, systemClock, markerNames);
      const other = markerOf('d'.repeat(32), instance);
      fake.add(tunnel(100, same, { environ: other }), tunnel(101, same));
      expect(await find('own', { census })).to.deep.equal([]);
      const read: string[] = [];
      const text: Proc['text'] = (path) => {
        if (path.endsWith('/cmdline')) read.push(path);
        return fake.proc.text(path);
      };
      const options = { census, proc: { ...fake.proc, text } };
      expect(await find('tunnels', options)).to.deep.equal(['forward 101 all']);
      expect(read).to.deep.equal(['101/cmdline']);
      expect(await find('any', options)).to.deep.equal(['forward 100 all', 'forward 101 all']);
    });

    it('leaves the chain of a daemon that lives to that, this one included, unless takeover is any', async () => {
      fake.add(
        tunnel(100, same, { environ: [`TUNWARD_INSTANCE=${living}`] }),
        tunnel(101, same, { environ: [`TUNWARD_INSTANCE=${instance}`, 'TUNNEL_ID=another'] }),
        tunnel(102, same, { environ: [`TUNWARD_INSTANCE=${dead}`] }),
      );
      expect(await find('tunnels')).to.deep.equal(['forward 102 all']);
      expect(await find('any')).to.have.members(['forward 100 all', 'forward 101 all', 'forward 102 all']);
    });

    it('never runs ssh by another user’s configuration', async function () {
      need(this, 'root');
      fake.add(tunnel(100, '-N -F /tmp/evil -R 9443:x:1 me@web'));
      chownSync(path.join(fake.root, '100'), 12_345, 12_345);
      expect(await find('any')).to.deep.equal([]);
      expect(asked).to.deep.equal([]);
    });
  });

  describe('by port', () => {
    let port: number;
    let holder: net.Server;
    let local: TunnelSpec;
    beforeEach(async () => {
      port = await freeLocalPort();
      holder = net.createServer();
      // The bind is refused by a real socket; whose it is says the table that the test writes.
      await new Promise<void>((resolve) => holder.listen({ port, host: '127.0.0.1' }, resolve));
      fake.write('net/tcp', socketLine({ address: '0100007F', port, inode: 77 }));
      local = makeSpec({ side: 'local', listen: { host: 'localhost', port } });
    });
    afterEach(() => new Promise<void>((resolve) => holder.close(() => resolve())));

    it('finds an ssh that holds it, and its autossh', async () => {
      fake.add(tunnel(100, 'prod', { comm: 'autossh' }), tunnel(101, 'prod', { ppid: 100, sockets: [77] }));
      expect(await find('own', {}, [local])).to.deep.equal([]);
      expect(await find('tunnels', {}, [local])).to.deep.equal(['port 100 all']);
      expect(await find('any', {}, [local])).to.deep.equal(['port 100 all']);
    });

    it('finds anyone else only where takeover is any, and what is in its session', async () => {
      fake.add({ pid: 100, comm: 'nginx', sockets: [77] });
      expect(await find('tunnels', {}, [local])).to.deep.equal([]);
      expect(await find('any', {}, [local])).to.deep.equal(['anyone 100 session']);
    });

    it('leaves a tunward daemon that listens for a tunnel, also where takeover is any', async () => {
      const lock = (inode: number, flags: string, name: string) =>
        `ffff: 00000002 00000000 ${flags} 0001 01 ${inode} ${name}\n`;
      fake.write('net/unix', `Num RefCount\n${lock(88, '00010000', `@tunward-${'a'.repeat(32)}`)}`);
      fake.add({ pid: 100, comm: 'node', sockets: [77, 88] });
      expect(await find('any', {}, [local])).to.deep.equal([]);
      // Connected to one, or called nearly so.
      const name = `@tunward-${'a'.repeat(32)}`;
      fake.write(
        'net/unix',
        `${lock(88, '00000000', name)}${lock(88, '00010000', `${name}b`)}${lock(88, '00010000', '/x')}`,
      );
      expect(await find('any', {}, [local])).to.deep.equal(['anyone 100 session']);
    });

    it('leaves an ssh to a daemon that lives, unless takeover is any', async () => {
      fake.add(tunnel(100, 'prod', { sockets: [77], environ: [`TUNWARD_INSTANCE=${living}`] }));
      expect(await find('tunnels', {}, [local])).to.deep.equal([]);
      expect(await find('any', {}, [local])).to.deep.equal(['port 100 all']);
    });

    it('leaves another user’s ssh to that user, unless takeover is any', async function () {
      need(this, 'root');
      fake.add(tunnel(100, 'prod', { sockets: [77] }));
      chownSync(path.join(fake.root, '100'), 12_345, 12_345);
      expect(await find('tunnels', {}, [local])).to.deep.equal([]);
      expect(await find('any', {}, [local])).to.deep.equal(['port 100 all']);
    });

    it('never looks for who holds the port that a remote forward leads to', async () => {
      fake.add({ pid: 100, comm: 'nginx', sockets: [77] }, tunnel(101, 'prod', { sockets: [77] }));
      const remote = makeSpec({ side: 'remote', listen: { host: 'localhost', port } });
      expect(await find('any', {}, [remote])).to.deep.equal([]);
    });

    it('counts a chain once, in the first layer that finds it', async () => {
      fake.add(tunnel(100, same, { sockets: [77], environ: marker }));
      expect(await find('any', {}, [local, spec])).to.deep.equal(['marker 100 all']);
    });
  });

  it('counts the dead by what they were found by, and those below as their chain', () => {
    const dead = (pid: number) => ({ pid, startTicks: 1, command: 'ssh', why: 'target' });
    const kill = { killed: [dead(1), dead(2), dead(3), dead(4)], left: [], survivors: [], tookMs: 1 };
    const leftover = (layer: Layer, pid: number) => ({
      layer,
      target: { ref: dead(pid), why: '', below: 'all' as const },
    });
    const leftovers = [leftover('marker', 1), leftover('port', 3), leftover('port', 4), leftover('forward', 9)];
    expect(countLayers(kill, leftovers)).to.deep.equal({ marker: 1, chain: 1, port: 2 });
  });

  it('ends when it is called off', async () => {
    const off = AbortSignal.abort(new Error('called off'));
    expect(await find('any', { signal: off }).catch(String)).to.equal('Error: called off');
  });
});
