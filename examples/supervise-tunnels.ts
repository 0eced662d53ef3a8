/**
 * Keeps the tunnels of a configuration file up inside a program of your own, without the daemon: what happens is handed
 * to you as data, a restart is one call, and the end of the block takes every chain down.
 *
 *   node examples/supervise-tunnels.ts tunward.yaml
 *
 * (Node 24 or later, for `await using`; `npm test` compiles it for older ones.)
 */
import { createSupervisor, loadConfig, type SupervisorEvent } from 'tunward';

const config = await loadConfig({ file: process.argv[2] });
await using supervisor = createSupervisor({ env: process.env, publish });
await supervisor.reconcile(config.tunnels);

for (const { id } of config.tunnels) {
  const started = await supervisor.start(id); // joins the start that is under way
  console.log(`${started.name} is ${started.state}`);
  const { phases, kill } = await supervisor.restart(id);
  console.log(`${started.name} restarted: ${kill.killed.length} killed`, phases);
}

function publish(event: SupervisorEvent): void {
  if (event.type === 'tunnel.backoff') console.log(`${event.status.name} waits: ${event.status.lastError}`);
}
