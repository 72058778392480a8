/* case_runner.c: plays tests/cases over the backends that C knows.
 *
 *     case_runner DIR [--chaos] [--backend NAME] [--match TEXT] [--verbose]
 *
 * Without --chaos every case is played once over every backend. With it every case is replayed with its 1st, 2nd, ... allocation
 * failing, until one run comes through without having met the failure: a failed step must say NO_MEMORY and have changed
 * nothing, the same step must then tell the same story, and at the end nothing may be left allocated.
 *
 * The Redis servers are those that the environment names (tests/faults/README.md); with_servers.sh starts them where it names none. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "case_runner.h"

/* ---------------------------------------------------------------------------------------------------------- backends -- */

enum {
    HAS_POP = 1 << 0,
    HAS_TOUCH = 1 << 1,
    HAS_INCR = 1 << 2,
    HAS_CONDITIONS = 1 << 3,
    HAS_KEEP_TTL = 1 << 4,
    HAS_SCAN = 1 << 5,
    HAS_BINARY = 1 << 6,
    HAS_MEMORY = 1 << 7,
    HAS_CLOCK = 1 << 8,
    HAS_RECORDS = 1 << 9,
    HAS_KEYS = HAS_POP | HAS_TOUCH | HAS_INCR | HAS_CONDITIONS | HAS_KEEP_TTL | HAS_BINARY
};

static const struct {
    const char *word;
    unsigned    bit;
} capabilities[] = {{"pop", HAS_POP},           {"touch", HAS_TOUCH}, {"incr", HAS_INCR},     {"conditions", HAS_CONDITIONS},
                    {"keep_ttl", HAS_KEEP_TTL}, {"scan", HAS_SCAN},   {"binary", HAS_BINARY}, {"memory", HAS_MEMORY},
                    {"records", HAS_RECORDS}};

typedef struct backend {
    const char *name;
    const char *url; /* NULL: a table backend, or Redis */
    const char *variable; /* Redis: the environment variable with its URL */
    tb_manner   manner;
    tb_slots    slots;
    unsigned    has;
    bool        file;  /* SQLite: a database of its own for each story, behind the URL */
    bool        seals; /* seal_values */
    bool        hides; /* hash_keys */
    bool        waits; /* its caller only waits: cf_loop_set_blocking */
    bool        pends; /* every key operation must pend: the manner is not lost on the way */
    bool        one_database; /* a cluster: no database is somebody's own */
} backend;

