'use strict';

// How the rules for the hooks of an AccountsStorage are tried: by their own methods, as the core calls them, with e-mails
// normalised and tokens as text.

const { randomBytes } = require('node:crypto');
const { isDeepStrictEqual } = require('node:util');

const { METHODS } = require('../hooks.cjs');
const { Broken, sayError, show, sleep } = require('./probe.cjs');

const CROWD = 8;
const ODD_IDS = [
  '',
  'x',
  '0',
  '-1',
  '1e3',
  '99999999',
  '9'.repeat(40),
  "' OR 1=1 --",
  '00000000-0000-4000-8000-000000000000',
  '\u6f22',
];
const JSON_VALUE = { name: 'kit \u00e4\u{1f98a}', list: [1, null, { a: true }], empty: {} };

const isMiss = (value) => value === undefined || value === null;
/** An e-mail of this run's own, with its normalised form. */
const address = (probe) => {
  const email = `Kit.${probe.key()}@Example.org`;
  return { email, emailKey: email.toLowerCase() };
};
const idOf = (record) => String(record.id);
/** `name` is what a caller means, and what a record that leaves it out has. */
const valueOf = (record, name) => record[name] ?? (name === 'emailVerified' ? false : null);
const same = (a, b) => (b instanceof Date ? a instanceof Date && a.getTime() === b.getTime() : isDeepStrictEqual(a, b));

/** That a record has these fields. */
function has(probe, record, fields, what) {
  probe.expect(!isMiss(record) && typeof record === 'object', what, show(record));
  probe.expect(['string', 'number', 'bigint'].includes(typeof record.id), `${what} with an id`, show(record.id));
  const others = Object.keys(fields).filter((name) => name !== 'emailKey' && !same(valueOf(record, name), fields[name]));
  probe.expect(others.length === 0, `${what} with the fields that were given`, `others in ${others.join(', ')}`);
}

async function createUser(probe, hooks, fields = {}) {
  probe.needs(hooks, 'createUser');
  const user = await probe.call(hooks, 'createUser', fields);
  has(probe, user, fields, 'createUser() gives the user');
  return user;
}

/** Who an account is to a provider: nobody else's. */
const providerUser = (probe) => ({ provider: 'kit', providerUserId: probe.key() });

async function createAccount(probe, hooks, user, fields = {}) {
  probe.needs(hooks, 'createSocialAccount');
  const given = { userId: idOf(user), ...providerUser(probe), isLoginMethod: true, ...fields };
  const account = await probe.call(hooks, 'createSocialAccount', given);
  const { userId, ...rest } = given;
  has(probe, account, rest, 'createSocialAccount() gives the account');
  probe.expect(String(account.userId) === userId, 'the account of the user', 'another userId');
  return account;
}

/** That a call is refused; which error says so is for the hooks. */
async function refused(probe, hooks, method, args, what) {
  const { value, failed } = await probe.attempt(hooks, method, ...args);
  probe.expect(failed, `${what} is refused`, `it gave ${show(value)}`);
}

/** An update of what is not there gives nothing, or is refused. */
async function misses(probe, hooks, method, changes) {
  for (const id of ODD_IDS) {
    const { value, failed } = await probe.attempt(hooks, method, id, changes);
    probe.expect(failed || isMiss(value), `${method}() of one who is not there gives nothing, or rejects`, show(value));
  }
}

async function finds(probe, hooks, method, argument, wanted, what) {
  const record = await probe.call(hooks, method, argument);
  if (wanted === undefined) probe.expect(isMiss(record), `${what} gives undefined or null`, show(record));
  else
    probe.expect(
      !isMiss(record) && idOf(record) === idOf(wanted),
      `${what} finds the one that was made`,
      isMiss(record) ? show(record) : 'another',
    );
  return record;
}

/** Whether a removal says what it did. */
async function saysWhether(probe, hooks, method, id) {
  const was = await probe.call(hooks, method, id);
  probe.expect(was === true || isMiss(was), `${method}() gives true`, show(was));
  for (const odd of [id, ...ODD_IDS]) {
    const missed = await probe.call(hooks, method, odd);
    probe.expect(missed === false || isMiss(missed), `${method}() gives false where nothing is`, show(missed));
  }
}

/** A crowd that makes the same: one is let, and what it has made is what is there. */
async function oneWinner(probe, work, what) {
  for (let round = 0; round < 4; round++) {
    const results = await work();
    const winners = results.filter(({ failed }) => !failed).length;
    probe.expect(winners === 1, `1 of ${CROWD} ${what} at once succeeds`, `${winners} of them did`);
  }
}

