/* native.h: what the files of counterfoil._native share.
 *
 *   module.c   the module and its state            loop.c   loops: the pool of the blocking store, the GIL around waits
 *   convert.c  Python objects to slices and back   store.c  the two store types: parse, submit, give the result
 *   op.c       the awaitable of the async store    host.c   backends written in Python: one trampoline
 *   stage.c    the staged platform for tests           records.c  records as dicts
 *
 * THE GIL. Every call of the core is made with the GIL held, except cf_op_wait_for of a pooled loop. Such a loop remembers the thread
 * state it gave up (`saved`), so that a slot or an event that is called from inside the wait can take it back: with the thread's own
 * state and not PyGILState, which knows the main interpreter only.
 *
 * NO GLOBALS. A store points to the state of the module that made it and keeps that module alive. */
#ifndef COUNTERFOIL_PYTHON_NATIVE_H
#define COUNTERFOIL_PYTHON_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "counterfoil.h"
#include "counterfoil/backend.h"
#include "counterfoil/testing.h"

/* Every Python name that is looked up or compared at run time, interned once. */
#define CFPY_NAMES(X)                                                                                                        \
    X(by) X(callback) X(cancel) X(close) X(cursor) X(delete_, "delete") X(default_ttl) X(expires_at) X(flags) X(for_good)   \
    X(force) X(get) X(id) X(if_absent) X(if_equal) X(if_present) X(incr) X(keep_ttl) X(key) X(limit) X(notify) X(nth)       \
    X(outcome) X(pending) X(pop) X(prefix) X(scan) X(seconds) X(send) X(set) X(set_if) X(spawn) X(stage) X(state) X(stop)   \
    X(target) X(throw_, "throw") X(ticket) X(timeout) X(timestamp) X(touch) X(ttl) X(utcoffset) X(value) X(wait) X(error)   \
    X(at_rest) X(hook) X(link) X(call_soon) X(connections) X(context) X(loop) X(receipt) X(record_, "_record") X(run) X(soon) X(told, "_told") X(watch)

#define CFPY_NAME_FIELD_1(name)         PyObject *name;
#define CFPY_NAME_FIELD_2(name, text)   PyObject *name;
#define CFPY_PICK(_1, _2, chosen, ...)  chosen
#define CFPY_NAME_FIELD(...)            CFPY_PICK(__VA_ARGS__, CFPY_NAME_FIELD_2, CFPY_NAME_FIELD_1, )(__VA_ARGS__)

typedef struct cfpy_names {
    CFPY_NAMES(CFPY_NAME_FIELD)
} cfpy_names;

#define CFPY_SPARE 128

typedef struct cfpy_state {
    PyTypeObject *store_type, *async_store_type, *op_type, *waiter_type, *stage_type, *host_type;
    PyObject     *make_error; /* counterfoil.errors.make                                       */
    PyObject     *running_loop, *task_type, *cancelled; /* of asyncio, once a store is opened there; task_type may be NULL */
    PyObject     *keep;       /* counterfoil.Backend.KEEP                                      */
    PyObject     *datetime;   /* datetime.datetime                                             */
    PyObject     *hosts;      /* id of a backend object -> its host, borrowed, as an integer   */
    cfpy_names    names;
    PyObject     *spare[2][CFPY_SPARE]; /* memory of Ops and Waiters to use again: one of each is made for every operation that is awaited */
    int           spares[2];
} cfpy_state;

enum { CFPY_SPARE_OP, CFPY_SPARE_WAITER };

typedef struct cfpy_host  cfpy_host;
typedef struct cfpy_store cfpy_store;
typedef struct cfpy_loop  cfpy_loop;
typedef struct cfpy_waiting cfpy_waiting;
typedef struct cfpy_waiter cfpy_waiter;

/* ------------------------------------------------------------------------------------------------------ convert.c -- */

/* Lent bytes of a Python object: of a str or bytes directly, of anything else through its buffer. */
typedef struct cfpy_bytes {
    cf_slice  slice;
    Py_buffer buffer;
    bool      buffered;
} cfpy_bytes;

/* Sorts the arguments of a vectorcall by name into `out` (NULL where not given). The first `positional` may be given by position, the
 * first `required` must be given. -1 with a TypeError. */
int cfpy_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *const *names,
                   int count, int positional, int required, PyObject **out);

