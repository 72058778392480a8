// A backend written in JavaScript. All its slots lead through one trampoline to one function, dispatch(call, ticket, key, ...), which
// the JavaScript side made for the object. It gives the method's result, throws what the method threw, or gives `later` when that was
// a promise; then settle() brings the result under the operation's ticket. What a result may be is checked here, for both ways.
#include "binding.h"

#include <new>

namespace counterfoil {

// The first argument of dispatch; node/host.cjs has the same list.
enum { CALL_GET, CALL_SET, CALL_DELETE, CALL_POP, CALL_TOUCH, CALL_INCR, CALL_SCAN, CALL_SET_IF, CALL_CLOSE, CALL_HOOK };
static const char *const METHODS[] = {"get", "set", "delete", "pop", "touch", "incr", "scan", "setIf", "close", "a hook"};

struct Host {
    Env             *env;
    napi_ref         dispatch; // weak
    const void      *identity;
    cf_backend_table table;
    bool             binary;
    bool             mute;
};

// Whether dispatch gave what stands for "later": the one object that init() was told of.
static bool is_later(Env *env, napi_value result)
{
    napi_value later = nullptr;
    bool       same = false;
    return napi_get_reference_value(env->napi, env->later, &later) == napi_ok && later != nullptr && napi_strict_equals(env->napi, result, later, &same) == napi_ok && same;
}

static int outcome_of(int call) { return call == CALL_GET || call == CALL_SCAN ? CF_NOT_APPLIED : CF_UNKNOWN; }

// ------------------------------------------------------------------------------------------------------------- results --

static void release_thrown(void *object)
{
    Thrown *thrown = static_cast<Thrown *>(object);
    if (!thrown->env->leaving) (void)!napi_delete_reference(thrown->env->napi, thrown->array);
    delete thrown;
}

static int fail_with(Env *env, cf_op *op, int call, napi_value value)
{
    napi_value array = nullptr;
    Thrown    *thrown = new (std::nothrow) Thrown();
    if (thrown == nullptr) return cf_op_fail(op, CF_ENOMEM, outcome_of(call), "out of memory");
    thrown->env = env;
    if (napi_create_array_with_length(env->napi, 1, &array) != napi_ok || napi_set_element(env->napi, array, 0, value) != napi_ok ||
        napi_create_reference(env->napi, array, 1, &thrown->array) != napi_ok) {
        delete thrown;
        return cf_op_fail(op, CF_ECLOSED, outcome_of(call), "the environment is going away");
    }
    cf_op_attach(op, thrown, release_thrown);
    return cf_op_fail(op, CF_EHOST, outcome_of(call), "%s() of the backend threw", METHODS[call]);
}

// What a call into JavaScript left behind when it did not return.
static int fail_with_pending(Env *env, cf_op *op, int call)
{
    bool       waiting = false;
    napi_value thrown = nullptr;
    if (napi_is_exception_pending(env->napi, &waiting) == napi_ok && waiting && napi_get_and_clear_last_exception(env->napi, &thrown) == napi_ok)
        return fail_with(env, op, call, thrown);
    return cf_op_fail(op, CF_ECLOSED, outcome_of(call), "the environment is going away");
}

static const char *type_name(napi_env napi, napi_value value)
{
    static const char *const NAMES[] = {"undefined", "null", "a boolean", "a number", "a string", "a symbol", "an object", "a function", "an external", "a bigint"};
    napi_valuetype type;
    bool           is_array = false;
    if (napi_typeof(napi, value, &type) != napi_ok || static_cast<size_t>(type) >= sizeof NAMES / sizeof *NAMES) return "something else";
    if (type == napi_object && napi_is_array(napi, value, &is_array) == napi_ok && is_array) return "an array";
    return NAMES[type];
}

static int corrupt(napi_env napi, cf_op *op, int call, napi_value value, const char *wanted)
{
    return cf_op_fail(op, CF_ECORRUPT, outcome_of(call), "%s() of the backend gave %s, not %s", METHODS[call], type_name(napi, value), wanted);
}

static bool is_nothing(napi_env napi, napi_value value)
{
    napi_valuetype type;
    return napi_typeof(napi, value, &type) == napi_ok && (type == napi_undefined || type == napi_null);
}

static int answer_value(napi_env napi, cf_op *op, int call, napi_value result)
{
    ValueHolder value;
    if (is_nothing(napi, result)) {
        cf_op_set_hit(op, false);
        return CF_OK;
    }
    switch (take_bytes(napi, result, value.room, sizeof value.room, &value.heap, cf_op_value_max(op), &value.slice)) {
    case TAKE_OK: break;
    case TAKE_NO_MEMORY: return cf_op_fail(op, CF_ENOMEM, outcome_of(call), "out of memory");
    case TAKE_LONE_SURROGATE: return cf_op_fail(op, CF_ECORRUPT, outcome_of(call), "%s() of the backend gave a string with a lone surrogate", METHODS[call]);
    case TAKE_WRONG_TYPE: return corrupt(napi, op, call, result, "a string, a Buffer, a Uint8Array or undefined");
    }
    if (value.slice.len > cf_op_value_max(op)) return cf_op_fail(op, CF_ECORRUPT, outcome_of(call), "%s() of the backend gave a value of more than 1 MiB", METHODS[call]);
    cf_op_set_hit(op, true);
    if (cf_op_set_value(op, value.slice) == CF_OK) return CF_OK;
    return cf_op_fail(op, CF_ENOMEM, call == CALL_POP ? CF_APPLIED : CF_NOT_APPLIED, "out of memory"); // a popped value is gone
}

// The JavaScript side has copied the page into a fresh object and array, so nothing here runs the backend's own getters.
static int answer_page(Env *env, cf_op *op, napi_value result)
{
    napi_env    napi = env->napi;
    napi_value  keys = result, cursor = nullptr, text = nullptr;
    bool        is_array = false;
    uint32_t    count = 0;
    const char *wanted = "an array of strings, or {keys, cursor}";
    if (napi_is_array(napi, result, &is_array) != napi_ok) return fail_with_pending(env, op, CALL_SCAN);
    if (!is_array) {
        napi_valuetype type;
        if (napi_typeof(napi, result, &type) != napi_ok || type != napi_object) return corrupt(napi, op, CALL_SCAN, result, wanted);
        if (napi_get_named_property(napi, result, "keys", &keys) != napi_ok || napi_get_named_property(napi, result, "cursor", &cursor) != napi_ok ||
            napi_is_array(napi, keys, &is_array) != napi_ok)
            return fail_with_pending(env, op, CALL_SCAN);
        if (!is_array) return corrupt(napi, op, CALL_SCAN, result, wanted);
    }
    if (napi_get_array_length(napi, keys, &count) != napi_ok) return fail_with_pending(env, op, CALL_SCAN);
    for (uint32_t i = 0; i < count; i++) {
        Holder<CF_PREFIX_MAX + CF_KEY_MAX + 16> key;
        if (napi_get_element(napi, keys, i, &text) != napi_ok) return fail_with_pending(env, op, CALL_SCAN);
        Take take = take_string(napi, text, key.room, sizeof key.room, &key.heap, CF_PREFIX_MAX + CF_KEY_MAX, &key.slice);
        if (take == TAKE_WRONG_TYPE) return corrupt(napi, op, CALL_SCAN, text, "a string, among its keys");
        if (take == TAKE_NO_MEMORY) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "out of memory");
        if (take == TAKE_LONE_SURROGATE) continue; // no key that this library could have written
        int status = cf_op_add_key(op, key.slice);
        if (status != CF_OK) return status;
    }
    cf_op_set_hit(op, true);
    if (cursor == nullptr || is_nothing(napi, cursor)) return CF_OK;
    // A cursor may be text or a number, and comes back as what it was: a letter in front remembers which.
    char   tagged[CF_CURSOR_MAX + 8]; // more than a cursor may have: what is cut off would be another cursor
    size_t len = 0;
    double number = 0;
    tagged[0] = 's';
    if (napi_get_value_double(napi, cursor, &number) == napi_ok) {
        tagged[0] = 'n';
        memcpy(tagged + 1, &number, sizeof number);
        len = sizeof number;
    } else if (napi_get_value_string_utf8(napi, cursor, tagged + 1, sizeof tagged - 1, &len) != napi_ok) {
        return corrupt(napi, op, CALL_SCAN, cursor, "a string or a number, as its cursor");
    }
    return cf_op_set_cursor(op, cf_bytes(tagged, len + 1));
}

