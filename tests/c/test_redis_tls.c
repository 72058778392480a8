/* Redis over TLS: sockets that take and give what they like, large values, many in flight, and system calls that fail. The server is
 * that of CF_TEST_REDIS_TLS (with_servers.sh). */
#include "support.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BIG = CF_VALUE_MAX, MANY = 256 };

/* The real machine with a socket that takes and gives less than it could. Its memory is counted. */
typedef struct narrow {
    counting counted; /* first: its functions are given this struct */
    rng      random;
    size_t   takes, gives; /* bytes at once, at most; 0: all. HALF, ANY */
    bool     pauses;       /* every other time nothing */
    bool     turn, turn_read;
    uint64_t sends, reads;
    uint64_t fail_send, fail_read; /* the nth from now; 0: none */
    bool     failed;
} narrow;
enum { HALF = -1, ANY = -2 };

static size_t portion(narrow *n, size_t limit, size_t count)
{
    if (limit == (size_t)HALF) limit = count / 2;
    else if (limit == (size_t)ANY) limit = (size_t)rng_below(&n->random, count < 3000 ? count + 1 : 3000);
    else if (limit == 0) return count;
    if (limit == 0) limit = 1;
    return limit < count ? limit : count;
}

static bool not_now(narrow *n, bool *turn)
{
    *turn = !*turn;
    if (n->pauses && *turn) errno = EAGAIN;
    return n->pauses && *turn;
}

static bool breaks(narrow *n, uint64_t *nth, int error)
{
    if (*nth == 0 || --*nth) return false;
    n->failed = true;
    errno = error;
    return true;
}

static int64_t narrow_send(void *self, int fd, const void *bytes, size_t count)
{
    narrow            *n = self;
    const cf_platform *real = cf_platform_real();
    n->sends++;
    if (breaks(n, &n->fail_send, EPIPE) || not_now(n, &n->turn)) return -1;
    return real->send(real->self, fd, bytes, portion(n, n->takes, count));
}

static int64_t narrow_read(void *self, int fd, void *bytes, size_t count)
{
    narrow            *n = self;
    const cf_platform *real = cf_platform_real();
    if (count <= 8) return real->read(real->self, fd, bytes, count); /* of the loop's own descriptors */
    n->reads++;
    if (breaks(n, &n->fail_read, ECONNRESET) || not_now(n, &n->turn_read)) return -1;
    return real->read(real->self, fd, bytes, portion(n, n->gives, count));
}

static uint64_t seed;
static char    *big; /* BIG bytes of everything */

typedef struct there {
    narrow    net;
    cf_loop  *loop;
    cf_store *store;
} there;

static void there_open(there *t)
{
    char        prefix[40];
    cf_error    error = {0};
    const char *url = getenv("CF_TEST_REDIS_TLS");
    if (!url) fail_msg("CF_TEST_REDIS_TLS is not set: see with_servers.sh");
    memset(t, 0, sizeof *t);
    counting_init(&t->net.counted);
    t->net.random.state = seed;
    t->net.counted.platform.self = &t->net;
    t->net.counted.platform.send = narrow_send;
    t->net.counted.platform.read = narrow_read;
    snprintf(prefix, sizeof prefix, "tls-%ld:", (long)getpid());
    cf_open_options options = {.size = sizeof options, .prefix = cf_text(prefix), .ttl_ms = 120000, .timeout_ms = 60000};
    assert_ok(cf_loop_new(&t->net.counted.platform, &t->loop));
    if (cf_open(t->loop, cf_text(url), &options, &t->store, &error) != CF_OK) fail_msg("%s", error.text);
}

static void there_close(there *t)
{
    assert_ok(cf_store_close(t->store, NULL));
    cf_loop_free(t->loop);
    assert_int_equal(t->net.counted.blocks, 0);
}

