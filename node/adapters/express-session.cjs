'use strict';

// A store for express-session over any backend. It holds no state but its options, and what it has learned of its backend: expiry, atomicity and
// sharing are the core's.

const { EventEmitter } = require('node:events');
const { createRequire } = require('node:module');
const path = require('node:path');
const { isDeepStrictEqual } = require('node:util');

const { CounterfoilError } = require('../index.cjs');
const { straight } = require('../store.cjs');
const { FIELD, LIFE, begun, lifeIn, leftOf, noteOf, withNote } = require('./express-session-life.cjs');
const { Users, OWNER, checkUsers } = require('./express-session-users.cjs');
const { OPEN_OPTIONS, checkedOptions, checkPlace, openPlace } = require('./place.cjs');

const { nextTick } = process; // not what fake timers put in its place: callbacks would never come
const DAY = 86400;
const LONGEST = 3650 * DAY; // the core's limit for a ttl; a cookie may claim to live longer
const MINUTE = 60000;
const TOGETHER = 1000; // sessions asked for at once: few beside what may wait for one connection (maxPending)
const LAST = 8.64e15; // the last instant that a Date can say
const USER_OPTIONS = ['userOf', 'maxSessionsPerUser', 'whenFull'];
const OPTIONS = ['store', 'url', 'backend', 'prefix', 'ttl', 'absoluteTimeout', 'touchAfter', 'disableTTL', 'disableTouch', 'serializer', 'saveEnded', 'saveChanged', ...USER_OPTIONS, ...OPEN_OPTIONS];
const SAVE_ENDED = ['ignore', 'error', 'create'];
const SAVE_CHANGED = ['overwrite', 'error'];

/**
 * The application's express-session: the class of this module extends its Store, so that `instanceof session.Store` holds and its
 * methods regenerate, load and createSession are inherited. It is an optional peer, and may be out of sight from here (a linked package).
 */
