'use strict';

// userOf: the sessions of a user are listed and ended, in every process at once. With applications over two stores, in races with requests that save,
// touch and log in, cut off between any two steps, and beside the other options. COUNTERFOIL_SEED repeats a run.

const { test, describe, after } = require('node:test');
const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');

const express = require('express');
const session = require('express-session');
const passport = require('passport');
const { Strategy } = require('passport-local');

const { open, SessionStorage } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { Stage } = require('counterfoil/testing');
const { PLACES } = require('./support/places.cjs');
const { load, save, withSessions, generated, browse } = require('./support/sessions.cjs');
const { seed, random } = require('./support/random.cjs');

const userOf = (one) => one.userId;
const ENDED = { code: 'ENDED', outcome: 'not_applied', message: 'the session has ended since it was loaded: nothing was saved' };
const CHANGE = { code: 'INVALID', message: 'the user of a session cannot change: regenerate it' };
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Two adapters over one place, as two processes would have them. */
function pair(place, options) {
  const again = place();
  return [0, 1].map(() => {
    const inner = again();
    after(() => inner.close());
    return withSessions({ store: inner, userOf, ...options });
  });
}

const one = (options, place = PLACES.memory) => pair(place, options)[0];

/** A session that is saved, of a user perhaps. */
async function saved(store, userId, more) {
  const made = generated(store, { maxAge: 600000 });
  Object.assign(made, { userId }, more);
  await save(made);
  return made;
}

/** What the middleware does in a request that changes nothing. */
async function visit(store, id) {
  const loaded = await load(store, id);
  if (!loaded) return false;
  loaded.touch();
  await store.touch(id, loaded);
  return true;
}

const handles = async (store, userId) => (await store.sessionsOf(userId)).map(({ handle }) => handle).sort();

function application(store) {
  const app = express();
  app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, cookie: { maxAge: 600000 } }));
  app.get('/login/:user', (request, response, next) => request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.userId = request.params.user;
    return response.json({ id: request.sessionID });
  }));
  app.get('/who', (request, response) => response.json({ user: request.session.userId ?? null }));
  app.get('/change', (request, response) => { request.session.n = Math.random(); response.json({ user: request.session.userId ?? null }); });
  app.get('/list', async (request, response) => response.json({ list: await store.sessionsOf(request.session.userId, { current: request.sessionID }) }));
  app.get('/end/:handle', async (request, response) => response.json({ ended: await store.end(request.params.handle, { userId: request.session.userId }) }));
  app.get('/others', async (request, response) => response.json({ count: await store.endAllOf(request.session.userId, { except: request.sessionID }) }));
  app.get('/all', async (request, response) => response.json({ count: await store.endAllOf(request.session.userId) }));
  app.get('/logout', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({}))));
  app.get('/leave', (request, response) => { delete request.session.userId; response.json({}); });
  return app;
}

