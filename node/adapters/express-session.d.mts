export * from './express-session.cjs';
