/* counterfoil/backend.h: everything a backend author may use.
 *
 * A backend is one constant table of functions and a struct of its own. The built-in ones, those in C by other people, and the
 * glue through which Python and JavaScript classes become backends all use this header and nothing else.
 *
 * A slot is called with one operation. It reads what is asked (cf_op_in), gives the answer (cf_op_set_*), and returns
 *
 *     CF_OK        it is done;
 *     CF_PENDING   it will call cf_op_finish later, on the loop's thread; never before the slot has returned;
 *     negative     it failed: return cf_op_fail(op, ...), which writes the sentence.
 *
 * The core has checked every argument, put the store's prefix before the key, resolved the ttl and checked the conditions for
 * consistency before a slot sees them. It keeps the deadline. A pending operation can therefore be finished by the core at any
 * time (deadline, cancel, close): a backend keeps its ticket, not its pointer, and asks cf_loop_op for the pointer when the answer
 * comes. NULL then means: nobody waits any more, drop the answer.
 *
 * ATOMIC OR NOT AT ALL. pop, touch, incr and conditional sets happen in one step that no other user of the same data can
 * divide, or the slot is left out and the core answers CF_ENOTSUP. */
#ifndef COUNTERFOIL_BACKEND_H
#define COUNTERFOIL_BACKEND_H

#include "counterfoil.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------- platform --
 * All memory, time, randomness and system calls of the core come from here, so that a test can stage every failure
 * (counterfoil/testing.h). Each function gets `self`. `wall_ms` and the
 * clocks may be asked from any thread. System calls return -1 and set errno, as the real ones do. */
enum { CF_READABLE = 1, CF_WRITABLE = 2 };
typedef struct cf_poll_event {
    void    *data;
    unsigned events; /* CF_READABLE, CF_WRITABLE; an error or a hang-up is both */
} cf_poll_event;

/* A socket address: the system's struct, opaque here. */
typedef struct cf_address {
    uint32_t len;
    union {
        unsigned char bytes[128];
        uint64_t      align;
    } is;
} cf_address;

/* What is at a path. */
typedef struct cf_file {
    uint64_t device, node; /* together: which file it is */
    int64_t  size;
    bool     regular;      /* a file: not a link, folder, device ... */
    bool     remote;       /* on a network file system */
} cf_file;

struct cf_platform {
    size_t size; /* sizeof(cf_platform) */
    void  *self;

    void *(*alloc)(void *self, size_t size); /* NULL: no memory. Aligned as malloc  */
    void *(*resize)(void *self, void *block, size_t size);
    void (*release)(void *self, void *block); /* NULL is allowed */

    int64_t (*monotonic_ms)(void *self); /* never jumps; goes on while the machine sleeps */
    int64_t (*wall_ms)(void *self);      /* since 1970-01-01 UTC                          */
    int (*random)(void *self, void *bytes, size_t count); /* 0, or -1: never weak bytes   */

    int (*poller)(void *self);                                                /* epoll_create1, or kqueue            */
    int (*poller_set)(void *self, int poller, int fd, unsigned events, void *data); /* 0 events: no longer watched  */
    int (*poller_wait)(void *self, int poller, cf_poll_event *events, int max, int timeout_ms);
    int (*timer)(void *self);                            /* a descriptor, readable from when it is due until it is read */
    int (*timer_set)(void *self, int fd, int64_t in_ms); /* relative; -1 disarms; 0 = at once                          */
    int (*waker)(void *self);                            /* eventfd, non-blocking: readable when 8 bytes were written  */
    int64_t (*read)(void *self, int fd, void *bytes, size_t count);
    int64_t (*write)(void *self, int fd, const void *bytes, size_t count);
    int (*close)(void *self, int fd);

