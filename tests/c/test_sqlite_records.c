/* test_sqlite_records.c: accounts and session records in a database file: what stands in its tables, files of version 1, damage, races, and processes that are killed.
 * CF_KILLS. What the interfaces promise on every backend: test_records.c. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool     blocking;
static cf_loop *loop;
static uint64_t seed;

static int up(void **state)
{
    blocking = *state != NULL;
    folder_empty();
    loop = new_loop(blocking);
    return 0;
}

static int down(void **state)
{
    (void)state;
    cf_loop_free(loop);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------- asking -- */

typedef struct came {
    int     status, outcome, count;
    bool    hit;
    int64_t number;
    char    id[CF_ID_LEN + 1], user_id[CF_ID_LEN + 1]; /* of the first record */
    char    text[256];
} came;

static came take(cf_op *op)
{
    came      out = {.status = cf_op_status(op), .outcome = cf_op_error(op)->outcome, .hit = cf_op_hit(op), .number = cf_op_number(op)};
    cf_record record;
    strcpy(out.text, cf_op_error(op)->text);
    while (cf_op_next_record(op, &record)) {
        if (out.count++) continue;
        snprintf(out.id, sizeof out.id, "%.*s", (int)record.fields[0].text.len, record.fields[0].text.ptr);
        int at = record.kind == CF_USER ? 0 : record.kind == CF_SESSION ? CF_SESSION_USER_ID : CF_SOCIAL_ACCOUNT_USER_ID;
        snprintf(out.user_id, sizeof out.user_id, "%.*s", (int)record.fields[at].text.len, record.fields[at].text.ptr);
    }
    cf_op_free(op);
    return out;
}

enum { PATIENCE = 30000 };

static cf_op *begin_account(cf_store *store, int method, const cf_record *record, const cf_record *user)
{
    const cf_accounts of = {.store = store};
    const cf_call     call = {.timeout_ms = PATIENCE};
    cf_op            *op;
    cf_accounts_call(&of, method, record, user, &call, &op);
    return op;
}

static came accounts(cf_store *store, int method, const cf_record *record, const cf_record *user)
{
    cf_op *op = begin_account(store, method, record, user);
    cf_op_wait(op);
    return take(op);
}

static cf_op *begin_session(cf_store *store, int method, const cf_record *record, int64_t epoch, int64_t retention)
{
    const cf_sessions     of = {.store = store, .most = 3, .retention_ms = retention};
    const cf_session_args args = {.size = sizeof args, .epoch = epoch};
    const cf_call         call = {.timeout_ms = PATIENCE};
    cf_op                *op;
    cf_sessions_call(&of, method, record, &args, &call, &op);
    return op;
}

static came sessions(cf_store *store, int method, const cf_record *record, int64_t epoch)
{
    cf_op *op = begin_session(store, method, record, epoch, 60000);
    cf_op_wait(op);
    return take(op);
}

static cf_record user_of(const char *email)
{
    cf_record user = {.kind = CF_USER};
    cf_record_text(&user, CF_USER_EMAIL, cf_text(email));
    return user;
}

static cf_record account_of(const char *name, const char *user_id)
{
    cf_record account = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("github"));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text(name));
    if (user_id) cf_record_text(&account, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user_id));
    return account;
}

static cf_record session_of(const char *user_id, const char *hash, int64_t now_us)
{
    cf_record session = {.kind = CF_SESSION};
    cf_record_text(&session, CF_SESSION_USER_ID, cf_text(user_id));
    cf_record_text(&session, CF_SESSION_TOKEN_HASH, cf_text(hash));
    cf_record_number(&session, CF_SESSION_CREATED_AT, now_us);
    cf_record_number(&session, CF_SESSION_UPDATED_AT, now_us);
    cf_record_number(&session, CF_SESSION_EXPIRES_AT, now_us + 60000000);
    return session;
}

static cf_record by(int kind, int field, const char *text)
{
    cf_record record = {.kind = kind};
    cf_record_text(&record, field, cf_text(text));
    return record;
}

static came of_session(cf_store *store, int method, int field, const char *text)
{
    cf_record record = by(CF_SESSION, field, text);
    if (method == CF_SESSION_REVOKE || method == CF_SESSION_REVOKE_ALL) cf_record_number(&record, CF_SESSION_REVOKED_AT, wall_ms() * 1000);
    return sessions(store, method, &record, -1);
}

