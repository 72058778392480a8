#include "table_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 4096

typedef struct entry {
    struct entry *next;          /* in the bucket             */
    struct entry *older, *newer; /* in the order of insertion */
    uint64_t      number;        /* place in that order       */
    int64_t       dies_at;       /* monotonic; 0: never       */
    size_t        key_len, value_len;
    char          bytes[];
} entry;

typedef struct data {
    pthread_mutex_t lock;
    int             users;
    uint64_t        numbers;
    entry          *oldest, *newest;
    entry          *buckets[BUCKETS];
} data;

typedef struct waiting {
    uint64_t      ticket;
    cf_backend_fn slot;
} waiting;

struct tb {
    cf_loop           *loop;
    const cf_platform *platform;
    tb_manner          manner;
    tb_log            *log;
    data              *data;
    waiting           *queue;
    int                queued, queue_cap;
    int                fd, write_fd;
    bool               told;
    cf_watch          *watch;
};

static _Thread_local tb *last;

static tb *of(cf_backend *self) { return (tb *)(void *)self; }
cf_backend *tb_backend(tb *self) { return (cf_backend *)(void *)self; }
tb *tb_last(void) { return last; }

/* ---- the table ---- */

static entry **bucket_of(data *d, cf_slice key)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key.len; i++) hash = (hash ^ (unsigned char)key.ptr[i]) * 16777619u;
    return &d->buckets[hash % BUCKETS];
}

static void drop(tb *self, entry **at)
{
    data  *d = self->data;
    entry *e = *at;
    *at = e->next;
    if (e->older) e->older->newer = e->newer;
    else d->oldest = e->newer;
    if (e->newer) e->newer->older = e->older;
    else d->newest = e->older;
    self->platform->release(self->platform->self, e);
}

/* The link to a living entry, or NULL. */
static entry **find(tb *self, cf_slice key)
{
    int64_t now = self->platform->monotonic_ms(self->platform->self);
    for (entry **at = bucket_of(self->data, key); *at; at = &(*at)->next) {
        if ((*at)->key_len != key.len || memcmp((*at)->bytes, key.ptr, key.len) != 0) continue;
        if ((*at)->dies_at == 0 || now < (*at)->dies_at) return at;
        drop(self, at);
        return NULL;
    }
    return NULL;
}

static cf_slice value_of(const entry *e) { return cf_bytes(e->bytes + e->key_len, e->value_len); }

static int put(tb *self, cf_slice key, cf_slice value, int64_t dies_at)
{
    entry *e = self->platform->alloc(self->platform->self, sizeof *e + key.len + value.len);
    if (!e) return CF_ENOMEM;
    data   *d = self->data;
    entry **old = find(self, key);
    e->key_len = key.len;
    e->value_len = value.len;
    e->dies_at = dies_at;
    memcpy(e->bytes, key.ptr, key.len);
    if (value.len) memcpy(e->bytes + key.len, value.ptr, value.len);
    if (old) { /* takes the old one's place, so that a scan sees the key once */
        e->number = (*old)->number;
        e->older = (*old)->older;
        e->newer = (*old)->newer;
        e->next = (*old)->next;
        if (e->older) e->older->newer = e;
        else d->oldest = e;
        if (e->newer) e->newer->older = e;
        else d->newest = e;
        entry *gone = *old;
        *old = e;
        self->platform->release(self->platform->self, gone);
        return CF_OK;
    }
    entry **bucket = bucket_of(d, key);
    e->number = ++d->numbers;
    e->next = *bucket;
    *bucket = e;
    e->older = d->newest;
    e->newer = NULL;
    if (d->newest) d->newest->newer = e;
    else d->oldest = e;
    d->newest = e;
    return CF_OK;
}

static int64_t death(tb *self, int64_t ttl_ms)
{
    return ttl_ms ? self->platform->monotonic_ms(self->platform->self) + ttl_ms : 0;
}

/* ---- the slots, as they answer at once ---- */

static int no_memory(cf_op *op) { return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "There is no memory for the table."); }

static int do_get(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->gets++;
    entry **at = find(self, cf_op_in(op)->key);
    cf_op_set_hit(op, at != NULL);
    return at ? cf_op_set_value(op, value_of(*at)) : CF_OK;
}