    int64_t (*monotonic_us)(void *self); /* monotonic_ms, finer */
    /* A non-blocking, close-on-exec stream socket that connects; for TCP without delay and with keep-alive. It is CF_WRITABLE when that has ended. */
    int (*connect)(void *self, const cf_address *to);
    int (*connected)(void *self, int fd); /* how it has ended: 0, or -1 and errno (EINPROGRESS: it has not) */
    int64_t (*send)(void *self, int fd, const void *bytes, size_t count); /* never blocks, never a SIGPIPE */
    int (*thread)(void *self, void (*run)(void *data), void *data); /* runs it on a detached thread that takes no signals: 0 or -1 */

    /* Files; `path` is terminated. A new one has mode 0600 and `size` bytes that the file system has set aside; EEXIST where anything is, be it a link to nothing. */
    int (*file_create)(void *self, const char *path, int64_t size);
    int (*file_look)(void *self, const char *path, cf_file *out); /* does not follow a link at the end of the path */
    int (*file_remove)(void *self, const char *path);
    int (*file_held)(void *self, uint64_t device, uint64_t node); /* whether this process has that file open: 1 or 0; -1: the system does not tell */
};

/* The addresses of a name and a port, in the order to try them. BLOCKS, for as long as the system's resolver likes: call it in a job (below). How many were
 * written, or a negative number for cf_resolve_error. cf_address_of never blocks: CF_OK when `host` is an IP address, else CF_EINVAL. */
CF_API int         cf_resolve(const char *host, const char *port, cf_address *out, int max);
CF_API const char *cf_resolve_error(int code); /* static */
CF_API int         cf_address_of(const char *host, const char *port, cf_address *out);
CF_API int         cf_address_unix(cf_slice path, cf_address *out); /* CF_EINVAL: longer than the system allows */

/* The real machine. Static. */
CF_API const cf_platform *cf_platform_real(void);
CF_API const cf_platform *cf_loop_platform(const cf_loop *loop);

/* ------------------------------------------------------------------------------------------------------------- table -- */

typedef struct cf_backend cf_backend; /* yours: the core never looks inside */

/* One option of a URL, percent-decoded. */
typedef struct cf_url_option {
    cf_slice name;
    cf_slice value;
} cf_url_option;

/* A URL, taken apart, percent-decoded once: scheme:[//authority]path[?options]. Lent during open. */
typedef struct cf_url {
    cf_slice             scheme;
    cf_slice             authority; /* as written: its parts are decoded by whoever splits them. ptr NULL: there was no // */
    cf_slice             path;
    const cf_url_option *options;
    size_t               option_count;
} cf_url;

typedef int (*cf_backend_fn)(cf_backend *self, cf_op *op);

enum {
    CF_BACKEND_CONDITIONS = 1 << 0, /* `set` honours IF_ABSENT, IF_PRESENT, IF_EQUAL; otherwise they answer CF_ENOTSUP      */
    CF_BACKEND_KEEP_TTL   = 1 << 1, /* `set` honours KEEP_TTL                                                               */
    CF_BACKEND_RECEIPTS   = 1 << 3, /* cf_request.receipt is understood; otherwise it answers CF_ENOTSUP                     */
    CF_BACKEND_RECORDS    = 1 << 4, /* this process is the only user of the data, so records may be kept as keys; DERIVE says so too    */
    CF_BACKEND_DERIVE     = 1 << 2  /* the author vouches that this process is the only user of the data: what is missing of
                                       pop, touch, incr and conditions is derived from get, set and del, under a lock per key
                                       that all stores with the same `identity` share                                       */
};

