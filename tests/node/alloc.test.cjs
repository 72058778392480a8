'use strict';

// Allocation chaos: every case once more with the first allocation of the core failing, then the second ... until one run needs none
// that fails. A failure is NO_MEMORY; where it says that nothing was changed, the same step simply works when it is repeated, and the
// rest of the story goes as it always does. At the end every block has been given back.

const { describe, test } = require('node:test');
const assert = require('node:assert/strict');
const { Stage } = require('counterfoil/testing');
const { backends: all } = require('./support/backends.cjs');
const { allCases, act, compare, lacks, openOptions, interfacesOf } = require('./support/play.cjs');

// A connection that fails for want of memory is tried again later, which on a stage never comes: tests/c moves the time for Redis. Of SQLite the
// one in memory stands for all: what a file adds, disk and locks, allocates nothing here, and takes a minute to open and close so often.
const backends = all.filter((backend) => !backend.shared && !backend.file);

const isNoMemory = (error) => error?.code === 'NO_MEMORY';

/** One run with the nth allocation failing. False: the story had fewer. */
async function chaos(story, backend, n) {
  const stage = new Stage();
  stage.failAllocation(n);
  const options = openOptions(story, stage);
  let store;
  try {
    store = backend.open(options, story.open?.query);
  } catch (error) {
    if (!isNoMemory(error)) throw error;
    assert.equal(error.outcome, 'not_applied');
    store = backend.open(options, story.open?.query);
  }
  try {
    const interfaces = interfacesOf(story, store);
    for (const [i, step] of story.steps.entries()) {
      const where = `allocation ${n}, step ${i + 1}: ${JSON.stringify(step).slice(0, 200)}`;
      const attempt = async () => {
        try {
          return { result: await act(step, store, stage, interfaces) };
        } catch (error) {
          return { error };
        }
      };
      let { result, error } = await attempt();
      if (isNoMemory(error)) {
        assert(stage.failed, `${where}: no allocation has failed`);
        assert.doesNotMatch(error.message, /undefined|null/);
        // Not so only for what a backend in JavaScript or a composed operation had done before memory ran out: then the story ends here.
        if (error.outcome !== 'not_applied') break;
        ({ result, error } = await attempt());
      }
      if (step.error !== undefined) assert.equal(error?.code, step.error, where);
      else if (error !== undefined) assert.fail(`${where}: ${error.stack}`);
      else compare(step, result, where, stage, interfaces);
    }
  } finally {
    await store.close();
  }
  const { failed } = stage;
  assert.equal(stage.blocks, 0, `allocation ${n}: blocks that nobody released`);
  return failed;
}

const cases = allCases().filter((story) => story.steps !== undefined);

// The shared memory backend is the private one's code, with one allocation more.
for (const backend of backends.filter((one) => one.name !== 'memory, shared')) {
  describe(`allocation chaos over ${backend.name}`, () => {
    for (const [i, story] of cases.entries()) {
      if (lacks(story, backend).length > 0) continue;
      test(`${story.file}: ${story.name}`, async () => {
        // Every one of the first, then ever fewer: a story that fills in thousands of keys repeats itself.
        const long = story.steps.reduce((sum, step) => sum + (step.do === 'fill' ? step.count : 0), 0) > 100;
        // Those of records have hundreds each, all of them on the same few paths: each story tries every fifth, from a place of its own.
        const records = story.needs?.includes('records') === true;
        for (let n = records ? 1 + (i % 5) : 1; await chaos(story, backend, n); n += records ? 5 : n < (long ? 16 : 120) ? 1 : Math.ceil(n / (long ? 1 : 8))) {
          assert(n < 1e6, 'the failures do not end');
        }
      });
    }
  });
}

test('when memory is gone for good, every operation says so and changes nothing, and it all works again afterwards', async () => {
  for (const backend of backends) {
    const stage = new Stage();
    const store = backend.open({ stage });
    await store.set('a', '1');
    stage.failAllocation(1, { forGood: true });
    let refused = 0;
    for (let i = 0; i < 50; i++) {
      const error = await store.set(`k${i}`, 'x'.repeat(100 + i)).then(() => undefined, (thrown) => thrown);
      if (error === undefined) continue;
      assert.deepEqual([error.code, error.outcome], ['NO_MEMORY', 'not_applied'], backend.name);
      refused++;
    }
    assert.throws(() => backend.open({ stage, prefix: 'p:' }), { code: 'NO_MEMORY' });
    stage.failAllocation(0);
    if (backend.has.includes('memory')) {
      assert(refused > 0);
      assert.equal(await store.count(), 51 - refused);
    }
    assert.equal(await store.get('a'), '1');
    assert.equal(await store.set('k', 'y'), true);
    await store.close();
    assert.equal(stage.blocks, 0);
  }
});
