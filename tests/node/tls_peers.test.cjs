'use strict';

// TLS as a caller in Node meets it: every bad peer of the fault kit is refused before it has heard a word, the good ones are accepted.

const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { open, CounterfoilError } = require('counterfoil');
const { TlsPeers } = require('../faults/faults.cjs');

const USER = 'annabel', PASSWORD = 'hunter22';
const TIMEOUT = 1.5, CONNECT = 0.4; // of a call, of one attempt: so that the call knows why, when it gives up

/** AUTH where somebody who is not to be trusted answers, UNAVAILABLE where there is nobody. */
function codes(name, { ends }) {
  if (ends === 'deadline') return ['UNAVAILABLE', 'TIMEOUT'];
  if (/^(closed|reset|truncated)_/.test(name)) return ['UNAVAILABLE'];
  // Of a record that cannot be decrypted OpenSSL says in TLS 1.2 only that a cipher failed.
  return name === 'bad_finished_1_2' ? ['UNAVAILABLE', 'AUTH'] : ['AUTH'];
}

/** Words of which the sentence must have one: what the kit advises, and where OpenSSL says it in others. */
function words(name, { ends, because }) {
  if (ends === 'deadline') return ['the tls handshake did not end'];
  return [...because, ...({ unknown_ca: ['self-signed certificate in'], bad_finished_1_2: ['cipher operation failed'] }[name] ?? [])];
}

let peers;
const attempts = {};

/** Two calls to one peer, together; what came of them. */
async function attempt(name) {
  const { host, port } = peers.peers[name];
  const told = [];
  const store = open(`rediss://${USER}:${PASSWORD}@${host}:${port}?tls_ca=${peers.ca}&connect_timeout=${CONNECT}`, { timeout: TIMEOUT });
  for (const event of ['connect', 'disconnect', 'error', 'warning']) store.on(event, (what) => told.push(`${event} ${what?.message ?? what}`));
  const start = process.hrtime.bigint();
  const settled = await Promise.allSettled([store.get('key'), store.set('key', PASSWORD)]);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  await store.close();
  attempts[name] = { errors: settled.map(({ reason }) => reason), told, seconds };
}

before(async () => {
  peers = await TlsPeers.start();
  // All at the same time: those that stall take as long as a deadline.
  await Promise.all(Object.keys(peers.peers).map(attempt));
  for (const name of Object.keys(attempts)) Object.assign(attempts[name], await peers.seen(name));
});
after(() => peers?.stop());

test('every bad peer is refused, and has heard nothing', async (t) => {
  assert.ok(Object.keys(attempts).length > 50);
  for (const [name, { errors, told, seconds, seen, accepted }] of Object.entries(attempts)) {
    await t.test(name, () => {
      const peer = peers.peers[name];
      assert.equal(seen, '');
      assert.ok(accepted >= 1);
      for (const error of errors) {
        assert.ok(error instanceof CounterfoilError, String(error));
        assert.ok(codes(name, peer).includes(error.code), `${error.code}: ${error.message}`);
        assert.equal(error.outcome, 'not_applied');
        assert.ok(words(name, peer).some((word) => error.message.toLowerCase().includes(word)), error.message);
        assert.doesNotMatch(`${error.message} ${error.stack} ${JSON.stringify(error)}`, new RegExp(`${USER}|${PASSWORD}`));
      }
      assert.ok(told.some((line) => line.startsWith('error ')));
      assert.ok(!told.some((line) => line.startsWith('connect ')));
      assert.doesNotMatch(told.join(' '), new RegExp(`${USER}|${PASSWORD}`));
      if (peer.ends === 'refused' && codes(name, peer).join() === 'AUTH') assert.equal(accepted, 1, 'who is not trusted is not asked again at once');
      assert.ok(seconds < TIMEOUT + 5);
    });
  }
});

test('a good server is accepted by each of its names', async () => {
  assert.ok(peers.good.length >= 3);
  for (const where of peers.good) {
    const store = open(`rediss://${where}`, { tls_ca: peers.ca });
    await store.set('key', where);
    assert.equal(await store.pop('key'), where);
    await store.close();
  }
});

test('the control: the system does not trust the authority of the tests', async () => {
  const store = open(`rediss://${peers.good[0]}`);
  await assert.rejects(store.get('key'), { code: 'AUTH', message: /certificate/ });
  await store.close();
});
