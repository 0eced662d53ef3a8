import * as z from 'zod';
import { errorCodes } from '../../errors.js';
import type { Answer, Route } from './route.js';
import * as shapes from './shapes.js';

/** What is described once, and named where it is used. */
const named = Object.values(shapes).filter(
  (shape): shape is Extract<typeof shape, z.ZodType> => shape instanceof z.ZodType && shape.meta()?.id !== undefined,
);

/** The API as OpenAPI 3.1, from the table that answers it. */
export function describeApi(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: describeRoute(route) };
  }
  const description =
    'The daemon’s API. On its unix socket it needs no token; on TCP it wants `Authorization: Bearer <token>`, or the cookie of a session. A token of the scope `read` is for looking only.';
  return {
    openapi: '3.1.0',
    info: { title: 'tunward', version, license: { name: 'MIT', identifier: 'MIT' }, description },
    security: [{ bearer: [] }, { cookie: [] }, {}],
    paths,
    components: {
      schemas: describeNamed(),
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        cookie: { type: 'apiKey', in: 'cookie', name: 'tunward_<port>' },
      },
    },
  };
}

function describeRoute({ method, path, scope, about, params, query, body, answers, errors = [] }: Route) {
  const responses = Object.fromEntries(
    Object.entries(answers).map(([status, answer]) => [status, describeAnswer(answer)]),
  );
  return {
    operationId: `${method.toLowerCase()}${path.replace(/[^a-zA-Z0-9]+(\w?)/g, (_all, letter: string) => letter.toUpperCase())}`,
    summary: about,
    'x-scope': scope,
    ...(scope === 'open' ? { security: [{}] } : {}),
    parameters: [...describeFields('path', params), ...describeFields('query', query)],
    ...(body ? { requestBody: { content: { 'application/json': { schema: toSchema(body, 'input') } } } } : {}),
    responses: { ...responses, ...describeErrors(scope, errors) },
  };
}

function describeAnswer({ about, schema, type = 'application/json' }: Answer) {
  if (!schema && type === 'application/json') return { description: about };
  return { description: about, content: { [type]: schema ? { schema: toSchema(schema, 'output') } : {} } };
}

function describeFields(place: 'path' | 'query', fields: z.ZodObject | undefined) {
  if (!fields) return [];
  const { properties = {}, required = [] } = toSchema(fields, 'input') as {
    properties?: Record<string, { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    ...{ name, in: place, required: required.includes(name), schema },
    ...(description === undefined ? {} : { description }),
  }));
}

/** The codes by their status; what any route may answer is said once, by `default`. */
function describeErrors(scope: Route['scope'], errors: readonly string[]): Record<string, unknown> {
  const own = [
    ...errors,
    ...(scope === 'open' ? [] : ['ERR_UNAUTHORIZED']),
    ...(scope === 'act' ? ['ERR_FORBIDDEN'] : []),
  ];
  const byStatus = new Map<number, string[]>();
  for (const code of new Set(own)) {
    const { status } = errorCodes[code as keyof typeof errorCodes];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const content = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
  const entries = [...byStatus].map(([status, codes]) => [String(status), { description: codes.join(', '), content }]);
  const others = 'ERR_BAD_REQUEST, ERR_BODY_TOO_LARGE, ERR_MEDIA_TYPE, ERR_MISDIRECTED, ERR_TOO_MANY_REQUESTS';
  return { ...Object.fromEntries(entries), default: { description: others, content } };
}

function describeNamed(): Record<string, unknown> {
  return Object.fromEntries(
    named.map((schema) => {
      const name = schema.meta()?.id ?? '';
      return [name, toSchema(schema, 'output', name)];
    }),
  );
}

/** JSON Schema 2020-12, which is OpenAPI 3.1's. What has an id is named, and stands among the components. */
function toSchema(schema: z.ZodType, io: 'input' | 'output', self = ''): unknown {
  const made = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override({ jsonSchema }) {
      // An answer may have more in a later version.
      if (io === 'output') delete jsonSchema.additionalProperties;
    },
  });
  const { $schema: _dialect, $defs: _named, id: _id, ...rest } = made as Record<string, unknown>;
  return refer(rest, self);
}

function refer(value: unknown, self: string): unknown {
  if (Array.isArray(value)) return value.map((item) => refer(item, self));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [
      key,
      key === '$ref' ? target(String(field), self) : refer(field, self),
    ]),
  );
}

function target(reference: string, self: string): string {
  return `#/components/schemas/${reference === '#' ? self : reference.replace('#/$defs/', '')}`;
}
