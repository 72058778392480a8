/* accounts.c: AccountsStorage, users and their social accounts. */
#include "core.h"

const char *cf_accounts_method_name(int method)
{
    static const char *const names[CF_ACCOUNTS_METHODS] = {
        "find_user_by_email", "find_user_by_id", "create_user", "update_user", "delete_user", "find_social_account", "find_social_account_by_id",
        "list_social_accounts", "create_social_account", "update_social_account", "delete_social_account", "find_or_create_by_social_account"};
    return method >= 0 && method < CF_ACCOUNTS_METHODS ? names[method] : "unknown";
}

/* What one call is made of. */
typedef struct asked {
    const cf_accounts *accounts;
    cf_store          *store;
    int                method;
    cf_record          record, user;
    char               key[CF_EMAIL_MAX];
} asked;

static bool says(const cf_record *record, int at) { return record->fields[at].is == CF_GIVEN; }

/* ---------------------------------------------------------------------------------------------------------- checking -- */

/* The fields that a method reads: those that must be there, those that may. */
#define BIT(field) (1U << (field))
static const struct {
    int      kind;
    unsigned needs, may;
} methods[CF_ACCOUNTS_METHODS] = {
#define USER_MAY                                                                                                                                    \
    (BIT(CF_USER_EMAIL) | BIT(CF_USER_EMAIL_VERIFIED) | BIT(CF_USER_HASHED_PASSWORD) | BIT(CF_USER_USER_INFO) | BIT(CF_USER_EXTRA_FIELDS))
#define SOCIAL_MAY                                                                                                                                  \
    (BIT(CF_SOCIAL_ACCOUNT_PROVIDER_EMAIL) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER_EMAIL_VERIFIED) | BIT(CF_SOCIAL_ACCOUNT_IS_LOGIN_METHOD) |              \
     BIT(CF_SOCIAL_ACCOUNT_ACCESS_TOKEN) | BIT(CF_SOCIAL_ACCOUNT_REFRESH_TOKEN) | BIT(CF_SOCIAL_ACCOUNT_ACCESS_TOKEN_EXPIRES_AT) |                  \
     BIT(CF_SOCIAL_ACCOUNT_REFRESH_TOKEN_EXPIRES_AT) | BIT(CF_SOCIAL_ACCOUNT_SCOPE) | BIT(CF_SOCIAL_ACCOUNT_USER_INFO) |                            \
     BIT(CF_SOCIAL_ACCOUNT_EXTRA_FIELDS))
#define PROVIDED (BIT(CF_SOCIAL_ACCOUNT_PROVIDER) | BIT(CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID))
    [CF_FIND_USER_BY_EMAIL] = {CF_USER, BIT(CF_USER_EMAIL), 0},
    [CF_FIND_USER_BY_ID] = {CF_USER, BIT(CF_USER_ID), 0},
    [CF_CREATE_USER] = {CF_USER, 0, USER_MAY},
    [CF_UPDATE_USER] = {CF_USER, BIT(CF_USER_ID), USER_MAY},
    [CF_DELETE_USER] = {CF_USER, BIT(CF_USER_ID), 0},
    [CF_FIND_SOCIAL_ACCOUNT] = {CF_SOCIAL_ACCOUNT, PROVIDED, 0},
    [CF_FIND_SOCIAL_ACCOUNT_BY_ID] = {CF_SOCIAL_ACCOUNT, BIT(CF_SOCIAL_ACCOUNT_ID), 0},
    [CF_LIST_SOCIAL_ACCOUNTS] = {CF_SOCIAL_ACCOUNT, BIT(CF_SOCIAL_ACCOUNT_USER_ID), 0},
    [CF_CREATE_SOCIAL_ACCOUNT] = {CF_SOCIAL_ACCOUNT, BIT(CF_SOCIAL_ACCOUNT_USER_ID) | PROVIDED, SOCIAL_MAY},
    [CF_UPDATE_SOCIAL_ACCOUNT] = {CF_SOCIAL_ACCOUNT, BIT(CF_SOCIAL_ACCOUNT_ID), SOCIAL_MAY},
    [CF_DELETE_SOCIAL_ACCOUNT] = {CF_SOCIAL_ACCOUNT, BIT(CF_SOCIAL_ACCOUNT_ID), 0},
    [CF_FIND_OR_CREATE] = {CF_SOCIAL_ACCOUNT, PROVIDED, SOCIAL_MAY},
};

