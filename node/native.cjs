'use strict';

// Finds and loads counterfoil.node: the binary that was shipped for this platform, else the one that was built here
// (npx counterfoil-build). COUNTERFOIL_NATIVE names another file, for a build with sanitizers.

const fs = require('node:fs');
const path = require('node:path');
const { setImmediate } = require('node:timers');
const { CounterfoilError } = require('./errors.cjs');

const root = path.join(__dirname, '..');

function isMusl() {
  if (process.platform !== 'linux') return false;
  const before = process.report.excludeNetwork;
  process.report.excludeNetwork = true; // a report looks up host names otherwise, which can take seconds
  try {
    const report = process.report.getReport();
    return !(typeof report === 'string' ? JSON.parse(report) : report).header.glibcVersionRuntime;
  } finally {
    process.report.excludeNetwork = before;
  }
}

function candidates() {
  if (process.env.COUNTERFOIL_NATIVE) return [path.resolve(process.env.COUNTERFOIL_NATIVE)];
  const platform = `${process.platform}-${process.arch}`;
  const prebuilt = path.join(root, 'prebuilds');
  const found = [path.join(root, 'build-node', 'counterfoil.node')];
  if (fs.existsSync(prebuilt)) found.unshift(path.join(prebuilt, platform + (isMusl() ? '-musl' : ''), 'counterfoil.node'));
  return found;
}

function load() {
  const places = candidates();
  const place = places.find((candidate) => fs.existsSync(candidate));
  if (place !== undefined) {
    // Not by require(), which would give every copy of these files (jest.resetModules() makes them) the same native half, while each has
    // an error class of its own. What dlopen says (a libc that is too old ...) is the reader's best help: as it is.
    const addon = { exports: {} };
    process.dlopen(addon, place);
    return addon.exports;
  }
  const error = new Error(
    `counterfoil: no native binary for ${process.platform}-${process.arch} (looked in ${places.join(', ')}). ` +
      'Install CMake, a C++ compiler, hiredis, libidn2, OpenSSL and SQLite (on Debian: cmake make g++ pkg-config libhiredis-dev libidn2-dev libssl-dev libsqlite3-dev), then run: npx counterfoil-build',
  );
  error.code = 'MODULE_NOT_FOUND';
  throw error;
}

const native = load();

const flush = () => native.flush();
/** The real one, as is setImmediate: fake timers (jest, sinon) put others in their place, and nothing would be sent. */
const { nextTick } = process;
/** What a backend's dispatch function gives in place of a promise: the result comes later. */
const later = Object.freeze(Object.create(null));

// What settles the promises of the operations in flight, by their slots. A promise made here and settled from one call for all answers of a
// wake-up costs half of one that the native half makes and settles.
const resolves = [], rejects = [];
const slot = new Int32Array(1); // the native half writes it
let resolve, reject;
const keep = (good, bad) => { resolve = good; reject = bad; };
let waiting = 0; // how many of them there are

/**
 * Called at the first submit that is to be sent. What comes while nothing is under way goes at the end of the tick. While answers are awaited,
 * it goes when all that the event loop has found to do was done: of many requests that have come together each is a tick, and a write.
 */
const schedule = () => (waiting === 0 ? nextTick(flush) : setImmediate(flush));

/** The promise of what the native half gave for an operation: its result, or null while it is pending. */
function promised(result) {
  if (result !== null) return Promise.resolve(result);
  const at = slot[0]; // first: a hook that sees promises being made (async_hooks) may call a store
  const promise = new Promise(keep);
  waiting++;
  resolves[at] = resolve;
  rejects[at] = reject;
  return promise;
}

/** Called with pairs: a slot and its result, ~slot and its error. */
function deliver(...pairs) {
  for (let i = 0; i < pairs.length; i += 2) {
    const good = pairs[i] >= 0, at = good ? pairs[i] : ~pairs[i];
    const settle = good ? resolves[at] : rejects[at];
    settle?.(pairs[i + 1]); // there is none where the stack ended before the promise was made
    if (settle !== undefined) waiting--;
    resolves[at] = rejects[at] = undefined; // not before: where the stack ends, this is called once more
  }
}

native.init(CounterfoilError, schedule, later, deliver, slot);

module.exports = { native, later, promised, nextTick };
