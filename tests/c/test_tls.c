/* tls.c against a server of OpenSSL's at the other end of a socket pair: files, names, chains, protocols, bytes, ends and failures. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "backends/redis/tls.h"

/* ---- certificates ---- */

typedef struct party {
    EVP_PKEY *key;
    X509     *cert;
} party;

typedef struct wish {
    const char   *cn, *san, *usage; /* NULL: none */
    int           from_days, to_days; /* 0: good for ten */
    EVP_PKEY     *key; /* NULL: a new one on P-256 */
    const EVP_MD *md;
    bool          ca;
} wish;

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static party issue(const party *by, wish w)
{
    static long serial = 1;
    party       p = {.key = w.key ? w.key : EVP_EC_gen("P-256"), .cert = X509_new()};
    assert_true(p.key && p.cert);
    X509_set_version(p.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(p.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(p.cert), (w.from_days ? w.from_days : -1) * 86400L);
    X509_gmtime_adj(X509_getm_notAfter(p.cert), (w.to_days ? w.to_days : 10) * 86400L);
    X509_NAME *name = X509_get_subject_name(p.cert);
    if (w.cn) X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)w.cn, -1, -1, 0);
    X509_set_issuer_name(p.cert, by ? X509_get_subject_name(by->cert) : name);
    X509_set_pubkey(p.cert, p.key);
    X509 *issuer = by ? by->cert : p.cert;
    if (w.ca) extend(p.cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
    if (w.san) extend(p.cert, issuer, NID_subject_alt_name, w.san);
    if (w.usage) extend(p.cert, issuer, NID_ext_key_usage, w.usage);
    assert_true(X509_sign(p.cert, by ? by->key : p.key, w.md ? w.md : EVP_sha256()) > 0);
    return p;
}

static void drop(party p)
{
    X509_free(p.cert);
    EVP_PKEY_free(p.key);
}

static char  folder[] = "/tmp/cf-hunter22-XXXXXX"; /* a path is a value of an option: no sentence shows it */
static party root, other_root, server, client;

