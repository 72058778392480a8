/* commands.c: one slot per operation, each one command on the server, and what the answers mean. */
#include "redis.h"
#include "scripts.h"

#define LITERAL(text) cf_bytes(text, sizeof(text) - 1)

static cf_slice number(int64_t value, char text[CF_INT_TEXT]) { return cf_bytes(text, cf_format_int(value, text)); }

/* Redis keeps a key through the millisecond of its expiry; here it is absent then. */
static cf_slice lifetime(int64_t ttl_ms, char text[CF_INT_TEXT]) { return number(ttl_ms > 1 ? ttl_ms - 1 : ttl_ms, text); }

/* ------------------------------------------------------------------------------------------------------------ asking -- */

/* Behind its key, when the answer has come (replicas.c): what was lent for the call is its caller's again by then. That of a record operation is the store's. */
static bool may_leave_mark(const cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    return in->kind == CF_OP_DELETE || in->kind == CF_OP_POP || in->kind == CF_OP_INCR || (in->kind == CF_OP_SET && in->flags & (CF_IF_ABSENT | CF_IF_EQUAL));
}

int redis_ask(cf_backend *self, cf_op *op, redis_call call, const cf_slice *args, size_t count)
{
    /* A loop that runs only while somebody waits has not heard of the timer. */
    if (self->refusal.status < 0 && cf_monotonic(self->platform) < self->refused_until_ms)
        return cf_op_fail(op, self->refusal.status, CF_NOT_APPLIED, "%s", self->refusal.text);
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += args[i].len + 16;
    if (redis_queue_full(self, bytes)) {
        self->figures.busy++;
        return cf_op_fail(op, CF_EBUSY, CF_NOT_APPLIED, "too many operations wait for Redis at %s (max_pending, max_pending_bytes)",
                          self->options.endpoint);
    }
    if (self->options.durable && may_leave_mark(op) && cf_op_keep(op) != CF_OK) return cf_op_error(op)->status;
    if (redis_queue_push(self, op, call, args, count) != CF_OK) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a command");
    return CF_PENDING;
}

#define ASK(self, op, expects, with, ...)                                                                                     \
    redis_ask(self, op, (redis_call){.expect = expects, .flags = with}, (const cf_slice[]){__VA_ARGS__},                           \
        sizeof((const cf_slice[]){__VA_ARGS__}) / sizeof(cf_slice))

/* ---- scripts and receipts ---- */

static const struct {
    cf_slice text, sha1;
} scripts[SCRIPTS] = {
    [SCRIPT_POP] = {{SCRIPT_POP_TEXT, sizeof SCRIPT_POP_TEXT - 1}, {SCRIPT_POP_SHA1, 40}},
    [SCRIPT_INCR] = {{SCRIPT_INCR_TEXT, sizeof SCRIPT_INCR_TEXT - 1}, {SCRIPT_INCR_SHA1, 40}},
    [SCRIPT_SET] = {{SCRIPT_SET_TEXT, sizeof SCRIPT_SET_TEXT - 1}, {SCRIPT_SET_SHA1, 40}},
    [SCRIPT_INSERT] = {{SCRIPT_INSERT_TEXT, sizeof SCRIPT_INSERT_TEXT - 1}, {SCRIPT_INSERT_SHA1, 40}},
    [SCRIPT_UPDATE] = {{SCRIPT_UPDATE_TEXT, sizeof SCRIPT_UPDATE_TEXT - 1}, {SCRIPT_UPDATE_SHA1, 40}},
    [SCRIPT_UPDATE_GROUP] = {{SCRIPT_UPDATE_GROUP_TEXT, sizeof SCRIPT_UPDATE_GROUP_TEXT - 1}, {SCRIPT_UPDATE_GROUP_SHA1, 40}},
    [SCRIPT_FIND] = {{SCRIPT_FIND_TEXT, sizeof SCRIPT_FIND_TEXT - 1}, {SCRIPT_FIND_SHA1, 40}},
    [SCRIPT_LIST] = {{SCRIPT_LIST_TEXT, sizeof SCRIPT_LIST_TEXT - 1}, {SCRIPT_LIST_SHA1, 40}},
    [SCRIPT_REMOVE] = {{SCRIPT_REMOVE_TEXT, sizeof SCRIPT_REMOVE_TEXT - 1}, {SCRIPT_REMOVE_SHA1, 40}},
};
#define EVALSHA_1 "$7\r\nEVALSHA\r\n$40\r\n"