static const backend backends[] = {
    {.name = "memory", .url = "memory:", .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS | HAS_SCAN | HAS_MEMORY},
    {.name = "memory-shared", .url = "memory:cases", .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS | HAS_SCAN | HAS_MEMORY},
    {.name = "table", .manner = TB_NOW, .slots = TB_FULL, .has = HAS_CLOCK | HAS_KEYS | HAS_SCAN},
    {.name = "table-pipe", .manner = TB_PIPE, .slots = TB_FULL, .has = HAS_CLOCK | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "table-timer", .manner = TB_TIMER, .slots = TB_FULL, .has = HAS_CLOCK | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "derived", .manner = TB_NOW, .slots = TB_DERIVED, .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS},
    {.name = "derived-pipe", .manner = TB_PIPE, .slots = TB_DERIVED, .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS, .pends = true},
    {.name = "bare", .manner = TB_NOW, .slots = TB_BARE, .has = HAS_CLOCK | HAS_BINARY},
    {.name = "memory-sealed", .url = "memory:", .seals = true, .has = HAS_CLOCK | HAS_RECORDS | HAS_POP | HAS_TOUCH | HAS_KEEP_TTL | HAS_BINARY | HAS_SCAN},
    {.name = "derived-sealed", .manner = TB_PIPE, .slots = TB_DERIVED, .seals = true, .hides = true, .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS, .pends = true},
    {.name = "sqlite", .url = "sqlite:", .file = true, .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "sqlite-blocking", .url = "sqlite:", .file = true, .waits = true, .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS | HAS_SCAN},
    {.name = "sqlite-memory", .url = "sqlite::memory:", .has = HAS_CLOCK | HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis", .variable = "CF_TEST_REDIS", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis-unix", .variable = "CF_TEST_REDIS_UNIX", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis-tls", .variable = "CF_TEST_REDIS_TLS", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis-acl", .variable = "CF_TEST_REDIS_ACL", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis-sentinel", .variable = "CF_TEST_REDIS_SENTINEL", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    {.name = "redis-cluster", .variable = "CF_TEST_REDIS_CLUSTER", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true, .one_database = true},
    {.name = "redis-tls-acl", .variable = "CF_TEST_REDIS_TLS_ACL", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN, .pends = true},
    /* The clock of these servers is moved together with the stage's: for the cases that the others must leave out. */
    {.name = "redis-clock", .variable = "CF_TEST_REDIS_CLOCK", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN | HAS_CLOCK, .pends = true},
    {.name = "sentinel-clock", .variable = "CF_TEST_REDIS_SENTINEL_CLOCK", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN | HAS_CLOCK, .pends = true},
    {.name = "cluster-clock", .variable = "CF_TEST_REDIS_CLUSTER_CLOCK", .has = HAS_RECORDS | HAS_KEYS | HAS_SCAN | HAS_CLOCK, .pends = true, .one_database = true},
};

/* ---------------------------------------------------------------------------------------------------------- failures -- */

const char       *now_case = "";
static const char *now_backend = "";
static long        now_step = -1;
static bool        case_failed;
static unsigned long long now_nth;
static const char *now_mode = "";
static int         bare_database = 15; /* where cases without a prefix are played: nobody else's */

void wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED %s: %s: step %ld", now_backend, now_case, now_step + 1);
    if (now_nth) fprintf(stderr, " (allocation %llu fails %s)", now_nth, now_mode);
    fprintf(stderr, ": ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    case_failed = true;
}

_Noreturn void broken(const char *what, const char *where)
{
    fprintf(stderr, "the cases are broken: %s: %s\n", what, where);
    exit(2);
}

/* ------------------------------------------------------------------------------------------------------------ values -- */

void *need(size_t size)
{
    void *block = malloc(size ? size : 1);
    if (!block) abort();
    return block;
}

text text_of(const json_t *value)
{
    text t = {0};
    if (!value) return t;
    t.there = true;
    if (json_is_string(value)) {
        t.len = json_string_length(value);
        t.ptr = need(t.len + 1);
        memcpy(t.ptr, json_string_value(value), t.len);
        t.ptr[t.len] = 0;
        return t;
    }
    const json_t *part = json_object_get(value, "repeat");
    if (part) {
        const json_t *unit = json_array_get(part, 0);
        size_t        size = json_string_length(unit), times = (size_t)json_integer_value(json_array_get(part, 1));
        t.len = size * times;
        t.ptr = need(t.len + 1);
        for (size_t i = 0; i < times; i++) memcpy(t.ptr + i * size, json_string_value(unit), size);
        t.ptr[t.len] = 0;
        return t;
    }
    if ((part = json_object_get(value, "hex")) != NULL) {
        const char *hex = json_string_value(part);
        t.len = strlen(hex) / 2;
        t.ptr = need(t.len + 1);
        for (size_t i = 0; i < t.len; i++) {
            char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
            t.ptr[i] = (char)strtoul(pair, NULL, 16);
        }
        t.ptr[t.len] = 0;
        return t;
    }
    if (json_object_get(value, "lone_surrogate")) {
        t.len = 3;
        t.ptr = need(4);
        memcpy(t.ptr, "\xed\xa0\x80", 4);
        t.surrogate = true;
        return t;
    }
    if (json_object_get(value, "wrong_type")) {
        t.skip = true;
        return t;
    }
    broken("a text", now_case);
}

/* Seconds; skip: a wrong type. */
static double number_of(const json_t *value, bool *skip)
{
    if (json_is_number(value)) return json_number_value(value);
    const char *word = json_string_value(json_object_get(value, "number"));
    if (word) return strcmp(word, "nan") == 0 ? (double)NAN : strcmp(word, "inf") == 0 ? (double)INFINITY : -(double)INFINITY;
    if (!json_object_get(value, "wrong_type")) broken("a number", now_case);
    *skip = true;
    return 0;
}

int status_of(const char *code)
{
    for (int status = -1; status > -64; status--) {
        if (strcmp(cf_status_name(status), code) == 0) return status;
    }
    broken("a code", code);
}

static bool is_utf8(cf_slice s)
{
    for (size_t i = 0; i < s.len;) {
        unsigned char c = (unsigned char)s.ptr[i++];
        int           more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : -1;
        if (more < 0 || c > 0xf4) return false;
        for (; more; more--, i++) {
            if (i >= s.len || ((unsigned char)s.ptr[i] & 0xc0) != 0x80) return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- world -- */

typedef struct story {
    const backend *backend;
    const json_t  *one; /* the case */
    cf_stage      *stage;
    cf_loop       *loop;
    cf_store      *store;
    tb_log         log;
    cf_storage     storage;
    cf_secondary   secondary;
    record_story   records;
    cf_slice       receipt; /* for the next request */
    int64_t        timeout_ms;
    bool           met, stays; /* the failing allocation was met, and others fail still */
    bool           clears;  /* Redis: others have keys there too, so a case takes its own away */
} story;

typedef struct result {
    int      status;
    cf_error error;
    bool     hit;
    int64_t  number;
    char    *value;
    size_t   value_len;
    json_t  *keys; /* of a scan */
    brought  records;
    char     receipt[CF_RECEIPT_LEN];
    bool     has_receipt;
} result;

static void result_free(result *r)
{
    free(r->value);
    json_decref(r->keys);
    brought_free(&r->records);
    memset(r, 0, sizeof *r);
}

static bool composed(int kind) { return kind == CF_OP_COUNT || kind == CF_OP_CLEAR; }

static void memory_again(story *s)
{
    cf_stage_fail_allocation(s->stage, 0, false);
    s->met = s->met || now_nth;
    s->stays = false;
}

/* A stage's clock stands still, but a backend that was out of memory for a connection waits for its next attempt. */
static int wait_on_stage(story *s, cf_op *op)
{
    if (!s->backend->variable || !now_nth) return cf_op_wait(op);
    int status = cf_op_wait_for(op, s->stays && s->met ? 1 : 6); /* shorter, and a server on a busy machine would be taken for one that is not asked */
    if (cf_stage_failed(s->stage)) s->met = true;
    if (status == CF_PENDING && s->met) {
        cf_stage_advance(s->stage, s->stays ? s->timeout_ms / 8 + 1 : 40);
        s->records.moved = true;
    }
    return status;
}

/* Waits for a submitted operation and takes what it brought. */
static result take(story *s, int status, cf_op *op)
{
    result r = {0};
    if (!op) {
        if (status != CF_ENOMEM) wrong("cf_submit gave no operation and status %s", cf_status_name(status));
        r.status = status;
        r.error.status = status;
        return r;
    }
    if ((s->backend->has & HAS_MEMORY) && status == CF_PENDING && !composed(cf_op_kind(op))) wrong("a memory operation pends");
    bool of_records = cf_op_kind(op) >= CF_OP_INSERT;
    /* What no record can have is a miss of which no backend hears. */
    if (s->backend->pends && status == CF_OK && (!of_records || cf_op_hit(op))) wrong("an operation of a backend that pends was done at once");
    if (status != CF_PENDING && cf_op_status(op) != status) wrong("cf_submit returned %d; the status is %d", status, cf_op_status(op));
    while (status == CF_PENDING) status = wait_on_stage(s, op);
    r.status = status;
    cf_slice receipt = cf_op_receipt(op);
    r.has_receipt = receipt.len != 0;
    if (r.has_receipt) memcpy(r.receipt, receipt.ptr, sizeof r.receipt);
    r.error = *cf_op_error(op);
    if (r.error.status != status) wrong("the error's status is %d and the operation's %d", r.error.status, status);
    r.hit = cf_op_hit(op);
    r.number = cf_op_number(op);
    cf_slice value = cf_op_value(op);
    r.value = need(value.len);
    r.value_len = value.len;
    if (value.len) memcpy(r.value, value.ptr, value.len);
    if (of_records) r.records = bring(op);
    if (status < 0 && (r.hit || (value.len && status != CF_EEXISTS))) wrong("a failed operation has a hit or a value");
    cf_op_free(op);
    return r;
}

static result submit(story *s, const cf_request *request)
{
    cf_op *op = NULL;
    int    status = submit_lent(s->store, request, &op);
    return take(s, status, op);
}

/* Every page, in one list. A page that fails fails the scan. */
static result scan_all(story *s, cf_slice prefix)
{
    json_t *keys = json_array();
    char    cursor[256];
    size_t  cursor_len = 0;
    for (;;) {
        cf_op *op = NULL;
        int    status = submit_lent(s->store, CF_REQUEST(CF_OP_SCAN, .key = prefix, .cursor = cf_bytes(cursor, cursor_len)), &op);
        json_t *page = json_array();
        cf_slice next = {NULL, 0};
        char     kept[256];
        if (op) {
            while (cf_op_status(op) == CF_PENDING) wait_on_stage(s, op);
            cf_slice key;
            while (cf_op_status(op) == CF_OK && cf_op_next_key(op, &key)) json_array_append_new(page, json_stringn(key.ptr, key.len));
            next = cf_op_cursor(op);
            if (next.len >= sizeof kept) wrong("the cursor has %zu bytes", next.len);
            else if (next.len) memcpy(kept, next.ptr, next.len);
        }
        result r = take(s, status, op);
        if (r.status != CF_OK) {
            json_decref(keys);
            json_decref(page);
            return r;
        }
        if (!r.hit) wrong("a scan has no hit");
        result_free(&r);
        json_array_extend(keys, page);
        json_decref(page);
        if (next.len == 0) break;
        memcpy(cursor, kept, next.len);
        cursor_len = next.len;
    }
    result r = {.keys = keys, .hit = true};
    return r;
}

/* ------------------------------------------------------------------------------------------------------------- steps -- */

typedef enum { DONE, PASSED_OVER } fate;

/* The server tells its time from a file: a new one in its place, so that it never reads half of one. */
static void set_server_clock(const story *s)
{
    const char *file = getenv("CF_TEST_REDIS_CLOCK_FILE");
    char        draft[4096];
    if (!s->backend->variable || !(s->backend->has & HAS_CLOCK)) return;
    if (!file) broken("not set", "CF_TEST_REDIS_CLOCK_FILE");
    snprintf(draft, sizeof draft, "%s.new", file);
    FILE *out = fopen(draft, "w");
    if (!out || fprintf(out, "%lld\n", (long long)cf_stage_wall_ms(s->stage)) < 0 || fclose(out) != 0 || rename(draft, file) != 0)
        broken("the clock of the server cannot be set", file);
}

/* Sets up the flags of a write; CF_EINVAL in `r` when a number is refused by the conversion that every host uses. */
static bool timing(story *s, const json_t *step, cf_request *request, result *r, bool *skip)
{
    const json_t *ttl = json_object_get(step, "ttl"), *expires_in = json_object_get(step, "expires_in");
    if (ttl) {
        request->flags |= CF_TTL;
        r->status = cf_ttl_from_seconds(number_of(ttl, skip), &request->ttl_ms, &r->error);
        if (*skip || r->status != CF_OK) return false;
    }
    if (expires_in) {
        double seconds = (double)cf_stage_wall_ms(s->stage) / 1000 + number_of(expires_in, skip);
        request->flags |= CF_EXPIRES_AT;
        r->status = cf_instant_from_seconds(seconds, &request->expires_at_ms, &r->error);
        if (*skip || r->status != CF_OK) return false;
    }
    if (json_is_true(json_object_get(step, "keep_ttl"))) request->flags |= CF_KEEP_TTL;
    if (json_is_true(json_object_get(step, "if_absent"))) request->flags |= CF_IF_ABSENT;
    if (json_is_true(json_object_get(step, "if_present"))) request->flags |= CF_IF_PRESENT;
    return true;
}

static result fill(story *s, const json_t *step)
{
    cf_slice prefix = cf_text(json_string_value(json_object_get(step, "prefix")));
    long     count = (long)json_integer_value(json_object_get(step, "count"));
    result   r = {0};
    for (long i = 0; i < count; i++) {
        char       key[64];
        int        len = snprintf(key, sizeof key, "%.*s%04ld", (int)prefix.len, prefix.ptr, i);
        cf_request request = {.size = sizeof request,
                              .kind = CF_OP_SET,
                              .key = cf_bytes(key, (size_t)len),
                              .value = cf_bytes(key, (size_t)len)};
        bool       skip = false;
        if (!timing(s, step, &request, &r, &skip)) return r;
        result_free(&r);
        r = submit(s, &request);
        if (r.status != CF_OK) return r;
    }
    return r;
}

static fate perform(story *s, const json_t *step, result *r)
{
    const char *what = json_string_value(json_object_get(step, "do"));
    text        key = {0}, value = {0}, expected = {0};
    bool        skip = false;
    memset(r, 0, sizeof *r);
    if (strcmp(what, "advance") == 0) {
        cf_stage_advance(s->stage, llround(json_number_value(json_object_get(step, "seconds")) * 1000));
        set_server_clock(s);
        return DONE;
    }
    if (strcmp(what, "fill") == 0) {
        *r = fill(s, step);
        return DONE;
    }
    if (strcmp(what, "get_many") == 0) { /* the hosts compose it of gets, and so do we; the keys come in the value's place */
        json_t *all = json_object(), *one;
        size_t  i;
        json_array_foreach (json_object_get(step, "keys"), i, one) {
            text k = text_of(one);
            *r = submit(s, CF_REQUEST(CF_OP_GET, .key = slice(k)));
            if (r->status == CF_OK) json_object_set_new(all, k.ptr, r->hit ? json_stringn(r->value, r->value_len) : json_null());
            free(k.ptr);
            if (r->status != CF_OK) break;
            result_free(r);
        }
        if (r->status == CF_OK) r->keys = all;
        else json_decref(all);
        return DONE;
    }

    if (is_record_step(what)) {
        cf_op *record_op = NULL;
        int    told = record_submit(&s->records, step, &record_op, &skip);
        if (skip) return PASSED_OVER;
        *r = take(s, told, record_op);
        record_remember(&s->records, step, r->status, r->number, &r->records);
        record_discreet(step, &r->error);
        return DONE;
    }

    cf_request  request = {.size = sizeof request};
    cf_call     call = {0};
    cf_op      *op = NULL;
    int         status;
    const char *dot = strchr(what, '.');
    if (strncmp(what, "storage.", 8) == 0) {
        const json_t *id = json_object_get(step, "id"), *state = json_object_get(step, "state");
        char          digits[32];
        if (json_is_integer(id)) {
            snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(id));
            json_t *as_text = json_string(digits);
            key = text_of(as_text);
            json_decref(as_text);
        } else {
            key = text_of(id);
        }
        if (state && json_object_get(state, "repeat")) {
            text    inner = text_of(state);
            json_t *as_text = json_stringn(inner.ptr, inner.len);
            value.ptr = json_dumps(as_text, JSON_COMPACT | JSON_ENCODE_ANY);
            json_decref(as_text);
            free(inner.ptr);
        } else if (state) {
            value.ptr = json_dumps(state, JSON_COMPACT | JSON_ENCODE_ANY);
        }
        if (value.ptr) value.len = strlen(value.ptr);
        if (key.skip) skip = true;
        else if (strcmp(dot, ".get") == 0) status = cf_storage_get(&s->storage, slice(key), &call, &op), *r = take(s, status, op);
        else status = cf_storage_set(&s->storage, slice(key), slice(value), NULL, &op), *r = take(s, status, op);
        if (strcmp(dot, ".get") == 0 && r->status == CF_OK && r->hit) {
            json_t *parsed = json_loadb(r->value, r->value_len, JSON_DECODE_ANY, NULL);
            if (!parsed) {
                r->status = cf_error_set(&r->error, CF_ECORRUPT, CF_NOT_APPLIED, "The state is not JSON.");
            }
            r->keys = parsed;
        }
        goto out;
    }

    key = text_of(json_object_get(step, json_object_get(step, "prefix") ? "prefix" : "key"));
    value = text_of(json_object_get(step, "value"));
    expected = text_of(json_object_get(step, "if_equal"));
    skip = key.skip || value.skip || expected.skip || value.surrogate;
    if (skip) goto out;

    if (strncmp(what, "secondary.", 10) == 0) {
        const json_t *ttl = json_object_get(step, "ttl");
        double        seconds = ttl ? number_of(ttl, &skip) : 0;
        if (skip) goto out;
        if (strcmp(dot, ".set") == 0) {
            status = cf_secondary_set(&s->secondary, slice(key), slice(value), ttl ? &seconds : NULL, &call, &op), *r = take(s, status, op);
            if (r->status == CF_OK && !r->hit && !(seconds <= 0 && ttl)) wrong("a set of SecondaryStorage has no hit");
        } else if (strcmp(dot, ".get") == 0) {
            status = cf_secondary_get(&s->secondary, slice(key), NULL, &op), *r = take(s, status, op);
        } else if (strcmp(dot, ".pop") == 0) {
            status = cf_secondary_pop(&s->secondary, slice(key), &call, &op), *r = take(s, status, op);
        } else {
            status = cf_secondary_delete(&s->secondary, slice(key), &call, &op), *r = take(s, status, op);
        }
        goto out;
    }

    request.key = slice(key);
    request.value = slice(value);
    request.receipt = s->receipt;
    if (expected.there) {
        request.flags |= CF_IF_EQUAL;
        request.expected = slice(expected);
    }
    if (!timing(s, step, &request, r, &skip)) goto out;
    const json_t *by = json_object_get(step, "by");
    request.by = 1;
    if (by && !json_is_integer(by)) skip = true;
    else if (by) request.by = json_integer_value(by);
    if (json_is_true(json_object_get(step, "force"))) request.flags |= CF_FORCE;
    static const struct {
        const char *word;
        int         kind;
    } kinds[] = {{"get", CF_OP_GET},     {"get_bytes", CF_OP_GET}, {"set", CF_OP_SET},     {"delete", CF_OP_DELETE},
                 {"pop", CF_OP_POP},     {"pop_bytes", CF_OP_POP}, {"touch", CF_OP_TOUCH}, {"incr", CF_OP_INCR},
                 {"count", CF_OP_COUNT}, {"clear", CF_OP_CLEAR},   {"scan", CF_OP_SCAN}};
    request.kind = -1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(what, kinds[i].word) == 0) request.kind = kinds[i].kind;
    }
    if (request.kind < 0) broken("a step does", what);
    if (skip) goto out;
    if (request.kind == CF_OP_SCAN) *r = scan_all(s, request.key);
    else *r = submit(s, &request);
    if (r->status == CF_OK && r->hit && (strcmp(what, "get") == 0 || strcmp(what, "pop") == 0) &&
        !is_utf8(cf_bytes(r->value, r->value_len))) {
        r->status = cf_error_set(&r->error, CF_ECORRUPT, CF_NOT_APPLIED, "The value is not UTF-8.");
    }

out:
    /* A sentence must not repeat what it was given. Short texts would be found in any sentence. */
    if (r->status < 0) {
        if (r->error.text[0] == 0 && r->status != CF_ENOMEM) wrong("the error has no sentence");
        if (memchr(r->error.text, 0, sizeof r->error.text) == NULL) wrong("the sentence has no end");
        if (key.len >= 6 && strlen(key.ptr) >= 6 && strstr(r->error.text, key.ptr)) wrong("the sentence shows the key: %s", r->error.text);
        if (value.len >= 6 && strlen(value.ptr) >= 6 && strstr(r->error.text, value.ptr)) wrong("the sentence shows the value: %s", r->error.text);
    }
    free(key.ptr);
    free(value.ptr);
    free(expected.ptr);
    return skip ? PASSED_OVER : DONE;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void check_keys(const json_t *step, const json_t *keys)
{
    size_t       count = json_array_size(keys);
    const char **sorted = need(count * sizeof *sorted);
    for (size_t i = 0; i < count; i++) sorted[i] = json_string_value(json_array_get(keys, i));
    qsort(sorted, count, sizeof *sorted, by_text);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) wrong("a key came twice: %s", sorted[i]);
    }
    const json_t *length = json_object_get(step, "expect_length"), *expect = json_object_get(step, "expect");
    if (length && (json_int_t)count != json_integer_value(length)) wrong("%zu keys came", count);
    if (expect) {
        bool same = json_array_size(expect) == count;
        for (size_t i = 0; same && i < count; i++) {
            const json_t *one = json_array_get(expect, i);
            same = strcmp(json_string_value(one), sorted[i]) == 0;
        }
        if (!same) {
            char *dumped = json_dumps(keys, JSON_COMPACT);
            wrong("scan gave %s", dumped);
            free(dumped);
        }
    }
    free(sorted);
}

