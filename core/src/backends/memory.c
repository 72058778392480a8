/* memory.c: a table of the process, private to a store or shared by name.
 *
 * Three structures over one entry: a linear hash table, which grows by one bucket at a time; a hierarchical timing wheel of what
 * expires; and, where the table is capped, a list by last use. No operation does more than a bounded amount of each. */
#include "counterfoil/backend.h"
#include "util.h"

enum {
    SEGMENT = 512,      /* buckets that are allocated together */
    LEAST_BUCKETS = 16, /* never fewer                         */
    LEVELS = 11,        /* of 64 slots each: all of an int64   */
    SWEEP_WRITE = 16,   /* steps of sweeping that whatever gives a deadline pays for; each costs at most LEVELS + 1 */
    SWEEP_OTHER = 4,
    SCAN_BUCKETS = 8    /* buckets looked at for each key of a page, so that a rare prefix does not hold the loop */
};

#define NEVER INT64_MAX

typedef struct entry entry;
struct entry {
    entry   *next;  /* in its bucket */
    cf_link  wheel; /* alone: never expires */
    int64_t  deadline;
    uint64_t hash;
    uint32_t key_len, value_len;
    char     bytes[]; /* key, value */
};

typedef struct table table;
struct table {
    const cf_platform *platform;
    cf_mutex    *lock; /* NULL: private */
    table       *next; /* of the shared ones */
    size_t       refs;
    cf_hash_key  hash_key;
    entry     ***segments;
    size_t       segment_cap, buckets;
    size_t       entries, bytes;
    size_t       max_entries, max_bytes; /* 0: no cap */
    size_t       pinned_entries, pinned_bytes; /* of a capped table, which they do not fill */
    bool         capped;
    cf_link      by_use; /* least recently used first */
    uint64_t     evicted, expired;
    int64_t      swept_to, next_due; /* the wheel's own now; when it next has work */
    uint64_t     occupied[LEVELS];   /* slots that may hold something */
    cf_link      slots[LEVELS][64];
    cf_link      due, cascading;
    size_t       name_len;
    char         name[];
};

static table *shared; /* CF_LOCK_MEMORY */

/* ------------------------------------------------------------------------------------------------------------ entries -- */

/* A capped table has a second link in front of each entry. */
static cf_link *use_link(entry *e) { return (cf_link *)(void *)e - 1; }
static entry *of_use_link(cf_link *link) { return (entry *)(void *)(link + 1); }
static cf_slice key_of(const entry *e) { return cf_bytes(e->bytes, e->key_len); }
static cf_slice value_of(const entry *e) { return cf_bytes(e->bytes + e->key_len, e->value_len); }

static size_t size_of(const table *t, size_t key_len, size_t value_len)
{
    return sizeof(entry) + key_len + value_len + (t->capped ? sizeof(cf_link) : 0);
}

static size_t cost_of(const table *t, const entry *e) { return size_of(t, e->key_len, e->value_len) + sizeof(entry *); }

static entry *new_entry(const table *t, cf_slice key, cf_slice value)
{
    char *block = cf_alloc(t->platform, size_of(t, key.len, value.len));
    if (!block) return NULL;
    if (t->capped) {
        cf_link_init((cf_link *)(void *)block);
        block += sizeof(cf_link);
    }
    entry *e = (entry *)(void *)block;
    e->next = NULL;
    cf_link_init(&e->wheel);
    e->key_len = (uint32_t)key.len;
    e->value_len = (uint32_t)value.len;
    memcpy(e->bytes, key.ptr, key.len);
    if (value.len) memcpy(e->bytes + key.len, value.ptr, value.len);
    return e;
}

/* What users and sessions are made of has a line break in its key, which no caller's key has. It is never evicted: without their names records would not be found,
 * and what is unique would not stay so. */
static bool pinned(cf_slice key) { return memchr(key.ptr, '\n', key.len) != NULL; }

