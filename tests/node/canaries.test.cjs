'use strict';

// No secret in what a program gets to see: every secret is a marker, and all that is printed is searched for the markers, as they are and in hex and
// base64. As a program (`node canaries.test.cjs program PLACE DEAD FOLDER`) this file makes every error there is and shows all that it can get hold of; the
// test searches what that has printed. Nothing here says a marker in one piece, so a line of this file in a stack is none.
// (Files, and what a server has and tells, are the core's: tests/python/test_canaries.py.)

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const v8 = require('node:v8');
const { inspect } = require('node:util');
const assert = require('node:assert/strict');
const { open, Backend, Storage, SecondaryStorage, AccountsStorage, SessionStorage, CounterfoilError } = require('counterfoil');
const { CounterfoilStore } = require('counterfoil/express-session');
const { Stage } = require('counterfoil/testing');

const NAMES = ['key', 'value', 'state', 'code', 'access', 'refresh', 'hash', 'mail', 'token', 'info', 'login', 'ring'];
const begin = (name) => `${'CANARY'}-${name}-`;
const S = Object.fromEntries(NAMES.map((name) => [name, `${begin(name)}marker`]));
S.mail += '@example.org';
const ringKey = Buffer.from(S.ring.padEnd(32, '!'));
const REST = { keys: [[1, ringKey]], sealValues: true, hashKeys: true };

// ---------------------------------------------------------------------------------------------------------------- the scan --

/** A marker as it may be written; its beginning only, since what is cut off is shown all the same. */
function disguises(name) {
  const raw = Buffer.from(begin(name));
  const found = [raw.toString(), raw.toString().toLowerCase(), raw.toString('hex'), raw.toString('hex').toUpperCase(), [...raw].join(', '), raw.toString('hex').replace(/..(?=.)/g, '$& ')];
  for (let shift = 0; shift < 3; shift++) {
    // What stands around it changes the first and the last letters only.
    const whole = Buffer.concat([Buffer.alloc(shift), raw]).toString('base64');
    found.push(whole.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + raw.length) * 8) / 6)));
  }
  return found;
}

function leaks(shown, names = NAMES) {
  const found = [], text = shown.replace(/,\s+/g, ', '); // lists of bytes are shown in columns
  for (const name of names) {
    for (const form of disguises(name)) {
      const at = text.indexOf(form);
      if (at >= 0) found.push(`${name}: ...${text.slice(Math.max(0, at - 150), at + 40)}`);
    }
  }
  return found;
}

// ------------------------------------------------------------------------------------------------------------- the program --

const codes = new Set();
const missed = [];

/** Prints all that there is to see of an object, as programs and their loggers do. */
function show(what) {
  console.log(what);
  console.log('%s %o %O %j', what, what, what, what instanceof Error ? {} : undefined);
  console.log(String(what), `${what}`, inspect(what, { depth: 9, showHidden: true, getters: true }));
}

function showError(error) {
  codes.add(error?.code ?? error?.name);
  for (let one = error; one !== undefined && one !== null; one = one.cause) {
    show(one);
    console.error(one);
    console.log(one.message, one.stack, JSON.stringify(one), JSON.stringify({ ...one }), one.toString(), one.existing);
    console.log(v8.serialize(one).toString('latin1'));
  }
}

/** Calls what must fail (or may), with a secret in its hands. */
async function failing(call, surely = true) {
  try {
    const promise = call();
    show(promise);
    await promise;
    if (surely) missed.push(String(call));
  } catch (error) {
    showError(error);
  }
}

const collect = async (pages) => { for await (const each of pages) void each; };

function kept(bad = {}) {
  const data = new Map();
  const given = (name, otherwise) => {
    if (!(name in bad)) return otherwise;
    if (bad[name] instanceof Error) throw bad[name];
    return bad[name];
  };
  return Object.assign(new Backend(), {
    singleProcess: true, keepsTtl: true, binary: true,
    get(key) { return given('get', data.get(key)); },
    set(key, value) { data.set(key, value); return given('set'); },
    delete(key) { return given('delete', data.delete(key)); },
    scan(prefix) { return given('scan', [...data.keys()].filter((key) => key.startsWith(prefix))); },
    close() { return given('close'); },
  });
}

