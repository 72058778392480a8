/* records_model.c: random calls of every method of AccountsStorage and SessionStorage, with so few users, addresses, providers and token hashes that they collide,
 * against a model that a reader can check in his head: rows in arrays, and the rules as counterfoil.h has them. Errors are compared too. Where data can be
 * shared two stores of each of two prefixes take turns. In the end Redis and memory must have nothing left but epochs.
 *
 * CF_LONG=1: 100,000 calls on each backend. CF_ONLY: the name of one. CF_SEED repeats a run. */
#include "support.h"

#include <unistd.h>

#include "redis_support.h"

enum { ROWS = 96, GOT = 128, CURSORS = 8, EPOCHS = 4096, MOST_ACCOUNTS = 2, MOST_SESSIONS = 3, SESSIONS = CF_ACCOUNTS_METHODS };

typedef struct row {
    bool      there;
    cf_record r;      /* its texts are constants or in `ids` */
    int64_t   expiry; /* ms; 0: never */
} row;

typedef struct place { /* where a page ended */
    char    text[CF_CURSOR_MAX];
    size_t  len;
    int     order;
    int64_t value;
    cf_slice id;
} place;

typedef struct world_of_rows {
    cf_store *stores[2];
    int       store_count;
    row       rows[CF_KINDS][ROWS];
    struct {
        cf_slice user_id;
        int64_t  number;
    } epochs[EPOCHS];
    size_t epoch_count;
    cf_slice deleted; /* the last of the users that are */
    place  cursors[CURSORS];
    size_t cursor_count;
} world_of_rows;

static world_of_rows worlds[2]; /* one for each prefix */
static int           world_count;
static cf_stage     *stage;
static char        (*ids)[CF_ID_LEN + 1]; /* every id that was ever given */
static size_t        id_count, id_room;
static rng           dice;
static uint64_t      seed, step_number;
static uint64_t      seen_how[64][32]; /* by method and by how it ended: a hit 0, a miss 1, an error its own number */
static const char   *backend_name, *doing = "";
static const char   *clock_file;
static bool          sealed;

/* What the last call brought. */
static struct {
    cf_op    *op;
    int       status;
    cf_error  error;
    bool      hit;
    int64_t   number;
    cf_record records[GOT];
    size_t    count;
} got;

#define must(condition)                                                                                                                                \
    do {                                                                                                                                               \
        if (!(condition)) failed(#condition, __LINE__);                                                                                                \
    } while (0)

static _Noreturn void failed(const char *what, int line)
{
    fprintf(stderr, "%s: CF_SEED=%llu, call %llu (%s): not true: %s (line %d)\n", backend_name, (unsigned long long)seed, (unsigned long long)step_number, doing, what, line);
    fprintf(stderr, "the answer: %s (%s), hit %d, number %lld, %zu records\n", cf_status_name(got.status), got.error.text, got.hit, (long long)got.number, got.count);
    exit(1);
}

static uint64_t below(uint64_t bound) { return rng_below(&dice, bound); }
static bool     one_in(uint64_t n) { return below(n) == 0; }
static bool     same(cf_slice a, cf_slice b) { return a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0); }
static int64_t  wall(void) { return cf_stage_wall_ms(stage); }

/* ------------------------------------------------------------------------------------------------------------- schema -- */

static const bool nullable[CF_KINDS][CF_FIELDS_MAX] = {
#define CF_FIELD(KIND, NAME, name, type, null) [CF_##KIND][CF_##KIND##_##NAME] = null,
#include "counterfoil/schema.def"
};

#define BIT(field) (1U << (field))
#define USER_MAY (BIT(CF_USER_EMAIL_VERIFIED) | BIT(CF_USER_HASHED_PASSWORD) | BIT(CF_USER_USER_INFO) | BIT(CF_USER_EXTRA_FIELDS))
#define ACCOUNT_MAY                                                                                                                                    \
    (BIT(CF_SOCIAL_ACCOUNT_PROVIDER_EMAIL) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER_EMAIL_VERIFIED) | BIT(CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD) |                 \
     BIT(CF_SOCIAL_ACCOUNT_ACCESS_TOKEN) | BIT(CF_SOCIAL_ACCOUNT_REFRESH_TOKEN) | BIT(CF_SOCIAL_ACCOUNT_ACCESS_TOKEN_EXPIRES_AT) |                     \
     BIT(CF_SOCIAL_ACCOUNT_REFRESH_TOKEN_EXPIRES_AT) | BIT(CF_SOCIAL_ACCOUNT_SCOPE) | BIT(CF_SOCIAL_ACCOUNT_USER_INFO) |                               \
     BIT(CF_SOCIAL_ACCOUNT_EXTRA_FIELDS))
#define SESSION_MAY                                                                                                                                    \
    (BIT(CF_SESSION_LAST_ACTIVE_AT) | BIT(CF_SESSION_CLIENT_ID) | BIT(CF_SESSION_CLIENT_NAME) | BIT(CF_SESSION_USER_AGENT) | BIT(CF_SESSION_IP))

/* ------------------------------------------------------------------------------------------------------------- values -- */

static char long_text[CF_JSON_MAX + 2];

static const struct {
    const char *text, *key; /* as it is given; as it is looked up */
} emails[] = {{"ann@x.org", "ann@x.org"},   {"ANN@x.ORG", "ann@x.org"},         {" \tAnn@x.org\n", "ann@x.org"}, {"bob@x.org", "bob@x.org"},
              {"Bob@x.org\r ", "bob@x.org"}, {"kim@x.org", "kim@x.org"},         {"\xe2\x84\xaaim@x.org", "\xe2\x84\xaaim@x.org"},
              {"k\xc4\xb1m@x.org", "k\xc4\xb1m@x.org"}, {"KIM@X.org", "kim@x.org"}, {"a.nn+1@x.org", "a.nn+1@x.org"}, {"%", "%"}};
static const char *const texts[] = {"", "a", "0", "two\nlines", "\xc3\xa9\xf0\x9d\x84\x9e", "null", "' \" \\ \x01"};
static const char *const jsons[] = {"{}", "{\"a\":[1,2,{\"b\":null}]}", "\"\\u0000\"", "[]", "7"};
static const char *const providers[] = {"github", "google", "git"};
static const char *const accounts[] = {"1", "2", "hub1", "\xc3\xa9", "3"};
static char hashes[24][8]; /* h0 ... */
static const char *const free_users[] = {"s1", "S1", "s 2"};
static const char *const no_ids[] = {"nobody", "-", "*", "0123456789abcdef0123456789abcdeF"};

#define one_of(list) cf_text((list)[below(sizeof(list) / sizeof *(list))])

static int64_t some_instant(void)
{
    switch (below(40)) {
    case 0: return 0;
    case 1: return CF_NUMBER_MAX;
    default: break;
    }
    if (one_in(2)) return (wall() / 2000 - (int64_t)below(2)) * 2000000; /* often the same */
    return (wall() - 2000 + (int64_t)below(4) * 1000) * 1000 + (int64_t)below(3);
}

