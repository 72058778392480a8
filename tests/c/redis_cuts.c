/* redis_cuts.c: every call, cut at every byte of its request and of its reply, by an orderly end, a reset and a silence, through
 * the fault kit's proxy. Each call must end inside its deadline and tell the truth about what is on the server then; what may be
 * asked again must succeed. The same for every byte of the greeting.
 *
 * CF_STRIDE: every so many bytes (the everyday run; where it starts is drawn from CF_SEED). CF_LONG=1: every byte. */
#include "redis_support.h"

#include <string.h>

#include "faults.h"

enum { WORKERS = 64, PATIENT_MS = 3000, BRIEF_MS = 60, SILENCE_MS = 80 };
enum { BEFORE, AFTER, NEITHER };

typedef enum manner { FIN, RST, STALL, SILENCE, MANNERS } manner;
static const char *const manners[] = {"fin", "rst", "stall", "stall and silence"};
static const char *const hows[] = {"fin", "rst", "stall", "stall"};

/* Keys are a worker's own: PREFIX is what its store puts in front. `setup` and `look` are Lua; KEYS[1] is that prefix. */
typedef struct scene {
    const char *name, *setup, *options;
    cf_request  request;
    const char *look;   /* NULL: LOOK */
    int (*start)(cf_store *store, const cf_call *call, cf_op **op); /* a method of records; of `request` then only the kind counts */
    int64_t     ttl_ms;      /* of the store */
    bool        again;       /* it may be asked again: it reads, or it has a receipt */
    bool        several;     /* commands: how far it came is not known from the place of the cut */
    bool        fresh;       /* the server has forgotten our scripts */
    const char *before, *after; /* what the server has; NULL: the same as before */
    bool        hit;
    int64_t     number;
    const char *value;
    size_t      keys;
} scene;

#define REQUEST(KIND, ...) {.size = sizeof(cf_request), .kind = (KIND), .timeout_ms = PATIENT_MS, __VA_ARGS__}
#define SLICE(text) {text, sizeof(text) - 1}
#define KEY .key = SLICE("k")
#define NEW .key = SLICE("k"), .value = SLICE("new")
#define LONG_TTL .ttl_ms = 1000000
#define OLD "redis.call('SET',k,'old')"
#define OLD_SHORT "redis.call('SET',k,'old','PX',90000)"
#define NUMBER_41 "redis.call('SET',k,'41','PX',90000)"
#define THREE "for i=1,3 do redis.call('SET',p..'c:'..i,i) end redis.call('SET',k,'old')"

/* What the server has, as text: the value, how long it lives, and how many of the three keys of a page there are. */
#define LOOK                                                                                                   \
    "local p=KEYS[1] local v=redis.call('GET',p..'k') local t=redis.call('PTTL',p..'k') "                      \
    "return (v and #v>99 and 'large' or v or 'none')..(t>100000 and ' long' or t>0 and ' short' or '')..' '"   \
    "..redis.call('EXISTS',p..'c:1',p..'c:2',p..'c:3')"

/* Of records: the names of their keys without what is found by them, a session that is revoked and a user with user_info by names of their own. */
#define LOOK_RECORDS                                                                                           \
    "local t={} for _,x in ipairs(redis.call('KEYS',p..string.char(10)..'*')) do "                             \
    "local n=string.match(string.sub(x,#p+11),'^[%a_.,]+') "                                                   \
    "if n=='session' and redis.call('HEXISTS',x,'revoked_at')==1 then n='revoked' end "                        \
    "if n=='user' and redis.call('HEXISTS',x,'user_info')==1 then n='informed' end "                           \
    "if n~='receipt' then t[#t+1]=n end end table.sort(t) return table.concat(t,' ')"
#define AN_ID "0123456789abcdef0123456789abcdef"
#define RECORDS "local b=p..string.char(10)..'{records}' local i='" AN_ID "' "
#define OTHER "local i=string.reverse(i) "
#define A_SESSION(hash)                                                                                        \
    "redis.call('HSET',b..'session:'..i,'id',i,'user_id','" AN_ID "','token_hash','" hash "','created_at','5',"  \
    "'updated_at','5','expires_at','9007199254740991','epoch','0') "                                           \
    "redis.call('SET',b..'session.token_hash:" hash "',i) redis.call('ZADD',b..'session.user_id:" AN_ID "',5,i) "
#define A_USER                                                                                                 \
    "redis.call('HSET',b..'user:'..i,'id',i,'email','a@b','email_key','a@b','email_verified','0',"             \
    "'created_at','5','updated_at','5') redis.call('SET',b..'user.email_key:a@b',i) "
