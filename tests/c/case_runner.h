/* case_runner.h: what the two halves of the case runner know of each other: case_runner.c has the backends and the steps over keys, case_records.c those over
 * AccountsStorage and SessionStorage. */
#ifndef CASE_RUNNER_H
#define CASE_RUNNER_H

#include <jansson.h>

#include "support.h"

extern const char *now_case;
void CF_PRINTF(1, 2) wrong(const char *format, ...);
_Noreturn void broken(const char *what, const char *where);

/* Bytes of an argument, owned. */
typedef struct text {
    char  *ptr;
    size_t len;
    bool   skip;      /* wrong_type: C has no such thing                   */
    bool   surrogate; /* not UTF-8: as a value C takes it                  */
    bool   there;     /* false: the argument is missing                    */
} text;

static inline cf_slice slice(text t) { return cf_bytes(t.ptr, t.len); }
text  text_of(const json_t *value);
void *need(size_t size);
int   status_of(const char *code);

/* ---- case_records.c ---- */

typedef struct record_story {
    cf_accounts accounts;
    cf_sessions sessions;
    cf_stage   *stage;
    json_t     *names; /* what steps have remembered */
    bool        moved; /* the clock, without the story: instants by it are not what it expects */
} record_story;

/* The records that an operation brought, as a list of objects {"kind": ..., and its fields}, and its cursor. */
typedef struct brought {
    json_t *list, *cursor;
} brought;

bool is_record_step(const char *what);
void record_open(record_story *s, cf_store *store, cf_stage *stage, const json_t *open);
void record_close(record_story *s);
/* As cf_submit. `skip`: C cannot say this step. */
int     record_submit(record_story *s, const json_t *step, cf_op **op, bool *skip);
brought bring(cf_op *op);
void    brought_free(brought *b);
void    record_remember(record_story *s, const json_t *step, int status, int64_t number, const brought *b);
void    record_check(record_story *s, const json_t *step, bool hit, int64_t number, const brought *b);
void    record_check_existing(record_story *s, const json_t *step, const brought *b);
void    record_discreet(const json_t *step, const cf_error *error); /* the sentence repeats nothing that it was given */

#endif
