/* The SQLite backend: what it opens and refuses, what stands in the file, and what happens when others lock, remove or replace it. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every test with an event loop (the worker leads) and with a caller who waits (it leads itself). */
static cf_loop *loop;
static bool     blocking;

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

static void reopen_loop(void)
{
    cf_loop_free(loop);
    loop = new_loop(blocking);
}

static void refused(const char *path, const char *options, int status, const char *says)
{
    cf_store *store;
    cf_error  error;
    assert_int_equal(try_open(loop, path, options, &store, &error), status);
    assert_null(store);
    assert_int_equal(error.outcome, CF_NOT_APPLIED);
    if (!strstr(error.text, says)) fail_msg("the sentence is: %s", error.text);
    assert_null(strstr(error.text, "cf-sqlite")); /* a path may be a secret */
}

static void write_file(const char *path, const char *bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(bytes, file);
    fclose(file);
}

static long size_of(const char *path)
{
    struct stat is;
    return stat(path, &is) == 0 ? (long)is.st_size : -1;
}

static cf_op *begin(cf_store *store, const cf_request *request)
{
    cf_op *op;
    assert_int_equal(cf_submit(store, request, &op), CF_PENDING);
    return op;
}

/* ------------------------------------------------------------------------------------------------------------ opening -- */

static void what_is_not_ours_is_refused(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    write_file(path, "this is a text, and quite long enough to be taken for a header of a database, which has one hundred bytes.....\n");
    refused(path, "", CF_EINVAL, "not an SQLite database");
    assert_int_equal(unlink(path), 0);
    peer(path, "CREATE TABLE theirs(a)");
    refused(path, "", CF_EINVAL, "another application");
    assert_string_equal(peer(path, "SELECT name FROM sqlite_schema; PRAGMA journal_mode; PRAGMA application_id"), "theirs\ndelete\n0");
    assert_int_equal(unlink(path), 0);
    peer(path, "PRAGMA application_id=1234");
    refused(path, "", CF_EINVAL, "another application");
    assert_int_equal(unlink(path), 0);
    cf_store_close(open_file(loop, path, ""), NULL);
    peer(path, "PRAGMA user_version=3");
    refused(path, "", CF_EINVAL, "newer version");
    assert_false(exists(in_folder("b.db")));
}

static void places_that_are_no_files(void **state)
{
    (void)state;
    refused(in_folder("none/a.db"), "", CF_EINVAL, "folder of the database does not exist");
    refused(folder(), "", CF_EINVAL, "not a regular file");
    refused("/dev/null", "", CF_EINVAL, "not a regular file");
    write_file(in_folder("text"), "");
    refused(in_folder("text/a.db"), "", CF_EINVAL, "no folder");
    assert_int_equal(symlink(in_folder("real.db"), in_folder("link.db")), 0);
    refused(in_folder("link.db"), "", CF_EINVAL, "not a regular file");
    assert_false(exists(in_folder("real.db")));
    cf_store_close(open_file(loop, in_folder("real.db"), ""), NULL);
    refused(in_folder("link.db"), "", CF_EINVAL, "not a regular file");
}

static void addresses(void **state)
{
    (void)state;
    refused("//host/a.db", "", CF_EINVAL, "without //");
    refused("///a.db", "", CF_EINVAL, "without //");
    refused("", "", CF_EINVAL, "names no file");
    refused(":other:", "", CF_EINVAL, "sqlite::memory:");
    refused(in_folder("a.db"), "?synchronous=off", CF_EINVAL, "full or normal");
    refused(in_folder("a.db"), "?mode=ro", CF_EINVAL, "no such option");
    refused(in_folder("a.db"), "?single_process=1", CF_EINVAL, "on or off");
    refused(in_folder("a.db"), "?max_pending=0", CF_EINVAL, "numbers from 1");
    assert_false(exists(in_folder("a.db")));
    /* A name is a name, whatever it looks like. */
    static const struct {
        const char *url, *name;
    } odd[] = {{"what%3F.db", "what?.db"}, {"h%23.db", "h#.db"}, {"p%25.db", "p%.db"}, {"s%20p.db", "s p.db"}, {"q'.db", "q'.db"}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        cf_store *store = open_file(loop, in_folder(odd[i].url), "");
        assert_true(ask_set(store, "a", odd[i].name).hit);
        cf_store_close(store, NULL);
        assert_string_equal(peer(in_folder(odd[i].name), "SELECT key FROM entry"), "a");
    }
}

