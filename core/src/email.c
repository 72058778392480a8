/* email.c: when two e-mail addresses are one. */
#include "util.h"

static bool space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

const char *cf_email_normalise(cf_slice address, char *out, size_t *len)
{
    *len = 0;
    while (address.len && space(address.ptr[0])) address = cf_bytes(address.ptr + 1, address.len - 1);
    while (address.len && space(address.ptr[address.len - 1])) address.len--;
    if (address.len == 0) return "is empty";
    if (address.len > CF_EMAIL_MAX) return "is longer than 320 bytes";
    const char *fault = cf_key_fault(address);
    if (fault) return fault;
    for (size_t i = 0; i < address.len; i++) {
        char c = address.ptr[i];
        if ((unsigned char)c < ' ' || c == 0x7f) return "contains a control character";
        /* Letters outside ASCII stay as they are: to take a Kelvin sign for a k would give one person's account to another. */
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
    }
    *len = address.len;
    return NULL;
}
