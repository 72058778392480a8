'use strict';

// What takes connect-redis's place: its exports and options, the real connect-redis 6, 7 and 10 beside it over the same keys, through every client that they take, and
// the middleware over all of them.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');
const express = require('express');
const session = require('express-session');
const net = require('node:net');

const { open, CounterfoilError } = require('counterfoil');
const connectRedis = require('counterfoil/connect-redis');
const { CounterfoilStore } = require('counterfoil/express-session');
const { ClientBackend } = require('../../node/adapters/redis-client.cjs');
const { redisVariable, ownPrefix, realStage } = require('./support/redis.cjs');
const { URLS } = require('./support/places.cjs');
const { RedisServer } = require('../faults/faults.cjs');
const { allCases, play, lacks } = require('./support/play.cjs');
const { browse, generated, load, save } = require('./support/sessions.cjs');

const { RedisStore } = connectRedis;
const url = redisVariable('');

/** Every client, and the connect-redis that takes it. `end`: as its manual says. */
const clients = [
  {
    name: 'node-redis 6', versions: ['10'],
    make: async (options) => require('redis').createClient({ url, ...options }).on('error', () => {}).connect(),
    end: (client) => client.destroy(),
  },
  {
    name: 'node-redis 4', versions: ['7'],
    make: async (options) => require('redis-4').createClient({ url, ...options }).on('error', () => {}).connect(),
    end: (client) => client.disconnect(),
  },
  {
    name: 'node-redis 4, legacyMode', versions: ['6'],
    make: async () => require('redis-4').createClient({ url, legacyMode: true }).on('error', () => {}).connect(),
    end: (client) => client.disconnect(),
  },
  { name: 'node-redis 3', versions: ['6'], make: async () => require('redis-3').createClient({ url }), end: (client) => client.end(false) },
  {
    name: 'ioredis', versions: ['6', '7'],
    make: async (options) => new (require('ioredis'))(url, { ...options }).on('error', () => {}),
    end: (client) => client.disconnect(),
  },
];
const by = (name) => clients.find((one) => one.name === name);

const theirs = {
  6: require('connect-redis-6')(session),
  7: require('connect-redis-7').default,
  10: require('connect-redis-10').RedisStore,
};

const call = (store, name, ...args) => new Promise((resolve, reject) => store[name](...args, (error, value) => (error ? reject(error) : resolve(value))));
const sess = (data, ms = 3600000) => ({ cookie: { originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString(), httpOnly: true, path: '/' }, ...data });
const refused = (options, pattern) => assert.throws(() => new RedisStore(options), (error) => {
  assert(error instanceof CounterfoilError, String(error));
  assert.equal(error.code, 'INVALID');
  assert.match(error.message, pattern);
  return true;
});

let raw; // to look at what is stored
before(async () => { raw = await by('node-redis 6').make(); });
after(() => raw.destroy());

// --------------------------------------------------------------------------------------------------- exports and options --

test('the exports of every version are one class', async () => {
  assert.equal(connectRedis(session), RedisStore);
  assert.equal(connectRedis.default, RedisStore);
  const esm = await import('counterfoil/connect-redis');
  assert.equal(esm.RedisStore, RedisStore);
  assert.equal(esm.default, RedisStore);
  class Mine extends RedisStore {}
  for (const Class of [RedisStore, connectRedis, Mine]) {
    const store = new Class({ url: 'memory:' });
    for (const base of [Class, RedisStore, CounterfoilStore, session.Store]) assert(store instanceof base);
    assert.equal(store.constructor, Class);
  }
  assert.equal(RedisStore.name, 'RedisStore');
  for (const wrong of [undefined, {}, { client: raw }]) assert.throws(() => connectRedis(wrong), { code: 'INVALID', message: /made with new, or called with express-session/ });
});

