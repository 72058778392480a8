'use strict';

const { native } = require('../native.cjs');
const { handleOf, known } = require('../store.cjs');
const { CounterfoilError, invalid } = require('../errors.cjs');
const { SESSION, STATUSES, encode, encodeOne, put, brought, microseconds } = require('../records.cjs');

// CF_SESSION_CREATE ...
const CREATE = 0, GET = 1, GET_ANY = 2, LIST = 3, REFRESH = 4, REVOKE = 5, REVOKE_ALL = 6, EPOCH = 7;
/** CF_UPDATED_AT_DESC ... */
const ORDERS = ['updatedAtDesc', 'updatedAtAsc', 'createdAtDesc', 'createdAtAsc', 'expiresAtDesc', 'expiresAtAsc'];
const MOST = 10000;

function whole(value, name, from, to) {
  if (!Number.isSafeInteger(value) || value < from || value > to) throw invalid(`${name} must be an integer from ${from} to ${to}`);
  return value;
}

/** The caller's now in microseconds; 0: the clock's. */
function instant(now) {
  if (now === undefined) return 0;
  const us = microseconds(now);
  if (us === undefined) throw invalid('now must be a valid Date');
  if (us < 0 || us > Number.MAX_SAFE_INTEGER) throw invalid('now must be between 1970 and 2255');
  return us || 1; // 0 is the clock's; a microsecond is nothing to a record that lived in 1970
}

function cursorText(cursor) {
  if (cursor === undefined || cursor === null) return undefined;
  if (typeof cursor !== 'string') throw invalid('cursor must be a string: the nextCursor of the page before');
  if (!/^[\x21-\x7e]{1,1024}$/.test(cursor)) throw new CounterfoilError('the cursor is none that a list gave', 'CURSOR');
  return cursor;
}

class SessionStorage {
  #handle;
  #most = 0;
  #refuse = false;
  #retention = 0; // milliseconds
  #timeout;

  constructor(store, options = {}) {
    this.#handle = handleOf(store);
    const { maxSessions, whenFull = 'oldestOut', retention, timeout } = known(options, ['maxSessions', 'whenFull', 'retention', 'timeout']);
    if (maxSessions !== undefined) this.#most = whole(maxSessions, 'maxSessions', 1, MOST);
    if (whenFull !== 'oldestOut' && whenFull !== 'refuse') throw invalid("whenFull must be 'oldestOut' or 'refuse'");
    this.#refuse = whenFull === 'refuse';
    if (retention !== undefined) this.#retention = native.ttl(retention);
    this.#timeout = timeout;
  }

  #call(method, record, { now = 0, epoch = -1, status = 0, order = 0, limit = 0, except, cursor } = {}) {
    const outcome = method === GET || method === GET_ANY || method === LIST || method === EPOCH ? 'not_applied' : 'applied';
    const submit = () => this.#handle.sessions(method, record, this.#timeout, this.#most, this.#refuse, this.#retention, now, epoch, status, order, limit, except, cursor);
    return brought(submit, outcome);
  }

  async #one(method, record, how) { return (await this.#call(method, record, how)).records[0]; }

  async create(fields) {
    if (typeof fields !== 'object' || fields === null) throw invalid('the fields of a session must be an object');
    const { epoch, ...rest } = fields;
    return this.#one(CREATE, encode(SESSION, rest), epoch === undefined ? undefined : { epoch: whole(epoch, 'epoch', 0, Number.MAX_SAFE_INTEGER) });
  }

  async get(by) {
    const { tokenHash, now } = known(by, ['tokenHash', 'now']);
    return this.#one(GET, encodeOne(SESSION, 'tokenHash', tokenHash), { now: instant(now) });
  }

  async getAny(id) { return this.#one(GET_ANY, encodeOne(SESSION, 'id', id)); }

  async listForUser(userId, options = {}) {
    const { now, status, orderBy = ORDERS[0], limit, cursor } = known(options, ['now', 'status', 'orderBy', 'limit', 'cursor']);
    const order = ORDERS.indexOf(orderBy), which = status === undefined || status === null ? 0 : STATUSES.indexOf(status, 1);
    if (order < 0) throw invalid(`orderBy must be one of ${ORDERS.join(', ')}`);
    if (which < 0) throw invalid(`status must be one of ${STATUSES.slice(1).join(', ')}`);
    const { records, cursor: nextCursor } = await this.#call(LIST, encodeOne(SESSION, 'userId', userId), {
      now: instant(now), status: which, order, limit: limit === undefined ? 0 : whole(limit, 'limit', 1, MOST), cursor: cursorText(cursor),
    });
    return { records, nextCursor };
  }

  async refresh(id, changes) {
    encodeOne(SESSION, 'id', id);
    return this.#one(REFRESH, encode(SESSION, changes, id));
  }

  async revoke(id, options) {
    const { revokedAt } = known(options, ['revokedAt']);
    return (await this.#call(REVOKE, put(encodeOne(SESSION, 'id', id), SESSION, 'revokedAt', revokedAt))).hit;
  }

  async revokeAllForUser(userId, options) {
    const { revokedAt, exceptSessionId } = known(options, ['revokedAt', 'exceptSessionId']);
    const except = exceptSessionId === undefined || exceptSessionId === null ? undefined : encodeOne(SESSION, 'id', exceptSessionId)[1];
    return (await this.#call(REVOKE_ALL, put(encodeOne(SESSION, 'userId', userId), SESSION, 'revokedAt', revokedAt), { except })).number;
  }

  async epoch(userId) { return (await this.#call(EPOCH, encodeOne(SESSION, 'userId', userId))).number; }
}

module.exports = { SessionStorage };
