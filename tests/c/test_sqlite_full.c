/* A full disk: what adds is refused and not applied, what removes goes on, and when there is space again so does everything. On a small file system in memory that only
 * this process sees. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { VALUE = 3000, SPARE = 300 };

static bool        mounted;
static const char *path;
static char        value[VALUE];

static int up(void **state)
{
    (void)state;
    static char name[PATH_ROOM];
    path = strcpy(name, in_folder("a.db"));
    memset(value, 'v', sizeof value);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("full", folder(), "tmpfs", 0, "size=40m") != 0) {
        print_message("SKIPPED, ALL OF IT: this user may not mount a file system (%s)\n", strerror(errno));
        return 0;
    }
    mounted = true;
    return 0;
}

static int down(void **state)
{
    (void)state;
    if (mounted) umount2(folder(), MNT_DETACH);
    return 0;
}

static long fill(void)
{
    static const char zeroes[65536];
    int  fd = open(in_folder("ballast"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    long written = 0;
    assert_true(fd >= 0);
    for (size_t size = sizeof zeroes; size; size /= 2)
        for (ssize_t got; (got = write(fd, zeroes, size)) > 0;) written += got;
    close(fd);
    struct statvfs is;
    assert_int_equal(statvfs(folder(), &is), 0);
    assert_int_equal(is.f_bavail, 0);
    return written;
}

static void make_room(void) { assert_int_equal(unlink(in_folder("ballast")), 0); }

static const char *key_of(int i)
{
    static char key[4][32];
    static int  next;
    char       *text = key[next++ % 4];
    sprintf(text, "k-%05d", i);
    return text;
}

static answer set(cf_store *store, int i)
{
    return ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key_of(i)), .value = cf_bytes(value, VALUE), .timeout_ms = 30000));
}

static void refused(answer a)
{
    assert_int_equal(a.status, CF_EUNAVAILABLE);
    assert_int_equal(a.outcome, CF_NOT_APPLIED);
}

static void a_full_disk(cf_loop *loop)
{
    enum { KEYS = 1200, MOST = 20000 };
    folder_empty();
    cf_store *store = open_file(loop, path, "");
    for (int i = 0; i < KEYS; i++) assert_int_equal(set(store, i).status, CF_OK);
    assert_int_equal(ask_set(store, "n", "41").status, CF_OK);
    for (int i = 0; i < 20; i++) ask_set(store, key_of(50000 + i), "to clear");
    fill();
    /* What the -wal and the file have to spare is used up; a smaller change may fit where a larger one did not. */
    static bool there[MOST];
    int         known = KEYS, refusals = 0;
    answer      a = {0};
    memset(there, 0, sizeof there);
    memset(there, 1, KEYS);
    for (; refusals < 20 && known < MOST; known++) {
        a = set(store, known);
        there[known] = a.status == CF_OK;
        if (there[known]) continue;
        refused(a);
        refusals++;
        assert_miss(ask_get(store, key_of(known)));
    }
    assert_int_equal(refusals, 20);
    int64_t count = 0;
    for (int i = 0; i < 50; i++) { /* what needs no more space may go on */
        a = ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1));
        if (a.status == CF_OK) count++;
        else refused(a);
    }
    /* Whoever logs out, logs out: all of them, one by one. */
    for (int i = 0; i < known; i++) {
        a = i % 3 ? ask_delete(store, key_of(i)) : ask_pop(store, key_of(i));
        if (a.status != CF_OK) fail_msg("the removal of key %d of %d: %s %s", i, known, cf_status_name(a.status), cf_outcome_name(a.outcome));
        assert_int_equal(a.hit, there[i]);
        if (i % 3 == 0) assert_int_equal(a.value_len, there[i] ? VALUE : 0);
        if (i % 100 == 0) {
            a = set(store, 90000);
            if (a.status != CF_OK) refused(a);
            assert_int_equal(ask_get(store, key_of(90000)).hit, a.status == CF_OK);
            if (a.status == CF_OK) assert_true(ask_delete(store, key_of(90000)).hit);
        }
        assert_miss(ask_get(store, key_of(i)));
    }
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_CLEAR, .key = cf_text("k-500"))).number, 20);
    assert_string_equal(peer(path, "SELECT key FROM entry"), "n");
    make_room();
    int64_t until = now_ms() + 1500;
    while ((a = set(store, 1)).status != CF_OK && now_ms() < until) {
        refused(a);
        nap(20);
    }
    assert_int_equal(a.status, CF_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(set(store, i).status, CF_OK);
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1)).number, 42 + count);
    assert_true(exists(in_folder("a.db-reserve")));
    assert_ok(cf_store_close(store, NULL));
    assert_true(peer_sound(path));
    assert_string_equal(peer(path, "SELECT count(*) FROM entry"), "101");
    cf_loop_free(loop);
}

