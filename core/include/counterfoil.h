/* counterfoil.h: everything a caller may use.
 *
 * Counterfoil keeps the server's half of every session id, one-time code and token: text or bytes under a key, for a time,
 * with operations that have exactly one winner. A backend (memory, SQLite, Redis, or one of your own: counterfoil/backend.h) keeps the
 * bytes; this header is how they are asked for.
 *
 *     cf_loop *loop; cf_store *store; cf_op *op; cf_error error;
 *     cf_loop_new(NULL, &loop);
 *     cf_open(loop, cf_text("memory:"), NULL, &store, &error);
 *     cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("code"), .value = cf_text("42")), &op);
 *     cf_op_wait(op);
 *     cf_op_free(op);
 *     cf_store_close(store, NULL);
 *     cf_loop_free(loop);
 *
 * THREADS. A loop, its stores and their operations belong to one thread at a time: whoever holds the loop. Two loops may be
 * used by two threads at once, also when both have opened `memory:NAME` of the same name. cf_loop_wake alone may be called
 * from any thread.
 *
 * MEMORY. Slices that go in are lent: they are read during the call and copied where they must live longer. Slices that come
 * out belong to their operation and are valid until it is freed.
 *
 * ERRORS. Functions return CF_OK (0), CF_PENDING (1), or a negative status. An error has a status for the program, a sentence
 * for the human, which never contains a key, a value or a password, and an outcome: whether the store was changed. Nothing is
 * kept in a global. Absent is a value, not an error: see cf_op_hit.
 *
 * UNITS. Milliseconds. A ttl is relative, an expiry is an instant (milliseconds since 1970-01-01 UTC). At `now >= expiry` the
 * value is absent, to the millisecond. */
#ifndef COUNTERFOIL_H
#define COUNTERFOIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CF_API __attribute__((visibility("default")))
#define CF_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#define CF_API
#define CF_PRINTF(at, first)
#endif

/* The version of the library that is running, for example "0.1.0". Never NULL; static. */
CF_API const char *cf_version(void);

/* ------------------------------------------------------------------------------------------------------------ slices -- */

/* Lent bytes. `ptr` may be NULL when `len` is 0. Not terminated. */
typedef struct cf_slice {
    const char *ptr;
    size_t      len;
} cf_slice;

static inline cf_slice cf_bytes(const void *ptr, size_t len)
{
    cf_slice slice;
    slice.ptr = (const char *)ptr;
    slice.len = len;
    return slice;
}

/* The bytes of a C string, without its terminator. */
static inline cf_slice cf_text(const char *text) { return cf_bytes(text, text ? strlen(text) : 0); }

/* ------------------------------------------------------------------------------------------------------------ limits -- */

#define CF_KEY_MAX      1024                   /* bytes of a key, its store's prefix not counted           */
#define CF_PREFIX_MAX   256                    /* bytes of a store's prefix                                */
#define CF_VALUE_MAX    (1024 * 1024)          /* bytes of a value                                         */
#define CF_TTL_MAX      INT64_C(315360000000)  /* 3650 days: ten years                                     */
#define CF_TIMEOUT_MAX  INT64_C(86400000)      /* a day                                                    */
#define CF_PLAIN_MAX    INT64_C(31622400000)   /* 366 days: how far ahead plain_until_ms may be            */
#define CF_NUMBER_MAX   INT64_C(9007199254740991) /* 2^53 - 1: counters stay exact in every host           */
#define CF_SCAN_DEFAULT 100                    /* keys of one scan page when the request does not say      */
#define CF_SCAN_MAX     1000                   /* and at most                                              */
#define CF_CURSOR_MAX   (CF_PREFIX_MAX + CF_KEY_MAX) /* bytes of a scan's cursor                             */
#define CF_DEPTH_MAX    16                     /* a backend calling its own store, calling its backend ... */

/* ------------------------------------------------------------------------------------------------- status and outcome -- */

enum {
    CF_PENDING = 1, /* not an error: `done` will be called, or cf_op_wait waits                                            */
    CF_OK      = 0,
    CF_EINVAL       = -1,  /* INVALID        an argument was refused before anything was done                              */
    CF_ENOMEM       = -2,  /* NO_MEMORY      an allocation failed; see the outcome                                          */
    CF_ETIMEOUT     = -3,  /* TIMEOUT        the operation's deadline passed                                               */
    CF_EUNAVAILABLE = -4,  /* UNAVAILABLE    the backend cannot be reached now; try later                                  */
    CF_EBUSY        = -5,  /* BUSY           a local limit (queue, connections) is reached; try later                      */
    CF_ENOTSUP      = -6,  /* NOT_SUPPORTED  this backend has no such operation                                            */
    CF_ECORRUPT     = -7,  /* CORRUPT        what the backend holds or answered cannot be right                            */
    CF_ECLOSED      = -8,  /* CLOSED         the store was closed                                                          */
    CF_EFORKED      = -9,  /* FORKED         this loop was made before fork(): see cf_loop_reopen                          */
    CF_EEXISTS      = -10, /* EXISTS         a record with this unique field is there already                              */
    CF_EAUTH        = -11, /* AUTH           the backend refused our credentials or rights                                 */
    CF_EHOST        = -12, /* HOST           a backend written in Python or JavaScript threw: cf_op_attached               */
    CF_ECANCELED    = -13, /* CANCELED       the caller cancelled                                                          */
    CF_ECHANGED     = -14, /* CHANGED        what this was to build upon has changed meanwhile (an epoch)                  */
    CF_ELIMIT       = -15, /* LIMIT          there are as many records of that group as are allowed                        */
    CF_EMISSING     = -16, /* MISSING        the record that this needs is not there                                       */
    CF_ECURSOR      = -17  /* CURSOR         the cursor of a list is none that this list gave                              */
};

