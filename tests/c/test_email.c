/* E-mail addresses: tests/emails.json, random ones, threads, and a libidn2 that finds no memory. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "support.h"

#include <dlfcn.h>
#include <idn2.h>
#include <jansson.h>
#include <locale.h>
#include <pthread.h>
#include <string.h>

static json_t *groups;

/* --------------------------------------------------------------------------------------------------------- the library -- */

/* What libidn2 allocates is no platform's, so no stage can let it fail: the test stands between. After how many calls it fails; -1: never. */
static _Thread_local int idn2_fails_after = -1;
static int (*idn2_real)(const uint8_t *, uint8_t **, int);

int idn2_lookup_u8(const uint8_t *name, uint8_t **out, int flags)
{
    if (idn2_fails_after == 0) return IDN2_MALLOC;
    if (idn2_fails_after > 0) idn2_fails_after--;
    return idn2_real(name, out, flags);
}

/* -------------------------------------------------------------------------------------------------------------- helpers -- */

typedef struct text {
    char   bytes[4096];
    size_t len;
} text;

static void add(text *t, const char *bytes, size_t len)
{
    assert_true(t->len + len <= sizeof t->bytes);
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}
static text joined(const json_t *parts)
{
    text          t = {.len = 0};
    size_t        at;
    const json_t *part;
    if (json_is_string(parts)) add(&t, json_string_value(parts), json_string_length(parts));
    json_array_foreach(parts, at, part)
    {
        if (json_is_string(part)) add(&t, json_string_value(part), json_string_length(part));
        const json_t *again = json_object_get(part, "repeat");
        for (json_int_t i = json_integer_value(json_array_get(again, 1)); i > 0; i--)
            add(&t, json_string_value(json_array_get(again, 0)), json_string_length(json_array_get(again, 0)));
    }
    return t;
}

/* In blocks of exactly their sizes, so that AddressSanitizer sees a byte too many. */
static const char *normalise(cf_slice address, text *key)
{
    char *given = malloc(address.len + !address.len), *out = malloc(CF_EMAIL_MAX);
    assert_non_null(given);
    assert_non_null(out);
    if (address.len) memcpy(given, address.ptr, address.len);
    size_t      len = 12345;
    const char *fault = cf_email_normalise(cf_bytes(given, address.len), out, &len);
    if (fault) assert_int_equal(len, 0);
    assert_true(len <= CF_EMAIL_MAX);
    memcpy(key->bytes, out, key->len = len);
    free(given);
    free(out);
    return fault;
}

/* ---------------------------------------------------------------------------------------------------------------- tests -- */

static void play_vectors(void)
{
    size_t  in_group, in_email, played = 0, refused = 0;
    json_t *group, *email;
    json_array_foreach(groups, in_group, group) json_array_foreach(json_object_get(group, "emails"), in_email, email)
    {
        text        given = joined(json_object_get(email, "given")), wanted = joined(json_object_get(email, "key")), key;
        const char *fault = normalise(cf_bytes(given.bytes, given.len), &key);
        bool        refuse = json_is_true(json_object_get(email, "refused"));
        if (refuse != (fault != NULL) || (!refuse && (key.len != wanted.len || memcmp(key.bytes, wanted.bytes, key.len) != 0)))
            fail_msg("%s: %.*s: got %.*s (%s), not %.*s", json_string_value(json_object_get(group, "name")), (int)given.len, given.bytes, (int)key.len, key.bytes, fault ? fault : "no fault",
                     (int)wanted.len, wanted.bytes);
        played++;
        refused += refuse;
    }
    assert_true(played >= 120 && refused >= 50);
}

static void every_vector(void **state)
{
    (void)state;
    play_vectors();
}

/* Whatever the machine calls its letters: Turkish has another small I. Those that are not installed change nothing. */
static void no_locale_matters(void **state)
{
    (void)state;
    static const char *const names[] = {"C", "C.UTF-8", "tr_TR.UTF-8", "tr_TR.ISO-8859-9", "ja_JP.eucJP"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (setlocale(LC_ALL, names[i])) play_vectors();
    setlocale(LC_ALL, "C");
}

static void *player(void *unused)
{
    for (int i = 0; i < 20; i++) play_vectors();
    return unused;
}
static void threads(void **state)
{
    (void)state;
    pthread_t all[4];
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&all[i], NULL, player, NULL), 0);
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_join(all[i], NULL), 0);
}

