import counterfoil = require('../index.cjs');
import testing = require('../testing.cjs');

/** What the client keeps for a user (its own `State`, which its package does not export). */
export interface MiroState {
  /** The user's id with Miro, not the one that it is kept under. A state that Python has written has none. */
  userId: string;
  accessToken: string;
  refreshToken?: string;
  /** An ISO 8601 instant, two minutes before the token's end, as the client makes it. A string, as it was given, never a Date. */
  tokenExpiresAt?: string;
}

/** Exactly one of `store`, `url` and `backend`. */
export interface MiroStorageOptions {
  /** An open store. It stays yours: `close()` does not close it. Its `ttl` is that of the states: leave it out, since a refresh token outlives its access token. */
  store?: counterfoil.Store;
  /** A URL for `open`. */
  url?: string;
  /** A backend of your own. For `refreshOnce` and `withLock` it needs conditions and `incr`. */
  backend?: counterfoil.BackendMethods;
  /**
   * Put before every user id. Default: `miro:`, in Python too. With an empty one the key is the bare id, as in Miro's guide (`RedisStorage`): what that has stored is read here, and the other
   * way round. What a refresh needs stands beside it, under the same key with `:counterfoil-lease`, `-fence` (which stays) and `-saved` behind it; no id may end so.
   */
  prefix?: string;
  /**
   * Seconds after which a lease is another's, if its holder has not given it back: it died, or was too slow. Longer than a refresh takes. Default: 15. Whoever has lost it can go on, but
   * what it saves is refused once another state is there.
   */
  lease?: number;
  /**
   * Seconds for which what a refresh has saved is the successor for everybody who comes with the old token, also where it is not fresh by a clock that is wrong, or was so short-lived that it never was.
   * Default: 20. With 0 only `isFresh` counts.
   */
  grace?: number;
  /** Seconds that a caller waits for another's refresh, then it rejects with `TIMEOUT`. Default: 30. Longer than `lease`, or nobody is there to take over. */
  wait?: number;
  /**
   * Told of every `set` that failed. The client does not wait for the `set` after a refresh or a login, so nobody else sees that the new tokens are lost (by `singleFlight` it waits); such a failure
   * never ends the process. Default: `process.emitWarning`, without the user. What it throws becomes a warning, too.
   */
  onError?: (error: unknown) => void | Promise<void>;
  /** Seconds that an operation may take; for `open`, not together with `store`. */
  timeout?: number;
  /** A stage for tests; for `open`, not together with `store`. */
  stage?: testing.Stage;
  /** States are encrypted. `refreshOnce` and `withLock` reject with `NOT_SUPPORTED` then: sealed values cannot be compared. */
  sealValues?: boolean;
  /** The ring for `sealValues`, see `open`. */
  keys?: Iterable<readonly [id: number, key: Uint8Array]>;
  /** User ids are kept as hashes. */
  hashKeys?: boolean;
  /** Until when values that are not sealed are read as they are, see `open`. */
  plainUntil?: Date | string;
}

/** What `withLock` gives to the function that holds the lease. */
export interface Lease<State = MiroState> {
  /** Greater than that of every lease of this user before, in any process: for what you change elsewhere under this lease and want to fence. */
  readonly fence: number;
  /** The state when the lease began. */
  readonly state: State | undefined;
  /**
   * Stores a state over the one that `state` was (or over that of the `save` before). `false`: another is there, or it has ended, and nothing was stored: this holder was too late, or somebody has
   * logged in or revoked meanwhile. One step in the store.
   */
  save(state: State): Promise<boolean>;
}

/**
 * The storage of @mirohq/miro-api, over any store.
 *
 * ```js
 * const storage = new MiroStorage({ url: 'redis://cache' });
 * const miro = singleFlight(new Miro({ storage })); // without singleFlight as ever: three calls that find a token expired refresh it three times
 * app.get('/boards', async (req, res) => res.json(await miro.as(req.session.userId).getBoards()));
 * ```
 *
 * User ids are text or safe integers; 1 and '1' are one. What is not there is `undefined`.
 */
export class MiroStorage<State extends object = MiroState> {
  constructor(options: MiroStorageOptions);

  /** A copy of the state. A `set` of this object that is still on its way is waited for. Rejects with `CORRUPT` where no JSON object is stored. */
  get(userId: string | number): Promise<State | undefined>;

  /**
   * Stores a copy; `undefined` deletes. The last one wins. Rejects when it failed (so revoking fails visibly), but a rejection that nobody waits for ends no process: `onError` has it.
   * Over a memory store it is done when this returns.
   */
  set(userId: string | number, state: State | undefined): Promise<void>;

  /**
   * Gives a fresh state. Where it is not fresh, one caller among all processes on this store runs `refresh` and saves what that gives; the others wait and get the successor. `undefined`: there is no
   * state, or it was ended meanwhile.
   *
   * ```js
   * const state = await storage.refreshOnce(userId, async (old) => ({ ...old, ...(await askMiro(old.refreshToken)) }));
   * ```
   *
   * - What `refresh` throws, this rejects with, and so do the calls in this process that waited for it; nothing is stored, and another process may try. But where another's successor is there by then, that is given
   * - The successor is stored over exactly the state that was refreshed. Where another is there by then (a login, a later holder of the lease), that one stays and is given
   * - A holder that dies loses the lease after `lease` seconds, by the store's clock; no machine's clock is compared with another's
   * - `refresh` has no deadline of ours: give its request one, below `lease`
   * - Where the store cannot be reached, the save is tried for a moment; then this rejects, and the new tokens are lost
   */
  refreshOnce(userId: string | number, refresh: (state: State) => State | Promise<State>, options?: RefreshOptions<State>): Promise<State | undefined>;

  /** Runs a function while this caller alone has the lease of the user, and gives what it gives. It waits for `wait` seconds, then rejects with `TIMEOUT`. Do not nest: the inner one would wait for the outer. */
  withLock<Result>(userId: string | number, work: (lease: Lease<State>) => Result | Promise<Result>): Promise<Result>;

  /** Closes the store, if this object opened it. */
  close(): Promise<void>;
}

export interface RefreshOptions<State = MiroState> {
  /**
   * Whether a state needs no refresh. By default as the client judges: it has no `refreshToken` or no `tokenExpiresAt`, or that is not over. After the API has refused a token (401):
   * `{ isFresh: (state) => state.accessToken !== refused }`.
   */
  isFresh?: (state: State) => boolean | Promise<boolean>;
}

/** What `singleFlight` needs of a client: `Miro` of @mirohq/miro-api has it. */
export interface MiroClient {
  storage: object;
  getToken(userId: string | number, params: { [key: string]: string }): Promise<string>;
  getAccessToken(userId: string | number): Promise<string>;
}

/**
 * Makes this client refresh by `refreshOnce` of its storage, a `MiroStorage`, and gives it back. Its `getToken` is replaced, by which it refreshes and exchanges codes; nothing else of it is changed, and no code that uses
 * it. `exchangeCodeForAccessToken` now waits until the state is stored, and rejects if it was not. Twice is once.
 */
export function singleFlight<Client extends MiroClient>(miro: Client): Client;
