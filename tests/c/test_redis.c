/* The Redis backend over a real server: events, greetings that are refused, the queue, deadlines, closing, and failures of the machine. */
#include "redis_support.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "faults.h"

static server        one;
static faults_proxy *proxy;

static int group_up(void **state)
{
    char to[32];
    (void)state;
    server_start(&one, NULL);
    snprintf(to, sizeof to, "127.0.0.1:%d", one.port);
    proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), to);
    return proxy ? 0 : -1;
}

static int group_down(void **state)
{
    (void)state;
    faults_proxy_stop(proxy);
    server_stop(&one);
    return 0;
}

static int loop_up(void **state)
{
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) return -1;
    *state = loop;
    server_says(&one, "FLUSHALL");
    faults_say(proxy, "pass");
    return 0;
}

static int loop_down(void **state)
{
    cf_loop_free(*state);
    return 0;
}

static cf_op *begin(cf_store *store, const cf_request *request)
{
    cf_op *op;
    assert_int_equal(cf_submit(store, request, &op), CF_PENDING);
    return op;
}

/* ------------------------------------------------------------------------------------------------------------- events -- */

static void opening_says_nothing_and_one_connection_is_enough(void **state)
{
    unsigned long long before = faults_figure(proxy, "accepted");
    cf_store          *store = open_redis(*state, proxy->port, NULL, 0);
    assert_int_equal(faults_figure(proxy, "accepted"), before);
    assert_int_equal(stat_of(store, "connected"), 0);
    assert_miss(ask_get(store, "a"));
    assert_miss(ask_pop(store, "a"));
    assert_int_equal(faults_figure(proxy, "accepted"), before + 1);
    assert_int_equal(stat_of(store, "connected"), 1);
    assert_int_equal(stat_of(store, "connects"), 1);
}

static void a_connection_that_ends_comes_back_by_itself(void **state)
{
    told      t = {0};
    cf_store *store = open_redis(*state, proxy->port, NULL, 0);
    cf_store_on_event(store, on_told, &t);
    assert_true(ask_set(store, "a", "1").hit);
    assert_int_equal(t.count[CF_EVENT_CONNECT], 1);
    faults_say(proxy, "now cut reply 0 fin ; cut request 0 fin");
    RUN_UNTIL(*state, t.count[CF_EVENT_CONNECT] == 2, 2000);
    assert_int_equal(t.count[CF_EVENT_DISCONNECT], 1);
    assert_int_equal(t.last[CF_EVENT_DISCONNECT].status, CF_EUNAVAILABLE);
    assert_non_null(strstr(t.last[CF_EVENT_DISCONNECT].text, "127.0.0.1"));
    assert_int_equal(t.count[CF_EVENT_ERROR], 0);
    assert_value(ask_get(store, "a"), "1");
    assert_int_equal(stat_of(store, "disconnects"), 1);
}

static void attempts_that_fail_are_told_and_go_on(void **state)
{
    server    other;
    told      t = {0};
    server_start(&other, NULL);
    server_kill(&other);
    cf_store *store = open_redis(*state, other.port, NULL, 5000);
    cf_store_on_event(store, on_told, &t);
    cf_op *op = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    cf_loop_flush(*state);
    RUN_UNTIL(*state, t.count[CF_EVENT_ERROR] >= 3, 4000);
    assert_int_equal(t.last[CF_EVENT_ERROR].status, CF_EUNAVAILABLE);
    assert_int_equal(t.count[CF_EVENT_CONNECT], 0);
    server_again(&other);
    assert_int_equal(cf_op_wait(op), CF_OK); /* it has waited, within its deadline */
    assert_int_equal(t.count[CF_EVENT_CONNECT], 1);
    cf_op_free(op);
    cf_store_close(store, NULL);
    server_stop(&other);
}

