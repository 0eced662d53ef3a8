import { createHash } from 'node:crypto';
import { TunwardError } from '../../errors.js';

/** What a text is known by: the ETag of a configuration. SHA-256, 64 hexadecimal digits. */
export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Somebody else has written meanwhile. */
export function configChanged(file: string, ifMatch: string, etag: string): TunwardError<'ERR_CONFIG_CHANGED'> {
  const message = `${file} is not the one you have read (${ifMatch.slice(0, 12)}, now ${etag.slice(0, 12)}), nothing was changed: read it again`;
  return new TunwardError('ERR_CONFIG_CHANGED', message, { etag, ifMatch });
}
