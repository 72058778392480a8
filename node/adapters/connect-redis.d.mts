import connectRedis from './connect-redis.cjs';

export { RedisStore } from './connect-redis.cjs';
export type { RedisStoreOptions } from './connect-redis.cjs';
export default connectRedis;
