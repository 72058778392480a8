'use strict';

// SessionStorage beyond the cases: types, crowds at the edge of what is allowed, epochs, and pages while sessions come and go.

const { test, describe } = require('node:test');
const assert = require('node:assert/strict');
const { inspect } = require('node:util');
const { open, SessionStorage, CounterfoilError } = require('counterfoil');
const { PLACES } = require('./support/places.cjs');
const { seed, random } = require('./support/random.cjs');

const canary = 'secret-canary';
const start = Date.parse('2029-01-01T00:00:00Z');
const at = (ms) => new Date(start + ms);
/** The nth session of a user. */
const fields = (userId, n, more = {}) => ({ tokenHash: `${userId} ${n}`, userId, createdAt: at(n), updatedAt: at(n), expiresAt: at(1e6 + n), ...more });

for (const [name, place] of Object.entries(PLACES)) {
  describe(`sessions over ${name}`, () => {
    test('a crowd makes sessions: never more than are allowed', async () => {
      const openAgain = place();
      const stores = [openAgain(), openAgain()];
      const refusing = stores.map((store) => new SessionStorage(store, { maxSessions: 5, whenFull: 'refuse' }));
      const ends = await Promise.allSettled(Array.from({ length: 30 }, (_, i) => refusing[i % 2].create(fields('r', i))));
      assert.equal(ends.filter((end) => end.status === 'fulfilled').length, 5);
      assert.ok(ends.every((end) => end.status === 'fulfilled' || (end.reason.code === 'LIMIT' && end.reason.outcome === 'not_applied')));
      const rolling = stores.map((store) => new SessionStorage(store, { maxSessions: 5 }));
      await Promise.all(Array.from({ length: 30 }, (_, i) => rolling[i % 2].create(fields('o', i))));
      const { records } = await rolling[0].listForUser('o', { orderBy: 'createdAtDesc' });
      assert.equal(records.length, 5);
      await rolling[1].create(fields('o', 100));
      assert.deepEqual((await rolling[0].listForUser('o', { orderBy: 'createdAtDesc' })).records.map((one) => one.id).slice(1), records.slice(0, 4).map((one) => one.id));
      // The same token hash: one has it.
      const same = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => rolling[i % 2].create(fields('s', 0, { userId: `u${i}` }))));
      const [winner] = same.filter((end) => end.status === 'fulfilled');
      assert.equal(same.filter((end) => end.status === 'fulfilled').length, 1);
      assert.ok(same.every((end) => end.status === 'fulfilled' || (end.reason.code === 'EXISTS' && end.reason.existing.id === winner.value.id)));
      await Promise.all(stores.map((store) => store.close()));
    });

    test('a login that began before all sessions were revoked is refused', async () => {
      const openAgain = place();
      const stores = [openAgain(), openAgain()];
      const [one, other] = stores.map((store) => new SessionStorage(store));
      const epoch = await one.epoch('u');
      const first = await one.create(fields('u', 1, { epoch }));
      assert.deepEqual([epoch, first.epoch, first.status], [0, 0, 'active']);
      assert.equal(await other.revokeAllForUser('u', { revokedAt: at(5) }), 1);
      await assert.rejects(one.create(fields('u', 2, { epoch })), { code: 'CHANGED', outcome: 'not_applied' });
      assert.equal((await one.create(fields('u', 3, { epoch: await one.epoch('u') }))).epoch, 1);
      // While a crowd logs in, all are revoked, again and again: no session of an older epoch is active in the end.
      const race = await Promise.allSettled([
        ...Array.from({ length: 30 }, async (_, i) => {
          const seen = await one.epoch('w');
          return one.create(fields('w', i, { epoch: seen }));
        }),
        ...Array.from({ length: 5 }, () => other.revokeAllForUser('w', { revokedAt: at(0) })),
      ]);
      assert.ok(race.every((end) => end.status === 'fulfilled' || end.reason.code === 'CHANGED'));
      assert.equal(await one.epoch('w'), 5);
      const { records } = await other.listForUser('w', { now: at(0), limit: 100 });
      assert.ok(records.every((session) => (session.status === 'active') === (session.epoch === 5)), records.map((session) => [session.status, session.epoch]).join());
      await Promise.all(stores.map((store) => store.close()));
    });

    test('refresh and revoke at once: once revoked, it stays so', async () => {
      const store = place()();
      const sessions = new SessionStorage(store);
      for (let round = 0; round < 10; round++) {
        const { id, tokenHash } = await sessions.create(fields('u', round));
        const refresh = (n) => sessions.refresh(id, { updatedAt: at(n), expiresAt: at(2e6 + n), lastActiveAt: at(n) });
        const [, revoked] = await Promise.all([refresh(1), sessions.revoke(id, { revokedAt: at(7) }), refresh(2), sessions.revoke(id, { revokedAt: at(8) }), refresh(3)]);
        assert.equal(revoked, true);
        assert.equal(await refresh(4), undefined);
        const end = await sessions.getAny(id);
        assert.equal(end.status, 'revoked');
        assert.ok([7, 8].includes(end.revokedAt - start));
        assert.equal(await sessions.revoke(id, { revokedAt: at(9) }), true);
        assert.deepEqual((await sessions.getAny(id)).revokedAt, end.revokedAt);
        assert.equal(await sessions.get({ tokenHash, now: at(0) }), undefined);
      }
      await store.close();
    });

    test('pages: every session that stays comes once, in its order, whatever comes and goes', async (t) => {
      t.diagnostic(`seed ${seed} (COUNTERFOIL_SEED repeats it)`);
      const store = place()();
      const sessions = new SessionStorage(store, { maxSessions: 1000 });
      const stay = await Promise.all(Array.from({ length: 40 }, (_, i) => sessions.create(fields('u', i, { updatedAt: at(random(10)), createdAt: at(random(10)), expiresAt: at(1e6 + random(10)) }))));
      for (const orderBy of ['updatedAtDesc', 'updatedAtAsc', 'createdAtDesc', 'createdAtAsc', 'expiresAtDesc', 'expiresAtAsc']) {
        const field = orderBy.replace(/Desc|Asc/, ''), sign = orderBy.endsWith('Asc') ? 1 : -1;
        const seen = [];
        let cursor, n = 1000;
        do {
          const page = await sessions.listForUser('u', { orderBy, limit: 1 + random(9), cursor, status: 'active', now: at(0) });
          seen.push(...page.records);
          cursor = page.nextCursor;
          const { id } = await sessions.create(fields('u', n++, { updatedAt: at(random(10)), createdAt: at(random(10)), expiresAt: at(1e6 + random(10)), tokenHash: `${orderBy} ${n}` }));
          await sessions.revoke(id, { revokedAt: at(1) });
        } while (cursor !== undefined);
        assert.deepEqual(seen.map((one) => one.id).sort(), stay.map((one) => one.id).sort());
        const key = (one) => [one[field].getTime() * sign, one.id];
        for (let i = 1; i < seen.length; i++) {
          const [a, b] = [key(seen[i - 1]), key(seen[i])];
          assert.ok(a[0] < b[0] || (a[0] === b[0] && (a[1] < b[1]) === (sign === 1)), `${orderBy} ${i}`);
        }
      }
      await store.close();
    });
  });
}

