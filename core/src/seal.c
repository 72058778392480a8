/* seal.c: XAES-256-GCM (C2SP) on OpenSSL: a 256-bit key, a random nonce of 192 bits, so that one key serves for ever. FORMAT.md has the envelope. */
#include "seal.h"

enum { MAGIC = 3 };
static const char magic[MAGIC] = {'C', 'f', 1};

bool cf_is_sealed(cf_slice value) { return value.len >= MAGIC && memcmp(value.ptr, magic, MAGIC) == 0; }

#ifdef CF_TLS
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

enum { ID = 4, NONCE = 24, TAG = 16, HEAD = MAGIC + 1 + ID, KEY = 32, BLOCK = 16 };
static const char bound_to[] = "counterfoil value";
enum { BOUND = 3 * 4 + sizeof bound_to + CF_PREFIX_MAX + CF_KEY_MAX + HEAD };
enum { XAES_256_GCM = 1 };

typedef struct one_key {
    uint32_t      id;
    unsigned char key[KEY]; /* for values, made from what was given */
    unsigned char k1[BLOCK];
} one_key;

struct cf_seal {
    const cf_platform *platform;
    EVP_CIPHER_CTX    *block, *gcm;
    cf_buffer          bound; /* what an envelope is bound to, put together */
    int64_t            plain_until;
    size_t             count;
    one_key            keys[]; /* the first one seals */
};

/* One purpose, one key: what is sealed for another purpose does not open here. */
static bool derive(const unsigned char given[KEY], unsigned char out[KEY])
{
    static const unsigned char purpose[] = "counterfoil value 1";
    size_t                     len = KEY;
    EVP_PKEY_CTX              *context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    bool done = context && EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1 &&
                EVP_PKEY_CTX_set1_hkdf_key(context, given, KEY) == 1 &&
                EVP_PKEY_CTX_add1_hkdf_info(context, purpose, sizeof purpose - 1) == 1 &&
                EVP_PKEY_derive(context, out, &len) == 1 && len == KEY;
    EVP_PKEY_CTX_free(context);
    return done;
}

static bool encrypt_blocks(cf_seal *seal, const unsigned char *key, const unsigned char *in, int blocks, unsigned char *out)
{
    int len = 0;
    return EVP_EncryptInit_ex(seal->block, NULL, NULL, key, NULL) == 1 && EVP_CIPHER_CTX_set_padding(seal->block, 0) == 1 &&
           EVP_EncryptUpdate(seal->block, out, &len, in, blocks * BLOCK) == 1 &&
           len == blocks * BLOCK;
}

/* K1 of CMAC: the encrypted zero block, doubled. */
static bool prepare(cf_seal *seal, one_key *key)
{
    static const unsigned char zero[BLOCK];
    unsigned char              l[BLOCK];
    if (!encrypt_blocks(seal, key->key, zero, 1, l)) return false;
    for (int i = 0; i < BLOCK; i++)
        key->k1[i] = (unsigned char)(l[i] << 1 | (i + 1 < BLOCK ? l[i + 1] >> 7 : 0));
    if (l[0] & 0x80) key->k1[BLOCK - 1] ^= 0x87;
    OPENSSL_cleanse(l, sizeof l);
    return true;
}

