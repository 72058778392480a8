'use strict';

// The express-session adapter: the store by itself, under a real express application, and with Passport's login and logout.

const { test, describe, after } = require('node:test');
const assert = require('node:assert/strict');
const http = require('node:http');
const { AsyncLocalStorage } = require('node:async_hooks');
const { EventEmitter } = require('node:events');

const express = require('express');
const session = require('express-session');
const passport = require('passport');
const { Strategy } = require('passport-local');

const { open, CounterfoilError } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { Stage } = require('counterfoil/testing');
const { ownPrefix } = require('./support/redis.cjs');
const { URLS } = require('./support/places.cjs');
const { MapBackend } = require('../../examples/js_backend.cjs');

const sess = (cookie = { maxAge: null, expires: null }, data = {}) => ({ cookie: { originalMaxAge: null, ...cookie }, ...data });
const inMs = (ms) => sess({ expires: new Date(Date.now() + ms) });
/** Calls a method with a callback. */
const called = (store, method, ...args) =>
  new Promise((resolve, reject) => assert.equal(store[method](...args, (error, result) => (error ? reject(error) : resolve(result))), undefined));

// ------------------------------------------------------------------------------------------------------------- the store --

test('it is an express-session store, and extensible', () => {
  const store = new CounterfoilStore();
  assert(store instanceof session.Store);
  assert(store instanceof EventEmitter);
  store.generate = () => {};
  store.mine = 1;
  assert.equal(store.mine, 1);
});

describe('callbacks and promises', () => {
  for (const [name, call] of Object.entries({ callbacks: called, promises: (store, method, ...args) => store[method](...args) })) {
    test(name, async () => {
      const store = new CounterfoilStore({ url: 'memory:' });
      assert.equal(await call(store, 'get', 'none'), null);
      assert.equal(await call(store, 'set', 'a', sess({}, { n: 1 })), undefined);
      assert.deepEqual((await call(store, 'get', 'a')).n, 1);
      await call(store, 'set', 'b', sess());
      assert.equal(await call(store, 'length'), 2);
      assert.deepEqual((await call(store, 'ids')).sort(), ['a', 'b']);
      const all = await call(store, 'all');
      assert(Array.isArray(all));
      assert.deepEqual(all.map((one) => one.id).sort(), ['a', 'b']);
      assert.equal(await call(store, 'touch', 'a', sess()), undefined);
      assert.equal(await call(store, 'touch', 'none', sess()), undefined);
      assert.equal(await call(store, 'get', 'none'), null);
      assert.equal(await call(store, 'destroy', 'a'), undefined);
      assert.equal(await call(store, 'destroy', 'a'), undefined);
      assert.equal(await call(store, 'clear'), undefined);
      assert.equal(await call(store, 'length'), 0);
    });
  }
});

test('errors reach the callback, and a promise', async () => {
  const mine = new Error('mine');
  const backend = { get() { throw mine; }, set() { throw mine; }, delete() { throw mine; }, touch() { throw mine; }, scan() { throw mine; } };
  const store = new CounterfoilStore({ backend });
  for (const [method, ...args] of [['get', 'a'], ['set', 'a', sess()], ['touch', 'a', sess()], ['destroy', 'a'], ['all'], ['ids'], ['length'], ['clear']]) {
    await assert.rejects(called(store, method, ...args), (error) => error === mine, method);
    await assert.rejects(store[method](...args), (error) => error === mine, method);
  }
  store.destroy('a', undefined); // as express-session calls it; its rejection must not end the process
  await new Promise((resolve) => setImmediate(resolve));
});

test('a callback that throws is called once, and its error is uncaught, as an error of the caller is', async () => {
  const store = new CounterfoilStore();
  let calls = 0;
  const uncaught = new Promise((resolve) => {
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.once('uncaughtException', (error) => {
      for (const listener of listeners) process.on('uncaughtException', listener);
      resolve(error);
    });
  });
  const mine = new Error('mine');
  store.get('a', () => { calls++; throw mine; });
  assert.equal(await uncaught, mine);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(calls, 1);
});

test('what is there at once is told before the next thing that the caller does in a tick: a response is one write', async () => {
  const store = new CounterfoilStore();
  const order = [];
  const ask = (method, ...args) => new Promise((resolve) => {
    store[method](...args, (error) => order.push(error?.code ?? method));
    process.nextTick(() => resolve(order.push('caller')));
  });
  for (const [method, ...args] of [['set', sess()], ['get'], ['touch', sess()]]) await ask(method, 'a', ...args);
  assert.deepEqual(order, ['set', 'caller', 'get', 'caller', 'touch', 'caller']);
  await store.close();
  for (const [method, ...args] of [['set', sess()], ['get'], ['touch', sess()]]) await ask(method, 'a', ...args);
  assert.deepEqual(order.slice(6), ['CLOSED', 'caller', 'CLOSED', 'caller', 'CLOSED', 'caller']);
});

