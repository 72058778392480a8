/* core.h: what loop, op, store and derive know of each other. Backends and bindings never see it. */
#ifndef CF_CORE_H
#define CF_CORE_H

#include <stdarg.h>
#include <stdatomic.h>

#include "record.h"
#include "seal.h"

/* ---------------------------------------------------------------------------------------------------------------- op -- */

typedef enum { OP_FREE, OP_SUBMITTING, OP_PENDING, OP_FINISHED } cf_op_state;

/* One step of a composed operation: looks at what the child brought (NULL: the first step) and either prepares the next child with
 * cf_child and returns STEP_CHILD, or STEP_YIELD (the loop comes back with the same child), or finishes with CF_OK or an error. */
typedef int (*cf_step_fn)(cf_op *op, cf_op *child);
enum { STEP_CHILD = 2, STEP_YIELD = 3 };

/* What of a group is wanted, and in which order: the backend gives all of it. */
typedef struct cf_page {
    int     status, order;
    int64_t now;
    size_t  limit; /* 0: this is no page */
    bool    after; /* what comes behind these two */
    int64_t after_value;
    char    after_id[CF_ID_LEN];
} cf_page;

typedef struct cf_keyed cf_keyed; /* keyed.c */

typedef struct cf_keylock cf_keylock; /* derive.c */
typedef enum { LOCK_NONE, LOCK_WAITING, LOCK_GRANTED, LOCK_HELD } cf_lock_state;

struct cf_op {
    cf_loop    *loop;
    cf_store   *store; /* NULL once it is closed */
    cf_op_state state;
    bool        hit, kept;
    bool        prepared; /* a child that waits for its turn after a yield        */
    bool        locks;    /* a child that takes the lock of its key, see derive.c */
    bool        secret;   /* what it holds is sealed elsewhere: it is wiped */
    bool        reads;    /* a hook that changes nothing */
    bool        canceled, freed; /* from inside a slot that works for it: it ends when that returns */
    bool        raw;      /* what is sealed comes and goes as it is, also for its children. A scan shows the keys of records, a list is one of ids (CF_BY_ALL) */
    bool        orphan;   /* a child that holds its parent's lock until the backend has answered; nobody frees it */
    uint32_t    index;   /* in loop->ops */
    uint64_t    ticket, note;
    size_t      heap_at; /* in loop->heap; SIZE_MAX: no deadline there */
    int64_t     deadline;
    cf_request  in;
    int64_t     number;
    cf_buffer   key;    /* prefix and key                                            */
    cf_buffer   keep;   /* cf_op_keep                                                */
    cf_buffer   value;  /* the value, or the keys of a page, each behind its length */
    size_t      key_at; /* cf_op_next_key */
    cf_buffer   cursor;
    cf_buffer   sealed;  /* the envelope of the value that goes in, or the sealed fields of a record */
    cf_buffer   plan;    /* of a record operation: `in.value` is a part of it */
    cf_page     page;
    cf_keyed   *keyed;   /* a record operation that is made of keys */
    cf_error    error;
    void       *attached;
    void (*release_attached)(void *);
    char     receipt[CF_RECEIPT_LEN];
    bool     has_receipt;
    cf_link  ready;  /* in loop->ready or loop->yielded */
    cf_op   *parent; /* of a composed operation */
    cf_op   *child;
    cf_step_fn step;
    int      phase;
    /* derive.c; guarded by CF_LOCK_DERIVE */
    _Atomic(cf_lock_state) lock_state;
    cf_keylock   *lock;
    cf_link       lock_link; /* in the lock's waiters, or in loop->granted */
};

cf_op *cf_op_new(cf_loop *loop, cf_store *store); /* NULL: no memory, or 2^24 operations */
void   cf_op_recycle(cf_op *op);
bool   cf_op_writes(const cf_op *op);
void   cf_op_pend(cf_op *op); /* children have no deadline of their own */
/* Of an operation that failed half-way: no hit, no value, no keys; and a read has not changed anything, whatever its backend says. */
void   cf_op_bring_nothing(cf_op *op);
/* Ends an operation: status, list and heap memberships, parent or `done`. */
typedef enum { END_QUEUE, END_NOW, END_QUIETLY } cf_end;
void cf_op_end(cf_op *op, int status, cf_end how);
/* The same, for an operation that the backend still has. */
void cf_op_abort(cf_op *op, int status, cf_end how, const char *sentence);

/* Composed operations. */
int    cf_compose(cf_op *op, cf_step_fn step); /* CF_PENDING: `op` is pending */
int    cf_compose_on(cf_op *op);               /* goes on: from the start, after the child, or after a yield */
cf_op *cf_child(cf_op *op, int kind, cf_slice key); /* NULL: no memory; `in` may be changed before STEP_CHILD */
cf_op *cf_child_for(cf_op *op, int kind, cf_slice bare); /* the same for a key of a page, which has no prefix; op->key holds it whole */
void   cf_take_cursor(cf_op *op, cf_op *child);
int    cf_adopt(cf_op *op, cf_op *child);      /* the child's error becomes the operation's */
void   cf_take_value(cf_op *op, cf_op *child); /* and what it brought */
/* After a finish outside of cf_submit: the parent goes on. */
void   cf_resume(cf_op *op);