static void insist(cf_op *op, int status)
{
    while (status == CF_PENDING) status = cf_op_wait(op);
    if (status != CF_OK) fail_msg("%s: %s", cf_status_name(status), cf_op_error(op)->text);
}

static cf_op *begin(there *t, int kind, const char *key, cf_slice value)
{
    cf_op *op = NULL;
    int    status = cf_submit(t->store, CF_REQUEST(kind, .key = cf_text(key), .value = value), &op);
    if (status != CF_PENDING) fail_msg("%s: %s", cf_status_name(status), op ? cf_op_error(op)->text : "no memory");
    return op;
}

static void end_set(cf_op *op)
{
    insist(op, cf_op_status(op));
    assert_true(cf_op_hit(op));
    cf_op_free(op);
}

static void end_get(cf_op *op, cf_slice expected)
{
    insist(op, cf_op_status(op));
    cf_slice value = cf_op_value(op);
    assert_true(cf_op_hit(op));
    assert_int_equal(value.len, expected.len);
    assert_true(expected.len == 0 || memcmp(value.ptr, expected.ptr, value.len) == 0);
    cf_op_free(op);
}

static void there_and_back(there *t, const char *key, cf_slice value)
{
    end_set(begin(t, CF_OP_SET, key, value));
    end_get(begin(t, CF_OP_GET, key, cf_bytes(NULL, 0)), value);
    end_get(begin(t, CF_OP_POP, key, cf_bytes(NULL, 0)), value);
}

/* ---------------------------------------------------------------------------------------------------------- the socket -- */

