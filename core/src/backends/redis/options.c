/* options.c: what a redis:, rediss:, redis+unix:, redis+sentinel:, redis+cluster: ... URL says. No sentence shows a value, nor the name of an option that is
 * unknown: where a password holds an & that was not written %26, that "name" is the rest of the password. */
#include "options.h"

#include <stdio.h>

typedef struct reading {
    const cf_platform *platform;
    redis_options     *out;
    cf_error          *error;
    const char        *scheme;
    bool               sentinel, cluster;
    bool               db_given, login_given; /* in front of the options */
} reading;

static int refuse(const reading *r, const char *sentence)
{
    return cf_error_set(r->error, CF_EINVAL, CF_NOT_APPLIED, "%s: %s", r->scheme, sentence);
}

static int refuse_option(const reading *r, const char *name, const char *rest)
{
    return cf_error_set(r->error, CF_EINVAL, CF_NOT_APPLIED, "%s: %s %s", r->scheme, name, rest);
}

/* The barrier makes the compiler believe that somebody reads the zeros. */
static void wipe(void *block, size_t size)
{
    memset(block, 0, size);
    __asm__ volatile("" : : "r"(block) : "memory");
}

/* A terminated copy in place of what *out was; `encoded` says that it is still to be decoded. */
static int keep(const reading *r, cf_slice text, bool encoded, char **out)
{
    char *copy = cf_alloc(r->platform, text.len + 1);
    if (!copy) return cf_error_set(r->error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for the options of a URL");
    size_t len = text.len;
    if (encoded) {
        const char *fault = cf_percent_decode(text, copy, &len);
        if (fault) {
            wipe(copy, text.len + 1);
            cf_release(r->platform, copy);
            return cf_error_set(r->error, CF_EINVAL, CF_NOT_APPLIED, "%s", fault);
        }
    } else if (len) {
        memcpy(copy, text.ptr, len);
    }
    copy[len] = 0;
    cf_release(r->platform, *out);
    *out = copy;
    return CF_OK;
}

/* ---- hosts ---- */

static bool letter_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* 127.1, 0x7f.0.0.1 and 2130706433 are addresses to some resolvers and names to others: only four decimal numbers are taken
 * for an address, and nothing like it for a name. */
static bool looks_numeric(cf_slice label)
{
    if (label.len >= 2 && label.ptr[0] == '0' && (label.ptr[1] == 'x' || label.ptr[1] == 'X')) return true;
    for (size_t i = 0; i < label.len; i++)
        if (label.ptr[i] < '0' || label.ptr[i] > '9') return false;
    return true;
}

/* NULL for an IP address without brackets or a name: letters, digits, hyphens, and the underscores of container networks.
 * Otherwise the end of a sentence. An empty label is refused also because OpenSSL takes a name that starts with a dot for "any
 * name below it". */
static const char *host_fault(const char *host)
{
    cf_address address;
    if (cf_address_of(host, "0", &address) == CF_OK) return NULL;
    size_t len = strlen(host), start = 0;
    if (len > 1 && host[len - 1] == '.') len--; /* the root, as in example.org. */
    if (len == 0) return "is empty";
    if (len > 253) return "is longer than 253 bytes";
    for (size_t i = 0; i <= len; i++) {
        if (i < len && host[i] != '.') {
            if ((unsigned char)host[i] >= 0x80) return "has letters beyond ASCII; write it in its xn-- form";
            if (!letter_digit(host[i]) && host[i] != '-' && host[i] != '_') return "is neither a host name nor an IP address";
            continue;
        }
        cf_slice label = cf_bytes(host + start, i - start);
        if (label.len == 0 || label.len > 63) return "is neither a host name nor an IP address";
        if (i == len && looks_numeric(label)) return "looks like an IP address but is not one of four decimal numbers";
        start = i + 1;
    }
    return NULL;
}

static int read_port(reading *r, cf_slice port)
{
    int64_t number;
    if (!cf_parse_int(port, &number) || number < 1 || number > 65535)
        return refuse(r, "the port must be a whole number from 1 to 65535");
    return keep(r, port, false, &r->out->port);
}

/* [IPv6] or [IPv6]:PORT. */
static int read_brackets(reading *r, cf_slice text)
{
    const char *close = memchr(text.ptr, ']', text.len);
    if (!close) return refuse(r, "the [ in front of an IPv6 address has no ]");
    cf_slice inner = cf_bytes(text.ptr + 1, (size_t)(close - text.ptr) - 1);
    if (inner.len && memchr(inner.ptr, '%', inner.len))
        return refuse(r, "an IPv6 address with a zone, after a %, is not supported: it means something on this machine only");
    int rc = keep(r, inner, false, &r->out->host);
    const char *host = r->out->host;
    if (rc != CF_OK || !host) return rc;
    cf_address address;
    if (strlen(host) != inner.len || !strchr(host, ':') || cf_address_of(host, "0", &address) != CF_OK)
        return refuse(r, "what stands in brackets is not an IPv6 address");
    cf_slice rest = cf_bytes(close + 1, text.len - inner.len - 2);
    if (rest.len == 0) return CF_OK;
    if (rest.ptr[0] != ':') return refuse(r, "after the ] of an IPv6 address only :PORT may follow");
    return read_port(r, cf_bytes(rest.ptr + 1, rest.len - 1));
}

static int read_host(reading *r, cf_slice text)
{
    const char *no_host = r->sentinel  ? "a host is missing; the URL looks like redis+sentinel://host1:26379,host2,host3/mymaster/0"
                          : r->cluster ? "a host is missing; the URL looks like redis+cluster://host1:6379,host2,host3"
                                       : "the URL names no host; it looks like redis://localhost:6379/0";
    if (text.len == 0) return refuse(r, no_host);
    if (text.ptr[0] == '[') return read_brackets(r, text);
    const char *colon = memchr(text.ptr, ':', text.len);
    cf_slice    name = colon ? cf_bytes(text.ptr, (size_t)(colon - text.ptr)) : text;
    cf_slice    port = colon ? cf_bytes(colon + 1, text.len - name.len - 1) : cf_bytes(NULL, 0);
    if (name.len == 0) return refuse(r, no_host);
    if (port.len && memchr(port.ptr, ':', port.len))
        return refuse(r, "the host has more than one colon; an IPv6 address stands in brackets, as in [::1]:6379");
    int rc = colon ? read_port(r, port) : CF_OK;
    if (rc == CF_OK) rc = keep(r, name, true, &r->out->host);
    const char *host = r->out->host;
    if (rc != CF_OK || !host) return rc;
    const char *fault = strchr(host, ':') ? "is an IPv6 address and stands in brackets" : host_fault(host);
    return fault ? refuse_option(r, "the host", fault) : CF_OK;
}

/* HOST[:PORT][,HOST[:PORT]...] */
static int read_places(reading *r, cf_slice text)
{
    redis_options *out = r->out;
    for (bool more = true; more;) {
        const char *comma = text.len ? memchr(text.ptr, ',', text.len) : NULL;
        cf_slice    one = comma ? cf_bytes(text.ptr, (size_t)(comma - text.ptr)) : text;
        more = comma != NULL;
        if (more) text = cf_bytes(comma + 1, text.len - one.len - 1);
        if (out->place_count == REDIS_PLACES) return refuse(r, r->sentinel ? "has more than 16 Sentinels" : "has more than 16 hosts; a few are enough, they name the others");
        int rc = keep(r, r->sentinel ? cf_text("26379") : cf_text("6379"), false, &out->port);
        if (rc == CF_OK) rc = read_host(r, one);
        if (rc != CF_OK) return rc;
        out->places[out->place_count++] = (redis_place){out->host, out->port};
        out->host = out->port = NULL;
    }
    return CF_OK;
}

/* ---- in front of the options ---- */

/* USER, USER:PASSWORD or :PASSWORD. A user without a password is one of an ACL with `nopass`: its password is empty. */
static int read_login(reading *r, cf_slice text)
{
    const char *colon = text.len ? memchr(text.ptr, ':', text.len) : NULL;
    cf_slice    user = colon ? cf_bytes(text.ptr, (size_t)(colon - text.ptr)) : text;
    cf_slice    password = colon ? cf_bytes(colon + 1, text.len - user.len - 1) : cf_bytes(NULL, 0);
    if (user.len == 0 && password.len == 0) /* a variable that was not set must not become a store without a password */
        return refuse(r, "in front of the @ there is neither a user nor a password; leave out the @ as well");
    r->login_given = true;
    int rc = user.len ? keep(r, user, true, &r->out->user) : CF_OK;
    return rc == CF_OK ? keep(r, password, true, &r->out->password) : rc;
}

static int read_authority(reading *r, cf_slice text)
{
    if (!text.ptr) {
        if (r->out->unix_socket) return refuse(r, "a URL looks like redis+unix:///run/redis.sock, with three slashes");
        return refuse(r, r->sentinel  ? "after the colon come two slashes and hosts, as in redis+sentinel://host1:26379,host2,host3/mymaster/0"
                         : r->cluster ? "after the colon come two slashes and hosts, as in redis+cluster://host1:6379,host2,host3"
                                     : "after the colon come two slashes and a host, as in redis://localhost:6379/0");
    }
    const char *at = text.len ? memchr(text.ptr, '@', text.len) : NULL;
    if (at) {
        cf_slice login = cf_bytes(text.ptr, (size_t)(at - text.ptr));
        text = cf_bytes(at + 1, text.len - login.len - 1);
        if (text.len && memchr(text.ptr, '@', text.len))
            return refuse(r, "there is more than one @ in front of the path; in a user or a password it is written %40");
        int rc = read_login(r, login);
        if (rc != CF_OK) return rc;
    }
    if (r->sentinel || r->cluster) return read_places(r, text);
    if (!r->out->unix_socket) return read_host(r, text);
    if (text.len == 0) return CF_OK;
    return refuse(r, "a unix socket has no host: the path follows three slashes, or the @, as in redis+unix:///run/redis.sock");
}

static int read_db(reading *r, cf_slice text, const char *what)
{
    int64_t number;
    if (!cf_parse_int(text, &number) || number < 0 || number > INT32_MAX)
        return refuse_option(r, what, "must be a whole number from 0 to 2147483647");
    if (r->cluster && number) return refuse_option(r, what, "can only be 0: a cluster has no other");
    r->out->db = number;
    r->db_given = true;
    return CF_OK;
}

static bool printable(cf_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] > '~') return false;
    return text.len != 0;
}

