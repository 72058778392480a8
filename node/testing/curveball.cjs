'use strict';

// How the rules for a session store of Curveball are tried: as its middleware calls it.

const { isDeepStrictEqual } = require('node:util');

const { SLACK, sayError, show, sleep } = require('./probe.cjs');

const HOUR = 3600;
const DATA = {
  user: 'kit-ada',
  nested: { list: [1, 2.5, null, true, '\u00fc\u{1f98a}'], empty: {} },
  text: '',
  zero: 0,
  no: false,
};
const ROUNDS = 6;

const isMiss = (value) => value === undefined || value === null;
const second = (probe) => Math.floor(probe.now() / 1000);
const save = (probe, store, id, values, expire = second(probe) + HOUR) => probe.call(store, 'set', id, values, expire);

async function stored(probe, store, values = { n: 1 }, expire = undefined) {
  const id = probe.key();
  await save(probe, store, id, values, expire);
  return id;
}

async function ended(probe, store, id, when) {
  const value = await probe.call(store, 'get', id);
  probe.expect(isMiss(value), `no session ${when}`, show(value));
}

async function holds(probe, store, id, n, when) {
  const value = await probe.call(store, 'get', id);
  probe.expect(
    value?.n === n,
    `the session with n = ${n} ${when}`,
    isMiss(value) ? 'no session' : `one with n = ${show(value.n)}`,
  );
}

/** At the beginning of a second, so that what ends in the middle of one can be told from what ends with it. */
async function newSecond(probe) {
  await probe.until((second(probe) + 1) * 1000 + 5);
  return second(probe);
}

