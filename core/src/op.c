/* op.c: the life of an operation. */
#include "core.h"

#include <stdio.h>

enum { RETAINED = 16 * 1024 }; /* what an operation at rest may keep of its buffers */

bool cf_op_writes(const cf_op *op)
{
    static const bool writes[] = {
#define CF_OP(NAME, slot, writes_) writes_,
#include "counterfoil/ops.def"
#undef CF_OP
    };
    return writes[op->in.kind] && !op->reads;
}

cf_op *cf_op_new(cf_loop *loop, cf_store *store)
{
    cf_op *op = loop->free_ops;
    if (op) {
        loop->free_ops = op->parent;
    } else {
        if (loop->op_count == loop->op_cap) {
            /* The heap of deadlines grows with the operations, so that becoming pending can never fail. */
            size_t cap = loop->op_cap ? loop->op_cap * 2 : 16;
            if (loop->op_count >= CF_OPS_MAX) return NULL;
            cf_op **ops = loop->platform->resize(loop->platform->self, loop->ops, cap * sizeof *ops);
            if (!ops) return NULL;
            loop->ops = ops;
            cf_op **heap = loop->platform->resize(loop->platform->self, loop->heap, cap * sizeof *heap);
            if (!heap) return NULL;
            loop->heap = heap;
            loop->op_cap = cap;
        }
        op = cf_zalloc(loop->platform, sizeof *op);
        if (!op) return NULL;
        op->loop = loop;
        op->index = (uint32_t)loop->op_count;
        op->heap_at = SIZE_MAX;
        cf_link_init(&op->ready);
        cf_link_init(&op->lock_link);
        loop->ops[loop->op_count++] = op;
    }
    op->store = store;
    op->state = OP_SUBMITTING;
    op->hit = op->kept = op->prepared = op->locks = op->raw = op->orphan = op->secret = op->reads = op->canceled = op->freed = false;
    op->ticket = ++loop->tickets << 24 | op->index;
    op->number = 0;
    op->note = 0;
    op->value.len = op->key.len = op->cursor.len = op->sealed.len = op->plan.len = op->key_at = 0;
    op->page = (cf_page){0};
    op->error.status = CF_OK;
    op->error.outcome = CF_NOT_APPLIED;
    op->error.text[0] = 0;
    op->has_receipt = false;
    op->parent = op->child = NULL;
    op->step = NULL;
    op->phase = 0;
    return op;
}

static void drop_attached(cf_op *op)
{
    void *attached = op->attached;
    op->attached = NULL;
    if (attached && op->release_attached) op->release_attached(attached);
}

static void drop_buffer(const cf_platform *platform, cf_buffer *buffer)
{
    if (buffer->cap > RETAINED) cf_buffer_free(platform, buffer);
    buffer->len = 0;
}

void cf_op_recycle(cf_op *op)
{
    if (op->child) cf_op_recycle(op->child);
    op->child = NULL;
    cf_keyed_free(op);
    if (!cf_link_alone(&op->ready)) cf_link_remove(&op->ready);
    drop_attached(op);
    if (op->secret) {
        cf_wipe(op->plan.ptr, op->plan.cap);
        cf_wipe(op->value.ptr, op->value.cap);
        cf_wipe(op->keep.ptr, op->keep.cap);
    }
    drop_buffer(op->loop->platform, &op->key);
    drop_buffer(op->loop->platform, &op->value);
    drop_buffer(op->loop->platform, &op->keep);
    drop_buffer(op->loop->platform, &op->sealed);
    drop_buffer(op->loop->platform, &op->plan);
    op->state = OP_FREE;
    op->store = NULL;
    op->parent = op->loop->free_ops;
    op->loop->free_ops = op;
}

void cf_op_pend(cf_op *op)
{
    op->state = OP_PENDING;
    if (op->parent) return;
    cf_loop *loop = op->loop;
    op->deadline = cf_monotonic(loop->platform) + op->in.timeout_ms;
    loop->pending++;
    op->store->pending++;
    cf_heap_add(loop, op);
    cf_loop_arm(loop);
}

