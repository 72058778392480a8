/* Users, social accounts and sessions at their edges: hooks and backends that misbehave, what a failed call says it has done, tokens in memory that is given
 * back, bytes of plans that are none. */
#define _GNU_SOURCE /* memmem */
#include "support.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------------------ memory -- */

/* Memory that is looked at when it is given back. */
static const char canary[] = "s3cr3t-canary-of-a-token";
static bool       leaked;
static int64_t    blocks;

typedef union header {
    size_t      size;
    max_align_t aligned;
} header;

static void *watched_alloc(void *self, size_t size)
{
    (void)self;
    header *h = malloc(sizeof *h + size);
    if (!h) return NULL;
    h->size = size;
    memset(h + 1, 0, size);
    blocks++;
    return h + 1;
}
static void watched_release(void *self, void *block)
{
    (void)self;
    if (!block) return;
    header *h = (header *)block - 1;
    /* Also what is left of one that was partly overwritten. */
    if (memmem(block, h->size, canary, 12) || memmem(block, h->size, canary + 12, 12)) leaked = true;
    blocks--;
    free(h);
}
static void *watched_resize(void *self, void *block, size_t size)
{
    void *next = watched_alloc(self, size);
    if (!next || !block) return next;
    size_t old = ((header *)block - 1)->size;
    memcpy(next, block, old < size ? old : size);
    watched_release(self, block);
    return next;
}

/* ------------------------------------------------------------------------------------------------------- application -- */

/* A backend that keeps records, or does the methods itself, as its test says. */
typedef struct app app;
struct app {
    int (*act)(app *a, cf_op *op);
    cf_loop *loop;
    uint64_t pending; /* a ticket */
    int      calls, cancels;
    int      cancel_says, cancel_status;
    int      status;
    int      variant;
    cf_record kept; /* of `room` */
    char      room[1 << 16];
    size_t    room_len;
};

static app the_app;

static cf_slice keep(app *a, cf_slice text)
{
    char *at = a->room + a->room_len;
    assert_true(a->room_len + text.len <= sizeof a->room);
    if (text.len) memcpy(at, text.ptr, text.len);
    a->room_len += text.len;
    return cf_bytes(at, text.len);
}
static void keep_record(app *a, const cf_record *record)
{
    a->room_len = 0;
    a->kept = *record;
    for (int i = 0; cf_field_name(record->kind, i); i++) a->kept.fields[i].text = keep(a, record->fields[i].text);
}

static int slot_act(cf_backend *self, cf_op *op)
{
    app *a = (app *)(void *)self;
    a->calls++;
    return a->act(a, op);
}
static int slot_none(cf_backend *self, cf_op *op) { return (void)self, cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "it has no keys"); }
static int slot_cancel(cf_backend *self, cf_op *op, int why)
{
    app *a = (app *)(void *)self;
    a->cancels++;
    if (why == CF_ETIMEOUT && a->cancel_status) cf_op_fail(op, a->cancel_status, a->cancel_says, "it could not be reached");
    return a->cancel_says;
}

static const cf_backend_table hooked = {.size = sizeof(cf_backend_table), .name = "hooked", .get = slot_none, .set = slot_none, .del = slot_none, .cancel = slot_cancel, .hook = slot_act};
static const cf_backend_table shelf = {.size = sizeof(cf_backend_table),
                                       .name = "shelf",
                                       .get = slot_none,
                                       .set = slot_none,
                                       .del = slot_none,
                                       .cancel = slot_cancel,
                                       .insert = slot_act,
                                       .update = slot_act,
                                       .find = slot_act,
                                       .list = slot_act,
                                       .remove = slot_act};

static const cf_key ring[] = {{.id = 7, .bytes = {1, 2, 3}}, {.id = 8, .bytes = {4, 5, 6}}};

typedef struct ground {
    cf_platform platform;
    cf_loop    *loop;
    cf_store   *store;
} ground;

static int up(void **state)
{
    ground *g = calloc(1, sizeof *g);
    g->platform = *cf_platform_real();
    g->platform.alloc = watched_alloc;
    g->platform.resize = watched_resize;
    g->platform.release = watched_release;
    leaked = false;
    blocks = 0;
    *state = g;
    return cf_loop_new(&g->platform, &g->loop);
}
static int down(void **state)
{
    ground *g = *state;
    cf_loop_free(g->loop);
    free(g);
    if (blocks) print_error("%lld blocks were not released\n", (long long)blocks);
    return blocks != 0;
}

static app *open_app(ground *g, const cf_backend_table *table, size_t keys, int (*act)(app *, cf_op *))
{
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:"), .keys = ring, .key_count = keys};
    memset(&the_app, 0, sizeof the_app);
    the_app.act = act;
    the_app.loop = g->loop;
    the_app.cancel_says = CF_UNKNOWN;
    assert_ok(cf_open_backend(g->loop, table, (cf_backend *)(void *)&the_app, &options, &g->store, NULL));
    return &the_app;
}

/* ------------------------------------------------------------------------------------------------------------- calls -- */

typedef struct got {
    cf_op *op;
    int    status, outcome;
    bool   hit;
    size_t count;
    cf_record records[4];
} got;

static got collect(cf_op *op, int status)
{
    got       g = {.op = op};
    cf_record record;
    while (status == CF_PENDING) status = cf_op_wait(op);
    g.status = status;
    g.outcome = cf_op_error(op)->outcome;
    g.hit = cf_op_hit(op);
    while (cf_op_next_record(op, &record)) {
        if (g.count < 4) g.records[g.count] = record;
        g.count++;
    }
    return g;
}
static got call_with(cf_store *store, int method, const cf_record *record, const cf_call *call)
{
    cf_accounts     accounts = {.store = store};
    const cf_record user = {.kind = CF_USER};
    cf_op          *op;
    int             status = cf_accounts_call(&accounts, method, record, method == CF_FIND_OR_CREATE ? &user : NULL, call, &op);
    return collect(op, status);
}
static got call(ground *g, int method, const cf_record *record) { return call_with(g->store, method, record, NULL); }
static void drop(got *g)
{
    cf_op_free(g->op);
    g->op = NULL;
}
#define assert_fails(got_, status_, outcome_)                       \
    do {                                                            \
        got assert_fails_ = (got_);                                 \
        assert_int_equal(assert_fails_.status, status_);            \
        assert_int_equal(assert_fails_.outcome, outcome_);          \
        if ((status_) != CF_EEXISTS) assert_int_equal(assert_fails_.count, 0); \
        drop(&assert_fails_);                                       \
    } while (0)