static came of_user(cf_store *store, int method, int field, const char *text)
{
    cf_record record = by(CF_USER, field, text);
    return accounts(store, method, &record, NULL);
}

static came create_user(cf_store *store, const char *email)
{
    cf_record user = user_of(email);
    return accounts(store, CF_CREATE_USER, &user, NULL);
}

static came create_session(cf_store *store, const char *user_id, const char *hash)
{
    cf_record session = session_of(user_id, hash, wall_ms() * 1000);
    return sessions(store, CF_SESSION_CREATE, &session, -1);
}

#define assert_came(came_, status_)                                                            \
    do {                                                                                       \
        came assert_came_ = (came_);                                                           \
        if (assert_came_.status != (status_)) fail_msg("%s: %s", cf_status_name(assert_came_.status), assert_came_.text); \
    } while (0)

/* -------------------------------------------------------------------------------------------------------------- tables -- */

static const char *const tables =
    "entry|CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value BLOB NOT NULL) STRICT, WITHOUT ROWID\n"
    "session|CREATE TABLE session(prefix TEXT NOT NULL, record_expiry INTEGER, id TEXT NOT NULL, user_id TEXT NOT NULL, token_hash TEXT NOT NULL, created_at INTEGER NOT NULL, "
    "updated_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, last_active_at INTEGER, revoked_at INTEGER, client_id TEXT, client_name TEXT, user_agent TEXT, ip TEXT, epoch "
    "INTEGER NOT NULL, PRIMARY KEY(prefix, id)) STRICT\n"
    "session_epoch|CREATE TABLE session_epoch(prefix TEXT NOT NULL, user_id TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY(prefix, user_id)) STRICT, WITHOUT ROWID\n"
    "session_expiry|CREATE INDEX session_expiry ON session(record_expiry) WHERE record_expiry IS NOT NULL\n"
    "session_listing|CREATE INDEX session_listing ON session(prefix, user_id)\n"
    "session_unique|CREATE UNIQUE INDEX session_unique ON session(prefix, token_hash)\n"
    "social_account|CREATE TABLE social_account(prefix TEXT NOT NULL, record_expiry INTEGER, id TEXT NOT NULL, user_id TEXT NOT NULL, provider TEXT NOT NULL, provider_user_id TEXT "
    "NOT NULL, provider_email TEXT, provider_email_verified INTEGER, is_login_method INTEGER NOT NULL, access_token TEXT, refresh_token TEXT, access_token_expires_at INTEGER, "
    "refresh_token_expires_at INTEGER, scope TEXT, user_info TEXT, extra_fields TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY(prefix, id)) STRICT\n"
    "social_account_expiry|CREATE INDEX social_account_expiry ON social_account(record_expiry) WHERE record_expiry IS NOT NULL\n"
    "social_account_listing|CREATE INDEX social_account_listing ON social_account(prefix, user_id)\n"
    "social_account_unique|CREATE UNIQUE INDEX social_account_unique ON social_account(prefix, provider, provider_user_id)\n"
    "user|CREATE TABLE user(prefix TEXT NOT NULL, record_expiry INTEGER, id TEXT NOT NULL, email TEXT, email_key TEXT, email_verified INTEGER NOT NULL, hashed_password TEXT, "
    "user_info TEXT, extra_fields TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY(prefix, id)) STRICT\n"
    "user_expiry|CREATE INDEX user_expiry ON user(record_expiry) WHERE record_expiry IS NOT NULL\n"
    "user_unique|CREATE UNIQUE INDEX user_unique ON user(prefix, email_key)";

#define SCHEMA "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"

