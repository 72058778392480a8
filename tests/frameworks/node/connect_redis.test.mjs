// The set-ups of connect-redis's READMEs, by each way in which its versions are imported and with the client that each names;
// only the name of the package is another.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import express from 'express';
import session from 'express-session';
import Redis from 'ioredis';
import { createClient } from 'redis';
import { createClient as createClient4 } from 'redis-4';
import RedisStoreOf7, { RedisStore } from 'counterfoil/connect-redis';
import { Browser, ownPrefix, PLACES, redisUrl, serving } from './support.mjs';

const require = createRequire(import.meta.url);

/** The READMEs' middleware, in an application that counts. */
async function counts(store) {
  const app = express();
  app.use(session({ store, resave: false, saveUninitialized: false, secret: 'keyboard cat' }));
  app.get('/', (req, res) => {
    req.session.visits = (req.session.visits ?? 0) + 1;
    res.send(`${req.session.visits}`);
  });
  app.get('/leave', (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.send('bye'))));
  await serving(app, async (origin) => {
    const browser = new Browser(origin);
    for (const text of ['1', '2', '3']) assert.equal((await browser.go('/')).text, text);
    await browser.go('/leave');
    assert.equal((await browser.go('/')).text, '1');
  });
}

/** A client that connects while the application starts already, as the READMEs have it. */
function connecting(client) {
  client.connect().catch(console.error);
  return client;
}

const url = redisUrl();
const required = require('counterfoil/connect-redis');
const myApp = (Store) => (client) => new Store({ client, prefix: 'myapp:' });
const older = (client) => {
  const OldStore = required(session);
  return new OldStore({ client });
};
const SETUPS = {
  'version 10 and 9: import { RedisStore }': [() => connecting(createClient({ url })), myApp(RedisStore)],
  'version 9: require(…).RedisStore': [() => connecting(createClient({ url })), myApp(required.RedisStore)],
  'version 7: the default import, redis': [() => connecting(createClient4({ url })), myApp(RedisStoreOf7)],
  'version 7: require(…).default, ioredis': [() => new Redis(url), myApp(required.default)],
  'version 6: require(…)(session), redis 4': [() => connecting(createClient4({ url, legacyMode: true })), older],
  'version 6: require(…)(session), redis 3': [() => require('redis-3').createClient(url), older],
  'version 6: require(…)(session), ioredis': [() => new Redis(url), older],
};

for (const [what, [newClient, newStore]] of Object.entries(SETUPS)) {
  test(what, async () => {
    const client = newClient();
    try {
      await counts(newStore(client));
    } finally {
      await (client.options.legacyMode ? client.v4 : client).quit();
    }
  });
}

for (const [place, placeUrl] of Object.entries(PLACES)) {
  test(`${place}: the same without a client`, async (t) => {
    const store = new RedisStore({ url: placeUrl(), prefix: ownPrefix() });
    t.after(() => store.close());
    await counts(store);
    assert.equal(await store.length(), 1);
    await store.clear();
  });
}
