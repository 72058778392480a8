/* The life of an operation: pending or done, tickets, cancel, free, `done` at most once, and what a slot sees. */
#include "support.h"

#include <string.h>

/* A store over a table, and the table. */
typedef struct stand {
    cf_store *store;
    tb       *table;
    tb_log    log;
} stand;

static void put_up(stand *s, cf_loop *loop, tb_manner manner, tb_slots slots, const char *prefix)
{
    const cf_open_options options = {.size = sizeof options, .prefix = cf_text(prefix)};
    cf_error              error;
    memset(s, 0, sizeof *s);
    if (tb_open(loop, manner, slots, &s->log, &options, &s->store, &error) != CF_OK) fail_msg("%s", error.text);
    s->table = tb_last();
}

static cf_op *pend(stand *s, int kind, const char *key, seen *watcher)
{
    cf_op *op = NULL;
    int    status = cf_submit(s->store,
                              CF_REQUEST(kind, .key = cf_text(key), .value = cf_text("v"), .done = watcher ? see : NULL, .user = watcher),
                              &op);
    assert_int_equal(status, CF_PENDING);
    assert_int_equal(cf_op_status(op), CF_PENDING);
    return op;
}

static void done_at_once_calls_no_done(void **state)
{
    world *w = *state;
    seen   s = {0};
    static stand t;
    cf_op *op;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .done = see, .user = &s), &op), CF_OK);
    assert_int_equal(cf_op_status(op), CF_OK);
    assert_int_equal(cf_op_kind(op), CF_OP_SET);
    assert_ptr_equal(cf_op_user(op), &s);
    assert_ptr_equal(cf_op_store(op), t.store);
    assert_int_equal(cf_op_error(op)->status, CF_OK);
    assert_int_equal(cf_op_wait(op), CF_OK);
    cf_op_free(op);
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text(""), .done = see, .user = &s), &op), CF_EINVAL);
    assert_int_equal(cf_op_error(op)->status, CF_EINVAL);
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 0);
    cf_op_free(op);
    cf_op_free(NULL);
    assert_int_equal(stat_of(t.store, "operations"), 2);
    assert_int_equal(stat_of(t.store, "errors"), 1);
    assert_int_equal(stat_of(t.store, "slots"), 1); /* the backend's own */
}

/* On a stage the clock does not tell how long the wait has been. */
static void a_bounded_wait_ends_though_the_clock_stands(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    cf_op *op = pend(&t, CF_OP_GET, "a", NULL);
    assert_int_equal(cf_op_wait_for(op, 20), CF_PENDING);
    cf_stage_advance(w->stage, 5000);
    assert_int_equal(cf_op_wait_for(op, 20), CF_ETIMEOUT);
    cf_op_free(op);
}

/* The loop wakes itself for its own work; that is no reason to end somebody's wait. */
static void a_bounded_wait_is_not_ended_by_the_loops_own_work(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    cf_op    *op;
    for (int i = 0; i < 2500; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_true(ask_set(store, key, "v").hit);
    }
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_COUNT), &op), CF_PENDING);
    assert_int_equal(cf_op_wait_for(op, 60000), CF_OK);
    assert_int_equal(cf_op_number(op), 2500);
    cf_op_free(op);
    assert_ok(cf_store_close(store, NULL));
}

static void for_ever(cf_op *op, void *user)
{
    stand *t = user;
    cf_op_free(op);
    cf_submit(t->store, CF_REQUEST(CF_OP_GET, .key = cf_text("b"), .done = for_ever, .user = t), &op);
}

/* Nor do others that finish, again and again, lengthen it. */
static void a_bounded_wait_ends_though_others_go_on(void **state)
{
    world *w = *state;
    static stand mute, busy;
    put_up(&mute, w->loop, TB_HAND, TB_FULL, "");
    put_up(&busy, w->loop, TB_PIPE, TB_FULL, "");
    cf_op *op = pend(&mute, CF_OP_GET, "a", NULL), *other;
    cf_submit(busy.store, CF_REQUEST(CF_OP_GET, .key = cf_text("b"), .done = for_ever, .user = &busy), &other);
    for (int i = 0; i < 3; i++) assert_int_equal(cf_op_wait_for(op, 0), CF_PENDING);
    cf_op_free(op);
}

