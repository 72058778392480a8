/* op.c: Op, what the methods of an AsyncStore return.
 *
 * The operation is submitted when the method is called. If it was done at once (memory, a plain Python backend), awaiting it gives
 * the result without a trip through the event loop. If it is pending, awaiting it runs a coroutine of aio.py that waits for the
 * operation in the way of this event loop. To its user an Op is a coroutine: it can be given to create_task, gather,
 * wait_for or a nursery. Unlike a coroutine it gives its result as often as it is asked. */
#include "native.h"

typedef struct cfpy_op {
    PyObject_HEAD
    cfpy_store *store;
    cf_op      *op;       /* until it has finished */
    cfpy_mode   mode;
    int         kind;
    bool        awaited;
    PyObject   *result;   /* then one of these two */
    PyObject   *error;
    PyObject   *delegate; /* the coroutine that waits */
    PyObject   *wake;     /* what to call when it has finished */
} cfpy_op;

static const char *kind_name(int kind)
{
    static const char *const names[] = {"get", "set", "delete", "pop", "touch", "incr", "scan", "count", "clear"};
    return kind >= 0 && kind < (int)(sizeof names / sizeof *names) ? names[kind] : "operation";
}

static cfpy_op *op_make(cfpy_store *store)
{
    PyTypeObject *type = store->state->op_type;
    allocfunc     alloc = (allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc);
    cfpy_op      *self = (cfpy_op *)alloc(type, 0);
    if (self != NULL) {
        Py_INCREF((PyObject *)store);
        self->store = store;
    }
    return self;
}

/* Takes the result out of a finished operation, and frees it. */
static void op_take(cfpy_op *self, cf_op *op)
{
    self->result = cfpy_result(self->store->state, op, self->mode);
    if (self->result == NULL)
        self->error = cfpy_caught();
    self->op = NULL;
    cf_op_free(op);
}

static void op_wake(cfpy_op *self)
{
    PyObject *wake = self->wake;
    if (wake == NULL)
        return;
    self->wake = NULL;
    PyObject *done = PyObject_CallObject(wake, NULL);
    if (done == NULL)
        PyErr_WriteUnraisable(wake);
    Py_XDECREF(done);
    Py_DECREF(wake);
}

/* The core calls this with the GIL held: an AsyncStore never gives it up. */
static void op_done(cf_op *op, void *user)
{
    cfpy_op  *self = user;
    PyObject *type, *value, *traceback;
    Py_INCREF((PyObject *)self);
    PyErr_Fetch(&type, &value, &traceback);
    op_take(self, op);
    op_wake(self);
    PyErr_Restore(type, value, traceback);
    Py_DECREF((PyObject *)self);
}

PyObject *cfpy_op_failed(cfpy_store *store)
{
    PyObject *error = cfpy_caught();
    cfpy_op  *self = op_make(store);
    if (self == NULL) {
        Py_XDECREF(error);
        return NULL;
    }
    self->kind = -1;
    self->error = error;
    return (PyObject *)self;
}

PyObject *cfpy_op_submit(cfpy_store *store, const cfpy_call *call)
{
    cfpy_loop *loop = cfpy_checkout(store);
    if (loop == NULL)
        return cfpy_op_failed(store);
    cfpy_op *self = op_make(store);
    if (self == NULL) {
        cfpy_checkin(loop);
        return NULL;
    }
    self->mode = call->mode;
    self->kind = call->request.kind;

    cf_op *op;
    int    rc = cfpy_submit(loop->store, call, op_done, self, &op);
    if (op == NULL) {
        cfpy_raise(store->state, rc, CF_NOT_APPLIED, "no memory for an operation");
        self->error = cfpy_caught();
    } else if (rc == CF_PENDING) {
        self->op = op;
        PyObject *told = NULL;
        if (store->open) { /* else the backend has just closed it: check-in ends the operation, and the descriptor with it */
            PyObject *descriptor = PyLong_FromLong(cf_loop_fd(loop->loop));
            if (descriptor != NULL)
                told = PyObject_CallMethodObjArgs(store->link, store->state->names.pending, descriptor, NULL);
            Py_XDECREF(descriptor);
        }
        if (told == NULL && PyErr_Occurred() && self->op != NULL) { /* nobody will run the loop: this event loop is not the store's */
            self->op = NULL;
            cf_op_free(op);
            self->error = cfpy_caught();
        }
        PyErr_Clear();
        Py_XDECREF(told);
    } else {
        op_take(self, op);
    }
    cfpy_checkin(loop);
    return (PyObject *)self;
}

