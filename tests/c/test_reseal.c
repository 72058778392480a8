/* Keys that are given up, and stores that are given keys: sweeps through tokens and values, on every backend that two stores can have open at once. */
#define _GNU_SOURCE /* memmem */
#include "redis_support.h"

#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

typedef struct place {
    const char *name, *url; /* url NULL: a table */
    tb_manner   manner;
    bool        keyed; /* records are made of keys, and sealed with them */
} place;

static const place places[] = {
    {"memory", "memory:reseal", TB_NOW, true}, {"table", NULL, TB_NOW, true},  {"table, pending", NULL, TB_PIPE, true},
    {"redis", "redis:", TB_NOW, false},        {"sqlite", "sqlite:", TB_NOW, false},
};
enum { PLACES = sizeof places / sizeof *places };

static const cf_key OLD = {.id = 1, .bytes = "the old key of 32 bytes ........"}, NEW = {.id = 2, .bytes = "the new key of 32 bytes ........"},
                    OTHER = {.id = 3, .bytes = "a key of nobody that we know ..."};

typedef struct ground {
    const place *place;
    cf_stage    *stage;
    cf_loop     *loop;
    cf_store    *anchor; /* open from the first to the last: what is only in memory stays */
} ground;

static server redis;
static tb    *first_table;
static tb_log table_log;
static char   url[96];

static void remove_sqlite(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-reserve"};
    char path[128];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/cf-reseal-%ld.db%s", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid(), ends[i]);
        unlink(path);
    }
}

static void empty(const place *p)
{
    first_table = NULL;
    memset(&table_log, 0, sizeof table_log);
    if (!p->url) return;
    snprintf(url, sizeof url, "%s", p->url);
    if (strcmp(p->url, "redis:") == 0) {
        if (!redis.pid) server_start(&redis, NULL);
        server_says(&redis, "FLUSHALL");
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis.port);
    } else if (strcmp(p->url, "sqlite:") == 0) {
        remove_sqlite();
        snprintf(url, sizeof url, "sqlite:%s/cf-reseal-%ld.db?synchronous=normal", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
    }
}

static int try_open(const place *p, cf_loop *loop, const cf_open_options *options, tb_log *log, cf_store **out, cf_error *error)
{
    if (p->url) return cf_open(loop, cf_text(url), options, out, error);
    tb *table = first_table ? tb_share(first_table, loop, p->manner, log) : tb_new(loop, p->manner, log);
    if (!first_table) first_table = table;
    return table ? cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(table), options, out, error) : CF_ENOMEM;
}

typedef struct way { /* to open the store */
    cf_key  ring[2];
    size_t  keys;
    bool    values;
    int64_t plain_until;
    bool    elsewhere; /* under another prefix */
} way;

static cf_store *open_on(const place *p, cf_loop *loop, const way *w, tb_log *log)
{
    cf_store       *store = NULL;
    cf_error        error = {0};
    cf_open_options options = {.size = sizeof options, .prefix = cf_text(w->elsewhere ? "q*:" : "p*:"), .keys = w->ring, .key_count = w->keys, .seal_values = w->values,
                               .plain_until_ms = w->plain_until, .timeout_ms = 60000};
    if (try_open(p, loop, &options, log, &store, &error) != CF_OK) fail_msg("open: %s", error.text);
    return store;
}
static cf_store *open_way(ground *g, way w) { return open_on(g->place, g->loop, &w, &table_log); }

static way by_old(bool values) { return (way){.ring = {OLD}, .keys = 1, .values = values}; }
static way by_new(bool values) { return (way){.ring = {NEW}, .keys = 1, .values = values}; }
static way by_both(bool values) { return (way){.ring = {NEW, OLD}, .keys = 2, .values = values}; }

static int up(void **state)
{
    ground *g = calloc(1, sizeof *g);
    g->place = *state;
    g->stage = cf_stage_new();
    empty(g->place);
    if (cf_loop_new(cf_stage_platform(g->stage), &g->loop) != CF_OK) return -1;
    g->anchor = open_way(g, (way){0});
    *state = g;
    return 0;
}

static int down(void **state)
{
    ground *g = *state;
    cf_loop_free(g->loop);
    int64_t blocks = cf_stage_blocks(g->stage);
    if (blocks) print_error("%lld blocks were not released\n", (long long)blocks);
    cf_stage_free(g->stage);
    free(g);
    return blocks != 0;
}

/* ------------------------------------------------------------------------------------------------------------- calls -- */

typedef struct id {
    char text[CF_ID_LEN + 1];
} id;

static cf_op *wait_for(cf_op *op, int rc)
{
    while (rc == CF_PENDING) rc = cf_op_wait(op);
    return op;
}

