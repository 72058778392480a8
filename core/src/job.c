/* job.c: work that blocks, on a thread of its own, and the way back to the loop. */
#include "core.h"

typedef enum { JOB_RUNNING, JOB_RAN } job_state;

/* Real memory: a thread that hangs in the system's resolver may outlive the loop and its platform. Everything but the data is guarded by
 * CF_LOCK_JOBS. */
struct cf_job {
    cf_loop  *loop; /* NULL: abandoned */
    job_state state;
    cf_job_fn run, done, drop;
    void     *data;
    cf_link   link; /* in loop->jobs */
};

static void job_free(cf_job *job)
{
    job->drop(job->data);
    cf_release(cf_platform_real(), job);
}

static void on_thread(void *given)
{
    cf_job *job = given;
    job->run(job->data);
    cf_lock(CF_LOCK_JOBS);
    job->state = JOB_RAN;
    cf_loop *loop = job->loop;
    if (loop) {
        atomic_store(&loop->has_jobs, true);
        cf_loop_nudge(loop); /* under the lock: the loop cannot go away meanwhile */
    }
    cf_unlock(CF_LOCK_JOBS);
    if (!loop) job_free(job);
}

int cf_job_start(cf_loop *loop, cf_job_fn run, cf_job_fn done, cf_job_fn drop, void *data, cf_job **out)
{
    *out = NULL;
    cf_job *job = cf_zalloc(cf_platform_real(), sizeof *job);
    if (!job) return CF_ENOMEM;
    *job = (cf_job){.loop = loop, .state = JOB_RUNNING, .run = run, .done = done, .drop = drop, .data = data};
    cf_lock(CF_LOCK_JOBS);
    cf_link_append(&loop->jobs, &job->link);
    cf_unlock(CF_LOCK_JOBS);
    if (loop->platform->thread(loop->platform->self, on_thread, job) != 0) {
        cf_lock(CF_LOCK_JOBS);
        cf_link_remove(&job->link);
        cf_unlock(CF_LOCK_JOBS);
        cf_release(cf_platform_real(), job);
        return CF_EUNAVAILABLE;
    }
    *out = job;
    return CF_OK;
}

void cf_job_abandon(cf_job *job)
{
    if (!job) return;
    cf_lock(CF_LOCK_JOBS);
    bool ran = job->state == JOB_RAN;
    job->loop = NULL;
    cf_link_remove(&job->link);
    cf_unlock(CF_LOCK_JOBS);
    if (ran) job_free(job);
}

/* ---------------------------------------------------------------------------------------------------------- notices -- */

struct cf_notice {
    cf_loop     *loop;
    atomic_bool  given;
    cf_notice_fn look;
    void        *user;
    cf_link      link; /* in loop->notices */
};

int cf_notice_new(cf_loop *loop, cf_notice_fn look, void *user, cf_notice **out)
{
    cf_notice *notice = *out = cf_zalloc(loop->platform, sizeof *notice);
    if (!notice) return CF_ENOMEM;
    notice->loop = loop;
    notice->look = look;
    notice->user = user;
    cf_link_append(&loop->notices, &notice->link);
    return CF_OK;
}

void cf_notice_give(cf_notice *notice)
{
    if (atomic_exchange(&notice->given, true)) return;
    atomic_store(&notice->loop->has_jobs, true);
    cf_loop_nudge(notice->loop);
}

void cf_notice_free(cf_notice *notice)
{
    if (!notice) return;
    cf_link_remove(&notice->link);
    cf_release(notice->loop->platform, notice);
}

static void look_at_notices(cf_loop *loop)
{
    for (cf_link *link = loop->notices.next; link != &loop->notices;) {
        cf_notice *notice = CF_OF_LINK(link, cf_notice, link);
        link = link->next;
        if (!atomic_exchange(&notice->given, false)) continue;
        notice->look(notice->user);
        link = loop->notices.next; /* it may have freed any of them */
    }
}

void cf_jobs_finish(cf_loop *loop)
{
    look_at_notices(loop);
    for (;;) {
        cf_job *job = NULL;
        cf_lock(CF_LOCK_JOBS);
        for (cf_link *link = loop->jobs.next; link != &loop->jobs && !job; link = link->next)
            if (CF_OF_LINK(link, cf_job, link)->state == JOB_RAN) job = CF_OF_LINK(link, cf_job, link);
        if (job) cf_link_remove(&job->link);
        cf_unlock(CF_LOCK_JOBS);
        if (!job) return;
        job->done(job->data);
        job_free(job);
    }
}

void cf_jobs_abandon(cf_loop *loop)
{
    bool forked = cf_loop_forked(loop);
    /* What was given in the parent wakes nobody here, and would keep the next from waking. */
    for (cf_link *link = loop->notices.next; link != &loop->notices; link = link->next) atomic_store(&CF_OF_LINK(link, cf_notice, link)->given, false);
    while (!cf_link_alone(&loop->jobs)) {
        cf_job *job = CF_OF_LINK(loop->jobs.next, cf_job, link);
        /* The child has no such thread, so nobody else will ever free it. */
        if (forked) job->state = JOB_RAN;
        cf_job_abandon(job);
    }
}
