/**
 * Tunnels inside a web application of your own: they start with it and end with it, a route shows them, another one restarts
 * one. With Express 5 (`npm i express`); nothing here but the routes is Express.
 *
 *   node examples/express-app.ts tunward.yaml 3000
 *
 * (Node 24 or later, for `await using`; `npm test` compiles it for older ones.)
 *
 * Whoever may ask for these routes may restart your tunnels: here that is this machine.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import express, { type NextFunction, type Request, type Response } from 'express';
import { createSupervisor, errorCodes, isTunwardError, loadConfig } from 'tunward';

const [file, port = '3000'] = process.argv.slice(2);
const { tunnels } = await loadConfig({ file });
await using supervisor = createSupervisor({ env: process.env });
await supervisor.reconcile(tunnels); // they start; nobody waits for them here

const app = express();
app.get('/tunnels', (_request, response) => {
  response.json(supervisor.list().map(({ name, state, reason, restarts }) => ({ name, state, reason, restarts })));
});
app.post('/tunnels/:name/restart', async (request, response) => {
  const { name, state, tookMs } = await supervisor.restart(request.params.name);
  response.json({ name, state, tookMs });
});
// The errors of tunward have a code, and a status for each.
app.use((error: unknown, _request: Request, response: Response, next: NextFunction) => {
  if (!isTunwardError(error)) return next(error);
  const { code, message } = error;
  response.status(errorCodes[code].status).json({ code, message });
});

const server = app.listen(Number(port), '127.0.0.1');
await once(server, 'listening');
console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
await new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve));
server.close();
server.closeAllConnections();
// The end of the file closes the supervisor, which takes every tunnel down.
