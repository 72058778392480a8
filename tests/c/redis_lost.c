/* redis_lost.c: answers that are lost after the server has executed the call. Whoever asked gets its own answer, by the store's
 * retry or with the receipt from a new store on a new loop when the first was closed; whoever else asks meanwhile, with another
 * receipt or with none, never does. The proxy tells when all answers of a round are lost, and only then do the others ask: if one
 * of them got a value, it would be stolen and not won.
 *
 * CF_LOST answers of pop by each of the two ways, a tenth of it of incr, if_absent and if_equal; CF_LONG=1: 100,000. CF_SEED. */
#include "faults.h"
#include "redis_support.h"

#include <string.h>

enum { WORKERS = 64, BRIEF_MS = 60, START = 40, OWN = 2, OTHERS = 100 };

typedef enum way { RETRY, CLOSED, DEADLINE, REFUSED, WAYS } way;
static const char *const ways[] = {"the store's retry", "receipt after closing", "receipt after the deadline",
                                   "receipt after an outage"};

typedef struct kind {
    const char *name;
    int         op;
    unsigned    flags;
    size_t      reply; /* bytes of its answer */
} kind;
static const kind kinds[] = {
    {"pop", CF_OP_POP, 0, sizeof "$16\r\n0123456789abcdef\r\n" - 1},
    {"incr", CF_OP_INCR, 0, sizeof ":42\r\n" - 1},
    {"if_absent", CF_OP_SET, CF_IF_ABSENT, sizeof ":1\r\n" - 1},
    {"if_equal", CF_OP_SET, CF_IF_EQUAL, sizeof ":1\r\n" - 1},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct call {
    cf_op  *op;
    int     status, outcome;
    bool    hit;
    int64_t number;
    char    value[64], receipt[CF_RECEIPT_LEN + 1];
} call;

typedef struct tally {
    uint64_t lost, recovered, tries_of_others, stolen;
} tally;

static server        redis;
static faults_proxy *proxy;
static cf_loop      *loop, *other_loop;
static cf_store     *stores[WORKERS], *other; /* through the proxy; past it */
static char          keys[WORKERS][8], secrets[WORKERS][17];
static tally         tallies[KINDS][WAYS];
static uint64_t      wrong_ones;

__attribute__((format(printf, 3, 4))) static void wrong(const kind *k, way by, const char *format, ...)
{
    char    text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (wrong_ones++ < 20) printf("WRONG: %s, %s: %s\n", k->name, ways[by], text);
}

static void take(cf_op *op, void *user)
{
    call    *c = user;
    cf_slice value = cf_op_value(op), receipt = cf_op_receipt(op);
    *c = (call){.op = op,
                .status = cf_op_status(op),
                .outcome = cf_op_error(op)->outcome,
                .hit = cf_op_hit(op),
                .number = cf_op_number(op)};
    if (value.len && value.len < sizeof c->value) memcpy(c->value, value.ptr, value.len);
    if (receipt.len == CF_RECEIPT_LEN) memcpy(c->receipt, receipt.ptr, receipt.len);
}

static void submit(cf_store *store, const cf_request *request, call *c)
{
    cf_request wanted = *request;
    wanted.done = take;
    wanted.user = c;
    memset(c, 0, sizeof *c);
    c->status = CF_PENDING;
    if (cf_submit(store, &wanted, &c->op) == CF_PENDING) return;
    if (!c->op) abort();
    take(c->op, c);
}

static void finish(cf_loop *of)
{
    while (cf_loop_pending(of))
        if (cf_loop_run(of, 1000) < 0) abort();
}

static void let_go(call calls[WORKERS])
{
    for (int i = 0; i < WORKERS; i++) {
        cf_op_free(calls[i].op);
        calls[i].op = NULL;
    }
}

/* -------------------------------------------------------------------------------------------------------- what is asked -- */

static cf_request request_of(const kind *k, int i, bool ours)
{
    cf_request r = {.size = sizeof r, .kind = k->op, .flags = k->flags, .key = cf_text(keys[i])};
    if (k->op == CF_OP_INCR) r.by = ours ? OWN : OTHERS;
    if (k->op == CF_OP_SET) r.value = cf_text(ours ? secrets[i] : "another's");
    if (k->flags & CF_IF_EQUAL) r.expected = cf_text("old");
    return r;
}

/* What is there before. */
static void set_up(const kind *k)
{
    call calls[WORKERS];
    if (k->flags & CF_IF_ABSENT) return;
    for (int i = 0; i < WORKERS; i++) {
        const char *value = k->op == CF_OP_POP ? secrets[i] : k->op == CF_OP_INCR ? "40" : "old";
        submit(other, CF_REQUEST(CF_OP_SET, .key = cf_text(keys[i]), .value = cf_text(value)), &calls[i]);
    }
    finish(other_loop);
    let_go(calls);
}

static bool is_own(const kind *k, int i, const call *c)
{
    if (c->status != CF_OK || !c->hit) return false;
    if (k->op == CF_OP_INCR) return c->number == START + OWN;
    return k->op != CF_OP_POP || strcmp(c->value, secrets[i]) == 0;
}

/* Others ask for the same, in vain; their additions to a counter count, each once. */
static void others_ask(const kind *k, way by, int64_t times, const char *receipts[WORKERS])
{
    call   calls[WORKERS];
    tally *t = &tallies[k - kinds][by];
    for (int i = 0; i < WORKERS; i++) {
        cf_request r = request_of(k, i, false);
        if (receipts) r.receipt = cf_text(receipts[i]);
        submit(other, &r, &calls[i]);
    }
    finish(other_loop);
    for (int i = 0; i < WORKERS; i++) {
        call *c = &calls[i];
        t->tries_of_others++;
        if (c->status != CF_OK) wrong(k, by, "another's call: %s", cf_op_error(c->op)->text);
        else if (k->op == CF_OP_INCR) t->stolen += c->number != START + OWN + times * OTHERS;
        else t->stolen += c->hit;
    }
    let_go(calls);
}

/* What is there at the end: every call has had its effect, once. */
static void look(const kind *k, way by, int64_t times)
{
    call calls[WORKERS];
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)(START + OWN + times * OTHERS));
    for (int i = 0; i < WORKERS; i++) submit(other, CF_REQUEST(CF_OP_GET, .key = cf_text(keys[i])), &calls[i]);
    finish(other_loop);
    for (int i = 0; i < WORKERS; i++) {
        const char *there = k->op == CF_OP_POP ? "" : k->op == CF_OP_INCR ? number : secrets[i];
        if (calls[i].status != CF_OK || calls[i].hit != (k->op != CF_OP_POP) || strcmp(calls[i].value, there) != 0)
            wrong(k, by, "at the end the server has \"%s\"", calls[i].value);
    }
    let_go(calls);
}

