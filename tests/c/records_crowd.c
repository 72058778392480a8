/* records_crowd.c: processes that all want the same e-mails and social accounts, and are killed at random; and logout, revoke_all, refresh and create that
 * race. On SQLite and on Redis. CF_CROWD e-mails, CF_PROCESSES processes, CF_RACES races; CF_LONG=1: 10,000, 16 and 100,000. CF_SEED. */
#include "redis_support.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static server redis;

typedef cf_store *(*opener)(cf_loop *loop);
static char folder[64], file[96];

static cf_store *open_sqlite_crowd(cf_loop *loop)
{
    char url[128];
    snprintf(url, sizeof url, "sqlite:%s?synchronous=normal", file);
    return open_url(loop, url);
}
static cf_store *open_redis_crowd(cf_loop *loop) { return open_redis(loop, redis.port, NULL, 60000); }

static cf_loop *new_loop(bool blocking)
{
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_loop_set_blocking(loop, blocking);
    return loop;
}

static long figure(const char *name, long usual, long most)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : getenv("CF_LONG") ? most : usual;
}

/* ------------------------------------------------------------------------------------------------------------- asking -- */

typedef struct came {
    int       status;
    bool      hit;
    int64_t   number;
    cf_record record; /* its id is in `id` */
    char      id[CF_ID_LEN + 1], user_id[CF_ID_LEN + 1];
} came;

/* What goes away by itself is asked for again. */
static bool passing(int status) { return status == CF_ETIMEOUT || status == CF_EUNAVAILABLE || status == CF_EBUSY; }

static void take(cf_op *op, came *out)
{
    memset(out, 0, sizeof *out);
    out->status = cf_op_status(op);
    out->hit = cf_op_hit(op);
    out->number = cf_op_number(op);
    if (cf_op_next_record(op, &out->record)) {
        memcpy(out->id, out->record.fields[0].text.ptr, CF_ID_LEN);
        if (out->record.kind == CF_SOCIAL_ACCOUNT) memcpy(out->user_id, out->record.fields[CF_SOCIAL_ACCOUNT_USER_ID].text.ptr, CF_ID_LEN);
    }
    if (out->status < 0 && out->status != CF_EEXISTS && out->status != CF_ECHANGED && !passing(out->status)) fprintf(stderr, "%s: %s\n", cf_status_name(out->status), cf_op_error(op)->text);
    cf_op_free(op);
}

static came accounts(cf_store *store, int method, const cf_record *record, const cf_record *user)
{
    const cf_accounts of = {.store = store};
    came out;
    cf_op      *op;
    if (cf_accounts_call(&of, method, record, user, NULL, &op) == CF_PENDING) cf_op_wait(op);
    take(op, &out);
    return out;
}

static came sessions(cf_store *store, int method, const cf_record *record, int64_t epoch)
{
    const cf_sessions     of = {.store = store};
    const cf_session_args args = {.size = sizeof args, .epoch = epoch};
    came out;
    cf_op      *op;
    if (cf_sessions_call(&of, method, record, &args, NULL, &op) == CF_PENDING) cf_op_wait(op);
    take(op, &out);
    return out;
}

static cf_record user_of(const char *email)
{
    cf_record user = {.kind = CF_USER};
    cf_record_text(&user, CF_USER_EMAIL, cf_text(email));
    return user;
}

static cf_record account_of(const char *name)
{
    cf_record account = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("github"));
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text(name));
    return account;
}

/* ------------------------------------------------------------------------------------------------------------- crowd -- */

typedef struct spot { /* e-mail, or account: what everybody was told about it */
    int  made, heard;
    char id[CF_ID_LEN + 1];
} spot;

typedef struct crowd {
    int  wrong;
    long done[64]; /* how far each process has come, over all its lives */
    spot all[];    /* users, then accounts */
} crowd;

