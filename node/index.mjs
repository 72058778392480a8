import counterfoil from './index.cjs';

export const { open, Store, Backend, Storage, SecondaryStorage, CounterfoilError, version } = counterfoil;