static void with_an_event_loop(void **state)
{
    (void)state;
    if (mounted) a_full_disk(new_loop(false));
    else skip();
}

static void with_a_caller_who_waits(void **state)
{
    (void)state;
    if (mounted) a_full_disk(new_loop(true));
    else skip();
}

/* Many at once: one that finds no room must not take the others with it. */
static void a_group(void **state)
{
    (void)state;
    enum { KEYS = 300 };
    if (!mounted) skip();
    folder_empty();
    cf_loop  *loop = new_loop(false);
    cf_store *store = open_file(loop, path, "");
    static cf_op *ops[3 * KEYS];
    for (int i = 0; i < KEYS; i++) assert_int_equal(set(store, i).status, CF_OK);
    fill();
    for (int round = 0; round < 2; round++) {
        int count = 0;
        for (int i = round * KEYS / 2; i < (round + 1) * KEYS / 2; i++) {
            assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_GET, .key = cf_text(key_of(i))), &ops[count++]), CF_PENDING);
            assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key_of(i + 1000)), .value = cf_bytes(value, VALUE), .timeout_ms = 30000), &ops[count++]), CF_PENDING);
            assert_int_equal(cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text(key_of(i)), .timeout_ms = 30000), &ops[count++]), CF_PENDING);
        }
        for (int i = 0; i < count; i++) {
            int  rc = cf_op_wait(ops[i]), key = round * KEYS / 2 + i / 3;
            bool hit = cf_op_hit(ops[i]);
            int  outcome = cf_op_error(ops[i])->outcome;
            cf_op_free(ops[i]);
            if (i % 3 != 1) {
                assert_int_equal(rc, CF_OK);
                assert_true(hit);
            } else if (rc == CF_OK) {
                assert_true(ask_get(store, key_of(key + 1000)).hit);
            } else {
                assert_int_equal(rc, CF_EUNAVAILABLE);
                assert_int_equal(outcome, CF_NOT_APPLIED);
                assert_miss(ask_get(store, key_of(key + 1000)));
            }
        }
    }
    assert_int_equal(ask(store, CF_REQUEST(CF_OP_COUNT, .key = cf_text("k-00"))).number, 0);
    cf_loop_free(loop);
    make_room();
    assert_true(peer_sound(path));
}

/* Opened on a full disk, after a process has died there: what removes works as far as there is a reserve. */
static void opened_when_full(void **state)
{
    (void)state;
    if (!mounted) skip();
    folder_empty();
    cf_loop  *loop = new_loop(true);
    cf_store *store = open_file(loop, path, "");
    for (int i = 0; i < SPARE; i++) assert_int_equal(set(store, i).status, CF_OK);
    cf_loop_free(loop);
    fill();
    loop = new_loop(true);
    store = open_file(loop, path, "");
    for (int i = 0; i < SPARE; i++) assert_true(ask_delete(store, key_of(i)).hit);
    refused(set(store, 1));
    cf_loop_free(loop);
    make_room();
    assert_true(peer_sound(path));
    assert_string_equal(peer(path, "SELECT count(*) FROM entry"), "0");
}

/* ---- records: whoever ends a session, or an account, can do so ---- */

typedef struct came {
    int     status, outcome;
    bool    hit;
    int64_t number;
    char    id[CF_ID_LEN + 1];
} came;

static came session(cf_store *store, int method, int field, const char *text, const char *user)
{
    const cf_sessions of = {.store = store};
    const cf_call     call = {.timeout_ms = 30000};
    cf_record         record = {.kind = CF_SESSION}, back;
    cf_op            *op;
    int64_t           now = wall_ms() * 1000;
    cf_record_text(&record, field, cf_text(text));
    if (method == CF_SESSION_CREATE) {
        cf_record_text(&record, CF_SESSION_USER_ID, cf_text(user));
        cf_record_number(&record, CF_SESSION_CREATED_AT, now);
        cf_record_number(&record, CF_SESSION_UPDATED_AT, now);
        cf_record_number(&record, CF_SESSION_EXPIRES_AT, now + INT64_C(3600000000));
        cf_record_text(&record, CF_SESSION_USER_AGENT, cf_bytes(value, 1000));
    } else if (method == CF_SESSION_REVOKE || method == CF_SESSION_REVOKE_ALL) {
        cf_record_number(&record, CF_SESSION_REVOKED_AT, now);
    }
    if (cf_sessions_call(&of, method, &record, NULL, &call, &op) == CF_PENDING) cf_op_wait(op);
    came out = {.status = cf_op_status(op), .outcome = cf_op_error(op)->outcome, .hit = cf_op_hit(op), .number = cf_op_number(op)};
    if (cf_op_next_record(op, &back)) snprintf(out.id, sizeof out.id, "%.*s", (int)back.fields[0].text.len, back.fields[0].text.ptr);
    cf_op_free(op);
    return out;
}