void cf_op_bring_nothing(cf_op *op)
{
    op->hit = false;
    op->cursor.len = op->key_at = 0;
    if (op->error.status != CF_EEXISTS || !cf_is_record_op(op->in.kind)) op->value.len = 0; /* that one brings the record that is there */
    if (op->in.kind < 0 || op->in.kind >= CF_OP_KINDS || !cf_op_writes(op)) op->error.outcome = CF_NOT_APPLIED;
}

void cf_op_end(cf_op *op, int status, cf_end how)
{
    cf_loop *loop = op->loop;
    if (op->heap_at != SIZE_MAX) {
        cf_heap_remove(loop, op);
        loop->pending--;
        if (op->store) op->store->pending--;
    }
    if (op->lock_state != LOCK_NONE) cf_derive_unlock(op);
    if (!cf_link_alone(&op->ready)) cf_link_remove(&op->ready);
    op->state = OP_FINISHED;
    if (status < 0 && op->error.status != status)
        cf_error_set(&op->error, status, CF_UNKNOWN, "the %s backend failed", op->store ? op->store->table->name : "closed");
    if (status < 0) cf_op_bring_nothing(op);
    if (status < 0 && cf_is_record_op(op->in.kind)) cf_records_explain(op);
    if (status == CF_OK) op->error.status = CF_OK;
    if (op->parent) {
        if (how != END_QUIETLY) cf_resume(op->parent);
        return;
    }
    if (op->orphan) {
        cf_op_recycle(op);
        return;
    }
    loop->finished++;
    if (op->store && status < 0) {
        op->store->errors++;
        if (status == CF_ETIMEOUT) op->store->timeouts++;
    }
    if (how == END_NOW) {
        if (op->in.done) op->in.done(op, op->in.user);
    } else if (how == END_QUEUE) {
        cf_link_append(&loop->ready, &op->ready);
        if (!loop->running) cf_loop_nudge(loop); /* a loop that runs looks before it returns */
    }
}

/* A record operation changes something with its last child alone, but for one that is made of keys, which knows: so what that child has done is what was done. True: it
 * also said why. */
static bool learn(cf_op *op, const cf_op *child, int status, bool *reached)
{
    if (!cf_is_record_op(op->in.kind)) return false;
    if (op->keyed ? !cf_keyed_changes(op) : child->error.outcome == CF_NOT_APPLIED) *reached = false;
    if (child->error.status == status) return false;
    op->error = child->error;
    op->error.outcome = *reached ? CF_UNKNOWN : CF_NOT_APPLIED;
    return true;
}

void cf_op_abort(cf_op *op, int status, cf_end how, const char *sentence)
{
    bool reached = cf_op_writes(op), told = false;
    op->error.status = CF_OK;
    if (op->child) {
        cf_op *child = op->child;
        op->child = NULL;
        if (child->state != OP_PENDING || status == CF_EFORKED || !cf_derive_hand_down(op, child)) {
            if (child->state == OP_PENDING) {
                cf_op_abort(child, status, END_QUIETLY, sentence);
                told = learn(op, child, status, &reached);
            }
            cf_op_recycle(child);
        }
    } else if (op->lock_state == LOCK_WAITING || op->lock_state == LOCK_GRANTED) {
        reached = false;
    } else if (op->store && op->store->table->cancel && !cf_loop_forked(op->loop)) {
        /* In a child that has not reopened, the backend would speak to what is the parent's: the ticket goes stale, that is enough. */
        cf_store_enter(op->store);
        if (op->store->table->cancel(op->store->self, op, status) == CF_NOT_APPLIED) reached = false;
        cf_store_exit(op->store);
        told = status == CF_ETIMEOUT && op->error.status < 0; /* it knows better what the deadline was spent on */
    }
    if (!told) cf_error_set(&op->error, status, reached ? CF_UNKNOWN : CF_NOT_APPLIED, "%s", sentence);
    cf_op_end(op, op->error.status, how);
}

