'use strict';

// What is Redis's own: the connection and its events, receipts, figures, options; one winner across threads and processes; answers that reach
// nobody but their caller, whatever happens to connections and deadlines; and connect-redis beside us over the same keys.

const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { once } = require('node:events');
const { spawn } = require('node:child_process');
const { inspect } = require('node:util');
const { Worker } = require('node:worker_threads');
const { open, CounterfoilError } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { redisVariable, ownPrefix, root } = require('./support/redis.cjs');
const { Proxy, RedisServer } = require('../faults/faults.cjs');
const { seed, random } = require('./support/random.cjs');

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let url, proxy, through;
before(async () => {
  url = redisVariable('');
  const { hostname, port } = new URL(url);
  proxy = await Proxy.start({ to: `${hostname}:${port}` });
  through = url.replace(`${hostname}:${port}`, `127.0.0.1:${proxy.port}`);
});
after(() => proxy.close());

/** Runs a script to its end; a minute is a hang. */
function run(script, ...words) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['-e', `const { open } = require('counterfoil'); ${script}`, ...words], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '', err = '';
    child.stdout.on('data', (piece) => { out += piece; });
    child.stderr.on('data', (piece) => { err += piece; });
    const guard = setTimeout(() => { child.kill('SIGKILL'); reject(new Error(`it hangs: ${script}\n${err}`)); }, 60000);
    child.on('close', (code, signal) => { clearTimeout(guard); resolve({ code, signal, out, err }); });
  });
}

// ---------------------------------------------------------------------------------------------------------------- events --

test('connect, disconnect and connect again come while nothing is awaited', async () => {
  const store = open(through);
  const connected = once(store, 'connect');
  await store.get('a');
  assert.match((await connected)[0], /^connected to Redis at 127\.0\.0\.1:\d+$/);
  const lost = once(store, 'disconnect'), back = once(store, 'connect');
  await proxy.say('now cut request 0 rst');
  const [error] = await lost;
  assert(error instanceof CounterfoilError);
  assert.equal(error.code, 'UNAVAILABLE');
  await back;
  assert.equal(await store.get('a'), undefined);
  const stats = await store.stats();
  assert.deepEqual([stats.connected, stats.connects, stats.disconnects], [1, 2, 1]);
  await store.close();
});

test('an idle connection keeps no process alive, and neither does one that cannot be made', async () => {
  const idle = `const store = open(process.argv[1]); for (const event of ['disconnect', 'error', 'close']) store.on(event, () => console.log(event));`;
  assert.deepEqual(await run(`${idle} store.get('a').then(console.log);`, url), { code: 0, signal: null, out: 'undefined\n', err: '' });
  assert.deepEqual(await run(`open(process.argv[1]);`, url), { code: 0, signal: null, out: '', err: '' });
  assert.deepEqual(await run(`open(process.argv[1]);`, 'redis://127.0.0.1:1'), { code: 0, signal: null, out: '', err: '' });
});

test('an attempt that fails is an error event for those who listen, and no crash for those who do not', async () => {
  const script = `const store = open('redis://127.0.0.1:1', { timeout: 0.2 }); if (process.argv[1]) store.on('error', (error) => console.log('event', error.code));
    store.get('a').catch((error) => console.log(error.code, error.outcome));`;
  const quiet = await run(script), heard = await run(script, 'listen');
  assert.deepEqual([quiet.code, quiet.err, heard.code, heard.err], [0, '', 0, '']);
  assert.match(quiet.out, /^(UNAVAILABLE|TIMEOUT) not_applied\n$/);
  assert.match(heard.out, /^(event UNAVAILABLE\n)+(UNAVAILABLE|TIMEOUT) not_applied\n(event UNAVAILABLE\n)*$/);
});

test('what a listener throws is the process\'s, the others are told, and everything goes on', async () => {
  const script = `process.on('uncaughtException', (error) => console.log('caught', error.message));
    const store = open(process.argv[1], { prefix: process.argv[2] });
    store.on('connect', () => { throw new Error('mine'); });
    setTimeout(async () => { console.log(await store.set('a', '1'), await store.pop('a')); await store.close(); }, 100);
    store.get('a').then(console.log);`;
  const { code, out, err } = await run(script, url, ownPrefix());
  assert.deepEqual([code, out.split('\n').sort().join(), err], [0, ',caught mine,true 1,undefined', '']);
  const fatal = await run(`const store = open(process.argv[1]); store.on('connect', () => { throw new Error('mine'); }); store.get('a').then(() => setTimeout(() => {}, 2000));`, url);
  assert.equal(fatal.code, 1);
  assert.match(fatal.err, /Error: mine/);
});

