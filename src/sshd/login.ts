import type { AuthContext, Connection, KeyboardAuthContext, PublicKeyAuthContext } from 'ssh2';
import type { Ssh2 } from '../tunnel/embedded/ssh2.js';
import type { Faults } from './faults.js';
import type { ConnectionRecord, Journal } from './journal.js';
import { type LoginMethod, type LoginPolicy, type LoginPrompt, waysOf } from './policy.js';

/** What the server judges logins by. */
export interface Login {
  readonly usesKeys: boolean;
  judge(connection: Connection, record: ConnectionRecord): void;
}

type Verdict = 'right' | { readonly wrong: string };

/** @throws TypeError, RangeError for a policy that cannot be. */
export function createLogin(ssh2: Ssh2, policy: LoginPolicy, faults: Faults, journal: Journal): Login {
  const trusted = Array.isArray(policy.publicKey) ? policy.publicKey.map((line) => blobOf(ssh2, line)) : [];
  const ways = waysOf(policy);
  return { usesKeys: ways.flat().includes('publickey'), judge };

  function judge(connection: Connection, record: ConnectionRecord): void {
    /** What has been passed so far, in this order. */
    const passed: LoginMethod[] = [];
    connection.on('authentication', (context: AuthContext) => void examine(context, record, passed));
  }

  async function examine(context: AuthContext, record: ConnectionRecord, passed: LoginMethod[]): Promise<void> {
    const admitted = await faults.admits('login');
    const { username } = context;
    const verdict = admitted ? await verdictOf(context, passed) : wrong('the server refuses every login');
    if (context.method === 'publickey' && context.signature === undefined && verdict === 'right') {
      // The client only asks whether this key would do.
      context.accept();
      return;
    }
    if (verdict === 'right') passed.push(methodOf(context));
    const isIn = verdict === 'right' && ways.some((way) => way.length === passed.length && follows(way, passed));
    journal.noteLogin({
      connection: record.id,
      username,
      method: methodOf(context),
      accepted: verdict === 'right',
      isPartial: verdict === 'right' && !isIn,
      why: verdict === 'right' ? null : verdict.wrong,
    });
    if (!isIn) return context.reject(nextOf(passed), verdict === 'right');
    record.username = username;
    context.accept();
  }

  /** What a policy throws is its answer: a test's mistake fails the login, and is found in `logins`. */
  async function verdictOf(context: AuthContext, passed: readonly LoginMethod[]): Promise<Verdict> {
    if (!nextOf(passed).includes(methodOf(context))) return wrong(`${context.method} is not asked for`);
    if (policy.username !== undefined && policy.username !== context.username) return wrong('nobody of that name');
    try {
      return await ask(context);
    } catch (error) {
      return wrong(`the policy has thrown ${error}`);
    }
  }

  async function ask(context: AuthContext): Promise<Verdict> {
    switch (context.method) {
      case 'none':
        return 'right';
      case 'password':
        return (await isPassword(context.username, context.password)) ? 'right' : wrong('another password');
      case 'publickey':
        return askKey(context);
      case 'keyboard-interactive':
        return askPerson(context, policy.keyboardInteractive ?? []);
      default:
        return wrong(`${context.method} is not known`);
    }
  }

  async function isPassword(username: string, password: string): Promise<boolean> {
    const { password: wanted } = policy;
    return typeof wanted === 'function' ? wanted(username, password) : wanted === password;
  }

  async function askKey(context: PublicKeyAuthContext): Promise<Verdict> {
    const { blob, signature, hashAlgo, username } = context;
    const line = lineOf(context.key.data);
    const key = ssh2.utils.parseKey(line);
    if (key instanceof Error) return wrong(`a key that cannot be read: ${key.message}`);
    const { publicKey } = policy;
    const isKnown =
      publicKey === true ||
      (typeof publicKey === 'function'
        ? await publicKey(line, username)
        : trusted.some((one) => one.equals(context.key.data)));
    if (!isKnown) return wrong('another key');
    if (signature === undefined || blob === undefined) return 'right';
    return key.verify(blob, signature, hashAlgo) === true ? 'right' : wrong('a signature that does not fit');
  }

  function nextOf(passed: readonly LoginMethod[]): LoginMethod[] {
    const next = ways.filter((way) => follows(way, passed)).flatMap((way) => way[passed.length] ?? []);
    return [...new Set(next)];
  }
}

function askPerson(context: KeyboardAuthContext, asked: readonly LoginPrompt[]): Promise<Verdict> {
  const prompts = asked.map(({ prompt, echo = false }) => ({ prompt, echo }));
  return new Promise((resolve) => {
    // Whoever begins another attempt in the middle of this one makes the answers an error.
    context.prompt(prompts, (answers: readonly string[] | Error) => {
      const isRight =
        Array.isArray(answers) &&
        answers.length === asked.length &&
        asked.every(({ answer }, at) => answers[at] === answer);
      resolve(isRight ? 'right' : wrong(Array.isArray(answers) ? 'another answer' : 'given up'));
    });
  });
}

function follows(way: readonly LoginMethod[], passed: readonly LoginMethod[]): boolean {
  return passed.every((method, at) => way[at] === method);
}

function wrong(why: string): Verdict {
  return { wrong: why };
}

function methodOf({ method }: AuthContext): LoginMethod {
  // The fifth that ssh2 knows is hostbased, which no policy is for.
  return method === 'hostbased' ? 'none' : method;
}

/** The line of a public key as it comes over the wire: its type is the blob's own first string (RFC 4253, section 6.6). */
function lineOf(blob: Buffer): string {
  const length = blob.length >= 4 ? blob.readUInt32BE(0) : 0;
  return `${blob.toString('latin1', 4, 4 + length)} ${blob.toString('base64')}`;
}

function blobOf(ssh2: Ssh2, line: string): Buffer {
  const key = ssh2.utils.parseKey(line);
  if (key instanceof Error) throw new TypeError(`Cannot use ${JSON.stringify(line)} as a public key: ${key.message}`);
  return key.getPublicSSH();
}
