/*
 * Writes openapi.json and api.md beside this file, from the table that answers the API: `npm run docs`. A test fails
 * when they say anything else than it does.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { describeApi } from '../lib/daemon/api/openapi.js';
import { createRoutes } from '../lib/daemon/api/routes.js';
import { errorCodes } from '../lib/errors.js';

const at = (name) => new URL(name, import.meta.url);

/** Both documents, by name. */
export function generate() {
  const { version } = JSON.parse(readFileSync(at('../package.json'), 'utf8'));
  const api = describeApi(tableOf({ compat: false }), version);
  const compat = tableOf({ compat: true }).slice(tableOf({ compat: false }).length - 1, -1);
  return { 'openapi.json': `${JSON.stringify(api, null, 2)}\n`, 'api.md': renderApi(api, compat) };
}

/** The table without a daemon behind it: nothing of that is called. */
function tableOf({ compat }) {
  const nothing = () => () => undefined;
  return createRoutes({
    config: { stateDir: '', logDir: '', api: { compat } },
    supervisor: {},
    logs: {},
    reloader: {},
    journal: { append: nothing, recent: () => [], subscribe: nothing },
    clock: {},
    version: '',
    tokens: {},
    sessions: {},
    failures: {},
    phase: nothing,
    shutdown: nothing,
    booted: Promise.resolve(),
  });
}

function renderApi({ paths, components: { schemas } }, compat) {
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, row]) => ({ path, method: method.toUpperCase(), ...row })),
  );
  return `${[
    readFileSync(at('api.intro.md'), 'utf8').trimEnd(),
    '## Routes',
    table(
      ['route', 'for', 'does'],
      rows.map(({ path, method, ...row }) => [
        `[\`${method} ${path}\`](#${anchor(`${method} ${path}`)})`,
        row['x-scope'],
        row.summary,
      ]),
    ),
    ...rows.map((row) => renderRoute(row)),
    '## Shapes',
    ...Object.entries(schemas).map(([name, schema]) => renderShape(name, schema)),
    '## Errors',
    'Errors are `application/problem+json` (RFC 9457): `{type, title, status, detail, code, …}`. `detail` is a sentence for a person, `code` is for programs and for ever. The command ends with the exit code.',
    table(
      ['code', 'status', 'exit code'],
      Object.entries(errorCodes).map(([code, { status, exit }]) => [`\`${code}\``, status, exit]),
    ),
    readFileSync(at('api.compat.md'), 'utf8').trimEnd(),
    table(
      ['route', 'does'],
      compat.map(({ method, path, about }) => [
        `\`${method} ${path}\``,
        about.replace('As autossh-tunnel-dockerized, with api.compat: ', ''),
      ]),
    ),
  ].join('\n\n')}\n`;
}

function renderRoute({ path, method, summary, parameters, requestBody, responses, ...row }) {
  const body = requestBody?.content['application/json'].schema;
  const fields = [
    ...parameters.map((field) => [`\`${field.name}\` (${field.in})`, typeOf(field.schema), field.description ?? '']),
    ...fieldsOf(body).map(([name, type, about]) => [`${name} (body)`, type, about]),
  ];
  const answers = Object.entries(responses).filter(([status]) => status !== 'default');
  return [
    `### ${method} ${path}`,
    `${summary}. For: ${row['x-scope']}.`,
    ...(fields.length > 0 ? [table(['given', 'type', 'meaning'], fields)] : []),
    table(
      ['status', 'answer'],
      answers.map(([status, answer]) => [status, describeAnswer(answer)]),
    ),
  ].join('\n\n');
}

function describeAnswer({ description, content = {} }) {
  const [[type, { schema } = {}] = []] = Object.entries(content);
  if (type === 'application/problem+json') return description.replace(/ERR_\w+/g, '`$&`');
  if (!schema) return type && type !== 'application/json' ? `${description} (\`${type}\`)` : description;
  return `${description}: ${typeOf(schema)}`;
}

function renderShape(name, schema) {
  const about = schema.description ? `${schema.description}.\n\n` : '';
  return `### ${name}\n\n${about}${table(['field', 'type', 'meaning'], fieldsOf(schema))}`;
}

function fieldsOf(schema) {
  const required = new Set(schema?.required ?? []);
  return Object.entries(schema?.properties ?? {}).map(([name, { description = '', ...type }]) => [
    `\`${name}\`${required.has(name) || 'default' in type ? '' : '?'}`,
    typeOf(type),
    'default' in type
      ? `${description}${description ? '; ' : ''}default \`${JSON.stringify(type.default)}\``
      : description,
  ]);
}

/** A type as a reader takes it in: a name where there is one, what may stand there otherwise. */
function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split('/').at(-1);
    return `[${name}](#${name.toLowerCase()})`;
  }
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(' or ');
  if (schema.enum) return schema.enum.length > 20 ? 'text' : schema.enum.map((value) => `\`${value}\``).join(', ');
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.type === 'array') return `list of ${typeOf(schema.items ?? {})}`;
  if (schema.type === 'object' && schema.properties) {
    return `{${fieldsOf(schema)
      .map(([name, type]) => `${name}: ${type}`)
      .join(', ')}}`;
  }
  return (
    { string: 'text', integer: 'number', number: 'number', boolean: '`true`, `false`', null: '`null`' }[schema.type] ??
    'anything'
  );
}

function table(head, rows) {
  const line = (cells) => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** As GitHub makes them of headings. */
function anchor(heading) {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  for (const [name, text] of Object.entries(generate())) writeFileSync(at(name), text);
}
