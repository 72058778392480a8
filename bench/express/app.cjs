'use strict';

// One party of the express bench: an Express application with sessions. node app.cjs RIVALS URL SESSIONS PARTY
// URL is where our store and connect-redis keep them.
//
// It says "ready" when it listens and holds SESSIONS sessions. A line "port" is answered with that; "start" begins a measurement,
// "stop" ends it and is answered with JSON: the CPU that the whole process has taken and the longest delay of its event loop,
// both in microseconds.

const { createRequire } = require('node:module');
const { createInterface } = require('node:readline');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { DAY, sessions, idOf, fail } = require('../shared/loops.cjs');

const [folder, url, count, name] = process.argv.slice(2);
const rival = createRequire(folder + '/package.json');
const session = rival('express-session'); // before it is production: it would tell what MemoryStore is not for
process.env.NODE_ENV = 'production';
const express = rival('express');

const prefix = `${name}:`;
const stores = {
  counterfoil: () => new (require('../../node/adapters/express-session.cjs').CounterfoilStore)({ url, prefix }),
  MemoryStore: () => new session.MemoryStore(),
  none: () => null, // what the application itself takes, without sessions: no store can be quicker
  memorystore: () => new (rival('memorystore')(session))({ checkPeriod: DAY * 1000 }),
  'connect-redis': async () => {
    const client = rival('redis').createClient({ url });
    client.on('error', fail);
    await client.connect();
    return new (rival('connect-redis').RedisStore)({ client, prefix });
  },
};

/** All are stored before the first request, a thousand at a time. */
async function fill(store) {
  const { sessionOf } = sessions(session.Cookie);
  const put = (i) =>
    new Promise((resolve, reject) => store.set(idOf(i), sessionOf(i), (error) => (error ? reject(error) : resolve())));
  for (let i = 0; i < count; i += 1000) {
    await Promise.all(Array.from({ length: Math.min(1000, count - i) }, (_, n) => put(i + n)));
  }
}

function application(store) {
  const app = express();
  const secret = 'only for the bench'; // as in load.cjs
  const cookie = { maxAge: DAY * 1000 };
  const one = sessions(session.Cookie).sessionOf(0);
  if (store !== null) app.use(session({ store, secret, resave: false, saveUninitialized: false, cookie }));
  else app.use((request, response, next) => { request.session = one; next(); });
  // Without a session there is no user, and the answer is 500.
  app.get('/read', (request, response) => response.json({ name: request.session.user.name }));
  app.get('/write', (request, response) => {
    request.session.visits += 1;
    response.json({ name: request.session.user.name, visits: request.session.visits });
  });
  return app;
}

async function main() {
  const store = await stores[name]();
  if (store !== null) await fill(store);
  global.gc(); // what filling has left behind is nobody's stall
  const server = application(store).listen(0, '127.0.0.1');
  server.keepAliveTimeout = 0; // between two measurements nobody asks
  await new Promise((resolve) => server.once('listening', resolve));
  console.log('ready');
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let before;
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'port') {
      console.log(server.address().port);
    } else if (line === 'start') {
      delay.reset();
      delay.enable();
      before = process.cpuUsage();
    } else {
      const used = process.cpuUsage(before);
      delay.disable();
      console.log(JSON.stringify({ cpu: used.user + used.system, longest: Math.max(0, delay.max / 1000 - 1000) }));
    }
  }
  process.exit(0);
}

main().catch(fail);
