'use strict';

// An AccountsStorage over methods of the application's own: examples/accounts_pg.cjs over a real PostgreSQL, and every way in which hooks can misbehave.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { inspect } = require('node:util');
const { Pool } = require('pg');
const { AccountsStorage, CounterfoilError, open } = require('counterfoil');
const { Stage } = require('counterfoil/testing');
const { PgAccounts, SCHEMA } = require('../../examples/accounts_pg.cjs');
const { binaries, startPostgres } = require('./support/postgres.cjs');

const ring = [[3, Buffer.from(Array.from({ length: 32 }, (_, i) => i))]];
const fails = (promise, code, outcome = 'not_applied') =>
  assert.rejects(promise, (error) => {
    assert(error instanceof CounterfoilError, String(error));
    assert.deepEqual([error.code, error.outcome], [code, outcome], error.message);
    return true;
  });

// ------------------------------------------------------------------------------------------------------------ PostgreSQL --

const absent = binaries() === undefined && 'PostgreSQL is not installed: hooks over a real database are NOT tested (on Debian: apt-get install postgresql)';
if (absent) console.error(absent);

describe('PostgreSQL', { skip: absent }, () => {
  let server, pool, raw, sealed, plain;
  before(async () => {
    server = await startPostgres();
    pool = new Pool({ ...server.options, max: 8 });
    await pool.query(SCHEMA);
    raw = new PgAccounts(pool);
    sealed = new AccountsStorage(raw, { keys: ring });
    plain = new AccountsStorage(raw);
  });
  after(async () => {
    await Promise.all([sealed?.close(), plain?.close()]);
    await pool?.end();
    await server?.stop();
  });

  test('users: found by any form of their address, changed, removed', async () => {
    const ann = await plain.createUser({ email: ' Ann@Example.org', userInfo: { name: 'Ann', list: [1, 'x'] }, extraFields: ['a', null], hashedPassword: 'hash' });
    assert.match(ann.id, /^\d+$/);
    assert.equal(ann.email, ' Ann@Example.org');
    assert.equal(ann.emailVerified, false);
    assert.equal(ann.hasUsablePassword, true);
    assert.ok(Math.abs(ann.createdAt - Date.now()) < 600000);
    const found = await plain.findUserByEmail('ANN@example.ORG  ');
    assert.deepEqual([found.id, found.userInfo, found.extraFields, found.hashedPassword], [ann.id, { name: 'Ann', list: [1, 'x'] }, ['a', null], 'hash']);
    assert.equal((await plain.findUserById(Number(ann.id))).id, ann.id);
    for (const id of ['0', 'x', '', '99999999', "1' OR 1=1"]) assert.equal(await plain.findUserById(id), undefined);
    await fails(plain.createUser({ email: 'ann@example.org' }), 'EXISTS');
    const changed = await plain.updateUser(ann.id, { email: 'Anna@example.org', emailVerified: true, hashedPassword: null });
    assert.deepEqual([changed.email, changed.emailVerified, changed.hasUsablePassword, changed.userInfo.name], ['Anna@example.org', true, false, 'Ann']);
    assert.equal(await plain.findUserByEmail('ann@example.org'), undefined);
    assert.equal((await plain.findUserByEmail('anna@example.org')).id, ann.id);
    assert.equal((await plain.updateUser(ann.id, { email: null })).email, null);
    assert.equal(await plain.findUserByEmail('anna@example.org'), undefined);
    await fails(plain.updateUser('99999999', { emailVerified: true }), 'MISSING');
    assert.equal(await plain.deleteUser(ann.id), true);
    assert.equal(await plain.deleteUser(ann.id), false);
  });

  test('social accounts: their tokens lie sealed in the table, and come back open', async () => {
    const user = await sealed.createUser({});
    const expires = new Date('2030-01-02T03:04:05.678Z');
    const account = await sealed.createSocialAccount({
      userId: user.id, provider: 'github', providerUserId: '17', accessToken: 'token-canary', refreshToken: 'refresh-canary', accessTokenExpiresAt: expires, scope: 'a b', isLoginMethod: true,
      providerEmail: 'x@y.z', providerEmailVerified: true, userInfo: { login: 'x' },
    });
    assert.deepEqual([account.accessToken, account.refreshToken], ['token-canary', 'refresh-canary']);
    assert.equal(account.accessTokenExpiresAt.getTime(), expires.getTime());
    const { rows: [row] } = await pool.query('SELECT * FROM social_accounts WHERE id = $1', [account.id]);
    assert.match(row.access_token, /^sealed:/);
    assert.match(row.refresh_token, /^sealed:/);
    assert.ok(!JSON.stringify(row).includes('canary'));
    for (const found of [await sealed.findSocialAccount({ provider: 'github', providerUserId: '17' }), await sealed.findSocialAccountById(account.id), ...(await sealed.listSocialAccounts({ userId: user.id }))]) {
      assert.deepEqual([found.id, found.userId, found.accessToken, found.refreshToken, found.scope, found.isLoginMethod, found.providerEmailVerified], [account.id, user.id, 'token-canary', 'refresh-canary', 'a b', true, true]);
      assert.ok(!`${inspect(found)}${JSON.stringify(found)}`.includes('canary'));
    }
    await fails(sealed.createSocialAccount({ userId: user.id, provider: 'github', providerUserId: '17' }), 'EXISTS');
    await fails(sealed.createSocialAccount({ userId: '99999999', provider: 'github', providerUserId: '18' }), 'MISSING');
    await assert.rejects(plain.findSocialAccountById(account.id), { code: 'CORRUPT' });
    // A token that is put into another account's row does not open there.
    const other = await sealed.createSocialAccount({ userId: user.id, provider: 'github', providerUserId: '19', accessToken: 'other' });
    await pool.query('UPDATE social_accounts SET access_token = $1 WHERE id = $2', [row.access_token, other.id]);
    await assert.rejects(sealed.findSocialAccountById(other.id), { code: 'CORRUPT' });
    assert.equal(await sealed.deleteSocialAccount(other.id), true);
    assert.equal(await sealed.deleteUser(user.id), true);
    assert.equal(await sealed.findSocialAccountById(account.id), undefined);
  });

  test('an update seals for the account that it is', async () => {
    const user = await sealed.createUser({});
    const account = await sealed.createSocialAccount({ userId: user.id, provider: 'p', providerUserId: 'u', accessToken: 'first', refreshToken: 'kept' });
    const changed = await sealed.updateSocialAccount(account.id, { accessToken: 'second-canary', accessTokenExpiresAt: null });
    assert.deepEqual([changed.accessToken, changed.refreshToken], ['second-canary', 'kept']);
    const { rows: [row] } = await pool.query('SELECT access_token FROM social_accounts WHERE id = $1', [account.id]);
    assert.match(row.access_token, /^sealed:/);
    assert.equal((await sealed.findSocialAccount({ provider: 'p', providerUserId: 'u' })).accessToken, 'second-canary');
    await fails(sealed.updateSocialAccount('99999999', { accessToken: 'x' }), 'MISSING');
  });

  test('of any number of logins at once, one makes the user', async () => {
    for (const email of ['crowd@example.org', null]) {
      const login = { provider: 'crowd', providerUserId: String(email), accessToken: 'token', user: { email, userInfo: { n: 1 } } };
      const results = await Promise.all(Array.from({ length: 24 }, () => sealed.findOrCreateBySocialAccount(login)));
      assert.equal(results.filter((result) => result.created).length, 1);
      assert.equal(new Set(results.map((result) => result.user.id)).size, 1);
      assert.ok(results.every((result) => result.socialAccount.userId === result.user.id && result.socialAccount.accessToken === 'token'));
    }
    const { rows: [{ count }] } = await pool.query("SELECT count(*) FROM social_accounts WHERE provider = 'crowd'");
    assert.equal(count, '2');
    const { rows: [users] } = await pool.query('SELECT count(*) FROM users');
    await fails(sealed.findOrCreateBySocialAccount({ provider: 'crowd', providerUserId: 'else', user: { email: 'CROWD@example.org' } }), 'EXISTS');
    assert.equal((await pool.query('SELECT count(*) FROM users')).rows[0].count, users.count);
  });

  test('what the database says reaches the caller as it is', async () => {
    const other = new Pool({ ...server.options, max: 1 });
    const broken = new AccountsStorage(new PgAccounts(other));
    await other.query('SET search_path = nowhere');
    await assert.rejects(broken.findUserByEmail('a@b.c'), (error) => !(error instanceof CounterfoilError) && error.code === '42P01');
    await other.end();
    await broken.close();
  });
});

