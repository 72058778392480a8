/* Every system call failing at every occurrence: nothing crashes, leaks or hangs, and what is answered is one of the documented
 * statuses. Randomness that fails counts as a system call here. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

typedef struct trial {
    cf_stage *stage;
    cf_loop  *loop;
    cf_store *store;
} trial;

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* A life from cf_loop_new to the last operation. 0: it went to its end; a negative status: where it stopped. */
static int live(trial *t, tb_log *log, const char *url, tb_manner manner)
{
    int status = cf_loop_new(cf_stage_platform(t->stage), &t->loop);
    if (status != CF_OK) {
        assert_null(t->loop);
        return status;
    }
    cf_error error;
    status = url ? cf_open(t->loop, cf_text(url), NULL, &t->store, &error)
                 : tb_open(t->loop, manner, TB_FULL, log, NULL, &t->store, &error);
    if (status != CF_OK) {
        assert_null(t->store);
        assert_true(strlen(error.text) > 0);
        return status;
    }
    for (int i = 0; i < 6; i++) {
        cf_op *op;
        seen   s = {0};
        status = cf_submit(t->store, CF_REQUEST(i % 2 ? CF_OP_GET : CF_OP_SET, .key = cf_text("a"), .value = cf_text("1"), .done = see, .user = &s), &op);
        /* A wait that could not wait says so; trying again must do. */
        for (int tries = 0; cf_op_status(op) == CF_PENDING; tries++) {
            assert_true(tries < 10);
            int waited = cf_op_wait_for(op, 20);
            assert_true(waited == CF_PENDING || waited == CF_OK || waited == CF_EUNAVAILABLE);
        }
        status = cf_op_status(op);
        if (status != CF_OK) fail_msg("an operation answered %s", cf_status_name(status));
        if (i % 2) assert_true(cf_op_hit(op));
        assert_true(s.calls <= 1);
        cf_op_free(op);
    }
    for (int tries = 0; tries < 3; tries++) {
        status = cf_loop_wake(t->loop);
        if (status == CF_OK) break;
        assert_int_equal(status, CF_EUNAVAILABLE);
    }
    assert_int_equal(status, CF_OK); /* a wake-up that could not be written does not spoil the next */
    assert_true(readable(t->loop));
    for (int tries = 0; readable(t->loop); tries++) {
        assert_true(tries < 5);
        int ran = cf_loop_run(t->loop, 0);
        assert_true(ran >= 0 || ran == CF_EUNAVAILABLE);
    }
    return CF_OK;
}

static void each_failure(const char *url, tb_manner manner, int failure)
{
    int before = open_fds();
    int complete = 0;
    for (uint64_t nth = 1;; nth++) {
        static tb_log log;
        trial         t = {.stage = cf_stage_new()};
        memset(&log, 0, sizeof log);
        cf_stage_fail_syscall(t.stage, nth, failure);
        int status = live(&t, &log, url, manner);
        bool failed = cf_stage_failed(t.stage);
        cf_stage_fail_syscall(t.stage, 0, 0);
        if (status != CF_OK) {
            assert_true(failed);
            /* The table backend cannot tell why it has no watch. */
            assert_true(status == CF_EUNAVAILABLE || (!url && status == CF_ENOMEM));
        } else {
            complete++;
        }
        cf_loop_free(t.loop);
        if (t.store) assert_int_equal(log.closes, url ? 0 : 1);
        assert_int_equal(cf_stage_blocks(t.stage), 0);
        cf_stage_free(t.stage);
        assert_int_equal(open_fds(), before);
        if (!failed) {
            assert_int_equal(status, CF_OK);
            printf("%s, errno %d: %llu system calls failed, one by one; %d lives went on\n", url ? url : "table", failure,
                   (unsigned long long)(nth - 1), complete - 1);
            assert_true(nth > 5);
            return;
        }
    }
}

static void memory_survives_each(void **state)
{
    (void)state;
    each_failure("memory:", TB_NOW, EMFILE);
    each_failure("memory:name", TB_NOW, ENOMEM);
}

static void a_watched_backend_survives_each(void **state)
{
    (void)state;
    each_failure(NULL, TB_PIPE, EIO);
    each_failure(NULL, TB_TIMER, ENOSPC);
}

static void interrupted_calls_are_no_failures(void **state)
{
    (void)state;
    each_failure(NULL, TB_PIPE, EINTR);
}

/* A deadline whose timer could not be set: whoever runs the loop again is told. */
static void a_timer_that_cannot_be_set(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *op;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_HAND, TB_FULL, &log, NULL, &store, NULL));
    cf_stage_fail_syscall(w->stage, 1, EINVAL);
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 10), &op), CF_PENDING);
    assert_true(cf_stage_failed(w->stage));
    cf_loop_run(w->loop, 0); /* sets it now */
    cf_stage_advance(w->stage, 10);
    assert_true(readable(w->loop));
    assert_int_equal(cf_op_wait(op), CF_ETIMEOUT);
    cf_op_free(op);
}

static void a_poller_that_fails_does_not_end_operations(void **state)
{
    world        *w = *state;
    static tb_log log;
    cf_store     *store;
    cf_op        *op;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(w->loop, TB_PIPE, TB_FULL, &log, NULL, &store, NULL));
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_PENDING);
    cf_stage_fail_syscall(w->stage, 1, EBADF);
    assert_int_equal(cf_loop_run(w->loop, -1), CF_EUNAVAILABLE);
    assert_int_equal(cf_op_status(op), CF_PENDING);
    assert_int_equal(cf_loop_run(w->loop, -1), 1); /* not inside itself, although the last one ended early */
    assert_int_equal(cf_op_status(op), CF_OK);
    cf_op_free(op);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_survives_each),
        cmocka_unit_test(a_watched_backend_survives_each),
        cmocka_unit_test(interrupted_calls_are_no_failures),
        WORLD(a_timer_that_cannot_be_set),
        WORLD(a_poller_that_fails_does_not_end_operations),
    };
    hang_guard(60);
    return cmocka_run_group_tests_name("platform", tests, NULL, NULL);
}
