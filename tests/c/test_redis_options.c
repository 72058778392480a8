/* tests/urls.json against what reads a Redis URL, and through cf_open; every allocation of it fails once; passwords are wiped. */
#include "support.h"

#include <jansson.h>
#include <string.h>

#include "backends/redis/options.h"
#include "core.h"

static json_t *vectors, *never;

/* The real machine, which looks at what it is given back: no block that was released may hold a secret. */
typedef struct watching {
    cf_platform platform;
    int64_t     blocks;
    uint64_t    allocations, fail_at; /* 0: none fails */
    unsigned    unwiped;
} watching;

typedef union header {
    size_t      size;
    max_align_t align;
} header;

static void *watching_resize(void *self, void *block, size_t size);

static void *watching_alloc(void *self, size_t size) { return watching_resize(self, NULL, size); }

static void watching_release(void *self, void *block)
{
    watching *w = self;
    if (!block) return;
    header     *h = (header *)block - 1;
    const char *bytes = block;
    for (size_t at = 0; at + 8 <= h->size; at++) w->unwiped += memcmp(bytes + at, "hunter22", 8) == 0;
    w->blocks--;
    free(h);
}

static void *watching_resize(void *self, void *block, size_t size)
{
    watching *w = self;
    if (++w->allocations == w->fail_at) return NULL;
    header *h = malloc(sizeof *h + size);
    assert_non_null(h);
    h->size = size;
    memset(h + 1, 0xa5, size);
    w->blocks++;
    if (block) {
        size_t old = ((header *)block - 1)->size;
        memcpy(h + 1, block, old < size ? old : size);
        watching_release(self, block);
    }
    return h + 1;
}

static void watching_init(watching *w)
{
    *w = (watching){.platform = *cf_platform_real()};
    w->platform.self = w;
    w->platform.alloc = watching_alloc;
    w->platform.resize = watching_resize;
    w->platform.release = watching_release;
}

/* The URL of a vector, joined; to be freed. */
static cf_buffer url_of(const json_t *vector)
{
    cf_buffer   url = {0};
    json_t     *parts = json_object_get(vector, "url"), *part;
    size_t      i;
    const cf_platform *real = cf_platform_real();
    if (json_is_string(parts)) assert_int_equal(cf_buffer_append(real, &url, cf_text(json_string_value(parts))), CF_OK);
    json_array_foreach(parts, i, part)
    {
        json_t     *repeat = json_object_get(part, "repeat");
        const char *text = json_string_value(repeat ? json_array_get(repeat, 0) : part);
        json_int_t  times = repeat ? json_integer_value(json_array_get(repeat, 1)) : 1;
        assert_non_null(text);
        while (times--) assert_int_equal(cf_buffer_append(real, &url, cf_text(text)), CF_OK);
    }
    return url;
}

static bool ours(cf_slice scheme)
{
    return cf_slice_equal(scheme, cf_text("redis")) || cf_slice_equal(scheme, cf_text("rediss")) || cf_slice_equal(scheme, cf_text("redis+unix")) ||
           cf_slice_equal(scheme, cf_text("redis+sentinel")) || cf_slice_equal(scheme, cf_text("rediss+sentinel"));
}

/* As a store would: CF_OK leaves `out` to be freed. A scheme that is not ours is CF_EINVAL without a sentence. */
static int read_url(const cf_platform *platform, cf_slice text, redis_options *out, cf_error *error)
{
    cf_parsed_url url;
    *error = (cf_error){0};
    int rc = cf_url_parse(platform, text, &url, error);
    if (rc != CF_OK) return rc;
    rc = ours(url.url.scheme) ? redis_options_read(platform, &url.url, out, error) : CF_EINVAL;
    cf_url_free(platform, &url);
    return rc;
}

static void check_sentence(const char *url, const cf_error *error, const json_t *vector)
{
    json_t *word;
    size_t  i;
    if (error->status != CF_EINVAL || error->outcome != CF_NOT_APPLIED) fail_msg("%s: %d", url, error->status);
    if (strlen(error->text) < 10 || strlen(error->text) == sizeof error->text - 1) fail_msg("%s: \"%s\"", url, error->text);
    json_array_foreach(json_object_get(vector, "words"), i, word)
    {
        if (!strstr(error->text, json_string_value(word))) fail_msg("%s: \"%s\" says nothing of %s", url, error->text, json_string_value(word));
    }
    json_array_foreach(never, i, word)
    {
        if (strstr(error->text, json_string_value(word))) fail_msg("%s: \"%s\" shows %s", url, error->text, json_string_value(word));
    }
}

static void check_text(const char *url, const char *key, const json_t *want, const char *is)
{
    if (json_is_null(want) ? is != NULL : !is || strcmp(is, json_string_value(want)) != 0) fail_msg("%s: %s is %s", url, key, is ? is : "NULL");
}

