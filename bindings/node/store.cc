// The handle: the native half of a Store. One call per operation; a value when it is done, null when it is pending: then JavaScript makes a
// promise, keeps the functions that settle it in the slot that *env->slot says, and is called once for all that a wake-up has brought.
#include "binding.h"

#include <new>

namespace counterfoil {

// ----------------------------------------------------------------------------------------------------------- in flight --

void store_forget(Store *store)
{
    for (Store **at = &store->loop->stores; *at != nullptr; at = &(*at)->next) {
        if (*at != store) continue;
        *at = store->next;
        break;
    }
    store->loop = nullptr;
    store->store = nullptr;
    store->host = nullptr;
}

// A store that somebody waits for is not garbage, also when the program has let go of it.
static void store_began(Env *env, Store *store)
{
    if (store->in_flight++ == 0) (void)!napi_reference_ref(env->napi, store->handle, nullptr);
}

static void store_ended(Env *env, Store *store)
{
    if (--store->in_flight == 0 && !env->leaving) (void)!napi_reference_unref(env->napi, store->handle, nullptr);
}

static napi_value outcome(Env *env, cf_op *op, const Pending *pending, bool *fine)
{
    cf_error   failure;
    napi_value value = nullptr;
    bool       good = cf_op_status(op) == CF_OK, waiting = false;
    failure.status = CF_OK;
    if (good) {
        value = result_to_js(env, op, pending->form, pending->now, &failure);
        if (value == nullptr && failure.status != CF_OK) {
            good = false;
            value = error_to_js(env, &failure);
        }
    } else {
        value = failure_to_js(env, op);
    }
    if (value == nullptr) { // no stack or no memory left in the engine: then that is the answer. Or going away
        good = false;
        if (napi_is_exception_pending(env->napi, &waiting) != napi_ok || !waiting || napi_get_and_clear_last_exception(env->napi, &value) != napi_ok)
            value = undefined(env->napi);
    }
    *fine = good;
    return value;
}

static void on_done(cf_op *op, void *user)
{
    Pending          *pending = static_cast<Pending *>(user);
    Loop             *loop = pending->loop;
    Store            *store = pending->store;
    Env              *env = loop->env;
    pending->result = env->leaving ? nullptr : outcome(env, op, pending, &pending->good);
    cf_op_free(op);
    if (pending->result != nullptr) pending_done(loop, pending);
    else pending_give(pending); // going away
    store_ended(env, store);
    loop_ended(loop);
}

static napi_value submitted(Env *env, Store *store, Pending *pending, cf_op *op, int status)
{
    Loop      *loop = pending->loop;
    napi_value result = nullptr;
    cf_error   failure;
    failure.status = CF_OK;
    if (status == CF_PENDING) {
        if (loop_began(loop)) {
            store_began(env, store);
            if (napi_get_null(env->napi, &result) == napi_ok) {
                int32_t slot = pending->slot;
                loop->unsent++;
                loop_leave(loop);
                *env->slot = slot; // last: what is called from inside that (async_hooks) may submit as well
                return result;
            }
            store_ended(env, store);
            loop_ended(loop);
        }
        cf_op_free(op);
        pending_give(pending);
        cf_error_set(&failure, CF_EUNAVAILABLE, CF_UNKNOWN, "the event loop cannot watch for the answer");
        throw_error(env, &failure);
        loop_leave(loop);
        return nullptr;
    }
    if (status == CF_OK) {
        result = result_to_js(env, op, pending->form, pending->now, &failure);
        if (failure.status != CF_OK) throw_error(env, &failure);
    } else if (op == nullptr) {
        throw_status(env, status, status == CF_ENOMEM ? "out of memory" : cf_status_name(status));
    } else {
        napi_value thrown = failure_to_js(env, op);
        if (thrown != nullptr) (void)!napi_throw(env->napi, thrown);
    }
    cf_op_free(op);
    pending_give(pending);
    loop_leave(loop);
    return result;
}

static Pending *begin(Env *env, Store *store, int form)
{
    Pending *pending = pending_take(store->loop);
    if (pending == nullptr) {
        throw_status(env, CF_ENOMEM, "out of memory");
        return nullptr;
    }
    pending->store = store;
    pending->form = form;
    pending->now = 0;
    pending->result = nullptr;
    loop_enter(store->loop);
    return pending;
}

static napi_value submit(Env *env, Store *store, cf_request *request, int form)
{
    cf_op   *op = nullptr;
    Pending *pending = begin(env, store, form);
    if (pending == nullptr) return nullptr;
    request->size = sizeof *request;
    request->done = on_done;
    request->user = pending;
    int status = cf_submit(store->store, request, &op);
    return submitted(env, store, pending, op, status);
}

// ------------------------------------------------------------------------------------------------------------- methods --

// The arguments of one call; those that were not given are undefined.
template <size_t N> struct Call {
    Env       *env = nullptr;
    Store     *store = nullptr;
    size_t     count = N;
    napi_value at[N];

    // False: an error is thrown, or the environment is going away.
    bool open(napi_env napi, napi_callback_info info)
    {
        napi_value self = nullptr;
        void      *data = nullptr, *wrapped = nullptr;
        if (napi_get_cb_info(napi, info, &count, at, &self, &data) != napi_ok || napi_unwrap(napi, self, &wrapped) != napi_ok) return false;
        env = static_cast<Env *>(data);
        store = static_cast<Store *>(wrapped);
        if (store->store != nullptr) return true;
        throw_status(env, CF_ECLOSED, "the store is closed");
        return false;
    }
};

static cf_request request_of(int kind)
{
    cf_request request;
    memset(&request, 0, sizeof request);
    request.kind = kind;
    return request;
}

// A number of seconds, through the core's own check. False: thrown.
static bool take_seconds(Env *env, napi_value value, const char *what, int (*convert)(double, int64_t *, cf_error *), int64_t *ms)
{
    double   seconds = 0;
    cf_error error;
    if (napi_get_value_double(env->napi, value, &seconds) != napi_ok) {
        cf_error_set(&error, CF_EINVAL, CF_NOT_APPLIED, "%s must be a number of seconds", what);
        throw_error(env, &error);
        return false;
    }
    if (convert(seconds, ms, &error) == CF_OK) return true;
    throw_error(env, &error);
    return false;
}

typedef Holder<CF_RECEIPT_LEN + 8> ReceiptHolder;

// The receipt of a call that was lost, where one is given. False: thrown. What it must look like is the core's to say.
template <size_t N> static bool take_receipt(const Call<N> &call, size_t at, ReceiptHolder *holder, cf_request *request)
{
    if (is_undefined(call.env->napi, call.at[at])) return true;
    switch (take_string(call.env->napi, call.at[at], holder->room, sizeof holder->room, &holder->heap, CF_RECEIPT_LEN, &holder->slice)) {
    case TAKE_OK:
        request->receipt = holder->slice;
        if (holder->slice.len > 0) return true; // to the core, empty is not given
        throw_status(call.env, CF_EINVAL, "the receipt is none that a failed call gave");
        return false;
    case TAKE_NO_MEMORY: throw_status(call.env, CF_ENOMEM, "out of memory"); return false;
    default: throw_status(call.env, CF_EINVAL, "receipt must be a string, that of an error"); return false;
    }
}

// get, getBuffer, delete (key)
template <int KIND, int FORM> static napi_value by_key(napi_env napi, napi_callback_info info)
{
    Call<1>   call;
    KeyHolder key;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key)) return nullptr;
    cf_request request = request_of(KIND);
    request.key = key.slice;
    return submit(call.env, call.store, &request, FORM);
}