/* Whether the store was changed by an operation that failed. */
enum {
    CF_NOT_APPLIED = 0, /* certainly not: repeating it is safe                                                             */
    CF_APPLIED     = 1, /* yes, in spite of the error                                                                      */
    CF_UNKNOWN     = 2  /* it may have been: the answer was lost. Read before repeating a write                            */
};

/* "INVALID", "TIMEOUT" ...; "OK" and "PENDING" for those; "UNKNOWN_STATUS" for a number that is none. Static. */
CF_API const char *cf_status_name(int status);
/* "not_applied", "applied", "unknown". Static. */
CF_API const char *cf_outcome_name(int outcome);

typedef struct cf_error {
    int  status;    /* CF_OK: there was no error, and the rest says nothing */
    int  outcome;   /* CF_NOT_APPLIED ...                                   */
    char text[256]; /* one sentence, terminated, without secrets            */
} cf_error;

/* -------------------------------------------------------------------------------------------------------------- loop -- */

typedef struct cf_platform cf_platform; /* counterfoil/backend.h: memory, clock, randomness, system calls               */
typedef struct cf_loop     cf_loop;     /* where things happen: one thread at a time, one file descriptor               */
typedef struct cf_store    cf_store;    /* a backend opened on a loop, behind a key prefix                              */
typedef struct cf_op       cf_op;       /* one operation in flight: submitted once, finished once                       */

/* Makes a loop. `platform` is NULL for the real machine; otherwise it must outlive the loop.
 * CF_ENOMEM, CF_EUNAVAILABLE when the system gives no descriptors, or CF_EINVAL for a platform of another version. *out is NULL on
 * error. */
CF_API int cf_loop_new(const cf_platform *platform, cf_loop **out);

/* Frees a loop and closes the stores that are still open on it (their pending operations finish with CF_ECLOSED first).
 * Operations that were not freed become invalid. Never from inside a `done`, a backend or cf_loop_run. NULL is allowed. */
CF_API void cf_loop_free(cf_loop *loop);

/* The one descriptor, constant for the loop's life and level-triggered: readable means "call cf_loop_run(loop, 0)". Timers and
 * wake-ups are inside it. Watch it with poll, epoll, uv_poll or add_reader; do not read it. */
CF_API int cf_loop_fd(const cf_loop *loop);

/* Sends what was submitted since the last flush. A caller that does not wait calls this once at the end of its tick;
 * cf_loop_run and cf_op_wait do it themselves. CF_OK. */
CF_API int cf_loop_flush(cf_loop *loop);

/* Handles what is ready, and first waits for it: 0 = do not wait, -1 = as long as it takes, otherwise at most that long.
 * `done` functions are called from inside. What arrived is handled before deadlines are judged, so a process that was stopped
 * does not report false timeouts. Returns how many operations finished (0 and more) or a negative status: CF_EFORKED in a
 * child, CF_EINVAL when called from inside itself. EINTR is not an error: it returns early. */
CF_API int cf_loop_run(cf_loop *loop, int timeout_ms);

/* Says that the caller waits for what it submits (cf_op_wait) and does nothing else meanwhile. A backend may then work inside cf_submit and
 * cf_op_wait, on the caller's thread, where it would otherwise keep a thread of its own busy so that the caller's event loop goes on. false at first. */
CF_API void cf_loop_set_blocking(cf_loop *loop, bool blocking);

/* At most so many `done` functions are called by one cf_loop_run, in the order in which their operations finished; the descriptor stays readable until all
 * were called. For an event loop that others share: what they wait for is not held up by a thousand answers that have come at once. 0, at first: all. */
CF_API void cf_loop_set_batch(cf_loop *loop, size_t most);

/* Operations in flight on this loop. */
CF_API size_t cf_loop_pending(const cf_loop *loop);

/* Makes a cf_loop_run that waits return early. The only function that any thread may call; the loop must be alive. */
CF_API int cf_loop_wake(cf_loop *loop);

/* In the child of a fork() every call on an inherited loop answers CF_EFORKED (closing and freeing work, and speak to nobody), until
 * this is called: it finishes inherited
 * operations with CF_EFORKED, closes the inherited descriptors (the parent's are not disturbed) and gives the loop new ones,
 * so cf_loop_fd changes this once. A memory backend becomes a private copy of the parent's. Harmless where nothing forked. */
CF_API int cf_loop_reopen(cf_loop *loop);
CF_API bool cf_loop_forked(const cf_loop *loop);

/* ------------------------------------------------------------------------------------------------------------- store -- */

/* A key of a ring. The bytes must come from a source of randomness (openssl rand 32), not from a password. */
typedef struct cf_key {
    uint32_t      id;        /* not 0; stands beside each value, in the clear */
    unsigned char bytes[32];
} cf_key;

