/* loop.c: which loop a call uses, and how it waits.
 *
 * A loop belongs to one thread at a time. A pooled store therefore has one {cf_loop, cf_store} per call in flight: taken from the idle
 * ones, made when there is none, kept (up to CFPY_IDLE_MAX) when it comes back. All of this happens under the GIL and needs no
 * lock of its own. A thread that calls from inside its own call (a Python backend that uses its own store) gets another loop, because
 * a loop does not run inside itself; how deep that may go is counted here. */
#include "native.h"

#define WAIT_SLICE_MS 50 /* how late Ctrl-C may be */

bool cfpy_enter(cfpy_loop *loop)
{
    PyThreadState *saved = loop->saved;
    if (saved == NULL)
        return false;
    loop->saved = NULL;
    PyEval_RestoreThread(saved);
    return true;
}

void cfpy_leave(cfpy_loop *loop, bool entered)
{
    if (entered)
        loop->saved = PyEval_SaveThread();
}

/* ------------------------------------------------------------------------------------------------- making and ending -- */

static cfpy_loop *loop_make(cfpy_store *store)
{
    cfpy_loop *self = PyMem_Malloc(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(self, 0, sizeof *self);
    self->owner = store;

    const cf_platform *platform = store->stage ? cf_stage_platform(cfpy_stage_of(store->stage)) : NULL;
    int                rc = cf_loop_new(platform, &self->loop);
    if (rc != CF_OK) {
        PyMem_Free(self);
        cfpy_raise(store->state, rc, CF_NOT_APPLIED,
                   rc == CF_ENOMEM ? "no memory for a loop" : "the system gives no descriptors for a loop");
        return NULL;
    }

    cf_error error;
    if (store->host != NULL) {
        rc = cfpy_host_open(store->host, self, &store->options, &self->store, &error);
    } else {
        cf_slice url;
        if (cfpy_text(store->state, store->url, "the URL", &url) < 0) {
            cf_loop_free(self->loop);
            PyMem_Free(self);
            return NULL;
        }
        rc = cf_open(self->loop, url, &store->options, &self->store, &error);
    }
    if (rc != CF_OK) {
        cf_loop_free(self->loop);
        if (self->thrown != NULL) { /* the backend was closed and threw: the reason why opening failed is worth more */
            cfpy_raise_object(self->thrown);
            Py_CLEAR(self->thrown);
            PyErr_WriteUnraisable(NULL);
        }
        PyMem_Free(self);
        cfpy_raise_error(store->state, &error);
        return NULL;
    }
    self->next = store->loops;
    store->loops = self;
    return self;
}

static void retire_figure(void *user, const char *name, int64_t value)
{
    cfpy_store *store = user;
    if (strcmp(name, "pending") == 0)
        return;
    for (int i = 0; i < CFPY_RETIRED; i++) {
        if (store->retired[i].name == NULL)
            store->retired[i].name = name;
        if (strcmp(store->retired[i].name, name) == 0) {
            store->retired[i].value += value;
            return;
        }
    }
}

/* Takes the loop out of its store and ends it. Keeps a set exception; what Backend.close throws, and the error of a close that
 * failed, are left in the store. */
static void loop_end(cfpy_loop *self)
{
    cfpy_store *store = self->owner;
    PyObject   *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);

    for (cfpy_loop **at = &store->loops; *at != NULL; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    if (store->open)
        cf_store_stats(self->store, retire_figure, store);

    cf_error error;
    error.status = CF_OK;
    int rc = cf_store_close(self->store, &error);
    if (rc != CF_OK && self->thrown == NULL) {
        cfpy_raise_error(store->state, &error);
        self->thrown = cfpy_caught();
    }
    cf_loop_free(self->loop);
    if (self->thrown != NULL && store->thrown == NULL) {
        store->thrown = self->thrown;
        self->thrown = NULL;
    }
    Py_CLEAR(self->thrown);
    PyMem_Free(self);
    PyErr_Restore(type, value, traceback);
}

int cfpy_loop_open(cfpy_store *store)
{
    return loop_make(store) ? 0 : -1;
}

/* -------------------------------------------------------------------------------------------------------- in and out -- */

/* After a fork: the first call of the child comes here. */
static int reopen(cfpy_loop *self)
{
    int rc = cf_loop_reopen(self->loop);
    if (rc == CF_OK)
        return 0;
    cfpy_raise(self->owner->state, rc, CF_NOT_APPLIED, "the store could not be opened again in this process after a fork");
    return -1;
}

static cfpy_loop *refuse_closed(cfpy_store *store)
{
    cfpy_raise(store->state, CF_ECLOSED, CF_NOT_APPLIED, "the store is closed");
    return NULL;
}

static cfpy_loop *checkout_single(cfpy_store *store)
{
    cfpy_loop *self = store->loops;
    if (store->asynchronous) {
        /* One event loop, one thread. A Python backend can lose the GIL in the middle of the core, so another thread must not
         * get in; between calls anybody may look. */
        PyThreadState *me = PyThreadState_Get();
        if (self->holder != NULL && self->holder != me) {
            cfpy_raise(store->state, CF_EINVAL, CF_NOT_APPLIED,
                       "an AsyncStore belongs to one event loop: another thread is using it now");
            return NULL;
        }
        if (self->depth == 0 && cf_loop_forked(self->loop) && reopen(self) < 0)
            return NULL;
        self->holder = me;
    } else if (cf_loop_forked(self->loop) && reopen(self) < 0) {
        /* Also when calls are under way: of threads that the child does not have, which were between two slices of a wait. They
         * stay counted, so this loop ends with the child. */
        return NULL;
    }
    self->depth++;
    return self;
}

static cfpy_loop *checkout_pooled(cfpy_store *store)
{
    PyThreadState *me = PyThreadState_Get();
    cfpy_loop     *idle = NULL;
    unsigned       mine = 0;
    for (cfpy_loop *self = store->loops; self != NULL; self = self->next) {
        if (self->holder == NULL)
            idle = self;
        else if (self->holder == me && !cf_loop_forked(self->loop)) /* forked: of a call that the child does not have */
            mine++;
    }
    if (mine >= CF_DEPTH_MAX) {
        cfpy_raise(store->state, CF_EINVAL, CF_NOT_APPLIED, "a backend called its own store more than 16 deep");
        return NULL;
    }
    if (idle == NULL) {
        idle = loop_make(store);
        if (idle == NULL)
            return NULL;
        if (!store->open) { /* garbage collection closed the store meanwhile */
            loop_end(idle);
            return refuse_closed(store);
        }
    } else if (cf_loop_forked(idle->loop) && reopen(idle) < 0) {
        return NULL;
    }
    idle->holder = me;
    idle->depth = 1;
    return idle;
}

cfpy_loop *cfpy_checkout(cfpy_store *store)
{
    if (!store->open)
        return refuse_closed(store);
    return store->single || store->asynchronous ? checkout_single(store) : checkout_pooled(store);
}

/* Somebody waits in close(), and the last loop that was in use is gone. */
static void notify_closed(cfpy_store *store)
{
    PyObject *notify = store->notify;
    if (notify == NULL)
        return;
    for (cfpy_loop *self = store->loops; self != NULL; self = self->next)
        if (!cf_loop_forked(self->loop))
            return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    store->notify = NULL;
    PyObject *done = PyObject_CallObject(notify, NULL);
    if (done == NULL)
        PyErr_WriteUnraisable(notify);
    Py_XDECREF(done);
    Py_DECREF(notify);
    PyErr_Restore(type, value, traceback);
}

void cfpy_checkin(cfpy_loop *self)
{
    if (--self->depth > 0)
        return;
    self->holder = NULL;
    cfpy_store *store = self->owner;
    if (store->open) {
        if (store->single || store->asynchronous)
            return;
        unsigned idle = 0;
        for (cfpy_loop *other = store->loops; other != NULL; other = other->next)
            idle += other->holder == NULL;
        if (idle > CFPY_IDLE_MAX)
            loop_end(self);
        return;
    }

    Py_INCREF((PyObject *)store); /* what ends the loop may let go of the last reference to it */
    loop_end(self);
    if (store->notify != NULL) {
        notify_closed(store);
    } else if (store->thrown != NULL) { /* closed from inside: close() has returned, nobody is left to tell */
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *thrown = store->thrown;
        store->thrown = NULL;
        cfpy_raise_object(thrown);
        Py_DECREF(thrown);
        PyErr_WriteUnraisable((PyObject *)store);
        PyErr_Restore(type, value, traceback);
    }
    Py_DECREF((PyObject *)store);
}

Py_ssize_t cfpy_close(cfpy_store *store)
{
    Py_ssize_t     elsewhere = 0;
    PyThreadState *me = PyThreadState_Get();
    store->open = false;
    for (bool again = true; again;) { /* ending a loop runs Python code, which may change the list */
        again = false;
        elsewhere = 0;
        for (cfpy_loop *self = store->loops; self != NULL; self = self->next) {
            if (self->depth == 0) {
                loop_end(self);
                again = true;
                break;
            }
            if (self->holder != NULL && self->holder != me && !cf_loop_forked(self->loop))
                elsewhere++;
        }
    }
    return elsewhere;
}

/* ----------------------------------------------------------------------------------------------------------- waiting -- */

int cfpy_wait(cfpy_loop *self, cf_op *op)
{
    cfpy_store *store = self->owner;
    for (;;) {
        int rc;
        if (store->single) {
            /* All threads share this loop under the GIL, so the wait must not give it up: it works through what is due, and
             * lets the others in between two slices. */
            rc = cf_op_wait_for(op, 0);
            if (rc == CF_PENDING) {
                Py_BEGIN_ALLOW_THREADS
                Py_END_ALLOW_THREADS
            }
        } else {
            self->waiting = true;
            self->saved = PyEval_SaveThread();
            rc = cf_op_wait_for(op, WAIT_SLICE_MS);
            PyThreadState *saved = self->saved;
            self->saved = NULL;
            PyEval_RestoreThread(saved);
            self->waiting = false;
        }
        if (cf_op_status(op) != CF_PENDING)
            return 0;
        if (rc < 0) { /* the wait itself was refused; the operation is still there */
            cfpy_raise(store->state, rc, CF_UNKNOWN, "the loop of this operation cannot run now");
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}
