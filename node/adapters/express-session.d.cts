import session = require('express-session');
import counterfoil = require('../index.cjs');
import testing = require('../testing.cjs');

/** Between a session and the text that is stored. The default is `JSON`. */
export interface Serializer {
  /** The session that this text says. May give a promise. */
  parse(text: string): session.SessionData | Promise<session.SessionData>;
  /** The text for this session. May give a promise. */
  stringify(session: session.SessionData): string | Promise<string>;
}

/** At most one of `store`, `url` and `backend`; with none of them, `memory:`. */
export interface CounterfoilStoreOptions {
  /** An open store. It stays yours: `close()` does not close it. */
  store?: counterfoil.Store;
  /** A URL for `open`. */
  url?: string;
  /** A backend of your own. */
  backend?: counterfoil.BackendMethods;
  /** Put before every session id. Default: `sess:`. With an empty one `clear()` is refused unless the store has a prefix: it would clear everybody's keys. */
  prefix?: string;
  /**
   * Seconds that a session lives whose cookie says nothing (0, like leaving it out, is a day), or a function of the session, which
   * then decides alone: not above 0 destroys. More than ten years is ten years.
   */
  ttl?: number | ((session: session.SessionData) => number);
  /**
   * Seconds that a session lives at most, however often it is used: it ends when it has been idle for too long (`cookie.maxAge`, `ttl`), or this long after it was
   * first saved, whichever comes first. No save and no touch moves that end, nor does `saveEnded: 'create'`. `regenerate` begins a new life, so a login by
   * Passport does. The cookie in the browser may say more.
   *
   * A session without a note of its beginning (below), which connect-redis has saved, say, counts from when it is first seen here (with `disableTouch`, `sealValues`,
   * or a backend without conditions, from its first save here). With `disableTTL` this is the only end.
   *
   * The end is an instant of this machine's clock, and several machines' clocks must agree to a minute. One that was set back by more since the last note
   * (`set`, below) is noticed: the session is then as old as it was. What is less, or has happened since, can prolong it by as much.
   *
   * Not below `ttl`, if that is a number.
   */
  absoluteTimeout?: number;
  /**
   * Seconds for which touches are left out after the session's expiry was set, which saves the store most of its writes. What was changed is saved at once, as ever.
   * A touch is left out when all of this holds:
   *
   * - less than `touchAfter` has passed since the expiry was set by a save or a touch, by whichever process; where a session may be idle for less than
   *   twice that, less than half of its idle time: whoever comes often is not lost
   * - it would move the expiry by less than that
   * - it would not bring the expiry nearer: a shorter `cookie.maxAge` holds at once, as a much longer one does
   *
   * So a session that is left alone ends up to `touchAfter` (or half its idle time) before its idle time is over, never later, and nothing is ever shortened or brought
   * back by a touch that is left out. A touch that is made is noted in the stored text (below), in one step and only over the text that this request has loaded:
   * where another has saved or touched the session since, it is decided once more over what is there.
   *
   * With `sealValues`, and on a backend without conditions, touches cannot be noted: then only what is within `touchAfter` of a save is left out.
   * A touch of a plain object, where it is not the very one that `get` gave, costs a `get`. Not together with `disableTouch` or `disableTTL`;
   * below `ttl`, if that is a number, and `absoluteTimeout`.
   */
  touchAfter?: number;
  /** Sessions live until they are destroyed, or until `absoluteTimeout`. One whose cookie has expired is destroyed all the same when it is saved. */
  disableTTL?: boolean;
  /** `touch` does nothing: a session then lives from its last change, not from its last use. */
  disableTouch?: boolean;
  /** In place of JSON. With `absoluteTimeout` or `touchAfter` it must keep the field `__counterfoil`: a save is `INVALID` otherwise. */
  serializer?: Serializer;
  /**
   * What becomes of the save of a session that has ended since this request loaded it (or saved it before): another request logged out,
   * regenerated the id, or the session expired meanwhile. A store that saves it brings it back: whoever has the old cookie is logged in
   * again.
   *
   * - `ignore`, the default: nothing is stored, and the save succeeds. The user has left; the slower request may finish its answer
   * - `error`: nothing is stored, and the save fails with a `CounterfoilError` whose code is `ENDED`, for a request that must know. Call
   *   `request.session.save(callback)` then: what fails after the answer is sent reaches only the application's error handler
   * - `create`: it is stored as if it were new, as other stores do
   *
   * A session that a cap of `memory:` (`max_entries`, `max_bytes`) has evicted while the request ran has ended, too. On a backend of your own
   * this needs conditions (`setIf`, or `singleProcess: true`). Without them sessions are saved as with `create`, unless you set this
   * option: then saves reject with `NOT_SUPPORTED`.
   */
  saveEnded?: 'ignore' | 'error' | 'create';
  /**
   * What becomes of the save of a session that another request has saved since this one loaded it.
   *
   * - `overwrite`, the default: the last one wins, and what the other request changed is lost, as in other stores
   * - `error`: nothing is stored, and the save fails with a `CounterfoilError` whose code is `CHANGED`. `request.session.reload(callback)` gets what is
   *   there; change that, and save again. Not the default, because at the end of a request nobody is there to do so: with it, save by
   *   `request.session.save(callback)`, and leave `resave` off, or requests that only read would be in each other's way. A `touch` is no change
   *
   * The stored text is compared, in the same one step. So the backend must have conditions, and not `sealValues`: `NOT_SUPPORTED`.
   */
  saveChanged?: 'overwrite' | 'error';
  /**
   * Whose a session is: a string or a safe integer (7 and '7' are one), or `undefined` or `null` for nobody. With it the sessions of a user can be listed and ended (`sessionsOf`,
   * `endAllOf`, `end`), in every process at once. It is asked about the session object that is saved and about the stored data, and must say the same of both.
   *
   * ```js
   * const store = new CounterfoilStore({ url: 'redis://cache', userOf: (session) => session.userId });
   * ```
   *
   * Beside the stored session of a user stands a record (as of `SessionStorage`), and the record decides: a stored session that says a user counts only while its
   * record is active and of that user; otherwise it is `null`, and its key is deleted (unless the record has merely expired by this machine's clock). That costs no
   * round trip for a load and a touch, one for a save, and three where a save logs the user out; a touch writes twice, which is a reason for `touchAfter`. Of what is
   * cut off between two writes there stays at most a session that is dead, and perhaps listed until it would have expired; never one that is alive and not listed.
   *
   * - A login should `regenerate`, as it always should. One that does not is possible once: a session that its user has left (`userOf` says nobody) gets no user
   *   again, and another user cannot take over a session; both are `INVALID`. What `userOf` throws, the `get` or the save rejects with
   * - What has ended by its record does not come back, not by `saveEnded: 'create'` (which does as `ignore` does then), nor where a request logs its user
   *   out too late, nor where a plain object is given to `set`: that as long as the record is kept (a user's next login beyond `maxSessionsPerUser` drops the oldest that has ended)
   * - Every process must have it: one without would not see that a session has ended. What one without has stored, or what was stored before, has no record: those
   *   users must log in again
   * - `prefix` stands before the user, too: applications with other prefixes have other users, and one's `endAllOf(7)` is not the other's, if neither prefix
   *   begins with the other. With an empty prefix the users are those of the store's records: what ends a user's `SessionStorage` sessions
   *   (`AccountsStorage.deleteUser` above all) ends these as well
   * - Clocks of several machines must agree to a minute
   * - `sealValues` and `hashKeys` hide nothing of a record: the user, the times and a hash of the session id stand in it
   *
   * The backend must keep records: every URL does. On one of your own that does not, `get` and the save of a user's session are `NOT_SUPPORTED`.
   */
  userOf?: (session: session.SessionData) => string | number | null | undefined;
  /** Sessions of one user, 1 to 10000; 100 by default. Needs `userOf`. One more first drops the oldest that has ended, then as `whenFull` says. */
  maxSessionsPerUser?: number;
  /** `oldestOut`, the default: the oldest session is dead at once. `refuse`: the save of the new one rejects with `LIMIT`. Needs `userOf`. */
  whenFull?: 'oldestOut' | 'refuse';
  /** Seconds that an operation may take; for `open`, not together with `store`. */
  timeout?: number;
  /** A stage for tests; for `open`, not together with `store`. */
  stage?: testing.Stage;
  /** Sessions are encrypted, as `open` does it; not together with `store`. `saveChanged: 'error'` does not work with it. */
  sealValues?: boolean;
  /** The ring for `sealValues`: `[[1, Buffer.from(process.env.STORE_KEY, 'base64')]]`, see `open`. */
  keys?: Iterable<readonly [id: number, key: Uint8Array]>;
  /** Session ids are kept as hashes: a copy of the data logs nobody in. `ids`, `all`, `length` and `clear` fail with `NOT_SUPPORTED` then. */
  hashKeys?: boolean;
  /** Until when values that are not sealed are read as they are, see `open`. */
  plainUntil?: Date | string;
}