test('options: those of connect-redis as it has them, and what cannot be meant is refused', async () => {
  const plain = new RedisStore({ client: raw });
  const rival = new theirs[10]({ client: raw });
  for (const name of ['client', 'prefix', 'scanCount', 'serializer', 'ttl', 'disableTTL', 'disableTouch']) assert.equal(plain[name], rival[name], name);
  const set = { client: raw, prefix: '', scanCount: 7, serializer: { parse: JSON.parse, stringify: JSON.stringify }, ttl: () => 5, disableTTL: true, disableTouch: true };
  for (const [name, value] of Object.entries(set)) assert.equal(new RedisStore(set)[name], value, name);
  const none = new RedisStore({ client: raw, prefix: null, scanCount: null, serializer: undefined, ttl: 0, disableTTL: null, disableTouch: undefined, url: undefined });
  for (const name of Object.keys(set)) assert.equal(none[name], plain[name], name);
  assert.throws(() => { plain.prefix = 'other:'; }, TypeError); // and not silently
  assert(!('client' in { ...plain }) && !/client/.test(require('node:util').inspect(plain))); // whose password is no business of a log

  refused(undefined, /options must be an object/);
  refused({}, /give a client, or a url/);
  refused({ prefix: 'x:' }, /give a client, or a url/);
  for (const client of [5, 'redis://x', {}, new Map(), () => {}]) refused({ client }, /client must be a client of redis \(node-redis\) or of ioredis/);
  refused({ client: Promise.resolve(raw) }, /promise/);
  refused({ client: raw, url }, /one of client, url/);
  refused({ client: raw, port: 6379 }, /port belongs to the client/);
  refused({ url, pass: 'x' }, /pass belongs to the url/);
  refused({ client: raw, userOf: (one) => one.user }, /userOf needs records/);
  refused({ client: raw, ttl: '60' }, /ttl must be/);
  refused({ client: raw, ttl: -1 }, /ttl must not be negative/);
  refused({ client: raw, prefix: 5 }, /prefix must be a string/);
  refused({ client: raw, disableTTL: 1 }, /disableTTL/);
  refused({ client: raw, disableTouch: 'yes' }, /disableTouch/);
  refused({ client: raw, serializer: { parse() {} } }, /serializer/);
  for (const scanCount of [-1, 1.5, NaN, '100']) refused({ client: raw, scanCount }, /scanCount/);
  refused({ client: raw, saveUninitialized: false }, /unknown option: saveUninitialized/);
  refused({ client: raw, logErrors: true }, /no option logErrors/);
  for (const port of [0, 65536, 1.5, 'x', '']) refused({ host: 'a', port }, /port must be/);
  for (const db of [-1, 'x', 1.5]) refused({ host: 'a', db }, /db must be/);
  for (const host of ['', 5, 'redis://a', 'a/b', 'me@a']) refused({ host }, /host must be/);
  refused({ socket: 'relative' }, /socket must be an absolute path/);
  refused({ host: 'a', socket: '/b' }, /one of host, socket/);
  refused({ host: 'a', username: 'x' }, /username needs a password/);
  refused({ pass: '' }, /pass must be/);
});

test('host, port, socket, db and pass of older guides', async () => {
  const server = new URL(redisVariable('ACL')); // what the password is made of must be no part of the URL's grammar
  const [username, password] = [server.username, server.password].map(decodeURIComponent);
  const prefix = `sess:${ownPrefix()}`;
  const same = open(redisVariable('ACL'));
  const inDb = { host: server.hostname, port: Number(server.port), db: server.pathname.slice(1), username, pass: password, prefix };
  for (const options of [inDb, { ...inDb, port: server.port, pass: undefined, password }]) {
    const store = new RedisStore(options);
    await store.set('one', sess({ n: 1 }));
    assert.equal(JSON.parse(await same.get(`${prefix}one`)).n, 1);
    await store.destroy('one');
    await store.close();
  }
  await same.close();
  const socket = new RedisStore({ socket: new URL(redisVariable('UNIX')).pathname, db: '1', prefix });
  await socket.set('one', sess({ n: 2 }));
  assert.equal((await socket.get('one')).n, 2);
  const elsewhere = new RedisStore({ url: redisVariable('UNIX'), prefix });
  assert.equal(await elsewhere.get('one'), null); // in another database
  await socket.clear();
  await Promise.all([socket.close(), elsewhere.close()]);
});

test('length counts once what SCAN gives twice; with a URL the sessions of users, too', async () => {
  const twice = new RedisStore({ backend: { get: () => '{}', set() {}, delete() {}, scan: (at, cursor) => (cursor === undefined ? { keys: ['sess:a', 'sess:b'], cursor: 1 } : ['sess:b']) } });
  for (const way of [call, (store, method) => store[method]()]) {
    assert.equal(await way(twice, 'length'), 2);
    assert.deepEqual((await way(twice, 'ids')), ['a', 'b']);
  }
  const store = new RedisStore({ url: 'memory:', userOf: ({ user }) => user });
  session({ store, secret: 'x', resave: false, saveUninitialized: false });
  const one = generated(store);
  one.user = 7;
  await save(one);
  assert.equal(await store.endAllOf(7), 1);
  assert.equal(await store.get(one.id), null);
});

