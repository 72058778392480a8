'use strict';

// absoluteTimeout and touchAfter: how long sessions live that have two deadlines, and how often they are touched. First random requests against a
// model of both deadlines, to the millisecond, by two applications over one store; then case by case. COUNTERFOIL_SEED repeats a run.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');

const express = require('express');
const session = require('express-session');
const passport = require('passport');
const { Strategy } = require('passport-local');

const { open } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { Stage } = require('counterfoil/testing');
const { redisVariable, ownPrefix } = require('./support/redis.cjs');
const { STAGED } = require('./support/places.cjs');
const { load, save, withSessions, generated, browse } = require('./support/sessions.cjs');
const { seed, random } = require('./support/random.cjs');

const NOTE = '__counterfoil';
const SECOND = 1000, MINUTE = 60000;

/** Whatever asks for the time gets the stage's, and `behind` milliseconds less where the machine's clock was set back. */
function follow(t, stage) {
  const clock = { behind: 0 };
  t.mock.restoreAll(); // or the one before would be what is restored in the end
  t.mock.method(Date, 'now', () => stage.now().getTime() - clock.behind);
  return clock;
}

// ----------------------------------------------------------------------------------------------- requests and a model --

function application(store, maxAge) {
  const app = express();
  app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, cookie: { maxAge } }));
  const answer = (request, response) => response.json({ id: request.sessionID, n: request.session.n ?? null, keys: Object.keys(request.session) });
  const change = (request) => { request.session.n = (request.session.n ?? 0) + 1; };
  app.get('/read', answer);
  app.get('/change', (request, response) => { change(request); answer(request, response); });
  app.get('/save', (request, response, next) => { change(request); save(request.session).then(() => answer(request, response), next); });
  app.get('/life/:ms', (request, response) => { request.session.cookie.maxAge = Number(request.params.ms); answer(request, response); });
  app.get('/regenerate', (request, response, next) => request.session.regenerate((error) => {
    if (error) return next(error);
    change(request);
    return answer(request, response);
  }));
  app.get('/destroy', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({}))));
  return app;
}

/** What is to happen, in milliseconds: of one session, `undefined` where there is none. */
class Model {
  constructor({ idle, absolute = Infinity, touchAfter, disableTTL, disableTouch, ttl }) {
    Object.assign(this, { idle, absolute, touchAfter, disableTTL, disableTouch, ttl, one: undefined });
  }
  cap(now, idle) { return Math.min(this.disableTTL ? Infinity : now + idle, this.one.created + this.absolute); }
  /** Whether it is there; a session that is not, is no more. */
  alive(now) {
    if (this.one !== undefined && this.one.end <= now) this.one = undefined;
    return this.one !== undefined;
  }
  saved(now, cookieEnd) {
    this.one ??= { created: now, n: 0 };
    this.one.n++;
    this.one.cookieEnd = cookieEnd;
    this.move(now, this.cap(now, cookieEnd - now));
  }
  move(now, end) { Object.assign(this.one, { end, moved: now }); }
  changed(now) { this.saved(now, now + this.idle); }
  touched(now, idle = this.idle) {
    if (this.disableTouch) return;
    const end = this.cap(now, idle);
    const pause = this.touchAfter === undefined ? 0 : Math.min(this.touchAfter, idle / 2);
    const gained = end - this.one.end;
    if (gained < 0 || gained >= pause || (gained > 0 && now - this.one.moved >= pause)) this.move(now, end);
  }
  /** request.session.save() gives the store the cookie as it was loaded, unless that ends within the minute. */
  savedAsLoaded(now) {
    let { cookieEnd } = this.one;
    if (this.ttl) cookieEnd = now + this.idle; // there is none in the cookie
    else if (!this.disableTouch && cookieEnd - now < Math.min(this.idle, MINUTE)) cookieEnd = now + this.idle;
    this.saved(now, cookieEnd);
    this.touched(now);
  }
}

