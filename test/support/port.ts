import { reservePort } from '#lib/testing/ports.js';

/**
 * A TCP port that nobody holds on any address, below the ephemeral range: there no outgoing connection can take it
 * before the test does, and the configuration has nothing to warn of. No other test is given it as long as this process
 * lives.
 */
export async function freeLocalPort(): Promise<number> {
  const reserved = await reservePort();
  await reserved.release();
  return reserved.port;
}
