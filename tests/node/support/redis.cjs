'use strict';

// The Redis servers that tests run against: those that the environment names (CF_TEST_REDIS ..., see tests/faults/README.md), else a
// set of this process's own, started when it is first asked for.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { open } = require('counterfoil');
const { Stage } = require('counterfoil/testing');

const root = path.join(__dirname, '..', '..', '..');
const venv = path.join(root, '.venv', 'bin', 'python');
const python = fs.existsSync(venv) ? venv : 'python3';
const servers = path.join(root, 'tests', 'faults', 'servers.py');

let started;

function startSet() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-node-'));
  const run = (...args) => spawnSync(python, [servers, ...args, '--dir', folder], { encoding: 'utf8' });
  // It ends with this process, also when that is killed; only the folder would stay then.
  const { status, stderr, error } = run('start', '--watch', String(process.pid));
  if (status !== 0) throw new Error(`the Redis servers for the tests did not start: ${error ?? stderr}`);
  process.on('exit', () => {
    run('stop');
    fs.rmSync(folder, { recursive: true, force: true });
  });
  return JSON.parse(fs.readFileSync(path.join(folder, 'servers.json'), 'utf8')).environment;
}

/** What a variable says: redisVariable('') is CF_TEST_REDIS, redisVariable('TLS') CF_TEST_REDIS_TLS. */
function redisVariable(which) {
  const name = which === '' ? 'CF_TEST_REDIS' : `CF_TEST_REDIS_${which}`;
  if (process.env.CF_TEST_REDIS === undefined) started ??= startSet();
  const value = (started ?? process.env)[name];
  if (value === undefined) throw new Error(`CF_TEST_REDIS is set, but ${name} is not`);
  return value;
}

let prefixes = 0;
/** In front of keys that must meet nobody else's on a server that others use too. */
const ownPrefix = () => `${process.pid}-${Date.now().toString(36)}-${prefixes++}:`;

/** A stage that begins at what the clock of the server CF_TEST_REDIS_CLOCK says, since records go at an instant, and takes it along. */
class ServerStage extends Stage {
  constructor() {
    super();
    // Each playing of the cases takes it on by decades: in the end there would be no instants left.
    if (this.told() > Date.now() + 50 * 365 * 86400e3) this.tell(Date.now());
    this.stepWall((this.told() - this.now().getTime()) / 1000);
  }
  told() { return Number(fs.readFileSync(redisVariable('CLOCK_FILE'), 'utf8')); }
  tell(ms) {
    const file = redisVariable('CLOCK_FILE');
    fs.writeFileSync(`${file}.new`, `${ms}\n`);
    fs.renameSync(`${file}.new`, file);
  }
  advance(seconds) {
    this.tell(this.told() + Math.round(seconds * 1000));
    super.advance(seconds);
  }
}

/** In place of a stage where everything is real. */
const realStage = () => ({ now: () => new Date(), blocks: 0 });

/** Opens a store with a prefix of its own in front of the case's; one that a case wants as it is stays so. */
function openApart(which, options) {
  const { stage, prefix = '', ...rest } = options;
  const own = ownPrefix();
  const whole = typeof prefix !== 'string' || Buffer.byteLength(prefix) >= 256 - own.length ? prefix : own + prefix;
  if (stage instanceof Stage) rest.stage = stage;
  return open(redisVariable(which), { ...rest, prefix: whole });
}

/** Opens a store as the options say, in a database that no other test uses. */
function openBare(which, options) {
  const url = redisVariable(which);
  const apart = url.startsWith('redis+unix:') ? `${url}?db=15` : url.replace(/\/\d+(?=\?|$)/, '/15');
  return open(apart, { ...options, stage: options.stage instanceof Stage ? options.stage : undefined });
}

module.exports = { redisVariable, ownPrefix, openBare, ServerStage, realStage, openApart, root, python };
