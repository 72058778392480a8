/* statements.c: what one operation does inside a transaction. */
#include <string.h>

#include "sqlite.h"

/* ?1 key, ?2 expiry, ?3 value, ?4 now, and what is said there. A row whose expiry has come is absent, whether or not it was swept. */
#define LIVE "ifnull(expiry > ?4, 1)" /* (expiry IS NULL OR expiry > ?4) goes wrong behind RETURNING in SQLite 3.40 */
static const char *const texts[SQL_STATEMENTS] = {
    [SQL_BEGIN_READ] = "BEGIN",
    [SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_GET] = "SELECT value FROM entry WHERE key = ?1 AND " LIVE,
    [SQL_SET] = "INSERT INTO entry(key, expiry, value) VALUES(?1, ?2, ?3)"
                " ON CONFLICT(key) DO UPDATE SET expiry = excluded.expiry, value = excluded.value",
    [SQL_SET_KEEPING] = "INSERT INTO entry(key, expiry, value) VALUES(?1, ?2, ?3)"
                        " ON CONFLICT(key) DO UPDATE SET expiry = iif(" LIVE ", expiry, excluded.expiry), value = excluded.value",
    [SQL_SET_ABSENT] = "INSERT INTO entry(key, expiry, value) VALUES(?1, ?2, ?3)"
                       " ON CONFLICT(key) DO UPDATE SET expiry = excluded.expiry, value = excluded.value WHERE NOT " LIVE,
    /* ?5: keep the expiry; ?6 with ?7: only where this is the value */
    [SQL_SET_WHERE] = "UPDATE entry SET expiry = iif(?5, expiry, ?2), value = ?3 WHERE key = ?1 AND " LIVE " AND (?6 = 0 OR value = ?7)",
    [SQL_DELETE] = "DELETE FROM entry WHERE key = ?1 RETURNING " LIVE,
    [SQL_POP] = "DELETE FROM entry WHERE key = ?1 RETURNING " LIVE ", value",
    [SQL_TOUCH] = "UPDATE entry SET expiry = ?2 WHERE key = ?1 AND " LIVE,
    /* ?1 to before ?2, ?5 at most */
    [SQL_PAGE] = "SELECT key FROM entry WHERE key >= ?1 AND key < ?2 AND " LIVE " ORDER BY key LIMIT ?5",
    [SQL_CLEAR] = "DELETE FROM entry WHERE key IN (SELECT key FROM entry WHERE key >= ?1 AND key < ?2 LIMIT ?5) RETURNING " LIVE,
    [SQL_SWEEP] = "SELECT key, NOT " LIVE " FROM entry WHERE key > ?1 ORDER BY key LIMIT ?5",
    [SQL_PAGES] = "PRAGMA page_count",
    [SQL_EPOCH] = "SELECT epoch FROM session_epoch WHERE prefix = ?1 AND user_id = ?2",
    [SQL_EPOCH_UP] = "INSERT INTO session_epoch(prefix, user_id, epoch) VALUES(?1, ?2, 1) ON CONFLICT(prefix, user_id) DO UPDATE SET epoch = epoch + 1",
};

int sqlite_prepare(sqlite_link *link, sqlite_statement which, sqlite3_stmt **out)
{
    *out = link->statements[which];
    if (*out) return SQLITE_OK;
    int rc = sqlite3_prepare_v3(link->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT, &link->statements[which], NULL);
    *out = link->statements[which];
    return rc;
}

int sqlite_plain(sqlite_link *link, sqlite_statement which)
{
    sqlite3_stmt *statement;
    int rc = sqlite_prepare(link, which, &statement);
    if (rc != SQLITE_OK) return rc;
    sqlite3_step(statement);
    return sqlite3_reset(statement); /* says what went wrong in full */
}

bool sqlite_writes(const sqlite_job *job)
{
    int kind = job->in.kind;
    return kind != CF_OP_GET && kind != CF_OP_SCAN && kind != CF_OP_FIND && kind != CF_OP_LIST;
}

