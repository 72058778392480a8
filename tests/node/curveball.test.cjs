'use strict';

// counterfoil/curveball under Curveball's own kernel and session middleware, over every place; and beside @curveball/session-redis on one server.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');

const { createClient } = require('redis');
const { createClient: createClient4 } = require('redis-4');
const IoRedis = require('ioredis');

const { open, CounterfoilError } = require('counterfoil');
const { SessionStore, RedisStore } = require('counterfoil/curveball');
const { Stage } = require('counterfoil/testing');
const { redisVariable, ownPrefix } = require('./support/redis.cjs');
const { STAGED } = require('./support/places.cjs');
const { FullBackend, minimal } = require('./support/backends.cjs');

const ID = 'q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=';
const later = () => Math.floor(Date.now() / 1000) + 3600;
const refused = (what) => ({ name: 'CounterfoilError', code: 'INVALID', message: what });

let Application, session, TheirRedisStore;
before(async () => {
  ({ Application } = await import('@curveball/kernel'));
  ({ default: session } = await import('@curveball/session'));
  ({ default: TheirRedisStore } = await import('@curveball/session-redis'));
});

/** An application whose handler is chosen by each request, and a browser of one cookie. */
function browserOf(store, options = {}) {
  const app = new Application();
  let handler;
  app.use(session({ store, ...options }));
  app.use(async (ctx) => {
    ctx.response.body = JSON.stringify((await handler(ctx)) ?? null);
  });
  const browser = {
    cookie: undefined,
    async go(chosen, { keep = true } = {}) {
      handler = chosen;
      const response = await app.fetch(new Request('http://localhost/', { headers: browser.cookie ? { cookie: browser.cookie } : {} }));
      const set = response.headers.get('set-cookie');
      if (keep && set) browser.cookie = set.split(';')[0];
      assert.equal(response.status, 200);
      return response.json();
    },
    get id() { return decodeURIComponent(browser.cookie.split('=')[1]); },
  };
  return browser;
}

