/* seal.h: values that only who has the key can read, and keys that nobody can read. Knows no store. */
#ifndef CF_SEAL_H
#define CF_SEAL_H

#include "util.h"

typedef struct cf_seal cf_seal;

/* CF_EINVAL with the sentence for a ring that cannot be one; CF_ENOTSUP where the library was built without OpenSSL. */
int  cf_seal_check(const cf_key *keys, size_t count, cf_error *error);
/* Of a ring that is one: CF_OK, CF_ENOMEM or CF_EUNAVAILABLE. `plain_until`: cf_open_options.plain_until_ms. */
int  cf_seal_new(const cf_platform *platform, const cf_key *keys, size_t count, int64_t plain_until, cf_seal **out, cf_error *error);
void cf_seal_free(cf_seal *seal); /* NULL is allowed; wipes */
bool cf_seal_takes_plain(const cf_seal *seal); /* now: what does not begin as what is sealed is opened as it is */

#define CF_SEAL_MORE 48 /* an envelope is so much longer than its value */

/* Appends the envelope of a value that lies under `key`. CF_OK, CF_ENOMEM, or CF_EUNAVAILABLE (no randomness, or OpenSSL failed). */
int cf_seal_close(cf_seal *seal, cf_slice key, cf_slice value, cf_buffer *out);
/* Opens it in place: *value becomes a part of itself. CF_OK, or CF_ECORRUPT (CF_EUNAVAILABLE: OpenSSL failed) with what is wrong in `why`. */
int cf_seal_open(cf_seal *seal, cf_slice key, cf_buffer *value, const char **why);

/* Appends an envelope of the same value, made with the first key of the ring. CF_OK; CF_SEAL_CURRENT: the old one was made with it, and nothing is appended;
 * CF_ECORRUPT: it does not open; CF_ENOMEM, CF_EUNAVAILABLE. */
enum { CF_SEAL_CURRENT = 1 };
int cf_seal_renew(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out);

/* The same as text, for fields of records: CF_SEALED_MARK and base64url. Appends; CF_ENOMEM, CF_EUNAVAILABLE. */
#define CF_SEALED_MARK "sealed:"
int cf_seal_close_text(cf_seal *seal, cf_slice key, cf_slice text, cf_buffer *out);
/* Replaces what is in `out` by the text. As cf_seal_open. */
int cf_seal_open_text(cf_seal *seal, cf_slice key, cf_slice sealed, cf_buffer *out, const char **why);
int cf_seal_renew_text(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out); /* as cf_seal_renew */

/* The name under which a key is kept: CF_HASHED characters of base64url. CF_OK or CF_EUNAVAILABLE. */
#define CF_HASHED 43
int cf_seal_name(cf_slice key, char out[CF_HASHED]);
bool cf_seal_there(void); /* whether this library has OpenSSL */

#endif