test('a method that the application has put in the place of one of its store is called, whatever kind of promise it gives', async () => {
  const inner = open('memory:');
  const asked = [];
  for (const name of ['get', 'set', 'touch']) {
    const method = inner[name];
    inner[name] = (...args) => {
      asked.push(name);
      const result = method.apply(inner, args);
      return { then: (good, bad) => result.then(good, bad) };
    };
  }
  const store = new CounterfoilStore({ store: inner });
  for (const call of [called, (one, method, ...args) => one[method](...args)]) {
    await call(store, 'set', 'a', sess({}, { n: 1 }));
    assert.equal((await call(store, 'get', 'a')).n, 1);
    await call(store, 'touch', 'a', sess());
  }
  assert.deepEqual(asked, ['set', 'get', 'touch', 'set', 'get', 'touch']);
});

test('a callback keeps its async context', async () => {
  const storage = new AsyncLocalStorage();
  const store = new CounterfoilStore();
  assert.equal(await storage.run('mine', () => new Promise((resolve) => store.get('a', () => resolve(storage.getStore())))), 'mine');
});

test('copies: nothing that is changed outside changes the store', async () => {
  const store = new CounterfoilStore();
  const mine = sess({}, { list: [1] });
  const set = store.set('a', mine);
  mine.list.push(2);
  await set;
  const first = await store.get('a');
  assert.deepEqual(first.list, [1]);
  first.list.push(3);
  assert.deepEqual((await store.get('a')).list, [1]);
});

test('a set is visible to a get that follows without waiting', async () => {
  const store = new CounterfoilStore();
  store.set('a', sess({}, { n: 1 }), () => {});
  assert.equal((await store.get('a')).n, 1);
});

test('keys are the prefix and the id, plain JSON under them: what connect-redis keeps', async () => {
  const inner = open('memory:');
  const store = new CounterfoilStore({ store: inner });
  await store.set('abc', { cookie: { originalMaxAge: null }, n: 1 });
  assert.equal(await inner.get('sess:abc'), '{"cookie":{"originalMaxAge":null},"n":1}');
  const other = new CounterfoilStore({ store: inner, prefix: 'other*?[' });
  await other.set('abc', sess());
  assert.deepEqual(await other.ids(), ['abc']);
  assert.deepEqual(await store.ids(), ['abc']);
  await inner.set('unrelated', 'x');
  await other.clear();
  assert.equal(await store.length(), 1);
  assert.equal(await inner.count(), 2);
});

test('an empty prefix: clear is refused, unless the store has one', async () => {
  await assert.rejects(new CounterfoilStore({ prefix: '' }).clear(), { code: 'INVALID' });
  const inner = open('memory:', { prefix: 'app:' });
  const store = new CounterfoilStore({ store: inner, prefix: '' });
  await store.set('a', sess());
  await store.clear();
  assert.equal(await store.length(), 0);
});

test('a stored value without a cookie gets an empty one; what is no session is CORRUPT', async () => {
  const inner = open('memory:');
  const store = new CounterfoilStore({ store: inner });
  for (const text of ['{"n":1}', '{"n":1,"cookie":null}', '{"n":1,"cookie":5}']) {
    await inner.set('sess:a', text);
    assert.deepEqual(await store.get('a'), { n: 1, cookie: {} });
  }
  for (const text of ['secret{', '', 'null', '5', '[]', '"secret"']) {
    await inner.set('sess:a', text);
    await assert.rejects(store.get('a'), (error) => error instanceof CounterfoilError && error.code === 'CORRUPT' && !error.stack.includes('secret'));
  }
});

