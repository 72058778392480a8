'use strict';

const { promised } = require('../native.cjs');
const { handleOf } = require('../store.cjs');
const { CounterfoilError, invalid } = require('../errors.cjs');

/** An id is text, or an integer, which is the same id as its decimal text. */
function idText(id) {
  if (typeof id === 'string') return id;
  if (typeof id === 'number' && Number.isSafeInteger(id)) return String(id);
  if (typeof id === 'bigint' && id >= Number.MIN_SAFE_INTEGER && id <= Number.MAX_SAFE_INTEGER) return String(id);
  throw invalid('the id must be a string or a safe integer');
}

function stateText(state) {
  if (state === undefined || state === null) return undefined;
  let text;
  try {
    text = JSON.stringify(state);
  } catch {
    // Not as the cause: the engine's sentence shows property names of the state.
    throw invalid('the state cannot be written as JSON');
  }
  if (text === undefined || text === 'null') throw invalid('the state cannot be written as JSON');
  return text;
}

class Storage {
  #handle;

  constructor(store) { this.#handle = handleOf(store); }

  async get(id) {
    const text = await promised(this.#handle.storageGet(idText(id)));
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw new CounterfoilError('the stored state is not JSON', 'CORRUPT'); // the engine's sentence would show a piece of it
    }
  }

  // Not an async function: over a backend that does not wait, the state is there when this returns, awaited or not.
  set(id, state) {
    try {
      return promised(this.#handle.storageSet(idText(id), stateText(state)));
    } catch (error) { return Promise.reject(error); }
  }
}

module.exports = { Storage };
