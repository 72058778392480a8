/* queue.c: the commands that wait: for the socket, or for their answers. */
#include "redis.h"

/* ------------------------------------------------------------------------------------------------------------- format -- */

static char *put_number(char *at, size_t number)
{
    char digits[24];
    int  count = 0;
    do digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count) *at++ = digits[--count];
    return at;
}

static char *put_end(char *at)
{
    at[0] = '\r';
    at[1] = '\n';
    return at + 2;
}

/* hiredis formats commands too, but into memory of its own for each; this is all there is to it. */
int redis_format(const cf_platform *platform, cf_buffer *out, const cf_slice *args, size_t count)
{
    size_t room = 24;
    for (size_t i = 0; i < count; i++) room += args[i].len + 28;
    if (out->len + room > out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 4096;
        if (cf_buffer_reserve(platform, out, cap > out->len + room ? cap : out->len + room) != CF_OK) return CF_ENOMEM;
    }
    char *at = out->ptr + out->len;
    *at++ = '*';
    at = put_end(put_number(at, count));
    for (size_t i = 0; i < count; i++) {
        *at++ = '$';
        at = put_end(put_number(at, args[i].len));
        if (args[i].len) memcpy(at, args[i].ptr, args[i].len);
        at = put_end(at + args[i].len);
    }
    out->len = (size_t)(at - out->ptr);
    return CF_OK;
}

int redis_format_auth(const cf_platform *platform, cf_buffer *out, const char *user, const char *password)
{
    cf_slice args[3] = {cf_text("AUTH"), cf_text(user), cf_text(password)};
    if (!user) args[1] = args[2];
    return redis_format(platform, out, args, user ? 3 : 2);
}

/* --------------------------------------------------------------------------------------------------------------- ring -- */

redis_call *redis_queue_at(redis_queue *queue, size_t index) { return &queue->calls[(queue->head + index) & (queue->cap - 1)]; }

static int grow(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    size_t cap = queue->cap ? queue->cap * 2 : 64;
    redis_call *calls = cf_alloc(self->platform, cap * sizeof *calls);
    if (!calls) return CF_ENOMEM;
    for (size_t i = 0; i < queue->count; i++) calls[i] = *redis_queue_at(queue, i);
    cf_release(self->platform, queue->calls);
    queue->calls = calls;
    queue->cap = cap;
    queue->head = 0;
    return CF_OK;
}

/* The bytes in front of the first call are of no more use. */
static void tidy(redis_queue *queue)
{
    if (queue->count == 0) {
        queue->out.len = queue->at = queue->written = queue->edge = 0;
    } else if (queue->at > 64 * 1024 && queue->at > queue->out.len / 2) {
        memmove(queue->out.ptr, queue->out.ptr + queue->at, queue->out.len - queue->at);
        queue->out.len -= queue->at;
        queue->written -= queue->at;
        queue->edge -= queue->at;
        queue->at = 0;
    }
}

static void add(redis_queue *queue, cf_op *op, redis_call call)
{
    if (op) cf_op_set_note(op, queue->place | (queue->first + queue->count));
    if (call.flags & CALL_OWN) queue->own++;
    *redis_queue_at(queue, queue->count++) = call;
}

int redis_queue_push(cf_backend *self, cf_op *op, redis_call call, const cf_slice *args, size_t count)
{
    redis_queue *queue = &self->queue;
    if (queue->count == queue->cap && grow(self) != CF_OK) return CF_ENOMEM;
    size_t before = queue->out.len;
    if (redis_format(self->platform, &queue->out, args, count) != CF_OK) return CF_ENOMEM;
    call.bytes = (uint32_t)(queue->out.len - before);
    call.slot = self->slot;
    if (op) call.ticket = cf_op_ticket(op);
    add(queue, op, call);
    self->figures.commands++;
    if (self->credit < 10000) self->credit++;
    return CF_OK;
}

int redis_queue_push_asking(cf_backend *self)
{
    return redis_queue_push(self, NULL, (redis_call){.expect = EXPECT_ASKING, .flags = CALL_OWN}, (cf_slice[]){cf_text("ASKING")}, 1);
}

int redis_queue_push_parts(cf_backend *self, cf_op *op, redis_call call, const cf_slice *parts, size_t count)
{
    redis_queue *queue = &self->queue;
    size_t before = queue->out.len;
    if (queue->count == queue->cap && grow(self) != CF_OK) return CF_ENOMEM;
    for (size_t i = 0; i < count; i++)
        if (cf_buffer_append(self->platform, &queue->out, parts[i]) != CF_OK) {
            queue->out.len = before;
            return CF_ENOMEM;
        }
    call.bytes = (uint32_t)(queue->out.len - before);
    add(queue, op, call);
    self->figures.commands++;
    return CF_PENDING;
}

