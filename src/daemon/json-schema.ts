import * as z from 'zod';
import { allowedSshOptions } from '../tunnel/spec.js';
import { createSchema, isRecord } from './schema.js';

/** A JSON Schema, or a part of one. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * The shape of tunward.yaml as a JSON Schema (draft 7, which editors have known the longest), made of the schema that
 * the daemon checks with. It says of what YAML reads: a port may be a number there. What takes more than a shape to see
 * (two tunnels on one address, a name that ssh would take for an option) is for `tunward validate`.
 */
export function createConfigSchema(): JsonSchema {
  const { file, tunnel } = createSchema({ dir: '/', home: '/' });
  const { $schema, ...top } = shapeOf(file, []);
  const { $schema: _again, ...one } = shapeOf(tunnel, []);
  const tunnels = { type: ['array', 'null'], items: { $ref: '#/definitions/tunnel' }, description: about.tunnels };
  return {
    $schema,
    title: 'tunward.yaml',
    description: 'The tunnels that tunward keeps up, and how',
    ...top,
    properties: { ...(top.properties as object), tunnels },
    definitions: { tunnel: { ...one, description: 'A tunnel' } },
  };
}

function shapeOf(schema: z.ZodType, path: readonly string[]): Record<string, unknown> {
  const shape = z.toJSONSchema(schema, { io: 'input', target: 'draft-7', unrepresentable: 'any' });
  return describe(shape as Record<string, unknown>, path);
}

/** With a sentence for every key, with what YAML lets stand there, and with the nothing that counts as not given. */
function describe(shape: Record<string, unknown>, path: readonly string[]): Record<string, unknown> {
  const { properties, items, required = [], ...rest } = shape;
  const inner = isRecord(items) ? { items: describe(items, path) } : {};
  if (!isRecord(properties)) return { ...rest, ...inner };
  const described = Object.entries(properties).map(([key, value]): [string, unknown] => {
    const at = [...path, key].join('.');
    const own = { ...describe(isRecord(value) ? value : {}, [...path, key]), ...written[at], description: about[at] };
    return [key, (required as string[]).includes(key) ? own : orNothing(own)];
  });
  return { ...rest, required, properties: Object.fromEntries(described) };
}

/** `tunnels:` with nothing behind it is as good as none. */
function orNothing(shape: Record<string, unknown>): Record<string, unknown> {
  const { type, enum: values, const: only, anyOf } = shape;
  if (Array.isArray(anyOf)) return { ...shape, anyOf: [...anyOf, { type: 'null' }] };
  const types = type === undefined ? {} : { type: [type, 'null'].flat() };
  if (Array.isArray(values)) return { ...shape, ...types, enum: [...values, null] };
  if (only === undefined) return { ...shape, ...types };
  const { const: _only, ...rest } = shape;
  return { ...rest, ...types, enum: [only, null] };
}

const scalar = ['string', 'number', 'boolean'];
const port = (least: number) => ({
  type: ['integer', 'string'],
  minimum: least,
  maximum: 65_535,
  pattern: '^\\s*((\\[[^\\]]*\\]|[^:\\[\\]]*):)?\\d+\\s*$',
});
const hop = { type: 'string', description: '[user@]host[:port]' };
const sshOptions = {
  type: 'object',
  properties: Object.fromEntries(allowedSshOptions.map((name) => [name, { type: scalar }])),
  additionalProperties: false,
};

const url = { type: 'string', pattern: '^[hH][tT][tT][pP][sS]?://[^\\s@/?#]+([/?#]\\S*)?$', maxLength: 2000 };
const target = {
  type: 'object',
  properties: {
    url: { ...url, description: 'Where to POST to: http or https' },
    header_file: {
      type: ['string', 'null'],
      description: 'A file with one line, Authorization: …; for its owner alone',
    },
  },
  required: ['url'],
  additionalProperties: false,
};

/** Where YAML reads something else than the text that the daemon takes, and where the schema cannot say it. */
const written: Readonly<Record<string, Record<string, unknown>>> = {
  name: { type: scalar },
  remote_host: { type: ['string', 'integer'] },
  remote_port: port(0),
  local_port: port(1),
  interactive: { type: ['boolean', 'string'], enum: [true, false, 'true', 'false'] },
  'api.listen': { ...port(1), type: ['integer', 'string', 'boolean'], pattern: `^(off|false|~)$|${port(1).pattern}` },
  ssh_options: sshOptions,
  on_needs_auth: { anyOf: [url, { ...target, description: 'With the file of a header' }] },
  jump: { anyOf: [hop, { type: 'array', items: hop, maxItems: 5 }] },
};

