import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Config, loadConfig } from '#lib/daemon/config.js';
import { findConfigFile } from '#lib/daemon/source.js';
import { isTunwardError } from '#lib/errors.js';

const tunnel = 'tunnels:\n  - {remote_host: me@host, remote_port: 8000, local_port: 8001}\n';

describe('what the environment says where the file says nothing', () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-defaults-'));
    file = join(dir, 'config.yaml');
    writeFileSync(file, tunnel);
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  /** Of the ancestor's file, with more of its names. */
  function load(env: NodeJS.ProcessEnv = {}): Promise<Config> {
    return loadConfig({ env: { HOME: dir, AUTOSSH_CONFIG_FILE: file, ...env }, cwd: dir, uid: 1000 });
  }
  async function complaint(env: NodeJS.ProcessEnv): Promise<string> {
    const error = await load(env).catch((thrown: unknown) => thrown);
    if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
    return error.message;
  }
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

  describe('AUTOSSH_CONFIG_FILE', () => {
    it('names the file, after $TUNWARD_CONFIG and before ./tunward.yaml', () => {
      const [own, here] = [join(dir, 'own.yaml'), join(dir, 'tunward.yaml')];
      for (const each of [own, here]) writeFileSync(each, '');
      const env = { AUTOSSH_CONFIG_FILE: 'config.yaml', TUNWARD_CONFIG: own };
      expect(findConfigFile({ env, cwd: dir })).to.equal(own);
      expect(findConfigFile({ env: { ...env, TUNWARD_CONFIG: '' }, cwd: dir })).to.equal(file);
      expect(findConfigFile({ env: { AUTOSSH_CONFIG_FILE: '' }, cwd: dir })).to.equal(here);
    });

    it('is refused when it names nothing', async () => {
      rmSync(file);
      expect(await complaint({})).to.contain('expected the file that $AUTOSSH_CONFIG_FILE names, found nothing');
    });

    it('may be empty, or hold no tunnel: that is a configuration', async () => {
      for (const text of ['', 'tunnels:\n', 'tunnels: []\n', '# nothing yet\n']) {
        writeFileSync(file, text);
        expect((await load()).tunnels, JSON.stringify(text)).to.deep.equal([]);
      }
    });
  });

  describe('the ancestor’s other names', () => {
    const all = {
      TUNNEL_DIRECTION_MODE: 'ssh-standard',
      API_PORT: '5002',
      API_KEY: 'correct-horse, battery-staple',
    };

    it('are the defaults of that file', async () => {
      mkdirSync(join(dir, 'ssh'));
      writeFileSync(join(dir, 'ssh', 'config'), '');
      const { directionMode, tunnels, api } = await load({ ...all, SSH_CONFIG_DIR: join(dir, 'ssh') });
      expect(directionMode).to.equal('ssh-standard');
      expect(tunnels[0]?.forward.side, 'the other way round').to.equal('remote');
      expect(tunnels[0]?.sshConfig).to.equal(join(dir, 'ssh', 'config'));
      expect(api.listen).to.deep.equal({ host: '127.0.0.1', port: 5002 });
      expect(api.keyDigests).to.deep.equal([sha256('correct-horse'), sha256('battery-staple')]);
    });

    it('make the same tunnel, with the same id, of an ancestor’s file', async () => {
      expect((await load(all)).tunnels[0]?.id).to.equal((await load()).tunnels[0]?.id);
    });

    it('count whichever way that file was named', async () => {
      const env = { HOME: dir, AUTOSSH_CONFIG_FILE: file, ...all };
      expect((await loadConfig({ file: 'config.yaml', env, cwd: dir })).directionMode).to.equal('ssh-standard');
    });

    it('say nothing of any other file: API_PORT may be anybody’s', async () => {
      const other = join(dir, 'tunward.yaml');
      writeFileSync(other, tunnel);
      for (const env of [all, { ...all, AUTOSSH_CONFIG_FILE: file, TUNWARD_CONFIG: other }]) {
        const { directionMode, api } = await loadConfig({ env: { HOME: dir, ...env }, cwd: dir });
        expect([directionMode, api.listen, api.keyDigests]).to.deep.equal(['default', null, []]);
      }
    });

    it('give way to what the file says', async () => {
      const keys = 'direction_mode: default\nssh_config: /own\ntakeover: own\napi: {listen: "off"}\n';
      writeFileSync(file, keys + tunnel);
      const config = await load({ ...all, SSH_CONFIG_DIR: dir, TUNWARD_TAKEOVER: 'any' });
      expect([config.directionMode, config.api.listen]).to.deep.equal(['default', null]);
      expect(config.tunnels[0]).to.include({ sshConfig: '/own', takeover: 'own' });
    });

    it('find twins as the direction mode has them listen', async () => {
      const more = '  - {remote_host: me@host, remote_port: 8000, local_port: 8002}\n';
      writeFileSync(file, tunnel + more);
      expect((await load()).tunnels).to.have.length(2);
      expect(await complaint({ TUNNEL_DIRECTION_MODE: 'ssh-standard' })).to.contain('that no other tunnel listens on');
    });

    it('do not name an ssh_config that is not there', async () => {
      expect((await load({ SSH_CONFIG_DIR: join(dir, 'none') })).tunnels[0]?.sshConfig).to.equal(null);
    });

    it('open the API where the ancestor’s users expect it', async () => {
      const listen = async (env: NodeJS.ProcessEnv) => (await load(env)).api.listen?.port ?? null;
      expect(await listen({})).to.equal(null);
      expect(await listen({ API_ENABLE: 'true' })).to.equal(8080);
      expect(await listen({ API_ENABLE: 'true', API_PORT: '5002' })).to.equal(5002);
      expect(await listen({ API_ENABLE: 'false', API_PORT: '5002' })).to.equal(null);
      expect(await listen({ API_ENABLE: '', API_PORT: '' })).to.equal(null);
    });

    it('see to it that no tunnel takes the API’s port', async () => {
      expect(await complaint({ API_PORT: '8001' })).to.contain('apart from that of api.listen');
    });
  });

  it('TUNWARD_TAKEOVER is the default of takeover, in any file', async () => {
    const own = join(dir, 'tunward.yaml');
    writeFileSync(own, `${tunnel}  - {remote_host: h, remote_port: 1, local_port: 8002, takeover: own}\n`);
    const { tunnels } = await loadConfig({ env: { TUNWARD_TAKEOVER: 'any' }, cwd: dir, uid: 1000 });
    expect(tunnels.map(({ takeover }) => takeover)).to.deep.equal(['any', 'own']);
  });

  describe('a bad value', () => {
    const bad = {
      TUNWARD_TAKEOVER: ['all', "expected own, tunnels or any, found 'all'"],
      TUNNEL_DIRECTION_MODE: ['ssh', "expected default or ssh-standard, found 'ssh'"],
      API_PORT: ['http', "expected a port from 1 to 65535, found 'http'"],
      API_ENABLE: ['yes', "expected true or false, found 'yes'"],
    };
    for (const [name, [value, message]] of Object.entries(bad)) {
      it(`of ${name} is one sentence`, async () => {
        expect(await complaint({ [name]: value })).to.equal(`${file}:1:1: $${name}: ${message}`);
      });
    }

    it('of API_KEY is not shown', async () => {
      const message = await complaint({ API_KEY: 'long-enough,secret' });
      expect(message).to.contain('$API_KEY: expected keys of 8 or more printable characters').and.contain('one of 6');
      expect(message).not.to.contain('secret').and.not.contain('long-enough');
    });

    it('is told together with all the others', async () => {
      writeFileSync(file, 'engine: sh\n');
      const message = await complaint({ API_PORT: '0', TUNWARD_TAKEOVER: 'x' });
      expect(message.split('\n')).to.have.length(3);
    });
  });
});