int redis_queue_again(cf_backend *self, cf_op *op, redis_call call, cf_slice head, size_t skip)
{
    redis_queue *queue = &self->queue;
    size_t rest = queue->calls[queue->head].bytes - skip;
    if (queue->count == queue->cap && grow(self) != CF_OK) return CF_ENOMEM;
    if (cf_buffer_reserve(self->platform, &queue->out, queue->out.len + head.len + rest) != CF_OK) return CF_ENOMEM;
    char *to = queue->out.ptr + queue->out.len;
    if (head.len) memcpy(to, head.ptr, head.len);
    memcpy(to + head.len, queue->out.ptr + queue->at + skip, rest);
    queue->out.len += head.len + rest;
    call.bytes = (uint32_t)(head.len + rest);
    add(queue, op, call);
    return CF_OK;
}

int redis_queue_hand_over(cf_backend *self, cf_op *op, redis_call call, cf_backend *to)
{
    if (to->queue.count == to->queue.cap && grow(to) != CF_OK) return CF_ENOMEM;
    if (cf_buffer_append(to->platform, &to->queue.out, cf_bytes(self->queue.out.ptr + self->queue.at, call.bytes)) != CF_OK) return CF_ENOMEM;
    add(&to->queue, op, call);
    redis_queue_shift(&self->queue);
    return CF_OK;
}

void redis_queue_shift(redis_queue *queue)
{
    queue->at += queue->calls[queue->head].bytes;
    if (queue->calls[queue->head].flags & CALL_OWN) queue->own--;
    queue->head = (queue->head + 1) & (queue->cap - 1);
    queue->first++;
    queue->count--;
    queue->sent--;
    tidy(queue);
}

size_t redis_queue_unsent(const redis_queue *queue) { return queue->out.len - queue->written; }

void redis_queue_sent(cf_backend *self, size_t bytes, int64_t now_us)
{
    redis_queue *queue = &self->queue;
    queue->written += bytes;
    while (queue->sent < queue->count) {
        redis_call *call = redis_queue_at(queue, queue->sent);
        if (queue->edge + call->bytes > queue->written) break;
        queue->edge += call->bytes;
        call->sent_us = (uint32_t)now_us;
        queue->sent++;
    }
}

bool redis_queue_owed(const redis_queue *queue) { return queue->sent || queue->edge < queue->written; }

/* A part of the call at the edge is on its way: it must be finished, or the connection given up. */
static bool partly_sent(const redis_queue *queue) { return queue->edge < queue->written; }

/* ------------------------------------------------------------------------------------------------------------- leaving -- */

/* A CLEAR has a number as soon as it has removed something. */
int redis_outcome(const cf_op *op, const redis_call *call, int otherwise)
{
    return call->flags & CALL_MAYBE || cf_op_number(op) > 0 ? CF_UNKNOWN : otherwise;
}

static void end(cf_backend *self, const redis_call *call, int status, int outcome, const char *sentence)
{
    cf_op *op = cf_loop_op(self->loop, call->ticket);
    if (op) cf_op_finish(op, cf_op_fail(op, status, redis_outcome(op, call, outcome), "%s", sentence));
}

/* Of what was not sent: whether its slot is this server's. Else it goes to whom it belongs to. */
static bool belongs_here(cf_backend *self, redis_call *call, const char *bytes, const cf_error *why)
{
    cf_backend *to = redis_cluster_route(redis_whole(self), call->slot);
    bool page = call->expect == EXPECT_PAGE || call->expect == EXPECT_CLEAR_PAGE;
    (void)why;
    if (page && self->cluster) to = redis_cluster_page(self, cf_loop_op(self->loop, call->ticket), call->slot);
    if (page && (self->cluster ? !to : !self->owned)) {
        end(self, call, CF_EUNAVAILABLE, CF_NOT_APPLIED, "slots of the cluster have moved meanwhile: begin again with the first page");
        return false;
    }
    if (to == self || (page && !self->cluster) || call->expect == EXPECT_MARK || call->expect == EXPECT_CLEAR_ONE || call->expect == EXPECT_CLEAR_DELETED) return true;
    if (to->queue.count == to->queue.cap && grow(to) != CF_OK) return true;
    if (cf_buffer_append(to->platform, &to->queue.out, cf_bytes(bytes, call->bytes)) != CF_OK) return true;
    add(&to->queue, cf_loop_op(self->loop, call->ticket), *call);
    return false;
}

/* Keeps of the calls from `from` on those that `keep` wants, with their bytes, in their order. The connection's own it keeps where it lives on. */
static void sift(cf_backend *self, size_t from, size_t start, bool (*keep)(cf_backend *self, redis_call *call, const char *bytes, const cf_error *why),
                 const cf_error *why)
{
    redis_queue *queue = &self->queue;
    size_t to = from, count = queue->count, read = start, write = start;
    for (size_t i = from; i < count; i++) {
        redis_call call = *redis_queue_at(queue, i);
        bool       own = call.flags & CALL_OWN;
        cf_op     *op = own || (call.flags & CALL_DEAD) ? NULL : cf_loop_op(self->loop, call.ticket);
        if (own ? !keep || keep == belongs_here : op && (!keep || keep(self, &call, queue->out.ptr + read, why))) {
            if (write != read) memmove(queue->out.ptr + write, queue->out.ptr + read, call.bytes);
            write += call.bytes;
            if (op) cf_op_set_note(op, queue->place | (queue->first + to));
            if (call.expect == EXPECT_REPLICAS) self->replicas.last_at = queue->first + to;
            *redis_queue_at(queue, to++) = call;
        } else if (own) {
            queue->own--;
        } else if (to > from && redis_queue_at(queue, to - 1)->expect == EXPECT_ASKING) {
            write -= redis_queue_at(queue, --to)->bytes; /* it would go for the next one */
            queue->own--;
        }
        read += call.bytes;
    }
    queue->count = to;
    queue->out.len = write;
    queue->dead = 0;
    tidy(queue);
}

