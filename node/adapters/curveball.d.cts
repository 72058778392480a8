import counterfoil = require('../index.cjs');
import testing = require('../testing.cjs');

/** What a session holds: what JSON can say comes back. */
export interface SessionValues {
  [name: string]: any;
}

/** At most one of `store`, `url` and `backend`; with none of them, `memory:`. */
export interface SessionStoreOptions {
  /** An open store. It stays yours: `close()` does not close it. */
  store?: counterfoil.Store;
  /** A URL for `open`. */
  url?: string;
  /** A backend of your own. */
  backend?: counterfoil.BackendMethods;
  /** Put before every session id, as it is. Default: `session-`, which is what @curveball/session-redis makes of its prefix `session`. */
  prefix?: string;
  /**
   * What becomes of the save of a session that has ended since this request read it: another request has deleted it, or it has expired. The middleware saves
   * every session that has data at the end of every request, so a request that is slower than a logout would bring the session back, and whoever has the old cookie
   * would be logged in again.
   *
   * - `ignore`, the default: nothing is stored, and the save succeeds
   * - `error`: nothing is stored, and the save, and so the request, fails with a `CounterfoilError` whose code is `ENDED`
   * - `create`: it is stored as if it were new, as in other stores
   *
   * The session is told by the object that `get` gave, which is `ctx.session`: change its properties. One that is replaced (`ctx.session = {...}`) is stored in
   * any case; a copy given to `set`, too. A session that a cap of `memory:` has evicted meanwhile has ended as well. On a backend of your own this needs conditions (`setIf`, or
   * `singleProcess: true`). Without them sessions are saved as with `create`, unless you set this option: then saves reject with `NOT_SUPPORTED`.
   */
  saveEnded?: 'ignore' | 'error' | 'create';
  /** Seconds that an operation may take; for `open`, not together with `store`. */
  timeout?: number;
  /** A stage for tests; for `open`, not together with `store`. */
  stage?: testing.Stage;
  /** Sessions are encrypted, as `open` does it; not together with `store`. */
  sealValues?: boolean;
  /** The ring for `sealValues`: `[[1, Buffer.from(process.env.STORE_KEY, 'base64')]]`, see `open`. */
  keys?: Iterable<readonly [id: number, key: Uint8Array]>;
  /** Session ids are kept as hashes: a copy of the data logs nobody in. */
  hashKeys?: boolean;
  /** Until when values that are not sealed are read as they are, see `open`. */
  plainUntil?: Date | string;
}

/**
 * A session store for Curveball's session middleware (@curveball/session).
 *
 * ```js
 * app.use(session({ store: new SessionStore({ url: 'sqlite:sessions.db' }), cookieName: 'MY_SESSION', expiry: 7200 }));
 * ```
 *
 * An id is whatever a cookie says: what can be no key (empty, too long, with line breaks or NUL) is a session that is not there; `set` alone refuses it.
 * Nothing waits for a timer: the process ends when it wants to.
 */
export class SessionStore {
  constructor(options?: SessionStoreOptions);
  /**
   * Stores a copy; one that `get` gave, only where it still is (`saveEnded`). `expire` is in seconds since 1970, and the session is there through that whole second, as in Curveball's own
   * store (which looks at whole seconds). One that is over deletes. More than ten years is ten years; milliseconds are refused.
   */
  set(id: string, values: SessionValues, expire: number): Promise<void>;
  /** A copy of the session; `null` when there is none. */
  get(id: string): Promise<SessionValues | null>;
  /** Ends the session. One that is not there is no error. */
  delete(id: string): Promise<void>;
  /** 32 random bytes as standard base64, as Curveball's own ids: 44 characters, some of them `+`, `/` and `=`. */
  newSessionId(): Promise<string>;
  /** Closes the store if it was opened here. */
  close(): Promise<void>;
}

/** The options of node-redis that say where the server is. Others are refused, but for those about keeping a connection, which is done anyway. */
export interface ClientOptions {
  /** `redis://` or `rediss://`. What it says counts before the other options, as in node-redis. */
  url?: string;
  socket?: {
    host?: string;
    port?: number;
    /** A unix socket. */
    path?: string;
    /** With the certificates of the system. Others: a `url` for the store, with `?tls_ca=FILE`. */
    tls?: boolean;
    servername?: string;
    /** Milliseconds. */
    connectTimeout?: number;
    keepAlive?: unknown;
    keepAliveInitialDelay?: unknown;
    noDelay?: unknown;
    reconnectStrategy?: unknown;
  };
  username?: string;
  password?: string;
  database?: number;
  name?: string;
  disableClientInfo?: unknown;
  clientInfoTag?: unknown;
  pingInterval?: unknown;
  /** As node-redis had it before version 4; so `port`, `path`, `tls`, `user` and `db`. */
  host?: string;
  port?: number;
  path?: string;
  tls?: boolean;
  user?: string;
  db?: number;
}

/** At most one of `client`, `clientOptions`, `store`, `url` and `backend`; with none of them, the Redis server on localhost. */
export interface RedisStoreOptions extends SessionStoreOptions {
  /** Put before every session id, with a `-` between them, as in @curveball/session-redis. Default: `session`. */
  prefix?: string;
  /** For a connection of the store's own. */
  clientOptions?: ClientOptions;
  /**
   * A client of redis (node-redis) or ioredis that you have. It stays yours: connect it, listen to its `error`, and close it. What it throws reaches the request as it is.
   * A call that it holds back (while it has no connection) rejects with `TIMEOUT` after `timeout` seconds, though it may still be carried out. `sealValues` does not go with it.
   */
  client?: object;
}

/**
 * In place of @curveball/session-redis, with its options, its keys and its values: sessions of either are read by the other, so both may run at once.
 *
 * ```js
 * import RedisStore from 'counterfoil/curveball'; // or { RedisStore }
 * app.use(session({ store: new RedisStore({ prefix: 'mysess', clientOptions: { socket: { host: 'redis.example' } } }) }));
 * ```
 *
 * No server is waited for: calls wait, within `timeout`, and a failure to connect is nobody's unhandled rejection.
 */
export class RedisStore extends SessionStore {
  constructor(options?: RedisStoreOptions);
  /** The client that was given. */
  readonly client?: object;
}