// --------------------------------------------------------------------------------------------------------------- manners --

const user = { id: 'u1', email: 'secret-canary@example.org' };
const account = { id: 'a1', userId: 'u1', provider: 'p', providerUserId: 'secret-canary' };
const tick = () => new Promise((resolve) => setImmediate(resolve));

for (const [how, wrap] of [['values', (value) => value], ['promises', async (value) => { await tick(); return value; }]]) {
  test(`a hook that gives what it must not is CORRUPT, and nothing of it is shown: ${how}`, async () => {
    const bad = [
      ['findUserById', 7, /findUserById\(\) of the hooks gave a number, not a user/], ['findUserById', { ...user, email: 5 }, /gave a number as email, not a string/],
      ['findUserById', { ...user, id: undefined }, /id of a user is missing/], ['findUserById', { ...user, id: '' }, /id of a user cannot be empty/],
      ['findUserById', { ...user, id: 1.5 }, /gave a number as id/], ['findUserById', { ...user, emailVerified: 'secret-canary' }, /gave a string as emailVerified, not true or false/],
      ['findUserById', { ...user, createdAt: '2020-01-01' }, /gave a string as createdAt, not a valid Date/], ['findUserById', { ...user, createdAt: new Date(NaN) }, /as createdAt/],
      ['findUserById', { ...user, createdAt: new Date(-1) }, /is no instant/], ['findUserById', { ...user, userInfo: () => 'secret-canary' }, /as userInfo/],
      ['findUserById', { ...user, userInfo: { n: 1n } }, /as userInfo/], ['findUserById', { ...user, email: 'a\ud800' }, /is no text/],
      ['findUserById', { ...user, email: 'x'.repeat(70000) }, /at most/], ['findSocialAccountById', { ...account, provider: null }, /provider of a social_account cannot be null/],
      ['findSocialAccountById', { ...account, accessToken: Buffer.from('secret-canary') }, /gave an object as accessToken/], ['findSocialAccountById', [account], /./],
      ['listSocialAccounts', account, /gave an object, not an array/], ['listSocialAccounts', [account, null], /gave null, not a social account/], ['listSocialAccounts', undefined, /gave undefined, not an array/],
    ];
    for (const [method, result, why] of bad) {
      const storage = new AccountsStorage({ [method]: () => wrap(result) });
      await assert.rejects(storage[method](method === 'listSocialAccounts' ? { userId: 'x' } : 'x'), (error) => {
        assert.deepEqual([error.code, error.constructor], ['CORRUPT', CounterfoilError], `${method} ${inspect(result)}: ${error.message}`);
        assert.match(error.message, why);
        assert.ok(!inspect(error).includes('canary'));
        return true;
      });
      await storage.close();
    }
    const writes = [
      ['createUser', [{}], undefined], ['createUser', [{}], 'secret-canary'], ['updateUser', ['u1', {}], true], ['deleteUser', ['u1'], 'yes'], ['deleteSocialAccount', ['a1'], 1],
      ['findOrCreateBySocialAccount', [{ provider: 'p', providerUserId: 'q', user: {} }], { user, socialAccount: account }],
      ['findOrCreateBySocialAccount', [{ provider: 'p', providerUserId: 'q', user: {} }], { user: account, socialAccount: user, created: true }],
      ['findOrCreateBySocialAccount', [{ provider: 'p', providerUserId: 'q', user: {} }], undefined],
    ];
    for (const [method, args, result] of writes) {
      const storage = new AccountsStorage({ [method]: () => wrap(result) });
      await assert.rejects(storage[method](...args), (error) => error.code === 'CORRUPT' && error.outcome === 'unknown' && !inspect(error).includes('canary'), `${method} ${inspect(result)}`);
      await storage.close();
    }
  });

  test(`what a hook throws comes back as it was thrown: ${how}`, async () => {
    for (const thrown of [new Error('mine'), new CounterfoilError('taken', 'EXISTS'), 'text', undefined, null, 7n]) {
      const raise = how === 'values' ? () => { throw thrown; } : async () => { await tick(); throw thrown; };
      const storage = new AccountsStorage({ createUser: raise, updateSocialAccount: raise, findSocialAccountById: () => wrap(account) }, { keys: ring });
      for (const call of [() => storage.createUser({}), () => storage.updateSocialAccount('a1', { accessToken: 'x' })]) {
        const caught = await call().then(() => assert.fail('it did not throw'), (error) => [error]);
        assert.equal(caught[0], thrown);
      }
      await storage.close();
    }
  });

  test(`misses, and what counts as done: ${how}`, async () => {
    for (const nothing of [undefined, null]) {
      const hooks = Object.fromEntries(['findUserByEmail', 'findUserById', 'findSocialAccount', 'findSocialAccountById', 'updateUser', 'deleteUser', 'deleteSocialAccount'].map((name) => [name, () => wrap(nothing)]));
      const storage = new AccountsStorage(hooks);
      assert.equal(await storage.findUserByEmail('a@b.c'), undefined);
      assert.equal(await storage.findUserById('x'), undefined);
      assert.equal(await storage.findSocialAccount({ provider: 'p', providerUserId: 'q' }), undefined);
      assert.equal(await storage.findSocialAccountById('x'), undefined);
      assert.equal(await storage.deleteUser('x'), true);
      assert.equal(await storage.deleteSocialAccount('x'), true);
      await fails(storage.updateUser('x', {}), 'MISSING');
      await fails(storage.createUser({}), 'NOT_SUPPORTED');
      await storage.close();
    }
  });

  test(`what a hook is given: ${how}`, async () => {
    const calls = [];
    const note = (name, result) => (...args) => { calls.push([name, ...args]); return wrap(result); };
    const when = new Date('2031-01-01T00:00:00.001Z');
    const storage = new AccountsStorage({
      findUserByEmail: note('byEmail', { ...user, email: 'a@B.c' }), createUser: note('create', user), updateUser: note('update', user), listSocialAccounts: note('list', []),
      findOrCreateBySocialAccount: note('both', { user, socialAccount: { ...account, providerUserId: 'q' }, created: false }),
    });
    await storage.findUserByEmail('\tA@B.c ');
    await storage.createUser({ email: 'A@b.c', userInfo: { a: [1] }, extraFields: null });
    await storage.updateUser(12, { email: null });
    await storage.updateUser('12', { hashedPassword: 'h', userInfo: undefined });
    assert.deepEqual(await storage.listSocialAccounts({ userId: 5n }), []);
    const { created, ...rest } = await storage.findOrCreateBySocialAccount({ provider: 'p', providerUserId: 'q', accessTokenExpiresAt: when, user: { email: 'X@y.z' } });
    assert.equal(created, false);
    assert.deepEqual([rest.user.id, rest.socialAccount.id], ['u1', 'a1']);
    assert.deepEqual(calls, [
      ['byEmail', 'a@b.c'],
      ['create', { email: 'A@b.c', emailKey: 'a@b.c', userInfo: { a: [1] }, extraFields: null }],
      ['update', '12', { email: null, emailKey: null }],
      ['update', '12', { hashedPassword: 'h' }],
      ['list', { userId: '5' }],
      ['both', { provider: 'p', providerUserId: 'q', accessTokenExpiresAt: when, isLoginMethod: true, user: { email: 'X@y.z', emailKey: 'x@y.z' } }],
    ]);
    await storage.close();
  });
}

