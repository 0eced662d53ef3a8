import { expect } from 'chai';
import { chinese } from '#lib/panel/chinese.js';
import { english } from '#lib/panel/english.js';
import { chooseTunnels, countStates } from '#lib/panel/list.js';
import { parseAddress } from '#lib/panel/port.js';
import { formatAge, formatMs, programOf, visible } from '#lib/panel/units.js';
import { makeCast, tunnel } from './scene.js';

describe('the words and units of the panel', () => {
  it('say a span the coarser the longer it is, in both languages', () => {
    const ages = [0, 59.9, 60, 3599, 3600, 11_100, 86_400, 2 * 86_400 + 3 * 3600];
    expect(ages.map((age) => formatAge(age, english))).to.deep.equal([
      '0 s',
      '59 s',
      '1 min',
      '59 min',
      '1 h',
      '3 h 5 min',
      '1 d',
      '2 d 3 h',
    ]);
    expect(formatAge(11_100, chinese)).to.equal('3 小时 5 分');
    expect(formatAge(-3, english)).to.equal('0 s');
    expect([formatAge(null, english), formatAge(Number.NaN, english)]).to.deep.equal(['?', '?']);
    expect([0, 0.44, 9.96, 402.4, 1460, 61_000].map((ms) => formatMs(ms, english))).to.deep.equal([
      '0 ms',
      '0.4 ms',
      '10 ms',
      '402 ms',
      '1.5 s',
      '1 min',
    ]);
  });

  it('write out what a stranger’s text hides', () => {
    expect(visible('plain ünïcode 中文 👍')).to.equal('plain ünïcode 中文 👍');
    expect(visible('a\u202eb\u2066c')).to.equal('a⟨U+202E⟩b⟨U+2066⟩c');
    expect(visible('a\nb\u001b[31m\u007f\u0085\u200b\ud800')).to.equal('a␊b␛[31m␡⟨U+0085⟩⟨U+200B⟩⟨U+D800⟩');
  });

  it('are there for everything in both languages, and are not the same ones', () => {
    const texts = (value: unknown): string[] =>
      typeof value === 'string'
        ? [value]
        : value && typeof value === 'object'
          ? Object.values(value).flatMap(texts)
          : [];
    const [one, other] = [texts(english), texts(chinese)];
    expect(Object.keys(chinese)).to.deep.equal(Object.keys(english));
    expect([...one, ...other].filter((text) => text.trim() === '')).to.deep.equal([]);
    expect(one.filter((text) => /[\u4e00-\u9fff]/.test(text))).to.deep.equal([]);
    const untold = Object.entries({ ...chinese.reasons, ...chinese.errors, ...chinese.states, ...chinese.verdicts });
    expect(untold.filter(([, text]) => !/[\u4e00-\u9fff]/.test(text))).to.deep.equal([]);
  });

  it('name the program of a command line', () => {
    const commands = ['/usr/lib/autossh/autossh -M 0', 'sshd: root', 'nginx: master process', '[kworker/0:1]', ''];
    expect(commands.map(programOf)).to.deep.equal(['autossh', 'sshd', 'nginx', '[kworker/0:1]', '?']);
  });
});

describe('the port that somebody types', () => {
  it('is a number, or a host and a number', () => {
    expect(parseAddress(' 9443 ')).to.deep.equal({ host: undefined, port: 9443 });
    expect(parseAddress('127.0.0.1:9443')).to.deep.equal({ host: '127.0.0.1', port: 9443 });
    expect(parseAddress('[::1]:9443')).to.deep.equal({ host: '::1', port: 9443 });
    expect(parseAddress('*:80')).to.deep.equal({ host: '*', port: 80 });
    expect(parseAddress('localhost:80')).to.deep.equal({ host: 'localhost', port: 80 });
  });

  it('is nothing else', () => {
    const wrong = ['', '0', '65536', '123456', 'http', '-1', '80;rm', 'evil.example:80', '::1:80', '9443/../x', '８０'];
    expect(wrong.filter((text) => parseAddress(text) !== undefined)).to.deep.equal([]);
  });
});

describe('the choice of the list', () => {
  const tunnels = new Map(makeCast().map((one) => [one.id, one]));
  const all = { query: '', group: '', states: 'all', sort: undefined, current: undefined } as const;
  const names = (choice: object) => chooseTunnels(tunnels, { ...all, ...choice }, Date.now()).map(({ name }) => name);

  it('is the configuration’s order until another one is asked for', () => {
    expect(names({})).to.deep.equal(makeCast().map(({ name }) => name));
    expect(names({ sort: { column: 'name', isDescending: false } })[0]).to.equal('admin');
    expect(names({ sort: { column: 'restart', isDescending: true } })[0]).to.equal('search');
    expect(names({ sort: { column: 'state', isDescending: false } }).slice(0, 3)).to.deep.equal([
      'billing (staging)',
      'metrics',
      'admin',
    ]);
  });

  it('finds by name, host, port, id and group, all words together', () => {
    expect(names({ query: 'mail relay' })).to.deep.equal(['mail relay']);
    expect(names({ query: 'GATE.example' })).to.deep.equal(['reports']);
    expect(names({ query: ':9443' })).to.deep.equal(['admin']);
    expect(names({ query: `${tunnel(8, '').id}` })).to.deep.equal(['cache']);
    expect(names({ group: 'office' })).to.deep.equal(['reports', 'billing (staging)', 'printer', 'git']);
    expect(names({ query: 'nobody' })).to.deep.equal([]);
  });

  it('counts as trouble what needs somebody, and not what somebody stopped or what is starting', () => {
    expect(countStates(makeCast())).to.deep.equal({ all: 12, up: 7, person: 0, trouble: 4, stopped: 1 });
    expect(names({ states: 'trouble' })).to.deep.equal(['metrics', 'billing (staging)', 'search', 'admin']);
  });
});
