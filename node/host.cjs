'use strict';

// The JavaScript half of the trampoline for backends written in JavaScript (the other half: bindings/node/host.cc). It calls the
// methods, knows promises, and counts the stores over one object so that close() is called once, after the last.

const { native, later } = require('./native.cjs');
const { Backend } = require('./backend.cjs');
const { invalid } = require('./errors.cjs');

// The same list as in host.cc.
const GET = 0, SET = 1, DELETE = 2, POP = 3, TOUCH = 4, INCR = 5, SCAN = 6, SET_IF = 7, CLOSE = 8;
const CONDITIONS = ['absent', 'present', 'equal'];

const REQUIRED = ['get', 'set', 'delete'];
const OPTIONAL = { pop: 1, touch: 2, incr: 4, setIf: 8, scan: 16, close: 0 };
const SWITCHES = { binary: 32, keepsTtl: 64, singleProcess: 128 };

const { KEEP } = Backend;

/** Backend object -> {stores, identity}. Weak both ways: the count does not keep the object alive. */
const known = new WeakMap();
const dropped = new FinalizationRegistry((entry) => { entry.stores--; });

/** The bits that host.cc reads; throws INVALID naming what is missing or wrong. */
function shapeOf(backend) {
  let shape = 0;
  for (const name of REQUIRED) {
    if (typeof backend[name] !== 'function') throw invalid(`the backend has no method ${name}()`);
  }
  for (const [name, bit] of Object.entries(OPTIONAL)) {
    const method = backend[name];
    if (typeof method === 'function') shape |= bit;
    else if (method !== undefined && method !== null) throw invalid(`${name} of the backend must be a method`);
  }
  for (const [name, bit] of Object.entries(SWITCHES)) {
    const value = backend[name];
    if (value === true) shape |= bit;
    else if (value !== undefined && value !== false) throw invalid(`${name} of the backend must be true or false`);
  }
  return shape;
}

/** A copy of what scan() gave, so that the native half reads plain properties and nothing of the backend's own runs there. */
function copyPage(page) {
  if (Array.isArray(page)) return Array.from(page);
  if (page === null || typeof page !== 'object') return page;
  const { keys, cursor } = page;
  return { keys: Array.isArray(keys) ? Array.from(keys) : keys, cursor };
}

function closeBackend(backend, entry) {
  if (--entry.stores > 0 || typeof backend.close !== 'function') return undefined;
  return backend.close();
}

/**
 * Opens the native half over a backend object. Gives the handle, and `closed`: a promise of what became of the backend's close()
 * once this store's close has reached it.
 */
function openBackend(backend, prefix, ttl, timeout, stage, rest) {
  const shape = shapeOf(backend);
  let handle, reached = false, closing;
  const closed = new Promise((resolve) => { closing = resolve; });
  closed.catch(() => {}); // the rejection is for whoever calls Store.close()

  const settleLater = (call, ticket, promise) => {
    // A promise of our own around it: a hostile thenable (settles twice, or at once, or throws) cannot break out of it.
    let settled = new Promise((resolve) => resolve(promise));
    if (call === SCAN) settled = settled.then(copyPage);
    settled.then((value) => handle.settle(ticket, call, true, value), (reason) => handle.settle(ticket, call, false, reason));
    return later;
  };

  const invoke = (call, key, a, b, c, d, e) => {
    switch (call) {
      case GET: return backend.get(key);
      case SET: return b === null ? backend.set(key, a, KEEP, c) : backend.set(key, a, b);
      case DELETE: return backend.delete(key);
      case POP: return backend.pop(key);
      case TOUCH: return backend.touch(key, a);
      case INCR: return backend.incr(key, a, b);
      case SCAN: return backend.scan(key, a, b);
      default: return b === null ? backend.setIf(key, a, KEEP, CONDITIONS[c], d, e) : backend.setIf(key, a, b, CONDITIONS[c], d);
    }
  };

  const dispatch = (call, ticket, key, a, b, c, d, e) => {
    if (call === CLOSE) {
      reached = true;
      closing(new Promise((resolve) => resolve(closeBackend(backend, entry))));
      return undefined;
    }
    const result = invoke(call, key, a, b, c, d, e);
    if (result === null || (typeof result !== 'object' && typeof result !== 'function') || ArrayBuffer.isView(result)) return result;
    if (typeof result.then === 'function') return settleLater(call, ticket, result);
    return call === SCAN ? copyPage(result) : result;
  };

  let entry = known.get(backend);
  if (entry === undefined) known.set(backend, entry = { stores: 0, identity: native.identity() });
  entry.stores++;
  try {
    handle = new native.Handle(dispatch, shape, entry.identity, prefix, ttl, timeout, stage, undefined, rest.ring, rest.flags, rest.until);
  } catch (error) {
    if (!reached) entry.stores--; // refused before the core had it: then it is not the core's to close
    throw error;
  }
  dropped.register(handle, entry, closed);
  closed.then(() => dropped.unregister(closed), () => dropped.unregister(closed));
  return { handle, closed };
}

module.exports = { openBackend };
