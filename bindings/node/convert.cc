// Between JavaScript values and the core's slices, results and errors.
#include "binding.h"

#include <stdio.h>

namespace counterfoil {

// ------------------------------------------------------------------------------------------------------------------- in --

// Node writes U+FFFD (EF BF BD) for a lone surrogate. So only where those bytes came out do the UTF-16 units have to be looked at.
static bool has_replacement(const char *bytes, size_t len)
{
    const char *end = bytes + len;
    while (bytes < end && (bytes = static_cast<const char *>(memchr(bytes, 0xEF, static_cast<size_t>(end - bytes)))) != nullptr) {
        if (end - bytes >= 3 && static_cast<unsigned char>(bytes[1]) == 0xBF && static_cast<unsigned char>(bytes[2]) == 0xBD) return true;
        bytes++;
    }
    return false;
}

static Take check_surrogates(napi_env env, napi_value value)
{
    size_t units = 0;
    if (napi_get_value_string_utf16(env, value, nullptr, 0, &units) != napi_ok) return TAKE_WRONG_TYPE;
    char16_t *text = static_cast<char16_t *>(malloc((units + 1) * sizeof(char16_t)));
    if (text == nullptr) return TAKE_NO_MEMORY;
    Take take = TAKE_OK;
    if (napi_get_value_string_utf16(env, value, text, units + 1, &units) != napi_ok) take = TAKE_WRONG_TYPE;
    for (size_t i = 0; take == TAKE_OK && i < units; i++) {
        if ((text[i] & 0xF800) != 0xD800) continue;
        if ((text[i] & 0xFC00) == 0xD800 && i + 1 < units && (text[i + 1] & 0xFC00) == 0xDC00) i++;
        else take = TAKE_LONE_SURROGATE;
    }
    free(text);
    return take;
}

// How far beyond the limit a text is taken whole, so that the core can say in its refusal how long it is.
static const size_t ABSURD = 1024 * 1024;

Take take_string(napi_env env, napi_value value, char *room, size_t size, char **heap, size_t max, cf_slice *out)
{
    size_t len = 0;
    if (napi_get_value_string_utf8(env, value, room, size, &len) != napi_ok) return TAKE_WRONG_TYPE;
    char *bytes = room;
    // A character is never written in part, so up to three bytes may be left free by one that did not fit.
    if (len + 4 >= size) {
        if (napi_get_value_string_utf8(env, value, nullptr, 0, &len) != napi_ok) return TAKE_WRONG_TYPE;
        size = (len > max + ABSURD ? max + ABSURD : len) + 1;
        bytes = static_cast<char *>(malloc(size));
        if (bytes == nullptr) return TAKE_NO_MEMORY;
        *heap = bytes;
        if (napi_get_value_string_utf8(env, value, bytes, size, &len) != napi_ok) return TAKE_WRONG_TYPE;
    }
    *out = cf_bytes(bytes, len);
    return len <= max && has_replacement(bytes, len) ? check_surrogates(env, value) : TAKE_OK;
}

Take take_bytes(napi_env env, napi_value value, char *room, size_t size, char **heap, size_t max, cf_slice *out)
{
    Take take = take_string(env, value, room, size, heap, max, out);
    if (take != TAKE_WRONG_TYPE) return take;
    bool is_array = false;
    if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array) return TAKE_WRONG_TYPE;
    napi_typedarray_type type;
    size_t               len = 0;
    void                *data = nullptr;
    if (napi_get_typedarray_info(env, value, &type, &len, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array) return TAKE_WRONG_TYPE;
    // An empty array may have no address, and a slice without an address can mean "absent".
    *out = cf_bytes(data != nullptr ? data : room, data != nullptr ? len : 0);
    return TAKE_OK;
}

static bool took(Env *env, Take take, const char *what, const char *types)
{
    char text[160];
    switch (take) {
    case TAKE_OK: return true;
    case TAKE_WRONG_TYPE:
        snprintf(text, sizeof text, "%s must be %s", what, types);
        throw_status(env, CF_EINVAL, text);
        return false;
    case TAKE_LONE_SURROGATE:
        snprintf(text, sizeof text, "%s has a lone surrogate, which is not text", what);
        throw_status(env, CF_EINVAL, text);
        return false;
    case TAKE_NO_MEMORY: throw_status(env, CF_ENOMEM, "out of memory"); return false;
    }
    return false;
}

bool take_key(Env *env, napi_value value, const char *what, KeyHolder *holder)
{
    return took(env, take_string(env->napi, value, holder->room, sizeof holder->room, &holder->heap, CF_KEY_MAX, &holder->slice), what, "a string");
}

bool take_value(Env *env, napi_value value, const char *what, ValueHolder *holder)
{
    return took(env, take_bytes(env->napi, value, holder->room, sizeof holder->room, &holder->heap, CF_VALUE_MAX, &holder->slice), what,
                "a string, a Buffer or a Uint8Array");
}

bool is_undefined(napi_env env, napi_value value)
{
    napi_valuetype type;
    return napi_typeof(env, value, &type) == napi_ok && type == napi_undefined;
}

napi_value undefined(napi_env env)
{
    napi_value value = nullptr;
    return napi_get_undefined(env, &value) == napi_ok ? value : nullptr;
}

// ------------------------------------------------------------------------------------------------------------------ out --

static bool is_ascii(const char *bytes, size_t len)
{
    uint64_t word, any = 0;
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        any |= word;
    }
    for (; len > 0; bytes++, len--) any |= static_cast<unsigned char>(*bytes);
    return (any & UINT64_C(0x8080808080808080)) == 0;
}