module.exports = {
  async 'shape.methods'(probe) {
    const store = await probe.make();
    for (const name of ['set', 'get', 'delete', 'newSessionId'])
      probe.expect(typeof store[name] === 'function', `${name} is a method`, show(store[name]));
  },

  async 'get.miss'(probe) {
    probe.same(await probe.call(await probe.make(), 'get', probe.key()), null, 'null');
  },

  async 'get.what_was_set'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store, DATA);
    const value = await probe.call(store, 'get', id);
    probe.expect(!isMiss(value), 'the values that were set, right after set()', 'no session');
    const other = Object.keys(DATA).filter((name) => !isDeepStrictEqual(value[name], DATA[name]));
    probe.expect(other.length === 0, 'the values that were set', `others in ${other.join(', ')}`);
  },

  async 'get.copies'(probe) {
    const store = await probe.make();
    const values = { inner: { n: 1 } };
    const id = await stored(probe, store, values);
    values.inner.n = 2;
    const first = await probe.call(store, 'get', id);
    probe.expect(first?.inner?.n === 1, 'the values as they were at set()', 'what was changed in the object after it');
    first.inner.n = 3;
    const again = await probe.call(store, 'get', id);
    probe.expect(again?.inner?.n === 1, 'the values as they were at set()', 'what was changed in the object that get() gave');
  },

  async 'id.any_text'(probe) {
    const store = await probe.make();
    const texts = [
      '',
      ' ',
      'constructor',
      '__proto__',
      '*',
      '../../etc/passwd',
      '\u6f22\u5b57',
      'a\nb',
      'a\0b',
      'x'.repeat(5000),
      "' OR 1=1 --",
      '%00',
      '\ud800',
    ];
    for (const text of texts) {
      for (const method of ['get', 'delete']) {
        const { value, error, failed } = await probe.attempt(store, method, text);
        const said = `${method}() of ${JSON.stringify(text.length > 40 ? `${text.length} letters` : text)} finds no session`;
        probe.expect(
          !failed && (method === 'delete' || isMiss(value)),
          said,
          failed ? `it failed: ${sayError(error)}` : show(value),
        );
      }
    }
  },

  async 'id.unguessable'(probe) {
    const store = await probe.make();
    const ids = [];
    for (let count = 0; count < 100; count++) ids.push(await probe.call(store, 'newSessionId'));
    probe.expect(
      ids.every((id) => typeof id === 'string' && id !== ''),
      'text',
      show(ids.find((id) => typeof id !== 'string')),
    );
    probe.expect(new Set(ids).size === ids.length, '100 different ids', `${new Set(ids).size}`);
    // What 100 ids show of their chance: the letters that are met at each place. A counter, or an instant, shows few.
    const length = Math.min(...ids.map((id) => id.length));
    let bits = 0;
    for (let place = 0; place < length; place++) bits += Math.log2(new Set(ids.map((id) => id[place])).size);
    probe.expect(bits >= 64, '64 bits that differ from id to id', `about ${Math.round(bits)} of ${length} characters`);
  },

  async 'set.replaces'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store, { n: 1, user: 'kit-ada' });
    const values = await probe.call(store, 'get', id);
    probe.expect(!isMiss(values), 'the session', 'no session');
    delete values.user;
    values.n = 2;
    await save(probe, store, id, values);
    const value = await probe.call(store, 'get', id);
    probe.expect(
      value?.n === 2 && value.user === undefined,
      'n as it was set, and no user any more',
      isMiss(value) ? 'no session' : 'the user that was removed, or the old n',
    );
  },

  async 'set.whole'(probe) {
    const store = await probe.make();
    const data = Array.from({ length: 6 }, (_, index) => ({ a: index, b: String.fromCharCode(97 + index).repeat(3000) }));
    for (let round = 0; round < 3; round++) {
      const id = probe.key();
      await probe.crowd(6, (index) => save(probe, store, id, data[index]));
      const value = await probe.call(store, 'get', id);
      probe.expect(
        data.some(({ a, b }) => a === value?.a && b === value?.b),
        'one of the sessions that were saved',
        isMiss(value) ? 'no session' : 'parts of several',
      );
    }
  },

  async 'set.keeps_others'(probe) {
    const store = await probe.make();
    const ids = Array.from({ length: 12 }, () => probe.key());
    await probe.crowd(12, (index) => save(probe, store, ids[index], { n: index }));
    for (const [index, id] of ids.entries()) await holds(probe, store, id, index, 'after 12 saves of different sessions at once');
  },

  async 'delete.removes'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store);
    await probe.call(store, 'delete', id);
    await ended(probe, store, id, 'right after delete()');
    await probe.call(store, 'delete', id);
  },

  async 'delete.stays'(probe) {
    const store = await probe.make();
    for (let round = 0; round < ROUNDS; round++) {
      const id = await stored(probe, store);
      const values = await probe.call(store, 'get', id);
      probe.expect(!isMiss(values), 'the session', 'no session');
      values.n = 2; // as ctx.session, which the middleware saves
      const remove = () => probe.call(store, 'delete', id);
      // Whether it says that it has stored nothing is for the store to decide.
      const late = () => probe.attempt(store, 'set', id, values, second(probe) + HOUR);
      const calls = round % 2 ? [late, remove] : [remove, late];
      if (round === 0) for (const call of calls) await call();
      else await Promise.all(calls.map((call) => call()));
      await ended(probe, store, id, 'after a request that had loaded it before has saved it');
    }
  },

  async 'expiry.ends'(probe) {
    const store = await probe.make();
    const isThere = (id) => async () => !isMiss(await probe.call(store, 'get', id));
    const expire = (await newSecond(probe)) + 1;
    const before = probe.now();
    const id = await stored(probe, store, { n: 1 }, expire);
    const slow = probe.now() - before; // a store that counts from when it was asked
    const early = await isThere(id)();
    if (probe.now() < expire * 1000) probe.expect(early, 'the session before the second `expire`', 'no session');
    const gone = await probe.ends((expire + 1) * 1000 + slow, 0, isThere(id));
    probe.expect(gone, 'no session when the second `expire` is over', 'it was there');
  },

  async 'expiry.through_second'(probe) {
    const store = await probe.make();
    for (let tries = 0; tries < 3; tries++) {
      const expire = (await newSecond(probe)) + 1;
      const id = await stored(probe, store, { n: 1 }, expire);
      if (probe.now() > expire * 1000 - 500) continue; // too late to tell a store that counts from when it was asked
      await probe.until(expire * 1000 + (probe.staged ? 999 : 700));
      const value = await probe.call(store, 'get', id);
      if (probe.now() >= (expire + 1) * 1000 - SLACK && !probe.staged) continue;
      probe.expect(!isMiss(value), 'the session within the second `expire`', 'no session');
      return;
    }
    probe.skip('this machine is too slow to tell');
  },

  async 'expiry.past_deletes'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store);
    for (const values of [await probe.call(store, 'get', id), { n: 2 }]) {
      await save(probe, store, id, values, second(probe) - 5);
      await ended(probe, store, id, 'after set() with an `expire` in the past');
    }
  },

  async 'expiry.long'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store, { n: 1 }, second(probe) + 9 * 365 * 24 * HOUR);
    await sleep(50); // a timer that fires at once is a real one
    await holds(probe, store, id, 1, 'with nine years to live');
  },

  async 'fault.rejects'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store);
    await probe.fault(store);
    for (const [method, ...args] of [
      ['get', id],
      ['set', id, { n: 2 }, second(probe) + HOUR],
      ['delete', id],
    ]) {
      const { value, failed } = await probe.attempt(store, method, ...args);
      probe.expect(failed, `${method}() rejects`, method === 'get' && isMiss(value) ? 'a miss' : 'it succeeded');
    }
  },

  async 'fault.recovers'(probe) {
    const store = await probe.make();
    const id = await stored(probe, store);
    await probe.fault(store);
    await probe.attempt(store, 'get', id);
    await probe.restore();
    await holds(probe, store, id, 1, 'once the store can be reached again');
  },
};
