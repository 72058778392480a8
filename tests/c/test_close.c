/* Closing: what pends gets CLOSED, and a backend is closed exactly once, whatever happened before. */
#include "support.h"

#include <string.h>

static cf_op *pend(cf_store *store, int kind, seen *watcher)
{
    cf_op *op;
    assert_int_equal(cf_submit(store, CF_REQUEST(kind, .key = cf_text("a"), .done = watcher ? see : NULL, .user = watcher), &op),
                     CF_PENDING);
    return op;
}

static void what_pends_is_closed_first(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    seen      get = {0}, set = {0}, count = {.free_it = true};
    cf_store *store, *other;
    cf_error  error;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    static tb_log other_log;
    memset(&other_log, 0, sizeof other_log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &other_log, NULL, &other, NULL));
    cf_op *a = pend(store, CF_OP_GET, &get), *b = pend(store, CF_OP_SET, &set);
    cf_op *elsewhere = pend(other, CF_OP_GET, NULL), *freed = pend(store, CF_OP_COUNT, &count);
    assert_ptr_equal(cf_store_loop(store), w->loop);
    memset(&error, 1, sizeof error);
    assert_ok(cf_store_close(store, &error));
    assert_int_equal(error.status, CF_OK);
    assert_int_equal(get.calls + set.calls + count.calls, 3);
    assert_int_equal(get.status, CF_ECLOSED);
    assert_int_equal(get.outcome, CF_NOT_APPLIED);
    assert_int_equal(set.outcome, CF_UNKNOWN);
    assert_ptr_equal(count.op, freed);
    assert_int_equal(log.closes, 1);
    assert_int_equal(log.cancels, 3);
    assert_null(cf_op_store(a));
    assert_int_equal(cf_op_status(elsewhere), CF_PENDING);
    assert_int_equal(cf_loop_pending(w->loop), 1);
    assert_int_equal(other_log.closes, 0);
    cf_op_free(a);
    cf_op_free(b);
    cf_loop_free(w->loop); /* closes the other */
    assert_int_equal(other_log.closes, 1);
    assert_int_equal(log.closes, 1);
    assert_ok(cf_loop_new(cf_stage_platform(w->stage), &w->loop));
}

static void freeing_the_loop_calls_done(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    seen      s = {0}, finished = {0};
    cf_store *store;
    cf_loop  *loop;
    cf_op    *op;
    assert_ok(cf_loop_new(cf_stage_platform(w->stage), &loop));
    assert_ok(tb_open(loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .done = see, .user = &finished), &op);
    tb_answer(tb_last(), 1); /* has its answer, but no run has called its `done` */
    pend(store, CF_OP_GET, &s);
    cf_loop_free(loop);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.status, CF_ECLOSED);
    assert_int_equal(finished.calls, 1);
    assert_int_equal(finished.status, CF_OK);
    assert_int_equal(log.closes, 1);
}

/* ---- closing from odd places ---- */

typedef struct spot {
    cf_store *store;
    int       calls, status, submitted, closed, at; /* at: in which call */
} spot;

static void close_it(cf_op *op, void *user)
{
    spot *s = user;
    s->calls++;
    s->status = cf_op_status(op);
    s->closed = cf_store_close(s->store, NULL);
    cf_op_free(op);
}

static void close_inside_done(void **state)
{
    world *w = *state;
    static tb_log log;
    memset(&log, 0, sizeof log);
    spot   s = {0};
    cf_op *op;
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &s.store, NULL));
    cf_submit(s.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = close_it, .user = &s), &op);
    seen   rest = {0};
    cf_op *unflushed = pend(s.store, CF_OP_SET, &rest);
    cf_loop_run(w->loop, -1);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.status, CF_OK);
    assert_int_equal(s.closed, CF_OK);
    assert_int_equal(log.closes, 1);
    assert_int_equal(rest.calls, 1);
    cf_op_free(unflushed);
    cf_loop_run(w->loop, 0);
}

static void submit_while_closing(cf_op *op, void *user)
{
    spot  *s = user;
    cf_op *more;
    s->calls++;
    s->status = cf_op_status(op);
    s->submitted = cf_submit(s->store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &more);
    assert_int_equal(cf_op_error(more)->outcome, CF_NOT_APPLIED);
    cf_op_free(more);
    s->closed = cf_store_close(s->store, NULL); /* once more: it is under way */
    cf_op_free(op);
}

