/* url.c: takes a store's URL apart. Percent-decodes once. Errors never show the URL, which may hold a password. */
#include "core.h"

static int refuse(cf_error *error, const char *text) { return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s", text); }

static bool scheme_char(char c, bool first)
{
    if (c >= 'a' && c <= 'z') return true;
    return !first && ((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.');
}

/* Decodes into `out`, which has room: decoding never lengthens. */
static int decode(cf_slice text, cf_buffer *out, cf_slice *decoded, cf_error *error)
{
    size_t      len;
    const char *fault = cf_percent_decode(text, out->ptr + out->len, &len);
    if (fault) return refuse(error, fault);
    *decoded = cf_bytes(out->ptr + out->len, len);
    out->len += len;
    return CF_OK;
}

static cf_slice cut(cf_slice *text, char at, bool *found)
{
    const char *where = text->len ? memchr(text->ptr, at, text->len) : NULL;
    *found = where != NULL;
    cf_slice before = where ? cf_bytes(text->ptr, (size_t)(where - text->ptr)) : *text;
    *text = where ? cf_bytes(where + 1, text->len - before.len - 1) : cf_bytes(text->ptr + text->len, 0);
    return before;
}

static int parse_options(cf_slice query, cf_parsed_url *out, cf_error *error)
{
    while (query.len) {
        bool more, has_value;
        cf_slice pair = cut(&query, '&', &more);
        cf_slice name = cut(&pair, '=', &has_value);
        if (!has_value || name.len == 0) return refuse(error, "an option of the URL is not of the form name=value");
        if (out->url.option_count == sizeof out->options / sizeof *out->options) return refuse(error, "the URL has too many options");
        cf_url_option *option = &out->options[out->url.option_count];
        int rc = decode(name, &out->text, &option->name, error);
        if (rc == CF_OK) rc = decode(pair, &out->text, &option->value, error);
        if (rc != CF_OK) return rc;
        for (size_t i = 0; i < out->url.option_count; i++)
            if (cf_slice_equal(out->options[i].name, option->name)) return refuse(error, "an option of the URL is given twice");
        out->url.option_count++;
    }
    return CF_OK;
}

static int parse(const cf_platform *platform, cf_slice text, cf_parsed_url *out, cf_error *error)
{
    enum { LONGEST = 4096 };
    static const char shape[] = "a store's URL looks like scheme:rest, for example sqlite:app.db, memory: or redis://localhost";
    if (text.len == 0) return refuse(error, shape);
    if (text.len > LONGEST) return refuse(error, "the URL is longer than 4096 bytes");
    if (cf_buffer_reserve(platform, &out->text, text.len) != CF_OK)
        return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a URL");
    if (memchr(text.ptr, '#', text.len)) return refuse(error, "the URL has a #, which starts a fragment; in a name or password it is written %23");
    bool found;
    cf_slice rest = text, scheme = cut(&rest, ':', &found);
    if (!found || scheme.len == 0) return refuse(error, shape);
    for (size_t i = 0; i < scheme.len; i++)
        if (!scheme_char(scheme.ptr[i], i == 0)) return refuse(error, shape);
    out->url.scheme = scheme;
    cf_slice query = rest;
    rest = cut(&query, '?', &found);
    if (rest.len >= 2 && rest.ptr[0] == '/' && rest.ptr[1] == '/') {
        cf_slice after = cf_bytes(rest.ptr + 2, rest.len - 2);
        const char *slash = after.len ? memchr(after.ptr, '/', after.len) : NULL;
        out->url.authority = cf_bytes(after.ptr, slash ? (size_t)(slash - after.ptr) : after.len);
        rest = cf_bytes(after.ptr + out->url.authority.len, after.len - out->url.authority.len);
    }
    int rc = decode(rest, &out->text, &out->url.path, error);
    if (rc != CF_OK) return rc;
    out->url.options = out->options;
    return parse_options(query, out, error);
}

int cf_url_parse(const cf_platform *platform, cf_slice text, cf_parsed_url *out, cf_error *error)
{
    *out = (cf_parsed_url){0};
    int rc = parse(platform, text, out, error);
    if (rc != CF_OK) cf_url_free(platform, out);
    return rc;
}

void cf_url_free(const cf_platform *platform, cf_parsed_url *url) { cf_buffer_free(platform, &url->text); }
