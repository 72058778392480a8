/* What a backend lacks and its author lets us derive: atomic all the same, under a lock per key that stores over the same data share. */
#include "support.h"

#include <pthread.h>
#include <string.h>

static tb_log log_one, log_two;

static void open_pair(cf_loop *first, cf_loop *second, tb_manner manner, cf_store **one, cf_store **two, tb **t1, tb **t2)
{
    memset(&log_one, 0, sizeof log_one);
    memset(&log_two, 0, sizeof log_two);
    *t1 = tb_new(first, manner, &log_one);
    *t2 = tb_share(*t1, second, manner, &log_two);
    assert_ok(cf_open_backend(first, tb_functions(TB_DERIVED), tb_backend(*t1), NULL, one, NULL));
    assert_ok(cf_open_backend(second, tb_functions(TB_DERIVED), tb_backend(*t2), NULL, two, NULL));
}

static cf_op *submit(cf_store *store, int kind, const char *key, int64_t timeout_ms)
{
    cf_op *op;
    assert_int_equal(cf_submit(store, CF_REQUEST(kind, .key = cf_text(key), .value = cf_text("v"), .by = 1, .timeout_ms = timeout_ms), &op),
                     CF_PENDING);
    return op;
}

static void settle(cf_loop *loop, tb *t, cf_op *op)
{
    for (int i = 0; cf_op_status(op) == CF_PENDING; i++) {
        assert_true(i < 100);
        tb_answer(t, 1);
        assert_true(cf_loop_run(loop, 0) >= 0);
    }
}

static void writes_of_one_key_go_one_after_the_other(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
    cf_op *set = submit(one, CF_OP_SET, "a", 0);
    cf_op *pop1 = submit(one, CF_OP_POP, "a", 0), *pop2 = submit(two, CF_OP_POP, "a", 0), *other = submit(two, CF_OP_SET, "b", 0);
    /* Only the holder of the lock and the other key have reached the backend. */
    assert_int_equal(tb_pending(t1), 1);
    assert_int_equal(tb_pending(t2), 1);
    settle(w->loop, t2, other);
    assert_int_equal(cf_op_status(set), CF_PENDING);
    settle(w->loop, t1, set);
    settle(w->loop, t1, pop1);
    assert_true(cf_op_hit(pop1));
    settle(w->loop, t2, pop2);
    assert_int_equal(cf_op_status(pop2), CF_OK);
    assert_false(cf_op_hit(pop2));
    cf_op_free(set);
    cf_op_free(pop1);
    cf_op_free(pop2);
    cf_op_free(other);
}

static void reads_need_no_lock(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
    cf_op *pop = submit(one, CF_OP_POP, "a", 0), *get = submit(two, CF_OP_GET, "a", 0);
    assert_int_equal(tb_pending(t2), 1);
    settle(w->loop, t2, get);
    assert_int_equal(cf_op_status(pop), CF_PENDING);
    cf_op_free(get);
    cf_op_free(pop);
}

static void a_waiter_whose_deadline_passes_was_never_applied(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
    cf_op *holder = submit(one, CF_OP_INCR, "a", 60000);
    cf_op *short_of_time = submit(two, CF_OP_SET, "a", 10), *patient = submit(two, CF_OP_SET, "a", 60000);
    cf_stage_advance(w->stage, 10);
    assert_int_equal(cf_op_wait(short_of_time), CF_ETIMEOUT);
    assert_int_equal(cf_op_error(short_of_time)->outcome, CF_NOT_APPLIED); /* it only waited */
    assert_int_equal(log_two.cancels, 0); /* the backend has never heard of it */
    settle(w->loop, t1, holder);
    settle(w->loop, t2, patient);
    assert_int_equal(cf_op_status(patient), CF_OK);
    cf_op_free(holder);
    cf_op_free(short_of_time);
    cf_op_free(patient);
}

