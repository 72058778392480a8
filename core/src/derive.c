/* derive.c: what a backend lacks and its author lets us derive from get, set and del (CF_BACKEND_DERIVE), under a lock per key.
 *
 * All writes of such a backend take the lock, also those it has itself: otherwise a plain set could fall between the get and
 * the del of a pop. An operation that finds the key locked waits in its queue; the one that lets go hands the lock to the first,
 * which may live on another loop, and wakes that loop. Everything about locks is guarded by CF_LOCK_DERIVE. */
#include "core.h"

#include <stdint.h>

struct cf_keylock {
    const cf_platform *platform; /* whose memory this is; stores of different platforms never share */
    const void        *identity;
    unsigned           generation; /* of forks: the loop that holds it may never be reopened in a child, so no child looks at it */
    cf_keylock        *next;       /* in its bucket */
    cf_link            waiters;
    size_t             len;
    char               key[];
};

static cf_keylock *buckets[256];

static size_t bucket_of(const void *identity, cf_slice key)
{
    /* In-process and short-lived: flooding it only makes the flooder's own writes wait. */
    const cf_hash_key pepper = {(uint64_t)(uintptr_t)identity, 0};
    return cf_hash(&pepper, key) % (sizeof buckets / sizeof *buckets);
}

static const void *identity_of(const cf_store *store)
{
    return store->table->identity ? store->table->identity(store->self) : (const void *)store->self;
}

int cf_derive_take(cf_op *op, cf_slice key)
{
    const cf_platform *platform = op->loop->platform;
    const void *identity = identity_of(op->store);
    cf_keylock **bucket = &buckets[bucket_of(identity, key)];
    int rc = CF_OK;
    cf_lock(CF_LOCK_DERIVE);
    unsigned generation = cf_fork_generation();
    cf_keylock *lock = *bucket;
    while (lock && !(lock->platform == platform && lock->identity == identity && lock->generation == generation &&
                     cf_slice_equal(cf_bytes(lock->key, lock->len), key)))
        lock = lock->next;
    if (lock) {
        op->lock = lock;
        op->lock_state = LOCK_WAITING;
        cf_link_append(&lock->waiters, &op->lock_link);
        rc = CF_PENDING;
    } else if ((lock = cf_alloc(platform, sizeof *lock + key.len))) {
        lock->platform = platform;
        lock->identity = identity;
        lock->generation = generation;
        lock->len = key.len;
        memcpy(lock->key, key.ptr, key.len);
        cf_link_init(&lock->waiters);
        lock->next = *bucket;
        *bucket = lock;
        op->lock = lock;
        op->lock_state = LOCK_HELD;
    } else {
        rc = cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a key lock");
    }
    cf_unlock(CF_LOCK_DERIVE);
    return rc;
}

void cf_derive_unlock(cf_op *op)
{
    cf_lock(CF_LOCK_DERIVE);
    cf_keylock *lock = op->lock;
    cf_lock_state state = op->lock_state;
    if (state == LOCK_WAITING || state == LOCK_GRANTED) cf_link_remove(&op->lock_link);
    op->lock = NULL;
    op->lock_state = LOCK_NONE;
    if (state == LOCK_GRANTED || state == LOCK_HELD) {
        if (cf_link_alone(&lock->waiters)) {
            cf_keylock **at = &buckets[bucket_of(lock->identity, cf_bytes(lock->key, lock->len))];
            while (*at != lock) at = &(*at)->next;
            *at = lock->next;
            cf_release(lock->platform, lock);
        } else {
            /* Its loop cannot go away meanwhile: an operation leaves the queue, under this lock, before its loop is freed. */
            cf_op *next = CF_OF_LINK(lock->waiters.next, cf_op, lock_link);
            cf_link_remove(&next->lock_link);
            next->lock_state = LOCK_GRANTED;
            cf_link_append(&next->loop->granted, &next->lock_link);
            atomic_store(&next->loop->has_granted, true);
            cf_loop_nudge(next->loop);
        }
    }
    cf_unlock(CF_LOCK_DERIVE);
}

/* A write that is with the backend may still arrive after its caller's deadline. Were the key free, it would bring back what a pop
 * has given away meanwhile. */
bool cf_derive_hand_down(cf_op *op, cf_op *child)
{
    if (op->lock_state != LOCK_HELD || child->step || !cf_op_writes(child) || !op->store || op->store->closing || cf_loop_forked(op->loop))
        return false;
    child->lock = op->lock;
    child->lock_state = LOCK_HELD;
    op->lock = NULL;
    op->lock_state = LOCK_NONE;
    child->orphan = true;
    child->parent = NULL;
    return true;
}

void cf_derive_granted(cf_loop *loop)
{
    for (;;) {
        cf_op *op = NULL;
        cf_lock(CF_LOCK_DERIVE);
        if (!cf_link_alone(&loop->granted)) {
            op = CF_OF_LINK(loop->granted.next, cf_op, lock_link);
            cf_link_remove(&op->lock_link);
            op->lock_state = LOCK_HELD;
        }
        cf_unlock(CF_LOCK_DERIVE);
        if (!op) return;
        cf_resume(op);
    }
}

/* ------------------------------------------------------------------------------------------------------------- steps -- */

enum { FIRST, GOT, WROTE };

static int child_set(cf_op *op, cf_slice value, int64_t ttl_ms, unsigned flags)
{
    cf_op *child = cf_child(op, CF_OP_SET, op->in.key);
    if (!child) return CF_ENOMEM;
    child->in.value = value;
    child->in.ttl_ms = ttl_ms;
    child->in.flags = flags;
    op->phase = WROTE;
    return STEP_CHILD;
}

static int child_plain(cf_op *op, int kind, int phase)
{
    op->phase = phase;
    return cf_child(op, kind, op->in.key) ? STEP_CHILD : CF_ENOMEM;
}

