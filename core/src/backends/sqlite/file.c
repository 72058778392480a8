/* file.c: a database file in this process. */
#include <errno.h>
#include <stdio.h>

#include "sqlite.h"

enum { OPENING_MS = 1000, RUNNING_MS = 5, NAP_MS = 5, RESERVE = 1024 * 1024, LOOK_MS = 1000, FILL_MS = 10000, REFILL_MS = 500, CHUNK = 128 * 1024 };

static cf_link files = {&files, &files}; /* CF_LOCK_SQLITE */

static const cf_platform *real(void) { return cf_platform_real(); }

/* ------------------------------------------------------------------------------------------------------- connections -- */

int sqlite_link_init(sqlite_file *file, sqlite_link *link)
{
    link->using = cf_mutex_new(real());
    if (!link->using) return CF_ENOMEM;
    cf_mutex_lock(file->lock);
    cf_link_append(&file->links, &link->link);
    cf_mutex_unlock(file->lock);
    return CF_OK;
}

void sqlite_link_close(sqlite_link *link, bool tidily)
{
    if (!link->db) return;
    for (int i = 0; i < SQL_STATEMENTS; i++) {
        sqlite3_finalize(link->statements[i]);
        link->statements[i] = NULL;
    }
    for (int i = 0; i < CF_KINDS * REC_STATEMENTS; i++) {
        sqlite3_stmt **statement = &link->records[i / REC_STATEMENTS][i % REC_STATEMENTS];
        sqlite3_finalize(*statement);
        *statement = NULL;
    }
    if (tidily) sqlite3_db_config(link->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    sqlite3_close_v2(link->db);
    link->db = NULL;
}

void sqlite_link_free(sqlite_file *file, sqlite_link *link)
{
    if (!link->using) return;
    /* In this order: the child of a fork in between finds what it has inherited. */
    cf_mutex_lock(link->using);
    sqlite_link_close(link, true);
    cf_mutex_unlock(link->using);
    cf_mutex_lock(file->lock);
    cf_link_remove(&link->link);
    cf_mutex_unlock(file->lock);
    cf_mutex_free(real(), link->using);
    link->using = NULL;
}

static int run(sqlite3 *db, const char *sql) { return sqlite3_exec(db, sql, NULL, NULL, NULL); }

static int ask(sqlite3 *db, const char *sql, int64_t *number)
{
    sqlite3_stmt *statement;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (rc != SQLITE_OK) return rc;
    rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) *number = sqlite3_column_int64(statement, 0);
    rc = sqlite3_finalize(statement);
    return rc;
}

/* Three numbers that say whose database this is, and of which version, 0: of none yet; SQLITE_AUTH when it is not ours, with the reason. */
static int recognise(sqlite3 *db, int64_t *version, const char **why)
{
    int64_t application = 0, tables = 0;
    *version = 0;
    int rc = ask(db, "PRAGMA application_id", &application);
    if (rc == SQLITE_OK) rc = ask(db, "PRAGMA user_version", version);
    if (rc == SQLITE_OK) rc = ask(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if ((rc & 0xff) == SQLITE_NOTADB) *why = "that file is not an SQLite database: give the name of one that does not exist yet";
    if (rc != SQLITE_OK) return rc;
    if (application == 0 && *version == 0 && tables == 0) return SQLITE_OK;
    if (application != DB_APPLICATION) {
        *why = "that database belongs to another application: Counterfoil keeps a file of its own, give the name of one that does not exist yet";
        return SQLITE_AUTH;
    }
    if (*version > DB_VERSION) {
        *why = "that database was written by a newer version of Counterfoil";
        return SQLITE_AUTH;
    }
    return *version < 1 ? SQLITE_CORRUPT : SQLITE_OK; /* our id, and no version of ours */
}

static int make_entries(sqlite3 *db)
{
    static const char format[] = "PRAGMA application_id=%d;"
                                 "CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value BLOB NOT NULL) STRICT, WITHOUT ROWID";
    char sql[sizeof format + 16];
    snprintf(sql, sizeof sql, format, DB_APPLICATION);
    return run(db, sql);
}

static int set_version(sqlite3 *db)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d", DB_VERSION);
    return run(db, sql);
}

