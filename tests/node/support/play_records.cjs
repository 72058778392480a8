'use strict';

// Plays the steps of tests/cases that are about AccountsStorage and SessionStorage (see its README).

const assert = require('node:assert/strict');
const { AccountsStorage, SessionStorage } = require('counterfoil');

const camel = (name) => name.replace(/_[a-z]/g, (pair) => pair[1].toUpperCase());
const isInstant = (name) => name === 'now' || name.endsWith('_at');
const isJson = (name) => name === 'user_info' || name === 'extra_fields';
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isSaidSo = (value, name) => isObject(value) && Object.keys(value).length === 1 && name in value;
const WORDS = new Set(['status', 'order_by']);

/** What methods take in front of an object with the rest. */
const FIRST = {
  'accounts.find_user_by_email': 'email', 'accounts.find_user_by_id': 'id', 'accounts.update_user': 'id', 'accounts.delete_user': 'id', 'accounts.find_social_account_by_id': 'id',
  'accounts.update_social_account': 'id', 'accounts.delete_social_account': 'id', 'sessions.get_any': 'id', 'sessions.list_for_user': 'user_id', 'sessions.refresh': 'id',
  'sessions.revoke': 'id', 'sessions.revoke_all_for_user': 'user_id', 'sessions.epoch': 'user_id',
};

/** The options that a case opens the interfaces with. */
function recordInterfaces(story, store) {
  const { max_social_accounts: maxSocialAccounts, max_sessions: maxSessions, when_full: whenFull, retention } = story.open ?? {};
  return {
    accounts: new AccountsStorage(store, { maxSocialAccounts }),
    sessions: new SessionStorage(store, { maxSessions, whenFull: whenFull && camel(whenFull), retention }),
    known: new Map(),
  };
}

/** A value of that name as the step says it; `value` turns what JSON cannot say. */
function said(name, given, value, stage, known) {
  if (name === 'user' && isObject(given) && !isSaidSo(given, 'wrong_type')) {
    return Object.fromEntries(Object.entries(given).map(([each, inner]) => [camel(each), said(each, inner, value, stage, known)]));
  }
  if (isInstant(name)) {
    if (isSaidSo(given, 'in')) return new Date(stage.now().getTime() + given.in * 1000);
    return typeof given === 'number' ? new Date(given / 1000) : value(given);
  }
  if (isJson(name)) return isSaidSo(given, 'wrong_type') ? value(given) : given;
  const told = value(given);
  if (typeof told === 'string' && told.startsWith('$')) {
    assert(known.has(told.slice(1)), `nothing is remembered as ${told}`);
    return known.get(told.slice(1));
  }
  return WORDS.has(name) && typeof told === 'string' ? camel(told) : told;
}

/** What a step does, as a promise; undefined: it is about something else. */
function actRecords(step, interfaces, stage, value) {
  const [which, method] = step.do.split('.');
  const target = interfaces[which];
  assert(typeof target[camel(method)] === 'function', `tests/cases has a step that this runner does not know: ${step.do}`);
  const given = Object.entries(step.args ?? {}).map(([name, one]) => [name, said(name, one, value, stage, interfaces.known)]);
  const first = FIRST[step.do];
  const rest = Object.fromEntries(given.filter(([name]) => name !== first).map(([name, one]) => [camel(name), one]));
  if ((step.do === 'sessions.list_for_user' || step.do === 'sessions.get') && !('now' in rest)) rest.now = stage.now();
  const args = first === undefined ? [rest] : [given.find(([name]) => name === first)?.[1]];
  if (first !== undefined && (Object.keys(rest).length > 0 || /update|refresh|revoke/.test(method))) args.push(rest);
  return target[camel(method)](...args);
}

function remember(step, result, known) {
  if ('user_as' in step) known.set(step.user_as, result.user.id);
  if (!('as' in step)) return;
  if (typeof result === 'number') known.set(step.as, result);
  else if (step.do === 'sessions.list_for_user') known.set(step.as, result.nextCursor ?? null);
  else known.set(step.as, (result.socialAccount ?? result).id);
}

function compareWith(result, expected, where, name, told) {
  if (Array.isArray(expected) && !isJson(name)) {
    assert.equal(result.length, expected.length, where);
    expected.forEach((one, i) => compareWith(result[i], one, `${where}, ${i}`, name, told));
  } else if (isObject(expected) && !isJson(name) && !isInstant(name) && typeof told('', expected) === 'object') {
    assert(result !== undefined && result !== null, `${where}: nothing`);
    for (const [each, wanted] of Object.entries(expected)) {
      assert(camel(each) in result, `${where}: no ${each}`);
      compareWith(result[camel(each)], wanted, `${where}: ${each}`, each, told);
    }
  } else {
    const wanted = told(name, expected);
    if (name === '' && wanted === null) assert.equal(result, undefined, where);
    else assert.deepEqual(result, wanted, where);
  }
}

/** Looks at what a step brought. */
function compareRecords(step, result, where, interfaces, stage, value) {
  const told = (name, given) => said(name, given, value, stage, interfaces.known);
  remember(step, result, interfaces.known);
  const list = step.do === 'sessions.list_for_user';
  if ('more' in step) assert.equal(result.nextCursor !== undefined, step.more, `${where}: the cursor`);
  const records = list ? result.records : result;
  if ('expect' in step) compareWith(records, step.expect, where, '', told);
  if ('expect_length' in step) {
    assert.equal(records.length, step.expect_length, where);
    assert.equal(new Set(records.map((record) => record.id)).size, records.length, where);
  }
}

function compareExisting(step, error, where, interfaces, stage, value) {
  assert(error.existing !== undefined, `${where}: no existing`);
  compareWith(error.existing, step.existing, `${where}: existing`, '', (name, given) => said(name, given, value, stage, interfaces.known));
}

/** Whether a case needs a clock that stands still. */
const speaksOfNow = (given) =>
  Array.isArray(given) ? given.some(speaksOfNow) : isObject(given) && (isSaidSo(given, 'in') || Object.values(given).some(speaksOfNow));

const isRecordStep = (step) => step.do.startsWith('accounts.') || step.do.startsWith('sessions.');

module.exports = { recordInterfaces, actRecords, compareRecords, compareExisting, speaksOfNow, isRecordStep };
