/// <reference types="node" />
import { EventEmitter } from 'node:events';
import testing = require('./testing.cjs');

/** The version of the library that is running. */
export const version: string;

/**
 * What went wrong, for the program:
 *
 * - `INVALID`: an argument was refused before anything was done
 * - `NO_MEMORY`: an allocation failed; nothing was changed
 * - `TIMEOUT`: the operation's deadline passed
 * - `UNAVAILABLE`: the backend cannot be reached now; try later
 * - `BUSY`: a local limit is reached; try later
 * - `NOT_SUPPORTED`: this backend has no such operation
 * - `CORRUPT`: what the backend holds or answered cannot be right
 * - `CLOSED`: the store was closed
 * - `FORKED`: the process forked, and this is the child
 * - `EXISTS`: there is such a record already: `error.existing`
 * - `MISSING`: the record that this needs is not there
 * - `LIMIT`: there are as many records of that user as are allowed
 * - `CURSOR`: the cursor of a list is none that this list gave
 * - `AUTH`: the backend refused our credentials or rights, or could not prove who it is (TLS)
 * - `CANCELED`: the caller cancelled
 * - `CHANGED`: what this was to build upon has changed meanwhile: all sessions of the user were revoked (`epoch`); of the express-session store, where its option
 *   `saveChanged` asks for it
 * - `ENDED`: of the session stores for frameworks alone, where their option `saveEnded` asks for it
 */
export type ErrorCode =
  | 'INVALID'
  | 'NO_MEMORY'
  | 'TIMEOUT'
  | 'UNAVAILABLE'
  | 'BUSY'
  | 'NOT_SUPPORTED'
  | 'CORRUPT'
  | 'CLOSED'
  | 'FORKED'
  | 'EXISTS'
  | 'MISSING'
  | 'LIMIT'
  | 'CURSOR'
  | 'AUTH'
  | 'CANCELED'
  | 'ENDED'
  | 'CHANGED';

/** Whether the store was changed by an operation that failed. `unknown`: read before you repeat a write. */
export type Outcome = 'not_applied' | 'applied' | 'unknown';

/**
 * Every error of this library, thrown by constructors and `open`, and as the rejection of every promise. Its message never holds a
 * key, a value or a password. What a backend written in JavaScript throws is not wrapped: the same object arrives at the caller.
 */
export class CounterfoilError extends Error {
  /** `outcome` is `not_applied` when left out. */
  constructor(message: string, code: ErrorCode, outcome?: Outcome, receipt?: string, existing?: object);
  readonly name: 'CounterfoilError';
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  /**
   * With the outcome `unknown` (or `applied`: not durable yet), of `pop`, `incr` and `set` with `ifAbsent` or `ifEqual`, where the backend keeps receipts (Redis): names this
   * one call. The same call with this text as the option `receipt` gives the answer that was lost, if the call took effect, and otherwise acts now;
   * for twice the timeout. Not enumerable, so that logs do not show it.
   */
  readonly receipt?: string;
  /** With `EXISTS`: the record that is there already. Not enumerable either. */
  readonly existing?: User | SocialAccount | Session;
}

/** Text (well-formed: a lone surrogate is refused), or bytes. At most 1 MiB. A Buffer is a Uint8Array. */
export type Value = string | Uint8Array;

export interface OpenOptions {
  /** Put before every key: UTF-8 without NUL, CR and LF, at most 256 bytes. */
  prefix?: string;
  /** Seconds (fractions allowed) that a value lives when its write does not say; without it, until it is deleted. */
  ttl?: number;
  /** Seconds that an operation may take before it rejects with `TIMEOUT`. Default: 5. */
  timeout?: number;
  /** A stage of `counterfoil/testing`. */
  stage?: testing.Stage;

  // At rest: every program that uses the data must open it in the same way.

  /**
   * Values are encrypted (XAES-256-GCM) with the first of `keys`, and bound to their key; the others open what was sealed before, so a key is
   * changed by putting a new one in front. What does not open rejects with `CORRUPT`, plain values too: use a new prefix to begin. `incr` and
   * `ifEqual` reject with `NOT_SUPPORTED`, unless they are derived. A backend of yours needs `binary = true`.
   */
  sealValues?: boolean;
  /**
   * The ring for `sealValues`, and for the tokens of social accounts, which are sealed wherever there are keys: pairs of an id (an integer from 1 to 2^32 - 1) and 32 random bytes; at most 64. Make a key once, with
   * `openssl rand -base64 32`, and keep it with your other secrets: `[[1, Buffer.from(process.env.STORE_KEY, 'base64')]]`. Who loses it loses the values.
   */
  keys?: Iterable<readonly [id: number, key: Uint8Array]>;
  /**
   * Keys are kept as their SHA-256, so that a copy of the data holds no session id that works. `scan`, and `count` and `clear` with a prefix, reject
   * with `NOT_SUPPORTED`. What can be guessed (an e-mail, six digits) can be guessed from its hash.
   */
  hashKeys?: boolean;
  /**
   * For a store that was used without `keys`, or without `sealValues`, before: a Date, or ISO text with its time zone, at most a year (366 days) ahead,
   * until which values and tokens that do not begin as sealed ones do (`sealed:`; the bytes 43 66 01) are read as they are. `reseal` of the store and of
   * AccountsStorage seals them. From then on they are `CORRUPT` again, and a date that has passed may stay where it is. Until then, whoever can write to
   * the backend can put plain text of their own there, and it is believed: make it short, and sweep at once.
   */
  plainUntil?: Date | string;
}