/* ------------------------------------------------------------------------------------------------ composed operations -- */

/* Whether a slot that works for it is on the stack, and would come back to a child that is somebody else's by then. */
static bool in_a_slot(const cf_op *op)
{
    if (!op->child) return false;
    while (op->child) op = op->child;
    return op->state == OP_SUBMITTING && !op->prepared;
}

static cf_op *whole_of(cf_op *op)
{
    while (op->parent) op = op->parent;
    return op;
}

static bool is_given_up(cf_op *op)
{
    const cf_op *whole = whole_of(op);
    return whole->canceled || whole->freed;
}

static void end_given_up(cf_op *whole)
{
    bool freed = whole->freed;
    whole->canceled = whole->freed = false;
    cf_op_abort(whole, CF_ECANCELED, freed ? END_QUIETLY : END_QUEUE, "the operation was cancelled");
    if (freed) cf_op_recycle(whole);
}

int cf_compose(cf_op *op, cf_step_fn step)
{
    op->step = step;
    int rc = cf_compose_on(op);
    if (rc == CF_PENDING) cf_op_pend(op);
    return rc;
}

int cf_compose_on(cf_op *op)
{
    for (;;) {
        cf_op *child = op->child;
        if (!child || !child->prepared) {
            int rc = op->step(op, child);
            if (rc == STEP_YIELD) {
                op->child->prepared = true;
                cf_link_append(&op->loop->yielded, &op->ready);
                if (!op->loop->running) cf_loop_nudge(op->loop);
                return CF_PENDING;
            }
            if (rc != STEP_CHILD) {
                if (op->child) cf_op_recycle(op->child);
                op->child = NULL;
                return rc;
            }
            child = op->child;
        }
        child->prepared = false;
        int rc = child->locks ? cf_derive(child) : cf_store_call(child);
        if (rc == CF_PENDING) return CF_PENDING;
        child->state = OP_FINISHED;
        if (is_given_up(op)) return CF_PENDING;
    }
}

void cf_resume(cf_op *op)
{
    cf_store *store = op->store;
    bool inner = op->parent != NULL;
    int rc = cf_compose_on(op);
    if (rc != CF_PENDING) {
        cf_op_end(op, rc, END_QUEUE);
        if (inner) return; /* its parent has gone on, and has left the store */
    } else if (is_given_up(op)) {
        end_given_up(whole_of(op));
    }
    if (store) cf_store_leave(store);
}

cf_op *cf_child(cf_op *op, int kind, cf_slice key)
{
    cf_op *child = op->child;
    if (child) {
        op->child = NULL;
        cf_op_recycle(child);
    }
    child = cf_op_new(op->loop, op->store);
    if (!child) {
        cf_error_set(&op->error, CF_ENOMEM, CF_NOT_APPLIED, "no memory");
        return NULL;
    }
    op->child = child;
    child->raw = op->raw;
    child->secret = op->secret;
    child->parent = op;
    child->in = (cf_request){.size = sizeof child->in, .kind = kind, .key = key};
    return child;
}

cf_op *cf_child_for(cf_op *op, int kind, cf_slice bare)
{
    const cf_platform *platform = op->loop->platform;
    op->key.len = 0;
    if (cf_buffer_append(platform, &op->key, cf_bytes(op->store->prefix, op->store->prefix_len)) != CF_OK || cf_buffer_append(platform, &op->key, bare) != CF_OK)
        return NULL;
    return cf_child(op, kind, cf_bytes(op->key.ptr, op->key.len));
}

void cf_take_cursor(cf_op *op, cf_op *child)
{
    cf_buffer cursor = child->cursor;
    child->cursor = op->cursor;
    op->cursor = cursor;
}

int cf_adopt(cf_op *op, cf_op *child)
{
    op->error = child->error;
    drop_attached(op);
    op->attached = child->attached;
    op->release_attached = child->release_attached;
    child->attached = NULL;
    if (op->error.status == CF_EEXISTS) cf_take_value(op, child);
    return op->error.status;
}

