'use strict';

// Backends that break one rule of the conformance kit each, beside one that breaks none.

const { Backend } = require('counterfoil');
const { FullBackend } = require('../backends.cjs');
const { turn, unreachable } = require('./clock.cjs');

const KEEP = Backend.KEEP;

/** Every method, each in one step; `broken` makes all of them fail. */
class Right extends FullBackend {
  broken = false;
  live(key) {
    if (this.broken) throw unreachable();
    return super.live(key);
  }
  set(...args) {
    if (this.broken) throw unreachable();
    super.set(...args);
  }
  /** Puts a value in place as it is, with its expiry. */
  put(key, value, ttl) {
    FullBackend.prototype.set.call(this, key, value, ttl);
  }
}

/** Three methods; the rest is derived. */
class Three {
  singleProcess = true;
  #right;
  constructor(clock) {
    this.#right = new Right(clock);
  }
  set broken(value) {
    this.#right.broken = value;
  }
  get(key) {
    return this.#right.get(key);
  }
  set(key, value, ttl) {
    this.#right.set(key, Buffer.from(value), ttl);
  }
  delete(key) {
    return this.#right.delete(key);
  }
}

/** [rule, what is wrong, class that takes a clock] */
const mutants = [
  [
    'shape.methods',
    'singleProcess is a number',
    class extends Right {
      singleProcess = 1;
    },
  ],
  [
    'shape.methods',
    'close is no method',
    class extends Right {
      close = true;
    },
  ],
  [
    'get.miss',
    'an empty string where nothing was ever set',
    class extends Right {
      known = new Set();
      note(key) {
        this.known.add(key);
      }
      get(key) {
        return this.known.has(key) || !key.startsWith('kit') ? super.get(key) : '';
      }
      set(key, ...rest) {
        this.note(key);
        super.set(key, ...rest);
      }
      pop(key) {
        this.note(key);
        return super.pop(key);
      }
      touch(key, ttl) {
        this.note(key);
        return super.touch(key, ttl);
      }
      incr(key, ...rest) {
        this.note(key);
        return super.incr(key, ...rest);
      }
      setIf(key, ...rest) {
        this.note(key);
        return super.setIf(key, ...rest);
      }
    },
  ],
  [
    'get.what_was_set',
    'a cache in front that misses once',
    class extends Right {
      cold = 'kit-second';
      get(key) {
        const value = super.get(key);
        if (String(value) !== this.cold) return value;
        this.cold = undefined;
        return undefined;
      }
    },
  ],
  [
    'get.own_names',
    'over a plain object',
    class extends Right {
      get(key) {
        return super.get(key) ?? Object.prototype[key];
      }
    },
  ],
  [
    'keys.distinct',
    'a collation that folds case',
    class extends Right {
      live(key) {
        return super.live(key.toLowerCase());
      }
      set(key, ...rest) {
        super.set(key.toLowerCase(), ...rest);
      }
      delete(key) {
        return super.delete(key.toLowerCase());
      }
      pop(key) {
        return super.pop(key.toLowerCase());
      }
    },
  ],
  [
    'keys.distinct',
    'accents are normalised',
    class extends Right {
      live(key) {
        return super.live(key.normalize());
      }
      set(key, ...rest) {
        super.set(key.normalize(), ...rest);
      }
    },
  ],
  [
    'keys.long',
    'a column of 1,000 bytes',
    class extends Right {
      cut(key) {
        return Buffer.from(key).subarray(0, 1000).toString();
      }
      live(key) {
        return super.live(this.cut(key));
      }
      set(key, ...rest) {
        super.set(this.cut(key), ...rest);
      }
    },
  ],
  [
    'keys.independent',
    'all is read and all is written',
    class extends Right {
      async set(...args) {
        const all = new Map(this.map);
        await turn();
        if (this.broken) throw unreachable();
        super.set(...args);
        all.set(args[0], this.map.get(args[0]));
        this.map = all;
      }
      setIf(...args) {
        return Right.prototype.setIf.apply(Object.create(this, { set: { value: Right.prototype.set } }), args);
      }
    },
  ],
  [
    'text.round_trip',
    'a byte order mark is taken off',
    class extends Right {
      set(key, value, ...rest) {
        super.set(key, value[0] === 0xef && value[1] === 0xbb ? value.subarray(3) : value, ...rest);
      }
    },
  ],
  [
    'binary.round_trip',
    'by way of UTF-8',
    class extends Right {
      set(key, value, ...rest) {
        super.set(key, Buffer.from(value.toString()), ...rest);
      }
    },
  ],
  [
    'values.empty',
    'a test for truth',
    class extends Right {
      get(key) {
        const value = super.get(key);
        return value?.length ? value : undefined;
      }
    },
  ],
  [
    'values.large',
    'a column of 65,535 bytes',
    class extends Right {
      set(key, value, ...rest) {
        super.set(key, value.subarray(0, 65535), ...rest);
      }
    },
  ],
  [
    'set.replaces',
    'what is longer stays',
    class extends Right {
      set(key, value, ...rest) {
        const old = this.live(key)?.value;
        super.set(key, String(value) === 'kit-b' && old?.length > 10 ? old : value, ...rest);
      }
    },
  ],
  [
    'set.replaces_ttl',
    'the first expiry stays',
    class extends Right {
      set(key, value, ttl, newTtl) {
        const old = this.live(key)?.expiry;
        super.set(key, value, ttl, newTtl);
        if (old !== undefined) this.map.get(key).expiry = old;
      }
    },
  ],
  [
    'set.replaces_ttl',
    'without a ttl the old expiry stays',
    class extends Right {
      set(key, value, ttl, newTtl) {
        const old = this.live(key)?.expiry;
        super.set(key, value, ttl, newTtl);
        if (old !== undefined && ttl === undefined) this.map.get(key).expiry = old;
      }
    },
  ],
  [
    'set.whole',
    'in two halves',
    class extends Right {
      async set(key, value, ttl, newTtl) {
        if (value.length < 5000 || value.length > 6000) return super.set(key, value, ttl, newTtl);
        super.set(key, value.subarray(0, 2500), ttl, newTtl);
        await turn();
        return super.set(key, Buffer.concat([this.get(key).subarray(0, 2500), value.subarray(2500)]), ttl, newTtl);
      }
    },
  ],
  [
    'delete.removes',
    'it is done a turn later',
    class extends Right {
      delete(key) {
        if (String(this.get(key)) !== 'kit-a') return super.delete(key);
        setImmediate(() => super.delete(key));
        return true;
      }
    },
  ],
  [
    'delete.says_whether',
    'always true',
    class extends Right {
      delete(key) {
        super.delete(key);
        return true;
      }
    },
  ],
  [
    'delete.says_whether',
    'what has expired counts',
    class extends Right {
      delete(key) {
        if (this.broken) throw unreachable();
        return this.map.delete(key);
      }
    },
  ],
  [
    'ttl.exact',
    'a tenth of a second late',
    class extends Right {
      expiry(ttl) {
        return super.expiry(ttl) + 100;
      }
    },
  ],
  [
    'ttl.exact',
    'a moment early',
    class extends Right {
      expiry(ttl) {
        return super.expiry(ttl) - 20;
      }
    },
  ],
  [
    'ttl.exact',
    'at the instant itself it is there',
    class extends Right {
      expiry(ttl) {
        return super.expiry(ttl) + 1;
      }
    },
  ],
  [
    'ttl.none',
    'a year where nothing is said',
    class extends Right {
      expiry(ttl) {
        return super.expiry(ttl ?? 365 * 86400);
      }
    },
  ],
  [
    'ttl.long',
    'a timer of 32 bits',
    class extends Right {
      set(key, value, ttl, newTtl) {
        super.set(key, value, ttl, newTtl);
        if (typeof ttl === 'number' && ttl > 2 ** 31 / 1000) setTimeout(() => this.map.delete(key), 1);
      }
    },
  ],
  [
    'pop.takes',
    'what has expired is given',
    class extends Right {
      pop(key) {
        const value = this.map.get(key)?.value;
        this.map.delete(key);
        return value;
      }
    },
  ],
  [
    'pop.one_winner',
    'get() and delete()',
    class extends Right {
      async pop(key) {
        const value = this.get(key);
        await turn();
        super.delete(key);
        return value;
      }
    },
  ],
  [
    'touch.moves_expiry',
    'never shorter',
    class extends Right {
      touch(key, ttl) {
        const old = this.live(key)?.expiry;
        const there = super.touch(key, ttl);
        if (there) this.map.get(key).expiry = Math.max(old, this.expiry(ttl));
        return there;
      }
    },
  ],
  [
    'touch.says_whether',
    'always true',
    class extends Right {
      touch(key, ttl) {
        super.touch(key, ttl);
        return true;
      }
    },
  ],
  [
    'touch.no_resurrection',
    'what is gone meanwhile is put back',
    class extends Right {
      async touch(key, ttl) {
        const old = this.live(key);
        await turn();
        if (old !== undefined && this.live(key) === undefined) this.put(key, old.value, ttl);
        return old !== undefined && super.touch(key, ttl);
      }
    },
  ],
  [
    'touch.loses_no_update',
    'get() and set() where something is',
    class extends Right {
      async touch(key, ttl) {
        const old = this.live(key);
        await turn();
        if (old === undefined || this.live(key) === undefined) return false;
        this.put(key, old.value, ttl);
        return true;
      }
    },
  ],
  [
    'incr.counts',
    'text in the place of a number',
    class extends Right {
      incr(...args) {
        return String(super.incr(...args));
      }
    },
  ],
  [
    'incr.loses_none',
    'get() and set()',
    class extends Right {
      async incr(key, by, ttl) {
        const entry = this.live(key);
        if (entry !== undefined && !/^-?\d+$/.test(entry.value)) throw new Error('not a number');
        await turn();
        const number = Number(entry?.value ?? 0) + by;
        this.map.set(key, { value: Buffer.from(String(number)), expiry: entry?.expiry ?? this.expiry(ttl) });
        return number;
      }
    },
  ],
  [
    'incr.keeps_ttl',
    'each sets it anew',
    class extends Right {
      incr(key, by, ttl) {
        const number = super.incr(key, by, ttl);
        if (ttl !== undefined) this.map.get(key).expiry = this.expiry(ttl);
        return number;
      }
    },
  ],
  [
    'incr.refuses_text',
    'text is zero',
    class extends Right {
      incr(key, by, ttl) {
        const entry = this.live(key);
        if (entry !== undefined && !/^-?\d+$/.test(entry.value)) entry.value = Buffer.from('0');
        return super.incr(key, by, ttl);
      }
    },
  ],
  [
    'set_if.absent',
    'what has expired is in the way',
    class extends Right {
      setIf(key, value, ttl, condition, ...rest) {
        return condition === 'absent' && this.map.has(key) ? false : super.setIf(key, value, ttl, condition, ...rest);
      }
    },
  ],
  [
    'set_if.absent',
    'without a ttl',
    class extends Right {
      setIf(key, value, ttl, condition, ...rest) {
        return super.setIf(key, value, condition === 'absent' ? undefined : ttl, condition, ...rest);
      }
    },
  ],
  [
    'set_if.present',
    'it always says yes',
    class extends Right {
      setIf(key, value, ttl, condition, ...rest) {
        return super.setIf(key, value, ttl, condition, ...rest) || condition === 'present';
      }
    },
  ],
  [
    'set_if.equal',
    'the beginning is enough',
    class extends Right {
      setIf(key, value, ttl, condition, expected, newTtl) {
        const old = this.live(key)?.value;
        return super.setIf(key, value, ttl, condition, condition === 'equal' && old?.includes(expected) ? old : expected, newTtl);
      }
    },
  ],
  [
    'set_if.one_winner',
    'get() and set()',
    class extends Right {
      async setIf(key, value, ttl, condition, ...rest) {
        if (condition !== 'absent') return super.setIf(key, value, ttl, condition, ...rest);
        if (this.live(key) !== undefined) return false;
        await turn();
        this.set(key, value, ttl);
        return true;
      }
    },
  ],
  [
    'set_if.equal_one_winner',
    'get() and set()',
    class extends Right {
      async setIf(key, value, ttl, condition, expected, newTtl) {
        const there = this.live(key);
        const holds = condition === 'equal' && there?.value.equals(expected) === true;
        if (!holds) return super.setIf(key, value, ttl, condition, expected, newTtl);
        await turn();
        if (this.live(key) === undefined) return false;
        this.set(key, value, ttl, newTtl);
        return true;
      }
    },
  ],
  [
    'set_if.no_resurrection',
    'get() and set()',
    class extends Right {
      async setIf(key, value, ttl, condition, ...rest) {
        if (condition !== 'present' || this.live(key) === undefined) return super.setIf(key, value, ttl, condition, ...rest);
        await turn();
        this.set(key, value, ttl, rest[1]);
        return true;
      }
    },
  ],
  [
    'keep_ttl.keeps',
    'KEEP is no ttl at all',
    class extends Right {
      set(key, value, ttl, newTtl) {
        super.set(key, value, ttl === KEEP ? undefined : ttl, newTtl);
      }
    },
  ],
  [
    'keep_ttl.keeps',
    'KEEP is the ttl of a new value',
    class extends Right {
      set(key, value, ttl, newTtl) {
        super.set(key, value, ttl === KEEP ? newTtl : ttl, newTtl);
      }
    },
  ],
  [
    'scan.finds_all',
    'each page begins with the end of the one before',
    class extends Right {
      scan(prefix, cursor, limit) {
        const page = super.scan(prefix, cursor, limit);
        return { keys: cursor === undefined ? page.keys : [cursor, ...page.keys], cursor: page.cursor };
      }
    },
  ],
  [
    'scan.finds_all',
    'it never ends',
    class extends Right {
      scan(prefix, cursor, limit) {
        return limit === 7 ? { keys: [], cursor: 1 } : super.scan(prefix, cursor, limit);
      }
    },
  ],
  [
    'scan.literal_prefix',
    'a star is a star',
    class extends Right {
      scan(prefix, cursor, limit) {
        if (!prefix.endsWith('*')) return super.scan(prefix, cursor, limit);
        return super.scan(prefix.slice(0, -1), cursor, limit);
      }
    },
  ],
  [
    'scan.no_expired',
    'whatever is in the table',
    class extends Right {
      scan(prefix) {
        return [...this.map.keys()].filter((key) => key.startsWith(prefix));
      }
    },
  ],
  [
    'scan.stable',
    'the cursor is an offset',
    class extends Right {
      scan(prefix, cursor = 0, limit) {
        const keys = super.scan(prefix, undefined, Infinity).keys;
        return { keys: keys.slice(cursor, cursor + limit), cursor: cursor + limit < keys.length ? cursor + limit : undefined };
      }
    },
  ],
  [
    'single_process.alone',
    'one table for all objects',
    ((map) =>
      class extends Right {
        singleProcess = true;
        map = map;
      })(new Map()),
  ],
  [
    'single_process.one_winner',
    'delete() is done a turn later',
    class extends Three {
      delete(key) {
        if (!key.endsWith(':code')) return super.delete(key);
        setImmediate(() => super.delete(key));
        return true;
      }
    },
  ],
  [
    'store.opens',
    'keys of other programs are refused',
    class extends Right {
      set(key, ...rest) {
        if (key.endsWith(':opened')) throw new Error('a key of somebody else');
        super.set(key, ...rest);
      }
    },
  ],
  [
    'fault.rejects',
    'a miss where nothing can be reached',
    class extends Right {
      get(key) {
        return this.broken ? undefined : super.get(key);
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

module.exports = { rights: [Right, Three], mutants };