/* -------------------------------------------------------------------------------------------------------------- loop -- */

struct cf_watch {
    cf_loop    *loop;
    int         fd;
    unsigned    events;
    bool        registered, dead;
    cf_watch_fn ready;
    void       *user;
    cf_link     link; /* in loop->watches or loop->dead_watches */
};

struct cf_timer {
    cf_loop    *loop;
    int64_t     due; /* INT64_MAX: never */
    bool        dead;
    cf_timer_fn fire;
    void       *user;
    cf_link     link; /* in loop->timers or loop->dead_timers */
};

#define CF_OPS_MAX ((size_t)1 << 24)

struct cf_loop {
    const cf_platform *platform;
    int      poller, timer, waker;
    unsigned generation;
    bool     running, watching; /* watching: a watch's function is on the stack */
    bool     blocking;          /* cf_loop_set_blocking */
    size_t   batch;             /* cf_loop_set_batch; SIZE_MAX: all */
    bool     interrupted, idle; /* how the last wait ended: woken or by a signal; or nothing came in its whole time, which a
                                   clock that stands still would not tell */
    unsigned depth; /* backend functions on the stack */
    atomic_bool woken, asked; /* something is in the waker; and it was cf_loop_wake, not the loop for its own work */
    atomic_bool has_granted, has_jobs, has_events;
    unsigned spin_skip, spin_failed; /* cf_op_wait_for: how many waits sleep at once, and how many looks in a row were in vain */
    int64_t  armed_at; /* when the timer goes off; INT64_MAX: never */
    cf_link  stores, watches, dead_watches;
    cf_link  timers, dead_timers; /* few: one or two for each connection */
    cf_link  jobs;                /* CF_LOCK_JOBS */
    cf_link  notices;
    size_t   watch_count;
    cf_link  ready;    /* finished, `done` not yet called           */
    cf_link  yielded;  /* composed operations that let others pass  */
    cf_link  granted;  /* got their key lock; CF_LOCK_DERIVE        */
    cf_op  **ops;      /* every operation ever made on this loop    */
    size_t   op_count, op_cap;
    cf_op   *free_ops; /* through `parent` */
    cf_op  **heap;     /* pending operations by deadline; cap is op_cap, so that pending never allocates */
    size_t   heap_len;
    uint64_t tickets;
    size_t   pending, finished;
};

void cf_loop_arm(cf_loop *loop);
void cf_loop_nudge(cf_loop *loop); /* from any thread: there is work, but nobody's wait is to end for it */
void cf_jobs_finish(cf_loop *loop);
void cf_jobs_abandon(cf_loop *loop);
void cf_heap_add(cf_loop *loop, cf_op *op);
void cf_heap_remove(cf_loop *loop, cf_op *op);

/* ------------------------------------------------------------------------------------------------------------- store -- */

enum { CF_EVENTS_KEPT = 16 };
typedef struct cf_event {
    cf_link  link;
    int      event;
    cf_error what;
} cf_event;

struct cf_store {
    cf_loop                *loop;
    const cf_backend_table *table;
    cf_backend             *self;
    cf_link                 link;
    int64_t  ttl_ms, timeout_ms;
    size_t   prefix_len;
    cf_seal *seal;     /* NULL: there are no keys */
    bool     seal_values, hash_keys;
    unsigned depth; /* its backend's functions on the stack */
    bool     closing;
    uint64_t operations, errors, timeouts, pending;
    cf_event_fn on_event;
    void       *on_event_user;
    cf_link     events;
    unsigned    event_count;
    char     prefix[]; /* behind the struct */
};

/* Tells the listener of a store what has been waiting. */
void cf_store_tell(cf_store *store);

/* The two halves of cf_submit, around what only some operations do. */
int cf_submit_check(cf_op *op, cf_store *store); /* fork, closed, timeout */
int cf_submit_end(cf_op *op, cf_store *store, int rc);

/* What the interfaces share: a request for a call, and an operation that is refused before it is submitted. */
cf_request cf_asked(const cf_call *call, int kind, cf_slice key);
int        cf_refuse(cf_store *store, const cf_request *request, cf_op **op, const char *text);

/* The backend has answered CF_OK: what it gave is opened, where this store seals. CF_OK, or an error that is written into the operation. */
int cf_store_unseal(cf_op *op);
/* Calls the slot of an operation whose `in` is complete. CF_OK, CF_PENDING or an error that is written into the operation. */
int  cf_store_call(cf_op *op);
void cf_store_leave(cf_store *store); /* after a call: a close that waited for it happens now */
/* Around every call of a backend's function: no close, no `done` and no run of the loop inside. */
static inline void cf_store_enter(cf_store *store)
{
    store->depth++;
    store->loop->depth++;
}
static inline void cf_store_exit(cf_store *store)
{
    store->depth--;
    store->loop->depth--;
}

