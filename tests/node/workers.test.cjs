'use strict';

// Worker threads: terminated at random moments, sharing memory:NAME, and ending in their own ways.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { once } = require('node:events');
const { Worker } = require('node:worker_threads');
const { open } = require('counterfoil');
const { seed, random } = require('./support/random.cjs');

/** Runs a piece of CommonJS in a worker; what it posts, and how it ended. */
async function inWorker(code, workerData) {
  const worker = new Worker(`const { open } = require(${JSON.stringify(require.resolve('counterfoil'))}); const { parentPort, workerData } = require('node:worker_threads'); ${code}`, { eval: true, workerData });
  const messages = [];
  let error;
  worker.on('message', (message) => messages.push(message));
  worker.on('error', (thrown) => { error = thrown; });
  const exit = await new Promise((resolve) => worker.on('exit', resolve)); // events.once would stop at the error
  return { messages, error, exit };
}

test('terminate, 1,000 times, at random moments, with operations in flight', async (t) => {
  t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
  const rounds = Number(process.env.COUNTERFOIL_TERMINATIONS ?? 1000);
  const file = path.join(__dirname, 'support', 'terminated.cjs');
  const shared = open('memory:terminated');
  await shared.set('mine', 'still here');
  let started = 0;
  const one = async () => {
    while (started < rounds) {
      started++;
      const worker = new Worker(file, { workerData: { timeout: (1 + random(50)) / 1000 } });
      const failed = new Promise((_, reject) => worker.once('error', reject));
      failed.catch(() => {});
      // Mostly while it works; sometimes while it still loads.
      if (random(4) > 0) await Promise.race([once(worker, 'online'), failed]);
      await new Promise((resolve) => setTimeout(resolve, random(25)));
      await Promise.race([worker.terminate(), failed]);
    }
  };
  await Promise.all([one(), one(), one(), one()]);
  assert.equal(await shared.get('mine'), 'still here');
  assert.equal((await shared.stats()).pending, 0);
  await shared.close();
});

// JavaScript that is being ended goes on for a moment in which Node-API refuses what it is asked for: that must not look like an answer.
test('worker.terminate: what a thread took for done in its last moments was done', async () => {
  const rounds = 40, warm = 20000; // by then its loop is compiled as one piece, which is not ended in the middle
  const acknowledged = new Int32Array(new SharedArrayBuffer(4 * rounds)), missed = new Int32Array(new SharedArrayBuffer(4 * rounds));
  const store = open('memory:last-moments');
  const code = `(async () => {
    const store = open('memory:last-moments'), { n, acknowledged, missed } = workerData;
    for (let i = 1; ; i++) {
      await store.set('w' + n, String(i));
      Atomics.store(acknowledged, n, i);
      if ((await store.get('w' + n)) === undefined) Atomics.store(missed, n, i);
    }
  })();`;
  for (let n = 0; n < rounds; n++) {
    const worker = new Worker(`const { open } = require(${JSON.stringify(require.resolve('counterfoil'))}); const { workerData } = require('node:worker_threads'); ${code}`, { eval: true, workerData: { n, acknowledged, missed } });
    const failed = once(worker, 'error').then(([error]) => { throw error; });
    failed.catch(() => {});
    while (Atomics.load(acknowledged, n) < warm) await Promise.race([new Promise((resolve) => setTimeout(resolve, 1)), failed]);
    await worker.terminate();
    const there = Number(await store.get(`w${n}`));
    assert(there >= acknowledged[n], `thread ${n} has set ${acknowledged[n]}, and the store has ${there}`);
    assert.equal(missed[n], 0, `thread ${n} did not find what it had set`);
  }
  await store.close();
});

test('memory:NAME is one for all workers: every pop has one winner', async () => {
  const keys = 50000, threads = 4;
  const store = open('memory:pops');
  for (let i = 0; i < keys; i++) await store.set(`k${i}`, String(i));
  const wins = new Int32Array(new SharedArrayBuffer(4 * keys));
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const code = `(async () => {
    const store = open('memory:pops'), { wins, gate, keys, n } = workerData;
    Atomics.add(gate, 0, 1);
    while (Atomics.load(gate, 0) < ${threads}) await new Promise((resolve) => setTimeout(resolve, 1));
    for (let i = 0; i < keys; i++) {
      const k = n % 2 === 0 ? i : keys - 1 - i;
      const value = await store.pop('k' + k);
      if (value !== undefined) { if (value !== String(k)) throw new Error('the wrong value'); Atomics.add(wins, k, 1); }
    }
    await store.close();
  })();`;
  const ends = await Promise.all(Array.from({ length: threads }, (_, n) => inWorker(code, { wins, gate, keys, n })));
  for (const end of ends) assert.deepEqual([end.error, end.exit], [undefined, 0]);
  assert(wins.every((count) => count === 1));
  assert.equal(await store.count(), 0);
  await store.close();
});

test('what one worker leaves in memory:NAME outlives it while somebody has it open', async () => {
  const store = open('memory:outlives');
  const end = await inWorker(`open('memory:outlives').set('a', 'from a worker');`);
  assert.equal(end.exit, 0);
  assert.equal(await store.get('a'), 'from a worker');
  await store.close();
  assert.equal(await open('memory:outlives').get('a'), undefined);
});

test('a worker ends by itself while a store is open and idle, and not before its operation', async () => {
  const idle = await inWorker(`open('memory:'); parentPort.postMessage('ran');`);
  assert.deepEqual(idle, { messages: ['ran'], error: undefined, exit: 0 });
  const pending = await inWorker(`open({ get: () => new Promise(() => {}), set() {}, delete() {} }, { timeout: 0.05 }).get('a').catch((error) => parentPort.postMessage(error.code));`);
  assert.deepEqual(pending, { messages: ['TIMEOUT'], error: undefined, exit: 0 });
});

test('process.exit and exceptions in a worker, from within a backend too', async () => {
  const backend = (get) => `const store = open({ get() { ${get} }, set() {}, delete() {} }); store.get('a')`;
  assert.equal((await inWorker(`open({ get: () => new Promise(() => {}), set() {}, delete() {} }).get('a'); process.exit(7);`)).exit, 7);
  assert.equal((await inWorker(`${backend('process.exit(8);')}; for (;;);`)).exit, 8);
  const thrown = await inWorker(`open({ get: () => new Promise(() => {}), set() {}, delete() {} }).get('a'); throw new Error('mine');`);
  assert.equal(thrown.error.message, 'mine');
  assert.equal(thrown.exit, 1);
  const rejected = await inWorker(`${backend(`throw new Error('not caught')`)};`);
  assert.equal(rejected.error.message, 'not caught');
});
