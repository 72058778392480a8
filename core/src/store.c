/* store.c: opens, checks what is asked, puts the prefix before it, and calls the backend. */
#include "core.h"

enum { PAGE = CF_SCAN_MAX };
#define TIMEOUT_DEFAULT INT64_C(5000)
#define PLAIN_EARLIEST  INT64_C(1577836800000) /* 2020, in ms: seconds that were taken for milliseconds are before it */

#define CF_BUILTIN(table) extern const cf_backend_table table;
#include "backends.def"
#undef CF_BUILTIN

static const cf_backend_table *const builtins[] = {
#define CF_BUILTIN(table) &table,
#include "backends.def"
#undef CF_BUILTIN
};

/* ----------------------------------------------------------------------------------------------------------- opening -- */

static int refuse(cf_error *error, const char *text) { return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s", text); }

static int check_table(const cf_backend_table *table, cf_error *error)
{
    if (table->size != sizeof *table) return refuse(error, "the backend was compiled against another version of counterfoil/backend.h");
    if (!table->name) return refuse(error, "the backend has no name");
    if (table->flags & ~(unsigned)(CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL | CF_BACKEND_DERIVE | CF_BACKEND_RECEIPTS | CF_BACKEND_RECORDS))
        return refuse(error, "the backend has a flag that this version does not know");
    if (!table->get || !table->set || !table->del) return refuse(error, "a backend needs get, set and del");
    int slots = !!table->insert + !!table->update + !!table->find + !!table->list + !!table->remove;
    if (slots != 0 && slots != 5) return refuse(error, "a backend that keeps records needs insert, update, find, list and remove");
    return CF_OK;
}

static int check_options(const cf_open_options *options, int64_t wall, cf_error *error)
{
    if (!options) return CF_OK;
    if (options->size != sizeof *options) return refuse(error, "cf_open_options.size is not sizeof(cf_open_options)");
    if (options->prefix.len > CF_PREFIX_MAX)
        return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "the prefix is %zu bytes long; at most %d are allowed",
                            options->prefix.len, CF_PREFIX_MAX);
    const char *fault = cf_key_fault(options->prefix);
    if (fault) return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "the prefix %s", fault);
    if (options->ttl_ms < 0 || options->ttl_ms > CF_TTL_MAX) return refuse(error, "the store's ttl must be more than 0 and at most ten years");
    if (options->timeout_ms < 0 || options->timeout_ms > CF_TIMEOUT_MAX)
        return refuse(error, "the store's timeout must be more than 0 and at most a day");
    if (options->seal_values && options->key_count == 0) return refuse(error, "to seal values the store needs keys");
    int64_t plain = options->plain_until_ms;
    if (plain && options->key_count == 0) return refuse(error, "plain_until (plainUntil) is for a store with keys: without them everything is plain");
    if (plain && plain < PLAIN_EARLIEST) return refuse(error, "plain_until (plainUntil) is before 2020: it must be an instant, in C in milliseconds since 1970");
    if (plain > wall + CF_PLAIN_MAX) return refuse(error, "plain_until (plainUntil) is more than a year ahead: until then whoever can write to the backend could put plain text there");
    if (options->hash_keys && !cf_seal_there()) return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "this build has no OpenSSL, so it cannot hash keys");
    return options->key_count ? cf_seal_check(options->keys, options->key_count, error) : CF_OK; /* before there is a database file */
}

static void close_backend(const cf_backend_table *table, cf_backend *self)
{
    cf_error ignored = {0};
    if (table->close) table->close(self, &ignored);
}

