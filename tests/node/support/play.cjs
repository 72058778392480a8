'use strict';

// Plays one case of tests/cases (see its README) over one open store.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { Storage, SecondaryStorage, CounterfoilError } = require('counterfoil');
const { recordInterfaces, actRecords, compareRecords, compareExisting, speaksOfNow, isRecordStep } = require('./play_records.cjs');

const folder = path.join(__dirname, '..', '..', 'cases');

/** All cases, each with the file it is from. */
function allCases() {
  const cases = [];
  for (const file of fs.readdirSync(folder).filter((name) => name.endsWith('.json')).sort()) {
    for (const story of JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'))) cases.push({ ...story, file: file.replace(/\.json$/, '') });
  }
  return cases;
}

const WRONG = { list: [], object: {}, boolean: true, number: 7, null: null };
const NUMBERS = { nan: NaN, inf: Infinity, '-inf': -Infinity };

/** A value as the case says it. */
function said(value) {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || Object.keys(value).length !== 1) return value;
  if ('repeat' in value) return value.repeat[0].repeat(value.repeat[1]);
  if ('hex' in value) return Buffer.from(value.hex, 'hex');
  if ('number' in value && value.number in NUMBERS) return NUMBERS[value.number];
  if ('wrong_type' in value) {
    assert(value.wrong_type in WRONG, `unknown wrong_type ${value.wrong_type}`);
    return WRONG[value.wrong_type];
  }
  if ('lone_surrogate' in value) return 'a\ud800b';
  return value;
}

const CAMEL = { ttl: 'ttl', if_absent: 'ifAbsent', if_present: 'ifPresent', if_equal: 'ifEqual', keep_ttl: 'keepTtl' };

function setOptions(step, stage) {
  let options;
  for (const [name, camel] of Object.entries(CAMEL)) {
    if (name in step) (options ??= {})[camel] = said(step[name]);
  }
  if ('expires_in' in step) {
    const seconds = said(step.expires_in);
    // What is no number is no Date either, whatever the clock says.
    (options ??= {}).expiresAt = typeof seconds === 'number' ? new Date(stage.now().getTime() + seconds * 1000) : seconds;
  }
  return options;
}

async function collect(keys) {
  const result = [];
  for await (const key of keys) result.push(key);
  return result;
}

/** So many keys a `fill` sets at once: one after the other each would wait for the disk alone. */
const TOGETHER = 50;

/** What one step does, as a promise. */
function act(step, store, stage, interfaces) {
  if (isRecordStep(step)) return actRecords(step, interfaces, stage, said);
  const key = said(step.key);
  switch (step.do) {
    case 'get': return store.get(key);
    case 'get_bytes': return store.getBuffer(key);
    case 'set': return store.set(key, said(step.value), setOptions(step, stage));
    case 'delete': return store.delete(key);
    case 'pop': return store.pop(key);
    case 'pop_bytes': return store.popBuffer(key);
    case 'touch': return store.touch(key, said(step.ttl));
    case 'incr': return store.incr(key, 'by' in step ? said(step.by) : undefined, 'ttl' in step ? { ttl: said(step.ttl) } : undefined);
    case 'scan': return collect(store.scan(said(step.prefix)));
    case 'count': return store.count(said(step.prefix));
    case 'clear': return store.clear(said(step.prefix), 'force' in step ? { force: step.force } : undefined);
    case 'get_many': return store.getMany(step.keys.map(said));
    case 'fill':
      return (async () => {
        const names = Array.from({ length: step.count }, (_, i) => `${step.prefix}${String(i).padStart(4, '0')}`);
        for (let i = 0; i < names.length; i += TOGETHER) {
          const stored = await Promise.all(names.slice(i, i + TOGETHER).map((name) => store.set(name, name, 'ttl' in step ? { ttl: step.ttl } : undefined)));
          assert(stored.every((one) => one === true));
        }
      })();
    case 'advance': return (async () => stage.advance(step.seconds))();
    case 'storage.get': return interfaces.storage.get(said(step.id));
    case 'storage.set': return interfaces.storage.set(said(step.id), said(step.state));
    case 'secondary.get': return interfaces.secondary.get(key);
    case 'secondary.set': return interfaces.secondary.set(key, said(step.value), 'ttl' in step ? said(step.ttl) : undefined);
    case 'secondary.delete': return interfaces.secondary.delete(key);
    case 'secondary.pop': return interfaces.secondary.pop(key);
    default: throw new Error(`tests/cases has a step that this runner does not know: ${step.do}`);
  }
}