static void put_hex(char *to, uint64_t value)
{
    for (int i = 15; i >= 0; i--, value >>= 4) to[i] = "0123456789abcdef"[value & 15];
}

bool redis_new_receipt(cf_backend *self, char receipt[CF_RECEIPT_LEN])
{
    if (!self->seeded) {
        if (self->platform->random(self->platform->self, self->random, sizeof self->random) != 0) return false;
        self->seeded = true;
    }
    put_hex(receipt, self->random[0]);
    put_hex(receipt + 16, self->random[1] + self->receipts++);
    return true;
}

/* The receipt of this call: the one it was given, or a new one. */
static bool name_receipt(cf_backend *self, cf_op *op, char receipt[CF_RECEIPT_LEN])
{
    const cf_request *in = cf_op_in(op);
    if (!in->receipt.len) return redis_new_receipt(self, receipt);
    memcpy(receipt, in->receipt.ptr, CF_RECEIPT_LEN);
    return true;
}

int redis_ask_script(cf_backend *self, cf_op *op, redis_call call, cf_slice *args, size_t count)
{
    args[0] = LITERAL("EVALSHA");
    args[1] = scripts[call.script].sha1;
    call.flags |= CALL_SCRIPT;
    return redis_ask(self, op, call, args, count);
}

/* What the call asked for: a receipt answers only the same question. The key of this hash is the same everywhere: another process may ask again. */
static uint64_t fingerprint(const cf_request *in)
{
    static const cf_hash_key key = {UINT64_C(0x636f756e74657266), UINT64_C(0x6f696c2072636570)};
    uint64_t parts[4] = {(uint64_t)in->kind << 32 | (in->flags & (CF_IF_ABSENT | CF_IF_EQUAL)), (uint64_t)in->by, cf_hash(&key, in->value),
                         cf_hash(&key, in->expected)};
    return cf_hash(&key, cf_bytes(parts, sizeof parts));
}

cf_slice redis_beside(const cf_backend *self, cf_slice key, cf_slice rest, char room[REDIS_BESIDE])
{
    size_t len = key.len;
    if (key.len) memcpy(room, key.ptr, key.len);
    room[len++] = 0;
    if (rest.len) memcpy(room + len, rest.ptr, rest.len);
    len += rest.len;
    if (self->store) len += redis_slot_tail(key, cf_bytes(room, len), room + len);
    return cf_bytes(room, len);
}

/* EVALSHA with a key, arguments, and where the call has a receipt also its key, its fingerprint and its life. */
static int run(cf_backend *self, cf_op *op, redis_script script, redis_expect expect, const cf_slice *args, size_t count, bool with_receipt)
{
    const cf_request *in = cf_op_in(op);
    cf_slice all[REDIS_ARGS] = {LITERAL("EVALSHA"), scripts[script].sha1, with_receipt ? LITERAL("2") : LITERAL("1"), in->key};
    size_t   at = 4;
    char     receipt[CF_RECEIPT_LEN], hash[16], life[CF_INT_TEXT], key[REDIS_BESIDE];
    if (with_receipt) {
        if (!name_receipt(self, op, receipt)) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the system gives no random bytes");
        all[at++] = redis_beside(self, in->key, cf_bytes(receipt, sizeof receipt), key);
    }
    for (size_t i = 0; i < count; i++) all[at++] = args[i];
    if (with_receipt) {
        put_hex(hash, fingerprint(in));
        int64_t twice = in->timeout_ms * 2;
        all[at++] = cf_bytes(hash, sizeof hash);
        all[at++] = number(twice > 10000 ? twice : 10000, life);
    }
    redis_call call = {.expect = (uint8_t)expect, .flags = with_receipt ? CALL_SCRIPT | CALL_REPEATABLE : CALL_SCRIPT, .script = (uint8_t)script};
    if (in->receipt.len) call.flags |= CALL_MAYBE; /* an earlier call: when this one fails that is as unknown as before */
    int rc = redis_ask(self, op, call, all, at);
    if (with_receipt && (rc == CF_PENDING || in->receipt.len)) cf_op_set_receipt(op, receipt);
    return rc < 0 && in->receipt.len ? cf_op_fail(op, rc, CF_UNKNOWN, "%s", cf_op_error(op)->text) : rc;
}

