#!/bin/bash
# What people run today to restart a tunnel, as the peer of restart.mjs: kill on suspicion, sleep, poll a table, start.
# In: BENCH_ID, BENCH_LISTEN (host:port), BENCH_TARGET (host:port), BENCH_HOST, BENCH_CONFIG (of ssh), BENCH_LOG: variables,
# since `pkill -f` would find them among the words of this command line. Out: `begin`, then `clean` when the port is thought free.

# Whoever looks like the tunnel dies here, whoever it is. So: only where nobody lives but the bench.
if ! tr '\0' '\n' < /proc/1/cmdline | grep -qx tunward-bench-init; then
  echo 'refused: not in the PID namespace of the bench' >&2
  exit 2
fi

kill_suspects() {
  pkill -9 -f "TUNNEL_ID=$BENCH_ID"
  lsof -ti ":$port" | xargs -r kill -9
  pkill -9 -f "ssh.*$BENCH_HOST\$"
}

wait_for_table() {
  for _ in 1 2 3; do
    netstat -tuln | grep -q ":$port " || return 0
    sleep 1
  done
}

start_tunnel() {
  : > "$BENCH_LOG"
  TUNNEL_ID=$BENCH_ID AUTOSSH_GATETIME=0 \
    autossh -M 0 -F "$BENCH_CONFIG" -N -o ExitOnForwardFailure=yes -L "$BENCH_LISTEN:$BENCH_TARGET" "$BENCH_HOST" \
    < /dev/null >> "$BENCH_LOG" 2>&1 &
}

echo begin
port=${BENCH_LISTEN##*:}
kill_suspects 2> /dev/null
sleep 2
wait_for_table
echo clean
start_tunnel
