/* Records in Redis: races, damage and what heals by itself, rights, keys that nobody sees. What the methods mean is tested for every backend elsewhere. */
#include "redis_support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "faults.h"

static server redis;

enum { RACERS = 8, HOUR = 3600 };
#define NOW INT64_C(1800000000000000)
#define BASE "\\n{records}" /* as an inline command has it, between double quotes */

/* -------------------------------------------------------------------------------------------------------------- calls -- */

/* What came back; text lives until the next call of the same thread on the same slot. */
typedef struct outcome {
    int       status, outcome;
    bool      hit, brought;
    int64_t   number;
    size_t    count;
    cf_record first;
    char      text[256];
    cf_op    *op;
} outcome;

static outcome took(cf_op *op, int status)
{
    outcome   o = {.op = op};
    cf_record record;
    assert_non_null(op);
    o.status = status == CF_PENDING ? cf_op_wait(op) : status;
    o.outcome = cf_op_error(op)->outcome;
    o.hit = cf_op_hit(op);
    o.number = cf_op_number(op);
    if (o.status < 0) snprintf(o.text, sizeof o.text, "%s", cf_op_error(op)->text);
    while (cf_op_next_record(op, &record)) {
        if (!o.count++) o.first = record;
        o.brought = true;
    }
    return o;
}

static cf_slice field(const outcome *o, int at) { return o->first.fields[at].text; }
static bool     same(cf_slice text, const char *other) { return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0; }

static outcome accounts(cf_store *store, int method, const cf_record *record, const cf_record *user)
{
    cf_accounts a = {.store = store};
    cf_op      *op = NULL;
    int         status = cf_accounts_call(&a, method, record, user, NULL, &op);
    return took(op, status);
}

static outcome sessions_of(cf_store *store, size_t most, int method, const cf_record *record, const cf_session_args *args)
{
    cf_sessions s = {.store = store, .most = most};
    cf_op      *op = NULL;
    int         status = cf_sessions_call(&s, method, record, args, NULL, &op);
    return took(op, status);
}
static outcome sessions(cf_store *store, int method, const cf_record *record, const cf_session_args *args) { return sessions_of(store, 0, method, record, args); }

static void let_go(outcome *o) { cf_op_free(o->op); }

static cf_record user_with(const char *email)
{
    cf_record user = {.kind = CF_USER};
    cf_record_text(&user, CF_USER_EMAIL, cf_text(email));
    return user;
}

static cf_record of_id(int kind, const char *id)
{
    cf_record record = {.kind = kind};
    cf_record_text(&record, 0, cf_text(id));
    return record;
}

static cf_record account_of(const char *provider, const char *id)
{
    cf_record record = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text(provider));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text(id));
    return record;
}

static cf_record session_of(const char *user, const char *hash, int64_t at)
{
    cf_record record = {.kind = CF_SESSION};
    cf_record_text(&record, CF_SESSION_USER_ID, cf_text(user));
    cf_record_text(&record, CF_SESSION_TOKEN_HASH, cf_text(hash));
    cf_record_number(&record, CF_SESSION_CREATED_AT, at);
    cf_record_number(&record, CF_SESSION_UPDATED_AT, at);
    cf_record_number(&record, CF_SESSION_EXPIRES_AT, at + HOUR * INT64_C(1000000));
    return record;
}

static cf_record group_of(const char *user)
{
    cf_record record = {.kind = CF_SESSION};
    cf_record_text(&record, CF_SESSION_USER_ID, cf_text(user));
    return record;
}

static cf_record revocation(const char *user)
{
    cf_record record = group_of(user);
    cf_record_number(&record, CF_SESSION_REVOKED_AT, NOW + 5);
    return record;
}

typedef char id_text[CF_ID_LEN + 1];
static void copy_id(const outcome *o, id_text id)
{
    assert_int_equal(o->status, CF_OK);
    assert_true(o->brought);
    assert_int_equal(field(o, 0).len, CF_ID_LEN);
    memcpy(id, field(o, 0).ptr, CF_ID_LEN);
    id[CF_ID_LEN] = 0;
}

static void make_user(cf_store *store, const char *email, id_text id)
{
    cf_record user = user_with(email);
    outcome   o = accounts(store, CF_CREATE_USER, &user, NULL);
    copy_id(&o, id);
    let_go(&o);
}

static void make_session(cf_store *store, const char *user, const char *hash, int64_t at, id_text id)
{
    cf_record session = session_of(user, hash, at);
    outcome   o = sessions(store, CF_SESSION_CREATE, &session, NULL);
    copy_id(&o, id);
    let_go(&o);
}

static cf_store *open_prefixed(cf_loop *loop, const char *prefix, const char *options)
{
    cf_open_options open = {.size = sizeof open, .prefix = cf_text(prefix)};
    cf_store       *store = NULL;
    char            url[256];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/%s", redis.port, options);
    assert_ok(cf_open(loop, cf_text(url), &open, &store, NULL));
    return store;
}

/* One command of the test's own. */
__attribute__((format(printf, 1, 2))) static const char *says(const char *format, ...)
{
    char    command[4000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return server_says(&redis, command);
}

static int group_up(void **state)
{
    (void)state;
    server_start(&redis, NULL);
    return 0;
}

static int group_down(void **state)
{
    (void)state;
    server_stop(&redis);
    return 0;
}

static int loop_up(void **state)
{
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) return -1;
    *state = loop;
    says("FLUSHALL");
    return 0;
}

static int loop_down(void **state)
{
    cf_loop_free(*state);
    return 0;
}

/* -------------------------------------------------------------------------------------------------------------- bytes -- */

/* FORMAT.md's example. */
static void what_redis_holds(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   user, session;
    make_user(store, " Ada@Example.org", user);
    make_session(store, user, "h1", NOW, session);
    assert_string_equal(says("HGET \"p:" BASE "user:%s\" email", user), " Ada@Example.org");
    assert_string_equal(says("HGET \"p:" BASE "user:%s\" email_key", user), "ada@example.org");
    assert_string_equal(says("HGET \"p:" BASE "user:%s\" email_verified", user), "0");
    assert_string_equal(says("HEXISTS \"p:" BASE "user:%s\" hashed_password", user), ":0"); /* a null is left out */
    assert_string_equal(says("GET \"p:" BASE "user.email_key:ada@example.org\""), user);
    assert_string_equal(says("TTL \"p:" BASE "user:%s\"", user), ":-1");
    assert_string_equal(says("HGET \"p:" BASE "session:%s\" created_at", session), "1800000000000000");
    assert_string_equal(says("HGET \"p:" BASE "session:%s\" epoch", session), "0");
    assert_string_equal(says("GET \"p:" BASE "session.token_hash:h1\""), session);
    assert_string_equal(says("ZSCORE \"p:" BASE "session.user_id:%s\" %s", user, session), "1800000000000000");
    /* One millisecond less than the end of the session and thirty days. */
    long long expected = NOW / 1000 + HOUR * 1000LL + CF_SESSION_RETENTION - 1;
    char command[128];
    snprintf(command, sizeof command, "PEXPIRETIME \"p:" BASE "session:%s\"", session);
    assert_int_equal(server_number(&redis, command), expected);
    assert_int_equal(server_number(&redis, "PEXPIRETIME \"p:" BASE "session.token_hash:h1\""), expected);
    snprintf(command, sizeof command, "PEXPIRETIME \"p:" BASE "session.user_id:%s\"", user);
    assert_int_equal(server_number(&redis, command), expected);
    assert_int_equal(server_number(&redis, "DBSIZE"), 5);
}