describe('expiry', () => {
  const staged = (options = {}) => {
    const stage = new Stage();
    return { stage, store: new CounterfoilStore({ stage, ...options }) };
  };
  /** Whole milliseconds pass between making a session and storing it: so an exact instant is asked of `at` most and at least. */
  const livesFor = async (stage, store, seconds) => {
    stage.advance(seconds - 0.5);
    assert.notEqual(await store.get('a'), null);
    stage.advance(0.5);
    assert.equal(await store.get('a'), null);
  };

  test('from cookie.expires: a Date, or the text of one', async () => {
    for (const expires of [() => new Date(Date.now() + 5000), () => new Date(Date.now() + 5000).toISOString(), () => Date.now() + 5000]) {
      const { stage, store } = staged();
      await store.set('a', sess({ expires: expires() }));
      await livesFor(stage, store, 5);
    }
  });

  test('to the millisecond', async (t) => {
    t.mock.method(Date, 'now', () => 1_000_000_000_000);
    for (const ms of [1, 999, 1001, 4999, 86_400_001]) {
      const { stage, store } = staged();
      await store.set('a', sess({ expires: new Date(Date.now() + ms) }));
      stage.advance((ms - 1) / 1000);
      assert.notEqual(await store.get('a'), null, `${ms} ms`);
      stage.advance(0.001);
      assert.equal(await store.get('a'), null, `${ms} ms`);
    }
  });

  test('else from the ttl: a day, a number, 0 for a day', async () => {
    for (const [options, seconds] of [[{}, 86400], [{ ttl: 10 }, 10], [{ ttl: 0 }, 86400], [{ ttl: undefined }, 86400], [{ ttl: 1.5 }, 1.5]]) {
      for (const cookie of [{ expires: null }, { expires: false }, { expires: undefined }, { expires: '' }]) {
        const { stage, store } = staged(options);
        await store.set('a', sess(cookie));
        await livesFor(stage, store, seconds);
      }
      const { stage, store } = staged(options);
      await store.set('a', { n: 1 });
      await livesFor(stage, store, seconds);
    }
  });

  test('a ttl function decides alone', async () => {
    const { stage, store } = staged({ ttl: (data) => data.life });
    await store.set('a', sess({ expires: new Date(0) }, { life: 7 }));
    await livesFor(stage, store, 7);
    for (const life of [0, -1, NaN]) {
      await store.set('a', sess({}, { life: 7 }));
      await store.set('a', sess({}, { life }));
      assert.equal(await store.get('a'), null);
    }
    await assert.rejects(store.set('a', sess({}, { life: '7' })), { code: 'INVALID' });
  });

  test('more than ten years is ten years', async () => {
    for (const [options, cookie] of [[{}, { expires: new Date(Date.now() + 100 * 365 * 86400_000) }], [{ ttl: Infinity }, {}], [{ ttl: 1e12 }, {}]]) {
      const { stage, store } = staged(options);
      await store.set('a', sess(cookie));
      await livesFor(stage, store, 3650 * 86400);
    }
  });

  test('an expired or unparsable cookie destroys', async () => {
    for (const method of ['set', 'touch']) {
      for (const options of [{}, method === 'set' ? { disableTTL: true } : {}]) {
        for (const expires of [new Date(0), new Date(Date.now() - 1).toISOString(), 'no date', new Date(NaN), Date.now() - 1, {}]) {
          const { store } = staged(options);
          await store.set('a', sess());
          await store[method]('a', sess({ expires }));
          assert.equal(await store.get('a'), null, `${method} ${String(expires)}`);
        }
      }
    }
  });

  test('touch moves the expiry and nothing else', async () => {
    const { stage, store } = staged();
    await store.set('a', sess({ expires: new Date(Date.now() + 5000) }, { n: 1 }));
    const before = JSON.stringify(await store.get('a'));
    stage.advance(4);
    await store.touch('a', { ...inMs(5000), n: 2 });
    stage.advance(4);
    assert.equal(JSON.stringify(await store.get('a')), before);
    stage.advance(1);
    assert.equal(await store.get('a'), null);
    await store.touch('a', inMs(5000));
    assert.equal(await store.get('a'), null);
  });

  test('disableTouch', async () => {
    const { stage, store } = staged({ disableTouch: true, ttl: 5 });
    await store.set('a', sess());
    stage.advance(3);
    await store.touch('a', sess());
    stage.advance(2);
    assert.equal(await store.get('a'), null);
  });

  test('disableTTL', async () => {
    const { stage, store } = staged({ disableTTL: true, ttl: 5 });
    await store.set('a', inMs(5000));
    await store.touch('a', inMs(5000));
    stage.advance(10 * 365 * 86400);
    stage.advance(10 * 365 * 86400);
    assert.notEqual(await store.get('a'), null);
  });

  test('what has expired is neither counted nor listed', async () => {
    const { stage, store } = staged({ ttl: 5 });
    await store.set('a', sess());
    stage.advance(3);
    await store.set('b', sess());
    stage.advance(2);
    assert.equal(await store.length(), 1);
    assert.deepEqual(await store.ids(), ['b']);
    assert.deepEqual((await store.all()).map((one) => one.id), ['b']);
  });
});

