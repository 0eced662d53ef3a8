import { expect } from 'chai';
import type { Reason } from '#lib/tunnel/engine.js';
import { classifyExit } from '#lib/tunnel/reason.js';

/** What OpenSSH says, glibc and musl wording, and the line that should be shown for it (a part of it, or the last one). */
const said: readonly (readonly [Reason, readonly string[], string?])[] = [
  [
    'local_port_busy',
    [
      'bind [127.0.0.1]:9443: Address already in use',
      'channel_setup_fwd_listener_tcpip: cannot listen to port: 9443',
      'Could not request local forwarding.',
    ],
    'bind [127.0.0.1]:9443: Address already in use',
  ],
  ['local_port_busy', ['bind [127.0.0.1]:9443: Address in use'], 'Address in use'],
  [
    'exited',
    [
      'bind [10.9.9.9]:3999: Cannot assign requested address',
      'channel_setup_fwd_listener_tcpip: cannot listen to port: 3999',
      'Could not request local forwarding.',
    ],
    'bind [10.9.9.9]:3999: Cannot assign requested address',
  ],
  ['exited', ['bind [10.9.9.9]:3999: Address not available', 'Could not request local forwarding.'], 'not available'],
  ['exited', ['bind [127.0.0.1]:80: Permission denied', 'Could not request local forwarding.'], 'Permission denied'],
  ['exited', ['Privileged ports can only be forwarded by root.']],
  // A jump host that cannot go on.
  [
    'refused',
    [
      'channel 0: open failed: connect failed: Connection refused',
      'stdio forwarding failed',
      'Connection closed by UNKNOWN port 65535',
    ],
    'channel 0: open failed: connect failed: Connection refused',
  ],
  [
    'refused',
    ['channel 0: open failed: administratively prohibited: open failed', 'stdio forwarding failed'],
    'administratively prohibited',
  ],
  [
    'unreachable',
    [
      'channel 0: open failed: connect failed: Temporary failure in name resolution',
      'stdio forwarding failed',
      'Connection closed by UNKNOWN port 65535',
    ],
    'Temporary failure in name resolution',
  ],
  ['timeout', ['channel 0: open failed: connect failed: Connection timed out', 'stdio forwarding failed'], 'timed out'],
  ['remote_port_busy', ['Error: remote port forwarding failed for listen port 9888']],
  ['auth_failed', ['root@db: Permission denied (publickey,keyboard-interactive).']],
  [
    'auth_failed',
    ['Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures', 'Disconnected from 10.0.0.1'],
    'Too many authentication failures',
  ],
  [
    'auth_failed',
    ['Load key "/k": error in libcrypto', 'root@db: Permission denied (publickey).'],
    'Load key "/k": error in libcrypto; root@db: Permission denied (publickey).',
  ],
  [
    'auth_failed',
    ['Warning: Identity file /k not accessible: No such file or directory.', 'root@db: Permission denied (publickey).'],
    'Warning: Identity file /k not accessible',
  ],
  [
    'needs_auth',
    ['Load key "/k": incorrect passphrase supplied to decrypt private key', 'a@b: Permission denied (publickey).'],
    'incorrect passphrase',
  ],
  [
    'host_key_changed',
    [
      '@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@',
      '@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @',
      'Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.',
      'Host key verification failed.',
    ],
    'Host key for [127.0.0.1]:2222 has changed',
  ],
  [
    'host_key_changed',
    [
      'Add correct host key in /home/u/.ssh/known_hosts to get rid of this message.',
      'Offending ED25519 key in /home/u/.ssh/known_hosts:7',
      'Host key for web has changed and you have requested strict checking.',
    ],
    'Host key for web has changed and you have requested strict checking; Offending ED25519 key in /home/u/.ssh/known_hosts:7',
  ],
  ['host_key_changed', ['@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @'], 'HAS CHANGED'],
  [
    'host_key_unknown',
    [
      'No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.',
      'Host key verification failed.',
    ],
    'No ED25519 host key is known',
  ],
  ['bad_spec', ['command-line: line 0: Bad configuration option: bogus']],
  [
    'bad_spec',
    ['cfg: line 2: Bad configuration option: bogus', 'cfg: terminating, 1 bad configuration options'],
    'bogus',
  ],
  ['bad_spec', ["cfg line 2: Bad port 'abc'.", 'cfg: terminating, 1 bad configuration options'], "Bad port 'abc'"],
  ['bad_spec', ["Can't open user config file /nowhere: No such file or directory"]],
  ['bad_spec', ["Bad local forwarding specification 'x'"]],
  ['bad_spec', ['Bad owner or permissions on /home/u/.ssh/config']],
  ['bad_spec', ['hostname contains invalid characters']],
  ['exited', ['/etc/ssh/ssh_config line 53: Unsupported option "gssapiauthentication"']],
  ['exited', ['command-line line 0: Deprecated option "useroaming"']],
  ['timeout', ['ssh: connect to host 10.0.0.1 port 22: Connection timed out']],
  ['timeout', ['ssh: connect to host 10.0.0.1 port 22: Operation timed out']],
  ['timeout', ['Connection timed out during banner exchange', 'Connection to 10.0.0.1 port 22 timed out'], 'banner'],
  ['timeout', ['Timeout, server db not responding.']],
  ['refused', ['ssh: connect to host db port 22: Connection refused']],
  [
    'refused',
    ['kex_exchange_identification: read: Connection reset by peer', 'Connection reset by 10.0.0.1 port 22'],
    'reset',
  ],
  ['refused', ['kex_exchange_identification: Connection closed by remote host']],
  ['refused', ['Connection closed by 10.0.0.1 port 22']],
  ['refused', ['Not allowed at this time']],
  ['unreachable', ['ssh: Could not resolve hostname db: Name or service not known']],
  ['unreachable', ['ssh: Could not resolve hostname db: Name does not resolve']],
  ['unreachable', ['ssh: Could not resolve hostname db: Temporary failure in name resolution']],
  ['unreachable', ['ssh: connect to host db port 22: No route to host']],
  ['unreachable', ['ssh: connect to host db port 22: Host is unreachable']],
  ['unreachable', ['ssh: connect to host db port 22: Network is unreachable']],
  ['unreachable', ['ssh: connect to host db port 22: Network unreachable']],
  // A connection that had been up is lost; the server did not refuse one.
  ['exited', ['client_loop: send disconnect: Connection reset by peer']],
  ['exited', ['Read from remote host db: Connection reset by peer']],
  ['exited', ['client_loop: send disconnect: Broken pipe']],
  ['exited', ['Connection to db closed by remote host.']],
  ['killed', ['Killed by signal 15.']],
];

