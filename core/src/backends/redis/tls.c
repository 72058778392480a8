/* tls.c: the one file that knows OpenSSL (3, or 1.1.1). */
#include "tls.h"

#ifndef CF_TLS

int redis_tls_context_new(const cf_platform *platform, const redis_options *options, redis_tls_context **out, cf_error *error)
{
    (void)platform;
    (void)options;
    *out = NULL;
    return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED,
                        "rediss: this build of the library has no TLS; build it with OpenSSL and -DCF_TLS=ON");
}

/* Without a context there are no connections: nobody calls what follows. */
void redis_tls_context_free(redis_tls_context *context) { (void)context; }

int redis_tls_new(redis_tls_context *context, const char *host, int fd, redis_tls **out, cf_error *error)
{
    (void)host;
    (void)fd;
    *out = NULL;
    return redis_tls_context_new(NULL, NULL, &context, error);
}

void redis_tls_free(redis_tls *tls) { (void)tls; }

int redis_tls_handshake(redis_tls *tls, cf_error *error) { return redis_tls_fault(tls, error); }

unsigned redis_tls_wants(const redis_tls *tls)
{
    (void)tls;
    return 0;
}

int64_t redis_tls_read(redis_tls *tls, void *bytes, size_t count)
{
    (void)tls;
    (void)bytes;
    (void)count;
    return 0;
}

int64_t redis_tls_send(redis_tls *tls, const void *bytes, size_t count)
{
    (void)tls;
    (void)bytes;
    (void)count;
    return 0;
}

bool redis_tls_has_more(const redis_tls *tls)
{
    (void)tls;
    return false;
}

int redis_tls_fault(const redis_tls *tls, cf_error *error)
{
    (void)tls;
    return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "rediss: this build of the library has no TLS");
}

void redis_tls_goodbye(redis_tls *tls) { (void)tls; }

#else

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum {
    RECORD = 16384,           /* bytes of a TLS record, at most                                                */
    MOST_WAITING = 256 * 1024 /* encrypted bytes: only a peer that makes us answer and never reads comes there */
};

struct redis_tls_context {
    const cf_platform   *platform;
    const redis_options *options;
    BIO_METHOD          *method;
    SSL_CTX             *rules;
    bool                 doubted; /* a server's chain was refused: perhaps the system's certificates have changed */
};

struct redis_tls {
    redis_tls_context *context;
    SSL               *ssl;
    char              *name; /* that the certificate must have: without the dot of the root */
    int                fd;
    cf_buffer          waiting; /* encrypted, and not yet taken by the socket */
    size_t             waiting_at;
    bool               ended; /* nothing more comes from the socket               */
    bool               over;  /* the stream has ended, with or without close_notify */
    bool               dry;   /* the last read found nothing that was whole       */
    bool               asked; /* for a certificate of ours                        */
    bool               done;  /* the handshake                                    */
    int                io_errno; /* of the system call that failed                */
    int                code;     /* an errno, when fault has a status             */
    cf_error           fault;    /* status < 0: of no use any more                */
};

/* ---- what OpenSSL has to say ---- */

/* The first error is the cause, those after it say who passed it on. Empties the queue. */
static unsigned long first_error(char reason[static 160])
{
    unsigned long code = ERR_peek_error();
    char          text[256] = "unknown error";
    if (code) ERR_error_string_n(code, text, sizeof text); /* error:CODE:library:function:reason */
    const char *last = strrchr(text, ':');
    cf_slice    said = cf_text(last ? last + 1 : text);
    if (said.len > 159) said.len = 159;
    memcpy(reason, said.ptr, said.len);
    reason[said.len] = 0;
    ERR_clear_error();
    return code;
}

static int no_memory(cf_error *error) { return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "rediss: no memory for TLS"); }

/* No path: what an option says is not shown. */
static int refuse_file(cf_error *error, const char *option, const char *what)
{
    char          reason[160];
    unsigned long code = first_error(reason);
    if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) return no_memory(error);
    return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "rediss: %s %s: %s", option, what, reason);
}

/* ---- rules ---- */

/* Without it OpenSSL would ask at the terminal, and wait. */
static int no_passphrase(char *out, int size, int writing, void *asked)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

static bool opens(const char *path)
{
    BIO *file = BIO_new_file(path, "r");
    BIO_free(file);
    ERR_clear_error();
    return file != NULL;
}

/* The system's certificates. An OpenSSL that was built elsewhere and linked into us looks where that system had them; then they are
 * sought where the others have theirs. Finding none is no error here: then no server is trusted. */
