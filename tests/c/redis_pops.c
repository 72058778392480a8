/* redis_pops.c: several processes contend for the same keys on one Redis, each with a loop and a store of its own. Exactly one may get each.
 * CF_REDIS_POPS keys, CF_PROCESSES processes. */
#include "redis_support.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 500, MOST = 64 };

typedef struct shared {
    unsigned long long got, missed, wrong;
    unsigned char      won[];
} shared;

typedef struct contender {
    shared *all;
    long    first;
    int     live;
} contender;

typedef struct reach {
    contender *me;
    long       key;
} reach;

static void on_pop(cf_op *op, void *user)
{
    reach *r = user;
    shared *all = r->me->all;
    if (cf_op_status(op) != CF_OK) {
        fprintf(stderr, "%s\n", cf_op_error(op)->text);
        __atomic_fetch_add(&all->wrong, 1, __ATOMIC_RELAXED);
    } else if (!cf_op_hit(op)) {
        __atomic_fetch_add(&all->missed, 1, __ATOMIC_RELAXED);
    } else {
        char value[32] = {0};
        cf_slice got = cf_op_value(op);
        memcpy(value, got.ptr, got.len < 31 ? got.len : 31);
        if (strtol(value, NULL, 10) != r->key) __atomic_fetch_add(&all->wrong, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&all->won[r->key], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&all->got, 1, __ATOMIC_RELAXED);
    }
    r->me->live--;
    cf_op_free(op);
}

static void contend(shared *all, int port, long keys)
{
    cf_loop  *loop;
    contender me = {.all = all};
    reach     reaches[BATCH];
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_store *store = open_redis(loop, port, NULL, 60000);
    for (long first = 0; first < keys; first += BATCH) {
        for (long i = first; i < first + BATCH && i < keys; i++) {
            char   key[32];
            cf_op *op;
            snprintf(key, sizeof key, "code-%ld", i);
            reaches[i - first] = (reach){&me, i};
            if (cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text(key), .done = on_pop, .user = &reaches[i - first]), &op) != CF_PENDING) abort();
            me.live++;
        }
        while (me.live) cf_loop_run(loop, -1);
    }
    cf_loop_free(loop);
}

int main(void)
{
    long keys = (long)env_number("CF_REDIS_POPS", 50000), processes = (long)env_number("CF_PROCESSES", 8);
    hang_guard(280);
    if (keys < 1 || processes < 1 || processes > MOST) return 2;
    size_t  size = sizeof(shared) + (size_t)keys;
    shared *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return 2;
    server s;
    server_start(&s, NULL);
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) return 2;
    cf_store *store = open_redis(loop, s.port, NULL, 60000);
    for (long i = 0; i < keys; i++) {
        char key[32], value[32];
        cf_op *op;
        snprintf(key, sizeof key, "code-%ld", i);
        snprintf(value, sizeof value, "%ld", i);
        if (cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_text(value)), &op) != CF_PENDING) return 2;
        if ((i % BATCH == BATCH - 1 || i == keys - 1) && cf_op_wait(op) != CF_OK) return 2; /* answers come in order */
    }
    for (long i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child == 0) {
            contend(all, s.port, keys);
            _exit(0);
        }
    }
    int bad = 0, status;
    for (long i = 0; i < processes; i++)
        if (wait(&status) < 0 || status != 0) bad++;
    long odd = 0;
    for (long i = 0; i < keys; i++) odd += all->won[i] != 1;
    answer left = ask_count(store);
    cf_loop_free(loop);
    server_stop(&s);
    printf("%ld processes, %ld keys: %llu winners, %llu misses, %ld keys without exactly one winner, %llu wrong, %lld left\n", processes, keys, all->got,
           all->missed, odd, all->wrong, (long long)left.number);
    bool fine = !bad && odd == 0 && all->wrong == 0 && all->got == (unsigned long long)keys && all->missed == (unsigned long long)(keys * (processes - 1)) &&
                left.number == 0;
    return fine ? 0 : 1;
}
