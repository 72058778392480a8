/* records.c: what every record operation shares: its fields are checked and its tokens sealed on the way in; on the way out they are opened, and a group
 * becomes a page. In between a backend does what the plan says, or keyed.c makes it of keys. */
#include "core.h"

#include <stdlib.h>

bool cf_is_record_op(int kind) { return kind >= CF_OP_INSERT && kind <= CF_OP_HOOK; }

int64_t cf_now_us(const cf_platform *platform) { return cf_wall(platform) * 1000; }

int cf_record_id(const cf_platform *platform, char id[CF_ID_LEN])
{
    unsigned char bytes[CF_ID_LEN / 2];
    if (platform->random(platform->self, bytes, sizeof bytes) != 0) return CF_EUNAVAILABLE;
    for (size_t i = 0; i < sizeof bytes; i++) {
        id[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        id[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    return CF_OK;
}

bool cf_is_record_id(cf_slice text)
{
    if (text.len != CF_ID_LEN) return false;
    for (size_t i = 0; i < text.len; i++)
        if (!text.ptr[i] || !strchr("0123456789abcdef", text.ptr[i])) return false;
    return true;
}

bool cf_can_be_indexed(cf_slice text) { return text.len > 0 && text.len <= CF_INDEXED_MAX && !cf_key_fault(text); }

cf_plan cf_plan_of(int kind, int by)
{
    return (cf_plan){.kind = kind, .record = {.kind = kind}, .with = {.kind = -1}, .by = by, .guard = -1, .epoch = -1};
}

/* ---------------------------------------------------------------------------------------------------------- checking -- */

static bool indexed(int kind, int at)
{
    const cf_kind *of = cf_kind_of(kind);
    return at == 0 || at == of->unique[0] || at == of->unique[1] || at == of->listing;
}

static int wrong(cf_op *op, int status, int kind, int at, const char *what)
{
    return cf_op_fail(op, status, CF_NOT_APPLIED, "%s of a %s %s", cf_field_name(kind, at), cf_kind_name(kind), what);
}

static size_t longest(int kind, int at, bool sealed)
{
    if (indexed(kind, at)) return CF_INDEXED_MAX;
    switch (cf_field_type_of(kind, at)) {
    case CF_JSON: return CF_JSON_MAX;
    case CF_SECRET: return sealed ? CF_TEXT_MAX * 2 : CF_TEXT_MAX;
    default: return CF_TEXT_MAX;
    }
}

/* One field of what comes in (CF_EINVAL) or back (CF_ECORRUPT). */
static int check_field(cf_op *op, int status, int kind, int at, const cf_field *field, bool sealed)
{
    if (field->is == CF_UNSAID) return CF_OK;
    if (field->is == CF_NULL) return cf_field_nullable(kind, at) ? CF_OK : wrong(op, status, kind, at, "cannot be null");
    if (field->is != CF_GIVEN) return wrong(op, status, kind, at, "is neither given nor null");
    if (cf_field_is_text(kind, at)) {
        bool   key = indexed(kind, at);
        size_t most = longest(kind, at, sealed);
        if (key && field->text.len == 0) return wrong(op, status, kind, at, "cannot be empty");
        if (field->text.len > most)
            return cf_op_fail(op, status, CF_NOT_APPLIED, "%s of a %s is %zu bytes long; at most %zu are allowed", cf_field_name(kind, at), cf_kind_name(kind), field->text.len,
                              most);
        const char *fault = key ? cf_key_fault(field->text) : cf_text_fault(field->text);
        return fault ? wrong(op, status, kind, at, fault) : CF_OK;
    }
    switch (cf_field_type_of(kind, at)) {
    case CF_BOOLEAN: return field->number == 0 || field->number == 1 ? CF_OK : wrong(op, status, kind, at, "is neither true nor false");
    case CF_INSTANT:
        return field->number >= 0 && field->number <= CF_NUMBER_MAX ? CF_OK : wrong(op, status, kind, at, "is no instant between 1970 and 2255");
    default: return field->number >= -CF_NUMBER_MAX && field->number <= CF_NUMBER_MAX ? CF_OK : wrong(op, status, kind, at, "is too large a number");
    }
}

/* `whole`: what is not said becomes null, or false, or is missed. */
static int check_record(cf_op *op, int status, cf_record *record, bool whole, bool sealed)
{
    for (int i = 0; cf_field_name(record->kind, i); i++) {
        cf_field *field = &record->fields[i];
        if (field->is == CF_UNSAID && whole) {
            if (cf_field_nullable(record->kind, i)) {
                field->is = CF_NULL;
            } else if (cf_field_type_of(record->kind, i) == CF_BOOLEAN || cf_field_type_of(record->kind, i) == CF_NUMBER) {
                field->is = CF_GIVEN;
                field->number = 0;
            } else {
                return wrong(op, status, record->kind, i, "is missing");
            }
        }
        int rc = check_field(op, status, record->kind, i, field, sealed);
        if (rc != CF_OK) return rc;
    }
    return CF_OK;
}

/* ----------------------------------------------------------------------------------------------------------- sealing -- */

/* Under this name a token is sealed: it opens in its own field of its own record only. Records of a hook have ids that the application gives when it has the
 * token already; there it is what the provider calls the account. No part of it can hold a line break. */
static int name_field(cf_op *op, const cf_record *record, int at, cf_buffer *name)
{
    const cf_platform *platform = op->loop->platform;
    const cf_store    *store = op->store;
    bool     hook = store->table->hook != NULL;
    cf_slice parts[] = {cf_bytes(store->prefix, store->prefix_len), cf_text(cf_kind_name(record->kind)),
                        hook ? record->fields[CF_SOCIAL_ACCOUNT_PROVIDER].text : record->fields[0].text,
                        hook ? record->fields[CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID].text : cf_bytes(NULL, 0), cf_text(cf_field_name(record->kind, at))};
    name->len = 0;
    int rc = CF_OK;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == CF_OK; i++) {
        rc = cf_buffer_append(platform, name, parts[i]);
        if (rc == CF_OK) rc = cf_buffer_append(platform, name, cf_text("\n"));
    }
    return rc;
}

static bool is_secret(const cf_record *record, int at) { return record->fields[at].is == CF_GIVEN && cf_field_type_of(record->kind, at) == CF_SECRET; }

static int seal_record(cf_op *op, cf_record *record)
{
    cf_store *store = op->store;
    if (!store->seal) {
        for (int i = 0; cf_field_name(record->kind, i); i++)
            if (is_secret(record, i) && cf_slice_starts(record->fields[i].text, cf_text(CF_SEALED_MARK)))
                return wrong(op, CF_EINVAL, record->kind, i, "begins with \"" CF_SEALED_MARK "\", which is the mark of what this library has sealed");
        return CF_OK;
    }
    cf_buffer name = {0};
    size_t    room = op->sealed.len;
    for (int i = 0; cf_field_name(record->kind, i); i++)
        if (is_secret(record, i)) room += (record->fields[i].text.len + CF_SEAL_MORE) * 4 / 3 + 16;
    int rc = cf_buffer_reserve(op->loop->platform, &op->sealed, room); /* it does not move any more */
    for (int i = 0; cf_field_name(record->kind, i) && rc == CF_OK; i++) {
        if (!is_secret(record, i)) continue;
        size_t at = op->sealed.len;
        rc = name_field(op, record, i, &name);
        if (rc == CF_OK) rc = cf_seal_close_text(store->seal, cf_bytes(name.ptr, name.len), record->fields[i].text, &op->sealed);
        if (rc == CF_OK) record->fields[i].text = cf_bytes(op->sealed.ptr + at, op->sealed.len - at);
    }
    cf_buffer_free(op->loop->platform, &name);
    if (rc == CF_ENOMEM) return cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory to seal a token");
    return rc == CF_OK ? rc : cf_op_fail(op, rc, CF_NOT_APPLIED, "a token could not be sealed: there is no randomness, or OpenSSL failed");
}

int cf_token_renew(cf_op *op, const cf_record *record, int at, cf_slice *out)
{
    cf_buffer name = {0};
    op->sealed.len = 0;
    if (!is_secret(record, at)) return CF_SEAL_CURRENT;
    int rc = name_field(op, record, at, &name);
    if (rc == CF_OK) rc = cf_seal_renew_text(op->store->seal, cf_bytes(name.ptr, name.len), record->fields[at].text, &op->sealed);
    cf_buffer_free(op->loop->platform, &name);
    *out = cf_bytes(op->sealed.ptr, op->sealed.len);
    return rc;
}

/* Opens the tokens of a record and appends it. */
static int open_record(cf_op *op, cf_record *record, cf_buffer *out)
{
    const cf_platform *platform = op->loop->platform;
    cf_buffer   name = {0}, text[2] = {{0}, {0}};
    const char *why = "no memory";
    int rc = CF_OK, used = 0;
    for (int i = 0; cf_field_name(record->kind, i) && rc == CF_OK; i++) {
        if (!is_secret(record, i)) continue;
        cf_buffer *into = &text[used++ % 2]; /* a record has two secrets */
        if (op->store->seal) {
            op->secret = true;
            rc = name_field(op, record, i, &name);
            if (rc == CF_OK) rc = cf_seal_open_text(op->store->seal, cf_bytes(name.ptr, name.len), record->fields[i].text, into, &why);
            if (rc == CF_OK) record->fields[i].text = cf_bytes(into->ptr, into->len);
        } else if (cf_slice_starts(record->fields[i].text, cf_text(CF_SEALED_MARK))) {
            why = "the token is sealed, and the store was opened without keys";
            rc = CF_ECORRUPT;
        }
    }
    if (rc == CF_OK) rc = cf_record_append(platform, out, record);
    cf_buffer_free(platform, &name);
    for (int i = 0; i < 2; i++) {
        cf_wipe(text[i].ptr, text[i].cap); /* it was opened in place: its end is still behind it */
        cf_buffer_free(platform, &text[i]);
    }
    if (rc == CF_ENOMEM) why = "no memory to open a token";
    return rc == CF_OK ? rc : cf_op_fail(op, rc, cf_op_writes(op) ? CF_APPLIED : CF_NOT_APPLIED, "%s", why);
}

/* What the operation brings from now on. */
static void replace_value(cf_op *op, cf_buffer *value)
{
    if (op->secret) cf_wipe(op->value.ptr, op->value.cap);
    cf_buffer_free(op->loop->platform, &op->value);
    op->value = *value;
}

static int open_all(cf_op *op)
{
    cf_buffer out = {0};
    cf_record record;
    int       rc = cf_buffer_reserve(op->loop->platform, &out, op->value.len); /* what is opened is no longer: it does not move, and leaves nothing behind */
    if (rc != CF_OK) return cf_op_fail(op, rc, cf_op_writes(op) ? CF_APPLIED : CF_NOT_APPLIED, "no memory to open a token");
    op->key_at = 0;
    while (rc == CF_OK && cf_op_next_record(op, &record)) rc = open_record(op, &record, &out);
    op->key_at = 0;
    replace_value(op, &out);
    return rc;
}

int cf_records_join(cf_op *op, const cf_op *other)
{
    const cf_platform *platform = op->loop->platform;
    cf_buffer both = {0};
    if (cf_buffer_reserve(platform, &both, op->value.len + other->value.len) != CF_OK) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record");
    cf_buffer_append(platform, &both, cf_bytes(op->value.ptr, op->value.len));
    cf_buffer_append(platform, &both, cf_bytes(other->value.ptr, other->value.len));
    replace_value(op, &both);
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------- pages -- */

typedef struct place {
    int64_t     value;
    const char *id;
    size_t      id_len, at, size;
} place;

static int by_value(const void *first, const void *second)
{
    const place *a = first, *b = second;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    size_t len = a->id_len < b->id_len ? a->id_len : b->id_len;
    int    order = memcmp(a->id, b->id, len);
    return order ? order : (a->id_len > b->id_len) - (a->id_len < b->id_len);
}
static int by_value_down(const void *a, const void *b) { return by_value(b, a); }

static int order_field(int kind, int order)
{
    static const char *const names[] = {"updated_at", "created_at", "expires_at"};
    return cf_field_named(kind, cf_text(names[order / 2]));
}

bool cf_page_after(cf_page *page, cf_slice cursor)
{
    if (cursor.len < 4 || cursor.ptr[0] != '0' + page->order || cursor.ptr[1] != '.') return false;
    const char *second = memchr(cursor.ptr + 2, '.', cursor.len - 2);
    if (!second || !cf_is_record_id(cf_bytes(second + 1, cursor.len - (size_t)(second + 1 - cursor.ptr)))) return false;
    if (!cf_parse_int(cf_bytes(cursor.ptr + 2, (size_t)(second - cursor.ptr) - 2), &page->after_value) || page->after_value < 0) return false;
    memcpy(page->after_id, second + 1, CF_ID_LEN);
    page->after = true;
    return true;
}

static int set_next(cf_op *op, const place *last)
{
    char   text[CF_INT_TEXT + CF_INT_TEXT + CF_INDEXED_MAX];
    size_t len = 0;
    text[len++] = (char)('0' + op->page.order);
    text[len++] = '.';
    len += cf_format_int(last->value, text + len);
    text[len++] = '.';
    memcpy(text + len, last->id, last->id_len);
    return cf_op_set_cursor(op, cf_bytes(text, len + last->id_len));
}

/* What the backend gave is the whole group, in any order. */
static int make_page(cf_op *op)
{
    const cf_platform *platform = op->loop->platform;
    const cf_page     *page = &op->page;
    int (*compare)(const void *, const void *) = page->order % 2 ? by_value : by_value_down;
    size_t    count = 0, kept = 0;
    cf_record record;
    op->key_at = 0;
    while (cf_op_next_record(op, &record)) count++;
    op->key_at = 0;
    if (!count) return CF_OK;
    cf_buffer places = {0}, out = {0};
    int rc = cf_buffer_reserve(platform, &places, (count + 1) * sizeof(place));
    place *all = (place *)(void *)places.ptr;
    place  after = {page->after_value, page->after_id, CF_ID_LEN, 0, 0};
    for (size_t at = 0; rc == CF_OK && cf_op_next_record(op, &record); at = op->key_at) {
        if (page->status != CF_STATUS_ANY && cf_session_status(&record, page->now) != page->status) continue;
        const cf_slice id = record.fields[0].text;
        all[kept] = (place){record.fields[order_field(record.kind, page->order)].number, id.ptr, id.len, at, op->key_at - at};
        if (!page->after || compare(&after, &all[kept]) < 0) kept++;
    }
    op->key_at = 0;
    if (kept) qsort(all, kept, sizeof *all, compare);
    size_t end = kept < page->limit ? kept : page->limit, size = 0;
    for (size_t i = 0; i < end; i++) size += all[i].size;
    if (rc == CF_OK) rc = cf_buffer_reserve(platform, &out, size);
    for (size_t i = 0; i < end && rc == CF_OK; i++) rc = cf_buffer_append(platform, &out, cf_bytes(op->value.ptr + all[i].at, all[i].size));
    if (rc == CF_OK && end < kept) rc = set_next(op, &all[end - 1]);
    cf_buffer_free(platform, &places);
    replace_value(op, &out);
    return rc == CF_OK ? rc : cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory for a list");
}

/* ------------------------------------------------------------------------------------------------------ there and back -- */

/* The same sentence, whichever backend found it. What a hook says stays. */
void cf_records_explain(cf_op *op)
{
    static const char *const exists[CF_KINDS] = {"a user with this e-mail is there already", "this social account is there already", "a session with this token hash is there already"};
    static const char *const limit[CF_KINDS] = {"there are as many users as are allowed", "this user has as many social accounts as are allowed",
                                                "this user has as many sessions as are allowed"};
    cf_plan     plan;
    const char *text = NULL;
    if (op->in.kind == CF_OP_HOOK || !cf_plan_read(op->in.value, &plan)) return;
    /* Of two that are made together the second belongs to somebody. */
    int kind = plan.with.kind >= 0 ? plan.with.kind : plan.kind;
    if (op->error.status == CF_EEXISTS) {
        cf_record record;
        op->key_at = 0;
        if (cf_op_next_record(op, &record)) text = exists[record.kind];
        op->key_at = 0;
    } else if (op->error.status == CF_ELIMIT) {
        text = limit[kind];
    } else if (op->error.status == CF_ECHANGED) {
        text = "the sessions of this user were all revoked since this login began";
    } else if (op->error.status == CF_EMISSING && op->in.kind == CF_OP_INSERT) {
        text = "there is no such user";
    }
    if (text) cf_error_set(&op->error, op->error.status, op->error.outcome, "%s", text);
}

/* The records that came. */
typedef struct arrived {
    size_t count, of[CF_KINDS];
    int    first; /* its kind */
} arrived;

static arrived count_records(cf_op *op)
{
    arrived   all = {.first = -1};
    cf_record record;
    op->key_at = 0;
    while (cf_op_next_record(op, &record)) {
        if (all.count++ == 0) all.first = record.kind;
        all.of[record.kind]++;
    }
    op->key_at = 0;
    return all;
}

/* Whether the first of them is the account that was asked for, to the letter: tables that take A for a would give one person's account to another. And the second
 * its user. */
static bool is_that_account(const cf_op *op, const cf_record *asked)
{
    cf_record account, user;
    size_t    size = cf_record_unpack(cf_bytes(op->value.ptr, op->value.len), &account);
    if (!cf_field_equal(&account.fields[CF_SOCIAL_ACCOUNT_PROVIDER], &asked->fields[CF_SOCIAL_ACCOUNT_PROVIDER]) ||
        !cf_field_equal(&account.fields[CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID], &asked->fields[CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID]))
        return false;
    if (size == op->value.len) return true;
    return cf_record_unpack(cf_bytes(op->value.ptr + size, op->value.len - size), &user) && cf_field_equal(&account.fields[CF_SOCIAL_ACCOUNT_USER_ID], &user.fields[0]);
}

/* And whether the user has the address that was asked for. Where no memory is left to tell, `rc` says so. */
static bool is_that_user(const cf_op *op, const cf_record *asked, int *rc)
{
    cf_record   user;
    char        key[CF_EMAIL_MAX];
    size_t      len;
    const char *fault;
    cf_record_unpack(cf_bytes(op->value.ptr, op->value.len), &user);
    const cf_field *email = &user.fields[CF_USER_EMAIL];
    if (email->is != CF_GIVEN) return true;
    int status = cf_email_key(email->text, key, &len, &fault);
    if (status == CF_ENOMEM) *rc = status;
    return status == CF_OK && cf_slice_equal(cf_bytes(key, len), asked->fields[CF_USER_EMAIL_KEY].text);
}

/* Whether they are what a method brings. Nobody is to be taken for somebody else because a hook mistakes one table for another. */
static bool fits_hook(const cf_op *op, int status, const arrived *all, int *rc)
{
    cf_hook hook;
    if (!cf_hook_read(op->in.value, &hook)) return false;
    size_t right = all->of[hook.record.kind];
    if (status == CF_EEXISTS) return all->count <= 1 && (hook.method == CF_FIND_OR_CREATE ? !all->of[CF_SESSION] : right == all->count);
    switch (hook.method) {
    case CF_LIST_SOCIAL_ACCOUNTS: return right == all->count;
    case CF_DELETE_USER:
    case CF_DELETE_SOCIAL_ACCOUNT: return all->count == 0;
    case CF_FIND_OR_CREATE: return op->hit && all->count == 2 && all->first == CF_SOCIAL_ACCOUNT && all->of[CF_USER] == 1 && is_that_account(op, &hook.record);
    case CF_CREATE_USER: return op->hit && right == 1 && all->count == 1;
    case CF_CREATE_SOCIAL_ACCOUNT: return op->hit && right == 1 && all->count == 1 && is_that_account(op, &hook.record);
    case CF_FIND_USER_BY_EMAIL: return right == all->count && all->count == (size_t)op->hit && (!op->hit || is_that_user(op, &hook.record, rc));
    case CF_FIND_SOCIAL_ACCOUNT: return right == all->count && all->count == (size_t)op->hit && (!op->hit || is_that_account(op, &hook.record));
    default: return right == all->count && all->count == (size_t)op->hit;
    }
}

static bool fits(const cf_op *op, int status, const arrived *all, int *rc)
{
    cf_plan plan;
    if (op->in.kind == CF_OP_HOOK) return fits_hook(op, status, all, rc);
    if (op->in.kind == CF_OP_FIND && all->count != (size_t)op->hit) return false;
    if (op->keyed || all->count == 0) return true;
    if (!cf_plan_read(op->in.value, &plan)) return false;
    return all->of[plan.kind] + (plan.with.kind >= 0 ? all->of[plan.with.kind] : 0) == all->count;
}

int cf_records_arrive(cf_op *op, int status)
{
    if ((status != CF_OK && status != CF_EEXISTS) || op->orphan) return status;
    if (op->raw && op->in.kind == CF_OP_LIST) return status; /* ids */
    cf_error told = op->error;
    arrived  all = count_records(op);
    int      rc = CF_OK;
    if (!fits(op, status, &all, &rc))
        rc = rc == CF_ENOMEM
                 ? cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory for an e-mail's domain") /* of a find */
                 : cf_op_fail(op, CF_ECORRUPT, cf_op_writes(op) ? CF_UNKNOWN : CF_NOT_APPLIED, "what the %s backend brought is not what was asked for", op->store->table->name);
    if (rc == CF_OK && all.of[CF_SOCIAL_ACCOUNT] && !op->raw) rc = open_all(op);
    if (rc == CF_OK && op->page.limit) rc = make_page(op);
    op->key_at = 0;
    if (rc != CF_OK) {
        if (status == CF_EEXISTS) op->error.outcome = told.outcome;
        op->value.len = 0;
        return rc;
    }
    op->error = told;
    return status;
}

/* Seals and writes down what is to be done; the operation's request becomes it. */
static int prepare(cf_op *op, cf_plan *plan)
{
    const cf_platform *platform = op->loop->platform;
    int rc = CF_OK;
    bool insert = op->in.kind == CF_OP_INSERT, changes = insert || op->in.kind == CF_OP_UPDATE;
    if (changes) rc = check_record(op, CF_EINVAL, &plan->record, insert, false);
    if (rc == CF_OK && insert && plan->with.kind >= 0) rc = check_record(op, CF_EINVAL, &plan->with, true, false);
    if (rc == CF_OK && changes) rc = seal_record(op, &plan->record);
    if (rc == CF_OK && insert && plan->with.kind >= 0) rc = seal_record(op, &plan->with);
    if (rc != CF_OK) return rc;
    op->plan.len = 0;
    if (!op->store->seal) op->secret = op->secret || plan->record.kind == CF_SOCIAL_ACCOUNT || plan->with.kind == CF_SOCIAL_ACCOUNT;
    if (cf_buffer_append(platform, &op->plan, cf_bytes(op->store->prefix, op->store->prefix_len)) != CF_OK || cf_plan_write(platform, plan, &op->plan) != CF_OK)
        return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record");
    return CF_OK;
}

static void point(cf_op *op)
{
    size_t prefix = op->store->prefix_len;
    op->in.key = cf_bytes(op->plan.ptr, prefix);
    op->in.value = cf_bytes(op->plan.ptr + prefix, op->plan.len - prefix);
}

/* A new operation, checked as far as that needs no plan. NULL: no memory at all. */
static cf_op *begin(cf_store *store, int kind, const cf_call *call, cf_op **out, int *rc)
{
    cf_op *op = cf_op_new(store->loop, store);
    *out = op;
    *rc = CF_ENOMEM;
    if (!op) return NULL;
    store->operations++;
    op->in = cf_asked(call, kind, cf_bytes(NULL, 0));
    *rc = cf_submit_check(op, store);
    return op;
}

int cf_records_submit(cf_store *store, int kind, cf_plan *plan, const cf_page *page, const cf_call *call, cf_op **out)
{
    int    rc;
    cf_op *op = begin(store, kind, call, out, &rc);
    if (!op) return rc;
    if (page) op->page = *page;
    if (rc == CF_OK) rc = prepare(op, plan);
    if (rc == CF_OK) {
        point(op);
        rc = cf_store_call(op);
    }
    return cf_submit_end(op, store, rc);
}

int cf_records_compose(cf_store *store, int kind, cf_plan *plan, cf_step_fn step, const cf_call *call, cf_op **out)
{
    int    rc;
    cf_op *op = begin(store, kind, call, out, &rc);
    if (!op) return rc;
    if (rc == CF_OK) rc = prepare(op, plan);
    if (rc == CF_OK) {
        point(op);
        rc = cf_compose(op, step);
    }
    return cf_submit_end(op, store, rc);
}

cf_op *cf_records_child(cf_op *op, int kind, const cf_plan *plan)
{
    cf_op *child = cf_child(op, kind, cf_bytes(NULL, 0));
    if (!child) return NULL;
    const cf_platform *platform = op->loop->platform;
    child->in.timeout_ms = op->in.timeout_ms;
    if (cf_buffer_append(platform, &child->plan, cf_bytes(op->store->prefix, op->store->prefix_len)) != CF_OK ||
        cf_plan_write(platform, plan, &child->plan) != CF_OK) {
        cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record");
        return NULL;
    }
    point(child);
    return child;
}

int cf_records_step(cf_op *op, cf_op *child, int kind, cf_plan *plan)
{
    if (!cf_plan_read(op->in.value, plan)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a plan was lost");
    if (!child) return cf_records_child(op, kind, plan) ? STEP_CHILD : CF_ENOMEM;
    return child->error.status == CF_OK ? CF_OK : cf_adopt(op, child);
}

static bool only_reads(int method)
{
    return method == CF_FIND_USER_BY_EMAIL || method == CF_FIND_USER_BY_ID || method == CF_FIND_SOCIAL_ACCOUNT || method == CF_FIND_SOCIAL_ACCOUNT_BY_ID ||
           method == CF_LIST_SOCIAL_ACCOUNTS;
}

/* `op` becomes the call of a hook; `told` gets the error. */
static int write_hook(cf_op *op, cf_op *told, const cf_hook *hook)
{
    const cf_platform *platform = op->loop->platform;
    size_t room = told->store->prefix_len + cf_record_size(&hook->record) + cf_record_size(&hook->user) + 64;
    op->reads = only_reads(hook->method);
    /* At once: should it grow with a token in it, that would stay behind. */
    if (cf_buffer_reserve(platform, &op->plan, room) != CF_OK || cf_buffer_append(platform, &op->plan, cf_bytes(told->store->prefix, told->store->prefix_len)) != CF_OK || cf_hook_write(platform, hook, &op->plan) != CF_OK)
        return cf_op_fail(told, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record");
    point(op);
    return CF_OK;
}

int cf_hook_submit(cf_store *store, cf_hook *hook, const cf_call *call, cf_op **out)
{
    int    rc;
    cf_op *op = begin(store, CF_OP_HOOK, call, out, &rc);
    if (!op) return rc;
    if (rc == CF_OK) rc = check_record(op, CF_EINVAL, &hook->record, false, false);
    if (rc == CF_OK && hook->user.kind >= 0) rc = check_record(op, CF_EINVAL, &hook->user, false, false);
    if (rc == CF_OK) rc = seal_record(op, &hook->record);
    if (rc == CF_OK) rc = write_hook(op, op, hook);
    if (rc == CF_OK) rc = cf_store_call(op);
    return cf_submit_end(op, store, rc);
}

int cf_hook_compose(cf_store *store, const cf_hook *hook, cf_step_fn step, const cf_call *call, cf_op **out)
{
    int    rc;
    cf_op *op = begin(store, CF_OP_HOOK, call, out, &rc);
    if (!op) return rc;
    cf_record copy = hook->record;
    if (rc == CF_OK) rc = check_record(op, CF_EINVAL, &copy, false, false);
    if (rc == CF_OK) {
        op->secret = true;
        rc = write_hook(op, op, hook);
    }
    if (rc == CF_OK) rc = cf_compose(op, step);
    return cf_submit_end(op, store, rc);
}

cf_op *cf_hook_child(cf_op *op, const cf_hook *hook, const cf_record *account)
{
    static const int name[] = {CF_SOCIAL_ACCOUNT_PROVIDER, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID};
    cf_op *child = cf_child(op, CF_OP_HOOK, cf_bytes(NULL, 0));
    if (!child) return NULL;
    cf_hook asked = *hook;
    child->in.timeout_ms = op->in.timeout_ms;
    for (int i = 0; account && i < 2; i++) asked.record.fields[name[i]] = account->fields[name[i]];
    int rc = seal_record(op, &asked.record);
    for (int i = 0; account && i < 2; i++) asked.record.fields[name[i]] = hook->record.fields[name[i]];
    return rc == CF_OK && write_hook(child, op, &asked) == CF_OK ? child : NULL;
}

int cf_records_refuse(cf_store *store, int kind, const cf_call *call, cf_op **out, int status, const char *text)
{
    int    rc;
    cf_op *op = begin(store, kind, call, out, &rc);
    if (!op) return rc;
    if (rc == CF_OK && status < 0) rc = cf_op_fail(op, status, CF_NOT_APPLIED, "%s", text);
    return cf_submit_end(op, store, rc);
}

int cf_op_add_record(cf_op *op, const cf_record *record)
{
    cf_record whole = *record;
    if (op->raw && op->in.kind == CF_OP_LIST) return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the %s backend does not list all records of a kind", op->store->table->name);
    int       rc = cf_kind_of(record->kind) ? check_record(op, CF_ECORRUPT, &whole, true, true)
                                            : cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "the %s backend gave a record of no kind", op->store->table->name);
    if (rc == CF_OK && cf_record_append(op->loop->platform, &op->value, &whole) != CF_OK) rc = cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record");
    /* What a hook or an update has done by now is done; of an insert this is the record in its way. Where records are made of keys this comes before any change. */
    if (rc != CF_OK && cf_op_writes(op) && op->in.kind != CF_OP_INSERT && !op->keyed) op->error.outcome = CF_UNKNOWN;
    return rc;
}