// What node/hooks.cjs made of a hook's result: hit, number, and records.
static int answer_records(napi_env napi, cf_op *op, napi_value result)
{
    napi_value value = nullptr;
    uint32_t   count = 0;
    bool       hit = false;
    double     number = 0;
    if (napi_get_array_length(napi, result, &count) != napi_ok || napi_get_element(napi, result, 0, &value) != napi_ok ||
        napi_get_value_bool(napi, value, &hit) != napi_ok || napi_get_element(napi, result, 1, &value) != napi_ok ||
        napi_get_value_double(napi, value, &number) != napi_ok)
        return cf_op_fail(op, CF_ECLOSED, CF_UNKNOWN, "the environment is going away");
    cf_op_set_hit(op, hit);
    cf_op_set_number(op, static_cast<int64_t>(number));
    for (uint32_t i = 2; i < count; i++) {
        RecordHolder holder;
        int          at = 0;
        if (napi_get_element(napi, result, i, &value) != napi_ok) return cf_op_fail(op, CF_ECLOSED, CF_UNKNOWN, "the environment is going away");
        Take take = take_record(napi, value, &holder, &at);
        if (take == TAKE_NO_MEMORY) return cf_op_fail(op, CF_ENOMEM, CF_UNKNOWN, "out of memory");
        if (take != TAKE_OK)
            return cf_op_fail(op, CF_ECORRUPT, CF_UNKNOWN, "%s of a %s that a hook gave is no text", cf_field_name(holder.record.kind, at), cf_kind_name(holder.record.kind));
        int status = cf_op_add_record(op, &holder.record);
        if (status != CF_OK) { // what the hook has done is done
            char text[sizeof cf_error().text];
            memcpy(text, cf_op_error(op)->text, sizeof text);
            return cf_op_fail(op, status, CF_UNKNOWN, "%s", text);
        }
    }
    return CF_OK;
}

