'use strict';

const { native, promised } = require('../native.cjs');
const { handleOf, known } = require('../store.cjs');

const DEFAULT_TTL = 600;

class SecondaryStorage {
  #handle;
  #ttl; // milliseconds

  constructor(store, options = {}) {
    this.#handle = handleOf(store);
    const { ttl = DEFAULT_TTL } = typeof options === 'number' ? { ttl: options } : known(options, ['ttl']);
    this.#ttl = native.ttl(ttl);
  }

  set(key, value, ttl) {
    try { return promised(this.#handle.secondarySet(key, value, ttl, this.#ttl)); } catch (error) { return Promise.reject(error); }
  }

  get(key) {
    try { return promised(this.#handle.secondaryGet(key)); } catch (error) { return Promise.reject(error); }
  }

  delete(key) {
    try { return promised(this.#handle.secondaryDelete(key)); } catch (error) { return Promise.reject(error); }
  }

  pop(key) {
    try { return promised(this.#handle.secondaryPop(key)); } catch (error) { return Promise.reject(error); }
  }
}

module.exports = { SecondaryStorage };