/** Options of the URL, as `?max_entries=3` says them too. What there is depends on the scheme; an unknown one is refused. */
export interface UrlOptions {
  /** memory: evict the least recently used beyond so many entries. */
  maxEntries?: number;
  /** memory: evict the least recently used beyond so many bytes of keys, values and bookkeeping. */
  maxBytes?: number;

  // sqlite:

  /** `normal`: the last commits may be lost in a power failure, never in a crash of the process. Default: `full`, which loses none. */
  synchronous?: 'full' | 'normal';
  /** `true`: no other process can open the file meanwhile, and reads are quicker. Threads of this process can. */
  singleProcess?: boolean;
  /** `true`: open the file although it is on a network file system, whose locks often do not work. */
  remote?: boolean;

  // redis:, rediss:, redis+unix:, redis+sentinel:, redis+cluster: and the last two by TLS (maxPending and maxPendingBytes sqlite: too)

  /** The database, where the URL's path does not say it. */
  db?: number;
  /** With `password`, instead of those in front of the host: as they are, nothing needs to be encoded. */
  user?: string;
  password?: string;
  /** redis+sentinel and rediss+sentinel: for the Sentinels themselves, while `user` and `password` are for the servers. */
  sentinelUser?: string;
  sentinelPassword?: string;
  /** The name of the connection on the server (CLIENT SETNAME): printable ASCII without spaces. Default: counterfoil. */
  name?: string;
  /** Seconds for one attempt to connect. Default: 2. */
  connectTimeout?: number;
  /** Seconds without any answer, while one is owed, after which a connection is given up. Default: 10. */
  silence?: number;
  /** Operations that may wait for an answer at once (of each server of a cluster); what is beyond rejects with `BUSY` at once. Default: 10000. */
  maxPending?: number;
  /** The same for their bytes. Default: 33554432 (32 MiB). */
  maxPendingBytes?: number;
  /** So many replicas must have it before `pop`, `incr`, `delete`, conditional sets and changes of accounts and sessions succeed; otherwise they reject with
   * `UNAVAILABLE` and the outcome `applied`, since a failover could undo it (or `not_applied`: somebody else's, that this call has found). 0: none. By default, behind
   * Sentinels and on a cluster, `pop` and what ends something wait for one replica while there is any. */
  durable?: number;
  /** `false`: `pop`, `incr`, `ifAbsent` and `ifEqual` leave no receipt on the server, which is quicker, but a lost answer stays unknown. */
  receipts?: boolean;
  /** rediss: trust the certificates in this file (PEM) instead of the system's. */
  tlsCa?: string;
  /** rediss: the file of our own certificate chain (PEM); with `tlsKey`, that of its key. */
  tlsCert?: string;
  tlsKey?: string;
  /** rediss: the name that the server's certificate must have, where it is not the host. */
  tlsServerName?: string;
}

/** When a value ends, and on which condition it is stored. At most one of `ttl`, `expiresAt` and `keepTtl`; at most one condition. */
export interface SetOptions {
  /** Seconds, fractions of them allowed: above 0, at most ten years. */
  ttl?: number;
  /** The instant, to the millisecond. One that is not in the future deletes (and is refused together with a condition). */
  expiresAt?: Date;
  /** Keeps the expiry of the value that is replaced. Where nothing is there, the store's `ttl`. */
  keepTtl?: boolean;
  /** Only where nothing is. */
  ifAbsent?: boolean;
  /** Only where something is. */
  ifPresent?: boolean;
  /** Only where exactly this value is, byte for byte: compare and set. */
  ifEqual?: Value;
  /** With `ifAbsent` and `ifEqual`: that of the error of the same call before. See `CounterfoilError.receipt`. */
  receipt?: string | undefined;
}

/** That of the error of the same call before: its answer, if it took effect. See `CounterfoilError.receipt`. */
export interface ReceiptOptions {
  receipt?: string | undefined;
}

