/* records.c: records as hashes. What is asked of the server, each operation one script; and its answers, record by record, as they come.
 *
 * FORMAT.md has the keys. The scripts get the name in front of all of them as their only key, and put the rest behind it themselves: which index a record that has to
 * go has is not known before. */
#include <stdio.h>

#include "redis.h"

#define LITERAL(text) cf_bytes(text, sizeof(text) - 1)

enum {
    ARGUMENTS = 4 * CF_FIELDS_MAX + 64,
    NUMBERS = 2 * CF_FIELDS_MAX + 16,
    LONGEST = 16 * 1024 * 1024 /* bytes of an answer, names and values */
};

/* A line break cannot be in a caller's key, so no key of records is ever one, and no page of a scan shows one. What is between the braces chooses the slot of a cluster. */
#define MARK "\n{records}"
#define RECEIPT "receipt:"
/* Never written. With two keys, of which none is there, a server runs a script only while it has the whole slot, and none of a slot that is just moving: a script that
 * finds half of the records would make the other half anew. */
#define WHOLE "whole:"

/* ------------------------------------------------------------------------------------------------------------ asking -- */

typedef struct question {
    cf_backend *self;
    cf_op      *op;
    cf_plan     plan;
    cf_slice    args[ARGUMENTS];
    size_t      count, numbers;
    bool        receipt;
    char        digits[NUMBERS][CF_INT_TEXT];
    char        index[64];
    char        keys[2 * (CF_PREFIX_MAX + sizeof MARK) + sizeof RECEIPT + sizeof WHOLE + CF_RECEIPT_LEN];
} question;

static void add(question *ask, cf_slice text) { ask->args[ask->count++] = text; }

static cf_slice digits(question *ask, int64_t number)
{
    char *text = ask->digits[ask->numbers++];
    return cf_bytes(text, cf_format_int(number, text));
}
static void add_number(question *ask, int64_t number) { add(ask, digits(ask, number)); }

/* Redis keeps a key through the millisecond of its expiry; here it is absent then. */
static void add_expiry(question *ask, int64_t expiry_ms) { add_number(ask, expiry_ms > 0 ? expiry_ms - 1 : expiry_ms); }

static cf_slice name_of(int kind, int field) { return field < 0 ? cf_text("") : cf_text(cf_field_name(kind, field)); }

static void add_unique(question *ask, int kind)
{
    const cf_kind *of = cf_kind_of(kind);
    add(ask, name_of(kind, of->unique[0]));
    add(ask, name_of(kind, of->unique[1]));
}

static bool is_text(int kind, int field) { return cf_field_type_of(kind, field) <= CF_SECRET; }

static void add_value(question *ask, int kind, int field, const cf_field *value)
{
    if (is_text(kind, field)) add(ask, value->text);
    else add_number(ask, value->number);
}

/* The guard, whether it must have a value, and which. */
static void add_guard(question *ask)
{
    const cf_plan *plan = &ask->plan;
    bool given = plan->guard >= 0 && plan->equals.is == CF_GIVEN;
    add(ask, name_of(plan->kind, plan->guard));
    add(ask, given ? LITERAL("1") : LITERAL("0"));
    if (given) add_value(ask, plan->kind, plan->guard, &plan->equals);
    else add(ask, cf_text(""));
}

/* How many fields are given, their names and values. */
static void add_given(question *ask, const cf_record *record)
{
    int64_t count = 0;
    for (int i = 0; cf_field_name(record->kind, i); i++) count += record->fields[i].is == CF_GIVEN;
    add_number(ask, count);
    for (int i = 0; cf_field_name(record->kind, i); i++) {
        if (record->fields[i].is != CF_GIVEN) continue;
        add(ask, name_of(record->kind, i));
        add_value(ask, record->kind, i, &record->fields[i]);
    }
}