typedef struct cf_open_options {
    size_t   size;       /* sizeof(cf_open_options)                                                                        */
    cf_slice prefix;     /* put before every key: UTF-8 without NUL, CR or LF, at most CF_PREFIX_MAX bytes                 */
    int64_t  ttl_ms;     /* for writes that name none; 0 = they live until deleted                                         */
    int64_t  timeout_ms; /* for operations that name none; 0 = 5000                                                        */
    /* At rest, opt-in: what is in the backend is of no use to whoever reads it there. FORMAT.md has the bytes; every program that uses the
     * data must open it in the same way. */
    const cf_key *keys;  /* the ring. The first key seals; the others open what was sealed before. Lent; at most 64 */
    size_t   key_count;   /* tokens in records (SECRET fields) are sealed wherever there are keys */
    bool     seal_values; /* values are encrypted and authenticated, and bound to their key. What does not open is CF_ECORRUPT, never a value. INCR and
                             CF_IF_EQUAL, which the backend would have to understand, are CF_ENOTSUP unless they are derived */
    bool     hash_keys;   /* keys are kept as hashes (SHA-256): a stolen copy holds no session id that works. SCAN, and COUNT and CLEAR of a part, are
                             CF_ENOTSUP. A key that can be guessed (an e-mail, six digits) can be guessed here too */
    int64_t plain_until_ms; /* 0, or an instant (ms since 1970), at most a year (CF_PLAIN_MAX) ahead, for a store that was used without keys, or without seal_values,
                             before: until then tokens and values that do not begin as sealed ones do ("sealed:"; the bytes 43 66 01) are read as they are, and RESEAL seals them.
                             From then on they are CF_ECORRUPT. Whoever can write to the backend can put plain text of their own there meanwhile: make it short, and
                             sweep at once. An instant that has passed is allowed, and the same as 0 */
} cf_open_options;

/* Opens a store by URL; `options` may be NULL. Schemes of this version:
 *
 *   memory:       private to this store
 *   memory:NAME   shared by all stores of that name in the process, across loops and threads
 *     ?max_entries=N   evict the least recently used beyond N entries
 *     ?max_bytes=N     evict the least recently used beyond N bytes (keys, values and bookkeeping). Users, social accounts
 *                      and sessions are neither evicted nor counted
 *
 *   redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]        Redis or Valkey by TCP; port 6379, database 0; HOST may be [IPv6]
 *   rediss://...                                      the same by TLS 1.2 or newer; chain and name are always verified
 *   redis+unix://[USER[:PASSWORD]@]/PATH              by a unix socket
 *   redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...]/NAME[/DB]   the primary that these Sentinels (up to 16; port 26379) call NAME,
 *                                                     wherever it is after a failover; who is not the primary by its own word is never used
 *   rediss+sentinel://...                             the same, Sentinels and servers by TLS
 *   redis+cluster://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...]   a cluster: these servers (up to 16; port 6379) name the others. Slots that move and failovers
 *                                                     are followed. Records of one store are in one slot; operations under way at once on one key may change places
 *                                                     while its slot moves. A scan goes over one server after the other, and fails (UNAVAILABLE) when they change
 *   rediss+cluster://...                              the same by TLS; a server's HOST is what the cluster calls it
 *     ?db=N                 the database, where the path does not say it
 *     ?user=U&password=P    instead of those in front of the host
 *     ?sentinel_user=U&sentinel_password=P   (redis+sentinel, rediss+sentinel) for the Sentinels; USER and PASSWORD are for the servers
 *     ?name=TEXT            CLIENT SETNAME; "counterfoil". Printable ASCII without spaces
 *     ?connect_timeout=S    seconds for one attempt, from the look-up of the name to the answer of the server; 2
 *     ?silence=S            seconds without any answer, while one is owed, after which a connection is given up; 10
 *     ?max_pending=N        operations that may wait for an answer at once (of each server of a cluster); beyond it CF_EBUSY at once; 10000
 *     ?max_pending_bytes=N  the same for the bytes of their commands; 33554432 (32 MiB)
 *     ?durable=N            pop, incr, delete, conditional sets and what changes records succeed only when N replicas have it too (WAIT, for half the time-out and
 *                           at most a second); otherwise CF_EUNAVAILABLE with the outcome CF_APPLIED, and the receipt tells more later. So does who finds a user by
 *                           e-mail or a social account, or something ended already: CF_NOT_APPLIED then. 0: nothing waits. Not given: with redis+sentinel,
 *                           redis+cluster pop, delete, revoke and remove wait for one replica while the primary has any; otherwise nothing does
 *     ?receipts=off         pop, incr, if_absent and if_equal leave no receipt on the server: quicker, but a lost answer stays unknown
 *     ?tls_ca=FILE          (rediss) trust these certificates (PEM) instead of the system's
 *     ?tls_cert=FILE&tls_key=FILE   (rediss) our own certificate chain and key (PEM)
 *     ?tls_server_name=NAME         (rediss) the name that the server's certificate must have, where it is not HOST
 *     (rediss+sentinel: the tls_ options are for Sentinels and servers; a server's HOST is what a Sentinel calls it)
 *   Opening does not wait for the server: the first operations do, within their deadlines.
 *
 *   sqlite:PATH        a database file of its own, made with mode 0600 where there is none: sqlite:app.db, sqlite:/var/lib/app.db
 *   sqlite::memory:    the same, private to this store, and gone with it
 *     ?synchronous=normal   the last commits may be lost in a power failure (never in a crash of the process): "full" is the default
 *     ?single_process=on    no other process can open the file meanwhile; reads are quicker
 *     ?remote=on            open it although it is on a network file system, whose locks often do not work
 *     ?max_pending=N, ?max_pending_bytes=N   as for Redis
 *   No other SQLite library may open the file in this process, only in others (core/DESIGN.md). Opening reads the file, and waits up to a second for
 *   another process that is just making it.
 *
 * An unknown scheme, an unknown or repeated option, or a value out of range is CF_EINVAL. `error` may be NULL; it is filled in
 * whenever the return is not CF_OK. *out is NULL on error. A URL is never repeated in an error: it may hold a password. */
