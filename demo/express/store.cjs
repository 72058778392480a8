'use strict'
// What both applications share: one store, and in it users, the sessions of Express, and those of Cross Auth.

const { open, AccountsStorage, SessionStorage } = require('counterfoil')
const { CounterfoilStore } = require('counterfoil/express-session')

const store = open(process.env.COUNTERFOIL_URL, {
  prefix: 'demo:',
  keys: [[1, Buffer.from(process.env.DEMO_STORE_KEY, 'base64')]] // seals the providers' tokens
})
const accounts = new AccountsStorage(store)
const authSessions = new SessionStorage(store)
const expressSessions = new CounterfoilStore({ store, userOf: (session) => session.passport?.user })

module.exports = { store, accounts, authSessions, expressSessions }
