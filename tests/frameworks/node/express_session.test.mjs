// The examples of express-session's README, with our store: page views for a browser, and a login that begins a new session.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import escapeHtml from 'escape-html';
import express from 'express';
import session from 'express-session';
import parseurl from 'parseurl';
import { CounterfoilStore } from 'counterfoil/express-session';
import { Browser, ownPrefix, PLACES, serving } from './support.mjs';

function viewCounter(store) {
  const app = express();
  app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: true }));
  app.use((req, res, next) => {
    req.session.views ??= {};
    const page = parseurl(req).pathname;
    req.session.views[page] = (req.session.views[page] ?? 0) + 1;
    next();
  });
  for (const page of ['/foo', '/bar']) app.get(page, (req, res) => res.send(`viewed ${req.session.views[page]} times`));
  return app;
}

function userLogin(store) {
  const app = express();
  app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: true }));
  const ifLoggedIn = (req, res, next) => next(req.session.user ? undefined : 'route');
  app.get('/', ifLoggedIn, (req, res) => res.send(`hello, ${escapeHtml(req.session.user)}`));
  app.get('/', (req, res) => res.send('please log in'));
  app.post('/login', express.urlencoded({ extended: false }), (req, res, next) => {
    req.session.regenerate((failed) => {
      if (failed) return next(failed);
      req.session.user = req.body.user;
      req.session.save((error) => (error ? next(error) : res.redirect('/')));
    });
  });
  app.get('/logout', (req, res, next) => {
    req.session.user = null;
    req.session.save((failed) => {
      if (failed) return next(failed);
      req.session.regenerate((error) => (error ? next(error) : res.redirect('/')));
    });
  });
  return app;
}

for (const [place, url] of Object.entries(PLACES)) {
  test(`${place}: the view counter`, async (t) => {
    const store = new CounterfoilStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await serving(viewCounter(store), async (origin) => {
      const [ann, bob] = [new Browser(origin), new Browser(origin)];
      const visits = [[ann, '/foo', 1], [ann, '/foo', 2], [ann, '/bar', 1], [bob, '/foo', 1], [ann, '/foo', 3], [bob, '/bar', 1]];
      for (const [browser, page, times] of visits) {
        assert.equal((await browser.go(page)).text, `viewed ${times} times`);
      }
      assert.equal(await store.length(), 2);
      bob.cookies.clear();
      assert.equal((await bob.go('/foo')).text, 'viewed 1 times');
    });
    await store.clear();
  });

  test(`${place}: the user login`, async (t) => {
    const store = new CounterfoilStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await serving(userLogin(store), async (origin) => {
      const browser = new Browser(origin);
      assert.equal((await browser.go('/')).text, 'please log in');
      const before = browser.cookies.get('connect.sid');
      assert.equal((await browser.go('/login', { user: '<Ann>', pass: 'x' })).text, 'hello, &lt;Ann&gt;');
      const during = browser.cookies.get('connect.sid');
      assert.notEqual(during, before, 'a login begins a new session');
      assert.equal((await browser.go('/logout')).text, 'please log in');
      assert.equal(await store.length(), 1, 'sessions that were left are gone');
      for (const old of [before, during]) {
        browser.cookies.set('connect.sid', old);
        assert.equal((await browser.go('/')).text, 'please log in', 'an old id is nobody');
      }
    });
    await store.clear();
  });
}