/* Each returns 0, or -1 with the exception set. */
int  cfpy_text(cfpy_state *state, PyObject *object, const char *what, cf_slice *out);
int  cfpy_value(cfpy_state *state, PyObject *object, const char *what, cfpy_bytes *out);
int  cfpy_text_value(cfpy_state *state, PyObject *object, const char *what, cfpy_bytes *out);
void cfpy_bytes_release(cfpy_bytes *bytes);
int  cfpy_flag(cfpy_state *state, PyObject *object, const char *what, unsigned flag, unsigned *flags);
int  cfpy_seconds(cfpy_state *state, PyObject *object, const char *what, double *out);
int  cfpy_ttl(cfpy_state *state, PyObject *object, int64_t *ms);
int  cfpy_instant(cfpy_state *state, PyObject *object, int64_t *ms);
int  cfpy_integer(cfpy_state *state, PyObject *object, const char *what, int64_t *out);

/* Text of bytes, short for ASCII. NULL with UnicodeDecodeError. */
PyObject *cfpy_string(cf_slice slice);

/* Raise, and return NULL. */
PyObject *cfpy_raise(cfpy_state *state, int status, int outcome, const char *text);
PyObject *cfpy_raise_error(cfpy_state *state, const cf_error *error);
PyObject *cfpy_raise_failed(cfpy_state *state, const cf_op *op); /* with its receipt, if it has one */
/* The exception itself. New reference, or NULL with another exception. */
PyObject *cfpy_error(cfpy_state *state, const cf_error *error);
PyObject *cfpy_raise_type(cfpy_state *state, const char *what, const char *wanted, PyObject *given);
/* The current exception has nobody to go to: sys.unraisablehook gets it, but a Ctrl-C stays one, for whoever waits or comes next. */
void cfpy_nobodys(PyObject *where);
/* Raises an exception object as it is, with the traceback it has. */
PyObject *cfpy_raise_object(PyObject *exception);
/* The current exception as an object with its traceback; it is no longer set. New reference; NULL only without one. */
PyObject *cfpy_caught(void);
/* The name of an object's type, for sentences. Never NULL: falls back to "object" without memory. New reference or NULL. */
PyObject *cfpy_type_name(PyObject *object);

/* ---------------------------------------------------------------------------------------------------------- loop.c -- */

/* What cf_store_stats says, added up. The names are static. */
#define CFPY_FIGURES 48
typedef struct cfpy_figures {
    int count;
    struct {
        const char *name;
        int64_t     value;
    } of[CFPY_FIGURES];
} cfpy_figures;

/* A cf_stat_fn whose `user` are cfpy_figures. */
void cfpy_figures_add(void *figures, const char *name, int64_t value);

/* A core loop with the one store that is opened on it. */
struct cfpy_loop {
    cfpy_loop     *next;
    cfpy_store    *owner;   /* borrowed: it outlives its loops                                                              */
    cf_loop       *loop;
    cf_store      *store;
    PyThreadState *saved;   /* given up by a wait on this loop                                                              */
    PyThreadState *holder;  /* who uses it; NULL: idle. Only compared, never followed                                       */
    unsigned       depth;   /* calls inside each other                                                                      */
    bool           waiting; /* inside cf_op_wait_for, without the GIL                                                        */
    bool           asked;   /* stats() of another thread waits for this one's figures                                       */
    int64_t        idle_at; /* when it came back                                                                            */
    cfpy_figures  *seen;    /* what it said to the last stats() of another thread                                            */
    PyObject      *thrown;  /* what Backend.close threw                                                                     */
};

#define CFPY_IDLE_MAX    8     /* loops over a backend of Python that a store keeps for later */
#define CFPY_IDLE_MS     60000 /* how long it keeps a connection that nobody uses              */
#define CFPY_CONNECTIONS 1000  /* the most that may be asked for                              */

struct cfpy_store {
    PyObject_HEAD
    cfpy_state *state;
    PyObject   *module; /* keeps `state` */
    bool        asynchronous;
    bool        single; /* memory: never waits, never calls out; one loop for all threads, the GIL is the checkout */
    bool        open;
    cfpy_loop  *loops; /* of a pool: the one that came back last is the first */

    unsigned      connections; /* a pool of connections: at most so many; 0: it is none */
    bool          spare;       /* and one more, for reads */
    cfpy_waiting *waiting;     /* threads that wait for one of them, the first to come first */
    long          pid;         /* of the process that they are threads of */
    int64_t       refused;     /* how many have waited in vain */