/* ------------------------------------------------------------------------------------------------------------- losing -- */

static void open_stores(void)
{
    for (int i = 0; i < WORKERS; i++) stores[i] = open_redis(loop, proxy->port, NULL, 0);
}

static void close_stores(void)
{
    for (int i = 0; i < WORKERS; i++) cf_store_close(stores[i], NULL);
}

/* Connected, and nothing is under way: the second answer comes behind those to the store's own questions. */
static void calm(const kind *k, way by)
{
    call calls[WORKERS];
    for (int times = 0; times < 2; times++) {
        for (int i = 0; i < WORKERS; i++) submit(stores[i], CF_REQUEST(CF_OP_GET, .key = cf_text("calm")), &calls[i]);
        finish(loop);
        for (int i = 0; i < WORKERS; i++)
            if (calls[i].status != CF_OK) wrong(k, by, "no connection: %s", cf_op_error(calls[i].op)->text);
        let_go(calls);
    }
}

/* Asks, and comes back when the server has executed every call and every answer is lost; the stores do not know it yet. */
static void lose(const kind *k, way by, rng *random, call calls[WORKERS])
{
    const char *how = by == DEADLINE ? "stall" : rng_below(random, 2) ? "fin" : "rst";
    size_t      place = (size_t)rng_below(random, k->reply);
    if (strstr(faults_say(proxy, "wait open = %d 10000", WORKERS), "late")) wrong(k, by, "there are other connections");
    unsigned long long fired = faults_figure(proxy, "fired");
    int                armed = atoi(faults_say(proxy, "now cut reply %zu %s", place, how));
    if (armed != WORKERS) wrong(k, by, "%d faults instead of %d", armed, WORKERS);
    if (by == REFUSED) faults_say(proxy, "refuse on");
    for (int i = 0; i < WORKERS; i++) {
        cf_request r = request_of(k, i, true);
        if (by == DEADLINE || by == REFUSED) r.timeout_ms = BRIEF_MS;
        submit(stores[i], &r, &calls[i]);
    }
    cf_loop_flush(loop);
    if (strstr(faults_say(proxy, "wait fired >= %llu 20000", fired + WORKERS), "late"))
        wrong(k, by, "the faults have not happened");
    tallies[k - kinds][by].lost += faults_figure(proxy, "fired") - fired;
}

