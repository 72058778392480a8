'use strict';

// The stories of tests/cases, over every backend of support/backends.cjs, on a stage whose clock stands still.

const { describe, test } = require('node:test');
const assert = require('node:assert/strict');
const { Stage } = require('counterfoil/testing');
const { backends } = require('./support/backends.cjs');
const { allCases, play, lacks } = require('./support/play.cjs');

const cases = allCases();

test('there are cases', () => assert(cases.length > 100));

for (const backend of backends) {
  describe(`cases over ${backend.name}`, () => {
    for (const story of cases) {
      const missing = lacks(story, backend);
      if (missing.length > 0) continue;
      test(`${story.file}: ${story.name}`, async () => {
        const stage = backend.stage?.() ?? new Stage();
        await play(story, backend, stage);
        assert.equal(stage.blocks, 0, 'blocks that nobody released');
      });
    }
  });
}