static void expiry_goes_on_with_a_refresh(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   id, other;
    make_session(store, "u", "h1", NOW, id);
    make_session(store, "u", "h2", NOW - 10, other);
    cf_record change = of_id(CF_SESSION, id);
    cf_record_number(&change, CF_SESSION_UPDATED_AT, NOW + 1);
    cf_record_number(&change, CF_SESSION_EXPIRES_AT, NOW + 9 * HOUR * INT64_C(1000000));
    outcome o = sessions(store, CF_SESSION_REFRESH, &change, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit && o.brought);
    let_go(&o);
    long long expected = NOW / 1000 + 9 * HOUR * 1000LL + CF_SESSION_RETENTION - 1;
    char      command[128];
    snprintf(command, sizeof command, "PEXPIRETIME \"p:" BASE "session:%s\"", id);
    assert_int_equal(server_number(&redis, command), expected);
    assert_in_range(server_number(&redis, "PEXPIRETIME \"p:" BASE "session.token_hash:h1\""), expected - 2, expected + 2);
    assert_in_range(server_number(&redis, "PEXPIRETIME \"p:" BASE "session.user_id:u\""), expected - 2, expected + 2);
    /* A revocation leaves it. */
    cf_record end = of_id(CF_SESSION, id);
    cf_record_number(&end, CF_SESSION_REVOKED_AT, NOW + 2);
    o = sessions(store, CF_SESSION_REVOKE, &end, NULL);
    assert_true(o.hit);
    let_go(&o);
    assert_int_equal(server_number(&redis, command), expected);
}

/* No key operation sees them, and no caller's key is one of them. */
static void keys_that_nobody_sees(void **state)
{
    static const char *const prefixes[] = {"", "app:", "a{b:", "a{b}:", "a}b:", "a{}b:", "*[?]\\", "é:"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        says("FLUSHALL");
        cf_store *store = open_prefixed(*state, prefixes[i], "");
        id_text   user, id;
        make_user(store, "ada@example.org", user);
        make_session(store, user, "h", NOW, id);
        assert_true(ask_set(store, "k", "v").hit);
        long long keys = server_number(&redis, "DBSIZE");
        assert_int_equal(ask_count(store).number, 1);
        cf_op *op = NULL;
        int    status = cf_submit(store, CF_REQUEST(CF_OP_SCAN, .limit = 1000), &op);
        assert_int_equal(status == CF_PENDING ? cf_op_wait(op) : status, CF_OK);
        cf_slice key;
        assert_true(cf_op_next_key(op, &key));
        assert_true(same(key, "k"));
        assert_false(cf_op_next_key(op, &key));
        cf_op_free(op);
        answer a = ask(store, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE));
        assert_int_equal(a.status, CF_OK);
        assert_int_equal(a.number, 1);
        assert_int_equal(server_number(&redis, "DBSIZE"), keys - 1);
        /* A caller who asks for that key is refused, and another store finds nothing. */
        assert_int_equal(ask_get(store, "\n{records}user:x").status, CF_EINVAL);
        cf_store *other = open_prefixed(*state, "other:", "");
        cf_record wanted = user_with("ada@example.org");
        outcome   o = accounts(other, CF_FIND_USER_BY_EMAIL, &wanted, NULL);
        assert_int_equal(o.status, CF_OK);
        assert_false(o.brought);
        let_go(&o);
        o = accounts(store, CF_FIND_USER_BY_EMAIL, &wanted, NULL);
        assert_true(o.brought && same(field(&o, 0), user));
        let_go(&o);
        cf_store_close(other, NULL);
        cf_store_close(store, NULL);
    }
}

