/* loop.c: which loop a call uses, and how it waits.
 *
 * A loop belongs to one thread at a time. A pooled store therefore has one {cf_loop, cf_store} per call in flight: taken from the idle
 * ones, made when there is none, kept when it comes back. All of this happens under the GIL and needs no lock of its own. A thread that
 * calls from inside its own call (a Python backend that uses its own store, a listener) gets another loop, because a loop does not
 * run inside itself; how deep that may go is counted here.
 *
 * Over a URL a loop is a connection, so there are only so many: beyond that calls wait in the order in which they came, and one that comes
 * back is given to the first of them, past everybody who asks later. Over a database file there is one more, which only reads may take: they
 * end at once, also while another process keeps all the writes waiting. The one used last is used next, so that those which are too
 * many grow old; they are closed when another comes back, because there is no thread that could do it. */
#include "native.h"

#include <pythread.h>
#include <time.h>
#include <unistd.h>

#define WAIT_SLICE_MS  50 /* how late Ctrl-C may be */
#define FIGURES_ASK_MS 100 /* how long stats() waits for the threads that are inside their loops */

/* A thread that waits for a connection; on its stack. */
struct cfpy_waiting {
    cfpy_waiting      *next;
    PyThreadState     *thread;
    PyThread_type_lock lock; /* released when there is something to see */
    cfpy_loop         *granted;
    bool               listed, reads;
};

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

/* ---------------------------------------------------------------------------------------------------------- figures -- */

void cfpy_figures_add(void *figures, const char *name, int64_t value)
{
    cfpy_figures *self = figures;
    for (int i = 0; i < self->count; i++)
        if (strcmp(self->of[i].name, name) == 0) {
            self->of[i].value += value;
            return;
        }
    if (self->count == CFPY_FIGURES)
        return;
    self->of[self->count].name = name;
    self->of[self->count++].value = value;
}

/* What is true of a loop only while it is there. */
static void add_lasting(void *figures, const char *name, int64_t value)
{
    static const char *const passing[] = {"pending", "connected", "queued", "in_flight"};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        if (strcmp(passing[i], name) == 0)
            return;
    cfpy_figures_add(figures, name, value);
}

static void add_all(cfpy_figures *sum, const cfpy_figures *figures)
{
    for (int i = 0; i < figures->count; i++)
        cfpy_figures_add(sum, figures->of[i].name, figures->of[i].value);
}

/* Writes the figures down for a thread that has asked: nobody else may look into a loop that is in use. */
static void answer(cfpy_loop *self)
{
    if (!self->asked)
        return;
    self->asked = false;
    if (self->seen == NULL)
        self->seen = PyMem_Malloc(sizeof *self->seen);
    if (self->seen == NULL)
        return; /* it does without */
    self->seen->count = 0;
    cf_store_stats(self->store, cfpy_figures_add, self->seen);
}

/* Inside the core in another thread, without the GIL. */
static bool out_of_reach(const cfpy_loop *self)
{
    return self->waiting && self->holder != PyThreadState_Get();
}

/* Has the threads that are inside their loops come out for a moment and answer. */
static void ask(cfpy_store *store)
{
    for (cfpy_loop *self = store->loops; self != NULL; self = self->next)
        if (out_of_reach(self) && !cf_loop_forked(self->loop)) {
            self->asked = true;
            cf_loop_wake(self->loop);
        }
    for (int ms = 0; ms < FIGURES_ASK_MS; ms++) {
        bool open = false;
        for (cfpy_loop *self = store->loops; self != NULL; self = self->next)
            open = open || (self->asked && out_of_reach(self));
        if (!open)
            return;
        const struct timespec a_millisecond = {.tv_nsec = 1000000};
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&a_millisecond, NULL);
        Py_END_ALLOW_THREADS
    }
}

void cfpy_figures_of(cfpy_store *store, cfpy_figures *out)
{
    int64_t elsewhere = 0, loops = 0;
    *out = store->retired;
    if (store->connections > 0)
        ask(store);
    for (cfpy_loop *self = store->loops; self != NULL; self = self->next) {
        if (cf_loop_forked(self->loop) && self->depth > 0)
            continue;
        loops++;
        if (!out_of_reach(self))
            cf_store_stats(self->store, cfpy_figures_add, out);
        else if (self->seen != NULL)
            add_all(out, self->seen);
        else
            elsewhere++;
    }
    if (elsewhere > 0)
        cfpy_figures_add(out, "pending", elsewhere);
    if (store->connections > 0) {
        cfpy_figures_add(out, "connections", loops);
        cfpy_figures_add(out, "busy", store->refused);
    }
}

/* ----------------------------------------------------------------------------------------------------------- events -- */

