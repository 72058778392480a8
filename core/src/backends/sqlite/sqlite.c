/* sqlite.c: the table of the SQLite backend. */
#include "sqlite.h"

static const cf_platform *of(const cf_backend *self) { return cf_loop_platform(self->loop); }

/* --------------------------------------------------------------------------------------------------------------- jobs -- */

static cf_slice copy(char **at, cf_slice bytes)
{
    if (bytes.len) memcpy(*at, bytes.ptr, bytes.len);
    cf_slice there = cf_bytes(*at, bytes.len);
    *at += bytes.len;
    return there;
}

static sqlite_job *job_new(cf_backend *self, const cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    size_t size = sizeof(sqlite_job) + in->key.len + in->value.len + in->expected.len + in->cursor.len;
    sqlite_job *job = cf_alloc(of(self), size);
    if (!job) return NULL;
    *job = (sqlite_job){.owner = self, .ticket = cf_op_ticket(op), .in = *in, .size = size};
    /* From here on it is an instant: waiting for a lock must not make anything live longer. */
    if (in->ttl_ms) job->expiry = in->flags & CF_EXPIRES_AT ? in->expires_at_ms : cf_wall(of(self)) + in->ttl_ms;
    char *at = (char *)(job + 1);
    job->in.key = copy(&at, in->key);
    job->in.value = copy(&at, in->value);
    job->in.expected = copy(&at, in->expected);
    job->in.cursor = copy(&at, in->cursor);
    cf_link_init(&job->turn);
    cf_link_append(&self->jobs, &job->mine);
    self->queued++;
    self->bytes += size;
    return job;
}

static void job_free(cf_backend *self, sqlite_job *job)
{
    cf_link_remove(&job->mine);
    cf_buffer_free(cf_platform_real(), &job->value);
    cf_buffer_free(cf_platform_real(), &job->cursor);
    self->queued--;
    self->bytes -= job->size;
    cf_release(of(self), job);
}

static int give_records(cf_op *op, const sqlite_job *job)
{
    cf_record record;
    for (size_t at = 0; at < job->value.len;) {
        size_t size = cf_record_unpack(cf_bytes(job->value.ptr + at, job->value.len - at), &record);
        int    rc = size ? cf_op_add_record(op, &record) : cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a record was lost");
        if (rc != CF_OK) return rc;
        at += size;
    }
    return CF_OK;
}

/* What came of a job becomes its operation's answer. */
static int answer(cf_op *op, const sqlite_job *job)
{
    int given = job->status == CF_EEXISTS ? give_records(op, job) : CF_OK;
    if (given != CF_OK) return given;
    if (job->status != CF_OK) return cf_op_fail(op, job->status, job->outcome, "%s", job->text);
    int wrote = sqlite_writes(job) ? CF_APPLIED : CF_NOT_APPLIED;
    cf_op_set_hit(op, job->hit);
    cf_op_set_number(op, job->number);
    int rc = CF_OK;
    if (job->in.kind == CF_OP_SCAN || job->ids) {
        for (size_t at = 0; rc == CF_OK && at < job->value.len;) {
            uint32_t len;
            memcpy(&len, job->value.ptr + at, sizeof len);
            cf_slice text = cf_bytes(job->value.ptr + at + sizeof len, len);
            rc = job->ids ? cf_op_add_id(op, text) : cf_op_add_key(op, text);
            at += sizeof len + len;
        }
        if (rc == CF_OK && job->cursor.len) rc = cf_op_set_cursor(op, cf_bytes(job->cursor.ptr, job->cursor.len));
    } else if (cf_about_records(&job->in)) {
        rc = give_records(op, job);
        if (rc == CF_ECORRUPT && job->hit) return cf_op_fail(op, rc, wrote, "a record in the database is damaged");
    } else if (job->hit && (job->in.kind == CF_OP_GET || job->in.kind == CF_OP_POP)) {
        rc = cf_op_set_value(op, cf_bytes(job->value.ptr, job->value.len));
    }
    if (rc == CF_ENOMEM) return cf_op_fail(op, rc, wrote, "no memory for an answer");
    return rc;
}