static cf_record social(const char *id)
{
    cf_record record = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ID, cf_text(id));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text("u1"));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("google"));
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("1"));
    cf_record_number(&record, CF_SOCIAL_ACCOUNT_CREATED_AT, 1);
    cf_record_number(&record, CF_SOCIAL_ACCOUNT_UPDATED_AT, 1);
    return record;
}
static cf_record user(const char *id)
{
    cf_record record = {.kind = CF_USER};
    cf_record_text(&record, CF_USER_ID, cf_text(id));
    cf_record_number(&record, CF_USER_CREATED_AT, 1);
    cf_record_number(&record, CF_USER_UPDATED_AT, 1);
    return record;
}
/* What a method is asked with. */
static cf_record question(int method)
{
    cf_record of_user = {.kind = CF_USER}, of_social = {.kind = CF_SOCIAL_ACCOUNT};
    switch (method) {
    case CF_FIND_USER_BY_EMAIL: cf_record_text(&of_user, CF_USER_EMAIL, cf_text("a@b.c")); return of_user;
    case CF_FIND_USER_BY_ID:
    case CF_UPDATE_USER:
    case CF_DELETE_USER: cf_record_text(&of_user, CF_USER_ID, cf_text("u1")); return of_user;
    case CF_CREATE_USER: return of_user;
    case CF_LIST_SOCIAL_ACCOUNTS: cf_record_text(&of_social, CF_SOCIAL_ACCOUNT_USER_ID, cf_text("u1")); return of_social;
    case CF_FIND_SOCIAL_ACCOUNT_BY_ID:
    case CF_UPDATE_SOCIAL_ACCOUNT:
    case CF_DELETE_SOCIAL_ACCOUNT: cf_record_text(&of_social, CF_SOCIAL_ACCOUNT_ID, cf_text("s1")); return of_social;
    default:
        cf_record_text(&of_social, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("google"));
        cf_record_text(&of_social, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("1"));
        if (method == CF_CREATE_SOCIAL_ACCOUNT) cf_record_text(&of_social, CF_SOCIAL_ACCOUNT_USER_ID, cf_text("u1"));
        return of_social;
    }
}
static bool only_reads(int method)
{
    return method == CF_FIND_USER_BY_EMAIL || method == CF_FIND_USER_BY_ID || method == CF_FIND_SOCIAL_ACCOUNT || method == CF_FIND_SOCIAL_ACCOUNT_BY_ID ||
           method == CF_LIST_SOCIAL_ACCOUNTS;
}

/* --------------------------------------------------------------------------------------------------------- outcomes -- */

static int pends(app *a, cf_op *op)
{
    a->pending = cf_op_ticket(op);
    return cf_op_keep(op) == CF_OK ? CF_PENDING : CF_ENOMEM;
}

static void who_ends_before_it_was_sent_has_changed_nothing(void **state)
{
    ground *g = *state;
    app    *a = open_app(g, &shelf, 0, pends);
    cf_call soon = {.timeout_ms = 1};
    for (int method = 0; method < CF_ACCOUNTS_METHODS; method++) {
        cf_record record = question(method);
        a->cancel_says = CF_NOT_APPLIED;
        a->cancel_status = 0;
        assert_fails(call_with(g->store, method, &record, &soon), CF_ETIMEOUT, CF_NOT_APPLIED);
        a->cancel_status = CF_EUNAVAILABLE; /* it knows better what the time was spent on */
        assert_fails(call_with(g->store, method, &record, &soon), CF_EUNAVAILABLE, CF_NOT_APPLIED);
        a->cancel_status = 0;
        a->cancel_says = CF_UNKNOWN;
        bool reads = only_reads(method) || method == CF_FIND_OR_CREATE; /* which looks first */
        assert_fails(call_with(g->store, method, &record, &soon), CF_ETIMEOUT, reads ? CF_NOT_APPLIED : CF_UNKNOWN);
    }
}

static void a_hook_that_reads_has_changed_nothing(void **state)
{
    ground *g = *state;
    app    *a = open_app(g, &hooked, 0, pends);
    cf_call soon = {.timeout_ms = 1};
    for (int method = 0; method < CF_ACCOUNTS_METHODS; method++) {
        cf_record record = question(method);
        a->cancel_says = CF_UNKNOWN;
        assert_fails(call_with(g->store, method, &record, &soon), CF_ETIMEOUT, only_reads(method) ? CF_NOT_APPLIED : CF_UNKNOWN);
        a->cancel_says = CF_NOT_APPLIED;
        assert_fails(call_with(g->store, method, &record, &soon), CF_ETIMEOUT, CF_NOT_APPLIED);
    }
}

static int fails(app *a, cf_op *op) { return (void)a, cf_op_fail(op, CF_EUNAVAILABLE, CF_UNKNOWN, "the tables are not there"); }

static void a_hook_that_fails(void **state)
{
    ground *g = *state;
    open_app(g, &hooked, 0, fails);
    for (int method = 0; method < CF_ACCOUNTS_METHODS; method++) {
        cf_record record = question(method);
        assert_fails(call(g, method, &record), CF_EUNAVAILABLE, only_reads(method) ? CF_NOT_APPLIED : CF_UNKNOWN);
    }
}

