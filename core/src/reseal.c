/* reseal.c: seals anew, a page at a time, what was sealed with an older key of the ring, so that this key can be given up. */
#include "core.h"

enum { START, PAGE, VALUE, STORED };

/* The page stays in op->value while its keys are gone through; op->number counts what was sealed anew, op->note what does not open. */
static int next_key(cf_op *op)
{
    cf_slice bare;
    if (!cf_op_next_key(op, &bare)) {
        char text[CF_INT_TEXT];
        op->hit = true;
        return cf_op_set_value(op, cf_bytes(text, cf_format_int((int64_t)op->note, text)));
    }
    if (!cf_child_for(op, CF_OP_GET, bare)) return cf_op_fail(op, CF_ENOMEM, op->number ? CF_UNKNOWN : CF_NOT_APPLIED, "no memory");
    op->phase = VALUE;
    return STEP_CHILD;
}

static int seal_anew(cf_op *op, cf_op *got)
{
    cf_seal *seal = op->store->seal;
    cf_slice old = cf_op_value(got), key = cf_bytes(op->key.ptr, op->key.len);
    if (!got->hit || cf_seal_is_current(seal, old)) return next_key(op);
    const cf_platform *platform = op->loop->platform;
    const char *why;
    cf_buffer   plain = {0};
    op->plan.len = op->sealed.len = 0;
    int rc = cf_buffer_append(platform, &plain, old);
    if (rc == CF_OK) rc = cf_buffer_append(platform, &op->plan, old); /* the child that has it goes */
    if (rc == CF_OK) rc = cf_seal_open(seal, key, &plain, &why);
    bool broken = rc == CF_ECORRUPT;
    if (rc == CF_OK) rc = cf_seal_close(seal, key, cf_bytes(plain.ptr, plain.len), &op->sealed);
    cf_wipe(plain.ptr, plain.cap);
    cf_buffer_free(platform, &plain);
    if (broken) {
        op->note++;
        return next_key(op);
    }
    cf_op *child = rc == CF_OK ? cf_child(op, CF_OP_SET, key) : NULL;
    if (!child) return cf_op_fail(op, rc == CF_OK ? CF_ENOMEM : rc, op->number ? CF_UNKNOWN : CF_NOT_APPLIED, "a value could not be sealed anew");
    child->in.value = cf_bytes(op->sealed.ptr, op->sealed.len);
    child->in.expected = cf_bytes(op->plan.ptr, op->plan.len);
    child->in.flags = CF_IF_EQUAL | CF_KEEP_TTL; /* whoever writes meanwhile seals with the newest key */
    child->in.timeout_ms = op->in.timeout_ms;
    child->locks = cf_derive_applies(op->store, CF_OP_SET, child->in.flags);
    if (child->locks) child->in.ttl_ms = 1; /* should it expire between the look and the set, it does not come back to stay */
    op->phase = STORED;
    return STEP_CHILD;
}

int cf_reseal_step(cf_op *op, cf_op *child)
{
    if (child && child->error.status != CF_OK) {
        cf_adopt(op, child);
        if (op->number) op->error.outcome = CF_UNKNOWN;
        return op->error.status;
    }
    switch (op->phase) {
    case START:
        op->raw = true; /* for its children: envelopes come and go as they are */
        child = cf_child(op, CF_OP_SCAN, op->in.key);
        if (!child) return CF_ENOMEM;
        child->in.cursor = op->in.cursor;
        child->in.limit = op->in.limit;
        op->phase = PAGE;
        return STEP_CHILD;
    case PAGE:
        cf_take_cursor(op, child);
        cf_take_value(op, child);
        op->key_at = 0;
        return next_key(op);
    case VALUE: return seal_anew(op, child);
    default:
        op->number += child->hit;
        return next_key(op);
    }
}
