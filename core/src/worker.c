/* worker.c: locks and threads, and what becomes of them in a fork. The only file that knows threads. */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "util.h"

struct cf_mutex {
    pthread_mutex_t mutex;
    pthread_cond_t  changed;
    cf_mutex       *prev, *next; /* of all, so that fork can take them */
};

static pthread_once_t  once = PTHREAD_ONCE_INIT;
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t process_locks[CF_LOCKS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static cf_mutex       *all;
static unsigned        generation;

static void before_fork(void)
{
    pthread_mutex_lock(&list_lock);
    for (int i = 0; i < CF_LOCKS; i++) pthread_mutex_lock(&process_locks[i]);
    for (cf_mutex *mutex = all; mutex; mutex = mutex->next) pthread_mutex_lock(&mutex->mutex);
}

static void after_fork(void)
{
    for (cf_mutex *mutex = all; mutex; mutex = mutex->next) pthread_mutex_unlock(&mutex->mutex);
    for (int i = CF_LOCKS; i-- > 0;) pthread_mutex_unlock(&process_locks[i]);
    pthread_mutex_unlock(&list_lock);
}

static void init_condition(cf_mutex *mutex)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&mutex->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void after_fork_in_child(void)
{
    generation++;
    for (cf_mutex *mutex = all; mutex; mutex = mutex->next) init_condition(mutex); /* who waited there does not exist here */
    after_fork();
}

static void register_handlers(void) { pthread_atfork(before_fork, after_fork, after_fork_in_child); }

void cf_fork_watch(void) { pthread_once(&once, register_handlers); }

unsigned cf_fork_generation(void)
{
    /* Written only in a child that has one thread. */
    return generation;
}

cf_mutex *cf_mutex_new(const cf_platform *platform)
{
    cf_fork_watch();
    cf_mutex *mutex = cf_zalloc(platform, sizeof *mutex);
    if (!mutex) return NULL;
    pthread_mutex_init(&mutex->mutex, NULL);
    init_condition(mutex);
    pthread_mutex_lock(&list_lock);
    mutex->next = all;
    if (all) all->prev = mutex;
    all = mutex;
    pthread_mutex_unlock(&list_lock);
    return mutex;
}

void cf_mutex_free(const cf_platform *platform, cf_mutex *mutex)
{
    if (!mutex) return;
    pthread_mutex_lock(&list_lock);
    if (mutex->prev) mutex->prev->next = mutex->next;
    if (mutex->next) mutex->next->prev = mutex->prev;
    if (all == mutex) all = mutex->next;
    pthread_mutex_unlock(&list_lock);
    pthread_cond_destroy(&mutex->changed);
    pthread_mutex_destroy(&mutex->mutex);
    cf_release(platform, mutex);
}

void cf_mutex_lock(cf_mutex *mutex) { pthread_mutex_lock(&mutex->mutex); }
void cf_mutex_unlock(cf_mutex *mutex) { pthread_mutex_unlock(&mutex->mutex); }
void cf_mutex_tell(cf_mutex *mutex) { pthread_cond_broadcast(&mutex->changed); }

bool cf_mutex_wait(cf_mutex *mutex, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until); /* of the machine, whatever a platform says: it bounds a wait, and decides nothing */
    int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    return pthread_cond_timedwait(&mutex->changed, &mutex->mutex, &until) == 0;
}

void cf_lock(cf_process_lock which)
{
    cf_fork_watch();
    pthread_mutex_lock(&process_locks[which]);
}

void cf_unlock(cf_process_lock which) { pthread_mutex_unlock(&process_locks[which]); }

typedef struct thread_start {
    void (*run)(void *data);
    void *data;
} thread_start;

static void *thread_main(void *given)
{
    thread_start start = *(thread_start *)given;
    cf_release(cf_platform_real(), given);
    start.run(start.data);
    return NULL;
}

int cf_thread_start(void (*run)(void *data), void *data)
{
    thread_start *start = cf_alloc(cf_platform_real(), sizeof *start); /* it may outlive every platform but the real one */
    if (!start) return -1;
    *start = (thread_start){run, data};
    pthread_attr_t attributes;
    pthread_t      thread;
    sigset_t       all_signals, before;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals are for the host's own threads. */
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &before);
    int rc = pthread_create(&thread, &attributes, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (rc != 0) cf_release(cf_platform_real(), start);
    return rc == 0 ? 0 : -1;
}