static came account(cf_store *store, int method, int field, const char *text)
{
    const cf_accounts of = {.store = store};
    const cf_call     call = {.timeout_ms = 30000};
    cf_record         record = {.kind = CF_USER}, back;
    cf_op            *op;
    cf_record_text(&record, field, cf_text(text));
    if (method == CF_CREATE_USER) cf_record_text(&record, CF_USER_EXTRA_FIELDS, cf_bytes(value, VALUE));
    if (cf_accounts_call(&of, method, &record, NULL, &call, &op) == CF_PENDING) cf_op_wait(op);
    came out = {.status = cf_op_status(op), .outcome = cf_op_error(op)->outcome, .hit = cf_op_hit(op)};
    if (cf_op_next_record(op, &back)) snprintf(out.id, sizeof out.id, "%.*s", (int)back.fields[0].text.len, back.fields[0].text.ptr);
    cf_op_free(op);
    return out;
}

static void records(void **state)
{
    enum { USERS = 60, EACH = 5, MOST = 20000 };
    static char users[USERS][CF_ID_LEN + 1], ids[USERS * EACH][CF_ID_LEN + 1];
    char        text[32];
    if (!mounted) skip();
    folder_empty();
    cf_loop  *loop = new_loop(*state != NULL);
    cf_store *store = open_file(loop, path, "");
    for (int i = 0; i < USERS; i++) {
        snprintf(text, sizeof text, "%d@x.y", i);
        came made = account(store, CF_CREATE_USER, CF_USER_EMAIL, text);
        assert_int_equal(made.status, CF_OK);
        strcpy(users[i], made.id);
        for (int j = 0; j < EACH; j++) {
            snprintf(text, sizeof text, "h%d", i * EACH + j);
            made = session(store, CF_SESSION_CREATE, CF_SESSION_TOKEN_HASH, text, users[i]);
            assert_int_equal(made.status, CF_OK);
            strcpy(ids[i * EACH + j], made.id);
        }
    }
    fill();
    int refusals = 0;
    for (int i = 0; refusals < 20 && i < MOST; i++) {
        snprintf(text, sizeof text, "more%d@x.y", i);
        came made = account(store, CF_CREATE_USER, CF_USER_EMAIL, text);
        if (made.status == CF_OK) continue;
        assert_int_equal(made.status, CF_EUNAVAILABLE);
        assert_int_equal(made.outcome, CF_NOT_APPLIED);
        refusals++;
        assert_false(account(store, CF_FIND_USER_BY_EMAIL, CF_USER_EMAIL, text).hit);
    }
    assert_int_equal(refusals, 20);
    /* One by one, all of a user, and with the user. */
    for (int i = 0; i < USERS * EACH; i += EACH) {
        came gone = session(store, CF_SESSION_REVOKE, CF_SESSION_ID, ids[i], NULL);
        assert_int_equal(gone.status, CF_OK);
        assert_true(gone.hit);
        snprintf(text, sizeof text, "h%d", i);
        assert_false(session(store, CF_SESSION_GET, CF_SESSION_TOKEN_HASH, text, NULL).hit);
    }
    for (int i = 0; i < USERS; i++) {
        came gone = session(store, CF_SESSION_REVOKE_ALL, CF_SESSION_USER_ID, users[i], NULL);
        assert_int_equal(gone.status, CF_OK);
        assert_int_equal(gone.number, EACH - 1);
        assert_int_equal(session(store, CF_SESSION_READ_EPOCH, CF_SESSION_USER_ID, users[i], NULL).number, 1);
    }
    for (int i = 0; i < USERS; i++) {
        came gone = account(store, CF_DELETE_USER, CF_USER_ID, users[i]);
        assert_int_equal(gone.status, CF_OK);
        assert_true(gone.hit);
    }
    cf_loop_free(loop);
    make_room();
    assert_true(peer_sound(path));
    assert_string_equal(peer(path, "SELECT count(*) FROM session"), "0");
}

int main(void)
{
    hang_guard(200);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_an_event_loop),
        cmocka_unit_test(with_a_caller_who_waits),
        cmocka_unit_test(a_group),
        cmocka_unit_test(opened_when_full),
        {"records", records, NULL, NULL, NULL},
        {"records, waiting", records, NULL, NULL, value},
    };
    return cmocka_run_group_tests(tests, up, down);
}