typedef struct cf_backend_table {
    size_t      size;  /* sizeof(cf_backend_table), as the author compiled it */
    const char *name;  /* the URL scheme; also in sentences                   */
    unsigned    flags; /* CF_BACKEND_...; unknown ones are refused            */

    /* Opens from a URL; only for backends in backends.def. Must look at every option and refuse those it does not know.
     * On an error nothing is left open, and close is not called. */
    int (*open)(cf_loop *loop, const cf_url *url, cf_backend **out, cf_error *error);
    /* Exactly once for every backend that cf_open_backend was given or `open` has returned, also when opening the store then failed.
     * The backend is gone whatever this returns. `error` is never NULL. NULL slot: nothing to do. */
    int (*close)(cf_backend *self, cf_error *error);
    /* OPTIONAL. Send what was corked: the end of the caller's tick. */
    void (*flush)(cf_backend *self);
    /* OPTIONAL. The core finishes this pending operation itself (`why`: CF_ETIMEOUT, CF_ECANCELED, CF_ECLOSED); forget it. cf_op_ticket still names it here.
     * Returns the outcome, as far as the backend knows: CF_NOT_APPLIED for what has never left, otherwise CF_UNKNOWN. For CF_ETIMEOUT it may call
     * cf_op_fail with a status and a sentence that say more than "the deadline passed". Not called in a child after fork for what ends before
     * cf_loop_reopen: there the ticket is merely stale. */
    int (*cancel)(cf_backend *self, cf_op *op, int why);
    /* OPTIONAL. In the child after fork, from cf_loop_reopen or, where nobody reopened, right before close: drop inherited sockets and
     * files without speaking to them, and free their watches, which hear of nothing any more. */
    void (*forked)(cf_backend *self);
    /* OPTIONAL. Your figures. */
    void (*stats)(cf_backend *self, cf_stat_fn each, void *user);
    /* OPTIONAL. What data this is: stores that answer the same pointer share the locks of CF_BACKEND_DERIVE. NULL slot: self. */
    const void *(*identity)(cf_backend *self);

    cf_backend_fn get, set, del;          /* REQUIRED                         */
    cf_backend_fn pop, touch, incr, scan; /* OPTIONAL: absent answers CF_ENOTSUP, or is derived */
    cf_backend_fn clear;                  /* OPTIONAL: absent is composed of scan and del. number: how many were removed. Where records are kept as keys, those stay: they have a line break */
    cf_backend_fn insert, update, find, list, remove; /* OPTIONAL, all or none: records, see cf_plan. Absent: kept as keys (CF_BACKEND_RECORDS, CF_BACKEND_DERIVE), else CF_ENOTSUP */
    cf_backend_fn hook;                   /* OPTIONAL: the methods of an AccountsStorage themselves, see cf_hook */
} cf_backend_table;

/* Opens a store over a backend of your own. `table` must outlive the store. From this call on the core owns `self` and will
 * close it exactly once, also when it returns an error. */
CF_API int cf_open_backend(cf_loop *loop, const cf_backend_table *table, cf_backend *self, const cf_open_options *options,
                           cf_store **out, cf_error *error);

/* -------------------------------------------------------------------------------------------------- inside a slot -- */

/* What is asked. The key has the store's prefix; ttl_ms is the life that results, 0 = until deleted (with CF_KEEP_TTL: what a new
 * value gets); timeout_ms the time-out that counts; the flags left to honour are CF_KEEP_TTL and the conditions. For SCAN the key is the whole prefix, `limit` is never 0
 * and `cursor` is empty or one that you gave. Its slices are valid during the slot; see cf_op_keep. */
CF_API const cf_request *cf_op_in(const cf_op *op);

/* Makes the slices of cf_op_in live until the operation has finished. CF_OK or CF_ENOMEM. */
CF_API int cf_op_keep(cf_op *op);

CF_API cf_loop *cf_op_loop(const cf_op *op);

/* Whether the caller only waits (cf_loop_set_blocking): a slot and `flush` may then take their time. */
CF_API bool cf_loop_blocking(const cf_loop *loop);

/* A number that names this operation and is never used again on this loop. Never 0. */
CF_API uint64_t cf_op_ticket(const cf_op *op);
/* A number of the backend's own, 0 at first: where it keeps what belongs to this operation. */
CF_API uint64_t cf_op_note(const cf_op *op);
CF_API void     cf_op_set_note(cf_op *op, uint64_t note);
/* The pending operation of a ticket, or NULL when it has been finished. */
CF_API cf_op *cf_loop_op(cf_loop *loop, uint64_t ticket);

