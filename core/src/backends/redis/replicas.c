/* replicas.c: the option durable. What must not be undone is done when so many replicas have it: a WAIT follows its answer.
 *
 * The server lets nothing else of this connection through while it waits. So all that was answered before a WAIT is on its way waits for that one, and replicas
 * that were behind the last time are waited for shortly, but for one WAIT in ten seconds: they may be far away, and need longer than that always. */
#include "redis.h"

#define LITERAL(text) cf_bytes(text, sizeof(text) - 1)

/* What promises one winner, or that something has ended, and has changed something; and who was not the first, whose word rests on what another has just made. */
static bool must_last(const cf_op *op, int status)
{
    const cf_request *in = cf_op_in(op);
    if (status != CF_OK) return status == CF_EEXISTS && in->kind == CF_OP_INSERT;
    switch (in->kind) {
    case CF_OP_INSERT: return true;
    case CF_OP_POP:
    case CF_OP_INCR:
    case CF_OP_DELETE:
    case CF_OP_UPDATE:
    case CF_OP_REMOVE: return cf_op_hit(op);
    case CF_OP_SET: return cf_op_hit(op) && in->flags & (CF_IF_ABSENT | CF_IF_EQUAL);
    default: return false;
    }
}

/* Whether a WAIT of this connection says something about it. From Redis 7.2 on it counts from the last write of its own connection: what a receipt told had
 * been written by another one, and who was not the first has written nothing. */
static bool wrote_here(const cf_backend *self, const cf_op *op, const redis_call *call)
{
    return !(call->flags & CALL_MAYBE) && !(cf_op_in(op)->kind == CF_OP_INSERT && self->reply.records.kind >= 0);
}

/* It has its answer already: that of an insert may be CF_EEXISTS. */
static int outcome_so_far(const cf_op *op) { return cf_op_error(op)->status == CF_OK ? CF_APPLIED : CF_NOT_APPLIED; }

static void cannot_ask(cf_backend *self, cf_op *op)
{
    redis_finish(self, op, cf_op_fail(op, CF_ENOMEM, outcome_so_far(op), "no memory to ask for the replicas"));
}

static int ask(cf_backend *self, int64_t ms)
{
    redis_replicas *waits = &self->replicas;
    char     replicas[CF_INT_TEXT], limit[CF_INT_TEXT];
    cf_slice args[] = {LITERAL("WAIT"), cf_bytes(replicas, cf_format_int((int64_t)self->options.durable, replicas)), cf_bytes(limit, cf_format_int(ms, limit))};
    uint64_t at = self->queue.first + self->queue.count;
    if (redis_queue_push(self, NULL, (redis_call){.expect = EXPECT_REPLICAS, .flags = CALL_OWN}, args, 3) != CF_OK) return CF_ENOMEM;
    waits->last_at = at;
    waits->last_ms = ms;
    waits->asked++;
    return CF_OK;
}

/* The last WAIT is not on its way yet. */
static bool may_join(const cf_backend *self)
{
    const redis_replicas *waits = &self->replicas;
    return waits->asked != waits->answered && waits->last_at >= self->queue.first + self->queue.sent;
}

static bool has_room(cf_backend *self)
{
    redis_replicas *waits = &self->replicas;
    if (waits->count < waits->cap) return true;
    if (waits->head) {
        waits->count -= waits->head;
        memmove(waits->list, waits->list + waits->head, waits->count * sizeof *waits->list);
        waits->head = 0;
        return true;
    }
    size_t        cap = waits->cap ? waits->cap * 2 : 16;
    redis_waiter *list = cf_alloc(self->platform, cap * sizeof *list);
    if (!list) return false;
    if (waits->count) memcpy(list, waits->list, waits->count * sizeof *list);
    cf_release(self->platform, waits->list);
    waits->list = list;
    waits->cap = cap;
    return true;
}

void redis_await(cf_backend *self, cf_op *op)
{
    enum { LONGEST_MS = 1000, BEHIND_MS = 50, PATIENT_AGAIN_MS = 10 * 1000 };
    redis_replicas *waits = &self->replicas;
    int64_t now = cf_monotonic(self->platform), half = cf_op_in(op)->timeout_ms / 2;
    bool    join = may_join(self), hasty = waits->behind && now - waits->patient_ms < PATIENT_AGAIN_MS;
    int64_t longest = hasty ? BEHIND_MS : LONGEST_MS, ms = half < 1 ? 1 : half < longest ? half : longest;
    join = join && ms <= waits->last_ms;
    if (!hasty && !join) waits->patient_ms = now;
    if (has_room(self) && (join || ask(self, ms) == CF_OK))
        waits->list[waits->count++] = (redis_waiter){cf_op_ticket(op), waits->asked};
    else
        cannot_ask(self, op);
}

