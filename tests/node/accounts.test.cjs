'use strict';

// AccountsStorage beyond the cases: types, what is shown, sealed tokens, crowds, and Python on the same data.

const { test, describe } = require('node:test');
const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const { inspect } = require('node:util');
const { Worker } = require('node:worker_threads');
const { open, AccountsStorage, SessionStorage, CounterfoilError } = require('counterfoil');
const { PLACES } = require('./support/places.cjs');
const { newFile } = require('./support/sqlite.cjs');
const { redisVariable, ownPrefix, root, python } = require('./support/redis.cjs');

const ring = [[9, Buffer.from(Array.from({ length: 32 }, (_, i) => 255 - i))]];
const canary = 'secret-canary';

for (const [name, place] of Object.entries(PLACES)) {
  describe(`accounts over ${name}`, () => {
    test('of any number of logins at once, one makes the user, and all get it', async () => {
      const openAgain = place();
      const stores = [openAgain(), openAgain(), openAgain()];
      const storages = stores.map((store) => new AccountsStorage(store));
      for (const email of ['crowd@example.org', null]) {
        const login = { provider: 'p', providerUserId: `u-${email}`, accessToken: 't', user: { email, userInfo: { a: 1 } } };
        const results = await Promise.all(Array.from({ length: 60 }, (_, i) => storages[i % 3].findOrCreateBySocialAccount(login)));
        assert.equal(results.filter((result) => result.created).length, 1);
        assert.equal(new Set(results.map((result) => result.user.id)).size, 1);
        assert.equal(new Set(results.map((result) => result.socialAccount.id)).size, 1);
        assert.ok(results.every((result) => result.socialAccount.userId === result.user.id && result.user.email === email && result.socialAccount.accessToken === 't'));
        assert.equal((await storages[0].listSocialAccounts({ userId: results[0].user.id })).length, 1);
      }
      // The same address by sixty providers: one user, and fifty-nine are told who it is.
      const ends = await Promise.allSettled(
        Array.from({ length: 60 }, (_, i) => storages[i % 3].findOrCreateBySocialAccount({ provider: `p${i}`, providerUserId: '1', user: { email: i % 2 ? 'Same@example.org' : 'same@example.org' } })),
      );
      const made = ends.filter((end) => end.status === 'fulfilled');
      assert.equal(made.length, 1);
      for (const { reason } of ends.filter((end) => end.status === 'rejected')) {
        assert.deepEqual([reason.code, reason.outcome, reason.existing.id], ['EXISTS', 'not_applied', made[0].value.user.id]);
      }
      await Promise.all(stores.map((store) => store.close()));
    });

    test('createUser by a crowd: one has the address', async () => {
      const openAgain = place();
      const stores = [openAgain(), openAgain()];
      const storages = stores.map((store) => new AccountsStorage(store));
      const ends = await Promise.allSettled(Array.from({ length: 40 }, (_, i) => storages[i % 2].createUser({ email: 'one@example.org', userInfo: { i } })));
      assert.equal(ends.filter((end) => end.status === 'fulfilled').length, 1);
      assert.ok(ends.every((end) => end.status === 'fulfilled' || end.reason.code === 'EXISTS'));
      const user = await storages[0].findUserByEmail('one@example.org');
      // Half of them change the address, half remove the user: nothing of it is left in the end.
      await Promise.allSettled(Array.from({ length: 20 }, (_, i) => (i % 2 ? storages[0].updateUser(user.id, { email: `n${i}@example.org` }) : storages[1].deleteUser(user.id))));
      assert.equal(await storages[0].findUserById(user.id), undefined);
      for (const email of ['one@example.org', ...Array.from({ length: 20 }, (_, i) => `n${i}@example.org`)]) {
        assert.equal(await storages[0].findUserByEmail(email), undefined);
        assert.equal((await storages[1].createUser({ email })).email, email);
      }
      await Promise.all(stores.map((store) => store.close()));
    });

    test('tokens lie sealed and come back open; without the key, CORRUPT; with a new key in front, both', async () => {
      const openAgain = place();
      const store = openAgain({ keys: ring }), plain = openAgain(), turned = openAgain({ keys: [[10, Buffer.alloc(32, 1)], ...ring] });
      const [accounts, bare, later] = [store, plain, turned].map((one) => new AccountsStorage(one));
      const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: 'x', accessToken: canary, refreshToken: 'r', user: {} });
      assert.equal(socialAccount.accessToken, canary);
      await assert.rejects(bare.findSocialAccountById(socialAccount.id), { code: 'CORRUPT', outcome: 'not_applied' });
      assert.equal((await bare.findUserById(user.id)).id, user.id);
      await later.updateSocialAccount(socialAccount.id, { accessToken: 'new' });
      assert.deepEqual(await later.findSocialAccountById(socialAccount.id).then((one) => [one.accessToken, one.refreshToken]), ['new', 'r']);
      await assert.rejects(accounts.findSocialAccountById(socialAccount.id), { code: 'CORRUPT' });
      await assert.rejects(bare.createSocialAccount({ userId: user.id, provider: 'q', providerUserId: 'x', accessToken: 'sealed:x' }), { code: 'INVALID' });
      // Values are as they were: only tokens are sealed.
      await store.set('k', 'v');
      assert.equal(await plain.get('k'), 'v');
      await Promise.all([store, plain, turned].map((one) => one.close()));
    });

    test('no key operation sees records, and they go with nobody but themselves', async () => {
      const store = place()();
      const accounts = new AccountsStorage(store), sessions = new SessionStorage(store);
      const user = await accounts.createUser({ email: 'a@b.c' });
      const at = new Date();
      await sessions.create({ tokenHash: 'h', userId: user.id, createdAt: at, updatedAt: at, expiresAt: new Date(at.getTime() + 60000) });
      await store.set('k', 'v');
      const keys = [];
      for await (const key of store.scan()) keys.push(key);
      assert.deepEqual([keys, await store.count()], [['k'], 1]);
      assert.equal(await store.clear('', { force: true }), 1);
      assert.equal((await accounts.findUserByEmail('A@B.C')).id, user.id);
      assert.equal(await accounts.deleteUser(user.id), true);
      assert.equal(await sessions.get({ tokenHash: 'h' }), undefined);
      assert.equal(await sessions.epoch(user.id), 1);
      await store.close();
    });
  });
}

