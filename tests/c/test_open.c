/* Opening by URL, prefixes, names that are shared; and the small tables: versions, status names, numbers of hosts. */
#include "support.h"

#include <math.h>
#include <string.h>

static int try_open(cf_loop *loop, cf_slice url, cf_error *error)
{
    cf_store *store = (cf_store *)loop;
    int       status = cf_open(loop, url, NULL, &store, error);
    assert_true((status == CF_OK) == (store != NULL));
    if (store) {
        assert_true(ask_set(store, "a", "1").hit);
        assert_ok(cf_store_close(store, NULL));
    }
    return status;
}

static void urls_that_open(void **state)
{
    world *w = *state;
    static const char *const urls[] = {
        "memory:", "memory:name", "memory:a/b/c", "memory:%41", "memory:\xc3\xa9", "memory:%C3%A9", "memory:a%20b", "memory:a%25b",
        "memory:name?max_entries=1", "memory:?max_bytes=1048576", "memory:?max_entries=5&max_bytes=5000", "memory:?m%61x_entries=%35",
        "memory:?max_entries=9007199254740991",
    };
    cf_error error;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        if (try_open(w->loop, cf_text(urls[i]), &error) != CF_OK) fail_msg("%s: %s", urls[i], error.text);
    }
}

static void urls_that_are_refused(void **state)
{
    world *w = *state;
    static const char *const urls[] = {
        "", "memory", ":", ":memory", "//memory:", " memory:", "memory :", "MEMORY:", "Memory:name", "1memory:", "me_mory:",
        "memori:", "memoryx:", "rediz://user:hunter22@host/", "sqlite:", "sqlite://x", "sqlite::x:", "sqlite:x?synchronous=off", "sqlite:x?mode=ro", "sqlite:/nowhere/x", "file:///etc/passwd", "memory://name", "memory:///name",
        "memory://hunter22@x", "memory:%", "memory:%4", "memory:%zz", "memory:%00", "memory:a%0ab", "memory:a%0Db", "memory:\n", "memory:a\r",
        "memory:%ff", "memory:\xff", "memory:%c0%80", "memory:%ed%a0%80", "memory:a#fragment", "memory:?", "memory:?max_entries",
        "memory:?=1", "memory:?max_entries=", "memory:?max_entries=0", "memory:?max_entries=-1", "memory:?max_entries=01",
        "memory:?max_entries=1&", "memory:?&max_entries=1", "memory:?max_entries=1&&max_bytes=1", "memory:?max_entries=1;max_bytes=1",
        "memory:?max_entries=1&max_entries=1", "memory:?max_entries=1&m%61x_entries=1", "memory:?max_entries=1=1",
        "memory:?hunter22=1", "memory:?max_entries=hunter22", "memory:?max_bytes=18446744073709551616", "memory:?max_entries=9223372036854775808",
        "memory:?max_entries=%zz", "memory:?max_entries=1%00",
    };
    /* Some forms may be taken for what was plainly meant; then they must work, not half-work. */
    static const char *const may_open[] = {"memory:?", "memory:?max_entries=1&"};
    cf_error error;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        memset(&error, 0, sizeof error);
        int status = try_open(w->loop, cf_text(urls[i]), &error);
        if (status == CF_OK) {
            bool allowed = false;
            for (size_t m = 0; m < 2; m++) allowed |= strcmp(urls[i], may_open[m]) == 0;
            if (!allowed) fail_msg("%s was opened", urls[i]);
            continue;
        }
        if (status != CF_EINVAL) fail_msg("%s: %s", urls[i], cf_status_name(status));
        assert_int_equal(error.status, CF_EINVAL);
        assert_int_equal(error.outcome, CF_NOT_APPLIED);
        assert_true(strlen(error.text) > 10);
        assert_null(strstr(error.text, "hunter22")); /* it may be a password */
        assert_int_equal(try_open(w->loop, cf_text(urls[i]), NULL), CF_EINVAL);
    }
    assert_int_equal(try_open(w->loop, cf_bytes("memory:\0x", 9), &error), CF_EINVAL);
    assert_int_equal(try_open(w->loop, cf_bytes(NULL, 0), &error), CF_EINVAL);
    static char longest[70000];
    memset(longest, 'n', sizeof longest);
    memcpy(longest, "memory:", 7);
    assert_int_equal(try_open(w->loop, cf_bytes(longest, sizeof longest), &error), CF_EINVAL);
    memset(longest, '%', sizeof longest);
    memcpy(longest, "memory:", 7);
    assert_int_equal(try_open(w->loop, cf_bytes(longest, sizeof longest), &error), CF_EINVAL);
    static char many[4000] = "memory:?";
    size_t      len = strlen(many);
    for (int i = 0; i < 300; i++) len += (size_t)snprintf(many + len, sizeof many - len, "o%d=1&", i);
    assert_int_equal(try_open(w->loop, cf_bytes(many, len - 1), &error), CF_EINVAL);
}

