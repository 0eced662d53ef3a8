/** What a server that asks (asking.ts) asks for, and whether the answers are right. */
import { readFileSync } from 'node:fs';
import ssh2, { type AuthContext, type Connection, type KeyboardAuthContext, type PublicKeyAuthContext } from 'ssh2';
import { systemClock } from '#lib/time.js';

/** One thing that has to be proved. */
export type Factor =
  | { readonly method: 'password'; readonly password: string }
  | Asking
  | { readonly method: 'publickey' };

/** Several things at once. */
export interface Asking {
  readonly method: 'keyboard-interactive';
  /** In one request; ssh puts them one after another. */
  readonly questions: readonly AskedQuestion[];
  /** Shown above them. */
  readonly instruction?: string;
}

export interface AskedQuestion {
  /** As the server sends it, whatever is in it; ssh puts `(user@127.0.0.1) ` before it. */
  readonly text: string;
  readonly answer: string;
  /** May be seen when it is typed. Default: it may not. */
  readonly echo?: boolean;
}

export function byPassword(password: string): Factor {
  return { method: 'password', password };
}

/** A password and then a one-time code: `Password: `, `One-time code: `. */
export function byPasswordAndCode(password: string, code: string, { echo = false } = {}): Factor {
  const questions = [
    { text: 'Password: ', answer: password },
    { text: 'One-time code: ', answer: code, echo },
  ];
  return { method: 'keyboard-interactive', questions };
}

/** The identity in ssh_config; what protects that is `passphrase` among the options. */
export const byKey: Factor = { method: 'publickey' };

/** Texts by which a hostile server would draw on a terminal what is not so. (By a zero byte it would end ssh.) */
export const evilTexts: readonly string[] = [
  '\x1b[2J\x1b[1;1HPassword: ',
  '\x1b]0;owned\x07Password: ',
  'Code: \x1b[8m\x9b2J\r\n[sudo] password for root: ',
  '\x07\b\b\b\x7f\x1bcPassword: ',
  `${'very long '.repeat(3000)}: `,
  '\u202e:drowssaP \u200b',
];

export interface Terms {
  readonly user: string;
  /** The identity that a factor `byKey` is proved by. */
  readonly identityFile: string | undefined;
  readonly delayMs: number;
  readonly held: boolean;
}

/** What has been counted, over all connections. */
export interface Counts {
  asked: number;
  attempts: number;
  wrong: number;
  logins: number;
}

export interface Examination {
  readonly counts: Readonly<Counts>;
  /** Asks whoever is at the other end, who is hung up on by `end`. */
  examine(connection: Connection, end: () => void): void;
  release(): void;
  /** Hangs up on everybody who has not proved everything. */
  hangUp(): void;
  /** Nobody is waited for any more. */
  end(): void;
}

/** Asks everybody for all of the factors, each when the one before it is proved. */
export function openExamination(factors: readonly Factor[], { user, identityFile, delayMs, held }: Terms): Examination {
  const counts: Counts = { asked: 0, attempts: 0, wrong: 0, logins: 0 };
  const strangers = new Map<Connection, () => void>();
  const over = new AbortController();
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  if (!held) release();
  const key = identityFile === undefined ? undefined : parseKey(identityFile);

  const mayAsk = async (): Promise<void> => {
    if (delayMs > 0) await systemClock.sleep(delayMs, over.signal);
    await released;
    counts.asked += 1;
  };
  /** Right, wrong, or, where ssh did something else than to answer, neither. */
  const hear = async (context: AuthContext, factor: Factor): Promise<boolean | undefined> => {
    if (factor.method === 'password' && context.method === 'password') return context.password === factor.password;
    if (factor.method === 'publickey' && context.method === 'publickey') return isProof(context, key);
    if (factor.method !== 'keyboard-interactive' || context.method !== 'keyboard-interactive') return undefined;
    await mayAsk();
    const answers = await ask(context, factor);
    return factor.questions.every(({ answer }, at) => answers[at] === answer);
  };
  const judge = (context: AuthContext, isRight: boolean): boolean => {
    const isProved = isRight && context.username === user;
    // Keys are offered, not answered with.
    if (context.method !== 'publickey') counts.attempts += 1;
    if (context.method !== 'publickey' && !isProved) counts.wrong += 1;
    return isProved;
  };
  const serve = async (context: AuthContext, proved: number): Promise<number> => {
    const factor = factors[proved];
    const isRight = factor && (await hear(context, factor));
    if (isRight === undefined && wantsToKnow(context, factor, key)) {
      context.accept();
      return proved;
    }
    const isProved = isRight !== undefined && judge(context, isRight);
    const next = factors[isProved ? proved + 1 : proved];
    if (next === undefined) {
      counts.logins += 1;
      context.accept();
    } else {
      // That a password is wanted is what ssh asks its question on.
      if (next.method === 'password') await mayAsk();
      context.reject([next.method], isProved);
    }
    return isProved ? proved + 1 : proved;
  };

  return {
    counts,
    examine(connection, end) {
      let proved = 0;
      strangers.set(connection, end);
      connection.on('close', () => strangers.delete(connection));
      connection.on('authentication', (context) => {
        serve(context, proved).then(
          (now) => {
            proved = now;
            if (proved === factors.length) strangers.delete(connection);
          },
          (error: unknown) => {
            if (!over.signal.aborted) throw error;
          },
        );
      });
    },
    release,
    hangUp() {
      for (const end of strangers.values()) end();
    },
    end: () => over.abort(),
  };
}

/** Without a signature ssh only asks whether a key would do. */
function wantsToKnow(context: AuthContext, factor: Factor | undefined, own: ssh2.ParsedKey | undefined): boolean {
  if (factor?.method !== 'publickey' || context.method !== 'publickey') return false;
  return context.signature === undefined && isKey(context, own);
}

function isProof(context: PublicKeyAuthContext, own: ssh2.ParsedKey | undefined): boolean | undefined {
  const { signature, blob, hashAlgo } = context;
  if (signature === undefined || blob === undefined) return undefined;
  return isKey(context, own) && own?.verify(blob, signature, hashAlgo) === true;
}

function isKey({ key }: PublicKeyAuthContext, own: ssh2.ParsedKey | undefined): boolean {
  return own?.getPublicSSH().equals(key.data) === true;
}

/** Resolves never when ssh breaks off: there is nobody then who could be told. */
function ask(context: KeyboardAuthContext, { questions, instruction = '' }: Asking): Promise<string[]> {
  const prompts = questions.map(({ text, echo = false }) => ({ prompt: text, echo }));
  return new Promise((resolve) => {
    // ssh2 hands an Error in, which its types do not know of, when ssh has begun anew.
    context.prompt(prompts, '', instruction, (answers: string[] | Error) => {
      if (!(answers instanceof Error)) resolve(answers);
    });
  });
}

function parseKey(identityFile: string): ssh2.ParsedKey {
  const key = ssh2.utils.parseKey(readFileSync(`${identityFile}.pub`));
  if (key instanceof Error) throw key;
  return key;
}
