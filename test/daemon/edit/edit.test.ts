import { expect } from 'chai';
import { addTunnel, removeTunnel, replaceTunnel } from '#lib/daemon/edit/edit.js';

const fresh = { name: 'new', remote_host: 'me@host', remote_port: '0800', local_port: 9000 };
const inline = '{name: new, remote_host: me@host, remote_port: 0800, local_port: 9000}';

/** A text without the indentation that it has here; `|` begins each line. */
function lines(text: string): string {
  return text.replaceAll(/^ *\|/gm, '').replace(/^\n/, '').replace(/ *$/, '');
}

const commented = lines(`
  |# of the file
  |log_dir: /x # logs
  |tunnels: # the list
  |  # of the web
  |  - name: web # its name
  |    remote_host: me@web   # its host
  |    # of the port
  |    remote_port: 80
  |    local_port: 8080
  |    # of the web, too
  |
  |  # of the database
  |  - {name: db, remote_host: me@db, remote_port: 5432, local_port: 5432} # in brackets
  |
  |  # of nobody
  |# of the API
  |api: {}
  |`);

describe('addTunnel()', () => {
  it('puts a tunnel behind the others, as they are written', () => {
    expect(addTunnel(commented, fresh)).to.equal(
      commented.replace('# in brackets\n', `# in brackets\n\n  - ${inline}\n`),
    );
  });

  it('goes by the indentation there is, behind the dash as well', () => {
    const text = 'tunnels:\n-   name: web\n    local_port: 1\n';
    expect(addTunnel(text, { name: 'new', groups: ['a', 'b'] })).to.equal(`${text}-   name: new\n    groups: [a, b]\n`);
  });

  it('keeps line ends of Windows, and a last line without one', () => {
    expect(addTunnel('tunnels:\r\n  - name: web', { name: 'new', remote_port: 1 })).to.equal(
      'tunnels:\r\n  - name: web\r\n  - name: new\r\n    remote_port: 1',
    );
  });

  const block = '  - name: new\n    remote_host: me@host\n    remote_port: 0800\n    local_port: 9000';
  const starts: Record<string, readonly [before: string, after: string]> = {
    'an empty file': ['', `tunnels:\n${block}\n`],
    'comments alone': ['# nothing yet\n', `# nothing yet\ntunnels:\n${block}\n`],
    'no such key': ['log_dir: /x', `log_dir: /x\ntunnels:\n${block}`],
    'an end marker': ['---\nlog_dir: /x\n...\n', `---\nlog_dir: /x\ntunnels:\n${block}\n...\n`],
    'an empty key': ['tunnels: # none\nlog_dir: /x\n', `tunnels: # none\n${block}\nlog_dir: /x\n`],
    'an empty list': ['tunnels: [] # none\nlog_dir: /x\n', `tunnels: # none\n${block}\nlog_dir: /x\n`],
    'an empty list with a comment in it': ['tunnels: [\n  # none\n]\n', `tunnels: [${inline}\n  # none\n]\n`],
    'a file in brackets': ['{log_dir: /x}', `{log_dir: /x, tunnels: [${inline}]}`],
    'a list on one line': ['tunnels: [{name: web}]\n', `tunnels: [{name: web}, ${inline}]\n`],
    'a list in brackets': ['tunnels: [\n  {name: web} # it\n]\n', `tunnels: [\n  {name: web}, # it\n  ${inline}\n]\n`],
    'a comma at the end': ['tunnels: [\n  {name: web},\n]\n', `tunnels: [\n  {name: web},\n  ${inline},\n]\n`],
  };
  for (const [what, [before, after]] of Object.entries(starts)) {
    it(`begins from ${what}`, () => expect(addTunnel(before, fresh)).to.equal(after));
  }

  it('leaves JSON what it is, laid out as it was', () => {
    const config = { log_dir: '/x', tunnels: [{ name: 'web', ssh_options: { Port: 22 } }] };
    for (const indent of [undefined, 2, 4, '\t']) {
      const text = JSON.stringify(config, null, indent);
      const next = addTunnel(text, fresh);
      expect(JSON.parse(next)).to.deep.equal({ ...config, tunnels: [...config.tunnels, fresh] });
      if (indent !== undefined) expect(next).to.equal(JSON.stringify(JSON.parse(next), null, indent));
    }
  });

  it('writes what is read as text as it was given, and quotes what would be something else', () => {
    const written = addTunnel('tunnels: []\n', {
      ...{ name: 'a: b # c', remote_host: 'true', remote_port: '[::1]:80', local_port: 80, interactive: false },
      ...{ groups: ['1', 'no', 'eu'], check: { http: '/x?y=#' }, enabled: null, ssh_options: { Compression: 'yes' } },
    });
    expect(written).to.equal(
      lines(`
      |tunnels:
      |  - name: "a: b # c"
      |    remote_host: true
      |    remote_port: "[::1]:80"
      |    local_port: 80
      |    interactive: false
      |    groups: ["1", no, eu]
      |    check: {http: /x?y=#}
      |    ssh_options: {Compression: yes}
      |`),
    );
  });

  it('refuses what no file can say', () => {
    let deep: unknown = 'x';
    for (let level = 0; level < 100_000; level++) deep = [deep];
    for (const value of [Number.NaN, 1n, () => 1, '\ud800', deep]) {
      expect(() => addTunnel('', { name: value }))
        .to.throw('Cannot write this tunnel: ')
        .with.property('code', 'ERR_BAD_REQUEST');
    }
  });

  it('refuses a text that is no YAML, and one without a list', () => {
    expect(() => addTunnel('tunnels: [', fresh))
      .to.throw()
      .with.property('code', 'ERR_CONFIG_INVALID');
    expect(() => addTunnel('? \n  - a\n "', fresh), 'a key with a mistake that yaml passes over').to.throw(
      'no place for it',
    );
    expect(() => addTunnel('tunnels: 7', fresh)).to.throw('there is no list of tunnels');
    expect(() => addTunnel('tunnels: &all []\nmore: *all\n', fresh))
      .to.throw()
      .with.property('code', 'ERR_BAD_REQUEST');
  });
});

