'use strict';

// counterfoil/miro under Miro's own client, whose token endpoint is on this machine; several processes on one store; a holder that is killed, and one that is late.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { fork, spawnSync } = require('node:child_process');
const { setTimeout: sleep } = require('node:timers/promises');
const { createClient } = require('redis');
const { Miro } = require('@mirohq/miro-api');
const { open, CounterfoilError, Storage } = require('counterfoil');
const { MiroStorage, singleFlight } = require('counterfoil/miro');
const { FullBackend, minimal } = require('./support/backends.cjs');
const { redisVariable, ownPrefix } = require('./support/redis.cjs');
const { URLS } = require('./support/places.cjs');
const { redirect, endpoint, APPLICATION, EXPIRED } = require('./support/miro.cjs');

const places = Object.entries(URLS).map(([name, url]) => ({ name, url, processes: name !== 'memory' }));

const FRESH = { userId: 'miro-user', accessToken: 'a', refreshToken: 'r', tokenExpiresAt: '2999-01-01T00:00:00.000Z' };
const isCode = (code) => (error) => error instanceof CounterfoilError && error.code === code;
const quiet = { onError: () => {} };

/** A storage, and another on the same data, as another process would have it. */
async function withPlace(place, options, work) {
  const url = place.url();
  const prefix = ownPrefix();
  const store = open(url, { prefix });
  const others = open(url, { prefix });
  try {
    await work(new MiroStorage({ store, ...options }), new MiroStorage({ store: others, ...options }), { store, url, prefix });
  } finally {
    await store.close();
    await others.close();
  }
}

async function withEndpoint(options, work) {
  const miro = await endpoint(options);
  redirect(miro.origin);
  try {
    await work(miro);
  } finally {
    await miro.close();
  }
}

