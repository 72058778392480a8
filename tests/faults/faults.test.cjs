'use strict'
// The Node side of the kit works; what the levers do is in test_faults.py, which also runs this.

const assert = require('node:assert/strict')
const net = require('node:net')
const test = require('node:test')
const tls = require('node:tls')
const { readFileSync } = require('node:fs')
const { Proxy, RedisServer, TlsPeers, readClock, writeClock } = require('./faults.cjs')

function exchange (port, sent) {
  return new Promise((resolve, reject) => {
    const chunks = []
    const socket = net.connect(port, '127.0.0.1', () => socket.write(sent))
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()))
  })
}

test('a server and a proxy in front of it', async (t) => {
  const server = await RedisServer.start({ persistence: 'aof-always' })
  t.after(() => server.stop())
  const proxy = await Proxy.start({ to: `127.0.0.1:${server.port}` })
  t.after(() => proxy.close())
  for (let n = 1; n <= 7; n++) {
    await proxy.say(`next cut reply ${n} fin`)
    assert.equal(await exchange(proxy.port, 'PING\r\n'), '+PONG\r\n'.slice(0, n))
  }
  await proxy.say(`next insert reply 0 ${Proxy.data('-ERR; \\ \n')} ; cut reply 0 fin`)
  assert.equal(await exchange(proxy.port, 'PING\r\n'), '-ERR; \\ \n')
  // Nothing before it: libuv shows a reset that comes together with data as an end.
  await proxy.say('next cut reply 0 rst')
  await assert.rejects(exchange(proxy.port, 'PING\r\n'), { code: 'ECONNRESET' })
  assert.equal((await proxy.stats()).cut, 9)
  await assert.rejects(proxy.say('nonsense'), /not understood/)
  await server.cli('SET', 'a', '1')
  await server.restart({ kill: true })
  assert.equal(await server.cli('GET', 'a'), '1')
  await assert.rejects(server.cli('NONSENSE'), /ERR unknown command/)
  assert.match(await server.url(2), /^redis:\/\/127\.0\.0\.1:\d+\/2$/)
  await server.pause()
  await server.resume()
  assert.ok(await server.rss() > 1e6)
})

test('a staged clock', async (t) => {
  const server = await RedisServer.start({ clock: true })
  t.after(() => server.stop())
  await server.cli('SET', 'a', '1', 'PX', 1000)
  writeClock(server.clockFile, readClock(server.clockFile) + 600)
  assert.equal(await server.cli('PTTL', 'a'), 400)
  await server.advance(401)
  assert.equal(await server.cli('GET', 'a'), null)
})

test('bad TLS peers', async (t) => {
  const all = await TlsPeers.start()
  t.after(() => all.stop())
  assert.ok(Object.keys(all.peers).length >= 50)
  const { host, port } = all.peers.expired
  const code = await new Promise((resolve) => {
    const socket = tls.connect({ host: '127.0.0.1', servername: host, port, ca: readFileSync(all.ca) })
    socket.on('secureConnect', () => resolve('accepted'))
    socket.on('error', (error) => resolve(error.code))
  })
  assert.equal(code, 'CERT_HAS_EXPIRED')
  assert.deepEqual(await all.seen('expired'), { seen: '', accepted: 1, handshakes: 0 })
})
