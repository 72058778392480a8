'use strict';

// Session stores of FluidAuth that break one rule of the conformance kit each, beside one that breaks none.

const { turn, unreachable } = require('./clock.cjs');

const taken = () => Object.assign(new Error('that id is taken'), { code: 400 });

class Right {
  broken = false;
  map = new Map();
  constructor(clock) {
    this.now = () => clock.now().getTime();
  }
  reach() {
    if (this.broken) throw unreachable();
  }
  async create(data) {
    this.reach();
    if (this.map.has(data.sessionId)) throw taken();
    this.map.set(data.sessionId, JSON.stringify(data));
  }
  async update(id, data) {
    this.reach();
    if (this.map.has(id)) this.map.set(id, JSON.stringify(data));
  }
  async delete(id) {
    this.reach();
    this.map.delete(id);
  }
  async get(id) {
    this.reach();
    return this.map.has(id) ? JSON.parse(this.map.get(id)) : null;
  }
  async clean() {
    for (const [id, text] of this.map) if (!(new Date(JSON.parse(text).expires).getTime() > this.now())) this.map.delete(id);
  }
}

/** [rule, what is wrong, class that takes a clock] */
const mutants = [
  [
    'shape.methods',
    'no clean',
    class extends Right {
      clean = undefined;
    },
  ],
  [
    'get.miss',
    'undefined',
    class extends Right {
      known = new Set();
      async create(data) {
        this.known.add(data.sessionId);
        return super.create(data);
      }
      async get(id) {
        return (await super.get(id)) ?? (this.known.has(id) ? null : undefined);
      }
    },
  ],
  [
    'get.what_was_set',
    'without its id',
    class extends Right {
      async get(id) {
        const data = await super.get(id);
        return data && { ...data, sessionId: undefined };
      }
    },
  ],
  [
    'get.copies',
    'one object for all',
    class extends Right {
      shared = new Map();
      async get(id) {
        const data = await super.get(id);
        if (data && !this.shared.has(id)) this.shared.set(id, data);
        return data && this.shared.get(id);
      }
      async update(id, data) {
        this.shared.delete(id);
        return super.update(id, data);
      }
    },
  ],
  [
    'user_id.type',
    'text',
    class extends Right {
      async get(id) {
        const data = await super.get(id);
        return data?.userId === 7 && this.map.size < 5 ? { ...data, userId: '7' } : data;
      }
    },
  ],
  [
    'create.refuses_taken',
    'an error without a code',
    class extends Right {
      async create(data) {
        if (this.map.has(data.sessionId)) throw new Error('that id is taken');
        return super.create(data);
      }
    },
  ],
  [
    'create.one_winner',
    'it looks, and then stores',
    class extends Right {
      async create(data) {
        this.reach();
        if (this.map.has(data.sessionId)) throw taken();
        await turn();
        this.map.set(data.sessionId, JSON.stringify(data));
      }
    },
  ],
  [
    'update.replaces',
    'nothing is changed',
    class extends Right {
      async update() {
        this.reach();
      }
    },
  ],
  [
    'update.not_after_delete',
    'it stores in any case',
    class extends Right {
      async update(id, data) {
        this.reach();
        this.map.set(id, JSON.stringify(data));
      }
    },
  ],
  [
    'update.not_after_delete',
    'it looks, and then stores',
    class extends Right {
      async update(id, data) {
        this.reach();
        if (!this.map.has(id)) return;
        await turn();
        this.map.set(id, JSON.stringify(data));
      }
    },
  ],
  [
    'delete.removes',
    'what is not there is an error',
    class extends Right {
      async delete(id) {
        if (!this.map.delete(id)) throw new Error('there is none');
      }
    },
  ],
  [
    'set.keeps_others',
    'all is read and all is written',
    class extends Right {
      ids = new Set();
      async create(data) {
        this.reach();
        if (this.ids.has(data.sessionId)) throw taken();
        this.ids.add(data.sessionId);
        const all = new Map(this.map);
        await turn();
        this.map = all.set(data.sessionId, JSON.stringify(data));
      }
    },
  ],
  [
    'clean.removes_expired',
    'it does nothing',
    class extends Right {
      async clean() {}
    },
  ],
  [
    'clean.keeps_live',
    'it removes all',
    class extends Right {
      async clean() {
        this.map.clear();
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
];

module.exports = { rights: [Right], mutants };
