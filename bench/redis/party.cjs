'use strict';

// One party of the redis bench, in Node: node party.cjs PORT RIVALS (raw|session) PARTY
//
// Says "ready", then answers every line "OP IN_FLIGHT SECONDS" with one line of JSON: operations per second, microseconds of CPU
// of the whole process per operation, and the latencies (microseconds) that one of the loops has seen. IN_FLIGHT loops each do
// one operation, await it, do the next one. RIVALS is the folder whose node_modules has the others.

const { createRequire } = require('node:module');
const { createInterface } = require('node:readline');

const [port, folder, kind, name] = process.argv.slice(2);
const rival = createRequire(folder + '/package.json');
const session = rival('express-session');

const KEYS = 10_000;
const DAY = 86400; // seconds: the ttl of every session. What is no session has none.
const host = '127.0.0.1';

// Of both kinds there is one for each key, 500 bytes of JSON, and every one is a fresh object or string.
const idOf = (i) => String(i).padStart(32, '0');
const sessionOf = (i) => ({
  cookie: new session.Cookie({ maxAge: DAY * 1000 }),
  user: { id: 'sess:' + idOf(i), name: 'Ada Lovelace', roles: ['reader', 'author'], verified: true },
  csrf: 'c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470',
  returnTo: '/account/orders?page=2&sort=date',
  flash: { info: ['Welcome back.'] },
  visits: 17,
  padding,
});
let padding = '';
padding = 'v'.repeat(500 - JSON.stringify(sessionOf(0)).length);
// As it would come out of a parser: flat, and its own bytes.
const textOf = (i) => Buffer.from(JSON.stringify(sessionOf(i))).latin1Slice();

const clients = {
  counterfoil: async () => require('../..').open(`redis://${host}:${port}/`),
  'node-redis': async () => {
    const client = rival('redis').createClient({ url: `redis://${host}:${port}` });
    client.on('error', fail);
    return client.connect();
  },
  ioredis: async (options) => {
    const client = new (rival('ioredis').Redis)({ host, port: Number(port), ...options });
    client.on('error', fail);
    await client.ping();
    return client;
  },
  'ioredis-auto': () => clients.ioredis({ enableAutoPipelining: true }),
  'valkey-glide': () => {
    const { GlideClient } = rival('@valkey/valkey-glide');
    // It would give up after 250 ms.
    return GlideClient.createClient({ addresses: [{ host, port: Number(port) }], requestTimeout: 100_000 });
  },
};

// connect-redis, for the clients that it does not speak to: the same steps, with the client's own way to say SET ... EX.
class JsonStore extends session.Store {
  constructor(client, setEx) {
    super();
    this.client = client;
    this.setEx = setEx;
  }

  async get(sid, callback) {
    try {
      const data = await this.client.get('sess:' + sid);
      return callback(null, data ? JSON.parse(data) : null);
    } catch (error) {
      return callback(error);
    }
  }

  async set(sid, value, callback) {
    try {
      const ttl = Math.ceil((Number(new Date(value.cookie.expires)) - Date.now()) / 1000);
      await this.setEx(this.client, 'sess:' + sid, JSON.stringify(value), ttl);
      return callback(null);
    } catch (error) {
      return callback(error);
    }
  }
}
const ex = (client, key, value, ttl) => client.set(key, value, 'EX', ttl);
const glideEx = (client, key, value, count) => client.set(key, value, { expiry: { type: 'EX', count } });

const stores = {
  counterfoil: async () => {
    const { CounterfoilStore } = require('../../node/adapters/express-session.cjs');
    return new CounterfoilStore({ store: await clients.counterfoil() });
  },
  'connect-redis': async () => new (rival('connect-redis').RedisStore)({ client: await clients['node-redis']() }),
  ioredis: async () => new JsonStore(await clients.ioredis(), ex),
  'ioredis-auto': async () => new JsonStore(await clients['ioredis-auto'](), ex),
  'valkey-glide': async () => new JsonStore(await clients['valkey-glide'](), glideEx),
};

