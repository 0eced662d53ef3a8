import { expect } from 'chai';
import { checkPorts } from '#lib/daemon/doctor/ports.js';
import { openProc } from '#lib/proc/read.js';
import { freeLocalPort } from '../../support/port.js';
import { isAlive } from '../../support/proc.js';
import { startListener } from '../../support/processes.js';
import { createReaper } from '../../support/reaper.js';
import { makePatient, type Patient, say, tunnel } from './patient.js';

describe('tunward doctor: ports', () => {
  const reaper = createReaper();
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(async () => {
    await reaper.end();
    patient.remove();
  });

  const look = async (tunnels: readonly object[], changes = {}) =>
    say(await checkPorts(patient.around({ config: patient.config({ tunnels }), ...changes })));

  it('are free, or none', async () => {
    expect(await look([])).to.deep.equal(['ok ports: no tunnel listens on this host']);
    expect(await look([tunnel(await freeLocalPort())])).to.deep.equal(['ok ports: 1 port, free']);
    const remote = { direction: 'local_to_remote', remote_host: 'h', remote_port: 80, local_port: 80 };
    expect(await look([remote]), 'the far side has its own').to.deep.equal([
      'ok ports: no tunnel listens on this host',
    ]);
  });

  it('are held, by whom, and whoever it is lives on', async () => {
    const { pid, ports } = await startListener(reaper, { host: '127.0.0.1' }).ready;
    const port = ports[0]?.port ?? 0;
    const [line] = await look([tunnel(port), tunnel(await freeLocalPort())], { proc: openProc() });
    expect(line).to.match(new RegExp(`^warning ports: Port ${port} is held by pid ${pid} `));
    expect(isAlive(pid)).to.equal(true);
  });

  it('are those of the daemon that runs', async () => {
    expect(await look([tunnel(await freeLocalPort())], { daemon: { pid: 1, zombies: 0, blocked: [] } })).to.deep.equal([
      'ok ports: 1 port of the daemon that runs: tunward ls',
    ]);
  });

  it('are those of the daemon that runs, but for those that it has not got', async () => {
    const tunnels = [tunnel(await freeLocalPort()), tunnel(await freeLocalPort())];
    const id = patient.config({ tunnels }).tunnels[0]?.id ?? '';
    const blocked = [{ id, name: 'web', lastError: 'port 9 is held by pid 4711', remedy: 'ask 4711' }];
    const daemon = { pid: 1, zombies: 0, blocked };
    expect(await look(tunnels, { daemon })).to.deep.equal([
      'warning ports: tunnel web: port 9 is held by pid 4711',
      'ok ports: 1 port of the daemon that runs: tunward ls',
    ]);
    expect(await look(tunnels.slice(0, 1), { daemon })).to.deep.equal([
      'warning ports: tunnel web: port 9 is held by pid 4711',
    ]);
  });

  it('are below those that an ordinary user may listen on', async () => {
    const caps = (effective: string, ambient: string) =>
      patient.fake.write('self/status', `CapEff:\t${effective}\nCapAmb:\t${ambient}\n`);
    const [none, bind] = ['0000000000000000', '0000000000000400'];
    const daemon = { pid: 1, zombies: 0, blocked: [] };
    const low = [tunnel(443), tunnel(8443)];
    caps(bind, none);
    expect(await look(low, { uid: 1000, daemon }), 'ssh gets none of what only we have').to.deep.equal([
      'failed ports: 443: below 1024 only root may listen, and who has CAP_NET_BIND_SERVICE',
    ]);
    caps(bind, bind);
    expect((await look(low, { uid: 1000, daemon }))[0]).to.match(/^ok/);
    caps(none, none);
    expect((await look(low, { uid: 0, daemon }))[0], 'a root that was stripped').to.match(/^failed/);
    patient.fake.write('sys/net/ipv4/ip_unprivileged_port_start', '0\n');
    expect((await look(low, { uid: 1000, daemon }))[0], 'as docker has it').to.match(/^ok/);
  });
});