static bool trust_system(X509_STORE *store)
{
    static const char *const bundles[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Alpine, Arch */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, RHEL         */
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem", /* SUSE       */
        "/etc/ssl/cert.pem",      /* macOS, BSD */
    };
    if (!X509_STORE_set_default_paths(store)) return false;
    if (getenv(X509_get_default_cert_file_env()) || getenv(X509_get_default_cert_dir_env())) return true;
    if (opens(X509_get_default_cert_file()) || opens(X509_get_default_cert_dir())) return true;
    for (size_t i = 0; i < sizeof bundles / sizeof *bundles; i++)
        if (X509_STORE_load_locations(store, bundles[i], NULL)) break;
    ERR_clear_error();
    return true;
}

static int trust(const redis_tls_context *c, SSL_CTX *rules, cf_error *error)
{
    X509_STORE *store = SSL_CTX_get_cert_store(rules);
    if (c->options->tls_ca) {
        if (!X509_STORE_load_locations(store, c->options->tls_ca, NULL))
            return refuse_file(error, "tls_ca", "cannot be read as PEM certificates");
        /* What is named there is trusted itself, also where it is no root. */
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(rules), X509_V_FLAG_PARTIAL_CHAIN);
        return CF_OK;
    }
    if (c->rules && !c->doubted) {
        SSL_CTX_set1_cert_store(rules, SSL_CTX_get_cert_store(c->rules));
        return CF_OK;
    }
    return trust_system(store) ? CF_OK : no_memory(error);
}

static int identify(const redis_tls_context *c, SSL_CTX *rules, cf_error *error)
{
    bool asked = false;
    if (!c->options->tls_cert) return CF_OK;
    SSL_CTX_set_default_passwd_cb(rules, no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(rules, &asked);
    int rc = CF_OK;
    if (SSL_CTX_use_certificate_chain_file(rules, c->options->tls_cert) != 1) {
        rc = refuse_file(error, "tls_cert", "cannot be used as a PEM certificate chain");
    } else if (SSL_CTX_use_PrivateKey_file(rules, c->options->tls_key, SSL_FILETYPE_PEM) != 1) {
        bool stranger = ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509;
        rc = refuse_file(error, "tls_key", stranger ? "does not belong to tls_cert" : "cannot be used as a PEM private key");
    } else if (SSL_CTX_check_private_key(rules) != 1) {
        rc = refuse_file(error, "tls_key", "does not belong to tls_cert");
    }
    if (rc == CF_EINVAL && asked)
        rc = cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED,
                          "rediss: tls_key is encrypted with a pass phrase, which is not supported; protect the file by its rights");
    SSL_CTX_set_default_passwd_cb_userdata(rules, NULL);
    return rc;
}

