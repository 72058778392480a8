/* case_records.c: the steps of cases over AccountsStorage and SessionStorage. */
#include "case_runner.h"

#include <math.h>

static const char *const session_methods[CF_SESSION_METHODS] = {"create", "get", "get_any", "list_for_user", "refresh", "revoke", "revoke_all_for_user", "epoch"};
static const char *const statuses[] = {"", "active", "expired", "revoked"};
static const char *const orders[CF_SESSION_ORDERS] = {"updated_at_desc", "updated_at_asc", "created_at_desc", "created_at_asc", "expires_at_desc", "expires_at_asc"};

bool is_record_step(const char *what) { return strncmp(what, "accounts.", 9) == 0 || strncmp(what, "sessions.", 9) == 0; }

void record_open(record_story *s, cf_store *store, cf_stage *stage, const json_t *open)
{
    const char *full = json_string_value(json_object_get(open, "when_full"));
    json_decref(s->names);
    *s = (record_story){.stage = stage, .names = json_object()};
    s->accounts = (cf_accounts){store, (size_t)json_integer_value(json_object_get(open, "max_social_accounts"))};
    s->sessions = (cf_sessions){store, (size_t)json_integer_value(json_object_get(open, "max_sessions")), full && strcmp(full, "refuse") == 0,
                                llround(json_number_value(json_object_get(open, "retention")) * 1000)};
}

void record_close(record_story *s)
{
    json_decref(s->names);
    s->names = NULL;
}

/* ------------------------------------------------------------------------------------------------------------ values -- */

/* What "$name" stands for, or the value itself. */
static const json_t *meant(record_story *s, const json_t *value)
{
    const char *word = json_string_value(value);
    if (!word || word[0] != '$') return value;
    const json_t *kept = json_object_get(s->names, word + 1);
    if (!kept) broken("nothing was remembered as", word);
    return kept;
}

static int64_t instant_of(record_story *s, const json_t *value, bool *skip)
{
    const json_t *in = json_object_get(value, "in");
    if (in) return cf_stage_wall_ms(s->stage) * 1000 + llround(json_number_value(in) * 1e6);
    if (json_object_get(value, "wrong_type")) *skip = true;
    else if (!json_is_integer(value)) broken("an instant", now_case);
    return json_integer_value(value);
}

/* The texts of one call: freed as soon as it has been submitted, as they are only lent. */
typedef struct texts {
    char  *all[2 * CF_FIELDS_MAX + 4];
    size_t count;
} texts;

static cf_slice lend(texts *t, char *ptr, size_t len)
{
    t->all[t->count++] = ptr;
    return cf_bytes(ptr, len);
}

static cf_slice lend_text(texts *t, const json_t *value, bool *skip)
{
    text one = text_of(value);
    if (one.skip) *skip = true;
    return lend(t, one.ptr, one.len);
}

static void set_field(record_story *s, cf_record *record, int field, const json_t *said, texts *t, bool *skip)
{
    const json_t *value = meant(s, said);
    if (json_is_null(value)) {
        cf_record_null(record, field);
        return;
    }
    switch (cf_field_type_of(record->kind, field)) {
    case CF_JSON: {
        char *dumped = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        cf_record_text(record, field, lend(t, dumped, strlen(dumped)));
        return;
    }
    case CF_BOOLEAN:
        if (!json_is_boolean(value)) *skip = true;
        cf_record_number(record, field, json_is_true(value));
        return;
    case CF_INSTANT: cf_record_number(record, field, instant_of(s, value, skip)); return;
    case CF_NUMBER: broken("a number is no field", now_case);
    default: cf_record_text(record, field, lend_text(t, value, skip));
    }
}

static void fill_in(record_story *s, cf_record *record, const json_t *from, texts *t, bool *skip)
{
    const char   *name;
    const json_t *value;
    for (void *at = json_object_iter((json_t *)(uintptr_t)from); at; at = json_object_iter_next((json_t *)(uintptr_t)from, at)) {
        name = json_object_iter_key(at);
        value = json_object_iter_value(at);
        int field = cf_field_named(record->kind, cf_text(name));
        if (field < 0) broken("there is no field", name);
        set_field(s, record, field, value, t, skip);
    }
}

