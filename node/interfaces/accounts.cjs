'use strict';

const { Store, handleOf, known, sweep } = require('../store.cjs');
const { invalid } = require('../errors.cjs');
const { METHODS, openHooks } = require('../hooks.cjs');
const { USER, SOCIAL_ACCOUNT, encode, encodeOne, encodeSought, encodeNewAccount, brought } = require('../records.cjs');

const OPTIONS = ['maxSocialAccounts', 'timeout', 'keys', 'plainUntil', 'stage'];
const NUMBERS = Object.fromEntries(METHODS.map((name, number) => [name, number]));

class AccountsStorage {
  #handle;
  #most = 0;
  #timeout;
  #hooks = false;

  constructor(storeOrHooks, options = {}) {
    const { maxSocialAccounts, timeout, keys, plainUntil, stage } = known(options, OPTIONS);
    if (maxSocialAccounts !== undefined) {
      if (!Number.isInteger(maxSocialAccounts) || maxSocialAccounts < 1 || maxSocialAccounts > 10000) throw invalid('maxSocialAccounts must be an integer from 1 to 10000');
      this.#most = maxSocialAccounts;
    }
    if (storeOrHooks instanceof Store) {
      if (keys !== undefined || plainUntil !== undefined || stage !== undefined) throw invalid('keys, plainUntil and stage are for hooks: a store has those that open() was given');
      this.#handle = handleOf(storeOrHooks);
      this.#timeout = timeout;
    } else {
      if (typeof storeOrHooks !== 'object' || storeOrHooks === null) throw invalid('AccountsStorage takes a store or an object with its methods');
      this.#handle = openHooks(storeOrHooks, { keys, plainUntil, timeout, stage });
      this.#hooks = true;
    }
  }

  #call(method, record, user) {
    const outcome = /^(find|list)/.test(method) && user === undefined ? 'not_applied' : 'applied';
    return brought(() => this.#handle.accounts(NUMBERS[method], record, user, this.#most, this.#timeout), outcome);
  }

  async #one(method, record) { return (await this.#call(method, record)).records[0]; }

  async findUserByEmail(email) { return this.#one('findUserByEmail', encodeOne(USER, 'email', email)); }
  async findUserById(id) { return this.#one('findUserById', encodeOne(USER, 'id', id)); }
  async createUser(fields) { return this.#one('createUser', encode(USER, fields)); }
  async updateUser(id, changes) {
    encodeOne(USER, 'id', id);
    return this.#one('updateUser', encode(USER, changes, id));
  }
  async deleteUser(id) { return (await this.#call('deleteUser', encodeOne(USER, 'id', id))).hit; }

  async findSocialAccount(by) { return this.#one('findSocialAccount', encodeSought(SOCIAL_ACCOUNT, by)); }
  async findSocialAccountById(id) { return this.#one('findSocialAccountById', encodeOne(SOCIAL_ACCOUNT, 'id', id)); }
  async listSocialAccounts(by) { return (await this.#call('listSocialAccounts', encodeSought(SOCIAL_ACCOUNT, by))).records; }
  async createSocialAccount(fields) { return this.#one('createSocialAccount', encodeNewAccount(fields)); }
  async updateSocialAccount(id, changes) {
    encodeOne(SOCIAL_ACCOUNT, 'id', id);
    return this.#one('updateSocialAccount', encode(SOCIAL_ACCOUNT, changes, id));
  }
  async deleteSocialAccount(id) { return (await this.#call('deleteSocialAccount', encodeOne(SOCIAL_ACCOUNT, 'id', id))).hit; }

  async findOrCreateBySocialAccount(fields) {
    if (typeof fields !== 'object' || fields === null) throw invalid('the fields of a social account must be an object');
    const { user: ofUser, ...account } = fields;
    const { number, records: [socialAccount, user] } = await this.#call('findOrCreateBySocialAccount', encodeNewAccount(account), encode(USER, ofUser));
    return { user, socialAccount, created: number === 1 };
  }

  reseal() { return sweep((cursor) => this.#handle.resealTokens(cursor)); }

  /** Over hooks: what waits rejects with CLOSED. A store is whose it is. */
  async close() {
    if (!this.#hooks) return;
    this.#hooks = false;
    this.#handle.close();
  }
}

module.exports = { AccountsStorage };
