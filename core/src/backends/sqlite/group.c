/* group.c: the queue of a file, and the one who runs all of it in one transaction. */
#include "sqlite.h"

enum { IDLE_MS = 30000, BLOCKED_FIRST_MS = 2, BLOCKED_MOST_MS = 25, SWEEP_LEAST = 4, SWEEP_MOST = 500, SWEEP_EACH_MS = 1000, GATHER_LEAST_US = 100, GATHER_NAP_US = 25 };
enum { COMMIT_MOST_US = 20000 }; /* as gathering counts one: a disk that stalls once, or a large removal, says nothing of the next commits */

#define EACH_JOB(job, list)                                                                                                         \
    for (sqlite_job *job = CF_OF_LINK((list)->next, sqlite_job, turn), *next_ = CF_OF_LINK(job->turn.next, sqlite_job, turn); &job->turn != (list); \
         job = next_, next_ = CF_OF_LINK(job->turn.next, sqlite_job, turn))

/* What the leader decides for a job of its group: it ran, or runs again with the next group. Its state is for give_results: others look at that. */
static void put_off(sqlite_job *job)
{
    int begun = CLAIM_BEGUN;
    if (!job->before) atomic_compare_exchange_strong(&job->claim, &begun, CLAIM_NONE);
    job->again = true;
}

static void ran(sqlite_job *job)
{
    job->before = job->number;
    job->again = job->more;
}

static void put_off_all(sqlite_file *file)
{
    EACH_JOB(job, &file->group) put_off(job);
}

/* False: its caller has given it up, and was told that it never ran. */
static bool claim(sqlite_job *job)
{
    int was = CLAIM_NONE;
    if (atomic_compare_exchange_strong(&job->claim, &was, CLAIM_BEGUN) || was == CLAIM_BEGUN) return true;
    job->more = false;
    return false;
}

/* Whether a commit that failed with this may have reached the disk. Without space its last frame was not written; all else can fail behind that. */
static bool unknown_commit(int rc)
{
    int kind = rc & 0xff;
    return kind != SQLITE_OK && kind != SQLITE_BUSY && kind != SQLITE_FULL;
}

/* What is left of a full disk is for what removes. */
static bool no_room(const sqlite_file *file, sqlite_job *job)
{
    if (!file->full || !sqlite_writes(job) || sqlite_removes(job)) return false;
    sqlite_blame(job, SQLITE_FULL, CF_NOT_APPLIED);
    job->more = false;
    return true;
}

/* One job in a transaction of its own: after a group was spoilt this tells who spoilt it. */
static int run_alone(sqlite_file *file, sqlite_job *job)
{
    if (no_room(file, job)) return SQLITE_DONE;
    sqlite_link *link = &file->writer;
    bool writes = sqlite_writes(job), more = job->more;
    int rc = sqlite_link_open(file, link);
    if (rc == SQLITE_OK) rc = sqlite_plain(link, writes ? SQL_BEGIN_WRITE : SQL_BEGIN_READ);
    bool unknown = false;
    if (rc == SQLITE_OK && !claim(job)) {
        sqlite_plain(link, SQL_ROLLBACK);
        return SQLITE_DONE;
    }
    if (rc == SQLITE_OK) {
        rc = sqlite_run(link, job);
        if (rc == SQLITE_OK && writes && !sqlite_removes(job)) rc = sqlite_room_take(file, link);
        if (rc == SQLITE_OK) {
            rc = sqlite_plain(link, SQL_COMMIT);
            unknown = writes && unknown_commit(rc);
        }
        if (rc != SQLITE_OK && link->db && !sqlite3_get_autocommit(link->db)) sqlite_plain(link, SQL_ROLLBACK);
    }
    if ((rc & 0xff) == SQLITE_BUSY) {
        job->more = more;
        put_off(job);
        return rc;
    }
    if (rc != SQLITE_OK) {
        job->more = false;
        sqlite_blame(job, rc, unknown || job->before ? CF_UNKNOWN : CF_NOT_APPLIED);
    }
    return rc;
}

