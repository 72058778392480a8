/* The loop: one descriptor, deadlines, wake-ups, watches. */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static void idle_is_not_readable(void **state)
{
    world *w = *state;
    assert_true(cf_loop_fd(w->loop) >= 0);
    assert_false(readable(w->loop));
    assert_int_equal(cf_loop_run(w->loop, 0), 0);
    assert_int_equal(cf_loop_pending(w->loop), 0);
    cf_store *store = open_url(w->loop, "memory:");
    assert_true(ask_set(store, "a", "1").hit);
    assert_false(readable(w->loop));
    assert_ok(cf_loop_flush(w->loop));
    assert_ok(cf_store_close(store, NULL));
}

static void a_platform_of_another_size_is_refused(void **state)
{
    (void)state;
    cf_platform platform = *cf_platform_real();
    cf_loop    *loop = (cf_loop *)&platform;
    platform.size--;
    assert_int_equal(cf_loop_new(&platform, &loop), CF_EINVAL);
    assert_null(loop);
}

static void wake_makes_readable_until_run(void **state)
{
    world *w = *state;
    int    fd = cf_loop_fd(w->loop);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i <= round; i++) assert_ok(cf_loop_wake(w->loop));
        assert_true(readable(w->loop));
        assert_true(readable(w->loop)); /* level-triggered */
        assert_int_equal(cf_loop_run(w->loop, -1), 0);
        assert_false(readable(w->loop));
    }
    assert_int_equal(cf_loop_fd(w->loop), fd);
}

static void *wake_soon(void *user)
{
    usleep(20000);
    cf_loop_wake(user);
    return NULL;
}

static void wake_from_another_thread_ends_a_wait(void **state)
{
    world    *w = *state;
    pthread_t thread;
    pthread_create(&thread, NULL, wake_soon, w->loop);
    assert_int_equal(cf_loop_run(w->loop, -1), 0);
    pthread_join(thread, NULL);
}

static void a_finish_makes_readable_until_done_was_called(void **state)
{
    world   *w = *state;
    static tb_log   log;
    memset(&log, 0, sizeof log);
    seen     s = {0};
    cf_store *store;
    cf_op   *op;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    tb *table = tb_last();
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = see, .user = &s), &op), CF_PENDING);
    assert_int_equal(cf_loop_pending(w->loop), 1);
    assert_int_equal(cf_loop_run(w->loop, 0), 0);
    assert_false(readable(w->loop));
    assert_int_equal(tb_answer(table, 1), 1);
    assert_int_equal(s.calls, 0); /* never inside a backend */
    assert_true(readable(w->loop));
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 1);
    assert_ptr_equal(s.op, op);
    assert_int_equal(s.status, CF_OK);
    assert_int_equal(cf_loop_pending(w->loop), 0);
    assert_false(readable(w->loop));
    cf_loop_run(w->loop, 0);
    assert_int_equal(s.calls, 1);
    cf_op_free(op);
    assert_ok(cf_store_close(store, NULL));
}

static void run_returns_how_many_finished(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *store;
    cf_op    *ops[5];
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &ops[i]), CF_PENDING);
    }
    assert_int_equal(cf_loop_run(w->loop, -1), 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cf_op_status(ops[i]), CF_OK);
        cf_op_free(ops[i]);
    }
    assert_ok(cf_store_close(store, NULL));
}

static void a_batch_leaves_the_rest_for_the_next_run(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    seen      s[7] = {{0}};
    cf_store *store;
    cf_op    *ops[7];
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    for (int i = 0; i < 7; i++)
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = see, .user = &s[i]), &ops[i]), CF_PENDING);
    cf_loop_set_batch(w->loop, 2);
    assert_int_equal(tb_answer(tb_last(), 5), 5);
    for (int told = 2; told <= 6; told += 2) {
        if (told == 4) { /* what finishes later is told later; and who waits no more is passed over */
            assert_int_equal(tb_answer(tb_last(), 2), 2);
            cf_op_free(ops[3]);
            s[3].calls = 1;
            told++;
        }
        assert_true(readable(w->loop));
        assert_true(cf_loop_run(w->loop, 0) >= 0);
        for (int i = 0; i < 7; i++) assert_int_equal(s[i].calls, i < told);
    }
    assert_true(readable(w->loop));
    cf_loop_set_batch(w->loop, 0);
    cf_loop_run(w->loop, 0);
    for (int i = 0; i < 7; i++) assert_int_equal(s[i].calls, 1);
    assert_false(readable(w->loop));
    for (int i = 0; i < 7; i++)
        if (i != 3) cf_op_free(ops[i]);
    assert_ok(cf_store_close(store, NULL));
}