static const char *path(const char *name)
{
    static char paths[8][64];
    static int  at;
    char       *p = paths[at++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(path(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void write_party(const char *cert, const char *key, party p, const char *pass_phrase)
{
    FILE *file = cert ? fopen(path(cert), "w") : NULL;
    if (file) assert_int_equal(PEM_write_X509(file, p.cert), 1);
    if (file) fclose(file);
    file = key ? fopen(path(key), "w") : NULL;
    if (file)
        assert_int_equal(PEM_write_PrivateKey(file, p.key, pass_phrase ? EVP_aes_128_cbc() : NULL, (const unsigned char *)pass_phrase,
                                              pass_phrase ? (int)strlen(pass_phrase) : 0, NULL, NULL), 1);
    if (file) fclose(file);
}

static int make_world(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    root = issue(NULL, (wish){.cn = "Root", .ca = true});
    other_root = issue(NULL, (wish){.cn = "Other", .ca = true});
    server = issue(&root, (wish){.cn = "s", .san = "DNS:cache.example.org,IP:127.0.0.1"});
    client = issue(&root, (wish){.cn = "client", .usage = "clientAuth"});
    write_party("ca.pem", NULL, root, NULL);
    write_party("other-ca.pem", NULL, other_root, NULL);
    write_party("client.pem", "client.key", client, NULL);
    return 0;
}

static int drop_world(void **state)
{
    (void)state;
    drop(root);
    drop(other_root);
    drop(server);
    drop(client);
    static const char *const names[] = {"ca.pem",      "other-ca.pem",  "client.pem", "client.key", "empty.pem", "text.pem",
                                        "stranger.key", "stranger-rsa.key", "secret.key", "weak.pem", "weak.key", "turning.pem"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(path(names[i]));
    return rmdir(folder);
}

/* ---- two ends ---- */

typedef struct pair {
    int        fd[2]; /* ours, theirs */
    SSL_CTX   *rules;
    SSL       *peer;
    redis_tls *tls;
} pair;

static SSL_CTX *server_rules(party p, int version)
{
    SSL_CTX *rules = SSL_CTX_new(TLS_server_method());
    assert_non_null(rules);
    SSL_CTX_set_security_level(rules, 0); /* a bad server does not mind */
    SSL_CTX_set_cipher_list(rules, "ALL:@SECLEVEL=0");
    if (version) {
        SSL_CTX_set_min_proto_version(rules, version);
        SSL_CTX_set_max_proto_version(rules, version);
    }
    assert_int_equal(SSL_CTX_use_certificate(rules, p.cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(rules, p.key), 1);
    return rules;
}

static pair connect_pair(redis_tls_context *context, const char *host, SSL_CTX *rules)
{
    pair p = {.rules = rules};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p.fd), 0);
    if (rules) {
        p.peer = SSL_new(rules);
        SSL_set_fd(p.peer, p.fd[1]);
        SSL_set_accept_state(p.peer);
    }
    cf_error error;
    assert_int_equal(redis_tls_new(context, host, p.fd[0], &p.tls, &error), CF_OK);
    return p;
}

static void end_theirs(pair *p)
{
    SSL_free(p->peer);
    p->peer = NULL;
    if (p->fd[1] >= 0) close(p->fd[1]);
    p->fd[1] = -1;
}

static void end_pair(pair *p)
{
    redis_tls_free(p->tls);
    end_theirs(p);
    close(p->fd[0]);
    SSL_CTX_free(p->rules);
    ERR_clear_error();
}

/* Both sides in turn. A peer that has failed hangs up, as servers do. */
static int shake(pair *p, cf_error *error)
{
    int status = CF_PENDING;
    for (int turn = 0; status == CF_PENDING && turn < 1000; turn++) {
        status = redis_tls_handshake(p->tls, error);
        if (status != CF_PENDING || !p->peer) continue;
        assert_true(redis_tls_wants(p->tls) & CF_READABLE);
        int rc = SSL_do_handshake(p->peer);
        int why = SSL_get_error(p->peer, rc);
        if (rc != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) end_theirs(p);
        ERR_clear_error();
    }
    assert_true(status != CF_PENDING);
    if (status == CF_OK && p->peer) {
        SSL_do_handshake(p->peer);
        ERR_clear_error();
    }
    assert_int_equal(ERR_peek_error(), 0); /* nothing of ours is left for the next user of this thread */
    return status;
}

static redis_options plain_options(void) { return (redis_options){.tls = true, .host = (char *)"cache.example.org", .tls_ca = (char *)path("ca.pem")}; }

static redis_tls_context *context_of(const redis_options *options)
{
    redis_tls_context *context;
    cf_error           error;
    if (redis_tls_context_new(cf_platform_real(), options, &context, &error) != CF_OK) fail_msg("%s", error.text);
    return context;
}

/* One handshake with a server of that certificate. */
static int meet(const redis_options *options, party p, int version, cf_error *error)
{
    redis_tls_context *context = context_of(options);
    pair               two = connect_pair(context, options->host, server_rules(p, version));
    int                status = shake(&two, error);
    if (status != CF_OK) {
        char byte;
        assert_true(redis_tls_read(two.tls, &byte, 1) <= 0);
        assert_int_equal(redis_tls_send(two.tls, "x", 1), -1);
        assert_true(errno != EAGAIN);
        assert_int_equal(redis_tls_handshake(two.tls, NULL), status);
    }
    end_pair(&two);
    redis_tls_context_free(context);
    return status;
}

/* ---- files ---- */

static void files_that_cannot_be_used(void **state)
{
    (void)state;
    party stranger = issue(NULL, (wish){.cn = "x"}), rsa = issue(NULL, (wish){.cn = "x", .key = EVP_RSA_gen(2048)});
    party weak = issue(&root, (wish){.cn = "client", .key = EVP_RSA_gen(1024)});
    write_text("empty.pem", "");
    write_text("text.pem", "-----BEGIN CERTIFICATE-----\nhunter22\n-----END CERTIFICATE-----\n");
    write_party(NULL, "stranger.key", stranger, NULL);
    write_party(NULL, "stranger-rsa.key", rsa, NULL);
    write_party(NULL, "secret.key", client, "hunter22");
    write_party("weak.pem", "weak.key", weak, NULL);
    static const struct {
        const char *ca, *cert, *key, *words[2];
    } rows[] = {
        {"absent.pem", NULL, NULL, {"tls_ca", "No such file"}},
        {"empty.pem", NULL, NULL, {"tls_ca", "PEM"}},
        {"text.pem", NULL, NULL, {"tls_ca", "PEM"}},
        {"client.key", NULL, NULL, {"tls_ca", "PEM"}},
        {"", NULL, NULL, {"tls_ca", "PEM"}}, /* a folder */
        {"ca.pem", "absent.pem", "client.key", {"tls_cert", "No such file"}},
        {"ca.pem", "empty.pem", "client.key", {"tls_cert", "no start line"}},
        {"ca.pem", "text.pem", "client.key", {"tls_cert", "PEM"}},
        {"ca.pem", "client.key", "client.key", {"tls_cert", "no start line"}},
        {"ca.pem", "client.pem", "absent.key", {"tls_key", "No such file"}},
        {"ca.pem", "client.pem", "empty.pem", {"tls_key", "PEM"}},
        {"ca.pem", "client.pem", "client.pem", {"tls_key", "PEM"}},
        {"ca.pem", "client.pem", "stranger.key", {"tls_key", "does not belong to tls_cert"}},
        {"ca.pem", "client.pem", "stranger-rsa.key", {"tls_key", "does not belong to tls_cert"}},
        {"ca.pem", "client.pem", "secret.key", {"tls_key", "pass phrase"}},
        {"ca.pem", "weak.pem", "weak.key", {"tls_cert", "too small"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        redis_options options = {.tls = true, .host = (char *)"h", .tls_ca = (char *)path(rows[i].ca)};
        if (rows[i].cert) options.tls_cert = (char *)path(rows[i].cert);
        if (rows[i].key) options.tls_key = (char *)path(rows[i].key);
        redis_tls_context *context = (redis_tls_context *)&options;
        cf_error           error = {0};
        cf_stage          *stage = cf_stage_new();
        int                status = redis_tls_context_new(cf_stage_platform(stage), &options, &context, &error);
        if (status != CF_EINVAL) fail_msg("row %zu: %s", i, cf_status_name(status));
        assert_null(context);
        assert_int_equal(error.status, CF_EINVAL);
        for (int w = 0; w < 2; w++)
            if (!strstr(error.text, rows[i].words[w])) fail_msg("row %zu: \"%s\" says nothing of %s", i, error.text, rows[i].words[w]);
        assert_null(strstr(error.text, "hunter22"));
        assert_int_equal(cf_stage_blocks(stage), 0);
        assert_int_equal(ERR_peek_error(), 0);
        cf_stage_free(stage);
    }
    drop(stranger);
    drop(rsa);
    drop(weak);
}

/* ---- who the server is ---- */

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *cn, *san, *host, *server_name;
        bool        good;
        const char *sni; /* NULL: none */
    } rows[] = {
        {"x", "DNS:cache.example.org", "cache.example.org", NULL, true, "cache.example.org"},
        {"x", "DNS:cache.example.org", "CACHE.Example.ORG", NULL, true, "CACHE.Example.ORG"},
        {"x", "DNS:cache.example.org", "cache.example.org.", NULL, true, "cache.example.org"},
        {"x", "DNS:a.example.org,DNS:b.example.org", "b.example.org", NULL, true, "b.example.org"},
        {"x", "DNS:*.example.org", "cache.example.org", NULL, true, "cache.example.org"},
        {"x", "DNS:cache.example.org", "10.1.2.3", "cache.example.org", true, "cache.example.org"},
        {"x", "DNS:cache.example.org", "wrong.example.org", "cache.example.org", true, "cache.example.org"},
        {"x", "IP:127.0.0.1", "127.0.0.1", NULL, true, NULL},
        {"x", "IP:::1", "::1", NULL, true, NULL},
        {"x", "IP:::1", "0:0::1", NULL, true, NULL},
        {"x", "IP:10.0.0.1", "cache.example.org", "10.0.0.1", true, NULL},
        {"x", "DNS:cache.example.org", "other.example.org", NULL, false, NULL},
        {"x", "DNS:cache.example.org", "example.org", NULL, false, NULL},
        {"x", "DNS:cache.example.org", "cache.example.org", "other.example.org", false, NULL},
        {"x", "DNS:*.example.org", "a.b.example.org", NULL, false, NULL},
        {"x", "DNS:*.example.org", "example.org", NULL, false, NULL},
        {"x", "DNS:ca*.example.org", "cache.example.org", NULL, false, NULL},
        {"x", "DNS:*e.example.org", "cache.example.org", NULL, false, NULL},
        {"x", "DNS:*", "cache", NULL, false, NULL},
        {"x", "DNS:*.org", "example.org", NULL, false, NULL},
        {"cache.example.org", NULL, "cache.example.org", NULL, false, NULL}, /* the subject is never looked at */
        {"cache.example.org", "IP:10.0.0.1", "cache.example.org", NULL, false, NULL},
        {"127.0.0.1", NULL, "127.0.0.1", NULL, false, NULL},
        {"x", "DNS:127.0.0.1", "127.0.0.1", NULL, false, NULL},
        {"x", "IP:127.0.0.1", "127.0.0.2", NULL, false, NULL},
        {"x", "IP:::1", "::2", NULL, false, NULL},
        {"x", "IP:127.0.0.1", "localhost", NULL, false, NULL},
        {"x", "email:cache@example.org", "example.org", NULL, false, NULL},
        {"x", "URI:https://cache.example.org/", "cache.example.org", NULL, false, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        party         p = issue(&root, (wish){.cn = rows[i].cn, .san = rows[i].san});
        redis_options options = plain_options();
        options.host = (char *)rows[i].host;
        options.tls_server_name = (char *)rows[i].server_name;
        redis_tls_context *context = context_of(&options);
        pair               two = connect_pair(context, options.host, server_rules(p, 0));
        cf_error           error = {0};
        int                status = shake(&two, &error);
        if (status != (rows[i].good ? CF_OK : CF_EAUTH)) fail_msg("row %zu: %s: %s", i, cf_status_name(status), error.text);
        if (!rows[i].good && (!strstr(error.text, "mismatch") || !strstr(error.text, rows[i].server_name ? rows[i].server_name : rows[i].host)))
            fail_msg("row %zu: %s", i, error.text);
        if (rows[i].good) {
            const char *sni = SSL_get_servername(two.peer, TLSEXT_NAMETYPE_host_name);
            assert_true(!sni == !rows[i].sni);
            if (sni) assert_string_equal(sni, rows[i].sni);
        }
        end_pair(&two);
        redis_tls_context_free(context);
        drop(p);
    }
}

static void chains(void **state)
{
    (void)state;
    static const char san[] = "DNS:cache.example.org";
    party intermediate = issue(&root, (wish){.cn = "Between", .ca = true}), no_ca = issue(&root, (wish){.cn = "NoCA", .san = san});
    const struct {
        party       p;
        const char *word;
    } rows[] = {
        {issue(&root, (wish){.cn = "x", .san = san, .from_days = -20, .to_days = -10}), "expired"},
        {issue(&root, (wish){.cn = "x", .san = san, .from_days = 5}), "not yet valid"},
        {issue(NULL, (wish){.cn = "x", .san = san}), "self-signed"},
        {issue(&other_root, (wish){.cn = "x", .san = san}), "issuer"},
        {issue(&intermediate, (wish){.cn = "x", .san = san}), "issuer"}, /* which is not sent */
        {issue(&no_ca, (wish){.cn = "x", .san = san}), "issuer"},
        {issue(&root, (wish){.cn = "x", .san = san, .usage = "clientAuth"}), "purpose"},
        {issue(&root, (wish){.cn = "x", .san = san, .key = EVP_RSA_gen(1024)}), "too weak"},
        {issue(&root, (wish){.cn = "x", .san = san, .md = EVP_sha1()}), "too weak"},
    };
    redis_options options = plain_options();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cf_error error = {0};
        int      status = meet(&options, rows[i].p, 0, &error);
        if (status != CF_EAUTH || error.status != CF_EAUTH || !strstr(error.text, rows[i].word))
            fail_msg("row %zu: %s: %s", i, cf_status_name(status), error.text);
        drop(rows[i].p);
    }
    /* What tls_ca names is trusted, also where it is no root. */
    cf_error error = {0};
    party    below = issue(&intermediate, (wish){.cn = "x", .san = san});
    write_party("turning.pem", NULL, intermediate, NULL);
    options.tls_ca = (char *)path("turning.pem");
    assert_int_equal(meet(&options, below, 0, &error), CF_OK);
    assert_int_equal(meet(&options, server, 0, &error), CF_EAUTH);
    /* None of the system's knows our root; where the system has none at all, none is trusted. */
    options.tls_ca = NULL;
    assert_int_equal(meet(&options, server, 0, &error), CF_EAUTH);
    assert_true(strstr(error.text, "issuer") != NULL);
    drop(below);
    drop(intermediate);
    drop(no_ca);
}

static void protocols(void **state)
{
    (void)state;
    redis_options options = plain_options();
    cf_error      error = {0};
    assert_int_equal(meet(&options, server, TLS1_3_VERSION, &error), CF_OK);
    assert_int_equal(meet(&options, server, TLS1_2_VERSION, &error), CF_OK);
    static const int old[] = {TLS1_1_VERSION, TLS1_VERSION};
    for (size_t i = 0; i < 2; i++) {
        int status = meet(&options, server, old[i], &error);
        if (status != CF_EAUTH && status != CF_EUNAVAILABLE) fail_msg("%s: %s", cf_status_name(status), error.text);
    }
    static const struct {
        const char *says; /* instead of TLS */
        int         status;
        const char *word;
    } rows[] = {
        {"+PONG\r\n", CF_EAUTH, "does not speak it"},
        {"-ERR unknown command\r\n", CF_EAUTH, "does not speak it"},
        {"-NOAUTH Authentication required.\r\n", CF_EAUTH, "does not speak it"},
        {"HTTP/1.1 400 Bad Request\r\n\r\n", CF_EAUTH, "does not speak it"},
        {"\x16\x03\x03\xff\xff the longest of records", CF_EAUTH, "TLS: "},
        {"\x15\x03\x03\x00\x02\x02\x46", CF_EAUTH, "protocol version"}, /* an alert */
        {"\x15\x03\x03\x00\x02\x02\x28", CF_EAUTH, "handshake failure"},
        {"\x15\x03\x03\x00\x02\x02\x50", CF_EUNAVAILABLE, "internal error"},
        {"", CF_EUNAVAILABLE, "ended the connection during the handshake"},
        {"\x16\x03", CF_EUNAVAILABLE, "ended the connection during the handshake"},
        {"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", CF_EUNAVAILABLE, "ended the connection during the handshake"},
    };
    static const size_t lengths[] = {0, 0, 0, 0, 0, 7, 7, 7, 0, 0, 9}; /* where a text has a NUL */
    redis_tls_context *context = context_of(&options);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair   two = connect_pair(context, options.host, NULL);
        size_t len = lengths[i] ? lengths[i] : strlen(rows[i].says);
        assert_int_equal(redis_tls_handshake(two.tls, &error), CF_PENDING);
        assert_int_equal(write(two.fd[1], rows[i].says, len), (ssize_t)len);
        shutdown(two.fd[1], SHUT_WR);
        int status = shake(&two, &error);
        if (status != rows[i].status || !strstr(error.text, rows[i].word)) fail_msg("row %zu: %s: %s", i, cf_status_name(status), error.text);
        end_pair(&two);
    }
    redis_tls_context_free(context);
}

/* ---- bytes ---- */

/* What the peer has read is what was taken, byte by byte, though the caller gives other bytes whenever some were not taken. */
static void what_was_taken_arrives_and_nothing_else(void **state)
{
    (void)state;
    rng random = {seed_of_run()};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int round = 0; round < 20; round++) {
        redis_options      options = plain_options();
        redis_tls_context *context = context_of(&options);
        pair               two = connect_pair(context, options.host, server_rules(server, versions[round % 2]));
        cf_error           error;
        int                small = 4096;
        if (round % 4 < 3) setsockopt(two.fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        assert_int_equal(shake(&two, &error), CF_OK);
        enum { TOTAL = 400000 };
        static char taken[TOTAL], got[TOTAL], given[70000];
        size_t      sent = 0, received = 0, refused = 0;
        while (received < TOTAL) {
            if (sent < TOTAL && rng_below(&random, 3)) {
                size_t want = 1 + rng_below(&random, rng_below(&random, 2) ? sizeof given : 300);
                if (want > TOTAL - sent) want = TOTAL - sent;
                for (size_t i = 0; i < want; i++) given[i] = (char)rng_next(&random); /* never the same as last time */
                int64_t took = redis_tls_send(two.tls, given, want);
                if (took < 0) assert_int_equal(errno, EAGAIN);
                if (took < (int64_t)want) {
                    assert_true(redis_tls_wants(two.tls) & CF_WRITABLE);
                    refused++;
                }
                if (took > 0) memcpy(taken + sent, given, (size_t)took);
                if (took > 0) sent += (size_t)took;
            } else if (sent == TOTAL && redis_tls_wants(two.tls) & CF_WRITABLE) {
                int64_t rest = redis_tls_send(two.tls, NULL, 0);
                assert_true(rest == 0 || (rest == -1 && errno == EAGAIN));
                assert_true((rest == 0) == (redis_tls_wants(two.tls) == CF_READABLE));
            }
            if (rng_below(&random, 3) == 0) continue;
            int count = SSL_read(two.peer, got + received, (int)(1 + rng_below(&random, 20000)) % (int)(TOTAL - received + 1));
            if (count > 0) received += (size_t)count;
        }
        assert_int_equal(sent, TOTAL);
        assert_memory_equal(taken, got, TOTAL);
        assert_true(round % 4 == 3 || refused > 0);
        /* And back: many records at once, read in small pieces; while has_more, no poll would tell. */
        for (received = 0; received < 60000;) {
            int count = SSL_write(two.peer, taken + received, 500);
            if (count > 0) received += (size_t)count;
            else break;
        }
        size_t  back = 0;
        bool    more = true;
        int64_t count = 1;
        while (back < received) {
            assert_true(more); /* the socket was read until it was dry, or not yet at all */
            count = redis_tls_read(two.tls, got + back, 1 + rng_below(&random, 700));
            if (count < 0) {
                assert_int_equal(errno, EAGAIN);
                break;
            }
            back += (size_t)count;
            char peeked;
            more = redis_tls_has_more(two.tls) || recv(two.fd[0], &peeked, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
        }
        assert_int_equal(back, received);
        assert_memory_equal(taken, got, received);
        char byte;
        assert_int_equal(redis_tls_read(two.tls, &byte, 1), -1);
        assert_int_equal(errno, EAGAIN);
        assert_false(redis_tls_has_more(two.tls));
        end_pair(&two);
        redis_tls_context_free(context);
    }
}

static void ends(void **state)
{
    (void)state;
    redis_options      options = plain_options();
    redis_tls_context *context = context_of(&options);
    cf_error           error;
    char               bytes[64];
    enum { POLITE, CUT, IN_A_RECORD, GARBAGE, OURS, KINDS };
    for (int kind = 0; kind < KINDS * 2; kind++) {
        pair two = connect_pair(context, options.host, server_rules(server, kind < KINDS ? TLS1_2_VERSION : TLS1_3_VERSION));
        assert_int_equal(shake(&two, &error), CF_OK);
        assert_int_equal(SSL_write(two.peer, "last", 4), 4);
        switch (kind % KINDS) {
        case POLITE: SSL_shutdown(two.peer); break;
        case CUT: break;
        case IN_A_RECORD: assert_int_equal(write(two.fd[1], "\x17\x03\x03\x00\x40half", 9), 9); break;
        case GARBAGE: assert_int_equal(write(two.fd[1], "\x17\x03\x03\x00\x20 0123456789012345678901234567890", 37), 37); break;
        case OURS:
            assert_int_equal(redis_tls_send(two.tls, "bye", 3), 3);
            redis_tls_goodbye(two.tls);
            assert_int_equal(SSL_read(two.peer, bytes, sizeof bytes), 3);
            assert_int_equal(SSL_read(two.peer, bytes, sizeof bytes), 0);
            assert_int_equal(SSL_get_error(two.peer, 0), SSL_ERROR_ZERO_RETURN);
            break;
        }
        end_theirs(&two);
        assert_int_equal(redis_tls_read(two.tls, bytes, sizeof bytes), 4);
        for (int again = 0; again < 2; again++) {
            int64_t got = redis_tls_read(two.tls, bytes, sizeof bytes);
            if (got != (kind % KINDS == GARBAGE ? -1 : 0)) {
                redis_tls_fault(two.tls, &error);
                fail_msg("kind %d: %lld: %s", kind, (long long)got, error.text);
            }
            if (got < 0) assert_int_equal(errno, EPROTO);
        }
        assert_int_equal(redis_tls_fault(two.tls, &error), CF_EUNAVAILABLE);
        assert_true(strlen(error.text) > 10);
        assert_int_equal(redis_tls_send(two.tls, "x", 1), -1); /* and no SIGPIPE has ended us */
        assert_true(errno != EAGAIN);
        redis_tls_goodbye(two.tls);
        end_pair(&two);
    }
    redis_tls_context_free(context);
}

static void the_server_wants_a_certificate(void **state)
{
    (void)state;
    party             stranger = issue(&other_root, (wish){.cn = "client"});
    static const int  versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    write_party("turning.pem", "stranger.key", stranger, NULL);
    for (int i = 0; i < 6; i++) {
        enum { NONE, STRANGER, OURS };
        int           who = i % 3;
        redis_options options = plain_options();
        if (who != NONE) {
            options.tls_cert = (char *)path(who == OURS ? "client.pem" : "turning.pem");
            options.tls_key = (char *)path(who == OURS ? "client.key" : "stranger.key");
        }
        redis_tls_context *context = context_of(&options);
        SSL_CTX           *rules = server_rules(server, versions[i / 3]);
        SSL_CTX_set_verify(rules, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        X509_STORE_add_cert(SSL_CTX_get_cert_store(rules), root.cert);
        pair     two = connect_pair(context, options.host, rules);
        cf_error error = {0};
        char     byte;
        int      status = shake(&two, &error);
        if (who == OURS) {
            assert_int_equal(status, CF_OK);
        } else {
            if (status == CF_OK) { /* TLS 1.3: the refusal is read */
                assert_int_equal(redis_tls_read(two.tls, &byte, 1), -1);
                assert_int_equal(errno, EPROTO);
                status = redis_tls_fault(two.tls, &error);
            }
            if (status != CF_EAUTH || !strstr(error.text, "the server refuses")) fail_msg("%d: %s: %s", i, cf_status_name(status), error.text);
        }
        end_pair(&two);
        redis_tls_context_free(context);
    }
    drop(stranger);
}

static void files_are_read_again(void **state)
{
    (void)state;
    redis_options options = plain_options();
    options.tls_ca = (char *)path("turning.pem");
    write_party("turning.pem", NULL, other_root, NULL);
    redis_tls_context *context = context_of(&options);
    static const struct {
        int  writes; /* 0: nothing, 1: another root, 2: the root, 3: half a file */
        bool good;
    } steps[] = {{0, false}, {2, true}, {0, true}, {3, true}, {1, false}, {2, true}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cf_error error;
        if (steps[i].writes == 1) write_party("turning.pem", NULL, other_root, NULL);
        if (steps[i].writes == 2) write_party("turning.pem", NULL, root, NULL);
        if (steps[i].writes == 3) write_text("turning.pem", "-----BEGIN CERTIFICATE-----\nMII");
        pair two = connect_pair(context, options.host, server_rules(server, 0));
        if (shake(&two, &error) != (steps[i].good ? CF_OK : CF_EAUTH)) fail_msg("step %zu: %s", i, error.text);
        end_pair(&two);
    }
    redis_tls_context_free(context);
}

/* ---- failures ---- */

/* A whole life, with what fails chosen by the caller. Everything that is returned is legal, and nothing leaks. */
static void live(cf_stage *stage)
{
    redis_options      options = plain_options();
    redis_tls_context *context;
    cf_error           error = {0};
    int                status = redis_tls_context_new(cf_stage_platform(stage), &options, &context, &error);
    assert_true(status == CF_OK || status == CF_ENOMEM);
    if (status != CF_OK) return;
    int  fd[2], small = 4096;
    char bytes[20000] = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    pair two = {.fd = {fd[0], fd[1]}, .rules = server_rules(server, 0)};
    two.peer = SSL_new(two.rules);
    SSL_set_fd(two.peer, fd[1]);
    SSL_set_accept_state(two.peer);
    status = redis_tls_new(context, options.host, fd[0], &two.tls, &error);
    assert_true(status == CF_OK || (status == CF_ENOMEM && two.tls == NULL));
    if (status == CF_OK) {
        status = shake(&two, &error);
        assert_true(status == CF_OK || status == CF_ENOMEM || status == CF_EUNAVAILABLE);
        if (status != CF_OK) assert_int_equal(error.status, status);
    }
    for (int i = 0; status == CF_OK && i < 10; i++) {
        if (redis_tls_send(two.tls, bytes, sizeof bytes) < 0 && errno != EAGAIN) break;
        if (two.peer) SSL_read(two.peer, bytes, sizeof bytes);
        if (two.peer) SSL_write(two.peer, bytes, 100);
        if (redis_tls_read(two.tls, bytes, sizeof bytes) < 0 && errno != EAGAIN) break;
    }
    if (two.tls) redis_tls_goodbye(two.tls);
    end_pair(&two);
    redis_tls_context_free(context);
}

static void every_failure_of_the_machine(void **state)
{
    (void)state;
    static const int codes[] = {ECONNRESET, EPIPE, EINTR, EAGAIN, ENOMEM};
    unsigned         failed = 0;
    for (size_t c = 0; c <= sizeof codes / sizeof *codes; c++) {
        for (uint64_t nth = 1;; nth++) {
            cf_stage *stage = cf_stage_new();
            if (c == 0) cf_stage_fail_allocation(stage, nth, false);
            else cf_stage_fail_syscall(stage, nth, codes[c - 1]);
            live(stage);
            bool done = !cf_stage_failed(stage);
            assert_int_equal(cf_stage_blocks(stage), 0);
            assert_int_equal(ERR_peek_error(), 0);
            cf_stage_free(stage);
            if (done) break;
            failed++;
        }
    }
    assert_true(failed > 50);
}

int main(void)
{
    hang_guard(300);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_that_cannot_be_used), cmocka_unit_test(names),
        cmocka_unit_test(chains),                    cmocka_unit_test(protocols),
        cmocka_unit_test(what_was_taken_arrives_and_nothing_else), cmocka_unit_test(ends),
        cmocka_unit_test(the_server_wants_a_certificate), cmocka_unit_test(files_are_read_again),
        cmocka_unit_test(every_failure_of_the_machine),
    };
    return cmocka_run_group_tests_name("tls", tests, make_world, drop_world);
}
