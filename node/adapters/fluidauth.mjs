import adapter from './fluidauth.cjs';

export const { SessionStore, BaseSessionStore, FluidAuthError } = adapter;
