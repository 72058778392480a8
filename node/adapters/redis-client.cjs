'use strict';

// A backend over the Redis client that an application has already: node-redis 4 and newer (also its cluster and pool), ioredis (also its cluster), and
// clients with callbacks (node-redis 3). The named commands of each, not a raw one: so a keyPrefix of the client holds as it does for the application's
// own commands. The client stays the application's: it is neither connected nor closed here, and what it throws arrives as it is.

const { invalid } = require('../errors.cjs');

const POP = `
local value = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return value`;
const SET_EQUAL = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1`;

/** Redis keeps a key through the millisecond of its expiry; here a value is absent then. It knows no life below one. */
const milliseconds = (ttl) => Math.max(1, Math.round(ttl * 1000) - 1);
const life = (ttl) => (ttl === undefined ? undefined : milliseconds(ttl));
/** A client may be set up to give Buffers, which the core takes as values; keys are strings. */
const text = (value) => (Buffer.isBuffer(value) ? value.toString() : value);

/** node-redis 4 and newer: `pExpire`, and options as objects. */
const camel = (client) => ({
  get: (key) => client.get(key),
  set: (key, value, ms, flag) => client.set(key, value, { ...(ms && { PX: ms }), ...(flag && { [flag]: true }) }),
  delete: (key) => client.del(key),
  expire: (key, ms) => client.pExpire(key, ms),
  run: (script, key, ...args) => client.eval(script, { keys: [key], arguments: args }),
  nodes: () => client.masters ?? [client],
  scan: async (node, cursor, MATCH, COUNT) => (node === client ? client : await client.nodeClient(node)).scan(cursor, { MATCH, COUNT }),
});

/** ioredis, and clients with callbacks: `pexpire`, and one argument after the other. Both understand a callback. */
function lower(client) {
  const call = (on, name, ...args) => new Promise((resolve, reject) => on[name](...args, (error, reply) => (error ? reject(error) : resolve(reply))));
  return {
    get: (key) => call(client, 'get', key),
    set: (key, value, ms, flag) => call(client, 'set', key, value, ...(ms ? ['PX', ms] : []), ...(flag ? [flag] : [])),
    delete: (key) => call(client, 'del', key),
    expire: (key, ms) => call(client, 'pexpire', key, ms),
    run: (script, key, ...args) => call(client, 'eval', script, 1, key, ...args),
    nodes: () => (client.isCluster === true ? client.nodes('master') : [client]),
    scan: async (node, at, match, count) => {
      const [cursor, keys] = await call(node, 'scan', at, 'MATCH', match, 'COUNT', count);
      return { cursor, keys };
    },
  };
}

function dialectOf(client) {
  if (typeof client?.then === 'function') throw invalid('client must be the client itself: this is a promise (await it, or keep what createClient() gave)');
  if (typeof client === 'object' && client !== null) {
    if (client.options?.legacyMode === true && client.v4) return camel(client.v4); // node-redis 4 beside a program that wants callbacks
    if (typeof client.pExpire === 'function') return camel(client);
    if (typeof client.pexpire === 'function') return lower(client);
  }
  throw invalid('client must be a client of redis (node-redis) or of ioredis');
}

class ClientBackend {
  #client;
  #redis;
  #scanCount;

  /** `scanCount`: keys for one step of a SCAN; without it what the core asks for. */
  constructor(client, scanCount = undefined) {
    this.#redis = dialectOf(client);
    this.#client = client;
    this.#scanCount = scanCount;
  }

  get(key) { return this.#redis.get(key); }

  set(key, value, ttl) { return this.#redis.set(key, value, life(ttl)); }

  async delete(key) { return Number(await this.#redis.delete(key)) > 0; }

  pop(key) { return this.#redis.run(POP, key); }

  async touch(key, ttl) { return Number(await this.#redis.expire(key, milliseconds(ttl))) > 0; } // a boolean in node-redis 4

  async setIf(key, value, ttl, condition, expected) {
    const ms = life(ttl);
    if (condition !== 'equal') return (await this.#redis.set(key, value, ms, condition === 'absent' ? 'NX' : 'XX')) !== null;
    return Number(await this.#redis.run(SET_EQUAL, key, expected, value, ...(ms ? [String(ms)] : []))) === 1;
  }

  /** One step of SCAN; the masters of a cluster one after the other. The cursor says which, too. */
  async scan(prefix, cursor = '0:0', limit) {
    const before = this.#client.options?.keyPrefix ?? ''; // SCAN is the one command where clients leave it to their caller
    const [index, at] = cursor.split(':');
    const nodes = this.#redis.nodes();
    const node = nodes[index];
    if (node === undefined) return { keys: [] }; // the cluster has become smaller
    const page = await this.#redis.scan(node, at, `${(before + prefix).replace(/[*?[\]\\]/g, '\\$&')}*`, this.#scanCount ?? limit);
    const keys = page.keys.map((key) => text(key).slice(before.length));
    const next = String(text(page.cursor));
    if (next !== '0') return { keys, cursor: `${index}:${next}` };
    return { keys, cursor: Number(index) + 1 < nodes.length ? `${Number(index) + 1}:0` : undefined };
  }
}

module.exports = { ClientBackend };