CF_API int cf_open(cf_loop *loop, cf_slice url, const cf_open_options *options, cf_store **out, cf_error *error);

/* Closes: pending operations finish with CF_ECLOSED (their `done` is called from here, or by the next cf_loop_run when this is
 * called from inside a backend), then the backend is closed, exactly once. Called from inside one of this store's own backend
 * functions it takes effect when that function returns, at the latest when the loop runs next.
 * Returns CF_OK or what the backend's close answered, with `error` (may be NULL) filled in; the store is gone either way. */
CF_API int cf_store_close(cf_store *store, cf_error *error);

CF_API cf_loop *cf_store_loop(const cf_store *store);

/* What happens to a store's connection. CONNECT: it can be used (again). DISCONNECT: it was lost or given up; a new one is tried for by
 * itself. ERROR: an attempt to connect failed. WARNING: the server is set up so that a promise of this library does not hold there, for example
 * that a value that was popped can come back after a restart. Memory has none. */
enum { CF_EVENT_CONNECT, CF_EVENT_DISCONNECT, CF_EVENT_ERROR, CF_EVENT_WARNING, CF_EVENTS };
CF_API const char *cf_event_name(int event); /* "connect" ...; static */

/* Called from inside cf_loop_run, cf_op_wait or cf_loop_reopen, never inside cf_submit or a backend. `what` has the sentence, and for DISCONNECT and ERROR
 * the status; lent. May submit and close. NULL takes it away. Events are kept (the 16 newest) until somebody listens. */
typedef void (*cf_event_fn)(void *user, int event, const cf_error *what);
CF_API void cf_store_on_event(cf_store *store, cf_event_fn fn, void *user);

/* Calls `each` for every figure: names are static and lower case ("operations", "errors", "timeouts", "pending", and the
 * backend's own: for memory "entries", "bytes", "evicted", "expired"; for SQLite, counted once among all stores of the file in this process, "commits", "reads" (transactions without a
 * write), "grouped" (operations that ran in both), "waits" (for other processes), "swept"; for Redis "connected" (0 or 1), "connects", "disconnects", "queued" (commands not yet sent), "in_flight" (sent, not
 * answered), "round_trips" (reads that brought answers), "bytes_sent", "bytes_received", "commands", "retries", "late" (answers that nobody waited for any more), "busy", and the
 * histogram of round trips "us_64", "us_128" ... "us_2097152": how many commands were answered within so many microseconds, but not within half as many; "us_more"). */
typedef void (*cf_stat_fn)(void *user, const char *name, int64_t value);
CF_API int cf_store_stats(cf_store *store, cf_stat_fn each, void *user);

/* -------------------------------------------------------------------------------------------------------- operations --
 *
 *   kind     reads                              hit                  value        number    keys, cursor
 *   GET      key                                found                the value
 *   SET      key value [ttl|expiry] [condition] stored                                                       (1) (2)
 *   DELETE   key                                it was there
 *   POP      key                                found                the value                               (3)
 *   TOUCH    key ttl                            it was there                                                 (4)
 *   INCR     key by [ttl]                       true                              new                        (5)
 *   SCAN     key(=prefix) cursor limit          true                                        a page           (6)
 *   COUNT    key(=prefix)                       true                              count                      (6)
 *   CLEAR    key(=prefix) [CF_FORCE]            true                              removed                    (6) (7)
 *   RESEAL   key(=prefix) cursor limit [CF_TOKENS]  true             (8)          sealed anew   cursor       (6) (8)
 *
 * (1) At most one of CF_IF_ABSENT, CF_IF_PRESENT, CF_IF_EQUAL (the value now there is byte for byte `expected`). When the
 *     condition does not hold nothing changes and hit is false.
 * (2) At most one of CF_TTL, CF_EXPIRES_AT, CF_KEEP_TTL. With none, the store's ttl. CF_KEEP_TTL keeps the expiry of the value
 *     that is replaced; where nothing is there, the store's ttl. An instant that is not in the future deletes (hit is true):
 *     a value that has already expired is one that nobody can read; together with a condition it is CF_EINVAL.
 * (3) Get and delete in one step: of any number of concurrent pops of one key, exactly one gets the value.
 * (4) Sets the remaining life; CF_TTL is required. Never changes the value, never creates.
 * (5) The value is decimal text. Creates it as `by`; the ttl (CF_TTL, else the store's) counts only then, an existing expiry
 *     stays. CF_EINVAL when the value is not a canonical decimal integer or the result would pass +-CF_NUMBER_MAX.
 * (6) `key` is a literal prefix, may be empty, and nothing in it is special. Keys come without the store's prefix. A key that
 *     is there from before the first page to after the last is returned exactly once; keys that come or go meanwhile may be.
 *     Redis promises less: while its table grows or shrinks a key may come in two pages, and COUNT counts it twice.
 * (7) Refused (CF_EINVAL) when store prefix and prefix are both empty, unless CF_FORCE: that would be everybody's keys.
 * (8) One page of a sweep: what an older key of the ring has sealed is sealed with the first, and keeps its expiry; so is what is plain, until plain_until_ms. What somebody
 *     changes meanwhile stays as they left it. Without CF_TOKENS it goes through the values of a store that seals them (`seal_values`); with it, through the access and
 *     refresh tokens of all social accounts, in a store with keys, and `key` is empty (over hooks: CF_ENOTSUP). The value is decimal text: how many do not open at all; they
 *     are left. When the cursor comes back empty and other programs seal with the new key too, nothing there needs the old one any more; with `seal_values` that takes both
 *     sweeps. Stopped or failed, it can begin again.
 *
 * Keys are UTF-8 without NUL, CR or LF, 1 to CF_KEY_MAX bytes; values any bytes up to CF_VALUE_MAX, also none.
 * Outcome of a failed read is always not applied. The kinds from CF_OP_INSERT to CF_OP_HOOK belong to records: cf_accounts_call and cf_sessions_call submit them. */
