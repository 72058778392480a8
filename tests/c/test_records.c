/* Users, social accounts and sessions, on every backend that is listed here. */
#include "redis_support.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------------------------------------- backends -- */

/* Where records are kept: a URL, or NULL for a table of table_backend.c. Handles that are opened while another is open are over the same data. */
enum {
    SHARED = 1, /* several handles, also of other loops and threads, may be open  */
    STAGED = 2, /* its clock is the stage's                                       */
    KEYED = 4,  /* the core makes records of keys                                 */
    LEAN = 8    /* all its memory is the stage's, and what removes needs none     */
};
typedef struct place {
    const char *name;
    const char *url;
    tb_manner   manner;
    unsigned    is;
    const char *(*fresh)(void); /* or NULL: the URL of one that is empty, for the next test */
} place;

/* A server of the test's own; started when it is first asked for. */
static server      redis;
static const char *fresh_redis(void)
{
    static char url[64];
    if (!redis.pid) server_start(&redis, NULL);
    server_says(&redis, "FLUSHALL");
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis.port);
    return url;
}

/* A file of the test's own, which nobody wants back after a power failure. */
static void remove_sqlite(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-reserve"};
    char path[96];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/cf-records-%ld.db%s", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid(), ends[i]);
        unlink(path);
    }
}
static const char *fresh_sqlite(void)
{
    static char url[96];
    remove_sqlite();
    snprintf(url, sizeof url, "sqlite:%s/cf-records-%ld.db", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
    return url;
}

static const place places[] = {
    {"memory", "memory:", TB_NOW, STAGED | KEYED | LEAN, NULL},
    {"memory by name", "memory:records", TB_NOW, SHARED | STAGED | KEYED | LEAN, NULL},
    {"table", NULL, TB_NOW, SHARED | STAGED | KEYED, NULL},
    {"table, pending", NULL, TB_PIPE, SHARED | STAGED | KEYED, NULL},
    {"redis", "redis:", TB_NOW, SHARED, fresh_redis},
    {"sqlite", "sqlite:", TB_NOW, SHARED | STAGED, fresh_sqlite},
    {"sqlite in memory", "sqlite::memory:", TB_NOW, STAGED, NULL},
};
enum { PLACES = sizeof places / sizeof *places };

typedef struct ground {
    const place *place;
    cf_stage    *stage;
    cf_loop     *loop;
    cf_store    *store;
    cf_accounts  accounts;
    cf_sessions  sessions;
} ground;

static tb         *first_table; /* of the ground that is up */
static tb_log      table_log;
static const char *url_now;

/* `log` is for a table, and one thread. */
static cf_store *open_logged(const place *where, cf_loop *loop, const cf_open_options *options, tb_log *log)
{
    cf_store *store = NULL;
    cf_error  error = {0};
    if (where->url) {
        if (cf_open(loop, cf_text(url_now), options, &store, &error) != CF_OK) fail_msg("open: %s", error.text);
        return store;
    }
    tb *table = first_table ? tb_share(first_table, loop, where->manner, log) : tb_new(loop, where->manner, log);
    if (!first_table) first_table = table;
    if (!table || cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(table), options, &store, &error) != CF_OK) fail_msg("open: %s", error.text);
    return store;
}

static cf_store *open_place(const place *where, cf_loop *loop, const cf_open_options *options) { return open_logged(where, loop, options, &table_log); }

static int put_up(void **state)
{
    ground *g = calloc(1, sizeof *g);
    if (!g) return -1;
    g->place = *state;
    g->stage = cf_stage_new();
    first_table = NULL;
    memset(&table_log, 0, sizeof table_log);
    url_now = g->place->fresh ? g->place->fresh() : g->place->url;
    if (!g->stage || cf_loop_new(cf_stage_platform(g->stage), &g->loop) != CF_OK) return -1;
    g->store = open_place(g->place, g->loop, NULL);
    g->accounts.store = g->sessions.store = g->store;
    *state = g;
    return 0;
}

static int take_down(void **state)
{
    ground *g = *state;
    cf_loop_free(g->loop);
    int64_t blocks = cf_stage_blocks(g->stage);
    if (blocks != 0) print_error("%lld blocks were not released\n", (long long)blocks);
    cf_stage_free(g->stage);
    free(g);
    return blocks != 0;
}

/* ------------------------------------------------------------------------------------------------------------- calls -- */

typedef struct got {
    cf_op     *op;
    int        status, outcome;
    bool       hit;
    int64_t    number;
    size_t     count;
    cf_record *records;
} got;

static got collect(cf_op *op, int status)
{
    got       g = {.op = op};
    cf_record record;
    while (status == CF_PENDING) status = cf_op_wait(op);
    g.status = status;
    if (!op) return g;
    g.outcome = cf_op_error(op)->outcome;
    g.hit = cf_op_hit(op);
    g.number = cf_op_number(op);
    while (cf_op_next_record(op, &record)) {
        if ((g.count & (g.count - 1)) == 0) g.records = realloc(g.records, (g.count ? g.count * 2 : 1) * sizeof *g.records);
        g.records[g.count++] = record;
    }
    return g;
}

static void drop(got *g)
{
    free(g->records);
    cf_op_free(g->op);
    *g = (got){0};
}

static got accounts_with(const cf_accounts *accounts, int method, const cf_record *record, const cf_record *user)
{
    cf_op *op;
    int    status = cf_accounts_call(accounts, method, record, user, NULL, &op);
    return collect(op, status);
}
static got accounts(ground *g, int method, const cf_record *record) { return accounts_with(&g->accounts, method, record, NULL); }

static got sessions_with(const cf_sessions *sessions, int method, const cf_record *record, const cf_session_args *args)
{
    cf_op *op;
    int    status = cf_sessions_call(sessions, method, record, args, NULL, &op);
    return collect(op, status);
}
static got sessions(ground *g, int method, const cf_record *record, const cf_session_args *args) { return sessions_with(&g->sessions, method, record, args); }

/* Records with one field or two. */
static cf_record of_text(int kind, int field, const char *text)
{
    cf_record record = {.kind = kind};
    if (text) cf_record_text(&record, field, cf_text(text));
    return record;
}
static cf_record email(const char *address) { return of_text(CF_USER, CF_USER_EMAIL, address); }
static cf_record user_id(const char *id) { return of_text(CF_USER, CF_USER_ID, id); }
static cf_record social_id(const char *id) { return of_text(CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_ID, id); }
static cf_record social_of(const char *user) { return of_text(CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_USER_ID, user); }
static cf_record session_id(const char *id) { return of_text(CF_SESSION, CF_SESSION_ID, id); }
static cf_record session_hash(const char *hash) { return of_text(CF_SESSION, CF_SESSION_TOKEN_HASH, hash); }
static cf_record sessions_of(const char *user) { return of_text(CF_SESSION, CF_SESSION_USER_ID, user); }
static cf_record provided(const char *provider, const char *id)
{
    cf_record record = of_text(CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_PROVIDER, provider);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text(id));
    return record;
}

typedef struct id {
    char text[CF_ID_LEN + 1];
} id;

static id id_of(const cf_record *record)
{
    id it = {{0}};
    assert_int_equal(record->fields[0].text.len, CF_ID_LEN);
    memcpy(it.text, record->fields[0].text.ptr, CF_ID_LEN);
    return it;
}

static void assert_text(const cf_record *record, int field, const char *text)
{
    assert_int_equal(record->fields[field].is, text ? CF_GIVEN : CF_NULL);
    if (!text) return;
    assert_int_equal(record->fields[field].text.len, strlen(text));
    assert_memory_equal(record->fields[field].text.ptr, text, strlen(text));
}

/* Of what a call brought, this alone is wanted; the rest is asserted and dropped. */
static int status_of(got g)
{
    int status = g.status;
    if (status < 0) assert_true(g.op && cf_op_error(g.op)->text[0]);
    if (status < 0 && status != CF_EEXISTS) assert_int_equal(g.count, 0);
    drop(&g);
    return status;
}
static bool is_there(got g)
{
    assert_ok(g.status);
    assert_int_equal(g.hit, g.count > 0);
    bool there = g.count == 1;
    drop(&g);
    return there;
}
static bool was_hit(got g)
{
    assert_ok(g.status);
    bool hit = g.hit;
    drop(&g);
    return hit;
}
static int64_t number_of(got g)
{
    assert_ok(g.status);
    int64_t number = g.number;
    drop(&g);
    return number;
}
static id made(got g)
{
    if (g.status != CF_OK) fail_msg("%s", cf_op_error(g.op)->text);
    assert_true(g.hit);
    assert_int_equal(g.count, 1);
    id it = id_of(&g.records[0]);
    drop(&g);
    return it;
}

static id make_user(ground *g, const char *address)
{
    cf_record record = email(address);
    return made(accounts(g, CF_CREATE_USER, &record));
}
static got try_social(ground *g, const char *user, const char *provider, const char *name)
{
    cf_record record = provided(provider, name);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user));
    return accounts(g, CF_CREATE_SOCIAL_ACCOUNT, &record);
}
static bool user_is_there(ground *g, const char *address)
{
    cf_record record = email(address);
    return is_there(accounts(g, CF_FIND_USER_BY_EMAIL, &record));
}
static size_t count_social(ground *g, const char *user)
{
    cf_record record = social_of(user);
    got       all = accounts(g, CF_LIST_SOCIAL_ACCOUNTS, &record);
    assert_ok(all.status);
    size_t count = all.count;
    drop(&all);
    return count;
}

enum { SECOND = 1000000 }; /* of an instant */

static int64_t now_of(ground *g) { return cf_stage_wall_ms(g->stage) * 1000; }

static cf_record new_session(ground *g, const char *user, const char *hash, int64_t created, int64_t lives)
{
    cf_record record = session_hash(hash);
    int64_t   at = now_of(g) + created;
    cf_record_text(&record, CF_SESSION_USER_ID, cf_text(user));
    cf_record_number(&record, CF_SESSION_CREATED_AT, at);
    cf_record_number(&record, CF_SESSION_UPDATED_AT, at);
    cf_record_number(&record, CF_SESSION_EXPIRES_AT, at + lives);
    return record;
}
static id make_session(ground *g, const char *user, const char *hash, int64_t created, int64_t lives)
{
    cf_record record = new_session(g, user, hash, created, lives);
    return made(sessions(g, CF_SESSION_CREATE, &record, NULL));
}
static bool is_active(ground *g, const char *hash)
{
    cf_record record = session_hash(hash);
    return is_there(sessions(g, CF_SESSION_GET, &record, NULL));
}
static int64_t epoch_of(ground *g, const char *user)
{
    cf_record record = sessions_of(user);
    return number_of(sessions(g, CF_SESSION_READ_EPOCH, &record, NULL));
}
static size_t count_sessions(ground *g, const char *user, int status)
{
    cf_record       record = sessions_of(user);
    cf_session_args args = {.size = sizeof args, .epoch = -1, .status = status, .limit = CF_SESSIONS_MOST};
    got             all = sessions(g, CF_SESSION_LIST, &record, &args);
    assert_ok(all.status);
    assert_int_equal(cf_op_cursor(all.op).len, 0);
    size_t count = all.count;
    drop(&all);
    return count;
}

/* ------------------------------------------------------------------------------------------------------------- users -- */

