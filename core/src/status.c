#include "util.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "version.h"

const char *cf_version(void) { return CF_VERSION_TEXT; }

const char *cf_status_name(int status)
{
    switch (status) {
    case CF_PENDING: return "PENDING";
    case CF_OK: return "OK";
    case CF_EINVAL: return "INVALID";
    case CF_ENOMEM: return "NO_MEMORY";
    case CF_ETIMEOUT: return "TIMEOUT";
    case CF_EUNAVAILABLE: return "UNAVAILABLE";
    case CF_EBUSY: return "BUSY";
    case CF_ENOTSUP: return "NOT_SUPPORTED";
    case CF_ECORRUPT: return "CORRUPT";
    case CF_ECLOSED: return "CLOSED";
    case CF_EFORKED: return "FORKED";
    case CF_EEXISTS: return "EXISTS";
    case CF_EAUTH: return "AUTH";
    case CF_EHOST: return "HOST";
    case CF_ECANCELED: return "CANCELED";
    case CF_ECHANGED: return "CHANGED";
    case CF_ELIMIT: return "LIMIT";
    case CF_EMISSING: return "MISSING";
    case CF_ECURSOR: return "CURSOR";
    default: return "UNKNOWN_STATUS";
    }
}

const char *cf_outcome_name(int outcome)
{
    switch (outcome) {
    case CF_NOT_APPLIED: return "not_applied";
    case CF_APPLIED: return "applied";
    default: return "unknown";
    }
}

const char *cf_event_name(int event)
{
    static const char *const names[CF_EVENTS] = {"connect", "disconnect", "error", "warning"};
    return event >= 0 && event < CF_EVENTS ? names[event] : "unknown";
}

int cf_error_setv(cf_error *error, int status, int outcome, const char *format, va_list args)
{
    if (!error) return status;
    error->status = status;
    error->outcome = outcome;
    vsnprintf(error->text, sizeof error->text, format, args);
    return status;
}

int cf_error_set(cf_error *error, int status, int outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cf_error_setv(error, status, outcome, format, args);
    va_end(args);
    return status;
}

static int from_seconds(const char *what, double seconds, int64_t max_ms, bool zero, int64_t *ms, cf_error *error)
{
    if (isnan(seconds)) return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s is not a number (NaN)", what);
    if (seconds < 0 || (seconds == 0 && !zero))
        return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, zero ? "%s must not be before 1970" : "%s must be greater than 0 seconds", what);
    if (seconds > (double)max_ms / 1000)
        return cf_error_set(error, CF_EINVAL, CF_NOT_APPLIED, "%s is too large: at most %lld seconds are allowed", what,
                            (long long)(max_ms / 1000));
    /* What was meant as a whole number of milliseconds must not gain one by the binary fraction: 1.001 s is 1001 ms. */
    double exact = seconds * 1000, near = nearbyint(exact);
    *ms = (int64_t)(zero || fabs(exact - near) < 1e-6 ? near : ceil(exact));
    if (*ms < 1 && !zero) *ms = 1;
    if (*ms > max_ms) *ms = max_ms;
    return CF_OK;
}

int cf_ttl_from_seconds(double seconds, int64_t *ms, cf_error *error)
{
    return from_seconds("ttl", seconds, CF_TTL_MAX, false, ms, error);
}

int cf_timeout_from_seconds(double seconds, int64_t *ms, cf_error *error)
{
    return from_seconds("timeout", seconds, CF_TIMEOUT_MAX, false, ms, error);
}

int cf_instant_from_seconds(double seconds, int64_t *ms, cf_error *error)
{
    /* 9999-12-31: no host's date type goes beyond; how far ahead of now is judged when it is used. */
    return from_seconds("expires_at", seconds, INT64_C(253402300799999), true, ms, error);
}