// pop, popBuffer (key, receipt)
template <int FORM> static napi_value method_pop(napi_env napi, napi_callback_info info)
{
    Call<2>       call;
    KeyHolder     key;
    ReceiptHolder receipt;
    cf_request    request = request_of(CF_OP_POP);
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key)) return nullptr;
    if (call.count > 1 && !take_receipt(call, 1, &receipt, &request)) return nullptr;
    request.key = key.slice;
    return submit(call.env, call.store, &request, FORM);
}

// set(key, value, flags, ttl, expiresAt, expected, receipt)
static napi_value method_set(napi_env napi, napi_callback_info info)
{
    Call<7>       call;
    ReceiptHolder receipt;
    KeyHolder   key;
    ValueHolder value, expected;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key) || !take_value(call.env, call.at[1], "the value", &value)) return nullptr;
    cf_request request = request_of(CF_OP_SET);
    request.key = key.slice;
    request.value = value.slice;
    if (call.count > 2) {
        uint32_t flags = 0;
        if (napi_get_value_uint32(napi, call.at[2], &flags) != napi_ok) return nullptr;
        request.flags = flags;
        if ((flags & CF_TTL) && !take_seconds(call.env, call.at[3], "ttl", cf_ttl_from_seconds, &request.ttl_ms)) return nullptr;
        if ((flags & CF_EXPIRES_AT) && !take_seconds(call.env, call.at[4], "expiresAt", cf_instant_from_seconds, &request.expires_at_ms)) return nullptr;
        if (flags & CF_IF_EQUAL) {
            if (!take_value(call.env, call.at[5], "ifEqual", &expected)) return nullptr;
            request.expected = expected.slice;
        }
        if (!take_receipt(call, 6, &receipt, &request)) return nullptr;
    }
    return submit(call.env, call.store, &request, FORM_HIT);
}

