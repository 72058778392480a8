'use strict';

// The package as npm would publish it: one version everywhere, the right files, installable with scripts disabled, and built by one command.

const { test, describe, before, after } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..', '..');
const read = (file) => fs.readFileSync(path.join(root, file), 'utf8');

/** The environment of a shell: npm tells its children a lot about the package that it was started for. Where it finds packages stays. */
const ofAShell = (name) => /^npm_config_(registry|cafile|cache)$/i.test(name) || !/^npm_|^COUNTERFOIL_|^LD_PRELOAD$|^NODE_TEST/i.test(name);
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => ofAShell(name)));

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
 * The addon has its libraries inside (but libidn2) and shows nothing of them. node exports an OpenSSL of its own, of whatever version: a name of it that the addon
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
  // What is left to others: Node-API, libuv's stable part, libidn2, and libc, whose names have a version (glibc).
  if (process.report.getReport().header.glibcVersionRuntime && !open.some((name) => /^__[at]san_/.test(name))) {
    assert.deepEqual(open.filter((name) => !/^(napi|node_api|uv)_|@GLIBC_|^idn2_\w+@IDN2_|^(_ITM_\w+TMCloneTable|__gmon_start__)$/.test(name)), []);
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

const QUIETLY = ['--no-audit', '--no-fund', '--prefer-offline'];
/** What can be required or imported. */
const ways = () => Object.keys(JSON.parse(read('package.json')).exports)
  .filter((name) => name !== './package.json')
  .map((name) => `counterfoil${name.slice(1)}`);

describe('the tarball', () => {
  let folder, tarball, names;
  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'counterfoil-package-'));
    const [{ filename, files }] = JSON.parse(must(root, 'npm', 'pack', '--json', '--pack-destination', folder));
    tarball = path.join(folder, filename);
    names = files.map((file) => file.path);
  });
  after(() => fs.rmSync(folder, { recursive: true, force: true }));

  /** A project of somebody's, with the programs that tests/frameworks/node/consumer has. */
  function newProject(name) {
    const project = path.join(folder, name);
    fs.cpSync(path.join(root, 'tests', 'frameworks', 'node', 'consumer'), project, { recursive: true });
    fs.writeFileSync(path.join(project, 'package.json'), '{"name": "consumer", "private": true}');
    return project;
  }

  const versionOf = (name) => `${name}@${require(path.join(root, 'node_modules', name, 'package.json')).version}`;
  const others = ['express-session', '@types/express-session', '@types/node'].map(versionOf);

  /** Before the addon is there: what to do. */
  function saysWhatToDo(project) {
    if (names.some((name) => name.startsWith('prebuilds/'))) return;
    const { status, stderr } = run(project, process.execPath, '-e', `require('counterfoil')`);
    assert.notEqual(status, 0);
    const platform = `${process.platform}-${process.arch}`;
    assert.match(stderr, new RegExp(`counterfoil: no native binary for ${platform} .*\\n?.*npx counterfoil-build`));
  }

  /** Compiles a tsconfig with the TypeScript that is installed there, and runs what comes out. */
  function compiled(project, config, typescript) {
    const tsc = path.join(typescript, 'node_modules', 'typescript', 'bin', 'tsc');
    must(project, process.execPath, tsc, '--project', config);
    const { outDir } = JSON.parse(fs.readFileSync(path.join(project, config), 'utf8')).compilerOptions;
    const programs = fs.readdirSync(path.join(project, outDir)).sort();
    return programs.map((program) => must(project, process.execPath, path.join(outDir, program)).trim());
  }

  test('has what it needs, and nothing else', () => {
    const wanted = [
      'package.json', 'README.md', 'VERSION', 'CMakeLists.txt', 'core/include/counterfoil.h', 'core/src/loop.c',
      'bindings/node/addon.cc', 'bindings/node/CMakeLists.txt', 'node/index.cjs', 'node/index.mjs', 'node/index.d.cts',
      'node/index.d.mts', 'node/adapters/express-session.d.mts', 'node/interfaces/storage.cjs', 'node/build.cjs',
    ];
    for (const file of wanted) assert(names.includes(file), `${file} is missing`);
    const foreign = /^(tests|bench|examples|docs|bindings\/python|python|build)|node_modules|\.ci\//;
    for (const name of names) assert.doesNotMatch(name, foreign, 'it does not belong in it');
  });

  test('the programs of the projects below use every way in', () => {
    for (const program of ['every.mts', 'every.cts', 'oldest.ts']) {
      const text = read(path.join('tests', 'frameworks', 'node', 'consumer', program));
      for (const way of ways()) assert(text.includes(`'${way}'`), `${program} does not use ${way}`);
    }
  });

  test('npm without scripts: it says what to do, npx counterfoil-build does it, and every way in works, in TypeScript too', () => {
    const project = newProject('npm');
    const install = (...packages) => must(project, 'npm', 'install', ...QUIETLY, '--ignore-scripts', ...packages);
    install(tarball);
    saysWhatToDo(project);
    must(project, 'npx', '--no-install', 'counterfoil-build');
    const script = `const { open, version } = require('counterfoil'); const store = open('memory:');
      store.set('a', 'b').then(() => store.get('a')).then((value) => console.log(version, value));`;
    assert.equal(must(project, process.execPath, '-e', script), `${read('VERSION').trim()} b\n`);
    // Without any framework, as the first thing that is loaded.
    for (const way of ways()) {
      const both = `const all = Object.keys(require('${way}'));
        import('${way}').then((module) => console.log(all.length > 0 && all.every((one) => one in module)))`;
      assert.equal(must(project, process.execPath, '-e', both), 'true\n', way);
    }
    const addon = path.join(project, 'node_modules', 'counterfoil', 'build-node', 'counterfoil.node');
    if (process.platform === 'linux') {
      // Only what the binary may need of others: libc and its own, libidn2 (LGPL, so never inside), Node-API and libuv; and only what Node looks for is visible.
      const needed = must(project, 'readelf', '-d', addon).match(/NEEDED.*\[(.*)\]/g).map((line) => line.match(/\[(.*)\]/)[1]);
      for (const library of needed) assert.match(library, /^(libc|libm|libpthread|libidn2|ld-linux.*)\.so/, library);
      checkSymbols(addon);
    }
    install(...others, 'typescript@5.9.3');
    assert(fs.existsSync(addon), 'another npm install leaves the addon where it is');
    assert.deepEqual(compiled(project, 'tsconfig.node16.json', root), ['every.cts', 'every.mts']);
    assert.deepEqual(compiled(project, 'tsconfig.node10.json', project), ['oldest.ts']);
  });

  test('pnpm, which runs no scripts: it says what to do, pnpm exec counterfoil-build does it, and every way in works', () => {
    const project = newProject('pnpm');
    const program = path.join(root, 'node_modules', 'pnpm', 'bin', 'pnpm.cjs');
    const pnpm = (...args) => must(project, process.execPath, program, ...args);
    const kept = path.join(root, 'build', 'frameworks', 'pnpm-store');
    const said = pnpm('add', '--prefer-offline', '--store-dir', kept, tarball, ...others);
    assert.doesNotMatch(said, /Ignored build scripts/, 'nothing of ours wants to run');
    saysWhatToDo(project);
    pnpm('exec', 'counterfoil-build', '-DCMAKE_BUILD_TYPE=Debug'); // which takes a third of the time
    assert.deepEqual(compiled(project, 'tsconfig.json', root), ['every.cts', 'every.mts']);
  });
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
