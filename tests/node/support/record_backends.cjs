'use strict';

// Stores that keep records, for tests beyond the cases: each opens the same data again and again.

const { open } = require('counterfoil');
const { MapBackend } = require('../../../examples/js_backend.cjs');
const { newFile } = require('./sqlite.cjs');
const { redisVariable, ownPrefix } = require('./redis.cjs');

let names = 0;

/** By name: a function that gives a function that opens one place. */
const PLACES = {
  memory: () => { const url = `memory:records-${process.pid}-${names++}`; return (options) => open(url, options); },
  sqlite: () => { const file = newFile(); return (options) => open(`sqlite:${file}`, options); },
  redis: () => { const prefix = ownPrefix(); return (options) => open(redisVariable(''), { prefix, ...options }); },
  JavaScript: () => { const backend = new MapBackend(); return (options) => open(backend, options); },
};

module.exports = { PLACES };