static bool spoils_the_link(int rc)
{
    int kind = rc & 0xff;
    return kind == SQLITE_IOERR || kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB || kind == SQLITE_CANTOPEN || kind == SQLITE_PROTOCOL;
}

static bool run_each(sqlite_file *file, int64_t monotonic)
{
    bool blocked = false;
    EACH_JOB(job, &file->group)
    {
        if (blocked) {
            put_off(job); /* each would wait in vain for the same */
            continue;
        }
        int rc = run_alone(file, job);
        if ((rc & 0xff) == SQLITE_FULL && sqlite_removes(job)) {
            sqlite_reserve_release(file, monotonic);
            if (file->writer.db) sqlite3_wal_checkpoint_v2(file->writer.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL); /* then it begins again at its start */
            rc = run_alone(file, job);
        }
        if ((rc & 0xff) == SQLITE_BUSY) blocked = true;
        else ran(job);
        if (spoils_the_link(rc)) sqlite_link_close(&file->writer, false); /* what it has in memory may not be what is on the disk */
    }
    return blocked;
}

/* Another process has the lock: what only reads, and does not follow a write of its own caller, goes on. */
static void run_readers(sqlite_file *file)
{
    sqlite_link *link = &file->writer;
    bool open = sqlite_plain(link, SQL_BEGIN_READ) == SQLITE_OK;
    EACH_JOB(job, &file->group) job->owner->writes = false;
    EACH_JOB(job, &file->group)
    {
        if (sqlite_writes(job)) job->owner->writes = true;
        if (!open || job->owner->writes || !(open = sqlite_run(link, job) == SQLITE_OK)) put_off(job);
        else ran(job);
    }
    if (!sqlite3_get_autocommit(link->db)) sqlite_plain(link, SQL_COMMIT);
}

/* A refusal that may rest on what another job of the group has written. */
static bool decided_inside(const sqlite_job *job)
{
    return job->status == CF_EEXISTS || job->status == CF_EMISSING || job->status == CF_ECHANGED || job->status == CF_ELIMIT;
}

static void blame_all(sqlite_file *file, int code, int outcome)
{
    EACH_JOB(job, &file->group)
    {
        if (decided_inside(job)) sqlite_blame(job, code, CF_NOT_APPLIED);
        else if (job->status == CF_OK) sqlite_blame(job, code, sqlite_writes(job) && (outcome == CF_UNKNOWN || job->before) ? CF_UNKNOWN : CF_NOT_APPLIED);
        job->more = false;
        ran(job);
    }
}

static void refuse_all(sqlite_file *file)
{
    EACH_JOB(job, &file->group)
    {
        job->status = CF_ECORRUPT;
        job->outcome = job->before ? CF_UNKNOWN : CF_NOT_APPLIED;
        job->text = file->gone;
        job->more = false;
        ran(job);
    }
}

/* They have an index for it, so nobody goes round: once in a second it is looked whether there are any. */
static int sweep_records(sqlite_file *file, int rows, int64_t now, int64_t monotonic, int64_t *swept)
{
    if (!file->more_records && file->records_swept_ms && monotonic - file->records_swept_ms < SWEEP_EACH_MS) return SQLITE_OK;
    file->records_swept_ms = monotonic;
    return sqlite_records_sweep(&file->writer, rows, now, swept, &file->more_records);
}