static int64_t some_end(void)
{
    static const int64_t in[] = {-1000, 0, 1, 5000, 60000, 60000};
    return one_in(20) ? some_instant() : (wall() + in[below(6)]) * 1000;
}

static bool is_indexed(int kind, int at)
{
    const cf_kind *of = cf_kind_of(kind);
    return at == 0 || at == of->unique[0] || at == of->unique[1] || at == of->listing;
}

static cf_slice indexed_fault(void)
{
    switch (below(5)) {
    case 0: return cf_text("");
    case 1: return cf_text("a\nb");
    case 2: return cf_bytes("a\0b", 3);
    case 3: return cf_text("\xed\xa0\x80");
    default: return cf_bytes(long_text, CF_INDEXED_MAX + 1);
    }
}

static void set_some(cf_record *r, int at)
{
    if (nullable[r->kind][at] && one_in(4)) {
        cf_record_null(r, at);
        return;
    }
    switch (cf_field_type_of(r->kind, at)) {
    case CF_BOOLEAN: cf_record_number(r, at, (int64_t)below(2)); return;
    case CF_INSTANT: cf_record_number(r, at, some_instant()); return;
    case CF_JSON: cf_record_text(r, at, one_in(50) ? cf_bytes(long_text, below(CF_JSON_MAX)) : one_of(jsons)); return;
    default: cf_record_text(r, at, one_in(30) ? cf_bytes(long_text, 1 + below(3000)) : one_of(texts)); return;
    }
}

static void set_random(cf_record *r, unsigned may)
{
    for (int i = 0; cf_field_name(r->kind, i); i++)
        if (may & BIT(i) && one_in(2)) set_some(r, i);
}

static void set_bad(cf_record *r, int at)
{
    cf_field_type type = cf_field_type_of(r->kind, at);
    if (!nullable[r->kind][at] && one_in(3)) cf_record_null(r, at);
    else if (is_indexed(r->kind, at)) cf_record_text(r, at, indexed_fault());
    else if (type == CF_BOOLEAN) cf_record_number(r, at, one_in(2) ? 2 : -1);
    else if (type == CF_INSTANT) cf_record_number(r, at, one_in(2) ? -1 : CF_NUMBER_MAX + 1);
    else if (type == CF_SECRET && !sealed && one_in(3)) cf_record_text(r, at, cf_text("sealed:x"));
    else if (one_in(3)) cf_record_text(r, at, cf_bytes("a\0b", 3));
    else if (one_in(2)) cf_record_text(r, at, cf_text("\xff"));
    else cf_record_text(r, at, cf_bytes(long_text, (type == CF_JSON ? CF_JSON_MAX : CF_TEXT_MAX) + 1));
}