test('what JSON can say comes back as a copy, and pollutes nothing', async () => {
  const accounts = new AccountsStorage(open('memory:'));
  for (const info of [{ a: [1, { b: null }], e: 'é😀\u2028' }, [], {}, '', 'text', 0, -1.5, false, true, JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}}')]) {
    const { id } = await accounts.createUser({ userInfo: info, extraFields: info });
    const user = await accounts.findUserById(id);
    assert.deepEqual([user.userInfo, user.extraFields], [info, info]);
    if (typeof info === 'object') {
      user.userInfo.changed = true;
      assert.deepEqual((await accounts.findUserById(id)).userInfo, info);
    }
  }
  assert.equal({}.polluted, undefined);
  for (const nothing of [null, undefined, { toJSON: () => null }]) assert.equal((await accounts.createUser({ userInfo: nothing })).userInfo, null);
  const circular = {};
  circular[canary] = circular;
  for (const bad of [circular, 1n, Symbol('x'), () => {}, { n: 1n }, { toJSON() { throw new Error(canary); } }]) {
    await assert.rejects(accounts.createUser({ userInfo: bad }), (error) => error.code === 'INVALID' && !inspect(error, { depth: 9 }).includes(canary));
  }
});

test('what is given must be of its type, by names that there are; nothing of it is in the sentence, and nothing was changed', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store);
  const user = await accounts.createUser({ email: 'a@b.c' });
  const account = await accounts.createSocialAccount({ userId: user.id, provider: 'p', providerUserId: 'x', scope: 's' });
  const who = { userId: user.id, provider: 'p', providerUserId: 'y' };
  const polluting = JSON.parse('{"__proto__": {"email": "x@y.z"}}');
  const calls = [
    () => accounts.createUser(), () => accounts.createUser(null), () => accounts.createUser([]), () => accounts.createUser('secret-canary'), () => accounts.createUser({ email: 7 }),
    () => accounts.createUser({ email: ['secret-canary'] }), () => accounts.createUser({ email: 'a@b\ud800' }), () => accounts.createUser({ email: 'not\nsecret-canary' }), () => accounts.createUser({ emailVerified: 1 }),
    () => accounts.createUser({ emailVerified: 'secret-canary' }), () => accounts.createUser({ id: 'x' }), () => accounts.createUser({ emailKey: 'x' }), () => accounts.createUser({ createdAt: new Date() }),
    () => accounts.createUser({ name: 'x' }), () => accounts.createUser(polluting), () => accounts.createUser({ hashedPassword: Buffer.from('secret-canary') }), () => accounts.createUser({ hashedPassword: 'a\0b' }),
    () => accounts.createUser({ hashedPassword: 'secret-canary\udfff' }), () => accounts.createUser({ emailVerified: null }),
    () => accounts.updateUser(), () => accounts.updateUser(undefined, {}), () => accounts.updateUser(user.id), () => accounts.updateUser(user.id, { id: 'secret-canary' }), () => accounts.updateUser(user.id, { provider: 'x' }),
    () => accounts.findUserById(), () => accounts.findUserById(null), () => accounts.findUserById({}), () => accounts.findUserById(1.5), () => accounts.findUserById(NaN), () => accounts.findUserById(true),
    () => accounts.findUserByEmail(), () => accounts.findUserByEmail(7), () => accounts.deleteUser(Symbol('secret-canary')), () => accounts.findSocialAccount(), () => accounts.findSocialAccount('p', 'x'),
    () => accounts.findSocialAccount({ provider: 'p' }), () => accounts.findSocialAccount({ ...who }), () => accounts.listSocialAccounts(user.id), () => accounts.listSocialAccounts({}),
    () => accounts.createSocialAccount({ provider: 'p', providerUserId: 'y' }), () => accounts.createSocialAccount({ ...who, accessToken: 5 }), () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: Date.now() }),
    () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: '2030-01-01' }), () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: new Date(NaN) }),
    () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: new Date(-1) }), () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: new Date(8.64e15) }),
    () => accounts.createSocialAccount({ ...who, accessTokenExpiresAt: Object.create(Date.prototype) }), () => accounts.createSocialAccount({ ...who, isLoginMethod: null }),
    () => accounts.createSocialAccount({ ...who, user: {} }), () => accounts.createSocialAccount({ ...who, createdAt: new Date() }), () => accounts.createSocialAccount({ ...who, provider: 'a\nb' }),
    () => accounts.updateSocialAccount(account.id, { userId: 'x' }), () => accounts.updateSocialAccount(account.id, { provider: 'x' }), () => accounts.updateSocialAccount(account.id, { scope: 'x', accessToken: {} }),
    () => accounts.findOrCreateBySocialAccount(), () => accounts.findOrCreateBySocialAccount(who), () => accounts.findOrCreateBySocialAccount({ ...who, user: {} }),
    () => accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: 'y' }), () => accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: 'y', user: null }),
    () => accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: 'y', user: { id: 'x' } }),
  ];
  for (const call of calls) {
    await assert.rejects(call(), (error) => {
      assert(error instanceof CounterfoilError, String(error));
      assert.deepEqual([error.code, error.outcome], ['INVALID', 'not_applied'], `${call}: ${error.message}`);
      assert.ok(!inspect(error).includes(canary), String(call));
      return true;
    }, String(call));
  }
  assert.deepEqual(await accounts.findUserById(user.id), user);
  assert.deepEqual(await accounts.listSocialAccounts({ userId: user.id }), [account]);
  assert.equal(await accounts.findSocialAccount({ provider: 'p', providerUserId: 'y' }), undefined);
  await store.close();
  await assert.rejects(accounts.findUserById(user.id), { code: 'CLOSED' });
});

