'use strict';

// The types as their users see them: compiled under tsc --strict, and judged by attw and publint.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..', '..');
const major = Number(process.versions.node.split('.')[0]);

function tool(name, ...args) {
  const { bin } = require(path.join(root, 'node_modules', name, 'package.json'));
  const file = path.join(root, 'node_modules', name, typeof bin === 'string' ? bin : bin[args.shift()]);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], { cwd: root, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
}

test('tsc --strict', () => tool('typescript', 'tsc', '--project', 'tests/node/types'));
test('publint --strict', () => tool('publint', 'publint', '--strict'));
test('attw', { skip: major < 20 && `attw needs Node 20, this is ${process.version}` }, () => tool('@arethetypeswrong/cli', 'attw', '--pack', '.', '--no-emoji'));

test('every export has its types, and they say what is there', () => {
  const { exports } = require('../../package.json');
  for (const [name, entry] of Object.entries(exports)) {
    if (typeof entry === 'string') continue;
    for (const [condition, files] of Object.entries(entry)) {
      assert.deepEqual(Object.keys(files), ['types', 'default'], `${name} ${condition}: types come first`);
      for (const file of Object.values(files)) assert(require('node:fs').existsSync(path.join(root, file)), file);
    }
  }
});
