/* Values at rest: envelopes (FORMAT.md 14), what is done to them, rings, and hashed keys (15). */
#define _GNU_SOURCE /* memmem */
#include "support.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ------------------------------------------------------------------------------------------------ what is left in memory -- */

static const char canary[] = "s3cr3t-canary";
static int        found;

/* Of plain text, or of a key of the ring. */
static void look(const void *block)
{
    const cf_key key = key_of(7, 100);
    if (!block) return;
    size_t size = malloc_usable_size((void *)(uintptr_t)block);
    if (memmem(block, size, canary, sizeof canary - 1) || memmem(block, size, "900719925474", 12) ||
        memmem(block, size, key.bytes, 16))
        found++;
}

/* What others have left in it is not ours. */
static void *clean_alloc(void *self, size_t size)
{
    (void)self;
    void *block = malloc(size);
    if (block) memset(block, 0, malloc_usable_size(block));
    return block;
}

static void look_and_release(void *self, void *block)
{
    (void)self;
    look(block);
    free(block);
}

static void *look_and_resize(void *self, void *block, size_t size)
{
    void *moved = clean_alloc(self, size);
    if (!moved || !block) return moved;
    size_t old = malloc_usable_size(block);
    memcpy(moved, block, old < size ? old : size);
    look_and_release(self, block);
    return moved;
}

/* A backend with its own pop and touch that is derived otherwise. */
static cf_backend_table some_slots(void)
{
    cf_backend_table table = *tb_functions(TB_DERIVED);
    table.pop = tb_functions(TB_FULL)->pop;
    table.touch = tb_functions(TB_FULL)->touch;
    return table;
}

static answer ask_long(cf_store *store, unsigned flags, const char *key, cf_slice value, cf_slice expected)
{
    return ask(store,
               CF_REQUEST(CF_OP_SET, .flags = flags, .key = cf_text(key), .value = value, .expected = expected, .ttl_ms = 60000));
}

static const char hidden[] = "s3cr3t-canary of a key that is hashed";

static void speak_of_secrets(cf_store *store, size_t len, bool derived)
{
    char *text = malloc(len);
    for (size_t i = 0; i < len; i++)
        text[i] = canary[i % (sizeof canary - 1)];
    cf_slice value = cf_bytes(text, len);
    cf_op   *op;
    assert_ok(ask_long(store, CF_TTL, hidden, value, cf_text("")).status);
    for (int i = 0; i < 3; i++) { /* an operation is used again */
        answer got = ask_get(store, hidden);
        assert_true(got.hit && got.value_len == len);
    }
    assert_true(ask(store, CF_REQUEST(CF_OP_TOUCH, .flags = CF_TTL, .key = cf_text(hidden), .ttl_ms = 50000)).hit);
    assert_false(ask_long(store, CF_IF_ABSENT, hidden, value, cf_text("")).hit);
    assert_true(ask_long(store, CF_IF_PRESENT, hidden, value, cf_text("")).hit);
    if (derived) {
        assert_true(ask_long(store, CF_IF_EQUAL, hidden, value, value).hit);
        assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 9007199254740)).number, 9007199254740);
        assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).number, 9007199254741);
    }
    assert_true(ask_pop(store, hidden).hit);
    /* An expiry that has passed. */
    assert_ok(ask(store, CF_REQUEST(CF_OP_SET, .flags = CF_EXPIRES_AT, .key = cf_text(hidden), .value = value, .expires_at_ms = 1))
                  .status);
    /* What the backend refuses, and what is given up. */
    assert_ok(ask_long(store, CF_TTL, hidden, value, cf_text("")).status);
    if (cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text(hidden)), &op) == CF_PENDING) assert_ok(cf_op_cancel(op));
    cf_op_free(op);
    if (cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text(hidden), .value = value), &op) == CF_PENDING)
        assert_ok(cf_op_cancel(op));
    cf_op_free(op);
    free(text);
}