static void a_store_that_closes_takes_nothing_more(void **state)
{
    world *w = *state;
    static tb_log log;
    memset(&log, 0, sizeof log);
    spot   s = {0};
    cf_op *op;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &s.store, NULL));
    cf_submit(s.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = submit_while_closing, .user = &s), &op);
    assert_ok(cf_store_close(s.store, NULL));
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.status, CF_ECLOSED);
    assert_int_equal(s.submitted, CF_ECLOSED);
    assert_int_equal(s.closed, CF_OK);
    assert_int_equal(log.closes, 1);
}

static int close_in_slot(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)op;
    spot *s = user;
    if (s->calls++ == s->at) s->closed = cf_store_close(s->store, NULL);
    return CF_OK;
}

static void close_inside_a_slot_that_answers(void **state)
{
    world *w = *state;
    static tb_log log;
    memset(&log, 0, sizeof log);
    spot   s = {0};
    cf_op *op;
    assert_ok(tb_open(w->loop, TB_NOW, TB_FULL, &log, NULL, &s.store, NULL));
    ask_set(s.store, "a", "1");
    log.on_slot = close_in_slot;
    log.user = &s;
    assert_int_equal(cf_submit(s.store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_OK); /* its answer counts */
    assert_int_equal(s.closed, CF_OK);
    assert_true(cf_op_hit(op));
    assert_memory_equal(cf_op_value(op).ptr, "1", 1);
    assert_int_equal(log.closes, 1);
    assert_null(cf_op_store(op));
    cf_op_free(op);
}

static void close_inside_a_slot_that_pends(void **state)
{
    world *w = *state;
    static tb_log log;
    memset(&log, 0, sizeof log);
    spot   s = {0};
    seen   earlier = {0}, never = {0};
    cf_op *op;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &s.store, NULL));
    cf_op *first = pend(s.store, CF_OP_GET, &earlier);
    log.on_slot = close_in_slot;
    log.user = &s;
    int status = cf_submit(s.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .done = see, .user = &never), &op);
    assert_int_equal(status, CF_ECLOSED);
    assert_int_equal(cf_op_error(op)->outcome, CF_UNKNOWN);
    assert_int_equal(earlier.calls, 0); /* never inside submit */
    assert_int_equal(log.closes, 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(earlier.calls, 1);
    assert_int_equal(earlier.status, CF_ECLOSED);
    assert_int_equal(never.calls, 0);
    cf_op_free(first);
    cf_op_free(op);
}

static void close_inside_a_slot_of_a_composed_operation(void **state)
{
    world *w = *state;
    /* In the scan, or in the first delete of a clear; where that delete takes a lock it is composed itself. */
    for (int round = 0; round < 3 * 2 * 2; round++) {
        int      manner = round % 2 ? TB_PIPE : TB_NOW, kind = round / 4 ? CF_OP_CLEAR : CF_OP_COUNT;
        tb_slots slots = round / 2 % 2 ? TB_DERIVED_SCAN : TB_FULL;
        static tb_log log;
        memset(&log, 0, sizeof log);
        spot   s = {.at = round / 8};
        seen   watcher = {0};
        cf_op *op;
        const cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
        assert_ok(tb_open(w->loop, (tb_manner)manner, slots, &log, &options, &s.store, NULL));
        ask_set(s.store, "a", "1");
        ask_set(s.store, "b", "1");
        log.on_slot = close_in_slot;
        log.user = &s;
        int status = cf_submit(s.store, CF_REQUEST(kind, .done = see, .user = &watcher), &op);
        for (int i = 0; i < 100 && status == CF_PENDING; i++) {
            cf_loop_run(w->loop, 0);
            status = cf_op_status(op);
        }
        /* It may have had its answer before the close took effect; it must have finished, and once. */
        assert_true(status == CF_ECLOSED || (status == CF_OK && kind == CF_OP_COUNT));
        assert_true(watcher.calls <= 1);
        assert_int_equal(log.closes, 1);
        assert_null(cf_op_store(op));
        cf_op_free(op);
        assert_int_equal(cf_loop_pending(w->loop), 0);
    }
}