static void take_stock(const kind *k, way by, const call calls[WORKERS])
{
    tally *t = &tallies[k - kinds][by];
    for (int i = 0; i < WORKERS; i++) {
        if (is_own(k, i, &calls[i])) t->recovered++;
        else
            wrong(k, by, "the answer is not its own: %s, hit %d, number %lld, \"%s\": %s", cf_status_name(calls[i].status),
                  calls[i].hit, (long long)calls[i].number, calls[i].value, cf_op_error(calls[i].op)->text);
    }
}

/* The store asks again by itself. */
static void round_of_retry(const kind *k, rng *random)
{
    static const char *of_nobody[WORKERS];
    call calls[WORKERS];
    for (int i = 0; i < WORKERS; i++) of_nobody[i] = "0123456789abcdef0123456789abcdef";
    set_up(k);
    calm(k, RETRY);
    lose(k, RETRY, random, calls);
    others_ask(k, RETRY, 1, NULL);
    others_ask(k, RETRY, 2, of_nobody);
    finish(loop);
    take_stock(k, RETRY, calls);
    let_go(calls);
    look(k, RETRY, 2);
}

/* From a new store, on a new loop: asked again, and once more. */
static void ask_again(const kind *k, way by, const call lost[WORKERS])
{
    cf_loop *fresh;
    call     calls[WORKERS];
    if (cf_loop_new(NULL, &fresh) != CF_OK) abort();
    cf_store *store = open_redis(fresh, redis.port, NULL, 0);
    for (int times = 0; times < 3; times++) {
        bool otherwise = times == 2; /* with other arguments */
        if (otherwise && k->op == CF_OP_POP) break;
        for (int i = 0; i < WORKERS; i++) {
            cf_request r = request_of(k, i, !otherwise);
            r.receipt = cf_text(lost[i].receipt);
            submit(store, &r, &calls[i]);
        }
        finish(fresh);
        if (times == 0) take_stock(k, by, calls);
        for (int i = 0; i < WORKERS; i++) {
            if (times == 1 && !is_own(k, i, &calls[i])) wrong(k, by, "asked once more: %s", cf_status_name(calls[i].status));
            if (otherwise && calls[i].status != CF_EINVAL)
                wrong(k, by, "asked with other arguments: %s", cf_status_name(calls[i].status));
        }
        let_go(calls);
    }
    cf_loop_free(fresh);
}

static void round_of_receipt(const kind *k, way by, rng *random)
{
    call        calls[WORKERS];
    const char *of_others[WORKERS];
    set_up(k);
    open_stores();
    calm(k, by);
    lose(k, by, random, calls);
    others_ask(k, by, 1, NULL);
    if (by != CLOSED) finish(loop);
    close_stores(); /* CLOSED: it has heard of nothing */
    faults_say(proxy, "refuse off");
    faults_say(proxy, "resume");
    for (int i = 0; i < WORKERS; i++) {
        call *c = &calls[i];
        if (c->status >= 0 || c->outcome != CF_UNKNOWN || !c->receipt[0])
            wrong(k, by, "the call ended with %s, %s, a receipt of %zu", cf_status_name(c->status), cf_outcome_name(c->outcome),
                  strlen(c->receipt));
        of_others[i] = calls[(i + 1) % WORKERS].receipt;
    }
    others_ask(k, by, 2, of_others);
    ask_again(k, by, calls);
    let_go(calls);
    look(k, by, 2);
}

