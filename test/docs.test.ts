import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { repoRoot } from './support/paths.js';

const docs = join(repoRoot, 'docs');

describe('the docs', () => {
  it('say of the API what its table says: npm run docs', async () => {
    const { generate } = await import(pathToFileURL(join(docs, 'generate.mjs')).href);
    for (const [name, text] of Object.entries(generate())) {
      expect(readFileSync(join(docs, name), 'utf8'), name).to.equal(text);
    }
  });

  it('are OpenAPI 3.1 by its own schema', async () => {
    const { Validator } = await import('@seriousme/openapi-schema-validator');
    const validator = new Validator();
    const { valid, errors } = await validator.validate(JSON.parse(readFileSync(join(docs, 'openapi.json'), 'utf8')));
    expect(errors ?? []).to.deep.equal([]);
    expect([valid, validator.version]).to.deep.equal([true, '3.1']);
  });
});