static int attach(cf_loop *loop, const cf_backend_table *table, cf_backend *self, const cf_open_options *options, cf_store **out,
                  cf_error *error)
{
    size_t prefix = options ? options->prefix.len : 0;
    cf_store *store = cf_zalloc(loop->platform, sizeof *store + prefix);
    if (!store) return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a store");
    store->loop = loop;
    store->table = table;
    store->self = self;
    cf_link_init(&store->events);
    store->prefix_len = prefix;
    if (prefix) memcpy(store->prefix, options->prefix.ptr, prefix);
    if (options && options->key_count) {
        int rc = cf_seal_new(loop->platform, options->keys, options->key_count, options->plain_until_ms, &store->seal, error);
        if (rc != CF_OK) {
            cf_release(loop->platform, store);
            return rc;
        }
    }
    store->hash_keys = options && options->hash_keys;
    store->seal_values = options && options->seal_values;
    store->ttl_ms = options ? options->ttl_ms : 0;
    store->timeout_ms = options && options->timeout_ms ? options->timeout_ms : TIMEOUT_DEFAULT;
    cf_link_append(&loop->stores, &store->link);
    *out = store;
    return CF_OK;
}

static int check_forked(cf_loop *loop, cf_error *error)
{
    if (!cf_loop_forked(loop)) return CF_OK;
    return cf_error_set(error, CF_EFORKED, CF_NOT_APPLIED, "this loop was made before fork(): call cf_loop_reopen first");
}

int cf_open_backend(cf_loop *loop, const cf_backend_table *table, cf_backend *self, const cf_open_options *options, cf_store **out,
                    cf_error *error)
{
    *out = NULL;
    if (error) *error = (cf_error){0};
    int rc = check_forked(loop, error);
    if (rc == CF_OK) rc = check_table(table, error);
    if (rc == CF_OK) rc = check_options(options, cf_wall(loop->platform), error);
    if (rc == CF_OK) rc = attach(loop, table, self, options, out, error);
    if (rc != CF_OK && table->size >= offsetof(cf_backend_table, close) + sizeof table->close) close_backend(table, self);
    return rc;
}