/* Inside SQLite: no lock of ours is taken here. True: another process has the lock. */
static bool run_group(sqlite_file *file, size_t writes, int64_t monotonic)
{
    sqlite_link *link = &file->writer;
    if (!sqlite_file_there(file, monotonic)) {
        refuse_all(file);
        return false;
    }
    if (file->full) sqlite_reserve_fill(file, monotonic);
    int rc = sqlite_link_open(file, link);
    if (rc != SQLITE_OK) {
        if ((rc & 0xff) == SQLITE_BUSY) {
            put_off_all(file);
            return true;
        }
        blame_all(file, rc, CF_NOT_APPLIED);
        return false;
    }
    rc = sqlite_plain(link, writes ? SQL_BEGIN_WRITE : SQL_BEGIN_READ);
    if ((rc & 0xff) == SQLITE_BUSY) {
        run_readers(file);
        return true;
    }
    size_t  jobs = 0;
    int64_t swept = 0;
    if (rc == SQLITE_OK) {
        EACH_JOB(job, &file->group)
        {
            jobs++;
            if (!claim(job) || no_room(file, job)) continue;
            if ((rc = sqlite_run(link, job)) != SQLITE_OK) break;
        }
        int rows = writes * 2 < SWEEP_MOST ? (int)writes * 2 + SWEEP_LEAST : SWEEP_MOST;
        int64_t now = CF_OF_LINK(file->group.next, sqlite_job, turn)->now;
        if (rc == SQLITE_OK && writes) rc = sqlite_sweep(link, &file->swept_to, rows, now, &swept);
        if (rc == SQLITE_OK && writes) rc = sweep_records(file, rows, now, monotonic, &swept);
        if (rc == SQLITE_OK && writes) rc = sqlite_room_take(file, link);
        if (rc == SQLITE_OK) {
            rc = sqlite_plain(link, SQL_COMMIT);
            if (writes && unknown_commit(rc)) {
                sqlite_link_close(link, false);
                blame_all(file, rc, CF_UNKNOWN);
                return false;
            }
        }
    }
    if (rc != SQLITE_OK) {
        if (!sqlite3_get_autocommit(link->db)) sqlite_plain(link, SQL_ROLLBACK);
        if ((rc & 0xff) == SQLITE_BUSY) {
            put_off_all(file);
            return true;
        }
        if (spoils_the_link(rc)) sqlite_link_close(link, false);
        return run_each(file, monotonic);
    }
    EACH_JOB(job, &file->group) ran(job);
    file->news.grouped += (int64_t)jobs;
    file->news.swept += swept;
    if (writes) {
        file->news.commits++;
        sqlite_reserve_fill(file, monotonic);
    } else {
        file->news.reads++;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ leading -- */

void sqlite_figures_move(sqlite_figures *to, sqlite_figures *from)
{
    to->commits += from->commits;
    to->reads += from->reads;
    to->grouped += from->grouped;
    to->waits += from->waits;
    to->swept += from->swept;
    *from = (sqlite_figures){0};
}

/* The group becomes results, or waits again. With file->lock held. */
static void give_results(sqlite_file *file)
{
    cf_link again;
    cf_link_init(&again);
    while (!cf_link_alone(&file->group)) {
        sqlite_job *job = CF_OF_LINK(file->group.next, sqlite_job, turn);
        cf_link_remove(&job->turn);
        if (!job->again || !job->ticket) { /* what nobody waits for any more does not go on */
            job->state = JOB_RAN;
            sqlite_results_give(job->owner, job);
        } else {
            job->state = JOB_WAITS;
            cf_link_append(&again, &job->turn);
        }
    }
    /* Before what has come meanwhile: of one caller's operations none overtakes another. */
    cf_link_splice(file->queue.next, &again);
}

/* How many callers have something in one of these lists. With file->lock held. */
static size_t callers(sqlite_file *file, const cf_link *first, const cf_link *second)
{
    const cf_link *const lists[] = {first, second};
    uint64_t mark = ++file->marks;
    size_t   count = 0;
    for (int i = 0; i < 2 && lists[i]; i++) {
        for (const cf_link *link = lists[i]->next; link != lists[i]; link = link->next) {
            cf_backend *owner = CF_OF_LINK(link, sqlite_job, turn)->owner;
            count += owner->mark != mark;
            owner->mark = mark;
        }
    }
    return count;
}

static bool any_write(const cf_link *list)
{
    for (const cf_link *link = list->next; link != list; link = link->next)
        if (sqlite_writes(CF_OF_LINK(link, sqlite_job, turn))) return true;
    return false;
}

static int64_t clock_us(void) { return cf_monotonic_us(cf_platform_real()); }

/* Those who have just had their answers come again at once: without a short wait they would meet the next commit under way, and many commits would be for one
 * of them. Never for longer than a quarter of a commit, nor where only one caller is there. With file->lock held, but not meanwhile. */
static void gather(sqlite_file *file)
{
    int64_t      now = clock_us(), until = now + file->commit_us / 4;
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    if (file->expected < 2 || until - now < GATHER_LEAST_US || now - file->ended_us > file->commit_us || !vfs || !any_write(&file->queue)) return;
    while (!file->ending && callers(file, &file->queue, NULL) < file->expected && clock_us() < until) {
        cf_mutex_unlock(file->lock);
        vfs->xSleep(vfs, GATHER_NAP_US);
        cf_mutex_lock(file->lock);
    }
}

/* One group. With file->lock held, but not while it runs. True: blocked by another process. */
static bool lead_once(sqlite_file *file)
{
    size_t writes = 0;
    int64_t monotonic = 0;
    gather(file);
    if (cf_link_alone(&file->queue)) return false; /* whoever was there has given it up meanwhile */
    for (cf_link *link = file->queue.next; link != &file->queue; link = link->next) {
        sqlite_job *job = CF_OF_LINK(link, sqlite_job, turn);
        const cf_platform *platform = cf_loop_platform(job->owner->loop);
        job->state = JOB_RUNS;
        job->now = cf_wall(platform);
        monotonic = cf_monotonic(platform);
        writes += sqlite_writes(job);
    }
    cf_link_splice(&file->group, &file->queue);
    cf_mutex_unlock(file->lock);
    cf_mutex_lock(file->writer.using);
    int64_t begun = clock_us();
    bool blocked = run_group(file, writes, monotonic);
    cf_mutex_unlock(file->writer.using);
    cf_mutex_lock(file->lock);
    file->ended_us = clock_us();
    int64_t took = file->ended_us - begun;
    if (took > COMMIT_MOST_US) took = COMMIT_MOST_US;
    if (writes && !blocked) file->commit_us += (took - file->commit_us) / 8;
    file->expected = callers(file, &file->group, &file->queue);
    give_results(file);
    file->news.waits += blocked;
    sqlite_figures_move(&file->figures, &file->news);
    file->blocked_ms = blocked ? monotonic : 0;
    cf_mutex_tell(file->lock); /* those who want to close */
    return blocked;
}

static void work(void *given)
{
    sqlite_file *file = given;
    int64_t pause = BLOCKED_FIRST_MS;
    cf_mutex_lock(file->lock);
    while (!file->ending) {
        if (file->leading || cf_link_alone(&file->queue)) {
            if (!cf_mutex_wait(file->lock, IDLE_MS) && cf_link_alone(&file->queue)) break;
            continue;
        }
        file->leading = true;
        bool blocked = lead_once(file);
        file->leading = false;
        if (!blocked) {
            pause = BLOCKED_FIRST_MS;
        } else if (!file->ending) {
            cf_mutex_wait(file->lock, pause);
            if (pause < BLOCKED_MOST_MS) pause *= 2;
        }
    }
    file->worker = false;
    cf_mutex_tell(file->lock);
    cf_mutex_unlock(file->lock);
}

void sqlite_group_offer(cf_loop *loop, sqlite_file *file)
{
    if (!file->worker) {
        const cf_platform *platform = cf_loop_platform(loop);
        file->worker = true;
        if (platform->thread(platform->self, work, file) == 0) return;
        file->worker = false; /* no thread: the caller does it, at the price of its time */
        while (!file->leading && !cf_link_alone(&file->queue)) {
            file->leading = true;
            bool blocked = lead_once(file);
            file->leading = false;
            if (blocked) return; /* the next flush tries again */
        }
        return;
    }
    if (!file->leading) cf_mutex_tell(file->lock);
}

void sqlite_group_lead(cf_loop *loop, sqlite_file *file)
{
    if (file->leading || cf_link_alone(&file->queue)) return;
    file->leading = true;
    lead_once(file);
    file->leading = false;
    /* Others go on with what has come meanwhile: a caller pays for its own group only. */
    if (!cf_link_alone(&file->queue)) sqlite_group_offer(loop, file);
}