for (const [name, { stage: newStage, url }] of Object.entries(STAGED)) {
  describe(`Curveball over ${name}`, () => {
    let store, raw, stage;
    before(() => {
      stage = newStage();
      raw = open(url(), { stage, prefix: ownPrefix() });
      store = new SessionStore({ store: raw });
    });
    after(() => raw.close());

    test('a browser: begins a session, keeps it, changes it, leaves', async () => {
      const browser = browserOf(store);
      assert.equal(await browser.go((ctx) => ctx.sessionId), null);
      assert.equal(browser.cookie, undefined); // nothing to keep
      await browser.go((ctx) => { ctx.session.user = { id: 7, name: 'Ärger "x"' }; ctx.session.constructor = 'mine'; });
      assert.match(browser.cookie, /^CB=[A-Za-z0-9%]+$/); // what Curveball's own tests allow
      assert.deepEqual(await browser.go((ctx) => [ctx.sessionId === browser.id, ctx.session]), [true, { user: { id: 7, name: 'Ärger "x"' }, constructor: 'mine' }]);
      assert.equal(await raw.get(`session-${browser.id}`), '{"user":{"id":7,"name":"Ärger \\"x\\""},"constructor":"mine"}');
      await browser.go((ctx) => { delete ctx.session.user; ctx.session.n = 1; });
      assert.deepEqual(await browser.go((ctx) => ctx.session), { constructor: 'mine', n: 1 });
      await browser.go((ctx) => { for (const one of Object.keys(ctx.session)) delete ctx.session[one]; });
      assert.equal(await raw.count('session-'), 0);
      assert.deepEqual(await browser.go((ctx) => [ctx.sessionId, ctx.session]), [null, {}]);
    });

    test('a new id for the same data: the old one is gone, the new one is there', async () => {
      const browser = browserOf(store);
      await browser.go((ctx) => { ctx.session.user = 7; });
      const { cookie: old, id } = browser;
      await browser.go((ctx) => { ctx.sessionId = null; ctx.session.role = 'admin'; });
      assert.notEqual(browser.id, id);
      assert.deepEqual(await browser.go((ctx) => ctx.session), { user: 7, role: 'admin' });
      browser.cookie = old;
      assert.deepEqual(await browser.go((ctx) => [ctx.sessionId, ctx.session]), [null, {}]);
      // And both at once: the id given up and no data left, which deletes twice.
      await browser.go((ctx) => { ctx.session.user = 8; });
      await browser.go((ctx) => { ctx.sessionId = null; ctx.session = {}; });
      assert.deepEqual(await browser.go((ctx) => [ctx.sessionId, ctx.session]), [null, {}]);
    });

    test('a request that is slower than a logout does not bring the session back', async () => {
      const slow = browserOf(store), fast = browserOf(store);
      await slow.go((ctx) => { ctx.session.user = 7; });
      fast.cookie = slow.cookie;
      await slow.go(async (ctx) => {
        ctx.session.seen = true;
        await fast.go((other) => { other.session = {}; });
      });
      assert.equal(await store.get(slow.id), null);
      assert.deepEqual(await slow.go((ctx) => [ctx.sessionId, ctx.session]), [null, {}]);
    });

    test('what saveEnded says of it', async () => {
      const failing = new SessionStore({ store: raw, saveEnded: 'error' }), reviving = new SessionStore({ store: raw, saveEnded: 'create' });
      for (const one of [store, failing, reviving]) {
        await one.set(ID, { a: 1 }, later());
        const values = await one.get(ID);
        await one.set(ID, values, later()); // it is there, and stays
        await one.delete(ID);
        const saving = one.set(ID, values, later());
        if (one === failing) await assert.rejects(saving, { name: 'CounterfoilError', code: 'ENDED' });
        else await saving;
        assert.deepEqual(await one.get(ID), one === reviving ? { a: 1 } : null);
        await one.set('another', values, later()); // under another id it is new
        assert.deepEqual(await one.get('another'), { a: 1 });
        await one.set(ID, { a: 2 }, later()); // and so is an object that get did not give
        assert.deepEqual(await one.get(ID), { a: 2 });
        await one.delete(ID);
        await one.delete('another');
      }
    });

    test('a session is there through the second in which it expires, and no longer', async (t) => {
      t.mock.method(Date, 'now', () => stage.now().getTime());
      stage.advance(1 - (Date.now() % 1000) / 1000); // the beginning of a second
      const start = Date.now() / 1000;
      for (const expire of [start + 5, start + 5.7]) await store.set(`at ${expire - start}`, { a: 1 }, expire);
      await store.set('now', { a: 1 }, start);
      await store.set('past', { a: 1 }, start - 0.1);
      assert.deepEqual([await store.get('now'), await store.get('past')], [{ a: 1 }, null]);
      const values = await store.get('now');
      stage.advance(1);
      assert.equal(await store.get('now'), null);
      stage.advance(4.998);
      assert.deepEqual(await store.get('at 5'), { a: 1 });
      stage.advance(0.002);
      for (const id of ['at 5', 'at 5.7']) assert.equal(await store.get(id), null);
      await store.set('now', values, start + 100); // it has ended: not brought back
      assert.equal(await store.get('now'), null);
    });

    test('an expiry in the past deletes', async () => {
      await store.set(ID, { a: 1 }, later());
      await store.set(ID, await store.get(ID), later() - 7200);
      assert.equal(await store.get(ID), null);
      await store.set(ID, { a: 1 }, -Infinity);
      await store.set(ID, { a: 1 }, Infinity); // ten years
      assert.deepEqual(await store.get(ID), { a: 1 });
      await store.delete(ID);
      await store.delete(ID);
    });

    test('copies: what is done to them is not stored', async () => {
      const values = { list: [1] };
      await store.set(ID, values, later());
      values.list.push(2);
      (await store.get(ID)).list.push(3);
      assert.deepEqual(await store.get(ID), { list: [1] });
    });

    test('an id is whatever a cookie says', async () => {
      for (const id of ['', '\0', 'a\nb', 'a\rb', '\ud800', 'x'.repeat(1017), 'ä'.repeat(509), undefined, 7, {}]) {
        assert.equal(await store.get(id), null);
        await store.delete(id);
        await assert.rejects(store.set(id, { a: 1 }, later()), refused(/session id/));
      }
      for (const id of ['x'.repeat(1016), '__proto__', 'constructor', 'a/b+c=', ' ', '*']) {
        assert.equal(await store.get(id), null);
        await store.set(id, { id }, later());
        assert.deepEqual(await store.get(id), { id });
        await store.delete(id);
      }
      const browser = browserOf(store);
      browser.cookie = 'CB=a%0Ab%00';
      assert.deepEqual(await browser.go((ctx) => [ctx.sessionId, ctx.session]), [null, {}]);
    });

    test('what is stored and no session is CORRUPT, and its error does not show it', async () => {
      for (const text of ['secret', '"secret"', '["secret"]', 'null', '']) {
        await raw.set(`session-${ID}`, text);
        await assert.rejects(store.get(ID), (error) => error.code === 'CORRUPT' && !/secret/.test(error.stack));
      }
      await raw.delete(`session-${ID}`);
    });
  });
}