bool sqlite_removes(const sqlite_job *job)
{
    int kind = job->in.kind;
    return kind == CF_OP_DELETE || kind == CF_OP_POP || kind == CF_OP_CLEAR || kind == CF_OP_REMOVE || (kind == CF_OP_UPDATE && sqlite_revokes(job));
}

/* ------------------------------------------------------------------------------------------------------------ errors -- */

int sqlite_status(int code, const char **text)
{
    if (code == SQLITE_READONLY_DBMOVED) return *text = CF_SQLITE_GONE, CF_ECORRUPT;
    switch (code & 0xff) {
    case SQLITE_NOMEM: return *text = "SQLite had no memory", CF_ENOMEM;
    case SQLITE_FULL: return *text = "the disk of the database is full", CF_EUNAVAILABLE;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return *text = "another process has locked the database", CF_EUNAVAILABLE;
    case SQLITE_IOERR: return *text = "the database could not be read or written (an input/output error)", CF_EUNAVAILABLE;
    case SQLITE_READONLY: return *text = "the database or its folder is read-only", CF_EUNAVAILABLE;
    case SQLITE_CANTOPEN:
        return *text = "the database cannot be opened: may this user read and write it, and are there descriptors left (ulimit -n)?", CF_EUNAVAILABLE;
    case SQLITE_PERM:
    case SQLITE_AUTH: return *text = "access to the database was refused", CF_EUNAVAILABLE;
    case SQLITE_TOOBIG: return *text = "SQLite refuses a value of that size", CF_EINVAL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT: return *text = "the database is damaged", CF_ECORRUPT;
    case SQLITE_ERROR:
    case SQLITE_SCHEMA:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH: return *text = "the tables of the database are not as this library made them", CF_ECORRUPT;
    default: return *text = "SQLite failed", CF_EUNAVAILABLE;
    }
}

void sqlite_blame(sqlite_job *job, int code, int outcome)
{
    job->status = sqlite_status(code, &job->text);
    job->outcome = outcome;
}

static int refuse(sqlite_job *job, int status, const char *text)
{
    job->status = status;
    job->outcome = CF_NOT_APPLIED;
    job->text = text;
    return SQLITE_OK; /* the transaction is none the worse for it */
}

static int keep(sqlite_job *job, cf_buffer *where, const void *bytes, size_t len)
{
    if (cf_buffer_append(cf_platform_real(), where, cf_bytes(bytes, len)) == CF_OK) return SQLITE_OK;
    (void)job;
    return SQLITE_NOMEM;
}

int sqlite_keep_text(cf_buffer *page, const void *text, size_t len)
{
    uint32_t size = (uint32_t)len;
    bool     kept = cf_buffer_append(cf_platform_real(), page, cf_bytes(&size, sizeof size)) == CF_OK && cf_buffer_append(cf_platform_real(), page, cf_bytes(text, len)) == CF_OK;
    return kept ? SQLITE_OK : SQLITE_NOMEM;
}

/* ------------------------------------------------------------------------------------------------------------ binding -- */

static void bind_key(sqlite3_stmt *statement, int at, cf_slice key)
{
    sqlite3_bind_text(statement, at, key.len ? key.ptr : "", (int)key.len, SQLITE_STATIC);
}

static void bind_value(sqlite3_stmt *statement, int at, cf_slice value)
{
    sqlite3_bind_blob(statement, at, value.len ? value.ptr : "", (int)value.len, SQLITE_STATIC);
}

static void bind_expiry(sqlite3_stmt *statement, int at, int64_t expiry)
{
    if (expiry) sqlite3_bind_int64(statement, at, expiry);
    else sqlite3_bind_null(statement, at);
}