static void pin(table *t, const entry *e, bool in)
{
    if (!t->capped || !pinned(key_of(e))) return;
    t->pinned_entries += in ? 1 : (size_t)-1;
    t->pinned_bytes += in ? cost_of(t, e) : 0 - cost_of(t, e);
}

static void free_entry(const table *t, entry *e) { cf_release(t->platform, t->capped ? (void *)use_link(e) : (void *)e); }

/* ----------------------------------------------------------------------------------------- linear hashing (Litwin 1980) -- */

static size_t power_above(size_t n)
{
    return n <= 1 ? 1 : (size_t)1 << (64 - __builtin_clzll((unsigned long long)n - 1));
}

static size_t index_of(const table *t, uint64_t hash)
{
    size_t high = power_above(t->buckets), index = (size_t)hash & (high - 1);
    return index < t->buckets ? index : index & (high / 2 - 1);
}

static entry **bucket(const table *t, size_t index) { return &t->segments[index / SEGMENT][index % SEGMENT]; }

static entry **find(table *t, cf_slice key, uint64_t hash)
{
    entry **at = bucket(t, index_of(t, hash));
    while (*at && !((*at)->hash == hash && cf_slice_equal(key_of(*at), key))) at = &(*at)->next;
    return at;
}

/* One more bucket, filled from the one that it splits off. Where memory is short the table stays as it is: only fuller. */
static void grow(table *t)
{
    size_t fresh = t->buckets;
    if (fresh % SEGMENT == 0) {
        if (fresh / SEGMENT == t->segment_cap) {
            size_t cap = t->segment_cap * 2;
            entry ***segments = t->platform->resize(t->platform->self, t->segments, cap * sizeof *segments);
            if (!segments) return;
            t->segments = segments;
            t->segment_cap = cap;
        }
        entry **segment = cf_zalloc(t->platform, SEGMENT * sizeof *segment);
        if (!segment) return;
        t->segments[fresh / SEGMENT] = segment;
    }
    size_t half = power_above(fresh + 1) / 2;
    entry **from = bucket(t, fresh - half), **to = bucket(t, fresh);
    t->buckets++;
    while (*from) {
        entry *e = *from;
        if (index_of(t, e->hash) == fresh) {
            *from = e->next;
            e->next = *to;
            *to = e;
        } else {
            from = &e->next;
        }
    }
}

static void shrink(table *t)
{
    size_t last = t->buckets - 1, half = power_above(t->buckets) / 2;
    entry **from = bucket(t, last), **to = bucket(t, last - half);
    while (*to) to = &(*to)->next;
    *to = *from;
    *from = NULL;
    t->buckets--;
    if (last % SEGMENT == 0) {
        cf_release(t->platform, t->segments[last / SEGMENT]);
        t->segments[last / SEGMENT] = NULL;
    }
}

/* ------------------------------------------------------------------------------------------------------ timing wheel -- */

/* An entry lies on the level of the highest group of six bits in which its deadline differs from the wheel's now. */
static void wheel_add(table *t, entry *e)
{
    if (e->deadline == NEVER) return;
    if (e->deadline <= t->swept_to) {
        cf_link_append(&t->due, &e->wheel);
        t->next_due = t->swept_to;
        return;
    }
    uint64_t differs = (uint64_t)e->deadline ^ (uint64_t)t->swept_to;
    unsigned level = (63 - (unsigned)__builtin_clzll(differs)) / 6;
    uint64_t slot = ((uint64_t)e->deadline >> (6 * level)) & 63;
    int64_t start = (int64_t)((uint64_t)e->deadline >> (6 * level) << (6 * level));
    cf_link_append(&t->slots[level][slot], &e->wheel);
    t->occupied[level] |= UINT64_C(1) << slot;
    if (start < t->next_due) t->next_due = start;
}