/* Now and then makes a request one that must be refused: a field that the method has not, one that it needs taken away, a value that cannot be. */
static bool spoil(cf_record *r, unsigned needs, unsigned may)
{
    if (!one_in(12)) return false;
    unsigned which = below(3) == 0 ? ~(needs | may) : one_in(2) ? needs & ~1U : may | (needs & ~1U);
    bool     strange = !(which & (needs | may)), taken = !strange && which == (needs & ~1U) && one_in(2);
    int      found[CF_FIELDS_MAX], count = 0;
    for (int i = 0; cf_field_name(r->kind, i); i++)
        if (which & BIT(i) && !(r->kind == CF_USER && (i == CF_USER_EMAIL || i == CF_USER_EMAIL_KEY))) found[count++] = i;
    if (!count) return false;
    int at = found[below((uint64_t)count)];
    if (strange) set_some(r, at);
    else if (taken) r->fields[at].is = CF_UNSAID;
    else set_bad(r, at);
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ the model -- */

static void tidy(world_of_rows *w)
{
    for (int kind = 0; kind < CF_KINDS; kind++)
        for (int i = 0; i < ROWS; i++)
            if (w->rows[kind][i].expiry && w->rows[kind][i].expiry <= wall()) w->rows[kind][i].there = false;
}

static cf_slice text_in(const row *r, int at) { return r->r.fields[at].is == CF_GIVEN ? r->r.fields[at].text : cf_text(""); }
static int64_t  number_in(const row *r, int at) { return r->r.fields[at].number; }

/* The row that has this in a field; `second` -1: or in two. Empty is never found. */
static row *having(world_of_rows *w, int kind, int first, cf_slice text, int second, cf_slice text2)
{
    for (int i = 0; i < ROWS && text.len; i++) {
        row *r = &w->rows[kind][i];
        if (r->there && same(text_in(r, first), text) && (second < 0 || same(text_in(r, second), text2))) return r;
    }
    return NULL;
}
static row *with_id(world_of_rows *w, int kind, cf_slice id) { return having(w, kind, 0, id, -1, id); }

static int64_t *epoch_of(world_of_rows *w, cf_slice user_id)
{
    for (size_t i = 0; i < w->epoch_count; i++)
        if (same(w->epochs[i].user_id, user_id)) return &w->epochs[i].number;
    must(w->epoch_count < EPOCHS);
    w->epochs[w->epoch_count].user_id = user_id;
    w->epochs[w->epoch_count].number = 0;
    return &w->epochs[w->epoch_count++].number;
}

static int in_group(world_of_rows *w, int kind, int listing, cf_slice user_id, row *out[ROWS])
{
    int count = 0;
    for (int i = 0; i < ROWS; i++)
        if (w->rows[kind][i].there && same(text_in(&w->rows[kind][i], listing), user_id)) out[count++] = &w->rows[kind][i];
    return count;
}

static cf_slice keep_id(cf_slice id)
{
    must(id.len == CF_ID_LEN);
    for (size_t i = 0; i < id.len; i++) must(strchr("0123456789abcdef", id.ptr[i]) && id.ptr[i]);
    for (size_t i = 0; i < id_count; i++) must(memcmp(ids[i], id.ptr, CF_ID_LEN) != 0);
    must(id_count < id_room);
    memcpy(ids[id_count], id.ptr, CF_ID_LEN);
    return cf_bytes(ids[id_count++], CF_ID_LEN);
}

/* A new row, as it was asked for; what was not said is null, or false. */
static row *add(world_of_rows *w, const cf_record *asked, cf_slice id)
{
    for (int i = 0; i < ROWS; i++) {
        row *r = &w->rows[asked->kind][i];
        if (r->there) continue;
        *r = (row){.there = true, .r = *asked};
        cf_record_text(&r->r, 0, id);
        for (int f = 0; cf_field_name(asked->kind, f); f++) {
            if (r->r.fields[f].is != CF_UNSAID) continue;
            if (nullable[asked->kind][f]) cf_record_null(&r->r, f);
            else cf_record_number(&r->r, f, 0);
        }
        return r;
    }
    failed("the model has room", __LINE__);
}

static void change(row *r, const cf_record *changes)
{
    for (int f = 1; cf_field_name(changes->kind, f); f++)
        if (changes->fields[f].is != CF_UNSAID) r->r.fields[f] = changes->fields[f];
}

static int64_t now_us(void) { return wall() * 1000; }

/* ------------------------------------------------------------------------------------------------------------- calling -- */

static cf_store *store_of(world_of_rows *w) { return w->stores[below((uint64_t)w->store_count)]; }

static void let_go(void)
{
    cf_op_free(got.op);
    got.op = NULL;
}

static void take(int method, int status, cf_op *op)
{
    must(op != NULL);
    if (status == CF_PENDING) status = cf_op_wait(op);
    got.op = op;
    got.status = status;
    got.error = *cf_op_error(op);
    got.hit = cf_op_hit(op);
    got.number = cf_op_number(op);
    got.count = 0;
    while (cf_op_next_record(op, &got.records[got.count])) must(++got.count < GOT);
    seen_how[method][status ? -status + 1 : got.hit ? 0 : 1]++;
    must(got.error.status == status);
    if (status != CF_OK) must(got.error.outcome == CF_NOT_APPLIED && got.error.text[0] && !got.hit);
    if (status != CF_OK && status != CF_EEXISTS) must(got.count == 0);
}

static void ask_accounts(world_of_rows *w, int method, const cf_record *record, const cf_record *user)
{
    cf_accounts of = {store_of(w), MOST_ACCOUNTS};
    cf_op      *op;
    doing = cf_accounts_method_name(method);
    int status = cf_accounts_call(&of, method, record, user, NULL, &op);
    take(method, status, op);
}

static bool    refuse;
static int     most = MOST_SESSIONS; /* drawn for each create: it may be lowered, and raised */
static int64_t retention;
static void ask_sessions(world_of_rows *w, int method, const cf_record *record, const cf_session_args *args)
{
    static const char *const names[] = {"create", "get", "get_any", "list", "refresh", "revoke", "revoke_all", "epoch"};
    cf_sessions of = {store_of(w), (size_t)most, refuse, retention};
    cf_op      *op;
    doing = names[method];
    int status = cf_sessions_call(&of, method, record, args, NULL, &op);
    take(SESSIONS + method, status, op);
}

static void must_be(size_t at, const row *wanted)
{
    must(got.count > at && got.records[at].kind == wanted->r.kind);
    for (int f = 0; cf_field_name(wanted->r.kind, f); f++) {
        const cf_field *is = &got.records[at].fields[f], *should = &wanted->r.fields[f];
        if (is->is != should->is || (is->is == CF_GIVEN && (is->number != should->number || !same(is->text, should->text)))) failed(cf_field_name(wanted->r.kind, f), __LINE__);
    }
}

static void must_fail(int status)
{
    must(got.status == status);
    must(got.count == 0);
}
static void must_exist(const row *there)
{
    must(got.status == CF_EEXISTS && got.count == 1);
    must_be(0, there);
}
/* One row, or nothing. */
static void must_bring(const row *wanted)
{
    must(got.status == CF_OK && got.hit == (wanted != NULL) && got.count == (wanted ? 1U : 0U));
    if (wanted) must_be(0, wanted);
}

/* ----------------------------------------------------------------------------------------------------- ids to ask about -- */

static cf_slice some_id(world_of_rows *w, int kind)
{
    row     *live[ROWS];
    uint64_t count = 0;
    for (int i = 0; i < ROWS; i++)
        if (w->rows[kind][i].there) live[count++] = &w->rows[kind][i];
    if (count && !one_in(6)) return text_in(live[below(count)], 0);
    if (id_count && !one_in(3)) return cf_bytes(ids[below(id_count)], CF_ID_LEN); /* of another kind, another prefix, or of something that is gone */
    return one_of(no_ids);
}
/* Also one that has just been deleted: its epoch has not been. */
static cf_slice some_user_of_sessions(world_of_rows *w)
{
    if (!one_in(3)) return one_of(free_users);
    return w->deleted.len && one_in(2) ? w->deleted : some_id(w, CF_USER);
}

/* False: an address that cannot be one. */
static bool set_email(cf_record *user)
{
    if (one_in(25)) {
        cf_record_text(user, CF_USER_EMAIL, one_in(3) ? cf_text(" \t") : one_in(2) ? cf_text("a\nb") : cf_bytes(long_text, CF_EMAIL_MAX + 1));
        return false;
    }
    size_t i = below(sizeof emails / sizeof *emails);
    cf_record_text(user, CF_USER_EMAIL, cf_text(emails[i].text));
    cf_record_text(user, CF_USER_EMAIL_KEY, cf_text(emails[i].key));
    return true;
}

/* The key is the model's: callers must not give it. */
static cf_record as_given(const cf_record *user)
{
    cf_record given = *user;
    given.fields[CF_USER_EMAIL_KEY] = (cf_field){0};
    return given;
}

/* ------------------------------------------------------------------------------------------------------------ accounts -- */

static row *key_holder(world_of_rows *w, const cf_record *user)
{
    return user->fields[CF_USER_EMAIL_KEY].is == CF_GIVEN ? having(w, CF_USER, CF_USER_EMAIL_KEY, user->fields[CF_USER_EMAIL_KEY].text, -1, cf_text("")) : NULL;
}

static row *add_user(world_of_rows *w, const cf_record *asked, size_t at)
{
    must(got.count > at && got.records[at].kind == CF_USER);
    cf_record whole = *asked;
    cf_record_number(&whole, CF_USER_CREATED_AT, now_us());
    cf_record_number(&whole, CF_USER_UPDATED_AT, now_us());
    return add(w, &whole, keep_id(got.records[at].fields[0].text));
}
static row *add_account(world_of_rows *w, const cf_record *asked, size_t at)
{
    must(got.count > at && got.records[at].kind == CF_SOCIAL_ACCOUNT);
    cf_record whole = *asked;
    cf_record_number(&whole, CF_SOCIAL_ACCOUNT_CREATED_AT, now_us());
    cf_record_number(&whole, CF_SOCIAL_ACCOUNT_UPDATED_AT, now_us());
    return add(w, &whole, keep_id(got.records[at].fields[0].text));
}

static void find_user_by_email(world_of_rows *w)
{
    cf_record r = {.kind = CF_USER};
    bool      fine = set_email(&r);
    cf_record given = as_given(&r);
    ask_accounts(w, CF_FIND_USER_BY_EMAIL, &given, NULL);
    must_bring(fine ? key_holder(w, &r) : NULL);
}

static void find_by_id(world_of_rows *w, int kind)
{
    cf_record r = {.kind = kind};
    bool      fault = one_in(20);
    cf_slice  id = fault ? indexed_fault() : some_id(w, kind);
    cf_record_text(&r, 0, id);
    ask_accounts(w, kind == CF_USER ? CF_FIND_USER_BY_ID : CF_FIND_SOCIAL_ACCOUNT_BY_ID, &r, NULL);
    must_bring(fault ? NULL : with_id(w, kind, id));
}

static void create_user(world_of_rows *w)
{
    cf_record r = {.kind = CF_USER};
    bool      fine = true;
    if (one_in(6)) cf_record_null(&r, CF_USER_EMAIL);
    else if (!one_in(6)) fine = set_email(&r);
    set_random(&r, USER_MAY);
    if (spoil(&r, 0, USER_MAY)) fine = false;
    cf_record given = as_given(&r);
    if (one_in(50)) { /* the key is the core's */
        cf_record_text(&given, CF_USER_EMAIL_KEY, cf_text("ann@x.org"));
        fine = false;
    }
    ask_accounts(w, CF_CREATE_USER, &given, NULL);
    row *holder = fine ? key_holder(w, &r) : NULL;
    if (!fine) must_fail(CF_EINVAL);
    else if (holder) must_exist(holder);
    else must_bring(add_user(w, &r, 0));
}

static void update_user(world_of_rows *w)
{
    cf_record r = {.kind = CF_USER};
    bool      fine = true;
    cf_record_text(&r, 0, some_id(w, CF_USER));
    row *it = with_id(w, CF_USER, r.fields[0].text);
    if (one_in(6)) cf_record_null(&r, CF_USER_EMAIL), cf_record_null(&r, CF_USER_EMAIL_KEY);
    else if (one_in(2)) fine = set_email(&r);
    set_random(&r, USER_MAY);
    if (fine && spoil(&r, BIT(0), USER_MAY)) fine = false;
    cf_record given = as_given(&r);
    ask_accounts(w, CF_UPDATE_USER, &given, NULL);
    row *holder = key_holder(w, &r);
    if (!fine) {
        must_fail(CF_EINVAL);
    } else if (!it) {
        must_fail(CF_EMISSING);
    } else if (holder && holder != it) {
        must_exist(holder);
    } else {
        change(it, &r);
        cf_record_number(&it->r, CF_USER_UPDATED_AT, now_us());
        must_bring(it);
    }
}

static void delete_user(world_of_rows *w)
{
    cf_record r = {.kind = CF_USER};
    cf_slice  id = some_id(w, CF_USER);
    row      *it = with_id(w, CF_USER, id), *theirs[ROWS];
    cf_record_text(&r, 0, id);
    ask_accounts(w, CF_DELETE_USER, &r, NULL);
    must(got.status == CF_OK && got.hit == (it != NULL) && got.count == 0);
    if (!it) return;
    it->there = false;
    for (int i = in_group(w, CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_USER_ID, id, theirs); i-- > 0;) theirs[i]->there = false;
    for (int i = in_group(w, CF_SESSION, CF_SESSION_USER_ID, id, theirs); i-- > 0;) theirs[i]->there = false;
    w->deleted = text_in(it, 0);
    (*epoch_of(w, w->deleted))++;
}

static void set_provided(cf_record *r)
{
    cf_record_text(r, CF_SOCIAL_ACCOUNT_PROVIDER, one_of(providers));
    cf_record_text(r, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, one_of(accounts));
}
static row *provided(world_of_rows *w, const cf_record *r)
{
    return having(w, CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_PROVIDER, r->fields[CF_SOCIAL_ACCOUNT_PROVIDER].text, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID,
                  r->fields[CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID].text);
}

static void find_social_account(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT};
    bool      fault = one_in(20);
    set_provided(&r);
    if (fault) cf_record_text(&r, one_in(2) ? CF_SOCIAL_ACCOUNT_PROVIDER : CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, indexed_fault());
    ask_accounts(w, CF_FIND_SOCIAL_ACCOUNT, &r, NULL);
    must_bring(fault ? NULL : provided(w, &r));
}

