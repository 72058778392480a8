/* reseal.c: seals anew, a page at a time, what was sealed with an older key of the ring, so that this key can be given up; and what is plain while that is allowed.
 *
 * In both sweeps the page stays in op->value while it is gone through; op->number counts what was sealed anew, op->note what does not open, which is left.
 * Each write happens only where what was looked at is still there: whoever writes meanwhile seals with the newest key. */
#include "core.h"

enum { START, PAGE, LOOKED, STORED };

static int no_memory(cf_op *op) { return cf_op_fail(op, CF_ENOMEM, op->number ? CF_UNKNOWN : CF_NOT_APPLIED, "no memory to seal anew"); }

/* The child that asks for a page goes on from the caller's cursor. One page after the other, others have their turn between, also where nothing pends. */
static int ask_page(cf_op *op, cf_op *child)
{
    if (!child) return no_memory(op);
    child->in.cursor = op->in.cursor;
    child->in.limit = op->in.limit;
    op->phase = PAGE;
    return op->in.cursor.len ? STEP_YIELD : STEP_CHILD;
}

static void take_page(cf_op *op, cf_op *child)
{
    cf_take_cursor(op, child);
    cf_take_value(op, child);
    op->key_at = 0;
}

static int end_page(cf_op *op)
{
    char text[CF_INT_TEXT];
    op->hit = true;
    return cf_op_set_value(op, cf_bytes(text, cf_format_int((int64_t)op->note, text)));
}

/* Whether something was sealed anew; *rc: an error that ends the sweep. */
static bool is_renewed(cf_op *op, int *rc)
{
    bool renewed = *rc == CF_OK;
    if (*rc == CF_ECORRUPT) op->note++;
    if (renewed || *rc == CF_ECORRUPT || *rc == CF_SEAL_CURRENT) *rc = CF_OK;
    else if (*rc == CF_ENOMEM) *rc = no_memory(op);
    else *rc = cf_op_fail(op, *rc, op->number ? CF_UNKNOWN : CF_NOT_APPLIED, "nothing could be sealed anew: there is no randomness, or OpenSSL failed");
    return renewed;
}

/* What was found is in op->plan from now on: the child that has it is used again. */
static void keep_found(cf_op *op, cf_op *found)
{
    cf_buffer before = op->plan;
    op->plan = found->value;
    found->value = before;
}

/* A child has failed. CF_OK: it has come upon damage where one thing was looked at, which is counted, and the sweep goes on as if nothing was there. */
static int fail_with(cf_op *op, cf_op *child)
{
    if (op->phase == LOOKED && child->error.status == CF_ECORRUPT) {
        op->note++;
        child->hit = false;
        return CF_OK;
    }
    cf_adopt(op, child);
    if (op->number) op->error.outcome = CF_UNKNOWN;
    return op->error.status;
}

/* ------------------------------------------------------------------------------------------------------------ values -- */

static int next_key(cf_op *op)
{
    cf_slice bare;
    if (!cf_op_next_key(op, &bare)) return end_page(op);
    if (!cf_child_for(op, CF_OP_GET, bare)) return no_memory(op);
    op->phase = LOOKED;
    return STEP_CHILD;
}

static int seal_anew(cf_op *op, cf_op *got)
{
    cf_slice key = cf_bytes(op->key.ptr, op->key.len);
    if (!got->hit) return next_key(op);
    keep_found(op, got);
    op->sealed.len = 0;
    int rc = cf_seal_renew(op->store->seal, key, cf_bytes(op->plan.ptr, op->plan.len), &op->sealed);
    if (!is_renewed(op, &rc)) return rc == CF_OK ? next_key(op) : rc;
    cf_op *child = cf_child(op, CF_OP_SET, key);
    if (!child) return no_memory(op);
    child->in.value = cf_bytes(op->sealed.ptr, op->sealed.len);
    child->in.expected = cf_bytes(op->plan.ptr, op->plan.len);
    child->in.flags = CF_IF_EQUAL | CF_KEEP_TTL;
    child->in.timeout_ms = op->in.timeout_ms;
    child->locks = cf_derive_applies(op->store, CF_OP_SET, child->in.flags);
    if (child->locks) child->in.ttl_ms = 1; /* should it expire between the look and the set, it does not come back to stay */
    op->phase = STORED;
    return STEP_CHILD;
}

int cf_reseal_step(cf_op *op, cf_op *child)
{
    int rc = child && child->error.status != CF_OK ? fail_with(op, child) : CF_OK;
    if (rc != CF_OK) return rc;
    switch (op->phase) {
    case START:
        op->raw = true; /* for its children */
        op->secret = cf_seal_takes_plain(op->store->seal);
        return ask_page(op, cf_child(op, CF_OP_SCAN, op->in.key));
    case PAGE:
        take_page(op, child);
        return next_key(op);
    case LOOKED: return seal_anew(op, child);
    default:
        op->number += child->hit;
        return next_key(op);
    }
}

/* ------------------------------------------------------------------------------------------------------------ tokens -- */

static int next_account(cf_op *op)
{
    cf_plan plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_ID);
    if (!cf_op_next_key(op, &plan.at[0])) return end_page(op);
    if (!cf_records_child(op, CF_OP_FIND, &plan)) return no_memory(op);
    op->phase = LOOKED;
    return STEP_CHILD;
}

/* The next token of the account in op->plan, from this field on. Each is written for itself: an update seldom says both. */
static int next_token(cf_op *op, int field)
{
    cf_record account;
    cf_plan   plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_ID);
    if (!cf_record_unpack(cf_bytes(op->plan.ptr, op->plan.len), &account)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a record was lost");
    for (; cf_field_name(CF_SOCIAL_ACCOUNT, field); field++) {
        cf_slice sealed;
        int      rc = cf_token_renew(op, &account, field, &sealed);
        if (!is_renewed(op, &rc)) {
            if (rc != CF_OK) return rc;
            continue;
        }
        plan.at[0] = account.fields[CF_SOCIAL_ACCOUNT_ID].text;
        plan.guard = field;
        plan.equals = account.fields[field];
        plan.expiry_ms = -1;
        cf_record_text(&plan.record, field, sealed);
        if (!cf_records_child(op, CF_OP_UPDATE, &plan)) return no_memory(op);
        op->phase = STORED + field;
        return STEP_CHILD;
    }
    return next_account(op);
}

static int look_at_account(cf_op *op, cf_op *found)
{
    if (!found->hit) return next_account(op);
    keep_found(op, found);
    return next_token(op, 0);
}

int cf_reseal_tokens_step(cf_op *op, cf_op *child)
{
    cf_plan plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_ALL);
    int     rc = child && child->error.status != CF_OK ? fail_with(op, child) : CF_OK;
    if (rc != CF_OK) return rc;
    switch (op->phase) {
    case START:
        op->raw = true;
        op->secret = cf_seal_takes_plain(op->store->seal);
        return ask_page(op, cf_records_child(op, CF_OP_LIST, &plan));
    case PAGE:
        take_page(op, child);
        return next_account(op);
    case LOOKED: return look_at_account(op, child);
    default:
        op->number += child->hit;
        return next_token(op, op->phase - STORED + 1);
    }
}