static void next_round(const kind *k, way by, rng *random)
{
    for (int i = 0; i < WORKERS; i++) snprintf(secrets[i], sizeof secrets[i], "%016llx", (unsigned long long)rng_next(random));
    if (by == RETRY) round_of_retry(k, random);
    else round_of_receipt(k, by, random);
    server_says(&redis, "FLUSHALL");
}

static void sweep(const kind *k, uint64_t wanted, rng *random)
{
    enum { RENEW = 200 }; /* a store's budget of retries is a tenth of its calls and a thousand */
    uint64_t rounds = (wanted + WORKERS - 1) / WORKERS;
    open_stores();
    for (uint64_t i = 0; i < rounds; i++) {
        if (i % RENEW == RENEW - 1) {
            close_stores();
            open_stores();
        }
        next_round(k, RETRY, random);
    }
    close_stores();
    for (uint64_t i = 0; i < rounds; i++) next_round(k, (way)(CLOSED + i % 3), random);
}

int main(void)
{
    bool     all = env_number("CF_LONG", 0) != 0;
    uint64_t wanted = env_number("CF_LOST", all ? 100000 : 3000);
    rng      random = {seed_of_run()};
    char     address[32];
    tally    sum = {0};
    hang_guard((unsigned)env_number("CF_GUARD", all ? 3600 : 280));
    server_start(&redis, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%d", redis.port);
    proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), address);
    if (!proxy || cf_loop_new(NULL, &loop) != CF_OK || cf_loop_new(NULL, &other_loop) != CF_OK) {
        fprintf(stderr, "CF_FAULTPROXY must be the program faultproxy\n");
        return 2;
    }
    other = open_redis(other_loop, redis.port, NULL, 0);
    for (int i = 0; i < WORKERS; i++) snprintf(keys[i], sizeof keys[i], "k%d", i);
    /* From here on the server knows the scripts: a call is one command. */
    (void)ask_pop(other, "x");
    (void)ask(other, CF_REQUEST(CF_OP_INCR, .key = cf_text("x"), .by = 1));
    (void)ask(other, CF_REQUEST(CF_OP_SET, .key = cf_text("x"), .value = cf_text("y"), .flags = CF_IF_ABSENT));
    int64_t started = now_ms();
    for (int i = 0; i < KINDS; i++) sweep(&kinds[i], i ? wanted / 10 : wanted, &random);
    for (int i = 0; i < KINDS; i++)
        for (int by = 0; by < WAYS; by++) {
            const tally *t = &tallies[i][by];
            printf("%s, %s: %llu answers lost, %llu recovered, %llu got by others in %llu tries\n", kinds[i].name, ways[by],
                   (unsigned long long)t->lost, (unsigned long long)t->recovered, (unsigned long long)t->stolen,
                   (unsigned long long)t->tries_of_others);
            sum.lost += t->lost;
            sum.recovered += t->recovered;
            sum.stolen += t->stolen;
        }
    printf("%lld s: %llu lost, %llu recovered, %llu stolen, %llu wrong\n", (long long)(now_ms() - started) / 1000,
           (unsigned long long)sum.lost, (unsigned long long)sum.recovered, (unsigned long long)sum.stolen,
           (unsigned long long)wrong_ones);
    cf_loop_free(loop);
    cf_loop_free(other_loop);
    faults_proxy_stop(proxy);
    server_stop(&redis);
    return wrong_ones || sum.stolen || sum.recovered != sum.lost || sum.lost < wanted * 2 ? 1 : 0;
}