/* What the sentence says is for logs, too: not the address. */
static void sentences(void **state)
{
    (void)state;
    static const struct {
        const char *given, *words;
    } cases[] = {{"canary@\xe2\x98\x83.canary", "(IDNA)"}, {"canary@x.canary\xef\xbc\xa0y", "(IDNA)"}, {" ", "empty"}, {"canary\x01", "control"}, {"canary\xff", "UTF-8"}};
    text key;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *fault = normalise(cf_text(cases[i].given), &key);
        assert_non_null(fault);
        assert_non_null(strstr(fault, cases[i].words));
        assert_null(strstr(fault, "canary"));
    }
    text longest = {.len = 0};
    for (int i = 0; i < 310; i++) add(&longest, "c", 1);
    add(&longest, "@\xc3\xbc.de", 6);
    assert_string_equal(normalise(cf_bytes(longest.bytes, longest.len), &key), "is longer than 320 bytes with its domain in ASCII (xn--)");
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) return out[0] = (char)c, 1;
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    out[0] = (char)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | (c >> (6 * more)));
    for (size_t i = 1; i <= more; i++) out[i] = (char)(0x80 | ((c >> (6 * (more - i))) & 0x3f));
    return more + 1;
}

/* The first of them make a domain; the others seldom do. */
enum { GOOD = 24 };
static const uint32_t likely[] = {'a', 'b', 'Z', 'K', 'i', 'I', '0', '.', 'x', 'n', 0xdf, 0xfc, 0x130, 0x131, 0x17f, 0x3c2, 0x3a3, 0x212a, 0xff41, 0xfb01, 0x1e9e, 0x1e9b, 0x4e00, 0xac00,
                                  '-', '-', '.', '.', '@', '_', ' ', '\t', '"', '[', 0x307, 0x308, 0x5d0, 0x661, 0x94d, 0x915, 0xad, 0x200b, 0x200c, 0x200d, 0x2024, 0x3002, 0xff0e, 0xff20, 0x2100,
                                  0x1f4a9, 0xe000, 0xfffd, 0x10ffff};