static void add_nulls(question *ask, const cf_record *record)
{
    for (int i = 0; cf_field_name(record->kind, i); i++)
        if (record->fields[i].is == CF_NULL) add(ask, name_of(record->kind, i));
}

/* How long a receipt is of use. */
static void add_life(question *ask)
{
    int64_t twice = cf_op_in(ask->op)->timeout_ms * 2;
    add_number(ask, twice > 10000 ? twice : 10000);
}

static char *put(char *to, cf_slice bytes)
{
    if (bytes.len) memcpy(to, bytes.ptr, bytes.len);
    return to + bytes.len;
}

cf_slice redis_records_base(const cf_op *op, char room[CF_PREFIX_MAX + 16])
{
    cf_slice prefix = cf_op_in(op)->key;
    return cf_bytes(room, (size_t)(put(put(room, prefix), LITERAL(MARK)) - room));
}

/* The plan, the keys, and a receipt for what cannot be asked again without one. */
static int begin(question *ask, cf_backend *self, cf_op *op, bool receipt)
{
    const cf_request *in = cf_op_in(op);
    char *second = put(put(ask->keys, in->key), LITERAL(MARK)), *end = second;
    ask->self = self;
    ask->op = op;
    ask->count = 2;
    ask->numbers = 0;
    ask->receipt = receipt && (self->options.receipts || self->store);
    if (!cf_plan_read(in->value, &ask->plan)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a plan was lost");
    if (self->store && !redis_slot_by_tag(cf_bytes(ask->keys, (size_t)(second - ask->keys))))
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "on a cluster, records cannot be kept under a prefix whose first braces are {}: use another prefix");
    add(ask, ask->receipt || self->store ? LITERAL("2") : LITERAL("1"));
    add(ask, cf_bytes(ask->keys, (size_t)(second - ask->keys)));
    if (ask->receipt) {
        end = put(put(end, ask->args[3]), LITERAL(RECEIPT));
        if (!redis_new_receipt(self, end)) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the system gives no random bytes");
        add(ask, cf_bytes(second, (size_t)(end - second) + CF_RECEIPT_LEN));
    } else if (self->store) {
        end = put(put(end, ask->args[3]), LITERAL(WHOLE));
        add(ask, cf_bytes(second, (size_t)(end - second)));
    }
    return CF_OK;
}

static int run(question *ask, redis_script script, bool repeatable)
{
    redis_call call = {.expect = EXPECT_RECORDS, .flags = repeatable || ask->receipt ? CALL_REPEATABLE : 0, .script = (uint8_t)script, .kind = (uint8_t)ask->plan.kind};
    return redis_ask_script(ask->self, ask->op, call, ask->args, ask->count);
}

static void add_inserted(question *ask, const cf_record *record)
{
    const cf_kind *of = cf_kind_of(record->kind);
    add(ask, cf_text(of->name));
    add_unique(ask, record->kind);
    add(ask, name_of(record->kind, of->listing));
    add(ask, of->needs_parent ? cf_text(cf_kind_of(of->parent)->name) : cf_text(""));
    add_given(ask, record);
}

/* Needs no receipt: the record itself tells that it was made. */
int redis_insert(cf_backend *self, cf_op *op)
{
    question ask;
    int rc = begin(&ask, self, op, false);
    if (rc != CF_OK) return rc;
    const cf_plan *plan = &ask.plan;
    add_expiry(&ask, plan->expiry_ms);
    add_number(&ask, plan->now);
    add_number(&ask, plan->epoch);
    add_number(&ask, plan->most);
    add(&ask, plan->oldest_out ? LITERAL("1") : LITERAL("0"));
    add_inserted(&ask, &plan->record);
    if (plan->with.kind >= 0) add_inserted(&ask, &plan->with);
    return run(&ask, SCRIPT_INSERT, true);
}