int cf_open(cf_loop *loop, cf_slice text, const cf_open_options *options, cf_store **out, cf_error *error)
{
    *out = NULL;
    if (error) *error = (cf_error){0};
    int rc = check_forked(loop, error);
    if (rc == CF_OK) rc = check_options(options, cf_wall(loop->platform), error);
    if (rc != CF_OK) return rc;
    cf_parsed_url parsed;
    rc = cf_url_parse(loop->platform, text, &parsed, error);
    if (rc != CF_OK) return rc;
    const cf_backend_table *table = NULL;
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
        if (cf_slice_equal(parsed.url.scheme, cf_text(builtins[i]->name))) table = builtins[i];
    if (!table) {
        rc = refuse(error, "no backend of this version has that URL scheme; known: memory:, sqlite:, redis:, rediss:, redis+unix:, redis+sentinel:, rediss+sentinel:, redis+cluster:, rediss+cluster:");
    } else {
        cf_backend *self = NULL;
        rc = table->open(loop, &parsed.url, &self, error);
        if (rc == CF_OK) {
            rc = attach(loop, table, self, options, out, error);
            if (rc != CF_OK) close_backend(table, self);
        }
    }
    cf_url_free(loop->platform, &parsed);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ events -- */

static void drop_event(cf_store *store)
{
    cf_event *event = CF_OF_LINK(store->events.next, cf_event, link);
    cf_link_remove(&event->link);
    store->event_count--;
    cf_release(store->loop->platform, event);
}

static void drop_events(cf_store *store)
{
    while (store->event_count) drop_event(store);
}

void cf_store_on_event(cf_store *store, cf_event_fn fn, void *user)
{
    store->on_event = fn;
    store->on_event_user = user;
    if (!fn || !store->event_count) return;
    atomic_store(&store->loop->has_events, true);
    cf_loop_nudge(store->loop);
}

void cf_store_tell(cf_store *store)
{
    /* Only those that are there now, and none after somebody has closed the store. */
    for (unsigned count = store->event_count; count && store->event_count && store->on_event && !store->closing; count--) {
        cf_event *event = CF_OF_LINK(store->events.next, cf_event, link);
        cf_link_remove(&event->link);
        store->event_count--;
        int      which = event->event;
        cf_error what = event->what;
        cf_release(store->loop->platform, event);
        store->on_event(store->on_event_user, which, &what);
    }
}

void cf_backend_event(cf_loop *loop, const cf_backend *self, int event, int status, const char *format, ...)
{
    for (cf_link *link = loop->stores.next; link != &loop->stores; link = link->next) {
        cf_store *store = CF_OF_LINK(link, cf_store, link);
        if (store->self != self || store->closing) continue;
        cf_event *kept = cf_zalloc(loop->platform, sizeof *kept);
        if (!kept) return; /* news is all that is lost */
        kept->event = event;
        va_list args;
        va_start(args, format);
        cf_error_setv(&kept->what, status, CF_NOT_APPLIED, format, args);
        va_end(args);
        if (store->event_count == CF_EVENTS_KEPT) drop_event(store);
        cf_link_append(&store->events, &kept->link);
        store->event_count++;
        if (!store->on_event) continue;
        atomic_store(&loop->has_events, true);
        if (!loop->running) cf_loop_nudge(loop);
    }
}

/* ----------------------------------------------------------------------------------------------------------- closing -- */

static int really_close(cf_store *store, cf_error *error)
{
    cf_loop *loop = store->loop;
    for (size_t i = 0; i < loop->op_count; i++)
        if (loop->ops[i]->store == store) loop->ops[i]->store = NULL;
    cf_link_remove(&store->link);
    drop_events(store);
    /* A child that closes without reopening must not speak to what is the parent's either. */
    if (cf_loop_forked(loop) && store->table->forked) store->table->forked(store->self);
    cf_error answer = {0};
    int rc = store->table->close ? store->table->close(store->self, &answer) : CF_OK;
    if (rc != CF_OK && answer.status == CF_OK)
        cf_error_set(&answer, rc, CF_APPLIED, "the %s backend failed to close", store->table->name);
    if (error) *error = answer;
    cf_seal_free(store->seal);
    cf_release(loop->platform, store);
    return rc;
}

static void abort_all(cf_store *store, cf_end how)
{
    cf_loop *loop = store->loop;
    for (size_t i = 0; i < loop->op_count; i++) {
        cf_op *op = loop->ops[i];
        if (op->store == store && op->state == OP_PENDING && !op->parent)
            cf_op_abort(op, CF_ECLOSED, how, "the store was closed while the operation was under way");
    }
}

int cf_store_close(cf_store *store, cf_error *error)
{
    if (error) *error = (cf_error){0};
    if (store->closing) return CF_OK;
    store->closing = true;
    if (store->depth) return CF_OK; /* cf_store_leave does it */
    store->depth++;                 /* a `done` called from here must not end it under us */
    abort_all(store, store->loop->depth ? END_QUEUE : END_NOW); /* never a `done` inside a backend, be it another's */
    store->depth--;
    return really_close(store, error);
}

void cf_store_leave(cf_store *store)
{
    if (!store->closing || store->depth || store->loop->watching) return;
    store->depth++;
    abort_all(store, END_QUEUE);
    store->depth--;
    really_close(store, NULL);
}

cf_loop *cf_store_loop(const cf_store *store) { return store->loop; }

int cf_store_stats(cf_store *store, cf_stat_fn each, void *user)
{
    each(user, "operations", (int64_t)store->operations);
    each(user, "errors", (int64_t)store->errors);
    each(user, "timeouts", (int64_t)store->timeouts);
    each(user, "pending", (int64_t)store->pending);
    cf_store_enter(store);
    if (store->table->stats) store->table->stats(store->self, each, user);
    cf_store_exit(store);
    cf_store_leave(store);
    return CF_OK;
}

/* ---------------------------------------------------------------------------------------------------------- checking -- */

static int invalid(cf_op *op, const char *text) { return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "%s", text); }

