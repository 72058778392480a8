/* records.c: records as dicts, for the calls of AccountsStorage and SessionStorage. Nothing here knows a method or a field by name: the schema does.
 *
 * Instants are integers here, microseconds since 1970, and JSON is text: interfaces/ makes of them what people want to see. */
#include "native.h"

/* ------------------------------------------------------------------------------------------------------------- in -- */

static int take_field(cfpy_state *state, cf_record *record, int at, PyObject *value)
{
    const char *name = cf_field_name(record->kind, at);
    cf_slice    text;
    int64_t     number;
    if (value == Py_None) {
        cf_record_null(record, at);
        return 0;
    }
    switch (cf_field_type_of(record->kind, at)) {
    case CF_BOOLEAN:
        if (value != Py_True && value != Py_False) {
            cfpy_raise_type(state, name, "bool", value);
            return -1;
        }
        cf_record_number(record, at, value == Py_True);
        return 0;
    case CF_NUMBER:
    case CF_INSTANT:
        if (cfpy_integer(state, value, name, &number) < 0)
            return -1;
        cf_record_number(record, at, number);
        return 0;
    default:
        if (cfpy_text(state, value, name, &text) < 0)
            return -1;
        cf_record_text(record, at, text);
        return 0;
    }
}

/* The texts are lent: the dict must live as long as the record. */
int cfpy_record_take(cfpy_state *state, int kind, PyObject *fields, cf_record *out)
{
    PyObject  *name, *value;
    Py_ssize_t at = 0;
    memset(out, 0, sizeof *out);
    out->kind = kind;
    if (!PyDict_Check(fields)) {
        cfpy_raise_type(state, "a record", "dict", fields);
        return -1;
    }
    while (PyDict_Next(fields, &at, &name, &value)) {
        cf_slice text;
        if (cfpy_text(state, name, "the name of a field", &text) < 0)
            return -1;
        int field = cf_field_named(kind, text);
        if (field < 0) {
            cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "a record has no such field");
            return -1;
        }
        if (take_field(state, out, field, value) < 0)
            return -1;
    }
    return 0;
}

int cfpy_kind_named(PyObject *name)
{
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    for (int kind = 0; text != NULL && kind < CF_KINDS; kind++)
        if (strcmp(text, cf_kind_name(kind)) == 0)
            return kind;
    PyErr_Clear();
    return -1;
}

/* ------------------------------------------------------------------------------------------------------------ out -- */

static PyObject *field_object(int kind, int at, const cf_field *field)
{
    if (field->is != CF_GIVEN)
        Py_RETURN_NONE;
    switch (cf_field_type_of(kind, at)) {
    case CF_BOOLEAN: return PyBool_FromLong(field->number != 0);
    case CF_NUMBER:
    case CF_INSTANT: return PyLong_FromLongLong(field->number);
    default:         return cfpy_string(field->text);
    }
}

/* What is not said is left out. */
PyObject *cfpy_record_give(const cf_record *record)
{
    PyObject *fields = PyDict_New();
    for (int i = 0; fields != NULL && cf_field_name(record->kind, i); i++) {
        if (record->fields[i].is == CF_UNSAID)
            continue;
        PyObject *value = field_object(record->kind, i, &record->fields[i]);
        if (value == NULL || PyDict_SetItemString(fields, cf_field_name(record->kind, i), value) < 0)
            Py_CLEAR(fields);
        Py_XDECREF(value);
    }
    return fields;
}

/* (kind, fields) for each record that an operation brought. */
static PyObject *records_list(cf_op *op)
{
    PyObject *list = PyList_New(0);
    cf_record record;
    while (list != NULL && cf_op_next_record(op, &record)) {
        PyObject *fields = cfpy_record_give(&record);
        PyObject *pair = fields ? Py_BuildValue("(sO)", cf_kind_name(record.kind), fields) : NULL;
        if (pair == NULL || PyList_Append(list, pair) < 0)
            Py_CLEAR(list);
        Py_XDECREF(fields);
        Py_XDECREF(pair);
    }
    return list;
}

PyObject *cfpy_records_result(cf_op *op)
{
    PyObject *list = records_list(op), *cursor = NULL, *result = NULL;
    cf_slice  next = cf_op_cursor(op);
    if (list == NULL)
        return NULL;
    if (next.len > 0)
        cursor = cfpy_string(next);
    else
        Py_INCREF(cursor = Py_None);
    if (cursor != NULL)
        result = Py_BuildValue("(OOLO)", list, cf_op_hit(op) ? Py_True : Py_False, (long long)cf_op_number(op), cursor);
    Py_DECREF(list);
    Py_XDECREF(cursor);
    return result;
}