    PyObject       *url;   /* text, or NULL with a host */
    cfpy_host      *host;  /* a backend written in Python, or NULL */
    PyObject       *stage; /* or NULL */
    PyObject       *prefix;
    cf_open_options options;
    cf_key         *keys; /* of options: its loops are opened one by one */

    PyObject *link;    /* async: how to wait in this event loop (aio.py) */
    PyObject *tasks;   /* async: ticket -> the task that will settle it */

    PyObject     *event_loop; /* asyncio: the event loop, which op.c then speaks to by itself */
    int           watched;    /* asyncio: the descriptor that is watched, or -1               */
    bool          flushing;   /* asyncio: a flush is scheduled for the end of the tick        */
    PyThreadState *running;   /* asyncio: whose read callback runs now: it flushes at its end */
    size_t        unsent;     /* asyncio: submitted since the last flush                      */
    size_t        early;      /* asyncio: so many of them are flushed before the end          */
    cfpy_waiter  *woken, **woken_end; /* asyncio: whom the read callback will step            */

    PyObject *notify;  /* close(): called when the last busy loop is gone */
    PyObject *thrown;  /* what Backend.close threw */
    PyObject *closing; /* async: the awaitable that Backend.close returned */

    cfpy_figures retired; /* of loops that were not kept */
};

/* Opens the first loop. 0, or -1 with the exception. */
int cfpy_loop_open(cfpy_store *store);

/* A loop for one call (`reads`: that changes nothing), or NULL with the exception (ClosedError and, where all connections are in use, BusyError
 * among them). `left` (may be
 * NULL) is what of the store's timeout is left after the wait for it; 0: all of it. Every one is given back by cfpy_checkin, which closes it
 * when the store was closed meanwhile. Both keep a set exception. */
cfpy_loop *cfpy_checkout(cfpy_store *store, bool reads, int64_t *left);
void       cfpy_checkin(cfpy_loop *loop);

/* Waits for a pending operation, answering signals. 0, or -1 with the exception of a signal handler. */
int cfpy_wait(cfpy_loop *loop, cf_op *op);

/* Closes what is idle, leaves the rest to check-in. Returns how many loops other threads still use. */
Py_ssize_t cfpy_close(cfpy_store *store);

/* The figures of all loops. */
void cfpy_figures_of(cfpy_store *store, cfpy_figures *out);

/* For code of ours that the core calls: takes the GIL back if a wait gave it up. */
bool cfpy_enter(cfpy_loop *loop);
void cfpy_leave(cfpy_loop *loop, bool entered);

/* ---------------------------------------------------------------------------------------------------------- host.c -- */

enum { /* what backend.py found on a backend object */
    CFPY_POP = 1, CFPY_TOUCH = 2, CFPY_INCR = 4, CFPY_SCAN = 8, CFPY_SET_IF = 16, CFPY_CLOSE = 32,
    CFPY_BINARY = 64, CFPY_KEEPS_TTL = 128, CFPY_SINGLE_PROCESS = 256,
    CFPY_HOOK = 512 /* it is no backend, but the hooks of an AccountsStorage: interfaces/hooks.py */
};

/* The host of a backend object: the one that is there, or a new one. New reference, or NULL with the exception. */
cfpy_host *cfpy_host_of(cfpy_state *state, PyObject *module, PyObject *object, unsigned flags);
/* Opens a core store over it. As cf_open_backend. */
int       cfpy_host_open(cfpy_host *host, cfpy_loop *loop, const cf_open_options *options, cf_store **out, cf_error *error);
PyObject *cfpy_host_object(cfpy_host *host); /* borrowed */
bool      cfpy_host_hooks(const cfpy_host *host); /* CFPY_HOOK */
/* A task has ended: gives its result (`value`) or its exception (`error`; the other is NULL) to the operation with this ticket. */
void cfpy_host_settle(cfpy_loop *loop, uint64_t ticket, PyObject *value, PyObject *error);
/* The exception that a Python backend threw into this operation, borrowed, or NULL. */
PyObject *cfpy_host_thrown(const cf_op *op);

/* --------------------------------------------------------------------------------------------------- store.c, op.c -- */

/* What becomes of a finished operation. */
typedef enum cfpy_mode {
    CFPY_AS_TEXT, /* the value as str, or None    */
    CFPY_AS_BYTES,
    CFPY_AS_HIT,
    CFPY_AS_NUMBER,
    CFPY_AS_PAGE, /* (keys, cursor or None)       */
    CFPY_AS_SWEEP, /* (sealed anew, what does not open, cursor or None) */
    CFPY_AS_RECORDS, /* (records, hit, number, cursor or None) */
    CFPY_AS_NONE
} cfpy_mode;

