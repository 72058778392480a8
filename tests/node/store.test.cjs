'use strict';

// What a Store is beyond the cases: events, closing, scans over pages, what it shows of itself, and processes' own business.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { inspect } = require('node:util');
const counterfoil = require('counterfoil');
const { Stage } = require('counterfoil/testing');

const { open, Store, CounterfoilError } = counterfoil;
const fails = (promise, code, outcome = 'not_applied') =>
  assert.rejects(promise, (error) => error instanceof CounterfoilError && error.code === code && error.outcome === outcome);

test('require and import give the same objects', async () => {
  for (const [name, wanted] of [['counterfoil', counterfoil], ['counterfoil/testing', require('counterfoil/testing')], ['counterfoil/express-session', require('counterfoil/express-session')]]) {
    const imported = await import(name);
    for (const key of Object.keys(wanted)) assert.equal(imported[key], wanted[key], `${name}: ${key}`);
    assert.deepEqual(Object.keys(imported).sort(), Object.keys(wanted).sort());
  }
});

test('a store is an EventEmitter that only open makes', () => {
  const store = open('memory:');
  assert(store instanceof Store);
  assert(store instanceof require('node:events').EventEmitter);
  assert.throws(() => new Store(), TypeError);
});

test('methods give promises, also for what is refused', async () => {
  const store = open('memory:');
  const calls = [() => store.get(1), () => store.getBuffer(), () => store.set(), () => store.set('a', 'b', null), () => store.set('a', 'b', { wrong: 1 }),
    () => store.delete({}), () => store.pop([]), () => store.popBuffer(null), () => store.touch('a'), () => store.touch('a', '1'), () => store.incr('a', '1'),
    () => store.incr('a', 1.5), () => store.incr('a', 1, { ttl: 'x' }), () => store.incr('a', 1, { wrong: 1 }), () => store.incr('a', 1, 5), () => store.count(1),
    () => store.clear('a', { force: 1 }), () => store.clear('a', { wrong: true }), () => store.clear('a', null), () => store.getMany('abc'), () => store.getMany(),
    () => store.getMany([1]), () => store.scan(5).next(), () => store.set('a', 'b', { ifAbsent: 1 }), () => store.set('a', 'b', { expiresAt: 5 }),
    () => store.set('a', 'b', { expiresAt: new Date(NaN) }), () => store.set('a', 'b', { ttl: null })];
  for (const call of calls) {
    const promise = call();
    assert(promise instanceof Promise, call.toString());
    await assert.rejects(promise, { code: 'INVALID', outcome: 'not_applied', name: 'CounterfoilError' }, call.toString());
  }
  assert.equal(await store.count(), 0);
});

test('options that are undefined are not given', async () => {
  const store = open('memory:', { prefix: undefined, ttl: undefined, timeout: undefined, stage: undefined, maxEntries: undefined });
  assert.equal(await store.set('a', '1', { ttl: undefined, expiresAt: undefined, ifAbsent: undefined, ifPresent: false, ifEqual: undefined, keepTtl: undefined }), true);
  assert.equal(await store.get('a'), '1');
});

test('text and bytes, of every length around the buffers on the stack', async () => {
  const store = open('memory:');
  for (const length of [0, 1, 6, 7, 8, 9, 2047, 2048, 6139, 6140, 6141, 6143, 6144, 6145, 12288, 100000, 1048576]) {
    const ascii = 'abcdefg'.repeat(Math.ceil(length / 7)).slice(0, length);
    await store.set('a', ascii);
    assert.equal(await store.get('a'), ascii);
    await store.set('b', Buffer.from(ascii));
    assert((await store.getBuffer('b')).equals(Buffer.from(ascii)));
    for (const letter of ['é', '€', '😀']) {
      const text = letter.repeat(Math.floor(length / Buffer.byteLength(letter)));
      await store.set('c', text);
      assert.equal(await store.get('c'), text);
      await store.set('d', `x${text}`.slice(0, -1 * (letter.length)) + 'y');
      assert.equal(await store.get('d'), `x${text}`.slice(0, -1 * (letter.length)) + 'y');
    }
  }
  for (const length of [1020, 1021, 1022, 1023, 1024]) {
    const key = 'k'.repeat(length);
    await store.set(key, 'x');
    assert.equal(await store.get(key), 'x');
    assert.equal(await store.delete(key), true);
    const wide = 'é'.repeat(length >> 1);
    await store.set(wide, 'y');
    assert.equal(await store.get(wide), 'y');
  }
});

