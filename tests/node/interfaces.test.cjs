'use strict';

// Storage and SecondaryStorage beyond the cases: JSON, ids, and the contracts of those who call them.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { open, Storage, SecondaryStorage, CounterfoilError } = require('counterfoil');
const { Stage } = require('counterfoil/testing');

test('Storage: what JSON can say comes back as a copy', async () => {
  const storage = new Storage(open('memory:'));
  for (const state of [{ accessToken: 'a', scopes: ['x'], nested: { n: 1.5, t: true, nothing: null } }, [], {}, '', 'text', 0, -1.5, false, true, 'é😀\u2028']) {
    await storage.set('id', state);
    const copy = await storage.get('id');
    assert.deepEqual(copy, state);
    if (typeof state === 'object') {
      copy.changed = true;
      assert.deepEqual(await storage.get('id'), state);
    }
  }
});

test('Storage: undefined and null delete; a miss is undefined', async () => {
  const store = open('memory:');
  const storage = new Storage(store);
  for (const nothing of [undefined, null]) {
    await storage.set(1, { a: 1 });
    assert.equal(await storage.set(1, nothing), undefined);
    assert.equal(await storage.get(1), undefined);
    assert.equal(await store.count(), 0);
    await storage.set(1, nothing);
  }
});

test('Storage: an integer is its decimal text', async () => {
  const storage = new Storage(open('memory:'));
  for (const [one, other] of [[1, '1'], ['1', 1n], [-5, '-5'], [0, -0], [Number.MAX_SAFE_INTEGER, '9007199254740991'], [BigInt(Number.MIN_SAFE_INTEGER), Number.MIN_SAFE_INTEGER]]) {
    await storage.set(one, { id: String(one) });
    assert.deepEqual(await storage.get(other), { id: String(one) });
    await storage.set(other);
    assert.equal(await storage.get(one), undefined);
  }
  await storage.set('01', { a: 1 });
  assert.equal(await storage.get(1), undefined);
});

test('Storage: names of prototypes are ids, and states that hold them pollute nothing', async () => {
  const storage = new Storage(open('memory:'));
  for (const id of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
    assert.equal(await storage.get(id), undefined);
    await storage.set(id, { id });
    assert.deepEqual(await storage.get(id), { id });
  }
  const state = JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}}');
  await storage.set('x', state);
  const back = await storage.get('x');
  assert.deepEqual(Object.keys(back), ['__proto__', 'constructor']);
  assert.equal(back.polluted, undefined);
  assert.equal(Object.getPrototypeOf(back), Object.prototype);
  assert.equal({}.polluted, undefined);
});

test('Storage: what is no JSON is CORRUPT and is not shown', async () => {
  const store = open('memory:');
  await store.set('id', 'secret{');
  await assert.rejects(new Storage(store).get('id'), (error) => error instanceof CounterfoilError && error.code === 'CORRUPT' && !`${error.stack}${error.cause}`.includes('secret{'));
});

test('Storage: over memory a set is visible at once, awaited or not', async () => {
  const storage = new Storage(open('memory:'));
  const set = storage.set('id', { n: 1 });
  const get = storage.get('id');
  assert.deepEqual(await get, { n: 1 });
  await set;
});

test('Storage over a backend with promises, and its errors', async () => {
  const map = new Map(), mine = new Error('mine');
  const storage = new Storage(open({ get: async (key) => { if (key === 'bad') throw mine; return map.get(key); }, set: async (key, value) => map.set(key, value), delete: async (key) => map.delete(key) }));
  await storage.set(7, { a: 'é' });
  assert.equal(map.get('7'), '{"a":"é"}');
  assert.deepEqual(await storage.get('7'), { a: 'é' });
  await storage.set('7', null);
  assert.equal(map.size, 0);
  await assert.rejects(storage.get('bad'), (error) => error === mine);
});

