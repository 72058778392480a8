// The module. node-addon-api registers it; everything after that is plain Node-API with every status checked, because the classes of
// node-addon-api abort the process when a call fails while an environment is going away (worker.terminate()).
#include <napi.h>

#include "binding.h"

namespace counterfoil {

// init(CounterfoilError, schedule, later, deliver, room): what the binding needs of JavaScript
static napi_value init(napi_env napi, napi_callback_info info)
{
    size_t     count = 5, len = 0;
    napi_value at[5];
    void      *room = nullptr;
    Env       *env = env_get(napi);
    if (env == nullptr || napi_get_cb_info(napi, info, &count, at, nullptr, nullptr) != napi_ok) return nullptr;
    (void)!napi_create_reference(napi, at[0], 1, &env->error_class);
    (void)!napi_create_reference(napi, at[1], 1, &env->schedule);
    (void)!napi_create_reference(napi, at[2], 1, &env->later);
    (void)!napi_create_reference(napi, at[3], 1, &env->deliver);
    (void)!napi_create_reference(napi, at[4], 1, &env->room);
    (void)!napi_get_typedarray_info(napi, at[4], nullptr, &len, &room, nullptr, nullptr);
    env->slot = static_cast<int32_t *>(room);
    return nullptr;
}

static void free_identity(napi_env, void *data, void *) { free(data); }

// identity(): an object with an address that is nobody else's, by which stores over one backend object share the locks of what is derived
static napi_value identity(napi_env napi, napi_callback_info)
{
    napi_value result = nullptr;
    void      *address = malloc(1);
    if (address == nullptr) return nullptr;
    if (napi_create_object(napi, &result) == napi_ok && napi_wrap(napi, result, address, free_identity, nullptr, nullptr) == napi_ok) return result;
    free(address);
    return nullptr;
}

// ttl(seconds): milliseconds, or throws INVALID
static napi_value ttl(napi_env napi, napi_callback_info info)
{
    size_t     count = 1;
    napi_value at[1], result = nullptr;
    double     seconds = 0;
    int64_t    ms = 0;
    cf_error   error;
    Env       *env = env_get(napi);
    if (env == nullptr || napi_get_cb_info(napi, info, &count, at, nullptr, nullptr) != napi_ok) return nullptr;
    if (napi_get_value_double(napi, at[0], &seconds) != napi_ok) {
        throw_status(env, CF_EINVAL, "ttl must be a number of seconds");
        return nullptr;
    }
    if (cf_ttl_from_seconds(seconds, &ms, &error) != CF_OK) {
        throw_error(env, &error);
        return nullptr;
    }
    return napi_create_double(napi, static_cast<double>(ms), &result) == napi_ok ? result : nullptr;
}

static bool add_function(napi_env napi, napi_value exports, const char *name, napi_callback function)
{
    napi_value made = nullptr;
    return napi_create_function(napi, name, NAPI_AUTO_LENGTH, function, nullptr, &made) == napi_ok && napi_set_named_property(napi, exports, name, made) == napi_ok;
}

static bool add_flag(napi_env napi, napi_value exports, const char *name, uint32_t flag)
{
    napi_value made = nullptr;
    return napi_create_uint32(napi, flag, &made) == napi_ok && napi_set_named_property(napi, exports, name, made) == napi_ok;
}

static void define(napi_env napi, napi_value exports)
{
    napi_value version = nullptr;
    if (env_new(napi) == nullptr || napi_create_string_utf8(napi, cf_version(), NAPI_AUTO_LENGTH, &version) != napi_ok ||
        napi_set_named_property(napi, exports, "version", version) != napi_ok || store_define(napi, exports) != napi_ok || stage_define(napi, exports) != napi_ok ||
        !add_function(napi, exports, "init", init) || !add_function(napi, exports, "flush", loop_flush) || !add_function(napi, exports, "identity", identity) ||
        !add_function(napi, exports, "ttl", ttl) || !add_function(napi, exports, "kinds", records_kinds) ||
        !add_function(napi, exports, "accountsMethods", records_accounts_methods))
        return;
    (void)(add_flag(napi, exports, "TTL", CF_TTL) && add_flag(napi, exports, "EXPIRES_AT", CF_EXPIRES_AT) && add_flag(napi, exports, "KEEP_TTL", CF_KEEP_TTL) &&
           add_flag(napi, exports, "IF_ABSENT", CF_IF_ABSENT) && add_flag(napi, exports, "IF_PRESENT", CF_IF_PRESENT) &&
           add_flag(napi, exports, "IF_EQUAL", CF_IF_EQUAL));
}

} // namespace counterfoil

static Napi::Object Init(Napi::Env env, Napi::Object exports)
{
    counterfoil::define(env, exports);
    return exports;
}

NODE_API_MODULE(counterfoil, Init)