/* Without a copy: a value that was popped cannot be lost for want of memory. */
void cf_take_value(cf_op *op, cf_op *child)
{
    cf_buffer value = op->value;
    op->value = child->value;
    child->value = value;
    op->secret = child->secret = op->secret || child->secret;
}

/* --------------------------------------------------------------------------------------------------- for the caller -- */

int cf_op_kind(const cf_op *op) { return op->in.kind; }

int cf_op_status(const cf_op *op)
{
    return op->state == OP_FINISHED ? op->error.status : CF_PENDING;
}

bool cf_op_hit(const cf_op *op) { return op->hit; }
cf_slice cf_op_value(const cf_op *op) { return cf_bytes(op->value.ptr, op->value.len); }
int64_t cf_op_number(const cf_op *op) { return op->number; }
cf_slice cf_op_cursor(const cf_op *op) { return cf_bytes(op->cursor.ptr, op->cursor.len); }
const cf_error *cf_op_error(const cf_op *op) { return &op->error; }
void *cf_op_user(const cf_op *op) { return op->in.user; }
cf_slice cf_op_receipt(const cf_op *op)
{
    bool lost = op->has_receipt && op->state == OP_FINISHED && op->error.status < 0 && op->error.outcome != CF_NOT_APPLIED;
    return cf_bytes(op->receipt, lost ? sizeof op->receipt : 0);
}
cf_store *cf_op_store(const cf_op *op) { return op->store; }
void *cf_op_attached(const cf_op *op) { return op->attached; }

bool cf_op_next_key(cf_op *op, cf_slice *key)
{
    if (op->in.kind != CF_OP_SCAN && op->in.kind != CF_OP_CLEAR && op->in.kind != CF_OP_RESEAL) return false; /* the last two have the page they are at */
    if (op->key_at >= op->value.len) return false;
    uint32_t len;
    memcpy(&len, op->value.ptr + op->key_at, sizeof len);
    *key = cf_bytes(op->value.ptr + op->key_at + sizeof len, len);
    op->key_at += sizeof len + len;
    return true;
}

bool cf_op_next_record(cf_op *op, cf_record *record)
{
    if (!cf_is_record_op(op->in.kind) || op->key_at >= op->value.len) return false;
    size_t size = cf_record_unpack(cf_bytes(op->value.ptr + op->key_at, op->value.len - op->key_at), record);
    op->key_at += size;
    return size > 0;
}

int cf_op_cancel(cf_op *op)
{
    if (op->state != OP_PENDING || op->canceled) return CF_EINVAL;
    if (in_a_slot(op)) {
        op->canceled = true;
        return CF_OK;
    }
    bool now = op->loop->depth == 0; /* `done` is never called inside a backend */
    cf_store *store = op->store;
    cf_op_abort(op, CF_ECANCELED, now ? END_QUIETLY : END_QUEUE, "the operation was cancelled");
    cf_store_leave(store); /* its `cancel` may have closed it */
    if (now && op->in.done) op->in.done(op, op->in.user);
    return CF_OK;
}

void cf_op_free(cf_op *op)
{
    if (!op) return;
    if (op->state == OP_PENDING && in_a_slot(op)) {
        op->freed = true;
        return;
    }
    if (op->state == OP_PENDING) {
        cf_store *store = op->store;
        cf_op_abort(op, CF_ECANCELED, END_QUIETLY, "the operation was cancelled");
        cf_store_leave(store);
    }
    cf_op_recycle(op);
}

/* Looks for the answer for a while before anybody sleeps: the two wake-ups that a sleep costs are dearer than the time between. It pays when the server has
 * a core of its own and answers at once; where it does not, looking only keeps the core from it: then most waits sleep at once. Several
 * threads that look at once would keep the cores from each other. */
enum { SPIN_US = 40, SPIN_GIVE_UP = 8, STANDING_STILL = 8 };
static atomic_uint waiting;     /* threads in cf_op_wait_for */
static atomic_uint counted_for; /* in the process of this generation: a child has none of its parent's threads */