/* The answer comes from outside of the loop, as a promise's does; the next slot closes; and no run comes before the loop goes. */
static void a_finish_never_closes_under_its_backend(void **state)
{
    for (int freed = 0; freed < 2; freed++) {
        world *w = *state;
        static tb_log log;
        memset(&log, 0, sizeof log);
        spot     s = {.at = 1};
        seen     watcher = {0};
        cf_op   *op;
        cf_loop *loop;
        const cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
        assert_ok(cf_loop_new(cf_stage_platform(w->stage), &loop));
        assert_ok(tb_open(loop, TB_HAND, TB_FULL, &log, &options, &s.store, NULL));
        tb *t = tb_last();
        cf_submit(s.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op);
        tb_answer(t, 1);
        log.on_slot = close_in_slot;
        log.user = &s;
        assert_int_equal(cf_submit(s.store, CF_REQUEST(CF_OP_CLEAR, .done = see, .user = &watcher), &op), CF_PENDING);
        tb_answer(t, 1); /* the scan; the slot of the delete closes */
        assert_int_equal(s.calls, 2);
        assert_int_equal(log.closes, 0);
        assert_true(readable(loop));
        if (!freed) {
            assert_true(cf_loop_run(loop, 0) >= 0);
            assert_int_equal(log.closes, 1);
            assert_int_equal(watcher.calls, 1);
            assert_int_equal(watcher.status, CF_ECLOSED);
        }
        cf_loop_free(loop);
        assert_int_equal(log.closes, 1);
        assert_int_equal(watcher.calls, 1);
    }
}

static void close_while_a_composed_operation_lets_others_pass(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    seen      s = {0};
    cf_op    *op;
    for (int i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        ask_set(store, key, "v");
    }
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE, .done = see, .user = &s), &op), CF_PENDING);
    assert_ok(cf_store_close(store, NULL));
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.status, CF_ECLOSED);
    cf_loop_run(w->loop, 0);
    cf_op_free(op);
}

/* ---- opening that fails, closing that fails ---- */

static void a_backend_is_closed_when_opening_its_store_fails(void **state)
{
    world          *w = *state;
    char            long_prefix[CF_PREFIX_MAX + 2];
    cf_open_options options = {.size = sizeof options};
    memset(long_prefix, 'p', sizeof long_prefix);
    for (int how = 0; how < 9; how++) {
        static tb_log           log;
        memset(&log, 0, sizeof log);
        cf_store        *store = (cf_store *)w;
        cf_error         error = {0};
        cf_backend_table table = *tb_functions(TB_FULL);
        cf_open_options  o = options;
        if (how == 0) o.prefix = cf_bytes(long_prefix, CF_PREFIX_MAX + 1);
        if (how == 1) o.prefix = cf_text("a\nb");
        if (how == 2) o.ttl_ms = -1;
        if (how == 3) o.timeout_ms = CF_TIMEOUT_MAX + 1;
        if (how == 4) o.size = 1;
        if (how == 5) table.flags |= 1u << 20;
        if (how == 6) table.get = NULL;
        if (how == 7) table.name = NULL;
        if (how == 8) table.size = sizeof table - sizeof table.scan;
        tb *self = tb_new(w->loop, TB_PIPE, &log);
        assert_int_equal(cf_open_backend(w->loop, &table, tb_backend(self), &o, &store, &error), CF_EINVAL);
        assert_null(store);
        assert_int_equal(error.status, CF_EINVAL);
        assert_true(strlen(error.text) > 10);
        if (log.closes != 1) fail_msg("way %d: closed %d times", how, log.closes);
    }
    /* Without room for the store. */
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *store;
    tb       *self = tb_new(w->loop, TB_PIPE, &log);
    cf_stage_fail_allocation(w->stage, 1, false);
    assert_int_equal(cf_open_backend(w->loop, tb_functions(TB_FULL), tb_backend(self), NULL, &store, NULL), CF_ENOMEM);
    assert_null(store);
    assert_int_equal(log.closes, 1);
    cf_stage_fail_allocation(w->stage, 0, false);
}

