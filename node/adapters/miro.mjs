import adapter from './miro.cjs';

export const { MiroStorage, singleFlight } = adapter;