static int check_key(cf_op *op, cf_slice key, bool is_prefix)
{
    if (key.len == 0) return is_prefix ? CF_OK : invalid(op, "the key is empty");
    if (key.len > CF_KEY_MAX)
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the key is %zu bytes long; at most %d are allowed", key.len, CF_KEY_MAX);
    const char *fault = cf_key_fault(key);
    if (fault) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the key %s", fault);
    return CF_OK;
}

static int check_value(cf_op *op, cf_slice value)
{
    if (value.len <= CF_VALUE_MAX) return CF_OK;
    return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the value is %zu bytes long; at most %d are allowed", value.len, CF_VALUE_MAX);
}

static bool one_at_most(unsigned flags) { return (flags & (flags - 1)) == 0; }

static const unsigned LIFE = CF_TTL | CF_EXPIRES_AT | CF_KEEP_TTL;
static const unsigned CONDITIONS = CF_IF_ABSENT | CF_IF_PRESENT | CF_IF_EQUAL;

static unsigned allowed_flags(int kind)
{
    switch (kind) {
    case CF_OP_SET: return LIFE | CONDITIONS;
    case CF_OP_TOUCH:
    case CF_OP_INCR: return CF_TTL;
    case CF_OP_CLEAR: return CF_FORCE;
    case CF_OP_RESEAL: return CF_TOKENS;
    default: return 0;
    }
}

/* Leaves in->ttl_ms as the life that results: 0 = until deleted, below 0 = it has expired already. */
static int resolve_life(cf_op *op, const cf_store *store)
{
    cf_request *in = &op->in;
    if (!one_at_most(in->flags & LIFE)) return invalid(op, "ttl, expires_at and keep_ttl exclude each other");
    if (in->flags & CF_TTL) {
        if (in->ttl_ms <= 0) return invalid(op, "ttl must be greater than 0 seconds");
        if (in->ttl_ms > CF_TTL_MAX) return invalid(op, "ttl is too large: at most 315360000 seconds are allowed");
    } else if (in->flags & CF_EXPIRES_AT) {
        if (in->expires_at_ms < 0) return invalid(op, "expires_at must not be before 1970");
        int64_t now = cf_wall(op->loop->platform);
        if (in->expires_at_ms - CF_TTL_MAX > now) /* in this order nothing overflows */
            return invalid(op, "expires_at is too far ahead: at most ten years are allowed");
        in->ttl_ms = in->expires_at_ms - now;
        if (in->ttl_ms <= 0) {
            if (in->flags & CONDITIONS) return invalid(op, "expires_at is not in the future, so there is nothing to store on a condition");
            in->ttl_ms = -1;
        }
    } else if (in->kind == CF_OP_SET || in->kind == CF_OP_INCR) {
        in->ttl_ms = store->ttl_ms;
    }
    return CF_OK;
}

static int check_receipt(cf_op *op, const cf_store *store)
{
    const cf_request *in = &op->in;
    bool keeps = in->kind == CF_OP_POP || in->kind == CF_OP_INCR || (in->kind == CF_OP_SET && (in->flags & (CF_IF_ABSENT | CF_IF_EQUAL)));
    if (!keeps) return invalid(op, "only pop, incr, if_absent and if_equal have receipts");
    if (in->receipt.len != CF_RECEIPT_LEN) return invalid(op, "the receipt is none that a failed call gave");
    for (size_t i = 0; i < in->receipt.len; i++)
        if (!strchr("0123456789abcdef", in->receipt.ptr[i]) || !in->receipt.ptr[i]) return invalid(op, "the receipt is none that a failed call gave");
    if (!(store->table->flags & CF_BACKEND_RECEIPTS))
        return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the %s backend keeps no receipts", store->table->name);
    return CF_OK;
}

