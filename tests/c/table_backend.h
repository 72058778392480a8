/* table_backend.h: a backend in C over a simple table, as somebody else would write one. It answers at once, or later: from a
 * pipe or a timer that it watches. The tests look into it and make it misbehave. */
#ifndef TABLE_BACKEND_H
#define TABLE_BACKEND_H

#include "counterfoil/backend.h"

typedef enum {
    TB_NOW,   /* the slot answers                                                                   */
    TB_PIPE,  /* the slot pends; flush writes to a pipe, whose watch answers                        */
    TB_TIMER, /* the slot pends; flush sets a timer, whose watch answers                            */
    TB_HAND   /* the slot pends; nothing answers until the test calls tb_answer                     */
} tb_manner;

typedef struct tb tb;

/* What happened, for the tests to look at. It has to outlive the backend: a static one does. */
typedef struct tb_log {
    int gets, sets, dels, pops, touches, incrs, scans;
    int closes, flushes, cancels, forks;
    int close_status; /* what close answers */
    /* Called from inside every slot before it does anything; a value other than CF_OK is what the slot returns. */
    int (*on_slot)(tb *self, cf_op *op, void *user);
    void *user;
} tb_log;

/* Opens a store over a new table. `slots` chooses the functions table: every slot; or get, set and del alone (perhaps derived, perhaps
 * with scan). */
typedef enum { TB_FULL, TB_BARE, TB_DERIVED, TB_DERIVED_SCAN } tb_slots;
int tb_open(cf_loop *loop, tb_manner manner, tb_slots slots, tb_log *log, const cf_open_options *options, cf_store **out,
            cf_error *error);

/* The same in two steps: a backend that no store has yet, NULL when there is no memory or no descriptor; and its functions. */
tb                     *tb_new(cf_loop *loop, tb_manner manner, tb_log *log);
const cf_backend_table *tb_functions(tb_slots slots);
cf_backend             *tb_backend(tb *self);

/* A second handle on the data of the first, for two stores (perhaps on two loops) over the same data; both have to be closed.
 * The data is guarded by a lock, so that the handles may be used by two threads. */
tb *tb_share(tb *first, cf_loop *loop, tb_manner manner, tb_log *log);

/* Answers the operations that pend, oldest first; at most `max`. Returns how many were answered. */
int tb_answer(tb *self, int max);
int tb_pending(const tb *self);
/* The ticket of the nth pending operation, 0: there are not so many. */
uint64_t tb_ticket(const tb *self, int nth);
/* The tb of the last tb_open on this thread. */
tb *tb_last(void);

#endif