/* Whether an update says what a record is found, listed or ordered by and the scripts take for granted. No method of ours does. */
static bool moves(const cf_plan *plan)
{
    const cf_kind  *of = cf_kind_of(plan->kind);
    const cf_field *fields = plan->record.fields;
    bool unique = (of->unique[0] >= 0 && fields[of->unique[0]].is != CF_UNSAID) || (of->unique[1] >= 0 && fields[of->unique[1]].is != CF_UNSAID);
    return fields[cf_field_named(plan->kind, cf_text("created_at"))].is != CF_UNSAID || (of->listing >= 0 && fields[of->listing].is != CF_UNSAID) ||
           (plan->by == CF_BY_GROUP && (unique || plan->expiry_ms >= 0));
}

int redis_update(cf_backend *self, cf_op *op)
{
    question ask;
    int rc = begin(&ask, self, op, true);
    if (rc != CF_OK) return rc;
    cf_plan       *plan = &ask.plan;
    const cf_kind *of = cf_kind_of(plan->kind);
    bool group = plan->by == CF_BY_GROUP;
    if (moves(plan) || (group && of->listing < 0)) return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "records cannot be changed like that");
    plan->record.fields[0].is = CF_UNSAID; /* an id stays what it is */
    add(&ask, cf_text(of->name));
    if (group) {
        add(&ask, name_of(plan->kind, of->listing));
        add(&ask, plan->at[0]);
        add(&ask, plan->except);
        add_guard(&ask);
        add(&ask, plan->bump ? LITERAL("1") : LITERAL("0"));
    } else {
        add(&ask, plan->at[0]);
        add_unique(&ask, plan->kind);
        add(&ask, name_of(plan->kind, of->listing));
        add_expiry(&ask, plan->expiry_ms);
        add_guard(&ask);
    }
    add_life(&ask);
    add_given(&ask, &plan->record);
    add_nulls(&ask, &plan->record);
    return run(&ask, group ? SCRIPT_UPDATE_GROUP : SCRIPT_UPDATE, false);
}

int redis_find(cf_backend *self, cf_op *op)
{
    question ask;
    int rc = begin(&ask, self, op, false);
    if (rc != CF_OK) return rc;
    const cf_plan *plan = &ask.plan;
    const cf_kind *of = cf_kind_of(plan->kind);
    add(&ask, cf_text(of->name));
    if (plan->by == CF_BY_ID) {
        add(&ask, plan->at[0]);
    } else {
        const char *second = of->unique[1] < 0 ? "" : cf_field_name(plan->kind, of->unique[1]);
        int len = snprintf(ask.index, sizeof ask.index, "%s.%s%s%s:", of->name, cf_field_name(plan->kind, of->unique[0]), *second ? "," : "", second);
        add(&ask, cf_bytes(ask.index, (size_t)len));
        add_unique(&ask, plan->kind);
        add(&ask, plan->at[0]);
        add(&ask, plan->at[1]);
    }
    return run(&ask, SCRIPT_FIND, true);
}

/* Their keys are found like any others; FORMAT.md has what they begin with. */
static int list_all(question *ask)
{
    char     begins[CF_PREFIX_MAX + sizeof MARK + 64];
    cf_slice parts[] = {ask->args[3], cf_text(cf_kind_of(ask->plan.kind)->name), LITERAL(":")};
    char    *end = begins;
    for (int i = 0; i < 3; i++) end = put(end, parts[i]);
    cf_slice prefix = cf_bytes(begins, (size_t)(end - begins));
    return ask->self->store ? redis_cluster_list_all(ask->self, ask->op, prefix) : redis_scan_from(ask->self, ask->op, prefix, cf_op_in(ask->op)->cursor);
}

int redis_records_add_id(cf_op *op, cf_slice key)
{
    size_t      before = cf_op_in(op)->key.len + sizeof MARK - 1;
    const char *colon = key.len > before ? memchr(key.ptr + before, ':', key.len - before) : NULL;
    return colon ? cf_op_add_id(op, cf_bytes(colon + 1, (size_t)(key.ptr + key.len - colon) - 1)) : CF_OK;
}