/* ---- the slots ---- */

int redis_get(cf_backend *self, cf_op *op)
{
    return ASK(self, op, EXPECT_VALUE, CALL_REPEATABLE, LITERAL("GET"), cf_op_in(op)->key);
}

int redis_set(cf_backend *self, cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    char     text[CF_INT_TEXT];
    cf_slice life = lifetime(in->ttl_ms, text);
    bool     keep = in->flags & CF_KEEP_TTL;
    if (in->flags & (CF_IF_ABSENT | CF_IF_EQUAL) || (keep && !(in->flags & CF_IF_PRESENT) && in->ttl_ms)) {
        cf_slice condition = in->flags & CF_IF_ABSENT ? LITERAL("absent") : in->flags & CF_IF_EQUAL ? LITERAL("equal") : LITERAL("none");
        cf_slice args[] = {condition, in->value, life, keep ? LITERAL("1") : LITERAL("0"), in->expected};
        bool     receipt = self->options.receipts && in->flags & (CF_IF_ABSENT | CF_IF_EQUAL);
        return run(self, op, SCRIPT_SET, EXPECT_HIT, args, 5, receipt || in->receipt.len);
    }
    cf_slice args[7] = {LITERAL("SET"), in->key, in->value};
    size_t   count = 3;
    if (in->flags & CF_IF_PRESENT) args[count++] = LITERAL("XX");
    if (keep) {
        args[count++] = LITERAL("KEEPTTL");
    } else if (in->ttl_ms) {
        args[count++] = LITERAL("PX");
        args[count++] = life;
    }
    return redis_ask(self, op, (redis_call){.expect = EXPECT_OK}, args, count);
}

int redis_del(cf_backend *self, cf_op *op) { return ASK(self, op, EXPECT_HIT, 0, LITERAL("DEL"), cf_op_in(op)->key); }

int redis_pop(cf_backend *self, cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    bool receipt = self->options.receipts || in->receipt.len;
    if (receipt || self->no_getdel) return run(self, op, SCRIPT_POP, EXPECT_VALUE, NULL, 0, receipt);
    return ASK(self, op, EXPECT_VALUE, 0, LITERAL("GETDEL"), in->key);
}

int redis_touch(cf_backend *self, cf_op *op)
{
    char text[CF_INT_TEXT];
    return ASK(self, op, EXPECT_HIT, 0, LITERAL("PEXPIRE"), cf_op_in(op)->key, number(cf_op_in(op)->ttl_ms - 1, text));
}

int redis_incr(cf_backend *self, cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    char     by[CF_INT_TEXT], life[CF_INT_TEXT];
    cf_slice args[] = {number(in->by, by), lifetime(in->ttl_ms, life)};
    return run(self, op, SCRIPT_INCR, EXPECT_NUMBER, args, 2, self->options.receipts || in->receipt.len);
}

/* ---- pages ---- */

/* The prefix as a glob in which nothing is special but the star at its end. */
static cf_slice glob(cf_slice prefix, char out[2 * (CF_PREFIX_MAX + CF_KEY_MAX) + 1])
{
    size_t len = 0;
    for (size_t i = 0; i < prefix.len; i++) {
        if (strchr("*?[]\\^-", prefix.ptr[i])) out[len++] = '\\';
        out[len++] = prefix.ptr[i];
    }
    out[len++] = '*';
    return cf_bytes(out, len);
}

