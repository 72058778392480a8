import adapter from './curveball.cjs';

export const { SessionStore, RedisStore } = adapter;
export default RedisStore; // as @curveball/session-redis has it
