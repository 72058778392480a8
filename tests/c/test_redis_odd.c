/* Redis: what once went wrong between the loop, the queue and a server in an odd state. A server of its own, whose state is changed behind the store's back,
 * and the proxy of the fault kit between them. */
#define _GNU_SOURCE /* memmem */
#include "redis_support.h"

#include <malloc.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "faults.h"

static server redis;

__attribute__((format(printf, 1, 2))) static const char *say(const char *format, ...)
{
    char    line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return server_says(&redis, line);
}

static int server_up(void **state)
{
    (void)state;
    server_start(&redis, NULL);
    return 0;
}

static int server_down(void **state)
{
    (void)state;
    server_resume(&redis);
    server_stop(&redis);
    return 0;
}

/* ---- a loop on the real machine, and the proxy ---- */

typedef struct scene {
    cf_platform   platform;
    cf_loop      *loop;
    faults_proxy *proxy;
    uint64_t      waits; /* poller_wait was called so often */
} scene;
static scene the;

static int count_wait(void *self, int poller, cf_poll_event *events, int max, int timeout_ms)
{
    (void)self;
    the.waits++;
    return cf_platform_real()->poller_wait(NULL, poller, events, max, timeout_ms);
}

static int scene_up(void **state)
{
    (void)state;
    memset(&the, 0, sizeof the);
    the.platform = *cf_platform_real();
    the.platform.poller_wait = count_wait;
    char at[32];
    snprintf(at, sizeof at, "127.0.0.1:%d", redis.port);
    the.proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), at);
    if (!the.proxy) return -1;
    say("CONFIG RESETSTAT");
    say("FLUSHALL");
    return cf_loop_new(&the.platform, &the.loop);
}

static int scene_down(void **state)
{
    (void)state;
    cf_loop_free(the.loop);
    faults_proxy_stop(the.proxy);
    return 0;
}

static cf_store *open_at(int port, const char *before, const char *options, int64_t timeout_ms)
{
    char            url[256];
    cf_store       *store = NULL;
    cf_error        error;
    cf_open_options with = {.size = sizeof with, .timeout_ms = timeout_ms};
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d%s", before, port, options);
    if (cf_open(the.loop, cf_text(url), &with, &store, &error) != CF_OK) fail_msg("open: %s", error.text);
    return store;
}

static cf_store *open_through(const char *options, int64_t timeout_ms) { return open_at(the.proxy->port, "", options, timeout_ms); }

static void run_for(int ms)
{
    int64_t until = now_ms() + ms, left;
    while ((left = until - now_ms()) > 0)
        assert_true(cf_loop_run(the.loop, (int)left) >= 0);
}

static cf_op *submit(cf_store *store, const cf_request *request)
{
    cf_op *op = NULL;
    int    rc = submit_lent(store, request, &op);
    if (rc != CF_PENDING) fail_msg("submit: %d %s", rc, cf_op_error(op)->text);
    return op;
}

/* ---- the tests ---- */

static void a_write_that_a_replica_refused_is_not_ok(void **state)
{
    (void)state;
    cf_store *store = open_at(redis.port, "", "", 400);
    assert_ok(ask_set(store, "a", "1").status);
    say("REPLICAOF 127.0.0.1 1");
    cf_op *set = submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("2")));
    cf_op *get = submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    int    rc = cf_op_wait(set), read = cf_op_wait(get);
    say("REPLICAOF NO ONE");
    assert_int_equal(read, CF_OK);
    assert_int_equal(rc, CF_EUNAVAILABLE);
    assert_int_equal(cf_op_error(set)->outcome, CF_NOT_APPLIED);
    assert_non_null(strstr(cf_op_error(set)->text, "READONLY"));
    cf_op_free(set);
    cf_op_free(get);
    assert_value(ask_get(store, "a"), "1");
    assert_ok(cf_store_close(store, NULL));
}

static void a_replica_that_still_reads_is_not_dialled_without_end(void **state)
{
    (void)state;
    cf_store *store = open_at(redis.port, "", "", 1500);
    assert_ok(ask_set(store, "a", "1").status);
    say("REPLICAOF 127.0.0.1 1");
    cf_op *set = submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("2")));
    while (cf_op_status(set) == CF_PENDING) {
        answer read = ask_get(store, "a");
        assert_int_equal(read.status, CF_OK);
    }
    say("REPLICAOF NO ONE");
    int64_t connects = stat_of(store, "connects");
    assert_true(connects < 40); /* 1.5 s at a mean of 100 ms, after the quicker first ones */
    cf_op_free(set);
    assert_ok(cf_store_close(store, NULL));
}

