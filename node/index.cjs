'use strict';

const { native } = require('./native.cjs');
const { CounterfoilError } = require('./errors.cjs');
const { Backend } = require('./backend.cjs');
const { open, Store } = require('./store.cjs');
const { Storage } = require('./interfaces/storage.cjs');
const { SecondaryStorage } = require('./interfaces/secondary.cjs');
const { AccountsStorage } = require('./interfaces/accounts.cjs');
const { SessionStorage } = require('./interfaces/sessions.cjs');

module.exports = { open, Store, Backend, Storage, SecondaryStorage, AccountsStorage, SessionStorage, CounterfoilError, version: native.version };
