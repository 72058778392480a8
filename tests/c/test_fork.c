/* fork(): nothing inherited is used, the parent is not disturbed, and no lock is inherited held. Each child answers by its exit
 * code: 0, or the line that was not true. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define in_child(condition)                                  \
    do {                                                     \
        if (!(condition)) {                                  \
            fprintf(stderr, "in the child: %s\n", #condition); \
            _exit(__LINE__ % 200 + 1);                       \
        }                                                    \
    } while (0)

static void join(pid_t child)
{
    int status = -1;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static pid_t split(void)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) hang_guard(30); /* alarms are not inherited */
    return child;
}

/* Must be the first: nothing in this process has made a lock yet, which is what a private memory store never does. */
static void a_fork_is_noticed_where_no_lock_was_ever_made(void **state)
{
    (void)state;
    cf_loop  *loop;
    cf_store *store;
    assert_ok(cf_loop_new(NULL, &loop));
    assert_ok(cf_open(loop, cf_text("memory:"), NULL, &store, NULL));
    pid_t child = split();
    if (child == 0) {
        in_child(cf_loop_forked(loop));
        in_child(cf_loop_run(loop, 0) == CF_EFORKED);
        in_child(cf_loop_reopen(loop) == CF_OK);
        in_child(!cf_loop_forked(loop));
        cf_loop_free(loop);
        _exit(0);
    }
    join(child);
    assert_false(cf_loop_forked(loop));
    cf_loop_free(loop);
}

static void every_call_answers_forked_until_reopen(void **state)
{
    world        *w = *state;
    cf_store     *store = open_url(w->loop, "memory:"), *table;
    static tb_log log;
    static seen   s;
    memset(&log, 0, sizeof log);
    memset(&s, 0, sizeof s);
    cf_op *pending, *op;
    ask_set(store, "a", "1");
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &table, NULL));
    assert_int_equal(cf_submit(table, CF_REQUEST(CF_OP_SET, .key = cf_text("b"), .done = see, .user = &s), &pending), CF_PENDING);
    assert_false(cf_loop_forked(w->loop));
    int   fd = cf_loop_fd(w->loop);
    pid_t child = split();
    if (child == 0) {
        cf_store *other = store;
        cf_watch *watch = NULL;
        cf_error  error;
        in_child(cf_loop_forked(w->loop));
        in_child(cf_loop_run(w->loop, 0) == CF_EFORKED);
        in_child(cf_loop_run(w->loop, -1) == CF_EFORKED);
        in_child(cf_loop_flush(w->loop) == CF_EFORKED);
        in_child(cf_loop_wake(w->loop) == CF_EFORKED);
        in_child(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op) == CF_EFORKED);
        in_child(cf_op_error(op)->outcome == CF_NOT_APPLIED && cf_op_error(op)->text[0]);
        cf_op_free(op);
        in_child(cf_open(w->loop, cf_text("memory:"), NULL, &other, &error) == CF_EFORKED && other == NULL);
        in_child(cf_watch_new(w->loop, 0, CF_READABLE, NULL, NULL, &watch) == CF_EFORKED && watch == NULL);
        in_child(cf_op_wait(pending) == CF_EFORKED);
        in_child(log.forks == 0 && s.calls == 0);

        in_child(cf_loop_reopen(w->loop) == CF_OK);
        in_child(!cf_loop_forked(w->loop));
        in_child(log.forks == 1);
        if (s.calls == 0) cf_loop_run(w->loop, 0);
        in_child(s.calls == 1 && s.status == CF_EFORKED && s.outcome == CF_UNKNOWN);
        in_child(cf_loop_pending(w->loop) == 0);
        in_child(ask_get(store, "a").hit); /* a private copy of the parent's */
        in_child(ask_set(store, "a", "child").hit);
        in_child(cf_loop_wake(w->loop) == CF_OK && readable(w->loop));
        in_child(cf_loop_run(w->loop, -1) >= 0);
        in_child(cf_loop_reopen(w->loop) == CF_OK); /* once more: harmless */
        in_child(log.forks == 1);
        cf_op_free(pending);
        cf_loop_free(w->loop);
        in_child(log.closes == 1);
        in_child(cf_stage_blocks(w->stage) == 0);
        _exit(0);
    }
    join(child);
    assert_int_equal(cf_loop_fd(w->loop), fd);
    assert_int_equal(log.forks, 0);
    assert_value(ask_get(store, "a"), "1");
    tb_answer(tb_last(), 1); /* what was under way goes on */
    assert_int_equal(cf_op_wait(pending), CF_OK);
    assert_int_equal(s.calls, 1);
    cf_op_free(pending);
}