static void hear(crowd *c, spot *it, const came *back, bool made)
{
    if (made && __atomic_fetch_add(&it->made, 1, __ATOMIC_SEQ_CST) > 0) __atomic_fetch_add(&c->wrong, 1, __ATOMIC_SEQ_CST);
    int nobody = 0;
    if (__atomic_compare_exchange_n(&it->heard, &nobody, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        memcpy(it->id, back->id, sizeof it->id);
        __atomic_store_n(&it->heard, 2, __ATOMIC_SEQ_CST);
    } else if (__atomic_load_n(&it->heard, __ATOMIC_SEQ_CST) == 2 && strcmp(it->id, back->id) != 0) {
        __atomic_fetch_add(&c->wrong, 1, __ATOMIC_SEQ_CST);
    }
}

static void live(crowd *c, opener open, int who, long count)
{
    cf_loop  *loop = new_loop(true);
    cf_store *store = open(loop);
    while (c->done[who] < count) {
        long at = (c->done[who] + who * 7) % count; /* near each other, so that they meet */
        char email[64], name[32], other[64];
        snprintf(email, sizeof email, " User%ld@Example.ORG", at);
        snprintf(name, sizeof name, "%ld", at);
        snprintf(other, sizeof other, "social%ld@example.org", at);
        cf_record user = user_of(email), with = user_of(other), account = account_of(name);
        came back;
        do back = accounts(store, CF_CREATE_USER, &user, NULL);
        while (passing(back.status));
        if ((back.status != CF_OK && back.status != CF_EEXISTS) || !back.id[0]) abort();
        hear(c, &c->all[at], &back, back.status == CF_OK);
        do back = accounts(store, CF_FIND_OR_CREATE, &account, &with);
        while (passing(back.status));
        if (back.status != CF_OK || !back.id[0]) abort();
        hear(c, &c->all[count + at], &back, back.number == 1);
        c->done[who]++;
    }
    cf_store_close(store, NULL);
    cf_loop_free(loop);
}

static pid_t start(crowd *c, opener open, int who, long count)
{
    pid_t child = fork();
    if (child == 0) {
        live(c, open, who, count);
        _exit(0);
    }
    return child;
}

static void crowded(const char *name, opener open)
{
    long   count = figure("CF_CROWD", 200, 10000), processes = figure("CF_PROCESSES", 6, 16), kills = 0, wanted = count / 10;
    size_t size = sizeof(crowd) + (size_t)count * 2 * sizeof(spot);
    crowd *c = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t  children[64];
    for (int i = 0; i < processes; i++) children[i] = start(c, open, i, count);
    for (int left = (int)processes; left > 0;) {
        struct timespec pause = {0, 1000000 + rand() % 10000000};
        nanosleep(&pause, NULL);
        int who = rand() % (int)processes;
        if (kills < wanted && c->done[who] < count && kill(children[who], SIGKILL) == 0) kills++;
        for (int i = 0; i < processes; i++) {
            int how;
            if (children[i] <= 0 || waitpid(children[i], &how, WNOHANG) != children[i]) continue;
            if (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL && c->done[i] < count) {
                children[i] = start(c, open, i, count);
                continue;
            }
            assert_true((WIFEXITED(how) && WEXITSTATUS(how) == 0) || (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL));
            children[i] = 0;
            left--;
        }
    }
    cf_loop  *loop = new_loop(true);
    cf_store *store = open(loop);
    long made = 0, lost = 0;
    for (long at = 0; at < count; at++) {
        char email[64], label[32], other[64];
        snprintf(email, sizeof email, "user%ld@example.org", at);
        snprintf(label, sizeof label, "%ld", at);
        snprintf(other, sizeof other, "social%ld@example.org", at);
        cf_record by_email = user_of(email), by_other = user_of(other), account = account_of(label);
        came user = accounts(store, CF_FIND_USER_BY_EMAIL, &by_email, NULL);
        assert_true(user.hit);
        if (c->all[at].heard == 2) assert_string_equal(user.id, c->all[at].id); /* 1: killed while it wrote that down */
        came social = accounts(store, CF_FIND_SOCIAL_ACCOUNT, &account, NULL);
        assert_true(social.hit);
        if (c->all[count + at].heard == 2) assert_string_equal(social.id, c->all[count + at].id);
        came owner = accounts(store, CF_FIND_USER_BY_EMAIL, &by_other, NULL);
        assert_true(owner.hit); /* no half of the two */
        assert_string_equal(owner.id, social.user_id);
        cf_record of = {.kind = CF_SOCIAL_ACCOUNT};
        cf_record_text(&of, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(social.user_id));
        assert_string_equal(accounts(store, CF_LIST_SOCIAL_ACCOUNTS, &of, NULL).id, social.id);
        made += c->all[at].made + c->all[count + at].made;
        lost += !c->all[at].made + !c->all[count + at].made; /* killed between the answer and its note */
    }
    assert_int_equal(c->wrong, 0);
    assert_int_equal(made + lost, 2 * count);
    assert_true(lost <= kills);
    printf("%s: %ld processes, %ld e-mails and accounts, %ld kills: 0 twice, 0 halves, all told the same\n", name, processes, count, kills);
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    munmap(c, size);
}

/* ------------------------------------------------------------------------------------------------------------- races -- */

typedef struct race {
    opener      open;
    long        rounds;
    atomic_long turn[2]; /* how far each has come: they wait for each other before every round */
    int         survivors, alive;
    char      (*ids)[CF_ID_LEN + 1];
} race;

static void meet(race *r, int me)
{
    long mine = atomic_fetch_add(&r->turn[me], 1) + 1;
    while (atomic_load(&r->turn[!me]) < mine) sched_yield();
}

static cf_record session_of(long round)
{
    static _Thread_local char user[32], hash[64];
    cf_record session = {.kind = CF_SESSION};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t us = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
    snprintf(user, sizeof user, "user-%ld", round);
    snprintf(hash, sizeof hash, "hash-%ld", round);
    cf_record_text(&session, CF_SESSION_USER_ID, cf_text(user));
    cf_record_text(&session, CF_SESSION_TOKEN_HASH, cf_text(hash));
    cf_record_number(&session, CF_SESSION_CREATED_AT, us);
    cf_record_number(&session, CF_SESSION_UPDATED_AT, us);
    cf_record_number(&session, CF_SESSION_EXPIRES_AT, us + INT64_C(3600000000));
    return session;
}

static cf_record only(const cf_record *from, int first, int second, int third)
{
    cf_record some = {.kind = CF_SESSION};
    const int fields[] = {first, second, third};
    for (int i = 0; i < 3; i++)
        if (fields[i] >= 0) some.fields[fields[i]] = from->fields[fields[i]];
    return some;
}

static cf_record stamped(cf_record session)
{
    cf_record_number(&session, CF_SESSION_REVOKED_AT, session.fields[CF_SESSION_CREATED_AT].number);
    return session;
}

/* One logs in and refreshes; the other logs out. */
static void *logs_in(void *data)
{
    race     *r = data;
    cf_loop  *loop = new_loop(true);
    cf_store *store = r->open(loop);
    for (long i = 0; i < r->rounds; i++) {
        cf_record session = session_of(i), user = only(&session, CF_SESSION_USER_ID, -1, -1);
        meet(r, 0);
        int64_t epoch = sessions(store, CF_SESSION_READ_EPOCH, &user, -1).number;
        if (i % 3 == 1) sched_yield();
        came made = sessions(store, CF_SESSION_CREATE, &session, epoch);
        if (made.status != CF_OK && made.status != CF_ECHANGED) abort();
        meet(r, 0);
        /* The second story: whoever refreshes a session while it is revoked. */
        session = session_of(r->rounds + i);
        made = sessions(store, CF_SESSION_CREATE, &session, -1);
        if (made.status != CF_OK) abort();
        strcpy(r->ids[i], made.id);
        meet(r, 0);
        session.fields[CF_SESSION_ID].is = CF_GIVEN;
        session.fields[CF_SESSION_ID].text = cf_text(r->ids[i]);
        cf_record again = only(&session, CF_SESSION_ID, CF_SESSION_UPDATED_AT, CF_SESSION_EXPIRES_AT);
        sessions(store, CF_SESSION_REFRESH, &again, -1);
    }
    meet(r, 0);
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return NULL;
}

static void *logs_out(void *data)
{
    race     *r = data;
    cf_loop  *loop = new_loop(true);
    cf_store *store = r->open(loop);
    for (long i = 0; i < r->rounds; i++) {
        cf_record session = session_of(i), hash = only(&session, CF_SESSION_TOKEN_HASH, -1, -1), all = stamped(session);
        all = only(&all, CF_SESSION_USER_ID, CF_SESSION_REVOKED_AT, -1);
        meet(r, 1);
        if (sessions(store, CF_SESSION_REVOKE_ALL, &all, -1).status != CF_OK) abort();
        meet(r, 1);
        came left = sessions(store, CF_SESSION_GET, &hash, -1);
        if (left.hit && left.record.fields[CF_SESSION_EPOCH].number == 0) r->survivors++;
        meet(r, 1);
        session = stamped(session_of(r->rounds + i));
        cf_record_text(&session, CF_SESSION_ID, cf_text(r->ids[i]));
        cf_record one = only(&session, CF_SESSION_ID, CF_SESSION_REVOKED_AT, -1), id = only(&session, CF_SESSION_ID, -1, -1);
        hash = only(&session, CF_SESSION_TOKEN_HASH, -1, -1);
        if (!sessions(store, CF_SESSION_REVOKE, &one, -1).hit) abort();
        if (sessions(store, CF_SESSION_GET, &hash, -1).hit) r->alive++;
        came last = sessions(store, CF_SESSION_GET_ANY, &id, -1);
        if (!last.hit || last.record.fields[CF_SESSION_REVOKED_AT].is != CF_GIVEN) r->alive++;
    }
    meet(r, 1);
    for (long i = 0; i < r->rounds; i++) { /* and none came back */
        cf_record session = session_of(r->rounds + i), hash = only(&session, CF_SESSION_TOKEN_HASH, -1, -1);
        if (sessions(store, CF_SESSION_GET, &hash, -1).hit) r->alive++;
    }
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return NULL;
}

static void races(const char *name, opener open)
{
    race r = {.open = open, .rounds = figure("CF_RACES", 500, 100000)};
    r.ids = calloc((size_t)r.rounds, sizeof *r.ids);
    pthread_t in, out;
    assert_int_equal(pthread_create(&in, NULL, logs_in, &r), 0);
    assert_int_equal(pthread_create(&out, NULL, logs_out, &r), 0);
    pthread_join(in, NULL);
    pthread_join(out, NULL);
    free(r.ids);
    printf("%s: %ld races of revoke_all with create: %d survivors; of revoke with refresh: %d alive\n", name, r.rounds, r.survivors, r.alive);
    assert_int_equal(r.survivors, 0);
    assert_int_equal(r.alive, 0);
}

/* --------------------------------------------------------------------------------------------------------------- all -- */

static cf_store *open_memory_crowd(cf_loop *loop) { return open_url(loop, "memory:crowd"); }

static void the_crowd_on_sqlite(void **state)
{
    (void)state;
    crowded("SQLite", open_sqlite_crowd);
    sqlite3      *db;
    sqlite3_stmt *check;
    assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &check, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(check), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(check, 0), "ok");
    sqlite3_finalize(check);
    sqlite3_close(db);
}
static void the_crowd_on_redis(void **state)
{
    (void)state;
    crowded("Redis", open_redis_crowd);
}
static void nobody_survives_in_memory(void **state)
{
    (void)state;
    cf_loop  *loop = new_loop(false);
    cf_store *keep = open_url(loop, "memory:crowd");
    races("memory", open_memory_crowd);
    cf_store_close(keep, NULL);
    cf_loop_free(loop);
}
static void nobody_survives_on_sqlite(void **state)
{
    (void)state;
    races("SQLite", open_sqlite_crowd);
}
static void nobody_survives_on_redis(void **state)
{
    (void)state;
    races("Redis", open_redis_crowd);
}

int main(int count, char **words)
{
    if (count > 1) cmocka_set_test_filter(words[1]);
    hang_guard(getenv("CF_LONG") ? 3600 : 120);
    unsigned seed = getenv("CF_SEED") ? (unsigned)strtoul(getenv("CF_SEED"), NULL, 10) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    strcpy(folder, "/tmp/cf-crowd.XXXXXX");
    if (!mkdtemp(folder)) return 2;
    snprintf(file, sizeof file, "%s/crowd.db", folder);
    server_start(&redis, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_crowd_on_sqlite),      cmocka_unit_test(the_crowd_on_redis),      cmocka_unit_test(nobody_survives_in_memory),
        cmocka_unit_test(nobody_survives_on_sqlite), cmocka_unit_test(nobody_survives_on_redis),
    };
    int failed = cmocka_run_group_tests_name("records_crowd", tests, NULL, NULL);
    server_stop(&redis);
    for (const char *const *end = (const char *const[]){"", "-wal", "-shm", "-reserve", NULL}; *end; end++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", file, *end);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