/* What a record is found by may hold what the keys are made of. */
static void texts_like_keys(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    cf_record user = {.kind = CF_USER}, first = account_of("a:b", "c"), second = account_of("a", "b:c"), third = account_of("a,b", "}{");
    const cf_record *const all[] = {&first, &second, &third};
    for (int i = 0; i < 3; i++) {
        outcome o = accounts(store, CF_FIND_OR_CREATE, all[i], &user);
        assert_int_equal(o.status, CF_OK);
        assert_int_equal(o.number, 1);
        let_go(&o);
    }
    for (int i = 0; i < 3; i++) {
        outcome o = accounts(store, CF_FIND_SOCIAL_ACCOUNT, all[i], NULL);
        assert_true(o.brought);
        assert_true(same(field(&o, CF_SOCIAL_ACCOUNT_PROVIDER), i == 0 ? "a:b" : i == 1 ? "a" : "a,b"));
        let_go(&o);
    }
    /* An id that is the rest of another key's name. */
    cf_record odd = of_id(CF_USER, "x.email_key:y");
    outcome   o = accounts(store, CF_FIND_USER_BY_ID, &odd, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_false(o.brought);
    let_go(&o);
}

/* ------------------------------------------------------------------------------------------------------------- races -- */

typedef struct racer {
    pthread_t          thread;
    pthread_barrier_t *start;
    int                index, won, lost, faults;
    int (*race)(struct racer *, cf_store *, int turn);
    char seen[64][CF_ID_LEN + 1];
} racer;

enum { TURNS = 40 };

static void *run_racer(void *data)
{
    racer   *r = data;
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_store *store = open_prefixed(loop, "r:", "");
    for (int turn = 0; turn < TURNS; turn++) {
        pthread_barrier_wait(r->start);
        int won = r->race(r, store, turn);
        r->won += won == 1;
        r->lost += won == 0;
        r->faults += won < 0;
    }
    cf_loop_free(loop);
    return NULL;
}

/* 1: it has made the record, 0: it got the winner's; and which it is. */
static int race_for_an_email(racer *r, cf_store *store, int turn)
{
    char email[64];
    snprintf(email, sizeof email, "%s%d@example.org", r->index % 2 ? "ADA" : "ada", turn);
    cf_record user = user_with(email);
    outcome   o = accounts(store, CF_CREATE_USER, &user, NULL);
    int       won = o.status == CF_OK ? 1 : o.status == CF_EEXISTS && o.outcome == CF_NOT_APPLIED ? 0 : -1;
    if (o.count != 1 || field(&o, 0).len != CF_ID_LEN) won = -1;
    else memcpy(r->seen[turn], field(&o, 0).ptr, CF_ID_LEN);
    let_go(&o);
    return won;
}

static int race_for_an_account(racer *r, cf_store *store, int turn)
{
    char id[32], email[64];
    snprintf(id, sizeof id, "%d", turn);
    snprintf(email, sizeof email, "%d.%d@example.org", turn, r->index);
    cf_record account = account_of("google", id), user = user_with(email);
    outcome   o = accounts(store, CF_FIND_OR_CREATE, &account, &user);
    int       won = o.status != CF_OK || o.count != 2 ? -1 : (int)o.number;
    if (won >= 0) memcpy(r->seen[turn], field(&o, 0).ptr, CF_ID_LEN);
    let_go(&o);
    return won;
}

static void race(int (*of)(racer *, cf_store *, int))
{
    static racer      racers[RACERS];
    pthread_barrier_t start;
    int               won = 0, lost = 0, faults = 0;
    memset(racers, 0, sizeof racers);
    pthread_barrier_init(&start, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        racers[i].start = &start;
        racers[i].index = i;
        racers[i].race = of;
        assert_int_equal(pthread_create(&racers[i].thread, NULL, run_racer, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        won += racers[i].won;
        lost += racers[i].lost;
        faults += racers[i].faults;
        for (int turn = 0; turn < TURNS; turn++) assert_string_equal(racers[i].seen[turn], racers[0].seen[turn]);
    }
    pthread_barrier_destroy(&start);
    assert_int_equal(faults, 0);
    assert_int_equal(won, TURNS);
    assert_int_equal(lost, TURNS * (RACERS - 1));
}

static void eight_want_one_email(void **state)
{
    (void)state;
    race(race_for_an_email);
    assert_int_equal(server_number(&redis, "DBSIZE"), TURNS * 2); /* a record and its index */
}

static void eight_want_one_social_account(void **state)
{
    (void)state;
    race(race_for_an_account);
    assert_int_equal(server_number(&redis, "DBSIZE"), TURNS * 5); /* nothing of a loser's user is left */
}

/* Whoever began before a revocation has no session after it. */
static int race_with_revocations(racer *r, cf_store *store, int turn)
{
    char      hash[32];
    cf_record group = group_of("u"), session, end = revocation("u");
    snprintf(hash, sizeof hash, "%d.%d", r->index, turn);
    session = session_of("u", hash, NOW);
    if (r->index == 0) {
        outcome o = sessions(store, CF_SESSION_REVOKE_ALL, &end, NULL);
        int     fine = o.status == CF_OK;
        let_go(&o);
        return fine ? 0 : -1;
    }
    outcome         o = sessions(store, CF_SESSION_READ_EPOCH, &group, NULL);
    cf_session_args args = {.size = sizeof args, .epoch = o.number};
    int             fine = o.status == CF_OK;
    let_go(&o);
    if (!fine) return -1;
    o = sessions_of(store, 10000, CF_SESSION_CREATE, &session, &args);
    int won = o.status == CF_ECHANGED ? 0 : o.status != CF_OK ? -1 : 1;
    /* A session says the epoch that it was made in, which is the one that was read. */
    if (won == 1 && o.first.fields[CF_SESSION_EPOCH].number != args.epoch) won = -1;
    let_go(&o);
    return won;
}

static void revocations_against_logins(void **state)
{
    static racer      racers[RACERS];
    pthread_barrier_t start;
    int               won = 0, lost = 0;
    pthread_barrier_init(&start, NULL, RACERS);
    memset(racers, 0, sizeof racers);
    for (int i = 0; i < RACERS; i++) {
        racers[i].start = &start;
        racers[i].index = i;
        racers[i].race = race_with_revocations;
        assert_int_equal(pthread_create(&racers[i].thread, NULL, run_racer, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        assert_int_equal(racers[i].faults, 0);
        won += racers[i].won;
        lost += racers[i].lost;
    }
    pthread_barrier_destroy(&start);
    assert_int_equal(won + lost, TURNS * RACERS);
    /* Every session that is not revoked was made in the epoch that is now; every other is revoked. */
    cf_store       *store = open_prefixed(*state, "r:", "");
    cf_record       group = group_of("u");
    cf_session_args args = {.size = sizeof args, .epoch = -1, .limit = 10000};
    outcome         o = sessions(store, CF_SESSION_LIST, &group, &args);
    assert_int_equal(o.status, CF_OK);
    assert_int_equal(o.count, won);
    assert_int_equal(o.number, TURNS);
    cf_op_free(o.op);
    cf_sessions all = {.store = store};
    cf_op      *op = NULL;
    int         status = cf_sessions_call(&all, CF_SESSION_LIST, &group, &args, NULL, &op);
    assert_int_equal(status == CF_PENDING ? cf_op_wait(op) : status, CF_OK);
    for (cf_record record; cf_op_next_record(op, &record);) {
        bool revoked = record.fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN;
        assert_int_equal(revoked, record.fields[CF_SESSION_EPOCH].number < TURNS);
    }
    cf_op_free(op);
}

/* Asked again after its answer was lost, an update does not undo what somebody else has done meanwhile. */
static void a_lost_update_is_not_done_twice(void **state)
{
    char          at[32];
    cf_loop      *elsewhere;
    id_text       user;
    snprintf(at, sizeof at, "127.0.0.1:%d", redis.port);
    faults_proxy *proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), at);
    assert_non_null(proxy);
    assert_ok(cf_loop_new(NULL, &elsewhere));
    cf_store *store = open_redis(*state, proxy->port, NULL, 0), *other = open_redis(elsewhere, redis.port, NULL, 0);
    make_user(other, "ada@example.org", user);
    cf_record ours = of_id(CF_USER, user), theirs = of_id(CF_USER, user);
    cf_record_text(&ours, CF_USER_USER_INFO, cf_text("{}"));
    cf_record_text(&theirs, CF_USER_USER_INFO, cf_text("{\"later\":1}"));
    outcome o = accounts(other, CF_UPDATE_USER, &theirs, NULL); /* the server knows the script */
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    for (int i = 0; i < 2; i++) assert_miss(ask_get(store, "calm"));
    unsigned long long fired = faults_figure(proxy, "fired");
    assert_int_equal(atoi(faults_say(proxy, "now cut reply 0 rst")), 1);
    cf_accounts a = {.store = store};
    cf_op      *op = NULL;
    assert_int_equal(cf_accounts_call(&a, CF_UPDATE_USER, &ours, NULL, NULL, &op), CF_PENDING);
    cf_loop_flush(*state);
    assert_null(strstr(faults_say(proxy, "wait fired >= %llu 20000", fired + 1), "late"));
    assert_string_equal(says("HGET \"" BASE "user:%s\" user_info", user), "{}");
    o = accounts(other, CF_UPDATE_USER, &theirs, NULL);
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    o = took(op, CF_PENDING);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit && same(field(&o, CF_USER_USER_INFO), "{\"later\":1}"));
    let_go(&o);
    assert_string_equal(says("HGET \"" BASE "user:%s\" user_info", user), "{\"later\":1}");
    cf_loop_free(elsewhere);
    assert_ok(cf_store_close(store, NULL));
    faults_proxy_stop(proxy);
}

/* ------------------------------------------------------------------------------------------------------------ healing -- */

static void a_hash_that_is_gone(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   user, other, a, b, again;
    make_user(store, "ada@example.org", user);
    make_session(store, user, "h1", NOW, a);
    make_session(store, user, "h2", NOW + 1, b);
    assert_string_equal(says("DEL \"p:" BASE "user:%s\" \"p:" BASE "session:%s\"", user, a), ":2");
    /* Nobody is found by what is left of it, */
    cf_record wanted = user_with("ada@example.org"), group = group_of(user), gone = {.kind = CF_SESSION};
    cf_record_text(&gone, CF_SESSION_TOKEN_HASH, cf_text("h1"));
    outcome o = accounts(store, CF_FIND_USER_BY_EMAIL, &wanted, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_false(o.brought);
    let_go(&o);
    o = sessions(store, CF_SESSION_GET, &gone, &(cf_session_args){.size = sizeof(cf_session_args), .now = NOW, .epoch = -1});
    assert_int_equal(o.status, CF_OK);
    assert_false(o.brought);
    let_go(&o);
    /* the list mends the group, */
    assert_string_equal(says("ZCARD \"p:" BASE "session.user_id:%s\"", user), ":2");
    o = sessions(store, CF_SESSION_LIST, &group, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_int_equal(o.count, 1);
    let_go(&o);
    assert_string_equal(says("ZCARD \"p:" BASE "session.user_id:%s\"", user), ":1");
    /* and what was unique is free: for a new one, and for a change. */
    make_session(store, user, "h1", NOW, again);
    assert_string_equal(says("GET \"p:" BASE "session.token_hash:h1\""), again);
    make_user(store, "bob@example.org", other);
    cf_record change = user_with("ada@example.org");
    cf_record_text(&change, CF_USER_ID, cf_text(other));
    o = accounts(store, CF_UPDATE_USER, &change, NULL);
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    assert_string_equal(says("GET \"p:" BASE "user.email_key:ada@example.org\""), other);
    assert_string_equal(says("EXISTS \"p:" BASE "user.email_key:bob@example.org\""), ":0");
}

static void an_index_that_says_something_else(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   user, other;
    make_user(store, "ada@example.org", user);
    says("SET \"p:" BASE "user.email_key:bob@example.org\" %s", user);
    cf_record wanted = user_with("bob@example.org");
    outcome   o = accounts(store, CF_FIND_USER_BY_EMAIL, &wanted, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_false(o.brought);
    let_go(&o);
    make_user(store, "bob@example.org", other);
    assert_string_equal(says("GET \"p:" BASE "user.email_key:bob@example.org\""), other);
    /* Removing the one whose index names another leaves that index. */
    says("SET \"p:" BASE "user.email_key:ada@example.org\" %s", other);
    cf_record gone = of_id(CF_USER, user);
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit);
    let_go(&o);
    assert_string_equal(says("GET \"p:" BASE "user.email_key:ada@example.org\""), other);
    /* An index that is gone comes back with the next change. */
    says("DEL \"p:" BASE "user.email_key:bob@example.org\"");
    cf_record change = of_id(CF_USER, other);
    cf_record_text(&change, CF_USER_USER_INFO, cf_text("{}"));
    o = accounts(store, CF_UPDATE_USER, &change, NULL);
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    assert_string_equal(says("GET \"p:" BASE "user.email_key:bob@example.org\""), other);
}

/* What has gone counts no more when there is a limit; nothing of somebody else's goes with a user. */
static void groups_with_gaps(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   a, b, c, user;
    cf_record session = session_of("u", "h3", NOW + 2), group = group_of("u");
    make_session(store, "u", "h1", NOW, a);
    make_session(store, "u", "h2", NOW + 1, b);
    says("DEL \"p:" BASE "session:%s\"", a);
    outcome o = sessions_of(store, 2, CF_SESSION_CREATE, &session, NULL);
    copy_id(&o, c);
    let_go(&o);
    assert_string_equal(says("EXISTS \"p:" BASE "session:%s\" \"p:" BASE "session:%s\"", b, c), ":2");
    assert_string_equal(says("ZCARD \"p:" BASE "session.user_id:u\""), ":2");
    /* The next one takes the place of the oldest, and its index goes with it. */
    session = session_of("u", "h4", NOW + 3);
    o = sessions_of(store, 2, CF_SESSION_CREATE, &session, NULL);
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    assert_string_equal(says("EXISTS \"p:" BASE "session:%s\" \"p:" BASE "session.token_hash:h2\"", b), ":0");
    o = sessions(store, CF_SESSION_LIST, &group, NULL);
    assert_int_equal(o.count, 2);
    let_go(&o);
    /* A group that holds somebody else's session shows and removes it not. */
    make_user(store, "ada@example.org", user);
    says("ZADD \"p:" BASE "session.user_id:%s\" 1 %s", user, c);
    group = group_of(user);
    says("ZADD \"p:" BASE "session.user_id:%s\" 2 %s", user, c);
    cf_record end = revocation(user);
    o = sessions(store, CF_SESSION_REVOKE_ALL, &end, NULL);
    assert_int_equal(o.number, 0);
    let_go(&o);
    says("ZADD \"p:" BASE "session.user_id:%s\" 2 %s", user, c);
    cf_record gone = of_id(CF_USER, user);
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_true(o.hit);
    let_go(&o);
    assert_string_equal(says("HEXISTS \"p:" BASE "session:%s\" revoked_at", c), ":0");
    assert_string_equal(says("EXISTS \"p:" BASE "session:%s\"", c), ":1");
}

static void everything_of_a_user_goes(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    cf_record account = account_of("google", "1"), user = user_with("ada@example.org");
    id_text   id, session;
    outcome   o = accounts(store, CF_FIND_OR_CREATE, &account, &user);
    assert_int_equal(o.number, 1);
    memcpy(id, field(&o, CF_SOCIAL_ACCOUNT_USER_ID).ptr, CF_ID_LEN);
    id[CF_ID_LEN] = 0;
    let_go(&o);
    make_session(store, id, "h", NOW, session);
    cf_record gone = of_id(CF_USER, id);
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_true(o.hit);
    let_go(&o);
    assert_string_equal(says("GET \"p:" BASE "session.epoch:%s\"", id), "1");
    says("EVAL \"for _,k in ipairs(redis.call('KEYS','*receipt:*')) do redis.call('DEL',k) end return 1\" 0");
    assert_int_equal(server_number(&redis, "DBSIZE"), 1); /* the epoch alone */
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_false(o.hit);
    let_go(&o);
}

/* ------------------------------------------------------------------------------------------------------------- damage -- */

static void damage_is_told(void **state)
{
    static const char *const wounds[] = {
        "HDEL %s created_at",        "HDEL %s user_id",       "HDEL %s id",          "HSET %s expires_at soon", "HSET %s expires_at 1.5",
        "HSET %s created_at -5",     "HSET %s epoch ''",      "HSET %s epoch 1e3",   "HDEL %s token_hash",      "HSET %s revoked_at 99999999999999999999",
        "HSET %s user_agent \"\\xff\\xfe\"",
    };
    cf_store *store = open_prefixed(*state, "p:", "");
    for (size_t i = 0; i < sizeof wounds / sizeof *wounds; i++) {
        id_text id;
        char    key[128];
        says("FLUSHALL");
        make_session(store, "u", "h", NOW, id);
        snprintf(key, sizeof key, "\"p:" BASE "session:%s\"", id);
        char command[256];
        snprintf(command, sizeof command, wounds[i], key);
        server_says(&redis, command);
        cf_record wanted = of_id(CF_SESSION, id), group = group_of("u");
        outcome   o = sessions(store, CF_SESSION_GET_ANY, &wanted, NULL);
        if (o.status != CF_ECORRUPT) fail_msg("%s: %s", wounds[i], cf_status_name(o.status));
        assert_int_equal(o.outcome, CF_NOT_APPLIED);
        assert_false(o.brought);
        assert_null(strstr(o.text, id));
        let_go(&o);
        o = sessions(store, CF_SESSION_LIST, &group, NULL);
        assert_int_equal(o.status, CF_ECORRUPT);
        assert_false(o.brought);
        let_go(&o);
        /* All the same it can be revoked with the others. */
        cf_record end = revocation("u");
        o = sessions(store, CF_SESSION_REVOKE_ALL, &end, NULL);
        assert_int_equal(o.status, CF_OK);
        let_go(&o);
        assert_value(ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_text("v"))), "");
    }
    assert_int_equal(stat_of(store, "disconnects"), 0);
}

static void keys_of_another_type(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    cf_record session = session_of("u", "h", NOW), end = revocation("u"), group = group_of("u"), by_hash = {.kind = CF_SESSION};
    cf_record_text(&by_hash, CF_SESSION_TOKEN_HASH, cf_text("h"));
    static const char *const wounds[] = {"SET \"p:" BASE "session.user_id:u\" x", "SET \"p:" BASE "session.epoch:u\" many", "SADD \"p:" BASE "session.epoch:u\" x",
                                         "SADD \"p:" BASE "session.token_hash:h\" x"};
    for (int i = 0; i < 4; i++) {
        says("FLUSHALL");
        server_says(&redis, wounds[i]);
        outcome o = sessions(store, CF_SESSION_CREATE, &session, NULL);
        assert_int_equal(o.status, CF_ECORRUPT);
        assert_int_equal(o.outcome, CF_NOT_APPLIED);
        let_go(&o);
        if (i < 3) {
            o = sessions(store, CF_SESSION_REVOKE_ALL, &end, NULL);
            assert_int_equal(o.status, CF_ECORRUPT);
            assert_int_equal(o.outcome, CF_NOT_APPLIED);
            let_go(&o);
            o = sessions(store, CF_SESSION_LIST, &group, NULL);
        } else {
            o = sessions(store, CF_SESSION_GET, &by_hash, NULL);
        }
        assert_int_equal(o.status, CF_ECORRUPT);
        let_go(&o);
        assert_int_equal(server_number(&redis, "DBSIZE"), 1); /* nothing was begun */
    }
    says("FLUSHALL");
    says("SET \"p:" BASE "user:0123456789abcdef0123456789abcdef\" x");
    cf_record wanted = of_id(CF_USER, "0123456789abcdef0123456789abcdef");
    outcome   o = accounts(store, CF_FIND_USER_BY_ID, &wanted, NULL);
    assert_int_equal(o.status, CF_ECORRUPT);
    let_go(&o);
}

/* ---- a server that says what it likes ---- */

typedef struct liar {
    pthread_t       thread;
    pthread_mutex_t lock;
    int             fd, port;
    bool            over;
    const char     *says;
    size_t          len;
} liar;

/* One command: its first word, and past all of it. NULL: it is not whole yet. */
static const char *past_command(const char *at, const char *end, cf_slice *word)
{
    const char *line = memchr(at, '\n', (size_t)(end - at));
    if (!line) return NULL;
    long parts = strtol(at + 1, NULL, 10);
    at = line + 1;
    for (long i = 0; i < parts; i++) {
        line = memchr(at, '\n', (size_t)(end - at));
        if (!line) return NULL;
        long len = strtol(at + 1, NULL, 10);
        if (end - line - 1 < len + 2) return NULL;
        if (i == 0) *word = cf_bytes(line + 1, (size_t)len);
        at = line + 1 + len + 2;
    }
    return at;
}

static void answer_commands(liar *l, int fd)
{
    static char input[64 * 1024];
    size_t      len = 0;
    for (;;) {
        ssize_t got = recv(fd, input + len, sizeof input - 1 - len, 0);
        if (got <= 0) return;
        len += (size_t)got;
        input[len] = 0;
        const char *at = input, *next;
        cf_slice    word = {0};
        for (; (next = past_command(at, input + len, &word)); at = next) {
            const char *fixed = same(word, "PING") ? "+PONG\r\n" : same(word, "CLIENT") ? "+OK\r\n" : same(word, "INFO") ? "$0\r\n\r\n" : same(word, "CONFIG") ? "*0\r\n" : NULL;
            pthread_mutex_lock(&l->lock);
            ssize_t sent = fixed ? send(fd, fixed, strlen(fixed), MSG_NOSIGNAL) : send(fd, l->says, l->len, MSG_NOSIGNAL);
            pthread_mutex_unlock(&l->lock);
            if (sent < 0) return;
        }
        len -= (size_t)(at - input);
        memmove(input, at, len);
    }
}

static void *lie(void *data)
{
    liar *l = data;
    for (;;) {
        int fd = accept(l->fd, NULL, NULL);
        if (fd < 0) return NULL;
        pthread_mutex_lock(&l->lock);
        bool over = l->over;
        pthread_mutex_unlock(&l->lock);
        if (!over) answer_commands(l, fd);
        close(fd);
        if (over) return NULL;
    }
}

static void liar_start(liar *l)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t          size = sizeof address;
    memset(l, 0, sizeof *l);
    pthread_mutex_init(&l->lock, NULL);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(l->fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(l->fd, 8), 0);
    assert_int_equal(getsockname(l->fd, (struct sockaddr *)&address, &size), 0);
    l->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&l->thread, NULL, lie, l), 0);
}

