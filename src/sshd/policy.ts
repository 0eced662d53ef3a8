export type LoginMethod = 'none' | 'publickey' | 'password' | 'keyboard-interactive';

/** One question of keyboard-interactive, and its answer. */
export interface LoginPrompt {
  readonly prompt: string;
  /** May what is typed be seen? Default: no. */
  readonly echo?: boolean | undefined;
  readonly answer: string;
}

/** Who may log in, and by what. Without any of it: the key of `identityFile`. */
export interface LoginPolicy {
  /** The only user who may log in. Default: anybody, and the server's own ssh_config says `tester`. */
  readonly username?: string | undefined;
  /** `true`: any key. A list of public keys, as in authorized_keys. Or a judge, who is given the key as such a line. */
  readonly publicKey?: true | readonly string[] | ((key: string, username: string) => boolean | Promise<boolean>);
  readonly password?: string | ((username: string, password: string) => boolean | Promise<boolean>) | undefined;
  /** All of them are asked at once. */
  readonly keyboardInteractive?: readonly LoginPrompt[] | undefined;
  /** Whoever comes may come in. */
  readonly none?: boolean | undefined;
  /**
   * What has to be passed, as sshd_config has it: each entry is a way in, `publickey,keyboard-interactive` is one after the
   * other. Default: each policy that is given is a way in.
   */
  readonly authenticationMethods?: readonly string[] | undefined;
}

/** An attempt to log in. A key that the client only asks about, and that would do, is none. */
export interface SshLogin {
  readonly connection: number;
  readonly username: string;
  readonly method: LoginMethod;
  readonly accepted: boolean;
  /** Accepted, and more is asked for. */
  readonly isPartial: boolean;
  /** Why it was not accepted. */
  readonly why: string | null;
}

/**
 * What has to be passed, one after the other, on each way in.
 *
 * @throws RangeError for a method without a policy.
 */
export function waysOf(policy: LoginPolicy): LoginMethod[][] {
  const given: LoginMethod[] = [];
  if (policy.none) given.push('none');
  if (policy.publicKey !== undefined) given.push('publickey');
  if (policy.password !== undefined) given.push('password');
  if (policy.keyboardInteractive !== undefined) given.push('keyboard-interactive');
  if (policy.authenticationMethods === undefined) return given.map((method) => [method]);
  return policy.authenticationMethods.map((way) =>
    way.split(',').map((name) => {
      const method = given.find((one) => one === name.trim());
      if (method) return method;
      const all = given.join(', ') || 'nothing';
      throw new RangeError(`Cannot ask for ${name} in authenticationMethods: there is a policy for ${all}`);
    }),
  );
}