test('ids are 32 random bytes in standard base64', async () => {
  const store = new SessionStore();
  const ids = await Promise.all(Array.from({ length: 200 }, () => store.newSessionId()));
  for (const id of ids) assert.match(id, /^[A-Za-z0-9+/]{43}=$/);
  assert.equal(new Set(ids).size, ids.length);
  assert.match(ids.join(''), /[+/]/);
  await store.close();
});

test('backends without conditions save as others do, unless somebody insists; close() closes what is ours', async () => {
  const full = new FullBackend(new Stage());
  let closed = 0;
  const backend = { get: (key) => full.get(key)?.toString(), set: (key, value, ttl) => full.set(key, Buffer.from(value), ttl), delete: (key) => full.delete(key), close: () => { closed++; } };
  const store = new SessionStore({ backend }), insisting = new SessionStore({ backend, saveEnded: 'ignore' });
  for (const one of [store, insisting]) await one.set(ID, { a: 1 }, later());
  const values = await store.get(ID), insistingValues = await insisting.get(ID);
  await assert.rejects(insisting.set(ID, insistingValues, later()), { code: 'NOT_SUPPORTED' });
  await store.delete(ID);
  await store.set(ID, values, later());
  assert.deepEqual(await store.get(ID), { a: 1 });
  await store.close();
  assert.equal(closed, 0);
  await insisting.close();
  assert.equal(closed, 1);
  await assert.rejects(store.get(ID), { code: 'CLOSED' });

  const three = new SessionStore({ backend: minimal(new Stage()), saveEnded: 'error' }); // conditions are derived
  await three.set(ID, { a: 1 }, later());
  const read = await three.get(ID);
  await three.delete(ID);
  await assert.rejects(three.set(ID, read, later()), { code: 'ENDED' });
  await three.close();
});

test('sealed and hashed', async () => {
  const raw = open('memory:curveball-at-rest');
  const store = new SessionStore({ url: 'memory:curveball-at-rest', sealValues: true, hashKeys: true, keys: [[1, Buffer.alloc(32, 1)]] });
  await store.set(ID, { name: 'Ada' }, later());
  const values = await store.get(ID);
  assert.deepEqual(values, { name: 'Ada' });
  await store.set(ID, values, later());
  for await (const key of raw.scan()) {
    assert(!key.includes(ID));
    assert(!(await raw.getBuffer(key)).includes('Ada'));
  }
  await store.delete(ID);
  await store.set(ID, values, later());
  assert.equal(await store.get(ID), null);
  await store.close();
  await raw.close();
});