// ---------------------------------------------------------------------------------------- beside connect-redis, by client --

for (const { name, versions, make, end } of clients) {
  describe(`over ${name}`, () => {
    let client;
    before(async () => { client = await make(); });
    after(() => end(client));

    for (const version of versions) {
      test(`connect-redis ${version} reads what we store, and we what it stores`, async () => {
        const prefix = `sess:${ownPrefix()}[a*]?\\`;
        // Its SCAN takes the prefix for a pattern: that is asked with a plain one, below.
        const [mine, its] = [new RedisStore({ client, prefix }), new theirs[version]({ client, prefix })];
        const [a, b] = [sess({ user: 'a', text: 'é€\u{1F600}' }), sess({ user: 'b', list: [{ deep: null }] })];
        await call(its, 'set', 'one', a);
        assert.deepEqual(await call(mine, 'get', 'one'), a);
        await call(mine, 'set', 'two', b);
        assert.deepEqual(await call(its, 'get', 'two'), b);
        // The same bytes, and the same life but for the rounding.
        await call(mine, 'set', 'again', a);
        assert.equal(await raw.get(`${prefix}again`), await raw.get(`${prefix}one`));
        for (const key of ['again', 'two']) {
          const left = await raw.pTTL(`${prefix}${key}`);
          assert(left > 3500000 && left <= 3600000, String(left));
        }
        const browser = { cookie: { originalMaxAge: null, expires: null } };
        for (const [options, least, most] of [[{}, 86300, 86400], [{ ttl: 60 }, 50, 60], [{ disableTTL: true }, -1e-3, -1e-3]]) {
          for (const Class of [RedisStore, theirs[version]]) {
            await call(new Class({ client, prefix, ...options }), 'set', 'life', browser);
            const left = (await raw.pTTL(`${prefix}life`)) / 1000;
            assert(left >= least && left <= most, `${Class.name} ${JSON.stringify(options)}: ${left}`);
          }
        }
        // A touch by either moves the expiry and nothing else.
        for (const [toucher, other] of [[mine, its], [its, mine]]) {
          await call(toucher, 'touch', 'one', sess({ user: 'changed' }, 7200000));
          const left = await raw.pTTL(`${prefix}one`);
          assert(left > 7100000 && left <= 7200000, String(left));
          assert.deepEqual(await call(other, 'get', 'one'), a);
          await call(other, 'touch', 'one', sess({}, 1800000));
        }
        // One that has ended: set destroys, in both.
        await call(mine, 'set', 'two', sess({}, -1000));
        assert.equal((await call(its, 'get', 'two')) ?? null, null);
        await call(its, 'destroy', 'one');
        assert.equal(await call(mine, 'get', 'one'), null);
        await call(mine, 'destroy', 'again');
        assert.equal((await call(its, 'get', 'again')) ?? null, null);
        assert.equal(await call(mine, 'touch', 'none', sess({})), undefined);
        assert.equal(await call(mine, 'get', 'none'), null);
        await call(mine, 'clear');
        assert.equal(await raw.exists(`${prefix}life`), 0);
      });

      test(`ids, all and length as those of connect-redis ${version}; clear only of the prefix`, async () => {
        const own = ownPrefix();
        const prefix = `sess:${own}`;
        const options = { client, prefix, scanCount: 10 };
        const [mine, its] = [new RedisStore(options), new theirs[version](options)];
        assert.deepEqual([await call(mine, 'ids'), await call(mine, 'all'), await call(mine, 'length')], [[], [], 0]);
        await call(mine, 'clear'); // of nothing
        await Promise.all(Array.from({ length: 35 }, (_, n) => call(n % 2 ? mine : its, 'set', `s${n}`, sess({ n }))));
        await raw.set(`other:${own}`, 'kept');
        const sorted = (list) => list.sort((one, other) => (one.n ?? one) < (other.n ?? other) ? -1 : 1);
        for (const way of [call, (store, method) => store[method]()]) {
          assert.deepEqual(sorted(await way(mine, 'ids')), sorted(await call(its, 'ids')));
          assert.deepEqual(sorted(await way(mine, 'all')), sorted(await call(its, 'all')));
          assert.equal(await way(mine, 'length'), 35);
        }
        // Here a star is a star: what it would stand for elsewhere is not ours.
        const star = new RedisStore({ client, prefix: 'sess:*' });
        assert.deepEqual(await star.ids(), []);
        await star.clear();
        await assert.rejects(new RedisStore({ client, prefix: '' }).clear(), { code: 'INVALID' });
        assert.equal(await call(its, 'length'), 35);
        await mine.clear();
        assert.equal(await call(its, 'length'), 0);
        assert.equal(await raw.getDel(`other:${own}`), 'kept');
      });
    }

    test('what is added: a save that is too late, saveChanged and touchAfter', async () => {
      const prefix = `sess:${ownPrefix()}`;
      const make = (options) => {
        const store = new RedisStore({ client, prefix, ...options });
        session({ store, secret: 'x', resave: false, saveUninitialized: false });
        return store;
      };
      const store = make({});
      const first = generated(store);
      first.user = 'a';
      await save(first);
      const late = await load(store, first.id);
      await call(store, 'destroy', first.id);
      late.more = 1;
      await save(late);
      assert.equal(await store.get(first.id), null);
      const careful = make({ saveChanged: 'error', touchAfter: 60 });
      const second = generated(careful);
      await save(second);
      const [one, other] = [await load(careful, second.id), await load(careful, second.id)];
      one.n = 1;
      await save(one);
      other.n = 2;
      await assert.rejects(save(other), { code: 'CHANGED' });
      assert.equal((await careful.get(second.id)).n, 1);
      await store.clear();
    });

    test('the client stays the application\'s', async () => {
      const stores = [new RedisStore({ client, prefix: ownPrefix() }), new RedisStore({ client, prefix: ownPrefix() })];
      await stores[0].close();
      await assert.rejects(stores[0].get('x'), { code: 'CLOSED' });
      assert.equal(await stores[1].get('x'), null);
      await stores[1].close();
      assert.equal(await new RedisStore({ client, prefix: ownPrefix() }).get('x'), null);
    });

    // The cases of every backend: atomic steps by the client's own commands.
    const backend = {
      name, has: ['pop', 'touch', 'conditions', 'scan'], stage: realStage, shared: true,
      open({ stage, prefix = '', ...rest }) {
        const own = ownPrefix();
        const whole = typeof prefix !== 'string' || Buffer.byteLength(prefix) >= 256 - own.length ? prefix : own + prefix;
        return open(new ClientBackend(client), { ...rest, prefix: whole });
      },
    };
    /** Those about everybody's keys would need a server of their own. */
    const ofAll = (story) => story.steps?.some((step) => step.do === 'clear' && step.prefix === '' && step.error !== undefined);
    const many = (story) => name === 'ioredis' && story.steps?.some((step) => step.do === 'fill'); // once is enough for what takes long
    const stories = allCases().filter((story) => lacks(story, backend).length === 0 && !ofAll(story) && !many(story));
    const oneOfEachKind = name === 'node-redis 6' || name === 'ioredis';
    // The others make the same calls.
    if (oneOfEachKind) test('the cases', async () => {
      assert(stories.length > 30, String(stories.length));
      const tell = (story) => play(story, backend, realStage()).catch((error) => { throw new Error(`${story.file}: ${story.name}`, { cause: error }); });
      const apart = stories.filter((story) => story.open?.prefix === undefined);
      for (let i = 0; i < apart.length; i += 16) await Promise.all(apart.slice(i, i + 16).map(tell));
      for (const story of stories) if (!apart.includes(story)) await tell(story); // with the longest prefix there is no room for one of its own
    });
  });
}