static void settings_that_break_a_promise_are_told(void **state)
{
    static const struct {
        const char *options[7], *word;
    } rows[] = {
        {{"--save", "3600 1", NULL}, "snapshots"},
        {{"--appendonly", "yes", "--appendfsync", "everysec", NULL}, "appendfsync"},
        {{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", NULL}, "maxmemory_policy"},
        {{"--appendonly", "yes", "--appendfsync", "always", NULL}, NULL},
        {{"--maxmemory", "100mb", "--maxmemory-policy", "noeviction", NULL}, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        server other;
        told   t = {0};
        char   command[64];
        server_start(&other, rows[i].options);
        cf_store *store = open_redis(*state, other.port, NULL, 0);
        cf_store_on_event(store, on_told, &t);
        ask_set(store, "a", "1");
        for (int turn = 0; turn < 20; turn++) cf_loop_run(*state, 5);
        assert_int_equal(t.count[CF_EVENT_WARNING], rows[i].word ? 1 : 0);
        if (rows[i].word) assert_non_null(strstr(t.last[CF_EVENT_WARNING].text, rows[i].word));
        cf_store_close(store, NULL);
        server_stop(&other);
        snprintf(command, sizeof command, "rm -rf %s", other.folder); /* the log of writes */
        assert_int_equal(system(command), 0);
    }
}

/* ---------------------------------------------------------------------------------------------------------- greetings -- */

static void a_database_that_does_not_exist(void **state)
{
    cf_open_options open = {.size = sizeof open};
    cf_store       *store;
    char            url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/99", one.port);
    assert_ok(cf_open(*state, cf_text(url), &open, &store, NULL));
    cf_op *op;
    int    status = cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("1")), &op);
    if (status == CF_PENDING) status = cf_op_wait(op);
    assert_int_equal(status, CF_EINVAL);
    assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
    assert_non_null(strstr(cf_op_error(op)->text, "no database 99"));
    cf_op_free(op);
    assert_string_equal(server_says(&one, "EXISTS a"), ":0");
    op = NULL;
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")), &op), CF_EINVAL); /* at once */
    cf_op_free(op);
}

static void a_wrong_password_is_tried_once_a_second_and_fails_at_once(void **state)
{
    server other;
    server_start(&other, NULL); /* the password comes later: the start asks with none */
    server_says(&other, "CONFIG SET requirepass right");
    cf_loop  *loop = *state;
    cf_store *store = open_redis(loop, other.port, "?password=wrong", 5000);
    server_says(&other, "AUTH right");
    server_says(&other, "CONFIG RESETSTAT");
    int64_t   from = now_ms();
    unsigned  calls = 0;
    while (now_ms() < from + 2500) {
        int64_t start = now_ms();
        answer  a = ask_get(store, "a");
        assert_int_equal(a.status, CF_EAUTH);
        assert_int_equal(a.outcome, CF_NOT_APPLIED);
        assert_in_range(now_ms() - start, 0, 500);
        calls++;
        cf_loop_run(loop, 1);
    }
    assert_true(calls > 20);
    long long attempts = server_calls(&other, "auth");
    assert_in_range(attempts, 2, 4);
    server_says(&other, "CONFIG SET requirepass wrong");
    for (int64_t until = now_ms() + 3000; now_ms() < until && ask_get(store, "a").status != CF_OK;) cf_loop_run(loop, 20);
    assert_miss(ask_get(store, "a"));
    cf_store_close(store, NULL);
    server_stop(&other);
}

static void without_a_password_where_one_is_asked_for(void **state)
{
    server other;
    server_start(&other, NULL);
    server_says(&other, "CONFIG SET requirepass right");
    cf_store *store = open_redis(*state, other.port, NULL, 0);
    assert_int_equal(ask_get(store, "a").status, CF_EAUTH);
    cf_store_close(store, NULL);
    server_stop(&other);
}

static void a_right_that_is_missing(void **state)
{
    server_says(&one, "ACL SETUSER little on >pw ~* -@all +get +ping +info +client +select +auth");
    cf_store *store = open_redis(*state, one.port, "?user=little&password=pw", 0);
    assert_miss(ask_get(store, "a"));
    answer a = ask_set(store, "a", "1");
    assert_int_equal(a.status, CF_EAUTH);
    assert_int_equal(a.outcome, CF_NOT_APPLIED);
    a = ask_pop(store, "a");
    assert_int_equal(a.status, CF_EAUTH);
    assert_int_equal(a.outcome, CF_NOT_APPLIED);
    assert_miss(ask_get(store, "a"));
    assert_int_equal(stat_of(store, "connects"), 1);
    server_says(&one, "ACL DELUSER little"); /* ends its connections too */
    a = ask_get(store, "a");
    assert_int_equal(a.status, CF_EAUTH);
}

static void as_many_clients_as_the_server_allows(void **state)
{
    server    other;
    told      t = {0};
    char      command[64];
    server_start(&other, NULL);
    snprintf(command, sizeof command, "CONFIG SET maxclients 1");
    assert_string_equal(server_says(&other, command), "+OK");
    cf_store *store = open_redis(*state, other.port, NULL, 0);
    cf_store_on_event(store, on_told, &t);
    cf_op *op = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("1"), .timeout_ms = 300));
    assert_int_equal(cf_op_wait(op), CF_EUNAVAILABLE);
    assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
    assert_non_null(strstr(cf_op_error(op)->text, "as many clients"));
    cf_op_free(op);
    assert_true(t.count[CF_EVENT_ERROR] > 0);
    server_says(&other, "CONFIG SET maxclients 100");
    assert_true(ask_set(store, "a", "2").hit);
    cf_store_close(store, NULL);
    server_stop(&other);
}