const LIVES = {
  'both': { idle: 600 * SECOND, absolute: 2000 * SECOND, touchAfter: 100 * SECOND },
  'absolute alone': { idle: 600 * SECOND, absolute: 2000 * SECOND },
  'touchAfter alone': { idle: 600 * SECOND, touchAfter: 100 * SECOND },
  'touchAfter longer than half the idle time': { idle: 90 * SECOND, absolute: 1000 * SECOND, touchAfter: 85 * SECOND },
  'absolute shorter than the idle time': { idle: 600 * SECOND, absolute: 300 * SECOND, touchAfter: 20 * SECOND },
  'cookies that end with the browser': { idle: 600 * SECOND, absolute: 2000 * SECOND, touchAfter: 100 * SECOND, ttl: true },
  'disableTTL': { idle: 600 * SECOND, absolute: 2000 * SECOND, disableTTL: true },
  'disableTouch': { idle: 600 * SECOND, absolute: 1500 * SECOND, disableTouch: true },
};
const REQUESTS = 50;
const pick = (list) => list[random(list.length)];

async function history(t, { stage: newStage, url, shortest }, life) {
  const stage = newStage();
  follow(t, stage);
  const inSeconds = (ms) => (ms === undefined ? undefined : ms / SECOND);
  const { disableTTL, disableTouch } = life;
  const options = { prefix: ownPrefix(), disableTTL, disableTouch, absoluteTimeout: inSeconds(life.absolute), touchAfter: inSeconds(life.touchAfter), ttl: life.ttl ? inSeconds(life.idle) : undefined };
  const where = url();
  const inner = [0, 1].map(() => open(where, { stage }));
  const stores = inner.map((store) => new CounterfoilStore({ store, ...options }));
  const model = new Model(life);
  const met = { alive: 0, ended: 0, skipped: 0 };
  await browse(application(stores[0], life.ttl ? null : life.idle), (first, one) => browse(application(stores[1], life.ttl ? null : life.idle), async (second, two) => {
    const go = async (path, options) => {
      const [send, browser, other] = pick([[first, one, two], [second, two, one]]);
      const answer = await send(path, options);
      other.cookie = browser.cookie;
      return answer;
    };
    const enough = () => met.alive > 10 && met.ended > 1 && (life.touchAfter === undefined || met.skipped > 0);
    for (let i = 0; i < REQUESTS || (i < 20 * REQUESTS && !enough()); i++) {
      const now = stage.now().getTime();
      const alive = model.alive(now);
      const where = `request ${i}`;
      if (!alive) {
        const { n, id, status } = await go('/change', { keep: true });
        assert.equal(status, 200, where);
        assert.equal(n, 1, `${where}: it had ended`);
        assert.match(id, /./);
        model.changed(now);
        met.ended++;
      } else {
        met.alive++;
        const what = pick(['read', 'read', 'read', 'read', 'change', 'save', 'pair', 'life', 'life', ...(random(4) ? [] : ['regenerate', 'destroy'])]);
        const before = model.one.end;
        const expected = model.one.n;
        if (what === 'read' || what === 'pair') {
          const both = what === 'pair' && model.cap(now, life.idle) - now >= shortest; // or the touch of the one ends it before the other reads
          for (const { n, keys } of await Promise.all(both ? [go('/read'), go('/read')] : [go('/read')])) {
            assert.equal(n, expected, `${where}: ${what}`);
            assert.deepEqual(keys.sort(), ['cookie', 'n']);
          }
          model.touched(now);
          if (!life.disableTouch && model.one.end === before) met.skipped++;
        } else if (what === 'change' || what === 'save') {
          assert.equal((await go(`/${what}`)).n, expected + 1, `${where}: ${what}`);
          if (what === 'change') model.changed(now);
          else model.savedAsLoaded(now);
        } else if (what === 'life' && !life.ttl) {
          const ms = pick([life.idle / 2, life.idle - SECOND, life.idle + SECOND, life.idle * 2]);
          assert.equal((await go(`/life/${ms}`)).n, expected, where);
          model.touched(now, ms);
        } else if (what === 'regenerate') {
          assert.equal((await go('/regenerate', { keep: true })).n, 1, where);
          model.one = undefined;
          model.changed(now);
        } else if (what === 'destroy') {
          await go('/destroy');
          model.one = undefined;
        }
      }
      const { end: ends, moved } = model.one ?? {};
      if (ends - moved < shortest) stage.advance(shortest / SECOND);
      // On to an instant of interest: just before, at or after one of the deadlines, or anywhere.
      const at = stage.now().getTime();
      const { end = at, created = at } = model.one ?? {};
      const targets = [at + random(200), at + random(20 * SECOND), at + random(60 * SECOND), at + random(life.idle), at + (life.touchAfter ?? SECOND), end, created + (life.absolute ?? life.idle)];
      const target = Math.min(pick(targets) + pick([-1, 0, 0, 1]), random(3) ? end - 1 : end + SECOND);
      if (target > at && target < at + 1e7) stage.advance((target - at) / SECOND);
    }
  }));
  for (const store of inner) await store.close();
  return met;
}

