'use strict';

// Whose a session is. Beside the stored text of a session of a user stands a record (SessionStorage), and the record decides: a text that says a user
// counts only while its record is active and of that user. So a user's sessions can be listed, and ended in one step, in every process at once;
// and what is left after a crash between two writes is a session that is dead. FORMAT.md, item 7.

const { createHash } = require('node:crypto');

const { SessionStorage, CounterfoilError } = require('../index.cjs');
const { known } = require('../store.cjs');

/** On a session object, and on the data that get() gives: its user and the record's id, as far as this request knows. A symbol as those of the adapter are. */
const OWNER = Symbol('counterfoil.owner');
/** How much longer a record lives than the text: clocks may differ by so much, and of two touches at once each may win one of the two. */
const SLACK = 60000;
const LONGEST = 3650 * 86400; // seconds: the core's limit for a ttl
const MOST = 10000; // sessions of a user, and of a page of them
const WHEN_FULL = ['oldestOut', 'refuse'];
/** So early that nothing has expired. */
const EVER = new Date(1);

const invalid = (message) => new CounterfoilError(message, 'INVALID');
const failed = (error, code) => error instanceof CounterfoilError && error.code === code;

function checkId(sid, name) {
  if (sid !== undefined && (typeof sid !== 'string' || sid === '')) throw invalid(`${name} must be a session id`);
}

function keep(session, owner) {
  Object.defineProperty(session, OWNER, { value: owner, configurable: true, writable: true, enumerable: false });
}

/** What a user is called in the records. */
function nameOf(prefix, user) {
  if (typeof user === 'string' ? user !== '' : Number.isSafeInteger(user)) return prefix + String(user);
  throw invalid('a user must be a string that is not empty, or a safe integer');
}

/** The options, before anything is opened. */
function checkUsers({ userOf, maxSessionsPerUser, whenFull }) {
  if (userOf !== undefined && typeof userOf !== 'function') throw invalid('userOf must be a function of the session');
  if (maxSessionsPerUser !== undefined && !(Number.isSafeInteger(maxSessionsPerUser) && maxSessionsPerUser >= 1 && maxSessionsPerUser <= MOST)) {
    throw invalid(`maxSessionsPerUser must be an integer from 1 to ${MOST}`);
  }
  if (whenFull !== undefined && !WHEN_FULL.includes(whenFull)) throw invalid('whenFull must be "oldestOut" or "refuse"');
  if (userOf === undefined && (maxSessionsPerUser !== undefined || whenFull !== undefined)) throw invalid('maxSessionsPerUser and whenFull say nothing without userOf');
}

class Users {
  #records;
  #userOf;
  #prefix;
  #logins = new WeakMap(); // by request: who logs in there, and a promise of the epoch when that began

  constructor(store, prefix, { userOf, maxSessionsPerUser, whenFull }) {
    this.#records = new SessionStorage(store, { maxSessions: maxSessionsPerUser, whenFull });
    this.#userOf = userOf;
    this.#prefix = prefix;
  }

  /** The user that a session says, or undefined. */
  userIn(session) {
    const user = this.#userOf(session);
    return user === undefined || user === null ? undefined : nameOf(this.#prefix, user);
  }

  /** Finds the record, as the id alone can: it is not in the records, and cannot be found out from them. */
  #hash(sid) {
    return createHash('sha256').update(`counterfoil session\0${this.#prefix}${sid}`).digest('base64url');
  }

  /** The active record of a session; asked for when this returns. */
  find(sid, now) {
    return this.#records.get({ tokenHash: this.#hash(sid), now });
  }

  /** Whether what was read of a session counts, with the record that was asked for after it; if not, `gone` is called where it has been ended. */
  async counts(sid, session, record, gone) {
    const user = this.userIn(session);
    if (user !== undefined && record?.userId !== user) {
      // The two answers may be of two instants, and the login between them. Now the text is there for certain, and its record was made before it.
      record = await this.find(sid, EVER);
      if (record?.userId !== user) {
        await gone();
        return false;
      }
      // So says this machine's clock alone, or a program without userOf has touched the text: nothing to be destroyed for.
      if (record.expiresAt.getTime() < Date.now()) return false;
    }
    keep(session, { sid, user, id: user === undefined ? undefined : record.id });
    return true;
  }