static int refuse(cf_error *error, const char *text) { return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s", text); }

int cf_seal_check(const cf_key *keys, size_t count, cf_error *error)
{
    if (count > 64) return refuse(error, "a ring has at most 64 keys");
    for (size_t i = 0; i < count; i++) {
        if (keys[i].id == 0) return refuse(error, "a key's id is a number from 1 to 4294967295");
        for (size_t j = 0; j < i; j++)
            if (keys[i].id == keys[j].id) return refuse(error, "two keys of the ring have the same id");
    }
    return CF_OK;
}

int cf_seal_new(const cf_platform *platform, const cf_key *keys, size_t count, int64_t plain_until, cf_seal **out, cf_error *error)
{
    *out = NULL;
    cf_seal *seal = cf_zalloc(platform, sizeof *seal + count * sizeof *seal->keys);
    if (!seal) return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for keys");
    seal->platform = platform;
    seal->plain_until = plain_until;
    seal->count = count;
    seal->block = EVP_CIPHER_CTX_new();
    seal->gcm = EVP_CIPHER_CTX_new();
    /* All the memory that it takes, now: a value that was popped is not lost for want of it. */
    int  rc = cf_buffer_reserve(platform, &seal->bound, BOUND);
    bool made = seal->block && seal->gcm && EVP_EncryptInit_ex(seal->block, EVP_aes_256_ecb(), NULL, NULL, NULL) == 1 &&
                EVP_EncryptInit_ex(seal->gcm, EVP_aes_256_gcm(), NULL, NULL, NULL) == 1;
    for (size_t i = 0; i < count && made; i++) {
        seal->keys[i].id = keys[i].id;
        made = derive(keys[i].bytes, seal->keys[i].key) && prepare(seal, &seal->keys[i]);
    }
    if (rc != CF_OK || !made) {
        cf_seal_free(seal);
        if (rc != CF_OK) return cf_error_set(error, rc, CF_NOT_APPLIED, "no memory for keys");
        return cf_error_set(error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "OpenSSL could not be prepared for sealing");
    }
    *out = seal;
    return CF_OK;
}

void cf_seal_free(cf_seal *seal)
{
    if (!seal) return;
    EVP_CIPHER_CTX_free(seal->block); /* these wipe */
    EVP_CIPHER_CTX_free(seal->gcm);
    cf_buffer_free(seal->platform, &seal->bound);
    OPENSSL_cleanse(seal->keys, seal->count * sizeof *seal->keys);
    cf_release(seal->platform, seal);
}

bool cf_seal_takes_plain(const cf_seal *seal) { return seal->plain_until && cf_wall(seal->platform) < seal->plain_until; }

/* The key of one message, from the first half of its nonce. */
static bool message_key(cf_seal *seal, const one_key *key, const unsigned char *nonce, unsigned char out[KEY])
{
    unsigned char blocks[2 * BLOCK] = {0};
    for (int i = 0; i < 2; i++) {
        unsigned char *block = blocks + i * BLOCK;
        block[1] = (unsigned char)(i + 1);
        block[2] = 'X';
        memcpy(block + 4, nonce, 12);
        for (int j = 0; j < BLOCK; j++)
            block[j] ^= key->k1[j];
    }
    return encrypt_blocks(seal, key->key, blocks, 2, out);
}

static int append(cf_seal *seal, cf_slice part)
{
    unsigned char length[4] = {(unsigned char)(part.len >> 24), (unsigned char)(part.len >> 16), (unsigned char)(part.len >> 8),
                               (unsigned char)part.len};
    int           rc = cf_buffer_append(seal->platform, &seal->bound, cf_bytes(length, sizeof length));
    return rc == CF_OK ? cf_buffer_append(seal->platform, &seal->bound, part) : rc;
}

/* An envelope opens under the key it was made for, and nowhere else. */
static int bind(cf_seal *seal, cf_slice key, const char *head)
{
    seal->bound.len = 0;
    int rc = append(seal, cf_text(bound_to));
    if (rc == CF_OK) rc = append(seal, key);
    return rc == CF_OK ? append(seal, cf_bytes(head, HEAD)) : rc;
}

static bool start(cf_seal *seal, const one_key *key, const unsigned char *nonce, int seals)
{
    unsigned char once[KEY];
    int           len = 0;
    bool          done = message_key(seal, key, nonce, once) &&
                EVP_CipherInit_ex(seal->gcm, NULL, NULL, once, nonce + 12, seals) == 1 &&
                EVP_CipherUpdate(seal->gcm, NULL, &len, (const unsigned char *)seal->bound.ptr, (int)seal->bound.len) == 1;
    OPENSSL_cleanse(once, sizeof once);
    return done;
}

int cf_seal_close(cf_seal *seal, cf_slice key, cf_slice value, cf_buffer *out)
{
    const one_key *with = &seal->keys[0];
    size_t         at = out->len;
    int            rc = cf_buffer_reserve(seal->platform, out, at + value.len + CF_SEAL_MORE), len = 0;
    if (rc != CF_OK) return rc;
    char *head = out->ptr + at;
    memcpy(head, magic, MAGIC);
    head[MAGIC] = XAES_256_GCM;
    for (int i = 0; i < ID; i++)
        head[MAGIC + 1 + i] = (char)(with->id >> (24 - 8 * i));
    unsigned char *nonce = (unsigned char *)head + HEAD, *body = nonce + NONCE;
    if (seal->platform->random(seal->platform->self, nonce, NONCE) != 0) return CF_EUNAVAILABLE;
    if ((rc = bind(seal, key, head)) != CF_OK) return rc;
    if (!start(seal, with, nonce, 1) ||
        (value.len && EVP_EncryptUpdate(seal->gcm, body, &len, (const unsigned char *)value.ptr, (int)value.len) != 1) ||
        EVP_EncryptFinal_ex(seal->gcm, body + len, &(int){0}) != 1 ||
        EVP_CIPHER_CTX_ctrl(seal->gcm, EVP_CTRL_GCM_GET_TAG, TAG, body + value.len) != 1)
        return CF_EUNAVAILABLE;
    out->len = at + value.len + CF_SEAL_MORE;
    return CF_OK;
}

static const one_key *find(const cf_seal *seal, const unsigned char *id)
{
    uint32_t wanted = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
    for (size_t i = 0; i < seal->count; i++)
        if (seal->keys[i].id == wanted) return &seal->keys[i];
    return NULL;
}

static bool is_current(const cf_seal *seal, cf_slice envelope)
{
    const unsigned char *head = (const unsigned char *)envelope.ptr;
    return envelope.len >= CF_SEAL_MORE && cf_is_sealed(envelope) && head[MAGIC] == XAES_256_GCM && find(seal, head + MAGIC + 1) == &seal->keys[0];
}

int cf_seal_open(cf_seal *seal, cf_slice key, cf_buffer *value, const char **why)
{
    unsigned char *head = (unsigned char *)value->ptr;
    int            len = 0, more = 0;
    bool           sealed = cf_is_sealed(cf_bytes(value->ptr, value->len));
    if (!sealed && cf_seal_takes_plain(seal)) return CF_OK;
    *why = "the value is not sealed, or not by this library (for what was stored before sealing began there is plain_until)";
    if (value->len < CF_SEAL_MORE || !sealed) return CF_ECORRUPT;
    *why = "the value is sealed in a way that this version does not know";
    if (head[MAGIC] != XAES_256_GCM) return CF_ECORRUPT;
    *why = "the value is sealed with a key that is not in the ring";
    const one_key *with = find(seal, head + MAGIC + 1);
    if (!with) return CF_ECORRUPT;
    *why = "no memory to open a value";
    int rc = bind(seal, key, value->ptr);
    if (rc != CF_OK) return rc;
    unsigned char *nonce = head + HEAD, *body = nonce + NONCE;
    size_t         size = value->len - CF_SEAL_MORE;
    *why = "OpenSSL failed to open a value";
    if (!start(seal, with, nonce, 0)) return CF_EUNAVAILABLE;
    *why = "the value's seal is broken: it was changed, moved from another key, or sealed with another key of the same id";
    if ((size && EVP_DecryptUpdate(seal->gcm, body, &len, body, (int)size) != 1) ||
        EVP_CIPHER_CTX_ctrl(seal->gcm, EVP_CTRL_GCM_SET_TAG, TAG, body + size) != 1 ||
        EVP_DecryptFinal_ex(seal->gcm, body + len, &more) != 1)
        return CF_ECORRUPT;
    memmove(value->ptr, body, size);
    value->len = size;
    return CF_OK;
}

int cf_seal_renew(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out)
{
    const char *why;
    cf_buffer   plain = {0};
    if (is_current(seal, old)) return CF_SEAL_CURRENT;
    int rc = cf_buffer_append(seal->platform, &plain, old);
    if (rc == CF_OK) rc = cf_seal_open(seal, key, &plain, &why);
    if (rc == CF_OK) rc = cf_seal_close(seal, key, cf_bytes(plain.ptr, plain.len), out);
    cf_wipe(plain.ptr, plain.cap);
    cf_buffer_free(seal->platform, &plain);
    return rc;
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int cf_seal_close_text(cf_seal *seal, cf_slice key, cf_slice text, cf_buffer *out)
{
    cf_buffer envelope = {0};
    int       rc = cf_seal_close(seal, key, text, &envelope);
    size_t    count = (envelope.len * 8 + 5) / 6;
    if (rc == CF_OK) rc = cf_buffer_reserve(seal->platform, out, out->len + sizeof CF_SEALED_MARK - 1 + count);
    if (rc == CF_OK) rc = cf_buffer_append(seal->platform, out, cf_text(CF_SEALED_MARK));
    for (size_t i = 0; i < count && rc == CF_OK; i++) {
        size_t   byte = i * 6 / 8;
        unsigned pair = (unsigned)(unsigned char)envelope.ptr[byte] << 8;
        if (byte + 1 < envelope.len) pair |= (unsigned char)envelope.ptr[byte + 1];
        out->ptr[out->len++] = digits[(pair >> (10 - i * 6 % 8)) & 63];
    }
    cf_buffer_free(seal->platform, &envelope);
    return rc;
}

/* The envelope that a text says. */
static int envelope_of(cf_seal *seal, cf_slice sealed, cf_buffer *out, const char **why)
{
    size_t mark = sizeof CF_SEALED_MARK - 1, count = sealed.len - mark;
    out->len = 0;
    *why = "no memory to open a token";
    if (cf_buffer_reserve(seal->platform, out, count + 1) != CF_OK) return CF_ENOMEM;
    *why = "the token's seal is broken";
    unsigned bits = 0, have = 0;
    for (size_t i = 0; i < count; i++) {
        char        c = sealed.ptr[mark + i];
        const char *digit = c ? strchr(digits, c) : NULL;
        if (!digit) return CF_ECORRUPT;
        bits = (bits << 6 | (unsigned)(digit - digits)) & 0xffff;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        out->ptr[out->len++] = (char)(bits >> have);
    }
    return have >= 6 || bits & ((1U << have) - 1) ? CF_ECORRUPT : CF_OK; /* two texts for one token */
}

static bool begins_sealed_text(cf_slice text) { return cf_slice_starts(text, cf_text(CF_SEALED_MARK)); }

/* A token that was kept before there were keys. */
static int take_plain_text(cf_seal *seal, cf_slice text, cf_buffer *out, const char **why)
{
    out->len = 0;
    *why = "the token is not sealed, and this store has keys (for what was stored before it had there is plain_until)";
    if (!cf_seal_takes_plain(seal)) return CF_ECORRUPT;
    *why = "no memory to open a token";
    return cf_buffer_append(seal->platform, out, text);
}

/* What an envelope in a text holds must begin as one: there, what is plain is not taken. */
static int open_envelope(cf_seal *seal, cf_slice key, cf_buffer *out, const char **why)
{
    return cf_is_sealed(cf_bytes(out->ptr, out->len)) ? cf_seal_open(seal, key, out, why) : CF_ECORRUPT;
}

int cf_seal_open_text(cf_seal *seal, cf_slice key, cf_slice sealed, cf_buffer *out, const char **why)
{
    if (!begins_sealed_text(sealed)) return take_plain_text(seal, sealed, out, why);
    int rc = envelope_of(seal, sealed, out, why);
    return rc == CF_OK ? open_envelope(seal, key, out, why) : rc;
}

int cf_seal_renew_text(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out)
{
    const char *why;
    cf_buffer   plain = {0};
    bool        sealed = begins_sealed_text(old);
    int rc = sealed ? envelope_of(seal, old, &plain, &why) : take_plain_text(seal, old, &plain, &why);
    if (rc == CF_OK && sealed) rc = is_current(seal, cf_bytes(plain.ptr, plain.len)) ? CF_SEAL_CURRENT : open_envelope(seal, key, &plain, &why);
    if (rc == CF_OK) rc = cf_seal_close_text(seal, key, cf_bytes(plain.ptr, plain.len), out);
    cf_wipe(plain.ptr, plain.cap);
    cf_buffer_free(seal->platform, &plain);
    return rc;
}

int cf_seal_name(cf_slice key, char out[CF_HASHED])
{
    static const char label[] = "counterfoil key"; /* with its NUL, which is in no key */
    unsigned char     hash[33] = {0};
    EVP_MD_CTX       *context = EVP_MD_CTX_new();
    bool              done = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(context, label, sizeof label) == 1 && EVP_DigestUpdate(context, key.ptr, key.len) == 1 &&
                EVP_DigestFinal_ex(context, hash, NULL) == 1;
    EVP_MD_CTX_free(context);
    if (!done) return CF_EUNAVAILABLE;
    for (int i = 0; i < CF_HASHED; i++) {
        int bit = i * 6, byte = bit / 8;
        out[i] = digits[((hash[byte] << 8 | hash[byte + 1]) >> (10 - bit % 8)) & 63];
    }
    return CF_OK;
}

bool cf_seal_there(void) { return true; }

#else

int cf_seal_check(const cf_key *keys, size_t count, cf_error *error)
{
    (void)keys;
    (void)count;
    return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "this build has no OpenSSL, so it cannot seal");
}
int cf_seal_new(const cf_platform *platform, const cf_key *keys, size_t count, int64_t plain_until, cf_seal **out, cf_error *error)
{
    (void)platform;
    (void)keys;
    (void)count;
    (void)plain_until;
    *out = NULL;
    return cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "this build has no OpenSSL, so it cannot seal");
}
void cf_seal_free(cf_seal *seal) { (void)seal; }
int  cf_seal_close(cf_seal *seal, cf_slice key, cf_slice value, cf_buffer *out)
{
    return (void)seal, (void)key, (void)value, (void)out, CF_ENOTSUP;
}
int cf_seal_open(cf_seal *seal, cf_slice key, cf_buffer *value, const char **why)
{
    return (void)seal, (void)key, (void)value, *why = "", CF_ENOTSUP;
}
int cf_seal_close_text(cf_seal *seal, cf_slice key, cf_slice text, cf_buffer *out)
{
    return (void)seal, (void)key, (void)text, (void)out, CF_ENOTSUP;
}
int cf_seal_open_text(cf_seal *seal, cf_slice key, cf_slice sealed, cf_buffer *out, const char **why)
{
    return (void)seal, (void)key, (void)sealed, (void)out, *why = "", CF_ENOTSUP;
}
int  cf_seal_name(cf_slice key, char out[CF_HASHED]) { return (void)key, (void)out, CF_ENOTSUP; }
int  cf_seal_renew(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out) { return (void)seal, (void)key, (void)old, (void)out, CF_ENOTSUP; }
int  cf_seal_renew_text(cf_seal *seal, cf_slice key, cf_slice old, cf_buffer *out) { return (void)seal, (void)key, (void)old, (void)out, CF_ENOTSUP; }
bool cf_seal_takes_plain(const cf_seal *seal) { return (void)seal, false; }
bool cf_seal_there(void) { return false; }
#endif