/* url.c */
typedef struct cf_parsed_url {
    cf_url    url;
    cf_buffer text; /* the decoded parts */
    cf_url_option options[16];
} cf_parsed_url;
int  cf_url_parse(const cf_platform *platform, cf_slice text, cf_parsed_url *out, cf_error *error);
void cf_url_free(const cf_platform *platform, cf_parsed_url *url);

/* records.c */
/* Checks a plan, makes it the operation's and calls the backend: as cf_submit. `page` is for LIST. */
int cf_records_submit(cf_store *store, int kind, cf_plan *plan, const cf_page *page, const cf_call *call, cf_op **op);
/* The same for a method that is composed of several: `op` has the plan, its tokens sealed; `step` prepares children with cf_records_child. */
int cf_records_compose(cf_store *store, int kind, cf_plan *plan, cf_step_fn step, const cf_call *call, cf_op **op);
cf_plan cf_plan_of(int kind, int by);
/* How a step begins whose one child does the plan: CF_OK: the child has, and has not failed; otherwise what the step is to return. */
int cf_records_step(cf_op *op, cf_op *child, int kind, cf_plan *plan);
/* Whether a text can be looked up by; whether it is an id that cf_record_id can have made. */
bool cf_can_be_indexed(cf_slice text);
bool cf_is_record_id(cf_slice text);
/* The next child; its tokens are sealed already. NULL: no memory, and the error says so. */
cf_op *cf_records_child(cf_op *op, int kind, const cf_plan *plan);
int cf_hook_submit(cf_store *store, cf_hook *hook, const cf_call *call, cf_op **op);
/* A method of hooks that is composed of several: `op` has the hook, its tokens as they were given; `step` prepares children with cf_hook_child. */
int cf_hook_compose(cf_store *store, const cf_hook *hook, cf_step_fn step, const cf_call *call, cf_op **op);
/* The next child. Its tokens are sealed under the name of `account`, or where that is NULL, of its own record. NULL: it failed, and the error says so. */
cf_op *cf_hook_child(cf_op *op, const cf_hook *hook, const cf_record *account);
/* A call that ends before any backend hears of it: refused, or with CF_OK: nothing is there. */
int cf_records_refuse(cf_store *store, int kind, const cf_call *call, cf_op **op, int status, const char *text);
/* The backend has answered with CF_OK or CF_EEXISTS: opens what is sealed, and makes a page of a group. `status`, or an error that is written into the operation. */
int cf_records_arrive(cf_op *op, int status);
/* What another one brought, behind what is there. CF_OK, or CF_ENOMEM with the error. */
int  cf_records_join(cf_op *op, const cf_op *other);
void cf_records_explain(cf_op *op); /* an error that it ends with */
/* A field of a record as it is kept, sealed with the first key of the ring: in op->sealed. As cf_seal_renew; also CF_SEAL_CURRENT for what is no token. */
int cf_token_renew(cf_op *op, const cf_record *record, int at, cf_slice *out);
/* An id: CF_ID_LEN characters. CF_OK or CF_EUNAVAILABLE. */
int  cf_record_id(const cf_platform *platform, char id[CF_ID_LEN]);
bool cf_is_record_op(int kind);
/* The microseconds that count for created_at and the like. */
int64_t cf_now_us(const cf_platform *platform);
/* Parses a cursor of a list in this order. */
bool cf_page_after(cf_page *page, cf_slice cursor);

/* reseal.c: of values, and of tokens. */
int cf_reseal_step(cf_op *op, cf_op *child);
int cf_reseal_tokens_step(cf_op *op, cf_op *child);

/* keyed.c: records of a backend that has only keys, and one process that uses them. */
bool cf_keyed_applies(const cf_store *store);
int  cf_keyed_start(cf_op *op);
void cf_keyed_free(cf_op *op); /* op->keyed; NULL is allowed */
bool cf_keyed_changes(const cf_op *op); /* whether it has come to what it changes */
/* Whether a key without its prefix is one that records are kept under. Their writes hold the lock of the prefix and that line break. */
bool cf_keyed_is_name(const cf_store *store, cf_slice bare);

/* derive.c */
/* The lock of a key: CF_OK: op has it; CF_PENDING: it stands in the queue, and cf_resume comes when it has; CF_ENOMEM, with the error. */
int cf_derive_take(cf_op *op, cf_slice key);
bool cf_derive_applies(const cf_store *store, int kind, unsigned flags);
int  cf_derive(cf_op *op);
/* The operation ends, but its child's write is with the backend: the child keeps the lock. False: there is nothing to keep. */
bool cf_derive_hand_down(cf_op *op, cf_op *child);
void cf_derive_unlock(cf_op *op);    /* lets go of a held lock, leaves a queue; any state */
void cf_derive_granted(cf_loop *loop);

#endif