static void a_page_that_was_cut_is_read_again_from_the_start(void **state)
{
    (void)state;
    for (int at = 20; at < 400; at += 40) {
        cf_store *store = open_through("", 2000);
        char      key[16];
        for (int i = 0; i < 30; i++) {
            snprintf(key, sizeof key, "key-%d", i);
            assert_ok(ask_set(store, key, "x").status);
        }
        faults_say(the.proxy, "now cut reply %d rst", at);
        answer count = ask_count(store);
        assert_ok(count.status);
        assert_int_equal(count.number, 30);
        assert_ok(cf_store_close(store, NULL));
    }
}

static void a_refused_password_is_tried_again_only_when_somebody_asks(void **state)
{
    (void)state;
    say("ACL SETUSER r-user on >right ~* +@all");
    cf_store *store = open_at(the.proxy->port, "r-user:wrong@", "", 2000);
    assert_int_equal(ask_get(store, "a").status, CF_EAUTH);
    run_for(2600);
    assert_true(faults_figure(the.proxy, "accepted") == 1);
    assert_int_equal(ask_get(store, "a").status, CF_EAUTH); /* and now it is tried */
    assert_true(faults_figure(the.proxy, "accepted") == 2);
    assert_ok(cf_store_close(store, NULL));
}

static void (*put_off)(void *data);
static void *put_off_data;
static int   run_later(void *self, void (*run)(void *data), void *data)
{
    (void)self;
    put_off = run;
    put_off_data = data;
    return 0;
}

static void a_child_of_a_process_that_looks_up_a_name_reopens(void **state)
{
    (void)state;
    cf_loop  *loop;
    cf_store *store;
    cf_op    *op;
    the.platform.thread = run_later; /* a resolver that does not answer */
    assert_ok(cf_loop_new(&the.platform, &loop));
    assert_ok(cf_open(loop, cf_text("redis://somewhere.invalid"), NULL, &store, NULL));
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_PENDING);
    assert_ok(cf_loop_flush(loop));
    for (int reopen = 0; reopen < 2; reopen++) {
        pid_t child = fork();
        if (child == 0) {
            if (reopen && cf_loop_reopen(loop) != CF_OK) _exit(3);
            cf_loop_free(loop);
            exit(0); /* the sanitizer's leaks are found here */
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    cf_loop_free(loop);
    put_off(put_off_data);
}

static void a_clear_that_has_removed_something_is_not_said_to_have_done_nothing(void **state)
{
    (void)state;
    cf_store *store = open_through("", 5000);
    char      key[16];
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        assert_ok(ask_set(store, key, "x").status);
    }
    char   rule[1024] = "now";
    size_t len = 3;
    for (int i = 3; i < 20; i++) /* the first page goes; the second is put off until the deadline */
        len += (size_t)snprintf(rule + len, sizeof rule - len, "%s answer #%d -BUSY a script\\r\\n", i == 3 ? "" : " ;", i);
    faults_say(the.proxy, "%s", rule);
    answer clear = ask(store, CF_REQUEST(CF_OP_CLEAR, .key = cf_text("key-"), .timeout_ms = 900));
    assert_int_equal(clear.status, CF_EUNAVAILABLE);
    assert_int_equal(clear.outcome, CF_UNKNOWN);
    assert_ok(cf_store_close(store, NULL));
}

