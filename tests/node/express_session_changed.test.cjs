'use strict';

// saveChanged: 'error'. A request saves a session only over what it has loaded: what another request saved meanwhile is not lost.

const { test, describe, after } = require('node:test');
const assert = require('node:assert/strict');

const express = require('express');
const session = require('express-session');

const { open, CounterfoilError } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { ownPrefix } = require('./support/redis.cjs');
const { URLS } = require('./support/places.cjs');
const { load, save, withSessions, generated, browse } = require('./support/sessions.cjs');

const turn = () => new Promise((resolve) => setImmediate(resolve));
const CHANGED = { code: 'CHANGED', outcome: 'not_applied', message: 'the session was saved by another request since it was loaded: nothing was saved' };

for (const [name, url] of Object.entries(URLS)) {
  describe(name, () => {
    const opened = (options) => {
      const store = withSessions({ url: url(), prefix: ownPrefix(), saveChanged: 'error', ...options });
      after(() => store.close());
      return store;
    };
    /** A session that is there, and what two requests load of it. */
    const loadedTwice = async (store) => {
      const fresh = generated(store, { maxAge: 600000 });
      await save(fresh);
      return [await load(store, fresh.id), await load(store, fresh.id), fresh];
    };

    test('the second of two saves is refused, and may load again', async () => {
      const store = opened();
      const [one, two, fresh] = await loadedTwice(store);
      one.one = 1;
      await save(one);
      two.two = 2;
      for (const late of [two, two, fresh]) {
        await assert.rejects(save(late), CHANGED);
        await assert.rejects(save(late), CounterfoilError);
      }
      const again = await load(store, two.id);
      again.two = 2;
      await save(again);
      const { one: first, two: second } = await store.get(two.id);
      assert.deepEqual([first, second], [1, 2]);
    });

    test('by default the last one wins', async () => {
      for (const saveChanged of [undefined, 'overwrite']) {
        const store = opened({ saveChanged });
        const [one, two] = await loadedTwice(store);
        one.one = 1;
        await save(one);
        two.two = 2;
        await save(two);
        const { one: first, two: second } = await store.get(two.id);
        assert.deepEqual([first, second], [undefined, 2]);
      }
    });

    test('one request may save as often as it likes, also without waiting', async () => {
      const store = opened();
      for (const one of [(await loadedTwice(store))[0], generated(store)]) {
        for (let n = 0; n < 3; n++) {
          one.n = n;
          await save(one);
        }
        const all = [];
        for (one.n = 10; one.n < 20; one.n++) all.push(save(one));
        await Promise.all(all);
        assert.equal((await store.get(one.id)).n, 19);
      }
    });

    test('a touch changes nothing', async () => {
      const store = opened();
      const [one, two] = await loadedTwice(store);
      await store.touch(one.id, one);
      two.two = 2;
      await save(two);
      assert.equal((await store.get(one.id)).two, 2);
    });

    test('one that has ended: as saveEnded says', async () => {
      for (const saveEnded of [undefined, 'ignore', 'error', 'create']) {
        const store = opened({ saveEnded });
        const [one, two] = await loadedTwice(store);
        await store.destroy(one.id);
        if (saveEnded === 'error') await assert.rejects(save(one), { code: 'ENDED' });
        else await save(one);
        assert.equal((await store.get(one.id)) === null, saveEnded !== 'create');
        if (saveEnded !== 'create') continue;
        one.one = 1;
        await save(one); // what was made anew is known
        two.two = 2;
        await assert.rejects(save(two), { code: 'CHANGED' });
      }
    });

    test('a hundred at once, each of which loads again until it is heard: nothing is lost', async () => {
      const store = opened();
      const [, , fresh] = await loadedTwice(store);
      let refused = 0;
      await Promise.all(Array.from({ length: 100 }, async () => {
        for (;;) {
          const one = await load(store, fresh.id);
          one.n = (one.n ?? 0) + 1;
          try {
            await save(one);
            return;
          } catch (error) {
            if (error.code !== 'CHANGED') throw error;
            refused++;
            await turn();
          }
        }
      }));
      assert.equal((await store.get(fresh.id)).n, 100);
      assert(refused > 0);
    });

    test('in an application: the slower request is told, reloads, and adds its own', async () => {
      const store = opened();
      const app = express();
      let stopped, go;
      const there = new Promise((resolve) => { stopped = resolve; });
      const released = new Promise((resolve) => { go = resolve; });
      app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, cookie: { maxAge: 600000 } }));
      app.get('/add/:what', (request, response) => { request.session[request.params.what] = 1; response.json({}); });
      app.get('/slow', (request, response, next) => {
        const { session: before } = request;
        stopped();
        released.then(async () => {
          before.slow = 1;
          await assert.rejects(save(before), { code: 'CHANGED' });
          await new Promise((resolve, reject) => before.reload((error) => (error ? reject(error) : resolve())));
          request.session.slow = 1;
        }).then(() => response.json({}), next);
      });
      app.get('/read', (request, response) => response.json(request.session));
      app.use((error, request, response, next) => { void next; response.status(500).json({ message: error.message }); });
      await browse(app, async (visit) => {
        await visit('/add/first', { keep: true });
        const answer = visit('/slow');
        await there;
        await visit('/read');
        await visit('/add/second');
        go();
        assert.deepEqual(await answer, { status: 200 });
        const { first, second, slow } = await visit('/read');
        assert.deepEqual([first, second, slow], [1, 1, 1]);
      });
    });
  });
}