/* /NAME or /NAME/DB */
static int read_primary(reading *r, cf_slice path)
{
    cf_slice    name = path.len ? cf_bytes(path.ptr + 1, path.len - 1) : path;
    const char *slash = name.len ? memchr(name.ptr, '/', name.len) : NULL;
    cf_slice    db = slash ? cf_bytes(slash + 1, name.len - (size_t)(slash - name.ptr) - 1) : cf_bytes(NULL, 0);
    if (slash) name.len -= db.len + 1;
    if (name.len == 0) return refuse(r, "the URL does not name the primary; its name for the Sentinels follows the hosts, as in redis+sentinel://host1,host2/mymaster");
    if (!printable(name) || name.len > 100) return refuse(r, "the name of the primary must be at most 100 bytes of printable ASCII without spaces");
    int rc = keep(r, name, false, &r->out->primary);
    return rc == CF_OK && db.len ? read_db(r, db, "the database, after the name of the primary,") : rc;
}

static int read_path(reading *r, cf_slice path)
{
    if (r->sentinel) return read_primary(r, path);
    if (!r->out->unix_socket) {
        if (path.len <= 1) return CF_OK; /* nothing, or the slash after the host */
        return read_db(r, cf_bytes(path.ptr + 1, path.len - 1), "the database, after the slash,");
    }
    cf_address address;
    if (path.len <= 1 || path.ptr[path.len - 1] == '/')
        return refuse(r, "the URL names no socket; it looks like redis+unix:///run/redis.sock");
    if (cf_address_unix(path, &address) != CF_OK) return refuse(r, "the path of the socket is longer than the system allows");
    return keep(r, path, false, &r->out->host);
}