static void a_retry_that_is_not_allowed_does_not_say_that_the_first_try_did_nothing(void **state)
{
    (void)state;
    say("ACL SETUSER p-user on >pass ~* +@all");
    say("SET popped value");
    cf_store *store = open_at(the.proxy->port, "p-user:pass@", "", 3000);
    assert_false(ask_pop(store, "nothing").hit); /* the server knows the script now */
    faults_say(the.proxy, "now lose #0 rst");
    faults_say(the.proxy, "refuse on");
    cf_op *pop = submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("popped")));
    run_for(200);
    assert_int_equal(stat_of(store, "disconnects"), 1);
    assert_string_equal(say("EXISTS popped"), ":0");
    say("ACL SETUSER p-user -evalsha -eval");
    faults_say(the.proxy, "refuse off");
    assert_int_equal(cf_op_wait(pop), CF_EAUTH);
    assert_int_equal(cf_op_error(pop)->outcome, CF_UNKNOWN);
    assert_int_equal(cf_op_receipt(pop).len, CF_RECEIPT_LEN);
    char receipt[CF_RECEIPT_LEN];
    memcpy(receipt, cf_op_receipt(pop).ptr, sizeof receipt);
    cf_op_free(pop);
    /* Asking again with the receipt fails too: the call that was lost is as unknown as before, and its receipt is not lost. */
    cf_op *again = submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("popped"), .receipt = cf_bytes(receipt, sizeof receipt)));
    assert_int_equal(cf_op_wait(again), CF_EAUTH);
    assert_int_equal(cf_op_error(again)->outcome, CF_UNKNOWN);
    assert_memory_equal(cf_op_receipt(again).ptr, receipt, sizeof receipt);
    cf_op_free(again);
    say("ACL SETUSER p-user +evalsha +eval");
    assert_value(ask(store, CF_REQUEST(CF_OP_POP, .key = cf_text("popped"), .receipt = cf_bytes(receipt, sizeof receipt))),
                 "value");
    assert_ok(cf_store_close(store, NULL));
}

/* What waits for replicas without having written leaves a mark behind its key when the answer has come: a key is only lent, and is the caller's again by then. */
static void the_mark_of_what_waits_for_replicas_is_behind_the_key_that_was_given(void **state)
{
    (void)state;
    say("ACL SETUSER m-user on >pass ~mine:* +@all");
    cf_store *store = open_at(the.proxy->port, "m-user:pass@", "?durable=1", 3000);
    char      key[] = "mine:a";
    say("SET mine:a value");
    const struct {
        int         kind;
        const char *receipt;
    } rows[] = {{CF_OP_POP, "0123456789abcdef0123456789abcdef"}, {CF_OP_DELETE, ""}}; /* one that may be of an earlier call; and one that finds nothing */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        memcpy(key, "mine", 4);
        cf_op *op = submit(store, CF_REQUEST(rows[i].kind, .key = cf_text(key), .receipt = cf_text(rows[i].receipt), .timeout_ms = 400));
        memcpy(key, "gone", 4);
        assert_int_equal(cf_op_wait(op), CF_EUNAVAILABLE);
        assert_non_null(strstr(cf_op_error(op)->text, "not replicated"));
        cf_op_free(op);
    }
    assert_ok(cf_store_close(store, NULL));
    say("ACL DELUSER m-user");
}

static void a_server_that_cannot_save_still_reads(void **state)
{
    (void)state;
    say("SET a 1");
    say("CONFIG SET save \"3600 1\"");
    assert_int_equal(rmdir(redis.folder), 0); /* where the server stands */
    say("BGSAVE");
    for (int i = 0; i < 300 && !strstr(say("INFO persistence"), "rdb_last_bgsave_status:err"); i++)
        usleep(10000);
    assert_non_null(strstr(say("PING"), "MISCONF"));
    cf_store *store = open_at(redis.port, "", "", 1000);
    answer    read = ask_get(store, "a"), write = ask_set(store, "a", "2");
    say("CONFIG SET save \"\"");
    mkdir(redis.folder, 0700);
    assert_value(read, "1");
    assert_int_equal(write.status, CF_EUNAVAILABLE);
    assert_int_equal(write.outcome, CF_NOT_APPLIED);
    assert_ok(cf_store_close(store, NULL));
}

