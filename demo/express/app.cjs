'use strict'
// Express with express-session and Passport. Counterfoil keeps users and sessions, and reads those of Cross Auth.
// Started by `./run demo`.

const { createHash } = require('node:crypto')
const path = require('node:path')
const cookieParser = require('cookie-parser')
const express = require('express')
const session = require('express-session')
const nunjucks = require('nunjucks')
const { passport, signUp } = require('./login.cjs')
const { store, accounts, authSessions, expressSessions } = require('./store.cjs')

const { DEMO_EXPRESS_URL, DEMO_FASTAPI_URL, DEMO_PLACE, DEMO_SESSION_SECRET } = process.env

const policy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'"
const app = express()
const pages = path.join(__dirname, '..', 'pages')
nunjucks.configure(pages, { express: app })
Object.assign(app.locals, { app: 'Express', express: DEMO_EXPRESS_URL, fastapi: DEMO_FASTAPI_URL, place: DEMO_PLACE })
app.disable('x-powered-by')
app.use((req, res, next) => {
  res.set('Content-Security-Policy', policy)
  res.set('Referrer-Policy', 'same-origin')
  res.set('Cache-Control', 'no-store')
  // SameSite does not tell ports apart, but Origin does: no form of another site, nor of the other application.
  if (req.method === 'GET' || req.method === 'HEAD' || req.get('origin') === DEMO_EXPRESS_URL) return next()
  refuse(res, 'This form was not sent by a page of this application.', 403)
})
app.get('/style.css', (req, res) => res.sendFile(path.join(pages, 'style.css')))
app.use(express.urlencoded({ extended: false, limit: '8kb' }))
app.use((req, res, next) => {
  req.body ??= {}
  for (const name in req.body) req.body[name] = String(req.body[name]) // one that comes twice would be a list
  next()
})
app.use(
  session({
    store: expressSessions,
    name: 'demo_express',
    secret: DEMO_SESSION_SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: { httpOnly: true, sameSite: 'lax', maxAge: 30 * 60 * 1000 } // and secure: true, once you have https
  })
)
app.use(passport.session())
app.use(cookieParser()) // behind express-session, which reads its own

// Who has logged in at the FastAPI application has a cookie of Cross Auth; its session is in the same store.
app.use(async (req, res, next) => {
  const token = req.cookies.demo_fastapi
  const tokenHash = createHash('sha256').update(String(token)).digest('hex')
  if (token) req.authSession = await authSessions.get({ tokenHash })
  if (req.authSession) req.user ??= await accounts.findUserById(req.authSession.userId)
  next()
})

const home = (req, res) => res.redirect(303, '/')

app.get('/', async (req, res) => {
  if (!req.user) return loginPage(res)
  if (req.session.passport) {
    const { pages = {} } = req.session
    req.session.pages = { ...pages, express: (pages.express ?? 0) + 1 }
  }
  const { id, email, hasUsablePassword, userInfo } = req.user
  const sessions = await sessionsOf(req)
  const linked = await accounts.listSocialAccounts({ userId: id })
  res.render('home.html', {
    user: { id, email, name: userInfo?.name || email, password: hasUsablePassword },
    cookie: req.session.passport ? 'demo_express' : 'demo_fastapi',
    session: sessions.find((one) => one.current) ?? {},
    pages: req.session.pages,
    sessions,
    accounts: linked.map(({ provider, providerEmail }) => ({ provider, email: providerEmail })),
    oauth_link: '/link/boxoffice'
  })
})

app.post('/signup', async (req, res, next) => {
  const { email, password = '' } = req.body
  const bytes = Buffer.byteLength(password) // bcrypt would pass over what is beyond 72
  if (!email || bytes < 8 || bytes > 72) return loginPage(res, 'An e-mail, please, and a password of 8 to 72 characters.', 400)
  try {
    req.logIn(await signUp(req.body), (error) => (error ? next(error) : home(req, res)))
  } catch (error) {
    if (error.code !== 'EXISTS') throw error
    loginPage(res, 'This e-mail has an account already. Log in with it.', 409)
  }
})

app.post('/login', (req, res, next) => {
  passport.authenticate('local', (error, user) => {
    if (error) return next(error)
    if (!user) return loginPage(res, 'That e-mail and that password do not belong together.', 401)
    // Gives the session a new id: one that somebody planted before the login is worth nothing after it.
    req.logIn(user, (error) => (error ? next(error) : home(req, res)))
  })(req, res, next)
})

const login = passport.authenticate('boxoffice', { failWithError: true })
app.get('/login/boxoffice', login)
app.get('/login/boxoffice/callback', login, home)

const userOnly = (req, res, next) => (req.user ? next() : home(req, res))
const link = passport.authorize('boxoffice-link', { failWithError: true })
app.get('/link/boxoffice', userOnly, link)
app.get('/link/boxoffice/callback', userOnly, link, home)

app.post('/sessions/end', userOnly, async (req, res) => {
  const { handle = '' } = req.body
  const ofAuth = await authSessions.getAny(handle)
  if (ofAuth?.userId === req.user.id) await authSessions.revoke(handle, { revokedAt: new Date() })
  else await expressSessions.end(handle, { userId: req.user.id })
  home(req, res)
})

app.post('/logout', async (req, res) => {
  if (req.authSession) await authSessions.revoke(req.authSession.id, { revokedAt: new Date() })
  await expressSessions.destroy(req.sessionID)
  leave(res)
})

app.post('/logout/everywhere', userOnly, async (req, res) => {
  await expressSessions.endAllOf(req.user.id)
  await authSessions.revokeAllForUser(req.user.id, { revokedAt: new Date() })
  leave(res)
})

/** The user's sessions of both kinds, in one list. */
async function sessionsOf (req) {
  const ofExpress = await expressSessions.sessionsOf(req.user.id, { current: req.sessionID })
  const { records } = await authSessions.listForUser(req.user.id, { status: 'active' })
  const row = (kind, handle, since, seen, current) => ({ kind, handle, since: clock(since), seen: clock(seen), current })
  return [
    ...ofExpress.map((one) => row('Express', one.handle, one.created, one.lastSeen, one.current)),
    ...records.map((one) => row('Cross Auth', one.id, one.createdAt, one.lastActiveAt, one.id === req.authSession?.id))
  ]
}

const clock = (date) => date?.toISOString().slice(11, 19) ?? ''
const loginPage = (res, problem = '', status = 200) => (
  res.status(status).render('login.html', { problem, oauth_login: '/login/boxoffice' })
)
const refuse = (res, text, status) => res.status(status).render('message.html', { title: 'Refused', text })
const leave = (res) => res.clearCookie('demo_express').clearCookie('demo_fastapi').redirect(303, '/')

const ofPassport = ['AuthenticationError', 'AuthorizationError', 'TokenError']

// Four parameters: that is how Express knows an error handler.
app.use((error, req, res, next) => {
  if (res.headersSent) return next(error)
  if (error.code === 'EXISTS') return refuse(res, 'Somebody has this e-mail or account. Log in as that user to link it.', 409)
  if (ofPassport.includes(error.name)) return refuse(res, 'This login was not begun here, was refused, or was used before.', 400)
  const status = error.code === 'INVALID' ? 400 : error.status ?? 500
  if (status >= 500) console.error(error.stack)
  refuse(res, 'Something went wrong.', status)
})

const { hostname, port } = new URL(DEMO_EXPRESS_URL)
const server = app.listen(port, hostname, (error) => {
  if (error) throw error
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => store.close())
    server.closeAllConnections()
  })
}
