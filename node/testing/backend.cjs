'use strict';

// How the rules for a backend are tried: by its own methods, as the core calls them.

const {
  Backend: { KEEP },
} = require('../backend.cjs');
const { Broken, sayError, show, sleep } = require('./probe.cjs');

const LATE = 1000; // what is not about the instant itself waits this long for an end, in milliseconds
const SHORT = 0.2; // a ttl that is waited for, in seconds
const YEARS = 3650 * 86400;
const ROUNDS = 10;
const CROWD = 8;
const OPTIONAL = ['pop', 'touch', 'incr', 'setIf', 'scan', 'close'];
const SWITCHES = ['binary', 'keepsTtl', 'singleProcess'];

const isMiss = (value) => value === undefined || value === null;
/** A value as this backend takes it. */
const given = (store, value) => (store.binary === true ? Buffer.from(value) : value);
/** And as it gives it: text, or undefined for a miss. */
function textOf(value, method) {
  if (isMiss(value)) return undefined;
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString();
  throw new Broken(`${method}() gives a string, bytes, undefined or null`, show(value));
}

const read = async (probe, store, key) => textOf(await probe.call(store, 'get', key), 'get');
const isThere = (probe, store, key) => async () => (await read(probe, store, key)) !== undefined;
const write = (probe, store, key, text, ttl) => probe.call(store, 'set', key, given(store, text), ttl);
const setIf = (probe, store, key, text, ttl, condition, expected) =>
  probe.call(
    store,
    'setIf',
    key,
    given(store, text),
    ttl,
    condition,
    expected === undefined ? undefined : given(store, expected),
  );

async function holds(probe, store, key, text, when) {
  const seen = await read(probe, store, key);
  probe.expect(seen === text, `get() gives ${text === undefined ? 'undefined or null' : show(text)} ${when}`, show(seen));
}

/** A key whose value has expired, also where seconds are counted, and that nobody has looked at since. */
async function expired(probe, store) {
  const key = probe.key();
  await write(probe, store, key, 'kit-expired', SHORT);
  await probe.pass(SHORT * 1000 + LATE);
  return key;
}

/**
 * Stores over the same data: two, where make() gives two objects that see each other. Only such a pair shows a lock that holds in
 * one object alone.
 */
async function rivals(probe) {
  const [first, second] = [await probe.make(), await probe.make()];
  const key = probe.key();
  await write(probe, first, key, 'kit-shared', 60);
  const shared = first !== second && (await read(probe, second, key)) === 'kit-shared';
  return shared ? [first, second] : [first];
}
const turns = (stores) => (index) => stores[index % stores.length];

/** Every key of a scan, in the order of the pages; `between` is called after each. */
async function scanned(probe, store, prefix, limit, between = () => {}) {
  const keys = [];
  let cursor;
  for (let pages = 0; ; pages++) {
    probe.expect(pages < 2000, 'scan() ends', 'it had not after 2,000 pages');
    const page = await probe.call(store, 'scan', prefix, cursor, limit);
    const found = Array.isArray(page) ? page : page?.keys;
    probe.expect(Array.isArray(found) && found.every((key) => typeof key === 'string'), 'scan() gives keys as text', show(found));
    keys.push(...found);
    cursor = Array.isArray(page) ? undefined : page.cursor;
    if (isMiss(cursor)) return keys;
    await between(found);
  }
}

/** What open() looks at, too. */
function checkShape(probe, store) {
  for (const name of ['get', 'set', 'delete'])
    probe.expect(typeof store[name] === 'function', `${name} is a method`, show(store[name]));
  for (const name of OPTIONAL) {
    probe.expect(isMiss(store[name]) || typeof store[name] === 'function', `${name} is a method or absent`, show(store[name]));
  }
  for (const name of SWITCHES) {
    probe.expect([undefined, true, false].includes(store[name]), `${name} is true, false or absent`, show(store[name]));
  }
}

