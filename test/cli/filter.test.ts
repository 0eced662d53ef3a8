import { expect } from 'chai';
import fc from 'fast-check';
import { createFilter } from '#lib/cli/filter.js';

describe('createFilter()', () => {
  const filtered = (...parts: (string | Uint8Array)[]) => {
    const filter = createFilter();
    return parts.map((part) => filter(Buffer.from(part))).join('');
  };

  it('draws what a question needs: text, lines, steps back, the bell, colours', () => {
    const text = "\u001b[1;38:5:9mme@host's password:\u001b[0m \b\u0007\tPaßwört für 日本語 🔑\r\n\u001b[K";
    expect(filtered(text)).to.equal(text);
  });

  for (const [what, text, drawn] of [
    ['the clipboard', '\u001b]52;c;ZXZpbA==\u0007', '?]52;c;ZXZpbA==\u0007'],
    ['a title', 'a\u001b]0;root@bank\u001b\\b', 'a?]0;root@bank?\\b'],
    ['a question that the terminal would answer as if typed', '\u001b[6n\u001b[c\u001bZ', '?[6n?[c?Z'],
    ['what clears and moves', '\u001b[2J\u001b[H\u001b[?1049h\u001bc', '?[2J?[H?[?1049h?c'],
    ['other keys', '\u001b[>4;2m\u001b[?2004h\u001b[?1000h', '?[>4;2m?[?2004h?[?1000h'],
    ['a device string', '\u001bP+q544e\u001b\\', '?P+q544e?\\'],
    ['the 8-bit forms', '\u009b6n\u009d52;c;x\u009c', '?6n?52;c;x?'],
    ['another alphabet', '\u000e\u001b(0', '??(0'],
    ['what turns text around', 'a\u202eb\u2066', 'a?b?'],
    ['NUL and DEL', '\u0000\u007f', '??'],
  ] as const) {
    it(`makes no order of what would reach ${what}`, () => {
      expect(filtered(text)).to.equal(drawn);
    });
  }

  it('does not wait for a sequence that has no end', () => {
    expect(filtered(`\u001b[${'1;'.repeat(40)}`, 'x')).to.equal(`?[${'1;'.repeat(40)}x`);
  });

  it('says the same however the bytes are cut', () => {
    const piece = fc.constantFrom('\u001b', '[', ']', '0', ';', 'm', 'K', 'n', 'é', '🔑', '\r\n', 'a', '\u009b');
    const cut = fc.record({ pieces: fc.array(piece, { maxLength: 12 }), at: fc.array(fc.nat(40), { maxLength: 4 }) });
    fc.assert(
      fc.property(cut, ({ pieces, at }) => {
        // A last letter, so that nothing is waited for.
        const bytes = Buffer.from(`${pieces.join('')}.`);
        const places = [0, ...at.filter((place) => place < bytes.length).sort((a, b) => a - b), bytes.length];
        const parts = places.slice(1).map((end, index) => bytes.subarray(places[index], end));
        expect(filtered(...parts)).to.equal(filtered(bytes));
      }),
    );
  });
});