static int place_of(const char *word, const char *const *words, int count)
{
    for (int i = 0; word && i < count; i++)
        if (strcmp(word, words[i]) == 0) return i;
    return -1;
}

/* --------------------------------------------------------------------------------------------------------- submitting -- */

static int submit_accounts(record_story *s, const char *method, json_t *args, cf_op **op, bool *skip, texts *t)
{
    int which = -1;
    for (int i = 0; i < CF_ACCOUNTS_METHODS; i++)
        if (strcmp(method, cf_accounts_method_name(i)) == 0) which = i;
    if (which < 0) broken("there is no method", method);
    cf_record record = {.kind = strstr(method, "social") ? CF_SOCIAL_ACCOUNT : CF_USER}, user = {.kind = CF_USER};
    const json_t *of_user = json_object_get(args, "user");
    if (of_user) {
        fill_in(s, &user, of_user, t, skip);
        json_object_del(args, "user");
    }
    fill_in(s, &record, args, t, skip);
    return *skip ? CF_OK : cf_accounts_call(&s->accounts, which, &record, which == CF_FIND_OR_CREATE ? &user : NULL, NULL, op);
}

/* Takes an argument that is no field out of the others. NULL: it is not there, or null. */
static const json_t *argument(record_story *s, json_t *args, json_t *taken, const char *name)
{
    json_t *value = json_object_get(args, name);
    if (!value) return NULL;
    json_array_append(taken, value);
    json_object_del(args, name);
    return json_is_null(value) ? NULL : meant(s, value);
}

static int submit_sessions(record_story *s, const char *method, json_t *args, json_t *taken, cf_op **op, bool *skip, texts *t)
{
    int which = place_of(method, session_methods, CF_SESSION_METHODS);
    if (which < 0) broken("there is no method", method);
    cf_record       record = {.kind = CF_SESSION};
    cf_session_args more = {.size = sizeof more, .epoch = -1};
    const json_t   *value;
    if ((value = argument(s, args, taken, "now")) != NULL) more.now = instant_of(s, value, skip);
    if ((value = argument(s, args, taken, "epoch")) != NULL) more.epoch = json_integer_value(value);
    if ((value = argument(s, args, taken, "except_session_id")) != NULL) more.except = lend_text(t, value, skip);
    if ((value = argument(s, args, taken, "cursor")) != NULL) more.cursor = lend_text(t, value, skip);
    if ((value = argument(s, args, taken, "status")) != NULL) {
        more.status = place_of(json_string_value(value), statuses, 4);
        if (more.status <= 0) more.status = 99;
    }
    if ((value = argument(s, args, taken, "order_by")) != NULL) more.order = place_of(json_string_value(value), orders, CF_SESSION_ORDERS);
    if ((value = argument(s, args, taken, "limit")) != NULL) {
        more.limit = (size_t)json_integer_value(value); /* one below 0 is too many */
        if (!json_is_integer(value) || more.limit == 0) *skip = true;
    }
    fill_in(s, &record, args, t, skip);
    return *skip ? CF_OK : cf_sessions_call(&s->sessions, which, &record, &more, NULL, op);
}