static void random_urls_do_no_harm(void **state)
{
    world *w = *state;
    rng    random = {seed_of_run()};
    static const char alphabet[] = "memory:?&=%#/@[]max_entries1024\n\xc3\xa9\xff ";
    for (int i = 0; i < 20000; i++) {
        char     url[64];
        size_t   len = rng_below(&random, sizeof url);
        cf_error error = {0};
        for (size_t c = 0; c < len; c++) {
            url[c] = rng_below(&random, 8) ? alphabet[rng_below(&random, sizeof alphabet)] : (char)rng_next(&random);
        }
        if (rng_below(&random, 2) && len >= 7) memcpy(url, "memory:", 7);
        int status = try_open(w->loop, cf_bytes(url, len), &error);
        assert_true(status == CF_OK || status == CF_EINVAL);
        assert_true(memchr(error.text, 0, sizeof error.text) != NULL);
    }
}

static void names_are_shared_and_private_is_private(void **state)
{
    world    *w = *state;
    cf_store *one = open_url(w->loop, "memory:shared"), *two = open_url(w->loop, "memory:sh%61red");
    cf_store *other = open_url(w->loop, "memory:Shared"), *a = open_url(w->loop, "memory:"), *b = open_url(w->loop, "memory:");
    ask_set(one, "k", "1");
    ask_set(a, "k", "2");
    assert_value(ask_get(two, "k"), "1");
    assert_miss(ask_get(other, "k"));
    assert_miss(ask_get(b, "k"));
    assert_ok(cf_store_close(one, NULL));
    assert_value(ask_get(two, "k"), "1"); /* lives as long as one of them */
    cf_stage *stage = cf_stage_new();
    cf_loop  *loop;
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_store *apart = open_url(loop, "memory:shared"); /* shared among the stores of one stage only */
    assert_miss(ask_get(apart, "k"));
    cf_loop_free(loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
    assert_ok(cf_store_close(two, NULL));
    two = open_url(w->loop, "memory:shared"); /* begun anew */
    assert_miss(ask_get(two, "k"));
}

static void prefixes_keep_stores_apart(void **state)
{
    world          *w = *state;
    cf_store       *p, *pq, *none;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
    assert_ok(cf_open(w->loop, cf_text("memory:prefixes"), &options, &p, NULL));
    options.prefix = cf_text("p:q:");
    assert_ok(cf_open(w->loop, cf_text("memory:prefixes"), &options, &pq, NULL));
    none = open_url(w->loop, "memory:prefixes");
    ask_set(p, "a", "in p");
    ask_set(pq, "a", "in p:q");
    ask_set(none, "a", "plain");
    assert_value(ask_get(none, "p:a"), "in p");
    assert_value(ask_get(p, "q:a"), "in p:q");
    assert_int_equal(ask_count(p).number, 2);
    assert_int_equal(ask_count(pq).number, 1);
    assert_int_equal(ask_count(none).number, 3);
    assert_int_equal(ask(pq, CF_REQUEST(CF_OP_CLEAR)).number, 1);
    assert_value(ask_get(p, "a"), "in p");
    assert_int_equal(ask(p, CF_REQUEST(CF_OP_CLEAR)).number, 1);
    assert_value(ask_get(none, "a"), "plain");
    /* What another program wrote and this library could not have: not shown. */
    ask_set(none, "p:", "no key of p: has no bytes");
    assert_int_equal(ask_count(p).number, 0);
}

static void options_of_another_size_are_refused(void **state)
{
    world          *w = *state;
    cf_store       *store;
    cf_error        error;
    cf_open_options options = {.size = sizeof options - 1};
    assert_int_equal(cf_open(w->loop, cf_text("memory:"), &options, &store, &error), CF_EINVAL);
    options = (cf_open_options){.size = sizeof options, .ttl_ms = CF_TTL_MAX + 1};
    assert_int_equal(cf_open(w->loop, cf_text("memory:"), &options, &store, &error), CF_EINVAL);
    options = (cf_open_options){.size = sizeof options, .timeout_ms = -1};
    assert_int_equal(cf_open(w->loop, cf_text("memory:"), &options, &store, &error), CF_EINVAL);
    options = (cf_open_options){.size = sizeof options, .ttl_ms = CF_TTL_MAX, .timeout_ms = CF_TIMEOUT_MAX};
    assert_ok(cf_open(w->loop, cf_text("memory:"), &options, &store, &error));
    assert_int_equal(error.status, CF_OK);
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    static const char *const names[] = {"OK",      "INVALID", "NO_MEMORY", "TIMEOUT", "UNAVAILABLE", "BUSY", "NOT_SUPPORTED",
                                        "CORRUPT", "CLOSED",  "FORKED",    "EXISTS",  "AUTH",        "HOST", "CANCELED",
                                        "CHANGED", "LIMIT",   "MISSING",   "CURSOR"};
    for (int i = 0; i <= 17; i++) assert_string_equal(cf_status_name(-i), names[i]);
    assert_string_equal(cf_status_name(CF_PENDING), "PENDING");
    assert_string_equal(cf_status_name(-18), "UNKNOWN_STATUS");
    assert_string_equal(cf_status_name(2), "UNKNOWN_STATUS");
    assert_string_equal(cf_status_name(INT32_MIN), "UNKNOWN_STATUS");
    assert_string_equal(cf_outcome_name(CF_NOT_APPLIED), "not_applied");
    assert_string_equal(cf_outcome_name(CF_APPLIED), "applied");
    assert_string_equal(cf_outcome_name(CF_UNKNOWN), "unknown");
    assert_non_null(cf_version());
}

static void the_version_is_that_of_the_file(void **state)
{
    (void)state;
    char  text[64] = {0};
    FILE *file = fopen(CF_VERSION_FILE, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    text[strcspn(text, "\r\n ")] = 0;
    assert_string_equal(cf_version(), text);
}

static void seconds_of_hosts(void **state)
{
    (void)state;
    static const struct {
        double  seconds;
        int64_t ms; /* -1: refused */
    } ttls[] = {{1, 1000},      {0.001, 1},      {0.0001, 1},     {1e-300, 1},      {0.0011, 2},   {1.001, 1001},
                {4.001, 4001},  {2.007, 2007},   {315360000, CF_TTL_MAX},           {0, -1},       {-0.0, -1},
                {-1, -1},       {-1e-9, -1},     {315360000.001, -1},               {1e18, -1},    {1e300, -1},
                {NAN, -1},      {INFINITY, -1},  {-INFINITY, -1}, {86400.0004, 86400001}},
      timeouts[] = {{5, 5000}, {0.0001, 1}, {86400, CF_TIMEOUT_MAX}, {86400.001, -1}, {0, -1}, {-1, -1}, {NAN, -1}, {INFINITY, -1}},
      instants[] = {{0, 0}, {1.5, 1500}, {1.0004, 1000}, {1.0006, 1001}, {1800000000.123, 1800000000123}, {-0.001, -1}, {-1, -1},
                    {NAN, -1}, {INFINITY, -1}, {-INFINITY, -1}, {1e300, -1}};
    const struct {
        int (*convert)(double, int64_t *, cf_error *);
        size_t count;
    } kinds[] = {{cf_ttl_from_seconds, sizeof ttls / sizeof *ttls},
                 {cf_timeout_from_seconds, sizeof timeouts / sizeof *timeouts},
                 {cf_instant_from_seconds, sizeof instants / sizeof *instants}};
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < kinds[k].count; i++) {
            double   seconds = k == 0 ? ttls[i].seconds : k == 1 ? timeouts[i].seconds : instants[i].seconds;
            int64_t  want = k == 0 ? ttls[i].ms : k == 1 ? timeouts[i].ms : instants[i].ms, ms = -7;
            cf_error error = {0};
            int      status = kinds[k].convert(seconds, &ms, &error);
            if (want < 0) {
                if (status != CF_EINVAL) fail_msg("kind %zu, number %zu was not refused", k, i);
                assert_int_equal(error.status, CF_EINVAL);
                assert_true(strlen(error.text) > 5);
                assert_int_equal(kinds[k].convert(seconds, &ms, NULL), CF_EINVAL);
            } else {
                assert_int_equal(status, CF_OK);
                if (ms != want) fail_msg("kind %zu, number %zu: %lld ms", k, i, (long long)ms);
            }
        }
    }
    /* Every whole millisecond that a host writes as seconds comes back as itself. */
    for (int64_t ms = 1; ms < 2000000; ms += ms < 70000 ? 1 : 97) {
        int64_t got;
        assert_ok(cf_ttl_from_seconds((double)ms / 1000, &got, NULL));
        assert_int_equal(got, ms);
    }
}