static void the_parents_descriptors_are_not_disturbed(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *op;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
    assert_true(ask_set(store, "a", "1").hit);
    pid_t child = split();
    if (child == 0) { /* frees everything: the watch must not be taken from the parent's poller */
        in_child(cf_loop_reopen(w->loop) == CF_OK);
        cf_loop_free(w->loop);
        _exit(0);
    }
    join(child);
    child = split();
    if (child == 0) { /* the same without reopening */
        cf_loop_free(w->loop);
        _exit(0);
    }
    join(child);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100), &op), CF_PENDING);
    assert_int_equal(cf_op_wait(op), CF_OK);
    cf_op_free(op);
    cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100), &op);
    assert_ok(cf_loop_wake(w->loop));
    cf_op_wait(op);
    cf_op_free(op);
}

static void a_grandchild_is_forked_again(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    ask_set(store, "a", "1");
    pid_t child = split();
    if (child == 0) {
        in_child(cf_loop_reopen(w->loop) == CF_OK);
        ask_set(store, "a", "2");
        pid_t grandchild = split();
        if (grandchild == 0) {
            in_child(cf_loop_forked(w->loop));
            in_child(cf_loop_run(w->loop, 0) == CF_EFORKED);
            in_child(cf_loop_reopen(w->loop) == CF_OK);
            in_child(strcmp(ask_get(store, "a").value, "2") == 0);
            cf_loop_free(w->loop);
            _exit(0);
        }
        int status = -1;
        in_child(waitpid(grandchild, &status, 0) == grandchild && status == 0);
        in_child(strcmp(ask_get(store, "a").value, "2") == 0);
        cf_loop_free(w->loop);
        in_child(cf_stage_blocks(w->stage) == 0);
        _exit(0);
    }
    join(child);
    assert_value(ask_get(store, "a"), "1");
}

static void a_loop_made_in_the_child_is_not_forked(void **state)
{
    (void)state;
    pid_t child = split();
    if (child == 0) {
        cf_loop *loop;
        in_child(cf_loop_new(NULL, &loop) == CF_OK);
        in_child(!cf_loop_forked(loop));
        cf_store *store;
        in_child(cf_open(loop, cf_text("memory:x"), NULL, &store, NULL) == CF_OK);
        in_child(ask_set(store, "a", "1").hit);
        cf_loop_free(loop);
        _exit(0);
    }
    join(child);
}

static atomic_bool stop_now;

static void *keep_locks_busy(void *user)
{
    cf_stage *stage = user;
    cf_loop  *loop;
    if (cf_loop_new(cf_stage_platform(stage), &loop) != CF_OK) abort();
    cf_store   *store = open_url(loop, "memory:forked");
    static char value[CF_VALUE_MAX];
    while (!atomic_load(&stop_now)) {
        /* Large values are copied under the table's lock: it is held most of the time. */
        ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("big"), .value = cf_bytes(value, sizeof value)));
        for (int i = 0; i < 20; i++) ask_get(store, "big");
        ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1));
        cf_store *short_lived = open_url(loop, "memory:others");
        ask_set(short_lived, "a", "1");
        cf_store_close(short_lived, NULL);
    }
    cf_loop_free(loop);
    return NULL;
}

/* Another thread is nearly always inside a lock of the shared table, the registry or the stage when the process forks. */
static void no_lock_is_inherited_held(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:forked");
    pthread_t threads[2];
    int       forks = (int)env_number("CF_FORKS", 60);
    atomic_store(&stop_now, false);
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, keep_locks_busy, w->stage);
    for (int i = 0; i < forks; i++) {
        pid_t child = split();
        if (child == 0) {
            in_child(cf_loop_reopen(w->loop) == CF_OK);
            in_child(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).status == CF_OK);
            cf_store *other;
            in_child(cf_open(w->loop, cf_text("memory:others"), NULL, &other, NULL) == CF_OK);
            in_child(ask_set(other, "b", "1").hit);
            in_child(ask_count(store).status == CF_OK);
            cf_loop_free(w->loop);
            _exit(0);
        }
        join(child);
    }
    atomic_store(&stop_now, true);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_true(ask_get(store, "n").hit);
}

static void a_derived_operation_in_flight_leaves_no_lock(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *holder, *waiter;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_DERIVED, &log, NULL, &store, NULL));
    tb *table = tb_last();
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a")), &holder), CF_PENDING);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a")), &waiter), CF_PENDING);
    pid_t child = split();
    if (child == 0) {
        cf_op *op;
        in_child(cf_loop_reopen(w->loop) == CF_OK);
        cf_loop_run(w->loop, 0);
        in_child(cf_op_status(holder) == CF_EFORKED && cf_op_status(waiter) == CF_EFORKED);
        in_child(cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op) == CF_PENDING);
        while (cf_op_status(op) == CF_PENDING) {
            tb_answer(table, 100);
            in_child(cf_loop_run(w->loop, 0) >= 0);
        }
        in_child(cf_op_status(op) == CF_OK);
        cf_loop_free(w->loop);
        in_child(cf_stage_blocks(w->stage) == 0);
        _exit(0);
    }
    join(child);
    while (cf_op_status(waiter) == CF_PENDING) {
        tb_answer(table, 100);
        cf_loop_run(w->loop, 0);
    }
    assert_int_equal(cf_op_status(holder), CF_OK);
    assert_int_equal(cf_op_status(waiter), CF_OK);
    cf_op_free(holder);
    cf_op_free(waiter);
}