function badCalls(store) {
  const calls = [];
  for (const key of [S.key.repeat(99), `${S.key}\ud800`, `${S.key}\0`, `${S.key}\r\n`, Buffer.from(S.key), [S.key], { [S.key]: 1 }, Symbol(S.key), new URL(`x:${S.key}`)]) {
    for (const name of ['get', 'getBuffer', 'pop', 'popBuffer', 'delete', 'incr']) calls.push(() => store[name](key));
    calls.push(() => store.set(key, S.value), () => store.touch(key, 5), () => store.getMany([key]), () => store.count(key), () => store.clear(key), () => collect(store.scan(key)), () => collect(store.reseal(key)));
  }
  for (const value of [`${S.value}\ud800`, S.value.repeat(100000), [S.value], { [S.value]: S.value }, Symbol(S.value), 5, null, () => S.value]) calls.push(() => store.set(S.key, value), () => store.set(S.key, S.value, { ifEqual: value }));
  for (const ttl of [S.value, -1, NaN, 1e300, [S.value], { valueOf() { throw new RangeError('of the caller'); } }]) calls.push(() => store.set(S.key, S.value, { ttl }), () => store.touch(S.key, ttl), () => store.incr(S.key, 1, { ttl }));
  for (const by of [S.value, 2 ** 60, 1.5, [S.value]]) calls.push(() => store.incr(S.key, by));
  for (const options of [S.value, null, { expiresAt: S.value }, { expiresAt: new Date(NaN) }, { ifAbsent: S.value }, { keepTtl: S.value }, { receipt: S.value }, { receipt: [S.value] }, { ifAbsent: true, ifPresent: true }, { ttl: 5, keepTtl: true }]) calls.push(() => store.set(S.key, S.value, options));
  calls.push(
    () => store.pop(S.key, { receipt: S.value }), () => store.pop(S.key, S.value), () => store.clear('', { force: S.value }), () => store.getMany(S.key),
    () => new Storage(S.key), () => new SecondaryStorage(S.key), () => new SecondaryStorage(store).set(S.key, [S.code], 5),
    () => new SecondaryStorage(store).set(S.key, S.code, S.value), () => new SecondaryStorage(store, { ttl: S.value }), () => new Storage(store).set([S.key], { a: S.state }),
    () => new Storage(store).set(S.key, { a: 1n, [S.state]: S.state }), () => new Storage(store).set(S.key, { toJSON() { throw new RangeError('of the state'); } }),
  );
  return calls;
}

function badOpenings(folder) {
  const urls = [
    `${S.login}://host`, `redis://user:${S.login}@[::1`, `redis://user:${S.login}@host:port`, `redis://user:${S.login}@host/${S.login}`, `redis://:${S.login}@host?${S.login}=1`,
    `redis://:${S.login}@host?db=${S.login}`, `redis://:${S.login}@host?password=%zz${S.login}`, `redis://:${S.login}\n@host`, `redis://:${S.login}\ud800@host`, `redis://:${S.login}@/x?silence=${S.login}`,
    `rediss://:${S.login}@host?tls_ca=/${S.login}`, `memory:?${S.login}=1`, `memory:?max_entries=${S.login}`, `sqlite:/nowhere/${S.login}/x.db`, `sqlite:${folder}/x.db?${S.login}=1`, `redis://:${S.login.repeat(1000)}@host`,
    Buffer.from(S.login), [S.login], 5, new URL(`redis://:${S.login}@host`), S,
  ];
  const key = ringKey;
  const options = [
    { password: `${S.login}\ud800` }, { password: [S.login] }, { password: Buffer.from(S.login) }, { user: S.login, password: S.login }, { name: `${S.login} \n` }, { prefix: S.key.repeat(99) }, { prefix: [S.key] }, { ttl: S.value },
    { timeout: S.value }, { stage: S }, { keys: S.ring }, { keys: [S.ring] }, { keys: [[1, S.ring]], sealValues: true }, { keys: [[1, key.subarray(1)]] }, { keys: [[S.ring, key]] }, { keys: [[1, key], [1, key]] }, { keys: [key] },
    { keys: { 1: key } }, { keys: [[2 ** 40, key]] }, { sealValues: S.value }, { hashKeys: S.value }, { tlsKey: `-----BEGIN ${S.login}` }, S.login, null,
  ];
  const store = (given) => () => open(`redis://user:${S.login}@host:6379`, given);
  return [
    ...urls.map((url) => () => open(url)), ...options.map(store), () => open(kept(), { password: S.login }), () => open({ get: S.value }),
    () => new CounterfoilStore({ url: urls[2] }), () => new CounterfoilStore({ url: 'memory:', keys: [[1, S.ring]] }), () => new CounterfoilStore({ store: S }),
  ];
}