for (const [name, place] of Object.entries(PLACES)) {
  describe(name, () => {
    test('an application: list, end one, end the others, end all, log out', async () => {
      const stores = pair(place);
      await browse(application(stores[0]), (first, a) => browse(application(stores[1]), async (second, b) => {
        // Three devices of ada, one of bob: each is a cookie, and goes to either process.
        const devices = {};
        for (const [device, user] of Object.entries({ laptop: 'ada', phone: 'ada', tablet: 'ada', other: 'bob' })) {
          a.cookie = undefined;
          const { id, status } = await first(`/login/${user}`, { keep: true });
          assert.equal(status, 200);
          devices[device] = { cookie: a.cookie, id };
        }
        const ask = async (device, path, process = random(2)) => {
          [a, b][process].cookie = devices[device].cookie;
          const { status, ...answer } = await [first, second][process](path);
          assert.equal(status, 200);
          return answer;
        };
        const who = async (...names) => Promise.all(names.map(async (device) => (await ask(device, '/who', 0)).user));
        const { list } = await ask('laptop', '/list');
        assert.equal(list.length, 3);
        assert.deepEqual(Object.keys(list[0]).sort(), ['created', 'current', 'expires', 'handle', 'lastSeen']);
        assert.deepEqual(list.map(({ current }) => current).sort(), [false, false, true]);
        for (const { expires, created, lastSeen, handle } of list) {
          assert(Math.abs(Date.parse(expires) - Date.now() - 600000) < 30000 && Date.parse(created) <= Date.parse(lastSeen));
          assert.equal(await stores[0].get(handle), null, 'a handle opens nothing');
        }
        const text = JSON.stringify(list);
        for (const { id, cookie } of Object.values(devices)) assert(!text.includes(id) && !text.includes(cookie));

        // Of bob's nothing can be ended by ada.
        const [{ handle: bobs }] = (await ask('other', '/list')).list;
        assert.deepEqual(await ask('laptop', `/end/${bobs}`), { ended: false });
        const { handle: phones } = (await ask('phone', '/list')).list.find(({ current }) => current);
        assert.deepEqual(await ask('laptop', `/end/${phones}`), { ended: true });
        assert.deepEqual(await ask('laptop', `/end/${phones}`), { ended: false }, 'it had ended');
        assert.deepEqual(await ask('laptop', '/end/nothing'), { ended: false });
        for (const process of [0, 1]) assert.equal((await ask('phone', '/who', process)).user, null);
        assert.deepEqual(await who('laptop', 'tablet', 'other'), ['ada', 'ada', 'bob']);

        assert.deepEqual(await ask('laptop', '/others'), { count: 1 });
        for (const process of [0, 1]) assert.equal((await ask('tablet', '/change', process)).user, null);
        assert.deepEqual(await who('laptop', 'phone', 'tablet', 'other'), ['ada', null, null, 'bob']);
        assert.equal((await ask('laptop', '/list')).list.length, 1);

        assert.deepEqual(await ask('laptop', '/all'), { count: 1 });
        assert.deepEqual(await who('laptop', 'other'), [null, 'bob']);
        assert.deepEqual(await handles(stores[1], 'ada'), []);
        await ask('other', '/logout');
        assert.deepEqual([await who('other'), await handles(stores[1], 'bob')], [[null], []]);
      }));
    });

    test('regenerate ends the record with the session; without it a user may come once, and go, and no other may come', async () => {
      const [store, other] = pair(place, { saveEnded: 'error' });
      await browse(application(store), async (go) => {
        const { id: first } = await go('/login/ada', { keep: true });
        const { id: second } = await go('/login/ada', { keep: true });
        assert.notEqual(first, second);
        assert.equal((await other.sessionsOf('ada')).length, 1);
        await go('/leave');
        assert.equal((await go('/who')).user, null);
        assert.deepEqual([await handles(other, 'ada'), (await other.get(second)).userId], [[], undefined]);
        const again = await load(other, second);
        again.userId = 'ada';
        await assert.rejects(save(again), { code: 'INVALID', message: 'a user has logged out of this session: regenerate it before the next login' });
        assert.equal((await store.get(second)).userId, undefined);
      });
      const anonymous = await saved(store, undefined);
      const late = await load(other, anonymous.id);
      anonymous.userId = 7;
      await save(anonymous);
      assert.equal((await store.sessionsOf('7')).length, 1);
      anonymous.userId = '8';
      await assert.rejects(save(anonymous), CHANGE);
      late.userId = 8;
      await assert.rejects(save(late), CHANGE);
      late.userId = 7; // a second tab logs in at the same time
      await save(late);
      assert.deepEqual([(await store.sessionsOf(7)).length, (await store.sessionsOf(8)).length, (await store.get(late.id)).userId], [1, 0, 7]);
    });

    test('what a slower request does after it has ended brings nothing back', async () => {
      const again = place();
      const opened = (saveEnded) => { const inner = again(); after(() => inner.close()); return withSessions({ store: inner, userOf, saveEnded }); };
      for (const [store, saveEnded] of ['ignore', 'error', 'create'].map((how) => [opened(how), how])) {
        const ends = {
          all: (id, user) => store.endAllOf(user),
          one: async (id, user) => { for (const { handle } of await store.sessionsOf(user)) assert.equal(await store.end(handle), true); },
          ...(saveEnded === 'create' ? {} : { logout: (id) => store.destroy(id) }),
        };
        for (const [how, end] of Object.entries(ends)) {
          const user = `${saveEnded} ${how}`;
          const fresh = await saved(store, user);
          const [saving, touching, leaving] = [await load(store, fresh.id), await load(store, fresh.id), await load(store, fresh.id)];
          await end(fresh.id, user);
          for (const slow of [saving, fresh]) {
            slow.n = 1;
            if (saveEnded === 'error') await assert.rejects(save(slow), ENDED);
            else await save(slow);
          }
          await store.touch(fresh.id, touching);
          await store.touch(fresh.id, { ...touching });
          const plain = { cookie: {}, userId: user };
          if (how !== 'logout' && saveEnded === 'error') await assert.rejects(store.set(fresh.id, plain), ENDED);
          else if (how !== 'logout') await store.set(fresh.id, plain);
          assert.deepEqual([await store.get(fresh.id), await load(store, fresh.id), await handles(store, user)], [null, undefined, []], user);
        }
        // Nor where the slower request logs its user out: what else the session says would be back.
        for (const [how, end] of Object.entries({ ...ends, left: (id, user, leaves) => save(Object.assign(leaves, { userId: undefined, n: 1 })) })) {
          const user = `${saveEnded} ${how}, leaving`;
          const { id } = await saved(store, user, { admin: true });
          const [leaving, other] = [await load(store, id), await load(store, id)];
          await end(id, user, other);
          delete leaving.userId;
          for (let i = 0; i < 2; i++) {
            if (saveEnded === 'error') await assert.rejects(save(leaving), ENDED, user);
            else await save(leaving);
          }
          assert.deepEqual([(await store.get(id))?.n, await handles(store, user)], [how === 'left' ? 1 : undefined, []], user);
          if (how !== 'left') assert.equal(await store.get(id), null, user);
        }
      }
    });

    test('races: what was there, or was logging in, before all are ended is dead', async (t) => {
      t.diagnostic(`COUNTERFOIL_SEED=${seed}`);
      const [store, other] = pair(place);
      const ROUNDS = 25, EACH = 14;
      let acts = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const user = `racing ${round}`;
        const there = await Promise.all(Array.from({ length: EACH }, (_, i) => saved([store, other][i % 2], user)));
        const loaded = await Promise.all(there.map(({ id }, i) => load([other, store][i % 2], id)));
        const logins = await Promise.all(Array.from({ length: 6 }, async (_, i) => {
          const made = generated([store, other][i % 2], { maxAge: 600000 });
          await [store, other][i % 2].beginLogin(made.req, user);
          return made;
        }));
        const later = async (act) => { for (let turns = random(6); turns > 0; turns--) await turn(); acts++; return act(); };
        const [kept] = there;
        const except = round % 3 === 0 ? kept.id : undefined;
        await Promise.all([
          later(() => [store, other][round % 2].endAllOf(user, { except })),
          ...loaded.flatMap((slow, i) => [
            later(() => { slow.n = i; return save(slow); }),
            later(() => slow.req.sessionStore.touch(slow.id, slow)),
            later(() => visit(store, slow.id)),
            ...(i % 4 ? [] : [later(() => other.set(slow.id, { cookie: {}, userId: user }))]),
          ]),
          ...logins.map((made) => later(() => { made.userId = user; return save(made); })),
        ]);
        const alive = [];
        for (const { id } of [...there, ...logins]) for (const process of [store, other]) if (await process.get(id)) alive.push(id);
        assert.deepEqual(alive, except === undefined ? [] : [except, except], `round ${round}`);
        assert.equal((await store.sessionsOf(user)).length, except === undefined ? 0 : 1);
      }
      assert(acts > 1000);
    });

    test('the same without userOf, or without beginLogin, leaves survivors: the races are able to', async () => {
      const again = place();
      const [plain, store] = [undefined, userOf].map((how) => { const inner = again(); after(() => inner.close()); return withSessions({ store: inner, userOf: how }); });
      // What an application can do without records: look at all sessions, and destroy this user's.
      const endAllOf = async (user) => { for (const { id, userId } of await plain.all()) if (userId === user) await plain.destroy(id); };
      let survivors = 0;
      for (let round = 0; round < 10 || (survivors === 0 && round < 500); round++) {
        const user = `control ${round}`;
        const there = await Promise.all(Array.from({ length: 5 }, () => saved(plain, user)));
        const made = Array.from({ length: 5 }, () => generated(plain, { maxAge: 600000 }));
        const set = async ({ id }) => { for (let turns = random(20); turns > 0; turns--) await turn(); await plain.set(id, { cookie: {}, userId: user }); };
        await Promise.all([endAllOf(user), ...there.map(set), ...made.map(set)]);
        for (const { id } of [...there, ...made]) if (await plain.get(id)) survivors++;
      }
      assert(survivors > 0);
      // A login whose password was checked before, and that is saved afterwards.
      const [unsaid, said] = [generated(store), generated(store)];
      await store.beginLogin(said.req, 'late');
      assert.equal(await store.endAllOf('late'), 0);
      unsaid.userId = said.userId = 'late';
      await save(unsaid);
      await save(said);
      assert.deepEqual([(await store.get(unsaid.id)).userId, await store.get(said.id)], ['late', null]);
    });

    test('a new session that is saved, and destroyed without waiting for that, is dead', async () => {
      const store = one({}, place);
      for (let i = 0; i < 20; i++) {
        const made = generated(store, { maxAge: 600000 });
        made.userId = 'u';
        await Promise.all([save(made), store.destroy(made.id)]);
        assert.deepEqual([await store.get(made.id), await handles(store, 'u')], [null, []]);
      }
    });

    test('cut off between any two steps: dead, or alive and listed', async (t) => {
      const inner = place()();
      after(() => inner.close());
      const cutting = withSessions({ store: inner, userOf });
      const watch = withSessions({ store: inner, userOf });
      const left = { steps: Infinity };
      const wrap = (object, name) => {
        const { [name]: method } = object;
        t.mock.method(object, name, function cut(...args) {
          if (left.steps-- <= 0) return Promise.reject(new Error('cut off'));
          return method.apply(this, args);
        });
      };
      for (const name of ['get', 'set', 'delete', 'touch']) wrap(inner, name);
      for (const name of ['create', 'get', 'getAny', 'refresh', 'revoke']) wrap(SessionStorage.prototype, name);
      const acts = {
        login: async (made) => { made.userId = 'u'; await save(made); },
        'login that was anonymous': async (made, anonymous) => { anonymous.userId = 'u'; await save(anonymous); },
        save: async (made, anonymous, mine) => { mine.n = 2; await save(mine); },
        touch: (made, anonymous, mine) => cutting.touch(mine.id, mine),
        leave: async (made, anonymous, mine) => { delete mine.userId; await save(mine); },
        destroy: (made, anonymous, mine) => cutting.destroy(mine.id),
        expire: async (made, anonymous, mine) => { mine.cookie.expires = new Date(0); await save(mine); },
        plain: (made) => cutting.set(made.id, { cookie: {}, userId: 'u' }),
      };
      const met = {};
      for (const [act, run] of Object.entries(acts)) {
        for (let steps = 0; ; steps++) {
          left.steps = Infinity;
          await watch.endAllOf('u');
          const made = generated(cutting, { maxAge: 600000 });
          const anonymous = await saved(cutting, undefined);
          const mine = await saved(cutting, 'u');
          const [loadedAnonymous, loaded] = [await load(cutting, anonymous.id), await load(cutting, mine.id)];
          left.steps = steps;
          const failure = await run(made, loadedAnonymous, loaded).then(() => undefined, (error) => error);
          const whole = left.steps >= 0;
          left.steps = Infinity;
          if (!whole) assert.equal(failure?.message, 'cut off', act);
          const listed = await watch.sessionsOf('u');
          const alive = [];
          for (const { id } of [made, anonymous, mine]) if ((await watch.get(id))?.userId !== undefined) alive.push(id);
          const known = await Promise.all(alive.map(async (id) => (await watch.sessionsOf('u', { current: id })).some(({ current }) => current)));
          assert.deepEqual(known, alive.map(() => true), `${act}, ${steps} steps: alive is listed`);
          assert(listed.length >= alive.length);
          await watch.endAllOf('u');
          for (const id of alive) assert.equal(await watch.get(id), null, `${act}, ${steps} steps`);
          (met[act] ??= []).push(alive.length);
          if (whole) break;
          assert(steps < 20);
        }
      }
      assert.deepEqual(met, {
        'login': [1, 1, 2], 'login that was anonymous': [1, 1, 2], 'save': [1, 1, 1], 'touch': [1, 1, 1], 'leave': [1, 1, 0, 0, 0],
        'destroy': [1, 0, 0, 0], 'expire': [1, 0, 0], 'plain': [1, 1, 1, 2],
      });
    });
  });
}