/* Finds the next slot with work and says when that is; NEVER: the wheel is empty. */
static int64_t wheel_next(table *t, unsigned *level, unsigned *slot)
{
    for (unsigned l = 0; l < LEVELS; l++) {
        uint64_t here = (uint64_t)t->swept_to >> (6 * l);
        uint64_t later = (here & 63) == 63 ? 0 : t->occupied[l] & (~UINT64_C(0) << ((here & 63) + 1));
        while (later) {
            unsigned s = (unsigned)__builtin_ctzll(later);
            if (!cf_link_alone(&t->slots[l][s])) {
                *level = l;
                *slot = s;
                return (int64_t)(((here & ~UINT64_C(63)) | s) << (6 * l));
            }
            t->occupied[l] &= ~(UINT64_C(1) << s); /* what lay there has been deleted or touched */
            later &= later - 1;
        }
    }
    return NEVER;
}

static void remove_entry(table *t, entry **at);

static void remove_found(table *t, entry *e)
{
    entry **at = bucket(t, index_of(t, e->hash));
    while (*at != e) at = &(*at)->next;
    remove_entry(t, at);
}

static void sweep(table *t, int64_t now, unsigned steps)
{
    while (now >= t->next_due && steps) {
        if (!cf_link_alone(&t->due)) {
            steps--;
            t->expired++;
            remove_found(t, CF_OF_LINK(t->due.next, entry, wheel));
            continue;
        }
        if (!cf_link_alone(&t->cascading)) {
            steps--;
            entry *e = CF_OF_LINK(t->cascading.next, entry, wheel);
            cf_link_remove(&e->wheel);
            wheel_add(t, e);
            continue;
        }
        unsigned level = 0, slot = 0;
        int64_t next = wheel_next(t, &level, &slot);
        t->next_due = next;
        if (next > now) {
            t->swept_to = now;
            return;
        }
        t->swept_to = next;
        cf_link_splice(level ? &t->cascading : &t->due, &t->slots[level][slot]);
        t->occupied[level] &= ~(UINT64_C(1) << slot);
    }
}

/* -------------------------------------------------------------------------------------------------- linking entries -- */

static void remove_entry(table *t, entry **at)
{
    entry *e = *at;
    *at = e->next;
    if (!cf_link_alone(&e->wheel)) cf_link_remove(&e->wheel);
    if (t->capped) cf_link_remove(use_link(e));
    t->entries--;
    t->bytes -= cost_of(t, e);
    pin(t, e, false);
    free_entry(t, e);
    /* Four for each entry that goes, or a table that empties would keep three quarters of its buckets. */
    for (int i = 0; i < 4 && t->buckets > LEAST_BUCKETS && t->entries < t->buckets / 4; i++) shrink(t);
}

static void used(table *t, entry *e)
{
    if (!t->capped || pinned(key_of(e))) return;
    cf_link_remove(use_link(e));
    cf_link_append(&t->by_use, use_link(e));
}

static void set_deadline(table *t, entry *e, int64_t deadline)
{
    if (!cf_link_alone(&e->wheel)) cf_link_remove(&e->wheel);
    e->deadline = deadline;
    wheel_add(t, e);
}

/* Finds what is alive; what is not is taken out on the way. */
static entry *find_live(table *t, cf_slice key, uint64_t hash, int64_t now)
{
    entry **at = find(t, key, hash);
    if (*at && now >= (*at)->deadline) {
        t->expired++;
        remove_entry(t, at);
        return NULL;
    }
    return *at;
}

static bool over(const table *t)
{
    return (t->max_entries && t->entries - t->pinned_entries > t->max_entries) || (t->max_bytes && t->bytes - t->pinned_bytes > t->max_bytes);
}