static void check(story *s, const json_t *step, const result *r)
{
    const char   *what = json_string_value(json_object_get(step, "do"));
    const char   *code = json_string_value(json_object_get(step, "error"));
    const json_t *expect = json_object_get(step, "expect");
    if (code) {
        if (r->status != status_of(code)) wrong("%s in place of %s", cf_status_name(r->status), code);
        else if (r->error.outcome != CF_NOT_APPLIED) wrong("the outcome is %s", cf_outcome_name(r->error.outcome));
        else if (json_object_get(step, "existing")) record_check_existing(&s->records, step, &r->records);
        return;
    }
    if (r->status != CF_OK) {
        wrong("%s: %s", cf_status_name(r->status), r->error.text);
        return;
    }
    if (is_record_step(what)) {
        record_check(&s->records, step, r->hit, r->number, &r->records);
        return;
    }
    if (strcmp(what, "scan") == 0) {
        check_keys(step, r->keys);
        return;
    }
    if (!expect) return;
    if (strcmp(what, "get_many") == 0 || (strcmp(what, "storage.get") == 0 && r->keys)) {
        const json_t *unit = json_object_get(expect, "repeat");
        text          t = unit ? text_of(expect) : (text){0};
        json_t       *whole = unit ? json_stringn(t.ptr, t.len) : json_deep_copy(expect);
        if (!json_equal(r->keys, whole)) wrong("another state or other values");
        json_decref(whole);
        free(t.ptr);
    } else if (json_is_boolean(expect)) {
        if (r->hit != json_is_true(expect)) wrong("hit is %s", r->hit ? "true" : "false");
    } else if (json_is_integer(expect)) {
        if (!r->hit) wrong("no hit");
        if (r->number != json_integer_value(expect)) wrong("the number is %lld", (long long)r->number);
    } else if (json_is_null(expect)) {
        if (r->hit) wrong("a hit in place of a miss");
    } else {
        text t = text_of(expect);
        if (!r->hit) wrong("a miss");
        else if (t.len != r->value_len || (t.len && memcmp(t.ptr, r->value, t.len) != 0)) {
            wrong("the value is %.*s", (int)(r->value_len < 60 ? r->value_len : 60), r->value);
        }
        free(t.ptr);
    }
}

