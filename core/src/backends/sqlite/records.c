/* records.c: what one record operation does inside a transaction: accounts and session records, in tables that anybody can read with SQL. */
#include <stdio.h>

#include "sqlite.h"

/* A refusal: job->status says which, and the transaction goes on without this job, which has written nothing. */
enum { REFUSED = SQLITE_DONE };

static const bool nullable[CF_KINDS][CF_FIELDS_MAX] = {
#define CF_FIELD(KIND, NAME, name, type, null) [CF_##KIND][CF_##KIND##_##NAME] = null,
#include "counterfoil/schema.def"
};

/* Sentences of refusals, which must not show what is in a record. */
static const char *const full[CF_KINDS] = {
#define CF_KIND(KIND, name, unique, unique2, listing, parent) [CF_##KIND] = "there are as many records of the kind " #name " as are allowed",
#include "counterfoil/schema.def"
};
static const char *const orphaned[CF_KINDS] = {
#define CF_KIND(KIND, name, unique, unique2, listing, parent) [CF_##KIND] = "the record that this " #name " belongs to is not there",
#include "counterfoil/schema.def"
};

static bool is_text(int kind, int at) { return cf_field_type_of(kind, at) <= CF_SECRET; }
static int  epoch_field(int kind) { return cf_field_named(kind, cf_text("epoch")); }
static bool is_key(int kind, int at)
{
    const cf_kind *of = cf_kind_of(kind);
    return at == of->unique[0] || at == of->unique[1] || at == of->listing;
}

/* --------------------------------------------------------------------------------------------------------------- SQL --
 * Of one form for every kind: ?1 is the prefix, or the row where there is one; ?2 and ?3 what is looked for; ?4 now. Columns come from ?5 on. */

typedef struct sql {
    char   text[4096];
    size_t len;
} sql;

static void add(sql *to, const char *format, ...) CF_PRINTF(2, 3);
static void add(sql *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(to->text + to->len, sizeof to->text - to->len, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof to->text - to->len) to->len = sizeof to->text - 1; /* which SQLite will not understand */
    else to->len += (size_t)len;
}

#define ALIVE "ifnull(record_expiry > ?4, 1)"
enum { COLUMNS_FROM = 5 };

static void add_columns(sql *to, int kind)
{
    for (int i = 0; cf_field_name(kind, i); i++) add(to, ", %s", cf_field_name(kind, i));
}

static void add_group(sql *to, int kind) { add(to, " WHERE prefix = ?1 AND %s = ?2", cf_field_name(kind, cf_kind_of(kind)->listing)); }

/* Of two parameters for each column the first says whether the second counts. */
static void add_changes(sql *to, int kind, bool keys)
{
    const char *comma = "";
    for (int i = 1; cf_field_name(kind, i); i++) {
        if (is_key(kind, i) != keys) continue;
        add(to, "%s%s = iif(?%d, ?%d, %s)", comma, cf_field_name(kind, i), COLUMNS_FROM + 2 * i, COLUMNS_FROM + 2 * i + 1, cf_field_name(kind, i));
        comma = ", ";
    }
}

