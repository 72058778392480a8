/* sqlite_pops.c: exactly one winner, and sums that are right. First processes on one file, then threads of one process: callers who wait, each with a loop
 * of its own, and two event loops, all on one file. CF_SQLITE_POPS keys. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 8, WAITERS = 8, LOOPS = 2, BATCH = 64, TIMEOUT = 120000 };

typedef struct shared {
    unsigned long long got, missed, wrong, added;
    unsigned char      won[];
} shared;

static shared     *all;
static long        keys;
static const char *path;

typedef struct reach {
    long key; /* -1: a counter */
    int *live;
} reach;

static void judge(cf_op *op, long key)
{
    bool right = cf_op_status(op) == CF_OK;
    if (!right) fprintf(stderr, "%s\n", cf_op_error(op)->text);
    if (right && key < 0) __atomic_fetch_add(&all->added, 1, __ATOMIC_RELAXED);
    if (right && key >= 0 && cf_op_hit(op)) {
        char     value[32] = {0};
        cf_slice got = cf_op_value(op);
        memcpy(value, got.ptr, got.len < 31 ? got.len : 31);
        right = strtol(value, NULL, 10) == key;
        __atomic_fetch_add(&all->won[key], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&all->got, 1, __ATOMIC_RELAXED);
    } else if (right && key >= 0) {
        __atomic_fetch_add(&all->missed, 1, __ATOMIC_RELAXED);
    }
    if (!right) __atomic_fetch_add(&all->wrong, 1, __ATOMIC_RELAXED);
    cf_op_free(op);
}

static void on_answer(cf_op *op, void *user)
{
    reach *r = user;
    --*r->live;
    judge(op, r->key);
}

/* Each key is popped, and after every tenth one counter is counted up. */
static cf_request request_of(long i, char *key, long *what)
{
    *what = i < keys ? i : -1;
    sprintf(key, i < keys ? "code-%ld" : "sum", i);
    return (cf_request){.size = sizeof(cf_request), .kind = i < keys ? CF_OP_POP : CF_OP_INCR, .key = cf_text(key), .by = i < keys ? 0 : 3, .timeout_ms = TIMEOUT};
}

static void *contend(void *given)
{
    bool      blocking = given != NULL;
    cf_loop  *loop = new_loop(blocking);
    cf_store *store = open_file(loop, path, "");
    reach     reaches[BATCH];
    int       live = 0;
    long      total = keys + keys / 10;
    for (long i = 0; i < total;) {
        for (int slot = 0; slot < BATCH && i < total; slot++, i++) {
            char       key[32];
            long       what;
            cf_op     *op;
            cf_request request = request_of(i, key, &what);
            if (!blocking) {
                reaches[slot] = (reach){what, &live};
                request.done = on_answer;
                request.user = &reaches[slot];
            }
            int rc = cf_submit(store, &request, &op);
            if (!blocking && rc == CF_PENDING) {
                live++;
                continue;
            }
            if (rc == CF_PENDING) cf_op_wait(op);
            judge(op, what);
        }
        while (live) cf_loop_run(loop, -1);
    }
    cf_loop_free(loop);
    return NULL;
}

static bool round_of(const char *name, long contenders, bool threads)
{
    memset(all, 0, sizeof *all + (size_t)keys);
    path = in_folder(name);
    cf_loop  *loop = new_loop(false);
    cf_store *store = open_file(loop, path, "");
    for (long i = 0; i < keys; i++) {
        char   key[32], value[32];
        cf_op *op;
        sprintf(key, "code-%ld", i);
        sprintf(value, "%ld", i);
        if (cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_text(value)), &op) != CF_PENDING) return false;
        if ((i % BATCH == BATCH - 1 || i == keys - 1) && cf_op_wait(op) != CF_OK) return false;
    }
    cf_loop_free(loop);
    int64_t   before = now_ms();
    int       bad = 0, status;
    static int waits;
    pthread_t ids[WAITERS + LOOPS];
    for (long i = 0; i < contenders; i++) {
        void *how = threads ? (i < WAITERS ? &waits : NULL) : i % 2 ? &waits : NULL;
        if (threads) {
            if (pthread_create(&ids[i], NULL, contend, how) != 0) abort();
            continue;
        }
        pid_t child = fork();
        if (child == 0) {
            hang_guard(280);
            contend(how);
            _exit(0);
        }
        if (child < 0) abort();
    }
    for (long i = 0; i < contenders; i++) {
        if (threads) pthread_join(ids[i], NULL);
        else if (wait(&status) < 0 || status != 0) bad++;
    }
    loop = new_loop(true);
    store = open_file(loop, path, "");
    long   odd = 0;
    for (long i = 0; i < keys; i++) odd += all->won[i] != 1;
    answer sum = ask_get(store, "sum"), left = ask(store, CF_REQUEST(CF_OP_COUNT, .key = cf_text("code-")));
    cf_loop_free(loop);
    unsigned long long adds = (unsigned long long)(contenders * (keys / 10));
    bool right = strtoull(sum.value, NULL, 10) == 3 * adds && all->added == adds;
    printf("%ld %s, %ld keys: %llu winners, %llu misses, %ld keys without exactly one winner, %llu wrong, %lld left, the sum is %s (%lld ms)\n", contenders,
           threads ? "threads" : "processes", keys, all->got, all->missed, odd, all->wrong, (long long)left.number, right ? "right" : "WRONG", (long long)(now_ms() - before));
    return !bad && odd == 0 && all->wrong == 0 && all->got == (unsigned long long)keys && all->missed == (unsigned long long)(keys * (contenders - 1)) && left.number == 0 &&
           right && peer_sound(path);
}

int main(void)
{
    keys = (long)env_number("CF_SQLITE_POPS", 3000);
    hang_guard(280);
    if (keys < 10) return 2;
    all = mmap(NULL, sizeof *all + (size_t)keys, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return 2;
    bool fine = round_of("processes.db", PROCESSES, false);
    return round_of("threads.db", WAITERS + LOOPS, true) && fine ? 0 : 1;
}
