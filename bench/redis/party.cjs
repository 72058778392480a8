'use strict';

// One party of the redis bench, in Node: node party.cjs PORT RIVALS (raw|session) PARTY
//
// RIVALS is the folder whose node_modules has the others. See loops.cjs.

const { createRequire } = require('node:module');
const { sessions, ofTexts, ofSessions, serve, fail } = require('../shared/loops.cjs');

const [port, folder, kind, name] = process.argv.slice(2);
const rival = createRequire(folder + '/package.json');
const session = rival('express-session');
const { sessionOf, textOf } = sessions(session.Cookie);
const host = '127.0.0.1';

const clients = {
  counterfoil: async () => require('../..').open(`redis://${host}:${port}/`),
  'node-redis': async () => {
    const client = rival('redis').createClient({ url: `redis://${host}:${port}` });
    client.on('error', fail);
    return client.connect();
  },
  ioredis: async (options) => {
    const client = new (rival('ioredis').Redis)({ host, port: Number(port), ...options });
    client.on('error', fail);
    await client.ping();
    return client;
  },
  'ioredis-auto': () => clients.ioredis({ enableAutoPipelining: true }),
  'valkey-glide': () => {
    const { GlideClient } = rival('@valkey/valkey-glide');
    // It would give up after 250 ms.
    return GlideClient.createClient({ addresses: [{ host, port: Number(port) }], requestTimeout: 100_000 });
  },
};

// connect-redis, for the clients that it does not speak to: the same steps, with the client's own way to say SET ... EX.
class JsonStore extends session.Store {
  constructor(client, setEx) {
    super();
    this.client = client;
    this.setEx = setEx;
  }

  async get(sid, callback) {
    try {
      const data = await this.client.get('sess:' + sid);
      return callback(null, data ? JSON.parse(data) : null);
    } catch (error) {
      return callback(error);
    }
  }

  async set(sid, value, callback) {
    try {
      const ttl = Math.ceil((Number(new Date(value.cookie.expires)) - Date.now()) / 1000);
      await this.setEx(this.client, 'sess:' + sid, JSON.stringify(value), ttl);
      return callback(null);
    } catch (error) {
      return callback(error);
    }
  }
}
const ex = (client, key, value, ttl) => client.set(key, value, 'EX', ttl);
const glideEx = (client, key, value, count) => client.set(key, value, { expiry: { type: 'EX', count } });

const stores = {
  counterfoil: async () => {
    const { CounterfoilStore } = require('../../node/adapters/express-session.cjs');
    return new CounterfoilStore({ store: await clients.counterfoil() });
  },
  'connect-redis': async () => new (rival('connect-redis').RedisStore)({ client: await clients['node-redis']() }),
  ioredis: async () => new JsonStore(await clients.ioredis(), ex),
  'ioredis-auto': async () => new JsonStore(await clients['ioredis-auto'](), ex),
  'valkey-glide': async () => new JsonStore(await clients['valkey-glide'](), glideEx),
};

async function main() {
  await serve(kind === 'raw' ? ofTexts(await clients[name](), textOf) : ofSessions(await stores[name](), sessionOf));
}

main().catch(fail);
