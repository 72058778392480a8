'use strict';

// Stores for express-session that break one rule of the conformance kit each, beside one that breaks none.

const session = require('express-session');
const { turn, unreachable } = require('./clock.cjs');

const over = (ms) => ms > 1100 && ms <= 1500; // the life that the rule about an end gives
const tell = (callback, error, value) => {
  if (callback) setImmediate(callback, error, value);
};

/** What a right store does: text and expiry by id; a session that was loaded is saved only where it still is, and as it was. */
class Right extends session.Store {
  broken = false;
  map = new Map();
  loaded = new WeakMap();
  constructor(clock) {
    super();
    this.time = () => clock.now().getTime();
  }

  createSession(request, data) {
    const { text } = this.live(request.sessionID) ?? {};
    const made = super.createSession(request, data);
    this.loaded.set(made, text);
    return made;
  }
  live(sid) {
    const entry = this.map.get(sid);
    return entry !== undefined && entry.expiry > this.time() ? entry : undefined;
  }
  expiryOf({ cookie: { expires } }) {
    return expires ? new Date(expires).getTime() : Infinity;
  }
  /** Whether what a request has loaded may be stored. */
  admits(sid, made) {
    if (!this.loaded.has(made)) return true;
    const entry = this.live(sid);
    if (entry !== undefined && entry.text !== this.loaded.get(made)) throw new Error('somebody else has saved it');
    return entry !== undefined;
  }
  save(sid, made) {
    const text = JSON.stringify(made);
    const expiry = this.expiryOf(made);
    if (!(expiry > this.time())) this.map.delete(sid);
    else if (this.admits(sid, made)) {
      this.map.set(sid, { text, expiry });
      if (this.loaded.has(made)) this.loaded.set(made, text);
    }
  }
  /** `work` is done at once, and what it throws told. */
  does(work, callback) {
    let value;
    try {
      if (this.broken) throw unreachable();
      value = work();
    } catch (error) {
      return tell(callback, error);
    }
    return tell(callback, null, value);
  }

  get(sid, callback) {
    this.does(() => {
      const entry = this.live(sid);
      return entry === undefined ? null : JSON.parse(entry.text);
    }, callback);
  }
  set(sid, made, callback) {
    this.does(() => this.save(sid, made), callback);
  }
  touch(sid, made, callback) {
    this.does(() => {
      const entry = this.live(sid);
      if (entry !== undefined) entry.expiry = this.expiryOf(made);
    }, callback);
  }
  destroy(sid, callback) {
    this.does(() => {
      this.map.delete(sid);
    }, callback);
  }
  sids() {
    return [...this.map.keys()].filter((sid) => this.live(sid));
  }
  all(callback) {
    this.does(() => this.sids().map((sid) => JSON.parse(this.map.get(sid).text)), callback);
  }
  ids(callback) {
    this.does(() => this.sids(), callback);
  }
  length(callback) {
    this.does(() => this.sids().length, callback);
  }
  clear(callback) {
    this.does(() => this.map.clear(), callback);
  }
}

