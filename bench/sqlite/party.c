/* The C party of the sqlite bench: party PATH
 *
 * PATH is a file of this party's own, which is not there yet. Says "ready", then answers every line "OP IN_FLIGHT SECONDS" with
 * one line of JSON: operations per second, microseconds of CPU of the whole process per operation, latencies in microseconds. One
 * in flight is a caller who waits; more are slots of an event loop, each of which submits its next operation when the one before
 * is done. The first slot is timed. */
#include <counterfoil.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEYS = 10000, KEY = 37, VALUE = 500, DAY = 86400000, SLOTS = 1000, SAMPLES = 1 << 20 };

static cf_loop  *loop;
static cf_store *store;
static char      keys[KEYS][KEY + 1], values[KEYS][VALUE + 1]; /* there before the clock starts */
static unsigned  order[KEYS];
static int64_t   samples[SAMPLES];

static struct {
    bool    sets, over;
    size_t  in_flight, pending, count, sampled;
    int64_t last, end;
} run;
static size_t slots[SLOTS]; /* where each of them is in `order` */

static void die(const char *why)
{
    fprintf(stderr, "party: %s\n", why);
    exit(1);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static cf_request request_of(bool sets, unsigned i)
{
    cf_request get = *CF_REQUEST(CF_OP_GET, .key = cf_bytes(keys[i], KEY));
    cf_request set = *CF_REQUEST(CF_OP_SET, .key = get.key, .value = cf_bytes(values[i], VALUE), .flags = CF_TTL, .ttl_ms = DAY);
    return sets ? set : get;
}

static void check(const cf_op *op, unsigned i)
{
    if (cf_op_status(op) != CF_OK || !cf_op_hit(op)) die("an operation failed or missed");
    if (cf_op_kind(op) == CF_OP_GET && (cf_op_value(op).len != VALUE || memcmp(cf_op_value(op).ptr, values[i], VALUE) != 0))
        die("what was read is not what was written");
}

/* After an operation of the first slot. */
static void look_at_the_clock(void)
{
    int64_t now = now_ns(CLOCK_MONOTONIC);
    if (run.sampled < SAMPLES) samples[run.sampled++] = now - run.last;
    run.last = now;
    if (now >= run.end) run.over = true;
}

static void submit(size_t *slot);

static void done(cf_op *op, void *user)
{
    size_t *slot = user;
    check(op, order[*slot]);
    cf_op_free(op);
    run.pending--;
    run.count++;
    if (slot == slots) look_at_the_clock();
    if (run.over) return;
    *slot += run.in_flight;
    if (*slot >= KEYS) *slot = (size_t)(slot - slots);
    submit(slot);
}

static void submit(size_t *slot)
{
    cf_request request = request_of(run.sets, order[*slot]);
    request.done = done;
    request.user = slot;
    cf_op *op;
    run.pending++;
    if (cf_submit(store, &request, &op) != CF_PENDING) die("an operation did not wait for its group");
}

static void pass(bool sets, size_t in_flight, double seconds)
{
    memset(&run, 0, sizeof run);
    run.sets = sets;
    run.in_flight = in_flight;
    run.last = now_ns(CLOCK_MONOTONIC);
    run.end = run.last + (int64_t)(seconds * 1e9);
    cf_loop_set_blocking(loop, in_flight == 1);
    if (in_flight == 1) {
        for (size_t at = 0; !run.over; at = (at + 1) % KEYS) {
            cf_request request = request_of(sets, order[at]);
            cf_op     *op;
            if (cf_submit(store, &request, &op) == CF_PENDING) cf_op_wait(op);
            check(op, order[at]);
            cf_op_free(op);
            run.count++;
            look_at_the_clock();
        }
        return;
    }
    for (size_t n = 0; n < in_flight; n++) {
        slots[n] = n;
        submit(&slots[n]);
    }
    while (run.pending)
        if (cf_loop_run(loop, -1) < 0) die("the loop failed");
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void measure(bool sets, size_t in_flight, double seconds)
{
    pass(sets, in_flight, seconds / 2); /* warm-up */
    int64_t start = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    pass(sets, in_flight, seconds);
    double wall = (double)(now_ns(CLOCK_MONOTONIC) - start), used = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    double count = (double)run.count;
    qsort(samples, run.sampled, sizeof *samples, by_size);
    printf("{\"ops\": %.1f, \"cpu\": %.4f, \"p50\": %.2f, \"p99\": %.2f}\n", count * 1e9 / wall, used / 1e3 / count,
           (double)samples[run.sampled / 2] / 1e3, (double)samples[run.sampled * 99 / 100] / 1e3);
}

static void prepare(void)
{
    uint32_t seed = 12345; /* the same order in every host */
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "sess:%032u", i);
        snprintf(values[i], sizeof values[i], "%0*u", VALUE, i);
        seed = seed * 1664525U + 1013904223U;
        unsigned j = (unsigned)(((uint64_t)seed * (i + 1)) >> 32);
        order[i] = order[j];
        order[j] = i;
    }
}

/* Many together, so that filling does not take a sync for each; and so often that the WAL is as long as it gets (party.py). */
static void fill(void)
{
    memset(&run, 0, sizeof run);
    run.sets = run.over = true;
    for (size_t at = 0; at < 4 * KEYS; at += SLOTS) {
        size_t from = at % KEYS;
        for (size_t n = 0; n < SLOTS; n++) {
            slots[n] = from + n;
            submit(&slots[n]);
        }
        while (run.pending)
            if (cf_loop_run(loop, -1) < 0) die("the loop failed");
    }
}

int main(int argc, char **argv)
{
    char url[4096], line[256], op[8];
    if (argc != 2) die("usage: party PATH");
    prepare();
    snprintf(url, sizeof url, "sqlite:%s", argv[1]);
    if (cf_loop_new(NULL, &loop) != CF_OK || cf_open(loop, cf_text(url), NULL, &store, NULL) != CF_OK) die("cannot open");
    fill();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        size_t in_flight;
        double seconds;
        if (sscanf(line, "%7s %zu %lf", op, &in_flight, &seconds) != 3 || in_flight < 1 || in_flight > SLOTS)
            die("not a line for me");
        measure(strcmp(op, "set") == 0, in_flight, seconds);
        fflush(stdout);
    }
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return 0;
}