// ------------------------------------------------------------------------------------------------------------ by itself --

/** A store on a stage that the machine's clock follows. */
function staged(t, options, url = 'memory:') {
  const stage = new Stage();
  t.mock.restoreAll();
  t.mock.method(Date, 'now', () => stage.now().getTime());
  const Real = Date;
  t.mock.method(globalThis, 'Date', class extends Real { constructor(...args) { super(...(args.length === 0 ? [Real.now()] : args)); } });
  const inner = open(url, { stage });
  after(() => inner.close());
  return { stage, inner, store: withSessions({ store: inner, userOf, ...options }) };
}

/** The names of the calls, as they begin and are answered. */
function noted(t, inner) {
  const names = [];
  const wrap = (object, name, as) => {
    const { [name]: method } = object;
    t.mock.method(object, name, async function call(...args) {
      names.push(as);
      try { return await method.apply(this, args); } finally { names.push('.'); }
    });
  };
  for (const name of ['get', 'set', 'touch', 'delete']) wrap(inner, name, name);
  for (const name of ['get', 'create', 'refresh', 'revoke']) wrap(SessionStorage.prototype, name, name.toUpperCase());
  return names;
}

test('what a request costs: a get asks for both at once, a touch moves both at once', async (t) => {
  const inner = open('memory:');
  after(() => inner.close());
  const store = withSessions({ store: inner, userOf });
  const mine = await saved(store, 'u');
  const nobody = await saved(store, undefined);
  const names = noted(t, inner);
  const cost = async (act) => { names.length = 0; const result = await act(); return [names.join(' '), result]; };
  const [got, loaded] = await cost(() => load(store, mine.id));
  assert.equal(got, 'get GET . .');
  assert.equal((await cost(() => store.touch(mine.id, loaded)))[0], 'touch REFRESH . .');
  assert.equal((await cost(() => save(loaded)))[0], 'REFRESH . set .');
  assert.equal((await cost(() => store.touch(mine.id, { cookie: {} })))[0], 'GET . touch REFRESH . .');
  assert.equal((await cost(() => store.destroy(mine.id)))[0], 'delete GET . . REVOKE .');
  const [, anonymous] = await cost(() => load(store, nobody.id));
  assert.equal((await cost(() => store.touch(nobody.id, anonymous)))[0], 'touch .');
  assert.equal((await cost(() => save(anonymous)))[0], 'set .');
  assert.equal((await cost(() => saved(store, undefined)))[0], 'set .');
  const [created, fresh] = await cost(() => saved(store, 'u'));
  assert.equal(created, 'CREATE . set .');
  assert.equal((await cost(() => save(fresh)))[0], 'REFRESH . set .');
});