/** Counted since the store was opened, but for what is now. Each backend has its own beside the first four. */
export interface Stats {
  operations: number;
  errors: number;
  timeouts: number;
  /** Now: operations that wait. */
  pending: number;
  /** memory, now. */
  entries?: number;
  /** memory, now: keys, values and bookkeeping. */
  bytes?: number;
  evicted?: number;
  expired?: number;
  /**
   * sqlite: transactions that wrote, and those that only read. What happened in the file is counted once among all stores of this process that
   * have it open: add up.
   */
  commits?: number;
  reads?: number;
  /** sqlite: operations that ran in both: `grouped / (commits + reads)` of them share a transaction. */
  grouped?: number;
  /** sqlite: transactions that had to wait for another process. */
  waits?: number;
  /** sqlite: expired values that were removed. */
  swept?: number;
  /** redis, now: 0 or 1. */
  connected?: number;
  connects?: number;
  disconnects?: number;
  /** redis, now: commands not yet sent. */
  queued?: number;
  /** redis, now: sent, not answered. */
  inFlight?: number;
  /** redis: reads that brought answers. */
  roundTrips?: number;
  bytesSent?: number;
  bytesReceived?: number;
  commands?: number;
  retries?: number;
  /** redis: answers that nobody waited for any more. */
  late?: number;
  /** redis: operations refused with `BUSY`. */
  busy?: number;
  /**
   * redis: how many commands were answered within so many microseconds, but not within half as many: `64`, `128` to `2097152`, and
   * `more`.
   */
  latencyUs?: Record<string, number>;
}

/**
 * Opens a store, by URL:
 *
 * - `memory:` private to this store
 * - `memory:NAME` shared by all stores of that name in the process, in workers too
 * - `sqlite:PATH` a database file: durable without a server, for any number of threads and processes of one machine. It is made, with mode 0600, where
 *   there is none; the folder must be there. The path is from the current folder (`sqlite:data/app.db`) or from the root (`sqlite:/var/lib/app.db`); in
 *   it `?`, `#` and `%` are written `%3F`, `%23` and `%25`. **The file is Counterfoil's own**: no other SQLite library (better-sqlite3, `node:sqlite`, a second
 *   copy of this package) may have it open in the same process, since that would undo its locks. From other processes anybody may read it
 * - `sqlite::memory:` the same, private to this store, and gone with it
 * - `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]`, by TLS `rediss://...`, by a unix socket `redis+unix://[USER[:PASSWORD]@]/PATH`. Opening does not
 *   wait for the server: the first operations do, within their deadlines. One connection, which is made anew by itself
 * - `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT].../NAME[/DB]` the primary that these Sentinels (port 26379) call NAME, wherever it is
 *   after a failover; by TLS `rediss+sentinel://...`
 * - `redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]...` a cluster that these servers (port 6379) are of; slots that move and failovers are followed.
 *   Calls under way at once on one key may change places while its slot moves, and a scan or `count` rejects with `UNAVAILABLE`: begin it again. By TLS
 *   `rediss+cluster://...`
 *
 * or over a backend of your own. Throws `CounterfoilError` with the code `INVALID` for an unknown scheme, option or value out of range, and for a file that
 * is no database of Counterfoil's; `UNAVAILABLE` when a database cannot be opened.
 *
 * An open store never keeps the process alive; an operation that waits does, until its deadline.
 */
export function open(url: string, options?: OpenOptions & UrlOptions): Store;
export function open(backend: BackendMethods, options?: OpenOptions): Store;

/**
 * An open store. Keys are text: 1 to 1024 bytes of UTF-8 without NUL, CR and LF. Every method gives a promise, and rejects (never
 * throws) with a `CounterfoilError`; a refused argument changes nothing. A miss is `undefined`, never an error.
 *
 * A store with a connection emits `connect` when it can be used (again), `disconnect` when it was lost, `error` when an attempt to connect
 * failed, and `warning` when the server is set up so that a promise of this library does not hold there (a popped value that can come
 * back after a restart). The next attempt follows by itself, so nobody has to listen: an `error` that nobody listens to is not thrown, and
 * such a warning goes to `process.emitWarning` once. Every store emits `close` once it is closed.
 */
export class Store extends EventEmitter {
  /** Stores are made by `open`. */
  private constructor();

