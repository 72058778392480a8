'use strict';

const { native } = require('./native.cjs');
const { invalid } = require('./errors.cjs');

let nativeOf;

/** Milliseconds of a number of seconds; INVALID for what is none. */
function milliseconds(seconds, from) {
  if (typeof seconds !== 'number' || !(seconds >= from) || !(seconds <= 1e12)) throw invalid('the number of seconds is out of range');
  return Math.round(seconds * 1000);
}

class Stage {
  #native = new native.Stage();

  static {
    nativeOf = (stage) => (typeof stage === 'object' && stage !== null && #native in stage ? stage.#native : undefined);
  }

  advance(seconds) { this.#native.advance(milliseconds(seconds, 0)); }
  stepWall(seconds) { this.#native.stepWall(milliseconds(seconds, -1e12)); }

  failAllocation(n, { forGood = false } = {}) {
    if (!Number.isSafeInteger(n) || n < 0) throw invalid('n must be a whole number');
    if (typeof forGood !== 'boolean') throw invalid('forGood must be true or false');
    this.#native.failAllocation(n, forGood);
  }

  get failed() { return this.#native.failed(); }
  get blocks() { return this.#native.blocks(); }
  now() { return new Date(this.#native.now()); }
}

module.exports = { Stage, nativeOf };
