import session = require('express-session');
import { CounterfoilStore, CounterfoilStoreOptions, Serializer as SessionSerializer } from './express-session.cjs';

declare namespace connectRedis {
  type Serializer = SessionSerializer;

  /** Those of connect-redis, and those of `CounterfoilStore` (`saveEnded`, `saveChanged`, `absoluteTimeout`, `touchAfter` ...). `null` is like leaving one out. */
  interface RedisStoreOptions extends Omit<CounterfoilStoreOptions, 'prefix' | 'ttl' | 'disableTTL' | 'disableTouch' | 'serializer'> {
    /** A client of node-redis or ioredis. Not together with `userOf`: records need a `url`. */
    client?: object;
    /** Put before every session id. Default: `sess:`. */
    prefix?: string | null;
    /** Seconds that a session lives whose cookie says nothing, a day by default; or a function of the session, which then decides alone. */
    ttl?: number | ((session: session.SessionData) => number) | null;
    /** Sessions are stored without an expiry. */
    disableTTL?: boolean | null;
    /** `touch` does nothing: a session then lives from its last change, not from its last use. */
    disableTouch?: boolean | null;
    /** In place of JSON. Both methods may give a promise. */
    serializer?: Serializer | null;
    /** Keys for one step of a SCAN over `client`. Default: 100. A store with a `url` takes its own steps. */
    scanCount?: number | null;
    /** In place of a `url`, as guides of version 3 and older have it: the name or address of the server, `localhost` by default. */
    host?: string;
    /** Beside `host`. Default: 6379. */
    port?: number | string;
    /** In place of `host`: the path of a unix socket. */
    socket?: string;
    /** Beside `host` or `socket`: the number of the database. */
    db?: number | string;
    /** Beside `host` or `socket`: the password. */
    pass?: string;
    /** The same. */
    password?: string;
    /** Beside `password`. */
    username?: string;
  }

  export { connectRedis as RedisStore, connectRedis as default, RedisStoreOptions, Serializer };
}

/** As of version 6: called with express-session. */
declare function connectRedis(session: { Store: unknown }): typeof connectRedis;

/**
 * connect-redis 6 to 10, by changing the name that is required:
 *
 * ```js
 * const RedisStore = require('counterfoil/connect-redis')(session); // as of version 6
 * const RedisStore = require('counterfoil/connect-redis').default; // 7; import RedisStore from 'counterfoil/connect-redis'
 * const { RedisStore } = require('counterfoil/connect-redis'); // from 8; import { RedisStore } from 'counterfoil/connect-redis'
 *
 * app.use(session({ store: new RedisStore({ client }), secret, resave: false, saveUninitialized: false }));
 * ```
 *
 * The keys and what is stored under them are connect-redis's, byte for byte: both may run over the same sessions, in both directions. `ids`, `all`,
 * `length` and `clear` do as its do.
 *
 * With `client` the store speaks through the client that is there: node-redis 4 and newer (also its cluster and pool, and `legacyMode`),
 * ioredis (also its cluster), node-redis 3. The client stays yours: connect it, listen to its errors and close it, `close()` does not. What it rejects
 * with (it is closed, or was never connected) reaches the callback as it is; a call that it keeps waiting fails after `timeout` seconds, 5 by default.
 *
 * With `url` there is no other client to install or to wait for: `new RedisStore({ url: 'redis://cache' })`, or any URL of Counterfoil, `memory:` and `sqlite:` too.
 *
 * Otherwise than connect-redis:
 *
 * - a session that has ended (logged out, expired) is not brought back by a slower request that saves it; `saveEnded: 'create'` is connect-redis's way
 * - the expiry is kept to the millisecond, not rounded up to a second
 * - a session that is not there is `null`, as from version 8.1 (6 and 7: nothing); `touch` replies nothing (6: `'OK'` or `'EXPIRED'`)
 * - a `touch` with a cookie whose `expires` is no date destroys the session, as `set` does
 * - `get` gives a session that was touched after its stored `cookie.expires` a new one
 * - a callback is called once, also when it throws; `all` awaits a `parse` that gives a promise
 * - characters like `*` in `prefix` mean themselves; with an empty one `clear()` is refused: it would delete everybody's keys
 * - `client`, `prefix`, `ttl` and so on of a store can be read, but not assigned; `client` is always the client itself (7 and 8: a wrapper)
 * - what cannot be meant is refused at once, by a `CounterfoilError` with the code `INVALID`: an unknown option, a negative `ttl`, a client that is none
 */
declare class connectRedis extends CounterfoilStore {
  /** One of `client`, `url` (or `host`, `socket`), `store` and `backend`. */
  constructor(options: connectRedis.RedisStoreOptions);
  /** The client that was given. */
  readonly client: any;
  readonly prefix: string;
  readonly scanCount: number;
  readonly serializer: connectRedis.Serializer;
  readonly ttl: number | ((session: session.SessionData) => number);
  readonly disableTTL: boolean;
  readonly disableTouch: boolean;
}

export = connectRedis;
