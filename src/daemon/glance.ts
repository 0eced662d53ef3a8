/**
 * The socket that a configuration names, at a glance; null: it names none; undefined: to tell takes a parser. Whoever only
 * wants to speak with a daemon needs one line of its file, and to parse and to check one with 500 tunnels takes 350 ms.
 *
 * Only what cannot be meant otherwise is understood: plain keys at the left edge, each once, and below `api` plain keys
 * with absolute paths (and whatever else stands on one line). Everything that YAML can do besides is left to its parser.
 */
export function glanceAtSocket(text: string): string | null | undefined {
  const lines = text.split(/\r?\n/);
  const edge = lines.filter((line) => isAtEdge(line) && !/^(---|-|- .*)$/.test(line));
  const keys = edge.map((line) => /^([a-z_]+):(?=\s|$)/.exec(line)?.[1]);
  if (keys.includes(undefined) || new Set(keys).size < keys.length) return undefined;
  const at = lines.findIndex((line) => /^api:/.test(line));
  if (at === -1) return null;
  const below = lines.slice(at + 1);
  const end = below.findIndex(isAtEdge);
  return socketOf(lines[at] ?? '', end === -1 ? below : below.slice(0, end));
}

/** Not by \s, which is also what a text of Windows begins with. */
function isAtEdge(line: string): boolean {
  return /^[^ \t#]/.test(line);
}

function socketOf(head: string, below: readonly string[]): string | null | undefined {
  const inside = below.filter((line) => !/^\s*(#.*)?$/.test(line));
  const flow = /^api:\s+\{\s*(?:"socket":|socket:\s)\s*("?)(\/[\w./@+-]*)\1\s*\}\s*(?:#.*)?$/.exec(head);
  if (flow) return inside.length === 0 ? flow[2] : undefined;
  if (!/^api:\s*(#.*)?$/.test(head)) return undefined;
  const pairs = inside.map((line) => /^( +)([a-z_]+):\s+("?)([\w./@+:[\]-]+)\3\s*(?:#.*)?$/.exec(line));
  const indents = new Set(pairs.map((pair) => pair?.[1]));
  const sockets = pairs.flatMap((pair) => (pair?.[2] === 'socket' ? (pair[4] ?? '') : []));
  if (pairs.includes(null) || indents.size > 1 || sockets.length > 1) return undefined;
  const [socket = null] = sockets;
  return socket === null || /^\/[\w./@+-]*$/.test(socket) ? socket : undefined;
}
