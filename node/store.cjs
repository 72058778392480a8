'use strict';

const { EventEmitter } = require('node:events');
const { types, inspect } = require('node:util');

const { native, promised, nextTick } = require('./native.cjs');
const { invalid, CounterfoilError } = require('./errors.cjs');
const { openBackend } = require('./host.cjs');
const { atRest } = require('./at_rest.cjs');
const { nativeOf } = require('./stage.cjs');

const FLAGS = { ifAbsent: native.IF_ABSENT, ifPresent: native.IF_PRESENT, keepTtl: native.KEEP_TTL };
const RECEIPT = ['receipt'];
const INCR_OPTIONS = ['ttl', 'receipt'];
const DEFAULT_TIMEOUT = 5;
/** Reads of one getMany under way at once: enough to fill a connection, and few beside what may wait for one (maxPending). */
const TOGETHER = 1000;
const ours = Symbol('open'); // only open() makes stores
/** The native half's numbers of events are places in this list. */
const EVENTS = ['connect', 'disconnect', 'error', 'warning'];

/** Warnings that nobody listened to: the process is told each of them once, however many stores it has. */
const warned = new Set();

/** The native half of a Store, for the interfaces; INVALID for anything else. */
let handleOf;
/** Something happened to a store's connection. */
let tell;

class Store extends EventEmitter {
  #handle;
  #closed; // a promise of the backend's own close(), when it is written in JavaScript
  #timeout;
  #closing;