static int do_set(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->sets++;
    const cf_request *in = cf_op_in(op);
    entry **at = find(self, in->key);
    bool holds = true;
    if (in->flags & CF_IF_ABSENT) holds = !at;
    if (in->flags & CF_IF_PRESENT) holds = at != NULL;
    if (in->flags & CF_IF_EQUAL) {
        holds = at && (*at)->value_len == in->expected.len &&
                (in->expected.len == 0 || memcmp(value_of(*at).ptr, in->expected.ptr, in->expected.len) == 0);
    }
    cf_op_set_hit(op, holds);
    if (!holds) return CF_OK;
    int64_t dies_at = (in->flags & CF_KEEP_TTL) && at ? (*at)->dies_at : death(self, in->ttl_ms);
    return put(self, in->key, in->value, dies_at) ? no_memory(op) : CF_OK;
}

static int do_del(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->dels++;
    entry **at = find(self, cf_op_in(op)->key);
    cf_op_set_hit(op, at != NULL);
    if (at) drop(self, at);
    return CF_OK;
}

static int do_pop(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->pops++;
    entry **at = find(self, cf_op_in(op)->key);
    cf_op_set_hit(op, at != NULL);
    if (!at) return CF_OK;
    int status = cf_op_set_value(op, value_of(*at));
    if (status == CF_OK) drop(self, at);
    return status;
}

static int do_touch(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->touches++;
    entry **at = find(self, cf_op_in(op)->key);
    cf_op_set_hit(op, at != NULL);
    if (at) (*at)->dies_at = death(self, cf_op_in(op)->ttl_ms);
    return CF_OK;
}

static int do_incr(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->incrs++;
    const cf_request *in = cf_op_in(op);
    entry **at = find(self, in->key);
    int64_t number = in->by, dies_at = death(self, in->ttl_ms);
    char text[32];
    if (at) {
        cf_slice value = value_of(*at);
        char *end = text;
        if (value.len == 0 || value.len > 20) goto refuse;
        memcpy(text, value.ptr, value.len);
        text[value.len] = 0;
        errno = 0;
        int64_t old = strtoll(text, &end, 10);
        char again[32];
        snprintf(again, sizeof again, "%lld", (long long)old);
        if (errno || strlen(again) != value.len || memcmp(again, value.ptr, value.len) != 0) goto refuse;
        if (__builtin_add_overflow(old, in->by, &number) || number > CF_NUMBER_MAX || number < -CF_NUMBER_MAX) goto refuse;
        dies_at = (*at)->dies_at;
    }
    snprintf(text, sizeof text, "%lld", (long long)number);
    if (put(self, in->key, cf_text(text), dies_at)) return no_memory(op);
    cf_op_set_hit(op, true);
    cf_op_set_number(op, number);
    return CF_OK;
refuse:
    return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "The value is not a decimal integer that can be counted on.");
}

static int do_scan(cf_backend *backend, cf_op *op)
{
    tb *self = of(backend);
    self->log->scans++;
    const cf_request *in = cf_op_in(op);
    uint64_t after = 0;
    if (in->cursor.len) {
        char text[32] = {0};
        if (in->cursor.len >= sizeof text) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "This is no cursor of this backend.");
        memcpy(text, in->cursor.ptr, in->cursor.len);
        after = strtoull(text, NULL, 10);
    }
    cf_op_set_hit(op, true);
    int64_t now = self->platform->monotonic_ms(self->platform->self);
    size_t  given = 0;
    for (entry *e = self->data->oldest; e; e = e->newer) {
        if (e->number <= after || (e->dies_at && now >= e->dies_at)) continue;
        if (e->key_len < in->key.len || (in->key.len && memcmp(e->bytes, in->key.ptr, in->key.len) != 0)) continue;
        if (given == in->limit) {
            char text[32];
            int  len = snprintf(text, sizeof text, "%llu", (unsigned long long)after);
            return cf_op_set_cursor(op, cf_bytes(text, (size_t)len));
        }
        int status = cf_op_add_key(op, cf_bytes(e->bytes, e->key_len));
        if (status) return status;
        after = e->number;
        given++;
    }
    return CF_OK;
}

/* ---- now or later ---- */

