/* host.c: backends written in Python. One trampoline, `call_method`, stands behind every slot.
 *
 * A host is the shared part of all core stores that are open over one Python object: the object, the table that says what it can, and
 * how many of them there are. The object's close() is called when the last of them goes. The state of the module knows the
 * host of an object (by id, without owning it), so that two stores opened over the same object share its key locks. */
#include "native.h"

struct cfpy_host {
    PyObject_HEAD
    cfpy_state      *state;
    PyObject        *module;
    PyObject        *object;
    PyObject        *name; /* of its type: for sentences */
    const char      *name_text;
    unsigned         flags; /* CFPY_POP ... */
    size_t           stores; /* core stores open over it */
    cf_backend_table table;
};

struct cf_backend {
    cfpy_host *host; /* borrowed: the store that owns the loop holds it */
    cfpy_loop *loop;
};

/* ------------------------------------------------------------------------------------------------- exceptions, types -- */

/* What is attached to an operation: the release may come while the loop's thread waits without the GIL. */
typedef struct thrown {
    cfpy_loop *loop;
    PyObject  *exception;
} thrown;

static void thrown_release(void *object)
{
    thrown *self = object;
    bool    entered = cfpy_enter(self->loop);
    cfpy_loop *loop = self->loop;
    Py_DECREF(self->exception);
    PyMem_Free(self);
    cfpy_leave(loop, entered);
}

PyObject *cfpy_host_thrown(const cf_op *op)
{
    thrown *self = cf_op_attached(op);
    return self ? self->exception : NULL;
}

static const char *method_name(int kind, bool conditional)
{
    switch (kind) {
    case CF_OP_GET:    return "get";
    case CF_OP_SET:    return conditional ? "set_if" : "set";
    case CF_OP_DELETE: return "delete";
    case CF_OP_POP:    return "pop";
    case CF_OP_TOUCH:  return "touch";
    case CF_OP_INCR:   return "incr";
    case CF_OP_HOOK:   return "hook";
    default:           return "scan";
    }
}

static bool reads_only(int kind) { return kind == CF_OP_GET || kind == CF_OP_SCAN; }

static bool is_conditional(const cf_op *op)
{
    return (cf_op_in(op)->flags & (CF_IF_ABSENT | CF_IF_PRESENT | CF_IF_EQUAL)) != 0;
}

static int outcome_of(const cf_op *op) { return reads_only(cf_op_kind(op)) ? CF_NOT_APPLIED : CF_UNKNOWN; }

/* Fails the operation with an exception object, which reaches the caller as it is. */
static int fail_with(cfpy_loop *loop, cf_op *op, PyObject *exception)
{
    thrown *self = PyMem_Malloc(sizeof *self);
    if (self == NULL)
        return cf_op_fail(op, CF_ENOMEM, outcome_of(op), "no memory for an exception of a backend");
    self->loop = loop;
    self->exception = exception;
    Py_INCREF(exception);
    cf_op_attach(op, self, thrown_release);
    return cf_op_fail(op, CF_EHOST, outcome_of(op), "the backend threw");
}

static int fail_with_current(cfpy_loop *loop, cf_op *op)
{
    PyObject *exception = cfpy_caught();
    if (exception == NULL)
        return cf_op_fail(op, CF_ECORRUPT, outcome_of(op), "the backend failed without an exception");
    int rc = fail_with(loop, op, exception);
    Py_DECREF(exception);
    return rc;
}

/* A result that cannot be right: names method and type, never the value. */
static int fail_result(cfpy_host *host, cf_op *op, const char *wanted, PyObject *given)
{
    PyObject   *name = cfpy_type_name(given);
    const char *text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    int         rc = cf_op_fail(op, CF_ECORRUPT, outcome_of(op), "%s.%s must return %s, not %s", host->name_text,
                                method_name(cf_op_kind(op), is_conditional(op)), wanted, text ? text : "this");
    PyErr_Clear();
    Py_XDECREF(name);
    return rc;
}

/* ---------------------------------------------------------------------------------------------------------- results -- */