static void a_relative_path_stays_where_it_was(void **state)
{
    (void)state;
    char  *before = getcwd(NULL, 0);
    assert_int_equal(chdir(folder()), 0);
    /* The second would be a URI for SQLite, which opens another file then. */
    static const char *const names[] = {"rel.db", "file:uri.db", "file%3Auri2.db%3Fmode=memory"};
    static const char *const there[] = {"rel.db", "file:uri.db", "file:uri2.db?mode=memory"};
    for (size_t i = 0; i < 3; i++) {
        cf_store *store = open_file(loop, names[i], "");
        assert_int_equal(chdir("/"), 0);
        assert_true(ask_set(store, "a", "1").hit);
        assert_value(ask_get(store, "a"), "1"); /* a second connection, of one who waits */
        assert_int_equal(chdir(folder()), 0);
        cf_store_close(store, NULL);
        assert_true(size_of(in_folder(there[i])) > 0);
        assert_true(exists(in_folder(there[i])));
        store = open_file(loop, in_folder(names[i]), "");
        assert_value(ask_get(store, "a"), "1");
        cf_store_close(store, NULL);
    }
    assert_false(exists(in_folder("uri.db")) || exists("/rel.db") || exists("/file:uri.db"));
    assert_int_equal(chdir(before), 0);
    free(before);
}

static void folders_without_rights(void **state)
{
    (void)state;
    if (getuid() != 0) {
        print_message("SKIPPED: only root can become somebody without rights\n");
        return;
    }
    cf_store_close(open_file(loop, in_folder("mine.db"), ""), NULL);
    assert_int_equal(chmod(folder(), 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        hang_guard(30);
        if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
        loop = new_loop(blocking);
        refused(in_folder("new.db"), "", CF_EUNAVAILABLE, "may not");
        refused(in_folder("mine.db"), "", CF_EUNAVAILABLE, "");
        _exit(0);
    }
    join_child(child);
    assert_false(exists(in_folder("new.db")));
    assert_int_equal(chmod(folder(), 0700), 0);
}

static void one_file_of_two_stores(void **state)
{
    (void)state;
    const char     *path = in_folder("a.db");
    char            url[PATH_ROOM];
    cf_store       *one, *two;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("one:")};
    snprintf(url, sizeof url, "sqlite:%s", path);
    assert_ok(cf_open(loop, cf_text(url), &options, &one, NULL));
    options.prefix = cf_text("two:");
    assert_ok(cf_open(loop, cf_text(url), &options, &two, NULL));
    refused(path, "?synchronous=normal", CF_EINVAL, "other options");
    refused(path, "?single_process=on", CF_EINVAL, "other options");
    assert_true(ask_set(one, "a", "1").hit);
    assert_miss(ask_get(two, "a"));
    assert_true(ask_set(two, "a", "2").hit);
    assert_value(ask_get(one, "a"), "1");
    assert_int_equal(ask_count(one).number, 1);
    assert_int_equal(ask(one, CF_REQUEST(CF_OP_CLEAR)).number, 1);
    cf_store_close(one, NULL); /* the file stays open for the other */
    assert_value(ask_get(two, "a"), "2");
    assert_string_equal(peer(path, "SELECT key FROM entry"), "two:a");
    cf_store_close(two, NULL);
    cf_store_close(open_file(loop, path, "?synchronous=normal"), NULL); /* nobody has it now */
}

static void processes_that_make_one_file_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 8, ROUNDS = 8 };
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[PROCESSES];
        int   go[2];
        char  name[32];
        snprintf(name, sizeof name, "new%d.db", round);
        assert_int_equal(pipe(go), 0);
        for (int i = 0; i < PROCESSES; i++) {
            children[i] = fork();
            if (children[i] != 0) continue;
            hang_guard(60);
            char byte, key[16];
            close(go[1]);
            if (read(go[0], &byte, 1) < 0) _exit(2); /* until all are there */
            cf_loop  *mine = new_loop(blocking);
            cf_store *store = open_file(mine, in_folder(name), "");
            snprintf(key, sizeof key, "k%d", i);
            int rc = ask_set(store, key, "1").status;
            cf_loop_free(mine);
            _exit(rc == CF_OK ? 0 : 3);
        }
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < PROCESSES; i++) join_child(children[i]);
        assert_string_equal(peer(in_folder(name), "SELECT count(*) FROM entry"), "8");
    }
}

