// Miro's Node client as its README (Fastify, a random user id in a cookie) and its storage guide (a storage of one's own; the
// session of Express as the storage) show it, with our storage. What the client fetches from api.miro.com a server on this
// machine answers.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import http from 'node:http';
import cookies from '@fastify/cookie';
import express from 'express';
import session from 'express-session';
import Fastify from 'fastify';
import fetched from 'node-fetch';
import { Miro } from '@mirohq/miro-api';
import { CounterfoilStore } from 'counterfoil/express-session';
import { MiroStorage, singleFlight } from 'counterfoil/miro';
import { Browser, ownPrefix, PLACES, serving } from './support.mjs';

const APPLICATION = { clientId: 'id', clientSecret: 'secret', redirectUrl: 'http://127.0.0.1/auth/miro/callback' };
// The client's own fetch, whatever it was before: the address is in its code.
const direct = fetched.default;

/** Miro: exchanges codes and refresh tokens, each once, and lists the boards for whoever has a token of its. */
async function withMiro(visit) {
  const [granted, spent, seen] = [new Set(), new Set(), { refreshes: 0 }];
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://miro');
    const reply = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (pathname === '/v1/oauth/token') {
      const proof = searchParams.get('code') ?? searchParams.get('refresh_token');
      if (proof === null || spent.has(proof)) return reply(400, { type: 'error' });
      spent.add(proof);
      if (searchParams.has('refresh_token')) seen.refreshes++;
      granted.add(`access-${proof}`);
      // A life of 120 seconds is none for the client, which takes two minutes off: it refreshes before its next call.
      const life = proof.startsWith('brief') ? 120 : 3600;
      const tokens = { access_token: `access-${proof}`, refresh_token: `next-${proof}`, token_type: 'bearer' };
      return reply(200, { ...tokens, expires_in: life, user_id: 'u', scope: 'boards:read' });
    }
    if (!granted.has((request.headers.authorization ?? '').replace('Bearer ', ''))) return reply(401, {});
    const boards = [{ id: 'b1', name: 'Roadmap', type: 'board' }];
    return reply(200, { data: boards, total: 1, size: 1, offset: 0, limit: 50, links: {}, type: 'list' });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  fetched.default = (url, options) => direct(String(url).replace('https://api.miro.com', origin), options);
  try {
    await visit(seen);
  } finally {
    fetched.default = direct;
    server.closeAllConnections();
    server.close();
  }
}

/** What a user does, whatever the framework: is sent to Miro, comes back with a code, sees a board. */
async function authorizes(browser, code) {
  const sent = await browser.go('/');
  assert.equal(sent.location?.host, 'miro.com', JSON.stringify(sent));
  const back = await browser.go(`/auth/miro/callback?code=${code}`);
  assert.deepEqual([back.path, JSON.parse(back.text).name], ['/', 'Roadmap']);
  assert.equal(JSON.parse((await browser.go('/')).text).name, 'Roadmap');
}

const first = async (boards) => {
  for await (const board of boards) return { name: board.name };
  return null;
};

for (const [place, url] of Object.entries(PLACES)) {
  test(`${place}: the README's application`, (t) => withMiro(async (seen) => {
    const storage = new MiroStorage({ url: url(), prefix: ownPrefix() });
    t.after(() => storage.close());
    const miro = singleFlight(new Miro({ ...APPLICATION, storage }));
    const app = Fastify();
    app.register(cookies);
    app.addHook('preHandler', (request, reply, next) => {
      if (!request.cookies.userId) {
        const userId = Math.random();
        reply.setCookie('userId', userId);
        request.cookies.userId = userId;
      }
      next();
    });
    app.get('/auth/miro/callback', async (request, reply) => {
      await miro.exchangeCodeForAccessToken(request.cookies.userId, request.query.code);
      return reply.redirect('/');
    });
    app.get('/', async (request, reply) => {
      if (!(await miro.isAuthorized(request.cookies.userId))) return reply.redirect(miro.getAuthUrl());
      return first(miro.as(request.cookies.userId).getAllBoards());
    });
    try {
      const origin = await app.listen({ port: 0, host: '127.0.0.1' });
      const [ann, bob] = [new Browser(origin), new Browser(origin)];
      await authorizes(ann, 'code-ann');
      assert.equal((await bob.go('/')).location?.host, 'miro.com', 'another browser is another user');
      await authorizes(bob, 'brief-bob');
      assert.equal(seen.refreshes, 1);
    } finally {
      await app.close();
    }
  }));

  test(`${place}: the guide's session of Express as the storage`, (t) => withMiro(async () => {
    const store = new CounterfoilStore({ url: url(), prefix: ownPrefix() });
    t.after(() => store.close());
    const app = express();
    app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: true }));
    app.use((req, res, next) => {
      req.miro = new Miro({
        ...APPLICATION,
        storage: { get: () => req.session.state, set(_userId, state) { req.session.state = state; } },
      });
      next();
    });
    app.get('/auth/miro/callback', async (req, res) => {
      await req.miro.exchangeCodeForAccessToken(req.session.id, req.query.code);
      res.redirect('/');
    });
    app.get('/', async (req, res) => {
      if (!(await req.miro.isAuthorized(req.session.id))) return res.redirect(req.miro.getAuthUrl());
      return res.json(await first(req.miro.as(req.session.id).getAllBoards()));
    });
    await serving(app, (origin) => authorizes(new Browser(origin), 'code-session'));
    await store.clear();
  }));
}