/* True: somebody called cf_loop_wake meanwhile. */
static bool spin(cf_op *op)
{
    cf_loop *loop = op->loop;
    if (loop->pending != 1 || loop->watch_count == 0 || loop->depth || loop->running || atomic_load(&waiting) != 1) return false;
    if (loop->spin_skip) {
        loop->spin_skip--;
        return false;
    }
    int64_t start = cf_monotonic_us(loop->platform), now = start;
    for (int looks = 0; now < start + SPIN_US && atomic_load(&waiting) == 1; looks++) {
        if (looks == STANDING_STILL && now == start) return false; /* the clock of a stage would let us look for ever */
        if (cf_loop_run(loop, 0) < 0) return false;
        if (op->state != OP_PENDING) {
            loop->spin_failed = 0;
            return false;
        }
        if (loop->interrupted) return true;
        now = cf_monotonic_us(loop->platform);
    }
    if (loop->spin_failed < SPIN_GIVE_UP) loop->spin_failed++;
    loop->spin_skip = 1U << loop->spin_failed;
    return false;
}

static int wait_for(cf_op *op, int max_ms);

int cf_op_wait_for(cf_op *op, int max_ms)
{
    if (op->state != OP_PENDING) return wait_for(op, max_ms);
    unsigned generation = cf_fork_generation();
    if (atomic_load(&counted_for) != generation && atomic_exchange(&counted_for, generation) != generation) atomic_store(&waiting, 0);
    atomic_fetch_add(&waiting, 1);
    bool woken = max_ms != 0 && spin(op);
    int  rc = woken && max_ms > 0 ? CF_PENDING : wait_for(op, max_ms);
    atomic_fetch_sub(&waiting, 1);
    return rc;
}

static int wait_for(cf_op *op, int max_ms)
{
    cf_loop *loop = op->loop;
    int64_t until = max_ms < 0 ? INT64_MAX : cf_monotonic(loop->platform) + max_ms;
    /* Also when it has finished and its `done` still waits in the queue. */
    while (op->state == OP_PENDING || !cf_link_alone(&op->ready)) {
        int64_t left = until == INT64_MAX ? -1 : until - cf_monotonic(loop->platform);
        if (max_ms >= 0 && left < 0) left = 0;
        int rc = cf_loop_run(loop, (int)left);
        if (rc < 0) return rc;
        if (max_ms < 0 || op->state != OP_PENDING) continue;
        if (left == 0 || (rc == 0 && (loop->interrupted || loop->idle))) return CF_PENDING;
    }
    return op->error.status;
}

int cf_op_wait(cf_op *op) { return cf_op_wait_for(op, -1); }

/* -------------------------------------------------------------------------------------------------- for the backend -- */

const cf_request *cf_op_in(const cf_op *op) { return &op->in; }
cf_loop *cf_op_loop(const cf_op *op) { return op->loop; }
uint64_t cf_op_ticket(const cf_op *op) { return op->ticket; }
uint64_t cf_op_note(const cf_op *op) { return op->note; }
void     cf_op_set_note(cf_op *op, uint64_t note) { op->note = note; }

cf_op *cf_loop_op(cf_loop *loop, uint64_t ticket)
{
    size_t index = ticket & (CF_OPS_MAX - 1);
    if (index >= loop->op_count) return NULL;
    cf_op *op = loop->ops[index];
    return op->ticket == ticket && op->state == OP_PENDING ? op : NULL;
}

int cf_op_keep(cf_op *op)
{
    if (op->kept) return CF_OK;
    cf_request *in = &op->in;
    cf_slice *parts[] = {&in->key, &in->value, &in->expected, &in->cursor, &in->receipt};
    const size_t count = sizeof parts / sizeof *parts;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += parts[i]->len;
    op->keep.len = 0;
    /* Of a composed operation: plain text, until a child seals it. */
    if (op->store && op->store->seal_values && !op->sealed.len && in->value.len + in->expected.len) op->secret = true;
    int rc = cf_buffer_reserve(op->loop->platform, &op->keep, total);
    if (rc != CF_OK) return cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory");
    for (size_t i = 0; i < count; i++) {
        if (parts[i]->len == 0) continue;
        char *at = op->keep.ptr + op->keep.len;
        memcpy(at, parts[i]->ptr, parts[i]->len);
        parts[i]->ptr = at;
        op->keep.len += parts[i]->len;
    }
    op->kept = true;
    return CF_OK;
}

