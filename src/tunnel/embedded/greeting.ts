/** What a server has said before anything of it is encrypted. */
export interface Greeting {
  /** Hears its bytes; answers whether it wants more. */
  take(chunk: Buffer): boolean;
  /** The lines before its version, or instead of one. */
  preamble(): readonly string[];
  /** Has it said who it is? */
  hasVersion(): boolean;
  /** The algorithms it offers; undefined as long as it has not. */
  offer(): Offer | undefined;
}

/** The lists of SSH_MSG_KEXINIT (RFC 4253, section 7.1), of which ssh2 says nothing when none of them fits. */
export interface Offer {
  readonly kex: readonly string[];
  readonly hostKey: readonly string[];
  readonly cipher: readonly string[];
  readonly mac: readonly string[];
}

/** A version, the lines before it and the first packet are a few hundred bytes; who says more is not listened to. */
const LONGEST_GREETING = 16_384;
const KEXINIT = 20;

/** Listens to the beginning of a connection beside ssh2. */
export function createGreeting(): Greeting {
  let heard = Buffer.alloc(0);
  let isOver = false;
  return { take, preamble, hasVersion: () => versionEnd() >= 0, offer };

  function take(chunk: Buffer): boolean {
    if (isOver) return false;
    heard = Buffer.concat([heard, chunk.subarray(0, LONGEST_GREETING - heard.length)]);
    isOver = heard.length >= LONGEST_GREETING || offer() !== undefined;
    return !isOver;
  }

  function preamble(): readonly string[] {
    const text = heard.toString('latin1');
    const end = /^SSH-/m.exec(text)?.index ?? text.length;
    return text.slice(0, end).split(/\r?\n/).filter(Boolean).slice(0, 20);
  }

  /** Where the line of its version ends; -1: there is none. */
  function versionEnd(): number {
    const version = /^SSH-[^\n]*\n/m.exec(heard.toString('latin1'));
    return version ? version.index + version[0].length : -1;
  }

  function offer(): Offer | undefined {
    const start = versionEnd();
    if (start < 0 || heard.length < start + 6) return undefined;
    const end = start + 4 + heard.readUInt32BE(start);
    // The length of the padding, the number of the message, and a cookie of 16 bytes come first.
    if (heard[start + 5] !== KEXINIT || heard.length < end) return undefined;
    return readLists(heard.subarray(start + 22, end));
  }
}

function readLists(packet: Buffer): Offer | undefined {
  const lists: string[][] = [];
  for (let at = 0; lists.length < 6; ) {
    if (packet.length < at + 4) return undefined;
    const end = at + 4 + packet.readUInt32BE(at);
    if (packet.length < end) return undefined;
    lists.push(packet.toString('latin1', at + 4, end).split(','));
    at = end;
  }
  const [kex = [], hostKey = [], cipher = [], , mac = []] = lists;
  return { kex, hostKey, cipher, mac };
}