static void what_close_answers_comes_back(void **state)
{
    world    *w = *state;
    cf_error  error;
    cf_store *store;
    for (int with_error = 0; with_error < 2; with_error++) {
        static tb_log log;
        log = (tb_log){.close_status = CF_EUNAVAILABLE};
        assert_ok(tb_open(w->loop, TB_NOW, TB_FULL, &log, NULL, &store, NULL));
        assert_int_equal(cf_store_close(store, with_error ? &error : NULL), CF_EUNAVAILABLE);
        assert_int_equal(log.closes, 1); /* and the store is gone */
    }
    assert_int_equal(error.status, CF_EUNAVAILABLE);
    assert_int_equal(error.outcome, CF_UNKNOWN);
    assert_string_equal(error.text, "The table did not want to close.");
    static tb_log log;
    log = (tb_log){.close_status = CF_EHOST};
    assert_ok(tb_open(w->loop, TB_NOW, TB_FULL, &log, NULL, &store, NULL));
    /* The loop closes what is open, whatever it answers: world_down sees that nothing is left. */
}

static int no_slot(cf_backend *self, cf_op *op)
{
    (void)self;
    cf_op_set_hit(op, false);
    return CF_OK;
}

static void a_backend_needs_no_more_than_three_functions(void **state)
{
    world                 *w = *state;
    const cf_backend_table table = {.size = sizeof table, .name = "three", .get = no_slot, .set = no_slot, .del = no_slot};
    cf_store              *store;
    assert_ok(cf_open_backend(w->loop, &table, NULL, NULL, &store, NULL));
    assert_miss(ask_get(store, "a"));
    assert_miss(ask_delete(store, "a"));
    assert_ok(cf_loop_flush(w->loop));
    assert_int_equal(stat_of(store, "operations"), 2);
    assert_ok(cf_store_close(store, NULL));
}

/* ---- a backend that closes from its other functions ---- */

enum { IN_NOTHING, IN_CANCEL, IN_FLUSH, IN_STATS };

typedef struct closer {
    cf_store *store, *other;
    int       where, closes;
    bool      inside;
} closer;

static void close_in(closer *c, int where)
{
    if (c->where != where) return;
    c->where = IN_NOTHING;
    c->inside = true;
    if (c->other) cf_store_close(c->other, NULL);
    cf_store_close(c->store, NULL);
    c->inside = false;
}

static int closer_slot(cf_backend *self, cf_op *op)
{
    (void)self;
    (void)op;
    return CF_PENDING;
}
static int closer_cancel(cf_backend *self, cf_op *op, int why)
{
    (void)op;
    (void)why;
    close_in((closer *)(void *)self, IN_CANCEL);
    return CF_UNKNOWN;
}
static void closer_flush(cf_backend *self) { close_in((closer *)(void *)self, IN_FLUSH); }
static void closer_stats(cf_backend *self, cf_stat_fn each, void *user)
{
    (void)each;
    (void)user;
    close_in((closer *)(void *)self, IN_STATS);
}
static int closer_close(cf_backend *self, cf_error *error)
{
    (void)error;
    closer *c = (closer *)(void *)self;
    assert_false(c->inside); /* when that function has returned */
    c->closes++;
    return CF_OK;
}

static const cf_backend_table closer_table = {.size = sizeof closer_table,
                                              .name = "closer",
                                              .get = closer_slot,
                                              .set = closer_slot,
                                              .del = closer_slot,
                                              .cancel = closer_cancel,
                                              .flush = closer_flush,
                                              .stats = closer_stats,
                                              .close = closer_close};

static void no_stat(void *user, const char *name, int64_t value)
{
    (void)user;
    (void)name;
    (void)value;
}