static int accept_value(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *result)
{
    cfpy_bytes value;
    value.buffered = false;
    if (result == Py_None) {
        cf_op_set_hit(op, false);
        return CF_OK;
    }
    if (PyUnicode_Check(result)) {
        Py_ssize_t  length;
        const char *text = PyUnicode_AsUTF8AndSize(result, &length);
        if (text == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
                return fail_with_current(loop, op);
            PyErr_Clear();
            return cf_op_fail(op, CF_ECORRUPT, outcome_of(op), "%s.%s returned text with a lone surrogate", host->name_text,
                              method_name(cf_op_kind(op), false));
        }
        value.slice = cf_bytes(text, (size_t)length);
    } else if (PyObject_CheckBuffer(result)) {
        if (PyObject_GetBuffer(result, &value.buffer, PyBUF_SIMPLE) < 0) {
            PyErr_Clear();
            return fail_result(host, op, "str, contiguous bytes or None", result);
        }
        value.buffered = true;
        value.slice = cf_bytes(value.buffer.buf, (size_t)value.buffer.len);
    } else {
        return fail_result(host, op, "str, bytes or None", result);
    }
    int rc;
    if (value.slice.len > cf_op_value_max(op)) {
        rc = cf_op_fail(op, CF_ECORRUPT, outcome_of(op), "%s.%s returned a value longer than 1 MiB", host->name_text,
                        method_name(cf_op_kind(op), false));
    } else {
        cf_op_set_hit(op, true);
        rc = cf_op_set_value(op, value.slice);
        if (rc != CF_OK && cf_op_kind(op) == CF_OP_POP)
            rc = cf_op_fail(op, rc, CF_APPLIED, "no memory for the value that was taken");
    }
    cfpy_bytes_release(&value);
    return rc;
}

static int accept_boolean(cfpy_host *host, cf_op *op, PyObject *result, bool none_is_true)
{
    if (result == Py_True || result == Py_False || (none_is_true && result == Py_None)) {
        cf_op_set_hit(op, result != Py_False);
        return CF_OK;
    }
    return fail_result(host, op, none_is_true ? "bool or None" : "bool", result);
}

static int accept_number(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *result)
{
    if (!PyLong_Check(result) || PyBool_Check(result))
        return fail_result(host, op, "int", result);
    int       overflow;
    long long number = PyLong_AsLongLongAndOverflow(result, &overflow);
    if (number == -1 && PyErr_Occurred())
        return fail_with_current(loop, op);
    if (overflow != 0 || number > CF_NUMBER_MAX || number < -CF_NUMBER_MAX)
        return cf_op_fail(op, CF_ECORRUPT, outcome_of(op), "%s.incr returned a number beyond 2**53 - 1", host->name_text);
    cf_op_set_hit(op, true);
    cf_op_set_number(op, number);
    return CF_OK;
}

/* A cursor is whatever the backend likes among str, bytes and int: the first byte says which, so that it comes back as it was. */
static int accept_cursor(cfpy_host *host, cf_op *op, PyObject *cursor)
{
    char        packed[CF_CURSOR_MAX + 1];
    const char *bytes = NULL;
    Py_ssize_t  length = 0;
    PyObject   *digits = NULL;
    char        kind;
    if (cursor == Py_None)
        return CF_OK;
    if (PyUnicode_Check(cursor)) {
        kind = 's';
        bytes = PyUnicode_AsUTF8AndSize(cursor, &length);
    } else if (PyBytes_Check(cursor)) {
        char *start;
        kind = 'b';
        if (PyBytes_AsStringAndSize(cursor, &start, &length) == 0)
            bytes = start;
    } else if (PyLong_Check(cursor) && !PyBool_Check(cursor)) {
        kind = 'i';
        digits = PyNumber_ToBase(cursor, 16);
        bytes = digits ? PyUnicode_AsUTF8AndSize(digits, &length) : NULL;
    } else {
        return fail_result(host, op, "a next cursor that is str, bytes, int or None", cursor);
    }
    int rc;
    if (bytes == NULL || length >= (Py_ssize_t)sizeof packed - 1) {
        PyErr_Clear();
        rc = cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "%s.scan returned a cursor that is too long or not valid Unicode",
                        host->name_text);
    } else {
        packed[0] = kind;
        memcpy(packed + 1, bytes, (size_t)length);
        rc = cf_op_set_cursor(op, cf_bytes(packed, (size_t)length + 1));
    }
    Py_XDECREF(digits);
    return rc;
}