static int ask_page(cf_backend *self, cf_op *op, redis_expect expect, cf_slice prefix, cf_slice cursor, size_t limit, unsigned flags)
{
    char     count[CF_INT_TEXT], pattern[2 * (CF_PREFIX_MAX + CF_KEY_MAX) + 1];
    cf_slice args[] = {LITERAL("SCAN"), cursor.len ? cursor : LITERAL("0"), LITERAL("COUNT"), number((int64_t)limit, count),
                       LITERAL("MATCH"), glob(prefix, pattern)};
    /* The cursor of one process means nothing to another one, with its own order of keys: only the first page of a CLEAR can be asked of whoever is there then. */
    redis_call call = {.expect = (uint8_t)expect, .flags = (uint8_t)(flags ? flags : CALL_REPEATABLE)};
    bool digits = cursor.len <= 20;
    for (size_t i = 0; i < cursor.len && digits; i++) digits = cursor.ptr[i] >= '0' && cursor.ptr[i] <= '9';
    if (!digits) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the cursor is none that a scan gave");
    return flags ? redis_queue_push(self, op, call, args, prefix.len ? 6 : 4) == CF_OK ? CF_PENDING : CF_ENOMEM
                 : redis_ask(self, op, call, args, prefix.len ? 6 : 4);
}

int redis_scan(cf_backend *self, cf_op *op) { return redis_scan_from(self, op, cf_op_in(op)->key, cf_op_in(op)->cursor); }

int redis_scan_from(cf_backend *self, cf_op *op, cf_slice prefix, cf_slice cursor)
{
    return ask_page(self, op, EXPECT_PAGE, prefix, cursor, cf_op_in(op)->limit, 0);
}

int redis_clear(cf_backend *self, cf_op *op) { return ask_page(self, op, EXPECT_CLEAR_PAGE, cf_op_in(op)->key, LITERAL(""), CF_SCAN_MAX, 0); }

int redis_clear_from(cf_backend *self, cf_op *op, cf_slice cursor)
{
    return ask_page(self, op, EXPECT_CLEAR_PAGE, cf_op_in(op)->key, cursor, CF_SCAN_MAX, CALL_MAYBE);
}

/* ---------------------------------------------------------------------------------------------------------- answers -- */

void redis_finish(cf_backend *self, cf_op *op, int status)
{
    /* A replica that refuses writes still answers reads: nothing is over, and why the connection is left must still be known then. */
    if ((status == CF_OK || status == CF_EINVAL) && !self->leaving) redis_works(self);
    cf_op_finish(op, status);
}

/* The command at head goes to the end of the queue, as it is or with another head. */
static void again(cf_backend *self, redis_call call, cf_op *op, cf_slice head, size_t skip)
{
    self->figures.retries++;
    if (redis_queue_again(self, op, call, head, skip) == CF_OK) {
        redis_queue_shift(&self->queue);
    } else {
        redis_queue_shift(&self->queue);
        cf_op_finish(op, cf_op_fail(op, CF_ENOMEM, redis_outcome(op, &call, CF_NOT_APPLIED), "no memory to repeat a command"));
    }
}

static void again_with_text(cf_backend *self, redis_call call, cf_op *op)
{
    /* *N $7 EVALSHA $40 ... becomes *N $4 EVAL and the text. N has one digit, or more. */
    const redis_queue *queue = &self->queue;
    cf_slice text = scripts[call.script].text;
    char     digits[CF_INT_TEXT];
    const char *start = queue->out.ptr + queue->at;
    size_t   line = (size_t)((const char *)memchr(start, '\n', call.bytes) - start) + 1;
    cf_slice parts[] = {cf_bytes(start, line), LITERAL("$4\r\nEVAL\r\n$"), number((int64_t)text.len, digits), LITERAL("\r\n"), text, LITERAL("\r\n")};
    cf_buffer head = {0};
    int rc = CF_OK;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == CF_OK; i++) rc = cf_buffer_append(self->platform, &head, parts[i]);
    call.flags &= (uint8_t)~CALL_SCRIPT;
    if (rc == CF_OK) {
        again(self, call, op, cf_bytes(head.ptr, head.len), line + sizeof EVALSHA_1 - 1 + 40 + 2);
    } else {
        redis_queue_shift(&self->queue);
        cf_op_finish(op, cf_op_fail(op, CF_ENOMEM, redis_outcome(op, &call, CF_NOT_APPLIED), "no memory to repeat a command"));
    }
    cf_buffer_free(self->platform, &head);
}

