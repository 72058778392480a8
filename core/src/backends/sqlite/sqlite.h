/* sqlite.h: the parts of the SQLite backend.
 *
 *   sqlite.c      the table: opening by URL, slots, results on their way back
 *   file.c        a database file in this process: found again by whoever opens it, its connections, what becomes of them in a fork
 *   group.c       the queue of a file, and the one who runs all of it in one transaction: the leader
 *   statements.c  what one operation does inside a transaction. The SQL
 *   records.c     the same for accounts and session records, and their tables
 *
 * One file is one `sqlite_file`, whoever opens it, on however many loops and threads. Operations are copied into jobs, which stand in the file's
 * queue; a leader takes the whole queue and commits it once. A caller who waits (cf_loop_blocking) leads itself, or sleeps while another does;
 * for event loops the file has a worker, a thread that leads whenever nobody else does. Reads of a caller who waits need no queue: they run at once,
 * on a connection of its own. */
#ifndef CF_SQLITE_H
#define CF_SQLITE_H

#include <sqlite3.h>
#include <stdatomic.h>

#include "util.h"

enum { DB_APPLICATION = 0x43746673, DB_VERSION = 2 }; /* application_id ("Ctfs") and user_version: FORMAT.md */

typedef enum {
    SQL_BEGIN_READ,
    SQL_BEGIN_WRITE,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_GET,
    SQL_SET,
    SQL_SET_KEEPING,
    SQL_SET_ABSENT,
    SQL_SET_WHERE,
    SQL_DELETE,
    SQL_POP,
    SQL_TOUCH,
    SQL_PAGE,
    SQL_CLEAR,
    SQL_SWEEP,
    SQL_PAGES,
    SQL_EPOCH,
    SQL_EPOCH_UP,
    SQL_STATEMENTS
} sqlite_statement;

/* Those of every kind of record. */
typedef enum {
    REC_BY_ID,
    REC_BY_UNIQUE,
    REC_GROUP,
    REC_IDS,
    REC_COUNT,
    REC_COUNT_ALIVE,
    REC_LAST_OUT,
    REC_DELETE_FIRST,
    REC_INSERT,
    REC_UPDATE,
    REC_UPDATE_EXPIRY,
    REC_UPDATE_KEYS,
    REC_DELETE,
    REC_DELETE_GROUP,
    REC_SWEEP,
    REC_STATEMENTS
} sqlite_record_statement;

typedef struct sqlite_link { /* a connection, and what was prepared on it */
    cf_link       link;      /* in file->links */
    sqlite3      *db;        /* NULL: not open now */
    sqlite3_stmt *statements[SQL_STATEMENTS];
    sqlite3_stmt *records[CF_KINDS][REC_STATEMENTS];
    int64_t       page;      /* its bytes */
    cf_mutex     *using;     /* held while SQLite runs: nobody forks inside it */
} sqlite_link;

typedef struct sqlite_options {
    bool normal;    /* ?synchronous=normal */
    bool alone;     /* ?single_process=on  */
    bool remote;    /* ?remote=on          */
    int64_t max_pending, max_pending_bytes; /* of one backend */
} sqlite_options;

typedef struct sqlite_figures {
    int64_t commits, reads, grouped, waits, swept;
} sqlite_figures;

typedef enum { JOB_WAITS, JOB_RUNS, JOB_RAN } sqlite_job_state;
/* While a job RUNS its leader may still wait for another process. Whoever is first decides: the leader that has begun, or the caller that gives it up. */
enum { CLAIM_NONE, CLAIM_BEGUN, CLAIM_GIVEN_UP };

/* One operation, copied. Whoever holds file->lock may look at `state` and the links; while it RUNS the leader alone has the rest. */
typedef struct sqlite_job {
    cf_link          turn;  /* in file->queue, file->group, or the backend's batch or results */
    cf_link          mine;  /* in the backend's jobs */
    cf_backend      *owner;
    uint64_t         ticket; /* 0: nobody waits any more */
    sqlite_job_state state;
    atomic_int       claim;
    cf_request       in;     /* its slices are behind this struct */
    int64_t          expiry; /* 0: none */
    int64_t          now;    /* the time that counts for the transaction */
    int64_t          before; /* CLEAR: how many earlier transactions have removed */
    /* What came of it. Real memory: another thread has allocated it. */
    int              status, outcome;
    bool             hit;
    size_t           size;   /* with what is behind it */
    bool             more;   /* CLEAR: not yet at its end */
    bool             again;  /* with the next group */
    int64_t          number;
    cf_buffer        value;  /* SCAN: keys, each behind its length; so are ids; records, packed */
    bool             ids;    /* LIST: of all records, instead of a group */
    cf_buffer        cursor;
    const char      *text;   /* static */
} sqlite_job;