static void users_are_found_by_what_they_are(void **state)
{
    ground   *g = *state;
    cf_record record = email("  Ann@Example.ORG "), query = email("ann@example.org");
    cf_record_number(&record, CF_USER_EMAIL_VERIFIED, 1);
    cf_record_text(&record, CF_USER_USER_INFO, cf_text("{\"a\":\n1}"));
    got first = accounts(g, CF_CREATE_USER, &record);
    assert_ok(first.status);
    assert_true(first.hit);
    assert_int_equal(first.count, 1);
    assert_text(&first.records[0], CF_USER_EMAIL, "  Ann@Example.ORG ");
    assert_text(&first.records[0], CF_USER_EMAIL_KEY, "ann@example.org");
    assert_text(&first.records[0], CF_USER_HASHED_PASSWORD, NULL);
    assert_int_equal(first.records[0].fields[CF_USER_EMAIL_VERIFIED].number, 1);
    if (g->place->is & STAGED) assert_int_equal(first.records[0].fields[CF_USER_CREATED_AT].number, now_of(g));
    id  ann = id_of(&first.records[0]);
    got found = accounts(g, CF_FIND_USER_BY_EMAIL, &query);
    assert_ok(found.status);
    assert_int_equal(found.count, 1);
    for (int i = 0; cf_field_name(CF_USER, i); i++) {
        const cf_field *a = &first.records[0].fields[i], *b = &found.records[0].fields[i];
        assert_int_equal(a->is, b->is);
        assert_int_equal(a->number, b->number);
        assert_int_equal(a->text.len, b->text.len);
        if (a->text.len) assert_memory_equal(a->text.ptr, b->text.ptr, a->text.len);
    }
    drop(&first);
    drop(&found);
    query = user_id(ann.text);
    assert_true(is_there(accounts(g, CF_FIND_USER_BY_ID, &query)));
    static const char *const strange[] = {"", "x", "1", "0123456789abcdef0123456789abcdef", "a\nb", "\xff", "user:1"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        query = user_id(strange[i]);
        assert_false(is_there(accounts(g, CF_FIND_USER_BY_ID, &query)));
        assert_false(was_hit(accounts(g, CF_DELETE_USER, &query)));
        query = email(strange[i]);
        assert_false(is_there(accounts(g, CF_FIND_USER_BY_EMAIL, &query)));
    }
}

static void an_email_has_one_user(void **state)
{
    ground   *g = *state;
    id        ann = make_user(g, "ann@example.org"), bob = make_user(g, "bob@example.org");
    cf_record record = email(" ANN@example.org");
    got       second = accounts(g, CF_CREATE_USER, &record);
    assert_int_equal(second.status, CF_EEXISTS);
    assert_int_equal(second.outcome, CF_NOT_APPLIED);
    assert_false(second.hit);
    assert_int_equal(second.count, 1);
    assert_string_equal(id_of(&second.records[0]).text, ann.text);
    assert_null(strstr(cf_op_error(second.op)->text, "ann"));
    drop(&second);
    /* Those without one are as many as they like. */
    id nobody = make_user(g, NULL), other = make_user(g, NULL);
    assert_string_not_equal(nobody.text, other.text);
    /* To another's address nobody moves. */
    record = user_id(bob.text);
    cf_record_text(&record, CF_USER_EMAIL, cf_text("Ann@Example.org"));
    cf_record_text(&record, CF_USER_HASHED_PASSWORD, cf_text("hash"));
    got taken = accounts(g, CF_UPDATE_USER, &record);
    assert_int_equal(taken.status, CF_EEXISTS);
    assert_string_equal(id_of(&taken.records[0]).text, ann.text);
    drop(&taken);
    cf_record query = user_id(bob.text);
    got       unchanged = accounts(g, CF_FIND_USER_BY_ID, &query);
    assert_text(&unchanged.records[0], CF_USER_EMAIL, "bob@example.org");
    assert_text(&unchanged.records[0], CF_USER_HASHED_PASSWORD, NULL);
    drop(&unchanged);
    /* To his own in other letters he does. */
    cf_record_text(&record, CF_USER_EMAIL, cf_text("BOB@example.org"));
    assert_ok(status_of(accounts(g, CF_UPDATE_USER, &record)));
    /* What is given up is free. */
    record = user_id(ann.text);
    cf_record_text(&record, CF_USER_EMAIL, cf_text("ann2@example.org"));
    int64_t entries = g->place->is & LEAN ? stat_of(g->store, "entries") : 0;
    assert_ok(status_of(accounts(g, CF_UPDATE_USER, &record)));
    if (g->place->is & LEAN) assert_int_equal(stat_of(g->store, "entries"), entries);
    assert_false(user_is_there(g, "ann@example.org"));
    assert_true(user_is_there(g, "ann2@example.org"));
    make_user(g, "ann@example.org");
    record = user_id(ann.text);
    cf_record_null(&record, CF_USER_EMAIL);
    got without = accounts(g, CF_UPDATE_USER, &record);
    assert_ok(without.status);
    assert_text(&without.records[0], CF_USER_EMAIL, NULL);
    assert_text(&without.records[0], CF_USER_EMAIL_KEY, NULL);
    drop(&without);
    make_user(g, "ann2@example.org");
    cf_record_text(&record, CF_USER_EMAIL, cf_text("ann2@example.org"));
    assert_int_equal(status_of(accounts(g, CF_UPDATE_USER, &record)), CF_EEXISTS);
    record = user_id(bob.text);
    assert_true(was_hit(accounts(g, CF_DELETE_USER, &record)));
    assert_false(was_hit(accounts(g, CF_DELETE_USER, &record)));
    assert_false(is_there(accounts(g, CF_FIND_USER_BY_ID, &record)));
    make_user(g, "bob@example.org");
    record = user_id(bob.text);
    cf_record_number(&record, CF_USER_EMAIL_VERIFIED, 1);
    got missing = accounts(g, CF_UPDATE_USER, &record);
    assert_int_equal(missing.status, CF_EMISSING);
    assert_int_equal(missing.outcome, CF_NOT_APPLIED);
    drop(&missing);
}

static void an_update_changes_what_it_says(void **state)
{
    ground   *g = *state;
    cf_record record = email("a@b.c"), change;
    cf_record_text(&record, CF_USER_USER_INFO, cf_text("{}"));
    cf_record_text(&record, CF_USER_HASHED_PASSWORD, cf_text("old"));
    id ann = made(accounts(g, CF_CREATE_USER, &record));
    cf_stage_advance(g->stage, 5);
    change = user_id(ann.text);
    cf_record_text(&change, CF_USER_HASHED_PASSWORD, cf_text(""));
    cf_record_null(&change, CF_USER_USER_INFO);
    got after = accounts(g, CF_UPDATE_USER, &change);
    assert_ok(after.status);
    assert_int_equal(after.count, 1);
    for (int round = 0; round < 2; round++) {
        const cf_record *now = &after.records[0];
        assert_text(now, CF_USER_EMAIL, "a@b.c");
        assert_text(now, CF_USER_HASHED_PASSWORD, "");
        assert_text(now, CF_USER_USER_INFO, NULL);
        if (g->place->is & STAGED) assert_int_equal(now->fields[CF_USER_UPDATED_AT].number - now->fields[CF_USER_CREATED_AT].number, 5000);
        drop(&after);
        change = user_id(ann.text);
        after = accounts(g, CF_FIND_USER_BY_ID, &change);
    }
    drop(&after);
}

/* --------------------------------------------------------------------------------------------------- social accounts -- */

static void social_accounts_belong_to_users(void **state)
{
    ground   *g = *state;
    id        ann = make_user(g, "a@b.c"), bob = make_user(g, NULL);
    cf_record query;
    assert_int_equal(status_of(try_social(g, "0123456789abcdef0123456789abcdef", "google", "1")), CF_EMISSING);
    id one = made(try_social(g, ann.text, "google", "1"));
    cf_stage_advance(g->stage, 1);
    id  two = made(try_social(g, ann.text, "apple", "1"));
    got taken = try_social(g, bob.text, "google", "1");
    assert_int_equal(taken.status, CF_EEXISTS);
    assert_string_equal(id_of(&taken.records[0]).text, one.text);
    drop(&taken);
    /* What stands together is not told apart by where the one ends. */
    made(try_social(g, bob.text, "a", "bc"));
    made(try_social(g, bob.text, "ab", "c"));
    made(try_social(g, bob.text, "1", "1:"));
    made(try_social(g, bob.text, "1:", "1"));
    assert_int_equal(count_social(g, bob.text), 4);
    static const char *const pairs[][2] = {{"a", "bc"}, {"ab", "c"}, {"1", "1:"}, {"1:", "1"}};
    for (int i = 0; i < 4; i++) {
        query = provided(pairs[i][0], pairs[i][1]);
        assert_true(is_there(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query)));
        assert_int_equal(status_of(try_social(g, bob.text, pairs[i][0], pairs[i][1])), CF_EEXISTS);
    }
    query = provided("google", "1");
    got found = accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query);
    assert_int_equal(found.count, 1);
    assert_string_equal(id_of(&found.records[0]).text, one.text);
    assert_text(&found.records[0], CF_SOCIAL_ACCOUNT_USER_ID, ann.text);
    drop(&found);
    query = provided("google", "2");
    assert_false(is_there(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query)));
    query = social_of(ann.text);
    got all = accounts(g, CF_LIST_SOCIAL_ACCOUNTS, &query);
    assert_int_equal(all.count, 2);
    if (g->place->is & STAGED) assert_string_equal(id_of(&all.records[0]).text, one.text); /* the oldest first */
    drop(&all);
    assert_int_equal(count_social(g, "nobody"), 0);
    query = social_id(two.text);
    cf_record_text(&query, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("token"));
    cf_record_number(&query, CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD, 1);
    assert_ok(status_of(accounts(g, CF_UPDATE_SOCIAL_ACCOUNT, &query)));
    query = social_id(two.text);
    got again = accounts(g, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query);
    assert_text(&again.records[0], CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, "token");
    assert_int_equal(again.records[0].fields[CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD].number, 1);
    assert_text(&again.records[0], CF_SOCIAL_ACCOUNT_PROVIDER, "apple");
    drop(&again);
    assert_true(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &query)));
    assert_false(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &query)));
    assert_int_equal(count_social(g, ann.text), 1);
    cf_record_number(&query, CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD, 1);
    assert_int_equal(status_of(accounts(g, CF_UPDATE_SOCIAL_ACCOUNT, &query)), CF_EMISSING);
    made(try_social(g, bob.text, "apple", "1"));
    for (int field = CF_SOCIAL_ACCOUNT_USER_ID; field <= CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID; field++) {
        query = social_id(one.text);
        cf_record_text(&query, field, cf_text("x"));
        assert_int_equal(status_of(accounts(g, CF_UPDATE_SOCIAL_ACCOUNT, &query)), CF_EINVAL);
    }
    g->accounts.most = 3;
    made(try_social(g, ann.text, "p", "1"));
    made(try_social(g, ann.text, "p", "2"));
    got full = try_social(g, ann.text, "p", "3");
    assert_int_equal(full.status, CF_ELIMIT);
    assert_int_equal(full.outcome, CF_NOT_APPLIED);
    drop(&full);
    assert_int_equal(count_social(g, ann.text), 3);
    query = provided("p", "3");
    assert_false(is_there(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query)));
    query = social_id(one.text);
    assert_true(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &query)));
    made(try_social(g, ann.text, "p", "3")); /* there is room again */
}

static void an_account_is_found_or_made_with_its_user(void **state)
{
    ground   *g = *state;
    cf_record account = provided("google", "17"), user = email("ann@example.org");
    got       first = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
    assert_ok(first.status);
    assert_int_equal(first.number, 1);
    assert_int_equal(first.count, 2);
    assert_int_equal(first.records[0].kind, CF_SOCIAL_ACCOUNT);
    assert_int_equal(first.records[1].kind, CF_USER);
    id ann = id_of(&first.records[1]);
    assert_text(&first.records[0], CF_SOCIAL_ACCOUNT_USER_ID, ann.text);
    drop(&first);
    user = email("quite.another@example.org");
    got second = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
    assert_ok(second.status);
    assert_true(second.hit);
    assert_int_equal(second.number, 0);
    assert_int_equal(second.count, 2);
    assert_string_equal(id_of(&second.records[1]).text, ann.text);
    drop(&second);
    assert_false(user_is_there(g, "quite.another@example.org"));
    /* Whose address it is must be asked. */
    account = provided("apple", "18");
    user = email("ANN@example.org");
    got stranger = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
    assert_int_equal(stranger.status, CF_EEXISTS);
    assert_int_equal(stranger.count, 1);
    assert_int_equal(stranger.records[0].kind, CF_USER);
    assert_string_equal(id_of(&stranger.records[0]).text, ann.text);
    drop(&stranger);
    assert_false(is_there(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &account)));
    assert_int_equal(count_social(g, ann.text), 1);
    user = email(NULL);
    got nameless = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
    assert_ok(nameless.status);
    assert_int_equal(nameless.number, 1);
    id other = id_of(&nameless.records[1]), link = id_of(&nameless.records[0]);
    drop(&nameless);
    /* What was made together can be taken apart. */
    cf_record query = social_id(link.text);
    assert_true(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &query)));
    query = user_id(other.text);
    assert_true(is_there(accounts(g, CF_FIND_USER_BY_ID, &query)));
    query = user_id(ann.text);
    assert_true(was_hit(accounts(g, CF_DELETE_USER, &query)));
    account = provided("google", "17");
    user = email("ann@example.org");
    got anew = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
    assert_int_equal(anew.number, 1);
    assert_string_not_equal(id_of(&anew.records[1]).text, ann.text);
    drop(&anew);
}

