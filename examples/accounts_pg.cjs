'use strict';

// An application's own tables of users and social accounts, in PostgreSQL through `pg`, as the hooks of an AccountsStorage:
//
//     const accounts = new AccountsStorage(new PgAccounts(new Pool({ connectionString })), { keys });
//
// E-mails come normalised (emailKey) and tokens sealed, so this class keeps what it is given and no more. Two unique constraints make sure of what no look-up
// can: an address has one user, and an account at a provider one row.

const { CounterfoilError } = require('counterfoil');

exports.SCHEMA = `
  CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text, email_key text UNIQUE, email_verified boolean NOT NULL DEFAULT false,
    hashed_password text, user_info jsonb, extra_fields jsonb,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
  CREATE TABLE social_accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    provider text NOT NULL, provider_user_id text NOT NULL,
    provider_email text, provider_email_verified boolean, is_login_method boolean NOT NULL DEFAULT false,
    access_token text, refresh_token text, access_token_expires_at timestamptz, refresh_token_expires_at timestamptz,
    scope text, user_info jsonb, extra_fields jsonb,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, provider_user_id));
  CREATE INDEX ON social_accounts (user_id);`;

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const camel = (name) => name.replace(/_[a-z]/g, (pair) => pair[1].toUpperCase());
const fromRow = (row) => row && Object.fromEntries(Object.entries(row).map(([name, value]) => [camel(name), value]));
/** pg would make a PostgreSQL array of an array: JSON is given as its text. */
const toColumn = ([name, value]) => ((name === 'userInfo' || name === 'extraFields') && value !== null ? JSON.stringify(value) : value);
const isId = (id) => /^[1-9]\d{0,17}$/.test(id);

const UNIQUE = '23505', FOREIGN_KEY = '23503';
const told = (error) => {
  if (error.code === UNIQUE) throw new CounterfoilError('there is such a record already', 'EXISTS');
  if (error.code === FOREIGN_KEY) throw new CounterfoilError('there is no such user', 'MISSING');
  throw error;
};

exports.PgAccounts = class PgAccounts {
  constructor(pool) { this.pool = pool; }

  async one(text, values, client = this.pool) { return fromRow((await client.query(text, values)).rows[0]); }

  insert(table, fields, client) {
    const names = Object.keys(fields);
    const places = names.map((_, i) => `$${i + 1}`);
    const columns = names.length ? `(${names.map(snake)}) VALUES (${places})` : 'DEFAULT VALUES';
    return this.one(`INSERT INTO ${table} ${columns} RETURNING *`, Object.entries(fields).map(toColumn), client);
  }

  update(table, id, changes) {
    if (!isId(id)) return undefined;
    const set = Object.keys(changes).map((name, i) => `${snake(name)} = $${i + 2}, `).join('');
    return this.one(`UPDATE ${table} SET ${set}updated_at = now() WHERE id = $1 RETURNING *`, [id, ...Object.entries(changes).map(toColumn)]).catch(told);
  }

  async remove(table, id) { return isId(id) && (await this.pool.query(`DELETE FROM ${table} WHERE id = $1`, [id])).rowCount > 0; }
  byId(table, id) { return isId(id) ? this.one(`SELECT * FROM ${table} WHERE id = $1`, [id]) : undefined; }

  findUserByEmail(emailKey) { return this.one('SELECT * FROM users WHERE email_key = $1', [emailKey]); }
  findUserById(id) { return this.byId('users', id); }
  createUser(fields) { return this.insert('users', fields).catch(told); }
  updateUser(id, changes) { return this.update('users', id, changes); }
  deleteUser(id) { return this.remove('users', id); }

  findSocialAccount({ provider, providerUserId }, client) {
    return this.one('SELECT * FROM social_accounts WHERE provider = $1 AND provider_user_id = $2', [provider, providerUserId], client);
  }
  findSocialAccountById(id) { return this.byId('social_accounts', id); }
  async listSocialAccounts({ userId }) {
    if (!isId(userId)) return [];
    return (await this.pool.query('SELECT * FROM social_accounts WHERE user_id = $1 ORDER BY created_at, id', [userId])).rows.map(fromRow);
  }
  async createSocialAccount(fields) {
    if (!isId(fields.userId)) throw new CounterfoilError('there is no such user', 'MISSING');
    return this.insert('social_accounts', fields).catch(told);
  }
  updateSocialAccount(id, changes) { return this.update('social_accounts', id, changes); }
  deleteSocialAccount(id) { return this.remove('social_accounts', id); }

  async find(account) {
    const socialAccount = await this.findSocialAccount(account);
    const user = socialAccount && (await this.findUserById(socialAccount.userId));
    return user && { user, socialAccount, created: false };
  }

  async findOrCreateBySocialAccount({ user, ...account }) {
    const found = await this.find(account);
    if (found) return found;
    try {
      return await this.transaction(async (client) => {
        const made = await this.insert('users', user, client);
        const socialAccount = await this.insert('social_accounts', { ...account, userId: made.id }, client);
        return { user: made, socialAccount, created: true };
      });
    } catch (error) {
      // Somebody else was first: with this account, which is what was wanted, or with this e-mail.
      return (error.code === UNIQUE && (await this.find(account))) || told(error);
    }
  }

  async transaction(work) {
    const client = await this.pool.connect();
    try {
      await client.query('BEGIN');
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  }
};