static void again_without_getdel(cf_backend *self, redis_call call, cf_op *op)
{
    static const char getdel[] = "*2\r\n$6\r\nGETDEL\r\n", head[] = "*4\r\n" EVALSHA_1 SCRIPT_POP_SHA1 "\r\n$1\r\n1\r\n";
    self->no_getdel = true;
    call.flags |= CALL_SCRIPT;
    call.script = SCRIPT_POP;
    again(self, call, op, LITERAL(head), sizeof getdel - 1);
}

static void answer_error(cf_backend *self, redis_call call, cf_op *op)
{
    cf_error error;
    redis_verdict verdict = redis_judge(self, cf_bytes(self->reply.text.ptr, self->reply.text.len), &error);
    /* What says nothing of an earlier try; a script that ran far enough to say EINVAL or ECORRUPT has found no receipt of one. */
    if (call.flags & CALL_MAYBE && error.outcome == CF_NOT_APPLIED && error.status != CF_EINVAL && error.status != CF_ECORRUPT)
        error.outcome = CF_UNKNOWN;
    switch (verdict) {
    case ERROR_MOVED:
    case ERROR_ASK:
        if (redis_cluster_redirect(self, op, call, cf_bytes(self->reply.text.ptr, self->reply.text.len), verdict == ERROR_ASK)) return;
        break;
    case ERROR_UNSETTLED:
        self->store->why = error;
        if (redis_cluster_later(self, op, call)) return;
        break;
    case ERROR_LATER:
        self->why = error;
        redis_hold(self);
        again(self, call, op, LITERAL(""), 0);
        return;
    case ERROR_LEAVE:
        self->why = error;
        self->why.status = CF_EUNAVAILABLE; /* whether a new greeting helps is seen then */
        self->leaving = true;
        again(self, call, op, LITERAL(""), 0);
        return;
    case ERROR_NO_SCRIPT:
        if (!(call.flags & CALL_SCRIPT)) break;
        again_with_text(self, call, op);
        return;
    case ERROR_NO_GETDEL:
        if (call.expect != EXPECT_VALUE || call.flags & (CALL_SCRIPT | CALL_REPEATABLE)) break;
        again_without_getdel(self, call, op);
        return;
    case ERROR_POISON:
        self->why = error;
        self->poisoned = true;
        return;
    case ERROR_FINAL: break;
    }
    redis_queue_shift(&self->queue);
    if (call.expect == EXPECT_CLEAR_PAGE || call.expect == EXPECT_CLEAR_ONE || call.expect == EXPECT_CLEAR_DELETED)
        if (cf_op_number(op) > 0) error.outcome = CF_UNKNOWN;
    redis_finish(self, op, cf_op_fail(op, error.status, error.outcome, "%s", error.text));
}

/* CLEAR goes on: the keys of this page are deleted in one command, then the next page is asked for. */
static int clear_on(cf_backend *self, cf_op *op, redis_call call)
{
    if (call.expect == EXPECT_CLEAR_PAGE && self->reply.key_count) {
        redis_reply *reply = &self->reply;
        char      digits[CF_INT_TEXT];
        cf_slice  parts[] = {LITERAL("*"), number((int64_t)reply->key_count + 1, digits), LITERAL("\r\n$3\r\nDEL\r\n"),
                             cf_bytes(reply->keys.ptr, reply->keys.len)};
        return redis_queue_push_parts(self, op, (redis_call){.expect = EXPECT_CLEAR_DELETED, .ticket = call.ticket}, parts, 4);
    }
    if (cf_op_cursor(op).len == 0) return CF_OK;
    return redis_clear_from(self, op, cf_op_cursor(op));
}

static int answer_clear(cf_backend *self, cf_op *op, redis_call call)
{
    if (call.expect != EXPECT_CLEAR_PAGE) cf_op_set_number(op, cf_op_number(op) + self->reply.integer);
    if (call.expect == EXPECT_CLEAR_ONE) return CF_PENDING;
    int rc = self->store ? redis_cluster_clear_on(self, op, call) : clear_on(self, op, call);
    if (rc == CF_ENOMEM) return cf_op_fail(op, rc, cf_op_number(op) ? CF_UNKNOWN : CF_NOT_APPLIED, "no memory");
    cf_op_set_hit(op, true);
    return rc;
}