static void liar_says(liar *l, const char *bytes, size_t len)
{
    pthread_mutex_lock(&l->lock);
    l->says = bytes;
    l->len = len;
    pthread_mutex_unlock(&l->lock);
}

static void liar_stop(liar *l)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)l->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    pthread_mutex_lock(&l->lock);
    l->over = true;
    pthread_mutex_unlock(&l->lock);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)connect(fd, (struct sockaddr *)&address, sizeof address);
    pthread_join(l->thread, NULL);
    close(fd);
    close(l->fd);
}

/* What a method makes of an answer. */
static outcome hear(cf_loop *loop, liar *l, int method, cf_store **store, int64_t timeout_ms)
{
    cf_record   user = user_with("ada@example.org"), session = {.kind = CF_SESSION}, group = group_of("u"), all = revocation("u"), id = of_id(CF_USER, "x");
    cf_call     call = {.timeout_ms = timeout_ms};
    cf_op      *op = NULL;
    *store = open_redis(loop, l->port, NULL, timeout_ms);
    cf_accounts a = {.store = *store};
    cf_sessions s = {.store = *store};
    cf_record_text(&session, CF_SESSION_TOKEN_HASH, cf_text("h"));
    int status = method == 0   ? cf_sessions_call(&s, CF_SESSION_GET_ANY, &(cf_record){.kind = CF_SESSION, .fields[0] = {CF_GIVEN, 0, cf_text("0123456789abcdef0123456789abcdef")}}, NULL, &call, &op)
                 : method == 1 ? cf_sessions_call(&s, CF_SESSION_LIST, &group, NULL, &call, &op)
                 : method == 2 ? cf_accounts_call(&a, CF_CREATE_USER, &user, NULL, &call, &op)
                 : method == 3 ? cf_sessions_call(&s, CF_SESSION_REVOKE_ALL, &all, NULL, &call, &op)
                               : cf_accounts_call(&a, CF_DELETE_USER, &id, NULL, &call, &op);
    return took(op, status);
}

