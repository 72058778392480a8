'use strict';

// A session that has ended stays dead: a slower request that loaded it before does not bring it back by saving it afterwards. First under
// real express applications with two requests that overlap, then in races from two threads. CF_LONG=1: 100,000 races of each kind.

const { Worker, isMainThread, workerData, parentPort } = require('node:worker_threads');
const { CounterfoilStore } = require('counterfoil/express-session');

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** The other thread, with a store of its own: ends what it is told to, a few at a time, and answers when all of it has ended. */
function destroyer() {
  const store = new CounterfoilStore(workerData);
  parentPort.on('message', async (ids) => {
    if (ids === null) {
      await store.close();
      parentPort.close();
      return;
    }
    for (let i = 0; i < ids.length; i += 20) {
      await turn();
      await Promise.all(ids.slice(i, i + 20).map((id) => store.destroy(id)));
    }
    parentPort.postMessage('ended');
  });
}

function tests() {
  const { test, describe, before, after } = require('node:test');
  const assert = require('node:assert/strict');
  const { once } = require('node:events');
  const { inspect } = require('node:util');

  const express = require('express');
  const session = require('express-session');
  const passport = require('passport');
  const { Strategy } = require('passport-local');

  const { open, CounterfoilError } = require('counterfoil');
  const { Stage } = require('counterfoil/testing');
  const { redisVariable, ownPrefix } = require('./support/redis.cjs');
  const { URLS } = require('./support/places.cjs');
  const { load, save, withSessions, generated, browse } = require('./support/sessions.cjs');

  // --------------------------------------------------------------------------------------------------- two requests --

  /** An application whose requests under /slow stop in the middle, until release() is called. */
  function application(store, options = {}) {
    const app = express();
    let stopped, go;
    app.stopped = new Promise((resolve) => { stopped = resolve; });
    const released = new Promise((resolve) => { go = resolve; });
    app.release = () => go();
    const stop = () => { stopped(); return released; };
    app.use(express.urlencoded({ extended: false }));
    app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, ...options }));
    app.get('/login', (request, response) => { request.session.user = 'ada'; response.json({ id: request.sessionID }); });
    app.get('/who', (request, response) => response.json({ user: request.session.user ?? null, id: request.sessionID }));
    app.get('/destroy', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({}))));
    app.get('/null', (request, response) => { request.session = null; response.json({}); });
    app.get('/regenerate', (request, response, next) => request.session.regenerate((error) => (error ? next(error) : response.json({}))));
    const slow = (name, work) => app.get(`/slow/${name}`, (request, response, next) => {
      stop().then(() => work(request, response)).then(() => response.json({ id: request.sessionID }), next);
    });
    slow('read', () => {});
    slow('change', (request) => { request.session.seen = 1; });
    slow('save', (request) => { request.session.seen = 1; return save(request.session); });
    slow('save-twice', async (request) => {
      for (const seen of [1, 2]) {
        request.session.seen = seen;
        await save(request.session);
      }
    });
    slow('save-twice-at-once', (request) => {
      request.session.seen = 1;
      const first = save(request.session);
      request.session.seen = 2;
      return Promise.all([first, save(request.session)]);
    });
    slow('cookie', (request) => { request.session.cookie.maxAge = 1000000; });
    slow('cookie-and-save', (request) => { request.session.cookie.maxAge = 1000000; return save(request.session); });
    slow('touch', (request) => store.touch(request.sessionID, request.session));
    slow('regenerate', (request) => new Promise((resolve, reject) => request.session.regenerate((error) => (error ? reject(error) : resolve()))));
    slow('destroy', (request) => { const held = request.session; held.destroy(); return save(held); });
    slow('reload', (request) => new Promise((resolve) => request.session.reload(resolve)));
    slow('null', (request) => { request.session = null; });
    app.get('/slow-first', (request, response, next) => {
      // A session that this request makes, saves, and changes once more after it was ended.
      request.session.user = 'ada';
      save(request.session).then(stop).then(() => { request.session.seen = 1; response.json({ id: request.sessionID }); }).catch(next);
    });
    app.get('/slow-first/save', (request, response, next) => {
      request.session.user = 'ada';
      app.id = request.sessionID;
      save(request.session).then(stop).then(() => { request.session.seen = 1; return save(request.session); }).then(() => response.json({}), next);
    });
    app.use((error, request, response, next) => {
      void next;
      response.status(500).json({ message: error.message, code: error.code, outcome: error.outcome });
    });
    return app;
  }

  /** One request stops in the middle, the session ends, the request goes on. Gives its answer, the id, and the session's text afterwards. */
  async function overlap(options, middleware, slow, end) {
    const store = new CounterfoilStore({ prefix: ownPrefix(), ...options });
    const app = application(store, { cookie: { maxAge: 600000 }, ...middleware });
    const result = {};
    await browse(app, async (go) => {
      result.id = (await go('/login', { keep: true })).id;
      assert.equal((await go('/who')).user, 'ada');
      const answer = go(slow);
      await app.stopped;
      await end(go, store, result.id);
      assert.equal(await store.get(result.id), null, 'it has ended');
      app.release();
      result.answer = await answer;
      result.after = await store.get(result.id);
      result.who = (await go('/who')).user;
    });
    await store.close();
    return result;
  }

  const ENDS = {
    destroy: (go) => go('/destroy'),
    'null, where unset is destroy': (go) => go('/null'),
    regenerate: (go) => go('/regenerate'),
    'the store, from outside': (go, store, id) => store.destroy(id),
    'clear, from outside': (go, store) => store.clear(),
  };
  const SLOW = ['read', 'change', 'save', 'save-twice', 'save-twice-at-once', 'cookie', 'cookie-and-save', 'touch', 'regenerate', 'destroy', 'reload', 'null'];
  const MIDDLEWARE = {
    'as recommended': {},
    'resave, rolling, saveUninitialized': { resave: true, rolling: true, saveUninitialized: true },
  };

  for (const [name, url] of Object.entries(URLS)) {
    describe(`two requests over ${name}`, () => {
      let where;
      before(() => { where = url(); });
      for (const [how, middleware] of Object.entries(MIDDLEWARE)) {
        for (const slow of SLOW) {
          test(`${slow}; ${how}`, async () => {
            await Promise.all(Object.entries(ENDS).map(async ([ended, end]) => {
              const { answer, after: found, who } = await overlap({ url: where }, { unset: 'destroy', ...middleware }, `/slow/${slow}`, end);
              assert.equal(answer.status, 200, ended);
              assert.equal(found, null, `alive again after ${ended}`);
              assert.equal(who, null, ended);
            }));
          });
        }
      }

      test('a session that the slow request itself has made and saved', async () => {
        for (const slow of ['/slow-first', '/slow-first/save']) {
          const store = new CounterfoilStore({ url: where, prefix: ownPrefix() });
          const app = application(store);
          await browse(app, async (go) => {
            const answer = go(slow);
            await app.stopped;
            const [id] = await store.ids();
            assert.equal((await store.get(id)).user, 'ada');
            await store.destroy(id);
            app.release();
            assert.equal((await answer).status, 200);
            assert.deepEqual(await store.ids(), []);
          });
          await store.close();
        }
      });

      test('"error": the slow request is told', async () => {
        const { answer, after: found } = await overlap({ url: where, saveEnded: 'error' }, {}, '/slow/save', ENDS.destroy);
        assert.deepEqual(answer, { status: 500, code: 'ENDED', outcome: 'not_applied', message: 'the session has ended since it was loaded: nothing was saved' });
        assert.equal(found, null);
      });

      test('"create" is what others do, and this test sees it', async () => {
        for (const [slow, middleware] of [['change', {}], ['save', {}], ['read', { resave: true }]]) {
          const { answer, after: found, who } = await overlap({ url: where, saveEnded: 'create' }, middleware, `/slow/${slow}`, ENDS.destroy);
          assert.equal(answer.status, 200);
          assert.equal(found?.user, 'ada', slow);
          assert.equal(who, 'ada');
        }
      });

      test('what is alive is saved as ever, and the same bytes', async () => {
        const inner = open(where);
        const prefix = ownPrefix();
        const store = new CounterfoilStore({ store: inner, prefix });
        for (const slow of SLOW.filter((one) => !['regenerate', 'destroy', 'null'].includes(one))) {
          const app = application(store, { cookie: { maxAge: 600000 } });
          await browse(app, async (go) => {
            const { id } = await go('/login', { keep: true });
            const answer = go(`/slow/${slow}`);
            await app.stopped;
            app.release();
            assert.equal((await answer).status, 200);
            const kept = JSON.parse(await inner.get(prefix + id));
            assert.deepEqual(Object.keys(kept).sort(), ['cookie', ...(slow.startsWith('change') || slow.startsWith('save') ? ['seen'] : []), 'user']);
            assert.deepEqual(Object.keys(kept.cookie).sort(), ['expires', 'httpOnly', 'originalMaxAge', 'path']);
            assert.equal((await go('/who')).user, 'ada');
          });
        }
        await inner.close();
      });

      test('Passport: whoever logs in or out ends the old session for every request', async () => {
        for (const keepSessionInfo of [false, true]) {
          for (const during of ['login', 'logout']) {
            const store = new CounterfoilStore({ url: where, prefix: ownPrefix() });
            const auth = new passport.Passport();
            auth.use(new Strategy((username, password, done) => done(null, { id: 7, username })));
            auth.serializeUser((user, done) => done(null, user.id));
            auth.deserializeUser((id, done) => done(null, { id }));
            const app = application(store);
            app.use(auth.initialize(), auth.session());
            app.get('/visit', (request, response) => { request.session.visited = 1; response.json({ id: request.sessionID }); });
            app.post('/in', auth.authenticate('local', { keepSessionInfo }), (request, response) => response.json({ id: request.sessionID }));
            app.post('/out', (request, response, next) => request.logout({ keepSessionInfo }, (error) => (error ? next(error) : response.json({ id: request.sessionID }))));
            app.get('/me', (request, response) => response.json({ user: request.user?.id ?? null, visited: request.session.visited ?? null }));
            await browse(app, async (go, browser) => {
              await go('/visit', { keep: true });
              const form = { username: 'ada', password: 'x' };
              if (during === 'logout') await go('/in', { keep: true, form });
              const { cookie: old } = browser;
              const [id] = await store.ids();
              const answer = go('/slow/save');
              await app.stopped;
              await go(during === 'login' ? '/in' : '/out', { keep: true, form });
              app.release();
              assert.equal((await answer).status, 200);
              assert.equal(await store.get(id), null);
              const { user, visited } = await go('/me');
              assert.equal(user, during === 'login' ? 7 : null);
              assert.equal(visited, keepSessionInfo ? 1 : null); // the new session has what was to be kept: merged data is no mark
              browser.cookie = old;
              assert.equal((await go('/me')).user, null);
            });
            await store.close();
          }
        }
      });
    });
  }

  // ------------------------------------------------------------------------------------------------------- the store --

  test('which sessions must be there: what was loaded, and what was saved before', async () => {
    const store = withSessions({ url: 'memory:' });
    const fresh = generated(store);
    await save(fresh);
    assert.notEqual(await store.get(fresh.id), null);
    const loaded = await load(store, fresh.id);
    await store.destroy(fresh.id);
    for (const one of [loaded, fresh, new Proxy(loaded, {})]) {
      await save(one);
      assert.equal(await store.get(fresh.id), null);
    }
    // A session under another id is another session, and a plain object is what its giver says it is.
    await store.set('other', loaded);
    assert.notEqual(await store.get('other'), null);
    const plain = { cookie: { originalMaxAge: null } };
    for (let i = 0; i < 2; i++) {
      await store.set('plain', plain);
      assert.notEqual(await store.get('plain'), null);
      await store.destroy('plain');
    }
    await store.set('plain', { ...loaded });
    const found = await store.get('plain');
    await store.destroy('plain');
    await store.set('plain', found);
    assert.notEqual(await store.get('plain'), null);
  });

  test('a first save that failed leaves the session new', async () => {
    const map = new Map();
    let error = new Error('down');
    const set = (key, value) => { if (error) throw error; map.set(key, value); };
    const backend = { singleProcess: true, get: (key) => map.get(key), set, delete: (key) => map.delete(key) };
    const store = withSessions({ backend });
    const fresh = generated(store);
    await assert.rejects(save(fresh), (got) => got === error);
    error = undefined;
    await save(fresh);
    assert.notEqual(await store.get(fresh.id), null);
  });

  test('two first saves at once are both kept, in the order of a backend that takes its time', async () => {
    const map = new Map();
    let waits = 3;
    const backend = { get: (key) => map.get(key), delete: (key) => map.delete(key),
      set: async (key, value) => { for (let i = waits--; i > 0; i--) await turn(); map.set(key, value); },
      setIf: (key, value, ttl, condition) => { assert.equal(condition, 'present'); return map.has(key) && Boolean(map.set(key, value)); } };
    const store = withSessions({ backend });
    const fresh = generated(store);
    fresh.n = 1;
    const first = save(fresh);
    fresh.n = 2;
    const second = save(fresh);
    await Promise.all([first, second]);
    assert.notEqual(await store.get(fresh.id), null);
  });

  test('nothing that looks at a session sees that it is known', async () => {
    const store = withSessions({ url: 'memory:' });
    const fresh = generated(store);
    fresh.n = 1;
    const look = (one) => [Object.keys(one), Object.getOwnPropertySymbols({ ...one }), JSON.stringify(one), inspect(one)];
    const before = look(fresh);
    await save(fresh);
    assert.deepEqual(look(fresh), before);
    const copy = Object.assign({}, await load(store, fresh.id));
    assert.deepEqual(Reflect.ownKeys(copy).sort(), ['cookie', 'n']);
  });

  test('one that expired between load and save stays expired', async () => {
    const stage = new Stage();
    for (const saveEnded of [undefined, 'create']) {
      const store = withSessions({ stage, saveEnded, ttl: 10 });
      const fresh = generated(store);
      await save(fresh);
      const loaded = await load(store, fresh.id);
      stage.advance(10);
      await save(loaded);
      assert.equal((await store.get(fresh.id)) === null, saveEnded === undefined);
      await store.close();
    }
  });

  test('one that memory has evicted between load and save is gone', async () => {
    for (const saveEnded of ['ignore', 'error', 'create']) {
      const store = withSessions({ url: 'memory:?max_entries=3', saveEnded });
      const fresh = generated(store);
      await save(fresh);
      const loaded = await load(store, fresh.id);
      for (const sid of ['a', 'b', 'c']) await store.set(sid, { cookie: { originalMaxAge: null } });
      if (saveEnded === 'error') await assert.rejects(save(loaded), { code: 'ENDED' });
      else await save(loaded);
      assert.equal((await store.get(fresh.id)) === null, saveEnded !== 'create');
      await store.close();
    }
  });

  test('a save of what is there gives it the life that its cookie says', async () => {
    const stage = new Stage();
    const store = withSessions({ stage });
    const fresh = generated(store, { maxAge: 5000 });
    await save(fresh);
    const loaded = await load(store, fresh.id);
    loaded.cookie.maxAge = 10000;
    await save(loaded);
    stage.advance(9);
    assert.notEqual(await store.get(fresh.id), null);
    stage.advance(1);
    assert.equal(await store.get(fresh.id), null);
  });

  test('sealed values and hashed keys', async () => {
    const inner = open('memory:', { prefix: 'app:', keys: [[1, Buffer.alloc(32, 7)]], sealValues: true, hashKeys: true });
    const store = withSessions({ store: inner });
    const fresh = generated(store);
    await save(fresh);
    const loaded = await load(store, fresh.id);
    loaded.n = 1;
    await save(loaded);
    assert.equal((await store.get(fresh.id)).n, 1);
    await store.destroy(fresh.id);
    await save(loaded);
    assert.equal(await store.get(fresh.id), null);
  });

  test('disableTTL keeps its meaning', async () => {
    const stage = new Stage();
    const store = withSessions({ stage, disableTTL: true });
    const fresh = generated(store);
    await save(fresh);
    const loaded = await load(store, fresh.id);
    await save(loaded);
    stage.advance(3650 * 86400);
    stage.advance(3650 * 86400);
    assert.notEqual(await store.get(fresh.id), null);
    await store.destroy(fresh.id);
    await save(loaded);
    assert.equal(await store.get(fresh.id), null);
  });

  test('a save is one command', async () => {
    const inner = open(redisVariable(''), { prefix: ownPrefix() });
    const store = withSessions({ store: inner });
    const fresh = generated(store);
    await save(fresh);
    const loaded = await load(store, fresh.id);
    const { commands } = await inner.stats();
    for (let i = 0; i < 5; i++) await save(loaded);
    assert.equal((await inner.stats()).commands - commands, 5);
    await inner.close();
  });

  describe('a backend without conditions', () => {
    const without = () => {
      const map = new Map();
      const inner = open({ get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: (key) => map.delete(key) });
      const asked = [];
      const { set } = inner;
      inner.set = (key, value, options) => { asked.push(options?.ifPresent === true); return set.call(inner, key, value, options); };
      return { inner, asked };
    };
    test('saves as it can, and is asked once', async () => {
      const { inner, asked } = without();
      const store = withSessions({ store: inner });
      const fresh = generated(store);
      await save(fresh);
      const loaded = await load(store, fresh.id);
      for (let n = 1; n <= 3; n++) {
        loaded.n = n;
        await save(loaded);
        assert.equal((await store.get(fresh.id)).n, n);
      }
      assert.deepEqual(asked, [false, true, false, false, false]);
      await store.destroy(fresh.id);
      await save(loaded);
      assert.notEqual(await store.get(fresh.id), null); // as documented: such a backend cannot tell
    });
    test('refuses where the application has asked for it', async () => {
      for (const saveEnded of ['ignore', 'error']) {
        const { inner } = without();
        const store = withSessions({ store: inner, saveEnded });
        const fresh = generated(store);
        await save(fresh);
        for (let i = 0; i < 2; i++) await assert.rejects(save(fresh), (error) => error instanceof CounterfoilError && error.code === 'NOT_SUPPORTED');
      }
    });
    test('is not asked where sessions may come back', async () => {
      const { inner, asked } = without();
      const store = withSessions({ store: inner, saveEnded: 'create' });
      const fresh = generated(store);
      await save(fresh);
      await save(fresh);
      assert.deepEqual(asked, [false, false]);
    });
    test('an error of another kind is no reason to do without', async () => {
      const mine = new Error('down');
      const map = new Map();
      let writes = 0;
      const set = (key, value) => { writes++; map.set(key, value); };
      const store = withSessions({ backend: { get: (key) => map.get(key), set, delete: (key) => map.delete(key), setIf() { throw mine; } } });
      const fresh = generated(store);
      await save(fresh);
      for (let i = 0; i < 2; i++) await assert.rejects(save(fresh), (error) => error === mine);
      assert.equal(writes, 1);
    });
  });

  test('the option is checked', () => {
    for (const saveEnded of ['drop', '', null, true, 0]) {
      assert.throws(() => new CounterfoilStore({ saveEnded }), { code: 'INVALID', message: 'saveEnded must be "ignore", "error" or "create"' });
    }
    new CounterfoilStore({ saveEnded: undefined });
  });

  // ------------------------------------------------------------------------------------------------------- the races --

  const RACES = process.env.CF_LONG === '1' ? 100_000 : 2_000;
  const BATCH = 200;

  /** What the slower requests do with one session, again and again; gives whether it found the session alive. */
  const KINDS = {
    async save({ held }) {
      held.n = (held.n ?? 0) + 1;
      return save(held).then(() => true, (error) => { if (error.code !== 'ENDED') throw error; return false; });
    },
    async touch({ store, held }) {
      await store.touch(held.id, held);
      return undefined;
    },
    async 'load and save'({ store, held }) {
      const loaded = await load(store, held.id);
      if (!loaded) return false;
      loaded.n = (loaded.n ?? 0) + 1;
      return save(loaded).then(() => true, (error) => { if (error.code !== 'ENDED') throw error; return false; });
    },
  };

  /** Races of destroy, in another thread, against what is done here: how many sessions were alive after both, and what was met. */
  async function race(options, modes, kind, races) {
    const stores = modes.map((saveEnded) => withSessions({ ...options, saveEnded }));
    const worker = new Worker(__filename, { workerData: options });
    const met = { alive: 0, kept: 0, gone: 0 };
    try {
      for (let done = 0; done < races; done += BATCH) {
        const all = await Promise.all(Array.from({ length: Math.min(BATCH, races - done) }, async (_, i) => {
          const store = stores[i % stores.length];
          const fresh = generated(store, { maxAge: 600000 });
          await save(fresh);
          return { store, held: await load(store, fresh.id) };
        }));
        let ended = false;
        const end = once(worker, 'message').then(() => { ended = true; });
        worker.postMessage(all.map(({ held }) => held.id));
        for (let last = false; !last;) {
          last = ended; // once more after all have ended
          for (const found of await Promise.all(all.map((one) => KINDS[kind](one)))) {
            if (found === true) met.kept++;
            if (found === false) met.gone++;
          }
          await turn();
        }
        await end;
        for (const { store, held } of all) {
          if ((await store.get(held.id)) !== null) met.alive++;
        }
      }
      await stores[0].clear();
    } finally {
      worker.postMessage(null);
      await once(worker, 'exit');
      for (const store of stores) await store.close();
    }
    return met;
  }

  for (const [name, url] of Object.entries(URLS)) {
    describe(`races over ${name}`, () => {
      let options;
      before(() => { options = { url: url(), prefix: ownPrefix() }; });
      for (const kind of Object.keys(KINDS)) {
        test(`destroy against ${kind}`, async (t) => {
          const { alive, kept, gone } = await race(options, [undefined, 'error'], kind, RACES);
          const answers = kind === 'touch' ? '' : ` (${kept} answered as saved, ${gone} found it gone)`;
          t.diagnostic(`${name}: ${RACES} races of destroy against ${kind}: ${alive} alive afterwards${answers}`);
          assert.equal(alive, 0);
          if (kind !== 'touch') assert(kept > 0 && gone > 0, 'both were met');
        });
      }
      test('the same races see a resurrection where sessions may come back', async (t) => {
        // Of save the last one comes after all have ended; of load and save only what was under way can bring a session back.
        for (const [kind, least] of [['save', 1_000], ['load and save', 1]]) {
          let races = 0, alive = 0;
          while (alive < least && races < 20_000) {
            alive += (await race(options, ['create'], kind, 1_000)).alive;
            races += 1_000;
          }
          t.diagnostic(`${name}, control: ${races} races of destroy against ${kind}: ${alive} alive afterwards`);
          assert(alive >= least, kind);
        }
      });
    });
  }
}

if (isMainThread) tests();
else destroyer();
