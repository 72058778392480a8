/* worker.c: locks, and what becomes of them in a fork. The only file that knows threads. */
#include <pthread.h>

#include "util.h"

struct cf_mutex {
    pthread_mutex_t mutex;
    cf_mutex       *prev, *next; /* of all, so that fork can take them */
};

static pthread_once_t  once = PTHREAD_ONCE_INIT;
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t process_locks[CF_LOCKS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
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

static void after_fork_in_child(void)
{
    generation++;
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
    pthread_mutex_destroy(&mutex->mutex);
    cf_release(platform, mutex);
}

void cf_mutex_lock(cf_mutex *mutex) { pthread_mutex_lock(&mutex->mutex); }
void cf_mutex_unlock(cf_mutex *mutex) { pthread_mutex_unlock(&mutex->mutex); }

void cf_lock(cf_process_lock which)
{
    cf_fork_watch();
    pthread_mutex_lock(&process_locks[which]);
}

void cf_unlock(cf_process_lock which) { pthread_mutex_unlock(&process_locks[which]); }
