import { expect } from 'chai';
import fc from 'fast-check';
import { createLineParser, quoteWord, splitCriteria, splitWords } from '#lib/tunnel/embedded/ssh-config/line.js';

describe('createLineParser()', () => {
  it('tells the keyword from what follows it, as they are written', async () => {
    const parseLine = await createLineParser();
    expect(parseLine('  pOrT\t= 22 # x \r')).to.deep.equal({ name: 'pOrT', rest: '22 # x' });
    expect(parseLine('Match !all exec "a b"')).to.deep.equal({ name: 'Match', rest: '!all exec "a b"' });
    for (const nothing of ['', ' \t', '# Port 22']) expect(parseLine(nothing), nothing).to.equal('blank');
    for (const broken of ['Host', 'Port 2\u00002']) expect(parseLine(broken), broken).to.equal('broken');
  });
});

describe('splitWords()', () => {
  it('takes quotes, backslashes and a comment as ssh does', () => {
    expect(splitWords('a "b c"\td\\ e \'f "\' g"h i"\\" #j')).to.deep.equal(['a', 'b c', 'd e', 'f "', 'gh i"']);
    expect(splitWords('a#b "" #c')).to.deep.equal(['a#b', '']);
    expect(splitWords('a "b')).to.equal(undefined);
  });

  it('gives back whatever quoteWord() was given', () => {
    fc.assert(
      fc.property(fc.string(), (word) => {
        expect(splitWords(quoteWord(word))).to.deep.equal([word]);
      }),
    );
  });
});

describe('splitCriteria()', () => {
  it('takes = for a blank, and only one kind of quote', () => {
    expect(splitCriteria('host=a,b user "c d" !all # e')).to.deep.equal(['host', 'a,b', 'user', 'c d', '!all']);
  });
});
