import counterfoil from './index.cjs';

export const { open, Store, Backend, Storage, SecondaryStorage, AccountsStorage, SessionStorage, CounterfoilError, version } = counterfoil;