for (const [name, backend] of Object.entries(STAGED)) {
  describe(`random requests over ${name}`, () => {
    before(() => backend.url()); // a server is started while the clock still goes
    for (const [how, life] of Object.entries(LIVES)) {
      test(how, async (t) => {
        t.diagnostic(`COUNTERFOIL_SEED=${seed}`);
        const { alive, ended, skipped } = await history(t, backend, life);
        assert(alive > 10 && ended > 1, 'both were met');
        if (life.touchAfter !== undefined) assert(skipped > 0, 'touches were skipped');
      });
    }
  });
}

// ------------------------------------------------------------------------------------------------------------ by itself --

/** A store on a stage, and what is kept in it. */
function staged(t, options, url = 'memory:') {
  const stage = new Stage();
  const clock = follow(t, stage);
  const inner = open(url, { stage });
  const store = withSessions({ store: inner, ...options });
  after(() => inner.close());
  const kept = async (id) => { const text = await inner.get(`sess:${id}`); return text === undefined ? undefined : JSON.parse(text); };
  return { stage, clock, inner, store, kept };
}

/** A session that is saved, with a cookie of so many seconds. */
async function saved(store, seconds = 600) {
  const one = generated(store, { maxAge: seconds * SECOND });
  one.n = 1;
  await save(one);
  return one;
}

/** What the middleware does in a request that changes nothing. Gives whether the session was there. */
async function visit(store, id) {
  const one = await load(store, id);
  if (!one) return false;
  one.touch();
  await store.touch(id, one);
  return true;
}

/** Seconds of the stage's clock until the store has ended it, at most so many. */
async function lifeOf(stage, store, id, use, most = 10000) {
  for (let seconds = 0; seconds < most; seconds++) {
    if ((await store.get(id)) === null) return seconds;
    await use?.();
    stage.advance(1);
  }
  return most;
}

test('without the options nothing is noted, and with them beside the data, which stays as it was', async (t) => {
  for (const options of [{}, { absoluteTimeout: 3600 }, { touchAfter: 60 }]) {
    const { stage, store, kept } = staged(t, options);
    const now = Date.now();
    const { id } = await saved(store);
    const { [NOTE]: note, ...rest } = await kept(id);
    assert.deepEqual(rest, { cookie: { originalMaxAge: 600000, expires: new Date(now + 600000).toISOString(), httpOnly: true, path: '/' }, n: 1 });
    assert.deepEqual(note, options.absoluteTimeout || options.touchAfter ? { created: now, set: now, expires: now + 600000 } : undefined);
    stage.advance(60);
    const loaded = await load(store, id);
    assert.deepEqual(Object.keys(loaded), ['cookie', 'n']);
    await save(loaded);
    if (note) assert.deepEqual((await kept(id))[NOTE], { created: now, set: now + 60000, expires: now + 600000 });
  }
});

/** The names of the operations that a store is asked for from now on, in a list. */
function noted(inner) {
  const names = [];
  for (const name of ['get', 'set', 'touch', 'delete']) {
    const { [name]: method } = inner;
    inner[name] = (...args) => { names.push(name); return method.apply(inner, args); };
  }
  return names;
}

test('a touch is skipped until it is due; what is left is counted in writes', async (t) => {
  const { stage, inner, store } = staged(t, { touchAfter: 60 });
  const { id } = await saved(store);
  const asked = noted(inner);
  for (let second = 1; second <= 3600; second++) {
    stage.advance(1);
    assert(await visit(store, id));
  }
  assert.deepEqual([asked.length, asked.filter((name) => name === 'get').length], [3660, 3600]);
  assert.equal(await lifeOf(stage, store, id), 600);
});

