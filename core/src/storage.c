/* storage.c: Storage, one state per id. */
#include "core.h"

int cf_storage_get(const cf_storage *storage, cf_slice id, const cf_call *call, cf_op **op)
{
    cf_request request = cf_asked(call, CF_OP_GET, id);
    return cf_submit(storage->store, &request, op);
}

int cf_storage_set(const cf_storage *storage, cf_slice id, cf_slice state, const cf_call *call, cf_op **op)
{
    cf_request request = cf_asked(call, state.ptr ? CF_OP_SET : CF_OP_DELETE, id);
    request.value = state;
    if (state.ptr && state.len == 0) return cf_refuse(storage->store, &request, op, "a state is never empty text");
    return cf_submit(storage->store, &request, op);
}