int cf_submit_check(cf_op *op, cf_store *store)
{
    cf_request *in = &op->in;
    if (cf_loop_forked(op->loop))
        return cf_op_fail(op, CF_EFORKED, CF_NOT_APPLIED, "this store was opened before fork(): reopen its loop");
    if (store->closing) return cf_op_fail(op, CF_ECLOSED, CF_NOT_APPLIED, "the store is closed");
    if (in->timeout_ms < 0 || in->timeout_ms > CF_TIMEOUT_MAX) return invalid(op, "timeout must be more than 0 and at most a day");
    if (in->timeout_ms == 0) in->timeout_ms = store->timeout_ms;
    return CF_OK;
}

static int check_reseal(cf_op *op, const cf_store *store)
{
    if (!(op->in.flags & CF_TOKENS)) return store->seal_values ? CF_OK : invalid(op, "the store seals no values (seal_values), so there is nothing to seal anew");
    if (!store->seal) return invalid(op, "the store has no keys, so no token is sealed");
    if (op->in.key.len) return invalid(op, "the tokens of a store are sealed anew all together: there is no part of them");
    if (!store->table->hook) return CF_OK;
    return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "these accounts are in tables of the application's own, which the library cannot list: to seal their tokens with the new "
                      "key, read each account and save it again (update_social_account with its tokens)");
}

static int check(cf_op *op, cf_store *store, const cf_request *request)
{
    op->in = (cf_request){.size = sizeof op->in};
    if (request->size != sizeof op->in) return invalid(op, "cf_request.size is not sizeof(cf_request)");
    cf_request *in = &op->in;
    *in = *request;
    if (in->kind < 0 || in->kind >= CF_OP_KINDS || cf_is_record_op(in->kind)) {
        in->kind = CF_OP_GET;
        return invalid(op, "there is no operation of that kind");
    }
    if (in->flags & ~allowed_flags(in->kind)) return invalid(op, "that operation has no such option");
    int rc = cf_submit_check(op, store);
    if (rc != CF_OK) return rc;
    bool is_prefix = in->kind == CF_OP_SCAN || in->kind == CF_OP_COUNT || in->kind == CF_OP_CLEAR || in->kind == CF_OP_RESEAL;
    rc = check_key(op, in->key, is_prefix);
    if (rc == CF_OK && in->receipt.len) rc = check_receipt(op, store);
    if (rc != CF_OK) return rc;
    switch (in->kind) {
    case CF_OP_SET:
        if ((rc = check_value(op, in->value)) != CF_OK) return rc;
        if (!one_at_most(in->flags & CONDITIONS)) return invalid(op, "if_absent, if_present and if_equal exclude each other");
        if ((in->flags & CF_IF_EQUAL) && (rc = check_value(op, in->expected)) != CF_OK) return rc;
        break;
    case CF_OP_TOUCH:
        if (!(in->flags & CF_TTL)) return invalid(op, "touch needs a ttl");
        break;
    case CF_OP_INCR:
        if (in->by > CF_NUMBER_MAX || in->by < -CF_NUMBER_MAX) return invalid(op, "by must be within 2^53 - 1 of zero");
        break;
    case CF_OP_RESEAL:
        if ((rc = check_reseal(op, store)) != CF_OK) return rc;
        /* fall through */
    case CF_OP_SCAN:
        if (in->limit > CF_SCAN_MAX) return invalid(op, "a page of a scan holds at most 1000 keys");
        if (in->limit == 0) in->limit = in->flags & CF_TOKENS ? CF_SCAN_DEFAULT / 4 : CF_SCAN_DEFAULT; /* two writes for each, within one deadline */
        if (in->cursor.len > CF_CURSOR_MAX) return invalid(op, "the cursor is none that a scan gave");
        break;
    case CF_OP_CLEAR:
        if (store->prefix_len + in->key.len == 0 && !(in->flags & CF_FORCE))
            return invalid(op, "clear without a prefix removes every key of the backend, also other applications': "
                               "open the store with a prefix, give one, or force it");
        break;
    default: break;
    }
    return resolve_life(op, store);
}