async function badRecords(store) {
  const accounts = new AccountsStorage(store, { maxSocialAccounts: 1 }), sessions = new SessionStorage(store, { maxSessions: 1, whenFull: 'refuse' }), now = new Date();
  const user = await accounts.createUser({ userInfo: { a: S.info }, email: S.mail, hashedPassword: S.hash });
  const tokens = { provider: S.key, providerUserId: S.key, accessToken: S.access, refreshToken: S.refresh };
  const account = await accounts.createSocialAccount({ userId: user.id, ...tokens, provider: 'p' });
  const times = { createdAt: now, updatedAt: now, expiresAt: new Date(now.getTime() + 3600000) };
  const epoch = await sessions.epoch('late');
  await sessions.revokeAllForUser('late', { revokedAt: now });
  const session = await sessions.create({ tokenHash: S.token, userId: user.id, ...times });
  for (const each of [user, account, session, accounts, sessions, await sessions.listForUser(user.id)]) console.log(each, [each], { each }, inspect(each, { depth: 9 }), `${inspect([[[[[each]]]]])}`);
  for (const each of [user, account, session]) {
    // What is worth as much as what it opens is in no copy and no JSON; the rest of a record is there to be sent.
    const copies = JSON.stringify(each) + v8.serialize({ ...each }).toString('latin1') + inspect({ ...each }, { depth: 9 });
    console.log('COPIES', leaks(copies, ['access', 'refresh', 'hash', 'token']).length);
  }
  const circular = { a: S.info };
  circular[S.info] = circular;
  const create = (fields) => () => accounts.createUser(fields), login = (fields) => () => accounts.createSocialAccount({ userId: user.id, ...tokens, ...fields });
  const begun = (fields) => () => sessions.create({ tokenHash: S.token, userId: user.id, ...times, ...fields });
  return [
    ...[S.mail, S.mail.toUpperCase(), `${S.mail}\n${S.mail}`, S.mail.repeat(99), [S.mail], Buffer.from(S.mail), `${S.mail}\ud800`].map((email) => create({ email })),
    ...[{ emailVerified: S.mail }, { hashedPassword: Buffer.from(S.hash) }, { hashedPassword: `${S.hash}\0` }, { hashedPassword: S.hash.repeat(10000) }, { userInfo: circular }, { userInfo: { [S.info]: 1n } }, { extraFields: { a: S.info.repeat(100000) } }, S.mail, [S.mail], null].map(create),
    () => accounts.updateUser('f'.repeat(32), { email: S.mail }), () => accounts.updateUser([S.key], { email: S.mail }), () => accounts.findUserByEmail([S.mail]), () => accounts.findUserById({ [S.key]: 1 }),
    login({ userId: 'f'.repeat(32) }), login({ provider: 'q' }), login({ provider: 'p' }), login({ accessToken: Buffer.from(S.access) }), login({ refreshToken: `${S.refresh}\0` }), login({ provider: [S.key] }), login({ userId: [S.key] }),
    () => accounts.createSocialAccount({ userId: user.id, ...tokens, provider: 'p', providerUserId: S.key }), () => accounts.updateSocialAccount(account.id, { accessToken: S.access.repeat(10000) }), () => accounts.updateSocialAccount('f'.repeat(32), { accessToken: S.access }),
    () => accounts.findOrCreateBySocialAccount({ provider: 'q', providerUserId: '2', user: { email: S.mail } }), () => accounts.findOrCreateBySocialAccount({ provider: 'q', providerUserId: '2', user: S.mail }), () => accounts.findOrCreateBySocialAccount(S.access),
    ...[{}, { tokenHash: `${S.token}2` }, { tokenHash: S.token.repeat(99) }, { tokenHash: Buffer.from(S.token) }, { tokenHash: `${S.token}\0` }, { tokenHash: `${S.token}3`, userId: 'late', epoch }, { epoch: S.token }, { expiresAt: S.token }, { userId: [S.key] }, { ip: [S.info] }, { userAgent: `${S.info}\ud800` }, { clientName: S.info.repeat(10000) }].map(begun),
    () => sessions.get({ tokenHash: [S.token] }), () => sessions.get({ tokenHash: S.token, now: S.token }), () => sessions.get(S.token), ...[{ cursor: S.key }, { cursor: [S.key] }, { orderBy: S.key }, { status: S.key }, { limit: S.key }].map((how) => () => sessions.listForUser(user.id, how)),
    () => sessions.refresh(session.id, { updatedAt: S.key, expiresAt: now }), () => sessions.revoke(session.id, { revokedAt: S.key }), () => sessions.revokeAllForUser(user.id, { revokedAt: now, exceptSessionId: [S.key] }),
    () => new SessionStorage(store, { whenFull: S.key }), () => new SessionStorage(store, { retention: S.key }), () => new SessionStorage(S), () => new AccountsStorage(S.key), () => new AccountsStorage(S),
  ];
}