test('arguments and options that cannot be meant', async () => {
  const store = open('memory:');
  const bad = [
    [null, /options must be an object/], ['memory:', /options must be an object/], [{ ttl: 5 }, /unknown option: ttl/], [{ prefix: 5 }, /prefix must be a string/],
    [{ prefix: 'a\n' }, /prefix must not contain/], [{ prefix: 'x'.repeat(257) }, /256 bytes/], [{ url: 5 }, /url must be a string/], [{ url: 'nothing:' }, /./],
    [{ store: {} }, /one that open\(\) gave/], [{ store, url: 'memory:' }, /one of store, url and backend/], [{ store, timeout: 1 }, /belong to the store/],
    [{ backend: 'x' }, /backend must be an object/], [{ backend: {} }, /no method get/], [{ saveEnded: true }, /saveEnded must be/], [{ client: {} }, /unknown option: client/],
  ];
  for (const [options, message] of bad) assert.throws(() => new SessionStore(options), refused(message));
  const good = new SessionStore({ store });
  for (const values of [null, 'x', [1], undefined, 5]) await assert.rejects(good.set(ID, values, later()), refused(/values must be an object/));
  for (const expire of ['1', NaN, undefined, null, new Date()]) await assert.rejects(good.set(ID, { a: 1 }, expire), refused(/seconds since 1970/));
  await assert.rejects(good.set(ID, { a: 1 }, Date.now()), refused(/not in milliseconds/));
  const circle = { secret: {} };
  circle.secret.back = circle;
  for (const values of [circle, { n: 1n }]) await assert.rejects(good.set(ID, values, later()), (error) => error.code === 'INVALID' && error.message === 'the session cannot be written as JSON' && error.cause === undefined);
  assert.equal(await good.get(ID), null);

  const of = (clientOptions) => ({ clientOptions });
  const redis = [
    [of(5), /clientOptions must be an object/], [of({ modules: {} }), /clientOptions\.modules is not served/], [of({ socket: { ca: 'x' } }), /clientOptions\.socket\.ca is not served/],
    [of({ socket: 5 }), /clientOptions\.socket must be an object/], [of({ socket: { port: '1' } }), /port must be an integer/], [of({ port: 0 }), /port/], [of({ host: 'a/b' }), /host must be/],
    [of({ url: 'http://secret' }), /^clientOptions\.url must be a redis: or rediss: URL$/], [of({ url: 'secret' }), /^clientOptions\.url must be a redis: or rediss: URL$/],
    [of({ socket: { path: 'a' } }), /absolute path/], [of({ socket: { path: '/a', tls: true } }), /tls does not go with a path/],
    [of({ url: 'redis://localhost', socket: { tls: true } }), /tls is for a rediss: URL/], [of({ password: 5 }), /password must be a string/], [of({ database: '1' }), /database must be a number/], [of({ database: -1 }), /./],
    [of({ socket: { connectTimeout: 0 } }), /connectTimeout must be/], [of({ socket: { tls: {} } }), /tls must be a boolean/], [{ client: {} }, /client must be/], [{ client: null }, /client must be/],
    [{ client: createClient(), url: 'memory:' }, /one of client/], [{ prefix: 5 }, /prefix must be a string/], [{ prefix: 'a\n' }, /prefix must not/], [{ scanCount: 5 }, /unknown option/],
    [{ saveEnded: 'x', clientOptions: {} }, /saveEnded must be/],
  ];
  for (const [options, message] of redis) assert.throws(() => new RedisStore(options), refused(message));
  await store.close();
});