static void what_stands_in_the_tables(void **state)
{
    (void)state;
    const char     *path = in_folder("a.db");
    char            url[PATH_ROOM], wanted[512];
    cf_store       *store;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
    snprintf(url, sizeof url, "sqlite:%s", path);
    assert_ok(cf_open(loop, cf_text(url), &options, &store, NULL));
    assert_string_equal(peer(path, SCHEMA), tables);
    came      user = create_user(store, " Ann@Example.org");
    cf_record account = account_of("1", user.id), session = session_of(user.id, "h", 1700000000000000);
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text("token"));
    cf_record_number(&account, CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD, 1);
    assert_came(user, CF_OK);
    assert_came(accounts(store, CF_CREATE_SOCIAL_ACCOUNT, &account, NULL), CF_OK);
    assert_came(of_session(store, CF_SESSION_REVOKE_ALL, CF_SESSION_USER_ID, user.id), CF_OK);
    assert_came(sessions(store, CF_SESSION_CREATE, &session, -1), CF_OK);
    snprintf(wanted, sizeof wanted, "p:|NULL|%s| Ann@Example.org|ann@example.org|0|NULL", user.id);
    assert_string_equal(peer(path, "SELECT prefix, record_expiry, id, email, email_key, email_verified, hashed_password FROM user"), wanted);
    snprintf(wanted, sizeof wanted, "%s|github|1|NULL|1|token", user.id);
    assert_string_equal(peer(path, "SELECT user_id, provider, provider_user_id, provider_email_verified, is_login_method, access_token FROM social_account"), wanted);
    snprintf(wanted, sizeof wanted, "p:|%s|h|1700000060000000|NULL|1|1", user.id);
    assert_string_equal(peer(path, "SELECT prefix, user_id, token_hash, expires_at, revoked_at, epoch, record_expiry > 1700000060000 FROM session"), wanted);
    snprintf(wanted, sizeof wanted, "p:|%s|1", user.id);
    assert_string_equal(peer(path, "SELECT * FROM session_epoch"), wanted);
    /* Another prefix is another world. */
    cf_store *other = open_file(loop, path, "");
    assert_false(of_user(other, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "ann@example.org").hit);
    assert_came(create_user(other, "ann@example.org"), CF_OK);
    assert_true(of_user(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "ANN@example.org").hit);
    /* Keys and records do not see each other. */
    assert_int_equal(ask_set(store, "session", "v").status, CF_OK);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR)).number, 1);
    assert_true(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, user.id).hit);
}

static void with_a_user_goes_all(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    came        user = create_user(store, "a@b.c"), other = create_user(store, "d@e.f");
    char        name[16];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "%d", i);
        cf_record account = account_of(name, i % 2 ? user.id : other.id);
        assert_came(accounts(store, CF_CREATE_SOCIAL_ACCOUNT, &account, NULL), CF_OK);
        assert_came(create_session(store, i % 2 ? user.id : other.id, name), CF_OK);
    }
    assert_true(of_user(store, CF_DELETE_USER, CF_USER_ID, user.id).hit);
    assert_false(of_user(store, CF_DELETE_USER, CF_USER_ID, user.id).hit);
    assert_string_equal(peer(path, "SELECT (SELECT count(*) FROM user), (SELECT count(*) FROM social_account), (SELECT count(*) FROM session)"), "1|3|3");
    assert_int_equal(of_session(store, CF_SESSION_READ_EPOCH, CF_SESSION_USER_ID, user.id).number, 1);
    assert_int_equal(of_session(store, CF_SESSION_READ_EPOCH, CF_SESSION_USER_ID, other.id).number, 0);
    cf_record late = session_of(user.id, "late", wall_ms() * 1000), orphan = account_of("9", user.id);
    assert_came(sessions(store, CF_SESSION_CREATE, &late, 0), CF_ECHANGED);
    assert_came(accounts(store, CF_CREATE_SOCIAL_ACCOUNT, &orphan, NULL), CF_EMISSING);
    assert_came(create_user(store, "a@b.c"), CF_OK); /* the address is free again */
}