#define A_RECORD                                                                                                                                        \
    "$2\r\nid\r\n$32\r\n0123456789abcdef0123456789abcdef\r\n$7\r\nuser_id\r\n$1\r\nu\r\n$10\r\ntoken_hash\r\n$1\r\nh\r\n$10\r\ncreated_at\r\n$1\r\n5\r\n"  \
    "$10\r\nupdated_at\r\n$1\r\n5\r\n$10\r\nexpires_at\r\n$1\r\n5\r\n$5\r\nepoch\r\n$1\r\n0\r\n"
#define ONE_SESSION "*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*14\r\n" A_RECORD

static void answers_that_no_script_of_ours_gives(void **state)
{
    static const struct {
        const char *says;
        int         method, status;
    } rows[] = {
        {ONE_SESSION, 0, CF_OK},
        {ONE_SESSION, 1, CF_OK},
        {"*2\r\n:0\r\n:0\r\n", 0, CF_OK},
        {"*2\r\n:1\r\n:0\r\n", 2, CF_OK},
        {"*2\r\n:1\r\n:0\r\n", 0, CF_ECORRUPT},                                                 /* found, and no record */
        {"*3\r\n:1\r\n:0\r\n$7\r\nsession\r\n", 0, CF_ECORRUPT},
        {"*5\r\n:1\r\n:0\r\n$7\r\nsession\r\n*14\r\n" A_RECORD "*14\r\n" A_RECORD, 0, CF_ECORRUPT}, /* two */
        {"*2\r\n:2\r\n:0\r\n", 2, CF_ECORRUPT},                                                 /* there already, and no record */
        {"*2\r\n:9\r\n:0\r\n", 2, CF_ECORRUPT},
        {"*2\r\n:-1\r\n:0\r\n", 2, CF_ECORRUPT},
        {"*2\r\n:1\r\n:-1\r\n", 3, CF_ECORRUPT},
        {"*1\r\n:1\r\n", 3, CF_ECORRUPT},
        {"*0\r\n", 4, CF_ECORRUPT},
        {"*3\r\n:1\r\n:0\r\n:0\r\n", 1, CF_ECORRUPT},
        {"*2\r\n$1\r\n1\r\n:0\r\n", 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$5\r\nrobot\r\n*14\r\n" A_RECORD, 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$4\r\nuser\r\n*14\r\n" A_RECORD, 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$4\r\nuser\r\n*8\r\n$2\r\nid\r\n$1\r\nx\r\n$14\r\nemail_verified\r\n$1\r\n0\r\n$10\r\ncreated_at\r\n$1\r\n5\r\n$10\r\nupdated_at\r\n$1\r\n5\r\n", 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*0\r\n", 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*1\r\n$2\r\nid\r\n", 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*2\r\n$2\r\nid\r\n:5\r\n", 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*2\r\n$2\r\nid\r\n$-1\r\n", 1, CF_ECORRUPT},
        {"*3\r\n:1\r\n:0\r\n*14\r\n" A_RECORD, 1, CF_ECORRUPT},                                   /* of no kind */
        {"*1\r\n*14\r\n" A_RECORD, 1, CF_ECORRUPT},
        {"*4\r\n:1\r\n:0\r\n$7\r\nsession\r\n*1\r\n*1\r\n:1\r\n", 1, CF_EUNAVAILABLE},              /* too deep: not the protocol of ours */
        {":1\r\n", 1, CF_EUNAVAILABLE},
        {"$-1\r\n", 2, CF_EUNAVAILABLE},
        {"*200000\r\n", 1, CF_EUNAVAILABLE},
        /* a right that a script lacks, as 7.0 and later servers say it */
        {"-ERR The user executing the script can't run this command or subcommand script: 0, on @user_script:1.\r\n", 3, CF_EAUTH},
        {"-ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 0, on @user_script:1.\r\n", 3, CF_EAUTH},
        {"-ERR ACL failure in script: User app has no permissions to run the 'hset' command script: 0, on @user_script:1.\r\n", 2, CF_EAUTH},
    };
    liar l;
    liar_start(&l);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cf_store *store;
        liar_says(&l, rows[i].says, strlen(rows[i].says));
        outcome o = hear(*state, &l, rows[i].method, &store, rows[i].status == CF_EUNAVAILABLE ? 60 : 5000);
        bool    late = rows[i].status == CF_EUNAVAILABLE && o.status == CF_ETIMEOUT; /* it was asked again until then */
        if (o.status != rows[i].status && !late) fail_msg("answer %zu: %s, %s", i, cf_status_name(o.status), o.text);
        if (o.status < 0 && o.brought) fail_msg("answer %zu brings a record", i);
        let_go(&o);
        assert_ok(cf_store_close(store, NULL));
    }
    liar_stop(&l);
}