test('what a request costs', async (t) => {
  const cost = async (options, more) => {
    const { stage, inner, store, kept } = staged(t, options);
    const fresh = await saved(store);
    stage.advance(100);
    const asked = noted(inner);
    const before = await inner.get(`sess:${fresh.id}`);
    const one = await load(store, fresh.id);
    asked.length = 0;
    await more({ stage, store, one, touch: (it = one) => { it.touch(); return store.touch(it.id, it); } });
    const result = asked.join(' ');
    return [result, (await inner.get(`sess:${fresh.id}`)) === before, (await kept(fresh.id))[NOTE].expires - Date.now()];
  };
  assert.deepEqual(await cost({ absoluteTimeout: 3600 }, ({ touch }) => touch()), ['touch', true, 500000], 'nothing is rewritten where no touch is to be left out');
  assert.deepEqual(await cost({ touchAfter: 60 }, ({ touch }) => touch()), ['set', false, 600000]);
  assert.deepEqual(await cost({ touchAfter: 60 }, async ({ touch }) => { await touch(); await touch(); }), ['set', false, 600000]);
  assert.deepEqual(await cost({ touchAfter: 60 }, async ({ stage, touch }) => { await touch(); stage.advance(60); await touch(); }), ['set set', false, 600000]);
  assert.deepEqual(await cost({ touchAfter: 60 }, async ({ one, touch }) => { one.touch(); one.n = 2; await save(one); await touch(); }), ['set', false, 600000]);
  assert.deepEqual(await cost({ touchAfter: 60 }, async ({ stage, one, touch }) => { one.touch(); await save(one); stage.advance(60); await touch(); }), ['set set', false, 600000]);
  assert.deepEqual(await cost({ touchAfter: 60 }, ({ store, one }) => store.touch(one.id, { cookie: {} })), ['get set', false, 86400000]);
  assert.deepEqual(await cost({ absoluteTimeout: 300 }, ({ touch }) => touch()), ['', true, 200000], 'the end is the last one already');
});

test('who comes just before the end of the idle time stays, though touches are rare', async (t) => {
  const { stage, store } = staged(t, { touchAfter: 500 });
  const { id } = await saved(store, 100);
  for (let i = 0; i < 20; i++) {
    for (const seconds of [49, 99]) {
      stage.advance(seconds - 48);
      assert(await visit(store, id));
    }
  }
});

test('a changed session is saved, however often', async (t) => {
  const { stage, store, kept } = staged(t, { touchAfter: 60 });
  const { id } = await saved(store);
  for (let n = 2; n < 10; n++) {
    const one = await load(store, id);
    one.n = n;
    one.touch();
    await save(one);
    assert.equal((await kept(id)).n, n);
    stage.advance(1);
  }
  assert.equal(await lifeOf(stage, store, id), 599);
});

test('a touch that brings the expiry nearer holds until the next, also where the whole life ends it', async (t) => {
  for (const options of [{}, { absoluteTimeout: 500 }, { touchAfter: 60 }, { absoluteTimeout: 500, touchAfter: 60 }]) {
    const { stage, store } = staged(t, options);
    const { id } = await saved(store, 600);
    const one = await load(store, id);
    one.cookie.maxAge = 10 * SECOND;
    await store.touch(id, one);
    stage.advance(9);
    assert(await visit(store, id), JSON.stringify(options));
    stage.advance(2);
    assert.notEqual(await store.get(id), null, JSON.stringify(options));
  }
});

test('a slow request is touched over what others have set meanwhile; one that would give it less is not', async (t) => {
  const { stage, store } = staged(t, { touchAfter: 10 });
  const { id } = await saved(store);
  const slow = await load(store, id);
  stage.advance(20);
  assert(await visit(store, id));
  stage.advance(300);
  slow.touch();
  await store.touch(id, slow);
  assert.equal(await lifeOf(stage, store, id), 600);

  const { id: other } = await saved(store);
  const late = await load(store, other);
  stage.advance(20);
  const long = await load(store, other);
  long.cookie.maxAge = 3600000;
  long.n = 2;
  await save(long);
  late.touch();
  await store.touch(other, late);
  assert.equal((await store.get(other)).n, 2);
  assert.equal(await lifeOf(stage, store, other), 3600);
});

test('no touch brings back a session that has ended meanwhile', async (t) => {
  for (const options of [{ touchAfter: 10 }, { absoluteTimeout: 3600 }, { touchAfter: 10, absoluteTimeout: 3600, saveEnded: 'create' }]) {
    const { stage, store, kept } = staged(t, options);
    for (const seconds of [1, 20]) {
      const { id } = await saved(store);
      const slow = await load(store, id);
      stage.advance(seconds);
      await store.destroy(id);
      slow.touch();
      await store.touch(id, slow);
      await store.touch(id, { cookie: { originalMaxAge: null } });
      assert.equal(await kept(id), undefined);
    }
  }
});