static void what_goes_in_is_lent(void **state)
{
    world *w = *state;
    static stand t;
    cf_op *op;
    char   key[] = "key", value[] = "value";
    put_up(&t, w->loop, TB_HAND, TB_FULL, "p:");
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_text(value)), &op), CF_PENDING);
    memset(key, 'x', 3);
    memset(value, 'x', 5);
    tb_answer(t.table, 1);
    assert_int_equal(cf_op_wait(op), CF_OK);
    cf_op_free(op);
    op = pend(&t, CF_OP_GET, "key", NULL);
    tb_answer(t.table, 1);
    cf_op_wait(op);
    assert_true(cf_op_hit(op));
    cf_slice got = cf_op_value(op);
    assert_int_equal(got.len, 5);
    assert_memory_equal(got.ptr, "value", 5);
    cf_store_close(t.store, NULL); /* what came out lives until the operation is freed */
    assert_memory_equal(cf_op_value(op).ptr, "value", 5);
    assert_null(cf_op_store(op));
    cf_op_free(op);
}

static void a_ticket_is_stale_after_the_finish(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    uint64_t tickets[4];
    for (int how = 0; how < 4; how++) {
        cf_op *op = pend(&t, CF_OP_GET, "a", NULL);
        tickets[how] = cf_op_ticket(op);
        assert_true(tickets[how] != 0);
        assert_ptr_equal(cf_loop_op(w->loop, tickets[how]), op);
        for (int i = 0; i < how; i++) assert_true(tickets[i] != tickets[how]);
        if (how == 0) tb_answer(t.table, 1);
        if (how == 1) assert_ok(cf_op_cancel(op));
        if (how == 2) cf_stage_advance(w->stage, 5000), cf_loop_run(w->loop, 0);
        if (how == 3) cf_op_free(op), op = NULL;
        assert_null(cf_loop_op(w->loop, tickets[how]));
        cf_loop_run(w->loop, 0);
        cf_op_free(op);
        for (int i = 0; i <= how; i++) assert_null(cf_loop_op(w->loop, tickets[i]));
    }
    assert_null(cf_loop_op(w->loop, 0));
    assert_null(cf_loop_op(w->loop, UINT64_MAX));
    /* The memory of the operation is used again, and its old names still mean nobody. */
    cf_op *op = pend(&t, CF_OP_GET, "a", NULL);
    for (int i = 0; i < 4; i++) assert_null(cf_loop_op(w->loop, tickets[i]));
    cf_op_free(op);
}

static void cancel_finishes_with_done(void **state)
{
    world *w = *state;
    seen   get = {0}, set = {0};
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    cf_op *a = pend(&t, CF_OP_GET, "a", &get), *b = pend(&t, CF_OP_SET, "a", &set);
    assert_ok(cf_op_cancel(a));
    assert_ok(cf_op_cancel(b));
    assert_int_equal(get.calls, 1);
    assert_int_equal(get.status, CF_ECANCELED);
    assert_int_equal(get.outcome, CF_NOT_APPLIED);
    assert_int_equal(set.outcome, CF_UNKNOWN); /* whether a write took effect is unknown */
    assert_int_equal(t.log.cancels, 2);
    assert_int_equal(tb_pending(t.table), 0);
    assert_int_equal(cf_op_cancel(a), CF_EINVAL);
    cf_loop_run(w->loop, 0);
    assert_int_equal(get.calls, 1);
    assert_int_equal(cf_loop_pending(w->loop), 0);
    cf_op_free(a);
    cf_op_free(b);
    cf_op *now;
    static stand quick;
    put_up(&quick, w->loop, TB_NOW, TB_FULL, "");
    assert_int_equal(cf_submit(quick.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &now), CF_OK);
    assert_int_equal(cf_op_cancel(now), CF_EINVAL);
    assert_int_equal(cf_op_status(now), CF_OK);
    cf_op_free(now);
}

static void free_while_pending_calls_no_done(void **state)
{
    world *w = *state;
    seen   s = {0};
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    cf_op *op = pend(&t, CF_OP_SET, "a", &s);
    cf_op_free(op);
    assert_int_equal(t.log.cancels, 1);
    assert_int_equal(cf_loop_pending(w->loop), 0);
    assert_int_equal(tb_answer(t.table, 1), 0);
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 0);
    /* Also when it has finished and waits for its `done`. */
    op = pend(&t, CF_OP_SET, "a", &s);
    tb_answer(t.table, 1);
    cf_op_free(op);
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 0);
}

/* A backend that forgets nothing: what it hears after the end must reach nobody. */
static uint64_t kept_ticket;

static int keep_ticket(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)user;
    kept_ticket = cf_op_ticket(op);
    return CF_OK;
}

