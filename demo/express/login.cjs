'use strict'
// Passport: the ways to log in. Users and their social accounts are those of the FastAPI application: the same records.

const bcrypt = require('bcryptjs') // as Cross Auth hashes them, so that a password is good at both
const passport = require('passport')
const { Strategy: LocalStrategy } = require('passport-local')
const OAuth2Strategy = require('passport-oauth2')
const { accounts, expressSessions } = require('./store.cjs')

const { DEMO_CLIENT_SECRET, DEMO_EXPRESS_URL, DEMO_PROVIDER_URL } = process.env
const COST = 12 // also Cross Auth's: or the time that it takes would say there who has an account
const nobody = bcrypt.hash('nobody', COST)

async function checkPassword (req, email, password) {
  const user = await accounts.findUserByEmail(email)
  // Whoever logs out everywhere meanwhile ends this login, too.
  if (user) await expressSessions.beginLogin(req, user.id)
  // An e-mail that nobody has costs the same time as a wrong password, so that e-mails cannot be probed.
  const right = await bcrypt.compare(password, user?.hashedPassword ?? (await nobody))
  return user && right ? user : false
}

/** Box Office, as one of Passport's many strategies: OAuth 2 with state and PKCE. */
class BoxOffice extends OAuth2Strategy {
  constructor (callback, verify) {
    super(
      {
        authorizationURL: `${DEMO_PROVIDER_URL}/authorize`,
        tokenURL: `${DEMO_PROVIDER_URL}/token`,
        clientID: 'express',
        clientSecret: DEMO_CLIENT_SECRET,
        callbackURL: DEMO_EXPRESS_URL + callback,
        sessionKey: callback, // a login's state is none for a link
        state: true,
        pkce: true,
        passReqToCallback: true
      },
      (req, accessToken, refreshToken, profile, done) => answer(verify(req, accessToken, profile), done)
    )
  }

  userProfile (accessToken, done) {
    answer(profileOf(accessToken), done)
  }
}

/** Passport's callbacks, of a promise. */
const answer = (promise, done) => promise.then((result) => done(null, result), done)

async function profileOf (accessToken) {
  const response = await fetch(`${DEMO_PROVIDER_URL}/user`, { headers: { authorization: `Bearer ${accessToken}` } })
  if (!response.ok) throw new Error('Box Office did not say who that is')
  return response.json()
}

const accountOf = (accessToken, { id, email, email_verified: verified }) => ({
  provider: 'boxoffice', // as Cross Auth calls it, too
  providerUserId: id,
  providerEmail: email,
  providerEmailVerified: verified,
  accessToken // sealed in the store
})

async function loginByBoxOffice (req, accessToken, profile) {
  const { user, socialAccount } = await accounts.findOrCreateBySocialAccount({
    ...accountOf(accessToken, profile),
    user: { email: profile.email, emailVerified: profile.email_verified, userInfo: { name: profile.name } }
  })
  return socialAccount.isLoginMethod && user
}

async function linkBoxOffice (req, accessToken, profile) {
  return accounts.createSocialAccount({ userId: req.user.id, ...accountOf(accessToken, profile) })
}

passport.use(
  new LocalStrategy({ usernameField: 'email', passReqToCallback: true }, (req, email, password, done) => (
    answer(checkPassword(req, email, password), done)
  ))
)
passport.use('boxoffice', new BoxOffice('/login/boxoffice/callback', loginByBoxOffice))
passport.use('boxoffice-link', new BoxOffice('/link/boxoffice/callback', linkBoxOffice))
passport.serializeUser((user, done) => done(null, user.id))
passport.deserializeUser((id, done) => answer(accounts.findUserById(id).then((user) => user ?? false), done))

async function signUp ({ name = '', email = '', password = '' }) {
  return accounts.createUser({ email, hashedPassword: await bcrypt.hash(password, COST), userInfo: { name } })
}

module.exports = { passport, signUp }
