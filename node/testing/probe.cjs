'use strict';

// What a probe of a rule has at hand: stores that it asks for, calls that end, time, and how to say what was seen.

const { randomBytes } = require('node:crypto');
const path = require('node:path');
// The real ones, also where a test has put others in their place: a bound that depends on them would be none.
const { setTimeout, clearTimeout, setImmediate } = require('node:timers');
const { setTimeout: sleep } = require('node:timers/promises');

/** How far a real clock and a timer may be apart, in milliseconds. */
const SLACK = 25;

/** A rule that does not hold. `hung`: what was waited for has no end. */
class Broken extends Error {
  constructor(expected, seen, error, hung = false) {
    super(seen);
    Object.assign(this, { expected, seen, error, hung });
  }
}

/** A rule that says nothing about this store. */
class NotApplicable extends Error {}

/** The first line of the store's own code that an error came through. */
function placeOf(error) {
  const frames = String(error.stack)
    .split('\n')
    .filter((line) => /^\s+at /.test(line) && !line.includes(__dirname) && !/[( ]node:/.test(line));
  const [, file, line] = frames[0]?.match(/\(?([^()\s]+):(\d+):\d+\)?$/) ?? [];
  return file === undefined ? '' : ` at ${path.basename(file)}:${line}`;
}

/** An error without its message: that may hold a password or a session. */
function sayError(error) {
  if (!(error instanceof Error)) return `${show(error)} that is no Error`;
  const name = /^\w{1,60}$/.test(error.name) ? error.name : 'Error';
  const code = error.code !== undefined && /^[\w.-]{1,60}$/.test(error.code) ? ` (${error.code})` : '';
  return `${name}${code}${placeOf(error)}`;
}

/** A value, as far as it is no secret: what the kit has made itself, and what kind the rest is. */
function show(value) {
  if (typeof value === 'string')
    return /^kit[ -][ -~]{0,60}$/.test(value) ? JSON.stringify(value) : `a string of ${value.length} characters`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return 'a symbol';
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

/** What happens to the whole process is watched by one probe at a time, of whichever check. */
let watching = Promise.resolve();

/**
 * Does `work`, and gives what was thrown or rejected where nobody looked, in the time of a few turns of the event loop. The
 * listeners of others, those of a test runner above all, are away meanwhile.
 */
function unseen(work) {
  const done = watching.then(async () => {
    const seen = [];
    const take = (error) => {
      seen.push(error);
    };
    try {
      process.setUncaughtExceptionCaptureCallback(take);
    } catch {
      throw new NotApplicable('somebody else takes the uncaught errors of this process (a capture callback, or a domain)');
    }
    const others = process.rawListeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', take);
    try {
      await work();
      await sleep(10);
    } finally {
      process.setUncaughtExceptionCaptureCallback(null);
      process.off('unhandledRejection', take);
      for (const other of others) process.on('unhandledRejection', other);
    }
    return seen;
  });
  watching = done.catch(() => {});
  return done;
}

class Probe {
  #definition;
  #made = [];
  #restore;
  #run = randomBytes(6).toString('hex');
  #keys = 0;
  over = false; // its time is up: what goes on in the background does nothing more

  constructor(definition) {
    this.#definition = definition;
  }

  // ------------------------------------------------------------------------------------------------------- judgements --

  expect(holds, expected, seen) {
    if (!holds) throw new Broken(expected, seen);
  }
  /** Whatever was seen, it is not this. */
  same(seen, wanted, expected) {
    this.expect(Object.is(seen, wanted), expected, show(seen));
  }
  skip(reason) {
    throw new NotApplicable(reason);
  }
  /** Ends the probe where the store has no such method. */
  needs(store, ...methods) {
    for (const method of methods) if (typeof store[method] !== 'function') this.skip(`there is no ${method}()`);
  }

  // ----------------------------------------------------------------------------------------------------------- stores --

  /** A text that is no other's, as key, id or name. */
  key(name = '') {
    return `kit-${this.#run}-${this.#keys++}${name}`;
  }

  async make() {
    const { value, error, failed } = await this.#settled('make()', () => this.#definition.make());
    if (failed) throw new Broken('make() gives a store', `it failed: ${sayError(error)}`, error);
    if ((typeof value !== 'object' && typeof value !== 'function') || value === null)
      throw new Broken('make() gives a store', show(value));
    this.#made.push(value);
    return value;
  }

  /** Makes the store unreachable, if the user has said how. */
  async fault(store) {
    const { fault } = this.#definition;
    if (fault === undefined) this.skip('give `fault` a function that makes a store unreachable, to have it tried');
    const { value, error, failed } = await this.#settled('fault()', () => fault(store));
    if (failed) throw new Broken('fault() makes the store unreachable', `it failed: ${sayError(error)}`, error);
    this.#restore = value;
  }

  /** And reachable again. */
  async restore() {
    const restore = this.#restore;
    this.#restore = undefined;
    if (typeof restore !== 'function')
      this.skip('let `fault` give a function that makes the store reachable again, to have it tried');
    const { error, failed } = await this.#settled('what fault() gave', restore);
    if (failed) throw new Broken('what fault() gave makes the store reachable again', `it failed: ${sayError(error)}`, error);
  }

  /** Gives back every store; the first failure, if one fails. */
  async close() {
    this.over = true;
    let broken;
    const end = async (what, work) => {
      const { error, failed } = await this.#settled(what, work).catch((hung) => ({ error: hung.error, failed: true, hung }));
      if (failed) broken ??= new Broken(`${what} succeeds`, `it failed: ${sayError(error)}`, error);
    };
    if (typeof this.#restore === 'function') await end('what fault() gave', this.#restore);
    if (this.#definition.cleanup)
      for (const store of new Set(this.#made)) await end('cleanup()', () => this.#definition.cleanup(store));
    if (broken) throw broken;
  }

  // ------------------------------------------------------------------------------------------------------------ calls --

  /** What became of a call; one that has no end is Broken. */
  async #settled(what, work) {
    const { timeout } = this.#definition;
    let timer;
    const hung = new Promise((resolve, reject) => {
      timer = setTimeout(
        () => reject(new Broken(`${what} settles`, `it had not after ${timeout} seconds`, undefined, true)),
        timeout * 1000,
      );
    });
    // A promise of our own around it: a thenable may do what it likes.
    const done = new Promise((resolve) => resolve(work())).then(
      (value) => ({ value, failed: false }),
      (error) => ({ error, failed: true }),
    );
    try {
      return await Promise.race([done, hung]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** `work` gets resolve and reject; for what answers by a callback. */
  settle(what, work) {
    if (this.over) return new Promise(() => {});
    return this.#settled(what, () => new Promise(work));
  }

  /** {value} or {error} of a method that gives a value or a promise. */
  async attempt(store, method, ...args) {
    if (this.over) return new Promise(() => {});
    // Whether there must be one, shape.methods says.
    if (typeof store[method] !== 'function') this.skip(`there is no ${method}()`);
    return this.#settled(`${method}()`, () => store[method](...args));
  }

  /** The value; a failure is Broken. */
  call(store, method, ...args) {
    const value = this.attempt(store, method, ...args).then(({ value: given, error, failed }) => {
      if (failed) throw new Broken(`${method}() succeeds`, `it failed: ${sayError(error)}`, error);
      return given;
    });
    value.catch(() => {}); // where another call beside it has ended the probe already
    return value;
  }

  /** So many calls in one tick. */
  crowd(count, work) {
    return Promise.all(Array.from({ length: count }, (_, index) => work(index)));
  }

  // ------------------------------------------------------------------------------------------------------------- time --

  get staged() {
    return this.#definition.clock !== undefined;
  }
  now() {
    return Number(this.#definition.clock?.now() ?? Date.now());
  }
  async pass(ms) {
    if (this.staged) await this.#definition.clock.advance(ms / 1000);
    else await sleep(ms);
  }
  async until(instant) {
    for (let left; (left = instant - this.now()) > 0;) await this.pass(Math.ceil(left));
  }
  turn() {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /**
   * Does what must have been done before a life (in seconds) is over; where the machine was too slow for that, and whatever was
   * seen then, once more with a longer one.
   */
  async within(work) {
    for (let life = 0.2; life < 10; life *= 3) {
      const before = this.now();
      let value;
      let broken;
      try {
        value = await work(life);
      } catch (error) {
        if (!(error instanceof Broken) || error.hung) throw error;
        broken = error;
      }
      if (this.now() >= before + life * 1000) continue;
      if (broken) throw broken;
      return value;
    }
    return this.skip('this machine is too slow to tell');
  }

  /**
   * That something which is put with a life (in milliseconds) is there until its end, and not from that on. On a real clock it is
   * looked at before and after; where the machine was too slow to tell, a longer life is tried.
   */
  async exactly(put, isThere, expected) {
    for (let life = 400, tries = 0; tries < 4; life *= 2, tries++) {
      const before = this.now();
      await put(life);
      const after = this.now();
      await this.until(this.staged ? before + life - 1 : before + life * 0.75);
      const early = await isThere();
      if (this.now() >= before + life) continue;
      this.expect(early, expected, 'it was gone before');
      await this.until(after + life + (this.staged ? 0 : SLACK));
      this.expect(!(await isThere()), expected, this.staged ? 'it was there at that instant' : `it was there ${SLACK} ms later`);
      return;
    }
    this.skip('this machine is too slow to tell');
  }

  /** Waits until something has ended: from `instant` on, for `late` milliseconds at most. Whether it has. */
  async ends(instant, late, isThere) {
    await this.until(instant);
    for (;;) {
      const asked = this.now();
      if (!(await isThere())) return true;
      if (asked > instant + late + SLACK) return false;
      await this.pass(50);
    }
  }
}

module.exports = { Probe, Broken, NotApplicable, SLACK, sayError, show, sleep, unseen };