test('a warning goes to who listens, else to the process, once', async () => {
  const server = await RedisServer.start({ persistence: 'snapshots' });
  try {
    const store = open(await server.url());
    const heard = once(store, 'warning');
    await store.get('a');
    assert.match((await heard)[0], /\w/);
    await store.close();
    const script = `const store = open(process.argv[1]); process.on('warning', (warning) => console.log(warning.name, warning.message.length > 20));
      (async () => { for (let i = 0; i < 3; i++) { await store.get('a'); await new Promise((resolve) => setTimeout(resolve, 100)); } })();`;
    const { code, out, err } = await run(script, await server.url());
    assert.equal(code, 0);
    assert.match(out, /^(CounterfoilWarning true\n)+$/);
    const told = err.split('\n').filter((line) => /CounterfoilWarning/.test(line)).map((line) => line.replace(/^\(node:\d+\) /, ''));
    assert.equal(new Set(told).size, told.length, 'a warning came twice');
    // Many stores on one server are one server.
    const several = await run(`process.on('warning', (warning) => console.log(warning.message));
      Promise.all(Array.from({ length: 5 }, (_, i) => open(process.argv[1], { prefix: String(i) })).map((store) => store.get('a').then(() => new Promise((resolve) => setTimeout(resolve, 200)))));`, await server.url());
    const messages = several.out.trim().split('\n');
    assert.deepEqual([messages.length > 0, new Set(messages).size], [true, messages.length], several.out);
  } finally {
    await server.stop();
  }
});

// -------------------------------------------------------------------------------------------------------------- receipts --

/** Calls while the answer is lost and the server cannot be reached again until the deadline; gives the error. */
async function losing(store, call) {
  await store.get('warm'); // the connection is there, and so is the script
  await proxy.say('refuse on');
  await proxy.say('now lose');
  try {
    return await call().then((value) => assert.fail(`it gave ${value}`), (error) => error);
  } finally {
    await proxy.say('refuse off');
  }
}

test('a lost answer: the error has a receipt, and the call with it gives the answer of the call that was lost', async () => {
  const prefix = ownPrefix();
  const store = open(through, { prefix, timeout: 0.25 }), other = open(url, { prefix });
  const calls = {
    pop: { lost: () => store.pop('k'), again: (receipt) => store.pop('k', { receipt }), wanted: 'value', wrong: (receipt) => store.incr('k', 1, { receipt }) },
    popBuffer: { lost: () => store.popBuffer('k'), again: (receipt) => store.popBuffer('k', { receipt }), wanted: Buffer.from('value'), wrong: (receipt) => store.incr('k', 1, { receipt }) },
    incr: { lost: () => store.incr('n', 5), again: (receipt) => store.incr('n', 5, { receipt }), wanted: 5, wrong: (receipt) => store.incr('n', 6, { receipt }) },
    ifAbsent: { lost: () => store.set('new', 'x', { ifAbsent: true }), again: (receipt) => store.set('new', 'x', { ifAbsent: true, receipt }), wanted: true, wrong: (receipt) => store.set('new', 'other', { ifAbsent: true, receipt }) },
    ifEqual: { lost: () => store.set('old', 'y', { ifEqual: 'x' }), again: (receipt) => store.set('old', 'y', { ifEqual: 'x', receipt }), wanted: true, wrong: (receipt) => store.pop('old', { receipt }) },
  };
  for (const [name, { lost, again, wanted, wrong }] of Object.entries(calls)) {
    await other.set('k', 'value');
    await other.set('old', 'x');
    const error = await losing(store, lost);
    assert(error instanceof CounterfoilError, `${name}: ${error}`);
    assert.deepEqual([error.outcome, error.receipt?.length], ['unknown', 32], `${name}: ${error.code} ${error.message}`);
    assert.doesNotMatch(inspect(error), new RegExp(error.receipt));
    assert.deepEqual(await again(error.receipt), wanted, name);
    assert.deepEqual(await again(error.receipt), wanted, `${name}, once more`);
    if (name.startsWith('pop')) assert.equal(await other.pop('k'), undefined);
    await assert.rejects(wrong(error.receipt), { code: 'INVALID', outcome: 'not_applied' }, name);
  }
  assert.equal(await other.get('n'), '5');
  for (const receipt of ['', 'x'.repeat(32), '0'.repeat(31), null, 5]) {
    for (const call of [() => store.pop('n', { receipt }), () => store.incr('n', 1, { receipt }), () => store.set('n', '1', { ifAbsent: true, receipt })]) {
      await assert.rejects(call(), { code: 'INVALID', outcome: 'not_applied' }, String(receipt));
    }
  }
  assert.equal(await other.get('n'), '5');
  const reading = await losing(store, () => store.get('k'));
  assert.deepEqual([reading.outcome, reading.receipt], ['not_applied', undefined]);
  const writing = await losing(store, () => store.set('k', 'v'));
  assert.deepEqual([writing.outcome, writing.receipt], ['unknown', undefined]);
  await other.clear();
  await Promise.all([store.close(), other.close()]);
});

