// The conformance kit as its users' compilers see it.
import session = require('express-session');
import counterfoil = require('counterfoil');
import testing = require('counterfoil/testing');
import express = require('counterfoil/express-session');
import curveball = require('counterfoil/curveball');
import fluidauth = require('counterfoil/fluidauth');
import miro = require('counterfoil/miro');

class Mine extends counterfoil.Backend {
  data = new Map<string, string>();
  get(key: string) {
    return this.data.get(key);
  }
  set(key: string, value: string) {
    this.data.set(key, value);
  }
  delete(key: string) {
    return this.data.delete(key);
  }
  stop() {}
}

testing.testBackend('mine', () => new Mine());
testing.testBackend('mine', {
  make: async () => new Mine(),
  cleanup: (mine) => mine.stop(),
  fault: (mine) => () => mine.stop(),
  timeout: 2,
  except: { 'ttl.exact': 'seconds' },
});
testing.testExpressStore('ours', {
  make: () => new express.CounterfoilStore(),
  cleanup: (store) => store.close(),
  also: ['save.no_lost_update'],
});
testing.testExpressStore('theirs', () => new session.MemoryStore());
testing.testCurveballStore('ours', () => new curveball.SessionStore());
testing.testBackend('staged', { make: () => new Mine(), clock: new testing.Stage() });
testing.testFluidAuthStore('ours', () => new fluidauth.SessionStore());
testing.testMiroStorage('ours', {
  make: () => new miro.MiroStorage({ url: 'memory:' }),
  clock: { now: () => new Date(), advance: async () => {} },
});
testing.testHooks('hooks', () => ({ findUserById: (id: string) => ({ id }) }));

async function main(): Promise<void> {
  const report: testing.Result[] = await testing.check('backend', () => new Mine());
  await testing.check('express-session', { make: () => new session.MemoryStore(), cleanup: (store) => store.clear() });
  for (const result of report) if (result.outcome === 'failed') console.log(testing.explain(result), result.rule.toUpperCase());
  const rule: testing.Rule | undefined = testing.rules.backend[0];
  console.log(rule?.id, rule?.source);
  // @ts-expect-error: there is no such kind
  await testing.check('redis', () => new Mine());
  // @ts-expect-error: a backend is no store of express-session
  await testing.check('express-session', () => new Mine());
  // @ts-expect-error: a definition needs make
  testing.testBackend('mine', { timeout: 2 });
  // @ts-expect-error: it is called something
  testing.testBackend(() => new Mine());
}
void main();
