/* store.c: the types Store and AsyncStore. Their methods are the same functions: parse the arguments, submit, and give either the
 * result (waiting for it if need be) or the awaitable of op.c.
 *
 * store.py and aio.py subclass these types and add what need not be fast. */
#include "native.h"

#include <stdlib.h>

/* ------------------------------------------------------------------------------------------------- submit and result -- */

int cfpy_submit(cf_store *store, const cfpy_call *call, int64_t timeout_ms, cf_done_fn done, void *user, cf_op **op)
{
    if (call->what == CFPY_SUBMIT) {
        cf_request request = call->request;
        request.size = sizeof request;
        request.timeout_ms = timeout_ms;
        request.done = done;
        request.user = user;
        return cf_submit(store, &request, op);
    }
    const cf_request *in = &call->request;
    const cf_call     how = {.timeout_ms = timeout_ms, .done = done, .user = user};
    cf_storage        storage = {.store = store};
    cf_secondary      secondary = {.store = store, .ttl_ms = call->default_ttl};
    switch (call->what) {
    case CFPY_RECORDS:          return cfpy_records_submit(store, call->records, &how, op);
    case CFPY_STORAGE_GET:      return cf_storage_get(&storage, in->key, &how, op);
    case CFPY_STORAGE_SET:      return cf_storage_set(&storage, in->key, in->value, &how, op);
    case CFPY_SECONDARY_SET:
        return cf_secondary_set(&secondary, in->key, in->value, call->has_seconds ? &call->seconds : NULL, &how, op);
    case CFPY_SECONDARY_GET:    return cf_secondary_get(&secondary, in->key, &how, op);
    case CFPY_SECONDARY_DELETE: return cf_secondary_delete(&secondary, in->key, &how, op);
    default:                    return cf_secondary_pop(&secondary, in->key, &how, op);
    }
}

/* The cursor of the next page, or None. */
static PyObject *next_page(const cf_op *op)
{
    cf_slice cursor = cf_op_cursor(op);
    if (cursor.len == 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(cursor.ptr, (Py_ssize_t)cursor.len);
}

static PyObject *sweep_result(const cf_op *op)
{
    cf_slice  text = cf_op_value(op); /* decimal */
    long long broken = 0;
    for (size_t i = 0; i < text.len; i++)
        broken = broken * 10 + (text.ptr[i] - '0');
    PyObject *next = next_page(op);
    return next ? Py_BuildValue("LLN", (long long)cf_op_number(op), broken, next) : NULL;
}

static PyObject *page_result(cf_op *op)
{
    PyObject *keys = PyList_New(0);
    cf_slice  key;
    if (keys == NULL)
        return NULL;
    while (cf_op_next_key(op, &key)) {
        PyObject *text = cfpy_string(key);
        int       rc = text ? PyList_Append(keys, text) : -1;
        Py_XDECREF(text);
        if (rc < 0) {
            Py_DECREF(keys);
            return NULL;
        }
    }
    PyObject *next = next_page(op), *page = next ? PyTuple_Pack(2, keys, next) : NULL;
    Py_XDECREF(next);
    Py_DECREF(keys);
    return page;
}

PyObject *cfpy_result(cfpy_state *state, cf_op *op, cfpy_mode mode)
{
    int status = cf_op_status(op);
    if (status != CF_OK) {
        PyObject *thrown = status == CF_EHOST ? cfpy_host_thrown(op) : NULL;
        if (thrown != NULL)
            return cfpy_raise_object(thrown);
        cfpy_raise_failed(state, op);
        if (status == CF_EEXISTS && mode == CFPY_AS_RECORDS)
            cfpy_records_existing(state, op);
        return NULL;
    }
    switch (mode) {
    case CFPY_AS_TEXT: {
        if (!cf_op_hit(op))
            Py_RETURN_NONE;
        PyObject *text = cfpy_string(cf_op_value(op));
        if (text != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeError))
            return text;
        PyErr_Clear(); /* it quotes the value */
        bool taken = cf_op_kind(op) == CF_OP_POP;
        if (cf_is_sealed(cf_op_value(op)))
            return cfpy_raise(state, CF_ECORRUPT, taken ? CF_APPLIED : CF_NOT_APPLIED,
                              taken ? "the value was taken but is sealed, and this store was opened without seal_values and keys"
                                    : "the value is sealed, and this store was opened without seal_values and keys");
        return taken
                   ? cfpy_raise(state, CF_ECORRUPT, CF_APPLIED, "the value was taken but is not UTF-8: pop_bytes gives such values")
                   : cfpy_raise(state, CF_ECORRUPT, CF_NOT_APPLIED, "the value is not UTF-8: get_bytes gives such values");
    }
    case CFPY_AS_BYTES: {
        cf_slice value = cf_op_value(op);
        if (!cf_op_hit(op))
            Py_RETURN_NONE;
        return PyBytes_FromStringAndSize(value.len ? value.ptr : "", (Py_ssize_t)value.len);
    }
    case CFPY_AS_HIT:    return PyBool_FromLong(cf_op_hit(op));
    case CFPY_AS_NUMBER: return PyLong_FromLongLong(cf_op_number(op));
    case CFPY_AS_PAGE:   return page_result(op);
    case CFPY_AS_SWEEP:  return sweep_result(op);
    case CFPY_AS_RECORDS: return cfpy_records_result(op);
    default:             Py_RETURN_NONE;
    }
}

static bool reads(const cfpy_call *call)
{
    if (call->what == CFPY_SUBMIT)
        return call->request.kind == CF_OP_GET || call->request.kind == CF_OP_SCAN;
    if (call->what == CFPY_RECORDS)
        return call->records->reads;
    return call->what == CFPY_STORAGE_GET || call->what == CFPY_SECONDARY_GET;
}