// --------------------------------------------------------------------------------------------------------------- figures --

test('figures count what happened', async () => {
  const store = open(url, { prefix: ownPrefix() });
  await store.set('a', 'x'.repeat(1000));
  await Promise.all(Array.from({ length: 100 }, () => store.get('a')));
  const stats = await store.stats();
  assert.equal(stats.operations, 101);
  assert(stats.commands >= 101 && stats.bytesReceived > 100 * 1000 && stats.bytesSent > 1000, inspect(stats));
  assert(stats.roundTrips < 90, 'what is asked in one tick goes out together');
  assert.deepEqual([stats.errors, stats.timeouts, stats.pending, stats.connected, stats.queued, stats.inFlight, stats.busy], [0, 0, 0, 1, 0, 0, 0]);
  assert.deepEqual(Object.keys(stats.latencyUs), [...Array.from({ length: 16 }, (_, i) => String(64 << i)), 'more']);
  const counted = Object.values(stats.latencyUs).reduce((sum, one) => sum + one);
  assert(counted >= 101 && counted <= stats.commands, inspect(stats));
  for (const value of [...Object.values(stats).filter((one) => one !== stats.latencyUs), ...Object.values(stats.latencyUs)]) assert(Number.isSafeInteger(value) && value >= 0);
  await store.delete('a');
  await store.close();
});

// --------------------------------------------------------------------------------------------------------------- options --

test('every option is a field, and a password may have any character and is never shown', async () => {
  const password = 'p@ss:w/o?r#d%41&x=1 é\u{1F600}"\'\\';
  const server = await RedisServer.start({ password });
  try {
    const bare = `redis://127.0.0.1:${server.port}`;
    const shown = [];
    const store = open(bare, { password, db: 3, name: 'a-name', connectTimeout: 1.5, silence: 3, maxPending: 50, maxPendingBytes: 65536, receipts: true });
    shown.push(inspect(store, { showHidden: true, depth: 9 }), JSON.stringify(store));
    assert.equal(await store.set('a', '1'), true);
    assert.match(await server.cli('CLIENT', 'LIST'), /name=a-name .*db=3 /);
    const many = await Promise.allSettled(Array.from({ length: 60 }, () => store.get('a')));
    assert.deepEqual(many.map((one) => one.reason?.code).filter(Boolean), Array(10).fill('BUSY'));
    assert.equal((await store.stats()).busy, 10);
    shown.push(...many.map(({ reason }) => inspect(reason)));
    await store.close();

    const escaped = open(`redis://:${encodeURIComponent(password)}@127.0.0.1:${server.port}/3`, { receipts: false });
    assert.equal(await escaped.pop('a'), '1');
    assert.equal(await server.cli('DBSIZE'), 0, 'a receipt was left');
    await escaped.close();

    const wrong = open(bare, { password: `${password}!`, timeout: 1 });
    wrong.on('error', (error) => shown.push(inspect(error)));
    await assert.rejects(wrong.get('a'), (error) => { shown.push(inspect(error)); return error.code === 'AUTH' && error.outcome === 'not_applied'; });
    await wrong.close();
    assert.throws(() => open(bare, { password, maxPending: 0 }), (error) => { shown.push(inspect(error)); return error.code === 'INVALID' && /max_pending/.test(error.message); });
    for (const text of shown) assert(!text.includes('p@ss') && !text.includes(encodeURIComponent('p@ss')), text);
  } finally {
    await server.stop();
  }
});