static PyObject *cursor_object(cf_slice cursor)
{
    if (cursor.len == 0)
        Py_RETURN_NONE;
    const char *bytes = cursor.ptr + 1;
    size_t      length = cursor.len - 1;
    if (*cursor.ptr == 'i') {
        char digits[256];
        memcpy(digits, bytes, length);
        digits[length] = '\0';
        return PyLong_FromString(digits, NULL, 16);
    }
    if (*cursor.ptr == 'b')
        return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)length);
    return cfpy_string(cf_bytes(bytes, length));
}

static int accept_keys(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *keys)
{
    if (!PyList_Check(keys) && !PyTuple_Check(keys))
        return fail_result(host, op, "a list of keys, or (keys, next cursor)", keys);
    Py_ssize_t count = PySequence_Size(keys);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject   *key = PySequence_GetItem(keys, i); /* the list may be changed by nobody meanwhile: no Python code runs */
        const char *bytes = NULL;
        Py_ssize_t  length = 0;
        int         rc;
        if (key == NULL)
            return fail_with_current(loop, op);
        if (PyUnicode_Check(key)) {
            bytes = PyUnicode_AsUTF8AndSize(key, &length);
            if (bytes == NULL)
                PyErr_Clear(); /* a lone surrogate: not a key that this library could have written */
        } else if (PyBytes_Check(key)) {
            char *start;
            if (PyBytes_AsStringAndSize(key, &start, &length) == 0)
                bytes = start;
        } else {
            rc = fail_result(host, op, "keys that are str or bytes", key);
            Py_DECREF(key);
            return rc;
        }
        rc = bytes ? cf_op_add_key(op, cf_bytes(bytes, (size_t)length)) : CF_OK;
        Py_DECREF(key);
        if (rc != CF_OK)
            return rc;
    }
    return CF_OK;
}

static int accept_page(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *result)
{
    cf_op_set_hit(op, true);
    if (!PyTuple_Check(result))
        return accept_keys(host, loop, op, result);
    if (PyTuple_Size(result) != 2 || PyUnicode_Check(PyTuple_GetItem(result, 0)))
        return fail_result(host, op, "a list of keys, or (keys, next cursor)", result);
    int rc = accept_keys(host, loop, op, PyTuple_GetItem(result, 0));
    return rc == CF_OK ? accept_cursor(host, op, PyTuple_GetItem(result, 1)) : rc;
}

/* What interfaces/hooks.py has made of an answer: (hit, number, a list of (kind, record)). */
static int accept_records(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *result)
{
    int       hit;
    long long number;
    PyObject *list;
    if (!PyTuple_Check(result) || !PyArg_ParseTuple(result, "pLO", &hit, &number, &list) || !PyList_Check(list)) {
        PyErr_Clear();
        return fail_result(host, op, "what hooks.py makes", result);
    }
    int rc = CF_OK;
    for (Py_ssize_t i = 0; i < PyList_Size(list) && rc == CF_OK; i++) {
        PyObject *kind, *fields;
        cf_record record;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "OO", &kind, &fields) ||
            cfpy_record_take(host->state, cfpy_kind_named(kind), fields, &record) < 0)
            return fail_with_current(loop, op);
        rc = cf_op_add_record(op, &record);
    }
    cf_op_set_hit(op, hit != 0);
    cf_op_set_number(op, number);
    return rc;
}