test('what is given must be of its type; a cursor of another order is CURSOR; nothing was changed', async () => {
  const store = open('memory:'), sessions = new SessionStorage(store);
  const { id } = await sessions.create(fields('u', 1));
  await sessions.create(fields('u', 2));
  const { nextCursor } = await sessions.listForUser('u', { limit: 1 });
  const without = (name) => { const { [name]: _, ...rest } = fields('u', 9); return rest; };
  const calls = [
    ['INVALID', () => sessions.create()], ['INVALID', () => sessions.create(null)], ...['tokenHash', 'userId', 'createdAt', 'updatedAt', 'expiresAt'].map((name) => ['INVALID', () => sessions.create(without(name))]),
    ['INVALID', () => sessions.create(fields('u', 9, { id }))], ['INVALID', () => sessions.create(fields('u', 9, { revokedAt: at(1) }))], ['INVALID', () => sessions.create(fields('u', 9, { token: canary }))],
    ['INVALID', () => sessions.create(fields('u', 9, { epoch: -1 }))], ['INVALID', () => sessions.create(fields('u', 9, { epoch: 1.5 }))], ['INVALID', () => sessions.create(fields('u', 9, { epoch: canary }))],
    ['INVALID', () => sessions.create(fields('u', 9, { tokenHash: '' }))], ['INVALID', () => sessions.create(fields('u', 9, { tokenHash: 7 }))], ['INVALID', () => sessions.create(fields('u', 9, { ip: 5 }))],
    ['INVALID', () => sessions.create(fields('u', 9, { userId: {} }))], ['INVALID', () => sessions.create(fields('u', 9, { createdAt: 5 }))], ['INVALID', () => sessions.create(fields('u', 9, { expiresAt: new Date(NaN) }))],
    ['INVALID', () => sessions.create(fields('u', 9, { expiresAt: new Date(-1) }))], ['INVALID', () => sessions.create(fields('u', 9, { userAgent: `${canary}\ud800` }))],
    ['INVALID', () => sessions.get()], ['INVALID', () => sessions.get('h')], ['INVALID', () => sessions.get({})], ['INVALID', () => sessions.get({ tokenHash: 'h', now: 5 })], ['INVALID', () => sessions.get({ tokenHash: 'h', now: new Date(NaN) })],
    ['INVALID', () => sessions.get({ tokenHash: 'h', when: at(0) })], ['INVALID', () => sessions.get({ tokenHash: 'h', now: new Date(8.64e15) })], ['INVALID', () => sessions.getAny()], ['INVALID', () => sessions.getAny({})],
    ['INVALID', () => sessions.listForUser()], ['INVALID', () => sessions.listForUser('')], ['INVALID', () => sessions.listForUser('u', { limit: 0 })], ['INVALID', () => sessions.listForUser('u', { limit: 10001 })],
    ['INVALID', () => sessions.listForUser('u', { limit: '5' })], ['INVALID', () => sessions.listForUser('u', { orderBy: 'updated_at_desc' })], ['INVALID', () => sessions.listForUser('u', { status: 'ended' })],
    ['INVALID', () => sessions.listForUser('u', { status: 0 })], ['INVALID', () => sessions.listForUser('u', { orderBy: 0 })], ['INVALID', () => sessions.listForUser('u', { cursor: 5 })], ['INVALID', () => sessions.listForUser('u', { other: 5 })],
    ['CURSOR', () => sessions.listForUser('u', { cursor: '' })], ['CURSOR', () => sessions.listForUser('u', { cursor: canary })], ['CURSOR', () => sessions.listForUser('u', { cursor: 'x'.repeat(5000) })],
    ['CURSOR', () => sessions.listForUser('u', { cursor: `${nextCursor}0` })], ['CURSOR', () => sessions.listForUser('u', { cursor: nextCursor, orderBy: 'createdAtDesc' })], ['CURSOR', () => sessions.listForUser('u', { cursor: '\ud800' })],
    ['INVALID', () => sessions.refresh(id)], ['INVALID', () => sessions.refresh(id, {})], ['INVALID', () => sessions.refresh(id, { updatedAt: at(1) })], ['INVALID', () => sessions.refresh(id, { updatedAt: at(1), expiresAt: at(2), ip: 'x' })],
    ['INVALID', () => sessions.refresh(undefined, { updatedAt: at(1), expiresAt: at(2) })], ['INVALID', () => sessions.revoke(id)], ['INVALID', () => sessions.revoke(id, {})], ['INVALID', () => sessions.revoke(id, { revokedAt: 5 })],
    ['INVALID', () => sessions.revoke(id, { revokedAt: null })], ['INVALID', () => sessions.revokeAllForUser('u')], ['INVALID', () => sessions.revokeAllForUser('u', {})], ['INVALID', () => sessions.revokeAllForUser('u', { revokedAt: at(1), exceptSessionId: {} })],
    ['INVALID', () => sessions.revokeAllForUser(undefined, { revokedAt: at(1) })], ['INVALID', () => sessions.epoch()], ['INVALID', () => sessions.epoch([])],
  ];
  for (const [code, call] of calls) {
    await assert.rejects(call(), (error) => {
      assert(error instanceof CounterfoilError, `${call}: ${error}`);
      assert.deepEqual([error.code, error.outcome], [code, 'not_applied'], `${call}: ${error.message}`);
      assert.ok(!inspect(error).includes(canary), String(call));
      return true;
    }, String(call));
  }
  const { records } = await sessions.listForUser('u', { now: at(5) });
  assert.deepEqual(records.map((one) => [one.tokenHash, one.status, one.updatedAt.getTime()]), [['u 2', 'active', start + 2], ['u 1', 'active', start + 1]]);
  assert.equal(await sessions.epoch('u'), 0);
  for (const options of [{ maxSessions: 0 }, { maxSessions: 10001 }, { maxSessions: 1.5 }, { maxSessions: '5' }, { whenFull: 'oldest_out' }, { whenFull: null }, { retention: 0 }, { retention: -1 }, { retention: NaN }, { retention: 4e8 }, { retention: 'x' }, { other: 1 }, null, 5]) {
    assert.throws(() => new SessionStorage(store, options), { code: 'INVALID' }, inspect(options));
  }
  for (const what of [undefined, null, 'memory:', {}, { getAny() {} }, SessionStorage]) assert.throws(() => new SessionStorage(what), { code: 'INVALID' });
  await store.close();
  await assert.rejects(sessions.getAny(id), { code: 'CLOSED' });
});

