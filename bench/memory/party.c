/* One party of the memory bench, in C: memory_bench (ops|fill) URL KEYS SECONDS
 *
 * ops   repeats get, set, pop and incr over KEYS keys for SECONDS each, in an order that is mixed once
 * fill  puts KEYS sessions into an empty store
 *
 * One JSON object goes to standard output: figures by name, times in nanoseconds. */
#include <counterfoil.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { VALUE = 500, KEY = 40, DAY = 86400000 };

static cf_store *store;
static size_t    keys;
static char     *names; /* KEY bytes each: there before the clock starts, so that no figure has the formatting in it */
static uint32_t *order;
static char      value[VALUE];

static void die(const char *why)
{
    fprintf(stderr, "memory_bench: %s\n", why);
    exit(1);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t resident(void)
{
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*s %lld", &pages) != 1) die("this bench needs /proc/self/statm");
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static cf_slice name_of(size_t i) { return cf_bytes(names + i * KEY, KEY); }

static void submit(const cf_request *request)
{
    cf_op *op;
    if (cf_submit(store, request, &op) != CF_OK) die("an operation failed");
    if (!cf_op_hit(op)) die("an operation missed");
    cf_op_free(op);
}

static void get(size_t i) { submit(CF_REQUEST(CF_OP_GET, .key = name_of(i))); }
static void pop(size_t i) { submit(CF_REQUEST(CF_OP_POP, .key = name_of(i))); }
static void incr(size_t i) { submit(CF_REQUEST(CF_OP_INCR, .key = name_of(i), .by = 1)); }
static void set(size_t i)
{
    memcpy(value, name_of(i).ptr, KEY); /* no two sessions are the same */
    submit(CF_REQUEST(CF_OP_SET, .key = name_of(i), .value = cf_bytes(value, VALUE), .flags = CF_TTL, .ttl_ms = DAY));
}

/* Passes over all keys until `seconds` of them have been measured; `between`, if there is one, is not. */
static void measure(const char *name, void (*act)(size_t), void (*between)(size_t), double seconds)
{
    int64_t spent = 0, cpu = 0;
    double  count = 0;
    for (int pass = 0; pass < 3 || (double)spent < seconds * 1e9; pass++) {
        if (between)
            for (size_t i = 0; i < keys; i++) between(order[i]);
        int64_t wall_before = now_ns(CLOCK_MONOTONIC), cpu_before = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (size_t i = 0; i < keys; i++) act(order[i]);
        if (pass == 0) continue; /* warm-up */
        spent += now_ns(CLOCK_MONOTONIC) - wall_before;
        cpu += now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
        count += (double)keys;
    }
    printf("\"%s\": %.2f, \"%s_cpu\": %.2f, ", name, (double)spent / count, name, (double)cpu / count);
}

static void stat_bytes(void *user, const char *name, int64_t figure)
{
    if (strcmp(name, "bytes") == 0) *(int64_t *)user = figure;
}

static void fill(void)
{
    int64_t before = resident(), start = now_ns(CLOCK_MONOTONIC), last = start, longest = 0, own = 0;
    for (size_t i = 0; i < keys; i++) {
        set(i);
        int64_t now = now_ns(CLOCK_MONOTONIC);
        if (now - last > longest) longest = now - last;
        last = now;
    }
    cf_store_stats(store, stat_bytes, &own);
    printf("\"insert\": %.2f, \"stall\": %lld, \"rss\": %.1f, \"own\": %.1f, ", (double)(last - start) / (double)keys,
           (long long)longest, (double)(resident() - before) / (double)keys, (double)own / (double)keys);
}

int main(int argc, char **argv)
{
    if (argc != 5) die("usage: memory_bench (ops|fill) URL KEYS SECONDS");
    keys = strtoul(argv[3], NULL, 10);
    double seconds = strtod(argv[4], NULL);
    names = malloc(keys * KEY + 1);
    order = malloc(keys * sizeof *order);
    if (!keys || !names || !order) die("no keys, or no memory");
    uint32_t seed = 12345; /* the same order in every run and host */
    for (size_t i = 0; i < keys; i++) {
        snprintf(names + i * KEY, KEY + 1, "session:%032zu", i);
        seed = seed * 1664525U + 1013904223U;
        size_t j = (size_t)(((uint64_t)seed * (i + 1)) >> 32);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    memset(value, 'v', sizeof value);

    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK || cf_open(loop, cf_text(argv[2]), NULL, &store, NULL) != CF_OK) die("cannot open");
    printf("{");
    if (strcmp(argv[1], "fill") == 0) {
        fill();
    } else {
        measure("set", set, NULL, seconds);
        measure("get", get, NULL, seconds);
        measure("pop", pop, set, seconds);
        measure("incr", incr, NULL, seconds);
    }
    printf("\"version\": \"%s\"}\n", cf_version());
    cf_store_close(store, NULL);
    cf_loop_free(loop);
    return 0;
}