test('U+FFFD itself is text like any other', async () => {
  const store = open('memory:');
  await store.set('\ufffd', '\ufffd\ufeff');
  assert.equal(await store.get('\ufffd'), '\ufffd\ufeff');
});

test('bytes may be a view into something larger', async () => {
  const store = open('memory:');
  const whole = new Uint8Array([9, 1, 2, 3, 9]);
  await store.set('a', whole.subarray(1, 4));
  whole.fill(0);
  assert.deepEqual([...(await store.getBuffer('a'))], [1, 2, 3]);
  await store.set('e', new Uint8Array(0));
  assert.equal((await store.getBuffer('e')).length, 0);
});

test('a value that is not UTF-8: get is CORRUPT, pop has taken it', async () => {
  const store = open('memory:');
  for (const hex of ['ff', 'c080', 'eda080', 'f4908080', 'e282', '80', 'f8888080', 'c3', 'f09f98', 'e0808a']) {
    await store.set('a', Buffer.from(hex, 'hex'));
    await fails(store.get('a'), 'CORRUPT');
    assert.equal((await store.getBuffer('a')).toString('hex'), hex);
    await fails(store.pop('a'), 'CORRUPT', 'applied');
    assert.equal(await store.get('a'), undefined);
  }
});

test('getMany: every key, in order, misses undefined, duplicates once', async () => {
  const store = open('memory:');
  await store.set('a', '1');
  await store.set('c', '3');
  assert.deepEqual([...(await store.getMany(['c', 'b', 'a', 'c', '__proto__']))], [['c', '3'], ['b', undefined], ['a', '1'], ['__proto__', undefined]]);
  assert.deepEqual([...(await store.getMany(new Set()))], []);
});

test('scan: pages, an early end, changes meanwhile', async () => {
  const store = open('memory:');
  for (let i = 0; i < 1000; i++) await store.set(`k${i}`, 'x');
  let seen = 0;
  for await (const key of store.scan('k')) {
    assert.match(key, /^k\d+$/);
    if (++seen === 250) break;
  }
  assert.equal(seen, 250);
  const keys = new Map();
  for await (const key of store.scan()) {
    keys.set(key, (keys.get(key) ?? 0) + 1);
    await store.set(`new${keys.size}`, 'x');
    if (keys.size % 2 === 0) await store.delete(`new${keys.size - 1}`);
    if (keys.size > 5000) break;
  }
  for (let i = 0; i < 1000; i++) assert.equal(keys.get(`k${i}`), 1);
});

test('an instant is exact to the millisecond, and so is a ttl', async () => {
  const stage = new Stage();
  const store = open('memory:', { stage });
  await store.set('a', '1', { expiresAt: new Date(stage.now().getTime() + 1500) });
  await store.set('b', '1', { ttl: 1.5 });
  stage.advance(1.499);
  assert.deepEqual([await store.get('a'), await store.get('b')], ['1', '1']);
  stage.advance(0.001);
  assert.deepEqual([await store.get('a'), await store.get('b')], [undefined, undefined]);
});

test('stepping the wall clock moves instants that are given afterwards, and no ttl', async () => {
  const stage = new Stage();
  const store = open('memory:', { stage });
  const before = stage.now().getTime();
  await store.set('a', '1', { ttl: 10 });
  stage.stepWall(3600);
  assert.equal(stage.now().getTime(), before + 3600_000);
  assert.equal(await store.get('a'), '1');
  stage.stepWall(-7200);
  stage.advance(10);
  assert.equal(await store.get('a'), undefined);
});

test('stage: wrong arguments are refused', () => {
  const stage = new Stage();
  for (const call of [() => stage.advance(-1), () => stage.advance(NaN), () => stage.advance('1'), () => stage.stepWall(Infinity), () => stage.failAllocation(-1),
    () => stage.failAllocation(1.5), () => stage.failAllocation(1, { forGood: 1 }), () => open('memory:', { stage: {} }), () => open('memory:', { stage: null })]) {
    assert.throws(call, { code: 'INVALID' }, call.toString());
  }
});

