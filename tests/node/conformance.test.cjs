'use strict';

// The conformance kit of counterfoil/testing: every rule finds the store that breaks it, and that one alone; stores that are
// right pass; what stores do that do not even answer; and what it finds in those of others is what docs/conformance/node.md says.

const { test, describe } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { execFile } = require('node:child_process');
const { Pool } = require('pg');

const { open, CounterfoilError } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { RedisStore: ConnectRedis } = require('counterfoil/connect-redis');
const curveball = require('counterfoil/curveball');
const fluidauth = require('counterfoil/fluidauth');
const { MiroStorage } = require('counterfoil/miro');
const { Stage, check, explain, rules } = require('counterfoil/testing');
const { MapBackend } = require('../../examples/js_backend.cjs');
const { PgAccounts, SCHEMA } = require('../../examples/accounts_pg.cjs');
const { Clock, fault } = require('./support/conformance/clock.cjs');
const page = require('./support/conformance/page.cjs');
const { findings, findingsOf } = require('./support/conformance/third_parties.cjs');
const { redisVariable, ownPrefix, root } = require('./support/redis.cjs');
const { openOnce } = require('./support/sqlite.cjs');
const { binaries, startPostgres } = require('./support/postgres.cjs');

const MADE = {
  backend: require('./support/conformance/backends.cjs'),
  'express-session': require('./support/conformance/express.cjs'),
  curveball: require('./support/conformance/curveball.cjs'),
  fluidauth: require('./support/conformance/fluidauth.cjs'),
  miro: require('./support/conformance/miro.cjs'),
  hooks: require('./support/conformance/hooks.cjs'),
};

const failures = (report) => report.filter(({ outcome }) => outcome === 'failed');
const failedIds = (report) => failures(report).map(({ rule }) => rule);
/** What does not apply; but for what a busy machine could not tell. */
const passedOver = (report) =>
  report.filter(({ outcome, seen }) => outcome === 'not applicable' && !/too slow/.test(seen)).map(({ rule }) => rule);
const passes = (report) => assert.equal(failures(report).map(explain).join('\n'), '');
const byRule = (report, id) => report.find(({ rule }) => rule === id);

/** Checks a class on a clock that stands still. */
function checkStaged(kind, Made, options) {
  const clock = new Clock();
  return check(kind, { make: () => new Made(clock), clock, fault, ...options });
}

// ------------------------------------------------------------------------------------------------------------- the rules --

describe('rules', () => {
  for (const [kind, list] of Object.entries(rules)) {
    test(`${kind}: each is said once, with a reason and a source that somebody can open`, () => {
      assert.equal(new Set(list.map(({ id }) => id)).size, list.length);
      for (const { id, sentence, why, source } of list) {
        assert.match(id, /^[a-z_]+\.[a-z_]+$/);
        for (const text of [sentence, why]) assert.match(text, /^\S.*\.$/, id);
        assert.match(source, /^(Counterfoil, |https:\/\/|RFC \d|OWASP, |Miro, |Node\.js, |@?[\w/-]+ \d+\.\d+\.\d+, )/, id);
        assert.doesNotMatch(source, /contracts/);
        for (const [, name, version, theirs] of source.matchAll(/(@?[\w/-]+) (\d+\.\d+\.\d+), ([\w/.-]+\.(?:js|ts|md))/g)) {
          const folder = path.join(root, 'node_modules', name);
          // Another version is here: then it is for the reader to open that one.
          if (!fs.existsSync(folder) || JSON.parse(fs.readFileSync(path.join(folder, 'package.json'))).version !== version)
            continue;
          assert(fs.existsSync(path.join(folder, theirs)), `${id}: ${name} has no ${theirs}`);
        }
        const [, file, heading] = source.match(/^Counterfoil, ([\w/.-]+)(?:, "?([^"]*)"?)?/) ?? [];
        if (file === undefined) continue;
        const text = fs.readFileSync(path.join(root, file), 'utf8');
        const name = heading?.match(/^\w+\.\w+$/) ? heading.split('.')[1] : heading;
        assert(name === undefined || /^the table/.test(name) || text.includes(name), `${id}: ${file} has no ${name}`);
      }
    });
  }
});

// -------------------------------------------------------------------------------------------------- stores that break one --