/* ------------------------------------------------------------------------------------------------------------- format -- */

static int mode_of(const char *path)
{
    struct stat is;
    assert_int_equal(stat(path, &is), 0);
    return (int)is.st_mode & 07777;
}

static void what_stands_in_the_file(void **state)
{
    (void)state;
    const char     *path = in_folder("a.db");
    char            url[PATH_ROOM];
    cf_store       *store;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:")};
    snprintf(url, sizeof url, "sqlite:%s", path);
    cf_stage *stage = cf_stage_new();
    cf_loop_free(loop);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_loop_set_blocking(loop, blocking);
    mode_t before = umask(0);
    assert_ok(cf_open(loop, cf_text(url), &options, &store, NULL));
    assert_int_equal(ask_ttl(store, "k", "\xc3\xa9", 1500).status, CF_OK);
    umask(before);
    int64_t now = cf_stage_wall_ms(stage);
    assert_int_equal(ask_set(store, "forever", "v").status, CF_OK);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 41)).number, 41);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("till"), .value = cf_text("x"), .flags = CF_EXPIRES_AT,
                                           .expires_at_ms = now + 100000)).status, CF_OK);
    char wanted[256];
    snprintf(wanted, sizeof wanted, "p:forever|NULL|76\np:k|%lld|C3A9\np:n|NULL|3431\np:till|%lld|78", (long long)now + 1500, (long long)now + 100000);
    assert_string_equal(peer(path, "SELECT key, expiry, hex(value) FROM entry"), wanted);
    assert_string_equal(peer(path, "PRAGMA application_id; PRAGMA user_version; PRAGMA journal_mode"), "1131701875\n2\nwal");
    assert_int_equal(0x43746673, 1131701875);
    assert_string_equal(peer(path, "SELECT name, sql FROM sqlite_schema WHERE name = 'entry'"),
                        "entry|CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value BLOB NOT NULL) STRICT, WITHOUT ROWID");
    static const char *const files[] = {"a.db", "a.db-wal", "a.db-shm", "a.db-reserve"};
    for (int i = 0; i < 4; i++) assert_int_equal(mode_of(in_folder(files[i])), 0600);
    assert_int_equal(size_of(in_folder("a.db-reserve")), 1024 * 1024);
    cf_stage_advance(stage, 1499);
    assert_value(ask_get(store, "k"), "\xc3\xa9");
    cf_stage_advance(stage, 1);
    assert_miss(ask_get(store, "k"));
    cf_loop_free(loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
    assert_false(exists(in_folder("a.db-wal"))); /* the last one tidies up */
    loop = new_loop(blocking);
}

static void values_outlive_the_store(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_stage   *stage = cf_stage_new();
    cf_loop_free(loop);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_store *store = open_file(loop, path, "");
    ask_set(store, "forever", "1");
    ask_ttl(store, "short", "2", 1000);
    ask_ttl(store, "long", "3", 2000);
    cf_loop_free(loop);
    cf_stage_advance(stage, 1000); /* while nobody had it open */
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_loop_set_blocking(loop, blocking);
    store = open_file(loop, path, "");
    assert_value(ask_get(store, "forever"), "1");
    assert_miss(ask_get(store, "short"));
    assert_value(ask_get(store, "long"), "3");
    assert_int_equal(ask_count(store).number, 2);
    assert_miss(ask_pop(store, "short"));
    cf_loop_free(loop);
    cf_stage_free(stage);
    loop = new_loop(blocking);
}

