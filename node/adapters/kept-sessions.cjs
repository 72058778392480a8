'use strict';

// What the adapters for Curveball and FluidAuth have in common: sessions as JSON under their ids, which end by the store's ttl and, once ended, stay so.

const { CounterfoilError } = require('../index.cjs');
const { invalid } = require('../errors.cjs');
const { OPEN_OPTIONS, NOT_IN_KEYS, isObject, checkPlace, openPlace } = require('./place.cjs');

const LONGEST = 3650 * 86400; // the core's limit for a ttl
const MOST = 1024; // bytes of a key
const OPTIONS = ['store', 'url', 'backend', 'prefix', 'saveEnded', ...OPEN_OPTIONS];
const SAVE_ENDED = ['ignore', 'error', 'create'];

class KeptSessions {
  #store;
  #ours;
  #prefix;
  #saveEnded;
  #mayUpsert = false; // the backend has no conditions, and nobody insisted

  /** `prefix`: what stands before the ids where the options do not say. */
  constructor(options, prefix) {
    const { store, url, backend, prefix: given = prefix, saveEnded, ...rest } = options;
    const place = { store, url, backend, prefix: given };
    checkPlace(place, rest);
    if (saveEnded !== undefined && !SAVE_ENDED.includes(saveEnded)) throw invalid('saveEnded must be "ignore", "error" or "create"');
    this.#prefix = given;
    this.#saveEnded = saveEnded;
    this.#store = openPlace(place, rest);
    this.#ours = store === undefined;
  }

  get store() { return this.#store; }

  /** The key of an id; undefined for what can be none: ids come out of cookies, and anything may stand in them. */
  #keyOf(id) {
    if (typeof id !== 'string' || id === '' || NOT_IN_KEYS.test(id)) return undefined;
    const key = this.#prefix + id;
    return Buffer.byteLength(key) <= MOST ? key : undefined;
  }

  #key(id) {
    const key = this.#keyOf(id);
    if (key === undefined) throw invalid('the session id must be a string that can be a key: 1 to 1024 bytes with the prefix, without NUL, line breaks and lone surrogates');
    return key;
  }

  /** The object that is kept, as a copy; null when there is none. */
  async read(id) {
    const key = this.#keyOf(id);
    const text = key === undefined ? undefined : await this.#store.get(key);
    if (text === undefined) return null;
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new CounterfoilError('the stored session is not JSON', 'CORRUPT'); // the engine's sentence would show a piece of it
    }
    if (!isObject(value)) throw new CounterfoilError('the stored session is not an object', 'CORRUPT');
    return value;
  }

  /** Stores, whatever is there. Not above 0 milliseconds: it has ended already, so nothing is there then. */
  async write(id, value, left) {
    const key = this.#key(id);
    const text = this.#text(value);
    if (left > 0) await this.#store.set(key, text, this.#ttl(left));
    else await this.#store.delete(key);
  }

  /** Stores where nothing is; false: something is. */
  async add(id, value, left) {
    const key = this.#key(id);
    const text = this.#text(value);
    if (left > 0) {
      try {
        return await this.#store.set(key, text, { ...this.#ttl(left), ifAbsent: true });
      } catch (error) {
        if (error?.code !== 'NOT_SUPPORTED') throw error;
      }
    }
    if ((await this.#store.get(key)) !== undefined) return false;
    if (left > 0) await this.#store.set(key, text, this.#ttl(left));
    return true;
  }

  /** Stores in the place of what is there. What becomes of it where nothing is any more, saveEnded says. */
  async replace(id, value, left) {
    if (!(left > 0) || this.#saveEnded === 'create' || this.#mayUpsert) {
      await this.write(id, value, left);
      return;
    }
    const key = this.#key(id);
    const text = this.#text(value);
    try {
      if (await this.#store.set(key, text, { ...this.#ttl(left), ifPresent: true })) return;
    } catch (error) {
      if (this.#saveEnded !== undefined || error?.code !== 'NOT_SUPPORTED') throw error;
      this.#mayUpsert = true;
      await this.write(id, value, left);
      return;
    }
    if (this.#saveEnded === 'error') throw new CounterfoilError('the session has ended since it was loaded: nothing was saved', 'ENDED');
  }

  /** Ends it; that it is not there is no error. */
  async remove(id) {
    const key = this.#keyOf(id);
    if (key !== undefined) await this.#store.delete(key);
  }

  /** Closes the store if it was opened here. */
  async close() {
    if (this.#ours) await this.#store.close();
  }

  #ttl(left) {
    return { ttl: Math.min(left / 1000, LONGEST) };
  }

  #text(value) {
    try {
      return JSON.stringify(value);
    } catch {
      // Not as the cause: the engine's sentence shows property names of the session.
      throw invalid('the session cannot be written as JSON');
    }
  }
}

module.exports = { KeptSessions, OPTIONS };
