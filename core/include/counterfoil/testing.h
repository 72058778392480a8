/* counterfoil/testing.h: a stage. A platform whose clock you move and whose failures you choose, for tests of an application's
 * own expiry and error paths. Everything else (files, randomness) is real.
 *
 *     cf_stage *stage = cf_stage_new();
 *     cf_loop_new(cf_stage_platform(stage), &loop);
 *     ... cf_stage_advance(stage, 60000); ...
 *     cf_loop_free(loop);
 *     cf_stage_free(stage);
 *
 * A stage may be used by several loops and threads. `memory:NAME` is shared among the stores of one stage only. */
#ifndef COUNTERFOIL_TESTING_H
#define COUNTERFOIL_TESTING_H

#include "counterfoil/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cf_stage cf_stage;

/* NULL: no memory. The clock starts at the real time and stands still until it is moved. */
CF_API cf_stage          *cf_stage_new(void);
CF_API void               cf_stage_free(cf_stage *stage); /* after every loop on it */
CF_API const cf_platform *cf_stage_platform(cf_stage *stage);

/* Moves both clocks on; ms >= 0. A clock stops at INT64_MAX / 4. Timers that fall due make the loop's descriptor readable. */
CF_API void    cf_stage_advance(cf_stage *stage, int64_t ms);
CF_API int64_t cf_stage_wall_ms(cf_stage *stage);
/* Steps the wall clock alone, either way: somebody set the machine's clock. */
CF_API void cf_stage_step_wall(cf_stage *stage, int64_t ms);

/* The nth allocation from now fails (1 = the next), once, or it and all after it; 0: none fails. */
CF_API void cf_stage_fail_allocation(cf_stage *stage, uint64_t nth, bool for_good);
/* The nth fallible system call from now fails with `error` (an errno), once; 0: none. */
CF_API void cf_stage_fail_syscall(cf_stage *stage, uint64_t nth, int error);
/* Whether what was last asked to fail has failed. */
CF_API bool cf_stage_failed(cf_stage *stage);
/* Blocks allocated and not yet released: 0 after the last cf_loop_free, or something leaks. */
CF_API int64_t cf_stage_blocks(cf_stage *stage);

#ifdef __cplusplus
}
#endif
#endif
