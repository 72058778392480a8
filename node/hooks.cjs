'use strict';

// An AccountsStorage whose methods are the application's own, on tables of its own. The core calls them by one function (bindings/node/host.cc), with e-mails
// normalised and tokens sealed; what they give is looked at here.

const { native, later } = require('./native.cjs');
const { CounterfoilError, invalid } = require('./errors.cjs');
const { atRest } = require('./at_rest.cjs');
const { nativeOf } = require('./stage.cjs');
const { USER, SOCIAL_ACCOUNT, camel, encodeGiven, fromNative, nameOf } = require('./records.cjs');

// The same list as in host.cc.
const CLOSE = 8;
const HOOKS = 256; // SHAPE_HOOKS

/** The methods by their numbers; each takes what the one of AccountsStorage does. */
const METHODS = native.accountsMethods().map(camel);
const READS = new Set(METHODS.filter((name) => /^(find|list)/.test(name) && name !== 'findOrCreateBySocialAccount'));

/** A record as a hook gets it: what is not said is not there. */
function toObject(values) {
  const kind = values[0] === USER.number ? USER : SOCIAL_ACCOUNT;
  const object = {};
  for (const [at, field] of kind.fields.entries()) {
    const value = values[at + 1];
    if (value !== undefined) object[field.name] = fromNative(field, value, 'not_applied');
  }
  return object;
}

/** The arguments of a method. */
function argumentsOf(method, record, user) {
  switch (method) {
    case 'findUserByEmail': return [record.emailKey];
    case 'findUserById':
    case 'findSocialAccountById':
    case 'deleteUser':
    case 'deleteSocialAccount': return [record.id];
    case 'updateUser':
    case 'updateSocialAccount': {
      const { id, ...changes } = record;
      return [id, changes];
    }
    case 'findOrCreateBySocialAccount': return [{ ...record, user }];
    default: return [record];
  }
}

/** What a method gave, as the native half takes it: hit, number, and records. */
function answer(method, result) {
  const outcome = READS.has(method) ? 'not_applied' : 'unknown';
  const one = (kind, value) => encodeGiven(kind, value, method, outcome);
  const wrong = (what) => new CounterfoilError(`${method}() of the hooks gave ${nameOf(result)}, not ${what}`, 'CORRUPT', outcome);
  const nothing = result === undefined || result === null;
  const kind = method.includes('SocialAccount') ? SOCIAL_ACCOUNT : USER;
  switch (method) {
    case 'deleteUser':
    case 'deleteSocialAccount':
      if (!nothing && typeof result !== 'boolean') throw wrong('true or false');
      return [nothing || result, 0];
    case 'listSocialAccounts':
      if (!Array.isArray(result)) throw wrong('an array');
      return [true, 0, ...Array.from(result, (account) => one(SOCIAL_ACCOUNT, account))];
    case 'findOrCreateBySocialAccount': {
      if (nothing || typeof result !== 'object') throw wrong('{user, socialAccount, created}');
      const { user, socialAccount, created } = result;
      if (typeof created !== 'boolean') throw new CounterfoilError(`${method}() of the hooks gave ${nameOf(created)} as created, not true or false`, 'CORRUPT', outcome);
      return [true, created ? 1 : 0, one(SOCIAL_ACCOUNT, socialAccount), one(USER, user)];
    }
    case 'updateUser':
    case 'updateSocialAccount':
      if (nothing) throw new CounterfoilError(`there is no such ${kind.name}`, 'MISSING');
      return [true, 1, one(kind, result)];
    default:
      if (nothing && READS.has(method)) return [false, 0];
      return [true, 0, one(kind, result)];
  }
}

/** Opens the native half over an object with methods of an AccountsStorage. */
function openHooks(hooks, { keys, plainUntil, timeout, stage }) {
  const there = METHODS.filter((name) => hooks[name] !== undefined && hooks[name] !== null);
  const odd = there.find((name) => typeof hooks[name] !== 'function');
  if (odd !== undefined) throw invalid(`${odd} of the hooks must be a method`);
  if (there.length === 0) throw invalid('AccountsStorage takes a store that open() gave, or an object with methods of an AccountsStorage (findUserByEmail ...)');
  const staged = stage === undefined ? undefined : nativeOf(stage);
  if (stage !== undefined && staged === undefined) throw invalid('stage must be a Stage of counterfoil/testing');
  let handle;

  const settleLater = (call, ticket, method, promise) => {
    // A promise of our own around it: a hostile thenable (settles twice, or at once, or throws) cannot break out of it.
    new Promise((resolve) => resolve(promise)).then((result) => answer(method, result)).then(
      (value) => handle.settle(ticket, call, true, value),
      (reason) => handle.settle(ticket, call, false, reason),
    );
    return later;
  };

  const dispatch = (call, ticket, number, values, userValues) => {
    if (call === CLOSE) return undefined;
    const method = METHODS[number];
    if (typeof hooks[method] !== 'function') throw new CounterfoilError(`the hooks have no method ${method}()`, 'NOT_SUPPORTED');
    const record = toObject(values);
    const result = hooks[method](...argumentsOf(method, record, userValues === undefined ? undefined : toObject(userValues)));
    if ((typeof result === 'object' || typeof result === 'function') && result !== null && typeof result.then === 'function') return settleLater(call, ticket, method, result);
    return answer(method, result);
  };

  const { ring, flags, until } = atRest(keys, undefined, undefined, plainUntil);
  try {
    handle = new native.Handle(dispatch, HOOKS, native.identity(), undefined, undefined, timeout, staged, undefined, ring, flags, until);
  } finally {
    ring?.fill(0);
  }
  return handle;
}

module.exports = { METHODS, openHooks };