static void a_late_answer_reaches_nobody(void **state)
{
    world *w = *state;
    seen   s = {0}, next = {0};
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    t.log.on_slot = keep_ticket;
    cf_op   *op = pend(&t, CF_OP_GET, "a", &s);
    uint64_t late = kept_ticket;
    cf_stage_advance(w->stage, 5000);
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.status, CF_ETIMEOUT);
    cf_op_free(op);
    cf_op *other = pend(&t, CF_OP_GET, "b", &next); /* in the memory of the first */
    assert_null(cf_loop_op(w->loop, late));
    assert_ptr_equal(cf_loop_op(w->loop, kept_ticket), other);
    tb_answer(t.table, 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(next.calls, 1);
    assert_int_equal(s.calls, 1);
    cf_op_free(other);
}

/* ---- finishes from odd places ---- */

static int answer_others(tb *self, cf_op *op, void *user)
{
    (void)op;
    (void)user;
    tb_answer(self, 100);
    return CF_OK;
}

static void a_finish_inside_another_submit_is_queued(void **state)
{
    world *w = *state;
    seen   first = {0}, second = {0};
    static stand t;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    cf_op *a = pend(&t, CF_OP_GET, "a", &first);
    t.log.on_slot = answer_others;
    cf_op *b = pend(&t, CF_OP_GET, "b", &second);
    assert_int_equal(first.calls, 0);
    assert_int_equal(cf_op_status(a), CF_OK);
    assert_true(readable(w->loop));
    cf_loop_run(w->loop, 0);
    assert_int_equal(first.calls, 1);
    assert_int_equal(second.calls, 0);
    tb_answer(t.table, 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(second.calls, 1);
    cf_op_free(a);
    cf_op_free(b);
}

typedef struct chain {
    stand *t;
    int    left, calls;
    cf_op *ops[64];
} chain;

static void submit_next(cf_op *op, void *user)
{
    chain *c = user;
    cf_op_free(op);
    c->calls++;
    if (c->left-- > 0) {
        assert_int_equal(
            cf_submit(c->t->store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = submit_next, .user = c), &op), CF_PENDING);
    }
}

static void done_may_free_and_submit(void **state)
{
    world *w = *state;
    static stand t;
    chain  c = {.t = &t, .left = 50};
    cf_op *op;
    put_up(&t, w->loop, TB_PIPE, TB_FULL, "");
    cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = submit_next, .user = &c), &op);
    while (cf_loop_pending(w->loop)) assert_true(cf_loop_run(w->loop, -1) >= 0);
    assert_int_equal(c.calls, 51);
}

static void answer_in_done(cf_op *op, void *user)
{
    chain *c = user;
    (void)op;
    c->calls++;
    tb_answer(c->t->table, 1);
}

static void a_finish_inside_done_is_called_by_a_later_run(void **state)
{
    world *w = *state;
    static stand t;
    chain  c = {.t = &t};
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    for (int i = 0; i < 3; i++) {
        cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = answer_in_done, .user = &c), &c.ops[i]);
    }
    tb_answer(t.table, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c.calls, i);
        assert_true(readable(w->loop)); /* whoever watches the descriptor must hear of it */
        cf_loop_run(w->loop, 0);
    }
    assert_int_equal(c.calls, 3);
    assert_false(readable(w->loop));
    for (int i = 0; i < 3; i++) cf_op_free(c.ops[i]);
}

static void free_other(cf_op *op, void *user)
{
    chain *c = user;
    (void)op;
    c->calls++;
    for (int i = 0; i < 2; i++) {
        if (c->ops[i] != op) cf_op_free(c->ops[i]), c->ops[i] = NULL;
    }
}

static void done_may_free_another_that_has_finished_too(void **state)
{
    world *w = *state;
    static stand t;
    chain  c = {.t = &t};
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    for (int i = 0; i < 2; i++) {
        cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = free_other, .user = &c), &c.ops[i]);
    }
    tb_answer(t.table, 2);
    cf_loop_run(w->loop, 0);
    cf_loop_run(w->loop, 0);
    assert_int_equal(c.calls, 1);
    cf_op_free(c.ops[0]);
    cf_op_free(c.ops[1]);
}