static void with_a_user_goes_what_is_theirs(void **state)
{
    ground *g = *state;
    id      ann = make_user(g, "a@b.c"), bob = make_user(g, "b@b.c");
    made(try_social(g, ann.text, "google", "1"));
    made(try_social(g, ann.text, "google", "2"));
    made(try_social(g, bob.text, "google", "3"));
    make_session(g, ann.text, "h1", 0, 60 * (int64_t)SECOND);
    make_session(g, bob.text, "h2", 0, 60 * (int64_t)SECOND);
    cf_record query = user_id(ann.text);
    assert_true(was_hit(accounts(g, CF_DELETE_USER, &query)));
    assert_false(user_is_there(g, "a@b.c"));
    assert_int_equal(count_social(g, ann.text), 0);
    assert_int_equal(count_sessions(g, ann.text, CF_STATUS_ANY), 0);
    assert_false(is_active(g, "h1"));
    assert_int_equal(epoch_of(g, ann.text), 1);
    query = provided("google", "1");
    assert_false(is_there(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query)));
    assert_int_equal(count_social(g, bob.text), 1);
    assert_true(is_active(g, "h2"));
    assert_int_equal(epoch_of(g, bob.text), 0);
    /* A login that began before does not end in a session. */
    cf_record       record = new_session(g, ann.text, "h1", 0, 60 * (int64_t)SECOND);
    cf_session_args args = {.size = sizeof args, .epoch = 0};
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, &args)), CF_ECHANGED);
    made(try_social(g, bob.text, "google", "1"));
    make_session(g, bob.text, "h1", 0, 60 * (int64_t)SECOND);
}

/* ---------------------------------------------------------------------------------------------------------- sessions -- */

static void a_session_is_active_until_it_is_not(void **state)
{
    ground   *g = *state;
    cf_record record = new_session(g, "ann", "hash", 0, 10 * (int64_t)SECOND), query = session_hash("hash"), by_id;
    cf_record_text(&record, CF_SESSION_IP, cf_text("::1"));
    got made_now = sessions(g, CF_SESSION_CREATE, &record, NULL);
    assert_ok(made_now.status);
    assert_int_equal(made_now.count, 1);
    id      it = id_of(&made_now.records[0]);
    int64_t end = record.fields[CF_SESSION_EXPIRES_AT].number;
    assert_text(&made_now.records[0], CF_SESSION_IP, "::1");
    assert_int_equal(made_now.records[0].fields[CF_SESSION_EPOCH].number, 0);
    assert_int_equal(made_now.records[0].fields[CF_SESSION_REVOKED_AT].is, CF_NULL);
    drop(&made_now);
    by_id = session_id(it.text);
    cf_session_args args = {.size = sizeof args, .epoch = -1, .now = end};
    assert_true(is_there(sessions(g, CF_SESSION_GET, &query, &args))); /* at the very instant it still is */
    args.now = end + 1;
    assert_false(is_there(sessions(g, CF_SESSION_GET, &query, &args)));
    assert_true(is_there(sessions(g, CF_SESSION_GET_ANY, &by_id, NULL)));
    /* The same token twice. */
    got twice = sessions(g, CF_SESSION_CREATE, &record, NULL);
    assert_int_equal(twice.status, CF_EEXISTS);
    assert_string_equal(id_of(&twice.records[0]).text, it.text);
    drop(&twice);
    /* It lives on. */
    cf_record refresh = session_id(it.text);
    cf_record_number(&refresh, CF_SESSION_UPDATED_AT, end);
    cf_record_number(&refresh, CF_SESSION_EXPIRES_AT, end + 10 * (int64_t)SECOND);
    cf_record_number(&refresh, CF_SESSION_LAST_ACTIVE_AT, end - 1);
    assert_true(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
    cf_record_null(&refresh, CF_SESSION_LAST_ACTIVE_AT);
    got refreshed = sessions(g, CF_SESSION_REFRESH, &refresh, NULL);
    assert_int_equal(refreshed.records[0].fields[CF_SESSION_LAST_ACTIVE_AT].number, end - 1); /* which null leaves */
    assert_int_equal(refreshed.records[0].fields[CF_SESSION_EXPIRES_AT].number, end + 10 * (int64_t)SECOND);
    drop(&refreshed);
    assert_true(is_there(sessions(g, CF_SESSION_GET, &query, &args)));
    /* The first instant at which it was revoked stays. */
    cf_record revoke = session_id(it.text);
    for (int64_t at = 5; at < 7; at++) {
        cf_record_number(&revoke, CF_SESSION_REVOKED_AT, at);
        assert_true(was_hit(sessions(g, CF_SESSION_REVOKE, &revoke, NULL)));
        got now = sessions(g, CF_SESSION_GET_ANY, &by_id, NULL);
        assert_int_equal(now.records[0].fields[CF_SESSION_REVOKED_AT].number, 5);
        drop(&now);
    }
    assert_false(is_there(sessions(g, CF_SESSION_GET, &query, NULL)));
    assert_false(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EEXISTS); /* its token is not anybody's again */
    static const char *const strange[] = {"x", "", "0123456789abcdef0123456789abcdef", "a\nb"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        by_id = session_id(strange[i]);
        assert_false(is_there(sessions(g, CF_SESSION_GET_ANY, &by_id, NULL)));
        cf_record_number(&by_id, CF_SESSION_REVOKED_AT, 1);
        assert_false(was_hit(sessions(g, CF_SESSION_REVOKE, &by_id, NULL)));
        refresh.fields[0] = by_id.fields[0];
        assert_false(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
        query = session_hash(strange[i]);
        assert_false(is_there(sessions(g, CF_SESSION_GET, &query, NULL)));
    }
}

static int64_t revoke_all(ground *g, const char *user, const char *except)
{
    cf_record       record = sessions_of(user);
    cf_session_args args = {.size = sizeof args, .epoch = -1, .except = cf_text(except)};
    cf_record_number(&record, CF_SESSION_REVOKED_AT, now_of(g));
    return number_of(sessions(g, CF_SESSION_REVOKE_ALL, &record, &args));
}

static void all_are_revoked_and_no_late_login_slips_by(void **state)
{
    ground *g = *state;
    make_session(g, "ann", "h1", 0, 60 * (int64_t)SECOND);
    make_session(g, "ann", "h2", -60 * (int64_t)SECOND, 1); /* has expired: counts too */
    id mine = make_session(g, "ann", "h3", 0, 60 * (int64_t)SECOND);
    make_session(g, "bob", "h4", 0, 60 * (int64_t)SECOND);
    cf_session_args args = {.size = sizeof args, .epoch = epoch_of(g, "ann")};
    assert_int_equal(args.epoch, 0);
    assert_int_equal(revoke_all(g, "ann", mine.text), 2);
    assert_int_equal(epoch_of(g, "ann"), 1);
    assert_int_equal(epoch_of(g, "bob"), 0);
    assert_true(is_active(g, "h3"));
    assert_false(is_active(g, "h1"));
    assert_true(is_active(g, "h4"));
    cf_record record = new_session(g, "ann", "h5", 0, 60 * (int64_t)SECOND);
    got       late = sessions(g, CF_SESSION_CREATE, &record, &args);
    assert_int_equal(late.status, CF_ECHANGED);
    assert_int_equal(late.outcome, CF_NOT_APPLIED);
    drop(&late);
    assert_false(is_active(g, "h5"));
    args.epoch = 1;
    got in_time = sessions(g, CF_SESSION_CREATE, &record, &args);
    assert_ok(in_time.status);
    assert_int_equal(in_time.number, 1);
    assert_int_equal(in_time.records[0].fields[CF_SESSION_EPOCH].number, 1);
    drop(&in_time);
    assert_int_equal(revoke_all(g, "ann", NULL), 2);
    assert_int_equal(revoke_all(g, "ann", NULL), 0); /* the epoch goes up all the same */
    assert_int_equal(epoch_of(g, "ann"), 3);
    assert_int_equal(revoke_all(g, "nobody", NULL), 0);
    assert_int_equal(epoch_of(g, "nobody"), 1);
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_REVOKED), 4);
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ACTIVE), 0);
}

typedef struct shown {
    int64_t at[3]; /* updated, created, expires */
    id      id;
    int     status;
} shown;

static int shown_order; /* qsort has no user's pointer */
static int compare_shown(const void *first, const void *second)
{
    const shown *a = first, *b = second;
    int64_t      x = a->at[shown_order / 2], y = b->at[shown_order / 2];
    int          up = x != y ? (x < y ? -1 : 1) : strcmp(a->id.text, b->id.text);
    return shown_order % 2 ? up : -up;
}

static void pages_are_in_order_and_whole(void **state)
{
    enum { MANY = 23 };
    ground *g = *state;
    rng     random = {seed_of_run()};
    shown   all[MANY];
    int64_t now = now_of(g), base = now - 100;
    for (int i = 0; i < MANY; i++) {
        char hash[16];
        snprintf(hash, sizeof hash, "h%d", i);
        cf_record record = session_hash(hash);
        cf_record_text(&record, CF_SESSION_USER_ID, cf_text("ann"));
        for (int k = 0; k < 3; k++) all[i].at[k] = base + (int64_t)rng_below(&random, 5) * 50; /* many are the same */
        cf_record_number(&record, CF_SESSION_UPDATED_AT, all[i].at[0]);
        cf_record_number(&record, CF_SESSION_CREATED_AT, all[i].at[1]);
        cf_record_number(&record, CF_SESSION_EXPIRES_AT, all[i].at[2]);
        all[i].id = made(sessions(g, CF_SESSION_CREATE, &record, NULL));
        all[i].status = all[i].at[2] < now ? CF_STATUS_EXPIRED : CF_STATUS_ACTIVE;
        if (rng_below(&random, 3)) continue;
        record = session_id(all[i].id.text);
        cf_record_number(&record, CF_SESSION_REVOKED_AT, 1);
        assert_true(was_hit(sessions(g, CF_SESSION_REVOKE, &record, NULL)));
        all[i].status = CF_STATUS_REVOKED;
    }
    make_session(g, "bob", "other", 0, SECOND);
    cf_record query = sessions_of("ann");
    for (int order = 0; order < CF_SESSION_ORDERS; order++) {
        shown_order = order;
        qsort(all, MANY, sizeof *all, compare_shown);
        for (int status = CF_STATUS_ANY; status <= CF_STATUS_REVOKED; status++) {
            size_t          limit = 1 + rng_below(&random, MANY + 2), at = 0;
            char            cursor[128];
            cf_session_args args = {.size = sizeof args, .now = now, .epoch = -1, .status = status, .order = order, .limit = limit};
            for (bool more = true; more;) {
                got    page = sessions(g, CF_SESSION_LIST, &query, &args);
                size_t given = 0;
                assert_ok(page.status);
                assert_true(page.count <= limit);
                for (; given < page.count; at++) {
                    assert_true(at < MANY);
                    if (status != CF_STATUS_ANY && all[at].status != status) continue;
                    assert_string_equal(id_of(&page.records[given++]).text, all[at].id.text);
                }
                cf_slice next = cf_op_cursor(page.op);
                more = next.len > 0;
                if (more) {
                    assert_int_equal(page.count, limit);
                    assert_true(next.len < sizeof cursor);
                    memcpy(cursor, next.ptr, next.len);
                    args.cursor = cf_bytes(cursor, next.len);
                }
                drop(&page);
            }
            for (; at < MANY; at++) assert_true(status != CF_STATUS_ANY && all[at].status != status);
            if (!args.cursor.len) continue;
            args.order = (order + 1) % CF_SESSION_ORDERS; /* which is none of that order */
            assert_int_equal(status_of(sessions(g, CF_SESSION_LIST, &query, &args)), CF_ECURSOR);
        }
    }
    static const char *const none[] = {"x", "0.", "0.5", "0.5.", "0.5.0123456789abcdef0123456789abcdeg", "0.-5.0123456789abcdef0123456789abcdef", "9.5.x"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        cf_session_args args = {.size = sizeof args, .epoch = -1, .cursor = cf_text(none[i])};
        assert_int_equal(status_of(sessions(g, CF_SESSION_LIST, &query, &args)), CF_ECURSOR);
    }
}