CF_API void cf_op_set_hit(cf_op *op, bool hit);
CF_API void cf_op_set_number(cf_op *op, int64_t number);
/* Copies. CF_OK or CF_ENOMEM (then return that). The second form gives room for `len` bytes to fill in, NULL: no memory. */
CF_API int   cf_op_set_value(cf_op *op, cf_slice value);
CF_API char *cf_op_value_buffer(cf_op *op, size_t len);
/* What a backend has to keep at most: CF_VALUE_MAX bytes, and 48 more of a store that seals its values. */
CF_API size_t cf_op_value_max(const cf_op *op);
/* SCAN: one key, with its prefix. Keys that do not start with what was asked, or that this library could not have written, are
 * passed over. Copies. CF_OK or CF_ENOMEM. */
CF_API int cf_op_add_key(cf_op *op, cf_slice key);
/* SCAN: where the next page starts; at most CF_CURSOR_MAX bytes; not called: this was the last page. Copies. CF_OK, CF_ENOMEM, or CF_ECORRUPT when too long. */
CF_API int cf_op_set_cursor(cf_op *op, cf_slice cursor);

/* Copies what cf_op_receipt gives to the caller if this operation fails with outcome unknown: CF_RECEIPT_LEN characters. */
CF_API void cf_op_set_receipt(cf_op *op, const char *receipt);

/* Writes the error; the sentence is a printf format and must not show keys, values or passwords. Returns `status`. */
CF_API int cf_op_fail(cf_op *op, int status, int outcome, const char *format, ...) CF_PRINTF(4, 5);
/* Hands over the object that a host threw; `release` is called once, when the operation is freed or the object replaced. */
CF_API void cf_op_attach(cf_op *op, void *object, void (*release)(void *object));

/* Finishes a pending operation: CF_OK or a status (written by cf_op_fail before). Must be one that cf_loop_op has just given.
 * `done` is not called from here, so no caller's code runs inside a backend: the loop calls it when it runs next, and its
 * descriptor is readable until then. */
CF_API void cf_op_finish(cf_op *op, int status);

/* Fills in an error; the same for functions that have no operation. Returns `status`. NULL error is allowed. */
CF_API int cf_error_set(cf_error *error, int status, int outcome, const char *format, ...) CF_PRINTF(4, 5);

/* ------------------------------------------------------------------------------------------------------------ records --
 * What a record operation is to do. Its cf_op_in has the store's prefix for a key, and for a value this plan, as bytes that a slot may copy and keep:
 * cf_plan_read makes it readable again, with slices into those bytes. The core has checked it: types, lengths, ids. A record whose expiry has come is absent everywhere.
 *
 *   INSERT   `record`, then `with` if it has a kind: both or none, in one step. First, in this order, for each of them:
 *            a record of that kind with the same id: that is this very insert, asked once more (ids are random): CF_OK, nothing is done
 *            the same unique fields, none of them null: CF_EEXISTS, with that record as the answer
 *            a parent that is needed and not there (nor in this insert): CF_EMISSING
 *            `epoch` >= 0 and not that of the group: CF_ECHANGED
 *            `most` > 0 and as many records in the group, or more (it was lowered): the first by (ended, created_at, id) are removed, so many that with the new one
 *            `most` are left, where a session has ended when it has a revoked_at or its expires_at is before `now`; but where one of them has not ended and
 *            `oldest_out` is false: CF_ELIMIT
 *            number: the epoch of the group, which also becomes the record's field of that name. hit. Brings no record.
 *   UPDATE   by BY_ID: fields that `record` says replace those that are there, where the guard holds. hit: it did; the answer is the record as it is now.
 *            hit false: the guard does not hold (the answer is the record), or there is none (no answer). A unique field that another record has: CF_EEXISTS, with that one.
 *            by BY_GROUP: the same for every record of the group but `except`; number: of how many; hit; no answer. `bump`: and the epoch goes up by one, also where there are no records.
 *   FIND     by BY_ID or BY_UNIQUE: the record, hit; or nothing.
 *   LIST     by BY_GROUP: the live records of the group, in any order, at most CF_SESSIONS_MOST; the core orders, filters and cuts. number: the epoch. hit.
 *            by BY_ALL: the ids (cf_op_add_id) of the live records of that kind, in any order, a page as of a SCAN: about `limit` of cf_op_in, which has a cursor
 *            of yours too; cf_op_set_cursor. One that is there from before the first page to after the last comes at least once. hit.
 *   REMOVE   by BY_ID: hit. With a user go the records of the other kinds whose group it is, and the epoch of its sessions goes up.
 *
 * A group is what has the same value in the listing field of a kind. Its epoch starts at 0, only grows, and outlives its records. */