void sqlite_results_give(cf_backend *self, sqlite_job *job)
{
    cf_link_append(&self->results, &job->turn);
    if (!self->leads) cf_notice_give(self->notice);
}

static void take_results(void *user)
{
    cf_backend *self = user;
    cf_link     results;
    cf_link_init(&results);
    cf_mutex_lock(self->file->lock);
    cf_link_splice(&results, &self->results);
    cf_mutex_unlock(self->file->lock);
    while (!cf_link_alone(&results)) {
        sqlite_job *job = CF_OF_LINK(results.next, sqlite_job, turn);
        cf_link_remove(&job->turn);
        cf_op *op = job->ticket ? cf_loop_op(self->loop, job->ticket) : NULL;
        if (job->status == CF_OK) self->looked_ms = cf_monotonic(of(self));
        if (op) cf_op_finish(op, answer(op, job));
        job_free(self, job);
    }
}

/* -------------------------------------------------------------------------------------------------------------- slots -- */

/* A caller who waits reads at once, on its own connection, unless it has something in the queue that comes first. */
static bool reads_at_once(const cf_backend *self, const cf_op *op)
{
    int kind = cf_op_in(op)->kind;
    bool reads = kind == CF_OP_GET || kind == CF_OP_SCAN || kind == CF_OP_FIND || kind == CF_OP_LIST;
    return reads && cf_loop_blocking(self->loop) && self->queued == 0 && *self->file->path;
}

static int read_at_once(cf_backend *self, cf_op *op, bool *done)
{
    sqlite_job job = {.owner = self, .in = *cf_op_in(op), .now = cf_wall(of(self))};
    *done = false;
    if (cf_monotonic(of(self)) - self->looked_ms >= 1000) return CF_OK; /* the leader looks whether the file is still there */
    cf_mutex_lock(self->reader.using);
    int rc = sqlite_link_open(self->file, &self->reader);
    if (rc == SQLITE_OK) rc = sqlite_run(&self->reader, &job);
    if (rc != SQLITE_OK) sqlite_link_close(&self->reader, false);
    cf_mutex_unlock(self->reader.using);
    *done = rc == SQLITE_OK; /* else the queue tries again, and has the patience */
    rc = *done ? answer(op, &job) : CF_OK;
    cf_buffer_free(cf_platform_real(), &job.value);
    cf_buffer_free(cf_platform_real(), &job.cursor);
    return rc;
}

static int submit(cf_backend *self, cf_op *op)
{
    bool done = false;
    int  rc = reads_at_once(self, op) ? read_at_once(self, op, &done) : CF_OK;
    if (done || rc < 0) return rc;
    if ((int64_t)self->queued >= self->options.max_pending || (int64_t)self->bytes >= self->options.max_pending_bytes)
        return cf_op_fail(op, CF_EBUSY, CF_NOT_APPLIED, "%lld operations wait for the database already: try later", (long long)self->queued);
    sqlite_job *job = job_new(self, op);
    if (!job) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for an operation");
    cf_op_set_note(op, (uint64_t)(uintptr_t)job);
    cf_link_append(&self->batch, &job->turn);
    return CF_PENDING;
}

static void flush_once(cf_backend *self)
{
    sqlite_file *file = self->file;
    bool         leads = cf_loop_blocking(self->loop);
    cf_mutex_lock(file->lock);
    cf_link_splice(&file->queue, &self->batch);
    /* What another process blocks is the worker's, who has the time. */
    if (!file->leading && !cf_link_alone(&file->queue)) {
        if (leads && !file->blocked_ms) {
            self->leads = true;
            sqlite_group_lead(self->loop, file);
            self->leads = false;
        } else {
            sqlite_group_offer(self->loop, file);
        }
    }
    bool results = !cf_link_alone(&self->results);
    cf_mutex_unlock(file->lock);
    if (leads && results) take_results(self);
}

