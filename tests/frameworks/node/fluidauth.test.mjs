// FluidAuth's documentation: a Session with a store, and a store of one's own that derives from BaseSessionStore. Its Session is
// tests/node/support/fluidauth.cjs where its package is not there: that is not on the registry any more.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import express from 'express';
import { BaseSessionStore, SessionStore } from 'counterfoil/fluidauth';
import fluidauth from '../../node/support/fluidauth.cjs';
import { Browser, ownPrefix, PLACES, serving } from './support.mjs';

const { Session } = fluidauth;

/** A login that knows everybody by name, and a page for those who are in. */
async function walk(store) {
  const session = new Session({ secret: 'keyboard cat keyboard cat keyboard cat', store });
  session.serializeUser = (user) => user.id;
  session.deserializeUser = (id) => ({ id });
  const app = express();
  app.use((req, res, next) => {
    const cookies = (req.headers.cookie ?? '').split('; ').filter(Boolean);
    req.cookies = Object.fromEntries(cookies.map((one) => one.split('=').map(decodeURIComponent)));
    next();
  });
  app.use((req, res, next) => session.manageSession(req, res, next));
  app.use((req, res, next) => setImmediate(next)); // an old cookie goes before the answer: see counterfoil/fluidauth
  app.post('/login', express.urlencoded({ extended: false }), async (req, res) => {
    await req.session.create({ id: req.body.user });
    res.redirect('/');
  });
  app.get('/logout', async (req, res) => {
    await req.session.destroy();
    res.redirect('/');
  });
  app.get('/', (req, res) => res.send(req.user ? `hello ${req.user.id}` : 'please log in'));
  await serving(app, async (origin) => {
    const browser = new Browser(origin);
    assert.equal((await browser.go('/')).text, 'please log in');
    assert.equal((await browser.go('/login', { user: 'ann' })).text, 'hello ann');
    const cookies = new Map(browser.cookies);
    assert.equal((await browser.go('/')).text, 'hello ann');
    assert.equal((await browser.go('/logout')).text, 'please log in');
    browser.cookies = cookies;
    assert.equal((await browser.go('/')).text, 'please log in');
    assert.equal(browser.cookies.size, 0, 'the old cookie is removed');
  });
  await store.clean();
}

for (const [place, url] of Object.entries(PLACES)) {
  test(`${place}: a session store`, async (t) => {
    const store = new SessionStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await walk(store);
  });

  test(`${place}: a custom store that derives from ours`, async (t) => {
    const calls = [];
    class CustomSessionStore extends SessionStore {
      async create(data) {
        calls.push('create');
        return super.create(data);
      }
    }
    const store = new CustomSessionStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    assert(store instanceof BaseSessionStore);
    await walk(store);
    assert.deepEqual(calls, ['create']);
  });
}

test('the custom store of the documentation, from our BaseSessionStore', async () => {
  class CustomSessionStore extends BaseSessionStore {
    db = new Map();
    create(data) { this.db.set(data.sessionId, data); }
    async update(id, data) { if (this.db.has(id)) this.db.set(id, data); }
    async delete(id) { this.db.delete(id); }
    async get(id) { return this.db.get(id) ?? null; }
    async clean() { for (const [id, { expires }] of this.db) if (new Date(expires) < new Date()) this.db.delete(id); }
  }
  await walk(new CustomSessionStore());
});
