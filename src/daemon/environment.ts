/** The environment of this process, for the library's defaults: read when it is asked for, never at import. */
export function processEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}
