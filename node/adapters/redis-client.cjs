'use strict';

// A backend over a Redis client that the application has: node-redis (4 and later; also its cluster) or ioredis (also its Cluster). The client stays the
// application's: it is neither connected nor closed here, and what it throws arrives as it is.

const { Backend } = require('../backend.cjs');
const { invalid } = require('../errors.cjs');

/** Both understand commands as plain arguments; nothing else of them is used, so their versions do not matter. */
function runner(client) {
  if (typeof client !== 'object' && typeof client !== 'function') throw invalid('client must be a client of redis (node-redis) 4 or later, or of ioredis');
  if (typeof client?.call === 'function' && typeof client.status === 'string') return (...args) => client.call(...args); // ioredis
  // node-redis. Its cluster must be told the key, and whether the command only reads; this one has no single connection to be open.
  if (typeof client?.sendCommand === 'function' && typeof client.isOpen === 'boolean') return (...args) => client.sendCommand(args);
  if (typeof client?.sendCommand === 'function' && typeof client.nodeClient === 'function') {
    return (...args) => client.sendCommand(args[0] === 'EVAL' ? args[3] : args[1], false, args);
  }
  throw invalid('client must be a client of redis (node-redis) 4 or later, not in legacyMode, or of ioredis');
}

const SET_EQUAL = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1`;

const POP = `
local value = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return value`;

/** Redis keeps a key through the millisecond of its expiry; here a value is absent then. It knows no life below one. */
const milliseconds = (ttl) => String(Math.max(1, Math.round(ttl * 1000) - 1));
const life = (ttl) => (ttl === undefined ? [] : ['PX', milliseconds(ttl)]);
/** A client may be set up to give Buffers. */
const text = (value) => (Buffer.isBuffer(value) ? value.toString() : value);

class ClientBackend extends Backend {
  #run;
  #scanCount;

  constructor(client, scanCount = undefined) {
    super();
    this.#run = runner(client);
    this.#scanCount = scanCount;
  }

  async get(key) { return text(await this.#run('GET', key)); }

  set(key, value, ttl) { return this.#run('SET', key, value, ...life(ttl)); }

  async delete(key) { return Number(await this.#run('DEL', key)) > 0; }

  async pop(key) { return text(await this.#run('EVAL', POP, '1', key)); }

  async touch(key, ttl) { return Number(await this.#run('PEXPIRE', key, milliseconds(ttl))) > 0; }

  async setIf(key, value, ttl, condition, expected) {
    if (condition === 'equal') {
      return Number(await this.#run('EVAL', SET_EQUAL, '1', key, expected, value, ...life(ttl).slice(1))) === 1;
    }
    return text(await this.#run('SET', key, value, ...life(ttl), condition === 'absent' ? 'NX' : 'XX')) === 'OK';
  }

  /** Of one server: a cluster has no scan of all its keys. */
  async scan(prefix, cursor, limit) {
    const pattern = `${prefix.replace(/[*?[\]\\]/g, '\\$&')}*`;
    const [next, keys] = await this.#run('SCAN', cursor ?? '0', 'MATCH', pattern, 'COUNT', String(this.#scanCount ?? limit));
    const end = String(text(next));
    return { keys: keys.map(text), cursor: end === '0' ? undefined : end };
  }
}

module.exports = { ClientBackend };
