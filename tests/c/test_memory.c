/* The memory backend: growth without stalls, scans that miss nothing, expiry to the millisecond, eviction, sharing. */
#include "support.h"

#include <pthread.h>
#include <string.h>

static void name_of(char *key, uint64_t i) { snprintf(key, 32, "key-%llu", (unsigned long long)i); }

/* ---- growth ---- */

/* No single insert may rehash everything: whoever rehashes needs the memory for it, so what one insert allocates tells. */
static void no_insert_allocates_much(void **state)
{
    (void)state;
    counting  c;
    cf_loop  *loop;
    uint64_t  count = env_number("CF_GROWTH", 300000), worst = 0, worst_allocations = 0;
    char      key[32];
    counting_init(&c);
    assert_ok(cf_loop_new(&c.platform, &loop));
    cf_store *store = open_url(loop, "memory:");
    ask_set(store, "warm", "up");
    int64_t before = c.live;
    for (uint64_t i = 0; i < count; i++) {
        name_of(key, i);
        counting_reset(&c);
        assert_int_equal(ask_set(store, key, "0123456789").status, CF_OK);
        if (c.bytes > worst) worst = c.bytes;
        if (c.allocations > worst_allocations) worst_allocations = c.allocations;
    }
    printf("%llu inserts: at most %llu bytes in %llu allocations each, %.1f bytes an entry beyond key and value\n",
           (unsigned long long)count, (unsigned long long)worst, (unsigned long long)worst_allocations,
           (double)(c.live - before) / (double)count - 19);
    /* A table that doubles would have needed 8 bytes for each of half of them, at once. */
    assert_true(worst < 64 * 1024);
    assert_true(worst < count * 8 / 8);
    assert_true(worst_allocations <= 4);
    assert_int_equal(stat_of(store, "entries"), (int64_t)count + 1);

    /* And deleting gives it back, step by step. */
    int64_t full = c.live;
    for (uint64_t i = 0; i < count; i++) {
        name_of(key, i);
        counting_reset(&c);
        assert_true(ask_delete(store, key).hit);
        assert_true(c.allocations <= 2);
    }
    assert_int_equal(stat_of(store, "entries"), 1);
    if (c.live - before > (full - before) / 50) fail_msg("%lld of %lld bytes are still there", (long long)(c.live - before), (long long)(full - before));
    assert_value(ask_get(store, "warm"), "up");
    cf_loop_free(loop);
    assert_int_equal(c.blocks, 0);
}

/* ---- scans ---- */

/* Keys that are there from the first page to the last come exactly once, whatever comes and goes meanwhile. */
static void a_scan_misses_nothing_and_repeats_nothing(void **state)
{
    world *w = *state;
    rng    random = {seed_of_run()};
    enum { STAY = 3000 };
    for (int round = 0; round < 12; round++) {
        cf_store *store = open_url(w->loop, "memory:");
        static unsigned char times[STAY];
        char                 key[32];
        uint64_t             passing = 0, alive_from = 0;
        memset(times, 0, sizeof times);
        /* Begin with many or few others, then grow or shrink during the scan. */
        uint64_t others = round % 3 == 0 ? 0 : rng_below(&random, 20000);
        for (; passing < others; passing++) {
            snprintf(key, sizeof key, "pass-%llu", (unsigned long long)passing);
            ask_set(store, key, "");
        }
        for (int i = 0; i < STAY; i++) {
            snprintf(key, sizeof key, "stay-%d", i);
            ask_set(store, key, "");
        }
        char   cursor[256];
        size_t cursor_len = 0;
        int    pages = 0;
        do {
            cf_op   *op;
            cf_slice one;
            size_t   limit = 1 + rng_below(&random, round % 2 ? 20 : 200);
            assert_ok(cf_submit(store, CF_REQUEST(CF_OP_SCAN, .limit = limit, .cursor = cf_bytes(cursor, cursor_len)), &op));
            while (cf_op_next_key(op, &one)) {
                int n;
                assert_true(one.len < sizeof key);
                memcpy(key, one.ptr, one.len);
                key[one.len] = 0;
                if (sscanf(key, "stay-%d", &n) == 1) times[n]++;
            }
            cf_slice next = cf_op_cursor(op);
            cursor_len = next.len;
            if (next.len) memcpy(cursor, next.ptr, next.len);
            cf_op_free(op);
            pages++;
            uint64_t changes = rng_below(&random, 2 * limit + 1); /* or a scan of short pages would never catch up with the growth */
            for (uint64_t i = 0; i < changes; i++) {
                bool grow = round % 3 == 0 || (round % 3 == 1 && rng_below(&random, 2));
                if (grow || alive_from == passing) {
                    snprintf(key, sizeof key, "pass-%llu", (unsigned long long)passing++);
                    ask_set(store, key, "");
                } else {
                    snprintf(key, sizeof key, "pass-%llu", (unsigned long long)alive_from++);
                    ask_delete(store, key);
                }
            }
            snprintf(key, sizeof key, "stay-%d", (int)rng_below(&random, STAY));
            ask_set(store, key, "replaced"); /* still the same key */
        } while (cursor_len);
        for (int i = 0; i < STAY; i++) {
            if (times[i] != 1) fail_msg("round %d, %d pages: stay-%d came %d times", round, pages, i, times[i]);
        }
        assert_true(pages > 10);
        assert_ok(cf_store_close(store, NULL));
    }
}

