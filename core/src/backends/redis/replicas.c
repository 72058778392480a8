/* replicas.c: the option durable. What must not be undone is done when so many replicas have it: a WAIT follows its answer. Where the URL says nothing about it, but
 * a Sentinel names the primary, that goes for pop and for what ends something, as long as the primary says that it has a replica.
 *
 * The server lets nothing else of this connection through while it waits. So all that was answered before a WAIT is on its way waits for that one, and replicas
 * that were behind the last time are waited for shortly, but for one WAIT in ten seconds: they may be far away, and need longer than that always. */
#include <stdio.h>

#include "redis.h"

#define LITERAL(text) cf_bytes(text, sizeof(text) - 1)

/* What ends something: whoever asks for it relies on its being over, also where it was over already; a second try of what was not replicated finds that. */
static bool ends(const cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    cf_plan plan;
    switch (in->kind) {
    case CF_OP_DELETE:
    case CF_OP_REMOVE: return true;
    case CF_OP_UPDATE: return cf_plan_read(in->value, &plan) && plan.kind == CF_SESSION && plan.record.fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN;
    default: return false;
    }
}

/* Who is told which user has this e-mail or this social account makes none, and goes on as that one, whom another process may just have made. A session says
 * nothing that another could say otherwise: without it there is another login. */
static bool says_who(const cf_op *op)
{
    cf_plan plan;
    return cf_op_hit(op) && cf_plan_read(cf_op_in(op)->value, &plan) && plan.by == CF_BY_UNIQUE && plan.kind != CF_SESSION;
}

/* What promises one winner or the end of something, and who was not the first and is told who was. What is merely not there, or refused by a condition, promises
 * nothing: a code that another pop has taken may be back after a failover, but it has one winner then too, since that other one was told that it had not won yet. */
static bool must_last(const cf_op *op, int status)
{
    const cf_request *in = cf_op_in(op);
    if (status != CF_OK) return status == CF_EEXISTS;
    switch (in->kind) {
    case CF_OP_INSERT: return true;
    case CF_OP_POP:
    case CF_OP_INCR: return cf_op_hit(op);
    case CF_OP_UPDATE: return cf_op_hit(op) || ends(op);
    case CF_OP_SET: return cf_op_hit(op) && in->flags & (CF_IF_ABSENT | CF_IF_EQUAL);
    case CF_OP_FIND: return says_who(op);
    default: return ends(op);
    }
}

/* What waits where the URL says nothing about it. */
static bool should_last(const cf_op *op, int status)
{
    return status == CF_OK && (ends(op) || (cf_op_in(op)->kind == CF_OP_POP && cf_op_hit(op)));
}

/* Whether a WAIT of this connection says something about it. From Redis 7.2 on it counts from the last write of its own connection: what a receipt told had
 * been written by another one, and so had what was there, or gone, before. */
static bool wrote_here(const cf_backend *self, const cf_op *op, const redis_call *call, int status)
{
    if (status != CF_OK || call->flags & CALL_MAYBE) return false;
    switch (cf_op_in(op)->kind) {
    case CF_OP_FIND: return false;
    case CF_OP_INSERT: return self->reply.records.kind < 0;
    case CF_OP_UPDATE: return cf_op_hit(op) && (self->reply.records.kind >= 0 || cf_op_number(op) > 0); /* one, or those of a group */
    default: return cf_op_hit(op);
    }
}

/* It has its answer already: that of an insert may be CF_EEXISTS. */
static int outcome_so_far(const cf_op *op)
{
    return cf_op_error(op)->status == CF_OK && cf_op_in(op)->kind != CF_OP_FIND && cf_op_hit(op) ? CF_APPLIED : CF_NOT_APPLIED;
}

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
static void leave_mark(cf_backend *self, cf_op *op, bool asked)
{
    const cf_request *in = cf_op_in(op);
    char     key[REDIS_BESIDE], room[CF_PREFIX_MAX + 16];
    cf_slice of = self->store && cf_about_records(in) ? redis_records_base(op, room) : in->key;
    cf_slice args[] = {LITERAL("SET"), redis_beside(self, of, LITERAL(""), key), LITERAL(""), LITERAL("PX"), LITERAL("1")};
    if (asked && redis_queue_push_asking(self) != CF_OK) {
        cannot_ask(self, op);
        return;
    }
    /* On another connection it would mean nothing: CALL_MAYBE, and not repeatable, it ends with its own. */
    if (redis_queue_push(self, op, (redis_call){.expect = EXPECT_MARK, .flags = CALL_MAYBE}, args, 5) != CF_OK) cannot_ask(self, op);
}

/* ---- whether there is anybody to wait for ---- */

static void count_again(cf_backend *self)
{
    redis_call call = {.expect = EXPECT_INFO_REPLICATION, .flags = CALL_OWN};
    (void)redis_queue_push(self, NULL, call, (cf_slice[]){LITERAL("INFO"), LITERAL("replication")}, 2); /* no memory: another time */
    self->replicas.counted_ms = cf_monotonic(self->platform);
}

/* One that is still being given all the data acknowledges nothing. */
void redis_waits_count(cf_backend *self, cf_slice info)
{
    static const char online[] = "state=online";
    int count = 0, number = 0;
    for (;;) {
        char name[24];
        snprintf(name, sizeof name, "slave%d", number++);
        cf_slice says = redis_info_line(info, name);
        if (says.len == 0) break;
        bool is = false;
        for (size_t at = 0; at + sizeof online - 1 <= says.len && !is; at++) is = memcmp(says.ptr + at, online, sizeof online - 1) == 0;
        count += is;
    }
    self->replicas.online = count;
    self->replicas.counted_ms = cf_monotonic(self->platform);
}

void redis_waits_recount(cf_backend *self)
{
    const redis_reply *reply = &self->reply;
    if (reply->type == REPLY_STRING && !reply->failed) redis_waits_count(self, cf_bytes(reply->text.ptr, reply->text.len));
}

/* They may come back at any time. */
static bool has_replicas(cf_backend *self)
{
    enum { AGAIN_MS = 1000 };
    if (self->replicas.online > 0) return true;
    if (cf_monotonic(self->platform) - self->replicas.counted_ms >= AGAIN_MS) count_again(self);
    return false;
}

void redis_settle(cf_backend *self, cf_op *op, const redis_call *call, int status)
{
    bool waits = self->options.durable && (self->options.durable_default ? should_last(op, status) && has_replicas(self) : must_last(op, status));
    if (!waits) redis_finish(self, op, status);
    else if (wrote_here(self, op, call, status)) redis_await(self, op);
    else leave_mark(self, op, call->flags & CALL_ASKED);
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
    if (self->replicas.behind) {
        int outcome = outcome_so_far(op);
        status = cf_op_fail(op, CF_EUNAVAILABLE, outcome, "%s on Redis at %s, but not replicated: %lld of the replicas have it, durable asks for %zu. A failover could undo it",
                            outcome == CF_APPLIED ? "applied" : "it is so", self->options.endpoint, (long long)self->replicas.have, self->options.durable);
    }
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
        if (waits->behind && self->options.durable_default) count_again(self);
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
