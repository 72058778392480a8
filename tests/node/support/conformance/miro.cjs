'use strict';

// Storages of Miro's client that break one rule of the conformance kit each, beside those that break none.

const { turn, unreachable } = require('./clock.cjs');

/** A promise whose rejection ends no process where nobody waits for it. */
const quiet = (promise) => {
  promise.catch(() => {});
  return promise;
};

class Right {
  broken = false;
  map = new Map();
  #refreshes = new Map();
  #locks = new Map();
  #fence = 0;

  reach() {
    if (this.broken) throw unreachable();
  }
  async get(id) {
    this.reach();
    return this.map.has(String(id)) ? JSON.parse(this.map.get(String(id))) : undefined;
  }
  store(id, state) {
    this.reach();
    if (state === undefined) this.map.delete(String(id));
    else this.map.set(String(id), JSON.stringify(state));
  }
  set(id, state) {
    return quiet((async () => this.store(id, state))());
  }
  refreshOnce(id, refresh) {
    const key = String(id);
    if (!this.#refreshes.has(key)) {
      const work = async () => {
        const state = await refresh(await this.get(id));
        await this.set(id, state);
        return state;
      };
      this.#refreshes.set(
        key,
        work().finally(() => this.#refreshes.delete(key)),
      );
    }
    return this.#refreshes.get(key);
  }
  withLock(id, work) {
    const before = this.#locks.get(String(id)) ?? Promise.resolve();
    const done = before.then(() => work({ fence: ++this.#fence }));
    this.#locks.set(
      String(id),
      done.catch(() => {}),
    );
    return done;
  }
}

/** [rule, what is wrong, class that takes a clock] */
const mutants = [
  [
    'shape.methods',
    'no get',
    class extends Right {
      get = undefined;
    },
  ],
  [
    'get.miss',
    'null',
    class extends Right {
      known = new Set();
      store(id, state) {
        this.known.add(String(id));
        super.store(id, state);
      }
      async get(id) {
        return (await super.get(id)) ?? (this.known.has(String(id)) || !String(id).startsWith('kit') ? undefined : null);
      }
    },
  ],
  [
    'get.what_was_set',
    'tokenExpiresAt as a Date',
    class extends Right {
      async get(id) {
        const state = await super.get(id);
        return state?.tokenExpiresAt ? { ...state, tokenExpiresAt: new Date(state.tokenExpiresAt) } : state;
      }
    },
  ],
  [
    'get.own_names',
    'over a plain object',
    class extends Right {
      async get(id) {
        return (await super.get(id)) ?? {}[id];
      }
    },
  ],
  [
    'id.number_is_text',
    'a Map by what is given',
    class extends Right {
      store(id, state) {
        super.store(typeof id === 'number' ? `n${id}` : id, state);
      }
      get(id) {
        return super.get(typeof id === 'number' ? `n${id}` : id);
      }
    },
  ],
  [
    'set.undefined_deletes',
    'an empty state',
    class extends Right {
      store(id, state) {
        super.store(id, state === undefined && String(id).startsWith('kit') ? {} : state);
      }
    },
  ],
  [
    'set.replaces',
    'merged',
    class extends Right {
      store(id, state) {
        super.store(
          id,
          state && this.map.has(String(id)) && state.refreshToken ? { ...JSON.parse(this.map.get(String(id))), ...state } : state,
        );
      }
    },
  ],
  [
    'set.keeps_others',
    'all is read and all is written',
    class extends Right {
      turns = 30; // what began first ends last
      set(id, state) {
        if (this.broken || state === undefined) return super.set(id, state);
        const all = new Map(this.map);
        this.store(id, state);
        const work = async (turns) => {
          for (let left = turns; left > 0; left--) await turn();
          this.map = all.set(String(id), JSON.stringify(state));
        };
        return work(this.turns--);
      }
    },
  ],
  [
    'set.seen_at_once',
    'a turn later',
    class extends Right {
      set(id, state) {
        return quiet(turn().then(() => this.store(id, state)));
      }
    },
  ],
  [
    'fault.unawaited_set',
    'a rejection',
    class extends Right {
      async set(id, state) {
        this.store(id, state);
      }
    },
  ],
  [
    'fault.get_rejects',
    'a miss where nothing can be reached',
    class extends Right {
      async get(id) {
        return this.broken ? undefined : super.get(id);
      }
    },
  ],
  [
    'refresh.one',
    'each for itself',
    class extends Right {
      async refreshOnce(id, refresh) {
        return refresh(await this.get(id));
      }
    },
  ],
  [
    'lock.one_holder',
    'all at once',
    class extends Right {
      fence = 0;
      async withLock(id, work) {
        return work({ fence: ++this.fence });
      }
    },
  ],
];

module.exports = { rights: [Right], mutants };