test('the whole life is the same for all who save and touch, and what began anew has a new one', async (t) => {
  const uses = {
    touch: visit,
    save: async (store, id) => { const one = await load(store, id); one.touch(); await save(one); },
    'save, plain': async (store, id) => { const data = await store.get(id); await store.set(id, { ...data, cookie: { originalMaxAge: null } }); },
    'touch, plain': (store, id) => store.touch(id, { cookie: { originalMaxAge: null } }),
    'a session object that is kept': (store, id, one) => { one.touch(); return save(one); },
  };
  for (const more of [{}, { touchAfter: 7 }, { ttl: () => 50 }, { saveEnded: 'create' }, { saveChanged: 'error' }]) {
    for (const [name, use] of Object.entries(uses)) {
      const { stage, store } = staged(t, { absoluteTimeout: 100, ...more });
      const one = await saved(store, 60);
      stage.advance(30);
      assert.equal(await lifeOf(stage, store, one.id, () => use(store, one.id, one)), 70, `${name} ${JSON.stringify(more)}`);
    }
  }
});

test('disableTTL: the whole life alone counts, whatever a cookie says, also of sessions that were there before', async (t) => {
  const { stage, store, inner } = staged(t, { absoluteTimeout: 100, disableTTL: true });
  const before = withSessions({ store: inner, disableTTL: true });
  const { id } = await saved(before, 5);
  stage.advance(1000);
  assert.equal(await lifeOf(stage, store, id, () => store.touch(id, { cookie: { expires: new Date(0) } })), 100);
});

test('a request that ends after the whole life is over does not save: not even where ended sessions come back', async (t) => {
  for (const saveEnded of [undefined, 'error', 'create']) {
    const { stage, store, kept } = staged(t, { absoluteTimeout: 100, saveEnded });
    const fresh = await saved(store, 60);
    stage.advance(50);
    const slow = await load(store, fresh.id);
    slow.touch();
    await store.touch(fresh.id, slow);
    stage.advance(50);
    for (const one of [slow, fresh]) {
      one.touch();
      if (saveEnded === 'error') await assert.rejects(save(one), { code: 'ENDED', outcome: 'not_applied' });
      else await save(one);
      await store.touch(one.id, one);
      assert.equal(await kept(fresh.id), undefined);
    }
  }
});

test('the note is beside whatever the object says of itself', async (t) => {
  class Own {
    cookie = { originalMaxAge: null };
    toJSON() { return { ...this, own: 1 }; }
  }
  const { store, kept } = staged(t, { absoluteTimeout: 100 });
  const one = new Own();
  await store.set('a', one);
  const { [NOTE]: note, ...rest } = await kept('a');
  assert.deepEqual([rest, note.created, Object.keys(one)], [{ cookie: { originalMaxAge: null }, own: 1 }, Date.now(), ['cookie']]);
});

test('two first saves at once: one life', async (t) => {
  const { stage, store, kept } = staged(t, { absoluteTimeout: 100 });
  const one = generated(store);
  const first = save(one);
  const { created } = (await first, await kept(one.id))[NOTE];
  stage.advance(10);
  await Promise.all([save(one), save(one)]);
  assert.equal((await kept(one.id))[NOTE].created, created);
});

test('a session of another program counts from when it is first seen, whether it is changed or not', async (t) => {
  const text = (more) => JSON.stringify({ cookie: { originalMaxAge: 50000, expires: new Date(Date.now() + 50000).toISOString() }, n: 1, list: [{ a: 'é' }], ...more });
  for (const use of [visit, async (store, id) => { const one = await load(store, id); one.touch(); await save(one); }]) {
    for (const more of [{}, { [NOTE]: null }, { [NOTE]: 'x' }, { [NOTE]: { created: 5, set: 4, expires: 3 } }, { [NOTE]: { created: -1, set: 5, expires: 5 } }, { [NOTE]: { created: 0.5, set: 5, expires: 5 } }, { [NOTE]: { created: '0', set: 5, expires: 5 } }]) {
      const { stage, store, inner, kept } = staged(t, { absoluteTimeout: 100 });
      await inner.set('sess:a', text(more), { ttl: 50 });
      stage.advance(40);
      const now = Date.now();
      assert.equal(await lifeOf(stage, store, 'a', () => use(store, 'a')), 100);
      await inner.set('sess:a', text(more), { ttl: 50 });
      const first = Date.now();
      await use(store, 'a');
      const { [NOTE]: note, n, list } = await kept('a');
      assert.deepEqual([note.created, n, list], [first, 1, [{ a: 'é' }]]);
      assert(now < first);
    }
  }
});