/* Puts `e` in, in the place of `old` (which may be NULL) if there is one. */
static void put(table *t, entry *e, entry *old, uint64_t hash, int64_t deadline)
{
    e->hash = hash;
    if (old) {
        entry **at = bucket(t, index_of(t, hash));
        while (*at != old) at = &(*at)->next;
        e->next = old->next;
        *at = e;
        if (!cf_link_alone(&old->wheel)) cf_link_remove(&old->wheel);
        if (t->capped) cf_link_remove(use_link(old));
        t->bytes -= cost_of(t, old);
        pin(t, old, false);
        free_entry(t, old);
    } else {
        entry **at = bucket(t, index_of(t, hash));
        e->next = *at;
        *at = e;
        t->entries++;
    }
    t->bytes += cost_of(t, e);
    pin(t, e, true);
    if (t->capped && !pinned(key_of(e))) cf_link_append(&t->by_use, use_link(e));
    e->deadline = deadline;
    wheel_add(t, e);
    if (t->entries > t->buckets) grow(t);
}

static void evict(table *t, const entry *keep)
{
    while (over(t)) {
        entry *oldest = of_use_link(t->by_use.next);
        if (oldest == keep) break;
        t->evicted++;
        remove_found(t, oldest);
    }
}

static int store_value(table *t, cf_op *op, cf_slice value, entry *old, uint64_t hash, int64_t deadline, int64_t now)
{
    const cf_request *in = cf_op_in(op);
    if (t->max_bytes && size_of(t, in->key.len, value.len) + sizeof(entry *) > t->max_bytes && !pinned(in->key))
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "key and value are larger than max_bytes");
    if (old && old->value_len == value.len) {
        if (value.len) memcpy(old->bytes + old->key_len, value.ptr, value.len);
        set_deadline(t, old, deadline);
        used(t, old);
    } else {
        entry *e = new_entry(t, in->key, value);
        if (!e) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for the value");
        put(t, e, old, hash, deadline);
        if (t->capped && over(t)) {
            sweep(t, now, LEVELS * SWEEP_WRITE);
            evict(t, e);
        }
    }
    cf_op_set_hit(op, true);
    return CF_OK;
}

/* -------------------------------------------------------------------------------------------------------- operations -- */

/* Stores of one name have one `self`, so that they share the locks of records. */
static table *of(cf_backend *self) { return (table *)(void *)self; }

typedef int (*action)(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now);

static int perform(cf_backend *self, cf_op *op, action act, unsigned steps)
{
    table *t = of(self);
    const cf_request *in = cf_op_in(op);
    uint64_t hash = cf_hash(&t->hash_key, in->key);
    if (t->lock) cf_mutex_lock(t->lock);
    int64_t now = cf_monotonic(t->platform);
    int rc = act(t, op, in, hash, now);
    sweep(t, now, steps);
    if (t->lock) cf_mutex_unlock(t->lock);
    return rc;
}

static int64_t deadline_of(const cf_request *in, int64_t now) { return in->ttl_ms > 0 ? now + in->ttl_ms : NEVER; }

static int act_get(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry *e = find_live(t, in->key, hash, now);
    if (!e) return CF_OK;
    int rc = cf_op_set_value(op, value_of(e));
    if (rc != CF_OK) return rc;
    used(t, e);
    cf_op_set_hit(op, true);
    return CF_OK;
}

static int act_set(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry *e = find_live(t, in->key, hash, now);
    if ((in->flags & CF_IF_ABSENT) && e) return CF_OK;
    if ((in->flags & CF_IF_PRESENT) && !e) return CF_OK;
    if ((in->flags & CF_IF_EQUAL) && !(e && cf_slice_equal(value_of(e), in->expected))) return CF_OK;
    int64_t deadline = e && (in->flags & CF_KEEP_TTL) ? e->deadline : deadline_of(in, now);
    return store_value(t, op, in->value, e, hash, deadline, now);
}

static int act_del(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry **at = find(t, in->key, hash);
    if (!*at) return CF_OK;
    bool live = now < (*at)->deadline;
    if (!live) t->expired++;
    cf_op_set_hit(op, live);
    remove_entry(t, at);
    return CF_OK;
}