static void check_fields(const char *url, const redis_options *o, json_t *says)
{
    const struct {
        const char *name, *text;
    } texts[] = {{"host", o->host},         {"port", o->port},     {"user", o->user},       {"password", o->password}, {"name", o->name},
                 {"tls_ca", o->tls_ca},     {"tls_key", o->tls_key}, {"tls_cert", o->tls_cert}, {"tls_server_name", o->tls_server_name},
                 {"endpoint", o->endpoint}, {"primary", o->primary}, {"sentinel_user", o->sentinel_user}, {"sentinel_password", o->sentinel_password},
                 {"first", o->places[0].host}, {"first_port", o->places[0].port}, {"second", o->places[1].host}, {"second_port", o->places[1].port}};
    const struct {
        const char *name;
        int64_t     number;
    } numbers[] = {{"db", o->db},   {"connect_ms", o->connect_ms}, {"silence_ms", o->silence_ms}, {"max_pending", (int64_t)o->max_pending},
                   {"tls", o->tls}, {"unix_socket", o->unix_socket}, {"receipts", o->receipts}, {"max_pending_bytes", (int64_t)o->max_pending_bytes},
                   {"sentinels", (int64_t)o->place_count}, {"durable", (int64_t)o->durable}};
    const char *key;
    json_t     *want;
    json_object_foreach(says, key, want)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            if (strcmp(key, texts[i].name) != 0) continue;
            check_text(url, key, want, texts[i].text);
            known = true;
        }
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            if (strcmp(key, numbers[i].name) != 0) continue;
            int64_t number = json_is_boolean(want) ? json_is_true(want) : json_integer_value(want);
            if (number != numbers[i].number) fail_msg("%s: %s is %lld", url, key, (long long)numbers[i].number);
            known = true;
        }
        if (!known) fail_msg("%s: no field is called %s", url, key);
    }
    if (strstr(o->endpoint, "hunter22") || strstr(o->endpoint, "annabel")) fail_msg("%s: its endpoint shows a secret", url);
    assert_true(memchr(o->endpoint, 0, sizeof o->endpoint) != NULL);
    assert_true(!o->user || o->password);
}

static void every_url_says_what_it_should(void **state)
{
    (void)state;
    watching w;
    watching_init(&w);
    size_t  i, good = 0, bad = 0;
    json_t *vector;
    json_array_foreach(vectors, i, vector)
    {
        cf_buffer     url = url_of(vector);
        redis_options options;
        cf_error      error;
        json_t       *says = json_object_get(vector, "says");
        int           status = read_url(&w.platform, cf_bytes(url.ptr, url.len), &options, &error);
        assert_int_equal(cf_buffer_append(cf_platform_real(), &url, cf_bytes("", 1)), CF_OK);
        if (says && status != CF_OK && !error.status) { /* another backend's, which opening_needs_no_server opens */
            cf_buffer_free(cf_platform_real(), &url);
            continue;
        }
        if (says) {
            if (status != CF_OK) fail_msg("%s: %s", url.ptr, error.text);
            check_fields(url.ptr, &options, says);
            redis_options_free(&w.platform, &options);
            good++;
        } else {
            if (status != CF_EINVAL) fail_msg("%s: %s", url.ptr, cf_status_name(status));
            if (error.status) check_sentence(url.ptr, &error, vector);
            bad++;
        }
        if (w.blocks) fail_msg("%s: leaks", url.ptr);
        cf_buffer_free(cf_platform_real(), &url);
    }
    assert_true(good >= 100 && bad >= 300);
}

static void opening_needs_no_server(void **state)
{
    (void)state;
    size_t   i;
    json_t  *vector;
    cf_loop *loop;
    assert_int_equal(cf_loop_new(NULL, &loop), CF_OK);
    json_array_foreach(vectors, i, vector)
    {
        cf_buffer url = url_of(vector);
        cf_error  error = {0};
        cf_store *store;
        int       status = cf_open(loop, cf_bytes(url.ptr, url.len), NULL, &store, &error);
        assert_int_equal(cf_buffer_append(cf_platform_real(), &url, cf_bytes("", 1)), CF_OK);
        if (json_object_get(vector, "says")) {
            /* The files of tls_ca, tls_cert and tls_key are not there. */
            bool files = strstr(url.ptr, "tls_c") || strstr(url.ptr, "tls_k");
            if (files ? status != CF_EINVAL : status != CF_OK) fail_msg("%s: %s: %s", url.ptr, cf_status_name(status), error.text);
            if (store) assert_int_equal(cf_store_close(store, NULL), CF_OK);
        } else {
            if (status != CF_EINVAL) fail_msg("%s: %s", url.ptr, cf_status_name(status));
            check_sentence(url.ptr, &error, vector);
        }
        cf_buffer_free(cf_platform_real(), &url);
    }
    cf_loop_free(loop);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    size_t  i;
    json_t *vector;
    json_array_foreach(vectors, i, vector)
    {
        cf_buffer url = url_of(vector);
        watching  w;
        watching_init(&w);
        redis_options options;
        cf_error      error;
        int           plain = read_url(&w.platform, cf_bytes(url.ptr, url.len), &options, &error);
        uint64_t      total = w.allocations;
        if (plain == CF_OK) redis_options_free(&w.platform, &options);
        for (uint64_t nth = 1; nth <= total; nth++) {
            w.allocations = 0;
            w.fail_at = nth;
            assert_int_equal(read_url(&w.platform, cf_bytes(url.ptr, url.len), &options, &error), CF_ENOMEM);
            assert_int_equal(error.status, CF_ENOMEM);
            assert_int_equal(w.blocks, 0);
        }
        cf_buffer_free(cf_platform_real(), &url);
    }
}

