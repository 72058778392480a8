'use strict';

// A session store for Curveball over any backend, and one with the options of @curveball/session-redis.

const { randomBytes } = require('node:crypto');
const { promisify } = require('node:util');

const { open } = require('../index.cjs');
const { invalid } = require('../errors.cjs');
const { KeptSessions, OPTIONS } = require('./kept-sessions.cjs');
const { checkedOptions, isObject } = require('./place.cjs');
const { ClientBackend } = require('./redis-client.cjs');

const random = promisify(randomBytes);
const IN_SECONDS = 1e11; // the year 5138; what is beyond was meant in milliseconds

class SessionStore {
  #kept;
  /** Object that get() gave -> the id that it was read under. The middleware gives it back to set(). */
  #read = new WeakMap();

  constructor(options = {}) {
    this.#kept = new KeptSessions(checkedOptions(options, OPTIONS), 'session-');
  }

  async set(id, values, expire) {
    if (!isObject(values)) throw invalid('the session values must be an object');
    if (typeof expire !== 'number' || Number.isNaN(expire)) throw invalid('expire must be a number of seconds since 1970');
    if (expire > IN_SECONDS && expire !== Infinity) throw invalid('expire must be in seconds since 1970, not in milliseconds');
    // Curveball compares whole seconds: a session is there through the second in which it expires.
    const left = (Math.floor(expire) + 1) * 1000 - Date.now();
    if (this.#read.get(values) === id) await this.#kept.replace(id, values, left);
    else await this.#kept.write(id, values, left);
  }

  async get(id) {
    const values = await this.#kept.read(id);
    if (values !== null) this.#read.set(values, id);
    return values;
  }

  async delete(id) {
    await this.#kept.remove(id);
  }

  async newSessionId() {
    return (await random(32)).toString('base64');
  }

  /** Closes the store if it was opened here. */
  async close() {
    await this.#kept.close();
  }
}

// What a client that is ours has of its own, or needs not: it reconnects by itself, and so on.
const CONNECTION = ['disableClientInfo', 'clientInfoTag', 'pingInterval'];
const SOCKET_CONNECTION = ['keepAlive', 'keepAliveInitialDelay', 'noDelay', 'reconnectStrategy'];
const CLIENT_OPTIONS = ['url', 'socket', 'host', 'port', 'path', 'tls', 'username', 'user', 'password', 'database', 'db', 'name', ...CONNECTION];
const SOCKET_OPTIONS = ['host', 'port', 'path', 'tls', 'servername', 'connectTimeout', ...SOCKET_CONNECTION];
const INSTEAD = 'give the store a url (?tls_ca= and so on are options of it), or a client of your own';

function knownIn(options, names, what) {
  if (!isObject(options)) throw invalid(`${what} must be an object`);
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined && !names.includes(name)) throw invalid(`${what}.${name} is not served: ${INSTEAD}`);
  }
  return options;
}

function typed(value, type, name) {
  if (value !== undefined && typeof value !== type) throw invalid(`${name} must be a ${type}`);
  return value;
}

/** The options of node-redis (socket), and of its versions before 4, as a URL and options for open(). */
function urlOf(clientOptions) {
  const given = knownIn(clientOptions, CLIENT_OPTIONS, 'clientOptions');
  const socket = knownIn(given.socket ?? {}, SOCKET_OPTIONS, 'clientOptions.socket');
  const user = typed(given.username ?? given.user, 'string', 'clientOptions.username');
  const password = typed(given.password, 'string', 'clientOptions.password');
  const db = typed(given.database ?? given.db, 'number', 'clientOptions.database');
  const options = { name: typed(given.name, 'string', 'clientOptions.name') };
  const tls = typed(socket.tls ?? given.tls, 'boolean', 'clientOptions.socket.tls') ?? false;
  options.tlsServerName = typed(socket.servername, 'string', 'clientOptions.socket.servername');
  const patience = typed(socket.connectTimeout, 'number', 'clientOptions.socket.connectTimeout');
  if (patience !== undefined && !(patience > 0)) throw invalid('clientOptions.socket.connectTimeout must be a number of milliseconds above 0');
  if (patience !== undefined) options.connectTimeout = patience / 1000;

  if (given.url !== undefined) {
    let url;
    try {
      url = new URL(typed(given.url, 'string', 'clientOptions.url'));
    } catch {
      throw invalid('clientOptions.url must be a redis: or rediss: URL'); // the engine's error has it in it, password and all
    }
    if (!['redis:', 'rediss:'].includes(url.protocol)) throw invalid('clientOptions.url must be a redis: or rediss: URL');
    if (tls && url.protocol === 'redis:') throw invalid('clientOptions.socket.tls is for a rediss: URL');
    // What the URL says counts, as in node-redis.
    const said = { auth: url.username !== '' || url.password !== '', db: /^\/./.test(url.pathname) };
    return { url: given.url, ...options, ...(said.auth ? {} : { user, password }), ...(said.db ? {} : { db }) };
  }
  const path = typed(socket.path ?? given.path, 'string', 'clientOptions.socket.path');
  if (path !== undefined) {
    if (!path.startsWith('/')) throw invalid('clientOptions.socket.path must be an absolute path');
    if (tls) throw invalid('clientOptions.socket.tls does not go with a path');
    return { url: `redis+unix://${path.split('/').map(encodeURIComponent).join('/')}`, ...options, user, password, db };
  }
  const host = typed(socket.host ?? given.host, 'string', 'clientOptions.socket.host') ?? 'localhost';
  const port = socket.port ?? given.port ?? 6379;
  if (!/^[\w.:-]+$/.test(host)) throw invalid('clientOptions.socket.host must be a host name or an address');
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw invalid('clientOptions.socket.port must be an integer from 1 to 65535');
  return { url: `${tls ? 'rediss' : 'redis'}://${host.includes(':') ? `[${host}]` : host}:${port}`, ...options, user, password, db };
}

class RedisStore extends SessionStore {
  #opened; // from clientOptions: ours to close

  constructor(options = {}) {
    const { client, clientOptions, prefix = 'session', ...rest } = checkedOptions(options, [...OPTIONS, 'client', 'clientOptions']);
    const ways = { client, clientOptions, store: rest.store, url: rest.url, backend: rest.backend };
    if (Object.values(ways).filter((one) => one !== undefined).length > 1) throw invalid('give one of client, clientOptions, store, url and backend');
    if (typeof prefix !== 'string') throw invalid('prefix must be a string');
    const named = { ...rest, prefix: `${prefix}-` };
    if (client !== undefined) {
      super({ ...named, backend: new ClientBackend(client) });
      Object.defineProperty(this, 'client', { value: client, configurable: true, writable: true, enumerable: false });
    } else if (rest.store !== undefined || rest.url !== undefined || rest.backend !== undefined) {
      super(named);
    } else {
      const { timeout, stage, keys, sealValues, hashKeys, plainUntil, ...others } = named;
      const { url, ...urlOptions } = urlOf(clientOptions ?? {});
      const store = open(url, { ...urlOptions, timeout, stage, keys, sealValues, hashKeys, plainUntil });
      try {
        super({ ...others, store });
      } catch (error) {
        store.close().catch(() => {});
        throw error;
      }
      this.#opened = store;
    }
  }

  async close() {
    await super.close();
    await this.#opened?.close();
  }
}

module.exports = { SessionStore, RedisStore };