static void big_values_and_keys(void **state)
{
    (void)state;
    cf_store *store = open_file(loop, in_folder("a.db"), "");
    char     *big = malloc(CF_VALUE_MAX);
    assert_non_null(big);
    for (size_t i = 0; i < CF_VALUE_MAX; i++) big[i] = (char)(i * 7 + i / 4099);
    for (int i = 0; i < 3; i++) {
        cf_op *op;
        int    rc = cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("big"), .value = cf_bytes(big, CF_VALUE_MAX)), &op);
        assert_int_equal(rc == CF_PENDING ? cf_op_wait(op) : rc, CF_OK);
        cf_op_free(op);
        rc = cf_submit(store, CF_REQUEST(i == 2 ? CF_OP_POP : CF_OP_GET, .key = cf_text("big")), &op);
        assert_int_equal(rc == CF_PENDING ? cf_op_wait(op) : rc, CF_OK);
        assert_int_equal(cf_op_value(op).len, CF_VALUE_MAX);
        assert_memory_equal(cf_op_value(op).ptr, big, CF_VALUE_MAX);
        cf_op_free(op);
    }
    free(big);
    assert_int_equal(ask_count(store).number, 0);
    assert_true(ask_set(store, "none", "").hit);
    answer none = ask_get(store, "none");
    assert_true(none.hit && none.value_len == 0);
}

static void scans_with_the_longest_keys(void **state)
{
    (void)state;
    enum { KEYS = 25 };
    static char     prefix[CF_PREFIX_MAX + 1], key[CF_KEY_MAX + 1];
    char            url[PATH_ROOM];
    cf_store       *store, *other;
    snprintf(url, sizeof url, "sqlite:%s", in_folder("a.db"));
    for (int i = 0; i < CF_PREFIX_MAX; i += 4) memcpy(prefix + i, "\xf4\x8f\xbf\xbf", 4); /* the last letter there is */
    cf_open_options options = {.size = sizeof options, .prefix = cf_bytes(prefix, CF_PREFIX_MAX)};
    assert_ok(cf_open(loop, cf_text(url), &options, &store, NULL));
    options.prefix = cf_bytes(prefix, CF_PREFIX_MAX - 4);
    assert_ok(cf_open(loop, cf_text(url), &options, &other, NULL));
    ask_set(other, "not one of them", "1");
    memset(key, 'k', CF_KEY_MAX);
    for (int i = 0; i < KEYS; i++) {
        key[CF_KEY_MAX - 1] = (char)('a' + i);
        assert_int_equal(ask_set(store, key, "1").status, CF_OK);
    }
    for (size_t limit = 1; limit < KEYS + 2; limit += 6) {
        char     cursor[CF_CURSOR_MAX];
        size_t   len = 0;
        unsigned found = 0;
        int      count = 0, pages = 0;
        do {
            cf_op *op;
            int    rc = cf_submit(store, CF_REQUEST(CF_OP_SCAN, .key = cf_bytes(key, CF_KEY_MAX - 1), .cursor = cf_bytes(cursor, len), .limit = limit), &op);
            assert_int_equal(rc == CF_PENDING ? cf_op_wait(op) : rc, CF_OK);
            for (cf_slice got; cf_op_next_key(op, &got);) {
                assert_int_equal(got.len, CF_KEY_MAX);
                found |= 1u << (got.ptr[CF_KEY_MAX - 1] - 'a');
                count++;
            }
            len = cf_op_cursor(op).len;
            if (len) memcpy(cursor, cf_op_cursor(op).ptr, len);
            cf_op_free(op);
            assert_true(++pages <= KEYS + 1);
        } while (len);
        assert_int_equal(count, KEYS);
        assert_int_equal(found, (1u << KEYS) - 1);
    }
    answer odd = ask(store, CF_REQUEST(CF_OP_SCAN, .cursor = cf_text("x")));
    assert_int_equal(odd.status, CF_EINVAL);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR)).number, KEYS);
    assert_int_equal(ask_count(other).number, 1);
}

static void what_has_expired_is_removed(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_stage   *stage = cf_stage_new();
    cf_loop_free(loop);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_loop_set_blocking(loop, blocking);
    cf_store *store = open_file(loop, path, "");
    char      key[16];
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "k%03d", i);
        ask_ttl(store, key, "v", i % 3 ? 1000 : 100000);
    }
    cf_stage_advance(stage, 1000);
    assert_int_equal(ask_count(store).number, 100); /* also before they are removed */
    assert_string_equal(peer(path, "SELECT count(*) FROM entry"), "300");
    for (int i = 0; i < 130; i++) ask_set(store, "one more", "v");
    assert_string_equal(peer(path, "SELECT count(*) FROM entry"), "101");
    assert_int_equal(stat_of(store, "swept"), 200);
    assert_int_equal(ask_count(store).number, 101);
    cf_loop_free(loop);
    cf_stage_free(stage);
    loop = new_loop(blocking);
}