static int run(tb *self, cf_op *op, cf_backend_fn slot)
{
    pthread_mutex_lock(&self->data->lock);
    int status = slot(tb_backend(self), op);
    pthread_mutex_unlock(&self->data->lock);
    return status;
}

static int later(tb *self, cf_op *op, cf_backend_fn slot)
{
    if (cf_op_keep(op)) return no_memory(op);
    if (self->queued == self->queue_cap) {
        int      cap = self->queue_cap ? self->queue_cap * 2 : 8;
        waiting *queue = self->platform->resize(self->platform->self, self->queue, (size_t)cap * sizeof *queue);
        if (!queue) return no_memory(op);
        self->queue = queue;
        self->queue_cap = cap;
    }
    self->queue[self->queued].ticket = cf_op_ticket(op);
    self->queue[self->queued].slot = slot;
    self->queued++;
    return CF_PENDING;
}

static int call(cf_backend *backend, cf_op *op, cf_backend_fn slot)
{
    tb *self = of(backend);
    if (self->log->on_slot) {
        int status = self->log->on_slot(self, op, self->log->user);
        if (status != CF_OK) return status;
    }
    return self->manner == TB_NOW ? run(self, op, slot) : later(self, op, slot);
}

static int slot_get(cf_backend *self, cf_op *op) { return call(self, op, do_get); }
static int slot_set(cf_backend *self, cf_op *op) { return call(self, op, do_set); }
static int slot_del(cf_backend *self, cf_op *op) { return call(self, op, do_del); }
static int slot_pop(cf_backend *self, cf_op *op) { return call(self, op, do_pop); }
static int slot_touch(cf_backend *self, cf_op *op) { return call(self, op, do_touch); }
static int slot_incr(cf_backend *self, cf_op *op) { return call(self, op, do_incr); }
static int slot_scan(cf_backend *self, cf_op *op) { return call(self, op, do_scan); }

int tb_answer(tb *self, int max)
{
    int answered = 0;
    while (self->queued && answered < max) {
        waiting first = self->queue[0];
        self->queued--;
        memmove(self->queue, self->queue + 1, (size_t)self->queued * sizeof first);
        cf_op *op = cf_loop_op(self->loop, first.ticket);
        if (op) cf_op_finish(op, run(self, op, first.slot));
        answered++;
    }
    return answered;
}

int      tb_pending(const tb *self) { return self->queued; }
uint64_t tb_ticket(const tb *self, int nth) { return nth < self->queued ? self->queue[nth].ticket : 0; }

static void ready(void *user, unsigned events)
{
    (void)events;
    tb  *self = user;
    char bytes[64];
    self->platform->read(self->platform->self, self->fd, bytes, sizeof bytes);
    self->told = false;
    tb_answer(self, self->queued);
}

static void slot_flush(cf_backend *backend)
{
    tb *self = of(backend);
    self->log->flushes++;
    if (!self->queued || self->told) return;
    if (self->manner == TB_PIPE) self->told = write(self->write_fd, "x", 1) == 1;
    if (self->manner == TB_TIMER) self->told = self->platform->timer_set(self->platform->self, self->fd, 0) == 0;
}

static int slot_cancel(cf_backend *backend, cf_op *op, int why)
{
    (void)why;
    tb *self = of(backend);
    self->log->cancels++;
    uint64_t ticket = cf_op_ticket(op);
    for (int i = 0; i < self->queued; i++) {
        if (self->queue[i].ticket != ticket) continue;
        self->queued--;
        memmove(self->queue + i, self->queue + i + 1, (size_t)(self->queued - i) * sizeof *self->queue);
        return CF_UNKNOWN;
    }
    return CF_UNKNOWN;
}

static void release_data(tb *self)
{
    data *d = self->data;
    pthread_mutex_lock(&d->lock);
    bool gone = --d->users == 0;
    pthread_mutex_unlock(&d->lock);
    if (!gone) return;
    while (d->oldest) {
        entry *e = d->oldest;
        d->oldest = e->newer;
        self->platform->release(self->platform->self, e);
    }
    pthread_mutex_destroy(&d->lock);
    self->platform->release(self->platform->self, d);
}