function badHooks() {
  const tables = (methods) => new AccountsStorage(Object.fromEntries(Object.entries(methods).map(([name, given]) => [name, () => given])), { keys: REST.keys });
  const calls = [];
  for (const given of [S.info, [S.mail], { email: S.mail }, { id: '1', email: [S.mail] }, { id: '1', userInfo: { [S.info]: 1n } }, { id: '1', createdAt: S.info }, { id: '1', hashedPassword: Buffer.from(S.hash) }, Promise.resolve(S.info), Promise.reject(new RangeError('of the application'))]) {
    calls.push(() => tables({ findUserByEmail: given }).findUserByEmail(S.mail), () => tables({ createUser: given }).createUser({ email: S.mail, hashedPassword: S.hash }));
  }
  const account = { id: '1', userId: '1', provider: 'p', providerUserId: '1' };
  for (const given of [S.access, { ...account, accessToken: S.access }, { ...account, refreshToken: [S.refresh] }]) calls.push(() => tables({ findSocialAccountById: given }).findSocialAccountById('1'), () => tables({ listSocialAccounts: [given] }).listSocialAccounts({ userId: '1' }));
  const throws = new AccountsStorage({ createUser() { throw new RangeError('of the application'); } }, { keys: REST.keys });
  return [...calls, () => tables({ findUserByEmail: null }).createUser({ email: S.mail }), () => throws.createUser({ email: S.mail, hashedPassword: S.hash })];
}

