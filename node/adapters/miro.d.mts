export * from './miro.cjs';