function findExpressSession() {
  // Never the working folder: it may be anybody's, and what is found is run. The program's own place is argv[1], also for an ES module.
  for (const place of [__filename, require.main?.filename, process.argv[1]]) {
    if (place === undefined || !path.isAbsolute(place)) continue;
    try {
      return createRequire(place)('express-session');
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  return undefined;
}

/** What express-session's Store does, for frameworks that accept its stores without it (@fastify/session). */
class LooseStore extends EventEmitter {
  regenerate(request, callback) {
    this.destroy(request.sessionID, (error) => {
      this.generate(request); // also after an error: the request must not go on with the old id
      callback(error);
    });
  }

  load(sid, callback) {
    this.get(sid, (error, data) => {
      if (error || !data) return callback(error ?? undefined);
      return callback(null, this.createSession({ sessionID: sid, sessionStore: this }, data));
    });
  }

  createSession(request, data) {
    // The middleware put `generate` on this store: what it makes shows which class a session has. Its cookie becomes the one of this
    // session, since the class of that cannot be told by its constructor: express-session's prototype has none.
    const { sessionID } = request;
    this.generate(request);
    const { constructor: Session, cookie } = request.session;
    request.sessionID = sessionID;
    const { expires = null, originalMaxAge, data: ignored, ...attributes } = data.cookie; // `data` is a getter of express-session's
    Object.assign(cookie, attributes, { expires: typeof expires === 'string' ? new Date(expires) : expires });
    cookie.originalMaxAge = originalMaxAge;
    request.session = new Session(request, { ...data, cookie });
    return request.session;
  }
}

const Base = findExpressSession()?.Store ?? LooseStore;

/**
 * On a session object: the id under which it was loaded, or saved before. From then on a save only replaces what is there: a request that
 * is slower than a logout must not bring the session back. With `saveChanged: 'error'` also the text that is there as far as this request knows;
 * on its way from get() to createSession() that is on the data. Symbols, because they are seen through a Proxy; not enumerable, because they
 * must not be stored, nor get into the next session where the data of this one is merged into it (Passport's keepSessionInfo).
 */
const KNOWN = Symbol('counterfoil.known');
const TEXT = Symbol('counterfoil.text');

function attach(object, symbol, value) {
  Object.defineProperty(object, symbol, { value, configurable: true, writable: true, enumerable: false });
}

const invalid = (message) => new CounterfoilError(message, 'INVALID');
const ended = () => new CounterfoilError('the session has ended since it was loaded: nothing was saved', 'ENDED');
const isUnsupported = (error) => error instanceof CounterfoilError && error.code === 'NOT_SUPPORTED';
/** Whether this is the middleware's session object of that id, not a plain one. */
const isMade = (session, sid) => session.id === sid && typeof session.save === 'function';

/** The options of the life together: what cannot be meant is refused, milliseconds for seconds above all. */
function checkLife({ ttl, absoluteTimeout, touchAfter, disableTTL, disableTouch }) {
  for (const [name, value] of Object.entries({ absoluteTimeout, touchAfter })) {
    if (value !== undefined && !(typeof value === 'number' && value > 0 && value < Infinity)) throw invalid(`${name} must be a number of seconds above 0`);
  }
  const idle = typeof ttl === 'number' && ttl > 0 ? ttl : undefined;
  if (idle > absoluteTimeout) throw invalid('ttl must not be longer than absoluteTimeout');
  if (touchAfter >= idle) throw invalid('touchAfter must be shorter than ttl');
  if (touchAfter >= absoluteTimeout) throw invalid('touchAfter must be shorter than absoluteTimeout');
  if (touchAfter !== undefined && (disableTTL || disableTouch)) throw invalid('touchAfter says nothing where disableTTL or disableTouch is set');
}

/** Every method takes a callback or gives a promise. A callback is called once, also when it throws, and from a clean stack. */
function answer(promise, callback) {
  if (typeof callback !== 'function') {
    // express-session itself leaves the callback of destroy out and looks at no promise: a failure there must not end the process.
    promise.catch(() => {});
    return promise;
  }
  promise.then((result) => nextTick(callback, null, result), (error) => nextTick(callback, error));
  return undefined;
}

const nothing = () => {};
const isPromise = (value) => typeof value?.then === 'function'; // of whatever kind: the application may have put its own method in a store

/**
 * The same for what may be answered at once: `ask` gives the answer or a promise of it, `read` makes of it what is told. Without a promise the
 * callback's turn comes before that of what the caller does next. So express-session, which waits for a touch between the two parts of a
 * response, ends it before the first was sent, and it is one write.
 */
function told(ask, callback, read) {
  if (typeof callback !== 'function') return answer((async () => read(await ask()))(), callback);
  const good = (given) => {
    let result;
    try {
      result = read(given);
    } catch (error) {
      nextTick(callback, error);
      return;
    }
    nextTick(callback, null, result);
  };
  const bad = (error) => nextTick(callback, error);
  let asked;
  try {
    asked = ask();
  } catch (error) {
    bad(error);
    return undefined;
  }
  if (isPromise(asked)) asked.then(good, bad);
  else good(asked);
  return undefined;
}

/**
 * A touch leaves the stored text as it is. So a session that is there, though its cookie says that it has ended or is about to, was
 * touched since: its life is counted anew, as the middleware does at the end of every request. Or request.session.save() within
 * the request would bring the old end back to set(), which destroys. A minute, because a request may take its time until then.
 */
function revive(cookie) {
  const { expires, originalMaxAge } = cookie;
  if (!expires || typeof originalMaxAge !== 'number' || !(originalMaxAge > 0)) return;
  const left = new Date(expires).getTime() - Date.now();
  if (!(left < Math.min(originalMaxAge, MINUTE))) return; // NaN where it is no date
  const end = new Date(Math.min(Date.now() + originalMaxAge, LAST));
  cookie.expires = typeof expires === 'string' ? end.toISOString() : end;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new CounterfoilError('the stored session is not JSON', 'CORRUPT'); // the engine's sentence would show a piece of it
  }
}

function checkGiven(session) {
  if (typeof session !== 'object' || session === null || Array.isArray(session)) throw invalid('the session must be an object');
}

function checked(session) {
  if (typeof session !== 'object' || session === null || Array.isArray(session)) throw new CounterfoilError('the stored session is not an object', 'CORRUPT');
  // Written by another framework: express-session cannot do without one.
  if (typeof session.cookie !== 'object' || session.cookie === null) session.cookie = {};
  return session;
}

class CounterfoilStore extends Base {
  #store;
  #ways; // to the same store
  #straightGet; // a session is read from its text alone
  #straight; // and written: no user, no life and no earlier text to look at
  #ours;
  #prefix;
  #ttl;
  #disableTTL;
  #disableTouch;
  #absolute; // milliseconds, or undefined
  #touchAfter; // the same
  #notes; // a session's life is noted in its text
  #cannotNote = false; // by a touch: the backend does not compare, or the values are sealed
  #keepsNotes; // as far as is known: JSON does, and an application's own serializer is tried once
  #serializer;
  #custom;
  #saveEnded;
  #compares;
  #users; // undefined without userOf
  #mayUpsert; // what has ended cannot be told from what is new: the backend has no conditions, and nobody insisted

  constructor(options = {}) {
    super();
    checkedOptions(options, OPTIONS);
    const { store, url, backend, prefix = 'sess:', ttl, disableTTL = false, disableTouch = false, serializer, ...others } = options;
    const { absoluteTimeout, touchAfter, saveEnded, saveChanged, userOf, maxSessionsPerUser, whenFull, ...rest } = others;
    const place = { store, url, backend, prefix };
    checkPlace(place, rest);
    if (typeof disableTTL !== 'boolean') throw invalid('disableTTL must be true or false');
    if (typeof disableTouch !== 'boolean') throw invalid('disableTouch must be true or false');
    if (ttl !== undefined && typeof ttl !== 'number' && typeof ttl !== 'function') throw invalid('ttl must be a number of seconds or a function');
    if (Number.isNaN(ttl) || ttl < 0) throw invalid('ttl must not be negative');
    checkLife({ ttl, absoluteTimeout, touchAfter, disableTTL, disableTouch });
    if (serializer !== undefined && (typeof serializer?.parse !== 'function' || typeof serializer?.stringify !== 'function')) {
      throw invalid('serializer must have the methods parse and stringify');
    }
    if (saveEnded !== undefined && !SAVE_ENDED.includes(saveEnded)) throw invalid('saveEnded must be "ignore", "error" or "create"');
    if (saveChanged !== undefined && !SAVE_CHANGED.includes(saveChanged)) throw invalid('saveChanged must be "overwrite" or "error"');
    checkUsers(options);
    this.#store = openPlace(place, rest);
    this.#ways = straight(this.#store);
    this.#ours = store === undefined;
    this.#prefix = prefix;
    this.#ttl = ttl || DAY; // 0 is the default, as in connect-redis
    this.#disableTTL = disableTTL;
    this.#disableTouch = disableTouch;
    if (absoluteTimeout !== undefined) this.#absolute = Math.ceil(absoluteTimeout * 1000);
    if (touchAfter !== undefined) this.#touchAfter = touchAfter * 1000;
    this.#notes = absoluteTimeout !== undefined || touchAfter !== undefined;
    this.#serializer = serializer ?? JSON;
    this.#custom = serializer !== undefined;
    this.#keepsNotes = !this.#custom;
    this.#saveEnded = saveEnded;
    this.#compares = saveChanged === 'error';
    this.#mayUpsert = saveEnded === 'create' && !this.#compares;
    if (userOf !== undefined) this.#users = new Users(this.#store, prefix, { userOf, maxSessionsPerUser, whenFull });
    this.#straightGet = !this.#custom && this.#users === undefined;
    this.#straight = this.#straightGet && !this.#notes && !this.#compares;
  }

  createSession(request, data) {
    const { sessionID: sid } = request;
    const life = this.#notes ? (data[LIFE]?.sid === sid ? data[LIFE] : { sid, ...lifeIn(data, Date.now()) }) : undefined;
    // No business of the application's; and merged into the next session it would say when this one began. In the data, too: the middleware
    // compares them with the session to see whether that was changed.
    if (life !== undefined) delete data[FIELD];
    const session = super.createSession(request, data);
    attach(session, KNOWN, { sid, text: data[TEXT] });
    if (data[OWNER]?.sid === sid) attach(session, OWNER, data[OWNER]);
    if (life !== undefined) attach(session, LIFE, life);
    return session;
  }

  get(sid, callback) {
    if (!this.#straightGet) return answer(this.#get(sid), callback);
    return told(() => this.#ways.get(this.#key(sid)), callback, (text) => (text === undefined ? null : this.#sessionOf(parsed(text), text, sid)));
  }

  async #get(sid) {
    const key = this.#key(sid);
    // Asked in one tick, so this is one round trip; the text first, because a login makes the record first.
    const reading = this.#store.get(key);
    const [text, record] = this.#users === undefined ? [await reading] : await Promise.all([reading, this.#users.find(sid)]);
    if (text === undefined) return null;
    const session = this.#sessionOf(await this.#parse(text), text, sid);
    if (session === null || this.#users === undefined) return session;
    const gone = () => this.#store.delete(key).catch(() => {}); // it has ended, whether this succeeds or not
    return (await this.#users.counts(sid, session, record, gone)) ? session : null;
  }

  #parse(text) {
    return this.#custom ? this.#serializer.parse(text) : parsed(text);
  }

  #sessionOf(stored, text, sid) {
    const session = checked(stored);
    if (this.#notes) {
      const now = Date.now();
      const life = { sid, text, ...lifeIn(session, now) };
      // The store has ended it, unless a program that knows no such limit has touched or saved it, or the limit was a longer one.
      if (this.#absolute !== undefined && !(leftOf(life, this.#absolute, now) > 0)) return null;
      attach(session, LIFE, life);
    }
    if (this.#compares) attach(session, TEXT, text);
    if (!this.#disableTouch) revive(session.cookie);
    return session;
  }

  set(sid, session, callback) {
    if (!this.#straight) return answer(this.#set(sid, session), callback);
    return told(() => this.#setStraight(sid, session), callback, nothing);
  }

  /** What #set does where a session is no more than its text: nothing is waited for that is there. */
  #setStraight(sid, session) {
    const key = this.#key(sid);
    checkGiven(session);
    const ttl = this.#left(this.#ttlOf(session));
    if (!(ttl > 0)) return this.#end(sid, key, session);
    const text = JSON.stringify(session);
    const options = ttl === Infinity ? {} : { ttl };
    const isNew = session[KNOWN]?.sid !== sid;
    if (!isNew && !this.#mayUpsert) options.ifPresent = true;
    const after = (stored) => {
      if (!stored) return this.#missed(sid, session, text, ttl);
      if (isNew && isMade(session, sid)) attach(session, KNOWN, { sid });
      return undefined;
    };
    const failed = (error) => {
      if (!options.ifPresent || this.#saveEnded !== undefined || !isUnsupported(error)) throw error;
      this.#mayUpsert = true;
      return this.#setStraight(sid, session);
    };
    let stored;
    try {
      stored = this.#ways.set(key, text, options);
    } catch (error) {
      return failed(error);
    }
    return isPromise(stored) ? stored.then(after, failed) : after(stored);
  }

  async #set(sid, session) {
    const key = this.#key(sid);
    checkGiven(session);
    const user = this.#users?.userIn(session);
    const now = Date.now();
    const idle = this.#ttlOf(session);
    const life = this.#notes ? this.#lifeOf(sid, session, now) : undefined;
    const ttl = this.#left(idle, life, now);
    if (!(ttl > 0)) {
      await this.#end(sid, key, session);
      if (idle > 0 && this.#saveEnded === 'error' && session[KNOWN]?.sid === sid) throw ended(); // the whole life is over, as it may be while a request runs
      return;
    }
    const note = life && noteOf(life, ttl, now);
    let text = this.#serializer.stringify(note ? withNote(session, note) : session);
    if (typeof text?.then === 'function') text = await text; // but not otherwise: then the session is stored when set() returns
    if (note && !this.#keepsNotes) await this.#tryNote(text, note);
    if (this.#users !== undefined && !(await this.#users.admit(sid, session, user, ttl, this.#standing(sid, key, session)))) {
      if (this.#saveEnded === 'error') throw ended();
      return;
    }
    const stored = await this.#save(sid, session, text, ttl === Infinity ? {} : { ttl });
    if (stored && life) Object.assign(life, note, { text, noted: true });
  }

  /** Without its note a session would be new whenever it is seen. */
  async #tryNote(text, note) {
    if (!lifeIn(checked(await this.#parse(text)), note.set).noted) throw invalid(`the serializer must keep the field ${FIELD}`);
    this.#keepsNotes = true;
  }

  /** What a session is that is to be saved, for its record. */
  #standing(sid, key, session) {
    const made = isMade(session, sid);
    const saysUser = async () => {
      const text = await this.#store.get(key);
      return text === undefined ? undefined : this.#users.userIn(checked(await this.#parse(text))) !== undefined;
    };
    return { isMade: made, isNew: made && session[KNOWN]?.sid !== sid, saysUser };
  }

  /** Whether it was stored. */
  async #save(sid, session, text, options) {
    const key = this.#key(sid);
    const known = session[KNOWN];
    if (known === undefined || known.sid !== sid || this.#mayUpsert) {
      await this.#store.set(key, text, options);
      // Not before it is there: a second save that overtook the first would find nothing. Only what the middleware made, which has its id.
      if (isMade(session, sid)) attach(session, KNOWN, { sid, text: this.#compares ? text : undefined });
      return true;
    }
    const { text: read } = known;
    if (read === undefined) {
      options.ifPresent = true;
    } else {
      options.ifEqual = read;
      known.text = text; // now: this request may save once more before this is answered
    }
    let stored;
    try {
      stored = await this.#store.set(key, text, options);
      if (!stored && read !== undefined && this.#notes) stored = await this.#saveOverTouch(key, text, options);
    } catch (error) {
      if (known.text === text) known.text = read;
      if (this.#saveEnded !== undefined || this.#compares || !isUnsupported(error)) throw error;
      this.#mayUpsert = true;
      await this.#store.set(key, text, { ttl: options.ttl });
      return true;
    }
    if (!stored) await this.#missed(sid, session, text, options.ttl);
    return stored;
  }

  /** A touch that was noted has changed the text, and nothing of the session: no reason to refuse a save. */
  async #saveOverTouch(key, text, options) {
    const read = await this.#withoutNote(options.ifEqual);
    for (let tries = 0; tries < 3; tries++) {
      const there = await this.#store.get(key);
      if (there === undefined || !isDeepStrictEqual(await this.#withoutNote(there), read)) return false;
      if (await this.#store.set(key, text, { ...options, ifEqual: there })) return true;
    }
    return false;
  }

  async #withoutNote(text) {
    const session = checked(await this.#parse(text));
    delete session[FIELD];
    return session;
  }

  /** What a save answers that did not find the session, or not as it was. */
  async #missed(sid, session, text, ttl) {
    if (this.#compares) {
      const key = this.#key(sid);
      const changed = (await this.#store.get(key)) !== undefined;
      if (changed || (this.#saveEnded === 'create' && !(await this.#store.set(key, text, { ttl, ifAbsent: true })))) {
        throw new CounterfoilError('the session was saved by another request since it was loaded: nothing was saved', 'CHANGED');
      }
      if (this.#saveEnded === 'create') return; // and now it is there
    }
    await this.#users?.end(sid, session); // it must not be listed any longer
    if (this.#saveEnded === 'error') throw ended();
  }

  touch(sid, session, callback) {
    if (this.#notes || this.#users !== undefined) return answer(this.#touch(sid, session), callback);
    return told(() => this.#touchStraight(sid, session), callback, nothing);
  }

  #touchStraight(sid, session) {
    if (this.#disableTouch || this.#disableTTL) return undefined;
    const key = this.#key(sid);
    const ttl = this.#ttlOf(session);
    return ttl > 0 ? this.#ways.touch(key, Math.min(ttl, LONGEST)) : this.#end(sid, key, session);
  }

  async #touch(sid, session) {
    if (this.#disableTouch || (this.#disableTTL && !this.#notes)) return;
    const key = this.#key(sid);
    const record = this.#users === undefined ? undefined : await this.#users.idOf(sid, session);
    if (this.#notes) {
      await this.#touchInTime(key, sid, session, record);
      return;
    }
    const ttl = this.#ttlOf(session);
    if (ttl > 0) await this.#touchBoth(key, record, Math.min(ttl, LONGEST));
    else await this.#end(sid, key, session);
  }

  async #touchBoth(key, record, ttl) {
    if (!(await this.#both(this.#store.touch(key, ttl), record, ttl)) && record !== undefined) await this.#users.revoke(record); // it has expired, or was evicted
  }

  /** A new expiry of a session on its way, and the record's in the same tick. */
  async #both(writing, record, ttl) {
    if (record === undefined) return writing;
    return (await Promise.all([writing, this.#users.refresh(record, ttl)]))[0];
  }

  /** A touch within the whole life, and only where one is due. */
  async #touchInTime(key, sid, session, record) {
    const own = session?.[LIFE];
    const loaded = own?.sid === sid && own.text !== undefined ? own : await this.#lifeNow(key);
    if (loaded === undefined || !(await this.#touchOver(loaded, sid, session, record, false))) return;
    // Another request has saved or touched it since. That has set the expiry, but this request may have taken its time afterwards.
    const there = await this.#lifeNow(key);
    if (there !== undefined) await this.#touchOver(there, sid, session, record, true);
    else if (record !== undefined) await this.#users.revoke(record);
  }

  /** Whether the text is no longer the one of that life: nothing was done then. */
  async #touchOver(life, sid, session, record, again) {
    const key = this.#key(sid);
    const now = Date.now();
    const idle = this.#disableTTL ? Infinity : this.#ttlOf(session);
    const ttl = this.#left(idle, life, now);
    if (!(ttl > 0)) {
      await this.#end(sid, key, session);
      return false;
    }
    const note = noteOf(life, ttl, now);
    const gained = note.expires - life.expires; // no number where nothing is noted
    if (life.noted) {
      if (gained === 0) return false;
      // A nearer expiry is meant so. But it is no reason to undo what another request has set.
      if (gained < 0 ? again : Math.max(gained, now - life.set) < this.#pause(idle)) return false;
    }
    // Without touchAfter only what brings the expiry nearer is noted: or the next request would take it for where the note has it.
    if (this.#cannotNote || (this.#touchAfter === undefined && gained >= 0)) {
      await this.#touchBoth(key, record, ttl);
      return false;
    }
    const text = await this.#serializer.stringify(withNote(checked(await this.#parse(life.text)), note));
    if (!this.#keepsNotes) await this.#tryNote(text, note);
    try {
      if (!(await this.#both(this.#store.set(key, text, { ttl, ifEqual: life.text }), record, ttl))) return true;
    } catch (error) {
      if (!isUnsupported(error)) throw error;
      this.#cannotNote = true;
      await this.#touchBoth(key, record, ttl);
      return false;
    }
    Object.assign(life, note, { text, noted: true });
    return false;
  }

  /** Milliseconds for which touches may be left out. At most half the idle time: or whoever comes often, but not often enough, would lose the session. */
  #pause(idle) {
    return this.#touchAfter === undefined ? 0 : Math.min(this.#touchAfter, idle * 500);
  }

  /** The life of what is stored now. */
  async #lifeNow(key) {
    const text = await this.#store.get(key);
    return text === undefined ? undefined : { text, ...lifeIn(checked(await this.#parse(text)), Date.now()) };
  }

  destroy(sid, callback) {
    return answer(this.#destroy(sid), callback);
  }

  async #destroy(sid) {
    await this.#end(sid, this.#key(sid));
  }

  /** Either alone ends it; a failure of one is no reason to leave the other undone. */
  async #end(sid, key, session) {
    const deleting = this.#store.delete(key);
    if (this.#users !== undefined) {
      deleting.catch(() => {}); // until it is looked at, below
      await this.#users.end(sid, session);
    }
    await deleting;
  }

  /** The sessions of a user that are alive, the last used first. */
  async sessionsOf(userId, options) {
    return this.#usersFor('sessionsOf').sessionsOf(userId, options);
  }

  /** Ends all sessions of a user, but perhaps one; gives how many. */
  async endAllOf(userId, options) {
    return this.#usersFor('endAllOf').endAllOf(userId, options);
  }

  /** Ends a session that sessionsOf has listed; gives whether it was alive. */
  async end(handle, options) {
    return this.#usersFor('end').endOne(handle, options);
  }

  /** Says that a login begins: if all sessions of the user are ended before it is saved, it is refused. */
  async beginLogin(request, userId) {
    await this.#usersFor('beginLogin').beginLogin(request, userId);
  }

  #usersFor(method) {
    if (this.#users === undefined) throw invalid(`${method} needs the option userOf`);
    return this.#users;
  }

  all(callback) {
    return answer(this.#all(), callback);
  }

  async #all() {
    const sessions = [];
    const ids = await this.#ids();
    for (let i = 0; i < ids.length; i += TOGETHER) {
      const some = ids.slice(i, i + TOGETHER);
      const found = await Promise.all(some.map((sid) => this.#get(sid)));
      found.forEach((session, n) => { if (session !== null) sessions.push(Object.assign(session, { id: some[n] })); });
    }
    return sessions;
  }

  ids(callback) {
    return answer(this.#ids(), callback);
  }

  async #ids() {
    const ids = new Set(); // Redis may give a key twice, while its table grows
    for await (const key of this.#store.scan(this.#prefix)) {
      if (key.length > this.#prefix.length) ids.add(key.slice(this.#prefix.length));
    }
    return [...ids];
  }

  length(callback) {
    return answer(this.#store.count(this.#prefix), callback);
  }

  clear(callback) {
    return answer(this.#clear(), callback);
  }

  async #clear() {
    await this.#store.clear(this.#prefix);
  }

  /** Closes the store if it was opened here. */
  async close() {
    if (this.#ours) await this.#store.close();
  }

  #key(sid) {
    if (typeof sid !== 'string' || sid === '') throw invalid('the session id must be a string');
    return this.#prefix + sid;
  }

  /** The life of a session that is saved. */
  #lifeOf(sid, session, now) {
    if (session[LIFE]?.sid === sid) return session[LIFE];
    if (!isMade(session, sid)) return { sid, ...lifeIn(session, now) };
    const life = { sid, ...begun(now) };
    attach(session, LIFE, life);
    return life;
  }

  /** Seconds that a session has left which may be idle for so many; not above 0: it has ended. Infinity: as long as nobody ends it. */
  #left(idle, life, now) {
    if (!(idle > 0)) return idle;
    const most = this.#disableTTL ? Infinity : Math.min(idle, LONGEST);
    return this.#absolute === undefined ? most : Math.min(most, LONGEST, leftOf(life, this.#absolute, now) / 1000);
  }

  /** Seconds that the session may be idle; not above 0: it has ended. */
  #ttlOf(session) {
    if (typeof this.#ttl === 'function') {
      const ttl = this.#ttl(session);
      if (typeof ttl !== 'number') throw invalid('the ttl function must give a number of seconds');
      return ttl;
    }
    const expires = session?.cookie?.expires;
    if (!expires) return this.#ttl; // a cookie that ends with the browser's session
    return (new Date(expires).getTime() - Date.now()) / 1000; // NaN where it is no date
  }
}

module.exports = { CounterfoilStore };