static void there_are_not_more_than_allowed(void **state)
{
    ground *g = *state;
    int64_t minute = 60 * (int64_t)SECOND;
    int64_t bytes = 0;
    g->sessions.most = 3;
    make_session(g, "ann", "old", -3, minute);
    make_session(g, "ann", "ended", -1, minute);
    make_session(g, "ann", "new", 0, minute);
    cf_record ended = session_hash("ended"), revoke;
    got       it = sessions(g, CF_SESSION_GET, &ended, NULL);
    revoke = session_id(id_of(&it.records[0]).text);
    cf_record_number(&revoke, CF_SESSION_REVOKED_AT, 1);
    assert_true(was_hit(sessions(g, CF_SESSION_REVOKE, &revoke, NULL)));
    drop(&it);
    make_session(g, "bob", "bob", 0, minute);
    make_session(g, "ann", "fourth", 1, minute); /* what has ended goes first */
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 3);
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_REVOKED), 0);
    assert_true(is_active(g, "old"));
    make_session(g, "ann", "fifth", 2, minute); /* then the oldest */
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 3);
    assert_false(is_active(g, "old"));
    assert_true(is_active(g, "new"));
    assert_true(is_active(g, "bob"));
    make_session(g, "ann", "old", 3, minute); /* its token is free */
    assert_false(is_active(g, "new"));
    g->sessions.refuse = true;
    cf_record record = new_session(g, "ann", "sixth", 4, minute);
    got       full = sessions(g, CF_SESSION_CREATE, &record, NULL);
    assert_int_equal(full.status, CF_ELIMIT);
    assert_int_equal(full.outcome, CF_NOT_APPLIED);
    drop(&full);
    assert_true(is_active(g, "fourth"));
    assert_false(is_active(g, "sixth"));
    assert_int_equal(revoke_all(g, "ann", NULL), 3);
    made(sessions(g, CF_SESSION_CREATE, &record, NULL));
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 3);
    for (int i = 0; i < 20; i++) { /* and so it stays */
        char hash[16];
        snprintf(hash, sizeof hash, "more%d", i);
        g->sessions.refuse = false;
        make_session(g, "ann", hash, 10 + i, minute);
        assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 3);
        assert_true(is_active(g, hash));
        if (g->place->is & LEAN && i == 9) bytes = stat_of(g->store, "bytes");
    }
    if (g->place->is & LEAN) assert_true(stat_of(g->store, "bytes") < bytes + 100); /* who has gone leaves nothing behind */
}

static void records_go_some_time_after_their_end(void **state)
{
    ground *g = *state;
    g->sessions.retention_ms = 1000;
    id        it = make_session(g, "ann", "hash", 0, 2 * (int64_t)SECOND);
    cf_record by_id = session_id(it.text), refresh = by_id;
    cf_stage_advance(g->stage, 2001);
    assert_false(is_active(g, "hash"));
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_EXPIRED), 1);
    /* Somebody comes back, again and again: what leads to the session lives on with it. */
    for (int i = 0; i < 40; i++) {
        cf_record_number(&refresh, CF_SESSION_UPDATED_AT, now_of(g));
        cf_record_number(&refresh, CF_SESSION_EXPIRES_AT, now_of(g) + 2 * (int64_t)SECOND);
        assert_true(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
        cf_stage_advance(g->stage, 2000);
        assert_true(is_active(g, "hash"));
        assert_int_equal(count_sessions(g, "ann", CF_STATUS_ACTIVE), 1);
    }
    assert_int_equal(revoke_all(g, "ann", NULL), 1);
    cf_stage_advance(g->stage, 999);
    assert_true(is_there(sessions(g, CF_SESSION_GET_ANY, &by_id, NULL)));
    cf_stage_advance(g->stage, 1);
    assert_false(is_there(sessions(g, CF_SESSION_GET_ANY, &by_id, NULL)));
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 0);
    assert_false(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
    assert_int_equal(epoch_of(g, "ann"), 1); /* which outlives its records */
    make_session(g, "bob", "hash", 0, 2 * (int64_t)SECOND);
    /* A shorter life is a shorter life. */
    it = make_session(g, "cid", "short", 0, 100 * (int64_t)SECOND);
    refresh = session_id(it.text);
    cf_record_number(&refresh, CF_SESSION_UPDATED_AT, now_of(g));
    cf_record_number(&refresh, CF_SESSION_EXPIRES_AT, now_of(g));
    assert_true(is_there(sessions(g, CF_SESSION_REFRESH, &refresh, NULL)));
    cf_stage_advance(g->stage, 1000);
    assert_int_equal(count_sessions(g, "cid", CF_STATUS_ANY), 0);
    /* Those of users that come no more leave nothing behind, whatever keeps them. */
    if (g->place->url && strcmp(g->place->url, "memory:") == 0) {
        make_session(g, "dan", "dan", 0, 2 * (int64_t)SECOND);
        assert_true(stat_of(g->store, "entries") > 2);
        for (int i = 0; i < 100; i++) {
            cf_stage_advance(g->stage, 3600000);
            ask_set(g->store, "sweep", "x");
        }
        assert_int_equal(stat_of(g->store, "entries"), 2); /* the epoch of ann, and that one */
    }
}

/* ------------------------------------------------------------------------------------------------------ their bounds -- */

static void a_group_may_be_large(void **state)
{
    enum { MANY = 1500 };
    ground *g = *state;
    g->sessions.most = CF_SESSIONS_MOST;
    for (int i = 0; i < MANY; i++) {
        char hash[16];
        snprintf(hash, sizeof hash, "h%d", i);
        make_session(g, "ann", hash, i, SECOND);
    }
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), MANY);
    cf_record       query = sessions_of("ann");
    cf_session_args args = {.size = sizeof args, .epoch = -1, .limit = 10, .order = CF_CREATED_AT_DESC};
    got             page = sessions(g, CF_SESSION_LIST, &query, &args);
    assert_int_equal(page.count, 10);
    assert_text(&page.records[0], CF_SESSION_TOKEN_HASH, "h1499");
    assert_text(&page.records[9], CF_SESSION_TOKEN_HASH, "h1490");
    drop(&page);
    assert_int_equal(revoke_all(g, "ann", NULL), MANY);
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_REVOKED), MANY);
    g->sessions.most = 5; /* it is so much smaller then */
    make_session(g, "ann", "new", MANY, SECOND);
    assert_true(is_active(g, "new"));
    if (g->place->is & KEYED) assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 5);
}

static void no_record_is_evicted(void **state)
{
    ground  *g = *state;
    ground   small = *g;
    cf_error error;
    static const char *const urls[] = {"memory:?max_entries=10", "memory:?max_bytes=1500"};
    for (int i = 0; i < 2; i++) {
        assert_ok(cf_open(g->loop, cf_text(urls[i]), NULL, &small.store, &error));
        small.accounts.store = small.sessions.store = small.store;
        for (int n = 0; n < 40; n++) {
            char name[16];
            snprintf(name, sizeof name, "%d@b.c", n);
            made(try_social(&small, make_user(&small, name).text, "google", name));
            ask_set(small.store, name, "v");
        }
        for (int n = 0; n < 40; n++) {
            char name[16];
            snprintf(name, sizeof name, "%d@b.c", n);
            cf_record query = provided("google", name);
            assert_true(user_is_there(&small, name));
            assert_true(is_there(accounts(&small, CF_FIND_SOCIAL_ACCOUNT, &query)));
        }
        int64_t keys = ask_count(small.store).number;
        assert_true(i == 0 ? keys == 10 : keys > 2 && keys < 20);
        assert_value(ask_get(small.store, "39@b.c"), "v");
        assert_miss(ask_get(small.store, "0@b.c"));
        assert_ok(cf_store_close(small.store, NULL));
    }
}

static void keys_and_records_do_not_meet(void **state)
{
    ground         *g = *state;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("app:")};
    ground          other = *g;
    make_user(g, "a@b.c");
    make_session(g, "ann", "hash", 0, SECOND);
    if (g->place->is & SHARED) {
        other.store = open_place(g->place, g->loop, &options);
        other.accounts.store = other.sessions.store = other.store;
        assert_false(user_is_there(&other, "a@b.c"));
        assert_false(is_active(&other, "hash"));
        make_user(&other, "a@b.c");
        make_session(&other, "ann", "hash", 0, SECOND);
        assert_int_equal(ask_count(other.store).number, 0);
        ask_set(other.store, "k", "v");
    }
    assert_int_equal(ask_set(g->store, "user:1", "v").status, CF_OK);
    assert_int_equal(ask_count(g->store).number, (g->place->is & SHARED) ? 2 : 1);
    if (g->place->is & SHARED) {
        assert_int_equal(ask(other.store, CF_REQUEST(CF_OP_CLEAR)).number, 1);
        assert_true(user_is_there(&other, "a@b.c"));
    }
    assert_int_equal(ask(g->store, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE)).number, 1);
    assert_int_equal(ask_count(g->store).number, 0);
    assert_true(user_is_there(g, "a@b.c"));
    assert_true(is_active(g, "hash"));
    if (g->place->is & SHARED) assert_ok(cf_store_close(other.store, NULL));
}

/* No backend gets a longer key than it was promised, nor half a letter; and what it is to keep is text. */
static int check_key(tb *self, cf_op *op, void *user)
{
    (void)self;
    cf_slice both[] = {cf_op_in(op)->key, cf_op_in(op)->value};
    int     *longest = user;
    if ((int)both[0].len > *longest) *longest = (int)both[0].len;
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < both[k].len; i++)
            if (!both[k].ptr[i] || (both[k].ptr[i] & 0x80 && !(i + 1 < both[k].len && memcmp(both[k].ptr + i++, "\xc3\xa4", 2) == 0))) *longest = 1 << 20;
    return CF_OK;
}

