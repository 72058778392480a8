'use strict';

// How the rules for a store of express-session are tried: as the middleware calls it, with session objects of the store's own
// making.

const { isDeepStrictEqual } = require('node:util');

const { Broken, SLACK, sayError, show, sleep, unseen } = require('./probe.cjs');

const HOUR = 3600000;
const SHORT = 300; // milliseconds
const SECOND = 1000; // what a store may be late whose clock counts seconds
const ROUNDS = 6;
const YEARS = 9 * 365 * 24 * HOUR;
const DATA = {
  user: 'kit-ada',
  nested: { list: [1, 2.5, null, true, '\u00fc\u{1f98a}'], empty: {} },
  text: '',
  zero: 0,
  no: false,
};

const isMiss = (value) => value === undefined || value === null;

/**
 * A session object of express-session's own, and its cookie, if the store derives from its Store; they are made without loading
 * it.
 */
function madeBy(store) {
  try {
    const made = store.createSession({ sessionID: 'kit', sessionStore: store }, { cookie: {} });
    if (typeof made.save === 'function') return made;
  } catch {
    // then it is a plain object, and shape.methods says what is missing
  }
  return undefined;
}

/** A session as the middleware generates it, with a life in milliseconds; null: a browser session. */
function fresh(probe, store, sid, data, life = HOUR) {
  const made = madeBy(store);
  const expires = life === null ? null : new Date(probe.now() + life);
  if (made === undefined) return { ...data, cookie: { path: '/', httpOnly: true, originalMaxAge: life, expires, maxAge: life } };
  // Not `made`: to the store that is one which was loaded.
  const session = new made.constructor({ sessionID: sid, sessionStore: store }, { ...data });
  session.cookie = made.cookie;
  session.cookie.expires = expires;
  session.cookie.originalMaxAge = life;
  return session;
}

/** What a callback was given: {error, value}, or {thrown} where the method has thrown instead. */
async function ask(probe, store, method, ...args) {
  probe.needs(store, method);
  const told = probe.settle(`${method}()`, (resolve) => {
    try {
      const result = store[method](...args, (error, value) => resolve({ error: isMiss(error) ? undefined : error, value }));
      if (typeof result?.catch === 'function') result.catch(() => {}); // the middleware looks at no promise
    } catch (thrown) {
      resolve({ error: thrown, thrown: true });
    }
  });
  return (await told).value;
}

/** The value; an error is Broken. */
async function good(probe, store, method, ...args) {
  const { error, value, thrown } = await ask(probe, store, method, ...args);
  if (error !== undefined)
    throw new Broken(`${method}() succeeds`, `it ${thrown ? 'has thrown' : 'called back with'} ${sayError(error)}`, error);
  return value;
}

const isThere = (probe, store, sid) => async () => !isMiss(await good(probe, store, 'get', sid));
const dataOf = (session) => {
  if (isMiss(session)) return session;
  const { cookie, ...data } = JSON.parse(JSON.stringify(session));
  return data;
};

/** A session that is stored, as its id. */
async function stored(probe, store, data = { n: 1 }, life = HOUR) {
  const sid = probe.key();
  await good(probe, store, 'set', sid, fresh(probe, store, sid, data, life));
  return sid;
}

/** What a request has loaded, as a session object. */
async function loaded(probe, store, sid) {
  probe.needs(store, 'load');
  const session = await good(probe, store, 'load', sid);
  probe.expect(!isMiss(session), 'load() gives the session', show(session));
  return session;
}

async function ended(probe, store, sid, when) {
  const value = await good(probe, store, 'get', sid);
  probe.expect(isMiss(value), `no session ${when}`, show(value));
}

async function holds(probe, store, sid, n, when) {
  const value = await good(probe, store, 'get', sid);
  probe.expect(
    value?.n === n,
    `the session with n = ${n} ${when}`,
    isMiss(value) ? 'no session' : `one with n = ${show(value.n)}`,
  );
}