/* The parsed URL is not looked at here: it belongs to who has parsed it. */
static void what_was_freed_was_wiped(void **state)
{
    (void)state;
    size_t  i;
    json_t *vector;
    watching w;
    watching_init(&w);
    json_array_foreach(vectors, i, vector)
    {
        cf_buffer     text = url_of(vector);
        cf_parsed_url url;
        redis_options options;
        if (cf_url_parse(cf_platform_real(), cf_bytes(text.ptr, text.len), &url, NULL) == CF_OK) {
            if (redis_options_read(&w.platform, &url.url, &options, NULL) == CF_OK) redis_options_free(&w.platform, &options);
            cf_url_free(cf_platform_real(), &url);
        }
        assert_int_equal(cf_buffer_append(cf_platform_real(), &text, cf_bytes("", 1)), CF_OK);
        if (w.unwiped) fail_msg("%s: a secret was released as it was", text.ptr);
        cf_buffer_free(cf_platform_real(), &text);
    }
}

static void random_urls_do_no_harm(void **state)
{
    (void)state;
    rng      random = {seed_of_run()};
    watching w;
    watching_init(&w);
    static const char *const starts[] = {"redis://", "rediss://", "redis+unix://", "redis://u:p@h/1?", "rediss://h?tls_server_name=", "redis://["};
    static const char        alphabet[] = "abz019:/@[]?&=%4#.-_+ \n\xc3\xa9\xff";
    static const char *const words[] = {"db=", "user=", "password=", "name=", "silence=", "max_pending=", "receipts=on", "tls_ca=", "::1", "127.0.0.1"};
    for (int i = 0; i < 200000; i++) {
        char     url[160];
        size_t   len = (size_t)snprintf(url, sizeof url, "%s", starts[rng_below(&random, sizeof starts / sizeof *starts)]);
        uint64_t pieces = rng_below(&random, 24);
        while (pieces--) {
            if (rng_below(&random, 6)) {
                url[len++] = alphabet[rng_below(&random, sizeof alphabet - 1)];
                continue;
            }
            const char *word = words[rng_below(&random, sizeof words / sizeof *words)];
            memcpy(url + len, word, strlen(word));
            len += strlen(word);
            if (len > sizeof url - 40) break;
        }
        redis_options options;
        cf_error      error;
        int           status = read_url(&w.platform, cf_bytes(url, len), &options, &error);
        if (status == CF_OK) {
            assert_true(options.host && options.host[0] && options.endpoint[0] && (options.unix_socket || options.port));
            assert_null(cf_key_fault(cf_text(options.endpoint)));
            redis_options_free(&w.platform, &options);
        } else {
            assert_int_equal(status, CF_EINVAL);
            assert_true(error.text[0] != 0);
        }
        assert_int_equal(w.blocks, 0);
    }
}

/* A path longer than a sentence has room for is cut between two characters. */
static void an_endpoint_is_cut_between_characters(void **state)
{
    (void)state;
    char host[260];
    for (size_t i = 0; i + 64 < sizeof host; i += 64) memcpy(host + i, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.", 64);
    host[250] = 0;
    char          text[300];
    redis_options options;
    cf_error      error;
    snprintf(text, sizeof text, "redis://%s", host);
    assert_int_equal(read_url(cf_platform_real(), cf_text(text), &options, &error), CF_OK);
    assert_int_equal(strlen(options.endpoint), sizeof options.endpoint - 1);
    assert_int_equal(strncmp(options.endpoint, host, sizeof options.endpoint - 1), 0);
    redis_options_free(cf_platform_real(), &options);
}

int main(int argc, char **argv)
{
    hang_guard(300);
    json_error_t error;
    json_t      *file = argc > 1 ? json_load_file(argv[1], 0, &error) : NULL;
    if (!file) {
        printf("usage: test_redis_options .../tests/urls.json\n");
        return 2;
    }
    vectors = json_object_get(file, "urls");
    never = json_object_get(file, "never");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_url_says_what_it_should), cmocka_unit_test(opening_needs_no_server),
        cmocka_unit_test(every_allocation_may_fail),     cmocka_unit_test(what_was_freed_was_wiped),
        cmocka_unit_test(random_urls_do_no_harm),        cmocka_unit_test(an_endpoint_is_cut_between_characters),
    };
    int failed = cmocka_run_group_tests_name("redis_options", tests, NULL, NULL);
    json_decref(file);
    return failed;
}