static void no_plain_text_and_no_key_is_in_memory_that_is_given_back(void **state)
{
    (void)state;
    static const size_t lengths[] = {sizeof canary, 700, 40000};
    int                 all = 0;
    cf_loop_free(loop);
    memory.platform.alloc = clean_alloc;
    memory.platform.resize = look_and_resize;
    memory.platform.release = look_and_release;
    cf_key                key = key_of(7, 100);
    const cf_open_options options = {
        .size = sizeof options, .prefix = cf_text("p:"), .keys = &key, .key_count = 1, .seal_values = true, .hash_keys = true};
    for (int which = 0; which < 5; which++) {
        for (int i = 0; i < 3; i++) {
            static tb_log    log;
            cf_backend_table some = some_slots();
            cf_store        *store;
            found = 0;
            assert_ok(cf_loop_new(&memory.platform, &loop));
            if (which == 0) {
                assert_ok(open_with(&options, &store, NULL));
            } else {
                const cf_backend_table *table = which < 4 ? tb_functions(which == 1 ? TB_FULL : TB_DERIVED) : &some;
                assert_ok(cf_open_backend(loop, table, tb_backend(tb_new(loop, which == 2 ? TB_NOW : TB_PIPE, &log)), &options,
                                          &store, NULL));
            }
            speak_of_secrets(store, lengths[i], which >= 2);
            cf_loop_free(loop); /* and all that it kept for another use */
            if (found) print_error("backend %d, length %zu\n", which, lengths[i]);
            all += found;
        }
    }
    assert_ok(cf_loop_new(&memory.platform, &loop));
    assert_int_equal(all, 0);
}

/* ------------------------------------------------------------------------------------------------------- late and never -- */

static uint64_t left; /* the ticket of a pop that the backend keeps, without having asked for its arguments to be kept */

static int pend_at_pop(tb *self, cf_op *op, void *user)
{
    (void)self;
    (void)user;
    if (cf_op_kind(op) != CF_OP_POP) return CF_OK;
    left = cf_op_ticket(op);
    return CF_PENDING;
}

static void an_answer_that_comes_after_the_deadline_is_nobodys(void **state)
{
    (void)state;
    static tb_log         log;
    static const char     big[40000], like_an_envelope[60] = {'C', 'f', 1, 1, 0, 0, 0, 7};
    cf_backend_table      some = some_slots();
    cf_key                key = key_of(7, 0);
    const cf_open_options options = {
        .size = sizeof options, .prefix = cf_text("p:"), .keys = &key, .key_count = 1, .seal_values = true};
    char      longest[CF_KEY_MAX + 1] = {0};
    cf_store *store;
    memset(longest, 'x', CF_KEY_MAX);
    memset(&log, 0, sizeof log);
    log.on_slot = pend_at_pop;
    assert_ok(cf_open_backend(loop, &some, tb_backend(tb_new(loop, TB_NOW, &log)), &options, &store, NULL));
    for (int i = 0; i < 3; i++) {
        cf_op *op;
        assert_ok(ask_set(store, longest, canary).status);
        assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text(longest), .timeout_ms = 1), &op), CF_PENDING);
        assert_int_equal(cf_op_wait(op), CF_ETIMEOUT);
        assert_int_equal(cf_op_error(op)->outcome, CF_UNKNOWN);
        cf_op_free(op);
        /* What the pop was given is others' memory now. */
        assert_ok(ask_long(store, 0, "another", cf_bytes(big, sizeof big), cf_text("")).status);
        cf_op *orphan = cf_loop_op(loop, left);
        assert_non_null(orphan);
        cf_op_set_hit(orphan, true);
        assert_ok(cf_op_set_value(orphan, cf_bytes(like_an_envelope, sizeof like_an_envelope)));
        cf_op_finish(orphan, CF_OK);
        assert_ok(ask_delete(store, longest).status); /* the lock is free */
    }
    assert_ok(cf_store_close(store, NULL));
}

static void a_popped_value_is_not_lost_for_want_of_memory(void **state)
{
    (void)state;
    cf_stage             *stage = cf_stage_new();
    cf_loop              *staged;
    cf_key                key = key_of(7, 0);
    const cf_open_options options = {
        .size = sizeof options, .prefix = cf_text("p:"), .keys = &key, .key_count = 1, .seal_values = true};
    char longest[CF_KEY_MAX + 1] = {0};
    memset(longest, 'x', CF_KEY_MAX);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &staged));
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        cf_store *store, *fresh;
        assert_ok(cf_open(staged, cf_text("memory:popped"), &options, &store, NULL));
        assert_ok(cf_open(staged, cf_text("memory:popped"), &options, &fresh, NULL));
        assert_ok(ask_set(store, longest, "v").status);
        cf_stage_fail_allocation(stage, nth, false);
        answer popped = ask_pop(fresh, longest);
        failed = cf_stage_failed(stage);
        cf_stage_fail_allocation(stage, 0, false);
        if (popped.status == CF_OK)
            assert_value(popped, "v");
        else
            assert_value(ask_get(store, longest), "v");
        assert_ok(cf_store_close(fresh, NULL));
        assert_ok(cf_store_close(store, NULL));
    }
    cf_loop_free(staged);
    cf_stage_free(stage);
}