// touch(key, ttl)
static napi_value method_touch(napi_env napi, napi_callback_info info)
{
    Call<2>   call;
    KeyHolder key;
    cf_request request = request_of(CF_OP_TOUCH);
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key) ||
        !take_seconds(call.env, call.at[1], "ttl", cf_ttl_from_seconds, &request.ttl_ms))
        return nullptr;
    request.key = key.slice;
    request.flags = CF_TTL;
    return submit(call.env, call.store, &request, FORM_HIT);
}

// incr(key, by, ttl, receipt)
static napi_value method_incr(napi_env napi, napi_callback_info info)
{
    Call<4>       call;
    KeyHolder     key;
    ReceiptHolder receipt;
    double        by = 0;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key)) return nullptr;
    if (napi_get_value_double(napi, call.at[1], &by) != napi_ok || !(by >= -static_cast<double>(CF_NUMBER_MAX) && by <= static_cast<double>(CF_NUMBER_MAX)) ||
        by != static_cast<double>(static_cast<int64_t>(by))) {
        throw_status(call.env, CF_EINVAL, "by must be a safe integer");
        return nullptr;
    }
    cf_request request = request_of(CF_OP_INCR);
    request.key = key.slice;
    request.by = static_cast<int64_t>(by);
    if (!is_undefined(napi, call.at[2])) {
        if (!take_seconds(call.env, call.at[2], "ttl", cf_ttl_from_seconds, &request.ttl_ms)) return nullptr;
        request.flags = CF_TTL;
    }
    if (!take_receipt(call, 3, &receipt, &request)) return nullptr;
    return submit(call.env, call.store, &request, FORM_NUMBER);
}

static napi_value submit_page(Env *env, Store *store, cf_request request, napi_value at, int form)
{
    char   cursor[CF_CURSOR_MAX + 2];
    size_t len = 0;
    if (!is_undefined(env->napi, at)) {
        if (napi_get_value_string_latin1(env->napi, at, cursor, sizeof cursor, &len) != napi_ok) return nullptr;
        request.cursor = cf_bytes(cursor, len);
    }
    return submit(env, store, &request, form);
}

// scan(prefix, cursor), reseal(prefix, cursor): one page
template <int KIND, int FORM> static napi_value method_page(napi_env napi, napi_callback_info info)
{
    Call<2>   call;
    KeyHolder prefix;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the prefix", &prefix)) return nullptr;
    cf_request request = request_of(KIND);
    request.key = prefix.slice;
    return submit_page(call.env, call.store, request, call.at[1], FORM);
}

// resealTokens(cursor): one page
static napi_value method_reseal_tokens(napi_env napi, napi_callback_info info)
{
    Call<1> call;
    if (!call.open(napi, info)) return nullptr;
    cf_request request = request_of(CF_OP_RESEAL);
    request.flags = CF_TOKENS;
    return submit_page(call.env, call.store, request, call.at[0], FORM_SWEEP);
}

// count(prefix)
static napi_value method_count(napi_env napi, napi_callback_info info)
{
    Call<1>   call;
    KeyHolder prefix;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the prefix", &prefix)) return nullptr;
    cf_request request = request_of(CF_OP_COUNT);
    request.key = prefix.slice;
    return submit(call.env, call.store, &request, FORM_NUMBER);
}