async function program(place, dead, folder) {
  const url = `redis://:${S.login}@${place}/0`; // not in the command line, which everybody on the machine can see, and the report says
  for (const target of ['memory:canaries', `sqlite:${folder}/canaries.db`, url, kept()]) {
    const store = open(target, { prefix: 'b:' });
    for (const event of ['connect', 'disconnect', 'error', 'warning', 'close']) store.on(event, console.log);
    for (const call of [...badCalls(store), ...(await badRecords(store))]) await failing(call);
    await store.set(S.key, S.value);
    await failing(() => store.incr(S.key));
    await store.set(S.key, Buffer.concat([Buffer.from(S.value), Buffer.from([0xff])]));
    await failing(() => store.get(S.key));
    await failing(() => store.pop(S.key));
    const sealed = open(target, { prefix: 'b:', ...REST }), bound = open(target, { prefix: 'b:', ...REST, hashKeys: false }), other = open(target, { prefix: 'b:', keys: [[2, ringKey]] });
    await sealed.set(S.key, S.value);
    await failing(() => collect(sealed.scan(S.key)));
    await failing(() => sealed.incr(S.key), typeof target === 'string');
    await store.set(S.key, S.value);
    await failing(() => bound.get(S.key));
    await failing(() => bound.pop(S.key));
    const tokens = { provider: 'sealed', providerUserId: '1', accessToken: S.access, refreshToken: S.refresh, user: {} };
    const { socialAccount } = await new AccountsStorage(sealed).findOrCreateBySocialAccount(tokens);
    await failing(() => new AccountsStorage(other).findSocialAccountById(socialAccount.id));
    await store.set('1', `{${S.state}`);
    await failing(() => new Storage(store).get('1'));
    for (const each of [store, sealed, new Storage(store), new SecondaryStorage(store), new CounterfoilStore({ store }), await store.stats()]) show(each);
    await Promise.all([store, sealed, bound, other].map((each) => each.close()));
    await failing(() => store.get(S.key));
    show(store);
  }
  for (const call of [...badOpenings(folder), ...badHooks()]) await failing(call, !String(call).includes('tables('));
  for (const bad of [S.value, [S.value], { [S.value]: 1 }, Symbol(S.value), 5, Buffer.alloc(2 ** 21, S.value), new RangeError('of the backend')]) {
    for (const name of ['get', 'set', 'delete', 'scan']) {
      const store = open(kept({ [name]: bad }), name === 'scan' ? {} : REST);
      await failing(() => (name === 'scan' ? collect(store.scan(S.key)) : store[name](S.key, S.value)), false);
      await store.close();
    }
  }
  const slow = open({ get: () => new Promise(() => {}), set() {}, delete() {}, close: () => Promise.reject(new RangeError('of the backend')) }, { timeout: 0.05 });
  await failing(() => slow.get(S.key));
  const last = slow.get(S.key);
  await failing(() => slow.close());
  await failing(() => last);
  const nobody = open(`redis://user:${S.login}@${dead}`, { timeout: 0.2 });
  await failing(() => nobody.set(S.key, S.value));
  const wrong = open(url.replace('@', `${S.login}@`), { timeout: 2 });
  wrong.on('error', showError);
  await failing(() => wrong.set(S.key, S.value));
  const crowded = open(`${url}?max_pending=1`);
  await Promise.all(Array.from({ length: 5 }, () => failing(() => crowded.set(S.key, S.value), false)));
  const stage = new Stage(), staged = open('memory:', { stage });
  for (let nth = 1; nth < 4; nth++) {
    stage.failAllocation(nth);
    await failing(() => staged.set(S.key.repeat(2), S.value.repeat(100)), false);
    stage.failAllocation(0);
  }
  await Promise.all([nobody, wrong, crowded, staged].map((each) => each.close()));
  const web = new CounterfoilStore({ url });
  for (const method of ['get', 'destroy']) web[method](`${S.key}\0`, (error) => showError(error));
  web.set(S.key, { cookie: {}, n: 1n, [S.value]: S.value }, (error) => showError(error));
  await new Promise((resolve) => web.get(S.key, resolve));
  await web.close();
  const at = process.report.excludeNetwork;
  process.report.excludeNetwork = true;
  const busy = open(url);
  const pending = busy.set(S.key, S.value);
  const report = process.report.getReport(new CounterfoilError('for the report', 'X'));
  // Not the heap's own pages, but all that the report says: stacks, handles, the environment, the command line.
  console.log(typeof report === 'string' ? report : JSON.stringify(report));
  process.report.excludeNetwork = at;
  await pending;
  // Nobody asks how these end: node says it.
  void busy.set(`${S.key}\0`, S.value);
  void busy.set(S.key, S.value, { ttl: S.value });
  void new AccountsStorage(busy).createUser({ email: [S.mail], hashedPassword: S.hash });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await busy.close();
  console.log('MISSED', JSON.stringify(missed));
  console.log(['CODES', ...codes].join(' '));
  if (process.argv.includes('control')) console.log(S.value);
  setImmediate(() => { throw new CounterfoilError('the end of the program', 'INVALID'); });
}