void cf_op_set_receipt(cf_op *op, const char *receipt)
{
    memcpy(op->receipt, receipt, sizeof op->receipt);
    op->has_receipt = true;
}

void cf_op_set_hit(cf_op *op, bool hit) { op->hit = hit; }
void cf_op_set_number(cf_op *op, int64_t number) { op->number = number; }

char *cf_op_value_buffer(cf_op *op, size_t len)
{
    op->value.len = 0;
    if (cf_buffer_reserve(op->loop->platform, &op->value, len ? len : 1) != CF_OK) {
        cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for the value");
        return NULL;
    }
    op->value.len = len;
    return op->value.ptr;
}

size_t cf_op_value_max(const cf_op *op) { return CF_VALUE_MAX + (op->store && op->store->seal_values ? CF_SEAL_MORE : 0); }

int cf_op_set_value(cf_op *op, cf_slice value)
{
    char *to = cf_op_value_buffer(op, value.len);
    if (!to) return CF_ENOMEM;
    if (value.len) memcpy(to, value.ptr, value.len);
    return CF_OK;
}

static int add_to_page(cf_op *op, cf_slice text)
{
    uint32_t len = (uint32_t)text.len;
    size_t before = op->value.len;
    int rc = cf_buffer_append(op->loop->platform, &op->value, cf_bytes(&len, sizeof len));
    if (rc == CF_OK) rc = cf_buffer_append(op->loop->platform, &op->value, text);
    if (rc == CF_OK) return CF_OK;
    op->value.len = before;
    return cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory for a page of keys");
}

int cf_op_add_key(cf_op *op, cf_slice key)
{
    size_t prefix = op->store ? op->store->prefix_len : 0;
    if (!cf_slice_starts(key, op->in.key)) return CF_OK;
    cf_slice bare = cf_bytes(key.ptr + prefix, key.len - prefix);
    if (bare.len == 0 || bare.len > CF_KEY_MAX) return CF_OK;
    if (cf_key_fault(bare) && !(op->raw && cf_keyed_is_name(op->store, bare))) return CF_OK;
    return add_to_page(op, bare);
}

int cf_op_add_id(cf_op *op, cf_slice id) { return cf_can_be_indexed(id) ? add_to_page(op, id) : CF_OK; }

int cf_op_set_cursor(cf_op *op, cf_slice cursor)
{
    if (cursor.len > CF_CURSOR_MAX)
        return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "the backend gave a cursor of %zu bytes; at most %d are allowed",
                          cursor.len, CF_CURSOR_MAX);
    op->cursor.len = 0;
    if (cf_buffer_append(op->loop->platform, &op->cursor, cursor) == CF_OK) return CF_OK;
    return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a cursor");
}

int cf_op_fail(cf_op *op, int status, int outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cf_error_setv(&op->error, status, outcome, format, args);
    va_end(args);
    return status;
}

void cf_op_attach(cf_op *op, void *object, void (*release)(void *object))
{
    drop_attached(op);
    op->attached = object;
    op->release_attached = release;
}

void cf_op_finish(cf_op *op, int status)
{
    /* The backend that calls is on the stack: should the next slot of a composed operation close the store, the loop does it. */
    cf_loop  *loop = op->loop;
    cf_store *store = op->store;
    if (cf_is_record_op(op->in.kind))
        status = cf_records_arrive(op, status);
    else if (status == CF_OK && store->seal_values && !op->raw)
        status = cf_store_unseal(op);
    store->depth++;
    cf_op_end(op, status, END_QUEUE);
    store->depth--;
    if (store->closing && !loop->running) cf_loop_nudge(loop);
}
