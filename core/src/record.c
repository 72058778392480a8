/* record.c: the schema as a table, and records, plans and hooks as bytes.
 *
 * Bytes of a record: its size (4), its kind (1), and for each field of the schema, in order, one byte that says what it is (cf_field.is), then where it is given
 * a number (8) or a length (4) and a text. In the machine's own byte order: they never leave a process, but for the records that are kept as keys (keyed.c), of
 * which one process is the only user. */
#include "record.h"

#include <stdio.h>

typedef struct field_line {
    const char   *name;
    cf_field_type type;
    bool          null;
} field_line;

static const field_line fields[CF_KINDS][CF_FIELDS_MAX] = {
#define CF_FIELD(KIND, NAME, name, type, null) [CF_##KIND][CF_##KIND##_##NAME] = {#name, CF_##type, null},
#include "counterfoil/schema.def"
};

enum { PARENT_NONE = -1, PARENT_USER = CF_USER, PARENT_FREE = CF_USER };
enum { NEEDS_NONE = 0, NEEDS_USER = 1, NEEDS_FREE = 0 };
static const cf_kind kinds[CF_KINDS] = {
#define CF_KIND(KIND, name, unique, unique2, listing, parent) \
    [CF_##KIND] = {#name, {CF_##KIND##_##unique, CF_##KIND##_##unique2}, CF_##KIND##_##listing, PARENT_##parent, NEEDS_##parent},
#include "counterfoil/schema.def"
};

static bool known(int kind, int at) { return kind >= 0 && kind < CF_KINDS && at >= 0 && at < CF_FIELDS_MAX && fields[kind][at].name; }

const cf_kind *cf_kind_of(int kind) { return kind >= 0 && kind < CF_KINDS ? &kinds[kind] : NULL; }
const char *cf_kind_name(int kind) { return kind >= 0 && kind < CF_KINDS ? kinds[kind].name : NULL; }
const char *cf_field_name(int kind, int at) { return known(kind, at) ? fields[kind][at].name : NULL; }
cf_field_type cf_field_type_of(int kind, int at) { return known(kind, at) ? fields[kind][at].type : CF_TEXT; }
bool cf_field_nullable(int kind, int at) { return known(kind, at) && fields[kind][at].null; }

int cf_field_named(int kind, cf_slice name)
{
    for (int i = 0; known(kind, i); i++)
        if (cf_slice_equal(name, cf_text(fields[kind][i].name))) return i;
    return -1;
}

bool cf_field_is_text(int kind, int at) { return fields[kind][at].type <= CF_SECRET; }

bool cf_field_equal(const cf_field *a, const cf_field *b)
{
    return a->is == b->is && (a->is != CF_GIVEN || (a->number == b->number && cf_slice_equal(a->text, b->text)));
}

const char *cf_record_fault(const cf_record *record, unsigned needs, unsigned may, char text[CF_RECORD_FAULT])
{
    for (int i = 0; known(record->kind, i); i++) {
        const char *what = NULL;
        if (record->fields[i].is != CF_UNSAID && !(1U << i & (needs | may))) what = "cannot be given to this method, or not be changed";
        else if (1U << i & needs && record->fields[i].is != CF_GIVEN) what = "is missing";
        if (!what) continue;
        (void)snprintf(text, CF_RECORD_FAULT, "%s of a %s %s", cf_field_name(record->kind, i), cf_kind_name(record->kind), what);
        return text;
    }
    return NULL;
}

void cf_record_apply(cf_record *record, const cf_record *changes)
{
    for (int i = 0; known(record->kind, i); i++)
        if (changes->fields[i].is != CF_UNSAID) record->fields[i] = changes->fields[i];
}

/* ------------------------------------------------------------------------------------------------------------- bytes -- */

size_t cf_record_size(const cf_record *record)
{
    size_t size = sizeof(uint32_t) + 1;
    for (int i = 0; known(record->kind, i); i++) {
        size++;
        if (record->fields[i].is != CF_GIVEN) continue;
        size += cf_field_is_text(record->kind, i) ? sizeof(uint32_t) + record->fields[i].text.len : sizeof(int64_t);
    }
    return size;
}

static char *put(char *to, const void *bytes, size_t len)
{
    if (len) memcpy(to, bytes, len);
    return to + len;
}

void cf_record_pack(const cf_record *record, char *to)
{
    uint32_t size = (uint32_t)cf_record_size(record);
    to = put(to, &size, sizeof size);
    *to++ = (char)record->kind;
    for (int i = 0; known(record->kind, i); i++) {
        const cf_field *field = &record->fields[i];
        *to++ = (char)field->is;
        if (field->is != CF_GIVEN) continue;
        if (cf_field_is_text(record->kind, i)) {
            uint32_t len = (uint32_t)field->text.len;
            to = put(put(to, &len, sizeof len), field->text.ptr, len);
        } else {
            to = put(to, &field->number, sizeof field->number);
        }
    }
}

/* What is left of some bytes. Once too little was left nothing comes any more. */
typedef struct input {
    const char *at;
    size_t      left;
    bool        good;
} input;

static const char *take(input *in, size_t len)
{
    if (!in->good || in->left < len) {
        in->good = false;
        return NULL;
    }
    const char *at = in->at;
    in->at += len;
    in->left -= len;
    return at;
}

static void take_into(input *in, void *to, size_t len)
{
    const char *from = take(in, len);
    if (from) memcpy(to, from, len);
}

static int64_t take_number(input *in)
{
    int64_t number = 0;
    take_into(in, &number, sizeof number);
    return number;
}

static cf_slice take_text(input *in)
{
    uint32_t len = 0;
    take_into(in, &len, sizeof len);
    const char *at = take(in, len);
    return cf_bytes(at, at ? len : 0);
}

size_t cf_record_unpack(cf_slice bytes, cf_record *record)
{
    input    in = {bytes.ptr, bytes.len, true};
    uint32_t size = 0;
    take_into(&in, &size, sizeof size);
    const char *kind = take(&in, 1);
    memset(record, 0, sizeof *record);
    record->kind = kind ? *kind : -1;
    if (!cf_kind_of(record->kind)) return 0;
    for (int i = 0; known(record->kind, i); i++) {
        const char *is = take(&in, 1);
        if (!is || *is < CF_UNSAID || *is > CF_GIVEN) return 0;
        cf_field *field = &record->fields[i];
        field->is = (unsigned char)*is;
        if (*is != CF_GIVEN) continue;
        if (cf_field_is_text(record->kind, i))
            field->text = take_text(&in);
        else
            field->number = take_number(&in);
    }
    return in.good && bytes.len - in.left == size ? size : 0;
}

int cf_record_append(const cf_platform *platform, cf_buffer *out, const cf_record *record)
{
    size_t size = cf_record_size(record);
    int    rc = cf_buffer_reserve(platform, out, out->len + size);
    if (rc != CF_OK) return rc;
    cf_record_pack(record, out->ptr + out->len);
    out->len += size;
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------- plans -- */

enum { PLAN = 0x706c616e, HOOK = 0x686f6f6b };

typedef struct output {
    const cf_platform *platform;
    cf_buffer         *to;
    int                rc;
} output;

static void give(output *out, const void *bytes, size_t len)
{
    if (out->rc == CF_OK) out->rc = cf_buffer_append(out->platform, out->to, cf_bytes(bytes, len));
}
static void give_number(output *out, int64_t number) { give(out, &number, sizeof number); }
static void give_text(output *out, cf_slice text)
{
    uint32_t len = (uint32_t)text.len;
    give(out, &len, sizeof len);
    give(out, text.ptr, text.len);
}
static void give_record(output *out, const cf_record *record)
{
    give_number(out, cf_kind_of(record->kind) != NULL);
    if (out->rc == CF_OK && cf_kind_of(record->kind)) out->rc = cf_record_append(out->platform, out->to, record);
}
static void take_record(input *in, cf_record *record)
{
    memset(record, 0, sizeof *record);
    record->kind = -1;
    if (!take_number(in)) return;
    size_t size = in->good ? cf_record_unpack(cf_bytes(in->at, in->left), record) : 0;
    if (!size) in->good = false;
    take(in, size);
}

int cf_plan_write(const cf_platform *platform, const cf_plan *plan, cf_buffer *to)
{
    output out = {platform, to, CF_OK};
    const int64_t numbers[] = {PLAN, plan->kind, plan->by, plan->guard, plan->equals.is, plan->equals.number, plan->expiry_ms, plan->now, plan->epoch, plan->most,
                               plan->oldest_out, plan->bump, plan->number_only};
    size_t size = sizeof numbers + plan->at[0].len + plan->at[1].len + plan->except.len + plan->equals.text.len + 64;
    if (cf_kind_of(plan->record.kind)) size += cf_record_size(&plan->record);
    if (cf_kind_of(plan->with.kind)) size += cf_record_size(&plan->with);
    out.rc = cf_buffer_reserve(platform, to, to->len + size); /* at once: should it grow with a token in it, that would stay behind */
    give(&out, numbers, sizeof numbers);
    give_text(&out, plan->at[0]);
    give_text(&out, plan->at[1]);
    give_text(&out, plan->except);
    give_text(&out, plan->equals.text);
    give_record(&out, &plan->record);
    give_record(&out, &plan->with);
    return out.rc;
}

bool cf_plan_read(cf_slice bytes, cf_plan *plan)
{
    input in = {bytes.ptr, bytes.len, true};
    if (take_number(&in) != PLAN) return false;
    memset(plan, 0, sizeof *plan);
    plan->kind = (int)take_number(&in);
    plan->by = (int)take_number(&in);
    plan->guard = (int)take_number(&in);
    plan->equals.is = (int)take_number(&in);
    plan->equals.number = take_number(&in);
    plan->expiry_ms = take_number(&in);
    plan->now = take_number(&in);
    plan->epoch = take_number(&in);
    plan->most = take_number(&in);
    plan->oldest_out = take_number(&in) != 0;
    plan->bump = take_number(&in) != 0;
    plan->number_only = take_number(&in) != 0;
    plan->at[0] = take_text(&in);
    plan->at[1] = take_text(&in);
    plan->except = take_text(&in);
    plan->equals.text = take_text(&in);
    take_record(&in, &plan->record);
    take_record(&in, &plan->with);
    return in.good && in.left == 0 && cf_kind_of(plan->kind) && plan->record.kind == plan->kind && plan->by >= CF_BY_ID && plan->by <= CF_BY_ALL &&
           (plan->guard == -1 || known(plan->kind, plan->guard)) && plan->equals.is >= CF_UNSAID && plan->equals.is <= CF_GIVEN;
}

int cf_hook_write(const cf_platform *platform, const cf_hook *hook, cf_buffer *to)
{
    output out = {platform, to, CF_OK};
    give_number(&out, HOOK);
    give_number(&out, hook->method);
    give_record(&out, &hook->record);
    give_record(&out, &hook->user);
    return out.rc;
}

bool cf_hook_read(cf_slice bytes, cf_hook *hook)
{
    input in = {bytes.ptr, bytes.len, true};
    if (take_number(&in) != HOOK) return false;
    hook->method = (int)take_number(&in);
    take_record(&in, &hook->record);
    take_record(&in, &hook->user);
    return in.good && in.left == 0 && hook->method >= 0 && hook->method < CF_ACCOUNTS_METHODS && hook->record.kind >= 0;
}