static cf_op *accounts(cf_store *store, int method, const cf_record *record, const cf_record *user)
{
    cf_accounts of = {.store = store};
    cf_op      *op;
    int         rc = cf_accounts_call(&of, method, record, user, NULL, &op);
    return wait_for(op, rc);
}

/* An account and its user; tokens NULL: none. */
static id sign_up(cf_store *store, const char *name, const char *access, const char *refresh)
{
    cf_record account = {.kind = CF_SOCIAL_ACCOUNT}, user = {.kind = CF_USER}, made;
    char      address[64];
    id        it = {{0}};
    snprintf(address, sizeof address, "%s@b.c", name);
    cf_record_text(&user, CF_USER_EMAIL, cf_text(address));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("google"));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text(name));
    if (access) cf_record_text(&account, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text(access));
    if (refresh) cf_record_text(&account, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, cf_text(refresh));
    cf_op *op = accounts(store, CF_FIND_OR_CREATE, &account, &user);
    if (cf_op_status(op) != CF_OK) fail_msg("%s", cf_op_error(op)->text);
    assert_true(cf_op_next_record(op, &made));
    memcpy(it.text, made.fields[0].text.ptr, CF_ID_LEN);
    cf_op_free(op);
    return it;
}

static int set_access(cf_store *store, const id *which, const char *token)
{
    cf_record account = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_ID, cf_text(which->text));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text(token));
    cf_op *op = accounts(store, CF_UPDATE_SOCIAL_ACCOUNT, &account, NULL);
    int    status = cf_op_status(op);
    cf_op_free(op);
    return status;
}

/* A token as text, "" where there is none; or the status, in words. */
static const char *token_of(cf_store *store, const id *which, int field)
{
    static _Thread_local char text[128];
    cf_record query = {.kind = CF_SOCIAL_ACCOUNT}, found;
    cf_record_text(&query, CF_SOCIAL_ACCOUNT_ID, cf_text(which->text));
    cf_op *op = accounts(store, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query, NULL);
    int    status = cf_op_status(op);
    snprintf(text, sizeof text, "%s", status == CF_OK ? "nobody" : cf_status_name(status));
    if (cf_op_next_record(op, &found)) snprintf(text, sizeof text, "%.*s", (int)found.fields[field].text.len, found.fields[field].is == CF_GIVEN ? found.fields[field].text.ptr : "");
    cf_op_free(op);
    return text;
}
static const char *access_of(cf_store *store, const id *which) { return token_of(store, which, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN); }
static const char *refresh_of(cf_store *store, const id *which) { return token_of(store, which, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN); }

typedef struct swept {
    int pages, anew, unreadable, status, outcome;
} swept;

/* Until its end or the first error. `meanwhile` is called after each page. */
static swept sweep_with(cf_store *store, unsigned flags, size_t limit, void (*meanwhile)(void *), void *user)
{
    swept  all = {0};
    char   cursor[CF_CURSOR_MAX];
    size_t len = 0;
    do {
        cf_op *op;
        int    rc = cf_submit(store, CF_REQUEST(CF_OP_RESEAL, .flags = flags, .cursor = cf_bytes(cursor, len), .limit = limit), &op);
        if (!op) return all.status = rc, all;
        if (len) assert_int_equal(rc, CF_PENDING); /* whoever asks for page after page lets others pass */
        wait_for(op, rc);
        all.pages++;
        all.status = cf_op_status(op);
        all.outcome = cf_op_error(op)->outcome;
        if (all.status < 0) assert_true(cf_op_error(op)->text[0]);
        all.anew += (int)cf_op_number(op);
        char text[24] = {0};
        memcpy(text, cf_op_value(op).ptr ? cf_op_value(op).ptr : "", cf_op_value(op).len);
        all.unreadable += atoi(text);
        len = cf_op_cursor(op).len;
        if (len) memcpy(cursor, cf_op_cursor(op).ptr, len);
        cf_op_free(op);
        if (meanwhile) meanwhile(user);
    } while (len && all.status == CF_OK);
    return all;
}
static swept tokens(cf_store *store) { return sweep_with(store, CF_TOKENS, 0, NULL, NULL); }
static swept values(cf_store *store) { return sweep_with(store, 0, 0, NULL, NULL); }

static void close_store(cf_store *store) { assert_ok(cf_store_close(store, NULL)); }

/* -------------------------------------------------------------------------------------------------------- the old key -- */

