// What the published examples are run with: the places, a server on a port of its own, and a browser that keeps cookies and
// sends forms.

import http from 'node:http';
import redis from '../../node/support/redis.cjs';
import places from '../../node/support/places.cjs';

export const { ownPrefix } = redis;
export const redisUrl = () => redis.redisVariable('');

/** Where the sessions are. `url()` names a new place each time; on a server only a prefix keeps tests apart. */
export const PLACES = places.URLS;

/** Listens with an application of Express or anything else that takes requests, for as long as `visit(origin)` lasts. */
export async function serving(app, visit) {
  const server = http.createServer(app);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await visit(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A browser as far as logins need one: cookies, forms, and redirects within the origin. At another it stops: `location`. */
export class Browser {
  cookies = new Map();

  constructor(origin) { this.origin = origin; }

  #keep(response) {
    for (const line of response.headers.getSetCookie()) {
      const [pair, ...attributes] = line.split(/; */);
      const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
      const said = (what) => attributes.find((one) => one.toLowerCase().startsWith(`${what}=`))?.slice(what.length + 1);
      const over = said('max-age') !== undefined ? Number(said('max-age')) <= 0 : Date.parse(said('expires') ?? '') <= Date.now();
      if (over || value === '') this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
  }

  async go(path, form) {
    let [url, body] = [new URL(path, this.origin), form && new URLSearchParams(form)];
    for (let hops = 0; hops < 10; hops++) {
      const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const headers = cookie ? { cookie } : {};
      const response = await fetch(url, { method: body ? 'POST' : 'GET', body, headers, redirect: 'manual' });
      this.#keep(response);
      const location = response.headers.get('location');
      if (location === null) return { status: response.status, path: url.pathname, text: await response.text() };
      await response.arrayBuffer();
      [url, body] = [new URL(location, url), undefined];
      if (url.origin !== this.origin) return { status: response.status, path, location: url };
    }
    throw new Error(`${path}: it is redirected for ever`);
  }
}
