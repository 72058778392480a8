'use strict';

// Sealed values and hashed keys (core/FORMAT.md 14 and 15): their options, and that nothing beneath sees plain text.

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } = require('node:crypto');
const { inspect } = require('node:util');

const { open, Backend, Storage, SecondaryStorage } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { CounterfoilStore } = require('counterfoil/express-session');
const { ownPrefix, redisVariable } = require('./support/redis.cjs');

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

test('who has forgotten the keys is told', async () => {
  const url = name();
  const store = open(url, { keys: ring, sealValues: true });
  const plain = open(url);
  await store.set('k', 'v');
  await assert.rejects(plain.get('k'), { code: 'CORRUPT', outcome: 'not_applied', message: /is sealed, and .* without sealValues and keys/ });
  await assert.rejects(plain.pop('k'), { code: 'CORRUPT', outcome: 'applied', message: /is sealed/ });
  await Promise.all([store.close(), plain.close()]);
});

test('the names that Python has for these options are told apart from the options of an URL', () => {
  for (const [given, meant] of [['seal_values', 'sealValues'], ['hash_keys', 'hashKeys'], ['plain_until', 'plainUntil']]) {
    assert.throws(() => open('memory:', { keys: ring, [given]: true }), { code: 'INVALID', message: `option ${given} is written ${meant}` });
  }
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

// As somebody would write it from FORMAT.md and C2SP's XAES-256-GCM alone.
function xaes(key, nonce) {
  const block = (bytes) => createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(bytes);
  const l = BigInt(`0x${block(Buffer.alloc(16)).toString('hex')}`);
  const k1 = ((l << 1n) & ((1n << 128n) - 1n)) ^ (l >> 127n ? 0x87n : 0n);
  const half = (counter) => {
    const m = Buffer.concat([Buffer.from([0, counter, 0x58, 0]), nonce.subarray(0, 12)]);
    return block(Buffer.from((BigInt(`0x${m.toString('hex')}`) ^ k1).toString(16).padStart(32, '0'), 'hex'));
  };
  return { key: Buffer.concat([half(1), half(2)]), nonce: nonce.subarray(12) };
}

const sized = (part) => {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(Buffer.byteLength(part));
  return Buffer.concat([size, Buffer.from(part)]);
};
const purpose = (key) => Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), 'counterfoil value 1', 32));
const bound = (key, envelope) => Buffer.concat([sized('counterfoil value'), sized(key), sized(envelope.subarray(0, 8))]);