test('a login between the two answers of a get is no end', async (t) => {
  const inner = open('memory:');
  after(() => inner.close());
  const store = withSessions({ store: inner, userOf });
  const { id } = await saved(store, 'u');
  const { get } = SessionStorage.prototype;
  let asked = 0;
  t.mock.method(SessionStorage.prototype, 'get', function early(by) { return asked++ === 0 ? Promise.resolve(undefined) : get.call(this, by); });
  assert.equal((await store.get(id)).userId, 'u');
  assert.equal(asked, 2);
  await store.endAllOf('u');
  assert.equal(await store.get(id), null);
  assert.equal(await inner.get(`sess:${id}`), undefined, 'and its key is gone');
});

test('a text without a record counts for nothing, one without a user needs none, and a record of another user does not count', async () => {
  const inner = open('memory:');
  after(() => inner.close());
  const store = withSessions({ store: inner, userOf });
  const text = (userId) => JSON.stringify({ cookie: { originalMaxAge: null }, userId });
  await inner.set('sess:a', text('u'));
  await inner.set('sess:b', text(undefined));
  const { id } = await saved(store, 'u');
  await inner.set(`sess:${id}`, text('v'));
  assert.deepEqual([await store.get('a'), (await store.get('b')).userId, await store.get(id)], [null, undefined, null]);
  assert.deepEqual(await store.ids(), ['b']);
  assert.deepEqual((await store.all()).map((found) => found.id), ['b']);
});

