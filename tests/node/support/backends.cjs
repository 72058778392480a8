'use strict';

// The backends that every case is played over. Each line says how to open a store on a stage and what the backend has; a new
// backend is one more line. `clock`: its time is the stage's, so that a case can move it. `one_millisecond`:
// a life of one is exact (Redis ends a value when its last millisecond is over, and knows none shorter than one). `shared`: others have keys there too, so
// a case that is about everybody's keys is opened by `bare`, without a prefix, in a database that nobody else uses. `alone`: such can be had.

const { open, Backend, CounterfoilError } = require('counterfoil');
const { MapBackend } = require('../../../examples/js_backend.cjs');
const { openApart, openBare, ServerStage, realStage } = require('./redis.cjs');
const { openOnce } = require('./sqlite.cjs');

const ALL = ['pop', 'touch', 'incr', 'conditions', 'keep_ttl', 'scan', 'binary', 'clock', 'one_millisecond', 'alone'];
const RECORDS = [...ALL, 'records'];

/** A backend with every method, over a Map, on a stage's clock. `binary`: its values are Buffers. */
class FullBackend extends Backend {
  binary = true;
  keepsTtl = true;
  map = new Map();
  constructor(stage) {
    super();
    this.now = () => stage.now().getTime();
  }
  live(key) {
    const entry = this.map.get(key);
    if (entry === undefined || entry.expiry > this.now()) return entry;
    this.map.delete(key);
    return undefined;
  }
  expiry(ttl) { return ttl === undefined ? Infinity : this.now() + Math.round(ttl * 1000); }
  get(key) { return this.live(key)?.value; }
  set(key, value, ttl, newTtl) {
    this.map.set(key, { value, expiry: ttl === Backend.KEEP ? (this.live(key)?.expiry ?? this.expiry(newTtl)) : this.expiry(ttl) });
  }
  delete(key) { return this.live(key) !== undefined && this.map.delete(key); }
  pop(key) {
    const value = this.get(key);
    this.map.delete(key);
    return value;
  }
  touch(key, ttl) {
    const entry = this.live(key);
    if (entry === undefined) return false;
    entry.expiry = this.expiry(ttl);
    return true;
  }
  incr(key, by, ttl) {
    const entry = this.live(key);
    if (entry === undefined) {
      this.map.set(key, { value: Buffer.from(String(by)), expiry: this.expiry(ttl) });
      return by;
    }
    const text = entry.value.toString('latin1');
    const number = Number(text);
    if (String(number) !== text || Object.is(number, -0) || !Number.isSafeInteger(number) || !Number.isSafeInteger(number + by)) {
      throw new CounterfoilError('not a counter', 'INVALID');
    }
    entry.value = Buffer.from(String(number + by));
    return number + by;
  }
  setIf(key, value, ttl, condition, expected, newTtl) {
    const entry = this.live(key);
    const holds = condition === 'absent' ? entry === undefined : condition === 'present' ? entry !== undefined : entry?.value.equals(expected) === true;
    if (holds) this.set(key, value, ttl, newTtl);
    return holds;
  }
  scan(prefix, cursor = 0, limit) {
    // In the order of the keys: after the last one given, none is lost when others come or go.
    const keys = [...this.map.keys()].filter((key) => key.startsWith(prefix) && this.live(key) && (cursor === 0 || key > cursor)).sort();
    const page = keys.slice(0, limit);
    return { keys: page, cursor: keys.length > limit ? page.at(-1) : undefined };
  }
}

/** The same object with every method giving a promise. */
function promised(backend) {
  const methods = ['get', 'set', 'delete', 'pop', 'touch', 'incr', 'setIf', 'scan'];
  const result = { binary: true, keepsTtl: true };
  for (const name of methods) {
    // Half of them settle a turn of the event loop later, so both the microtask and the wake-up are travelled.
    let turn = 0;
    result[name] = async (...args) => {
      if (turn++ % 2 === 1) await new Promise((resolve) => setImmediate(resolve));
      return backend[name](...args);
    };
  }
  return result;
}

/** Only get, set and delete; the rest is derived. Text only, cannot scan, and no keep_ttl, hence no incr. */
function minimal(stage) {
  const full = new FullBackend(stage);
  return {
    singleProcess: true,
    get: (key) => full.get(key),
    set: (key, value, ttl) => full.set(key, Buffer.from(value), ttl),
    delete: (key) => full.delete(key),
  };
}

let number = 0;

const backends = [
  { name: 'memory, private', has: [...RECORDS, 'memory'], open: (options, query) => open(`memory:${query ? `?${query}` : ''}`, options) },
  { name: 'memory, shared', has: [...RECORDS, 'memory'], open: (options, query) => open(`memory:cases-${process.pid}-${number++}${query ? `?${query}` : ''}`, options) },
  { name: 'JavaScript, values', has: ALL, open: (options) => open(new FullBackend(options.stage), options) },
  { name: 'JavaScript, promises', has: ALL, open: (options) => open(promised(new FullBackend(options.stage)), options) },
  { name: 'JavaScript, three methods', has: ['pop', 'touch', 'conditions', 'clock', 'one_millisecond', 'records'], open: (options) => open(minimal(options.stage), options) },
  { name: 'JavaScript, examples/js_backend.cjs', has: RECORDS, open: (options) => open(new MapBackend(() => options.stage.now().getTime()), options) },
];

backends.push(
  { name: 'sqlite', has: RECORDS, file: true, open: (options) => openOnce(options) },
  { name: 'sqlite, alone', has: RECORDS, file: true, open: (options) => openOnce({ ...options, singleProcess: true, synchronous: 'normal' }) },
  { name: 'sqlite, in memory', has: RECORDS, open: (options) => open('sqlite::memory:', options) },
);

const ON_REDIS = RECORDS.filter((one) => one !== 'one_millisecond');
const redis = (name, which, has = ON_REDIS.filter((one) => one !== 'clock'), stage = realStage) => ({
  name, has, stage, shared: true,
  open: (options) => openApart(which, options),
  bare: (options) => openBare(which, options),
});

backends.push(
  redis('redis, on a staged clock', 'CLOCK', ON_REDIS, () => new ServerStage()),
  redis('redis', ''),
  redis('redis, unix socket', 'UNIX'),
  redis('redis, TLS', 'TLS'),
  redis('redis, ACL', 'ACL'),
  redis('redis, TLS and ACL', 'TLS_ACL'),
  redis('redis, Sentinel', 'SENTINEL_CLOCK', ON_REDIS, () => new ServerStage()),
  redis('redis, Cluster', 'CLUSTER_CLOCK', ON_REDIS.filter((one) => one !== 'alone'), () => new ServerStage()),
);

module.exports = { backends, FullBackend, promised, minimal };