test('closing gives everything back', async () => {
  const descriptors = () => fs.readdirSync('/proc/self/fd').length;
  for (let round = 0, first; round < 5; round++) {
    const stores = Array.from({ length: 20 }, () => open(url));
    await Promise.all(stores.map((store) => store.get('a')));
    await Promise.all(stores.map((store) => store.close()));
    await pause(5);
    first ??= descriptors();
    assert.equal(descriptors(), first);
  }
  const store = open(url);
  const waiting = store.get('a');
  await store.close();
  await assert.rejects(waiting, { code: 'CLOSED' });
});

test('an answer is its caller\'s also where a hook calls the store while a promise or a tick is made', async () => {
  for (const [type, under] of [['PROMISE', 'undefined'], ['TickObject', 'undefined'], ['Immediate', "store.get('b')"]]) {
    const script = `const { createHook } = require('node:async_hooks');
      (async () => {
        const store = open(process.argv[1], { prefix: process.argv[2], timeout: 2 });
        await store.set('a', 'of a');
        await store.set('b', 'of b');
        let armed = false, inner;
        const before = ${under}; // while it is under way, what follows waits for an immediate
        await new Promise((done) => process.nextTick(done)); // it was sent
        const hook = createHook({ init(id, type) { if (armed && type === '${type}') { armed = false; inner = store.get('b'); } } }).enable();
        armed = true;
        const outer = store.get('a');
        armed = false;
        hook.disable();
        const late = new Promise((resolve) => setTimeout(resolve, 3000, 'never').unref());
        console.log(await Promise.race([outer, late]), await Promise.race([inner, late]));
        await store.clear();
        await store.close();
      })();`;
    const { out, err } = await run(script, url, ownPrefix());
    assert.deepEqual([out, err], ['of a of b\n', ''], type);
  }
});

test('what is asked while answers are awaited goes together, though each was asked in a tick of its own; the first goes at once', async (t) => {
  const store = open(url);
  await store.get('a');
  const { native } = require('../../node/native.cjs');
  const flush = t.mock.method(native, 'flush');
  const asked = [];
  let first;
  await new Promise((resolve) => {
    const ask = (n) => {
      asked.push(store.get('a'));
      if (n === 1) process.nextTick(() => { first = flush.mock.callCount(); });
      if (n === 20) resolve();
    };
    for (let n = 1; n <= 20; n++) setImmediate(ask, n); // node runs them in one turn of its loop, each with its ticks
  });
  await Promise.all(asked);
  assert.equal(first, 1);
  assert(flush.mock.callCount() <= 2); // the answer of the first may have come before the second, and sends the rest
  await store.close();
});

test('fake timers do not stop what is sent', async () => {
  const script = `const { nextTick } = process;
    process.nextTick = globalThis.setImmediate = require('node:timers').setImmediate = () => {};
    const store = open(process.argv[1]);
    store.on('connect', () => console.log('connect'));
    const second = () => new Promise((resolve) => nextTick(() => resolve(store.get('b')))); // while the other is under way
    store.get('a').then(() => Promise.all([store.get('a'), second()])).then(([value]) => { console.log(value); store.on('close', () => console.log('close')); return store.close(); }, (error) => console.log(error.code));`;
  const { out } = await run(script, url);
  assert.deepEqual(out.split('\n').sort(), ['', 'close', 'connect', 'undefined']);
});

test('getMany of more keys than may wait at once', async () => {
  const store = open(url, { prefix: ownPrefix() }), keys = Array.from({ length: 12000 }, (_, i) => `k${i}`);
  await store.set('k11999', 'last');
  const found = await store.getMany(keys);
  assert.deepEqual([[...found.keys()], found.get('k0'), found.get('k11999')], [keys, undefined, 'last']);
  assert.equal((await store.stats()).busy, 0);
  await store.clear();
  await store.close();
});