for (const [kind, { rights, mutants, also }] of Object.entries(MADE)) {
  describe(`${kind}: made for this`, () => {
    test('the right ones pass', async () => {
      for (const Right of rights) passes(await checkStaged(kind, Right, { also }));
    });

    test('every rule has one that breaks it, and each breaks that rule alone', async () => {
      const missing = rules[kind].map(({ id }) => id).filter((id) => !mutants.some(([rule]) => rule === id));
      assert.deepEqual(missing, []);
      const found = await Promise.all(mutants.map(async ([, , Mutant]) => failedIds(await checkStaged(kind, Mutant, { also }))));
      const name = ([rule, what]) => `${rule}: ${what}`;
      assert.deepEqual(
        found.map((ids, index) => [name(mutants[index]), ...ids]),
        mutants.map((mutant) => [name(mutant), mutant[0]]),
      );
    });
  });
}

/** Runs a program in this package, where `counterfoil` is this one. */
function run(program) {
  // node:test tells its children where to report to.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('NODE_')));
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', program], { cwd: root, encoding: 'utf8', env }, (error, stdout, stderr) => {
      resolve({ status: error ? error.code : 0, stdout, stderr });
    });
  });
}

// --------------------------------------------------------------------------------------------------------- what is ours --

/** By name: a function that opens a store of its own, with time for a busy machine. */
const PLACES = {
  memory: () => open('memory:'),
  sqlite: () => openOnce({ timeout: 20 }),
  redis: () => open(redisVariable(''), { prefix: ownPrefix(), timeout: 20, connectTimeout: 20, silence: 20 }),
};

/** A store that is ours, over a database which the fault closes: it stays closed. */
function ours(which, Store, options = {}) {
  const stores = new WeakMap();
  return {
    make() {
      const db = PLACES[which]();
      const store = new Store({ store: db, ...options });
      stores.set(store, db);
      return store;
    },
    async fault(store) {
      await stores.get(store).close();
    },
    cleanup: (store) => stores.get(store).close(),
  };
}

/** A backend of JavaScript that a fault can break and mend, below one of the adapters. */
function overBackend(Store) {
  const backends = new WeakMap();
  const [Right] = MADE.backend.rights;
  return {
    make() {
      const backend = new Right({ now: () => new Date() });
      const store = new Store({ backend });
      backends.set(store, backend);
      return store;
    },
    fault: (store) => fault(backends.get(store)),
    cleanup: (store) => store.close(),
  };
}

/** A store as the backend of another one: its methods, as a backend of JavaScript. */
function storeAsBackend(openStore) {
  const life = (ttl) => (ttl === undefined ? {} : { ttl });
  return {
    make() {
      const store = openStore();
      return {
        binary: true,
        store,
        get: (key) => store.getBuffer(key),
        set: (key, value, ttl) => store.set(key, value, life(ttl)),
        delete: (key) => store.delete(key),
        pop: (key) => store.popBuffer(key),
        touch: (key, ttl) => store.touch(key, ttl),
        incr: (key, by, ttl) => store.incr(key, by, life(ttl)),
        setIf: (key, value, ttl, condition, expected) =>
          store.set(key, value, {
            ...life(ttl),
            ...{ absent: { ifAbsent: true }, present: { ifPresent: true }, equal: { ifEqual: expected } }[condition],
          }),
        async scan(prefix) {
          const keys = [];
          for await (const key of store.scan(prefix)) keys.push(key);
          return keys;
        },
      };
    },
    async fault({ store }) {
      await store.close();
    },
    cleanup: ({ store }) => store.close(),
  };
}

const NEVER = ['fault.recovers']; // a store that is closed stays so