/* The order of a list: by a field, then by id. */
static int     order_by;
static int64_t order_value(const row *r)
{
    static const int fields[] = {CF_SESSION_UPDATED_AT, CF_SESSION_CREATED_AT, CF_SESSION_EXPIRES_AT};
    return number_in(r, r->r.kind == CF_SESSION ? fields[order_by / 2] : CF_SOCIAL_ACCOUNT_CREATED_AT);
}
static int compare(int64_t a_value, cf_slice a_id, int64_t b_value, cf_slice b_id)
{
    int order = a_value != b_value ? (a_value < b_value ? -1 : 1) : memcmp(a_id.ptr, b_id.ptr, CF_ID_LEN);
    return order_by % 2 ? order : -order;
}
static int by_order(const void *a, const void *b)
{
    const row *first = *(row *const *)a, *second = *(row *const *)b;
    return compare(order_value(first), text_in(first, 0), order_value(second), text_in(second, 0));
}

static void list_social_accounts(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT};
    row      *theirs[ROWS];
    cf_record_text(&r, CF_SOCIAL_ACCOUNT_USER_ID, some_id(w, CF_USER));
    int count = in_group(w, CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_USER_ID, r.fields[CF_SOCIAL_ACCOUNT_USER_ID].text, theirs);
    order_by = CF_CREATED_AT_ASC;
    qsort(theirs, (size_t)count, sizeof *theirs, by_order);
    ask_accounts(w, CF_LIST_SOCIAL_ACCOUNTS, &r, NULL);
    must(got.status == CF_OK && got.count == (size_t)count && cf_op_cursor(got.op).len == 0);
    for (int i = 0; i < count; i++) must_be((size_t)i, theirs[i]);
}

static void create_social_account(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT};
    row      *theirs[ROWS];
    set_provided(&r);
    cf_record_text(&r, CF_SOCIAL_ACCOUNT_USER_ID, some_id(w, CF_USER));
    set_random(&r, ACCOUNT_MAY);
    bool fine = !spoil(&r, BIT(CF_SOCIAL_ACCOUNT_USER_ID) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID), ACCOUNT_MAY);
    ask_accounts(w, CF_CREATE_SOCIAL_ACCOUNT, &r, NULL);
    cf_slice user_id = r.fields[CF_SOCIAL_ACCOUNT_USER_ID].text;
    row     *holder = fine ? provided(w, &r) : NULL, *user = fine ? with_id(w, CF_USER, user_id) : NULL;
    if (!fine) {
        must_fail(CF_EINVAL);
    } else if (holder) {
        must_exist(holder);
    } else if (!user) {
        must_fail(CF_EMISSING);
    } else if (in_group(w, CF_SOCIAL_ACCOUNT, CF_SOCIAL_ACCOUNT_USER_ID, user_id, theirs) >= MOST_ACCOUNTS) {
        must_fail(CF_ELIMIT);
    } else {
        must_bring(add_account(w, &r, 0));
    }
}

