import type { Duplex } from 'node:stream';
import type {
  AgentAuthMethod,
  AnyAuthMethod,
  AuthHandlerMiddleware,
  BaseAgent,
  ParsedKey,
  Prompt,
  SignCallback,
  SigningRequestOptions,
} from 'ssh2';
import { maySign } from './algorithms.js';
import type { HostFacts } from './facts.js';
import { bitsOfRsa } from './host-key.js';
import { type KeyFile, type LockedKey, readKeyFile } from './keys.js';
import { readPlainFile } from './plain-file.js';
import type { Questions } from './questions.js';
import type { Ssh2 } from './ssh2.js';
import { ConnectionError } from './trouble.js';

export interface LoginOptions {
  readonly ssh2: Ssh2;
  readonly facts: HostFacts;
  readonly questions: Questions | undefined;
  /** Nothing that may be tried is left, or nobody answers. */
  readonly onFailed: (error: Error) => void;
}

export interface Login {
  /** What ssh2 asks for the next attempt. */
  readonly authHandler: AuthHandlerMiddleware;
  /** What the server said last to an attempt: which methods it would take. */
  explain(said?: string): ConnectionError;
  /** No socket to an agent is left. */
  close(): void;
}

/** An attempt, and what is done when ssh2 has sent it. */
interface Attempt {
  readonly method: AnyAuthMethod;
  readonly sent?: () => void;
}

/** A server may ask again and again in one attempt, and a function answer it each time. */
const MOST_ROUNDS = 50;
const MAX_KEY_BYTES = 1024 * 1024;

/**
 * Logs in as ssh does: asks first what would do (`none`), then tries each method in the order of the facts as long as the
 * server would take it. Several in a row, where the server wants more than one.
 */
