/* email.c: when two e-mail addresses are one. */
#include "util.h"

#include <idn2.h>

static bool space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char small(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* What IDNA makes of a domain must be a host name: it also maps signs onto ASCII (a full-width @, a no-break space), and lets labels vanish (a soft hyphen). */
static bool is_host_name(const char *name)
{
    size_t label = 0;
    for (const char *at = name; *at; at++) {
        if (*at == '.' && label == 0) return false;
        if (*at != '.' && *at != '-' && !(*at >= 'a' && *at <= 'z') && !(*at >= '0' && *at <= '9')) return false;
        label = *at == '.' ? 0 : label + 1;
    }
    return *name != 0; /* the dot of the root may end it */
}

/* The A-labels of a domain that is not all ASCII: lower case, UTS #46 (not transitional: what was once folded, as sharp s, is itself), NFC, and IDNA2008's rules.
 * Not IDN2_USE_STD3_ASCII_RULES: libidn2 2.3.3 leaves out what these forbid, so that a_b were ab. */
static int put_a_labels(cf_slice domain, char *out, size_t room, size_t *len, const char **fault)
{
    char   given[CF_EMAIL_MAX + 1];
    size_t used = 0;
    for (size_t i = 0; i < domain.len; i++) {
        /* The capital sharp s is the small one, as from Unicode 15.1 on: before, it was ss, which is another domain; libraries have either table. */
        if (domain.len - i >= 3 && memcmp(domain.ptr + i, "\xe1\xba\x9e", 3) == 0) {
            memcpy(given + used, "\xc3\x9f", 2);
            used += 2;
            i += 2;
        } else
            given[used++] = domain.ptr[i];
    }
    given[used] = 0;
    uint8_t *name = NULL;
    int      rc = idn2_lookup_u8((const uint8_t *)given, &name, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (rc == IDN2_MALLOC) return CF_ENOMEM;
    size_t size = rc == IDN2_OK ? strlen((const char *)name) : 0;
    if (rc != IDN2_OK || !is_host_name((const char *)name))
        *fault = "has a domain that is no domain name (IDNA); its ASCII form (xn--) would do";
    else if (size > room)
        *fault = "is longer than 320 bytes with its domain in ASCII (xn--)";
    else
        memcpy(out, name, *len = size);
    idn2_free(name);
    return *fault ? CF_EINVAL : CF_OK;
}

int cf_email_key(cf_slice address, char *out, size_t *len, const char **fault)
{
    *len = 0;
    *fault = NULL;
    while (address.len && space(address.ptr[0])) address = cf_bytes(address.ptr + 1, address.len - 1);
    while (address.len && space(address.ptr[address.len - 1])) address.len--;
    if (address.len == 0) *fault = "is empty";
    else if (address.len > CF_EMAIL_MAX) *fault = "is longer than 320 bytes";
    else *fault = cf_key_fault(address);
    size_t local = address.len; /* with its @; without one, all */
    bool   ascii = true;        /* what comes behind it */
    for (size_t i = 0; i < address.len && !*fault; i++) {
        char c = address.ptr[i];
        if ((unsigned char)c < ' ' || c == 0x7f) *fault = "contains a control character";
        /* Letters outside ASCII stay as they are: to take a Kelvin sign for a k would give one person's account to another. */
        out[i] = small(c);
        if (c == '@') local = i + 1;
        ascii = c == '@' || (ascii && (unsigned char)c < 0x80);
    }
    if (*fault) return CF_EINVAL;
    *len = address.len;
    /* What is ASCII is nobody's to refuse: localhost, a_b, [192.0.2.1]. */
    if (local == address.len || ascii) return CF_OK;
    size_t domain = 0;
    int    rc = put_a_labels(cf_bytes(address.ptr + local, address.len - local), out + local, CF_EMAIL_MAX - local, &domain, fault);
    *len = rc == CF_OK ? local + domain : 0;
    return rc;
}

const char *cf_email_normalise(cf_slice address, char *out, size_t *len)
{
    const char *fault;
    int         rc = cf_email_key(address, out, len, &fault);
    return rc == CF_ENOMEM ? "has a domain for which there is no memory" : fault;
}
