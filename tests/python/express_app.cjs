'use strict';

// Real Express applications for test_express.py, and what express-session makes of cookies. It is asked by lines of JSON, answers each with one, and
// ends when its input does.

const readline = require('node:readline');

const express = require('express');
const session = require('express-session');
const passport = require('passport');
const { Strategy } = require('passport-local');
const redis = require('redis');
const { RedisStore } = require('connect-redis-10');

const { CounterfoilStore } = require('counterfoil/express-session');
const { open } = require('counterfoil');

const { Stage } = require('counterfoil/testing');

const realNow = Date.now;
const closing = [];

passport.use(new Strategy((username, password, done) => done(null, password === 'right' && { id: username })));
passport.serializeUser((user, done) => done(null, user.id));
passport.deserializeUser((id, done) => done(null, { id }));

/** `options`: those of CounterfoilStore; userOf is the name of a field. */
async function storeOf({ kind, url, options: { userOf, keys, ...options } }) {
  if (kind === 'connect-redis') {
    const client = redis.createClient({ url });
    client.on('error', () => {});
    await client.connect();
    closing.push(() => client.destroy());
    return new RedisStore({ client, prefix: options.prefix });
  }
  if (keys) options.keys = keys.map(([id, key]) => [id, Buffer.from(key, 'hex')]);
  if (userOf) options.userOf = (one) => one[userOf];
  if (options.hashKeys || options.sealValues || options.storePrefix === undefined) return new CounterfoilStore({ url, ...options });
  const { storePrefix, ...rest } = options;
  return new CounterfoilStore({ store: open(url, { prefix: storePrefix }), ...rest });
}

/** An application; where it listens. `session`: options of express-session. */
async function serve({ session: sessionOptions, ...place }) {
  const store = await storeOf(place);
  const app = express();
  app.use(express.json());
  app.use(session({ store, resave: false, saveUninitialized: false, ...sessionOptions }));
  app.use(passport.session());
  app.get('/me', (request, response) => response.json(request.session));
  app.get('/id', (request, response) => response.json(request.sessionID));
  app.post('/login', passport.authenticate('local'), (request, response) => response.json(request.user));
  app.post('/user', (request, response, next) => request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = request.body.user;
    return response.json({});
  }));
  app.post('/set', (request, response) => {
    Object.assign(request.session, request.body);
    request.session.save((error) => response.json({ error: error?.code ?? null }));
  });
  app.post('/often', async (request, response) => { // a slow request that saves all the time; whether it had the session
    const { user } = request.session;
    for (let i = 0; i < request.body.times && user !== undefined; i++) {
      request.session.n = i;
      await new Promise((resolve) => request.session.save(resolve));
    }
    response.json({ had: user !== undefined });
  });
  app.post('/logout', (request, response, next) => request.session.destroy((error) => (error ? next(error) : response.json({}))));
  app.post('/forget', (request, response) => response.clearCookie('connect.sid', request.body).json({}));
  app.get('/mine', async (request, response) => response.json(await store.sessionsOf(request.session.user, { current: request.sessionID })));
  app.post('/everywhere', async (request, response) => response.json(await store.endAllOf(request.session.user)));
  app.use((error, request, response, next) => response.status(500).json({ error: error.code ?? error.message }));
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject));
  closing.push(() => { server.close(); server.closeAllConnections(); return store.close?.(); });
  return server.address().port;
}

/** Which session the middleware asks its store for, for each of these cookie headers; null: for none. */
function asked({ headers, secret, name }) {
  let sid;
  const store = new session.MemoryStore();
  store.get = (id) => { sid = id; };
  const middleware = session({ store, secret, name, resave: false, saveUninitialized: false });
  return headers.map((header) => {
    sid = null;
    const request = { url: '/', headers: { cookie: header }, connection: {} };
    middleware(request, { writeHead() {}, write() {}, end() {} }, () => {});
    return sid;
  });
}

