#include "util.h"

void cf_wipe(void *bytes, size_t count)
{
    if (!count) return;
    memset(bytes, 0, count);
    __asm__ volatile("" : : "r"(bytes) : "memory"); /* somebody might look at them, for all a compiler knows */
}

void *cf_zalloc(const cf_platform *platform, size_t size)
{
    void *block = cf_alloc(platform, size);
    if (block) memset(block, 0, size);
    return block;
}

int cf_buffer_reserve(const cf_platform *platform, cf_buffer *buffer, size_t cap)
{
    if (cap <= buffer->cap) return CF_OK;
    size_t want = buffer->cap ? buffer->cap : 64;
    while (want < cap) {
        if (want > SIZE_MAX / 2) return CF_ENOMEM;
        want *= 2;
    }
    char *ptr = platform->resize(platform->self, buffer->ptr, want);
    if (!ptr) return CF_ENOMEM;
    buffer->ptr = ptr;
    buffer->cap = want;
    return CF_OK;
}

int cf_buffer_append(const cf_platform *platform, cf_buffer *buffer, cf_slice bytes)
{
    if (bytes.len > SIZE_MAX - buffer->len) return CF_ENOMEM;
    int rc = cf_buffer_reserve(platform, buffer, buffer->len + bytes.len);
    if (rc != CF_OK) return rc;
    if (bytes.len) memcpy(buffer->ptr + buffer->len, bytes.ptr, bytes.len);
    buffer->len += bytes.len;
    return CF_OK;
}

void cf_buffer_free(const cf_platform *platform, cf_buffer *buffer)
{
    cf_release(platform, buffer->ptr);
    *buffer = (cf_buffer){0};
}

/* Bytes that UTF-8 wants after this lead byte, or 0 when it cannot lead. */
static size_t utf8_follow(unsigned char lead)
{
    if (lead >= 0xC2 && lead <= 0xDF) return 1;
    if (lead >= 0xE0 && lead <= 0xEF) return 2;
    if (lead >= 0xF0 && lead <= 0xF4) return 3;
    return 0;
}

/* The second byte alone tells overlong forms, surrogates and what lies beyond U+10FFFF. */
static bool utf8_second(unsigned char lead, unsigned char second)
{
    switch (lead) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return second >= 0x80 && second <= 0xBF;
    }
}

static const char *fault_of(cf_slice key, bool lines)
{
    const unsigned char *byte = (const unsigned char *)key.ptr;
    size_t at = 0;
    while (at < key.len) {
        /* Eight at a time while all are ASCII above '\r'; what this is unsure of, the rest looks at. */
        uint64_t word;
        for (; key.len - at >= sizeof word; at += sizeof word) {
            memcpy(&word, byte + at, sizeof word);
            if ((word | (word - UINT64_C(0x0e0e0e0e0e0e0e0e))) & UINT64_C(0x8080808080808080)) break;
        }
        if (at == key.len) break;
        unsigned char lead = byte[at++];
        if (lead < 0x80) {
            if (lead > '\r') continue;
            if (lead == 0) return "contains a NUL character";
            if (!lines && (lead == '\n' || lead == '\r')) return "contains a line break";
            continue;
        }
        size_t follow = utf8_follow(lead);
        if (follow == 0 || key.len - at < follow || !utf8_second(lead, byte[at])) return "is not well-formed UTF-8";
        for (size_t i = 1; i < follow; i++)
            if ((byte[at + i] & 0xC0) != 0x80) return "is not well-formed UTF-8";
        at += follow;
    }
    return NULL;
}

const char *cf_key_fault(cf_slice key) { return fault_of(key, false); }
const char *cf_text_fault(cf_slice text) { return fault_of(text, true); }

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

const char *cf_percent_decode(cf_slice text, char *out, size_t *len)
{
    *len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 1 < text.len ? hex(text.ptr[i + 1]) : -1, low = i + 2 < text.len ? hex(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) return "the URL has a % that is not followed by two hexadecimal digits; a plain % is written %25";
            c = (char)(high * 16 + low);
            i += 2;
        }
        out[(*len)++] = c;
    }
    return cf_key_fault(cf_bytes(out, *len)) ? "the URL contains a NUL character, a line break, or bytes that are not UTF-8" : NULL;
}

bool cf_parse_int(cf_slice text, int64_t *number)
{
    size_t at = 0;
    bool negative = text.len > 0 && text.ptr[0] == '-';
    if (negative) at = 1;
    if (at == text.len || text.len - at > 19) return false;
    if (text.ptr[at] == '0' && (negative || text.len > 1)) return false;
    uint64_t value = 0;
    for (; at < text.len; at++) {
        unsigned digit = (unsigned)(unsigned char)text.ptr[at] - '0';
        if (digit > 9) return false;
        value = value * 10 + digit; /* 19 digits fit in 64 bits */
    }
    if (value > (uint64_t)INT64_MAX) return false;
    *number = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

size_t cf_format_int(int64_t number, char text[CF_INT_TEXT])
{
    char     digits[CF_INT_TEXT];
    size_t   count = 0, len = 0;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[count++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) text[len++] = '-';
    while (count) text[len++] = digits[--count];
    text[len] = 0;
    return len;
}

bool cf_counter_sum(int64_t *number, int64_t by)
{
    int64_t sum;
    if (__builtin_add_overflow(*number, by, &sum) || sum > CF_NUMBER_MAX || sum < -CF_NUMBER_MAX) return false;
    *number = sum;
    return true;
}

bool cf_counter_add(cf_op *op, int64_t *number)
{
    if (cf_counter_sum(number, cf_op_in(op)->by)) return true;
    cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, CF_COUNTER_FULL);
    return false;
}

static inline uint64_t rotate(uint64_t x, unsigned bits) { return (x << bits) | (x >> (64 - bits)); }

#define SIP_ROUND            \
    do {                     \
        v0 += v1;            \
        v1 = rotate(v1, 13); \
        v1 ^= v0;            \
        v0 = rotate(v0, 32); \
        v2 += v3;            \
        v3 = rotate(v3, 16); \
        v3 ^= v2;            \
        v0 += v3;            \
        v3 = rotate(v3, 21); \
        v3 ^= v0;            \
        v2 += v1;            \
        v1 = rotate(v1, 17); \
        v1 ^= v2;            \
        v2 = rotate(v2, 32); \
    } while (0)

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "SipHash reads its words as little-endian: add the swap for this machine"
#endif

uint64_t cf_hash(const cf_hash_key *key, cf_slice bytes)
{
    uint64_t v0 = key->k0 ^ UINT64_C(0x736f6d6570736575), v1 = key->k1 ^ UINT64_C(0x646f72616e646f6d);
    uint64_t v2 = key->k0 ^ UINT64_C(0x6c7967656e657261), v3 = key->k1 ^ UINT64_C(0x7465646279746573);
    const char *at = bytes.ptr, *end = bytes.ptr + (bytes.len & ~(size_t)7);
    uint64_t word;
    for (; at != end; at += 8) {
        memcpy(&word, at, 8);
        v3 ^= word;
        SIP_ROUND;
        v0 ^= word;
    }
    word = 0;
    if (bytes.len & 7) memcpy(&word, at, bytes.len & 7);
    word |= (uint64_t)bytes.len << 56;
    v3 ^= word;
    SIP_ROUND;
    v0 ^= word;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}