#define SESSION "session session.token_hash session.user_id"
#define USER "user user.email_key"

static int accounts(cf_store *store, int method, const cf_record *record, const cf_record *user, const cf_call *call, cf_op **op)
{
    cf_accounts of = {.store = store};
    return cf_accounts_call(&of, method, record, user, call, op);
}
static int sessions(cf_store *store, int method, const cf_record *record, const cf_call *call, cf_op **op)
{
    cf_sessions of = {.store = store};
    return cf_sessions_call(&of, method, record, NULL, call, op);
}
static cf_record record_of(int kind, int at, const char *text)
{
    cf_record record = {.kind = kind};
    cf_record_text(&record, at, cf_text(text));
    return record;
}
static int create_user(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record user = record_of(CF_USER, CF_USER_EMAIL, "a@b");
    return accounts(store, CF_CREATE_USER, &user, NULL, call, op);
}
static int update_user(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record user = record_of(CF_USER, CF_USER_ID, AN_ID);
    cf_record_text(&user, CF_USER_USER_INFO, cf_text("{}"));
    return accounts(store, CF_UPDATE_USER, &user, NULL, call, op);
}
static int delete_user(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record user = record_of(CF_USER, CF_USER_ID, AN_ID);
    return accounts(store, CF_DELETE_USER, &user, NULL, call, op);
}
static int find_user(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record user = record_of(CF_USER, CF_USER_EMAIL, "A@b");
    return accounts(store, CF_FIND_USER_BY_EMAIL, &user, NULL, call, op);
}
static int find_or_create(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record user = record_of(CF_USER, CF_USER_EMAIL, "a@b"), account = record_of(CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_PROVIDER, "p");
    cf_record_text(&account, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, cf_text("1"));
    return accounts(store, CF_FIND_OR_CREATE, &account, &user, call, op);
}
static int create_session(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record session = record_of(CF_SESSION, CF_SESSION_USER_ID, AN_ID);
    cf_record_text(&session, CF_SESSION_TOKEN_HASH, cf_text("h"));
    cf_record_number(&session, CF_SESSION_CREATED_AT, 5);
    cf_record_number(&session, CF_SESSION_UPDATED_AT, 5);
    cf_record_number(&session, CF_SESSION_EXPIRES_AT, CF_NUMBER_MAX);
    return sessions(store, CF_SESSION_CREATE, &session, call, op);
}
static int list_sessions(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record session = record_of(CF_SESSION, CF_SESSION_USER_ID, AN_ID);
    return sessions(store, CF_SESSION_LIST, &session, call, op);
}
static int revoke_session(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record session = record_of(CF_SESSION, CF_SESSION_ID, AN_ID);
    cf_record_number(&session, CF_SESSION_REVOKED_AT, 7);
    return sessions(store, CF_SESSION_REVOKE, &session, call, op);
}
static int revoke_sessions(cf_store *store, const cf_call *call, cf_op **op)
{
    cf_record session = record_of(CF_SESSION, CF_SESSION_USER_ID, AN_ID);
    cf_record_number(&session, CF_SESSION_REVOKED_AT, 7);
    return sessions(store, CF_SESSION_REVOKE_ALL, &session, call, op);
}

static char large[20000];