/* ------------------------------------------------------------------------------------------------------ groups, locks -- */

/* A trigger makes one of a group fail: the others must not suffer. */
static void one_that_fails_spoils_no_other(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    ask_set(store, "pop", "once");
    peer(path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO entry SELECT 'c:' || i, NULL, X'31' FROM n");
    assert_string_equal(peer(path, "CREATE TRIGGER t BEFORE INSERT ON entry WHEN new.key = 'bad' BEGIN SELECT raise(abort, 'no'); END"), "");
    cf_loop_set_blocking(loop, false);
    cf_op *incr = begin(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 7));
    cf_op *pop = begin(store, CF_REQUEST(CF_OP_POP, .key = cf_text("pop")));
    cf_op *clear = begin(store, CF_REQUEST(CF_OP_CLEAR, .key = cf_text("c:")));
    cf_op *bad = begin(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("bad"), .by = 5));
    cf_op *get = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("n")));
    cf_loop_set_blocking(loop, blocking);
    assert_int_equal(cf_op_wait(incr), CF_OK);
    assert_int_equal(cf_op_number(incr), 7);
    assert_int_equal(cf_op_wait(pop), CF_OK);
    assert_true(cf_op_hit(pop) && cf_op_value(pop).len == 4);
    assert_int_equal(cf_op_wait(clear), CF_OK);
    assert_int_equal(cf_op_number(clear), 1500);
    assert_int_equal(cf_op_wait(bad), CF_ECORRUPT);
    assert_int_equal(cf_op_error(bad)->outcome, CF_NOT_APPLIED);
    assert_int_equal(cf_op_wait(get), CF_OK);
    assert_memory_equal(cf_op_value(get).ptr, "7", 1);
    cf_op *all[] = {incr, pop, clear, bad, get};
    for (int i = 0; i < 5; i++) cf_op_free(all[i]);
    assert_string_equal(peer(path, "SELECT key, CAST(value AS TEXT) FROM entry"), "n|7");
}

static void a_lock_for_a_moment_is_waited_for(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    ask_set(store, "a", "1");
    holder  other = peer_hold(path, "BEGIN IMMEDIATE");
    int64_t until = wall_ms() + 60000;
    cf_loop_set_blocking(loop, false);
    cf_op *early = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    cf_op *set = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("2"), .flags = CF_EXPIRES_AT, .expires_at_ms = until));
    cf_op *late = begin(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a")));
    cf_loop_set_blocking(loop, blocking);
    /* What reads goes on, but not past a write of its own. */
    assert_int_equal(cf_op_wait(early), CF_OK);
    assert_memory_equal(cf_op_value(early).ptr, "1", 1);
    assert_int_equal(cf_op_wait_for(set, 50), CF_PENDING);
    assert_int_equal(cf_op_status(late), CF_PENDING);
    cf_loop  *elsewhere = new_loop(blocking);
    cf_store *reader = open_file(elsewhere, path, "");
    assert_value(ask_get(reader, "a"), "1");
    cf_loop_free(elsewhere);
    peer_let_go(&other);
    assert_int_equal(cf_op_wait(set), CF_OK);
    assert_int_equal(cf_op_wait(late), CF_OK);
    assert_memory_equal(cf_op_value(late).ptr, "2", 1);
    cf_op_free(early);
    cf_op_free(set);
    cf_op_free(late);
    /* An instant is an instant, however long somebody waited. */
    assert_int_equal(strtoll(peer(path, "SELECT expiry FROM entry"), NULL, 10), until);
    assert_true(stat_of(store, "waits") > 0);
}