for (const place of places) {
  test(`${place.name}: states come back as they were`, () => withPlace(place, quiet, async (storage, other, { store }) => {
    assert.equal(await storage.get('constructor'), undefined);
    assert.equal(await storage.get('__proto__'), undefined);
    await storage.set(1, FRESH);
    assert.deepEqual(await other.get('1'), FRESH);
    assert.equal(await store.get('miro:1'), JSON.stringify(FRESH));
    storage.set('1', { ...FRESH, accessToken: 'next' }); // as the client does it
    assert.equal((await storage.get(1)).accessToken, 'next');
    await storage.set('1', undefined);
    assert.equal(await other.get(1), undefined);
    await store.set('miro:1', '["no state"]');
    await assert.rejects(storage.get(1), isCode('CORRUPT'));
    for (const id of [undefined, null, 1.5, {}, NaN]) await assert.rejects(storage.get(id), isCode('INVALID'));
    for (const state of ['text', 5, [], { one: 1n }]) await assert.rejects(storage.set(1, state), isCode('INVALID'));
  }));

  test(`${place.name}: the client logs in, refreshes and revokes`, () => withPlace(place, {}, (storage) => withEndpoint({}, async ({ seen, origin }) => {
    const miro = singleFlight(new Miro({ ...APPLICATION, storage, basePath: origin }));
    assert.equal(singleFlight(miro), miro);
    assert.equal(await miro.isAuthorized(7), false);
    assert.equal(await miro.exchangeCodeForAccessToken(7, 'http://localhost/?code=abc'), 'access-1');
    assert.equal(await miro.isAuthorized('7'), true);
    const state = await storage.get(7);
    assert.deepEqual({ ...state, tokenExpiresAt: undefined }, { userId: 'miro-user', accessToken: 'access-1', refreshToken: 'refresh-1', tokenExpiresAt: undefined });
    assert(Math.abs(new Date(state.tokenExpiresAt) - Date.now() - 3480e3) < 60e3);
    await storage.set(7, { ...state, tokenExpiresAt: EXPIRED.tokenExpiresAt });
    assert.deepEqual(await Promise.all([1, 2, 3].map(() => miro.getAccessToken(7))), ['access-2', 'access-2', 'access-2']);
    await miro.revokeToken(7);
    assert.equal(await storage.get(7), undefined);
    await assert.rejects(miro.getAccessToken(7), /No access token stored/);
    assert.deepEqual(seen, { refreshes: 1, exchanges: 1, refused: 0, revoked: 1 });
  })));

  test(`${place.name}: who comes too late saves nothing, and gets what is there`, () => withPlace(place, { lease: 0.15 }, async (slow, quick) => {
    await slow.set(7, EXPIRED);
    let release;
    const late = slow.refreshOnce(7, async (old) => {
      await new Promise((resolve) => { release = resolve; });
      return { ...old, accessToken: 'late', tokenExpiresAt: FRESH.tokenExpiresAt };
    });
    while (release === undefined) await sleep(1);
    assert.equal((await quick.refreshOnce(7, () => FRESH)).accessToken, 'a'); // once the lease is over
    release();
    assert.equal((await late).accessToken, 'a');
    assert.deepEqual(await quick.get(7), FRESH);

    // The same by hand; and the numbers grow.
    const fences = [];
    await slow.withLock(7, async (lease) => {
      fences.push(lease.fence);
      assert.deepEqual(lease.state, FRESH);
      await quick.withLock(7, async (next) => {
        fences.push(next.fence);
        assert.equal(await next.save({ ...FRESH, accessToken: 'b' }), true);
        assert.equal(await next.save({ ...FRESH, accessToken: 'c' }), true);
      });
      assert.equal(await lease.save({ ...FRESH, accessToken: 'late' }), false);
    });
    assert.equal((await slow.get(7)).accessToken, 'c');
    assert(fences[0] < fences[1], String(fences));
  }));

  test(`${place.name}: a failed refresh, a revoked state, a login meanwhile`, () => withPlace(place, { wait: 3 }, async (storage, other) => {
    assert.equal(await storage.refreshOnce(7, () => assert.fail('there is nothing to refresh')), undefined);
    await storage.set(7, EXPIRED);
    const wrong = new Error('refused');
    let asked = 0;
    const calls = [1, 2, 3].map(() => storage.refreshOnce(7, async () => { asked++; await sleep(20); throw wrong; }));
    for (const { reason } of await Promise.allSettled(calls)) assert.equal(reason, wrong);
    assert.equal(asked, 1);
    assert.deepEqual(await storage.get(7), EXPIRED);
    // The lease was given back at once.
    assert.equal(await other.refreshOnce(7, async () => { await storage.set(7, undefined); return FRESH; }), undefined);
    assert.equal(await storage.get(7), undefined, 'what was revoked stays so');
    await storage.set(7, EXPIRED);
    const login = { ...FRESH, accessToken: 'login' };
    assert.deepEqual(await other.refreshOnce(7, async () => { await storage.set(7, login); return FRESH; }), login);
    await storage.set(7, EXPIRED);
    assert.deepEqual(await other.refreshOnce(7, async () => { await storage.set(7, login); throw wrong; }), login, 'a successor is there');
    await assert.rejects(storage.refreshOnce(7, () => undefined, { isFresh: () => false }), isCode('INVALID'));
  }));

  test(`${place.name}: the successor is everybody's for the grace period, fresh or not`, () => withPlace(place, {}, async (storage, other, { store }) => {
    await storage.set(7, EXPIRED);
    let asked = 0;
    const refresh = (old) => ({ ...old, accessToken: `a${++asked}` }); // so short a life that it is over already
    assert.equal((await storage.refreshOnce(7, refresh)).accessToken, 'a1');
    assert.equal((await other.refreshOnce(7, refresh)).accessToken, 'a1');
    assert.equal((await other.refreshOnce(7, refresh, { isFresh: () => false })).accessToken, 'a1');
    await storage.set(7, EXPIRED); // another state is no successor
    assert.equal((await other.refreshOnce(7, refresh)).accessToken, 'a2');
    const short = new MiroStorage({ store, grace: 0.05 });
    await short.set(8, EXPIRED);
    assert.equal((await short.refreshOnce(8, refresh)).accessToken, 'a3');
    await sleep(100);
    assert.equal((await short.refreshOnce(8, refresh)).accessToken, 'a4');
    const none = new MiroStorage({ store, grace: 0 });
    assert.equal((await none.refreshOnce(7, refresh)).accessToken, 'a5');
  }));
}