test('a serializer, with values or promises; its errors are its own', async () => {
  const mine = new Error('mine');
  for (const wrap of [(value) => value, (value) => Promise.resolve(value)]) {
    const inner = open('memory:');
    const store = new CounterfoilStore({ store: inner, serializer: { parse: (text) => wrap(JSON.parse(text.slice(1))), stringify: (data) => wrap(`!${JSON.stringify(data)}`) } });
    await store.set('a', sess({}, { n: 1 }));
    assert.match(await inner.get('sess:a'), /^!\{/);
    assert.equal((await store.get('a')).n, 1);
    assert.equal((await store.all())[0].n, 1);
  }
  const throwing = new CounterfoilStore({ serializer: { parse() { throw mine; }, stringify: () => '{}' } });
  await throwing.set('a', sess());
  await assert.rejects(throwing.get('a'), (error) => error === mine);
  const empty = new CounterfoilStore({ serializer: { parse: JSON.parse, stringify: () => undefined } });
  await assert.rejects(empty.set('a', sess()), { code: 'INVALID' });
  const cyclic = sess();
  cyclic.cyclic = cyclic;
  await assert.rejects(new CounterfoilStore().set('a', cyclic), TypeError);
});

test('options are checked', () => {
  const store = open('memory:');
  for (const options of [null, 5, { nosuch: 1 }, { store, url: 'memory:' }, { url: 'memory:', backend: new MapBackend() }, { store: {} }, { store, timeout: 1 }, { prefix: 5 }, { ttl: '5' }, { ttl: -1 }, { ttl: NaN },
    { serializer: {} }, { serializer: { parse() {} } }, { url: 'nosuch:' }, { backend: {} }, { url: 5 }, { url: new MapBackend() }, { backend: 'memory:' }, { backend: null },
    { disableTTL: 'no' }, { disableTouch: 0 }, { prefix: 'a\n' }, { prefix: 'a\r' }, { prefix: '\0' }, { prefix: '\ud800' }, { prefix: 'é'.repeat(129) }]) {
    assert.throws(() => new CounterfoilStore(options), { code: 'INVALID' }, JSON.stringify(options));
  }
  assert.throws(() => new CounterfoilStore({ maxEntries: 5 }), /unknown option: maxEntries \(known: store, url, /);
});

test('the longest prefix serves, and one with a character of two units', async () => {
  for (const prefix of ['é'.repeat(128), 'a😀:']) {
    const store = new CounterfoilStore({ prefix });
    await store.set('a', sess({}, { n: 1 }));
    assert.equal((await store.get('a')).n, 1);
    assert.deepEqual(await store.ids(), ['a']);
  }
});

test('ids that can be no key are refused, not looked up', async () => {
  const store = new CounterfoilStore();
  for (const sid of ['', undefined, null, 5, 'a\0', 'a\n', 'x'.repeat(2000)]) {
    await assert.rejects(store.get(sid), { code: 'INVALID' });
    await assert.rejects(store.set(sid, sess()), { code: 'INVALID' });
    await assert.rejects(store.destroy(sid), { code: 'INVALID' });
  }
  assert.equal(await store.get('__proto__'), null);
  assert.equal(await store.get('constructor'), null);
});

test('close closes what was opened here, and nothing else', async () => {
  const inner = open('memory:');
  const over = new CounterfoilStore({ store: inner });
  await over.close();
  assert.equal(await over.get('a'), null);
  const own = new CounterfoilStore({ url: 'memory:' });
  await own.close();
  await assert.rejects(own.get('a'), { code: 'CLOSED' });
});

test('a store with three methods serves: what it lacks is NOT_SUPPORTED', async () => {
  const map = new Map();
  const store = new CounterfoilStore({ backend: { get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: (key) => map.delete(key) }, disableTouch: true });
  await store.set('a', sess({}, { n: 1 }));
  assert.equal((await store.get('a')).n, 1);
  await store.touch('a', sess());
  await store.destroy('a');
  await assert.rejects(store.length(), { code: 'NOT_SUPPORTED' });
});

// ------------------------------------------------------------------------------------------------------ an application --

/** A browser with one cookie, against an application that listens on a port of its own. */
async function browse(app, visit) {
  const server = http.createServer(app);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  let cookie;
  const go = (path, { method = 'GET', form, keep = true } = {}) =>
    new Promise((resolve, reject) => {
      const body = form && new URLSearchParams(form).toString();
      const headers = { connection: 'close', ...(cookie && { cookie }), ...(body && { 'content-type': 'application/x-www-form-urlencoded' }) };
      const request = http.request({ port: server.address().port, host: '127.0.0.1', path, method, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (piece) => { text += piece; });
        response.on('end', () => {
          const set = response.headers['set-cookie']?.find((one) => one.startsWith('connect.sid='));
          if (set && keep) cookie = set.split(';')[0];
          resolve({ status: response.statusCode, text, set, json: () => JSON.parse(text) });
        });
      });
      request.on('error', reject);
      request.end(body);
    });
  try {
    await visit(go, { forget: () => { cookie = undefined; }, cookie: () => cookie, set: (value) => { cookie = value; } });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

function application(store, options = {}) {
  const app = express();
  app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, ...options }));
  app.get('/count', (request, response) => {
    request.session.views = (request.session.views ?? 0) + 1;
    response.json({ views: request.session.views, id: request.sessionID });
  });
  app.get('/read', (request, response) => response.json({ views: request.session.views ?? null }));
  app.get('/regenerate', (request, response, next) => request.session.regenerate((error) => (error ? next(error) : response.json({ id: request.sessionID, views: request.session.views ?? null }))));
  app.get('/destroy', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({ gone: request.session === undefined }))));
  app.get('/destroy-quietly', (request, response) => { request.session.destroy(); response.json({}); });
  app.get('/save', (request, response, next) => { request.session.saved = 1; request.session.save((error) => (error ? next(error) : response.json({}))); });
  app.get('/reload', (request, response, next) => { request.session.views = 1000; request.session.reload((error) => (error ? next(error) : response.json({ views: request.session.views }))); });
  app.get('/gone-then-reload', (request, response, next) => store.destroy(request.sessionID, () => request.session.reload((error) => (error ? next(error) : response.json({})))));
  app.use((error, request, response, next) => { void next; response.status(500).json({ message: error.message, code: error.code }); });
  return app;
}