test('an address that cannot be one is a miss, or refused, before a hook is asked', async () => {
  const storage = new AccountsStorage({ findUserByEmail: () => assert.fail('it was asked'), createUser: () => assert.fail('it was asked') });
  for (const email of ['', '   ', 'a\u0000b', 'x'.repeat(400)]) {
    assert.equal(await storage.findUserByEmail(email), undefined);
    await fails(storage.createUser({ email }), 'INVALID');
  }
  await storage.close();
});

test('a promise that does not settle ends at the deadline, and a late answer reaches nobody', async () => {
  const late = [];
  const storage = new AccountsStorage({ findUserById: () => new Promise((resolve) => late.push(resolve)) }, { timeout: 0.02 });
  await assert.rejects(storage.findUserById('a'), { code: 'TIMEOUT' });
  const second = storage.findUserById('b');
  late[0](user);
  await assert.rejects(second, { code: 'TIMEOUT' });
  late[1](user);
  await storage.close();
});

test('close: what waits rejects, what comes later too, and a second close does nothing', async () => {
  const storage = new AccountsStorage({ findUserById: () => new Promise(() => {}) });
  const waits = storage.findUserById('a');
  await storage.close();
  await assert.rejects(waits, { code: 'CLOSED' });
  await fails(storage.findUserById('a'), 'CLOSED');
  await storage.close();
  const store = open('memory:');
  await new AccountsStorage(store).close();
  assert.equal(await store.set('a', '1'), true);
  await store.close();
});

