/* tls.h: TLS by OpenSSL over a socket that somebody else owns. The only file that knows OpenSSL is tls.c. */
#ifndef CF_REDIS_TLS_H
#define CF_REDIS_TLS_H

#include "options.h"

typedef struct redis_tls_context redis_tls_context; /* certificates and rules, of a store */
typedef struct redis_tls         redis_tls;         /* one connection */

/* Reads the files that the options name, which may change later: the context reads them again when it makes a connection after that.
 * CF_OK; CF_EINVAL for files that cannot be read or do not belong together; CF_ENOMEM; CF_ENOTSUP when this build has no TLS. */
int  redis_tls_context_new(const cf_platform *platform, const redis_options *options, redis_tls_context **out, cf_error *error);
void redis_tls_context_free(redis_tls_context *context);

/* Over a connected, non-blocking socket, which it neither closes nor watches. It sends through platform->send and reads through platform->read.
 * The name (or IP address) that the certificate must have is the options' tls_server_name, else their host. */
int  redis_tls_new(redis_tls_context *context, int fd, redis_tls **out, cf_error *error);
void redis_tls_free(redis_tls *tls); /* says nothing to the peer; NULL is allowed */

/* CF_OK: done, chain and name are verified. CF_PENDING: call again when the socket is redis_tls_wants. CF_EAUTH: the peer is not whom we want, with a
 * sentence that says why ("certificate has expired"); CF_EUNAVAILABLE: everything else. */
int      redis_tls_handshake(redis_tls *tls, cf_error *error);
unsigned redis_tls_wants(const redis_tls *tls); /* CF_READABLE, CF_WRITABLE or both: what the last call that would have blocked needs */

/* As recv and send: bytes; 0 for the end of the stream (reading); -1 with errno EAGAIN, or another one for an error, also of the protocol, after
 * which the connection is of no use. A part of what was given may have been sent. No caller has to repeat the same buffer. */
int64_t redis_tls_read(redis_tls *tls, void *bytes, size_t count);
int64_t redis_tls_send(redis_tls *tls, const void *bytes, size_t count);
bool    redis_tls_has_more(const redis_tls *tls); /* decrypted bytes wait that no poll of the socket will report */
void    redis_tls_goodbye(redis_tls *tls); /* close_notify, as far as it goes without waiting; never in a child after a fork */

#endif
