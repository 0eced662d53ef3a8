import { expect } from 'chai';
import { createTranscript } from '#lib/tunnel/transcript.js';

describe('createTranscript()', () => {
  function listen() {
    const output: string[] = [];
    return { output, said: createTranscript((line) => output.push(line)) };
  }

  it('makes lines of chunks, wherever they are cut', () => {
    const { output, said } = listen();
    for (const chunk of ['fir', 'st\r\nsec', 'ond', '\n', '\n', 'third\nfo']) said.take(chunk);
    expect(output).to.deep.equal(['first', 'second', 'third']);
    said.take('urth');
    said.end();
    said.end();
    expect(output).to.deep.equal(['first', 'second', 'third', 'fourth']);
    expect(said.lines()).to.deep.equal(output);
    expect(said.lastLine()).to.equal('fourth');
  });

  it('has said nothing at first', () => {
    const { said } = listen();
    said.end();
    expect(said.lines()).to.deep.equal([]);
    expect(said.lastLine()).to.equal(null);
  });

  it('keeps ssh’s debugging to itself, and counts the remote forwards that were granted', () => {
    const { output, said } = listen();
    said.take('OpenSSH_9.2p1 Debian-2, OpenSSL 3.0\ndebug1: Reading configuration data /etc/ssh/ssh_config\n');
    said.take('Authenticated to db ([10.0.0.1]:22) using "publickey".\ndebug1: remote forward suc');
    expect(said.grantedForwards()).to.equal(0);
    said.take('cess for: listen 127.0.0.1:9888, connect localhost:80\nWelcome\n');
    said.take('debug1: remote forward failure for: listen 127.0.0.1:9889, connect localhost:80\n');
    said.take('debug1: remote forward success for: listen [::1]:9888, connect localhost:80\n');
    said.take('Transferred: sent 2, received 3 bytes, in 0.1 seconds\nBytes per second: sent 1, received 2\n');
    expect(said.grantedForwards()).to.equal(2);
    expect(output).to.deep.equal(['Welcome']);
    expect(said.lastLine()).to.equal('Welcome');
  });

  it('believes no word about a forward that is not ssh’s own line', () => {
    const { said } = listen();
    said.take('banner: debug1: remote forward success for: listen 127.0.0.1:9888\n');
    expect(said.grantedForwards()).to.equal(0);
  });

  it('lets no control character through', () => {
    const { output, said } = listen();
    said.take('\u001b[2J\u001b]0;title\u0007 a\tb\rc \u0085 \u202e abc\u0000\n');
    said.take(`${Array.from({ length: 32 }, (_none, code) => String.fromCharCode(code)).join('')}\n`);
    expect(output.join('')).not.to.match(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    expect(output[0]).to.equal('?[2J?]0;title? a?b?c ? ? abc?');
  });

  it('stays small while 100 MB come, with and without line ends', function () {
    this.timeout(60_000);
    let handed = 0;
    let longest = 0;
    const said = createTranscript((line) => {
      handed++;
      longest = Math.max(longest, line.length);
    });
    const noLineEnd = 'x'.repeat(65_536);
    const oneLine = `${'y'.repeat(65_535)}\n`;
    const manyLines = `${'z'.repeat(63)}\n`.repeat(1024);
    for (let megabytes = 0; megabytes < 35; megabytes++) {
      for (const chunk of [noLineEnd, oneLine, manyLines]) for (let times = 0; times < 16; times++) said.take(chunk);
    }
    expect(longest).to.equal(2000);
    expect(said.lines()).to.have.length(50);
    // Each megabyte: one cut line of the flood, the 15 lines after it, and the short ones.
    expect(handed).to.equal(35 * (1 + 15 + 16 * 1024));
  });

  it('hands on the beginning of a line that is too long, once', () => {
    const { output, said } = listen();
    said.take(`debug1: ${'a'.repeat(3000)}`);
    said.take('b'.repeat(3000));
    said.take(`c\n${'d'.repeat(2001)}`);
    said.take('e\nfine\n');
    said.take('f'.repeat(2001));
    said.take('ff');
    said.end();
    expect(output).to.deep.equal(['d'.repeat(2000), 'fine', 'f'.repeat(2000)]);
  });
});
