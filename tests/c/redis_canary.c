/* redis_canary.c: no answer ever reaches another operation. Every value begins with its key. Several loops in threads ask for random keys through a proxy that
 * cuts, stalls and resets at random bytes, while operations are cancelled, freed and run out of time. One wrong key in one answer is a failure.
 *
 * CF_REPLIES answers in all, CF_SEED. */
#include "faults.h"
#include "redis_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 3, KEYS = 500, IN_FLIGHT = 48 };

static atomic_uint_fast64_t ends[9]; /* by how: see the names at the end */
enum { GOOD, ABSENT, TIMED_OUT, LOST, CANCELLED, FREED, BUSY_, CLOSED_, OTHER };
static atomic_uint_fast64_t wrong, late, answers;
static uint64_t             target, seed;
static int                  port;
static atomic_bool          over;

typedef struct asked {
    int    key, kind;
    int   *live;
    cf_op *op;
} asked;

static void count_end(const cf_op *op)
{
    switch (cf_op_status(op)) {
    case CF_OK: atomic_fetch_add(&ends[cf_op_hit(op) ? GOOD : ABSENT], 1); break;
    case CF_ETIMEOUT: atomic_fetch_add(&ends[TIMED_OUT], 1); break;
    case CF_EUNAVAILABLE: atomic_fetch_add(&ends[LOST], 1); break;
    case CF_ECANCELED: atomic_fetch_add(&ends[CANCELLED], 1); break;
    case CF_EBUSY: atomic_fetch_add(&ends[BUSY_], 1); break;
    case CF_ECLOSED: atomic_fetch_add(&ends[CLOSED_], 1); break; /* at the end */
    default:
        atomic_fetch_add(&ends[OTHER], 1);
        fprintf(stderr, "%s: %s\n", cf_status_name(cf_op_status(op)), cf_op_error(op)->text);
    }
}

static void on_answer(cf_op *op, void *user)
{
    asked *a = user;
    char   begin[32];
    count_end(op);
    atomic_fetch_add(&answers, 1);
    if (cf_op_status(op) == CF_OK && cf_op_hit(op)) {
        cf_slice value = cf_op_value(op);
        int      len = snprintf(begin, sizeof begin, "%d:", a->key);
        bool     carries = a->kind == CF_OP_GET || a->kind == CF_OP_POP;
        if (carries ? value.len < (size_t)len || memcmp(value.ptr, begin, (size_t)len) != 0 : value.len != 0) {
            atomic_fetch_add(&wrong, 1);
            fprintf(stderr, "asked for %d, got %.*s\n", a->key, (int)(value.len < 40 ? value.len : 40), value.ptr);
        }
        /* A counter of key k counts in steps of k + 1: another's number is no multiple of it. */
        if (a->kind == CF_OP_INCR && cf_op_number(op) % (a->key + 1) != 0) {
            atomic_fetch_add(&wrong, 1);
            fprintf(stderr, "counter %d gave %lld\n", a->key, (long long)cf_op_number(op));
        }
    }
    cf_op_free(op);
    a->op = NULL;
    --*a->live;
}

static void submit(cf_store *store, rng *random, asked *a)
{
    static const int kinds[] = {CF_OP_GET, CF_OP_GET, CF_OP_GET, CF_OP_SET, CF_OP_SET, CF_OP_POP, CF_OP_INCR, CF_OP_TOUCH};
    char key[32], value[2048];
    a->key = (int)rng_below(random, KEYS);
    a->kind = kinds[rng_below(random, sizeof kinds / sizeof *kinds)];
    snprintf(key, sizeof key, "%s%d", a->kind == CF_OP_INCR ? "n" : "k", a->key);
    size_t len = (size_t)snprintf(value, 64, "%d:", a->key);
    size_t more = rng_below(random, 10) ? rng_below(random, 60) : rng_below(random, sizeof value - 64);
    memset(value + len, 'x', more);
    cf_request request = {.size = sizeof request, .kind = a->kind, .key = cf_text(key), .done = on_answer, .user = a};
    if (a->kind == CF_OP_SET) request.value = cf_bytes(value, len + more);
    if (a->kind == CF_OP_SET && rng_below(random, 4) == 0) request.flags = CF_IF_ABSENT;
    if (a->kind == CF_OP_INCR) request.by = a->key + 1;
    if (a->kind == CF_OP_TOUCH) {
        request.flags = CF_TTL;
        request.ttl_ms = 60000;
    }
    request.timeout_ms = rng_below(random, 50) == 0 ? 1 + (int64_t)rng_below(random, 4) : 3000;
    int rc = cf_submit(store, &request, &a->op);
    ++*a->live;
    if (rc == CF_PENDING) return;
    count_end(a->op);
    cf_op_free(a->op);
    a->op = NULL;
    --*a->live;
}