static bool is_utf8(const char *text, size_t len)
{
    const unsigned char *at = reinterpret_cast<const unsigned char *>(text), *end = at + len;
    while (at < end) {
        unsigned char lead = *at++;
        if (lead < 0x80) continue;
        int           more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        unsigned char low = 0x80, high = 0xBF; // of the second byte: no over-long forms, no surrogates, nothing past U+10FFFF
        if (lead < 0xC2 || lead > 0xF4) return false;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
        if (end - at < more || *at < low || *at > high) return false;
        for (int i = 1; i < more; i++)
            if ((at[i] & 0xC0) != 0x80) return false;
        at += more;
    }
    return true;
}

napi_value text_to_js(napi_env env, cf_slice bytes, bool *bad)
{
    napi_value  text = nullptr;
    const char *ptr = bytes.len > 0 ? bytes.ptr : "";
    // Bytes that are all ASCII need no decoding: that is most values, and a good part of a read's time.
    if (is_ascii(ptr, bytes.len)) return napi_create_string_latin1(env, ptr, bytes.len, &text) == napi_ok ? text : nullptr;
    if (!is_utf8(ptr, bytes.len)) {
        *bad = true;
        return nullptr;
    }
    return napi_create_string_utf8(env, ptr, bytes.len, &text) == napi_ok ? text : nullptr;
}

napi_value bytes_to_js(napi_env env, cf_slice bytes)
{
    napi_value buffer = nullptr;
    return napi_create_buffer_copy(env, bytes.len, bytes.len > 0 ? bytes.ptr : "", nullptr, &buffer) == napi_ok ? buffer : nullptr;
}

napi_value error_to_js(Env *env, const cf_error *error, cf_slice receipt, napi_value existing)
{
    const char *sentence = error->text[0] != '\0' ? error->text : cf_status_name(error->status);
    napi_value  type = nullptr, arguments[5] = {nullptr, nullptr, nullptr, undefined(env->napi), existing}, made = nullptr;
    size_t      count = existing != nullptr ? 5 : receipt.len > 0 ? 4 : 3;
    if (napi_get_reference_value(env->napi, env->error_class, &type) != napi_ok || type == nullptr ||
        napi_create_string_utf8(env->napi, sentence, NAPI_AUTO_LENGTH, &arguments[0]) != napi_ok ||
        napi_create_string_utf8(env->napi, cf_status_name(error->status), NAPI_AUTO_LENGTH, &arguments[1]) != napi_ok ||
        napi_create_string_utf8(env->napi, cf_outcome_name(error->outcome), NAPI_AUTO_LENGTH, &arguments[2]) != napi_ok ||
        (receipt.len > 0 && napi_create_string_latin1(env->napi, receipt.ptr, receipt.len, &arguments[3]) != napi_ok) ||
        napi_new_instance(env->napi, type, count, arguments, &made) != napi_ok)
        return nullptr;
    return made;
}

void throw_error(Env *env, const cf_error *error)
{
    napi_value made = error_to_js(env, error);
    if (made != nullptr) (void)!napi_throw(env->napi, made);
}

void throw_status(Env *env, int status, const char *text)
{
    cf_error error;
    cf_error_set(&error, status, CF_NOT_APPLIED, "%s", text);
    throw_error(env, &error);
}