static void after_a_sweep_the_old_key_can_go(void **state)
{
    enum { MANY = 130 };
    ground   *g = *state;
    cf_store *old = open_way(g, by_old(false)), *both = open_way(g, by_both(false)), *away = open_way(g, (way){.ring = {OLD}, .keys = 1, .elsewhere = true});
    static id ids[MANY];
    char      name[16], access[32], refresh[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "%d", i);
        snprintf(access, sizeof access, "access-%d", i);
        snprintf(refresh, sizeof refresh, "refresh-%d", i);
        ids[i] = sign_up(i % 10 == 9 ? both : old, name, i % 10 == 1 ? NULL : access, i % 10 < 2 ? NULL : refresh); /* of ten: one has none, one has one */
    }
    id    there = sign_up(away, "away", "away", NULL);
    if (strcmp(g->place->name, "sqlite") == 0) assert_int_equal(sweep_with(away, CF_TOKENS, 20, NULL, NULL).pages, 1); /* those of others are not even looked at */
    swept all = sweep_with(both, CF_TOKENS, 20, NULL, NULL);
    assert_ok(all.status);
    assert_int_equal(all.anew, MANY / 10 * (1 + 7 * 2));
    assert_int_equal(all.unreadable, 0);
    assert_true(all.pages >= 5);
    all = tokens(both);
    assert_int_equal(all.anew, 0);
    assert_int_equal(all.unreadable, 0);
    cf_store *without = open_way(g, by_new(false));
    for (int i = 0; i < MANY; i++) {
        snprintf(access, sizeof access, i % 10 == 1 ? "" : "access-%d", i);
        snprintf(refresh, sizeof refresh, i % 10 < 2 ? "" : "refresh-%d", i);
        assert_string_equal(access_of(without, &ids[i]), access);
        assert_string_equal(refresh_of(without, &ids[i]), refresh);
    }
    assert_string_equal(access_of(away, &there), "away"); /* another prefix is another store's */
    close_store(old);
    close_store(both);
    close_store(away);
    close_store(without);
}

static void what_does_not_open_is_counted_and_left(void **state)
{
    ground   *g = *state;
    cf_store *old = open_way(g, by_old(false)), *both = open_way(g, by_both(false)), *stranger = open_way(g, (way){.ring = {OTHER}, .keys = 1}), *none = open_way(g, (way){0});
    id        fine = sign_up(old, "fine", "a", "r"), strange = sign_up(stranger, "strange", "A", "R"), plain = sign_up(none, "plain", "plain", NULL);
    swept     all = tokens(both);
    assert_ok(all.status);
    assert_int_equal(all.anew, 2);
    assert_int_equal(all.unreadable, 3);
    assert_string_equal(access_of(both, &fine), "a");
    assert_string_equal(access_of(stranger, &strange), "A");
    assert_string_equal(refresh_of(stranger, &strange), "R");
    assert_string_equal(access_of(none, &plain), "plain");
    assert_string_equal(access_of(both, &plain), "CORRUPT");
    close_store(old);
    close_store(both);
    close_store(stranger);
    close_store(none);
}

/* Records that are made of keys are sealed with them (seal_values): those too. */
static void values_of_records_are_sealed_anew(void **state)
{
    ground   *g = *state;
    cf_store *old = open_way(g, by_old(true)), *both = open_way(g, by_both(true));
    id        one = sign_up(old, "one", "a", "r");
    cf_op    *op;
    cf_record session = {.kind = CF_SESSION}, user = {.kind = CF_USER};
    int64_t   now = cf_stage_wall_ms(g->stage) * 1000;
    cf_record_text(&session, CF_SESSION_USER_ID, cf_text("u"));
    cf_record_text(&session, CF_SESSION_TOKEN_HASH, cf_text("hash"));
    cf_record_number(&session, CF_SESSION_CREATED_AT, now);
    cf_record_number(&session, CF_SESSION_UPDATED_AT, now);
    cf_record_number(&session, CF_SESSION_EXPIRES_AT, now + 60000000);
    int rc = cf_sessions_call(&(cf_sessions){.store = old}, CF_SESSION_CREATE, &session, NULL, NULL, &op);
    assert_ok(cf_op_status(wait_for(op, rc)));
    cf_op_free(op);
    assert_ok(ask_set(old, "k", "v").status);
    swept all = tokens(both);
    assert_ok(all.status);
    assert_int_equal(all.anew, 2);
    all = values(both);
    assert_ok(all.status);
    assert_int_equal(all.unreadable, 0);
    if (g->place->keyed) assert_true(all.anew >= 7); /* the value; of records: three, but for the account, the names that lead to them and their groups */
    else assert_int_equal(all.anew, 1);
    assert_int_equal(values(both).anew, 0);
    cf_store *without = open_way(g, by_new(true));
    assert_value(ask_get(without, "k"), "v");
    assert_string_equal(access_of(without, &one), "a");
    assert_string_equal(refresh_of(without, &one), "r");
    cf_record_text(&user, CF_USER_EMAIL, cf_text("one@b.c"));
    op = accounts(without, CF_FIND_USER_BY_EMAIL, &user, NULL);
    assert_true(cf_op_status(op) == CF_OK && cf_op_hit(op));
    cf_op_free(op);
    cf_record sought = {.kind = CF_SESSION};
    cf_record_text(&sought, CF_SESSION_TOKEN_HASH, cf_text("hash"));
    rc = cf_sessions_call(&(cf_sessions){.store = without}, CF_SESSION_GET, &sought, NULL, NULL, &op);
    assert_true(cf_op_status(wait_for(op, rc)) == CF_OK && cf_op_hit(op));
    cf_op_free(op);
    assert_int_equal(ask_count(without).number, 1); /* and still nobody's key is among them */
    close_store(old);
    close_store(both);
    close_store(without);
}

