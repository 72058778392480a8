'use strict'
// Express with express-session and Passport's local login; Counterfoil keeps the sessions. Started by `./run demo`.

const { randomBytes, scryptSync, timingSafeEqual } = require('node:crypto')
const express = require('express')
const session = require('express-session')
const passport = require('passport')
const { Strategy: LocalStrategy } = require('passport-local')
const { open } = require('counterfoil')
const { CounterfoilStore } = require('counterfoil/express-session')

const url = process.env.COUNTERFOIL_URL || 'sqlite:demo.db' // `./run demo` names one in build/demo
const place = url.startsWith('sqlite:') ? 'a file that Counterfoil keeps' : 'Counterfoil'
const host = process.env.DEMO_HOST || '127.0.0.1'
const port = Number(process.env.DEMO_EXPRESS_PORT || 0)

// One user, so that there is somebody to log in. A real application keeps such records in its database.
const salt = randomBytes(16)
const users = new Map([['ada', { id: 'ada', name: 'Ada Lovelace', hash: scryptSync('engine', salt, 32) }]])
const nobody = { hash: randomBytes(32) }

passport.use(
  new LocalStrategy((username, password, done) => {
    // A name that does not exist costs the same time as a wrong password, so that names cannot be probed.
    const user = users.get(username)
    const right = timingSafeEqual(scryptSync(password, salt, 32), (user ?? nobody).hash)
    done(null, user && right ? user : false)
  })
)
passport.serializeUser((user, done) => done(null, user.id))
passport.deserializeUser((id, done) => done(null, users.get(id) ?? false))

const store = open(url, { prefix: 'demo:express:' })
const app = express()
app.disable('x-powered-by')
app.use((req, res, next) => {
  res.set('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
  res.set('Cache-Control', 'no-store')
  next()
})
app.use(express.urlencoded({ extended: false, limit: '8kb' }))
app.use(
  session({
    store: new CounterfoilStore({ store }),
    name: 'demo.express',
    // A new secret at every start ends all sessions, also those that the store still has; `./run demo` keeps one.
    secret: process.env.DEMO_SESSION_SECRET || randomBytes(32).toString('base64url'),
    resave: false,
    saveUninitialized: false,
    // SameSite: other sites' forms are sent without the cookie, so they cannot act for the user.
    cookie: { httpOnly: true, sameSite: 'lax', maxAge: 30 * 60 * 1000 }
  })
)
app.use(passport.session())

app.get('/', (req, res) => {
  if (!req.user) return res.send(loginPage(''))
  req.session.visits = (req.session.visits ?? 0) + 1
  res.send(homePage(req.user, req.session))
})

app.post('/login', (req, res, next) => {
  passport.authenticate('local', (error, user) => {
    if (error) return next(error)
    if (!user) return res.status(401).send(loginPage('That name and password do not belong together.'))
    // Gives the session a new id: one that somebody planted before the login is worth nothing after it.
    req.logIn(user, (error) => (error ? next(error) : res.redirect(303, '/')))
  })(req, res, next)
})

app.post('/note', (req, res) => {
  if (!req.user) return res.redirect(303, '/')
  req.session.note = String(req.body.note ?? '').slice(0, 200)
  res.redirect(303, '/')
})

app.post('/logout', (req, res, next) => {
  req.session.destroy((error) => {
    if (error) return next(error)
    res.clearCookie('demo.express')
    res.redirect(303, '/')
  })
})

// Four parameters: that is how Express knows an error handler.
app.use((error, req, res, next) => {
  if (res.headersSent) return next(error)
  const status = error.status ?? 500
  if (status >= 500) console.error(error)
  res.status(status).send(page('Something went wrong', `<p>The request was answered with ${status}.</p><p><a href="/">Back</a></p>`))
})

function loginPage (problem) {
  return page(
    'Log in',
    `${problem && `<p class="problem" role="alert" id="problem">${problem}</p>`}
    <form method="post" action="/login">
      <label for="username">Name</label>
      <input id="username" name="username" autocomplete="username" required autofocus>
      <label for="password">Password</label>
      <input id="password" name="password" type="password" autocomplete="current-password" required>
      <button>Log in</button>
    </form>
    <p class="hint">The demo’s one user is <code>ada</code> with the password <code>engine</code>.</p>`
  )
}

function homePage (user, { visits, note }) {
  return page(
    `Hello, ${user.name}`,
    `<p>You have seen this page <strong id="visits">${visits}</strong> ${visits === 1 ? 'time' : 'times'} in this session.</p>
    <form method="post" action="/note">
      <label for="note">A note to keep in the session</label>
      <input id="note" name="note" maxlength="200" value="${escape(note ?? '')}">
      <button>Keep it</button>
    </form>
    <form method="post" action="/logout"><button class="quiet">Log out</button></form>
    <p class="hint">Your browser holds a signed id, and nothing else. The counter, the note and who you are stay here,
    in ${place}, under <code>demo:express:</code> and that id.</p>`
  )
}

function page (title, body) {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)} · Counterfoil on Express</title>
<style>
  :root { color-scheme: light dark; --line: #8884; --ink: #1f6f54; }
  @media (prefers-color-scheme: dark) { :root { --ink: #6fd3ac; } }
  body { font: 1.05rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 1.25rem; }
  header { color: var(--ink); font-weight: 600; border-bottom: 2px dashed var(--line); padding-bottom: .5rem; }
  h1 { font-size: 1.6rem; margin: 1.25rem 0 .75rem; }
  form { display: grid; gap: .4rem; margin: 1rem 0; }
  label { font-weight: 600; }
  input, button { font: inherit; padding: .55rem .7rem; border-radius: .4rem; border: 1px solid #888; }
  button { background: #1f6f54; border-color: #1f6f54; color: #fff; cursor: pointer; margin-top: .3rem; }
  button.quiet { background: none; border-color: #888; color: inherit; }
  :focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
  .problem { border-left: 4px solid #b3261e; padding-left: .75rem; }
  .hint { font-size: .9rem; opacity: .8; }
</style>
</head>
<body>
<header>Counterfoil on Express</header>
<main>
<h1>${escape(title)}</h1>
${body}
</main>
</body>
</html>
`
}

function escape (text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
}

const server = app.listen(port, host, (error) => {
  if (error) throw error
  console.log(`listening on http://${host}:${server.address().port}/`)
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => store.close())
    server.closeAllConnections()
  })
}
