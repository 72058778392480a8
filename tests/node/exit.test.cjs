'use strict';

// How processes end: by themselves, by exit, by an exception; with the right code, and never by a signal or not at all.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { spawn } = require('node:child_process');

const root = path.join(__dirname, '..', '..');
const prelude = `const { open } = require('counterfoil'); const { Stage } = require('counterfoil/testing');
  const hanging = (options) => open({ get: () => new Promise(() => {}), set() {}, delete() {} }, options);`;

/** Runs a script to its end; a minute is a hang. */
function run(script, flags = []) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...flags, '-e', prelude + script], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '', err = '';
    child.stdout.on('data', (piece) => { out += piece; });
    child.stderr.on('data', (piece) => { err += piece; });
    const guard = setTimeout(() => { child.kill('SIGKILL'); reject(new Error(`it hangs: ${script}\n${err}`)); }, 60000);
    child.on('close', (code, signal) => { clearTimeout(guard); resolve({ code, signal, out, err }); });
  });
}

const ends = (what, script, code, out = '', flags) =>
  test(what, async () => {
    const result = await run(script, flags);
    assert.deepEqual({ code: result.code, signal: result.signal, out: result.out }, { code, signal: null, out }, result.err);
  });

ends('an idle store keeps nothing alive', `open('memory:'); open('memory:x'); hanging();`, 0);
ends('nor one that has answered', `const store = open('memory:'); store.set('a', '1').then(() => store.get('a')).then(console.log);`, 0, '1\n');
ends('nor one whose promises have all been answered',
  `const store = open({ get: async () => { await new Promise((done) => setTimeout(done, 20)); return 'x'; }, set() {}, delete() {} }); Promise.all([store.get('a'), store.get('b')]).then((all) => console.log(all.join()));`, 0, 'x,x\n');
ends('an operation that waits does, until its deadline', `hanging({ timeout: 0.2 }).get('a').catch((error) => console.log(error.code));`, 0, 'TIMEOUT\n');
ends('and again later', `const store = hanging({ timeout: 0.05 }); store.get('a').catch(() => setTimeout(() => store.get('a').catch((error) => console.log(error.code)), 50));`, 0, 'TIMEOUT\n');
ends('closing lets go', `const store = hanging(); store.get('a').catch((error) => console.log(error.code)); store.close();`, 0, 'CLOSED\n');
ends('process.exit with operations in flight', `for (let i = 0; i < 100; i++) hanging().get('a'); process.exit(3);`, 3);
ends('process.exit a turn later', `for (let i = 0; i < 100; i++) hanging().get('a'); setTimeout(() => process.exit(4), 20);`, 4);
ends('process.exit from within a backend', `open({ get() { process.exit(5); }, set() {}, delete() {} }).get('a');`, 5);
ends('process.exit from within a backend that another calls', `const inner = open({ get() { process.exit(6); }, set() {}, delete() {} }); open({ get: (key) => inner.get(key), set() {}, delete() {} }).get('a');`, 6);
ends('process.exit from a reaction to an answer', `hanging({ timeout: 0.01 }).get('a').catch(() => process.exit(7));`, 7);
ends('process.exitCode', `hanging({ timeout: 0.01 }).get('a').catch(() => { process.exitCode = 9; });`, 9);
ends('an exception that nobody catches', `hanging().get('a'); throw new Error('mine');`, 1);
ends('a rejection that nobody catches', `hanging({ timeout: 0.01 }).get('a');`, 1);
ends('an exception from a reaction', `hanging({ timeout: 0.01 }).get('a').catch(() => { setImmediate(() => { throw new Error('mine'); }); });`, 1);
ends('an exception in a listener of close', `const store = open('memory:'); store.on('close', () => { throw new Error('mine'); }); store.close();`, 1);
ends('a handler for uncaught exceptions goes on', `process.on('uncaughtException', (error) => console.log(error.message)); const store = open('memory:'); store.on('close', () => { throw new Error('mine'); }); store.close().then(() => open('memory:').set('a', '1')).then(console.log);`, 0, 'true\nmine\n');
ends('stores answer in an exit handler', `const store = open('memory:'); store.set('a', '1'); process.on('exit', () => { let value; store.get('a'); store.delete('a'); hanging().get('a'); open('memory:').close(); console.log('exit'); });`, 0, 'exit\n');
ends('a stage whose time stands still', `const stage = new Stage(); const store = hanging({ stage, timeout: 1 }); store.get('a').catch((error) => console.log(error.code)); setTimeout(() => stage.advance(1), 20);`, 0, 'TIMEOUT\n');
ends('closed stores and stages, then the end', `const stage = new Stage(); const stores = [open('memory:', { stage }), hanging({ stage }), open('memory:')]; Promise.all(stores.map((store) => store.close())).then(() => console.log(stage.blocks));`, 0, '0\n');
ends('garbage collected in every order', `for (let i = 0; i < 200; i++) { const stage = new Stage(); open('memory:', { stage }); hanging({ stage }); open('memory:g'); if (i % 20 === 0) gc(); } setImmediate(() => { gc(); console.log('done'); });`, 0, 'done\n', ['--expose-gc']);
ends('called where the stack ends',
  `let n = 0; const stores = [open('memory:'), hanging({ timeout: 0.01 }), open({ get: async () => 'x', set() {}, delete() {} }), open({ get: () => 'x', set() {}, delete() {} })];
   function deep() { try { deep(); } catch { if (n++ < 400) stores[n % 4].get('a').then(() => {}, () => {}); } }
   deep(); setTimeout(() => Promise.all([stores[0], stores[2], stores[3]].map((store) => store.get('a'))).then((all) => console.log(all.join())), 50);`, 0, ',x,x\n');
ends('closed where the stack ends, every call has its end nevertheless',
  `const store = hanging({ timeout: 3600 }); let settled = 0, closed;
   const count = () => { settled++; };
   for (let i = 0; i < 200; i++) store.get('a').then(count, count);
   function deep() { try { deep(); } catch (error) { if (closed === undefined) { closed = store.close(); closed.catch(() => {}); } } }
   for (let i = 0; closed === undefined && i < 1000; i++) try { deep(); } catch {}
   process.on('exit', () => console.log(settled));`, 0, '200\n');
ends('stores that come and go leave nothing behind',
  `(async () => {
     let before;
     for (let i = 0; i < 300; i++) {
       const store = hanging(), waiting = Array.from({ length: 1000 }, () => store.get('a').catch(() => {}));
       await store.close();
       await Promise.all(waiting);
       if (i === 50) { gc(); before = process.memoryUsage().heapUsed; }
     }
     gc();
     console.log(process.memoryUsage().heapUsed - before < 2e6);
   })();`, 0, 'true\n', ['--expose-gc']);

test('a process that is told to stop, stops', async () => {
  const child = spawn(process.execPath, ['-e', `${prelude} hanging({ timeout: 3600 }).get('a'); console.log('up');`], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.once('data', () => child.kill('SIGTERM'));
  const [code, signal] = await new Promise((resolve) => child.on('close', (...how) => resolve(how)));
  assert.deepEqual([code, signal], [null, 'SIGTERM']);
});