/* -------------------------------------------------------------------------------------------------------------- queue -- */

static void a_full_queue_says_busy_and_recovers(void **state)
{
    static const char *const options[] = {"?max_pending=10", "?max_pending_bytes=65536"};
    static char              big[16 * 1024];
    memset(big, 'x', sizeof big - 1);
    for (int bytes = 0; bytes < 2; bytes++) {
        cf_store *store = open_redis(*state, one.port, options[bytes], 0);
        assert_true(ask_set(store, "warm", "1").hit);
        for (int i = 0; i < 5; i++) cf_loop_run(*state, 5);
        server_pause(&one);
        cf_op *ops[16];
        int    count = 0, status = CF_PENDING;
        while (count < 16 && status == CF_PENDING)
            status = cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text(bytes ? big : "1")), &ops[count++]);
        assert_int_equal(status, CF_EBUSY);
        assert_int_equal(count, bytes ? 4 : 11);
        assert_int_equal(cf_op_error(ops[count - 1])->outcome, CF_NOT_APPLIED);
        assert_int_equal(stat_of(store, "busy"), 1);
        cf_loop_flush(*state);
        server_resume(&one);
        for (int i = 0; i < count; i++) {
            if (i < count - 1) assert_int_equal(cf_op_wait(ops[i]), CF_OK);
            cf_op_free(ops[i]);
        }
        assert_true(ask_set(store, "a", "2").hit);
        assert_value(ask_get(store, "a"), "2");
        cf_store_close(store, NULL);
    }
}

static void what_was_cancelled_makes_room_and_is_never_sent(void **state)
{
    cf_store *store = open_redis(*state, one.port, "?max_pending=10", 0);
    assert_true(ask_set(store, "warm", "1").hit);
    for (int i = 0; i < 5; i++) cf_loop_run(*state, 5);
    long long sets = server_calls(&one, "set");
    for (int round = 0; round < 30; round++) {
        cf_op *op = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("never"), .value = cf_text("1")));
        assert_ok(cf_op_cancel(op));
        assert_int_equal(cf_op_status(op), CF_ECANCELED);
        assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
        cf_op_free(op);
    }
    assert_value(ask_get(store, "warm"), "1");
    assert_miss(ask_get(store, "never"));
    assert_int_equal(server_calls(&one, "set"), sets);
    assert_int_equal(stat_of(store, "busy"), 0);
}