static const scene scenes[] = {
    {"get", OLD, "", REQUEST(CF_OP_GET, KEY), .again = true, .before = "old 0", .hit = true, .value = "old"},
    {"get of nothing", "", "", REQUEST(CF_OP_GET, KEY), .again = true, .before = "none 0"},
    {"get of nothing at all, empty", "redis.call('SET',k,'')", "", REQUEST(CF_OP_GET, KEY), .again = true, .before = " 0",
     .hit = true, .value = ""},
    {"set", OLD, "", REQUEST(CF_OP_SET, NEW), .before = "old 0", .after = "new 0", .hit = true},
    {"set with a ttl", OLD_SHORT, "", REQUEST(CF_OP_SET, NEW, .flags = CF_TTL, LONG_TTL), .before = "old short 0",
     .after = "new long 0", .hit = true},
    {"set if_absent", "", "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_ABSENT | CF_TTL, LONG_TTL), .again = true,
     .before = "none 0", .after = "new long 0", .hit = true},
    {"set if_absent in vain", OLD, "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_ABSENT), .again = true, .before = "old 0"},
    {"set if_absent without receipts", "", "?receipts=off", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_ABSENT), .before = "none 0",
     .after = "new 0", .hit = true},
    {"set if_present", OLD_SHORT, "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_PRESENT), .before = "old short 0", .after = "new 0",
     .hit = true},
    {"set if_present in vain", "", "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_PRESENT), .before = "none 0"},
    {"set if_equal", OLD_SHORT, "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_EQUAL | CF_KEEP_TTL, .expected = SLICE("old")),
     .again = true, .before = "old short 0", .after = "new short 0", .hit = true},
    {"set if_equal in vain", OLD, "", REQUEST(CF_OP_SET, NEW, .flags = CF_IF_EQUAL, .expected = SLICE("else")), .again = true,
     .before = "old 0"},
    {"set keep_ttl", OLD_SHORT, "", REQUEST(CF_OP_SET, NEW, .flags = CF_KEEP_TTL), .before = "old short 0",
     .after = "new short 0", .hit = true},
    {"set keep_ttl, otherwise a ttl", OLD_SHORT, "", REQUEST(CF_OP_SET, NEW, .flags = CF_KEEP_TTL), .ttl_ms = 1000000,
     .before = "old short 0", .after = "new short 0", .hit = true},
    {"delete", OLD, "", REQUEST(CF_OP_DELETE, KEY), .before = "old 0", .after = "none 0", .hit = true},
    {"pop", OLD, "", REQUEST(CF_OP_POP, KEY), .again = true, .before = "old 0", .after = "none 0", .hit = true, .value = "old"},
    {"pop, its script unknown", OLD, "", REQUEST(CF_OP_POP, KEY), .again = true, .several = true, .fresh = true,
     .before = "old 0", .after = "none 0", .hit = true, .value = "old"},
    {"pop of nothing", "", "", REQUEST(CF_OP_POP, KEY), .again = true, .before = "none 0"},
    {"pop without receipts", OLD, "?receipts=off", REQUEST(CF_OP_POP, KEY), .before = "old 0", .after = "none 0", .hit = true,
     .value = "old"},
    {"touch", OLD_SHORT, "", REQUEST(CF_OP_TOUCH, KEY, .flags = CF_TTL, LONG_TTL), .before = "old short 0", .after = "old long 0",
     .hit = true},
    {"incr", NUMBER_41, "", REQUEST(CF_OP_INCR, KEY, .by = 1), .again = true, .before = "41 short 0", .after = "42 short 0",
     .hit = true, .number = 42},
    {"incr of nothing", "", "", REQUEST(CF_OP_INCR, KEY, .by = -7, .flags = CF_TTL, LONG_TTL), .again = true, .before = "none 0",
     .after = "-7 long 0", .hit = true, .number = -7},
    {"incr without receipts", NUMBER_41, "?receipts=off", REQUEST(CF_OP_INCR, KEY, .by = 1), .before = "41 short 0",
     .after = "42 short 0", .hit = true, .number = 42},
    {"scan", THREE, "", REQUEST(CF_OP_SCAN, .key = SLICE("c:"), .limit = 1000), .again = true, .before = "old 3", .hit = true,
     .keys = 3},
    {"count", THREE, "", REQUEST(CF_OP_COUNT, .key = SLICE("c:")), .again = true, .several = true, .before = "old 3", .hit = true,
     .number = 3},
    {"clear", THREE, "", REQUEST(CF_OP_CLEAR, .key = SLICE("c:")), .several = true, .before = "old 3", .after = "old 0",
     .hit = true, .number = 3},
    {"set, large", OLD, "", REQUEST(CF_OP_SET, .key = SLICE("k"), .value = {large, sizeof large}), .before = "old 0",
     .after = "large 0", .hit = true},
    {"pop, large", "redis.call('SET',k,string.rep('x',20000))", "", REQUEST(CF_OP_POP, KEY), .again = true, .before = "large 0",
     .after = "none 0", .hit = true, .value = large},
#define METHOD(KIND, method) {.size = sizeof(cf_request), .kind = (KIND), .timeout_ms = PATIENT_MS}, .look = LOOK_RECORDS, .start = (method)
    {"create_user", "", "", METHOD(CF_OP_INSERT, create_user), .again = true, .before = "", .after = USER, .hit = true, .keys = 1},
    {"create_user without receipts", "", "?receipts=off", METHOD(CF_OP_INSERT, create_user), .again = true, .before = "", .after = USER,
     .hit = true, .keys = 1},
    {"update_user", RECORDS A_USER, "", METHOD(CF_OP_UPDATE, update_user), .again = true, .before = USER, .after = "informed user.email_key",
     .hit = true, .keys = 1},
    {"update_user without receipts", RECORDS A_USER, "?receipts=off", METHOD(CF_OP_UPDATE, update_user), .before = USER,
     .after = "informed user.email_key", .hit = true, .keys = 1},
    {"delete_user with a session", RECORDS A_USER A_SESSION("h"), "", METHOD(CF_OP_REMOVE, delete_user), .again = true, .before = SESSION " " USER,
     .after = "session.epoch", .hit = true},
    {"delete_user without receipts", RECORDS A_USER, "?receipts=off", METHOD(CF_OP_REMOVE, delete_user), .before = USER, .after = "session.epoch",
     .hit = true},
    {"find_user", RECORDS A_USER, "", METHOD(CF_OP_FIND, find_user), .again = true, .before = USER, .hit = true, .keys = 1},
    {"find_or_create", "", "", METHOD(CF_OP_INSERT, find_or_create), .again = true, .several = true, .before = "",
     .after = "social_account social_account.provider,provider_user_id social_account.user_id " USER, .hit = true, .number = 1, .keys = 2},
    {"create_session, its script unknown", "", "", METHOD(CF_OP_INSERT, create_session), .again = true, .several = true, .fresh = true, .before = "",
     .after = SESSION, .hit = true, .keys = 1},
    {"list_sessions", RECORDS A_SESSION("h") OTHER A_SESSION("g"), "", METHOD(CF_OP_LIST, list_sessions), .again = true,
     .before = "session session session.token_hash session.token_hash session.user_id", .hit = true, .keys = 2},
    {"revoke", RECORDS A_SESSION("h"), "", METHOD(CF_OP_UPDATE, revoke_session), .again = true, .before = SESSION,
     .after = "revoked session.token_hash session.user_id", .hit = true},
    {"revoke_all", RECORDS A_SESSION("h") OTHER A_SESSION("g"), "", METHOD(CF_OP_UPDATE, revoke_sessions), .again = true,
     .before = "session session session.token_hash session.token_hash session.user_id",
     .after = "revoked revoked session.epoch session.token_hash session.token_hash session.user_id", .hit = true, .number = 2},
};
enum { SCENES = sizeof scenes / sizeof *scenes };

/* One call alone finds its script unknown; behind it the server knows it again. */
#define WORKERS_OF(of) ((of)->fresh ? 1U : (size_t)WORKERS)

/* ------------------------------------------------------------------------------------------------------------ the world -- */

static server        redis;
static faults_proxy *proxy;
static const char   *greeting_options = "";
static uint64_t      faults, recovered, unknown, not_applied, after_receipt, repeated, wrong_ones;
static int64_t       slowest, latest; /* ms; and how much later than its deadline a call has ended */

typedef struct call {
    int      status, outcome;
    bool     hit, value_right;
    int64_t  number, started, ended;
    size_t   keys;
    char     receipt[CF_RECEIPT_LEN + 1], text[256];
} call;

typedef struct worker {
    char      prefix[8];
    cf_store *store;
    cf_op    *op;
    uint64_t  link;
    size_t    place;
    bool      armed;
    call      got;
    const scene *of;
} worker;

static cf_loop *loop;
static worker   workers[WORKERS];
static size_t   running;

__attribute__((format(printf, 5, 6))) static void wrong(const scene *of, manner how, const char *direction, const worker *w,
                                                        const char *format, ...)
{
    char    text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (wrong_ones++ < 20)
        printf("WRONG: %s, %s at byte %zu of the %s: %s [status %s, outcome %s, hit %d, number %lld, %lld ms: %s]\n", of->name,
               manners[how], w->place, direction, text, cf_status_name(w->got.status), cf_outcome_name(w->got.outcome),
               w->got.hit, (long long)w->got.number, (long long)(w->got.ended - w->got.started), w->got.text);
}

static const char *eval(const char *prefix, const char *lua)
{
    char command[4000];
    snprintf(command, sizeof command, "EVAL \"local p=KEYS[1] local k=p..'k' %s\" 1 %s", lua, prefix);
    const char *said = server_says(&redis, command);
    if (said[0] == '-' && said[1] >= 'A') { /* -ERR, and not a negative number */
        fprintf(stderr, "%s\n%s\n", command, said);
        exit(2);
    }
    return said;
}

static int state_of(const worker *w, char there[256])
{
    snprintf(there, 256, "%s", eval(w->prefix, w->of->look ? w->of->look : LOOK));
    if (strcmp(there, w->of->before) == 0) return BEFORE;
    return w->of->after && strcmp(there, w->of->after) == 0 ? AFTER : NEITHER;
}

static void take(worker *w, int status)
{
    call *got = &w->got;
    cf_slice key;
    got->ended = now_ms();
    got->status = status;
    got->outcome = cf_op_error(w->op)->outcome;
    snprintf(got->text, sizeof got->text, "%s", status < 0 ? cf_op_error(w->op)->text : "");
    got->hit = cf_op_hit(w->op);
    got->number = cf_op_number(w->op);
    cf_slice value = cf_op_value(w->op), wanted = w->of->value == large ? cf_bytes(large, sizeof large) : cf_text(w->of->value);
    got->value_right = value.len == wanted.len && (wanted.len == 0 || memcmp(value.ptr, wanted.ptr, wanted.len) == 0);
    got->keys = 0;
    if (w->of->request.kind == CF_OP_SCAN) { /* a page is no value */
        unsigned which = 0;
        for (; cf_op_next_key(w->op, &key); got->keys++)
            if (key.len == 3 && memcmp(key.ptr, "c:", 2) == 0) which |= 1U << (key.ptr[2] - '0');
        got->value_right = which == 0xe;
    }
    if (w->of->start) { /* records are none either */
        cf_record record;
        for (; cf_op_next_record(w->op, &record); got->keys++)
            if (record.fields[0].is != CF_GIVEN) break;
        got->value_right = true;
    }
    cf_slice receipt = cf_op_receipt(w->op);
    memset(got->receipt, 0, sizeof got->receipt);
    if (receipt.len) memcpy(got->receipt, receipt.ptr, CF_RECEIPT_LEN);
}

static void on_done(cf_op *op, void *user)
{
    worker *w = user;
    take(w, cf_op_status(op));
    running--;
}

static void submit(worker *w, const cf_request *request)
{
    w->got = (call){.status = CF_PENDING, .started = now_ms()};
    cf_call with = {request->timeout_ms, request->done, request->user};
    int     status = w->of->start ? w->of->start(w->store, &with, &w->op) : cf_submit(w->store, request, &w->op);
    if (!w->op) abort();
    if (status == CF_PENDING) running++;
    else take(w, status);
}

static void run_all(void)
{
    while (running)
        if (cf_loop_run(loop, 1000) < 0) abort();
}

static void let_go(worker *w)
{
    cf_op_free(w->op);
    w->op = NULL;
}

/* A call of no account, on the worker's store. */
static answer warm(worker *w)
{
    return ask(w->store, CF_REQUEST(CF_OP_GET, .key = SLICE("warm"), .timeout_ms = 10000));
}

static void open_store(worker *w, const char *options, int64_t ttl_ms)
{
    cf_open_options open = {.size = sizeof open, .prefix = cf_text(w->prefix), .ttl_ms = ttl_ms};
    cf_error        error;
    char            url[256];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/%s", proxy->port, options);
    if (cf_open(loop, cf_text(url), &open, &w->store, &error) == CF_OK) return;
    fprintf(stderr, "open: %s\n", error.text);
    exit(2);
}

static void close_store(worker *w)
{
    cf_store_close(w->store, NULL);
    w->store = NULL;
}

/* Nothing is under way between us and the server: what was sent has been executed. */
static void settle(void)
{
    const char *said = faults_say(proxy, "wait draining = 0 10000");
    if (strstr(said, "late")) {
        fprintf(stderr, "the server does not come to an end: %s\n", said);
        exit(2);
    }
}

/* A connected store whose connection is silent, and that connection's number at the proxy. The second call is answered behind
 * what the store asks about the server. */
static void get_ready(worker *w, manner how)
{
    char options[128];
    const char *own = w->of->options;
    if (how == SILENCE) {
        snprintf(options, sizeof options, "%s%csilence=0.08", own, *own ? '&' : '?');
        own = options;
    }
    eval(w->prefix, w->of->setup);
    open_store(w, own, w->of->ttl_ms);
    for (int i = 0; i < 2; i++)
        if (warm(w).status != CF_OK) wrong(w->of, how, "warm-up", w, "no connection");
    w->link = faults_figure(proxy, "accepted"); /* on a slow machine a first one may have been too silent */
    if (w->of->fresh) server_says(&redis, "SCRIPT FLUSH");
}

/* ------------------------------------------------------------------------------------------------------------ judgement -- */

static void judge_success(worker *w, manner how, const char *direction)
{
    const call  *got = &w->got;
    const scene *of = w->of;
    char         there[256];
    int          state = state_of(w, there);
    if (state != (of->after ? AFTER : BEFORE)) wrong(of, how, direction, w, "it has succeeded, and the server has \"%s\"", there);
    if (got->hit != of->hit || got->number != of->number || !got->value_right || got->keys != of->keys)
        wrong(of, how, direction, w, "the answer is wrong");
}

/* Whether the server has executed a call of one command. */
static bool was_executed(const char *direction, size_t place, size_t request)
{
    return strcmp(direction, "reply") == 0 || place >= request;
}

static void judge(worker *w, manner how, const char *direction, size_t request)
{
    const call  *got = &w->got;
    const scene *of = w->of;
    bool         reads = !of->after, stalled = how == STALL;
    int64_t      took = got->ended - got->started, deadline = stalled ? BRIEF_MS : PATIENT_MS;
    int64_t      slack = 1000 * (int64_t)env_number("CF_GUARD_FACTOR", 1);
    char         there[256];
    if (!stalled && took > slowest) slowest = took;
    if (took - deadline > latest) latest = took - deadline;
    if (took > deadline + slack) wrong(of, how, direction, w, "its deadline is long over");
    if (got->status == CF_OK) {
        judge_success(w, how, direction);
        recovered++;
        return;
    }
    int state = state_of(w, there);
    if (state == NEITHER) wrong(of, how, direction, w, "the server has \"%s\"", there);
    if (got->status != CF_EUNAVAILABLE && !(stalled && got->status == CF_ETIMEOUT))
        wrong(of, how, direction, w, "that is no error for this");
    if (of->again && !stalled) wrong(of, how, direction, w, "it could have been asked again");
    if (got->outcome == CF_NOT_APPLIED && state == AFTER) wrong(of, how, direction, w, "it has been applied: \"%s\"", there);
    if (got->outcome == CF_APPLIED && state != AFTER) wrong(of, how, direction, w, "it has not been applied: \"%s\"", there);
    if (reads && of->request.kind != CF_OP_SET && of->request.kind != CF_OP_POP && got->outcome != CF_NOT_APPLIED)
        wrong(of, how, direction, w, "a call that reads");
    /* What the fault was meant to do it has done. */
    if (of->after && !of->several && !stalled && w->armed &&
        state != (was_executed(direction, w->place, request) ? AFTER : BEFORE))
        wrong(of, how, direction, w, "the fault was another one: the server has \"%s\"", there);
    if (got->outcome == CF_UNKNOWN) unknown++;
    else not_applied++;
}

/* After a stall is over: the late answer has reached nobody, the connection goes on, and the receipt gives the answer. */
static void judge_late(worker *w, const char *direction)
{
    char   there[256];
    call   got = w->got;
    answer a = warm(w);
    if (a.status != CF_OK || a.hit)
        wrong(w->of, STALL, direction, w, "the call behind it: %s, %s", cf_status_name(a.status), a.value);
    int state = state_of(w, there);
    if (state == NEITHER) wrong(w->of, STALL, direction, w, "after the stall the server has \"%s\"", there);
    if (got.status == CF_OK) return;
    if (got.outcome == CF_NOT_APPLIED && state == AFTER)
        wrong(w->of, STALL, direction, w, "it was applied when the stall was over: \"%s\"", there);
    bool due = w->of->again && w->of->request.kind != CF_OP_GET && w->of->request.kind != CF_OP_SCAN &&
               w->of->request.kind != CF_OP_COUNT && !w->of->start && got.outcome == CF_UNKNOWN;
    if (due != (got.receipt[0] != 0)) wrong(w->of, STALL, direction, w, "a receipt is %s", due ? "missing" : "there for nothing");
    if (!got.receipt[0]) return;
    cf_request again = w->of->request;
    again.receipt = cf_bytes(got.receipt, CF_RECEIPT_LEN);
    again.done = on_done;
    again.user = w;
    let_go(w);
    submit(w, &again);
    cf_loop_flush(loop);
    run_all();
    if (w->got.status != CF_OK) wrong(w->of, STALL, direction, w, "asked again with the receipt");
    else judge_success(w, STALL, direction);
    after_receipt++;
}

/* ------------------------------------------------------------------------------------------------------------- sweeping -- */

static void batch(const scene *of, manner how, const char *direction, size_t request, size_t from, size_t to, size_t stride)
{
    size_t count = 0;
    for (size_t place = from; place < to && count < WORKERS_OF(of); place += stride, count++) {
        worker *w = &workers[count];
        w->of = of;
        w->place = place;
        get_ready(w, how);
    }
    for (size_t i = 0; i < count; i++) {
        worker *w = &workers[i];
        w->armed =
            *faults_say(proxy, "conn %llu cut %s %zu %s", (unsigned long long)w->link, direction, w->place, hows[how]) == '1';
        if (!w->armed) wrong(of, how, direction, w, "the connection was not there");
    }
    for (size_t i = 0; i < count; i++) {
        cf_request wanted = of->request;
        if (how == STALL) wanted.timeout_ms = BRIEF_MS;
        wanted.done = on_done;
        wanted.user = &workers[i];
        submit(&workers[i], &wanted);
    }
    cf_loop_flush(loop);
    run_all();
    settle();
    for (size_t i = 0; i < count; i++) judge(&workers[i], how, direction, request);
    if (how == STALL) faults_say(proxy, "resume");
    for (size_t i = 0; i < count; i++) {
        worker *w = &workers[i];
        if (how == STALL) judge_late(w, direction);
        else if (warm(w).status != CF_OK) wrong(of, how, direction, w, "it does not come back");
        let_go(w);
        close_store(w);
    }
    faults += count;
    server_says(&redis, "FLUSHALL");
}

/* How many bytes the call has in each direction. */
static void measure(const scene *of, size_t *request, size_t *reply)
{
    worker *w = &workers[0];
    w->of = of;
    w->place = 0;
    get_ready(w, FIN);
    uint64_t asked = faults_figure(proxy, "request"), answered = faults_figure(proxy, "reply");
    cf_request wanted = of->request;
    wanted.done = on_done;
    wanted.user = w;
    submit(w, &wanted);
    run_all();
    if (w->got.status != CF_OK) wrong(of, FIN, "nothing", w, "without a fault");
    else judge_success(w, FIN, "nothing");
    *request = (size_t)(faults_figure(proxy, "request") - asked);
    *reply = (size_t)(faults_figure(proxy, "reply") - answered);
    let_go(w);
    close_store(w);
    server_says(&redis, "FLUSHALL");
}

/* What fits into one batch costs little; what takes long comes seldom, but in the run of every byte. */
static size_t stride_of(const scene *of, size_t bytes, size_t stride)
{
    if (stride == 1) return 1;
    return bytes > 4000 ? stride * 331 : of->start && bytes > WORKERS ? stride * (of->fresh ? 53 : 5) : of->fresh ? stride * 13 : bytes <= WORKERS ? (stride + 3) / 4 : stride;
}

/* A fault that has not happened has tested nothing: on a machine that was busy with others the store has given its connection up
 * before. Then once more. */
static bool have_fired(const char *name, manner how, uint64_t fired, uint64_t done, int tries)
{
    fired = faults_figure(proxy, "fired") - fired;
    done = faults - done;
    if (fired == done) return true;
    if (tries < 3) return false;
    printf("WRONG: %s, %s: %llu faults were armed, %llu have happened\n", name, manners[how], (unsigned long long)done,
           (unsigned long long)fired);
    wrong_ones++;
    return true;
}

#define UNTIL_FIRED(name, how, ...)                                              \
    for (int tries = 1;; tries++) {                                              \
        uint64_t fired = faults_figure(proxy, "fired"), done = faults;           \
        __VA_ARGS__;                                                             \
        if (have_fired((name), (how), fired, done, tries)) break;                \
        repeated++;                                                              \
    }

static void sweep(const scene *of, size_t stride, rng *random)
{
    size_t length[2];
    measure(of, &length[0], &length[1]); /* the first time the server may not know the script */
    measure(of, &length[0], &length[1]);
    for (manner how = FIN; how < MANNERS; how++)
        for (int d = 0; d < 2; d++) {
            /* Of a request also the place behind its last byte: it is executed, and the answer never comes. */
            size_t end = length[d] + (d == 0), step = stride_of(of, end, stride),
                   from = step > 1 ? (size_t)rng_below(random, step) : 0;
            for (size_t at = from; at < end; at += WORKERS_OF(of) * step)
                UNTIL_FIRED(of->name, how, batch(of, how, d ? "reply" : "request", length[0], at, end, step))
        }
}

/* ------------------------------------------------------------------------------------------------------------- greeting -- */

/* The connection's first bytes: AUTH, SELECT, PING, CLIENT SETNAME, then a call and the questions about the server. */
static const scene greeted = {
    "greeting",  OLD,           "", REQUEST(CF_OP_POP, KEY), .again = true, .before = "old 0", .after = "none 0",
    .hit = true, .value = "old"};

static void greet_batch(manner how, const char *direction, size_t from, size_t to, size_t stride)
{
    size_t count = 0;
    for (size_t place = from; place < to && count < WORKERS; place += stride, count++) {
        worker *w = &workers[count];
        w->of = &greeted;
        w->place = place;
        w->armed = false;
        eval(w->prefix, greeted.setup);
        open_store(w, greeting_options, 0);
        faults_say(proxy, "next cut %s %zu %s", direction, place, hows[how]);
    }
    for (size_t i = 0; i < count; i++) {
        cf_request wanted = greeted.request;
        if (how == STALL) wanted.timeout_ms = BRIEF_MS;
        wanted.done = on_done;
        wanted.user = &workers[i];
        submit(&workers[i], &wanted);
        cf_loop_flush(loop);
    }
    run_all();
    settle();
    for (size_t i = 0; i < count; i++) judge(&workers[i], how, direction, 0);
    if (how == STALL) faults_say(proxy, "resume");
    for (size_t i = 0; i < count; i++) {
        if (how == STALL) judge_late(&workers[i], direction);
        /* Some places are behind the call, in what the store asks about the server: this is answered last. */
        if (warm(&workers[i]).status != CF_OK) wrong(&greeted, how, direction, &workers[i], "it does not come back");
        let_go(&workers[i]);
        close_store(&workers[i]);
    }
    faults_say(proxy, "pass");
    faults += count;
    server_says(&redis, "FLUSHDB");
}

static void sweep_greeting(size_t stride, rng *random)
{
    size_t unused[2];
    measure(&greeted, &unused[0], &unused[1]); /* from here on the server knows the script again */
    server_says(&redis, "SELECT 2");
    server_says(&redis, "CONFIG SET requirepass a@b:c/d");
    greeting_options = "2?password=a%40b%3Ac%2Fd&connect_timeout=0.2&silence=0.2";
    worker *w = &workers[0];
    w->of = &greeted;
    eval(w->prefix, greeted.setup);
    uint64_t start[2] = {faults_figure(proxy, "request"), faults_figure(proxy, "reply")};
    open_store(w, greeting_options, 0);
    cf_request wanted = greeted.request;
    wanted.done = on_done;
    wanted.user = w;
    submit(w, &wanted);
    run_all();
    if (w->got.status != CF_OK) wrong(&greeted, FIN, "nothing", w, "without a fault");
    uint64_t margin = 64; /* the server's figures have not always so many digits */
    if (warm(w).status != CF_OK) wrong(&greeted, FIN, "nothing", w, "without a fault");
    let_go(w);
    close_store(w);
    uint64_t whole[2] = {faults_figure(proxy, "request") - start[0] - margin, faults_figure(proxy, "reply") - start[1] - margin};
    for (manner how = FIN; how < MANNERS; how++) {
        for (int d = 0; d < 2; d++) {
            size_t step = d == 1 && stride > 1 ? stride * 7 : stride; /* the reply of INFO has some thousands of bytes */
            size_t from = step > 1 ? (size_t)rng_below(random, step) : 0;
            for (size_t at = from; at < whole[d]; at += WORKERS * step)
                UNTIL_FIRED("greeting", how, greet_batch(how, d ? "reply" : "request", at, (size_t)whole[d], step))
        }
    }
    server_says(&redis, "CONFIG SET requirepass \"\"");
}

int main(void)
{
    bool   all = env_number("CF_LONG", 0) != 0;
    size_t stride = all ? 1 : (size_t)env_number("CF_STRIDE", 9);
    rng    random = {seed_of_run()};
    char   address[32];
    hang_guard((unsigned)env_number("CF_GUARD", all ? 3600 : 280));
    memset(large, 'x', sizeof large);
    server_start(&redis, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%d", redis.port);
    proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), address);
    if (!proxy || cf_loop_new(NULL, &loop) != CF_OK) {
        fprintf(stderr, "CF_FAULTPROXY must be the program faultproxy\n");
        return 2;
    }
    for (int i = 0; i < WORKERS; i++) snprintf(workers[i].prefix, sizeof workers[i].prefix, "w%02d:", i);
    int64_t started = now_ms();
    for (int i = 0; i < SCENES; i++) sweep(&scenes[i], stride, &random);
    uint64_t in_calls = faults;
    sweep_greeting(stride, &random);
    printf("%d calls x every %zu. byte: %llu faults in calls, %llu in greetings, %lld s: %llu succeeded, %llu unknown, %llu not "
           "applied, %llu asked again by receipt; "
           "the slowest that was not stalled took %lld ms, the latest was %lld ms over its deadline; "
           "%llu batches repeated, %llu wrong\n",
           SCENES, stride, (unsigned long long)in_calls, (unsigned long long)(faults - in_calls),
           (long long)(now_ms() - started) / 1000, (unsigned long long)recovered, (unsigned long long)unknown,
           (unsigned long long)not_applied, (unsigned long long)after_receipt, (long long)slowest, (long long)latest,
           (unsigned long long)repeated, (unsigned long long)wrong_ones);
    cf_loop_free(loop);
    faults_proxy_stop(proxy);
    server_stop(&redis);
    return wrong_ones ? 1 : 0;
}
