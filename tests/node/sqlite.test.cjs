'use strict';

// What is SQLite's own: a file that outlives its process, that threads and processes share, that others lock, and that Python reads; the event loop
// that no commit stops; threads and processes that end at any moment; and the mistakes that one makes at first.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { once } = require('node:events');
const { spawn, spawnSync } = require('node:child_process');
const { inspect } = require('node:util');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { Worker } = require('node:worker_threads');
const { open, CounterfoilError } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { newFile } = require('./support/sqlite.cjs');
const { root, python } = require('./support/redis.cjs');
const { seed, random } = require('./support/random.cjs');

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const range = (n, f) => Array.from({ length: n }, (_, i) => f(i));

/** Runs a program to its end; a minute is a hang. `started`: what is done once it has printed something. */
function runs(command, args, { started, cwd = root } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ['pipe', 'pipe', 'pipe'] });
    let out = '', err = '';
    child.stdout.on('data', (piece) => { if (out === '') started?.(child); out += piece; });
    child.stderr.on('data', (piece) => { err += piece; });
    const guard = setTimeout(() => { child.kill('SIGKILL'); reject(new Error(`it hangs: ${args}\n${err}`)); }, 60000);
    child.on('close', (code, signal) => { clearTimeout(guard); resolve({ code, signal, out, err }); });
  });
}
const inNode = (script, ...words) => runs(process.execPath, ['-e', `const { open } = require('counterfoil'); ${script}`, ...words]);
async function inPython(script, ...words) {
  const { code, out, err } = await runs(python, ['-c', script, ...words]);
  assert.equal(code, 0, err);
  return out;
}

/** The rows, as another process sees them: in this one nobody else may open the file. */
const rows = async (file) => JSON.parse(await inPython(
  `import json, sqlite3, sys; db = sqlite3.connect(sys.argv[1])
assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
print(json.dumps(db.execute("SELECT key, expiry, hex(value) FROM entry ORDER BY key").fetchall()))`, file));

