// What X1 writes where a host, a user, a port or a path is expected.
import fc from 'fast-check';

export interface Hostile {
  readonly text: string;
  /** The file that comes to be when anything of it is run, or taken for the name of a file to write. */
  readonly canary: string;
}

/** So many strings, the same for the same seed: each of the templates at least once, as far as they go, then mixtures. */
export function hostileStrings(count: number, seed: number, canaryOf: (at: number) => string): Hostile[] {
  const pure =
    fc.sample(fc.shuffledSubarray(templates, { minLength: templates.length }), { numRuns: 1, seed })[0] ?? [];
  const mixed = fc.sample(mixture, { numRuns: count, seed });
  return [...pure, ...mixed].slice(0, count).map((template, at) => {
    const canary = canaryOf(at);
    return { text: template.replaceAll(FILE, canary), canary };
  });
}

const FILE = '{canary}';
const TOUCH = `touch ${FILE}`;
/** Without a blank, for where words are split; sh puts one in. */
const GLUED = `touch\${IFS}${FILE}`;

/** What a shell runs, wherever it comes to stand. */
const commands = [
  `$(${TOUCH})`,
  `$(${GLUED})`,
  `\`${TOUCH}\``,
  `\`${GLUED}\``,
  `;${TOUCH};`,
  `|${TOUCH}`,
  `||${TOUCH}`,
  `&${TOUCH}&`,
  `\n${TOUCH}\n`,
  `>${FILE}`,
  `2>${FILE}`,
  `{touch,${FILE}}`,
  `'$(${TOUCH})'`,
  `"$(${TOUCH})"`,
  `';${TOUCH};'`,
  `";${TOUCH};"`,
  `\\$(${TOUCH})`,
  `\\\\$(${TOUCH})`,
  `\\";${TOUCH};\\"`,
  `#\n${TOUCH}`,
  `!${TOUCH}`,
  `$'\\x3b'${TOUCH}`,
  `%h;${TOUCH}`,
  `%%$(${TOUCH})`,
];

/** What ssh or autossh takes for an option. */
const options = [
  `-oProxyCommand=${TOUCH}`,
  `-oProxyCommand=${GLUED}`,
  `-o ProxyCommand=${TOUCH}`,
  `--oProxyCommand=${TOUCH}`,
  `-NoProxyCommand=${TOUCH}`,
  `-oProxyCommand ${TOUCH}`,
  `-oLocalCommand=${TOUCH}`,
  `-oPermitLocalCommand=yes`,
  `-oKnownHostsCommand=/usr/bin/${TOUCH}`,
  `-oPKCS11Provider=${FILE}`,
  `-oInclude=${FILE}`,
  `-oMatch=exec "${TOUCH}"`,
  `-E${FILE}`,
  `-F${FILE}`,
  `-S${FILE}`,
  `-I${FILE}`,
  `-D${FILE}`,
  `-L${FILE}:127.0.0.1:1`,
  `-J$(${TOUCH})`,
  `-J;${TOUCH};`,
  `-W$(${TOUCH})`,
  `-l$(${TOUCH})`,
  '-M20000',
  '-f',
  '-G',
  '-V',
  '-',
  '--',
  '-o',
];

/** What a line of ssh_config is, when a value can end its own. */
const lines = [
  `x\nProxyCommand ${TOUCH}`,
  `x\r\nProxyCommand ${TOUCH}`,
  `x\rProxyCommand ${TOUCH}`,
  `x\u2028ProxyCommand ${TOUCH}`,
  `x\u0085ProxyCommand ${TOUCH}`,
  `x\vProxyCommand ${TOUCH}`,
  `x\nMatch exec "${TOUCH}"\n`,
  `x\nLocalCommand ${TOUCH}\nPermitLocalCommand yes`,
  `yes ProxyCommand=${TOUCH}`,
  `yes" -oProxyCommand="${TOUCH}`,
  `ProxyCommand`,
  `proxycommand`,
  ` ProxyCommand`,
  `ProxyCommand=${TOUCH}`,
  `Port=22\nProxyCommand=${TOUCH}`,
  `Match`,
  `LocalCommand`,
  `PermitLocalCommand`,
  `KnownHostsCommand`,
  `Include`,
];

const zero = [
  `x\0-oProxyCommand=${TOUCH}`,
  `\0`,
  `x\0`,
  `x\0\n;${TOUCH}`,
  `127.0.0.1\0$(${TOUCH})`,
  `\x1b[2J$(${TOUCH})`,
  `\x7f$(${TOUCH})`,
];

