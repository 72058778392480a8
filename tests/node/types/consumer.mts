// The same package through import: the types must be the same ones.
import { open, Store, Backend, CounterfoilError, Storage, SecondaryStorage, version, type BackendMethods, type SetOptions } from 'counterfoil';
import { CounterfoilStore, type CounterfoilStoreOptions } from 'counterfoil/express-session';
import { Stage } from 'counterfoil/testing';
import session from 'express-session';

const options: SetOptions = { ttl: 5 };
const settings: CounterfoilStoreOptions = { url: 'memory:' };
const store: Store = open('memory:', { stage: new Stage() });
const base: session.Store = new CounterfoilStore(settings);
const backend: BackendMethods = { get: async () => null, set: async () => {}, delete: () => true };
await store.set('a', 'b', options);
await new Storage(store).set('a', { any: 'thing' });
await new SecondaryStorage(open(backend)).set('a', 'b');
// @ts-expect-error there is no default export
import counterfoil from 'counterfoil';
void [base, Backend.KEEP, CounterfoilError, version.length, counterfoil];