/** [rule, what is wrong, class that takes a clock] */
const mutants = [
  [
    'shape.emitter',
    'no emit',
    class extends Right {
      emit = undefined;
    },
  ],
  [
    'shape.methods',
    'no regenerate',
    class extends Right {
      regenerate = undefined;
    },
  ],
  [
    'get.miss',
    'false',
    class extends Right {
      known = new Set();
      get(sid, callback) {
        if (this.known.has(sid) || !sid.startsWith('kit')) return super.get(sid, callback);
        return this.does(() => false, callback);
      }
      set(sid, ...rest) {
        this.known.add(sid);
        super.set(sid, ...rest);
      }
      touch(sid, ...rest) {
        this.known.add(sid);
        super.touch(sid, ...rest);
      }
    },
  ],
  [
    'get.what_was_set',
    'what is false is lost, once',
    class extends Right {
      once = true;
      get(sid, callback) {
        super.get(sid, (error, value) => {
          if (this.once && value?.zero === 0) delete value.zero;
          if (value?.user) this.once = false;
          callback(error, value);
        });
      }
    },
  ],
  [
    'get.copies',
    'one object for all',
    class extends Right {
      shared = new Map();
      get(sid, callback) {
        super.get(sid, (error, value) => {
          if (value?.inner === undefined) return callback(error, value);
          if (!this.shared.has(sid)) this.shared.set(sid, value);
          return callback(null, this.shared.get(sid));
        });
      }
    },
  ],
  [
    'get.copies',
    'what was given is kept',
    class extends Right {
      given = new Map();
      set(sid, made, callback) {
        if (made.inner) this.given.set(sid, made.inner);
        super.set(sid, made, callback);
      }
      get(sid, callback) {
        super.get(sid, (error, value) => callback(error, value?.inner ? { ...value, inner: { ...this.given.get(sid) } } : value));
      }
    },
  ],
  [
    'cookie.round_trip',
    'the cookie has its times alone',
    class extends Right {
      get(sid, callback) {
        super.get(sid, (error, value) => {
          if (value?.cookie) value.cookie = { expires: value.cookie.expires, originalMaxAge: value.cookie.originalMaxAge };
          callback(error, value);
        });
      }
    },
  ],
  [
    'sid.own_names',
    'over a plain object',
    class extends Right {
      get(sid, callback) {
        super.get(sid, (error, value) => callback(error, error ? undefined : (value ?? Object.prototype[sid])));
      }
    },
  ],
  [
    'callback.once',
    'touch calls back twice',
    class extends Right {
      touch(sid, made, callback) {
        super.touch(
          sid,
          made,
          callback &&
            ((error) => {
              callback(error);
              callback(error);
            }),
        );
      }
    },
  ],
  [
    'callback.once_when_it_throws',
    'what the callback throws, it is given',
    class extends Right {
      set(sid, made, callback) {
        super.set(
          sid,
          made,
          callback &&
            ((error) => {
              try {
                callback(error);
              } catch (thrown) {
                callback(thrown);
              }
            }),
        );
      }
    },
  ],
  [
    'callback.optional',
    'touch needs one',
    class extends Right {
      touch(sid, made, callback) {
        if (typeof callback !== 'function') throw new TypeError('no callback');
        super.touch(sid, made, callback);
      }
    },
  ],
  [
    'errors.to_callback',
    'thrown',
    class extends Right {
      set(sid, made, callback) {
        JSON.stringify(made);
        super.set(sid, made, callback);
      }
    },
  ],
  [
    'set.replaces',
    'merged',
    class extends Right {
      save(sid, made) {
        const old = JSON.parse(this.live(sid)?.text ?? '{}');
        super.save(sid, made);
        const entry = this.live(sid);
        if (entry) entry.text = JSON.stringify({ ...old, ...JSON.parse(entry.text) });
      }
    },
  ],
  [
    'set.whole',
    'field by field',
    class extends Right {
      async set(sid, made, callback) {
        if (!(made.b?.length > 1000)) return super.set(sid, made, callback);
        const { expiry } = this.live(sid);
        const write = (fields) =>
          this.map.set(sid, { text: JSON.stringify({ ...JSON.parse(this.live(sid).text), ...fields }), expiry });
        write({ a: made.a });
        for (let turns = made.a; turns < 10; turns++) await turn(); // the last one to write a is the first one to write b
        write({ b: made.b });
        return tell(callback, null);
      }
    },
  ],
  [
    'set.keeps_others',
    'all is read and all is written',
    class extends Right {
      set(sid, made, callback) {
        if (this.broken) return super.set(sid, made, callback);
        const all = new Map(this.map);
        return super.set(sid, made, async (error) => {
          const entry = this.map.get(sid);
          if (entry) all.set(sid, entry);
          else all.delete(sid);
          this.map = all;
          callback?.(error);
        });
      }
    },
  ],
  [
    'destroy.removes',
    'what is not there is an error',
    class extends Right {
      destroy(sid, callback) {
        this.does(() => {
          if (!this.map.delete(sid)) throw new Error('there is none');
        }, callback);
      }
    },
  ],
  [
    'destroy.stays',
    'every save stores',
    class extends Right {
      admits(sid, made) {
        return this.live(sid) === undefined || super.admits(sid, made);
      }
    },
  ],
  [
    'destroy.stays',
    'what is gone meanwhile is put back',
    class extends Right {
      set(sid, made, callback) {
        let entry;
        setImmediate(() => {
          if (entry !== undefined && !this.map.has(sid)) this.map.set(sid, entry);
        });
        super.set(sid, made, callback);
        if (this.loaded.has(made)) entry = this.map.get(sid);
      }
    },
  ],
  [
    'touch.moves_expiry',
    'never shorter',
    class extends Right {
      touch(sid, made, callback) {
        const old = this.live(sid)?.expiry;
        super.touch(sid, made, callback);
        const entry = this.live(sid);
        if (entry) entry.expiry = Math.max(old, entry.expiry);
      }
    },
  ],
  [
    'touch.keeps_data',
    'without what is nested',
    class extends Right {
      touch(sid, made, callback) {
        super.touch(sid, made, callback);
        const entry = this.live(sid);
        if (entry) entry.text = JSON.stringify({ ...JSON.parse(entry.text), nested: undefined });
      }
    },
  ],
  [
    'touch.never_creates',
    'what was never there is made',
    class extends Right {
      known = new Set();
      set(sid, ...rest) {
        this.known.add(sid);
        super.set(sid, ...rest);
      }
      touch(sid, made, callback) {
        if (!this.known.has(sid) && !this.broken) this.map.set(sid, { text: JSON.stringify(made), expiry: this.expiryOf(made) });
        super.touch(sid, made, callback);
      }
    },
  ],
  [
    'touch.no_resurrection',
    'what is gone meanwhile is put back',
    class extends Right {
      touch(sid, made, callback) {
        const old = this.live(sid);
        super.touch(sid, made, (error) => {
          if (old !== undefined && !this.map.has(sid)) this.map.set(sid, old);
          callback?.(error);
        });
      }
    },
  ],
  [
    'touch.loses_no_update',
    'the whole session is written where one is',
    class extends Right {
      touch(sid, made, callback) {
        super.touch(sid, made, callback);
        const entry = this.live(sid);
        if (entry && !this.broken && this.loaded.has(made)) entry.text = JSON.stringify(made);
      }
    },
  ],
  [
    'touch.loses_no_update',
    'get and set',
    class extends Right {
      touch(sid, made, callback) {
        const old = this.live(sid);
        super.touch(sid, made, (error) => {
          if (this.live(sid)) this.live(sid).text = old.text;
          callback?.(error);
        });
      }
    },
  ],
  [
    'save.no_lost_update',
    'the last one wins',
    class extends Right {
      admits(sid, made) {
        return !this.loaded.has(made) || this.live(sid) !== undefined;
      }
    },
  ],
  [
    'expiry.ends',
    'half a second before',
    class extends Right {
      expiryOf(made) {
        const expiry = super.expiryOf(made);
        return over(expiry - this.time()) ? this.time() + 500 : expiry;
      }
    },
  ],
  [
    'expiry.ends',
    'five seconds after',
    class extends Right {
      expiryOf(made) {
        const expiry = super.expiryOf(made);
        return over(expiry - this.time()) ? expiry + 5000 : expiry;
      }
    },
  ],
  [
    'expiry.exact',
    'half a second late',
    class extends Right {
      expiryOf(made) {
        const expiry = super.expiryOf(made);
        return expiry > this.time() ? expiry + 500 : expiry;
      }
    },
  ],
  [
    'expiry.exact',
    'at the instant itself it is there',
    class extends Right {
      expiryOf(made) {
        const expiry = super.expiryOf(made);
        return expiry > this.time() ? expiry + 1 : expiry;
      }
    },
  ],
  [
    'expiry.none',
    'no end is the year 1970',
    class extends Right {
      expiryOf({ cookie }) {
        return new Date(cookie.expires).getTime();
      }
    },
  ],
  [
    'expiry.long',
    'a timer of 32 bits',
    class extends Right {
      save(sid, made) {
        super.save(sid, made);
        const left = this.expiryOf(made) - this.time();
        if (left > 2 ** 31 && left < Infinity) setTimeout(() => this.map.delete(sid), 1);
      }
    },
  ],
  [
    'expiry.past_save',
    'it is not stored, and that is all',
    class extends Right {
      save(sid, made) {
        if (this.expiryOf(made) > this.time()) super.save(sid, made);
      }
    },
  ],
  [
    'regenerate.new_id',
    'the old one stays',
    class extends Right {
      regenerate(request, callback) {
        this.generate(request);
        callback();
      }
    },
  ],
  [
    'load.session',
    'a miss is an error',
    class extends Right {
      load(sid, callback) {
        super.load(sid, (error, made) => callback(error ?? (made ? null : new Error('none')), made));
      }
    },
  ],
  [
    'all.lists',
    'whatever is in the table',
    class extends Right {
      all(callback) {
        this.does(() => Object.fromEntries([...this.map].map(([sid, { text }]) => [sid, JSON.parse(text)])), callback);
      }
    },
  ],
  [
    'ids.lists',
    'whatever is in the table',
    class extends Right {
      ids(callback) {
        this.does(() => [...this.map.keys()], callback);
      }
    },
  ],
  [
    'length.counts',
    'whatever is in the table',
    class extends Right {
      length(callback) {
        this.does(() => this.map.size, callback);
      }
    },
  ],
  [
    'clear.empties',
    'all but the last',
    class extends Right {
      clear(callback) {
        this.does(() => {
          for (const sid of [...this.map.keys()].slice(0, -1)) this.map.delete(sid);
        }, callback);
      }
    },
  ],
  [
    'fault.error_to_callback',
    'a miss where nothing can be reached',
    class extends Right {
      get(sid, callback) {
        if (this.broken) return tell(callback, null, null);
        return super.get(sid, callback);
      }
    },
  ],
  [
    'fault.destroy_without_callback',
    'a promise that nobody has asked for',
    class extends Right {
      destroy(sid, callback) {
        super.destroy(sid, callback);
        return this.broken && !callback ? Promise.reject(unreachable()) : undefined;
      }
    },
  ],
  [
    'fault.recovers',
    'what is broken stays so',
    class extends Right {
      #was = false;
      get broken() {
        return this.#was;
      }
      set broken(value) {
        this.#was ||= value;
      }
      constructor(clock) {
        super(clock);
        delete this.broken;
      }
    },
  ],
];

module.exports = { rights: [Right], mutants, also: ['save.no_lost_update'] };