static int act_pop(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry *e = find_live(t, in->key, hash, now);
    if (!e) return CF_OK;
    int rc = cf_op_set_value(op, value_of(e));
    if (rc != CF_OK) return rc;
    cf_op_set_hit(op, true);
    remove_found(t, e);
    return CF_OK;
}

static int act_touch(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry *e = find_live(t, in->key, hash, now);
    if (!e) return CF_OK;
    set_deadline(t, e, deadline_of(in, now));
    used(t, e);
    cf_op_set_hit(op, true);
    return CF_OK;
}

static int act_incr(table *t, cf_op *op, const cf_request *in, uint64_t hash, int64_t now)
{
    entry *e = find_live(t, in->key, hash, now);
    int64_t number = 0;
    if (e && !cf_parse_int(value_of(e), &number))
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the value is not a canonical decimal integer");
    if (!cf_counter_add(op, &number)) return CF_EINVAL;
    char text[CF_INT_TEXT];
    size_t len = cf_format_int(number, text);
    cf_op_set_number(op, number);
    return store_value(t, op, cf_bytes(text, len), e, hash, e ? e->deadline : deadline_of(in, now), now);
}

static int do_get(cf_backend *self, cf_op *op) { return perform(self, op, act_get, SWEEP_OTHER); }
static int do_set(cf_backend *self, cf_op *op) { return perform(self, op, act_set, SWEEP_WRITE); }
static int do_del(cf_backend *self, cf_op *op) { return perform(self, op, act_del, SWEEP_OTHER); }
static int do_pop(cf_backend *self, cf_op *op) { return perform(self, op, act_pop, SWEEP_OTHER); }
static int do_touch(cf_backend *self, cf_op *op) { return perform(self, op, act_touch, SWEEP_WRITE); }
static int do_incr(cf_backend *self, cf_op *op) { return perform(self, op, act_incr, SWEEP_WRITE); }

/* -------------------------------------------------------------------------------------------------------------- scan -- */

static uint64_t reverse(uint64_t x)
{
    x = __builtin_bswap64(x);
    x = (x & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4 | (x >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f));
    x = (x & UINT64_C(0x3333333333333333)) << 2 | (x >> 2 & UINT64_C(0x3333333333333333));
    return (x & UINT64_C(0x5555555555555555)) << 1 | (x >> 1 & UINT64_C(0x5555555555555555));
}

/* Whatever the number of buckets, a bucket holds one unbroken range of bit-reversed hashes, so a position in that order means the
 * same before and after the table has grown or shrunk. This is the last position of the bucket that `position` is in. */
static uint64_t end_of_bucket(const table *t, uint64_t position)
{
    size_t high = power_above(t->buckets), half = high / 2, index = index_of(t, reverse(position));
    bool split = index >= half || index + half < t->buckets;
    unsigned bits = (unsigned)__builtin_ctzll(split ? high : half);
    return position | (~UINT64_C(0) >> bits);
}

/* The entry of a bucket with the lowest position at or behind `from`, of those behind `last` in the chain when equal. */
static entry *next_in_bucket(const table *t, uint64_t from, const entry *last)
{
    entry *best = NULL;
    bool passed = last == NULL;
    for (entry *e = *bucket(t, index_of(t, reverse(from))); e; e = e->next) {
        uint64_t at = reverse(e->hash);
        bool candidate = last && at == from ? passed : at >= from;
        if (candidate && (!best || at < reverse(best->hash))) best = e;
        if (e == last) passed = true;
    }
    return best;
}

static bool parse_position(cf_slice cursor, uint64_t *position)
{
    *position = 0;
    if (cursor.len == 0) return true;
    if (cursor.len != 16) return false;
    for (size_t i = 0; i < 16; i++) {
        char c = cursor.ptr[i];
        if (c >= '0' && c <= '9') *position = *position << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f') *position = *position << 4 | (uint64_t)(c - 'a' + 10);
        else return false;
    }
    return true;
}

