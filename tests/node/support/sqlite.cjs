'use strict';

// Database files of tests: in folders of this process, which go with it.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { open } = require('counterfoil');

let files = 0;
const folders = new Map();

/** A folder of this process, on the disk, or where nothing waits for one: what a test says about names and values is as true there. */
function folder(where = os.tmpdir()) {
  if (!folders.has(where)) {
    const made = fs.mkdtempSync(path.join(where, 'cf-sqlite-'));
    folders.set(where, made);
    process.on('exit', () => fs.rmSync(made, { recursive: true, force: true }));
  }
  return folders.get(where);
}

/** The path of a database that is not there yet. */
const newFile = () => path.join(folder(), `${files++}.db`);

/** A store on a new database, which goes when the store is closed. */
function openOnce(options) {
  const file = path.join(folder(fs.existsSync('/dev/shm') ? '/dev/shm' : undefined), `${files++}.db`);
  const store = open(`sqlite:${file}`, options);
  store.on('close', () => { for (const end of ['', '-reserve']) fs.rmSync(file + end, { force: true }); });
  return store;
}

module.exports = { newFile, openOnce };
