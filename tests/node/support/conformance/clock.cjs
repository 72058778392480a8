'use strict';

/** A clock that stands still until a test moves it: `now` is a Date, as that of a Stage is. */
class Clock {
  #ms = Date.UTC(2031, 4, 6, 7, 8, 9, 10);
  now() {
    return new Date(this.#ms);
  }
  advance(seconds) {
    this.#ms += seconds * 1000;
  }
}

/** A turn of the event loop, in which everything else that waits for nothing goes on. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

const unreachable = () => new Error('unreachable');

/** The fault of a definition, for stores that look at `broken`. */
const fault = (store) => {
  store.broken = true;
  return () => {
    store.broken = false;
  };
};

module.exports = { Clock, turn, unreachable, fault };