static void a_lock_for_longer_than_the_deadline(void **state)
{
    (void)state;
    enum { CALLS = 60 };
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    cf_op      *ops[CALLS];
    char        key[16];
    ask_set(store, "pop", "1");
    holder other = peer_hold(path, "BEGIN IMMEDIATE");
    for (int i = 0; i < CALLS; i++) { /* deadlines at all moments of an attempt */
        snprintf(key, sizeof key, "k%d", i);
        ops[i] = begin(store, CF_REQUEST(i ? CF_OP_SET : CF_OP_POP, .key = cf_text(i ? key : "pop"), .value = cf_text(i ? "late" : ""),
                                         .timeout_ms = 100 + i * 3));
        cf_loop_flush(loop);
    }
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(cf_op_wait(ops[i]), CF_ETIMEOUT);
        if (cf_op_error(ops[i])->outcome != CF_NOT_APPLIED) fail_msg("call %d: %s", i, cf_outcome_name(cf_op_error(ops[i])->outcome));
        assert_non_null(strstr(cf_op_error(ops[i])->text, "another process"));
        cf_op_free(ops[i]);
    }
    assert_value(ask_get(store, "pop"), "1");
    answer again = ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("again"), .value = cf_text("1"), .timeout_ms = 30));
    assert_int_equal(again.status, CF_ETIMEOUT);
    assert_int_equal(again.outcome, CF_NOT_APPLIED);
    peer_let_go(&other);
    assert_int_equal(ask_set(store, "after", "1").status, CF_OK);
    nap(60);
    assert_string_equal(peer(path, "SELECT key FROM entry"), "after\npop");
}

static void a_close_while_another_has_the_lock(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    ask_set(store, "a", "1");
    holder other = peer_hold(path, "BEGIN IMMEDIATE");
    for (int i = 0; i < 20; i++) {
        seen      s = {0};
        cf_store *one = open_file(loop, path, "");
        cf_op    *op = begin(one, CF_REQUEST(CF_OP_SET, .key = cf_text("late"), .value = cf_text("1"), .done = see, .user = &s));
        cf_loop_flush(loop);
        nap(i % 7);
        assert_ok(cf_store_close(one, NULL));
        assert_int_equal(s.calls, 1);
        assert_int_equal(s.status, CF_ECLOSED);
        assert_int_equal(s.outcome, CF_NOT_APPLIED);
        cf_op_free(op);
    }
    peer_let_go(&other);
    assert_int_equal(ask_set(store, "b", "1").status, CF_OK);
    assert_string_equal(peer(path, "SELECT key FROM entry"), "a\nb");
}

static void limits_of_what_may_wait(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "?max_pending=3"), *bytes = open_file(loop, path, "?max_pending_bytes=2000");
    cf_op      *ops[3], *op;
    char        value[1500];
    cf_loop_set_blocking(loop, false);
    for (int i = 0; i < 3; i++) ops[i] = begin(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1));
    assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1), &op), CF_EBUSY);
    assert_int_equal(cf_op_error(op)->outcome, CF_NOT_APPLIED);
    cf_op_free(op);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cf_op_wait(ops[i]), CF_OK);
        assert_int_equal(cf_op_number(ops[i]), i + 1);
        cf_op_free(ops[i]);
    }
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).number, 4);
    memset(value, 'v', sizeof value);
    for (int i = 0; i < 2; i++) ops[i] = begin(bytes, CF_REQUEST(CF_OP_SET, .key = cf_text("v"), .value = cf_bytes(value, sizeof value)));
    assert_int_equal(cf_submit(bytes, CF_REQUEST(CF_OP_GET, .key = cf_text("v")), &op), CF_EBUSY);
    cf_op_free(op);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cf_op_wait(ops[i]), CF_OK);
        cf_op_free(ops[i]);
    }
    assert_true(ask_get(bytes, "v").hit);
}

static int no_thread(void *self, void (*run)(void *data), void *data)
{
    (void)self;
    (void)run;
    (void)data;
    return -1;
}

