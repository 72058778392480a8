/* job.c: work that blocks, on a thread of its own, and its way back to the loop. */
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

void cf_jobs_finish(cf_loop *loop)
{
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
    while (!cf_link_alone(&loop->jobs)) {
        cf_job *job = CF_OF_LINK(loop->jobs.next, cf_job, link);
        /* The child has no such thread, so nobody else will ever free it. */
        if (forked) job->state = JOB_RAN;
        cf_job_abandon(job);
    }
}