/* ---------------------------------------------------------------------------------------------------------------- plain -- */

static void plain_is_taken_until_then_and_sealed(void **state)
{
    ground   *g = *state;
    int64_t   until = cf_stage_wall_ms(g->stage) + 10000;
    cf_store *before = open_way(g, (way){0}), *meanwhile = open_way(g, (way){.ring = {NEW}, .keys = 1, .values = true, .plain_until = until}), *strict = open_way(g, by_new(true));
    id        swept_one = sign_up(before, "1", "plain-1", "r1"), empty_one = sign_up(before, "2", "", NULL);
    static const char like[] = {'C', 'f', 1, 'x', 0};
    assert_ok(ask_ttl(before, "k", "value", 600000).status);
    assert_ok(ask_set(before, "empty", "").status);
    assert_ok(ask(before, CF_REQUEST(CF_OP_SET, .key = cf_text("like"), .value = cf_bytes(like, 4))).status);
    assert_int_equal(ask_get(strict, "k").status, CF_ECORRUPT);
    if (!g->place->keyed) assert_string_equal(access_of(strict, &swept_one), "CORRUPT");
    assert_value(ask_get(meanwhile, "k"), "value");
    assert_value(ask_get(meanwhile, "empty"), "");
    assert_int_equal(ask_get(meanwhile, "like").status, CF_ECORRUPT); /* what begins as an envelope is one */
    assert_string_equal(access_of(meanwhile, &swept_one), "plain-1");
    assert_string_equal(access_of(meanwhile, &empty_one), "");
    assert_ok(set_access(meanwhile, &swept_one, "plain-2"));
    assert_string_equal(refresh_of(meanwhile, &swept_one), "r1");
    swept all = tokens(meanwhile);
    assert_ok(all.status);
    assert_int_equal(all.anew, 2); /* what was written by then was sealed then */
    all = values(meanwhile);
    assert_ok(all.status);
    assert_true(g->place->keyed ? all.anew > 2 : all.anew == 2);
    assert_int_equal(all.unreadable, 1);
    assert_ok(ask_set(before, "late", "x").status);
    id late = sign_up(before, "late", "x", NULL);
    assert_value(ask_pop(meanwhile, "late"), "x");
    assert_ok(ask_set(before, "late", "x").status);
    cf_stage_advance(g->stage, 9999);
    assert_value(ask_get(meanwhile, "late"), "x");
    cf_stage_advance(g->stage, 1);
    cf_store *all_of[] = {meanwhile, strict};
    for (int i = 0; i < 2; i++) {
        assert_value(ask_get(all_of[i], "k"), "value");
        assert_value(ask_get(all_of[i], "empty"), "");
        assert_int_equal(ask_get(all_of[i], "late").status, CF_ECORRUPT);
        assert_string_equal(access_of(all_of[i], &swept_one), "plain-2");
        assert_string_equal(refresh_of(all_of[i], &swept_one), "r1");
        assert_string_equal(access_of(all_of[i], &empty_one), "");
        assert_string_equal(access_of(all_of[i], &late), "CORRUPT");
    }
    all = tokens(meanwhile);
    assert_ok(all.status);
    assert_int_equal(all.anew, 0);
    assert_int_equal(all.unreadable, 1);
    cf_store *now = open_way(g, (way){.ring = {NEW}, .keys = 1, .values = true, .plain_until = until}); /* a program that starts later has the same words */
    assert_int_equal(ask_get(now, "late").status, CF_ECORRUPT);
    close_store(now);
    close_store(before);
    close_store(meanwhile);
    close_store(strict);
}