function compare(step, result, where, stage, interfaces) {
  if (isRecordStep(step)) return compareRecords(step, result, where, interfaces, stage, said);
  const wanted = said(step.expect);
  if (!('expect' in step)) {
    // any success
  } else if (step.do === 'scan') assert.deepEqual([...result].sort(), wanted, where);
  else if (step.do === 'get_many') assert.deepEqual(Object.fromEntries([...result].map(([key, value]) => [key, value ?? null])), step.expect, where);
  else if (wanted === null) assert.equal(result, undefined, where);
  else assert.deepEqual(result, wanted, where);
  if ('expect_length' in step) {
    assert.equal(result.length, step.expect_length, where);
    assert.equal(new Set(result).size, result.length, where);
  }
}

/** The error of `promise`, or undefined; anything but a CounterfoilError passes through. */
async function failure(promise) {
  try {
    await promise;
    return undefined;
  } catch (error) {
    if (error instanceof CounterfoilError) return error;
    throw error;
  }
}

function openOptions(story, stage) {
  const options = { stage };
  for (const name of ['prefix', 'ttl', 'timeout']) {
    if (name in (story.open ?? {})) options[name] = said(story.open[name]);
  }
  return options;
}

function interfacesOf(story, store) {
  const ttl = story.open?.secondary_ttl;
  const records = (story.needs ?? []).includes('records') ? recordInterfaces(story, store) : {};
  return { ...records, storage: new Storage(store), secondary: ttl === undefined ? new SecondaryStorage(store) : new SecondaryStorage(store, { ttl }) };
}

async function play(story, backend, stage) {
  const query = story.open?.query;
  const options = openOptions(story, stage);
  if (story.open_error !== undefined) {
    assert.throws(() => backend.open(options, query), (error) => error instanceof CounterfoilError && error.code === story.open_error);
    return;
  }
  const store = backend.shared && aboutAll(story.steps) ? backend.bare(options) : backend.open(options, query);
  try {
    const interfaces = interfacesOf(story, store);
    for (const [i, step] of story.steps.entries()) {
      const where = `step ${i + 1}: ${JSON.stringify(step).slice(0, 200)}`;
      if (step.error !== undefined) {
        const error = await failure(act(step, store, stage, interfaces));
        assert(error !== undefined, `${where}: no error`);
        assert.deepEqual([error.code, error.outcome], [step.error, 'not_applied'], `${where}: ${error.message}`);
        if ('existing' in step) compareExisting(step, error, where, interfaces, stage, said);
      } else {
        const result = await act(step, store, stage, interfaces).catch((error) => assert.fail(`${where}: ${error.code ?? ''} ${error.message}`));
        compare(step, result, where, stage, interfaces);
      }
    }
    if (backend.shared) await store.clear('', { force: true });
  } finally {
    await store.close();
  }
}

/** Whether a case is about everybody's keys. */
const aboutAll = (steps = []) => steps.some((step) => step.do === 'clear' && step.prefix === '' && step.error !== undefined);

/** Whether the case asks for something that the backend declares that it lacks. */
function lacks(story, backend) {
  const needs = [...(story.needs ?? [])];
  const steps = story.steps ?? [];
  // A deadline that a server across a socket can only keep by luck is one for a clock that stands still.
  if (steps.some((step) => step.do === 'advance') || story.open?.timeout < 0.1 || speaksOfNow(story.steps)) needs.push('clock');
  const lives = [story.open?.ttl, story.open?.secondary_ttl, ...steps.filter((step) => step.error === undefined).map((step) => step.ttl)];
  if (lives.some((ttl) => ttl > 0 && ttl <= 0.001)) needs.push('one_millisecond');
  if (aboutAll(steps)) needs.push('alone');
  return needs.filter((need) => !backend.has.includes(need));
}

module.exports = { allCases, play, act, compare, lacks, failure, openOptions, interfacesOf, collect };