static void a_socket_that_takes_half_and_then_nothing(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    t.net.takes = (size_t)HALF;
    t.net.pauses = true;
    for (int i = 0; i < 100; i++) there_and_back(&t, "half", cf_text("0123456789012345678901234567890"));
    there_and_back(&t, "half", cf_bytes(big, BIG));
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

/* What was watched for while bytes waited is not watched for any more: it would wake us for nothing, all the time. */
static void a_socket_that_is_writable_wakes_nobody(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    t.net.takes = (size_t)HALF;
    t.net.pauses = true;
    there_and_back(&t, "idle", cf_bytes(big, BIG));
    cf_op *op = begin(&t, CF_OP_SET, "idle", cf_bytes(big, 1000));
    end_set(op);
    uint64_t before = t.net.reads;
    for (int i = 0; i < 20; i++) {
        cf_loop_run(t.loop, 0);
        usleep(1000);
    }
    assert_in_range(t.net.reads - before, 0, 4);
    there_close(&t);
}

static void a_socket_that_takes_and_gives_single_bytes(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    t.net.takes = t.net.gives = 1;
    t.net.pauses = true;
    for (int i = 0; i < 5; i++) there_and_back(&t, "byte", cf_bytes(big, 5));
    t.net.pauses = false;
    there_and_back(&t, "byte", cf_bytes(big, 40000));
    assert_int_equal(stat_of(t.store, "connects"), 1);
    assert_true(t.net.sends > 40000 && t.net.reads > 80000); /* or it was not so narrow */
    there_close(&t);
}

static void a_socket_that_takes_and_gives_what_it_likes(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    t.net.takes = t.net.gives = (size_t)ANY;
    t.net.pauses = true;
    cf_op   *ops[16];
    cf_slice values[16];
    char     keys[16][16];
    for (int round = 0; round < 25; round++) {
        for (size_t i = 0; i < 16; i++) {
            size_t from = (size_t)rng_below(&t.net.random, 1000), most = rng_below(&t.net.random, 4) ? 200 : 40000;
            values[i] = cf_bytes(big + from, (size_t)rng_below(&t.net.random, most));
            snprintf(keys[i], sizeof keys[i], "any-%zu", i);
            ops[i] = begin(&t, CF_OP_SET, keys[i], values[i]);
        }
        for (size_t i = 0; i < 16; i++) end_set(ops[i]);
        for (size_t i = 0; i < 16; i++) ops[i] = begin(&t, CF_OP_POP, keys[i], cf_bytes(NULL, 0));
        for (size_t i = 16; i-- > 0;) end_get(ops[i], values[i]);
    }
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

/* ------------------------------------------------------------------------------------------------------- many and large -- */

static void the_largest_value_there_and_back(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    for (size_t less = 0; less < 3; less++) there_and_back(&t, "big", cf_bytes(big, BIG - less));
    /* Around the size of a TLS record, and of what is read at once. */
    for (size_t size = 16384 - 60; size <= 16384 + 2; size++) there_and_back(&t, "record", cf_bytes(big, size));
    for (size_t size = 65536 - 12; size <= 65536 + 2; size++) there_and_back(&t, "input", cf_bytes(big, size));
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

static void many_in_flight_are_few_records(void **state)
{
    (void)state;
    there  t;
    cf_op *ops[MANY];
    char   keys[MANY][16], values[MANY][600];
    there_open(&t);
    there_and_back(&t, "many", cf_text("connects"));
    for (size_t i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "many-%zu", i);
        snprintf(values[i], sizeof values[i], "%0500zu%s", i, keys[i]);
        ops[i] = begin(&t, CF_OP_SET, keys[i], cf_text(values[i]));
    }
    for (size_t i = 0; i < MANY; i++) end_set(ops[i]);
    uint64_t before = t.net.sends;
    for (size_t i = 0; i < MANY; i++) ops[i] = begin(&t, CF_OP_GET, keys[i], cf_bytes(NULL, 0));
    assert_int_equal(t.net.sends, before); /* corked until the end of the tick */
    for (size_t i = 0; i < MANY; i++) end_get(ops[i], cf_text(values[i]));
    assert_in_range(t.net.sends - before, 1, 4);
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

/* More answers than one wake-up reads (4 times 64 KiB), and than sockets hold. */
static void large_answers_to_one_who_is_slow(void **state)
{
    (void)state;
    there  t;
    cf_op *ops[40];
    there_open(&t);
    end_set(begin(&t, CF_OP_SET, "slow", cf_bytes(big, BIG)));
    for (size_t i = 0; i < 40; i++) ops[i] = begin(&t, CF_OP_GET, "slow", cf_bytes(NULL, 0));
    assert_true(cf_op_wait_for(ops[0], 0) == CF_PENDING); /* sends */
    usleep(200 * 1000);                                   /* nobody reads: the server has more to say than sockets hold */
    for (size_t i = 0; i < 40; i++) end_get(ops[i], cf_bytes(big, BIG));
    assert_int_equal(stat_of(t.store, "connects"), 1);
    assert_int_equal(stat_of(t.store, "in_flight"), 0);
    there_close(&t);
}

/* What one wake-up reads ends within a record: the rest of it is not in the socket any more, which therefore says nothing of it. */
static void an_answer_that_ends_just_behind_what_is_read_at_once(void **state)
{
    (void)state;
    static const int behind[] = {-12, -11, -10, -1, 0, 1, 100, 1000, 4000, 8000, 12000};
    there            t;
    there_open(&t);
    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++) {
        cf_slice value = cf_bytes(big, (size_t)(4 * 65536 + behind[i]));
        end_set(begin(&t, CF_OP_SET, "behind", value));
        cf_op *op = begin(&t, CF_OP_GET, "behind", cf_bytes(NULL, 0));
        cf_op_wait_for(op, 0); /* sends */
        usleep(20 * 1000);     /* all of it has come */
        end_get(op, value);
    }
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

static void large_values_both_ways_at_once(void **state)
{
    (void)state;
    there  t;
    cf_op *sets[12], *gets[12];
    char   key[16];
    there_open(&t);
    for (int slow = 0; slow < 2; slow++) {
        t.net.takes = slow ? 10000 : 0;
        t.net.gives = slow ? 5000 : 0;
        t.net.pauses = slow;
        end_set(begin(&t, CF_OP_SET, "both", cf_bytes(big, BIG)));
        for (size_t i = 0; i < 12; i++) {
            snprintf(key, sizeof key, "both-%zu", i);
            sets[i] = begin(&t, CF_OP_SET, key, cf_bytes(big + i, BIG - i));
            gets[i] = begin(&t, CF_OP_GET, i % 2 ? "both" : key, cf_bytes(NULL, 0));
        }
        for (size_t i = 0; i < 12; i++) {
            end_get(gets[i], i % 2 ? cf_bytes(big, BIG) : cf_bytes(big + i, BIG - i));
            end_set(sets[i]);
        }
    }
    assert_int_equal(stat_of(t.store, "connects"), 1);
    there_close(&t);
}

/* ------------------------------------------------------------------------------------------------------------- failures -- */

/* Whichever call of the socket fails, in the handshake, the greeting or later: a read is asked again on a new connection. */
static void every_call_of_the_socket_may_fail(void **state)
{
    (void)state;
    there t;
    there_open(&t);
    end_set(begin(&t, CF_OP_SET, "fails", cf_bytes(big, 100000)));
    there_close(&t);
    for (int reading = 0; reading < 2; reading++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            there_open(&t);
            *(reading ? &t.net.fail_read : &t.net.fail_send) = nth;
            end_get(begin(&t, CF_OP_GET, "fails", cf_bytes(NULL, 0)), cf_bytes(big, 100000));
            failed = t.net.failed;
            assert_in_range(nth, 1, 1000);
            there_close(&t);
            assert_true(failed || nth > 3); /* several did fail */
        }
    }
}

static void closing_amid_large_answers_leaves_nothing(void **state)
{
    (void)state;
    there  t;
    cf_op *ops[8];
    for (int wait_ms = 0; wait_ms < 12; wait_ms += 2) {
        there_open(&t);
        end_set(begin(&t, CF_OP_SET, "close", cf_bytes(big, BIG)));
        for (size_t i = 0; i < 8; i++) ops[i] = begin(&t, i % 2 ? CF_OP_GET : CF_OP_SET, "close", cf_bytes(big, i % 2 ? 0 : BIG));
        cf_op_wait_for(ops[7], wait_ms);
        assert_ok(cf_store_close(t.store, NULL));
        for (size_t i = 0; i < 8; i++) {
            int status = cf_op_status(ops[i]);
            if (status != CF_OK) assert_int_equal(status, CF_ECLOSED);
            cf_op_free(ops[i]);
        }
        cf_loop_free(t.loop);
        assert_int_equal(t.net.counted.blocks, 0);
    }
}

int main(void)
{
    hang_guard(300);
    seed = seed_of_run();
    big = malloc(BIG + 1000);
    if (!big) return 2;
    rng random = {seed};
    for (size_t i = 0; i < BIG + 1000; i++) big[i] = (char)rng_next(&random);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_that_takes_half_and_then_nothing),
        cmocka_unit_test(a_socket_that_is_writable_wakes_nobody),
        cmocka_unit_test(a_socket_that_takes_and_gives_single_bytes),
        cmocka_unit_test(a_socket_that_takes_and_gives_what_it_likes),
        cmocka_unit_test(the_largest_value_there_and_back),
        cmocka_unit_test(many_in_flight_are_few_records),
        cmocka_unit_test(large_answers_to_one_who_is_slow),
        cmocka_unit_test(an_answer_that_ends_just_behind_what_is_read_at_once),
        cmocka_unit_test(large_values_both_ways_at_once),
        cmocka_unit_test(every_call_of_the_socket_may_fail),
        cmocka_unit_test(closing_amid_large_answers_leaves_nothing),
    };
    int failed = cmocka_run_group_tests_name("redis_tls", tests, NULL, NULL);
    free(big);
    return failed;
}