/* An e-mail that is given gets its key; one that is taken away loses it. CF_OK, or as cf_email_key. */
static int normalise(cf_record *user, char key[CF_EMAIL_MAX], const char **fault)
{
    size_t len = 0;
    if (user->fields[CF_USER_EMAIL].is == CF_NULL) cf_record_null(user, CF_USER_EMAIL_KEY);
    if (!says(user, CF_USER_EMAIL)) return CF_OK;
    int rc = cf_email_key(user->fields[CF_USER_EMAIL].text, key, &len, fault);
    if (rc == CF_OK) cf_record_text(user, CF_USER_EMAIL_KEY, cf_bytes(key, len));
    return rc;
}

/* What is looked for under a text that no record can have is not there. */
static bool possible(const cf_record *record, int at) { return cf_can_be_indexed(record->fields[at].text); }

/* ------------------------------------------------------------------------------------------------------------ writing -- */

static int new_record(asked *ask, cf_record *record, char id[CF_ID_LEN], int created, int updated)
{
    const cf_platform *platform = ask->store->loop->platform;
    if (cf_record_id(platform, id) != CF_OK) return CF_EUNAVAILABLE;
    int64_t now = cf_now_us(platform);
    cf_record_text(record, 0, cf_bytes(id, CF_ID_LEN));
    cf_record_number(record, created, now);
    cf_record_number(record, updated, now);
    return CF_OK;
}

static int no_random(asked *ask, const cf_call *call, cf_op **op)
{
    return cf_records_refuse(ask->store, CF_OP_INSERT, call, op, CF_EUNAVAILABLE, "the system gives no random bytes");
}

/* The record that an insert made is the caller's, as it was asked for. */
static int bring_inserted(cf_op *op)
{
    cf_plan plan;
    if (!cf_plan_read(op->in.value, &plan)) return cf_op_fail(op, CF_ECORRUPT, CF_APPLIED, "a plan was lost");
    op->value.len = 0;
    int rc = CF_OK;
    if (plan.with.kind >= 0) rc = cf_op_add_record(op, &plan.with);
    if (rc == CF_OK) rc = cf_op_add_record(op, &plan.record);
    if (rc != CF_OK) {
        op->error.outcome = CF_APPLIED;
        return rc;
    }
    op->hit = true;
    return cf_records_arrive(op, CF_OK);
}

static int insert_step(cf_op *op, cf_op *child)
{
    cf_plan plan;
    int     rc = cf_records_step(op, child, CF_OP_INSERT, &plan);
    if (rc != CF_OK) return rc;
    return bring_inserted(op);
}

/* Missing where there was nothing to update. */
static int update_step(cf_op *op, cf_op *child)
{
    cf_plan plan;
    int     rc = cf_records_step(op, child, CF_OP_UPDATE, &plan);
    if (rc != CF_OK) return rc;
    if (!child->hit) return cf_op_fail(op, CF_EMISSING, CF_NOT_APPLIED, "there is no such %s", cf_kind_name(plan.kind));
    op->hit = true;
    cf_take_value(op, child);
    return CF_OK;
}

static int create_user(asked *ask, const cf_call *call, cf_op **op)
{
    char    id[CF_ID_LEN];
    cf_plan plan = cf_plan_of(CF_USER, CF_BY_ID);
    plan.record = ask->record;
    if (new_record(ask, &plan.record, id, CF_USER_CREATED_AT, CF_USER_UPDATED_AT) != CF_OK) return no_random(ask, call, op);
    return cf_records_compose(ask->store, CF_OP_INSERT, &plan, insert_step, call, op);
}

static int64_t most_of(const asked *ask) { return (int64_t)(ask->accounts->most ? ask->accounts->most : CF_SOCIAL_ACCOUNTS_MAX); }

static int create_social_account(asked *ask, const cf_call *call, cf_op **op)
{
    char    id[CF_ID_LEN];
    cf_plan plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_ID);
    plan.record = ask->record;
    plan.most = most_of(ask);
    if (new_record(ask, &plan.record, id, CF_SOCIAL_ACCOUNT_CREATED_AT, CF_SOCIAL_ACCOUNT_UPDATED_AT) != CF_OK) return no_random(ask, call, op);
    return cf_records_compose(ask->store, CF_OP_INSERT, &plan, insert_step, call, op);
}

