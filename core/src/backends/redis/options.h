/* options.h: what a redis:, rediss: or redis+unix: URL says. The public header has the list. */
#ifndef CF_REDIS_OPTIONS_H
#define CF_REDIS_OPTIONS_H

#include "util.h"

/* Every text is terminated, percent-decoded once and owned; NULL: not given. */
typedef struct redis_options {
    bool    unix_socket, tls, receipts;
    char   *host; /* a name, an IP address without brackets, or the path of the socket */
    char   *port;
    char   *user, *password; /* password NULL: no AUTH, and no user. user NULL: the default user. A user without a password has "" */
    char   *name;
    int64_t db;
    int64_t connect_ms, silence_ms;
    size_t  max_pending, max_pending_bytes;
    char   *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    char    endpoint[128]; /* for sentences: HOST:PORT or the path, cut to fit; never credentials */
} redis_options;

/* CF_OK, CF_EINVAL or CF_ENOMEM with the sentence, which names the option that is wrong and never its value. On an error there is nothing to free. */
int  redis_options_read(const cf_platform *platform, const cf_url *url, redis_options *out, cf_error *error);
void redis_options_free(const cf_platform *platform, redis_options *options); /* wipes what it frees */

#endif