static void what_makes_no_sense_is_refused(void **state)
{
    ground  *g = *state;
    int64_t  now = cf_stage_wall_ms(g->stage);
    const struct {
        size_t  keys;
        int64_t until;
    } bad[] = {{0, now + 1000}, {1, -1}, {1, 1}, {1, now / 1000}, {1, now + CF_PLAIN_MAX + 1}, {1, INT64_MAX}, {1, INT64_MIN}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cf_open_options options = {.size = sizeof options, .keys = &NEW, .key_count = bad[i].keys, .plain_until_ms = bad[i].until};
        cf_store       *store;
        cf_error        error;
        tb_log          log = {0};
        assert_int_equal(try_open(g->place, g->loop, &options, &log, &store, &error), CF_EINVAL);
        assert_non_null(strstr(error.text, "plain_until"));
        assert_null(store);
    }
    cf_store *store = open_way(g, (way){.ring = {NEW}, .keys = 1, .plain_until = now + CF_PLAIN_MAX}), *none = open_way(g, (way){0});
    assert_int_equal(tokens(none).status, CF_EINVAL);
    assert_int_equal(values(store).status, CF_EINVAL);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_RESEAL, .flags = CF_TOKENS, .key = cf_text("part"))).status, CF_EINVAL);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_RESEAL, .flags = CF_TOKENS | CF_FORCE)).status, CF_EINVAL);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_RESEAL, .flags = CF_TOKENS, .limit = CF_SCAN_MAX + 1)).status, CF_EINVAL);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_SCAN, .flags = CF_TOKENS)).status, CF_EINVAL);
    close_store(store);
    close_store(none);
}

/* ------------------------------------------------------------------------------------------------------------ together -- */

enum { ACCOUNTS = 12, ROUNDS = 300 };

typedef struct crowd {
    const place *place;
    id           ids[ACCOUNTS];
    bool         values;
    _Atomic bool over;
    _Atomic int  lost, failed;
    char         last[ACCOUNTS][32];
} crowd;

static way ring_of(const crowd *c, bool turned) { return (way){.ring = {turned ? OLD : NEW, turned ? NEW : OLD}, .keys = 2, .values = c->values}; }

/* The only one who changes these tokens: what is not found as it was left has been lost. */
static void *refresh_them(void *user)
{
    crowd   *c = user;
    tb_log   log = {0};
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) return NULL;
    cf_loop_set_blocking(loop, true);
    way       w = ring_of(c, false);
    cf_store *store = open_on(c->place, loop, &w, &log);
    for (int round = 0; round < ROUNDS; round++) {
        int which = round % ACCOUNTS;
        if (strcmp(access_of(store, &c->ids[which]), c->last[which]) != 0) c->lost++;
        snprintf(c->last[which], sizeof c->last[which], "round-%d", round);
        if (set_access(store, &c->ids[which], c->last[which]) != CF_OK) c->failed++;
    }
    c->over = true;
    cf_loop_free(loop);
    return NULL;
}

/* Two who sweep one after the other, each with a ring whose first key is the other's second: there is always something to seal anew. */
static void no_update_is_lost_beside_a_sweep(void **state)
{
    const place *p = *state;
    crowd        c = {.place = p, .values = p->keyed};
    cf_loop     *loop;
    cf_store    *stores[2];
    pthread_t    thread;
    int          anew = 0, unreadable = 0;
    empty(p);
    assert_ok(cf_loop_new(NULL, &loop));
    cf_loop_set_blocking(loop, true);
    for (int i = 0; i < 2; i++) {
        way w = ring_of(&c, i);
        stores[i] = open_on(p, loop, &w, &table_log);
    }
    for (int i = 0; i < ACCOUNTS; i++) {
        snprintf(c.last[i], sizeof c.last[i], "first-%d", i);
        c.ids[i] = sign_up(stores[1], c.last[i], c.last[i], "refresh");
    }
    assert_int_equal(pthread_create(&thread, NULL, refresh_them, &c), 0);
    for (int turn = 0; !c.over || turn < 4; turn++) {
        swept all = sweep_with(stores[turn % 2], CF_TOKENS, 5, NULL, NULL);
        assert_ok(all.status);
        anew += all.anew;
        unreadable += all.unreadable;
        if (!c.values) continue;
        all = sweep_with(stores[turn % 2], 0, 5, NULL, NULL);
        assert_ok(all.status);
        unreadable += all.unreadable;
    }
    pthread_join(thread, NULL);
    assert_int_equal(c.lost, 0);
    assert_int_equal(c.failed, 0);
    assert_int_equal(unreadable, 0);
    assert_true(anew > ACCOUNTS);
    for (int i = 0; i < ACCOUNTS; i++) {
        assert_string_equal(access_of(stores[0], &c.ids[i]), c.last[i]);
        assert_string_equal(refresh_of(stores[0], &c.ids[i]), "refresh");
    }
    cf_loop_free(loop);
}