test('FORMAT.md is enough to open what is kept, and to write it', async () => {
  for (const [first, plain, more, sealed] of [
    [1, 'XAES-256-GCM', '', 'ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271'],
    [3, 'XAES-256-GCM', 'c2sp.org/XAES-256-GCM', '986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d'],
  ]) {
    const { key, nonce } = xaes(Buffer.alloc(32, first), Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWX'));
    const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(more));
    const text = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    assert.equal(text.toString('hex'), sealed, "C2SP's own vectors");
  }
  const url = name();
  for (let i = 0; i < 50; i++) {
    const [secret, text, key, id] = [randomBytes(32), randomBytes(i * 7), `k\u00e9-${i}`, i % 2 ? 2 ** 32 - 1 : i + 1];
    const store = open(url, { prefix: 'p:', keys: [[id, secret]], sealValues: true, hashKeys: i % 3 === 0 });
    const raw = open(url);
    const hashed = createHash('sha256').update('counterfoil key\0').update(key).digest('base64url');
    const kept = `p:${i % 3 === 0 ? hashed : key}`;
    await store.set(key, text);
    const envelope = await raw.getBuffer(kept);
    assert.equal(envelope.readUInt32BE(4), id);
    const reads = xaes(purpose(secret), envelope.subarray(8, 32));
    const decipher = createDecipheriv('aes-256-gcm', reads.key, reads.nonce).setAAD(bound(kept, envelope)).setAuthTag(envelope.subarray(-16));
    assert.deepEqual(Buffer.concat([decipher.update(envelope.subarray(32, -16)), decipher.final()]), text);
    const head = Buffer.concat([envelope.subarray(0, 8), randomBytes(24)]);
    const writes = xaes(purpose(secret), head.subarray(8));
    const cipher = createCipheriv('aes-256-gcm', writes.key, writes.nonce).setAAD(bound(kept, head));
    await raw.set(kept, Buffer.concat([head, cipher.update(`from elsewhere ${i}`), cipher.final(), cipher.getAuthTag()]));
    assert.equal(await store.get(key), `from elsewhere ${i}`);
    await Promise.all([store.close(), raw.close()]);
  }
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

test('a backend that keeps text says what it needs', async () => {
  const store = open({ get() {}, set() { assert.fail('it was given what is no text'); }, delete() {} }, { keys: ring, sealValues: true });
  await assert.rejects(store.set('k', 'the secret'), (error) => {
    assert.match(error.message, /binary = true/);
    assert.ok(!inspect(error).includes('the secret'));
    return error.code === 'INVALID' && error.outcome === 'not_applied';
  });
  await store.close();
});

test('the longest value fits, sealed or not, and no longer one', async () => {
  const MOST = 2 ** 20;
  class Kept {
    binary = true;
    kept = new Map();
    get(key) { return this.kept.get(key); }
    set(key, value) { this.kept.set(key, value); }
    delete(key) { return this.kept.delete(key); }
  }
  for (const [more, options, why] of [[0, {}, /more than 1 MiB/], [48, { keys: ring, sealValues: true }, /more than 1 MiB/]]) {
    const backend = new Kept();
    const store = open(backend, options);
    for (const value of [Buffer.alloc(MOST, 7), Buffer.alloc(MOST - 1, 7), Buffer.alloc(0)]) {
      await store.set('k', value);
      assert.ok(value.equals(await store.getBuffer('k')));
    }
    backend.kept.set('k', Buffer.alloc(MOST + more + 1));
    await assert.rejects(store.get('k'), { code: 'CORRUPT', message: why });
    await store.close();
  }
});

for (const where of ['memory', 'redis', 'backend']) {
  test(`every interface is sealed and hashed: ${where}`, async () => {
    const backend = {
      singleProcess: true, binary: true, kept: new Map(),
      async get(key) { return this.kept.get(key); },
      async set(key, value) { this.kept.set(key, value); },
      async delete(key) { return this.kept.delete(key); },
    };
    const target = where === 'backend' ? backend : where === 'redis' ? redisVariable('') : name();
    const prefix = `at-rest-${process.pid}:`;
    const store = open(target, { prefix, keys: ring, sealValues: true, hashKeys: true });
    const raw = where === 'backend' ? undefined : open(target, { prefix });
    const lie = async () => {
      if (raw === undefined) return backend.kept;
      const all = new Map();
      for await (const key of raw.scan()) all.set(key, await raw.getBuffer(key));
      return all;
    };
    const storage = new Storage(store);
    const secondary = new SecondaryStorage(store);
    const sessions = new CounterfoilStore({ store });
    const call = (method, ...args) => new Promise((resolve, reject) => {
      sessions[method](...args, (error, result) => { if (error) reject(error); else resolve(result); });
    });
    await storage.set('id-canary', { a: 'canary' });
    await secondary.set('code-canary', 'canary', 60);
    await call('set', 'sid-canary', { cookie: { originalMaxAge: 60000 }, user: 'canary' });
    await call('touch', 'sid-canary', { cookie: { originalMaxAge: 60000 } });
    const all = await lie();
    assert.equal(all.size, 3);
    for (const [key, value] of all) {
      assert.ok(!key.includes('canary') && !value.includes('canary'));
      assert.equal(value.subarray(0, 8).toString('hex'), '4366010100000007');
    }
    assert.deepEqual(await storage.get('id-canary'), { a: 'canary' });
    assert.equal(await secondary.pop('code-canary'), 'canary');
    assert.equal((await call('get', 'sid-canary')).user, 'canary');
    for (const refused of ['all', 'length', 'clear']) await assert.rejects(call(refused), { code: 'NOT_SUPPORTED' });
    await call('destroy', 'sid-canary');
    await storage.set('id-canary', null);
    assert.equal((await lie()).size, 0);
    assert.ok(!inspect(store, { depth: 9, showHidden: true }).includes('canary'));
    await Promise.all([store.close(), raw?.close()]);
  });
}

test('express-session: neither the id nor the session is there to be read', async () => {
  const { CounterfoilStore } = require('counterfoil/express-session');
  const url = name();
  const sessions = new CounterfoilStore({ url, keys: ring, sealValues: true, hashKeys: true });
  const raw = open(url);
  const call = (method, ...args) => new Promise((resolve, reject) => sessions[method](...args, (error, value) => (error ? reject(error) : resolve(value))));
  await call('set', 'the-session-id', { cookie: { originalMaxAge: 60000, expires: new Date(Date.now() + 60000) }, user: 'ada lovelace' });
  assert.equal((await call('get', 'the-session-id')).user, 'ada lovelace');
  for await (const key of raw.scan()) {
    assert.ok(!key.includes('session-id'));
    assert.ok(!(await raw.getBuffer(key)).includes('lovelace'));
  }
  assert.equal(await raw.count(), 1);
  await assert.rejects(call('length'), { code: 'NOT_SUPPORTED' });
  await call('destroy', 'the-session-id');
  assert.equal(await raw.count(), 0);
  assert.throws(() => new CounterfoilStore({ store: raw, hashKeys: true }), { code: 'INVALID' });
  await Promise.all([sessions.close(), raw.close()]);
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
    { keys: [] }, { sealValues: true }, { keys: [], sealValues: true }, { keys: 'text', sealValues: true }, { keys: 3, sealValues: true },
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

/** What is missing is derived; scan gives pages. */
const scanned = () => ({
  singleProcess: true, keepsTtl: true, binary: true, kept: new Map(), ttls: new Map(),
  get(key) { return this.kept.get(key); },
  set(key, value, ttl) {
    this.kept.set(key, value);
    if (ttl !== Backend.KEEP) this.ttls.set(key, ttl);
  },
  async delete(key) { return this.kept.delete(key); },
  async scan(prefix, cursor, limit) {
    const keys = [...this.kept.keys()].filter((key) => key.startsWith(prefix)).sort(), begin = cursor ?? 0;
    return { keys: keys.slice(begin, begin + limit), cursor: begin + limit < keys.length ? begin + limit : undefined };
  },
});

const collect = async (store, part) => {
  const told = [];
  for await (const progress of store.reseal(part)) told.push(progress);
  return told;
};

for (const where of ['memory', 'sqlite', 'redis', 'backend']) {
  test(`a sweep seals anew, page by page: ${where}`, async (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-reseal-'));
    t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
    const target = { memory: name(), sqlite: `sqlite:${folder}/swept.db`, redis: redisVariable(''), backend: scanned() }[where];
    const prefix = ownPrefix(), one = [1, bytes(10)], two = [2, bytes(20)];
    const [old, now, later, raw] = [[one], [two, one], [two], undefined].map((keys) => open(target, { prefix, keys, sealValues: keys !== undefined }));
    for (let i = 0; i < 250; i++) await old.set(`old ${i}`, `value ${i}`, i % 2 ? { ttl: 100 } : undefined);
    await now.set('new', 'value');
    await raw.set('plain', Buffer.from('never sealed'));
    const envelope = await raw.getBuffer('new');
    assert.deepEqual((await collect(now, 'old 1')).at(-1), { sealed: 111, unreadable: 0 });
    const told = await collect(now);
    assert.ok(told.length > 1);
    for (let i = 1; i < told.length; i++) assert.ok(told[i].sealed >= told[i - 1].sealed, 'what is told are sums');
    assert.deepEqual(told.at(-1), { sealed: 139, unreadable: 1 });
    for (let i = 0; i < 250; i++) assert.equal(await later.get(`old ${i}`), `value ${i}`);
    assert.ok(envelope.equals(await raw.getBuffer('new')));
    assert.equal(await raw.get('plain'), 'never sealed');
    assert.deepEqual((await collect(now)).at(-1), { sealed: 0, unreadable: 1 });
    if (where === 'backend') assert.equal(target.ttls.get(`${prefix}old 1`), 100);
    else await raw.clear();
    await Promise.all([old.close(), now.close(), later.close(), raw.close()]);
  });
}

test('a sweep keeps the expiry', async () => {
  const stage = new Stage(), url = name(), rest = { sealValues: true, hashKeys: true, stage };
  const old = open(url, { keys: [[1, bytes(10)]], ...rest });
  const now = open(url, { keys: [[2, bytes(20)], [1, bytes(10)]], ...rest });
  await old.set('short', 'v', { ttl: 10 });
  await old.set('long', 'v');
  assert.deepEqual(await collect(now), [{ sealed: 2, unreadable: 0 }]);
  stage.advance(10);
  assert.deepEqual([await now.get('short'), await now.get('long')], [undefined, 'v']);
  await Promise.all([old.close(), now.close()]);
});

test('a sweep that cannot be', async () => {
  const plain = open('memory:'), hashed = open('memory:', { keys: ring, sealValues: true, hashKeys: true });
  const backend = scanned(), without = { ...backend, scan: undefined };
  const bare = open(without, { keys: ring, sealValues: true });
  await assert.rejects(collect(plain), { code: 'INVALID' });
  await assert.rejects(collect(hashed, 'part'), { code: 'NOT_SUPPORTED' });
  await assert.rejects(collect(hashed, 3), { code: 'INVALID' });
  await assert.rejects(collect(bare), { code: 'NOT_SUPPORTED' });
  const old = open(backend, { keys: [[1, bytes(10)]], sealValues: true });
  await Promise.all([old.set('a', 'v'), old.set('b', 'v')]);
  const { scan } = backend;
  const torn = { ...backend, scan(prefix, cursor) { if (cursor) throw new RangeError('the second page'); return scan.call(this, prefix, cursor, 1); } };
  const now = open(torn, { keys: [[2, bytes(20)], [1, bytes(10)]], sealValues: true });
  const sweep = now.reseal();
  assert.deepEqual((await sweep.next()).value, { sealed: 1, unreadable: 0 });
  await assert.rejects(sweep.next(), { name: 'RangeError', message: 'the second page' });
  await Promise.all([plain, hashed, bare, old, now].map((store) => store.close()));
});