// --------------------------------------------------------------------------------------------------------------- the tests --

if (process.argv[2] === 'program') {
  void program(...process.argv.slice(3, 6));
} else {
  const { test } = require('node:test');
  const { RedisServer } = require('../faults/faults.cjs');
  const { createServer } = require('node:net');
  const freePort = () => new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

  const run = async (...more) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-canaries-'));
    const server = await RedisServer.start({ password: S.login });
    try {
      const words = ['--trace-warnings', '--trace-uncaught', '--unhandled-rejections=warn', __filename, 'program', new URL(await server.url()).host, `127.0.0.1:${await freePort()}`, folder, ...more];
      const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '', err = '';
      child.stdout.setEncoding('latin1').on('data', (piece) => { out += piece; });
      child.stderr.setEncoding('latin1').on('data', (piece) => { err += piece; });
      const guard = setTimeout(() => child.kill('SIGKILL'), 100000);
      await new Promise((resolve) => child.on('close', resolve));
      clearTimeout(guard);
      assert.match(err.slice(-3000), /the end of the program/);
      return { out, err };
    } finally {
      await server.stop();
      fs.rmSync(folder, { recursive: true, force: true });
    }
  };

  test('the scan finds what is there', () => {
    for (const name of NAMES) {
      const marker = Buffer.from(S[name]);
      for (const before of ['', 'x', 'xy', 'xyz']) {
        for (const after of ['', 'x', 'xy']) {
          const whole = Buffer.concat([Buffer.from(before), marker, Buffer.from(after)]);
          for (const written of [whole.toString(), whole.toString('hex'), whole.toString('base64'), whole.toString('base64url'), inspect(whole), JSON.stringify(S), inspect([...whole])]) {
            assert.ok(leaks(`of ${written} it`, [name]).length > 0, `${name} in ${written}`);
          }
        }
      }
      assert.deepEqual(leaks(S[name].replaceAll('-', '_'), [name]), []);
    }
  });

  test('nothing that a program gets to see has a secret in it', async () => {
    const { out, err } = await run();
    assert.deepEqual(leaks(out), []);
    assert.deepEqual(leaks(err), []);
    const seen = new Set(/^CODES (.*)$/m.exec(out)[1].split(' '));
    const wanted = ['AUTH', 'BUSY', 'CHANGED', 'CLOSED', 'CORRUPT', 'CURSOR', 'EXISTS', 'INVALID', 'LIMIT', 'MISSING', 'NOT_SUPPORTED', 'NO_MEMORY', 'RangeError', 'TIMEOUT', 'UNAVAILABLE'];
    assert.deepEqual(wanted.filter((code) => !seen.has(code)), [], 'what was to go wrong did not');
    assert.deepEqual(JSON.parse(/^MISSED (.*)$/m.exec(out)[1]), []);
    assert.equal(out.match(/^COPIES 0$/gm).length, 12);
    assert.ok(!/^COPIES [1-9]/m.test(out));
    assert.match(out, /"javascriptStack"/, 'the report');
    assert.ok(err.match(/UnhandledPromiseRejectionWarning/g).length >= 3);
  });

  test('the scan sees what a program shows', async () => {
    assert.equal(leaks((await run('control')).out).length, 1);
  });
}