  static {
    tell = (store, event, what) => store.#tell(EVENTS[event], what);
    handleOf = (store) => {
      if (typeof store !== 'object' || store === null || !(#handle in store)) throw invalid('the store must be one that open() gave');
      return store.#handle;
    };
  }

  constructor(key, handle, closed, timeout) {
    if (key !== ours) throw new TypeError('stores are made by open()');
    super();
    this.#handle = handle;
    this.#closed = closed;
    this.#timeout = timeout;
  }

  // One native call per operation. It gives a value when the operation is done, null when it is pending, and throws when it failed; a
  // method gives a promise in every case.

  get(key) {
    try { return promised(this.#handle.get(key)); } catch (error) { return Promise.reject(error); }
  }

  getBuffer(key) {
    try { return promised(this.#handle.getBuffer(key)); } catch (error) { return Promise.reject(error); }
  }

  set(key, value, options) {
    try {
      if (options === undefined) return promised(this.#handle.set(key, value));
      const { flags, ttl, expiresAt, ifEqual, receipt } = setOptions(options);
      return promised(this.#handle.set(key, value, flags, ttl, expiresAt, ifEqual, receipt));
    } catch (error) { return Promise.reject(error); }
  }

  delete(key) {
    try { return promised(this.#handle.delete(key)); } catch (error) { return Promise.reject(error); }
  }

  pop(key, options) {
    try {
      if (options === undefined) return promised(this.#handle.pop(key));
      return promised(this.#handle.pop(key, known(options, RECEIPT).receipt));
    } catch (error) { return Promise.reject(error); }
  }

  popBuffer(key, options) {
    try {
      if (options === undefined) return promised(this.#handle.popBuffer(key));
      return promised(this.#handle.popBuffer(key, known(options, RECEIPT).receipt));
    } catch (error) { return Promise.reject(error); }
  }

  touch(key, ttl) {
    try { return promised(this.#handle.touch(key, ttl)); } catch (error) { return Promise.reject(error); }
  }

  incr(key, by = 1, options = undefined) {
    try {
      if (options === undefined) return promised(this.#handle.incr(key, by));
      const { ttl, receipt } = known(options, INCR_OPTIONS);
      return promised(this.#handle.incr(key, by, ttl, receipt));
    } catch (error) { return Promise.reject(error); }
  }

  async *scan(prefix = '') {
    let cursor;
    do {
      const page = await promised(this.#handle.scan(prefix, cursor));
      cursor = page.pop();
      yield* page;
    } while (cursor !== undefined);
  }

  reseal(prefix = '') { return sweep((cursor) => this.#handle.reseal(prefix, cursor)); }

  async getMany(keys) {
    if (typeof keys === 'string' || typeof keys?.[Symbol.iterator] !== 'function') throw invalid('keys must be an iterable of strings');
    const wanted = [...new Set(keys)], values = [];
    for (let i = 0; i < wanted.length; i += TOGETHER) {
      values.push(...(await Promise.all(wanted.slice(i, i + TOGETHER).map((key) => this.get(key)))));
    }
    return new Map(wanted.map((key, i) => [key, values[i]]));
  }

  count(prefix = '') {
    try { return promised(this.#handle.count(prefix)); } catch (error) { return Promise.reject(error); }
  }

  clear(prefix = '', options = {}) {
    try {
      const { force = false } = known(options, ['force']);
      if (typeof force !== 'boolean') throw invalid('force must be true or false');
      return promised(this.#handle.clear(prefix, force));
    } catch (error) { return Promise.reject(error); }
  }

  stats() {
    try { return promised(this.#handle.stats()).then(figures); } catch (error) { return Promise.reject(error); }
  }

  close() {
    if (this.#closing === undefined) {
      this.#closing = this.#close();
      const closed = () => nextTick(() => this.emit('close'));
      this.#closing.then(closed, closed);
    }
    return this.#closing;
  }

  async #close() {
    this.#handle.close();
    if (this.#closed === undefined) return;
    // The backend's close() may be a promise that never settles; like every call into it, it has a deadline.
    let timer;
    const deadline = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new CounterfoilError('close() of the backend did not settle in time', 'TIMEOUT', 'unknown')), this.#timeout * 1000);
    });
    try {
      await Promise.race([this.#closed, deadline]);
    } finally {
      clearTimeout(timer);
    }
  }

  #tell(event, what) {
    if (event === 'error' && this.listenerCount('error') === 0) return; // the next attempt follows by itself: no reason to end the process
    if (event === 'warning' && this.listenerCount('warning') === 0) {
      if (warned.has(what)) return;
      warned.add(what);
      process.emitWarning(what, 'CounterfoilWarning');
      return;
    }
    this.emit(event, what);
  }

  // What a store holds is nobody's business in a log.
  toJSON() { return {}; }
  [inspect.custom]() { return this.#closing === undefined ? 'Store { open }' : 'Store { closed }'; }
}

if (Symbol.asyncDispose !== undefined) {
  Object.defineProperty(Store.prototype, Symbol.asyncDispose, { value() { return this.close(); }, configurable: true, writable: true });
}

/**
 * Some methods of a store, for an adapter whose callers have callbacks: the answer itself where it is there at once, a promise only where there
 * is something to wait for. What fails at once is thrown. A method that the application has put in the place of the store's is called instead.
 */
function straight(store) {
  const handle = handleOf(store);
  const { get, set, touch } = Store.prototype;
  const given = (result) => (result === null ? promised(null) : result);
  return {
    get: (key) => (store.get === get ? given(handle.get(key)) : store.get(key)),
    set: (key, value, options) => {
      if (store.set !== set) return store.set(key, value, options);
      const { flags, ttl } = setOptions(options);
      return given(handle.set(key, value, flags, ttl));
    },
    touch: (key, ttl) => (store.touch === touch ? given(handle.touch(key, ttl)) : store.touch(key, ttl)),
  };
}

/** All pages of a sweep, one for each step: `page` begins the one at a cursor. */
async function* sweep(page) {
  let sealed = 0, unreadable = 0, anew, broken, cursor;
  do {
    [anew, broken, cursor] = await promised(page(cursor));
    sealed += anew;
    unreadable += broken;
    yield { sealed, unreadable };
  } while (cursor !== undefined);
}

/** The options, if they are an object with nothing but these names in it. */
function known(options, names) {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw invalid(`unknown option: ${name} (known: ${names.join(', ')})`);
  }
  return options;
}

function setOptions(options) {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
  let flags = 0, ttl, expiresAt, ifEqual, receipt;
  for (const name of Object.keys(options)) {
    const value = options[name];
    switch (name) {
      case 'ttl':
        if (value === undefined) break;
        ttl = value;
        flags |= native.TTL;
        break;
      case 'expiresAt':
        if (value === undefined) break;
        if (!types.isDate(value) || Number.isNaN(value.getTime())) throw invalid('expiresAt must be a valid Date');
        expiresAt = value.getTime() / 1000;
        flags |= native.EXPIRES_AT;
        break;
      case 'ifEqual':
        if (value === undefined) break;
        ifEqual = value;
        flags |= native.IF_EQUAL;
        break;
      case 'receipt':
        receipt = value;
        break;
      case 'ifAbsent':
      case 'ifPresent':
      case 'keepTtl':
        if (value === true) flags |= FLAGS[name];
        else if (value !== false && value !== undefined) throw invalid(`${name} must be true or false`);
        break;
      default:
        throw invalid(`unknown option: ${name} (known: ttl, expiresAt, keepTtl, ifAbsent, ifPresent, ifEqual, receipt)`);
    }
  }
  return { flags, ttl, expiresAt, ifEqual, receipt };
}

/** The figures by their names here: bytes_sent is bytesSent, and the histogram of round trips is one object, us_64 its 64. */
function figures(given) {
  const result = {};
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith('us_')) (result.latencyUs ??= {})[name.slice(3)] = value;
    else result[name.replace(/_[a-z]/g, (pair) => pair[1].toUpperCase())] = value;
  }
  return result;
}

/** As Python has ours. */
const SNAKES = new Map([['seal_values', 'sealValues'], ['hash_keys', 'hashKeys'], ['plain_until', 'plainUntil']]);

/** Options that are not ours are the URL's: maxEntries: 3 is ?max_entries=3. Which there are, the backend knows. */
function withUrlOptions(url, options) {
  let result = url;
  let separator = url.includes('?') ? '&' : '?';
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    if (SNAKES.has(name)) throw invalid(`option ${name} is written ${SNAKES.get(name)}`);
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean' && typeof value !== 'bigint') {
      throw invalid(`option ${name} must be a string, a number or a boolean (a file is given by its path)`);
    }
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : value;
    if (name.startsWith('tls') && /-----BEGIN /.test(text)) throw invalid(`option ${name} must be the path of a PEM file, not what is in it`);
    const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    try {
      result += `${separator}${encodeURIComponent(snake)}=${encodeURIComponent(text)}`;
    } catch {
      throw invalid(`option ${name} has a lone surrogate, which is not text`);
    }
    separator = '&';
  }
  return result;
}

function open(urlOrBackend, options = {}) {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
  const { prefix, ttl, timeout, stage, keys, sealValues, hashKeys, plainUntil, ...more } = options;
  const staged = stage === undefined ? undefined : nativeOf(stage);
  if (stage !== undefined && staged === undefined) throw invalid('stage must be a Stage of counterfoil/testing');
  const rest = atRest(keys, sealValues, hashKeys, plainUntil);
  try {
    return openAs(urlOrBackend, prefix, ttl, timeout, staged, more, rest);
  } finally {
    rest.ring?.fill(0);
  }
}

function openAs(urlOrBackend, prefix, ttl, timeout, staged, more, rest) {
  if (typeof urlOrBackend === 'string') {
    // At the end of the tick: what a listener throws is then nobody's but the process's, and the others are told nevertheless.
    const listener = (event, what) => nextTick(tell, store, event, what);
    const handle = new native.Handle(withUrlOptions(urlOrBackend, more), undefined, undefined, prefix, ttl, timeout, staged, listener, rest.ring, rest.flags, rest.until);
    const store = new Store(ours, handle, undefined, timeout);
    return store;
  }
  if (typeof urlOrBackend === 'function') throw invalid('open() takes a backend object: an instance of this class, not the class');
  if (typeof urlOrBackend !== 'object' || urlOrBackend === null) throw invalid('open() takes a URL or a backend object');
  if (urlOrBackend instanceof URL) throw invalid('open() takes the URL as a string: its href');
  for (const name of Object.keys(more)) throw invalid(`unknown option: ${name} (with a backend object: prefix, ttl, timeout, stage, keys, sealValues, hashKeys, plainUntil)`);
  const { handle, closed } = openBackend(urlOrBackend, prefix, ttl, timeout, staged, rest);
  return new Store(ours, handle, closed, timeout ?? DEFAULT_TIMEOUT);
}

module.exports = { Store, open, handleOf, known, sweep, straight };
