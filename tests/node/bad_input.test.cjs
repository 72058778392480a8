'use strict';

// Bad input gives the documented error, by its code, and changes nothing: neither memory nor a backend in JavaScript sees any of it.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { open, Storage, SecondaryStorage, CounterfoilError } = require('counterfoil');

const long = 'x'.repeat(1024 * 1024 + 1);
const KEYS = {
  empty: '', NUL: 'a\0b', 'line feed': 'a\nb', 'carriage return': 'a\rb', 'too long': 'k'.repeat(1025), 'too long in bytes': 'é'.repeat(513),
  'a MiB and one': long, 'high surrogate': 'a\ud800', 'low surrogate': '\udc00a', 'surrogates the wrong way round': '\udc00\ud800', 'surrogate in a long text': `${'é'.repeat(300)}\udbff`,
  number: 1, boolean: true, null: null, undefined: undefined, object: {}, array: ['a'], symbol: Symbol('a'), bigint: 1n, function() {}, Buffer: Buffer.from('a'), 'String object': Object('a'),
};
const VALUES = {
  'a MiB and one': long, 'a MiB and one in bytes': Buffer.alloc(1024 * 1024 + 1), 'two-byte letters': 'é'.repeat(512 * 1024 + 1), 'high surrogate': 'a\ud800', 'low surrogate': '\udc00',
  'surrogate at the end of a long text': `${'x'.repeat(10000)}\ud83d`, 'surrogate after U+FFFD': '\ufffd\ud800', number: 1, boolean: false, null: null, undefined: undefined, object: {}, array: [1],
  symbol: Symbol('a'), bigint: 1n, DataView: new DataView(new ArrayBuffer(1)), Float64Array: new Float64Array(1), Uint8ClampedArray: new Uint8ClampedArray(1), ArrayBuffer: new ArrayBuffer(1),
};
const TTLS = {
  zero: 0, 'minus zero': -0, negative: -1, NaN: NaN, infinite: Infinity, 'minus infinite': -Infinity, 'ten years and a bit': 315360000.001, huge: Number.MAX_VALUE, text: '1', boolean: true, null: null,
  object: {}, array: [1], bigint: 1n,
};

/** A backend that fails the test when it is asked for anything but reading. */
function untouched() {
  const content = new Map([['there', 'before'], ['number', '5']]);
  const never = () => assert.fail('the backend was reached');
  return { get: (key) => content.get(key), set: never, delete: never, pop: never, touch: never, incr: never, setIf: never, scan: (prefix) => [...content.keys()].filter((key) => key.startsWith(prefix)) };
}

const STORES = {
  memory: async () => {
    const store = open('memory:');
    await store.set('there', 'before', { ttl: 1000 });
    await store.set('number', '5');
    return store;
  },
  'a backend in JavaScript': async () => open(untouched()),
};

