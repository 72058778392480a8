/* support.h: what several of the C tests need. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "counterfoil/testing.h"
#include "table_backend.h"

/* Ends the process, loudly, when a test hangs: no test measures time, none may wait for ever. */
void hang_guard(unsigned seconds);

/* A number from the environment, or `otherwise`. */
uint64_t env_number(const char *name, uint64_t otherwise);

/* xorshift64*: the same seed gives the same test on every machine. */
typedef struct rng {
    uint64_t state;
} rng;
uint64_t rng_next(rng *random);
uint64_t rng_below(rng *random, uint64_t bound);
/* CF_SEED, or one from the clock; printed. */
uint64_t seed_of_run(void);

/* The real machine, with memory counted: what one call allocates is measured without a clock. */
typedef struct counting {
    cf_platform platform;
    uint64_t    allocations, bytes, largest; /* since the last counting_reset */
    int64_t     blocks, live;
} counting;
void counting_init(counting *c);
void counting_reset(counting *c);

/* ---- operations in one line; each waits where it must, and frees the operation ---- */

/* As cf_submit, with copies of all that is lent for the call: they are gone when it returns. */
int submit_lent(cf_store *store, const cf_request *request, cf_op **op);

typedef struct answer {
    int     status, outcome;
    bool    hit;
    int64_t number;
    char    value[128]; /* terminated; what fits */
    size_t  value_len;
} answer;
answer ask(cf_store *store, const cf_request *request);

static inline answer ask_get(cf_store *store, const char *key) { return ask(store, CF_REQUEST(CF_OP_GET, .key = cf_text(key))); }
static inline answer ask_set(cf_store *store, const char *key, const char *value)
{
    return ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_text(value)));
}
static inline answer ask_ttl(cf_store *store, const char *key, const char *value, int64_t ttl_ms)
{
    return ask(store, CF_REQUEST(CF_OP_SET, .key = cf_text(key), .value = cf_text(value), .flags = CF_TTL, .ttl_ms = ttl_ms));
}
static inline answer ask_pop(cf_store *store, const char *key) { return ask(store, CF_REQUEST(CF_OP_POP, .key = cf_text(key))); }
static inline answer ask_delete(cf_store *store, const char *key)
{
    return ask(store, CF_REQUEST(CF_OP_DELETE, .key = cf_text(key)));
}
static inline answer ask_count(cf_store *store) { return ask(store, CF_REQUEST(CF_OP_COUNT)); }

#define assert_value(answer_, text_)                          \
    do {                                                      \
        answer assert_value_ = (answer_);                     \
        assert_int_equal(assert_value_.status, CF_OK);        \
        assert_true(assert_value_.hit);                       \
        assert_string_equal(assert_value_.value, text_);      \
    } while (0)
#define assert_miss(answer_)                             \
    do {                                                 \
        answer assert_miss_ = (answer_);                 \
        assert_int_equal(assert_miss_.status, CF_OK);    \
        assert_false(assert_miss_.hit);                  \
    } while (0)
#define assert_ok(expression_) assert_int_equal((expression_), CF_OK)

/* Opens by URL and insists. */
cf_store *open_url(cf_loop *loop, const char *url);

/* Whether the loop's descriptor is readable now. */
bool readable(const cf_loop *loop);

/* A stage, a loop on it, and at the end nothing left: the fixture of most tests. */
typedef struct world {
    cf_stage *stage;
    cf_loop  *loop;
} world;
int  world_up(void **state);
int  world_down(void **state);

/* Counts calls of `done` and keeps what the last one brought. */
typedef struct seen {
    int     calls, status, outcome;
    bool    hit;
    char    value[64];
    cf_op  *op;
    bool    free_it;
} seen;
void see(cf_op *op, void *user);

/* The figure of that name; -1: there is none. */
int64_t stat_of(cf_store *store, const char *name);

#endif