test('a program that knows nothing of it cannot prolong the whole life: it gives back what it does not know', async (t) => {
  const { stage, store, inner, kept } = staged(t, { absoluteTimeout: 100 });
  const { id } = await saved(store, 50);
  const other = withSessions({ store: inner });
  for (let seconds = 0; seconds < 99; seconds += 9) {
    const one = await load(other, id);
    one.n = seconds;
    one.touch();
    await save(one);
    await other.touch(id, one);
    assert.equal((await store.get(id)).n, seconds);
    stage.advance(9);
  }
  stage.advance(1);
  assert.notEqual(await kept(id), undefined);
  assert.equal(await store.get(id), null);
  assert.equal(await load(store, id), undefined);
  assert.deepEqual(await store.all(), []);
});

test('connect-redis itself is such a program', async () => {
  const { RedisStore } = require('connect-redis');
  const url = redisVariable('');
  const prefix = ownPrefix();
  const client = require('redis').createClient({ url });
  client.on('error', () => {});
  await client.connect();
  const theirs = new RedisStore({ client, prefix });
  session({ store: theirs, secret: 'x', resave: false, saveUninitialized: false });
  const ours = withSessions({ url, prefix, absoluteTimeout: 3600, touchAfter: 60 });
  try {
    const { id } = await saved(ours);
    const kept = async () => JSON.parse(await client.get(prefix + id));
    const { [NOTE]: note } = await kept();
    const one = await load(theirs, id);
    one.n = 2;
    one.cookie.maxAge = 7200000;
    await save(one);
    assert.deepEqual([(await kept())[NOTE], (await kept()).n], [note, 2]);
    assert(await client.pTTL(prefix + id) > 3600000, 'it knows no limit');
    assert(await visit(ours, id));
    assert(await client.pTTL(prefix + id) <= note.created + 3600000 - Date.now() + 1000, 'we do');
    const [{ created }, { n }] = [(await kept())[NOTE], await load(theirs, id)];
    assert.deepEqual([created, n], [note.created, 2]);
  } finally {
    await ours.close();
    await client.quit();
  }
});

test('a shorter limit holds for the sessions that are there already', async (t) => {
  const { stage, store, inner } = staged(t, { absoluteTimeout: 1000 });
  const { id } = await saved(store, 500);
  const shorter = withSessions({ store: inner, absoluteTimeout: 100 });
  stage.advance(99);
  assert(await visit(shorter, id));
  stage.advance(1);
  assert.equal(await shorter.get(id), null);
});

describe('a clock that is set back', () => {
  const USES = [visit, async (store, id) => { const one = await load(store, id); one.touch(); await save(one); }];
  for (const behind of [30, 61, 3600]) {
    for (const more of [{}, { touchAfter: 5 }]) {
      test(`by ${behind} seconds, ${JSON.stringify(more)}`, async (t) => {
        for (const use of USES) {
          const { stage, clock, store } = staged(t, { absoluteTimeout: 1000, ...more });
          const { id } = await saved(store, 2000);
          stage.advance(600);
          await USES[1](store, id);
          clock.behind = behind * SECOND;
          const left = await lifeOf(stage, store, id, () => use(store, id));
          // So little may as well be the clock of another machine, and prolongs it by as much, but not by more.
          if (behind < 60) assert(left >= 400 && left <= 400 + behind, `${left}`);
          else assert.equal(left, 400);
        }
      });
    }
  }
  test('a little: one use alone moves nothing', async (t) => {
    for (const use of USES) {
      const { stage, clock, store } = staged(t, { absoluteTimeout: 1000 });
      const { id } = await saved(store, 2000);
      stage.advance(600);
      await USES[1](store, id);
      clock.behind = 30 * SECOND;
      await use(store, id);
      assert.equal(await lifeOf(stage, store, id), 400);
    }
  });
  test('a little, again and again: not by more than a minute in all', async (t) => {
    const { stage, clock, store } = staged(t, { absoluteTimeout: 1000 });
    const { id } = await saved(store, 2000);
    stage.advance(600);
    for (let i = 0; i < 20; i++) {
      await USES[1](store, id);
      clock.behind += 50 * SECOND;
    }
    const left = await lifeOf(stage, store, id, () => USES[1](store, id));
    assert(left >= 400 && left <= 460, `${left}`);
  });
  test('a session that was made by a clock that is ahead', async (t) => {
    const { stage, clock, store } = staged(t, { absoluteTimeout: 1000, touchAfter: 5 });
    clock.behind = -7200 * SECOND;
    const { id } = await saved(store, 2000);
    clock.behind = 0;
    assert.equal(await lifeOf(stage, store, id, () => visit(store, id)), 1000);
  });
});

