'use strict';

// Sessions of express-session without an application, and an application with a browser of one cookie.

const http = require('node:http');
const session = require('express-session');
const { CounterfoilStore } = require('counterfoil/express-session');

/** What an express-session store is asked, as a promise. */
const load = (store, sid) => new Promise((resolve, reject) => store.load(sid, (error, found) => (error ? reject(error) : resolve(found))));
const save = (one) => new Promise((resolve, reject) => one.save((error) => (error ? reject(error) : resolve())));

/** A store that makes sessions without an application, as the middleware would. */
function withSessions(options) {
  const store = new CounterfoilStore(options);
  session({ store, secret: 'x', resave: false, saveUninitialized: false }); // puts generate() on the store
  return store;
}

/** A new session, not yet saved. */
function generated(store, cookie = {}) {
  const request = { sessionStore: store, headers: {}, connection: {} };
  store.generate(request);
  Object.assign(request.session.cookie, cookie);
  return request.session;
}

/** A browser that keeps one cookie, whatever it is sent, until told otherwise. */
async function browse(app, visit) {
  const server = http.createServer(app);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const browser = { cookie: undefined };
  const go = async (where, { keep = false, form } = {}) => {
    const body = form && new URLSearchParams(form);
    const headers = browser.cookie ? { cookie: browser.cookie } : {};
    const response = await fetch(`http://127.0.0.1:${server.address().port}${where}`, { method: body ? 'POST' : 'GET', body, headers });
    const set = response.headers.getSetCookie().find((one) => one.startsWith('connect.sid='));
    if (keep && set) browser.cookie = set.split(';')[0];
    return { status: response.status, ...(await response.json()) };
  };
  try {
    await visit(go, browser);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

module.exports = { load, save, withSessions, generated, browse };
