import RedisStore from './connect-redis.cjs';

export { RedisStore };
export default RedisStore;