int record_submit(record_story *s, const json_t *step, cf_op **op, bool *skip)
{
    const char *what = json_string_value(json_object_get(step, "do"));
    json_t     *args = json_copy(json_object_get(step, "args")), *taken = json_array();
    texts       t = {.count = 0};
    int status = *what == 'a' ? submit_accounts(s, what + 9, args, op, skip, &t) : submit_sessions(s, what + 9, args, taken, op, skip, &t);
    for (size_t i = 0; i < t.count; i++) free(t.all[i]);
    json_decref(args);
    json_decref(taken);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ answers -- */

static json_t *field_as_json(int kind, int i, const cf_field *field)
{
    if (field->is == CF_UNSAID) wrong("%s of a %s was not said", cf_field_name(kind, i), cf_kind_name(kind));
    if (field->is != CF_GIVEN) return json_null();
    switch (cf_field_type_of(kind, i)) {
    case CF_BOOLEAN: return json_boolean(field->number);
    case CF_NUMBER:
    case CF_INSTANT: return json_integer(field->number);
    case CF_JSON: {
        json_t *parsed = json_loadb(field->text.ptr, field->text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!parsed) wrong("%s of a %s is no JSON", cf_field_name(kind, i), cf_kind_name(kind));
        return parsed ? parsed : json_null();
    }
    default: return json_stringn(field->text.ptr, field->text.len);
    }
}

brought bring(cf_op *op)
{
    brought   b = {.list = json_array()};
    cf_record record;
    while (cf_op_next_record(op, &record)) {
        json_t *one = json_object();
        json_object_set_new(one, "kind", json_string(cf_kind_name(record.kind)));
        for (int i = 0; cf_field_name(record.kind, i); i++) json_object_set_new(one, cf_field_name(record.kind, i), field_as_json(record.kind, i, &record.fields[i]));
        json_array_append_new(b.list, one);
    }
    cf_slice cursor = cf_op_cursor(op);
    b.cursor = cursor.len ? json_stringn(cursor.ptr, cursor.len) : json_null();
    return b;
}

void brought_free(brought *b)
{
    json_decref(b->list);
    json_decref(b->cursor);
    *b = (brought){0};
}

static void remember(record_story *s, const json_t *step, const char *as, const json_t *what)
{
    const char *name = json_string_value(json_object_get(step, as));
    if (!name) return;
    if (!what) wrong("there is nothing to remember as %s", name);
    else json_object_set(s->names, name, (json_t *)(uintptr_t)what);
}

void record_remember(record_story *s, const json_t *step, int status, int64_t number, const brought *b)
{
    if (status != CF_OK) return;
    const char *what = json_string_value(json_object_get(step, "do"));
    if (strstr(what, ".list_for_user")) {
        remember(s, step, "as", b->cursor);
    } else if (strstr(what, ".epoch") || strstr(what, ".revoke_all")) {
        json_t *as_json = json_integer(number);
        remember(s, step, "as", as_json);
        json_decref(as_json);
    } else {
        remember(s, step, "as", json_object_get(json_array_get(b->list, 0), "id"));
        remember(s, step, "user_as", json_object_get(json_array_get(b->list, 1), "id"));
    }
}

/* ----------------------------------------------------------------------------------------------------------- checking -- */

static bool is_instant(const char *name)
{
    size_t len = strlen(name);
    return len > 3 && strcmp(name + len - 3, "_at") == 0;
}

static bool same_value(record_story *s, const char *name, const json_t *wanted, const json_t *is)
{
    wanted = meant(s, wanted);
    if (json_is_null(wanted) || json_is_null(is)) return json_is_null(wanted) && json_is_null(is);
    bool skip = false;
    if (is_instant(name) && s->moved && json_is_object(wanted)) return json_is_integer(is);
    if (is_instant(name)) return json_is_integer(is) && json_integer_value(is) == instant_of(s, wanted, &skip);
    if (strcmp(name, "user_info") == 0 || strcmp(name, "extra_fields") == 0 || !json_is_object(wanted)) return json_equal(wanted, is);
    text t = text_of(wanted);
    bool same = json_is_string(is) && json_string_length(is) == t.len && memcmp(json_string_value(is), t.ptr, t.len) == 0;
    free(t.ptr);
    return same;
}

static void check_record(record_story *s, const json_t *wanted, const json_t *is)
{
    if (!is) {
        wrong("a record is missing");
        return;
    }
    const char *kind = json_string_value(json_object_get(is, "kind"));
    for (void *at = json_object_iter((json_t *)(uintptr_t)wanted); at; at = json_object_iter_next((json_t *)(uintptr_t)wanted, at)) {
        const char   *name = json_object_iter_key(at);
        const json_t *value = json_object_get(is, name);
        if (!value) broken("there is no field", name);
        if (same_value(s, name, json_object_iter_value(at), value)) continue;
        char *dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        wrong("%s of the %s is %.80s", name, kind, dumped);
        free(dumped);
    }
}

static void check_list(record_story *s, const json_t *step, const brought *b)
{
    const json_t *wanted = json_object_get(step, "expect"), *length = json_object_get(step, "expect_length"), *more = json_object_get(step, "more");
    size_t        count = json_array_size(b->list);
    if (more && json_is_true(more) == json_is_null(b->cursor)) wrong(json_is_true(more) ? "there is no cursor" : "there is a cursor");
    if (length && (json_int_t)count != json_integer_value(length)) wrong("%zu records came", count);
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++)
            if (json_equal(json_array_get(b->list, i), json_array_get(b->list, j))) wrong("a record came twice");
    if (!wanted) return;
    if (count != json_array_size(wanted)) wrong("%zu records came", count);
    for (size_t i = 0; i < count && i < json_array_size(wanted); i++) check_record(s, json_array_get(wanted, i), json_array_get(b->list, i));
}