static void a_process_that_may_start_no_thread(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_platform alone = *cf_platform_real();
    cf_loop    *poor;
    cf_op      *ops[10];
    alone.thread = no_thread;
    assert_ok(cf_loop_new(&alone, &poor));
    cf_loop_set_blocking(poor, blocking);
    cf_store *store = open_file(poor, path, "");
    for (int i = 0; i < 10; i++) ops[i] = begin(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1));
    for (int i = 0; i < 10; i++) {
        assert_int_equal(cf_op_wait(ops[i]), CF_OK);
        assert_int_equal(cf_op_number(ops[i]), i + 1);
        cf_op_free(ops[i]);
    }
    assert_value(ask_get(store, "n"), "10");
    holder other = peer_hold(path, "BEGIN IMMEDIATE");
    answer late = ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1, .timeout_ms = 60));
    assert_int_equal(late.status, CF_ETIMEOUT);
    assert_int_equal(late.outcome, CF_NOT_APPLIED);
    peer_let_go(&other);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).number, 11);
    cf_loop_free(poor);
}

/* -------------------------------------------------------------------------------------------------- removed, replaced -- */

/* Asks until it says so, at most three seconds; what was said to be stored until then does not count. */
static void says_that_it_is_gone(cf_store *store, int kind)
{
    int64_t until = now_ms() + 3000;
    answer  a;
    do {
        a = ask(store, CF_REQUEST(kind, .key = cf_text("a"), .value = cf_text(kind == CF_OP_SET ? "x" : "")));
        if (a.status == CF_OK) nap(20);
    } while (a.status == CF_OK && now_ms() < until);
    assert_int_equal(a.status, CF_ECORRUPT);
    assert_int_equal(a.outcome, CF_NOT_APPLIED);
}

static void a_file_that_is_removed(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    ask_set(store, "a", "1");
    assert_value(ask_get(store, "a"), "1");
    assert_int_equal(unlink(path), 0);
    says_that_it_is_gone(store, CF_OP_GET);
    assert_int_equal(ask_set(store, "a", "2").status, CF_ECORRUPT);
    cf_store *fresh = open_file(loop, path, ""); /* beside the one that is gone */
    assert_miss(ask_get(fresh, "a"));
    assert_true(ask_set(fresh, "a", "new").hit);
    assert_int_equal(ask_get(store, "a").status, CF_ECORRUPT);
    cf_store_close(store, NULL);
    assert_value(ask_get(fresh, "a"), "new");
    assert_int_equal(ask_set(fresh, "b", "new").status, CF_OK);
    assert_string_equal(peer(path, "SELECT key FROM entry; PRAGMA integrity_check"), "a\nb\nok");
}

static void a_file_that_is_replaced(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    ask_set(store, "a", "1");
    write_file(in_folder("other"), "");
    assert_int_equal(rename(in_folder("other"), path), 0);
    /* A connection that is opened only now must not take the new file for the old one, nor make tables in it. */
    cf_loop  *reader_loop = new_loop(true);
    says_that_it_is_gone(store, CF_OP_SET);
    assert_int_equal(size_of(path), 0);
    cf_loop_free(reader_loop);
    says_that_it_is_gone(store, CF_OP_GET);
    assert_int_equal(ask_count(store).status, CF_ECORRUPT);
    assert_int_equal(size_of(path), 0);
}

static void a_connection_that_comes_later_does_not_follow(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    cf_loop_set_blocking(loop, false);
    ask_set(store, "a", "1"); /* through the writer */
    write_file(in_folder("other"), "");
    assert_int_equal(rename(in_folder("other"), path), 0);
    cf_loop_set_blocking(loop, true); /* now it reads on a connection of its own, which is not open yet */
    answer a = ask_get(store, "a");
    assert_true(a.status == CF_ECORRUPT || (a.status == CF_OK && a.hit));
    assert_int_equal(size_of(path), 0);
}

/* ------------------------------------------------------------------------------------------------------------- forks -- */

static void a_child_is_told_what_it_waits_for(void **state)
{
    (void)state;
    cf_store *store = open_file(loop, in_folder("a.db"), "");
    cf_op    *op;
    cf_loop_set_blocking(loop, false);
    op = begin(store, CF_REQUEST(CF_OP_SET, .key = cf_text("a"), .value = cf_text("1")));
    cf_loop_flush(loop);
    for (int i = 0; i < 500 && !readable(loop); i++) nap(10); /* the answer is there, and nobody has looked */
    assert_true(readable(loop));
    pid_t child = fork();
    if (child == 0) {
        hang_guard(30);
        if (cf_loop_reopen(loop) != CF_OK || cf_op_status(op) != CF_EFORKED) _exit(2);
        int64_t before = now_ms();
        answer  a = ask(store, CF_REQUEST(CF_OP_GET, .key = cf_text("a"), .timeout_ms = 20000));
        if (a.status != CF_OK || !a.hit) _exit(3);
        if (now_ms() - before > 10000) _exit(4); /* it slept until its deadline */
        cf_op_free(op);
        cf_loop_free(loop);
        _exit(0);
    }
    join_child(child);
    assert_int_equal(cf_op_wait(op), CF_OK);
    cf_op_free(op);
}