static void a_loop_that_is_freed_tells_all_whatever_its_batch_is(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    seen      s[3] = {{0}};
    cf_store *store;
    cf_op    *op;
    cf_loop  *loop;
    assert_ok(cf_loop_new(cf_stage_platform(w->stage), &loop));
    assert_ok(tb_open(loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    for (int i = 0; i < 3; i++)
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = see, .user = &s[i]), &op), CF_PENDING);
    cf_loop_set_batch(loop, 1);
    assert_int_equal(tb_answer(tb_last(), 3), 3);
    cf_loop_free(loop);
    for (int i = 0; i < 3; i++) assert_int_equal(s[i].calls, 1);
}

/* ---- deadlines ---- */

static void a_deadline_to_the_millisecond(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    seen      get = {0}, set = {0};
    cf_store *store;
    cf_op    *a, *b;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    tb *table = tb_last();
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100, .done = see, .user = &get), &a);
    cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .timeout_ms = 101, .done = see, .user = &set), &b);
    uint64_t ticket = cf_op_ticket(a);
    cf_stage_advance(w->stage, 99);
    assert_int_equal(cf_loop_run(w->loop, 0), 0);
    assert_false(readable(w->loop));
    cf_stage_advance(w->stage, 1);
    assert_true(readable(w->loop));
    assert_int_equal(cf_loop_run(w->loop, 0), 1);
    assert_int_equal(get.calls, 1);
    assert_int_equal(get.status, CF_ETIMEOUT);
    assert_int_equal(get.outcome, CF_NOT_APPLIED); /* a failed read never applied */
    assert_int_equal(set.calls, 0);
    assert_null(cf_loop_op(w->loop, ticket));
    assert_int_equal(log.cancels, 1);
    assert_false(readable(w->loop));
    cf_stage_advance(w->stage, 1);
    assert_true(readable(w->loop));
    assert_int_equal(cf_loop_run(w->loop, -1), 1);
    assert_int_equal(set.status, CF_ETIMEOUT);
    assert_int_equal(set.outcome, CF_UNKNOWN);
    assert_int_equal(stat_of(store, "timeouts"), 2);
    assert_int_equal(stat_of(store, "errors"), 2);
    assert_int_equal(stat_of(store, "pending"), 0);
    assert_int_equal(tb_pending(table), 0);
    cf_op_free(a);
    cf_op_free(b);
    assert_ok(cf_store_close(store, NULL));
}

static void the_default_timeout_is_five_seconds(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *plain, *own;
    cf_op    *a, *b;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &plain, NULL));
    const cf_open_options options = {.size = sizeof options, .timeout_ms = 70};
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, &options, &own, NULL));
    cf_submit(plain, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &a);
    cf_submit(own, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &b);
    cf_stage_advance(w->stage, 69);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(b), CF_PENDING);
    cf_stage_advance(w->stage, 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(b), CF_ETIMEOUT);
    cf_stage_advance(w->stage, 4929);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(a), CF_PENDING);
    cf_stage_advance(w->stage, 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(a), CF_ETIMEOUT);
    cf_op_free(a);
    cf_op_free(b);
}

static void deadlines_pass_in_their_order(void **state)
{
    world *w = *state;
    enum { COUNT = 400 };
    static cf_op *ops[COUNT];
    int64_t   due[COUNT];
    static tb_log    log;
    memset(&log, 0, sizeof log);
    rng       random = {seed_of_run()};
    cf_store *store;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    tb *table = tb_last();
    for (int i = 0; i < COUNT; i++) {
        due[i] = 1 + (int64_t)rng_below(&random, 1000);
        cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = due[i]), &ops[i]);
    }
    for (int i = 0; i < COUNT; i += 3) { /* those in the middle of the heap leave early, in every manner */
        if (i % 2) cf_op_cancel(ops[i]);
        else if (i % 4) cf_op_finish(ops[i], CF_OK);
        else cf_op_free(ops[i]), ops[i] = NULL;
    }
    int64_t now = 0;
    while (cf_loop_pending(w->loop)) {
        int64_t step = 1 + (int64_t)rng_below(&random, 60);
        cf_stage_advance(w->stage, step);
        now += step;
        cf_loop_run(w->loop, 0);
        for (int i = 0; i < COUNT; i++) {
            if (i % 3) assert_int_equal(cf_op_status(ops[i]), due[i] <= now ? CF_ETIMEOUT : CF_PENDING);
        }
    }
    assert_true(now >= 900);
    for (int i = 0; i < COUNT; i++) cf_op_free(ops[i]);
    (void)table;
    assert_ok(cf_store_close(store, NULL));
}