describe('saveChanged: a touch that is noted changes nothing', () => {
  const salted = { parse: async (text) => JSON.parse(text.slice(text.indexOf('{'))), stringify: async (data) => `${random(1e9)}${JSON.stringify(data)}` };
  for (const serializer of [undefined, salted]) {
    test(serializer ? 'with a serializer' : 'JSON', async (t) => {
      const { stage, store } = staged(t, { saveChanged: 'error', touchAfter: 10, serializer });
      const { id } = await saved(store);
      stage.advance(20);
      const [one, two, three] = [await load(store, id), await load(store, id), await load(store, id)];
      assert(await visit(store, id));
      one.n = 2;
      await save(one);
      await save(one);
      two.n = 3;
      await assert.rejects(save(two), { code: 'CHANGED' });
      await assert.rejects(save(three), { code: 'CHANGED' });
      assert.equal((await store.get(id)).n, 2);
      stage.advance(20);
      const own = await load(store, id);
      await store.touch(id, own);
      own.n = 4;
      await save(own);
      assert.equal((await store.get(id)).n, 4);
      await store.destroy(id);
      await save(own);
      assert.equal(await store.get(id), null);
    });
  }
});

test('a serializer that drops the note is refused: such sessions would never end', async (t) => {
  const serializer = { parse: JSON.parse, stringify: ({ cookie, n }) => JSON.stringify({ cookie, n }) };
  const { store, inner, kept } = staged(t, { serializer, absoluteTimeout: 900 });
  await assert.rejects(saved(store), { code: 'INVALID', message: 'the serializer must keep the field __counterfoil' });
  assert.equal(await inner.count(), 0);
  await inner.set('sess:theirs', JSON.stringify({ cookie: {}, n: 1 }), { ttl: 600 });
  await assert.rejects(visit(store, 'theirs'), { code: 'INVALID' });
  assert.deepEqual(await kept('theirs'), { cookie: {}, n: 1 });
  await saved(withSessions({ store: inner, serializer }));
});

test('what another request has changed is seen where JSON would not show it', async () => {
  const serializer = {
    parse: (text) => JSON.parse(text, (key, value) => (key === 'map' ? new Map(value) : value)),
    stringify: (one) => JSON.stringify(one, (key, value) => (value instanceof Map ? [...value] : value)),
  };
  const store = withSessions({ serializer, touchAfter: 60, saveChanged: 'error' });
  const one = generated(store, { maxAge: 600 * SECOND });
  one.map = new Map([['a', 1]]);
  await save(one);
  const [first, second] = [await load(store, one.id), await load(store, one.id)];
  first.map.set('a', 2);
  await save(first);
  second.map.set('b', 3);
  await assert.rejects(save(second), { code: 'CHANGED' });
  assert.deepEqual([...(await store.get(one.id)).map], [['a', 2]]);
});

test('sealed values, and a backend that does not compare: no touch is noted, so more are made, and nothing lives longer or shorter', async (t) => {
  const keys = [[1, Buffer.alloc(32, 7)]];
  const map = new Map();
  const bare = (stage) => {
    const live = (key) => { const one = map.get(key); return one !== undefined && one.end > stage.now().getTime() ? one : undefined; };
    const end = (ttl) => stage.now().getTime() + Math.round(ttl * SECOND);
    return {
      get: (key) => live(key)?.value,
      set: (key, value, ttl) => { map.set(key, { value, end: end(ttl) }); },
      delete: (key) => map.delete(key),
      touch: (key, ttl) => { const one = live(key); if (one) one.end = end(ttl); return one !== undefined; },
    };
  };
  for (const make of [(stage) => open('memory:', { stage, keys, sealValues: true, hashKeys: true }), (stage) => open(bare(stage), { stage })]) {
    const stage = new Stage();
    follow(t, stage);
    const inner = make(stage);
    const store = withSessions({ store: inner, absoluteTimeout: 1000, touchAfter: 50 });
    const { id } = await saved(store, 200);
    const asked = noted(inner);
    const count = (name) => asked.filter((one) => one === name).length;
    for (let seconds = 0; seconds < 900; seconds += 10) {
      assert(await visit(store, id), `${seconds}`);
      stage.advance(10);
    }
    assert.deepEqual([count('touch'), count('set')], [85, 1]); // all but those of the first 50 seconds; and it is asked once whether it can compare
    assert(await visit(store, id));
    stage.advance(99);
    assert.notEqual(await store.get(id), null);
    stage.advance(1);
    assert.equal(await store.get(id), null);
    await inner.close();
  }
});