test('a log, JSON and a copy of a record hold no secret, and a log no address', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store), sessions = new SessionStorage(store);
  const address = `${canary}@example.org`, at = new Date();
  const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({
    provider: 'p', providerUserId: canary, providerEmail: address, accessToken: canary, refreshToken: canary, userInfo: canary, user: { email: address, hashedPassword: canary, userInfo: canary },
  });
  const session = await sessions.create({ tokenHash: canary, userId: user.id, createdAt: at, updatedAt: at, expiresAt: at, ip: canary, userAgent: canary });
  for (const record of [user, socialAccount, session]) {
    for (const text of [inspect(record), inspect([{ record }], { depth: 9, showHidden: true }), `${record}`]) assert.ok(!text.includes(canary), text);
  }
  for (const [record, names] of [[user, ['hashedPassword']], [socialAccount, ['accessToken', 'refreshToken']], [session, ['tokenHash']]]) {
    for (const name of names) {
      assert.equal(record[name], canary);
      assert.ok(!(name in JSON.parse(JSON.stringify(record))) && !(name in { ...record }) && !Object.keys(record).includes(name));
    }
  }
  assert.equal(JSON.parse(JSON.stringify(user)).email, address);
  const taken = await accounts.createUser({ email: address }).catch((error) => error);
  assert.deepEqual([taken.code, taken.existing.id], ['EXISTS', user.id]);
  assert.ok(!inspect(taken, { showHidden: true }).includes(canary) && !JSON.stringify(taken).includes(canary) && !taken.stack.includes(canary));
  for (const interfaces of [accounts, sessions]) assert.ok(!inspect(interfaces, { depth: 9, showHidden: true }).includes(canary));
  await store.close();
});