/* One call of the core, whichever function it is. */
typedef struct cfpy_call {
    enum { CFPY_SUBMIT, CFPY_STORAGE_GET, CFPY_STORAGE_SET, CFPY_SECONDARY_SET, CFPY_SECONDARY_GET, CFPY_SECONDARY_DELETE,
           CFPY_SECONDARY_POP, CFPY_RECORDS } what;
    cfpy_mode     mode;
    cf_request    request;     /* of the interfaces: key, value                  */
    bool          has_seconds; /* SecondaryStorage.set: a ttl was given          */
    double        seconds;
    int64_t       default_ttl; /* SecondaryStorage: for a set without ttl        */
    const struct cfpy_records *records;
} cfpy_call;

/* `timeout_ms` 0: the store's. */
int cfpy_submit(cf_store *store, const cfpy_call *call, int64_t timeout_ms, cf_done_fn done, void *user, cf_op **op);
/* The result of a finished operation. New reference, or NULL with the exception. */
PyObject *cfpy_result(cfpy_state *state, cf_op *op, cfpy_mode mode);
/* Submits and returns the awaitable. */
PyObject *cfpy_op_submit(cfpy_store *store, const cfpy_call *call);
/* Of the memory that op.c keeps. */
void cfpy_op_forget(cfpy_state *state);
int  cfpy_op_visit(cfpy_state *state, visitproc visit, void *arg);
/* An awaitable that raises the current exception when it is awaited. */
PyObject *cfpy_op_failed(cfpy_store *store);
/* Finds out whether the store's event loop is one of asyncio. */
int cfpy_op_prepare(cfpy_store *store);
/* Sends what was submitted. */
void cfpy_op_flush(cfpy_store *store);
/* The read callback will run the loop now; `outer`: and call cfpy_op_step after it. */
void cfpy_op_stepping(cfpy_store *store, cfpy_loop *loop, bool outer);
/* After the read callback has run the loop: steps the tasks whose operations have finished. 0, or -1 with an exception that is the
 * event loop's to handle (KeyboardInterrupt, SystemExit). */
int cfpy_op_step(cfpy_store *store);

/* ------------------------------------------------------------------------------------------------------- records.c -- */

/* A call of an AccountsStorage or a SessionStorage. Its texts are lent by the arguments. */
typedef struct cfpy_records {
    bool            sessions, reads;
    int             method;
    size_t          most;
    cf_record       record, user; /* user.kind -1: none */
    cf_sessions     sessions_of;  /* but for its store */
    cf_session_args args;
} cfpy_records;

/* Of the arguments of `_accounts` and `_sessions`. 0, or -1 with the exception. */
int cfpy_accounts_take(cfpy_state *state, PyObject *const *args, Py_ssize_t nargs, cfpy_records *out);
int cfpy_sessions_take(cfpy_state *state, PyObject *const *args, Py_ssize_t nargs, cfpy_records *out);
int cfpy_records_submit(cf_store *store, const cfpy_records *in, const cf_call *how, cf_op **op);
PyObject *cfpy_records_result(cf_op *op);
void      cfpy_records_existing(cfpy_state *state, cf_op *op);

int       cfpy_kind_named(PyObject *name); /* -1: none */
int       cfpy_record_take(cfpy_state *state, int kind, PyObject *fields, cf_record *out);
PyObject *cfpy_record_give(const cf_record *record);

cf_stage *cfpy_stage_of(PyObject *stage);

extern PyType_Spec cfpy_store_spec, cfpy_async_store_spec, cfpy_op_spec, cfpy_waiter_spec, cfpy_stage_spec, cfpy_host_spec;

/* Puts a new reference in a field and then lets go of the old one: what that runs must find the new one. */
#define CFPY_REPLACE(field, object)                                                                                          \
    do {                                                                                                                     \
        PyObject *replaced_ = (field);                                                                                       \
        (field) = (object);                                                                                                  \
        Py_XDECREF(replaced_);                                                                                               \
    } while (0)

/* A slot's function as the void pointer that PyType_Slot wants: ISO C has no such conversion, POSIX promises it. */
#define CFPY_SLOT(function) ((void *)(uintptr_t)(function))
#define CFPY_METHOD(function) ((PyCFunction)(void (*)(void))(function))

#endif
