'use strict';

// Session stores of Curveball that break one rule of the conformance kit each, beside one that breaks none.

const { randomBytes } = require('node:crypto');
const { turn, unreachable } = require('./clock.cjs');

class Right {
  broken = false;
  map = new Map();
  given = new WeakSet(); // what get() gave: saved only where it still is
  constructor(clock) {
    this.now = () => clock.now().getTime();
  }
  reach() {
    if (this.broken) throw unreachable();
  }
  live(id) {
    const entry = this.map.get(id);
    return entry !== undefined && entry.end > this.now() ? entry : undefined;
  }
  endOf(expire) {
    return (expire + 1) * 1000;
  }
  admits(id, values) {
    return !this.given.has(values) || this.live(id) !== undefined;
  }
  async set(id, values, expire) {
    this.reach();
    const entry = { text: JSON.stringify(values), end: this.endOf(expire) };
    if (!(entry.end > this.now())) this.map.delete(id);
    else if (this.admits(id, values)) this.map.set(id, entry);
  }
  async get(id) {
    this.reach();
    const entry = this.live(id);
    if (entry === undefined) return null;
    const values = JSON.parse(entry.text);
    this.given.add(values);
    return values;
  }
  async delete(id) {
    this.reach();
    this.map.delete(id);
  }
  async newSessionId() {
    return randomBytes(32).toString('base64');
  }
}

/** [rule, what is wrong, class that takes a clock] */
const mutants = [
  [
    'shape.methods',
    'no newSessionId',
    class extends Right {
      newSessionId = undefined;
    },
  ],
  [
    'get.miss',
    'undefined',
    class extends Right {
      async get(id) {
        return (await super.get(id)) ?? undefined;
      }
    },
  ],
  [
    'get.what_was_set',
    'what is false is lost',
    class extends Right {
      async get(id) {
        const values = await super.get(id);
        if (values?.zero === 0) delete values.zero;
        return values;
      }
    },
  ],
  [
    'get.copies',
    'one object for all',
    class extends Right {
      shared = new Map();
      async get(id) {
        const values = await super.get(id);
        if (values?.inner && !this.shared.has(id)) this.shared.set(id, values);
        return values?.inner ? this.shared.get(id) : values;
      }
    },
  ],
  [
    'get.copies',
    'what was given is kept',
    class extends Right {
      kept = new Map();
      async set(id, values, expire) {
        this.kept.set(id, values.inner);
        return super.set(id, values, expire);
      }
      async get(id) {
        const values = await super.get(id);
        return values?.inner ? { ...values, inner: { ...this.kept.get(id) } } : values;
      }
    },
  ],
  [
    'id.any_text',
    'a line break is refused',
    class extends Right {
      async get(id) {
        if (id.includes('\n')) throw new Error('a line break');
        return super.get(id);
      }
    },
  ],
  [
    'id.any_text',
    'over a plain object',
    class extends Right {
      async get(id) {
        return (await super.get(id)) ?? {}[id] ?? null;
      }
    },
  ],
  [
    'id.unguessable',
    'a counter',
    class extends Right {
      count = 1000;
      async newSessionId() {
        return `session-0123456789-abcdefghijklmnop-${this.count++}`;
      }
    },
  ],
  [
    'id.unguessable',
    'now and then the same',
    class extends Right {
      ids = ['first', 'second', 'first'].map((name) => `${name}${'x'.repeat(40)}`);
      async newSessionId() {
        return this.ids.pop() ?? super.newSessionId();
      }
    },
  ],
  [
    'set.replaces',
    'merged',
    class extends Right {
      async set(id, values, expire) {
        return super.set(
          id,
          this.given.has(values) ? Object.assign(values, { ...JSON.parse(this.live(id)?.text ?? '{}'), ...values }) : values,
          expire,
        );
      }
    },
  ],
  [
    'set.whole',
    'field by field',
    class extends Right {
      async set(id, values, expire) {
        if (!(values.b?.length > 1000)) return super.set(id, values, expire);
        const write = (fields) =>
          this.map.set(id, {
            text: JSON.stringify({ ...JSON.parse(this.live(id)?.text ?? '{}'), ...fields }),
            end: this.endOf(expire),
          });
        write({ a: values.a });
        for (let turns = values.a; turns < 10; turns++) await turn();
        write({ b: values.b });
        return undefined;
      }
    },
  ],
  [
    'set.keeps_others',
    'all is read and all is written',
    class extends Right {
      async set(id, values, expire) {
        const all = new Map(this.map);
        const before = this.live(id);
        await super.set(id, values, expire);
        await turn();
        const entry = this.map.get(id);
        if (before !== undefined) return; // only what is new is written so: nothing meets a delete
        if (entry) all.set(id, entry);
        this.map = all;
      }
    },
  ],
  [
    'delete.removes',
    'what is not there is an error',
    class extends Right {
      async delete(id) {
        this.reach();
        if (!this.map.delete(id) && id.startsWith('kit')) throw new Error('there is none');
      }
    },
  ],
  [
    'delete.stays',
    'every save stores',
    class extends Right {
      admits() {
        return true;
      }
    },
  ],
  [
    'delete.stays',
    'it looks, and then stores',
    class extends Right {
      async set(id, values, expire) {
        if (!this.given.has(values) || this.live(id) === undefined || expire * 1000 < this.now())
          return super.set(id, values, expire);
        await turn();
        return super.set(id, { ...values }, expire);
      }
    },
  ],
  [
    'expiry.ends',
    'half a second late',
    class extends Right {
      endOf(expire) {
        return super.endOf(expire) + 500;
      }
    },
  ],
  [
    'expiry.through_second',
    'when the second begins',
    class extends Right {
      endOf(expire) {
        return expire * 1000;
      }
    },
  ],
  [
    'expiry.past_deletes',
    'an error',
    class extends Right {
      async set(id, values, expire) {
        if (expire * 1000 < this.now() - 1000) throw new RangeError('expire');
        return super.set(id, values, expire);
      }
    },
  ],
  [
    'expiry.past_deletes',
    'it is not stored, and that is all',
    class extends Right {
      async set(id, values, expire) {
        if (this.endOf(expire) > this.now() || this.broken) await super.set(id, values, expire);
      }
    },
  ],
  [
    'expiry.long',
    'a timer of 32 bits',
    class extends Right {
      async set(id, values, expire) {
        await super.set(id, values, expire);
        if (this.endOf(expire) - this.now() > 2 ** 31) setTimeout(() => this.map.delete(id), 1);
      }
    },
  ],
  [
    'fault.rejects',
    'a miss where nothing can be reached',
    class extends Right {
      async get(id) {
        return this.broken ? null : super.get(id);
      }
    },
  ],
  [
    'fault.recovers',
    'what is broken stays so',
    class extends Right {
      was = false;
      reach() {
        this.was ||= this.broken;
        if (this.was) throw unreachable();
      }
    },
  ],
];

module.exports = { rights: [Right], mutants };
