/* redis_outage.c: a server that dies and comes back, and one that stops answering, both under load.
 *
 * CF_RESTARTS times SIGKILL and a restart: the first success comes within 300 ms of the server's own first answer. Then SIGSTOP for CF_STOP seconds at 20,000 calls/s
 * with deadlines of one second: every call ends in time or is refused at once, memory grows by less than 64 MiB, and within a second of SIGCONT calls
 * succeed again. */
#include "redis_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { DEADLINE = 1000, LATE = 250 /* of a thread that shares two cores with everything else */, MOST = 40000 };

static atomic_int_fast64_t last_good; /* when a call last succeeded that was asked for after `since` */
static atomic_int_fast64_t since;
static atomic_uint_fast64_t good, busy, timed_out, unavailable, other, overdue;
static atomic_bool over;
static atomic_int  rate; /* calls per millisecond */
static int         port;

typedef struct call {
    int64_t      asked;
    struct call *next;
} call;
static call  calls[MOST];
static call *idle;

static void on_end(cf_op *op, void *user)
{
    call   *c = user;
    int64_t now = now_ms();
    switch (cf_op_status(op)) {
    case CF_OK:
        atomic_fetch_add(&good, 1);
        if (c->asked >= atomic_load(&since) || now > atomic_load(&since)) atomic_store(&last_good, now);
        break;
    case CF_ETIMEOUT: atomic_fetch_add(&timed_out, 1); break;
    case CF_EUNAVAILABLE: atomic_fetch_add(&unavailable, 1); break;
    default: atomic_fetch_add(&other, 1);
    }
    if (now - c->asked > DEADLINE + LATE) atomic_fetch_add(&overdue, 1);
    cf_op_free(op);
    c->next = idle;
    idle = c;
}

static void *load(void *user)
{
    (void)user;
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_store *store = open_redis(loop, port, "?silence=2", DEADLINE);
    for (int i = 0; i < MOST; i++) {
        calls[i].next = idle;
        idle = &calls[i];
    }
    char value[500];
    memset(value, 'v', sizeof value);
    int64_t then = now_ms();
    unsigned n = 0;
    while (!atomic_load(&over)) {
        int64_t now = now_ms(), due = (now - then) * atomic_load(&rate);
        then = now;
        if (due > MOST) due = MOST;
        for (; due && idle; due--) {
            char   key[16];
            cf_op *op;
            call  *c = idle;
            c->asked = now;
            snprintf(key, sizeof key, "k%u", n % 1000);
            cf_request request = {.size = sizeof request, .kind = n++ % 5 ? CF_OP_GET : CF_OP_SET, .key = cf_text(key), .done = on_end, .user = c};
            if (request.kind == CF_OP_SET) request.value = cf_bytes(value, sizeof value);
            int rc = cf_submit(store, &request, &op);
            if (rc == CF_PENDING) {
                idle = c->next;
                continue;
            }
            if (rc == CF_EBUSY) atomic_fetch_add(&busy, 1);
            else atomic_fetch_add(&other, 1);
            cf_op_free(op);
        }
        cf_loop_run(loop, 1);
    }
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return NULL;
}

static long rss(void)
{
    long  size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2) abort();
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

/* How long after `from` the first success came. */
static long first_success(int64_t from)
{
    atomic_store(&since, from);
    int64_t until = now_ms() + 10000;
    while (atomic_load(&last_good) < from && now_ms() < until) nap(1);
    return atomic_load(&last_good) < from ? -1 : (long)(atomic_load(&last_good) - from);
}

int main(void)
{
    hang_guard((unsigned)env_number("CF_GUARD", 200));
    uint64_t restarts = env_number("CF_RESTARTS", 5), stop = env_number("CF_STOP", 6);
    bool     fine = true;
    server   s;
    server_start(&s, NULL);
    port = s.port;
    atomic_store(&rate, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, load, NULL);
    while (!atomic_load(&good)) nap(1);
    for (uint64_t i = 0; i < restarts; i++) {
        server_kill(&s);
        nap(i % 2 ? 100 : 700);
        server_again(&s);
        server_await(&s);
        int64_t ready = now_ms();
        long    after = first_success(ready - 1);
        printf("restart %llu: the first success %ld ms after the server's first answer\n", (unsigned long long)i + 1, after);
        if (after < 0 || after > 300) fine = false;
        nap(200);
    }
    atomic_store(&rate, 20);
    nap(1000);
    uint64_t before_good = good, before_overdue = overdue;
    long     before = rss(), most = before;
    server_pause(&s);
    busy = timed_out = unavailable = 0;
    for (uint64_t i = 0; i < stop * 10; i++) {
        nap(100);
        if (rss() > most) most = rss();
    }
    printf("stopped for %llu s: %llu busy, %llu timed out, %llu unavailable, %llu overdue, memory grew by %.1f MiB\n", (unsigned long long)stop,
           (unsigned long long)busy, (unsigned long long)timed_out, (unsigned long long)unavailable, (unsigned long long)(overdue - before_overdue),
           (double)(most - before) / 1048576);
    if (busy == 0 || timed_out + unavailable == 0 || most - before >= 64L << 20) fine = false;
    int64_t resumed = now_ms();
    server_resume(&s);
    long after = first_success(resumed);
    nap(1000);
    uint64_t again = good;
    nap(500);
    printf("the first success %ld ms after it went on; then %llu in half a second (before: %llu in all)\n", after, (unsigned long long)(good - again),
           (unsigned long long)before_good);
    if (after < 0 || after > 1000 || good - again < 2000) fine = false;
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    server_stop(&s);
    printf("%llu calls took longer than their deadline and %d ms, %llu ended otherwise\n", (unsigned long long)overdue, LATE, (unsigned long long)other);
    return fine && overdue == 0 ? 0 : 1;
}