static int set_position(cf_op *op, uint64_t position)
{
    char cursor[16];
    for (int i = 16; i-- > 0; position >>= 4) cursor[i] = "0123456789abcdef"[position & 15];
    return cf_op_set_cursor(op, cf_bytes(cursor, sizeof cursor));
}

static int scan_page(table *t, cf_op *op, const cf_request *in, uint64_t position, int64_t now)
{
    size_t found = 0;
    for (size_t looked = 0;; looked++) {
        if (found >= in->limit || looked >= in->limit * SCAN_BUCKETS) return set_position(op, position);
        uint64_t end = end_of_bucket(t, position);
        const entry *last = NULL;
        for (entry *e; (e = next_in_bucket(t, position, last)); last = e) {
            uint64_t at = reverse(e->hash);
            /* A page ends between two positions, never between two entries of one. */
            if (found >= in->limit && at != position) return set_position(op, at);
            position = at;
            if (now >= e->deadline || !cf_slice_starts(key_of(e), in->key)) continue;
            int rc = cf_op_add_key(op, key_of(e));
            if (rc != CF_OK) return rc;
            found++;
        }
        if (end == UINT64_MAX) return CF_OK;
        position = end + 1;
    }
}

static int do_scan(cf_backend *self, cf_op *op)
{
    table *t = of(self);
    const cf_request *in = cf_op_in(op);
    uint64_t position;
    if (!parse_position(in->cursor, &position))
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the cursor is none that a scan gave");
    if (t->lock) cf_mutex_lock(t->lock);
    cf_op_set_hit(op, true);
    int rc = scan_page(t, op, in, position, cf_monotonic(t->platform));
    if (t->lock) cf_mutex_unlock(t->lock);
    return rc;
}

/* ------------------------------------------------------------------------------------------------- opening, closing -- */

static void free_table(table *t)
{
    if (!t) return;
    for (size_t i = 0; t->segments && i < t->buckets; i++)
        for (entry *e = *bucket(t, i), *next; e; e = next) {
            next = e->next;
            free_entry(t, e);
        }
    for (size_t i = 0; t->segments && i < t->segment_cap && i * SEGMENT < t->buckets; i++) cf_release(t->platform, t->segments[i]);
    cf_release(t->platform, t->segments);
    cf_mutex_free(t->platform, t->lock);
    cf_release(t->platform, t);
}

static table *new_table(const cf_platform *platform, cf_slice name, size_t max_entries, size_t max_bytes)
{
    table *t = cf_zalloc(platform, sizeof *t + name.len);
    if (!t) return NULL;
    t->platform = platform;
    t->refs = 1;
    t->max_entries = max_entries;
    t->max_bytes = max_bytes;
    t->capped = max_entries || max_bytes;
    t->buckets = LEAST_BUCKETS;
    t->segment_cap = 8;
    t->name_len = name.len;
    if (name.len) memcpy(t->name, name.ptr, name.len);
    cf_link_init(&t->by_use);
    cf_link_init(&t->due);
    cf_link_init(&t->cascading);
    for (size_t level = 0; level < LEVELS; level++)
        for (size_t slot = 0; slot < 64; slot++) cf_link_init(&t->slots[level][slot]);
    t->swept_to = cf_monotonic(platform);
    t->next_due = NEVER;
    t->segments = cf_zalloc(platform, t->segment_cap * sizeof *t->segments);
    if (t->segments) t->segments[0] = cf_zalloc(platform, SEGMENT * sizeof **t->segments);
    if (name.len) t->lock = cf_mutex_new(platform);
    if (!t->segments || !t->segments[0] || (name.len && !t->lock)) {
        t->buckets = t->segments && t->segments[0] ? LEAST_BUCKETS : 0;
        free_table(t);
        return NULL;
    }
    return t;
}

