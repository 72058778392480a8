'use strict';

// A PostgreSQL server of this process's own: in a folder of its own, by a unix socket, as a user without rights.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn, spawnSync } = require('node:child_process');
const { Client } = require('pg');

/** The folder with initdb and postgres, of the newest version that is there; undefined: none is. */
function binaries() {
  const versions = '/usr/lib/postgresql';
  const places = fs.existsSync(versions) ? fs.readdirSync(versions).sort((a, b) => b - a).map((version) => path.join(versions, version, 'bin')) : [];
  return [...places, ...process.env.PATH.split(':')].find((place) => fs.existsSync(path.join(place, 'initdb')) && fs.existsSync(path.join(place, 'postgres')));
}

/** PostgreSQL refuses to run as root; and what is loaded into this process, a sanitizer, is not for it. */
function user() {
  const { LD_PRELOAD, ...env } = process.env;
  if (process.getuid() !== 0) return { env };
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((which) => spawnSync('id', [which, name], { encoding: 'utf8' }));
    if (uid.status === 0) return { env, uid: Number(uid.stdout), gid: Number(gid.stdout) };
  }
  throw new Error('there is no user as whom PostgreSQL could run');
}

/** Starts it; {options (for pg), stop}. */
async function startPostgres() {
  const bin = binaries(), as = user();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cf-pg-'));
  if (as.uid !== undefined) fs.chownSync(folder, as.uid, as.gid);
  const data = path.join(folder, 'data');
  const made = spawnSync(path.join(bin, 'initdb'), ['--no-sync', '--auth=trust', '--username=cf', '--encoding=UTF8', '--no-locale', '-D', data], { ...as, cwd: folder, encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`initdb failed: ${made.error ?? made.stderr}`);
  // Its keeper waits for the end of a pipe that this process holds, so the server ends with it, also when it is killed.
  const keeper = `"$0" "$@" & cat > /dev/null
    kill -TERM $!; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 $! 2> /dev/null || break; sleep 0.1; done
    kill -INT $! 2> /dev/null; wait; cd /; rm -rf '${folder}'`;
  const command = [path.join(bin, 'postgres'), '-D', data, '-k', folder, '-c', 'listen_addresses=', '-F', '-c', 'shared_buffers=16MB'];
  const server = spawn('/bin/sh', ['-c', keeper, ...command], { ...as, cwd: folder, stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  server.stderr.on('data', (text) => { said += text; });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  const options = { host: folder, user: 'cf', database: 'postgres' };
  for (let tries = 0; ; tries++) {
    const client = new Client(options);
    client.on('error', () => {});
    try {
      await client.connect();
      await client.end();
      break;
    } catch (error) {
      if (tries > 300 || server.exitCode !== null) throw new Error(`PostgreSQL did not start: ${said || error}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return {
    options,
    async stop() {
      server.stdin.end();
      await ended;
    },
  };
}

module.exports = { binaries, startPostgres };