static void wait_waits_for_its_own_done(void **state)
{
    world *w = *state;
    seen   a = {0}, b = {0};
    static stand t;
    put_up(&t, w->loop, TB_PIPE, TB_FULL, "");
    cf_op *first = pend(&t, CF_OP_SET, "a", &a), *second = pend(&t, CF_OP_GET, "a", &b);
    assert_int_equal(cf_op_wait(second), CF_OK);
    assert_int_equal(b.calls, 1);
    assert_string_equal(b.value, "v");
    assert_int_equal(cf_op_wait(first), CF_OK);
    assert_int_equal(a.calls, 1);
    cf_op_free(first);
    cf_op_free(second);
    cf_store_close(t.store, NULL);
}

/* ---- what is asked ---- */

static void malformed_requests_are_refused(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    const cf_request good = {.size = sizeof good, .kind = CF_OP_SET, .key = cf_text("a"), .value = cf_text("v")};
    cf_request       bad[16];
    size_t           n = 0;
    for (size_t i = 0; i < 16; i++) bad[i] = good;
    bad[n++].size = sizeof good - 1;
    bad[n++].size = 0;
    bad[n++].kind = -1;
    bad[n++].kind = CF_OP_KINDS;
    bad[n++].flags = CF_FORCE;
    bad[n++].flags = 1u << 30;
    bad[n++].timeout_ms = -1;
    bad[n++].timeout_ms = CF_TIMEOUT_MAX + 1;
    bad[n].flags = CF_TTL;
    bad[n++].ttl_ms = CF_TTL_MAX + 1;
    bad[n].flags = CF_TTL;
    bad[n++].ttl_ms = INT64_MIN;
    bad[n].flags = CF_EXPIRES_AT;
    bad[n++].expires_at_ms = -1;
    bad[n].flags = CF_EXPIRES_AT;
    bad[n++].expires_at_ms = INT64_MAX;
    bad[n++].kind = CF_OP_TOUCH; /* without a ttl */
    bad[n].kind = CF_OP_SCAN;
    bad[n++].limit = CF_SCAN_MAX + 1;
    bad[n].kind = CF_OP_GET;
    bad[n++].flags = CF_TTL;
    bad[n].kind = CF_OP_INCR;
    bad[n++].by = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        cf_op *op;
        if (cf_submit(t.store, &bad[i], &op) != CF_EINVAL) fail_msg("request %zu was not refused", i);
        assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
        assert_true(strlen(cf_op_error(op)->text) > 10);
        cf_op_free(op);
    }
    assert_int_equal(t.log.sets + t.log.gets + t.log.incrs + t.log.touches + t.log.scans, 0);
    char cursor[CF_CURSOR_MAX + 1] = {0};
    cf_op *op;
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SCAN, .cursor = cf_bytes(cursor, CF_CURSOR_MAX + 1)), &op), CF_EINVAL);
    cf_op_free(op);
    cf_request longest = good;
    longest.timeout_ms = CF_TIMEOUT_MAX;
    assert_int_equal(ask(t.store, &longest).status, CF_OK);
}

static void a_cursor_that_no_scan_gave_is_refused(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    ask_set(store, "a", "1");
    static const char *const cursors[] = {"x", "0", "000000000000000g", "00000000000000000", "FFFFFFFFFFFFFFFF", "               0"};
    for (size_t i = 0; i < sizeof cursors / sizeof *cursors; i++) {
        cf_op *op;
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_SCAN, .cursor = cf_text(cursors[i])), &op), CF_EINVAL);
        assert_false(cf_op_hit(op));
        cf_op_free(op);
    }
}

static cf_request  asked;
static char        asked_key[64], asked_cursor[32];
static int take_request(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)user;
    asked = *cf_op_in(op);
    snprintf(asked_key, sizeof asked_key, "%.*s", (int)asked.key.len, asked.key.ptr);
    snprintf(asked_cursor, sizeof asked_cursor, "%.*s", (int)asked.cursor.len, asked.cursor.ptr);
    return CF_OK;
}