/* The current exception is that of an EXISTS: it brings the record that is there, for interfaces/ to make an object of. */
void cfpy_records_existing(cfpy_state *state, cf_op *op)
{
    PyObject *error = cfpy_caught();
    PyObject *list = records_list(op);
    if (list == NULL || (PyList_Size(list) > 0 && PyObject_SetAttr(error, state->names.record_, PyList_GetItem(list, 0)) < 0))
        PyErr_Clear(); /* it goes without */
    Py_XDECREF(list);
    cfpy_raise_object(error);
    Py_DECREF(error);
}

/* ----------------------------------------------------------------------------------------------------------- calls -- */

static int accounts_method(PyObject *name)
{
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    for (int method = 0; text != NULL && method < CF_ACCOUNTS_METHODS; method++)
        if (strcmp(text, cf_accounts_method_name(method)) == 0)
            return method;
    PyErr_Clear();
    return -1; /* which the core refuses */
}

static int sessions_method(PyObject *name)
{
    static const char *const names[CF_SESSION_METHODS] = {
        [CF_SESSION_CREATE] = "create",   [CF_SESSION_GET] = "get",       [CF_SESSION_GET_ANY] = "get_any",
        [CF_SESSION_LIST] = "list",       [CF_SESSION_REFRESH] = "refresh", [CF_SESSION_REVOKE] = "revoke",
        [CF_SESSION_REVOKE_ALL] = "revoke_all", [CF_SESSION_READ_EPOCH] = "epoch"};
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    for (int method = 0; text != NULL && method < CF_SESSION_METHODS; method++)
        if (strcmp(text, names[method]) == 0)
            return method;
    PyErr_Clear();
    return -1;
}

int cfpy_records_submit(cf_store *store, const cfpy_records *in, const cf_call *how, cf_op **op)
{
    if (in->sessions) {
        cf_sessions sessions = in->sessions_of;
        sessions.store = store;
        return cf_sessions_call(&sessions, in->method, &in->record, &in->args, how, op);
    }
    const cf_accounts accounts = {.store = store, .most = in->most};
    return cf_accounts_call(&accounts, in->method, &in->record, in->user.kind >= 0 ? &in->user : NULL, how, op);
}

/* accounts(method, kind, record, user or None, most) */
int cfpy_accounts_take(cfpy_state *state, PyObject *const *args, Py_ssize_t nargs, cfpy_records *out)
{
    int64_t most;
    memset(out, 0, sizeof *out);
    out->user.kind = -1;
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "_accounts() takes 5 arguments");
        return -1;
    }
    out->method = accounts_method(args[0]);
    if (cfpy_record_take(state, cfpy_kind_named(args[1]), args[2], &out->record) < 0 ||
        (args[3] != Py_None && cfpy_record_take(state, CF_USER, args[3], &out->user) < 0) ||
        cfpy_integer(state, args[4], "max_social_accounts", &most) < 0)
        return -1;
    out->most = most > 0 ? (size_t)most : 0;
    out->reads = out->method == CF_FIND_USER_BY_EMAIL || out->method == CF_FIND_USER_BY_ID || out->method == CF_FIND_SOCIAL_ACCOUNT ||
                 out->method == CF_FIND_SOCIAL_ACCOUNT_BY_ID || out->method == CF_LIST_SOCIAL_ACCOUNTS;
    return 0;
}

/* sessions(method, record, (most, refuse, retention), (now, epoch, except, status, order, limit, cursor) or None) */
int cfpy_sessions_take(cfpy_state *state, PyObject *const *args, Py_ssize_t nargs, cfpy_records *out)
{
    long long most, retention, now = 0, epoch = -1, limit = 0;
    int       refuse, status = 0, order = 0;
    PyObject *except = NULL, *cursor = NULL;
    memset(out, 0, sizeof *out);
    out->sessions = true;
    out->user.kind = -1;
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError, "_sessions() takes 4 arguments");
        return -1;
    }
    out->method = sessions_method(args[0]);
    if (cfpy_record_take(state, CF_SESSION, args[1], &out->record) < 0 || !PyArg_ParseTuple(args[2], "LpL", &most, &refuse, &retention))
        return -1;
    if (args[3] != Py_None && !PyArg_ParseTuple(args[3], "LLUiiLU", &now, &epoch, &except, &status, &order, &limit, &cursor))
        return -1;
    out->sessions_of = (cf_sessions){.most = most > 0 ? (size_t)most : 0, .refuse = refuse != 0, .retention_ms = retention};
    out->args = (cf_session_args){.size = sizeof out->args, .now = now, .epoch = epoch, .status = status, .order = order};
    out->args.limit = limit > 0 ? (size_t)limit : 0;
    if ((except != NULL && cfpy_text(state, except, "except_session_id", &out->args.except) < 0) ||
        (cursor != NULL && cfpy_text(state, cursor, "cursor", &out->args.cursor) < 0))
        return -1;
    out->reads = out->method == CF_SESSION_GET || out->method == CF_SESSION_GET_ANY || out->method == CF_SESSION_LIST || out->method == CF_SESSION_READ_EPOCH;
    return 0;
}