/** A session as its user may see it in a list. Nothing in it logs anybody in. */
export interface UserSession {
  /** For `end`. */
  handle: string;
  /** When the user logged in. */
  created: Date;
  /** When its expiry was last set, by a save or a touch: with `touchAfter` so much earlier than the last request, or where `absoluteTimeout` moves no expiry any more. */
  lastSeen: Date;
  expires: Date;
  /** Whether it is the one that `current` named. */
  current: boolean;
}

/**
 * A store for express-session.
 *
 * ```js
 * app.use(session({ store: new CounterfoilStore({ url: 'memory:' }), secret, resave: false, saveUninitialized: false }));
 * ```
 *
 * Every method takes a callback, or gives a promise when it is called without one (those of users and `close` always give one). A session that is not there is `null`.
 *
 * The expiry of a session is kept by the store, to the millisecond: from `cookie.expires`, else `ttl`, and at most `absoluteTimeout`. `touch` moves only that expiry
 * (the stored text, and the `cookie.expires` within it, stay as they are but for a note, see below, so a touch can never undo a concurrent save) and does not
 * bring a missing session back. Where the stored `cookie.expires` has passed, or does within a minute, `get` counts it anew from
 * `cookie.originalMaxAge`. A backend that lacks `touch`, `scan` and so on rejects what needs them with `NOT_SUPPORTED`.
 *
 * With `absoluteTimeout` or `touchAfter` the stored session has a field `__counterfoil` beside its data: `created`, when it began; `set`, when its expiry was last set
 * by a save or by a touch that is noted; `expires`, to when; all in milliseconds since 1970. `request.session` does not show it; what `get` and `all` give does, and should
 * be given back to `set` with it: a plain object without it begins a new life. A program that does not know it (connect-redis) keeps it with the data.
 *
 * A session that has ended stays so (`saveEnded`): one that the middleware or `load` got from the store, and one that was saved before, is
 * saved only where it still is, in the same one step. That holds for session objects (`request.session`, and what `createSession` makes of data). A plain
 * object given to `set` is stored in any case: so a script makes a new session; and so are the sessions of frameworks that make their own objects from what `get` gives (@fastify/session).
 */
