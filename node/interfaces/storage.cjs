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

function stateOf(text) {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new CounterfoilError('the stored state is not JSON', 'CORRUPT'); // the engine's sentence would show a piece of it
  }
}

class Storage {
  #handle;
  #store;

  constructor(store) {
    this.#handle = handleOf(store);
    this.#store = store;
  }

  async get(id) { return stateOf(await promised(this.#handle.storageGet(idText(id)))); }

  // Not an async function: over a backend that does not wait, the state is there when this returns, awaited or not.
  set(id, state) {
    try {
      return promised(this.#handle.storageSet(idText(id), stateText(state)));
    } catch (error) { return Promise.reject(error); }
  }

  async save(id, state) {
    const text = stateText(state);
    if (text === undefined) throw invalid('save keeps a state; set(id, undefined) ends one');
    return this.#store.set(idText(id), text, { ifPresent: true });
  }

  async update(id, change) {
    if (typeof change !== 'function') throw invalid('update takes a function that makes a state of a state');
    const key = idText(id);
    for (;;) {
      const before = await promised(this.#handle.storageGet(key));
      if (before === undefined) return undefined;
      const state = await change(stateOf(before));
      const after = stateText(state);
      if (after === undefined) {
        await this.set(id, undefined);
        return undefined;
      }
      if (await this.#store.set(key, after, { ifEqual: before })) return state;
    }
  }
}

module.exports = { Storage };