static void what_arrived_is_handled_before_deadlines_are_judged(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *store;
    cf_op    *answered, *late;
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
    cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("1"), .timeout_ms = 100), &answered);
    assert_ok(cf_loop_flush(w->loop)); /* the answer is in the pipe, and then the process is stopped for a day */
    cf_stage_advance(w->stage, 86400000);
    assert_int_equal(cf_loop_run(w->loop, 0), 1);
    assert_int_equal(cf_op_status(answered), CF_OK);
    cf_store *mute;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &mute, NULL));
    cf_submit(mute, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100), &late);
    cf_stage_advance(w->stage, 86400000);
    assert_int_equal(cf_loop_run(w->loop, 0), 1);
    assert_int_equal(cf_op_status(late), CF_ETIMEOUT);
    cf_op_free(answered);
    cf_op_free(late);
}

/* Also where more arrived than the poller hands over at once. */
static void all_that_arrived_is_handled_before_deadlines_are_judged(void **state)
{
    world        *w = *state;
    enum { COUNT = 200 };
    static tb_log log;
    static cf_op *ops[COUNT];
    memset(&log, 0, sizeof log);
    for (int i = 0; i < COUNT; i++) {
        cf_store *store;
        assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100), &ops[i]), CF_PENDING);
    }
    assert_ok(cf_loop_flush(w->loop));
    cf_stage_advance(w->stage, 86400000);
    assert_int_equal(cf_loop_run(w->loop, 0), COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(cf_op_status(ops[i]), CF_OK);
        cf_op_free(ops[i]);
    }
}

static void a_deadline_ends_a_wait_on_the_real_machine(void **state)
{
    (void)state;
    cf_loop  *loop;
    cf_store *store;
    cf_op    *op;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    assert_ok(cf_loop_new(NULL, &loop));
    assert_ok(tb_open(loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 20), &op);
    assert_int_equal(cf_op_wait_for(op, 0), CF_PENDING);
    assert_int_equal(cf_op_wait(op), CF_ETIMEOUT);
    assert_int_equal(cf_op_wait(op), CF_ETIMEOUT); /* again: it has finished */
    cf_op_free(op);
    assert_int_equal(cf_loop_run(loop, 5), 0);
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 86400000), &op);
    assert_int_equal(cf_op_wait_for(op, 5), CF_PENDING);
    cf_loop_free(loop);
    assert_int_equal(log.closes, 1);
}

static void the_wall_clock_moves_no_deadline(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *store;
    cf_op    *op;
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100), &op);
    cf_stage_step_wall(w->stage, 86400000);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(op), CF_PENDING);
    cf_stage_step_wall(w->stage, -10 * INT64_C(86400000));
    cf_stage_advance(w->stage, 100);
    cf_loop_run(w->loop, 0);
    assert_int_equal(cf_op_status(op), CF_ETIMEOUT);
    cf_op_free(op);
}

/* ---- re-entry ---- */

static int inside = 1;

static void run_inside(cf_op *op, void *user)
{
    (void)user;
    inside = cf_loop_run(cf_store_loop(cf_op_store(op)), 0);
}

static int run_in_slot(tb *self, cf_op *op, void *user)
{
    (void)self;
    *(int *)user = cf_loop_run(cf_op_loop(op), 0);
    return CF_OK;
}

static void run_inside_itself_is_refused(void **state)
{
    world    *w = *state;
    static tb_log    log;
    memset(&log, 0, sizeof log);
    cf_store *store;
    cf_op    *op;
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
    inside = 1;
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = run_inside), &op);
    assert_int_equal(cf_op_wait(op), CF_OK);
    assert_int_equal(inside, CF_EINVAL);
    cf_op_free(op);

    int in_slot = 1;
    log.on_slot = run_in_slot;
    log.user = &in_slot;
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op);
    assert_int_equal(in_slot, CF_EINVAL);
    assert_int_equal(cf_op_wait(op), CF_OK);
    cf_op_free(op);
}

/* ---- watches ---- */

typedef struct watcher {
    cf_loop  *loop;
    cf_watch *watch, *other;
    int       calls, fd, rerun;
    unsigned  events;
    enum { NOTHING, FREE_ITSELF, FREE_OTHER, RERUN } then;
} watcher;