/* After what the system's openssl.cnf says, which may ask for more but not for less. */
static int make_rules(const redis_tls_context *c, SSL_CTX **out, cf_error *error)
{
    ERR_clear_error();
    SSL_CTX *rules = SSL_CTX_new(TLS_client_method());
    if (!rules) {
        ERR_clear_error();
        return no_memory(error);
    }
    if (SSL_CTX_get_min_proto_version(rules) < TLS1_2_VERSION && !SSL_CTX_set_min_proto_version(rules, TLS1_2_VERSION)) {
        SSL_CTX_free(rules);
        ERR_clear_error();
        return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "rediss: the OpenSSL that is here knows no TLS 1.2");
    }
    if (SSL_CTX_get_security_level(rules) < 2) SSL_CTX_set_security_level(rules, 2); /* no RSA below 2048 bits, no SHA-1 */
    SSL_CTX_set_verify(rules, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(rules, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_clear_options(rules, SSL_OP_LEGACY_SERVER_CONNECT | SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
    SSL_CTX_set_mode(rules, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(rules, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(rules, 1); /* one system call for a record, not two */
    int rc = trust(c, rules, error);
    if (rc == CF_OK) rc = identify(c, rules, error);
    ERR_clear_error();
    if (rc == CF_OK) *out = rules;
    else SSL_CTX_free(rules);
    return rc;
}

/* ---- the socket, as OpenSSL sees it ---- */

static bool would_block(int code) { return code == EAGAIN || code == EWOULDBLOCK || code == EINTR; }

/* Sends what waits. False: the socket is broken. */
static bool push_on(redis_tls *tls)
{
    const cf_platform *platform = tls->context->platform;
    while (tls->waiting_at < tls->waiting.len) {
        size_t  left = tls->waiting.len - tls->waiting_at;
        int64_t sent = platform->send(platform->self, tls->fd, tls->waiting.ptr + tls->waiting_at, left);
        if (sent < 0) {
            if (would_block(errno)) return true;
            tls->io_errno = errno;
            return false;
        }
        tls->waiting_at += (size_t)sent;
    }
    cf_buffer_free(platform, &tls->waiting);
    tls->waiting_at = 0;
    return true;
}

/* Takes everything: what OpenSSL has encrypted can neither be taken back nor exchanged, so that it never is to be repeated. */
static int bio_write(BIO *bio, const char *bytes, int count)
{
    redis_tls         *tls = BIO_get_data(bio);
    const cf_platform *platform = tls->context->platform;
    cf_slice           rest = cf_bytes(bytes, count > 0 ? (size_t)count : 0);
    BIO_clear_retry_flags(bio);
    if (tls->waiting.len == 0 && rest.len) {
        int64_t sent = platform->send(platform->self, tls->fd, rest.ptr, rest.len);
        if (sent < 0 && !would_block(errno)) {
            tls->io_errno = errno;
            return -1;
        }
        if (sent > 0) rest = cf_bytes(rest.ptr + sent, rest.len - (size_t)sent);
    }
    if (rest.len == 0) return count;
    if (tls->waiting.len + rest.len > MOST_WAITING || cf_buffer_append(platform, &tls->waiting, rest) != CF_OK) {
        tls->io_errno = ENOMEM;
        return -1;
    }
    return count;
}

static int bio_read(BIO *bio, char *bytes, int count)
{
    redis_tls         *tls = BIO_get_data(bio);
    const cf_platform *platform = tls->context->platform;
    BIO_clear_retry_flags(bio);
    int64_t got = platform->read(platform->self, tls->fd, bytes, count > 0 ? (size_t)count : 0);
    if (got > 0) return (int)got;
    if (got == 0) {
        tls->ended = true;
        return 0;
    }
    if (would_block(errno)) BIO_set_retry_read(bio);
    else tls->io_errno = errno;
    return -1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    redis_tls *tls = BIO_get_data(bio);
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return tls->ended;
    return 0;
}

/* ---- contexts and connections ---- */

int redis_tls_context_new(const cf_platform *platform, const redis_options *options, redis_tls_context **out, cf_error *error)
{
    *out = NULL;
    redis_tls_context *c = cf_zalloc(platform, sizeof *c);
    if (!c) return no_memory(error);
    c->platform = platform;
    c->options = options;
    c->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "counterfoil");
    int rc = CF_OK;
    if (!c->method || !BIO_meth_set_write(c->method, bio_write) || !BIO_meth_set_read(c->method, bio_read) || !BIO_meth_set_ctrl(c->method, bio_ctrl)) {
        ERR_clear_error();
        rc = no_memory(error);
    }
    if (rc == CF_OK) rc = make_rules(c, &c->rules, error);
    if (rc != CF_OK) redis_tls_context_free(c);
    else *out = c;
    return rc;
}

void redis_tls_context_free(redis_tls_context *context)
{
    if (!context) return;
    SSL_CTX_free(context->rules);
    BIO_meth_free(context->method);
    cf_release(context->platform, context);
}

static bool expect_name(redis_tls *tls, const char *host)
{
    const redis_tls_context *c = tls->context;
    X509_VERIFY_PARAM       *param = SSL_get0_param(tls->ssl);
    cf_slice                 name = cf_text(c->options->tls_server_name ? c->options->tls_server_name : host);
    cf_address               address;
    if (name.len > 1 && name.ptr[name.len - 1] == '.') name.len--;
    if (!(tls->name = cf_alloc(c->platform, name.len + 1))) return false;
    if (name.len) memcpy(tls->name, name.ptr, name.len);
    tls->name[name.len] = 0;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (cf_address_of(tls->name, "0", &address) == CF_OK) return X509_VERIFY_PARAM_set1_ip_asc(param, tls->name) == 1;
    return SSL_set_tlsext_host_name(tls->ssl, tls->name) == 1 && X509_VERIFY_PARAM_set1_host(param, tls->name, name.len) == 1;
}

static int note_request(SSL *ssl, void *tls)
{
    (void)ssl;
    ((redis_tls *)tls)->asked = true;
    return 1; /* go on with what there is */
}

int redis_tls_new(redis_tls_context *context, const char *host, int fd, redis_tls **out, cf_error *error)
{
    const redis_options *options = context->options;
    SSL_CTX             *fresh = NULL;
    *out = NULL;
    if ((options->tls_ca || options->tls_cert || context->doubted) && make_rules(context, &fresh, NULL) == CF_OK) {
        SSL_CTX_free(context->rules);
        context->rules = fresh;
        context->doubted = false;
    }
    redis_tls *tls = cf_zalloc(context->platform, sizeof *tls);
    if (!tls) return no_memory(error);
    tls->context = context;
    tls->fd = fd;
    tls->ssl = SSL_new(context->rules);
    BIO *bio = tls->ssl ? BIO_new(context->method) : NULL;
    if (bio) {
        BIO_set_data(bio, tls);
        BIO_set_init(bio, 1);
        SSL_set_bio(tls->ssl, bio, bio);
        SSL_set_connect_state(tls->ssl);
        SSL_set_cert_cb(tls->ssl, note_request, tls);
    }
    bool good = bio && expect_name(tls, host);
    ERR_clear_error();
    if (!good) {
        redis_tls_free(tls);
        return no_memory(error);
    }
    *out = tls;
    return CF_OK;
}

void redis_tls_free(redis_tls *tls)
{
    if (!tls) return;
    const cf_platform *platform = tls->context->platform;
    SSL_free(tls->ssl);
    ERR_clear_error();
    cf_buffer_free(platform, &tls->waiting);
    cf_release(platform, tls->name);
    cf_release(platform, tls);
}

/* ---- errors ---- */

/* The server says that it does not want our certificate, or wants one. */
static bool about_ours(const redis_tls *tls, int reason)
{
    switch (reason) {
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE: /* how servers of TLS 1.2 say that one is missing */
        return tls->asked && !tls->context->options->tls_cert;
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return true;
    default: return false;
    }
}

static bool not_tls(int reason)
{
    return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST || reason == SSL_R_UNKNOWN_PROTOCOL ||
           reason == SSL_R_PACKET_LENGTH_TOO_LONG || reason == SSL_R_ENCRYPTED_LENGTH_TOO_LONG;
}

static int refuse_chain(redis_tls *tls, const char *reason)
{
    redis_tls_context *c = tls->context;
    long               result = SSL_get_verify_result(tls->ssl);
    const char        *why = result == X509_V_OK ? reason : X509_verify_cert_error_string(result);
    bool named = result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH;
    bool stranger = result == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN || result == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
                    result == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || result == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
    const char *hint = !stranger ? "" : c->options->tls_ca ? ": tls_ca does not have who issued it" : ": name the file of who issued it with tls_ca";
    c->doubted = true;
    return cf_error_set(&tls->fault, CF_EAUTH, CF_NOT_APPLIED, "TLS: the server's certificate is refused: %s%s%.120s%s%s", why,
                        named ? " (it must be for " : "", named ? tls->name : "", named ? ")" : "", hint);
}

static const char *socket_error(int code)
{
    switch (code) {
    case ECONNRESET: return "it was reset";
    case EPIPE: return "it was closed";
    case ETIMEDOUT: return "it timed out";
    case EHOSTUNREACH:
    case ENETUNREACH: return "the server cannot be reached any more";
    default: return "a system call failed";
    }
}

/* OpenSSL knows of no reason but the socket. */
static bool cut_short(unsigned long code)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return true;
#endif
    return code == 0;
}

/* After a call of OpenSSL that has failed for good: what happened, in tls->fault and tls->code. What OpenSSL says comes before what
 * the socket says: where the server was refused, the socket often fails because the server is not there to hear of it. */
static int settle(redis_tls *tls)
{
    char          reason[160];
    unsigned long code = first_error(reason);
    cf_error     *fault = &tls->fault;
    int           why = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
    const char   *when = tls->done ? "" : " during the handshake";
    tls->code = EPROTO;
    if (tls->io_errno == ENOMEM || ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) {
        tls->code = ENOMEM;
        return no_memory(fault);
    }
    if (why == SSL_R_CERTIFICATE_VERIFY_FAILED || SSL_get_verify_result(tls->ssl) != X509_V_OK) return refuse_chain(tls, reason);
    if (about_ours(tls, why))
        return cf_error_set(fault, CF_EAUTH, CF_NOT_APPLIED, "TLS: the server refuses %s: %s",
                            tls->context->options->tls_cert ? "our certificate" : "a client without a certificate (tls_cert)", reason);
    if (tls->ended && cut_short(code)) {
        tls->over = true;
        tls->code = EPIPE;
        return cf_error_set(fault, CF_EUNAVAILABLE, CF_NOT_APPLIED, "TLS: the server ended the connection%s", when);
    }
    if (tls->io_errno && cut_short(code)) {
        tls->code = tls->io_errno;
        return cf_error_set(fault, CF_EUNAVAILABLE, CF_NOT_APPLIED, "TLS: the connection failed%s: %s", when,
                            socket_error(tls->io_errno));
    }
    if (why == 0 || why == SSL_R_TLSV1_ALERT_INTERNAL_ERROR || why == SSL_R_TLSV1_ALERT_USER_CANCELLED || tls->done)
        return cf_error_set(fault, CF_EUNAVAILABLE, CF_NOT_APPLIED, "TLS: the connection failed%s: %s", when, reason);
    return cf_error_set(fault, CF_EAUTH, CF_NOT_APPLIED, "TLS: %s: %s",
                        not_tls(why) ? "what answers on that port does not speak it" : "the server offers no handshake that is accepted",
                        reason);
}

static int64_t broken(const redis_tls *tls)
{
    errno = tls->code;
    return -1;
}

static int64_t not_now(void)
{
    errno = EAGAIN;
    return -1;
}

int redis_tls_fault(const redis_tls *tls, cf_error *error)
{
    if (tls->fault.status == CF_OK) return cf_error_set(error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "TLS: nothing has failed yet");
    return cf_error_set(error, tls->fault.status, tls->fault.outcome, "%s", tls->fault.text);
}

/* ---- what happens on a connection ---- */

/* Ciphers without certificates are in none of our lists; were they, they would end here. */
static bool has_shown_itself(const SSL *ssl)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    return SSL_get0_peer_certificate(ssl) != NULL;
#else
    X509 *certificate = SSL_get_peer_certificate(ssl);
    X509_free(certificate);
    return certificate != NULL;
#endif
}

static int shake(redis_tls *tls)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(tls->ssl);
    if (rc != 1) return SSL_get_error(tls->ssl, rc) == SSL_ERROR_WANT_READ ? CF_PENDING : settle(tls);
    if (SSL_get_verify_result(tls->ssl) != X509_V_OK || !has_shown_itself(tls->ssl)) {
        tls->code = EPROTO;
        return refuse_chain(tls, "there is none");
    }
    tls->done = true;
    return CF_OK;
}