static int answer(Env *env, cf_op *op, int call, napi_value result)
{
    napi_env napi = env->napi;
    bool     hit = false;
    double   number = 0;
    switch (call) {
    case CALL_GET:
    case CALL_POP: return answer_value(napi, op, call, result);
    case CALL_SET: // whatever it gives: Map.set gives the map, an arrow function whatever it ends with
        cf_op_set_hit(op, true);
        return CF_OK;
    case CALL_DELETE:
    case CALL_TOUCH:
    case CALL_SET_IF:
        if (call == CALL_DELETE && is_nothing(napi, result)) hit = true;
        else if (napi_get_value_bool(napi, result, &hit) != napi_ok) return corrupt(napi, op, call, result, "true or false");
        cf_op_set_hit(op, hit);
        return CF_OK;
    case CALL_INCR:
        if (napi_get_value_double(napi, result, &number) != napi_ok) return corrupt(napi, op, call, result, "a number");
        if (!(number >= -static_cast<double>(CF_NUMBER_MAX) && number <= static_cast<double>(CF_NUMBER_MAX)) || number != static_cast<double>(static_cast<int64_t>(number)))
            return cf_op_fail(op, CF_ECORRUPT, outcome_of(call), "incr() of the backend gave a number that is no safe integer");
        cf_op_set_hit(op, true);
        cf_op_set_number(op, static_cast<int64_t>(number));
        return CF_OK;
    case CALL_HOOK: return answer_records(napi, op, result);
    default: return answer_page(env, op, result);
    }
}

void host_settle(Loop *loop, uint64_t ticket, int call, bool fulfilled, napi_value value)
{
    cf_op *op = cf_loop_op(loop->loop, ticket);
    if (op == nullptr) return; // its deadline passed, or it was closed: nobody waits any more
    loop_enter(loop);
    cf_op_finish(op, fulfilled ? answer(loop->env, op, call, value) : fail_with(loop->env, op, call, value));
    loop->unsent++; // a composed operation goes on with its next part
    loop_leave(loop);
}

// ---------------------------------------------------------------------------------------------------------- trampoline --

static Host *host_of(cf_backend *self) { return reinterpret_cast<Host *>(self); }
const cf_backend_table *host_table(const Host *host) { return &host->table; }
cf_backend *host_backend(Host *host) { return reinterpret_cast<cf_backend *>(host); }
void host_mute(Host *host) { host->mute = true; }

static const size_t ARGUMENTS = 8;