test('a server that is killed and comes back', async () => {
  const server = await RedisServer.start({ persistence: 'aof-always' });
  try {
    const store = open(await server.url(), { timeout: 10 });
    store.on('warning', () => {});
    await store.set('a', 'kept');
    const lost = once(store, 'disconnect');
    await server.kill();
    await lost;
    const meanwhile = store.get('a'); // waits for the server, within its deadline
    await server.start();
    assert.equal(await meanwhile, 'kept');
    await store.close();
  } finally {
    await server.stop();
  }
});

// ----------------------------------------------------------------------------------------------------------- concurrency --

test('of any number of threads and processes that pop a key, one gets it', async () => {
  const prefix = ownPrefix(), keys = 2000;
  const store = open(url, { prefix });
  await Promise.all(Array.from({ length: keys }, (_, i) => store.set(`k${i}`, String(i))));
  const pops = `const wins = []; const store = open(url, { prefix });
    const done = Promise.all(Array.from({ length: ${keys} }, async (_, i) => {
      const k = reverse ? ${keys} - 1 - i : i;
      const value = await store.pop('k' + k);
      if (value !== undefined) { if (value !== String(k)) throw new Error('the wrong value'); wins.push(k); }
    })).then(() => store.close());`;
  const inThread = (reverse) => new Promise((resolve, reject) => {
    const worker = new Worker(`const { workerData: { url, prefix, reverse }, parentPort } = require('node:worker_threads');
      const { open } = require(${JSON.stringify(require.resolve('counterfoil'))}); ${pops} done.then(() => parentPort.postMessage(wins));`, { eval: true, workerData: { url, prefix, reverse } });
    worker.once('message', resolve).once('error', reject);
  });
  const inProcess = async (reverse) => {
    const { code, out, err } = await run(`const [url, prefix] = process.argv.slice(1), reverse = ${reverse}; ${pops} done.then(() => console.log(JSON.stringify(wins)));`, url, prefix);
    assert.equal(code, 0, err);
    return JSON.parse(out);
  };
  const wins = (await Promise.all([inThread(false), inThread(true), inProcess(false), inProcess(true)])).flat();
  assert.equal(wins.length, keys);
  assert.equal(new Set(wins).size, keys);
  assert.equal(await store.count(), 0);
  await store.close();
});

test('an answer reaches nobody but its caller, whatever deadlines pass and connections break', async (t) => {
  t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
  const prefix = ownPrefix(), keys = 500, wanted = Number(process.env.COUNTERFOIL_CANARIES ?? 60000);
  const calm = open(url, { prefix });
  await Promise.all(Array.from({ length: keys }, (_, i) => calm.set(`k${i}`, `value of k${i}`)));
  const stores = [open(through, { prefix, timeout: 1 }), open(through, { prefix, timeout: 0.002 }), open(through, { prefix, timeout: 0.02 })];
  let answered = 0, failed = 0, over = false;
  const legal = ['TIMEOUT', 'UNAVAILABLE', 'CLOSED', 'BUSY'];
  const one = async (n) => {
    while (!over) {
      const store = stores[n % stores.length], i = random(keys);
      try {
        assert.equal(await store.get(`k${i}`), `value of k${i}`);
        answered++;
      } catch (error) {
        if (!legal.includes(error.code)) throw error;
        failed++;
        await pause(1);
      }
    }
  };
  // A thread that asks the same, and is ended in the middle of it.
  const terminated = async () => {
    const code = `const { workerData: { url, prefix } } = require('node:worker_threads'); const store = require(${JSON.stringify(require.resolve('counterfoil'))}).open(url, { prefix });
      const loop = async (n) => { for (let i = n; ; i++) await store.get('k' + (i % 500)).catch(() => {}); }; for (let n = 0; n < 20; n++) loop(n);`;
    while (!over) {
      const worker = new Worker(code, { eval: true, workerData: { url: through, prefix } });
      await once(worker, 'online');
      await pause(random(60));
      await worker.terminate();
    }
  };
  const faults = async () => {
    const ends = ['fin', 'rst', 'stall'];
    while (!over) {
      const direction = random(2) ? 'reply' : 'request';
      await proxy.say(`now cut ${direction} ${random(40000)} ${ends[random(3)]}`).catch(() => {});
      await pause(random(30));
      if (random(4) === 0) await proxy.say('resume').catch(() => {});
      // What has been closed and opened anew, in the middle of everything.
      if (random(10) === 0) {
        const n = random(stores.length), timeout = [1, 0.002, 0.02][n];
        const old = stores[n];
        stores[n] = open(through, { prefix, timeout });
        await old.close();
      }
    }
  };
  const all = [terminated(), faults(), ...Array.from({ length: 90 }, (_, n) => one(n))];
  const end = Date.now() + 60000;
  const watch = (async () => {
    while (answered < wanted && Date.now() < end) await Promise.race([pause(10), ...all]); // a mismatch ends it
  })();
  try {
    await watch;
  } finally {
    over = true;
    await proxy.say('pass');
    await proxy.say('resume');
  }
  await Promise.all(all);
  t.diagnostic(`${answered} answered, ${failed} failed`);
  assert(answered >= wanted && failed > 0);
  await calm.clear();
  await Promise.all([calm, ...stores].map((store) => store.close()));
});