static void update_social_account(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&r, 0, some_id(w, CF_SOCIAL_ACCOUNT));
    set_random(&r, ACCOUNT_MAY);
    bool fine = !spoil(&r, BIT(0), ACCOUNT_MAY);
    ask_accounts(w, CF_UPDATE_SOCIAL_ACCOUNT, &r, NULL);
    row *it = with_id(w, CF_SOCIAL_ACCOUNT, r.fields[0].text);
    if (!fine) {
        must_fail(CF_EINVAL);
    } else if (!it) {
        must_fail(CF_EMISSING);
    } else {
        change(it, &r);
        cf_record_number(&it->r, CF_SOCIAL_ACCOUNT_UPDATED_AT, now_us());
        must_bring(it);
    }
}

static void delete_social_account(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT};
    cf_record_text(&r, 0, some_id(w, CF_SOCIAL_ACCOUNT));
    row *it = with_id(w, CF_SOCIAL_ACCOUNT, r.fields[0].text);
    ask_accounts(w, CF_DELETE_SOCIAL_ACCOUNT, &r, NULL);
    must(got.status == CF_OK && got.hit == (it != NULL) && got.count == 0);
    if (it) it->there = false;
}

static void find_or_create(world_of_rows *w)
{
    cf_record r = {.kind = CF_SOCIAL_ACCOUNT}, user = {.kind = CF_USER};
    bool      fine = true;
    set_provided(&r);
    set_random(&r, ACCOUNT_MAY);
    if (!one_in(4)) fine = set_email(&user);
    set_random(&user, USER_MAY);
    if (spoil(&r, BIT(CF_SOCIAL_ACCOUNT_PROVIDER) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID), ACCOUNT_MAY)) fine = false;
    cf_record given = as_given(&user);
    ask_accounts(w, CF_FIND_OR_CREATE, &r, &given);
    if (!fine) {
        must_fail(CF_EINVAL);
        return;
    }
    row *it = provided(w, &r), *holder = key_holder(w, &user);
    if (it) {
        row *owner = with_id(w, CF_USER, text_in(it, CF_SOCIAL_ACCOUNT_USER_ID));
        must(owner && got.status == CF_OK && got.hit && got.number == 0 && got.count == 2);
        must_be(0, it);
        must_be(1, owner);
    } else if (holder) {
        must_exist(holder);
    } else {
        must(got.status == CF_OK && got.hit && got.number == 1 && got.count == 2);
        row *owner = add_user(w, &user, 1);
        cf_record_text(&r, CF_SOCIAL_ACCOUNT_USER_ID, text_in(owner, 0));
        must_be(0, add_account(w, &r, 0));
        must_be(1, owner);
    }
}

/* ------------------------------------------------------------------------------------------------------------ sessions -- */

static int status_at(const row *session, int64_t now)
{
    if (session->r.fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN) return CF_STATUS_REVOKED;
    return now > number_in(session, CF_SESSION_EXPIRES_AT) ? CF_STATUS_EXPIRED : CF_STATUS_ACTIVE;
}

static int64_t expiry_of(int64_t expires_at)
{
    int64_t end = expires_at / 1000;
    return (end > wall() ? end : wall()) + retention;
}

static bool ends_first(const row *a, const row *b, int64_t now)
{
    bool a_ended = status_at(a, now) != CF_STATUS_ACTIVE, b_ended = status_at(b, now) != CF_STATUS_ACTIVE;
    if (a_ended != b_ended) return a_ended;
    order_by = CF_CREATED_AT_ASC;
    return compare(number_in(a, CF_SESSION_CREATED_AT), text_in(a, 0), number_in(b, CF_SESSION_CREATED_AT), text_in(b, 0)) < 0;
}

static void create_session(world_of_rows *w)
{
    cf_record       r = {.kind = CF_SESSION};
    cf_session_args args = {.size = sizeof args, .epoch = -1};
    row            *theirs[ROWS];
    cf_slice        user_id = some_user_of_sessions(w);
    int64_t         epoch = *epoch_of(w, user_id);
    cf_record_text(&r, CF_SESSION_USER_ID, user_id);
    cf_record_text(&r, CF_SESSION_TOKEN_HASH, one_of(hashes));
    cf_record_number(&r, CF_SESSION_CREATED_AT, one_in(2) ? 7 : some_instant()); /* ties for who goes first */
    cf_record_number(&r, CF_SESSION_UPDATED_AT, some_instant());
    cf_record_number(&r, CF_SESSION_EXPIRES_AT, some_end());
    set_random(&r, SESSION_MAY);
    if (one_in(3)) args.epoch = one_in(3) ? (int64_t)below(3) : epoch;
    if (one_in(5)) args.now = some_instant();
    bool fine = !spoil(&r, BIT(CF_SESSION_USER_ID) | BIT(CF_SESSION_TOKEN_HASH) | BIT(CF_SESSION_CREATED_AT) | BIT(CF_SESSION_UPDATED_AT) | BIT(CF_SESSION_EXPIRES_AT), SESSION_MAY);
    most = 1 + (int)below(MOST_SESSIONS);
    ask_sessions(w, CF_SESSION_CREATE, &r, &args);
    if (!fine) {
        must_fail(CF_EINVAL);
        return;
    }
    row    *holder = having(w, CF_SESSION, CF_SESSION_TOKEN_HASH, r.fields[CF_SESSION_TOKEN_HASH].text, -1, user_id);
    int64_t now = args.now ? args.now : now_us();
    int     count = in_group(w, CF_SESSION, CF_SESSION_USER_ID, user_id, theirs);
    for (int i = 1; i < count; i++) /* in the order in which they go */
        for (int j = i; j > 0 && ends_first(theirs[j], theirs[j - 1], now); j--) {
            row *earlier = theirs[j];
            theirs[j] = theirs[j - 1];
            theirs[j - 1] = earlier;
        }
    int surplus = count - most + 1;
    if (holder) {
        must_exist(holder);
    } else if (args.epoch >= 0 && args.epoch != epoch) {
        must_fail(CF_ECHANGED);
    } else if (surplus > 0 && refuse && status_at(theirs[surplus - 1], now) == CF_STATUS_ACTIVE) {
        must_fail(CF_ELIMIT);
    } else {
        for (int i = 0; i < surplus; i++) theirs[i]->there = false;
        must(got.status == CF_OK && got.count == 1 && got.number == epoch);
        cf_record_number(&r, CF_SESSION_EPOCH, epoch);
        row *it = add(w, &r, keep_id(got.records[0].fields[0].text));
        it->expiry = expiry_of(number_in(it, CF_SESSION_EXPIRES_AT));
        must_bring(it);
    }
}