// ------------------------------------------------------------------------------------------------------ clients that fail --

test('what a client rejects with reaches the callback, and the middleware\'s next', async () => {
  const never = require('redis').createClient({ url }); // nobody calls connect()
  const closed = await by('node-redis 6').make();
  closed.destroy();
  const gone = await by('ioredis').make();
  gone.disconnect();
  const ended = await by('node-redis 3').make();
  ended.end(false);
  for (const [client, pattern] of [[never, /closed/], [closed, /closed/], [gone, /Connection is closed/], [ended, /closed/]]) {
    const store = new RedisStore({ client, prefix: ownPrefix() });
    for (const [method, ...args] of [['get', 'a'], ['set', 'a', sess({})], ['touch', 'a', sess({})], ['destroy', 'a'], ['all'], ['ids'], ['length'], ['clear']]) {
      await assert.rejects(call(store, method, ...args), (error) => !(error instanceof CounterfoilError) && pattern.test(error.message), method);
      await assert.rejects(store[method](...args), pattern, method);
    }
    const app = express().use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
    app.get('/', (request, response) => response.json({}));
    app.use((error, request, response, next) => response.json({ failed: pattern.test(error.message), next: typeof next }));
    const signed = `s:a.${require('node:crypto').createHmac('sha256', 'x').update('a').digest('base64').replace(/=+$/, '')}`;
    await browse(app, async (go, browser) => {
      browser.cookie = `connect.sid=${encodeURIComponent(signed)}`;
      assert.equal((await go('/')).failed, true);
    });
  }
});