/* Submits, and takes care that the slices that `value` and `expected` lend are released. */
static PyObject *perform(cfpy_store *self, const cfpy_call *call)
{
    if (self->asynchronous)
        return cfpy_op_submit(self, call);

    int64_t    left;
    cfpy_loop *loop = cfpy_checkout(self, reads(call), &left);
    if (loop == NULL)
        return NULL;
    cf_op    *op;
    PyObject *result = NULL;
    int       rc = cfpy_submit(loop->store, call, left, NULL, NULL, &op);
    if (op == NULL)
        cfpy_raise(self->state, rc, CF_NOT_APPLIED, "no memory for an operation");
    else if (rc != CF_PENDING || cfpy_wait(loop, op) == 0)
        result = cfpy_result(self->state, op, call->mode);
    cf_op_free(op);
    cfpy_checkin(loop);
    return result;
}

/* An argument was refused. The async store says so where it is awaited, as it says everything. */
static PyObject *refuse(cfpy_store *self)
{
    return self->asynchronous ? cfpy_op_failed(self) : NULL;
}

static PyObject *not_open(cfpy_store *self)
{
    (void)self; /* __init__ was not called: there is no state to make our own error with */
    PyErr_SetString(PyExc_RuntimeError, "this store was never opened");
    return NULL;
}

#define SELF(object)                                                                                                          \
    cfpy_store *self = (cfpy_store *)(object);                                                                                \
    if (self->state == NULL)                                                                                                  \
        return not_open(self);                                                                                                \
    cfpy_names *names = &self->state->names;                                                                                  \
    (void)names

#define FASTCALL PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames

/* The most frequent way of calling: one argument, by position. */
#define ONE(name_text, field)                                                                                                 \
    PyObject *given[1];                                                                                                       \
    if (nargs == 1 && kwnames == NULL) {                                                                                      \
        given[0] = args[0];                                                                                                   \
    } else {                                                                                                                  \
        PyObject *const wanted[] = {names->field};                                                                            \
        if (cfpy_arguments(name_text, args, nargs, kwnames, wanted, 1, 1, 1, given) < 0)                                      \
            return NULL;                                                                                                      \
    }

static PyObject *keyed(cfpy_store *self, int kind, cfpy_mode mode, PyObject *key)
{
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = mode, .request = {.kind = kind}};
    if (cfpy_text(self->state, key, "a key", &call.request.key) < 0)
        return refuse(self);
    return perform(self, &call);
}

/* -------------------------------------------------------------------------------------------------------- operations -- */

static PyObject *store_get(FASTCALL)
{
    SELF(object);
    ONE("get", key)
    return keyed(self, CF_OP_GET, CFPY_AS_TEXT, given[0]);
}

static PyObject *store_get_bytes(FASTCALL)
{
    SELF(object);
    ONE("get_bytes", key)
    return keyed(self, CF_OP_GET, CFPY_AS_BYTES, given[0]);
}

static PyObject *store_delete(FASTCALL)
{
    SELF(object);
    ONE("delete", key)
    return keyed(self, CF_OP_DELETE, CFPY_AS_HIT, given[0]);
}

/* What an error gave, given back. Not given and None are none. */
static int receipt_of(cfpy_state *state, PyObject *given, cf_request *request)
{
    if (given == NULL || given == Py_None)
        return 0;
    if (cfpy_text(state, given, "receipt", &request->receipt) < 0)
        return -1;
    if (request->receipt.len > 0)
        return 0;
    cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "the receipt is none that a failed call gave"); /* to the core, empty is not given */
    return -1;
}

