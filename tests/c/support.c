#include "support.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void hung(int signal_number)
{
    (void)signal_number;
    static const char text[] = "a test hangs\n";
    if (write(2, text, sizeof text - 1) < 0) _exit(98);
    _exit(99);
}

void hang_guard(unsigned seconds)
{
    signal(SIGALRM, hung);
    alarm(seconds * (unsigned)env_number("CF_GUARD_FACTOR", 1));
}

uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

uint64_t rng_next(rng *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * 2685821657736338717u;
}

uint64_t rng_below(rng *random, uint64_t bound) { return (rng_next(random) >> 11) % bound; }

uint64_t seed_of_run(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = env_number("CF_SEED", ((uint64_t)now.tv_sec * 1000003u) ^ (uint64_t)now.tv_nsec);
    if (seed == 0) seed = 1;
    printf("CF_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* ---- counted memory: the size sits before the block ---- */

typedef union header {
    size_t      size;
    max_align_t aligned;
} header;

static void *counting_alloc(void *self, size_t size)
{
    counting *c = self;
    header   *block = malloc(sizeof *block + size);
    if (!block) return NULL;
    block->size = size;
    c->allocations++;
    c->bytes += size;
    if (size > c->largest) c->largest = size;
    c->blocks++;
    c->live += (int64_t)size;
    return block + 1;
}

static void counting_release(void *self, void *block)
{
    counting *c = self;
    if (!block) return;
    header *h = (header *)block - 1;
    c->blocks--;
    c->live -= (int64_t)h->size;
    free(h);
}

static void *counting_resize(void *self, void *block, size_t size)
{
    void *next = counting_alloc(self, size);
    if (!next || !block) return next;
    size_t old = ((header *)block - 1)->size;
    memcpy(next, block, old < size ? old : size);
    counting_release(self, block);
    return next;
}

void counting_reset(counting *c)
{
    c->allocations = 0;
    c->bytes = 0;
    c->largest = 0;
}

void counting_init(counting *c)
{
    memset(c, 0, sizeof *c);
    c->platform = *cf_platform_real(); /* whose functions do not look at self */
    c->platform.self = c;
    c->platform.alloc = counting_alloc;
    c->platform.resize = counting_resize;
    c->platform.release = counting_release;
}

int submit_lent(cf_store *store, const cf_request *request, cf_op **op)
{
    cf_request lent = *request;
    cf_slice  *parts[] = {&lent.key, &lent.value, &lent.expected, &lent.cursor, &lent.receipt};
    char      *copies[sizeof parts / sizeof *parts];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        copies[i] = parts[i]->len ? malloc(parts[i]->len) : NULL;
        if (!copies[i]) continue;
        memcpy(copies[i], parts[i]->ptr, parts[i]->len);
        parts[i]->ptr = copies[i];
    }
    int status = cf_submit(store, &lent, op);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (copies[i]) explicit_bzero(copies[i], parts[i]->len);
        free(copies[i]);
    }
    return status;
}

answer ask(cf_store *store, const cf_request *request)
{
    answer a = {0};
    cf_op *op = NULL;
    int status = submit_lent(store, request, &op);
    while (status == CF_PENDING) status = cf_op_wait(op);
    a.status = status;
    if (!op) return a;
    a.outcome = cf_op_error(op)->outcome;
    a.hit = cf_op_hit(op);
    a.number = cf_op_number(op);
    cf_slice value = cf_op_value(op);
    a.value_len = value.len;
    size_t len = value.len < sizeof a.value - 1 ? value.len : sizeof a.value - 1;
    if (len) memcpy(a.value, value.ptr, len);
    cf_op_free(op);
    return a;
}

cf_store *open_url(cf_loop *loop, const char *url)
{
    cf_store *store = NULL;
    cf_error  error;
    if (cf_open(loop, cf_text(url), NULL, &store, &error) != CF_OK) fail_msg("open: %s", error.text);
    return store;
}

bool readable(const cf_loop *loop)
{
    struct pollfd one = {.fd = cf_loop_fd(loop), .events = POLLIN};
    return poll(&one, 1, 0) == 1 && (one.revents & POLLIN);
}

int world_up(void **state)
{
    world *w = calloc(1, sizeof *w);
    if (!w) return -1;
    w->stage = cf_stage_new();
    if (!w->stage || cf_loop_new(cf_stage_platform(w->stage), &w->loop) != CF_OK) return -1;
    *state = w;
    return 0;
}

int world_down(void **state)
{
    world *w = *state;
    cf_loop_free(w->loop);
    int64_t blocks = cf_stage_blocks(w->stage);
    if (blocks != 0) print_error("%lld blocks were not released\n", (long long)blocks);
    cf_stage_free(w->stage);
    free(w);
    return blocks != 0;
}

void see(cf_op *op, void *user)
{
    seen *s = user;
    s->calls++;
    s->op = op;
    s->status = cf_op_status(op);
    s->outcome = cf_op_error(op)->outcome;
    s->hit = cf_op_hit(op);
    cf_slice value = cf_op_value(op);
    size_t   len = value.len < sizeof s->value - 1 ? value.len : sizeof s->value - 1;
    memset(s->value, 0, sizeof s->value);
    if (len) memcpy(s->value, value.ptr, len);
    if (s->free_it) cf_op_free(op);
}

typedef struct wanted {
    const char *name;
    int64_t     value;
} wanted;

static void each_stat(void *user, const char *name, int64_t value)
{
    wanted *w = user;
    if (strcmp(name, w->name) == 0) w->value = value;
}

int64_t stat_of(cf_store *store, const char *name)
{
    wanted w = {name, -1};
    assert_ok(cf_store_stats(store, each_stat, &w));
    return w.value;
}