/* The same operation once more, by the backend itself. */
static int child_same(cf_op *op)
{
    cf_op *child = cf_child(op, op->in.kind, op->in.key);
    if (!child) return CF_ENOMEM;
    child->in = op->in;
    child->in.done = NULL;
    op->phase = WROTE;
    return STEP_CHILD;
}

static bool condition_holds(const cf_request *in, const cf_op *got)
{
    if (in->flags & CF_IF_ABSENT) return !got->hit;
    if (in->flags & CF_IF_PRESENT) return got->hit;
    return got->hit && cf_slice_equal(cf_op_value(got), in->expected);
}

static int after_get(cf_op *op, cf_op *got)
{
    cf_request *in = &op->in;
    switch (in->kind) {
    case CF_OP_POP:
        if (!got->hit) return CF_OK;
        cf_take_value(op, got);
        return child_plain(op, CF_OP_DELETE, WROTE);
    case CF_OP_TOUCH:
        if (!got->hit) return CF_OK;
        cf_take_value(op, got);
        return child_set(op, cf_op_value(op), in->ttl_ms, 0);
    case CF_OP_INCR: {
        char text[CF_INT_TEXT];
        int64_t number = 0;
        if (got->hit && !cf_parse_int(cf_op_value(got), &number))
            return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the value is not a canonical decimal integer");
        if (!cf_counter_add(op, &number)) return CF_EINVAL;
        op->number = number;
        size_t len = cf_format_int(number, text);
        bool fresh = !got->hit; /* the child below takes its place */
        op->secret = op->store->seal_values;
        if (cf_op_set_value(op, cf_bytes(text, len)) != CF_OK) return CF_ENOMEM;
        /* Should what is there expire before this arrives, the new one lives as a new one does, not for ever. */
        return child_set(op, cf_op_value(op), in->ttl_ms, fresh ? 0 : CF_KEEP_TTL);
    }
    default:
        if (!condition_holds(in, got)) return CF_OK;
        return child_set(op, in->value, in->ttl_ms, in->flags & CF_KEEP_TTL);
    }
}

static bool has_slot(const cf_backend_table *table, int kind)
{
    return kind == CF_OP_POP ? table->pop != NULL : kind == CF_OP_TOUCH ? table->touch != NULL : table->incr != NULL;
}

static int derive_step(cf_op *op, cf_op *child)
{
    cf_request *in = &op->in;
    const cf_backend_table *table = op->store->table;
    if (child && child->error.status != CF_OK) {
        int phase = op->phase;
        cf_adopt(op, child);
        if (phase == GOT) op->error.outcome = CF_NOT_APPLIED;
        op->value.len = 0;
        return op->error.status;
    }
    if (op->phase == FIRST) {
        bool conditional = in->flags & (CF_IF_ABSENT | CF_IF_PRESENT | CF_IF_EQUAL);
        switch (in->kind) {
        case CF_OP_SET:
            if (in->ttl_ms < 0) return child_plain(op, CF_OP_DELETE, WROTE);
            if (conditional && !(table->flags & CF_BACKEND_CONDITIONS)) return child_plain(op, CF_OP_GET, GOT);
            return child_same(op);
        case CF_OP_DELETE: return child_same(op);
        default: return has_slot(table, in->kind) ? child_same(op) : child_plain(op, CF_OP_GET, GOT);
        }
    }
    if (op->phase == GOT) return after_get(op, child);
    switch (in->kind) {
    case CF_OP_SET:
        op->hit = in->ttl_ms < 0 || child->hit;
        break;
    case CF_OP_DELETE: op->hit = child->hit; break;
    case CF_OP_POP:
        op->hit = true;
        if (child->in.kind != CF_OP_POP) break;
        op->hit = child->hit;
        cf_take_value(op, child);
        break;
    case CF_OP_TOUCH:
        op->hit = child->in.kind == CF_OP_TOUCH ? child->hit : true;
        op->value.len = 0;
        break;
    default:
        op->hit = true;
        if (child->in.kind == CF_OP_INCR) op->number = child->number;
        op->value.len = 0;
        break;
    }
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------- entry -- */

bool cf_derive_applies(const cf_store *store, int kind, unsigned flags)
{
    const cf_backend_table *table = store->table;
    if (!(table->flags & CF_BACKEND_DERIVE)) return false;
    switch (kind) {
    case CF_OP_SET: return !(flags & CF_KEEP_TTL) || (table->flags & CF_BACKEND_KEEP_TTL);
    case CF_OP_DELETE:
    case CF_OP_POP:
    case CF_OP_TOUCH: return true;
    /* A derived counter must be able to keep its expiry. */
    case CF_OP_INCR: return table->incr || (table->flags & CF_BACKEND_KEEP_TTL);
    default: return false;
    }
}

/* What the lock of a key is called. Records that are kept as keys have one for all of them. */
static cf_slice lock_of(const cf_op *op)
{
    size_t prefix = op->store->prefix_len;
    bool   names_record = cf_keyed_is_name(op->store, cf_bytes(op->in.key.ptr + prefix, op->in.key.len - prefix));
    return cf_bytes(op->in.key.ptr, names_record ? prefix + 1 : op->in.key.len);
}

int cf_derive(cf_op *op)
{
    int rc = cf_op_keep(op);
    if (rc != CF_OK) return rc;
    op->step = derive_step;
    rc = cf_derive_take(op, lock_of(op));
    if (rc == CF_PENDING) {
        cf_op_pend(op);
        return rc;
    }
    if (rc != CF_OK) return rc;
    rc = cf_compose(op, derive_step);
    if (rc != CF_PENDING) cf_derive_unlock(op);
    return rc;
}