/* A server that does not keep to the bound of a list; the connection goes on behind it. */
static void an_answer_that_is_too_large(void **state)
{
    enum { SESSIONS = 300, AGENT = 60000 };
    static const char head[] = "*16\r\n" A_RECORD "$10\r\nuser_agent\r\n$60000\r\n";
    size_t    one = sizeof head - 1 + AGENT + 2, len;
    char     *bytes = malloc(64 + SESSIONS * one);
    cf_store *store;
    liar      l;
    assert_non_null(bytes);
    for (int count = 250; count <= SESSIONS; count += SESSIONS - 250) {
        len = (size_t)sprintf(bytes, "*%d\r\n:1\r\n:0\r\n$7\r\nsession\r\n", 3 + count);
        for (int i = 0; i < count; i++, len += one) {
            memcpy(bytes + len, head, sizeof head - 1);
            memset(bytes + len + sizeof head - 1, 'x', AGENT);
            memcpy(bytes + len + one - 2, "\r\n", 2);
        }
        liar_start(&l);
        liar_says(&l, bytes, len);
        outcome o = hear(*state, &l, 1, &store, 20000);
        if (count == SESSIONS) {
            assert_int_equal(o.status, CF_ECORRUPT);
            assert_non_null(strstr(o.text, "16777216 bytes"));
            assert_false(o.brought);
        } else {
            assert_int_equal(o.status, CF_OK);
            assert_int_equal(o.count, 50); /* a page */
        }
        let_go(&o);
        assert_int_equal(stat_of(store, "disconnects"), 0);
        assert_ok(cf_store_close(store, NULL));
        liar_stop(&l);
    }
    free(bytes);
}