/* ------------------------------------------------------------------------------------------------------ as coroutine -- */

static PySendResult op_give(cfpy_op *self, PyObject **out)
{
    *out = NULL;
    if (self->error != NULL) {
        cfpy_raise_object(self->error);
        return PYGEN_ERROR;
    }
    if (self->result == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this operation was closed before it had finished");
        return PYGEN_ERROR;
    }
    Py_INCREF(self->result);
    *out = self->result;
    return PYGEN_RETURN;
}

static PySendResult op_send(PyObject *object, PyObject *value, PyObject **out)
{
    cfpy_op *self = (cfpy_op *)object;
    self->awaited = true;
    if (self->delegate == NULL) {
        if (self->op == NULL)
            return op_give(self, out);
        self->delegate = PyObject_CallMethodObjArgs(self->store->link, self->store->state->names.wait, self, NULL);
        if (self->delegate == NULL) {
            *out = NULL;
            return PYGEN_ERROR;
        }
        value = Py_None;
    }
    PyObject *delegate = self->delegate, *sent;
    Py_INCREF(delegate);
    PySendResult how = PyIter_Send(delegate, value, &sent);
    Py_DECREF(delegate);
    if (how == PYGEN_NEXT) {
        *out = sent;
        return how;
    }
    Py_CLEAR(self->delegate);
    if (how == PYGEN_ERROR) {
        *out = NULL;
        return how;
    }
    Py_DECREF(sent);
    return op_give(self, out);
}

static PyObject *as_method_result(PySendResult how, PyObject *value)
{
    if (how == PYGEN_NEXT)
        return value;
    if (how == PYGEN_RETURN) {
        /* An instance, because StopIteration would take a tuple for its arguments. */
        PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, value, NULL);
        Py_DECREF(value);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    return NULL;
}

static PyObject *op_await(PyObject *object)
{
    cfpy_op *self = (cfpy_op *)object;
    if (self->delegate != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this operation is being awaited already");
        return NULL;
    }
    Py_INCREF(object);
    return object;
}

static PyObject *op_next(PyObject *object)
{
    PyObject    *value;
    PySendResult how = op_send(object, Py_None, &value);
    return as_method_result(how, value);
}

PyDoc_STRVAR(send_doc, "send($self, value, /)\n--\n\nResumes, as the send of a coroutine.");
static PyObject *op_send_method(PyObject *object, PyObject *value)
{
    PyObject    *out;
    PySendResult how = op_send(object, value, &out);
    return as_method_result(how, out);
}

/* Nobody will take the result any more. */
static void op_abandon(cfpy_op *self)
{
    cf_op *op = self->op;
    self->op = NULL;
    cf_op_free(op);
}