test('how the record is found: as FORMAT.md has it', async () => {
  const inner = open('memory:');
  after(() => inner.close());
  const store = withSessions({ store: inner, userOf, prefix: 'p:' });
  await store.set('an id', { cookie: {}, userId: 7 });
  const tokenHash = createHash('sha256').update('counterfoil session\0p:an id').digest('base64url');
  const record = await new SessionStorage(inner).get({ tokenHash });
  assert.equal(record.userId, 'p:7');
  assert(Math.abs(record.expiresAt - Date.now() - 86460000) < 30000);
});

test('a record that has expired where the text has not: no session, but nothing is destroyed', async (t) => {
  const { stage, inner, store } = staged(t);
  const plain = withSessions({ store: inner });
  const { id } = await saved(store, 'u');
  stage.advance(599);
  const loaded = await load(store, id);
  assert(await visit(plain, id)); // a program that does not know of records
  stage.advance(61);
  assert.equal((await store.get(id)).userId, 'u');
  stage.advance(0.001);
  assert.equal(await store.get(id), null);
  assert.equal((await plain.get(id)).userId, 'u');
  loaded.touch(); // a slower request that knows the record; nobody has ended the session
  await store.touch(id, loaded);
  assert.deepEqual([(await store.get(id)).userId, (await store.sessionsOf('u')).length], ['u', 1]);
  await store.endAllOf('u');
  assert.deepEqual([await store.get(id), await plain.get(id)], [null, null]);
});

test('records that have expired are ended as others are, and may be excepted', async (t) => {
  const { stage, store } = staged(t);
  const [first, second, third] = [await saved(store, 'u'), await saved(store, 'u'), await saved(store, 'u')];
  stage.advance(700);
  await store.destroy(first.id);
  assert.equal(await store.endAllOf('u', { except: second.id }), 1);
  assert.equal(await store.endAllOf('u'), 1);
  assert.equal(await store.get(third.id), null);
});

test('all are ended while a request logs its user out', async (t) => {
  const store = one({ saveEnded: 'error' });
  const { id } = await saved(store, 'u');
  const leaving = await load(store, id);
  delete leaving.userId;
  const { revoke } = SessionStorage.prototype;
  t.mock.method(SessionStorage.prototype, 'revoke', async function late(...args) {
    await new Promise((resolve) => setTimeout(resolve, 3)); // not the same instant
    await store.endAllOf('u');
    return revoke.apply(this, args);
  });
  await assert.rejects(save(leaving), ENDED);
  assert.equal(await store.get(id), null);
});

test('two logins at once in one session: the record is one, and lives as long as the later says; ended in between it stays so', async (t) => {
  const store = one({ saveEnded: 'error' });
  const anonymous = await saved(store, undefined);
  const logins = [await load(store, anonymous.id), await load(store, anonymous.id), await load(store, anonymous.id)];
  for (const login of logins) login.userId = 'u';
  await save(logins[0]);
  const [{ handle }] = await store.sessionsOf('u');
  logins[1].cookie.maxAge = 6000000;
  await save(logins[1]);
  const [later] = await store.sessionsOf('u');
  assert.equal(later.handle, handle);
  assert(later.expires - Date.now() > 5000000);
  const { create } = SessionStorage.prototype;
  t.mock.method(SessionStorage.prototype, 'create', async function late(...args) {
    try { return await create.apply(this, args); } finally { await store.endAllOf('u'); }
  });
  await assert.rejects(save(logins[2]), ENDED);
  assert.equal(await store.get(anonymous.id), null);
});

test('a request whose user leaves, and comes back without a new session', async () => {
  const store = one();
  const mine = await saved(store, 'u');
  for (const userId of [undefined, null]) {
    mine.userId = userId;
    await save(mine);
  }
  for (const userId of ['u', 'v']) {
    mine.userId = userId;
    await assert.rejects(save(mine), { code: 'INVALID' });
  }
  mine.userId = 'u';
  await assert.rejects(save(mine), { message: 'a user has logged out of this session: regenerate it before the next login' });
  assert.equal((await store.get(mine.id)).userId, null);
});

test('a session object that was made of a copy of what get gave', async () => {
  const store = one();
  const { id } = await saved(store, 'u');
  const copy = store.createSession({ sessionID: id, sessionStore: store }, { ...(await store.get(id)) });
  delete copy.userId;
  await save(copy);
  assert.deepEqual([await store.sessionsOf('u'), (await store.get(id)).userId], [[], undefined]);
});

test('plain objects, and what get gives', async () => {
  const store = one({ saveEnded: 'error' });
  await store.set('a', { cookie: {}, userId: 5 });
  const [{ handle }] = await store.sessionsOf(5);
  await store.set('a', { cookie: {}, userId: 5, n: 1 });
  const data = await store.get('a');
  assert.deepEqual([data.n, Object.keys(data)], [1, ['cookie', 'userId', 'n']]);
  await store.set('a', { ...data, n: 2 });
  await store.set('a', data);
  await store.touch('a', { ...data });
  assert.deepEqual(await handles(store, '5'), [handle]);
  await assert.rejects(store.set('a', { cookie: {}, userId: 6 }), CHANGE);
  await store.set('a', Object.freeze({ cookie: {} }));
  assert.deepEqual([await handles(store, 5), (await store.get('a')).userId], [[], undefined]);
  await store.set('b', Object.freeze({ cookie: {}, userId: 5 }));
  await store.set('b', { cookie: { expires: new Date(0) }, userId: 5 });
  assert.deepEqual([await handles(store, 5), await store.get('b')], [[], null]);
});