const STORES = {
  ...Object.fromEntries(Object.entries(URLS).map(([name, url]) => [name, () => ({ url: url(), prefix: ownPrefix() })])),
  'examples/js_backend.cjs': () => ({ backend: new MapBackend() }),
  'the same, with promises': () => {
    const inner = new MapBackend();
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    return { backend: { singleProcess: true, keepsTtl: true, binary: true, get: async (key) => { await turn(); return inner.get(key); }, set: async (...all) => { await turn(); inner.set(...all); },
      delete: async (key) => { await turn(); return inner.delete(key); }, scan: async (prefix) => { await turn(); return inner.scan(prefix); } } };
  },
};

for (const [name, options] of Object.entries(STORES)) {
  describe(`an express application over ${name}`, () => {
    test('a session counts, regenerates, reloads, and is destroyed', async () => {
      const store = new CounterfoilStore(options());
      await browse(application(store), async (go) => {
        const first = (await go('/count')).json();
        assert.equal(first.views, 1);
        assert.deepEqual((await go('/count')).json(), { views: 2, id: first.id });
        assert.equal((await go('/read')).json().views, 2);
        assert.equal((await go('/reload')).json().views, 2);
        await go('/save');
        assert.equal((await store.get(first.id)).saved, 1);
        const fresh = (await go('/regenerate')).json();
        assert.notEqual(fresh.id, first.id);
        assert.equal(fresh.views, null);
        assert.equal(await store.get(first.id), null);
        const second = (await go('/count')).json();
        assert.equal(second.views, 1);
        assert.equal((await go('/destroy')).json().gone, true);
        assert.equal(await store.get(second.id), null);
        assert.equal((await go('/read')).json().views, null);
      });
      await store.close();
    });

    test('load and createSession', async () => {
      const store = new CounterfoilStore(options());
      await browse(application(store, { cookie: { maxAge: 60000 } }), async (go) => {
        const { id } = (await go('/count')).json();
        const loaded = await new Promise((resolve, reject) => store.load(id, (error, found) => (error ? reject(error) : resolve(found))));
        assert.equal(loaded.views, 1);
        assert.equal(loaded.id, id);
        assert(loaded.cookie.expires instanceof Date);
        assert(loaded.cookie.originalMaxAge > 59000 && loaded.cookie.originalMaxAge <= 60000); // what express-session itself stored
        assert.equal(await new Promise((resolve) => store.load('none', (error, found) => resolve(error ?? found))), undefined);
      });
      await store.close();
    });
  });
}

test('an unmodified session costs one get and one touch, and its life is prolonged', async () => {
  const calls = [];
  const map = new Map();
  const note = (name, work) => (...args) => { calls.push(name); return work(...args); };
  const backend = { get: note('get', (key) => map.get(key)), set: note('set', (key, value) => map.set(key, value)), delete: note('delete', (key) => map.delete(key)), touch: note('touch', (key, ttl) => { calls.push(ttl); return true; }) };
  await browse(application(new CounterfoilStore({ backend }), { cookie: { maxAge: 60000 } }), async (go) => {
    await go('/count');
    assert.deepEqual(calls, ['set']);
    calls.length = 0;
    await go('/read');
    assert.deepEqual([calls[0], calls[1]], ['get', 'touch']);
    assert.equal(calls.length, 3);
    assert(calls[2] > 59 && calls[2] <= 60);
  });
});

test('a session ends when its cookie does, and lives on while it is used', async () => {
  const stage = new Stage();
  await browse(application(new CounterfoilStore({ stage }), { cookie: { maxAge: 10000 }, rolling: true }), async (go) => {
    await go('/count');
    stage.advance(8);
    assert.equal((await go('/read')).json().views, 1);
    stage.advance(8);
    assert.equal((await go('/read')).json().views, 1);
    stage.advance(10.001);
    assert.equal((await go('/read')).json().views, null);
  });
});