static void a_slot_sees_what_results(void **state)
{
    world *w = *state;
    static stand t;
    memset(&t, 0, sizeof t);
    const cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:"), .ttl_ms = 60000};
    assert_ok(tb_open(w->loop, TB_NOW, TB_FULL, &t.log, &options, &t.store, NULL));
    t.log.on_slot = take_request;
    ask_set(t.store, "a", "1");
    assert_string_equal(asked_key, "p:a");
    assert_int_equal(asked.ttl_ms, 60000);
    ask_ttl(t.store, "a", "1", 5);
    assert_int_equal(asked.ttl_ms, 5);
    ask(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .flags = CF_EXPIRES_AT, .expires_at_ms = cf_stage_wall_ms(w->stage) + 7));
    assert_int_equal(asked.ttl_ms, 7);
    ask(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .flags = CF_KEEP_TTL));
    assert_int_equal(asked.ttl_ms, 60000);
    assert_int_equal(asked.flags & (CF_KEEP_TTL | CF_IF_ABSENT | CF_IF_PRESENT | CF_IF_EQUAL), CF_KEEP_TTL);
    ask(t.store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 3));
    assert_int_equal(asked.by, 3);
    assert_int_equal(asked.ttl_ms, 60000);
    ask(t.store, CF_REQUEST(CF_OP_TOUCH, .key = cf_text("a"), .flags = CF_TTL, .ttl_ms = 9));
    assert_int_equal(asked.ttl_ms, 9);
    ask(t.store, CF_REQUEST(CF_OP_SCAN));
    assert_string_equal(asked_key, "p:");
    assert_int_equal(asked.limit, CF_SCAN_DEFAULT);
    assert_int_equal(asked.cursor.len, 0);
    cf_op *op;
    assert_ok(cf_submit(t.store, CF_REQUEST(CF_OP_SCAN, .limit = 1), &op));
    cf_slice key, cursor = cf_op_cursor(op);
    assert_true(cf_op_next_key(op, &key));
    assert_int_equal(key.len, 1); /* without the prefix */
    assert_false(cf_op_next_key(op, &key));
    assert_false(cf_op_next_key(op, &key));
    assert_true(cursor.len > 0);
    ask(t.store, CF_REQUEST(CF_OP_SCAN, .limit = 1, .cursor = cursor));
    assert_memory_equal(asked_cursor, cursor.ptr, cursor.len);
    cf_op_free(op);
    int64_t dels = t.log.dels, sets = t.log.sets;
    assert_true(ask(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .flags = CF_EXPIRES_AT, .expires_at_ms = 0)).hit);
    assert_int_equal(t.log.dels, dels + 1); /* what has expired already is deleted */
    assert_int_equal(t.log.sets, sets);
}

static void what_a_backend_lacks_is_not_supported(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_NOW, TB_BARE, "p:");
    ask_set(t.store, "a", "1");
    const cf_request requests[] = {
        {.size = sizeof(cf_request), .kind = CF_OP_POP, .key = cf_text("a")},
        {.size = sizeof(cf_request), .kind = CF_OP_TOUCH, .key = cf_text("a"), .flags = CF_TTL, .ttl_ms = 5},
        {.size = sizeof(cf_request), .kind = CF_OP_INCR, .key = cf_text("a"), .by = 1},
        {.size = sizeof(cf_request), .kind = CF_OP_SCAN},
        {.size = sizeof(cf_request), .kind = CF_OP_COUNT},
        {.size = sizeof(cf_request), .kind = CF_OP_CLEAR},
        {.size = sizeof(cf_request), .kind = CF_OP_SET, .key = cf_text("a"), .flags = CF_IF_ABSENT},
        {.size = sizeof(cf_request), .kind = CF_OP_SET, .key = cf_text("a"), .flags = CF_IF_PRESENT},
        {.size = sizeof(cf_request), .kind = CF_OP_SET, .key = cf_text("a"), .flags = CF_IF_EQUAL, .expected = cf_text("1")},
        {.size = sizeof(cf_request), .kind = CF_OP_SET, .key = cf_text("a"), .flags = CF_KEEP_TTL},
    };
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        answer a = ask(t.store, &requests[i]);
        if (a.status != CF_ENOTSUP) fail_msg("request %zu: %s", i, cf_status_name(a.status));
        assert_int_equal(a.outcome, CF_NOT_APPLIED);
    }
    assert_value(ask_get(t.store, "a"), "1");
}

/* ---- errors of a backend ---- */

static int fail_plainly(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)op;
    return *(int *)user;
}

static int fail_in_words(tb *self, cf_op *op, void *user)
{
    (void)self;
    cf_op_set_hit(op, true);
    cf_op_set_value(op, cf_text("leftover"));
    return cf_op_fail(op, *(int *)user, CF_APPLIED, "The %s is on fire.", "backend");
}