/* The loop of a thread that the child does not have is never reopened there: its locks must not outlive it. */
static void a_lock_of_a_loop_that_nobody_reopens_stops_nobody(void **state)
{
    world        *w = *state;
    static tb_log log, other_log;
    cf_store     *store, *other_store;
    cf_loop      *other;
    cf_op        *holder, *waiter;
    memset(&log, 0, sizeof log);
    memset(&other_log, 0, sizeof other_log);
    assert_ok(cf_loop_new(cf_stage_platform(w->stage), &other));
    tb *mine = tb_new(w->loop, TB_NOW, &log), *its = tb_share(mine, other, TB_HAND, &other_log);
    assert_ok(cf_open_backend(w->loop, tb_functions(TB_DERIVED), tb_backend(mine), NULL, &store, NULL));
    assert_ok(cf_open_backend(other, tb_functions(TB_DERIVED), tb_backend(its), NULL, &other_store, NULL));
    assert_int_equal(cf_submit(other_store, CF_REQUEST(CF_OP_POP, .key = cf_text("a")), &holder), CF_PENDING);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a")), &waiter), CF_PENDING);
    pid_t child = split();
    if (child == 0) {
        cf_op *op;
        in_child(cf_loop_reopen(w->loop) == CF_OK);
        in_child(cf_op_status(waiter) == CF_EFORKED);
        in_child(cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op) == CF_OK);
        in_child(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a")), &op) == CF_OK && cf_op_hit(op));
        cf_loop_free(other);
        in_child(cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a")), &op) == CF_OK);
        cf_loop_free(w->loop);
        in_child(cf_stage_blocks(w->stage) == 0);
        _exit(0);
    }
    join(child);
    assert_int_equal(cf_op_status(waiter), CF_PENDING); /* the parent's lock is held still */
    cf_op_free(holder);
    assert_int_equal(cf_op_wait(waiter), CF_OK);
    cf_loop_free(other);
}

/* A store that is closed in the child without reopening: its backend hears of the fork before it is closed, and of nothing else. */
static void closing_in_the_child_never_speaks(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *a, *b;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &a), CF_PENDING);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &b), CF_PENDING);
    pid_t child = split();
    if (child == 0) {
        cf_op_free(a);
        in_child(log.cancels == 0);
        in_child(cf_store_close(store, NULL) == CF_OK);
        in_child(cf_op_status(b) == CF_ECLOSED);
        in_child(log.forks == 1 && log.cancels == 0 && log.closes == 1);
        cf_loop_free(w->loop);
        in_child(cf_stage_blocks(w->stage) == 0);
        _exit(0);
    }
    join(child);
    cf_op_free(a);
    cf_op_free(b);
    assert_int_equal(log.forks, 0);
    assert_int_equal(log.cancels, 2);
}

typedef struct again {
    cf_store *store;
    cf_op    *next;
    int       calls;
} again;

static void once_more(cf_op *op, void *user)
{
    again *a = user;
    (void)op;
    a->calls++;
    if (a->calls < 100) cf_submit(a->store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = once_more, .user = a), &a->next);
}

/* What a `done` submits in the child was not inherited. */
static void reopen_ends_only_what_was_inherited(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *op;
    again         a = {0};
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    a.store = store;
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = once_more, .user = &a), &op), CF_PENDING);
    pid_t child = split();
    if (child == 0) {
        in_child(cf_loop_reopen(w->loop) == CF_OK);
        in_child(cf_op_status(op) == CF_EFORKED);
        in_child(a.calls == 1);
        in_child(cf_op_status(a.next) == CF_PENDING);
        _exit(0);
    }
    join(child);
    cf_op_free(op);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fork_is_noticed_where_no_lock_was_ever_made),
        WORLD(every_call_answers_forked_until_reopen),
        WORLD(the_parents_descriptors_are_not_disturbed),
        WORLD(a_grandchild_is_forked_again),
        cmocka_unit_test(a_loop_made_in_the_child_is_not_forked),
        WORLD(no_lock_is_inherited_held),
        WORLD(a_derived_operation_in_flight_leaves_no_lock),
        WORLD(a_lock_of_a_loop_that_nobody_reopens_stops_nobody),
        WORLD(closing_in_the_child_never_speaks),
        WORLD(reopen_ends_only_what_was_inherited),
    };
    hang_guard(90);
    return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