PyDoc_STRVAR(throw_doc, "throw($self, typ, val=None, tb=None, /)\n--\n\nResumes with an exception, as the throw of a coroutine.");
static PyObject *op_throw(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    cfpy_op  *self = (cfpy_op *)object;
    PyObject *value = nargs > 1 ? args[1] : Py_None, *traceback = nargs > 2 ? args[2] : Py_None;
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes from 1 to 3 arguments");
        return NULL;
    }
    self->awaited = true;
    if (self->delegate != NULL) {
        PyObject *delegate = self->delegate;
        Py_INCREF(delegate);
        PyObject *out = value == Py_None && traceback == Py_None
                            ? PyObject_CallMethodObjArgs(delegate, self->store->state->names.throw_, args[0], NULL)
                            : PyObject_CallMethodObjArgs(delegate, self->store->state->names.throw_, args[0], value, traceback, NULL);
        Py_DECREF(delegate);
        if (out != NULL)
            return out;
        Py_CLEAR(self->delegate);
        if (!PyErr_ExceptionMatches(PyExc_StopIteration))
            return NULL;
        PyErr_Clear(); /* it took the exception and ended well */
        PySendResult how = op_give(self, &out);
        return as_method_result(how, out);
    }
    op_abandon(self);
    if (PyExceptionInstance_Check(args[0])) {
        cfpy_raise_object(args[0]);
    } else if (PyExceptionClass_Check(args[0])) {
        PyErr_SetObject(args[0], value == Py_None ? NULL : value);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
    return NULL;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\nGives the operation up, as the close of a coroutine: if it is pending, it is cancelled.");
static PyObject *op_close(PyObject *object, PyObject *unused)
{
    cfpy_op *self = (cfpy_op *)object;
    (void)unused;
    self->awaited = true;
    PyObject *delegate = self->delegate;
    self->delegate = NULL;
    if (delegate != NULL) {
        PyObject *closed = PyObject_CallMethodObjArgs(delegate, self->store->state->names.close, NULL);
        Py_DECREF(delegate);
        if (closed == NULL)
            return NULL;
        Py_DECREF(closed);
    }
    op_abandon(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\nWhether the operation has finished, so that awaiting it will not wait.");
static PyObject *op_is_done(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((cfpy_op *)object)->op == NULL);
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\n"
                         "Finishes a pending operation now, with CanceledError. True, or False when it had finished already.\n"
                         "Whether a write took effect is then unknown.");
static PyObject *op_cancel(PyObject *object, PyObject *unused)
{
    cfpy_op *self = (cfpy_op *)object;
    (void)unused;
    return PyBool_FromLong(self->op != NULL && cf_op_cancel(self->op) == CF_OK);
}

PyDoc_STRVAR(wake_doc, "notify($self, callback, /)\n--\n\nCalls callback() when the operation finishes; at most one.");
static PyObject *op_notify(PyObject *object, PyObject *callback)
{
    cfpy_op *self = (cfpy_op *)object;
    Py_INCREF(callback);
    CFPY_REPLACE(self->wake, callback);
    if (self->op == NULL)
        op_wake(self);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------------------------------------------- type -- */

static int op_traverse(PyObject *object, visitproc visit, void *arg)
{
    cfpy_op *self = (cfpy_op *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->store);
    Py_VISIT(self->result);
    Py_VISIT(self->error);
    Py_VISIT(self->delegate);
    Py_VISIT(self->wake);
    return 0;
}

static int op_clear(PyObject *object)
{
    cfpy_op *self = (cfpy_op *)object;
    if (self->op != NULL)
        op_abandon(self);
    Py_CLEAR(self->delegate);
    Py_CLEAR(self->wake);
    Py_CLEAR(self->result);
    Py_CLEAR(self->error);
    Py_CLEAR(self->store);
    return 0;
}

static void op_dealloc(PyObject *object)
{
    cfpy_op      *self = (cfpy_op *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject     *error_type, *value, *traceback;
    PyObject_GC_UnTrack(object);
    PyErr_Fetch(&error_type, &value, &traceback);
    if (!self->awaited && (self->error != NULL || self->op != NULL) &&
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "'%s' %s and was never awaited", kind_name(self->kind),
                         self->op != NULL ? "is cancelled: it was pending" : "failed") < 0)
        PyErr_WriteUnraisable(NULL);
    op_clear(object);
    PyErr_Restore(error_type, value, traceback);
    freefunc release = (freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *op_repr(PyObject *object)
{
    cfpy_op *self = (cfpy_op *)object;
    return PyUnicode_FromFormat("<counterfoil operation '%s': %s>", kind_name(self->kind),
                                self->op ? "pending" : self->error ? "failed" : "done");
}

PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($type, item, /)\n--\n\nFor annotations: Op[str].");

static PyMethodDef op_methods[] = {
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {"send", op_send_method, METH_O, send_doc},
    {"throw", CFPY_METHOD(op_throw), METH_FASTCALL, throw_doc},
    {"close", op_close, METH_NOARGS, close_doc},
    {"done", op_is_done, METH_NOARGS, done_doc},
    {"cancel", op_cancel, METH_NOARGS, cancel_doc},
    {"notify", op_notify, METH_O, wake_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(op_doc, "An operation of an AsyncStore, submitted when its method was called: await it for the result.\n\n"
                     "It can be used wherever a coroutine can (create_task, gather, a nursery), and may be awaited again once it has\n"
                     "finished. Dropping a pending one cancels it; if it was never awaited, a RuntimeWarning says so.");

static PyType_Slot op_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)op_doc},
    {Py_tp_methods, op_methods},
    {Py_tp_traverse, CFPY_SLOT(op_traverse)},
    {Py_tp_clear, CFPY_SLOT(op_clear)},
    {Py_tp_dealloc, CFPY_SLOT(op_dealloc)},
    {Py_tp_repr, CFPY_SLOT(op_repr)},
    {Py_tp_iter, CFPY_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, CFPY_SLOT(op_next)},
    {Py_am_await, CFPY_SLOT(op_await)},
    {Py_am_send, CFPY_SLOT(op_send)},
    {0, NULL},
};

PyType_Spec cfpy_op_spec = {
    .name = "counterfoil._native.Op",
    .basicsize = sizeof(cfpy_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = op_slots,
};