/* Everything of keys, up to the first call that is answered. */
static void who_waits_for_others_has_changed_nothing(void **state)
{
    ground       *g = *state;
    static tb_log log;
    cf_accounts   accounts = {0};
    cf_record     record = question(CF_CREATE_USER);
    cf_op        *first, *second;
    memset(&log, 0, sizeof log);
    assert_ok(tb_open(g->loop, TB_HAND, TB_DERIVED, &log, NULL, &accounts.store, NULL));
    tb *table = tb_last();
    assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, NULL, &first), CF_PENDING);
    assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, NULL, &second), CF_PENDING); /* it stands in the queue */
    assert_ok(cf_op_cancel(second));
    assert_int_equal(cf_op_error(second)->outcome, CF_NOT_APPLIED);
    cf_op_free(second);
    assert_int_equal(log.sets, 0);
    assert_ok(cf_op_cancel(first)); /* it was only reading */
    assert_int_equal(cf_op_error(first)->outcome, CF_NOT_APPLIED);
    cf_op_free(first);
    /* Once it writes nobody knows. */
    assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, NULL, &first), CF_PENDING);
    for (int i = 0; i < 100 && log.sets == 0 && tb_pending(table) == 1; i++) {
        if (cf_op_kind(cf_loop_op(g->loop, tb_ticket(table, 0))) == CF_OP_SET) break;
        assert_int_equal(tb_answer(table, 1), 1);
    }
    assert_ok(cf_op_cancel(first));
    assert_int_equal(cf_op_error(first)->outcome, CF_UNKNOWN);
    cf_op_free(first);
    while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
}

/* Gives up, from inside the nth slot that works for it, what the slot is a part of. */
typedef struct quitter {
    cf_op *whole;
    int    nth;
    bool   frees;
} quitter;

static int quit(tb *self, cf_op *op, void *user)
{
    (void)self, (void)op;
    quitter *q = user;
    if (!q->whole || --q->nth) return CF_OK;
    cf_op *whole = q->whole;
    q->whole = NULL;
    if (q->frees) {
        cf_op_free(whole);
    } else {
        assert_ok(cf_op_cancel(whole));
        assert_int_equal(cf_op_cancel(whole), CF_EINVAL);
    }
    return CF_OK;
}

static void who_is_given_up_inside_a_slot_ends_when_it_returns(void **state)
{
    ground       *g = *state;
    static tb_log log;
    int           given_up = 0;
    for (int what = 0; what < 3; what++)
        for (int frees = 0; frees < 2; frees++)
            for (int nth = 1;; nth++) {
                memset(&log, 0, sizeof log);
                quitter     q = {.nth = nth, .frees = frees};
                cf_accounts accounts = {0};
                cf_record   record = {.kind = CF_USER};
                cf_op      *op;
                seen        s = {0};
                cf_call     call = {.done = see, .user = &s};
                log.user = &q;
                assert_ok(tb_open(g->loop, TB_HAND, TB_DERIVED, &log, NULL, &accounts.store, NULL));
                tb *table = tb_last();
                assert_int_equal(cf_submit(accounts.store, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_text("v")), &op), CF_PENDING);
                while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
                cf_op_free(op);
                cf_record_text(&record, CF_USER_EMAIL, cf_text("a@b.c"));
                log.on_slot = quit;
                if (what == 0) assert_int_equal(cf_submit(accounts.store, CF_REQUEST(CF_OP_POP, .key = cf_text("k"), .done = see, .user = &s), &op), CF_PENDING);
                else assert_int_equal(cf_accounts_call(&accounts, what == 1 ? CF_CREATE_USER : CF_FIND_USER_BY_EMAIL, &record, NULL, &call, &op), CF_PENDING);
                q.whole = op;
                while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
                cf_loop_run(g->loop, 0);
                bool ended_so = !q.whole;
                assert_int_equal(s.calls, ended_so && frees ? 0 : 1);
                if (!(ended_so && frees)) {
                    assert_int_equal(s.status, ended_so ? CF_ECANCELED : CF_OK);
                    cf_op_free(op);
                }
                given_up += ended_so;
                assert_int_equal(cf_loop_pending(g->loop), 0);
                log.on_slot = NULL; /* nobody's lock is left */
                assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_USER, &(cf_record){.kind = CF_USER}, NULL, NULL, &op), CF_PENDING);
                while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
                assert_ok(cf_op_status(op));
                cf_op_free(op);
                assert_ok(cf_store_close(accounts.store, NULL));
                if (!ended_so) break;
            }
    assert_true(given_up >= 8);
}

/* Two calls that want the same lock, and `steps` answers on their way. False: that is more than they need. */
static bool set_out(cf_store *store, int steps, seen *first, seen *second, cf_op **one, cf_op **two)
{
    cf_accounts accounts = {.store = store};
    cf_record   account = question(CF_FIND_OR_CREATE), owner = {.kind = CF_USER}, record = {.kind = CF_USER};
    cf_call     call = {.done = see, .user = first}, other = {.done = see, .user = second};
    cf_record_text(&owner, CF_USER_EMAIL, cf_text("a@b.c"));
    cf_record_text(&record, CF_USER_EMAIL, cf_text("d@e.f"));
    assert_int_equal(cf_accounts_call(&accounts, CF_FIND_OR_CREATE, &account, &owner, &call, one), CF_PENDING);
    assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, &other, two), CF_PENDING);
    for (int i = 0; i < steps; i++) {
        if (!tb_answer(tb_last(), 1)) return false;
        cf_loop_run(cf_store_loop(store), 0);
    }
    return tb_pending(tb_last()) > 0;
}