int redis_list(cf_backend *self, cf_op *op)
{
    question ask;
    int rc = begin(&ask, self, op, false);
    if (rc != CF_OK) return rc;
    if (ask.plan.by == CF_BY_ALL) return list_all(&ask);
    add(&ask, cf_text(cf_kind_of(ask.plan.kind)->name));
    add(&ask, name_of(ask.plan.kind, cf_kind_of(ask.plan.kind)->listing));
    add(&ask, ask.plan.at[0]);
    add_number(&ask, ask.plan.number_only ? 0 : CF_SESSIONS_MOST);
    add_number(&ask, LONGEST);
    return run(&ask, SCRIPT_LIST, true);
}

int redis_remove(cf_backend *self, cf_op *op)
{
    question ask;
    int rc = begin(&ask, self, op, true);
    if (rc != CF_OK) return rc;
    const cf_plan *plan = &ask.plan;
    add_life(&ask);
    add(&ask, plan->at[0]);
    for (int kind = -1; kind < CF_KINDS; kind++) {
        bool self_first = kind < 0; /* then what goes with it */
        int  at = self_first ? plan->kind : kind;
        const cf_kind *of = cf_kind_of(at);
        if (!self_first && of->parent != plan->kind) continue;
        add(&ask, cf_text(of->name));
        add_unique(&ask, at);
        add(&ask, name_of(at, of->listing));
        if (!self_first) add(&ask, cf_field_named(at, cf_text("epoch")) >= 0 ? LITERAL("1") : LITERAL("0"));
    }
    return run(&ask, SCRIPT_REMOVE, false);
}

/* ---------------------------------------------------------------------------------------------------------- answers -- */

static void fail(cf_backend *self, int status)
{
    if (self->reply.failed == CF_OK) self->reply.failed = status;
}

void redis_records_odd(cf_backend *self) { fail(self, CF_ECORRUPT); }

void redis_records_begin(cf_backend *self)
{
    redis_records *records = &self->reply.records;
    records->code = records->number = -1;
    records->kind = -1;
    records->count = records->size = 0;
}

void redis_records_number(cf_backend *self, size_t index, int64_t number)
{
    redis_records *records = &self->reply.records;
    if (index == 0) records->code = number;
    else if (index == 1) records->number = number;
    else fail(self, CF_ECORRUPT);
}

void redis_records_kind(cf_backend *self, size_t index, cf_slice name)
{
    redis_records *records = &self->reply.records;
    if (index != 2) fail(self, CF_ECORRUPT);
    for (int kind = 0; kind < CF_KINDS && index == 2; kind++)
        if (cf_slice_equal(name, cf_text(cf_kind_name(kind)))) records->kind = kind;
}

void redis_records_next(cf_backend *self, size_t index, size_t count)
{
    redis_records *records = &self->reply.records;
    if (index < 3 || records->kind < 0 || count == 0 || count % 2) fail(self, CF_ECORRUPT);
    records->field = -1;
    records->bytes.len = 0;
    for (int i = 0; i < CF_FIELDS_MAX; i++) records->fields[i].len = SIZE_MAX;
}

/* They mostly come in their order. */
static int field_named(const redis_records *records, cf_slice name)
{
    int first = records->field + 1;
    for (int i = first; cf_field_name(records->kind, i); i++)
        if (cf_slice_equal(name, cf_text(cf_field_name(records->kind, i)))) return i;
    return first ? cf_field_named(records->kind, name) : -1;
}