/* A caller who waits is not told to come again: what results have led to, the next step of a method, is done too. */
static void flush(cf_backend *self)
{
    if (self->queued == 0) return;
    do flush_once(self);
    while (!cf_link_alone(&self->batch) && cf_loop_blocking(self->loop));
}

static int cancel(cf_backend *self, cf_op *op, int why)
{
    sqlite_job  *job = (sqlite_job *)(uintptr_t)cf_op_note(op);
    sqlite_file *file = self->file;
    int          outcome = CF_UNKNOWN;
    if (!job) return outcome; /* dropped in a fork */
    cf_mutex_lock(file->lock);
    job->ticket = 0; /* what comes of it finds nobody */
    bool waits = job->state == JOB_WAITS, blocked = file->blocked_ms != 0;
    if (job->state == JOB_RAN) outcome = job->status == CF_OK ? CF_APPLIED : job->outcome;
    if (waits) cf_link_remove(&job->turn);
    int  none = CLAIM_NONE;
    bool begun = !waits && !atomic_compare_exchange_strong(&job->claim, &none, CLAIM_GIVEN_UP);
    if (!begun) outcome = job->before ? CF_UNKNOWN : CF_NOT_APPLIED;
    cf_mutex_unlock(file->lock);
    if (!begun && blocked && why == CF_ETIMEOUT)
        cf_op_fail(op, CF_ETIMEOUT, outcome, "another process had the database locked until the deadline passed");
    if (waits) job_free(self, job);
    return outcome;
}

/* ------------------------------------------------------------------------------------------------------ opening, closing -- */

static int refuse(cf_error *error, const char *text) { return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "sqlite: %s", text); }

static int parse_switch(cf_slice value, bool *to, cf_error *error)
{
    *to = cf_slice_equal(value, cf_text("on"));
    return *to || cf_slice_equal(value, cf_text("off")) ? CF_OK : refuse(error, "single_process and remote are on or off");
}

static int parse_count(cf_slice value, int64_t *to, cf_error *error)
{
    if (cf_parse_int(value, to) && *to >= 1 && *to <= INT32_MAX) return CF_OK;
    return refuse(error, "max_pending and max_pending_bytes are numbers from 1 to 2147483647");
}

static int parse_options(const cf_url *url, sqlite_options *options, cf_error *error)
{
    for (size_t i = 0; i < url->option_count; i++) {
        cf_slice name = url->options[i].name, value = url->options[i].value;
        int rc = CF_OK;
        if (cf_slice_equal(name, cf_text("synchronous"))) {
            options->normal = cf_slice_equal(value, cf_text("normal"));
            if (!options->normal && !cf_slice_equal(value, cf_text("full"))) return refuse(error, "synchronous is full or normal");
        } else if (cf_slice_equal(name, cf_text("single_process"))) {
            rc = parse_switch(value, &options->alone, error);
        } else if (cf_slice_equal(name, cf_text("remote"))) {
            rc = parse_switch(value, &options->remote, error);
        } else if (cf_slice_equal(name, cf_text("max_pending"))) {
            rc = parse_count(value, &options->max_pending, error);
        } else if (cf_slice_equal(name, cf_text("max_pending_bytes"))) {
            rc = parse_count(value, &options->max_pending_bytes, error);
        } else {
            return refuse(error, "it knows no such option; known: synchronous, single_process, remote, max_pending, max_pending_bytes");
        }
        if (rc != CF_OK) return rc;
    }
    return CF_OK;
}

static void free_self(cf_backend *self)
{
    if (self->file) {
        sqlite_link_free(self->file, &self->reader);
        sqlite_file_close(self->file);
    }
    cf_notice_free(self->notice);
    cf_release(of(self), self);
}