static void a_store_that_is_closed_ends_them_once(void **state)
{
    ground       *g = *state;
    static tb_log log;
    int           steps = 0;
    for (bool pends = true; pends; steps++) {
        cf_store *store;
        cf_op    *one, *two;
        seen      first = {0}, second = {0};
        memset(&log, 0, sizeof log);
        assert_ok(tb_open(g->loop, TB_HAND, TB_DERIVED, &log, NULL, &store, NULL));
        pends = set_out(store, steps, &first, &second, &one, &two);
        int was[] = {first.calls, second.calls};
        assert_ok(cf_store_close(store, NULL));
        cf_loop_run(g->loop, 0);
        assert_int_equal(first.calls, 1);
        assert_int_equal(second.calls, 1);
        assert_int_equal(first.status, was[0] ? CF_OK : CF_ECLOSED);
        assert_int_equal(second.status, was[1] ? CF_OK : CF_ECLOSED);
        assert_int_equal(log.closes, 1);
        cf_op_free(one);
        cf_op_free(two);
    }
    assert_true(steps > 10);
}

/* In a child what was under way ends, and its locks stop nobody; the parent goes on. */
static void a_child_begins_anew(void **state)
{
    ground       *g = *state;
    static tb_log log;
    int           steps = 0;
    for (bool pends = true; pends; steps++) {
        cf_store *store;
        cf_op    *one, *two;
        seen      first = {0}, second = {0};
        memset(&log, 0, sizeof log);
        assert_ok(tb_open(g->loop, TB_HAND, TB_DERIVED, &log, NULL, &store, NULL));
        tb *table = tb_last();
        pends = set_out(store, steps, &first, &second, &one, &two);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            cf_accounts accounts = {.store = store};
            cf_record   record = {.kind = CF_USER};
            cf_op      *op;
            int         bad = 0, before = first.calls;
            bad |= cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, NULL, &op) != CF_EFORKED;
            cf_op_free(op);
            bad |= cf_loop_reopen(g->loop) != CF_OK;
            cf_loop_run(g->loop, 0);
            bad |= (first.calls + second.calls != 2) << 1;
            if (!before) bad |= (first.status != CF_EFORKED) << 2;
            bad |= (cf_accounts_call(&accounts, CF_CREATE_USER, &record, NULL, NULL, &op) != CF_PENDING) << 3;
            while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
            bad |= (cf_op_status(op) != CF_OK) << 4;
            cf_op_free(op);
            cf_op_free(one);
            cf_op_free(two);
            cf_loop_free(g->loop);
            bad |= (blocks != 0) << 5;
            _exit(bad);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        while (tb_answer(table, 1)) cf_loop_run(g->loop, 0);
        cf_loop_run(g->loop, 0);
        assert_int_equal(first.calls + second.calls, 2);
        assert_ok(first.status);
        assert_ok(second.status);
        cf_op_free(one);
        cf_op_free(two);
        assert_ok(cf_store_close(store, NULL));
    }
    assert_true(steps > 10);
}

/* ---------------------------------------------------------------------------------------------------- what is brought -- */

/* By `variant`: nothing, or records of the wrong kind, or too many, each with hit and without. */
static int odd_answer(app *a, cf_op *op)
{
    cf_record one = user("u1"), two = social("s1"), three = {.kind = CF_SESSION};
    cf_record_text(&three, CF_SESSION_ID, cf_text("x"));
    cf_record_text(&three, CF_SESSION_USER_ID, cf_text("u1"));
    cf_record_text(&three, CF_SESSION_TOKEN_HASH, cf_text("h"));
    for (int i = CF_SESSION_CREATED_AT; i <= CF_SESSION_EXPIRES_AT; i++) cf_record_number(&three, i, 1);
    int what = a->variant / 2;
    if (what == 1 || what == 4 || what == 6) assert_ok(cf_op_add_record(op, &one));
    if (what == 2 || what == 4 || what == 5) assert_ok(cf_op_add_record(op, &two));
    if (what == 3) assert_ok(cf_op_add_record(op, &three));
    if (what == 5 || what == 6) assert_ok(cf_op_add_record(op, &one));
    if (what == 7) {
        assert_ok(cf_op_add_record(op, &two));
        assert_ok(cf_op_add_record(op, &two));
    }
    cf_op_set_hit(op, a->variant % 2);
    return CF_OK;
}

static void what_a_hook_brings_fits_its_method(void **state)
{
    enum { NOTHING, ONE_USER, ONE_SOCIAL, SESSION, USER_FIRST, BOTH, TWO_USERS, TWO_SOCIAL, ALL };
    ground *g = *state;
    app    *a = open_app(g, &hooked, 1, odd_answer);
    for (int method = 0; method < CF_ACCOUNTS_METHODS; method++)
        for (a->variant = 0; a->variant < ALL * 2; a->variant++) {
            int       what = a->variant / 2;
            bool      hit = a->variant % 2, fits = false;
            cf_record record = question(method);
            bool      about_users = record.kind == CF_USER;
            int       status = CF_ECORRUPT;
            switch (method) {
            case CF_LIST_SOCIAL_ACCOUNTS: fits = what == NOTHING || what == ONE_SOCIAL || what == TWO_SOCIAL; break;
            case CF_DELETE_USER:
            case CF_DELETE_SOCIAL_ACCOUNT: fits = what == NOTHING; break;
            case CF_FIND_OR_CREATE: fits = what == BOTH && hit; break;
            case CF_CREATE_USER:
            case CF_CREATE_SOCIAL_ACCOUNT: fits = what == (about_users ? ONE_USER : ONE_SOCIAL) && hit; break;
            default: fits = hit ? what == (about_users ? ONE_USER : ONE_SOCIAL) : what == NOTHING; break;
            }
            if ((method == CF_UPDATE_USER || method == CF_UPDATE_SOCIAL_ACCOUNT) && a->variant == 0) status = CF_EMISSING, fits = false;
            got brought = call(g, method, &record);
            if (brought.status != (fits ? CF_OK : status)) fail_msg("%s, answer %d: %s", cf_accounts_method_name(method), a->variant, cf_op_error(brought.op)->text);
            if (!fits) assert_int_equal(brought.count, 0);
            if (status == CF_ECORRUPT && !fits) assert_int_equal(brought.outcome, only_reads(method) ? CF_NOT_APPLIED : CF_UNKNOWN);
            drop(&brought);
        }
}

