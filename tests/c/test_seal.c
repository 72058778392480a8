/* Values at rest: envelopes (FORMAT.md 14), what is done to them, rings, and hashed keys (15). */
#include "support.h"

#include <string.h>

static counting memory;
static cf_loop *loop;
static bool     no_random;

/* The nonce of the golden example. */
static int counting_up(void *self, void *bytes, size_t count)
{
    (void)self;
    for (size_t i = 0; i < count; i++)
        ((unsigned char *)bytes)[i] = (unsigned char)i;
    return no_random ? -1 : 0;
}

static cf_key key_of(uint32_t id, int first)
{
    cf_key key = {.id = id};
    for (int i = 0; i < 32; i++)
        key.bytes[i] = (unsigned char)(first + i);
    return key;
}

static int up(void **state)
{
    (void)state;
    counting_init(&memory);
    memory.platform.random = counting_up;
    no_random = false;
    return cf_loop_new(&memory.platform, &loop);
}

static int down(void **state)
{
    (void)state;
    cf_loop_free(loop);
    assert_int_equal(memory.blocks, 0);
    return 0;
}

static int open_with(const cf_open_options *options, cf_store **out, cf_error *error)
{
    return cf_open(loop, cf_text("memory:sealed"), options, out, error);
}

static cf_store *sealed(const char *prefix, const cf_key *keys, size_t count)
{
    cf_store *store;
    assert_ok(open_with(
        &(cf_open_options){
            .size = sizeof(cf_open_options), .prefix = cf_text(prefix), .keys = keys, .key_count = count, .seal_values = true},
        &store, NULL));
    return store;
}

/* The same data as they lie there. */
static cf_store *bare(void)
{
    cf_store *store;
    assert_ok(open_with(NULL, &store, NULL));
    return store;
}

static size_t unhex(const char *text, char *out)
{
    size_t len = strlen(text) / 2;
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (char)byte;
    }
    return len;
}

static void the_bytes_are_those_of_the_format(void **state)
{
    (void)state;
    static const char *const golden[][2] = {
        {"v", "4366010100000007000102030405060708090a0b0c0d0e0f1011121314151617e2bd293ab2f62c90785f1253638be47987"},
        {"", "4366010100000007000102030405060708090a0b0c0d0e0f10111213141516177ddd73ad746a2392ce7fbe281074e75e"}};
    cf_key    key = key_of(7, 0);
    cf_store *store = sealed("p:", &key, 1), *raw = bare();
    for (int i = 0; i < 2; i++) {
        char   bytes[128];
        size_t len = unhex(golden[i][1], bytes);
        assert_ok(ask_set(store, "k", golden[i][0]).status);
        cf_op *op;
        assert_ok(cf_submit(raw, CF_REQUEST(CF_OP_GET, .key = cf_text("p:k")), &op));
        assert_int_equal(cf_op_value(op).len, len);
        assert_memory_equal(cf_op_value(op).ptr, bytes, len);
        cf_op_free(op);
        assert_value(ask_get(store, "k"), golden[i][0]);
    }
    assert_ok(cf_store_close(store, NULL));
    assert_ok(cf_store_close(raw, NULL));
}

static void a_changed_envelope_never_opens(void **state)
{
    (void)state;
    cf_key    key = key_of(7, 0);
    cf_store *store = sealed("", &key, 1), *raw = bare();
    char      bytes[64], changed[64];
    assert_ok(ask_set(store, "k", "secret").status);
    cf_op *op;
    assert_ok(cf_submit(raw, CF_REQUEST(CF_OP_GET, .key = cf_text("k")), &op));
    size_t len = cf_op_value(op).len;
    memcpy(bytes, cf_op_value(op).ptr, len);
    cf_op_free(op);
    for (size_t bit = 0; bit < len * 8; bit++) {
        memcpy(changed, bytes, len);
        changed[bit / 8] ^= (char)(1 << bit % 8);
        assert_ok(ask(raw, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_bytes(changed, len))).status);
        assert_int_equal(ask_get(store, "k").status, CF_ECORRUPT);
    }
    for (size_t cut = 0; cut < len; cut++) {
        assert_ok(ask(raw, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_bytes(bytes, cut))).status);
        assert_int_equal(ask_get(store, "k").status, CF_ECORRUPT);
    }
    /* Moved under another key; and plain text is no envelope. */
    assert_ok(ask(raw, CF_REQUEST(CF_OP_SET, .key = cf_text("l"), .value = cf_bytes(bytes, len))).status);
    assert_int_equal(ask_get(store, "l").status, CF_ECORRUPT);
    assert_ok(ask_set(raw, "m", "plain text that is long enough to be an envelope, if one does not look").status);
    answer popped = ask_pop(store, "m");
    assert_int_equal(popped.status, CF_ECORRUPT);
    assert_int_equal(popped.outcome, CF_APPLIED);
    assert_false(ask_get(store, "m").hit);
    assert_ok(ask(raw, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_bytes(bytes, len))).status);
    assert_value(ask_pop(store, "k"), "secret");
    assert_ok(cf_store_close(store, NULL));
    assert_ok(cf_store_close(raw, NULL));
}

