'use strict';

// Keys that are given up and stores that are given keys (core/DESIGN.md, "At rest"): sweeps through the tokens of social accounts, and what is plain until a
// day that is said. The details of a sweep are tests/c/test_reseal.c's.

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const vm = require('node:vm');

const { open, AccountsStorage, Backend } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { ownPrefix, redisVariable } = require('./support/redis.cjs');

const key = (number) => [number, Buffer.alloc(32, number)];
const OLD = [key(1)], NEW = [key(2)], BOTH = [key(2), key(1)];
const DAY = 86400000;
let count = 0;
const memory = () => `memory:reseal-${count++}`;

/** Somebody's own backend, of one process, that answers later. */
const kept = () => ({
  singleProcess: true,
  keepsTtl: true,
  binary: true,
  kept: new Map(),
  async get(key) { return this.kept.get(key); },
  async set(key, value, ttl) { assert.ok(ttl === undefined || ttl === Backend.KEEP); this.kept.set(key, value); },
  async delete(key) { return this.kept.delete(key); },
  async scan(prefix, cursor, limit) {
    const keys = [...this.kept.keys()].filter((key) => key.startsWith(prefix)).sort(), begin = cursor ?? 0;
    return { keys: keys.slice(begin, begin + limit), cursor: begin + limit < keys.length ? begin + limit : undefined };
  },
});

const PLACES = {
  memory: () => memory(),
  sqlite: (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-reseal-'));
    t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
    return `sqlite:${folder}/reseal.db?synchronous=normal`;
  },
  redis: () => redisVariable(''),
  backend: () => kept(),
};

/** Gives a function that opens stores over the same data, which are closed at the end. */
function placeOf(t, where) {
  const target = PLACES[where](t), prefix = ownPrefix(), stores = [];
  t.after(() => Promise.all(stores.map((store) => store.close())));
  const opened = (options) => {
    const store = open(target, { prefix, ...options });
    stores.push(store);
    return store;
  };
  opened({}); // what is only in memory stays as long as somebody has it open
  return opened;
}

async function signUp(store, name, tokens) {
  const account = { provider: 'google', providerUserId: name, user: { email: `${name}@b.c` }, ...tokens };
  return (await new AccountsStorage(store).findOrCreateBySocialAccount(account)).socialAccount.id;
}

async function tokensOf(store, id) {
  const { accessToken, refreshToken } = await new AccountsStorage(store).findSocialAccountById(id);
  return [accessToken, refreshToken];
}

async function collect(sweep) {
  const told = [];
  for await (const progress of sweep) told.push(progress);
  return told;
}
const sweepTokens = (store) => collect(new AccountsStorage(store).reseal());

for (const where of Object.keys(PLACES)) {
  test(`a key that has sealed tokens can be given up: ${where}`, async (t) => {
    const at = placeOf(t, where);
    const old = at({ keys: OLD }), both = at({ keys: BOTH }), later = at({ keys: NEW }), strange = at({ keys: [key(3)] });
    const ids = [];
    for (let i = 0; i < 120; i++) ids.push(await signUp(old, `${i}`, { accessToken: `a${i}`, refreshToken: `r${i}` }));
    const stranger = await signUp(strange, 'stranger', { accessToken: 's' });
    await assert.rejects(tokensOf(later, ids[0]), { code: 'CORRUPT' });
    const told = await sweepTokens(both);
    assert.ok(told.length > 1);
    for (let i = 1; i < told.length; i++) assert.ok(told[i].sealed >= told[i - 1].sealed, 'what is told are sums');
    assert.deepEqual(told.at(-1), { sealed: 240, unreadable: 1 });
    assert.deepEqual((await sweepTokens(both)).at(-1), { sealed: 0, unreadable: 1 });
    for (const [i, id] of ids.entries()) assert.deepEqual(await tokensOf(later, id), [`a${i}`, `r${i}`]);
    assert.deepEqual(await tokensOf(strange, stranger), ['s', null]);
  });

  // One changes tokens, and finds what it left; the other seals anew what it finds, by turns with two rings, so that there is always something to do.
  test(`an update beside a sweep stays: ${where}`, async (t) => {
    const at = placeOf(t, where);
    const store = at({ keys: BOTH, timeout: 60 }), stores = [at({ keys: [...BOTH].reverse(), timeout: 60 }), at({ keys: BOTH, timeout: 60 })];
    const accounts = new AccountsStorage(store), left = new Map(), lost = [];
    for (let i = 0; i < 5; i++) left.set(await signUp(store, `${i}`, { accessToken: 'first' }), 'first');
    let over = false, sealed = 0;
    const sweeping = (async () => {
      for (let turn = 0; !over || turn < 2; turn++) sealed += (await sweepTokens(stores[turn % 2])).at(-1).sealed;
    })();
    try {
      for (let round = 0; round < 60 || (sealed <= 5 && round < 10_000); round++) { // a sweep may be slower than many rounds
        await Promise.all([...left.keys()].map(async (id) => {
          if ((await tokensOf(store, id))[0] !== left.get(id)) lost.push(left.get(id));
          left.set(id, `round ${round}`);
          await accounts.updateSocialAccount(id, { accessToken: `round ${round}` });
        }));
      }
    } finally {
      over = true;
      await sweeping;
    }
    assert.deepEqual(lost, []);
    for (const [id, token] of left) assert.equal((await tokensOf(store, id))[0], token);
    assert.ok(sealed > 5);
  });

  test(`what is plain is read until then, and sealed: ${where}`, async (t) => {
    const stage = new Stage(), at = placeOf(t, where), until = new Date(stage.now().getTime() + 30 * DAY);
    const before = at({ stage }), strict = at({ stage, keys: NEW, sealValues: true });
    const meanwhile = at({ stage, keys: NEW, sealValues: true, plainUntil: until });
    await before.set('k', 'value');
    const id = await signUp(before, 'plain', { accessToken: 'a', refreshToken: 'r' });
    await assert.rejects(strict.get('k'), { code: 'CORRUPT' });
    assert.equal(await meanwhile.get('k'), 'value');
    assert.deepEqual(await tokensOf(meanwhile, id), ['a', 'r']);
    const values = (await collect(meanwhile.reseal())).at(-1);
    assert.ok(values.sealed >= 1 && values.unreadable === 0);
    assert.deepEqual((await sweepTokens(meanwhile)).at(-1), { sealed: 2, unreadable: 0 });
    assert.equal(await strict.get('k'), 'value');
    assert.deepEqual(await tokensOf(strict, id), ['a', 'r']);
    await before.set('late', 'plain');
    assert.equal(await meanwhile.get('late'), 'plain');
    stage.advance(30 * 86400);
    await assert.rejects(meanwhile.get('late'), { code: 'CORRUPT' });
    assert.deepEqual((await collect(meanwhile.reseal())).at(-1), { sealed: 0, unreadable: 1 });
    at({ stage, keys: NEW, plainUntil: until }); // a date that has passed may stay where it is
  });
}