/* ------------------------------------------------------------------------------------------------- opening and ending -- */

/* Whether the case is about everybody's keys, so that a prefix would spoil it. */
static bool wants_no_prefix(const json_t *one)
{
    json_t *step;
    size_t  i;
    json_array_foreach (json_object_get(one, "steps"), i, step) {
        const char *what = json_string_value(json_object_get(step, "do")), *prefix = json_string_value(json_object_get(step, "prefix"));
        if (strcmp(what, "clear") == 0 && prefix && !*prefix && json_object_get(step, "error")) return true;
    }
    return false;
}

/* A URL of the environment, with another database where one is wanted. */
static void redis_url(const char *variable, int db, char *out, size_t size)
{
    const char *url = getenv(variable);
    if (!url) broken("not set: see with_servers.sh", variable);
    const char *query = strchr(url, '?');
    size_t      path = query ? (size_t)(query - url) : strlen(url);
    if (db < 0) {
        snprintf(out, size, "%s", url);
    } else if (strncmp(url, "redis+unix:", 11) == 0) {
        snprintf(out, size, "%s%cdb=%d", url, query ? '&' : '?', db);
    } else {
        while (url[path - 1] != '/') path--;
        snprintf(out, size, "%.*s%d%s", (int)path, url, db, query ? query : "");
    }
}

