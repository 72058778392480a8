// The ways in as TypeScript saw packages before it knew of "exports".
import session from 'express-session';
import { open, Store } from 'counterfoil';
import connectRedis, { RedisStore } from 'counterfoil/connect-redis';
import { RedisStore as CurveballRedisStore, SessionStore } from 'counterfoil/curveball';
import { CounterfoilStore } from 'counterfoil/express-session';
import { SessionStore as FluidAuthStore } from 'counterfoil/fluidauth';
import { MiroStorage, MiroState } from 'counterfoil/miro';
import { Stage } from 'counterfoil/testing';

async function main(): Promise<void> {
  const store: Store = open('memory:', { stage: new Stage() });
  const redis: session.Store[] = [new RedisStore({ url: 'memory:' }), new connectRedis({ url: 'memory:' })];
  const stores = [new CounterfoilStore({ store }), ...redis];
  if (!stores.every((each) => each instanceof session.Store)) throw new Error('they are no stores of express-session');
  const state: MiroState | undefined = await new MiroStorage({ store }).get(7);
  const missing = [await new SessionStore({ store }).get('id'), await new FluidAuthStore({ store }).get('id'), state ?? null];
  if (missing.some((each) => each !== null)) throw new Error('something is there');
  await new CurveballRedisStore({ url: 'memory:' }).close();
  await store.close();
  console.log('oldest.ts');
}
void main();