/* What is with the backend may arrive late. Were the key free by then, one value would have two winners. */
static void a_late_write_brings_back_nothing(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
    cf_op *set = submit(one, CF_OP_SET, "a", 0);
    settle(w->loop, t1, set);
    cf_op *touch;
    assert_int_equal(cf_submit(one, CF_REQUEST(CF_OP_TOUCH, .key = cf_text("a"), .flags = CF_TTL, .ttl_ms = 60000, .timeout_ms = 10), &touch),
                     CF_PENDING);
    tb_answer(t1, 1); /* its get; its set is under way now */
    cf_op *pop1 = submit(two, CF_OP_POP, "a", 60000), *pop2 = submit(two, CF_OP_POP, "a", 60000);
    cf_stage_advance(w->stage, 10);
    assert_int_equal(cf_op_wait(touch), CF_ETIMEOUT);
    assert_int_equal(cf_op_error(touch)->outcome, CF_UNKNOWN);
    cf_op_free(touch);
    cf_loop_run(w->loop, 0);
    assert_int_equal(tb_pending(t2), 0); /* no pop has reached the backend yet */
    assert_int_equal(tb_pending(t1), 1);
    tb_answer(t1, 1); /* the late set */
    settle(w->loop, t2, pop1);
    assert_true(cf_op_hit(pop1));
    settle(w->loop, t2, pop2);
    assert_int_equal(cf_op_status(pop2), CF_OK);
    assert_false(cf_op_hit(pop2));
    /* And one that never settles ends with the store. */
    cf_op *lost = submit(one, CF_OP_SET, "a", 10), *after = submit(two, CF_OP_SET, "a", 20);
    cf_stage_advance(w->stage, 10);
    assert_int_equal(cf_op_wait(lost), CF_ETIMEOUT);
    cf_op_cancel(after);
    assert_int_equal(cf_op_error(after)->outcome, CF_NOT_APPLIED);
    cf_store_close(one, NULL);
    assert_int_equal(log_one.cancels, 1);
    cf_op *free_again = submit(two, CF_OP_SET, "a", 60000);
    settle(w->loop, t2, free_again);
    assert_int_equal(cf_op_status(free_again), CF_OK);
    cf_op_free(set);
    cf_op_free(pop1);
    cf_op_free(pop2);
    cf_op_free(lost);
    cf_op_free(after);
    cf_op_free(free_again);
}

/* The lock came before the deadline was judged: it counts as what has arrived. */
static void a_lock_that_came_in_time_is_used(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    cf_op    *waiter;
    memset(&log_one, 0, sizeof log_one);
    memset(&log_two, 0, sizeof log_two);
    tb *slow = tb_new(w->loop, TB_HAND, &log_one), *quick = tb_share(slow, w->loop, TB_NOW, &log_two);
    assert_ok(cf_open_backend(w->loop, tb_functions(TB_DERIVED), tb_backend(slow), NULL, &one, NULL));
    assert_ok(cf_open_backend(w->loop, tb_functions(TB_DERIVED), tb_backend(quick), NULL, &two, NULL));
    cf_op *holder = submit(one, CF_OP_SET, "a", 60000);
    waiter = submit(two, CF_OP_POP, "a", 10);
    tb_answer(slow, 1);
    cf_stage_advance(w->stage, 10);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(holder), CF_OK);
    assert_int_equal(cf_op_status(waiter), CF_OK);
    assert_true(cf_op_hit(waiter));
    cf_op_free(holder);
    cf_op_free(waiter);
}

static void a_holder_that_ends_early_hands_the_lock_on(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    for (int how = 0; how < 4; how++) {
        open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
        cf_op *holder = submit(one, CF_OP_POP, "a", 10), *waiter = submit(two, CF_OP_SET, "a", 60000);
        assert_int_equal(tb_pending(t2), 0);
        if (how == 0) {
            cf_stage_advance(w->stage, 10);
            assert_int_equal(cf_op_wait(holder), CF_ETIMEOUT);
        } else if (how == 1) {
            assert_ok(cf_op_cancel(holder));
        } else if (how == 2) {
            cf_op_free(holder);
            holder = NULL;
        } else {
            assert_ok(cf_store_close(one, NULL));
            one = NULL;
            assert_int_equal(cf_op_status(holder), CF_ECLOSED);
        }
        if (how < 3) assert_int_equal(log_one.cancels, 1);
        assert_true(readable(w->loop)); /* the waiter's loop is woken */
        settle(w->loop, t2, waiter);
        assert_int_equal(cf_op_status(waiter), CF_OK);
        cf_op_free(holder);
        cf_op_free(waiter);
        if (one) assert_ok(cf_store_close(one, NULL));
        assert_ok(cf_store_close(two, NULL));
    }
}

static void waiters_may_leave_in_any_manner(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    rng       random = {seed_of_run()};
    for (int round = 0; round < 200; round++) {
        open_pair(w->loop, w->loop, TB_HAND, &one, &two, &t1, &t2);
        cf_op *ops[12];
        int    count = 2 + (int)rng_below(&random, 10);
        for (int i = 0; i < count; i++) ops[i] = submit(rng_below(&random, 2) ? one : two, i % 2 ? CF_OP_INCR : CF_OP_POP, "a", 60000);
        for (int left = count; left;) {
            int i = (int)rng_below(&random, (uint64_t)count);
            switch (rng_below(&random, 5)) {
            case 0:
                if (ops[i]) cf_op_free(ops[i]), ops[i] = NULL, left--;
                break;
            case 1:
                if (ops[i] && cf_op_status(ops[i]) == CF_PENDING) cf_op_cancel(ops[i]);
                break;
            case 2: tb_answer(t1, 1); break;
            case 3: tb_answer(t2, 1); break;
            default: assert_true(cf_loop_run(w->loop, 0) >= 0); break;
            }
        }
        assert_int_equal(cf_loop_pending(w->loop), 0);
        while (tb_answer(t1, 1) + tb_answer(t2, 1)) {} /* writes whose callers have left keep the lock until they are answered */
        cf_op *last = submit(one, CF_OP_SET, "a", 0); /* nobody holds the lock */
        settle(w->loop, t1, last);
        assert_int_equal(cf_op_status(last), CF_OK);
        cf_op_free(last);
        assert_ok(cf_store_close(one, NULL));
        assert_ok(cf_store_close(two, NULL));
    }
}