/* ---- options ---- */

/* A decimal number with or without a fraction, above 0 and at most a day; a part of a millisecond counts as one. */
static bool parse_seconds(cf_slice text, int64_t *ms)
{
    const char *dot = text.len ? memchr(text.ptr, '.', text.len) : NULL;
    cf_slice    whole = dot ? cf_bytes(text.ptr, (size_t)(dot - text.ptr)) : text;
    cf_slice    part = dot ? cf_bytes(dot + 1, text.len - whole.len - 1) : cf_bytes(NULL, 0);
    int64_t     seconds, fraction = 0, unit = 100;
    bool        more = false;
    if (!cf_parse_int(whole, &seconds) || seconds < 0 || seconds > CF_TIMEOUT_MAX / 1000 || (dot && part.len == 0)) return false;
    for (size_t i = 0; i < part.len; i++, unit /= 10) {
        if (part.ptr[i] < '0' || part.ptr[i] > '9') return false;
        fraction += (part.ptr[i] - '0') * unit;
        more |= unit == 0 && part.ptr[i] != '0';
    }
    *ms = seconds * 1000 + fraction + more;
    return *ms > 0 && *ms <= CF_TIMEOUT_MAX;
}

typedef enum { DATABASE, LOGIN, SENTINEL_LOGIN, NAME, SECONDS, COUNT, SWITCH, TLS_FILE, TLS_NAME } option_kind;

