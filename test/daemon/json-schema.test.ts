import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { expect } from 'chai';
import { parse } from 'yaml';
import { renderTakenOver, renderTemplate } from '#lib/cli/template.js';
import { parseConfig } from '#lib/daemon/config.js';
import { createConfigSchema } from '#lib/daemon/json-schema.js';
import { isTunwardError } from '#lib/errors.js';
import { repoRoot } from '../support/paths.js';

/** What an editor says of a text, by the schema and YAML alone. */
const validate = new Ajv({ allErrors: true, strictTypes: false }).compile(createConfigSchema());
const complaints = (text: string) => (validate(parse(text)) ? [] : (validate.errors ?? []));

/** What the daemon says of it. */
function isAccepted(text: string): boolean {
  try {
    parseConfig(text, {
      file: '/t/tunward.yaml',
      env: { HOME: '/h' },
      uid: 0,
      ephemeralRange: undefined,
      hasIpv6Loopback: true,
    });
    return true;
  } catch (error) {
    if (isTunwardError(error, 'ERR_CONFIG_INVALID')) return false;
    throw error;
  }
}

const tunnel = { remote_host: 'me@host', remote_port: '80', local_port: '8080' };
const one = (fields: object) => JSON.stringify({ tunnels: [{ ...tunnel, ...fields }] });

describe('the JSON Schema of tunward.yaml', () => {
  const right: Record<string, string> = {
    'the example of the README': /```yaml\n(# tunward\.yaml\n[^`]*)```/.exec(read('README.md'))?.[1] ?? '',
    'the example for systemd': read('examples/systemd/tunward.yaml'),
    'the example for a container': read('examples/container/config/config.yaml'),
    'what tunward init writes': renderTemplate({ logDir: '/l', stateDir: '/s', socket: '/s/sock' }),
    'every example of that': renderTemplate({ logDir: '/l', stateDir: '/s', socket: '/s/sock' }).replace(
      /^#(?= {2,}|[a-z])/gm,
      '',
    ),
    'what it takes over': renderTakenOver(
      { text: 'tunnels:\n', from: 'x', settings: [['direction_mode', 'ssh-standard']] },
      { logDir: '/l', stateDir: '/s', socket: '/s/sock' },
    ),
    'keys without a value': 'tunnels:\napi:\nlog:\nengine:\ntakeover:\n',
    'ports and flags as YAML reads them':
      'tunnels: [{name: 7, remote_host: h, remote_port: 80, local_port: 0x50, interactive: true}]',
    addresses: one({ local_port: '[::1]:80', remote_port: 'db:5432' }),
    'options of ssh': one({ ssh_options: { Compression: 'yes', Port: 22 } }),
    'hops as a text and as a list': `${JSON.stringify({ jump: 'a,b', tunnels: [{ ...tunnel, jump: ['a', 'b:22'] }] })}`,
    'an API that is off, and one that is not': 'api: {listen: off, compat: true, tokens: [{file: t, scope: read}]}',
    'a check': one({ check: { http: '/health', every_ms: 1000 } }),
    'somebody who is told': 'on_needs_auth: https://hooks.example/x?y',
    'somebody who is told with a header': 'on_needs_auth: {url: "http://[::1]:80", header_file: h}',
    'nothing but a key': 'reload: signal',
  };
  for (const [what, text] of Object.entries(right)) {
    it(`accepts ${what}, as the daemon does`, () => {
      expect(complaints(text)).to.deep.equal([]);
      if (!text.includes('0x50')) expect(isAccepted(text), text).to.equal(true);
    });
  }

  const wrong: Record<string, string> = {
    'an unknown key': 'tunels: []',
    'an unknown key of a tunnel': one({ lokal_port: 1 }),
    'an unknown key of the API': 'api: {sockets: x}',
    'an unknown option of ssh': one({ ssh_options: { ProxyCommand: 'x' } }),
    'a tunnel without a host': 'tunnels: [{remote_port: 1, local_port: 2}]\nreload: auto',
    'a port out of range': 'tunnels: [{remote_host: h, remote_port: 1, local_port: 70000}]',
    'a port that is none': one({ local_port: 'http' }),
    'a word that is none of the choice': 'engine: putty',
    'a number that is too small': 'log: {max_bytes: 1}',
    'a number that is a text': 'stop_timeout_ms: soon',
    'a token without a scope': 'api: {tokens: [{file: x}]}',
    'who is told at no address': 'on_needs_auth: hooks.example',
    'who is told with a user in the address': 'on_needs_auth: http://u:p@host/',
    'who is told without an address': 'on_needs_auth: {header_file: x}',
    'who is told in other words': 'on_needs_auth: {url: "http://h", method: GET}',
    'tunnels that are no list': 'tunnels: {}',
    'more hops than may be': one({ jump: ['a', 'b', 'c', 'd', 'e', 'f'] }),
  };
  for (const [what, text] of Object.entries(wrong)) {
    it(`refuses ${what}, as the daemon does`, () => {
      expect(complaints(text)).not.to.deep.equal([]);
      expect(isAccepted(text)).to.equal(false);
    });
  }

  it('has a sentence for every key', () => {
    const silent: string[] = [];
    const look = (shape: Record<string, unknown>, path: string): void => {
      const properties = (shape.properties ?? {}) as Record<string, Record<string, unknown>>;
      for (const [key, value] of Object.entries(properties)) {
        if (path.endsWith('ssh_options')) continue;
        if (typeof value.description !== 'string') silent.push(`${path}.${key}`);
        look(value, `${path}.${key}`);
        look((value.items ?? {}) as Record<string, unknown>, `${path}.${key}[]`);
      }
    };
    const schema = createConfigSchema();
    look(schema, '');
    look((schema.definitions as { tunnel: Record<string, unknown> }).tunnel, 'tunnel');
    expect(silent).to.deep.equal([]);
  });
});

function read(file: string): string {
  return readFileSync(join(repoRoot, file), 'utf8');
}
