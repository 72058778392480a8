/* convert.c: Python objects to slices and numbers, core errors to Python exceptions.
 *
 * Wrong types are refused here, because only here they can be seen; ranges and contents are refused by the core, so that every host
 * shows the same sentence. */
#include "native.h"

/* ----------------------------------------------------------------------------------------------------------- errors -- */

static PyObject *make(cfpy_state *state, int status, int outcome, const char *text, cf_slice receipt)
{
    if (state->make_error == NULL) { /* the interpreter is going away */
        PyErr_SetString(PyExc_RuntimeError, text);
        return NULL;
    }
    return PyObject_CallFunction(state->make_error, "sssOz#", cf_status_name(status), cf_outcome_name(outcome), text, Py_False,
                                 receipt.len ? receipt.ptr : NULL, (Py_ssize_t)receipt.len);
}

static PyObject *raise_made(PyObject *error)
{
    if (error == NULL)
        return NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return NULL;
}

PyObject *cfpy_raise(cfpy_state *state, int status, int outcome, const char *text)
{
    return raise_made(make(state, status, outcome, text, cf_bytes(NULL, 0)));
}

PyObject *cfpy_raise_error(cfpy_state *state, const cf_error *error)
{
    return cfpy_raise(state, error->status, error->outcome, error->text);
}

PyObject *cfpy_raise_failed(cfpy_state *state, const cf_op *op)
{
    const cf_error *error = cf_op_error(op);
    return raise_made(make(state, error->status, error->outcome, error->text, cf_op_receipt(op)));
}

PyObject *cfpy_error(cfpy_state *state, const cf_error *error)
{
    return make(state, error->status, error->outcome, error->text, cf_bytes(NULL, 0));
}

PyObject *cfpy_type_name(PyObject *object)
{
    PyObject *name = PyType_GetName(Py_TYPE(object));
    if (name == NULL) {
        PyErr_Clear();
        name = PyUnicode_FromString("object");
    }
    return name;
}

PyObject *cfpy_raise_type(cfpy_state *state, const char *what, const char *wanted, PyObject *given)
{
    PyObject *name = cfpy_type_name(given);
    PyObject *text = name ? PyUnicode_FromFormat("%s must be %s, not %U", what, wanted, name) : NULL;
    PyObject *error = text && state->make_error ? PyObject_CallFunction(state->make_error, "ssOO", cf_status_name(CF_EINVAL),
                                                                        cf_outcome_name(CF_NOT_APPLIED), text, Py_True)
                                                : NULL;
    Py_XDECREF(name);
    Py_XDECREF(text);
    if (error == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, what);
        return NULL;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return NULL;
}

PyObject *cfpy_raise_object(PyObject *exception)
{
    PyObject *type = (PyObject *)Py_TYPE(exception);
    Py_INCREF(type);
    Py_INCREF(exception);
    PyErr_Restore(type, exception, PyException_GetTraceback(exception));
    return NULL;
}

void cfpy_nobodys(PyObject *where)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        PyErr_SetInterrupt();
    } else {
        PyErr_WriteUnraisable(where);
    }
}

PyObject *cfpy_caught(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* -------------------------------------------------------------------------------------------------------- arguments -- */

static int argument_index(PyObject *name, PyObject *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (names[i] == name)
            return i;
    for (int i = 0; i < count; i++) /* not interned: somebody built the name at run time */
        if (PyUnicode_Compare(names[i], name) == 0)
            return i;
    return -1;
}

int cfpy_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *const *names,
                   int count, int positional, int required, PyObject **out)
{
    if (nargs > positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)", function, positional, nargs);
        return -1;
    }
    for (int i = 0; i < count; i++)
        out[i] = i < nargs ? args[i] : NULL;

    Py_ssize_t given = kwnames ? PyTuple_Size(kwnames) : 0;
    for (Py_ssize_t k = 0; k < given; k++) {
        PyObject *name = PyTuple_GetItem(kwnames, k);
        int       at = argument_index(name, names, count);
        if (at < 0) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, name);
            return -1;
        }
        if (out[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", function, name);
            return -1;
        }
        out[at] = args[nargs + k];
    }
    for (int i = 0; i < required; i++)
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%U'", function, names[i]);
            return -1;
        }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------- strings -- */

/* A str that UTF-8 cannot say has a lone surrogate. (Without memory it stays a MemoryError.) */
static int refuse_surrogate(cfpy_state *state, const char *what)
{
    if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
        return -1;
    PyErr_Clear(); /* it quotes the text */
    char text[128];
    PyOS_snprintf(text, sizeof text, "%s is not valid Unicode: it has a lone surrogate", what);
    cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, text);
    return -1;
}

