import counterfoil = require('./index.cjs');

/**
 * A stage for tests of an application's own expiry and error paths: a clock that the test moves, and memory that runs out when
 * the test says so. Give it to `open`; several stores may share one, and `memory:NAME` is shared among the stores of one stage
 * only.
 *
 * ```js
 * const stage = new Stage();
 * const store = open('memory:', { stage });
 * await store.set('code', '1234', { ttl: 600 });
 * stage.advance(600);
 * await store.get('code'); // undefined
 * ```
 */
export class Stage {
  /** The clock starts at the real time and stands still until it is moved. */
  constructor();
  /**
   * Moves time on by so many seconds (0 and more; rounded to milliseconds). Deadlines that pass are noticed on the next turn of
   * the event loop.
   */
  advance(seconds: number): void;
  /** Steps the wall clock alone, forwards or back, as somebody who sets the machine's clock does. */
  stepWall(seconds: number): void;
  /**
   * Lets the nth allocation of the core from now fail (1 is the next): once, or it and all after it with `forGood`. 0: none
   * fails.
   */
  failAllocation(n: number, options?: { forGood?: boolean }): void;
  /** Whether the allocation that was last asked to fail has failed. */
  readonly failed: boolean;
  /** Blocks of memory that the core holds on this stage: 0 once every store on it is closed. */
  readonly blocks: number;
  /** The wall clock of this stage. */
  now(): Date;
}

// ------------------------------------------------------------------------------------------------------ conformance kit --

/**
 * What can be checked:
 *
 * - `backend`: a backend of your own, with the methods that `open` takes (`BackendMethods`)
 * - `express-session`: a store for express-session, whoever has written it
 * - `curveball`: a session store of @curveball/session
 * - `fluidauth`: a session store of @fluidauth/express
 * - `miro`: a storage of @mirohq/miro-api
 * - `hooks`: an object with methods of an AccountsStorage, on tables of your own (`AccountsHooks`)
 */
export type Kind = 'backend' | 'express-session' | 'curveball' | 'fluidauth' | 'miro' | 'hooks';

/** Something that must hold. */
export interface Rule {
  /** `pop.one_winner`: area and name; the same in Python (`counterfoil.testing`) where the rule is the same. */
  readonly id: string;
  readonly sentence: string;
  /** Why it matters. */
  readonly why: string;
  /** Where anybody can read that it must hold: the framework's file and version, an RFC, a page of ours. */
  readonly source: string;
  /** Tried when no other rule is: it is about everything in the store, or about the whole process. */
  readonly alone: boolean;
  /** Tried only where it is asked for, by `also`: stores may decide otherwise. */
  readonly asked: boolean;
}

/** All rules, by kind. */
export const rules: { readonly [K in Kind]: readonly Rule[] };

/** What came of a rule. Nothing in it is a key, a value or an error's message of the store's own. */
export interface Result {
  /** The id of the rule. */
  readonly rule: string;
  /**
   * `not applicable`: the store does not have what the rule is about, or it was not given what the rule needs; `seen` says which.
   */
  readonly outcome: 'passed' | 'failed' | 'not applicable';
  readonly sentence: string;
  readonly expected: string;
  readonly seen: string;
  readonly why: string;
  readonly source: string;
  /** What the store has thrown, if that was it. Not enumerable: its message may hold what is no business of a log. */
  readonly error?: unknown;
}

/** A clock that your store goes by: a `Stage` is one. Without one the kit waits for real, a few seconds in all. */
export interface Clock {
  /** The time of the store: a `Date`, or milliseconds since 1970. */
  now(): Date | number;
  /** Moves it on by so many seconds. */
  advance(seconds: number): unknown;
}

/** What to check, and how it is made. A function alone is `make`. */
export interface Definition<Thing> {
  /**
   * Gives a store, or a promise of one. It is called several times for some rules, and for many at once; whether they share their
   * data is up to you: the keys of the kit are its own. Rules about everything in a store (`clear`, `length`) come last, one at a
   * time: nobody else may use it then. Where two stores that were made see each other's data, those about one winner are tried
   * between the two.
   */
  make: () => Thing | PromiseLike<Thing>;
  /** Gives a store back: called once for each, after its rule. */
  cleanup?: ((thing: Thing) => unknown) | undefined;
  clock?: Clock | undefined;
  /**
   * Makes a store unreachable (ends its connection, locks its file), and may give a function that makes it reachable again.
   * Without it the rules about faults are not applicable.
   */
  fault?: ((thing: Thing) => unknown) | undefined;
  /**
   * Seconds after which a call that has not settled has failed. Default: 5; above 0, at most 600. A rule has four times that, and
   * ten seconds.
   */
  timeout?: number | undefined;
  /** Rules to try that are tried only where they are asked for. */
  also?: readonly string[] | undefined;
  /** Rules that are not to be tried, each with the reason, which is reported. */
  except?: { readonly [rule: string]: string } | undefined;
}