/* All in one transaction: those that are refused leave nothing behind, and take nobody with them. */
static void refusals_in_a_group(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    came        first = create_user(store, "a@b.c");
    assert_came(create_session(store, first.id, "h"), CF_OK);
    int64_t   commits = stat_of(store, "commits");
    cf_record again = user_of("a@b.c"), fresh = user_of("d@e.f"), linked = account_of("1", first.id), nobodys = account_of("2", "nobody"), user = user_of("a@b.c"),
              session = session_of(first.id, "h", 1), changed = session_of(first.id, "i", 1), account = account_of("3", NULL);
    cf_op *ops[] = {
        begin_account(store, CF_CREATE_USER, &again, NULL),
        begin_account(store, CF_CREATE_USER, &fresh, NULL),
        begin_account(store, CF_CREATE_USER, &fresh, NULL), /* sees the one before */
        begin_account(store, CF_CREATE_SOCIAL_ACCOUNT, &linked, NULL),
        begin_account(store, CF_CREATE_SOCIAL_ACCOUNT, &nobodys, NULL),
        begin_account(store, CF_FIND_OR_CREATE, &account, &user),
        begin_session(store, CF_SESSION_CREATE, &session, -1, 0),
        begin_session(store, CF_SESSION_CREATE, &changed, 7, 0),
    };
    enum { COUNT = sizeof ops / sizeof *ops };
    const int status[COUNT] = {CF_EEXISTS, CF_OK, CF_EEXISTS, CF_OK, CF_EMISSING, CF_EEXISTS, CF_EEXISTS, CF_ECHANGED};
    came      out[COUNT];
    for (int i = 0; i < COUNT; i++) {
        cf_op_wait(ops[i]);
        out[i] = take(ops[i]);
        assert_came(out[i], status[i]);
        if (status[i] == CF_OK || status[i] == CF_EEXISTS) assert_int_equal(out[i].count, 1);
        if (status[i] != CF_OK) assert_int_equal(out[i].outcome, CF_NOT_APPLIED);
    }
    assert_string_equal(out[0].id, first.id);
    assert_string_equal(out[2].id, out[1].id);
    assert_string_equal(out[5].id, first.id);
    assert_string_equal(out[6].user_id, first.id);
    assert_true(stat_of(store, "commits") - commits <= 3); /* one, and the second step of find or create */
    assert_string_equal(peer(path, "SELECT (SELECT count(*) FROM user), (SELECT count(*) FROM social_account), (SELECT count(*) FROM session)"), "2|1|1");
    assert_true(peer_sound(path));
}

/* -------------------------------------------------------------------------------------------------------------- expiry -- */