static int read_caps(const cf_url *url, size_t *max_entries, size_t *max_bytes, cf_error *error)
{
    *max_entries = *max_bytes = 0;
    for (size_t i = 0; i < url->option_count; i++) {
        const cf_url_option *option = &url->options[i];
        bool entries = cf_slice_equal(option->name, cf_text("max_entries"));
        if (!entries && !cf_slice_equal(option->name, cf_text("max_bytes")))
            return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "memory: knows the options max_entries and max_bytes; open itself knows prefix, ttl, timeout and stage");
        int64_t number;
        if (!cf_parse_int(option->value, &number) || number < 1 || (uint64_t)number > SIZE_MAX / 2)
            return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s must be a whole number of at least 1",
                                entries ? "max_entries" : "max_bytes");
        *(entries ? max_entries : max_bytes) = (size_t)number;
    }
    return CF_OK;
}

static table *join(const cf_platform *platform, cf_slice name)
{
    table *t = shared;
    while (t && !(t->platform == platform && cf_slice_equal(cf_bytes(t->name, t->name_len), name))) t = t->next;
    if (t) t->refs++;
    return t;
}

static int close_table(cf_backend *self, cf_error *error)
{
    (void)error;
    table *t = of(self);
    if (t->lock) {
        cf_lock(CF_LOCK_MEMORY);
        bool last = --t->refs == 0;
        if (last) {
            table **at = &shared;
            while (*at != t) at = &(*at)->next;
            *at = t->next;
        }
        cf_unlock(CF_LOCK_MEMORY);
        if (!last) return CF_OK;
    }
    free_table(t);
    return CF_OK;
}

static int open_table(cf_loop *loop, const cf_url *url, cf_backend **out, cf_error *error)
{
    enum { LONGEST_NAME = 256 };
    size_t max_entries, max_bytes;
    if (url->authority.ptr)
        return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "memory: is followed by a name, not by //: memory:sessions");
    if (url->path.len > LONGEST_NAME) return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "the name behind memory: is longer than 256 bytes");
    int rc = read_caps(url, &max_entries, &max_bytes, error);
    if (rc != CF_OK) return rc;
    const cf_platform *platform = cf_loop_platform(loop);
    table *t = new_table(platform, url->path, max_entries, max_bytes);
    if (!t) return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a table");
    if (platform->random(platform->self, &t->hash_key, sizeof t->hash_key) != 0) {
        free_table(t);
        return cf_error_set(error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the system gave no random bytes for the table's hash key");
    }
    if (t->lock) {
        /* Made before the lock is taken, so that no lock is ever made under another; thrown away when the name is there. */
        cf_lock(CF_LOCK_MEMORY);
        table *there = join(platform, url->path);
        if (!there) {
            t->next = shared;
            shared = t;
        }
        cf_unlock(CF_LOCK_MEMORY);
        if (there) {
            free_table(t);
            t = there;
            if ((max_entries && max_entries != t->max_entries) || (max_bytes && max_bytes != t->max_bytes)) {
                close_table((cf_backend *)(void *)t, error);
                return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "memory: of this name is open with other limits");
            }
        }
    }
    *out = (cf_backend *)(void *)t;
    return CF_OK;
}

static void figures(cf_backend *self, cf_stat_fn each, void *user)
{
    table *t = of(self);
    if (t->lock) cf_mutex_lock(t->lock);
    size_t entries = t->entries, bytes = t->bytes;
    uint64_t evicted = t->evicted, expired = t->expired;
    if (t->lock) cf_mutex_unlock(t->lock);
    each(user, "entries", (int64_t)entries);
    each(user, "bytes", (int64_t)bytes);
    each(user, "evicted", (int64_t)evicted);
    each(user, "expired", (int64_t)expired);
}

const cf_backend_table cf_memory_table = {
    .size = sizeof(cf_backend_table),
    .name = "memory",
    .flags = CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL | CF_BACKEND_RECORDS,
    .open = open_table,
    .close = close_table,
    .stats = figures,
    .get = do_get,
    .set = do_set,
    .del = do_del,
    .pop = do_pop,
    .touch = do_touch,
    .incr = do_incr,
    .scan = do_scan,
};