/* Tables that do not tell A from a, or that join what does not belong together. */
static int somebody_else(app *a, cf_op *op)
{
    cf_record account = social("s1"), owner = user(a->variant == 2 ? "u2" : "u1");
    if (a->variant == 0) cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER, cf_text("Google"));
    if (a->variant == 1) cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("1 "));
    cf_op_set_hit(op, true);
    cf_hook hook;
    assert_true(cf_hook_read(cf_op_in(op)->value, &hook));
    assert_ok(cf_op_add_record(op, &account));
    return hook.method == CF_FIND_OR_CREATE ? cf_op_add_record(op, &owner) : CF_OK;
}
static void a_hook_that_brings_somebody_elses(void **state)
{
    ground    *g = *state;
    app       *a = open_app(g, &hooked, 0, somebody_else);
    static const int methods[] = {CF_FIND_SOCIAL_ACCOUNT, CF_CREATE_SOCIAL_ACCOUNT, CF_FIND_OR_CREATE};
    for (a->variant = 0; a->variant < 4; a->variant++)
        for (int i = 0; i < 3; i++) {
            cf_record record = question(methods[i]);
            bool      fine = a->variant == 3 || (a->variant == 2 && methods[i] != CF_FIND_OR_CREATE);
            got       brought = call(g, methods[i], &record);
            assert_int_equal(brought.status, fine ? CF_OK : CF_ECORRUPT);
            if (!fine) assert_int_equal(brought.count, 0);
            drop(&brought);
        }
}

static const char *address;
static int         somebody_at(app *a, cf_op *op)
{
    (void)a;
    cf_record one = user("u1");
    if (address) cf_record_text(&one, CF_USER_EMAIL, cf_text(address));
    cf_op_set_hit(op, true);
    return cf_op_add_record(op, &one);
}
static void a_hook_that_finds_another_address(void **state)
{
    ground *g = *state;
    open_app(g, &hooked, 0, somebody_at);
    static const struct {
        const char *has;
        int         status;
    } cases[] = {{"a@b.c", CF_OK}, {" A@b.C", CF_OK}, {NULL, CF_OK}, {"\xc3\xa1@b.c", CF_ECORRUPT}, {"a@b.c.d", CF_ECORRUPT}, {"", CF_ECORRUPT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cf_record record = question(CF_FIND_USER_BY_EMAIL);
        address = cases[i].has;
        got found = call(g, CF_FIND_USER_BY_EMAIL, &record);
        assert_int_equal(found.status, cases[i].status);
        assert_int_equal(found.count, cases[i].status == CF_OK);
        drop(&found);
    }
}

/* Of a native backend too. */
static void a_backend_that_finds_what_was_not_asked_for(void **state)
{
    ground *g = *state;
    app    *a = open_app(g, &shelf, 0, odd_answer);
    a->variant = 1 * 2 + 1;
    cf_record record = question(CF_FIND_SOCIAL_ACCOUNT);
    assert_fails(call(g, CF_FIND_SOCIAL_ACCOUNT, &record), CF_ECORRUPT, CF_NOT_APPLIED);
    a->variant = 2 * 2 + 1;
    record = question(CF_FIND_USER_BY_ID);
    assert_fails(call(g, CF_FIND_USER_BY_ID, &record), CF_ECORRUPT, CF_NOT_APPLIED);
    record = question(CF_UPDATE_USER);
    assert_fails(call(g, CF_UPDATE_USER, &record), CF_ECORRUPT, CF_UNKNOWN);
}

/* The hook has done it; what it gives cannot be a record. */
static int bad_record(app *a, cf_op *op)
{
    (void)a;
    cf_hook hook;
    assert_true(cf_hook_read(cf_op_in(op)->value, &hook));
    cf_record record = hook.record.kind == CF_USER ? user("") : social("");
    cf_op_set_hit(op, true);
    return cf_op_add_record(op, &record);
}
static void what_a_hook_has_done_is_done(void **state)
{
    ground *g = *state;
    open_app(g, &hooked, 0, bad_record);
    for (int method = 0; method < CF_ACCOUNTS_METHODS; method++) {
        cf_record record = question(method);
        assert_fails(call(g, method, &record), CF_ECORRUPT, only_reads(method) ? CF_NOT_APPLIED : CF_UNKNOWN);
    }
}

/* ------------------------------------------------------------------------------------------------------------ tokens -- */

/* Keeps the social account that comes and gives it to everybody; `status` CF_EEXISTS: as the one that is there. */
static int one_account(app *a, cf_op *op)
{
    cf_hook   hook;
    cf_plan   plan;
    cf_record owner = user("u1");
    int       method = -1, rc = CF_OK;
    if (cf_hook_read(cf_op_in(op)->value, &hook)) {
        method = hook.method;
        if ((method == CF_CREATE_SOCIAL_ACCOUNT || method == CF_FIND_OR_CREATE) && a->status == CF_OK) {
            cf_record whole = social("s1");
            for (int i = 0; cf_field_name(whole.kind, i); i++)
                if (hook.record.fields[i].is != CF_UNSAID) whole.fields[i] = hook.record.fields[i];
            keep_record(a, &whole);
        }
        if (method == CF_UPDATE_SOCIAL_ACCOUNT) {
            static char token[4096];
            cf_slice    text = hook.record.fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text;
            assert_true(text.len < sizeof token);
            memcpy(token, text.ptr, text.len);
            a->kept.fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].is = CF_GIVEN;
            a->kept.fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text = cf_bytes(token, text.len);
        }
    } else if (cf_plan_read(cf_op_in(op)->value, &plan) && cf_op_kind(op) == CF_OP_INSERT && a->status == CF_OK) {
        keep_record(a, plan.with.kind >= 0 ? &plan.with : &plan.record);
        cf_op_set_hit(op, true);
        return CF_OK;
    } else if (cf_op_kind(op) == CF_OP_FIND && plan.kind == CF_USER) {
        cf_op_set_hit(op, true);
        return cf_op_add_record(op, &owner);
    } else if (!a->room_len) {
        return CF_OK;
    }
    cf_op_set_hit(op, true);
    rc = cf_op_add_record(op, &a->kept);
    if (rc == CF_OK && method == CF_FIND_OR_CREATE && a->status == CF_OK) rc = cf_op_add_record(op, &owner);
    if (rc == CF_OK && a->status) return cf_op_fail(op, a->status, CF_NOT_APPLIED, "it is there");
    return rc;
}

