/* keyed.c: records of a backend that has only keys, and one process that uses them. */
#include "core.h"

bool cf_keyed_applies(const cf_store *store) { return store->table->flags & (CF_BACKEND_RECORDS | CF_BACKEND_DERIVE) && !store->table->hook; }
int  cf_keyed_start(cf_op *op) { return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "not yet"); }
void cf_keyed_free(cf_op *op) { op->keyed = NULL; }
