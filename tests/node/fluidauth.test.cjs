'use strict';

// counterfoil/fluidauth under FluidAuth's Session (support/fluidauth.cjs) in an Express application, over every place.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const express = require('express');

const { open } = require('counterfoil');
const { SessionStore, BaseSessionStore, FluidAuthError } = require('counterfoil/fluidauth');
const { Stage } = require('counterfoil/testing');
const { ownPrefix } = require('./support/redis.cjs');
const { STAGED } = require('./support/places.cjs');
const { minimal } = require('./support/backends.cjs');
const { Session } = require('./support/fluidauth.cjs');

const MINUTE = 60000;
const ID = '0123456789abcdef0123456789abcdef0123';
const inAnHour = () => new Date(Date.now() + 60 * MINUTE).toISOString();
const refused = (what) => ({ name: 'CounterfoilError', code: 'INVALID', message: what });

/** An application that logs in whatever user the request names, and a browser that keeps its cookies. */
async function withApplication(store, config, visit, behind = async (req, res, next) => { await null; next(); }) {
  const session = new Session({ secret: 'a secret of enough length, 32 characters', store, ...config });
  session.serializeUser = (user) => user.id;
  session.deserializeUser = (id) => ({ id });
  const app = express();
  app.use((req, res, next) => {
    req.cookies = Object.fromEntries((req.headers.cookie ?? '').split('; ').filter(Boolean).map((one) => one.split('=').map(decodeURIComponent)));
    next();
  });
  app.use((req, res, next) => session.manageSession(req, res, next));
  // As few turns as a handler can wait: FluidAuth removes an old cookie while the application works.
  app.use(behind);
  app.get('/login', async (req, res) => {
    await req.session.create({ id: JSON.parse(req.query.id) });
    res.json(req.user);
  });
  app.get('/logout', async (req, res) => {
    await req.session.destroy();
    res.json(req.user);
  });
  app.get('/', (req, res) => res.json(req.user ?? null));
  app.use((error, req, res, next) => res.status(500).json({ error: error.message }));
  const server = http.createServer(app);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const browser = {
    cookie: undefined,
    async go(where) {
      const response = await fetch(`http://127.0.0.1:${server.address().port}${where}`, { headers: browser.cookie ? { cookie: browser.cookie } : {} });
      for (const set of response.headers.getSetCookie()) browser.cookie = /^[^=]+=;/.test(set) ? undefined : set.split(';')[0];
      return response.json();
    },
  };
  try {
    await visit(browser);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

for (const [name, { stage: newStage, url }] of Object.entries(STAGED)) {
  describe(`FluidAuth over ${name}`, () => {
    let store, raw, stage;
    before(() => {
      stage = newStage();
      raw = open(url(), { stage, prefix: ownPrefix() });
      store = new SessionStore({ store: raw });
    });
    after(() => raw.close());

    test('a browser: logs in, is known, logs out; a user id keeps its type', async () => {
      await withApplication(store, {}, async (browser) => {
        assert.equal(await browser.go('/'), null);
        for (const id of [7, '7', 0, -1.5, '', 'Ärger "x"', true, null, { tenant: 1, id: ['x'] }]) {
          await browser.go(`/login?id=${encodeURIComponent(JSON.stringify(id))}`);
          assert(browser.cookie);
          assert.deepEqual(await browser.go('/'), { id });
          const { cookie } = browser;
          assert.equal(await browser.go('/logout'), null);
          assert.equal(browser.cookie, undefined);
          assert.equal(await raw.count('fluidauth:'), 0);
          browser.cookie = cookie; // whoever has the old one
          assert.equal(await browser.go('/'), null);
        }
      });
    });

    test('create refuses an id that is there, with the code 400; of many at once one succeeds', async () => {
      const sessions = Array.from({ length: 20 }, (_, userId) => ({ sessionId: ID, userId, expires: inAnHour() }));
      const outcomes = await Promise.allSettled(sessions.map((one) => store.create(one)));
      assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
      for (const { status, reason } of outcomes) {
        if (status === 'rejected') assert(reason instanceof FluidAuthError && reason.code === 400 && reason.name === 'FluidAuthError');
      }
      const winner = outcomes.findIndex(({ status }) => status === 'fulfilled');
      assert.deepEqual(await store.get(ID), sessions[winner]);
      assert.equal(await raw.get(`fluidauth:${ID}`), JSON.stringify({ userId: winner, expires: sessions[winner].expires })); // as FORMAT.md has it
      await assert.rejects(store.create({ ...sessions[0], expires: new Date(0) }), { code: 400 });
      await store.delete(ID);
      await store.delete(ID);
      assert.equal(await store.get(ID), null);
    });

    test('an update does not bring a session back, unless that is wanted', async () => {
      const data = { sessionId: ID, userId: 7, expires: inAnHour() };
      for (const [one, comes] of [[store, false], [new SessionStore({ store: raw, saveEnded: 'error' }), 'error'], [new SessionStore({ store: raw, saveEnded: 'create' }), true]]) {
        await one.create(data);
        await one.update(ID, { ...data, userId: 8 });
        assert.deepEqual(await one.get(ID), { ...data, userId: 8 });
        await one.delete(ID);
        if (comes === 'error') await assert.rejects(one.update(ID, data), { name: 'CounterfoilError', code: 'ENDED' });
        else await one.update(ID, data);
        assert.deepEqual(await one.get(ID), comes === true ? data : null);
        await one.delete(ID);
      }
    });

    test('sessions are extended, late in their lives; a request that extends one that is logged out meanwhile does not bring it back', async (t) => {
      t.mock.method(Date, 'now', () => stage.now().getTime());
      await withApplication(store, { extendSessionBeforeExpiry: true, sessionDuration: 10 * MINUTE }, async (browser) => {
        await browser.go('/login?id=7');
        for (let i = 0; i < 5; i++) {
          stage.advance(7 * 60);
          assert.deepEqual(await browser.go('/'), { id: 7 });
        }
        stage.advance(7 * 60);
        const { cookie } = browser;
        const { get } = store;
        let gets = 0;
        store.get = async (id) => { // the second read is the one that update builds upon
          const found = await get.call(store, id);
          if (++gets === 2) await store.delete(id);
          return found;
        };
        try {
          await browser.go('/');
        } finally {
          delete store.get;
        }
        assert.equal(gets, 2);
        browser.cookie = cookie;
        assert.equal(await browser.go('/'), null);
        assert.equal(await raw.count('fluidauth:'), 0);
        // One that is over is over, though FluidAuth extends before it looks.
        await browser.go('/login?id=7');
        stage.advance(10 * 60);
        assert.equal(await browser.go('/'), null);
      });
    });

    test('a session ends at its instant, and nothing stays of it', async (t) => {
      t.mock.method(Date, 'now', () => stage.now().getTime());
      const data = { sessionId: ID, userId: 7, expires: new Date(Date.now() + 1000).toISOString() };
      await store.create(data);
      stage.advance(0.998);
      assert.deepEqual(await store.get(ID), data);
      await store.update(ID, { ...data, expires: new Date(Date.now() + 1000) }); // a Date is as good
      stage.advance(0.998);
      assert.equal((await store.get(ID)).expires, new Date(Date.now() + 2).toISOString());
      stage.advance(0.002);
      assert.equal(await store.get(ID), null);
      assert.equal(await raw.count('fluidauth:'), 0); // the store itself has forgotten it
      await store.clean();
      // Over by its own word, though it is there: a clock was set, or somebody else has stored it.
      await raw.set(`fluidauth:${ID}`, JSON.stringify({ userId: 7, expires: new Date(Date.now()).toISOString() }));
      assert.equal(await store.get(ID), null);
      await raw.set(`fluidauth:${ID}`, JSON.stringify({ userId: 7, expires: 'never' }));
      assert.equal(await store.get(ID), null);
      await store.delete(ID);
      // In the past: not there afterwards.
      await store.create({ ...data, expires: new Date(Date.now()) });
      assert.equal(await store.get(ID), null);
      await store.create({ ...data, expires: new Date(8.64e15) }); // ten years
      await store.update(ID, { ...data, expires: new Date(Date.now()).toISOString() });
      assert.equal(await raw.count('fluidauth:'), 0);
    });

    test('an id is whatever a cookie says, and a miss is exactly null', async () => {
      for (const id of ['', '\0', 'a\nb', 'a\rb', '\ud800', 'x'.repeat(2000), undefined, null, 7, {}, 'constructor', '__proto__', ID]) {
        assert.equal(await store.get(id), null);
        await store.delete(id);
        await store.delete(id);
      }
      await assert.rejects(store.create({ sessionId: 'a\nb', userId: 7, expires: inAnHour() }), refused(/session id/));
      await assert.rejects(store.update('', { userId: 7, expires: inAnHour() }), refused(/session id/));
    });

    test('what is stored and no session is CORRUPT, and its error does not show it', async () => {
      for (const text of ['secret', '"secret"', '["secret"]', 'null', '']) {
        await raw.set(`fluidauth:${ID}`, text);
        await assert.rejects(store.get(ID), (error) => error.code === 'CORRUPT' && !/secret/.test(error.stack));
      }
      await raw.delete(`fluidauth:${ID}`);
    });
  });
}

test('a destroy that nobody waits for ends no process: on a miss, and where get has failed; a logout that fails says so', async (t) => {
  const unhandled = [];
  const listener = (error) => unhandled.push(error);
  const others = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  process.on('unhandledRejection', listener);
  t.after(() => {
    process.removeListener('unhandledRejection', listener);
    for (const other of others) process.on('unhandledRejection', other);
  });
  const map = new Map();
  let down = false, deletes = 0;
  const backend = {
    get: (key) => { if (down === 'all') throw new Error('the backend is down'); return map.get(key); },
    set: (key, value) => { map.set(key, value); },
    delete: async (key) => { deletes++; if (down) throw new Error('the backend is down'); return map.delete(key); },
  };
  const store = new SessionStore({ backend });
  await withApplication(store, {}, async (browser) => {
    await browser.go('/login?id=7');
    const { cookie } = browser;
    map.clear();
    down = true;
    assert.equal(await browser.go('/'), null); // a miss
    assert.equal(deletes, 1);
    browser.cookie = cookie;
    down = 'all';
    assert.deepEqual(await browser.go('/'), { error: 'the backend is down' });
    assert.equal(deletes, 2);
    down = false;
    await browser.go('/login?id=7');
    down = true;
    assert.deepEqual(await browser.go('/logout'), { error: 'the backend is down' });
    assert(browser.cookie);
    down = false;
    assert.deepEqual(await browser.go('/'), { id: 7 });
  });
  down = true;
  assert.equal(await store.get('none'), null);
  await new Promise((resolve) => setImmediate(resolve));
  await assert.rejects(store.delete('none'), /down/); // in a later turn it is somebody's own wish
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(unhandled, []);
  await store.close();
});

test('an old cookie is removed from the browser, also before handlers that answer at once where they are put off', async () => {
  const store = new SessionStore();
  for (const behind of [undefined, (req, res, next) => setImmediate(next)]) {
    await withApplication(store, {}, async (browser) => {
      await browser.go('/login?id=7');
      await store.db.clear('', { force: true });
      assert.equal(await browser.go('/'), null);
      assert.equal(browser.cookie, undefined);
    }, behind);
  }
  await store.close();
});

test('what is over by its own word, or is no session, is deleted when FluidAuth destroys it', async () => {
  const store = new SessionStore();
  for (const text of [JSON.stringify({ userId: 7, expires: new Date(0) }), 'no JSON']) {
    await withApplication(store, {}, async (browser) => {
      await browser.go('/login?id=7');
      for await (const key of store.db.scan()) await store.db.set(key, text);
      await browser.go('/');
      for (let i = 0; i < 10 && (await store.db.count()) > 0; i++) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(await store.db.count(), 0);
    });
  }
  await store.close();
});

test('backends without conditions: create looks first, updates create, unless somebody insists', async () => {
  const stage = new Stage();
  const { singleProcess, ...backend } = minimal(stage);
  const get = backend.get;
  backend.get = (key) => get(key)?.toString();
  const store = new SessionStore({ backend }), insisting = new SessionStore({ backend, saveEnded: 'ignore' });
  const data = { sessionId: ID, userId: 7, expires: inAnHour() };
  await store.create(data);
  await assert.rejects(store.create(data), { code: 400 });
  await assert.rejects(insisting.update(ID, data), { code: 'NOT_SUPPORTED' });
  await store.delete(ID);
  await store.update(ID, data);
  assert.deepEqual(await store.get(ID), data);
  await store.close();
  await insisting.close();
});

test('hashed and sealed: neither the id nor the user stands anywhere', async () => {
  const raw = open('memory:fluidauth-at-rest');
  const data = { sessionId: ID, userId: 'ada@example.com', expires: inAnHour() };
  const hashed = new SessionStore({ url: 'memory:fluidauth-at-rest', hashKeys: true });
  await hashed.create(data);
  assert.deepEqual(await hashed.get(ID), data);
  for await (const key of raw.scan()) assert(!`${key} ${await raw.get(key)}`.includes(ID));
  await hashed.delete(ID);
  const sealed = new SessionStore({ url: 'memory:fluidauth-at-rest', hashKeys: true, sealValues: true, keys: [[1, Buffer.alloc(32, 1)]] });
  await sealed.create(data);
  await sealed.update(ID, data);
  assert.deepEqual(await sealed.get(ID), data);
  for await (const key of raw.scan()) assert(!(await raw.getBuffer(key)).includes('ada@'));
  for (const one of [hashed, sealed, raw]) await one.close();
});

test('stores derive from BaseSessionStore', async () => {
  class Noting extends SessionStore {
    names = [];
    async create(data) {
      this.names.push(data.userId);
      await super.create(data);
    }
  }
  const store = new Noting();
  assert(store instanceof BaseSessionStore && store instanceof SessionStore);
  await store.create({ sessionId: ID, userId: 7, expires: inAnHour() });
  assert.deepEqual(store.names, [7]);
  assert.equal(typeof store.db.get, 'function');
  assert.doesNotMatch(require('node:util').inspect(store), new RegExp(ID));
  await store.close();
  await assert.rejects(store.get(ID), { code: 'CLOSED' });
});

test("where FluidAuth is installed, its own classes are the application's", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-fluidauth-'));
  const part = path.join(folder, 'node_modules', '@fluidauth', 'express');
  fs.mkdirSync(part, { recursive: true });
  fs.writeFileSync(path.join(part, 'package.json'), '{"name": "@fluidauth/express", "exports": {"./base": "./base.js", "./core": "./core.js"}}');
  fs.writeFileSync(path.join(part, 'base.js'), 'exports.BaseSessionStore = class BaseSessionStore {};');
  fs.writeFileSync(path.join(part, 'core.js'), 'exports.FluidAuthError = class extends Error { constructor({ message, code }) { super(message); this.code = code; } };');
  fs.writeFileSync(path.join(folder, 'app.cjs'), `
    const { SessionStore } = require(${JSON.stringify(path.join(__dirname, '..', '..', 'node', 'adapters', 'fluidauth.cjs'))});
    const store = new SessionStore();
    const data = { sessionId: 'a', userId: 1, expires: new Date(Date.now() + 60000) };
    store.create(data).then(() => store.create(data)).catch((error) => console.log(store instanceof require('@fluidauth/express/base').BaseSessionStore,
      error instanceof require('@fluidauth/express/core').FluidAuthError, error.code));`);
  try {
    const { stdout, stderr } = spawnSync(process.execPath, [path.join(folder, 'app.cjs')], { encoding: 'utf8', cwd: os.tmpdir() });
    assert.equal(stdout, 'true true 400\n', stderr);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});

test('arguments and options that cannot be meant', async () => {
  const raw = open('memory:');
  const bad = [
    [null, /options must be an object/], [{ ttl: 5 }, /unknown option: ttl/], [{ prefix: 5 }, /prefix must be a string/], [{ url: 'nothing:' }, /./], [{ store: {} }, /one that open\(\) gave/],
    [{ store: raw, backend: {} }, /one of store, url and backend/], [{ store: raw, hashKeys: true }, /belong to the store/], [{ saveEnded: 'no' }, /saveEnded must be/],
  ];
  for (const [options, message] of bad) assert.throws(() => new SessionStore(options), refused(message));
  const store = new SessionStore({ store: raw });
  const good = { sessionId: ID, userId: 7, expires: inAnHour() };
  for (const data of [null, undefined, 'x', [good]]) await assert.rejects(store.create(data), refused(/must be an object/));
  for (const expires of [undefined, null, 'soon', new Date(NaN), {}]) await assert.rejects(store.create({ ...good, expires }), refused(/expires must be a date/));
  for (const userId of [7n, NaN, Infinity, new Date(), new Map(), () => {}, Symbol('x'), { id: 7n }, { toJSON: () => 7 }, [undefined]]) {
    await assert.rejects(store.create({ ...good, userId }), refused(/^userId must be what JSON gives back/));
    await assert.rejects(store.update(ID, { ...good, userId }), refused(/^userId must be what JSON gives back/));
  }
  await assert.rejects(store.update('another', good), refused(/another sessionId/));
  assert.equal(await raw.count(), 0);
  await store.create({ sessionId: ID, expires: good.expires, userId: undefined });
  assert.equal((await store.get(ID)).userId, undefined);
  await raw.close();
});
