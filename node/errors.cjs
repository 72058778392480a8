'use strict';

/** Every error of this library. What a backend of your own throws is never wrapped: it arrives as the object that was thrown. */
class CounterfoilError extends Error {
  constructor(message, code, outcome = 'not_applied', receipt = undefined, existing = undefined) {
    super(message);
    this.code = code;
    this.outcome = outcome;
    // Not enumerable, so that no log has it: for a while it is worth what the call was asked for.
    if (receipt !== undefined) Object.defineProperty(this, 'receipt', { value: receipt, configurable: true, writable: true });
    // Nor this: of an EXISTS, the record that is there already.
    if (existing !== undefined) Object.defineProperty(this, 'existing', { value: existing, configurable: true, writable: true });
  }
}
// On the prototype, as JavaScript's own errors have it: not a property of each one that would be printed beside the code.
Object.defineProperty(CounterfoilError.prototype, 'name', { value: 'CounterfoilError', configurable: true, writable: true });

const invalid = (message) => new CounterfoilError(message, 'INVALID');

module.exports = { CounterfoilError, invalid };