/* The same for one of many interleavings that threads seldom find: an update comes when a sweep through values has compared, and is about to write. */
static void an_update_waits_for_a_record_that_is_sealed_anew(void **state)
{
    static tb_log log;
    way      w = by_old(true), turned = by_both(true);
    place    table = {.name = "by hand", .manner = TB_HAND};
    cf_loop *loop;
    (void)state;
    memset(&log, 0, sizeof log);
    empty(&table);
    assert_ok(cf_loop_new(NULL, &loop));
    table.manner = TB_NOW;
    cf_store *old = open_on(&table, loop, &w, &log);
    id        one = sign_up(old, "1", "before", NULL);
    table.manner = TB_HAND;
    tb             *sweeps = tb_share(first_table, loop, TB_HAND, &log), *updates = tb_share(first_table, loop, TB_HAND, &log);
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p*:"), .keys = turned.ring, .key_count = 2, .seal_values = true};
    cf_store       *sweeper, *updater;
    assert_ok(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(sweeps), &options, &sweeper, NULL));
    assert_ok(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(updates), &options, &updater, NULL));
    cf_op *sweep, *update;
    assert_int_equal(cf_submit(sweeper, CF_REQUEST(CF_OP_RESEAL), &sweep), CF_PENDING);
    for (;;) {
        cf_op *next = cf_loop_op(loop, tb_ticket(sweeps, 0));
        assert_non_null(next);
        cf_slice key = cf_op_in(next)->key;
        if (cf_op_kind(next) == CF_OP_SET && memmem(key.ptr, key.len, "\nsocial_account:", 16)) break;
        assert_int_equal(tb_answer(sweeps, 1), 1);
    }
    cf_record account = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_ID, cf_text(one.text));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("after"));
    assert_int_equal(cf_accounts_call(&(cf_accounts){.store = updater}, CF_UPDATE_SOCIAL_ACCOUNT, &account, NULL, NULL, &update), CF_PENDING);
    while (tb_answer(updates, 1)) cf_loop_run(loop, 0); /* as far as it gets */
    while (tb_answer(sweeps, 1) || tb_answer(updates, 1)) cf_loop_run(loop, 0);
    assert_ok(cf_op_status(sweep));
    assert_ok(cf_op_status(update));
    cf_op_free(sweep);
    cf_op_free(update);
    table.manner = TB_NOW;
    cf_store *both = open_on(&table, loop, &turned, &log);
    assert_string_equal(access_of(both, &one), "after");
    cf_loop_free(loop);
}

/* ------------------------------------------------------------------------------------------------------- what is left -- */

static const char canary[] = "s3cr3t-plain-token-";
static int        leaks;

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
    if (block && memmem(block, malloc_usable_size(block), canary, sizeof canary - 1)) leaks++;
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

