'use strict';

// Random histories against a model: a Map with expiries, on a clock that the history itself moves. And, over a backend whose promises
// settle in an order that fast-check chooses, that whatever the order every code has one winner and every count is counted.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const fc = require('fast-check');
const { open } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { FullBackend, promised } = require('./support/backends.cjs');
const { openApart, ServerStage } = require('./support/redis.cjs');
const { openOnce } = require('./support/sqlite.cjs');
const { MapBackend } = require('../../examples/js_backend.cjs');

const seed = Number(process.env.COUNTERFOIL_SEED ?? Date.now() % 2 ** 31);
const parameters = (numRuns) => ({ seed, numRuns });

// -------------------------------------------------------------------------------------------------------------- the model --

class Model {
  entries = new Map();
  now = 0;
  live(key) {
    const entry = this.entries.get(key);
    return entry !== undefined && entry.expiry > this.now ? entry : undefined;
  }
  expiry(ttl) { return ttl === undefined ? Infinity : this.now + ttl; }
  keys(prefix) { return [...this.entries.keys()].filter((key) => this.live(key) && key.startsWith(prefix)).sort(); }
}

/** A command: what it does to the model and what result that means, and what it asks of the store. */
class Command {
  constructor(name, model, real) { Object.assign(this, { name, model, real }); }
  check() { return true; }
  async run(model, { store, stage }) {
    const wanted = this.model(model);
    assert.deepEqual(await this.real(store, stage), wanted);
  }
  toString() { return this.name; }
}

// Few keys, that meet each other; with what is special in patterns and on prototypes.
const key = fc.constantFrom('a', 'b', 'ab', 'a*', '__proto__', 'constructor', 'é', '\u{1F600}');
const prefix = fc.constantFrom('', 'a', 'ab', '*', '_', '\u{1F600}', 'zz');
const value = fc.oneof(fc.constantFrom('', '1', '-5', 'x'), fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 }));
const seconds = (ms) => (ms === undefined ? undefined : ms / 1000);
const show = JSON.stringify;

function store(model, key, text, ms, keepTtl = false) {
  const kept = keepTtl ? model.live(key)?.expiry : undefined;
  model.entries.set(key, { value: text, expiry: kept ?? model.expiry(ms) });
  return true;
}

const commandsWith = (ttl) => [
  key.map((k) => new Command(`get ${show(k)}`, (m) => m.live(k)?.value, (s) => s.get(k))),
  fc.tuple(key, value, ttl, fc.boolean()).map(([k, v, ms, keep]) => new Command(`set ${show([k, v, ms, keep])}`,
    (m) => store(m, k, v, keep ? undefined : ms, keep), (s) => s.set(k, v, keep ? { keepTtl: true } : { ttl: seconds(ms) }))),
  fc.tuple(key, value, ttl, value, fc.constantFrom('ifAbsent', 'ifPresent', 'ifEqual')).map(([k, v, ms, expected, condition]) => new Command(`${condition} ${show([k, v, ms, expected])}`,
    (m) => {
      const now = m.live(k);
      const holds = condition === 'ifAbsent' ? !now : condition === 'ifPresent' ? !!now : now?.value === expected;
      return holds && store(m, k, v, ms);
    },
    (s) => s.set(k, v, { ttl: seconds(ms), [condition]: condition === 'ifEqual' ? expected : true }))),
  fc.tuple(key, fc.integer({ min: -100, max: 2000 })).map(([k, ms]) => new Command(`expiresAt ${show([k, ms])}`,
    (m) => (ms <= 0 ? (m.entries.delete(k), true) : store(m, k, 'instant', ms)), (s, stage) => s.set(k, 'instant', { expiresAt: new Date(stage.now().getTime() + ms) }))),
  key.map((k) => new Command(`delete ${show(k)}`, (m) => m.live(k) !== undefined && m.entries.delete(k), (s) => s.delete(k))),
  key.map((k) => new Command(`pop ${show(k)}`, (m) => { const found = m.live(k)?.value; m.entries.delete(k); return found; }, (s) => s.pop(k))),
  fc.tuple(key, ttl).map(([k, ms = 3000]) => new Command(`touch ${show([k, ms])}`, (m) => { const found = m.live(k); if (found) found.expiry = m.expiry(ms); return found !== undefined; }, (s) => s.touch(k, ms / 1000))),
  fc.tuple(key, fc.constantFrom(1, -1, 0, 7, 2 ** 53 - 1), ttl).map(([k, by, ms]) => new Command(`incr ${show([k, by, ms])}`,
    (m) => {
      const found = m.live(k);
      if (found === undefined) { store(m, k, String(by), ms); return by; }
      if (!/^(0|-?[1-9]\d*)$/.test(found.value) || !Number.isSafeInteger(Number(found.value)) || !Number.isSafeInteger(Number(found.value) + by)) return 'INVALID';
      found.value = String(Number(found.value) + by);
      return Number(found.value);
    },
    (s) => s.incr(k, by, { ttl: seconds(ms) }).catch((error) => error.code))),
  prefix.map((p) => new Command(`scan ${show(p)}`, (m) => m.keys(p), async (s) => { const keys = []; for await (const one of s.scan(p)) keys.push(one); return keys.sort(); })),
  prefix.map((p) => new Command(`count ${show(p)}`, (m) => m.keys(p).length, (s) => s.count(p))),
  prefix.map((p) => new Command(`clear ${show(p)}`, (m) => { const keys = m.keys(p); for (const one of keys) m.entries.delete(one); return keys.length; }, (s) => s.clear(p, { force: true }))),
  fc.array(key, { maxLength: 4 }).map((keys) => new Command(`getMany ${show(keys)}`, (m) => keys.map((one) => m.live(one)?.value), async (s) => { const found = await s.getMany(keys); return keys.map((one) => found.get(one)); })),
  fc.constantFrom(1, 4, 500, 1000, 1500, 100000).map((ms) => new Command(`advance ${ms}`, (m) => { m.now += ms; }, async (_, stage) => stage.advance(ms / 1000))),
];