static cf_record with_token(int method, const char *token)
{
    cf_record record = question(method);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_text(token));
    return record;
}

static const cf_backend_table *const tables[] = {&hooked, &shelf};

/* The one that is in the way cannot be opened: nothing was changed all the same. */
static void what_is_in_the_way_cannot_be_opened(void **state)
{
    ground *g = *state;
    for (int i = 0; i < 2; i++) {
        app      *a = open_app(g, tables[i], 1, one_account);
        cf_record record = with_token(CF_CREATE_SOCIAL_ACCOUNT, canary);
        got       made = call(g, CF_CREATE_SOCIAL_ACCOUNT, &record);
        assert_ok(made.status);
        drop(&made);
        a->status = CF_EEXISTS;
        assert_fails(call(g, CF_CREATE_SOCIAL_ACCOUNT, &record), CF_EEXISTS, CF_NOT_APPLIED);
        a->room[a->kept.fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text.ptr - a->room + 20] ^= 1;
        assert_fails(call(g, CF_CREATE_SOCIAL_ACCOUNT, &record), CF_ECORRUPT, CF_NOT_APPLIED);
        a->status = CF_OK;
        record = question(CF_FIND_SOCIAL_ACCOUNT);
        assert_fails(call(g, CF_FIND_SOCIAL_ACCOUNT, &record), CF_ECORRUPT, CF_NOT_APPLIED);
        assert_ok(cf_store_close(g->store, NULL));
    }
}

/* Every letter changed, one taken away, one more: only the text that was made opens. */
static void a_sealed_token_has_one_text(void **state)
{
    ground *g = *state;
    app    *a = open_app(g, &hooked, 1, one_account);
    char    plain[8] = "";
    for (size_t len = 0; len < 7; len++) {
        plain[len] = 'x';
        plain[len + 1] = 0;
        cf_record record = with_token(CF_CREATE_SOCIAL_ACCOUNT, plain), query = question(CF_FIND_SOCIAL_ACCOUNT);
        got       made = call(g, CF_CREATE_SOCIAL_ACCOUNT, &record);
        assert_ok(made.status);
        drop(&made);
        cf_slice *kept = &a->kept.fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text, text = *kept;
        char      changed[256];
        memcpy(changed, text.ptr, text.len);
        *kept = cf_bytes(changed, text.len);
        got found = call(g, CF_FIND_SOCIAL_ACCOUNT, &query);
        assert_ok(found.status);
        assert_int_equal(found.records[0].fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text.len, len + 1);
        drop(&found);
        for (size_t at = 0; at < text.len; at++)
            for (int bit = 0; bit < 7; bit++) {
                changed[at] ^= (char)(1 << bit);
                if (changed[at]) assert_fails(call(g, CF_FIND_SOCIAL_ACCOUNT, &query), CF_ECORRUPT, CF_NOT_APPLIED);
                changed[at] = text.ptr[at];
            }
        for (size_t shorter = 0; shorter < text.len; shorter++) {
            kept->len = shorter;
            got one = call(g, CF_FIND_SOCIAL_ACCOUNT, &query);
            assert_int_equal(one.status, CF_ECORRUPT);
            drop(&one);
        }
        static const char more[] = "A=_-/+ ";
        for (size_t i = 0; i < sizeof more - 1; i++)
            for (size_t count = 1; count <= 4; count++) {
                memset(changed + text.len, more[i], count);
                kept->len = text.len + count;
                assert_fails(call(g, CF_FIND_SOCIAL_ACCOUNT, &query), CF_ECORRUPT, CF_NOT_APPLIED);
            }
    }
}

