'use strict';

// What the express-session adapter must know of a session to end its whole life in time, and to touch it less often. It is kept in the stored
// text, beside the session's data, so that any number of processes know the same: FORMAT.md, item 7.

/** Its name in the stored text. Programs that do not know it give it back with the rest of the session. */
const FIELD = '__counterfoil';
/** On a session object, and on the data that get() gives. A symbol for the same reasons as those of the adapter: a merge must not take it along. */
const LIFE = Symbol('counterfoil.life');
/** Clocks of several machines may differ by so much. One that is further behind was set back. */
const MINUTE = 60000;

const isInstant = (value) => Number.isSafeInteger(value) && value >= 0;

/** The life of a session that begins now. Instants are in milliseconds; `noted`: so it stands in the stored text. */
const begun = (now) => ({ created: now, set: now, expires: undefined, noted: false });

/** What the stored session says of its life. Where that is nothing (another program wrote it) it counts from now. */
function lifeIn(session, now) {
  const { created, set, expires } = session[FIELD] ?? {};
  if (![created, set, expires].every(isInstant) || created > set) return begun(now);
  if (set - now <= MINUTE) return { created, set, expires, noted: true };
  // The clock was set back since. The session is as old as it was then, and grows older by the new time.
  return { ...begun(now), created: now - (set - created) };
}

/** Milliseconds until the whole life is over. A clock that is a little behind the one that wrote `set` does not count. */
const leftOf = (life, absolute, now) => life.created + absolute - Math.max(now, life.set);

/** What is to be noted of a life whose expiry is now set to `ttl` seconds from now. */
const noteOf = (life, ttl, now) => ({ created: life.created, set: Math.max(now, life.set), expires: Math.round(now + ttl * 1000) });

/** The session with that note, for a serializer: still of its class, and not the application's own object. */
function withNote(session, note) {
  const field = { value: note, enumerable: true, configurable: true, writable: true };
  return Object.create(Object.getPrototypeOf(session), { ...Object.getOwnPropertyDescriptors(session), [FIELD]: field });
}

module.exports = { FIELD, LIFE, begun, lifeIn, leftOf, noteOf, withNote };