/* What a database of an older version, or a new one, does not have yet: all of it in one transaction. Version 2: records. */
static int found(sqlite3 *db)
{
    int rc = run(db, "BEGIN IMMEDIATE");
    if (rc != SQLITE_OK) return rc;
    int64_t version; /* somebody else may have been quicker */
    const char *ignored = NULL;
    rc = recognise(db, &version, &ignored);
    if (rc == SQLITE_OK && version < 1) rc = make_entries(db);
    if (rc == SQLITE_OK && version < 2) rc = sqlite_records_make(db);
    if (rc == SQLITE_OK && version < DB_VERSION) rc = set_version(db);
    if (rc == SQLITE_OK) rc = run(db, "COMMIT");
    if (rc != SQLITE_OK) run(db, "ROLLBACK");
    return rc;
}

/* In one transaction: another process may just be making it. */
static int look(sqlite3 *db, int64_t *version, const char **why)
{
    int rc = run(db, "BEGIN");
    if (rc == SQLITE_OK) rc = recognise(db, version, why);
    if (!sqlite3_get_autocommit(db)) run(db, "COMMIT");
    return rc;
}

static int set_up(sqlite_file *file, sqlite3 *db, bool writes, const char **why)
{
    bool    in_memory = !*file->path;
    int     chunk = CHUNK;
    int64_t version;
    sqlite3_busy_timeout(db, OPENING_MS);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_file_control(db, "main", SQLITE_FCNTL_CHUNK_SIZE, &chunk);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* in a child of a fork closing must not write */
    int rc = run(db, "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
                     "PRAGMA secure_delete=ON");
    if (rc == SQLITE_OK) rc = look(db, &version, why);
    /* Of several that make it at once SQLite sends all but one away without waiting. */
    for (int tries = 0; rc == SQLITE_OK && version == 0 && !in_memory && (rc = run(db, "PRAGMA journal_mode=WAL")) == SQLITE_BUSY && tries < OPENING_MS / NAP_MS; tries++) {
        sqlite3_sleep(NAP_MS);
        rc = look(db, &version, why);
    }
    if (rc == SQLITE_OK) rc = run(db, file->options.normal ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL");
    /* A page that changes often is carried from the WAL to the file once for many changes. */
    if (rc == SQLITE_OK) rc = run(db, "PRAGMA journal_size_limit=33554432; PRAGMA wal_autocheckpoint=4000");
    if (rc == SQLITE_OK) rc = run(db, writes ? "PRAGMA cache_size=-16000" : "PRAGMA cache_size=-4000");
    if (rc == SQLITE_OK && version < DB_VERSION) rc = found(db);
    sqlite3_busy_timeout(db, RUNNING_MS);
    return rc;
}

/* Whether the path leads to the file that was opened first. */
static bool same(sqlite_file *file)
{
    cf_file is;
    if (real()->file_look(real()->self, file->path, &is) == 0 && is.device == file->device && is.node == file->node) return true;
    file->gone = CF_SQLITE_GONE;
    return false;
}

static int open_link(sqlite_file *file, sqlite_link *link, const char **why)
{
    *why = NULL;
    if (link->db) return SQLITE_OK;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_PRIVATECACHE;
    int rc = sqlite3_open_v2(*file->path ? file->path : ":memory:", &link->db, flags, file->options.alone ? "unix-excl" : NULL);
    if (rc == SQLITE_OK && *file->path && !same(file)) rc = SQLITE_READONLY_DBMOVED; /* before anything is written into another's */
    if (rc == SQLITE_OK) rc = set_up(file, link->db, link == &file->writer, why);
    if (rc == SQLITE_OK) rc = ask(link->db, "PRAGMA page_size", &link->page);
    if (rc != SQLITE_OK) sqlite_link_close(link, false);
    return rc;
}

int sqlite_link_open(sqlite_file *file, sqlite_link *link)
{
    const char *ignored;
    return open_link(file, link, &ignored);
}

/* ------------------------------------------------------------------------------------------------------------- files -- */

static void file_free(sqlite_file *file)
{
    sqlite_link_free(file, &file->writer);
    cf_lock(CF_LOCK_SQLITE);
    cf_link_remove(&file->link);
    cf_unlock(CF_LOCK_SQLITE);
    cf_buffer_free(real(), &file->swept_to);
    cf_mutex_free(real(), file->lock);
    cf_release(real(), file->path);
    cf_release(real(), file->reserve);
    cf_release(real(), file);
}

static char *joined(const char *a, cf_slice b, const char *c)
{
    size_t size = strlen(a) + b.len + strlen(c) + 1;
    char  *text = cf_alloc(real(), size);
    if (text) snprintf(text, size, "%s%.*s%s", a, (int)b.len, b.ptr ? b.ptr : "", c);
    return text;
}

/* No lock may be held: it makes locks. */
static sqlite_file *file_new(cf_slice path, const sqlite_options *options)
{
    sqlite_file *file = cf_zalloc(real(), sizeof *file);
    if (!file) return NULL;
    file->options = *options;
    file->users = 1;
    file->generation = cf_fork_generation();
    cf_link_init(&file->link);
    cf_link_init(&file->links);
    cf_link_init(&file->queue);
    cf_link_init(&file->group);
    file->lock = cf_mutex_new(real());
    /* A name must not look like a URI to SQLite. */
    const char *here = path.len && path.ptr[0] != '/' ? "./" : "";
    file->path = joined(here, path, "");
    file->reserve = joined(here, path, "-reserve");
    if (file->lock && file->path && file->reserve && sqlite_link_init(file, &file->writer) == CF_OK) return file;
    if (file->lock) cf_mutex_free(real(), file->lock);
    cf_release(real(), file->path);
    cf_release(real(), file->reserve);
    cf_release(real(), file);
    return NULL;
}

static int refuse(cf_error *error, int status, const char *text) { return cf_error_set(error, status, CF_NOT_APPLIED, "sqlite: %s", text); }

static int blame_system(cf_error *error, const char *what)
{
    int why = errno;
    if (why == ENOENT) return refuse(error, CF_EINVAL, "the folder of the database does not exist: make it, or name another");
    if (why == EACCES || why == EPERM) return refuse(error, CF_EUNAVAILABLE, "this user may not make or read the database there");
    if (why == EROFS) return refuse(error, CF_EUNAVAILABLE, "the file system of the database is read-only");
    if (why == ENAMETOOLONG) return refuse(error, CF_EINVAL, "the path of the database is longer than the system allows");
    if (why == ENOTDIR) return refuse(error, CF_EINVAL, "a part of the path of the database is no folder");
    if (why == ENOSPC || why == EDQUOT) return refuse(error, CF_EUNAVAILABLE, "the disk is full");
    return cf_error_set(error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "sqlite: %s (errno %d)", what, why);
}

/* Makes the file where there is none, so that it is nobody else's from its first moment on. */
static int secure(const cf_platform *platform, const char *path, const sqlite_options *options, cf_file *is, cf_error *error)
{
    if (platform->file_look(platform->self, path, is) != 0) {
        if (errno != ENOENT) return blame_system(error, "the database file could not be looked at");
        if (platform->file_create(platform->self, path, 0) != 0 && errno != EEXIST) return blame_system(error, "the database file could not be made");
        if (platform->file_look(platform->self, path, is) != 0) return blame_system(error, "the database file could not be looked at");
    }
    if (!is->regular) return refuse(error, CF_EINVAL, "the database is not a regular file: links, folders and devices are not followed");
    if (is->remote && !options->remote)
        return refuse(error, CF_EINVAL, "the database is on a network file system, whose locks cannot be relied on: put it on a local disk, or insist with remote=on");
    return CF_OK;
}

static sqlite_file *find(const cf_file *is)
{
    for (cf_link *link = files.next; link != &files; link = link->next) {
        sqlite_file *file = CF_OF_LINK(link, sqlite_file, link);
        if (file->device == is->device && file->node == is->node && file->users && !file->gone) return file;
    }
    return NULL;
}

/* Another SQLite in this process (the host's own, a second copy of this library) has the file: locks are the process's, so neither would see those of the
 * other, and each would write where the other maps. With CF_LOCK_SQLITE held; one of ours that is just being closed is among the files. */
static bool held_by_others(const cf_platform *platform, const cf_file *is)
{
    for (cf_link *link = files.next; link != &files; link = link->next) {
        sqlite_file *file = CF_OF_LINK(link, sqlite_file, link);
        if (file->device == is->device && file->node == is->node) return false;
    }
    return platform->file_held(platform->self, is->device, is->node) == 1;
}

static int blame(cf_error *error, int code, const char *why)
{
    const char *text;
    int status = sqlite_status(code, &text);
    if (why) return refuse(error, CF_EINVAL, why);
    return refuse(error, status, text);
}

/* With CF_LOCK_SQLITE held. */
static int open_first(cf_loop *loop, sqlite_file *file, cf_error *error)
{
    const char *why;
    int rc = open_link(file, &file->writer, &why);
    bool no_room = (rc & 0xff) == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR; /* of memory that is shared by a file SQLite says only that */
    if (no_room && sqlite_reserve_release(file, cf_monotonic(cf_loop_platform(loop)))) rc = open_link(file, &file->writer, &why);
    if (rc != SQLITE_OK) return blame(error, rc, why);
    if (!*file->path) return CF_OK;
    /* Links that are opened later must find the same file from any folder. */
    const char *whole = sqlite3_db_filename(file->writer.db, "main");
    if (whole && *whole && strcmp(whole, file->path) != 0) {
        char *path = joined("", cf_text(whole), ""), *reserve = joined("", cf_text(whole), "-reserve");
        if (!path || !reserve) {
            cf_release(real(), path);
            cf_release(real(), reserve);
            return refuse(error, CF_ENOMEM, "no memory for a path");
        }
        cf_release(real(), file->path);
        cf_release(real(), file->reserve);
        file->path = path;
        file->reserve = reserve;
    }
    sqlite_reserve_fill(file, cf_monotonic(cf_loop_platform(loop)));
    return CF_OK;
}

int sqlite_file_open(cf_loop *loop, cf_slice path, const sqlite_options *options, sqlite_file **out, cf_error *error)
{
    const cf_platform *platform = cf_loop_platform(loop);
    bool in_memory = cf_slice_equal(path, cf_text(":memory:"));
    *out = NULL;
    sqlite_file *fresh = file_new(in_memory ? cf_text("") : path, options), *file = fresh;
    if (!fresh) return refuse(error, CF_ENOMEM, "no memory for a database");
    int     rc = CF_OK;
    cf_file is;
    sqlite_file_forked(fresh);
    cf_lock(CF_LOCK_SQLITE);
    if (!in_memory) {
        rc = secure(platform, fresh->path, options, &is, error);
        sqlite_file *there = rc == CF_OK ? find(&is) : NULL;
        if (there) {
            if (there->options.normal != options->normal || there->options.alone != options->alone)
                rc = refuse(error, CF_EINVAL, "this process has that database open with other options");
            else there->users++;
            file = there;
        } else if (rc == CF_OK && held_by_others(platform, &is)) {
            rc = refuse(error, CF_EINVAL, "something else in this process has that database open, another SQLite library or another copy of this one, which would undo its "
                                          "locks: open it in one place only, or from another process");
        }
    }
    if (rc == CF_OK && file == fresh) {
        if (!in_memory) {
            fresh->device = is.device;
            fresh->node = is.node;
        }
        rc = open_first(loop, fresh, error);
        if (rc == CF_OK && !in_memory) cf_link_append(&files, &fresh->link);
    }
    cf_unlock(CF_LOCK_SQLITE);
    if (rc != CF_OK || file != fresh) file_free(fresh);
    if (rc != CF_OK) return rc;
    *out = file;
    return CF_OK;
}

void sqlite_file_close(sqlite_file *file)
{
    cf_lock(CF_LOCK_SQLITE);
    bool last = --file->users == 0;
    cf_unlock(CF_LOCK_SQLITE);
    if (!last) return;
    sqlite_file_forked(file);
    cf_mutex_lock(file->lock);
    file->ending = true;
    cf_mutex_tell(file->lock);
    while (file->worker) cf_mutex_wait(file->lock, LOOK_MS);
    cf_mutex_unlock(file->lock);
    file_free(file);
}

/* With file->lock held. */
static void forget_parent(sqlite_file *file)
{
    if (file->generation == cf_fork_generation()) return;
    /* Nobody was inside SQLite when the process forked (link->using), and nobody here uses what was inherited. Closing frees memory and descriptors; it
     * takes no lock from the parent, and writes nothing. What is in memory alone stays: it is the child's own copy. */
    for (cf_link *link = file->links.next; *file->path && link != &file->links; link = link->next)
        sqlite_link_close(CF_OF_LINK(link, sqlite_link, link), false);
    while (!cf_link_alone(&file->queue)) cf_link_remove(file->queue.next); /* their owners have them in their own lists */
    while (!cf_link_alone(&file->group)) cf_link_remove(file->group.next);
    file->leading = file->worker = false;
    file->generation = cf_fork_generation();
}

void sqlite_file_forked(sqlite_file *file)
{
    /* All files, also one that a thread of the parent was just closing: as long as SQLite has one inherited connection, it believes that this process
     * has the locks which the parent has. */
    cf_lock(CF_LOCK_SQLITE);
    for (cf_link *link = files.next; link != &files; link = link->next) {
        sqlite_file *each = CF_OF_LINK(link, sqlite_file, link);
        cf_mutex_lock(each->lock);
        forget_parent(each);
        cf_mutex_unlock(each->lock);
    }
    cf_unlock(CF_LOCK_SQLITE);
    cf_mutex_lock(file->lock); /* in memory it is not among them */
    forget_parent(file);
    cf_mutex_unlock(file->lock);
}

bool sqlite_file_there(sqlite_file *file, int64_t now)
{
    if (file->gone) return false;
    if (!*file->path || now - file->looked_ms < LOOK_MS) return true;
    file->looked_ms = now;
    return same(file);
}

/* ----------------------------------------------------------------------------------------------------------- reserve --
 * Some space that is let go of when the disk is full, so that what removes can still be written down. */

bool sqlite_reserve_release(sqlite_file *file, int64_t now)
{
    file->filled_ms = now;
    if (!*file->path || real()->file_remove(real()->self, file->reserve) != 0) return false;
    file->full = true;
    return true;
}

/* The file gets its space when a page is committed, not when the page is carried over from the WAL: so a full disk is found while the change can still be
 * refused, and the WAL can always be emptied and used again. */
int sqlite_room_take(sqlite_file *file, sqlite_link *link)
{
    sqlite3_stmt *ask_pages;
    int64_t       pages = 0;
    if (!*file->path) return SQLITE_OK;
    int rc = sqlite_prepare(link, SQL_PAGES, &ask_pages);
    if (rc != SQLITE_OK) return rc;
    if (sqlite3_step(ask_pages) == SQLITE_ROW) pages = sqlite3_column_int64(ask_pages, 0);
    rc = sqlite3_reset(ask_pages);
    if (rc != SQLITE_OK || pages <= file->pages) return rc;
    sqlite3_int64 bytes = pages * link->page; /* rounded up to a chunk */
    if (sqlite3_file_control(link->db, "main", SQLITE_FCNTL_SIZE_HINT, &bytes) != SQLITE_OK) return SQLITE_FULL;
    file->pages = (bytes + CHUNK - 1) / CHUNK * CHUNK / link->page;
    return SQLITE_OK;
}

void sqlite_reserve_fill(sqlite_file *file, int64_t now)
{
    if (!*file->path || (file->filled_ms && now - file->filled_ms < (file->full ? REFILL_MS : FILL_MS))) return;
    file->filled_ms = now;
    if (real()->file_create(real()->self, file->reserve, RESERVE) == 0 || errno == EEXIST) file->full = false;
}