static void an_array_before_anything_was_asked_is_refused(void **state)
{
    (void)state;
    faults_say(the.proxy, "every insert reply 0 *2\\r\\n$1\\r\\n0\\r\\n*1\\r\\n$5\\r\\nkey-0\\r\\n");
    cf_store *store = open_through("", 300);
    run_for(100); /* nothing was ever asked for */
    cf_op *scan = submit(store, CF_REQUEST(CF_OP_SCAN));
    assert_int_equal(cf_op_wait(scan), CF_EUNAVAILABLE);
    cf_op_free(scan);
    scan = submit(store, CF_REQUEST(CF_OP_SCAN, .timeout_ms = 3000)); /* waits at the head while the greeting goes wrong */
    run_for(100);
    faults_say(the.proxy, "pass");
    say("SET key-1 x");
    assert_ok(cf_op_wait(scan));
    cf_slice key;
    assert_true(cf_op_next_key(scan, &key));
    assert_memory_equal(key.ptr, "key-1", 5);
    assert_false(cf_op_next_key(scan, &key));
    cf_op_free(scan);
    assert_ok(cf_store_close(store, NULL));
}

enum { BIG = 1024 * 1024 };
static char big[BIG];

static void a_pause_does_not_look_at_a_writable_socket_all_the_time(void **state)
{
    (void)state;
    cf_store *store = open_through("?silence=1", 3000);
    assert_false(ask_get(store, "nothing").hit);
    faults_say(the.proxy, "now answer #0 -READONLY you cannot\\r\\n ; cut reply #1 stall");
    cf_op *ops[24];
    for (int i = 0; i < 24; i++)
        ops[i] = submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("big"), .value = cf_bytes(big, BIG)));
    the.waits = 0;
    run_for(900);
    assert_int_equal(stat_of(store, "disconnects"), 0);
    assert_true(the.waits < 2000);
    for (int i = 0; i < 24; i++)
        cf_op_free(ops[i]);
    assert_ok(cf_store_close(store, NULL));
}

static void what_arrived_comes_before_deadlines(void **state)
{
    (void)state;
    enum { MANY = 600, SIZE = 1500 };
    cf_store *store = open_at(redis.port, "", "", 5000);
    assert_ok(ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_bytes(big, SIZE))).status);
    cf_op *ops[MANY];
    int    late = 0;
    for (int round = 0; round < 12; round++) { /* the socket's buffer grows with use */
        for (int i = 0; i < MANY; i++)
            ops[i] = submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = round == 11 ? 600 : 5000));
        cf_loop_flush(the.loop);
        if (round == 11) usleep(2000000); /* as if the process had been stopped */
        for (int i = 0; i < MANY; i++) {
            int rc = cf_op_wait(ops[i]);
            late += rc != CF_OK;
            if (round < 11) assert_ok(rc);
            cf_op_free(ops[i]);
        }
    }
    assert_int_equal(late, 0);
    assert_ok(cf_store_close(store, NULL));
}

static void a_connection_that_takes_no_more_bytes_is_given_up(void **state)
{
    (void)state;
    cf_store *store = open_at(redis.port, "", "?silence=0.5", 300);
    assert_false(ask_get(store, "nothing").hit);
    server_pause(&redis);
    for (int i = 0; i < 8; i++) {
        cf_op *op = submit(store, CF_REQUEST(CF_OP_SET, .flags = CF_IF_EQUAL, .key = cf_text("big"), .value = cf_bytes(big, BIG),
                                             .expected = cf_bytes(big, BIG)));
        cf_loop_flush(the.loop);
        cf_op_wait(op);
        cf_op_free(op);
    }
    server_resume(&redis);
    assert_true(stat_of(store, "disconnects") > 0);
    assert_ok(cf_store_close(store, NULL));
}

static void what_the_connection_asks_for_itself_takes_no_callers_place(void **state)
{
    (void)state;
    faults_say(the.proxy, "slice reply 100 1");
    cf_store *store = open_through("?max_pending=1", 2000);
    for (int i = 0; i < 20; i++)
        assert_ok(ask_set(store, "a", "1").status);
    assert_ok(cf_store_close(store, NULL));
}

static bool    wake_while_looking;
static int64_t wake_at_clock(void *self)
{
    (void)self;
    if (wake_while_looking) {
        wake_while_looking = false;
        cf_loop_wake(the.loop);
    }
    return cf_platform_real()->monotonic_us(NULL);
}