// clear(prefix, force)
static napi_value method_clear(napi_env napi, napi_callback_info info)
{
    Call<2>   call;
    KeyHolder prefix;
    bool      force = false;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the prefix", &prefix) || napi_get_value_bool(napi, call.at[1], &force) != napi_ok) return nullptr;
    cf_request request = request_of(CF_OP_CLEAR);
    request.key = prefix.slice;
    request.flags = force ? static_cast<unsigned>(CF_FORCE) : 0u;
    return submit(call.env, call.store, &request, FORM_NUMBER);
}

// ---------------------------------------------------------------------------------------------------------- interfaces --

template <size_t N, typename Start> static napi_value through(const Call<N> &call, int form, Start start, int64_t timeout_ms = 0, int64_t now = 0)
{
    cf_op   *op = nullptr;
    cf_call  how;
    Pending *pending = begin(call.env, call.store, form);
    if (pending == nullptr) return nullptr;
    pending->now = now;
    how.timeout_ms = timeout_ms;
    how.done = on_done;
    how.user = pending;
    int status = start(&how, &op);
    return submitted(call.env, call.store, pending, op, status);
}

// storageGet(id)
static napi_value method_storage_get(napi_env napi, napi_callback_info info)
{
    Call<1>   call;
    KeyHolder id;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the id", &id)) return nullptr;
    cf_storage storage = {call.store->store};
    return through(call, FORM_TEXT, [&](const cf_call *how, cf_op **op) { return cf_storage_get(&storage, id.slice, how, op); });
}

// storageSet(id, state): undefined deletes
static napi_value method_storage_set(napi_env napi, napi_callback_info info)
{
    Call<2>     call;
    KeyHolder   id;
    ValueHolder state;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the id", &id)) return nullptr;
    if (!is_undefined(napi, call.at[1]) && !take_value(call.env, call.at[1], "the state", &state)) return nullptr;
    cf_storage storage = {call.store->store};
    return through(call, FORM_NOTHING, [&](const cf_call *how, cf_op **op) { return cf_storage_set(&storage, id.slice, state.slice, how, op); });
}

typedef int (*secondary_fn)(const cf_secondary *, cf_slice, const cf_call *, cf_op **);

// secondaryGet, secondaryDelete, secondaryPop (key)
template <secondary_fn FUNCTION, int FORM> static napi_value secondary_by_key(napi_env napi, napi_callback_info info)
{
    Call<1>   call;
    KeyHolder key;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key)) return nullptr;
    cf_secondary secondary = {call.store->store, 0};
    return through(call, FORM, [&](const cf_call *how, cf_op **op) { return FUNCTION(&secondary, key.slice, how, op); });
}

// secondarySet(key, value, ttl, standard): ttl undefined is the standard one, in milliseconds
static napi_value method_secondary_set(napi_env napi, napi_callback_info info)
{
    Call<4>     call;
    KeyHolder   key;
    ValueHolder value;
    double      ttl = 0;
    int64_t     standard = 0;
    if (!call.open(napi, info) || !take_key(call.env, call.at[0], "the key", &key) || !take_value(call.env, call.at[1], "the value", &value) ||
        napi_get_value_int64(napi, call.at[3], &standard) != napi_ok)
        return nullptr;
    bool given = !is_undefined(napi, call.at[2]);
    if (given && napi_get_value_double(napi, call.at[2], &ttl) != napi_ok) {
        throw_status(call.env, CF_EINVAL, "ttl must be a number of seconds");
        return nullptr;
    }
    cf_secondary secondary = {call.store->store, standard};
    return through(call, FORM_NOTHING, [&](const cf_call *how, cf_op **op) {
        return cf_secondary_set(&secondary, key.slice, value.slice, given ? &ttl : nullptr, how, op);
    });
}

// A record of node/records.cjs, which has looked at its types. False: thrown, or going away.
static bool take_given(Env *env, napi_value value, RecordHolder *holder)
{
    int      at = 0;
    cf_error error;
    switch (take_record(env->napi, value, holder, &at)) {
    case TAKE_OK: return true;
    case TAKE_NO_MEMORY: throw_status(env, CF_ENOMEM, "out of memory"); return false;
    case TAKE_LONE_SURROGATE:
        cf_error_set(&error, CF_EINVAL, CF_NOT_APPLIED, "%s of a %s has a lone surrogate, which is not text", cf_field_name(holder->record.kind, at),
                     cf_kind_name(holder->record.kind));
        throw_error(env, &error);
        return false;
    default: throw_status(env, CF_EINVAL, "a field of a record has a wrong type"); return false;
    }
}

