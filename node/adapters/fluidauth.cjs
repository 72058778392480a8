'use strict';

// A session store for FluidAuth over any backend.

const { createRequire } = require('node:module');
const path = require('node:path');
const { setImmediate } = require('node:timers'); // not what fake timers put in its place later
const { isDeepStrictEqual } = require('node:util');

const { invalid } = require('../errors.cjs');
const { KeptSessions, OPTIONS } = require('./kept-sessions.cjs');
const { checkedOptions, isObject } = require('./place.cjs');

/** Parts of the application's FluidAuth, so that `instanceof` holds; it may be out of sight from here, and nothing else of it is needed. */
function findFluidAuth(part) {
  // Never the working folder: it may be anybody's, and what is found is run. The program's own place is argv[1], also for an ES module.
  for (const place of [__filename, require.main?.filename, process.argv[1]]) {
    if (place === undefined || !path.isAbsolute(place)) continue;
    try {
      return createRequire(place)(part);
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND' && error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error;
    }
  }
  return undefined;
}

const BaseSessionStore = findFluidAuth('@fluidauth/express/base')?.BaseSessionStore ?? class BaseSessionStore {};

const FluidAuthError = findFluidAuth('@fluidauth/express/core')?.FluidAuthError ?? class FluidAuthError extends Error {
  constructor({ name = 'FluidAuthError', message, code } = {}) {
    super(message);
    this.name = name;
    this.code = code;
  }
};

class SessionStore extends BaseSessionStore {
  #kept;
  /** Ids that gets of this turn of the event loop have missed, or failed for. */
  #told = new Set();

  constructor(options = {}) {
    super();
    this.#kept = new KeptSessions(checkedOptions(options, OPTIONS), 'fluidauth:');
    // FluidAuth's stores have it. Not enumerable: it is nothing to be printed or copied.
    Object.defineProperty(this, 'db', { value: this.#kept.store, configurable: true, writable: true, enumerable: false });
  }

  async create(sessionData) {
    const { sessionId, rest, left } = this.#checked(sessionData);
    if (!(await this.#kept.add(sessionId, rest, left))) throw new FluidAuthError({ message: 'a session with that id exists already: nothing was stored', code: 400 });
  }

  async update(sessionId, sessionData) {
    const { rest, left } = this.#checked(sessionData, sessionId);
    await this.#kept.replace(sessionId, rest, left);
  }

  async delete(sessionId) {
    const removing = this.#kept.remove(sessionId);
    if (!this.#told.has(sessionId)) {
      await removing;
      return;
    }
    // FluidAuth destroys what get has missed or failed for, and looks at no promise: a failure would end the process, and says nothing that nobody knows. Then it
    // removes the cookie, which must come before the application answers: so this waits for nothing.
    removing.catch(() => {});
  }

  async get(sessionId) {
    let rest;
    try {
      rest = await this.#kept.read(sessionId);
    } catch (error) {
      this.#tell(sessionId);
      throw error;
    }
    // FluidAuth extends before it looks whether a session has expired: one that is over by its own word must not come so far.
    const alive = rest !== null && new Date(rest.expires).getTime() > Date.now();
    if (!alive) this.#tell(sessionId);
    return alive ? { sessionId, ...rest } : null;
  }

  /** Nothing to do: what has expired is gone, and its memory is given back by itself. */
  async clean() {}

  /** Closes the store if it was opened here. */
  async close() {
    await this.#kept.close();
  }

  /** What follows a get follows it in this turn of the event loop; a delete in a later one is somebody's own wish, and says when it fails. */
  #tell(sessionId) {
    if (this.#told.size === 0) setImmediate(() => this.#told.clear());
    this.#told.add(sessionId);
  }

  /** What is kept of a session, without its id: that is the key, which may be hashed. */
  #checked(sessionData, id = sessionData?.sessionId) {
    if (!isObject(sessionData)) throw invalid('the session must be an object');
    const { sessionId, ...rest } = sessionData;
    if (sessionId !== undefined && sessionId !== id) throw invalid('the session has another sessionId than the one that it is to be stored under');
    const expires = rest.expires === null || rest.expires === undefined ? NaN : new Date(rest.expires).getTime();
    if (Number.isNaN(expires)) throw invalid('expires must be a date: an ISO text or a Date');
    for (const [name, value] of Object.entries(rest)) {
      if (name !== 'expires' && !survives(value)) throw invalid(`${name} must be what JSON gives back as it is${name === 'userId' ? ': let serializeUser give a string or a number' : ''}`);
    }
    this.#told.delete(id);
    return { sessionId: id, rest, left: expires - Date.now() };
  }
}

/** Whether it comes back from JSON as it is, with its type. */
function survives(value) {
  if (typeof value === 'string' || value === undefined) return true;
  try {
    return isDeepStrictEqual(JSON.parse(JSON.stringify(value)), value);
  } catch {
    return false;
  }
}

module.exports = { SessionStore, BaseSessionStore, FluidAuthError };