export function createLogin({ ssh2, facts, questions, onFailed }: LoginOptions): Login {
  const { user, host } = facts;
  const hints: string[] = [];
  const agentStreams = new Set<Duplex>();
  let left: readonly string[] = [];
  /** An agent has signed: ssh2 keeps the server's answer to that to itself, where it is that more is wanted. */
  let isSigned = false;
  let isClosed = false;
  let isLocked = false;
  let isWrong = false;
  const ways: Readonly<Record<string, AsyncGenerator<Attempt, undefined>>> = {
    publickey: withKeys(),
    'keyboard-interactive': withPrompts(),
    password: withPassword(),
  };
  return {
    authHandler(methods: readonly string[] | null, _isPartial, next) {
      if (methods) left = methods;
      attempt(methods === null).then(
        (found) => {
          if (!found) return onFailed(explain());
          next(found.method);
          found.sent?.();
        },
        (error: unknown) => onFailed(error instanceof Error ? error : new Error(String(error))),
      );
    },
    explain,
    close() {
      isClosed = true;
      for (const stream of agentStreams) stream.destroy();
    },
  };

  async function attempt(isFirst: boolean): Promise<Attempt | undefined> {
    if (isFirst || isSigned) {
      isSigned = false;
      return { method: { type: 'none', username: user } };
    }
    for (const name of facts.methods) {
      if (!left.includes(name)) continue;
      const found = await ways[name]?.next();
      if (questions?.isGivenUp()) throw new ConnectionError('needs_auth', 'given up at the prompt');
      if (found?.value) return found.value;
    }
    return undefined;
  }

  function explain(said = `Permission denied (${left.join() || facts.methods.join()}).`): ConnectionError {
    const sentence = [...hints.slice(0, 3), `${user}@${host}: ${said}`].join('; ');
    return new ConnectionError(isLocked && !isWrong ? 'needs_auth' : 'auth_failed', sentence);
  }

  // Keys: those of the agent that are named here first, then its others, then those that are files alone.

  async function* withKeys(): AsyncGenerator<Attempt, undefined> {
    // ssh takes it by itself, and may be let in by it alone: whoever is not let in here is to hear why.
    const certificate = facts.identityFiles.map((file) => `${file}-cert.pub`).find(isThere);
    if (certificate !== undefined) {
      hints.push(`The engine embedded cannot use the certificate ${certificate}: use 'engine: ssh'`);
    }
    const files = facts.identityFiles.map((file) => ({ file, blobs: publicHalvesOf(ssh2, file) }));
    const named = files.flatMap(({ blobs }) => blobs);
    const agent = openAgent();
    const held = agent ? (await listIdentities(agent)).filter(isFit) : [];
    const rank = (key: ParsedKey) => named.findIndex((blob) => blob.equals(key.getPublicSSH()));
    const first = held.filter((key) => rank(key) >= 0).sort((one, other) => rank(one) - rank(other));
    const others = facts.identitiesOnly ? [] : held.filter((key) => rank(key) < 0);
    for (const key of [...first, ...others]) if (agent) yield { method: askAgent(agent, key) };
    for (const { file, blobs } of files) {
      if (first.some((key) => blobs.some((blob) => blob.equals(key.getPublicSSH())))) continue;
      const found = readKeyFile(ssh2, file);
      const shown = found.kind === 'locked' ? parseIdentity(ssh2, found.publicHalf ?? blobs[0]) : undefined;
      if (found.kind === 'locked' && shown && isFit(shown)) {
        yield { method: { type: 'agent', username: user, agent: createLockedAgent(found, shown) } };
        continue;
      }
      const key = await open(found);
      if (key && !isFit(key)) hints.push(`Load key "${file}": ${key.type} is not accepted here, or has too few bits`);
      else if (key) yield { method: { type: 'publickey', username: user, key } };
    }
    return undefined;
  }

  function isFit(key: ParsedKey): boolean {
    const bits = bitsOfRsa(key.getPublicSSH());
    return maySign(key.type, facts) && (bits === undefined || bits >= facts.leastRsaBits);
  }

  async function open(found: KeyFile): Promise<ParsedKey | undefined> {
    const { file } = found;
    if (found.kind === 'key') return found.key;
    if (found.kind === 'absent' && facts.areIdentitiesNamed) {
      hints.push(`Identity file ${file} not accessible: No such file or directory`);
    }
    if (found.kind === 'unusable') hints.push(found.why);
    if (found.kind !== 'locked') return undefined;
    if (!questions) {
      isLocked = true;
      hints.push(`Load key "${file}": it has a passphrase, and nobody is asked for it`);
      return undefined;
    }
    for (let time = 0; time < facts.passwordPrompts; time++) {
      const passphrase = await questions.ask(`Enter passphrase for key '${file}': `);
      // An empty one goes on to the next key, as with ssh.
      if (passphrase === undefined || passphrase.length === 0) return undefined;
      const key = found.open(passphrase);
      passphrase.fill(0);
      if (key) return key;
      isWrong = true;
    }
    hints.push(`Load key "${file}": incorrect passphrase`);
    return undefined;
  }

  /**
   * An agent with one key: it is asked to sign once the server has said that this key would do, and the person for the
   * passphrase then and not before, as with ssh.
   */
  function createLockedAgent(found: LockedKey, shown: ParsedKey): BaseAgent {
    const sign = (_key: unknown, data: Buffer, options: SigningRequestOptions, done?: SignCallback) => {
      const unlock = async () => {
        const key = await open(found);
        if (isClosed) return;
        const signature: unknown = key?.sign(data, options.hash);
        isSigned = Buffer.isBuffer(signature);
        if (Buffer.isBuffer(signature)) done?.(undefined, signature);
        else done?.(new Error('The key was not unlocked'));
      };
      unlock().catch((error: unknown) => onFailed(error instanceof Error ? error : new Error(String(error))));
    };
    return Object.assign(Object.create(ssh2.BaseAgent.prototype), {
      getIdentities: (done: (error: undefined, keys: ParsedKey[]) => void) => done(undefined, [shown]),
      sign,
    });
  }

  function openAgent(): BaseAgent | undefined {
    if (facts.identityAgent === null) return undefined;
    const agent = ssh2.createAgent(facts.identityAgent);
    const getStream = agent.getStream?.bind(agent);
    // An agent that does not answer keeps a socket; it is to go with the login.
    agent.getStream = (done) =>
      getStream?.((error, stream) => {
        if (stream) agentStreams.add(stream.once('close', () => stream && agentStreams.delete(stream)));
        done(error, stream);
      });
    return agent;
  }

  /** One that is not there, or says nothing of use, is none. */
  function listIdentities(agent: BaseAgent): Promise<ParsedKey[]> {
    return new Promise((resolve) => {
      agent.getIdentities((_error, keys = []) => {
        const parsed = keys.map((key) => parseIdentity(ssh2, key));
        resolve(parsed.flatMap((key) => key ?? []));
      });
    });
  }

  /** An attempt with one key alone: ssh2 would go on to the next one also where this one was right and more is wanted. */
  function askAgent(agent: BaseAgent, key: ParsedKey): AgentAuthMethod {
    const one: BaseAgent = Object.create(agent);
    one.getIdentities = (done) => done(undefined, [key]);
    one.sign = (...args: unknown[]) => {
      isSigned = true;
      Reflect.apply(agent.sign, agent, args);
    };
    return { type: 'agent', username: user, agent: one };
  }

  // What somebody types.

  async function* withPrompts(): AsyncGenerator<Attempt, undefined> {
    if (!questions) return undefined;
    for (let time = 0; time < facts.passwordPrompts; time++) {
      if (time > 0) questions.tell('Permission denied, please try again.');
      yield { method: { type: 'keyboard-interactive', username: user, prompt: converse(questions) } };
    }
    return undefined;
  }

  function converse(asked: Questions) {
    let rounds = 0;
    return (name: string, instructions: string, _lang: string, prompts: Prompt[], finish: (all: string[]) => void) => {
      const answer = async () => {
        if (++rounds > MOST_ROUNDS) throw explain(`asked ${MOST_ROUNDS} times in one attempt`);
        for (const text of [name, instructions]) if (text !== '') asked.tell(text);
        const answers: string[] = [];
        for (const { prompt, echo } of prompts) {
          const given = await asked.ask(`(${user}@${host}) ${prompt}`, echo === true);
          if (given === undefined) throw new ConnectionError('needs_auth', 'given up at the prompt');
          // ssh2 takes text here and nothing else.
          answers.push(given.toString());
          given.fill(0);
        }
        finish(answers);
      };
      answer().catch((error: unknown) => onFailed(error instanceof Error ? error : new Error(String(error))));
    };
  }

  async function* withPassword(): AsyncGenerator<Attempt, undefined> {
    if (!questions) return undefined;
    for (let time = 0; time < facts.passwordPrompts; time++) {
      if (time > 0) questions.tell('Permission denied, please try again.');
      const given = await questions.ask(`${user}@${host}'s password: `);
      if (given === undefined) return undefined;
      // It takes a buffer as well, of which its types do not know; a string could not be wiped.
      const password = given as unknown as string;
      yield { method: { type: 'password', username: user, password }, sent: () => given.fill(0) };
    }
    return undefined;
  }
}

function parseIdentity(ssh2: Ssh2, key: unknown): ParsedKey | undefined {
  const given = isEntry(key) ? key.pubKey : key;
  if (typeof given === 'string' || Buffer.isBuffer(given)) {
    const parsed = ssh2.utils.parseKey(given);
    return parsed instanceof Error ? undefined : parsed;
  }
  return isEntry(given) || typeof given !== 'object' || given === null || !('getPublicSSH' in given)
    ? undefined
    : (given as ParsedKey);
}

function isEntry(key: unknown): key is { readonly pubKey: unknown } {
  return typeof key === 'object' && key !== null && 'pubKey' in key;
}

function isThere(file: string): boolean {
  return readPlainFile(file, MAX_KEY_BYTES).kind === 'file';
}

/** Which keys a file names: itself, where it may be read, or the half beside it. The private half may be an agent's alone. */
function publicHalvesOf(ssh2: Ssh2, file: string): Buffer[] {
  return [`${file}.pub`, file].flatMap((name) => {
    const found = readPlainFile(name, MAX_KEY_BYTES);
    if (found.kind !== 'file') return [];
    const key = ssh2.utils.parseKey(found.bytes);
    return key instanceof Error ? [] : [key.getPublicSSH()];
  });
}