static void what_has_expired(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_stage   *stage = cf_stage_new();
    cf_loop_free(loop);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_loop_set_blocking(loop, blocking);
    cf_store *store = open_file(loop, path, "");
    int64_t   now = cf_stage_wall_ms(stage) * 1000;
    char      id[CF_ID_LEN + 1] = "", hash[16], user[16];
    enum { SESSIONS = 60 };
    for (int i = 0; i < SESSIONS; i++) { /* each third lives longer */
        snprintf(hash, sizeof hash, "h%d", i);
        snprintf(user, sizeof user, "u%d", i);
        cf_record session = session_of(user, hash, now);
        if (i % 3 == 0) cf_record_number(&session, CF_SESSION_EXPIRES_AT, now + INT64_C(900000000));
        cf_op *op = begin_session(store, CF_SESSION_CREATE, &session, -1, 40000);
        cf_op_wait(op);
        came made = take(op);
        assert_came(made, CF_OK);
        if (i == 1) strcpy(id, made.id);
    }
    cf_stage_advance(stage, 99999); /* the session ends after a minute, and is kept for forty seconds */
    assert_true(of_session(store, CF_SESSION_GET_ANY, CF_SESSION_ID, id).hit);
    cf_stage_advance(stage, 1);
    assert_false(of_session(store, CF_SESSION_GET_ANY, CF_SESSION_ID, id).hit);
    assert_int_equal(of_session(store, CF_SESSION_LIST, CF_SESSION_USER_ID, "u1").count, 0);
    assert_false(of_session(store, CF_SESSION_REVOKE, CF_SESSION_ID, id).hit);
    assert_int_equal(of_session(store, CF_SESSION_REVOKE_ALL, CF_SESSION_USER_ID, "u1").number, 0);
    assert_string_equal(peer(path, "SELECT count(*) > 40 FROM session"), "1"); /* absent, and not yet removed */
    cf_record again = session_of("u58", "h58", now + 100000000);
    assert_came(sessions(store, CF_SESSION_CREATE, &again, -1), CF_OK); /* its token hash gives way */
    for (int i = 0; i < 30; i++) assert_int_equal(ask_set(store, "k", "v").status, CF_OK);
    assert_string_equal(peer(path, "SELECT count(*) FROM session"), "21");
    assert_true(stat_of(store, "swept") >= 30);
    cf_loop_free(loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
    assert_true(peer_sound(path));
    loop = new_loop(blocking);
}

/* -------------------------------------------------------------------------------------------------------------- damage -- */

static void corrupt(came a)
{
    assert_came(a, CF_ECORRUPT);
    assert_null(strstr(a.text, "ann"));
    assert_null(strstr(a.text, "secret"));
    assert_int_equal(a.count, 0);
}

static void damage(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    came        user = create_user(store, "ann@example.org"), healthy = create_user(store, "bob@example.org");
    cf_record   update = by(CF_USER, CF_USER_ID, user.id);
    cf_record_number(&update, CF_USER_EMAIL_VERIFIED, 1);
    /* What SQLite's types do not see. */
    static const char *const odd[] = {"UPDATE user SET created_at = -5 WHERE email_key = 'ann@example.org'", "UPDATE user SET created_at = 1, email_verified = 7 WHERE email_key = 'ann@example.org'",
                                      "UPDATE user SET email_verified = 0, user_info = CAST(X'ff73656372657400' AS TEXT) WHERE email_key = 'ann@example.org'"};
    for (int i = 0; i < 3; i++) {
        assert_string_equal(peer(path, odd[i]), "");
        corrupt(of_user(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "ann@example.org"));
        corrupt(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, user.id));
        corrupt(create_user(store, "ann@example.org"));
        assert_true(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, healthy.id).hit);
    }
    /* A table with other types, or none. */
    assert_string_equal(peer(path, "ALTER TABLE user RENAME TO sound; CREATE TABLE user AS SELECT * FROM sound; UPDATE user SET user_info = NULL, created_at = 'secret' WHERE email_key LIKE 'ann%'"), "");
    corrupt(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, user.id));
    corrupt(accounts(store, CF_UPDATE_USER, &update, NULL));
    assert_true(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, healthy.id).hit);
    assert_string_equal(peer(path, "UPDATE user SET created_at = 1, email_verified = NULL WHERE email_key LIKE 'ann%'"), "");
    corrupt(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, user.id));
    assert_string_equal(peer(path, "DROP TABLE user"), "");
    corrupt(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, healthy.id));
    corrupt(create_user(store, "new@example.org"));
    assert_int_equal(ask_set(store, "k", "v").status, CF_OK); /* keys go on */
    assert_string_equal(peer(path, "UPDATE sound SET created_at = 1, email_verified = 0, user_info = NULL; ALTER TABLE sound RENAME TO user"), "");
    assert_true(of_user(store, CF_FIND_USER_BY_ID, CF_USER_ID, user.id).hit);
    /* A constraint that is none of ours spoils one job, not its group. */
    assert_string_equal(peer(path, "CREATE TRIGGER no AFTER INSERT ON social_account BEGIN SELECT RAISE(ABORT, 'secret'); END"), "");
    cf_record account = account_of("1", NULL), with = user_of("with@example.org"), alone = user_of("alone@example.org");
    cf_op    *ops[] = {begin_account(store, CF_FIND_OR_CREATE, &account, &with), begin_account(store, CF_CREATE_USER, &alone, NULL)};
    cf_op_wait(ops[0]);
    cf_op_wait(ops[1]);
    corrupt(take(ops[0]));
    assert_came(take(ops[1]), CF_OK);
    assert_false(of_user(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "with@example.org").hit); /* both or none */
    assert_true(of_user(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "alone@example.org").hit);
    assert_true(peer_sound(path));
}

/* ----------------------------------------------------------------------------------------------------------- version 1 -- */

#define VERSION_1                                                                                                                                    \
    "PRAGMA journal_mode=WAL; BEGIN; PRAGMA application_id=1131701875; PRAGMA user_version=1;"                                                       \
    "CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"                                  \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO entry SELECT 'k' || i, NULL, CAST('v' || i AS BLOB) FROM n; COMMIT"

static void look_at_migrated(const char *path)
{
    cf_loop  *own = new_loop(true);
    cf_store *store = open_file(own, path, "");
    assert_int_equal(ask_count(store).number, 500);
    assert_value(ask_get(store, "k77"), "v77");
    assert_came(create_user(store, "a@b.c"), CF_OK);
    assert_true(of_user(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, "a@b.c").hit);
    cf_loop_free(own);
    assert_string_equal(peer(path, "PRAGMA user_version"), "2");
    assert_string_equal(peer(path, SCHEMA), tables);
    assert_true(peer_sound(path));
}