static void a_store_that_cannot_be_opened_closes_its_backend_once(void **state)
{
    (void)state;
    cf_stage *stage = cf_stage_new();
    cf_loop  *staged;
    cf_key    key = key_of(7, 0), zero = key_of(0, 0);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &staged));
    static tb_log   log;
    cf_store       *store;
    cf_error        error;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:"), .keys = &zero, .key_count = 1, .seal_values = true};
    memset(&log, 0, sizeof log);
    assert_int_equal(tb_open(staged, TB_NOW, TB_FULL, &log, &options, &store, &error), CF_EINVAL);
    assert_null(store);
    assert_int_equal(log.closes, 1);
    options.keys = &key;
    int rc = CF_ENOMEM;
    for (uint64_t nth = 1; rc != CF_OK; nth++) {
        memset(&log, 0, sizeof log);
        tb *self = tb_new(staged, TB_NOW, &log);
        cf_stage_fail_allocation(stage, nth, false);
        rc = cf_open_backend(staged, tb_functions(TB_FULL), tb_backend(self), &options, &store, &error);
        cf_stage_fail_allocation(stage, 0, false);
        if (rc == CF_OK) break;
        assert_int_equal(rc, CF_ENOMEM);
        assert_null(store);
        assert_int_equal(log.closes, 1);
    }
    assert_ok(cf_store_close(store, NULL));
    assert_int_equal(log.closes, 1);
    cf_loop_free(staged);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
}

static void the_longest_value_and_the_longest_key_fit(void **state)
{
    (void)state;
    static tb_log log;
    cf_key        key = key_of(7, 0);
    char          prefix[CF_PREFIX_MAX + 1] = {0}, longest[CF_KEY_MAX + 1] = {0};
    char         *big = malloc(CF_VALUE_MAX + 1);
    memset(prefix, 'p', CF_PREFIX_MAX);
    memset(longest, 'x', CF_KEY_MAX);
    memset(big, 'v', CF_VALUE_MAX + 1);
    for (int hashes = 0; hashes < 2; hashes++) {
        for (int which = 0; which < 2; which++) {
            const cf_open_options options = {.size = sizeof options,
                                             .prefix = cf_text(prefix),
                                             .keys = &key,
                                             .key_count = 1,
                                             .seal_values = true,
                                             .hash_keys = hashes};
            cf_store             *store;
            if (which == 0)
                assert_ok(cf_open(loop, cf_text("memory:"), &options, &store, NULL));
            else
                assert_ok(tb_open(loop, TB_PIPE, TB_DERIVED, &log, &options, &store, NULL));
            assert_ok(ask_long(store, 0, longest, cf_bytes(big, CF_VALUE_MAX), cf_text("")).status);
            assert_int_equal(ask_get(store, longest).value_len, CF_VALUE_MAX);
            assert_int_equal(ask_pop(store, longest).value_len, CF_VALUE_MAX);
            assert_int_equal(ask_long(store, 0, longest, cf_bytes(big, CF_VALUE_MAX + 1), cf_text("")).status, CF_EINVAL);
            assert_ok(ask_long(store, 0, longest, cf_bytes(NULL, 0), cf_text("")).status);
            assert_value(ask_pop(store, longest), "");
            assert_ok(cf_store_close(store, NULL));
        }
    }
    free(big);
}

/* ---- sealing anew ---- */

typedef struct swept {
    int pages, anew, unreadable;
} swept;

static swept sweep(cf_store *store, size_t limit)
{
    swept     all = {0};
    char      cursor[CF_CURSOR_MAX];
    size_t    len = 0;
    do {
        cf_op *op;
        assert_ok(cf_submit(store, CF_REQUEST(CF_OP_RESEAL, .cursor = cf_bytes(cursor, len), .limit = limit), &op) == CF_PENDING ? cf_op_wait(op) : cf_op_status(op));
        all.pages++;
        all.anew += (int)cf_op_number(op);
        char text[24] = {0};
        memcpy(text, cf_op_value(op).ptr, cf_op_value(op).len);
        all.unreadable += atoi(text);
        len = cf_op_cursor(op).len;
        memcpy(cursor, cf_op_cursor(op).ptr, len);
        cf_op_free(op);
    } while (len);
    return all;
}