static void the_longest_names_are_told_apart(void **state)
{
    ground *g = *state;
    char    prefix[CF_PREFIX_MAX + 1], provider[CF_INDEXED_MAX + 2], name[CF_INDEXED_MAX + 2];
    memset(prefix, 'p', CF_PREFIX_MAX);
    memset(provider, 'q', sizeof provider);
    memset(name, 'n', sizeof name);
    memcpy(provider + 440, "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 12); /* letters of two bytes, wherever one cuts */
    memcpy(name + 440, "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 12);
    cf_open_options options = {.size = sizeof options, .prefix = cf_bytes(prefix, CF_PREFIX_MAX)};
    ground          other = *g;
    if (g->place->is & SHARED) other.store = open_place(g->place, g->loop, &options);
    other.accounts.store = other.sessions.store = other.store;
    int longest = 0;
    table_log.user = &longest;
    table_log.on_slot = check_key;
    id user = make_user(&other, "a@b.c"), ids[3];
    for (int i = 0; i < 3; i++) {
        name[CF_INDEXED_MAX - 1] = (char)('a' + i);
        provider[CF_INDEXED_MAX] = name[CF_INDEXED_MAX] = 0;
        ids[i] = made(try_social(&other, user.text, provider, name));
    }
    for (int i = 0; i < 3; i++) {
        name[CF_INDEXED_MAX - 1] = (char)('a' + i);
        cf_record query = provided(provider, name);
        got       found = accounts(&other, CF_FIND_SOCIAL_ACCOUNT, &query);
        assert_int_equal(found.count, 1);
        assert_string_equal(id_of(&found.records[0]).text, ids[i].text);
        drop(&found);
        assert_int_equal(status_of(try_social(&other, user.text, provider, name)), CF_EEXISTS);
    }
    table_log.on_slot = NULL;
    if (!g->place->url) assert_true(longest > CF_PREFIX_MAX + CF_KEY_MAX - 50 && longest <= CF_PREFIX_MAX + CF_KEY_MAX);
    name[CF_INDEXED_MAX] = 'x';
    name[CF_INDEXED_MAX + 1] = 0;
    cf_record query = provided(provider, name);
    assert_false(is_there(accounts(&other, CF_FIND_SOCIAL_ACCOUNT, &query)));
    assert_int_equal(status_of(try_social(&other, user.text, provider, name)), CF_EINVAL);
    if (g->place->is & SHARED) assert_ok(cf_store_close(other.store, NULL));
}

static void the_largest_records_are_kept(void **state)
{
    ground *g = *state;
    char   *text = malloc(CF_JSON_MAX + 1);
    memset(text, 'x', CF_JSON_MAX + 1);
    id        user = make_user(g, "a@b.c");
    cf_record record = provided("google", "1");
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user.text));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_INFO, cf_bytes(text, CF_JSON_MAX));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_EXTRA_FIELDS, cf_bytes(text, CF_JSON_MAX));
    static const int texts[] = {CF_SOCIAL_ACCOUNT_PROVIDER_EMAIL, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, CF_SOCIAL_ACCOUNT_SCOPE};
    for (int i = 0; i < 4; i++) cf_record_text(&record, texts[i], cf_bytes(text, CF_TEXT_MAX));
    id  it = made(accounts(g, CF_CREATE_SOCIAL_ACCOUNT, &record));
    got found = accounts(g, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &(cf_record){.kind = CF_SOCIAL_ACCOUNT, .fields = {{.is = CF_GIVEN, .text = cf_text(it.text)}}});
    assert_int_equal(found.count, 1);
    assert_int_equal(found.records[0].fields[CF_SOCIAL_ACCOUNT_USER_INFO].text.len, CF_JSON_MAX);
    assert_int_equal(found.records[0].fields[CF_SOCIAL_ACCOUNT_SCOPE].text.len, CF_TEXT_MAX);
    drop(&found);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("2"));
    for (int i = 0; i < 5; i++) {
        cf_record longer = record;
        cf_record_text(&longer, i < 4 ? texts[i] : CF_SOCIAL_ACCOUNT_USER_INFO, cf_bytes(text, i < 4 ? CF_TEXT_MAX + 1 : CF_JSON_MAX + 1));
        assert_int_equal(status_of(accounts(g, CF_CREATE_SOCIAL_ACCOUNT, &longer)), CF_EINVAL);
    }
    assert_int_equal(count_social(g, user.text), 1);
    free(text);
}

static void what_makes_no_sense_is_refused(void **state)
{
    ground   *g = *state;
    cf_record record;
    cf_op    *op;
    static const char *const addresses[] = {"", " \t", "a\x01@b", "\xff@b", "a\nb@c"};
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        record = email(addresses[i]);
        assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL);
    }
    for (int field = 0; cf_field_name(CF_USER, field); field++) { /* what the core makes itself */
        if (field != CF_USER_ID && field != CF_USER_EMAIL_KEY && field != CF_USER_CREATED_AT && field != CF_USER_UPDATED_AT) continue;
        record = email("a@b.c");
        record.fields[field].is = CF_GIVEN;
        record.fields[field].text = cf_text("x");
        record.fields[field].number = 1;
        assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL);
    }
    record = email("a@b.c");
    cf_record_number(&record, CF_USER_EMAIL_VERIFIED, 2);
    assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL);
    record = email("a@b.c");
    cf_record_text(&record, CF_USER_USER_INFO, cf_text("\xed\xa0\x80"));
    assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL);
    cf_record_text(&record, CF_USER_USER_INFO, cf_bytes("a\0b", 3));
    assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL);
    assert_false(user_is_there(g, "a@b.c"));
    record = session_hash("x");
    assert_int_equal(status_of(accounts(g, CF_CREATE_USER, &record)), CF_EINVAL); /* another kind */
    assert_int_equal(status_of(accounts(g, 99, &record)), CF_EINVAL);
    assert_int_equal(status_of(sessions(g, 99, &record, NULL)), CF_EINVAL);
    record = provided("google", "1");
    assert_int_equal(status_of(accounts(g, CF_FIND_OR_CREATE, &record)), CF_EINVAL); /* a user is missing */
    record = of_text(CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_PROVIDER, "google");
    assert_int_equal(status_of(accounts(g, CF_FIND_SOCIAL_ACCOUNT, &record)), CF_EINVAL); /* half of a name */
    for (int missing = 0; missing < 5; missing++) {
        static const int needed[] = {CF_SESSION_USER_ID, CF_SESSION_TOKEN_HASH, CF_SESSION_CREATED_AT, CF_SESSION_UPDATED_AT, CF_SESSION_EXPIRES_AT};
        record = new_session(g, "ann", "hash", 0, SECOND);
        record.fields[needed[missing]].is = missing % 2 ? CF_NULL : CF_UNSAID;
        assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EINVAL);
    }
    record = new_session(g, "ann", "", 0, SECOND);
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EINVAL);
    record = new_session(g, "ann", "a\nb", 0, SECOND);
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EINVAL);
    record = new_session(g, "ann", "hash", 0, SECOND);
    cf_record_number(&record, CF_SESSION_EXPIRES_AT, CF_NUMBER_MAX + 1);
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EINVAL);
    cf_record_number(&record, CF_SESSION_EXPIRES_AT, -1);
    assert_int_equal(status_of(sessions(g, CF_SESSION_CREATE, &record, NULL)), CF_EINVAL);
    assert_int_equal(count_sessions(g, "ann", CF_STATUS_ANY), 0);
    record = sessions_of("ann");
    cf_session_args wrong[] = {{.size = 1}, {.now = -1}, {.status = 4}, {.status = -1}, {.order = 6}, {.order = -1}, {.limit = CF_SESSIONS_MOST + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (i) wrong[i].size = sizeof *wrong;
        assert_int_equal(status_of(sessions(g, CF_SESSION_LIST, &record, &wrong[i])), CF_EINVAL);
    }
    cf_request request = {.size = sizeof request, .kind = CF_OP_INSERT, .key = cf_text("a")}; /* these are not for everybody */
    assert_int_equal(cf_submit(g->store, &request, &op), CF_EINVAL);
    cf_op_free(op);
}

/* ------------------------------------------------------------------------------------------------------------ at rest -- */

static const char ring_one[33] = "0123456789abcdef0123456789abcdef", ring_two[33] = "fedcba9876543210fedcba9876543210";

/* What a backend is given to keep, looked at from below. */
typedef struct watcher {
    const char *secret;
    int         seen;
    char        moved[CF_TEXT_MAX]; /* a sealed token, put in the place of another one */
    size_t      moved_len;
    bool        take, give;
} watcher;

static const char *find_bytes(cf_slice in, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= in.len; i++)
        if (memcmp(in.ptr + i, text, len) == 0) return in.ptr + i;
    return NULL;
}

static int watch_slot(tb *self, cf_op *op, void *user)
{
    (void)self;
    watcher          *w = user;
    const cf_request *in = cf_op_in(op);
    if (find_bytes(in->value, w->secret) || find_bytes(in->key, w->secret)) w->seen++;
    if (in->kind != CF_OP_SET || !(w->take || w->give)) return CF_OK;
    char *token = (char *)(uintptr_t)find_bytes(in->value, "sealed:");
    if (!token) return CF_OK;
    size_t len = 0;
    while (token + len < in->value.ptr + in->value.len && strchr(":-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", token[len])) len++;
    if (w->give) memcpy(token, w->moved, w->moved_len);
    if (w->take) memcpy(w->moved, token, w->moved_len = len);
    w->take = false;
    return CF_OK;
}

static ground sealed_ground(ground *g, const char *secret, uint32_t key, bool values)
{
    static cf_key   keys[1];
    ground          other = *g;
    keys[0].id = key;
    if (secret) memcpy(keys[0].bytes, secret, sizeof keys[0].bytes);
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("sealed:"), .keys = keys, .key_count = secret ? 1 : 0, .seal_values = values};
    other.store = open_place(g->place, g->loop, &options);
    other.accounts.store = other.sessions.store = other.store;
    return other;
}

static void tokens_are_sealed(void **state)
{
    ground *g = *state;
    bool    below = !g->place->url; /* we can look at what is kept */
    watcher w = {.secret = "ya29.token"};
    ground  one = sealed_ground(g, ring_one, 1, false), two = sealed_ground(g, ring_two, 2, false), none = sealed_ground(g, NULL, 0, false);
    table_log.user = &w;
    table_log.on_slot = watch_slot;
    id        user = make_user(&one, "a@b.c"), ids[2];
    cf_record record = provided("google", "1"), query;
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user.text));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("ya29.token-a"));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_SCOPE, cf_text("openid"));
    w.take = true;
    ids[0] = made(accounts(&one, CF_CREATE_SOCIAL_ACCOUNT, &record));
    query = social_id(ids[0].text);
    got plain = accounts(&one, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query);
    assert_text(&plain.records[0], CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, "ya29.token-a");
    drop(&plain);
    got other_ring = accounts(&two, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query);
    assert_int_equal(other_ring.status, CF_ECORRUPT);
    assert_int_equal(other_ring.outcome, CF_NOT_APPLIED);
    drop(&other_ring);
    assert_int_equal(status_of(accounts(&none, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query)), CF_ECORRUPT);
    cf_record list = social_of(user.text);
    assert_int_equal(status_of(accounts(&two, CF_LIST_SOCIAL_ACCOUNTS, &list)), CF_ECORRUPT);
    /* What cannot be given back changes nothing. */
    cf_record update = query;
    cf_record_text(&update, CF_SOCIAL_ACCOUNT_SCOPE, cf_text("everything"));
    assert_int_equal(status_of(accounts(&two, CF_UPDATE_SOCIAL_ACCOUNT, &update)), CF_ECORRUPT);
    plain = accounts(&one, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query);
    if (g->place->is & KEYED) assert_text(&plain.records[0], CF_SOCIAL_ACCOUNT_SCOPE, "openid");
    drop(&plain);
    cf_record_text(&update, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, cf_text("ya29.token-r"));
    got updated = accounts(&one, CF_UPDATE_SOCIAL_ACCOUNT, &update);
    assert_text(&updated.records[0], CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, "ya29.token-r");
    assert_text(&updated.records[0], CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, "ya29.token-a");
    drop(&updated);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("2"));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("ya29.token-b"));
    got again = accounts(&one, CF_CREATE_SOCIAL_ACCOUNT, &record);
    assert_text(&again.records[0], CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, "ya29.token-b");
    drop(&again);
    if (below) { /* who can write there moves one into another's record */
        assert_true(w.moved_len > 40);
        w.give = true;
        cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("3"));
        ids[1] = made(accounts(&one, CF_CREATE_SOCIAL_ACCOUNT, &record));
        query = social_id(ids[1].text);
        assert_int_equal(status_of(accounts(&one, CF_FIND_SOCIAL_ACCOUNT_BY_ID, &query)), CF_ECORRUPT);
        assert_int_equal(w.seen, 0);
    }
    table_log.on_slot = NULL;
    record = social_id(ids[0].text);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("sealed:x")); /* nobody's own text looks so */
    assert_int_equal(status_of(accounts(&none, CF_UPDATE_SOCIAL_ACCOUNT, &record)), CF_EINVAL);
    assert_ok(cf_store_close(one.store, NULL));
    assert_ok(cf_store_close(two.store, NULL));
    assert_ok(cf_store_close(none.store, NULL));
}

static void whole_records_can_be_sealed(void **state)
{
    ground *g = *state;
    watcher w = {.secret = "hashed-password"};
    ground  one = sealed_ground(g, ring_one, 1, true), two = sealed_ground(g, ring_two, 2, true);
    table_log.user = &w;
    table_log.on_slot = watch_slot;
    cf_record record = email("a@b.c"), query = email("a@b.c");
    cf_record_text(&record, CF_USER_HASHED_PASSWORD, cf_text("hashed-password"));
    id user = made(accounts(&one, CF_CREATE_USER, &record));
    made(try_social(&one, user.text, "google", "1"));
    make_session(&one, user.text, "hash", 0, SECOND);
    got found = accounts(&one, CF_FIND_USER_BY_EMAIL, &query);
    assert_text(&found.records[0], CF_USER_HASHED_PASSWORD, "hashed-password");
    drop(&found);
    assert_int_equal(status_of(accounts(&one, CF_CREATE_USER, &record)), CF_EEXISTS);
    assert_int_equal(status_of(accounts(&two, CF_FIND_USER_BY_EMAIL, &query)), CF_ECORRUPT);
    assert_int_equal(revoke_all(&one, user.text, NULL), 1);
    record = user_id(user.text);
    assert_true(was_hit(accounts(&one, CF_DELETE_USER, &record)));
    assert_int_equal(count_social(&one, user.text), 0);
    assert_int_equal(w.seen, 0);
    table_log.on_slot = NULL;
    assert_ok(cf_store_close(one.store, NULL));
    assert_ok(cf_store_close(two.store, NULL));
}