static void a_file_of_version_1(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    assert_string_equal(peer(path, VERSION_1), "wal");
    /* Another one, of that version, is using it. */
    holder h = peer_hold(path, "BEGIN; SELECT count(*) FROM entry");
    cf_store_close(open_file(loop, path, ""), NULL);
    assert_string_equal(peer(path, "PRAGMA user_version"), "2");
    peer_let_go(&h);
    look_at_migrated(path);
}

static void a_file_of_version_1_that_is_locked(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store;
    cf_error    error;
    peer(path, VERSION_1);
    holder h = peer_hold(path, "BEGIN IMMEDIATE");
    assert_int_equal(try_open(loop, path, "", &store, &error), CF_EUNAVAILABLE);
    assert_int_equal(error.outcome, CF_NOT_APPLIED);
    peer_let_go(&h);
    assert_string_equal(peer(path, "PRAGMA user_version; SELECT count(*) FROM sqlite_schema WHERE sql IS NOT NULL"), "1\n1");
    look_at_migrated(path);
}

static void all_open_it_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 8, ROUNDS = 3 };
    for (int round = 0; round < ROUNDS; round++) {
        const char *path = in_folder("a.db");
        pid_t       children[PROCESSES];
        folder_empty();
        peer(path, VERSION_1);
        fflush(NULL);
        int gate[2];
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < PROCESSES; i++) {
            if ((children[i] = fork()) != 0) continue;
            char byte, email[16];
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0) _exit(3);
            cf_loop  *own = new_loop(i % 2);
            cf_store *store = open_file(own, path, "");
            snprintf(email, sizeof email, "%d@x.y", i);
            came made = create_user(store, email);
            _exit(made.status == CF_OK ? 0 : 1);
        }
        close(gate[0]);
        close(gate[1]); /* now */
        for (int i = 0; i < PROCESSES; i++) join_child(children[i]);
        assert_string_equal(peer(path, "SELECT count(*) FROM user"), "8");
        look_at_migrated(path);
    }
}

static void killed_while_it_is_migrated(void **state)
{
    (void)state;
    enum { ROUNDS = 16 };
    rng random = {seed + blocking};
    int olds = 0, news = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const char *path = in_folder("a.db");
        folder_empty();
        peer(path, VERSION_1);
        fflush(NULL);
        int   ends[2], status;
        char  byte;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            cf_loop *own = new_loop(true);
            if (write(ends[1], "x", 1) != 1) _exit(1);
            open_file(own, path, "");
            for (;;) pause();
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);
        struct timespec time = {0, (long)rng_below(&random, 12000000)};
        nanosleep(&time, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        close(ends[0]);
        close(ends[1]);
        const char *is = peer(path, "PRAGMA user_version; SELECT count(*) FROM sqlite_schema WHERE sql IS NOT NULL");
        if (strcmp(is, "1\n1") == 0) olds++;
        else if (strcmp(is, "2\n13") == 0) news++;
        else fail_msg("half a migration: %s", is);
        look_at_migrated(path);
    }
    print_message("%d were still of version 1, %d of version 2\n", olds, news);
}

/* --------------------------------------------------------------------------------------------------------------- races -- */

enum { THREADS = 6, SPOTS = 60 };

typedef struct race {
    const char       *path;
    bool              waits;
    pthread_barrier_t *start;
    int               made[2][SPOTS];
    char              told[2][SPOTS][CF_ID_LEN + 1];
} race;

static void *contend(void *given)
{
    race     *r = given;
    cf_loop  *own = new_loop(r->waits);
    cf_store *store = open_file(own, r->path, "?synchronous=normal");
    cf_op    *ops[2][SPOTS];
    pthread_barrier_wait(r->start);
    for (int i = 0; i < SPOTS; i++) {
        char email[32], other[32], name[16];
        snprintf(email, sizeof email, "%sann%d@x.y", r->waits ? " " : "", i);
        snprintf(other, sizeof other, "social%d@x.y", i);
        snprintf(name, sizeof name, "%d", i);
        cf_record user = user_of(email), with = user_of(other), account = account_of(name, NULL);
        ops[0][i] = begin_account(store, CF_CREATE_USER, &user, NULL);
        if (r->waits) cf_op_wait(ops[0][i]);
        ops[1][i] = begin_account(store, CF_FIND_OR_CREATE, &account, &with);
        if (r->waits) cf_op_wait(ops[1][i]);
    }
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < SPOTS; i++) {
            cf_op_wait(ops[which][i]);
            came it = take(ops[which][i]);
            bool right = which == 0 ? (it.status == CF_OK || it.status == CF_EEXISTS) && it.count == 1 : it.status == CF_OK && it.count == 2;
            if (!right) fprintf(stderr, "%s: %s\n", cf_status_name(it.status), it.text);
            r->made[which][i] = which == 0 ? it.status == CF_OK : it.number == 1;
            strcpy(r->told[which][i], right ? it.id : "wrong");
        }
    cf_loop_free(own);
    return NULL;
}