/* A prefix in front of the case's, that no other case and no other process has. One that leaves no room stays as it is. */
static bool own_prefix(text *prefix)
{
    static unsigned long count;
    char                 own[48];
    size_t               len = (size_t)snprintf(own, sizeof own, "c%lx-%lx:", (unsigned long)getpid(), count++);
    if (prefix->len + len > CF_PREFIX_MAX) return false;
    char *whole = need(len + prefix->len + 1);
    memcpy(whole, own, len);
    if (prefix->len) memcpy(whole + len, prefix->ptr, prefix->len);
    free(prefix->ptr);
    prefix->ptr = whole;
    prefix->len += len;
    return true;
}

/* A database that no other story has. */
static char database[128], folder[64];

static void database_over(void) { rmdir(folder); }

static void database_begin(void)
{
    static unsigned long count;
    if (!*folder) {
        snprintf(folder, sizeof folder, "%s/cf-cases.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(folder)) broken("mkdtemp", folder);
        atexit(database_over);
    }
    snprintf(database, sizeof database, "%s/%lu.db", folder, count++);
}

static void database_end(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-reserve"};
    char path[160];
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(path, sizeof path, "%s%s", database, ends[i]);
        unlink(path);
    }
}

/* Fails only for want of memory; `error` is what opening the store said. PASSED_OVER: this case is not for C. */
static fate open_story(story *s, cf_error *error)
{
    const json_t   *open = json_object_get(s->one, "open");
    cf_open_options options = {.size = sizeof options};
    text            prefix = text_of(json_object_get(open, "prefix"));
    const char     *query = json_string_value(json_object_get(open, "query"));
    bool            skip = prefix.skip;
    char            url[1024];
    memset(error, 0, sizeof *error);
    set_server_clock(s);
    bool alone = s->backend->variable && !wants_no_prefix(s->one) && own_prefix(&prefix);
    options.prefix = slice(prefix);
    static const cf_key ring[] = {{2, "the one that seals"}, {1, "an older one"}};
    if (s->backend->seals) {
        options.keys = ring;
        options.key_count = 2;
        options.seal_values = true;
    }
    options.hash_keys = s->backend->hides;
    const json_t *ttl = json_object_get(open, "ttl"), *timeout = json_object_get(open, "timeout"),
                 *secondary = json_object_get(open, "secondary_ttl");
    if (ttl) cf_ttl_from_seconds(number_of(ttl, &skip), &options.ttl_ms, error);
    if (timeout && !error->status) cf_timeout_from_seconds(number_of(timeout, &skip), &options.timeout_ms, error);
    if (secondary && cf_ttl_from_seconds(number_of(secondary, &skip), &s->secondary.ttl_ms, error)) broken("ttl", now_case);
    s->timeout_ms = options.timeout_ms ? options.timeout_ms : 5000;
    if (!skip && error->status == CF_OK) {
        if (s->backend->variable) {
            const bool apart = !s->backend->one_database && (wants_no_prefix(s->one) || now_nth);
            redis_url(s->backend->variable, apart ? bare_database : -1, url, sizeof url);
            cf_open(s->loop, cf_text(url), &options, &s->store, error);
            s->clears = s->store != NULL && !(now_nth && alone);
        } else if (s->backend->url) {
            if (s->backend->file) database_begin();
            snprintf(url, sizeof url, "%s%s%s%s", s->backend->url, s->backend->file ? database : "", query ? "?" : "", query ? query : "");
            cf_loop_set_blocking(s->loop, s->backend->waits);
            cf_open(s->loop, cf_text(url), &options, &s->store, error);
        } else {
            tb_open(s->loop, s->backend->manner, s->backend->slots, &s->log, &options, &s->store, error);
        }
        if ((error->status == CF_OK) != (s->store != NULL)) wrong("open: a store without success, or the other way round");
    }
    s->storage.store = s->store;
    s->secondary.store = s->store;
    record_open(&s->records, s->store, s->stage, open);
    free(prefix.ptr);
    return skip ? PASSED_OVER : DONE;
}