/* The core calls this from inside a run of the loop. */
static void on_event(void *user, int event, const cf_error *what)
{
    cfpy_loop  *self = user;
    cfpy_store *store = self->owner;
    bool        entered = cfpy_enter(self);
    PyObject   *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *name = PyUnicode_FromString(cf_event_name(event));
    PyObject *said = event == CF_EVENT_DISCONNECT || event == CF_EVENT_ERROR
                         ? cfpy_error(store->state, what)
                         : PyUnicode_DecodeUTF8(what->text, (Py_ssize_t)strlen(what->text), "replace");
    PyObject *told = name && said ? PyObject_CallMethodObjArgs((PyObject *)store, store->state->names.told, name, said, NULL) : NULL;
    if (told == NULL)
        cfpy_nobodys((PyObject *)store);
    Py_XDECREF(told);
    Py_XDECREF(said);
    Py_XDECREF(name);
    PyErr_Restore(type, value, traceback);
    cfpy_leave(self, entered);
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
                   rc == CF_ENOMEM ? "no memory for a loop"
                                   : "the system gives no descriptors for a connection (too many open files: see ulimit -n)");
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
        cf_loop_set_blocking(self->loop, !store->asynchronous);
        if (store->open) {
            rc = cf_open(self->loop, url, &store->options, &self->store, &error);
        } else { /* the first: nobody knows the store yet, and another process may have a database locked */
            Py_BEGIN_ALLOW_THREADS
            rc = cf_open(self->loop, url, &store->options, &self->store, &error);
            Py_END_ALLOW_THREADS
        }
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
    if (store->connections > 0)
        cf_store_on_event(self->store, on_event, self);
    self->next = store->loops;
    store->loops = self;
    return self;
}