static bool take_timeout(Env *env, napi_value value, int64_t *ms)
{
    return is_undefined(env->napi, value) || take_seconds(env, value, "timeout", cf_timeout_from_seconds, ms);
}

// accounts(method, record, user, most, timeout): user and timeout may be undefined
static napi_value method_accounts(napi_env napi, napi_callback_info info)
{
    Call<5>      call;
    RecordHolder record, user;
    int32_t      method = -1;
    uint32_t     most = 0;
    int64_t      timeout = 0;
    if (!call.open(napi, info) || napi_get_value_int32(napi, call.at[0], &method) != napi_ok || !take_given(call.env, call.at[1], &record) ||
        napi_get_value_uint32(napi, call.at[3], &most) != napi_ok || !take_timeout(call.env, call.at[4], &timeout))
        return nullptr;
    bool both = !is_undefined(napi, call.at[2]);
    if (both && !take_given(call.env, call.at[2], &user)) return nullptr;
    cf_accounts accounts = {call.store->store, most};
    return through(call, FORM_RECORDS, [&](const cf_call *how, cf_op **op) {
        return cf_accounts_call(&accounts, method, &record.record, both ? &user.record : nullptr, how, op);
    }, timeout);
}

// sessions(method, record, timeout, most, refuse, retention, now, epoch, status, order, limit, except, cursor): retention is in milliseconds, and
// timeout, except and cursor may be undefined
static napi_value method_sessions(napi_env napi, napi_callback_info info)
{
    Call<13>        call;
    RecordHolder    record;
    KeyHolder       except, cursor;
    int32_t         method = -1;
    uint32_t        most = 0, limit = 0;
    int64_t         timeout = 0;
    cf_sessions     sessions;
    cf_session_args args;
    memset(&sessions, 0, sizeof sessions);
    memset(&args, 0, sizeof args);
    args.size = sizeof args;
    if (!call.open(napi, info) || napi_get_value_int32(napi, call.at[0], &method) != napi_ok || !take_given(call.env, call.at[1], &record) ||
        !take_timeout(call.env, call.at[2], &timeout) || napi_get_value_uint32(napi, call.at[3], &most) != napi_ok ||
        napi_get_value_bool(napi, call.at[4], &sessions.refuse) != napi_ok || napi_get_value_int64(napi, call.at[5], &sessions.retention_ms) != napi_ok ||
        napi_get_value_int64(napi, call.at[6], &args.now) != napi_ok || napi_get_value_int64(napi, call.at[7], &args.epoch) != napi_ok ||
        napi_get_value_int32(napi, call.at[8], &args.status) != napi_ok || napi_get_value_int32(napi, call.at[9], &args.order) != napi_ok ||
        napi_get_value_uint32(napi, call.at[10], &limit) != napi_ok)
        return nullptr;
    if (!is_undefined(napi, call.at[11]) && !take_key(call.env, call.at[11], "exceptSessionId", &except)) return nullptr;
    if (!is_undefined(napi, call.at[12]) && !take_key(call.env, call.at[12], "cursor", &cursor)) return nullptr;
    sessions.store = call.store->store;
    sessions.most = most;
    args.limit = limit;
    args.except = except.slice;
    args.cursor = cursor.slice;
    return through(call, FORM_RECORDS, [&](const cf_call *how, cf_op **op) {
        return cf_sessions_call(&sessions, method, &record.record, &args, how, op);
    }, timeout, args.now);
}

// ---------------------------------------------------------------------------------------------------------------- life --

struct Figures {
    napi_env   napi;
    napi_value object;
};

static void add_figure(void *user, const char *name, int64_t number)
{
    const Figures *figures = static_cast<const Figures *>(user);
    napi_value     value = nullptr;
    if (napi_create_double(figures->napi, static_cast<double>(number), &value) == napi_ok)
        (void)!napi_set_named_property(figures->napi, figures->object, name, value);
}

