'use strict';

// The loops of a party in Node, and what it answers.
//
// It says "ready", then answers every line "OP IN_FLIGHT SECONDS" with one line of JSON: operations per second, microseconds of
// CPU of the whole process per operation, and the latencies (microseconds) that one of the loops has seen. IN_FLIGHT loops each
// do one operation, await it, do the next one.

const { createInterface } = require('node:readline');
const { monitorEventLoopDelay } = require('node:perf_hooks');

const KEYS = 10_000;
const DAY = 86400; // seconds: the ttl of every session. What is no session has none.

// Of both kinds there is one for each key, 500 bytes of JSON, and every one is a fresh object or string.
const idOf = (i) => String(i).padStart(32, '0');
const keyOf = (i) => 'sess:' + idOf(i);

/** `Cookie`: express-session's. */
function sessions(Cookie) {
  let padding = '';
  const sessionOf = (i) => ({
    cookie: new Cookie({ maxAge: DAY * 1000 }),
    user: { id: keyOf(i), name: 'Ada Lovelace', roles: ['reader', 'author'], verified: true },
    csrf: 'c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470',
    returnTo: '/account/orders?page=2&sort=date',
    flash: { info: ['Welcome back.'] },
    visits: 17,
    padding,
  });
  padding = 'v'.repeat(500 - JSON.stringify(sessionOf(0)).length);
  // As it would come out of a parser: flat, and its own bytes.
  const textOf = (i) => Buffer.from(JSON.stringify(sessionOf(i))).latin1Slice();
  return { sessionOf, textOf };
}

/** A party of strings: get(key) and set(key, value), awaitable. */
function ofTexts(client, textOf) {
  const keys = Array.from({ length: KEYS }, (_, i) => keyOf(i));
  const values = Array.from({ length: KEYS }, (_, i) => textOf(i));
  return {
    get: (i) => client.get(keys[i]),
    set: (i) => client.set(keys[i], values[i]),
    holder: (text) => JSON.parse(text).user.id,
  };
}

/** The callback API of express-session, which is what its middleware calls, made awaitable. */
function ofSessions(store, sessionOf) {
  const ids = Array.from({ length: KEYS }, (_, i) => idOf(i));
  const values = Array.from({ length: KEYS }, (_, i) => sessionOf(i));
  return {
    get: (i) => new Promise((resolve, reject) => store.get(ids[i], (error, value) => (error ? reject(error) : resolve(value)))),
    set: (i) => new Promise((resolve, reject) => store.set(ids[i], values[i], (error) => (error ? reject(error) : resolve()))),
    holder: (value) => value.user.id,
  };
}

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

/** One promise for all who wait for the next turn of the event loop. */
let next;
const turn = () =>
  (next ??= new Promise((resolve) =>
    setImmediate(() => {
      next = undefined;
      resolve();
    }),
  ));

async function loop(act, order, first, step, run) {
  let at = first;
  let count = 0;
  while (!run.over) {
    await act(order[at]);
    if (run.turns) await turn();
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
    if (run.turns) await turn();
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

async function measure(act, order, inFlight, seconds, turns) {
  const run = { over: false, turns, count: 0, sampled: 0, latencies: new Float64Array(1 << 18) };
  const delay = turns ? monitorEventLoopDelay({ resolution: 1 }) : undefined;
  delay?.enable();
  const start = performance.now();
  const before = process.cpuUsage();
  const loops = [timedLoop(act, order, 0, inFlight, run, seconds)];
  for (let n = 1; n < inFlight; n++) loops.push(loop(act, order, n, inFlight, run));
  await Promise.all(loops);
  const used = process.cpuUsage(before); // all threads: the garbage collector's helpers and a client's own
  const wall = performance.now() - start;
  delay?.disable();
  const seen = run.latencies.subarray(0, run.sampled).sort();
  const quantile = (q) => seen[Math.floor(seen.length * q)] * 1000;
  const [ops, cpu] = [(run.count * 1000) / wall, (used.user + used.system) / run.count];
  const figures = { ops, cpu, p50: quantile(0.5), p99: quantile(0.99) };
  // What a timer of a millisecond takes longer than that. In a run of few and long turns it has never been called.
  if (delay) figures.delay = Math.max(0, (delay.count ? delay.percentile(99) / 1000 : wall * 1000) - 1000);
  return figures;
}

/**
 * `party`: get(i), set(i), and holder(value) that says whose the value is. With `turns` every loop waits for the next turn of
 * the event loop after each operation, as a request does that came by it, and the event loop's delay is a figure too.
 */
async function serve(party, turns = false) {
  const order = mixed();
  const writes = order.map((_, at) => (at * 37) % 100 < 20); // every fifth, spread over the order
  const writeOf = new Array(KEYS);
  order.forEach((i, at) => (writeOf[i] = writes[at]));
  const acts = { get: party.get, set: party.set, mix: (i) => (writeOf[i] ? party.set(i) : party.get(i)) };
  // Until what is called often has been compiled.
  for (const act of Object.values(acts)) await measure(act, order, 16, 0.4, turns);
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [op, inFlight, seconds] = line.split(' ');
    await measure(acts[op], order, Number(inFlight), seconds / 2, turns); // warm-up
    const figures = await measure(acts[op], order, Number(inFlight), Number(seconds), turns);
    for (const i of [order[0], order[KEYS - 1]]) {
      if (party.holder(await party.get(i)) !== keyOf(i)) throw new Error('what was read is not what was written');
    }
    console.log(JSON.stringify(figures));
  }
  process.exit(0);
}

module.exports = { KEYS, DAY, idOf, keyOf, sessions, ofTexts, ofSessions, serve, fail };