static int accept(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *result)
{
    switch (cf_op_kind(op)) {
    case CF_OP_GET:
    case CF_OP_POP:    return accept_value(host, loop, op, result);
    case CF_OP_DELETE: return accept_boolean(host, op, result, true);
    case CF_OP_TOUCH:  return accept_boolean(host, op, result, false);
    case CF_OP_INCR:   return accept_number(host, loop, op, result);
    case CF_OP_SCAN:   return accept_page(host, loop, op, result);
    case CF_OP_HOOK:   return accept_records(host, loop, op, result);
    default: /* SET */
        if (is_conditional(op))
            return accept_boolean(host, op, result, false);
        cf_op_set_hit(op, true); /* whatever it returned: dicts and clients return all sorts of things */
        return CF_OK;
    }
}

/* ------------------------------------------------------------------------------------------------------- arguments -- */

static PyObject *value_object(cfpy_host *host, cf_slice value)
{
    return host->flags & CFPY_BINARY ? PyBytes_FromStringAndSize(value.len ? value.ptr : "", (Py_ssize_t)value.len)
                                     : cfpy_string(value);
}

static PyObject *ttl_object(cfpy_host *host, const cf_request *in)
{
    PyObject *seconds = Py_None;
    if (in->ttl_ms > 0)
        seconds = PyFloat_FromDouble((double)in->ttl_ms / 1000.0);
    else
        Py_INCREF(seconds);
    if (seconds == NULL || !(in->flags & CF_KEEP_TTL))
        return seconds;
    PyObject *keep = host->state->keep;
    if (seconds == Py_None)
        Py_INCREF(keep);
    else /* KEEP that says what a new value gets */
        keep = PyObject_CallFunctionObjArgs((PyObject *)Py_TYPE(keep), seconds, NULL);
    Py_DECREF(seconds);
    return keep;
}

/* Hands a method of an AccountsStorage to interfaces/hooks.py. */
static PyObject *call_hook(cfpy_host *host, const cf_op *op)
{
    cf_hook   hook;
    PyObject *method = NULL, *record = NULL, *user = NULL, *result = NULL;
    if (!cf_hook_read(cf_op_in(op)->value, &hook)) {
        PyErr_SetString(PyExc_SystemError, "the core gave no hook");
        return NULL;
    }
    method = PyUnicode_FromString(cf_accounts_method_name(hook.method));
    record = cfpy_record_give(&hook.record);
    if (hook.user.kind >= 0)
        user = cfpy_record_give(&hook.user);
    else
        Py_INCREF(user = Py_None);
    if (method != NULL && record != NULL && user != NULL)
        result = PyObject_CallMethodObjArgs(host->object, host->state->names.hook, method, record, user, NULL);
    Py_XDECREF(method);
    Py_XDECREF(record);
    Py_XDECREF(user);
    return result;
}

/* Calls the method for this operation. NULL with an exception; `*unfit` when a value is not text, before anything was called. */
static PyObject *call_method(cfpy_host *host, const cf_op *op, bool *unfit)
{
    const cf_request *in = cf_op_in(op);
    cfpy_names       *names = &host->state->names;
    PyObject         *object = host->object;
    if (cf_op_kind(op) == CF_OP_HOOK)
        return call_hook(host, op);
    PyObject         *key = cfpy_string(in->key);
    PyObject         *value = NULL, *ttl = NULL, *extra = NULL, *result = NULL;
    if (key == NULL)
        return NULL;

    switch (cf_op_kind(op)) {
    case CF_OP_GET:
        result = PyObject_CallMethodObjArgs(object, names->get, key, NULL);
        break;
    case CF_OP_DELETE:
        result = PyObject_CallMethodObjArgs(object, names->delete_, key, NULL);
        break;
    case CF_OP_POP:
        result = PyObject_CallMethodObjArgs(object, names->pop, key, NULL);
        break;
    case CF_OP_TOUCH:
        ttl = ttl_object(host, in);
        result = ttl ? PyObject_CallMethodObjArgs(object, names->touch, key, ttl, NULL) : NULL;
        break;
    case CF_OP_INCR:
        value = PyLong_FromLongLong(in->by);
        ttl = value ? ttl_object(host, in) : NULL;
        result = ttl ? PyObject_CallMethodObjArgs(object, names->incr, key, value, ttl, NULL) : NULL;
        break;
    case CF_OP_SCAN:
        value = cursor_object(in->cursor);
        extra = value ? PyLong_FromSize_t(in->limit) : NULL;
        result = extra ? PyObject_CallMethodObjArgs(object, names->scan, key, value, extra, NULL) : NULL;
        break;
    default: { /* SET */
        const char *condition = in->flags & CF_IF_ABSENT ? "absent" : in->flags & CF_IF_PRESENT ? "present" : "equal";
        PyObject   *word = NULL;
        value = value_object(host, in->value);
        if (value != NULL && in->flags & CF_IF_EQUAL) {
            extra = value_object(host, in->expected);
        } else if (value != NULL) {
            extra = Py_None;
            Py_INCREF(extra);
        }
        if (extra == NULL) {
            *unfit = PyErr_ExceptionMatches(PyExc_UnicodeError) != 0;
            break;
        }
        ttl = ttl_object(host, in);
        if (ttl == NULL)
            break;
        if (!is_conditional(op)) {
            result = PyObject_CallMethodObjArgs(object, names->set, key, value, ttl, NULL);
            break;
        }
        word = PyUnicode_FromString(condition);
        if (word != NULL)
            result = PyObject_CallMethodObjArgs(object, names->set_if, key, value, ttl, word, extra, NULL);
        Py_XDECREF(word);
        break;
    }
    }
    Py_DECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(ttl);
    Py_XDECREF(extra);
    return result;
}