static void write_sql(sql *to, int kind, sqlite_record_statement which)
{
    const cf_kind *of = cf_kind_of(kind);
    const char    *ended = cf_field_named(kind, cf_text("revoked_at")) >= 0 ? "(revoked_at IS NOT NULL OR expires_at < ?3)" : "NULL"; /* a number would be a column's */
    to->len = 0;
    switch (which) {
    case REC_BY_ID:
    case REC_BY_UNIQUE:
    case REC_GROUP:
        add(to, "SELECT rowid, " ALIVE);
        add_columns(to, kind);
        add(to, " FROM %s", of->name);
        if (which == REC_GROUP) {
            add_group(to, kind);
            add(to, " AND " ALIVE " LIMIT %d", CF_SESSIONS_MOST);
            break;
        }
        add(to, " WHERE prefix = ?1 AND %s = ?2", cf_field_name(kind, which == REC_BY_ID ? 0 : of->unique[0]));
        if (which == REC_BY_UNIQUE && of->unique[1] >= 0) add(to, " AND %s = ?3", cf_field_name(kind, of->unique[1]));
        break;
    case REC_IDS: /* in the order of the primary key: ?2 is the last one of the page before */
        add(to, "SELECT id FROM %s WHERE prefix = ?1 AND id > ?2 AND " ALIVE " ORDER BY id LIMIT ?5", of->name);
        break;
    case REC_COUNT: /* in the index alone: those too that have expired */
        add(to, "SELECT count(*) FROM %s", of->name);
        add_group(to, kind);
        break;
    case REC_COUNT_ALIVE:
        add(to, "SELECT count(*) FROM %s", of->name);
        add_group(to, kind);
        add(to, " AND " ALIVE);
        break;
    case REC_LAST_OUT:
        add(to, "SELECT %s FROM %s", ended, of->name);
        add_group(to, kind);
        add(to, " AND " ALIVE " ORDER BY 1 DESC, created_at, id LIMIT 1 OFFSET ?5 - 1");
        break;
    case REC_DELETE_FIRST: /* all of them at once: one after the other each would sort the group again */
        add(to, "DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %s", of->name, of->name);
        add_group(to, kind);
        add(to, " AND " ALIVE " ORDER BY %s DESC, created_at, id LIMIT ?5)", ended);
        break;
    case REC_INSERT:
        add(to, "INSERT INTO %s(prefix, record_expiry", of->name);
        add_columns(to, kind);
        add(to, ") VALUES(?1, ?2");
        for (int i = 0; cf_field_name(kind, i); i++) add(to, ", ?%d", COLUMNS_FROM + i);
        add(to, ")");
        break;
    case REC_UPDATE:
    case REC_UPDATE_EXPIRY:
    case REC_UPDATE_KEYS:
        add(to, "UPDATE %s SET ", of->name);
        add_changes(to, kind, which == REC_UPDATE_KEYS);
        if (which == REC_UPDATE_EXPIRY) add(to, ", record_expiry = ?2"); /* alone: it is in an index */
        add(to, " WHERE rowid = ?1");
        break;
    case REC_DELETE: add(to, "DELETE FROM %s WHERE rowid = ?1", of->name); break;
    case REC_DELETE_GROUP:
        add(to, "DELETE FROM %s", of->name);
        add_group(to, kind);
        break;
    default: /* REC_SWEEP: ?2 at most */
        add(to, "DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %s WHERE record_expiry <= ?4 LIMIT ?2)", of->name, of->name);
        break;
    }
}

static int prepare(sqlite_link *link, int kind, sqlite_record_statement which, sqlite3_stmt **out)
{
    sqlite3_stmt **place = &link->records[kind][which];
    int            rc = SQLITE_OK;
    if (!*place) {
        sql text;
        write_sql(&text, kind, which);
        rc = sqlite3_prepare_v3(link->db, text.text, -1, SQLITE_PREPARE_PERSISTENT, place, NULL);
    }
    *out = *place;
    return rc;
}

static int run_sql(sqlite3 *db, const sql *text) { return sqlite3_exec(db, text->text, NULL, NULL, NULL); }

int sqlite_records_make(sqlite3 *db)
{
    int rc = SQLITE_OK;
    for (int kind = 0; kind < CF_KINDS && rc == SQLITE_OK; kind++) {
        const cf_kind *of = cf_kind_of(kind);
        sql            text = {.len = 0};
        add(&text, "CREATE TABLE %s(prefix TEXT NOT NULL, record_expiry INTEGER", of->name);
        for (int i = 0; cf_field_name(kind, i); i++)
            add(&text, ", %s %s%s", cf_field_name(kind, i), is_text(kind, i) ? "TEXT" : "INTEGER", nullable[kind][i] ? "" : " NOT NULL");
        add(&text, ", PRIMARY KEY(prefix, id)) STRICT;");
        add(&text, "CREATE UNIQUE INDEX %s_unique ON %s(prefix, %s%s%s);", of->name, of->name, cf_field_name(kind, of->unique[0]), of->unique[1] >= 0 ? ", " : "",
            of->unique[1] >= 0 ? cf_field_name(kind, of->unique[1]) : "");
        if (of->listing >= 0) add(&text, "CREATE INDEX %s_listing ON %s(prefix, %s);", of->name, of->name, cf_field_name(kind, of->listing));
        add(&text, "CREATE INDEX %s_expiry ON %s(record_expiry) WHERE record_expiry IS NOT NULL", of->name, of->name);
        rc = run_sql(db, &text);
    }
    if (rc != SQLITE_OK) return rc;
    return sqlite3_exec(db, "CREATE TABLE session_epoch(prefix TEXT NOT NULL, user_id TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY(prefix, user_id)) STRICT, WITHOUT ROWID",
                        NULL, NULL, NULL);
}