/* Whether the answer has a shape that the command can have. */
static bool fits(redis_expect expect, const redis_reply *reply)
{
    switch (expect) {
    case EXPECT_VALUE: return reply->type == REPLY_STRING || reply->type == REPLY_NIL;
    case EXPECT_MARK:
    case EXPECT_OK: return (reply->type == REPLY_STATUS && cf_slice_equal(cf_bytes(reply->text.ptr, reply->text.len), LITERAL("OK"))) || reply->type == REPLY_NIL;
    case EXPECT_HIT:
    case EXPECT_NUMBER:
    case EXPECT_CLEAR_ONE:
    case EXPECT_CLEAR_DELETED: return reply->type == REPLY_INTEGER;
    default: return reply->type == REPLY_ARRAY;
    }
}

static void measure(cf_backend *self, const redis_call *call)
{
    uint32_t us = self->now_us - call->sent_us;
    int      bucket = 0;
    for (uint32_t bound = 64; bucket < REDIS_BUCKETS - 1 && us > bound; bound *= 2) bucket++;
    self->figures.us[bucket]++;
}

void redis_not_ours(cf_backend *self)
{
    self->poisoned = true;
    cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s gave an answer that does not belong to the question: the connection was given up",
                 self->options.endpoint);
}

void redis_answer(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    redis_call   call = *redis_queue_at(queue, 0);
    redis_reply *reply = &self->reply;
    measure(self, &call);
    if (call.flags & CALL_OWN) {
        redis_queue_shift(queue);
        if (call.expect == EXPECT_REPLICAS) redis_waits_answer(self);
        else if (call.expect == EXPECT_SLOTS) redis_cluster_answer(self, &call);
        else if (call.expect == EXPECT_ASKING) redis_cluster_asked(self);
        else if (call.expect == EXPECT_INFO_REPLICATION) redis_waits_recount(self);
        else redis_settings_answer(self, (redis_expect)call.expect);
        return;
    }
    cf_op *op = cf_loop_op(self->loop, call.ticket);
    bool   error = reply->type == REPLY_ERROR;
    if (!error && !fits((redis_expect)call.expect, reply)) {
        redis_not_ours(self);
        return;
    }
    if (!op) {
        self->figures.late++;
        redis_queue_shift(queue);
        return;
    }
    if (error) {
        answer_error(self, call, op);
        return;
    }
    if (call.expect == EXPECT_RECORDS) {
        redis_queue_shift(queue);
        if (!self->leaving) redis_works(self);
        redis_settle(self, op, &call, redis_records_answer(self, op, &call));
        return;
    }
    if (reply->failed) {
        /* A pop that found no memory has happened; with its receipt it can be asked for again. */
        redis_queue_shift(queue);
        int outcome = call.flags & CALL_REPEATABLE ? CF_UNKNOWN : CF_APPLIED;
        cf_op_finish(op, cf_op_fail(op, reply->failed, outcome, "no memory for the answer"));
        return;
    }
    int rc = CF_OK;
    redis_queue_shift(queue);
    switch ((redis_expect)call.expect) {
    case EXPECT_VALUE:
        cf_op_set_hit(op, reply->type == REPLY_STRING);
        break;
    case EXPECT_OK: cf_op_set_hit(op, reply->type == REPLY_STATUS); break;
    case EXPECT_HIT: cf_op_set_hit(op, reply->integer > 0); break;
    case EXPECT_NUMBER:
        cf_op_set_number(op, reply->integer);
        cf_op_set_hit(op, true);
        break;
    case EXPECT_PAGE:
        cf_op_set_hit(op, true);
        if (self->store) rc = redis_cluster_page_came(self, op, call.slot);
        break;
    case EXPECT_MARK: redis_await(self, op); return;
    default: rc = answer_clear(self, op, call); break;
    }
    if (rc != CF_PENDING) redis_settle(self, op, &call, rc);
}
