'use strict';

// A worker of the campaign in JavaScript: as worker.py.

const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const { open, AccountsStorage, SessionStorage, CounterfoilError } = require('counterfoil');

const TTL = 600;
const PATIENCE = 60_000;
const RECEIPT = 10_000; // what arrives later than a receipt lives finds none
const SECRET = /value of|code-|lock-|person-|token-|once-|campaign/;
const { timeout } = JSON.parse(process.argv[3]);
const store = open(process.argv[2], { prefix: 'chaos:', timeout });
const accounts = new AccountsStorage(store);
const sessions = new SessionStorage(store);
let seen;
let load;

function begin() {
  seen = { calls: 0, retries: 0, late: 0, latest: '', stood_still: [0, 0], wrong: [], errors: {}, texts: {} };
}
begin();

const steady = () => Number(process.hrtime.bigint() / 1000n);

function count(what) {
  seen.errors[what] = (seen.errors[what] ?? 0) + 1;
}

/** One call, and what there is to know about it: how long it took, how it failed, what its error says. */
async function once(what, call) {
  const start = steady();
  let end = 'answered';
  seen.calls++;
  try {
    return await call();
  } catch (error) {
    end = error.message;
    if (!(error instanceof CounterfoilError)) throw error;
    if (error.code !== 'EXISTS') {
      const kind = `${what}: ${error.code} ${error.outcome}`;
      count(kind);
      seen.texts[kind] ??= error.message;
      if (error.message.includes('READONLY')) count('READONLY');
    }
    if (SECRET.test(error.message)) seen.wrong.push(`an error of ${what} tells more than it should: ${error.message}`);
    throw error;
  } finally {
    const late = (steady() - start) / 1e6 - timeout;
    if (late > seen.late) Object.assign(seen, { late, latest: `${what}: ${end}` });
  }
}

/** The answer, however often it takes: what was not applied is asked for again, what has a receipt by it, and what may be repeated. Else 'unknown'. */
async function patiently(what, call, repeatable = false) {
  let receipt;
  let since;
  for (const begin = steady(); steady() < begin + PATIENCE * 1000; await sleep(50)) {
    const asked = steady();
    if (receipt !== undefined && asked + timeout * 1e6 > since + RECEIPT * 1000) break;
    try {
      return await once(what, () => call(receipt));
    } catch (error) {
      if (error.code === 'EXISTS') return 'there';
      if (!['UNAVAILABLE', 'TIMEOUT', 'BUSY'].includes(error.code)) {
        seen.wrong.push(`${what}: ${error.code}: ${error.message}`);
        return 'unknown';
      }
      seen.retries++;
      if (error.outcome === 'not_applied' || repeatable) continue;
      since = receipt === undefined ? asked : since;
      receipt = error.receipt ?? receipt;
      if (receipt === undefined) return 'unknown';
    }
  }
  return 'unknown';
}

const all = (things, one) => Promise.all(things.map(one));
const valueOf = (code) => `value of ${code}`;
const zip = (names, told) => Object.fromEntries(names.map((name, i) => [name, told[i]]));

