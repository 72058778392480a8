'use strict';

// A storage for Miro's API client over any backend, and one refresh of a token that many callers find expired. It holds no state but what is
// under way in this process: who refreshes is decided by a lease in the store, what may be saved by a comparison there.

const { createHash, randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const { performance } = require('node:perf_hooks');

const { Storage, CounterfoilError } = require('../index.cjs');
const { OPEN_OPTIONS, checkPlace, openPlace } = require('./place.cjs');

const OPTIONS = ['store', 'url', 'backend', 'prefix', 'lease', 'grace', 'wait', 'onError', ...OPEN_OPTIONS];
// The keys beside a state: behind its key, so that they are the same however a key is made of a store's prefix, ours and the id. No id ends so.
const LEASE = ':counterfoil-lease';
const FENCE = ':counterfoil-fence';
const SAVED = ':counterfoil-saved';
const FREE = 'free'; // what a lease is that was given back: only what is exactly the holder's is replaced, and nothing deletes so
const SOON = 0.001;
const COUNTER = 3650 * 86400;
const PAUSES = { first: 20, most: 250 }; // milliseconds between two looks at somebody else's lease
const SAVES = 4; // tries, where the store cannot be reached: what was refreshed is lost if it is not saved
const PASSING = ['TIMEOUT', 'UNAVAILABLE', 'BUSY'];
const FLIGHT = Symbol('counterfoil.singleFlight');

const invalid = (message) => new CounterfoilError(message, 'INVALID');
const hash = (text) => createHash('sha256').update(text).digest('hex');

function idText(userId) {
  if (typeof userId === 'string') return userId;
  if (typeof userId === 'number' && Number.isSafeInteger(userId)) return String(userId);
  throw invalid('the user id must be a string or a safe integer');
}

/** Only what has an end can be refreshed before its end: the client's own rule. */
function isFreshState({ refreshToken, tokenExpiresAt }) {
  return !refreshToken || !tokenExpiresAt || !(new Date(tokenExpiresAt) < new Date());
}

function checkState(state) {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) throw invalid('the state must be an object');
}

function textOf(state) {
  checkState(state);
  try {
    return JSON.stringify(state);
  } catch {
    throw invalid('the state cannot be written as JSON'); // the engine's sentence would show property names
  }
}

function stateOf(text) {
  let state;
  try {
    state = JSON.parse(text);
  } catch {
    // The engine's sentence would show a piece of it.
  }
  if (typeof state !== 'object' || state === null || Array.isArray(state)) throw new CounterfoilError('the stored state is not a JSON object', 'CORRUPT');
  return state;
}

/** A failed save that nobody waits for must be seen by somebody, but end no process. */
function warn(error) {
  process.emitWarning(`a state of Miro was not stored: ${error?.code ?? error?.name ?? 'error'}`, 'CounterfoilWarning');
}

class MiroStorage {
  #store;
  #states;
  #ours;
  #prefix;
  #lease;
  #grace;
  #wait;
  #onError;
  #writing = new Map(); // what the client has set and not awaited: reads come after it
  #flights = new Map(); // the refreshes of this process that are under way

  constructor(options = {}) {
    if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
    for (const name of Object.keys(options)) {
      if (!OPTIONS.includes(name)) throw invalid(`unknown option: ${name} (known: ${OPTIONS.join(', ')}; those of a URL go into it)`);
    }
    const { store, url, backend, prefix = 'miro:', lease = 15, grace = 20, wait = 30, onError = warn, ...rest } = options;
    if ([store, url, backend].filter((given) => given !== undefined).length !== 1) throw invalid('give one of store, url and backend');
    checkPlace({ store, url, backend, prefix }, rest);
    for (const [name, value, least] of [['lease', lease, 0.1], ['grace', grace, 0], ['wait', wait, 0]]) {
      if (!(typeof value === 'number' && value >= least && value <= 3600)) throw invalid(`${name} must be a number of seconds from ${least} to 3600`);
    }
    if (typeof onError !== 'function') throw invalid('onError must be a function');
    this.#store = openPlace({ store, url, backend }, rest);
    this.#ours = store === undefined;
    this.#states = new Storage(this.#store);
    this.#prefix = prefix;
    this.#lease = lease;
    this.#grace = grace;
    this.#wait = wait * 1000;
    this.#onError = onError;
  }