for (const place of places.filter(({ processes }) => processes)) {
  for (const [life, what] of [place.name === 'sqlite' ? [60, 'no time at all'] : [3600, 'an hour']]) {
    test(`${place.name}: 100 calls in four processes, one refresh; it lives for ${what}`, () => withPlace(place, {}, (storage, other, { url, prefix }) => withEndpoint({ life }, async ({ seen, origin }) => {
      await storage.set(7, EXPIRED);
      const children = Array.from({ length: 4 }, () => fork(require.resolve('./support/miro.cjs'), [JSON.stringify({ url, prefix: `${prefix}miro:`, origin, calls: 25 })]));
      const message = (child) => new Promise((resolve, reject) => {
        child.once('message', resolve);
        child.once('exit', (code) => reject(new Error(`a process ended with ${code}`)));
      });
      await Promise.all(children.map(message));
      const answers = children.map(message);
      for (const child of children) child.send('go');
      assert.deepEqual((await Promise.all(answers)).flat(), Array(100).fill('access-1'));
      assert.deepEqual(seen, { refreshes: 1, exchanges: 0, refused: 0, revoked: 0 });
      assert.equal((await storage.get(7)).refreshToken, 'refresh-1');
    })));
  }

  test(`${place.name}: a holder that is killed, and another takes over`, () => withPlace(place, { lease: 0.5 }, async (storage, other, { url, prefix }) => {
    let begun;
    const hangs = new Promise((resolve) => { begun = resolve; });
    const answer = (count) => (count === 1 ? (begun(), false) : undefined);
    await withEndpoint({ answer }, async ({ seen, origin }) => {
      await storage.set(7, EXPIRED);
      const child = fork(require.resolve('./support/miro.cjs'), [JSON.stringify({ url, prefix: `${prefix}miro:`, origin, calls: 3, lease: 1.5 })]);
      const gone = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal)));
      await new Promise((resolve) => child.once('message', resolve));
      child.send('go');
      await hangs;
      const miro = singleFlight(new Miro({ ...APPLICATION, storage }));
      const waiting = Promise.all([1, 2, 3].map(() => miro.getAccessToken(7)));
      await sleep(100);
      assert.equal(seen.refreshes, 1, 'while it lives it is waited for');
      child.kill('SIGKILL');
      assert.equal(await gone, 'SIGKILL');
      assert.deepEqual(await waiting, ['access-1', 'access-1', 'access-1']);
      assert.deepEqual(seen, { refreshes: 2, exchanges: 0, refused: 0, revoked: 0 });
    });
  }));
}

test('who waits for too long is told so', () => withPlace(places[0], { wait: 0.1 }, async (storage, other) => {
  await storage.set(7, EXPIRED);
  await storage.withLock(7, async () => {
    await assert.rejects(other.withLock(7, () => assert.fail('it is held')), isCode('TIMEOUT'));
    await assert.rejects(other.refreshOnce(7, () => assert.fail('it is held')), isCode('TIMEOUT'));
  });
  assert.equal(await other.withLock('7', () => 'ours'), 'ours');
}));

test('a set that nobody waits for ends no process, and is told', () => {
  const script = `
    const { Miro } = require('@mirohq/miro-api');
    const { MiroStorage } = require('counterfoil/miro');
    const broken = { singleProcess: true, get: () => undefined, set: () => { throw new Error('the disk is full of secrets'); }, delete: () => true };
    const onError = process.argv[1] === 'told' ? (error) => { console.log(error.message); throw error; } : undefined;
    const { redirect, endpoint, APPLICATION } = require('./tests/node/support/miro.cjs');
    endpoint().then(async (server) => {
      redirect(server.origin);
      const storage = new MiroStorage({ backend: broken, onError });
      console.log(await new Miro({ ...APPLICATION, storage }).exchangeCodeForAccessToken(7, 'code'));
      await storage.set(7, undefined);
      await storage.set(7, { accessToken: 'a' }).catch((error) => console.log('seen', error.message));
      await server.close();
    });`;
  for (const how of ['told', 'not told']) {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script, how], { cwd: path.join(__dirname, '..', '..'), encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    assert.match(stdout, /access-1\n/);
    assert.match(stdout, /seen the disk is full of secrets\n/);
    if (how === 'told') assert.equal(stdout.match(/^the disk/gm).length, 2);
    assert.match(stderr, /CounterfoilWarning: a state of Miro was not stored: Error/);
    assert.doesNotMatch(stderr, /secret/);
  }
});

test('redis: what the storage of the guide has written, and the other way round', async () => {
  const client = createClient({ url: redisVariable('') });
  await client.connect();
  const prefix = ownPrefix();
  const guide = { // as Miro's guide makes it; the prefix is in the id, so that the test meets nobody else's
    get: async (userId) => { const text = await client.get(userId.toString()); return text ? JSON.parse(text) : undefined; },
    set: async (userId, state) => (state ? client.set(userId.toString(), JSON.stringify(state)) : client.del(userId.toString())),
  };
  const storage = new MiroStorage({ url: redisVariable(''), prefix: '' });
  try {
    await guide.set(`${prefix}7`, EXPIRED);
    assert.deepEqual(await storage.get(`${prefix}7`), EXPIRED);
    await storage.refreshOnce(`${prefix}7`, () => FRESH);
    assert.deepEqual(await guide.get(`${prefix}7`), FRESH);
    assert.equal(await client.ttl(`${prefix}7`), -1);
    await storage.set(`${prefix}7`, undefined);
    assert.equal(await guide.get(`${prefix}7`), undefined);
    await assert.rejects(storage.get('7:counterfoil-lease'), isCode('INVALID'));
  } finally {
    await client.close();
    await storage.close();
  }
});

