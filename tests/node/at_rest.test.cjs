'use strict';

// Sealed values and hashed keys (core/FORMAT.md 14 and 15): their options, and that nothing beneath sees plain text.

const test = require('node:test');
const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { inspect } = require('node:util');

const { open } = require('counterfoil');

const bytes = (from) => Buffer.from(Array.from({ length: 32 }, (_, i) => from + i));
const ring = [[7, bytes(0)]];
let count = 0;
const name = () => `memory:at-rest-${count++}`;

test('values are envelopes where they lie, and text for who has the key', async () => {
  const url = name();
  const store = open(url, { prefix: 'p:', keys: ring, sealValues: true });
  const raw = open(url);
  await store.set('k', 'the secret');
  const lies = await raw.getBuffer('p:k');
  assert.equal(lies.length, 'the secret'.length + 48);
  assert.equal(lies.subarray(0, 8).toString('hex'), '4366010100000007');
  assert.ok(!lies.includes('secret'));
  assert.equal(await store.get('k'), 'the secret');
  assert.equal((await store.getBuffer('k')).toString(), 'the secret');
  await raw.set('p:other', lies);
  await assert.rejects(store.get('other'), { code: 'CORRUPT' });
  await raw.set('p:plain', 'x'.repeat(100));
  await assert.rejects(store.get('plain'), { code: 'CORRUPT', outcome: 'not_applied' });
  assert.equal(await store.pop('k'), 'the secret');
  await Promise.all([store.close(), raw.close()]);
});

test('an envelope that another implementation made opens', async () => {
  const url = name();
  const store = open(url, { prefix: 'p:', keys: ring, sealValues: true });
  const raw = open(url);
  const golden = '4366010100000007000102030405060708090a0b0c0d0e0f1011121314151617e2bd293ab2f62c90785f1253638be47987';
  await raw.set('p:k', Buffer.from(golden, 'hex'));
  assert.equal(await store.get('k'), 'v');
  await Promise.all([store.close(), raw.close()]);
});

test('a key is changed by putting a new one in front', async () => {
  const url = name();
  const old = open(url, { keys: [[1, bytes(10)]], sealValues: true });
  const now = open(url, { keys: new Map([[2, bytes(20)], [1, bytes(10)]]), sealValues: true });
  const later = open(url, { keys: [[2, new Uint8Array(bytes(20))]], sealValues: true });
  await old.set('k', 'v');
  assert.equal(await now.get('k'), 'v');
  await assert.rejects(later.get('k'), { code: 'CORRUPT' });
  await now.set('k', 'w');
  assert.equal(await later.get('k'), 'w');
  await assert.rejects(old.get('k'), { code: 'CORRUPT' });
  await Promise.all([old.close(), now.close(), later.close()]);
});

test('keys are kept as hashes', async () => {
  const url = name();
  const store = open(url, { prefix: 'p:', hashKeys: true });
  const raw = open(url);
  await store.set('k', 'v', { ttl: 60 });
  assert.equal(await raw.get('p:gecWsmcUr004JfJlVBqEc6bOoYxowX6lxIzDcel3hzU'), 'v');
  assert.equal(await store.count(), 1);
  await assert.rejects(store.count('k'), { code: 'NOT_SUPPORTED' });
  await assert.rejects(store.scan().next(), { code: 'NOT_SUPPORTED' });
  assert.equal(await store.touch('k', 10), true);
  assert.equal(await store.clear(), 1);
  await Promise.all([store.close(), raw.close()]);
});

test('a backend written in JavaScript gets envelopes and hashes, and what is derived works', async () => {
  const seen = new Map();
  class Kept {
    singleProcess = true;
    keepsTtl = true;
    binary = true;
    get(key) { return seen.get(key); }
    set(key, value) { seen.set(key, value); }
    delete(key) { return seen.delete(key); }
  }
  const store = open(new Kept(), { keys: ring, sealValues: true, hashKeys: true });
  await store.set('sid', 'payload');
  assert.equal(await store.set('sid', 'changed', { ifEqual: 'payload' }), true);
  assert.equal(await store.incr('n', 2), 2);
  assert.equal(await store.incr('n', 2), 4);
  for (const [key, value] of seen) {
    assert.match(key, /^[\w-]{43}$/);
    assert.equal(value.subarray(0, 3).toString('hex'), '436601');
    assert.ok(!value.includes('changed'));
  }
  assert.equal(await store.pop('sid'), 'changed');
  await store.close();
});

test('what a backend would have to understand is refused', async () => {
  const store = open('memory:', { keys: ring, sealValues: true });
  await assert.rejects(store.incr('n'), { code: 'NOT_SUPPORTED', outcome: 'not_applied' });
  await assert.rejects(store.set('n', 'a', { ifEqual: 'b' }), { code: 'NOT_SUPPORTED' });
  await store.close();
});

test('options that cannot be are refused, and no key is shown', () => {
  const secret = randomBytes(32);
  const key = Buffer.from('a key that must never be shown!!');
  const bad = [
    { keys: ring }, { sealValues: true }, { keys: [], sealValues: true }, { keys: 'text', sealValues: true }, { keys: 3, sealValues: true },
    { keys: [key], sealValues: true }, { keys: [[1, key.subarray(1)]], sealValues: true }, { keys: [[1, key.toString()]], sealValues: true },
    { keys: [[0, key]], sealValues: true }, { keys: [[1.5, key]], sealValues: true }, { keys: [[2 ** 32, key]], sealValues: true },
    { keys: [['1', key]], sealValues: true }, { keys: [[1, key], [1, secret]], sealValues: true }, { keys: [[1, key, 2]], sealValues: true },
    { keys: Array.from({ length: 65 }, (_, i) => [i + 1, key]), sealValues: true },
    { sealValues: 1 }, { hashKeys: 'yes' }, { keys: ring, sealValues: null },
  ];
  for (const options of bad) {
    assert.throws(() => open('memory:', options), (error) => error.code === 'INVALID' && !inspect(error).includes('never be shown'), inspect(Object.keys(options)));
  }
});
