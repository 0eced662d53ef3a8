/** What has been opened, in order: closed in reverse, all of it, whatever fails on the way. */
export interface Stack {
  use<T extends AsyncDisposable>(opened: T): T;
  defer<T>(made: T, undo: (made: T) => void): T;
  /** Idempotent. Rejects with the first failure. */
  close(): Promise<void>;
}

export function createStack(): Stack {
  const undos: (() => void | PromiseLike<void>)[] = [];
  return {
    use(opened) {
      undos.push(() => opened[Symbol.asyncDispose]());
      return opened;
    },
    defer(made, undo) {
      undos.push(() => undo(made));
      return made;
    },
    async close() {
      const failures: unknown[] = [];
      for (let undo = undos.pop(); undo; undo = undos.pop()) {
        try {
          await undo();
        } catch (error) {
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
    },
  };
}