/* Nothing that the core gives back, while it works or at its end, holds a token. */
static void no_token_is_in_memory_that_is_given_back(void **state)
{
    ground *g = *state;
    char    token[600];
    for (size_t i = 0; i < sizeof token - 1; i++) token[i] = canary[i % (sizeof canary - 1)];
    token[sizeof token - 1] = 0;
    cf_open_options options = {.size = sizeof options, .prefix = cf_text("p:"), .keys = ring, .key_count = 1};
    for (int which = 0; which < 3; which++) {
        const char *tokens[] = {canary, token};
        for (int length = 0; length < 2; length++) {
            char user_id[CF_ID_LEN + 1] = "u1", id[CF_ID_LEN + 1] = "s1";
            if (which < 2) open_app(g, tables[which], 1, one_account);
            else assert_ok(cf_open(g->loop, cf_text("memory:"), &options, &g->store, NULL));
            for (int i = 0; i < 3; i++) { /* operations are used again */
                cf_record record = with_token(CF_FIND_OR_CREATE, tokens[length]);
                got       both = call(g, CF_FIND_OR_CREATE, &record);
                assert_ok(both.status);
                assert_int_equal(both.count, 2);
                assert_int_equal(both.records[0].fields[CF_SOCIAL_ACCOUNT_ACCESS_TOKEN].text.len, strlen(tokens[length]));
                memcpy(id, both.records[0].fields[0].text.ptr, both.records[0].fields[0].text.len);
                memcpy(user_id, both.records[1].fields[0].text.ptr, both.records[1].fields[0].text.len);
                drop(&both);
                record = question(CF_FIND_SOCIAL_ACCOUNT);
                got one = call(g, CF_FIND_SOCIAL_ACCOUNT, &record);
                assert_int_equal(one.count, 1);
                drop(&one);
                record = question(CF_LIST_SOCIAL_ACCOUNTS);
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user_id));
                one = call(g, CF_LIST_SOCIAL_ACCOUNTS, &record);
                assert_int_equal(one.count, 1);
                drop(&one);
                record = with_token(CF_UPDATE_SOCIAL_ACCOUNT, tokens[length]);
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, cf_text(tokens[length]));
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_ID, cf_text(id));
                one = call(g, CF_UPDATE_SOCIAL_ACCOUNT, &record);
                assert_ok(one.status);
                assert_int_equal(one.count, 1);
                drop(&one);
                record = with_token(CF_CREATE_SOCIAL_ACCOUNT, tokens[length]);
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user_id));
                if (which < 2) the_app.status = CF_EEXISTS;
                one = call(g, CF_CREATE_SOCIAL_ACCOUNT, &record);
                assert_int_equal(one.status, CF_EEXISTS);
                assert_int_equal(one.count, 1);
                drop(&one);
                the_app.status = CF_OK;
            }
            if (which == 2) { /* a page of two */
                cf_record record = with_token(CF_CREATE_SOCIAL_ACCOUNT, tokens[length]);
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("2"));
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user_id));
                got one = call(g, CF_CREATE_SOCIAL_ACCOUNT, &record);
                assert_ok(one.status);
                drop(&one);
                record = question(CF_LIST_SOCIAL_ACCOUNTS);
                cf_record_text(&record, CF_SOCIAL_ACCOUNT_USER_ID, cf_text(user_id));
                one = call(g, CF_LIST_SOCIAL_ACCOUNTS, &record);
                assert_int_equal(one.count, 2);
                drop(&one);
            }
            if (which == 0) /* whatever a buffer has room for */
                for (size_t len = length ? 380 : 130; len < sizeof token && len < (length ? 500U : 250U); len++) {
                    cf_record record = with_token(CF_UPDATE_SOCIAL_ACCOUNT, "");
                    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN, cf_bytes(token, len));
                    cf_record_text(&record, CF_SOCIAL_ACCOUNT_ID, cf_text(id));
                    got one = call(g, CF_UPDATE_SOCIAL_ACCOUNT, &record);
                    assert_ok(one.status);
                    drop(&one);
                }
            if (leaked) fail_msg("place %d, a token of %zu bytes", which, strlen(tokens[length]));
            assert_ok(cf_store_close(g->store, NULL));
        }
    }
}

/* A want of memory is called that, not a broken seal. */
static void want_of_memory_is_no_broken_seal(void **state)
{
    (void)state;
    ground    g = {0};
    cf_stage *stage = cf_stage_new();
    int       failed = 0;
    assert_ok(cf_loop_new(cf_stage_platform(stage), &g.loop));
    open_app(&g, &hooked, 1, one_account);
    cf_record record = with_token(CF_FIND_OR_CREATE, canary), query = question(CF_FIND_SOCIAL_ACCOUNT);
    cf_record_text(&record, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN, cf_text(canary));
    got one = call(&g, CF_FIND_OR_CREATE, &record);
    assert_ok(one.status);
    drop(&one);
    for (uint64_t nth = 1;; nth++) {
        cf_stage_fail_allocation(stage, nth, false);
        one = call(&g, CF_FIND_SOCIAL_ACCOUNT, &query);
        if (!cf_stage_failed(stage)) break;
        failed++;
        assert_int_equal(one.status, CF_ENOMEM);
        assert_int_equal(one.outcome, CF_NOT_APPLIED);
        assert_non_null(strstr(cf_op_error(one.op)->text, "no memory"));
        drop(&one);
    }
    cf_stage_fail_allocation(stage, 0, false);
    assert_true(failed > 3);
    drop(&one);
    cf_loop_free(g.loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
}

/* ------------------------------------------------------------------------------------------------- bytes and numbers -- */

static int take_plan(app *a, cf_op *op)
{
    cf_slice bytes = cf_op_in(op)->value;
    a->room_len = 0;
    keep(a, bytes);
    cf_op_set_hit(op, true);
    return CF_OK;
}

static void check_read(const cf_record *record)
{
    if (record->kind < 0) return;
    assert_non_null(cf_kind_of(record->kind));
    size_t sum = 0;
    for (int i = 0; cf_field_name(record->kind, i); i++) {
        assert_in_range(record->fields[i].is, CF_UNSAID, CF_GIVEN);
        for (size_t at = 0; at < record->fields[i].text.len; at++) sum += (unsigned char)record->fields[i].text.ptr[at]; /* all of it is there to be read */
    }
    assert_true(sum < SIZE_MAX);
}

/* A plan or a hook that somebody changed is none, or one that nothing trips over. */
static void bytes_that_are_no_plan(void **state)
{
    ground *g = *state;
    rng     random = {seed_of_run()};
    for (int which = 0; which < 2; which++) {
        app *a = open_app(g, tables[which], 0, take_plan);
        for (int method = 0; method < CF_ACCOUNTS_METHODS; method++) {
            cf_record record = question(method);
            got       sent = call(g, method, &record);
            drop(&sent);
            size_t len = a->room_len;
            assert_true(len > 8);
            for (int round = 0; round < 4000; round++) {
                char *bytes = malloc(len); /* of its own, so that a byte too far is found out */
                memcpy(bytes, a->room, len);
                size_t left = rng_below(&random, 4) ? len : rng_below(&random, len + 1);
                for (uint64_t changes = rng_below(&random, 5); changes && left; changes--) {
                    size_t at = rng_below(&random, left);
                    bytes[at] = rng_below(&random, 2) ? (char)rng_next(&random) : (char)(bytes[at] ^ (1 << rng_below(&random, 8)));
                }
                bytes = realloc(bytes, left ? left : 1);
                cf_plan plan;
                cf_hook hook;
                if (cf_plan_read(cf_bytes(bytes, left), &plan)) {
                    check_read(&plan.record);
                    check_read(&plan.with);
                    assert_in_range(plan.by, CF_BY_ID, CF_BY_ALL);
                    assert_true(plan.guard == -1 || cf_field_name(plan.kind, plan.guard));
                    assert_in_range(plan.equals.is, CF_UNSAID, CF_GIVEN);
                    assert_int_equal(plan.record.kind, plan.kind);
                }
                if (cf_hook_read(cf_bytes(bytes, left), &hook)) {
                    check_read(&hook.record);
                    check_read(&hook.user);
                    assert_true(hook.record.kind >= 0);
                }
                free(bytes);
            }
        }
        assert_ok(cf_store_close(g->store, NULL));
    }
}

static void what_is_neither_null_nor_given_is_refused(void **state)
{
    ground *g = *state;
    open_app(g, &shelf, 0, take_plan);
    for (int is = -1; is <= 4; is += 4) {
        cf_record record = question(CF_CREATE_USER);
        record.fields[CF_USER_HASHED_PASSWORD].is = is;
        assert_fails(call(g, CF_CREATE_USER, &record), CF_EINVAL, CF_NOT_APPLIED);
    }
    assert_int_equal(the_app.calls, 0);
}

static void bounds_that_make_no_sense_are_refused(void **state)
{
    ground *g = *state;
    g->store = open_url(g->loop, "memory:");
    cf_record record = {.kind = CF_SESSION};
    cf_record_text(&record, CF_SESSION_ID, cf_text("0123456789abcdef0123456789abcdef"));
    cf_record_number(&record, CF_SESSION_UPDATED_AT, 0);
    cf_record_number(&record, CF_SESSION_EXPIRES_AT, CF_NUMBER_MAX);
    int64_t kept[] = {-1, INT64_MIN, CF_TTL_MAX + 1, INT64_MAX};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        cf_sessions sessions = {.store = g->store, .retention_ms = kept[i]};
        cf_op      *op;
        assert_int_equal(cf_sessions_call(&sessions, CF_SESSION_REFRESH, &record, NULL, NULL, &op), CF_EINVAL);
        cf_op_free(op);
    }
    size_t most[] = {CF_SESSIONS_MOST + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        cf_accounts accounts = {.store = g->store, .most = most[i]};
        cf_record   account = question(CF_CREATE_SOCIAL_ACCOUNT);
        cf_op      *op;
        assert_int_equal(cf_accounts_call(&accounts, CF_CREATE_SOCIAL_ACCOUNT, &account, NULL, NULL, &op), CF_EINVAL);
        cf_op_free(op);
    }
}

