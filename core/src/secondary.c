/* secondary.c: SecondaryStorage, what is needed once and for minutes. */
#include "core.h"

int cf_secondary_set(const cf_secondary *secondary, cf_slice key, cf_slice value, const double *ttl_seconds, const cf_call *call,
                     cf_op **op)
{
    /* Cross Auth's Redis storage: a ttl that is used up deletes. NaN is neither, and falls through to be refused. */
    bool gone = ttl_seconds && *ttl_seconds <= 0;
    cf_request request = cf_asked(call, gone ? CF_OP_DELETE : CF_OP_SET, key);
    if (!gone) {
        request.value = value;
        request.flags = CF_TTL;
        request.ttl_ms = secondary->ttl_ms ? secondary->ttl_ms : CF_SECONDARY_TTL;
        cf_error error;
        if (ttl_seconds && cf_ttl_from_seconds(*ttl_seconds, &request.ttl_ms, &error) != CF_OK)
            return cf_refuse(secondary->store, &request, op, error.text);
    }
    return cf_submit(secondary->store, &request, op);
}

static int plain(const cf_secondary *secondary, int kind, cf_slice key, const cf_call *call, cf_op **op)
{
    cf_request request = cf_asked(call, kind, key);
    return cf_submit(secondary->store, &request, op);
}

int cf_secondary_get(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op)
{
    return plain(secondary, CF_OP_GET, key, call, op);
}

int cf_secondary_delete(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op)
{
    return plain(secondary, CF_OP_DELETE, key, call, op);
}

int cf_secondary_pop(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op)
{
    return plain(secondary, CF_OP_POP, key, call, op);
}
