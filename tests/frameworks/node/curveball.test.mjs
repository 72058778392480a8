// The steps of the READMEs of @curveball/session and @curveball/session-redis, over HTTP: a session begins, is kept under a
// cookie of another name, gets a new id, guards a form, and ends.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Application } from '@curveball/core';
import session from '@curveball/session';
import { createClient } from 'redis';
import { RedisClient } from 'redis-3';
import RedisStoreByDefault, { RedisStore, SessionStore } from 'counterfoil/curveball';
import { Browser, ownPrefix, PLACES, redisUrl, serving } from './support.mjs';

async function walk(options, cookie = 'CB') {
  const app = new Application();
  app.use(async (ctx, next) => { // Curveball would do the same, and print the error
    try {
      await next();
    } catch (error) {
      ctx.response.status = error.httpStatus ?? 500;
      ctx.response.body = String(error.detail ?? error);
    }
  });
  app.use(session(options));
  app.use(async (ctx, next) => { // in the place of @curveball/bodyparser
    if (ctx.method === 'POST') ctx.request.body = Object.fromEntries(new URLSearchParams(await ctx.request.rawBody('utf-8')));
    return next();
  });
  app.use(async (ctx) => {
    const pages = {
      '/begin': () => { ctx.session = { userId: 5 }; },
      '/again': () => { ctx.sessionId = null; },
      '/form': () => ctx.getCsrf(),
      '/form-submit': () => ctx.validateCsrf(),
      '/end': () => { ctx.session = null; },
    };
    const body = (await pages[ctx.path]?.()) ?? ctx.session?.userId ?? 'nobody';
    ctx.response.body = String(body);
  });
  await serving(app.callback(), async (origin) => {
    const browser = new Browser(origin);
    const says = async (...request) => (await browser.go(...request)).text;
    assert.equal(await says('/'), 'nobody');
    assert.equal(browser.cookies.size, 0, 'it is lazy');
    assert.equal(await says('/begin'), '5');
    const first = browser.cookies.get(cookie);
    assert.match(decodeURIComponent(first), /^[\w+/]{43}=$/);
    assert.equal(await says('/'), '5');
    await says('/again');
    const second = browser.cookies.get(cookie);
    assert.notEqual(second, first, 'a new id');
    assert.equal(await says('/'), '5', 'with the same data');
    const token = await says('/form');
    const refused = await browser.go('/form-submit', { 'csrf-token': 'wrong' });
    assert.equal(refused.status, 403, refused.text);
    assert.equal((await browser.go('/form-submit', { 'csrf-token': token })).status, 200);
    await says('/end');
    for (const old of [first, second]) {
      browser.cookies.set(cookie, old);
      assert.equal(await says('/'), 'nobody');
    }
  });
}

const NAMED = { cookieName: 'MY_SESSION', expiry: 7200 };

for (const [place, url] of Object.entries(PLACES)) {
  test(`${place}: the session middleware`, async (t) => {
    const store = new SessionStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await walk({ store });
    await walk({ store, ...NAMED, cookieOptions: { secure: true, path: '/', sameSite: true } }, NAMED.cookieName);
  });

  test(`${place}: session-redis, with a url`, async (t) => {
    const store = new RedisStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    await walk({ store });
  });
}

test('session-redis: clientOptions, with a url or with a host and a port', async (t) => {
  const { hostname: host, port, pathname } = new URL(redisUrl());
  for (const clientOptions of [{ url: redisUrl() }, { host, port: Number(port), db: Number(pathname.slice(1) || 0) }]) {
    const store = new RedisStoreByDefault({ prefix: 'mysess', clientOptions });
    t.after(() => store.close());
    await walk({ store, ...NAMED }, NAMED.cookieName);
  }
});

test('session-redis: a client that is used elsewhere, too, as the README has it and as older documentation has', async (t) => {
  const client = await createClient({ url: redisUrl() }).connect();
  t.after(() => client.close());
  const { hostname: host, port, pathname } = new URL(redisUrl());
  const older = new RedisClient({ host, port: Number(port), db: Number(pathname.slice(1) || 0) });
  t.after(() => older.quit());
  for (const given of [client, older]) {
    await walk({ store: new RedisStoreByDefault({ prefix: 'mysess', client: given }), ...NAMED }, NAMED.cookieName);
  }
  assert.equal(await client.ping(), 'PONG');
  await new Promise((resolve, reject) => older.ping((error) => (error ? reject(error) : resolve())));
});