describe('replaceTunnel()', () => {
  it('touches the keys that change, and the comments of none', () => {
    const web = { name: 'web', remote_host: 'me@other', remote_port: '80', local_port: '08080', groups: ['eu'] };
    expect(replaceTunnel(commented, 0, web)).to.equal(
      commented.replace('me@web ', 'me@other ').replace('local_port: 8080\n', 'local_port: 08080\n    groups: [eu]\n'),
    );
  });

  it('does the same in brackets', () => {
    const db = { name: 'db', remote_host: 'me@db', local_port: 5433, enabled: false };
    expect(replaceTunnel(commented, 1, db)).to.equal(
      commented.replace(/- \{.*\}/, '- {name: db, remote_host: me@db, enabled: false, local_port: 5433}'),
    );
  });

  it('goes into mappings, and keeps what is said of their keys', () => {
    const text = lines(`
      |tunnels:
      |  - name: web
      |    ssh_options: # of ssh
      |      # slow
      |      Compression: yes # it is
      |      Port: 22
      |    groups:
      |      # of Europe
      |      - eu # here
      |      - us
      |    check: {connect: true}
      |`);
    const wanted = {
      name: 'web',
      ssh_options: { Compression: 'no', User: 'me' },
      groups: ['eu'],
      check: { http: '/' },
    };
    expect(replaceTunnel(text, 0, wanted)).to.equal(
      lines(`
      |tunnels:
      |  - name: web
      |    ssh_options: # of ssh
      |      # slow
      |      Compression: no # it is
      |      User: me
      |    # of Europe
      |    # here
      |    groups: [eu]
      |    check: {http: /}
      |`),
    );
  });

  it('lets the second key come forward when the one beside the dash goes', () => {
    expect(replaceTunnel('tunnels:\n  - name: web # x\n    local_port: 1 # y\n', 0, { local_port: 1 })).to.equal(
      'tunnels:\n  - local_port: 1 # y\n',
    );
  });

  it('writes the whole anew where nothing of it stays, or it is no mapping', () => {
    expect(replaceTunnel('tunnels:\n  - a: 1\n  - b\n', 0, { name: 'x', groups: [] })).to.equal(
      'tunnels:\n  - name: x\n    groups: []\n  - b\n',
    );
    expect(replaceTunnel('tunnels:\n  - a: 1\n  - # nothing\n', 1, { name: 'x' })).to.equal(
      'tunnels:\n  - a: 1\n  - {name: x} # nothing\n',
    );
  });

  it('takes texts over several lines for what they are', () => {
    const text = 'tunnels:\n  - name: |-\n      web\n    remote_host: >-\n      me@a\n  - name: db\n';
    expect(replaceTunnel(text, 0, { name: 'x', remote_host: 'me@a' })).to.equal(
      'tunnels:\n  - name: x\n    remote_host: >-\n      me@a\n  - name: db\n',
    );
  });

  it('knows no tunnel with a number that there is not', () => {
    for (const index of [-1, 2, 0.5]) expect(() => replaceTunnel(commented, index, fresh)).to.throw(RangeError);
  });
});

