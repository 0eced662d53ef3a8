import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { readHostFacts } from '#lib/tunnel/embedded/facts.js';
import { makeSpec } from '../../support/specs.js';

describe('readHostFacts(), and what it passes over', () => {
  // "What it cannot do is refused, with the option and its line, and never left out" (docs/configuration.md).
  it('refuses HostbasedAuthentication yes, which it cannot do', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-facts-'));
    try {
      const file = join(dir, 'config');
      writeFileSync(file, 'Host web\n  HostbasedAuthentication yes\n', { mode: 0o600 });
      const spec = makeSpec({ remoteHost: 'web', sshConfig: file });
      const error = await readHostFacts(spec, null, { knownHosts: null, env: { HOME: dir } }).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(isTunwardError(error, 'ERR_SPAWN_FAILED') && error.message).to.match(/HostbasedAuthentication.* line 2/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
