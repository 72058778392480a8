// Passport's password tutorial (the application todos-express-password): passport-local with PBKDF2, messages in the session, a
// CSRF token in each form. Its session store is replaced by ours; once by ours in connect-redis's place, as in older guides.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import csrf from 'csurf';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import LocalStrategy from 'passport-local';
import { CounterfoilStore } from 'counterfoil/express-session';
import { Browser, ownPrefix, PLACES, serving } from './support.mjs';

const require = createRequire(import.meta.url);
const PASSWORD = 'letmein';
const pbkdf2 = promisify(crypto.pbkdf2);
const digest = (password, salt) => pbkdf2(password, salt, 1000, 32, 'sha256');

/** The tutorial's application; its database of users and todos is two maps. */
function todos(store) {
  const [users, lists] = [new Map(), new Map()];
  const enrol = async (username, password) => {
    const salt = crypto.randomBytes(16);
    users.set(username, { id: users.size + 1, username, salt, hash: await digest(password, salt) });
    return users.get(username);
  };
  const authenticator = new passport.Passport();
  authenticator.use(new LocalStrategy(async (username, password, done) => {
    const user = users.get(username);
    const good = user && crypto.timingSafeEqual(user.hash, await digest(password, user.salt));
    return good ? done(null, user) : done(null, false, { message: 'Incorrect username or password.' });
  }));
  authenticator.serializeUser((user, done) => process.nextTick(done, null, { id: user.id, username: user.username }));
  authenticator.deserializeUser((user, done) => process.nextTick(done, null, user));

  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.use(session({ secret: 'keyboard cat', resave: false, saveUninitialized: false, store }));
  app.use(csrf());
  app.use(authenticator.authenticate('session'));
  app.use((req, res, next) => {
    res.locals.messages = req.session.messages ?? [];
    req.session.messages = [];
    res.locals.token = req.csrfToken();
    next();
  });
  const page = (res, fields) => res.json({ ...fields, messages: res.locals.messages, token: res.locals.token });
  app.get('/', (req, res) => page(res, req.user ? { user: req.user.username, todos: lists.get(req.user.id) ?? [] } : {}));
  app.post('/', (req, res) => {
    lists.set(req.user.id, [...(lists.get(req.user.id) ?? []), req.body.title]);
    res.redirect('/');
  });
  app.get('/login', (req, res) => page(res, { login: true }));
  const redirects = { successRedirect: '/', failureRedirect: '/login', failureMessage: true };
  app.post('/login/password', authenticator.authenticate('local', redirects));
  app.post('/logout', (req, res, next) => req.logout((error) => (error ? next(error) : res.redirect('/'))));
  app.post('/signup', async (req, res, next) => {
    req.login(await enrol(req.body.username, req.body.password), (error) => (error ? next(error) : res.redirect('/')));
  });
  app.use((error, req, res, next) => (res.headersSent ? next(error) : res.status(error.status ?? 500).send(error.message)));
  return app;
}

async function tutorial(store) {
  await serving(todos(store), async (origin) => {
    const browser = new Browser(origin);
    const page = async (...request) => JSON.parse((await browser.go(...request)).text);
    const { token } = await page('/login');
    const ann = { username: 'ann', password: PASSWORD };
    assert.equal((await browser.go('/signup', ann)).status, 403, 'a form without the token is refused');
    const welcome = await page('/signup', { ...ann, _csrf: token });
    assert.equal(welcome.user, 'ann');
    assert.deepEqual((await page('/', { title: 'write a store', _csrf: welcome.token })).todos, ['write a store']);
    const inside = browser.cookies.get('connect.sid');
    const out = await page('/logout', { _csrf: (await page('/')).token });
    assert.equal(out.user, undefined);
    assert.notEqual(browser.cookies.get('connect.sid'), inside);
    assert.equal(await store.length(), 1, 'sessions that were left are gone');

    const failed = await page('/login/password', { ...ann, password: 'wrong', _csrf: (await page('/login')).token });
    assert.deepEqual([failed.login, failed.messages], [true, ['Incorrect username or password.']]);
    assert.deepEqual((await page('/login')).messages, [], 'a message is shown once');
    const again = await page('/login/password', { ...ann, _csrf: (await page('/login')).token });
    assert.deepEqual([again.user, again.todos], ['ann', ['write a store']]);

    const thief = new Browser(origin);
    thief.cookies.set('connect.sid', inside);
    assert.equal(JSON.parse((await thief.go('/')).text).user, undefined, 'the session that was left is nobody\'s');
  });
}

for (const [place, url] of Object.entries(PLACES)) {
  test(`${place}: the password tutorial`, async (t) => {
    const store = new CounterfoilStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await tutorial(store);
    await store.clear();
  });

  test(`${place}: the password tutorial, the store as guides of connect-redis 3 have it`, async (t) => {
    const RedisStore = require('counterfoil/connect-redis')(session);
    const store = new RedisStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await tutorial(store);
    await store.clear();
  });
}
