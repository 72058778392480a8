export * from './fluidauth.cjs';