const ttls = (...ms) => fc.option(fc.constantFrom(...ms), { nil: undefined });
const commands = commandsWith(ttls(1, 5, 1000, 1500));
const commandsOnRedis = commandsWith(ttls(2, 5, 1000, 1500)); // see support/backends.cjs: one_millisecond

const BACKENDS = {
  memory: [300, (options) => open('memory:', options)],
  'JavaScript, values': [150, (options) => open(new FullBackend(options.stage), options)],
  'JavaScript, promises': [60, (options) => open(promised(new FullBackend(options.stage)), options)],
  'JavaScript, derived': [150, (options) => open(new MapBackend(() => options.stage.now().getTime()), options)],
  sqlite: [150, openOnce],
  'sqlite, in memory': [150, (options) => open('sqlite::memory:', options)],
  redis: [60, (options) => openApart('CLOCK', options), () => new ServerStage(), commandsOnRedis],
};

for (const [name, [runs, make, makeStage = () => new Stage(), known = commands]] of Object.entries(BACKENDS)) {
  test(`random histories over ${name}`, async (t) => {
    t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
    await fc.assert(
      fc.asyncProperty(fc.commands(known, { maxCommands: 60 }), async (history) => {
        const stage = makeStage();
        const store = make({ stage, prefix: 'p:' });
        try {
          await fc.asyncModelRun(() => ({ model: new Model(), real: { store, stage } }), history);
        } finally {
          await store.clear();
          await store.close();
        }
        assert.equal(stage.blocks, 0);
      }),
      parameters(runs),
    );
  });
}

// -------------------------------------------------------------------------------------------------------- orders of promises --

/** A backend of three methods, each of which settles when the scheduler says. */
function scheduled(s, map) {
  const later = (name, work) => s.scheduleFunction(async (...args) => work(...args), undefined, name);
  return {
    singleProcess: true, keepsTtl: true,
    get: later('get', (key) => map.get(key)),
    set: later('set', (key, value) => { map.set(key, value); }),
    delete: later('delete', (key) => map.delete(key)),
  };
}

test('whatever the order in which promises settle', async (t) => {
  t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
  const step = fc.record({ act: fc.constantFrom('pop', 'incr', 'ifAbsent', 'touch', 'get', 'set'), which: fc.constantFrom(0, 1) });
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(step, { minLength: 2, maxLength: 12 }), async (s, steps) => {
      const map = new Map([['code', 'secret'], ['n', '0']]);
      const backend = scheduled(s, map);
      const stores = [open(backend), open(backend)]; // two stores over one object share the locks
      const acts = {
        pop: (store) => store.pop('code'), incr: (store) => store.incr('n'), ifAbsent: (store) => store.set('lock', 'mine', { ifAbsent: true }),
        touch: (store) => store.touch('n', 5), get: (store) => store.get('other'), set: (store) => store.set('other', 'x'),
      };
      const results = await s.waitFor(Promise.all(steps.map(({ act, which }) => acts[act](stores[which]))));
      const of = (name) => results.filter((_, i) => steps[i].act === name);
      if (of('pop').length > 0) assert.deepEqual(of('pop').filter((one) => one !== undefined), ['secret']);
      assert.deepEqual(of('incr').sort((a, b) => a - b), of('incr').map((_, i) => i + 1));
      assert.equal(map.get('n'), String(of('incr').length));
      if (of('ifAbsent').length > 0) assert.equal(of('ifAbsent').filter(Boolean).length, 1);
      await Promise.all(stores.map((store) => store.close()));
    }),
    parameters(150),
  );
});
