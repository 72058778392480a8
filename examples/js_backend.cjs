'use strict';
// A store of your own: any object with get, set and delete (and what else you have). This one is a Map; a method may give a promise.
const { Backend } = require('counterfoil');

exports.MapBackend = class MapBackend extends Backend {
  singleProcess = true; // nobody else writes to this Map: so pop, touch, incr and conditions may be derived from the three methods
  keepsTtl = true;
  binary = true; // values are Buffers, so any bytes will do; without it they are strings
  entries = new Map();
  constructor(now = Date.now) { super().now = now; }
  find(key) { return this.entries.get(key)?.expiry > this.now() ? this.entries.get(key) : undefined; }
  get(key) { return this.find(key)?.value; }
  set(key, value, ttl = Infinity, newTtl = Infinity) {
    const kept = ttl === Backend.KEEP ? this.find(key)?.expiry : undefined;
    this.entries.set(key, { value, expiry: kept ?? this.now() + Math.round((ttl === Backend.KEEP ? newTtl : ttl) * 1000) });
  }
  delete(key) { return this.find(key) !== undefined && this.entries.delete(key); }
  scan(prefix) { return [...this.entries.keys()].filter((key) => key.startsWith(prefix) && this.find(key)); }
};