/* ----------------------------------------------------------------------------------------------------------- one job -- */

typedef struct run {
    sqlite_link *link;
    sqlite_job  *job;
    cf_plan      plan;
} run;

typedef struct row {
    bool    there, alive;
    int64_t id;
} row;

static int refuse(run *r, int status, const char *text)
{
    r->job->status = status;
    r->job->outcome = CF_NOT_APPLIED;
    r->job->text = text;
    return REFUSED;
}

static void bind_text(sqlite3_stmt *statement, int at, cf_slice text)
{
    sqlite3_bind_text(statement, at, text.len ? text.ptr : "", (int)text.len, SQLITE_STATIC);
}

static void bind_field(sqlite3_stmt *statement, int at, int kind, int field, const cf_field *value)
{
    if (value->is != CF_GIVEN) sqlite3_bind_null(statement, at);
    else if (is_text(kind, field)) bind_text(statement, at, value->text);
    else sqlite3_bind_int64(statement, at, value->number);
}

static void bind_expiry(sqlite3_stmt *statement, int at, int64_t expiry)
{
    if (expiry > 0) sqlite3_bind_int64(statement, at, expiry);
    else sqlite3_bind_null(statement, at);
}

static int carry_out(sqlite3_stmt *statement)
{
    sqlite3_step(statement);
    return sqlite3_reset(statement);
}

/* A statement about one prefix, ready to step. */
static int begin(run *r, int kind, sqlite_record_statement which, cf_slice first, cf_slice second, sqlite3_stmt **out)
{
    int rc = prepare(r->link, kind, which, out);
    if (rc != SQLITE_OK) return rc;
    bind_text(*out, 1, r->job->in.key);
    bind_text(*out, 2, first);
    if (second.len) bind_text(*out, 3, second);
    if (sqlite3_bind_parameter_count(*out) >= 4) sqlite3_bind_int64(*out, 4, r->job->now);
    return rc;
}

/* A column as a field; false: its type is not the schema's. Slices into SQLite's memory. */
static bool read_field(sqlite3_stmt *statement, int at, int kind, int field, cf_field *to)
{
    int type = sqlite3_column_type(statement, at);
    *to = (cf_field){.is = type == SQLITE_NULL ? CF_NULL : CF_GIVEN};
    if (type == SQLITE_NULL) return nullable[kind][field];
    if (!is_text(kind, field)) {
        to->number = sqlite3_column_int64(statement, at);
        return type == SQLITE_INTEGER;
    }
    const void *text = sqlite3_column_blob(statement, at); /* as text it would be copied, for a terminator */
    to->text = cf_bytes(text, (size_t)sqlite3_column_bytes(statement, at));
    return type == SQLITE_TEXT;
}

enum { FIRST_COLUMN = 2 }; /* behind the row and whether it is alive */

static int append(cf_buffer *to, const cf_record *record)
{
    size_t size = cf_record_size(record);
    if (to->len + size > INT32_MAX || cf_buffer_reserve(cf_platform_real(), to, to->len + size) != CF_OK) return SQLITE_NOMEM;
    cf_record_pack(record, to->ptr + to->len);
    to->len += size;
    return SQLITE_OK;
}

static int take_record(run *r, sqlite3_stmt *statement, int kind, cf_buffer *to)
{
    cf_record record = {.kind = kind};
    for (int i = 0; cf_field_name(kind, i); i++)
        if (!read_field(statement, FIRST_COLUMN + i, kind, i, &record.fields[i])) return refuse(r, CF_ECORRUPT, "a record in the database is damaged");
    return append(to, &record);
}