static void errors_of_a_backend_come_through(void **state)
{
    world *w = *state;
    static stand t;
    int    status;
    cf_op *op;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    t.log.user = &status;
    for (status = CF_ECANCELED; status <= CF_EINVAL; status++) {
        t.log.on_slot = fail_plainly; /* without a sentence: there is one all the same */
        assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op), status);
        assert_int_equal(cf_op_error(op)->status, status);
        assert_int_equal(cf_op_error(op)->outcome, CF_UNKNOWN);
        assert_true(cf_op_error(op)->text[0] != 0);
        cf_op_free(op);
        assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), status);
        assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
        cf_op_free(op);
        t.log.on_slot = fail_in_words;
        assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op), status);
        assert_int_equal(cf_op_error(op)->outcome, CF_APPLIED);
        assert_string_equal(cf_op_error(op)->text, "The backend is on fire.");
        assert_false(cf_op_hit(op));
        assert_int_equal(cf_op_value(op).len, 0);
        cf_op_free(op);
        assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), status);
        assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED); /* a failed read never applied, whatever the backend says */
        cf_op_free(op);
    }
}

static void a_long_sentence_is_cut(void **state)
{
    (void)state;
    cf_error error;
    char     text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(cf_error_set(&error, CF_EBUSY, CF_UNKNOWN, "%s", text), CF_EBUSY);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    assert_int_equal(error.outcome, CF_UNKNOWN);
    assert_int_equal(cf_error_set(NULL, CF_EBUSY, CF_UNKNOWN, "%s", text), CF_EBUSY);
}

static int released;
static void release(void *object)
{
    (void)object;
    released++;
}

static int attach(tb *self, cf_op *op, void *user)
{
    (void)self;
    cf_op_attach(op, user, release);
    cf_op_attach(op, user, release);
    return cf_op_fail(op, CF_EHOST, CF_UNKNOWN, "The host threw.");
}

static void an_attached_object_is_released_once(void **state)
{
    world *w = *state;
    static stand t;
    int    object;
    cf_op *op;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    t.log.on_slot = attach;
    t.log.user = &object;
    released = 0;
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_EHOST);
    assert_int_equal(released, 1); /* the one that was replaced */
    assert_ptr_equal(cf_op_attached(op), &object);
    cf_op_free(op);
    assert_int_equal(released, 2);
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_COUNT), &op), CF_EHOST); /* through a composed operation */
    assert_ptr_equal(cf_op_attached(op), &object);
    cf_op_free(op);
    assert_int_equal(released, 4);
    t.log.on_slot = NULL;
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_OK);
    assert_null(cf_op_attached(op));
    cf_op_free(op);
    t.log.on_slot = attach;
    cf_submit(t.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op); /* not freed: the loop releases it */
}

/* ---- answers that cannot be right ---- */

static int odd_page(tb *self, cf_op *op, void *user)
{
    (void)self;
    char longest[CF_CURSOR_MAX + 1];
    memset(longest, 'c', sizeof longest);
    if (user) {
        int status = cf_op_set_cursor(op, cf_bytes(longest, CF_CURSOR_MAX + 1));
        return status ? status : cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "The cursor was taken.");
    }
    static char too_long[CF_KEY_MAX + 3] = "p:";
    memset(too_long + 2, 'k', CF_KEY_MAX + 1);
    const cf_slice keys[] = {cf_text("p:ab"), cf_text("q:ab"), cf_text("p:"),  cf_text("p"),     cf_text(""),       cf_text("p:b"),
                             cf_text("p:a\n"), cf_bytes("p:a\0", 4), cf_text("p:a\xff"), cf_bytes(too_long, sizeof too_long),
                             cf_text("p:a")};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (cf_op_add_key(op, keys[i])) return CF_ENOMEM;
    }
    if (cf_op_set_cursor(op, cf_bytes(longest, CF_CURSOR_MAX))) return CF_ECORRUPT;
    cf_op_set_hit(op, true);
    return CF_EHOST; /* stands for: stop here, the answer is written */
}

static int real_page(cf_backend *self, cf_op *op)
{
    int status = odd_page((tb *)(void *)self, op, NULL);
    return status == CF_EHOST ? CF_OK : status;
}

static int never(cf_backend *self, cf_op *op)
{
    (void)self;
    return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Nobody is here.");
}