static void get_session(world_of_rows *w)
{
    cf_record       r = {.kind = CF_SESSION};
    cf_session_args args = {.size = sizeof args, .now = one_in(3) ? 0 : some_instant()};
    bool            fault = one_in(20);
    cf_record_text(&r, CF_SESSION_TOKEN_HASH, fault ? indexed_fault() : one_of(hashes));
    row *it = fault ? NULL : having(w, CF_SESSION, CF_SESSION_TOKEN_HASH, r.fields[CF_SESSION_TOKEN_HASH].text, -1, cf_text(""));
    if (it && one_in(3)) args.now = number_in(it, CF_SESSION_EXPIRES_AT); /* the very instant, or one more */
    if (it && args.now && args.now < CF_NUMBER_MAX) args.now += (int64_t)below(2);
    int64_t now = args.now ? args.now : now_us();
    ask_sessions(w, CF_SESSION_GET, &r, args.now || one_in(2) ? &args : NULL);
    must_bring(it && status_at(it, now) == CF_STATUS_ACTIVE ? it : NULL);
}

static void get_any_session(world_of_rows *w)
{
    cf_record r = {.kind = CF_SESSION};
    bool      fault = one_in(20);
    cf_record_text(&r, 0, fault ? indexed_fault() : some_id(w, CF_SESSION));
    ask_sessions(w, CF_SESSION_GET_ANY, &r, NULL);
    must_bring(fault ? NULL : with_id(w, CF_SESSION, r.fields[0].text));
}

static const char *const no_cursors[] = {"x", "0.", "0.1.2", "9.1.0123456789abcdef0123456789abcdef", "0.-1.0123456789abcdef0123456789abcdef", "0.01.0123456789abcdef0123456789abcdef"};

static void list_sessions(world_of_rows *w)
{
    cf_record       r = {.kind = CF_SESSION};
    cf_session_args args = {.size = sizeof args, .now = one_in(2) ? 0 : some_instant(), .status = (int)below(4), .order = (int)below(CF_SESSION_ORDERS), .limit = below(5)};
    cf_slice        user_id = some_user_of_sessions(w);
    row            *theirs[ROWS];
    const place    *from = NULL;
    int             wanted = CF_OK;
    cf_record_text(&r, CF_SESSION_USER_ID, user_id);
    if (w->cursor_count && one_in(2)) {
        from = &w->cursors[below(w->cursor_count < CURSORS ? w->cursor_count : CURSORS)];
        if (!one_in(5)) args.order = from->order;
        if (args.order != from->order) wanted = CF_ECURSOR;
        args.cursor = cf_bytes(from->text, from->len);
    }
    switch (below(60)) {
    case 0: args.cursor = one_of(no_cursors), wanted = CF_ECURSOR; break;
    case 1: args.order = one_in(2) ? -1 : CF_SESSION_ORDERS, wanted = CF_EINVAL; break;
    case 2: args.status = one_in(2) ? -1 : 4, wanted = CF_EINVAL; break;
    case 3: args.limit = CF_SESSIONS_MOST + 1, wanted = CF_EINVAL; break;
    case 4: cf_record_text(&r, CF_SESSION_USER_ID, indexed_fault()), wanted = CF_EINVAL; break;
    default: break;
    }
    int64_t now = args.now ? args.now : now_us();
    ask_sessions(w, CF_SESSION_LIST, &r, &args);
    if (wanted != CF_OK) {
        must_fail(wanted);
        return;
    }
    int count = in_group(w, CF_SESSION, CF_SESSION_USER_ID, user_id, theirs), kept = 0;
    order_by = args.order;
    for (int i = 0; i < count; i++) {
        if (args.status != CF_STATUS_ANY && status_at(theirs[i], now) != args.status) continue;
        if (from && compare(order_value(theirs[i]), text_in(theirs[i], 0), from->value, from->id) <= 0) continue;
        theirs[kept++] = theirs[i];
    }
    qsort(theirs, (size_t)kept, sizeof *theirs, by_order);
    int page = args.limit && kept > (int)args.limit ? (int)args.limit : kept;
    must(got.status == CF_OK && got.count == (size_t)page);
    for (int i = 0; i < page; i++) must_be((size_t)i, theirs[i]);
    cf_slice next = cf_op_cursor(got.op);
    must((next.len != 0) == (page < kept));
    if (!next.len) return;
    place *to = &w->cursors[w->cursor_count++ % CURSORS];
    *to = (place){.len = next.len, .order = args.order, .value = order_value(theirs[page - 1]), .id = text_in(theirs[page - 1], 0)};
    memcpy(to->text, next.ptr, next.len);
}

static void refresh_session(world_of_rows *w)
{
    cf_record r = {.kind = CF_SESSION};
    bool      fine = true;
    cf_record_text(&r, 0, some_id(w, CF_SESSION));
    cf_record_number(&r, CF_SESSION_UPDATED_AT, some_instant());
    cf_record_number(&r, CF_SESSION_EXPIRES_AT, some_end());
    set_random(&r, BIT(CF_SESSION_LAST_ACTIVE_AT));
    row *it = with_id(w, CF_SESSION, r.fields[0].text);
    if (it) fine = !spoil(&r, BIT(0) | BIT(CF_SESSION_UPDATED_AT) | BIT(CF_SESSION_EXPIRES_AT), BIT(CF_SESSION_LAST_ACTIVE_AT));
    ask_sessions(w, CF_SESSION_REFRESH, &r, NULL);
    if (!fine) {
        must_fail(CF_EINVAL);
        return;
    }
    if (it && it->r.fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN) it = NULL;
    if (it) {
        if (r.fields[CF_SESSION_LAST_ACTIVE_AT].is == CF_NULL) r.fields[CF_SESSION_LAST_ACTIVE_AT].is = CF_UNSAID;
        change(it, &r);
        it->expiry = expiry_of(number_in(it, CF_SESSION_EXPIRES_AT));
    }
    must_bring(it);
}

static void revoke_session(world_of_rows *w)
{
    cf_record r = {.kind = CF_SESSION};
    bool      fine = true;
    cf_record_text(&r, 0, some_id(w, CF_SESSION));
    cf_record_number(&r, CF_SESSION_REVOKED_AT, some_instant());
    row *it = with_id(w, CF_SESSION, r.fields[0].text);
    if (it) fine = !spoil(&r, BIT(0) | BIT(CF_SESSION_REVOKED_AT), 0);
    ask_sessions(w, CF_SESSION_REVOKE, &r, NULL);
    if (!fine) {
        must_fail(CF_EINVAL);
        return;
    }
    must(got.status == CF_OK && got.hit == (it != NULL) && got.count == 0);
    if (it && it->r.fields[CF_SESSION_REVOKED_AT].is == CF_NULL) it->r.fields[CF_SESSION_REVOKED_AT] = r.fields[CF_SESSION_REVOKED_AT];
}

