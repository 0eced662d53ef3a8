// Loaded before a daemon (`node --import`): writes into its ledger the number that only its own process can know.
// TUNWARD_FORGE is the file and the text, `@pid@`, `@ppid@` and so on in place of what is not known before.
import { readFileSync, writeFileSync } from 'node:fs';

const { file, text } = JSON.parse(process.env.TUNWARD_FORGE);
const known = {
  pid: process.pid,
  ppid: process.ppid,
  start: startTicks(process.pid),
  parent_start: startTicks(process.ppid),
};
writeFileSync(
  file,
  text.replace(/@(\w+)@/g, (_, name) => String(known[name])),
  { mode: 0o600 },
);

function startTicks(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}
