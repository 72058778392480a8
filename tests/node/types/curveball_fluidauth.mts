import session, { type SessionStore as TheirStore } from '@curveball/session';
import { Application } from '@curveball/kernel';
import RedisStore, { SessionStore, RedisStore as Named, type RedisStoreOptions, type SessionValues } from 'counterfoil/curveball';
import { SessionStore as FluidAuthStore, BaseSessionStore, FluidAuthError, type SessionData } from 'counterfoil/fluidauth';
import { createClient } from 'redis';
import { open } from 'counterfoil';

const options: RedisStoreOptions = { prefix: 'mysess', clientOptions: { socket: { host: 'localhost', port: 6379 }, database: 1 } };
const stores: TheirStore[] = [new SessionStore({ url: 'memory:', saveEnded: 'error' }), new RedisStore(options), new Named({ client: createClient() })];
const app = new Application();
for (const store of stores) app.use(session({ store }));
const values: SessionValues | null = await new SessionStore().get('x');
const fluid: BaseSessionStore = new FluidAuthStore({ store: open('memory:') });
const data: SessionData | null = await new FluidAuthStore().get('x');
const code: number | undefined = new FluidAuthError({ message: 'x', code: 400 }).code;
// @ts-expect-error a miss is null, and must be thought of
data.userId;
// @ts-expect-error at most a number of seconds since 1970, no Date
await new SessionStore().set('x', {}, new Date());
void [values, fluid, data, code];
