/** Markers in environments, whatever else stands there: a process that does not carry one must not die for it. */
import { expect } from 'chai';
import fc from 'fast-check';
import { checkMarker, createMarkerSearch, readMarker, readVariable } from '#lib/proc/marker.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { createFakeProc, statLine } from '../support/fakeproc.js';

const noSlice = (): undefined => undefined;
const marker = ['TUNNEL_ID=a1', 'TUNWARD_INSTANCE=x'] as const;

const clean = (text: string) => text.replaceAll('\0', '');
/** What comes near a marker, and is none: among real entries, and anything else that an environment may hold. */
const entry = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...marker) },
  fc.constantFrom('OTHER_TUNNEL_ID=a1', 'TUNNEL_ID=a1b', 'TUNNEL_ID=a', 'tunnel_id=a1', 'TUNNEL_ID', 'TUNNEL_ID= a1'),
  fc.constantFrom('NOTE=\nTUNNEL_ID=a1\n', 'TUNNEL_ID=a1\n', '\nTUNNEL_ID=a1', 'X=TUNWARD_INSTANCE=x', '=', ''),
  fc.string({ unit: 'binary' }).map(clean),
);
const environs = fc.array(entry, { maxLength: 12 });
const commands = fc.array(fc.string().map(clean), { maxLength: 3 });

describe('a marker in an environment', () => {
  it('is carried by exactly those that have every entry of it, whole', () => {
    fc.assert(
      fc.property(environs, commands, (environ, command) => {
        const text = join(environ);
        const state = checkMarker(procOf({ environ: text, cmdline: join(command) }), 7, marker);
        if (text === '' && join(command) === '') expect(state).to.equal('empty');
        else expect(state).to.equal(marker.every((each) => environ.includes(each)) ? 'carries' : 'lacks');
      }),
      { numRuns: 500 },
    );
  });

  it('is not taken from an environment that is cut off within it, nor from a shorter one', () => {
    fc.assert(
      fc.property(environs, (others) => {
        const before = join(others.filter((each) => !marker.some((part) => part === each)));
        const text = `${before}${marker[0]}\0${marker[1]}`;
        for (let size = before.length; size < text.length; size++) {
          const state = checkMarker(procOf({ environ: text.slice(0, size), cmdline: 'x\0' }), 7, marker);
          expect(state, JSON.stringify(text.slice(0, size))).to.equal('lacks');
        }
        // The kernel ends the last entry with a NUL; a program that writes over its arguments may not.
        expect(checkMarker(procOf({ environ: text, cmdline: 'x\0' }), 7, marker)).to.equal('carries');
      }),
      { numRuns: 60 },
    );
  });

  it('is found at the end of an environment of 2 MB', () => {
    using fake = createFakeProc();
    const environ = [...Array.from({ length: 20_000 }, (_, at) => `V${at}=${'x'.repeat(100)}`), ...marker];
    fake.add({ pid: 7, environ }, { pid: 8, environ: environ.slice(0, -1) });
    expect([7, 8].map((pid) => checkMarker(fake.proc, pid, marker))).to.deep.equal(['carries', 'lacks']);
  });

  it('is searched for among everybody, and found in those alone', async () => {
    const population = fc.uniqueArray(fc.tuple(fc.integer({ min: 2, max: 4000 }), environs), {
      selector: ([pid]) => pid,
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(population, async (everybody) => {
        const files = new Map(everybody.map(([pid, environ]) => [pid, join(environ)]));
        const found = await createMarkerSearch(procOf({ everybody: files, cmdline: 'x\0' }), marker).look(noSlice);
        const carriers = everybody.filter(([, environ]) => marker.every((each) => environ.includes(each)));
        expect(found.map(({ pid }) => pid)).to.have.members(carriers.map(([pid]) => pid));
      }),
    );
  });
});

describe('a variable of an environment', () => {
  const name = fc.stringMatching(/^[A-Z_]{1,8}$/);

  it('is read back, whatever its value and whatever stands beside it', () => {
    fc.assert(
      fc.property(name, fc.string({ unit: 'binary' }).map(clean), environs, (wanted, value, others) => {
        const beside = [...others.filter((each) => !each.startsWith(`${wanted}=`)), `X${wanted}=1`, `${wanted}X=1`];
        const proc = procOf({ environ: join([...beside, `${wanted}=${value}`]), cmdline: '' });
        expect(readVariable(proc, 7, wanted)).to.equal(value);
        expect(readMarker(proc, 7, [wanted])).to.deep.equal([`${wanted}=${value}`]);
        const without = procOf({ environ: join(beside), cmdline: '' });
        expect([readVariable(without, 7, wanted), readMarker(without, 7, [wanted])]).to.deep.equal([
          undefined,
          undefined,
        ]);
      }),
    );
  });
});

function join(entries: readonly string[]): string {
  return entries.map((each) => `${each}\0`).join('');
}

/** A /proc in memory: pid 7, or everybody by number. */
function procOf({
  environ = '',
  cmdline,
  everybody = new Map([[7, environ]]),
}: {
  readonly environ?: string;
  readonly cmdline: string;
  readonly everybody?: ReadonlyMap<number, string>;
}): Proc {
  const text = (path: string) => {
    const [pid, file] = path.split('/');
    const own = everybody.get(Number(pid));
    if (own === undefined) return undefined;
    if (file === 'stat') return statLine({ pid: Number(pid) });
    return file === 'environ' ? own : file === 'cmdline' ? cmdline : undefined;
  };
  return {
    ...openProc('/nowhere'),
    text,
    list: (path) => (path === '.' ? [...everybody.keys()].map(String) : undefined),
  };
}
