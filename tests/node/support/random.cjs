'use strict';

// Chance that can be repeated.

const seed = Number(process.env.COUNTERFOIL_SEED ?? Date.now() % 2 ** 31);
let state = seed;
/** A number below n: mulberry32, so that the seed says which moments were tried (as far as threads repeat themselves). */
function random(n) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * n);
}

module.exports = { seed, random };
