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
 * - `EXISTS`: there is such a record already
 * - `AUTH`: the backend refused our credentials or rights, or could not prove who it is (TLS)
 * - `CANCELED`: the caller cancelled
 * - `ENDED`, `CHANGED`: of the express-session store alone, where its options ask for them (`saveEnded`, `saveChanged`)
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
  constructor(message: string, code: ErrorCode, outcome?: Outcome, receipt?: string);
  readonly name: 'CounterfoilError';
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  /**
   * With the outcome `unknown`, of `pop`, `incr` and `set` with `ifAbsent` or `ifEqual`, where the backend keeps receipts (Redis): names this
   * one call. The same call with this text as the option `receipt` gives the answer that was lost, if the call took effect, and otherwise acts now;
   * for twice the timeout. Not enumerable, so that logs do not show it.
   */
  readonly receipt?: string;
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
   * The ring for `sealValues`: pairs of an id (an integer from 1 to 2^32 - 1) and 32 random bytes; at most 64. Make a key once, with
   * `openssl rand -base64 32`, and keep it with your other secrets: `[[1, Buffer.from(process.env.STORE_KEY, 'base64')]]`. Who loses it loses the values.
   */
  keys?: Iterable<readonly [id: number, key: Uint8Array]>;
  /**
   * Keys are kept as their SHA-256, so that a copy of the data holds no session id that works. `scan`, and `count` and `clear` with a prefix, reject
   * with `NOT_SUPPORTED`. What can be guessed (an e-mail, six digits) can be guessed from its hash.
   */
  hashKeys?: boolean;
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

  // redis:, rediss: and redis+unix: (maxPending and maxPendingBytes sqlite: too)

  /** The database, where the URL's path does not say it. */
  db?: number;
  /** With `password`, instead of those in front of the host: as they are, nothing needs to be encoded. */
  user?: string;
  password?: string;
  /** The name of the connection on the server (CLIENT SETNAME): printable ASCII without spaces. Default: counterfoil. */
  name?: string;
  /** Seconds for one attempt to connect. Default: 2. */
  connectTimeout?: number;
  /** Seconds without any answer, while one is owed, after which a connection is given up. Default: 10. */
  silence?: number;
  /** Operations that may wait for an answer at once; what is beyond rejects with `BUSY` at once. Default: 10000. */
  maxPending?: number;
  /** The same for their bytes. Default: 33554432 (32 MiB). */
  maxPendingBytes?: number;
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
  /** Stores a copy; `undefined` or `null` deletes. Over a memory store it is done when this returns, awaited or not. */
  set(id: string | number | bigint, state: State | undefined | null): Promise<void>;
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

export {};