/* Bytes that are changed, taken away or doubled: whatever comes of it, the call ends. */
static void answers_that_were_garbled(void **state)
{
    static const char *const whole[] = {ONE_SESSION, "*5\r\n:1\r\n:3\r\n$7\r\nsession\r\n*14\r\n" A_RECORD "*14\r\n" A_RECORD, "*2\r\n:1\r\n:0\r\n",
                                        "*4\r\n:2\r\n:0\r\n$7\r\nsession\r\n*14\r\n" A_RECORD};
    static const char        odd[] = "\r\n$*:-+0129\xff";
    rng      random = {seed_of_run()};
    uint64_t times = env_number("CF_GARBLED", 300), fine = 0, corrupt = 0, other = 0;
    liar     l;
    liar_start(&l);
    for (uint64_t i = 0; i < times; i++) {
        char      bytes[4096];
        const char *from = whole[rng_below(&random, 4)];
        size_t    len = strlen(from);
        cf_store *store;
        memcpy(bytes, from, len);
        for (uint64_t wounds = 1 + rng_below(&random, 2); wounds; wounds--) {
            size_t at = (size_t)rng_below(&random, len);
            uint64_t how = rng_below(&random, 8);
            if (how == 0) {
                memmove(bytes + at, bytes + at + 1, len - at - 1);
                len--;
            } else if (how == 1) {
                memmove(bytes + at + 1, bytes + at, len - at);
                len++;
            } else {
                bytes[at] = how < 5 ? (char)rng_below(&random, 256) : odd[rng_below(&random, sizeof odd - 1)];
            }
        }
        liar_says(&l, bytes, len);
        outcome o = hear(*state, &l, (int)rng_below(&random, 5), &store, 25);
        fine += o.status == CF_OK;
        corrupt += o.status == CF_ECORRUPT;
        other += o.status < 0 && o.status != CF_ECORRUPT;
        if (o.status < 0 && o.status != CF_EEXISTS && o.brought) fail_msg("turn %llu brings a record", (unsigned long long)i);
        let_go(&o);
        assert_ok(cf_store_close(store, NULL));
        liar_says(&l, "", 0); /* a command that nobody waits for any more may still be answered, and these bytes go */
    }
    liar_stop(&l);
    printf("%llu garbled answers: %llu fine, %llu corrupt, %llu other\n", (unsigned long long)times, (unsigned long long)fine, (unsigned long long)corrupt,
           (unsigned long long)other);
    assert_true(corrupt && other);
}

/* ------------------------------------------------------------------------------------------------- rights, scripts, size -- */

static void a_user_with_the_prefix_alone(void **state)
{
    says("ACL SETUSER app on >secret resetkeys ~app:* -@all +get +set +del +exists +incr +pttl +persist +pexpire +pexpireat +hset +hdel +hget +hmget +hgetall +zadd +zrem "
         "+zrange +zcard +eval +evalsha +ping +info");
    cf_store *store = open_prefixed(*state, "app:", "?user=app&password=secret"), *other = open_prefixed(*state, "other:", "?user=app&password=secret");
    id_text   user, session;
    make_user(store, "ada@example.org", user);
    make_session(store, user, "h", NOW, session);
    cf_record change = user_with("eve@example.org"), end = of_id(CF_SESSION, session), all = revocation(user), group = group_of(user), gone = of_id(CF_USER, user);
    cf_record_text(&change, CF_USER_ID, cf_text(user));
    cf_record_null(&change, CF_USER_HASHED_PASSWORD);
    cf_record_number(&end, CF_SESSION_UPDATED_AT, NOW);
    cf_record_number(&end, CF_SESSION_EXPIRES_AT, NOW + 7200 * INT64_C(1000000));
    outcome o = accounts(store, CF_UPDATE_USER, &change, NULL);
    assert_int_equal(o.status, CF_OK);
    let_go(&o);
    o = sessions(store, CF_SESSION_REFRESH, &end, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit);
    let_go(&o);
    o = sessions(store, CF_SESSION_REVOKE_ALL, &all, NULL);
    assert_int_equal(o.number, 1);
    let_go(&o);
    o = sessions(store, CF_SESSION_LIST, &group, NULL);
    assert_int_equal(o.count, 1);
    let_go(&o);
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_true(o.hit);
    let_go(&o);
    cf_record user_of_others = user_with("ada@example.org");
    o = accounts(other, CF_CREATE_USER, &user_of_others, NULL);
    assert_int_equal(o.status, CF_EAUTH);
    assert_int_equal(o.outcome, CF_NOT_APPLIED);
    let_go(&o);
    says("ACL DELUSER app");
}

