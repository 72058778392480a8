import counterfoil = require('../index.cjs');
import testing = require('../testing.cjs');

/** A session as FluidAuth keeps it. */
export interface SessionData {
  sessionId: string;
  /** What `serializeUser` gave: a number stays a number. */
  userId: any;
  /** An ISO text. A `Date` is taken, and comes back as a text, which FluidAuth reads as well. */
  expires: string | Date;
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
  /** Put before every session id. Default: `fluidauth:`. */
  prefix?: string;
  /**
   * What becomes of the update of a session that is not there: it has ended since it was read, by a logout or because it has expired. FluidAuth updates to extend a session,
   * in every request that comes late in its life.
   *
   * - `ignore`, the default: nothing is stored, and the update succeeds
   * - `error`: nothing is stored, and the update fails with a `CounterfoilError` whose code is `ENDED`
   * - `create`: it is stored, as FluidAuth's own `MemoryStore` does: a request that is slower than a logout logs the user in again
   *
   * On a backend of your own this needs conditions (`setIf`, or `singleProcess: true`). Without them updates are as with `create`, unless you set this
   * option: then they reject with `NOT_SUPPORTED`; and `create` looks for an id before it stores, in two steps.
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
  /** Session ids are kept as hashes: a copy of the data logs nobody in. (The id stands in the key alone.) */
  hashKeys?: boolean;
  /** Until when values that are not sealed are read as they are, see `open`. */
  plainUntil?: Date | string;
}

/**
 * What FluidAuth's stores derive from: FluidAuth's own class (`@fluidauth/express/base`) where it is installed, otherwise an empty one. To derive from, as the store below does.
 */
export class BaseSessionStore {}

/** FluidAuth's error: its own class where it is installed. */
export class FluidAuthError extends Error {
  constructor(options?: { name?: string; message?: string; code?: number });
  code?: number;
}

/**
 * A session store for FluidAuth (@fluidauth/express 1.1).
 *
 * ```js
 * const session = new Session({ secret, store: new SessionStore({ url: 'redis://cache' }) });
 * ```
 *
 * A session ends at the instant that its `expires` says, in the store as well, so that nothing stays for ever.
 *
 * FluidAuth has a fault that ends the process, with every store: after a miss (an old cookie) it goes on to the application, and then removes the cookie, which throws where the application has
 * answered in the same breath. One line behind it mends that: `app.use((req, res, next) => setImmediate(next))`. Handlers that wait for anything at all do without it: here, as with
 * FluidAuth's own store, the cookie is removed before they go on.
 *
 * FluidAuth's cookie is encrypted, but not authenticated (AES-CBC without a MAC): what comes out of it may be anything. What can be no key is a session that is not there.
 */
export class SessionStore extends BaseSessionStore {
  constructor(options?: SessionStoreOptions);
  /**
   * Stores a copy. Rejects with a `FluidAuthError` of the code 400 where the id is taken, and with `INVALID` for an `expires` that is no date and a `userId` that JSON would not give back as it
   * is (a bigint, a Date, an ObjectId: let `serializeUser` give text). One that has expired already is not there. More than ten years is ten years.
   */
  create(sessionData: SessionData): Promise<void>;
  /** Stores a copy in the place of a session that is there (`saveEnded`). One that has expired already deletes. */
  update(sessionId: string, sessionData: SessionData): Promise<void>;
  /**
   * Ends the session; one that is not there is no error. FluidAuth calls this, and looks at no promise, for what `get` has just missed or failed for: then, in the same turn of
   * the event loop, it succeeds at once, and what there is to delete is deleted in the background. A logout waits, and rejects where it fails.
   */
  delete(sessionId: string): Promise<void>;
  /** A copy of the session; exactly `null` when there is none, or when it has expired. */
  get(sessionId: string): Promise<SessionData | null>;
  /** Does nothing: what has expired is gone already. */
  clean(): Promise<void>;
  /** Closes the store if it was opened here. */
  close(): Promise<void>;
  /** The store. */
  readonly db: counterfoil.Store;
}