/* The record is complete. What is not there is null; what cannot be null, or is no number where one belongs, is damage. */
static void give(cf_backend *self, cf_op *op)
{
    redis_records *records = &self->reply.records;
    cf_record      record = {.kind = records->kind};
    for (int i = 0; cf_field_name(record.kind, i); i++) {
        cf_field *field = &record.fields[i];
        field->is = records->fields[i].len == SIZE_MAX ? CF_NULL : CF_GIVEN;
        if (field->is == CF_NULL) continue;
        field->text = cf_bytes(records->bytes.ptr + records->fields[i].at, records->fields[i].len);
        if (!is_text(record.kind, i) && !cf_parse_int(field->text, &field->number)) {
            fail(self, CF_ECORRUPT);
            return;
        }
    }
    records->count++;
    int rc = cf_op_add_record(op, &record);
    if (rc != CF_OK) fail(self, rc);
}

void redis_records_text(cf_backend *self, cf_op *op, size_t index, cf_slice text, bool last)
{
    redis_records *records = &self->reply.records;
    if (!op || self->reply.failed != CF_OK) return;
    records->size += text.len;
    if (records->size > LONGEST) {
        fail(self, CF_ECORRUPT);
        records->code = RECORDS_TOO_LARGE;
        return;
    }
    if (index % 2 == 0) {
        records->field = field_named(records, text);
        return;
    }
    if (records->field >= 0) {
        records->fields[records->field].at = records->bytes.len;
        records->fields[records->field].len = text.len;
        if (cf_buffer_append(self->platform, &records->bytes, text) != CF_OK) fail(self, CF_ENOMEM);
    }
    if (last && self->reply.failed == CF_OK) give(self, op);
}

int redis_records_answer(cf_backend *self, cf_op *op, const redis_call *call)
{
    const redis_records *records = &self->reply.records;
    int     kind = cf_op_in(op)->kind, outcome = records->code == RECORDS_YES ? CF_APPLIED : CF_NOT_APPLIED;
    bool    odd = kind != CF_OP_INSERT && records->kind >= 0 && records->kind != call->kind; /* an insert may be of two kinds */
    bool    brings = kind == CF_OP_FIND || (kind == CF_OP_UPDATE && records->kind >= 0);
    cf_error told = *cf_op_error(op); /* what cf_op_add_record has found */
    if (records->code == RECORDS_TOO_LARGE)
        return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "these records have more than %d bytes together, which is too much for one answer", LONGEST);
    if (self->reply.failed == CF_ENOMEM) return cf_op_fail(op, CF_ENOMEM, outcome, "no memory for the answer");
    if (odd || self->reply.failed != CF_OK || records->code < RECORDS_NO || records->code > RECORDS_LIMIT || records->number < 0)
        return cf_op_fail(op, CF_ECORRUPT, records->code < 0 ? CF_UNKNOWN : outcome, "%s",
                          told.status == CF_ECORRUPT ? told.text : "what Redis holds of these records is damaged");
    if ((brings && records->code == RECORDS_YES && records->count != 1) || (records->code == RECORDS_EXISTS && records->count != 1))
        return cf_op_fail(op, CF_ECORRUPT, outcome, "what Redis answered about a record is not whole");
    const char *name = records->kind >= 0 ? cf_kind_name(records->kind) : "record";
    switch ((redis_records_code)records->code) {
    case RECORDS_EXISTS:
        return cf_op_fail(op, CF_EEXISTS, CF_NOT_APPLIED, "there is such a %s already", name);
    case RECORDS_MISSING: return cf_op_fail(op, CF_EMISSING, CF_NOT_APPLIED, "the record that this %s belongs to is not there", name);
    case RECORDS_CHANGED: return cf_op_fail(op, CF_ECHANGED, CF_NOT_APPLIED, "the sessions of this user were all revoked since this login began");
    case RECORDS_LIMIT: return cf_op_fail(op, CF_ELIMIT, CF_NOT_APPLIED, "there are as many records of the kind %s as are allowed", name);
    default: break;
    }
    cf_op_set_number(op, records->number);
    cf_op_set_hit(op, records->code == RECORDS_YES);
    return CF_OK;
}
