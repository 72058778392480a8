/* sessions.c: SessionStorage, session records of users. */
#include "core.h"

int cf_session_status(const cf_record *session, int64_t now)
{
    if (session->fields[CF_SESSION_REVOKED_AT].is == CF_GIVEN) return CF_STATUS_REVOKED;
    return now > session->fields[CF_SESSION_EXPIRES_AT].number ? CF_STATUS_EXPIRED : CF_STATUS_ACTIVE;
}

#define BIT(field) (1U << (field))
static const struct {
    unsigned needs, may;
} methods[CF_SESSION_METHODS] = {
    [CF_SESSION_CREATE] = {BIT(CF_SESSION_USER_ID) | BIT(CF_SESSION_TOKEN_HASH) | BIT(CF_SESSION_CREATED_AT) | BIT(CF_SESSION_UPDATED_AT) | BIT(CF_SESSION_EXPIRES_AT),
                           BIT(CF_SESSION_LAST_ACTIVE_AT) | BIT(CF_SESSION_CLIENT_ID) | BIT(CF_SESSION_CLIENT_NAME) | BIT(CF_SESSION_USER_AGENT) | BIT(CF_SESSION_IP)},
    [CF_SESSION_GET] = {BIT(CF_SESSION_TOKEN_HASH), 0},
    [CF_SESSION_GET_ANY] = {BIT(CF_SESSION_ID), 0},
    [CF_SESSION_LIST] = {BIT(CF_SESSION_USER_ID), 0},
    [CF_SESSION_REFRESH] = {BIT(CF_SESSION_ID) | BIT(CF_SESSION_UPDATED_AT) | BIT(CF_SESSION_EXPIRES_AT), BIT(CF_SESSION_LAST_ACTIVE_AT)},
    [CF_SESSION_REVOKE] = {BIT(CF_SESSION_ID) | BIT(CF_SESSION_REVOKED_AT), 0},
    [CF_SESSION_REVOKE_ALL] = {BIT(CF_SESSION_USER_ID) | BIT(CF_SESSION_REVOKED_AT), 0},
    [CF_SESSION_READ_EPOCH] = {BIT(CF_SESSION_USER_ID), 0},
};

/* The record goes some time after the session ends, also where the caller's clock is behind. */
static int64_t expiry_of(const cf_sessions *sessions, int64_t expires_at)
{
    int64_t now = cf_wall(sessions->store->loop->platform), end = expires_at / 1000;
    return (end > now ? end : now) + (sessions->retention_ms ? sessions->retention_ms : CF_SESSION_RETENTION);
}

/* ---- methods that look at what comes back ---- */

static int create_step(cf_op *op, cf_op *child)
{
    cf_plan plan;
    int     rc = cf_records_step(op, child, CF_OP_INSERT, &plan);
    if (rc != CF_OK) return rc;
    cf_record_number(&plan.record, CF_SESSION_EPOCH, child->number);
    if ((rc = cf_op_add_record(op, &plan.record)) != CF_OK) {
        op->error.outcome = CF_APPLIED;
        return rc;
    }
    op->number = child->number;
    op->hit = true;
    return CF_OK;
}

/* Only while it is active. */
static int get_step(cf_op *op, cf_op *child)
{
    cf_plan   plan;
    cf_record session;
    int       rc = cf_records_step(op, child, CF_OP_FIND, &plan);
    if (rc != CF_OK) return rc;
    child->key_at = 0;
    if (!child->hit || !cf_op_next_record(child, &session) || cf_session_status(&session, plan.now) != CF_STATUS_ACTIVE) return CF_OK;
    cf_take_value(op, child);
    op->key_at = 0;
    op->hit = true;
    return CF_OK;
}

