'use strict';

// Records between programs and the native half (bindings/node/records.cc): there an array, the number of the kind and then the fields in the order of
// core/include/counterfoil/schema.def; here an object, with Dates for instants and JSON values for JSON.

const { inspect } = require('node:util');
const { native, promised } = require('./native.cjs');
const { CounterfoilError, invalid } = require('./errors.cjs');

// cf_field_type
const TEXT = 0, JSON_TEXT = 1, SECRET = 2, BOOLEAN = 3, NUMBER = 4;

/** email_verified -> emailVerified */
const camel = (name) => name.replace(/_[a-z]/g, (pair) => pair[1].toUpperCase());

/** What the core makes and keeps for itself: it is given to hooks, and shown to nobody else. */
const INTERNAL = new Set(['emailKey']);

const KINDS = native.kinds().map(([name, fields], number) => ({
  name,
  number,
  fields: fields.map(([field, type]) => ({ name: camel(field), type })),
  places: new Map(fields.map(([field], at) => [camel(field), at])),
}));
const [USER, SOCIAL_ACCOUNT, SESSION] = ['user', 'social_account', 'session'].map((name) => KINDS.find((kind) => kind.name === name));

/** CF_STATUS_ACTIVE ... */
const STATUSES = [undefined, 'active', 'expired', 'revoked'];

// ------------------------------------------------------------------------------------------------------------------- in --

const isInteger = (value) => Number.isSafeInteger(value) || (typeof value === 'bigint' && value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER);

/** Half a character is no text: nothing that is kept has it. */
const isText = (value) => !/\p{Surrogate}/u.test(value);

/** An id is text; those of an application's own tables are often integers, which are the same ids as their decimal texts. */
const isId = (name) => name === 'id' || name === 'userId' || name === 'providerUserId';

function jsonText(value, name) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch {
    // Not as the cause: the engine's sentence shows property names of the value.
  }
  if (text === undefined) throw invalid(`${name} cannot be written as JSON`);
  return text === 'null' ? null : text;
}

/** What a field of that type must be, for sentences. */
function wanted({ name, type }) {
  switch (type) {
    case TEXT: return isId(name) ? 'a string or a safe integer' : 'a string';
    case SECRET: return 'a string';
    case BOOLEAN: return 'true or false';
    case NUMBER: return 'a safe integer';
    default: return 'a valid Date';
  }
}

/** The instant of a Date in microseconds, or undefined for what is no valid Date. */
function microseconds(value) {
  // Asked of the slot inside it: a Date of another realm is one, an object that merely has the prototype is none.
  let ms;
  try { ms = Date.prototype.getTime.call(value); } catch { return undefined; }
  return Number.isNaN(ms) ? undefined : ms * 1000;
}

/** A value as the native half takes it; throws what `wrong(field, wanted)` gives. */
function toNative(field, value, wrong) {
  if (value === undefined || value === null) return value;
  switch (field.type) {
    case TEXT:
      if (typeof value === 'string') return value;
      if (isId(field.name) && isInteger(value)) return String(value);
      break;
    case JSON_TEXT: return jsonText(value, field.name);
    case SECRET:
      if (typeof value === 'string') return value;
      break;
    case BOOLEAN:
      if (typeof value === 'boolean') return value;
      break;
    case NUMBER:
      if (Number.isSafeInteger(value)) return value;
      break;
    default: {
      const instant = microseconds(value);
      if (instant !== undefined) return instant;
    }
  }
  throw wrong(field, wanted(field), value);
}

const wrongType = (field, what) => invalid(`${field.name} must be ${what}`);

const blank = (kind) => [kind.number, ...new Array(kind.fields.length).fill(undefined)];

function put(record, kind, name, value) {
  const at = kind.places.get(name);
  record[at + 1] = toNative(kind.fields[at], value, wrongType);
  return record;
}

/** A record that says what the object does, and perhaps an id; what is undefined is not said. `but`: names that the object must not have. */
function encode(kind, object, id, but = []) {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) throw invalid(`the fields of a ${kind.name.replace('_', ' ')} must be an object`);
  const record = blank(kind);
  for (const name of Object.keys(object)) {
    if (!kind.places.has(name) || INTERNAL.has(name) || but.includes(name)) throw invalid(`unknown field: ${name}`);
    if (name === 'id') throw invalid('an id is not for the caller to say there');
    put(record, kind, name, object[name]);
  }
  if (id !== undefined) put(record, kind, 'id', soughtText(id));
  return record;
}

/** What is looked for: what can be nobody's is, for the core, an empty text. */
const soughtText = (value) => (typeof value === 'string' && !isText(value) ? '' : value);

/** A record of one field, by which it is looked for, and which must be said. */
function encodeOne(kind, name, value) {
  if (value === undefined || value === null) throw wrongType({ name }, wanted(kind.fields[kind.places.get(name)]));
  return put(blank(kind), kind, name, soughtText(value));
}