test('a client that keeps a call waiting: it fails after the timeout', async () => {
  const silent = net.createServer((socket) => socket.on('error', () => {})); // takes connections, answers nothing
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const client = new (require('ioredis'))({ host: '127.0.0.1', port: silent.address().port, enableReadyCheck: false }).on('error', () => {});
  try {
    const store = new RedisStore({ client, timeout: 0.05 });
    await assert.rejects(call(store, 'get', 'a'), { code: 'TIMEOUT' });
    await assert.rejects(store.set('a', sess({})), { code: 'TIMEOUT', outcome: 'unknown' });
  } finally {
    client.disconnect();
    silent.close();
  }
});

test('what is under the key is no session of ours: an error, and none of its bytes in it', async () => {
  const prefix = ownPrefix();
  const store = new RedisStore({ client: raw, prefix });
  await raw.set(`${prefix}text`, 'secret {');
  await assert.rejects(store.get('text'), (error) => error.code === 'CORRUPT' && !error.message.includes('secret'));
  await raw.lPush(`${prefix}list`, 'secret');
  await assert.rejects(store.get('list'), /WRONGTYPE/);
  await store.clear();
});

// ---------------------------------------------------------------------------------------------------- clients' own options --

for (const name of ['node-redis 6', 'ioredis']) {
  test(`a keyPrefix of ${name} stands before ours, also in a SCAN`, async () => {
    const keyPrefix = `${ownPrefix()}[app]:`;
    const client = await by(name).make({ keyPrefix });
    try {
      const store = new RedisStore({ client });
      await store.set('one', sess({ n: 1 }));
      assert.equal(JSON.parse(await raw.get(`${keyPrefix}sess:one`)).n, 1);
      assert.deepEqual(await store.ids(), ['one']);
      assert.deepEqual((await store.all()).map(({ id, n }) => [id, n]), [['one', 1]]);
      await store.clear();
      assert.equal(await raw.exists(`${keyPrefix}sess:one`), 0);
    } finally {
      by(name).end(client);
    }
  });
}

test('a client that gives Buffers, and a pool of clients', async () => {
  const { RESP_TYPES, createClientPool } = require('redis');
  const pool = await createClientPool({ url }).on('error', () => {}).connect();
  try {
    for (const client of [raw.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer, [RESP_TYPES.SIMPLE_STRING]: Buffer }), pool]) {
      const store = new RedisStore({ client, prefix: ownPrefix(), saveEnded: 'error' });
      session({ store, secret: 'x', resave: false, saveUninitialized: false });
      const one = generated(store);
      await save(one);
      one.n = 1;
      await save(one);
      assert.equal((await store.get(one.id)).n, 1);
      assert.deepEqual(await store.ids(), [one.id]);
      await call(store, 'destroy', one.id);
      await assert.rejects(save(one), { code: 'ENDED' });
    }
  } finally {
    pool.destroy();
  }
});