static void end_story(story *s)
{
    record_close(&s->records);
    if (s->store && s->clears) {
        memory_again(s);
        result r = submit(s, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE, .timeout_ms = 60000));
        if (r.status != CF_OK) wrong("clearing up: %s", r.error.text);
        result_free(&r);
    }
    if (s->store) {
        int status = cf_store_close(s->store, NULL);
        if (status != CF_OK) wrong("close: %s", cf_status_name(status));
        if (s->backend->file) database_end();
        if (!s->backend->url && !s->backend->variable && s->log.closes != 1) wrong("the backend was closed %d times", s->log.closes);
    }
    cf_loop_free(s->loop);
    if (cf_stage_blocks(s->stage) != 0) wrong("%lld blocks were not released", (long long)cf_stage_blocks(s->stage));
    cf_stage_free(s->stage);
}

static bool one_millisecond(const json_t *ttl) { return json_is_number(ttl) && json_number_value(ttl) > 0 && json_number_value(ttl) <= 0.001; }

static bool can_play(const backend *b, const json_t *one)
{
    json_t *need_one;
    size_t  i;
    json_array_foreach (json_object_get(one, "needs"), i, need_one) {
        const char *word = json_string_value(need_one);
        unsigned    bit = 0;
        for (size_t c = 0; c < sizeof capabilities / sizeof *capabilities; c++) {
            if (strcmp(word, capabilities[c].word) == 0) bit = capabilities[c].bit;
        }
        if (!bit) broken("needs", word);
        if (!(b->has & bit)) return false;
    }
    bool          moves = false;
    json_t       *step;
    const json_t *open = json_object_get(one, "open");
    if (!b->variable) return true;
    if (b->one_database && wants_no_prefix(one)) return false; /* it would be about the keys of others too */
    /* Redis keeps a value through the millisecond of its expiry, so it is asked for one less; a life of one has none to give. */
    if (one_millisecond(json_object_get(open, "ttl")) || one_millisecond(json_object_get(open, "secondary_ttl"))) return false;
    json_array_foreach (json_object_get(one, "steps"), i, step) {
        if (strcmp(json_string_value(json_object_get(step, "do")), "advance") == 0) moves = true;
        if (!json_object_get(step, "error") && one_millisecond(json_object_get(step, "ttl"))) return false;
    }
    return moves == ((b->has & HAS_CLOCK) != 0);
}

/* --------------------------------------------------------------------------------------------------- played in earnest -- */

static fate play(const backend *b, const json_t *one)
{
    story    s = {.backend = b, .one = one};
    cf_error error;
    now_step = -1;
    s.stage = cf_stage_new();
    if (!s.stage || cf_loop_new(cf_stage_platform(s.stage), &s.loop) != CF_OK) abort();
    const char *open_error = json_string_value(json_object_get(one, "open_error"));
    fate        f = open_story(&s, &error);
    if (f == DONE && open_error) {
        if (error.status != status_of(open_error)) wrong("open: %s", cf_status_name(error.status));
        if (error.outcome != CF_NOT_APPLIED || error.text[0] == 0) wrong("open: the error lacks outcome or sentence");
    } else if (f == DONE && error.status != CF_OK) {
        wrong("open: %s", error.text);
    }
    json_t *step;
    size_t  i;
    if (f == DONE && s.store) {
        json_array_foreach (json_object_get(one, "steps"), i, step) {
            result r;
            now_step = (long)i;
            if (perform(&s, step, &r) == DONE) check(&s, step, &r);
            result_free(&r);
            if (cf_loop_pending(s.loop) != 0) wrong("operations are pending after the step");
            if (case_failed) break;
        }
    }
    end_story(&s);
    return f;
}

/* -------------------------------------------------------------------------------------------------- without memory -- */

/* What the store holds under the keys that the case names, as one number. Gets would count as use under a cap, so there only
 * the keys are looked at. */
static uint64_t snapshot(story *s)
{
    uint64_t hash = 14695981039346656037u;
#define MIX(ptr_, len_)                                                                                                      \
    for (size_t mix_ = 0; mix_ < (len_); mix_++) hash = (hash ^ (unsigned char)(ptr_)[mix_]) * 1099511628211u
    if (json_object_get(json_object_get(s->one, "open"), "query")) {
        result   r = scan_all(s, cf_text(""));
        uint64_t sum = 0;
        size_t   i;
        json_t  *key;
        json_array_foreach (r.keys, i, key) {
            hash = 14695981039346656037u;
            MIX(json_string_value(key), json_string_length(key));
            sum += hash;
        }
        result_free(&r);
        return sum;
    }
    size_t  i;
    json_t *step;
    json_array_foreach (json_object_get(s->one, "steps"), i, step) {
        static const char *const names[] = {"key", "id", "prefix"};
        for (size_t n = 0; n < 3; n++) {
            const json_t *name = json_object_get(step, names[n]);
            char          digits[32];
            text          key = {0};
            if (json_is_integer(name)) {
                snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(name));
                result r = submit(s, CF_REQUEST(CF_OP_GET, .key = cf_text(digits)));
                MIX(r.value, r.value_len);
                hash = (hash ^ (r.hit ? 1u : 2u)) * 1099511628211u;
                result_free(&r);
                continue;
            }
            if (!name) continue;
            key = text_of(name);
            if (!key.skip && key.len && key.len <= CF_KEY_MAX) {
                result r = submit(s, CF_REQUEST(CF_OP_GET, .key = slice(key)));
                MIX(r.value, r.value_len);
                hash = (hash ^ (r.hit ? 1u : 2u)) * 1099511628211u;
                result_free(&r);
            }
            free(key.ptr);
        }
    }
    return hash;
}