/** The headers Set-Cookie that the middleware sends for sessions with these ids and cookies, or null where it refuses. */
function sent({ cookies, secret, name }) {
  const signature = require('cookie-signature');
  return cookies.map(({ id, expires, ...options }) => {
    const one = new session.Cookie(options);
    if (expires !== undefined) one.expires = new Date(expires);
    try {
      return one.serialize(name, `s:${signature.sign(id, secret)}`);
    } catch {
      return null;
    }
  });
}

/**
 * What CounterfoilStore does, request by request, on a clock of its own: `steps` are lists of a name and arguments; `slots` the session objects of
 * requests. Gives for each step what it answered, or its error's code, and then all texts that are stored.
 */
async function twin({ steps, start, cookie, options: { userOf, keys, ...options } }) {
  const Real = Date;
  const stage = new Stage();
  stage.stepWall((start - stage.now().getTime()) / 1000);
  let behind = 0;
  Real.now = () => stage.now().getTime() - behind;
  globalThis.Date = class extends Real { constructor(...args) { super(...(args.length === 0 ? [Real.now()] : args)); } };
  const inner = open('memory:', { stage, ...(keys && { sealValues: true, keys: keys.map(([id, key]) => [id, Buffer.from(key, 'hex')]) }) });
  const store = new CounterfoilStore({ store: inner, ...options, ...(userOf && { userOf: (one) => one[userOf] }) });
  let next;
  session({ store, secret: 'x', resave: false, saveUninitialized: false, cookie, genid: () => next });
  const slots = {}, all = new Set();
  const seen = (one) => { const { __counterfoil: _, ...rest } = JSON.parse(JSON.stringify(one)); return rest; };
  const save = async (one) => { one.touch(); await store.set(one.id, one); };
  const does = {
    async create(slot, id, data) {
      next = id;
      all.add(id);
      const request = { sessionStore: store, headers: {}, connection: {} };
      store.generate(request);
      slots[slot] = Object.assign(request.session, data);
      await save(slots[slot]);
    },
    async load(slot, id) {
      slots[slot] = await new Promise((resolve, reject) => store.load(id, (error, found) => (error ? reject(error) : resolve(found))));
      return slots[slot] ? seen(slots[slot]) : null;
    },
    set(slot, key, value) { slots[slot][key] = value; },
    remove(slot, key) { delete slots[slot][key]; },
    maxAge(slot, ms) { slots[slot].cookie.maxAge = ms; },
    save: (slot) => save(slots[slot]),
    async touch(slot) { slots[slot].touch(); await store.touch(slots[slot].id, slots[slot]); },
    destroy: (slot) => store.destroy(slots[slot].id),
    advance(ms) { stage.advance(ms / 1000); },
    setBack(ms) { behind += ms; },
    put: (id, text) => inner.set(`sess:${id}`, text, { ttl: 600 }),
    async sessionsOf(user, id) { return (await store.sessionsOf(user, { current: id ?? undefined })).map(({ handle, ...rest }) => rest); },
    endAllOf: (user, id) => store.endAllOf(user, { except: id ?? undefined }),
  };
  const ofSlots = ['set', 'remove', 'maxAge', 'save', 'touch', 'destroy'];
  const answers = [];
  try {
    for (const [name, ...args] of steps) {
      const empty = ofSlots.includes(name) && !slots[args[0]];
      const answer = await Promise.resolve(empty ? null : does[name](...args))
        .catch((error) => {
          if (error.code === 'CHANGED') delete slots[args[0]]; // it must be loaded again
          return { error: error.code ?? String(error.stack) };
        });
      const texts = {};
      for (const id of all) texts[id] = (await inner.get(`sess:${id}`)) ?? null;
      answers.push([answer ?? null, texts]);
    }
  } finally {
    await inner.close();
    globalThis.Date = Real;
    Real.now = realNow;
  }
  return answers;
}

const answers = { serve, twin, asked, sent, cookieOf: ({ options }) => new session.Cookie(options).toJSON() };

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { do: what, ...question } = JSON.parse(line);
  let answer;
  try {
    answer = { answer: await answers[what](question) };
  } catch (error) {
    answer = { error: String(error.stack) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}).on('close', async () => {
  for (const close of closing) await close();
  process.exit();
});
