'use strict'
// The fault kit for Node: the proxy, servers and bad TLS peers of this folder. See README.md.
//
//   const server = await RedisServer.start({ persistence: 'aof-always' })
//   const proxy = await Proxy.start({ to: `127.0.0.1:${server.port}` })
//   await proxy.say('next cut reply 5 rst')

const { execFile, spawn } = require('node:child_process')
const { existsSync, readFileSync, renameSync, writeFileSync } = require('node:fs')
const net = require('node:net')
const path = require('node:path')
const { createInterface } = require('node:readline')
const { promisify } = require('node:util')

const ours = path.join(__dirname, '..', '..', '.venv', 'bin', 'python')
const python = process.env.PYTHON ?? (existsSync(ours) ? ours : 'python3')

// A sanitizer that is preloaded into the tests must stay out of what they start.
function environment () {
  const { LD_PRELOAD, ASAN_OPTIONS, LSAN_OPTIONS, UBSAN_OPTIONS, ...rest } = process.env
  return rest
}

// The lines that a stream gives, one for each question, in order.
class Lines {
  #waiting = []
  #early = []
  #ended = false

  constructor (stream) {
    const lines = createInterface({ input: stream })
    lines.on('line', (line) => this.#waiting.length > 0 ? this.#waiting.shift().resolve(line) : this.#early.push(line))
    lines.on('error', () => {})
    lines.on('close', () => {
      this.#ended = true
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('the other side has ended'))
    })
  }

  next () {
    if (this.#early.length > 0) return Promise.resolve(this.#early.shift())
    if (this.#ended) return Promise.reject(new Error('the other side has ended'))
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }
}

class Proxy {
  static async start ({ to, listen = '127.0.0.1:0' }) {
    const { stdout } = await promisify(execFile)(python, [path.join(__dirname, 'build.py'), 'proxy'], { env: environment() })
    const options = { stdio: ['ignore', 'pipe', 'inherit'], env: environment() }
    const child = spawn(stdout.trim(), ['--listen', listen, '--to', to, '--tether'], options)
    const [ready, port, control] = (await new Lines(child.stdout).next()).split(' ')
    if (ready !== 'ready') throw new Error('the proxy did not start')
    const socket = net.connect({ host: '127.0.0.1', port: Number(control), noDelay: true })
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return new Proxy(child, socket, Number(port))
  }

  #child
  #socket
  #lines

  constructor (child, socket, port) {
    this.#child = child
    this.#socket = socket
    this.#lines = new Lines(socket)
    this.port = port
    socket.on('error', () => {})
  }

  // One line of the proxy's language; resolves to what it answered after its "ok".
  async say (line) {
    this.#socket.write(`${line}\n`)
    const answer = await this.#lines.next()
    if (answer !== 'ok' && !answer.startsWith('ok ')) throw new Error(`${line.slice(0, 200)}: ${answer}`)
    return answer.slice(3)
  }

  async stats () {
    const pairs = (await this.say('stats')).split(' ').map((pair) => pair.split('='))
    return Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]))
  }

  async close () {
    this.#socket.destroy()
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await ended
  }

  // Bytes as the proxy's language writes them.
  static data (bytes) {
    return Buffer.from(bytes).toString('hex').replace(/../g, '\\x$&')
  }
}

// What `servers.py serve` and `tls_peers.py serve` have in common: a program that lives as long as its input.
class Helper {
  constructor (...words) {
    this.child = spawn(python, words, { stdio: ['pipe', 'pipe', 'inherit'], env: environment() })
    this.child.stdin.on('error', () => {})
    this.lines = new Lines(this.child.stdout)
  }

  async ask (line) {
    this.child.stdin.write(`${line}\n`)
    return JSON.parse(await this.lines.next())
  }

  async end () {
    const ended = new Promise((resolve) => this.child.once('exit', resolve))
    this.child.stdin.end()
    await ended
  }
}

// RedisServer of servers.py, its options in Python's words: persistence, unixsocket, tls, password, acl, maxmemory, config, port,
// clock, folder.
class RedisServer {
  static async start (options = {}) {
    const server = new RedisServer()
    await server.#do('new', [], options)
    await server.start()
    return server
  }

  #helper = new Helper(path.join(__dirname, 'servers.py'), 'serve')

  async #do (what, args = [], named = {}) {
    const { ok, error, ...state } = await this.#helper.ask(JSON.stringify({ do: what, arguments: args, ...named }))
    if (error) throw new Error(error)
    Object.assign(this, state) // port, pid, socket, dir, clockFile
    return ok
  }

  start () { return this.#do('start') }
  kill () { return this.#do('kill') }
  pause () { return this.#do('pause') }
  resume () { return this.#do('resume') }
  restart ({ kill = false } = {}) { return this.#do('restart', [], { kill }) }
  rss () { return this.#do('rss') }
  cpuSeconds () { return this.#do('cpu_seconds') }
  url (db = 0, options = {}) { return this.#do('url', [db], options) }
  // Replies as text; an error is thrown.
  cli (...words) { return this.#do('cli', words) }
  advance (ms) { return this.#do('advance', [ms]) }

  async stop () {
    await this.#do('stop')
    await this.#helper.end()
  }
}

// Moves a staged clock (CF_TEST_REDIS_CLOCK_FILE), at once.
function writeClock (file, ms) {
  writeFileSync(`${file}.new`, `${ms}\n`)
  renameSync(`${file}.new`, file)
}

function readClock (file) {
  return Number(readFileSync(file, 'utf8'))
}

// Every bad peer of tls_peers.py: `peers` is {name: {host, port, ends, because}}, `good` are controls, `ca` is what to trust.
class TlsPeers {
  static async start () {
    const all = new TlsPeers()
    Object.assign(all, JSON.parse(await all.#helper.lines.next()))
    return all
  }

  #helper = new Helper(path.join(__dirname, 'tls_peers.py'), 'serve')

  // What clients have said to the application of this peer, as latin-1, and how many came: {seen, accepted, handshakes}.
  seen (name) { return this.#helper.ask(name) }
  stop () { return this.#helper.end() }
}

module.exports = { Proxy, RedisServer, TlsPeers, readClock, writeClock }
