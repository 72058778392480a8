'use strict';

// How the rules for a storage of Miro's API client are tried: as the client calls it.

const { isDeepStrictEqual } = require('node:util');

const { sayError, show, sleep, unseen } = require('./probe.cjs');

const HOUR = 3600000;

const stateOf = (probe, accessToken = 'kit-access', life = HOUR) => ({
  userId: 'kit-miro-user',
  accessToken,
  refreshToken: 'kit-refresh',
  tokenExpiresAt: new Date(probe.now() + life).toISOString(),
});

/** set() as the client does it: nobody waits. */
function unawaited(storage, ...args) {
  const result = storage.set(...args);
  if (typeof result?.then === 'function')
    result.then(
      () => {},
      () => {},
    );
}

async function holds(probe, storage, id, token, when) {
  const state = await probe.call(storage, 'get', id);
  probe.expect(
    state?.accessToken === token,
    `the state ${when}`,
    state === undefined ? 'undefined' : `another: ${show(state?.accessToken)}`,
  );
}

module.exports = {
  async 'shape.methods'(probe) {
    const storage = await probe.make();
    for (const name of ['get', 'set'])
      probe.expect(typeof storage[name] === 'function', `${name} is a method`, show(storage[name]));
  },

  async 'get.miss'(probe) {
    probe.same(await probe.call(await probe.make(), 'get', probe.key()), undefined, 'undefined');
  },

  async 'get.what_was_set'(probe) {
    const storage = await probe.make();
    const id = probe.key();
    const state = stateOf(probe);
    await probe.call(storage, 'set', id, { ...state });
    const seen = await probe.call(storage, 'get', id);
    probe.expect(
      isDeepStrictEqual({ ...seen }, state),
      'the state that was set, tokenExpiresAt as text',
      seen === undefined ? 'undefined' : 'another',
    );
    const bare = { userId: 'kit-miro-user', accessToken: 'kit-access' };
    await probe.call(storage, 'set', id, { ...bare });
    const again = await probe.call(storage, 'get', id);
    probe.expect(
      again?.refreshToken === undefined && again?.tokenExpiresAt === undefined,
      'a state without refreshToken and tokenExpiresAt as it is',
      'one with them',
    );
  },

  async 'get.own_names'(probe) {
    const storage = await probe.make();
    for (const id of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
      const { value, error, failed } = await probe.attempt(storage, 'get', id);
      probe.expect(
        !failed && value === undefined,
        `get('${id}') gives undefined before it is set`,
        failed ? `it failed: ${sayError(error)}` : show(value),
      );
      await probe.call(storage, 'set', id, stateOf(probe));
      await holds(probe, storage, id, 'kit-access', `of the user ${id}`);
      await probe.call(storage, 'set', id, undefined);
    }
  },

  async 'id.number_is_text'(probe) {
    const storage = await probe.make();
    const number = 7000000 + Math.floor(Math.random() * 1e9);
    await probe.call(storage, 'set', number, stateOf(probe));
    await holds(probe, storage, String(number), 'kit-access', 'of the same id as text');
    await probe.call(storage, 'set', String(number), undefined);
    probe.same(await probe.call(storage, 'get', number), undefined, 'undefined after it was removed by the id as text');
  },

  async 'set.undefined_deletes'(probe) {
    const storage = await probe.make();
    const id = probe.key();
    await probe.call(storage, 'set', id, stateOf(probe));
    await probe.call(storage, 'set', id, undefined);
    const seen = await probe.call(storage, 'get', id);
    probe.expect(seen === undefined || seen === null, 'no state after set(id, undefined)', show(seen));
    await probe.call(storage, 'set', probe.key(), undefined);
  },

  async 'set.replaces'(probe) {
    const storage = await probe.make();
    const id = probe.key();
    await probe.call(storage, 'set', id, { ...stateOf(probe), extra: 'kit-old' });
    await probe.call(storage, 'set', id, stateOf(probe, 'kit-new'));
    await holds(probe, storage, id, 'kit-new', 'that was set last');
    const seen = await probe.call(storage, 'get', id);
    probe.expect(seen.extra === undefined, 'nothing of the state before', 'a field of it');
  },

  async 'set.keeps_others'(probe) {
    const storage = await probe.make();
    const ids = Array.from({ length: 12 }, () => probe.key());
    await probe.crowd(12, (index) => probe.call(storage, 'set', ids[index], stateOf(probe, `kit-${index}`)));
    for (const [index, id] of ids.entries())
      await holds(probe, storage, id, `kit-${index}`, 'of each of 12 users who were set at once');
  },

  async 'set.seen_at_once'(probe) {
    const storage = await probe.make();
    const id = probe.key();
    for (const token of ['kit-first', 'kit-second']) {
      unawaited(storage, id, stateOf(probe, token));
      await holds(probe, storage, id, token, 'that was set in the line before');
    }
  },

  async 'fault.unawaited_set'(probe) {
    const storage = await probe.make();
    await probe.fault(storage);
    const seen = await unseen(async () => {
      try {
        storage.set(probe.key(), stateOf(probe));
      } catch {
        // what is thrown at once rejects the client's own call, which somebody waits for
      }
      await probe.attempt(storage, 'get', probe.key()); // so long as a failure takes
    });
    probe.expect(seen.length === 0, "a set() that fails is nobody's unhandled rejection", `one: ${sayError(seen[0])}`);
  },

  async 'fault.get_rejects'(probe) {
    const storage = await probe.make();
    const id = probe.key();
    await probe.call(storage, 'set', id, stateOf(probe));
    await probe.fault(storage);
    const { value, failed } = await probe.attempt(storage, 'get', id);
    probe.expect(failed, 'get() rejects', value === undefined ? 'a miss' : show(value));
  },

  async 'refresh.one'(probe) {
    const storage = await probe.make();
    probe.needs(storage, 'get', 'set', 'refreshOnce');
    const id = probe.key();
    await probe.call(storage, 'set', id, stateOf(probe, 'kit-old', -HOUR));
    let count = 0;
    const states = await probe.crowd(5, () =>
      probe.call(storage, 'refreshOnce', id, async () => {
        count++;
        await sleep(30);
        return stateOf(probe, 'kit-new');
      }),
    );
    probe.expect(count === 1, '1 of 5 refreshes', `${count}`);
    probe.expect(
      states.every((state) => state?.accessToken === 'kit-new'),
      'the successor for all of them',
      'another state for some',
    );
  },

  async 'lock.one_holder'(probe) {
    const storage = await probe.make();
    probe.needs(storage, 'withLock');
    const id = probe.key();
    await probe.call(storage, 'set', id, stateOf(probe));
    let inside = 0;
    let most = 0;
    const fences = await probe.crowd(3, () =>
      probe.call(storage, 'withLock', id, async (lease) => {
        most = Math.max(most, ++inside);
        await sleep(20);
        inside--;
        return lease.fence;
      }),
    );
    probe.expect(most === 1, '1 holder at a time', `${most}`);
    probe.expect(new Set(fences).size === 3, '3 different fences', `${new Set(fences).size}`);
  },
};