static void keys_are_changed_in_two_steps(void **state)
{
    (void)state;
    cf_key    one = key_of(1, 10), both[] = {key_of(2, 20), key_of(1, 10)}, other = key_of(1, 30);
    cf_store *old = sealed("", &one, 1), *now = sealed("", both, 2), *wrong = sealed("", &other, 1), *fresh = sealed("", both, 1);
    assert_ok(ask_set(old, "a", "by the old key").status);
    assert_value(ask_get(now, "a"), "by the old key");
    assert_int_equal(ask_get(fresh, "a").status, CF_ECORRUPT);
    assert_int_equal(ask_get(wrong, "a").status, CF_ECORRUPT);
    assert_ok(ask_set(now, "a", "by the new one").status);
    assert_value(ask_get(fresh, "a"), "by the new one");
    assert_int_equal(ask_get(old, "a").status, CF_ECORRUPT);
    cf_store *all[] = {old, now, wrong, fresh};
    for (int i = 0; i < 4; i++)
        assert_ok(cf_store_close(all[i], NULL));
}

static void what_a_backend_would_have_to_understand_is_refused(void **state)
{
    (void)state;
    cf_key    key = key_of(7, 0);
    cf_store *store = sealed("", &key, 1);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).status, CF_ENOTSUP);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_SET, .flags = CF_IF_EQUAL, .key = cf_text("n"), .value = cf_text("a"),
                                           .expected = cf_text("b")))
                         .status,
                     CF_ENOTSUP);
    assert_true(ask(store, CF_REQUEST(CF_OP_SET, .flags = CF_IF_ABSENT, .key = cf_text("n"), .value = cf_text("a"))).hit);
    assert_false(ask(store, CF_REQUEST(CF_OP_SET, .flags = CF_IF_ABSENT, .key = cf_text("n"), .value = cf_text("b"))).hit);
    assert_value(ask_get(store, "n"), "a");
    no_random = true;
    answer set = ask_set(store, "n", "c");
    assert_int_equal(set.status, CF_EUNAVAILABLE);
    assert_int_equal(set.outcome, CF_NOT_APPLIED);
    assert_value(ask_get(store, "n"), "a");
    assert_ok(cf_store_close(store, NULL));
}

static void keys_can_be_kept_as_hashes(void **state)
{
    (void)state;
    cf_store *store, *raw = bare();
    assert_ok(
        open_with(&(cf_open_options){.size = sizeof(cf_open_options), .prefix = cf_text("p:"), .hash_keys = true}, &store, NULL));
    char longest[CF_KEY_MAX + 1] = {0};
    memset(longest, 'x', CF_KEY_MAX);
    assert_ok(ask_set(store, "k", "v").status);
    assert_ok(ask_set(store, longest, "w").status);
    assert_value(ask_get(raw, "p:gecWsmcUr004JfJlVBqEc6bOoYxowX6lxIzDcel3hzU"), "v");
    assert_value(ask_get(store, longest), "w");
    assert_int_equal(ask_count(store).number, 2);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_SCAN)).status, CF_ENOTSUP);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_COUNT, .key = cf_text("k"))).status, CF_ENOTSUP);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR, .key = cf_text("k"))).status, CF_ENOTSUP);
    assert_value(ask_pop(store, "k"), "v");
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR)).number, 1);
    assert_ok(cf_store_close(store, NULL));
    assert_ok(cf_store_close(raw, NULL));
}

static void rings_that_are_none(void **state)
{
    (void)state;
    cf_key                keys[65] = {key_of(1, 0), key_of(1, 1)}, zero = key_of(0, 0);
    cf_store             *store;
    cf_error              error;
    const cf_open_options bad[] = {
        {.size = sizeof *bad, .seal_values = true},
        {.size = sizeof *bad, .keys = keys, .key_count = 1},
        {.size = sizeof *bad, .keys = keys, .key_count = 2, .seal_values = true},
        {.size = sizeof *bad, .keys = &zero, .key_count = 1, .seal_values = true},
        {.size = sizeof *bad, .keys = keys, .key_count = 65, .seal_values = true},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(open_with(&bad[i], &store, &error), CF_EINVAL);
        assert_null(store);
        assert_true(error.text[0]);
    }
}

int main(void)
{
    hang_guard(60);
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
    const struct CMUnitTest tests[] = {
        TEST(the_bytes_are_those_of_the_format), TEST(a_changed_envelope_never_opens),
        TEST(keys_are_changed_in_two_steps),     TEST(what_a_backend_would_have_to_understand_is_refused),
        TEST(keys_can_be_kept_as_hashes),        TEST(rings_that_are_none),
    };
    return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
