'use strict';

// A store for express-session over any backend. It holds no state but its options, and what it has learned of its backend: expiry, atomicity and
// sharing are the core's.

const { EventEmitter } = require('node:events');
const { createRequire } = require('node:module');
const path = require('node:path');

const { open, Store, CounterfoilError } = require('../index.cjs');

const { nextTick } = process; // not what fake timers put in its place: callbacks would never come
const DAY = 86400;
const LONGEST = 3650 * DAY; // the core's limit for a ttl; a cookie may claim to live longer
const MINUTE = 60000;
const TOGETHER = 1000; // sessions asked for at once: few beside what may wait for one connection (maxPending)
const LAST = 8.64e15; // the last instant that a Date can say
const OPEN_OPTIONS = ['timeout', 'stage', 'keys', 'sealValues', 'hashKeys'];
const OPTIONS = ['store', 'url', 'backend', 'prefix', 'ttl', 'disableTTL', 'disableTouch', 'serializer', 'saveEnded', 'saveChanged', ...OPEN_OPTIONS];
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
    // The middleware put `generate` on this store; what it makes shows which classes a session and its cookie have.
    const { sessionID } = request;
    this.generate(request);
    const { constructor: Session, cookie: { constructor: Cookie } } = request.session;
    request.sessionID = sessionID;
    const { expires, originalMaxAge } = data.cookie;
    const cookie = new Cookie(data.cookie);
    if (typeof expires === 'string') cookie.expires = new Date(expires);
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

function checked(session) {
  if (typeof session !== 'object' || session === null || Array.isArray(session)) throw new CounterfoilError('the stored session is not an object', 'CORRUPT');
  // Written by another framework: express-session cannot do without one.
  if (typeof session.cookie !== 'object' || session.cookie === null) session.cookie = {};
  return session;
}

class CounterfoilStore extends Base {
  #store;
  #ours;
  #prefix;
  #ttl;
  #disableTTL;
  #disableTouch;
  #serializer;
  #custom;
  #saveEnded;
  #compares;
  #mayUpsert; // what has ended cannot be told from what is new: the backend has no conditions, and nobody insisted

  constructor(options = {}) {
    super();
    if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
    for (const name of Object.keys(options)) {
      if (!OPTIONS.includes(name)) throw invalid(`unknown option: ${name} (known: ${OPTIONS.join(', ')}; those of a URL go into it)`);
    }
    const { store, url, backend, prefix = 'sess:', ttl, disableTTL = false, disableTouch = false, serializer, ...others } = options;
    const { saveEnded, saveChanged, ...rest } = others;
    if ([store, url, backend].filter((given) => given !== undefined).length > 1) throw invalid('give one of store, url and backend');
    // What open() would refuse as a prefix, too: or every request would find it out.
    if (typeof prefix !== 'string') throw invalid('prefix must be a string');
    if (/[\0\r\n]|\p{Surrogate}/u.test(prefix)) throw invalid('prefix must not contain NUL, line breaks or lone surrogates');
    if (Buffer.byteLength(prefix) > 256) throw invalid('prefix must have at most 256 bytes');
    if (url !== undefined && typeof url !== 'string') throw invalid('url must be a string');
    if (backend !== undefined && (typeof backend !== 'object' || backend === null)) throw invalid('backend must be an object with the methods of a backend');
    if (typeof disableTTL !== 'boolean') throw invalid('disableTTL must be true or false');
    if (typeof disableTouch !== 'boolean') throw invalid('disableTouch must be true or false');
    if (ttl !== undefined && typeof ttl !== 'number' && typeof ttl !== 'function') throw invalid('ttl must be a number of seconds or a function');
    if (Number.isNaN(ttl) || ttl < 0) throw invalid('ttl must not be negative');
    if (serializer !== undefined && (typeof serializer?.parse !== 'function' || typeof serializer?.stringify !== 'function')) {
      throw invalid('serializer must have the methods parse and stringify');
    }
    if (saveEnded !== undefined && !SAVE_ENDED.includes(saveEnded)) throw invalid('saveEnded must be "ignore", "error" or "create"');
    if (saveChanged !== undefined && !SAVE_CHANGED.includes(saveChanged)) throw invalid('saveChanged must be "overwrite" or "error"');
    if (store !== undefined) {
      if (!(store instanceof Store)) throw invalid('store must be one that open() gave');
      if (OPEN_OPTIONS.some((name) => rest[name] !== undefined)) throw invalid('timeout, stage, keys, sealValues and hashKeys belong to the store that is given');
    }
    this.#store = store ?? open(backend ?? url ?? 'memory:', rest);
    this.#ours = store === undefined;
    this.#prefix = prefix;
    this.#ttl = ttl || DAY; // 0 is the default, as in connect-redis
    this.#disableTTL = disableTTL;
    this.#disableTouch = disableTouch;
    this.#serializer = serializer ?? JSON;
    this.#custom = serializer !== undefined;
    this.#saveEnded = saveEnded;
    this.#compares = saveChanged === 'error';
    this.#mayUpsert = saveEnded === 'create' && !this.#compares;
  }