test('close: CLOSED afterwards, the event once, a second close is the same', async () => {
  const store = open('memory:');
  let events = 0;
  store.on('close', () => events++);
  await store.set('a', '1');
  const closing = store.close();
  assert.equal(store.close(), closing);
  assert.equal(await closing, undefined);
  for (const call of [() => store.get('a'), () => store.set('a', 'b'), () => store.scan().next(), () => store.count(), () => store.clear('a'), () => store.stats(), () => store.getMany(['a'])]) {
    await fails(call(), 'CLOSED');
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(events, 1);
  if (Symbol.asyncDispose !== undefined) {
    const other = open('memory:');
    await other[Symbol.asyncDispose]();
    await fails(other.get('a'), 'CLOSED');
  }
});

test('what waits when a store closes is rejected with CLOSED', async () => {
  const store = open({ get: () => new Promise(() => {}), set() {}, delete() {} });
  const waiting = store.get('a');
  await store.close();
  await fails(waiting, 'CLOSED');
});

test('memory:NAME is shared, on one stage only', async () => {
  const a = open('memory:store-test'), b = open('memory:store-test'), c = open('memory:store-test', { stage: new Stage() });
  await a.set('k', 'v');
  assert.equal(await b.get('k'), 'v');
  assert.equal(await c.get('k'), undefined);
  await a.close();
  assert.equal(await b.pop('k'), 'v');
  await Promise.all([b.close(), c.close()]);
});

test('nothing of a store shows its URL, keys or values', async () => {
  const store = open('memory:secret-name', { prefix: 'secret-prefix' });
  await store.set('secret-key', 'secret-value');
  for (const shown of [inspect(store, { depth: 10, showHidden: true }), JSON.stringify(store), JSON.stringify({ store }), String(store), inspect(await store.stats())]) assert.doesNotMatch(shown, /secret/);
  for (const error of [await store.incr('secret-key').catch((e) => e), await store.get('secret-\0').catch((e) => e), await store.set('secret', 'secret', { ttl: NaN }).catch((e) => e)]) {
    assert(error instanceof CounterfoilError);
    assert.doesNotMatch(`${error.message}${inspect(error)}`.replaceAll(/\n {4}at .*/g, ''), /secret/);
  }
  await store.close();
});

test('options of the URL, in camel case or as the URL has them', async () => {
  const store = open('memory:', { maxEntries: 2 });
  for (const key of ['a', 'b', 'c']) await store.set(key, 'x');
  assert.equal(await store.count(), 2);
  assert.equal((await store.stats()).evicted, 1);
  const other = open('memory:?max_bytes=100000', { max_entries: '1' });
  await other.set('a', 'x');
  await other.set('b', 'x');
  assert.equal(await other.count(), 1);
});

test('stats count', async () => {
  const store = open('memory:');
  await store.set('a', '1');
  await store.get('').catch(() => {});
  const stats = await store.stats();
  assert.equal(stats.entries, 1);
  assert(stats.operations >= 1 && stats.errors >= 1 && stats.pending === 0);
});

test('a store that is dropped gives its memory back', async () => {
  require('node:v8').setFlagsFromString('--expose-gc');
  const gc = require('node:vm').runInNewContext('gc');
  const stage = new Stage();
  (() => { for (let i = 0; i < 50; i++) open('memory:', { stage }); })();
  assert.notEqual(stage.blocks, 0);
  for (let i = 0; i < 20 && stage.blocks > 0; i++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(stage.blocks, 0);
});

// What jest.resetModules(), and a bundle beside a package, make of it: our files are evaluated again, while what is already open goes on.
test('copies of the package in one process do not disturb each other', async () => {
  const files = Object.keys(require.cache).filter((file) => file.startsWith(path.join(__dirname, '..', '..', 'node') + path.sep));
  const before = new Map(files.map((file) => [file, require.cache[file]]));
  const store = open({ get: () => Promise.resolve('later'), set() {}, delete() {} });
  let second;
  try {
    for (const file of files) delete require.cache[file];
    second = require('counterfoil');
  } finally {
    for (const [file, module] of before) require.cache[file] = module;
  }
  assert.notEqual(second.CounterfoilError, CounterfoilError);
  const others = second.open({ get: () => Promise.resolve('theirs'), set() {}, delete() {} });
  assert.equal(await store.get('a'), 'later');
  assert.equal(await others.get('a'), 'theirs');
  await assert.rejects(store.get(''), (error) => error instanceof CounterfoilError);
  await assert.rejects(others.get(''), (error) => error instanceof second.CounterfoilError && !(error instanceof CounterfoilError));
  await store.close();
  await others.close();
});

test('when the last store is closed, its descriptors are too', () => {
  const script = `
    const { open } = require('counterfoil');
    const count = () => require('node:fs').readdirSync('/proc/self/fd').length;
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const once = async () => {
      const [memory, waits] = [open('memory:'), open({ get: async () => { await turn(); return 'v'; }, set() {}, delete() {} })];
      await Promise.all([memory.get('a'), memory.count(), waits.get('a')]);
      const during = count();
      await memory.close();
      await waits.close();
      await turn();
      return during;
    };
    (async () => {
      await once();
      const before = count(), during = await once();
      console.log(during > before, count() - before);
    })();`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: path.join(__dirname, '..', '..'), encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(stdout, 'true 0\n');
});

test('a refusal says what there is', async () => {
  const store = open('memory:');
  await assert.rejects(store.set('a', 'b', { TTL: 1 }), /unknown option: TTL \(known: ttl, /);
  await assert.rejects(store.set('a', 'b', { expiresAt: new Date(NaN) }), /expiresAt must be a valid Date/);
  await assert.rejects(store.incr('a', 1, { tll: 1 }), /unknown option: tll \(known: ttl, receipt\)/);
  assert.throws(() => open({ get() {}, set() {}, delete() {} }, { maxEntries: 3 }), { code: 'INVALID', message: /unknown option: maxEntries \(with a backend object: prefix, / });
  assert.throws(() => open(class { get() {} set() {} delete() {} }), { code: 'INVALID', message: /an instance of this class/ });
});

test('a receipt is text, and only for the calls that have one', async () => {
  const store = open('memory:');
  const receipt = '0123456789abcdef'.repeat(2);
  await fails(store.pop('a', { receipt }), 'NOT_SUPPORTED');
  await fails(store.popBuffer('a', { receipt }), 'NOT_SUPPORTED');
  await fails(store.incr('a', 1, { receipt }), 'NOT_SUPPORTED');
  await fails(store.set('a', 'b', { receipt, ifAbsent: true }), 'NOT_SUPPORTED');
  await fails(store.set('a', 'b', { receipt }), 'INVALID');
  for (const wrong of ['x', receipt.toUpperCase(), `${receipt}0`, 'é'.repeat(16), 'x'.repeat(10000), 5, null, Buffer.from(receipt)]) {
    await fails(store.pop('a', { receipt: wrong }), 'INVALID');
    await fails(store.popBuffer('a', { receipt: wrong }), 'INVALID');
    await fails(store.incr('a', 1, { receipt: wrong }), 'INVALID');
    await fails(store.set('a', 'b', { receipt: wrong, ifAbsent: true }), 'INVALID');
  }
  await fails(store.pop('a', { reciept: receipt }), 'INVALID');
  await fails(store.pop('a', null), 'INVALID');
  assert.equal(await store.incr('a', 1, { receipt: undefined, ttl: undefined }), 1);
  assert.equal(await store.pop('a', { receipt: undefined }), '1');
  assert.equal(await store.set('a', 'b', { receipt: undefined }), true);
});

test('the receipt of an error is there for the program, and in no log', () => {
  const error = new CounterfoilError('lost', 'UNAVAILABLE', 'unknown', 'the-receipt');
  assert.equal(error.receipt, 'the-receipt');
  assert.deepEqual(Object.keys(error), ['code', 'outcome']);
  assert.doesNotMatch(inspect(error) + JSON.stringify(error), /the-receipt/);
  assert.equal('receipt' in new CounterfoilError('lost', 'UNAVAILABLE', 'unknown'), false);
});

test('what is not the text of a URL, or no value of an option, is refused by name', () => {
  assert.throws(() => open(new URL('redis://localhost')), { code: 'INVALID', message: /URL as a string/ });
  for (const value of [Buffer.from('x'), new URL('file:///x'), null, {}, Symbol('x'), () => {}]) {
    assert.throws(() => open('rediss://localhost', { tlsCa: value }), { code: 'INVALID', message: /option tlsCa must be a string, a number or a boolean/ });
  }
  assert.throws(() => open('redis://localhost', { password: 'a\ud800' }), { code: 'INVALID', message: /option password has a lone surrogate/ });
});