/* The key becomes the name under which it is kept. */
static int hash_key(cf_op *op, char out[CF_HASHED])
{
    cf_request *in = &op->in;
    bool whole = in->kind == CF_OP_COUNT || in->kind == CF_OP_CLEAR || in->kind == CF_OP_RESEAL, part = in->kind == CF_OP_SCAN || (whole && in->key.len);
    if (part) return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "this store keeps hashes of its keys (hash_keys): they cannot be listed or told by a prefix");
    if (whole) return CF_OK;
    if (cf_seal_name(in->key, out) != CF_OK) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, "OpenSSL could not hash a key");
    in->key = cf_bytes(out, CF_HASHED);
    return CF_OK;
}

static int put_prefix(cf_op *op, const cf_store *store)
{
    const cf_platform *platform = op->loop->platform;
    char hashed[CF_HASHED];
    if (store->hash_keys) {
        int rc = hash_key(op, hashed);
        if (rc != CF_OK) return rc;
    } else if (store->prefix_len == 0 && !store->seal_values) { /* an envelope is opened under its key, maybe long after the call */
        return CF_OK;
    }
    if (cf_buffer_append(platform, &op->key, cf_bytes(store->prefix, store->prefix_len)) != CF_OK ||
        cf_buffer_append(platform, &op->key, op->in.key) != CF_OK)
        return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a key");
    op->in.key = cf_bytes(op->key.ptr, op->key.len);
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------- dispatching -- */

static cf_backend_fn slot_of(const cf_backend_table *table, int kind)
{
    switch (kind) {
#define CF_OP_COMPOSED(NAME, writes) case CF_OP_##NAME: return NULL;
#define CF_OP(NAME, slot, writes) case CF_OP_##NAME: return table->slot;
#include "counterfoil/ops.def"
#undef CF_OP
#undef CF_OP_COMPOSED
    default: return NULL;
    }
}

/* For sentences. */
static const char *word_of(int kind)
{
    switch (kind) {
    case CF_OP_POP: return "pop: it needs that method, or the word that this process is its only user (single_process, singleProcess)";
    case CF_OP_TOUCH: return "touch: it needs that method, or the word that this process is its only user (single_process, singleProcess)";
    case CF_OP_INCR:
        return "incr: it needs that method, or the word that this process is its only user (single_process, singleProcess) "
               "and that set keeps expiries (keeps_ttl, keepsTtl)";
    case CF_OP_SCAN: return "scan, which count and clear need too: it needs that method";
    case CF_OP_INSERT:
    case CF_OP_UPDATE:
    case CF_OP_FIND:
    case CF_OP_LIST:
    case CF_OP_REMOVE: return "accounts and session records: that needs the word that this process is its only user (single_process, singleProcess)";
    case CF_OP_HOOK: return "the methods of an AccountsStorage";
    default: return "this operation";
    }
}

/* Here plain text ends: the backend gets an envelope. */
static int seal_in(cf_op *op)
{
    cf_request *in = &op->in;
    if (in->kind == CF_OP_INCR) return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "this store seals its values, so its backend cannot count with them");
    if (in->flags & CF_IF_EQUAL)
        return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "this store seals its values, so its backend cannot compare them (if_equal)");
    if (in->kind != CF_OP_SET || op->sealed.len) return CF_OK; /* a second try has the first one's */
    int rc = cf_seal_close(op->store->seal, in->key, in->value, &op->sealed);
    if (rc == CF_ENOMEM) return cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory to seal a value");
    if (rc != CF_OK) return cf_op_fail(op, rc, CF_NOT_APPLIED, "a value could not be sealed: there is no randomness, or OpenSSL failed");
    in->value = cf_bytes(op->sealed.ptr, op->sealed.len);
    return CF_OK;
}

int cf_store_unseal(cf_op *op)
{
    int kind = op->in.kind;
    /* What comes for an orphan is nobody's, and the key it had was its parent's. */
    if (!op->hit || op->orphan || (kind != CF_OP_GET && kind != CF_OP_POP)) return CF_OK;
    const char *why;
    op->secret = true;
    int rc = cf_seal_open(op->store->seal, op->in.key, &op->value, &why);
    return rc == CF_OK ? CF_OK : cf_op_fail(op, rc, kind == CF_OP_POP ? CF_APPLIED : CF_NOT_APPLIED, "%s", why);
}