enum {
#define CF_OP(NAME, slot, writes) CF_OP_##NAME,
#include "counterfoil/ops.def"
#undef CF_OP
    CF_OP_KINDS
};

enum {
    CF_TTL        = 1 << 0, /* ttl_ms counts: 1 to CF_TTL_MAX                                                              */
    CF_EXPIRES_AT = 1 << 1, /* expires_at_ms counts: from 1970 to ten years ahead                                          */
    CF_KEEP_TTL   = 1 << 2,
    CF_IF_ABSENT  = 1 << 3,
    CF_IF_PRESENT = 1 << 4,
    CF_IF_EQUAL   = 1 << 5, /* `expected` counts                                                                           */
    CF_FORCE      = 1 << 6,
    CF_TOKENS     = 1 << 7  /* RESEAL: of social accounts, instead of values                                               */
};

/* At most once per operation, from inside cf_loop_run, cf_op_wait, cf_op_cancel, cf_store_close or cf_loop_reopen; never inside
 * cf_submit and never inside a backend. May free the operation, submit others and close the store. */
typedef void (*cf_done_fn)(cf_op *op, void *user);

typedef struct cf_request {
    size_t     size; /* sizeof(cf_request); CF_REQUEST fills it in */
    int        kind; /* CF_OP_GET ...                              */
    unsigned   flags;
    cf_slice   key;
    cf_slice   value;
    cf_slice   expected;      /* with CF_IF_EQUAL                                            */
    cf_slice   cursor;        /* SCAN: empty at first, then what cf_op_cursor gave           */
    int64_t    ttl_ms;        /* with CF_TTL                                                 */
    int64_t    expires_at_ms; /* with CF_EXPIRES_AT                                          */
    int64_t    by;            /* INCR, within +-CF_NUMBER_MAX                                */
    size_t     limit;         /* SCAN: keys wanted, a hint; 0 = CF_SCAN_DEFAULT. With CF_TOKENS: accounts; 0 = a quarter */
    int64_t    timeout_ms;    /* 0 = the store's; 1 to CF_TIMEOUT_MAX                        */
    cf_done_fn done;          /* may be NULL                                                 */
    void      *user;
    cf_slice   receipt;       /* empty, or what cf_op_receipt gave: see there                */
} cf_request;

#define CF_REQUEST(KIND, ...) (&(cf_request){.size = sizeof(cf_request), .kind = (KIND), __VA_ARGS__})

/* Submits. Returns CF_OK (done, `done` will not be called), CF_PENDING (`done` will be called, or use cf_op_wait), or the
 * negative status of an operation that has already failed (`done` will not be called; cf_op_error has the sentence). *op is
 * yours to free in every case; it is NULL only after CF_ENOMEM. */
CF_API int cf_submit(cf_store *store, const cf_request *request, cf_op **op);

/* Where one operation waits for a socket these first look for its answer for some tens of microseconds before they sleep, as long as that has been
 * paying: two wake-ups of a thread cost as much.
 * Runs the loop until this operation has finished or max_ms have passed (-1: until it has finished, which its deadline bounds).
 * Returns its status, or CF_PENDING when max_ms passed first, a signal came or somebody called cf_loop_wake. `done` is called if it was asked for. */
CF_API int cf_op_wait_for(cf_op *op, int max_ms);
CF_API int cf_op_wait(cf_op *op);

CF_API int             cf_op_kind(const cf_op *op);
CF_API int             cf_op_status(const cf_op *op); /* CF_PENDING until it has finished */
CF_API bool            cf_op_hit(const cf_op *op);
CF_API cf_slice        cf_op_value(const cf_op *op);
CF_API bool            cf_is_sealed(cf_slice value);  /* it begins as `seal_values` writes (FORMAT.md, 14): a store without the keys has read it */
CF_API int64_t         cf_op_number(const cf_op *op);
CF_API cf_slice        cf_op_cursor(const cf_op *op); /* empty: there are no more pages */
CF_API const cf_error *cf_op_error(const cf_op *op);  /* never NULL */
CF_API void           *cf_op_user(const cf_op *op);