test('SecondaryStorage: ten minutes by default, its own ttl, and one for each set', async () => {
  for (const [options, life] of [[undefined, 600], [{}, 600], [{ ttl: undefined }, 600], [{ ttl: 1.5 }, 1.5], [30, 30]]) {
    const stage = new Stage();
    const secondary = new SecondaryStorage(open('memory:', { stage, ttl: 5 }), options);
    assert.equal(await secondary.set('a', '1'), undefined);
    stage.advance(life - 0.001);
    assert.equal(await secondary.get('a'), '1');
    stage.advance(0.001);
    assert.equal(await secondary.get('a'), undefined);
    await secondary.set('a', '1', 2);
    stage.advance(1.999);
    assert.equal(await secondary.pop('a'), '1');
    assert.equal(await secondary.pop('a'), undefined);
  }
});

test('SecondaryStorage: zero seconds or fewer delete', async () => {
  for (const ttl of [0, -0, -1, -Infinity, -Number.MAX_VALUE]) {
    const secondary = new SecondaryStorage(open('memory:'));
    await secondary.set('a', '1');
    assert.equal(await secondary.set('a', '2', ttl), undefined);
    assert.equal(await secondary.get('a'), undefined);
  }
});

test('SecondaryStorage: delete gives nothing; bytes may go in', async () => {
  const secondary = new SecondaryStorage(open('memory:'));
  await secondary.set('a', Buffer.from('é'));
  assert.equal(await secondary.get('a'), 'é');
  assert.equal(await secondary.delete('a'), undefined);
  assert.equal(await secondary.delete('a'), undefined);
});

test('SecondaryStorage: one winner', async () => {
  const secondary = new SecondaryStorage(open('memory:'));
  await secondary.set('code', '1');
  const results = await Promise.all(Array.from({ length: 50 }, () => secondary.pop('code')));
  assert.equal(results.filter((value) => value === '1').length, 1);
});

test('one backend object under every interface', async () => {
  const { MapBackend } = require('../../examples/js_backend.cjs');
  const backend = new MapBackend();
  const store = open(backend, { prefix: 'a:' });
  await new Storage(store).set(1, { n: 1 });
  await new SecondaryStorage(open(backend, { prefix: 'b:' })).set('code', 'x');
  assert.deepEqual([...backend.entries.keys()].sort(), ['a:1', 'b:code']);
  assert.equal(await store.count(), 1);
});

test('Storage: a state that has ended stays ended', async () => {
  const storage = new Storage(open('memory:'));
  await storage.set('id', { n: 1 });
  assert.equal(await storage.save('id', { n: 2 }), true);
  assert.deepEqual(await storage.get('id'), { n: 2 });
  await storage.set('id', undefined);
  assert.equal(await storage.save('id', { n: 3 }), false);
  assert.equal(await storage.update('id', () => assert.fail('there is none')), undefined);
  assert.equal(await storage.get('id'), undefined);
  await assert.rejects(storage.save('id', null), { code: 'INVALID' });
  await assert.rejects(storage.update('id', 3), { code: 'INVALID' });
});

test('Storage: update asks again about what is there then, and loses nobody\'s change', async () => {
  const storage = new Storage(open('memory:'));
  await storage.set('id', { n: 0 });
  await Promise.all(Array.from({ length: 50 }, () => storage.update('id', async (state) => {
    await new Promise(setImmediate);
    return { n: state.n + 1 };
  })));
  assert.deepEqual(await storage.get('id'), { n: 50 });
  await assert.rejects(storage.update('id', () => { throw new RangeError('mine'); }), RangeError);
  assert.equal(await storage.update('id', async (state) => {
    await storage.set('id', undefined);
    return state;
  }), undefined);
  assert.equal(await storage.get('id'), undefined);
  await storage.set('id', { n: 1 });
  assert.equal(await storage.update('id', () => undefined), undefined);
  assert.equal(await storage.get('id'), undefined);
});