/* What was plain at its backend is not left in memory that the core gives back. The table's own is not looked at: it is another loop's. */
static void plain_text_is_wiped(void **state)
{
    const place *p = &places[1];
    cf_platform  watched = *cf_platform_real();
    watched.alloc = clean_alloc;
    watched.resize = look_and_resize;
    watched.release = look_and_release;
    for (size_t len = 30; len < 70000; len *= 9) {
        for (int seals = 0; seals < 2; seals++) {
            cf_loop *plain_loop, *loop;
            char    *text = calloc(1, len + 1);
            for (size_t i = 0; i < len; i++) text[i] = canary[i % (sizeof canary - 1)];
            (void)state;
            empty(p);
            assert_ok(cf_loop_new(NULL, &plain_loop));
            assert_ok(cf_loop_new(&watched, &loop));
            way       w = {.ring = {NEW}, .plain_until = watched.wall_ms(watched.self) + 60000}, none = {0};
            cf_store       *before = open_on(p, plain_loop, &none, &table_log), *meanwhile;
            cf_open_options options = {.size = sizeof options, .prefix = cf_text("p*:"), .keys = w.ring, .key_count = 1, .seal_values = seals, .plain_until_ms = w.plain_until};
            tb             *table = tb_share(first_table, plain_loop, TB_NOW, &table_log);
            assert_ok(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(table), &options, &meanwhile, NULL));
            id        one = sign_up(before, "1", text, text), two = sign_up(before, "2", text, text);
            assert_ok(ask_set(before, "k", text).status);
            leaks = 0;
            (void)access_of(meanwhile, &one);
            cf_record account = {.kind = CF_SOCIAL_ACCOUNT};
            cf_record_text(&account, CF_SOCIAL_ACCOUNT_ID, cf_text(two.text));
            cf_record_text(&account, CF_SOCIAL_ACCOUNT_SCOPE, cf_text("openid"));
            cf_op *op = accounts(meanwhile, CF_UPDATE_SOCIAL_ACCOUNT, &account, NULL);
            assert_ok(cf_op_status(op));
            cf_op_free(op);
            assert_int_equal(tokens(meanwhile).anew, 4);
            if (seals) assert_true(values(meanwhile).anew > 1);
            assert_int_equal(tokens(meanwhile).anew, 0);
            cf_loop_free(loop);
            if (leaks) fail_msg("a text of %zu bytes, seal_values %d: left in %d blocks", len, seals, leaks);
            cf_loop_free(plain_loop);
            free(text);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- failures -- */

/* Each allocation fails once, and each once with all that follow: the sweep fails, or not; nothing is lost, and it can be done again. */
static void want_of_memory_loses_no_token(void **state)
{
    const place *p = *state;
    int          failures = 0;
    for (uint64_t nth = 1; nth < 600; nth++) {
        void *inner = (void *)(uintptr_t)p;
        assert_ok(up(&inner));
        ground   *g = inner;
        cf_store *old = open_way(g, by_old(p->keyed)), *both = open_way(g, by_both(p->keyed));
        id        ids[2] = {sign_up(old, "1", "a1", "r1"), sign_up(old, "2", "a2", NULL)};
        (void)ask_get(both, "k"); /* connected */
        cf_stage_fail_allocation(g->stage, (nth + 1) / 2, nth % 2);
        swept all = tokens(both);
        if (all.status == CF_OK && p->keyed) all = values(both);
        bool failed = cf_stage_failed(g->stage);
        cf_stage_fail_allocation(g->stage, 0, false);
        if (all.status != CF_OK) {
            assert_int_equal(all.status, CF_ENOMEM);
            failures++;
        }
        assert_int_equal(all.unreadable, 0);
        assert_ok(tokens(both).status);
        if (p->keyed) assert_ok(values(both).status);
        cf_store *without = open_way(g, by_new(p->keyed));
        assert_string_equal(access_of(without, &ids[0]), "a1");
        assert_string_equal(refresh_of(without, &ids[0]), "r1");
        assert_string_equal(access_of(without, &ids[1]), "a2");
        assert_ok(down(&inner));
        if (!failed) break;
    }
    assert_true(failures > 10);
}

typedef struct trouble {
    int calls, at;
} trouble;

static int fail_at(tb *self, cf_op *op, void *user)
{
    (void)self;
    trouble *t = user;
    return ++t->calls == t->at ? cf_op_fail(op, CF_EUNAVAILABLE, CF_UNKNOWN, "The table is on fire.") : CF_OK;
}

static void a_backend_that_fails_ends_the_sweep(void **state)
{
    const place *p = *state;
    for (int at = 1, end = 0; !end; at++) {
        void *inner = (void *)(uintptr_t)p;
        assert_ok(up(&inner));
        ground   *g = inner;
        cf_store *old = open_way(g, by_old(true)), *both = open_way(g, by_both(true));
        id        one = sign_up(old, "1", "a1", "r1");
        trouble   t = {.at = at};
        table_log.user = &t;
        table_log.on_slot = fail_at;
        swept first = tokens(both), second = first.status == CF_OK ? values(both) : first;
        table_log.on_slot = NULL;
        end = t.calls < at;
        if (!end) assert_int_equal(second.status, CF_EUNAVAILABLE);
        assert_ok(tokens(both).status);
        assert_ok(values(both).status);
        cf_store *without = open_way(g, by_new(true));
        assert_string_equal(access_of(without, &one), "a1");
        assert_string_equal(refresh_of(without, &one), "r1");
        assert_ok(down(&inner));
        assert_true(end || at < 500);
        if (end) assert_true(at > 20);
    }
}

/* A backend that knows no CF_BY_ALL gives records, as for a group. */
static int nothing(cf_backend *self, cf_op *op) { return (void)self, (void)op, CF_OK; }
static int give_record(cf_backend *self, cf_op *op)
{
    (void)self;
    cf_record record = {.kind = CF_SOCIAL_ACCOUNT};
    return cf_op_add_record(op, &record);
}
static const cf_backend_table older = {.size = sizeof older, .name = "older", .get = nothing, .set = nothing, .del = nothing, .insert = nothing, .update = nothing,
                                       .find = nothing, .list = give_record, .remove = nothing};
static const cf_backend_table hooked = {.size = sizeof hooked, .name = "hooked", .get = nothing, .set = nothing, .del = nothing, .hook = nothing};

/* Whatever it said before it failed. */
static int give_id(cf_backend *self, cf_op *op) { return (void)self, cf_op_add_id(op, cf_text("some-id")); }
static int give_half(cf_backend *self, cf_op *op)
{
    (void)self;
    cf_op_set_hit(op, true);
    return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "it is damaged");
}
static const cf_backend_table damaged = {.size = sizeof damaged, .name = "damaged", .get = nothing, .set = nothing, .del = nothing, .insert = nothing, .update = nothing,
                                         .find = give_half, .list = give_id, .remove = nothing};

static void damage_is_counted_and_ends_no_sweep(void **state)
{
    cf_open_options options = {.size = sizeof options, .keys = &NEW, .key_count = 1};
    cf_loop        *loop;
    cf_store       *store;
    (void)state;
    assert_ok(cf_loop_new(NULL, &loop));
    assert_ok(cf_open_backend(loop, &damaged, NULL, &options, &store, NULL));
    swept all = tokens(store);
    assert_ok(all.status);
    assert_int_equal(all.unreadable, 1);
    cf_loop_free(loop);
}

static void who_cannot_list_says_so(void **state)
{
    static const cf_backend_table *const tables[] = {&older, &hooked};
    cf_open_options options = {.size = sizeof options, .keys = &NEW, .key_count = 1};
    cf_loop        *loop;
    cf_store       *store;
    (void)state;
    assert_ok(cf_loop_new(NULL, &loop));
    for (int i = 0; i < 2; i++) {
        assert_ok(cf_open_backend(loop, tables[i], NULL, &options, &store, NULL));
        assert_int_equal(tokens(store).status, CF_ENOTSUP);
    }
    tb_log log = {0};
    assert_ok(tb_open(loop, TB_NOW, TB_DERIVED, &log, &options, &store, NULL)); /* no scan */
    assert_int_equal(tokens(store).status, CF_ENOTSUP);
    assert_ok(tb_open(loop, TB_NOW, TB_FULL, &log, &options, &store, NULL)); /* no records */
    assert_int_equal(tokens(store).status, CF_ENOTSUP);
    cf_loop_free(loop);
}

/* ---------------------------------------------------------------------------------------------------------------- main -- */

int main(void)
{
    static const struct {
        const char        *name;
        CMUnitTestFunction run;
        bool               bare; /* makes its own ground */
    } all[] = {
#define TEST(name, bare) {#name, name, bare}
        TEST(after_a_sweep_the_old_key_can_go, false),
        TEST(what_does_not_open_is_counted_and_left, false),
        TEST(values_of_records_are_sealed_anew, false),
        TEST(plain_is_taken_until_then_and_sealed, false),
        TEST(what_makes_no_sense_is_refused, false),
        TEST(no_update_is_lost_beside_a_sweep, true),
        TEST(want_of_memory_loses_no_token, true),
    };
    enum { ALL = sizeof all / sizeof *all };
    static struct CMUnitTest tests[PLACES * ALL + 8];
    static char              names[PLACES * ALL][96];
    size_t                   count = 0;
    hang_guard(120);
    for (int p = 0; p < PLACES; p++)
        for (int t = 0; t < ALL; t++) {
            snprintf(names[count], sizeof names[count], "%s: %s", places[p].name, all[t].name);
            tests[count] = (struct CMUnitTest){names[count], all[t].run, all[t].bare ? NULL : up, all[t].bare ? NULL : down, (void *)(uintptr_t)&places[p]};
            count++;
        }
    for (int p = 1; p < 3; p++) { /* the tables */
        void *which = (void *)(uintptr_t)&places[p];
        tests[count++] = (struct CMUnitTest){"a_backend_that_fails_ends_the_sweep", a_backend_that_fails_ends_the_sweep, NULL, NULL, which};
    }
    tests[count++] = (struct CMUnitTest){"plain_text_is_wiped", plain_text_is_wiped, NULL, NULL, NULL};
    tests[count++] = (struct CMUnitTest){"an_update_waits_for_a_record_that_is_sealed_anew", an_update_waits_for_a_record_that_is_sealed_anew, NULL, NULL, NULL};
    tests[count++] = (struct CMUnitTest){"damage_is_counted_and_ends_no_sweep", damage_is_counted_and_ends_no_sweep, NULL, NULL, NULL};
    tests[count++] = (struct CMUnitTest){"who_cannot_list_says_so", who_cannot_list_says_so, NULL, NULL, NULL};
    int failed = _cmocka_run_group_tests("reseal", tests, count, NULL, NULL);
    if (redis.pid) server_stop(&redis);
    remove_sqlite();
    return failed;
}