static void watched(void *user, unsigned events)
{
    watcher *me = user;
    me->calls++;
    me->events = events;
    if (me->then == FREE_ITSELF) {
        cf_watch_free(me->watch);
        me->watch = NULL;
    }
    if (me->then == FREE_OTHER) {
        cf_watch_free(me->other);
        me->other = NULL;
    }
    if (me->then == RERUN) me->rerun = cf_loop_run(me->loop, 0);
}

static void a_watch_is_level_triggered(void **state)
{
    world  *w = *state;
    int     fds[2];
    watcher me = {.loop = w->loop};
    char    byte;
    assert_int_equal(pipe(fds), 0);
    assert_ok(cf_watch_new(w->loop, fds[0], CF_READABLE, watched, &me, &me.watch));
    assert_int_equal(cf_loop_run(w->loop, 0), 0);
    assert_int_equal(me.calls, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_true(readable(w->loop));
    cf_loop_run(w->loop, -1);
    cf_loop_run(w->loop, -1);
    assert_int_equal(me.calls, 2);
    assert_int_equal(me.events, CF_READABLE);
    assert_ok(cf_watch_set(me.watch, 0));
    assert_false(readable(w->loop));
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 2);
    assert_ok(cf_watch_set(me.watch, CF_READABLE));
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 3);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 3);
    close(fds[1]); /* a hang-up is something to read */
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 4);
    assert_true(me.events & CF_READABLE);
    cf_watch_free(me.watch);
    close(fds[0]);
    assert_false(readable(w->loop));
    cf_watch_free(NULL);
}

static void a_watch_for_writing(void **state)
{
    world  *w = *state;
    int     fds[2];
    watcher me = {.loop = w->loop};
    assert_int_equal(pipe(fds), 0);
    assert_ok(cf_watch_new(w->loop, fds[1], CF_WRITABLE, watched, &me, &me.watch));
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 1);
    assert_int_equal(me.events, CF_WRITABLE);
    cf_watch_free(me.watch);
    close(fds[0]);
    close(fds[1]);
}

static void a_watch_may_be_freed_in_its_own_function(void **state)
{
    world  *w = *state;
    int     fds[2];
    watcher me = {.loop = w->loop, .then = FREE_ITSELF};
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_ok(cf_watch_new(w->loop, fds[0], CF_READABLE, watched, &me, &me.watch));
    cf_loop_run(w->loop, 0);
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.calls, 1);
    close(fds[0]);
    close(fds[1]);
}

static void a_freed_watch_is_not_called_though_both_were_ready(void **state)
{
    world *w = *state;
    int    fds[2][2];
    /* Whichever of the two is called first frees the other; then exactly one call must have happened. */
    watcher one = {.loop = w->loop, .then = FREE_OTHER}, two = {.loop = w->loop, .then = FREE_OTHER};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe(fds[i]), 0);
        assert_int_equal(write(fds[i][1], "x", 1), 1);
    }
    assert_ok(cf_watch_new(w->loop, fds[0][0], CF_READABLE, watched, &one, &one.watch));
    assert_ok(cf_watch_new(w->loop, fds[1][0], CF_READABLE, watched, &two, &two.watch));
    one.other = two.watch;
    two.other = one.watch;
    cf_loop_run(w->loop, 0);
    assert_int_equal(one.calls + two.calls, 1);
    cf_watch_free(one.calls ? one.watch : two.watch);
    for (int i = 0; i < 2; i++) close(fds[i][0]), close(fds[i][1]);
}

static void run_inside_a_watch_is_refused(void **state)
{
    world  *w = *state;
    int     fds[2];
    watcher me = {.loop = w->loop, .then = RERUN, .rerun = 1};
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_ok(cf_watch_new(w->loop, fds[0], CF_READABLE, watched, &me, &me.watch));
    cf_loop_run(w->loop, 0);
    assert_int_equal(me.rerun, CF_EINVAL);
    cf_watch_free(me.watch);
    close(fds[0]);
    close(fds[1]);
}

static void what_cannot_be_watched_is_unavailable(void **state)
{
    world    *w = *state;
    cf_watch *watch = (cf_watch *)w;
    int       file = open("/", O_RDONLY);
    assert_int_equal(cf_watch_new(w->loop, file, CF_READABLE, watched, NULL, &watch), CF_EUNAVAILABLE);
    assert_null(watch);
    close(file);
    assert_int_equal(cf_watch_new(w->loop, file, CF_READABLE, watched, NULL, &watch), CF_EUNAVAILABLE);
    assert_null(watch);
}