export class CounterfoilStore extends session.Store {
  constructor(options?: CounterfoilStoreOptions);

  /** The session, as a copy; `null` when there is none. One without a cookie (written by another framework) gets an empty one. */
  get(sid: string): Promise<session.SessionData | null>;
  get(sid: string, callback: (error: any, session?: session.SessionData | null) => void): void;

  /**
   * Stores a copy; for a session object that the store knows only where it still is (`saveEnded`). Destroys when `cookie.expires` has passed or is
   * no date.
   */
  set(sid: string, session: session.SessionData): Promise<void>;
  set(sid: string, session: session.SessionData, callback?: (error?: any) => void): void;

  /** Gives the session the life that its cookie says, counted from now. */
  touch(sid: string, session: session.SessionData): Promise<void>;
  touch(sid: string, session: session.SessionData, callback?: (error?: any) => void): void;

  /** Ends the session. One that is not there is no error. */
  destroy(sid: string): Promise<void>;
  destroy(sid: string, callback?: (error?: any) => void): void;

  /** All sessions, each with its id as `id`. */
  all(): Promise<(session.SessionData & { id: string })[]>;
  all(callback: (error: any, sessions?: (session.SessionData & { id: string })[] | null) => void): void;

  /** The ids of all sessions. */
  ids(): Promise<string[]>;
  ids(callback: (error: any, ids?: string[]) => void): void;

  /** How many sessions there are. */
  length(): Promise<number>;
  length(callback: (error: any, length?: number) => void): void;

  /** Ends all sessions with this prefix. Those of users stay listed (`sessionsOf`) until they would have expired. */
  clear(): Promise<void>;
  clear(callback?: (error?: any) => void): void;

  /** The sessions of a user that are alive, the last used first. `current`: the session id of the request that asks. One that a cap of `memory:` has evicted stays in the list. */
  sessionsOf(userId: string | number, options?: { current?: string }): Promise<UserSession[]>;

  /**
   * Ends all sessions of a user, but perhaps the one with the session id `except`, in one step; gives how many, expired ones that nobody had ended among them.
   * When it has answered, no get in any process gives such a session any more, and no slower request that saves or touches one brings it back.
   *
   * ```js
   * await store.endAllOf(request.session.userId, { except: request.sessionID }); // the password was changed
   * ```
   *
   * Their keys go when they are next asked for, or expire; until then `ids` and `length` count them. A login that is under way meanwhile: `beginLogin`.
   */
  endAllOf(userId: string | number, options?: { except?: string }): Promise<number>;

  /** Ends one session of a list; gives whether it was alive. Whoever takes the handle from a request should say whose it must be: `end(handle, { userId })`. */
  end(handle: string, options?: { userId?: string | number }): Promise<boolean>;

  /**
   * Says that a login begins; called before the password is looked at. If all sessions of this user are ended between that and the session's first save, the login was by what
   * no longer holds, and the session has ended (`saveEnded`: `ENDED`, or nothing is stored). Without it such a login stays. A session of this request for another user
   * is `INVALID`. A request that ends all sessions itself, and then logs in, calls it again after `endAllOf`.
   *
   * ```js
   * await store.beginLogin(request, user.id);
   * if (!(await verify(user.hashedPassword, request.body.password))) return next();
   * request.session.regenerate((error) => { ... request.session.userId = user.id; ... });
   * ```
   */
  beginLogin(request: object, userId: string | number): Promise<void>;

  /** Closes the store, if this object opened it. */
  close(): Promise<void>;
}