/** What looks like something else, or is folded into it by whoever is careless. */
const letters = [
  `\uFF0DoProxyCommand=${TOUCH}`,
  `\u2212oProxyCommand=${TOUCH}`,
  `\u2010oProxyCommand=${TOUCH}`,
  `\uFE63oProxyCommand=${TOUCH}`,
  `\u202E$(${TOUCH})`,
  `host\u202Eelpmaxe`,
  `\u2066host\u2069`,
  `\uFEFF-oProxyCommand=${TOUCH}`,
  `\u200B-oProxyCommand=${TOUCH}`,
  `\uFF04(${TOUCH})`,
  `\uFF1B${TOUCH}`,
  `\u0430dmin@h\u043Est`,
  `h\u0301ost`,
  `\uD800`,
  `\uDFFF$(${TOUCH})`,
  `Proxy\u212Aommand`,
  `\u017Ftrict`,
  `\uFF12\uFF12`,
  `\u0662\u0662`,
];

const addresses = [
  '[::1]',
  '[::1',
  '::1]',
  '[]',
  '[[::1]]',
  `[::1]$(${TOUCH})`,
  `[::1%$(${TOUCH})]`,
  `::1%$(${GLUED})`,
  `::1%;${TOUCH}`,
  `fe80::1%lo`,
  `[-oProxyCommand=${TOUCH}]`,
  `[$(${TOUCH})]`,
  `[::ffff:127.0.0.1]:22;${TOUCH}`,
  `127.0.0.1;${TOUCH}`,
  `127.0.0.1:$(${TOUCH})`,
  `127.1`,
  `0x7f000001`,
  `2130706433`,
  '*',
  '*:9001',
  ':9001',
  '*.*',
  '?',
  '!host',
  'a,b',
  '%h',
  '%n',
  '%r@%h',
  '%k',
  '%%',
  '%',
  '%x',
  `%d/$(${TOUCH})`,
  `\${HOME}`,
  `\${HOME}$(${TOUCH})`,
];

const users = [
  `-oProxyCommand=${TOUCH}@host`,
  `root@-oProxyCommand=${TOUCH}`,
  `$(${TOUCH})@host`,
  `\`${GLUED}\`@host`,
  `root;${TOUCH}@host`,
  `a@b@c`,
  `@host`,
  `root@`,
  `-l@host`,
  `ssh://root@$(${TOUCH})`,
  `ssh://-oProxyCommand=${TOUCH}`,
];

const ports = [
  '0',
  '-1',
  '65536',
  '1e3',
  '0x50',
  '22 ',
  ' 22',
  `22;${TOUCH}`,
  `22\nProxyCommand ${TOUCH}`,
  `22 -oProxyCommand=${TOUCH}`,
  `22$(${TOUCH})`,
  '22:22:22',
  '99999999999999999999',
];

const paths = [
  FILE,
  `${FILE}:127.0.0.1:1`,
  `127.0.0.1:1:${FILE}`,
  `../../../../../..${FILE}`,
  `./$(${TOUCH})`,
  `./;${TOUCH};`,
  `./'$(${TOUCH})'`,
  `./"$(${TOUCH})"`,
  `./a b\\ c`,
  `./%h%%%n`,
  `~/$(${TOUCH})`,
  `~root/$(${TOUCH})`,
  `~$(${TOUCH})`,
  '/dev/stdin',
  '/dev/null',
  '/proc/self/environ',
  `|${TOUCH}`,
  `none`,
  '',
  ' ',
  '.',
  '..',
];

const words = [
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'true',
  'null',
  '!!js/function',
  '<<',
  '&a',
  '*a',
];

const LONG = 65_536;
const long = [
  'a'.repeat(LONG),
  '-'.repeat(LONG),
  '$'.repeat(LONG),
  `${'a'.repeat(LONG)}$(${TOUCH})`,
  `$(${TOUCH})`.repeat(700),
  `-oProxyCommand=${TOUCH}${' '.repeat(LONG)}`,
  '\u{1F600}'.repeat(LONG / 4),
];

const templates = [...[commands, options, lines, zero, letters, addresses, users, ports, paths, words, long]].flat();

const short = templates.filter(({ length }) => length < 1000);
const piece = fc.constantFrom(...short);
const glue = fc.constantFrom(
  '',
  ' ',
  '@',
  ':',
  ',',
  '/',
  '-',
  '=',
  '\n',
  '\t',
  '\0',
  '%',
  '\\',
  '"',
  "'",
  'a',
  'host',
  '127.0.0.1',
);

const mixture = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(piece, glue, piece).map((parts) => parts.join('')) },
  { weight: 3, arbitrary: fc.tuple(glue, piece, glue).map((parts) => parts.join('')) },
  { weight: 2, arbitrary: fc.tuple(fc.constantFrom(...commands), glue, piece).map((parts) => parts.join('')) },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.string({ unit: 'binary', maxLength: 20 }), piece).map((parts) => parts.join('')),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) },
  { weight: 1, arbitrary: fc.tuple(fc.stringMatching(/^[A-Za-z0-9._-]{1,12}$/), piece).map((parts) => parts.join('')) },
  { weight: 1, arbitrary: fc.stringMatching(/^[-A-Za-z0-9._@:[\]*%]{1,20}$/) },
);