static void scripts_that_the_server_has_forgotten(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   user, session;
    says("SCRIPT FLUSH");
    make_user(store, "ada@example.org", user);
    says("SCRIPT FLUSH");
    make_session(store, user, "h", NOW, session);
    cf_record wanted = user_with("ada@example.org"), group = group_of(user), all = revocation(user), gone = of_id(CF_USER, user), change = of_id(CF_USER, user);
    cf_record_null(&change, CF_USER_EMAIL);
    for (int i = 0; i < 5; i++) {
        says("SCRIPT FLUSH");
        outcome o = i == 0   ? accounts(store, CF_FIND_USER_BY_EMAIL, &wanted, NULL)
                    : i == 1 ? sessions(store, CF_SESSION_LIST, &group, NULL)
                    : i == 2 ? sessions(store, CF_SESSION_REVOKE_ALL, &all, NULL)
                    : i == 3 ? accounts(store, CF_UPDATE_USER, &change, NULL)
                             : accounts(store, CF_DELETE_USER, &gone, NULL);
        assert_int_equal(o.status, CF_OK);
        assert_true(o.hit);
        let_go(&o);
    }
}

/* The largest list that is allowed arrives, in one answer; a larger one is refused in a sentence, and the connection goes on. */
static void ten_thousand_sessions(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    const char *said = says("EVAL \"local b='p:'..string.char(10)..'{records}' local agent=string.rep('x',tonumber(ARGV[1])) for i=1,10000 do local id=string.format('%%032x',i) "
                            "redis.call('HSET',b..'session:'..id,'id',id,'user_id','u','token_hash','h'..i,'created_at',i,'updated_at',i,'expires_at',i,'user_agent',agent,'epoch','0') "
                            "redis.call('ZADD',b..'session.user_id:u',i,id) end return 'done'\" 0 1000");
    assert_string_equal(said, "done");
    cf_record       group = group_of("u");
    cf_session_args args = {.size = sizeof args, .epoch = -1, .limit = 10000, .order = CF_CREATED_AT_ASC};
    outcome         o = sessions(store, CF_SESSION_LIST, &group, &args);
    assert_int_equal(o.status, CF_OK);
    assert_int_equal(o.count, 10000);
    assert_int_equal(field(&o, CF_SESSION_USER_AGENT).len, 1000);
    let_go(&o);
    said = says("EVAL \"local b='p:'..string.char(10)..'{records}' local agent=string.rep('x',65000) for i=1,300 do redis.call('HSET',b..'session:'..string.format('%%032x',i),"
                "'user_agent',agent) end return 'done'\" 0");
    assert_string_equal(said, "done");
    int64_t before = stat_of(store, "bytes_received");
    o = sessions(store, CF_SESSION_LIST, &group, &args);
    assert_true(stat_of(store, "bytes_received") - before < 1000); /* the server did not even put it together */
    assert_int_equal(o.status, CF_ECORRUPT);
    assert_non_null(strstr(o.text, "16777216 bytes"));
    assert_false(o.brought);
    let_go(&o);
    assert_int_equal(stat_of(store, "disconnects"), 0);
    cf_record all = revocation("u");
    o = sessions(store, CF_SESSION_REVOKE_ALL, &all, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_int_equal(o.number, 10000);
    let_go(&o);
}

/* A server whose memory is full takes no login, but it ends sessions and removes users. */
static void a_full_server_revokes(void **state)
{
    cf_store *store = open_prefixed(*state, "p:", "");
    id_text   user, one, two;
    make_user(store, "ada@example.org", user);
    make_session(store, user, "h1", NOW, one);
    make_session(store, user, "h2", NOW, two);
    says("CONFIG SET maxmemory 1");
    cf_record session = session_of(user, "h3", NOW), end = of_id(CF_SESSION, one), all = revocation(user), gone = of_id(CF_USER, user), change = user_with("eve@example.org");
    cf_record_number(&end, CF_SESSION_REVOKED_AT, NOW + 1);
    cf_record_text(&change, CF_USER_ID, cf_text(user));
    outcome o = sessions(store, CF_SESSION_CREATE, &session, NULL);
    assert_int_equal(o.status, CF_EUNAVAILABLE);
    assert_int_equal(o.outcome, CF_NOT_APPLIED);
    let_go(&o);
    o = accounts(store, CF_UPDATE_USER, &change, NULL);
    assert_int_equal(o.status, CF_EUNAVAILABLE);
    assert_int_equal(o.outcome, CF_NOT_APPLIED);
    let_go(&o);
    o = sessions(store, CF_SESSION_REVOKE, &end, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit);
    let_go(&o);
    o = sessions(store, CF_SESSION_REVOKE_ALL, &all, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_int_equal(o.number, 1);
    let_go(&o);
    o = accounts(store, CF_DELETE_USER, &gone, NULL);
    assert_int_equal(o.status, CF_OK);
    assert_true(o.hit);
    let_go(&o);
    says("CONFIG SET maxmemory 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, loop_up, loop_down)
        TEST(what_redis_holds),
        TEST(expiry_goes_on_with_a_refresh),
        TEST(keys_that_nobody_sees),
        TEST(texts_like_keys),
        TEST(eight_want_one_email),
        TEST(eight_want_one_social_account),
        TEST(revocations_against_logins),
        TEST(a_lost_update_is_not_done_twice),
        TEST(a_hash_that_is_gone),
        TEST(an_index_that_says_something_else),
        TEST(groups_with_gaps),
        TEST(everything_of_a_user_goes),
        TEST(damage_is_told),
        TEST(keys_of_another_type),
        TEST(answers_that_no_script_of_ours_gives),
        TEST(an_answer_that_is_too_large),
        TEST(answers_that_were_garbled),
        TEST(a_user_with_the_prefix_alone),
        TEST(scripts_that_the_server_has_forgotten),
        TEST(ten_thousand_sessions),
        TEST(a_full_server_revokes),
    };
    hang_guard(120);
    return cmocka_run_group_tests(tests, group_up, group_down);
}
