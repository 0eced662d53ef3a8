import { expect } from 'chai';
import { checkTerminal } from '#lib/daemon/doctor/terminal.js';
import { need } from '../../support/need.js';
import { freeLocalPort } from '../../support/port.js';
import { makePatient, type Patient, say, tunnel } from './patient.js';

describe('tunward doctor: the terminal', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(() => patient.remove());

  async function around(interactive: boolean) {
    return patient.around({ config: patient.config({ tunnels: [tunnel(await freeLocalPort(), { interactive })] }) });
  }

  it('is no question where no tunnel asks anybody', async () => {
    expect(await checkTerminal(await around(false), null)).to.deep.equal([]);
    expect(await checkTerminal(patient.around(), null)).to.deep.equal([]);
  });

  it('is no question where the embedded engine asks, which needs none', async () => {
    const asking = tunnel(await freeLocalPort(), { interactive: true, engine: 'embedded' });
    expect(await checkTerminal(patient.around({ config: patient.config({ tunnels: [asking] }) }), null)).to.deep.equal(
      [],
    );
  });

  it('is made by node-pty, which is tried in a process of its own', async function () {
    need(this, 'pty');
    expect(say(await checkTerminal(await around(true)))[0]).to.match(
      /^ok terminal: 1 tunnel may ask a person, on one made by \/.*node-pty\/index\.js$/,
    );
  });

  it('is lacking without it, and which command adds it', async () => {
    const { checks, remedy } = await lacking(null);
    expect(checks).to.deep.equal([
      'warning terminal: 1 tunnel may ask a person, and node-pty is not there: ssh asks through SSH_ASKPASS, a line at a time',
    ]);
    expect(remedy).to.contain("'npm i node-pty'").and.to.contain("'npm i node-pty@npm:@lydell/node-pty'");
  });

  it('is lacking where it is there and does not load, and why', async () => {
    const text = "throw new Error('Failed to load native module: pty.node\\u001b[2J, checked: build/Release')";
    const { checks, remedy } = await lacking(patient.write('node-pty/index.cjs', text));
    expect(checks[0]).to.contain('index.cjs does not load (Error: Failed to load native module: pty.node?[2J, checked');
    expect(remedy).to.contain("'npm i node-pty'");
  });

  async function lacking(pty: string | null) {
    const checks = await checkTerminal(await around(true), pty);
    return { checks: say(checks), remedy: checks[0]?.remedy };
  }
});