// stats()
static napi_value method_stats(napi_env napi, napi_callback_info info)
{
    Call<1> call;
    Figures figures = {napi, nullptr};
    if (!call.open(napi, info) || napi_create_object(napi, &figures.object) != napi_ok) return nullptr;
    int status = cf_store_stats(call.store->store, add_figure, &figures);
    if (status == CF_OK) return figures.object;
    throw_status(call.env, status, "the figures cannot be read");
    return nullptr;
}

static int close_store(Store *store, cf_error *error)
{
    Loop     *loop = store->loop;
    cf_store *inner = store->store;
    loop_enter(loop);
    store_forget(store); // first: what runs from inside the close finds it closed
    int status = cf_store_close(inner, error);
    loop_deliver(loop);
    loop_leave(loop);
    return status;
}

// close(): a second one throws CLOSED, which the JavaScript half does not let happen
static napi_value method_close(napi_env napi, napi_callback_info info)
{
    Call<1>  call;
    cf_error error;
    if (!call.open(napi, info)) return nullptr;
    if (close_store(call.store, &error) != CF_OK) throw_error(call.env, &error);
    return nullptr;
}

// settle(ticket, call, fulfilled, value): from the reactions to a backend's promise, however late
static napi_value method_settle(napi_env napi, napi_callback_info info)
{
    size_t     count = 4;
    napi_value at[4], self = nullptr;
    void      *data = nullptr, *watched = nullptr;
    uint64_t   ticket = 0;
    int32_t    call = 0;
    bool       fulfilled = false, lossless = false;
    if (napi_get_cb_info(napi, info, &count, at, &self, &data) != napi_ok || napi_unwrap(napi, self, &watched) != napi_ok ||
        napi_get_value_bigint_uint64(napi, at[0], &ticket, &lossless) != napi_ok || napi_get_value_int32(napi, at[1], &call) != napi_ok ||
        napi_get_value_bool(napi, at[2], &fulfilled) != napi_ok)
        return nullptr;
    Store *store = static_cast<Store *>(watched);
    if (store->loop != nullptr && !store->env->leaving) host_settle(store->loop, ticket, call, fulfilled, at[3]);
    return nullptr;
}

static void finalize(napi_env napi, void *data, void *)
{
    Store *store = static_cast<Store *>(data);
    if (store->store != nullptr) {
        cf_error error;
        if (store->host != nullptr) host_mute(store->host);
        close_store(store, &error);
    }
    (void)!napi_delete_reference(napi, store->handle);
    delete store;
}

// Something happened to the connection: listener(event, text or error), which the handle holds and which only puts it down for the end of
// the tick. So no listener of the program runs inside the loop, and what one throws is thrown where node expects it.
static void on_event(void *user, int event, const cf_error *what)
{
    Store            *store = static_cast<Store *>(user);
    Env              *env = store->env;
    napi_env          napi = env->napi;
    napi_handle_scope handles = nullptr;
    napi_value        handle = nullptr, listener = nullptr, self = nullptr, at[2] = {nullptr, nullptr}, result = nullptr;
    bool              bad = event == CF_EVENT_DISCONNECT || event == CF_EVENT_ERROR, waiting = false;
    if (env->leaving || napi_open_handle_scope(napi, &handles) != napi_ok) return;
    if (napi_get_reference_value(napi, store->handle, &handle) == napi_ok && handle != nullptr && (self = undefined(napi)) != nullptr &&
        napi_get_named_property(napi, handle, "listener", &listener) == napi_ok && napi_create_int32(napi, event, &at[0]) == napi_ok &&
        (bad ? (at[1] = error_to_js(env, what)) != nullptr : napi_create_string_utf8(napi, what->text, NAPI_AUTO_LENGTH, &at[1]) == napi_ok))
        (void)!napi_call_function(napi, self, listener, 2, at, &result);
    // No stack or no memory left in the engine: then this news is lost.
    if (napi_is_exception_pending(napi, &waiting) == napi_ok && waiting) (void)!napi_get_and_clear_last_exception(napi, &result);
    (void)!napi_close_handle_scope(napi, handles);
}

// A ring of keys, which does not stay on the stack.
struct Keys {
    cf_key ring[64];
    size_t count = 0;