const kinds = {
  async raw() {
    const client = await clients[name]();
    const keys = Array.from({ length: KEYS }, (_, i) => 'sess:' + idOf(i));
    const values = Array.from({ length: KEYS }, (_, i) => textOf(i));
    return {
      get: (i) => client.get(keys[i]),
      set: (i) => client.set(keys[i], values[i]),
      holder: (text) => JSON.parse(text).user.id,
    };
  },
  // The callback API of express-session, which is what its middleware calls, made awaitable.
  async session() {
    const store = await stores[name]();
    const ids = Array.from({ length: KEYS }, (_, i) => idOf(i));
    const values = Array.from({ length: KEYS }, (_, i) => sessionOf(i));
    return {
      get: (i) => new Promise((resolve, reject) => store.get(ids[i], (error, value) => (error ? reject(error) : resolve(value)))),
      set: (i) => new Promise((resolve, reject) => store.set(ids[i], values[i], (error) => (error ? reject(error) : resolve()))),
      holder: (value) => value.user.id,
    };
  },
};

function fail(error) {
  console.error(error);
  process.exit(1);
}

function mixed() {
  const order = Array.from({ length: KEYS }, (_, i) => i);
  let seed = 12345; // the same order in every run and host
  for (let i = 0; i < KEYS; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed * (i + 1)) / 2 ** 32);
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

async function loop(act, order, first, step, run) {
  let at = first;
  let count = 0;
  while (!run.over) {
    await act(order[at]);
    count++;
    at += step;
    if (at >= KEYS) at = first;
  }
  run.count += count;
}

// The same, with a look at the clock after every operation; it ends the run.
async function timedLoop(act, order, first, step, run, seconds) {
  let last = performance.now();
  const end = last + seconds * 1000;
  let at = first;
  let count = 0;
  while (last < end) {
    await act(order[at]);
    const now = performance.now();
    if (count < run.latencies.length) run.latencies[count] = now - last;
    last = now;
    count++;
    at += step;
    if (at >= KEYS) at = first;
  }
  run.over = true;
  run.count += count;
  run.sampled = Math.min(count, run.latencies.length);
}

async function measure(act, order, inFlight, seconds) {
  const run = { over: false, count: 0, sampled: 0, latencies: new Float64Array(1 << 18) };
  const start = performance.now();
  const before = process.cpuUsage();
  const loops = [timedLoop(act, order, 0, inFlight, run, seconds)];
  for (let n = 1; n < inFlight; n++) loops.push(loop(act, order, n, inFlight, run));
  await Promise.all(loops);
  const used = process.cpuUsage(before); // all threads: the garbage collector's helpers and a client's own
  const wall = performance.now() - start;
  const seen = run.latencies.subarray(0, run.sampled).sort();
  const quantile = (q) => seen[Math.floor(seen.length * q)] * 1000;
  return { ops: (run.count * 1000) / wall, cpu: (used.user + used.system) / run.count, p50: quantile(0.5), p99: quantile(0.99) };
}

async function main() {
  const party = await kinds[kind]();
  const order = mixed();
  const writes = order.map((_, at) => (at * 37) % 100 < 20); // every fifth, spread over the order
  const writeOf = new Array(KEYS);
  order.forEach((i, at) => (writeOf[i] = writes[at]));
  const acts = { get: party.get, set: party.set, mix: (i) => (writeOf[i] ? party.set(i) : party.get(i)) };
  for (const act of Object.values(acts)) await measure(act, order, 16, 0.4); // until what is called often has been compiled
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [op, inFlight, seconds] = line.split(' ');
    await measure(acts[op], order, Number(inFlight), seconds / 2); // warm-up
    const figures = await measure(acts[op], order, Number(inFlight), Number(seconds));
    for (const i of [order[0], order[KEYS - 1]]) {
      if (party.holder(await party.get(i)) !== 'sess:' + idOf(i)) throw new Error('what was read is not what was written');
    }
    console.log(JSON.stringify(figures));
  }
  process.exit(0);
}

main().catch(fail);