/* Looks for one record; it is appended to `to` (NULL: it is not wanted) where it is alive. */
static int look(run *r, int kind, sqlite_record_statement which, cf_slice first, cf_slice second, cf_buffer *to, row *found)
{
    sqlite3_stmt *statement;
    *found = (row){0};
    int rc = begin(r, kind, which, first, second, &statement);
    if (rc != SQLITE_OK) return rc;
    if (sqlite3_step(statement) != SQLITE_ROW) return sqlite3_reset(statement);
    *found = (row){true, sqlite3_column_int(statement, 1), sqlite3_column_int64(statement, 0)};
    if (found->alive && to) rc = take_record(r, statement, kind, to);
    sqlite3_reset(statement);
    return rc;
}

static int remove_row(run *r, int kind, int64_t id)
{
    sqlite3_stmt *statement;
    int rc = prepare(r->link, kind, REC_DELETE, &statement);
    if (rc != SQLITE_OK) return rc;
    sqlite3_bind_int64(statement, 1, id);
    return carry_out(statement);
}

/* One number; 0 where there is no row. */
static int ask(sqlite3_stmt *statement, int64_t *number)
{
    *number = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    return sqlite3_reset(statement);
}

static int begin_epoch(run *r, sqlite_statement which, cf_slice group, sqlite3_stmt **out)
{
    int rc = sqlite_prepare(r->link, which, out);
    if (rc != SQLITE_OK) return rc;
    bind_text(*out, 1, r->job->in.key);
    bind_text(*out, 2, group);
    return rc;
}

static int read_epoch(run *r, int kind, cf_slice group, int64_t *epoch)
{
    sqlite3_stmt *statement;
    *epoch = 0;
    if (epoch_field(kind) < 0) return SQLITE_OK;
    int rc = begin_epoch(r, SQL_EPOCH, group, &statement);
    return rc == SQLITE_OK ? ask(statement, epoch) : rc;
}

