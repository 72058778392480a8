export * from './curveball.cjs';
export { RedisStore as default } from './curveball.cjs';