/** A function that makes it, or a definition. */
export type Made<Thing> = (() => Thing | PromiseLike<Thing>) | Definition<Thing>;

/** A store for express-session, as far as the kit needs to know. Its own types are of express-session. */
export interface ExpressStoreLike {
  get(sid: string, callback: (error: any, session?: any) => void): unknown;
  set(sid: string, session: any, callback?: (error?: any) => void): unknown;
  destroy(sid: string, callback?: (error?: any) => void): unknown;
}

/** A session store of @curveball/session. */
export interface CurveballStoreLike {
  set(id: string, values: any, expire: number): PromiseLike<void>;
  get(id: string): PromiseLike<any>;
  delete(id: string): PromiseLike<void>;
  newSessionId(): PromiseLike<string>;
}

/** A session store of @fluidauth/express. */
export interface FluidAuthStoreLike {
  create(sessionData: any): unknown;
  update(sessionId: string, sessionData: any): unknown;
  delete(sessionId: string): unknown;
  get(sessionId: string): unknown;
  clean(): unknown;
}

/** A storage of @mirohq/miro-api. */
export interface MiroStorageLike {
  get(userId: any): unknown;
  set(userId: any, state: any): unknown;
}

/** What is checked, by kind. */
export interface Things {
  backend: counterfoil.BackendMethods;
  'express-session': ExpressStoreLike;
  curveball: CurveballStoreLike;
  fluidauth: FluidAuthStoreLike;
  miro: MiroStorageLike;
  hooks: counterfoil.AccountsHooks;
}

/**
 * Checks something of yours against the rules of its kind, without any test runner. The results come in the order of the rules.
 *
 * ```js
 * const report = await check('express-session', { make: () => new MyStore(), cleanup: (store) => store.close() });
 * for (const result of report.filter(({ outcome }) => outcome === 'failed')) console.log(explain(result));
 * ```
 *
 * Everything that is awaited has a bound, so a store that hangs fails; a loop that never gives the event loop its turn cannot be
 * ended. Rejects with `INVALID` (a `CounterfoilError`) where the kind, an option or a rule is unknown. While rules about
 * unhandled rejections are tried, this process has no other listeners for them.
 */
export function check<K extends Kind, Thing extends Things[K]>(kind: K, thing: Made<Thing>): Promise<Result[]>;

/**
 * A result as text for a person: the sentence, and of a failure what was expected, what was seen, why it matters and where the
 * rule is from.
 */
export function explain(result: Result): string;

/**
 * Registers a suite of node:test, with a test for each rule: a failure explains itself, and what does not apply is skipped with
 * the reason.
 *
 * ```js
 * testBackend('mine', () => new MyBackend());
 * ```
 *
 * Throws `INVALID` at once where the definition cannot be meant.
 */
export function testBackend<Backend extends counterfoil.BackendMethods>(name: string, thing: Made<Backend>): void;
/**
 * The same for a store of express-session: `testExpressStore('mine', { make: () => new MyStore(), cleanup: (store) =>
 * store.close() })`.
 */
export function testExpressStore<Store extends ExpressStoreLike>(name: string, thing: Made<Store>): void;
/** The same for a session store of @curveball/session. */
export function testCurveballStore<Store extends CurveballStoreLike>(name: string, thing: Made<Store>): void;
/** The same for a session store of @fluidauth/express. */
export function testFluidAuthStore<Store extends FluidAuthStoreLike>(name: string, thing: Made<Store>): void;
/** The same for a storage of @mirohq/miro-api. */
export function testMiroStorage<Storage extends MiroStorageLike>(name: string, thing: Made<Storage>): void;
/** The same for hooks of an AccountsStorage. */
export function testHooks<Hooks extends counterfoil.AccountsHooks>(name: string, thing: Made<Hooks>): void;