  /** The value as text. Rejects with `CORRUPT` when it is not UTF-8: use `getBuffer`. */
  get(key: string): Promise<string | undefined>;
  /** The value as bytes. */
  getBuffer(key: string): Promise<Buffer | undefined>;
  /** Stores. `false` when the condition did not hold; nothing has changed then. */
  set(key: string, value: Value, options?: SetOptions): Promise<boolean>;
  /** Whether it was there. */
  delete(key: string): Promise<boolean>;
  /** Gets and deletes in one step: of any number of concurrent pops of one key, exactly one gets the value. */
  pop(key: string, options?: ReceiptOptions): Promise<string | undefined>;
  /** The same, as bytes. */
  popBuffer(key: string, options?: ReceiptOptions): Promise<Buffer | undefined>;
  /** Gives the value so many seconds from now. Whether it was there; it is never created. */
  touch(key: string, ttl: number): Promise<boolean>;
  /**
   * Adds to a decimal number and gives the new one. What is not there is created as `by`, with the ttl; an existing expiry stays.
   * `INVALID` when the value is no canonical decimal integer, or the result would not be a safe integer.
   */
  incr(key: string, by?: number, options?: { ttl?: number } & ReceiptOptions): Promise<number>;
  /**
   * The keys that begin with this text, in no order. A key that is there from beginning to end comes exactly once; those that come or go
   * meanwhile may come.
   */
  scan(prefix?: string): AsyncGenerator<string, void, undefined>;
  /**
   * Seals with the first key of the ring what an older one has sealed, so that the old one can be given up. It works while it is iterated, page by
   * page, and says after each how far it has come: `for await (const { sealed, unreadable } of store.reseal()) console.log(sealed)`.
   * Values keep their expiry; what somebody changes meanwhile stays as they left it. Once it has come to its end, and every program seals with the
   * new key, no value under this prefix needs the old one any more. Stopped, or ended by an error, it can begin again. For a store with `sealValues`.
   * The tokens of social accounts have a sweep of their own, `AccountsStorage.reseal`. Until `plainUntil` both also seal what is plain.
   */
  reseal(prefix?: string): AsyncGenerator<Resealed, void, undefined>;
  /** Several values at once: a Map with every key that was asked for, in that order; a miss is `undefined`. */
  getMany(keys: Iterable<string>): Promise<Map<string, string | undefined>>;
  /** How many keys begin with this text. */
  count(prefix?: string): Promise<number>;
  /** Deletes the keys that begin with this text; how many. Refused when the store's prefix and this one are both empty, unless forced. */
  clear(prefix?: string, options?: { force?: boolean }): Promise<number>;
  /** Figures: of the store, and of its backend. */
  stats(): Promise<Stats>;
  /**
   * Closes: operations that wait reject with `CLOSED`, and so does what comes later. A second call gives the same promise. Rejects with what the
   * backend's own `close` threw; the store is closed nevertheless. Should be called: a store over a backend of your own that is
   * merely dropped gives back its memory, but the backend's `close` is not called.
   */
  close(): Promise<void>;
  /** `await using store = open(...)`, where the engine has it. */
  [Symbol.asyncDispose](): Promise<void>;

  on<E extends keyof StoreEvents>(event: E, listener: StoreEvents[E]): this;
  on(event: string | symbol, listener: (...args: any[]) => void): this;
  once<E extends keyof StoreEvents>(event: E, listener: StoreEvents[E]): this;
  once(event: string | symbol, listener: (...args: any[]) => void): this;
}

/** How far `reseal` has come, all pages so far together. */
export interface Resealed {
  /** Values, or tokens, that were sealed anew. */
  sealed: number;
  /** Those that no key of the ring opens, or that were never sealed. They stay as they are. */
  unreadable: number;
}

/** What listeners are given: a sentence, or an error, neither with a password in it. */
export interface StoreEvents {
  connect: (message: string) => void;
  disconnect: (error: CounterfoilError) => void;
  error: (error: CounterfoilError) => void;
  warning: (message: string) => void;
  close: () => void;
}

type Awaitable<T> = T | PromiseLike<T>;

/** For `scan` of a backend: a page, and where the next one starts (`undefined` or `null`: this was the last). An array alone was all. */
export type ScanPage = readonly string[] | { keys: readonly string[]; cursor?: string | number | null | undefined };

/**
 * What a backend of your own has: at least `get`, `set` and `delete`. The rest, where it is missing, rejects with `NOT_SUPPORTED`, or is
 * derived when `singleProcess` says that this process is the only user of the data. A method gives its result or a promise
 * of it; what it throws reaches the caller as the same object; a result of a wrong type is `CORRUPT`; a promise that does not settle
 * ends with `TIMEOUT` at the operation's deadline. Methods may call their own store, and may close it.
 *
 * Keys come with the store's prefix. Values are strings, or Buffers where `binary` is true; either may be given back.
 * A `ttl` is in seconds; `undefined` means until deleted.
 */