/** Waits until a list shows what is alive, which an expired session is not. */
async function lists(probe, store, look) {
  const marks = [probe.key(), probe.key(), probe.key()];
  const before = await look([]);
  const sids = [];
  for (const mark of marks) sids.push(await stored(probe, store, { mark }));
  const over = probe.key();
  const dying = await stored(probe, store, { mark: over }, SHORT);
  const end = probe.now() + SHORT;
  let seen;
  // Asked again and again, as a list that counts seconds may show it for one more; get() is not called, since that may be what
  // removes it.
  const right = async () =>
    (seen = await look([...marks, over], [...sids, dying])).count !== before.count + 3 || seen.found !== 3;
  await probe.until(end);
  const isRight = await probe.ends(end, SECOND, right);
  probe.expect(
    isRight,
    '3 sessions that are alive, and not a fourth that has expired',
    `${seen.count - before.count} more than before${seen.what === undefined ? '' : `, ${seen.what} of these 4 among them`}`,
  );
  await good(probe, store, 'destroy', sids[0]);
  seen = await look(marks, sids);
  probe.expect(seen.count === before.count + 2, '2 after one of them was destroyed', `${seen.count - before.count}`);
}

/** Breaks the store, with a session in it. */
async function broken(probe) {
  const store = await probe.make();
  const sid = await stored(probe, store);
  await probe.fault(store);
  return { store, sid };
}