// A touch leaves the stored text as it is, so in a session that lives by its touches cookie.expires has passed or is about to. A
// request.session.save() within the request gives that cookie back to the store, before the middleware counts it anew.
describe('a session that touches have kept alive survives an explicit save', () => {
  for (const [what, left, options] of [['long past', -3600000, {}], ['about to pass', 1, {}], ['long past, without TTLs', -3600000, { disableTTL: true }]]) {
    test(what, async () => {
      const inner = open('memory:');
      const store = new CounterfoilStore({ store: inner, ...options });
      await browse(application(store, { cookie: { maxAge: 600000 } }), async (go) => {
        const { id } = (await go('/count')).json();
        const stored = JSON.parse(await inner.get(`sess:${id}`));
        stored.cookie.expires = new Date(Date.now() + left).toISOString();
        await inner.set(`sess:${id}`, JSON.stringify(stored), { keepTtl: true });
        const read = await store.get(id);
        assert.equal((await go('/save')).status, 200);
        assert.equal((await go('/read')).json().views, 1);
        assert(Date.parse(read.cookie.expires) > Date.now() + 300000, read.cookie.expires);
      });
    });
  }
  test('but not one whose touches do nothing: its cookie is what it was', async () => {
    const inner = open('memory:');
    const store = new CounterfoilStore({ store: inner, disableTouch: true });
    const expires = new Date(Date.now() - 1).toISOString();
    await inner.set('sess:a', JSON.stringify({ cookie: { originalMaxAge: 60000, expires } }));
    assert.equal((await store.get('a')).cookie.expires, expires);
  });
  test('a serializer that gives a Date gets one back; a cookie without a life is left alone', async () => {
    const cookies = [{ originalMaxAge: 60000, expires: new Date(0) }, { originalMaxAge: null, expires: new Date(0) }, { originalMaxAge: 60000, expires: null }, { originalMaxAge: 60000, expires: 'never' }];
    const inner = open('memory:');
    const store = new CounterfoilStore({ store: inner, serializer: { parse: (text) => ({ cookie: cookies[Number(text)] }), stringify: String } });
    for (const [i] of cookies.entries()) await inner.set(`sess:${i}`, String(i));
    const { expires } = (await store.get('0')).cookie;
    assert(expires instanceof Date && expires.getTime() > Date.now());
    assert.equal((await store.get('1')).cookie.expires.getTime(), 0);
    assert.equal((await store.get('2')).cookie.expires, null);
    assert.equal((await store.get('3')).cookie.expires, 'never');
  });
});

test('what is no session is refused, not stored', async () => {
  const store = new CounterfoilStore();
  for (const wrong of [null, undefined, 'abc', 5, [1], true]) await assert.rejects(store.set('a', wrong), { code: 'INVALID', message: 'the session must be an object' });
  assert.equal(await store.get('a'), null);
  assert.deepEqual(await store.all(), []);
});

test('a session that another framework wrote, without a cookie', async () => {
  const inner = open('memory:');
  const store = new CounterfoilStore({ store: inner });
  await browse(application(store), async (go) => {
    const { id } = (await go('/count')).json();
    await inner.set(`sess:${id}`, '{"views":41}');
    assert.equal((await go('/count')).json().views, 42);
  });
});

test('names of methods in the data are no danger', async () => {
  const inner = open('memory:');
  const store = new CounterfoilStore({ store: inner });
  await browse(application(store), async (go) => {
    const { id } = (await go('/count')).json();
    await inner.set(`sess:${id}`, '{"cookie":{},"views":1,"save":"x","touch":1,"__proto__":{"polluted":1}}');
    assert.equal((await go('/count')).json().views, 2);
    assert.equal({}.polluted, undefined);
  });
});

test('reload of a session that is gone', async () => {
  await browse(application(new CounterfoilStore()), async (go) => {
    await go('/count');
    const { status, text } = await go('/gone-then-reload');
    assert.equal(status, 500);
    assert.match(text, /failed to load session/);
  });
});

test('an error of the backend becomes an error of the request; ENOENT is a miss', async () => {
  let error;
  const map = new Map();
  const backend = { get: (key) => { if (error) throw error; return map.get(key); }, set: (key, value) => map.set(key, value), delete: (key) => { if (error) throw error; return map.delete(key); }, touch: () => true };
  await browse(application(new CounterfoilStore({ backend })), async (go) => {
    await go('/count');
    error = Object.assign(new Error('down'), { code: 'EDOWN' });
    const answer = await go('/read', { keep: false });
    assert.deepEqual([answer.status, answer.json()], [500, { message: 'down', code: 'EDOWN' }]);
    error = Object.assign(new Error('no file'), { code: 'ENOENT' });
    assert.equal((await go('/read', { keep: false })).json().views, null);
    error = undefined;
    assert.equal((await go('/read')).json().views, 1);
  });
});