test('a save that failed changes nothing: the next one is compared with what was loaded', async () => {
  const map = new Map();
  let error;
  const set = (key, value) => { if (error) throw error; map.set(key, value); };
  const backend = { singleProcess: true, get: (key) => map.get(key), set, delete: (key) => map.delete(key) };
  const store = withSessions({ backend, saveChanged: 'error' });
  const fresh = generated(store);
  await save(fresh);
  error = new Error('down');
  fresh.n = 1;
  await assert.rejects(save(fresh), (got) => got === error);
  error = undefined;
  fresh.n = 2;
  await save(fresh);
  assert.equal((await store.get(fresh.id)).n, 2);
});

test('what is compared is the stored text, whatever a serializer makes of it', async () => {
  let salt = 0;
  const parse = async (text) => JSON.parse(text.slice(text.indexOf('{')));
  const serializer = { parse, stringify: async (data) => `${salt++}${JSON.stringify(data)}` };
  const store = withSessions({ serializer, saveChanged: 'error' });
  const fresh = generated(store);
  await save(fresh);
  const one = await load(store, fresh.id);
  const two = await load(store, fresh.id);
  await save(one);
  await save(one);
  await assert.rejects(save(two), { code: 'CHANGED' });
});

test('a session that the application made of data of its own is not compared, but must be there', async () => {
  const store = withSessions({ saveChanged: 'error' });
  const fresh = generated(store);
  await save(fresh);
  const own = store.createSession({ sessionID: fresh.id, sessionStore: store }, { cookie: { originalMaxAge: null }, own: 1 });
  await save(own);
  assert.equal((await store.get(fresh.id)).own, 1);
  await store.destroy(fresh.id);
  await save(own);
  assert.equal(await store.get(fresh.id), null);
});

test('plain objects are stored as they are', async () => {
  const store = new CounterfoilStore({ saveChanged: 'error' });
  await store.set('a', { cookie: { originalMaxAge: null }, n: 1 });
  const found = await store.get('a');
  assert.deepEqual(found, { cookie: { originalMaxAge: null }, n: 1 });
  await store.set('a', { ...found, n: 2 });
  await store.set('a', { ...found, n: 3 });
  assert.equal((await store.get('a')).n, 3);
});

test('a backend that cannot compare refuses', async () => {
  const map = new Map();
  const inner = open({ get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: (key) => map.delete(key) });
  for (const store of [withSessions({ store: inner, saveChanged: 'error' }), withSessions({ store: inner, saveChanged: 'error', saveEnded: 'create' })]) {
    const fresh = generated(store);
    await save(fresh);
    for (let i = 0; i < 2; i++) await assert.rejects(save(fresh), { code: 'NOT_SUPPORTED' });
  }
});

test('the option is checked', () => {
  for (const saveChanged of ['refuse', '', null, true]) {
    assert.throws(() => new CounterfoilStore({ saveChanged }), { code: 'INVALID', message: 'saveChanged must be "overwrite" or "error"' });
  }
});
