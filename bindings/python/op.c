/* op.c: Op, what the methods of an AsyncStore return.
 *
 * The operation is submitted when the method is called. If it was done at once (memory, a plain Python backend), awaiting it gives
 * the result without a trip through the event loop. To its user an Op is a coroutine: it can be given to create_task, gather,
 * wait_for or a nursery. Unlike a coroutine it gives its result as often as it is asked.
 *
 * A pending one waits in the way of its event loop. Under trio, awaiting it runs a coroutine of aio.py. Under asyncio, where a
 * thousand of them are under way at once, it yields a Waiter: what a Task takes for a future. The read callback runs the core's
 * loop first, which finishes operations, and then steps the tasks one after the other, without a trip through the event loop for each;
 * what they submit goes out while the rest is still to be stepped. */
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
    PyObject    *delegate; /* the coroutine that waits */
    PyObject    *wake;     /* what to call when it has finished */
    cfpy_waiter *waiter;   /* asyncio: the future that somebody waits for */
} cfpy_op;

struct cfpy_waiter {
    PyObject_HEAD
    cfpy_store  *store;
    cfpy_waiter *next;     /* of those that the read callback will step */
    PyObject    *callback; /* of the task that waits                    */
    PyObject    *context;  /* in which it wants to be called            */
    PyObject    *message;  /* of its cancellation                       */
    bool         blocking; /* the handshake of Task and future          */
    bool         done, canceled;
};

static const char *kind_name(int kind)
{
    static const char *const names[] = {"get", "set", "delete", "pop", "touch", "incr", "scan", "count", "clear", [CF_OP_RESEAL] = "reseal"};
    return kind >= 0 && kind < (int)(sizeof names / sizeof *names) && names[kind] ? names[kind] : "operation";
}

/* A new object, all zero, that the garbage collector knows. */
static PyObject *make(cfpy_state *state, PyTypeObject *type, int which, size_t size)
{
    if (type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is going away");
        return NULL;
    }
    if (state->spares[which] == 0) {
        allocfunc alloc = (allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc);
        return alloc(type, 0);
    }
    PyObject *self = state->spare[which][--state->spares[which]];
    memset((char *)self + sizeof(PyObject), 0, size - sizeof(PyObject));
    PyObject_Init(self, type);
    Py_DECREF((PyObject *)type); /* it had kept one */
    PyObject_GC_Track(self);
    return self;
}

static void delete(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* The memory of an object that the garbage collector does not know any more. It keeps its reference to its type. */
static void give_back(cfpy_state *state, PyObject *self, int which)
{
    if (state->op_type != NULL && state->spares[which] < CFPY_SPARE)
        state->spare[which][state->spares[which]++] = self;
    else
        delete(self);
}

void cfpy_op_forget(cfpy_state *state)
{
    for (int which = 0; which < 2; which++)
        while (state->spares[which] > 0)
            delete(state->spare[which][--state->spares[which]]);
}

int cfpy_op_visit(cfpy_state *state, visitproc visit, void *arg)
{
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < state->spares[which]; i++)
            Py_VISIT((PyObject *)Py_TYPE(state->spare[which][i]));
    return 0;
}