void record_check(record_story *s, const json_t *step, bool hit, int64_t number, const brought *b)
{
    const char   *what = json_string_value(json_object_get(step, "do"));
    const json_t *wanted = json_object_get(step, "expect");
    size_t        count = json_array_size(b->list);
    bool          both = strstr(what, ".find_or_create") != NULL;
    if (strstr(what, ".list_")) {
        check_list(s, step, b);
        return;
    }
    if (count > (both ? 2U : 1U) || (count && !hit)) wrong("%zu records came, and hit is %s", count, hit ? "true" : "false");
    if (!wanted) return;
    if (json_is_boolean(wanted)) {
        if (hit != json_is_true(wanted) || count) wrong("hit is %s, and there are %zu records", hit ? "true" : "false", count);
    } else if (json_is_integer(wanted)) {
        if (number != json_integer_value(wanted) || !hit || count) wrong("the number is %lld, hit is %s, and there are %zu records", (long long)number, hit ? "true" : "false", count);
    } else if (json_is_null(wanted)) {
        if (hit || count) wrong("a hit in place of a miss");
    } else if (both) {
        if (json_is_true(json_object_get(wanted, "created")) != (number == 1)) wrong("the number is %lld", (long long)number);
        check_record(s, json_object_get(wanted, "social_account"), json_array_get(b->list, 0));
        check_record(s, json_object_get(wanted, "user"), json_array_get(b->list, 1));
    } else {
        if (!hit) wrong("a miss");
        check_record(s, wanted, json_array_get(b->list, 0));
    }
}

void record_check_existing(record_story *s, const json_t *step, const brought *b)
{
    if (json_array_size(b->list) != 1) wrong("EXISTS brings %zu records", json_array_size(b->list));
    check_record(s, json_object_get(step, "existing"), json_array_get(b->list, 0));
}

static void discreet(const json_t *args, const cf_error *error)
{
    for (void *at = json_object_iter((json_t *)(uintptr_t)args); at; at = json_object_iter_next((json_t *)(uintptr_t)args, at)) {
        const json_t *value = json_object_iter_value(at);
        const char   *word = json_string_value(value);
        if (strcmp(json_object_iter_key(at), "user") == 0) discreet(value, error);
        else if (word && strlen(word) >= 5 && strstr(error->text, word)) wrong("the sentence shows what it was given: %s", error->text);
    }
}

void record_discreet(const json_t *step, const cf_error *error)
{
    if (error->status >= 0) return;
    if (error->text[0] == 0 && error->status != CF_ENOMEM) wrong("the error has no sentence");
    if (memchr(error->text, 0, sizeof error->text) == NULL) wrong("the sentence has no end");
    discreet(json_object_get(step, "args"), error);
}
