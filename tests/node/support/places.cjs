'use strict';

// Where interfaces and adapters are tried, beyond the cases: a new place is a line here. What is on a server that others use too is under a prefix of its own.

const { open } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { MapBackend } = require('../../../examples/js_backend.cjs');
const { newFile } = require('./sqlite.cjs');
const { redisVariable, ownPrefix, ServerStage } = require('./redis.cjs');

let names = 0;
const memory = () => `memory:places-${process.pid}-${names++}`;
const sqlite = () => `sqlite:${newFile()}`;

/** By name: a function that gives the URL of a new place. */
const URLS = {
  memory,
  sqlite,
  redis: () => redisVariable(''),
  'redis-sentinel': () => redisVariable('SENTINEL'),
  'redis-cluster': () => redisVariable('CLUSTER'),
};

/** The same where time is the stage's: `shortest` is a life in milliseconds that is sure to begin. On a server one of a millisecond is over at once, or lasts two. */
const STAGED = {
  memory: { url: memory, stage: () => new Stage(), shortest: 1 },
  sqlite: { url: sqlite, stage: () => new Stage(), shortest: 1 },
  redis: { url: () => redisVariable('CLOCK'), stage: () => new ServerStage(), shortest: 2 },
  'redis-sentinel': { url: () => redisVariable('SENTINEL_CLOCK'), stage: () => new ServerStage(), shortest: 2 },
  'redis-cluster': { url: () => redisVariable('CLUSTER_CLOCK'), stage: () => new ServerStage(), shortest: 2 },
};

/** A function that opens one place again and again, as several processes would. */
function anew(url) {
  const prefix = ownPrefix(), where = url();
  return (options) => open(where, { prefix, ...options });
}

/** Stores that keep records, by name: a function that gives a function that opens one place. */
const PLACES = {
  ...Object.fromEntries(Object.entries(URLS).map(([name, url]) => [name, () => anew(url)])),
  JavaScript: () => { const backend = new MapBackend(); return (options) => open(backend, options); },
};

module.exports = { URLS, STAGED, PLACES };
