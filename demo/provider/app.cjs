'use strict'
// Box Office: a small OAuth 2 provider, so that the demo needs no account anywhere else. It believes the name that you give.
// Codes with PKCE: Counterfoil keeps a code for a minute and a token for an hour, and gives a code once.

const { createHash, randomBytes, timingSafeEqual } = require('node:crypto')
const path = require('node:path')
const express = require('express')
const nunjucks = require('nunjucks')
const { open, SecondaryStorage } = require('counterfoil')

const { COUNTERFOIL_URL, DEMO_CLIENT_SECRET, DEMO_EXPRESS_URL, DEMO_FASTAPI_URL, DEMO_PROVIDER_URL } = process.env

// The applications that may ask, and where they may be answered. A provider of yours keeps such a list in its database.
const clients = {
  express: {
    name: 'The Express application',
    redirects: [`${DEMO_EXPRESS_URL}/login/boxoffice/callback`, `${DEMO_EXPRESS_URL}/link/boxoffice/callback`]
  },
  fastapi: { name: 'The FastAPI application', redirects: [`${DEMO_FASTAPI_URL}/auth/boxoffice/callback`] }
}

const store = open(COUNTERFOIL_URL, { prefix: 'boxoffice:' })
const once = new SecondaryStorage(store)

const app = express()
const pages = path.join(__dirname, '..', 'pages')
nunjucks.configure(pages, { express: app })
app.locals.app = 'Box Office'
app.disable('x-powered-by')
// Without the two origins the browser would not follow the answer to the form back to the application.
const forms = `form-action 'self' ${DEMO_EXPRESS_URL} ${DEMO_FASTAPI_URL}`
app.use((req, res, next) => {
  res.set('Content-Security-Policy', `default-src 'none'; style-src 'self'; img-src data:; ${forms}; frame-ancestors 'none'`)
  res.set('Referrer-Policy', 'same-origin')
  res.set('Cache-Control', 'no-store')
  next()
})
app.get('/style.css', (req, res) => res.sendFile(path.join(pages, 'style.css')))
app.use(express.urlencoded({ extended: false, limit: '8kb' }))
app.use((req, res, next) => {
  req.body ??= {}
  next()
})

/** The application that asks; undefined if we do not know it, or not that address of it. Then nothing may be sent there. */
function known ({ client_id: id, redirect_uri: uri }) {
  const client = Object.hasOwn(clients, id) ? clients[id] : undefined
  return client?.redirects.includes(uri) ? client : undefined
}

function sendBack (res, { redirect_uri: uri, state }, answer) {
  const url = new URL(uri)
  for (const [name, value] of Object.entries({ ...answer, state })) url.searchParams.set(name, value)
  res.redirect(303, url.href)
}

app.get('/authorize', (req, res) => {
  const client = known(req.query)
  if (!client) return refuse(res, 'Box Office does not know the application that has sent you.')
  const { response_type: type, state, code_challenge: challenge, code_challenge_method: method } = req.query
  if (type !== 'code' || !state || !challenge || method !== 'S256') return sendBack(res, req.query, { error: 'invalid_request' })
  res.render('consent.html', { client: client.name, asked: req.query })
})

app.post('/authorize', async (req, res) => {
  const { client_id: client, redirect_uri: uri, code_challenge: challenge, name = '', email = '', answer } = req.body
  if (!known(req.body)) return refuse(res, 'Box Office does not know the application that has sent you.')
  if (answer !== 'yes') return sendBack(res, req.body, { error: 'access_denied' })
  const id = createHash('sha256').update(String(email).trim().toLowerCase()).digest('hex').slice(0, 12)
  const code = token()
  await once.set(`code:${code}`, JSON.stringify({ client, uri, challenge, user: { id, name, email, email_verified: true } }), 60)
  sendBack(res, req.body, { code })
})

app.post('/token', async (req, res) => {
  const { client_id: client, client_secret: secret, redirect_uri: uri, code, code_verifier: verifier } = req.body
  if (!same(secret, DEMO_CLIENT_SECRET)) return res.status(401).json({ error: 'invalid_client' })
  const kept = await once.pop(`code:${code}`) // of any number of requests with this code, one gets what was kept
  const grant = kept && JSON.parse(kept)
  const right = grant && grant.client === client && grant.uri === uri && same(challengeOf(verifier), grant.challenge)
  if (!right) return res.status(400).json({ error: 'invalid_grant' })
  const access = token()
  await once.set(`token:${access}`, JSON.stringify(grant.user), 3600)
  res.json({ access_token: access, token_type: 'Bearer', expires_in: 3600, scope: 'profile' })
})

app.get('/user', async (req, res) => {
  const [scheme, access] = (req.get('authorization') ?? '').split(' ')
  const user = scheme === 'Bearer' && access && (await once.get(`token:${access}`))
  if (!user) return res.status(401).json({ error: 'invalid_token' })
  res.json(JSON.parse(user))
})

// Four parameters: that is how Express knows an error handler.
app.use((error, req, res, next) => {
  if (res.headersSent) return next(error)
  const status = error.status ?? 500
  if (status >= 500) console.error(error.stack)
  refuse(res, 'Something went wrong.', status)
})

const refuse = (res, text, status = 400) => res.status(status).render('message.html', { title: 'Refused', text })
const token = () => randomBytes(32).toString('base64url')
const challengeOf = (verifier) => createHash('sha256').update(String(verifier)).digest('base64url')
const hash = (text) => createHash('sha256').update(String(text)).digest()
const same = (one, other) => timingSafeEqual(hash(one), hash(other))

const { hostname, port } = new URL(DEMO_PROVIDER_URL)
const server = app.listen(port, hostname, (error) => {
  if (error) throw error
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => store.close())
    server.closeAllConnections()
  })
}
