'use strict';

// One party of the sqlite bench, in Node: node party.cjs PATH RIVALS (raw|session) PARTY
//
// PATH is a file of this party's own, which is not there yet. RIVALS is the folder whose node_modules has the others.
// See loops.cjs.

const { createRequire } = require('node:module');
const { KEYS, DAY, sessions, ofTexts, ofSessions, serve, fail } = require('../shared/loops.cjs');

const [path, folder, kind, name] = process.argv.slice(2);
const rival = createRequire(folder + '/package.json');
const session = rival('express-session');
const { sessionOf, textOf } = sessions(session.Cookie);

const TABLE = 'CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value TEXT NOT NULL) STRICT, WITHOUT ROWID';
const GET = 'SELECT value FROM entry WHERE key = ? AND (expiry IS NULL OR expiry > ?)';
const SET = `INSERT INTO entry(key, expiry, value) VALUES(?, ?, ?)
  ON CONFLICT(key) DO UPDATE SET expiry = excluded.expiry, value = excluded.value`;

function ours(ttl) {
  return require('../..').open(`sqlite:${path}`, { ttl });
}

function database() {
  const db = new (rival('better-sqlite3'))(path);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  return db;
}

// So often that the WAL of everybody is as long as it gets (party.py).
const TIMES = 4;

// All in one transaction: only what is measured commits each set.
function fillAtOnce(db, set) {
  for (let time = 0; time < TIMES; time++) {
    db.exec('BEGIN');
    for (let i = 0; i < KEYS; i++) set(i);
    db.exec('COMMIT');
  }
}

async function fillTogether(set) {
  for (let at = 0; at < TIMES * KEYS; at += 1000) await Promise.all(Array.from({ length: 1000 }, (_, i) => set((at + i) % KEYS)));
}

const parties = {
  'raw counterfoil': async () => {
    const party = ofTexts(ours(DAY), textOf);
    await fillTogether(party.set);
    return party;
  },
  'raw better-sqlite3': async () => {
    const db = database();
    db.exec(TABLE);
    const get = db.prepare(GET).pluck();
    const set = db.prepare(SET);
    const client = { get: (key) => get.get(key, Date.now()), set: (key, value) => set.run(key, Date.now() + DAY * 1000, value) };
    const party = ofTexts(client, textOf);
    fillAtOnce(db, party.set);
    return party;
  },
  // What the loops themselves cost.
  'raw nothing': async () => {
    const kept = new Map();
    const party = ofTexts({ get: (key) => kept.get(key), set: (key, value) => kept.set(key, value) }, textOf);
    for (let i = 0; i < KEYS; i++) party.set(i);
    return party;
  },
  'session counterfoil': async () => {
    const { CounterfoilStore } = require('../../node/adapters/express-session.cjs');
    const party = ofSessions(new CounterfoilStore({ store: ours() }), sessionOf);
    await fillTogether(party.set);
    return party;
  },
  'session better-sqlite3-session-store': async () => {
    const db = database();
    const Store = rival('better-sqlite3-session-store')(session);
    const party = ofSessions(new Store({ client: db }), sessionOf);
    fillAtOnce(db, party.set);
    return party;
  },
};

async function main() {
  await serve(await parties[`${kind} ${name}`](), true);
}

main().catch(fail);
