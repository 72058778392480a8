// connect-redis's ways to be required, with the types of clients that are really there.
import session = require('express-session');
import connectRedis = require('counterfoil/connect-redis');
import { RedisStore, type RedisStoreOptions } from 'counterfoil/connect-redis';
import { createClient } from 'redis';
import Redis = require('ioredis');

const Six = connectRedis(session);
const six: session.Store = new Six({ client: new Redis.Redis(), scanCount: 500 });
const seven: session.Store = new connectRedis.default({ client: createClient(), ttl: () => 60, disableTouch: true });
const options: RedisStoreOptions = { client: createClient(), prefix: 'x:', serializer: JSON, saveEnded: 'error', timeout: 2 };
const eight: RedisStore = new RedisStore(options);
class Mine extends RedisStore {
  readonly mine = this.prefix;
}
const older = [new RedisStore({ url: 'redis://cache' }), new connectRedis({ host: 'cache', port: 6379, pass: 'x', db: 1 }), new Mine({ socket: '/run/redis.sock' })];
const ids: Promise<string[]> = eight.ids();
// @ts-expect-error not the session's options
new RedisStore({ saveUninitialized: false });
// @ts-expect-error seconds
new RedisStore({ ttl: '60' });
// @ts-expect-error one of them must be given
new RedisStore();
// @ts-expect-error it can be read, not assigned
eight.prefix = 'y:';
// @ts-expect-error with express-session
connectRedis();
void [six, seven, older, ids];
