'use strict';

// Backends written in JavaScript, and every way in which they can misbehave.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { open, Backend, CounterfoilError } = require('counterfoil');
const { Stage } = require('counterfoil/testing');

const base = () => {
  const map = new Map();
  return { map, get: (key) => map.get(key), set: (key, value) => { map.set(key, value); }, delete: (key) => map.delete(key) };
};
const fails = (promise, code, outcome) =>
  assert.rejects(promise, (error) => {
    assert(error instanceof CounterfoilError, String(error));
    assert.deepEqual([error.code, error.outcome], [code, outcome ?? 'not_applied'], error.message);
    return true;
  });
const tick = () => new Promise((resolve) => setImmediate(resolve));
const thrown = (promise) => promise.then(() => assert.fail('it did not throw'), (error) => error);

test('open names the method that is missing, and refuses what is no backend', () => {
  for (const name of ['get', 'set', 'delete']) {
    const backend = base();
    delete backend[name];
    assert.throws(() => open(backend), (error) => error.code === 'INVALID' && error.message.includes(`${name}()`));
  }
  assert.throws(() => open(new Backend()), { code: 'INVALID' });
  assert.throws(() => open(class extends Backend {}), { code: 'INVALID' });
  for (const wrong of [{ pop: 5 }, { scan: 'x' }, { setIf: {} }, { close: true }, { binary: 1 }, { keepsTtl: 'yes' }, { singleProcess: null }]) {
    assert.throws(() => open({ ...base(), ...wrong }), (error) => error.code === 'INVALID' && error.message.includes(Object.keys(wrong)[0]));
  }
});

