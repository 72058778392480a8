// The same ways in, by require.
import session = require('express-session');
import counterfoil = require('counterfoil');
import connectRedis = require('counterfoil/connect-redis');
import curveball = require('counterfoil/curveball');
import express = require('counterfoil/express-session');
import fluidauth = require('counterfoil/fluidauth');
import miro = require('counterfoil/miro');
import testing = require('counterfoil/testing');

async function main(): Promise<void> {
  const store: counterfoil.Store = counterfoil.open('memory:', { stage: new testing.Stage() });
  const stores: session.Store[] = [
    new express.CounterfoilStore({ store }),
    new connectRedis.RedisStore({ url: 'memory:' }),
    new connectRedis.default({ url: 'memory:' }),
    new (connectRedis(session))({ url: 'memory:' }),
  ];
  if (!stores.every((each) => each instanceof session.Store)) throw new Error('they are no stores of express-session');
  const kept: curveball.SessionValues | null = await new curveball.SessionStore({ store }).get('id');
  const redis: curveball.SessionStore = new curveball.RedisStore({ url: 'memory:' });
  const fluid: fluidauth.SessionData | null = await new fluidauth.SessionStore({ store }).get('id');
  const state: miro.MiroState | undefined = await new miro.MiroStorage({ store }).get(7);
  const rules: readonly testing.Rule[] = testing.rules.backend;
  if (kept !== null || fluid !== null || state !== undefined || rules.length === 0) throw new Error('something is there');
  await redis.close();
  await store.close();
  console.log('every.cts');
}
void main();
