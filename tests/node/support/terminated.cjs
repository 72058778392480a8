'use strict';

// A worker that is busy in every way at once, so that worker.terminate() meets each of them: see workers.test.cjs.

const { workerData } = require('node:worker_threads');
const { open, Storage, AccountsStorage, SessionStorage } = require('counterfoil');

const map = new Map();
const turn = () => new Promise((resolve) => setImmediate(resolve));
const promises = {
  singleProcess: true, keepsTtl: true,
  get: async (key) => { await turn(); return map.get(key); },
  set: async (key, value) => { await turn(); map.set(key, value); },
  delete: async (key) => map.delete(key),
  scan: async () => [...map.keys()],
  close: () => turn(),
};
const values = { get: (key) => map.get(key), set: (key, value) => map.set(key, value), delete: (key) => map.delete(key), pop: (key) => { for (let i = 0; i < 100; i++) key += i; return key; } };
const never = { get: () => new Promise(() => {}), set: () => new Promise(() => {}), delete() { throw new Error('x'); } };

const shared = open('memory:terminated');
const native = open('memory:?max_entries=100');
const stores = [open(promises, { timeout: 0.01 }), open(values), shared, native];
const hanging = open(never, { timeout: workerData.timeout });
const storage = new Storage(stores[0]);
const accounts = stores.map((store) => new AccountsStorage(store)), sessions = new SessionStorage(shared);
const hooks = new AccountsStorage({ findUserById: () => turn(), listSocialAccounts: async () => { await turn(); return [{ id: 1, userId: 2, provider: 'p', providerUserId: 'x' }]; } }, { timeout: 0.01 });
const ignore = () => {};

const at = new Date();

async function busy(store, n) {
  for (let i = 0; ; i++) {
    const key = `k${n}-${i % 50}`;
    store.set(key, `value ${i}`, { ttl: 100 }).catch(ignore);
    store.pop(key).catch(ignore);
    store.set(key, 'x'.repeat(i % 5000), { ifAbsent: true }).catch(ignore);
    store.incr(`n${n}`).catch(ignore);
    storage.set(i % 10, { i }).catch(ignore);
    accounts[n].findOrCreateBySocialAccount({ provider: 'p', providerUserId: key, accessToken: 'x'.repeat(i % 300), user: { email: `${key}@example.org` } }).catch(ignore);
    if (i % 7 === 0) sessions.create({ tokenHash: `${n}-${i}`, userId: key, createdAt: at, updatedAt: at, expiresAt: at }).catch(ignore);
    hooks.findUserById(key).catch(ignore);
    hooks.listSocialAccounts({ userId: key }).catch(ignore);
    hanging.get(key).catch(ignore);
    hanging.delete(key).catch(ignore);
    await store.get(key).catch(ignore);
    if (i % 20 === 0) await store.count().catch(ignore);
    if (i % 50 === 0) {
      const closing = open(promises, { timeout: 0.01 });
      closing.get('a').catch(ignore);
      closing.close().catch(ignore);
      await turn();
    }
    if (i % 10 === 0) await turn();
  }
}
for (const [n, store] of stores.entries()) busy(store, n);