typedef struct option_rule {
    const char *name;
    option_kind kind;
    size_t      at; /* where in redis_options */
    int64_t     least, most;
} option_rule;

static const option_rule rules[] = {
    {"db", DATABASE, offsetof(redis_options, db), 0, 0},
    {"user", LOGIN, offsetof(redis_options, user), 0, 0},
    {"password", LOGIN, offsetof(redis_options, password), 0, 0},
    {"sentinel_user", SENTINEL_LOGIN, offsetof(redis_options, sentinel_user), 0, 0},
    {"sentinel_password", SENTINEL_LOGIN, offsetof(redis_options, sentinel_password), 0, 0},
    {"name", NAME, offsetof(redis_options, name), 0, 0},
    {"connect_timeout", SECONDS, offsetof(redis_options, connect_ms), 0, 0},
    {"silence", SECONDS, offsetof(redis_options, silence_ms), 0, 0},
    {"max_pending", COUNT, offsetof(redis_options, max_pending), 1, 1000000},
    {"max_pending_bytes", COUNT, offsetof(redis_options, max_pending_bytes), 65536, INT64_C(1) << 40},
    {"durable", COUNT, offsetof(redis_options, durable), 0, 100},
    {"receipts", SWITCH, offsetof(redis_options, receipts), 0, 0},
    {"tls_ca", TLS_FILE, offsetof(redis_options, tls_ca), 0, 0},
    {"tls_cert", TLS_FILE, offsetof(redis_options, tls_cert), 0, 0},
    {"tls_key", TLS_FILE, offsetof(redis_options, tls_key), 0, 0},
    {"tls_server_name", TLS_NAME, offsetof(redis_options, tls_server_name), 0, 0},
};

static int read_count(reading *r, const option_rule *rule, cf_slice value, size_t *count)
{
    int64_t number;
    if (!cf_parse_int(value, &number) || number < rule->least || number > rule->most || (uint64_t)number > SIZE_MAX)
        return cf_error_set(r->error, CF_EINVAL, CF_NOT_APPLIED, "%s: %s must be a whole number from %lld to %lld", r->scheme,
                            rule->name, (long long)rule->least, (long long)rule->most);
    *count = (size_t)number;
    return CF_OK;
}