describe('beside @curveball/session-redis', () => {
  let client4, client, io;
  const prefix = ownPrefix().slice(0, -1);
  before(async () => {
    [client4, client] = [createClient4({ url: redisVariable('') }), createClient({ url: redisVariable('') })];
    io = new IoRedis(redisVariable(''), { lazyConnect: true });
    await Promise.all([client4.connect(), client.connect(), io.connect()]);
  });
  after(async () => {
    await Promise.all([client4.disconnect(), client.close(), io.quit()]);
  });

  /** What the test's server is called in node-redis' options. */
  const clientOptions = () => {
    const { hostname, port, pathname } = new URL(redisVariable(''));
    return { socket: { host: hostname, port: Number(port), connectTimeout: 2000, keepAlive: 5000 }, database: Number(pathname.slice(1) || 0) };
  };
  const ways = {
    clientOptions: () => ({ clientOptions: clientOptions() }),
    'clientOptions of older guides': () => ({ clientOptions: { host: clientOptions().socket.host, port: clientOptions().socket.port, db: clientOptions().database } }),
    'clientOptions with a url': () => ({ clientOptions: { url: redisVariable(''), socket: { host: 'nowhere.invalid' } } }),
    url: () => ({ url: redisVariable('') }),
    'a client of redis 6': () => ({ client }),
    'a client of redis 4': () => ({ client: client4 }),
    'a client of ioredis': () => ({ client: io }),
  };
  for (const [name, options] of Object.entries(ways)) {
    test(`${name}: each reads what the other has written, and ends it`, async () => {
      const ours = new RedisStore({ prefix, ...options() }), theirs = new TheirRedisStore({ client: client4, prefix });
      assert.equal(ours.client, options().client);
      const values = { user: { id: 7, name: 'Ärger "x" \u2028' }, list: [1, null, true], 'csrf-token': 'a+b/c=' };
      await ours.set(ID, values, later());
      assert.deepEqual(await theirs.get(ID), values);
      const [ourText, ourLife] = [await client4.get(`${prefix}-${ID}`), await client4.pTTL(`${prefix}-${ID}`)];
      await theirs.set(ID, values, later());
      assert.equal(ourText, await client4.get(`${prefix}-${ID}`)); // byte for byte
      assert(ourLife > 3590000 && ourLife <= 3601000, String(ourLife));
      const read = await ours.get(ID);
      assert.deepEqual(read, values);
      await ours.set(ID, { ...values, n: 1 }, later());
      assert.equal((await theirs.get(ID)).n, 1);
      await theirs.delete(ID);
      assert.equal(await ours.get(ID), null);
      await ours.set(ID, read, later());
      assert.equal(await theirs.get(ID), null); // not brought back
      await theirs.set(ID, values, later());
      await ours.delete(ID);
      await ours.delete(ID);
      assert.equal(await theirs.get(ID), null);
      await ours.set(ID, values, Math.floor(Date.now() / 1000) - 5); // theirs fails here
      assert.equal(await theirs.get(ID), null);
      await ours.close();
      assert.equal(await client4.ping(), 'PONG'); // the client stays its owner's
    });
  }

  test('clientOptions: a unix socket, a user with a password', async () => {
    const acl = new URL(redisVariable('ACL'));
    const [username, password] = [decodeURIComponent(acl.username), decodeURIComponent(acl.password)];
    const socket = { host: acl.hostname, port: Number(acl.port) };
    const bare = new URL(acl.href);
    bare.username = bare.password = '';
    for (const options of [{ socket: { path: redisVariable('UNIX').replace(/^redis\+unix:\/\/|\?.*$/g, '') } }, { socket, username, password }, { socket, user: username, password }, { url: acl.href, password: 'wrong' },
      { url: bare.href, username, password }]) {
      const store = new RedisStore({ clientOptions: options, prefix });
      await store.set(ID, { a: 1 }, later());
      assert.deepEqual(await store.get(ID), { a: 1 });
      await store.delete(ID);
      await store.close();
    }
    const wrong = new RedisStore({ clientOptions: { socket, username, password: 'wrong' }, prefix });
    await assert.rejects(wrong.get(ID), { code: 'AUTH' });
    await wrong.close();
  });

  test('one browser, by turns under either store', async () => {
    const ours = new RedisStore({ prefix, client }), theirs = new TheirRedisStore({ client: client4, prefix });
    const first = browserOf(theirs), second = browserOf(ours);
    await first.go((ctx) => { ctx.session.n = 1; });
    for (let i = 0; i < 3; i++) {
      for (const [browser, other] of [[second, first], [first, second]]) {
        browser.cookie = other.cookie;
        await browser.go((ctx) => { ctx.session.n++; });
      }
    }
    assert.deepEqual(await second.go((ctx) => ctx.session), { n: 7 });
    await second.go((ctx) => { ctx.session = {}; });
    assert.deepEqual(await first.go((ctx) => ctx.session), {});
    await ours.close();
  });

  test('errors of the client arrive as they are; a server that is not there is an error of the call alone', async () => {
    const closed = createClient({ url: redisVariable('') });
    const store = new RedisStore({ client: closed });
    await assert.rejects(store.get(ID), (error) => error.name === 'ClientClosedError' || /closed/i.test(error.message));
    await store.close();
    const nowhere = new RedisStore({ clientOptions: { socket: { host: '127.0.0.1', port: 1 } }, timeout: 0.2 });
    await assert.rejects(nowhere.get(ID), (error) => error instanceof CounterfoilError && ['TIMEOUT', 'UNAVAILABLE'].includes(error.code));
    await nowhere.close();
  });
});