int cf_store_call(cf_op *op)
{
    cf_store *store = op->store;
    if (!store || store->closing) return cf_op_fail(op, CF_ECLOSED, CF_NOT_APPLIED, "the store is closed");
    const cf_backend_table *table = store->table;
    cf_backend_fn slot = slot_of(table, op->in.kind);
    if (!slot && cf_is_record_op(op->in.kind) && cf_keyed_applies(store)) return cf_keyed_start(op);
    if (!slot) return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the %s backend does not support %s", table->name, word_of(op->in.kind));
    if ((op->in.flags & CONDITIONS) && !(table->flags & CF_BACKEND_CONDITIONS))
        return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED,
                          "the %s backend does not support if_absent, if_present and if_equal: they need set_if (setIf), or the word "
                          "that this process is its only user (single_process, singleProcess)", table->name);
    if ((op->in.flags & CF_KEEP_TTL) && !(table->flags & CF_BACKEND_KEEP_TTL))
        return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED,
                          "the %s backend does not support keep_ttl: its set needs to keep expiries, and to say so (keeps_ttl, keepsTtl)", table->name);
    if (store->loop->depth >= CF_DEPTH_MAX)
        return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "a backend called its own store more than %d deep", CF_DEPTH_MAX);
    if (store->seal_values && !op->raw) {
        int rc = seal_in(op);
        if (rc != CF_OK) return rc;
    }
    /* cf_op_add_key compares with the prefix, also when the page comes later. */
    if ((op->in.kind == CF_OP_SCAN || op->in.kind == CF_OP_CLEAR) && cf_op_keep(op) != CF_OK) return op->error.status;
    cf_store_enter(store);
    int rc = slot(store->self, op);
    cf_store_exit(store);
    if (rc == CF_OK && store->seal_values && !op->raw) rc = cf_store_unseal(op);
    if (cf_is_record_op(op->in.kind)) rc = cf_records_arrive(op, rc);
    if (rc == CF_PENDING) {
        cf_op_pend(op);
    } else if (rc < 0 && op->error.status != rc) {
        cf_op_fail(op, rc, cf_op_writes(op) ? CF_UNKNOWN : CF_NOT_APPLIED, "the %s backend failed", table->name);
    }
    return rc;
}

static int next_page(cf_op *op, bool first)
{
    cf_op *child = cf_child(op, CF_OP_SCAN, op->in.key);
    if (!child) return CF_ENOMEM;
    child->in.cursor = cf_bytes(op->cursor.ptr, op->cursor.len);
    child->in.limit = PAGE;
    return first ? STEP_CHILD : STEP_YIELD;
}

static int count_step(cf_op *op, cf_op *child)
{
    if (!child) return next_page(op, true);
    if (child->error.status != CF_OK) return cf_adopt(op, child);
    cf_slice key;
    while (cf_op_next_key(child, &key)) op->number++;
    cf_take_cursor(op, child);
    if (op->cursor.len) return next_page(op, false);
    op->hit = true;
    return CF_OK;
}

enum { CLEAR_START, CLEAR_PAGE, CLEAR_KEY };