/* POP, INCR and SET with CF_IF_ABSENT or CF_IF_EQUAL on a backend that keeps receipts (Redis): a text that names this one call, after a
 * failure whose outcome is unknown or applied (its answer was lost; ?durable); otherwise empty. The same request with this `receipt` gives, for twice the time-out, the answer of the call that was lost if it took effect, and
 * otherwise acts now. The value of a pop whose answer was lost is therefore not lost, and nobody else gets it. With other arguments than the key it is
 * CF_EINVAL; under another key there is no such receipt. (Within its deadline a call does this itself.) */
CF_API cf_slice cf_op_receipt(const cf_op *op);
#define CF_RECEIPT_LEN 32
CF_API cf_store       *cf_op_store(const cf_op *op); /* NULL once the store is closed */

/* The keys of a page, one per call; false at the end. The first call after the finish gives the first key. */
CF_API bool cf_op_next_key(cf_op *op, cf_slice *key);

/* The object a host's backend threw (CF_EHOST), or NULL. It belongs to the operation. */
CF_API void *cf_op_attached(const cf_op *op);

/* Finishes a pending operation now with CF_ECANCELED (calling `done`, but from inside a backend the next cf_loop_run does, and from inside a slot that works for this very
 * operation it ends when that returns); its late answer reaches nobody. CF_OK, or CF_EINVAL when it has finished or was cancelled already. Whether a write took effect is unknown. */
CF_API int cf_op_cancel(cf_op *op);

/* Gives the operation back to its loop. A pending one is cancelled without calling `done`. NULL is allowed. */
CF_API void cf_op_free(cf_op *op);

/* ------------------------------------------------------------------------------------------------------- host numbers --
 * Hosts speak of seconds, as floating point. These convert and refuse (CF_EINVAL, with the sentence that every host shows):
 * NaN, infinity, and what is out of range. Fractions of a millisecond are rounded up for a ttl and a timeout, and to the nearest for
 * an instant. `error` may be NULL. */
CF_API int cf_ttl_from_seconds(double seconds, int64_t *ms, cf_error *error);     /* > 0, at most CF_TTL_MAX      */
CF_API int cf_timeout_from_seconds(double seconds, int64_t *ms, cf_error *error); /* > 0, at most CF_TIMEOUT_MAX  */
CF_API int cf_instant_from_seconds(double seconds, int64_t *ms, cf_error *error); /* since 1970; not before       */

/* -------------------------------------------------------------------------------------------------------- interfaces --
 * What auth libraries ask for, written once, over any store. They hold no memory of their own: fill in the struct, keep the
 * store open. `timeout_ms`, `done` and `user` are as in cf_request; returns and *op as with cf_submit. */

typedef struct cf_call {
    int64_t    timeout_ms;
    cf_done_fn done;
    void      *user;
} cf_call;

/* Storage: one JSON state per id (Miro's API clients; web sessions). JSON stays in the host: a state is its text here, never
 * empty (CF_EINVAL). An id is text, or an integer, which is the same id as its decimal text: 1 and "1" are one record. */
typedef struct cf_storage {
    cf_store *store;
} cf_storage;

CF_API int cf_storage_get(const cf_storage *storage, cf_slice id, const cf_call *call, cf_op **op);
/* `state` with a NULL ptr means absent: deletes. hit: stored, or (deleting) it was there. */
CF_API int cf_storage_set(const cf_storage *storage, cf_slice id, cf_slice state, const cf_call *call, cf_op **op);

/* SecondaryStorage: one-time codes and OAuth state (Cross Auth 0.2 to 0.22; better-auth). */
#define CF_SECONDARY_TTL INT64_C(600000) /* ten minutes, as Cross Auth's own guide has it */

typedef struct cf_secondary {
    cf_store *store;
    int64_t   ttl_ms; /* for a set that names none; 0 = CF_SECONDARY_TTL */
} cf_secondary;

/* `ttl_seconds` NULL: the default. Zero or negative, also -infinity, deletes, as Cross Auth's own Redis storage does. NaN and more than
 * CF_TTL_MAX are CF_EINVAL. hit: stored, or (deleting) it was there. */
CF_API int cf_secondary_set(const cf_secondary *secondary, cf_slice key, cf_slice value, const double *ttl_seconds,
                            const cf_call *call, cf_op **op);
CF_API int cf_secondary_get(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op);
CF_API int cf_secondary_delete(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op);
CF_API int cf_secondary_pop(const cf_secondary *secondary, cf_slice key, const cf_call *call, cf_op **op);

/* ----------------------------------------------------------------------------------------------------------- records --
 * Users, social accounts and session records: flat lists of named, typed fields, declared in counterfoil/schema.def. They live beside the keys of
 * a store, under its prefix, and no key operation sees them: not SCAN, not CLEAR. The backend keeps what is unique so, in one step with the write. */

enum {
#define CF_KIND(KIND, name, unique, unique2, listing, parent) CF_##KIND,
#include "counterfoil/schema.def"
    CF_KINDS
};

/* CF_USER_ID, CF_USER_EMAIL ...; CF_SESSION_ID ... Each kind counts its fields from 0, its id. */
enum {
#define CF_KIND(KIND, name, unique, unique2, listing, parent) CF_##KIND##_NONE = -1,
#define CF_FIELD(KIND, NAME, name, type, null) CF_##KIND##_##NAME,
#include "counterfoil/schema.def"
    CF_FIELDS_MAX = 20 /* of any kind, with room to grow */
};

