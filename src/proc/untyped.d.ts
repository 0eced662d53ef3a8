/* The packages of packages.ts, as far as they are used there: their own types are missing, or none under nodenext. */

declare module 'ps-tree' {
  interface Row {
    readonly PPID: string;
    readonly PID: string;
    readonly STAT: string;
    readonly COMMAND: string;
  }
  export default function psTree(pid: number, callback: (error: Error | null, rows: readonly Row[]) => void): void;
}

declare module 'find-process' {
  interface Found {
    readonly pid: number;
    readonly uid?: number;
    readonly cmd: string;
  }
  export default function find(
    by: 'port',
    port: number,
    options?: { readonly logLevel: 'error' },
  ): Promise<readonly Found[]>;
}

declare module 'pidusage' {
  interface Status {
    readonly cpu: number;
    readonly memory: number;
    readonly ppid: number;
    readonly pid: number;
    readonly ctime: number;
    readonly elapsed: number;
    readonly timestamp: number;
  }
  export default function pidusage(
    pids: readonly number[],
    options: { readonly usePs: boolean; readonly maxage: number },
  ): Promise<Readonly<Record<string, Status | undefined>>>;
}

declare module 'tcp-port-used' {
  const tcpPortUsed: { check(port: number, host: string): Promise<boolean> };
  export default tcpPortUsed;
}