static int clear_step(cf_op *op, cf_op *child)
{
    if (child && child->error.status != CF_OK) {
        cf_adopt(op, child);
        if (op->number) op->error.outcome = CF_UNKNOWN;
        return op->error.status;
    }
    if (op->phase == CLEAR_START) {
        op->phase = CLEAR_PAGE;
        return next_page(op, true);
    }
    if (op->phase == CLEAR_PAGE) {
        /* The page stays here while the child deletes. */
        cf_buffer page = child->value;
        child->value = op->value;
        op->value = page;
        op->key_at = 0;
        cf_take_cursor(op, child);
        op->phase = CLEAR_KEY;
    } else {
        op->number += child->hit;
    }
    cf_slice bare;
    if (cf_op_next_key(op, &bare)) {
        if (!cf_child_for(op, CF_OP_DELETE, bare))
            return cf_op_fail(op, CF_ENOMEM, op->number ? CF_UNKNOWN : CF_NOT_APPLIED, "no memory");
        op->child->locks = cf_derive_applies(op->store, CF_OP_DELETE, 0);
        return STEP_CHILD;
    }
    if (op->cursor.len) {
        op->phase = CLEAR_PAGE;
        return next_page(op, false);
    }
    op->value.len = 0;
    op->hit = true;
    return CF_OK;
}

static int expired_step(cf_op *op, cf_op *child)
{
    if (!child) return cf_child(op, CF_OP_DELETE, op->in.key) ? STEP_CHILD : CF_ENOMEM;
    if (child->error.status != CF_OK) return cf_adopt(op, child);
    op->hit = true;
    return CF_OK;
}

static int dispatch(cf_op *op, cf_store *store)
{
    int rc;
    switch (op->in.kind) {
    case CF_OP_CLEAR:
        if (store->table->clear) return cf_store_call(op);
        /* fall through */
    case CF_OP_COUNT:
        if ((rc = cf_op_keep(op)) != CF_OK) return rc;
        return cf_compose(op, op->in.kind == CF_OP_COUNT ? count_step : clear_step);
    case CF_OP_RESEAL:
        if ((rc = cf_op_keep(op)) != CF_OK) return rc;
        return cf_compose(op, op->in.flags & CF_TOKENS ? cf_reseal_tokens_step : cf_reseal_step);
    default: break;
    }
    if (cf_derive_applies(store, op->in.kind, op->in.flags)) return cf_derive(op);
    if (op->in.kind == CF_OP_SET && op->in.ttl_ms < 0) {
        if ((rc = cf_op_keep(op)) != CF_OK) return rc;
        return cf_compose(op, expired_step);
    }
    return cf_store_call(op);
}

int cf_submit(cf_store *store, const cf_request *request, cf_op **out)
{
    cf_op *op = cf_op_new(store->loop, store);
    *out = op;
    if (!op) return CF_ENOMEM;
    store->operations++;
    int rc = check(op, store, request);
    if (rc == CF_OK) rc = put_prefix(op, store);
    if (rc == CF_OK) rc = dispatch(op, store);
    return cf_submit_end(op, store, rc);
}

int cf_submit_end(cf_op *op, cf_store *store, int rc)
{
    if (rc == CF_PENDING && store->closing && store->depth == 0) {
        /* Its own backend closed the store meanwhile: the finish is submit's own answer. */
        rc = CF_ECLOSED;
        cf_op_abort(op, rc, END_QUIETLY, "the store was closed while the operation was under way");
    } else if (rc != CF_PENDING) {
        op->state = OP_FINISHED;
        if (rc == CF_OK) {
            op->error.status = CF_OK;
        } else {
            cf_op_bring_nothing(op);
            if (cf_is_record_op(op->in.kind)) cf_records_explain(op);
            store->errors++;
        }
    }
    cf_store_leave(store);
    return rc;
}

cf_request cf_asked(const cf_call *call, int kind, cf_slice key)
{
    cf_request request = {.size = sizeof request, .kind = kind, .key = key};
    if (call) {
        request.timeout_ms = call->timeout_ms;
        request.done = call->done;
        request.user = call->user;
    }
    return request;
}

int cf_refuse(cf_store *store, const cf_request *request, cf_op **out, const char *text)
{
    cf_op *op = cf_op_new(store->loop, store);
    *out = op;
    if (!op) return CF_ENOMEM;
    store->operations++;
    store->errors++;
    op->in = *request;
    op->state = OP_FINISHED;
    return invalid(op, text);
}