napi_value failure_to_js(Env *env, cf_op *op)
{
    if (cf_op_status(op) == CF_EHOST && cf_op_attached(op) != nullptr) {
        const Thrown *held = static_cast<const Thrown *>(cf_op_attached(op));
        napi_value    array = nullptr, thrown = nullptr;
        if (napi_get_reference_value(env->napi, held->array, &array) != napi_ok || array == nullptr ||
            napi_get_element(env->napi, array, 0, &thrown) != napi_ok)
            return nullptr;
        return thrown;
    }
    if (cf_op_status(op) != CF_EEXISTS) return error_to_js(env, cf_op_error(op), cf_op_receipt(op));
    cf_error failure; // a record that cannot be said is left out
    return error_to_js(env, cf_op_error(op), cf_slice(), next_record_to_js(env, op, 0, &failure));
}

// Of the next page: bytes that only the backend understands, of which Latin-1 keeps every one. Or undefined.
static napi_value cursor_to_js(napi_env env, const cf_op *op)
{
    cf_slice   cursor = cf_op_cursor(op);
    napi_value text = nullptr;
    if (cursor.len == 0) return undefined(env);
    return napi_create_string_latin1(env, cursor.ptr, cursor.len, &text) == napi_ok ? text : nullptr;
}

static napi_value sweep_to_js(napi_env env, const cf_op *op)
{
    cf_slice   text = cf_op_value(op);
    int64_t    broken = 0;
    napi_value sweep = nullptr, of[3] = {nullptr, nullptr, cursor_to_js(env, op)};
    for (size_t i = 0; i < text.len; i++) broken = broken * 10 + (text.ptr[i] - '0');
    if (napi_create_array(env, &sweep) != napi_ok || napi_create_double(env, static_cast<double>(cf_op_number(op)), &of[0]) != napi_ok ||
        napi_create_double(env, static_cast<double>(broken), &of[1]) != napi_ok || of[2] == nullptr)
        return nullptr;
    for (uint32_t i = 0; i < 3; i++) {
        if (napi_set_element(env, sweep, i, of[i]) != napi_ok) return nullptr;
    }
    return sweep;
}

static napi_value page_to_js(napi_env env, cf_op *op, cf_error *failure)
{
    napi_value page = nullptr;
    uint32_t   count = 0;
    cf_slice   key;
    if (napi_create_array(env, &page) != napi_ok) return nullptr;
    while (cf_op_next_key(op, &key)) {
        bool       bad = false;
        napi_value text = text_to_js(env, key, &bad);
        if (bad) cf_error_set(failure, CF_ECORRUPT, CF_NOT_APPLIED, "the backend holds a key that is not UTF-8");
        if (text == nullptr || napi_set_element(env, page, count++, text) != napi_ok) return nullptr;
    }
    napi_value last = cursor_to_js(env, op);
    return last != nullptr && napi_set_element(env, page, count, last) == napi_ok ? page : nullptr;
}

napi_value result_to_js(Env *env, cf_op *op, int form, int64_t now, cf_error *failure)
{
    napi_env   napi = env->napi;
    napi_value value = nullptr;
    bool       bad = false;
    switch (form) {
    case FORM_TEXT:
        if (!cf_op_hit(op)) return undefined(napi);
        value = text_to_js(napi, cf_op_value(op), &bad);
        if (bad)
            cf_error_set(failure, CF_ECORRUPT, cf_op_kind(op) == CF_OP_POP ? CF_APPLIED : CF_NOT_APPLIED, "%s",
                         cf_is_sealed(cf_op_value(op)) ? "the value is sealed, and this store was opened without sealValues and keys"
                                                       : "the value is not UTF-8: read it with getBuffer or popBuffer");
        return value;
    case FORM_BYTES: return cf_op_hit(op) ? bytes_to_js(napi, cf_op_value(op)) : undefined(napi);
    case FORM_HIT: return napi_get_boolean(napi, cf_op_hit(op), &value) == napi_ok ? value : nullptr;
    case FORM_NUMBER: return napi_create_double(napi, static_cast<double>(cf_op_number(op)), &value) == napi_ok ? value : nullptr;
    case FORM_PAGE: return page_to_js(napi, op, failure);
    case FORM_SWEEP: return sweep_to_js(napi, op);
    case FORM_RECORDS: return records_to_js(env, op, now, failure);
    default: return undefined(napi);
    }
}

} // namespace counterfoil
