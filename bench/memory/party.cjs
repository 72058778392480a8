'use strict';

// One party of the memory bench, in Node: node --expose-gc party.cjs (ops|fill) PARTY KEYS SECONDS
//
// ops   repeats get and set over KEYS keys for SECONDS each, in an order that is mixed once: awaited one by one, 256 at a time and,
//       where the party answers at once, without any await
// fill  puts KEYS sessions into an empty store, 100 and then a turn of the event loop, and so on
//
// One JSON object goes to standard output: figures by name, times in nanoseconds.

const session = require('express-session');

const DAY = 86400; // seconds: the ttl of everything, for those that know one
const CHUNK = 100;
const now = () => Number(process.hrtime.bigint());
const turn = () => new Promise((resolve) => setImmediate(resolve));

// What is kept. Of both kinds there is one for each key, 500 bytes of text, and every one is a fresh object or string.
const keyOf = (i) => 'session:' + String(i).padStart(32, '0');
const scratch = Buffer.alloc(500, 'v');
const textOf = (i) => {
  scratch.latin1Write(keyOf(i), 0);
  return scratch.latin1Slice(0, 500); // as it would come out of a parser: flat, and its own bytes
};
const sessionOf = (i) => ({
  cookie: new session.Cookie({ maxAge: DAY * 1000 }),
  user: { id: keyOf(i), name: 'Ada Lovelace', roles: ['reader', 'author'], verified: true },
  csrf: 'c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470',
  returnTo: '/account/orders?page=2&sort=date',
  flash: { info: ['Welcome back.'] },
  visits: 17,
  padding,
});
let padding = '';
padding = 'v'.repeat(500 - JSON.stringify(sessionOf(0)).length);

// The callback API of express-session, which is what its middleware calls, made awaitable.
const expressStore = (store) => ({
  make: sessionOf,
  get: (key) => new Promise((resolve, reject) => store.get(key, (error, value) => (error ? reject(error) : resolve(value)))),
  set: (key, value) => new Promise((resolve, reject) => store.set(key, value, (error) => (error ? reject(error) : resolve()))),
});
const own = (store) => async () => (await store.stats()).bytes;

const parties = {
  'counterfoil-session': () => {
    const store = require('counterfoil').open('memory:', { ttl: DAY });
    return { ...expressStore(new (require('counterfoil/express-session').CounterfoilStore)({ store })), own: own(store) };
  },
  MemoryStore: () => expressStore(new session.MemoryStore()),
  memorystore: () => expressStore(new (require('memorystore')(session))({ checkPeriod: DAY * 1000 })),
  'Map-json': () => {
    const map = new Map();
    return {
      make: sessionOf,
      atOnce: true,
      get: (key) => JSON.parse(map.get(key)),
      set: (key, value) => map.set(key, JSON.stringify(value)),
    };
  },
  counterfoil: () => {
    const store = require('counterfoil').open('memory:', { ttl: DAY });
    return { make: textOf, get: (key) => store.get(key), set: (key, value) => store.set(key, value), own: own(store) };
  },
  Map: () => {
    const map = new Map();
    return { make: textOf, atOnce: true, get: (key) => map.get(key), set: (key, value) => map.set(key, value) };
  },
};

const manners = {
  async one(act, order) {
    for (const i of order) await act(i);
  },
  async many(act, order) {
    for (let start = 0; start < order.length; start += 256) {
      const flying = [];
      for (let at = start; at < start + 256 && at < order.length; at++) flying.push(act(order[at]));
      await Promise.all(flying);
    }
  },
  async plain(act, order) {
    for (const i of order) act(i);
  },
};

// Passes over all keys until `seconds` of them have been measured.
async function measure(manner, act, order, seconds) {
  let spent = 0;
  let cpu = 0;
  let count = 0;
  for (let pass = 0; pass < 5 || spent < seconds * 1e9; pass++) {
    const wallBefore = now();
    const cpuBefore = process.cpuUsage();
    await manner(act, order);
    if (pass < 2) continue; // warm-up
    spent += now() - wallBefore;
    const used = process.cpuUsage(cpuBefore); // all threads: the garbage collector's helpers too
    cpu += (used.user + used.system) * 1000;
    count += order.length;
  }
  return [spent / count, cpu / count];
}

async function ops(party, count, seconds) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let seed = 12345; // the same order in every run and host
  for (let i = 0; i < count; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed * (i + 1)) / 2 ** 32);
    order[i] = order[j];
    order[j] = i;
  }
  const keys = Array.from(order.keys(), keyOf);
  const values = Array.from(order.keys(), party.make);
  const acts = { set: (i) => party.set(keys[i], values[i]), get: (i) => party.get(keys[i]) };
  const figures = {};
  for (const manner of party.atOnce ? ['one', 'many', 'plain'] : ['one', 'many'])
    for (const [name, act] of Object.entries(acts)) {
      const [wall, cpu] = await measure(manners[manner], act, order, seconds);
      figures[`${name}_${manner}`] = wall;
      figures[`${name}_${manner}_cpu`] = cpu;
    }
  const [expected, found] = [values[order[0]], await party.get(keys[order[0]])];
  if (JSON.stringify(found) !== JSON.stringify(expected)) throw new Error('what was read is not what was written');
  return figures;
}

async function fill(party, count) {
  global.gc();
  const before = process.memoryUsage().rss;
  const start = now();
  let longest = 0;
  let last = start;
  for (let i = 0; i < count; ) {
    const flying = [];
    for (let end = Math.min(i + CHUNK, count); i < end; i++) flying.push(party.set(keyOf(i), party.make(i)));
    await Promise.all(flying);
    await turn();
    const at = now();
    longest = Math.max(longest, at - last);
    last = at;
  }
  const figures = { insert: (last - start) / count, stall: longest };
  const collect = now();
  global.gc();
  figures.gc = now() - collect;
  figures.rss = (process.memoryUsage().rss - before) / count;
  if (party.own) figures.own = (await party.own()) / count;
  if ((await party.get(keyOf(count - 1))) === undefined) throw new Error('the last session is not there');
  return figures;
}

async function main([what, name, count, seconds]) {
  let figures;
  if (what === 'fill') {
    await fill(parties[name](), 2000); // warm-up, in a store of its own
    figures = await fill(parties[name](), Number(count));
  } else figures = await ops(parties[name](), Number(count), Number(seconds));
  console.log(JSON.stringify(figures));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