test('destroy without a callback: an error ends nothing', async () => {
  let error;
  const map = new Map();
  const backend = { get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: () => { if (error) throw error; return true; }, touch: () => true };
  await browse(application(new CounterfoilStore({ backend })), async (go) => {
    await go('/count');
    error = new Error('down');
    assert.equal((await go('/destroy-quietly')).status, 200);
    assert.equal((await go('/read')).json().views, 1);
  });
});

test('a store of its own for each of two applications over one memory', async () => {
  const inner = open('memory:');
  const one = new CounterfoilStore({ store: inner, prefix: 'one:' }), two = new CounterfoilStore({ store: inner, prefix: 'two:' });
  await browse(application(one), (go) => go('/count'));
  await browse(application(two), (go) => go('/count'));
  assert.deepEqual([await one.length(), await two.length()], [1, 1]);
});

// ------------------------------------------------------------------------------------------------------------- Passport --

for (const [name, options] of Object.entries(STORES)) {
  test(`Passport logs in and out over ${name}`, async () => {
    const store = new CounterfoilStore(options());
    const auth = new passport.Passport();
    auth.use(new Strategy((username, password, done) => done(null, password === 'right' ? { id: 7, username } : false)));
    auth.serializeUser((user, done) => done(null, user.id));
    auth.deserializeUser((id, done) => done(null, { id }));
    const app = express();
    app.use(express.urlencoded({ extended: false }));
    app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false }));
    app.use(auth.initialize(), auth.session());
    app.get('/visit', (request, response) => { request.session.visited = true; response.json({ id: request.sessionID }); });
    app.post('/login', auth.authenticate('local'), (request, response) => response.json({ id: request.sessionID, user: request.user.id }));
    app.get('/me', (request, response) => response.json({ user: request.user?.id ?? null, id: request.sessionID }));
    app.post('/logout', (request, response, next) => request.logout((error) => (error ? next(error) : response.json({ id: request.sessionID }))));
    await browse(app, async (go, jar) => {
      const before = (await go('/visit')).json();
      assert.equal((await go('/login', { method: 'POST', form: { username: 'ada', password: 'wrong' } })).status, 401);
      const login = (await go('/login', { method: 'POST', form: { username: 'ada', password: 'right' } })).json();
      assert.equal(login.user, 7);
      assert.notEqual(login.id, before.id, 'a login changes the id');
      assert.equal(await store.get(before.id), null, 'the old session is gone');
      assert.deepEqual((await store.get(login.id)).passport, { user: 7 });
      assert.equal((await go('/me')).json().user, 7);
      const stolen = jar.cookie();
      const logout = (await go('/logout', { method: 'POST' })).json();
      assert.notEqual(logout.id, login.id);
      assert.equal((await go('/me')).json().user, null);
      jar.set(stolen);
      assert.equal((await go('/me')).json().user, null, 'the cookie from before the logout is worth nothing');
    });
    await store.close();
  });
}

// ------------------------------------------------------------------------------------- frameworks without express-session --

test('without express-session in sight, the same three methods are our own', () => {
  // The adapter is loaded in a process where express-session cannot be found, under a middleware that does what frameworks do.
  const { spawnSync } = require('node:child_process');
  const script = `
    const Module = require('node:module');
    const resolve = Module._resolveFilename;
    Module._resolveFilename = function (name, ...rest) {
      if (name === 'express-session') throw Object.assign(new Error('not here'), { code: 'MODULE_NOT_FOUND' });
      return resolve.call(this, name, ...rest);
    };
    const assert = require('node:assert/strict');
    const { CounterfoilStore } = require('counterfoil/express-session');
    class Cookie { constructor(options) { this.path = '/'; Object.assign(this, options); } }
    class Session {
      constructor(request, data) {
        Object.defineProperty(this, 'req', { value: request });
        Object.defineProperty(this, 'id', { value: request.sessionID });
        Object.assign(this, data);
      }
    }
    let ids = 0;
    const store = new CounterfoilStore();
    store.generate = (request) => { request.sessionID = 'sid' + ++ids; request.session = new Session(request); request.session.cookie = new Cookie(); };
    (async () => {
      const request = {};
      store.generate(request);
      request.session.n = 1;
      request.session.cookie.expires = new Date(Date.now() + 60000);
      request.session.cookie.originalMaxAge = 60000;
      await store.set(request.sessionID, request.session);
      const loaded = await new Promise((done, fail) => store.load('sid1', (error, found) => error ? fail(error) : done(found)));
      assert(loaded instanceof Session && loaded.cookie instanceof Cookie && loaded.cookie.expires instanceof Date);
      assert.equal(loaded.n, 1);
      assert.equal(loaded.id, 'sid1');
      assert.equal(loaded.cookie.originalMaxAge, 60000);
      const old = request.sessionID;
      await new Promise((done, fail) => store.regenerate(request, (error) => error ? fail(error) : done()));
      assert.notEqual(request.sessionID, old);
      assert.equal(await store.get(old), null);
      assert.equal(await new Promise((done) => store.load('none', (error, found) => done(error ?? found))), undefined);
      console.log('all well');
    })();`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], { cwd: `${__dirname}/../..`, encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(stdout, 'all well\n');
  assert.equal(status, 0);
});