typedef struct sqlite_file {
    cf_link        link;       /* of all files; CF_LOCK_SQLITE */
    unsigned       users;      /* CF_LOCK_SQLITE */
    char          *path;       /* absolute; "" in memory */
    char          *reserve;    /* path-reserve */
    uint64_t       device, node;
    sqlite_options options;
    cf_mutex      *lock;       /* guards what follows but for the writer's inside */
    unsigned       generation; /* of the process that opened the links */
    cf_link        links;
    cf_link        queue, group;
    bool           leading, worker, ending;
    int64_t        blocked_ms; /* another process has had the lock since then; 0: no */
    /* With whom a commit waits for callers who take turns: how many had something in the last group or behind it, when that ended, and how long one takes. */
    size_t         expected;
    int64_t        ended_us, commit_us;
    uint64_t       marks;
    sqlite_link    writer;     /* the leader's */
    /* The leader's. */
    int64_t        looked_ms;  /* when the path was last compared with the file */
    _Atomic(const char *) gone; /* why this file must not be used any more */
    int64_t        filled_ms;  /* when the reserve was last tried to set aside */
    bool           full;       /* it could not be: nothing but what removes may be written */
    int64_t        pages;      /* for as many the file has its space on the disk already */
    cf_buffer      swept_to;
    int64_t        records_swept_ms; /* when it was last looked for records that have expired */
    bool           more_records;     /* and there were more */
    sqlite_figures figures, news; /* the first with file->lock; the second is the leader's */
} sqlite_file;

struct cf_backend {
    cf_loop     *loop;
    sqlite_file *file;
    sqlite_options options;
    sqlite_link  reader;
    cf_notice   *notice;
    cf_link      jobs;    /* all of them */
    cf_link      batch;   /* of this tick: nobody else knows them yet */
    cf_link      results; /* file->lock */
    uint64_t     mark;    /* by which it is counted once; file->lock */
    size_t       queued;
    size_t       bytes;     /* of the jobs */
    bool         writes;    /* the leader's: it has come to a write of this one */
    bool         leads;     /* inside flush: it looks for its results itself; file->lock */
    sqlite_figures figures; /* as far as this one has told them */
    int64_t      looked_ms; /* when a read last went through the queue, where the path is looked at */
};

/* ---- file.c ---- */
/* Finds or makes the file of a path; its writer is open and its tables are there. */
int  sqlite_file_open(cf_loop *loop, cf_slice path, const sqlite_options *options, sqlite_file **out, cf_error *error);
void sqlite_file_close(sqlite_file *file); /* no job of the caller's may be left in it */
/* In a child: closes what was inherited, once for all who have it. No lock may be held. */
void sqlite_file_forked(sqlite_file *file);
int  sqlite_link_init(sqlite_file *file, sqlite_link *link); /* CF_OK or CF_ENOMEM; opens nothing */
int  sqlite_link_open(sqlite_file *file, sqlite_link *link); /* SQLITE_OK or an error of SQLite; does nothing when it is open */
void sqlite_link_close(sqlite_link *link, bool tidily);
void sqlite_link_free(sqlite_file *file, sqlite_link *link);
/* Whether the path still leads to the file that is open; `now` is monotonic. Looks once in a second. */
bool sqlite_file_there(sqlite_file *file, int64_t now);
bool sqlite_reserve_release(sqlite_file *file, int64_t now); /* true: there was one; the file counts as full now */
void sqlite_reserve_fill(sqlite_file *file, int64_t now);
int  sqlite_room_take(sqlite_file *file, sqlite_link *link); /* before a commit: SQLITE_OK, or SQLITE_FULL */

/* ---- group.c ---- */
void sqlite_group_lead(cf_loop *loop, sqlite_file *file); /* with file->lock held, and still held afterwards */
void sqlite_group_offer(cf_loop *loop, sqlite_file *file); /* the same, to the worker */
void sqlite_figures_move(sqlite_figures *to, sqlite_figures *from);
void sqlite_results_give(cf_backend *self, sqlite_job *job); /* sqlite.c; with file->lock held */

/* ---- statements.c ---- */
#define CF_SQLITE_GONE "the database file was removed or replaced while it was open: close the store and open it again"
bool sqlite_writes(const sqlite_job *job);
bool sqlite_removes(const sqlite_job *job); /* what must work on a full disk too */
int  sqlite_run(sqlite_link *link, sqlite_job *job); /* writes what came of it; SQLITE_OK, or why the transaction is spoilt */
int  sqlite_plain(sqlite_link *link, sqlite_statement which);     /* without arguments or rows */
int  sqlite_prepare(sqlite_link *link, sqlite_statement which, sqlite3_stmt **out);
int  sqlite_sweep(sqlite_link *link, cf_buffer *from, int rows, int64_t now, int64_t *swept);
/* What an error of SQLite means for a job. */
void sqlite_blame(sqlite_job *job, int code, int outcome);
int  sqlite_status(int code, const char **text);

/* ---- records.c ---- */
int  sqlite_records_make(sqlite3 *db); /* their tables */
int  sqlite_run_record(sqlite_link *link, sqlite_job *job); /* as sqlite_run */
int  sqlite_keep_text(cf_buffer *page, const void *text, size_t len); /* statements.c: one more, behind its length; SQLITE_OK or SQLITE_NOMEM */
bool sqlite_revokes(const sqlite_job *job); /* an update that does nothing but end sessions */
int  sqlite_records_sweep(sqlite_link *link, int rows, int64_t now, int64_t *swept, bool *more); /* at most so many of each kind */


#endif
