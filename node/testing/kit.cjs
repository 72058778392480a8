'use strict';

// Runs the rules of a kind over the stores that somebody makes, by itself or as tests of node:test.

const { setTimeout, clearTimeout } = require('node:timers');

const { invalid } = require('../errors.cjs');
const { Probe, Broken, NotApplicable, sayError } = require('./probe.cjs');
const { RULES } = require('./rules.cjs');

const KINDS = Object.keys(RULES);
const OPTIONS = ['make', 'cleanup', 'clock', 'fault', 'timeout', 'also', 'except'];
const TOGETHER = 12; // rules at once: most of them wait for an expiry

/** The probes of a kind: by rule. */
const probesOf = (kind) => require(`./${kind}.cjs`); // one of KINDS: no name from outside gets here

/** What somebody wants checked, as a plain definition; INVALID says what is wrong with it. */
function checked(kind, given) {
  if (!KINDS.includes(kind)) throw invalid(`unknown kind: known are ${KINDS.join(', ')}`);
  if (typeof given !== 'function' && (typeof given !== 'object' || given === null)) {
    throw invalid('give a function that makes a store, or an object with such a function as `make`');
  }
  const definition = typeof given === 'function' ? { make: given } : given;
  for (const name of Object.keys(definition))
    if (!OPTIONS.includes(name)) throw invalid(`unknown option: ${name} (known: ${OPTIONS.join(', ')})`);
  const { make, cleanup, clock, fault, timeout = 5, also = [], except = {} } = definition;
  if (typeof make !== 'function') throw invalid('make must be a function that gives a store');
  for (const [name, value] of Object.entries({ cleanup, fault }))
    if (value !== undefined && typeof value !== 'function') throw invalid(`${name} must be a function`);
  if (clock !== undefined && (typeof clock?.now !== 'function' || typeof clock.advance !== 'function'))
    throw invalid('clock must have the methods now and advance');
  if (!(typeof timeout === 'number' && timeout > 0 && timeout <= 600))
    throw invalid('timeout must be a number of seconds above 0, at most 600');
  if (!Array.isArray(also)) throw invalid('also must be an array of rules');
  if (typeof except !== 'object' || except === null) throw invalid('except must be an object: a reason for each rule');
  const ids = RULES[kind].map(({ id }) => id);
  for (const id of [...also, ...Object.keys(except)])
    if (!ids.includes(id)) throw invalid(`there is no such rule for ${kind}: ${id}`);
  for (const [id, reason] of Object.entries(except))
    if (typeof reason !== 'string' || reason === '') throw invalid(`say why ${id} is excepted, as text`);
  return { make, cleanup, clock, fault, timeout, also, except };
}

/**
 * The time that a rule has, whatever its store does: a synchronous loop that never ends is the one thing that it does not end.
 */
async function bounded(probe, work, seconds) {
  let timer;
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(
      () =>
        reject(new Broken(`the rule has been tried within ${seconds} seconds`, 'it had not: the store is too slow, or hangs')),
      seconds * 1000,
    );
  });
  try {
    await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
    probe.over = true;
  }
}

/** Tries one rule: what came of it. */
async function tryRule(kind, rule, definition) {
  const { id, sentence, why, source } = rule;
  const outcome = (value, expected, seen, error) => {
    const result = { rule: id, outcome: value, sentence, expected, seen, why, source };
    // Not enumerable: its message may hold what is nobody's business.
    Object.defineProperty(result, 'error', { value: error });
    return result;
  };
  const notApplicable = (reason) => outcome('not applicable', sentence, reason);
  if (Object.hasOwn(definition.except, id)) return notApplicable(`excepted: ${definition.except[id]}`);
  if (rule.asked && !definition.also.includes(id)) return notApplicable(`it is tried where it is asked for: also: ['${id}']`);
  const probe = new Probe(definition);
  let result = outcome('passed', sentence, 'as expected');
  const judge = (error) => {
    if (error instanceof NotApplicable) return notApplicable(error.message);
    if (error instanceof Broken) return outcome('failed', error.expected, error.seen, error.error);
    return outcome('failed', sentence, `the check met ${sayError(error)}`, error);
  };
  try {
    await bounded(probe, () => probesOf(kind)[id](probe), definition.timeout * 4 + 10);
  } catch (error) {
    result = judge(error);
  }
  await probe.close().catch((error) => {
    if (result.outcome === 'passed') result = judge(error);
  });
  return result;
}

/**
 * Starts all rules: a promise for each. They share nothing but the user's `make`, so many run at once; not on a clock that
 * somebody moves, and not those that are about everything in the store, which come last.
 */
function start(kind, definition) {
  const rules = RULES[kind];
  const results = new Map();
  const queue = (list, most) => {
    const waiting = [...list];
    const settle = new Map();
    for (const rule of list) results.set(rule.id, new Promise((resolve) => settle.set(rule, resolve)));
    const worker = async () => {
      for (let rule; (rule = waiting.shift()) !== undefined;) settle.get(rule)(await tryRule(kind, rule, definition));
    };
    return async () => {
      await Promise.all(Array.from({ length: most }, worker));
    };
  };
  const together = queue(
    rules.filter((rule) => !rule.alone),
    definition.clock === undefined ? TOGETHER : 1,
  );
  const alone = queue(
    rules.filter((rule) => rule.alone),
    1,
  );
  together().then(alone);
  return results;
}

async function check(kind, given) {
  const results = start(kind, checked(kind, given));
  return Promise.all(RULES[kind].map(({ id }) => results.get(id)));
}

/** A result as a person reads it. */
function explain({ rule, outcome, sentence, expected, seen, why, source }) {
  if (outcome === 'passed') return `${rule}: ${sentence}`;
  if (outcome === 'not applicable') return `${rule}: not applicable: ${seen}`;
  return `${rule}: ${sentence}\n  expected: ${expected}\n  seen:     ${seen}\n  why:      ${why}\n  source:   ${source}`;
}

class ConformanceError extends Error {
  constructor(result) {
    super(explain(result));
    this.rule = result.rule;
    this.stack = `ConformanceError: ${this.message}`; // where the kit found it says nothing
  }
}
Object.defineProperty(ConformanceError.prototype, 'name', { value: 'ConformanceError', configurable: true, writable: true });

/** As tests of node:test: a suite, and a test for each rule. What does not apply is skipped, with the reason. */
function register(kind, name, given) {
  if (typeof name !== 'string' || name === '') throw invalid('the name must be text: it is what the suite is called');
  const definition = checked(kind, given);
  const { describe, it } = require('node:test');
  describe(name, () => {
    let results;
    for (const { id, sentence } of RULES[kind]) {
      it(`${id}: ${sentence}`, async (t) => {
        results ??= start(kind, definition);
        const result = await results.get(id);
        if (result.outcome === 'failed') throw new ConformanceError(result);
        if (result.outcome === 'not applicable') t.skip(result.seen);
      });
    }
  });
}

const testOf = (kind) => (name, given) => register(kind, name, given);

module.exports = {
  check,
  explain,
  rules: RULES,
  testBackend: testOf('backend'),
  testExpressStore: testOf('express-session'),
  testCurveballStore: testOf('curveball'),
  testFluidAuthStore: testOf('fluidauth'),
  testMiroStorage: testOf('miro'),
  testHooks: testOf('hooks'),
};