static cfpy_op *op_make(cfpy_store *store)
{
    cfpy_op *self = (cfpy_op *)make(store->state, store->state->op_type, CFPY_SPARE_OP, sizeof *self);
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

/* ------------------------------------------------------------------------------------------------- waiting in asyncio -- */

enum { EARLY_LEAST = 4, EARLY_MOST = 64 }; /* commands that are worth a write before the end of the tick */

int cfpy_op_prepare(cfpy_store *store)
{
    cfpy_state *state = store->state;
    store->watched = -1;
    store->woken_end = &store->woken;
    store->early = EARLY_MOST;
    PyObject *loop = PyObject_GetAttr(store->link, state->names.loop);
    if (loop == NULL)
        return -1;
    if (loop == Py_None) {
        Py_DECREF(loop);
        return 0;
    }
    store->event_loop = loop;
    if (state->running_loop != NULL)
        return 0;
    PyObject *asyncio = PyImport_ImportModule("asyncio"), *running = NULL, *native;
    if (asyncio == NULL)
        return -1;
    CFPY_REPLACE(state->cancelled, PyObject_GetAttrString(asyncio, "CancelledError"));
    running = state->cancelled ? PyObject_GetAttrString(asyncio, "get_running_loop") : NULL;
    Py_DECREF(asyncio);
    if (running == NULL)
        return -1;
    native = PyImport_ImportModule("_asyncio"); /* an interpreter may do without */
    if (native != NULL)
        CFPY_REPLACE(state->task_type, PyObject_GetAttrString(native, "Task"));
    Py_XDECREF(native);
    PyErr_Clear();
    state->running_loop = running;
    return 0;
}

void cfpy_op_flush(cfpy_store *store)
{
    store->unsent = 0;
    if (store->open && store->loops != NULL && !cf_loop_forked(store->loops->loop))
        cf_loop_flush(store->loops->loop);
}

void cfpy_op_stepping(cfpy_store *store, cfpy_loop *loop, bool outer)
{
    if (!outer)
        return;
    /* What is in the air when answers come is what will be in the air again: a quarter of it at a time keeps both sides busy. */
    size_t quarter = cf_loop_pending(loop->loop) / 4;
    store->early = quarter < EARLY_LEAST ? EARLY_LEAST : quarter > EARLY_MOST ? EARLY_MOST : quarter;
    store->running = PyThreadState_Get();
}

/* Whether this is the store's event loop. Inside its read callback that is known; to ask costs a system call. */
static bool at_home(cfpy_store *store)
{
    if (store->running != NULL && store->running == PyThreadState_Get())
        return true;
    PyObject *here = PyObject_CallNoArgs(store->state->running_loop);
    if (here == NULL)
        PyErr_Clear();
    Py_XDECREF(here); /* compared only: the store holds its own */
    return here == store->event_loop;
}

/* An operation is pending: see to it that the loop is run and flushed. */
static int pending_in_asyncio(cfpy_store *store, cfpy_loop *loop)
{
    cfpy_names *names = &store->state->names;
    PyObject   *done;
    if (!at_home(store)) {
        cfpy_raise(store->state, CF_EINVAL, CF_NOT_APPLIED,
                   "an AsyncStore belongs to the event loop that it was opened in, and this is not that one");
        return -1;
    }
    if (cf_loop_fd(loop->loop) != store->watched) {
        PyObject *descriptor = PyLong_FromLong(cf_loop_fd(loop->loop));
        done = descriptor ? PyObject_CallMethodObjArgs(store->link, names->watch, descriptor, NULL) : NULL;
        Py_XDECREF(descriptor);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
        store->watched = cf_loop_fd(loop->loop);
    }
    store->unsent++;
    if (store->unsent >= (store->running ? store->early : EARLY_MOST)) {
        cfpy_op_flush(store);
    } else if (!store->running && !store->flushing) {
        done = PyObject_CallMethodObjArgs(store->link, names->soon, NULL);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
        store->flushing = true;
    }
    return 0;
}

static cfpy_waiter *waiter_make(cfpy_op *op)
{
    cfpy_state  *state = op->store->state;
    cfpy_waiter *self = (cfpy_waiter *)make(state, state->waiter_type, CFPY_SPARE_WAITER, sizeof *self);
    if (self != NULL) {
        Py_INCREF((PyObject *)op->store);
        self->store = op->store;
        self->blocking = true;
    }
    return self;
}

/* Has the event loop call back, at the end of the tick. */
static int waiter_call_soon(cfpy_waiter *self)
{
    cfpy_names *names = &self->store->state->names;
    PyObject   *callback = self->callback;
    if (callback == NULL || self->store->event_loop == NULL)
        return 0; /* nobody has asked yet; who does is called at once. Or the store is being collected */
    self->callback = NULL;
    PyObject *method = PyObject_GetAttr(self->store->event_loop, names->call_soon);
    PyObject *args = method ? PyTuple_Pack(2, callback, (PyObject *)self) : NULL;
    PyObject *kwargs = args ? PyDict_New() : NULL;
    PyObject *handle = NULL;
    if (kwargs != NULL && (self->context == NULL || PyDict_SetItem(kwargs, names->context, self->context) == 0))
        handle = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_DECREF(callback);
    Py_XDECREF(handle);
    return handle ? 0 : -1;
}

/* The callback of an exact asyncio.Task: the one kind of which it is known that it may be called from here. */
static bool is_task(cfpy_state *state, PyObject *callback)
{
    if (callback == NULL || state->task_type == NULL || !PyCFunction_Check(callback))
        return false;
    PyObject *task = PyCFunction_GetSelf(callback);
    return task != NULL && (PyObject *)Py_TYPE(task) == state->task_type;
}

/* The operation has finished. */
static void waiter_wake(cfpy_waiter *self)
{
    cfpy_store *store = self->store;
    self->done = true;
    if (store->running != NULL && is_task(store->state, self->callback)) {
        Py_INCREF((PyObject *)self);
        *store->woken_end = self;
        store->woken_end = &self->next;
    } else if (waiter_call_soon(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

static int waiter_step(cfpy_waiter *self)
{
    PyObject *callback = self->callback, *stepped;
    self->callback = NULL;
    stepped = self->context ? PyObject_CallMethodObjArgs(self->context, self->store->state->names.run, callback, self, NULL)
                            : PyObject_CallFunctionObjArgs(callback, self, NULL);
    Py_DECREF(callback);
    Py_XDECREF(stepped);
    return stepped ? 0 : -1;
}

int cfpy_op_step(cfpy_store *store)
{
    PyObject *raised = NULL;
    store->unsent = 0; /* the loop has flushed at its end */
    while (store->woken != NULL) {
        cfpy_waiter *self = store->woken;
        store->woken = self->next;
        if (store->woken == NULL)
            store->woken_end = &store->woken;
        self->next = NULL;
        if (raised != NULL) {
            if (waiter_call_soon(self) < 0)
                PyErr_WriteUnraisable((PyObject *)self);
        } else if (self->callback != NULL && waiter_step(self) < 0) {
            raised = cfpy_caught();
        }
        Py_DECREF((PyObject *)self);
    }
    store->running = NULL;
    if (store->unsent > 0)
        cfpy_op_flush(store);
    if (raised == NULL)
        return 0;
    cfpy_raise_object(raised);
    Py_DECREF(raised);
    return -1;
}

/* ------------------------------------------------------------------------------------------------------------- waking -- */

static void op_wake(cfpy_op *self)
{
    cfpy_waiter *waiter = self->waiter;
    if (waiter != NULL) {
        self->waiter = NULL;
        waiter_wake(waiter);
        Py_DECREF((PyObject *)waiter);
        Py_DECREF((PyObject *)self);
    }
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

static int pending_elsewhere(cfpy_store *store, cfpy_loop *loop)
{
    PyObject *descriptor = PyLong_FromLong(cf_loop_fd(loop->loop));
    PyObject *told = descriptor ? PyObject_CallMethodObjArgs(store->link, store->state->names.pending, descriptor, NULL) : NULL;
    Py_XDECREF(descriptor);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

PyObject *cfpy_op_submit(cfpy_store *store, const cfpy_call *call)
{
    cfpy_loop *loop = cfpy_checkout(store, false, NULL);
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
    int    rc = cfpy_submit(loop->store, call, 0, op_done, self, &op);
    if (op == NULL) {
        cfpy_raise(store->state, rc, CF_NOT_APPLIED, "no memory for an operation");
        self->error = cfpy_caught();
    } else if (rc == CF_PENDING) {
        self->op = op;
        /* Else the backend has just closed it: check-in ends the operation, and the descriptor with it. */
        int told = !store->open ? 0 : store->event_loop ? pending_in_asyncio(store, loop) : pending_elsewhere(store, loop);
        if (told < 0 && self->op != NULL) { /* nobody will run the loop: this event loop is not the store's */
            self->op = NULL;
            cf_op_free(op);
            self->error = cfpy_caught();
        }
        PyErr_Clear();
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
        if (self->store->event_loop != NULL) {
            *out = NULL;
            if (self->waiter != NULL) {
                PyErr_SetString(PyExc_RuntimeError, "this operation was resumed before it had finished");
                return PYGEN_ERROR;
            }
            self->waiter = waiter_make(self);
            if (self->waiter == NULL)
                return PYGEN_ERROR;
            Py_INCREF(object); /* while it is waited for: an event loop does not hold its tasks */
            Py_INCREF((PyObject *)self->waiter);
            *out = (PyObject *)self->waiter;
            return PYGEN_NEXT;
        }
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
    if (self->delegate != NULL || self->waiter != NULL) {
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

/* Nobody waits any more. */
static bool op_leave(cfpy_op *self)
{
    cfpy_waiter *waiter = self->waiter;
    if (waiter == NULL)
        return false;
    self->waiter = NULL;
    Py_DECREF((PyObject *)waiter);
    Py_DECREF((PyObject *)self);
    return true;
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
    if (!op_leave(self))
        op_abandon(self);
    else if (self->op != NULL)
        cf_op_cancel(self->op); /* whoever holds it may still ask what has become of it */
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
    op_leave(self);
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
    Py_VISIT((PyObject *)self->waiter);
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
    return 0; /* it never goes without its store */
}

static void op_dealloc(PyObject *object)
{
    cfpy_op    *self = (cfpy_op *)object;
    cfpy_store *store = self->store;
    PyObject   *error_type, *value, *traceback;
    PyObject_GC_UnTrack(object);
    PyErr_Fetch(&error_type, &value, &traceback);
    if (!self->awaited && (self->error != NULL || self->op != NULL) &&
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "'%s' %s and was never awaited", kind_name(self->kind),
                         self->op != NULL ? "is cancelled: it was pending" : "failed") < 0)
        PyErr_WriteUnraisable(NULL);
    op_clear(object);
    PyErr_Restore(error_type, value, traceback);
    give_back(store->state, object, CFPY_SPARE_OP);
    Py_DECREF((PyObject *)store); /* last: it keeps the module, whose state has the memory */
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

/* ----------------------------------------------------------------------------------------------------------- Waiter -- */

PyDoc_STRVAR(get_loop_doc, "get_loop($self, /)\n--\n\nThe event loop, as of a future.");
static PyObject *waiter_get_loop(PyObject *object, PyObject *unused)
{
    PyObject *loop = ((cfpy_waiter *)object)->store->event_loop;
    (void)unused;
    if (loop == NULL)
        loop = Py_None; /* the store is being collected */
    Py_INCREF(loop);
    return loop;
}

PyDoc_STRVAR(add_callback_doc, "add_done_callback($self, callback, /, *, context=None)\n--\n\nAs of a future, but for one callback.");
static PyObject *waiter_add_callback(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cfpy_waiter    *self = (cfpy_waiter *)object;
    cfpy_names     *names = &self->store->state->names;
    PyObject       *given[2];
    PyObject *const wanted[] = {names->callback, names->context};
    if (nargs == 1 && kwnames != NULL && PyTuple_Size(kwnames) == 1 && PyTuple_GetItem(kwnames, 0) == names->context) {
        given[0] = args[0]; /* as a Task asks */
        given[1] = args[1];
    } else if (cfpy_arguments("add_done_callback", args, nargs, kwnames, wanted, 2, 1, 1, given) < 0)
        return NULL;
    if (self->callback != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "somebody waits for this operation already");
        return NULL;
    }
    Py_INCREF(given[0]);
    self->callback = given[0];
    if (given[1] != NULL && given[1] != Py_None) {
        Py_INCREF(given[1]);
        CFPY_REPLACE(self->context, given[1]);
    }
    if (self->done && waiter_call_soon(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(remove_callback_doc, "remove_done_callback($self, callback, /)\n--\n\nAs of a future.");
static PyObject *waiter_remove_callback(PyObject *object, PyObject *callback)
{
    cfpy_waiter *self = (cfpy_waiter *)object;
    int          same = self->callback ? PyObject_RichCompareBool(self->callback, callback, Py_EQ) : 0;
    if (same < 0)
        return NULL;
    if (same)
        Py_CLEAR(self->callback);
    return PyLong_FromLong(same);
}

PyDoc_STRVAR(waiter_result_doc, "result($self, /)\n--\n\nNone; CancelledError when the task was cancelled. The operation itself has the result.");
static PyObject *waiter_result(PyObject *object, PyObject *unused)
{
    cfpy_waiter *self = (cfpy_waiter *)object;
    (void)unused;
    if (!self->canceled)
        Py_RETURN_NONE;
    if (self->message == NULL || self->message == Py_None)
        PyErr_SetNone(self->store->state->cancelled);
    else
        PyErr_SetObject(self->store->state->cancelled, self->message);
    return NULL;
}

PyDoc_STRVAR(waiter_cancel_doc, "cancel($self, /, msg=None)\n--\n\nAs of a future: the task is resumed with CancelledError.");
static PyObject *waiter_cancel(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"msg", NULL};
    cfpy_waiter *self = (cfpy_waiter *)object;
    PyObject    *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message))
        return NULL;
    if (self->done)
        Py_RETURN_FALSE;
    self->done = self->canceled = true;
    Py_INCREF(message);
    CFPY_REPLACE(self->message, message);
    if (waiter_call_soon(self) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(waiter_done_doc, "done($self, /)\n--\n\nAs of a future.");
static PyObject *waiter_is_done(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((cfpy_waiter *)object)->done);
}

static PyObject *waiter_get_blocking(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((cfpy_waiter *)object)->blocking);
}

static int waiter_set_blocking(PyObject *object, PyObject *value, void *unused)
{
    (void)unused;
    int truth = value ? PyObject_IsTrue(value) : 0;
    if (truth < 0)
        return -1;
    ((cfpy_waiter *)object)->blocking = truth;
    return 0;
}

static int waiter_traverse(PyObject *object, visitproc visit, void *arg)
{
    cfpy_waiter *self = (cfpy_waiter *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->store);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->message);
    return 0;
}

static int waiter_clear(PyObject *object)
{
    cfpy_waiter *self = (cfpy_waiter *)object;
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->message);
    return 0;
}

static void waiter_dealloc(PyObject *object)
{
    cfpy_store *store = ((cfpy_waiter *)object)->store;
    PyObject_GC_UnTrack(object);
    waiter_clear(object);
    give_back(store->state, object, CFPY_SPARE_WAITER);
    Py_DECREF((PyObject *)store);
}

static PyMethodDef waiter_methods[] = {
    {"get_loop", waiter_get_loop, METH_NOARGS, get_loop_doc},
    {"add_done_callback", CFPY_METHOD(waiter_add_callback), METH_FASTCALL | METH_KEYWORDS, add_callback_doc},
    {"remove_done_callback", waiter_remove_callback, METH_O, remove_callback_doc},
    {"result", waiter_result, METH_NOARGS, waiter_result_doc},
    {"cancel", CFPY_METHOD(waiter_cancel), METH_VARARGS | METH_KEYWORDS, waiter_cancel_doc},
    {"done", waiter_is_done, METH_NOARGS, waiter_done_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef waiter_getset[] = {
    {"_asyncio_future_blocking", waiter_get_blocking, waiter_set_blocking, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "What a Task waits for while an operation is pending: as much of a future as it needs."},
    {Py_tp_methods, waiter_methods},
    {Py_tp_getset, waiter_getset},
    {Py_tp_traverse, CFPY_SLOT(waiter_traverse)},
    {Py_tp_clear, CFPY_SLOT(waiter_clear)},
    {Py_tp_dealloc, CFPY_SLOT(waiter_dealloc)},
    {0, NULL},
};

PyType_Spec cfpy_waiter_spec = {
    .name = "counterfoil._native.Waiter",
    .basicsize = sizeof(cfpy_waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = waiter_slots,
};