static void one_winner(void **state)
{
    (void)state;
    const char       *path = in_folder("a.db");
    cf_store         *store = open_file(loop, path, "?synchronous=normal");
    static race       races[THREADS];
    pthread_t         threads[THREADS];
    pthread_barrier_t start;
    memset(races, 0, sizeof races);
    pthread_barrier_init(&start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        races[i] = (race){.path = path, .waits = i % 2, .start = &start};
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &races[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    for (int which = 0; which < 2; which++)
        for (int at = 0; at < SPOTS; at++) {
            int made = 0;
            for (int i = 0; i < THREADS; i++) {
                made += races[i].made[which][at];
                assert_string_equal(races[i].told[which][at], races[0].told[which][at]); /* losers are told who has won */
            }
            assert_int_equal(made, 1);
        }
    assert_string_equal(peer(path, "SELECT (SELECT count(*) FROM user), (SELECT count(*) FROM social_account)"), "120|60");
    assert_int_equal(cf_store_close(store, NULL), CF_OK);
    assert_true(peer_sound(path));
}

/* --------------------------------------------------------------------------------------------------------------- kills -- */

static void acknowledge(cf_op *op, int number, int pipe)
{
    if (cf_op_wait(op) != CF_OK) _exit(5);
    cf_op_free(op);
    if (write(pipe, &number, sizeof number) != sizeof number) _exit(4);
}

static _Noreturn void insert_for_ever(const char *path, int pipe, int first, bool waits)
{
    cf_loop  *own = new_loop(waits);
    cf_store *store = open_file(own, path, "");
    enum { TICK = 16 };
    for (int at = first;; at += TICK) {
        cf_op *ops[TICK];
        for (int i = 0; i < TICK; i++) {
            char email[32], name[16];
            snprintf(email, sizeof email, "%d@x.y", at + i);
            snprintf(name, sizeof name, "%d", at + i);
            cf_record user = user_of(email), account = account_of(name, NULL);
            ops[i] = begin_account(store, CF_FIND_OR_CREATE, &account, &user);
            if (waits) acknowledge(ops[i], at + i, pipe);
        }
        for (int i = 0; i < TICK && !waits; i++) acknowledge(ops[i], at + i, pipe);
    }
}

static void killed_while_inserting(void **state)
{
    (void)state;
    enum { MOST = 1 << 20 };
    static bool told[MOST];
    const char *path = in_folder("a.db");
    int         kills = (int)env_number("CF_KILLS", env_number("CF_LONG", 0) ? 300 : 15), next = 0;
    long        count = 0;
    rng         random = {seed + blocking};
    memset(told, 0, sizeof told);
    for (int round = 0; round < kills; round++) {
        int ends[2], status, number;
        assert_int_equal(pipe(ends), 0);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            insert_for_ever(path, ends[1], next, blocking);
        }
        close(ends[1]);
        struct timespec time = {0, (long)rng_below(&random, 80000000)};
        nanosleep(&time, NULL);
        kill(child, SIGKILL);
        while (read(ends[0], &number, sizeof number) == sizeof number && number < MOST) {
            told[number] = true;
            count++;
            if (number >= next) next = number + 1;
        }
        close(ends[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_string_equal(peer(path, "SELECT count(*) FROM social_account s LEFT JOIN user u USING(prefix) WHERE s.user_id = u.id AND u.email_key = s.provider_user_id || '@x.y' "
                                       "UNION SELECT count(*) FROM social_account UNION SELECT count(*) FROM user"),
                            peer(path, "SELECT count(*) FROM user")); /* three times the same number: no halves */
        next += 16;
    }
    assert_true(count > 0);
    cf_store *store = open_file(loop, path, "");
    for (int i = 0; i < next && i < MOST; i++) {
        char name[16];
        if (!told[i]) continue;
        snprintf(name, sizeof name, "%d", i);
        cf_record account = account_of(name, NULL);
        if (!accounts(store, CF_FIND_SOCIAL_ACCOUNT, &account, NULL).hit) fail_msg("account %d was acknowledged and is lost", i);
    }
    print_message("%d kills, %ld acknowledged, 0 lost, no halves\n", kills, count);
    assert_int_equal(cf_store_close(store, NULL), CF_OK);
    assert_true(peer_sound(path));
}

/* -------------------------------------------------------------------------------------------------- who is waited for -- */

/* SQLite's own way to the system, but that a sync can take long, and that naps are counted. */
static sqlite3_vfs              *unix_vfs, slow_vfs;
static const sqlite3_io_methods *unix_methods;
static sqlite3_io_methods        slow_methods;
static atomic_int                stall_ms, naps; /* stall_ms -1: it stalls */

static int slow_sync(sqlite3_file *file, int flags)
{
    int ms = atomic_exchange(&stall_ms, 0);
    if (ms > 0) {
        atomic_store(&stall_ms, -1);
        nap(ms);
        atomic_store(&stall_ms, 0);
    }
    return unix_methods->xSync(file, flags);
}

static int slow_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    int rc = unix_vfs->xOpen(unix_vfs, name, file, flags, out);
    if (rc != SQLITE_OK || !(flags & SQLITE_OPEN_WAL)) return rc;
    unix_methods = file->pMethods;
    slow_methods = *unix_methods;
    slow_methods.xSync = slow_sync;
    file->pMethods = &slow_methods;
    return rc;
}

static int slow_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    atomic_fetch_add(&naps, 1);
    return unix_vfs->xSleep(unix_vfs, us);
}

static void *store_slowly(void *path)
{
    cf_loop  *own = new_loop(true);
    cf_store *store = open_file(own, path, "");
    atomic_store(&stall_ms, 1500);
    assert_came(create_user(store, "a@b.c"), CF_OK);
    cf_loop_free(own);
    return NULL;
}

/* A commit that once took very long says nothing of the next ones: nobody waits a part of it for somebody who does not come back. */
static void a_disk_that_stalls_once(void **state)
{
    (void)state;
    pthread_t thread;
    unix_vfs = sqlite3_vfs_find(NULL);
    slow_vfs = *unix_vfs;
    slow_vfs.zName = "slow";
    slow_vfs.xOpen = slow_open;
    slow_vfs.xSleep = slow_sleep;
    sqlite3_vfs_register(&slow_vfs, 1);
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    assert_came(create_user(store, "b@b.c"), CF_OK);
    assert_int_equal(pthread_create(&thread, NULL, store_slowly, (void *)path), 0);
    while (atomic_load(&stall_ms) != -1) nap(1);
    assert_came(create_user(store, "c@b.c"), CF_OK);
    pthread_join(thread, NULL);
    cf_store_close(store, NULL);
    sqlite3_vfs_unregister(&slow_vfs);
    assert_in_range(atomic_load(&naps), 0, 5000 / 25); /* of 25 us at least: five milliseconds are the most */
}

/* ---------------------------------------------------------------------------------------------------------------- main -- */

#define BOTH(test) {#test, test, up, down, NULL}, {#test ", waiting", test, up, down, &blocking}

int main(void)
{
    hang_guard(200);
    seed = seed_of_run();
    if (exists("/dev/shm")) setenv("TMPDIR", "/dev/shm", 1); /* a process that dies loses nothing that it has written: real syncs would only take their time */
    const struct CMUnitTest tests[] = {
        BOTH(what_stands_in_the_tables),
        BOTH(with_a_user_goes_all),
        {"refusals_in_a_group", refusals_in_a_group, up, down, NULL}, /* of a caller who waits each call is one of its own */
        BOTH(what_has_expired),
        BOTH(damage),
        BOTH(a_file_of_version_1),
        BOTH(a_file_of_version_1_that_is_locked),
        BOTH(all_open_it_at_once),
        BOTH(killed_while_it_is_migrated),
        BOTH(one_winner),
        BOTH(killed_while_inserting),
        {"a_disk_that_stalls_once", a_disk_that_stalls_once, up, down, &blocking},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