static void take_out(cfpy_loop *self)
{
    for (cfpy_loop **at = &self->owner->loops; *at != NULL; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
}

/* Takes the loop out of its store and ends it. Keeps a set exception; what Backend.close throws, and the error of a close that
 * failed, are left in the store. */
static void loop_end(cfpy_loop *self)
{
    cfpy_store *store = self->owner;
    PyObject   *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);

    take_out(self);
    if (store->open)
        cf_store_stats(self->store, add_lasting, &store->retired);

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
    PyMem_Free(self->seen);
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

/* ---- waiting for a connection ---- */

static int64_t now_ms(const cfpy_store *store)
{
    const cf_platform *platform = cf_loop_platform(store->loops->loop); /* while somebody uses a loop there is one */
    return platform->monotonic_ms(platform->self);
}

/* In a child, those who waited are threads of the parent, and so are their stacks. */
static cfpy_waiting *first_waiting(cfpy_store *store)
{
    if (store->waiting != NULL && store->pid != (long)getpid())
        store->waiting = NULL;
    return store->waiting;
}

static void enlist(cfpy_store *store, cfpy_waiting *self)
{
    cfpy_waiting **at = &store->waiting;
    if (first_waiting(store) == NULL)
        store->pid = (long)getpid();
    while (*at != NULL)
        at = &(*at)->next;
    *at = self;
    self->listed = true;
}

static void delist(cfpy_store *store, cfpy_waiting *self)
{
    first_waiting(store);
    for (cfpy_waiting **at = &store->waiting; *at != NULL; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    self->listed = false;
}

/* How many connections may be in use once a call has its own. */
static unsigned limit(const cfpy_store *store, bool reads)
{
    return store->connections + (reads && store->spare);
}

/* Takes the first who may have a connection beside so many that are in use out of the list, and lets it look. */
static cfpy_waiting *call_first(cfpy_store *store, unsigned busy)
{
    first_waiting(store);
    cfpy_waiting **at = &store->waiting;
    while (*at != NULL && busy >= limit(store, (*at)->reads))
        at = &(*at)->next;
    cfpy_waiting *first = *at;
    if (first == NULL)
        return NULL;
    *at = first->next;
    first->listed = false;
    PyThread_release_lock(first->lock);
    return first;
}

static cfpy_loop *refuse_busy(cfpy_store *store, const char *why)
{
    char text[160];
    store->refused++;
    PyOS_snprintf(text, sizeof text, "all %u connections of this store are in use%s", store->connections, why);
    cfpy_raise(store->state, CF_EBUSY, CF_NOT_APPLIED, text);
    return NULL;
}

/* One that another call gives back; NULL without an exception: look again. */
static cfpy_loop *await_connection(cfpy_store *store, bool reads, int64_t until)
{
    cfpy_waiting self = {.thread = PyThreadState_Get(), .lock = PyThread_allocate_lock(), .reads = reads};
    if (self.lock == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    PyThread_acquire_lock(self.lock, WAIT_LOCK);
    enlist(store, &self);
    int64_t left = until - now_ms(store);
    while (self.listed && left > 0) {
        PY_TIMEOUT_T slice = (left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS) * 1000;
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock_timed(self.lock, slice, 0);
        Py_END_ALLOW_THREADS
        if (self.listed && (PyErr_CheckSignals() < 0 || store->pid != (long)getpid()))
            break; /* or a signal handler has forked, and this is the child: nobody will call */
        left = store->open && self.listed ? until - now_ms(store) : 0;
    }
    if (self.listed)
        delist(store, &self);
    PyThread_free_lock(self.lock);
    if (self.granted != NULL && PyErr_Occurred()) {
        cfpy_checkin(self.granted);
        self.granted = NULL;
    }
    return self.granted;
}

static cfpy_loop *checkout_pooled(cfpy_store *store, bool reads, int64_t *left)
{
    PyThreadState *me = PyThreadState_Get();
    int64_t        until = 0;
    for (;;) {
        cfpy_loop *idle = NULL;
        unsigned   mine = 0, busy = 0;
        for (cfpy_loop *self = store->loops; self != NULL; self = self->next) {
            if (self->holder == NULL) {
                idle = idle ? idle : self;
            } else if (!cf_loop_forked(self->loop)) { /* forked: of a call that the child does not have */
                busy++;
                mine += self->holder == me;
            }
        }
        if (mine >= CF_DEPTH_MAX) {
            cfpy_raise(store->state, CF_EINVAL, CF_NOT_APPLIED, "a backend called its own store more than 16 deep");
            return NULL;
        }
        if (store->connections > 0 && busy >= limit(store, reads)) {
            if (mine == busy)
                return refuse_busy(store, " by the call that this one is made from");
            int64_t now = now_ms(store);
            until = until ? until : now + store->options.timeout_ms;
            if (now >= until)
                return refuse_busy(store, ": none came back before the deadline");
            idle = await_connection(store, reads, until);
            if (idle == NULL && PyErr_Occurred())
                return NULL;
            if (idle == NULL && store->open)
                continue;
            if (idle == NULL)
                return refuse_closed(store);
        } else if (idle == NULL) {
            idle = loop_make(store);
            if (idle == NULL)
                return NULL;
        }
        idle->holder = me;
        idle->depth = 1;
        if (!store->open) { /* by another thread, or by garbage collection */
            cfpy_checkin(idle);
            return refuse_closed(store);
        }
        if (cf_loop_forked(idle->loop) && reopen(idle) < 0) {
            cfpy_checkin(idle);
            return NULL;
        }
        if (until != 0 && left != NULL) {
            *left = until - now_ms(store);
            *left = *left > 0 ? *left : 1;
        }
        return idle;
    }
}

cfpy_loop *cfpy_checkout(cfpy_store *store, bool reads, int64_t *left)
{
    if (left != NULL)
        *left = 0;
    if (!store->open)
        return refuse_closed(store);
    return store->single || store->asynchronous ? checkout_single(store) : checkout_pooled(store, reads, left);
}

/* A connection came back: it goes to whoever waits, or to the front of the idle ones. */
static void connection_back(cfpy_store *store, cfpy_loop *self)
{
    unsigned busy = 0;
    for (cfpy_loop *other = store->waiting ? store->loops : NULL; other != NULL; other = other->next)
        busy += other->holder != NULL && !cf_loop_forked(other->loop);
    cfpy_waiting *first = call_first(store, busy);
    if (first != NULL) {
        first->granted = self;
        self->holder = first->thread;
        self->depth = 1;
        return;
    }
    if (store->loops == self && self->next == NULL)
        return; /* the only one stays */
    take_out(self);
    self->next = store->loops;
    store->loops = self;
    self->idle_at = now_ms(store);
    for (cfpy_loop *other = self->next; other != NULL;) {
        bool old = other->holder == NULL && self->idle_at - other->idle_at >= CFPY_IDLE_MS;
        if (!old) {
            other = other->next;
            continue;
        }
        loop_end(other);
        other = store->open ? store->loops->next : NULL; /* from the beginning: ending one may run a finalizer */
    }
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
    answer(self);
    self->holder = NULL;
    cfpy_store *store = self->owner;
    if (store->open) {
        if (store->single || store->asynchronous)
            return;
        if (store->connections > 0) {
            connection_back(store, self);
            return;
        }
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
    } else if (store->thrown != NULL) { /* close() has returned: it was called from inside, or has waited in vain */
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
    while (call_first(store, 0) != NULL) /* they find that it is closed */
        ;
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
        answer(self);
        if (rc < 0) { /* the wait itself was refused; the operation is still there */
            cfpy_raise(store->state, rc, CF_UNKNOWN,
                       rc == CF_EFORKED ? "this call was begun before a fork, and this is the child"
                                        : "the loop of this operation cannot run now");
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}