const ACCOUNT = () => ({
  providerEmail: 'kit@example.org',
  providerEmailVerified: true,
  isLoginMethod: false,
  accessToken: 'kit-access',
  refreshToken: 'kit-refresh',
  accessTokenExpiresAt: new Date('2031-02-03T04:05:06.789Z'),
  refreshTokenExpiresAt: new Date('2029-12-31T23:59:59.999Z'),
  scope: 'kit read',
  userInfo: JSON_VALUE,
  extraFields: [1, 'two', null],
});

module.exports = {
  async 'shape.methods'(probe) {
    const hooks = await probe.make();
    const there = METHODS.filter((name) => !isMiss(hooks[name]));
    probe.expect(there.length > 0, 'at least one method of an AccountsStorage', 'none');
    for (const name of there) probe.expect(typeof hooks[name] === 'function', `${name} is a method`, show(hooks[name]));
  },

  async 'user.round_trip'(probe) {
    const hooks = await probe.make();
    const fields = {
      ...address(probe),
      emailVerified: true,
      hashedPassword: 'kit-hash',
      userInfo: JSON_VALUE,
      extraFields: ['a', null, 7],
    };
    const user = await createUser(probe, hooks, fields);
    if (typeof hooks.findUserByEmail === 'function') {
      has(
        probe,
        await finds(probe, hooks, 'findUserByEmail', fields.emailKey, user, 'findUserByEmail()'),
        fields,
        'findUserByEmail() gives the user',
      );
    }
    if (typeof hooks.findUserById === 'function') {
      has(
        probe,
        await finds(probe, hooks, 'findUserById', idOf(user), user, 'findUserById()'),
        fields,
        'findUserById() gives the user',
      );
    }
  },

  async 'user.miss'(probe) {
    const hooks = await probe.make();
    if (typeof hooks.findUserById !== 'function') probe.needs(hooks, 'findUserByEmail');
    if (typeof hooks.findUserByEmail === 'function') {
      await finds(
        probe,
        hooks,
        'findUserByEmail',
        address(probe).emailKey,
        undefined,
        'findUserByEmail() of an address that nobody has',
      );
    }
    for (const id of typeof hooks.findUserById === 'function' ? ODD_IDS : []) {
      await finds(probe, hooks, 'findUserById', id, undefined, `findUserById(${JSON.stringify(id)})`);
    }
  },

  async 'user.nothing_said'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'createUser');
    const users = [];
    for (const fields of [{}, {}, { email: null, emailKey: null }]) {
      const { value, error, failed } = await probe.attempt(hooks, 'createUser', fields);
      probe.expect(!failed, 'a user without an e-mail can be made, as others before', `it failed: ${sayError(error)}`);
      has(probe, value, { email: null, emailVerified: false, hashedPassword: null }, 'createUser() gives the user');
      users.push(idOf(value));
    }
    probe.expect(new Set(users).size === 3, '3 users', `${new Set(users).size}`);
  },

  async 'user.email_unique'(probe) {
    const hooks = await probe.make();
    const taken = address(probe);
    const user = await createUser(probe, hooks, taken);
    await refused(
      probe,
      hooks,
      'createUser',
      [{ email: taken.email.toUpperCase(), emailKey: taken.emailKey }],
      'createUser() with an e-mail that is taken',
    );
    if (typeof hooks.updateUser === 'function') {
      const other = await createUser(probe, hooks, address(probe));
      await refused(probe, hooks, 'updateUser', [idOf(other), taken], 'updateUser() to an e-mail that is taken');
      has(
        probe,
        await probe.call(hooks, 'updateUser', idOf(user), taken),
        taken,
        'updateUser() to the e-mail that the user has gives the user',
      );
    }
  },

  async 'user.email_one_winner'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'createUser');
    await oneWinner(
      probe,
      () => {
        const fields = address(probe);
        return probe.crowd(CROWD, () => probe.attempt(hooks, 'createUser', { ...fields }));
      },
      'createUser() with one e-mail',
    );
  },

  async 'user.update'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'updateUser');
    const fields = { ...address(probe), emailVerified: true, hashedPassword: 'kit-hash', userInfo: JSON_VALUE };
    const user = await createUser(probe, hooks, fields);
    const changed = await probe.call(hooks, 'updateUser', idOf(user), { hashedPassword: null, userInfo: { kit: 2 } });
    has(probe, changed, { ...fields, hashedPassword: null, userInfo: { kit: 2 } }, 'updateUser() gives the user');
    const moved = address(probe);
    await probe.call(hooks, 'updateUser', idOf(user), moved);
    if (typeof hooks.findUserByEmail === 'function') {
      await finds(probe, hooks, 'findUserByEmail', moved.emailKey, user, 'findUserByEmail() by the new address');
      await finds(probe, hooks, 'findUserByEmail', fields.emailKey, undefined, 'findUserByEmail() by the old address');
    }
    await misses(probe, hooks, 'updateUser', { emailVerified: true });
  },

  async 'user.delete'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'deleteUser');
    const user = await createUser(probe, hooks, address(probe));
    const account = typeof hooks.createSocialAccount === 'function' ? await createAccount(probe, hooks, user) : undefined;
    await saysWhether(probe, hooks, 'deleteUser', idOf(user));
    if (typeof hooks.findUserById === 'function')
      await finds(probe, hooks, 'findUserById', idOf(user), undefined, 'findUserById() after deleteUser()');
    if (account !== undefined && typeof hooks.findSocialAccountById === 'function') {
      await finds(
        probe,
        hooks,
        'findSocialAccountById',
        idOf(account),
        undefined,
        'findSocialAccountById() after deleteUser() of its user',
      );
    }
  },

  async 'account.round_trip'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'createSocialAccount');
    const user = await createUser(probe, hooks, address(probe));
    const fields = { ...providerUser(probe), ...ACCOUNT() };
    const account = await createAccount(probe, hooks, user, fields);
    const { provider, providerUserId } = fields;
    const ways = { findSocialAccount: { provider, providerUserId }, findSocialAccountById: idOf(account) };
    for (const [method, argument] of Object.entries(ways)) {
      if (typeof hooks[method] === 'function')
        has(probe, await finds(probe, hooks, method, argument, account, `${method}()`), fields, `${method}() gives the account`);
    }
  },

  async 'account.miss'(probe) {
    const hooks = await probe.make();
    if (typeof hooks.findSocialAccountById !== 'function') probe.needs(hooks, 'findSocialAccount');
    if (typeof hooks.findSocialAccount === 'function') {
      await finds(probe, hooks, 'findSocialAccount', providerUser(probe), undefined, 'findSocialAccount() of one who never came');
    }
    for (const id of typeof hooks.findSocialAccountById === 'function' ? ODD_IDS : []) {
      await finds(probe, hooks, 'findSocialAccountById', id, undefined, `findSocialAccountById(${JSON.stringify(id)})`);
    }
  },

  async 'account.tokens'(probe) {
    const hooks = await probe.make();
    const user = await createUser(probe, hooks, address(probe));
    const tokens = { accessToken: `kit:${randomBytes(4096).toString('hex').slice(0, 8188)}`, refreshToken: ' kit= +/\u00e4 ' };
    const account = await createAccount(probe, hooks, user, tokens);
    const read =
      typeof hooks.findSocialAccountById === 'function'
        ? await probe.call(hooks, 'findSocialAccountById', idOf(account))
        : account;
    for (const [name, token] of Object.entries(tokens)) {
      probe.expect(
        read?.[name] === token,
        `${name} of ${token.length} characters as it was`,
        isMiss(read?.[name]) ? 'none' : `${String(read[name]).length} other characters`,
      );
    }
  },

  async 'account.exact_names'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'findSocialAccount');
    const user = await createUser(probe, hooks, address(probe));
    const { providerUserId } = await createAccount(probe, hooks, user, { providerUserId: `${probe.key()}Abc` });
    const others = [
      ['kit', providerUserId.toLowerCase()],
      ['Kit', providerUserId],
      ['kit', `${providerUserId} `],
      ['kit', providerUserId.slice(0, -1)],
      ['kit', '%'],
    ];
    for (const [provider, other] of others) {
      await finds(
        probe,
        hooks,
        'findSocialAccount',
        { provider, providerUserId: other },
        undefined,
        'findSocialAccount() by a name that differs in a letter',
      );
    }
    await createAccount(probe, hooks, user, { providerUserId: providerUserId.toLowerCase() });
  },

  async 'account.unique'(probe) {
    const hooks = await probe.make();
    const [first, second] = [await createUser(probe, hooks, address(probe)), await createUser(probe, hooks, address(probe))];
    const { provider, providerUserId } = await createAccount(probe, hooks, first);
    for (const user of [first, second]) {
      await refused(
        probe,
        hooks,
        'createSocialAccount',
        [{ userId: idOf(user), provider, providerUserId }],
        'createSocialAccount() of one that is there',
      );
    }
  },

  async 'account.one_winner'(probe) {
    const hooks = await probe.make();
    const user = await createUser(probe, hooks, address(probe));
    probe.needs(hooks, 'createSocialAccount');
    await oneWinner(
      probe,
      () => {
        const who = providerUser(probe);
        return probe.crowd(CROWD, () => probe.attempt(hooks, 'createSocialAccount', { userId: idOf(user), ...who }));
      },
      'createSocialAccount() of one account',
    );
  },

  async 'account.needs_user'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'createSocialAccount');
    for (const userId of ODD_IDS) {
      await refused(
        probe,
        hooks,
        'createSocialAccount',
        [{ userId, ...providerUser(probe) }],
        'createSocialAccount() for a user who is not there',
      );
    }
  },

  async 'account.list'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'listSocialAccounts', 'createSocialAccount');
    const [user, other] = [await createUser(probe, hooks, address(probe)), await createUser(probe, hooks, address(probe))];
    const wanted = [];
    for (let count = 0; count < 3; count++) {
      wanted.push(idOf(await createAccount(probe, hooks, user)));
      await createAccount(probe, hooks, other);
      await sleep(5); // an instant of its own for each
    }
    const list = async (userId) => {
      const accounts = await probe.call(hooks, 'listSocialAccounts', { userId });
      if (!Array.isArray(accounts)) throw new Broken('listSocialAccounts() gives an array', show(accounts));
      return accounts.map(idOf);
    };
    const seen = await list(idOf(user));
    probe.expect(
      isDeepStrictEqual(seen, wanted),
      'the 3 accounts of the user, the oldest first',
      `${seen.length} accounts, or another order`,
    );
    for (const id of ODD_IDS)
      probe.expect((await list(id)).length === 0, 'an empty array for a user who is not there', 'accounts');
  },

  async 'account.update'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'updateSocialAccount');
    const user = await createUser(probe, hooks, address(probe));
    const fields = { ...providerUser(probe), ...ACCOUNT() };
    const account = await createAccount(probe, hooks, user, fields);
    const changes = { accessToken: 'kit-second', accessTokenExpiresAt: null, isLoginMethod: true };
    has(
      probe,
      await probe.call(hooks, 'updateSocialAccount', idOf(account), changes),
      { ...fields, ...changes },
      'updateSocialAccount() gives the account',
    );
    if (typeof hooks.findSocialAccountById === 'function') {
      const found = await probe.call(hooks, 'findSocialAccountById', idOf(account));
      has(probe, found, { ...fields, ...changes }, 'findSocialAccountById() gives the account after it');
    }
    await misses(probe, hooks, 'updateSocialAccount', { scope: 'kit' });
  },

  async 'account.loses_no_update'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'updateSocialAccount');
    const user = await createUser(probe, hooks, address(probe));
    const changes = { accessToken: 'kit-access-2', refreshToken: 'kit-refresh-2', scope: 'kit-scope-2', isLoginMethod: false };
    for (let round = 0; round < 4; round++) {
      const account = await createAccount(probe, hooks, user, ACCOUNT());
      const each = Object.entries(changes);
      await probe.crowd(each.length, (index) =>
        probe.call(hooks, 'updateSocialAccount', idOf(account), Object.fromEntries([each[index]])),
      );
      has(
        probe,
        await probe.call(hooks, 'updateSocialAccount', idOf(account), {}),
        changes,
        'the account after 4 updates of 4 fields at once',
      );
    }
  },

  async 'account.no_resurrection'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'updateSocialAccount', 'deleteSocialAccount', 'findSocialAccountById');
    const user = await createUser(probe, hooks, address(probe));
    for (let round = 0; round < 6; round++) {
      const id = idOf(await createAccount(probe, hooks, user, ACCOUNT()));
      const calls = [
        () => probe.attempt(hooks, 'updateSocialAccount', id, { scope: 'kit' }),
        () => probe.call(hooks, 'deleteSocialAccount', id),
      ];
      if (round % 2) calls.reverse();
      await Promise.all(calls.map((call) => call()));
      await finds(
        probe,
        hooks,
        'findSocialAccountById',
        id,
        undefined,
        'findSocialAccountById() after an update and a delete at once',
      );
    }
  },

  async 'account.delete'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'deleteSocialAccount');
    const user = await createUser(probe, hooks, address(probe));
    const account = await createAccount(probe, hooks, user);
    await saysWhether(probe, hooks, 'deleteSocialAccount', idOf(account));
    if (typeof hooks.findSocialAccountById === 'function') {
      await finds(
        probe,
        hooks,
        'findSocialAccountById',
        idOf(account),
        undefined,
        'findSocialAccountById() after deleteSocialAccount()',
      );
    }
  },

  async 'login.one_winner'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'findOrCreateBySocialAccount');
    for (const user of [address(probe), { email: null, emailKey: null }]) {
      const who = providerUser(probe);
      const results = await probe.crowd(CROWD, () =>
        probe.call(hooks, 'findOrCreateBySocialAccount', { ...who, user: { ...user } }),
      );
      const makers = results.filter((result) => result?.created === true).length;
      probe.expect(makers === 1, `1 of ${CROWD} logins at once creates`, `${makers} of them did`);
      const [users, accounts] = ['user', 'socialAccount'].map(
        (name) => new Set(results.map((result) => String(result?.[name]?.id))).size,
      );
      probe.expect(users === 1 && accounts === 1, '1 user and 1 account for all of them', `${users} users, ${accounts} accounts`);
    }
  },

  async 'login.nothing_half'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'findOrCreateBySocialAccount', 'createUser');
    const taken = address(probe);
    const owner = await createUser(probe, hooks, taken);
    const who = providerUser(probe);
    await refused(
      probe,
      hooks,
      'findOrCreateBySocialAccount',
      [{ ...who, user: { ...taken } }],
      'a login with an e-mail that somebody has',
    );
    if (typeof hooks.findSocialAccount === 'function')
      await finds(probe, hooks, 'findSocialAccount', who, undefined, 'findSocialAccount() after that');
    if (typeof hooks.findUserByEmail === 'function')
      await finds(probe, hooks, 'findUserByEmail', taken.emailKey, owner, 'findUserByEmail() after that');
    const made = await probe.call(hooks, 'findOrCreateBySocialAccount', { ...who, user: address(probe) });
    probe.expect(made?.created === true, 'the same account with another e-mail is created', 'it was there already');
  },

  async 'storage.opens'(probe) {
    const hooks = await probe.make();
    probe.needs(hooks, 'createUser', 'createSocialAccount', 'findSocialAccountById', 'updateSocialAccount');
    if (METHODS.some((name) => !isMiss(hooks[name]) && typeof hooks[name] !== 'function'))
      probe.skip('AccountsStorage does not take them: see shape.methods');
    const { AccountsStorage } = require('../index.cjs'); // only who checks hooks needs the native half
    const storage = new AccountsStorage(hooks, { keys: [[1, randomBytes(32)]] });
    try {
      const user = await probe.call(storage, 'createUser', { email: address(probe).email });
      const account = await probe.call(storage, 'createSocialAccount', {
        ...providerUser(probe),
        userId: user.id,
        accessToken: 'kit-open',
      });
      probe.expect(account.accessToken === 'kit-open', 'the token as it was, by AccountsStorage', 'another');
      const raw = await probe.call(hooks, 'findSocialAccountById', account.id);
      probe.expect(/^sealed:/.test(raw?.accessToken), 'a sealed token in the hooks', show(raw?.accessToken));
      await probe.call(storage, 'updateSocialAccount', account.id, { accessToken: 'kit-second' });
      const found = await probe.call(storage, 'findSocialAccountById', account.id);
      probe.expect(found?.accessToken === 'kit-second', 'the new token, by AccountsStorage', 'another');
    } finally {
      await storage.close();
    }
  },

  async 'fault.rejects'(probe) {
    const hooks = await probe.make();
    const method = ['findUserByEmail', 'findUserById'].find((name) => typeof hooks[name] === 'function');
    if (method === undefined) probe.needs(hooks, 'findUserByEmail');
    await probe.fault(hooks);
    const { value, failed } = await probe.attempt(hooks, method, method === 'findUserById' ? '1' : address(probe).emailKey);
    probe.expect(failed, `${method}() rejects`, isMiss(value) ? 'a miss' : show(value));
  },
};
