'use strict';

// tests/urls.json, which every binding plays: what is opened without a server, what is refused, and that no sentence shows a secret.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { inspect } = require('node:util');
const { open, CounterfoilError } = require('counterfoil');

const { never, urls } = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'urls.json'), 'utf8'));
const joined = (parts) => [parts].flat().map((part) => typeof part === 'string' ? part : part.repeat[0].repeat(part.repeat[1])).join('');

/** The files that good URLs name are not there. */
const files = (url) => /tls_(ca|cert|key)=/.test(url);

function hidesSecrets(shown, url) {
  for (const secret of never) assert.ok(!shown.includes(secret), url);
}

function checkRefusal(url, vector, error) {
  assert.ok(error instanceof CounterfoilError, `${url}: ${error}`);
  assert.equal(error.code, vector.error ?? 'INVALID', url);
  assert.equal(error.outcome, 'not_applied', url);
  assert.ok(error.message.length > 9, url);
  for (const word of vector.words ?? (vector.error ? [] : ['tls_'])) assert.ok(error.message.includes(word), `${url}: ${error.message}`);
  hidesSecrets(`${error.message} ${inspect(error, { showHidden: true })} ${JSON.stringify(error)}`, url);
}

test('the text of a certificate or key in place of its file is told, and not shown', () => {
  const text = '-----BEGIN PRIVATE KEY-----\nabcdefgh\n-----END PRIVATE KEY-----\n';
  for (const name of ['tlsCa', 'tlsCert', 'tlsKey']) {
    assert.throws(() => open('rediss://localhost', { [name]: text }), (error) => {
      hidesSecrets(inspect(error, { showHidden: true }), name);
      return error.code === 'INVALID' && error.message.includes(`${name} must be the path of a PEM file`) && !error.message.includes('abcdefgh');
    });
  }
});

test('every URL is opened or refused as it should', async () => {
  let opened = 0, refused = 0;
  for (const vector of urls) {
    const url = joined(vector.url);
    const good = vector.says !== undefined && !files(url);
    let store;
    try {
      store = open(url);
    } catch (error) {
      assert.ok(!good, `${url}: ${error}`);
      checkRefusal(url, vector, error);
      refused++;
      continue;
    }
    assert.ok(good, `${url} was opened`);
    hidesSecrets(inspect(store, { showHidden: true, depth: 5 }), url);
    await store.close();
    opened++;
  }
  assert.ok(opened >= 95 && refused >= 300, `${opened} opened, ${refused} refused`);
});