test('a class and a plain object, with their own this', async () => {
  class Mine extends Backend {
    #map = new Map();
    get(key) { return this.#map.get(key); }
    set(key, value) { this.#map.set(key, value); }
    delete(key) { return this.#map.delete(key); }
  }
  const store = open(new Mine(), { prefix: 'p:' });
  assert.equal(await store.set('a', '1'), true);
  assert.equal(await store.get('a'), '1');
  assert.equal(await store.delete('a'), true);
  assert.equal(await store.delete('a'), false);
});

test('what the methods are given', async () => {
  const calls = [];
  const log = (name, result) => (...args) => { calls.push([name, ...args]); return result; };
  const store = open({
    keepsTtl: true, get: log('get'), set: log('set'), delete: log('delete'), pop: log('pop'), touch: log('touch', true), incr: log('incr', 7), setIf: log('setIf', true),
    scan: log('scan', { keys: ['p:1', 'other', 5 > 4 ? 'p:2' : ''], cursor: null }),
  }, { prefix: 'p:', ttl: 60 });
  await store.get('k');
  await store.set('k', 'v');
  await store.set('k', Buffer.from('w'), { ttl: 0.0015 });
  await store.set('k', 'v', { keepTtl: true });
  await store.set('k', 'v', { ifAbsent: true });
  await store.set('k', 'v', { ifPresent: true, keepTtl: true });
  await store.set('k', 'v', { ifEqual: 'u', ttl: 5 });
  await store.pop('k');
  await store.touch('k', 1.5);
  await store.incr('k', -3);
  await store.incr('k', 1, { ttl: 2 });
  await store.delete('k');
  const keys = [];
  for await (const key of store.scan('')) keys.push(key);
  assert.deepEqual(keys, ['1', '2']);
  const K = Backend.KEEP;
  assert.deepEqual(calls, [
    ['get', 'p:k'], ['set', 'p:k', 'v', 60], ['set', 'p:k', 'w', 0.002], ['set', 'p:k', 'v', K, 60], ['setIf', 'p:k', 'v', 60, 'absent', undefined],
    ['setIf', 'p:k', 'v', K, 'present', undefined, 60], ['setIf', 'p:k', 'v', 5, 'equal', 'u'], ['pop', 'p:k'], ['touch', 'p:k', 1.5], ['incr', 'p:k', -3, 60], ['incr', 'p:k', 1, 2],
    ['delete', 'p:k'], ['scan', 'p:', undefined, 100],
  ]);
  calls.length = 0;
  const plain = open({ get: log('get'), set: log('set'), delete: log('delete') });
  await plain.set('k', 'v');
  assert.deepEqual(calls, [['set', 'k', 'v', undefined]]);
});

test('a set whose instant has passed deletes', async () => {
  const backend = base();
  const store = open(backend);
  await store.set('a', '1');
  assert.equal(await store.set('a', '2', { expiresAt: new Date(0) }), true);
  assert.equal(backend.map.size, 0);
});

test('what is lacking is NOT_SUPPORTED, nothing is emulated', async () => {
  const store = open(base());
  await store.set('a', '1');
  for (const call of [() => store.pop('a'), () => store.touch('a', 1), () => store.incr('a'), () => store.set('a', 'x', { ifAbsent: true }), () => store.set('a', 'x', { keepTtl: true }),
    () => store.scan().next(), () => store.count(), () => store.clear('a')]) await fails(call(), 'NOT_SUPPORTED');
  assert.equal(await store.get('a'), '1');
});

test('text only, unless it says binary', async () => {
  const store = open(base());
  await fails(store.set('a', Buffer.from([255])), 'INVALID');
  const backend = { ...base(), binary: true };
  const bytes = open(backend);
  await bytes.set('a', Buffer.from([255]));
  assert(Buffer.isBuffer(backend.map.get('a')));
  assert.equal((await bytes.getBuffer('a'))[0], 255);
  await bytes.set('b', 'text');
  assert.equal(await bytes.get('b'), 'text');
});

test('either form may be given back', async () => {
  for (const [given, text] of [['é', 'é'], [Buffer.from('é'), 'é'], [new Uint8Array([65]), 'A'], ['', ''], [null, undefined], [undefined, undefined], [Buffer.alloc(0), '']]) {
    for (const result of [given, Promise.resolve(given)]) {
      const store = open({ ...base(), get: () => result, pop: () => result });
      assert.equal(await store.get('a'), text);
      assert.equal(await store.pop('a'), text);
      assert.deepEqual(await store.getBuffer('a'), text === undefined ? undefined : Buffer.from(text));
    }
  }
});

test('what they throw arrives as the same object', async () => {
  const methods = { get: (s) => s.get('a'), set: (s) => s.set('a', 'b'), delete: (s) => s.delete('a'), pop: (s) => s.pop('a'), touch: (s) => s.touch('a', 1), incr: (s) => s.incr('a'),
    setIf: (s) => s.set('a', 'b', { ifAbsent: true }), scan: (s) => s.scan().next() };
  for (const value of [new Error('mine'), new CounterfoilError('mine', 'BUSY', 'unknown'), Object.freeze({ a: 1 }), 'text', 5, undefined, null, Symbol('x'), 7n, false, () => {}]) {
    for (const [name, call] of Object.entries(methods)) {
      const sync = open({ ...base(), pop() {}, touch() {}, incr() {}, setIf() {}, scan() {}, [name]() { throw value; } });
      assert.equal(await thrown(call(sync)), value, `${name} throws`);
      const async = open({ ...base(), pop() {}, touch() {}, incr() {}, setIf() {}, scan() {}, [name]: () => Promise.reject(value) });
      assert.equal(await thrown(call(async)), value, `${name} rejects`);
    }
    const derived = open({ ...base(), singleProcess: true, get() { throw value; } });
    assert.equal(await thrown(derived.pop('a')), value, 'through what is derived');
    const composed = open({ ...base(), scan: async () => ['a'], delete() { throw value; } });
    assert.equal(await thrown(composed.clear('', { force: true })), value, 'through what is composed');
  }
});

test('a result of a wrong type is CORRUPT: it names the method and the type, never the value', async () => {
  const wrong = {
    get: [(s) => s.get('k'), 'not_applied', [5, true, {}, [], Symbol('secret'), () => {}, 1n, new Date(), 'secret\ud800', 'x'.repeat(1048577), Buffer.alloc(1048577), new Float64Array(1)]],
    pop: [(s) => s.pop('k'), 'unknown', [5, true, {}, []]],
    delete: [(s) => s.delete('k'), 'unknown', ['secret', 1, {}, []]],
    touch: [(s) => s.touch('k', 1), 'unknown', ['secret', 1, {}, [], undefined, null]],
    setIf: [(s) => s.set('k', 'v', { ifAbsent: true }), 'unknown', ['secret', 1, {}, undefined]],
    incr: [(s) => s.incr('k'), 'unknown', ['5', null, undefined, {}, 1.5, NaN, 2 ** 53, Infinity, 5n]],
    scan: [(s) => s.scan().next(), 'not_applied', ['secret', 5, null, undefined, {}, { keys: 'secret' }, { keys: [5] }, { keys: [], cursor: {} }, { keys: [], cursor: 'x'.repeat(1280) }, { keys: [], cursor: 'é'.repeat(640) }, { keys: [], cursor: 'x'.repeat(9999) }, [5], [null], [['secret']]]],
  };
  for (const [name, [call, outcome, results]] of Object.entries(wrong)) {
    for (const result of results) {
      for (const given of [() => result, async () => result]) {
        const error = await thrown(call(open({ ...base(), [name]: given })));
        assert(error instanceof CounterfoilError, String(error));
        assert.deepEqual([error.code, error.outcome], ['CORRUPT', outcome], `${name}: ${error.message}`);
        assert.doesNotMatch(error.message, /secret/);
        if (!(typeof result === 'object' && result?.cursor)) assert.match(error.message, new RegExp(name), error.message);
      }
    }
  }
});

test('the result of set is not looked at', async () => {
  for (const result of [undefined, false, 5, {}, new Map(), Symbol('x')]) assert.equal(await open({ ...base(), set: () => result }).set('a', 'b'), true);
});

test('a promise that never settles ends at the deadline, and its late answer reaches nobody', async () => {
  const stage = new Stage();
  const settle = [];
  const store = open({ ...base(), get: () => new Promise((resolve, reject) => settle.push([resolve, reject])) }, { stage, timeout: 2 });
  const first = store.get('a');
  let done = false;
  first.catch(() => { done = true; });
  stage.advance(1.999);
  await tick(); await tick();
  assert.equal(done, false);
  stage.advance(0.001);
  await fails(first, 'TIMEOUT');
  const second = store.get('b');
  settle[0][0]('the answer for a');
  await tick();
  settle[1][0]('the answer for b');
  assert.equal(await second, 'the answer for b');
  const third = store.get('c');
  await store.close();
  await fails(third, 'CLOSED');
  settle[2][1](new Error('too late'));
  await tick();
  assert.equal(stage.blocks, 0);
});

test('a write that timed out is of unknown outcome', async () => {
  const stage = new Stage();
  const store = open({ ...base(), set: () => new Promise(() => {}) }, { stage, timeout: 1 });
  const set = store.set('a', 'b');
  stage.advance(1);
  await fails(set, 'TIMEOUT', 'unknown');
});

test('hostile thenables', async () => {
  const mine = new Error('mine');
  const get = (result) => open({ ...base(), get: () => result }, { timeout: 0.05 }).get('a');
  assert.equal(await get({ then(resolve) { resolve('1'); resolve('2'); } }), '1', 'settles twice');
  assert.equal(await get({ then(resolve, reject) { resolve('1'); reject(mine); throw mine; } }), '1', 'settles, rejects and throws');
  assert.equal(await thrown(get({ then() { throw mine; } })), mine, 'then throws');
  assert.equal(await thrown(get({ get then() { throw mine; } })), mine, 'the getter throws');
  let reads = 0;
  assert.equal(await thrown(get({ get then() { if (++reads > 1) throw mine; return () => {}; } })), mine, 'the getter throws the second time');
  assert.equal(await get({ then(resolve) { setImmediate(resolve, { then(r) { r('nested'); } }); } }), 'nested');
  await fails(get({ then() {} }), 'TIMEOUT');
  await fails(get({ then(resolve) { resolve({ then() {} }); } }), 'TIMEOUT');
  const overridden = Promise.resolve('real');
  overridden.then = (resolve) => { resolve('1'); resolve('2'); };
  assert.equal(await get(overridden), '1');
  const construct = Promise.resolve('real');
  Object.defineProperty(construct, 'constructor', { get() { throw mine; } });
  assert.equal(await get(construct).catch((error) => (error === mine ? 'real' : error)), 'real');
  await fails(get(new Proxy({}, { get: () => 5 })), 'CORRUPT');
  const f = () => {};
  f.then = (resolve) => resolve('a function');
  assert.equal(await get(f), 'a function');
  const itself = { then(resolve) { resolve(itself); } };
  void itself; // (a promise resolved by a thenable that gives itself again never ends: no backend can be stopped from that)
});

test('hostile pages', async () => {
  const mine = new Error('mine');
  const page = (result) => open({ ...base(), scan: () => result }, { timeout: 1 }).scan().next();
  for (const hostile of [() => ({ get keys() { throw mine; } }), () => ({ keys: [], get cursor() { throw mine; } }), () => new Proxy([], { get(target, name) { if (name === 'then') return undefined; throw mine; } }),
    () => ({ keys: new Proxy(['a'], { get() { throw mine; } }) })]) {
    assert.equal(await thrown(page(hostile())), mine);
    assert.equal(await thrown(page(Promise.resolve().then(hostile))), mine);
  }
  let store;
  store = open({ ...base(), scan: async () => ({ get keys() { store.close(); return ['a']; } }) });
  await fails(store.scan().next(), 'CLOSED');
});

test('scan: cursors come back as they were given', async () => {
  for (const cursors of [[1, 2.5, -3], ['a', 'é', '12345678'], ['', 0, '0'], ['s'.repeat(254)], ['s'.repeat(1279)], ['é'.repeat(639)], [NaN]]) {
    const seen = [];
    const store = open({ ...base(), scan: (prefix, cursor) => { seen.push(cursor); return { keys: [`k${seen.length}`], cursor: cursors[seen.length - 1] }; } });
    const keys = [];
    for await (const key of store.scan()) keys.push(key);
    assert.deepEqual(seen, [undefined, ...cursors]);
    assert.equal(keys.length, cursors.length + 1);
  }
});

test('scan: keys that this library could not have written are passed over', async () => {
  const store = open({ ...base(), scan: () => ['p:ok', 'q:other', 'p:', 'p:a\nb', 'p:\ud800', `p:${'x'.repeat(1025)}`, `p:${'x'.repeat(5000)}`, 'p'] }, { prefix: 'p:' });
  const keys = [];
  for await (const key of store.scan()) keys.push(key);
  assert.deepEqual(keys, ['ok']);
});

test('a backend may call its own store, to a depth of 16', async () => {
  let store, deepest = 0;
  const nested = (depth) => (key) => {
    deepest = Math.max(deepest, Number(key));
    return depth(Number(key));
  };
  store = open({ ...base(), get: nested((n) => (n < 5 ? store.get(String(n + 1)) : 'bottom')) });
  assert.equal(await store.get('1'), 'bottom');
  assert.equal(deepest, 5);
  deepest = 0;
  store = open({ ...base(), get: nested((n) => store.get(String(n + 1))) });
  await fails(store.get('1'), 'INVALID');
  assert.equal(deepest, 16);
});

test('a store over a store', async () => {
  const inner = open('memory:');
  const outer = open({ get: (key) => inner.get(key), set: (key, value, ttl) => inner.set(key, value, { ttl }), delete: (key) => inner.delete(key), pop: (key) => inner.pop(key) }, { prefix: 'outer:' });
  await outer.set('a', '1', { ttl: 5 });
  assert.equal(await inner.get('outer:a'), '1');
  assert.equal(await outer.pop('a'), '1');
  assert.equal(await outer.get('a'), undefined);
});

test('close from inside a call takes effect when the call returns', async () => {
  let store, closed = 0, closing;
  const backend = { ...base(), close() { closed++; }, get() { closing = store.close(); assert.equal(closed, 0); return 'answer'; } };
  store = open(backend);
  const result = await store.get('a').catch((error) => error);
  assert(result === 'answer' || result.code === 'CLOSED', String(result));
  await closing;
  assert.equal(closed, 1);
  await fails(store.get('a'), 'CLOSED');
  let other, otherClosing;
  other = open({ ...base(), async get() { otherClosing = other.close(); return 'late'; } });
  const late = await other.get('a').catch((error) => error);
  assert(late === 'late' || late.code === 'CLOSED', String(late));
  await otherClosing;
});

test('close is called once, when the last store over the object closes', async () => {
  let closed = 0;
  const backend = { ...base(), close() { closed++; } };
  const stores = [open(backend), open(backend, { prefix: 'p:' }), open(backend, { stage: new Stage() })];
  await stores[0].close();
  await stores[0].close();
  await stores[1].close();
  assert.equal(closed, 0);
  await stores[2].close();
  assert.equal(closed, 1);
  await open(backend).close();
  assert.equal(closed, 2, 'opened again, closed again');
});

test('close is called once when opening failed after the core had it, unless another store is open', async () => {
  let closed = 0;
  const backend = { ...base(), close() { closed++; } };
  const store = open(backend);
  assert.throws(() => open(backend, { prefix: 'a\n' }), { code: 'INVALID' });
  assert.throws(() => open(backend, { ttl: 'x' }), { code: 'INVALID' });
  assert.equal(closed, 0);
  await store.close();
  assert.equal(closed, 1);
  assert.throws(() => open(backend, { prefix: 'a\n' }), { code: 'INVALID' });
  assert.equal(closed, 2);
  const rejecting = { ...base(), close: () => Promise.reject(new Error('nobody listens')) };
  assert.throws(() => open(rejecting, { prefix: 'a\n' }), { code: 'INVALID' });
  await tick(); // an unhandled rejection would fail this test
});

test('a close that throws or rejects: close() rejects with it, the store is closed, the event comes', async () => {
  const mine = new Error('mine');
  for (const close of [() => { throw mine; }, () => Promise.reject(mine), () => ({ then(_, reject) { reject(mine); } })]) {
    const store = open({ ...base(), close });
    const event = new Promise((resolve) => store.once('close', resolve));
    assert.equal(await thrown(store.close()), mine);
    await event;
    await fails(store.get('a'), 'CLOSED');
    assert.equal(await thrown(store.close()), mine);
  }
});

test('a close that never settles has the deadline too', async () => {
  const store = open({ ...base(), close: () => new Promise(() => {}) }, { timeout: 0.02 });
  await fails(store.close(), 'TIMEOUT', 'unknown');
});

test('what is derived has one winner, also over promises', async () => {
  const map = new Map();
  const pause = () => new Promise((resolve) => setImmediate(resolve));
  const backend = {
    singleProcess: true, keepsTtl: true,
    get: async (key) => { await pause(); return map.get(key); }, set: async (key, value) => { await pause(); map.set(key, value); }, delete: async (key) => { await pause(); return map.delete(key); },
  };
  const stores = [open(backend), open(backend)];
  await stores[0].set('code', '42');
  const pops = await Promise.all(Array.from({ length: 20 }, (_, i) => stores[i % 2].pop('code')));
  assert.deepEqual(pops.filter((value) => value !== undefined), ['42']);
  const counts = await Promise.all(Array.from({ length: 20 }, (_, i) => stores[i % 2].incr('n')));
  assert.deepEqual(counts.sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i + 1));
  const firsts = await Promise.all(Array.from({ length: 20 }, (_, i) => stores[i % 2].set('lock', String(i), { ifAbsent: true })));
  assert.equal(firsts.filter(Boolean).length, 1);
  await Promise.all(stores.map((store) => store.close()));
});

test('many operations in flight, settled in any order', async () => {
  const waiting = [];
  const store = open({ ...base(), get: (key) => new Promise((resolve) => waiting.push(() => resolve(`v${key}`))) });
  const results = Array.from({ length: 500 }, (_, i) => store.get(String(i)));
  for (const settle of waiting.sort(() => Math.random() - 0.5)) settle(); // whatever the order, it must come out right
  assert.deepEqual(await Promise.all(results), Array.from({ length: 500 }, (_, i) => `v${i}`));
  assert.equal((await store.stats()).pending, 0);
});

test('async local storage follows an operation', async () => {
  const { AsyncLocalStorage } = require('node:async_hooks');
  const storage = new AsyncLocalStorage();
  const store = open({ ...base(), get: async () => { await tick(); return String(storage.getStore()); } });
  const values = await Promise.all([1, 2, 3].map((n) => storage.run(n, async () => [await store.get('a'), storage.getStore()])));
  assert.deepEqual(values, [['1', 1], ['2', 2], ['3', 3]]);
});