/* ------------------------------------------------------------------------------------------------------ pending calls -- */

static bool is_awaitable(PyObject *object)
{
    return PyType_GetSlot(Py_TYPE(object), Py_am_await) != NULL;
}

static void drop_awaitable(PyObject *awaitable)
{
    PyObject *closed = PyObject_CallMethod(awaitable, "close", NULL); /* a coroutine: or it warns that it was never awaited */
    if (closed == NULL)
        PyErr_Clear();
    Py_XDECREF(closed);
}

/* The method returned an awaitable: a task settles the operation later. */
static int begin(cfpy_host *host, cfpy_loop *loop, cf_op *op, PyObject *awaitable)
{
    cfpy_store *store = loop->owner;
    if (!store->asynchronous) {
        char what[160];
        PyOS_snprintf(what, sizeof what, "under a blocking Store the result of %.60s.%s", host->name_text,
                      method_name(cf_op_kind(op), is_conditional(op)));
        drop_awaitable(awaitable);
        cfpy_raise_type(store->state, what, "a value", awaitable);
        return fail_with_current(loop, op);
    }
    PyObject *ticket = PyLong_FromUnsignedLongLong(cf_op_ticket(op));
    PyObject *task = ticket ? PyObject_CallMethodObjArgs(store->link, store->state->names.spawn, awaitable, ticket, NULL) : NULL;
    int       rc = CF_PENDING;
    if (task == NULL || PyDict_SetItem(store->tasks, ticket, task) < 0) {
        rc = fail_with_current(loop, op);
        if (task == NULL)
            drop_awaitable(awaitable);
    }
    Py_XDECREF(ticket);
    Py_XDECREF(task);
    return rc;
}

static int run_slot(cf_backend *self, cf_op *op)
{
    cfpy_host *host = self->host;
    bool       entered = cfpy_enter(self->loop), unfit = false;
    int        rc;
    Py_INCREF((PyObject *)host);
    PyObject *result = call_method(host, op, &unfit);
    if (unfit) {
        PyErr_Clear();
        rc = cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "%s keeps text, and a value is not UTF-8: with binary = True it gets bytes, which sealed values are",
                        host->name_text);
    } else if (result == NULL) {
        rc = fail_with_current(self->loop, op);
    } else if (is_awaitable(result)) {
        rc = begin(host, self->loop, op, result);
    } else {
        rc = accept(host, self->loop, op, result);
    }
    Py_XDECREF(result);
    Py_DECREF((PyObject *)host);
    cfpy_leave(self->loop, entered);
    return rc;
}

