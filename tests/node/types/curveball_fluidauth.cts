import curveball = require('counterfoil/curveball');
import fluidauth = require('counterfoil/fluidauth');

class Noting extends fluidauth.SessionStore {
  override async create(data: fluidauth.SessionData): Promise<void> {
    await super.create(data);
  }
}

async function stores(): Promise<void> {
  const store = new curveball.SessionStore({ url: 'redis://localhost', hashKeys: true, timeout: 1 });
  await store.set(await store.newSessionId(), { user: 7 }, Math.floor(Date.now() / 1000) + 3600);
  await store.close();
  await new Noting({ url: 'memory:' }).update('x', { sessionId: 'x', userId: 7, expires: new Date() });
  // @ts-expect-error there is no such option
  new curveball.SessionStore({ clientOptions: {} });
  // @ts-expect-error there is no default export for require
  new curveball.default();
  // @ts-expect-error one of three
  new fluidauth.SessionStore({ saveEnded: 'never' });
  // @ts-expect-error options of TLS beyond a switch go into a url
  new curveball.RedisStore({ clientOptions: { socket: { ca: 'x' } } });
}
void stores;
