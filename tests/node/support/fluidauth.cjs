'use strict';

// FluidAuth's Session as it is documented and as version 1.1.10 behaved, for tests: its package is not on the registry any more. What it asks of a store, in which
// order, and which promises it does not look at, is FluidAuth's; the rest is as short as can be. Where somebody has the package, the tests take that.

const crypto = require('node:crypto');

const keyOf = (secret) => crypto.createHash('sha256').update(secret).digest();

function encrypt(text, secret) {
  const iv = crypto.randomBytes(16);
  const cipher = crypto.createCipheriv('aes-256-cbc', keyOf(secret), iv);
  return `${iv.toString('hex')}:${cipher.update(text, 'utf8', 'hex')}${cipher.final('hex')}`;
}

function decrypt(text, secret) {
  const [iv, rest] = text.split(':');
  const decipher = crypto.createDecipheriv('aes-256-cbc', keyOf(secret), Buffer.from(iv, 'hex'));
  return decipher.update(rest, 'hex', 'utf8') + decipher.final('utf8');
}

class Session {
  constructor(config) {
    this.config = config;
    this.store = config.store;
    this.duration = config.sessionDuration ?? 30 * 60 * 1000;
    this.cookie = config.name ?? 'fluid-auth-session';
    Promise.resolve(this.store.clean()).catch((error) => console.error(error));
  }

  #idOf(req) {
    const cookie = req.cookies[this.cookie];
    return cookie === undefined ? undefined : decrypt(cookie, this.config.secret);
  }

  async manageSession(req, res, next) {
    req.session = { user: null, create: (user) => this.createSession(req, res, user), destroy: () => this.destroySession(req, res) };
    if (!req.cookies[this.cookie]) return next();
    try {
      const data = await this.store.get(this.#idOf(req));
      if (data === null) {
        this.destroySession(req, res); // not awaited, and no catch: as in FluidAuth
        return next();
      }
      const threshold = this.config.sessionExtensionThresholdInMs ?? 4 * 60 * 1000;
      // Before it looks whether the session has expired, and of undefined this throws: as in FluidAuth.
      if (this.config.extendSessionBeforeExpiry && new Date(data.expires).getTime() - Date.now() <= threshold) await this.extendCurrentSession(req, res);
      if (new Date(data.expires).getTime() <= Date.now()) {
        await this.destroySession(req, res);
        return next();
      }
      req.user = req.session.user = await this.deserializeUser(data.userId);
      return next();
    } catch (error) {
      await this.destroySession(req, res);
      return next(error);
    }
  }

  async createSession(req, res, user) {
    const data = { sessionId: crypto.randomBytes(18).toString('hex'), expires: new Date(Date.now() + this.duration).toISOString(), userId: await this.serializeUser(user) };
    await this.store.create(data);
    req.user = req.session.user = await this.deserializeUser(data.userId);
    res.cookie(this.cookie, encrypt(data.sessionId, this.config.secret), { maxAge: this.duration, httpOnly: true });
  }

  async destroySession(req, res) {
    if (res.headersSent || !req.cookies[this.cookie]) return;
    await this.store.delete(this.#idOf(req));
    res.clearCookie(this.cookie);
    req.user = req.session.user = null;
  }

  async extendCurrentSession(req, res) {
    const id = this.#idOf(req);
    const data = await this.store.get(id);
    if (data) {
      data.expires = new Date(Date.now() + this.duration).toISOString();
      await this.store.update(id, data);
    }
    res.cookie(this.cookie, req.cookies[this.cookie], { maxAge: this.duration, httpOnly: true });
  }
}

/** FluidAuth's own class, or the one above. */
function findSession() {
  try {
    return require('@fluidauth/express').Session;
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    return Session;
  }
}

module.exports = { Session: findSession() };