export interface BackendMethods {
  /** The value; `undefined` or `null` for a miss. */
  get(key: string): Awaitable<Value | null | undefined>;
  /**
   * Stores the value, whatever is there. The result is not looked at. With `keepsTtl`, `ttl` may be `Backend.KEEP`, and `newTtl` is then
   * the ttl for a value where none was.
   */
  set(key: string, value: any, ttl?: any, newTtl?: number): unknown;
  /** Whether it was there; `undefined` counts as yes. */
  delete(key: string): Awaitable<boolean | void | null | undefined>;
  /** Get and delete in one step. */
  pop?(key: string): Awaitable<Value | null | undefined>;
  /** Sets what is left to live. Whether it was there. */
  touch?(key: string, ttl: number): Awaitable<boolean>;
  /** Adds, in one step; the new number. `ttl` is for a new one only. */
  incr?(key: string, by: number, ttl?: number): Awaitable<number>;
  /** Stores on a condition, in one step; whether it was stored. `expected` comes with `'equal'`. */
  setIf?(key: string, value: any, ttl: any, condition: 'absent' | 'present' | 'equal', expected?: any, newTtl?: number): Awaitable<boolean>;
  /** Keys that begin with `prefix`, literally, about `limit` of them; `cursor` is `undefined` at first, then what the last page gave. */
  scan?(prefix: string, cursor: any, limit: number): Awaitable<ScanPage>;
  /** Called once, when the last store over this object closes, and when opening one failed. */
  close?(): unknown;
  /** Values come as Buffers. Otherwise as strings, and one that is not UTF-8 is `INVALID`. */
  readonly binary?: boolean;
  /** `set` and `setIf` understand `Backend.KEEP`. */
  readonly keepsTtl?: boolean;
  /** Nobody else writes to this data: what is missing of pop, touch, incr and conditions may be derived, under a lock per key. (incr needs `keepsTtl`.) */
  readonly singleProcess?: boolean;
}

/** A base class for backends of your own. It has no methods: it is where KEEP is, and what `instanceof` can tell. */
export class Backend {
  /** In place of a ttl: the expiry that the value there has. */
  static readonly KEEP: unique symbol;
}

/**
 * One JSON state per id: API clients (Miro's `Storage`), web sessions. An id is text or an integer: `1` and `'1'` are one record, and
 * `'constructor'` is an id like any other.
 */
export class Storage<State = any> {
  constructor(store: Store);
  /** A copy of the state; `undefined` when there is none. */
  get(id: string | number | bigint): Promise<State | undefined>;
  /**
   * Stores a copy; `undefined` or `null` deletes. Over a memory store it is done when this returns, awaited or not. The last one wins, also over whoever
   * ended the state meanwhile: that is what API clients want, whose states come back with the next login. See `save` and `update`.
   */
  set(id: string | number | bigint, state: State | undefined | null): Promise<void>;
  /** Stores a copy in the place of a state that is there. `false`: there is none any more, and none was made. */
  save(id: string | number | bigint, state: State): Promise<boolean>;
  /**
   * Stores what `change` makes of the state, and gives it back; `undefined`: there is none, or `change` ended it. Where somebody else has changed the state
   * meanwhile, `change` is asked again, about what is there then. What it throws comes back, and nothing was stored. Not for a store that seals its values
   * (`NOT_SUPPORTED`): its backend cannot compare them.
   */
  update(id: string | number | bigint, change: (state: State) => State | undefined | null | Promise<State | undefined | null>): Promise<State | undefined>;
}

/**
 * One-time codes and OAuth state (Cross Auth's and better-auth's secondary storage): text or bytes with a short life, and a pop that has
 * one winner.
 */
export class SecondaryStorage {
  /** `ttl` (also as the number alone): seconds that a value lives when `set` does not say. Default: 600. */
  constructor(store: Store, options?: { ttl?: number } | number);
  /** Zero seconds or fewer deletes. */
  set(key: string, value: Value, ttl?: number): Promise<void>;
  get(key: string): Promise<string | undefined>;
  delete(key: string): Promise<void>;
  /** Get and delete, in one step. */
  pop(key: string): Promise<string | undefined>;
}

/** An id: those that this library makes are text; an integer of an application's own tables is the same id as its decimal text. */
export type Id = string | number | bigint;

/**
 * A user. `hashedPassword` is not enumerable, so that neither JSON nor a copy has it by accident; a log shows of every record which one it is, and nothing more.
 */
