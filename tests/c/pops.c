/* pops.c: many threads, each with a loop and a store of its own on one name, contend for the same keys. Exactly one of them may
 * get each. CF_POPS keys, CF_THREADS threads. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { BATCH = 20000, MOST_THREADS = 64 };

static atomic_uint_fast64_t winners, losses;
static unsigned char       *won; /* times that each key was got */
static uint64_t             total, threads;
static pthread_barrier_t    barrier;

static cf_store *open_pops(cf_loop **loop)
{
    cf_store *store;
    if (cf_loop_new(NULL, loop) != CF_OK || cf_open(*loop, cf_text("memory:pops"), NULL, &store, NULL) != CF_OK) abort();
    return store;
}

static void *contend(void *user)
{
    uint64_t  me = (uint64_t)(uintptr_t)user;
    cf_loop  *loop;
    cf_store *store = open_pops(&loop);
    char      key[32], value[32];
    uint64_t  got = 0, missed = 0;
    for (uint64_t first = 0; first < total; first += BATCH) {
        uint64_t end = first + BATCH < total ? first + BATCH : total;
        /* Each thread writes its share, then all reach for everything. */
        for (uint64_t i = first + me; i < end; i += threads) {
            snprintf(key, sizeof key, "code-%llu", (unsigned long long)i);
            snprintf(value, sizeof value, "%llu", (unsigned long long)i);
            if (ask_set(store, key, value).status != CF_OK) abort();
        }
        pthread_barrier_wait(&barrier);
        for (uint64_t i = first; i < end; i++) {
            snprintf(key, sizeof key, "code-%llu", (unsigned long long)i);
            answer a = ask_pop(store, key);
            if (a.status != CF_OK) abort();
            if (!a.hit) {
                missed++;
                continue;
            }
            if (strtoull(a.value, NULL, 10) != i) abort();
            __atomic_fetch_add(&won[i], 1, __ATOMIC_RELAXED);
            got++;
        }
        pthread_barrier_wait(&barrier);
    }
    atomic_fetch_add(&winners, got);
    atomic_fetch_add(&losses, missed);
    cf_loop_free(loop);
    return NULL;
}

int main(void)
{
    pthread_t ids[MOST_THREADS];
    total = env_number("CF_POPS", 1000000);
    threads = env_number("CF_THREADS", 8);
    hang_guard(280);
    if (threads < 1 || threads > MOST_THREADS || total == 0 || !(won = calloc(total, 1))) return 2;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    cf_loop  *loop;
    cf_store *store = open_pops(&loop);
    for (uint64_t i = 0; i < threads; i++) pthread_create(&ids[i], NULL, contend, (void *)(uintptr_t)i);
    for (uint64_t i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < total; i++) wrong += won[i] != 1;
    answer left = ask_count(store);
    cf_loop_free(loop);
    free(won);
    printf("%llu threads, %llu keys: %llu winners, %llu misses, %llu keys without exactly one winner, %lld left\n",
           (unsigned long long)threads, (unsigned long long)total, (unsigned long long)winners, (unsigned long long)losses,
           (unsigned long long)wrong, (long long)left.number);
    return winners == total && losses == total * (threads - 1) && wrong == 0 && left.number == 0 ? 0 : 1;
}