test('with express-session out of sight of the adapter alone, a session comes back with a cookie of its class', () => {
  const { spawnSync } = require('node:child_process');
  const script = `
    const Module = require('node:module');
    const resolve = Module._resolveFilename;
    let hidden = true;
    Module._resolveFilename = function (name, ...rest) {
      if (name === 'express-session' && hidden) throw Object.assign(new Error('not here'), { code: 'MODULE_NOT_FOUND' });
      return resolve.call(this, name, ...rest);
    };
    const { CounterfoilStore } = require('counterfoil/express-session');
    hidden = false;
    const session = require('express-session');
    const app = require('express')();
    app.use(session({ store: new CounterfoilStore(), secret: 'x', resave: false, saveUninitialized: false, rolling: true, cookie: { maxAge: 60000, sameSite: 'lax' } }));
    app.get('/', (request, response) => {
      request.session.n = (request.session.n ?? 0) + 1;
      response.send(String(request.session.n));
    });
    const server = app.listen(0, '127.0.0.1', async () => {
      const url = 'http://127.0.0.1:' + server.address().port + '/';
      const first = await fetch(url);
      const second = await fetch(url, { headers: { cookie: first.headers.get('set-cookie').split(';')[0] } });
      const attributes = (response) => response.headers.get('set-cookie').split('; ').slice(1).map((text) => text.split('=')[0]);
      console.log(await second.text(), ...attributes(first), '|', ...attributes(second));
      server.closeAllConnections();
      server.close();
    });`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: `${__dirname}/../..`, encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(stdout, '2 Path Expires HttpOnly SameSite | Path Expires HttpOnly SameSite\n');
});

describe('where express-session is looked for', () => {
  const { spawnSync } = require('node:child_process');
  const fs = require('node:fs');
  const os = require('node:os');
  const path = require('node:path');
  const root = path.join(__dirname, '..', '..');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'counterfoil-peer-'));
  after(() => fs.rmSync(folder, { recursive: true, force: true }));
  // From the package itself nothing is in sight: as for a linked one, or for a program without express-session.
  fs.writeFileSync(path.join(folder, 'blind.cjs'), `
    const Module = require('node:module');
    const resolve = Module._resolveFilename;
    Module._resolveFilename = function (name, parent, ...rest) {
      if (name === 'express-session' && parent?.filename?.startsWith(${JSON.stringify(root + path.sep)})) throw Object.assign(new Error('not here'), { code: 'MODULE_NOT_FOUND' });
      return resolve.call(this, name, parent, ...rest);
    };`);
  const elsewhere = path.join(folder, 'elsewhere');
  const program = path.join(folder, 'program');
  for (const [place, text] of [[elsewhere, `console.log('not to be run'); exports.Store = class {};`], [program, `exports.Store = class Theirs extends require('node:events') {};`]]) {
    fs.mkdirSync(path.join(place, 'node_modules', 'express-session'), { recursive: true });
    fs.writeFileSync(path.join(place, 'node_modules', 'express-session', 'index.js'), text);
  }
  const adapter = JSON.stringify(path.join(root, 'node', 'adapters', 'express-session.cjs'));
  const base = `console.log(Object.getPrototypeOf(CounterfoilStore).name)`;
  fs.writeFileSync(path.join(program, 'main.mjs'), `import { createRequire } from 'node:module'; const { CounterfoilStore } = createRequire(import.meta.url)(${adapter}); ${base}`);
  fs.writeFileSync(path.join(program, 'main.cjs'), `const { CounterfoilStore } = require(${adapter}); ${base}`);
  fs.writeFileSync(path.join(folder, 'alone.cjs'), `const { CounterfoilStore } = require(${adapter}); ${base}`);
  for (const [what, file, expected] of [
    ['beside the program, an ES module', path.join(program, 'main.mjs'), 'Theirs'],
    ['beside the program, a CommonJS module', path.join(program, 'main.cjs'), 'Theirs'],
    ['never in the working folder', path.join(folder, 'alone.cjs'), 'LooseStore'],
  ]) {
    test(what, () => {
      const { stdout, stderr } = spawnSync(process.execPath, ['--require', path.join(folder, 'blind.cjs'), file], { cwd: elsewhere, encoding: 'utf8' });
      assert.equal(stderr, '');
      assert.equal(stdout, `${expected}\n`);
    });
  }
});
