/**
 * A stage for tests of an application's own expiry and error paths: a clock that the test moves, and memory that runs out when the
 * test says so. Give it to `open`; several stores may share one, and `memory:NAME` is shared among the stores of one stage only.
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
  /** Moves time on by so many seconds (0 and more; rounded to milliseconds). Deadlines that pass are noticed on the next turn of the event loop. */
  advance(seconds: number): void;
  /** Steps the wall clock alone, forwards or back, as somebody who sets the machine's clock does. */
  stepWall(seconds: number): void;
  /** Lets the nth allocation of the core from now fail (1 is the next): once, or it and all after it with `forGood`. 0: none fails. */
  failAllocation(n: number, options?: { forGood?: boolean }): void;
  /** Whether the allocation that was last asked to fail has failed. */
  readonly failed: boolean;
  /** Blocks of memory that the core holds on this stage: 0 once every store on it is closed. */
  readonly blocks: number;
  /** The wall clock of this stage. */
  now(): Date;
}