static void revoke_all_sessions(world_of_rows *w)
{
    cf_record       r = {.kind = CF_SESSION};
    cf_session_args args = {.size = sizeof args};
    row            *theirs[ROWS];
    int64_t         revoked = 0;
    cf_slice        user_id = some_user_of_sessions(w);
    cf_record_text(&r, CF_SESSION_USER_ID, user_id);
    cf_record_number(&r, CF_SESSION_REVOKED_AT, some_instant());
    int count = in_group(w, CF_SESSION, CF_SESSION_USER_ID, user_id, theirs);
    if (one_in(2)) args.except = count && !one_in(4) ? text_in(theirs[below((uint64_t)count)], 0) : some_id(w, CF_SESSION);
    bool fine = !spoil(&r, BIT(CF_SESSION_USER_ID) | BIT(CF_SESSION_REVOKED_AT), 0);
    ask_sessions(w, CF_SESSION_REVOKE_ALL, &r, &args);
    if (!fine) {
        must_fail(CF_EINVAL);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (theirs[i]->r.fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN || same(text_in(theirs[i], 0), args.except)) continue;
        theirs[i]->r.fields[CF_SESSION_REVOKED_AT] = r.fields[CF_SESSION_REVOKED_AT];
        revoked++;
    }
    (*epoch_of(w, user_id))++;
    must(got.status == CF_OK && got.hit && got.number == revoked && got.count == 0);
}

static void read_epoch(world_of_rows *w)
{
    cf_record r = {.kind = CF_SESSION};
    cf_slice  user_id = some_user_of_sessions(w);
    cf_record_text(&r, CF_SESSION_USER_ID, user_id);
    ask_sessions(w, CF_SESSION_READ_EPOCH, &r, NULL);
    must(got.status == CF_OK && got.hit && got.number == *epoch_of(w, user_id) && got.count == 0);
}

/* ---------------------------------------------------------------------------------------------------------------- time -- */

static void move_clock(int64_t ms)
{
    cf_stage_advance(stage, ms);
    if (!clock_file) return;
    char draft[4096];
    snprintf(draft, sizeof draft, "%s.new", clock_file);
    FILE *out = fopen(draft, "w");
    must(out && fprintf(out, "%lld\n", (long long)wall()) > 0 && fclose(out) == 0 && rename(draft, clock_file) == 0);
}

static void pass_time(world_of_rows *w)
{
    static const int64_t longest[] = {1, 10, 500, 4000};
    int64_t ms = (int64_t)below((uint64_t)longest[below(4)] + 1);
    row    *it = &w->rows[CF_SESSION][below(ROWS)];
    /* Often to the very millisecond at which something goes. */
    if (it->there && it->expiry && it->expiry - wall() < 20000 && one_in(2)) ms = it->expiry - wall() - (int64_t)below(2);
    move_clock(ms);
}

/* -------------------------------------------------------------------------------------------------------------- running -- */

/* Everything that the model has is there, what it has not is not, and no key is seen. */
static void audit(world_of_rows *w)
{
    static const int methods[] = {CF_FIND_USER_BY_ID, CF_FIND_SOCIAL_ACCOUNT_BY_ID};
    uint64_t         first = id_count > 300 ? id_count - 300 : 0;
    for (size_t i = first; i < id_count; i++) {
        for (int kind = 0; kind < CF_KINDS; kind++) {
            cf_record r = {.kind = kind};
            cf_record_text(&r, 0, cf_bytes(ids[i], CF_ID_LEN));
            if (kind == CF_SESSION) ask_sessions(w, CF_SESSION_GET_ANY, &r, NULL);
            else ask_accounts(w, methods[kind], &r, NULL);
            must_bring(with_id(w, kind, r.fields[0].text));
            let_go();
        }
    }
    for (size_t i = w->epoch_count > 100 ? w->epoch_count - 100 : 0; i < w->epoch_count; i++) {
        cf_record r = {.kind = CF_SESSION};
        cf_record_text(&r, CF_SESSION_USER_ID, w->epochs[i].user_id);
        ask_sessions(w, CF_SESSION_READ_EPOCH, &r, NULL);
        must(got.status == CF_OK && got.hit && got.number == w->epochs[i].number && got.count == 0);
        let_go();
    }
    answer keys = ask_count(w->stores[0]);
    /* The one of the run's own; the other prefix begins with the first. */
    must(keys.status == CF_ENOTSUP || (keys.status == CF_OK && keys.number == (w == worlds ? world_count : 1)));
}

static bool full(const world_of_rows *w)
{
    int count = 0;
    for (int i = 0; i < ROWS; i++) count += w->rows[CF_USER][i].there;
    return count > ROWS - 4;
}

static void one_step(void)
{
    static void (*const sessions[])(world_of_rows *) = {create_session,  create_session, create_session, create_session, get_session, get_session, get_any_session, list_sessions,
                                                        refresh_session, revoke_session, read_epoch};
    static void (*const of_accounts[])(world_of_rows *) = {find_user_by_email,   create_user,          update_user,           delete_user,    find_social_account,
                                                           list_social_accounts, create_social_account, create_social_account, find_or_create, find_or_create,
                                                           update_social_account, delete_social_account};
    world_of_rows *w = &worlds[below((uint64_t)world_count)];
    if (one_in(20)) {
        pass_time(w);
        return;
    }
    tidy(w);
    refuse = one_in(2);
    retention = one_in(2) ? 1000 : 5000;
    uint64_t which = below(24);
    if (full(w)) delete_user(w);
    else if (one_in(80)) revoke_all_sessions(w);
    else if (which < 11) sessions[below(sizeof sessions / sizeof *sessions)](w);
    else if (which < 22) of_accounts[below(sizeof of_accounts / sizeof *of_accounts)](w);
    else find_by_id(w, which == 22 ? CF_USER : CF_SOCIAL_ACCOUNT);
    let_go();
    if (step_number % 1000 == 999) {
        for (int i = 0; i < world_count; i++) {
            tidy(&worlds[i]);
            audit(&worlds[i]);
        }
    }
}

/* When all users are deleted and all sessions have had their time nothing is left but epochs: no index, no group. */
static void end_of_time(server *redis)
{
    for (int i = 0; i < world_count; i++) {
        for (int u = 0; u < ROWS; u++) {
            cf_record r = {.kind = CF_USER};
            if (!worlds[i].rows[CF_USER][u].there) continue;
            cf_record_text(&r, 0, text_in(&worlds[i].rows[CF_USER][u], 0));
            if (u % 2) { /* an address that is taken away leaves nothing either */
                cf_record without = r;
                cf_record_null(&without, CF_USER_EMAIL);
                ask_accounts(&worlds[i], CF_UPDATE_USER, &without, NULL);
                must(got.status == CF_OK && got.hit);
                let_go();
            }
            ask_accounts(&worlds[i], CF_DELETE_USER, &r, NULL);
            must(got.status == CF_OK && got.hit);
            (*epoch_of(&worlds[i], r.fields[0].text))++;
            let_go();
        }
    }
    move_clock(CF_NUMBER_MAX / 1000 + 10000 - wall());
    int64_t left, expected = world_count; /* the run's own keys */
    for (int i = 0; i < world_count; i++)
        for (size_t e = 0; e < worlds[i].epoch_count; e++) expected += worlds[i].epochs[e].number > 0;
    if (redis) {
        left = server_number(redis, "EVAL \"return(#redis.call('keys','*'))\" 0");
    } else { /* memory lets go little by little */
        for (int i = 0; i < 20000; i++) ask_get(worlds[0].stores[0], "user");
        left = stat_of(worlds[0].stores[0], "entries");
    }
    if (left != expected) fprintf(stderr, "%lld entries are left in place of %lld\n", (long long)left, (long long)expected);
    must(left == expected);
}