test('the save is tried again where its answer was lost', async () => {
  class Lossy extends FullBackend {
    failures = 0;
    lost = new CounterfoilError('lost', 'TIMEOUT', 'unknown');
    setIf(...args) {
      const stored = super.setIf(...args);
      if (args[0] === 'miro:7' && this.failures-- > 0) throw this.lost;
      return stored;
    }
  }
  const backend = new Lossy({ now: () => new Date() });
  const storage = new MiroStorage({ backend });
  await storage.set(7, EXPIRED);
  backend.failures = 1;
  assert.deepEqual(await storage.refreshOnce(7, () => FRESH), FRESH);
  backend.failures = 1;
  assert.equal(await storage.withLock(7, (lease) => lease.save({ ...FRESH, accessToken: 'other' })), true, 'it is there');
  await storage.set(7, EXPIRED);
  backend.setIf = (key, ...rest) => { if (key === 'miro:7') throw backend.lost; return FullBackend.prototype.setIf.call(backend, key, ...rest); };
  await assert.rejects(storage.refreshOnce(7, () => FRESH), (error) => error === backend.lost);
  await storage.close();
});

test('a lease that was over before its number was drawn is none', async () => {
  class Slow extends FullBackend {
    async incr(...args) {
      await this.before?.();
      return super.incr(...args);
    }
  }
  const backend = new Slow({ now: () => new Date() });
  const [slow, quick] = [1, 2].map(() => new MiroStorage({ backend, lease: 0.1 }));
  const order = [];
  let later;
  backend.before = async () => {
    backend.before = undefined;
    await sleep(150);
    later = quick.withLock(7, async ({ fence }) => { await sleep(30); order.push(fence); });
    await sleep(10);
  };
  await slow.withLock(7, ({ fence }) => order.push(fence));
  await later;
  assert.deepEqual(order, [1, 3], 'the number 2 was drawn too late');
});

test('a read comes after what the client has set and not awaited', async () => {
  const backend = new FullBackend({ now: () => new Date() });
  backend.set = async (...args) => { await sleep(20); return FullBackend.prototype.set.apply(backend, args); };
  const storage = new MiroStorage({ backend });
  storage.set(7, FRESH);
  assert.deepEqual(await storage.get('7'), FRESH);
});

for (const [what, options] of [
  ['values are sealed', () => ({ url: 'memory:', sealValues: true, hashKeys: true, keys: [[1, Buffer.alloc(32)]] })],
  ['there are no counters', () => ({ backend: minimal({ now: () => new Date() }) })],
]) {
  test(`where ${what}: states, but no refresh, and everybody is told at once`, async () => {
    const storage = new MiroStorage(options());
    await storage.set(7, EXPIRED);
    assert.deepEqual(await storage.get(7), EXPIRED);
    for (let tries = 0; tries < 2; tries++) await assert.rejects(storage.refreshOnce(7, () => FRESH), isCode('NOT_SUPPORTED'));
    await storage.close();
  });
}

test('options and arguments', async () => {
  const store = open('memory:');
  const bad = [null, 5, {}, { url: 'memory:', store }, { store: {} }, { url: 5 }, { backend: 5 }, { store, prefix: 5 }, { store, prefix: 'a\n' }, { store, prefix: 'x'.repeat(257) }, { store, lease: 0 },
    { store, lease: '5' }, { store, grace: -1 }, { store, grace: Infinity }, { store, wait: NaN }, { store, onError: 'no' }, { store, timeout: 1 }, { store, leases: 5 }, { url: 'nothing:' }];
  for (const options of bad) assert.throws(() => new MiroStorage(options), isCode('INVALID'), JSON.stringify(options));
  assert.throws(() => new MiroStorage(), isCode('INVALID'));
  const storage = new MiroStorage({ store });
  await assert.rejects(storage.withLock(7), isCode('INVALID'));
  await assert.rejects(storage.withLock({}, () => {}), isCode('INVALID'));
  await assert.rejects(storage.refreshOnce(7), isCode('INVALID'));
  for (const options of [null, 5, { fresh: 1 }, { isFresh: 5 }]) await assert.rejects(storage.refreshOnce(7, () => FRESH, options), isCode('INVALID'));
  for (const miro of [undefined, {}, storage, new Miro({ ...APPLICATION, storage: { get: () => {}, set: () => {} } })]) assert.throws(() => singleFlight(miro), isCode('INVALID'));
  await storage.close();
  assert.equal(await store.set('a', 'still open'), true);
  assert.deepEqual(await new Storage(store).get('miro:7'), undefined);
  await store.close();
});