export interface User {
  readonly id: string;
  /** As it was given: mail goes there. */
  readonly email: string | null;
  readonly emailVerified: boolean;
  readonly hashedPassword: string | null;
  readonly hasUsablePassword: boolean;
  readonly userInfo: any;
  readonly extraFields: any;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** An account with a provider, of a user. `accessToken` and `refreshToken` are not enumerable. */
export interface SocialAccount {
  readonly id: string;
  readonly userId: string;
  readonly provider: string;
  readonly providerUserId: string;
  readonly providerEmail: string | null;
  readonly providerEmailVerified: boolean | null;
  readonly isLoginMethod: boolean;
  readonly accessToken: string | null;
  readonly refreshToken: string | null;
  readonly accessTokenExpiresAt: Date | null;
  readonly refreshTokenExpiresAt: Date | null;
  readonly scope: string | null;
  readonly userInfo: any;
  readonly extraFields: any;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** What is not said is null (`emailVerified` false), or stays as it is in an update; null takes away. */
export interface UserFields {
  /**
   * At most 320 bytes. Two addresses are one when only spaces around them and the case of ASCII letters differ: no dots or plus signs are stripped, and nobody is
   * ever taken for somebody else.
   */
  email?: string | null | undefined;
  emailVerified?: boolean | undefined;
  hashedPassword?: string | null | undefined;
  /** Any JSON value; a copy is kept. */
  userInfo?: unknown;
  extraFields?: unknown;
}

export interface SocialAccountChanges {
  providerEmail?: string | null | undefined;
  providerEmailVerified?: boolean | null | undefined;
  /** Whether one can sign in with it. Of a new one true if nothing is said. */
  isLoginMethod?: boolean | undefined;
  /** Sealed wherever the store, or the AccountsStorage over hooks, has `keys`. */
  accessToken?: string | null | undefined;
  refreshToken?: string | null | undefined;
  accessTokenExpiresAt?: Date | null | undefined;
  refreshTokenExpiresAt?: Date | null | undefined;
  scope?: string | null | undefined;
  userInfo?: unknown;
  extraFields?: unknown;
}

/** Who somebody is to a provider: there is one social account for each. */
export interface ProviderUser {
  provider: string;
  /** GitHub's is an integer, for example: the same as its decimal text. */
  providerUserId: Id;
}

export interface AccountsOptions {
  /** Social accounts that a user may have: 1 to 10000. Default: 64. One more is `LIMIT`. Hooks decide for themselves. */
  maxSocialAccounts?: number | undefined;
  /** Seconds that a call may take. Default: the store's; over hooks 5. */
  timeout?: number | undefined;
  /** Over hooks: the ring that seals tokens before a hook gets them, and opens them after. As in `OpenOptions`. */
  keys?: Iterable<readonly [id: number, key: Uint8Array]> | undefined;
  /** Over hooks: until when tokens that the tables have had before there were `keys` are read as they are; see `open`. */
  plainUntil?: Date | string | undefined;
  /** Over hooks: a stage of `counterfoil/testing`. */
  stage?: testing.Stage | undefined;
}

/**
 * Users, and the social accounts that belong to them (Cross Auth's storage). Over a store every method is one atomic step, whoever else calls: an e-mail
 * address has one user, and `provider` with `providerUserId` one social account. It needs a backend that keeps records (memory, SQLite, Redis), or one of
 * yours with `singleProcess`.
 *
 * Two e-mails are one when they are equal without the white space around them, in small ASCII letters, and with a domain outside ASCII as its A-labels:
 * `ann@bücher.de` and `Ann@xn--bcher-kva.de`. What was given is kept, and mail should go there. A domain that IDNA refuses is `INVALID`; nobody is found by it.
 *
 * Or over hooks: methods of your own, on tables of your own (`AccountsHooks`).
 *
 * Every method gives a promise and rejects, never throws. A miss is `undefined`; an id that is none of ours is a miss.
 */
export class AccountsStorage {
  constructor(storeOrHooks: Store | AccountsHooks, options?: AccountsOptions);
  /** An address that cannot be one is a miss. */
  findUserByEmail(email: string): Promise<User | undefined>;
  findUserById(id: Id): Promise<User | undefined>;
  /** `EXISTS`: the user that has the e-mail. */
  createUser(fields: UserFields): Promise<User>;
  /** `MISSING`; `EXISTS`: another user has that e-mail. */
  updateUser(id: Id, changes: UserFields): Promise<User>;
  /** Whether it was there. With it go its social accounts and sessions. */
  deleteUser(id: Id): Promise<boolean>;
  findSocialAccount(by: ProviderUser): Promise<SocialAccount | undefined>;
  findSocialAccountById(id: Id): Promise<SocialAccount | undefined>;
  /** All of them, the oldest first. */
  listSocialAccounts(by: { userId: Id }): Promise<SocialAccount[]>;
  /** `EXISTS`: the one that is there; `MISSING`: there is no such user; `LIMIT`. */
  createSocialAccount(fields: ProviderUser & { userId: Id } & SocialAccountChanges): Promise<SocialAccount>;
  /** `MISSING`. Whose it is and what the provider calls it cannot change. */
  updateSocialAccount(id: Id, changes: SocialAccountChanges): Promise<SocialAccount>;
  /** Whether it was there. */
  deleteSocialAccount(id: Id): Promise<boolean>;
  /**
   * The social account and its user; where there is none, both are made in one step: of any number of logins at once, one makes them. `EXISTS`: a user has
   * that e-mail, and nothing was linked: who owns an address must be asked; then link with `createSocialAccount`.
   */
  findOrCreateBySocialAccount(fields: ProviderUser & SocialAccountChanges & { user: UserFields }): Promise<FoundOrCreated>;
  /**
   * Seals the tokens of all social accounts that an older key of the ring has sealed with the first one, so that the old one can be given up; until
   * `plainUntil` also those that are plain. It works while it is iterated, a page of accounts at a time, and says after each how many tokens it has sealed
   * and how many do not open, which it leaves: `for await (const { sealed, unreadable } of accounts.reseal()) console.log(sealed)`. A token that is
   * changed meanwhile stays as it was left. Once it has come to its end, and every program seals with the new key, no token needs the old one any more (a store
   * with `sealValues` needs `Store.reseal` too). Stopped, or ended by an error, it can begin again. `INVALID` without keys; `NOT_SUPPORTED` over hooks,
   * whose tables it cannot list (saving an account's tokens seals them), and where a backend of yours has no `scan`.
   */
  reseal(): AsyncGenerator<Resealed, void, undefined>;
  /** Over hooks: what waits rejects with `CLOSED`, and so does what comes later. Over a store nothing: the store is yours to close. */
  close(): Promise<void>;
}

export interface FoundOrCreated {
  user: User;
  socialAccount: SocialAccount;
  /** Whether they were made now. */
  created: boolean;
}

/** What a hook gives for a user. Of the rest, what is missing is null, `emailVerified` false, `isLoginMethod` true, and `createdAt` 1970. */
export interface GivenUser {
  id: Id;
  email?: string | null | undefined;
  emailVerified?: boolean | undefined;
  hashedPassword?: string | null | undefined;
  userInfo?: unknown;
  extraFields?: unknown;
  createdAt?: Date | undefined;
  updatedAt?: Date | undefined;
}

/** And for a social account: its tokens are what the hook was given. */
export interface GivenSocialAccount extends ProviderUser, SocialAccountChanges {
  id: Id;
  userId: Id;
  createdAt?: Date | undefined;
  updatedAt?: Date | undefined;
}

/** The fields of a user for a hook: beside the e-mail its normalised form, which is what must be unique and is looked up. */
export interface HookUserFields extends UserFields {
  emailKey?: string | null | undefined;
}

/** `ProviderUser` for a hook. */
export interface HookProviderUser extends ProviderUser {
  providerUserId: string;
}

/**
 * The methods of an `AccountsStorage`, done by you: all, or those that you need (another one rejects with `NOT_SUPPORTED`). They give their result or a promise;
 * ids come as text. What they throw reaches the caller as the same object, so a duplicate may be told by `new CounterfoilError('...', 'EXISTS')`. A
 * result of a wrong type is `CORRUPT`, a promise that does not settle `TIMEOUT`. `examples/accounts_pg.cjs` is such an object over PostgreSQL.
 */
export interface AccountsHooks {
  /** By the normalised address. */
  findUserByEmail?(emailKey: string): Awaitable<GivenUser | null | undefined>;
  findUserById?(id: string): Awaitable<GivenUser | null | undefined>;
  createUser?(fields: HookUserFields): Awaitable<GivenUser>;
  /** Nothing: there is no such user, `MISSING`. */
  updateUser?(id: string, changes: HookUserFields): Awaitable<GivenUser | null | undefined>;
  /** Whether it was there; `undefined` counts as yes. */
  deleteUser?(id: string): Awaitable<boolean | void | null | undefined>;
  findSocialAccount?(by: HookProviderUser): Awaitable<GivenSocialAccount | null | undefined>;
  findSocialAccountById?(id: string): Awaitable<GivenSocialAccount | null | undefined>;
  listSocialAccounts?(by: { userId: string }): Awaitable<GivenSocialAccount[]>;
  createSocialAccount?(fields: HookProviderUser & { userId: string } & SocialAccountChanges): Awaitable<GivenSocialAccount>;
  /** Nothing: `MISSING`. With `keys`, `findSocialAccountById` is asked first: a token is sealed for its own account. */
  updateSocialAccount?(id: string, changes: SocialAccountChanges): Awaitable<GivenSocialAccount | null | undefined>;
  deleteSocialAccount?(id: string): Awaitable<boolean | void | null | undefined>;
  /** In one transaction. */
  findOrCreateBySocialAccount?(
    fields: HookProviderUser & SocialAccountChanges & { user: HookUserFields },
  ): Awaitable<{ user: GivenUser; socialAccount: GivenSocialAccount; created: boolean }>;
}

export type SessionStatus = 'active' | 'expired' | 'revoked';

/** A session record. `tokenHash` is not enumerable. Instants are cut to the millisecond where another language wrote a finer one. */
export interface Session {
  readonly id: string;
  readonly userId: string;
  readonly tokenHash: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly expiresAt: Date;
  readonly lastActiveAt: Date | null;
  readonly revokedAt: Date | null;
  readonly clientId: string | null;
  readonly clientName: string | null;
  readonly userAgent: string | null;
  readonly ip: string | null;
  /** How often all sessions of the user had been revoked when it was made. */
  readonly epoch: number;
  /** When it was read, or at the `now` that was given: revoked when it has a `revokedAt`, else expired after its `expiresAt`; at that very instant it is active. */
  readonly status: SessionStatus;
}

export interface SessionFields {
  /** A hash of the token (SHA-256 in hex), never the token: at most 512 bytes. */
  tokenHash: string;
  /** Any text: the user need not be in an AccountsStorage. */
  userId: Id;
  createdAt: Date;
  updatedAt: Date;
  expiresAt: Date;
  lastActiveAt?: Date | null | undefined;
  clientId?: string | null | undefined;
  clientName?: string | null | undefined;
  userAgent?: string | null | undefined;
  ip?: string | null | undefined;
  /** What `epoch` gave when the login began: `CHANGED` when all sessions of the user were revoked meanwhile. */
  epoch?: number | undefined;
}

export interface SessionsOptions {
  /** Records of one user: 1 to 10000. Default: 100. */
  maxSessions?: number | undefined;
  /**
   * What becomes of one more. First the oldest that has ended makes room; where none has, the oldest there is (`oldestOut`, the default), or the new one is refused with
   * `LIMIT` (`refuse`).
   */
  whenFull?: 'oldestOut' | 'refuse' | undefined;
  /** Seconds that a record is kept after its `expiresAt`, so that a user can see it. Default: 2592000 (30 days). */
  retention?: number | undefined;
  /** Seconds that a call may take. Default: the store's. */
  timeout?: number | undefined;
}

export interface ListOptions {
  /** Default: now. */
  now?: Date | undefined;
  /** Only these. */
  status?: SessionStatus | null | undefined;
  /** Default: updatedAtDesc. Ties are ordered by id. */
  orderBy?: 'updatedAtDesc' | 'updatedAtAsc' | 'createdAtDesc' | 'createdAtAsc' | 'expiresAtDesc' | 'expiresAtAsc' | undefined;
  /** Of one page: 1 to 10000. Default: 50. */
  limit?: number | undefined;
  /** `nextCursor` of the page before; good for the same order only. */
  cursor?: string | null | undefined;
}

/**
 * Session records, found by the hash of a token (Cross Auth's session storage). They stay for a while after their end, so that a user can see them. Over the same
 * backends as `AccountsStorage`; every method is one atomic step.
 */
export class SessionStorage {
  constructor(store: Store, options?: SessionsOptions);
  /** `EXISTS`: that token hash is taken; `CHANGED`: see `epoch`; `LIMIT`. */
  create(fields: SessionFields): Promise<Session>;
  /** The session, if it is active. */
  get(by: { tokenHash: string; now?: Date | undefined }): Promise<Session | undefined>;
  /** The session, whatever its status. */
  getAny(id: Id): Promise<Session | undefined>;
  /** A page of a user's sessions; `nextCursor` is `undefined` at the end. `CURSOR`: that cursor is none of this list's. */
  listForUser(userId: Id, options?: ListOptions): Promise<{ records: Session[]; nextCursor: string | undefined }>;
  /** `undefined` where it is missing or revoked. `lastActiveAt` stays where it is not said. */
  refresh(id: Id, changes: { updatedAt: Date; expiresAt: Date; lastActiveAt?: Date | null | undefined }): Promise<Session | undefined>;
  /** Whether it is there. The first `revokedAt` stays. */
  revoke(id: Id, options: { revokedAt: Date }): Promise<boolean>;
  /** How many were revoked now, expired ones too. A login that has begun before this and says its `epoch` is refused afterwards. */
  revokeAllForUser(userId: Id, options: { revokedAt: Date; exceptSessionId?: Id | null | undefined }): Promise<number>;
  /** How often all sessions of the user have been revoked: read it when a login begins, and give it to `create`. */
  epoch(userId: Id): Promise<number>;
}

export {};