static void add_late(void *user, const char *name, int64_t value)
{
    (void)user;
    if (strcmp(name, "late") == 0) atomic_fetch_add(&late, (uint64_t)value);
}

static void *ask_many(void *user)
{
    rng       random = {seed + 1 + (uint64_t)(uintptr_t)user};
    asked     all[IN_FLIGHT] = {{0}};
    int       live = 0;
    cf_loop  *loop;
    for (size_t i = 0; i < IN_FLIGHT; i++) all[i].live = &live;
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_store *store = open_redis(loop, port, "?silence=0.3&connect_timeout=0.5", 0);
    while (atomic_load(&answers) < target) {
        for (size_t i = 0; i < IN_FLIGHT; i++)
            if (!all[i].op) submit(store, &random, &all[i]);
        if (cf_loop_run(loop, 50) < 0) abort();
        for (uint64_t some = rng_below(&random, 3); some; some--) {
            asked *a = &all[rng_below(&random, IN_FLIGHT)];
            if (a->op && rng_below(&random, 2)) {
                cf_op_cancel(a->op);
            } else if (a->op) {
                cf_op_free(a->op); /* `done` is not called */
                a->op = NULL;
                live--;
                atomic_fetch_add(&ends[FREED], 1);
            }
        }
    }
    cf_store_stats(store, add_late, NULL);
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return NULL;
}

static void *break_things(void *user)
{
    faults_proxy *proxy = user;
    rng           random = {seed};
    static const char *const how[] = {"fin", "rst", "stall", "blackhole"};
    while (!atomic_load(&over)) {
        nap(1 + (int)rng_below(&random, 15));
        const char *which = how[rng_below(&random, 10) < 8 ? rng_below(&random, 2) : 2 + rng_below(&random, 2)];
        const char *where = rng_below(&random, 2) ? "request" : "reply";
        unsigned    at = (unsigned)rng_below(&random, 4000);
        faults_say(proxy, "conn %llu cut %s %u %s", faults_figure(proxy, "accepted") - rng_below(&random, THREADS), where, at, which);
    }
    return NULL;
}

int main(void)
{
    hang_guard((unsigned)env_number("CF_GUARD", 240));
    target = env_number("CF_REPLIES", 1000000);
    seed = seed_of_run();
    server s;
    char   to[32];
    server_start(&s, NULL);
    snprintf(to, sizeof to, "127.0.0.1:%d", s.port);
    faults_proxy *proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), to);
    if (!proxy) {
        fprintf(stderr, "CF_FAULTPROXY does not name the proxy\n");
        return 2;
    }
    port = proxy->port;
    pthread_t threads[THREADS], breaker;
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, ask_many, (void *)i);
    while (faults_figure(proxy, "accepted") < THREADS) nap(5);
    pthread_create(&breaker, NULL, break_things, proxy);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    atomic_store(&over, true);
    pthread_join(breaker, NULL);
    unsigned long long faults = faults_figure(proxy, "fired");
    faults_proxy_stop(proxy);
    server_stop(&s);
    static const char *const names[] = {"values", "absent", "timed out", "lost", "cancelled", "freed", "busy", "closed", "other"};
    for (int i = 0; i < 9; i++) printf("%llu %s, ", (unsigned long long)ends[i], names[i]);
    printf("%llu faults, %llu late answers dropped, %llu wrong\n", faults, (unsigned long long)late, (unsigned long long)wrong);
    /* A run in which nothing was ever lost, late or cancelled has tested nothing. */
    bool tested = faults > 10 && late > 0 && ends[CANCELLED] && ends[FREED] && ends[TIMED_OUT] && ends[GOOD] > target / 4;
    return wrong == 0 && ends[OTHER] == 0 && tested ? 0 : 1;
}