// ------------------------------------------------------------------------------------------------------- beside others --

test('all() asks for its sessions together, and an id comes once', async () => {
  const prefix = ownPrefix(), inner = open(url), store = new CounterfoilStore({ store: inner, prefix });
  await Promise.all(Array.from({ length: 1500 }, (_, i) => store.set(`s${i}`, { cookie: {}, n: i })));
  const before = (await inner.stats()).roundTrips;
  assert.equal((await store.all()).reduce((sum, session) => sum + session.n, 0), (1500 * 1499) / 2);
  const trips = (await inner.stats()).roundTrips - before;
  assert(trips < 500, `${trips} round trips for 1500 sessions`);
  await store.clear();
  await inner.close();
  const twice = new CounterfoilStore({ backend: { get: () => '{}', set() {}, delete() {}, scan: (at, cursor) => (cursor === undefined ? { keys: ['sess:a', 'sess:b'], cursor: 1 } : ['sess:b']) } });
  assert.deepEqual(await twice.ids(), ['a', 'b']);
  assert.deepEqual((await twice.all()).map(({ id }) => id), ['a', 'b']);
});

test('connect-redis reads our sessions and we read its', async () => {
  const { RedisStore } = require('connect-redis');
  const client = require('redis').createClient({ url });
  client.on('error', () => {});
  await client.connect();
  const prefix = `sess:${ownPrefix()}`; // both put sess: in front when nothing else is said
  const theirs = new RedisStore({ client, prefix }), ours = new CounterfoilStore({ url, prefix });
  const call = (store, name, ...args) => new Promise((resolve, reject) => store[name](...args, (error, value) => (error ? reject(error) : resolve(value))));
  const session = (user) => ({ cookie: { originalMaxAge: 3600000, expires: new Date(Date.now() + 3600000).toISOString(), httpOnly: true, path: '/' }, user, text: 'é€\u{1F600}' });
  try {
    const [a, b] = [session('a'), session('b')];
    await call(theirs, 'set', 'one', a);
    assert.deepEqual(await call(ours, 'get', 'one'), a);
    await call(ours, 'set', 'two', b);
    assert.deepEqual(await call(theirs, 'get', 'two'), b);
    const ttl = await client.pTTL(`${prefix}two`);
    assert(ttl > 3500000 && ttl <= 3600000, String(ttl));
    await call(ours, 'touch', 'one', session('a'));
    assert.deepEqual(await call(theirs, 'get', 'one'), a);
    assert.deepEqual((await call(ours, 'ids')).sort(), (await call(theirs, 'ids')).sort());
    assert.equal(await call(ours, 'length'), 2);
    await call(theirs, 'destroy', 'two');
    assert.equal(await call(ours, 'get', 'two'), null);
    await call(ours, 'clear');
    assert.equal(await call(theirs, 'length'), 0);
  } finally {
    await ours.close();
    client.destroy();
  }
  assert.equal(new RedisStore({ client: {} }).prefix, 'sess:');
});