// At once, since most of the time they wait for an end.
describe('ours, those of others, and the page', { concurrency: 26 }, () => {
  const passesAll = (name, kind, definition, unasked) =>
    test(name, async () => {
      const report = await check(kind, {
        timeout: 30,
        ...(typeof definition === 'function' ? { make: definition } : definition),
      });
      passes(report);
      assert.deepEqual(passedOver(report), unasked);
    });
  const nothingElse = ['keep_ttl.keeps', 'single_process.alone', 'single_process.one_winner'];

  for (const which of Object.keys(PLACES)) {
    passesAll(`a store, ${which}`, 'backend', storeAsBackend(PLACES[which]), [...nothingElse, ...NEVER]);
    passesAll(`express-session, ${which}`, 'express-session', ours(which, CounterfoilStore), ['save.no_lost_update', ...NEVER]);
    passesAll(`Curveball, ${which}`, 'curveball', ours(which, curveball.SessionStore), NEVER);
    passesAll(`FluidAuth, ${which}`, 'fluidauth', ours(which, fluidauth.SessionStore), []);
    passesAll(`Miro, ${which}`, 'miro', ours(which, MiroStorage, { onError: () => {} }), []);
  }
  test('docs/conformance/node.md: the table is what the kit finds, and the rules are its rules', async () => {
    const text = page.read();
    assert.equal(page.partOf(text, 'rules'), page.allRules());
    assert.equal(page.partOf(text, 'table'), page.table(await findings()));
  });

  test('docs/conformance/node.md: what each of them fails is explained, and nothing else', () => {
    const text = page.read();
    const failed = new Set(page.partOf(text, 'table').match(/`[a-z_.]+`/g));
    const explained = new Set(text.match(/^- \*\*.*?\*\*/gm).flatMap((line) => line.match(/`[a-z_.]+`/g) ?? []));
    assert.deepEqual([...explained].sort(), [...failed].sort());
  });

  test('docs/conformance/node.md: what is asked of nobody, all of them would fail, and ours as it is made', async () => {
    const id = 'save.no_lost_update';
    assert.match(
      page.read(),
      /^`save\.no_lost_update` is asked of nobody here: every store for express-session above fails it, and ours does unless/m,
    );
    const asked = await findingsOf('express-session', id);
    assert.deepEqual(new Set(asked.map(({ outcome }) => outcome)), new Set(['failed']));
    const except = Object.fromEntries(rules['express-session'].filter((rule) => rule.id !== id).map((rule) => [rule.id, 'no']));
    const made = await check('express-session', { ...ours('memory', CounterfoilStore), also: [id], except });
    assert.deepEqual(failedIds(made), [id]);
  });

  test('docs/conformance/node.md: its examples do what it says', async () => {
    const [suite, alone] = [...page.read().matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code);
    const registered = await run(suite);
    assert.equal(registered.status, 0, registered.stdout + registered.stderr);
    assert.match(registered.stdout, /destroy\.stays: .*/);
    assert.match(registered.stdout, /fault\.recovers: .*SKIP|fault\.recovers: .*# give|skipped [1-9]/);
    const checked = await run(alone);
    const said = [...alone.matchAll(/console\.log\(.*?\) \/\/ (.*)/g)].map(([, text]) => text);
    assert.equal(said.length, 2);
    assert.equal(checked.stdout, `${said.join('\n')}\n`, checked.stderr);
  });

  const stage = new Stage();
  const staged = { ...storeAsBackend(() => open('memory:', { stage })), clock: stage };
  passesAll('a store on a stage, to the millisecond', 'backend', staged, [...nothingElse, ...NEVER]);
  passesAll(
    'express-session that tells who was second',
    'express-session',
    { ...ours('memory', CounterfoilStore, { saveChanged: 'error' }), also: ['save.no_lost_update'] },
    NEVER,
  );
  passesAll('in place of connect-redis', 'express-session', ours('redis', ConnectRedis), ['save.no_lost_update', ...NEVER]);
  passesAll('express-session, over a backend that comes back', 'express-session', overBackend(CounterfoilStore), [
    'save.no_lost_update',
  ]);
  passesAll('Curveball, over a backend that comes back', 'curveball', overBackend(curveball.SessionStore), []);
  passesAll(
    'examples/js_backend.cjs',
    'backend',
    () => new MapBackend(),
    rules.backend.map(({ id }) => id).filter((id) => /^(pop|touch|incr|set_if|fault)\./.test(id)),
  );

  const absent = binaries() === undefined && 'PostgreSQL is not installed';
  test('examples/accounts_pg.cjs', { skip: absent }, async () => {
    const server = await startPostgres();
    const pool = new Pool({ ...server.options, max: 8 });
    try {
      await pool.query(SCHEMA);
      const report = await check('hooks', () => new PgAccounts(pool));
      passes(report);
      assert.deepEqual(passedOver(report), ['fault.rejects']);
      const away = new Pool({ ...server.options, host: '/nonexistent' });
      const broken = await check('hooks', {
        make: () => new PgAccounts(pool),
        fault: (hooks) => {
          hooks.pool = away;
        },
      });
      assert.equal(byRule(broken, 'fault.rejects').outcome, 'passed');
      await away.end();
    } finally {
      await pool.end();
      await server.stop();
    }
  });
});

// -------------------------------------------------------------------------------------------------- stores that misbehave --

const invalid = (text) => (error) => {
  assert(error instanceof CounterfoilError, String(error));
  assert.equal(error.code, 'INVALID');
  assert.match(error.message, text);
  return true;
};

test('what cannot be meant is refused at once, and says what to do', async () => {
  const make = () => new MapBackend();
  const cases = [
    ['redis', make, /unknown kind: known are backend, /],
    ['backend', undefined, /a function that makes a store/],
    ['backend', {}, /make must be a function/],
    ['backend', { make, maek: 1 }, /unknown option: maek \(known: make, /],
    ['backend', { make, timeout: 0 }, /timeout must be/],
    ['backend', { make, fault: true }, /fault must be/],
    ['backend', { make, clock: { now: Date.now } }, /now and advance/],
    ['backend', { make, also: 'x' }, /also must be/],
    ['backend', { make, also: ['x.y'] }, /no such rule for backend: x\.y/],
    ['backend', { make, except: { 'pop.takes': '' } }, /say why pop\.takes/],
    ['backend', { make, except: null }, /except must be/],
  ];
  for (const [kind, given, text] of cases) await assert.rejects(check(kind, given), invalid(text));
  const { testBackend } = require('counterfoil/testing');
  assert.throws(() => testBackend('', make), invalid(/name must be text/));
  assert.throws(() => testBackend('mine', { make, maek: 1 }), invalid(/unknown option/));
});

test('a store that hangs fails, rule by rule, and says which call', async () => {
  const [Right] = MADE['express-session'].rights;
  class Hanging extends Right {
    touch() {}
  }
  const report = await checkStaged('express-session', Hanging, { timeout: 0.2, fault: undefined });
  assert.deepEqual(
    failedIds(report).filter((id) => !/^(touch|callback)\.|^fault\.error/.test(id)),
    [],
  );
  const result = byRule(report, 'touch.keeps_data');
  assert.deepEqual([result.outcome, result.expected, result.seen], ['failed', 'touch() settles', 'it had not after 0.2 seconds']);
  const never = await check('backend', {
    make: () => ({ get: () => new Promise(() => {}), set() {}, delete() {} }),
    timeout: 0.1,
  });
  assert.equal(byRule(never, 'get.miss').seen, 'it had not after 0.1 seconds');
});

test('make, cleanup and fault that fail are failures of the rule, not of the kit', async () => {
  const one = Object.fromEntries(
    rules.curveball.filter(({ id }) => !['get.miss', 'fault.rejects'].includes(id)).map(({ id }) => [id, 'not today']),
  );
  const [Right] = MADE.curveball.rights;
  const seen = async (options) => {
    const report = await checkStaged('curveball', Right, { except: one, ...options });
    return ['get.miss', 'fault.rejects']
      .map((id) => byRule(report, id))
      .map(({ outcome, expected }) => `${outcome}: ${expected}`);
  };
  const away = () => {
    throw new TypeError('away');
  };
  assert.deepEqual(await seen({ make: away }), ['failed: make() gives a store', 'failed: make() gives a store']);
  assert.deepEqual(await seen({ make: () => 7 }), ['failed: make() gives a store', 'failed: make() gives a store']);
  assert.deepEqual(await seen({ cleanup: away }), ['failed: cleanup() succeeds', 'failed: cleanup() succeeds']);
  assert.deepEqual((await seen({ fault: away }))[1], 'failed: fault() makes the store unreachable');
  const cleaned = [];
  await seen({
    cleanup: (store) => {
      cleaned.push(store);
    },
  });
  assert.equal(cleaned.length, 2);
});

test('a fault that is not mended by the rule is mended at its end', async () => {
  let away = 0;
  await checkStaged('curveball', MADE.curveball.rights[0], {
    fault: (store) => {
      away++;
      store.broken = true;
      return () => {
        away--;
      };
    },
  });
  assert.equal(away, 0);
});

test('what is excepted is reported with its reason, and what is not applicable with what is missing', async () => {
  const report = await checkStaged('backend', MADE.backend.rights[1], {
    except: { 'ttl.exact': 'seconds will do' },
    fault: undefined,
  });
  assert.equal(byRule(report, 'ttl.exact').seen, 'excepted: seconds will do');
  assert.equal(byRule(report, 'pop.takes').seen, 'there is no pop()');
  assert.match(byRule(report, 'fault.rejects').seen, /^give `fault`/);
  assert.equal(explain(byRule(report, 'pop.takes')), 'pop.takes: not applicable: there is no pop()');
  assert.match(explain(byRule(report, 'get.miss')), /^get\.miss: A key that was never set/);
});

test("nothing of the store's own is shown: no message of an error, no value", async () => {
  const secret = 'password-of-the-database';
  const Right = MADE.backend.rights[0];
  const leaks = [
    class extends Right {
      get() {
        throw Object.assign(new Error(secret), { name: secret, code: `${secret} ${secret}` });
      }
    },
    class extends Right {
      get() {
        return Promise.reject(secret);
      }
    },
    class extends Right {
      get() {
        return secret;
      }
    },
    class extends Right {
      set() {
        throw { secret, toString: () => secret };
      }
    },
  ];
  for (const Leaking of leaks) {
    const report = await checkStaged('backend', Leaking);
    assert(failures(report).length > 10);
    assert.doesNotMatch(JSON.stringify(report) + report.map(explain).join('\n') + Object.keys(report[0]), new RegExp(secret));
  }
  const thrown = byRule(await checkStaged('backend', leaks[0]), 'get.miss');
  assert.match(thrown.seen, /^it failed: Error at conformance\.test\.cjs:\d+$/);
  assert.equal(thrown.error.message, secret);
});

test('whoever takes the uncaught errors of the process keeps them, and listeners come back', async () => {
  const [Right] = MADE['express-session'].rights;
  const heard = () => {};
  process.on('unhandledRejection', heard);
  const before = process.listeners('unhandledRejection');
  const free = await checkStaged('express-session', Right);
  assert.equal(byRule(free, 'fault.destroy_without_callback').outcome, 'passed');
  assert.deepEqual(process.listeners('unhandledRejection'), before);
  process.off('unhandledRejection', heard);
  process.setUncaughtExceptionCaptureCallback(() => {});
  const taken = await checkStaged('express-session', Right);
  process.setUncaughtExceptionCaptureCallback(null);
  assert.match(byRule(taken, 'fault.destroy_without_callback').seen, /^somebody else takes/);
});

test('a lock in one object is no lock where two share the data', async () => {
  const shared = new Map();
  const [Right] = MADE.backend.rights;
  class Locked extends Right {
    map = shared;
    last = Promise.resolve();
    pop(key) {
      const work = async () => {
        const value = this.get(key);
        await new Promise((resolve) => setImmediate(resolve));
        super.delete(key);
        return value;
      };
      this.last = this.last.then(work, work);
      return this.last;
    }
  }
  const one = new Locked(new Clock());
  const clock = new Clock();
  assert.equal(byRule(await check('backend', { make: () => one, clock }), 'pop.one_winner').outcome, 'passed');
  assert.deepEqual(failedIds(await checkStaged('backend', Locked)), ['pop.one_winner']);
});

// ------------------------------------------------------------------------------------------------------------ as a module --

test('a failure of node:test explains itself, and what does not apply is skipped', async () => {
  const { status, stdout } = await run(`
    const { testBackend } = require('counterfoil/testing');
    testBackend('careless', () => ({ singleProcess: true, get: () => '', set() {}, delete() {} }));`);
  assert.notEqual(status, 0);
  for (const text of [
    'ConformanceError',
    'get.miss: A key that was never set gives undefined or null.',
    'expected: undefined or null',
    'why:',
    'source:',
    'there is no pop()',
  ]) {
    assert(stdout.includes(text), `${text}\n${stdout}`);
  }
  assert.doesNotMatch(stdout, /node\/testing\/\w/); // where the kit found it says nothing
});

test('nobody pays for the kit who does not use it', async () => {
  const { stdout, stderr } = await run(`
    require('counterfoil'); require('counterfoil/express-session');
    const loaded = () => Object.keys(require.cache).filter((file) => /node.testing/.test(file)).length;
    const before = loaded();
    require('counterfoil/testing');
    const runner = process.moduleLoadList.some((name) => /internal\\/test_runner/.test(name));
    console.log(before, loaded(), runner, process.listenerCount('unhandledRejection'));`);
  assert.equal(stdout, '0 4 false 0\n', stderr);
});

test('a module of ES has the same', async () => {
  const module = await import('counterfoil/testing');
  assert.deepEqual(Object.keys(module).sort(), Object.keys(require('counterfoil/testing')).sort());
  for (const [name, value] of Object.entries(module)) assert.equal(value, require('counterfoil/testing')[name]);
});