typedef enum { CF_TEXT, CF_JSON, CF_SECRET, CF_BOOLEAN, CF_NUMBER, CF_INSTANT } cf_field_type;

/* Text: UTF-8 without NUL, at most CF_TEXT_MAX bytes, JSON CF_JSON_MAX; what is looked up by (ids, provider user ids, token hashes) CF_INDEXED_MAX, and never
 * empty. Booleans are 0 and 1. Instants are microseconds since 1970-01-01 UTC, 0 to 2^53 - 1 (the year 2255): exact in every host. */
#define CF_TEXT_MAX    65536
#define CF_JSON_MAX    262144
#define CF_INDEXED_MAX 512
#define CF_ID_LEN      32 /* of the ids that this library makes: lower-case hexadecimal, 128 random bits */

enum { CF_UNSAID, CF_NULL, CF_GIVEN };
typedef struct cf_field {
    int      is;     /* CF_UNSAID: an update leaves it, an insert makes it null (a boolean false) */
    int64_t  number; /* boolean, number, instant */
    cf_slice text;   /* lent */
} cf_field;

typedef struct cf_record {
    int      kind;
    cf_field fields[CF_FIELDS_MAX];
} cf_record;

CF_API const char   *cf_kind_name(int kind);               /* "user" ...; static; NULL where there is no such kind */
CF_API const char   *cf_field_name(int kind, int field);   /* "id", "email" ...; NULL: there are no more fields     */
CF_API cf_field_type cf_field_type_of(int kind, int field);
CF_API int           cf_field_named(int kind, cf_slice name); /* -1: none */
static inline void cf_record_text(cf_record *record, int field, cf_slice text)
{
    record->fields[field].is = CF_GIVEN;
    record->fields[field].text = text;
}
static inline void cf_record_number(cf_record *record, int field, int64_t number)
{
    record->fields[field].is = CF_GIVEN;
    record->fields[field].number = number;
}
static inline void cf_record_null(cf_record *record, int field) { record->fields[field].is = CF_NULL; }

/* The records that an operation brought, one per call, every field said; false at the end. After CF_EEXISTS: the one that is there already. */
CF_API bool cf_op_next_record(cf_op *op, cf_record *record);

/* Two addresses are one when their normalised forms are the same bytes: ASCII whitespace around it goes, ASCII letters become small, and a domain (what follows the
 * last @) that is not all ASCII becomes its A-labels (IDNA2008 after UTS #46, not transitional): to DNS, and to mail, it is the same. Before the @ nothing else is changed (no
 * dots or plus signs are stripped, and no letter outside ASCII is taken for another), so none is ever merged with somebody else's. Normalising it again changes nothing.
 * `out` has CF_EMAIL_MAX bytes; `len`: how many it has used. NULL, or what is wrong as the end of a sentence: it is empty, longer than CF_EMAIL_MAX (also in the end), not
 * UTF-8, has control characters, or a domain that is not all ASCII and that IDNA refuses. */
#define CF_EMAIL_MAX 320
CF_API const char *cf_email_normalise(cf_slice address, char *out, size_t *len);

/* AccountsStorage (Cross Auth 0.2 to 0.22): users, and the social accounts that belong to them.
 *
 *   method                      record (its fields)                      brings
 *   FIND_USER_BY_EMAIL          user: email                              the user, or nothing (an address that cannot be one: nothing)
 *   FIND_USER_BY_ID             user: id                                 the user, or nothing
 *   CREATE_USER                 user: all but id, email_key, *_at        the user. EXISTS: the one that has the e-mail
 *   UPDATE_USER                 user: id, and what changes               the user. MISSING; EXISTS
 *   DELETE_USER                 user: id                                 nothing; hit: it was there. With it go its social accounts and sessions
 *   FIND_SOCIAL_ACCOUNT         social_account: provider, provider_user_id   it, or nothing
 *   FIND_SOCIAL_ACCOUNT_BY_ID   social_account: id                       it, or nothing
 *   LIST_SOCIAL_ACCOUNTS        social_account: user_id                  all of them, the oldest first
 *   CREATE_SOCIAL_ACCOUNT       social_account: all but id, *_at         it. EXISTS: the one that is there; MISSING: no such user; LIMIT
 *   UPDATE_SOCIAL_ACCOUNT       social_account: id, and what changes     it. MISSING. user_id, provider, provider_user_id cannot change (INVALID)
 *   DELETE_SOCIAL_ACCOUNT       social_account: id                       nothing; hit
 *   FIND_OR_CREATE              social_account as for CREATE without user_id; and the user that is made with it where there is none
 *                                                                        the social account, then its user. number: 1 where they were made now.
 *                               EXISTS: a user has that e-mail; nothing was linked. Who owns an address must be asked: an app links with CREATE_SOCIAL_ACCOUNT
 *
 * An id that is none of ours is a miss. Every method is one atomic step, whoever else calls. email_key and the instants are the core's: giving them is INVALID. */