/* Where the guard did not hold the session is revoked: nothing comes back. */
static int refresh_step(cf_op *op, cf_op *child)
{
    cf_plan plan;
    int     rc = cf_records_step(op, child, CF_OP_UPDATE, &plan);
    if (rc != CF_OK) return rc;
    if (!child->hit) return CF_OK;
    cf_take_value(op, child);
    op->key_at = 0;
    op->hit = true;
    return CF_OK;
}

static int revoke_step(cf_op *op, cf_op *child)
{
    cf_plan plan;
    int     rc = cf_records_step(op, child, CF_OP_UPDATE, &plan);
    if (rc != CF_OK) return rc;
    op->hit = child->hit || child->value.len > 0; /* revoked before: it is there */
    return CF_OK;
}

static void only_unrevoked(cf_plan *plan)
{
    plan->guard = CF_SESSION_REVOKED_AT;
    plan->equals.is = CF_NULL;
}

/* ---- entry ---- */

static int list(const cf_sessions *sessions, cf_plan *plan, const cf_session_args *args, const cf_call *call, cf_op **op)
{
    cf_page page = {.status = args->status, .order = args->order, .now = plan->now, .limit = args->limit ? args->limit : CF_LIST_LIMIT};
    if (args->status < CF_STATUS_ANY || args->status > CF_STATUS_REVOKED)
        return cf_records_refuse(sessions->store, CF_OP_LIST, call, op, CF_EINVAL, "a session has no such status");
    if (args->order < 0 || args->order >= CF_SESSION_ORDERS) return cf_records_refuse(sessions->store, CF_OP_LIST, call, op, CF_EINVAL, "there is no such order");
    if (page.limit > CF_SESSIONS_MOST) return cf_records_refuse(sessions->store, CF_OP_LIST, call, op, CF_EINVAL, "a page has at most 10000 sessions");
    if (args->cursor.len && !cf_page_after(&page, args->cursor))
        return cf_records_refuse(sessions->store, CF_OP_LIST, call, op, CF_ECURSOR, "the cursor is none that a list in this order gave");
    return cf_records_submit(sessions->store, CF_OP_LIST, plan, &page, call, op);
}

static int create(const cf_sessions *sessions, cf_plan *plan, const cf_record *record, const cf_session_args *args, const cf_call *call, cf_op **op)
{
    char id[CF_ID_LEN];
    if (cf_record_id(sessions->store->loop->platform, id) != CF_OK)
        return cf_records_refuse(sessions->store, CF_OP_INSERT, call, op, CF_EUNAVAILABLE, "the system gives no random bytes");
    plan->record = *record;
    cf_record_text(&plan->record, CF_SESSION_ID, cf_bytes(id, sizeof id));
    plan->expiry_ms = expiry_of(sessions, record->fields[CF_SESSION_EXPIRES_AT].number);
    plan->epoch = args->epoch;
    plan->most = (int64_t)(sessions->most ? sessions->most : CF_SESSIONS_MAX);
    plan->oldest_out = !sessions->refuse;
    return cf_records_compose(sessions->store, CF_OP_INSERT, plan, create_step, call, op);
}

