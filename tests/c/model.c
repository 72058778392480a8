/* model.c: random operations on a staged clock, against a model that a reader can check in his head. CF_MODEL operations on each
 * backend; CF_SEED repeats a run. */
#include "support.h"

#include <string.h>

enum { KEYS = 40, VALUE = 40 };

typedef struct slot {
    bool    there;
    int64_t dies_at; /* 0: never */
    size_t  len;
    char    value[VALUE];
} slot;

static slot     slots[KEYS];
static int64_t  now;
static int64_t  store_ttl;
static uint64_t seed, step_number;
static const char *backend_name;

#define must(condition)                                                                                                       \
    do {                                                                                                                      \
        if (!(condition)) {                                                                                                   \
            fprintf(stderr, "%s: CF_SEED=%llu, operation %llu: not true: %s (line %d)\n", backend_name,                       \
                    (unsigned long long)seed, (unsigned long long)step_number, #condition, __LINE__);                         \
            exit(1);                                                                                                          \
        }                                                                                                                     \
    } while (0)

static slot *alive(int i)
{
    slot *s = &slots[i];
    if (s->there && s->dies_at && now >= s->dies_at) s->there = false;
    return s->there ? s : NULL;
}

static void key_name(char key[16], int i) { snprintf(key, 16, "%s%d", i % 4 ? "k" : "other", i); }

static size_t random_value(rng *random, char *value)
{
    uint64_t kind = rng_below(random, 4);
    if (kind == 0) return 0;
    if (kind == 1) return (size_t)snprintf(value, VALUE, "%d", (int)rng_below(random, 2000) - 1000);
    size_t len = rng_below(random, VALUE);
    for (size_t i = 0; i < len; i++) value[i] = (char)rng_below(random, 256);
    return len;
}

static bool counts(const slot *s, int64_t *number)
{
    char text[VALUE + 1], again[32];
    if (s->len == 0 || s->len > 18) return false;
    memcpy(text, s->value, s->len);
    text[s->len] = 0;
    *number = strtoll(text, NULL, 10);
    snprintf(again, sizeof again, "%lld", (long long)*number);
    return strlen(again) == s->len && memcmp(again, text, s->len) == 0;
}

static void scan_and_compare(cf_store *store, const char *prefix)
{
    bool   seen_keys[KEYS] = {false};
    char   cursor[256], key[16];
    size_t cursor_len = 0;
    do {
        cf_op   *op;
        cf_slice one;
        int      status = submit_lent(store, CF_REQUEST(CF_OP_SCAN, .key = cf_text(prefix), .limit = 7, .cursor = cf_bytes(cursor, cursor_len)), &op);
        if (status == CF_PENDING) status = cf_op_wait(op);
        must(status == CF_OK);
        while (cf_op_next_key(op, &one)) {
            int found = -1;
            for (int i = 0; i < KEYS; i++) {
                key_name(key, i);
                if (strlen(key) == one.len && memcmp(key, one.ptr, one.len) == 0) found = i;
            }
            must(found >= 0 && alive(found) && !seen_keys[found]);
            seen_keys[found] = true;
        }
        cursor_len = cf_op_cursor(op).len;
        if (cursor_len) memcpy(cursor, cf_op_cursor(op).ptr, cursor_len);
        cf_op_free(op);
    } while (cursor_len);
    for (int i = 0; i < KEYS; i++) {
        key_name(key, i);
        bool wanted = alive(i) && strncmp(key, prefix, strlen(prefix)) == 0;
        must(seen_keys[i] == wanted);
    }
}

static int64_t model_clear(const char *prefix, bool remove)
{
    int64_t count = 0;
    char    key[16];
    for (int i = 0; i < KEYS; i++) {
        key_name(key, i);
        if (!alive(i) || strncmp(key, prefix, strlen(prefix)) != 0) continue;
        count++;
        if (remove) slots[i].there = false;
    }
    return count;
}

static void one_step(cf_store *store, cf_stage *stage, rng *random, bool scans)
{
    int      i = (int)rng_below(random, KEYS);
    slot    *s = alive(i);
    char     key[16], value[VALUE];
    uint64_t what = rng_below(random, 100);
    cf_op   *op;
    answer   a;
    key_name(key, i);
    if (what < 18) {
        int status = cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text(key)), &op);
        if (status == CF_PENDING) status = cf_op_wait(op);
        must(status == CF_OK);
        must(cf_op_hit(op) == (s != NULL));
        if (s) must(cf_op_value(op).len == s->len && memcmp(cf_op_value(op).ptr, s->value, s->len) == 0);
        cf_op_free(op);
    } else if (what < 50) {
        cf_request r = {.size = sizeof r, .kind = CF_OP_SET, .key = cf_text(key)};
        size_t     len = random_value(random, value);
        int64_t    dies_at = store_ttl ? now + store_ttl : 0;
        bool       holds = true, gone = false, invalid = false;
        r.value = cf_bytes(value, len);
        switch (rng_below(random, 5)) {
        case 0:
            r.flags |= CF_TTL;
            r.ttl_ms = 1 + (int64_t)rng_below(random, 3000);
            dies_at = now + r.ttl_ms;
            break;
        case 1:
            r.flags |= CF_EXPIRES_AT;
            r.expires_at_ms = cf_stage_wall_ms(stage) + (int64_t)rng_below(random, 3000) - 500;
            dies_at = now + r.expires_at_ms - cf_stage_wall_ms(stage);
            gone = dies_at <= now;
            break;
        case 2:
            r.flags |= CF_KEEP_TTL;
            if (s) dies_at = s->dies_at;
            break;
        default: break;
        }
        switch (rng_below(random, 6)) {
        case 0:
            r.flags |= CF_IF_ABSENT;
            holds = !s;
            invalid = gone;
            break;
        case 1:
            r.flags |= CF_IF_PRESENT;
            holds = s != NULL;
            invalid = gone;
            break;
        case 2:
            r.flags |= CF_IF_EQUAL;
            r.expected = s && rng_below(random, 2) ? cf_bytes(s->value, s->len) : cf_text("7");
            holds = s && s->len == r.expected.len && memcmp(s->value, r.expected.ptr, s->len) == 0;
            invalid = gone;
            break;
        default: break;
        }
        a = ask(store, &r);
        must(a.status == (invalid ? CF_EINVAL : CF_OK));
        if (invalid) return;
        must(a.hit == (gone || holds));
        if (gone) {
            slots[i].there = false;
        } else if (holds) {
            slots[i] = (slot){.there = true, .dies_at = dies_at, .len = len};
            memcpy(slots[i].value, value, len);
        }
    } else if (what < 56) {
        a = ask_delete(store, key);
        must(a.status == CF_OK && a.hit == (s != NULL));
        slots[i].there = false;
    } else if (what < 64) {
        a = ask_pop(store, key);
        must(a.status == CF_OK && a.hit == (s != NULL));
        if (s) must(a.value_len == s->len && memcmp(a.value, s->value, s->len) == 0);
        slots[i].there = false;
    } else if (what < 72) {
        int64_t ttl = 1 + (int64_t)rng_below(random, 3000);
        a = ask(store, CF_REQUEST(CF_OP_TOUCH, .key = cf_text(key), .flags = CF_TTL, .ttl_ms = ttl));
        must(a.status == CF_OK && a.hit == (s != NULL));
        if (s) s->dies_at = now + ttl;
    } else if (what < 84) {
        cf_request r = {.size = sizeof r, .kind = CF_OP_INCR, .key = cf_text(key), .by = (int64_t)rng_below(random, 200) - 100};
        int64_t    old = 0, dies_at = store_ttl ? now + store_ttl : 0;
        if (rng_below(random, 2)) {
            r.flags = CF_TTL;
            r.ttl_ms = 1 + (int64_t)rng_below(random, 3000);
            dies_at = now + r.ttl_ms;
        }
        bool fine = !s || counts(s, &old);
        a = ask(store, &r);
        must(a.status == (fine ? CF_OK : CF_EINVAL));
        if (!fine) return;
        must(a.hit && a.number == old + r.by);
        if (!s) slots[i] = (slot){.there = true, .dies_at = dies_at};
        slots[i].len = (size_t)snprintf(slots[i].value, VALUE, "%lld", (long long)a.number);
    } else if (what < 95 || !scans) {
        static const int64_t most[] = {1, 10, 100, 1000, 5000};
        int64_t              ms = (int64_t)rng_below(random, (uint64_t)most[rng_below(random, 5)] + 1);
        /* Often to the very millisecond at which something ends. */
        if (s && s->dies_at && rng_below(random, 2)) ms = s->dies_at - now - (int64_t)rng_below(random, 2);
        cf_stage_advance(stage, ms);
        now += ms;
        if (rng_below(random, 10) == 0) cf_stage_step_wall(stage, (int64_t)rng_below(random, 1000000) - 500000);
    } else {
        static const char *const prefixes[] = {"", "k", "k1", "other", "none"};
        const char              *prefix = prefixes[rng_below(random, 5)];
        if (what < 97) scan_and_compare(store, prefix);
        else if (what < 99) must(ask(store, CF_REQUEST(CF_OP_COUNT, .key = cf_text(prefix))).number == model_clear(prefix, false));
        else if (rng_below(random, 4) == 0) must(ask(store, CF_REQUEST(CF_OP_CLEAR, .key = cf_text(prefix))).number == model_clear(prefix, true));
    }
}

