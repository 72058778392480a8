'use strict';

// How a store keeps its data at rest, for the native half: a ring in one buffer, two flags, and until when what is plain may lie among it.

const { types } = require('node:util');
const { invalid } = require('./errors.cjs');

const SEAL_VALUES = 1;
const HASH_KEYS = 2;
const KEY = 32;
const RECORD = 4 + KEY;

function flag(value, name) {
  if (value === undefined || typeof value === 'boolean') return value === true;
  throw invalid(`${name} must be true or false`);
}

/** The pairs of `keys`, each as its id in four bytes and its key. Errors never show a key. */
function ringOf(keys) {
  if (typeof keys === 'string' || typeof keys?.[Symbol.iterator] !== 'function') throw invalid('keys must be pairs [id, 32 bytes], for example [[1, key]]');
  const pairs = [...keys];
  if (pairs.length === 0) throw invalid('keys must have at least one pair [id, 32 bytes]'); // or nothing would be sealed
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) throw invalid('keys must be pairs [id, 32 bytes], for example [[1, key]]');
    const [id, key] = pair;
    if (!Number.isInteger(id) || id < 1 || id > 0xffffffff) throw invalid("a key's id must be an integer from 1 to 4294967295");
    if (!(key instanceof Uint8Array) || key.length !== KEY) throw invalid('a key must be a Buffer or Uint8Array of 32 bytes');
  }
  const ring = Buffer.alloc(pairs.length * RECORD);
  pairs.forEach(([id, key], i) => {
    ring.writeUInt32BE(id, i * RECORD);
    ring.set(key, i * RECORD + 4);
  });
  return ring;
}

/** ISO 8601 that says which instant it is: a day is its beginning in UTC, a time has its zone. */
const ISO = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/;

/** Milliseconds since 1970; 0 for none. */
function millisecondsOf(plainUntil) {
  if (plainUntil === undefined) return 0;
  const date = typeof plainUntil === 'string' && ISO.test(plainUntil) ? new Date(plainUntil) : plainUntil;
  const ms = types.isDate(date) ? Date.prototype.getTime.call(date) : NaN;
  if (Number.isNaN(ms)) throw invalid("plainUntil must be a valid Date or ISO text with a time zone, for example '2030-01-31T00:00:00Z'");
  return ms || -1; // the core refuses what is before 2020
}

/** What the native half gets: the ring, or undefined, the flags, and an instant. The ring is to be wiped after the call. */
function atRest(keys, sealValues, hashKeys, plainUntil) {
  const flags = (flag(sealValues, 'sealValues') ? SEAL_VALUES : 0) | (flag(hashKeys, 'hashKeys') ? HASH_KEYS : 0);
  const until = millisecondsOf(plainUntil);
  return { ring: keys === undefined ? undefined : ringOf(keys), flags, until };
}

module.exports = { atRest };