// The arguments after the key, in the order of the method's own. False: see `status`, or going away when that is CF_OK.
static bool arguments(Host *host, cf_op *op, int call, napi_value at[ARGUMENTS], size_t *count, int *status)
{
    const cf_request *in = cf_op_in(op);
    napi_env          napi = host->env->napi;
    bool              bad = false;
    size_t            n = 0;
    auto add = [&](napi_value value) { at[n++] = value; return value != nullptr; };
    auto number = [&](double value) { napi_value made = nullptr; return add(napi_create_double(napi, value, &made) == napi_ok ? made : nullptr); };
    auto text = [&](cf_slice bytes) { return add(text_to_js(napi, bytes, &bad)); };
    auto ttl = [&](int64_t ms) { return ms > 0 ? number(static_cast<double>(ms) / 1000.0) : add(undefined(napi)); };
    auto value = [&](cf_slice bytes) { return host->binary ? add(bytes_to_js(napi, bytes)) : text(bytes); };
    // null stands for Backend.KEEP, which JavaScript puts there; what a new value gets comes last then.
    auto life = [&]() {
        if (!(in->flags & CF_KEEP_TTL)) return ttl(in->ttl_ms);
        napi_value null = nullptr;
        return add(napi_get_null(napi, &null) == napi_ok ? null : nullptr);
    };
    *status = CF_OK;
    auto record = [&](const cf_record *of) { return add(cf_kind_name(of->kind) != nullptr ? record_to_js(napi, of, &bad) : undefined(napi)); };
    // A ticket has 64 bits: as a number it would lose its last ones, and a promise would settle somebody else's operation, or none.
    napi_value ticket = nullptr;
    bool       made = number(call) && add(napi_create_bigint_uint64(napi, cf_op_ticket(op), &ticket) == napi_ok ? ticket : nullptr);
    cf_hook    hook;
    if (call != CALL_HOOK) made = made && text(in->key);
    switch (call) {
    case CALL_SET: made = made && value(in->value) && life() && ttl(in->ttl_ms); break;
    case CALL_SET_IF:
        made = made && value(in->value) && life() && number(in->flags & CF_IF_ABSENT ? 0 : in->flags & CF_IF_PRESENT ? 1 : 2) &&
               (in->flags & CF_IF_EQUAL ? value(in->expected) : add(undefined(napi))) && ttl(in->ttl_ms);
        break;
    case CALL_TOUCH: made = made && ttl(in->ttl_ms); break;
    case CALL_HOOK: made = made && cf_hook_read(in->value, &hook) && number(hook.method) && record(&hook.record) && record(&hook.user); break;
    case CALL_INCR: made = made && number(static_cast<double>(in->by)) && ttl(in->ttl_ms); break;
    case CALL_SCAN:
        if (made && in->cursor.len == 1 + sizeof(double) && in->cursor.ptr[0] == 'n') {
            double given;
            memcpy(&given, in->cursor.ptr + 1, sizeof given);
            made = number(given);
        } else {
            made = made && (in->cursor.len > 0 ? text(cf_bytes(in->cursor.ptr + 1, in->cursor.len - 1)) : add(undefined(napi)));
        }
        made = made && number(static_cast<double>(in->limit));
        break;
    default: break;
    }
    if (bad) *status = cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the value is not UTF-8, and this backend takes text only: with binary = true it gets Buffers, which sealed values are");
    *count = n;
    return made;
}

static int trampoline(cf_backend *self, cf_op *op, int call)
{
    Host             *host = host_of(self);
    Env              *env = host->env;
    napi_env          napi = env->napi;
    napi_handle_scope handles = nullptr;
    napi_value        at[ARGUMENTS], dispatch = nullptr, nobody = nullptr, result = nullptr;
    napi_valuetype    type;
    size_t            count = 0;
    int               status = CF_OK;
    if (env->leaving || host->mute || napi_open_handle_scope(napi, &handles) != napi_ok)
        return cf_op_fail(op, CF_ECLOSED, CF_NOT_APPLIED, "the environment is going away");
    if (!arguments(host, op, call, at, &count, &status)) {
        if (status == CF_OK) status = fail_with_pending(env, op, call);
    } else if (napi_get_reference_value(napi, host->dispatch, &dispatch) != napi_ok || dispatch == nullptr || (nobody = undefined(napi)) == nullptr) {
        status = cf_op_fail(op, CF_ECLOSED, CF_NOT_APPLIED, "the environment is going away");
    } else if (napi_call_function(napi, nobody, dispatch, count, at, &result) != napi_ok || napi_typeof(napi, result, &type) != napi_ok) {
        status = fail_with_pending(env, op, call);
    } else if (type == napi_object && is_later(env, result)) {
        // The keys of a page are compared with the prefix when they come.
        status = call == CALL_SCAN && cf_op_keep(op) != CF_OK ? cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "out of memory") : CF_PENDING;
    } else {
        status = answer(env, op, call, result);
    }
    (void)!napi_close_handle_scope(napi, handles);
    return status;
}