int cfpy_text(cfpy_state *state, PyObject *object, const char *what, cf_slice *out)
{
    if (!PyUnicode_Check(object)) {
        cfpy_raise_type(state, what, "str", object);
        return -1;
    }
    Py_ssize_t  length;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == NULL)
        return refuse_surrogate(state, what);
    *out = cf_bytes(text, (size_t)length);
    return 0;
}

int cfpy_text_value(cfpy_state *state, PyObject *object, const char *what, cfpy_bytes *out)
{
    out->buffered = false;
    return cfpy_text(state, object, what, &out->slice);
}

int cfpy_value(cfpy_state *state, PyObject *object, const char *what, cfpy_bytes *out)
{
    out->buffered = false;
    if (PyUnicode_Check(object))
        return cfpy_text(state, object, what, &out->slice);
    if (PyBytes_Check(object)) {
        char      *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(object, &bytes, &length) < 0)
            return -1;
        out->slice = cf_bytes(bytes, (size_t)length);
        return 0;
    }
    if (!PyObject_CheckBuffer(object)) {
        cfpy_raise_type(state, what, "str or bytes-like", object);
        return -1;
    }
    if (PyObject_GetBuffer(object, &out->buffer, PyBUF_SIMPLE) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_BufferError))
            return -1;
        PyErr_Clear();
        cfpy_raise_type(state, what, "str or contiguous bytes", object);
        return -1;
    }
    out->buffered = true;
    out->slice = cf_bytes(out->buffer.buf, (size_t)out->buffer.len);
    return 0;
}

void cfpy_bytes_release(cfpy_bytes *bytes)
{
    if (bytes->buffered)
        PyBuffer_Release(&bytes->buffer);
    bytes->buffered = false;
}

PyObject *cfpy_string(cf_slice slice)
{
    return PyUnicode_DecodeUTF8(slice.len ? slice.ptr : "", (Py_ssize_t)slice.len, NULL);
}

/* ---------------------------------------------------------------------------------------------------------- numbers -- */

int cfpy_flag(cfpy_state *state, PyObject *object, const char *what, unsigned flag, unsigned *flags)
{
    if (object == NULL || object == Py_False)
        return 0;
    if (object != Py_True) {
        cfpy_raise_type(state, what, "bool", object);
        return -1;
    }
    *flags |= flag;
    return 0;
}

int cfpy_seconds(cfpy_state *state, PyObject *object, const char *what, double *out)
{
    if (PyFloat_Check(object)) {
        *out = PyFloat_AsDouble(object);
        return 0;
    }
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        cfpy_raise_type(state, what, "a number of seconds", object);
        return -1;
    }
    *out = PyLong_AsDouble(object);
    if (*out == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear(); /* out of every range: let the core say so */
        int sign;
        (void)PyLong_AsLongLongAndOverflow(object, &sign);
        *out = sign < 0 ? -Py_HUGE_VAL : Py_HUGE_VAL;
    }
    return 0;
}

int cfpy_ttl(cfpy_state *state, PyObject *object, int64_t *ms)
{
    double   seconds;
    cf_error error;
    if (cfpy_seconds(state, object, "ttl", &seconds) < 0)
        return -1;
    if (cf_ttl_from_seconds(seconds, ms, &error) == CF_OK)
        return 0;
    cfpy_raise_error(state, &error);
    return -1;
}

int cfpy_instant(cfpy_state *state, PyObject *object, int64_t *ms)
{
    int is_datetime = PyObject_IsInstance(object, state->datetime);
    if (is_datetime < 0)
        return -1;
    if (!is_datetime) {
        cfpy_raise_type(state, "expires_at", "a datetime", object);
        return -1;
    }
    PyObject *offset = PyObject_CallMethodObjArgs(object, state->names.utcoffset, NULL);
    if (offset == NULL)
        return -1;
    Py_DECREF(offset);
    if (offset == Py_None) { /* compared only: None outlives us */
        cfpy_raise(state, CF_EINVAL, CF_NOT_APPLIED, "expires_at must be an aware datetime: this one has no time zone");
        return -1;
    }
    PyObject *timestamp = PyObject_CallMethodObjArgs(object, state->names.timestamp, NULL);
    if (timestamp == NULL)
        return -1;
    double seconds = PyFloat_AsDouble(timestamp);
    Py_DECREF(timestamp);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    cf_error error;
    if (cf_instant_from_seconds(seconds, ms, &error) == CF_OK)
        return 0;
    cfpy_raise_error(state, &error);
    return -1;
}

int cfpy_integer(cfpy_state *state, PyObject *object, const char *what, int64_t *out)
{
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        cfpy_raise_type(state, what, "int", object);
        return -1;
    }
    int       overflow;
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (number == -1 && PyErr_Occurred())
        return -1;
    *out = overflow > 0 ? INT64_MAX : overflow < 0 ? INT64_MIN : number; /* the core refuses both, with its sentence */
    return 0;
}