static int update(asked *ask, int updated, const cf_call *call, cf_op **op)
{
    cf_plan plan = cf_plan_of(ask->record.kind, CF_BY_ID);
    plan.record = ask->record;
    plan.at[0] = ask->record.fields[0].text;
    plan.expiry_ms = -1;
    cf_record_number(&plan.record, updated, cf_now_us(ask->store->loop->platform));
    return cf_records_compose(ask->store, CF_OP_UPDATE, &plan, update_step, call, op);
}

/* ---- find or create ---- */

enum { LOOK, LOOKED, LOOKED_FOR_USER, INSERTED, TRIES = 8 };

static int look(cf_op *op, const cf_plan *whole)
{
    cf_plan plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_UNIQUE);
    plan.at[0] = whole->with.fields[CF_SOCIAL_ACCOUNT_PROVIDER].text;
    plan.at[1] = whole->with.fields[CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID].text;
    op->phase = LOOKED;
    return cf_records_child(op, CF_OP_FIND, &plan) ? STEP_CHILD : CF_ENOMEM;
}

static int find_or_create_step(cf_op *op, cf_op *child)
{
    cf_plan   whole, plan;
    cf_record found;
    if (!cf_plan_read(op->in.value, &whole)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a plan was lost");
    switch (op->phase) {
    case LOOK: return look(op, &whole);
    case LOOKED:
        if (child->error.status != CF_OK) {
            op->number = 0;
            return cf_adopt(op, child);
        }
        if (!child->hit) {
            op->phase = INSERTED;
            return cf_records_child(op, CF_OP_INSERT, &whole) ? STEP_CHILD : CF_ENOMEM;
        }
        cf_take_value(op, child);
        op->key_at = 0;
        op->number = 0;
        if (!cf_op_next_record(op, &found)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a record was lost");
        op->key_at = 0;
        plan = cf_plan_of(CF_USER, CF_BY_ID);
        plan.at[0] = found.fields[CF_SOCIAL_ACCOUNT_USER_ID].text;
        op->phase = LOOKED_FOR_USER;
        return cf_records_child(op, CF_OP_FIND, &plan) ? STEP_CHILD : CF_ENOMEM;
    case LOOKED_FOR_USER:
        if (child->error.status != CF_OK) return cf_adopt(op, child);
        if (!child->hit) { /* the user has just been removed, and the account with it */
            if (++op->note > TRIES) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "the social account belongs to a user that is not there");
            op->value.len = 0;
            return look(op, &whole);
        }
        if (cf_records_join(op, child) != CF_OK) return CF_ENOMEM;
        op->hit = true;
        return CF_OK;
    default:
        if (child->error.status == CF_EEXISTS) {
            /* Somebody else was first: with this account, which is what we wanted; or with this e-mail, perhaps because they made both of them just now. */
            child->key_at = 0;
            if (!cf_op_next_record(child, &found)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a record was lost");
            int64_t whose = found.kind == CF_SOCIAL_ACCOUNT ? 0 : (int64_t)(cf_hash(&(cf_hash_key){0, 0}, found.fields[0].text) | 1);
            bool    stays = whose && whose == op->number; /* the same user as before, and there was no account meanwhile: it is theirs alone */
            op->number = whose;
            if (!stays && ++op->note <= TRIES) return look(op, &whole);
            child->key_at = 0;
        }
        op->number = 0;
        if (child->error.status != CF_OK) return cf_adopt(op, child);
        op->number = 1;
        return bring_inserted(op);
    }
}

static int find_or_create(asked *ask, const cf_call *call, cf_op **op)
{
    char    user_id[CF_ID_LEN], id[CF_ID_LEN];
    cf_plan plan = cf_plan_of(CF_USER, CF_BY_ID);
    plan.record = ask->user;
    plan.with = ask->record;
    if (new_record(ask, &plan.record, user_id, CF_USER_CREATED_AT, CF_USER_UPDATED_AT) != CF_OK ||
        new_record(ask, &plan.with, id, CF_SOCIAL_ACCOUNT_CREATED_AT, CF_SOCIAL_ACCOUNT_UPDATED_AT) != CF_OK)
        return no_random(ask, call, op);
    cf_record_text(&plan.with, CF_SOCIAL_ACCOUNT_USER_ID, cf_bytes(user_id, CF_ID_LEN));
    return cf_records_compose(ask->store, CF_OP_INSERT, &plan, find_or_create_step, call, op);
}

/* ------------------------------------------------------------------------------------------------------------- hooks -- */

enum { HOOK_BEGIN, HOOK_FOUND, HOOK_DONE };

static bool has_token(const cf_record *record)
{
    return record->kind == CF_SOCIAL_ACCOUNT && (says(record, CF_SOCIAL_ACCOUNT_ACCESS_TOKEN) || says(record, CF_SOCIAL_ACCOUNT_REFRESH_TOKEN));
}

/* Tokens are sealed under what the provider calls the account, so that is asked for first. */
static int hook_update_step(cf_op *op, cf_op *child)
{
    cf_hook   whole, find = {.method = CF_FIND_SOCIAL_ACCOUNT_BY_ID, .record = {.kind = CF_SOCIAL_ACCOUNT}, .user = {.kind = -1}};
    cf_record found;
    if (!cf_hook_read(op->in.value, &whole)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a hook was lost");
    if (child && child->error.status != CF_OK) {
        cf_adopt(op, child);
        if (op->phase == HOOK_FOUND) op->error.outcome = CF_NOT_APPLIED;
        return op->error.status;
    }
    if (op->phase == HOOK_BEGIN && op->store->seal && has_token(&whole.record)) {
        find.record.fields[CF_SOCIAL_ACCOUNT_ID] = whole.record.fields[CF_SOCIAL_ACCOUNT_ID];
        op->phase = HOOK_FOUND;
        return cf_hook_child(op, &find, NULL) ? STEP_CHILD : op->error.status;
    }
    if (child) child->key_at = 0;
    bool there = child && child->hit && cf_op_next_record(child, &found);
    if (child && !there) return cf_op_fail(op, CF_EMISSING, CF_NOT_APPLIED, "there is no such %s", cf_kind_name(whole.record.kind));
    if (op->phase != HOOK_DONE) {
        /* What was found is the child's, which is used again. */
        cf_buffer kept = {0};
        if (child) {
            kept = child->value;
            child->value = (cf_buffer){0};
        }
        op->phase = HOOK_DONE;
        cf_op *next = cf_hook_child(op, &whole, child ? &found : NULL);
        cf_wipe(kept.ptr, kept.cap);
        cf_buffer_free(op->loop->platform, &kept);
        return next ? STEP_CHILD : op->error.status;
    }
    op->hit = true;
    cf_take_value(op, child);
    op->key_at = 0;
    return CF_OK;
}

static int hook(asked *ask, const cf_call *call, cf_op **op)
{
    cf_hook hooked = {.method = ask->method, .record = ask->record, .user = ask->user};
    bool    updates = ask->method == CF_UPDATE_USER || ask->method == CF_UPDATE_SOCIAL_ACCOUNT;
    return updates ? cf_hook_compose(ask->store, &hooked, hook_update_step, call, op) : cf_hook_submit(ask->store, &hooked, call, op);
}

/* Whether a lookup is for what no record can have. */
static bool is_in_vain(const asked *ask)
{
    switch (ask->method) {
    case CF_FIND_USER_BY_ID:
    case CF_FIND_SOCIAL_ACCOUNT_BY_ID:
    case CF_DELETE_USER:
    case CF_DELETE_SOCIAL_ACCOUNT: return !possible(&ask->record, 0);
    case CF_FIND_SOCIAL_ACCOUNT: return !possible(&ask->record, CF_SOCIAL_ACCOUNT_PROVIDER) || !possible(&ask->record, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID);
    case CF_LIST_SOCIAL_ACCOUNTS: return !possible(&ask->record, CF_SOCIAL_ACCOUNT_USER_ID);
    default: return false;
    }
}

/* -------------------------------------------------------------------------------------------------------------- entry -- */

static int find(asked *ask, int by, int first, int second, const cf_call *call, cf_op **op)
{
    cf_plan plan = cf_plan_of(ask->record.kind, by);
    plan.at[0] = ask->record.fields[first].text;
    if (second >= 0) plan.at[1] = ask->record.fields[second].text;
    return cf_records_submit(ask->store, CF_OP_FIND, &plan, NULL, call, op);
}

static int list(asked *ask, const cf_call *call, cf_op **op)
{
    cf_plan plan = cf_plan_of(CF_SOCIAL_ACCOUNT, CF_BY_GROUP);
    cf_page page = {.order = CF_CREATED_AT_ASC, .limit = CF_SESSIONS_MOST};
    plan.at[0] = ask->record.fields[CF_SOCIAL_ACCOUNT_USER_ID].text;
    return cf_records_submit(ask->store, CF_OP_LIST, &plan, &page, call, op);
}

static int take_away(asked *ask, const cf_call *call, cf_op **op)
{
    cf_plan plan = cf_plan_of(ask->record.kind, CF_BY_ID);
    plan.at[0] = ask->record.fields[0].text;
    return cf_records_submit(ask->store, CF_OP_REMOVE, &plan, NULL, call, op);
}

int cf_accounts_call(const cf_accounts *accounts, int method, const cf_record *record, const cf_record *user, const cf_call *call, cf_op **op)
{
    asked ask = {.accounts = accounts, .store = accounts->store, .method = method, .user = {.kind = -1}};
    char  text[CF_RECORD_FAULT];
    *op = NULL;
    if (method < 0 || method >= CF_ACCOUNTS_METHODS)
        return cf_records_refuse(ask.store, CF_OP_FIND, call, op, CF_EINVAL, "an AccountsStorage has no such method");
    const char *fault = record->kind != methods[method].kind ? "that method is about another kind of record" : cf_record_fault(record, methods[method].needs, methods[method].may, text);
    if (!fault && (method == CF_FIND_OR_CREATE) != (user != NULL)) fault = "find_or_create_by_social_account needs a user, and no other method does";
    if (!fault && user) fault = user->kind != CF_USER ? "that method is about another kind of record" : cf_record_fault(user, 0, USER_MAY, text);
    if (!fault && accounts->most > CF_SESSIONS_MOST) fault = "at most 10000 social accounts of a user"; /* more than one list can bring */
    if (fault) return cf_records_refuse(ask.store, CF_OP_UPDATE, call, op, CF_EINVAL, fault);
    ask.record = *record;
    if (user) ask.user = *user;
    cf_record *with_email = user ? &ask.user : ask.record.kind == CF_USER ? &ask.record : NULL;
    int rc = with_email ? normalise(with_email, ask.key, &fault) : CF_OK;
    if (rc == CF_ENOMEM) return cf_records_refuse(ask.store, CF_OP_UPDATE, call, op, rc, "no memory for an e-mail's domain");
    if (rc != CF_OK && method == CF_FIND_USER_BY_EMAIL) return cf_records_refuse(ask.store, CF_OP_FIND, call, op, CF_OK, "");
    if (rc != CF_OK) {
        char sentence[128] = "the e-mail address ";
        strncat(sentence, fault, sizeof sentence - strlen(sentence) - 1);
        return cf_records_refuse(ask.store, CF_OP_UPDATE, call, op, CF_EINVAL, sentence);
    }
    if ((method == CF_UPDATE_USER || method == CF_UPDATE_SOCIAL_ACCOUNT) && !possible(&ask.record, 0))
        return cf_records_refuse(ask.store, CF_OP_UPDATE, call, op, CF_EMISSING, record->kind == CF_USER ? "there is no such user" : "there is no such social_account");
    if (is_in_vain(&ask)) return cf_records_refuse(ask.store, CF_OP_FIND, call, op, CF_OK, "");
    if (ask.store->table->hook) return hook(&ask, call, op);
    switch (method) {
    case CF_FIND_USER_BY_EMAIL: return find(&ask, CF_BY_UNIQUE, CF_USER_EMAIL_KEY, -1, call, op);
    case CF_FIND_USER_BY_ID:
    case CF_FIND_SOCIAL_ACCOUNT_BY_ID: return find(&ask, CF_BY_ID, 0, -1, call, op);
    case CF_FIND_SOCIAL_ACCOUNT: return find(&ask, CF_BY_UNIQUE, CF_SOCIAL_ACCOUNT_PROVIDER, CF_SOCIAL_ACCOUNT_PROVIDER_USER_ID, call, op);
    case CF_LIST_SOCIAL_ACCOUNTS: return list(&ask, call, op);
    case CF_CREATE_USER: return create_user(&ask, call, op);
    case CF_CREATE_SOCIAL_ACCOUNT: return create_social_account(&ask, call, op);
    case CF_UPDATE_USER: return update(&ask, CF_USER_UPDATED_AT, call, op);
    case CF_UPDATE_SOCIAL_ACCOUNT: return update(&ask, CF_SOCIAL_ACCOUNT_UPDATED_AT, call, op);
    case CF_DELETE_USER:
    case CF_DELETE_SOCIAL_ACCOUNT: return take_away(&ask, call, op);
    default: return find_or_create(&ask, call, op);
    }
}