/* ----------------------------------------------------------------------------------------------------- what may fail -- */

/* A small world, and what may happen in it. */
typedef struct people {
    id ann, bob, link, first, second;
} people;

static void settle_people(ground *g, people *p)
{
    g->sessions.most = 3;
    p->ann = make_user(g, "ann@b.c");
    p->bob = make_user(g, "bob@b.c");
    p->link = made(try_social(g, p->ann.text, "google", "1"));
    made(try_social(g, p->ann.text, "google", "2"));
    p->first = make_session(g, p->ann.text, "h1", -3, 60 * (int64_t)SECOND);
    p->second = make_session(g, p->ann.text, "h2", -2, 60 * (int64_t)SECOND);
    make_session(g, p->ann.text, "h3", -1, 60 * (int64_t)SECOND);
}

/* All that can be seen of it: what a reader makes of half a write would show here. */
static void describe(ground *g, const people *p, char out[512])
{
    static const char *const addresses[] = {"ann@b.c", "bob@b.c", "cid@b.c", "dan@b.c", "new@b.c"};
    static const char *const names[] = {"1", "2", "3", "4"};
    static const char *const hashes[] = {"h1", "h2", "h3", "h4"};
    size_t at = 0;
    for (int i = 0; i < 5; i++) at += (size_t)snprintf(out + at, 512 - at, "%d", user_is_there(g, addresses[i]));
    for (int i = 0; i < 4; i++) {
        cf_record query = provided("google", names[i]);
        got       found = accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query);
        at += (size_t)snprintf(out + at, 512 - at, " %zu", found.count);
        if (found.count) { /* never without its user */
            at += (size_t)snprintf(out + at, 512 - at, "%s", found.records[0].fields[CF_SOCIAL_ACCOUNT_SCOPE].is == CF_GIVEN ? "s" : "");
            id owner = {{0}};
            memcpy(owner.text, found.records[0].fields[CF_SOCIAL_ACCOUNT_USER_ID].text.ptr, CF_ID_LEN);
            query = user_id(owner.text);
            assert_true(is_there(accounts(g, CF_FIND_USER_BY_ID, &query)));
        }
        drop(&found);
    }
    for (int i = 0; i < 4; i++) {
        cf_record query = session_hash(hashes[i]);
        got       found = sessions(g, CF_SESSION_GET, &query, NULL);
        at += (size_t)snprintf(out + at, 512 - at, " %zu", found.count);
        if (found.count) at += (size_t)snprintf(out + at, 512 - at, "/%d", found.records[0].fields[CF_SESSION_LAST_ACTIVE_AT].is == CF_GIVEN);
        drop(&found);
    }
    snprintf(out + at, 512 - at, " %zu %zu, %zu+%zu sessions, epoch %lld", count_social(g, p->ann.text), count_social(g, p->bob.text),
             count_sessions(g, p->ann.text, CF_STATUS_ACTIVE), count_sessions(g, p->ann.text, CF_STATUS_REVOKED), (long long)epoch_of(g, p->ann.text));
}

enum { CREATE_USER, MOVE_USER, FIND_OR_CREATE, LINK, RELINK, UNLINK, LOG_IN, GO_ON, LOG_OUT, LOG_OUT_ALL, LEAVE, ACTS };

/* Submits one of them. */
static int act(ground *g, const people *p, int which, int64_t timeout_ms, cf_op **op)
{
    cf_call   call = {.timeout_ms = timeout_ms};
    cf_record record, user;
    switch (which) {
    case CREATE_USER: record = email("cid@b.c"); return cf_accounts_call(&g->accounts, CF_CREATE_USER, &record, NULL, &call, op);
    case MOVE_USER:
        record = user_id(p->bob.text);
        cf_record_text(&record, CF_USER_EMAIL, cf_text("new@b.c"));
        return cf_accounts_call(&g->accounts, CF_UPDATE_USER, &record, NULL, &call, op);
    case FIND_OR_CREATE:
        record = provided("google", "3");
        user = email("dan@b.c");
        return cf_accounts_call(&g->accounts, CF_FIND_OR_CREATE, &record, &user, &call, op);
    case LINK:
        record = provided("google", "4");
        cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(p->ann.text));
        return cf_accounts_call(&g->accounts, CF_CREATE_SOCIAL_ACCOUNT, &record, NULL, &call, op);
    case RELINK:
        record = social_id(p->link.text);
        cf_record_text(&record, CF_SOCIAL_ACCOUNT_SCOPE, cf_text("openid profile and whatever there is"));
        return cf_accounts_call(&g->accounts, CF_UPDATE_SOCIAL_ACCOUNT, &record, NULL, &call, op);
    case UNLINK: record = social_id(p->link.text); return cf_accounts_call(&g->accounts, CF_DELETE_SOCIAL_ACCOUNT, &record, NULL, &call, op);
    case LOG_IN: record = new_session(g, p->ann.text, "h4", 0, 60 * (int64_t)SECOND); return cf_sessions_call(&g->sessions, CF_SESSION_CREATE, &record, NULL, &call, op);
    case GO_ON:
        record = session_id(p->second.text);
        cf_record_number(&record, CF_SESSION_UPDATED_AT, now_of(g));
        cf_record_number(&record, CF_SESSION_LAST_ACTIVE_AT, now_of(g));
        cf_record_number(&record, CF_SESSION_EXPIRES_AT, now_of(g) + 4000000 * (int64_t)SECOND); /* beyond what leads there */
        return cf_sessions_call(&g->sessions, CF_SESSION_REFRESH, &record, NULL, &call, op);
    case LOG_OUT:
        record = session_id(p->first.text);
        cf_record_number(&record, CF_SESSION_REVOKED_AT, 1);
        return cf_sessions_call(&g->sessions, CF_SESSION_REVOKE, &record, NULL, &call, op);
    case LOG_OUT_ALL:
        record = sessions_of(p->ann.text);
        cf_record_number(&record, CF_SESSION_REVOKED_AT, 1);
        return cf_sessions_call(&g->sessions, CF_SESSION_REVOKE_ALL, &record, NULL, &call, op);
    default: record = user_id(p->ann.text); return cf_accounts_call(&g->accounts, CF_DELETE_USER, &record, NULL, &call, op);
    }
}

/* Once for each allocation of an act: it fails, and nothing has happened; or it is done in spite of it. */
static void no_memory_leaves_nothing_half_done(void **state)
{
    const place *where = ((ground *)*state)->place;
    int failures = 0;
    for (int which = 0; which < ACTS; which++) {
        char done[512] = "";
        for (uint64_t nth = 0; nth < 400; nth++) {
            void  *inner = (void *)(uintptr_t)where;
            tb    *outer_table = first_table;
            char   before[512], after[512];
            people p;
            cf_op *op;
            assert_ok(put_up(&inner));
            ground *g = inner;
            settle_people(g, &p);
            describe(g, &p, before);
            int64_t entries = where->is & LEAN ? stat_of(g->store, "entries") : 0;
            cf_stage_fail_allocation(g->stage, nth / 2 + nth % 2, nth > 1 && nth % 2); /* 0: none; then each once, and from each on all */
            int rc = act(g, &p, which, 0, &op);
            while (rc == CF_PENDING) rc = cf_op_wait(op);
            bool failed = cf_stage_failed(g->stage);
            cf_stage_fail_allocation(g->stage, 0, false);
            int outcome = op ? cf_op_error(op)->outcome : CF_NOT_APPLIED;
            cf_op_free(op);
            describe(g, &p, after);
            if (nth == 0) {
                assert_ok(rc);
                strcpy(done, after);
                assert_string_not_equal(before, after);
            } else if (rc == CF_OK) {
                assert_string_equal(after, done);
            } else {
                assert_int_equal(rc, CF_ENOMEM);
                failures++;
                if (outcome == CF_NOT_APPLIED) assert_string_equal(after, before);
                if (outcome == CF_APPLIED) assert_string_equal(after, done);
                if (outcome == CF_NOT_APPLIED && where->is & LEAN) assert_int_equal(stat_of(g->store, "entries"), entries); /* nor is there any rest */
                if (outcome == CF_UNKNOWN && where->is & LEAN) fail_msg("act %d, allocation %llu: unknown", which, (unsigned long long)nth);
                if (outcome != CF_APPLIED) { /* it can be done yet */
                    rc = act(g, &p, which, 0, &op);
                    while (rc == CF_PENDING) rc = cf_op_wait(op);
                    cf_op_free(op);
                    if (which != LEAVE || outcome == CF_NOT_APPLIED) assert_ok(rc);
                    describe(g, &p, after);
                    if (outcome == CF_NOT_APPLIED) assert_string_equal(after, done);
                }
            }
            int left = take_down(&inner);
            first_table = outer_table;
            assert_int_equal(left, 0);
            if (nth && !failed) break;
        }
    }
    assert_true(failures > ACTS * 3);
}

/* A backend fails once, at each of the calls that an act is made of. */
typedef struct trouble {
    int  calls, at;
    bool name; /* it was the name of a record, which nobody can see yet */
} trouble;

static int fail_at(tb *self, cf_op *op, void *user)
{
    (void)self;
    trouble *t = user;
    if (++t->calls != t->at) return CF_OK;
    t->name = cf_op_in(op)->kind == CF_OP_SET && (find_bytes(cf_op_in(op)->key, "email_key:") || find_bytes(cf_op_in(op)->key, "token_hash:"));
    return cf_op_fail(op, CF_EUNAVAILABLE, CF_UNKNOWN, "The table is on fire.");
}

static void a_backend_that_fails_on_the_way(void **state)
{
    const place *where = ((ground *)*state)->place;
    int outcomes[3] = {0}, passed_over = 0, named = 0;
    for (int which = 0; which < ACTS; which++) {
        char done[512] = "";
        for (int at = 0; at < 200; at++) {
            void   *inner = (void *)(uintptr_t)where;
            tb     *outer_table = first_table;
            char    before[512], after[512];
            people  p;
            cf_op  *op;
            trouble t = {0, at, false};
            assert_ok(put_up(&inner));
            ground *g = inner;
            settle_people(g, &p);
            describe(g, &p, before);
            table_log.user = &t;
            table_log.on_slot = fail_at;
            int rc = act(g, &p, which, 0, &op);
            while (rc == CF_PENDING) rc = cf_op_wait(op);
            table_log.on_slot = NULL;
            int outcome = cf_op_error(op)->outcome;
            if (rc != CF_OK) assert_string_equal(cf_op_error(op)->text, "The table is on fire.");
            cf_op_free(op);
            describe(g, &p, after);
            if (at == 0) {
                assert_ok(rc);
                strcpy(done, after);
            } else if (rc == CF_OK) {
                passed_over += t.calls >= at;
                if (which != LOG_IN || t.calls < at) assert_string_equal(after, done); /* where the one that was to go may still be there */
                if (which == FIND_OR_CREATE) { /* the user stays when the account goes with which it was made */
                    cf_record query = provided("google", "3");
                    got       link = accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query);
                    id        it = id_of(&link.records[0]);
                    query = social_id(it.text);
                    assert_true(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &query)));
                    assert_true(user_is_there(g, "dan@b.c"));
                    drop(&link);
                }
            } else {
                assert_int_equal(rc, CF_EUNAVAILABLE);
                outcomes[outcome]++;
                if (outcome == CF_NOT_APPLIED) assert_string_equal(after, before);
                if (t.name) assert_int_equal(outcome, CF_NOT_APPLIED);
                named += t.name;
                rc = act(g, &p, which, 0, &op);
                while (rc == CF_PENDING) rc = cf_op_wait(op);
                cf_op_free(op);
                assert_ok(rc);
                describe(g, &p, after);
                if (which == LOG_OUT_ALL || which == LEAVE) after[strlen(after) - 1] = done[strlen(done) - 1]; /* the epoch may have gone up twice */
                assert_string_equal(after, done);
            }
            int left = take_down(&inner);
            first_table = outer_table;
            assert_int_equal(left, 0);
            if (at && t.calls < at) break;
        }
    }
    assert_int_equal(outcomes[CF_APPLIED], 0);
    assert_true(named >= 3);
    assert_true(outcomes[CF_NOT_APPLIED] > ACTS && outcomes[CF_UNKNOWN] > ACTS && passed_over > 3);
}