enum {
    CF_FIND_USER_BY_EMAIL,
    CF_FIND_USER_BY_ID,
    CF_CREATE_USER,
    CF_UPDATE_USER,
    CF_DELETE_USER,
    CF_FIND_SOCIAL_ACCOUNT,
    CF_FIND_SOCIAL_ACCOUNT_BY_ID,
    CF_LIST_SOCIAL_ACCOUNTS,
    CF_CREATE_SOCIAL_ACCOUNT,
    CF_UPDATE_SOCIAL_ACCOUNT,
    CF_DELETE_SOCIAL_ACCOUNT,
    CF_FIND_OR_CREATE,
    CF_ACCOUNTS_METHODS
};
/* "find_user_by_email" ...; "find_or_create_by_social_account". Static. */
CF_API const char *cf_accounts_method_name(int method);

#define CF_SOCIAL_ACCOUNTS_MAX 64

typedef struct cf_accounts {
    cf_store *store; /* a backend's, or one over hooks: counterfoil/backend.h */
    size_t    most;  /* social accounts of one user; 0 = CF_SOCIAL_ACCOUNTS_MAX; at most CF_SESSIONS_MOST */
} cf_accounts;

/* `user` is for FIND_OR_CREATE alone, otherwise NULL. */
CF_API int cf_accounts_call(const cf_accounts *accounts, int method, const cf_record *record, const cf_record *user, const cf_call *call, cf_op **op);

/* SessionStorage (Cross Auth 0.16 to 0.22): session records, found by the hash of a token. They are kept for a while after their end, so that a user can see them.
 *
 *   method        record (its fields)                               brings
 *   CREATE        session: all but id, revoked_at, epoch            the session. EXISTS: that token hash is taken; CHANGED: see epoch; LIMIT
 *   GET           session: token_hash                               it, if it is active at `now`, or nothing
 *   GET_ANY       session: id                                       it, whatever its status, or nothing
 *   LIST          session: user_id                                  a page; the cursor of the next. CURSOR
 *   REFRESH       session: id, updated_at, expires_at, [last_active_at]   it; nothing where it is missing or revoked
 *   REVOKE        session: id, revoked_at                           nothing; hit: it is there. The first revoked_at stays
 *   REVOKE_ALL    session: user_id, revoked_at                      number: how many were revoked now, also expired ones. The epoch goes up
 *   EPOCH         session: user_id                                  number: the epoch
 *
 * A session is revoked when it has a revoked_at, else expired when now > expires_at, else active: at the very instant it still is (Cross Auth).
 * EPOCH. Every REVOKE_ALL raises the epoch of its user. A login that reads it when it begins and gives it to CREATE is refused (CHANGED) when all sessions were
 * revoked meanwhile; without it a session that is made after a REVOKE_ALL stays. user_id is any text: the user need not be in an AccountsStorage. */
enum {
    CF_SESSION_CREATE,
    CF_SESSION_GET,
    CF_SESSION_GET_ANY,
    CF_SESSION_LIST,
    CF_SESSION_REFRESH,
    CF_SESSION_REVOKE,
    CF_SESSION_REVOKE_ALL,
    CF_SESSION_READ_EPOCH,
    CF_SESSION_METHODS
};
enum { CF_STATUS_ANY, CF_STATUS_ACTIVE, CF_STATUS_EXPIRED, CF_STATUS_REVOKED };
enum { CF_UPDATED_AT_DESC, CF_UPDATED_AT_ASC, CF_CREATED_AT_DESC, CF_CREATED_AT_ASC, CF_EXPIRES_AT_DESC, CF_EXPIRES_AT_ASC, CF_SESSION_ORDERS };

#define CF_SESSIONS_MAX      100                     /* of one user, if nothing else is said */
#define CF_SESSIONS_MOST     10000                   /* and at most */
#define CF_SESSION_RETENTION INT64_C(2592000000)     /* 30 days, in ms */
#define CF_LIST_LIMIT        50

typedef struct cf_sessions {
    cf_store *store;
    size_t    most;         /* records of one user; 0 = CF_SESSIONS_MAX. One more first drops the oldest that has ended, then ... */
    bool      refuse;       /* false: ... the oldest there is; true: ... nothing, and CREATE is LIMIT */
    int64_t   retention_ms; /* how long a record is kept after its expires_at; 0 = CF_SESSION_RETENTION; at most CF_TTL_MAX */
} cf_sessions;

typedef struct cf_session_args {
    size_t   size;   /* sizeof(cf_session_args) */
    int64_t  now;    /* GET, LIST with a status: an instant; LIST and CREATE: 0 = the clock's */
    int64_t  epoch;  /* CREATE: what READ_EPOCH gave; -1: whatever it is */
    cf_slice except; /* REVOKE_ALL: the id of a session that stays; empty: none */
    int      status; /* LIST */
    int      order;  /* LIST */
    size_t   limit;  /* LIST: 1 to CF_SESSIONS_MOST; 0 = CF_LIST_LIMIT */
    cf_slice cursor; /* LIST: empty, or what the page before gave (cf_op_cursor): good for this order only */
} cf_session_args;

/* `args` may be NULL for what needs none: then GET uses the clock and CREATE any epoch. */
CF_API int cf_sessions_call(const cf_sessions *sessions, int method, const cf_record *record, const cf_session_args *args, const cf_call *call, cf_op **op);
/* CF_STATUS_ACTIVE ... of a session record at an instant. */
CF_API int cf_session_status(const cf_record *session, int64_t now);

#ifdef __cplusplus
}
#endif
#endif