static void close_inside_its_other_functions(void **state)
{
    world *w = *state;
    enum { CANCEL, FREE, DEADLINE, FLUSH, STATS };
    for (int how = CANCEL; how <= STATS; how++) {
        for (int with_other = 0; with_other < 2; with_other++) {
            closer    c = {.where = how <= DEADLINE ? IN_CANCEL : how == FLUSH ? IN_FLUSH : IN_STATS};
            closer    others = {0}, last = {0};
            seen      s = {0}, rest = {0}, elsewhere = {0};
            cf_store *third;
            cf_op    *op;
            assert_ok(cf_open_backend(w->loop, &closer_table, (cf_backend *)(void *)&c, NULL, &c.store, NULL));
            assert_ok(cf_open_backend(w->loop, &closer_table, (cf_backend *)(void *)&others, NULL, &others.store, NULL));
            assert_ok(cf_open_backend(w->loop, &closer_table, (cf_backend *)(void *)&last, NULL, &third, NULL));
            if (with_other) c.other = others.store;
            cf_op *more = pend(c.store, CF_OP_GET, &rest), *far = pend(others.store, CF_OP_GET, &elsewhere);
            cf_submit(c.store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .done = see, .user = &s, .timeout_ms = 10), &op);
            if (how == CANCEL) assert_ok(cf_op_cancel(op));
            if (how == FREE) cf_op_free(op);
            if (how == DEADLINE) cf_stage_advance(w->stage, 10);
            if (how == STATS) assert_ok(cf_store_stats(c.store, no_stat, NULL));
            assert_true(cf_loop_run(w->loop, 0) >= 0);
            if (how == FLUSH) cf_loop_run(w->loop, 0);
            assert_int_equal(c.closes, 1);
            assert_int_equal(others.closes, with_other);
            assert_int_equal(last.closes, 0);
            assert_int_equal(s.calls, how != FREE);
            if (how != FREE) assert_int_equal(s.status, how == CANCEL ? CF_ECANCELED : how == DEADLINE ? CF_ETIMEOUT : CF_ECLOSED);
            assert_int_equal(rest.calls, 1);
            assert_int_equal(rest.status, CF_ECLOSED);
            assert_int_equal(elsewhere.calls, with_other);
            if (how != FREE) cf_op_free(op);
            cf_op_free(more);
            cf_op_free(far);
            if (!with_other) assert_ok(cf_store_close(others.store, NULL));
            assert_ok(cf_store_close(third, NULL));
        }
    }
}

/* `done` is never called inside a backend, also when that backend ends what belongs to another. */
typedef struct meddler {
    cf_store *other;
    cf_op    *op;
    seen     *watch[2];
} meddler;

static int meddle(tb *self, cf_op *op, void *user)
{
    meddler *m = user;
    (void)self;
    (void)op;
    assert_ok(cf_op_cancel(m->op));
    assert_int_equal(cf_op_status(m->op), CF_ECANCELED);
    assert_ok(cf_store_close(m->other, NULL));
    assert_int_equal(m->watch[0]->calls + m->watch[1]->calls, 0);
    return CF_OK;
}

static void what_a_slot_ends_is_done_later(void **state)
{
    world        *w = *state;
    static tb_log log, other_log;
    memset(&log, 0, sizeof log);
    memset(&other_log, 0, sizeof other_log);
    cf_store *store;
    seen      s = {0}, t = {0};
    meddler   m = {.watch = {&s, &t}};
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &other_log, NULL, &m.other, NULL));
    assert_ok(tb_open(w->loop, TB_NOW, TB_FULL, &log, NULL, &store, NULL));
    m.op = pend(m.other, CF_OP_GET, &s);
    cf_op *left = pend(m.other, CF_OP_GET, &t);
    log.on_slot = meddle;
    log.user = &m;
    assert_miss(ask_get(store, "a"));
    assert_int_equal(s.calls + t.calls, 0); /* nor inside submit */
    assert_int_equal(other_log.closes, 1);
    assert_true(readable(w->loop));
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.status, CF_ECANCELED);
    assert_int_equal(t.status, CF_ECLOSED);
    assert_int_equal(s.calls + t.calls, 2);
    cf_op_free(m.op);
    cf_op_free(left);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(what_pends_is_closed_first),
        WORLD(freeing_the_loop_calls_done),
        WORLD(close_inside_done),
        WORLD(a_store_that_closes_takes_nothing_more),
        WORLD(close_inside_a_slot_that_answers),
        WORLD(close_inside_a_slot_that_pends),
        WORLD(close_inside_a_slot_of_a_composed_operation),
        WORLD(a_finish_never_closes_under_its_backend),
        WORLD(close_while_a_composed_operation_lets_others_pass),
        WORLD(close_inside_its_other_functions),
        WORLD(what_a_slot_ends_is_done_later),
        WORLD(a_backend_is_closed_when_opening_its_store_fails),
        WORLD(what_close_answers_comes_back),
        WORLD(a_backend_needs_no_more_than_three_functions),
    };
    hang_guard(60);
    return cmocka_run_group_tests_name("close", tests, NULL, NULL);
}