static void many_watches_are_all_served(void **state)
{
    world *w = *state;
    enum { COUNT = 200 }; /* more than one batch of the poller */
    static int     fds[COUNT][2];
    static watcher all[COUNT];
    char           byte;
    memset(all, 0, sizeof all);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(pipe(fds[i]), 0);
        assert_ok(cf_watch_new(w->loop, fds[i][0], CF_READABLE, watched, &all[i], &all[i].watch));
        assert_int_equal(write(fds[i][1], "x", 1), 1);
    }
    for (int left = COUNT; left;) {
        assert_true(readable(w->loop));
        cf_loop_run(w->loop, 0);
        for (int i = 0; i < COUNT; i++) {
            if (!all[i].calls || !all[i].watch) continue;
            assert_int_equal(read(fds[i][0], &byte, 1), 1);
            cf_watch_free(all[i].watch);
            all[i].watch = NULL;
            left--;
        }
    }
    for (int i = 0; i < COUNT; i++) close(fds[i][0]), close(fds[i][1]);
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;
static void on_signal(int number)
{
    (void)number;
    signals++;
}

static void a_signal_is_no_error(void **state)
{
    world           *w = *state;
    struct sigaction action = {.sa_handler = on_signal}, before;
    struct itimerval soon = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}}, off = {{0, 0}, {0, 0}};
    static tb_log           log;
    memset(&log, 0, sizeof log);
    cf_store        *store;
    cf_op           *op;
    /* The hang guard has SIGALRM; this takes the clock of the process's own time plus a thread-directed one. */
    sigaction(SIGALRM, &action, &before);
    signals = 0;
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(cf_loop_run(w->loop, -1), 0);
    assert_true(signals > 0);
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op);
    assert_int_equal(cf_op_wait_for(op, 86400000), CF_PENDING); /* a host looks at its signals and waits again */
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &before, NULL);
    hang_guard(60);
    cf_op_free(op);
}

static void the_real_platform_works(void **state)
{
    (void)state;
    cf_loop *loop;
    assert_ok(cf_loop_new(NULL, &loop));
    assert_ptr_equal(cf_loop_platform(loop), cf_platform_real());
    cf_store *store = open_url(loop, "memory:");
    assert_true(ask_set(store, "a", "1").hit);
    assert_value(ask_get(store, "a"), "1");
    assert_value(ask_pop(store, "a"), "1");
    assert_miss(ask_get(store, "a"));
    assert_ok(cf_loop_wake(loop));
    assert_int_equal(cf_loop_run(loop, -1), 0);
    assert_false(cf_loop_forked(loop));
    assert_ok(cf_loop_reopen(loop)); /* harmless where nothing forked */
    cf_loop_free(loop);
    cf_loop_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(idle_is_not_readable, world_up, world_down),
        cmocka_unit_test(a_platform_of_another_size_is_refused),
        cmocka_unit_test_setup_teardown(wake_makes_readable_until_run, world_up, world_down),
        cmocka_unit_test_setup_teardown(wake_from_another_thread_ends_a_wait, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_finish_makes_readable_until_done_was_called, world_up, world_down),
        cmocka_unit_test_setup_teardown(run_returns_how_many_finished, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_batch_leaves_the_rest_for_the_next_run, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_loop_that_is_freed_tells_all_whatever_its_batch_is, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_deadline_to_the_millisecond, world_up, world_down),
        cmocka_unit_test_setup_teardown(the_default_timeout_is_five_seconds, world_up, world_down),
        cmocka_unit_test_setup_teardown(deadlines_pass_in_their_order, world_up, world_down),
        cmocka_unit_test_setup_teardown(what_arrived_is_handled_before_deadlines_are_judged, world_up, world_down),
        cmocka_unit_test_setup_teardown(all_that_arrived_is_handled_before_deadlines_are_judged, world_up, world_down),
        cmocka_unit_test(a_deadline_ends_a_wait_on_the_real_machine),
        cmocka_unit_test_setup_teardown(the_wall_clock_moves_no_deadline, world_up, world_down),
        cmocka_unit_test_setup_teardown(run_inside_itself_is_refused, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_watch_is_level_triggered, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_watch_for_writing, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_watch_may_be_freed_in_its_own_function, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_freed_watch_is_not_called_though_both_were_ready, world_up, world_down),
        cmocka_unit_test_setup_teardown(run_inside_a_watch_is_refused, world_up, world_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_watched_is_unavailable, world_up, world_down),
        cmocka_unit_test_setup_teardown(many_watches_are_all_served, world_up, world_down),
        cmocka_unit_test_setup_teardown(a_signal_is_no_error, world_up, world_down),
        cmocka_unit_test(the_real_platform_works),
    };
    hang_guard(60);
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