/* A user that needs its account (for what would have said otherwise was lost) is read; the account goes; what it needed is read, and is not there. */
static void a_user_is_not_missed_when_its_account_goes(void **state)
{
    (void)state;
    static const place by_hand = {"table, by hand", NULL, TB_NOW, SHARED | STAGED | KEYED, NULL};
    static tb_log      log;
    void   *inner = (void *)(uintptr_t)&by_hand;
    trouble t = {0, -1, false};
    cf_op  *op;
    assert_ok(put_up(&inner));
    ground *g = inner, slow = *g;
    table_log.user = &t;
    table_log.on_slot = fail_at;
    id users[2], links[2];
    for (int i = 0; i < 2; i++) {
        cf_record account = provided("google", i ? "2" : "1"), user = email(NULL);
        t.at = i ? t.calls : -1; /* none; then the last of so many */
        t.calls = 0;
        got made_now = accounts_with(&g->accounts, CF_FIND_OR_CREATE, &account, &user);
        assert_ok(made_now.status);
        links[i] = id_of(&made_now.records[0]);
        users[i] = id_of(&made_now.records[1]);
        drop(&made_now);
    }
    assert_int_equal(t.calls, t.at);
    table_log.on_slot = NULL;
    memset(&log, 0, sizeof log);
    tb *hand = tb_share(first_table, g->loop, TB_HAND, &log);
    assert_ok(cf_open_backend(g->loop, tb_functions(TB_DERIVED_SCAN), tb_backend(hand), NULL, &slow.store, NULL));
    slow.accounts.store = slow.store;
    cf_record query = user_id(users[1].text);
    assert_int_equal(cf_accounts_call(&slow.accounts, CF_FIND_USER_BY_ID, &query, NULL, NULL, &op), CF_PENDING);
    assert_int_equal(tb_answer(hand, 1), 1);
    assert_int_equal(tb_pending(hand), 1); /* it wants what the user needs */
    cf_record link = social_id(links[1].text);
    assert_true(was_hit(accounts(g, CF_DELETE_SOCIAL_ACCOUNT, &link)));
    while (tb_answer(hand, 1)) {}
    cf_loop_run(g->loop, 0);
    assert_ok(cf_op_status(op));
    assert_true(cf_op_hit(op));
    cf_op_free(op);
    assert_int_equal(take_down(&inner), 0);
}

/* A backend that answers by hand: after each of its answers the deadline passes. What is then with the backend still arrives. */
static void a_deadline_on_the_way(void **state)
{
    (void)state;
    static const place by_hand = {"table, by hand", NULL, TB_NOW, SHARED | STAGED | KEYED, NULL};
    static tb_log      log;
    int ends = 0, late = 0;
    for (int which = 0; which < ACTS; which++) {
        char done[512] = "";
        for (int answers = -1; answers < 200; answers++) { /* -1: all of them */
            void  *inner = (void *)(uintptr_t)&by_hand;
            char   before[512], after[512];
            people p;
            cf_op *op;
            assert_ok(put_up(&inner));
            ground *g = inner, slow = *g;
            settle_people(g, &p);
            describe(g, &p, before);
            memset(&log, 0, sizeof log);
            tb *hand = tb_share(first_table, g->loop, TB_HAND, &log);
            assert_ok(cf_open_backend(g->loop, tb_functions(TB_DERIVED_SCAN), tb_backend(hand), NULL, &slow.store, NULL));
            slow.accounts.store = slow.sessions.store = slow.store;
            slow.sessions.most = g->sessions.most;
            int rc = act(&slow, &p, which, 10, &op);
            assert_int_equal(rc, CF_PENDING);
            for (int i = 0; (answers < 0 || i < answers) && cf_op_status(op) == CF_PENDING; i++) {
                assert_true(i < 200);
                tb_answer(hand, 1);
                assert_true(cf_loop_run(g->loop, 0) >= 0);
            }
            bool in_time = cf_op_status(op) != CF_PENDING;
            if (!in_time) cf_stage_advance(g->stage, 10);
            rc = cf_op_wait(op);
            int outcome = cf_op_error(op)->outcome;
            cf_op_free(op);
            cf_loop_run(g->loop, 0);
            if (answers < 0) {
                assert_ok(rc);
                describe(g, &p, done);
            } else if (in_time) {
                assert_ok(rc);
            } else {
                ends++;
                assert_int_equal(rc, CF_ETIMEOUT);
                describe(g, &p, after);
                bool many = which == LEAVE || which == LOG_OUT_ALL || which == LOG_IN; /* whose steps can be seen */
                if (!many && strcmp(after, before) != 0) assert_string_equal(after, done);
                if (outcome == CF_NOT_APPLIED) assert_string_equal(after, before);
                if (tb_pending(hand)) late++;
                while (tb_answer(hand, 1)) {} /* what was under way arrives, and lets go of the lock */
                assert_true(cf_loop_run(g->loop, 0) >= 0);
                describe(g, &p, after);
                if (!many && strcmp(after, before) != 0) assert_string_equal(after, done);
                /* Nothing of it is in the way of the next. */
                rc = act(g, &p, which, 0, &op);
                assert_int_not_equal(rc, CF_PENDING);
                cf_op_free(op);
                if (rc != CF_OK) assert_true(rc == CF_EEXISTS);
                describe(g, &p, after);
                if (which == LOG_IN && rc == CF_EEXISTS) { /* it was made, and the one that was to go may be there yet: the next one sees to it */
                    make_session(g, p.ann.text, "next", 1, 60 * (int64_t)SECOND);
                    assert_int_equal(count_sessions(g, p.ann.text, CF_STATUS_ANY), 3);
                    strcpy(after, done);
                }
                if (which == LOG_OUT_ALL || which == LEAVE) after[strlen(after) - 1] = done[strlen(done) - 1]; /* the epoch may have gone up twice */
                assert_string_equal(after, done);
            }
            assert_int_equal(take_down(&inner), 0);
            first_table = NULL;
            if (in_time && answers >= 0) break;
        }
    }
    assert_true(ends > ACTS * 4);
    assert_true(late > ACTS * 2);
}

/* ------------------------------------------------------------------------------------------------------ many at once -- */

enum { THREADS = 4, IDENTITIES = 200, SLOTS_OF_ALL = 5 };

typedef struct racers {
    const place    *place;
    cf_stage       *stage;
    pthread_mutex_t lock;
    char            user[IDENTITIES][CF_ID_LEN + 1];
    int             made[IDENTITIES], created[IDENTITIES], wrong;
    pthread_barrier_t together;
    bool            remove;
} racers;

typedef struct racer {
    racers   *all;
    cf_loop  *loop;
    cf_store *store;
    tb_log    log;
    pthread_t thread;
    int       number;
} racer;

#define must(condition)                                                                          \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "test_records: not true: %s (line %d)\n", #condition, __LINE__);     \
            pthread_mutex_lock(&r->lock);                                                        \
            r->wrong++;                                                                          \
            pthread_mutex_unlock(&r->lock);                                                      \
        }                                                                                        \
    } while (0)

static void *race(void *user)
{
    racer      *me = user;
    racers     *r = me->all;
    cf_accounts a = {.store = me->store};
    cf_sessions s = {.store = me->store, .most = SLOTS_OF_ALL};
    rng         random = {(uint64_t)me->number * 7919 + 1};
    for (int i = 0; i < IDENTITIES; i++) {
        if (i % 2 == 0) pthread_barrier_wait(&r->together); /* all of them at once, and what follows as it comes */
        char name[32], address[32], hash[32];
        snprintf(name, sizeof name, "%d", i);
        snprintf(address, sizeof address, "%d@b.c", i);
        snprintf(hash, sizeof hash, "%d-%d", me->number, i);
        cf_record account = provided("google", name), owner = email(address), lone;
        got       g = accounts_with(&a, CF_FIND_OR_CREATE, &account, &owner);
        must(g.status == CF_OK && g.count == 2 && g.records[1].kind == CF_USER);
        id it = {{0}};
        if (g.count == 2) {
            memcpy(it.text, g.records[1].fields[0].text.ptr, CF_ID_LEN);
            pthread_mutex_lock(&r->lock);
            r->made[i] += g.number == 1;
            if (!r->remove && r->user[i][0] && strcmp(r->user[i], it.text) != 0) r->wrong++;
            strcpy(r->user[i], it.text);
            pthread_mutex_unlock(&r->lock);
        }
        drop(&g);
        snprintf(address, sizeof address, "lone%d@b.c", i);
        lone = email(address);
        g = accounts_with(&a, CF_CREATE_USER, &lone, NULL);
        must(g.status == CF_OK || g.status == CF_EEXISTS);
        pthread_mutex_lock(&r->lock);
        r->created[i] += g.status == CF_OK;
        pthread_mutex_unlock(&r->lock);
        drop(&g);
        cf_record session = session_hash(hash);
        int64_t   now = cf_stage_wall_ms(r->stage) * 1000;
        cf_record_text(&session, CF_SESSION_USER_ID, cf_text("everybody"));
        cf_record_number(&session, CF_SESSION_CREATED_AT, now);
        cf_record_number(&session, CF_SESSION_UPDATED_AT, now);
        cf_record_number(&session, CF_SESSION_EXPIRES_AT, now + SECOND);
        g = sessions_with(&s, CF_SESSION_CREATE, &session, NULL);
        must(g.status == CF_OK);
        drop(&g);
        if (r->remove && rng_below(&random, 2)) {
            lone = user_id(it.text);
            g = accounts_with(&a, CF_DELETE_USER, &lone, NULL);
            must(g.status == CF_OK);
            drop(&g);
        }
    }
    return NULL;
}