/** The same by several. */
const encodeSought = (kind, object) => encode(kind, object).map(soughtText);

/** A social account that is made: one can sign in with it unless it is said that one cannot. */
function encodeNewAccount(fields) {
  const record = encode(SOCIAL_ACCOUNT, fields);
  record[SOCIAL_ACCOUNT.places.get('isLoginMethod') + 1] ??= fields.isLoginMethod === null ? null : true;
  return record;
}

/** A user's, or a social account's, that a hook gave. */
function encodeGiven(kind, object, method, outcome) {
  const corrupt = (text) => new CounterfoilError(`${method}() of the hooks gave ${text}`, 'CORRUPT', outcome);
  if (typeof object !== 'object' || object === null) throw corrupt(`${nameOf(object)}, not a ${kind.name.replace('_', ' ')}`);
  const record = blank(kind);
  for (const [at, field] of kind.fields.entries()) {
    if (INTERNAL.has(field.name)) continue;
    try {
      record[at + 1] = toNative(field, object[field.name], (_, what, value) => corrupt(`${nameOf(value)} as ${field.name}, not ${what}`));
    } catch (error) {
      if (error instanceof CounterfoilError && error.code === 'INVALID') throw corrupt(`what cannot be written as JSON as ${field.name}`);
      throw error;
    }
  }
  // Not every table says when.
  for (const name of ['createdAt', 'updatedAt']) record[kind.places.get(name) + 1] ??= 0;
  if (kind === SOCIAL_ACCOUNT) record[kind.places.get('isLoginMethod') + 1] ??= true;
  return record;
}

/** Of a value, its type with an article: never more of it. */
function nameOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

// ------------------------------------------------------------------------------------------------------------------ out --

function fromNative({ name, type }, value, outcome) {
  if (value === null || value === undefined) return null;
  switch (type) {
    case JSON_TEXT:
      try {
        return JSON.parse(value);
      } catch {
        throw new CounterfoilError(`the stored ${name} is not JSON`, 'CORRUPT', outcome); // the engine's sentence would show a piece of it
      }
    case TEXT: case SECRET: case BOOLEAN: case NUMBER: return value;
    default: return new Date(Math.floor(value / 1000));
  }
}

/** Worth as much as what they open. They are there, but no log, no JSON and no copy of a record has them by accident. */
const HIDDEN = new Set(['hashedPassword', 'tokenHash']);

/** Fills in an object of a class below. */
function fill(target, kind, values, outcome) {
  for (const [at, field] of kind.fields.entries()) {
    if (INTERNAL.has(field.name)) continue;
    const value = fromNative(field, values[at + 1], outcome);
    const enumerable = field.type !== SECRET && !HIDDEN.has(field.name);
    Object.defineProperty(target, field.name, { value, enumerable, configurable: true, writable: true });
  }
}

/** What a log sees of a record: which it is. */
function shown(record, names, depth, options) {
  const some = Object.fromEntries(names.map((name) => [name, record[name]]));
  return `${record.constructor.name} ${inspect(some, { ...options, depth })}`;
}

class User {
  constructor(values, outcome) {
    fill(this, USER, values, outcome);
    this.hasUsablePassword = this.hashedPassword !== null && this.hashedPassword !== '';
  }
  [inspect.custom](depth, options) { return shown(this, ['id'], depth, options); }
}

class SocialAccount {
  constructor(values, outcome) { fill(this, SOCIAL_ACCOUNT, values, outcome); }
  [inspect.custom](depth, options) { return shown(this, ['id', 'userId', 'provider'], depth, options); }
}

class Session {
  constructor(values, outcome) {
    fill(this, SESSION, values, outcome);
    this.status = STATUSES[values[SESSION.fields.length + 1]];
  }
  [inspect.custom](depth, options) { return shown(this, ['id', 'userId', 'status'], depth, options); }
}

const CLASSES = new Map([[USER.number, User], [SOCIAL_ACCOUNT.number, SocialAccount], [SESSION.number, Session]]);

function decode(values, outcome) {
  const Class = CLASSES.get(values[0]);
  return new Class(values, outcome);
}

/** What an operation brings that `submit` begins, at once: {hit, number, cursor, records}. An EXISTS error gets the record that is there already. */
async function brought(submit, outcome) {
  try {
    const [hit, number, cursor, ...records] = await promised(submit());
    return { hit, number, cursor, records: records.map((values) => decode(values, outcome)) };
  } catch (error) {
    if (error instanceof CounterfoilError && Array.isArray(error.existing) && CLASSES.has(error.existing[0])) {
      try { error.existing = decode(error.existing, 'not_applied'); } catch { delete error.existing; } // that it exists is the news
    }
    throw error;
  }
}

module.exports = { USER, SOCIAL_ACCOUNT, SESSION, STATUSES, camel, encode, encodeOne, encodeSought, encodeNewAccount, encodeGiven, put, blank, brought, decode, fromNative, microseconds, nameOf, INTERNAL };