static int read_option(reading *r, const option_rule *rule, cf_slice value)
{
    void *at = (char *)r->out + rule->at;
    bool  empty = value.len == 0;
    switch (rule->kind) {
    case DATABASE:
        if (r->db_given) return refuse(r, "the database is given twice, after the slash and as the option db");
        return read_db(r, value, rule->name);
    case LOGIN:
        if (r->login_given)
            return refuse_option(r, rule->name, "is an option here, and there is something in front of an @ too: use one of the two ways");
        if (empty && rule->at == offsetof(redis_options, user))
            return refuse_option(r, rule->name, "is empty; leave it out for the default user");
        break;
    case SENTINEL_LOGIN:
        if (!r->sentinel) return refuse_option(r, rule->name, "is for URLs that start with redis+sentinel: or rediss+sentinel: only");
        if (empty) return refuse_option(r, rule->name, "is empty; leave it out where there is none");
        break;
    case NAME:
        if (!printable(value)) return refuse_option(r, rule->name, "must be printable ASCII without spaces");
        break;
    case SECONDS:
        if (parse_seconds(value, at)) return CF_OK;
        return refuse_option(r, rule->name, "must be a number of seconds above 0 and at most 86400, as in 2 or 0.25");
    case COUNT: return read_count(r, rule, value, at);
    case SWITCH:
        *(bool *)at = cf_slice_equal(value, cf_text("on"));
        if (*(bool *)at || cf_slice_equal(value, cf_text("off"))) return CF_OK;
        return refuse_option(r, rule->name, "must be on or off");
    case TLS_FILE:
    case TLS_NAME:
        if (!r->out->tls) return refuse_option(r, rule->name, "is for URLs that start with rediss:, rediss+sentinel: or rediss+cluster: only; with this one nothing is encrypted");
        if (empty) return refuse_option(r, rule->name, "is empty");
        break;
    }
    int rc = keep(r, value, false, at);
    if (rc != CF_OK || rule->kind != TLS_NAME) return rc;
    const char *fault = host_fault(r->out->tls_server_name);
    return fault ? refuse_option(r, rule->name, fault) : CF_OK;
}

static int read_options(reading *r, const cf_url *url)
{
    for (size_t i = 0; i < url->option_count; i++) {
        const option_rule *rule = rules, *end = rules + sizeof rules / sizeof *rules;
        while (rule != end && !cf_slice_equal(url->options[i].name, cf_text(rule->name))) rule++;
        if (rule == end)
            return refuse(r, r->cluster    ? "knows the options user, password, name, connect_timeout, silence, max_pending, max_pending_bytes, receipts, durable; "
                                             "rediss+cluster: also tls_ca, tls_cert, tls_key, tls_server_name; open itself prefix, ttl, timeout"
                             : r->sentinel ? "knows the options db, user, password, sentinel_user, sentinel_password, name, connect_timeout, silence, max_pending, "
                                           "max_pending_bytes, receipts, durable; rediss+sentinel: also tls_ca, tls_cert, tls_key, tls_server_name"
                                         : "knows the options db, user, password, name, connect_timeout, silence, max_pending, max_pending_bytes, "
                                           "receipts, durable; rediss: also tls_ca, tls_cert, tls_key, tls_server_name; open itself prefix, ttl, timeout");
        int rc = read_option(r, rule, url->options[i].value);
        if (rc != CF_OK) return rc;
    }
    if (r->out->sentinel_user && !r->out->sentinel_password) return refuse(r, "sentinel_user needs sentinel_password beside it");
    if (r->out->user && !r->out->password) return keep(r, cf_text(""), false, &r->out->password);
    if (!r->out->user && r->out->password && !r->out->password[0])
        return refuse(r, "password is empty; leave it out where there is none");
    if (r->out->tls_cert && !r->out->tls_key) return refuse(r, "tls_cert needs tls_key beside it");
    if (r->out->tls_key && !r->out->tls_cert) return refuse(r, "tls_key needs tls_cert beside it");
    return CF_OK;
}

/* ---- all of it ---- */

/* Cut between two characters; what a terminal would obey is not shown. */
static void name_endpoint(redis_options *out)
{
    char room[512];
    if (out->cluster && !out->host) snprintf(room, sizeof room, "the cluster of %s:%s", out->places[0].host, out->places[0].port);
    else if (!out->host) snprintf(room, sizeof room, "%s", out->primary);
    else if (out->unix_socket) snprintf(room, sizeof room, "%s", out->host);
    else snprintf(room, sizeof room, strchr(out->host, ':') ? "[%s]:%s" : "%s:%s", out->host, out->port);
    size_t len = strlen(room);
    if (len >= sizeof out->endpoint) len = sizeof out->endpoint - 1;
    while (len && (room[len] & 0xC0) == 0x80) len--;
    for (size_t i = 0; i < len; i++) out->endpoint[i] = (unsigned char)room[i] < ' ' || room[i] == 0x7f ? '?' : room[i];
    out->endpoint[len] = 0;
}