/* ---------------------------------------------------------------------------------------------------------- deadlines -- */

static void a_deadline_while_the_server_is_down(void **state)
{
    server other;
    server_start(&other, NULL);
    server_kill(&other);
    cf_store *store = open_redis(*state, other.port, NULL, 0);
    int64_t   from = now_ms();
    cf_op    *op = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("1"), .timeout_ms = 300));
    assert_int_equal(cf_op_wait(op), CF_EUNAVAILABLE);
    assert_in_range(now_ms() - from, 299, 1300);
    assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
    assert_non_null(strstr(cf_op_error(op)->text, "efused"));
    assert_int_equal(cf_op_receipt(op).len, 0);
    cf_op_free(op);
    server_again(&other);
    server_await(&other);
    assert_miss(ask_get(store, "a"));
    cf_store_close(store, NULL);
    server_stop(&other);
}

static void a_late_answer_reaches_nobody(void **state)
{
    cf_store *store = open_redis(*state, one.port, NULL, 0);
    ask_set(store, "a", "of a");
    ask_set(store, "b", "of b");
    for (int i = 0; i < 5; i++) cf_loop_run(*state, 5);
    server_pause(&one);
    cf_op *get = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 100));
    cf_op *set = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("c"), .value = cf_text("1"), .timeout_ms = 100));
    cf_op *pop = begin(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a"), .timeout_ms = 100));
    cf_op *freed = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    cf_loop_flush(*state);
    cf_op_free(freed);
    assert_int_equal(cf_op_wait(get), CF_ETIMEOUT);
    assert_int_equal(cf_op_error(get)->outcome, CF_NOT_APPLIED); /* it reads */
    assert_int_equal(cf_op_wait(set), CF_ETIMEOUT);
    assert_int_equal(cf_op_error(set)->outcome, CF_UNKNOWN);
    assert_int_equal(cf_op_receipt(set).len, 0);
    assert_int_equal(cf_op_wait(pop), CF_ETIMEOUT);
    assert_int_equal(cf_op_error(pop)->outcome, CF_UNKNOWN);
    assert_int_equal(cf_op_receipt(pop).len, CF_RECEIPT_LEN);
    cf_op *after = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("b")));
    cf_loop_flush(*state);
    server_resume(&one);
    assert_int_equal(cf_op_wait(after), CF_OK);
    assert_int_equal(cf_op_value(after).len, 4);
    assert_memory_equal(cf_op_value(after).ptr, "of b", 4);
    assert_int_equal(stat_of(store, "late"), 4);
    assert_int_equal(stat_of(store, "connects"), 1);
    cf_op *again = begin(store, CF_REQUEST(CF_OP_POP, .key = cf_text("a"), .receipt = cf_op_receipt(pop)));
    assert_int_equal(cf_op_wait(again), CF_OK);
    assert_true(cf_op_hit(again));
    assert_memory_equal(cf_op_value(again).ptr, "of a", 4);
    cf_op *all[] = {get, set, pop, after, again};
    for (int i = 0; i < 5; i++) cf_op_free(all[i]);
}

static void a_silent_connection_is_given_up(void **state)
{
    told      t = {0};
    cf_store *store = open_redis(*state, proxy->port, "?silence=0.3", 0);
    cf_store_on_event(store, on_told, &t);
    ask_set(store, "a", "1");
    for (int i = 0; i < 5; i++) cf_loop_run(*state, 5);
    faults_say(proxy, "now cut reply 0 stall");
    assert_value(ask_get(store, "a"), "1"); /* asked again on another connection */
    assert_int_equal(t.count[CF_EVENT_DISCONNECT], 1);
    assert_int_equal(stat_of(store, "retries"), 1);
}

/* ------------------------------------------------------------------------------------------------------ scripts, stores -- */