int redis_tls_handshake(redis_tls *tls, cf_error *error)
{
    int rc = tls->fault.status;
    if (rc == CF_OK && !push_on(tls)) rc = settle(tls);
    if (rc == CF_OK && !tls->done) rc = shake(tls);
    if (rc == CF_OK && tls->waiting.len) rc = CF_PENDING;
    return rc < 0 ? redis_tls_fault(tls, error) : rc;
}

unsigned redis_tls_wants(const redis_tls *tls) { return tls->waiting.len ? CF_READABLE | CF_WRITABLE : CF_READABLE; }

int64_t redis_tls_read(redis_tls *tls, void *bytes, size_t count)
{
    if (tls->fault.status) return tls->over ? 0 : broken(tls);
    ERR_clear_error();
    if (!push_on(tls)) {
        settle(tls);
        return broken(tls);
    }
    size_t total = 0;
    tls->dry = false;
    while (total < count && !tls->dry && tls->fault.status == CF_OK) {
        int got = SSL_read(tls->ssl, (char *)bytes + total, count - total < INT_MAX ? (int)(count - total) : INT_MAX);
        if (got > 0) {
            total += (size_t)got;
            if (!SSL_has_pending(tls->ssl)) break; /* the socket will say when there is more */
            continue;
        }
        int why = SSL_get_error(tls->ssl, got);
        tls->dry = why == SSL_ERROR_WANT_READ;
        if (why == SSL_ERROR_ZERO_RETURN) tls->ended = true;
        if (!tls->dry) settle(tls);
    }
    if (total) return (int64_t)total; /* what came before an error is good: the next call says it */
    if (tls->dry) return not_now();
    return tls->over ? 0 : broken(tls);
}

int64_t redis_tls_send(redis_tls *tls, const void *bytes, size_t count)
{
    size_t taken = 0;
    if (tls->fault.status) return broken(tls);
    if (!tls->done) return not_now();
    ERR_clear_error();
    bool good = push_on(tls);
    while (good && taken < count && tls->waiting.len == 0) {
        int sent = SSL_write(tls->ssl, (const char *)bytes + taken, count - taken < RECORD ? (int)(count - taken) : RECORD);
        good = sent > 0;
        if (good) taken += (size_t)sent;
    }
    if (!good) settle(tls);
    if (taken) return (int64_t)taken;
    if (!good) return broken(tls);
    return tls->waiting.len ? not_now() : 0;
}

bool redis_tls_has_more(const redis_tls *tls) { return !tls->dry && (tls->fault.status || SSL_has_pending(tls->ssl)); }

void redis_tls_goodbye(redis_tls *tls)
{
    if (!tls->done || tls->fault.status) return;
    ERR_clear_error();
    if (push_on(tls)) SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

#endif