static PyObject *pop(cfpy_store *self, const char *name, cfpy_mode mode, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cfpy_names *names = &self->state->names;
    if (nargs == 1 && kwnames == NULL)
        return keyed(self, CF_OP_POP, mode, args[0]);
    PyObject       *given[2];
    PyObject *const wanted[] = {names->key, names->receipt};
    if (cfpy_arguments(name, args, nargs, kwnames, wanted, 2, 1, 1, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = mode, .request = {.kind = CF_OP_POP}};
    if (cfpy_text(self->state, given[0], "a key", &call.request.key) < 0 || receipt_of(self->state, given[1], &call.request) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_pop(FASTCALL)
{
    SELF(object);
    return pop(self, "pop", CFPY_AS_TEXT, args, nargs, kwnames);
}

static PyObject *store_pop_bytes(FASTCALL)
{
    SELF(object);
    return pop(self, "pop_bytes", CFPY_AS_BYTES, args, nargs, kwnames);
}

static PyObject *store_set(FASTCALL)
{
    SELF(object);
    enum { KEY, VALUE, TTL, EXPIRES_AT, IF_ABSENT, IF_PRESENT, IF_EQUAL, KEEP_TTL, RECEIPT, COUNT };
    PyObject *given[COUNT];
    if (nargs == 2 && kwnames == NULL) {
        memset(given, 0, sizeof given);
        given[KEY] = args[0];
        given[VALUE] = args[1];
    } else {
        PyObject *const wanted[] = {names->key,        names->value,    names->ttl,      names->expires_at, names->if_absent,
                                    names->if_present, names->if_equal, names->keep_ttl, names->receipt};
        if (cfpy_arguments("set", args, nargs, kwnames, wanted, COUNT, 2, 2, given) < 0)
            return NULL;
    }

    cfpy_state *state = self->state;
    cfpy_call   call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_HIT, .request = {.kind = CF_OP_SET}};
    cf_request *request = &call.request;
    cfpy_bytes  value = {.buffered = false}, expected = {.buffered = false};
    PyObject   *result = NULL;

    if (cfpy_text(state, given[KEY], "a key", &request->key) < 0 || cfpy_value(state, given[VALUE], "a value", &value) < 0)
        return refuse(self);
    request->value = value.slice;
    bool fine = cfpy_flag(state, given[IF_ABSENT], "if_absent", CF_IF_ABSENT, &request->flags) == 0 &&
                cfpy_flag(state, given[IF_PRESENT], "if_present", CF_IF_PRESENT, &request->flags) == 0 &&
                cfpy_flag(state, given[KEEP_TTL], "keep_ttl", CF_KEEP_TTL, &request->flags) == 0;
    if (fine && given[TTL] != NULL && given[TTL] != Py_None) {
        request->flags |= CF_TTL;
        fine = cfpy_ttl(state, given[TTL], &request->ttl_ms) == 0;
    }
    if (fine && given[EXPIRES_AT] != NULL && given[EXPIRES_AT] != Py_None) {
        request->flags |= CF_EXPIRES_AT;
        fine = cfpy_instant(state, given[EXPIRES_AT], &request->expires_at_ms) == 0;
    }
    if (fine && given[IF_EQUAL] != NULL && given[IF_EQUAL] != Py_None) {
        request->flags |= CF_IF_EQUAL;
        fine = cfpy_value(state, given[IF_EQUAL], "if_equal", &expected) == 0;
        request->expected = expected.slice;
    }
    fine = fine && receipt_of(state, given[RECEIPT], request) == 0;
    result = fine ? perform(self, &call) : refuse(self);
    cfpy_bytes_release(&value);
    cfpy_bytes_release(&expected);
    return result;
}

static PyObject *store_touch(FASTCALL)
{
    SELF(object);
    PyObject       *given[2];
    PyObject *const wanted[] = {names->key, names->ttl};
    if (cfpy_arguments("touch", args, nargs, kwnames, wanted, 2, 2, 2, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_HIT, .request = {.kind = CF_OP_TOUCH, .flags = CF_TTL}};
    if (cfpy_text(self->state, given[0], "a key", &call.request.key) < 0 ||
        cfpy_ttl(self->state, given[1], &call.request.ttl_ms) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_incr(FASTCALL)
{
    SELF(object);
    PyObject       *given[4];
    PyObject *const wanted[] = {names->key, names->by, names->ttl, names->receipt};
    if (cfpy_arguments("incr", args, nargs, kwnames, wanted, 4, 3, 1, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_NUMBER, .request = {.kind = CF_OP_INCR, .by = 1}};
    if (cfpy_text(self->state, given[0], "a key", &call.request.key) < 0 ||
        (given[1] != NULL && cfpy_integer(self->state, given[1], "by", &call.request.by) < 0))
        return refuse(self);
    if (given[2] != NULL && given[2] != Py_None) {
        call.request.flags |= CF_TTL;
        if (cfpy_ttl(self->state, given[2], &call.request.ttl_ms) < 0)
            return refuse(self);
    }
    if (receipt_of(self->state, given[3], &call.request) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_count(FASTCALL)
{
    SELF(object);
    PyObject       *given[1];
    PyObject *const wanted[] = {names->prefix};
    if (cfpy_arguments("count", args, nargs, kwnames, wanted, 1, 1, 0, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_NUMBER, .request = {.kind = CF_OP_COUNT}};
    if (given[0] != NULL && cfpy_text(self->state, given[0], "a prefix", &call.request.key) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_clear(FASTCALL)
{
    SELF(object);
    PyObject       *given[2];
    PyObject *const wanted[] = {names->prefix, names->force};
    if (cfpy_arguments("clear", args, nargs, kwnames, wanted, 2, 2, 0, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_NUMBER, .request = {.kind = CF_OP_CLEAR}};
    if ((given[0] != NULL && cfpy_text(self->state, given[0], "a prefix", &call.request.key) < 0) ||
        cfpy_flag(self->state, given[1], "force", CF_FORCE, &call.request.flags) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *page_at(cfpy_store *self, cfpy_call *call, PyObject *at)
{
    cfpy_bytes cursor = {.buffered = false};
    if (at != Py_None && cfpy_value(self->state, at, "a cursor", &cursor) < 0)
        return refuse(self);
    call->request.cursor = cursor.slice;
    PyObject *page = perform(self, call);
    cfpy_bytes_release(&cursor);
    return page;
}

static PyObject *paged(cfpy_store *self, const char *name, int kind, cfpy_mode mode, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject       *given[2];
    PyObject *const wanted[] = {self->state->names.prefix, self->state->names.cursor};
    if (cfpy_arguments(name, args, nargs, kwnames, wanted, 2, 2, 2, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = mode, .request = {.kind = kind}};
    if (cfpy_text(self->state, given[0], "a prefix", &call.request.key) < 0)
        return refuse(self);
    return page_at(self, &call, given[1]);
}

static PyObject *store_page(FASTCALL)
{
    SELF(object);
    return paged(self, "_page", CF_OP_SCAN, CFPY_AS_PAGE, args, nargs, kwnames);
}

static PyObject *store_reseal(FASTCALL)
{
    SELF(object);
    return paged(self, "_reseal", CF_OP_RESEAL, CFPY_AS_SWEEP, args, nargs, kwnames);
}

static PyObject *store_reseal_tokens(FASTCALL)
{
    SELF(object);
    ONE("_reseal_tokens", cursor)
    cfpy_call call = {.what = CFPY_SUBMIT, .mode = CFPY_AS_SWEEP, .request = {.kind = CF_OP_RESEAL, .flags = CF_TOKENS}};
    return page_at(self, &call, given[0]);
}

/* -------------------------------------------------------------------------------------------------------- interfaces -- */

static PyObject *store_storage_get(FASTCALL)
{
    SELF(object);
    ONE("_storage_get", id)
    cfpy_call call = {.what = CFPY_STORAGE_GET, .mode = CFPY_AS_TEXT, .request = {.kind = CF_OP_GET}};
    if (cfpy_text(self->state, given[0], "an id", &call.request.key) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_storage_set(FASTCALL)
{
    SELF(object);
    PyObject       *given[2];
    PyObject *const wanted[] = {names->id, names->state};
    if (cfpy_arguments("_storage_set", args, nargs, kwnames, wanted, 2, 2, 2, given) < 0)
        return NULL;
    cfpy_call call = {.what = CFPY_STORAGE_SET, .mode = CFPY_AS_HIT, .request = {.kind = CF_OP_SET}};
    if (cfpy_text(self->state, given[0], "an id", &call.request.key) < 0 ||
        (given[1] != Py_None && cfpy_text(self->state, given[1], "a state", &call.request.value) < 0))
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_secondary_set(FASTCALL)
{
    SELF(object);
    PyObject       *given[4];
    PyObject *const wanted[] = {names->key, names->value, names->ttl, names->default_ttl};
    if (cfpy_arguments("_secondary_set", args, nargs, kwnames, wanted, 4, 4, 4, given) < 0)
        return NULL;
    cfpy_call  call = {.what = CFPY_SECONDARY_SET, .mode = CFPY_AS_NONE, .request = {.kind = CF_OP_SET}};
    cfpy_bytes value;
    if (cfpy_text(self->state, given[0], "a key", &call.request.key) < 0 ||
        cfpy_text_value(self->state, given[1], "a value", &value) < 0 ||
        cfpy_integer(self->state, given[3], "default_ttl", &call.default_ttl) < 0)
        return refuse(self);
    call.request.value = value.slice;
    if (given[2] != Py_None) {
        call.has_seconds = true;
        if (cfpy_seconds(self->state, given[2], "ttl", &call.seconds) < 0)
            return refuse(self);
    }
    return perform(self, &call);
}

static PyObject *secondary_keyed(cfpy_store *self, int what, int kind, cfpy_mode mode, PyObject *key)
{
    cfpy_call call = {.mode = mode, .request = {.kind = kind}};
    call.what = what;
    if (cfpy_text(self->state, key, "a key", &call.request.key) < 0)
        return refuse(self);
    return perform(self, &call);
}

static PyObject *store_secondary_get(FASTCALL)
{
    SELF(object);
    ONE("_secondary_get", key)
    return secondary_keyed(self, CFPY_SECONDARY_GET, CF_OP_GET, CFPY_AS_TEXT, given[0]);
}

static PyObject *store_secondary_delete(FASTCALL)
{
    SELF(object);
    ONE("_secondary_delete", key)
    return secondary_keyed(self, CFPY_SECONDARY_DELETE, CF_OP_DELETE, CFPY_AS_NONE, given[0]);
}

static PyObject *store_secondary_pop(FASTCALL)
{
    SELF(object);
    ONE("_secondary_pop", key)
    return secondary_keyed(self, CFPY_SECONDARY_POP, CF_OP_POP, CFPY_AS_TEXT, given[0]);
}

static PyObject *records(cfpy_store *self, const cfpy_records *asked)
{
    /* The kind only names the operation. */
    const cfpy_call call = {.what = CFPY_RECORDS, .mode = CFPY_AS_RECORDS, .request = {.kind = asked->reads ? CF_OP_FIND : CF_OP_UPDATE}, .records = asked};
    return perform(self, &call);
}

static PyObject *store_accounts(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    SELF(object);
    cfpy_records asked;
    return cfpy_accounts_take(self->state, args, nargs, &asked) < 0 ? refuse(self) : records(self, &asked);
}

static PyObject *store_sessions(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    SELF(object);
    cfpy_records asked;
    return cfpy_sessions_take(self->state, args, nargs, &asked) < 0 ? refuse(self) : records(self, &asked);
}

/* ------------------------------------------------------------------------------------------------------------- life -- */

/* Whether a URL is sqlite::memory:, also with % and two digits in place of a character. */
static bool is_private(cf_slice url)
{
    static const char name[] = "sqlite::memory:";
    size_t            at = 0;
    for (size_t i = 0; i < sizeof name - 1; i++, at++) {
        char digits[3] = {0};
        if (at >= url.len)
            return false;
        if (url.ptr[at] == name[i])
            continue;
        if (url.ptr[at] != '%' || url.len - at < 3)
            return false;
        memcpy(digits, url.ptr + at + 1, 2);
        if (strtol(digits, NULL, 16) != name[i])
            return false;
        at += 2;
    }
    return true;
}

static void drop_keys(cfpy_store *self)
{
    volatile unsigned char *at = (volatile unsigned char *)self->keys;
    for (size_t i = 0; i < self->options.key_count * sizeof *self->keys; i++)
        at[i] = 0;
    PyMem_Free(self->keys);
    self->keys = NULL;
    self->options.key_count = 0;
}

/* What at_rest.py has put together: a byte of flags, eight of plain_until, then records of an id in four bytes and a key. */
static int take_keys(cfpy_store *self, cfpy_state *state, PyObject *packed, cf_open_options *options)
{
    enum { HEAD = 1 + 8, RECORD = 4 + sizeof self->keys->bytes };
    char      *start;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(packed, &start, &length) < 0)
        return -1;
    const unsigned char *at = (const unsigned char *)start;
    size_t               count = length > HEAD ? (size_t)(length - HEAD) / RECORD : 0;
    if (length < HEAD || (size_t)(length - HEAD) != count * RECORD) {
        cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "the store's keys are not as at_rest.py makes them");
        return -1;
    }
    options->seal_values = *at & 1;
    options->hash_keys = *at & 2;
    uint64_t until = 0;
    for (at++; at < (const unsigned char *)start + HEAD; at++)
        until = until << 8 | *at;
    options->plain_until_ms = (int64_t)until;
    drop_keys(self); /* of an opening that failed */
    if (count == 0)
        return 0;
    self->keys = PyMem_Malloc(count * sizeof *self->keys);
    if (self->keys == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++, at += RECORD) {
        self->keys[i].id = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        memcpy(self->keys[i].bytes, at + 4, sizeof self->keys[i].bytes);
    }
    self->options.key_count = options->key_count = count;
    options->keys = self->keys;
    return 0;
}

static PyObject *store_open(PyObject *object, PyTypeObject *defining, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cfpy_store *self = (cfpy_store *)object;
    cfpy_state *state = PyType_GetModuleState(defining);
    PyObject   *module = PyType_GetModule(defining);
    if (state == NULL || module == NULL)
        return NULL;
    if (self->state != NULL)
        return cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "this store has been opened already");

    enum { TARGET, FLAGS, PREFIX, TTL, TIMEOUT, STAGE, LINK, CONNECTIONS, AT_REST, COUNT };
    cfpy_names     *names = &state->names;
    PyObject       *given[COUNT];
    PyObject *const wanted[] = {names->target,  names->flags, names->prefix, names->ttl,
                                names->timeout, names->stage, names->link,   names->connections, names->at_rest};
    if (cfpy_arguments("_open", args, nargs, kwnames, wanted, COUNT, COUNT, COUNT, given) < 0)
        return NULL;

    cf_open_options options = {.size = sizeof options};
    cf_error        error;
    double          seconds;
    int64_t         connections;
    long            flags = PyLong_AsLong(given[FLAGS]);
    cf_slice        url;
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    if (cfpy_integer(state, given[CONNECTIONS], "max_connections", &connections) < 0)
        return NULL;
    if (connections < 1 || connections > CFPY_CONNECTIONS)
        return cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "max_connections must be from 1 to 1000");
    if (cfpy_text(state, given[PREFIX], "prefix", &options.prefix) < 0 ||
        (given[TTL] != Py_None && cfpy_ttl(state, given[TTL], &options.ttl_ms) < 0) ||
        cfpy_seconds(state, given[TIMEOUT], "timeout", &seconds) < 0)
        return NULL;
    if (cf_timeout_from_seconds(seconds, &options.timeout_ms, &error) != CF_OK)
        return cfpy_raise_error(state, &error);
    if (given[STAGE] != Py_None && !PyObject_TypeCheck(given[STAGE], state->stage_type))
        return cfpy_raise_type(state, "stage", "a Stage", given[STAGE]);

    if (take_keys(self, state, given[AT_REST], &options) < 0)
        return NULL;
    if (PyUnicode_Check(given[TARGET])) {
        if (cfpy_text(state, given[TARGET], "the URL", &url) < 0)
            return NULL;
        self->single = url.len >= 7 && memcmp(url.ptr, "memory:", 7) == 0;
        self->connections = self->single ? 0 : (unsigned)connections;
        if (is_private(url))
            self->connections = 1; /* a second loop would have a second database */
        else
            self->spare = url.len >= 7 && memcmp(url.ptr, "sqlite:", 7) == 0;
        self->url = given[TARGET];
        Py_INCREF(self->url);
    } else {
        self->host = cfpy_host_of(state, module, given[TARGET], (unsigned)flags);
        if (self->host == NULL)
            return NULL;
    }
    self->state = state;
    self->module = module;
    Py_INCREF(module);
    self->asynchronous = given[LINK] != Py_None;
    self->prefix = given[PREFIX];
    Py_INCREF(self->prefix);
    if (given[STAGE] != Py_None) {
        self->stage = given[STAGE];
        Py_INCREF(self->stage);
    }
    self->options = options;
    if (self->asynchronous) {
        self->link = given[LINK];
        Py_INCREF(self->link);
        self->tasks = PyDict_New();
        if (self->tasks == NULL || cfpy_op_prepare(self) < 0)
            return NULL;
    }
    if (cfpy_loop_open(self) < 0)
        return NULL;
    self->open = true;
    Py_RETURN_NONE;
}

/* close() in store.py and aio.py: False when calls of other threads are still running, of which the last will call `notify`.
 * The second time: nobody waits for that any more. */
static PyObject *store_close(PyObject *object, PyObject *notify)
{
    SELF(object);
    if (!self->open) {
        Py_CLEAR(self->notify);
        Py_RETURN_TRUE;
    }
    if (cfpy_close(self) == 0)
        Py_RETURN_TRUE;
    Py_INCREF(notify);
    CFPY_REPLACE(self->notify, notify);
    Py_RETURN_FALSE;
}

/* Raises what Backend.close threw, once; gives the awaitable that it returned, once. */
static PyObject *store_closing(PyObject *object, PyObject *unused)
{
    cfpy_store *self = (cfpy_store *)object;
    (void)unused;
    if (self->thrown != NULL) {
        PyObject *thrown = self->thrown;
        self->thrown = NULL;
        cfpy_raise_object(thrown);
        Py_DECREF(thrown);
        return NULL;
    }
    PyObject *closing = self->closing;
    if (closing == NULL)
        Py_RETURN_NONE;
    self->closing = NULL;
    return closing;
}

static PyObject *store_is_closed(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((cfpy_store *)object)->open);
}

/* us_64, us_128 ... us_more: the histogram, as {bound: count}. */
static int set_latency(PyObject *latencies, const char *bound, PyObject *count)
{
    PyObject *key = strcmp(bound, "more") == 0 ? PyFloat_FromDouble(Py_HUGE_VAL) : PyLong_FromString(bound, NULL, 10);
    int       rc = key ? PyObject_SetItem(latencies, key, count) : -1;
    Py_XDECREF(key);
    return rc;
}

static PyObject *store_stats(PyObject *object, PyObject *unused)
{
    SELF(object);
    (void)unused;
    if (!self->open)
        return cfpy_raise(self->state, CF_ECLOSED, CF_NOT_APPLIED, "the store is closed");
    cfpy_figures sum;
    cfpy_figures_of(self, &sum);
    PyObject *figures = PyDict_New(), *latencies = NULL;
    int       rc = figures ? 0 : -1;
    for (int i = 0; i < sum.count && rc == 0; i++) {
        const char *name = sum.of[i].name;
        PyObject   *value = PyLong_FromLongLong(sum.of[i].value);
        if (value == NULL)
            rc = -1;
        else if (strncmp(name, "us_", 3) != 0)
            rc = PyDict_SetItemString(figures, name, value);
        else if (latencies != NULL)
            rc = set_latency(latencies, name + 3, value);
        else if ((latencies = PyDict_New()) == NULL || PyDict_SetItemString(figures, "latency_us", latencies) < 0)
            rc = -1;
        else
            rc = set_latency(latencies, name + 3, value);
        Py_XDECREF(value);
    }
    Py_XDECREF(latencies);
    if (rc < 0)
        Py_CLEAR(figures);
    return figures;
}

/* ------------------------------------------------------------------------------------------------------------ async -- */

/* The descriptor is readable. Gives the descriptor to watch from now on (another one after a fork), or -1 when closed. */
static PyObject *store_run(PyObject *object, PyObject *unused)
{
    SELF(object);
    (void)unused;
    if (!self->open)
        return PyLong_FromLong(-1);
    cfpy_loop *loop = cfpy_checkout(self, false, NULL);
    if (loop == NULL)
        return NULL;
    bool outer = loop->depth == 1 && self->running == NULL;
    cfpy_op_stepping(self, loop, outer);
    int rc = loop->depth == 1 ? cf_loop_run(loop->loop, 0) : 0;
    cfpy_checkin(loop);
    if (outer && cfpy_op_step(self) < 0)
        return NULL;
    if (rc < 0)
        return cfpy_raise(self->state, rc, CF_UNKNOWN, "the loop of an AsyncStore cannot run now");
    self->watched = self->open ? cf_loop_fd(self->loops->loop) : -1;
    return PyLong_FromLong(self->watched);
}

static PyObject *store_flush(PyObject *object, PyObject *unused)
{
    SELF(object);
    (void)unused;
    cfpy_op_flush(self);
    self->flushing = false;
    Py_RETURN_NONE;
}

static PyObject *store_settle(FASTCALL)
{
    SELF(object);
    PyObject       *given[3];
    PyObject *const wanted[] = {names->ticket, names->value, names->error};
    if (cfpy_arguments("_settle", args, nargs, kwnames, wanted, 3, 3, 3, given) < 0)
        return NULL;
    unsigned long long ticket = PyLong_AsUnsignedLongLong(given[0]);
    if (PyErr_Occurred())
        return NULL;
    if (!self->open) /* the late result of a task that was not cancelled in time */
        Py_RETURN_NONE;
    cfpy_loop *loop = cfpy_checkout(self, false, NULL);
    if (loop == NULL)
        return NULL;
    cfpy_host_settle(loop, ticket, given[1], given[2] == Py_None ? NULL : given[2]);
    cfpy_checkin(loop);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------------------------------------------- types -- */

static int store_traverse(PyObject *object, visitproc visit, void *arg)
{
    cfpy_store *self = (cfpy_store *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->module);
    Py_VISIT(self->url);
    Py_VISIT((PyObject *)self->host);
    Py_VISIT(self->stage);
    Py_VISIT(self->prefix);
    Py_VISIT(self->link);
    Py_VISIT(self->tasks);
    Py_VISIT(self->notify);
    Py_VISIT(self->thrown);
    Py_VISIT(self->closing);
    Py_VISIT(self->event_loop);
    return 0;
}

/* The store was dropped without close(). */
static void store_finalize(PyObject *object)
{
    cfpy_store *self = (cfpy_store *)object;
    PyObject   *type, *value, *traceback;
    if (!self->open)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (self->host != NULL && !cfpy_host_hooks(self->host) &&
        PyErr_WarnFormat(PyExc_ResourceWarning, 1, "a store over a backend was dropped without close()") < 0)
        PyErr_WriteUnraisable(object);
    if (self->link != NULL) {
        PyObject *stopped = PyObject_CallMethodObjArgs(self->link, self->state->names.stop, NULL);
        if (stopped == NULL)
            PyErr_WriteUnraisable(object);
        Py_XDECREF(stopped);
    }
    cfpy_close(self);
    if (self->thrown != NULL) {
        PyObject *thrown = self->thrown;
        self->thrown = NULL;
        cfpy_raise_object(thrown);
        Py_DECREF(thrown);
        PyErr_WriteUnraisable(object);
    }
    PyErr_Restore(type, value, traceback);
}

static int store_clear_slot(PyObject *object)
{
    cfpy_store *self = (cfpy_store *)object;
    if (self->open || self->loops != NULL)
        return 0; /* resurrected, or in use by a thread that ends with the process */
    Py_CLEAR(self->host);
    Py_CLEAR(self->link);
    Py_CLEAR(self->tasks);
    Py_CLEAR(self->notify);
    Py_CLEAR(self->thrown);
    Py_CLEAR(self->closing);
    Py_CLEAR(self->event_loop);
    return 0;
}

static void store_dealloc(PyObject *object)
{
    cfpy_store   *self = (cfpy_store *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->open)
        store_finalize(object);
    store_clear_slot(object);
    Py_CLEAR(self->stage);
    Py_CLEAR(self->url);
    Py_CLEAR(self->prefix);
    Py_CLEAR(self->module);
    drop_keys(self);
    freefunc release = (freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

#define KEY_DOC "key: text of 1 to 1024 bytes in UTF-8, without NUL, CR or LF."
#define RECEIPT_DOC                                                                                                            \
    "receipt: what the error of the same call had as `receipt`, when its answer was lost: gives that call's answer if it took effect,\n" \
    "and otherwise acts now. For a short while only: see Error.receipt."

PyDoc_STRVAR(get_doc, "get($self, key)\n--\n\nThe text under a key, or None. A value that is not UTF-8 is CorruptError: see get_bytes.\n\n" KEY_DOC);
PyDoc_STRVAR(get_bytes_doc, "get_bytes($self, key)\n--\n\nThe bytes under a key, or None.");
PyDoc_STRVAR(set_doc,
             "set($self, key, value, *, ttl=None, expires_at=None, if_absent=False,\n    if_present=False, if_equal=None, keep_ttl=False, receipt=None)\n--\n\n"
             "Stores a value and returns True, or False when a condition did not hold and nothing was changed.\n\n" KEY_DOC "\n"
             "value: text or bytes-like, up to 1 MiB.\n"
             "ttl: seconds it lives, more than 0 and at most ten years; None: the store's ttl.\n"
             "expires_at: instead of ttl, an aware datetime; one that is not in the future deletes.\n"
             "keep_ttl: instead of both, the value that is replaced hands on its expiry.\n"
             "if_absent, if_present: only when there is no value, or one. if_equal: only when the value is exactly this one.\n"
             "The condition is checked and the value stored in one step.\n" RECEIPT_DOC);
PyDoc_STRVAR(delete_doc, "delete($self, key)\n--\n\nDeletes, and returns whether there was a value.");
PyDoc_STRVAR(pop_doc, "pop($self, key, *, receipt=None)\n--\n\n"
                      "Gets and deletes in one step: of any number of concurrent pops of a key exactly one gets the text, the others None.\n"
                      "A value that is not UTF-8 is deleted, and CorruptError says so: see pop_bytes.\n" RECEIPT_DOC);
PyDoc_STRVAR(pop_bytes_doc, "pop_bytes($self, key, *, receipt=None)\n--\n\nAs pop, for bytes.");
PyDoc_STRVAR(touch_doc, "touch($self, key, ttl)\n--\n\n"
                        "Lets a value live for ttl seconds from now, and returns whether there is one. Never changes or creates a value.");
PyDoc_STRVAR(incr_doc, "incr($self, key, by=1, ttl=None, *, receipt=None)\n--\n\n"
                       "Adds to the decimal number under a key in one step and returns the sum. Where there is none it becomes `by`, with this ttl\n"
                       "(None: the store's); a number that is there keeps its expiry. Within +-(2**53 - 1).\n" RECEIPT_DOC);
PyDoc_STRVAR(count_doc, "count($self, prefix=\'\')\n--\n\nHow many keys start with a prefix.");
PyDoc_STRVAR(clear_doc, "clear($self, prefix=\'\', force=False)\n--\n\n"
                        "Deletes every key that starts with a prefix and returns how many. Refused when both this prefix and the store's are empty,\n"
                        "because that would be everybody's keys: force=True means it.");
PyDoc_STRVAR(stats_doc, "stats($self)\n--\n\n"
                        "Figures of this store since it was opened, all of its connections together: see counterfoil.Stats.");
PyDoc_STRVAR(page_doc, "_page($self, prefix, cursor)\n--\n\nOne page of a scan: keys, and the cursor of the next page or None.");
PyDoc_STRVAR(reseal_doc, "_reseal($self, prefix, cursor)\n--\n\n"
                         "One page of a sweep: how many were sealed anew, how many do not open, and the cursor of the next page or None.");
PyDoc_STRVAR(reseal_tokens_doc, "_reseal_tokens($self, cursor)\n--\n\nThe same of a sweep through the tokens of social accounts.");
PyDoc_STRVAR(open_doc, "_open($self, target, flags, prefix, ttl, timeout, stage, link,\n    connections, at_rest)\n--\n\nOpens. For store.py and aio.py.");
PyDoc_STRVAR(close_doc, "_close($self, notify, /)\n--\n\n"
                        "Closes what is idle. False when calls of other threads still run: the last of them calls notify().\n"
                        "The second time: nobody waits for that any more, and what Backend.close throws goes to sys.unraisablehook.");
PyDoc_STRVAR(closing_doc, "_closing($self)\n--\n\nRaises what Backend.close threw, or gives the awaitable that it returned, or None.");
PyDoc_STRVAR(storage_get_doc, "_storage_get($self, id)\n--\n\nStorage.get: the state's JSON text, or None.");
PyDoc_STRVAR(storage_set_doc, "_storage_set($self, id, state)\n--\n\nStorage.set: state is JSON text, or None to delete.");
PyDoc_STRVAR(secondary_set_doc, "_secondary_set($self, key, value, ttl, default_ttl)\n--\n\nSecondaryStorage.set; default_ttl in milliseconds.");
PyDoc_STRVAR(secondary_get_doc, "_secondary_get($self, key)\n--\n\nSecondaryStorage.get.");
PyDoc_STRVAR(secondary_delete_doc, "_secondary_delete($self, key)\n--\n\nSecondaryStorage.delete.");
PyDoc_STRVAR(secondary_pop_doc, "_secondary_pop($self, key)\n--\n\nSecondaryStorage.pop.");
PyDoc_STRVAR(accounts_doc, "_accounts($self, method, kind, record, user, most, /)\n--\n\n"
                           "A method of AccountsStorage: a list of (kind, record), hit, number and None. Records are dicts by the names of schema.def.");
PyDoc_STRVAR(sessions_doc, "_sessions($self, method, record, options, args, /)\n--\n\n"
                           "A method of SessionStorage: a list of (kind, record), hit, number and the cursor of the next page or None.");
PyDoc_STRVAR(run_doc, "_run($self)\n--\n\nHandles what is ready. Gives the descriptor to watch, -1 when closed.");
PyDoc_STRVAR(flush_doc, "_flush($self)\n--\n\nSends what was submitted in this tick.");
PyDoc_STRVAR(settle_doc, "_settle($self, ticket, value, error)\n--\n\nThe task of a coroutine backend has ended: with value, or with error.");

#define FAST METH_FASTCALL | METH_KEYWORDS
#define COMMON_METHODS                                                                                                        \
    {"get", CFPY_METHOD(store_get), FAST, get_doc},                                                                           \
    {"get_bytes", CFPY_METHOD(store_get_bytes), FAST, get_bytes_doc},                                                         \
    {"set", CFPY_METHOD(store_set), FAST, set_doc},                                                                           \
    {"delete", CFPY_METHOD(store_delete), FAST, delete_doc},                                                                  \
    {"pop", CFPY_METHOD(store_pop), FAST, pop_doc},                                                                           \
    {"pop_bytes", CFPY_METHOD(store_pop_bytes), FAST, pop_bytes_doc},                                                         \
    {"touch", CFPY_METHOD(store_touch), FAST, touch_doc},                                                                     \
    {"incr", CFPY_METHOD(store_incr), FAST, incr_doc},                                                                        \
    {"count", CFPY_METHOD(store_count), FAST, count_doc},                                                                     \
    {"clear", CFPY_METHOD(store_clear), FAST, clear_doc},                                                                     \
    {"stats", store_stats, METH_NOARGS, stats_doc},                                                                           \
    {"_page", CFPY_METHOD(store_page), FAST, page_doc},                                                                       \
    {"_reseal", CFPY_METHOD(store_reseal), FAST, reseal_doc},                                                                 \
    {"_reseal_tokens", CFPY_METHOD(store_reseal_tokens), FAST, reseal_tokens_doc},                                            \
    {"_open", CFPY_METHOD(store_open), METH_METHOD | FAST, open_doc},                                                         \
    {"_close", store_close, METH_O, close_doc},                                                                               \
    {"_closing", store_closing, METH_NOARGS, closing_doc},                                                                    \
    {"_storage_get", CFPY_METHOD(store_storage_get), FAST, storage_get_doc},                                                  \
    {"_storage_set", CFPY_METHOD(store_storage_set), FAST, storage_set_doc},                                                  \
    {"_secondary_set", CFPY_METHOD(store_secondary_set), FAST, secondary_set_doc},                                            \
    {"_secondary_get", CFPY_METHOD(store_secondary_get), FAST, secondary_get_doc},                                            \
    {"_secondary_delete", CFPY_METHOD(store_secondary_delete), FAST, secondary_delete_doc},                                   \
    {"_accounts", CFPY_METHOD(store_accounts), METH_FASTCALL, accounts_doc},                                                 \
    {"_sessions", CFPY_METHOD(store_sessions), METH_FASTCALL, sessions_doc},                                                 \
    {"_secondary_pop", CFPY_METHOD(store_secondary_pop), FAST, secondary_pop_doc}

static PyMethodDef store_methods[] = {
    COMMON_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyMethodDef async_store_methods[] = {
    COMMON_METHODS,
    {"_run", store_run, METH_NOARGS, run_doc},
    {"_flush", store_flush, METH_NOARGS, flush_doc},
    {"_settle", CFPY_METHOD(store_settle), FAST, settle_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"closed", store_is_closed, NULL, "Whether the store was closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define COMMON_SLOTS                                                                                                          \
    {Py_tp_new, CFPY_SLOT(PyType_GenericNew)}, {Py_tp_getset, store_getset}, {Py_tp_traverse, CFPY_SLOT(store_traverse)},     \
        {Py_tp_clear, CFPY_SLOT(store_clear_slot)}, {Py_tp_finalize, CFPY_SLOT(store_finalize)},                              \
        {Py_tp_dealloc, CFPY_SLOT(store_dealloc)}

static PyType_Slot store_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "The native part of counterfoil.Store."},
    {Py_tp_methods, store_methods},
    COMMON_SLOTS,
    {0, NULL},
};

static PyType_Slot async_store_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "The native part of counterfoil.aio.AsyncStore: methods return awaitables."},
    {Py_tp_methods, async_store_methods},
    COMMON_SLOTS,
    {0, NULL},
};

PyType_Spec cfpy_store_spec = {
    .name = "counterfoil._native.Store",
    .basicsize = sizeof(cfpy_store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = store_slots,
};

PyType_Spec cfpy_async_store_spec = {
    .name = "counterfoil._native.AsyncStore",
    .basicsize = sizeof(cfpy_store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = async_store_slots,
};
