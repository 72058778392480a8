#!/usr/bin/env node
'use strict';

// npm run build, npx counterfoil-build: builds the addon with CMake into build-node/, where native.cjs looks for it.
// Arguments that begin with -D go to CMake; --dir=DIR builds in another folder (COUNTERFOIL_NATIVE then names the file for native.cjs).

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const given = process.argv.slice(2);
const wrong = given.find((argument) => !argument.startsWith('-D') && !argument.startsWith('--dir='));
if (wrong !== undefined) {
  console.error(`counterfoil-build: unknown argument ${wrong} (known: -DNAME=VALUE for CMake, --dir=DIR)`);
  process.exit(2);
}
const dir = path.resolve(root, given.find((argument) => argument.startsWith('--dir='))?.slice('--dir='.length) ?? 'build-node');

function run(...args) {
  const { error, status } = spawnSync('cmake', args, { cwd: root, stdio: 'inherit' });
  if (error !== undefined) {
    console.error(
      error.code === 'ENOENT'
        ? 'counterfoil-build: cmake was not found. Install CMake (3.22 or newer), a C++ compiler, hiredis, libidn2, OpenSSL and SQLite; on Debian: apt-get install cmake make g++ pkg-config libhiredis-dev libidn2-dev libssl-dev libsqlite3-dev'
        : `counterfoil-build: cmake could not be started: ${error.message}`,
    );
    process.exit(1);
  }
  if (status === 0) return;
  console.error(
    'counterfoil-build: CMake or the compiler has failed; its message is above. Needed are CMake (3.22 or newer), make, a C++ compiler, libidn2, and hiredis, OpenSSL and SQLite ' +
      'with their static libraries, all with headers; on Debian: apt-get install cmake make g++ pkg-config libhiredis-dev libidn2-dev libssl-dev libsqlite3-dev',
  );
  process.exit(status ?? 1);
}

// CMake refuses a cache that was made where this folder was before it was moved.
const cache = path.join(dir, 'CMakeCache.txt');
const home = fs.existsSync(cache) && /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1];
if (home !== false && path.resolve(home ?? '') !== root) {
  fs.rmSync(cache, { force: true });
  fs.rmSync(path.join(dir, 'CMakeFiles'), { recursive: true, force: true });
}

run(
  '-S', root, '-B', dir,
  '-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DCF_BUILD_NODE=ON', '-DCF_BUILD_PYTHON=OFF', '-DCF_BUILD_TESTS=OFF',
  `-DCF_NODE_EXECUTABLE=${process.execPath}`, `-DCF_NODE_OUT=${dir}`,
  ...given.filter((argument) => argument.startsWith('-D')),
);
run('--build', dir, '--target', 'counterfoil_node', '--parallel', String(Math.min(2, os.cpus().length)));
console.log(`counterfoil-build: ${path.join(dir, 'counterfoil.node')}`);