static void a_wake_while_a_wait_looks_for_its_answer_is_not_lost(void **state)
{
    (void)state;
    cf_loop_free(the.loop);
    the.platform.monotonic_us = wake_at_clock;
    assert_ok(cf_loop_new(&the.platform, &the.loop));
    cf_store *store = open_through("", 4000);
    assert_false(ask_get(store, "nothing").hit);
    faults_say(the.proxy, "now cut reply 0 stall");
    int64_t before = now_ms();
    cf_op  *op = submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    cf_loop_flush(the.loop);
    wake_while_looking = true;
    assert_int_equal(cf_op_wait_for(op, 3500), CF_PENDING);
    assert_true(now_ms() - before < 2000);
    cf_op_free(op);
    assert_ok(cf_store_close(store, NULL));
}

static int  secrets;
static void look_and_release(void *self, void *block)
{
    (void)self;
    if (block && memmem(block, malloc_usable_size(block), "s3cr3t", 6)) secrets++;
    free(block);
}

static void a_password_does_not_stay_in_memory_that_is_given_back(void **state)
{
    (void)state;
    cf_loop *loop;
    the.platform.release = look_and_release;
    assert_ok(cf_loop_new(&the.platform, &loop));
    cf_store *store;
    char      url[64];
    secrets = 0;
    snprintf(url, sizeof url, "redis://u:s3cr3t@127.0.0.1:%d", redis.port);
    assert_ok(cf_open(loop, cf_text(url), NULL, &store, NULL));
    assert_int_equal(ask_get(store, "a").status, CF_EAUTH);
    cf_loop_free(loop);
    assert_int_equal(secrets, 0);
}

static void a_value_beyond_all_limits_does_not_take_the_others_with_it_for_long(void **state)
{
    (void)state;
    say("EVAL \"redis.call('SET', 'huge', string.rep('x', 17000000))\" 0");
    cf_store *store = open_at(redis.port, "", "", 3000);
    assert_int_equal(ask_get(store, "huge").status, CF_EUNAVAILABLE);
    assert_true(stat_of(store, "connects") < 4);
    assert_ok(cf_store_close(store, NULL));
}

static void memory_of_a_burst_is_given_back(void **state)
{
    (void)state;
    counting memory;
    cf_loop *loop;
    counting_init(&memory);
    assert_ok(cf_loop_new(&memory.platform, &loop));
    cf_store *store;
    char      url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis.port);
    assert_ok(cf_open(loop, cf_text(url), NULL, &store, NULL));
    assert_ok(ask_set(store, "a", "1").status);
    int64_t before = memory.live;
    cf_op  *ops[24];
    for (int i = 0; i < 24; i++)
        ops[i] = submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("big"), .value = cf_bytes(big, BIG)));
    for (int i = 0; i < 24; i++) {
        assert_ok(cf_op_wait(ops[i]));
        cf_op_free(ops[i]);
    }
    assert_true(memory.live - before < 1024 * 1024);
    cf_loop_free(loop);
    assert_int_equal(memory.blocks, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_up, scene_down)
int main(void)
{
    hang_guard(120);
    const struct CMUnitTest tests[] = {
        TEST(a_write_that_a_replica_refused_is_not_ok),
        TEST(a_replica_that_still_reads_is_not_dialled_without_end),
        TEST(a_page_that_was_cut_is_read_again_from_the_start),
        TEST(a_refused_password_is_tried_again_only_when_somebody_asks),
        TEST(a_child_of_a_process_that_looks_up_a_name_reopens),
        TEST(a_clear_that_has_removed_something_is_not_said_to_have_done_nothing),
        TEST(a_retry_that_is_not_allowed_does_not_say_that_the_first_try_did_nothing),
        TEST(the_mark_of_what_waits_for_replicas_is_behind_the_key_that_was_given),
        TEST(a_server_that_cannot_save_still_reads),
        TEST(an_array_before_anything_was_asked_is_refused),
        TEST(a_pause_does_not_look_at_a_writable_socket_all_the_time),
        TEST(what_arrived_comes_before_deadlines),
        TEST(a_connection_that_takes_no_more_bytes_is_given_up),
        TEST(what_the_connection_asks_for_itself_takes_no_callers_place),
        TEST(a_wake_while_a_wait_looks_for_its_answer_is_not_lost),
        TEST(a_password_does_not_stay_in_memory_that_is_given_back),
        TEST(a_value_beyond_all_limits_does_not_take_the_others_with_it_for_long),
        TEST(memory_of_a_burst_is_given_back),
    };
    return cmocka_run_group_tests(tests, server_up, server_down);
}
