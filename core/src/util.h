/* util.h: slices, buffers, checks and locks. Includes nothing of ours but the public types. */
#ifndef CF_UTIL_H
#define CF_UTIL_H

#include <stdarg.h>

#include "counterfoil/backend.h"

/* cf_error_set for those who have the arguments in a list. */
int cf_error_setv(cf_error *error, int status, int outcome, const char *format, va_list args) CF_PRINTF(4, 0);

/* ---- memory, through a platform ---- */
static inline void *cf_alloc(const cf_platform *platform, size_t size) { return platform->alloc(platform->self, size); }
static inline void  cf_release(const cf_platform *platform, void *block) { platform->release(platform->self, block); }
static inline int64_t cf_monotonic(const cf_platform *platform) { return platform->monotonic_ms(platform->self); }
static inline int64_t cf_monotonic_us(const cf_platform *platform) { return platform->monotonic_us(platform->self); }
static inline int64_t cf_wall(const cf_platform *platform) { return platform->wall_ms(platform->self); }
void  cf_wipe(void *bytes, size_t count); /* which no compiler takes away */
void *cf_zalloc(const cf_platform *platform, size_t size);

/* Bytes that grow. Empty when all zero. Allocation failures leave it as it was and answer CF_ENOMEM. */
typedef struct cf_buffer {
    char  *ptr;
    size_t len, cap;
} cf_buffer;

int  cf_buffer_reserve(const cf_platform *platform, cf_buffer *buffer, size_t cap);
int  cf_buffer_append(const cf_platform *platform, cf_buffer *buffer, cf_slice bytes);
void cf_buffer_free(const cf_platform *platform, cf_buffer *buffer);

/* ---- lists ---- */
/* A list whose elements carry their links; a list head is one of its own. */
typedef struct cf_link {
    struct cf_link *prev, *next;
} cf_link;

static inline void cf_link_init(cf_link *link) { link->prev = link->next = link; }
static inline bool cf_link_alone(const cf_link *link) { return link->next == link; }
static inline void cf_link_remove(cf_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    cf_link_init(link);
}
static inline void cf_link_append(cf_link *list, cf_link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}
/* All of `from` to the end of `list` (before it, where it is an element); `from` is empty then. */
static inline void cf_link_splice(cf_link *list, cf_link *from)
{
    if (cf_link_alone(from)) return;
    from->next->prev = list->prev;
    list->prev->next = from->next;
    from->prev->next = list;
    list->prev = from->prev;
    cf_link_init(from);
}
#define CF_OF_LINK(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* ---- slices ---- */
static inline bool cf_slice_equal(cf_slice a, cf_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool cf_slice_starts(cf_slice text, cf_slice prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.ptr, prefix.ptr, prefix.len) == 0);
}

/* What a key or a prefix may be made of: well-formed UTF-8 (no surrogates, nothing overlong) without NUL, CR, LF.
 * NULL when it is, otherwise what is wrong with it, as the end of a sentence. */
const char *cf_key_fault(cf_slice key);
const char *cf_text_fault(cf_slice text); /* the same for text that may have lines */

/* cf_email_normalise for those who must know why: CF_OK, CF_EINVAL with what is wrong in `fault`, or CF_ENOMEM, which says nothing about the address. */
int cf_email_key(cf_slice address, char *out, size_t *len, const char **fault);

/* Decodes %XX once into `out`, which has room for text.len bytes; `len`: how many there are now. NULL, or a sentence about the
 * URL that this is a part of: a % without its digits, or bytes that cf_key_fault refuses. */
const char *cf_percent_decode(cf_slice text, char *out, size_t *len);

/* A canonical decimal integer (no sign but '-', no leading zeros, no "-0") within int64. */
bool cf_parse_int(cf_slice text, int64_t *number);
/* Room for any int64 and a terminator. Returns the length. */
#define CF_INT_TEXT 24
size_t cf_format_int(int64_t number, char text[CF_INT_TEXT]);

/* A request to a backend about records. Their hooks are asked of none. */
static inline bool cf_about_records(const cf_request *in) { return in->kind >= CF_OP_INSERT && in->kind <= CF_OP_REMOVE; }

/* Adds the `by` of an INCR to a number; false, with the error written, when the result is not exact in every host. */
bool cf_counter_add(cf_op *op, int64_t *number);
bool cf_counter_sum(int64_t *number, int64_t by); /* for those who have no operation at hand */
#define CF_COUNTER_FULL "the counter would pass 2^53 - 1"

/* ---- keyed hash: SipHash-1-3 (Aumasson and Bernstein, 2012) ---- */
typedef struct cf_hash_key {
    uint64_t k0, k1;
} cf_hash_key;
uint64_t cf_hash(const cf_hash_key *key, cf_slice bytes);

/* ---- locks (worker.c). All of them are taken before a fork and let go after it on both sides, so a child never
 * inherits one that is held. Order: a lock is never made while another is held. ---- */
typedef struct cf_mutex cf_mutex;
cf_mutex *cf_mutex_new(const cf_platform *platform); /* NULL: no memory */
void      cf_mutex_free(const cf_platform *platform, cf_mutex *mutex);
void      cf_mutex_lock(cf_mutex *mutex);
void      cf_mutex_unlock(cf_mutex *mutex);
/* With the lock held, which is let go of meanwhile: until somebody tells, at most `ms`, or for no reason. False: the time is over. */
bool cf_mutex_wait(cf_mutex *mutex, int64_t ms);
void cf_mutex_tell(cf_mutex *mutex); /* all who wait */
/* Locks of the process, for the few registries that are shared by design. */
typedef enum { CF_LOCK_MEMORY, CF_LOCK_DERIVE, CF_LOCK_JOBS, CF_LOCK_SQLITE, CF_LOCKS } cf_process_lock;
void cf_lock(cf_process_lock which);
void cf_unlock(cf_process_lock which);
/* What cf_platform.thread does on the real machine. */
int cf_thread_start(void (*run)(void *data), void *data);
/* Raised by one in the child of every fork after the first cf_fork_watch. */
void     cf_fork_watch(void);
unsigned cf_fork_generation(void);

#endif
