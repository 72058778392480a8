'use strict';

// A worker of the campaign in JavaScript: as worker.py.

const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const { open, AccountsStorage, SessionStorage } = require('counterfoil');

const PATIENCE = 60_000;
const store = open(process.argv[2], { prefix: 'chaos:', timeout: 3 });
const accounts = new AccountsStorage(store);
const sessions = new SessionStorage(store);
let retries = 0;
let wrong = [];

/** The answer, however often it takes: what was not applied is asked for again, what has a receipt by it, and what may be repeated. Else 'unknown'. */
async function patiently(call, repeatable = false) {
  let receipt;
  for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(50)) {
    try {
      return await call(receipt);
    } catch (error) {
      if (error.code === 'EXISTS') return 'there';
      if (!['UNAVAILABLE', 'TIMEOUT', 'BUSY'].includes(error.code)) {
        wrong.push(`${error.code}: ${error.message}`);
        return 'unknown';
      }
      retries++;
      if (error.outcome === 'not_applied' || repeatable) continue;
      receipt = error.receipt ?? receipt;
      if (receipt === undefined) return 'unknown';
    }
  }
  return 'unknown';
}

const all = (things, one) => Promise.all(things.map(one));
const valueOf = (code) => `value of ${code}`;

const orders = {
  async issue({ codes }) {
    const done = await all(codes, (code) => patiently(() => store.set(code, valueOf(code), { ttl: 3600 }), true));
    return { set: codes.filter((_, i) => done[i] !== 'unknown') };
  },
  async pop({ codes }) {
    const told = await all(codes, (code) => patiently((receipt) => store.pop(code, { receipt })));
    for (const [i, code] of codes.entries()) {
      if (![undefined, 'unknown', valueOf(code)].includes(told[i])) wrong.push(`the value of another code for ${code}`);
    }
    return { won: codes.filter((code, i) => told[i] === valueOf(code)), unknown: codes.filter((_, i) => told[i] === 'unknown') };
  },
  async incr({ key, times }) {
    const told = await all(Array(times).fill(key), (one) => patiently((receipt) => store.incr(one, 1, { receipt })));
    return { numbers: told.filter((number) => number !== 'unknown'), unknown: told.filter((number) => number === 'unknown').length };
  },
  async sign_up({ people }) {
    const ids = await all(people, async (person) => {
      const found = await patiently(() => accounts.findOrCreateBySocialAccount({
        provider: 'chaos', providerUserId: person, user: { email: `${person}@example.org` },
      }), true);
      return found === 'unknown' ? found : found.user.id;
    });
    return { ids: Object.fromEntries(people.map((person, i) => [person, ids[i]])) };
  },
  async log_out({ user, tokens }) {
    const now = new Date();
    const fields = { userId: user, createdAt: now, updatedAt: now, expiresAt: new Date(now.getTime() + 3600_000) };
    for (const tokenHash of tokens) await patiently(() => sessions.create({ ...fields, tokenHash }), true);
    return { revoked: (await patiently(() => sessions.revokeAllForUser(user, { revokedAt: now }), true)) !== 'unknown' };
  },
  async alive({ tokens }) {
    const told = await all(tokens, (tokenHash) => patiently(() => sessions.get({ tokenHash }), true));
    return { alive: tokens.filter((_, i) => told[i] !== undefined && told[i] !== 'unknown') };
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: what, ...rest } = JSON.parse(line);
    const answer = await orders[what](rest);
    process.stdout.write(`${JSON.stringify({ ...answer, retries, wrong })}\n`);
    retries = 0;
    wrong = [];
  }
  await store.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