/** A store of Counterfoil's over the backend. It is not closed: that would close the backend, which is for cleanup(). */
function opened(probe, backend) {
  try {
    checkShape(probe, backend);
  } catch {
    probe.skip('open() does not take it: see shape.methods');
  }
  const { open } = require('../index.cjs'); // only who checks a backend needs the native half
  try {
    return open(backend, { prefix: `${probe.key()}:`, ttl: 60 });
  } catch (error) {
    throw new Broken('open() takes the backend', `it did not: ${sayError(error)}`, error);
  }
}

/** Two calls that meet, in both orders: what is there afterwards. */
async function meet(probe, method, first, second, expected, wanted) {
  const stores = await rivals(probe);
  probe.needs(stores[0], method);
  for (let round = 0; round < ROUNDS; round++) {
    const key = probe.key();
    await write(probe, stores[0], key, 'kit-old', 60);
    const calls = [() => first(stores[0], key, round), () => second(stores.at(-1), key)];
    if (round % 4 > 1) calls.reverse();
    await Promise.all(calls.map((call) => call()));
    const seen = await read(probe, stores[0], key);
    probe.expect(seen === wanted, expected, show(seen));
  }
}

module.exports = {
  async 'shape.methods'(probe) {
    checkShape(probe, await probe.make());
  },

  async 'get.miss'(probe) {
    const value = await probe.call(await probe.make(), 'get', probe.key());
    probe.expect(isMiss(value), 'undefined or null', show(value));
  },

  async 'get.what_was_set'(probe) {
    const store = await probe.make();
    for (const text of ['kit-first', 'kit-second']) {
      const key = probe.key();
      await write(probe, store, key, text, 60);
      await holds(probe, store, key, text, 'right after set()');
    }
  },

  async 'get.own_names'(probe) {
    const store = await probe.make();
    for (const key of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf']) {
      const { value, error, failed } = await probe.attempt(store, 'get', key);
      const said = `get('${key}') gives undefined or null before anybody has set it`;
      probe.expect(!failed && isMiss(value), said, failed ? `it failed: ${sayError(error)}` : show(value));
      await write(probe, store, key, 'kit-value', 60);
      await holds(probe, store, key, 'kit-value', `after set('${key}')`);
      await probe.call(store, 'delete', key);
    }
  },

  async 'keys.distinct'(probe) {
    const store = await probe.make();
    const base = probe.key(':');
    const ends = [
      'Key',
      'key',
      'KEY',
      'key ',
      ' key',
      'k ey',
      'k:ey',
      'k/ey',
      'k_ey',
      'k.ey',
      'k%3Aey',
      'k\u00e9y',
      'ke\u0301y',
      'k\u00dfy',
      'kssy',
    ];
    for (const [index, end] of ends.entries()) await write(probe, store, base + end, `kit-${index}`, 60);
    for (const [index, end] of ends.entries())
      await holds(probe, store, base + end, `kit-${index}`, `of a key that ends in ${JSON.stringify(end)}`);
  },

  async 'keys.long'(probe) {
    const store = await probe.make();
    const start = probe.key(':');
    for (const letter of ['x', '\u00e9']) {
      const size = Buffer.byteLength(letter);
      const body = start + letter.repeat(Math.floor((1023 - start.length) / size));
      const whole = body + 'y'.repeat(1023 - Buffer.byteLength(body));
      await write(probe, store, `${whole}1`, 'kit-one', 60);
      await write(probe, store, `${whole}2`, 'kit-two', 60);
      await holds(probe, store, `${whole}1`, 'kit-one', 'of a key of 1,024 bytes beside one that differs in the last');
    }
  },

  async 'keys.independent'(probe) {
    const [store] = [await probe.make()];
    const keys = Array.from({ length: 16 }, () => probe.key());
    await probe.crowd(16, (index) => write(probe, store, keys[index], `kit-${index}`, 60));
    for (const [index, key] of keys.entries())
      await holds(probe, store, key, `kit-${index}`, 'after 16 sets of different keys at once');
    await probe.crowd(16, (index) =>
      index % 2 ? probe.call(store, 'delete', keys[index]) : write(probe, store, keys[index], 'kit-new', 60),
    );
    for (const [index, key] of keys.entries()) {
      await holds(probe, store, key, index % 2 ? undefined : 'kit-new', 'after 8 sets and 8 deletes of different keys at once');
    }
  },

  async 'text.round_trip'(probe) {
    const store = await probe.make();
    const texts = {
      'a sentence': 'kit plain',
      Unicode: '\u00dcn\u00efc\u00f6d\u00e9 \u6f22\u5b57 \u{1f98a} \u{10ffff}',
      NUL: 'a\0b',
      'line breaks': 'a\r\nb\nc\r',
      spaces: ' a ',
      'a byte order mark': '\ufeffa',
      'the text 0': '0',
      'the text false': 'false',
      'the text null': 'null',
      quotes: '"\'`\\',
      JSON: '{"a":[1]}',
    };
    for (const [name, text] of Object.entries(texts)) {
      const key = probe.key();
      await write(probe, store, key, text, 60);
      const seen = await read(probe, store, key);
      probe.expect(
        seen === text,
        `${name} comes back`,
        seen === undefined ? 'a miss' : `other text (${seen.length} characters for ${text.length})`,
      );
    }
  },

  async 'binary.round_trip'(probe) {
    const store = await probe.make();
    if (store.binary !== true) probe.skip('binary is not true: values are text');
    for (const bytes of [
      Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
      Buffer.from([0xff, 0xfe, 0, 0xc3]),
      Buffer.alloc(1),
    ]) {
      const key = probe.key();
      await probe.call(store, 'set', key, Buffer.from(bytes), 60);
      const seen = await probe.call(store, 'get', key);
      probe.expect(seen instanceof Uint8Array, 'get() gives bytes', show(seen));
      probe.expect(bytes.equals(seen), `${bytes.length} bytes come back as they were`, `${seen.length} bytes that are others`);
    }
  },

  async 'values.empty'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, '', 60);
    const seen = await read(probe, store, key);
    probe.expect(seen === '', 'an empty value', show(seen));
  },

  async 'values.large'(probe) {
    const store = await probe.make();
    const key = probe.key();
    const text = 'kit-0123456789ab'.repeat(65536);
    await write(probe, store, key, text, 60);
    const seen = await read(probe, store, key);
    probe.expect(seen === text, '1,048,576 bytes come back', seen === undefined ? 'a miss' : `${seen.length} others`);
  },

  async 'set.replaces'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-the longer one', 60);
    await write(probe, store, key, 'kit-b', 60);
    await holds(probe, store, key, 'kit-b', 'after a second set()');
  },

  async 'set.replaces_ttl'(probe) {
    const store = await probe.make();
    const lasting = probe.key();
    const longer = probe.key();
    await write(probe, store, lasting, 'kit-a', SHORT);
    await write(probe, store, longer, 'kit-a', SHORT);
    await write(probe, store, lasting, 'kit-b');
    await write(probe, store, longer, 'kit-b', 60);
    for (const before of [undefined, 60]) {
      const shorter = probe.key();
      await write(probe, store, shorter, 'kit-a', before);
      await write(probe, store, shorter, 'kit-b', SHORT);
      const ended = await probe.ends(probe.now() + SHORT * 1000, LATE, isThere(probe, store, shorter));
      probe.expect(
        ended,
        `a value with a ttl of ${SHORT} s ends, over one ${before ? 'with 60 s' : 'without'}`,
        'it was there a second later',
      );
    }
    await holds(probe, store, lasting, 'kit-b', 'once the ttl of the value before it is over: this one has none');
    await holds(probe, store, longer, 'kit-b', 'once the ttl of the value before it is over: this one has 60 s');
  },

  async 'set.whole'(probe) {
    const store = await probe.make();
    const key = probe.key();
    const wholes = Array.from({ length: CROWD }, (_, index) => String.fromCharCode(97 + index).repeat(5000 + index));
    for (let round = 0; round < 3; round++) {
      const reads = await probe.crowd(
        CROWD,
        async (index) => (await Promise.all([write(probe, store, key, wholes[index], 60), read(probe, store, key)]))[1],
      );
      for (const seen of [...reads, await read(probe, store, key)]) {
        probe.expect(seen === undefined || wholes.includes(seen), 'one of the values that were set', 'one that nobody has set');
      }
      probe.expect((await read(probe, store, key)) !== undefined, 'one of the values that were set', 'a miss');
    }
  },

  async 'delete.removes'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    await probe.call(store, 'delete', key);
    await holds(probe, store, key, undefined, 'right after delete()');
    await probe.call(store, 'delete', probe.key());
  },

  async 'delete.says_whether'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    const was = await probe.call(store, 'delete', key);
    const missed = await probe.call(store, 'delete', probe.key());
    if (isMiss(was) && isMiss(missed)) probe.skip('delete() does not say: that counts as yes');
    probe.expect(was === true, 'true for a key that was there', show(was));
    probe.expect(missed === false, 'false for a key that was not', show(missed));
    probe.same(await probe.call(store, 'delete', await expired(probe, store)), false, 'false for a key whose value had expired');
  },

  async 'ttl.exact'(probe) {
    const store = await probe.make();
    const key = probe.key();
    const put = (life) => write(probe, store, key, 'kit-a', life / 1000);
    await probe.exactly(put, isThere(probe, store, key), 'the value is there until its ttl is over, and absent from then on');
  },

  async 'ttl.none'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a');
    await probe.pass(probe.staged ? YEARS * 2000 : 600);
    await holds(probe, store, key, 'kit-a', 'without a ttl, later');
  },

  async 'ttl.long'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a', YEARS);
    await sleep(50); // a timer that fires at once is a real one
    if (probe.staged) await probe.pass(YEARS * 999);
    await holds(probe, store, key, 'kit-a', 'with a ttl of ten years');
  },

  async 'pop.takes'(probe) {
    const store = await probe.make();
    probe.needs(store, 'pop');
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    const seen = textOf(await probe.call(store, 'pop', key), 'pop');
    probe.expect(seen === 'kit-a', 'pop() gives "kit-a"', show(seen));
    await holds(probe, store, key, undefined, 'after pop()');
    for (const [name, missing] of [
      ['was never set', probe.key()],
      ['has expired', await expired(probe, store)],
    ]) {
      const value = await probe.call(store, 'pop', missing);
      probe.expect(isMiss(value), `pop() gives undefined or null for what ${name}`, show(value));
    }
  },

  async 'pop.one_winner'(probe) {
    const stores = await rivals(probe);
    probe.needs(stores[0], 'pop');
    const turn = turns(stores);
    for (let round = 0; round < ROUNDS; round++) {
      const key = probe.key();
      await write(probe, stores[0], key, 'kit-code', 60);
      const got = await probe.crowd(CROWD, (index) => probe.call(turn(index), 'pop', key));
      const winners = got.filter((value) => !isMiss(value)).length;
      probe.expect(winners === 1, `1 of ${CROWD} pops at once gets the value`, `${winners} of them did`);
    }
  },

  async 'touch.moves_expiry'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    const { longer, ending, end } = await probe.within(async (life) => {
      const [first, shorter, without] = [probe.key(), probe.key(), probe.key()];
      await write(probe, store, first, 'kit-a', life);
      await probe.call(store, 'touch', first, 60);
      await write(probe, store, shorter, 'kit-a', 60);
      await write(probe, store, without, 'kit-a');
      await probe.call(store, 'touch', shorter, life);
      await probe.call(store, 'touch', without, life);
      await holds(probe, store, shorter, 'kit-a', 'after touch()');
      return {
        longer: first,
        ending: [
          [shorter, '60 s'],
          [without, 'no ttl'],
        ],
        end: probe.now() + life * 1000,
      };
    });
    for (const [key, before] of ending) {
      const gone = await probe.ends(end, LATE, isThere(probe, store, key));
      probe.expect(gone, `a value with ${before} that is touched with a short ttl ends`, 'it was there a second later');
    }
    await holds(probe, store, longer, 'kit-a', 'after touch() with 60 s, once the first ttl is over');
  },

  async 'touch.says_whether'(probe) {
    const store = await probe.make();
    probe.needs(store, 'touch');
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    probe.same(await probe.call(store, 'touch', key, 60), true, 'true for a key that is there');
    for (const [name, missing] of [
      ['was never set', probe.key()],
      ['has expired', await expired(probe, store)],
    ]) {
      probe.same(await probe.call(store, 'touch', missing, 60), false, `false for a key that ${name}`);
      await holds(probe, store, missing, undefined, `after touch() of a key that ${name}`);
    }
  },

  async 'touch.no_resurrection'(probe) {
    const touch = (store, key) => probe.call(store, 'touch', key, 120);
    const remove = (store, key) => probe.call(store, 'delete', key);
    await meet(probe, 'touch', touch, remove, 'no value after a touch() and a delete() at once', undefined);
  },

  async 'touch.loses_no_update'(probe) {
    const touch = (store, key) => probe.call(store, 'touch', key, 120);
    const update = (store, key) => write(probe, store, key, 'kit-new', 60);
    await meet(probe, 'touch', touch, update, 'the new value after a touch() and a set() at once', 'kit-new');
  },

  async 'incr.counts'(probe) {
    const store = await probe.make();
    probe.needs(store, 'incr');
    const key = probe.key();
    for (const [by, wanted] of [
      [1, 1],
      [4, 5],
      [-2, 3],
    ])
      probe.same(await probe.call(store, 'incr', key, by), wanted, `${wanted} after incr(${by})`);
    const seen = await read(probe, store, key);
    probe.expect(seen === '3', 'get() shows the number as decimal text', show(seen));
    await write(probe, store, key, '10');
    probe.same(await probe.call(store, 'incr', key, 1), 11, '11 after set("10") and incr(1)');
  },

  async 'incr.loses_none'(probe) {
    const stores = await rivals(probe);
    probe.needs(stores[0], 'incr');
    const turn = turns(stores);
    const key = probe.key();
    const numbers = await probe.crowd(16, (index) => probe.call(turn(index), 'incr', key, 1, 60));
    const different = new Set(numbers).size;
    probe.expect(different === 16, '16 different numbers of 16 incr() at once', `${different}`);
    const seen = await read(probe, stores[0], key);
    probe.expect(seen === '16', 'a count of 16', `${Number(seen)}`);
  },

  async 'incr.keeps_ttl'(probe) {
    const store = await probe.make();
    probe.needs(store, 'incr');
    const lasting = probe.key();
    await write(probe, store, lasting, '1');
    await probe.call(store, 'incr', lasting, 1, SHORT);
    const { short, end } = await probe.within(async (life) => {
      const key = probe.key();
      await probe.call(store, 'incr', key, 1, life);
      await probe.call(store, 'incr', key, 1, 60);
      return { short: key, end: probe.now() + life * 1000 };
    });
    const gone = await probe.ends(end, LATE, isThere(probe, store, short));
    probe.expect(
      gone,
      'a number made with a short ttl ends then, although it was raised with a longer one',
      'it was there a second later',
    );
    const there = (await read(probe, store, lasting)) !== undefined;
    probe.expect(there, 'a number without an end has none after incr() with a ttl', 'it was gone');
  },

  async 'incr.refuses_text'(probe) {
    const store = await probe.make();
    probe.needs(store, 'incr');
    for (const text of ['kit-text', '1.5']) {
      const key = probe.key();
      await write(probe, store, key, text, 60);
      const { value, failed } = await probe.attempt(store, 'incr', key, 1);
      probe.expect(failed, `incr() of ${JSON.stringify(text)} fails`, `it gave ${show(value)}`);
      const seen = await read(probe, store, key);
      probe.expect(seen === text, 'the value is as it was', show(seen));
    }
  },

  async 'set_if.absent'(probe) {
    const store = await probe.make();
    probe.needs(store, 'setIf');
    const key = probe.key();
    probe.same(await setIf(probe, store, key, 'kit-a', 60, 'absent'), true, 'true where nothing is');
    await holds(probe, store, key, 'kit-a', 'after it');
    probe.same(await setIf(probe, store, key, 'kit-b', SHORT, 'absent'), false, 'false where something is');
    await holds(probe, store, key, 'kit-a', 'after it was refused');
    const gone = await expired(probe, store);
    await holds(probe, store, key, 'kit-a', 'once the ttl of what was refused is over');
    probe.same(await setIf(probe, store, gone, 'kit-c', SHORT, 'absent'), true, 'true where a value has expired');
    const ended = await probe.ends(probe.now() + SHORT * 1000, LATE, isThere(probe, store, gone));
    probe.expect(ended, `what was stored with ${SHORT} s ends`, 'it was there a second later');
  },

  async 'set_if.present'(probe) {
    const store = await probe.make();
    probe.needs(store, 'setIf');
    const key = probe.key();
    probe.same(await setIf(probe, store, key, 'kit-a', 60, 'present'), false, 'false where nothing is');
    await holds(probe, store, key, undefined, 'after it was refused');
    await write(probe, store, key, 'kit-a', 60);
    probe.same(await setIf(probe, store, key, 'kit-b', 60, 'present'), true, 'true where something is');
    await holds(probe, store, key, 'kit-b', 'after it');
    const gone = await expired(probe, store);
    probe.same(await setIf(probe, store, gone, 'kit-c', 60, 'present'), false, 'false where a value has expired');
  },

  async 'set_if.equal'(probe) {
    const store = await probe.make();
    probe.needs(store, 'setIf');
    const key = probe.key();
    probe.same(await setIf(probe, store, key, 'kit-b', 60, 'equal', 'kit-a'), false, 'false where nothing is');
    await holds(probe, store, key, undefined, 'after it was refused');
    await write(probe, store, key, 'kit-a', 60);
    for (const other of ['kit-', 'kit-A', 'kit-a ', '']) {
      probe.same(
        await setIf(probe, store, key, 'kit-b', 60, 'equal', other),
        false,
        `false where ${JSON.stringify(other)} is expected and "kit-a" there`,
      );
    }
    await holds(probe, store, key, 'kit-a', 'after it was refused');
    probe.same(await setIf(probe, store, key, 'kit-b', 60, 'equal', 'kit-a'), true, 'true where exactly that value is');
    await holds(probe, store, key, 'kit-b', 'after it');
  },

  async 'set_if.one_winner'(probe) {
    const stores = await rivals(probe);
    probe.needs(stores[0], 'setIf');
    const turn = turns(stores);
    for (let round = 0; round < ROUNDS; round++) {
      const key = probe.key();
      const stored = await probe.crowd(CROWD, (index) => setIf(probe, turn(index), key, `kit-${index}`, 60, 'absent'));
      const winners = stored.filter(Boolean).length;
      probe.expect(winners === 1, `1 of ${CROWD} at once stores`, `${winners} of them did`);
      await holds(probe, stores[0], key, `kit-${stored.indexOf(true)}`, 'of the one that was told so');
    }
  },

  async 'set_if.equal_one_winner'(probe) {
    const stores = await rivals(probe);
    probe.needs(stores[0], 'setIf');
    const turn = turns(stores);
    for (let round = 0; round < ROUNDS; round++) {
      const key = probe.key();
      await write(probe, stores[0], key, 'kit-old', 60);
      const stored = await probe.crowd(CROWD, (index) => setIf(probe, turn(index), key, `kit-${index}`, 60, 'equal', 'kit-old'));
      const winners = stored.filter(Boolean).length;
      probe.expect(winners === 1, `1 of ${CROWD} that expect the same value stores`, `${winners} of them did`);
    }
  },

  async 'set_if.no_resurrection'(probe) {
    const save = (store, key, round) =>
      setIf(probe, store, key, 'kit-new', 60, ...(round % 2 ? ['present'] : ['equal', 'kit-old']));
    const remove = (store, key) => probe.call(store, 'delete', key);
    await meet(probe, 'setIf', save, remove, 'no value after a setIf() and a delete() at once', undefined);
  },

  async 'keep_ttl.keeps'(probe) {
    const store = await probe.make();
    if (store.keepsTtl !== true) probe.skip('keepsTtl is not true');
    const ways = { 'set()': (key, newTtl) => probe.call(store, 'set', key, given(store, 'kit-b'), KEEP, newTtl) };
    if (typeof store.setIf === 'function') {
      ways['setIf()'] = (key, newTtl) =>
        probe.call(store, 'setIf', key, given(store, 'kit-b'), KEEP, 'present', undefined, newTtl);
    }
    const lasting = [];
    for (const [name, keep] of Object.entries(ways)) {
      const without = probe.key();
      await write(probe, store, without, 'kit-a');
      await keep(without, SHORT);
      lasting.push([without, name]);
    }
    const { ending, end } = await probe.within(async (life) => {
      const made = probe.key();
      await probe.call(store, 'set', made, given(store, 'kit-b'), KEEP, life);
      const keys = [[made, 'where nothing was, the last argument is the ttl']];
      for (const [name, keep] of Object.entries(ways)) {
        const key = probe.key();
        await write(probe, store, key, 'kit-a', life);
        await keep(key, 60);
        await holds(probe, store, key, 'kit-b', `after ${name} with Backend.KEEP`);
        keys.push([key, `after ${name} with Backend.KEEP the short ttl of the value before it stays`]);
      }
      return { ending: keys, end: probe.now() + life * 1000 };
    });
    for (const [key, expected] of ending) {
      probe.expect(await probe.ends(end, LATE, isThere(probe, store, key)), expected, 'it was there a second later');
    }
    for (const [key, name] of lasting)
      await holds(probe, store, key, 'kit-b', `after ${name} with Backend.KEEP over a value without an end`);
  },

  async 'scan.finds_all'(probe) {
    const store = await probe.make();
    probe.needs(store, 'scan');
    const prefix = probe.key(':');
    const keys = Array.from({ length: 25 }, (_, index) => `${prefix}${index}`);
    for (const key of [...keys, probe.key(':'), prefix.slice(0, -1)]) await write(probe, store, key, 'kit-a', 60);
    for (const limit of [7, 1000]) {
      const seen = await scanned(probe, store, prefix, limit);
      const twice = seen.length - new Set(seen).size;
      const missing = keys.filter((key) => !seen.includes(key)).length;
      const others = seen.filter((key) => !key.startsWith(prefix)).length;
      probe.expect(
        twice + missing + others === 0,
        `the 25 keys with that prefix, once each (limit ${limit})`,
        `${missing} missing, ${twice} twice, ${others} of others`,
      );
    }
  },

  async 'scan.literal_prefix'(probe) {
    const store = await probe.make();
    probe.needs(store, 'scan');
    const base = probe.key(':');
    for (const sign of ['*', '?', '[x]', '%', '_', '\\', '.', '^', '$']) {
      const prefix = `${base}${sign}`;
      await write(probe, store, `${prefix}a`, 'kit-a', 60);
      await write(probe, store, `${base}xa`, 'kit-a', 60);
      const seen = await scanned(probe, store, prefix, 100);
      probe.expect(
        seen.length === 1 && seen[0] === `${prefix}a`,
        `scan() of a prefix that ends in ${sign} finds the 1 key that begins so`,
        `${seen.length} keys`,
      );
    }
  },

  async 'scan.no_expired'(probe) {
    const store = await probe.make();
    probe.needs(store, 'scan');
    const prefix = probe.key(':');
    await write(probe, store, `${prefix}live`, 'kit-a', 60);
    await write(probe, store, `${prefix}over`, 'kit-a', SHORT);
    await probe.pass(SHORT * 1000 + LATE);
    const seen = await scanned(probe, store, prefix, 100);
    probe.expect(!seen.includes(`${prefix}over`), 'the 1 key that is alive', `${seen.length} keys, an expired one among them`);
  },

  async 'scan.stable'(probe) {
    const store = await probe.make();
    probe.needs(store, 'scan');
    const prefix = probe.key(':');
    const keys = Array.from({ length: 40 }, (_, index) => `${prefix}${String(index).padStart(2, '0')}`);
    const stay = new Set(keys.filter((_, index) => index % 2));
    for (const key of keys) await write(probe, store, key, 'kit-a', 60);
    let added = 0;
    const seen = new Set(
      await scanned(probe, store, prefix, 6, async (page) => {
        for (const key of page) if (!stay.has(key)) await probe.call(store, 'delete', key);
        if (added < 20) await write(probe, store, `${prefix}0${added++}`, 'kit-new', 60);
      }),
    );
    const missing = [...stay].filter((key) => !seen.has(key)).length;
    probe.expect(missing === 0, 'the 20 keys that stayed, while others came and went', `${missing} of them were missing`);
  },

  async 'single_process.alone'(probe) {
    const [first, second] = [await probe.make(), await probe.make()];
    if (first.singleProcess !== true) probe.skip('singleProcess is not true');
    if (first === second) probe.skip('make() gives one object: give it a new one each time to have it tried');
    const key = probe.key();
    await write(probe, first, key, 'kit-shared', 60);
    const seen = await read(probe, second, key);
    probe.expect(
      seen === undefined,
      'what one object has stored, no other one sees',
      'another object of make() sees it: singleProcess must be false',
    );
  },

  async 'single_process.one_winner'(probe) {
    const backend = await probe.make();
    if (backend.singleProcess !== true || typeof backend.pop === 'function')
      probe.skip('nothing is derived: singleProcess is not true, or there is a pop()');
    const store = opened(probe, backend);
    for (let round = 0; round < ROUNDS; round++) {
      await probe.call(store, 'set', 'code', 'kit-code');
      const got = await probe.crowd(CROWD, () => probe.call(store, 'pop', 'code'));
      const winners = got.filter((value) => value !== undefined).length;
      probe.expect(winners === 1, `1 of ${CROWD} store.pop() at once gets the value`, `${winners} of them did`);
    }
  },

  async 'store.opens'(probe) {
    const store = opened(probe, await probe.make());
    await probe.call(store, 'set', 'opened', 'kit-opened');
    probe.same(await probe.call(store, 'get', 'opened'), 'kit-opened', 'store.get() gives what store.set() was given');
    await probe.call(store, 'delete', 'opened');
    probe.same(await probe.call(store, 'get', 'opened'), undefined, 'store.get() gives undefined after store.delete()');
  },

  async 'fault.rejects'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    await probe.fault(store);
    for (const [method, ...args] of [
      ['get', key],
      ['set', key, given(store, 'kit-b'), 60],
      ['delete', key],
    ]) {
      const { value, failed } = await probe.attempt(store, method, ...args);
      probe.expect(failed, `${method}() fails`, isMiss(value) && method === 'get' ? 'a miss' : 'it succeeded');
    }
  },

  async 'fault.recovers'(probe) {
    const store = await probe.make();
    const key = probe.key();
    await write(probe, store, key, 'kit-a', 60);
    await probe.fault(store);
    await probe.attempt(store, 'get', key);
    await probe.restore();
    await holds(probe, store, key, 'kit-a', 'once the data can be reached again');
  },
};
