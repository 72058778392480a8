// Compiled by types.test.cjs: the client's own types take the storage as it is.
import { Miro } from '@mirohq/miro-api';
import { open } from 'counterfoil';
import { MiroStorage, singleFlight, type MiroState, type MiroStorageOptions } from 'counterfoil/miro';

const options: MiroStorageOptions = { url: 'memory:', prefix: '', lease: 5, grace: 10, wait: 20, onError: (error) => void error };
const storage = new MiroStorage(options);
const miro: Miro = singleFlight(new Miro({ clientId: 'a', clientSecret: 'b', redirectUrl: 'c', storage }));

async function use(): Promise<void> {
  const state: MiroState | undefined = await storage.get(7);
  await storage.set('7', undefined);
  const fresh: MiroState | undefined = await storage.refreshOnce(7, async (old) => ({ ...old, accessToken: 'x' }), { isFresh: (one) => one.accessToken !== 'y' });
  const fence: number = await storage.withLock(7, async (lease) => ((await lease.save({ userId: 'u', accessToken: 'a' })) ? lease.fence : 0));
  const wider = new MiroStorage<MiroState & { scope?: string }>({ store: open('memory:') });
  void [state?.tokenExpiresAt?.length, fresh, fence, (await wider.get(1))?.scope, miro, storage.close()];

  // @ts-expect-error a miss is undefined, and must be thought of
  (await storage.get(7)).accessToken;
  // @ts-expect-error an instant is text
  await storage.set(7, { userId: 'u', accessToken: 'a', tokenExpiresAt: new Date() });
  // @ts-expect-error there is no such option
  new MiroStorage({ url: 'memory:', leases: 5 });
  // @ts-expect-error it needs a client
  singleFlight(storage);
}
void use;