    bool take(cf_slice records)
    {
        const size_t record = 4 + sizeof ring[0].bytes;
        for (; records.len >= record; records = cf_bytes(records.ptr + record, records.len - record)) {
            if (count == sizeof ring / sizeof *ring) return false;
            const unsigned char *at = reinterpret_cast<const unsigned char *>(records.ptr);
            cf_key              &key = ring[count++];
            key.id = static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 | at[3];
            memcpy(key.bytes, at + 4, sizeof key.bytes);
        }
        return true;
    }

    ~Keys()
    {
        volatile unsigned char *at = reinterpret_cast<volatile unsigned char *>(ring);
        for (size_t i = 0; i < sizeof ring; i++) at[i] = 0;
    }
};


// new Handle(url, undefined, undefined, prefix, ttl, timeout, stage, listener, ring, flags, plainUntil) or
// new Handle(dispatch, shape, identity, prefix, ttl, timeout, stage, undefined, ring, flags, plainUntil)
static napi_value construct(napi_env napi, napi_callback_info info)
{
    size_t          count = 11;
    napi_value      at[11], self = nullptr;
    void           *data = nullptr, *identity = nullptr;
    napi_valuetype  type;
    KeyHolder       prefix;
    ValueHolder     url, ring;
    Keys            keys;
    uint32_t        at_rest = 0;
    cf_open_options options;
    cf_error        error;
    Stage          *stage = nullptr;
    Loop           *loop = nullptr;
    uint32_t        shape = 0;
    if (napi_get_cb_info(napi, info, &count, at, &self, &data) != napi_ok || napi_typeof(napi, at[0], &type) != napi_ok) return nullptr;
    Env *env = static_cast<Env *>(data);
    bool hosted = type == napi_function;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    if (!hosted && !take_value(env, at[0], "the URL", &url)) return nullptr;
    if (hosted && (napi_get_value_uint32(napi, at[1], &shape) != napi_ok || napi_unwrap(napi, at[2], &identity) != napi_ok)) return nullptr;
    if (!is_undefined(napi, at[3])) {
        if (!take_key(env, at[3], "prefix", &prefix)) return nullptr;
        options.prefix = prefix.slice;
    }
    if (!is_undefined(napi, at[4]) && !take_seconds(env, at[4], "ttl", cf_ttl_from_seconds, &options.ttl_ms)) return nullptr;
    if (!is_undefined(napi, at[5]) && !take_seconds(env, at[5], "timeout", cf_timeout_from_seconds, &options.timeout_ms)) return nullptr;
    if (!is_undefined(napi, at[6])) {
        stage = stage_of(napi, at[6]);
        if (stage == nullptr) {
            throw_status(env, CF_EINVAL, "stage must be a Stage of counterfoil/testing");
            return nullptr;
        }
    }
    // Checked in at_rest.cjs: records of an id in four bytes and a key.
    if (!is_undefined(napi, at[9]) && napi_get_value_uint32(napi, at[9], &at_rest) != napi_ok) return nullptr;
    if (!is_undefined(napi, at[10]) && napi_get_value_int64(napi, at[10], &options.plain_until_ms) != napi_ok) return nullptr;
    if (!is_undefined(napi, at[8])) {
        if (!take_value(env, at[8], "keys", &ring)) return nullptr;
        if (!keys.take(ring.slice)) {
            throw_status(env, CF_EINVAL, "a ring has at most 64 keys");
            return nullptr;
        }
        options.keys = keys.ring;
        options.key_count = keys.count;
    }
    options.seal_values = (at_rest & 1) != 0;
    options.hash_keys = (at_rest & 2) != 0;
    Store *store = new (std::nothrow) Store();
    if (store == nullptr) {
        throw_status(env, CF_ENOMEM, "out of memory");
        return nullptr;
    }
    store->env = env;
    if (napi_wrap(napi, self, store, finalize, nullptr, nullptr) != napi_ok) {
        delete store;
        return nullptr;
    }
    if (napi_create_reference(napi, self, 0, &store->handle) != napi_ok) return nullptr;
    // The handle holds what its native half refers to weakly.
    if (hosted && (napi_set_named_property(napi, self, "dispatch", at[0]) != napi_ok || napi_set_named_property(napi, self, "identity", at[2]) != napi_ok))
        return nullptr;
    if (!hosted && napi_set_named_property(napi, self, "listener", at[7]) != napi_ok) return nullptr;
    int status = loop_for(env, stage, &loop);
    if (status != CF_OK) {
        throw_status(env, status, status == CF_ENOMEM ? "out of memory" : "the system gives no descriptor for the loop");
        return nullptr;
    }
    loop_enter(loop);
    if (hosted) {
        Host *host = host_new(env, at[0], shape, identity);
        if (host == nullptr) {
            status = cf_error_set(&error, CF_ENOMEM, CF_NOT_APPLIED, "out of memory");
        } else {
            status = cf_open_backend(loop->loop, host_table(host), host_backend(host), &options, &store->store, &error);
            if (status == CF_OK) store->host = host;
        }
    } else if (!loop_watch(loop)) {
        status = cf_error_set(&error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the event loop cannot watch the store's descriptor");
    } else {
        status = cf_open(loop->loop, url.slice, &options, &store->store, &error);
        if (status == CF_OK) cf_store_on_event(store->store, on_event, store);
    }
    if (status == CF_OK) {
        store->loop = loop;
        store->next = loop->stores;
        loop->stores = store;
    } else {
        store->store = nullptr;
        throw_error(env, &error);
    }
    loop_leave(loop);
    return status == CF_OK ? self : nullptr;
}

// A method that gives a promise. In a thread that is being ended (worker.terminate()) JavaScript may go on for some microseconds in which Node-API
// refuses its calls: nothing was done then, and nothing can be thrown. `undefined` would be taken for an answer, null is one that never comes.
template <napi_callback METHOD> static napi_value answers(napi_env napi, napi_callback_info info)
{
    napi_value result = METHOD(napi, info);
    if (result == nullptr && napi_get_null(napi, &result) != napi_ok) return nullptr;
    return result;
}

napi_status store_define(napi_env napi, napi_value exports)
{
    Env *env = env_get(napi);
#define METHOD(NAME, FUNCTION) {NAME, nullptr, FUNCTION, nullptr, nullptr, nullptr, napi_default, env}
#define ANSWERS(NAME, FUNCTION) METHOD(NAME, answers<FUNCTION>)
    const napi_property_descriptor methods[] = {
        ANSWERS("get", (by_key<CF_OP_GET, FORM_TEXT>)),
        ANSWERS("getBuffer", (by_key<CF_OP_GET, FORM_BYTES>)),
        ANSWERS("set", method_set),
        ANSWERS("delete", (by_key<CF_OP_DELETE, FORM_HIT>)),
        ANSWERS("pop", (method_pop<FORM_TEXT>)),
        ANSWERS("popBuffer", (method_pop<FORM_BYTES>)),
        ANSWERS("touch", method_touch),
        ANSWERS("incr", method_incr),
        ANSWERS("scan", (method_page<CF_OP_SCAN, FORM_PAGE>)),
        ANSWERS("reseal", (method_page<CF_OP_RESEAL, FORM_SWEEP>)),
        ANSWERS("resealTokens", method_reseal_tokens),
        ANSWERS("count", method_count),
        ANSWERS("clear", method_clear),
        ANSWERS("storageGet", method_storage_get),
        ANSWERS("storageSet", method_storage_set),
        ANSWERS("secondaryGet", (secondary_by_key<cf_secondary_get, FORM_TEXT>)),
        ANSWERS("secondarySet", method_secondary_set),
        ANSWERS("secondaryDelete", (secondary_by_key<cf_secondary_delete, FORM_NOTHING>)),
        ANSWERS("secondaryPop", (secondary_by_key<cf_secondary_pop, FORM_TEXT>)),
        ANSWERS("accounts", method_accounts),
        ANSWERS("sessions", method_sessions),
        ANSWERS("stats", method_stats),
        METHOD("close", method_close),
        METHOD("settle", method_settle),
    };
#undef ANSWERS
#undef METHOD
    napi_value  handle = nullptr;
    napi_status status = napi_define_class(napi, "Handle", NAPI_AUTO_LENGTH, construct, env, sizeof methods / sizeof *methods, methods, &handle);
    return status == napi_ok ? napi_set_named_property(napi, exports, "Handle", handle) : status;
}

} // namespace counterfoil
