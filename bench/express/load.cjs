'use strict';

// The load: autocannon, in a process of its own. node load.cjs RIVALS
//
// It says "ready", then answers every line of JSON { port, path, connections, seconds, sessions } with one of figures: requests
// per second and latencies in microseconds. Connections are kept alive; each asks with the cookies of its own part of the
// sessions, one after the other, so no two requests on one session are under way at once. An answer that is not 200 ends the
// bench: no session was found.

const { createHmac } = require('node:crypto');
const { createRequire } = require('node:module');
const { createInterface } = require('node:readline');

const { KEYS, idOf } = require('../shared/loops.cjs');

const autocannon = createRequire(process.argv[2] + '/package.json')('autocannon');
const SECRET = 'only for the bench'; // as in app.cjs
const known = {};
const ROOM = 1 << 20; // latencies that are kept

/** Signed as express-session does. Of more sessions than KEYS those that lie between are only held. */
function cookiesOf(sessions) {
  return Array.from({ length: KEYS }, (_, i) => {
    const id = idOf(i * Math.floor(sessions / KEYS));
    const signature = createHmac('sha256', SECRET).update(id).digest('base64').replace(/=+$/, '');
    return `connect.sid=${encodeURIComponent(`s:${id}.${signature}`)}`;
  });
}

async function run({ port, path, connections, seconds, sessions }) {
  const cookies = (known[sessions] ??= cookiesOf(sessions));
  const latencies = new Float64Array(ROOM);
  let count = 0;
  let next = 0;
  const setupClient = (client) => {
    const first = next++;
    const own = cookies.filter((_, i) => i % connections === first);
    client.setRequests(own.map((cookie) => ({ method: 'GET', path, headers: { cookie } })));
  };
  let start, last;
  // It is stopped at the first response after that time, which it sees within `sampleInt` milliseconds. Its own duration is for
  // an application that is dead.
  const options = { url: `http://127.0.0.1:${port}`, connections, duration: seconds + 60, sampleInt: 10, setupClient };
  const running = autocannon(options);
  running.on('response', (client, status, bytes, milliseconds) => {
    if (status !== 200) throw new Error(`the application answered ${status}`);
    last = performance.now();
    start ??= last; // before it autocannon has made its requests and its connections
    latencies[count++ & (ROOM - 1)] = milliseconds;
    if (last - start >= seconds * 1000) running.stop();
  });
  const { errors } = await running;
  if (errors !== 0 || count < 2) throw new Error(`${errors} requests failed, ${count} were answered`);
  const seen = latencies.subarray(0, Math.min(count, ROOM)).sort();
  const quantile = (q) => seen[Math.floor(seen.length * q)] * 1000;
  return { count, ops: ((count - 1) * 1000) / (last - start), p50: quantile(0.5), p99: quantile(0.99) };
}

async function main() {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await run(JSON.parse(line))));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
