'use strict';

// The stores of others, and what the conformance kit finds in them: for docs/conformance/node.md, and the test that compares it.

const path = require('node:path');
const fs = require('node:fs');
const session = require('express-session');
const { check, rules } = require('counterfoil/testing');
const { redisVariable, ownPrefix, root } = require('../redis.cjs');

const versionOf = (folder) =>
  JSON.parse(fs.readFileSync(path.join(root, 'node_modules', folder, 'package.json'), 'utf8')).version;
/** The module of a package whose exports hide it, or that is one for import alone. */
const within = (file) => import(path.join(root, 'node_modules', file));

/** A store over a client of its own, which the fault ends. Clients are told to be quiet: what they cannot do, the calls say. */
function overRedis(connect, makeStore, end) {
  const clients = new WeakMap();
  return {
    async make() {
      const client = await connect(redisVariable(''));
      const store = makeStore(client, ownPrefix());
      clients.set(store, client);
      return store;
    },
    fault: (store) => {
      end(clients.get(store));
    },
    cleanup: (store) => {
      try {
        end(clients.get(store));
      } catch {
        // the fault has ended it already
      }
    },
  };
}

const nodeRedis = (name, options) => (url) =>
  require(name)
    .createClient({ url, ...options })
    .on('error', () => {})
    .connect();
const destroy = (client) => client.destroy();
const disconnect = (client) => {
  client.disconnect().catch(() => {});
};

const connectRedis = (folder, exported, connect, end) => ({
  kind: 'express-session',
  name: 'connect-redis',
  folder,
  definition: () => overRedis(connect, (client, prefix) => new (exported())({ client, prefix }), end),
});

/** {kind, name, folder of the package, definition} */
const THIRD_PARTIES = [
  {
    kind: 'express-session',
    name: 'express-session, MemoryStore',
    folder: 'express-session',
    definition: () => ({ make: () => new session.MemoryStore() }),
  },
  {
    kind: 'express-session',
    name: 'memorystore',
    folder: 'memorystore',
    definition: () => ({ make: () => new (require('memorystore')(session))({}) }),
  },
  connectRedis(
    'connect-redis-6',
    () => require('connect-redis-6')(session),
    async (url) =>
      require('redis-3')
        .createClient({ url })
        .on('error', () => {}),
    (client) => client.end(true),
  ),
  connectRedis('connect-redis-7', () => require('connect-redis-7').default, nodeRedis('redis-4'), disconnect),
  connectRedis('connect-redis', () => require('connect-redis').RedisStore, nodeRedis('redis'), destroy),
  connectRedis('connect-redis-10', () => require('connect-redis-10').RedisStore, nodeRedis('redis'), destroy),
  {
    kind: 'curveball',
    name: '@curveball/session, MemoryStore',
    folder: '@curveball/session',
    definition: async () => {
      const { MemoryStore } = await within('@curveball/session/dist/index.js');
      return { make: () => new MemoryStore(), cleanup: (store) => store.close() };
    },
  },
  {
    kind: 'curveball',
    name: '@curveball/session-redis',
    folder: '@curveball/session-redis',
    definition: async () => {
      const { RedisStore } = await within('@curveball/session-redis/dist/index.js');
      return overRedis(nodeRedis('redis'), (client, prefix) => new RedisStore({ client, prefix }), destroy);
    },
  },
  {
    kind: 'miro',
    name: '@mirohq/miro-api, InMemoryStorage',
    folder: '@mirohq/miro-api',
    definition: async () => {
      const { InMemoryStorage } = await within('@mirohq/miro-api/dist/storage.js');
      return { make: () => new InMemoryStorage() };
    },
  },
];

/** What the kit finds in one. A busy machine is no fault of theirs: where it was too slow to tell, once more. */
async function found({ kind, definition }) {
  const definitionOf = { timeout: 30, ...(await definition()) };
  let report;
  for (let tries = 0; tries < 4 && !report?.every(({ seen }) => !/too slow/.test(seen)); tries++) {
    report = await check(kind, definitionOf);
  }
  return report;
}

/** What the kit finds in each. All of them at once: most of the time is waiting. */
function findings() {
  return Promise.all(
    THIRD_PARTIES.map(async (one) => ({ name: `${one.name} ${versionOf(one.folder)}`, report: await found(one) })),
  );
}

/** The same for one rule alone, of those of its kind. */
function findingsOf(kind, id) {
  const except = Object.fromEntries(rules[kind].filter((rule) => rule.id !== id).map((rule) => [rule.id, 'not asked']));
  return Promise.all(
    THIRD_PARTIES.filter((one) => one.kind === kind).map(async ({ name, definition }) => {
      const report = await check(kind, { timeout: 30, also: [id], except, ...(await definition()) });
      return { name, ...report.find(({ rule }) => rule === id) };
    }),
  );
}

module.exports = { findings, findingsOf };