  /** The user and the record of a session as they are now. */
  async #ownerOf(sid, session) {
    if (session?.[OWNER]?.sid === sid) return session[OWNER];
    const record = await this.find(sid, EVER);
    return { sid, user: record?.userId, id: record?.id };
  }

  /** The id of the record that a touch is to refresh. */
  async idOf(sid, session) {
    return (await this.#ownerOf(sid, session)).id;
  }

  /**
   * Before a session is stored that lives for `ttl` seconds from now. False: it has ended. `isMade`: it is a session object; `isNew`: and it was never stored;
   * `saysUser`: whether what is stored there now says a user.
   */
  async admit(sid, session, user, ttl, { isMade, isNew, saysUser }) {
    // A new one has none. Its record is asked for when set() returns: a destroy that does not wait for the answer must find it.
    const owner = isNew && session[OWNER]?.sid !== sid ? { sid } : await this.#ownerOf(sid, session);
    if (user === undefined) {
      if (owner.id !== undefined && !(await this.#leave(sid, owner.id))) return false;
      if (isMade) keep(session, { sid });
      return true;
    }
    if (owner.user !== undefined && owner.user !== user) throw invalid('the user of a session cannot change: regenerate it');
    const id = owner.id === undefined ? await this.#begin(sid, session, user, ttl, saysUser) : (await this.refresh(owner.id, ttl)) && owner.id;
    if (!id) return false;
    if (isMade) keep(session, { sid, user, id });
    return true;
  }

  /** A login. Gives the id of its record; undefined: it has ended. */
  async #begin(sid, session, user, ttl, saysUser) {
    const login = this.#logins.get(session.req ?? session);
    if (login !== undefined && login.user !== user) throw invalid('beginLogin was called for another user than the one who is logged in');
    const now = new Date();
    const fields = { tokenHash: this.#hash(sid), userId: user, createdAt: now, ...this.#times(ttl, now) };
    try {
      if (login !== undefined) fields.epoch = await login.epoch;
      return (await this.#records.create(fields)).id;
    } catch (error) {
      if (failed(error, 'CHANGED')) return undefined; // all were ended since the login began
      if (!failed(error, 'EXISTS') || error.existing === undefined) throw error;
      const { id, userId, status } = error.existing;
      if (userId !== user) throw invalid('the user of a session cannot change: regenerate it');
      if (status !== 'revoked') return (await this.refresh(id, ttl)) ? id : undefined;
      // Ended, or left by the user, who comes back to it now. What has ended once does not begin again; but that is no logout, and must be told.
      if ((await saysUser()) === false) throw invalid('a user has logged out of this session: regenerate it before the next login');
      return undefined;
    }
  }

  #times(ttl, now) {
    return { updatedAt: now, lastActiveAt: now, expiresAt: new Date(now.getTime() + Math.round(Math.min(ttl, LONGEST) * 1000) + SLACK) };
  }

  /** Moves the end of a record; whether it has not been ended. */
  async refresh(id, ttl) {
    return (await this.#records.refresh(id, this.#times(ttl, new Date()))) !== undefined;
  }

  revoke(id, revokedAt = new Date()) {
    return this.#records.revoke(id, { revokedAt });
  }

  /** Ends the record of a session that its user leaves. False: that had been done, and what else the session says must not come back, either. */
  async #leave(sid, id) {
    if ((await this.find(sid, EVER)) === undefined) return false;
    const revokedAt = new Date();
    await this.revoke(id, revokedAt);
    return (await this.#records.getAny(id))?.revokedAt?.getTime() === revokedAt.getTime(); // the first instant stays: it was not somebody else meanwhile
  }

  /** Ends the record of a session, if it has one. */
  async end(sid, session) {
    const { id } = await this.#ownerOf(sid, session);
    if (id !== undefined) await this.revoke(id);
  }

  async sessionsOf(user, options = {}) {
    const { current } = known(options, ['current']);
    checkId(current, 'current');
    const { records } = await this.#records.listForUser(nameOf(this.#prefix, user), { limit: MOST });
    const now = Date.now();
    const own = current === undefined ? undefined : this.#hash(current);
    const list = [];
    for (const { id, tokenHash, createdAt, updatedAt, lastActiveAt, expiresAt, status } of records) {
      const expires = new Date(expiresAt.getTime() - SLACK);
      if (status === 'revoked' || expires.getTime() <= now) continue;
      list.push({ handle: id, created: createdAt, lastSeen: lastActiveAt ?? updatedAt, expires, current: tokenHash === own });
    }
    return list;
  }

  async endAllOf(user, options = {}) {
    const userId = nameOf(this.#prefix, user);
    const { except } = known(options, ['except']); // refuses a session id that is given as it is: or it would be ended, too
    checkId(except, 'except');
    const stays = except === undefined ? undefined : await this.find(except, EVER);
    return this.#records.revokeAllForUser(userId, { revokedAt: new Date(), exceptSessionId: stays?.id });
  }

  /** Whether it was there, and of that user if one is given. */
  async endOne(handle, options = {}) {
    const { userId } = known(options, ['userId']);
    const user = userId === undefined ? undefined : nameOf(this.#prefix, userId);
    if (typeof handle !== 'string') throw invalid('a handle must be a string: one that sessionsOf gave');
    const record = await this.#records.getAny(handle);
    if (record === undefined || record.status === 'revoked' || !record.userId.startsWith(this.#prefix)) return false;
    return (user === undefined || record.userId === user) && this.revoke(handle);
  }

  async beginLogin(request, user) {
    const name = nameOf(this.#prefix, user);
    if (typeof request !== 'object' || request === null) throw invalid('beginLogin takes the request, and the user who is to be logged in');
    const epoch = this.#records.epoch(name);
    this.#logins.set(request, { user: name, epoch }); // at once: a save that does not wait for the answer must not go without it
    await epoch;
  }
}

module.exports = { Users, OWNER, checkUsers };
