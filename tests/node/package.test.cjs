'use strict';

// The package as npm would publish it: one version everywhere, the right files, installable with scripts disabled, and built by one command.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..', '..');
const read = (file) => fs.readFileSync(path.join(root, file), 'utf8');

/** The environment of a shell: npm tells its children a lot about the package that it was started for. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_|^COUNTERFOIL_|^LD_PRELOAD$|^NODE_TEST/i.test(name)));

function run(cwd, command, ...args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8', env: environment });
  return { status, stdout, stderr: `${stderr}${error ?? ''}` };
}

function must(cwd, command, ...args) {
  const result = run(cwd, command, ...args);
  assert.equal(result.status, 0, `${command} ${args.join(' ')}\n${result.stdout}\n${result.stderr}`);
  return result.stdout;
}

/**
 * The addon has its libraries inside and shows nothing of them. node exports an OpenSSL of its own, of whatever version: a name of it that the addon
 * left open would be bound to that one.
 */
function checkSymbols(addon) {
  const names = (...args) => must(root, 'nm', '-D', '-P', ...args, addon).split('\n').filter(Boolean).map((line) => line.split(' ')[0]);
  const defined = names('--defined-only').filter((name) => !/^(_init|_fini|_edata|_end|__bss_start)$/.test(name));
  assert.deepEqual(defined.sort(), ['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  const open = names('--undefined-only');
  // Whatever it is made of, an addon needs Node-API: which functions of it, is the binding's business.
  assert(open.some((name) => name.startsWith('napi_')), 'nm gives no undefined names: the next check would see nothing');
  assert.deepEqual(open.filter((name) => /^(_?SSL|TLS|EVP|CRYPTO|OPENSSL|OSSL|X509|BIO|ERR|PEM|ASN1|RAND|BN|EC|RSA|redis|sds|hi_|sqlite3)_?/.test(name)), []);
  // What is left to others: Node-API, libuv's stable part, and libc, whose names have a version (glibc).
  if (process.report.getReport().header.glibcVersionRuntime && !open.some((name) => /^__[at]san_/.test(name))) {
    assert.deepEqual(open.filter((name) => !/^(napi|node_api|uv)_|@GLIBC_|^(_ITM_\w+TMCloneTable|__gmon_start__)$/.test(name)), []);
  }
}

test('one version', () => {
  const version = read('VERSION').trim();
  assert.equal(require('counterfoil').version, version);
  assert.equal(JSON.parse(read('package.json')).version, version);
  assert.equal(JSON.parse(read('package-lock.json')).version, version);
  assert.equal(JSON.parse(read('package-lock.json')).packages[''].version, version);
});

test('nothing runs at install, and the lock file names no registry', () => {
  const { scripts } = JSON.parse(read('package.json'));
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) assert.equal(scripts[name], undefined, name);
  assert(!fs.existsSync(path.join(root, 'binding.gyp')));
  assert.doesNotMatch(read('package-lock.json'), /"resolved"|https?:\/\/[^"]*registry/);
});

test('the addon that is being tested has its libraries inside', { skip: process.platform !== 'linux' }, () => {
  checkSymbols(path.resolve(process.env.COUNTERFOIL_NATIVE ?? path.join(root, 'build-node', 'counterfoil.node')));
});

test('the tarball: installed without scripts it says what to do, and npx counterfoil-build does it', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'counterfoil-package-'));
  try {
    const [{ filename, files }] = JSON.parse(must(root, 'npm', 'pack', '--json', '--pack-destination', folder));
    const names = files.map((file) => file.path);
    for (const file of ['package.json', 'README.md', 'VERSION', 'CMakeLists.txt', 'core/include/counterfoil.h', 'core/src/loop.c', 'bindings/node/addon.cc', 'bindings/node/CMakeLists.txt', 'node/index.cjs',
      'node/index.mjs', 'node/index.d.cts', 'node/index.d.mts', 'node/adapters/express-session.d.mts', 'node/interfaces/storage.cjs', 'node/build.cjs']) assert(names.includes(file), `${file} is missing`);
    for (const name of names) assert(!/^(tests|bench|examples|docs|bindings\/python|python|build)|node_modules|\.ci\//.test(name), `${name} does not belong in it`);

    fs.writeFileSync(path.join(folder, 'package.json'), '{"name": "consumer", "private": true}');
    must(folder, 'npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', `./${filename}`);
    const script = `const { open, version } = require('counterfoil'); const store = open('memory:'); store.set('a', 'b').then(() => store.get('a')).then((value) => console.log(version, value));`;
    if (!names.some((name) => name.startsWith('prebuilds/'))) {
      const before = run(folder, process.execPath, '-e', script);
      assert.notEqual(before.status, 0);
      assert.match(before.stderr, new RegExp(`counterfoil: no native binary for ${process.platform}-${process.arch} .*\\n?.*npx counterfoil-build`));
    }
    must(folder, 'npx', '--no-install', 'counterfoil-build');
    assert.equal(must(folder, process.execPath, '-e', script), `${read('VERSION').trim()} b\n`);
    const esm = `import { open } from 'counterfoil'; import { CounterfoilStore } from 'counterfoil/express-session'; import { Stage } from 'counterfoil/testing'; const store = open('memory:', { stage: new Stage() }); await new CounterfoilStore({ store }).length(); console.log('esm');`;
    assert.equal(must(folder, process.execPath, '--input-type=module', '-e', esm), 'esm\n');
    const addon = path.join(folder, 'node_modules', 'counterfoil', 'build-node', 'counterfoil.node');
    if (process.platform === 'linux') {
      // Only what the binary may need of others: libc and its own, Node-API and libuv; and only what Node looks for is visible.
      const needed = must(folder, 'readelf', '-d', addon).match(/NEEDED.*\[(.*)\]/g).map((line) => line.match(/\[(.*)\]/)[1]);
      for (const library of needed) assert.match(library, /^(libc|libm|libpthread|ld-linux.*)\.so/, library);
      checkSymbols(addon);
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});

test('COUNTERFOIL_NATIVE names another binary; one that cannot be loaded says why', () => {
  const load = (file) => spawnSync(process.execPath, ['-e', `require(${JSON.stringify(root)})`], { encoding: 'utf8', env: { ...environment, COUNTERFOIL_NATIVE: file } });
  assert.match(load('/nonexistent/counterfoil.node').stderr, /no native binary for .*looked in \/nonexistent\/counterfoil\.node/);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'counterfoil-native-'));
  const file = path.join(folder, 'broken.node');
  fs.writeFileSync(file, 'not a library');
  const { stderr } = load(file);
  assert.match(stderr, /broken\.node/);
  assert.doesNotMatch(stderr, /counterfoil-build/);
  fs.rmSync(folder, { recursive: true, force: true });
});