/* ------------------------------------------------------------------------------------------------------------- sweep -- */

/* A value whose end comes while it is sealed anew ends all the same. */
static void a_sweep_brings_nothing_back(void **state)
{
    (void)state;
    cf_stage     *stage = cf_stage_new();
    cf_loop      *loop;
    cf_store     *old, *both;
    static tb_log log;
    cf_key        turned[] = {ring[1], ring[0]};
    memset(&log, 0, sizeof log);
    assert_ok(cf_loop_new(cf_stage_platform(stage), &loop));
    cf_open_options options = {.size = sizeof options, .keys = ring, .key_count = 1, .seal_values = true};
    assert_ok(tb_open(loop, TB_HAND, TB_DERIVED_SCAN, &log, &options, &old, NULL));
    tb *table = tb_last(), *again = tb_share(table, loop, TB_HAND, &log);
    options.keys = turned;
    options.key_count = 2;
    assert_ok(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(again), &options, &both, NULL));
    cf_op *op;
    assert_int_equal(cf_submit(old, CF_REQUEST(CF_OP_SET, .key = cf_text("k"), .value = cf_text("v"), .flags = CF_TTL, .ttl_ms = 1000), &op), CF_PENDING);
    while (tb_answer(table, 1)) cf_loop_run(loop, 0);
    assert_ok(cf_op_status(op));
    cf_op_free(op);
    assert_int_equal(cf_submit(both, CF_REQUEST(CF_OP_RESEAL), &op), CF_PENDING);
    while (cf_op_kind(cf_loop_op(loop, tb_ticket(again, 0))) != CF_OP_SET) assert_int_equal(tb_answer(again, 1), 1);
    cf_stage_advance(stage, 1001);
    while (tb_answer(again, 1)) cf_loop_run(loop, 0);
    assert_ok(cf_op_status(op));
    cf_op_free(op);
    cf_stage_advance(stage, 60000);
    assert_int_equal(cf_submit(both, CF_REQUEST(CF_OP_GET, .key = cf_text("k")), &op), CF_PENDING);
    while (tb_answer(again, 1)) cf_loop_run(loop, 0);
    assert_ok(cf_op_status(op));
    assert_false(cf_op_hit(op));
    cf_op_free(op);
    cf_loop_free(loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
}

int main(void)
{
    hang_guard(120);
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
    const struct CMUnitTest tests[] = {
        TEST(who_ends_before_it_was_sent_has_changed_nothing),
        TEST(a_hook_that_reads_has_changed_nothing),
        TEST(a_hook_that_fails),
        TEST(who_waits_for_others_has_changed_nothing),
        TEST(who_is_given_up_inside_a_slot_ends_when_it_returns),
        TEST(a_store_that_is_closed_ends_them_once),
        TEST(a_child_begins_anew),
        TEST(what_a_hook_brings_fits_its_method),
        TEST(a_hook_that_brings_somebody_elses),
        TEST(a_hook_that_finds_another_address),
        TEST(a_backend_that_finds_what_was_not_asked_for),
        TEST(what_a_hook_has_done_is_done),
        TEST(what_is_in_the_way_cannot_be_opened),
        TEST(a_sealed_token_has_one_text),
        TEST(no_token_is_in_memory_that_is_given_back),
        TEST(want_of_memory_is_no_broken_seal),
        TEST(bytes_that_are_no_plan),
        TEST(what_is_neither_null_nor_given_is_refused),
        TEST(bounds_that_make_no_sense_are_refused),
        TEST(a_sweep_brings_nothing_back),
    };
    return cmocka_run_group_tests_name("records, at their edges", tests, NULL, NULL);
}