const orders = {
  async issue({ codes, ways }) {
    const done = await all(codes, (code, i) => (ways[i]
      ? patiently('if_absent', (receipt) => store.set(code, valueOf(code), { ttl: TTL, ifAbsent: true, receipt }))
      : patiently('set', () => store.set(code, valueOf(code), { ttl: TTL }), true)));
    for (const [i, code] of codes.entries()) if (done[i] === false) seen.wrong.push(`${code}: somebody has set it`);
    return { set: codes.filter((_, i) => done[i] === true) };
  },
  async pop({ codes }) {
    const told = await all(codes, (code) => patiently('pop', (receipt) => store.pop(code, { receipt })));
    for (const [i, code] of codes.entries()) {
      if (![undefined, 'unknown', valueOf(code)].includes(told[i])) seen.wrong.push(`the value of another code for ${code}`);
    }
    return { won: codes.filter((code, i) => told[i] === valueOf(code)), unknown: codes.filter((_, i) => told[i] === 'unknown') };
  },
  async incr({ key, times }) {
    const told = await all(Array(times).fill(key), (one) => patiently('incr', (receipt) => store.incr(one, 1, { receipt })));
    return { numbers: told.filter((number) => number !== 'unknown') };
  },
  async lock({ names, me }) {
    const told = await all(names, (name) => patiently('if_absent', (receipt) => store.set(name, me, { ttl: TTL, ifAbsent: true, receipt })));
    return { held: names.filter((_, i) => told[i] === true) };
  },
  async swap({ key, me, times }) {
    const swaps = [];
    for (let number = 0; number < times; number++) {
      const was = await patiently('get', () => store.get(key), true);
      if (was === undefined || was === 'unknown') continue;
      const now = `${me}-${number}`;
      if (await patiently('if_equal', (receipt) => store.set(key, now, { ifEqual: was, receipt })) === true) swaps.push(was);
    }
    return { swaps };
  },
  async once_each({ names }) {
    const said = await all(names, async (name) => {
      try {
        return await once('if_absent', () => store.set(name, valueOf(name), { ttl: TTL, ifAbsent: true })) ? 'kept' : 'refused';
      } catch (error) {
        return error.outcome;
      }
    });
    return { said: zip(names, said) };
  },
  async look({ names }) {
    const told = await all(names, (name) => patiently('get', () => store.get(name), true));
    return { there: names.filter((_, i) => told[i] !== undefined && told[i] !== 'unknown'), absent: names.filter((_, i) => told[i] === undefined) };
  },
  async sign_up({ people, rivals, me }) {
    const one = async (person, providerUserId) => {
      const told = await patiently('find_or_create', () => accounts.findOrCreateBySocialAccount({
        provider: 'chaos', providerUserId, user: { email: `${person}@example.org` },
      }), true);
      return typeof told === 'string' ? [told, false] : [told.user.id, told.created];
    };
    const told = await Promise.all([...people.map((person) => one(person, person)), ...rivals.map((rival) => one(rival, `${rival} ${me}`))]);
    return { told: zip([...people, ...rivals], told) };
  },
  async who({ people }) {
    const ids = await all(people, async (providerUserId) => {
      const found = await patiently('find', () => accounts.findSocialAccount({ provider: 'chaos', providerUserId }), true);
      return found === undefined || found === null ? 'nobody' : found === 'unknown' ? found : found.userId;
    });
    return { ids: zip(people, ids) };
  },
  async log_out({ user, tokens }) {
    const now = new Date();
    const fields = { userId: user, createdAt: now, updatedAt: now, expiresAt: new Date(now.getTime() + 3600_000) };
    for (const tokenHash of tokens) await patiently('log in', () => sessions.create({ ...fields, tokenHash }), true);
    return { revoked: (await patiently('revoke', () => sessions.revokeAllForUser(user, { revokedAt: now }), true)) !== 'unknown' };
  },
  async alive({ tokens }) {
    const told = await all(tokens, (tokenHash) => patiently('session', () => sessions.get({ tokenHash }), true));
    return { alive: tokens.filter((_, i) => told[i] !== undefined && told[i] !== 'unknown') };
  },
  async work({ lanes, pause }) {
    load = new Load(lanes, pause);
  },
  async told() {
    const ends = load.ends;
    load.ends = ends.map(() => []);
    return { ends };
  },
  async rest() {
    load.over = true;
    await Promise.all(load.lanes);
  },
};

/** Calls that write, one after the other in each lane; each is made once, with its deadline. */
class Load {
  constructor(lanes, pause) {
    this.over = false;
    this.ends = lanes.map(() => []);
    this.lanes = lanes.map((keys, number) => this.lane(number, keys, pause));
  }

  async lane(number, keys, pause) {
    const kinds = [
      ['set', (key) => store.set(key, 'value of the load', { ttl: 600 })],
      ['pop', (key, last) => store.pop(last)],
      ['incr', (key) => store.incr(`${key}:count`, 1, { ttl: 600 })],
      ['if_absent', (key) => store.set(`${key}:lock`, 'me', { ttl: 1, ifAbsent: true })],
    ];
    for (let turn = 0; !this.over; turn++) {
      const [what, call] = kinds[turn % kinds.length];
      try {
        await once(what, () => call(keys[turn % keys.length], keys[(turn + keys.length - 1) % keys.length]));
        this.ends[number].push(steady());
      } catch (error) {
        if (!(error instanceof CounterfoilError)) throw error;
      }
      await sleep(pause * 1000);
    }
  }
}

/** As in worker.py. */
async function watch() {
  for (;;) {
    const start = steady();
    const cpu = process.cpuUsage();
    await sleep(50, undefined, { ref: false });
    const { user, system } = process.cpuUsage(cpu);
    const still = (steady() - start) / 1e6 - 0.05;
    if (still > seen.stood_still[0]) seen.stood_still = [still, (user + system) / 1e6];
  }
}

async function main() {
  watch();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: what, ...rest } = JSON.parse(line);
    const answer = await orders[what](rest);
    process.stdout.write(`${JSON.stringify({ ...answer, ...seen })}\n`);
    begin();
  }
  await store.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
