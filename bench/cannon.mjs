/* autocannon for api.mjs, in a process of its own: its options as JSON in, its result as JSON out. */
import autocannon from 'autocannon';

const options = JSON.parse(process.argv[2]);

/**
 * It makes text of every body, for whoever wants to look at one. Of what is compressed, and so no text, that takes it a
 * millisecond each: then it is the client that is measured.
 */
function setupClient(client) {
  client.pipelinedRequests.addBody = () => undefined;
}

process.stdout.write(JSON.stringify(await autocannon({ ...options, setupClient })));
