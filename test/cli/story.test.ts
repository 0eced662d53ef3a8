import { expect } from 'chai';
import type { Line } from '#lib/cli/render.js';
import { createStory, type ToldEvent } from '#lib/cli/story.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { fromWire } from '#lib/wire.js';
import { tunnelRecord } from './fake-daemon.js';

describe('createStory()', () => {
  function tell(event: ToldEvent): string {
    const told: Line[] = [];
    createStory((line) => told.push(line))(event);
    const spans = told.flatMap((line) => (Array.isArray(line) ? line : [line]));
    return spans
      .map((span) => (typeof span === 'string' ? span : span.text))
      .slice(2)
      .join('');
  }

  it('says what a clean end took, what was late, and who is left', () => {
    const end = { type: 'daemon.stopped', tookMs: 35, trouble: null, survivors: [] } as const;
    expect(tell(end)).to.equal('stopped after 35 ms');
    const survivors = [{ tunnel: 'web', pid: 812, command: 'ssh -N', why: 'uninterruptible sleep' }];
    expect(tell({ ...end, survivors })).to.equal(
      'stopped after 35 ms; web: pid 812 (ssh -N) is left: uninterruptible sleep',
    );
    const trouble = 'the tunnels: not over after 8000 ms';
    expect(tell({ ...end, tookMs: 8001, trouble })).to.equal(`stopped after 8.0 s; ${trouble}`);
  });

  it('says where it is reached, and where the token for that stands', () => {
    const ready = { type: 'daemon.ready', pid: 7, socket: '/run/s', tunnels: 1 } as const;
    expect(tell({ ...ready, url: null, tokenFile: null })).to.equal('ready  pid 7, 1 tunnel, API at /run/s');
    expect(tell({ ...ready, url: 'http://127.0.0.1:7420', tokenFile: '/state/token' })).to.equal(
      'ready  pid 7, 1 tunnel, API at /run/s and http://127.0.0.1:7420 (token in /state/token)',
    );
  });

  it('says who was not told that a tunnel waits for a person', () => {
    const message = 'http://h was not told, after 3 tries: it answered 500';
    const failed = {
      type: 'hook.failed',
      tunnel: 'a'.repeat(32),
      url: 'http://h',
      httpStatus: 500,
      tries: 3,
      message,
    } as const;
    expect(tell(failed)).to.equal(`aaaaaaaa  nobody was told  ${message}`);
  });

  it('says that there is no init, how many zombies there are, and what to do', () => {
    const missing = { type: 'init.missing', pid: 1, message: 'put one in front' } as const;
    expect(tell({ ...missing, zombies: 1 })).to.equal('no init  put one in front (1 zombie now)');
    expect(tell({ ...missing, zombies: 12 })).to.contain('(12 zombies now)');
  });

  it('says who waits for a person, since when, and what to type', () => {
    const status = fromWire(
      tunnelRecord({ state: 'stopped', reason: 'needs_auth', remedy: "it waits: 'tunward auth web'" }),
    ) as TunnelStatus;
    const need = { type: 'tunnel.needs_auth', tunnel: status.id, why: 'boot', status } as const;
    expect(tell(need)).to.equal("web  needs a person  it waits: 'tunward auth web'");
    expect(tell({ ...need, why: 'lost', status: { ...status, lastError: 'Connection reset' } })).to.equal(
      "web  needs a person  it was up and is lost (Connection reset); it waits: 'tunward auth web'",
    );
  });

  it('tells one that was stopped from one whose login has failed', () => {
    const status = fromWire(tunnelRecord({ state: 'stopped' })) as TunnelStatus;
    const stop = { type: 'tunnel.stopped', tunnel: status.id, from: 'stopping', asked: true } as const;
    expect(tell({ ...stop, status })).to.equal('web  stopped');
    expect(tell({ ...stop, status: { ...status, reason: 'needs_auth' } })).to.equal('web  stopped');
    const failed = { ...status, reason: 'auth_failed', lastError: 'Permission denied', remedy: 'try again' } as const;
    expect(tell({ ...stop, status: failed })).to.equal(
      'web  not up  auth_failed: Permission denied; given up; try again',
    );
  });
});
