'use strict';

// Hooks of accounts that break one rule of the conformance kit each, beside those that break none.

const { turn, unreachable } = require('./clock.cjs');

const refused = (code) => Object.assign(new Error('refused'), { code });
const copy = (record) => record && structuredClone(record);

/** Tables in memory, each method in one step. */
class Right {
  broken = false;
  users = new Map();
  accounts = new Map();
  #ids = 0;

  reach() {
    if (this.broken) throw unreachable();
  }
  nextId() {
    return String(++this.#ids);
  }
  userBy(emailKey) {
    return [...this.users.values()].find((user) => user.emailKey === emailKey);
  }
  accountBy({ provider, providerUserId }) {
    return [...this.accounts.values()].find(
      (account) => account.provider === provider && account.providerUserId === providerUserId,
    );
  }
  /** That nobody but `id` has the address. */
  free(emailKey, id) {
    const other = emailKey === undefined || emailKey === null ? undefined : this.userBy(emailKey);
    if (other !== undefined && other.id !== id) throw refused('EXISTS');
  }
  putUser(fields) {
    const user = { id: this.nextId(), ...copy(fields) };
    this.users.set(user.id, user);
    return copy(user);
  }
  putAccount(fields) {
    const account = { id: this.nextId(), createdAt: new Date(), ...copy(fields) };
    this.accounts.set(account.id, account);
    return copy(account);
  }

  async findUserByEmail(emailKey) {
    this.reach();
    return copy(this.userBy(emailKey));
  }
  async findUserById(id) {
    this.reach();
    return copy(this.users.get(id));
  }
  async createUser(fields) {
    this.free(fields.emailKey);
    return this.putUser(fields);
  }
  async updateUser(id, changes) {
    if (!this.users.has(id)) return undefined;
    this.free(changes.emailKey, id);
    return copy(Object.assign(this.users.get(id), copy(changes)));
  }
  async deleteUser(id) {
    for (const account of this.accounts.values()) if (account.userId === id) this.accounts.delete(account.id);
    return this.users.delete(id);
  }
  async findSocialAccount(by) {
    return copy(this.accountBy(by));
  }
  async findSocialAccountById(id) {
    return copy(this.accounts.get(id));
  }
  async listSocialAccounts({ userId }) {
    return [...this.accounts.values()].filter((account) => account.userId === userId).map(copy);
  }
  async createSocialAccount(fields) {
    if (!this.users.has(fields.userId)) throw refused('MISSING');
    if (this.accountBy(fields) !== undefined) throw refused('EXISTS');
    return this.putAccount(fields);
  }
  async updateSocialAccount(id, changes) {
    return this.accounts.has(id) ? copy(Object.assign(this.accounts.get(id), copy(changes))) : undefined;
  }
  async deleteSocialAccount(id) {
    return this.accounts.delete(id);
  }
  async findOrCreateBySocialAccount({ user, ...account }) {
    const found = this.accountBy(account);
    if (found !== undefined) return { user: copy(this.users.get(found.userId)), socialAccount: copy(found), created: false };
    this.free(user.emailKey);
    const made = this.putUser(user);
    return { user: made, socialAccount: this.putAccount({ ...account, userId: made.id }), created: true };
  }
}

/** [rule, what is wrong, class] */
const mutants = [
  [
    'shape.methods',
    'a method that is none',
    class extends Right {
      findUserByEmail = true;
    },
  ],
  [
    'user.round_trip',
    'the hash is forgotten',
    class extends Right {
      async findUserById(id) {
        const user = await super.findUserById(id);
        if (user?.extraFields) user.hashedPassword = null;
        return user;
      }
    },
  ],
  [
    'user.miss',
    'an id that is no number is an error',
    class extends Right {
      async findUserById(id) {
        this.reach();
        return super.findUserById(String(BigInt(id)));
      }
    },
  ],
  [
    'user.nothing_said',
    'no address is an address',
    class extends Right {
      async createUser(fields) {
        if (!fields.emailKey && [...this.users.values()].some((user) => !user.emailKey)) throw refused('EXISTS');
        return super.createUser(fields);
      }
    },
  ],
  [
    'user.email_unique',
    'an update does not look',
    class extends Right {
      free(emailKey, id) {
        if (id === undefined) super.free(emailKey, id);
      }
    },
  ],
  [
    'user.email_one_winner',
    'it looks, and then writes',
    class extends Right {
      async createUser(fields) {
        this.free(fields.emailKey);
        await turn();
        return this.putUser(fields);
      }
    },
  ],
  [
    'user.update',
    'what is not named is null',
    class extends Right {
      async updateUser(id, changes) {
        return super.updateUser(id, 'hashedPassword' in changes ? { emailVerified: false, ...changes } : changes);
      }
    },
  ],
  [
    'user.update',
    'one who is not there is made',
    class extends Right {
      async updateUser(id, changes) {
        if (!this.users.has(id)) this.users.set(id, { id });
        const user = await super.updateUser(id, changes);
        if (changes.emailVerified && !user.emailKey) this.users.delete(id);
        return user;
      }
    },
  ],
  [
    'user.delete',
    'accounts stay',
    class extends Right {
      async deleteUser(id) {
        return this.users.delete(id);
      }
    },
  ],
  [
    'user.delete',
    'always true',
    class extends Right {
      async deleteUser(id) {
        await super.deleteUser(id);
        return true;
      }
    },
  ],
  [
    'account.round_trip',
    'instants without milliseconds',
    class extends Right {
      async findSocialAccount(by) {
        const account = await super.findSocialAccount(by);
        if (account?.accessTokenExpiresAt) account.accessTokenExpiresAt.setMilliseconds(0);
        return account;
      }
    },
  ],
  [
    'account.miss',
    'an id that is no number is an error',
    class extends Right {
      async findSocialAccountById(id) {
        return super.findSocialAccountById(String(BigInt(id)));
      }
    },
  ],
  [
    'account.tokens',
    'a column of 4,000 characters',
    class extends Right {
      putAccount(fields) {
        return super.putAccount({ ...fields, accessToken: fields.accessToken?.slice(0, 4000) });
      }
    },
  ],
  [
    'account.tokens',
    'trimmed',
    class extends Right {
      putAccount(fields) {
        return super.putAccount({ ...fields, refreshToken: fields.refreshToken?.trim() });
      }
    },
  ],
  [
    'account.exact_names',
    'a collation that folds case',
    class extends Right {
      accountBy({ provider, providerUserId }) {
        const fold = (text) => text.toLowerCase();
        return [...this.accounts.values()].find(
          (account) => fold(account.provider) === fold(provider) && fold(account.providerUserId) === fold(providerUserId),
        );
      }
    },
  ],
  [
    'account.unique',
    'once for each user',
    class extends Right {
      async createSocialAccount(fields) {
        if (!this.users.has(fields.userId)) throw refused('MISSING');
        if (this.accountBy(fields)?.userId === fields.userId) throw refused('EXISTS');
        return this.putAccount(fields);
      }
    },
  ],
  [
    'account.one_winner',
    'it looks, and then writes',
    class extends Right {
      async createSocialAccount(fields) {
        if (!this.users.has(fields.userId)) throw refused('MISSING');
        if (this.accountBy(fields) !== undefined) throw refused('EXISTS');
        await turn();
        return this.putAccount(fields);
      }
    },
  ],
  [
    'account.needs_user',
    'whoever it is',
    class extends Right {
      async createSocialAccount(fields) {
        if (this.accountBy(fields) !== undefined) throw refused('EXISTS');
        const account = this.putAccount(fields);
        if (!this.users.has(fields.userId)) this.accounts.delete(account.id);
        return account;
      }
    },
  ],
  [
    'account.list',
    'the newest first',
    class extends Right {
      async listSocialAccounts(by) {
        return (await super.listSocialAccounts(by)).reverse();
      }
    },
  ],
  [
    'account.list',
    'nothing where there are none',
    class extends Right {
      async listSocialAccounts(by) {
        const accounts = await super.listSocialAccounts(by);
        return accounts.length === 0 ? undefined : accounts;
      }
    },
  ],
  [
    'account.update',
    'null changes nothing',
    class extends Right {
      async updateSocialAccount(id, changes) {
        return super.updateSocialAccount(id, Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== null)));
      }
    },
  ],
  [
    'account.loses_no_update',
    'it reads, and then writes all',
    class extends Right {
      async updateSocialAccount(id, changes) {
        const old = copy(this.accounts.get(id));
        await turn();
        if (!this.accounts.has(id)) return undefined;
        const account = { ...old, ...changes };
        this.accounts.set(id, account);
        return copy(account);
      }
    },
  ],
  [
    'account.no_resurrection',
    'what is gone meanwhile is put back',
    class extends Right {
      async updateSocialAccount(id, changes) {
        const old = this.accounts.get(id);
        await turn();
        if (old !== undefined) this.accounts.set(id, old);
        return super.updateSocialAccount(id, changes);
      }
    },
  ],
  [
    'account.delete',
    'always true',
    class extends Right {
      async deleteSocialAccount(id) {
        await super.deleteSocialAccount(id);
        return true;
      }
    },
  ],
  [
    'login.one_winner',
    'it looks, and then writes',
    class extends Right {
      async findOrCreateBySocialAccount({ user, ...account }) {
        if (this.accountBy(account) === undefined) {
          this.free(user.emailKey);
          await turn();
          const made = this.putUser(user);
          return { user: made, socialAccount: this.putAccount({ ...account, userId: made.id }), created: true };
        }
        return super.findOrCreateBySocialAccount({ user, ...account });
      }
    },
  ],
  [
    'login.nothing_half',
    'the account is made first',
    class extends Right {
      async findOrCreateBySocialAccount({ user, ...account }) {
        if (this.accountBy(account) === undefined && user.emailKey && this.userBy(user.emailKey))
          this.putAccount({ ...account, userId: '0' });
        if (this.accountBy(account)?.userId === '0') this.free(user.emailKey);
        return super.findOrCreateBySocialAccount({ user, ...account });
      }
    },
  ],
  [
    'login.nothing_half',
    'whoever has the e-mail is logged in',
    class extends Right {
      async findOrCreateBySocialAccount({ user, ...account }) {
        const owner = user.emailKey && this.accountBy(account) === undefined ? this.userBy(user.emailKey) : undefined;
        if (owner === undefined) return super.findOrCreateBySocialAccount({ user, ...account });
        return { user: copy(owner), socialAccount: this.putAccount({ ...account, userId: owner.id }), created: false };
      }
    },
  ],
  [
    'storage.opens',
    'a sealed token, and the account has another provider',
    class extends Right {
      async updateSocialAccount(id, changes) {
        const account = await super.updateSocialAccount(id, changes);
        return account && String(account.accessToken).startsWith('sealed:') ? { ...account, provider: 'other' } : account;
      }
    },
  ],
  [
    'fault.rejects',
    'a miss where nothing can be reached',
    class extends Right {
      async findUserByEmail(emailKey) {
        return this.broken ? undefined : super.findUserByEmail(emailKey);
      }
    },
  ],
];

module.exports = { rights: [Right], mutants };