test('a touch that ends the session ends its record', async () => {
  for (const options of [{}, { absoluteTimeout: 3600 }, { touchAfter: 5 }]) {
    const store = one(options);
    const { id } = await saved(store, 'u');
    await store.touch(id, { cookie: { expires: new Date(0) } });
    assert.deepEqual([await store.get(id), await store.sessionsOf('u')], [null, []], JSON.stringify(options));
  }
});

test('both ends are one: idle time, absoluteTimeout, touchAfter', async (t) => {
  for (const options of [{}, { touchAfter: 60 }, { absoluteTimeout: 1500 }, { absoluteTimeout: 1500, touchAfter: 60 }]) {
    const { stage, store } = staged(t, options);
    const { id } = await saved(store, 'u');
    const began = Date.now();
    for (let seconds = 0; seconds < 1200; seconds += 100) {
      stage.advance(100);
      assert(await visit(store, id), JSON.stringify(options));
    }
    const [{ created, lastSeen, expires }] = await store.sessionsOf('u');
    const end = Math.min(began + 1800000, options.absoluteTimeout ? began + 1500000 : Infinity);
    // With both a touch is left out that would move nothing, and then nobody is seen.
    assert.deepEqual([created.getTime(), lastSeen.getTime(), expires.getTime()], [began, began + (options.absoluteTimeout && options.touchAfter ? 900000 : 1200000), end]);
    stage.advance((end - Date.now()) / 1000 - 0.001);
    assert.equal((await store.get(id)).userId, 'u');
    assert.equal((await store.sessionsOf('u')).length, 1);
    stage.advance(0.001);
    assert.deepEqual([await store.get(id), await store.sessionsOf('u')], [null, []]);
  }
});

test('touchAfter: records are refreshed as seldom as keys', async (t) => {
  const { stage, inner, store } = staged(t, { touchAfter: 60 });
  const { id } = await saved(store, 'u');
  const names = noted(t, inner);
  for (let second = 0; second < 600; second++) {
    stage.advance(1);
    assert(await visit(store, id));
  }
  assert.deepEqual(['set', 'REFRESH', 'get', 'GET'].map((name) => names.filter((each) => each === name).length), [10, 10, 600, 600]);
});

test('a session that has expired or was evicted is not listed once a slower request has found that out', async (t) => {
  for (const options of [{}, { touchAfter: 5 }]) {
    const { stage, store } = staged(t, options, 'memory:?max_entries=2');
    const ends = [() => stage.advance(601), async () => { stage.advance(10); await saved(store, undefined); await saved(store, undefined); }];
    const acts = [(slow) => { slow.cookie.maxAge = 600000; return save(slow); }, (slow) => { slow.touch(); return store.touch(slow.id, slow); }];
    for (const [end, act] of ends.flatMap((end) => acts.map((act) => [end, act]))) {
      const { id } = await saved(store, 'u');
      const slow = await load(store, id);
      await end();
      await act(slow);
      assert.deepEqual([await store.get(id), await store.sessionsOf('u')], [null, []]);
    }
  }
});

test('disableTTL, disableTouch, saveEnded: "create", saveChanged: "error"', async () => {
  for (const options of [{ disableTTL: true }, { disableTouch: true }, { saveEnded: 'create' }, { saveChanged: 'error' }, { saveChanged: 'error', saveEnded: 'create' }, { disableTTL: true, absoluteTimeout: 50 }]) {
    const store = one(options);
    const { id } = await saved(store, 'u');
    const [first, second] = [await load(store, id), await load(store, id)];
    first.n = 1;
    await save(first);
    await visit(store, id);
    second.n = 2;
    if (options.saveChanged) await assert.rejects(save(second), { code: 'CHANGED' });
    else await save(second);
    assert.equal((await store.get(id)).n, options.saveChanged ? 1 : 2);
    assert.equal((await store.sessionsOf('u')).length, 1);
    assert.equal(await store.endAllOf('u'), 1);
    for (const slow of [first, second]) await save(slow).catch((error) => assert.equal(error.code, 'CHANGED'));
    assert.equal(await store.get(id), null, JSON.stringify(options));
  }
  // The key is gone, and nobody has ended the session: it is created, and its record is the one that was.
  for (const more of [{}, { saveChanged: 'error' }]) {
    const inner = open('memory:');
    after(() => inner.close());
    const store = withSessions({ store: inner, userOf, saveEnded: 'create', ...more });
    const { id } = await saved(store, 'u');
    const slow = await load(store, id);
    await inner.delete(`sess:${id}`);
    slow.n = 1;
    await save(slow);
    assert.deepEqual([(await store.get(id)).n, (await store.sessionsOf('u')).length], [1, 1]);
  }
});