static void a_page_has_no_more_keys_than_it_can_need(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    char      key[32];
    for (uint64_t i = 0; i < 5000; i++) {
        name_of(key, i);
        ask_set(store, key, "");
    }
    for (size_t limit = 1; limit <= CF_SCAN_MAX; limit = limit * 3 + 1) {
        cf_op   *op;
        cf_slice one;
        size_t   count = 0;
        assert_ok(cf_submit(store, CF_REQUEST(CF_OP_SCAN, .limit = limit), &op));
        while (cf_op_next_key(op, &one)) count++;
        assert_true(count <= limit + 8); /* a hint, but no page of everything */
        assert_true(cf_op_cursor(op).len > 0);
        cf_op_free(op);
    }
}

/* A prefix that nothing or little has must not make one page look at the whole table. */
static void a_rare_prefix_takes_many_short_pages(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    char      key[32], cursor[256];
    size_t    cursor_len = 0;
    int       pages = 0, found = 0;
    for (uint64_t i = 0; i < 30000; i++) {
        name_of(key, i);
        ask_set(store, key, "");
    }
    ask_set(store, "rare", "");
    do {
        cf_op   *op;
        cf_slice one;
        assert_ok(cf_submit(store, CF_REQUEST(CF_OP_SCAN, .key = cf_text("rare"), .cursor = cf_bytes(cursor, cursor_len)), &op));
        while (cf_op_next_key(op, &one)) found++;
        cursor_len = cf_op_cursor(op).len;
        if (cursor_len) memcpy(cursor, cf_op_cursor(op).ptr, cursor_len);
        cf_op_free(op);
        pages++;
    } while (cursor_len);
    assert_int_equal(found, 1);
    assert_true(pages > 4);
}

/* ---- expiry ---- */

/* Values of every life, moved by random steps: present at the millisecond before, absent at the millisecond; and swept, not
 * only hidden: in the end nothing is held. */