void cfpy_host_settle(cfpy_loop *loop, uint64_t ticket, PyObject *value, PyObject *error)
{
    cfpy_store *store = loop->owner;
    PyObject   *number = PyLong_FromUnsignedLongLong(ticket);
    if (number == NULL || PyDict_DelItem(store->tasks, number) < 0)
        PyErr_Clear();
    Py_XDECREF(number);

    cf_op *op = cf_loop_op(loop->loop, ticket);
    if (op == NULL)
        return; /* it has ended otherwise: deadline, cancel, close */
    int rc = error ? fail_with(loop, op, error) : accept(store->host, loop, op, value);
    cf_op_finish(op, rc);
}

static int cancel_slot(cf_backend *self, cf_op *op, int why)
{
    cfpy_store *store = self->loop->owner;
    (void)why;
    if (store->tasks == NULL)
        return CF_UNKNOWN;
    bool      entered = cfpy_enter(self->loop);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *number = PyLong_FromUnsignedLongLong(cf_op_ticket(op));
    PyObject *task = number ? PyDict_GetItemWithError(store->tasks, number) : NULL;
    if (task != NULL) {
        Py_INCREF(task);
        PyObject *done = PyDict_DelItem(store->tasks, number) == 0
                             ? PyObject_CallMethodObjArgs(task, store->state->names.cancel, NULL)
                             : NULL;
        if (done == NULL)
            PyErr_WriteUnraisable(task);
        Py_XDECREF(done);
        Py_DECREF(task);
    }
    Py_XDECREF(number);
    PyErr_Restore(type, value, traceback);
    cfpy_leave(self->loop, entered);
    return CF_UNKNOWN;
}

/* ------------------------------------------------------------------------------------------------------ open and close -- */

static int close_slot(cf_backend *self, cf_error *error)
{
    cfpy_loop  *loop = self->loop;
    cfpy_host  *host = self->host;
    cfpy_store *store = loop->owner;
    bool        entered = cfpy_enter(loop);
    int         rc = CF_OK;
    PyMem_Free(self);
    if (--host->stores == 0 && host->flags & CFPY_CLOSE) {
        Py_INCREF((PyObject *)host);
        PyObject *result = PyObject_CallMethodObjArgs(host->object, host->state->names.close, NULL);
        if (result == NULL) {
            CFPY_REPLACE(loop->thrown, cfpy_caught());
            rc = cf_error_set(error, CF_EHOST, CF_APPLIED, "%s.close threw", host->name_text);
        } else if (is_awaitable(result)) {
            if (store->asynchronous && store->closing == NULL) {
                store->closing = result;
                result = NULL;
            } else {
                drop_awaitable(result);
                cfpy_raise_type(host->state, "under a blocking Store the result of close", "a value", result);
                CFPY_REPLACE(loop->thrown, cfpy_caught());
                rc = cf_error_set(error, CF_EHOST, CF_APPLIED, "%s.close must not be a coroutine here", host->name_text);
            }
        }
        Py_XDECREF(result);
        Py_DECREF((PyObject *)host);
    }
    cfpy_leave(loop, entered);
    return rc;
}

static const void *identity_slot(cf_backend *self) { return self->host; }

static int get_slot(cf_backend *self, cf_op *op) { return run_slot(self, op); }

static int no_slot(cf_backend *self, cf_op *op)
{
    (void)self;
    return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the hooks of an AccountsStorage keep no keys");
}

static void table_fill(cfpy_host *self)
{
    cf_backend_table *table = &self->table;
    unsigned          has = self->flags;
    memset(table, 0, sizeof *table);
    table->size = sizeof *table;
    table->name = self->name_text;
    table->flags = (has & CFPY_SET_IF ? (unsigned)CF_BACKEND_CONDITIONS : 0) | (has & CFPY_KEEPS_TTL ? (unsigned)CF_BACKEND_KEEP_TTL : 0) |
                   (has & CFPY_SINGLE_PROCESS ? (unsigned)CF_BACKEND_DERIVE : 0);
    table->close = close_slot;
    table->cancel = cancel_slot;
    table->identity = identity_slot;
    table->get = table->set = table->del = has & CFPY_HOOK ? no_slot : get_slot;
    table->hook = has & CFPY_HOOK ? get_slot : NULL;
    table->pop = has & CFPY_POP ? get_slot : NULL;
    table->touch = has & CFPY_TOUCH ? get_slot : NULL;
    table->incr = has & CFPY_INCR ? get_slot : NULL;
    table->scan = has & CFPY_SCAN ? get_slot : NULL;
}