test('over memory it is done when the method returns, awaited or not', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store);
  const made = accounts.createUser({ email: 'a@b.c' });
  const found = accounts.findUserByEmail('a@b.c');
  assert.equal((await found).id, (await made).id);
  await store.close();
});

test('a backend that keeps no records says what it needs', async () => {
  const store = open({ get() {}, set() {}, delete() {} });
  await assert.rejects(new AccountsStorage(store).createUser({}), (error) => error.code === 'NOT_SUPPORTED' && error.outcome === 'not_applied' && /singleProcess/.test(error.message));
  await store.close();
});

test('deadlines of an AccountsStorage are its own', async () => {
  const store = open({ singleProcess: true, get: () => new Promise(() => {}), set: () => new Promise(() => {}), delete: () => new Promise(() => {}) });
  await assert.rejects(new AccountsStorage(store, { timeout: 0.02 }).findUserByEmail('a@b.c'), { code: 'TIMEOUT', outcome: 'not_applied' });
  await assert.rejects(new SessionStorage(store, { timeout: 0.02 }).getAny('0'.repeat(32)), { code: 'TIMEOUT', outcome: 'not_applied' });
  for (const timeout of [0, -1, NaN, 'x', 86401]) await assert.rejects(new AccountsStorage(store, { timeout }).findUserByEmail('a@b.c'), { code: 'INVALID' });
  await store.close();
});

test('workers: terminated in the middle of logins, they leave users that are whole', async () => {
  const file = newFile();
  const stores = { memory: 'memory:records-terminated', sqlite: `sqlite:${file}` };
  for (const url of Object.values(stores)) {
    const store = open(url), accounts = new AccountsStorage(store);
    const code = `const { open, AccountsStorage } = require(${JSON.stringify(require.resolve('counterfoil'))});
      const accounts = new AccountsStorage(open(${JSON.stringify(url)}));
      const hooks = new AccountsStorage({ findUserById: () => new Promise((resolve) => setImmediate(resolve)) });
      (async () => { for (let i = 0; ; i++) {
        hooks.findUserById('x').catch(() => {});
        await Promise.all([0, 1, 2].map((n) => accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: String((i + n) % 40), user: { email: 'u' + (i + n) % 40 + '@example.org' } })));
        require('node:worker_threads').parentPort.postMessage(i);
      } })();`;
    for (let round = 0; round < 6; round++) {
      const workers = [0, 1].map(() => new Worker(code, { eval: true }));
      await Promise.all(workers.map((worker) => new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); })));
      await new Promise((resolve) => setTimeout(resolve, round * 7));
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
    let found = 0;
    for (let i = 0; i < 40; i++) {
      const account = await accounts.findSocialAccount({ provider: 'p', providerUserId: String(i) });
      const user = await accounts.findUserByEmail(`u${i}@example.org`);
      assert.equal(account?.userId, user?.id);
      if (user) found++;
    }
    assert.ok(found > 0);
    await store.close();
  }
});

// ---------------------------------------------------------------------------------------------------------------- Python --

