import type { Defaults } from '../daemon/source.js';

/*
 * The texts that `tunward init` writes. A line that begins with `# ` is prose; one with `#` and a key, or with `#` and two
 * blanks, is configuration, and right when the `#` is taken away.
 */

/** A configuration that is right as it is, and starts nothing: everything in it is a comment. */
export function renderTemplate(defaults: Defaults): string {
  return `# tunward keeps these tunnels up. docs/configuration.md has every key.
${usageHint}
tunnels:
  # A remote service on a local port, as ssh -L: db.internal:5432, seen from the bastion, is here at localhost:5432.
#  - name: database
#    remote_host: me@bastion.example      # [user@]host, or an alias of ~/.ssh/config
#    remote_port: db.internal:5432        # port or host:port on the far side
#    local_port: 5432                     # port or host:port on this side
#    groups: [staging]                    # tunward restart --group staging
#    check: {connect: true}               # or {http: /health}: asks whether bytes go through to the target

  # A local service on a remote port, as ssh -R: localhost:3000 is there at port 8080.
#  - name: web
#    direction: local_to_remote
#    remote_host: me@bastion.example
#    remote_port: 8080
#    local_port: 3000
#    enabled: false                       # started by hand alone

${renderKeys(defaults)}`;
}

export interface TakenOver {
  readonly text: string;
  readonly from: string;
  /** What the ancestor's environment says, as keys of the file: `['direction_mode', 'ssh-standard']`. */
  readonly settings: readonly (readonly [key: string, value: string])[];
}

/** The ancestor's text as it is, below a head of tunward's own keys; behind the `---` of a document that begins with one. */
export function renderTakenOver({ text, from, settings }: TakenOver, defaults: Defaults): string {
  const body = text.replace(/^\ufeff/, '');
  const start = /^(?:(?:[#%].*|[ \t]*)\r?\n)*---[ \t]*(?:#.*)?\r?\n/.exec(body)?.[0] ?? '';
  const named = settings.map(([key]) => key);
  return `${start}# tunward's configuration, with the tunnels of ${from}: below they stand as they stand there, with the same ids.
${usageHint}
${settings.map(([key, value]) => `${key}: ${value}\n`).join('')}${renderKeys(defaults, named)}
# From here on it is ${from}.
${body.slice(start.length)}`;
}

const usageHint = `# tunward validate checks this file and starts nothing; tunward up -d starts the tunnels and keeps them up, and a change
# of this file is taken when it is saved.
# An editor that knows YAML completes the keys and checks them: tunward config schema > tunward.schema.json,
# and at the top of this file: # yaml-language-server: $schema=tunward.schema.json
`;

/** tunward's own keys at the top, each as it is when nothing is said, but for those that stand in the file already. */
function renderKeys({ logDir, stateDir, socket }: Defaults, named: readonly string[] = []): string {
  const keys: [key: string, ...lines: string[]][] = [
    ['', '# For every tunnel that says nothing else.'],
    ['engine', '#engine: auto                            # ssh, autossh above it, or embedded: without ssh'],
    ['seamless', '#seamless: false                         # true: a restart refuses no connection'],
    ['takeover', '#takeover: tunnels                       # who may be killed for a port: own, tunnels, any'],
    ['ssh_config', '#ssh_config: ~/.ssh/config'],
    ['jump', '#jump: [me@bastion.example]              # the hosts to go through, the first one first'],
    ['ssh_options', '#ssh_options: {ServerAliveInterval: 15, ServerAliveCountMax: 3}'],
    ['backoff', '#backoff: {min_ms: 1000, max_ms: 60000, stable_ms: 30000}'],
    ['start_timeout_ms', '#start_timeout_ms: 15000'],
    ['restart_timeout_ms', '#restart_timeout_ms: 6000                # the bound on the answer of tunward restart'],
    ['', '', '# The daemon.'],
    [
      'direction_mode',
      '#direction_mode: default                 # ssh-standard reads the two directions the other way round',
    ],
    ['log_dir', `#log_dir: ${quoted(logDir)}`],
    ['log', '#log: {max_bytes: 1048576, keep: 5}'],
    ['state_dir', `#state_dir: ${quoted(stateDir)}`],
    [
      'api',
      '#api:',
      `#  socket: ${quoted(socket)}`,
      '#  listen: 127.0.0.1:7420                # off unless it is given; wants a token',
    ],
    ['start', '#start: {concurrency: 16, per_host: 8, interval_ms: 0}'],
    ['on_needs_auth', '#on_needs_auth: https://hooks.example/x  # gets a POST when a tunnel waits for a person'],
    ['stop_timeout_ms', '#stop_timeout_ms: 8000'],
    ['reload', '#reload: auto                            # or signal: SIGHUP alone has this file read again'],
  ];
  return keys
    .filter(([key]) => !named.includes(key))
    .map(([, ...lines]) => `${lines.join('\n')}\n`)
    .join('');
}

function quoted(path: string): string {
  return /^[\w./@+-]+$/.test(path) ? path : JSON.stringify(path);
}