describe('classifyExit()', () => {
  for (const [reason, lines, shown = lines.at(-1)] of said) {
    it(`is ${reason} for '${lines[0]}'`, () => {
      const exit = classifyExit(lines, { code: 255, signal: null });
      expect(exit).to.include({ code: 255, signal: null, reason });
      expect(exit.lastError).to.include(shown);
    });
  }

  it('leaves out what became of the connections through it', () => {
    const lines = [
      'connect_to localhost port 80: failed.',
      'channel 2: open failed: connect failed: Connection refused',
    ];
    expect(classifyExit(lines, { code: 255, signal: null })).to.include({ reason: 'exited', lastError: null });
  });

  it('is killed for a signal, whatever was said before', () => {
    const exit = classifyExit(['Timeout, server db not responding.'], { code: null, signal: 'SIGKILL' });
    expect(exit).to.deep.equal({
      code: null,
      signal: 'SIGKILL',
      reason: 'killed',
      lastError: 'Timeout, server db not responding.',
    });
  });

  it('does not blame a key that was passed over, when nobody was denied', () => {
    const lines = ['Load key "/k": error in libcrypto', 'Timeout, server db not responding.'];
    expect(classifyExit(lines, { code: 255, signal: null }).reason).to.equal('timeout');
  });

  it('has nothing to say of silence', () => {
    expect(classifyExit([], { code: 0, signal: null })).to.deep.equal({
      code: 0,
      signal: null,
      reason: 'exited',
      lastError: null,
    });
  });
});