test('rolling, and a request that saves twice', async () => {
  const store = one();
  const app = express();
  app.use(session({ store, secret: 'x', resave: true, rolling: true, saveUninitialized: true, cookie: { maxAge: 600000 } }));
  app.get('/in', (request, response, next) => { request.session.userId = 'u'; request.session.save((error) => { request.session.n = 1; return error ? next(error) : response.json({}); }); });
  app.get('/both', (request, response, next) => Promise.all([save(request.session), save(request.session)]).then(() => response.json({ user: request.session.userId ?? null }), next));
  app.get('/end', async (request, response) => response.json({ count: await store.endAllOf('u') }));
  await browse(app, async (go, browser) => {
    await go('/in', { keep: true });
    assert.equal((await go('/both')).user, 'u');
    assert.equal((await store.sessionsOf('u')).length, 1);
    const { cookie } = browser;
    assert.equal((await go('/end')).count, 1); // it saves at its end, being resave: true
    assert.deepEqual([await store.sessionsOf('u'), (await go('/both')).user, browser.cookie === cookie], [[], null, true]);
  });
});

test('maxSessionsPerUser: the oldest goes at once, or none comes', async () => {
  const store = one({ maxSessionsPerUser: 2, saveEnded: 'error' });
  const first = await saved(store, 'u');
  const slow = await load(store, first.id);
  for (const then = Date.now(); Date.now() === then;) await turn(); // those of one millisecond are equally old
  const others = [await saved(store, 'u'), await saved(store, 'u')];
  assert.deepEqual([await store.get(first.id), (await store.get(others[0].id)).userId, (await store.get(others[1].id)).userId], [null, 'u', 'u']);
  slow.n = 1;
  await assert.rejects(save(slow), ENDED);
  assert.equal((await store.sessionsOf('u')).length, 2);
  const strict = one({ maxSessionsPerUser: 1, whenFull: 'refuse' });
  const { id } = await saved(strict, 'u');
  await assert.rejects(saved(strict, 'u'), { code: 'LIMIT', outcome: 'not_applied' });
  await strict.destroy(id);
  await saved(strict, 'u');
});

test('beginLogin: also where the session is regenerated, and not for another user', async () => {
  const store = one({ saveEnded: 'error' });
  let meanwhile = () => {};
  const app = express();
  app.use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
  app.get('/login/:begin/:user', async (request, response, next) => {
    try {
      const { begin, user } = request.params;
      if (begin === 'quickly') store.beginLogin(request, user).catch(next); // its answer is waited for by the save
      else if (begin !== 'no') await store.beginLogin(request, begin);
      await meanwhile();
      request.session.regenerate(() => {
        request.session.userId = user;
        request.session.save((error) => response.json({ code: error?.code ?? null, id: request.sessionID }));
      });
    } catch (error) { next(error); }
  });
  app.use((error, request, response, next) => { if (!response.headersSent) response.json({ code: error.code }); void next; }); // the save at the end fails once more
  await browse(app, async (go) => {
    assert.equal((await go('/login/u/u')).code, null);
    assert.equal((await go('/login/quickly/u')).code, null);
    assert.equal((await go('/login/v/u')).code, 'INVALID');
    meanwhile = () => store.endAllOf('u');
    for (const begin of ['u', 'quickly']) {
      const { code, id } = await go(`/login/${begin}/u`);
      assert.deepEqual([code, await store.get(id)], ['ENDED', null]);
    }
    assert.equal((await go('/login/no/u')).code, null);
    meanwhile = () => store.endAllOf('v');
    assert.equal((await go('/login/u/u')).code, null, 'another user has nothing to do with it');
  });
});

test('Passport: login and logout, with and without what the session had', async () => {
  for (const keepSessionInfo of [false, true]) {
    const store = one({ userOf: (data) => data.passport?.user });
    const auth = new passport.Passport();
    auth.use(new Strategy((username, password, done) => done(null, { id: 7, username })));
    auth.serializeUser((user, done) => done(null, user.id));
    auth.deserializeUser((id, done) => done(null, { id }));
    const app = express();
    app.use(express.urlencoded({ extended: false }));
    app.use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
    app.use(auth.initialize(), auth.session());
    app.get('/visit', (request, response) => { request.session.visited = 1; response.json({ user: request.user?.id ?? null }); });
    app.post('/in', auth.authenticate('local', { keepSessionInfo }), (request, response) => response.json({}));
    app.get('/out', (request, response, next) => request.logout({ keepSessionInfo }, (error) => (error ? next(error) : response.json({}))));
    await browse(app, async (go, browser) => {
      const form = { username: 'ada', password: 'x' };
      await go('/visit', { keep: true });
      for (let i = 0; i < 2; i++) {
        await go('/in', { keep: true, form });
        const { cookie } = browser;
        assert.deepEqual([(await go('/visit')).user, (await store.sessionsOf(7)).length], [7, 1]);
        assert.equal((await go('/out', { keep: true })).status, 200);
        assert.deepEqual([(await go('/visit')).user, await store.sessionsOf(7)], [null, []]);
        browser.cookie = cookie;
        assert.equal((await go('/visit')).user, null);
      }
    });
  }
});

