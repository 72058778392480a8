'use strict';

// Where an adapter's sessions are: a store that is given, or one that the adapter opens.

const { open, Store } = require('../index.cjs');
const { invalid } = require('../errors.cjs');

const OPEN_OPTIONS = ['timeout', 'stage', 'keys', 'sealValues', 'hashKeys', 'plainUntil'];
const NOT_IN_KEYS = /[\0\r\n]|\p{Surrogate}/u;

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** The options, if they are an object with nothing but these names in it. */
function checkedOptions(options, names) {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw invalid(`unknown option: ${name} (known: ${names.join(', ')}; those of a URL go into it)`);
  }
  return options;
}

/** Opens nothing. `rest`: what is for open(). */
function checkPlace({ store, url, backend, prefix }, rest) {
  if ([store, url, backend].filter((one) => one !== undefined).length > 1) throw invalid('give one of store, url and backend');
  // What open() would refuse as a prefix, too: or every request would find it out.
  if (typeof prefix !== 'string') throw invalid('prefix must be a string');
  if (NOT_IN_KEYS.test(prefix)) throw invalid('prefix must not contain NUL, line breaks or lone surrogates');
  if (Buffer.byteLength(prefix) > 256) throw invalid('prefix must have at most 256 bytes');
  if (url !== undefined && typeof url !== 'string') throw invalid('url must be a string');
  if (backend !== undefined && !isObject(backend)) throw invalid('backend must be an object with the methods of a backend');
  if (store === undefined) return;
  if (!(store instanceof Store)) throw invalid('store must be one that open() gave');
  if (OPEN_OPTIONS.some((name) => rest[name] !== undefined)) throw invalid('timeout, stage, keys, sealValues, hashKeys and plainUntil belong to the store that is given');
}

const openPlace = ({ store, url, backend }, rest) => store ?? open(backend ?? url ?? 'memory:', rest);

module.exports = { OPEN_OPTIONS, NOT_IN_KEYS, isObject, checkedOptions, checkPlace, openPlace };
