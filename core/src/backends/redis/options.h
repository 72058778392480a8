/* options.h: what a redis:, rediss:, redis+unix:, redis+sentinel:, redis+cluster: ... URL says. The public header has the list. */
#ifndef CF_REDIS_OPTIONS_H
#define CF_REDIS_OPTIONS_H

#include "util.h"

typedef struct redis_place {
    char *host, *port;
} redis_place;

enum { REDIS_PLACES = 16 };

/* Every text is terminated, percent-decoded once and owned; NULL: not given. */
typedef struct redis_options {
    bool    unix_socket, tls, receipts, cluster;
    char   *host; /* a name, an IP address without brackets, or the path of the socket */
    char   *port;
    char   *user, *password; /* password NULL: no AUTH, and no user. user NULL: the default user. A user without a password has "" */
    char   *name;
    int64_t db;
    int64_t connect_ms, silence_ms;
    size_t  max_pending, max_pending_bytes;
    size_t  durable; /* so many replicas must have what has one winner, or ends something; 0: none */
    bool    durable_default; /* nobody has said so: pop and what ends something only, and only while there are replicas */
    char   *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    char    endpoint[128]; /* for sentences: HOST:PORT or the path, cut to fit; never credentials */

    char       *primary; /* NULL, or the name by which Sentinels know the primary. Host and port are then those of the one that was named last, NULL before */
    redis_place places[REDIS_PLACES]; /* the Sentinels; or, of a cluster, where to ask first */
    size_t      place_count;
    char       *sentinel_user, *sentinel_password; /* as user and password */
} redis_options;

/* `host` may be NULL: that is no place yet. */
static inline bool redis_same_place(const char *host, const char *port, cf_slice other_host, cf_slice other_port)
{
    return host && cf_slice_equal(other_host, cf_text(host)) && cf_slice_equal(other_port, cf_text(port));
}

/* CF_OK, CF_EINVAL or CF_ENOMEM with the sentence, which names the option that is wrong and never its value. On an error there is nothing to free. */
int  redis_options_read(const cf_platform *platform, const cf_url *url, redis_options *out, cf_error *error);
/* What a Sentinel has named: CF_OK; CF_EINVAL when it is no host and port, or CF_ENOMEM, and nothing has changed. */
int  redis_options_locate(const cf_platform *platform, redis_options *options, cf_slice host, cf_slice port);
/* Those of a connection to one server of a cluster. CF_OK, CF_EINVAL when that is no host and port, or CF_ENOMEM; then there is nothing to free. */
int  redis_options_copy(const cf_platform *platform, const redis_options *from, cf_slice host, cf_slice port, redis_options *out);
void redis_options_free(const cf_platform *platform, redis_options *options); /* wipes what it frees */

#endif