/* A step of many operations is not one that happens or does not: part of it may have happened. */
static bool in_parts(const json_t *step)
{
    const char *what = json_string_value(json_object_get(step, "do"));
    return strcmp(what, "fill") == 0 || strcmp(what, "clear") == 0;
}

typedef enum { ONCE, FOR_GOOD, FOR_GOOD_THEN_LEAVE } chaos;

/* Over a connection more than NO_MEMORY is right when memory is short: the connection may be what there was none for, and an answer may be. */
static bool may_be_memory(const story *s, const result *r)
{
    return r->status == CF_ENOMEM || (s->backend->variable && cf_stage_failed(s->stage) && (r->status == CF_EUNAVAILABLE || r->status == CF_ETIMEOUT));
}

/* The snapshots before each step, from a run without failures. */
static uint64_t *rehearse(const backend *b, const json_t *one)
{
    size_t    steps = json_array_size(json_object_get(one, "steps"));
    uint64_t *before = need((steps + 1) * sizeof *before);
    story     s = {.backend = b, .one = one};
    cf_error  error;
    s.stage = cf_stage_new();
    if (!s.stage || cf_loop_new(cf_stage_platform(s.stage), &s.loop) != CF_OK) abort();
    if (open_story(&s, &error) == DONE && s.store) {
        for (size_t i = 0; i < steps; i++) {
            result r;
            before[i] = snapshot(&s);
            perform(&s, json_array_get(json_object_get(one, "steps"), i), &r);
            result_free(&r);
        }
    }
    end_story(&s);
    return before;
}

static void blocks_only(story *s)
{
    record_close(&s->records);
    cf_loop_free(s->loop); /* closes the store */
    if (cf_stage_blocks(s->stage) != 0) wrong("%lld blocks were not released", (long long)cf_stage_blocks(s->stage));
    if (s->store && !s->backend->url && !s->backend->variable && s->log.closes != 1) wrong("the backend was closed %d times", s->log.closes);
    cf_stage_free(s->stage);
}

/* One run with one failure. Returns whether the failure was met. */
static bool play_failing(const backend *b, const json_t *one, uint64_t nth, chaos how, const uint64_t *before)
{
    story    s = {.backend = b, .one = one};
    cf_error error;
    now_step = -1;
    s.stage = cf_stage_new();
    if (!s.stage) abort();
    cf_stage_fail_allocation(s.stage, nth, how != ONCE);
    s.stays = how != ONCE;
    int status = cf_loop_new(cf_stage_platform(s.stage), &s.loop);
    if (status != CF_OK) {
        if (status != CF_ENOMEM || s.loop || !cf_stage_failed(s.stage)) wrong("cf_loop_new: %s", cf_status_name(status));
        if (cf_stage_blocks(s.stage) != 0) wrong("cf_loop_new left blocks behind");
        memory_again(&s);
        if (cf_loop_new(cf_stage_platform(s.stage), &s.loop) != CF_OK) abort();
        end_story(&s);
        return true;
    }
    const char *open_error = json_string_value(json_object_get(one, "open_error"));
    fate        f = open_story(&s, &error);
    bool        failed = cf_stage_failed(s.stage);
    if (f == DONE && error.status == CF_ENOMEM) {
        if (!failed) wrong("open: NO_MEMORY and nothing failed");
        if (how == FOR_GOOD_THEN_LEAVE) {
            blocks_only(&s);
            return true;
        }
        memory_again(&s);
        memset(&s.log, 0, sizeof s.log);
        open_story(&s, &error);
        if (error.status != (open_error ? status_of(open_error) : CF_OK)) wrong("open again: %s", error.text);
        end_story(&s);
        return true;
    }
    if (f == PASSED_OVER || !s.store) {
        end_story(&s);
        return failed;
    }
    size_t  i;
    json_t *step;
    json_array_foreach (json_object_get(one, "steps"), i, step) {
        result r;
        now_step = (long)i;
        fate had = perform(&s, step, &r);
        if (had == DONE && may_be_memory(&s, &r)) {
            if (!cf_stage_failed(s.stage)) wrong("NO_MEMORY and nothing failed");
            failed = true;
            const char *what = json_string_value(json_object_get(step, "do"));
            /* SQLite has committed a pop before there is room for its value. */
            bool may_lose = s.backend->variable || (!(s.backend->has & HAS_MEMORY) && s.backend->url && strstr(what, "pop"));
            bool lost = may_lose && r.error.outcome != CF_NOT_APPLIED, again = lost && r.has_receipt && !strchr(what, '.');
            char receipt[CF_RECEIPT_LEN];
            memcpy(receipt, r.receipt, sizeof receipt);
            bool applied = r.error.outcome != CF_NOT_APPLIED;
            if (applied && !in_parts(step) && !is_record_step(what) && !lost) wrong("the outcome is %s", cf_outcome_name(r.error.outcome));
            result_free(&r);
            if (how == FOR_GOOD_THEN_LEAVE) {
                blocks_only(&s);
                return true;
            }
            memory_again(&s);
            if (cf_loop_pending(s.loop) != 0) wrong("operations are pending after a failure");
            if (is_record_step(what) && applied) { /* the answer alone was lost */
                end_story(&s);
                return true;
            }
            if (lost && !again) { /* it may have happened or not: nothing can be said of the steps that follow */
                end_story(&s);
                return true;
            }
            if (again) { /* whatever happened: with the receipt the story is as it should be */
                s.receipt = cf_bytes(receipt, sizeof receipt);
                perform(&s, step, &r);
                s.receipt = cf_bytes(NULL, 0);
                check(&s, step, &r);
                result_free(&r);
                continue;
            }
            if (in_parts(step)) { /* the rest of it, and no comparison of counts: some are gone already */
                perform(&s, step, &r);
                if (json_object_get(step, "error")) check(&s, step, &r);
                else if (r.status != CF_OK) wrong("again: %s", r.error.text);
                result_free(&r);
                continue;
            }
            if (before && snapshot(&s) != before[i]) wrong("the failed step has changed something");
            perform(&s, step, &r);
        }
        if (had == DONE) check(&s, step, &r);
        result_free(&r);
        if (case_failed) break;
    }
    failed = cf_stage_failed(s.stage) || failed;
    end_story(&s);
    return failed;
}

