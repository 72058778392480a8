import session from 'express-session';
import connectRedis, { RedisStore, type RedisStoreOptions } from 'counterfoil/connect-redis';
import { createClient } from 'redis';

const options: RedisStoreOptions = { client: createClient() };
const stores: session.Store[] = [new RedisStore(options), new connectRedis(options), new (connectRedis(session))(options)];
const one: connectRedis = new connectRedis({ url: 'memory:' });
const found: session.SessionData | null = await one.get('x');
void [stores, found];
