/* tls.h: TLS by OpenSSL over a socket that somebody else owns. The only file that knows OpenSSL is tls.c.
 *
 * TLS 1.2 or newer; the chain and the name (or IP address) of every server are verified, and nothing turns that off. OpenSSL's memory,
 * clock and randomness are its own, not the platform's; so are the reads of its files, a few milliseconds for each connection that is
 * made. What goes over the socket is the platform's, so it cannot raise SIGPIPE, and every failure of it can be staged. */
#ifndef CF_REDIS_TLS_H
#define CF_REDIS_TLS_H

#include "options.h"

typedef struct redis_tls_context redis_tls_context; /* certificates and rules, of a store */
typedef struct redis_tls         redis_tls;         /* one connection */

/* `options` must outlive the context, and the context its connections. Reads the files that the options name. They may change later:
 * each connection reads them again. While they cannot be read or do not belong together (somebody is replacing them), what was
 * read last goes on being used. The system's certificates are read again after a server's was refused.
 * CF_OK; CF_EINVAL for files that cannot be read or do not belong together; CF_ENOMEM; CF_ENOTSUP when this build has no TLS. */
int  redis_tls_context_new(const cf_platform *platform, const redis_options *options, redis_tls_context **out, cf_error *error);
void redis_tls_context_free(redis_tls_context *context); /* NULL is allowed */

/* Over a connected, non-blocking socket, which it neither closes nor watches. It sends through platform->send and reads through platform->read.
 * The name (or IP address) that the certificate must have is the options' tls_server_name, else `host`. CF_OK or CF_ENOMEM. */
int  redis_tls_new(redis_tls_context *context, const char *host, int fd, redis_tls **out, cf_error *error);
void redis_tls_free(redis_tls *tls); /* says nothing to the peer; NULL is allowed */

/* CF_OK: done, chain and name are verified. CF_PENDING: call again when the socket is redis_tls_wants. CF_EAUTH: the peer is not whom we
 * want, or does not want us, with a sentence that says why ("certificate has expired"), also when what it speaks is no TLS that we accept;
 * CF_EUNAVAILABLE: everything else, as the end of the stream; CF_ENOMEM. */
int      redis_tls_handshake(redis_tls *tls, cf_error *error);
/* CF_READABLE, and CF_WRITABLE for as long as encrypted bytes wait for the socket, also those of a redis_tls_send that has taken all it
 * was given. Always add this to what the socket is watched for, and call redis_tls_send when it is writable, with no bytes where
 * there are none to send. */
unsigned redis_tls_wants(const redis_tls *tls);

/* As recv and send: bytes; 0 for the end of the stream (reading; also one that was cut, for who reads knows what is owed); -1 with errno
 * EAGAIN, or another one for an error, also of the protocol (EPROTO), after which the connection is of no use. A part of what was given
 * may have been sent. Bytes that were taken will be sent as they were, and those that were not are forgotten: no caller has to
 * give the same ones again. Sending no bytes pushes on what waits: 0, or -1. */
int64_t redis_tls_read(redis_tls *tls, void *bytes, size_t count);
int64_t redis_tls_send(redis_tls *tls, const void *bytes, size_t count);
/* Something waits that no poll of the socket will report: bytes that were read ahead, or the error behind those that were good. So read until
 * this is false; a limit of reads for each wake-up must not leave any. */
bool    redis_tls_has_more(const redis_tls *tls);
/* After an error: what it was, as redis_tls_handshake says it. A server of TLS 1.3 refuses our certificate only when the handshake is over. */
int     redis_tls_fault(const redis_tls *tls, cf_error *error);
void    redis_tls_goodbye(redis_tls *tls); /* close_notify, as far as it goes without waiting; never in a child after a fork */

#endif
