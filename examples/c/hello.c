#include <counterfoil.h>
#include <stdio.h>

int main(void)
{
    cf_loop *loop; cf_store *store; cf_op *op; cf_error error;
    if (cf_loop_new(NULL, &loop) != CF_OK) return 1;
    if (cf_open(loop, cf_text("memory:"), NULL, &store, &error) != CF_OK) return fprintf(stderr, "%s\n", error.text), 1;
    cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("code"), .value = cf_text("42"), .flags = CF_TTL, .ttl_ms = 600000), &op);
    cf_op_free(op);
    for (int attempt = 1; attempt <= 2; attempt++) { /* the code works once */
        cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("code")), &op);
        if (cf_op_wait(op) != CF_OK) return fprintf(stderr, "%s\n", cf_op_error(op)->text), 1;
        printf("%d: %.*s\n", attempt, cf_op_hit(op) ? (int)cf_op_value(op).len : 6, cf_op_hit(op) ? cf_op_value(op).ptr : "absent");
        cf_op_free(op);
    }
    cf_loop_free(loop);
}