static void run_model(const char *name, const char *url, tb_manner manner, tb_slots table, uint64_t count, int64_t ttl)
{
    cf_stage             *stage = cf_stage_new();
    cf_loop              *loop;
    cf_store             *store;
    static tb_log         log;
    rng                   random = {seed};
    const cf_open_options options = {.size = sizeof options, .prefix = cf_text("model:"), .ttl_ms = ttl};
    backend_name = name;
    now = 0;
    store_ttl = ttl;
    memset(slots, 0, sizeof slots);
    memset(&log, 0, sizeof log);
    must(cf_loop_new(cf_stage_platform(stage), &loop) == CF_OK);
    if (url) must(cf_open(loop, cf_text(url), &options, &store, NULL) == CF_OK);
    else must(tb_open(loop, manner, table, &log, &options, &store, NULL) == CF_OK);
    now = 1000000000; /* never 0, which says "never" */
    for (step_number = 0; step_number < count; step_number++) one_step(store, stage, &random, table != TB_DERIVED);
    cf_loop_free(loop);
    must(cf_stage_blocks(stage) == 0);
    cf_stage_free(stage);
    printf("%s: %llu operations agree with the model\n", name, (unsigned long long)count);
}

int main(void)
{
    uint64_t count = env_number("CF_MODEL", 200000);
    hang_guard(280);
    seed = seed_of_run();
    run_model("memory", "memory:", TB_NOW, TB_FULL, count, 0);
    run_model("memory with a ttl", "memory:model", TB_NOW, TB_FULL, count / 4, 2000);
    run_model("table", NULL, TB_NOW, TB_FULL, count / 4, 0);
    run_model("pending table", NULL, TB_PIPE, TB_FULL, count / 10, 2000);
    run_model("derived", NULL, TB_NOW, TB_DERIVED, count / 4, 0);
    run_model("pending, derived", NULL, TB_PIPE, TB_DERIVED, count / 10, 2000);
    return 0;
}