static void a_loop_that_is_freed_leaves_the_queue(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    cf_loop  *other;
    assert_ok(cf_loop_new(cf_stage_platform(w->stage), &other));
    open_pair(w->loop, other, TB_HAND, &one, &two, &t1, &t2);
    cf_op *holder = submit(one, CF_OP_POP, "a", 0);
    submit(two, CF_OP_SET, "a", 0);
    cf_loop_free(other);
    settle(w->loop, t1, holder);
    assert_int_equal(cf_op_status(holder), CF_OK);
    cf_op_free(holder);
}

static void the_lock_does_not_outlast_an_error(void **state)
{
    world    *w = *state;
    cf_store *one, *two;
    tb       *t1, *t2;
    open_pair(w->loop, w->loop, TB_NOW, &one, &two, &t1, &t2);
    ask_set(one, "a", "no number");
    assert_int_equal(ask(one, CF_REQUEST(CF_OP_INCR, .key = cf_text("a"), .by = 1)).status, CF_EINVAL);
    assert_true(ask_set(two, "a", "1").hit);
    for (uint64_t nth = 1;; nth++) { /* nor an allocation that fails */
        cf_stage_fail_allocation(w->stage, nth, false);
        int status = ask(one, CF_REQUEST(CF_OP_INCR, .key = cf_text("a"), .by = 1)).status;
        bool failed = cf_stage_failed(w->stage);
        cf_stage_fail_allocation(w->stage, 0, false);
        assert_int_equal(status, failed ? CF_ENOMEM : CF_OK);
        assert_int_equal(ask_set(two, "a", "1").status, CF_OK);
        if (!failed) break;
    }
}

/* A clear that fell between the get and the set of a touch would find its key back. */
static void a_clear_waits_for_the_lock_like_every_write(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *clear, *touch, *get;
    const cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_DERIVED_SCAN, &log, &options, &store, NULL));
    tb    *t = tb_last();
    cf_op *set = submit(store, CF_OP_SET, "a", 0);
    settle(w->loop, t, set);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_CLEAR), &clear), CF_PENDING);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_TOUCH, .key = cf_text("a"), .flags = CF_TTL, .ttl_ms = 60000), &touch), CF_PENDING);
    settle(w->loop, t, clear);
    settle(w->loop, t, touch);
    assert_int_equal(cf_op_status(clear), CF_OK);
    assert_int_equal(cf_op_number(clear), 1);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &get), CF_PENDING);
    settle(w->loop, t, get);
    assert_int_equal(cf_op_status(get), CF_OK);
    assert_false(cf_op_hit(get));
    cf_op_free(set);
    cf_op_free(clear);
    cf_op_free(touch);
    cf_op_free(get);
}

/* A clear that waits for a lock, or whose delete is on its way, can be ended like any other. */
static void a_clear_that_waits_may_end_in_any_manner(void **state)
{
    world *w = *state;
    for (int how = 0; how < 4; how++) {
        for (int answered = 0; answered < 4; answered++) {
            static tb_log log;
            cf_store     *store;
            cf_op        *clear, *holder;
            seen          s = {0};
            const cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
            memset(&log, 0, sizeof log);
            assert_ok(tb_open(w->loop, TB_HAND, TB_DERIVED_SCAN, &log, &options, &store, NULL));
            tb    *t = tb_last();
            cf_op *set = submit(store, CF_OP_SET, "a", 0);
            settle(w->loop, t, set);
            assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_CLEAR, .timeout_ms = 10, .done = see, .user = &s), &clear), CF_PENDING);
            holder = submit(store, CF_OP_POP, "a", 60000);
            for (int i = 0; i < answered; i++) {
                tb_answer(t, 1);
                cf_loop_run(w->loop, 0);
            }
            assert_int_equal(cf_op_status(clear), CF_PENDING);
            if (how == 0) {
                cf_stage_advance(w->stage, 10);
                assert_int_equal(cf_op_wait(clear), CF_ETIMEOUT);
            } else if (how == 1) {
                assert_ok(cf_op_cancel(clear));
            } else if (how == 2) {
                cf_op_free(clear);
                clear = NULL;
            } else {
                assert_ok(cf_store_close(store, NULL));
                store = NULL;
                assert_int_equal(cf_op_status(clear), CF_ECLOSED);
            }
            assert_int_equal(s.calls, how == 2 ? 0 : 1);
            if (store) {
                settle(w->loop, t, holder);
                assert_true(cf_op_hit(holder));
                assert_ok(cf_store_close(store, NULL));
            }
            assert_int_equal(cf_loop_pending(w->loop), 0);
            cf_op_free(set);
            cf_op_free(clear);
            cf_op_free(holder);
        }
    }
}