/* A write of this connection: a key that no caller can name, for a millisecond. */
static void leave_mark(cf_backend *self, cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    char     key[CF_PREFIX_MAX + CF_KEY_MAX + 1 + REDIS_TAIL], room[CF_PREFIX_MAX + 16];
    cf_slice of = self->store && in->kind >= CF_OP_INSERT && in->kind <= CF_OP_REMOVE ? redis_records_base(op, room) : in->key;
    size_t   len = of.len + 1;
    if (of.len) memcpy(key, of.ptr, of.len);
    key[of.len] = 0;
    if (self->store) len += redis_slot_tail(of, cf_bytes(key, len), key + len);
    cf_slice args[] = {LITERAL("SET"), cf_bytes(key, len), LITERAL(""), LITERAL("PX"), LITERAL("1")};
    /* On another connection it would mean nothing: CALL_MAYBE, and not repeatable, it ends with its own. */
    if (redis_queue_push(self, op, (redis_call){.expect = EXPECT_MARK, .flags = CALL_MAYBE}, args, 5) != CF_OK) cannot_ask(self, op);
}

void redis_settle(cf_backend *self, cf_op *op, const redis_call *call, int status)
{
    if (!self->options.durable || !must_last(op, status)) redis_finish(self, op, status);
    else if (wrote_here(self, op, call)) redis_await(self, op);
    else leave_mark(self, op);
}

/* Those of the WAITs up to that one: they are in the order of these. Whoever is ended may ask for something else at once, and that may wait too. */
static void end(cf_backend *self, uint64_t last, void (*each)(cf_backend *self, cf_op *op, const cf_error *error), const cf_error *error)
{
    redis_replicas *waits = &self->replicas;
    while (waits->head < waits->count && waits->list[waits->head].wait <= last) {
        cf_op *op = cf_loop_op(self->loop, waits->list[waits->head++].ticket);
        if (op) each(self, op, error);
    }
    if (waits->head == waits->count) waits->head = waits->count = 0;
}

static void counted(cf_backend *self, cf_op *op, const cf_error *error)
{
    (void)error;
    int status = cf_op_error(op)->status;
    if (self->replicas.behind)
        status = cf_op_fail(op, CF_EUNAVAILABLE, outcome_so_far(op), "applied on Redis at %s, but not replicated: %lld of the replicas have it, durable asks for %zu. A failover could undo it",
                            self->options.endpoint, (long long)self->replicas.have, self->options.durable);
    redis_finish(self, op, status);
}

static void once_more(cf_backend *self, cf_op *op, const cf_error *error)
{
    (void)error;
    redis_await(self, op);
}

static void unknown(cf_backend *self, cf_op *op, const cf_error *error)
{
    (void)self;
    cf_op_finish(op, cf_op_fail(op, error->status, CF_UNKNOWN, "%s", error->text));
}

void redis_waits_answer(cf_backend *self)
{
    redis_replicas *waits = &self->replicas;
    redis_reply *reply = &self->reply;
    uint64_t     which = ++waits->answered;
    cf_error     error;
    if (reply->type == REPLY_INTEGER) {
        waits->have = reply->integer;
        waits->behind = waits->have < (int64_t)self->options.durable;
        end(self, which, counted, NULL);
        return;
    }
    if (reply->type != REPLY_ERROR) {
        redis_not_ours(self);
        end(self, which, unknown, &self->why);
        return;
    }
    redis_verdict verdict = redis_judge(self, cf_bytes(reply->text.ptr, reply->text.len), &error);
    if (verdict == ERROR_LATER) {
        self->why = error;
        redis_hold(self);
        end(self, which, once_more, NULL);
        return;
    }
    if (verdict == ERROR_LEAVE || verdict == ERROR_POISON) {
        self->why = error;
        self->why.status = CF_EUNAVAILABLE;
        self->leaving |= verdict == ERROR_LEAVE;
        self->poisoned |= verdict == ERROR_POISON;
    }
    end(self, which, unknown, &error);
}

void redis_waits_lost(cf_backend *self, const cf_error *why)
{
    self->replicas.answered = self->replicas.asked;
    end(self, self->replicas.asked, unknown, why);
}

void redis_waits_free(cf_backend *self)
{
    cf_release(self->platform, self->replicas.list);
    self->replicas = (redis_replicas){0};
}