test('an event loop goes on beside a sweep, also where nothing waits', async (t) => {
  const at = placeOf(t, 'memory'), old = at({ keys: OLD });
  for (let i = 0; i < 600; i++) await signUp(old, `${i}`, { accessToken: 'a' });
  let turns = 0, over = false;
  const turn = () => { turns++; if (!over) setImmediate(turn); };
  setImmediate(turn);
  const pages = (await sweepTokens(at({ keys: BOTH }))).length;
  over = true;
  assert.ok(pages > 4);
  assert.ok(turns >= Math.floor(pages / 2), `${turns} turns beside ${pages} pages`);
});

test("tokens in an application's own tables", async (t) => {
  const row = { id: 's', userId: 'u', provider: 'google', providerUserId: '1', accessToken: 'plain' };
  const tables = {
    findSocialAccountById: async () => ({ ...row }),
    updateSocialAccount: async (id, changes) => ({ ...Object.assign(row, changes) }),
  };
  const strict = new AccountsStorage(tables, { keys: NEW }), accounts = new AccountsStorage(tables, { keys: NEW, plainUntil: new Date(Date.now() + DAY) });
  t.after(() => Promise.all([strict.close(), accounts.close()]));
  await assert.rejects(strict.findSocialAccountById('s'), { code: 'CORRUPT' });
  const { accessToken } = await accounts.findSocialAccountById('s');
  assert.equal(accessToken, 'plain');
  await assert.rejects(collect(accounts.reseal()), { code: 'NOT_SUPPORTED', message: /save it again/ });
  await accounts.updateSocialAccount('s', { accessToken });
  assert.match(row.accessToken, /^sealed:/);
  assert.equal((await strict.findSocialAccountById('s')).accessToken, 'plain');
});

test('what cannot be swept', async (t) => {
  const stores = [open('memory:'), open({ ...kept(), scan: undefined }, { keys: NEW })];
  t.after(() => Promise.all(stores.map((store) => store.close())));
  await assert.rejects(sweepTokens(stores[0]), { code: 'INVALID', message: /no keys/ });
  await assert.rejects(sweepTokens(stores[1]), { code: 'NOT_SUPPORTED', message: /scan/ });
});

test('a date that cannot be meant is refused, and changes nothing', async () => {
  const now = Date.now();
  const wrong = [now, 1.9e9, true, null, {}, new Date(NaN), Object.create(Date.prototype), 'tomorrow', '', '2030-01-01T00:00:00', '2030-13-01', new Date(0),
    '1970-01-01T00:00:00Z', new Date(now / 1000), new Date(now + 367 * DAY), '9999-01-01', new Date(8.64e15), new Date(-8.64e15)];
  for (const [i, plainUntil] of wrong.entries()) assert.throws(() => open('memory:', { keys: NEW, plainUntil }), { code: 'INVALID', message: /plainUntil/ }, `the ${i}th`);
  const soon = new Date(now + DAY);
  assert.throws(() => open('memory:', { plainUntil: soon }), { code: 'INVALID', message: /plainUntil/ });
  const right = [soon, soon.toISOString(), soon.toISOString().slice(0, 10), soon.toISOString().replace(/\..*/, '+00:00'), new Date(now - DAY), undefined, vm.runInNewContext('new Date()')];
  for (const plainUntil of right) await open('memory:', { keys: NEW, plainUntil }).close();
  const store = open('memory:', { keys: NEW });
  assert.throws(() => new AccountsStorage(store, { plainUntil: soon }), { code: 'INVALID', message: /plainUntil/ });
  await store.close();
});