static bool opens_slowly(const backend *b) { return b->url && !(b->has & HAS_MEMORY); }

/* Every allocation while they are few; of thousands, ever fewer. Over a connection each run costs a thousand times as much; and where opening takes long, its
 * allocations, the first, are the same in each of hundreds of cases. */
static uint64_t after(const backend *b, uint64_t nth)
{
    uint64_t all = b->variable ? 40 : opens_slowly(b) && !getenv("CF_LONG") ? 16 : 80;
    return nth < all ? nth + 1 : nth + nth / (b->variable ? 2 : 4);
}

/* What the runs of the last case have left: some end without memory to take it away. */
static void empty_database(const backend *b)
{
    cf_loop  *loop;
    cf_store *store;
    char      url[1024];
    redis_url(b->variable, bare_database, url, sizeof url);
    if (cf_loop_new(NULL, &loop) != CF_OK || cf_open(loop, cf_text(url), NULL, &store, NULL) != CF_OK) abort();
    if (ask(store, CF_REQUEST(CF_OP_CLEAR, .flags = CF_FORCE, .timeout_ms = 60000)).status != CF_OK) broken("cannot be emptied", b->name);
    cf_loop_free(loop);
}

static bool many_keys(const json_t *one)
{
    json_t *step;
    size_t  i;
    json_array_foreach (json_object_get(one, "steps"), i, step) if (strcmp(json_string_value(json_object_get(step, "do")), "fill") == 0) return true;
    return false;
}

static unsigned long long play_chaos(const backend *b, const json_t *one)
{
    static const char *const names[] = {"once", "for good", "for good, then all is closed"};
    const json_t      *timeout = json_object_get(json_object_get(one, "open"), "timeout");
    if (b->variable && json_is_number(timeout) && json_number_value(timeout) < 0.1) return 0; /* its deadlines pass while the next attempt is waited for */
    uint64_t          *before = json_object_get(one, "steps") ? rehearse(b, one) : NULL;
    unsigned long long runs = 0;
    if (b->variable && !b->one_database) empty_database(b);
    const int stride = opens_slowly(b) ? 3 : env_number("CF_CHAOS_FEWER", 0) || b->variable ? 2 : 1; /* the first manner; without the second; all */
    for (int how = ONCE; how <= FOR_GOOD_THEN_LEAVE && !case_failed; how += stride) {
        now_mode = names[how];
        for (uint64_t nth = 1; !case_failed; nth = after(b, nth)) {
            now_nth = nth;
            runs++;
            if (!play_failing(b, one, nth, (chaos)how, before)) break;
            if (nth > 10000000) wrong("allocations fail for ever");
        }
    }
    now_nth = 0;
    free(before);
    return runs;
}

/* -------------------------------------------------------------------------------------------------------------- main -- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static json_t *load(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) broken("no folder", dir);
    char  *files[64];
    size_t count = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t len = strlen(e->d_name);
        if (len > 5 && strcmp(e->d_name + len - 5, ".json") == 0 && count < 64) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            files[count++] = strdup(path);
        }
    }
    closedir(d);
    qsort(files, count, sizeof *files, by_name);
    json_t *all = json_array(), *names = json_object();
    for (size_t i = 0; i < count; i++) {
        json_error_t error;
        json_t      *cases = json_load_file(files[i], JSON_ALLOW_NUL, &error);
        if (!json_is_array(cases)) {
            fprintf(stderr, "%s:%d: %s\n", files[i], error.line, error.text);
            exit(2);
        }
        json_t *one;
        size_t  n;
        json_array_foreach (cases, n, one) {
            const char *name = json_string_value(json_object_get(one, "name"));
            if (!name || json_object_get(names, name)) broken("a name is missing or not unique", name ? name : files[i]);
            if (!json_object_get(one, "steps") == !json_object_get(one, "open_error")) broken("steps or open_error", name);
            json_object_set_new(names, name, json_true());
        }
        json_array_extend(all, cases);
        json_decref(cases);
        free(files[i]);
    }
    json_decref(names);
    return all;
}

int main(int argc, char **argv)
{
    const char *dir = NULL, *only = NULL, *match = NULL;
    bool        with_chaos = false, verbose = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--chaos") == 0) with_chaos = true, bare_database = 14; /* beside the other at the same time */
        else if (strcmp(argv[i], "--verbose") == 0) verbose = true;
        else if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc) only = argv[++i];
        else if (strcmp(argv[i], "--match") == 0 && i + 1 < argc) match = argv[++i];
        else dir = argv[i];
    }
    if (!dir) broken("usage", "case_runner DIR [--chaos] [--backend NAME] [--match TEXT] [--verbose]");
    hang_guard(300);
    json_t            *all = load(dir), *one;
    unsigned           passed = 0, failed = 0, lacking = 0;
    unsigned long long runs = 0;
    size_t             i;
    for (size_t b = 0; b < sizeof backends / sizeof *backends; b++) {
        if (only && strcmp(only, backends[b].name) != 0) continue;
        now_backend = backends[b].name;
        json_array_foreach (all, i, one) {
            now_case = json_string_value(json_object_get(one, "name"));
            if (match && !strstr(now_case, match)) continue;
            if (!can_play(&backends[b], one)) {
                lacking++;
                continue;
            }
            case_failed = false;
            if (verbose) fprintf(stderr, "%s: %s\n", now_backend, now_case);
            if (with_chaos && backends[b].variable && many_keys(one)) continue; /* their memory is not the connection's */
            if (with_chaos) {
                runs += play_chaos(&backends[b], one);
            } else if (play(&backends[b], one) == PASSED_OVER) {
                continue; /* only hosts can give this open what it refuses */
            }
            if (case_failed) failed++;
            else passed++;
        }
    }
    json_decref(all);
    if (with_chaos) printf("%llu runs with a failing allocation\n", runs);
    printf("%u passed, %u failed (%u not played: the backend lacks what they need)\n", passed, failed, lacking);
    if (passed + failed == 0) broken("nothing was played", only ? only : dir);
    return failed != 0;
}
