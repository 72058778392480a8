// A program of somebody who has installed the package: it uses every way in. Compiled under tsc --strict, then run.
import session from 'express-session';
import { AccountsStorage, Backend, CounterfoilError, open, SecondaryStorage, SessionStorage, Storage, Store } from 'counterfoil';
import type { SetOptions, User } from 'counterfoil';
import connectRedis, { RedisStore, type RedisStoreOptions } from 'counterfoil/connect-redis';
import CurveballRedisStore, { SessionStore as CurveballStore, type SessionValues } from 'counterfoil/curveball';
import { CounterfoilStore, type CounterfoilStoreOptions } from 'counterfoil/express-session';
import { BaseSessionStore, FluidAuthError, SessionStore as FluidAuthStore, type SessionData } from 'counterfoil/fluidauth';
import { MiroStorage, singleFlight, type MiroState } from 'counterfoil/miro';
import { check, Stage, type Kind, type Result } from 'counterfoil/testing';

function same<Value extends string | number | boolean | undefined>(seen: Value, wanted: Value): void {
  if (seen !== wanted) throw new Error(`${seen}, not ${wanted}`);
}

const stage = new Stage();
const store: Store = open('memory:', { prefix: 'app:', stage });
const life: SetOptions = { ttl: 60 };
same(await store.set('a', 'b', life), true);
const found: string | undefined = await store.pop('a');
same(found, 'b');
await new Storage(store).set(7, { any: ['thing'] });
await new SecondaryStorage(store).set('code', 'x', 60);
const ann: User = await new AccountsStorage(store).createUser({ email: 'ann@example.org' });
const at = stage.now();
const times = { createdAt: at, updatedAt: at, expiresAt: new Date(at.getTime() + 1000) };
const one = await new SessionStorage(store).create({ tokenHash: 'h', userId: ann.id, ...times });
same(one.userId, ann.id);
stage.advance(61);
same(await store.get('code'), undefined);
same(Backend.KEEP === undefined, false);
await store.set('a', 1 as never).catch((error: unknown) => same(error instanceof CounterfoilError && error.code, 'INVALID'));

const options: CounterfoilStoreOptions = { store, ttl: 60 };
const sessions: session.Store = new CounterfoilStore(options);
const cookie = new session.Cookie();
await new CounterfoilStore(options).set('sid', { cookie });
same(await new CounterfoilStore(options).length(), 1);
// @ts-expect-error what it has of express-session's Store has types, wherever the package manager has put those
const wrong = (): unknown => new CounterfoilStore(options).createSession(5);
same(typeof wrong, 'function');
const likeRedis: RedisStoreOptions = { url: 'memory:' };
const three: session.Store[] = [new RedisStore(likeRedis), new connectRedis(likeRedis), new (connectRedis(session))(likeRedis)];
for (const each of [sessions, ...three]) same(each instanceof session.Store, true);

const curveball = new CurveballStore({ url: 'memory:' });
await curveball.set('id', { user: 7 }, Math.floor(Date.now() / 1000) + 60);
const values: SessionValues | null = await curveball.get('id');
same(values?.['user'] as number, 7);
same(new CurveballRedisStore({ url: 'memory:' }) instanceof CurveballStore, true);

const fluid: BaseSessionStore = new FluidAuthStore({ url: 'memory:' });
const data: SessionData | null = await new FluidAuthStore().get('id');
same(fluid instanceof BaseSessionStore && data === null, true);
same(new FluidAuthError({ message: 'x', code: 400 }).code, 400);

const miro = new MiroStorage({ store });
const state: MiroState = { userId: 'u', accessToken: 'a' };
await miro.set(7, state);
same((await miro.get('7'))?.accessToken, 'a');
same(typeof singleFlight, 'function');

const kind: Kind = 'backend';
const kit = (): Promise<Result[]> => check(kind, () => ({ get: () => null, set() {}, delete: () => false }));
same(typeof kit, 'function');
await store.close();
console.log('every.mts');