module.exports = {
  async 'shape.emitter'(probe) {
    const store = await probe.make();
    probe.expect(
      typeof store.on === 'function' && typeof store.emit === 'function',
      'an EventEmitter',
      `on is ${show(store.on)}`,
    );
    probe.expect(Object.isExtensible(store), 'an object that can be extended', 'a frozen one');
    // The middleware puts it there; in strict code a store that refuses throws.
    store.generate = () => {};
    delete store.generate;
  },

  async 'shape.methods'(probe) {
    const store = await probe.make();
    for (const name of ['get', 'set', 'destroy'])
      probe.expect(typeof store[name] === 'function', `${name} is a method`, show(store[name]));
    for (const name of ['regenerate', 'load', 'createSession']) {
      probe.expect(typeof store[name] === 'function', `${name} is a method: extend session.Store`, show(store[name]));
    }
  },

  async 'get.miss'(probe) {
    const value = await good(probe, await probe.make(), 'get', probe.key());
    probe.expect(isMiss(value), 'null or undefined', show(value));
  },

  async 'get.what_was_set'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store, DATA);
    const value = dataOf(await good(probe, store, 'get', sid));
    const other = isMiss(value) ? [] : Object.keys(DATA).filter((name) => !isDeepStrictEqual(value[name], DATA[name]));
    probe.expect(!isMiss(value), 'the data that were set, right after set()', 'no session');
    probe.expect(other.length === 0, 'the data that were set', `other data in ${other.join(', ')}`);
  },

  async 'get.copies'(probe) {
    const store = await probe.make();
    const sid = probe.key();
    const session = fresh(probe, store, sid, { inner: { n: 1 } });
    await good(probe, store, 'set', sid, session);
    session.inner.n = 2;
    const first = await good(probe, store, 'get', sid);
    probe.expect(first?.inner?.n === 1, 'the data as they were at set()', 'what was changed in the object after it');
    first.inner.n = 3;
    const second = await good(probe, store, 'get', sid);
    probe.expect(second?.inner?.n === 1, 'the data as they were at set()', 'what was changed in the object that get() gave');
  },

  async 'cookie.round_trip'(probe) {
    const store = await probe.make();
    const sid = probe.key();
    const session = fresh(probe, store, sid, { n: 1 });
    Object.assign(session.cookie, { path: '/kit', httpOnly: false, secure: true, sameSite: 'lax' });
    const { expires, originalMaxAge } = session.cookie;
    await good(probe, store, 'set', sid, session);
    const cookie = (await good(probe, store, 'get', sid))?.cookie;
    probe.expect(typeof cookie === 'object' && cookie !== null, 'a session with a cookie', show(cookie));
    probe.expect(new Date(cookie.expires).getTime() === expires.getTime(), 'the expires that was set', 'another');
    probe.expect(cookie.originalMaxAge === originalMaxAge, 'the originalMaxAge that was set', show(cookie.originalMaxAge));
    const { path, httpOnly, secure, sameSite } = cookie;
    probe.expect(
      path === '/kit' && httpOnly === false && secure === true && sameSite === 'lax',
      'path, httpOnly, secure and sameSite as they were set',
      'others',
    );
  },

  async 'sid.own_names'(probe) {
    const store = await probe.make();
    for (const sid of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
      const value = await good(probe, store, 'get', sid);
      probe.expect(isMiss(value), `get('${sid}') gives no session before one is saved`, show(value));
      await good(probe, store, 'set', sid, fresh(probe, store, sid, { n: 1 }));
      await holds(probe, store, sid, 1, `of the id ${sid}`);
      await good(probe, store, 'destroy', sid);
    }
  },

  async 'callback.once'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store);
    const session = fresh(probe, store, sid, { n: 2 });
    const calls = { get: [sid], set: [sid, session], destroy: [sid] };
    if (typeof store.touch === 'function') calls.touch = [sid, session];
    const counts = {};
    for (const [method, args] of Object.entries(calls)) {
      counts[method] = 0;
      await probe.settle(`the callback of ${method}()`, (resolve) => store[method](...args, () => resolve(++counts[method])));
    }
    await sleep(20);
    for (const [method, count] of Object.entries(counts))
      probe.expect(count === 1, `the callback of ${method}() is called once`, `${count} times`);
  },

  async 'callback.once_when_it_throws'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store);
    const calls = { set: [sid, fresh(probe, store, sid, { n: 2 })], get: [sid], destroy: [sid] };
    const counts = { set: 0, get: 0, destroy: 0 };
    await unseen(async () => {
      for (const [method, args] of Object.entries(calls)) {
        await probe.settle(`the callback of ${method}()`, (resolve) => {
          const result = store[method](...args, () => {
            resolve();
            if (++counts[method] === 1) throw new Error('of the application');
          });
          if (typeof result?.catch === 'function') result.catch(() => {});
        });
      }
    });
    for (const [method, count] of Object.entries(counts)) {
      probe.expect(count === 1, `a callback of ${method}() that throws is called once`, `${count} times`);
    }
  },

  async 'callback.optional'(probe) {
    const store = await probe.make();
    const sid = probe.key();
    const session = fresh(probe, store, sid, { n: 1 });
    const without = async (method, ...args) => {
      const { error, failed } = await probe.attempt(store, method, ...args);
      probe.expect(!failed, `${method}() does without a callback`, `it failed: ${sayError(error)}`);
    };
    await without('set', sid, session);
    const saved = await probe.ends(probe.now(), 5 * SECOND, async () => !(await isThere(probe, store, sid)()));
    probe.expect(saved, 'set() without a callback stores', 'no session five seconds later');
    if (typeof store.touch === 'function') await without('touch', sid, session);
    await without('destroy', sid);
    const gone = await probe.ends(probe.now(), 5 * SECOND, isThere(probe, store, sid));
    probe.expect(gone, 'destroy() without a callback ends the session', 'it was there five seconds later');
  },

  async 'errors.to_callback'(probe) {
    const store = await probe.make();
    const sid = probe.key();
    const session = fresh(probe, store, sid, { n: 1 });
    session.circle = session;
    const { error, thrown } = await ask(probe, store, 'set', sid, session);
    const seen = error === undefined ? 'it called back without one' : `it has thrown ${sayError(error)}`;
    probe.expect(error !== undefined && !thrown, 'set() of a session with a circle calls back with an error', seen);
  },

  async 'set.replaces'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store, { n: 1, user: 'kit-ada' });
    const session = await loaded(probe, store, sid);
    delete session.user;
    session.n = 2;
    await good(probe, store, 'set', sid, session);
    const value = await good(probe, store, 'get', sid);
    probe.expect(
      value?.n === 2 && value.user === undefined,
      'n as it was set, and no user any more',
      isMiss(value) ? 'no session' : 'the user that was removed, or the old n',
    );
  },

  async 'set.whole'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store, { a: 0, b: 'x'.repeat(100) });
    for (let round = 0; round < 3; round++) {
      const data = Array.from({ length: 6 }, (_, index) => ({ a: index + 1, b: String.fromCharCode(97 + index).repeat(3000) }));
      const sessions = await Promise.all(data.map((fields) => Promise.all([loaded(probe, store, sid), fields])));
      for (const [session, fields] of sessions) Object.assign(session, fields);
      await probe.crowd(6, (index) => ask(probe, store, 'set', sid, sessions[index][0])); // all but one may be refused
      const value = await good(probe, store, 'get', sid);
      probe.expect(
        data.some((fields) => fields.a === value?.a && fields.b === value?.b),
        'one of the sessions that were saved',
        isMiss(value) ? 'no session' : 'parts of several',
      );
    }
  },

  async 'set.keeps_others'(probe) {
    const store = await probe.make();
    const sids = Array.from({ length: 12 }, () => probe.key());
    await probe.crowd(12, (index) => good(probe, store, 'set', sids[index], fresh(probe, store, sids[index], { n: index })));
    for (const [index, sid] of sids.entries())
      await holds(probe, store, sid, index, 'after 12 saves of different sessions at once');
  },

  async 'destroy.removes'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store);
    await good(probe, store, 'destroy', sid);
    await ended(probe, store, sid, 'right after destroy()');
    await good(probe, store, 'destroy', sid);
  },

  async 'destroy.stays'(probe) {
    const store = await probe.make();
    for (let round = 0; round < ROUNDS; round++) {
      const sid = await stored(probe, store);
      const slow = await loaded(probe, store, sid);
      slow.n = 2;
      // Whether a save says that it has stored nothing is for the store to decide.
      const calls = [() => good(probe, store, 'destroy', sid), () => ask(probe, store, 'set', sid, slow)];
      if (round % 2) calls.reverse();
      if (round === 0) for (const call of calls) await call();
      else await Promise.all(calls.map((call) => call()));
      await ended(probe, store, sid, 'after a request that had loaded it before has saved it');
    }
  },

  async 'touch.moves_expiry'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    const touch = async (sid, life) => {
      const session = await loaded(probe, store, sid);
      session.cookie.expires = new Date(probe.now() + life);
      session.cookie.originalMaxAge = life;
      await good(probe, store, 'touch', sid, session);
    };
    const { longer, first } = await probe.within(async (life) => {
      const ms = Math.max(SECOND, life * 1000); // who counts seconds knows no shorter life
      const sid = await stored(probe, store, { n: 1 }, ms);
      await touch(sid, HOUR);
      return { longer: sid, first: probe.now() + ms };
    });
    const shorter = await stored(probe, store, { n: 2 });
    await touch(shorter, SHORT);
    const gone = await probe.ends(probe.now() + SHORT, SECOND, isThere(probe, store, shorter));
    probe.expect(
      gone,
      'a session with an hour to live ends soon after a touch() with a cookie that says so',
      'it was there a second later',
    );
    await probe.until(first + SECOND + SLACK);
    await holds(probe, store, longer, 1, 'after a touch() with an hour to live, when the life before it is over');
  },

  async 'touch.keeps_data'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    const sid = await stored(probe, store, DATA);
    const session = await loaded(probe, store, sid);
    await good(probe, store, 'touch', sid, session);
    const value = dataOf(await good(probe, store, 'get', sid));
    probe.expect(!isMiss(value), 'the session after touch()', 'no session');
    const other = Object.keys(DATA).filter((name) => !isDeepStrictEqual(value[name], DATA[name]));
    probe.expect(other.length === 0, 'the data as they were', `other data in ${other.join(', ')}`);
  },

  async 'touch.never_creates'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    const never = probe.key();
    await good(probe, store, 'touch', never, fresh(probe, store, never, { n: 1 }));
    await ended(probe, store, never, 'after touch() of one that was never there');
    const sid = await stored(probe, store);
    const slow = await loaded(probe, store, sid);
    await good(probe, store, 'destroy', sid);
    await good(probe, store, 'touch', sid, slow);
    await ended(probe, store, sid, 'after touch() by a request that had loaded it before it was destroyed');
  },

  async 'touch.no_resurrection'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    for (let round = 0; round < ROUNDS; round++) {
      const sid = await stored(probe, store);
      const slow = await loaded(probe, store, sid);
      const calls = [() => ask(probe, store, 'touch', sid, slow), () => good(probe, store, 'destroy', sid)];
      if (round % 2) calls.reverse();
      await Promise.all(calls.map((call) => call()));
      await ended(probe, store, sid, 'after a touch() and a destroy() at once');
    }
  },

  async 'touch.loses_no_update'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    for (let round = 0; round < ROUNDS; round++) {
      const sid = await stored(probe, store);
      const [reader, writer] = [await loaded(probe, store, sid), await loaded(probe, store, sid)];
      writer.n = 2;
      const calls = [() => good(probe, store, 'touch', sid, reader), () => good(probe, store, 'set', sid, writer)];
      if (round % 2) calls.reverse();
      if (round < 2) for (const call of calls) await call();
      else await Promise.all(calls.map((call) => call()));
      await holds(probe, store, sid, 2, 'that one request has saved while another has touched it');
    }
  },

  async 'save.no_lost_update'(probe) {
    const store = await probe.make();
    for (let round = 0; round < ROUNDS; round++) {
      const sid = await stored(probe, store);
      const sessions = [await loaded(probe, store, sid), await loaded(probe, store, sid)];
      const names = ['one', 'two'];
      for (const [index, session] of sessions.entries()) session[names[index]] = true;
      const save = (session) => ask(probe, store, 'set', sid, session);
      const told = round === 0 ? [await save(sessions[0]), await save(sessions[1])] : await Promise.all(sessions.map(save));
      const value = await good(probe, store, 'get', sid);
      const kept = names.filter((name) => value?.[name] === true);
      const lost = names.filter((name, index) => told[index].error === undefined && !kept.includes(name));
      probe.expect(kept.length > 0, 'one of both changes at least', 'neither');
      probe.expect(lost.length === 0, 'both changes, or an error for the second', 'a change is lost, and nobody was told');
    }
  },

  async 'expiry.ends'(probe) {
    const store = await probe.make();
    const sid = probe.key();
    const session = fresh(probe, store, sid, { n: 1 }, 1500);
    const end = session.cookie.expires.getTime();
    const before = probe.now();
    await good(probe, store, 'set', sid, session);
    const slow = probe.now() - before; // a store that counts from when it was asked
    await probe.until(end - 700);
    const early = await isThere(probe, store, sid)();
    if (probe.now() < end - 100) probe.expect(early, 'a session with 1.5 s to live is there after 0.8 s', 'it was gone');
    probe.expect(
      await probe.ends(end + slow, SECOND, isThere(probe, store, sid)),
      'no session a second after its expires',
      'it was there',
    );
  },

  async 'expiry.exact'(probe) {
    const store = await probe.make();
    for (let tries = 0; tries < 4; tries++) {
      const sid = probe.key();
      const session = fresh(probe, store, sid, { n: 1 }, SECOND + 100); // who rounds up to seconds is late by most of one
      const end = session.cookie.expires.getTime();
      const before = probe.now();
      await good(probe, store, 'set', sid, session);
      const slow = probe.now() - before; // a store that counts from when it was asked
      await probe.until(end + (probe.staged ? 0 : SLACK + slow));
      const there = await isThere(probe, store, sid)();
      if (probe.now() > end + SECOND / 2) continue;
      if (!there) return;
      if (!(await probe.ends(probe.now(), SECOND, isThere(probe, store, sid)))) probe.skip('it does not end: see expiry.ends');
      probe.expect(
        false,
        'no session from its expires on',
        `it was there for about ${Math.ceil((probe.now() - end) / 100) / 10} s more`,
      );
    }
    probe.skip('this machine is too slow to tell');
  },

  async 'expiry.none'(probe) {
    const store = await probe.make();
    const sids = [];
    for (const expires of [null, false]) {
      const sid = probe.key();
      const session = fresh(probe, store, sid, { n: 1 }, null);
      session.cookie.expires = expires;
      await good(probe, store, 'set', sid, session);
      sids.push(sid);
    }
    await probe.pass(probe.staged ? HOUR : 2 * SHORT);
    for (const sid of sids) await holds(probe, store, sid, 1, 'whose cookie has no expires, later');
  },

  async 'expiry.long'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store, { n: 1 }, YEARS);
    await sleep(50); // a timer that fires at once is a real one
    await holds(probe, store, sid, 1, 'with nine years to live');
  },

  async 'expiry.past_save'(probe) {
    const store = await probe.make();
    const sid = await stored(probe, store);
    const session = await loaded(probe, store, sid);
    session.cookie.expires = new Date(probe.now() - 1000);
    await ask(probe, store, 'set', sid, session);
    await ended(probe, store, sid, 'after it was saved with an expires in the past');
  },

  async 'regenerate.new_id'(probe) {
    const store = await probe.make();
    probe.needs(store, 'regenerate');
    const sid = await stored(probe, store);
    const next = probe.key();
    const request = { sessionID: sid, sessionStore: store };
    store.generate = (made) => {
      made.sessionID = next;
      made.session = fresh(probe, store, next, {});
    };
    await good(probe, store, 'regenerate', request);
    probe.expect(request.sessionID === next, 'regenerate() has made a new session by generate', 'the request has the old one');
    await ended(probe, store, sid, 'under the old id after regenerate()');
  },

  async 'load.session'(probe) {
    const store = await probe.make();
    probe.needs(store, 'load');
    store.generate = (request) => {
      request.session = fresh(probe, store, request.sessionID, {});
    };
    const sid = await stored(probe, store);
    const session = await loaded(probe, store, sid);
    for (const name of ['save', 'touch', 'reload', 'destroy'])
      probe.expect(typeof session[name] === 'function', `a session with the method ${name}`, show(session[name]));
    probe.expect(session.n === 1 && session.id === sid, 'its data and its id', 'others');
    probe.expect(session.cookie?.expires instanceof Date, 'a cookie whose expires is a Date', show(session.cookie?.expires));
    const missed = await good(probe, store, 'load', probe.key());
    probe.expect(isMiss(missed), 'load() gives nothing for a session that is not there', show(missed));
  },

  async 'all.lists'(probe) {
    const store = await probe.make();
    probe.needs(store, 'all');
    await lists(probe, store, async (marks) => {
      const list = await good(probe, store, 'all');
      probe.expect(typeof list === 'object' && list !== null, 'all() gives an array, or an object by id', show(list));
      const sessions = Object.values(list);
      const alive = marks.slice(0, 3).filter((mark) => sessions.some((session) => session?.mark === mark)).length;
      return {
        count: sessions.length,
        found: alive,
        what: marks.filter((mark) => sessions.some((session) => session?.mark === mark)).length,
      };
    });
  },

  async 'ids.lists'(probe) {
    const store = await probe.make();
    probe.needs(store, 'ids');
    await lists(probe, store, async (marks, sids = []) => {
      const ids = await good(probe, store, 'ids');
      probe.expect(Array.isArray(ids), 'ids() gives an array', show(ids));
      return {
        count: ids.length,
        found: sids.slice(0, 3).filter((sid) => ids.includes(sid)).length,
        what: sids.filter((sid) => ids.includes(sid)).length,
      };
    });
  },

  async 'length.counts'(probe) {
    const store = await probe.make();
    probe.needs(store, 'length');
    await lists(probe, store, async () => {
      const count = await good(probe, store, 'length');
      probe.expect(Number.isSafeInteger(count) && count >= 0, 'length() gives a number', show(count));
      return { count, found: 3, what: undefined };
    });
  },

  async 'clear.empties'(probe) {
    const store = await probe.make();
    probe.needs(store, 'clear');
    const sids = [await stored(probe, store), await stored(probe, store)];
    await good(probe, store, 'clear');
    for (const sid of sids) await ended(probe, store, sid, 'after clear()');
    await good(probe, store, 'clear');
  },

  async 'fault.error_to_callback'(probe) {
    const { store, sid } = await broken(probe);
    const session = fresh(probe, store, sid, { n: 2 });
    const calls = { get: [sid], set: [sid, session], destroy: [sid] };
    if (typeof store.touch === 'function') calls.touch = [sid, session];
    for (const [method, args] of Object.entries(calls)) {
      const { error, value, thrown } = await ask(probe, store, method, ...args);
      const seen = thrown
        ? `it has thrown ${sayError(error)}`
        : `it called back without one${method === 'get' && isMiss(value) ? ': a miss' : ''}`;
      probe.expect(error !== undefined && !thrown, `${method}() calls back with an error`, seen);
    }
  },

  async 'fault.destroy_without_callback'(probe) {
    const { store, sid } = await broken(probe);
    const seen = await unseen(async () => {
      store.destroy(sid);
      await ask(probe, store, 'destroy', sid); // so long as a failure takes
    });
    probe.expect(
      seen.length === 0,
      "destroy() that fails without a callback is nobody's unhandled rejection",
      `one: ${sayError(seen[0])}`,
    );
  },

  async 'fault.recovers'(probe) {
    const { store, sid } = await broken(probe);
    await ask(probe, store, 'get', sid);
    await probe.restore();
    await holds(probe, store, sid, 1, 'once the store can be reached again');
  },
};