static void scripts_may_vanish_at_any_time(void **state)
{
    enum { TURNS = 200, AT_ONCE = 16 };
    cf_store *store = open_redis(*state, one.port, NULL, 0);
    for (int turn = 0; turn < TURNS; turn++) {
        cf_op *ops[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) ops[i] = begin(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1));
        cf_loop_flush(*state);
        if (turn % 3 == 0) server_says(&one, "SCRIPT FLUSH");
        for (int i = 0; i < AT_ONCE; i++) {
            assert_int_equal(cf_op_wait(ops[i]), CF_OK);
            cf_op_free(ops[i]);
        }
    }
    assert_int_equal(server_number(&one, "GET n"), TURNS * AT_ONCE);
    assert_int_equal(stat_of(store, "connects"), 1);
}

static void closing_ends_what_is_in_flight(void **state)
{
    cf_store *store = open_redis(*state, one.port, NULL, 0), *other = open_redis(*state, one.port, NULL, 0);
    ask_set(store, "a", "1");
    seen   sent = {0}, unsent = {0}, stays = {0};
    server_pause(&one);
    cf_op *ops[] = {begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("2"), .done = see, .user = &sent)), NULL, NULL};
    cf_loop_flush(*state);
    ops[1] = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("b"), .value = cf_text("2"), .done = see, .user = &unsent));
    ops[2] = begin(other, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .done = see, .user = &stays));
    assert_ok(cf_store_close(store, NULL));
    assert_int_equal(sent.calls, 1);
    assert_int_equal(sent.status, CF_ECLOSED);
    assert_int_equal(sent.outcome, CF_UNKNOWN);
    assert_int_equal(unsent.status, CF_ECLOSED);
    assert_int_equal(unsent.outcome, CF_NOT_APPLIED);
    assert_int_equal(stays.calls, 0);
    server_resume(&one);
    assert_int_equal(cf_op_wait(ops[2]), CF_OK);
    assert_string_equal(server_says(&one, "EXISTS b"), ":0");
    for (int i = 0; i < 3; i++) cf_op_free(ops[i]);
}

static void a_receipt_with_other_arguments_is_refused(void **state)
{
    cf_store  *store = open_redis(*state, proxy->port, NULL, 0);
    const char *receipt = "0123456789abcdef0123456789abcdef";
    cf_request  with = {.size = sizeof with, .key = cf_text("a"), .receipt = cf_text(receipt)};
    ask_set(store, "a", "1");
    with.kind = CF_OP_POP;
    assert_value(ask(store, &with), "1");
    assert_value(ask(store, &with), "1");
    assert_miss(ask_pop(store, "a"));
    with.kind = CF_OP_INCR;
    with.by = 1;
    assert_int_equal(ask(store, &with).status, CF_EINVAL);
    with.receipt = cf_text("too short");
    assert_int_equal(ask(store, &with).status, CF_EINVAL);
    with.receipt = cf_text(receipt);
    with.kind = CF_OP_GET;
    assert_int_equal(ask(store, &with).status, CF_EINVAL);
    answer count = ask_count(store); /* and no page shows a receipt */
    assert_int_equal(count.number, 0);
}

/* ------------------------------------------------------------------------------------------------ failures of the machine -- */

static int open_files(void)
{
    int  count = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) count++;
    closedir(d);
    return count;
}

/* A stage's clock stands still until it is moved; every deadline passes at last. */
static int wait_staged(cf_stage *stage, cf_op *op)
{
    int status = cf_op_status(op);
    for (int i = 0; i < 4000 && status == CF_PENDING; i++) {
        status = cf_op_wait_for(op, 2);
        if (cf_op_status(op) == CF_PENDING && cf_stage_failed(stage)) cf_stage_advance(stage, 30);
        status = cf_op_status(op);
    }
    return status;
}