test('applications with other prefixes have other users; in a record there is no session id', async () => {
  const inner = open('memory:', { keys: [[1, Buffer.alloc(32, 3)]], sealValues: true, hashKeys: true });
  after(() => inner.close());
  const [shop, office, bare] = ['shop:', 'office:', ''].map((prefix) => withSessions({ store: inner, prefix, userOf }));
  const [a, b] = [await saved(shop, 7), await saved(office, 7)];
  const [{ handle }] = await office.sessionsOf(7);
  assert.equal(await shop.end(handle), false);
  assert.equal(await shop.endAllOf(7), 1);
  assert.deepEqual([await shop.get(a.id), (await office.get(b.id)).userId], [null, 7]);
  // With an empty one users are called as they are: whoever has the records of the store has them.
  const { id } = await saved(bare, 9);
  const records = new SessionStorage(inner);
  const { records: [record] } = await records.listForUser('9');
  assert(!JSON.stringify({ ...record, tokenHash: record.tokenHash }).includes(id));
  await records.revoke(record.id, { revokedAt: new Date() });
  assert.equal(await bare.get(id), null);
});

test('what userOf may give', async () => {
  const mine = new Error('mine');
  let gives = () => 'u';
  const store = one({ userOf: (data) => gives(data) });
  const there = await saved(store, undefined);
  const fresh = generated(store);
  for (const bad of [true, 1.5, NaN, 2 ** 53, '', {}, [], 5n, Symbol('u'), Promise.resolve('u'), () => 'u', 'a\0b', 'x'.repeat(513)]) {
    gives = () => bad;
    await assert.rejects(save(fresh), { code: 'INVALID', outcome: 'not_applied' }, typeof bad);
    gives = () => undefined;
    assert.equal(await store.get(fresh.id), null, 'nothing was stored');
  }
  gives = () => { throw mine; };
  for (const act of [() => save(fresh), () => store.get(there.id), () => save(there)]) await assert.rejects(act, (error) => error === mine);
  gives = () => null;
  await save(fresh);
  assert.notEqual(await store.get(fresh.id), null);
  for (const user of [0, -0, 'ä', Number.MAX_SAFE_INTEGER]) {
    gives = () => user;
    await saved(store, user);
    assert.equal((await store.sessionsOf(String(user))).length, user === 0 ? (Object.is(user, 0) ? 1 : 2) : 1);
  }
});

test('a backend that keeps no records says so; without userOf nothing is asked of it', async () => {
  const map = new Map();
  const backend = { get: (key) => map.get(key), set: (key, value) => { map.set(key, value); }, delete: (key) => map.delete(key) };
  const store = withSessions({ backend, userOf });
  const UNSUPPORTED = { code: 'NOT_SUPPORTED' };
  await assert.rejects(store.get('a'), UNSUPPORTED);
  await assert.rejects(saved(store, 'u'), UNSUPPORTED);
  assert.equal(map.size, 0);
  for (const act of [() => store.sessionsOf('u'), () => store.endAllOf('u'), () => store.end('a'.repeat(32)), () => store.beginLogin({}, 'u')]) await assert.rejects(act, UNSUPPORTED);
  await saved(withSessions({ backend }), 'u');
  assert.equal(map.size, 1);
});

test('the options and the arguments are checked', async () => {
  for (const bad of [null, 'userId', 5, {}]) assert.throws(() => new CounterfoilStore({ userOf: bad }), { code: 'INVALID', message: 'userOf must be a function of the session' });
  for (const bad of [0, -1, 1.5, '5', 10001, null, Infinity]) {
    assert.throws(() => new CounterfoilStore({ userOf, maxSessionsPerUser: bad }), { code: 'INVALID', message: 'maxSessionsPerUser must be an integer from 1 to 10000' });
  }
  for (const bad of ['oldest', null, true]) assert.throws(() => new CounterfoilStore({ userOf, whenFull: bad }), { code: 'INVALID', message: 'whenFull must be "oldestOut" or "refuse"' });
  for (const more of [{ maxSessionsPerUser: 5 }, { whenFull: 'refuse' }]) assert.throws(() => new CounterfoilStore(more), { code: 'INVALID', message: 'maxSessionsPerUser and whenFull say nothing without userOf' });
  const without = new CounterfoilStore();
  for (const method of ['sessionsOf', 'endAllOf', 'end', 'beginLogin']) {
    await assert.rejects(without[method]('u', 'u'), { code: 'INVALID', message: `${method} needs the option userOf` });
  }
  const store = one();
  const { id } = await saved(store, 'u');
  for (const bad of [undefined, null, '', 1.5, {}, 5n]) {
    for (const act of [() => store.sessionsOf(bad), () => store.endAllOf(bad), () => store.beginLogin({}, bad)]) await assert.rejects(act, { code: 'INVALID', message: 'a user must be a string that is not empty, or a safe integer' });
  }
  for (const bad of [id, null, { exept: id }, { except: '' }, { except: null }, { except: 5 }]) await assert.rejects(store.endAllOf('u', bad), { code: 'INVALID' });
  for (const bad of [id, null, { now: 5 }, { current: 5 }]) await assert.rejects(store.sessionsOf('u', bad), { code: 'INVALID' });
  for (const bad of ['u', null, { user: 'u' }, { userId: '' }]) await assert.rejects(store.end('x', bad), { code: 'INVALID' });
  for (const bad of [undefined, null, 5, {}]) await assert.rejects(store.end(bad), { code: 'INVALID' });
  for (const bad of [undefined, null, 'request']) await assert.rejects(store.beginLogin(bad, 'u'), { code: 'INVALID' });
  assert.equal((await store.get(id)).userId, 'u', 'nobody was ended');
  assert.equal(await store.endAllOf('u', { except: 'no such session' }), 1);
});