static void expiry_against_a_model(void **state)
{
    world *w = *state;
    enum { COUNT = 3000 };
    static int64_t dies[COUNT];
    rng       random = {seed_of_run()};
    cf_store *store = open_url(w->loop, "memory:");
    int64_t   longest = 0;
    char      key[32];
    for (int i = 0; i < COUNT; i++) {
        /* One millisecond to ten years, evenly over the orders of magnitude. */
        int64_t ttl = 1 + (int64_t)rng_below(&random, (uint64_t)1 << (1 + rng_below(&random, 39)));
        if (ttl > CF_TTL_MAX) ttl = CF_TTL_MAX;
        name_of(key, (uint64_t)i);
        assert_true(ask_ttl(store, key, "v", ttl).hit);
        if (rng_below(&random, 4) == 0) { /* moved on the wheel */
            ttl = 1 + (int64_t)rng_below(&random, 100000);
            assert_true(ask(store, CF_REQUEST(CF_OP_TOUCH, .key = cf_text(key), .flags = CF_TTL, .ttl_ms = ttl)).hit);
        }
        dies[i] = ttl;
        if (ttl > longest) longest = ttl;
        if (rng_below(&random, 10) == 0) {
            int64_t step = (int64_t)rng_below(&random, 50);
            cf_stage_advance(w->stage, step);
            for (int j = 0; j <= i; j++) dies[j] -= step;
            longest -= step;
        }
    }
    while (longest > 0) {
        int64_t step = 1 + (int64_t)rng_below(&random, (uint64_t)1 << rng_below(&random, 38));
        if (rng_below(&random, 3) == 0) { /* exactly to somebody's end, or just before */
            int64_t to = dies[rng_below(&random, COUNT)] - (int64_t)rng_below(&random, 2);
            if (to > 0) step = to;
        }
        cf_stage_advance(w->stage, step);
        longest -= step;
        int64_t alive = 0;
        for (int i = 0; i < COUNT; i++) {
            dies[i] -= step;
            alive += dies[i] > 0;
        }
        for (int n = 0; n < 60; n++) {
            uint64_t i = rng_below(&random, COUNT);
            name_of(key, i);
            bool hit = ask_get(store, key).hit;
            if (hit != (dies[i] > 0)) fail_msg("%s is %s with %lld ms left", key, hit ? "there" : "absent", (long long)dies[i]);
        }
        assert_int_equal(ask_count(store).number, alive);
    }
    for (int i = 0; i < COUNT * 9 && stat_of(store, "entries") > 0; i++) ask_get(store, "none");
    assert_int_equal(stat_of(store, "entries"), 0);
    assert_int_equal(stat_of(store, "bytes"), 0);
    assert_true(stat_of(store, "expired") >= COUNT * 3 / 4);
}

/* Sweeping costs what expired: others' operations carry it off, and no single one does it all. */
static void expired_entries_leave_with_the_operations_of_others(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    char      key[32];
    for (uint64_t i = 0; i < 10000; i++) {
        name_of(key, i);
        ask_ttl(store, key, "v", 1000 + (int64_t)(i % 500));
    }
    cf_stage_advance(w->stage, 86400000);
    int64_t held = stat_of(store, "entries"), operations = 0;
    assert_int_equal(held, 10000);
    while (held > 0) {
        ask_get(store, "none");
        operations++;
        int64_t next = stat_of(store, "entries");
        assert_true(held - next <= 100); /* bounded */
        held = next;
        assert_true(operations < 100000);
    }
    assert_int_equal(stat_of(store, "expired"), 10000);
    assert_int_equal(stat_of(store, "evicted"), 0);
}

/* Writing replaces what expires as fast as it comes: a store of short lives does not grow. */
static void short_lives_do_not_pile_up(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    char      key[32];
    int64_t   most = 0;
    for (uint64_t i = 0; i < 60000; i++) {
        name_of(key, i);
        ask_ttl(store, key, "v", 100);
        if (i % 10 == 0) cf_stage_advance(w->stage, 1);
        int64_t held = stat_of(store, "entries");
        if (held > most) most = held;
    }
    /* 1000 are alive at a time. */
    assert_true(most < 3000);
}

/* A stage may be moved as far as its type allows. */
static void no_clock_is_too_far(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    for (int shift = 40; shift < 63; shift++) {
        cf_stage_advance(w->stage, INT64_C(1) << shift);
        assert_true(ask_ttl(store, "a", "1", 1000).hit);
        assert_true(ask_ttl(store, "b", "1", CF_TTL_MAX).hit);
        assert_value(ask_get(store, "a"), "1");
        if (shift > 58) continue; /* the clock stands at its end, and nothing can expire */
        cf_stage_advance(w->stage, 1000);
        for (int i = 0; i < 20; i++) assert_miss(ask_get(store, "c"));
        assert_int_equal(stat_of(store, "entries"), 1); /* swept, not only passed over */
        assert_value(ask_get(store, "b"), "1");
    }
    cf_stage_step_wall(w->stage, INT64_MIN);
    for (int64_t at = INT64_MAX; at > 0; at /= 2)
        assert_int_equal(ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .flags = CF_EXPIRES_AT, .expires_at_ms = at)).status, CF_EINVAL);
    assert_ok(cf_store_close(store, NULL));
}