static void keys_that_were_not_asked_for_are_passed_over(void **state)
{
    world                  *w = *state;
    static const cf_backend_table table = {.size = sizeof table, .name = "odd", .get = never, .set = never, .del = never, .scan = real_page};
    const cf_open_options   options = {.size = sizeof options, .prefix = cf_text("p:")};
    cf_store               *store;
    cf_op                  *op;
    cf_slice                key;
    int                     dummy;
    assert_ok(cf_open_backend(w->loop, &table, (cf_backend *)(void *)&dummy, &options, &store, NULL));
    assert_ok(cf_submit(store, CF_REQUEST(CF_OP_SCAN, .key = cf_text("a")), &op));
    assert_true(cf_op_next_key(op, &key));
    assert_int_equal(key.len, 2);
    assert_memory_equal(key.ptr, "ab", 2);
    assert_true(cf_op_next_key(op, &key));
    assert_int_equal(key.len, 1);
    assert_memory_equal(key.ptr, "a", 1);
    assert_false(cf_op_next_key(op, &key));
    assert_int_equal(cf_op_cursor(op).len, CF_CURSOR_MAX);
    cf_op_free(op);

    static stand t;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "p:");
    t.log.on_slot = odd_page;
    t.log.user = &t;
    assert_int_equal(cf_submit(t.store, CF_REQUEST(CF_OP_SCAN), &op), CF_ECORRUPT);
    cf_op_free(op);
}

/* ---- a backend that asks its own store ---- */

typedef struct dive {
    cf_store *store;
    int       depth, deepest, status;
} dive;

static int dive_deeper(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)op;
    dive *d = user;
    d->depth++;
    if (d->depth > d->deepest) d->deepest = d->depth;
    answer a = ask_get(d->store, "a");
    if (a.status != CF_OK) d->status = a.status;
    d->depth--;
    return CF_OK;
}

static void calling_ones_own_store_has_a_floor(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    dive d = {.store = t.store};
    t.log.on_slot = dive_deeper;
    t.log.user = &d;
    assert_int_equal(ask_get(t.store, "a").status, CF_OK); /* only the innermost is refused */
    assert_int_equal(d.deepest, CF_DEPTH_MAX);
    assert_int_equal(d.status, CF_EINVAL);
    t.log.on_slot = NULL;
    assert_int_equal(ask_get(t.store, "a").status, CF_OK);
}

/* ---- composed operations ---- */

static void count_and_clear_can_be_ended_on_the_way(void **state)
{
    world *w = *state;
    static stand t;
    put_up(&t, w->loop, TB_PIPE, TB_FULL, "p:");
    for (int i = 0; i < 4200; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_true(ask_set(t.store, key, "v").hit);
    }
    for (int how = 0; how < 3; how++) {
        for (int kind = CF_OP_COUNT; kind <= CF_OP_CLEAR; kind++) {
            seen   s = {0};
            cf_op *op = pend(&t, kind, "", &s);
            cf_loop_run(w->loop, -1);
            assert_int_equal(s.calls, 0);
            if (how == 0) {
                assert_ok(cf_op_cancel(op));
                assert_int_equal(s.status, CF_ECANCELED);
                assert_int_equal(s.outcome, kind == CF_OP_COUNT ? CF_NOT_APPLIED : CF_UNKNOWN);
            } else if (how == 1) {
                cf_op_free(op);
                op = NULL;
                cf_loop_run(w->loop, 0);
                assert_int_equal(s.calls, 0);
            } else {
                cf_stage_advance(w->stage, 5000);
                while (!s.calls) cf_loop_run(w->loop, 0);
                assert_int_equal(s.status, CF_ETIMEOUT);
            }
            assert_int_equal(cf_loop_pending(w->loop), 0);
            cf_op_free(op);
        }
    }
    answer left = ask_count(t.store);
    assert_true(left.number > 4000);
    assert_true(left.number < 4200); /* the clears had begun */
    assert_int_equal(ask(t.store, CF_REQUEST(CF_OP_CLEAR)).number, left.number);
    assert_int_equal(ask_count(t.store).number, 0);
}

static void a_long_count_lets_others_pass(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    for (int i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        ask_set(store, key, "v");
    }
    cf_op *op;
    int    status = cf_submit(store, CF_REQUEST(CF_OP_COUNT), &op), turns = 0;
    while (cf_op_status(op) == CF_PENDING) {
        assert_true(readable(w->loop));
        cf_loop_run(w->loop, 0);
        turns++;
    }
    assert_int_equal(status, CF_PENDING);
    assert_true(turns > 1);
    assert_int_equal(cf_op_number(op), 5000);
    cf_op_free(op);
    assert_false(readable(w->loop));
}

/* ---- interfaces ---- */

