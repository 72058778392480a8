// Records between JavaScript and the core: arrays, the number of the kind first, then the fields in the order of counterfoil/schema.def. undefined is a field
// that is not said; null, booleans and strings are themselves, numbers and instants (microseconds) are numbers. Names, dates and JSON are JavaScript's (node/records.cjs).
#include "binding.h"

#include <initializer_list>

namespace counterfoil {

// ------------------------------------------------------------------------------------------------------------------- in --

static Take take_field(napi_env env, napi_value value, int kind, int at, RecordHolder *holder)
{
    cf_record     *record = &holder->record;
    bool           is_text = cf_field_type_of(kind, at) <= CF_SECRET, yes = false;
    double         number = 0;
    napi_valuetype type;
    if (napi_typeof(env, value, &type) != napi_ok) return TAKE_WRONG_TYPE;
    switch (type) {
    case napi_undefined: return TAKE_OK;
    case napi_null: cf_record_null(record, at); return TAKE_OK;
    case napi_boolean:
        if (cf_field_type_of(kind, at) != CF_BOOLEAN || napi_get_value_bool(env, value, &yes) != napi_ok) return TAKE_WRONG_TYPE;
        cf_record_number(record, at, yes ? 1 : 0);
        return TAKE_OK;
    case napi_number: {
        if (is_text || napi_get_value_double(env, value, &number) != napi_ok) return TAKE_WRONG_TYPE;
        // What is out of range is so as well one beyond the last: the core says how.
        bool fits = number >= -static_cast<double>(CF_NUMBER_MAX) && number <= static_cast<double>(CF_NUMBER_MAX);
        cf_record_number(record, at, fits ? static_cast<int64_t>(number) : CF_NUMBER_MAX + 1);
        return TAKE_OK;
    }
    case napi_string: {
        if (!is_text) return TAKE_WRONG_TYPE;
        auto &text = holder->texts[at];
        Take  take = take_string(env, value, text.room, sizeof text.room, &text.heap, CF_JSON_MAX, &text.slice);
        if (take == TAKE_OK) cf_record_text(record, at, text.slice);
        return take;
    }
    default: return TAKE_WRONG_TYPE;
    }
}

Take take_record(napi_env env, napi_value array, RecordHolder *holder, int *at)
{
    napi_value value = nullptr;
    int32_t    kind = -1;
    *at = 0;
    memset(&holder->record, 0, sizeof holder->record);
    if (napi_get_element(env, array, 0, &value) != napi_ok || napi_get_value_int32(env, value, &kind) != napi_ok || cf_kind_name(kind) == nullptr)
        return TAKE_WRONG_TYPE;
    holder->record.kind = kind;
    for (; cf_field_name(kind, *at) != nullptr; ++*at) {
        if (napi_get_element(env, array, static_cast<uint32_t>(*at + 1), &value) != napi_ok) return TAKE_WRONG_TYPE;
        Take take = take_field(env, value, kind, *at, holder);
        if (take != TAKE_OK) return take;
    }
    return TAKE_OK;
}

// ------------------------------------------------------------------------------------------------------------------ out --

napi_value record_to_js(napi_env env, const cf_record *record, bool *bad)
{
    napi_value array = nullptr, value = nullptr;
    if (napi_create_array(env, &array) != napi_ok || napi_create_int32(env, record->kind, &value) != napi_ok || napi_set_element(env, array, 0, value) != napi_ok)
        return nullptr;
    for (int i = 0; cf_field_name(record->kind, i) != nullptr; i++) {
        const cf_field *field = &record->fields[i];
        cf_field_type   type = cf_field_type_of(record->kind, i);
        value = nullptr;
        if (field->is == CF_UNSAID) value = undefined(env);
        else if (field->is == CF_NULL) (void)!napi_get_null(env, &value);
        else if (type <= CF_SECRET) value = text_to_js(env, field->text, bad);
        else if (type == CF_BOOLEAN) (void)!napi_get_boolean(env, field->number != 0, &value);
        else (void)!napi_create_double(env, static_cast<double>(field->number), &value);
        if (value == nullptr || napi_set_element(env, array, static_cast<uint32_t>(i + 1), value) != napi_ok) return nullptr;
    }
    return array;
}

static int64_t clock_of(cf_op *op)
{
    const cf_platform *platform = cf_loop_platform(cf_op_loop(op));
    return platform->wall_ms(platform->self) * 1000;
}

// What a session record is at that moment, behind its fields: to the microsecond, which a Date is not.
static bool add_status(napi_env env, napi_value array, const cf_record *record, int64_t now)
{
    napi_value status = nullptr;
    uint32_t   len = 0;
    return napi_get_array_length(env, array, &len) == napi_ok && napi_create_int32(env, cf_session_status(record, now), &status) == napi_ok &&
           napi_set_element(env, array, len, status) == napi_ok;
}

napi_value next_record_to_js(Env *env, cf_op *op, int64_t now, cf_error *failure)
{
    cf_record record;
    bool      bad = false;
    if (!cf_op_next_record(op, &record)) return nullptr;
    napi_value array = record_to_js(env->napi, &record, &bad);
    bool reads = cf_op_kind(op) == CF_OP_FIND || cf_op_kind(op) == CF_OP_LIST;
    if (bad) cf_error_set(failure, CF_ECORRUPT, reads ? CF_NOT_APPLIED : CF_APPLIED, "the backend holds a text that is not UTF-8");
    if (array == nullptr || (record.kind == CF_SESSION && !add_status(env->napi, array, &record, now > 0 ? now : clock_of(op)))) return nullptr;
    return array;
}

napi_value records_to_js(Env *env, cf_op *op, int64_t now, cf_error *failure)
{
    napi_env   napi = env->napi;
    napi_value all = nullptr, hit = nullptr, number = nullptr, cursor = nullptr;
    uint32_t   count = 0;
    cf_slice   next = cf_op_cursor(op);
    if (napi_create_array(napi, &all) != napi_ok || napi_get_boolean(napi, cf_op_hit(op), &hit) != napi_ok ||
        napi_create_double(napi, static_cast<double>(cf_op_number(op)), &number) != napi_ok)
        return nullptr;
    if (next.len == 0) cursor = undefined(napi);
    else (void)!napi_create_string_latin1(napi, next.ptr, next.len, &cursor);
    for (napi_value value : {hit, number, cursor})
        if (value == nullptr || napi_set_element(napi, all, count++, value) != napi_ok) return nullptr;
    failure->status = CF_OK;
    while (napi_value record = next_record_to_js(env, op, now, failure))
        if (napi_set_element(napi, all, count++, record) != napi_ok) return nullptr;
    return failure->status == CF_OK ? all : nullptr;
}

// kinds(): what schema.def says, [[name, [[field, type], ...]], ...]
napi_value records_kinds(napi_env napi, napi_callback_info)
{
    napi_value kinds = nullptr, kind = nullptr, fields = nullptr, field = nullptr, name = nullptr, type = nullptr;
    if (napi_create_array(napi, &kinds) != napi_ok) return nullptr;
    for (int k = 0; cf_kind_name(k) != nullptr; k++) {
        if (napi_create_array(napi, &kind) != napi_ok || napi_create_array(napi, &fields) != napi_ok ||
            napi_create_string_utf8(napi, cf_kind_name(k), NAPI_AUTO_LENGTH, &name) != napi_ok || napi_set_element(napi, kind, 0, name) != napi_ok ||
            napi_set_element(napi, kind, 1, fields) != napi_ok || napi_set_element(napi, kinds, static_cast<uint32_t>(k), kind) != napi_ok)
            return nullptr;
        for (int i = 0; cf_field_name(k, i) != nullptr; i++) {
            if (napi_create_array(napi, &field) != napi_ok || napi_create_string_utf8(napi, cf_field_name(k, i), NAPI_AUTO_LENGTH, &name) != napi_ok ||
                napi_create_int32(napi, cf_field_type_of(k, i), &type) != napi_ok || napi_set_element(napi, field, 0, name) != napi_ok ||
                napi_set_element(napi, field, 1, type) != napi_ok || napi_set_element(napi, fields, static_cast<uint32_t>(i), field) != napi_ok)
                return nullptr;
        }
    }
    return kinds;
}

// accountsMethods(): their names, each at its number
napi_value records_accounts_methods(napi_env napi, napi_callback_info)
{
    napi_value names = nullptr, name = nullptr;
    if (napi_create_array(napi, &names) != napi_ok) return nullptr;
    for (int i = 0; i < CF_ACCOUNTS_METHODS; i++)
        if (napi_create_string_utf8(napi, cf_accounts_method_name(i), NAPI_AUTO_LENGTH, &name) != napi_ok ||
            napi_set_element(napi, names, static_cast<uint32_t>(i), name) != napi_ok)
            return nullptr;
    return names;
}

} // namespace counterfoil