test('methods of a class, inherited ones, and accessors of what they give', async () => {
  class Base { async findUserById(id) { return new Row(id, this.name); } }
  class Mine extends Base { name = 'Ann'; }
  class Row {
    #id;
    constructor(id, name) { this.#id = id; this.userInfo = { name }; }
    get id() { return this.#id; }
    get email() { return 'a@b.c'; }
  }
  const storage = new AccountsStorage(new Mine());
  const found = await storage.findUserById('7');
  assert.deepEqual([found.id, found.email, found.userInfo, found.createdAt.getTime()], ['7', 'a@b.c', { name: 'Ann' }, 0]);
  await storage.close();
});

test('a hook may call its own storage, to a depth', async () => {
  let depth = 0;
  const storage = new AccountsStorage({ findUserById: async (id) => { depth++; return id === '0' ? user : storage.findUserById(String(Number(id) - 1)); } });
  assert.equal((await storage.findUserById('5')).id, 'u1');
  assert.equal(depth, 6);
  await fails(storage.findUserById('500'), 'INVALID');
  await storage.close();
});

test('hostile thenables settle once, and what is no hook is refused', async () => {
  const storage = new AccountsStorage({
    findUserById: () => ({ then(resolve, reject) { resolve(user); reject(new Error('again')); throw new Error('and again'); } }),
    findSocialAccountById: () => ({ get then() { throw mine; } }),
  });
  const mine = new Error('mine');
  assert.equal((await storage.findUserById('x')).id, 'u1');
  await assert.rejects(storage.findSocialAccountById('x'), (error) => error === mine);
  await storage.close();
  for (const [what, options] of [[undefined], [null], ['memory:'], [7], [{}], [() => {}], [[]], [{ get() {}, set() {}, delete() {} }], [{ findUserById: 7 }], [{ findUserById() {} }, { keys: [] }],
    [{ findUserById() {} }, { keys: 'x' }], [{ findUserById() {} }, { timeout: 0 }], [{ findUserById() {} }, { stage: {} }], [{ findUserById() {} }, { other: 1 }], [{ findUserById() {} }, { maxSocialAccounts: 0 }],
    [open('memory:'), { keys: ring }], [open('memory:'), { stage: new Stage() }]]) {
    assert.throws(() => new AccountsStorage(what, options), (error) => error instanceof CounterfoilError && error.code === 'INVALID', inspect([what, options]));
  }
});

test('an allocation that fails anywhere is NO_MEMORY, and no block stays', async () => {
  const stage = new Stage();
  const hooks = {
    findSocialAccountById: async () => account, updateSocialAccount: async (id, changes) => ({ ...account, ...changes }), findUserById: () => user,
    listSocialAccounts: () => [account, account, account],
  };
  let reached = 0;
  for (let n = 1; ; n++) {
    const storage = new AccountsStorage(hooks, { keys: ring, stage });
    await storage.findUserById('x');
    stage.failAllocation(n);
    const calls = [() => storage.findUserById('x'), () => storage.updateSocialAccount('a1', { accessToken: 'x'.repeat(3000) }), () => storage.listSocialAccounts({ userId: 'u1' })];
    for (const call of calls) await call().catch((error) => assert.equal(error.code, 'NO_MEMORY', error.message));
    const failed = stage.failed;
    stage.failAllocation(0);
    await storage.close();
    if (!failed) break;
    reached++;
  }
  assert.ok(reached > 5, String(reached));
  assert.equal(stage.blocks, 0);
});