static void any_system_call_may_fail_once(void **state)
{
    static const int errors[] = {ECONNRESET, ENOMEM, EMFILE, EINTR};
    char             url[64];
    unsigned         runs = 0, hurt = 0;
    (void)state;
    for (int e = 0; e < 4; e++) {
        snprintf(url, sizeof url, "redis://%s:%d", e % 2 ? "localhost" : "127.0.0.1", one.port);
        bool met = true;
        for (uint64_t nth = 1; met && nth < 400; nth++) {
            cf_stage *stage = cf_stage_new();
            cf_loop  *loop = NULL;
            cf_store *store = NULL;
            int       files = open_files();
            server_says(&one, "FLUSHALL");
            cf_stage_fail_syscall(stage, nth, errors[e]);
            if (cf_loop_new(cf_stage_platform(stage), &loop) == CF_OK && cf_open(loop, cf_text(url), NULL, &store, NULL) == CF_OK) {
                static const int kinds[] = {CF_OP_SET, CF_OP_GET, CF_OP_INCR, CF_OP_POP, CF_OP_COUNT};
                for (int i = 0; i < 5; i++) {
                    cf_op *op = NULL;
                    int    status = cf_submit(store, CF_REQUEST(kinds[i], .key = cf_text(kinds[i] == CF_OP_INCR ? "n" : kinds[i] == CF_OP_COUNT ? "" : "a"),
                                                                .value = cf_text("1"), .by = 1), &op);
                    if (status == CF_PENDING) status = wait_staged(stage, op);
                    if (status == CF_PENDING) fail_msg("call %d never ends when system call %d fails with %d", kinds[i], (int)nth, errors[e]);
                    if (status != CF_OK) hurt++;
                    if (status != CF_OK && !cf_stage_failed(stage)) fail_msg("%s and nothing failed", cf_status_name(status));
                    if (status == CF_OK && kinds[i] == CF_OP_INCR) assert_int_equal(cf_op_number(op), 1);
                    if (status == CF_OK && kinds[i] == CF_OP_POP && cf_op_hit(op)) assert_int_equal(cf_op_value(op).len, 1);
                    cf_op_free(op);
                }
            }
            met = cf_stage_failed(stage);
            runs++;
            cf_loop_free(loop);
            for (int i = 0; i < 200 && (cf_stage_blocks(stage) != 0 || open_files() != files); i++) nap(5); /* a look-up that ends */
            if (cf_stage_blocks(stage) != 0) fail_msg("%d blocks leak when system call %d fails", (int)cf_stage_blocks(stage), (int)nth);
            if (open_files() != files) fail_msg("a descriptor leaks when system call %d fails", (int)nth);
            cf_stage_free(stage);
        }
        assert_false(met); /* the last run came through */
    }
    printf("%u runs with a failing system call; %u calls failed\n", runs, hurt);
}

int main(void)
{
    hang_guard(300);
#define TEST(name) cmocka_unit_test_setup_teardown(name, loop_up, loop_down)
    const struct CMUnitTest tests[] = {
        TEST(opening_says_nothing_and_one_connection_is_enough),
        TEST(a_connection_that_ends_comes_back_by_itself),
        TEST(attempts_that_fail_are_told_and_go_on),
        TEST(settings_that_break_a_promise_are_told),
        TEST(a_database_that_does_not_exist),
        TEST(a_wrong_password_is_tried_once_a_second_and_fails_at_once),
        TEST(without_a_password_where_one_is_asked_for),
        TEST(a_right_that_is_missing),
        TEST(as_many_clients_as_the_server_allows),
        TEST(a_full_queue_says_busy_and_recovers),
        TEST(what_was_cancelled_makes_room_and_is_never_sent),
        TEST(a_deadline_while_the_server_is_down),
        TEST(a_late_answer_reaches_nobody),
        TEST(a_silent_connection_is_given_up),
        TEST(scripts_may_vanish_at_any_time),
        TEST(closing_ends_what_is_in_flight),
        TEST(a_receipt_with_other_arguments_is_refused),
        TEST(any_system_call_may_fail_once),
    };
    return cmocka_run_group_tests_name("redis", tests, group_up, group_down);
}