int redis_options_read(const cf_platform *platform, const cf_url *url, redis_options *out, cf_error *error)
{
    *out = (redis_options){
        .receipts = true, .durable = SIZE_MAX, .connect_ms = 2000, .silence_ms = 10000, .max_pending = 10000, .max_pending_bytes = 32u << 20};
    static const struct {
        const char *name;
        bool        tls, unix_socket, sentinel, cluster;
    } schemes[] = {{"redis", false, false, false, false},
                   {"rediss", true, false, false, false},
                   {"redis+unix", false, true, false, false},
                   {"redis+sentinel", false, false, true, false},
                   {"rediss+sentinel", true, false, true, false},
                   {"redis+cluster", false, false, false, true},
                   {"rediss+cluster", true, false, false, true}};
    reading r = {.platform = platform, .out = out, .error = error};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (cf_slice_equal(url->scheme, cf_text(schemes[i].name))) {
            r.scheme = schemes[i].name;
            out->tls = schemes[i].tls;
            out->unix_socket = schemes[i].unix_socket;
            r.sentinel = schemes[i].sentinel;
            r.cluster = out->cluster = schemes[i].cluster;
        }
    int rc = keep(&r, cf_text("counterfoil"), false, &out->name);
    if (rc == CF_OK && !out->unix_socket && !r.sentinel && !r.cluster) rc = keep(&r, cf_text("6379"), false, &out->port);
    if (rc == CF_OK) rc = read_authority(&r, url->authority);
    if (rc == CF_OK) rc = read_path(&r, url->path);
    if (rc == CF_OK) rc = read_options(&r, url);
    if (rc != CF_OK) {
        redis_options_free(platform, out);
        return rc;
    }
    if (out->durable == SIZE_MAX) out->durable = out->durable_default = r.sentinel || r.cluster;
    name_endpoint(out);
    return CF_OK;
}

int redis_options_locate(const cf_platform *platform, redis_options *options, cf_slice host, cf_slice port)
{
    redis_options found = {0};
    cf_error      error;
    reading       r = {.platform = platform, .out = &found, .error = &error, .scheme = ""};
    int           rc = read_port(&r, port);
    if (rc == CF_OK) rc = keep(&r, host, false, &found.host);
    if (rc == CF_OK && (!found.host || strlen(found.host) != host.len || host_fault(found.host))) rc = CF_EINVAL;
    if (rc != CF_OK) {
        redis_options_free(platform, &found);
        return rc;
    }
    cf_release(platform, options->host);
    cf_release(platform, options->port);
    options->host = found.host;
    options->port = found.port;
    name_endpoint(options);
    return CF_OK;
}

int redis_options_copy(const cf_platform *platform, const redis_options *from, cf_slice host, cf_slice port, redis_options *out)
{
    cf_error error;
    reading  r = {.platform = platform, .out = out, .error = &error, .scheme = ""};
    char *const texts[] = {from->user, from->password, from->name, from->tls_ca, from->tls_cert, from->tls_key, from->tls_server_name};
    *out = *from;
    char **const copies[] = {&out->user, &out->password, &out->name, &out->tls_ca, &out->tls_cert, &out->tls_key, &out->tls_server_name};
    out->host = out->port = out->primary = out->sentinel_user = out->sentinel_password = NULL;
    out->place_count = 0;
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++) *copies[i] = NULL;
    int rc = redis_options_locate(platform, out, host, port);
    for (size_t i = 0; i < sizeof copies / sizeof *copies && rc == CF_OK; i++)
        if (texts[i]) rc = keep(&r, cf_text(texts[i]), false, copies[i]);
    if (rc != CF_OK) redis_options_free(platform, out);
    return rc;
}

void redis_options_free(const cf_platform *platform, redis_options *options)
{
    char *const texts[] = {options->host,   options->port,     options->user,    options->password,        options->name,          options->primary,
                           options->tls_ca, options->tls_cert, options->tls_key, options->tls_server_name, options->sentinel_user, options->sentinel_password};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i]) wipe(texts[i], strlen(texts[i])); /* all: in a URL that was mistyped the password may be the host */
        cf_release(platform, texts[i]);
    }
    for (size_t i = 0; i < options->place_count; i++) {
        wipe(options->places[i].host, strlen(options->places[i].host));
        cf_release(platform, options->places[i].host);
        cf_release(platform, options->places[i].port);
    }
    *options = (redis_options){0};
}
