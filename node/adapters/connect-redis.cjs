'use strict';

// connect-redis, by its options and its exports of version 6 to 10: a store for express-session over whatever a URL names, or over the Redis client that
// the application has.

const { CounterfoilStore } = require('./express-session.cjs');
const { ClientBackend } = require('./redis-client.cjs');
const { invalid } = require('../errors.cjs');

const WHERE = ['client', 'url', 'host', 'socket', 'store', 'backend'];
const OF_HOST = ['port', 'db', 'pass', 'password', 'username'];
const GONE = {
  logErrors: 'the errors of a client are told by the client, and of each call to its callback',
  unref: 'a store keeps no process alive',
};

/** The URL of what the guides of connect-redis 3 and older say in options. */
function urlOf({ host = 'localhost', port = 6379, socket, db = 0, pass, password = pass, username }) {
  for (const [name, value] of Object.entries({ host, socket, pass, password, username })) {
    if (value !== undefined && (typeof value !== 'string' || value === '')) throw invalid(`${name} must be a string that is not empty`);
  }
  if (!/^\d+$/.test(port) || !(port >= 1 && port <= 65535)) throw invalid('port must be a whole number from 1 to 65535');
  if (!/^\d+$/.test(db)) throw invalid('db must be a whole number');
  if (username !== undefined && password === undefined) throw invalid('username needs a password');
  const user = password === undefined ? '' : `${encodeURIComponent(username ?? '')}:${encodeURIComponent(password)}@`;
  if (socket !== undefined) {
    if (!socket.startsWith('/')) throw invalid('socket must be an absolute path');
    return `redis+unix://${user}${encodeURI(socket).replace(/[?#]/g, encodeURIComponent)}?db=${db}`;
  }
  if (/[/?#@\s]/.test(host)) throw invalid('host must be a name or an address (a URL is given as url)');
  return `redis://${user}${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}/${db}`;
}

/** What CounterfoilStore is given, and what the store shows of itself as connect-redis does. */
function settingsOf(options) {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object: { client } or { url }');
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));
  for (const [name, why] of Object.entries(GONE)) {
    if (name in given) throw invalid(`there is no option ${name}: ${why}`);
  }
  const { client, scanCount = 100, host, port, socket, db, pass, password, username, ...rest } = given;
  const where = WHERE.filter((name) => name in given);
  if (where.length === 0 && !OF_HOST.some((name) => name in given)) throw invalid('give a client, or a url, as connect-redis has wanted since version 4');
  if (where.length > 1) throw invalid(`give one of ${where.join(', ')}`);
  const hosted = where.length === 0 || where[0] === 'host' || where[0] === 'socket';
  for (const name of OF_HOST) {
    if (name in given && !hosted) throw invalid(`${name} belongs to ${where[0] === 'url' ? 'the url: it goes into it' : `the ${where[0]} that is given`}`);
  }
  if (!Number.isSafeInteger(scanCount) || scanCount < 0) throw invalid('scanCount must be a whole number');
  if (client !== undefined) {
    if ('userOf' in given) throw invalid('userOf needs records, which are not kept over a client: give the url of the server instead');
    rest.backend = new ClientBackend(client, scanCount || 100);
  } else if (hosted) {
    rest.url = urlOf({ host, port, socket, db, pass, password, username });
  }
  const { prefix = 'sess:', serializer = JSON, disableTTL = false, disableTouch = false } = rest;
  return { rest, shown: { client, prefix, scanCount: scanCount || 100, serializer, ttl: rest.ttl || 86400, disableTTL, disableTouch } };
}

class Store extends CounterfoilStore {
  constructor(options) {
    const { rest, shown } = settingsOf(options);
    super(rest);
    // To be read: they decide nothing any more. Not enumerable, because a log of a client may show its password.
    for (const [name, value] of Object.entries(shown)) Object.defineProperty(this, name, { value });
  }

  /** As many as ids() gives: each once, also where SCAN says one twice. */
  length(callback) {
    if (typeof callback !== 'function') return this.ids().then((ids) => ids.length);
    return this.ids((error, ids) => callback(error, ids?.length));
  }
}

/** Version 6: called with express-session it gives the class, which has found express-session by itself. */
function calledWith(session) {
  if (typeof session?.Store !== 'function') throw invalid('RedisStore is made with new, or called with express-session as in connect-redis 6');
  return RedisStore;
}

const RedisStore = new Proxy(Store, { apply: (target, self, [session]) => calledWith(session) });
Object.defineProperty(Store, 'name', { value: 'RedisStore' });
Object.defineProperty(Store.prototype, 'constructor', { value: RedisStore, configurable: true, writable: true });

module.exports = RedisStore; // version 6
module.exports.default = RedisStore; // 7
module.exports.RedisStore = RedisStore; // from 8
