/* derive_stress.c: derived operations from several threads and loops over one table, ended in every way at any time: by their answer, a
 * deadline, cancel, free, the close of their store, the end of their loop. For the sanitizers to watch; and at the end every operation
 * has had its `done` once or never, no value was popped twice, no lock is left and no block of memory. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 4, KEYS = 3, SLOTS = 12 };

static cf_stage  *stage;
static tb        *data_of_all;
static atomic_int wrong;
static atomic_llong ends[5], popped;
/* Every value that is put out is another, and nobody may get one twice. */
static atomic_uint  next_value;
static atomic_uchar taken[1 << 20];

#define must(condition)                                                                         \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "derive_stress: not true: %s (line %d)\n", #condition, __LINE__);   \
            atomic_fetch_add(&wrong, 1);                                                        \
        }                                                                                       \
    } while (0)

/* One operation and what becomes of it. */
typedef struct flight {
    cf_op *op;
    int    kind, calls;
    bool   pended;
} flight;

static void landed(flight *f)
{
    int status = cf_op_status(f->op);
    must(status != CF_PENDING);
    must(status == CF_OK || status == CF_ETIMEOUT || status == CF_ECANCELED || status == CF_ECLOSED);
    atomic_fetch_add(&ends[status == CF_OK ? 0 : status == CF_ETIMEOUT ? 1 : status == CF_ECANCELED ? 2 : 3], 1);
    if (f->kind != CF_OP_POP || !cf_op_hit(f->op)) return;
    char     text[16] = {0};
    cf_slice value = cf_op_value(f->op);
    must(value.len > 0 && value.len < sizeof text);
    memcpy(text, value.ptr, value.len);
    must(atomic_exchange(&taken[strtoul(text, NULL, 10) % sizeof taken], 1) == 0);
    atomic_fetch_add(&popped, 1);
}

static void done(cf_op *op, void *user)
{
    flight *f = user;
    must(f->op == op && f->pended);
    must(++f->calls == 1);
    landed(f);
}

static void drop(flight *f)
{
    if (!f->op) return;
    if (f->pended && !f->calls) atomic_fetch_add(&ends[4], 1);
    cf_op_free(f->op);
    *f = (flight){0};
}

static void submit(cf_store *store, flight *f, rng *random)
{
    static const int kinds[] = {CF_OP_SET, CF_OP_POP, CF_OP_TOUCH, CF_OP_DELETE, CF_OP_INCR, CF_OP_CLEAR, CF_OP_GET, CF_OP_SET, CF_OP_POP};
    static const char *const names[KEYS] = {"a", "b", "c"};
    drop(f);
    *f = (flight){.kind = kinds[rng_below(random, sizeof kinds / sizeof *kinds)]};
    cf_request request = {.size = sizeof request, .kind = f->kind, .key = cf_text(names[rng_below(random, KEYS)]), .done = done, .user = f, .by = 1};
    request.timeout_ms = rng_below(random, 3) ? CF_TIMEOUT_MAX : 1 + (int64_t)rng_below(random, 4);
    char value[16];
    snprintf(value, sizeof value, "%u", atomic_fetch_add(&next_value, 1));
    if (f->kind == CF_OP_SET) {
        request.value = cf_text(value);
        request.flags = rng_below(random, 2) ? CF_IF_ABSENT : 0;
    }
    if (f->kind == CF_OP_TOUCH) request.flags = CF_TTL, request.ttl_ms = CF_TTL_MAX;
    if (f->kind == CF_OP_INCR) request.key = cf_text("n");
    f->pended = true;
    int rc = cf_submit(store, &request, &f->op);
    if (rc == CF_PENDING) return;
    f->pended = false;
    landed(f);
}

static void *fly(void *user)
{
    int      me = (int)(intptr_t)user;
    rng      random = {(uint64_t)me * 7919 + 1};
    uint64_t lives = env_number("CF_LIVES", 600);
    tb_log   log = {0};
    for (uint64_t life = 0; life < lives; life++) {
        static const tb_manner manners[] = {TB_PIPE, TB_TIMER, TB_NOW};
        flight    flights[2][SLOTS];
        cf_loop  *loop;
        cf_store *stores[2];
        memset(flights, 0, sizeof flights);
        must(cf_loop_new(cf_stage_platform(stage), &loop) == CF_OK);
        for (int i = 0; i < 2; i++) {
            tb *t = tb_share(data_of_all, loop, manners[rng_below(&random, 3)], &log);
            must(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(t), NULL, &stores[i], NULL) == CF_OK);
        }
        for (int step = 0; step < 200; step++) {
            int     which = (int)rng_below(&random, 2);
            flight *f = &flights[which][rng_below(&random, SLOTS)];
            if (!stores[which]) continue;
            switch (rng_below(&random, 8)) {
            case 0: drop(f); break;
            case 1:
                if (f->op && cf_op_status(f->op) == CF_PENDING) must(cf_op_cancel(f->op) == CF_OK && f->calls == 1);
                break;
            case 2: cf_stage_advance(stage, 1); break;
            case 3:
            case 4: must(cf_loop_run(loop, 0) >= 0); break;
            default: submit(stores[which], f, &random); break;
            }
            if (step == 150 && rng_below(&random, 2)) {
                must(cf_store_close(stores[which], NULL) == CF_OK);
                stores[which] = NULL;
            }
        }
        /* Half of the lives end with everything in flight; the operations go with the loop. */
        if (rng_below(&random, 2))
            for (int i = 0; i < 2 * SLOTS; i++) drop(&flights[i / SLOTS][i % SLOTS]);
        cf_loop_free(loop);
        for (int i = 0; i < 2 * SLOTS; i++) {
            flight *f = &flights[i / SLOTS][i % SLOTS];
            if (f->pended) must(f->calls == 1);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t     ids[THREADS];
    static tb_log log;
    cf_loop      *loop;
    cf_store     *keeper;
    hang_guard(180);
    stage = cf_stage_new();
    if (!stage || cf_loop_new(cf_stage_platform(stage), &loop) != CF_OK) return 2;
    data_of_all = tb_new(loop, TB_NOW, &log);
    must(cf_open_backend(loop, tb_functions(TB_DERIVED_SCAN), tb_backend(data_of_all), NULL, &keeper, NULL) == CF_OK);
    for (int i = 0; i < THREADS; i++) pthread_create(&ids[i], NULL, fly, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    static const char *const names[] = {"a", "b", "c", "n"};
    for (int i = 0; i < 4; i++) { /* nobody holds a lock: at once */
        cf_op *op;
        must(cf_submit(keeper, CF_REQUEST(CF_OP_SET, .key = cf_text(names[i]), .value = cf_text("1")), &op) == CF_OK);
        cf_op_free(op);
    }
    must(next_value < sizeof taken);
    for (int i = 0; i < 5; i++) must(ends[i] > 0); /* or this has tried less than it says */
    must(popped > 0);
    cf_loop_free(loop);
    must(cf_stage_blocks(stage) == 0);
    cf_stage_free(stage);
    printf("%lld answered, %lld timed out, %lld cancelled, %lld closed, %lld freed; %lld popped; %d wrong\n", (long long)ends[0],
           (long long)ends[1], (long long)ends[2], (long long)ends[3], (long long)ends[4], (long long)popped, (int)wrong);
    return wrong != 0;
}