static int slot_close(cf_backend *backend, cf_error *error)
{
    tb     *self = of(backend);
    tb_log *log = self->log;
    log->closes++;
    cf_watch_free(self->watch);
    if (self->fd >= 0) self->platform->close(self->platform->self, self->fd);
    if (self->write_fd >= 0) close(self->write_fd);
    release_data(self);
    self->platform->release(self->platform->self, self->queue);
    self->platform->release(self->platform->self, self);
    if (last == self) last = NULL;
    if (log->close_status == CF_OK) return CF_OK;
    return cf_error_set(error, log->close_status, CF_UNKNOWN, "The table did not want to close.");
}

static void slot_forked(cf_backend *backend) { of(backend)->log->forks++; }

static void slot_stats(cf_backend *backend, cf_stat_fn each, void *user)
{
    each(user, "slots", of(backend)->log->gets + of(backend)->log->sets);
}

static const void *slot_identity(cf_backend *backend) { return of(backend)->data; }

#define COMMON                                                                                                               \
    .size = sizeof(cf_backend_table), .close = slot_close, .flush = slot_flush, .cancel = slot_cancel, .forked = slot_forked, \
    .stats = slot_stats, .identity = slot_identity, .get = slot_get, .set = slot_set, .del = slot_del

static const cf_backend_table full = {COMMON,
                                      .name = "table",
                                      .flags = CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL,
                                      .pop = slot_pop,
                                      .touch = slot_touch,
                                      .incr = slot_incr,
                                      .scan = slot_scan};
static const cf_backend_table bare = {COMMON, .name = "bare"};
static const cf_backend_table derived = {COMMON, .name = "derived", .flags = CF_BACKEND_DERIVE | CF_BACKEND_KEEP_TTL};
static const cf_backend_table derived_scan = {
    COMMON, .name = "derived", .flags = CF_BACKEND_DERIVE | CF_BACKEND_KEEP_TTL, .scan = slot_scan};

const cf_backend_table *tb_functions(tb_slots slots)
{
    static const cf_backend_table *const tables[] = {&full, &bare, &derived, &derived_scan};
    return tables[slots];
}

static tb *make(cf_loop *loop, tb_manner manner, tb_log *log, data *shared)
{
    const cf_platform *platform = cf_loop_platform(loop);
    tb *self = platform->alloc(platform->self, sizeof *self);
    if (!self) return NULL;
    *self = (tb){.loop = loop, .platform = platform, .manner = manner, .log = log, .data = shared, .fd = -1, .write_fd = -1};
    if (shared) {
        pthread_mutex_lock(&shared->lock);
        shared->users++;
        pthread_mutex_unlock(&shared->lock);
    } else {
        self->data = platform->alloc(platform->self, sizeof *self->data);
        if (!self->data) {
            platform->release(platform->self, self);
            return NULL;
        }
        memset(self->data, 0, sizeof *self->data);
        pthread_mutex_init(&self->data->lock, NULL);
        self->data->users = 1;
    }
    if (manner == TB_PIPE) {
        int pipe_fds[2];
        if (pipe(pipe_fds)) abort();
        self->fd = pipe_fds[0];
        self->write_fd = pipe_fds[1];
        fcntl(self->fd, F_SETFL, O_NONBLOCK);
    }
    if (manner == TB_TIMER) self->fd = platform->timer(platform->self);
    int status = manner == TB_TIMER && self->fd < 0 ? CF_EUNAVAILABLE : CF_OK;
    if (status == CF_OK && self->fd >= 0) status = cf_watch_new(loop, self->fd, CF_READABLE, ready, self, &self->watch);
    if (status != CF_OK) {
        tb_log scratch = {0};
        cf_error ignored;
        self->log = &scratch;
        slot_close(tb_backend(self), &ignored);
        return NULL;
    }
    last = self;
    return self;
}

tb *tb_new(cf_loop *loop, tb_manner manner, tb_log *log) { return make(loop, manner, log, NULL); }
tb *tb_share(tb *first, cf_loop *loop, tb_manner manner, tb_log *log) { return make(loop, manner, log, first->data); }

int tb_open(cf_loop *loop, tb_manner manner, tb_slots slots, tb_log *log, const cf_open_options *options, cf_store **out,
            cf_error *error)
{
    *out = NULL;
    tb *self = tb_new(loop, manner, log);
    if (!self) return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "There is no memory for the table.");
    return cf_open_backend(loop, tb_functions(slots), tb_backend(self), options, out, error);
}