typedef struct backend {
    const char *name, *url; /* url NULL: the table */
    tb_manner   manner;
    bool        shared, file, redis, seals; /* shared: a second store by the same URL has the same data */
    uint64_t    calls;                      /* in an everyday run */
} backend;

static const backend backends[] = {
    {.name = "memory", .url = "memory:records-model", .shared = true, .calls = 30000},
    {.name = "sealed memory", .url = "memory:records-model", .shared = true, .seals = true, .calls = 6000},
    {.name = "derived", .manner = TB_NOW, .calls = 6000},
    {.name = "derived, pending", .manner = TB_PIPE, .calls = 4000},
    {.name = "derived, pending, sealed", .manner = TB_PIPE, .seals = true, .calls = 3000},
    {.name = "sqlite in memory", .url = "sqlite::memory:", .calls = 6000},
    {.name = "sqlite", .file = true, .shared = true, .calls = 4000},
    {.name = "sealed sqlite", .file = true, .shared = true, .seals = true, .calls = 2000},
    {.name = "redis", .redis = true, .shared = true, .calls = 6000},
    {.name = "sealed redis", .redis = true, .shared = true, .seals = true, .calls = 2000},
};

static void run_model(const backend *b, uint64_t count)
{
    static const char *const prefixes[] = {"m:", "m:{m:}"};
    static const cf_key      ring[] = {{2, "the one that seals"}, {1, "an older one"}};
    static tb_log log;
    cf_loop *loop;
    server   redis;
    char     url[256], folder[] = "/tmp/cf-records.XXXXXX", clock[64];
    backend_name = b->name;
    sealed = b->seals;
    dice = (rng){seed};
    memset(worlds, 0, sizeof worlds);
    memset(&log, 0, sizeof log);
    step_number = 0;
    id_count = 0;
    id_room = 3 * count + 16;
    ids = calloc(id_room, sizeof *ids);
    stage = cf_stage_new();
    must(ids && stage && mkdtemp(folder) && cf_loop_new(cf_stage_platform(stage), &loop) == CF_OK);
    snprintf(url, sizeof url, "%s", b->url ? b->url : "");
    if (b->file) snprintf(url, sizeof url, "sqlite:%s/records.db?synchronous=normal", folder);
    if (b->redis) { /* its clock is moved together with ours */
        snprintf(clock, sizeof clock, "%s/clock", folder);
        clock_file = clock;
        move_clock(0);
        must(setenv("COUNTERFOIL_CLOCK_FILE", clock, 1) == 0 && setenv("CF_SERVER_PRELOAD", CF_FAULTCLOCK, 1) == 0);
        server_start(&redis, NULL);
        move_clock(60000);
        must(server_info(&redis, "server", "server_time_usec") == wall() * 1000); /* it is */
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis.port);
    }
    world_count = b->shared ? 2 : 1;
    for (int i = 0; i < world_count; i++) {
        worlds[i].store_count = b->shared ? 2 : 1;
        for (int s = 0; s < worlds[i].store_count; s++) {
            cf_open_options options = {.size = sizeof options, .prefix = cf_text(prefixes[i]), .keys = ring, .key_count = b->seals ? 2 : 0, .seal_values = b->seals && !b->shared};
            if (*url) must(cf_open(loop, cf_text(url), &options, &worlds[i].stores[s], NULL) == CF_OK);
            else must(tb_open(loop, b->manner, TB_DERIVED, &log, &options, &worlds[i].stores[s], NULL) == CF_OK);
        }
        must(ask_set(worlds[i].stores[0], "user", "a key of the run's own").status == CF_OK);
    }
    for (; step_number < count; step_number++) one_step();
    if (b->redis || (b->url && strncmp(b->url, "memory:", 7) == 0)) end_of_time(b->redis ? &redis : NULL);
    cf_loop_free(loop);
    must(cf_stage_blocks(stage) == 0);
    cf_stage_free(stage);
    free(ids);
    clock_file = NULL;
    if (b->redis) {
        server_stop(&redis);
        unlink(clock);
    }
    char path[320];
    static const char *const ends[] = {"", "-wal", "-shm", "-reserve"};
    for (size_t i = 0; b->file && i < sizeof ends / sizeof *ends; i++) {
        snprintf(path, sizeof path, "%s/records.db%s", folder, ends[i]);
        unlink(path);
    }
    must(rmdir(folder) == 0);
    printf("%s: %llu calls agree with the model\n", b->name, (unsigned long long)count);
    fflush(stdout);
}

int main(void)
{
    bool        all = env_number("CF_LONG", 0) != 0;
    const char *only = getenv("CF_ONLY");
    hang_guard(all ? 3600 : 280);
    seed = seed_of_run();
    memset(long_text, 'x', sizeof long_text);
    for (int i = 0; i < 24; i++) snprintf(hashes[i], sizeof hashes[i], "%c%d", i % 3 ? 'h' : 'H', i / 2);
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (!only || strcmp(only, backends[i].name) == 0) run_model(&backends[i], all ? 100000 : backends[i].calls);
    /* A run that never met something says nothing about it. */
    static const struct {
        int method, how;
    } met[] = {{CF_CREATE_USER, CF_EEXISTS}, {CF_CREATE_USER, CF_EINVAL}, {CF_UPDATE_USER, CF_EEXISTS}, {CF_UPDATE_USER, CF_EMISSING}, {CF_DELETE_USER, CF_OK},
               {CF_CREATE_SOCIAL_ACCOUNT, CF_EEXISTS}, {CF_CREATE_SOCIAL_ACCOUNT, CF_EMISSING}, {CF_CREATE_SOCIAL_ACCOUNT, CF_ELIMIT}, {CF_UPDATE_SOCIAL_ACCOUNT, CF_EMISSING},
               {CF_FIND_OR_CREATE, CF_EEXISTS}, {SESSIONS + CF_SESSION_CREATE, CF_EEXISTS}, {SESSIONS + CF_SESSION_CREATE, CF_ECHANGED}, {SESSIONS + CF_SESSION_CREATE, CF_ELIMIT},
               {SESSIONS + CF_SESSION_LIST, CF_ECURSOR}, {SESSIONS + CF_SESSION_REFRESH, CF_EINVAL}};
    for (size_t i = 0; i < sizeof met / sizeof *met && !only; i++) must(seen_how[met[i].method][met[i].how ? 1 - met[i].how : 0] > 0);
    for (size_t i = 0; i < SESSIONS + CF_SESSION_METHODS && !only; i++) must(seen_how[i][0] > 0);
    return 0;
}