template <int CALL> static int slot(cf_backend *self, cf_op *op) { return trampoline(self, op, CALL); }

static int slot_set(cf_backend *self, cf_op *op)
{
    bool conditional = (cf_op_in(op)->flags & (CF_IF_ABSENT | CF_IF_PRESENT | CF_IF_EQUAL)) != 0;
    return trampoline(self, op, conditional ? CALL_SET_IF : CALL_SET);
}

// Hooks are no store of keys.
static int slot_none(cf_backend *, cf_op *op)
{
    return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the methods of an AccountsStorage keep nothing else");
}

// The JavaScript side counts the stores over the object, calls its close() after the last, and keeps what became of that for the
// promise of Store.close(): an error of the host cannot be said here.
static int slot_close(cf_backend *self, cf_error *)
{
    Host             *host = host_of(self);
    Env              *env = host->env;
    napi_handle_scope handles = nullptr;
    if (!env->leaving && !host->mute && napi_open_handle_scope(env->napi, &handles) == napi_ok) {
        napi_value dispatch = nullptr, nobody = undefined(env->napi), call = nullptr, result = nullptr;
        bool       waiting = false;
        if (nobody != nullptr && napi_get_reference_value(env->napi, host->dispatch, &dispatch) == napi_ok && dispatch != nullptr &&
            napi_create_int32(env->napi, CALL_CLOSE, &call) == napi_ok && napi_call_function(env->napi, nobody, dispatch, 1, &call, &result) != napi_ok &&
            napi_is_exception_pending(env->napi, &waiting) == napi_ok && waiting)
            (void)!napi_get_and_clear_last_exception(env->napi, &result);
        (void)!napi_close_handle_scope(env->napi, handles);
    }
    (void)!napi_delete_reference(env->napi, host->dispatch);
    delete host;
    return CF_OK;
}

static const void *slot_identity(cf_backend *self) { return host_of(self)->identity; }

Host *host_new(Env *env, napi_value dispatch, uint32_t shape, const void *identity)
{
    Host *host = new (std::nothrow) Host();
    if (host == nullptr) return nullptr;
    if (napi_create_reference(env->napi, dispatch, 0, &host->dispatch) != napi_ok) {
        delete host;
        return nullptr;
    }
    host->env = env;
    host->identity = identity;
    host->binary = (shape & SHAPE_BINARY) != 0;
    cf_backend_table *table = &host->table;
    table->size = sizeof *table;
    table->name = "javascript";
    if (shape & SHAPE_SET_IF) table->flags |= CF_BACKEND_CONDITIONS;
    if (shape & SHAPE_KEEPS_TTL) table->flags |= CF_BACKEND_KEEP_TTL;
    if (shape & SHAPE_SINGLE_PROCESS) table->flags |= CF_BACKEND_DERIVE;
    table->close = slot_close;
    table->identity = slot_identity;
    if (shape & SHAPE_HOOKS) {
        table->name = "hooks";
        table->get = table->set = table->del = slot_none;
        table->hook = slot<CALL_HOOK>;
        return host;
    }
    table->get = slot<CALL_GET>;
    table->set = slot_set;
    table->del = slot<CALL_DELETE>;
    if (shape & SHAPE_POP) table->pop = slot<CALL_POP>;
    if (shape & SHAPE_TOUCH) table->touch = slot<CALL_TOUCH>;
    if (shape & SHAPE_INCR) table->incr = slot<CALL_INCR>;
    if (shape & SHAPE_SCAN) table->scan = slot<CALL_SCAN>;
    return host;
}

} // namespace counterfoil