static void the_wall_clock_ends_no_session(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:");
    ask_ttl(store, "a", "1", 5000);
    ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("b"), .value = cf_text("2"), .flags = CF_EXPIRES_AT,
                          .expires_at_ms = cf_stage_wall_ms(w->stage) + 5000));
    cf_stage_step_wall(w->stage, INT64_C(86400000) * 400);
    assert_value(ask_get(store, "a"), "1");
    assert_value(ask_get(store, "b"), "2");
    cf_stage_step_wall(w->stage, -INT64_C(86400000) * 4000);
    cf_stage_advance(w->stage, 4999);
    assert_value(ask_get(store, "a"), "1");
    assert_value(ask_get(store, "b"), "2");
    cf_stage_advance(w->stage, 1);
    assert_miss(ask_get(store, "a"));
    assert_miss(ask_get(store, "b"));
    /* An instant is judged by the wall clock of the moment it is given. */
    assert_true(ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("c"), .flags = CF_EXPIRES_AT,
                                      .expires_at_ms = cf_stage_wall_ms(w->stage) + 10)).hit);
    assert_int_equal(ask_get(store, "c").hit, true);
}

/* ---- caps ---- */

static void eviction_against_a_model(void **state)
{
    world *w = *state;
    enum { CAP = 50, KEYS = 120 };
    rng       random = {seed_of_run()};
    cf_store *store = open_url(w->loop, "memory:?max_entries=50");
    uint64_t  used_at[KEYS] = {0}, tick = 0; /* 0: absent */
    int       held = 0, evicted = 0;
    char      key[32];
    for (int n = 0; n < 30000; n++) {
        uint64_t i = rng_below(&random, KEYS), what = rng_below(&random, 10);
        name_of(key, i);
        bool there = used_at[i] != 0;
        if (what < 4) {
            assert_true(ask_set(store, key, what ? "v" : "other").hit);
            used_at[i] = ++tick;
            if (!there && ++held > CAP) {
                int oldest = -1;
                for (int k = 0; k < KEYS; k++) {
                    if (used_at[k] && (oldest < 0 || used_at[k] < used_at[oldest])) oldest = k;
                }
                used_at[oldest] = 0;
                held--;
                evicted++;
            }
        } else if (what < 7) {
            assert_int_equal(ask_get(store, key).hit, there);
            if (there) used_at[i] = ++tick;
        } else if (what < 8) {
            assert_int_equal(ask(store, CF_REQUEST(CF_OP_TOUCH, .key = cf_text(key), .flags = CF_TTL, .ttl_ms = 1000000)).hit, there);
            if (there) used_at[i] = ++tick;
        } else {
            assert_int_equal(what == 8 ? ask_delete(store, key).hit : ask_pop(store, key).hit, there);
            if (there) used_at[i] = 0, held--;
        }
        assert_int_equal(stat_of(store, "entries"), held);
        assert_int_equal(stat_of(store, "evicted"), evicted);
    }
    assert_true(evicted > 1000);
}

static void the_cap_of_bytes_holds_at_every_moment(void **state)
{
    world    *w = *state;
    rng       random = {seed_of_run()};
    cf_store *store = open_url(w->loop, "memory:?max_bytes=100000");
    static char value[30000];
    char      key[32];
    int64_t   most = 0;
    memset(value, 'v', sizeof value);
    for (int n = 0; n < 20000; n++) {
        name_of(key, rng_below(&random, 300));
        size_t len = rng_below(&random, 1u << (1 + rng_below(&random, 15)));
        if (len > sizeof value) len = sizeof value;
        answer a = ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_bytes(value, len)));
        assert_int_equal(a.status, CF_OK);
        assert_int_equal(ask_get(store, key).value_len, len); /* what was just written is there */
        int64_t bytes = stat_of(store, "bytes");
        assert_true(bytes >= 0);
        if (bytes > most) most = bytes;
    }
    assert_true(most <= 100000);
    assert_true(most > 60000); /* and it is made use of */
    assert_true(stat_of(store, "evicted") > 1000);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE)).status, CF_OK);
    assert_int_equal(stat_of(store, "bytes"), 0);
    assert_int_equal(stat_of(store, "entries"), 0);
}

static void what_is_larger_than_the_cap_is_refused(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:?max_bytes=1000");
    static char value[2000];
    memset(value, 'v', sizeof value);
    ask_set(store, "a", "1");
    ask_set(store, "b", "2");
    answer a = ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_bytes(value, sizeof value)));
    assert_int_equal(a.status, CF_EINVAL);
    assert_int_equal(a.outcome, CF_NOT_APPLIED);
    assert_value(ask_get(store, "a"), "1");
    assert_value(ask_get(store, "b"), "2");
}