const SCRIPT = `
import sys
from datetime import UTC, datetime, timedelta
import counterfoil
from counterfoil import AccountsStorage, SessionStorage
url, prefix, key, user_id, session_id = sys.argv[1:]
with counterfoil.open(url, prefix=prefix, keys={9: bytes.fromhex(key)}) as store:
    accounts, sessions = AccountsStorage(store), SessionStorage(store)
    user = accounts.find_user_by_email(" NODE@example.org")
    assert user.id == user_id and user.user_info == {"from": ["node", None, 1.5]} and user.hashed_password == "h\\u00e9", vars(user)
    [account] = accounts.list_social_accounts(user_id=user_id)
    assert (account.provider, account.access_token, account.refresh_token) == ("p", "token from node", None)
    assert account.access_token_expires_at == datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    accounts.update_social_account(account.id, access_token="token from python")
    session = sessions.get_any(session_id)
    assert session.user_id == user_id and session.ip == "::1" and session.created_at == datetime(2029, 1, 1, tzinfo=UTC)
    assert sessions.revoke_all_for_user(user_id, revoked_at=datetime(2029, 1, 2, tzinfo=UTC)) == 1
    fine = datetime(2029, 1, 3, 0, 0, 0, 123456, tzinfo=UTC)
    made = sessions.create(token_hash="from python", user_id=user_id, created_at=fine, updated_at=fine, expires_at=fine + timedelta(days=1), client_name="py")
    other = accounts.create_user(user_info={"from": "python"}, email="Python@example.org", extra_fields=[1])
    print(made.id, other.id)
`;

for (const [name, place] of [['one SQLite file', () => `sqlite:${newFile()}`], ['one Redis', () => redisVariable('')]]) {
  test(`Node and Python on ${name}`, async () => {
    const url = place(), prefix = ownPrefix();
    const store = open(url, { prefix, keys: ring });
    const accounts = new AccountsStorage(store), sessions = new SessionStorage(store);
    const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({
      provider: 'p', providerUserId: 'x', accessToken: 'token from node', accessTokenExpiresAt: new Date('2030-01-02T03:04:05.678Z'),
      user: { email: 'Node@example.org', hashedPassword: 'hé', userInfo: { from: ['node', null, 1.5] } },
    });
    const at = new Date('2029-01-01T00:00:00Z');
    const session = await sessions.create({ tokenHash: 'from node', userId: user.id, createdAt: at, updatedAt: at, expiresAt: new Date('2029-02-01T00:00:00Z'), ip: '::1' });
    const { status, stdout, stderr } = spawnSync(python, ['-c', SCRIPT, url, prefix, ring[0][1].toString('hex'), user.id, session.id], { cwd: root, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const [made, other] = stdout.trim().split(' ');
    assert.equal((await accounts.findSocialAccountById(socialAccount.id)).accessToken, 'token from python');
    const revoked = await sessions.getAny(session.id);
    assert.deepEqual([revoked.status, revoked.revokedAt.toISOString(), await sessions.epoch(user.id)], ['revoked', '2029-01-02T00:00:00.000Z', 1]);
    const read = await sessions.getAny(made);
    assert.deepEqual([read.tokenHash, read.clientName, read.epoch, read.createdAt.toISOString()], ['from python', 'py', 1, '2029-01-03T00:00:00.123Z']);
    // To the microsecond, although a Date is none: at 123 ms it is active still, at 124 expired.
    const end = Date.parse('2029-01-04T00:00:00.123Z');
    assert.equal((await sessions.get({ tokenHash: 'from python', now: new Date(end) })).id, made);
    assert.equal(await sessions.get({ tokenHash: 'from python', now: new Date(end + 1) }), undefined);
    const { records } = await sessions.listForUser(user.id, { now: new Date(end + 1), orderBy: 'createdAtAsc' });
    assert.deepEqual(records.map((one) => [one.id, one.status]), [[session.id, 'revoked'], [made, 'expired']]);
    assert.deepEqual(await accounts.findUserByEmail('PYTHON@example.org').then((one) => [one.id, one.email, one.extraFields]), [other, 'Python@example.org', [1]]);
    await store.close();
  });
}

test('a text that is none is nobody\'s id or address: a miss, and for a new record no text', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store), half = 'a\ud83d@example.org';
  const found = [() => accounts.findUserByEmail(half), () => accounts.findUserById(half), () => accounts.findSocialAccountById(half),
    () => accounts.findSocialAccount({ provider: 'p', providerUserId: half }), () => accounts.findSocialAccount({ provider: half, providerUserId: '1' })];
  for (const call of found) assert.equal(await call(), undefined, String(call));
  assert.deepEqual(await accounts.listSocialAccounts({ userId: half }), []);
  assert.deepEqual([await accounts.deleteUser(half), await accounts.deleteSocialAccount(half)], [false, false]);
  await assert.rejects(accounts.updateUser(half, { email: null }), { code: 'MISSING', outcome: 'not_applied' });
  await assert.rejects(accounts.updateSocialAccount(half, { scope: null }), { code: 'MISSING', outcome: 'not_applied' });
  for (const call of [() => accounts.createUser({ email: half }), () => accounts.createUser({ hashedPassword: half }), () => accounts.findOrCreateBySocialAccount({ provider: half, providerUserId: '1', user: {} })]) {
    await assert.rejects(call(), { code: 'INVALID', outcome: 'not_applied' }, String(call));
  }
  // In JSON it has a form of its own, and comes back.
  assert.deepEqual((await accounts.createUser({ userInfo: { [half]: half } })).userInfo, { [half]: half });
  await store.close();
});