/* ---- the stage ---- */

static void the_stage_moves_both_clocks(void **state)
{
    (void)state;
    cf_stage          *stage = cf_stage_new();
    const cf_platform *platform = cf_stage_platform(stage);
    assert_int_equal(platform->size, sizeof *platform);
    int64_t wall = cf_stage_wall_ms(stage), monotonic = platform->monotonic_ms(platform->self);
    assert_true(wall > INT64_C(1600000000000));
    assert_int_equal(platform->wall_ms(platform->self), wall);
    cf_stage_advance(stage, 1234);
    assert_int_equal(cf_stage_wall_ms(stage), wall + 1234);
    assert_int_equal(platform->monotonic_ms(platform->self), monotonic + 1234);
    cf_stage_step_wall(stage, -5000);
    assert_int_equal(cf_stage_wall_ms(stage), wall + 1234 - 5000);
    assert_int_equal(platform->monotonic_ms(platform->self), monotonic + 1234);
    cf_stage_free(stage);
    cf_stage_free(NULL);
}

static void the_stage_fails_what_it_was_asked_to(void **state)
{
    (void)state;
    cf_stage          *stage = cf_stage_new();
    const cf_platform *p = cf_stage_platform(stage);
    assert_false(cf_stage_failed(stage));
    cf_stage_fail_allocation(stage, 2, false);
    void *one = p->alloc(p->self, 10);
    assert_non_null(one);
    assert_false(cf_stage_failed(stage));
    assert_null(p->alloc(p->self, 10));
    assert_true(cf_stage_failed(stage));
    void *two = p->alloc(p->self, 10);
    assert_non_null(two);
    assert_int_equal(cf_stage_blocks(stage), 2);
    cf_stage_fail_allocation(stage, 1, true);
    assert_null(p->resize(p->self, one, 100)); /* and the block is as it was */
    assert_null(p->alloc(p->self, 1));
    assert_null(p->alloc(p->self, 1));
    assert_int_equal(cf_stage_blocks(stage), 2);
    cf_stage_fail_allocation(stage, 0, false);
    assert_false(cf_stage_failed(stage));
    one = p->resize(p->self, one, 100);
    assert_non_null(one);
    p->release(p->self, one);
    p->release(p->self, two);
    p->release(p->self, NULL);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(urls_that_open),
        WORLD(urls_that_are_refused),
        WORLD(random_urls_do_no_harm),
        WORLD(names_are_shared_and_private_is_private),
        WORLD(prefixes_keep_stores_apart),
        WORLD(options_of_another_size_are_refused),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(the_version_is_that_of_the_file),
        cmocka_unit_test(seconds_of_hosts),
        cmocka_unit_test(the_stage_moves_both_clocks),
        cmocka_unit_test(the_stage_fails_what_it_was_asked_to),
    };
    hang_guard(60);
    return cmocka_run_group_tests_name("open", tests, NULL, NULL);
}