enum { CF_BY_ID, CF_BY_UNIQUE, CF_BY_GROUP, CF_BY_ALL };

typedef struct cf_plan {
    int       kind;    /* CF_USER ... */
    cf_record record;  /* INSERT, UPDATE */
    cf_record with;    /* INSERT; kind -1: none */
    int       by;      /* UPDATE, FIND, LIST, REMOVE */
    cf_slice  at[2];   /* the id; the values of the unique fields (at[1] empty where there is one); the value of the group */
    cf_slice  except;  /* an id, or empty */
    int       guard;   /* a field, or -1 */
    cf_field  equals;  /* what it must be: CF_NULL, or CF_GIVEN */
    int64_t   expiry_ms; /* INSERT, UPDATE: when the records go, ms since 1970; 0: never; UPDATE -1: as before */
    int64_t   now;     /* an instant: the caller's now */
    int64_t   epoch;   /* or -1 */
    int64_t   most;    /* or 0; of the last of the records */
    bool      oldest_out, bump;
    bool      number_only; /* LIST: no record is wanted */
} cf_plan;

/* False: these are not the bytes of a plan. */
CF_API bool cf_plan_read(cf_slice bytes, cf_plan *plan);
/* What a kind is made of. Static. */
typedef struct cf_kind {
    const char *name;
    int unique[2], listing;           /* fields, or -1 */
    int parent;                       /* a kind, or -1 */
    bool needs_parent;
} cf_kind;
CF_API const cf_kind *cf_kind_of(int kind);

/* A record as bytes: appended to a buffer of your own, and back. */
CF_API size_t cf_record_size(const cf_record *record);
CF_API void   cf_record_pack(const cf_record *record, char *to); /* cf_record_size bytes */
CF_API size_t cf_record_unpack(cf_slice bytes, cf_record *record); /* how many bytes it took; 0: they are not a record. Slices into them */

/* Gives one record to the caller, with every field said. Copies. CF_OK, CF_ENOMEM, or CF_ECORRUPT where it is none of its kind. */
CF_API int cf_op_add_record(cf_op *op, const cf_record *record);
/* Gives an id (LIST by BY_ALL). What no id can be is passed over. Copies. CF_OK or CF_ENOMEM. */
CF_API int cf_op_add_id(cf_op *op, cf_slice id);

/* HOOK: one method of an AccountsStorage, done by the application itself, on tables of its own: CF_OP_HOOK, with these bytes for a value. The core has normalised the
 * e-mail (email_key), sealed the tokens and checked the fields; it checks and opens what comes back. Answers with cf_op_add_record and cf_op_set_hit as the table of
 * methods says; duplicates are CF_EEXISTS, with the record that is there. Ids are the application's, as text. Anything else is CF_ECORRUPT: hit without a record or a record
 * without hit, one of another kind, or a social account or a user with other letters in provider and
 * provider_user_id, or in the normalised e-mail, than were asked for. */