/* A counter that expires between the get and the set begins anew, with the life that was asked for and not for ever. */
static void a_derived_counter_never_loses_its_expiry(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *op;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_DERIVED, &log, NULL, &store, NULL));
    tb *t = tb_last();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1, .flags = CF_TTL, .ttl_ms = 1000), &op), CF_PENDING);
        tb_answer(t, 1);
        if (i == 1) cf_stage_advance(w->stage, 1000);
        settle(w->loop, t, op);
        assert_int_equal(cf_op_status(op), CF_OK);
        cf_op_free(op);
    }
    cf_stage_advance(w->stage, 1000);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("n")), &op), CF_PENDING);
    settle(w->loop, t, op);
    assert_int_equal(cf_op_status(op), CF_OK);
    assert_false(cf_op_hit(op));
    cf_op_free(op);
}

/* ---- two loops in two threads ---- */

typedef struct contender {
    cf_loop  *loop;
    cf_store *store;
    uint64_t  got, timeouts, rounds;
} contender;

static void *count_up(void *user)
{
    contender *c = user;
    for (uint64_t i = 0; i < c->rounds; i++) {
        answer a = ask(c->store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1, .timeout_ms = 60000));
        if (a.status != CF_OK) abort();
        a = ask_pop(c->store, "prize");
        if (a.status != CF_OK) abort();
        c->got += a.hit;
        a = ask(c->store, CF_REQUEST(CF_OP_SET, .key = cf_text("prize"), .value = cf_text("1"), .flags = CF_IF_ABSENT));
        if (a.status != CF_OK) abort();
        c->timeouts += a.hit; /* prizes put out */
    }
    return NULL;
}

static void contend(tb_manner manner)
{
    contender both[2];
    tb       *first = NULL;
    pthread_t threads[2];
    memset(&log_one, 0, sizeof log_one);
    memset(&log_two, 0, sizeof log_two);
    for (int i = 0; i < 2; i++) {
        both[i] = (contender){.rounds = env_number("CF_DERIVE", 4000)};
        assert_ok(cf_loop_new(NULL, &both[i].loop));
        tb *t = i ? tb_share(first, both[i].loop, manner, &log_two) : tb_new(both[i].loop, manner, &log_one);
        if (!i) first = t;
        assert_ok(cf_open_backend(both[i].loop, tb_functions(TB_DERIVED), tb_backend(t), NULL, &both[i].store, NULL));
    }
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, count_up, &both[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    char wanted[32];
    snprintf(wanted, sizeof wanted, "%llu", (unsigned long long)both[0].rounds * 2);
    assert_value(ask_get(both[1].store, "n"), wanted);
    uint64_t put_out = both[0].timeouts + both[1].timeouts, got = both[0].got + both[1].got;
    assert_int_equal(put_out, got + (ask_get(both[0].store, "prize").hit ? 1 : 0)); /* each had exactly one winner */
    for (int i = 0; i < 2; i++) cf_loop_free(both[i].loop);
}

static void two_threads_lose_no_update(void **state)
{
    (void)state;
    contend(TB_NOW);
    contend(TB_PIPE);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(writes_of_one_key_go_one_after_the_other),
        WORLD(reads_need_no_lock),
        WORLD(a_waiter_whose_deadline_passes_was_never_applied),
        WORLD(a_late_write_brings_back_nothing),
        WORLD(a_lock_that_came_in_time_is_used),
        WORLD(a_holder_that_ends_early_hands_the_lock_on),
        WORLD(waiters_may_leave_in_any_manner),
        WORLD(a_loop_that_is_freed_leaves_the_queue),
        WORLD(the_lock_does_not_outlast_an_error),
        WORLD(a_clear_waits_for_the_lock_like_every_write),
        WORLD(a_clear_that_waits_may_end_in_any_manner),
        WORLD(a_derived_counter_never_loses_its_expiry),
        cmocka_unit_test(two_threads_lose_no_update),
    };
    hang_guard(90);
    return cmocka_run_group_tests_name("derive", tests, NULL, NULL);
}