describe('removeTunnel()', () => {
  it('takes along what is said of the tunnel, directly above and in it', () => {
    const without = commented.replace(/ {2}# of the web\n[\s\S]*of the web, too\n/, '');
    expect(removeTunnel(commented, 0)).to.equal(without);
    expect(removeTunnel(commented, 1)).to.equal(commented.replace(/ {2}# of the database\n.*\n\n/, ''));
  });

  it('leaves a comment above that is apart, and tunnels that are commented out', () => {
    const text = lines(`
      |tunnels:
      |  # of all
      |
      |  - name: web
      |  # - name: old
      |  #   local_port: 1
      |  - name: db
      |`);
    expect(removeTunnel(text, 0)).to.equal(text.replace('  - name: web\n', ''));
    expect(removeTunnel(text, 1)).to.equal(text.replace('  - name: db\n', ''));
  });

  it('tells by the indentation of a comment whose it is', () => {
    const text = 'tunnels:\n  - name: a\n    # of a, too\n  - name: b\n';
    expect(removeTunnel(text, 1)).to.equal('tunnels:\n  - name: a\n    # of a, too\n');
    expect(removeTunnel(text, 0)).to.equal('tunnels:\n  - name: b\n');
    const wide = 'tunnels:\n  - name: a\n\n    # of whom?\n  - name: b\n';
    expect(removeTunnel(wide, 1)).to.equal('tunnels:\n  - name: a\n\n    # of whom?\n');
  });

  it('leaves one blank line of two, and none at the end', () => {
    const text = 'tunnels:\n  - name: a\n\n  - name: b\n\n  - name: c\n';
    expect(removeTunnel(text, 1)).to.equal('tunnels:\n  - name: a\n\n  - name: c\n');
    expect(removeTunnel(text, 2)).to.equal('tunnels:\n  - name: a\n\n  - name: b\n');
    expect(removeTunnel(addTunnel(text, fresh), 3)).to.equal(text);
  });

  it('says that no tunnel is left', () => {
    expect(removeTunnel('tunnels: # all\n  - name: web\n  # of nobody\nlog_dir: /x\n', 0)).to.equal(
      'tunnels: [] # all\n  # of nobody\nlog_dir: /x\n',
    );
    expect(removeTunnel('{"tunnels": [{"name": "web"}]}', 0)).to.equal('{"tunnels": []}');
  });

  it('takes the right comma', () => {
    const text = 'tunnels: [\n  {name: a}, # a\n  {name: b}, # b\n  {name: c} # c\n]\n';
    expect(removeTunnel(text, 1)).to.equal('tunnels: [\n  {name: a}, # a\n  {name: c} # c\n]\n');
    expect(removeTunnel(text, 2)).to.equal('tunnels: [\n  {name: a}, # a\n  {name: b} # b\n]\n');
    expect(removeTunnel('tunnels: [{name: a}, {name: b}]', 1)).to.equal('tunnels: [{name: a}]');
    expect(removeTunnel('tunnels: [{name: a}, {name: b}]', 0)).to.equal('tunnels: [{name: b}]');
  });
});

describe('anchors and aliases', () => {
  const text = lines(`
    |tunnels:
    |  - name: a
    |    ssh_options: &o {Port: 22}
    |  - name: b
    |    ssh_options: *o
    |`);

  it('are left when somebody else goes by them, and the refusal says who', () => {
    const refusal =
      'Cannot edit the configuration: line 5 takes what &o in line 3 says (*o); write it out there, or edit the file by hand';
    expect(() => removeTunnel(text, 0))
      .to.throw(refusal)
      .with.property('code', 'ERR_BAD_REQUEST');
    expect(() => replaceTunnel(text, 0, { name: 'a' })).to.throw(refusal);
    expect(() => replaceTunnel(text, 0, { name: 'a', ssh_options: { Port: '23' } })).to.throw(refusal);
  });

  it('stay where they are not concerned', () => {
    expect(replaceTunnel(text, 0, { name: 'c', ssh_options: { Port: 22 } })).to.equal(
      text.replace('name: a', 'name: c'),
    );
    expect(replaceTunnel(text, 1, { name: 'c', ssh_options: { Port: 22 } })).to.equal(
      text.replace('name: b', 'name: c'),
    );
    expect(removeTunnel(text, 1)).to.equal(text.slice(0, text.indexOf('  - name: b')));
  });

  it('are refused where one is within itself', () => {
    expect(() => addTunnel('tunnels:\n  - &a {jump: [*a]}\n', fresh)).to.throw(
      'an alias (*) stands within its own anchor',
    );
  });

  it('give way to what is wanted of the tunnel that goes by them', () => {
    expect(replaceTunnel(text, 1, { name: 'b', ssh_options: { Port: 23 } })).to.equal(text.replace('*o', '{Port: 23}'));
    const whole = 'tunnels:\n  - &a {name: a}\n  - *a\n';
    expect(replaceTunnel(whole, 1, { name: 'b' })).to.equal('tunnels:\n  - &a {name: a}\n  - {name: b}\n');
    expect(() => replaceTunnel(whole, 0, { name: 'b' })).to.throw('line 3 takes what &a in line 2 says (*a)');
  });
});