/* Steps through a statement that gives at most one row; *row: it gave one, and the caller resets. */
static int step(sqlite3_stmt *statement, bool *row)
{
    *row = sqlite3_step(statement) == SQLITE_ROW;
    return *row ? SQLITE_OK : sqlite3_reset(statement);
}

/* Of a statement with RETURNING: the row has been looked at, now it is carried through. */
static int finish(sqlite3_stmt *statement)
{
    while (sqlite3_step(statement) == SQLITE_ROW) {}
    return sqlite3_reset(statement);
}

/* --------------------------------------------------------------------------------------------------------- operations -- */

static int run_get(sqlite_link *link, sqlite_job *job, int64_t now)
{
    sqlite3_stmt *statement;
    int rc = sqlite_prepare(link, SQL_GET, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_key(statement, 1, job->in.key);
    sqlite3_bind_int64(statement, 4, now);
    if ((rc = step(statement, &job->hit)) != SQLITE_OK || !job->hit) return rc;
    int len = sqlite3_column_bytes(statement, 0);
    rc = keep(job, &job->value, sqlite3_column_blob(statement, 0), (size_t)len);
    sqlite3_reset(statement);
    return rc;
}

static int run_set(sqlite_link *link, sqlite_job *job, int64_t now)
{
    const cf_request *in = &job->in;
    bool keeping = in->flags & CF_KEEP_TTL, only_absent = in->flags & CF_IF_ABSENT;
    bool where = in->flags & (CF_IF_PRESENT | CF_IF_EQUAL);
    sqlite3_stmt *statement;
    /* What only an absent key gets has no expiry to keep. */
    int rc = sqlite_prepare(link, where ? SQL_SET_WHERE : only_absent ? SQL_SET_ABSENT : keeping ? SQL_SET_KEEPING : SQL_SET, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_key(statement, 1, in->key);
    bind_expiry(statement, 2, job->expiry);
    bind_value(statement, 3, in->value);
    if (where || only_absent || keeping) sqlite3_bind_int64(statement, 4, now);
    if (where) {
        sqlite3_bind_int(statement, 5, keeping);
        sqlite3_bind_int(statement, 6, (in->flags & CF_IF_EQUAL) != 0);
        bind_value(statement, 7, in->expected);
    }
    bool row;
    rc = step(statement, &row);
    job->hit = rc == SQLITE_OK && sqlite3_changes(link->db) > 0;
    return rc;
}

static int run_delete(sqlite_link *link, sqlite_job *job, int64_t now)
{
    bool pop = job->in.kind == CF_OP_POP, row;
    sqlite3_stmt *statement;
    int rc = sqlite_prepare(link, pop ? SQL_POP : SQL_DELETE, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_key(statement, 1, job->in.key);
    sqlite3_bind_int64(statement, 4, now);
    if ((rc = step(statement, &row)) != SQLITE_OK || !row) return rc;
    job->hit = sqlite3_column_int(statement, 0);
    if (job->hit && pop) rc = keep(job, &job->value, sqlite3_column_blob(statement, 1), (size_t)sqlite3_column_bytes(statement, 1));
    int end = finish(statement);
    return rc != SQLITE_OK ? rc : end;
}

static int run_touch(sqlite_link *link, sqlite_job *job, int64_t now)
{
    sqlite3_stmt *statement;
    bool row;
    int rc = sqlite_prepare(link, SQL_TOUCH, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_key(statement, 1, job->in.key);
    bind_expiry(statement, 2, job->expiry);
    sqlite3_bind_int64(statement, 4, now);
    rc = step(statement, &row);
    job->hit = rc == SQLITE_OK && sqlite3_changes(link->db) > 0;
    return rc;
}

static int run_incr(sqlite_link *link, sqlite_job *job, int64_t now)
{
    sqlite3_stmt *statement;
    int64_t number = 0;
    bool    there;
    int rc = sqlite_prepare(link, SQL_GET, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_key(statement, 1, job->in.key);
    sqlite3_bind_int64(statement, 4, now);
    if ((rc = step(statement, &there)) != SQLITE_OK) return rc;
    if (there) {
        const void *bytes = sqlite3_column_blob(statement, 0);
        bool parsed = cf_parse_int(cf_bytes(bytes, (size_t)sqlite3_column_bytes(statement, 0)), &number);
        sqlite3_reset(statement);
        if (!parsed) return refuse(job, CF_EINVAL, "the value is not a canonical decimal integer");
    }
    if (!cf_counter_sum(&number, job->in.by)) return refuse(job, CF_EINVAL, CF_COUNTER_FULL);
    char text[CF_INT_TEXT];
    size_t len = cf_format_int(number, text);
    if ((rc = sqlite_prepare(link, SQL_SET_KEEPING, &statement)) != SQLITE_OK) return rc;
    bind_key(statement, 1, job->in.key);
    bind_expiry(statement, 2, job->expiry);
    bind_value(statement, 3, cf_bytes(text, len));
    sqlite3_bind_int64(statement, 4, now);
    rc = step(statement, &there);
    job->hit = rc == SQLITE_OK;
    job->number = number;
    return rc;
}

/* The end of a range of keys, which are UTF-8: this byte is in none of them. */
static const char BEYOND[] = "\xff";

static void bind_range(sqlite3_stmt *statement, cf_slice prefix, char *end)
{
    bind_key(statement, 1, prefix);
    if (prefix.len == 0) {
        bind_key(statement, 2, cf_text(BEYOND));
        return;
    }
    memcpy(end, prefix.ptr, prefix.len);
    end[prefix.len - 1]++; /* at most 0xf4 */
    bind_key(statement, 2, cf_bytes(end, prefix.len));
}

/* A cursor is a letter and the last key of the page, without the prefix. */
static int run_scan(sqlite_link *link, sqlite_job *job, int64_t now)
{
    const cf_request *in = &job->in;
    char   end[CF_PREFIX_MAX + CF_KEY_MAX], from[CF_PREFIX_MAX + CF_KEY_MAX + CF_CURSOR_MAX + 1];
    size_t limit = in->limit ? in->limit : CF_SCAN_DEFAULT, count = 0;
    sqlite3_stmt *statement;
    if (in->cursor.len && in->cursor.ptr[0] != 'k') return refuse(job, CF_EINVAL, "the cursor is none that a scan gave");
    int rc = sqlite_prepare(link, SQL_PAGE, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_range(statement, in->key, end);
    if (in->cursor.len) {
        if (in->key.len) memcpy(from, in->key.ptr, in->key.len);
        memcpy(from + in->key.len, in->cursor.ptr + 1, in->cursor.len - 1);
        from[in->key.len + in->cursor.len - 1] = 0; /* behind that key, before the next */
        bind_key(statement, 1, cf_bytes(from, in->key.len + in->cursor.len));
    }
    sqlite3_bind_int64(statement, 4, now);
    sqlite3_bind_int64(statement, 5, (int64_t)limit);
    cf_slice last = {0};
    while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        const void *key = sqlite3_column_blob(statement, 0); /* as text it would be copied, for a terminator */
        uint32_t    len = (uint32_t)sqlite3_column_bytes(statement, 0);
        rc = sqlite_keep_text(&job->value, key, len);
        if (rc == SQLITE_OK) last = cf_bytes(job->value.ptr + job->value.len - len, len);
        count++;
    }
    int end_rc = sqlite3_reset(statement);
    if (rc == SQLITE_OK) rc = end_rc;
    if (rc == SQLITE_OK && count == limit && last.len >= in->key.len && (rc = keep(job, &job->cursor, "k", 1)) == SQLITE_OK)
        rc = keep(job, &job->cursor, last.ptr + in->key.len, last.len - in->key.len);
    job->hit = rc == SQLITE_OK;
    return rc;
}

static int run_clear(sqlite_link *link, sqlite_job *job, int64_t now)
{
    char end[CF_PREFIX_MAX + CF_KEY_MAX];
    sqlite3_stmt *statement;
    int rc = sqlite_prepare(link, SQL_CLEAR, &statement);
    if (rc != SQLITE_OK) return rc;
    bind_range(statement, job->in.key, end);
    sqlite3_bind_int64(statement, 4, now);
    sqlite3_bind_int64(statement, 5, CF_SCAN_MAX);
    int64_t rows = 0, live = 0;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        rows++;
        live += sqlite3_column_int(statement, 0);
    }
    if ((rc = sqlite3_reset(statement)) != SQLITE_OK) return rc;
    job->number += live;
    job->hit = true;
    job->more = rows == CF_SCAN_MAX;
    return rc;
}

int sqlite_run(sqlite_link *link, sqlite_job *job)
{
    int64_t now = job->now;
    job->status = CF_OK;
    job->number = job->before;
    job->hit = job->more = job->ids = false;
    job->value.len = job->cursor.len = 0;
    int rc;
    switch (job->in.kind) {
    case CF_OP_GET: rc = run_get(link, job, now); break;
    case CF_OP_SET: rc = run_set(link, job, now); break;
    case CF_OP_DELETE:
    case CF_OP_POP: rc = run_delete(link, job, now); break;
    case CF_OP_TOUCH: rc = run_touch(link, job, now); break;
    case CF_OP_INCR: rc = run_incr(link, job, now); break;
    case CF_OP_SCAN: rc = run_scan(link, job, now); break;
    case CF_OP_CLEAR: rc = run_clear(link, job, now); break;
    default: rc = sqlite_run_record(link, job); break;
    }
    return rc;
}

int sqlite_sweep(sqlite_link *link, cf_buffer *from, int rows, int64_t now, int64_t *swept)
{
    sqlite3_stmt *look, *remove;
    int rc = sqlite_prepare(link, SQL_SWEEP, &look);
    if (rc == SQLITE_OK) rc = sqlite_prepare(link, SQL_DELETE, &remove);
    if (rc != SQLITE_OK) return rc;
    const cf_platform *platform = cf_platform_real();
    cf_buffer dead = {0};
    bind_key(look, 1, cf_bytes(from->ptr, from->len));
    sqlite3_bind_int64(look, 4, now);
    sqlite3_bind_int(look, 5, rows);
    int     count = 0;
    cf_slice last = {0};
    cf_buffer next = {0};
    while (rc == SQLITE_OK && sqlite3_step(look) == SQLITE_ROW) {
        uint32_t len = (uint32_t)sqlite3_column_bytes(look, 0);
        last = cf_bytes(sqlite3_column_blob(look, 0), len);
        next.len = 0;
        if (++count == rows && cf_buffer_append(platform, &next, last) != CF_OK) rc = SQLITE_NOMEM;
        if (!sqlite3_column_int(look, 1)) continue;
        if (cf_buffer_append(platform, &dead, cf_bytes(&len, sizeof len)) != CF_OK || cf_buffer_append(platform, &dead, last) != CF_OK) rc = SQLITE_NOMEM;
    }
    int end = sqlite3_reset(look);
    if (rc == SQLITE_OK) rc = end;
    for (size_t at = 0; rc == SQLITE_OK && at < dead.len;) {
        uint32_t len;
        memcpy(&len, dead.ptr + at, sizeof len);
        bind_key(remove, 1, cf_bytes(dead.ptr + at + sizeof len, len));
        sqlite3_bind_int64(remove, 4, now);
        rc = finish(remove);
        at += sizeof len + len;
        ++*swept;
    }
    cf_buffer_free(platform, &dead);
    cf_buffer_free(platform, from);
    if (rc == SQLITE_OK && count == rows) *from = next; /* else from the start again */
    else cf_buffer_free(platform, &next);
    return rc;
}