/** Does something while another process has the lock for writing; it lets go when it is told, or when the work is done. */
async function whileLocked(file, work) {
  const child = spawn(python, ['-c', `import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute("BEGIN IMMEDIATE"); print("locked", flush=True); sys.stdin.read(); db.execute("ROLLBACK")`, file], { stdio: ['pipe', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  await once(child.stdout, 'data');
  const release = async () => { child.stdin.end(); await closed; };
  try {
    await work(release);
  } finally {
    await release();
  }
}

// ------------------------------------------------------------------------------------------------------------- the file --

test('what was stored is there after the store is closed, and after a process has ended', async () => {
  const file = newFile();
  const first = open(`sqlite:${file}`, { prefix: 'p:' });
  await first.set('a', '1', { ttl: 1000 });
  await first.set('gone', '1', { ttl: 0.05 });
  const { code, out, err } = await inNode(`const store = open('sqlite:' + process.argv[1], { prefix: 'p:' }); store.get('a').then(async (a) => { console.log(a); await store.set('b', '2'); });`, file);
  assert.deepEqual([code, out, err], [0, '1\n', '']);
  assert.equal(await first.get('b'), '2');
  await first.close();
  await pause(60);
  const again = open(`sqlite:${file}`, { prefix: 'p:' });
  assert.deepEqual([...(await again.getMany(['a', 'b', 'gone'])).values()], ['1', '2', undefined]);
  assert.equal(await again.count(), 2);
  await again.close();
});

test('the files are for their owner alone, and what is left when all have closed is the database and its reserve', async () => {
  const file = newFile(), names = (ends) => ends.map((end) => path.basename(file) + end);
  const there = () => fs.readdirSync(path.dirname(file)).filter((name) => name.startsWith(path.basename(file))).sort();
  const before = process.umask(0);
  try {
    const store = open(`sqlite:${file}`);
    await store.set('a', '1');
    assert.deepEqual(there(), names(['', '-reserve', '-shm', '-wal']));
    for (const name of there()) assert.equal(fs.statSync(path.join(path.dirname(file), name)).mode & 0o777, 0o600, name);
    await store.close();
    assert.deepEqual(there(), names(['', '-reserve']));
  } finally {
    process.umask(before);
  }
});

test('one file is one, by whatever path, from all stores of the process', async () => {
  const file = newFile(), folder = path.dirname(file);
  const stores = [`sqlite:${file}`, `sqlite:${path.relative(process.cwd(), file)}`, `sqlite:${folder}/../${path.basename(folder)}/./${path.basename(file)}`].map((url) => open(url));
  const counted = await Promise.all(range(300, (i) => stores[i % 3].incr('n')));
  assert.deepEqual(counted.sort((a, b) => a - b), range(300, (i) => i + 1));
  assert.throws(() => open(`sqlite:${file}`, { synchronous: 'normal' }), { code: 'INVALID', message: /other options/ });
  await Promise.all(stores.map((store) => store.close()));
  const other = open(`sqlite:${file}`, { synchronous: 'normal', singleProcess: true });
  assert.equal(await other.get('n'), '300');
  await other.close();
});

test('a path may have any character', async () => {
  const folder = path.dirname(newFile());
  for (const name of ['with a space.db', 'é€\u{1F600}.db', '100%.db', 'a?b#c&d=e.db', "it's \"quoted\".db", 'a+b.db', '-x.db', 'C:\\x.db', 'file:x.db', 'no extension']) {
    const store = open(`sqlite:${path.join(folder, name).replace(/[%?#]/g, encodeURIComponent)}`);
    await store.set('name', name);
    await store.close();
    assert(fs.readFileSync(path.join(folder, name)).includes(name), name);
  }
});

test('sqlite::memory: is its store\'s own', async () => {
  const [one, two] = [open('sqlite::memory:'), open('sqlite::memory:')];
  await one.set('a', '1');
  assert.deepEqual([await one.get('a'), await two.get('a')], ['1', undefined]);
  await Promise.all([one.close(), two.close()]);
});

test('single process: another one cannot open the file, a thread of this one can', async () => {
  const file = newFile(), store = open(`sqlite:${file}`, { singleProcess: true });
  await store.set('a', '1');
  const other = await inNode(`try { open('sqlite:' + process.argv[1]).get('a').then(console.log, (error) => console.log(error.code)); } catch (error) { console.log(error.code, error.outcome); }`, file);
  assert.deepEqual([other.code, other.out], [0, 'UNAVAILABLE not_applied\n'], other.err);
  const worker = new Worker(`const { workerData: file, parentPort } = require('node:worker_threads');
    require(${JSON.stringify(require.resolve('counterfoil'))}).open('sqlite:' + file, { singleProcess: true }).get('a').then((value) => parentPort.postMessage(value));`, { eval: true, workerData: file });
  assert.deepEqual(await once(worker, 'message'), ['1']);
  await store.close();
  assert.equal((await inNode(`open('sqlite:' + process.argv[1]).get('a').then(console.log);`, file)).out, '1\n');
});

test('a file that is removed or replaced is told, and nothing is written into what nobody can find', async () => {
  const file = newFile(), store = open(`sqlite:${file}`);
  await store.set('a', '1');
  for (const end of ['', '-wal', '-shm', '-reserve']) fs.rmSync(file + end, { force: true });
  await pause(1100);
  for (const call of [() => store.set('a', '2'), () => store.get('a')]) await assert.rejects(call(), { code: 'CORRUPT', outcome: 'not_applied', message: /removed or replaced/ });
  const anew = open(`sqlite:${file}`);
  assert.equal(await anew.get('a'), undefined);
  assert.equal(await anew.set('a', '3'), true);
  await assert.rejects(store.get('a'), { code: 'CORRUPT' });
  await Promise.all([store.close(), anew.close()]);
  assert.deepEqual((await rows(file)).map(([key]) => key), ['a']);
});

// -------------------------------------------------------------------------------------------------------------- together --

test('what is asked in one tick is one transaction', async () => {
  const store = open(`sqlite:${newFile()}`);
  await store.set('warm', 'up');
  const before = await store.stats();
  assert((await Promise.all(range(1000, (i) => store.set(`k${i}`, 'v')))).every(Boolean));
  const written = await store.stats();
  assert(written.commits - before.commits < 100, inspect(written));
  assert.equal(written.grouped - before.grouped, 1000);
  await Promise.all(range(1000, (i) => store.get(`k${i}`)));
  const read = await store.stats();
  assert.equal(read.commits, written.commits);
  assert(read.reads - written.reads < 100, inspect(read));
  assert.deepEqual([read.errors, read.timeouts, read.pending, read.waits], [0, 0, 0, 0]);
  for (const [name, value] of Object.entries(read)) assert(Number.isSafeInteger(value) && value >= 0, name);
  await store.close();
});

test('the operations of a store keep their order', async () => {
  const store = open(`sqlite:${newFile()}`), seen = [];
  const calls = range(500, (i) => [store.set('k', String(i)), store.get('k').then((value) => seen.push(value)), store.pop(`none${i}`)]).flat();
  await Promise.all(calls);
  assert.deepEqual(seen, range(500, String));
  await store.close();
});

test('more than may wait is BUSY at once, not applied', async () => {
  const file = newFile(), store = open(`sqlite:${file}`, { maxPending: 50 });
  await store.get('a');
  const results = await Promise.allSettled(range(60, (i) => store.set(`k${i}`, 'v')));
  assert.deepEqual(results.flatMap(({ reason }) => reason ? [`${reason.code} ${reason.outcome}`] : []), Array(10).fill('BUSY not_applied'));
  assert.equal(await store.count('k'), 50);
  await store.close();
});

test('of a thousand answers that have come at once, what else waits in the event loop has its turn in between', async () => {
  const store = open(`sqlite:${newFile()}`), told = [];
  await store.set('k', 'v');
  let turn = 0, over = false;
  const count = () => { turn++; if (!over) setImmediate(count); };
  setImmediate(count);
  const ask = () => store.get('k').then(() => { told[turn] = (told[turn] ?? 0) + 1; });
  await Promise.all(range(1000, ask));
  over = true;
  assert.equal(told.reduce((sum, n) => sum + n), 1000);
  assert(Math.max(...told.filter(Boolean)) <= 64, inspect(told));
  await store.close();
});

test('no commit stops the event loop', async (t) => {
  const store = open(`sqlite:${newFile()}`), value = 'v'.repeat(300);
  // So many in flight all the time, for half a second.
  const delays = async (call) => {
    const delay = monitorEventLoopDelay({ resolution: 1 });
    let calls = 0, until = performance.now() + 100;
    const one = async (n) => { for (; performance.now() < until; calls++) await call(n); };
    await Promise.all(range(256, one)); // once to get warm
    calls = 0;
    until = performance.now() + 500;
    delay.enable();
    await Promise.all(range(256, one));
    delay.disable();
    // A delay is told with the millisecond for which the timer was set.
    const ms = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - 1).toFixed(2);
    return `${calls * 2}/s, the event loop late by ${ms(delay.percentile(50))} (median), ${ms(delay.percentile(99))} (p99), ${ms(delay.max)} ms (most)`;
  };
  t.diagnostic(`256 durable sets in flight: ${await delays((n) => store.set(`k${n}`, value))}`);
  t.diagnostic(`256 timers in their place: ${await delays(() => pause(5))}`);
  assert.equal((await store.stats()).errors, 0);
  await store.close();
});

// --------------------------------------------------------------------------------------------------------- other processes --

test('while another process has the lock, reads go on, and writes wait for it within their deadlines', async () => {
  const file = newFile(), store = open(`sqlite:${file}`, { timeout: 20 }), hasty = open(`sqlite:${file}`, { timeout: 0.1 }), reader = open(`sqlite:${file}`, { timeout: 20 });
  await store.set('a', '1');
  await whileLocked(file, async (release) => {
    let stored = false;
    assert.equal(await reader.get('a'), '1');
    const waiting = store.set('a', '2').then((result) => { stored = result; });
    assert.equal(await reader.get('a'), '1');
    // At whatever moment the deadline passes: the lock was never had, so nothing was applied.
    const failures = range(60, async (i) => {
      await pause(2 * i);
      return hasty.set(`b${i}`, '1').then(() => assert.fail('it was stored'), (error) => error);
    });
    const errors = await Promise.all(failures);
    assert.deepEqual(errors.map(({ code, outcome }) => `${code} ${outcome}`), Array(60).fill('TIMEOUT not_applied'));
    assert(errors.some(({ message }) => /another process had the database locked/.test(message)), errors[0].message);
    assert.equal(stored, false);
    assert.equal(await reader.get('a'), '1');
    await release();
    await waiting;
    assert.equal(stored, true);
  });
  assert.deepEqual([await store.get('a'), await reader.count('b')], ['2', 0]);
  const waits = await Promise.all([store, hasty, reader].map(async (one) => (await one.stats()).waits));
  assert(waits.some((count) => count > 0), inspect(waits));
  await Promise.all([store, hasty, reader].map((one) => one.close()));
});

test('of any number of threads and processes that pop a key, one gets it', async () => {
  const file = newFile(), keys = 2000, store = open(`sqlite:${file}`);
  await Promise.all(range(keys, (i) => store.set(`k${i}`, String(i))));
  const pops = `const wins = []; const store = open('sqlite:' + file, { timeout: 60 });
    const done = (async () => {
      for (let n = 0; n < ${keys}; n += 100) await Promise.all(Array.from({ length: 100 }, async (_, i) => {
        const k = reverse ? ${keys} - 1 - n - i : n + i;
        const value = await store.pop('k' + k);
        if (value !== undefined) { if (value !== String(k)) throw new Error('the wrong value'); wins.push(k); }
      }));
      await store.close();
    })();`;
  const inThread = (reverse) => new Promise((resolve, reject) => {
    const worker = new Worker(`const { workerData: { file, reverse }, parentPort } = require('node:worker_threads');
      const { open } = require(${JSON.stringify(require.resolve('counterfoil'))}); ${pops} done.then(() => parentPort.postMessage(wins));`, { eval: true, workerData: { file, reverse } });
    worker.once('message', resolve).once('error', reject);
  });
  const inProcess = async (reverse) => {
    const { code, out, err } = await inNode(`const file = process.argv[1], reverse = ${reverse}; ${pops} done.then(() => console.log(JSON.stringify(wins)));`, file);
    assert.equal(code, 0, err);
    return JSON.parse(out);
  };
  const wins = (await Promise.all([inThread(false), inThread(true), inProcess(false), inProcess(true)])).flat();
  assert.equal(wins.length, keys);
  assert.equal(new Set(wins).size, keys);
  assert.equal(await store.count(), 0);
  await store.close();
});

/** The rows of FORMAT.md, and the calls that make them: both languages make the same bytes, and read what the other one has made. */
const GOLDEN = [
  { key: 'k1', value: 'é', ttl: 1000.5, hex: 'C3A9' },
  { key: 'k2', value: 'v', hex: '76' },
  { key: 'n', by: 41, hex: '3431' },
  { key: 'empty', value: '', hex: '' },
  { key: '\u{1F600} and "quotes"', value: '\u{1F600}\0\n', hex: 'F09F9880000A' },
];

test('Python reads what Node has written, and Node what Python has, byte for byte as FORMAT.md says', async () => {
  const ofNode = newFile(), ofPython = newFile();
  const store = open(`sqlite:${ofNode}`, { prefix: 'p:' });
  const began = Date.now();
  for (const { key, value, by, ttl } of GOLDEN) await (by === undefined ? store.set(key, value, { ttl }) : store.incr(key, by));
  await inPython(`import json, sys, counterfoil
with counterfoil.open("sqlite:" + sys.argv[1], prefix="p:") as store:
    for row in json.loads(sys.argv[2]):
        if "by" in row: store.incr(row["key"], row["by"])
        else: store.set(row["key"], row["value"], ttl=row.get("ttl"))`, ofPython, JSON.stringify(GOLDEN));
  const ended = Date.now();
  const wanted = GOLDEN.map(({ key, hex }) => [`p:${key}`, hex]).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const file of [ofNode, ofPython]) {
    const found = await rows(file);
    assert.deepEqual(found.map(([key, , hex]) => [key, hex]), wanted);
    for (const [key, expiry] of found) {
      if (key === 'p:k1') assert(expiry >= began + 1000500 && expiry <= ended + 1000500, String(expiry));
      else assert.equal(expiry, null, key);
    }
  }
  // The store is still open here: two processes on one file.
  const read = JSON.parse(await inPython(`import json, sys, counterfoil
with counterfoil.open("sqlite:" + sys.argv[1], prefix="p:") as store:
    print(json.dumps([store.get(row["key"]) for row in json.loads(sys.argv[2])]))
    assert store.incr("n") == 42 and store.pop("k2") == "v"`, ofNode, JSON.stringify(GOLDEN)));
  const values = GOLDEN.map(({ value, by }) => value ?? String(by));
  assert.deepEqual(read, values);
  assert.deepEqual([await store.get('n'), await store.get('k2')], ['42', undefined]);
  await store.close();
  const theirs = open(`sqlite:${ofPython}`, { prefix: 'p:' });
  assert.deepEqual([...(await theirs.getMany(GOLDEN.map(({ key }) => key))).values()], values);
  assert.equal(await theirs.incr('n'), 42);
  await theirs.close();
});

test('the rows of FORMAT.md to the millisecond, and its numbers in the header', async () => {
  const file = newFile(), stage = new Stage(), store = open(`sqlite:${file}`, { prefix: 'p:', stage });
  stage.stepWall((1_700_000_000_000 - stage.now().getTime()) / 1000);
  await store.set('k', 'é', { ttl: 1.5 });
  await store.set('l', 'v');
  await store.incr('n', 41);
  await store.close();
  assert.deepEqual(await rows(file), [['p:k', 1700000001500, 'C3A9'], ['p:l', null, '76'], ['p:n', null, '3431']]);
  const header = fs.readFileSync(file).subarray(0, 100);
  assert.deepEqual([header.readUInt32BE(60), header.readUInt32BE(68)], [2, 0x43746673]);
  const format = fs.readFileSync(path.join(root, 'core', 'FORMAT.md'), 'utf8');
  for (const row of ["| `'p:k'`, 1700000001500, `X'c3a9'` |", "| `'p:k'`, NULL, `X'76'` |", "| `'p:n'`, NULL, `X'3431'` |"]) assert(format.includes(row), `FORMAT.md has no ${row}`);
});

// ---------------------------------------------------------------------------------------------------- threads and their ends --

test('worker.terminate, 200 times, with operations in flight: nothing that was acknowledged is lost', async (t) => {
  t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
  const file = newFile(), rounds = Number(process.env.COUNTERFOIL_TERMINATIONS ?? 200);
  const store = open(`sqlite:${file}`, { synchronous: 'normal' });
  const acknowledged = new Int32Array(new SharedArrayBuffer(4 * rounds));
  const code = `const { parentPort, workerData: { file, n, acknowledged } } = require('node:worker_threads');
    const { open } = require(${JSON.stringify(require.resolve('counterfoil'))});
    const store = open('sqlite:' + file, { synchronous: 'normal' }), ignore = () => {};
    (async () => { for (let i = 1; ; i++) { await store.set('w' + n, String(i)); Atomics.store(acknowledged, n, i); if (i === 1) parentPort.postMessage('stored'); } })();
    (async () => {
      for (let i = 0; ; i++) {
        store.incr('shared').catch(ignore); store.pop('k' + i % 7).catch(ignore); store.set('k' + i % 7, 'x'.repeat(i % 3000), { ttl: 0.01 }).catch(ignore);
        if (i % 30 === 0) { const closing = open('sqlite:' + file, { synchronous: 'normal' }); closing.count().catch(ignore); closing.close().catch(ignore); }
        if (i % 10 === 0) await store.get('shared');
      }
    })();`;
  let started = 0;
  const one = async () => {
    while (started < rounds) {
      const n = started++;
      const worker = new Worker(code, { eval: true, workerData: { file, n, acknowledged } });
      const failed = new Promise((_, reject) => worker.once('error', reject));
      failed.catch(() => {});
      // Mostly while it works; sometimes while it still loads.
      if (random(5) > 0) await Promise.race([once(worker, 'message'), failed]);
      await pause(random(20));
      await Promise.race([worker.terminate(), failed]);
    }
  };
  await Promise.all([one(), one(), one(), one()]);
  const busy = acknowledged.filter((count) => count > 0).length;
  t.diagnostic(`${busy} of ${rounds} threads had written something`);
  assert(busy > rounds / 4);
  for (let n = 0; n < rounds; n++) {
    const there = await store.get(`w${n}`);
    assert(Number(there ?? 0) >= acknowledged[n], `thread ${n}: ${there}, and ${acknowledged[n]} were acknowledged (seed ${seed})`);
  }
  assert.equal((await store.stats()).pending, 0);
  await store.close();
  await rows(file); // and it is whole
});

test('closing with operations in flight: each is answered or CLOSED, and what was acknowledged is there', async () => {
  const file = newFile();
  for (let round = 0; round < 20; round++) {
    const store = open(`sqlite:${file}`), other = open(`sqlite:${file}`);
    const results = Promise.allSettled(range(200, (i) => (i % 50 === 0 ? pause(i / 50) : Promise.resolve()).then(() => store.set(`k${round}-${i}`, 'v'))));
    const others = Promise.all(range(50, (i) => other.set(`o${round}-${i}`, 'v')));
    await pause(round % 5);
    await store.close();
    const outcomes = await results;
    for (const { reason } of outcomes.filter(({ status }) => status === 'rejected')) assert.equal(reason.code, 'CLOSED');
    assert((await others).every(Boolean));
    for (const [i, { status, reason }] of outcomes.entries()) {
      const there = (await other.get(`k${round}-${i}`)) !== undefined;
      if (status === 'fulfilled') assert(there, 'acknowledged, and lost');
      else if (reason.outcome === 'not_applied') assert(!there, 'not applied, and there');
    }
    await other.close();
  }
});

const ends = (what, script, code, out = '') =>
  test(what, async () => {
    const result = await inNode(`const file = process.argv[1]; const store = open('sqlite:' + file, { timeout: 30 }); const set = (n) => { for (let i = 0; i < n; i++) store.set('k' + i, 'v').catch(() => {}); }; ${script}`, newFile());
    assert.deepEqual({ code: result.code, signal: result.signal, out: result.out }, { code, signal: null, out }, result.err);
  });

ends('an idle store keeps no process alive', `store.get('a').then(() => console.log('answered'));`, 0, 'answered\n');
ends('nor does one that was never asked', ``, 0);
ends('an operation that waits does', `store.set('a', '1').then(console.log);`, 0, 'true\n');
ends('in memory too', `open('sqlite::memory:').incr('n').then(console.log);`, 0, '1\n');
ends('process.exit with operations in flight', `set(1000); process.exit(3);`, 3);
ends('process.exit a turn later', `set(1000); setTimeout(() => process.exit(4), 5);`, 4);
ends('process.exit from a reaction', `set(1000); store.get('a').then(() => process.exit(5));`, 5);
ends('an exception that nobody catches', `set(1000); setTimeout(() => { throw new Error('mine'); }, 2);`, 1);
ends('stores that are dropped, and collected', `(async () => { for (let i = 0; i < 50; i++) { await open('sqlite:' + file).incr('n'); open('sqlite::memory:').set('a', '1'); if (i % 10 === 0) globalThis.gc?.(); } console.log(await store.get('n')); })();`, 0, '50\n');
ends('stores answer in an exit handler, or not, and the process ends', `process.on('exit', () => { set(10); store.get('a'); open('sqlite:' + file).close(); console.log('exit'); });`, 0, 'exit\n');

test('an operation that waits for another process keeps its own alive until the deadline', async () => {
  const file = newFile(), store = open(`sqlite:${file}`);
  await store.set('a', '1');
  await whileLocked(file, async () => {
    const result = await inNode(`const store = open('sqlite:' + process.argv[1], { timeout: 0.2 }); store.set('a', '2').catch((error) => console.log(error.code, error.outcome));`, file);
    assert.deepEqual([result.code, result.out], [0, 'TIMEOUT not_applied\n'], result.err);
  });
  assert.equal(await store.get('a'), '1');
  await store.close();
});

test('a process that is killed under load has lost nothing that it was told was stored', async () => {
  const file = newFile();
  for (let round = 0; round < 5; round++) {
    const { signal, out } = await runs(process.execPath, ['-e', `const { open } = require('counterfoil'); const store = open('sqlite:' + process.argv[1]);
      const one = async (n) => { for (let i = 0; ; i++) { await store.set('k' + n + '-' + i, String(i)); require('node:fs').writeSync(1, 'k' + n + '-' + i + '\\n'); } };
      for (let n = 0; n < 20; n++) one('${round}-' + n);`, file], { started: (child) => setTimeout(() => child.kill('SIGKILL'), 20 + random(80)) });
    assert.equal(signal, 'SIGKILL');
    const said = out.split('\n').slice(0, -1); // the last line may be a part
    const there = new Set((await rows(file)).map(([key]) => key));
    assert(said.length > 0);
    for (const key of said) assert(there.has(key), key);
  }
});

test('closing gives everything back', async () => {
  const file = newFile(), descriptors = () => fs.readdirSync('/proc/self/fd').length;
  let first;
  for (let round = 0; round < 5; round++) {
    const stores = range(10, (i) => open(i % 2 ? `sqlite:${file}` : 'sqlite::memory:'));
    await Promise.all(stores.map((store) => store.set('a', '1')));
    await Promise.all(stores.map((store) => store.close()));
    await pause(5);
    first ??= descriptors();
    assert.equal(descriptors(), first);
  }
});

// ---------------------------------------------------------------------------------------------------- the package, twice --

test('the package loaded twice from one place (jest.resetModules) is one SQLite: the two share a file', async () => {
  const { code, signal, out, err } = await inNode(`const file = process.argv[1], first = open;
    for (const name of Object.keys(require.cache)) delete require.cache[name];
    const second = require('counterfoil').open;
    if (first === second) throw new Error('it is not loaded twice');
    (async () => {
      const stores = [first('sqlite:' + file), second('sqlite:' + file)];
      await Promise.all(Array.from({ length: 2000 }, (_, i) => stores[i % 2].incr('n')));
      console.log(await stores[0].get('n'));
      await stores[0].close();
      console.log(await stores[1].incr('n'));
      await stores[1].close();
    })();`, newFile());
  assert.deepEqual([code, signal, out, err], [0, null, '2000\n2001\n', '']);
});

/** A copy of the package as another dependency would bring it along: with a native half of its own. */
function installedCopy() {
  const folder = fs.mkdtempSync(path.join(path.dirname(newFile()), 'copy-'));
  for (const name of ['node', 'package.json', 'VERSION']) fs.cpSync(path.join(root, name), path.join(folder, name), { recursive: true });
  fs.mkdirSync(path.join(folder, 'build-node'));
  fs.copyFileSync(path.resolve(process.env.COUNTERFOIL_NATIVE ?? path.join(root, 'build-node', 'counterfoil.node')), path.join(folder, 'build-node', 'counterfoil.node'));
  return path.join(folder, 'node', 'index.cjs');
}

test('two installed copies are two SQLites: they work side by side, but the second is not let into a file that the first has', { skip: process.platform !== 'linux' }, async () => {
  const { code, signal, out, err } = await inNode(`delete process.env.COUNTERFOIL_NATIVE;
    const [copy, ...files] = process.argv.slice(1), other = require(copy), stores = [open('sqlite:' + files[0]), other.open('sqlite:' + files[1])];
    if (open === other.open) throw new Error('it is one copy');
    const refused = (open, file) => { try { open('sqlite:' + file); console.log('opened'); } catch (error) { console.log(error.code, error.outcome, /another copy/.test(error.message)); } };
    (async () => {
      refused(other.open, files[0]);
      const both = Promise.all(Array.from({ length: 1000 }, (_, i) => stores[i % 2].incr('n')));
      refused(open, files[1]);
      await both;
      for (const store of stores) { console.log(await store.get('n')); await store.close(); }
      const now = other.open('sqlite:' + files[0]);
      console.log(await now.incr('n'));
      await now.close();
    })();`, installedCopy(), newFile(), newFile());
  assert.deepEqual([code, signal, out, err], [0, null, 'INVALID not_applied true\nINVALID not_applied true\n500\n500\n501\n', '']);
});

// ---------------------------------------------------------------------------------------------------------------- mistakes --

test('the mistakes of the first hour say what to write instead', () => {
  const folder = fs.mkdtempSync(path.join(path.dirname(newFile()), 'mistakes-')), here = process.cwd();
  process.chdir(folder);
  try {
    fs.writeFileSync('text.db', 'This is a text that somebody keeps here. '.repeat(50));
    fs.symlinkSync('text.db', 'link.db');
    spawnSync(python, ['-c', `import sqlite3; db = sqlite3.connect("theirs.db"); db.execute("CREATE TABLE user(id)"); db.commit()`]);
    spawnSync(python, ['-c', `import sqlite3; db = sqlite3.connect("newer.db"); db.executescript("PRAGMA application_id=${0x43746673}; PRAGMA user_version=99; CREATE TABLE entry(x)")`]);
    const texts = ['text.db', 'theirs.db', 'newer.db'].map((name) => fs.readFileSync(name));
    const mistakes = {
      'sqlite://app.db': /sqlite:data\/app\.db/, 'sqlite:///tmp/app.db': /sqlite:\/var/, 'sqlite:': /names no file/, 'sqlite::mem': /sqlite::memory:/, 'sqlite:nowhere/app.db': /folder/,
      'sqlite:text.db/app.db': /folder/, 'sqlite:.': /regular file/, 'sqlite:link.db': /links/, 'sqlite:text.db': /not an SQLite database/, 'sqlite:theirs.db': /another application/, 'sqlite:newer.db': /newer version/,
      'sqlite:a.db?mode=memory': /synchronous/, 'sqlite:a.db?synchronous=off': /full or normal/, 'sqlite:a.db#x': /%23/, 'sqlite:100%.db': /%25/, 'sqlite3:a.db': /sqlite:/, 'file:a.db': /sqlite:/,
      'a.db': /scheme:rest/, ':memory:': /scheme:rest/, 'sqlite:~/app.db': /folder/,
    };
    for (const [url, words] of Object.entries(mistakes)) {
      assert.throws(() => open(url), (error) => error instanceof CounterfoilError && error.code === 'INVALID' && error.outcome === 'not_applied' && words.test(error.message) || assert.fail(`${url}: ${error.message}`));
    }
    for (const [options, words] of [[{ synchronous: true }, /synchronous/], [{ singleProcess: 'yes' }, /single_process/], [{ remote: 1 }, /remote/], [{ maxEntries: 5 }, /synchronous/], [{ readonly: true }, /synchronous/], [{ maxPending: 0 }, /max_pending/]]) {
      assert.throws(() => open('sqlite:a.db', options), (error) => error.code === 'INVALID' && words.test(error.message) || assert.fail(inspect([options, error])));
    }
    assert.throws(() => open(new URL('sqlite:a.db')), { code: 'INVALID' });
    assert.deepEqual(['text.db', 'theirs.db', 'newer.db'].map((name) => fs.readFileSync(name)), texts, 'a file of somebody else was changed');
    assert.deepEqual(fs.readdirSync('.').sort(), ['link.db', 'newer.db', 'text.db', 'theirs.db'], 'a refused URL left something behind');
  } finally {
    process.chdir(here);
  }
});

// ----------------------------------------------------------------------------------------------------------------- express --

/** An Express application that says who is asked, and counts visits; `cluster`: so many processes of it behind one port. */
const APPLICATION = `const cluster = require('node:cluster'), [file, secret, workers] = process.argv.slice(1);
if (cluster.isPrimary && Number(workers) > 0) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  let listening = 0;
  for (let i = 0; i < Number(workers); i++) cluster.fork();
  cluster.on('listening', (_, { port }) => { if (++listening === Number(workers)) console.log(port); });
  process.on('SIGTERM', () => { for (const worker of Object.values(cluster.workers)) worker.kill('SIGTERM'); cluster.disconnect(); });
} else {
  const express = require('express'), session = require('express-session'), { CounterfoilStore } = require('counterfoil/express-session');
  const store = new CounterfoilStore({ url: 'sqlite:' + file }), app = express();
  app.use(session({ store, secret, resave: false, saveUninitialized: false, cookie: { maxAge: 3600000 } }));
  app.get('/visit', (req, res) => { req.session.visits = (req.session.visits ?? 0) + 1; res.json({ visits: req.session.visits, pid: process.pid }); });
  app.get('/logout', (req, res, next) => req.session.destroy((error) => error ? next(error) : res.json({ pid: process.pid })));
  const server = app.listen(0, '127.0.0.1', () => { if (cluster.isPrimary) console.log(server.address().port); });
  process.on('SIGTERM', () => { server.close(() => store.close()); server.closeAllConnections(); });
}`;

async function application(file, workers, work) {
  const child = spawn(process.execPath, ['-e', APPLICATION, file, 'a secret', String(workers)], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  try {
    const [port] = await Promise.race([once(child.stdout, 'data'), closed.then(() => assert.fail('it did not start'))]);
    const browser = (cookie) => async (where) => {
      const answer = await fetch(`http://127.0.0.1:${Number(port)}${where}`, { headers: { connection: 'close', ...(cookie === undefined ? {} : { cookie }) } });
      assert.equal(answer.status, 200);
      cookie = answer.headers.getSetCookie()[0]?.split(';')[0] ?? cookie;
      return { ...(await answer.json()), cookie };
    };
    return await work(browser);
  } finally {
    child.kill('SIGTERM');
    const [code, signal] = await closed;
    assert.deepEqual([code, signal], [0, null], 'it did not end by itself');
  }
}

test('sessions of Express: a process that is started again knows them, and not those that were ended', async () => {
  const file = newFile();
  const [kept, ended] = await application(file, 0, async (browser) => {
    const one = browser(), two = browser();
    await one('/visit');
    const { cookie } = await two('/visit');
    assert.equal((await two('/visit')).visits, 2);
    await two('/logout');
    return [(await one('/visit')).cookie, cookie];
  });
  await application(file, 0, async (browser) => {
    assert.equal((await browser(kept)('/visit')).visits, 3);
    assert.equal((await browser(ended)('/visit')).visits, 1);
  });
});

test('sessions of Express: two processes of a cluster on one file are one application', async () => {
  await application(newFile(), 2, async (browser) => {
    const people = range(20, () => browser()), asked = new Set();
    for (let visit = 1; visit <= 5; visit++) {
      for (const answer of await Promise.all(people.map((person) => person('/visit')))) {
        assert.equal(answer.visits, visit);
        asked.add(answer.pid);
      }
    }
    assert.equal(asked.size, 2, 'one of the two was never asked');
    const { cookie } = await people[0]('/visit');
    await people[0]('/logout');
    for (let i = 0; i < 4; i++) assert.equal((await browser(cookie)('/visit')).visits, 1, 'a session that was ended is alive in the other process');
  });
});