test('one can sign in with a social account unless it is said that one cannot, as in Python', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store);
  const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({ provider: 'p', providerUserId: '1', user: {} });
  const linked = await accounts.createSocialAccount({ userId: user.id, provider: 'p', providerUserId: '2', isLoginMethod: undefined });
  const other = await accounts.createSocialAccount({ userId: user.id, provider: 'p', providerUserId: '3', isLoginMethod: false });
  assert.deepEqual([socialAccount, linked, other].map((one) => one.isLoginMethod), [true, true, false]);
  assert.equal((await accounts.updateSocialAccount(other.id, { scope: 's' })).isLoginMethod, false);
  const rows = [{ id: 1, userId: 1, provider: 'p', providerUserId: '1' }, { id: 2, userId: 1, provider: 'p', providerUserId: '2', isLoginMethod: null }, { id: 3, userId: 1, provider: 'p', providerUserId: '3', isLoginMethod: false }];
  const hooked = new AccountsStorage({ listSocialAccounts: () => rows });
  assert.deepEqual((await hooked.listSocialAccounts({ userId: 1 })).map((one) => one.isLoginMethod), [true, true, false]);
  await hooked.close();
  await store.close();
});

test('what is missing, or not for that method, is named', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store), sessions = new SessionStorage(store), at = new Date();
  await assert.rejects(accounts.createSocialAccount({ userId: 'u', provider: 'p' }), { code: 'INVALID', message: 'provider_user_id of a social_account is missing' });
  await assert.rejects(accounts.updateSocialAccount('0'.repeat(32), { provider: 'p' }), { code: 'INVALID', message: 'provider of a social_account cannot be given to this method, or not be changed' });
  await assert.rejects(sessions.create({ tokenHash: 'h', userId: 'u', createdAt: at, expiresAt: at }), { code: 'INVALID', message: 'updated_at of a session is missing' });
  await store.close();
});

test('what a provider calls somebody may be an integer, as its API gives it, and is the same as its decimal text', async () => {
  const store = open('memory:'), accounts = new AccountsStorage(store);
  const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({ provider: 'github', providerUserId: 583231, user: {} });
  assert.equal(socialAccount.providerUserId, '583231');
  for (const providerUserId of ['583231', 583231, 583231n]) {
    assert.equal((await accounts.findSocialAccount({ provider: 'github', providerUserId }))?.id, socialAccount.id);
    await assert.rejects(accounts.createSocialAccount({ userId: user.id, provider: 'github', providerUserId }), { code: 'EXISTS' });
  }
  for (const providerUserId of [1.5, 2 ** 53, true, null]) {
    await assert.rejects(accounts.createSocialAccount({ userId: user.id, provider: 'github', providerUserId }), { code: 'INVALID', outcome: 'not_applied' });
  }
  const hooked = new AccountsStorage({ findSocialAccount: (by) => ({ id: 1, userId: 1, provider: by.provider, providerUserId: Number(by.providerUserId) }) });
  assert.equal((await hooked.findSocialAccount({ provider: 'github', providerUserId: 7 })).providerUserId, '7');
  await hooked.close();
  await store.close();
});