  createSession(request, data) {
    const session = super.createSession(request, data);
    attach(session, KNOWN, { sid: request.sessionID, text: data[TEXT] });
    return session;
  }

  get(sid, callback) {
    if (this.#custom || typeof callback !== 'function') return answer(this.#get(sid), callback);
    // What every request waits for: JSON within one turn of the microtasks, and no promise but the store's.
    let key;
    try {
      key = this.#key(sid);
    } catch (error) {
      nextTick(callback, error);
      return undefined;
    }
    this.#store.get(key).then((text) => {
      let session;
      try {
        session = text === undefined ? null : this.#sessionOf(parsed(text), text);
      } catch (error) {
        nextTick(callback, error);
        return;
      }
      nextTick(callback, null, session);
    }, (error) => nextTick(callback, error));
    return undefined;
  }

  async #get(sid) {
    const text = await this.#store.get(this.#key(sid));
    if (text === undefined) return null;
    return this.#sessionOf(this.#custom ? await this.#serializer.parse(text) : parsed(text), text);
  }

  #sessionOf(stored, text) {
    const session = checked(stored);
    if (this.#compares) attach(session, TEXT, text);
    if (!this.#disableTouch) revive(session.cookie);
    return session;
  }

  set(sid, session, callback) {
    return answer(this.#set(sid, session), callback);
  }

  async #set(sid, session) {
    const key = this.#key(sid);
    if (typeof session !== 'object' || session === null || Array.isArray(session)) throw invalid('the session must be an object');
    const ttl = this.#ttlOf(session);
    if (!(ttl > 0)) {
      await this.#store.delete(key);
      return;
    }
    let text = this.#serializer.stringify(session);
    if (typeof text?.then === 'function') text = await text; // but not otherwise: then the session is stored when set() returns
    const options = this.#disableTTL ? {} : { ttl: Math.min(ttl, LONGEST) };
    const known = session[KNOWN];
    if (known === undefined || known.sid !== sid || this.#mayUpsert) {
      await this.#store.set(key, text, options);
      // Not before it is there: a second save that overtook the first would find nothing. Only what the middleware made, which has its id.
      if (session.id === sid && typeof session.save === 'function') attach(session, KNOWN, { sid, text: this.#compares ? text : undefined });
      return;
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
    } catch (error) {
      if (known.text === text) known.text = read;
      if (this.#saveEnded !== undefined || this.#compares || !(error instanceof CounterfoilError && error.code === 'NOT_SUPPORTED')) throw error;
      this.#mayUpsert = true;
      await this.#store.set(key, text, { ttl: options.ttl });
      return;
    }
    if (!stored) await this.#missed(key, text, options.ttl);
  }

  /** What a save answers that did not find the session, or not as it was. */
  async #missed(key, text, ttl) {
    if (this.#compares) {
      const changed = (await this.#store.get(key)) !== undefined;
      if (changed || (this.#saveEnded === 'create' && !(await this.#store.set(key, text, { ttl, ifAbsent: true })))) {
        throw new CounterfoilError('the session was saved by another request since it was loaded: nothing was saved', 'CHANGED');
      }
    }
    if (this.#saveEnded === 'error') throw new CounterfoilError('the session has ended since it was loaded: nothing was saved', 'ENDED');
  }

  touch(sid, session, callback) {
    return answer(this.#touch(sid, session), callback);
  }

  async #touch(sid, session) {
    if (this.#disableTouch || this.#disableTTL) return;
    const key = this.#key(sid);
    const ttl = this.#ttlOf(session);
    if (ttl > 0) await this.#store.touch(key, Math.min(ttl, LONGEST));
    else await this.#store.delete(key);
  }

  destroy(sid, callback) {
    return answer(this.#destroy(sid), callback);
  }

  async #destroy(sid) {
    await this.#store.delete(this.#key(sid));
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

  /** Seconds that the session has left; not above 0: it has ended. */
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