static int raise_epoch(run *r, int kind, cf_slice group)
{
    sqlite3_stmt *statement;
    if (epoch_field(kind) < 0) return SQLITE_OK;
    int rc = begin_epoch(r, SQL_EPOCH_UP, group, &statement);
    return rc == SQLITE_OK ? carry_out(statement) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ unique -- */

static bool has_unique(const cf_record *record)
{
    const cf_kind *of = cf_kind_of(record->kind);
    return record->fields[of->unique[0]].is == CF_GIVEN && (of->unique[1] < 0 || record->fields[of->unique[1]].is == CF_GIVEN);
}

/* Refuses where another record (than `self`, if that is one) has the unique fields: that one is the answer. One that has expired gives way. */
static int check_unique(run *r, const cf_record *record, const row *self)
{
    const cf_kind *of = cf_kind_of(record->kind);
    row            found;
    cf_buffer      answer = {0};
    if (!has_unique(record)) return SQLITE_OK;
    cf_slice second = of->unique[1] >= 0 ? record->fields[of->unique[1]].text : cf_bytes(NULL, 0);
    int rc = look(r, record->kind, REC_BY_UNIQUE, record->fields[of->unique[0]].text, second, &answer, &found);
    bool other = found.there && !(self && self->id == found.id);
    if (rc == SQLITE_OK && other && found.alive) {
        cf_buffer before = r->job->value; /* what `record` may point into */
        r->job->value = answer;
        answer = before;
        rc = refuse(r, CF_EEXISTS, "it is there already"); /* the core says what */
    } else if (rc == SQLITE_OK && other) {
        rc = remove_row(r, record->kind, found.id);
    }
    cf_buffer_free(cf_platform_real(), &answer);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ insert -- */

/* The same id: this very insert was asked before, and is answered as it was then. */
static int check_id(run *r, const cf_record *record)
{
    row       found;
    cf_buffer there = {0};
    cf_record is;
    int rc = look(r, record->kind, REC_BY_ID, record->fields[0].text, cf_bytes(NULL, 0), &there, &found);
    if (rc == SQLITE_OK && found.alive) {
        int epoch = epoch_field(record->kind);
        if (epoch >= 0 && cf_record_unpack(cf_bytes(there.ptr, there.len), &is)) r->job->number = is.fields[epoch].number;
        r->job->hit = true;
        rc = REFUSED; /* with CF_OK */
    } else if (rc == SQLITE_OK && found.there) {
        rc = remove_row(r, record->kind, found.id);
    }
    cf_buffer_free(cf_platform_real(), &there);
    return rc;
}

static int check_parent(run *r, const cf_record *record)
{
    const cf_kind *of = cf_kind_of(record->kind);
    row            found;
    if (!of->needs_parent) return SQLITE_OK;
    cf_slice group = record->fields[of->listing].text;
    if (record != &r->plan.record && r->plan.record.kind == of->parent && cf_slice_equal(r->plan.record.fields[0].text, group)) return SQLITE_OK;
    int rc = look(r, of->parent, REC_BY_ID, group, cf_bytes(NULL, 0), NULL, &found);
    return rc == SQLITE_OK && !found.alive ? refuse(r, CF_EMISSING, orphaned[record->kind]) : rc;
}

static int count(run *r, int kind, sqlite_record_statement which, cf_slice group, int64_t *number)
{
    sqlite3_stmt *statement;
    int rc = begin(r, kind, which, group, cf_bytes(NULL, 0), &statement);
    return rc == SQLITE_OK ? ask(statement, number) : rc;
}

/* A statement about those that go first: so many. */
static int begin_out(run *r, sqlite_record_statement which, const cf_record *record, int64_t out, sqlite3_stmt **statement)
{
    int rc = begin(r, record->kind, which, record->fields[cf_kind_of(record->kind)->listing].text, cf_bytes(NULL, 0), statement);
    if (rc != SQLITE_OK) return rc;
    sqlite3_bind_int64(*statement, 3, r->plan.now);
    sqlite3_bind_int64(*statement, 5, out);
    return rc;
}

/* Whether there is room for one more in the group, and how many go for it. */
static int check_most(run *r, const cf_record *record, int64_t *out)
{
    cf_slice      group = record->fields[cf_kind_of(record->kind)->listing].text;
    int64_t       there = 0, ended = 0;
    sqlite3_stmt *last;
    *out = 0;
    if (r->plan.most <= 0) return SQLITE_OK;
    int rc = count(r, record->kind, REC_COUNT, group, &there);
    if (rc == SQLITE_OK && there >= r->plan.most) rc = count(r, record->kind, REC_COUNT_ALIVE, group, &there);
    if (rc != SQLITE_OK || there < r->plan.most) return rc;
    *out = there - r->plan.most + 1;
    rc = begin_out(r, REC_LAST_OUT, record, *out, &last);
    if (rc == SQLITE_OK) rc = ask(last, &ended); /* those that have ended come first */
    return rc == SQLITE_OK && !ended && !r->plan.oldest_out ? refuse(r, CF_ELIMIT, full[record->kind]) : rc;
}

static int check_insert(run *r, const cf_record *record, bool last, int64_t *out)
{
    const cf_kind *of = cf_kind_of(record->kind);
    int rc = check_id(r, record);
    if (rc == SQLITE_OK) rc = check_unique(r, record, NULL);
    if (rc == SQLITE_OK) rc = check_parent(r, record);
    if (rc != SQLITE_OK || of->listing < 0) return rc;
    rc = read_epoch(r, record->kind, record->fields[of->listing].text, &r->job->number);
    if (rc == SQLITE_OK && r->plan.epoch >= 0 && r->plan.epoch != r->job->number)
        rc = refuse(r, CF_ECHANGED, "the sessions of this user were all revoked since this login began");
    if (rc == SQLITE_OK && last) rc = check_most(r, record, out);
    return rc;
}

static int write_record(run *r, const cf_record *record)
{
    sqlite3_stmt *statement;
    int rc = prepare(r->link, record->kind, REC_INSERT, &statement), epoch = epoch_field(record->kind);
    if (rc != SQLITE_OK) return rc;
    bind_text(statement, 1, r->job->in.key);
    bind_expiry(statement, 2, r->plan.expiry_ms);
    for (int i = 0; cf_field_name(record->kind, i); i++) bind_field(statement, COLUMNS_FROM + i, record->kind, i, &record->fields[i]);
    if (epoch >= 0) sqlite3_bind_int64(statement, COLUMNS_FROM + epoch, r->job->number);
    return carry_out(statement);
}

static int run_insert(run *r)
{
    const cf_record *with = r->plan.with.kind >= 0 ? &r->plan.with : NULL, *last = with ? with : &r->plan.record;
    sqlite3_stmt *first;
    int64_t out = 0;
    int rc = check_insert(r, &r->plan.record, !with, &out);
    if (rc == SQLITE_OK && with) rc = check_insert(r, with, true, &out);
    /* Nothing has been written before this point. */
    if (rc == SQLITE_OK && out > 0 && (rc = begin_out(r, REC_DELETE_FIRST, last, out, &first)) == SQLITE_OK) rc = carry_out(first);
    if (rc == SQLITE_OK) rc = write_record(r, &r->plan.record);
    if (rc == SQLITE_OK && with) rc = write_record(r, with);
    if (rc == SQLITE_OK) r->job->hit = true;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ update -- */

static int write_changes(run *r, sqlite_record_statement which, int64_t id)
{
    const cf_record *changes = &r->plan.record;
    int              kind = r->plan.kind;
    bool             keys = which == REC_UPDATE_KEYS;
    sqlite3_stmt    *statement;
    int rc = prepare(r->link, kind, which, &statement);
    if (rc != SQLITE_OK) return rc;
    sqlite3_bind_int64(statement, 1, id);
    if (which == REC_UPDATE_EXPIRY) bind_expiry(statement, 2, r->plan.expiry_ms);
    for (int i = 1; cf_field_name(kind, i); i++) {
        if (is_key(kind, i) != keys) continue;
        sqlite3_bind_int(statement, COLUMNS_FROM + 2 * i, changes->fields[i].is != CF_UNSAID);
        bind_field(statement, COLUMNS_FROM + 2 * i + 1, kind, i, &changes->fields[i]);
    }
    return carry_out(statement);
}

static bool equal(const cf_field *a, const cf_field *b)
{
    return a->is == b->is && (a->is != CF_GIVEN || (a->number == b->number && cf_slice_equal(a->text, b->text)));
}

/* True: a field that is in an index changes. */
static bool apply(cf_record *record, const cf_record *changes)
{
    bool keys = false;
    for (int i = 1; cf_field_name(record->kind, i); i++) {
        if (changes->fields[i].is == CF_UNSAID) continue;
        keys = keys || (is_key(record->kind, i) && !equal(&record->fields[i], &changes->fields[i]));
        record->fields[i] = changes->fields[i];
    }
    return keys;
}

static sqlite_record_statement update_of(const run *r) { return r->plan.expiry_ms == -1 ? REC_UPDATE : REC_UPDATE_EXPIRY; }

static int run_update_one(run *r)
{
    row       found;
    cf_record record;
    cf_buffer now = {0};
    bool      keys = false;
    int rc = look(r, r->plan.kind, REC_BY_ID, r->plan.at[0], cf_bytes(NULL, 0), &r->job->value, &found);
    if (rc != SQLITE_OK || !found.alive) return rc;
    if (!cf_record_unpack(cf_bytes(r->job->value.ptr, r->job->value.len), &record)) return SQLITE_CORRUPT;
    if (r->plan.guard >= 0 && !equal(&record.fields[r->plan.guard], &r->plan.equals)) return rc; /* the answer is the record */
    keys = apply(&record, &r->plan.record);
    if (keys) rc = check_unique(r, &record, &found);
    if (rc == SQLITE_OK && keys) rc = write_changes(r, REC_UPDATE_KEYS, found.id);
    if (rc == SQLITE_OK) rc = write_changes(r, update_of(r), found.id);
    if (rc == SQLITE_OK) rc = append(&now, &record);
    if (rc == SQLITE_OK) {
        cf_buffer before = r->job->value;
        r->job->value = now;
        now = before;
        r->job->hit = true;
    }
    cf_buffer_free(cf_platform_real(), &now);
    return rc;
}

/* The rows of a group that are to change: all are found before the first is changed. */
static int find_rows(run *r, cf_buffer *rows)
{
    sqlite3_stmt *statement;
    int kind = r->plan.kind;
    int rc = begin(r, kind, REC_GROUP, r->plan.at[0], cf_bytes(NULL, 0), &statement);
    while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        int64_t  id = sqlite3_column_int64(statement, 0);
        cf_field is;
        bool     sound = read_field(statement, FIRST_COLUMN, kind, 0, &is), wanted = !cf_slice_equal(is.text, r->plan.except);
        if (sound && wanted && r->plan.guard >= 0) {
            sound = read_field(statement, FIRST_COLUMN + r->plan.guard, kind, r->plan.guard, &is);
            wanted = equal(&is, &r->plan.equals);
        }
        if (!sound) rc = refuse(r, CF_ECORRUPT, "a record in the database is damaged");
        else if (wanted && cf_buffer_append(cf_platform_real(), rows, cf_bytes(&id, sizeof id)) != CF_OK) rc = SQLITE_NOMEM;
    }
    int end = sqlite3_reset(statement);
    return rc == SQLITE_OK ? end : rc;
}

static int run_update_group(run *r)
{
    cf_buffer rows = {0};
    for (int i = 0; cf_field_name(r->plan.kind, i); i++)
        if (r->plan.record.fields[i].is != CF_UNSAID && (i == 0 || is_key(r->plan.kind, i))) return refuse(r, CF_EINVAL, "what is unique cannot be set in a whole group");
    int rc = find_rows(r, &rows);
    for (size_t at = 0; rc == SQLITE_OK && at < rows.len; at += sizeof(int64_t)) {
        int64_t id;
        memcpy(&id, rows.ptr + at, sizeof id);
        rc = write_changes(r, update_of(r), id);
    }
    if (rc == SQLITE_OK && r->plan.bump) rc = raise_epoch(r, r->plan.kind, r->plan.at[0]);
    if (rc == SQLITE_OK) {
        r->job->number = (int64_t)(rows.len / sizeof(int64_t));
        r->job->hit = true;
    }
    cf_buffer_free(cf_platform_real(), &rows);
    return rc;
}

/* --------------------------------------------------------------------------------------------------- find, list, remove -- */

static int run_find(run *r)
{
    row found;
    int rc = look(r, r->plan.kind, r->plan.by == CF_BY_UNIQUE ? REC_BY_UNIQUE : REC_BY_ID, r->plan.at[0], r->plan.at[1], &r->job->value, &found);
    r->job->hit = rc == SQLITE_OK && found.alive;
    return rc;
}

static int run_list(run *r)
{
    sqlite3_stmt *statement, *epoch = NULL;
    int kind = r->plan.kind;
    int rc = begin(r, kind, REC_GROUP, r->plan.at[0], cf_bytes(NULL, 0), &statement);
    if (rc == SQLITE_OK && epoch_field(kind) >= 0 && (rc = begin_epoch(r, SQL_EPOCH, r->plan.at[0], &epoch)) == SQLITE_OK) {
        /* Until it is reset both see the same state of the database, also outside of a transaction. */
        if (sqlite3_step(epoch) == SQLITE_ROW) r->job->number = sqlite3_column_int64(epoch, 0);
        else rc = sqlite3_reset(epoch);
    }
    while (rc == SQLITE_OK && !r->plan.number_only && sqlite3_step(statement) == SQLITE_ROW) rc = take_record(r, statement, kind, &r->job->value);
    int end = sqlite3_reset(statement);
    if (epoch) sqlite3_reset(epoch);
    r->job->hit = rc == SQLITE_OK && end == SQLITE_OK;
    return rc == SQLITE_OK ? end : rc;
}

static int run_ids(run *r)
{
    sqlite3_stmt *statement;
    sqlite_job   *job = r->job;
    size_t        count = 0;
    cf_slice      last = {0};
    int rc = begin(r, r->plan.kind, REC_IDS, job->in.cursor, cf_bytes(NULL, 0), &statement);
    if (rc != SQLITE_OK) return rc;
    sqlite3_bind_int64(statement, 5, (int64_t)job->in.limit);
    while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        const void *id = sqlite3_column_blob(statement, 0);
        size_t      len = (size_t)sqlite3_column_bytes(statement, 0);
        rc = sqlite_keep_text(&job->value, id, len);
        if (rc == SQLITE_OK) last = cf_bytes(job->value.ptr + job->value.len - len, len);
        count++;
    }
    int end = sqlite3_reset(statement);
    if (rc == SQLITE_OK) rc = end;
    if (rc == SQLITE_OK && count == job->in.limit && cf_buffer_append(cf_platform_real(), &job->cursor, last) != CF_OK) rc = SQLITE_NOMEM;
    job->ids = true;
    job->hit = rc == SQLITE_OK;
    return rc;
}

static int run_remove(run *r)
{
    row           found;
    sqlite3_stmt *statement;
    int rc = look(r, r->plan.kind, REC_BY_ID, r->plan.at[0], cf_bytes(NULL, 0), NULL, &found);
    if (rc != SQLITE_OK || !found.alive) return rc;
    for (int kind = 0; kind < CF_KINDS && rc == SQLITE_OK; kind++) {
        if (cf_kind_of(kind)->parent != r->plan.kind) continue;
        rc = begin(r, kind, REC_DELETE_GROUP, r->plan.at[0], cf_bytes(NULL, 0), &statement);
        if (rc == SQLITE_OK) rc = carry_out(statement);
        if (rc == SQLITE_OK) rc = raise_epoch(r, kind, r->plan.at[0]);
    }
    if (rc == SQLITE_OK) rc = remove_row(r, r->plan.kind, found.id);
    r->job->hit = rc == SQLITE_OK;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------- entry -- */

static bool sensible(const cf_plan *plan, const sqlite_job *job)
{
    int            kind = job->in.kind;
    const cf_kind *of = cf_kind_of(plan->kind);
    bool changes = kind == CF_OP_INSERT || kind == CF_OP_UPDATE, all = plan->by == CF_BY_ALL;
    bool whole = (kind == CF_OP_LIST && !all) || (kind == CF_OP_UPDATE && plan->by == CF_BY_GROUP);
    if (changes && plan->record.kind != plan->kind) return false;
    if (all && (kind != CF_OP_LIST || !job->in.limit)) return false;
    if (whole && of->listing < 0) return false;
    return !plan->bump || epoch_field(plan->kind) >= 0;
}

int sqlite_run_record(sqlite_link *link, sqlite_job *job)
{
    run r = {.link = link, .job = job};
    int rc;
    if (!cf_plan_read(job->in.value, &r.plan) || !sensible(&r.plan, job)) {
        refuse(&r, CF_EINVAL, "this backend does not understand what is to be done with a record");
        return SQLITE_OK;
    }
    switch (job->in.kind) {
    case CF_OP_INSERT: rc = run_insert(&r); break;
    case CF_OP_UPDATE: rc = r.plan.by == CF_BY_GROUP ? run_update_group(&r) : run_update_one(&r); break;
    case CF_OP_FIND: rc = run_find(&r); break;
    case CF_OP_LIST: rc = r.plan.by == CF_BY_ALL ? run_ids(&r) : run_list(&r); break;
    default: rc = run_remove(&r); break;
    }
    return rc == REFUSED ? SQLITE_OK : rc;
}

bool sqlite_revokes(const sqlite_job *job)
{
    cf_plan plan;
    if (!cf_plan_read(job->in.value, &plan) || plan.kind != CF_SESSION || plan.expiry_ms != -1) return false;
    for (int i = 0; cf_field_name(plan.kind, i); i++)
        if (i != CF_SESSION_REVOKED_AT && plan.record.fields[i].is != CF_UNSAID) return false;
    return true;
}

int sqlite_records_sweep(sqlite_link *link, int rows, int64_t now, int64_t *swept, bool *more)
{
    *more = false;
    for (int kind = 0; kind < CF_KINDS; kind++) {
        sqlite3_stmt *statement;
        int rc = prepare(link, kind, REC_SWEEP, &statement);
        if (rc != SQLITE_OK) return rc;
        sqlite3_bind_int(statement, 2, rows);
        sqlite3_bind_int64(statement, 4, now);
        if ((rc = carry_out(statement)) != SQLITE_OK) return rc;
        int gone = sqlite3_changes(link->db);
        *swept += gone;
        *more = *more || gone == rows;
    }
    return SQLITE_OK;
}