static void interfaces_hand_the_call_on(void **state)
{
    world       *w = *state;
    static stand t;
    seen         s = {0};
    cf_op       *op;
    const double nan_seconds = 0.0 / 0.0;
    put_up(&t, w->loop, TB_HAND, TB_FULL, "");
    const cf_storage   storage = {t.store};
    const cf_secondary secondary = {t.store, 0};
    const cf_call      call = {.timeout_ms = 70, .done = see, .user = &s};
    typedef struct trial {
        int    status;
        cf_op *op;
    } trial;
    trial trials[6] = {{0, NULL}};
    trials[0].status = cf_storage_get(&storage, cf_text("a"), &call, &trials[0].op);
    trials[1].status = cf_storage_set(&storage, cf_text("a"), cf_text("{}"), &call, &trials[1].op);
    trials[2].status = cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), NULL, &call, &trials[2].op);
    trials[3].status = cf_secondary_get(&secondary, cf_text("a"), &call, &trials[3].op);
    trials[4].status = cf_secondary_pop(&secondary, cf_text("a"), &call, &trials[4].op);
    trials[5].status = cf_secondary_delete(&secondary, cf_text("a"), &call, &trials[5].op);
    cf_stage_advance(w->stage, 70);
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(trials[i].status, CF_PENDING);
        assert_int_equal(cf_op_status(trials[i].op), CF_ETIMEOUT);
        assert_ptr_equal(cf_op_user(trials[i].op), &s);
        cf_op_free(trials[i].op);
    }
    /* Refusals come at once, as from cf_submit. */
    assert_int_equal(cf_storage_set(&storage, cf_text("a"), cf_text(""), &call, &op), CF_EINVAL);
    assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
    cf_op_free(op);
    assert_int_equal(cf_storage_set(&storage, cf_text(""), cf_bytes(NULL, 0), NULL, &op), CF_EINVAL);
    cf_op_free(op);
    assert_int_equal(cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), &nan_seconds, NULL, &op), CF_EINVAL);
    assert_true(strlen(cf_op_error(op)->text) > 5);
    cf_op_free(op);
    assert_int_equal(s.calls, 6);
    assert_int_equal(tb_pending(t.table), 0);
}

static void the_secondary_ttl_reaches_the_backend(void **state)
{
    world *w = *state;
    static stand t;
    cf_op *op;
    double half = 0.5, none = 0;
    put_up(&t, w->loop, TB_NOW, TB_FULL, "");
    t.log.on_slot = take_request;
    cf_secondary secondary = {t.store, 0};
    assert_ok(cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), NULL, NULL, &op));
    assert_int_equal(asked.ttl_ms, CF_SECONDARY_TTL);
    cf_op_free(op);
    secondary.ttl_ms = 1234;
    assert_ok(cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), NULL, NULL, &op));
    assert_int_equal(asked.ttl_ms, 1234);
    cf_op_free(op);
    assert_ok(cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), &half, NULL, &op));
    assert_int_equal(asked.ttl_ms, 500);
    assert_true(cf_op_hit(op));
    cf_op_free(op);
    assert_ok(cf_secondary_set(&secondary, cf_text("a"), cf_text("v"), &none, NULL, &op));
    assert_true(cf_op_hit(op)); /* it was there */
    cf_op_free(op);
    assert_int_equal(t.log.dels, 1);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(done_at_once_calls_no_done),
        WORLD(a_bounded_wait_ends_though_the_clock_stands),
        WORLD(a_bounded_wait_is_not_ended_by_the_loops_own_work),
        WORLD(a_bounded_wait_ends_though_others_go_on),
        WORLD(what_goes_in_is_lent),
        WORLD(a_ticket_is_stale_after_the_finish),
        WORLD(cancel_finishes_with_done),
        WORLD(free_while_pending_calls_no_done),
        WORLD(a_late_answer_reaches_nobody),
        WORLD(a_finish_inside_another_submit_is_queued),
        WORLD(done_may_free_and_submit),
        WORLD(a_finish_inside_done_is_called_by_a_later_run),
        WORLD(done_may_free_another_that_has_finished_too),
        WORLD(wait_waits_for_its_own_done),
        WORLD(malformed_requests_are_refused),
        WORLD(a_cursor_that_no_scan_gave_is_refused),
        WORLD(a_slot_sees_what_results),
        WORLD(what_a_backend_lacks_is_not_supported),
        WORLD(errors_of_a_backend_come_through),
        cmocka_unit_test(a_long_sentence_is_cut),
        WORLD(an_attached_object_is_released_once),
        WORLD(keys_that_were_not_asked_for_are_passed_over),
        WORLD(calling_ones_own_store_has_a_floor),
        WORLD(count_and_clear_can_be_ended_on_the_way),
        WORLD(a_long_count_lets_others_pass),
        WORLD(interfaces_hand_the_call_on),
        WORLD(the_secondary_ttl_reaches_the_backend),
    };
    hang_guard(60);
    return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