test('an id may be an integer; which session stays may be said', async () => {
  const store = open('memory:'), sessions = new SessionStorage(store);
  const kept = await sessions.create(fields(7, 1));
  await sessions.create(fields('7', 2, { tokenHash: 'other' }));
  assert.equal(await sessions.revokeAllForUser(7n, { revokedAt: at(5), exceptSessionId: kept.id }), 1);
  assert.deepEqual((await sessions.listForUser('7', { status: 'active', now: at(5) })).records.map((one) => one.id), [kept.id]);
  assert.equal(await sessions.revokeAllForUser('7', { revokedAt: at(6), exceptSessionId: 'none of ours' }), 1);
  assert.equal(await sessions.epoch(7), 2);
  assert.equal((await sessions.getAny(kept.id)).revokedAt.getTime(), start + 6);
  await store.close();
});

test('the first instant that there is can be asked about: it is not taken for the clock', async () => {
  const store = open('memory:'), sessions = new SessionStorage(store), first = new Date(0);
  const made = await sessions.create({ tokenHash: 'h', userId: 'u', createdAt: first, updatedAt: first, expiresAt: new Date(86400000) });
  const found = await sessions.get({ tokenHash: 'h', now: first });
  assert.deepEqual([found?.id, found?.status], [made.id, 'active']);
  assert.deepEqual((await sessions.listForUser('u', { now: first, status: 'active' })).records.map((one) => [one.id, one.status]), [[made.id, 'active']]);
  await assert.rejects(sessions.get({ tokenHash: 'h', now: new Date(-1) }), { code: 'INVALID' });
  await store.close();
});

test('a text that is none is nobody\'s id or token: a miss, and for a new session no text', async () => {
  const store = open('memory:'), sessions = new SessionStorage(store), half = 'a\ud83d', revokedAt = at(5);
  assert.equal(await sessions.get({ tokenHash: half }), undefined);
  assert.equal(await sessions.getAny(half), undefined);
  assert.equal(await sessions.refresh(half, { updatedAt: at(1), expiresAt: at(2) }), undefined);
  assert.equal(await sessions.revoke(half, { revokedAt }), false);
  await sessions.create(fields('u', 1));
  assert.equal(await sessions.revokeAllForUser('u', { revokedAt, exceptSessionId: half }), 1);
  for (const call of [() => sessions.create(fields(half, 1)), () => sessions.create(fields('u', 2, { tokenHash: half })), () => sessions.listForUser(half), () => sessions.epoch(half), () => sessions.revokeAllForUser(half, { revokedAt })]) {
    await assert.rejects(call(), { code: 'INVALID', outcome: 'not_applied' }, String(call));
  }
  await store.close();
});
