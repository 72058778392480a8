/* fuzz_url.c: arbitrary bytes as a store's URL, and as the keys and e-mails of a few operations in memory; no server is spoken to and no file made. For libFuzzer:
 *     cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DCF_BUILD_TESTS=ON -DCF_BUILD_FUZZ=ON && cmake --build build-fuzz && build-fuzz/tests/c/fuzz_url */
#include <stdlib.h>
#include <string.h>

#include "counterfoil/testing.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void expect(bool condition)
{
    if (!condition) abort();
}

static void ask(cf_store *store, const cf_request *request)
{
    cf_op *op;
    int    status = cf_submit(store, request, &op);
    if (status == CF_PENDING) status = cf_op_wait(op);
    expect(status == CF_OK || status == CF_EINVAL);
    expect(memchr(cf_op_error(op)->text, 0, sizeof cf_op_error(op)->text) != NULL);
    cf_op_free(op);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static cf_stage *stage;
    static cf_loop  *loop;
    if (!stage) {
        stage = cf_stage_new();
        expect(stage && cf_loop_new(cf_stage_platform(stage), &loop) == CF_OK);
    }
    const cf_slice input = cf_bytes(bytes, size);
    if (size >= 7 && memcmp(bytes, "sqlite:", 7) == 0) return 0; /* it would make a file of that name */
    cf_store      *store = NULL;
    cf_error       error;
    int            status = cf_open(loop, input, NULL, &store, &error);
    expect(status == CF_OK || status == CF_EINVAL);
    expect((status == CF_OK) == (store != NULL));
    expect(store || (error.status == CF_EINVAL && error.text[0] && memchr(error.text, 0, sizeof error.text)));
    if (!store || size < 7 || memcmp(bytes, "memory:", 7) != 0) {
        expect(!store || cf_store_close(store, NULL) == CF_OK);
        /* The same bytes as keys and cursors of a store that is open. */
        expect(cf_open(loop, cf_text("memory:fuzz?max_entries=100"), NULL, &store, NULL) == CF_OK);
    }
    ask(store, CF_REQUEST(CF_OP_SET, .key = input, .value = input));
    ask(store, CF_REQUEST(CF_OP_SCAN, .key = input));
    ask(store, CF_REQUEST(CF_OP_SCAN, .cursor = input));
    ask(store, CF_REQUEST(CF_OP_INCR, .key = input, .by = 1));
    ask(store, CF_REQUEST(CF_OP_POP, .key = input));
    expect(cf_store_close(store, NULL) == CF_OK);
    return 0;
}