test('a cluster: every key on its own, and a SCAN of every master', async (t) => {
  if (!/redis_version:([7-9]|\d\d)/.test(await raw.info('server'))) return t.skip('its bus has a port of its own from Redis 7');
  const free = () => new Promise((resolve) => {
    const taken = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = taken.address();
      taken.close(() => resolve(port));
    });
  });
  const servers = [], ends = [];
  try {
    for (const bus of [await free(), await free(), await free()]) {
      const server = await RedisServer.start({ config: { 'cluster-enabled': 'yes', 'cluster-port': bus, 'cluster-announce-ip': '127.0.0.1' } });
      servers.push(server);
      const n = servers.length;
      await server.cli('CLUSTER', 'SET-CONFIG-EPOCH', String(n));
      await server.cli('CLUSTER', 'ADDSLOTSRANGE', String((n - 1) * 5462), String(Math.min(n * 5462, 16384) - 1));
      if (n > 1) await server.cli('CLUSTER', 'MEET', '127.0.0.1', String(servers[0].port), String(servers[0].bus));
      server.bus = bus;
    }
    for (const server of servers) {
      for (let tries = 0; !/cluster_state:ok[^]*cluster_known_nodes:3/.test(await server.cli('CLUSTER', 'INFO')); tries++) {
        assert(tries < 1000, 'the servers did not become a cluster');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    const rootNodes = servers.map(({ port }) => ({ url: `redis://127.0.0.1:${port}` }));
    const places = [
      [async () => require('redis').createCluster({ rootNodes }).on('error', () => {}).connect(), (client) => client.destroy()],
      [async () => {
        const client = require('redis-4').createCluster({ rootNodes }).on('error', () => {});
        await client.connect();
        return client;
      }, (client) => client.disconnect()],
      [async () => new (require('ioredis').Cluster)([{ host: '127.0.0.1', port: servers[0].port }], { keyPrefix: 'app:' }), (client) => client.disconnect()],
    ];
    for (const [make, end] of places) {
      const client = await make();
      ends.push(() => end(client));
      const store = new RedisStore({ client, prefix: 'sess:', scanCount: 5, saveChanged: 'error' });
      session({ store, secret: 'x', resave: false, saveUninitialized: false });
      await Promise.all(Array.from({ length: 40 }, (_, n) => store.set(`s${n}`, sess({ n }))));
      for (const server of servers) assert(Number(await server.cli('DBSIZE')) > 0, 'each has some of them');
      assert.deepEqual((await store.all()).map(({ n }) => n).sort((one, other) => one - other), Array.from({ length: 40 }, (_, n) => n));
      const one = generated(store);
      await save(one);
      one.n = 1;
      await save(one); // a script
      assert.equal(await store.length(), 41);
      await store.clear();
      for (const server of servers) assert.equal(Number(await server.cli('DBSIZE')), 0);
    }
  } finally {
    for (const end of ends) end();
    await Promise.all(servers.map((server) => server.stop()));
  }
});

// -------------------------------------------------------------------------------------------------------- the middleware --

const places = [
  ...Object.entries(URLS).map(([name, place]) => ({ name, open: () => ({ url: place() }) })),
  ...clients.map(({ name, make, end }) => ({ name, open: async () => ({ client: await make() }), end })),
];

for (const place of places) {
  test(`express-session over ${place.name}: a login, a logout, and the request that was slower`, async () => {
    const options = await place.open();
    const store = new RedisStore({ ...options, prefix: `sess:${ownPrefix()}`, ttl: 60 });
    const app = express().use(session({ store, secret: 'x', resave: false, saveUninitialized: false, rolling: true }));
    let release, arrived;
    const waiting = new Promise((resolve) => { arrived = resolve; });
    app.get('/login', (request, response, next) => request.session.regenerate((error) => {
      if (error) return next(error);
      request.session.user = 'me';
      return response.json({ user: 'me' });
    }));
    app.get('/me', (request, response) => response.json({ user: request.session.user ?? null }));
    app.get('/slow', async (request, response) => {
      arrived();
      await new Promise((resolve) => { release = resolve; });
      request.session.late = true;
      response.json({ user: request.session.user });
    });
    app.get('/logout', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({}))));
    try {
      await browse(app, async (go) => {
        assert.equal((await go('/me')).user, null);
        assert.equal(await store.length(), 0);
        await go('/login', { keep: true });
        assert.equal((await go('/me')).user, 'me');
        assert.equal(await store.length(), 1);
        const slow = go('/slow');
        await waiting;
        await go('/logout');
        release();
        assert.equal((await slow).user, 'me');
        assert.equal((await go('/me')).user, null);
        assert.equal(await store.length(), 0);
      });
    } finally {
      await store.close();
      if (options.client) place.end(options.client);
    }
  });
}