cfpy_host *cfpy_host_of(cfpy_state *state, PyObject *module, PyObject *object, unsigned flags)
{
    cfpy_host *self = NULL;
    PyObject  *id = PyLong_FromVoidPtr(object);
    if (id == NULL)
        return NULL;
    PyObject *known = PyDict_GetItemWithError(state->hosts, id);
    if (known != NULL) {
        self = PyLong_AsVoidPtr(known);
        Py_INCREF((PyObject *)self);
    } else if (!PyErr_Occurred()) {
        allocfunc alloc = (allocfunc)(uintptr_t)PyType_GetSlot(state->host_type, Py_tp_alloc);
        self = (cfpy_host *)alloc(state->host_type, 0);
        if (self != NULL) {
            self->state = state;
            self->module = module;
            Py_INCREF(module);
            self->object = object;
            Py_INCREF(object);
            self->flags = flags;
            self->name = cfpy_type_name(object);
            self->name_text = self->name ? PyUnicode_AsUTF8AndSize(self->name, NULL) : NULL;
            known = PyLong_FromVoidPtr(self);
            if (self->name_text == NULL || known == NULL || PyDict_SetItem(state->hosts, id, known) < 0)
                Py_CLEAR(self);
            Py_XDECREF(known);
        }
        if (self != NULL)
            table_fill(self);
    }
    Py_DECREF(id);
    return self;
}

int cfpy_host_open(cfpy_host *host, cfpy_loop *loop, const cf_open_options *options, cf_store **out, cf_error *error)
{
    cf_backend *backend = PyMem_Malloc(sizeof *backend);
    if (backend == NULL)
        return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a backend");
    backend->host = host;
    backend->loop = loop;
    host->stores++;
    return cf_open_backend(loop->loop, &host->table, backend, options, out, error);
}

PyObject *cfpy_host_object(cfpy_host *host) { return host->object; }

bool cfpy_host_hooks(const cfpy_host *host) { return (host->flags & CFPY_HOOK) != 0; }

/* ------------------------------------------------------------------------------------------------------------- type -- */

static int host_traverse(PyObject *object, visitproc visit, void *arg)
{
    cfpy_host *self = (cfpy_host *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->module);
    Py_VISIT(self->object);
    return 0;
}

/* The object is let go of in dealloc only: until then its id must stay its own. */
static void host_dealloc(PyObject *object)
{
    cfpy_host    *self = (cfpy_host *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject     *error_type, *value, *traceback;
    PyObject_GC_UnTrack(object);
    PyErr_Fetch(&error_type, &value, &traceback);
    if (self->state != NULL && self->object != NULL && self->state->hosts != NULL) {
        PyObject *id = PyLong_FromVoidPtr(self->object);
        PyObject *known = id ? PyDict_GetItemWithError(self->state->hosts, id) : NULL;
        if (known != NULL && PyLong_AsVoidPtr(known) == (void *)self && PyDict_DelItem(self->state->hosts, id) < 0)
            PyErr_Clear();
        Py_XDECREF(id);
    }
    PyErr_Clear();
    PyErr_Restore(error_type, value, traceback);
    Py_XDECREF(self->object);
    Py_XDECREF(self->name);
    Py_XDECREF(self->module);
    freefunc release = (freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyType_Slot host_slots[] = {
    {Py_tp_traverse, CFPY_SLOT(host_traverse)},
    {Py_tp_dealloc, CFPY_SLOT(host_dealloc)},
    {0, NULL},
};

PyType_Spec cfpy_host_spec = {
    .name = "counterfoil._native.Host",
    .basicsize = sizeof(cfpy_host),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = host_slots,
};
