'use strict';

// Miro's token endpoint on this machine, for its real client: refresh tokens are used once, and every refresh is counted. As a program of its own: one of several
// processes whose clients share a store.

const http = require('node:http');
const fetch = require('node-fetch');

const real = fetch.default;

/** The client has the address of the endpoint in its code: what it fetches is sent here. */
function redirect(origin) { fetch.default = (url, options) => real(url.replace('https://api.miro.com', origin), options); }

/** `answer(count)`: what becomes of a refresh; by default new tokens after a moment. */
async function endpoint({ life = 3600, answer = () => undefined } = {}) {
  const seen = { refreshes: 0, exchanges: 0, refused: 0, revoked: 0 };
  let current = 'refresh-0';
  let number = 0;
  const server = http.createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost');
    const reply = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (pathname === '/v1/oauth/revoke') {
      seen.revoked++;
      return reply(204, undefined);
    }
    if (pathname !== '/v1/oauth/token') return reply(404, {});
    if (searchParams.get('grant_type') === 'refresh_token') {
      seen.refreshes++;
      if (searchParams.get('refresh_token') !== current) {
        seen.refused++;
        return reply(400, { type: 'error' });
      }
      if ((await answer(seen.refreshes, reply)) === false) return undefined; // it has been answered, or never will be
      await new Promise((resolve) => setTimeout(resolve, 100));
    } else seen.exchanges++;
    current = `refresh-${++number}`;
    return reply(200, { access_token: `access-${number}`, refresh_token: current, expires_in: life, user_id: 'miro-user' });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    seen,
    origin: `http://127.0.0.1:${server.address().port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const APPLICATION = { clientId: 'id', clientSecret: 'secret', redirectUrl: 'http://localhost/' };
const EXPIRED = { userId: 'miro-user', accessToken: 'access-0', refreshToken: 'refresh-0', tokenExpiresAt: '2020-01-01T00:00:00.000Z' };

module.exports = { redirect, endpoint, APPLICATION, EXPIRED };

if (require.main === module) {
  const { Miro } = require('@mirohq/miro-api');
  const { MiroStorage, singleFlight } = require('counterfoil/miro');
  const { url, prefix, origin, lease, calls } = JSON.parse(process.argv[2]);
  redirect(origin);
  const storage = new MiroStorage({ url, prefix, lease });
  process.once('message', async () => {
    // Each request of an application has a client of its own, or all share one: both.
    const shared = singleFlight(new Miro({ ...APPLICATION, storage }));
    const clients = Array.from({ length: calls }, (_, index) => (index % 2 ? shared : singleFlight(new Miro({ ...APPLICATION, storage }))));
    const tokens = await Promise.all(clients.map((miro, index) => miro.getAccessToken(index % 3 ? 7 : '7').catch((error) => `${error.name} ${error.message}`)));
    process.send(tokens, () => process.disconnect());
    await storage.close();
  });
  storage.get(7).then(() => process.send('ready'));
}