for (const [name, make] of Object.entries(STORES)) {
  const refused = (call, what) =>
    test(`${name}: ${what}`, async () => {
      const store = await make();
      await assert.rejects(call(store), (error) => {
        assert(error instanceof CounterfoilError, String(error));
        assert.deepEqual([error.code, error.outcome], ['INVALID', 'not_applied']);
        assert(error.message.length < 256);
        return true;
      });
      assert.equal(await store.get('there'), 'before');
      assert.equal(await store.get('number'), '5');
      assert.equal(await store.count(), 2);
      await store.close();
    });
  for (const [what, key] of Object.entries(KEYS)) {
    refused((store) => store.get(key), `get, key: ${what}`);
    refused((store) => store.getBuffer(key), `getBuffer, key: ${what}`);
    refused((store) => store.set(key, 'x'), `set, key: ${what}`);
    refused((store) => store.delete(key), `delete, key: ${what}`);
    refused((store) => store.pop(key), `pop, key: ${what}`);
    refused((store) => store.popBuffer(key), `popBuffer, key: ${what}`);
    refused((store) => store.touch(key, 1), `touch, key: ${what}`);
    refused((store) => store.incr(key), `incr, key: ${what}`);
    refused((store) => store.getMany(['there', key]), `getMany, key: ${what}`);
    refused((store) => new SecondaryStorage(store).set(key, 'x'), `secondary.set, key: ${what}`);
    refused((store) => new SecondaryStorage(store).pop(key), `secondary.pop, key: ${what}`);
    if (key !== '' && key !== undefined) {
      refused((store) => store.count(key), `count, prefix: ${what}`);
      refused((store) => store.clear(key), `clear, prefix: ${what}`);
      refused((store) => store.scan(key).next(), `scan, prefix: ${what}`);
    }
    if (!['number', 'bigint'].includes(what)) {
      refused((store) => new Storage(store).get(key), `storage.get, id: ${what}`);
      refused((store) => new Storage(store).set(key, {}), `storage.set, id: ${what}`);
      refused((store) => new Storage(store).set(key, undefined), `storage.set of nothing, id: ${what}`);
    }
  }
  for (const [what, id] of Object.entries({ fraction: 1.5, NaN, infinite: Infinity, 'unsafe integer': 2 ** 53, 'unsafe bigint': 2n ** 53n, 'negative unsafe bigint': -(2n ** 53n) })) {
    refused((store) => new Storage(store).get(id), `storage.get, id: ${what}`);
    refused((store) => new Storage(store).set(id, {}), `storage.set, id: ${what}`);
  }
  for (const [what, value] of Object.entries(VALUES)) {
    refused((store) => store.set('there', value), `set, value: ${what}`);
    refused((store) => store.set('there', value, { ttl: 1 }), `set with a ttl, value: ${what}`);
    if (value !== undefined) refused((store) => store.set('there', 'x', { ifEqual: value }), `set, ifEqual: ${what}`);
    refused((store) => new SecondaryStorage(store).set('there', value), `secondary.set, value: ${what}`);
  }
  for (const [what, ttl] of Object.entries(TTLS)) {
    refused((store) => store.set('there', 'x', { ttl }), `set, ttl: ${what}`);
    refused((store) => store.touch('there', ttl), `touch, ttl: ${what}`);
    refused((store) => store.incr('number', 1, { ttl }), `incr, ttl: ${what}`);
    if (typeof ttl !== 'number' || ttl > 0 || Number.isNaN(ttl)) refused((store) => new SecondaryStorage(store).set('there', 'x', ttl), `secondary.set, ttl: ${what}`);
  }
  refused((store) => store.touch('there'), 'touch without a ttl');
  const now = () => new Date(Date.now() + 1000);
  for (const [what, options] of Object.entries({
    'ttl and expiresAt': { ttl: 1, expiresAt: now() }, 'ttl and keepTtl': { ttl: 1, keepTtl: true }, 'expiresAt and keepTtl': { expiresAt: now(), keepTtl: true },
    'two conditions': { ifAbsent: true, ifPresent: true }, 'ifAbsent and ifEqual': { ifAbsent: true, ifEqual: 'x' }, 'an invalid Date': { expiresAt: new Date(NaN) },
    'before 1970': { expiresAt: new Date(-1) }, 'eleven years ahead': { expiresAt: new Date(Date.now() + 4015 * 86400_000) }, 'a number for a Date': { expiresAt: Date.now() + 1000 },
    'a Date look-alike': { expiresAt: { getTime: () => Date.now() + 1000 } }, 'past, on a condition': { expiresAt: new Date(0), ifAbsent: true }, 'an unknown option': { ttl: 1, tttl: 1 },
    'snake case': { if_absent: true }, 'a truthy condition': { ifAbsent: 'yes' }, 'a truthy keepTtl': { keepTtl: 1 },
  })) refused((store) => store.set('there', 'x', options), `set: ${what}`);
  for (const options of [null, 5, 'x', true]) refused((store) => store.set('there', 'x', options), `set, options: ${options}`);
  for (const by of [1.5, NaN, Infinity, 2 ** 53, '1', null, true, {}, 1n]) refused((store) => store.incr('number', by), `incr, by: ${String(by)}`);
  for (const state of [() => {}, Symbol('x'), 1n, NaN, { toJSON() { throw new Error('secret'); } }, { toJSON: () => undefined }, (() => { const o = {}; o.o = o; return o; })(), 'x'.repeat(1024 * 1024)]) {
    refused((store) => new Storage(store).set('there', state), `storage.set, state: ${typeof state}`);
  }
  refused((store) => store.clear(), 'clear without any prefix');
}

test('open', () => {
  const refused = (call, what) => assert.throws(call, (error) => error instanceof CounterfoilError && error.code === 'INVALID' && error.outcome === 'not_applied', what);
  for (const url of ['', 'memory', 'nosuch:', 'redis://user:secret@host/x', 'memory:?nosuch=1', 'memory:?max_entries=', 'memory:?max_entries=0', 'memory:?max_entries=-1', 'memory:?max_entries=1x',
    'memory:?max_entries=1&max_entries=2', 'memory:?max_bytes=1e9', 'memory:a\ud800', 'memory:a\0', undefined, null, 5, true, Symbol('x'), () => {}, Buffer.from('memory:'), [], {}, `memory:${'x'.repeat(2000000)}`]) {
    refused(() => open(url), String(url).slice(0, 50));
  }
  for (const options of [{ prefix: 5 }, { prefix: null }, { prefix: 'a\n' }, { prefix: 'a\0' }, { prefix: '\ud800' }, { prefix: 'x'.repeat(257) }, { prefix: 'x'.repeat(5000) }, { ttl: 0 }, { ttl: -1 }, { ttl: NaN },
    { ttl: '5' }, { ttl: null }, { ttl: 1e12 }, { timeout: 0 }, { timeout: 86401 }, { timeout: '5' }, { timeout: null }, { timeout: NaN }, { nosuch: 1 }, { maxEntries: {} }, { maxEntries: 'x' }, { maxEntries: '\ud800' }]) {
    refused(() => open('memory:', options), JSON.stringify(options).slice(0, 50));
  }
  for (const options of [null, 5, 'x']) refused(() => open('memory:', options), String(options));
  assert.throws(() => open('redis://user:secret@host/x'), (error) => !error.message.includes('secret'));
  refused(() => open({ get() {}, set() {}, delete() {} }, { maxEntries: 1 }), 'an option of a URL for a backend');
});

test('interfaces refuse what is no store, and wrong options', () => {
  const store = open('memory:');
  for (const wrong of [undefined, null, {}, 'memory:', Object.create(Object.getPrototypeOf(store))]) {
    assert.throws(() => new Storage(wrong), { code: 'INVALID' });
    assert.throws(() => new SecondaryStorage(wrong), { code: 'INVALID' });
  }
  for (const options of [null, '600', { ttl: 0 }, { ttl: -1 }, { ttl: NaN }, { ttl: '5' }, { ttl: null }, { tttl: 5 }, 0, -5, NaN, Infinity, true]) {
    assert.throws(() => new SecondaryStorage(store, options), { code: 'INVALID' }, String(options));
  }
});