/* Mostly what has a domain; sometimes anything. */
static void make_address(rng *random, text *t)
{
    uint64_t shape = rng_below(random, 10), letters = rng_below(random, shape == 9 ? 400 : 24);
    bool     ascii = shape < 3;
    t->len = 0;
    for (uint64_t i = 0; i < letters; i++) {
        uint64_t dice = rng_below(random, shape == 4 || shape == 5 ? 1500 : 100);
        uint32_t c = likely[rng_below(random, dice < 100 ? sizeof likely / sizeof *likely : GOOD)];
        if (dice < 15) c = (uint32_t)rng_below(random, dice < 5 ? 0x80 : dice < 12 ? 0x3000 : 0x110000);
        if (c >= 0xd800 && c < 0xe000) c = 0xd7ff;
        if (ascii && c >= 0x80) c = 'A' + c % 26;
        if (dice == 99 && shape == 8) add(t, (const char[]){(char)rng_below(random, 256)}, 1);
        else t->len += put_utf8(t->bytes + t->len, c);
        if (i == letters / 2 && shape != 7) add(t, "@", 1);
    }
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void random_addresses(void **state)
{
    (void)state;
    rng            random = {seed_of_run()};
    const uint64_t count = env_number("CF_EMAILS", 200000);
    uint64_t       plain = 0, mapped = 0, refused = 0;
    text           given, key, again;
    for (uint64_t n = 0; n < count; n++) {
        make_address(&random, &given);
        const char *fault = normalise(cf_bytes(given.bytes, given.len), &key);
        /* What it is without libidn2. */
        size_t from = 0, to = given.len;
        while (from < to && is_space(given.bytes[from])) from++;
        while (to > from && is_space(given.bytes[to - 1])) to--;
        const size_t len = to - from;
        const char  *address = given.bytes + from, *at = len ? memrchr(address, '@', len) : NULL;
        size_t       local = at ? (size_t)(at - address) + 1 : len;
        bool         ascii = true, sound = len > 0 && len <= CF_EMAIL_MAX;
        char         small[sizeof given.bytes];
        for (size_t i = 0; i < len; i++) {
            small[i] = address[i] >= 'A' && address[i] <= 'Z' ? (char)(address[i] | 0x20) : address[i];
            if ((unsigned char)address[i] < ' ' || address[i] == 0x7f) sound = false;
            if (i >= local && (unsigned char)address[i] >= 0x80) ascii = false;
        }
        if (fault) {
            refused++;
            bool all_ascii = true;
            for (size_t i = 0; i < len; i++) all_ascii = all_ascii && (unsigned char)address[i] < 0x80;
            if (sound && all_ascii) fail_msg("%.*s was refused: %s", (int)given.len, given.bytes, fault);
            if (sound && ascii && !strstr(fault, "UTF-8")) fail_msg("%.*s was refused: %s", (int)given.len, given.bytes, fault);
            continue;
        }
        assert_true(sound);
        assert_true(key.len >= local);
        assert_memory_equal(key.bytes, small, local);
        if (ascii) {
            plain++;
            assert_int_equal(key.len, len);
            assert_memory_equal(key.bytes, small, len);
        } else {
            mapped++;
            assert_true(key.len > local && key.bytes[local] != '.');
            for (size_t i = local; i < key.len; i++)
                if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-.", key.bytes[i]) || (key.bytes[i] == '.' && key.bytes[i - 1] == '.')) fail_msg("%.*s became %.*s", (int)given.len, given.bytes, (int)key.len, key.bytes);
        }
        fault = normalise(cf_bytes(key.bytes, key.len), &again);
        if (fault || again.len != key.len || memcmp(again.bytes, key.bytes, key.len) != 0) fail_msg("%.*s became %.*s, and that %.*s", (int)given.len, given.bytes, (int)key.len, key.bytes, (int)again.len, again.bytes);
    }
    print_message("%llu small letters only, %llu with another domain, %llu refused\n", (unsigned long long)plain, (unsigned long long)mapped, (unsigned long long)refused);
    assert_true(plain > count / 20 && mapped > count / 20 && refused > count / 50);
}

/* ------------------------------------------------------------------------------------------------------------ no memory -- */

static int ask_about(cf_store *store, int method, const char *id, const char *address, bool *hit, int *outcome)
{
    const cf_accounts accounts = {.store = store};
    cf_record         record = {.kind = CF_USER};
    cf_op            *op;
    cf_record_text(&record, CF_USER_EMAIL, cf_text(address));
    if (id) cf_record_text(&record, CF_USER_ID, cf_text(id));
    int status = cf_accounts_call(&accounts, method, &record, NULL, NULL, &op);
    if (status == CF_PENDING) status = cf_op_wait(op);
    *hit = cf_op_hit(op);
    *outcome = cf_op_error(op)->outcome;
    if (status < 0) assert_null(strstr(cf_op_error(op)->text, "canary"));
    cf_op_free(op);
    return status;
}

/* That nobody is found would be a lie. */
static void libidn2_without_memory(void **state)
{
    (void)state;
    cf_stage *stage = cf_stage_new();
    cf_loop  *loop;
    cf_store *store;
    bool      hit;
    int       outcome;
    const char *const address = "canary@b\xc3\xbc"
                                "cher.de";
    assert_int_equal(cf_loop_new(cf_stage_platform(stage), &loop), CF_OK);
    assert_int_equal(cf_open(loop, cf_text("memory:"), NULL, &store, NULL), CF_OK);
    static const int writes[] = {CF_CREATE_USER, CF_UPDATE_USER};
    for (size_t i = 0; i < 2; i++) {
        idn2_fails_after = 0;
        assert_int_equal(ask_about(store, writes[i], writes[i] == CF_UPDATE_USER ? "nobody" : NULL, address, &hit, &outcome), CF_ENOMEM);
        assert_int_equal(outcome, CF_NOT_APPLIED);
    }
    assert_int_equal(ask_about(store, CF_CREATE_USER, NULL, "canary@xn--BCHER-KVA.de", &hit, &outcome), CF_OK); /* needs none */
    assert_int_equal(ask_about(store, CF_FIND_USER_BY_EMAIL, NULL, address, &hit, &outcome), CF_ENOMEM);
    char   out[CF_EMAIL_MAX];
    size_t len;
    assert_string_equal(cf_email_normalise(cf_text(address), out, &len), "has a domain for which there is no memory");
    idn2_fails_after = -1;
    assert_int_equal(ask_about(store, CF_FIND_USER_BY_EMAIL, NULL, address, &hit, &outcome), CF_OK);
    assert_true(hit);
    cf_loop_free(loop);
    assert_int_equal(cf_stage_blocks(stage), 0);
    cf_stage_free(stage);
}

/* An application's own tables: what they bring has its address looked at. */
static int no_slot(cf_backend *self, cf_op *op)
{
    (void)self;
    (void)op;
    return CF_ENOTSUP;
}
static int ann_hook(cf_backend *self, cf_op *op)
{
    cf_hook   asked;
    cf_record ann = {.kind = CF_USER};
    (void)self;
    assert_true(cf_hook_read(cf_op_in(op)->value, &asked));
    const cf_slice key = asked.record.fields[CF_USER_EMAIL_KEY].text;
    assert_int_equal(key.len, strlen("ann@xn--bcher-kva.de"));
    assert_memory_equal(key.ptr, "ann@xn--bcher-kva.de", key.len);
    cf_record_text(&ann, CF_USER_ID, cf_text("1"));
    cf_record_number(&ann, CF_USER_CREATED_AT, 1);
    cf_record_number(&ann, CF_USER_UPDATED_AT, 1);
    cf_record_text(&ann, CF_USER_EMAIL, cf_text("ann@B\xc3\x9c"
                                                "CHER.de"));
    cf_op_set_hit(op, true);
    return cf_op_add_record(op, &ann);
}
static void hooks_without_memory(void **state)
{
    (void)state;
    static const cf_backend_table table = {.size = sizeof table, .name = "ann", .get = no_slot, .set = no_slot, .del = no_slot, .hook = ann_hook};
    static int self;
    cf_loop   *loop;
    cf_store  *store;
    bool       hit;
    int        outcome;
    assert_int_equal(cf_loop_new(cf_platform_real(), &loop), CF_OK);
    assert_int_equal(cf_open_backend(loop, &table, (cf_backend *)(void *)&self, NULL, &store, NULL), CF_OK);
    static const char *const addresses[] = {"Ann@b\xc3\xbc"
                                            "cher.de",
                                            "ann@xn--bcher-kva.de"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ask_about(store, CF_FIND_USER_BY_EMAIL, NULL, addresses[i], &hit, &outcome), CF_OK);
        assert_true(hit);
        idn2_fails_after = i == 0 ? 1 : 0; /* for what the hook brings */
        assert_int_equal(ask_about(store, CF_FIND_USER_BY_EMAIL, NULL, addresses[i], &hit, &outcome), CF_ENOMEM);
        assert_int_equal(outcome, CF_NOT_APPLIED);
        idn2_fails_after = -1;
    }
    cf_loop_free(loop);
}

int main(int argc, char **argv)
{
    hang_guard(600);
    json_error_t error;
    json_t      *file = argc > 1 ? json_load_file(argv[1], 0, &error) : NULL;
    groups = json_object_get(file, "groups");
    if (!json_is_array(groups)) {
        print_error("usage: test_email tests/emails.json\n");
        return 2;
    }
    *(void **)&idn2_real = dlsym(RTLD_NEXT, "idn2_lookup_u8");
    if (!idn2_real) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector),    cmocka_unit_test(no_locale_matters),      cmocka_unit_test(threads),              cmocka_unit_test(sentences),
        cmocka_unit_test(random_addresses), cmocka_unit_test(libidn2_without_memory), cmocka_unit_test(hooks_without_memory),
    };
    int failed = cmocka_run_group_tests_name("e-mail addresses", tests, NULL, NULL);
    json_decref(file);
    return failed;
}