test('an error of the backend is a touch that fails, not one that is left out', async () => {
  const mine = new Error('down');
  const map = new Map();
  let error;
  const backend = { binary: true, get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: (key) => map.delete(key), touch: () => true, setIf() { throw error; } };
  const store = withSessions({ backend, touchAfter: 0.001 });
  const one = await saved(store);
  error = mine;
  await new Promise((resolve) => setTimeout(resolve, 5));
  one.touch();
  for (let i = 0; i < 2; i++) await assert.rejects(store.touch(one.id, one), (got) => got === mine);
});

test('Passport: a login begins a new life, also where it keeps what the session had', async (t) => {
  for (const keepSessionInfo of [false, true]) {
    const { stage, store, kept } = staged(t, { absoluteTimeout: 1000 });
    const auth = new passport.Passport();
    auth.use(new Strategy((username, password, done) => done(null, { id: 7, username })));
    auth.serializeUser((user, done) => done(null, user.id));
    auth.deserializeUser((id, done) => done(null, { id }));
    const app = express();
    app.use(express.urlencoded({ extended: false }));
    app.use(session({ store, secret: 'a secret of the test', resave: false, saveUninitialized: false, cookie: { maxAge: 600000 } }));
    app.use(auth.initialize(), auth.session());
    app.get('/visit', (request, response) => { request.session.visited = 1; response.json({ id: request.sessionID }); });
    app.post('/in', auth.authenticate('local', { keepSessionInfo }), (request, response) => response.json({ id: request.sessionID }));
    await browse(app, async (go) => {
      const { created: before } = (await kept((await go('/visit', { keep: true })).id))[NOTE];
      stage.advance(500);
      const { id } = await go('/in', { keep: true, form: { username: 'ada', password: 'x' } });
      const { visited, [NOTE]: note } = await kept(id);
      assert.equal(visited, keepSessionInfo ? 1 : undefined);
      assert.equal(note.created, before + 500000);
      assert.equal(await lifeOf(stage, store, id, () => visit(store, id), 2000), 1000);
    });
  }
});

test('the options are checked', () => {
  const message = (name) => `${name} must be a number of seconds above 0`;
  for (const name of ['absoluteTimeout', 'touchAfter']) {
    for (const value of [0, -0, -1, NaN, Infinity, '60', '', null, true, [60], {}, 5n, () => 60]) {
      assert.throws(() => new CounterfoilStore({ [name]: value }), { code: 'INVALID', message: message(name) }, `${name} ${String(value)}`);
    }
    new CounterfoilStore({ [name]: undefined });
    new CounterfoilStore({ [name]: 0.5 });
  }
  for (const [options, sentence] of [
    [{ ttl: 601, absoluteTimeout: 600 }, 'ttl must not be longer than absoluteTimeout'],
    [{ ttl: 600, touchAfter: 600 }, 'touchAfter must be shorter than ttl'],
    [{ absoluteTimeout: 600, touchAfter: 600 }, 'touchAfter must be shorter than absoluteTimeout'],
    [{ touchAfter: 60, disableTouch: true }, 'touchAfter says nothing where disableTTL or disableTouch is set'],
    [{ touchAfter: 60, disableTTL: true }, 'touchAfter says nothing where disableTTL or disableTouch is set'],
  ]) assert.throws(() => new CounterfoilStore(options), { code: 'INVALID', message: sentence });
  for (const options of [{ ttl: 600, absoluteTimeout: 600 }, { ttl: 0, absoluteTimeout: 600 }, { ttl: 600, touchAfter: 599 }, { ttl: () => 1, absoluteTimeout: 600, touchAfter: 500 }, { absoluteTimeout: 600 }]) new CounterfoilStore(options);
});