static void run_race(ground *g, racers *r)
{
    racer all[THREADS];
    memset(all, 0, sizeof all);
    pthread_mutex_init(&r->lock, NULL);
    pthread_barrier_init(&r->together, NULL, THREADS);
    r->place = g->place;
    r->stage = g->stage;
    for (int i = 0; i < THREADS; i++) {
        all[i].all = r;
        all[i].number = i;
        assert_ok(cf_loop_new(cf_stage_platform(g->stage), &all[i].loop));
        cf_loop_set_blocking(all[i].loop, true);
        all[i].store = open_logged(g->place, all[i].loop, NULL, &all[i].log);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&all[i].thread, NULL, race, &all[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(all[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) cf_loop_free(all[i].loop);
    assert_int_equal(r->wrong, 0);
    pthread_mutex_destroy(&r->lock);
    pthread_barrier_destroy(&r->together);
}

static void of_many_who_come_first_one_is(void **state)
{
    ground       *g = *state;
    static racers r;
    memset(&r, 0, sizeof r);
    run_race(g, &r);
    for (int i = 0; i < IDENTITIES; i++) {
        assert_int_equal(r.made[i], 1);
        assert_int_equal(r.created[i], 1);
        assert_int_equal(count_social(g, r.user[i]), 1);
    }
    assert_int_equal(count_sessions(g, "everybody", CF_STATUS_ANY), SLOTS_OF_ALL);
}

static void who_comes_while_others_go_is_whole(void **state)
{
    ground       *g = *state;
    static racers r;
    memset(&r, 0, sizeof r);
    r.remove = true;
    run_race(g, &r);
    int there = 0;
    for (int i = 0; i < IDENTITIES; i++) {
        char name[32], address[32];
        snprintf(name, sizeof name, "%d", i);
        snprintf(address, sizeof address, "%d@b.c", i);
        cf_record query = provided("google", name);
        got       found = accounts(g, CF_FIND_SOCIAL_ACCOUNT, &query);
        assert_ok(found.status);
        assert_int_equal(found.count, user_is_there(g, address));
        if (found.count) {
            id owner = {{0}};
            memcpy(owner.text, found.records[0].fields[CF_SOCIAL_ACCOUNT_USER_ID].text.ptr, CF_ID_LEN);
            query = user_id(owner.text);
            assert_true(is_there(accounts(g, CF_FIND_USER_BY_ID, &query)));
            assert_int_equal(count_social(g, owner.text), 1);
            there++;
        }
        drop(&found);
    }
    assert_true(there < IDENTITIES);
}

/* Calls of several threads that end in every way at any time: by their answer, a deadline, cancel, free, the close of their store, the end of their loop. */
enum { FLIGHTS = 10, PILOTS = 3, PLANES = 3 };

typedef struct flight {
    cf_op *op;
    bool   pended, landed;
} flight;

static void landed(cf_op *op, void *user)
{
    (void)op;
    ((flight *)user)->landed = true;
}

static void take_off(racer *me, cf_store *store, flight *f, id *known, rng *random)
{
    racers     *r = me->all;
    cf_accounts a = {.store = store};
    cf_sessions s = {.store = store, .most = SLOTS_OF_ALL};
    cf_record   record, user;
    char        address[16], hash[24];
    cf_call     call = {.timeout_ms = rng_below(random, 3) ? CF_TIMEOUT_MAX : 1 + (int64_t)rng_below(random, 4), .done = landed, .user = f};
    int64_t     now = cf_stage_wall_ms(r->stage) * 1000;
    snprintf(address, sizeof address, "%d@b.c", (int)rng_below(random, PLANES));
    snprintf(hash, sizeof hash, "%d", (int)rng_below(random, 40));
    cf_op_free(f->op);
    *f = (flight){.pended = true};
    int rc = CF_OK;
    switch (rng_below(random, 8)) {
    case 0:
    case 1:
        record = provided("google", address);
        user = email(address);
        rc = cf_accounts_call(&a, CF_FIND_OR_CREATE, &record, &user, &call, &f->op);
        break;
    case 2: record = user_id(known->text); rc = cf_accounts_call(&a, CF_DELETE_USER, &record, NULL, &call, &f->op); break;
    case 3: record = email(address); rc = cf_accounts_call(&a, CF_FIND_USER_BY_EMAIL, &record, NULL, &call, &f->op); break;
    case 4:
        record = user_id(known->text);
        if (rng_below(random, 2)) cf_record_text(&record, CF_USER_EMAIL, cf_text(address));
        else cf_record_null(&record, CF_USER_EMAIL);
        rc = cf_accounts_call(&a, CF_UPDATE_USER, &record, NULL, &call, &f->op);
        break;
    case 5:
        record = session_hash(hash);
        cf_record_text(&record, CF_SESSION_USER_ID, cf_text("everybody"));
        cf_record_number(&record, CF_SESSION_CREATED_AT, now);
        cf_record_number(&record, CF_SESSION_UPDATED_AT, now);
        cf_record_number(&record, CF_SESSION_EXPIRES_AT, now + SECOND);
        rc = cf_sessions_call(&s, CF_SESSION_CREATE, &record, NULL, &call, &f->op);
        break;
    case 6: record = sessions_of("everybody"); rc = cf_sessions_call(&s, CF_SESSION_LIST, &record, NULL, &call, &f->op); break;
    default:
        record = sessions_of("everybody");
        cf_record_number(&record, CF_SESSION_REVOKED_AT, now);
        rc = cf_sessions_call(&s, CF_SESSION_REVOKE_ALL, &record, NULL, &call, &f->op);
        break;
    }
    must(f->op != NULL);
    if (rc != CF_PENDING) f->pended = false;
}

static void look_at(racer *me, flight *f, id *known)
{
    racers   *r = me->all;
    cf_record record;
    if (!f->op || cf_op_status(f->op) == CF_PENDING) return;
    int status = cf_op_status(f->op);
    must(status == CF_OK || status == CF_EEXISTS || status == CF_EMISSING || status == CF_ETIMEOUT || status == CF_ECANCELED || status == CF_ECLOSED);
    while (cf_op_next_record(f->op, &record))
        if (record.kind == CF_USER) memcpy(known->text, record.fields[0].text.ptr, CF_ID_LEN);
    pthread_mutex_lock(&r->lock);
    r->made[0] += status == CF_OK;
    r->made[1] += status == CF_ETIMEOUT;
    r->made[2] += status == CF_ECANCELED;
    r->made[3] += status == CF_ECLOSED;
    pthread_mutex_unlock(&r->lock);
    cf_op_free(f->op);
    *f = (flight){0};
}

static void *fly(void *user)
{
    racer *me = user;
    racers *r = me->all;
    rng    random = {(uint64_t)me->number * 7919 + 1};
    id     known = {"0123456789abcdef0123456789abcdef"};
    for (uint64_t life = 0, lives = env_number("CF_LIVES", 60); life < lives; life++) {
        static const tb_manner manners[] = {TB_PIPE, TB_TIMER, TB_NOW};
        flight    flights[2][FLIGHTS];
        cf_loop  *loop;
        cf_store *stores[2];
        memset(flights, 0, sizeof flights);
        must(cf_loop_new(cf_stage_platform(r->stage), &loop) == CF_OK);
        for (int i = 0; i < 2; i++) {
            tb *t = tb_share(first_table, loop, manners[rng_below(&random, 3)], &me->log);
            must(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(t), NULL, &stores[i], NULL) == CF_OK);
        }
        for (int step = 0; step < 250; step++) {
            int     which = (int)rng_below(&random, 2);
            flight *f = &flights[which][rng_below(&random, FLIGHTS)];
            switch (rng_below(&random, 12)) {
            case 0:
                cf_op_free(f->op);
                *f = (flight){0};
                break;
            case 1:
                if (f->op && cf_op_status(f->op) == CF_PENDING) must(cf_op_cancel(f->op) == CF_OK && f->landed);
                break;
            case 2: cf_stage_advance(r->stage, 1); break;
            case 3:
            case 4:
                if (stores[which]) take_off(me, stores[which], f, &known, &random);
                break;
            default: must(cf_loop_run(loop, 0) >= 0); break;
            }
            look_at(me, f, &known);
            if (step != 200 || rng_below(&random, 2)) continue;
            must(cf_store_close(stores[which], NULL) == CF_OK);
            stores[which] = NULL;
        }
        if (rng_below(&random, 2)) /* otherwise all that is in the air goes with the loop */
            for (int i = 0; i < 2 * FLIGHTS; i++) cf_op_free(flights[i / FLIGHTS][i % FLIGHTS].op);
        cf_loop_free(loop);
    }
    return NULL;
}

static void calls_may_end_in_any_manner(void **state)
{
    ground       *g = *state;
    static racers r;
    racer         all[PILOTS];
    memset(&r, 0, sizeof r);
    memset(all, 0, sizeof all);
    pthread_mutex_init(&r.lock, NULL);
    r.stage = g->stage;
    for (int i = 0; i < PILOTS; i++) {
        all[i].all = &r;
        all[i].number = i;
        assert_int_equal(pthread_create(&all[i].thread, NULL, fly, &all[i]), 0);
    }
    for (int i = 0; i < PILOTS; i++) pthread_join(all[i].thread, NULL);
    pthread_mutex_destroy(&r.lock);
    assert_int_equal(r.wrong, 0);
    for (int i = 0; i < 4; i++) assert_true(r.made[i] > 0); /* or this has tried less than it says */
    for (int i = 0; i < PLANES; i++) { /* nobody holds a lock, and what is left can be used */
        char address[16];
        snprintf(address, sizeof address, "%d@b.c", i);
        cf_record account = provided("google", address), user = email(NULL);
        cf_op    *op;
        assert_ok(cf_accounts_call(&g->accounts, CF_FIND_OR_CREATE, &account, &user, NULL, &op));
        got it = collect(op, CF_OK);
        assert_int_equal(it.count, 2);
        id owner = id_of(&it.records[1]);
        user = user_id(owner.text);
        assert_int_equal(count_social(g, owner.text), 1);
        assert_true(was_hit(accounts(g, CF_DELETE_USER, &user)));
        drop(&it);
        user = email(address);
        it = accounts(g, CF_CREATE_USER, &user);
        assert_true(it.status == CF_OK || it.status == CF_EEXISTS);
        user = user_id(id_of(&it.records[0]).text);
        assert_true(was_hit(accounts(g, CF_DELETE_USER, &user)));
        drop(&it);
        assert_false(user_is_there(g, address));
    }
    g->sessions.most = SLOTS_OF_ALL;
    make_session(g, "everybody", "last", 0, SECOND);
    assert_true(count_sessions(g, "everybody", CF_STATUS_ANY) <= SLOTS_OF_ALL);
}

/* -------------------------------------------------------------------------------------------------------------- main -- */

static bool in_one_memory(const place *p) { return p->url && strcmp(p->url, "memory:") == 0; }
static bool on_a_table(const place *p) { return !p->url; }
static bool on_a_table_at_once(const place *p) { return !p->url && p->manner == TB_NOW; }

/* Each is for the places that are all of `needs`, and fit. */
typedef struct one_test {
    const char     *name;
    CMUnitTestFunction run;
    unsigned        needs;
    bool          (*fits)(const place *p);
} one_test;
#define TEST(name) {#name, name, 0, NULL}
#define TEST_OF(name, needs) {#name, name, needs, NULL}
#define TEST_WHERE(name, fits) {#name, name, 0, fits}

static const one_test tests_of_places[] = {
    TEST(users_are_found_by_what_they_are),
    TEST(an_email_has_one_user),
    TEST(an_update_changes_what_it_says),
    TEST(social_accounts_belong_to_users),
    TEST(an_account_is_found_or_made_with_its_user),
    TEST(with_a_user_goes_what_is_theirs),
    TEST(a_session_is_active_until_it_is_not),
    TEST(all_are_revoked_and_no_late_login_slips_by),
    TEST(pages_are_in_order_and_whole),
    TEST(there_are_not_more_than_allowed),
    TEST_OF(records_go_some_time_after_their_end, STAGED),
    TEST(a_group_may_be_large),
    TEST_WHERE(no_record_is_evicted, in_one_memory),
    TEST(keys_and_records_do_not_meet),
    TEST(the_longest_names_are_told_apart),
    TEST(the_largest_records_are_kept),
    TEST(what_makes_no_sense_is_refused),
    TEST_OF(tokens_are_sealed, SHARED),
    TEST_OF(whole_records_can_be_sealed, SHARED | KEYED),
    TEST_OF(no_memory_leaves_nothing_half_done, KEYED),
    TEST_WHERE(a_backend_that_fails_on_the_way, on_a_table),
    TEST_OF(of_many_who_come_first_one_is, SHARED),
    TEST_OF(who_comes_while_others_go_is_whole, SHARED),
    TEST_WHERE(calls_may_end_in_any_manner, on_a_table_at_once),
};
enum { TESTS = sizeof tests_of_places / sizeof *tests_of_places };

int main(void)
{
    static struct CMUnitTest tests[PLACES * TESTS + 2];
    static char names[PLACES * TESTS][128];
    size_t count = 0;
    hang_guard(120);
    for (int p = 0; p < PLACES; p++)
        for (int t = 0; t < TESTS; t++) {
            const one_test *test = &tests_of_places[t];
            if ((places[p].is & test->needs) != test->needs || (test->fits && !test->fits(&places[p]))) continue;
            snprintf(names[count], sizeof names[count], "%s: %s", places[p].name, test->name);
            tests[count] = (struct CMUnitTest){names[count], test->run, put_up, take_down, (void *)(uintptr_t)&places[p]};
            count++;
        }
    tests[count++] = (struct CMUnitTest){"a_deadline_on_the_way", a_deadline_on_the_way, NULL, NULL, NULL};
    tests[count++] = (struct CMUnitTest){"a_user_is_not_missed_when_its_account_goes", a_user_is_not_missed_when_its_account_goes, NULL, NULL, NULL};
    int failed = _cmocka_run_group_tests("records", tests, count, NULL, NULL);
    if (redis.pid) server_stop(&redis);
    remove_sqlite();
    return failed;
}