/** A sentence for every key: what an editor shows beside it. */
const about: Readonly<Record<string, string>> = {
  tunnels: 'The tunnels, in the order in which they are shown',
  name: 'A label; commands take it, the id, or 8 and more digits of the id. Default: unnamed',
  remote_host: 'What ssh is given as its destination: [user@]host, or an alias of ssh_config',
  remote_port: 'port or host:port on the far side; an IPv6 address in brackets',
  local_port: 'port or host:port on this side; an IPv6 address in brackets',
  direction:
    'remote_to_local (default) brings a remote service here, as ssh -L; local_to_remote offers one of here there, as ssh -R',
  interactive: 'Needs a person at every start: shown, and not started',
  groups: 'Labels, for --group of ls, start, stop and restart',
  enabled: 'false: shown as stopped, and started by hand alone',
  engine:
    'What keeps it: ssh, autossh above it, or embedded, a client inside the daemon. auto: ssh where there is one, else embedded',
  ssh_config: "ssh -F: in place of the person's own",
  identity_file: 'ssh -i: the key to log in with',
  ssh_options: 'ssh -o: options by their names; those that run programs or move the listener may not stand here',
  jump: 'The hosts to go through, the first one first; as one text with commas, as for ssh -J',
  takeover: 'Who may be killed for its address before a start: own chains, ssh tunnels in the way (default), or anyone',
  backoff: 'How long is waited between attempts that nobody asked for',
  'backoff.min_ms': 'The first cap. Default: 1000',
  'backoff.max_ms': 'The last cap. Default: 60000',
  'backoff.stable_ms': 'Who was up that long starts over. Default: 30000',
  start_timeout_ms: 'A start that is not up by then is taken down and tried again. Default: 15000',
  restart_timeout_ms: 'The bound on the answer to a start, a stop or a restart. Default: 6000',
  share: 'May its connection to the server carry other tunnels there as well? The engine embedded only',
  seamless: 'The daemon itself listens, so that a restart refuses no connection: a tunnel that listens here only',
  drain_ms: 'How long connections go on over a link that has been replaced, before they are cut',
  connect_wait_ms: 'How long a new connection waits while there is no link, before it is turned away',
  auth_retry: 'After a login that was refused: slow (by minutes), or never until somebody starts it',
  check: 'Asks now and then whether bytes go through to the target',
  'check.connect': 'A connection is enough; works for any protocol',
  'check.http': 'A path to GET; a status below 400 is well',
  'check.every_ms': 'Default: 10000',
  'check.timeout_ms': 'Default: 5000',
  log_dir: "Where the tunnels' logs are",
  log: 'How much of a log is kept',
  'log.max_bytes': 'The size at which a log begins a new file. Default: 1048576',
  'log.keep': 'How many files of a log there are. Default: 5',
  state_dir: 'What outlives the daemon: its mark, its ledger, host keys, the token',
  api: 'Where the daemon is spoken with',
  'api.socket': 'The unix socket; its owner needs no token',
  'api.listen': 'port or host:port for TCP, where a token is wanted; off (default): none',
  'api.allow_remote': 'Lets listen be an address that others reach',
  'api.hosts': 'Names, with their port, by which browsers may ask for it, beside the address itself',
  'api.token_file': 'The file with the token; made at the first start',
  'api.tokens': 'More tokens',
  'api.tokens.file': 'The file with the token: a line of 8 or more printable characters',
  'api.tokens.scope': 'read: may look; all: may act as well',
  'api.compat': "The routes of autossh-tunnel-dockerized, beside the daemon's own",
  start: 'How many starts are under way at once',
  'start.concurrency': 'In all. Default: 16',
  'start.per_host': 'To one destination. Default: 8',
  'start.interval_ms': 'Between two starts. Default: 0',
  direction_mode: 'ssh-standard reads the two directions the other way round',
  on_needs_auth: 'Who is told that a tunnel waits for a person: an http or https URL to POST to',
  stop_timeout_ms: 'The bound on a shutdown as a whole. Default: 8000',
  reload: 'What reads this file again: auto, every change of it; signal, SIGHUP alone',
};