static int open_url(cf_loop *loop, const cf_url *url, cf_backend **out, cf_error *error)
{
    sqlite_options options = {.max_pending = 10000, .max_pending_bytes = 32 * 1024 * 1024};
    if (url->authority.ptr)
        return refuse(error, "write sqlite:PATH, without //: sqlite:data/app.db from the current folder, sqlite:/var/lib/app.db from the root");
    if (url->path.len == 0) return refuse(error, "the URL names no file: sqlite:PATH, or sqlite::memory:");
    if (url->path.ptr[0] == ':' && !cf_slice_equal(url->path, cf_text(":memory:")))
        return refuse(error, "a path does not start with a colon; in memory it is sqlite::memory:");
    int rc = parse_options(url, &options, error);
    if (rc != CF_OK) return rc;
    cf_backend *self = cf_zalloc(cf_loop_platform(loop), sizeof *self);
    if (!self) return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a store");
    self->loop = loop;
    self->options = options;
    self->looked_ms = INT64_MIN / 2;
    cf_link_init(&self->jobs);
    cf_link_init(&self->batch);
    cf_link_init(&self->results);
    rc = sqlite_file_open(loop, url->path, &options, &self->file, error);
    if (rc == CF_OK && (sqlite_link_init(self->file, &self->reader) != CF_OK || cf_notice_new(loop, take_results, self, &self->notice) != CF_OK))
        rc = cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a store");
    if (rc != CF_OK) free_self(self);
    else *out = self;
    return rc;
}

/* All operations have ended: their jobs are nobody's. */
static void drop_jobs(cf_backend *self)
{
    sqlite_file *file = self->file;
    cf_mutex_lock(file->lock);
    for (cf_link *link = self->jobs.next; link != &self->jobs;) {
        sqlite_job *job = CF_OF_LINK(link, sqlite_job, mine);
        if (job->state == JOB_RUNS) {
            cf_mutex_wait(file->lock, 1000);
            link = self->jobs.next;
            continue;
        }
        link = link->next;
        cf_link_remove(&job->turn);
        cf_mutex_unlock(file->lock);
        job_free(self, job);
        cf_mutex_lock(file->lock);
    }
    cf_mutex_unlock(file->lock);
}

static void forked(cf_backend *self)
{
    sqlite_file *file = self->file;
    sqlite_file_forked(file);
    cf_mutex_lock(file->lock);
    for (cf_link *link = self->jobs.next; link != &self->jobs; link = link->next) {
        sqlite_job *job = CF_OF_LINK(link, sqlite_job, mine);
        cf_op      *op = job->ticket ? cf_loop_op(self->loop, job->ticket) : NULL;
        job->state = JOB_RAN; /* whoever ran it is not here */
        if (op) cf_op_set_note(op, 0);
    }
    cf_mutex_unlock(file->lock);
    drop_jobs(self);
}

static int close_self(cf_backend *self, cf_error *error)
{
    (void)error;
    drop_jobs(self);
    free_self(self);
    return CF_OK;
}

/* What happened in the file since somebody last asked: so that the sum over all who share it is right. */
static void stats(cf_backend *self, cf_stat_fn each, void *user)
{
    sqlite_file *file = self->file;
    cf_mutex_lock(file->lock);
    sqlite_figures_move(&self->figures, &file->figures);
    cf_mutex_unlock(file->lock);
    each(user, "commits", self->figures.commits);
    each(user, "reads", self->figures.reads);
    each(user, "grouped", self->figures.grouped);
    each(user, "waits", self->figures.waits);
    each(user, "swept", self->figures.swept);
}

const cf_backend_table cf_sqlite_table = {
    .size = sizeof(cf_backend_table),
    .name = "sqlite",
    .flags = CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL,
    .open = open_url,
    .close = close_self,
    .flush = flush,
    .cancel = cancel,
    .forked = forked,
    .stats = stats,
    .get = submit,
    .set = submit,
    .del = submit,
    .pop = submit,
    .touch = submit,
    .incr = submit,
    .scan = submit,
    .clear = submit,
    .insert = submit,
    .update = submit,
    .find = submit,
    .list = submit,
    .remove = submit,
};