int cf_sessions_call(const cf_sessions *sessions, int method, const cf_record *record, const cf_session_args *args, const cf_call *call, cf_op **op)
{
    static const cf_session_args none = {.size = sizeof none, .epoch = -1};
    cf_store *store = sessions->store;
    char      text[CF_RECORD_FAULT];
    *op = NULL;
    if (!args) args = &none;
    const char *fault = method < 0 || method >= CF_SESSION_METHODS ? "a SessionStorage has no such method"
                        : args->size != sizeof *args               ? "cf_session_args.size is not sizeof(cf_session_args)"
                        : record->kind != CF_SESSION               ? "that method is about another kind of record"
                                                                   : cf_record_fault(record, methods[method].needs, methods[method].may, text);
    if (!fault && (args->now < 0 || args->now > CF_NUMBER_MAX)) fault = "now is no instant between 1970 and 2255";
    if (!fault && (sessions->most > CF_SESSIONS_MOST || sessions->retention_ms < 0 || sessions->retention_ms > CF_TTL_MAX))
        fault = "at most 10000 sessions of a user, kept for at most ten years";
    if (fault) return cf_records_refuse(store, CF_OP_UPDATE, call, op, CF_EINVAL, fault);
    const cf_field *fields = record->fields;
    int64_t now = args->now ? args->now : cf_now_us(store->loop->platform);
    cf_plan plan = cf_plan_of(CF_SESSION, CF_BY_ID);
    plan.expiry_ms = -1;
    plan.now = now;
    bool by_id = method == CF_SESSION_GET_ANY || method == CF_SESSION_REFRESH || method == CF_SESSION_REVOKE;
    if ((by_id && !cf_is_record_id(fields[CF_SESSION_ID].text)) || (method == CF_SESSION_GET && !cf_can_be_indexed(fields[CF_SESSION_TOKEN_HASH].text)))
        return cf_records_refuse(store, CF_OP_FIND, call, op, CF_OK, ""); /* no session has such a one */
    if (by_id) plan.at[0] = fields[CF_SESSION_ID].text;
    switch (method) {
    case CF_SESSION_CREATE: return create(sessions, &plan, record, args, call, op);
    case CF_SESSION_GET:
        plan.by = CF_BY_UNIQUE;
        plan.at[0] = fields[CF_SESSION_TOKEN_HASH].text;
        return cf_records_compose(store, CF_OP_FIND, &plan, get_step, call, op);
    case CF_SESSION_GET_ANY: return cf_records_submit(store, CF_OP_FIND, &plan, NULL, call, op);
    case CF_SESSION_REFRESH:
        plan.record = *record;
        plan.record.fields[CF_SESSION_ID].is = CF_UNSAID;
        if (plan.record.fields[CF_SESSION_LAST_ACTIVE_AT].is == CF_NULL) plan.record.fields[CF_SESSION_LAST_ACTIVE_AT].is = CF_UNSAID;
        plan.expiry_ms = expiry_of(sessions, fields[CF_SESSION_EXPIRES_AT].number);
        only_unrevoked(&plan);
        return cf_records_compose(store, CF_OP_UPDATE, &plan, refresh_step, call, op);
    case CF_SESSION_REVOKE:
        plan.record.fields[CF_SESSION_REVOKED_AT] = fields[CF_SESSION_REVOKED_AT];
        only_unrevoked(&plan);
        return cf_records_compose(store, CF_OP_UPDATE, &plan, revoke_step, call, op);
    case CF_SESSION_REVOKE_ALL:
        if (!cf_can_be_indexed(fields[CF_SESSION_USER_ID].text)) return cf_records_refuse(store, CF_OP_UPDATE, call, op, CF_EINVAL, "user_id of a session cannot be that");
        plan.by = CF_BY_GROUP;
        plan.at[0] = fields[CF_SESSION_USER_ID].text;
        plan.record.fields[CF_SESSION_REVOKED_AT] = fields[CF_SESSION_REVOKED_AT];
        plan.except = cf_is_record_id(args->except) ? args->except : cf_bytes(NULL, 0);
        plan.bump = true;
        only_unrevoked(&plan);
        return cf_records_submit(store, CF_OP_UPDATE, &plan, NULL, call, op);
    default:
        if (!cf_can_be_indexed(fields[CF_SESSION_USER_ID].text)) return cf_records_refuse(store, CF_OP_LIST, call, op, CF_EINVAL, "user_id of a session cannot be that");
        plan.by = CF_BY_GROUP;
        plan.at[0] = fields[CF_SESSION_USER_ID].text;
        plan.number_only = method == CF_SESSION_READ_EPOCH;
        return plan.number_only ? cf_records_submit(store, CF_OP_LIST, &plan, NULL, call, op) : list(sessions, &plan, args, call, op);
    }
}