static void memory_is_copied_by_a_fork(void **state)
{
    (void)state;
    cf_store *store = open_url(loop, "sqlite::memory:");
    assert_true(ask_set(store, "a", "1").hit);
    pid_t child = fork();
    if (child == 0) {
        hang_guard(30);
        if (cf_loop_reopen(loop) != CF_OK) _exit(2);
        answer a = ask_get(store, "a");
        if (a.status != CF_OK || !a.hit) _exit(3);
        if (!ask_set(store, "a", "child").hit) _exit(4);
        cf_loop_free(loop);
        _exit(0);
    }
    join_child(child);
    assert_value(ask_get(store, "a"), "1");
}

static void a_child_and_its_parent_on_one_file(void **state)
{
    (void)state;
    const char *path = in_folder("a.db");
    cf_store   *store = open_file(loop, path, "");
    assert_true(ask_set(store, "a", "parent").hit);
    assert_value(ask_get(store, "a"), "parent");
    int   go[2];
    char  byte;
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        hang_guard(30);
        close(go[1]);
        if (cf_loop_reopen(loop) != CF_OK) _exit(2);
        if (!ask_set(store, "b", "child").hit) _exit(3);
        if (read(go[0], &byte, 1) < 0) _exit(4); /* until the parent has closed */
        answer a = ask_get(store, "a");
        if (a.status != CF_OK || strcmp(a.value, "parent") != 0) _exit(5);
        for (int i = 0; i < 50; i++)
            if (ask_set(store, "c", "child").status != CF_OK) _exit(6);
        _exit(0); /* without closing: its last writes are in the -wal */
    }
    close(go[0]);
    nap(100);
    assert_true(ask_set(store, "d", "parent").hit);
    reopen_loop();
    store = open_file(loop, path, "");
    assert_true(ask_set(store, "e", "parent").hit);
    assert_ok(cf_store_close(store, NULL));
    close(go[1]);
    join_child(child);
    assert_string_equal(peer(path, "SELECT key FROM entry; PRAGMA integrity_check"), "a\nb\nc\nd\ne\nok");
}

/* Each twice: #0 an event loop, #1 a caller who waits. */
#define TWICE(test) {#test, test, up, down, NULL}, {#test ", waiting", test, up, down, &waits}
int main(void)
{
    static int waits;
    hang_guard(250);
    const struct CMUnitTest tests[] = {
        TWICE(what_is_not_ours_is_refused),
        TWICE(places_that_are_no_files),
        TWICE(addresses),
        TWICE(a_relative_path_stays_where_it_was),
        TWICE(folders_without_rights),
        TWICE(one_file_of_two_stores),
        TWICE(processes_that_make_one_file_at_once),
        TWICE(what_stands_in_the_file),
        TWICE(values_outlive_the_store),
        TWICE(big_values_and_keys),
        TWICE(scans_with_the_longest_keys),
        TWICE(what_has_expired_is_removed),
        TWICE(one_that_fails_spoils_no_other),
        TWICE(a_lock_for_a_moment_is_waited_for),
        TWICE(a_lock_for_longer_than_the_deadline),
        TWICE(a_close_while_another_has_the_lock),
        TWICE(limits_of_what_may_wait),
        TWICE(a_process_that_may_start_no_thread),
        TWICE(a_file_that_is_removed),
        TWICE(a_file_that_is_replaced),
        TWICE(a_connection_that_comes_later_does_not_follow),
        TWICE(a_child_is_told_what_it_waits_for),
        TWICE(memory_is_copied_by_a_fork),
        TWICE(a_child_and_its_parent_on_one_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