static void a_sweep_seals_anew_what_an_older_key_has_sealed(void **state)
{
    (void)state;
    memory.platform.random = cf_platform_real()->random; /* a nonce is used once */
    cf_key    ring[] = {key_of(2, 50), key_of(1, 10)};
    cf_store *old = sealed("p:", &ring[1], 1), *both = sealed("p:", ring, 2), *other = sealed("q:", &ring[1], 1), *raw = bare();
    char      key[16];
    for (int i = 0; i < 250; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_ok(ask_ttl(old, key, key, 60000).status);
    }
    assert_ok(ask_set(both, "new", "1").status);
    assert_ok(ask_set(other, "k", "v").status);
    assert_ok(ask(raw, CF_REQUEST(CF_OP_SET, .key = cf_text("p:plain"), .value = cf_text("never sealed"))).status);
    swept all = sweep(both, 100);
    assert_int_equal(all.anew, 250);
    assert_int_equal(all.unreadable, 1);
    assert_true(all.pages >= 3);
    all = sweep(both, 0);
    assert_int_equal(all.anew, 0);
    cf_store *without = sealed("p:", &ring[0], 1); /* the old key is given up */
    for (int i = 0; i < 250; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_value(ask_get(without, key), key);
    }
    assert_value(ask_get(other, "k"), "v"); /* another prefix is another store's */
    assert_int_equal(ask_get(without, "plain").status, CF_ECORRUPT);
    cf_store *all_of_them[] = {old, both, other, raw, without};
    for (size_t i = 0; i < sizeof all_of_them / sizeof *all_of_them; i++) assert_ok(cf_store_close(all_of_them[i], NULL));
}

static void a_sweep_keeps_what_it_must(void **state)
{
    (void)state;
    memory.platform.random = cf_platform_real()->random;
    cf_key ring[] = {key_of(2, 50), key_of(1, 10)};
    struct {
        cf_store *old, *both;
    } ways[2];
    for (int hashes = 0; hashes < 2; hashes++) {
        cf_open_options options = {.size = sizeof options, .prefix = cf_text(hashes ? "h:" : "p:"), .keys = &ring[1], .key_count = 1, .seal_values = true, .hash_keys = hashes};
        assert_ok(open_with(&options, &ways[hashes].old, NULL));
        options.keys = ring;
        options.key_count = 2;
        assert_ok(open_with(&options, &ways[hashes].both, NULL));
        assert_ok(ask_ttl(ways[hashes].old, "short", "s", 30).status);
        assert_ok(ask_set(ways[hashes].old, "long", "l").status);
        assert_int_equal(sweep(ways[hashes].both, 1).anew, 2);
    }
    struct timespec pause = {0, 40000000};
    nanosleep(&pause, NULL);
    for (int hashes = 0; hashes < 2; hashes++) {
        assert_miss(ask_get(ways[hashes].both, "short")); /* its expiry stayed */
        assert_value(ask_get(ways[hashes].both, "long"), "l");
        assert_ok(cf_store_close(ways[hashes].old, NULL));
        assert_ok(cf_store_close(ways[hashes].both, NULL));
    }
    cf_store *raw = bare();
    assert_int_equal(ask(raw, CF_REQUEST(CF_OP_RESEAL)).status, CF_EINVAL);
    assert_ok(cf_store_close(raw, NULL));
}

int main(void)
{
    hang_guard(60);
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
    const struct CMUnitTest tests[] = {
        TEST(the_bytes_are_those_of_the_format),
        TEST(a_changed_envelope_never_opens),
        TEST(keys_are_changed_in_two_steps),
        TEST(what_a_backend_would_have_to_understand_is_refused),
        TEST(keys_can_be_kept_as_hashes),
        TEST(rings_that_are_none),
        TEST(no_plain_text_and_no_key_is_in_memory_that_is_given_back),
        TEST(an_answer_that_comes_after_the_deadline_is_nobodys),
        TEST(a_popped_value_is_not_lost_for_want_of_memory),
        TEST(a_store_that_cannot_be_opened_closes_its_backend_once),
        TEST(a_sweep_seals_anew_what_an_older_key_has_sealed),
        TEST(a_sweep_keeps_what_it_must),
        TEST(the_longest_value_and_the_longest_key_fit),
    };
    return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