static void other_limits_for_a_name_that_is_open_are_refused(void **state)
{
    world    *w = *state;
    cf_store *one = open_url(w->loop, "memory:capped?max_entries=2"), *other = NULL;
    cf_error  error;
    assert_int_equal(cf_open(w->loop, cf_text("memory:capped?max_entries=3"), NULL, &other, &error), CF_EINVAL);
    assert_null(other);
    assert_ok(cf_open(w->loop, cf_text("memory:capped?max_entries=2"), NULL, &other, &error));
    ask_set(one, "a", "1");
    ask_set(other, "b", "1");
    ask_set(one, "c", "1");
    assert_int_equal(ask_count(other).number, 2);
    assert_ok(cf_store_close(one, NULL));
    assert_int_equal(ask_count(other).number, 2);
}

/* ---- sharing ---- */

typedef struct half {
    cf_stage *stage;
    int       number;
} half;

static void *write_half(void *user)
{
    half    *h = user;
    cf_loop *loop;
    char     key[32];
    if (cf_loop_new(cf_stage_platform(h->stage), &loop) != CF_OK) abort();
    cf_store *store = open_url(loop, "memory:threads");
    for (uint64_t i = 0; i < 5000; i++) {
        name_of(key, i * 2 + (uint64_t)h->number);
        if (!ask_set(store, key, "v").hit || !ask_get(store, key).hit) abort();
        ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("counter"), .by = 1));
    }
    cf_loop_free(loop);
    return NULL;
}

static void a_name_is_shared_by_loops_and_threads(void **state)
{
    world    *w = *state;
    cf_store *store = open_url(w->loop, "memory:threads");
    pthread_t threads[2];
    half      halves[2] = {{w->stage, 0}, {w->stage, 1}};
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, write_half, &halves[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_value(ask_get(store, "counter"), "10000");
    assert_int_equal(ask_count(store).number, 10001);
}

static void figures_are_those_of_the_data(void **state)
{
    world    *w = *state;
    cf_store *one = open_url(w->loop, "memory:figures"), *two = open_url(w->loop, "memory:figures");
    ask_set(one, "a", "12345");
    int64_t small = stat_of(two, "bytes");
    assert_int_equal(stat_of(two, "entries"), 1);
    assert_true(small >= 6);
    ask_set(two, "a", "1234567890");
    assert_int_equal(stat_of(one, "bytes"), small + 5);
    assert_int_equal(stat_of(one, "operations"), 1);
    assert_int_equal(stat_of(two, "operations"), 1);
    ask_delete(one, "a");
    assert_int_equal(stat_of(two, "bytes"), 0);
    assert_int_equal(stat_of(one, "none such"), -1);
}

static void without_random_bytes_nothing_opens(void **state)
{
    world    *w = *state;
    cf_store *store = NULL;
    cf_error  error;
    cf_stage_fail_syscall(w->stage, 1, 5);
    assert_int_equal(cf_open(w->loop, cf_text("memory:"), NULL, &store, &error), CF_EUNAVAILABLE);
    assert_null(store);
    assert_true(cf_stage_failed(w->stage));
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_insert_allocates_much),
        WORLD(a_scan_misses_nothing_and_repeats_nothing),
        WORLD(a_page_has_no_more_keys_than_it_can_need),
        WORLD(a_rare_prefix_takes_many_short_pages),
        WORLD(expiry_against_a_model),
        WORLD(expired_entries_leave_with_the_operations_of_others),
        WORLD(short_lives_do_not_pile_up),
        WORLD(no_clock_is_too_far),
        WORLD(the_wall_clock_ends_no_session),
        WORLD(eviction_against_a_model),
        WORLD(the_cap_of_bytes_holds_at_every_moment),
        WORLD(what_is_larger_than_the_cap_is_refused),
        WORLD(other_limits_for_a_name_that_is_open_are_refused),
        WORLD(a_name_is_shared_by_loops_and_threads),
        WORLD(figures_are_those_of_the_data),
        WORLD(without_random_bytes_nothing_opens),
    };
    hang_guard(120);
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
