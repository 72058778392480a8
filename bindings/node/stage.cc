// Stage of counterfoil/testing: a clock that a test moves, and failures that it chooses.
#include "binding.h"

#include <new>

namespace counterfoil {

static const napi_type_tag STAGE_TAG = {0x6f2b1d0c8e754a31, 0x94c7e05fb3a26d18};

void stage_drop(Stage *stage)
{
    if (--stage->holders > 0) return;
    cf_stage_free(stage->stage);
    delete stage;
}

Stage *stage_of(napi_env napi, napi_value value)
{
    napi_valuetype type;
    bool           tagged = false;
    void          *stage = nullptr;
    if (napi_typeof(napi, value, &type) != napi_ok || type != napi_object || napi_check_object_type_tag(napi, value, &STAGE_TAG, &tagged) != napi_ok || !tagged ||
        napi_unwrap(napi, value, &stage) != napi_ok)
        return nullptr;
    return static_cast<Stage *>(stage);
}

static void finalize(napi_env, void *data, void *) { stage_drop(static_cast<Stage *>(data)); }

static napi_value construct(napi_env napi, napi_callback_info info)
{
    napi_value self = nullptr;
    void      *data = nullptr;
    size_t     count = 0;
    if (napi_get_cb_info(napi, info, &count, nullptr, &self, &data) != napi_ok) return nullptr;
    Stage    *stage = new (std::nothrow) Stage();
    cf_stage *inner = stage != nullptr ? cf_stage_new() : nullptr;
    if (inner == nullptr) {
        delete stage;
        throw_status(static_cast<Env *>(data), CF_ENOMEM, "out of memory");
        return nullptr;
    }
    stage->stage = inner;
    stage->holders = 1;
    if (napi_wrap(napi, self, stage, finalize, nullptr, nullptr) != napi_ok) {
        stage_drop(stage);
        return nullptr;
    }
    return napi_type_tag_object(napi, self, &STAGE_TAG) == napi_ok ? self : nullptr;
}

static cf_stage *opened(napi_env napi, napi_callback_info info, size_t count, napi_value *at)
{
    napi_value self = nullptr;
    void      *stage = nullptr;
    if (napi_get_cb_info(napi, info, &count, at, &self, nullptr) != napi_ok || napi_unwrap(napi, self, &stage) != napi_ok) return nullptr;
    return static_cast<Stage *>(stage)->stage;
}

static napi_value advance(napi_env napi, napi_callback_info info)
{
    napi_value at[1];
    int64_t    ms = 0;
    cf_stage  *stage = opened(napi, info, 1, at);
    if (stage != nullptr && napi_get_value_int64(napi, at[0], &ms) == napi_ok) cf_stage_advance(stage, ms);
    return nullptr;
}

static napi_value step_wall(napi_env napi, napi_callback_info info)
{
    napi_value at[1];
    int64_t    ms = 0;
    cf_stage  *stage = opened(napi, info, 1, at);
    if (stage != nullptr && napi_get_value_int64(napi, at[0], &ms) == napi_ok) cf_stage_step_wall(stage, ms);
    return nullptr;
}

static napi_value fail_allocation(napi_env napi, napi_callback_info info)
{
    napi_value at[2];
    int64_t    nth = 0;
    bool       for_good = false;
    cf_stage  *stage = opened(napi, info, 2, at);
    if (stage != nullptr && napi_get_value_int64(napi, at[0], &nth) == napi_ok && napi_get_value_bool(napi, at[1], &for_good) == napi_ok)
        cf_stage_fail_allocation(stage, static_cast<uint64_t>(nth), for_good);
    return nullptr;
}

static napi_value failed(napi_env napi, napi_callback_info info)
{
    napi_value result = nullptr;
    cf_stage  *stage = opened(napi, info, 0, nullptr);
    return stage != nullptr && napi_get_boolean(napi, cf_stage_failed(stage), &result) == napi_ok ? result : nullptr;
}

static napi_value blocks(napi_env napi, napi_callback_info info)
{
    napi_value result = nullptr;
    cf_stage  *stage = opened(napi, info, 0, nullptr);
    return stage != nullptr && napi_create_double(napi, static_cast<double>(cf_stage_blocks(stage)), &result) == napi_ok ? result : nullptr;
}

static napi_value now(napi_env napi, napi_callback_info info)
{
    napi_value result = nullptr;
    cf_stage  *stage = opened(napi, info, 0, nullptr);
    return stage != nullptr && napi_create_double(napi, static_cast<double>(cf_stage_wall_ms(stage)), &result) == napi_ok ? result : nullptr;
}

napi_status stage_define(napi_env napi, napi_value exports)
{
    const napi_property_descriptor methods[] = {
        {"advance", nullptr, advance, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"stepWall", nullptr, step_wall, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"failAllocation", nullptr, fail_allocation, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"failed", nullptr, failed, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"blocks", nullptr, blocks, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"now", nullptr, now, nullptr, nullptr, nullptr, napi_default, nullptr},
    };
    napi_value  stage = nullptr;
    napi_status status = napi_define_class(napi, "Stage", NAPI_AUTO_LENGTH, construct, env_get(napi), sizeof methods / sizeof *methods, methods, &stage);
    return status == napi_ok ? napi_set_named_property(napi, exports, "Stage", stage) : status;
}

} // namespace counterfoil
