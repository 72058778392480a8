'use strict';

// tests/emails.json: what an e-mail is looked up by, as hooks are given it, and over a store.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { inspect } = require('node:util');
const { AccountsStorage, open } = require('counterfoil');

const { groups } = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'emails.json'), 'utf8'));
const joined = (parts) => [parts].flat().map((part) => typeof part === 'string' ? part : part.repeat[0].repeat(part.repeat[1])).join('');

test('every vector, as hooks are given it', async () => {
  let asked;
  const accounts = new AccountsStorage({
    findUserByEmail: (emailKey) => { asked = emailKey; },
    createUser: ({ email, emailKey }) => { asked = emailKey; return { id: '1', email }; },
  });
  let seen = 0;
  for (const { name, emails } of groups) {
    for (const vector of emails) {
      const given = joined(vector.given);
      const wanted = vector.refused ? undefined : joined(vector.key);
      asked = undefined;
      await accounts.findUserByEmail(given);
      assert.equal(asked, wanted, `${name}: ${given}, looked up`);
      asked = undefined;
      const made = accounts.createUser({ email: given });
      if (vector.refused) await assert.rejects(made, { code: 'INVALID', outcome: 'not_applied' }, `${name}: ${given}`);
      else assert.equal((await made).email, given);
      assert.equal(asked, wanted, `${name}: ${given}, made`);
      seen++;
    }
  }
  assert.ok(seen >= 120);
  await accounts.close();
});

test('a domain in either form is one person; one that is none is refused without being told', async () => {
  const store = open('memory:');
  const accounts = new AccountsStorage(store);
  const ann = await accounts.createUser({ email: 'Ann@B\u00fccher.de' });
  for (const email of ['ann@xn--bcher-kva.de', 'ann@bu\u0308cher.de', 'ANN@B\u00dcCHER\u3002DE']) {
    assert.deepEqual((({ id, email }) => ({ id, email }))(await accounts.findUserByEmail(email)), { id: ann.id, email: 'Ann@B\u00fccher.de' });
    await assert.rejects(accounts.createUser({ email }), (error) => error.code === 'EXISTS' && error.existing.id === ann.id);
  }
  await assert.rejects(accounts.updateUser(ann.id, { email: 'ann@snow\u2603man.de' }), (error) => {
    assert.match(error.message, /IDNA/);
    assert.doesNotMatch(inspect(error, { showHidden: true }).replace(/^ +at .*$/gm, ''), /snow|man\.de/);
    return error.code === 'INVALID' && error.outcome === 'not_applied';
  });
  assert.equal((await accounts.findUserById(ann.id)).email, 'Ann@B\u00fccher.de');
  await store.close();
});