void redis_queue_bury(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    if (!queue->dead) return;
    bool partly = partly_sent(queue);
    sift(self, queue->sent + partly, queue->edge + (partly ? redis_queue_at(queue, queue->sent)->bytes : 0), NULL, NULL);
}

void redis_queue_reroute(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    bool partly = partly_sent(queue);
    sift(self, queue->sent + partly, queue->edge + (partly ? redis_queue_at(queue, queue->sent)->bytes : 0), belongs_here, NULL);
}

/* Of a call that was sent wholly on the connection that was lost. */
static bool keep_after_loss(cf_backend *self, redis_call *call, const char *bytes, const cf_error *why)
{
    (void)bytes;
    bool sent = call->flags & CALL_MAYBE;
    if (!sent) return true;
    bool again = call->flags & CALL_LOST; /* one that only waits for a server costs nobody anything, however many attempts to connect fail */
    call->flags &= (uint8_t)~CALL_LOST;
    if ((call->flags & CALL_REPEATABLE) && !again) return true;
    if ((call->flags & CALL_REPEATABLE) && self->credit >= 10) {
        self->credit -= 10;
        self->figures.retries++;
        return true;
    }
    end(self, call, CF_EUNAVAILABLE, CF_UNKNOWN, why->text);
    return false;
}

void redis_queue_lost(cf_backend *self, const cf_error *why)
{
    redis_queue *queue = &self->queue;
    for (size_t i = 0; i < queue->sent; i++) redis_queue_at(queue, i)->flags |= CALL_MAYBE | CALL_LOST;
    queue->sent = 0;
    sift(self, 0, queue->at, keep_after_loss, why);
    queue->written = queue->edge = queue->at;
    redis_waits_lost(self, why);
}

static bool keep_none(cf_backend *self, redis_call *call, const char *bytes, const cf_error *why)
{
    (void)bytes;
    end(self, call, why->status, why->outcome, why->text);
    return false;
}

void redis_queue_refuse(cf_backend *self, const cf_error *why)
{
    self->queue.sent = 0;
    sift(self, 0, self->queue.at, keep_none, why);
    self->queue.written = self->queue.edge = self->queue.at;
    redis_waits_lost(self, why);
}

void redis_queue_clear(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    queue->first += queue->count;
    queue->count = queue->sent = queue->dead = queue->own = 0;
    tidy(queue);
    redis_waits_free(self);
}

void redis_queue_slim(cf_backend *self)
{
    enum { KEPT = 1024 * 1024 };
    if (self->queue.count == 0 && self->queue.out.cap > KEPT) cf_buffer_free(self->platform, &self->queue.out);
}

void redis_queue_free(cf_backend *self)
{
    cf_buffer_free(self->platform, &self->queue.out);
    cf_release(self->platform, self->queue.calls);
    redis_waits_free(self);
}

bool redis_queue_full(cf_backend *self, size_t more)
{
    redis_queue *queue = &self->queue;
    for (int look = 0; look < 2; look++) {
        if (queue->count - queue->own < self->options.max_pending && queue->out.len - queue->at + more <= self->options.max_pending_bytes) return false;
        if (!queue->dead) return true;
        redis_queue_bury(self);
    }
    return true;
}

int redis_cancel(cf_backend *self, cf_op *op, int why)
{
    uint64_t note = cf_op_note(op);
    if (self->cluster && note >> REDIS_PLACE_SHIFT) {
        size_t place = (size_t)(note >> REDIS_PLACE_SHIFT) - 1;
        if (place >= self->cluster->count || !self->cluster->nodes[place]) return CF_UNKNOWN;
        self = self->cluster->nodes[place];
    }
    redis_queue *queue = &self->queue;
    uint64_t index = note - queue->place - queue->first;
    if (index >= queue->count) return CF_UNKNOWN;
    redis_call *call = redis_queue_at(queue, (size_t)index);
    if (call->ticket != cf_op_ticket(op)) return CF_UNKNOWN;
    bool never_left = index > queue->sent || (index == queue->sent && !partly_sent(queue));
    if (!never_left) return CF_UNKNOWN; /* its answer is still owed: it finds nobody */
    call->flags |= CALL_DEAD;
    queue->dead++;
    int outcome = redis_outcome(op, call, CF_NOT_APPLIED);
    if (why == CF_ETIMEOUT && self->why.status < 0) cf_op_fail(op, self->why.status, outcome, "%s", self->why.text);
    return outcome;
}