  #key(userId) {
    const key = this.#prefix + idText(userId);
    if ([LEASE, FENCE, SAVED].some((end) => key.endsWith(end))) throw invalid('the user id must not end as the keys beside a state do');
    return key;
  }

  // ---------------------------------------------------------------------------------------------- what the client calls

  async get(userId) { return (await this.#read(this.#key(userId)))?.state; }

  // Not async: over a backend that does not wait, the state is there when this returns. The client awaits it only where it revokes.
  set(userId, state) {
    const stored = this.#set(userId, state);
    stored.catch((error) => {
      try {
        const told = this.#onError(error);
        if (typeof told?.catch === 'function') told.catch(warn);
      } catch {
        warn(error); // thrown on, it would end the process
      }
    });
    return stored;
  }

  #set(userId, state) {
    let key;
    let stored;
    try {
      key = this.#key(userId);
      if (state !== undefined && state !== null) checkState(state);
      stored = this.#states.set(key, state);
    } catch (error) { return Promise.reject(error); }
    const settled = stored.then(() => {}, () => {}).then(() => { if (this.#writing.get(key) === settled) this.#writing.delete(key); });
    this.#writing.set(key, settled);
    return stored;
  }

  async #read(key) {
    await this.#writing.get(key);
    const text = await this.#store.get(key);
    return text === undefined ? undefined : { text, state: stateOf(text) };
  }

  // ----------------------------------------------------------------------------------------------------------- the lease

  /** The lease of a key, or undefined: somebody has it. */
  async #take(key) {
    const at = key + LEASE;
    const mine = randomUUID();
    const taken = (await this.#store.set(at, mine, { ifAbsent: true, ttl: this.#lease })) || (await this.#store.set(at, mine, { ifEqual: FREE, ttl: this.#lease }));
    if (!taken) return undefined;
    let fence;
    try {
      fence = await this.#store.incr(key + FENCE, 1, { ttl: COUNTER });
    } catch (error) {
      if (error?.code === 'NOT_SUPPORTED') await this.#store.delete(at).catch(() => {}); // nobody can hold one here: whoever comes next is to see the reason, not wait
      throw error;
    }
    // The number counts only if the lease was still ours when it was drawn: so a later lease has a greater one.
    const value = `${fence} ${mine}`;
    return (await this.#store.set(at, value, { ifEqual: mine, ttl: this.#lease })) ? { at, value, fence } : undefined;
  }

  /** Gives it back, if it is still ours. Where that fails it ends by itself. */
  async #give({ at, value }) {
    try {
      await this.#store.set(at, FREE, { ifEqual: value, ttl: SOON });
    } catch {
      // Its ttl sees to it.
    }
  }

  /**
   * Saves over exactly the text that was read: whoever comes too late finds another there, and nothing is stored. What was saved is remembered for the grace
   * period. The answer may be lost: then the same is tried once more, and our own text in its place is a success too.
   */
  async #save(key, before, after) {
    const condition = before === undefined ? { ifAbsent: true } : { ifEqual: before };
    let saved;
    for (let tries = 1, receipt; saved === undefined; tries++) {
      try {
        saved = (await this.#store.set(key, after, { ...condition, ...(receipt !== undefined && { receipt }) })) || (tries > 1 && (await this.#store.get(key)) === after);
      } catch (error) {
        if (tries === SAVES || !PASSING.includes(error?.code)) throw error;
        ({ receipt } = error);
        await sleep(50 * 2 ** tries);
      }
    }
    if (saved && this.#grace > 0) await this.#store.set(key + SAVED, hash(after), { ttl: Math.max(this.#grace, SOON) }).catch(() => {}); // without it, only the grace is missing
    return saved;
  }

  /** Whether this was saved by a refresh within the grace period: then it is the successor, whatever a clock says of it. */
  async #isSuccessor(key, text) { return this.#grace > 0 && (await this.#store.get(key + SAVED)) === hash(text); }

  /** The lease, once nobody else has it; undefined: `settled` came true meanwhile. */
  async #hold(key, until, settled) {
    let held = await this.#take(key);
    for (let most = PAUSES.first; held === undefined; most = Math.min(most * 1.5, PAUSES.most)) {
      const left = until - performance.now();
      if (left <= 0) throw new CounterfoilError('another caller held the lease for longer than wait', 'TIMEOUT');
      await sleep(Math.min(most * (0.5 + Math.random() / 2), left));
      if (await settled()) return undefined;
      const other = await this.#store.get(key + LEASE);
      if (other === undefined || other === FREE) held = await this.#take(key); // a look is cheaper than a write that fails
    }
    return held;
  }

  async withLock(userId, work) {
    if (typeof work !== 'function') throw invalid('withLock takes a function');
    const key = this.#key(userId);
    const held = await this.#hold(key, performance.now() + this.#wait, () => false);
    try {
      const found = await this.#read(key);
      let before = found?.text;
      const save = async (state) => {
        const after = textOf(state);
        const saved = await this.#save(key, before, after);
        if (saved) before = after;
        return saved;
      };
      return await work({ fence: held.fence, state: found?.state, save });
    } finally {
      await this.#give(held);
    }
  }

  // --------------------------------------------------------------------------------------------------------- the refresh

  async refreshOnce(userId, refresh, options = {}) {
    if (typeof refresh !== 'function') throw invalid('refreshOnce takes a function that makes a state of a state');
    if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
    for (const name of Object.keys(options)) if (name !== 'isFresh') throw invalid(`unknown option: ${name} (known: isFresh)`);
    const { isFresh = isFreshState } = options;
    if (typeof isFresh !== 'function') throw invalid('isFresh must be a function');
    const key = this.#key(userId);
    const until = performance.now() + this.#wait;
    const settled = async (found) => found === undefined || (await isFresh(found.state)) || (await this.#isSuccessor(key, found.text));
    for (;;) {
      const found = await this.#read(key);
      if (await settled(found)) return found?.state;
      const other = this.#flights.get(key);
      if (other === undefined) {
        const flight = this.#refresh(key, refresh, settled, until);
        this.#flights.set(key, flight);
        try {
          return (await flight).found?.state;
        } finally {
          if (this.#flights.get(key) === flight) this.#flights.delete(key);
        }
      }
      // One in this process is at it: its success is ours too, and so is its failure.
      const { found: theirs, refreshed } = await this.#within(other, until);
      if (refreshed) return theirs && stateOf(theirs.text);
    }
  }

  async #within(promise, until) {
    const stop = new AbortController();
    const tooLong = sleep(Math.max(until - performance.now(), 1), undefined, { signal: stop.signal })
      .then(() => { throw new CounterfoilError('the refresh under way took longer than wait', 'TIMEOUT'); });
    tooLong.catch(() => {});
    try {
      return await Promise.race([promise, tooLong]);
    } finally {
      stop.abort();
    }
  }

  async #refresh(key, refresh, settled, until) {
    let found;
    const look = async () => settled(found = await this.#read(key));
    const held = await this.#hold(key, until, look);
    if (held === undefined) return { found, refreshed: false };
    try {
      if (await look()) return { found, refreshed: false };
      let next;
      try {
        next = textOf(await refresh(stateOf(found.text)));
      } catch (error) {
        // Perhaps because the lease was over, and another has used the refresh token up and saved what it got.
        const now = await this.#read(key).catch(() => found);
        if (now?.text === found.text) throw error;
        return { found: now, refreshed: now !== undefined };
      }
      if (await this.#save(key, found.text, next)) return { found: { text: next, state: stateOf(next) }, refreshed: true };
      return { found: await this.#read(key), refreshed: true }; // what is there is newer
    } finally {
      await this.#give(held);
    }
  }

  async close() { if (this.#ours) await this.#store.close(); }
}

/** Makes a client of @mirohq/miro-api refresh by refreshOnce. Its own methods do the rest, on a stand-in that keeps what they would set. */
function singleFlight(miro) {
  const { storage, getToken } = miro ?? {};
  if (typeof getToken !== 'function' || typeof miro.getAccessToken !== 'function') throw invalid('singleFlight takes a client of @mirohq/miro-api');
  if (!(storage instanceof MiroStorage)) throw invalid('singleFlight takes a client whose storage is a MiroStorage');
  if (miro[FLIGHT]) return miro;

  const ask = async (userId, params) => {
    let state;
    const standIn = Object.create(miro, { storage: { value: { get: (id) => storage.get(id), set: (_id, next) => { state = next; } } } });
    await getToken.call(standIn, userId, params);
    return state;
  };
  const once = async (userId, params) => {
    if (params?.grant_type !== 'refresh_token') {
      const state = await ask(userId, params);
      await storage.set(userId, state); // a login that was not stored is none
      return state?.accessToken;
    }
    const state = await storage.refreshOnce(userId, (old) => ask(userId, { ...params, refresh_token: old.refreshToken }));
    return state === undefined ? miro.getAccessToken(userId) : state.accessToken; // it was revoked meanwhile: the client says so
  };
  Object.defineProperty(miro, 'getToken', { value: once, configurable: true, writable: true, enumerable: false });
  Object.defineProperty(miro, FLIGHT, { value: true });
  return miro;
}

module.exports = { MiroStorage, singleFlight };
