'use strict';

// How the rules for a session store of FluidAuth are tried: as its Session calls it.

const { Broken, sayError, show } = require('./probe.cjs');

const HOUR = 3600000;
const CROWD = 8;
const ROUNDS = 6;

const sessionOf = (probe, sessionId, userId = 'kit-ada', life = HOUR) => ({
  sessionId,
  userId,
  expires: new Date(probe.now() + life).toISOString(),
});

async function created(probe, store, userId, life) {
  const data = sessionOf(probe, probe.key(), userId, life);
  await probe.call(store, 'create', { ...data });
  return data;
}

/** The session, and that it is one: null is a miss, what is neither is Broken. */
async function read(probe, store, id) {
  const value = await probe.call(store, 'get', id);
  if (value === null || (typeof value === 'object' && !Array.isArray(value))) return value;
  throw new Broken('get() gives a session or null', show(value));
}

async function ended(probe, store, id, when) {
  const value = await read(probe, store, id);
  // FluidAuth looks at the time itself, so a session that is over by its own word has ended.
  const over = value !== null && new Date(value.expires).getTime() <= probe.now();
  probe.expect(value === null || over, `no session ${when}`, show(value));
}

module.exports = {
  async 'shape.methods'(probe) {
    const store = await probe.make();
    for (const name of ['create', 'update', 'delete', 'get', 'clean'])
      probe.expect(typeof store[name] === 'function', `${name} is a method`, show(store[name]));
  },

  async 'get.miss'(probe) {
    const store = await probe.make();
    for (const id of [probe.key(), 'constructor', '__proto__']) probe.same(await probe.call(store, 'get', id), null, 'null');
  },

  async 'get.what_was_set'(probe) {
    const store = await probe.make();
    const data = await created(probe, store);
    const value = await read(probe, store, data.sessionId);
    probe.expect(value !== null, 'the session, right after create()', 'null');
    probe.expect(
      value.sessionId === data.sessionId && value.userId === data.userId,
      'the sessionId and userId that were given',
      'others',
    );
    const same = new Date(value.expires).getTime() === new Date(data.expires).getTime();
    probe.expect(same, 'expires as text or Date of the same instant', show(value.expires));
  },

  async 'get.copies'(probe) {
    const store = await probe.make();
    const data = sessionOf(probe, probe.key());
    const { sessionId, expires } = data;
    await probe.call(store, 'create', data);
    data.expires = new Date(probe.now() + 2 * HOUR).toISOString();
    const same = (value) => value !== null && new Date(value.expires).getTime() === new Date(expires).getTime();
    const first = await read(probe, store, sessionId);
    probe.expect(same(first), 'expires as it was at create()', 'what was changed in the object after it');
    first.expires = data.expires;
    probe.expect(
      same(await read(probe, store, sessionId)),
      'expires as it was at create()',
      'what was changed in the object that get() gave',
    );
  },

  async 'user_id.type'(probe) {
    const store = await probe.make();
    for (const userId of [7, '7', 0, 'kit-ada']) {
      const { sessionId } = await created(probe, store, userId);
      const value = await read(probe, store, sessionId);
      probe.expect(value?.userId === userId, `userId as the ${typeof userId} that it was`, `a ${typeof value?.userId}`);
    }
  },

  async 'create.refuses_taken'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store, 'kit-ada');
    const { error, failed } = await probe.attempt(store, 'create', sessionOf(probe, sessionId, 'kit-eve'));
    probe.expect(failed, 'create() of an id that is taken rejects', 'it succeeded');
    probe.expect(error?.code === 400, 'an error whose code is 400', sayError(error));
    const value = await read(probe, store, sessionId);
    probe.expect(value?.userId === 'kit-ada', 'the session as it was', show(value?.userId));
  },

  async 'create.one_winner'(probe) {
    const store = await probe.make();
    for (let round = 0; round < ROUNDS; round++) {
      const id = probe.key();
      const results = await probe.crowd(CROWD, (index) => probe.attempt(store, 'create', sessionOf(probe, id, `kit-${index}`)));
      const winners = results.filter(({ failed }) => !failed).length;
      probe.expect(winners === 1, `1 of ${CROWD} create() of one id succeeds`, `${winners} of them did`);
      const value = await read(probe, store, id);
      probe.expect(
        value?.userId === `kit-${results.findIndex(({ failed }) => !failed)}`,
        'the session of the one that succeeded',
        show(value?.userId),
      );
    }
  },

  async 'update.replaces'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store);
    const value = await read(probe, store, sessionId);
    probe.expect(value !== null, 'the session', 'null');
    const expires = new Date(probe.now() + 2 * HOUR).toISOString();
    await probe.call(store, 'update', sessionId, { ...value, expires });
    const seen = await read(probe, store, sessionId);
    probe.expect(
      seen !== null && new Date(seen.expires).getTime() === new Date(expires).getTime(),
      'the new expires',
      seen === null ? 'null' : 'the old one',
    );
  },

  async 'update.not_after_delete'(probe) {
    const store = await probe.make();
    for (let round = 0; round < ROUNDS; round++) {
      const { sessionId } = await created(probe, store);
      const value = await read(probe, store, sessionId);
      probe.expect(value !== null, 'the session', 'null');
      const remove = () => probe.call(store, 'delete', sessionId);
      const late = () =>
        probe.attempt(store, 'update', sessionId, { ...value, expires: new Date(probe.now() + HOUR).toISOString() });
      const calls = round % 2 ? [late, remove] : [remove, late];
      if (round === 0) for (const call of calls) await call();
      else await Promise.all(calls.map((call) => call()));
      await ended(probe, store, sessionId, 'after a request that had loaded it before has extended it');
    }
  },

  async 'delete.removes'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store);
    await probe.call(store, 'delete', sessionId);
    await ended(probe, store, sessionId, 'right after delete()');
    await probe.call(store, 'delete', sessionId);
    await probe.call(store, 'delete', probe.key());
  },

  async 'set.keeps_others'(probe) {
    const store = await probe.make();
    const all = Array.from({ length: 12 }, (_, index) => sessionOf(probe, probe.key(), index));
    await probe.crowd(12, (index) => probe.call(store, 'create', { ...all[index] }));
    for (const { sessionId, userId } of all) {
      const value = await read(probe, store, sessionId);
      probe.expect(
        value?.userId === userId,
        'each of 12 sessions that were created at once',
        value === null ? 'one is missing' : "one is another's",
      );
    }
  },

  async 'clean.removes_expired'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store, 'kit-ada', 200);
    await probe.pass(400);
    await probe.call(store, 'clean');
    const value = await read(probe, store, sessionId);
    probe.expect(value === null, 'no expired session after clean()', show(value));
  },

  async 'clean.keeps_live'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store);
    await probe.call(store, 'clean');
    probe.expect((await read(probe, store, sessionId)) !== null, 'the session that is alive after clean()', 'null');
  },

  async 'fault.rejects'(probe) {
    const store = await probe.make();
    const { sessionId } = await created(probe, store);
    await probe.fault(store);
    const calls = [
      ['get', sessionId],
      ['create', sessionOf(probe, probe.key())],
      ['update', sessionId, sessionOf(probe, sessionId)],
    ];
    for (const [method, ...args] of calls) {
      const { value, failed } = await probe.attempt(store, method, ...args);
      probe.expect(failed, `${method}() rejects`, method === 'get' && value === null ? 'a miss' : 'it succeeded');
    }
  },
};
