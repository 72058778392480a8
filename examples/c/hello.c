#include <counterfoil.h>
#include <stdio.h>

int main(void)
{
    cf_loop *loop; cf_store *store; cf_op *op;
    if (cf_loop_new(NULL, &loop) != CF_OK || cf_open(loop, cf_text("memory:"), NULL, &store, NULL) != CF_OK) return 1;
    cf_submit(store, CF_REQUEST(CF_OP_SET, .key = cf_text("code"), .value = cf_text("42"), .flags = CF_TTL, .ttl_ms = 600000), &op);
    cf_op_free(op);
    for (int i = 1; i <= 2; i++, cf_op_free(op)) /* the code works once */
        if (cf_submit(store, CF_REQUEST(CF_OP_POP, .key = cf_text("code")), &op) >= CF_OK && cf_op_wait(op) == CF_OK)
            printf("%d: %.*s\n", i, cf_op_hit(op) ? (int)cf_op_value(op).len : 6, cf_op_hit(op) ? cf_op_value(op).ptr : "absent");
    cf_loop_free(loop);
}
