/* threads.c: what may be done from several threads at once, for ThreadSanitizer to watch: loops of their own over names and data
 * that they share, opening and closing, and waking each other. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 4 };

static cf_stage      *stage;
static cf_loop       *loops[THREADS]; /* alive from the first barrier to the second */
static tb            *shared_data;
static cf_loop       *data_loop;
static pthread_barrier_t barrier;
static uint64_t       rounds;
static atomic_int     wrong;

#define must(condition)                                                                       \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "threads: not true: %s (line %d)\n", #condition, __LINE__);       \
            atomic_fetch_add(&wrong, 1);                                                      \
        }                                                                                     \
    } while (0)

static void *work(void *user)
{
    int       me = (int)(intptr_t)user;
    tb_log    log = {0};
    rng       random = {(uint64_t)me + 1};
    cf_store *shared, *derived;
    must(cf_loop_new(cf_stage_platform(stage), &loops[me]) == CF_OK);
    cf_loop *loop = loops[me];
    tb      *mine = tb_share(shared_data, loop, me % 2 ? TB_PIPE : TB_NOW, &log);
    must(cf_open(loop, cf_text("memory:threads?max_entries=50"), NULL, &shared, NULL) == CF_OK);
    must(cf_open_backend(loop, tb_functions(TB_DERIVED), tb_backend(mine), NULL, &derived, NULL) == CF_OK);
    pthread_barrier_wait(&barrier);
    for (uint64_t i = 0; i < rounds; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", (int)rng_below(&random, 100));
        switch (rng_below(&random, 10)) {
        case 0: must(ask_set(shared, key, "v").status == CF_OK); break;
        case 1: must(ask_get(shared, key).status == CF_OK); break;
        case 2: must(ask_pop(shared, key).status == CF_OK); break;
        case 3: must(ask_ttl(shared, key, "v", 1 + (int64_t)rng_below(&random, 50)).status == CF_OK); break;
        case 4: must(cf_loop_wake(loops[rng_below(&random, THREADS)]) == CF_OK); break;
        case 5: cf_stage_advance(stage, (int64_t)rng_below(&random, 3)); break;
        case 6: must(ask(derived, CF_REQUEST(CF_OP_INCR, .key = cf_text("n"), .by = 1, .timeout_ms = CF_TIMEOUT_MAX)).status == CF_OK); break;
        case 7: must(ask(shared, CF_REQUEST(CF_OP_COUNT)).status == CF_OK && stat_of(shared, "entries") <= 50); break;
        case 8: {
            cf_store *other;
            snprintf(key, sizeof key, "memory:%d", (int)rng_below(&random, 3));
            must(cf_open(loop, cf_text(key), NULL, &other, NULL) == CF_OK);
            must(ask_set(other, "a", "1").status == CF_OK);
            must(cf_store_close(other, NULL) == CF_OK);
            break;
        }
        default: must(cf_loop_run(loop, 0) >= 0); break;
        }
    }
    pthread_barrier_wait(&barrier);
    cf_loop_free(loop);
    return NULL;
}

int main(void)
{
    pthread_t     ids[THREADS];
    static tb_log log;
    rounds = env_number("CF_ROUNDS", 5000);
    hang_guard(120);
    stage = cf_stage_new();
    if (!stage || cf_loop_new(cf_stage_platform(stage), &data_loop) != CF_OK) return 2;
    shared_data = tb_new(data_loop, TB_NOW, &log);
    cf_store *keeper;
    must(cf_open_backend(data_loop, tb_functions(TB_DERIVED), tb_backend(shared_data), NULL, &keeper, NULL) == CF_OK);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    cf_loop_free(data_loop);
    must(cf_stage_blocks(stage) == 0);
    cf_stage_free(stage);
    printf("%d threads, %llu rounds each, %d wrong\n", THREADS, (unsigned long long)rounds, (int)wrong);
    return wrong != 0;
}