typedef struct cf_hook {
    int       method; /* CF_FIND_USER_BY_EMAIL ... */
    cf_record record;
    cf_record user;   /* FIND_OR_CREATE; otherwise kind -1 */
} cf_hook;
CF_API bool cf_hook_read(cf_slice bytes, cf_hook *hook);

/* ------------------------------------------------------------------------------------------------------------ watches --
 * How a backend hears of its descriptors. Functions are called from inside cf_loop_run. */

typedef struct cf_watch cf_watch;
typedef void (*cf_watch_fn)(void *user, unsigned ready);

/* Watches a descriptor (level-triggered), which must stay open until cf_watch_free; one watch for each descriptor. `events` may be 0:
 * nothing for now. CF_OK, CF_ENOMEM, CF_EUNAVAILABLE, or CF_EFORKED in a child before cf_loop_reopen. */
CF_API int  cf_watch_new(cf_loop *loop, int fd, unsigned events, cf_watch_fn ready, void *user, cf_watch **out);
CF_API int  cf_watch_set(cf_watch *watch, unsigned events);
CF_API void cf_watch_free(cf_watch *watch); /* NULL is allowed; also from inside its own function */

/* ------------------------------------------------------------------------------------------------------------- timers -- */

/* Called once, from inside cf_loop_run, when `in_ms` have passed since cf_timer_set; never early. */
typedef struct cf_timer cf_timer;
typedef void (*cf_timer_fn)(void *user);
CF_API int  cf_timer_new(cf_loop *loop, cf_timer_fn fire, void *user, cf_timer **out); /* CF_OK or CF_ENOMEM; does not run yet */
CF_API void cf_timer_set(cf_timer *timer, int64_t in_ms); /* -1: do not fire. Replaces what was set before */
CF_API void cf_timer_free(cf_timer *timer); /* NULL is allowed; also from inside its own function */

/* --------------------------------------------------------------------------------------------------------------- jobs --
 * Work that blocks, on a thread of its own. `run(data)` is called there and must touch nothing but its data; then `done(data)` is called
 * from inside cf_loop_run, then `drop(data)`. After cf_job_abandon (or cf_loop_free, or cf_loop_reopen) `done` is not called, and drop(data) is called by whoever is last, perhaps
 * that thread, perhaps after the loop and its platform are gone: so data must come from cf_platform_real. */
typedef struct cf_job cf_job;
typedef void (*cf_job_fn)(void *data);
/* CF_OK; CF_ENOMEM or CF_EUNAVAILABLE (no thread): then drop is not called. */
CF_API int  cf_job_start(cf_loop *loop, cf_job_fn run, cf_job_fn done, cf_job_fn drop, void *data, cf_job **out);
CF_API void cf_job_abandon(cf_job *job); /* NULL is allowed; not after `done` was called */

/* ------------------------------------------------------------------------------------------------------------ notices --
 * How a thread of a backend's own tells a loop that there is something to look at. */
typedef struct cf_notice cf_notice;
typedef void (*cf_notice_fn)(void *user);
/* `look(user)` is called from inside cf_loop_run, once for any number of cf_notice_give since. CF_OK or CF_ENOMEM. */
CF_API int  cf_notice_new(cf_loop *loop, cf_notice_fn look, void *user, cf_notice **out);
/* From any thread, also with locks held. That it has not been freed is for the caller to know. */
CF_API void cf_notice_give(cf_notice *notice);
CF_API void cf_notice_free(cf_notice *notice); /* NULL is allowed; also from inside its own function */

/* ------------------------------------------------------------------------------------------------------------- events -- */

/* Tells whoever listens to the stores over this backend (cf_store_on_event). Never calls them from here. `status` CF_OK for CONNECT and WARNING. */
CF_API void cf_backend_event(cf_loop *loop, const cf_backend *self, int event, int status, const char *format, ...) CF_PRINTF(5, 6);

#ifdef __cplusplus
}
#endif
#endif
